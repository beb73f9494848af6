"""An agreement in text: exact, strict; signed by one party after the other; two of them compared."""

import hashlib
import random
from dataclasses import replace

import cbor2
import pytest

from edged import city, owner
from edged.alerts import keys
from edged.enclave import wire
from edged.errors import ConfigError, KeyRefused, PackageError, UsageError, VerificationFailed
from edged.negotiation import show_agreement
from edged.trust import agreement_text as text
from edged.trust import cosign, keyring
from edged.trust.agreement import Recipient, Rule, join, open_agreement, read_payload, sign, sign_as_one
from edged.trust.agreement_diff import Width, diff
from edged.trust.cosign import Party
from evidence_cases import PASSPHRASE
from test_agreement import MO, OTHER, PAYLOAD, QDO, RECIPIENTS, RULES, SIGNED, VALID, public

TEXT = text.write(VALID)


def read(written):
    return text.read("draft.toml", written.encode("utf-8"))


def altered(old, new, count=1):
    assert old in TEXT, old
    return TEXT.replace(old, new, count)


# ------------------------------------------------------------------------------------------------ text and canonical


def test_the_text_of_an_agreement_reads_back_to_the_same_bytes():
    assert read(TEXT) == VALID and read(TEXT).encode() == PAYLOAD and text.write(read(TEXT)) == TEXT


def test_every_field_stands_in_the_text():
    """Each field changed by itself gives another text."""
    others = dict(mo=b"M" * 32, qdo=b"Q" * 32, body=512, from_s=1001, model=VALID.model._replace(id="x"),
                  rules=RULES[::-1], until_s=2001, number=8, status=wire.MessageStatus.TEST, beacon_period_s=31,
                  beacon_limit_s=91, data_key=b"D" * 16, placements=4, recipients=RECIPIENTS[::-1], score_bits=5,
                  clips_per_hour=3601)
    assert set(others) == set(VALID.__dataclass_fields__)
    texts = {text.write(replace(VALID, **{name: value})) for name, value in others.items()}
    assert len(texts | {TEXT}) == len(others) + 1


def test_any_agreement_goes_to_text_and_back():
    draw = random.Random(1)
    for _ in range(300):
        made = arbitrary(draw)
        again = read(text.write(made))
        assert again == made and again.digest == hashlib.sha256(made.encode()).digest()


def arbitrary(draw):
    """Within all ranges, names of odd characters included."""
    def name(most):
        size = draw.randint(1, most // 4)
        return "".join(draw.choice("aZ09 -_.#[]=\"'\\{}\u00e9\u6f22\U0001f600") for _ in range(size))

    rules = tuple(Rule("{}{}".format(i, name(28)), draw.randint(1, 65536), draw.randint(0, 86400),
                       draw.randrange(1440), draw.randrange(1440)) for i in range(draw.randint(0, 8)))
    from_s = draw.randrange((1 << 32) - 1)
    period_s = draw.randint(1, 86400)
    sights = draw.choice(((0, 1, 3), (0, 1, 3, 5, 7)))
    recipients = tuple(Recipient(bytes([i]) * 16, draw.getrandbits(128).to_bytes(16, "big"), draw.randint(0, 1),
                                 tuple(draw.choice(sights) for _ in rules)) for i in range(draw.randint(1, 4)))
    body = 49152 if any(bits > 3 for one in recipients for bits in one.rules) else 512 * draw.randint(1, 7)
    return replace(
        VALID, mo=draw.getrandbits(256).to_bytes(32, "big"), body=body, from_s=from_s,
        until_s=draw.randint(from_s + 1, (1 << 32) - 1), rules=rules, number=draw.getrandbits(32),
        model=VALID.model._replace(id=name(64), least_version=draw.getrandbits(32)),
        status=draw.choice([wire.MessageStatus.ACTUAL, wire.MessageStatus.TEST]), beacon_period_s=period_s,
        beacon_limit_s=draw.randint(period_s, (1 << 31) - 1), placements=draw.randint(1, 7), recipients=recipients,
        score_bits=draw.randint(0, 16), clips_per_hour=draw.randint(1, 1000000))


def test_every_threshold_has_its_own_text():
    texts = [text.threshold(q16) for q16 in range(1, 65537)]
    assert [round(float(one) * 65536) for one in texts] == list(range(1, 65537))


@pytest.mark.parametrize("written, reason", [
    (altered("number = 7", "number = 7\nnumbre = 8"), "draft.toml:3: numbre: unknown key: did you mean number?"),
    (altered("period_s = 30", "period = 30"), r"draft.toml:15: beacons.period: unknown key"),
    (altered("[[rule]]", "[[rules]]", 2), "draft.toml:23: rules: unknown key"),
    (altered("\"falling\" = \"label and score\"", "\"faling\" = \"label\""), "recipient.sees.faling: unknown key"),
    (altered("score_bits = 4", "#"), "draft.toml:.*: score_bits: is missing"),
    (altered("\"fight\" = \"nothing\"", "#"), "recipient.sees.fight: is missing"),
    (altered("schema = 1", "schema = 2"), "draft.toml:1: schema: 2: from 1 to 1"),
    (altered("number = 7", "number = 4294967296"), "number: 4294967296"),
    (altered("number = 7", "number = true"), "number: true: a whole number"),
    (altered("\"actual\"", "\"exercise\""), "status: \"exercise\": one of"),
    (altered("1970-01-01T00:16:40Z", "1970-01-01 00:16:40"), "from: \"1970-01-01 00:16:40\": a time in UTC"),
    (altered("1970-01-01T00:16:40Z", "1970-02-30T00:00:00Z"), "from: 1970-02-30T00:00:00Z: a time in UTC"),
    (altered("1970-01-01T00:16:40Z", "1970-01-01T00:16:60Z"), "from: 1970-01-01T00:16:60Z: a time in UTC"),
    (altered("1970-01-01T00:16:40Z", "1969-12-31T23:59:59Z"), "from: 1969-12-31T23:59:59Z: a time"),
    (altered("1970-01-01T00:33:20Z", "2106-02-07T06:28:16Z"), "until: 2106-02-07T06:28:16Z: a time"),
    (altered("1970-01-01T00:33:20Z", "1970-01-01T00:16:40Z"), "draft.toml:5: until: .*not later than from"),
    (altered(public(MO).hex(), public(MO).hex()[2:]), "mo: .*64 digits"),
    (altered("\"masked\", ", "\"masked\", \"masked\", "), "placements: \"masked\": is there twice"),
    (altered("\"masked\", ", "\"mask\", "), "placements: mask: of masked, inputs, enclave"),
    (altered("\"masked\", \"enclave\"", ""), "placements: is empty"),
    (altered("body_bytes = 1024", "body_bytes = 1000"), "body_bytes: 1000: must be a multiple of 512"),
    (altered("body_bytes = 1024", "body_bytes = 4096"),
     "body_bytes: 4096: must be at most 3584 where nobody sees skeletons"),
    (altered("body_bytes = 1024", "body_bytes = 49152"), "body_bytes: 49152: must be at most 3584 where nobody"),
    (altered("body_bytes = 1024", "body_bytes = 0"), "body_bytes: 0"),
    (altered("\"falling\" = \"label\"", "\"falling\" = \"label and skeletons\""),
     "body_bytes: 1024: must be 49152 where somebody sees skeletons"),
    (altered("\"falling\" = \"label\"", "\"falling\" = \"skeletons\""),
     "recipient.sees.falling: \"skeletons\": one of"),
    (altered("score_bits = 4", "score_bits = 17"), "score_bits: 17: from 0 to 16"),
    (altered("clips_per_hour = 3600", "clips_per_hour = 0"), "clips_per_hour: 0: from 1"),
    (altered("limit_s = 90", "limit_s = 29"), "beacons.limit_s: 29: from 30"),
    (altered("\"st-gcn\"", "\"" + "i" * 65 + "\""), "model.id: i*: at most 64 bytes"),
    (altered("\"st-gcn\"", "\"st\\u202egcn\""), "model.id: .*control character"),
    (altered("label = \"fight\"", "label = \"falling\""), "rule.label: falling: has a rule already"),
    (altered("label = \"fight\"", "label = \"" + "\u00e9" * 17 + "\""), "rule.label: .*: at most 32 bytes"),
    (altered("0.61035", "0"), r"rule.threshold: 0.0: from 0.00002 to 1"),
    (altered("0.61035", "0.610351"), "rule.threshold: 0.610351: .*at most 5 decimals"),
    (altered("0.61035", "1.1"), "rule.threshold: 1.1: from 0 to 1"), (altered("0.61035", "nan"), "finite number"),
    (altered("22:00-06:00", "22:00-24:00"), "rule.utc: \"22:00-24:00\": a part of the day in UTC"),
    (altered("cool_down_s = 60", "cool_down_s = 86401"), "rule.cool_down_s: 86401"),
    (altered("\"" + "32" * 16, "\"" + "31" * 16), "recipient.rcpt: 3131.*: is a recipient already"),
    (altered("all_scores = true", "all_scores = 1"), "recipient.all_scores: 1: true or false"),
    (altered("\"nothing\"", "\"score\""), "recipient.sees.fight: \"score\": one of"),
    (TEXT[:TEXT.index("[[recipient]]")], "recipient: is missing"),
    (TEXT + "".join("\n[[recipient]]\nrcpt = \"%032x\"\n" % i for i in range(3)), "recipient: 5 of them: at most 4"),
    (TEXT + "\n[[rule]]\n" * 7, "rule: 9 of them: at most 8"),
    (TEXT + "[beacons]\n", "draft.toml:.*: not TOML"), ("", "schema: is missing"),
])
def test_a_text_that_is_no_agreement_is_refused_with_file_line_and_key(written, reason):
    with pytest.raises(ConfigError, match=reason) as caught:
        read(written)
    assert "\n" not in str(caught.value)


def test_a_text_longer_than_any_agreement_is_refused():
    with pytest.raises(PackageError, match="draft.toml: 65537 bytes, an agreement's text has at most 65536"):
        text.read("draft.toml", b"#" * 65537)


@pytest.mark.parametrize("name", ["fall\u202eing", "fall\ning", "fall\u200bing", "\x7f"])
def test_a_name_that_nobody_can_read_has_no_text_and_is_not_shown(name, tmp_path):
    made = replace(VALID, rules=(RULES[0]._replace(label=name), RULES[1]))
    assert read_payload(made.encode()) == made  # the canonical form has it
    with pytest.raises(PackageError, match="holds a character that nobody sees"):
        text.write(made)
    (tmp_path / "a.cose").write_bytes(sign(made.encode(), MO, QDO))
    with pytest.raises(PackageError, match="do not sign it"):
        show_agreement(str(tmp_path / "a.cose"))


# ---------------------------------------------------------------------------------------------------------- signatures


def paper(content):
    return cosign.read("paper", content)


def half(party=Party.MODEL_OWNER, agreement=VALID, key=None):
    payload = agreement.encode()
    return join(payload, [sign_as_one(payload, key or {Party.MODEL_OWNER: MO, Party.QUERY_DATA_OWNER: QDO}[party])])


@pytest.mark.parametrize("order", [(Party.MODEL_OWNER, Party.QUERY_DATA_OWNER),
                                   (Party.QUERY_DATA_OWNER, Party.MODEL_OWNER)])
def test_one_after_the_other_signs_in_either_order_and_makes_the_agreement(order):
    signing = {Party.MODEL_OWNER: MO, Party.QUERY_DATA_OWNER: QDO}
    first = cosign.sign(paper(TEXT.encode()), order[0], signing[order[0]], VALID.digest).encode()
    assert paper(first).signers == "the " + order[0].value and first == half(order[0])
    whole = cosign.sign(paper(first), order[1], signing[order[1]], VALID.digest).encode()
    assert whole == SIGNED and open_agreement(whole) == VALID


def test_one_signature_is_no_agreement():
    with pytest.raises(PackageError):
        open_agreement(half())


def test_a_signature_of_other_terms_is_refused():
    payload = replace(VALID, clips_per_hour=7200).encode()
    with pytest.raises(VerificationFailed, match="paper: agreement 7: its one signature is neither party's"):
        paper(join(payload, [sign_as_one(PAYLOAD, MO)]))
    with pytest.raises(VerificationFailed, match="the query data owner's signature does not verify"):
        paper(join(payload, [sign_as_one(payload, MO), sign_as_one(PAYLOAD, QDO)]))


def test_a_signature_of_a_third_is_refused():
    with pytest.raises(VerificationFailed, match="neither party's"):
        paper(half(key=OTHER))


def test_every_altered_byte_of_a_half_signed_agreement_is_refused():
    whole = half()
    for place in range(len(whole)):
        broken = bytearray(whole)
        broken[place] ^= 1 << place % 8
        with pytest.raises((PackageError, VerificationFailed, ConfigError)):
            paper(bytes(broken))


@pytest.mark.parametrize("content", [half() + b"\0", half()[:-1], b"\xd8\x62", SIGNED + SIGNED[-72:]])
def test_another_form_is_refused(content):
    with pytest.raises(PackageError, match="paper: not an agreement with one signature or two"):
        paper(content)


def test_a_party_signs_only_what_names_its_key():
    with pytest.raises(KeyRefused, match="its model owner is {}, this key is {}".format(
            public(MO).hex(), public(OTHER).hex())):
        cosign.sign(paper(TEXT.encode()), Party.MODEL_OWNER, OTHER, VALID.digest)
    with pytest.raises(KeyRefused, match="its query data owner is"):
        cosign.sign(paper(half()), Party.QUERY_DATA_OWNER, MO, VALID.digest)


def test_a_party_signs_once():
    with pytest.raises(UsageError, match="the model owner has signed it: it is for the query data owner to sign"):
        cosign.sign(paper(half()), Party.MODEL_OWNER, MO, VALID.digest)
    with pytest.raises(UsageError, match="the model owner has signed it: it is in final form"):
        cosign.sign(paper(SIGNED), Party.MODEL_OWNER, MO, VALID.digest)


def test_one_key_does_not_agree_with_itself():
    both = replace(VALID, qdo=VALID.mo)
    with pytest.raises(UsageError, match="names one key for both parties"):
        cosign.sign(paper(text.write(both).encode()), Party.MODEL_OWNER, MO, both.digest)


def test_what_was_exchanged_after_it_was_read_is_not_signed():
    with pytest.raises(UsageError, match="its digest is {}, accepted was {}: read it again".format(
            VALID.digest.hex(), "00" * 32)):
        cosign.sign(paper(half()), Party.QUERY_DATA_OWNER, QDO, bytes(32))


# --------------------------------------------------------------------------------------------------------- differences


FALLING, FIGHT = RULES
CITY, POLICE = RECIPIENTS


@pytest.mark.parametrize("changes, field, width", [
    (dict(placements=7), "placements: none -> inputs", Width.WIDER),
    (dict(placements=1), "placements: enclave -> none", Width.NARROWER),
    (dict(until_s=2001), "until: 1970-01-01T00:33:20Z -> 1970-01-01T00:33:21Z", Width.WIDER),
    (dict(until_s=1999), "until", Width.NARROWER), (dict(from_s=999), "from", Width.WIDER),
    (dict(from_s=1001), "from", Width.NARROWER),
    (dict(clips_per_hour=3601), "clips_per_hour: 3600 -> 3601", Width.WIDER),
    (dict(clips_per_hour=1), "clips_per_hour", Width.NARROWER), (dict(score_bits=5), "score_bits", Width.WIDER),
    (dict(score_bits=0), "score_bits", Width.NARROWER), (dict(body=1536), "body_bytes", Width.WIDER),
    (dict(beacon_period_s=31), "beacons.period_s", Width.WIDER),
    (dict(beacon_limit_s=91), "beacons.limit_s", Width.WIDER),
    (dict(model=VALID.model._replace(least_version=2)), "model.least_version: 3 -> 2", Width.WIDER),
    (dict(model=VALID.model._replace(least_version=4)), "model.least_version", Width.NARROWER),
    (dict(model=VALID.model._replace(id="other")), "model.id", Width.OTHER),
    (dict(model=VALID.model._replace(key_id=b"n" * 16)), "model.key_id", Width.OTHER),
    (dict(mo=b"M" * 32), "mo", Width.OTHER), (dict(qdo=b"Q" * 32), "qdo", Width.OTHER),
    (dict(data_key=b"D" * 16), "data_key", Width.OTHER), (dict(number=8), "number: 7 -> 8", Width.OTHER),
    (dict(status=wire.MessageStatus.TEST), "status: actual -> test", Width.NARROWER),
    (dict(rules=(FALLING._replace(threshold=39999), FIGHT)), "rule falling: threshold: 0.61035 -> 0.61034",
     Width.WIDER),
    (dict(rules=(FALLING._replace(threshold=40001), FIGHT)), "rule falling: threshold", Width.NARROWER),
    (dict(rules=(FALLING._replace(cool_down_s=59), FIGHT)), "rule falling: cool_down_s", Width.WIDER),
    (dict(rules=(FALLING, FIGHT._replace(end_minute=361))), "rule fight: utc: 22:00-06:00 -> 22:00-06:01", Width.WIDER),
    (dict(rules=(FALLING, FIGHT._replace(first_minute=1321))), "rule fight: utc", Width.NARROWER),
    (dict(rules=(FALLING, FIGHT._replace(first_minute=1321, end_minute=361))), "rule fight: utc", Width.WIDER),
    (dict(rules=(FALLING, FIGHT._replace(first_minute=0, end_minute=0))), "rule fight: utc", Width.WIDER),
    (dict(rules=(FALLING._replace(first_minute=9, end_minute=9), FIGHT)), "rule falling: utc", Width.OTHER),
    (dict(recipients=(CITY, POLICE._replace(sees=1))), "recipient {}: all_scores: false -> true".format("32" * 16),
     Width.WIDER),
    (dict(recipients=(CITY._replace(sees=0), POLICE)), "recipient {}: all_scores".format("31" * 16), Width.NARROWER),
    (dict(recipients=(CITY, POLICE._replace(rules=(3, 0)))),
     "recipient {}: sees falling: label -> label and score".format("32" * 16), Width.WIDER),
    (dict(recipients=(CITY, POLICE._replace(rules=(1, 1)))),
     "recipient {}: sees fight: nothing -> label".format("32" * 16), Width.WIDER),
    (dict(recipients=(CITY._replace(rules=(1, 3)), POLICE)), "recipient {}: sees falling".format("31" * 16),
     Width.NARROWER),
    (dict(body=3584), "body_bytes: 1024 -> 3584", Width.WIDER),
    (dict(recipients=(CITY, POLICE._replace(alert_key=b"B" * 16))), "recipient {}: alert_key".format("32" * 16),
     Width.OTHER),
    (dict(recipients=(POLICE, CITY)), "recipient order", Width.OTHER),
])
def test_one_change_is_one_line_that_says_whether_it_is_wider(changes, field, width):
    (change,) = diff(VALID, replace(VALID, **changes))
    assert change.width is width and field in str(change) and width.value in str(change)


DRAWN = replace(VALID, body=49152, recipients=(CITY, POLICE._replace(rules=(5, 0))))


@pytest.mark.parametrize("old, new, said, width", [
    ((1, 0), (5, 0), "sees falling: label -> label and skeletons", Width.WIDER),
    ((3, 0), (7, 0), "sees falling: label and score -> label, score and skeletons", Width.WIDER),
    ((7, 0), (3, 0), "sees falling: label, score and skeletons -> label and score", Width.NARROWER),
    ((5, 0), (3, 0), "sees falling: label and skeletons -> label and score", Width.WIDER),  # the score is new
    ((3, 0), (5, 0), "sees falling: label and score -> label and skeletons", Width.WIDER),
    ((1, 0), (1, 5), "sees fight: nothing -> label and skeletons", Width.WIDER),
    ((5, 5), (5, 0), "sees fight: label and skeletons -> nothing", Width.NARROWER),
])
def test_whose_skeletons_are_seen_is_said_and_more_sight_is_wider(old, new, said, width):
    """CITY sees some throughout, so that the body stays."""
    city = CITY._replace(rules=(7, 3))
    one, other = (replace(VALID, body=49152, recipients=(city, POLICE._replace(rules=bits))) for bits in (old, new))
    (change,) = diff(one, other)
    assert change.width is width and str(change).endswith("recipient {}: {}".format("32" * 16, said))


def test_the_first_skeletons_come_with_their_body():
    assert widths(VALID, DRAWN) == {
        "body_bytes: 1024 -> 49152": Width.WIDER,
        "recipient {}: sees falling: label -> label and skeletons".format("32" * 16): Width.WIDER}
    assert set(widths(DRAWN, VALID).values()) == {Width.NARROWER}
    assert read(text.write(DRAWN)) == DRAWN and "\"falling\" = \"label and skeletons\"\n" in text.write(DRAWN)


def widths(old, new):
    return {str(change).split("  ", 1)[1].strip(): change.width for change in diff(old, new)}


def test_a_new_rule_and_what_is_told_of_it_are_wider():
    new = replace(VALID, rules=RULES + (Rule("jump", 1, 0),),
                  recipients=(CITY._replace(rules=(3, 3, 3)), POLICE._replace(rules=(1, 0, 0))))
    assert widths(VALID, new) == {
        "rule: none -> jump": Width.WIDER,
        "recipient {}: sees jump: nothing -> label and score".format("31" * 16): Width.WIDER}
    assert set(widths(new, VALID).values()) == {Width.NARROWER}


def test_a_new_recipient_and_all_that_it_sees_are_wider():
    new = replace(VALID, recipients=RECIPIENTS + (Recipient(b"3" * 16, b"c" * 16, 1, (1, 0)),))
    assert widths(VALID, new) == {
        "recipient: none -> {}".format("33" * 16): Width.WIDER,
        "recipient {}: all_scores: none -> true".format("33" * 16): Width.WIDER,
        "recipient {}: sees falling: nothing -> label".format("33" * 16): Width.WIDER}


def test_exchanged_rules_are_not_taken_for_one_another():
    new = replace(VALID, rules=RULES[::-1], recipients=(CITY, POLICE._replace(rules=(0, 1))))
    assert widths(VALID, new) == {"rule order: falling, fight -> fight, falling": Width.OTHER}


def test_only_one_and_the_same_agreement_differs_in_nothing():
    draw = random.Random(2)
    for _ in range(100):
        one, other = arbitrary(draw), arbitrary(draw)
        assert diff(one, one) == () and (diff(one, other) != ())
        fields = cbor2.loads(one.encode())
        name = draw.choice([name for name in fields if name not in ("v", "rules", "recipients")])
        fields[name] = cbor2.loads(other.encode())[name]
        try:
            mixed = read_payload(cbor2.dumps(fields, canonical=True))
        except PackageError:  # from, until
            continue
        assert (diff(one, mixed) == ()) == (one == mixed)


# ------------------------------------------------------------------------------------------------------------ commands


class Parties:
    def __init__(self, folder):
        self.folder = folder
        self.passphrase, self.ring, self.city = folder / "passphrase", folder / "owner.ring", folder / "city"
        self.passphrase.write_bytes(PASSPHRASE)
        self.passphrase.chmod(0o600)
        ring = keyring.generate()
        self.ring.write_bytes(keyring.seal(ring, PASSPHRASE, 1 << 4))
        self.ring.chmod(0o600)
        qdo = keys.make_keys(str(self.city)).qdo
        self.agreement = replace(VALID, mo=ring.public.verify_key, qdo=qdo)
        self.draft = self.write("draft.toml", self.agreement)

    def write(self, name, agreement):
        (self.folder / name).write_text(text.write(agreement), encoding="utf-8")
        return self.folder / name

    def owner_signs(self, file, out, *more):
        return owner.main([str(one) for one in (
            "sign", file, "--keys", self.ring, "--passphrase-file", self.passphrase, "--out", self.folder / out)
            + more])

    def city_signs(self, file, out, *more):
        return city.main([str(one) for one in ("sign", file, "--dir", self.city, "--out", self.folder / out) + more])

    def signed(self, name, agreement):
        """By both; the file."""
        draft = self.write(name + ".toml", agreement)
        accepted = ("--accept-digest", agreement.digest.hex())
        assert self.owner_signs(draft, name + ".half", *accepted) == 0
        assert self.city_signs(self.folder / (name + ".half"), name, *accepted) == 0
        return self.folder / name


@pytest.fixture
def parties(tmp_path):
    return Parties(tmp_path)


def test_owner_and_city_sign_and_the_enclave_form_comes_out(parties, capsys):
    made = parties.signed("agreement.cose", parties.agreement)
    assert open_agreement(made.read_bytes()) == parties.agreement
    assert "signed by the model owner and the query data owner" in capsys.readouterr().out
    assert show_agreement(str(made)).startswith("# agreement 7, signed by the model owner and the query data owner\n")
    assert text.read("shown", show_agreement(str(made)).encode()) == parties.agreement


def test_nothing_is_signed_that_was_not_accepted_by_its_digest(parties, capsys):
    assert parties.owner_signs(parties.draft, "half") == 2
    said = capsys.readouterr()
    assert "not signed: read the terms above, then --accept-digest " + parties.agreement.digest.hex() in said.err
    assert text.write(parties.agreement) in said.out and not (parties.folder / "half").exists()
    assert parties.city_signs(parties.draft, "half", "--accept-digest", "00" * 32) == 2
    assert "read it again" in capsys.readouterr().err and not (parties.folder / "half").exists()


def test_a_half_signed_file_that_was_altered_is_not_signed(parties, capsys):
    accepted = ("--accept-digest", parties.agreement.digest.hex())
    assert parties.owner_signs(parties.draft, "half", *accepted) == 0
    content = (parties.folder / "half").read_bytes()
    (parties.folder / "half").write_bytes(content.replace(parties.agreement.data_key, b"D" * 16))
    assert parties.city_signs(parties.folder / "half", "whole", *accepted) == 76
    said = capsys.readouterr().err
    assert "its one signature is neither party's, or is of other terms" in said and said.count("\n") == 1
    assert not (parties.folder / "whole").exists()


def test_the_other_party_is_compared_where_its_key_is_known(parties, capsys):
    assert parties.owner_signs(parties.draft, "half", "--qdo", "00" * 32) == 76
    assert "its query data owner is" in capsys.readouterr().err
    assert parties.city_signs(parties.draft, "half", "--mo", "00" * 32) == 76
    assert "its model owner is" in capsys.readouterr().err


def test_what_a_new_agreement_widens_is_shown_to_who_signs(parties, capsys):
    before = parties.signed("one.cose", parties.agreement)
    wider = replace(parties.agreement, number=8, placements=7)
    draft = parties.write("two.toml", wider)
    capsys.readouterr()
    assert parties.city_signs(draft, "half", "--previous", before) == 2
    out = capsys.readouterr().out
    assert "agreement 7 -> 8: 2 change(s), 1 of them WIDER" in out and "WIDER     placements: none -> inputs" in out


@pytest.mark.parametrize("number, says", [(0, False), (1, False), (2, True), (7, True)])
def test_who_signs_a_later_agreement_beside_none_is_told_that_nothing_was_compared(parties, capsys, number, says):
    draft = parties.write("n.toml", replace(parties.agreement, number=number))
    for sign_ in (parties.owner_signs, parties.city_signs):
        assert sign_(draft, "half") == 2
        assert ("# compared with nothing, though {} ".format(number) in capsys.readouterr().out) == says
    before = parties.signed("0.cose", replace(parties.agreement, number=0))
    capsys.readouterr()
    assert parties.city_signs(draft, "half", "--previous", before) == 2
    assert "compared with nothing" not in capsys.readouterr().out


def test_a_number_does_not_come_again(parties, capsys):
    before = parties.signed("one.cose", parties.agreement)
    assert parties.owner_signs(parties.draft, "half", "--previous", before,
                               "--accept-digest", parties.agreement.digest.hex()) == 2
    assert "its number is 7, must be above the previous one's, 7" in capsys.readouterr().err


def test_a_draft_was_never_in_force(parties, capsys):
    assert parties.owner_signs(parties.draft, "half", "--previous", parties.draft) == 2
    assert "is signed by nobody: no agreement was in force" in capsys.readouterr().err


def test_a_signed_agreement_is_never_written_over(parties, capsys):
    (parties.folder / "half").write_bytes(b"precious")
    assert parties.owner_signs(parties.draft, "half", "--accept-digest", parties.agreement.digest.hex()) == 77
    assert (parties.folder / "half").read_bytes() == b"precious"


@pytest.mark.parametrize("program", [owner, city])
def test_check_show_and_diff_are_for_both(parties, capsys, program):
    other = parties.write("other.toml", replace(parties.agreement, clips_per_hour=1))
    assert program.main(["agreement", "check", str(parties.draft)]) == 0
    assert "agreement 7, from 1970-01-01T00:16:40Z until 1970-01-01T00:33:20Z, signed by nobody, digest {}".format(
        parties.agreement.digest.hex()) in capsys.readouterr().out
    assert program.main(["agreement", "show", str(parties.draft)]) == 0
    assert capsys.readouterr().out.endswith(text.write(parties.agreement))
    assert program.main(["agreement", "diff", str(parties.draft), str(other)]) == 0
    assert capsys.readouterr().out == ("# agreement 7 -> 7: 1 change(s), 0 of them WIDER\n"
                                       "narrower  clips_per_hour: 3600 -> 1\n")
    assert program.main(["agreement", "diff", str(other), str(other)]) == 0
    assert capsys.readouterr().out == "# both are the same agreement\n"
    assert program.main(["agreement", "check", str(parties.folder / "none")]) == 66
    other.write_text("schema = 1\nnumbre = 2\n")
    capsys.readouterr()
    assert program.main(["agreement", "check", str(other)]) == 78
    said = capsys.readouterr().err
    assert "other.toml:2: numbre: unknown key" in said and said.count("\n") == 1
