"""The city's keys renewed, the next agreement adopted, the former one dropped, its keys retired: nothing is written
over, nothing that is needed goes, and the operator's file keeps what the operator wrote.
"""

import re
import shutil
import stat
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edged.alerts import adopt, bundle, cityconfig, keyfiles, keys, nodes
from edged.alerts.bundle import camera_key
from edged.alerts.reports import Received
from edged.alerts.subscriber import Subscriber
from edged.enclave.slots import read_slots
from edged.errors import ConfigError, KeyRefused, PackageError, UsageError, VerificationFailed
from edged.keyserver.holder import of_city
from edged.trust.agreement import open_agreement, sign
from processes import ends_although_killed
from twin import City, Peer, admits_nobody, plain, run


@pytest.fixture
def city(tmp_path):
    return City(tmp_path / "city", recipients=("city", "police"))


@pytest.fixture
def guard():
    made = admits_nobody()
    yield made
    made.close()


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def current(city):
    public = keys.read_public(str(city.folder))
    return [public.data_key_id] + [one.key_id for one in public.recipients]


# ----------------------------------------------------------------------------------------------------- keys renew


def test_renewed_keys_lie_beside_the_former_ones_and_every_key_is_found_by_its_id(city, capsys):
    before, was, held = contents(city.folder), current(city), of_city(str(city.folder)).keys
    code, out, err = run(capsys, "keys", "renew", "--dir", city.folder)
    assert code == 0 and err == "" and "public.toml" in out
    after = contents(city.folder)
    assert {name: after[name] for name in before if name != "public.toml"} == {
        name: before[name] for name in before if name != "public.toml"}, "nothing was written over"
    new = sorted(set(after) - set(before))
    assert new == ["alert-city.2.id", "alert-city.2.key", "alert-police.2.id", "alert-police.2.key", "data.2.id",
                   "data.2.key"]
    assert {stat.S_IMODE((city.folder / name).stat().st_mode) for name in new} == {0o600}
    now, holds = current(city), of_city(str(city.folder)).keys
    assert not set(now) & set(was) and set(holds) == set(now) | set(was)
    assert {key_id: holds[key_id] for key_id in was} == dict(held) and len(set(holds.values())) == 6
    old, public = city.public, keys.read_public(str(city.folder))
    assert (public.qdo, public.curve) == (old.qdo, old.curve)
    assert [one[:2] for one in public.recipients] == [one[:2] for one in old.recipients]
    for secret in (after[name] for name in new if name.endswith(".key")):
        assert secret not in after["public.toml"] and secret.hex().encode() not in after["public.toml"]
        assert secret.hex() not in out


def test_keys_keep_their_size_and_are_renewed_any_number_of_times(tmp_path):
    folder = str(tmp_path / "city")
    keys.make_keys(folder, ("city", "city-2"), 16)
    for drawn in (2, 3):
        keys.renew(folder)
        files = keyfiles.read_all(folder)
        assert len(files) == 3 * drawn and {one.drawn for one in files.values()} == set(range(1, drawn + 1))
        for one in keys.read_public(folder).recipients:
            assert len(keyfiles.choose(files, folder, one.key_id, one.name).read()) == 16


def test_a_renewal_that_fails_leaves_everything_as_it_was(city, monkeypatch):
    before = contents(city.folder)

    def full(*_):
        raise OSError("disk full")

    monkeypatch.setattr(keys, "replace_file", full)
    with pytest.raises(OSError):
        keys.renew(str(city.folder))
    assert contents(city.folder) == before


def test_a_renewal_killed_before_it_was_in_force_harms_no_later_one(city, monkeypatch):
    """The keys are there, public.toml does not name them: they are nobody's."""
    public = (city.folder / "public.toml").read_bytes()
    keys.renew(str(city.folder))
    (city.folder / "public.toml").write_bytes(public)
    keys.renew(str(city.folder))
    assert (city.folder / "data.3.key").exists() and current(city)[0].hex() in (
        city.folder / "data.3.id").read_text()
    with pytest.raises(KeyRefused, match="agreement 1 names former keys"):
        adopt.retire(str(city.folder))
    assert (city.folder / "data.2.key").exists(), "an agreement that names them may be signed"


@pytest.mark.parametrize("damage, error, words", [
    (lambda folder: (folder / "alert-city.key").unlink(), 66, "alert-city.key: No such file"),
    (lambda folder: (folder / "alert-city.key").chmod(0o644), 77, "lets others at it"),
    (lambda folder: (folder / "alert-city.id").write_text("x\n"), 78, "alert-city.id: not a key id"),
    (lambda folder: (folder / "alert-city.id").unlink(), 77, "holds no alert key of city of id"),
    (lambda folder: (folder / "alert-city.id").write_bytes((folder / "data.id").read_bytes()), 78,
     "data.id: is the id of alert-city.key, too"),
    (lambda folder: (folder / "public.toml").unlink(), 66, "public.toml: No such file"),
])
def test_keys_that_are_not_in_order_are_not_renewed(city, capsys, damage, error, words):
    damage(city.folder)
    before = contents(city.folder)
    code, _, err = run(capsys, "keys", "renew", "--dir", city.folder)
    assert code == error and words in err and err.count("\n") == 1 and contents(city.folder) == before


def test_recipients_are_not_given_to_a_renewal(city, capsys):
    before = contents(city.folder)
    code, _, err = run(capsys, "keys", "--recipient", "mayor", "renew", "--dir", city.folder)
    assert code == 2 and "recipients stay who they are" in err and contents(city.folder) == before
    assert run(capsys, "keys", "--dir", city.folder, "renew")[0] == 0, "--dir may stand before it, too"
    assert (city.folder / "data.2.key").exists()


# ---------------------------------------------------------------------------------------------------------- adopt


def test_the_adopted_agreement_is_in_force_and_the_one_before_goes_on(city, capsys, tmp_path):
    signed, agreement = city.renew()
    (tmp_path / "two").write_bytes(signed)
    before = city.config
    code, out, err = run(capsys, "adopt", "--agreement", tmp_path / "two", "--dir", city.folder)
    assert code == 0 and err == "" and "restart `edged-city listen`" in out
    config = city.config
    assert [path.name for path in config.agreements] == ["agreement-2.cose", "agreement-1.cose"]
    assert config.alert_key.name == "alert-city.2.key" and config.alert_key_id == agreement.recipients[0].alert_key
    assert config.former == (cityconfig.FormerKey(before.alert_key, before.alert_key_id),)
    Subscriber(config).close()
    text = (city.folder / "subscriber.toml").read_bytes()
    assert run(capsys, "adopt", "--agreement", tmp_path / "two", "--dir", city.folder)[0] == 0
    assert (city.folder / "subscriber.toml").read_bytes() == text, "again without harm"


def test_an_agreement_that_changes_no_key_is_adopted_without_a_former_one(city):
    signed = city.agree(number=5)
    city.adopt(signed)
    assert city.config.former == () and len(city.config.agreements) == 2
    Subscriber(city.config).close()


HAND = """\
# Of the night shift.
schema = 1
bind = "tcp://127.0.0.1:0"  # not [here] = "x"
curve_key = "curve.key"
   recipient = "{rcpt}"
alert_key   =   'alert-city.key'   # AES-256
alert_key_id = "{key}"
agreements = [   # newest first
    # the one of spring
    "agreement-1.cose",
]
mo = "{mo}"
qdo = "{qdo}"
nodes = "nodes.toml"
journal = "journal-city.db"
keep_rows = 77
warn_days = 30"""


def by_hand(city, text=HAND):
    path = city.folder / "subscriber.toml"
    one, terms = city.public.recipients[0], city.agreement
    path.write_text(text.format(rcpt=one.rcpt.hex(), key=one.key_id.hex(), mo=terms.mo.hex(), qdo=terms.qdo.hex()))
    path.chmod(0o640)
    return path


def test_what_the_operator_wrote_stays(city):
    """Only the lines that have to change do, and come back when the former agreement is dropped."""
    path = by_hand(city)
    lines = path.read_text().splitlines()
    signed, agreement = city.renew()
    city.adopt(signed)
    now = path.read_text().splitlines()
    assert [line for line in lines if line not in now] == [
        "alert_key   =   'alert-city.key'   # AES-256", "agreements = [   # newest first"]
    assert now[5:8] == ['alert_key   =   "alert-city.2.key"   # AES-256',
                        'alert_key_id = "{}"'.format(agreement.recipients[0].alert_key.hex()),
                        'agreements = ["agreement-2.cose",    # newest first']
    assert (city.config.keep_rows, city.config.warn_days) == (77, 30) and stat.S_IMODE(path.stat().st_mode) == 0o640
    second, _ = city.renew(number=3)
    city.adopt(second)
    assert [one.alert_key.name for one in city.config.former] == ["alert-city.key", "alert-city.2.key"]
    for number in (1, 2):
        adopt.drop(str(city.folder), number)
    assert [one.name for one in city.config.agreements] == ["agreement-3.cose"] and city.config.former == ()
    assert "# the one of spring" in path.read_text() and city.config.keep_rows == 77


@pytest.mark.parametrize("change", [
    lambda text: text.replace("alert_key   =", '"alert_key" ='), lambda text: text + "\nformer = []\n"])
def test_a_file_that_cannot_be_edited_is_left_alone(city, change):
    by_hand(city, change(HAND))
    assert city.config
    signed, _ = city.renew()
    before = contents(city.folder)
    with pytest.raises(ConfigError, match="cannot edit") as caught:
        city.adopt(signed)
    assert "\n" not in str(caught.value) and contents(city.folder) == before


def test_a_string_of_several_lines_is_a_string_like_any_other(city):
    by_hand(city, HAND.replace("alert_key_id = \"", 'alert_key_id = """\n').replace('"\nagree', '"""\nagree'))
    city.adopt(city.renew()[0])
    assert city.config.former[0].alert_key_id == city.agreement.recipients[0].alert_key


@pytest.mark.parametrize("other, error, words", [
    (lambda city: city.agree(number=1, beacon_limit_s=99), UsageError, "another one of this number is in"),
    (lambda city: forged(city, city.renew()[0]), VerificationFailed, "signature does not verify"),
    (lambda city: of_others(city), VerificationFailed, "its model owner is"),
    (lambda city: altered(city, data_key=b"x" * 16), KeyRefused, "holds no data key of id 7878"),
    (lambda city: altered(city, alert_key=b"x" * 16), KeyRefused, "holds no alert key of city of id 7878"),
    (lambda city: altered(city, rcpt=b"x" * 16), KeyRefused, "recipient 7878.* is none of"),
    (lambda city: altered(city, alert_key=city.agreement.recipients[1].alert_key), KeyRefused,
     "holds no alert key of city"),
    (lambda city: altered(city, none=True), KeyRefused, "does not name recipient"),
    (lambda city: b"x", PackageError, "agreement of 1 bytes"),
])
def test_what_does_not_follow_is_not_adopted_and_nothing_changes(city, other, error, words):
    signed = other(city)
    before = contents(city.folder)
    with pytest.raises(error, match=words) as caught:
        city.adopt(signed)
    assert "\n" not in str(caught.value) and contents(city.folder) == before


def forged(city, signed):
    return signed[:-1] + bytes([signed[-1] ^ 1])


def of_others(city):
    """Another model owner's: whoever holds the city's key alone."""
    mine, city.mo_key = city.mo_key, Ed25519PrivateKey.generate()
    signed = city.agree(number=2)
    city.mo_key = mine
    return signed


def altered(city, data_key=None, none=False, **changes):
    """Signed by both, with another key or recipient in it."""
    agreement = open_agreement(city.agree(number=2))
    first, rest = agreement.recipients[0], agreement.recipients[1:]
    recipients = rest if none else (first._replace(**changes),) + rest
    payload = replace(agreement, data_key=data_key or agreement.data_key, recipients=recipients).encode()
    return sign(payload, city.mo_key, keys.read_signing_key(str(city.folder)))


def test_an_agreement_that_was_passed_over_is_adopted_behind_those_above_it(city, capsys, tmp_path):
    """The operator adopted 3; then the subscriber asks for 2, which is in the field."""
    two, second = city.renew()
    three, third = city.renew(number=3)
    for name, signed in (("two", two), ("three", three)):
        (tmp_path / name).write_bytes(signed)
    assert run(capsys, "adopt", "--agreement", tmp_path / "three", "--dir", city.folder)[0] == 0
    code, out, _ = run(capsys, "adopt", "--agreement", tmp_path / "two", "--dir", city.folder)
    assert code == 0 and "agreement 2 is taken, too, behind those of higher numbers: restart" in out
    config = city.config
    assert [path.name for path in config.agreements] == ["agreement-{}.cose".format(one) for one in (3, 2, 1)]
    assert config.alert_key_id == third.recipients[0].alert_key
    assert [one.alert_key_id for one in config.former] == [
        city.agreement.recipients[0].alert_key, second.recipients[0].alert_key]
    Subscriber(config).close()
    code, out, _ = run(capsys, "adopt", "--agreement", tmp_path / "two", "--dir", city.folder)
    assert code == 0 and out == "agreement 2 is listed here already\n" and city.config == config
    city.adopt(city.agree(number=0))
    assert [path.name for path in city.config.agreements][3:] == ["agreement-0.cose"], "below all others"
    for number in (2, 1, 0):
        assert run(capsys, "drop", number, "--dir", city.folder)[0] == 0
    assert city.config.former == () and len(city.config.agreements) == 1
    assert retire(capsys, city)[0] == 0 and set(of_city(str(city.folder)).keys) == set(current(city))


def test_a_file_that_an_operator_wrote_takes_a_late_agreement_at_its_place(city):
    path = by_hand(city)
    two, _ = city.renew()
    city.adopt(city.renew(number=3)[0])
    city.adopt(two)
    assert [one.name for one in city.config.agreements] == ["agreement-3.cose", "agreement-2.cose", "agreement-1.cose"]
    assert "# the one of spring" in path.read_text() and city.config.keep_rows == 77


def test_keys_of_an_agreement_that_is_signed_and_not_adopted_yet_are_kept_and_told(city, capsys, tmp_path):
    """Keys renewed twice: the second agreement is on its way to the nodes, the third one was adopted first."""
    two, _ = city.renew()
    city.adopt(city.renew(number=3)[0])
    assert run(capsys, "drop", 1, "--dir", city.folder)[0] == 0
    code, out, _ = retire(capsys, city)
    kept = "kept alert-city.2.key, alert-police.2.key, data.2.key: no agreement that was adopted and dropped here"
    assert code == 0 and "deleted alert-city.key, alert-police.key, data.key\n" in out and kept in out
    code, _, err = retire(capsys, city)
    assert code == 77 and "alert-city.2.key" in err and "`edged-city adopt` the one that does" in err
    assert err.count("\n") == 1
    (tmp_path / "two").write_bytes(two)
    assert run(capsys, "adopt", "--agreement", tmp_path / "two", "--dir", city.folder)[0] == 0
    Subscriber(city.config).close()
    assert run(capsys, "drop", 2, "--dir", city.folder)[0] == 0 and retire(capsys, city)[0] == 0
    assert set(of_city(str(city.folder)).keys) == set(current(city))


def test_an_agreement_that_somebody_took_out_by_hand_was_not_dropped(city, capsys):
    city.adopt(city.renew()[0])
    path = city.folder / "subscriber.toml"
    path.write_text(path.read_text().split("\n[[former]]")[0].replace(', "agreement-1.cose"', ""))
    before = contents(city.folder)
    code, _, err = retire(capsys, city)
    assert code == 77 and "alert-city.key" in err and contents(city.folder) == before


def test_a_list_of_dropped_keys_that_is_damaged_lets_no_key_go(city, capsys):
    city.adopt(city.renew()[0])
    adopt.drop(str(city.folder), 1)
    (city.folder / "dropped.toml").write_text("schema = 1\n[[key]]\nkey_id = \"x\"\n")
    before = contents(city.folder)
    code, _, err = retire(capsys, city)
    assert code == 78 and "dropped.toml:3: key.key_id" in err and contents(city.folder) == before


def test_a_key_that_was_replaced_does_not_come_again(city):
    """Nor does what leaked of it: an agreement that goes back to it is not adopted."""
    first = city.agreement
    city.adopt(city.renew()[0])
    payload = replace(first, number=3).encode()
    with pytest.raises(KeyRefused, match="which was replaced: draw new ones"):
        city.adopt(sign(payload, city.mo_key, keys.read_signing_key(str(city.folder))))


def test_an_agreement_file_that_is_another_one_is_not_written_over(city):
    signed, _ = city.renew()
    (city.folder / "agreement-2.cose").write_bytes(b"precious")
    before = contents(city.folder)
    with pytest.raises(KeyRefused, match="is there already"):
        city.adopt(signed)
    assert contents(city.folder) == before


def test_an_adoption_that_fails_at_the_last_step_leaves_everything_as_it_was(city, monkeypatch):
    signed, _ = city.renew()
    before = contents(city.folder)

    def full(*_):
        raise OSError("disk full")

    monkeypatch.setattr(adopt, "replace_like", full)
    with pytest.raises(OSError):
        city.adopt(signed)
    assert contents(city.folder) == before


# -------------------------------------------------------------------------------- several subscribers in one folder


def subscriber(city, name, recipient=1, **changed):
    """Another one, for another recipient, in a file of that name."""
    one = city.public.recipients[recipient]
    mine = next(to for to in city.agreement.recipients if to.rcpt == one.rcpt)
    text = (city.folder / "subscriber.toml").read_text()
    changed = dict(dict(recipient=one.rcpt.hex(), alert_key="alert-{}.key".format(one.name),
                        alert_key_id=mine.alert_key.hex(), journal=name + ".db"), **changed)
    for key, value in changed.items():
        text = re.sub('(?m)^{} = .*$'.format(key), '{} = "{}"'.format(key, value), text)
    path = city.folder / (name + ".toml")
    path.write_text(text)
    return path


def test_every_subscriber_of_the_folder_adopts_and_drops_whatever_its_file_is_called(city, capsys, tmp_path):
    path = subscriber(city, "police")
    signed, agreement = city.renew()
    (tmp_path / "two").write_bytes(signed)
    code, out, err = run(capsys, "adopt", "--agreement", tmp_path / "two", "--dir", city.folder)
    assert (code, err) == (0, "") and "agreement 2: written to subscriber.toml, police.toml\n" in out
    for one, number in ((city.config, 0), (cityconfig.load(str(path)), 1)):
        assert [file.name for file in one.agreements] == ["agreement-2.cose", "agreement-1.cose"]
        assert one.alert_key_id == agreement.recipients[number].alert_key and len(one.former) == 1
        Subscriber(one).close()
    code, out, _ = run(capsys, "drop", 1, "--dir", city.folder)
    assert code == 0 and "no longer listed in subscriber.toml, police.toml: restart" in out
    for one in (city.config, cityconfig.load(str(path))):
        assert [file.name for file in one.agreements] == ["agreement-2.cose"] and one.former == ()
    assert retire(capsys, city)[0] == 0


def test_a_subscriber_that_cannot_adopt_keeps_all_from_it(city):
    path = subscriber(city, "police")
    path.write_text(path.read_text().replace("agreements = ", '"agreements" = '))
    signed, _ = city.renew()
    before = contents(city.folder)
    with pytest.raises(ConfigError, match="police.toml: is written in a way that this command cannot edit"):
        city.adopt(signed)
    assert contents(city.folder) == before


@pytest.mark.parametrize("command", ["adopt", "drop"])
def test_where_the_second_file_cannot_be_written_the_first_is_as_it_was(city, monkeypatch, command):
    subscriber(city, "police")
    signed, _ = city.renew()
    if command == "drop":
        city.adopt(signed)
    before = contents(city.folder)
    replace_like = adopt.replace_like

    def full(path, *more):
        if path.endswith("police.toml"):
            raise OSError("disk full")
        replace_like(path, *more)

    monkeypatch.setattr(adopt, "replace_like", full)
    with pytest.raises(OSError, match="disk full"):
        city.adopt(signed) if command == "adopt" else adopt.drop(str(city.folder), 1)
    after = contents(city.folder)
    after.pop("dropped.toml", None)
    assert after == before


def test_what_was_killed_after_the_first_file_is_done_by_the_same_command(city, capsys, tmp_path):
    subscriber(city, "police")
    signed, _ = city.renew()
    (tmp_path / "two").write_bytes(signed)
    for command, words in ((("adopt", "--agreement", tmp_path / "two"), "written to police.toml\n"),
                           (("drop", 1), "no longer listed in police.toml:")):
        stale = (city.folder / "police.toml").read_bytes()
        assert run(capsys, *command, "--dir", city.folder)[0] == 0
        done = contents(city.folder)
        (city.folder / "police.toml").write_bytes(stale)
        code, out, _ = run(capsys, *command, "--dir", city.folder)
        assert code == 0 and words in out and contents(city.folder) == done


def test_a_subscriber_of_other_parties_or_of_a_recipient_left_out_is_left_as_it_is_and_told(city, capsys, tmp_path):
    stranger = subscriber(city, "stranger", mo="00" * 32).read_bytes()
    elsewhere = subscriber(city, "elsewhere", recipient=0, alert_key_id=city.agreement.recipients[0].alert_key.hex())
    elsewhere.write_text(elsewhere.read_text().replace(city.public.recipients[0].rcpt.hex(), "77" * 16))
    signed, _ = city.renew()
    (tmp_path / "two").write_bytes(signed)
    code, out, _ = run(capsys, "adopt", "--agreement", tmp_path / "two", "--dir", city.folder)
    assert code == 0 and "written to subscriber.toml\n" in out
    assert "left as it is: stranger.toml: is for agreements of other parties\n" in out
    assert "left as it is: elsewhere.toml: agreement 2 does not name its recipient {}\n".format("77" * 16) in out
    assert (city.folder / "stranger.toml").read_bytes() == stranger


def test_what_another_subscriber_is_owed_keeps_all_from_dropping(city, capsys):
    """North delivered to the one, and has the other's records yet."""
    subscriber(city, "police")
    signed, agreement = city.renew()
    city.adopt(signed)
    curve, enclave = city.allow("north"), city.enclave()
    with city.hearing(curve) as (heard, peer):
        peer.deliver(enclave.begin(), enclave.succession(agreement))
        heard.poll(0)
    before = contents(city.folder)
    code, _, err = run(capsys, "drop", 1, "--dir", city.folder)
    assert code == 77 and err.count("\n") == 1 and "police.toml: agreement 1: north was never heard" in err
    assert contents(city.folder) == before
    assert run(capsys, "drop", 1, "--lose", "north", "--dir", city.folder)[0] == 0


def test_an_agreement_in_force_at_one_subscriber_is_dropped_at_none(city):
    signed, _ = city.renew()
    city.adopt(signed)
    subscriber(city, "police", alert_key_id=city.agreement.recipients[1].alert_key.hex())
    path = city.folder / "police.toml"
    path.write_text(re.sub("(?m)^agreements = .*$", 'agreements = ["agreement-1.cose"]', path.read_text()))
    before = contents(city.folder)
    with pytest.raises(UsageError, match=r"is in force: .* \(police.toml\)"):
        adopt.drop(str(city.folder), 1)
    assert contents(city.folder) == before


# ----------------------------------------------------------------------------------------------- bundles, key servers


def test_bundles_hold_the_keys_of_the_agreement_that_they_are_for(city, tmp_path):
    """Before and after the change, of either agreement, also where the subscriber is there already."""
    signed, agreement = city.renew()
    made = {}
    city.adopt(signed)
    for name, content in (("first", city.signed), ("second", signed)):
        keys.init(str(city.folder), content, "tcp://127.0.0.1:0", "tcp://city:1", ["gate"], str(tmp_path / name),
                  "city", model_key=b"M" * 32)
        made[name] = bundle.read(str(tmp_path / name))
    files = keyfiles.read_all(str(city.folder))
    for name, terms in (("first", city.agreement), ("second", agreement)):
        assert made[name].agreement == terms
        assert made[name].cameras == (("gate", camera_key(files[terms.data_key].read(), "gate")),)
        slots = read_slots(str(tmp_path / name / "slots"))
        assert [slot.key_id for slot in slots[1:]] == [terms.data_key] + [one.alert_key for one in terms.recipients]
        assert [slot.read_key() for slot in slots[1:]] == [files[slot.key_id].read() for slot in slots[1:]]
    assert made["first"].cameras != made["second"].cameras


def test_a_bundle_of_an_agreement_that_was_not_adopted_is_refused(city, tmp_path):
    signed, _ = city.renew()
    with pytest.raises(ConfigError, match="does not list agreement 2: `edged-city adopt --agreement FILE` first"):
        keys.init(str(city.folder), signed, "tcp://127.0.0.1:0", "tcp://city:1", ["gate"], str(tmp_path / "b"), "city")
    assert not (tmp_path / "b").exists()


def test_a_first_subscriber_may_begin_with_renewed_keys(tmp_path):
    city = City(tmp_path / "city", bundle=False)
    city.signed, city.agreement = city.renew()
    city.init()
    assert city.config.alert_key.name == "alert-city.2.key"
    Subscriber(city.config).close()


def test_the_key_server_grants_the_keys_of_both_agreements(city):
    _, agreement = city.renew()
    holder = of_city(str(city.folder))
    for terms in (city.agreement, agreement):
        assert [due.key_id for due in holder.due(terms)] == [terms.data_key] + [
            one.alert_key for one in terms.recipients]


def test_a_record_is_opened_with_the_key_that_it_names(city, capsys, tmp_path):
    signed, agreement = city.renew()
    enclave = city.enclave()
    enclave.begin()
    for name, terms, content in (("first", city.agreement, city.signed), ("second", agreement, signed)):
        enclave.use(*city.under(terms))
        (tmp_path / "record").write_bytes(enclave.clip(alert=0))
        (tmp_path / "agreement").write_bytes(content)
        code, out, _ = run(capsys, "open-record", tmp_path / "record", "--dir", city.folder, "--agreement",
                           tmp_path / "agreement")
        assert code == 0 and terms.recipients[0].alert_key.hex() in out
    enclave.use(*city.under(city.agreement))
    (tmp_path / "record").write_bytes(enclave.succession(agreement))
    (tmp_path / "agreement").write_bytes(city.signed)
    code, out, _ = run(capsys, "open-record", tmp_path / "record", "--dir", city.folder, "--agreement",
                       tmp_path / "agreement")
    assert code == 0 and '"number": 2' in out and agreement.digest.hex() in out
    for path in city.folder.glob("alert-city.id"):
        path.unlink()
    code, _, err = run(capsys, "open-record", tmp_path / "record", "--dir", city.folder, "--agreement",
                       tmp_path / "agreement")
    assert code == 77 and "holds no key of id" in err and err.count("\n") == 1


# ----------------------------------------------------------------------------------------------------- drop, retire


def retire(capsys, city):
    return run(capsys, "keys", "retire", "--dir", city.folder)


def test_keys_that_a_configured_agreement_names_are_not_retired(city, capsys):
    """Neither while the new one waits to be adopted, nor while both are in force."""
    signed, _ = city.renew()
    before = contents(city.folder)
    code, _, err = retire(capsys, city)
    assert code == 77 and "agreement 1 names former keys" in err and contents(city.folder) == before
    city.adopt(signed)
    before = contents(city.folder)
    code, _, err = retire(capsys, city)
    assert code == 77 and "`edged-city drop 1`" in err and contents(city.folder) == before


def test_the_keys_of_a_dropped_agreement_are_retired_and_all_others_stay(city, capsys):
    city.adopt(city.renew()[0])
    code, out, _ = run(capsys, "drop", 1, "--dir", city.folder)
    assert code == 0 and "agreement 1 is no longer listed" in out
    before = contents(city.folder)
    code, out, err = retire(capsys, city)
    assert code == 0 and err == "" and "alert-city.key" in out
    gone = set(before) - set(contents(city.folder))
    assert gone == {"alert-city.key", "alert-city.id", "alert-police.key", "alert-police.id", "data.key", "data.id"}
    assert set(of_city(str(city.folder)).keys) == set(current(city))
    Subscriber(city.config).close()
    assert retire(capsys, city)[1] == "there are no former keys\n"


def test_a_retirement_that_was_killed_half_way_is_finished_by_the_next(city, capsys):
    city.adopt(city.renew()[0])
    adopt.drop(str(city.folder), 1)
    (city.folder / "data.key").unlink()
    assert retire(capsys, city)[0] == 0 and not list(city.folder.glob("data.id"))


def test_wherever_a_retirement_is_killed_the_city_serves_and_the_next_one_finishes_it(city, capsys, tmp_path):
    signed, agreement = city.renew()
    city.adopt(signed)
    adopt.drop(str(city.folder), 1)
    whole, step, ended, held = of_city(str(city.folder)), 0, False, []
    while not ended:
        step += 1
        folder = tmp_path / str(step)
        shutil.copytree(str(city.folder), str(folder))
        ended = ends_although_killed(step, lambda: adopt.retire(str(folder)))
        serving = of_city(str(folder))  # as `edged-city serve` begins
        assert serving.due(agreement) == whole.due(agreement)
        assert all(whole.keys[key_id] == key for key_id, key in serving.keys.items())
        held.append(len(serving.keys))
        for key_id in current(city):
            assert serving.keys[key_id]
        left = sorted({path.stem for path in folder.iterdir()} & {"alert-city", "alert-police", "data"})
        code, out, err = run(capsys, "keys", "retire", "--dir", folder)
        said = "deleted {}\n".format(", ".join(one + ".key" for one in left)) if left else "there are no former keys\n"
        assert (code, out, err) == (0, said, "")
        assert {path.name for path in folder.iterdir() if path.stem.startswith(("alert-", "data"))} == {
            stem + kind for stem in ("alert-city.2", "alert-police.2", "data.2") for kind in (".id", ".key")}
    assert set(held) == {6, 5, 4, 3} and held == sorted(held, reverse=True)


def test_a_key_that_is_put_back_after_its_retirement_was_killed_is_not_taken_by_the_next(city, capsys):
    """From a backup, with the agreement that names it."""
    backup = contents(city.folder)
    city.adopt(city.renew()[0])
    adopt.drop(str(city.folder), 1)
    (city.folder / "data.id").rename(city.folder / "data.gone")
    for name in ("data.id", "subscriber.toml"):
        (city.folder / name).write_bytes(backup[name])
    before = contents(city.folder)
    code, _, err = retire(capsys, city)
    assert code == 77 and "agreement 1 names former keys" in err and contents(city.folder) == before


def test_the_key_servers_agreement_counts_too(city, capsys):
    """A node may still have to get its grants under the former one."""
    city.adopt(city.renew()[0])
    adopt.drop(str(city.folder), 1)
    (city.folder / "keyserver.toml").write_text(
        "schema = 1\nbind = \"127.0.0.1:0\"\ncertificate = \"c\"\nprivate_key = \"k\"\nledger = \"l\"\n"
        "agreement = \"agreement-1.cose\"\nmo = \"{}\"\nqdo = \"{}\"\nroot = \"r\"\ncrls = [\"x\"]\n"
        "references = [\"x\"]\nsigners = [\"{}\"]\n".format(
            city.agreement.mo.hex(), city.agreement.qdo.hex(), "00" * 32))
    before = contents(city.folder)
    code, _, err = retire(capsys, city)
    assert code == 77 and "agreement 1 names former keys" in err and contents(city.folder) == before


def test_a_second_subscriber_in_the_folder_counts_too(city, capsys):
    """Somebody had copied the file for another journal, under another name, and put it back."""
    copied = (city.folder / "subscriber.toml").read_text()
    city.adopt(city.renew()[0])
    adopt.drop(str(city.folder), 1)
    (city.folder / "night.toml").write_text(copied)
    before = contents(city.folder)
    assert retire(capsys, city)[0] == 77 and contents(city.folder) == before
    (city.folder / "night.toml").write_text("schema = ")
    assert retire(capsys, city)[0] == 78 and contents(city.folder).keys() == before.keys()


def test_without_a_subscriber_nobody_knows_what_is_in_force_and_nothing_is_retired(tmp_path, capsys):
    keys.make_keys(str(tmp_path / "city"))
    keys.renew(str(tmp_path / "city"))
    before = contents(tmp_path / "city")
    code, _, err = run(capsys, "keys", "retire", "--dir", tmp_path / "city")
    assert code == 66 and "subscriber.toml" in err and contents(tmp_path / "city") == before


@pytest.mark.parametrize("number, words", [(2, "is in force: `edged-city adopt`"), (7, "is not in .*, which has 2, 1")])
def test_what_cannot_be_dropped_is_told(city, capsys, number, words):
    city.adopt(city.renew()[0])
    before = contents(city.folder)
    with pytest.raises(UsageError, match=words):
        adopt.drop(str(city.folder), number)
    assert contents(city.folder) == before


def test_an_agreement_is_dropped_when_it_ended_on_every_node_and_its_records_were_passed_on(city, capsys, guard):
    signed, agreement = city.renew()
    city.adopt(signed)
    curve, enclave = city.allow("north"), city.enclave()
    with city.hearing(curve) as (subscriber, peer):
        peer.deliver(enclave.begin())
        subscriber.poll(0)
        with pytest.raises(KeyRefused, match="did not end on north"):
            adopt.drop(str(city.folder), 1)
        for _ in range(3):
            enclave.clip()
        peer.deliver(enclave.succession(agreement))
        with pytest.raises(KeyRefused, match="1 of its records were not passed on yet"):
            adopt.drop(str(city.folder), 1)
        enclave.use(*city.under(agreement))
        enclave.clip()
        enclave.clip()
        peer.deliver(enclave.clip())
        subscriber.poll(0)
    code, _, err = run(capsys, "drop", 1, "--dir", city.folder)
    assert code == 77 and err.count("\n") == 1
    assert "agreement 1: 3 record(s) of north that may be under it did not come: wait for them, or give" in err
    code, out, _ = run(capsys, "drop", 1, "--lose", "north", "--dir", city.folder)
    assert code == 0 and "3 record(s) that may be under it never came" in out, "not those after its end"
    assert "given up: what north still holds of it" in out
    Subscriber(city.config).close()


def test_nothing_is_dropped_while_a_node_that_was_never_heard_may_have_alerts_under_it(city, capsys, guard):
    """It was allowed and set up, and cut off: its alerts wait there."""
    city.adopt(city.renew()[0])
    city.allow("south")
    enclave = city.enclave()
    waiting = [enclave.begin(), enclave.clip(alert=0)]
    curve = city.allow("north")
    before = contents(city.folder)
    code, _, err = run(capsys, "drop", 1, "--dir", city.folder)
    assert code == 77 and [line for line in err.splitlines() if "was never heard: wait for it, revoke it" in line] == (
        err.splitlines()) and len(err.splitlines()) == 2 and "--lose north" in err and "--lose south" in err
    assert run(capsys, "drop", 1, "--lose", "south", "--dir", city.folder)[0] == 77
    code, _, err = run(capsys, "drop", 1, "--lose", "west", "--dir", city.folder)
    assert code == 2 and "--lose west: no such node" in err and err.count("\n") == 1
    assert retire(capsys, city)[0] == 77 and contents(city.folder) == before
    with city.hearing(curve) as (subscriber, peer):
        assert len(plain(peer.deliver(*waiting), Received)) == 2
    assert run(capsys, "drop", 1, "--lose", "south", "--lose", "north", "--dir", city.folder)[0] == 0


def test_nothing_is_dropped_while_a_node_was_not_heard_under_a_later_agreement(city, guard):
    """North was heard under 1, went over to 2 while it was cut off, and what it said there waits there."""
    second, agreement = city.renew()
    city.adopt(second)
    curve, enclave = city.allow("north"), city.enclave()
    third, last = city.renew(number=3)
    with city.hearing(curve) as (subscriber, peer):
        peer.deliver(enclave.begin())
        subscriber.poll(0)
    waiting = [enclave.succession(agreement)]
    enclave.use(*city.under(agreement))
    waiting += [enclave.begin_agreement(), enclave.clip(alert=0)]
    city.adopt(third)
    with pytest.raises(KeyRefused, match="agreement 2: north was not heard under a later one: wait until it is"):
        adopt.drop(str(city.folder), 2)
    with city.hearing(curve) as (subscriber, peer):
        assert len(plain(peer.deliver(*waiting), Received)) == 3
        subscriber.poll(0)
        assert adopt.drop(str(city.folder), 1)[1] == 0
        peer.deliver(enclave.succession(last))
        enclave.use(*city.under(last))
        peer.deliver(enclave.clip())
        subscriber.poll(0)
    assert adopt.drop(str(city.folder), 2)[1] == 0


def test_a_whole_epoch_that_never_came_keeps_the_agreement_that_it_may_be_under(city, guard):
    signed, agreement = city.renew()
    city.adopt(signed)
    curve, enclave = city.allow("north"), city.enclave()
    hidden = [enclave.begin(), enclave.clip(alert=0)]
    enclave.use(*city.under(agreement))
    begin = enclave.begin()
    with city.hearing(curve) as (subscriber, peer):
        peer.deliver(begin, enclave.clip())
        subscriber.poll(0)
        with pytest.raises(KeyRefused, match=r"2 record\(s\) of north that may be under it did not come"):
            adopt.drop(str(city.folder), 1)
        peer.deliver(*hidden)
        subscriber.poll(0)
    assert adopt.drop(str(city.folder), 1)[1] == 0


def test_what_is_missing_of_an_epoch_after_the_end_keeps_nothing(city, guard):
    signed, agreement = city.renew()
    city.adopt(signed)
    curve, enclave = city.allow("north"), city.enclave()
    with city.hearing(curve) as (subscriber, peer):
        peer.deliver(enclave.begin(), enclave.succession(agreement))
        enclave.use(*city.under(agreement))
        begin = enclave.begin()
        enclave.clip()
        peer.deliver(begin, enclave.clip())
        subscriber.poll(0)
    assert adopt.drop(str(city.folder), 1)[1] == 0


def test_another_enclave_under_a_name_that_was_heard_was_never_heard(city, guard):
    """A new board under the old one's name: what the old one said tells nothing of it."""
    signed, agreement = city.renew()
    city.adopt(signed)
    curve, enclave = city.allow("north"), city.enclave()
    with city.hearing(curve) as (subscriber, peer):
        peer.deliver(enclave.begin(), enclave.succession(agreement))
        subscriber.poll(0)
    nodes.revoke(city.nodes_file, "north")
    city.allow("north", node=b"n" * 16)
    with pytest.raises(KeyRefused, match="north was never heard"):
        adopt.drop(str(city.folder), 1)


def test_a_node_that_is_gone_does_not_keep_an_agreement_for_ever(city, guard):
    city.adopt(city.renew()[0])
    curve, enclave = city.allow("north"), city.enclave()
    with city.hearing(curve) as (subscriber, peer):
        peer.deliver(enclave.begin())
        subscriber.poll(0)
    with pytest.raises(KeyRefused, match="did not end on north: wait for the next one there, or revoke"):
        adopt.drop(str(city.folder), 1)
    nodes.revoke(city.nodes_file, "north")
    assert adopt.drop(str(city.folder), 1)[1] == 0


def test_a_key_that_opens_what_was_not_passed_on_yet_is_not_retired(city, capsys, guard):
    """Also where somebody took the agreement out of the file by hand."""
    city.adopt(city.renew()[0])
    curve, enclave = city.allow("north"), city.enclave()
    subscriber = Subscriber(city.config)
    peer = Peer(subscriber, curve, city.public.curve)
    assert plain(peer.deliver(enclave.begin(), enclave.clip(alert=0)), Received)
    peer.close()
    subscriber._router.close()  # killed
    subscriber._journal.close()
    path = city.folder / "subscriber.toml"
    text = path.read_text()
    path.write_text(text.split("\n[[former]]")[0].replace(', "agreement-1.cose"', ""))
    before = contents(city.folder)
    code, _, err = retire(capsys, city)
    assert code == 77 and "opens records that were not passed on yet" in err and err.count("\n") == 1
    assert {name: content for name, content in contents(city.folder).items() if "journal" not in name} == {
        name: content for name, content in before.items() if "journal" not in name}
    path.write_text(text)
    with Subscriber(city.config) as again:
        assert plain(again.poll(0), Received)
