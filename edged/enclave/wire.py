"""Mirror of ``trusty_ta/include/edged_wire.h``, which is the only definition and explains each field.

Names are those of the header in Python's spelling; ``tests/test_wire.py`` compiles the header and
compares every size, offset, enumerator and constant with this file. Nothing here touches a device.

Messages are frozen dataclasses: ``pack()`` gives their bytes, ``unpack(data)`` reads exactly as many,
and raises EnclaveError where the length is another or a reserved field is not 0.
"""

import struct
from dataclasses import dataclass, field, fields
from enum import IntEnum
from typing import Any, ClassVar, Dict, List, NamedTuple, Tuple, Type, TypeVar

from edged.errors import EnclaveError

EDGED_WIRE_VERSION = 1
EDGED_SECURITY_VERSION = 1
EDGED_MESSAGE_BYTES = 4096
EDGED_QUEUE = 8

EVAL_PORT = "com.edged.eval"
KEY_PORT = "com.edged.key"
KEY_EVAL_PORT = "com.edged.key.eval"

EVAL_FLAG_EMULATED = 1
EVAL_FLAG_WINDOW = 2

EVAL_ENVELOPE_MAX = 32768
EVAL_SEAL_BYTES = 4032
EVAL_TAG_BYTES = 16

EVAL_SESSIONS_MAX = 16
EVAL_PREPARED_MAX = 8
EVAL_ATTEMPTS_MAX = 3
EVAL_CLIP_WINDOW = 1
EVAL_KEPT_MAX = 48
EVAL_KEPT_BYTES = 6 * (8 + 192 + 49152 + 16)

EVAL_AGREEMENTS_MAX = 4
EDGED_RECIPIENTS_MAX = 4
EVAL_RECIPIENTS_MAX = 32
EDGED_RULES_MAX = 8
EDGED_LABEL_MAX = 32
EDGED_SEES_LABEL = 1
EDGED_SEES_SCORE = 2
EDGED_SEES_SKELETON = 4
EDGED_SEES_SCORES = 1

EDGED_RECORD_HEADER_MAX = 192
EDGED_BODY_MAX = 3584
EDGED_BODY_SKELETONS = 49152
EDGED_BODY_VERSION = 2
EDGED_PAUSE_S = 30
EDGED_CLAIM_MAX = 384

EVAL_LABELS_MAX = 400
EVAL_PERSONS_MAX = 8
EVAL_JOINTS_MAX = 64
EVAL_FRAMES_MAX = 4096
EVAL_CHANNELS_MAX = 1024
EVAL_PARTITIONS_MAX = 8
EVAL_TAPS_MAX = 15
EVAL_STRIDE_MAX = 4
EVAL_LAYERS_MAX = 64
EVAL_POSITIONS_MAX = 65536

KEY_SLOTS = 16
KEY_FLAG_IDENTITY = 4
KEY_FLAG_STATE = 8
KEY_FLAG_PENDING = 16
KEY_FLAG_LOCKED = 32
KEY_LISTED_GRANTED = 1
KEY_LISTED_LOCKED = 2
KEY_IDENTITY_FORM = 1
KEY_PRIVATE_BYTES = 1232
EDGED_EVIDENCE_PROFILE = "urn:uuid:8f1c1d0a-5b0e-4f0b-9d3e-2c60ad1f7e51"
KEY_NONCE_MIN = 16
KEY_NONCE_MAX = 64
KEY_NUMBERS = 40
KEY_FLOORS = 8
KEY_FLOOR_TIME_MAX = (1 << 40) - 1
KEY_STATE_FORM = 1


class Status(IntEnum):
    """enum edged_status"""

    OK = 0
    VERSION = 1
    COMMAND = 2
    LENGTH = 3
    RESERVED = 4
    ORDER = 5
    OBJECT = 6
    ARGUMENT = 7
    MEMORY = 8
    WINDOW = 9
    PACKAGE = 10
    PLACEMENT = 11
    KEY = 12
    UNAVAILABLE = 13
    CLIP = 14
    VERIFICATION = 15
    AGREEMENT = 16
    RATE = 17
    LOCKED = 18
    FULL = 19
    STATE = 20
    GRANT = 21
    REPLAY = 22
    RECIPIENT = 23


class EvalCommand(IntEnum):
    """enum eval_cmd"""

    INFO = 2
    STATS = 4
    WINDOW = 6
    LOAD_OPEN = 8
    LOAD_ENVELOPE = 10
    LOAD_CHUNK = 12
    LOAD_COMMIT = 14
    UNLOAD = 16
    PRODUCT = 18
    WEIGHTS_READ = 20
    WEIGHTS_MAP = 22
    SESSION_OPEN = 24
    PREPARE_OPEN = 26
    PREPARE_READ = 28
    PREPARE_MAP = 30
    PREPARE_DROP = 32
    CLIP_OPEN = 34
    CLIP_WRITE = 36
    CLIP_BEGIN = 38
    STEP_READ = 40
    STEP_WRITE = 42
    STEP = 44
    CLIP_ABORT = 46
    RECORD = 48
    SESSION_CLOSE = 50
    RESTORE = 52
    AGREEMENT = 54
    CONFIRM = 56
    BEACON = 58
    EXERCISE = 60
    CLAIM = 62
    CLOSE = 64
    SUCCEED = 66


class KeyCommand(IntEnum):
    """enum key_cmd"""

    INFO = 2
    STATS = 4
    SLOT_PUT = 6
    SLOT_CLEAR = 8
    IDENTITY_NEW = 10
    IDENTITY_OPEN = 12
    REQUEST = 14
    ATTEST = 16
    GRANT = 18
    STATE = 20
    RESTORE = 22
    COMMIT = 24
    FLOOR = 26
    LIST = 28
    HELLO = 32
    DERIVE = 34
    CONFIRM = 36


class Placement(IntEnum):
    """enum eval_placement"""

    MASKED = 0
    INPUTS = 1
    ENCLAVE = 2


class RecordKind(IntEnum):
    """enum edged_record_kind"""

    OBSERVATION = 0
    ALERT = 1
    HEARTBEAT = 2
    EPOCH = 3
    FAILED = 4
    CAMERA = 5
    HEALTH = 6
    STATISTICS = 7
    EVICTED = 8
    SUCCESSION = 9


class MessageStatus(IntEnum):
    """enum edged_message_status"""

    ACTUAL = 0
    EXERCISE = 1
    TEST = 2


class MessageType(IntEnum):
    """enum edged_message_type: EDGED_MESSAGE_*"""

    NONE = 0
    ALERT = 1
    UPDATE = 2
    CANCEL = 3


class KeyKind(IntEnum):
    """enum key_kind"""

    EMPTY = 0
    MODEL = 1
    DATA = 2
    ALERT = 3


class KeyPurpose(IntEnum):
    """enum key_purpose: KEY_FOR_*, KEY_OF_*"""

    PACKAGE = 1
    CAMERA = 2
    RECORD = 3
    BEACON = 4
    OF_MODEL = 5
    OF_DATA = 6


class Layout(NamedTuple):
    """Where one field lies in its struct."""

    offset: int
    size: int


def _u16() -> Any:
    return field(metadata={"code": "H"})


def _u32() -> Any:
    return field(metadata={"code": "I"})


def _u64() -> Any:
    return field(metadata={"code": "Q"})


def _bytes(size: int) -> Any:
    return field(metadata={"code": "{}s".format(size)})


def _u32s(count: int) -> Any:
    return field(metadata={"code": "{}I".format(count), "count": count})


def _reserved(code: str) -> Any:
    """A field that must be 0: never given, always checked."""
    return field(default=0, init=False, repr=False, metadata={"code": code, "reserved": True})


def _nested(message: Type["Message"]) -> Any:
    return field(metadata={"code": "{}s".format(message.size()), "message": message})


M = TypeVar("M", bound="Message")

# Filled by @_message: C name -> class. The test compares it with the header's list of structs.
STRUCTS: Dict[str, Type["Message"]] = {}


class Message:
    """One struct of the wire. Subclasses are dataclasses whose fields carry their struct code."""

    c_name: ClassVar[str]
    layout: ClassVar[Dict[str, Layout]]
    codec: ClassVar[struct.Struct]  # the whole struct, flat; for callers in a hurry

    @classmethod
    def size(cls) -> int:
        """Bytes on the wire."""
        return cls.codec.size

    def pack(self) -> bytes:
        flat: List[Any] = []
        for entry in fields(self):  # type: ignore[arg-type]
            value = getattr(self, entry.name)
            if "message" in entry.metadata:
                value = value.pack()
            if isinstance(value, (bytes, bytearray)) and len(value) != self.layout[entry.name].size:
                raise ValueError("{}.{}: {} bytes, not {}".format(
                    self.c_name, entry.name, len(value), self.layout[entry.name].size))
            if isinstance(value, tuple):
                flat.extend(value)
            else:
                flat.append(value)
        return self.codec.pack(*flat)

    @classmethod
    def unpack(cls: Type[M], data: bytes) -> M:
        if len(data) != cls.size():
            raise EnclaveError("{}: {} bytes, not {}: client and enclave are of different versions".format(
                cls.c_name, len(data), cls.size()))
        flat = iter(cls.codec.unpack(data))
        given = {}
        for entry in fields(cls):  # type: ignore[arg-type]
            count = entry.metadata.get("count")
            value = next(flat) if count is None else tuple(next(flat) for _ in range(count))
            if entry.metadata.get("reserved"):
                if value != 0:
                    raise EnclaveError("{}.{} is {}, not 0: client and enclave are of different versions".format(
                        cls.c_name, entry.name, value))
            elif "message" in entry.metadata:
                given[entry.name] = entry.metadata["message"].unpack(value)
            else:
                given[entry.name] = value
        return cls(**given)


def _message(c_name: str) -> Any:
    """Make the class a frozen dataclass, lay its fields out without padding, and register it."""

    def register(cls: Any) -> Any:
        cls = dataclass(frozen=True)(cls)
        cls.c_name = c_name
        cls.layout = {}
        codes, offset = "<", 0
        for entry in fields(cls):
            code = entry.metadata["code"]
            size = struct.calcsize("<" + code)
            cls.layout[entry.name] = Layout(offset, size)
            codes, offset = codes + code, offset + size
        cls.codec = struct.Struct(codes)
        STRUCTS[c_name] = cls
        return cls

    return register


@_message("edged_hdr")
class Header(Message):
    version: int = _u16()
    cmd: int = _u16()
    len: int = _u32()
    seq: int = _u32()
    status: int = _u32()
    reserved: int = _reserved("Q")


@_message("edged_chunk")
class Chunk(Message):
    object: int = _u32()
    reserved: int = _reserved("I")
    offset: int = _u64()


EDGED_CHUNK_BYTES = EDGED_MESSAGE_BYTES - Header.size() - Chunk.size()


@_message("eval_index")
class Index(Message):
    index: int = _u32()
    reserved: int = _reserved("I")


@_message("eval_info")
class EvalInfo(Message):
    flags: int = _u32()
    message_bytes: int = _u32()
    epoch: bytes = _bytes(16)
    agreements: int = _u32()
    kept: int = _u32()
    emission: int = _u64()


@_message("edged_memory")
class Memory(Message):
    heap_limit: int = _u64()
    heap_peak: int = _u64()
    stack_limit: int = _u64()
    stack_peak: int = _u64()
    image: int = _u64()
    channels: int = _u64()
    window: int = _u64()

    @property
    def peak_bytes(self) -> int:
        """The application's own memory at its peak; the window is the normal world's."""
        return self.heap_peak + self.stack_peak + self.image + self.channels


@_message("eval_stats")
class EvalStats(Message):
    memory: Memory = _nested(Memory)
    clips: int = _u64()
    records: int = _u64()
    products_checked: int = _u64()
    rejections: int = _u64()


@_message("eval_window")
class Window(Message):
    bytes: int = _u64()


@_message("eval_load_open")
class LoadOpen(Message):
    slot: int = _u32()
    placement: int = _u32()
    envelope_bytes: int = _u32()
    reserved: int = _reserved("I")


@_message("eval_model")
class Model(Message):
    load: int = _u64()
    placement: int = _u32()
    products: int = _u32()
    steps: int = _u32()
    persons: int = _u32()
    frames: int = _u32()
    joints: int = _u32()
    labels: int = _u32()
    reserved: int = _reserved("I")
    window_bytes: int = _u64()


@_message("eval_product")
class Product(Message):
    step: int = _u32()
    rows: int = _u32()
    taps: int = _u32()
    stride: int = _u32()
    pad: int = _u32()
    channels: int = _u32()
    frames_in: int = _u32()
    frames_out: int = _u32()
    joints: int = _u32()
    element_bytes: int = _u32()
    x_offset: int = _u64()
    y_offset: int = _u64()

    @property
    def w_shape(self) -> Tuple[int, int, int]:
        return self.rows, self.taps, self.channels

    def x_shape(self, persons: int) -> Tuple[int, int, int, int]:
        return persons, self.frames_in, self.joints, self.channels

    def y_shape(self, persons: int) -> Tuple[int, int, int, int]:
        return persons, self.frames_out, self.joints, self.rows


@_message("eval_session_open")
class SessionOpen(Message):
    agreement: int = _u32()
    reserved: int = _reserved("I")
    camera: bytes = _bytes(32)
    nonce: bytes = _bytes(32)


@_message("eval_session")
class Session(Message):
    session: int = _u32()
    reserved: int = _reserved("I")
    nonce: bytes = _bytes(32)


@_message("eval_prepare_open")
class PrepareOpen(Message):
    persons: int = _u32()
    reserved: int = _reserved("I")


@_message("eval_invocation")
class Invocation(Message):
    invocation: int = _u64()


@_message("eval_clip_open")
class ClipOpen(Message):
    session: int = _u32()
    flags: int = _u32()
    number: int = _u64()
    invocation: int = _u64()
    bytes: int = _u32()
    reserved: int = _reserved("I")


@_message("edged_clip")
class ClipHead(Message):
    version: int = _u32()
    persons: int = _u32()
    frames: int = _u32()
    joints: int = _u32()
    claimed_ns: int = _u64()
    tracks: Tuple[int, ...] = _u32s(EVAL_PERSONS_MAX)
    camera: bytes = _bytes(32)


@_message("eval_step")
class Step(Message):
    step: int = _u32()
    record_bytes: int = _u32()
    emission: int = _u64()
    records: int = _u32()
    reserved: int = _reserved("I")


@_message("eval_agreement")
class AgreementPut(Message):
    model_slot: int = _u32()
    data_slot: int = _u32()
    alert_slots: Tuple[int, ...] = _u32s(EDGED_RECIPIENTS_MAX)
    bytes: int = _u32()
    reserved: int = _reserved("I")


@_message("edged_record")
class RecordHead(Message):
    header_bytes: int = _u32()
    body_bytes: int = _u32()


@_message("edged_scores")
class Scores(Message):
    version: int = _u32()
    kind: int = _u32()
    status: int = _u32()
    sees: int = _u32()
    labels: int = _u32()
    rules: int = _u32()
    persons: int = _u32()
    reserved: int = _reserved("I")
    number: int = _u64()
    claimed_ns: int = _u64()
    time_ns: int = _u64()
    tracks: Tuple[int, ...] = _u32s(EVAL_PERSONS_MAX)
    camera: bytes = _bytes(32)
    model: bytes = _bytes(32)


@_message("edged_alert")
class AlertEntry(Message):
    message: int = _u32()
    score: int = _u32()
    event: int = _u64()


@_message("edged_skeleton")
class SkeletonHead(Message):
    persons: int = _u32()
    frames: int = _u32()
    joints: int = _u32()
    reserved: int = _reserved("I")


@_message("edged_epoch")
class EpochBody(Message):
    version: int = _u32()
    kind: int = _u32()
    unclean: int = _u32()
    reserved: int = _reserved("I")
    counter: int = _u64()
    previous_seq: int = _u64()
    previous: bytes = _bytes(16)
    agreement: bytes = _bytes(32)


@_message("edged_heartbeat")
class HeartbeatHead(Message):
    version: int = _u32()
    kind: int = _u32()
    cameras: int = _u32()
    reserved: int = _reserved("I")
    nonce: bytes = _bytes(16)
    time_ns: int = _u64()
    uptime_ns: int = _u64()
    seq: int = _u64()
    counter: int = _u64()
    config: bytes = _bytes(32)


@_message("edged_camera_count")
class CameraCount(Message):
    camera: bytes = _bytes(16)
    accepted: int = _u32()
    failed: int = _u32()


@_message("edged_claim")
class ClaimHead(Message):
    version: int = _u32()
    kind: int = _u32()
    bytes: int = _u32()
    reserved: int = _reserved("I")


@_message("edged_succession")
class SuccessionBody(Message):
    version: int = _u32()
    kind: int = _u32()
    number: int = _u32()
    reserved: int = _reserved("I")
    next_key: bytes = _bytes(16)
    successor: bytes = _bytes(32)


@_message("eval_succeed")
class Succeed(Message):
    agreement: int = _u32()
    successor: int = _u32()


@_message("eval_claim")
class ClaimPut(Message):
    agreement: int = _u32()
    kind: int = _u32()
    bytes: int = _u32()
    reserved: int = _reserved("I")


@_message("eval_exercise")
class Exercise(Message):
    agreement: int = _u32()
    rule: int = _u32()


@_message("edged_beacon")
class Beacon(Message):
    version: int = _u32()
    reserved: int = _reserved("I")
    rcpt: bytes = _bytes(16)
    time_ns: int = _u64()
    nonce: bytes = _bytes(16)
    tag: bytes = _bytes(32)


@_message("eval_beacon")
class BeaconPut(Message):
    beacon: Beacon = _nested(Beacon)
    config: bytes = _bytes(32)


@_message("eval_record")
class RecordAsk(Message):
    emission: int = _u64()
    offset: int = _u32()
    reserved: int = _reserved("I")


@_message("eval_emission")
class Emission(Message):
    emission: int = _u64()


@_message("edged_state")
class State(Message):
    epoch: bytes = _bytes(16)
    count: int = _u64()
    sealed: bytes = _bytes(16 + EVAL_RECIPIENTS_MAX * 96 + EVAL_TAG_BYTES)


@_message("key_info")
class KeyInfo(Message):
    flags: int = _u32()
    slots: int = _u32()
    node: bytes = _bytes(16)
    kinds: bytes = _bytes(KEY_SLOTS)
    device: bytes = _bytes(32)


@_message("key_listed")
class Listed(Message):
    kind: int = _u32()
    flags: int = _u32()
    key_id: bytes = _bytes(16)
    verifier: bytes = _bytes(32)
    agreement: bytes = _bytes(32)


@_message("key_slot_put")
class SlotPut(Message):
    slot: int = _u32()
    kind: int = _u32()
    key_bytes: int = _u32()
    reserved: int = _reserved("I")
    key_id: bytes = _bytes(16)
    key: bytes = _bytes(32)
    verifier: bytes = _bytes(32)


@_message("key_identity")
class Identity(Message):
    form: int = _u32()
    security_version: int = _u32()
    salt: bytes = _bytes(32)
    sealed: bytes = _bytes(2 * 4 + 2 * KEY_PRIVATE_BYTES + EVAL_TAG_BYTES)


@_message("key_challenge")
class Challenge(Message):
    challenge: bytes = _bytes(32)


@_message("key_state")
class KeyState(Message):
    form: int = _u32()
    security_version: int = _u32()
    salt: bytes = _bytes(32)
    counter: int = _u64()
    sealed: bytes = _bytes(3 * 32 + KEY_SLOTS * 120 + KEY_NUMBERS * 40 + KEY_FLOORS * 48 + EVAL_TAG_BYTES)


@_message("key_commit")
class Commit(Message):
    counter: int = _u64()


@_message("key_hello")
class Hello(Message):
    nonce: bytes = _bytes(32)
    public_key: bytes = _bytes(32)
    measurement: bytes = _bytes(32)
    signature_bytes: int = _u32()
    security_version: int = _u32()
    signature: bytes = _bytes(384)


@_message("key_confirm")
class Confirm(Message):
    tag: bytes = _bytes(32)


@_message("key_derive")
class Derive(Message):
    slot: int = _u32()
    purpose: int = _u32()
    context_bytes: int = _u32()
    reserved: int = _reserved("I")
    salt: bytes = _bytes(32)
    context: bytes = _bytes(64)


@_message("key_material")
class Material(Message):
    key_bytes: int = _u32()
    reserved: int = _reserved("I")
    key_id: bytes = _bytes(16)
    key: bytes = _bytes(32)
    verifier: bytes = _bytes(32)
    agreement: bytes = _bytes(32)
    node: bytes = _bytes(16)
    least_agreement: int = _u32()
    least_model: int = _u32()
    time_s: int = _u64()


@_message("key_sealed")
class Sealed(Message):
    counter: int = _u64()
    sealed: bytes = _bytes(Material.size() + EVAL_TAG_BYTES)


def sealed_clip_bytes(persons: int, frames: int, joints: int) -> int:
    """Size of a sealed clip: head, int16 coordinates of three channels, tag."""
    return ClipHead.size() + 2 * 3 * persons * frames * joints + EVAL_TAG_BYTES
