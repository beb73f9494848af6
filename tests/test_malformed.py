"""Every malformation of every message of every port gets its documented status from the running applications, built
with ASan and UBSan; afterwards they answer and evaluate a clip exactly.

What is judged in which order: frame (LENGTH, VERSION, RESERVED, COMMAND), the body's LENGTH, ORDER, its RESERVED,
a stray handle (ARGUMENT), then the other fields.
"""

import os
import socket
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

import linking
from c import build
from c.deals import ALERT_SLOT, DATA_SLOT, MODEL_SLOT
from c.running import CAMERA, DATA_KEY, EMPTY_SLOT, STATES, Port, Running, key_link, request
from edged import artifacts
from edged.enclave import wire
from edged.enclave.window import memfd_window
from edged.enclave.wire import Chunk, EvalCommand, Header, KeyCommand, Status
from granting import GrantedNode
from linking import HELLO

lacking = build.missing("make", "cc")
pytestmark = pytest.mark.skipif(bool(lacking), reason="needs {}".format(lacking))

HUGE = (16, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
HUGE64 = HUGE + (1 << 32, 1 << 63, (1 << 64) - 1)

IDLE = {"EMPTY", "WEIGHTS", "READY"}
LOADING = {"ENVELOPE", "CHUNKS"}
STEP = {"STEP", "TAKING"}
MOST = wire.EDGED_MESSAGE_BYTES - Header.size()  # of a body
BULK = (Chunk.size(), MOST)


def exactly(message):
    return message.size(), message.size()


def and_more(message):
    return message.size(), MOST


# Where each command is permitted (enum eval_cmd and the comments of its structs), and its body's least and most bytes.
ORDER = {
    EvalCommand.INFO: (set(STATES), (0, 0)),
    EvalCommand.STATS: (set(STATES), (0, 0)),
    EvalCommand.WINDOW: (IDLE, exactly(wire.Window)),
    EvalCommand.LOAD_OPEN: (IDLE | LOADING, exactly(wire.LoadOpen)),
    EvalCommand.LOAD_ENVELOPE: ({"ENVELOPE"}, BULK),
    EvalCommand.LOAD_CHUNK: ({"CHUNKS"}, BULK),
    EvalCommand.LOAD_COMMIT: ({"CHUNKS"}, (0, 0)),
    EvalCommand.UNLOAD: (IDLE | LOADING, (0, 0)),
    EvalCommand.PRODUCT: ({"WEIGHTS", "READY"}, exactly(wire.Index)),
    EvalCommand.WEIGHTS_READ: ({"WEIGHTS"}, exactly(Chunk)),
    EvalCommand.WEIGHTS_MAP: ({"WEIGHTS"}, exactly(wire.Index)),
    EvalCommand.SESSION_OPEN: (IDLE, exactly(wire.SessionOpen)),
    EvalCommand.PREPARE_OPEN: ({"READY"}, exactly(wire.PrepareOpen)),
    EvalCommand.PREPARE_READ: ({"PREPARE"}, exactly(Chunk)),
    EvalCommand.PREPARE_MAP: ({"PREPARE"}, exactly(wire.Index)),
    EvalCommand.PREPARE_DROP: ({"READY", "PREPARE"}, exactly(wire.Invocation)),
    EvalCommand.CLIP_OPEN: ({"READY"}, exactly(wire.ClipOpen)),
    EvalCommand.CLIP_WRITE: ({"CLIP"}, BULK),  # bulk: a head, then bytes up to a message's end
    EvalCommand.CLIP_BEGIN: ({"CLIP"}, (0, 0)),
    EvalCommand.STEP_READ: (STEP, exactly(Chunk)),
    EvalCommand.STEP_WRITE: (STEP, BULK),
    EvalCommand.STEP: (STEP, exactly(wire.Index)),
    EvalCommand.CLIP_ABORT: (IDLE | {"CLIP"} | STEP, exactly(wire.Index)),
    EvalCommand.RECORD: (set(STATES), exactly(wire.RecordAsk)),
    EvalCommand.SESSION_CLOSE: (IDLE, exactly(wire.Index)),
    EvalCommand.RESTORE: (IDLE, exactly(wire.State)),
    EvalCommand.AGREEMENT: (IDLE, and_more(wire.AgreementPut)),
    EvalCommand.CONFIRM: (set(STATES), exactly(wire.Emission)),
    EvalCommand.BEACON: (set(STATES), exactly(wire.BeaconPut)),
    EvalCommand.EXERCISE: (set(STATES), exactly(wire.Exercise)),
    EvalCommand.CLAIM: (set(STATES), and_more(wire.ClaimPut)),
    EvalCommand.CLOSE: (IDLE, (0, 0)),
    EvalCommand.SUCCEED: (IDLE, exactly(wire.Succeed)),
}
KEY_BODIES = {KeyCommand.INFO: (0, 0), KeyCommand.STATS: (0, 0), KeyCommand.SLOT_PUT: exactly(wire.SlotPut),
              KeyCommand.SLOT_CLEAR: exactly(wire.Index), KeyCommand.IDENTITY_NEW: (0, 0),
              KeyCommand.IDENTITY_OPEN: exactly(wire.Identity), KeyCommand.REQUEST: exactly(wire.Challenge),
              KeyCommand.ATTEST: (wire.KEY_NONCE_MIN, wire.KEY_NONCE_MAX), KeyCommand.GRANT: (1, MOST),
              KeyCommand.STATE: (0, 0), KeyCommand.RESTORE: exactly(wire.KeyState),
              KeyCommand.COMMIT: exactly(wire.Commit), KeyCommand.FLOOR: (1, MOST), KeyCommand.LIST: (0, 0)}
LINK_BODIES = {KeyCommand.HELLO: exactly(wire.Hello), KeyCommand.DERIVE: exactly(wire.Derive),
               KeyCommand.CONFIRM: exactly(wire.Confirm)}


@pytest.fixture(scope="module")
def running():
    build.make("all", "trusty_ta", SANITIZE="1", BUILD=str(build.FOLDER / "sanitize"))
    with tempfile.TemporaryDirectory(prefix="edged-") as folder, Running(Path(folder)) as both:
        both.evaluate()  # the agreement is in force, a session open
        yield both


@pytest.fixture(autouse=True)
def still_exact(running):
    """Whatever a test did: both live, no sanitizer reported, and a clip is evaluated exactly."""
    yield
    running.assert_sane()
    running.evaluate()


def refused(port, status, message, handles=()):
    got, _ = port.ask(message, handles)
    assert got == status, "{} for {}".format(got.name, message[:64].hex())


def reserved_bits(message):
    """The message with each of its reserved fields set, one at a time, to 1 and to its top bit."""
    size = message.codec.size
    for name, at in message.layout.items():
        if name == "reserved":
            for bit in (0, 8 * at.size - 1):
                body = bytearray(message.pack())
                body[at.offset + bit // 8] |= 1 << bit % 8
                assert len(body) == size
                yield bytes(body)


# ------------------------------------------------------------------ frames ---


def check_frames(port, bodies, absent):
    """All that is wrong with a frame alone; ``bodies``: each command's least and most bytes of a body."""
    for size in range(Header.size()):
        refused(port, Status.LENGTH, request(2)[:size])
    for cmd, (least, most) in bodies.items():
        body = bytes(least)
        for wrong in (len(body) + 1, len(body) - 1 & 0xFFFFFFFF, len(body) + 24, 4096, 1 << 31, 0xFFFFFFFF):
            refused(port, Status.LENGTH, request(cmd, body, length=wrong))
        for version in (0, 2, 0x0100, 0xFFFF):
            refused(port, Status.VERSION, request(cmd, body, version=version))
        for bit in (0, 7, 31, 32, 63):
            refused(port, Status.RESERVED, request(cmd, body, reserved=1 << bit))
        for status in (1, 15, 1 << 31):
            refused(port, Status.RESERVED, request(cmd, body, status=status))
        if body:
            refused(port, Status.LENGTH, request(cmd, body[:-1]))
            refused(port, Status.LENGTH, request(cmd))
        if least == most:
            refused(port, Status.LENGTH, request(cmd, body + b"\0"))
            refused(port, Status.LENGTH, request(cmd, body.ljust(MOST, b"\0")))
        refused(port, Status.LENGTH, request(cmd, bytes(MOST + 1)))
        refused(port, Status.LENGTH, request(cmd, bytes(40000)))
    for cmd in absent:
        refused(port, Status.COMMAND, request(cmd))
        refused(port, Status.COMMAND, request(cmd, bytes(4000)))
        refused(port, Status.VERSION, request(cmd, version=2))


@pytest.mark.parametrize("state", STATES)
def test_a_wrong_frame_is_refused_in_every_state_and_changes_none(running, state):
    port = running.go(state)
    sizes = {cmd: size for cmd, (_, size) in ORDER.items()}
    check_frames(port, sizes, [0, 68, 70, 256 + 2, 0xFFFE] + list(range(1, 70, 2)) + [0xFFFF])
    running.finish()


@pytest.mark.parametrize("state", STATES)
def test_a_command_out_of_order_is_refused_in_every_state_and_changes_none(running, state):
    port = running.go(state)
    for cmd, (states, (least, _)) in ORDER.items():
        if state not in states:
            for filler in (b"\0", b"\xff"):
                refused(port, Status.ORDER, request(cmd, filler * least))
    running.finish()


@pytest.mark.parametrize("state", STATES)
def test_a_handle_that_nothing_asked_for_is_refused_and_closed(running, state):
    port = running.go(state)
    reader, writer = os.pipe()
    for cmd, (states, (least, _)) in ORDER.items():
        body = bytes(least)
        if cmd != EvalCommand.WINDOW:
            refused(port, Status.ARGUMENT if state in states else Status.ORDER, request(cmd, body), [writer])
        refused(port, Status.ARGUMENT, request(cmd, body), [writer, writer])
        refused(port, Status.LENGTH, request(cmd, bytes(5000)), [writer])
    os.close(writer)
    assert os.read(reader, 1) == b"", "nobody kept one"
    os.close(reader)
    running.finish()


# ----------------------------------------------------------- fields of eval ---


def bulk_cases(cmd, size, more):
    """Wrong heads of a bulk message; ``more``: bytes behind the head. The right head is object 0, offset 0."""
    data = bytes(more)
    yield from ((Status.RESERVED, cmd, body + data) for body in reserved_bits(Chunk(0, 0)))
    yield from ((Status.OBJECT, cmd, Chunk(wrong, 0).pack() + data) for wrong in (1,) + HUGE)
    yield from ((Status.OBJECT, cmd, Chunk(0, wrong).pack() + data) for wrong in (1, 4, size) + HUGE64)


def index_cases(cmd, status, right=0):
    yield from ((Status.RESERVED, cmd, body) for body in reserved_bits(wire.Index(right)))
    yield from ((status, cmd, wire.Index(wrong).pack()) for wrong in HUGE)


def session_cases(session):
    """Commands that name a session; ``session`` is open and has no clip under way."""
    for cmd in (EvalCommand.CLIP_ABORT, EvalCommand.SESSION_CLOSE):
        yield from index_cases(cmd, Status.ARGUMENT, session)
    for cmd in (EvalCommand.CLIP_ABORT, EvalCommand.SESSION_CLOSE):
        yield Status.ARGUMENT, cmd, wire.Index(session + 1).pack()  # not open
    yield Status.ORDER, EvalCommand.CLIP_ABORT, wire.Index(session).pack()  # nothing to give up


def any_cases(running):
    """In every state; one agreement is in force, with index 0."""
    sealed = wire.EvalInfo.unpack(running.client.connection.request(EvalCommand.INFO)).emission
    for wrong in (sealed + 1,) + HUGE64[4:]:
        yield Status.ARGUMENT, EvalCommand.CONFIRM, wire.Emission(wrong).pack()
    right = wire.Beacon(1, running.deal.agreement.recipients[0].rcpt, 1, bytes(16), bytes(32))
    yield from ((Status.RESERVED, EvalCommand.BEACON, body + bytes(32)) for body in reserved_bits(right))
    yield Status.KEY, EvalCommand.BEACON, right.pack() + bytes(32)  # its tag is wrong
    yield Status.KEY, EvalCommand.BEACON, bytes(wire.BeaconPut.size())
    for wrong in (1,) + HUGE:
        yield Status.ARGUMENT, EvalCommand.EXERCISE, wire.Exercise(wrong, 0).pack()
    for wrong in (len(running.deal.agreement.rules),) + HUGE:
        yield Status.ARGUMENT, EvalCommand.EXERCISE, wire.Exercise(0, wrong).pack()
    right = wire.ClaimPut(0, wire.RecordKind.HEALTH, 0)
    yield from ((Status.RESERVED, EvalCommand.CLAIM, body) for body in reserved_bits(right))
    for wrong in (1,) + HUGE:
        yield Status.ARGUMENT, EvalCommand.CLAIM, replace(right, agreement=wrong).pack()
        yield Status.LENGTH, EvalCommand.CLAIM, replace(right, bytes=wrong).pack()
    for wrong in (0, 1, 2, 3, 4, 9) + HUGE:
        yield Status.ARGUMENT, EvalCommand.CLAIM, replace(right, kind=wrong).pack()
    most = MOST - wire.ClaimPut.size()
    for size in (wire.EDGED_CLAIM_MAX + 1, most):
        yield Status.ARGUMENT, EvalCommand.CLAIM, replace(right, bytes=size).pack() + bytes(size)
    yield Status.LENGTH, EvalCommand.CLAIM, right.pack() + b"\0"


def idle_cases(running):
    head, signed = running.agreement[:wire.AgreementPut.size()], running.agreement[wire.AgreementPut.size():]
    right = wire.AgreementPut.unpack(head)
    yield from ((Status.RESERVED, EvalCommand.AGREEMENT, body + signed) for body in reserved_bits(right))
    for wrong in (0, len(signed) - 1, len(signed) + 1) + HUGE:
        yield Status.LENGTH, EvalCommand.AGREEMENT, replace(right, bytes=wrong).pack() + signed
    yield Status.AGREEMENT, EvalCommand.AGREEMENT, replace(right, bytes=0).pack()
    for most in (1, 4, 64, MOST - len(head)):
        for filler in (b"\0", b"\xff"):
            yield Status.AGREEMENT, EvalCommand.AGREEMENT, replace(right, bytes=most).pack() + filler * most
    for cut in range(1, len(signed), 31):
        yield Status.AGREEMENT, EvalCommand.AGREEMENT, replace(right, bytes=cut).pack() + signed[:cut]
    for slots in (dict(model_slot=16), dict(data_slot=16), dict(alert_slots=(16, 3, 0, 0)), dict(model_slot=1 << 31)):
        yield Status.ARGUMENT, EvalCommand.AGREEMENT, replace(right, **slots).pack() + signed
    yield Status.RESERVED, EvalCommand.AGREEMENT, replace(right, alert_slots=(2, 3, 0, 1)).pack() + signed
    for filler in (b"\0", b"\xff"):  # an agreement is in force: its first record was said
        yield Status.ORDER, EvalCommand.RESTORE, filler * wire.State.size()
    for wrong in (0, 1, 2, 3, 4) + HUGE:  # one agreement is in force, and does not follow itself
        yield Status.ARGUMENT, EvalCommand.SUCCEED, wire.Succeed(0, wrong).pack()
        yield Status.ARGUMENT, EvalCommand.SUCCEED, wire.Succeed(wrong, 0).pack()
    right = wire.SessionOpen(0, bytes(32), bytes(32))
    yield from ((Status.RESERVED, EvalCommand.SESSION_OPEN, body) for body in reserved_bits(right))
    for wrong in (1, 2, 3, 4) + HUGE:
        yield Status.ARGUMENT, EvalCommand.SESSION_OPEN, replace(right, agreement=wrong).pack()


def empty_cases(running):
    right = wire.LoadOpen(MODEL_SLOT, 0, 100)
    yield from ((Status.RESERVED, EvalCommand.LOAD_OPEN, body) for body in reserved_bits(right))
    for wrong in HUGE:
        yield Status.ARGUMENT, EvalCommand.LOAD_OPEN, replace(right, slot=wrong).pack()
        yield Status.ARGUMENT, EvalCommand.LOAD_OPEN, replace(right, placement=wrong).pack()
    yield Status.ARGUMENT, EvalCommand.LOAD_OPEN, replace(right, placement=3).pack()
    for wrong in (0, wire.EVAL_ENVELOPE_MAX + 1, 1 << 31, 0xFFFFFFFF):
        yield Status.ARGUMENT, EvalCommand.LOAD_OPEN, replace(right, envelope_bytes=wrong).pack()
    for size in (4096, 1, 1 << 63, (1 << 64) - 4096):  # no handle came with it
        yield Status.ARGUMENT, EvalCommand.WINDOW, wire.Window(size).pack()
    yield from idle_cases(running)


def envelope_cases(running):
    size = len(running.envelope)
    yield from bulk_cases(EvalCommand.LOAD_ENVELOPE, size, 8)
    for more in (0, size + 1, wire.EDGED_CHUNK_BYTES):
        yield Status.OBJECT, EvalCommand.LOAD_ENVELOPE, Chunk(0, 0).pack() + bytes(more)


def chunk_cases(running):
    stored = wire.EVAL_SEAL_BYTES + wire.EVAL_TAG_BYTES
    yield from bulk_cases(EvalCommand.LOAD_CHUNK, stored, stored)
    last = len(running.chunks) == 1
    for size in (0, 1, wire.EVAL_TAG_BYTES) if last else (0, wire.EVAL_TAG_BYTES, stored - 1, stored + 1):
        yield Status.LENGTH, EvalCommand.LOAD_CHUNK, Chunk(0, 0).pack() + bytes(size)


def weights_cases(running):
    yield from idle_cases(running)
    yield from bulk_cases(EvalCommand.WEIGHTS_READ, 1 << 20, 0)
    yield from index_cases(EvalCommand.WEIGHTS_MAP, Status.OBJECT)
    yield Status.WINDOW, EvalCommand.WEIGHTS_MAP, wire.Index(0).pack()
    yield from index_cases(EvalCommand.PRODUCT, Status.ARGUMENT)


def ready_cases(running):
    session, shape = running.session.session, running.case.model.shape
    yield from index_cases(EvalCommand.PRODUCT, Status.ARGUMENT)
    yield Status.ARGUMENT, EvalCommand.PRODUCT, wire.Index(len(running.products)).pack()
    right = wire.PrepareOpen(1)
    yield from ((Status.RESERVED, EvalCommand.PREPARE_OPEN, body) for body in reserved_bits(right))
    for wrong in (0, shape.persons + 1) + HUGE:
        yield Status.ARGUMENT, EvalCommand.PREPARE_OPEN, replace(right, persons=wrong).pack()
    for wrong in (0,) + HUGE64[2:]:
        yield Status.ARGUMENT, EvalCommand.PREPARE_DROP, wire.Invocation(wrong).pack()
    right = wire.ClipOpen(session, 0, running.number + 1, 0, wire.sealed_clip_bytes(1, shape.frames, shape.joints))
    yield from ((Status.RESERVED, EvalCommand.CLIP_OPEN, body) for body in reserved_bits(right))
    for flags in (2, 4, 1 << 31, 0xFFFFFFFE):
        yield Status.RESERVED, EvalCommand.CLIP_OPEN, replace(right, flags=flags).pack()
    for wrong in (session + 1,) + HUGE:
        yield Status.ARGUMENT, EvalCommand.CLIP_OPEN, replace(right, session=wrong).pack()
    for wrong in (0, running.number):
        yield Status.CLIP, EvalCommand.CLIP_OPEN, replace(right, number=wrong).pack()
    for wrong in HUGE64[1:]:
        yield Status.ARGUMENT, EvalCommand.CLIP_OPEN, replace(right, invocation=wrong).pack()
    more = wire.sealed_clip_bytes(shape.persons + 1, shape.frames, shape.joints)
    for wrong in (0, 1, right.bytes - 1, right.bytes + 1, more) + HUGE:
        yield Status.LENGTH, EvalCommand.CLIP_OPEN, replace(right, bytes=wrong).pack()
    yield Status.WINDOW, EvalCommand.CLIP_OPEN, replace(right, flags=wire.EVAL_CLIP_WINDOW).pack()
    yield from session_cases(session)
    yield from idle_cases(running)


def prepare_cases(_):
    yield from bulk_cases(EvalCommand.PREPARE_READ, 1 << 20, 0)
    yield from index_cases(EvalCommand.PREPARE_MAP, Status.OBJECT)
    yield Status.WINDOW, EvalCommand.PREPARE_MAP, wire.Index(0).pack()
    for wrong in (0,) + HUGE64[2:]:
        yield Status.ARGUMENT, EvalCommand.PREPARE_DROP, wire.Invocation(wrong).pack()


def clip_cases(running):
    shape = running.case.model.shape
    size = wire.sealed_clip_bytes(1, shape.frames, shape.joints)
    yield from bulk_cases(EvalCommand.CLIP_WRITE, size, 8)
    for more in (0, size + 1, wire.EDGED_CHUNK_BYTES):
        yield Status.LENGTH, EvalCommand.CLIP_WRITE, Chunk(0, 0).pack() + bytes(more)
    yield Status.ORDER, EvalCommand.CLIP_BEGIN, b""
    yield from index_cases(EvalCommand.CLIP_ABORT, Status.ARGUMENT, running.session.session)


def step_cases(_):
    yield from bulk_cases(EvalCommand.STEP_READ, 1 << 20, 0)
    yield Status.ORDER, EvalCommand.STEP_WRITE, Chunk(0, 0).pack() + bytes(4)
    yield Status.ORDER, EvalCommand.STEP, wire.Index(0).pack()
    yield from index_cases(EvalCommand.STEP, Status.OBJECT)
    yield Status.OBJECT, EvalCommand.STEP, wire.Index(1).pack()


def taking_cases(running):
    product = running.products[0]
    object_bytes = 4 * product.frames_out * product.joints * product.rows
    yield Status.ORDER, EvalCommand.STEP_READ, Chunk(0, 0).pack()
    yield from bulk_cases(EvalCommand.STEP_WRITE, object_bytes, 4)
    for wrong in (0, 1, 3, 5, object_bytes + 4):
        yield Status.LENGTH, EvalCommand.STEP_WRITE, Chunk(0, 0).pack() + bytes(wrong)
    yield Status.ORDER, EvalCommand.STEP, wire.Index(0).pack()


CASES = {"EMPTY": empty_cases, "ENVELOPE": envelope_cases, "CHUNKS": chunk_cases, "WEIGHTS": weights_cases,
         "READY": ready_cases, "PREPARE": prepare_cases, "CLIP": clip_cases, "STEP": step_cases,
         "TAKING": taking_cases}


@pytest.mark.parametrize("state", STATES)
def test_a_wrong_field_is_refused_and_changes_nothing(running, state):
    port = running.go(state)
    for status, cmd, body in list(any_cases(running)) + list(CASES[state](running)):
        got, _ = port.call(cmd, body)
        assert got == status, "{}: {}, not {}, for {}".format(cmd.name, got.name, status.name, body[:40].hex())
        assert port.call(EvalCommand.INFO)[0] == Status.OK
    running.finish()


# -------------------------------------------- what ends a load or a clip ---


def send_envelope(port, envelope, slot=MODEL_SLOT):
    assert port.call(EvalCommand.LOAD_OPEN, wire.LoadOpen(slot, 0, len(envelope)).pack())[0] == Status.OK
    return port.call(EvalCommand.LOAD_ENVELOPE, Chunk(0, 0).pack() + envelope)[0]


def test_an_altered_envelope_is_refused_and_nothing_is_loaded(running):
    port, envelope = running.go("EMPTY"), running.envelope
    for at in list(range(0, 12)) + list(range(12, len(envelope), 37)) + [len(envelope) - 1]:
        altered = bytearray(envelope)
        altered[at] ^= 1
        assert send_envelope(port, bytes(altered)) == Status.PACKAGE, at
        refused(port, Status.ORDER, request(EvalCommand.LOAD_COMMIT))
    for wrong in (envelope[:1], envelope[:-1], envelope + b"\0"):
        assert send_envelope(port, wrong) == Status.PACKAGE
    running.finish()


@pytest.mark.parametrize("slot", [EMPTY_SLOT, DATA_SLOT, ALERT_SLOT])
def test_a_package_for_a_slot_without_a_model_key_is_refused(running, slot):
    assert send_envelope(running.go("EMPTY"), running.envelope, slot) == Status.KEY
    running.finish()


def test_an_altered_chunk_ends_the_load(running):
    chunk = running.chunks[0]
    for at in (0, len(chunk) // 2, len(chunk) - 1):
        altered = bytearray(chunk)
        altered[at] ^= 0x80
        port = running.go("CHUNKS")
        refused(port, Status.PACKAGE, request(EvalCommand.LOAD_CHUNK, Chunk(0, 0).pack() + bytes(altered)))
        refused(port, Status.ORDER, request(EvalCommand.LOAD_CHUNK, Chunk(0, 0).pack() + chunk))


def test_a_load_that_is_not_complete_is_refused(running):
    port = running.go("CHUNKS")
    refused(port, Status.PACKAGE, request(EvalCommand.LOAD_COMMIT))
    refused(port, Status.ORDER, request(EvalCommand.LOAD_COMMIT))


def test_a_chunk_past_the_last_is_refused(running):
    port = running.go("CHUNKS")
    for index, chunk in enumerate(running.chunks):
        assert port.call(EvalCommand.LOAD_CHUNK, Chunk(index, 0).pack() + chunk)[0] == Status.OK
    refused(port, Status.OBJECT, request(EvalCommand.LOAD_CHUNK, Chunk(len(running.chunks), 0).pack() + chunk))
    assert port.call(EvalCommand.LOAD_COMMIT)[0] == Status.OK


def test_a_clip_with_one_bit_wrong_is_refused(running):
    port = running.go("READY")
    for at in (0, 96, -1):
        sealed = bytearray(running.sealed_clip())
        sealed[at] ^= 1
        ask = wire.ClipOpen(running.session.session, 0, running.number, 0, len(sealed))
        assert port.call(EvalCommand.CLIP_OPEN, ask.pack())[0] == Status.OK
        assert port.call(EvalCommand.CLIP_WRITE, Chunk(0, 0).pack() + bytes(sealed))[0] == Status.OK
        refused(port, Status.CLIP, request(EvalCommand.CLIP_BEGIN))
    running.finish()


def test_a_session_with_a_clip_under_way_is_neither_replaced_nor_closed(running):
    running.go("STEP")
    port = running.go("READY_UNSETTLED")
    session = running.session.session
    again = wire.SessionOpen(0, CAMERA, bytes(32)).pack()
    refused(port, Status.ORDER, request(EvalCommand.SESSION_OPEN, again))
    refused(port, Status.ORDER, request(EvalCommand.CLOSE))
    refused(port, Status.ORDER, request(EvalCommand.SESSION_CLOSE, wire.Index(session).pack()))
    other = wire.ClipOpen(session, 0, running.number + 1, 0, len(running.sealed_clip()))
    refused(port, Status.ORDER, request(EvalCommand.CLIP_OPEN, other.pack()))
    running.finish()


def test_an_epoch_is_closed_only_when_nothing_is_kept(running):
    port = running.go("READY")
    claim = wire.ClaimPut(0, wire.RecordKind.HEALTH, 0).pack()
    assert port.call(EvalCommand.CLAIM, claim)[0] == Status.OK
    refused(port, Status.ORDER, request(EvalCommand.CLOSE))
    running.finish()


def test_state_that_is_none_is_refused_by_an_enclave_that_could_take_some(running):
    running.restart_eval()
    port = running.go("EMPTY")
    for filler in (b"\0", b"\xff"):
        refused(port, Status.STATE, request(EvalCommand.RESTORE, filler * wire.State.size()))
    running.finish()


def test_a_window_that_is_none_or_too_small_is_refused(running):
    port, window = running.go("READY"), memfd_window(4096)
    for size, status in ((0, Status.ARGUMENT), (1, Status.ARGUMENT), (4097, Status.ARGUMENT), (8192, Status.WINDOW),
                         (1 << 40, Status.WINDOW), (1 << 63, Status.ARGUMENT), ((1 << 64) - 4096, Status.ARGUMENT)):
        refused(port, status, request(EvalCommand.WINDOW, wire.Window(size).pack()), [window.handle])
    reader, writer = os.pipe()
    refused(port, Status.WINDOW, request(EvalCommand.WINDOW, wire.Window(4096).pack()), [writer])
    os.close(writer)
    assert os.read(reader, 1) == b"", "nobody kept it"
    os.close(reader)
    assert port.call(EvalCommand.WINDOW, wire.Window(4096).pack(), [window.handle])[0] == Status.OK
    right = wire.ClipOpen(running.session.session, wire.EVAL_CLIP_WINDOW, running.number + 1, 0,
                          wire.sealed_clip_bytes(1, running.case.model.shape.frames, running.case.model.shape.joints))
    refused(port, Status.WINDOW, request(EvalCommand.CLIP_OPEN, right.pack()))
    assert port.call(EvalCommand.WINDOW, wire.Window(0).pack())[0] == Status.OK
    window.close()
    running.finish()


# ------------------------------------------------------ the key application ---


@pytest.fixture
def key_port(running):
    port = Port.connect(Path(running.enclave.folder) / (wire.KEY_PORT + ".ns"))
    yield port
    assert port.call(KeyCommand.INFO)[0] == Status.OK
    port.close()


def test_the_key_application_refuses_wrong_frames(key_port):
    check_frames(key_port, KEY_BODIES, [0, 30, 32, 34, 36, 0xFFFE] + list(range(1, 40, 2)))
    for wrong in (wire.KEY_NONCE_MIN - 1, wire.KEY_NONCE_MAX + 1, MOST):
        refused(key_port, Status.LENGTH, request(KeyCommand.ATTEST, bytes(wrong)))
    with socket.socket() as stray:
        for cmd, (least, _) in KEY_BODIES.items():
            refused(key_port, Status.ARGUMENT, request(cmd, bytes(least)), [stray.fileno()])


def test_the_key_application_refuses_wrong_fields(key_port):
    before = key_port.call(KeyCommand.INFO)
    right = wire.SlotPut(9, wire.KeyKind.DATA, 32, b"i" * 16, b"k" * 32, b"v" * 32)
    cases = [(Status.RESERVED, body) for body in reserved_bits(right)]
    cases += [(Status.ARGUMENT, replace(right, slot=wrong).pack()) for wrong in HUGE]
    cases += [(Status.ARGUMENT, replace(right, kind=wrong).pack()) for wrong in (0, 4) + HUGE]
    cases += [(Status.ARGUMENT, replace(right, key_bytes=wrong).pack()) for wrong in (0, 15, 17, 31, 33, 64) + HUGE[1:]]
    cases += [(Status.RESERVED, replace(right, kind=kind, key_bytes=16).pack())
              for kind in (wire.KeyKind.DATA, wire.KeyKind.ALERT)]
    cases.append((Status.ARGUMENT, replace(right, kind=wire.KeyKind.MODEL, key_bytes=16,
                                           key=b"k" * 16 + bytes(16)).pack()))
    for kind in (wire.KeyKind.MODEL, wire.KeyKind.DATA, wire.KeyKind.ALERT):
        cases.append((Status.ARGUMENT, replace(right, kind=kind, verifier=bytes(32)).pack()))
    for status, body in cases:
        refused(key_port, status, request(KeyCommand.SLOT_PUT, body))
    for status, cmd, body in index_cases(KeyCommand.SLOT_CLEAR, Status.ARGUMENT):
        refused(key_port, status, request(cmd, body))
    for filler in (b"\0", b"\xff"):
        refused(key_port, Status.STATE, request(KeyCommand.IDENTITY_OPEN, filler * wire.Identity.size()))
        refused(key_port, Status.ORDER, request(KeyCommand.REQUEST, filler * wire.Challenge.size()))
        refused(key_port, Status.ORDER, request(KeyCommand.ATTEST, filler * wire.KEY_NONCE_MAX))
        refused(key_port, Status.ORDER, request(KeyCommand.RESTORE, filler * wire.KeyState.size()))
        refused(key_port, Status.ORDER, request(KeyCommand.COMMIT, filler * wire.Commit.size()))
        refused(key_port, Status.ORDER, request(KeyCommand.GRANT, filler * 500))
        refused(key_port, Status.ORDER, request(KeyCommand.FLOOR, filler * 500))
    refused(key_port, Status.ORDER, request(KeyCommand.STATE))
    right = wire.Identity(wire.KEY_IDENTITY_FORM, wire.EDGED_SECURITY_VERSION, bytes(32), bytes(
        wire.Identity.layout["sealed"].size))
    for wrong in (right, replace(right, form=0), replace(right, form=2), replace(right, security_version=0)):
        refused(key_port, Status.STATE, request(KeyCommand.IDENTITY_OPEN, wrong.pack()))
    for wrong in (2,) + HUGE:
        refused(key_port, Status.STATE, request(
            KeyCommand.IDENTITY_OPEN, replace(right, security_version=wrong).pack()))
    assert key_port.call(KeyCommand.INFO) == before


def test_with_an_identity_it_refuses_wrong_grants_and_states(running, monkeypatch):
    """Another key application of the same build: this one keeps its identity."""
    monkeypatch.setenv(artifacts.BUILD_VARIABLE, str(build.FOLDER / "sanitize"))
    with GrantedNode() as node:
        port = Port(node.key.connection.channel._socket)
        before = port.call(KeyCommand.INFO)
        grant = node.grant(9)
        wrong = [grant[:size] for size in range(1, len(grant))] + [grant + b"\0", bytes(MOST), b"\xff" * MOST]
        for at in range(len(grant)):
            wrong += [grant[:at] + bytes([grant[at] ^ flip]) + grant[at + 1:] for flip in (1, 0x80, 0xff)]
        for body in wrong:
            refused(port, Status.GRANT, request(KeyCommand.GRANT, body))
        said = node.floor(node.owner)
        wrong = [said[:size] for size in range(1, len(said))] + [said + b"\0", bytes(MOST), b"\xff" * MOST]
        for at in range(len(said)):
            wrong += [said[:at] + bytes([said[at] ^ flip]) + said[at + 1:] for flip in (1, 0x80, 0xff)]
        for body in wrong:
            status, _ = port.call(KeyCommand.FLOOR, body)
            assert status in (Status.GRANT, Status.REPLAY), body.hex()
        state = port.call(KeyCommand.STATE)[1]
        refused(port, Status.ORDER, request(KeyCommand.RESTORE, state))
        for counter in HUGE64 + (0,):
            refused(port, Status.ARGUMENT, request(KeyCommand.COMMIT, counter.to_bytes(8, "little")))
        assert port.call(KeyCommand.INFO) == before
        assert port.call(KeyCommand.GRANT, grant)[0] == Status.OK
        node.kill_key()
        port = Port(node.key.connection.channel._socket)
        assert port.call(KeyCommand.IDENTITY_OPEN, node.store.identity.read_bytes())[0] == Status.OK
        for at in range(0, len(state), 41):
            refused(port, Status.STATE, request(
                KeyCommand.RESTORE, state[:at] + bytes([state[at] ^ 0x10]) + state[at + 1:]))
        for filler in (b"\0", b"\xff"):
            refused(port, Status.STATE, request(KeyCommand.RESTORE, filler * wire.KeyState.size()))
        assert port.call(KeyCommand.RESTORE, state)[0] == Status.OK


@pytest.fixture
def link(running):
    """KEY_EVAL_PORT, which has one channel: the evaluation application's is ended by starting it again."""
    if running.client is not None:
        running.client.close()
        running.client = None
    running.enclave.eval.kill()
    running.enclave.eval.wait()
    with key_link(running.enclave.folder) as port:
        yield port
        assert port.call(KeyCommand.HELLO, HELLO.pack())[0] == Status.OK
    running.restart_eval()


def test_the_link_refuses_wrong_frames(link):
    check_frames(link, LINK_BODIES, [0, 2, 4, 6, 8, 10, 12, 14, 16, 26, 30, 38, 0xFFFE] + list(range(1, 40, 2)))
    refused(link, Status.ARGUMENT, request(KeyCommand.HELLO, HELLO.pack()), [0])


def test_the_link_refuses_wrong_hellos_and_is_closed_by_them(link):
    derive = request(KeyCommand.DERIVE, wire.Derive(MODEL_SLOT, 1, 0, bytes(32), bytes(64)).pack())
    refused(link, Status.ORDER, derive)
    cases = [(Status.KEY, replace(HELLO, signature_bytes=wrong).pack()) for wrong in (1, 256, 385) + HUGE]
    cases += [(Status.KEY, replace(HELLO, signature=bytes(383) + b"\1").pack())]
    cases += [(Status.KEY, replace(HELLO, security_version=0).pack())]
    cases += [(Status.UNAVAILABLE, replace(HELLO, public_key=bytes(32)).pack())]  # a point of low order
    for status, body in cases:
        assert link.call(KeyCommand.HELLO, HELLO.pack())[0] == Status.OK
        refused(link, status, request(KeyCommand.HELLO, body))
        refused(link, Status.ORDER, derive)


def test_the_link_refuses_wrong_confirmations_and_is_closed_by_them(running, link):
    derive = request(KeyCommand.DERIVE, wire.Derive(MODEL_SLOT, 1, 0, bytes(32), bytes(64)).pack())
    secret = linking.secret_of(running.enclave.folder)
    refused(link, Status.ORDER, request(KeyCommand.CONFIRM, bytes(32)))
    for bit in range(0, 256, 5):
        tag = bytearray(linking.tag_of(linking.greet(link, secret)))
        refused(link, Status.ORDER, derive)
        tag[bit // 8] ^= 1 << bit % 8
        refused(link, Status.KEY, request(KeyCommand.CONFIRM, bytes(tag)))
        tag[bit // 8] ^= 1 << bit % 8
        refused(link, Status.ORDER, request(KeyCommand.CONFIRM, bytes(tag)))
        refused(link, Status.ORDER, derive)
    tag = linking.tag_of(linking.link(link, running.enclave.folder))
    refused(link, Status.ORDER, request(KeyCommand.CONFIRM, tag))


def test_the_link_refuses_wrong_derivations(running, link):
    linking.link(link, running.enclave.folder)
    right = wire.Derive(DATA_SLOT, wire.KeyPurpose.CAMERA, 32, bytes(32), CAMERA.ljust(64, b"\0"))
    cases = [(Status.RESERVED, body) for body in reserved_bits(right)]
    cases += [(Status.ARGUMENT, replace(right, slot=wrong).pack()) for wrong in HUGE]
    cases += [(Status.ARGUMENT, replace(right, purpose=wrong).pack()) for wrong in (0, 7) + HUGE]
    cases += [(Status.ARGUMENT, replace(right, context_bytes=wrong).pack()) for wrong in (0, 65) + HUGE[1:]]
    cases += [(Status.RESERVED, replace(right, context=CAMERA + bytes(31) + b"\1").pack()),
              (Status.ARGUMENT, replace(right, slot=MODEL_SLOT, purpose=wire.KeyPurpose.PACKAGE).pack()),
              (Status.ARGUMENT, replace(right, purpose=wire.KeyPurpose.OF_DATA).pack())]
    kinds = {wire.KeyPurpose.CAMERA: DATA_SLOT, wire.KeyPurpose.RECORD: ALERT_SLOT, wire.KeyPurpose.BEACON: ALERT_SLOT,
             wire.KeyPurpose.PACKAGE: MODEL_SLOT, wire.KeyPurpose.OF_MODEL: MODEL_SLOT,
             wire.KeyPurpose.OF_DATA: DATA_SLOT}
    for purpose, slot in kinds.items():
        has_context = slot != MODEL_SLOT and purpose != wire.KeyPurpose.OF_DATA
        ask = replace(right, purpose=purpose) if has_context else replace(
            right, purpose=purpose, context_bytes=0, context=bytes(64))
        cases += [(Status.KEY, replace(ask, slot=wrong).pack())
                  for wrong in {EMPTY_SLOT, MODEL_SLOT, DATA_SLOT, ALERT_SLOT} - {slot}]
    for status, body in cases:
        refused(link, status, request(KeyCommand.DERIVE, body))
    status, answer = link.call(KeyCommand.DERIVE, right.pack())
    assert status == Status.OK
    assert wire.Sealed.unpack(answer).counter == 1, "a refusal uses up no nonce"
    assert DATA_KEY not in answer
