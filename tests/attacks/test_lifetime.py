"""A mask word masks one value once, whatever order messages come in; explorer.py says how a repetition is seen."""

import numpy as np
import pytest

from attacks.explorer import MODEL, Explorer, Ledger
from attacks.networks import random_coordinates
from attacks.node import OUTSIDE, TRANSPORTS, refused
from edged.enclave import wire
from edged.enclave.wire import EvalCommand, Placement, Status

each_transport = pytest.mark.parametrize("transport", list(TRANSPORTS))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_no_mask_block_ever_comes_twice_through_any_order_of_messages(fresh_node, seed):
    explorer = Explorer(fresh_node, seed)
    explorer.run(150)
    assert len(explorer.counts) == 17, explorer.counts  # every action, every end of a clip
    explorer.ledger.check(least=50000)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 110))
def test_no_mask_block_ever_comes_twice_through_many_orders_of_messages(fresh_node, seed):
    explorer = Explorer(fresh_node, seed)
    explorer.run(1500)
    explorer.ledger.check(least=500000)


def test_the_ledger_sees_a_mask_that_comes_twice():
    ledger = Ledger()
    words = np.random.default_rng(1).integers(0, 1 << 32, 4000, np.uint64).astype(np.uint32)
    ledger.add("one", words)
    ledger.check(1000)
    ledger.add("other", words[2000:2004])
    with pytest.raises(AssertionError):
        ledger.check(1000)


@each_transport
def test_after_kill_9_the_same_messages_bring_other_masks(fresh_node, transport):
    """Nothing stored, no clock: every start of the enclave draws its own key."""
    node, ledger, epochs = fresh_node, Ledger(), set()
    clip = np.zeros((2, 20, 7, 3), np.int16)
    for _ in range(4):
        node.number = 0
        epochs.add(node.client.info().epoch)
        node.load(MODEL, Placement.MASKED, transport)
        ledger.weights(node, Placement.MASKED)
        camera = node.camera()
        ready = node.prepare(2)
        assert ready.invocation == 1
        ledger.prepared(ready)
        for prepared in (ready, None):
            attempt = node.attempt(camera, node.seal(camera, clip), prepared)
            node.expect(attempt.finish(), clip)
            ledger.masks_of(node, clip, attempt.x_bar, prepared)
        node.restart_eval()
    assert len(epochs) == 4
    ledger.check(least=20000)


# Chunks of every kind of bulk data: each crosses once.


def test_a_chunk_of_xbar_is_read_once(node):
    node.load(MODEL, Placement.MASKED, "message")
    camera = node.camera()
    clip = random_coordinates(np.random.default_rng(1), MODEL.shape, 2)
    attempt = node.attempt(camera, node.seal(camera, clip))
    step = wire.EDGED_CHUNK_BYTES
    first = attempt.due[0]
    assert node.call(EvalCommand.STEP_READ, wire.Chunk(first, 0).pack())[0] == Status.OK
    for index, offset in ((first, 0), (first, 2 * step), (first, step - 4), (first, step + 4), (first, 1 << 63),
                          (first + 1, 0), (first + 1, step), (1 << 31, step)):
        assert node.call(EvalCommand.STEP_READ, wire.Chunk(index, offset).pack()) == (Status.OBJECT, b"")
    assert node.call(EvalCommand.STEP_READ, wire.Chunk(first, step).pack())[0] == Status.OK
    assert node.abort(camera)[0] == Status.OK
    attempt = node.attempt(camera, node.seal(camera, clip))
    attempt.read()
    assert node.call(EvalCommand.STEP_READ, wire.Chunk(first, 0).pack()) == (Status.ORDER, b"")
    attempt.submit({index: attempt.compute(index) for index in attempt.due})
    attempt.finish_exactly(clip)


def test_with_the_window_no_message_reads_or_writes_bulk_data(node):
    node.load(MODEL, Placement.MASKED, "window")
    camera = node.camera()
    clip = random_coordinates(np.random.default_rng(1), MODEL.shape, 2)
    attempt = node.attempt(camera, node.seal(camera, clip))
    assert node.call(EvalCommand.STEP_READ, wire.Chunk(0, 0).pack()) == (Status.ORDER, b"")
    assert node.call(EvalCommand.STEP_WRITE, wire.Chunk(0, 0).pack() + bytes(4)) == (Status.ORDER, b"")
    attempt.finish_exactly(clip)


def test_a_word_of_ybar_is_written_once_and_in_its_place(node):
    node.load(MODEL, Placement.MASKED, "message")
    camera = node.camera()
    clip = random_coordinates(np.random.default_rng(1), MODEL.shape, 2)
    attempt = node.attempt(camera, node.seal(camera, clip))
    early = wire.Chunk(0, 0).pack() + bytes(4)
    assert node.call(EvalCommand.STEP_WRITE, early) == (Status.ORDER, b"")
    answers = attempt.answers()
    index = attempt.due[0]
    data = answers[index].tobytes()
    assert node.call(EvalCommand.STEP, wire.Index(0).pack()) == (Status.ORDER, b"")  # ybar is due
    assert node.call(EvalCommand.STEP_WRITE, wire.Chunk(index, 0).pack() + data[:400])[0] == Status.OK
    for at in (0, 396, 404, 1 << 62):
        assert node.call(EvalCommand.STEP_WRITE, wire.Chunk(index, at).pack() + bytes(4)) == (Status.OBJECT, b"")
    assert node.call(EvalCommand.STEP_WRITE, wire.Chunk(index, 400).pack() + bytes(3)) == (Status.LENGTH, b"")
    assert node.call(EvalCommand.STEP_WRITE, wire.Chunk(index, 400).pack()) == (Status.LENGTH, b"")
    at = 400
    while at < len(data):
        part = data[at:at + 4000]
        assert node.call(EvalCommand.STEP_WRITE, wire.Chunk(index, at).pack() + part)[0] == Status.OK
        at += len(part)
    assert node.call(EvalCommand.STEP_WRITE, wire.Chunk(index, at).pack() + bytes(4)) == (Status.OBJECT, b"")
    attempt.progress = node.client.end_step(0)
    attempt.finish_exactly(clip)


@pytest.mark.parametrize("placement", OUTSIDE, ids=lambda placement: placement.name)
def test_weights_cross_once_a_load(node, placement):
    for transport in TRANSPORTS:
        node.load(MODEL, placement, transport)
        for command, body in ((EvalCommand.WEIGHTS_READ, wire.Chunk(0, 0).pack()),
                              (EvalCommand.WEIGHTS_MAP, wire.Index(0).pack())):
            assert node.call(command, body) == (Status.ORDER, b"")
        node.transport.close()


def test_weights_cross_in_order_and_not_by_both_ways(node):
    loaded = node.client.load(node.pack(MODEL), 0, Placement.MASKED)
    with refused(Status.WINDOW):
        node.client.map_weights(0)
    window = node.client.connection.channel.window(loaded.head.window_bytes)
    node.client.attach_window(window)
    for index in (1, len(loaded.products), 1 << 31):
        with refused(Status.OBJECT):
            node.client.map_weights(index)
    node.client.map_weights(0)
    with refused(Status.OBJECT):
        node.client.map_weights(0)
    assert node.call(EvalCommand.WEIGHTS_READ, wire.Chunk(0, 0).pack()) == (Status.OBJECT, b"")
    assert node.call(EvalCommand.WEIGHTS_READ, wire.Chunk(1, 0).pack())[0] == Status.OK
    with refused(Status.OBJECT):  # what began in messages ends in them
        node.client.map_weights(1)
    for command, body in ((EvalCommand.CLIP_OPEN, wire.ClipOpen(0, 0, 1, 0, 4000).pack()),
                          (EvalCommand.PREPARE_OPEN, wire.PrepareOpen(1).pack())):
        assert node.call(command, body) == (Status.ORDER, b"")
    node.client.detach_window()
    window.close()


@each_transport
def test_a_prepared_invocation_serves_one_clip(node, transport):
    node.load(MODEL, Placement.MASKED, transport)
    camera = node.camera()
    clip = random_coordinates(np.random.default_rng(1), MODEL.shape, 2)
    used, dropped, small_one, kept = node.prepare(2), node.prepare(2), node.prepare(1), node.prepare(2)
    node.evaluate(camera, clip, used)
    node.client.drop_prepared(dropped.invocation)
    for ready in (used, dropped, small_one, used._replace(invocation=kept.invocation + 1),
                  used._replace(invocation=(1 << 64) - 1)):
        with refused(Status.ARGUMENT):
            node.attempt(camera, node.seal(camera, clip), ready)
    node.evaluate(camera, clip, kept)
    with refused(Status.ARGUMENT):
        node.client.drop_prepared(kept.invocation)
    with refused(Status.ARGUMENT):
        node.client.drop_prepared(0)


@pytest.mark.parametrize("end", ["load", "unload", "disconnect"])
def test_a_prepared_invocation_does_not_outlive_its_load(node, end):
    node.load(MODEL, Placement.MASKED)
    camera = node.camera()
    ready = node.prepare(2)
    if end == "unload":
        node.client.unload()
    elif end == "disconnect":
        node.reconnect()
    node.load(MODEL, Placement.MASKED)
    clip = random_coordinates(np.random.default_rng(1), MODEL.shape, 2)
    with refused(Status.ARGUMENT):
        node.attempt(camera, node.seal(camera, clip), ready)
    assert node.prepare(1).invocation > ready.invocation
    node.evaluate(camera, clip)


def test_a_clip_that_is_refused_leaves_the_prepared_invocation_unused_or_dead_but_never_twice(node):
    """A clip whose seal does not open reaches no mask; the invocation then masks the next clip, its only one."""
    node.load(MODEL, Placement.MASKED)
    camera = node.camera()
    ledger, clip = Ledger(), np.zeros((2, 20, 7, 3), np.int16)
    ready = node.prepare(2)
    number, sealed = node.seal(camera, clip)
    broken = sealed[:-1] + bytes([sealed[-1] ^ 1])
    with refused(Status.CLIP):
        node.attempt(camera, (number, broken), ready)
    attempt = node.attempt(camera, (number, sealed), ready)
    attempt.finish_exactly(clip)
    ledger.masks_of(node, clip, attempt.x_bar, ready)
    with refused(Status.ARGUMENT):
        node.attempt(camera, node.seal(camera, clip), ready)
    ledger.check(least=1000)


def test_only_so_many_invocations_wait(node):
    node.load(MODEL, Placement.MASKED)
    waiting = [node.prepare(1) for _ in range(wire.EVAL_PREPARED_MAX)]
    with refused(Status.MEMORY):
        node.client.open_prepare(1)
    node.client.drop_prepared(waiting[3].invocation)
    assert node.prepare(1).invocation > waiting[-1].invocation


@pytest.mark.parametrize("placement, persons, status", [
    (Placement.MASKED, 0, Status.ARGUMENT), (Placement.MASKED, 3, Status.ARGUMENT),
    (Placement.MASKED, 1 << 31, Status.ARGUMENT), (Placement.ENCLAVE, 1, Status.ARGUMENT)])
def test_nothing_is_prepared_for_nobody_for_too_many_or_where_nothing_leaves(node, placement, persons, status):
    node.load(MODEL, placement)
    with refused(status):
        node.client.open_prepare(persons)
