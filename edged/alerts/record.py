"""Sealed records: what leaves the enclave about a clip, for one recipient.

    header      canonical CBOR map {v, kid, seq, kind, node, rcpt, salt, epoch}, in clear
    record key  = HKDF(alert key, salt, "edged record v1" || rcpt || agreement digest), as long as the alert key
    body        = AES-GCM(record key, nonce = seq le64 || 0 0 0 0, associated data = header)

Pure: bytes in, values out; needs nothing but the base install, so the city's server can use it.
Source: DESIGN sections 6 and 10; trusty_ta/include/edged_wire.h, struct edged_record and edged_scores.
"""

import struct
from dataclasses import dataclass
from typing import Any, Dict, Tuple

import cbor2
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from edged.enclave import wire
from edged.errors import KeyRefused, PackageError, VerificationFailed

RECORD_VERSION = 1
SCORES_VERSION = 1
ALERT_KEY_SIZES = (16, 32)

# No agreement exists yet: its digest is that of none.
NO_AGREEMENT = bytes(32)

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
        return cbor2.dumps({name: getattr(self, name) for name in _FORM}, canonical=True)

    @classmethod
    def unpack(cls, data: bytes) -> "RecordHeader":
        """Raises PackageError unless data is the one canonical form of these fields."""
        try:
            fields = cbor2.loads(data)
        except Exception as error:  # cbor2's own errors differ between its releases
            raise PackageError("record header: not CBOR: {}".format(error)) from error
        if not isinstance(fields, dict) or list(fields) != list(_FORM):
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
        if header.pack() != data:
            raise PackageError("record header: not in canonical form")
        return header


@dataclass(frozen=True)
class Observation:
    """What the recipient reads. kind FAILED: all scores are 0.

    logits, probabilities : one per label, fixed point with 16 fractional bits
    claimed_ns and tracks are the node's claim
    """

    header: RecordHeader
    kind: wire.RecordKind
    persons: int
    number: int
    claimed_ns: int
    tracks: Tuple[int, ...]
    camera: bytes
    model: bytes  # SHA-256 of the signed manifest of the model of its last attempt
    logits: Tuple[int, ...]
    probabilities: Tuple[int, ...]


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


def open_record(sealed: bytes, alert_key: bytes) -> Observation:
    """Open a record with its recipient's alert key (16 or 32 bytes).

    Raises PackageError (form), VerificationFailed (seal: another key, or altered), KeyRefused (key size).
    """
    header, associated, body = split_record(sealed)
    key = record_key(alert_key, header)
    try:
        plain = AESGCM(key).decrypt(header.seq.to_bytes(8, "little") + bytes(4), body, associated)
    except InvalidTag:
        raise VerificationFailed("record seq {}: does not open with this alert key: another key, or altered".format(
            header.seq)) from None
    return _read_scores(header, plain)


def record_key(alert_key: bytes, header: RecordHeader) -> bytes:
    if len(alert_key) not in ALERT_KEY_SIZES:
        raise KeyRefused("alert key of {} bytes, not 16 or 32".format(len(alert_key)))
    info = b"edged record v1" + header.rcpt + NO_AGREEMENT
    return HKDF(hashes.SHA256(), len(alert_key), header.salt, info).derive(alert_key)


def _read_scores(header: RecordHeader, plain: bytes) -> Observation:
    size = wire.Scores.size()
    if len(plain) < size:
        raise PackageError("record seq {}: body of {} bytes".format(header.seq, len(plain)))
    scores = wire.Scores.unpack(plain[:size])
    end = size + 8 * scores.labels
    if scores.version != SCORES_VERSION or scores.kind != header.kind or scores.kind not in list(wire.RecordKind):
        raise PackageError("record seq {}: version {}, kind {} within, {} outside".format(
            header.seq, scores.version, scores.kind, header.kind))
    if not 0 < scores.labels <= wire.EVAL_LABELS_MAX or scores.persons > wire.EVAL_PERSONS_MAX or end > len(plain):
        raise PackageError("record seq {}: {} labels and {} persons in {} bytes".format(
            header.seq, scores.labels, scores.persons, len(plain)))
    if any(plain[end:]) or any(scores.tracks[scores.persons:]):
        raise PackageError("record seq {}: what must be 0 is not".format(header.seq))
    return Observation(
        header, wire.RecordKind(scores.kind), scores.persons, scores.number, scores.claimed_ns,
        scores.tracks[:scores.persons], scores.camera, scores.model,
        struct.unpack_from("<{}i".format(scores.labels), plain, size),
        struct.unpack_from("<{}I".format(scores.labels), plain, size + 4 * scores.labels))
