"""The bridge's flow and its rule of resubmission, against an enclave of a few lines.

``ToyEnclave`` keeps the order of the wire and compares every ybar with the twin's; it masks nothing.
"""

import mmap

import numpy as np
import pytest

from edged.enclave import wire
from edged.enclave.client import EvalClient
from edged.enclave.tipc import FakeChannel
from edged.enclave.wire import EvalCommand, Status
from edged.errors import AcceleratorError, EnclaveError, PackageError
from edged.offload.bridge import TRANSPORTS, Bridge
from edged.offload.product import NumpyAccelerator, masked_convolution

PACKAGE = b"EDGEDPKG\1\0\0\0\3\0\0\0abc" + bytes(5000)
PERSONS, FRAMES, JOINTS = 2, 6, 3
# Two products fall due at step 0, one at step 1.
PRODUCTS = (wire.Product(0, 4, 1, 1, 0, 5, 6, 6, JOINTS, 4, 8192, 16384),
            wire.Product(0, 2, 1, 2, 0, 3, 6, 3, JOINTS, 4, 24576, 32768),
            wire.Product(1, 3, 3, 2, 1, 4, 6, 3, JOINTS, 4, 8192, 16384))
STEPS = 2
WINDOW_BYTES = 40960
# As much of a record as the client looks at: its sizes. One for each of two recipients.
DONE = tuple(wire.RecordHead(2, 2).pack() + name for name in (b"done", b"Done"))
FAILED = tuple(wire.RecordHead(2, 4).pack() + name for name in (b"failed", b"Failed"))
EMISSION = 12
HEAD, CHUNK, STEP = wire.Header.size(), wire.Chunk.size(), wire.Step.size()


def words(seed, shape):
    return np.random.default_rng(seed).integers(0, 1 << 32, shape, np.uint64).astype(np.uint32)


class ToyEnclave:
    def __init__(self):
        self.w_bar = [words(index, product.w_shape) for index, product in enumerate(PRODUCTS)]
        self.invocation = 0
        self.prepared = {}
        self.clip = None
        self.failures = 0
        self.handed_in = 0
        self.log = []
        self.window = None
        self.refusal = Status.OK  # of the next clip

    def answer(self, message, handle):
        head = wire.Header.unpack(message[:HEAD])
        self.log.append(EvalCommand(head.cmd))
        status, body = getattr(self, "on_" + EvalCommand(head.cmd).name.lower())(message[HEAD:], handle)
        return wire.Header(1, head.cmd + 1, len(body), head.seq, status).pack() + body

    def on_load_open(self, *_):
        return Status.OK, b""

    on_load_envelope = on_load_chunk = on_load_open

    def on_load_commit(self, *_):
        return Status.OK, wire.Model(1, 0, len(PRODUCTS), STEPS, PERSONS, FRAMES, JOINTS, 2, WINDOW_BYTES).pack()

    def on_product(self, body, _):
        return Status.OK, PRODUCTS[wire.Index.unpack(body).index].pack()

    def on_window(self, body, handle):
        size = wire.Window.unpack(body).bytes
        self.window = mmap.mmap(handle, size) if size else None
        return Status.OK, b""

    def into_window(self, offset, values):
        self.window[offset:offset + values.nbytes] = values.tobytes()
        return Status.OK, b""

    @staticmethod
    def chunk_of(values, body):
        head = wire.Chunk.unpack(body)
        return Status.OK, body + values.tobytes()[head.offset:head.offset + wire.EDGED_CHUNK_BYTES]

    def on_weights_read(self, body, _):
        return self.chunk_of(self.w_bar[wire.Chunk.unpack(body).object], body)

    def on_weights_map(self, body, _):
        return self.into_window(0, self.w_bar[wire.Index.unpack(body).index])

    def on_prepare_open(self, body, _):
        self.invocation += 1
        persons = wire.PrepareOpen.unpack(body).persons
        self.prepared[self.invocation] = [words(100 * self.invocation + index, product.y_shape(persons))
                                          for index, product in enumerate(PRODUCTS)]
        return Status.OK, wire.Invocation(self.invocation).pack()

    def on_prepare_read(self, body, _):
        return self.chunk_of(self.prepared[self.invocation][wire.Chunk.unpack(body).object], body)

    def on_prepare_map(self, body, _):
        return self.into_window(0, self.prepared[self.invocation][wire.Index.unpack(body).index])

    def on_clip_open(self, body, _):
        refusal, self.refusal = self.refusal, Status.OK
        if refusal != Status.OK:
            return refusal, b""
        opened = wire.ClipOpen.unpack(body)
        persons = (opened.bytes - wire.sealed_clip_bytes(0, FRAMES, JOINTS)) // (6 * FRAMES * JOINTS)
        self.invocation += 1
        self.clip = opened
        self.sealed = b""
        self.step = 0
        self.x_bar = [words(1000 * self.invocation + index, product.x_shape(persons))
                      for index, product in enumerate(PRODUCTS)]
        self.subtract = self.prepared.pop(opened.invocation) if opened.invocation else [None] * len(PRODUCTS)
        self.y_bar = [np.zeros(product.y_shape(persons), np.uint32) for product in PRODUCTS]
        if not opened.flags:
            return self.under_way()
        self.sealed = bytes(self.window[:opened.bytes])
        return self.begin()

    def on_clip_write(self, body, _):
        self.sealed += body[CHUNK:]
        return Status.OK, b""

    def on_clip_begin(self, *_):
        return self.begin()

    def begin(self):
        assert self.sealed == bytes([7]) * self.clip.bytes
        if self.clip.flags:
            for x_bar, product in zip(self.x_bar, PRODUCTS):
                if product.step == self.step:
                    self.into_window(product.x_offset, x_bar)
        if self.step < STEPS:
            return self.under_way()
        return Status.OK, self.ended(DONE)

    def under_way(self):
        return Status.OK, wire.Step(self.step, 0, EMISSION - 2, 0).pack()

    def ended(self, records):
        return wire.Step(self.step, sum(map(len, records)), EMISSION, len(records)).pack() + b"".join(records)

    def on_step_read(self, body, _):
        return self.chunk_of(self.x_bar[wire.Chunk.unpack(body).object], body)

    def on_step_write(self, body, _):
        head = wire.Chunk.unpack(body[:CHUNK])
        flat = self.y_bar[head.object].reshape(-1)
        data = np.frombuffer(body[CHUNK:], np.uint32)
        flat[head.offset // 4:head.offset // 4 + data.size] = data
        return Status.OK, b""

    def on_step(self, body, _):
        assert wire.Index.unpack(body).index == self.step
        for index, product in enumerate(PRODUCTS):
            if product.step != self.step:
                continue
            y_bar = self.y_bar[index]
            if self.clip.flags:
                y_bar = np.frombuffer(self.window, np.uint32, y_bar.size, product.y_offset).reshape(y_bar.shape)
            self.handed_in += 1
            if not np.array_equal(y_bar, masked_convolution(self.w_bar[index], self.x_bar[index], product.stride,
                                                            product.pad, self.subtract[index])):
                self.failures += 1
                last = self.failures == 3
                return Status.VERIFICATION, self.ended(FAILED) if last else b""
        self.step += 1
        return self.begin()

    def on_clip_abort(self, body, _):
        assert wire.Index.unpack(body).index == self.clip.session
        return Status.OK, self.ended(FAILED)


class Broken(NumpyAccelerator):
    """Right but for one word of every answer, as long as ``wrong`` says."""

    name = "broken"

    def __init__(self, wrong):
        self.wrong = wrong

    def convolve(self, *arguments):
        out = super().convolve(*arguments)
        if self.wrong > 0:
            self.wrong -= 1
            out[0, 0, 0, 0] ^= 1
        return out


class Dead(NumpyAccelerator):
    name = "dead"

    def convolve(self, *_):
        raise AcceleratorError("lost its bus")


@pytest.fixture
def toy():
    return ToyEnclave()


def bridge_to(toy, transport="message", accelerator=None, fallback=None):
    client = EvalClient(FakeChannel(toy.answer))
    bridge = Bridge(client, accelerator or NumpyAccelerator(), transport, fallback)
    bridge.load(PACKAGE, 0, wire.Placement.MASKED)
    toy.log.clear()
    return bridge


def sealed_clip(persons=PERSONS):
    return bytes([7]) * wire.sealed_clip_bytes(persons, FRAMES, JOINTS)


@pytest.mark.parametrize("persons", [1, 2])
@pytest.mark.parametrize("transport", sorted(TRANSPORTS))
def test_a_clip_goes_through_on_line(toy, transport, persons):
    outcome = bridge_to(toy, transport).evaluate(1, 1, sealed_clip(persons))
    assert (outcome.records, outcome.failed, outcome.attempts) == (DONE, False, 1)


@pytest.mark.parametrize("transport", sorted(TRANSPORTS))
def test_a_clip_takes_the_prepared_invocation_of_as_many_persons(toy, transport):
    bridge = bridge_to(toy, transport)
    bridge.prepare(1)
    bridge.prepare(2)
    assert bridge.evaluate(1, 1, sealed_clip(2)).records == DONE
    assert sorted(toy.prepared) == [1]
    assert bridge.evaluate(1, 2, sealed_clip(2)).records == DONE
    assert sorted(toy.prepared) == [1]


@pytest.mark.parametrize("accelerator", [NumpyAccelerator(), Broken(100), Dead()], ids=["done", "refused", "given up"])
def test_an_outcome_says_up_to_where_records_are_to_be_confirmed(toy, accelerator):
    outcome = bridge_to(toy, "message", accelerator).evaluate(1, 1, sealed_clip())
    assert outcome.emission == EMISSION
    assert outcome.record == outcome.records[0]


def test_through_the_window_a_clip_costs_a_round_trip_per_step_and_one_more(toy):
    cost = bridge_to(toy, "window").evaluate(1, 1, sealed_clip()).cost
    assert (cost.round_trips, cost.messages) == (1 + STEPS, 2 * (1 + STEPS))
    moved = sum(4 * int(np.prod(product.x_shape(2)) + np.prod(product.y_shape(2))) for product in PRODUCTS)
    messages = (HEAD + wire.ClipOpen.size()) + STEPS * (HEAD + 8) + (1 + STEPS) * (HEAD + STEP) + len(b"".join(DONE))
    assert cost.bytes == len(sealed_clip()) + moved + messages


def test_by_messages_every_message_is_counted(toy):
    cost = bridge_to(toy).evaluate(1, 1, sealed_clip()).cost
    assert cost.round_trips == len(toy.log)
    assert toy.log == ([EvalCommand.CLIP_OPEN, EvalCommand.CLIP_WRITE, EvalCommand.CLIP_BEGIN]
                       + [EvalCommand.STEP_READ] * 2 + [EvalCommand.STEP_WRITE] * 2 + [EvalCommand.STEP]
                       + [EvalCommand.STEP_READ, EvalCommand.STEP_WRITE, EvalCommand.STEP])


@pytest.mark.parametrize("transport", sorted(TRANSPORTS))
def test_a_refused_clip_is_submitted_again(toy, transport):
    outcome = bridge_to(toy, transport, Broken(1)).evaluate(1, 1, sealed_clip())
    assert (outcome.records, outcome.failed, outcome.attempts) == (DONE, False, 2)


def test_the_last_attempt_runs_on_the_fallback(toy):
    outcome = bridge_to(toy, "message", Broken(100), NumpyAccelerator()).evaluate(1, 1, sealed_clip())
    assert (outcome.records, outcome.failed, outcome.attempts) == (DONE, False, 3)


def test_after_three_refusals_the_record_failed_comes_out(toy):
    outcome = bridge_to(toy, "message", Broken(100)).evaluate(1, 1, sealed_clip())
    assert (outcome.records, outcome.failed, outcome.attempts) == (FAILED, True, 3)


def test_a_refusal_uses_up_its_prepared_invocation(toy):
    bridge = bridge_to(toy, "message", Broken(1))
    bridge.prepare(2)
    bridge.prepare(2)
    assert bridge.evaluate(1, 1, sealed_clip()).attempts == 2
    assert toy.prepared == {}


@pytest.mark.parametrize("status", [Status.FULL, Status.LOCKED, Status.RATE, Status.AGREEMENT, Status.CLIP],
                         ids=lambda status: status.name)
def test_a_clip_that_the_enclave_does_not_take_uses_up_no_prepared_invocation(toy, status):
    bridge = bridge_to(toy)
    bridge.prepare(2)
    toy.refusal = status
    with pytest.raises(EnclaveError) as caught:
        bridge.evaluate(1, 1, sealed_clip())
    assert caught.value.status == status
    assert bridge.evaluate(1, 1, sealed_clip()).records == DONE
    assert toy.prepared == {}


def test_a_product_that_the_accelerator_fails_to_make_is_made_by_the_fallback(toy):
    outcome = bridge_to(toy, "message", Dead(), NumpyAccelerator()).evaluate(1, 1, sealed_clip())
    assert (outcome.records, outcome.attempts) == (DONE, 1)


def test_without_a_working_accelerator_the_record_failed_comes_out(toy):
    outcome = bridge_to(toy, "message", Dead()).evaluate(1, 1, sealed_clip())
    assert (outcome.records, outcome.failed, outcome.attempts) == (FAILED, True, 1)
    assert toy.log[-1] == EvalCommand.CLIP_ABORT
    assert toy.handed_in == 0


def test_a_clip_whose_size_fits_no_number_of_persons_never_reaches_the_enclave(toy):
    with pytest.raises(PackageError, match="no number of persons"):
        bridge_to(toy).evaluate(1, 1, sealed_clip() + b"\0")
    assert toy.log == []


def test_without_a_model_nothing_is_evaluated(toy):
    with pytest.raises(EnclaveError, match="call load first"):
        Bridge(EvalClient(FakeChannel(toy.answer)), NumpyAccelerator()).evaluate(1, 1, sealed_clip())
