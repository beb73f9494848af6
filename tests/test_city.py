"""edged-city: keys, init, allow, revoke, listen. Nothing is written over, no secret is shown, errors are one line."""

import json
import os
import re
import signal
import stat
from dataclasses import replace

import pytest

from edged.alerts import bundle, cityconfig, keys, nodes
from edged.alerts.reports import Received
from edged.alerts.subscriber import Subscriber
from edged.bus import generate_keys, public_of
from edged.camera import clip
from edged.enclave.slots import read_slots
from edged.enclave.wire import KeyKind
from edged.errors import UsageError
from edged.trust.agreement import open_agreement, sign
from twin import City, Listening, Peer, plain, run


@pytest.fixture
def city(tmp_path):
    return City(tmp_path / "city", recipients=("city", "police"), bundle=False)


def modes(folder):
    return {str(path.relative_to(folder)): stat.S_IMODE(path.stat().st_mode)
            for path in folder.rglob("*") if path.is_file()}


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# ----------------------------------------------------------------------------------------------------- keys


def test_keys_are_drawn_for_each_recipient_and_are_readable_by_their_user_alone(tmp_path, capsys):
    before = os.umask(0)
    try:
        code, out, err = run(capsys, "keys", "--dir", tmp_path / "city", "--recipient", "city", "--recipient", "police",
                             "--alert-key-bytes", 16, "--data-key-bytes", 16)
    finally:
        os.umask(before)
    assert code == 0 and err == ""
    found = modes(tmp_path / "city")
    assert sorted(found) == ["alert-city.id", "alert-city.key", "alert-police.id", "alert-police.key", "curve.key",
                             "data.id", "data.key", "public.toml", "qdo.key"]
    assert set(found.values()) == {0o600} and stat.S_IMODE((tmp_path / "city").stat().st_mode) == 0o700
    public = keys.read_public(str(tmp_path / "city"))
    assert [one.name for one in public.recipients] == ["city", "police"]
    for name in ("alert-city.key", "data.key"):
        assert len((tmp_path / "city" / name).read_bytes()) == 16
    assert public_of((tmp_path / "city" / "curve.key").read_bytes()).decode() == public.curve
    assert keys.public_bytes(keys.read_signing_key(str(tmp_path / "city"))) == public.qdo
    assert (tmp_path / "city" / "data.id").read_text().strip() == public.data_key_id.hex()
    assert run(capsys, "keys", "renew", "--dir", tmp_path / "city")[0] == 0
    for name in ("alert-police.2.key", "data.2.key"):
        assert len((tmp_path / "city" / name).read_bytes()) == 16, "as long as the former one"
    public = keys.read_public(str(tmp_path / "city"))
    assert (tmp_path / "city" / "data.2.id").read_text().strip() == public.data_key_id.hex()


def test_what_others_may_know_holds_no_secret(city):
    text = (city.folder / "public.toml").read_text()
    for path in city.folder.glob("*.key"):
        secret = path.read_bytes()
        assert secret.hex() not in text and secret.decode("latin-1") not in text


def test_keys_are_never_written_over(city, capsys):
    before = contents(city.folder)
    code, out, err = run(capsys, "keys", "--dir", city.folder)
    assert code == 77 and "is not empty: keys are not written over" in err and err.count("\n") == 1
    assert contents(city.folder) == before


@pytest.mark.parametrize("arguments", [["--recipient", "City Hall"], ["--recipient", "a", "--recipient", "a"],
                                       sum((["--recipient", name] for name in "abcde"), [])])
def test_recipients_that_make_no_sense_are_refused_before_anything_is_written(tmp_path, capsys, arguments):
    code, _, err = run(capsys, "keys", "--dir", tmp_path / "new", *arguments)
    assert code == 2 and "recipient" in err and not (tmp_path / "new").exists()


# ------------------------------------------------------------------------------------------------------ init


def agreement_file(city, **terms):
    path = city.folder.parent / "agreement.cose"
    path.write_bytes(city.agree(**terms) if terms else city.signed)
    return path


def init(capsys, city, *more, agreement=None):
    return run(capsys, "init", "--dir", city.folder, "--agreement", agreement or agreement_file(city),
               "--recipient", "city", "--bind", "tcp://127.0.0.1:0", "--address", "tcp://city.example:7443",
               "--camera", "gate", "--camera", "yard", "--bundle", city.bundle, *more)


def test_init_writes_a_configuration_that_works_and_a_bundle_with_what_a_node_needs(city, capsys):
    code, out, err = init(capsys, city)
    assert code == 0 and err == "" and "edgectl install" in out
    config = cityconfig.load(str(city.folder / "subscriber.toml"))
    assert config.recipient == city.public.recipients[0].rcpt and config.mo == city.agreement.mo
    Subscriber(config).close()
    made = bundle.read(str(city.bundle))
    assert made.signed == city.signed and made.server_key == city.public.curve and made.slots == ()
    data_key = (city.folder / "data.key").read_bytes()
    assert made.cameras == tuple((name, clip.camera_key(data_key, name.encode().ljust(32, b"\0")))
                                 for name in ("gate", "yard"))
    assert set(modes(city.bundle).values()) == {0o600}


def test_a_bundle_for_hardware_holds_no_key_but_its_cameras(city, capsys):
    init(capsys, city)
    everything = b"".join(contents(city.bundle).values())
    for path in city.folder.glob("*.key"):
        assert path.read_bytes() not in everything and path.read_bytes().hex().encode() not in everything


def test_a_bundle_for_an_emulated_enclave_fills_its_slots(city, capsys, tmp_path):
    (tmp_path / "model.key").write_bytes(b"M" * 32)
    (tmp_path / "model.key").chmod(0o600)
    assert init(capsys, city, "--emulated", "--model-key-file", tmp_path / "model.key")[0] == 0
    slots = read_slots(city.bundle / "slots")
    agreement = city.agreement
    assert [(slot.number, slot.kind, slot.key_id, slot.verifier) for slot in slots] == [
        (0, KeyKind.MODEL, agreement.model.key_id, agreement.mo), (1, KeyKind.DATA, agreement.data_key, agreement.qdo),
        (2, KeyKind.ALERT, agreement.recipients[0].alert_key, agreement.qdo),
        (3, KeyKind.ALERT, agreement.recipients[1].alert_key, agreement.qdo)]
    assert [slot.read_key() for slot in slots] == [b"M" * 32] + [
        (city.folder / name).read_bytes() for name in ("data.key", "alert-city.key", "alert-police.key")]


def test_a_second_node_gets_a_bundle_of_its_own_and_the_configuration_stays(city, capsys):
    assert init(capsys, city)[0] == 0
    config = (city.folder / "subscriber.toml").read_text() + "keep_rows = 5\n"
    (city.folder / "subscriber.toml").write_text(config)
    first, city.bundle = city.bundle, city.folder.parent / "second"
    assert init(capsys, city)[0] == 0
    assert (city.folder / "subscriber.toml").read_text() == config
    assert (first / "cameras" / "gate.key").read_bytes() == (city.bundle / "cameras" / "gate.key").read_bytes()


@pytest.mark.parametrize("more, code, words", [
    (["--recipient", "mayor"], 2, "--recipient mayor: one of city, police"),
    (["--camera", "Gate 1"], 2, "camera 'Gate 1'"), (["--camera", "gate"], 2, "each once"),
    (["--address", "city.example"], 2, "--address city.example: tcp://HOST:PORT"),
    (["--address", "tcp://a\"b:1"], 2, "--address"), (["--bind", "nowhere"], 2, "--bind nowhere"),
    (["--mo", "00" * 32], 76, "its model owner is"), (["--mo", "zz"], 2, "--mo zz: 64 digits"),
    (["--emulated"], 2, "--emulated and --model-key-file belong together"),
    (["--agreement", "/nonexistent"], 66, "/nonexistent: No such file"),
    (["--agreement", "/etc/hostname"], 65, "agreement of .* bytes"),
])
def test_bad_input_to_init_is_one_line_and_leaves_nothing(city, capsys, more, code, words):
    before = contents(city.folder)
    found, _, err = init(capsys, city, *more)
    assert found == code and re.search(words, err) and err.count("\n") == 1
    assert contents(city.folder) == before and not city.bundle.exists()


def test_an_agreement_of_another_city_is_refused(city, capsys, tmp_path):
    other = City(tmp_path / "other", bundle=False)
    found, _, err = init(capsys, city, agreement=agreement_file(other))
    assert found == 76 and "its query data owner is" in err and not city.bundle.exists()


@pytest.mark.parametrize("other, words", [
    (lambda city: dict(data_key=b"x" * 16), "names data key 78"),
    (lambda city: dict(recipients=city.agreement.recipients[1:]), "does not name recipient city"),
    (lambda city: dict(recipients=(city.agreement.recipients[0]._replace(alert_key=b"x" * 16),)),
     "does not name recipient city")])
def test_an_agreement_of_other_keys_of_this_city_is_refused(city, capsys, other, words):
    payload = replace(city.agreement, **other(city)).encode()
    path = city.folder.parent / "agreement.cose"
    path.write_bytes(sign(payload, city.mo_key, keys.read_signing_key(str(city.folder))))
    found, _, err = init(capsys, city, agreement=path)
    assert found == 77 and words in err and err.count("\n") == 1 and not city.bundle.exists()


def test_an_agreement_altered_after_it_was_signed_is_refused(city, capsys):
    path = agreement_file(city)
    content = bytearray(path.read_bytes())
    at = bytes(content).index(b"falling")
    content[at:at + 7] = b"nothing"
    path.write_bytes(content)
    found, _, err = init(capsys, city, agreement=path)
    assert found == 76 and "signature does not verify" in err and not city.bundle.exists()


def test_a_bundle_is_never_written_over(city, capsys):
    assert init(capsys, city)[0] == 0
    before = contents(city.folder.parent)
    found, _, err = init(capsys, city)
    assert found == 77 and "choose a new folder for the bundle" in err and contents(city.folder.parent) == before


def test_an_agreement_that_the_configuration_does_not_list_is_told(city, capsys):
    assert init(capsys, city)[0] == 0
    city.bundle = city.folder.parent / "second"
    found, _, err = init(capsys, city, agreement=agreement_file(city, number=2))
    assert found == 78 and "agreements does not list agreement 2" in err and not city.bundle.exists()


def test_the_demo_agreement_is_signed_by_both_and_names_every_recipient(city):
    agreement = open_agreement(city.signed, keys.public_bytes(city.mo_key), city.public.qdo)
    assert [(one.rcpt, one.alert_key) for one in agreement.recipients] == [one[1:] for one in city.public.recipients]
    assert agreement.data_key == city.public.data_key_id
    assert [rule.label for rule in agreement.rules] == ["falling", "jumping"]


# ------------------------------------------------------------------------------------------------- allow, revoke


@pytest.fixture
def listed(city, capsys):
    assert init(capsys, city)[0] == 0
    return city


def key():
    return generate_keys().public.decode()


def test_a_node_is_listed_by_name_and_key_and_again_without_harm(listed, capsys):
    first, node = key(), "ab" * 16
    assert run(capsys, "allow", "north", "--key=" + first, "--dir", listed.folder)[0] == 0
    assert run(capsys, "allow", "north", "--key=" + first, "--node", node, "--dir", listed.folder)[0] == 0
    assert nodes.read_nodes(listed.nodes_file) == (nodes.Listed("north", first, bytes.fromhex(node), False),)


def test_a_revoked_key_stays_listed_and_the_name_may_get_another(listed, capsys):
    first, second = key(), key()
    for step in (["allow", "north", "--key=" + first], ["revoke", "north"], ["allow", "north", "--key=" + second]):
        assert run(capsys, *step, "--dir", listed.folder)[0] == 0
    assert [(one.key, one.revoked) for one in nodes.read_nodes(listed.nodes_file)] == [(first, True), (second, False)]
    assert run(capsys, "revoke", second, "--dir", listed.folder)[0] == 0
    assert all(one.revoked for one in nodes.read_nodes(listed.nodes_file))


def test_the_name_of_the_board_stays_with_the_node_whose_key_changes(listed, capsys):
    first, second, node = key(), key(), "ab" * 16
    for step in (["allow", "north", "--key=" + first, "--node", node], ["revoke", "north"],
                 ["allow", "north", "--key=" + second], ["allow", "south", "--key=" + key()]):
        assert run(capsys, *step, "--dir", listed.folder)[0] == 0
    assert [one.node for one in nodes.read_nodes(listed.nodes_file)] == [bytes.fromhex(node)] * 2 + [None]


def test_a_board_is_pinned_for_its_node_alone(listed, capsys):
    old, new, path = bytes(16), bytes(range(16)), listed.nodes_file
    for name in ("north", "south"):
        assert run(capsys, "allow", name, "--key=" + key(), "--dir", listed.folder)[0] == 0
    assert nodes.pin(path, "north", old) and nodes.pin(path, "north", new) and not nodes.pin(path, "west", old)
    assert [(one.name, one.node) for one in nodes.read_nodes(path)] == [("north", new), ("south", None)]
    with pytest.raises(UsageError, match="listed already, as north"):
        nodes.pin(path, "south", new)
    nodes.revoke(path, "north")  # the key, not the board
    assert nodes.pin(path, "north", old) and nodes.read_nodes(path)[0].node == old


@pytest.mark.parametrize("step, code, words", [
    (["allow", "south", "--key=short"], 2, "not a public key of CURVE"),
    (["allow", "South", "--key={new}"], 2, "not a name"),
    (["allow", "north", "--key={new}"], 2, "north is listed with another key: `edged-city revoke north` first"),
    (["allow", "south", "--key={listed}"], 2, "this key is listed already, as north"),
    (["allow", "south", "--key={new}", "--node", "11" * 16], 2, "node 1+ is listed already, as north"),
    (["allow", "south", "--key={new}", "--node", "xx"], 2, "--node xx: 32 digits"),
    (["allow", "old", "--key={revoked}"], 77, "this key of old was revoked"),
    (["revoke", "old"], 2, "old: no node is listed so"),
    (["revoke", "nobody"], 2, "nobody: no node is listed so"),
])
def test_what_makes_no_sense_is_refused_and_changes_nothing(listed, capsys, step, code, words):
    north, old = key(), key()
    for one in (["allow", "north", "--key=" + north, "--node", "11" * 16], ["allow", "old", "--key=" + old],
                ["revoke", "old"]):
        assert run(capsys, *one, "--dir", listed.folder)[0] == 0
    before = contents(listed.folder)
    step = [one.format(new=key(), listed=north, revoked=old) for one in step]
    found, _, err = run(capsys, *step, "--dir", listed.folder)
    assert found == code and re.search(words, err) and err.count("\n") == 1 and contents(listed.folder) == before


@pytest.mark.parametrize("text, words", [
    ("colour = 1", "nodes.toml:3: colour: unknown key"),
    ("[[node]]\nname = \"n\"", "nodes.toml:3: node.key: is missing"),
    ("[[node]]\nname = \"n\"\nkey = \"k\"", "node.key: not a public key of CURVE"),
    ("[[node]]\nname = \"n\"\nkey = \"{0}\"\n[[node]]\nname = \"m\"\nkey = \"{0}\"",
     "nodes.toml:8: node.key: is there twice"),
    ("[[node]]\nname = \"n\"\nkey = \"{0}\"\n[[node]]\nname = \"n\"\nkey = \"{1}\"", "has two keys: revoke one"),
    ("[[node]]\nname = \"n\"\nkey = \"{0}\"\nrevoked = \"yes\"", "node.revoked: \"yes\": true or false is needed here"),
    ("[[node]]\nname = \"n\"\nkey = \"{0}\"\nnode = \"1\"", "node.node: \"1\": 32 digits"),
])
def test_an_allow_list_that_makes_no_sense_is_refused_with_file_and_line(listed, capsys, text, words):
    with open(listed.nodes_file, "a") as file:
        file.write(text.format(key(), key()))
    code, _, err = run(capsys, "listen", "--config", listed.folder / "subscriber.toml")
    assert code == 78 and words in err and err.count("\n") == 1


# ------------------------------------------------------------------------------------------------------ listen


@pytest.mark.parametrize("number, more", [(signal.SIGTERM, ["--json"]), (signal.SIGINT, [])])
def test_listen_prints_what_comes_and_ends_well_when_asked(listed, number, more):
    curve, enclave = listed.allow("north"), listed.enclave()
    listening = Listening(listed.folder, *more)
    peer = Peer(listening, curve, listed.public.curve)
    peer.deliver(enclave.begin(), enclave.clip(), enclave.clip(alert=0, status=1))
    enclave.clip()
    peer.deliver(enclave.clip())
    code, lines, err = listening.end(number)
    peer.close()
    assert code == 0 and err == ""
    if more:
        made = [json.loads(line) for line in lines]
        assert [line["type"] for line in made] == ["record", "epoch_began", "record", "record", "record", "gap"]
        assert made[3]["label"] == "falling" and made[3]["status"] == "Exercise" and made[5]["first"] == 4
    else:
        assert len(lines) == 3 and "epoch 1 began" in lines[0] and "!!! GAP: record 4 of epoch" in lines[2]
        assert "*** EXERCISE *** ALERT falling 0.97" in lines[1]


def test_listen_on_a_port_in_use_is_one_line(listed, capsys):
    listening = Listening(listed.folder)
    try:
        path = listed.folder / "subscriber.toml"
        path.write_text(path.read_text().replace("tcp://127.0.0.1:0", listening.address))
        code, out, err = run(capsys, "listen", "--config", path)
        assert code == 69 and out == ""
        assert err == "edged-city: {}: address in use: stop the other, or choose another port\n".format(
            listening.address)
    finally:
        assert listening.end(signal.SIGTERM)[0] == 0


@pytest.mark.parametrize("damage, code, words", [
    (lambda folder: (folder / "alert-city.key").unlink(), 66, "alert-city.key: No such file"),
    (lambda folder: (folder / "alert-city.key").chmod(0o644), 77, "alert-city.key: mode 0644 lets others at it"),
    (lambda folder: (folder / "curve.key").write_bytes(b"\1" * 40), 77, "not z85"),
    (lambda folder: (folder / "agreement-1.cose").write_bytes(b"x"), 65, "agreement of 1 bytes"),
    (lambda folder: (folder / "subscriber.toml").unlink(), 66, "subscriber.toml: No such file"),
    (lambda folder: (folder / "subscriber.toml").write_text("schema = 1\nbnd = 2\n"), 78,
     "subscriber.toml:2: bnd: unknown key"),
    (lambda folder: (folder / "journal-city.db").write_bytes(b"no database" * 99), 69, "journal-city.db: damaged"),
])
def test_what_is_missing_or_wrong_for_listen_is_one_line(listed, capsys, damage, code, words):
    damage(listed.folder)
    found, out, err = run(capsys, "listen", "--config", listed.folder / "subscriber.toml")
    assert found == code and words in err and err.count("\n") == 1 and out == ""


def test_whoever_stops_reading_ends_listen_and_what_it_did_not_read_comes_again(listed):
    """The pipe is closed under it: those lines count as not taken."""
    curve, enclave = listed.allow("north"), listed.enclave()
    listening = Listening(listed.folder, "--json")
    listening.process.stdout.close()
    peer = Peer(listening, curve, listed.public.curve)
    peer.offer(enclave.begin())
    assert listening.process.wait(timeout=20) == 69
    listening.process.stderr.close()
    peer.close()
    with Subscriber(listed.config) as subscriber:
        again = plain(subscriber.poll(0), Received)
    assert [event.record.header.seq for event in again] == [1]
