"""Agreements: each test starts from a valid one, breaks one thing, and names the answer."""

import hashlib
from dataclasses import replace

import cbor2
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edged.enclave import wire
from edged.errors import PackageError, VerificationFailed
from edged.trust.agreement import (
    Agreement, ModelTerms, Recipient, Rule, body_for, open_agreement, read_payload, sign,
)  # fmt: skip

MO, QDO, OTHER = (Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32) for seed in (1, 2, 3))
UINT32 = (1 << 32) - 1


def public(key):
    return key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)


RULES = (Rule("falling", 40000, 60), Rule("fight", 1, 0, 22 * 60, 6 * 60))
RECIPIENTS = (Recipient(b"1" * 16, b"a" * 16, 1, (3, 3)), Recipient(b"2" * 16, b"b" * 16, 0, (1, 0)))
VALID = Agreement(
    mo=public(MO), qdo=public(QDO), body=1024, from_s=1000, model=ModelTerms("st-gcn", 3, b"m" * 16), rules=RULES,
    until_s=2000, number=7, status=wire.MessageStatus.ACTUAL, beacon_period_s=30, beacon_limit_s=90,
    data_key=b"d" * 16, placements=5, recipients=RECIPIENTS, score_bits=4, clips_per_hour=3600)
PAYLOAD = VALID.encode()
SIGNED = sign(PAYLOAD, MO, QDO)


def fields(**changes):
    """The payload's map with some of its values changed, in canonical form."""
    return cbor2.dumps(dict(cbor2.loads(PAYLOAD), **changes), canonical=True)


def without(name):
    return cbor2.dumps({key: value for key, value in cbor2.loads(PAYLOAD).items() if key != name}, canonical=True)


def test_an_agreement_opens_under_both_parties_keys():
    assert open_agreement(SIGNED) == open_agreement(SIGNED, public(MO), public(QDO)) == VALID
    assert VALID.digest == hashlib.sha256(PAYLOAD).digest()


def test_the_form_is_that_of_the_wire_header():
    """Built again by hand: tag 98, no header of the body, the key order of the map."""
    assert list(cbor2.loads(PAYLOAD)) == [
        "v", "mo", "qdo", "body", "from", "model", "rules", "until", "number", "status", "beacons", "data_key",
        "placements", "recipients", "score_bits", "clips_per_hour"]
    head, size = bytes.fromhex("d8628440a0"), len(PAYLOAD)
    assert 256 <= size and SIGNED[:5] == head and SIGNED[5:8] == b"\x59" + size.to_bytes(2, "big")
    assert SIGNED[8:8 + size] == PAYLOAD
    signed = cbor2.dumps(["Signature", b"", b"\xa1\x01\x27", b"edged agreement", PAYLOAD])
    one = bytes.fromhex("8343a10127a05840")
    assert SIGNED[8 + size:] == b"\x82" + one + MO.sign(signed) + one + QDO.sign(signed)


def test_both_parties_may_be_one():
    both = replace(VALID, qdo=VALID.mo)
    assert open_agreement(sign(both.encode(), MO, MO)) == both


@pytest.mark.parametrize("keys, party", [
    ((OTHER, QDO), "model owner"), ((MO, OTHER), "query data owner"), ((QDO, MO), "model owner"),
    ((MO, MO), "query data owner"), ((QDO, QDO), "model owner")])
def test_a_signature_of_another_key_is_refused(keys, party):
    with pytest.raises(VerificationFailed, match="agreement 7: the {}'s signature".format(party)):
        open_agreement(sign(PAYLOAD, *keys))


def test_signatures_of_another_agreement_are_refused():
    other = sign(replace(VALID, number=8).encode(), MO, QDO)
    with pytest.raises(VerificationFailed, match="signature does not verify"):
        open_agreement(SIGNED[:-145] + other[-145:])


def test_an_agreement_of_other_parties_than_expected_is_refused():
    with pytest.raises(VerificationFailed, match="its model owner is"):
        open_agreement(SIGNED, mo_public=public(OTHER))
    with pytest.raises(VerificationFailed, match="its query data owner is"):
        open_agreement(SIGNED, qdo_public=public(MO))


def test_an_agreement_that_names_32_bytes_that_are_no_key_is_refused():
    for nothing in (bytes(32), b"\xff" * 32):
        with pytest.raises(VerificationFailed, match="signature does not verify"):
            open_agreement(sign(replace(VALID, qdo=nothing).encode(), MO, QDO))


def test_an_altered_byte_anywhere_is_refused():
    for place in range(len(SIGNED)):
        broken = bytearray(SIGNED)
        broken[place] ^= 1 << place % 8
        with pytest.raises((PackageError, VerificationFailed)):
            open_agreement(bytes(broken))


MIDDLE = len(SIGNED) - 72


@pytest.mark.parametrize("signed", [
    b"", SIGNED[:5], SIGNED[:-1], SIGNED + b"\0", SIGNED[:MIDDLE], SIGNED + SIGNED[MIDDLE:], SIGNED[2:],
    b"\xd2" + SIGNED[2:], SIGNED.replace(b"\x82\x83\x43", b"\x81\x83\x43"), PAYLOAD,
    SIGNED.replace(b"\x84\x40\xa0", b"\x84\x40\xa1\x01\x27"),
    SIGNED[:5] + b"\x5a\0\0" + SIGNED[6:],  # a length that is not in its shortest form
    SIGNED[:5] + cbor2.dumps(PAYLOAD.decode("latin-1")) + SIGNED[8 + len(PAYLOAD):],
], ids=["nothing", "head", "cut off", "a tail", "one signature", "three signatures", "no tag", "another tag",
        "announces one signature", "payload alone", "a header of the body", "longer length", "text"])
def test_an_envelope_of_another_form_is_refused(signed):
    with pytest.raises(PackageError, match="COSE_Sign"):
        open_agreement(signed)


@pytest.mark.parametrize("payload, reason", [
    (b"", "not CBOR"),
    (b"\xa1", "not CBOR"),
    (cbor2.dumps([1]), "not a canonical CBOR map"),
    (PAYLOAD + b"\0", "not a canonical CBOR map"),
    (cbor2.dumps(dict(reversed(list(cbor2.loads(PAYLOAD).items())))), "not a canonical CBOR map"),
    (PAYLOAD.replace(b"\x61v\x01", b"\x61v\x18\x01"), "not a canonical CBOR map"),
    (fields(more=1), "missing or unknown: more"),
    (without("status"), "missing or unknown: status"),
], ids=["nothing", "cut off", "a list", "a tail", "another order", "longer number", "unknown field", "a field less"])
def test_a_payload_of_another_form_is_refused(payload, reason):
    with pytest.raises(PackageError, match=reason):
        open_agreement(sign(payload, MO, QDO))


def row(name, index, at, value):
    """A list in the payload, one of whose rows has another value at a place."""
    rows = cbor2.loads(PAYLOAD)[name]
    rows[index][at] = value
    return {name: rows}


WRONG = [
    (dict(v=0), "v is 0"), (dict(v=2), "v is 2"), (dict(v=True), "v is True"),
    (dict(mo=bytes(31)), "mo is"), (dict(qdo="q" * 32), "qdo is"), (dict(qdo=bytes(33)), "qdo is"),
    (dict(body=0), "body is 0"), (dict(body=511), "body is 511"), (dict(body=513), "multiple of 512"),
    (dict(body=4096), "body is 4096"), (dict(body=512.0), "body is 512.0"),
    ({"from": -1}, "from is -1"), ({"from": 2000}, "no time at all"), ({"until": 999}, "no time at all"),
    ({"until": UINT32 + 1}, "until is"),
    (dict(model=["st-gcn", 3]), "must be a list of 3"), (dict(model=["", 3, b"m" * 16]), "model: id is ''"),
    (dict(model=["i" * 65, 3, b"m" * 16]), "model: id is"), (dict(model=["i", -1, b"m" * 16]), "version is -1"),
    (dict(model=["i", 3, b"m" * 15]), "key_id is"),
    (dict(rules=[["falling", 1, 0, 0, 0]] * 9), "must be a list of 0..8"), (dict(rules={}), "rules is"),
    (dict(rules=[["one", 1, 0, 0, 0]] * 2), "one label stands twice"),
    (dict(rules=[["falling", 1, 0, 0]]), "is not a list of label"), (dict(rules=["falling"]), "is not a list of"),
    (row("rules", 0, 0, "l" * 33), "label is"), (row("rules", 0, 0, ""), "label is ''"),
    (row("rules", 0, 0, b"falling"), "label is"), (row("rules", 0, 1, 0), "threshold is 0"),
    (row("rules", 0, 1, 65537), "threshold is 65537"), (row("rules", 0, 2, 86401), "cool_down is"),
    (row("rules", 1, 3, 1440), "first is 1440"), (row("rules", 1, 4, 1440), "end is 1440"),
    (dict(number=-1), "number is -1"), (dict(number=UINT32 + 1), "number is"),
    (dict(status=1), "status is 1"), (dict(status=3), "status is 3"),
    (dict(beacons=[30]), "must be a list of 2"), (dict(beacons=[0, 90]), "period is 0"),
    (dict(beacons=[86401, 86401]), "period is 86401"), (dict(beacons=[30, 29]), "limit is 29"),
    (dict(beacons=[30, 1 << 31]), "limit is"),
    (dict(data_key=bytes(15)), "data_key is"), (dict(placements=0), "placements is 0"),
    (dict(placements=8), "placements is 8"),
    (dict(recipients=[]), "must be a list of 1..4"),
    (dict(recipients=[[bytes([i]) * 16, b"a" * 16, 0, [0, 0]] for i in range(5)]), "must be a list of 1..4"),
    (dict(recipients=[[b"1" * 16, b"a" * 16, 0]]), "is not a list of rcpt"),
    (row("recipients", 1, 0, b"1" * 16), "one stands twice"), (row("recipients", 0, 0, b"1"), "rcpt is"),
    (row("recipients", 0, 1, b"a" * 17), "alert_key is"), (row("recipients", 0, 2, 2), "sees is 2"),
    (row("recipients", 0, 3, [3]), "must be a list of 2"), (row("recipients", 0, 3, [3, 4]), "rules is"),
    (row("recipients", 0, 3, [3, 2]), "rules is"),  # a score without its label
    (row("recipients", 0, 3, [3, True]), "rules is"),
    (dict(score_bits=17), "score_bits is 17"), (dict(clips_per_hour=0), "clips_per_hour is 0"),
    (dict(clips_per_hour=1000001), "clips_per_hour is"),
]


@pytest.mark.parametrize("changes, reason", WRONG, ids=[reason for _, reason in WRONG])
def test_a_field_out_of_its_range_is_refused(changes, reason):
    with pytest.raises(PackageError, match=reason):
        read_payload(fields(**changes))


@pytest.mark.parametrize("changes", [
    dict(rules=(), recipients=(Recipient(b"1" * 16, b"a" * 16, 0),)), dict(body=512), dict(body=3584),
    dict(from_s=0, until_s=UINT32), dict(status=wire.MessageStatus.TEST), dict(score_bits=0), dict(score_bits=16),
    dict(clips_per_hour=1000000), dict(beacon_period_s=1, beacon_limit_s=1), dict(number=0), dict(placements=7),
    dict(rules=tuple(Rule("l" * 31 + str(i), 65536, 86400, 1439, 0) for i in range(8)),
         recipients=tuple(Recipient(bytes([i]) * 16, b"a" * 16, i % 2, (3,) * 8) for i in range(4))),
], ids=str)
def test_the_ends_of_each_range_are_taken(changes):
    agreement = replace(VALID, **changes)
    assert open_agreement(sign(agreement.encode(), MO, QDO)) == agreement
    assert len(sign(agreement.encode(), MO, QDO)) <= (
        wire.EDGED_MESSAGE_BYTES - wire.Header.size() - wire.AgreementPut.size())


@pytest.mark.parametrize("labels, rules, body", [(1, 0, 512), (45, 0, 512), (46, 0, 1024), (29, 8, 512), (30, 8, 1024),
                                                 (400, 8, 3584)])
def test_a_body_is_found_that_holds_the_scores(labels, rules, body):
    assert body_for(labels, rules) == body
