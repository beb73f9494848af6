"""Sealed records: what leaves the enclave, for one recipient of the agreement; and the beacons that it answers.

    header      canonical CBOR map {v, kid, seq, kind, node, rcpt, salt, epoch}, in clear
    record key  = HKDF(alert key, salt, "edged record v1" || rcpt || agreement digest), as long as the alert key
    body        = AES-GCM(record key, nonce = seq le64 || 0 0 0 0, associated data = header)
    beacon tag  = HMAC-SHA-256(HKDF(alert key, salt, "edged beacon v1" || rcpt || agreement digest), the rest of it)

Every record of an agreement has one size. The header tells a clip's record from a heartbeat, never an alert from an
observation. Pure: bytes in, values out; needs nothing but the base install, so the city's server can use it.
Source: DESIGN sections 6 and 10; trusty_ta/include/edged_wire.h, struct edged_record to edged_succession.
"""

import hashlib
import hmac
import struct
from dataclasses import dataclass
from typing import Any, Callable, Dict, NamedTuple, Optional, Tuple, Union

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from edged import canonical
from edged.enclave import wire
from edged.enclave.slots import KEY_SIZES
from edged.enclave.wire import KeyKind, RecordKind
from edged.errors import EnclaveError, KeyRefused, PackageError, VerificationFailed

RECORD_VERSION = 1
BEACON_VERSION = 1
BODY_STEP = 512

# Field -> size of its byte string, or None for an unsigned integer; in the canonical order of keys.
_FORM: Dict[str, Any] = {"v": None, "kid": 16, "seq": None, "kind": None, "node": 16, "rcpt": 16, "salt": 32,
                         "epoch": 16}


@dataclass(frozen=True)
class RecordHeader:
    """What anybody may read of a record."""

    v: int
    kid: bytes
    seq: int
    kind: int
    node: bytes
    rcpt: bytes
    salt: bytes
    epoch: bytes

    def pack(self) -> bytes:
        return canonical.encode({name: getattr(self, name) for name in _FORM})

    @classmethod
    def unpack(cls, data: bytes) -> "RecordHeader":
        """Raises PackageError unless data is the one canonical form of these fields."""
        fields = canonical.decode(data, "record header")
        if type(fields) is not dict or list(fields) != list(_FORM):
            raise PackageError("record header: not a map of {}".format(", ".join(_FORM)))
        for name, size in _FORM.items():
            value = fields[name]
            if size is None and (not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 64):
                raise PackageError("record header: {} is not a 64-bit number".format(name))
            if size is not None and (not isinstance(value, bytes) or len(value) != size):
                raise PackageError("record header: {} is not {} bytes".format(name, size))
        header = cls(**fields)
        if header.v != RECORD_VERSION:
            raise PackageError("record header: version {}: this release reads {}".format(header.v, RECORD_VERSION))
        return header


class Alert(NamedTuple):
    """What one rule of the agreement (by its index there) says of a clip.

    score : Q16, rounded as agreed; 0 where the recipient may not see it
    event : number of the clip whose ALERT began it
    """

    message: wire.MessageType
    score: int
    event: int
    rule: int


class Skeletons(NamedTuple):
    """Who was seen, in the order of the clip's tracks. xy : int16 [persons][frames][joints][2], little-endian, Q14"""

    persons: int
    frames: int
    joints: int
    xy: bytes


@dataclass(frozen=True)
class Observation:
    """A clip: OBSERVATION, ALERT (a rule of ``alerts`` has something to say), or FAILED (all scores are 0).

    alerts : one per rule of the agreement
    logits, probabilities : one per label, Q16; empty where the recipient may not see all scores
    skeletons : of the clip, where a rule of which he may see them has an Alert or Update; else None
    claimed_ns and tracks are the node's claim. time_ns : city's time, 0 while no beacon told it
    """

    header: RecordHeader
    kind: RecordKind
    status: wire.MessageStatus
    persons: int
    tracks: Tuple[int, ...]
    number: int
    claimed_ns: int
    time_ns: int
    camera: bytes
    model: bytes  # SHA-256 of the signed manifest of the model of its last attempt
    alerts: Tuple[Alert, ...]
    logits: Tuple[int, ...]
    probabilities: Tuple[int, ...]
    skeletons: Optional[Skeletons] = None


@dataclass(frozen=True)
class Epoch:
    """The first record of a recipient in an epoch. previous : the epoch before, all 0 where none is known.

    previous_seq : this recipient's last record of it that was confirmed
    """

    header: RecordHeader
    kind: RecordKind
    unclean: bool
    counter: int
    previous: bytes
    previous_seq: int
    agreement: bytes


@dataclass(frozen=True)
class Heartbeat:
    """The answer to a beacon, whose nonce and time it gives back. cameras : those of the agreement.

    config : digest of the node's zones and privacy masks, which the node claims
    """

    header: RecordHeader
    kind: RecordKind
    nonce: bytes
    time_ns: int
    uptime_ns: int
    seq: int
    counter: int
    config: bytes
    cameras: Tuple[wire.CameraCount, ...]


@dataclass(frozen=True)
class Claim:
    """A statement of the node, sealed as it came: CAMERA, HEALTH, STATISTICS or EVICTED."""

    header: RecordHeader
    kind: RecordKind
    data: bytes


@dataclass(frozen=True)
class Succession:
    """The recipient's last record under its agreement: another one of the same two owners follows.

    number, successor : of the agreement that follows, and its digest, 32 bytes
    next_key : id of the recipient's alert key there; None: it is none of its recipients
    """

    header: RecordHeader
    kind: RecordKind
    number: int
    next_key: Optional[bytes]
    successor: bytes


Record = Union[Observation, Epoch, Heartbeat, Claim, Succession]


def split_record(sealed: bytes) -> Tuple[RecordHeader, bytes, bytes]:
    """(header, the header's bytes, ciphertext with tag). Raises PackageError where the form is wrong."""
    size = wire.RecordHead.size()
    if len(sealed) < size:
        raise PackageError("record of {} bytes: shorter than its head".format(len(sealed)))
    head = wire.RecordHead.unpack(sealed[:size])
    if size + head.header_bytes + head.body_bytes != len(sealed):
        raise PackageError("record of {} bytes: announces a header of {} and a body of {}".format(
            len(sealed), head.header_bytes, head.body_bytes))
    data = sealed[size:size + head.header_bytes]
    return RecordHeader.unpack(data), data, sealed[size + head.header_bytes:]


def open_record(sealed: bytes, alert_key: bytes, agreement_digest: bytes) -> Record:
    """Open a record with its recipient's alert key (16 or 32 bytes) under an agreement (its digest, 32 bytes).

    Raises PackageError (form), VerificationFailed (seal: another key or agreement, or altered), KeyRefused (key size).
    """
    header, associated, body = split_record(sealed)
    key = record_key(alert_key, header, agreement_digest)
    try:
        plain = AESGCM(key).decrypt(header.seq.to_bytes(8, "little") + bytes(4), body, associated)
    except InvalidTag:
        raise VerificationFailed("record seq {}: does not open with this alert key and agreement: others, or "
                                 "altered".format(header.seq)) from None
    size = len(associated) + len(plain) - wire.EDGED_RECORD_HEADER_MAX
    if size != wire.EDGED_BODY_SKELETONS and (not BODY_STEP <= size <= wire.EDGED_BODY_MAX or size % BODY_STEP):
        raise PackageError("record seq {}: body of {} bytes: not a size that an agreement can fix".format(
            header.seq, len(plain)))
    version, kind = struct.unpack_from("<II", plain)
    outside = RecordKind.OBSERVATION if kind == RecordKind.ALERT else kind
    if version != wire.EDGED_BODY_VERSION or outside != header.kind or kind not in _READERS:
        raise PackageError("record seq {}: version {}, kind {} within, {} outside".format(
            header.seq, version, kind, header.kind))
    try:
        record = _READERS[kind](header, plain)
    except EnclaveError as error:  # of the wire mirror: a reserved field
        raise PackageError("record seq {}: {}".format(header.seq, error)) from error
    if isinstance(record, Epoch) and record.agreement != agreement_digest:
        raise PackageError("record seq {}: names another agreement than it is sealed under".format(header.seq))
    if isinstance(record, Succession) and record.successor == agreement_digest:
        raise PackageError("record seq {}: has its agreement follow itself".format(header.seq))
    return record


def record_key(alert_key: bytes, header: RecordHeader, agreement_digest: bytes) -> bytes:
    return _derived(alert_key, header.salt, b"edged record v1" + header.rcpt + agreement_digest)


def seal_beacon(alert_key: bytes, salt: bytes, rcpt: bytes, agreement_digest: bytes, time_ns: int,
                nonce: bytes) -> bytes:
    """A beacon of this recipient; salt : of the epoch's records (any header has it), 32 bytes; nonce : 16 bytes."""
    key = _derived(alert_key, salt, b"edged beacon v1" + rcpt + agreement_digest)
    beacon = wire.Beacon(BEACON_VERSION, rcpt, time_ns, nonce, bytes(32)).pack()
    before = beacon[:wire.Beacon.layout["tag"].offset]
    return before + hmac.new(key, before, hashlib.sha256).digest()


def camera_tag(camera: bytes) -> bytes:
    """By which a heartbeat names a camera."""
    return hashlib.sha256(camera).digest()[:16]


def _derived(alert_key: bytes, salt: bytes, info: bytes) -> bytes:
    if len(alert_key) not in KEY_SIZES[KeyKind.ALERT]:
        raise KeyRefused("alert key of {} bytes, not 16 or 32".format(len(alert_key)))
    return HKDF(hashes.SHA256(), len(alert_key), salt, info).derive(alert_key)


def _read_clip(header: RecordHeader, plain: bytes) -> Observation:
    size = wire.Scores.size()
    scores = wire.Scores.unpack(plain[:size])
    if (scores.status not in list(wire.MessageStatus) or scores.sees not in (0, wire.EDGED_SEES_SCORES)
            or scores.rules > wire.EDGED_RULES_MAX or scores.labels > wire.EVAL_LABELS_MAX
            or scores.persons > wire.EVAL_PERSONS_MAX):
        raise PackageError("record seq {}: status {}, sees {}, {} rules, {} labels, {} persons".format(
            header.seq, scores.status, scores.sees, scores.rules, scores.labels, scores.persons))
    at = size + scores.rules * wire.AlertEntry.size()
    shown = scores.labels if scores.sees else 0
    _fits(header, plain, at + 8 * shown)
    alerts = []
    for rule, begin in enumerate(range(size, at, wire.AlertEntry.size())):
        entry = wire.AlertEntry.unpack(plain[begin:begin + wire.AlertEntry.size()])
        if entry.message not in list(wire.MessageType):
            raise PackageError("record seq {}: rule {}: message {}".format(header.seq, rule, entry.message))
        alerts.append(Alert(wire.MessageType(entry.message), entry.score, entry.event, rule))
    if any(scores.tracks[scores.persons:]):
        raise PackageError("record seq {}: what must be 0 is not".format(header.seq))
    if (scores.kind == RecordKind.ALERT) != any(alert.message for alert in alerts):
        raise PackageError("record seq {}: kind {} with messages {}".format(
            header.seq, RecordKind(scores.kind).name, [int(alert.message) for alert in alerts]))
    skeletons = _read_skeletons(header, plain, at + 8 * shown)
    if skeletons is not None and (skeletons.persons != scores.persons or not any(
            alert.message in (wire.MessageType.ALERT, wire.MessageType.UPDATE) for alert in alerts)):
        raise PackageError("record seq {}: skeletons of {} persons, of {}, with messages {}".format(
            header.seq, skeletons.persons, scores.persons, [int(alert.message) for alert in alerts]))
    return Observation(
        header, RecordKind(scores.kind), wire.MessageStatus(scores.status), scores.persons,
        scores.tracks[:scores.persons], scores.number, scores.claimed_ns, scores.time_ns, scores.camera, scores.model,
        tuple(alerts), struct.unpack_from("<{}i".format(shown), plain, at),
        struct.unpack_from("<{}I".format(shown), plain, at + 4 * shown), skeletons)


def _read_skeletons(header: RecordHeader, plain: bytes, at: int) -> Optional[Skeletons]:
    """What follows the scores; None: zeros to the end."""
    begin = at + wire.SkeletonHead.size()
    if len(plain) < wire.EDGED_BODY_SKELETONS or not any(plain[at:begin]):
        _end(header, plain, at)
        return None
    head = wire.SkeletonHead.unpack(plain[at:begin])
    if not (1 <= head.persons <= wire.EVAL_PERSONS_MAX and 1 <= head.frames <= wire.EVAL_FRAMES_MAX
            and 1 <= head.joints <= wire.EVAL_JOINTS_MAX):
        raise PackageError("record seq {}: skeletons of {} persons, {} frames, {} joints".format(
            header.seq, head.persons, head.frames, head.joints))
    end = begin + 4 * head.persons * head.frames * head.joints
    _end(header, plain, end)
    return Skeletons(head.persons, head.frames, head.joints, plain[begin:end])


def _read_epoch(header: RecordHeader, plain: bytes) -> Epoch:
    size = wire.EpochBody.size()
    body = wire.EpochBody.unpack(plain[:size])
    _end(header, plain, size)
    if body.unclean > 1:
        raise PackageError("record seq {}: unclean is {}".format(header.seq, body.unclean))
    return Epoch(header, RecordKind.EPOCH, bool(body.unclean), body.counter, body.previous, body.previous_seq,
                 body.agreement)


def _read_heartbeat(header: RecordHeader, plain: bytes) -> Heartbeat:
    size, each = wire.HeartbeatHead.size(), wire.CameraCount.size()
    head = wire.HeartbeatHead.unpack(plain[:size])
    if head.cameras > wire.EVAL_SESSIONS_MAX or head.seq != header.seq:
        raise PackageError("record seq {}: heartbeat of seq {} and {} cameras".format(
            header.seq, head.seq, head.cameras))
    end = size + head.cameras * each
    _end(header, plain, end)
    cameras = tuple(wire.CameraCount.unpack(plain[at:at + each]) for at in range(size, end, each))
    return Heartbeat(header, RecordKind.HEARTBEAT, head.nonce, head.time_ns, head.uptime_ns, head.seq, head.counter,
                     head.config, cameras)


def _read_claim(header: RecordHeader, plain: bytes) -> Claim:
    size = wire.ClaimHead.size()
    head = wire.ClaimHead.unpack(plain[:size])
    if head.bytes > wire.EDGED_CLAIM_MAX:
        raise PackageError("record seq {}: claim of {} bytes".format(header.seq, head.bytes))
    _end(header, plain, size + head.bytes)
    return Claim(header, RecordKind(head.kind), plain[size:size + head.bytes])


def _read_succession(header: RecordHeader, plain: bytes) -> Succession:
    size = wire.SuccessionBody.size()
    body = wire.SuccessionBody.unpack(plain[:size])
    _end(header, plain, size)
    return Succession(header, RecordKind.SUCCESSION, body.number, body.next_key if any(body.next_key) else None,
                      body.successor)


def _end(header: RecordHeader, plain: bytes, end: int) -> None:
    """The body ends there; what is left of its size is zeros."""
    _fits(header, plain, end)
    if any(plain[end:]):
        raise PackageError("record seq {}: what must be 0 is not".format(header.seq))


def _fits(header: RecordHeader, plain: bytes, end: int) -> None:
    if end > len(plain):
        raise PackageError("record seq {}: content of {} bytes in a body of {}".format(header.seq, end, len(plain)))


_READERS: Dict[int, Callable[[RecordHeader, bytes], Record]] = {
    RecordKind.OBSERVATION: _read_clip,
    RecordKind.ALERT: _read_clip,
    RecordKind.FAILED: _read_clip,
    RecordKind.HEARTBEAT: _read_heartbeat,
    RecordKind.EPOCH: _read_epoch,
    RecordKind.CAMERA: _read_claim,
    RecordKind.HEALTH: _read_claim,
    RecordKind.STATISTICS: _read_claim,
    RecordKind.EVICTED: _read_claim,
    RecordKind.SUCCESSION: _read_succession,
}
