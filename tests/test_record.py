"""Records: each test starts from a valid one, breaks one thing, and names the answer."""

import hashlib
import hmac
import struct

import cbor2
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from edged.alerts.record import (
    Alert, Claim, Epoch, Heartbeat, Observation, RecordHeader, Skeletons, Succession, camera_tag, open_record,
    seal_beacon,
)  # fmt: skip
from edged.enclave import wire
from edged.enclave.wire import MessageStatus, MessageType, RecordKind
from edged.errors import KeyRefused, PackageError, VerificationFailed

KEY = bytes(range(32))
AGREEMENT = b"g" * 32
BODY_BYTES = 512
HEADER = {"v": 1, "kid": b"k" * 16, "seq": 258, "kind": 0, "node": b"n" * 16, "rcpt": b"r" * 16, "salt": b"s" * 32,
          "epoch": b"e" * 16}


def canonical(**changes):
    """The header as the enclave writes it: keys in the order of HEADER."""
    return cbor2.dumps(dict(HEADER, **changes))


NOTHING = wire.AlertEntry(0, 0, 0)
LOGITS, PROBABILITIES = (-65536, 0, 2 ** 30), (1, 2, 65533)


def clip(entries=(NOTHING, NOTHING), shown=True, **changes):
    """The plaintext of a clip's record, without the zeros behind it."""
    values = dict(version=2, kind=0, status=0, sees=int(shown), labels=3, rules=len(entries), persons=2, number=77,
                  claimed_ns=99, time_ns=1234, tracks=(4, 5, 0, 0, 0, 0, 0, 0), camera=b"c" * 32, model=b"m" * 32)
    values.update(changes)
    scores = struct.pack("<3i3I", *(LOGITS + PROBABILITIES)) if shown else b""
    return wire.Scores(**values).pack() + b"".join(entry.pack() for entry in entries) + scores


ALERTED = (wire.AlertEntry(1, 65000, 77), NOTHING)


XY = struct.pack("<24h", -32768, 32767, *range(22))  # two persons, three frames, two joints


def drawn(entries=ALERTED, shown=False, skeletons=(2, 3, 2), xy=XY, **changes):
    """Likewise, of one that tells skeletons."""
    return clip(entries, shown, **dict(dict(kind=1), **changes)) + wire.SkeletonHead(*skeletons).pack() + xy


def epoch(**changes):
    values = dict(version=2, kind=3, unclean=0, counter=9, previous_seq=1000, previous=b"p" * 16, agreement=AGREEMENT)
    return wire.EpochBody(**dict(values, **changes)).pack()


COUNTS = (wire.CameraCount(camera_tag(b"c" * 32), 5, 1), wire.CameraCount(b"t" * 16, 0, 0))


def heartbeat(counts=COUNTS, **changes):
    values = dict(version=2, kind=2, cameras=len(counts), nonce=b"N" * 16, time_ns=10 ** 18, uptime_ns=7, seq=258,
                  counter=9, config=b"z" * 32)
    return wire.HeartbeatHead(**dict(values, **changes)).pack() + b"".join(count.pack() for count in counts)


def claim(data=b"lens covered", kind=5, **changes):
    return wire.ClaimHead(**dict(dict(version=2, kind=kind, bytes=len(data)), **changes)).pack() + data


def succession(**changes):
    values = dict(version=2, kind=9, number=12, next_key=b"K" * 16, successor=b"S" * 32)
    return wire.SuccessionBody(**dict(values, **changes)).pack()


def seal(header=None, plain=None, key=KEY, seq=258, body_bytes=BODY_BYTES):
    """What the enclave does, written from the design alone."""
    header = canonical() if header is None else header
    plain = clip() if plain is None else plain
    plain = plain.ljust(192 + body_bytes - len(header), b"\0")
    extracted = hmac.new(b"s" * 32, key, hashlib.sha256).digest()
    info = b"edged record v1" + b"r" * 16 + AGREEMENT
    derived = hmac.new(extracted, info + b"\x01", hashlib.sha256).digest()[:len(key)]
    body = AESGCM(derived).encrypt(struct.pack("<Q4x", seq), plain, header)
    return struct.pack("<II", len(header), len(body)) + header + body


def opened(plain, body_bytes=BODY_BYTES, **header):
    return open_record(seal(canonical(**header), plain, body_bytes=body_bytes), KEY, AGREEMENT)


def opened_drawn(plain, **header):
    return opened(plain, wire.EDGED_BODY_SKELETONS, **header)


@pytest.mark.parametrize("key", [KEY, KEY[:16]], ids=["aes-256", "aes-128"])
def test_a_record_opens_with_its_key(key):
    assert open_record(seal(key=key), key, AGREEMENT) == Observation(
        RecordHeader(**HEADER), RecordKind.OBSERVATION, MessageStatus.ACTUAL, persons=2, tracks=(4, 5), number=77,
        claimed_ns=99, time_ns=1234, camera=b"c" * 32, model=b"m" * 32,
        alerts=(Alert(MessageType.NONE, 0, 0, 0), Alert(MessageType.NONE, 0, 0, 1)), logits=LOGITS,
        probabilities=PROBABILITIES)


def test_an_alert_comes_under_the_header_of_an_observation():
    seen = opened(clip(ALERTED, kind=1, status=1))
    assert (seen.kind, seen.header.kind, seen.status) == (RecordKind.ALERT, 0, MessageStatus.EXERCISE)
    assert seen.alerts == (Alert(MessageType.ALERT, 65000, 77, 0), Alert(MessageType.NONE, 0, 0, 1))


def test_a_recipient_who_sees_no_scores_gets_none():
    seen = opened(clip(shown=False, persons=0, tracks=(0,) * 8))
    assert (seen.logits, seen.probabilities, seen.persons, seen.tracks) == ((), (), 0, ())


@pytest.mark.parametrize("shown", [False, True])
@pytest.mark.parametrize("message", [MessageType.ALERT, MessageType.UPDATE])
def test_an_alert_that_tells_skeletons_opens(shown, message):
    seen = opened_drawn(drawn((NOTHING, wire.AlertEntry(message, 0, 77)), shown))
    assert seen.skeletons == Skeletons(2, 3, 2, XY) and seen.alerts[1].message == message
    assert seen.probabilities == (PROBABILITIES if shown else ())


@pytest.mark.parametrize("plain, header", [
    (clip(ALERTED, kind=1), {}), (clip(), {}), (clip(kind=4), dict(kind=4)), (clip((), False), {}),
    (epoch(), dict(kind=3)),
], ids=["alert", "observation", "failed", "no rule", "epoch"])
def test_records_beside_them_have_their_size_and_none(plain, header):
    seen = opened_drawn(plain, **header)
    assert getattr(seen, "skeletons", None) is None


@pytest.mark.parametrize("plain, reason", [
    (drawn(persons=1, tracks=(4,) + (0,) * 7), "skeletons of 2 persons, of 1"),
    (drawn(skeletons=(1, 6, 2)), "skeletons of 1 persons, of 2"),
    (drawn(skeletons=(0, 3, 2)), "skeletons of 0 persons, 3 frames, 2 joints"),
    (drawn(skeletons=(2, 0, 2)), "2 persons, 0 frames, 2 joints"), (drawn(skeletons=(2, 3, 0)), "0 joints"),
    (drawn(skeletons=(9, 3, 2)), "skeletons of 9 persons"), (drawn(skeletons=(2, 4097, 2)), "4097 frames"),
    (drawn(skeletons=(2, 3, 65)), "65 joints"), (drawn(skeletons=(2, 4096, 64)), "content of 2097352 bytes"),
    (drawn(skeletons=(2, 3, 1)), "must be 0"), (drawn() + b"\1", "must be 0"),
    (clip(ALERTED, False, kind=1) + bytes(16) + XY, "must be 0"),
    (drawn((NOTHING, NOTHING), kind=0), "with messages"),
    (drawn((wire.AlertEntry(3, 0, 77), NOTHING)), "with messages"),
    (drawn()[:196] + b"\1" + drawn()[197:], "reserved"),
], ids=lambda value: value if isinstance(value, str) else "")
def test_skeletons_of_another_form_are_refused(plain, reason):
    with pytest.raises(PackageError, match=reason):
        opened_drawn(plain)


def test_a_smaller_body_holds_none():
    with pytest.raises(PackageError, match="must be 0"):
        opened(drawn())


def test_a_failed_record_with_skeletons_is_refused():
    with pytest.raises(PackageError, match="with messages"):
        opened_drawn(drawn((NOTHING, NOTHING), kind=4), kind=4)


def test_a_header_packs_to_what_was_read():
    assert RecordHeader.unpack(canonical()).pack() == canonical()


def test_a_failed_record_opens():
    assert opened(clip(kind=4), kind=4).kind == RecordKind.FAILED


def test_an_epoch_opens():
    assert opened(epoch(), kind=3) == Epoch(
        RecordHeader(**dict(HEADER, kind=3)), RecordKind.EPOCH, False, 9, b"p" * 16, 1000, AGREEMENT)
    assert opened(epoch(unclean=1), kind=3).unclean is True


@pytest.mark.parametrize("counts", [(), COUNTS], ids=["no camera", "two cameras"])
def test_a_heartbeat_opens(counts):
    assert opened(heartbeat(counts), kind=2) == Heartbeat(
        RecordHeader(**dict(HEADER, kind=2)), RecordKind.HEARTBEAT, b"N" * 16, 10 ** 18, 7, 258, 9, b"z" * 32, counts)


@pytest.mark.parametrize("kind", [RecordKind.CAMERA, RecordKind.HEALTH, RecordKind.STATISTICS, RecordKind.EVICTED],
                         ids=lambda kind: kind.name)
@pytest.mark.parametrize("data", [b"", b"lens covered", b"x" * 383 + b"\0"], ids=["none", "some", "most"])
def test_a_claim_opens(kind, data):
    assert opened(claim(data, kind), kind=int(kind)) == Claim(
        RecordHeader(**dict(HEADER, kind=int(kind))), kind, data)


@pytest.mark.parametrize("next_key, read", [(b"K" * 16, b"K" * 16), (bytes(16), None)], ids=["a key", "none"])
def test_a_succession_opens(next_key, read):
    assert opened(succession(next_key=next_key), kind=9) == Succession(
        RecordHeader(**dict(HEADER, kind=9)), RecordKind.SUCCESSION, 12, read, b"S" * 32)


def test_records_have_one_size_though_a_header_grows_with_its_number():
    sizes = {len(seal(canonical(seq=seq), seq=seq)) for seq in (1, 23, 24, 256, 65536, 1 << 32, (1 << 64) - 1)}
    assert len(sizes) == 1
    for seq in (1, (1 << 64) - 1):
        assert open_record(seal(canonical(seq=seq), seq=seq), KEY, AGREEMENT).header.seq == seq


def test_another_key_does_not_open_it():
    with pytest.raises(VerificationFailed, match="seq 258"):
        open_record(seal(), bytes(32), AGREEMENT)


def test_another_agreement_does_not_open_it():
    """It is part of the record's key."""
    with pytest.raises(VerificationFailed, match="seq 258"):
        open_record(seal(), KEY, bytes(32))


def test_a_key_of_another_size_is_refused():
    with pytest.raises(KeyRefused, match="24 bytes"):
        open_record(seal(), bytes(24), AGREEMENT)


def test_any_flipped_bit_is_refused():
    whole = seal()
    for position in range(len(whole)):
        broken = bytearray(whole)
        broken[position] ^= 1 << position % 8
        with pytest.raises((PackageError, VerificationFailed)):
            open_record(bytes(broken), KEY, AGREEMENT)


@pytest.mark.parametrize("size", [0, 7, 8, 100, 600])
def test_a_record_that_is_cut_off_is_refused(size):
    with pytest.raises(PackageError):
        open_record(seal()[:size], KEY, AGREEMENT)


def test_a_record_with_a_tail_is_refused():
    with pytest.raises(PackageError, match="announces"):
        open_record(seal() + b"\0", KEY, AGREEMENT)


@pytest.mark.parametrize("header, reason", [
    (canonical(v=2), "version 2"),
    (canonical(kid=b"k" * 15), "kid is not 16 bytes"),
    (canonical(salt="s" * 32), "salt is not 32 bytes"),
    (canonical(seq=-1), "seq is not a 64-bit number"),
    (canonical(seq=True), "seq is not a 64-bit number"),
    (canonical(more=1), "not a (canonical CBOR )?map"),
    (cbor2.dumps({name: value for name, value in HEADER.items() if name != "kid"}), "not a (canonical CBOR )?map"),
    (cbor2.dumps(dict(reversed(list(HEADER.items())))), "not a (canonical CBOR )?map"),
    (cbor2.dumps([1]), "not a (canonical CBOR )?map"),
    (b"\xa1", "not CBOR"),
    (canonical() + b"\0", "canonical"),
    (canonical().replace(b"\x61v\x01", b"\x61v\x18\x01"), "canonical"),
])
def test_a_header_of_another_form_is_refused(header, reason):
    with pytest.raises(PackageError, match=reason):
        open_record(seal(header), KEY, AGREEMENT)


@pytest.mark.parametrize("plain, reason", [
    (clip(version=1), "version 1"),
    (clip(kind=4), "kind 4 within, 0 outside"),
    (clip(labels=401), "401 labels"),
    (clip(labels=300), "content of"),
    (clip(labels=2), "must be 0"),
    (clip(rules=9), "9 rules"),
    (clip(rules=1), "must be 0"),
    (clip(sees=2), "sees 2"),
    (clip(sees=0), "must be 0"),
    (clip(status=3), "status 3"),
    (clip(persons=9), "9 persons"),
    (clip(persons=1), "must be 0"),
    (clip() + b"\1", "must be 0"),
    (clip((wire.AlertEntry(4, 0, 0), NOTHING)), "rule 0: message 4"),
    (clip(ALERTED), "kind OBSERVATION with messages"),
    (clip(kind=1), "kind ALERT with messages"),
    (clip()[:28] + b"\1" + clip()[29:], "reserved"),
], ids=lambda value: value if isinstance(value, str) else "")
def test_a_clips_body_of_another_form_is_refused(plain, reason):
    with pytest.raises(PackageError, match=reason):
        opened(plain)


@pytest.mark.parametrize("plain, kind, reason", [
    (epoch(unclean=2), 3, "unclean is 2"),
    (epoch(agreement=bytes(32)), 3, "another agreement"),
    (epoch() + b"\1", 3, "must be 0"),
    (epoch(kind=2), 3, "kind 2 within, 3 outside"),
    (heartbeat(seq=257), 2, "heartbeat of seq 257"),
    (heartbeat(cameras=17), 2, "17 cameras"),
    (heartbeat(cameras=1), 2, "must be 0"),
    (heartbeat(version=3), 2, "version 3"),
    (claim(bytes=385), 5, "claim of 385 bytes"),
    (claim(bytes=3), 5, "must be 0"),
    (claim(kind=6), 5, "kind 6 within, 5 outside"),
    (clip(ALERTED, kind=1), 4, "kind 1 within, 4 outside"),
    (clip(ALERTED, kind=1), 1, "kind 1 within, 1 outside"),  # an alert that the header tells
    (claim(kind=10), 10, "kind 10"),
    (claim(b"x" * 60, kind=9), 9, "must be 0"),
    (succession(version=1), 9, "version 1"),
    (succession(kind=5), 9, "kind 5 within, 9 outside"),
    (succession(), 5, "kind 9 within, 5 outside"),
    (succession()[:12] + b"\1" + succession()[13:], 9, "reserved"),
    (succession() + b"\1", 9, "must be 0"),
    (succession(successor=AGREEMENT), 9, "follow itself"),
])
def test_another_body_of_another_form_is_refused(plain, kind, reason):
    with pytest.raises(PackageError, match=reason):
        opened(plain, kind=kind)


@pytest.mark.parametrize("body_bytes", [0, 511, 513, 4096, 48640, 49151, 49153, 49664])
def test_a_body_of_a_size_that_no_agreement_can_fix_is_refused(body_bytes):
    with pytest.raises(PackageError, match="not a size"):
        open_record(seal(plain=epoch(), body_bytes=body_bytes), KEY, AGREEMENT)


@pytest.mark.parametrize("key", [KEY, KEY[:16]], ids=["32 bytes", "16 bytes"])
def test_a_beacon_is_what_the_wire_header_says(key):
    beacon = seal_beacon(key, b"s" * 32, b"r" * 16, AGREEMENT, 10 ** 18, b"n" * 16)
    extracted = hmac.new(b"s" * 32, key, hashlib.sha256).digest()
    info = b"edged beacon v1" + b"r" * 16 + AGREEMENT
    derived = hmac.new(extracted, info + b"\x01", hashlib.sha256).digest()[:len(key)]
    before = struct.pack("<II16sQ16s", 1, 0, b"r" * 16, 10 ** 18, b"n" * 16)
    assert beacon == before + hmac.new(derived, before, hashlib.sha256).digest()
    assert wire.Beacon.unpack(beacon).time_ns == 10 ** 18


def test_a_beacon_under_a_key_of_another_size_is_refused():
    with pytest.raises(KeyRefused, match="24 bytes"):
        seal_beacon(bytes(24), b"s" * 32, b"r" * 16, AGREEMENT, 1, b"n" * 16)
