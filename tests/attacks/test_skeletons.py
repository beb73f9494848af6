"""Skeletons in records: whom the agreement shows them sees those of a clip of which a rule of his says Alert or Update,
nobody else does, and nothing tells from outside that they are there."""

from dataclasses import replace

import numpy as np
import pytest

from attacks.networks import integer_model, random_coordinates
from attacks.node import SEES_ALL, confirm_all, recipient, refused, short_recipient, spoil, started_with
from attacks.test_alerts import (
    ALERT, CANCEL, CLIPS, HIGH, HIGH_SCORES, LABELS, LOW, MODEL, NONE, THRESHOLD, UPDATE, scores,
)  # fmt: skip
from edged.alerts.record import Skeletons, split_record
from edged.enclave import wire
from edged.enclave.wire import EvalCommand, Placement, RecordKind, Status
from edged.trust.agreement import Rule

LABEL, DRAWN = wire.EDGED_SEES_LABEL, wire.EDGED_SEES_LABEL | wire.EDGED_SEES_SKELETON
EVERYTHING = SEES_ALL | wire.EDGED_SEES_SKELETON
RECORD = wire.RecordHead.size() + wire.EDGED_RECORD_HEADER_MAX + wire.EDGED_BODY_SKELETONS + wire.EVAL_TAG_BYTES
PIECE = wire.EDGED_MESSAGE_BYTES - wire.Header.size() - wire.Step.size()
RULE = Rule(LABELS[1], THRESHOLD, 0)
node = started_with(MODEL)


def agree(node, *recipients, rules=(RULE,), **changes):
    confirm_all(node)
    agreed = node.agree(**dict(dict(number=2, body=wire.EDGED_BODY_SKELETONS, rules=rules, recipients=recipients),
                               **changes))
    assert {len(record) for record in agreed.begun.records} == {RECORD}
    confirm_all(node)
    return agreed


def four_recipients():
    """Who see nothing, the label, the skeletons and all there is."""
    return (recipient(0, (0,)), recipient(wire.EDGED_SEES_SCORES, (SEES_ALL,)), short_recipient(0, (DRAWN,)),
            recipient(wire.EDGED_SEES_SCORES, (EVERYTHING,)))


def say(node, camera, agreed, clip):
    """What each recipient reads of one clip; all is confirmed then."""
    attempt = node.attempt(camera, node.seal(camera, clip))
    attempt.finish()
    assert {len(record) for record in attempt.progress.records} == {RECORD}
    assert len(attempt.progress.records) == len(agreed.terms.recipients)
    confirm_all(node)
    return [node.open(record, agreement=agreed) for record in attempt.progress.records]


def drawn(clip):
    """Of a clip (persons, T, V, 3)."""
    return Skeletons(*clip.shape[:3], clip[..., :2].astype("<i2").tobytes())


# To whom, and when.


@pytest.mark.parametrize("placement", list(Placement), ids=lambda placement: placement.name)
def test_who_may_see_them_gets_those_of_an_alert_and_nobody_else(fresh_node, placement):
    node = fresh_node
    node.load(MODEL, placement)
    agreed = agree(node, *four_recipients())
    seen = say(node, node.camera(b"gate", agreed), agreed, HIGH)
    assert [one.alerts[0].message for one in seen] == [NONE, ALERT, ALERT, ALERT]
    assert [one.skeletons for one in seen] == [None, None, drawn(HIGH), drawn(HIGH)]
    assert seen[3].probabilities == tuple(HIGH_SCORES) and seen[2].alerts[0].score == 0


def test_they_come_with_an_alert_and_an_update_and_not_with_a_cancel_or_nothing(node):
    agreed = agree(node, recipient(0, (DRAWN,)))
    camera = node.camera(b"gate", agreed)
    said = [say(node, camera, agreed, clip)[0] for clip in (LOW, HIGH, HIGH, LOW, LOW)]
    assert [one.alerts[0].message for one in said] == [NONE, ALERT, UPDATE, CANCEL, NONE]
    assert [one.skeletons for one in said] == [None, drawn(HIGH), drawn(HIGH), None, None]


def test_they_come_with_the_rules_of_which_they_may_be_seen(node):
    rules = (RULE, Rule(LABELS[0], 1, 0))  # the second holds for every clip
    agreed = agree(node, recipient(0, (DRAWN, LABEL)), recipient(0, (LABEL, DRAWN)), recipient(0, (DRAWN, 0)),
                   rules=rules)
    camera = node.camera(b"gate", agreed)
    assert [one.skeletons for one in say(node, camera, agreed, LOW)] == [None, drawn(LOW), None]
    assert [one.skeletons for one in say(node, camera, agreed, HIGH)] == [drawn(HIGH)] * 3


def test_of_fewer_people_there_are_fewer_and_of_nobody_none(node):
    agreed = agree(node, recipient(0, (EVERYTHING,)), rules=(Rule(LABELS[0], 1, 0),))
    camera = node.camera(b"gate", agreed)
    for clip in (HIGH[:1], HIGH, HIGH[:0], LOW[:1]):
        (seen,) = say(node, camera, agreed, clip)
        assert seen.alerts[0].message in (ALERT, UPDATE)
        assert seen.skeletons == (drawn(clip) if len(clip) else None)


def test_they_are_those_of_the_clip_itself_and_of_none_before(node):
    agreed = agree(node, recipient(0, (DRAWN,)), rules=(Rule(LABELS[0], 1, 0),))
    camera, other = node.camera(b"gate", agreed), node.camera(b"yard", agreed)
    for turn, clip in enumerate(CLIPS[:6]):
        (seen,) = say(node, (camera, other)[turn % 2], agreed, clip)
        assert seen.skeletons == drawn(clip)


def test_what_is_not_seen_is_zero_in_the_body_itself(node):
    """Not only unread by our reader: of which clip it is differs in nothing but its number."""
    agreed = agree(node, recipient(0, (EVERYTHING,)), recipient(0, (0,)))
    camera, bodies = node.camera(b"gate", agreed), [[], []]
    quiet = [clip for clip in CLIPS if scores(clip)[1] < THRESHOLD]
    for clip in (LOW, quiet[0], quiet[1]):
        for at, seen in enumerate(say(node, camera, agreed, clip)):
            bodies[at].append(replace(seen, header=None, number=0))
    bodies[1].append(replace(say(node, camera, agreed, HIGH)[1], header=None, number=0))
    for same in bodies:
        assert all(body == same[0] for body in same)  # the reader refuses what is not 0 behind it


def test_a_failed_clip_has_none(fresh_node):
    node = fresh_node
    node.load(MODEL, Placement.MASKED)
    agreed = agree(node, *four_recipients())
    camera = node.camera(b"gate", agreed)
    clip = node.seal(camera, HIGH)
    assert [spoil(node.attempt(camera, clip)) for _ in range(2)] == [None, None]
    assert spoil(node.attempt(camera, clip)) is not None
    seen = [node.open(record, agreement=agreed) for _, record in node.kept()]
    assert [(one.kind, one.skeletons) for one in seen] == [(RecordKind.FAILED, None)] * 4
    confirm_all(node)
    assert say(node, camera, agreed, HIGH)[3].skeletons == drawn(HIGH)


def test_a_clip_that_was_refused_once_has_them_when_it_comes_again(fresh_node):
    node = fresh_node
    node.load(MODEL, Placement.MASKED)
    agreed = agree(node, recipient(0, (DRAWN,)))
    camera = node.camera(b"gate", agreed)
    clip = node.seal(camera, HIGH)
    assert spoil(node.attempt(camera, clip)) is None
    record = node.attempt(camera, clip).finish()
    assert node.open(record, agreement=agreed).skeletons == drawn(HIGH)


def test_an_exercise_has_none_whatever_clip_is_under_way(node):
    agreed = agree(node, recipient(0, (EVERYTHING,)))
    camera = node.camera(b"gate", agreed)
    attempt = node.attempt(camera, node.seal(camera, HIGH))
    (record,) = node.client.exercise(agreed.index, 0).records
    seen = node.open(record, agreement=agreed)
    assert (seen.status, seen.skeletons) == (wire.MessageStatus.EXERCISE, None) and len(record) == RECORD
    assert node.open(attempt.finish(), agreement=agreed).skeletons == drawn(HIGH)


def test_another_agreements_recipients_never_get_them(node):
    """A clip under an agreement without skeletons, with one that has them in force beside it."""
    shown, plain = agree(node, recipient(0, (DRAWN,))), node.agree(
        number=3, body=512, rules=(RULE,), recipients=(recipient(0, (SEES_ALL,)),))
    camera, other = node.camera(b"gate", shown), node.camera(b"yard", plain)
    assert say(node, camera, shown, HIGH)[0].skeletons == drawn(HIGH)
    attempt = node.attempt(other, node.seal(other, HIGH))
    seen = node.open(attempt.finish(), agreement=plain)
    assert seen.alerts[0].message == ALERT and seen.skeletons is None
    assert len(attempt.progress.record) == RECORD - wire.EDGED_BODY_SKELETONS + 512


# What tells nothing.


def test_all_records_of_the_agreement_have_one_size_and_a_clips_one_kind(node):
    agreed = agree(node, *four_recipients())
    camera, shapes = node.camera(b"gate", agreed), set()
    for clip in (LOW, HIGH, HIGH, LOW, HIGH[:0]):
        attempt = node.attempt(camera, node.seal(camera, clip))
        attempt.finish()
        shapes |= {(split_record(record)[0].kind, len(record)) for record in attempt.progress.records}
        confirm_all(node)
    assert shapes == {(RecordKind.OBSERVATION, RECORD)}
    assert {len(record) for record in node.client.claim(agreed.index, RecordKind.HEALTH, b"ok").records} == {RECORD}
    assert len(node.client.beacon(node.beacon(1, agreement=agreed), bytes(32)).records[0]) == RECORD


# What fits.


def test_a_model_whose_largest_clip_does_not_fit_the_body_is_not_covered(fresh_node):
    """Of two persons of 18 joints 340 frames fit beside one rule, and not 341."""
    node = fresh_node
    for frames, status in ((340, None), (341, Status.AGREEMENT)):
        model = integer_model(3, ((8, 1),), frames, 18)
        node.load(model, Placement.ENCLAVE)
        agreed = agree(node, recipient(0, (DRAWN,)), rules=(Rule(model.labels[0], 1, 0),), number=frames)
        camera = node.camera(b"gate", agreed)
        clip = random_coordinates(np.random.default_rng(1), model.shape, 2)
        if status is None:
            assert say(node, camera, agreed, clip)[0].skeletons == drawn(clip)
            continue
        with refused(status):
            node.attempt(camera, node.seal(camera, clip[:0]))
        # Who sees no skeletons needs no room for them.
        other = node.agree(number=1000, body=512, rules=(RULE._replace(label=model.labels[0]),),
                           recipients=(recipient(0, (SEES_ALL,)),))
        camera = node.camera(b"yard", other)
        assert node.attempt(camera, node.seal(camera, clip)).finish() is not None


# Kept until they are confirmed.


def pieces(node, emission, *offsets):
    """[(status, that record's emission, bytes)]"""
    found = []
    for offset in offsets:
        status, answer = node.call(EvalCommand.RECORD, wire.RecordAsk(emission, offset).pack())
        step = wire.Step.unpack(answer[:wire.Step.size()]) if answer else None
        assert step is None or (step.record_bytes == len(answer) - wire.Step.size() and step.records == 0)
        found.append((status, step and step.emission, answer[wire.Step.size():]))
    return found


def test_a_record_comes_in_pieces_from_any_offset_and_from_nowhere_else(node):
    agreed = agree(node, recipient(0, (EVERYTHING,)), short_recipient(0, (0,)))
    camera = node.camera(b"gate", agreed)
    attempt = node.attempt(camera, node.seal(camera, HIGH))
    attempt.finish()
    (first, record), (second, other) = node.kept()
    assert attempt.progress.records == (record, other) and attempt.progress.emission == second
    assert pieces(node, first, 0, 1, PIECE, RECORD - PIECE, RECORD - 1) == [
        (Status.OK, first, record[at:at + PIECE]) for at in (0, 1, PIECE, RECORD - PIECE, RECORD - 1)]
    assert pieces(node, second, 7) == [(Status.OK, second, other[7:7 + PIECE])]
    nowhere = [(Status.OBJECT, None, b"")] * 4
    assert pieces(node, first, RECORD, RECORD + 1, 1 << 31, (1 << 32) - 1) == nowhere
    for emission in (0, first - 1, second + 1, (1 << 64) - 1):  # of none that is kept, which an offset has to name
        assert pieces(node, emission, 1, PIECE, RECORD - 1, RECORD) == nowhere
    assert pieces(node, first - 1, 0) == [(Status.OK, first, record[:PIECE])]
    node.client.confirm(first)
    assert pieces(node, first, 1) == nowhere[:1]
    assert pieces(node, second, 1) == [(Status.OK, second, other[1:1 + PIECE])]


def test_four_recipients_records_are_kept_byte_for_byte_over_connections(node):
    agreed = agree(node, *four_recipients())
    camera = node.camera(b"gate", agreed)
    attempt = node.attempt(camera, node.seal(camera, HIGH))
    attempt.finish()
    kept = node.kept()
    assert tuple(record for _, record in kept) == attempt.progress.records
    node.reconnect()
    assert node.kept() == kept
    node.load(MODEL, Placement.ENCLAVE)
    beat = node.client.beacon(node.beacon(1, agreement=agreed), bytes(32))
    assert node.kept() == kept + [(beat.emission, beat.records[0])]
    node.client.confirm(kept[1][0])  # what stays moves, and is the same
    assert node.kept() == kept[2:] + [(beat.emission, beat.records[0])]
    confirm_all(node)
    seen = say(node, camera, agreed, HIGH)
    assert seen[3].skeletons == drawn(HIGH)


def test_without_room_for_them_clips_are_refused_and_what_was_accepted_has_its_room(node):
    """Six are kept: those of a clip, and two beside."""
    agreed = agree(node, *four_recipients())
    camera, other = node.camera(b"gate", agreed), node.camera(b"yard", agreed)
    attempt = node.attempt(camera, node.seal(camera, HIGH))

    def beacon(time_ns):
        return node.client.beacon(node.beacon(time_ns, agreement=agreed), bytes(32))

    beats = [beacon(1), beacon(2)]
    refusals = (lambda: beacon(3), lambda: node.client.exercise(agreed.index, 0),
                lambda: node.client.claim(agreed.index, RecordKind.HEALTH, b""))
    for ask in refusals:
        with refused(Status.FULL):
            ask()
    attempt.finish()  # never fails at the verdict
    records = attempt.progress.records
    assert [record for _, record in node.kept()] == [beat.records[0] for beat in beats] + list(records)
    late = node.seal(other, HIGH)
    for ask in refusals + (lambda: node.attempt(other, late), lambda: node.agree(number=7)):
        with refused(Status.FULL):
            ask()
    node.client.confirm(beats[1].emission)
    with refused(Status.FULL):
        node.attempt(other, late)
    confirm_all(node)
    assert len(node.attempt(other, late).finish()) == RECORD


def test_a_small_agreement_beside_them_keeps_what_it_kept(fresh_node):
    node = fresh_node
    node.load(MODEL, Placement.ENCLAVE)
    agree(node, recipient(0, (DRAWN,)))
    small = node.agree(number=3, rules=(), recipients=(recipient(0),))
    confirm_all(node)
    for _ in range(wire.EVAL_KEPT_MAX):
        node.client.claim(small.index, RecordKind.HEALTH, bytes(300))
    with refused(Status.FULL):
        node.client.claim(small.index, RecordKind.HEALTH, b"")
    assert len(node.kept()) == wire.EVAL_KEPT_MAX
    assert {len(record) for _, record in node.kept()} == {
        RECORD - wire.EDGED_BODY_SKELETONS + wire.EDGED_BODY_MAX}
