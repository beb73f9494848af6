"""What may be said on the bridge's socket, and the one judge of it.

    camera NAME   hello   {camera, nonce, agreement}        -> session {session, nonce, epoch, persons, frames, joints}
                                                               | wait {reason}
                  clip    {session, number, captured_ns} + sealed clip
                                                            -> done {number, failed}
                                                               | refused {number, reason, reopen, retry}
                  status  {state: live | lost, reason, skipped}   -> nothing: it is sealed as a claim of the node
                  here    {}: its answer to that word, where its status was not told in this session
                                                            -> nothing
    outbox        beacon  {} + struct edged_beacon          -> nothing: its heartbeat goes to the spool
    edgectl:...   exercise {rule | label [, agreement]}     -> ok {records} | refused {reason}
                  reload  {}: read the agreements again     -> ok {} | missing {reason}: keys | refused {reason}
                                                               | full {reason}: no room for one that is to follow
                  keys    {}: there may be more of them     -> ok {}: what is left out is tried again now
                  status  {}                                -> status {...} | refused {reason}
    to a camera   reopen  {reason}: say hello again, then seal and send again whatever has no `done`
                  here    {}: say so, by the status as last told; one that says nothing any more is lost
                  follow  {agreement}: once what was sent is answered, say hello under the agreement of this digest

A message is two or three frames: its type in ASCII, a canonical CBOR map of exactly these fields, and the blob.
Every caller of edgectl has an identity of its own: of two with one the later would get the answers to both.
"""

import os
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple, Union

from edged import canonical
from edged.enclave import wire
from edged.errors import EnclaveError, PackageError

OUTBOX = b"outbox"
EDGECTL = b"edgectl:"  # and what tells callers apart; no camera's name has a colon
AWAY = "the enclave is away"
CAMERA_ID_BYTES = 32
_MAP_BYTES_MAX = 1 << 14  # what is larger is not even decoded
_ANSWER_BYTES_MAX = 1 << 17  # a status of every camera and agreement, a reason with each
_REASON_BYTES_MAX = 200  # it is sealed in a claim of at most 384


class Hello(NamedTuple):
    """nonce : 32 bytes      agreement : digest of the one that the camera's key is of"""

    nonce: bytes
    agreement: bytes


class Offer(NamedTuple):
    """A sealed clip. captured_ns : the camera's clock at its last frame"""

    session: int
    number: int
    captured_ns: int
    sealed: bytes


class CameraStatus(NamedTuple):
    """skipped : clips that the camera's process gave up unjudged since it started"""

    state: str
    reason: str
    skipped: int


class Here(NamedTuple):
    pass


class Beacon(NamedTuple):
    """raw : struct edged_beacon, its form checked"""

    rcpt: bytes
    raw: bytes


class ExerciseRequest(NamedTuple):
    """rule : index in the agreement; or its label      agreement : its place in the configuration, None: each"""

    rule: Optional[int]
    label: Optional[str]
    agreement: Optional[int]


class StatusRequest(NamedTuple):
    pass


class KeysCame(NamedTuple):
    pass


class ReloadRequest(NamedTuple):
    """agreement : as above: whether that one waits for anything is asked, and not of the others"""

    agreement: Optional[int]


Request = Union[Hello, Offer, CameraStatus, Here, Beacon, ExerciseRequest, StatusRequest, KeysCame,
                ReloadRequest]


def camera_id(name: str) -> bytes:
    """A camera's name on the wire: zero-padded to 32 bytes."""
    return name.encode("utf-8").ljust(CAMERA_ID_BYTES, b"\0")


def edgectl_identity() -> bytes:
    """Of one more caller."""
    return EDGECTL + os.urandom(8).hex().encode("ascii")


def is_edgectl(peer: bytes) -> bool:
    return peer.startswith(EDGECTL)


def pack(kind: str, body: Dict[str, Any], blob: Optional[bytes] = None) -> List[bytes]:
    frames = [kind.encode("ascii"), canonical.encode(body)]
    return frames if blob is None else frames + [blob]


def unpack(frames: Sequence[bytes],
           most_bytes: int = _MAP_BYTES_MAX) -> Tuple[str, Dict[str, Any], Optional[bytes]]:
    """(type, map, blob) of a message of this form. Raises PackageError."""
    if not 2 <= len(frames) <= 3:
        raise PackageError("{} frames, not a type, a map and perhaps a blob".format(len(frames)))
    if len(frames[1]) > most_bytes:
        raise PackageError("a map of {} bytes".format(len(frames[1])))
    try:
        kind = frames[0].decode("ascii")
    except UnicodeDecodeError:
        raise PackageError("{!r}: no type in ASCII".format(bytes(frames[0][:20]))) from None
    body = canonical.decode(frames[1], "message")
    if type(body) is not dict:
        raise PackageError("{!r}: not a canonical map".format(kind[:20]))
    return kind, body, frames[2] if len(frames) == 3 else None


def from_camera(name: str, frames: Sequence[bytes]) -> Request:
    """Raises PackageError where a camera of this name may not say that."""
    kind, body, blob = unpack(frames)
    if kind == "hello":
        _require(kind, body, blob, {"camera": _octets(CAMERA_ID_BYTES), "nonce": _octets(32),
                                    "agreement": _octets(32)})
        if body["camera"] != camera_id(name):
            raise PackageError("hello: in the name of another camera")
        return Hello(body["nonce"], body["agreement"])
    if kind == "clip":
        _require(kind, body, blob, {"session": _uint(32), "number": _uint(64), "captured_ns": _uint(64)}, True)
        assert blob is not None
        return Offer(body["session"], body["number"], body["captured_ns"], blob)
    if kind == "status":
        _require(kind, body, blob, {"state": lambda value: value in ("live", "lost"), "reason": _is_text,
                                    "skipped": _uint(64)})
        reason = body["reason"].encode("utf-8")[:_REASON_BYTES_MAX].decode("utf-8", "ignore")
        return CameraStatus(body["state"], reason, body["skipped"])
    if kind == "here":
        _require(kind, body, blob, {})
        return Here()
    raise PackageError("{!r}: nothing that a camera says".format(kind[:20]))


def answers_call(frames: Sequence[bytes]) -> bool:
    """Whether this is of a form in which a camera answers `here`."""
    return bool(frames) and frames[0] in (b"here", b"status")


def from_outbox(frames: Sequence[bytes]) -> Request:
    """Raises PackageError."""
    kind, body, blob = unpack(frames)
    if kind != "beacon":
        raise PackageError("{!r}: nothing that the outbox says".format(kind[:20]))
    _require(kind, body, blob, {}, True)
    assert blob is not None
    try:
        return Beacon(wire.Beacon.unpack(blob).rcpt, blob)
    except EnclaveError as error:  # of the wire mirror: its size, or a reserved field
        raise PackageError("beacon: {}".format(error)) from error


def from_edgectl(frames: Sequence[bytes]) -> Request:
    """Raises PackageError."""
    kind, body, blob = unpack(frames)
    fields: Dict[str, _Check] = {"agreement": _uint(32)} if "agreement" in body else {}
    if kind == "status":
        _require(kind, body, blob, {})
        return StatusRequest()
    if kind == "keys":
        _require(kind, body, blob, {})
        return KeysCame()
    if kind == "reload":
        _require(kind, body, blob, fields)
        return ReloadRequest(body.get("agreement"))
    if kind != "exercise":
        raise PackageError("{!r}: nothing that edgectl says".format(kind[:20]))
    fields.update({"label": _is_text} if "label" in body else {"rule": _uint(32)})
    _require(kind, body, blob, fields)
    return ExerciseRequest(body.get("rule"), body.get("label"), body.get("agreement"))


def to_edgectl(question: str, frames: Sequence[bytes]) -> Tuple[str, Dict[str, Any]]:
    """(type, map) of the bridge's answer. Raises PackageError where it is none to this question."""
    kind, body, blob = unpack(frames, _ANSWER_BYTES_MAX)
    if kind == "refused":
        _require(kind, body, blob, {"reason": _is_text})
    elif (question, kind) in _ANSWERS:
        _require(kind, body, blob, _ANSWERS[question, kind])
    else:
        raise PackageError("{!r}: no answer to {}".format(kind[:20], question))
    return kind, body


_Check = Callable[[Any], bool]


def _require(kind: str, body: Dict[str, Any], blob: Optional[bytes], fields: Dict[str, _Check],
             with_blob: bool = False) -> None:
    if set(body) != set(fields) or (blob is not None) != with_blob:
        raise PackageError("{}: of fields {}{}".format(
            kind, ", ".join(sorted(canonical.one_line(name)[:20] for name in body)) or "none",
            "" if blob is None else " and a blob"))
    for name, holds in fields.items():
        if not holds(body[name]):
            raise PackageError("{}: {} is out of its range".format(kind, name))


def _octets(size: int) -> _Check:
    return lambda value: type(value) is bytes and len(value) == size


def _uint(bits: int) -> _Check:
    return lambda value: type(value) is int and 0 <= value < 1 << bits


def _is_text(value: Any) -> bool:
    return type(value) is str


def _are_texts(value: Any) -> bool:
    return type(value) is list and all(_is_text(one) for one in value)


def _or_none(holds: _Check) -> _Check:
    return lambda value: value is None or holds(value)


def _is_flag(value: Any) -> bool:
    return type(value) is bool


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)


def _rows(fields: Dict[str, _Check]) -> _Check:
    """Maps of exactly these fields."""
    return lambda value: type(value) is list and all(_is_row(one, fields) for one in value)


def _named(fields: Dict[str, _Check]) -> _Check:
    return lambda value: type(value) is dict and all(_is_text(name) and _is_row(one, fields)
                                                     for name, one in value.items())


def _is_row(value: Any, fields: Dict[str, _Check]) -> bool:
    return type(value) is dict and set(value) == set(fields) and all(fields[name](one) for name, one in value.items())


_U64 = _uint(64)

_ANSWERS: Dict[Tuple[str, str], Dict[str, _Check]] = {
    ("keys", "ok"): {},
    ("reload", "ok"): {},
    ("reload", "missing"): {"reason": _is_text},
    ("reload", "full"): {"reason": _is_text},
    ("exercise", "ok"): {"records": _rows({"epoch": _octets(16), "recipient": _octets(16), "seq": _U64})},
    ("status", "status"): {
        "enclave": lambda value: value in ("up", "away"), "reason": _or_none(_is_text), "epoch": _or_none(_octets(16)),
        "placement": _is_text, "transport": _is_text, "accelerator": _is_text, "degraded": _or_none(_is_text),
        "spool": lambda value: value in ("ok", "failing"), "clips": _U64, "failed": _U64, "records": _U64,
        "accelerator_bytes": _U64, "waiting": _U64, "seconds_per_clip": _or_none(_is_number),
        "products_checked": _or_none(_U64), "rejections": _or_none(_U64), "enclave_peak_bytes": _or_none(_U64),
        "cameras": _named({
            "done": _U64, "failed": _U64, "refused": _U64, "postponed": _U64, "session": _or_none(_U64),
            "waiting": _U64, "postponed_for": _or_none(_is_text), "state": _or_none(_is_text),
            "reason": _or_none(_is_text)}),
        "agreements": _rows({
            "number": _or_none(_U64), "digest": _or_none(_octets(32)), "next": _or_none(_octets(32)),
            "state": _is_text, "reason": _or_none(_is_text), "until": _or_none(_is_text), "ended": _is_flag,
            "end": _or_none(_is_text),
            "cameras": _are_texts, "unread": _are_texts}),
    },
}
