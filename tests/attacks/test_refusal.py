"""After a refusal: the invocation and its masks are dead, the clip has three attempts, and exactly one record."""

import numpy as np
import pytest

from attacks.networks import random_coordinates, small
from attacks.node import OUTSIDE, TRANSPORTS, refused, spoil
from attacks.statistics import check_nothing_in_common, words_of
from edged.enclave import wire
from edged.enclave.wire import EvalCommand, Placement, RecordKind, Status

MODEL = small()
WIDE = small(9, channels=((30, 1), (30, 1), (40, 2)), frames=20, joints=9, taps=5)
RNG = np.random.default_rng()

each_transport = pytest.mark.parametrize("transport", list(TRANSPORTS))


def coordinates(model=MODEL, persons=2):
    return random_coordinates(RNG, model.shape, persons)


@each_transport
@pytest.mark.parametrize("step", [0, 2, 7])
def test_a_refused_invocation_is_dead(node, transport, step):
    node.load(MODEL, Placement.MASKED, transport)
    camera = node.camera()
    attempt = node.attempt(camera, node.seal(camera, coordinates())).advance(step)
    assert spoil(attempt) is None
    products = attempt.due
    index = wire.Index(step).pack()
    chunk = wire.Chunk(products[0], 0).pack()
    for command, body in [(EvalCommand.STEP, index), (EvalCommand.STEP_READ, chunk),
                          (EvalCommand.STEP_WRITE, chunk + bytes(4)), (EvalCommand.CLIP_BEGIN, b""),
                          (EvalCommand.CLIP_WRITE, chunk + bytes(4)), (EvalCommand.PREPARE_READ, chunk),
                          (EvalCommand.WEIGHTS_READ, chunk)]:
        assert node.call(command, body) == (Status.ORDER, b"")
    assert node.abort(camera)[0] == Status.OK


@each_transport
@pytest.mark.parametrize("ahead", [False, True], ids=["on line", "ahead"])
@pytest.mark.parametrize("placement", OUTSIDE, ids=lambda placement: placement.name)
def test_after_a_refusal_all_masks_are_new(node, transport, ahead, placement):
    node.load(WIDE, placement, transport)
    camera = node.camera()
    clip = coordinates(WIDE)
    sealed = node.seal(camera, clip)
    seen, before = [], []
    for attempt_number in range(3):
        ready = node.prepare(2) if ahead else None
        attempt = node.attempt(camera, sealed, ready)
        attempt.advance(node.loaded.head.steps - 1)
        attempt.read()
        seen.append(words_of([attempt.x_bar[index] for index in sorted(attempt.x_bar)]))
        before.append(words_of(ready.subtract) if ahead else None)
        if attempt_number < 2:
            answers = {index: attempt.compute(index) + np.uint32(1) for index in attempt.due}
        else:
            answers = {index: attempt.compute(index) for index in attempt.due}
        if attempt_number < 2:
            with refused(Status.VERIFICATION):
                attempt.submit(answers)
        else:
            attempt.submit(answers)
    node.expect(attempt.progress.record, clip)
    for streams in ([seen, before] if ahead else [seen]):
        for one in range(3):
            for other in range(one):
                check_nothing_in_common(streams[one], streams[other], "attempts {} and {}".format(other, one))


def test_a_prepared_invocation_dies_with_the_refusal(node):
    node.load(MODEL, Placement.MASKED)
    camera = node.camera()
    sealed = node.seal(camera, coordinates())
    ready = node.prepare(2)
    spoil(node.attempt(camera, sealed, ready).advance(3))
    with refused(Status.ARGUMENT):
        node.attempt(camera, sealed, ready)
    assert node.call(EvalCommand.PREPARE_DROP, wire.Invocation(ready.invocation).pack()) == (Status.ARGUMENT, b"")
    assert node.abort(camera)[0] == Status.OK


@each_transport
def test_the_third_refusal_answers_with_the_record_failed_and_there_is_no_fourth(node, transport):
    node.load(MODEL, Placement.MASKED, transport)
    camera = node.camera()
    good = node.seal(camera, coordinates())
    last = node.open(node.attempt(camera, good).finish())
    for step in range(3):
        clip = coordinates()
        sealed = node.seal(camera, clip)
        before = node.stats()
        assert spoil(node.attempt(camera, sealed).advance(step)) is None
        assert spoil(node.attempt(camera, sealed)) is None
        record = spoil(node.attempt(camera, sealed).advance(step))
        failed = node.open(record)
        assert (failed.kind, failed.number, failed.persons) == (RecordKind.FAILED, sealed[0], 2)
        assert failed.tracks == (1, 2) and failed.camera == camera.name and failed.claimed_ns == 5
        assert not any(failed.logits) and not any(failed.probabilities)
        assert failed.header.seq == last.header.seq + 1 and failed.header.epoch == last.header.epoch
        with refused(Status.CLIP):
            node.attempt(camera, sealed)
        observed = node.attempt(camera, node.seal(camera, coordinates())).finish()
        assert len(record) == len(observed)  # the size tells nothing
        last = node.open(observed)
        assert last.header.seq == failed.header.seq + 1
        after = node.stats()
        assert (after.clips - before.clips, after.records - before.records) == (4, 2)
        assert after.rejections - before.rejections == 3


@each_transport
def test_while_a_clip_has_no_record_only_the_same_sealed_bytes_are_taken(node, transport):
    node.load(MODEL, Placement.MASKED, transport)
    camera = node.camera()
    node.attempt(camera, node.seal(camera, coordinates())).finish()
    clip = coordinates()
    number, sealed = node.seal(camera, clip)
    spoil(node.attempt(camera, (number, sealed)))
    other = node.seal(camera, coordinates(), number)[1]
    with refused(Status.CLIP):  # another clip under the same number, sealed as it should be
        node.attempt(camera, (number, other))
    with refused(Status.CLIP):  # the tag of the one, the text of the other
        node.attempt(camera, (number, other[:-16] + sealed[-16:]))
    with refused(Status.CLIP):  # one person less: another size
        node.attempt(camera, (number, node.seal(camera, clip[:1], number)[1]))
    with refused(Status.ORDER):  # an older one
        node.attempt(camera, node.seal(camera, clip, number - 1))
    with refused(Status.ORDER):  # a newer one
        node.attempt(camera, node.seal(camera, clip, number + 1))
    with refused(Status.ORDER):  # nor does a new session lose it
        node.camera()
    node.attempt(camera, (number, sealed)).finish_exactly(clip)  # refused ones took none of its attempts
    with refused(Status.CLIP):
        node.attempt(camera, (number, sealed))


def test_the_unfinished_clip_of_one_camera_does_not_stop_another(node):
    node.load(MODEL, Placement.MASKED)
    one, other = node.camera(b"one"), node.camera(b"other")
    clip = coordinates()
    sealed = node.seal(one, clip)
    spoil(node.attempt(one, sealed))
    node.evaluate(other, coordinates())
    node.attempt(one, sealed).finish_exactly(clip)


@pytest.mark.parametrize("where", ["while it is written", "at its first step", "at its last step", "after a refusal"])
def test_an_abort_ends_an_accepted_clip_with_the_record_failed(node, where):
    node.load(MODEL, Placement.MASKED, "message")
    camera = node.camera()
    node.evaluate(camera, coordinates())
    sealed = node.seal(camera, coordinates())
    before = node.stats()
    if where == "while it is written":  # nothing was accepted: there is no record to give
        node.client.open_clip(camera.session, 0, sealed[0], 0, len(sealed[1]))
        assert node.abort(camera) == (Status.OK, None)
        assert node.stats().records == before.records
        node.attempt(camera, sealed)  # it may still come
    elif where == "after a refusal":
        spoil(node.attempt(camera, sealed).advance(1))
    else:
        node.attempt(camera, sealed).advance(0 if "first" in where else 7)
    status, record = node.abort(camera)
    failed = node.open(record)
    assert status == Status.OK and (failed.kind, failed.number) == (RecordKind.FAILED, sealed[0])
    assert node.stats().records == before.records + 1
    assert node.abort(camera) == (Status.ORDER, None)  # exactly one
    with refused(Status.CLIP):
        node.attempt(camera, sealed)
    node.evaluate(camera, coordinates())


@pytest.mark.parametrize("state", ["empty", "weights"])
def test_an_abort_after_a_disconnect_needs_no_model(node, state):
    node.load(MODEL, Placement.MASKED)
    camera = node.camera()
    sealed = node.seal(camera, coordinates())
    node.attempt(camera, sealed).advance(2)
    node.reconnect()
    if state == "weights":
        node.client.load(node.pack(MODEL), 0, Placement.MASKED)
    status, record = node.abort(camera)
    failed = node.open(record)
    assert status == Status.OK and (failed.kind, failed.number) == (RecordKind.FAILED, sealed[0])
    assert node.abort(camera) == (Status.ORDER, None)


def test_another_model_may_end_what_one_began_and_the_record_names_it(node):
    """The owner loads a new version while a clip waits for its second attempt."""
    node.load(MODEL, Placement.MASKED)
    camera = node.camera()
    clip = coordinates()
    sealed = node.seal(camera, clip)
    spoil(node.attempt(camera, sealed))
    node.load(small(8), Placement.MASKED)
    before = node.attempt(camera, sealed).finish_exactly(clip)
    after = node.evaluate(camera, coordinates())
    assert before.model == after.model


def test_an_abort_of_another_session_harms_nothing(node):
    node.load(MODEL, Placement.MASKED)
    one, other = node.camera(b"one"), node.camera(b"other")
    clip = coordinates()
    attempt = node.attempt(one, node.seal(one, clip)).advance(2)
    assert node.abort(other) == (Status.ARGUMENT, None)
    assert node.abort(one._replace(session=15)) == (Status.ARGUMENT, None)
    assert node.abort(one._replace(session=1 << 31)) == (Status.ARGUMENT, None)
    attempt.finish_exactly(clip)


def test_every_accepted_clip_has_exactly_one_record_whatever_befalls_it(node):
    """A hundred clips of four cameras, each ended in its own way; all sequence numbers are there, once."""
    node.load(MODEL, Placement.MASKED)
    cameras = [node.camera(name) for name in (b"a", b"b", b"c", b"d")]
    first = node.stats()
    sequence, ended = [], []
    for _ in range(100):
        camera = cameras[RNG.integers(4)]
        clip = coordinates(persons=int(RNG.integers(1, 3)))
        sealed = node.seal(camera, clip)
        fate = RNG.integers(4)
        record = None
        for attempt_number in range(3):
            if fate == 3 and attempt_number == 1:
                node.reconnect()
                node.load(MODEL, Placement.MASKED)
            attempt = node.attempt(camera, sealed).advance(int(RNG.integers(8)))
            if fate == 0 or attempt_number == 2 and RNG.integers(2):
                record = attempt.finish()
                kind = RecordKind.OBSERVATION
            elif fate == 1 and attempt_number:
                record, kind = node.abort(camera)[1], RecordKind.FAILED
            else:
                record, kind = spoil(attempt), RecordKind.FAILED
            if record is not None:
                break
        opened = node.open(record)
        assert (opened.number, opened.kind) == (sealed[0], kind)
        sequence.append(opened.header.seq)
        ended.append(opened.number)
    assert sequence == list(range(sequence[0], sequence[0] + 100)) and len(set(ended)) == 100
    assert node.stats().records - first.records == 100


def test_a_disconnect_counts_as_an_attempt_and_the_fourth_hand_over_is_refused(node):
    camera = None
    for attempt_number in range(3):
        node.reconnect()
        node.load(MODEL, Placement.MASKED)
        if camera is None:
            camera = node.camera()
            sealed = node.seal(camera, coordinates())
        node.attempt(camera, sealed).advance(attempt_number)
    node.reconnect()
    node.load(MODEL, Placement.MASKED)
    with refused(Status.ORDER):
        node.attempt(camera, sealed)
    failed = node.open(node.abort(camera)[1])
    assert (failed.kind, failed.number) == (RecordKind.FAILED, sealed[0])
    node.evaluate(camera, coordinates())
