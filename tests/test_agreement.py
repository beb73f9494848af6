"""Agreements: each test starts from a valid one, breaks one thing, and names the answer."""

import hashlib
from dataclasses import replace

import cbor2
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agreement_cases import UINT32, malformed, misshapen, out_of_range
from edged.enclave import wire
from edged.errors import PackageError, VerificationFailed
from edged.trust.agreement import (
    Agreement, ModelTerms, Recipient, Rule, body_for, open_agreement, read_payload, sign,
)  # fmt: skip

MO, QDO, OTHER = (Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32) for seed in (1, 2, 3))


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


@pytest.mark.parametrize("what", list(misshapen(SIGNED, PAYLOAD)))
def test_an_envelope_of_another_form_is_refused(what):
    with pytest.raises(PackageError, match="COSE_Sign"):
        open_agreement(misshapen(SIGNED, PAYLOAD)[what])


@pytest.mark.parametrize("what", list(malformed(PAYLOAD)))
def test_a_payload_of_another_form_is_refused(what):
    payload, reason = malformed(PAYLOAD)[what]
    with pytest.raises(PackageError, match=reason):
        open_agreement(sign(payload, MO, QDO))


@pytest.mark.parametrize("payload, reason", out_of_range(PAYLOAD), ids=[why for _, why in out_of_range(PAYLOAD)])
def test_a_field_out_of_its_range_is_refused(payload, reason):
    with pytest.raises(PackageError, match=reason):
        read_payload(payload)


@pytest.mark.parametrize("changes", [
    dict(rules=(), recipients=(Recipient(b"1" * 16, b"a" * 16, 0),)), dict(body=512), dict(body=3584),
    dict(from_s=0, until_s=UINT32), dict(status=wire.MessageStatus.TEST), dict(score_bits=0), dict(score_bits=16),
    dict(clips_per_hour=1000000), dict(beacon_period_s=1, beacon_limit_s=1), dict(number=0), dict(placements=7),
    dict(body=49152, recipients=(RECIPIENTS[0], RECIPIENTS[1]._replace(rules=(0, 5)))),
    dict(body=49152, recipients=(RECIPIENTS[0]._replace(rules=(7, 5)), RECIPIENTS[1])),
    dict(body=49152, rules=tuple(Rule("l" * 31 + str(i), 65536, 0) for i in range(8)),
         recipients=tuple(Recipient(bytes([i]) * 16, b"a" * 16, 1, (7,) * 8) for i in range(4))),
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
    assert body_for(labels, rules, skeletons=True) == 49152
