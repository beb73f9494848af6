"""The agreement that follows: drafted from the one in force, shown as what it changes; then the city's part of a change
of keys as a whole, by commands alone. The node is played by tests/twin.py.
"""

import json
from dataclasses import replace

import pytest

from edged import city as city_program
from edged import owner, placing
from edged.alerts import adopt, keyfiles, keys
from edged.bus import generate_keys
from edged.enclave import wire
from edged.trust import agreement_text, keyring
from edged.trust.agreement import Agreement, ModelTerms, Recipient, Rule, open_agreement
from twin import MODEL, RULES, City, Enclave, Listening, Peer, run

PASSPHRASE = b"correct horse battery staple"


@pytest.fixture
def city(tmp_path):
    made = City(tmp_path / "city", recipients=("city", "police"), bundle=False, until_s=2000000000)
    (tmp_path / "one").write_bytes(made.signed)
    return made


def renew(capsys, city, *more, program=owner, old="one"):
    folder = city.folder.parent
    return run(capsys, "agreement", "renew", folder / old, "--city", city.folder / "public.toml", "--out",
               folder / "draft", *more, program=program)


# ------------------------------------------------------------------------------------------------------- the draft


@pytest.mark.parametrize("program", [owner, city_program])
def test_the_draft_has_the_next_number_and_the_citys_keys_of_now_and_all_else_as_before(city, capsys, program):
    public = keys.renew(str(city.folder))
    code, out, err = renew(capsys, city, program=program)
    assert code == 0 and err == ""
    draft = agreement_text.read("draft", (city.folder.parent / "draft").read_bytes())
    before = city.agreement
    recipients = tuple(one._replace(alert_key=other.key_id) for one, other in zip(before.recipients, public.recipients))
    assert draft == replace(before, number=2, data_key=public.data_key_id, recipients=recipients)
    assert "# agreement 1 -> 2: 4 change(s), 0 of them WIDER\n" in out
    assert "other     data_key: {} -> {}\n".format(before.data_key.hex(), draft.data_key.hex()) in out
    names = [one.rcpt.hex() for one in before.recipients]
    assert "other     recipient {}: alert_key: {} -> {}\n".format(
        names[0], before.recipients[0].alert_key.hex(), draft.recipients[0].alert_key.hex()) in out
    assert ("# new keys of the city: data key, alert key of {}, alert key of {}; a key widens nothing, and nothing "
            "else does\n").format(*names) in out
    assert "draft: agreement 2, signed by nobody: both parties sign it\n" in out


def test_a_later_end_is_wider_and_said_so_beside_the_keys(city, capsys):
    keys.renew(str(city.folder))
    code, out, _ = renew(capsys, city, "--until", "2040-01-01T00:00:00Z")
    assert code == 0 and "5 change(s), 1 of them WIDER" in out and "WIDER     until: 2033-05-18T03:33:20Z" in out
    assert "a key widens nothing\n" in out


def test_the_same_keys_for_longer_are_an_agreement_too_and_nothing_new_is_none(city, capsys):
    code, _, err = renew(capsys, city)
    assert code == 2 and "names the keys of" in err and "`edged-city keys renew` first, or --until" in err
    assert not (city.folder.parent / "draft").exists()
    code, out, _ = renew(capsys, city, "--until", "2040-01-01T00:00:00Z")
    assert code == 0 and "new keys" not in out


def test_a_later_package_is_narrower_and_an_earlier_one_is_refused(city, capsys):
    code, out, _ = renew(capsys, city, "--least-version", "1")
    assert code == 0 and "narrower  model.least_version: 0 -> 1" in out and "0 of them WIDER" in out
    code, _, err = renew(capsys, city, "--least-version", "-1")
    assert code == 2 and "--least-version -1: 0, which is agreed, or more" in err


@pytest.mark.parametrize("until", ["tomorrow", "2030-02-30T00:00:00Z", "1970-01-01T00:00:00Z", "2030-01-01"])
def test_an_end_that_is_none_is_one_line(city, capsys, until):
    keys.renew(str(city.folder))
    code, _, err = renew(capsys, city, "--until", until)
    assert code == 2 and "--until {}: a time in UTC after".format(until) in err and err.count("\n") == 1
    assert not (city.folder.parent / "draft").exists()


def test_another_citys_keys_and_unknown_recipients_are_refused(city, capsys, tmp_path):
    other = City(tmp_path / "other", bundle=False)
    public = city.folder / "public.toml"
    content = public.read_text()
    public.write_text((other.folder / "public.toml").read_text())
    code, _, err = renew(capsys, city)
    assert code == 76 and "the query data owner of" in err and err.count("\n") == 1
    public.write_text(content.replace(city.public.recipients[1].rcpt.hex(), "77" * 16))
    code, _, err = renew(capsys, city)
    assert code == 77 and "has no key of recipient {}".format(city.public.recipients[1].rcpt.hex()) in err
    assert not (city.folder.parent / "draft").exists()


def test_what_was_never_in_force_has_no_follower_and_no_file_is_written_over(city, capsys):
    keys.renew(str(city.folder))
    (city.folder.parent / "text").write_text(agreement_text.write(city.agreement))
    code, _, err = renew(capsys, city, old="text")
    assert code == 2 and "is signed by nobody: no agreement was in force" in err
    (city.folder.parent / "draft").write_bytes(b"precious")
    assert renew(capsys, city)[0] == 77 and (city.folder.parent / "draft").read_bytes() == b"precious"


# -------------------------------------------------------------------------------------- the city's part, by commands


class Play:
    """The city's folder and the owner's ring, and the commands that they give."""

    def __init__(self, folder, capsys):
        self.folder, self.capsys = folder, capsys
        self.city, self.ring, self.passphrase = folder / "city", folder / "owner.ring", folder / "passphrase"
        self.passphrase.write_bytes(PASSPHRASE)
        self.passphrase.chmod(0o600)
        self.owner = keyring.generate()
        self.ring.write_bytes(keyring.seal(self.owner, PASSPHRASE, 1 << 4))
        self.ring.chmod(0o600)

    def do(self, program, *arguments, code=0):
        found, out, err = run(self.capsys, *arguments, program=program)
        assert found == code, err
        return out if code == 0 else err

    def of_city(self, *arguments, code=0):
        return self.do(city_program, *arguments, "--dir", self.city, code=code)

    def both_sign(self, draft, name, *more):
        """The signed agreement's file: the owner reads and signs, then the city."""
        digest = agreement_text.read("draft", draft.read_bytes()).digest.hex()
        half, whole = self.folder / (name + ".half"), self.folder / name
        self.do(owner, "sign", draft, "--keys", self.ring, "--passphrase-file", self.passphrase, "--out", half,
                "--accept-digest", digest, *more)
        self.of_city("sign", half, "--out", whole, "--accept-digest", digest, *more)
        return whole

    def init(self, agreement, bundle):
        return self.of_city("init", "--agreement", agreement, "--bind", "tcp://127.0.0.1:0", "--address",
                            "tcp://city.example:7443", "--camera", "gate", "--bundle", self.folder / bundle)

    def listening(self):
        return Listening(self.city, "--json")

    def first_draft(self):
        public = keys.read_public(str(self.city))
        one = public.recipients[0]
        both = wire.EDGED_SEES_LABEL | wire.EDGED_SEES_SCORE
        terms = Agreement(
            mo=self.owner.public.verify_key, qdo=public.qdo, body=512, from_s=0, until_s=2000000000, number=1,
            model=ModelTerms(MODEL.id, 0, b"m" * 16), rules=tuple(Rule(*rule) for rule in RULES),
            status=wire.MessageStatus.TEST, beacon_period_s=1, beacon_limit_s=60, data_key=public.data_key_id,
            placements=1, recipients=(Recipient(one.rcpt, one.key_id, 0, (both,) * len(RULES)),), score_bits=7,
            clips_per_hour=1000)
        (self.folder / "one.toml").write_text(agreement_text.write(terms))
        return self.folder / "one.toml"


def heard(listening):
    """What it said, once it ended."""
    code, lines, err = listening.end()
    assert code == 0 and err == "", err
    return [json.loads(line) for line in lines]


def test_a_city_changes_its_keys_by_commands_and_nothing_is_lost(tmp_path, capsys):
    play = Play(tmp_path, capsys)
    play.of_city("keys")
    one = play.both_sign(play.first_draft(), "one.cose")
    play.init(one, "first-bundle")
    curve = generate_keys()
    play.of_city("allow", "north", "--key=" + curve.public.decode())
    server = keys.read_public(str(play.city)).curve

    first = open_agreement(one.read_bytes())
    rcpt = first.recipients[0].rcpt

    def under(agreement):
        key_id = agreement.recipients[0].alert_key
        return keyfiles.read_all(str(play.city))[key_id].read(), key_id, agreement.digest

    enclave = Enclave(*under(first), rcpt=rcpt)
    listening = play.listening()
    peer = Peer(listening, curve, server)
    peer.deliver(enclave.begin(), enclave.clip(alert=0))

    play.of_city("keys", "renew")
    play.do(owner, "agreement", "renew", one, "--city", play.city / "public.toml", "--out", tmp_path / "two.toml")
    two = play.both_sign(tmp_path / "two.toml", "two.cose", "--previous", one)
    second = open_agreement(two.read_bytes())

    # A node is faster than the city: what the subscriber does not know yet stays with the node.
    enclave.use(*under(second))
    waiting = [enclave.begin_agreement(), enclave.clip(alert=1)]
    enclave.use(*under(first))
    peer.deliver(waiting[0], waiting[1], enclave.clip())
    assert peer.refused == [(enclave.epoch, 3), (enclave.epoch, 4)] and len(peer.acked) == 3
    assert "is in force: `edged-city adopt` the one that follows first" in play.of_city("drop", 1, code=2)
    said = play.of_city("adopt", "--agreement", two)
    assert "agreement 2 is in force" in said
    play.init(two, "second-bundle")
    assert (tmp_path / "first-bundle" / "cameras" / "gate.key").read_bytes() != (
        tmp_path / "second-bundle" / "cameras" / "gate.key").read_bytes()
    peer.close()
    lines = heard(listening)
    assert [line["type"] for line in lines] == [
        "record", "epoch_began", "record", "foreign", "foreign", "record", "gap"]
    assert "edged-city adopt" in lines[3]["reason"]

    listening = play.listening()
    peer = Peer(listening, curve, server)
    last = enclave.succession(second)
    enclave.use(*under(second))
    peer.deliver(*waiting)
    # No key goes before its time.
    assert "did not end on north" in play.of_city("drop", 1, code=77)
    assert "agreement 1 names former keys" in play.of_city("keys", "retire", code=77)
    peer.deliver(last, enclave.clip(alert=0))
    peer.close()
    lines = heard(listening)
    assert [(line["type"], line.get("kind"), line.get("seq")) for line in lines] == [
        ("record", "epoch", 3), ("record", "alert", 4), ("gap_closed", None, None), ("record", "succession", 6),
        ("succeeded", None, None), ("record", "alert", 7)]
    assert lines[4]["todo"] == "" and lines[4]["next_number"] == 2

    play.of_city("drop", 1)
    assert "deleted" in play.of_city("keys", "retire")
    assert set(keyfiles.read_all(str(play.city))) == {second.data_key, second.recipients[0].alert_key}
    assert [agreement.number for agreement in adopt.configured(str(play.city))] == [2]
    listening = play.listening()
    peer = Peer(listening, curve, server)
    peer.deliver(enclave.clip(alert=1))
    peer.close()
    assert [line["kind"] for line in heard(listening)] == ["alert"]


def interrupts(folder):
    raise KeyboardInterrupt


def test_a_renewal_interrupted_after_its_last_rename_is_done(city, monkeypatch):
    """By Ctrl-C, while the folder is synced: what is in place stays in place."""
    before, honest = keys.read_public(str(city.folder)), placing.replace_file

    def replaced(*given):
        with monkeypatch.context() as patched:
            patched.setattr(placing, "sync_folder", interrupts)
            honest(*given)

    monkeypatch.setattr(keys, "replace_file", replaced)
    with pytest.raises(KeyboardInterrupt):
        keys.renew(str(city.folder))
    now, files = keys.read_public(str(city.folder)), keyfiles.read_all(str(city.folder))
    assert now.data_key_id != before.data_key_id and files[now.data_key_id].read()
    assert all(files[one.key_id].read() for one in now.recipients)


def test_a_renewal_killed_between_a_key_and_its_id_is_in_nobodys_way(city):
    (city.folder / "data.2.key").write_bytes(bytes(32))
    now = keys.renew(str(city.folder))
    assert keyfiles.read_all(str(city.folder))[now.data_key_id].file == "data.3.key"
