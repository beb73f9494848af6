"""Records: each test starts from a valid one, breaks one thing, and names the answer."""

import hashlib
import hmac
import struct

import cbor2
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from edged.alerts.record import RecordHeader, open_record
from edged.enclave import wire
from edged.errors import KeyRefused, PackageError, VerificationFailed

KEY = bytes(range(32))
BODY_BYTES = 512
HEADER = {"v": 1, "kid": b"k" * 16, "seq": 258, "kind": 0, "node": b"n" * 16, "rcpt": b"r" * 16, "salt": b"s" * 32,
          "epoch": b"e" * 16}


def canonical(**changes):
    """The header as the enclave writes it: keys in the order of HEADER."""
    return cbor2.dumps(dict(HEADER, **changes))


def plaintext(**changes):
    fields = dict(version=1, kind=0, labels=3, persons=2, number=77, claimed_ns=99, tracks=(4, 5, 0, 0, 0, 0, 0, 0),
                  camera=b"c" * 32, model=b"m" * 32)
    fields.update(changes)
    scores = struct.pack("<3i3I", -65536, 0, 2 ** 30, 1, 2, 65533)
    return (wire.Scores(**fields).pack() + scores).ljust(BODY_BYTES, b"\0")


def seal(header=None, plain=None, key=KEY, seq=258):
    """What the enclave does, written from the design alone."""
    header = canonical() if header is None else header
    plain = plaintext() if plain is None else plain
    extracted = hmac.new(b"s" * 32, key, hashlib.sha256).digest()
    info = b"edged record v1" + b"r" * 16 + bytes(32)
    derived = hmac.new(extracted, info + b"\x01", hashlib.sha256).digest()[:len(key)]
    body = AESGCM(derived).encrypt(struct.pack("<Q4x", seq), plain, header)
    return struct.pack("<II", len(header), len(body)) + header + body


@pytest.mark.parametrize("key", [KEY, KEY[:16]], ids=["aes-256", "aes-128"])
def test_a_record_opens_with_its_key(key):
    seen = open_record(seal(key=key), key)
    assert seen.header == RecordHeader(**HEADER)
    assert seen.kind == wire.RecordKind.OBSERVATION
    assert (seen.persons, seen.number, seen.claimed_ns, seen.tracks) == (2, 77, 99, (4, 5))
    assert seen.logits == (-65536, 0, 2 ** 30)
    assert seen.probabilities == (1, 2, 65533)


def test_a_header_packs_to_what_was_read():
    assert RecordHeader.unpack(canonical()).pack() == canonical()


def test_a_failed_record_opens():
    assert open_record(seal(canonical(kind=4), plaintext(kind=4)), KEY).kind == wire.RecordKind.FAILED


def test_another_key_does_not_open_it():
    with pytest.raises(VerificationFailed, match="seq 258"):
        open_record(seal(), bytes(32))


def test_a_key_of_another_size_is_refused():
    with pytest.raises(KeyRefused, match="24 bytes"):
        open_record(seal(), bytes(24))


def test_any_flipped_bit_is_refused():
    whole = seal()
    for position in range(len(whole)):
        broken = bytearray(whole)
        broken[position] ^= 1 << position % 8
        with pytest.raises((PackageError, VerificationFailed)):
            open_record(bytes(broken), KEY)


@pytest.mark.parametrize("size", [0, 7, 8, 100, 600])
def test_a_record_that_is_cut_off_is_refused(size):
    with pytest.raises(PackageError):
        open_record(seal()[:size], KEY)


def test_a_record_with_a_tail_is_refused():
    with pytest.raises(PackageError, match="announces"):
        open_record(seal() + b"\0", KEY)


@pytest.mark.parametrize("header, reason", [
    (canonical(v=2), "version 2"),
    (canonical(kid=b"k" * 15), "kid is not 16 bytes"),
    (canonical(salt="s" * 32), "salt is not 32 bytes"),
    (canonical(seq=-1), "seq is not a 64-bit number"),
    (canonical(seq=True), "seq is not a 64-bit number"),
    (canonical(more=1), "not a map of"),
    (cbor2.dumps({name: value for name, value in HEADER.items() if name != "kid"}), "not a map of"),
    (cbor2.dumps(dict(reversed(list(HEADER.items())))), "not a map of"),
    (cbor2.dumps([1]), "not a map of"),
    (b"\xa1", "not CBOR"),
    (canonical() + b"\0", "canonical"),
    (canonical().replace(b"\x61v\x01", b"\x61v\x18\x01"), "canonical"),
])
def test_a_header_of_another_form_is_refused(header, reason):
    with pytest.raises(PackageError, match=reason):
        open_record(seal(header), KEY)


@pytest.mark.parametrize("plain, reason", [
    (plaintext(version=2), "version 2"),
    (plaintext(kind=4), "kind 4 within, 0 outside"),
    (plaintext(labels=0), "0 labels"),
    (plaintext(labels=401), "401 labels"),
    (plaintext(labels=300), "300 labels"),
    (plaintext(persons=9), "9 persons"),
    (plaintext(persons=1), "must be 0"),
    (plaintext()[:-1] + b"\1", "must be 0"),
    (plaintext()[:90], "body of 90 bytes"),
])
def test_a_body_of_another_form_is_refused(plain, reason):
    with pytest.raises(PackageError, match=reason):
        open_record(seal(plain=plain), KEY)


def test_a_kind_that_is_not_known_is_refused():
    with pytest.raises(PackageError, match="kind 9"):
        open_record(seal(canonical(kind=9), plaintext(kind=9)), KEY)
