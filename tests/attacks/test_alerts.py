"""What a clip says, and to whom: thresholds, cool-downs, schedules and sight are the agreement's, decided inside.

Each test has clips for which its rule holds (``HIGH``) and such for which it does not (``LOW``), by the reference.
"""

import time
from dataclasses import replace

import numpy as np
import pytest

from attacks.node import SEES_ALL, recipient, refused, started_with
from edged.alerts.record import Alert, split_record
from edged.enclave import wire
from edged.enclave.wire import MessageStatus, MessageType, RecordKind, Status
from edged.model import quantise, reference, stgcn
from edged.trust.agreement import Rule

NETWORK = stgcn.random_network(5, channels=((8, 1), (8, 2)), frames=9, joints=5, labels=3, taps=3)
CLIPS = [stgcn.random_clip(np.random.default_rng(seed), NETWORK, 2) for seed in range(40)]
MODEL = quantise.quantise(NETWORK, CLIPS[:4])  # its probabilities vary from clip to clip
LABELS = MODEL.labels
NS, DAY_S = 10 ** 9, 86400
NONE, ALERT, UPDATE, CANCEL = MessageType
SILENT = wire.EDGED_SEES_LABEL  # the label, and no score


def scores(clip):
    return [int(value) for value in reference.run(MODEL, clip)[1]]


LOW, HIGH = (pick(CLIPS, key=lambda clip: scores(clip)[1]) for pick in (min, max))
LOW_SCORES, HIGH_SCORES = scores(LOW), scores(HIGH)
THRESHOLD = HIGH_SCORES[1]  # of label 1: it is reached exactly
assert LOW_SCORES[1] < THRESHOLD - 4096
node = started_with(MODEL)


def agree(node, cool_down_s=0, sees=SEES_ALL, rules=None, **changes):
    """An agreement of one rule of label 1 and one recipient, unless told otherwise."""
    rules = rules or (Rule(LABELS[1], THRESHOLD, cool_down_s),)
    return node.agree(**dict(dict(number=2, body=512, rules=rules, recipients=(
        recipient(rules=(sees,) * len(rules)),)), **changes))


def say(node, camera, agreed, clip):
    """(number, what each recipient reads) of one clip."""
    number, sealed = node.seal(camera, clip)
    attempt = node.attempt(camera, (number, sealed))
    attempt.finish()
    return number, [node.open(record, agreement=agreed) for record in attempt.progress.records]


def message(node, camera, agreed, clip):
    """(number, what the first rule says, which clip began that event) to the first recipient."""
    number, seen = say(node, camera, agreed, clip)
    return number, seen[0].alerts[0].message, seen[0].alerts[0].event


# When.


def test_a_rule_holds_from_its_threshold_on(node):
    for number, (threshold, kind) in enumerate([(THRESHOLD - 1, RecordKind.ALERT), (THRESHOLD, RecordKind.ALERT),
                                                (THRESHOLD + 1, RecordKind.OBSERVATION)], 2):
        agreed = agree(node, number=number, rules=(Rule(LABELS[1], threshold, 0),))
        _, (seen,) = say(node, node.camera(b"gate", agreed), agreed, HIGH)
        assert seen.kind == kind


def test_the_rules_label_decides_and_not_its_place(node):
    rules = (Rule(LABELS[2], HIGH_SCORES[2], 0), Rule(LABELS[0], 65536, 0), Rule(LABELS[1], THRESHOLD, 0))
    agreed = agree(node, rules=rules)
    number, (seen,) = say(node, node.camera(b"gate", agreed), agreed, HIGH)
    assert seen.alerts == (Alert(ALERT, HIGH_SCORES[2], number, 0), Alert(NONE, 0, 0, 1),
                           Alert(ALERT, THRESHOLD, number, 2))


def test_an_event_is_one_alert_then_updates_then_a_cancel(node):
    agreed = agree(node, cool_down_s=0)
    camera = node.camera(b"gate", agreed)
    assert message(node, camera, agreed, LOW)[1:] == (NONE, 0)
    first, said, event = message(node, camera, agreed, HIGH)
    assert (said, event) == (ALERT, first)
    for _ in range(3):
        assert message(node, camera, agreed, HIGH)[1:] == (UPDATE, first)
    assert message(node, camera, agreed, LOW)[1:] == (CANCEL, first)
    assert message(node, camera, agreed, LOW)[1:] == (NONE, 0)
    second, said, event = message(node, camera, agreed, HIGH)
    assert (said, event) == (ALERT, second)


def test_within_its_cool_down_a_rule_that_holds_again_is_the_same_event(node):
    agreed = agree(node, cool_down_s=DAY_S)
    camera = node.camera(b"gate", agreed)
    first = message(node, camera, agreed, HIGH)[0]
    for _ in range(3):
        assert message(node, camera, agreed, LOW)[1:] == (NONE, 0)
        assert message(node, camera, agreed, HIGH)[1:] == (UPDATE, first)


def test_after_its_cool_down_an_event_is_over_and_the_next_is_an_alert_again(node):
    agreed = agree(node, cool_down_s=1)
    camera = node.camera(b"gate", agreed)
    first = message(node, camera, agreed, HIGH)[0]
    time.sleep(1.1)
    assert message(node, camera, agreed, LOW)[1:] == (CANCEL, first)
    second, said, event = message(node, camera, agreed, HIGH)
    assert (said, event) == (ALERT, second)
    message(node, camera, agreed, LOW)
    time.sleep(1.1)  # in which no clip comes
    third, said, event = message(node, camera, agreed, HIGH)
    assert (said, event) == (ALERT, third)


def test_events_are_of_one_rule_and_one_camera(node):
    rules = (Rule(LABELS[1], THRESHOLD, DAY_S), Rule(LABELS[0], 1, DAY_S))  # the second holds for every clip
    agreed = agree(node, rules=rules)
    one, two = node.camera(b"one", agreed), node.camera(b"two", agreed)
    first, (seen,) = say(node, one, agreed, LOW)
    assert [entry.message for entry in seen.alerts] == [NONE, ALERT]
    second, (seen,) = say(node, one, agreed, HIGH)
    assert [(entry.message, entry.event) for entry in seen.alerts] == [(ALERT, second), (UPDATE, first)]
    third, (seen,) = say(node, two, agreed, HIGH)
    assert [(entry.message, entry.event) for entry in seen.alerts] == [(ALERT, third), (ALERT, third)]


def test_a_new_session_or_a_failed_clip_neither_ends_an_event_nor_repeats_its_alert(node):
    agreed = agree(node, cool_down_s=DAY_S)
    first = message(node, node.camera(b"gate", agreed), agreed, HIGH)[0]
    camera = node.camera(b"gate", agreed)
    assert message(node, camera, agreed, HIGH)[1:] == (UPDATE, first)
    node.attempt(camera, node.seal(camera, HIGH))
    failed = node.open(node.abort(camera)[1], agreement=agreed)
    assert (failed.kind, failed.alerts) == (RecordKind.FAILED, (Alert(NONE, 0, 0, 0),))
    assert message(node, camera, agreed, HIGH)[1:] == (UPDATE, first)


def test_a_schedule_holds_from_its_first_minute_up_to_its_end_and_always_while_no_time_is_known(node):
    """By the city's clock, in UTC: 100 to 200 and, over midnight, 1000 to 50."""
    rules = (Rule(LABELS[1], THRESHOLD, 0, 100, 200), Rule(LABELS[2], 1, 0, 1000, 50), Rule(LABELS[0], 1, 0, 7, 7))
    agreed = agree(node, rules=rules)
    camera = node.camera(b"gate", agreed)

    def holding():
        say(node, camera, agreed, LOW)
        _, (seen,) = say(node, camera, agreed, HIGH)
        return [entry.message in (ALERT, UPDATE) for entry in seen.alerts]

    assert holding() == [True, True, True]
    midnight_s = 20000 * DAY_S
    for minute, expected in ((49, [False, True, True]), (51, [False, False, True]), (101, [True, False, True]),
                             (198, [True, False, True]), (200, [False, False, True]), (1000, [False, True, True]),
                             (1440, [False, True, True])):
        node.client.beacon(node.beacon((midnight_s + 60 * minute) * NS, agreement=agreed), bytes(32))
        assert holding() == expected, minute


# To whom.


def of_all_sights(rules=1):
    """Four recipients: nothing, the labels, labels and scores, everything."""
    return (recipient(0, (0,) * rules), recipient(0, (SILENT,) * rules), recipient(0, (SEES_ALL,) * rules),
            recipient(wire.EDGED_SEES_SCORES, (SEES_ALL,) * rules))


def test_a_recipient_sees_what_the_agreement_says_and_no_more(node):
    agreed = agree(node, recipients=of_all_sights(), score_bits=4)
    number, (nothing, label, score, everything) = say(node, node.camera(b"gate", agreed), agreed, HIGH)
    rounded = (THRESHOLD + 2048) >> 12 << 12
    assert [seen.kind for seen in (nothing, label, score, everything)] == [RecordKind.OBSERVATION] + [
        RecordKind.ALERT] * 3
    assert nothing.alerts == (Alert(NONE, 0, 0, 0),)
    assert label.alerts == (Alert(ALERT, 0, number, 0),)
    assert score.alerts == everything.alerts == (Alert(ALERT, rounded, number, 0),)
    assert (nothing.persons, nothing.tracks) == (0, ())
    assert {(seen.persons, seen.tracks) for seen in (label, score, everything)} == {(2, (1, 2))}  # of whom it is said
    assert {(seen.logits, seen.probabilities) for seen in (nothing, label, score)} == {((), ())}
    assert everything.probabilities == tuple(HIGH_SCORES)


def test_without_an_alert_only_who_sees_all_scores_learns_how_many_people_there_were(node):
    agreed = agree(node, recipients=of_all_sights())
    _, seen = say(node, node.camera(b"gate", agreed), agreed, LOW)
    assert {one.kind for one in seen} == {RecordKind.OBSERVATION}
    assert [(one.persons, one.tracks) for one in seen] == [(0, ())] * 3 + [(2, (1, 2))]
    assert {one.alerts for one in seen} == {(Alert(NONE, 0, 0, 0),)}
    assert seen[3].probabilities == tuple(LOW_SCORES)


def test_a_recipient_learns_of_the_rules_that_are_for_him(node):
    rules = (Rule(LABELS[1], THRESHOLD, DAY_S), Rule(LABELS[0], 1, DAY_S))  # the second holds for every clip
    agreed = agree(node, rules=rules, recipients=(recipient(0, (SEES_ALL, 0)), recipient(0, (0, SILENT))))
    camera = node.camera(b"gate", agreed)
    first, (one, other) = say(node, camera, agreed, LOW)
    assert (one.kind, one.alerts) == (RecordKind.OBSERVATION, (Alert(NONE, 0, 0, 0), Alert(NONE, 0, 0, 1)))
    assert (other.kind, other.alerts) == (RecordKind.ALERT, (Alert(NONE, 0, 0, 0), Alert(ALERT, 0, first, 1)))
    second, (one, other) = say(node, camera, agreed, HIGH)
    assert one.alerts == (Alert(ALERT, THRESHOLD, second, 0), Alert(NONE, 0, 0, 1))
    assert other.alerts == (Alert(NONE, 0, 0, 0), Alert(UPDATE, 0, first, 1))


@pytest.mark.parametrize("bits", [0, 1, 3, 8, 15, 16])
def test_a_score_is_rounded_to_the_agreed_bits(node, bits):
    rules = tuple(Rule(label, 1, 0) for label in LABELS)
    agreed = agree(node, rules=rules, score_bits=bits)
    _, (seen,) = say(node, node.camera(b"gate", agreed), agreed, HIGH)
    step = 1 << (16 - bits)
    assert [entry.score for entry in seen.alerts] == [(score + step // 2) // step * step for score in HIGH_SCORES]


def test_the_clear_header_and_the_size_never_tell_an_alert_from_an_observation(node):
    """Nor an alert from its update or cancel, nor what one recipient may see from what another may."""
    agreed = agree(node, recipients=of_all_sights())
    camera = node.camera(b"gate", agreed)
    shapes = set()
    for clip in (LOW, HIGH, HIGH, LOW):
        attempt = node.attempt(camera, node.seal(camera, clip))
        attempt.finish()
        for record in attempt.progress.records:
            shapes.add((split_record(record)[0].kind, len(record)))
    assert shapes == {(RecordKind.OBSERVATION, wire.RecordHead.size() + 192 + 512 + wire.EVAL_TAG_BYTES)}


def test_all_that_a_recipient_does_not_see_is_zero_in_the_body_itself(node):
    """Not only unread by our reader: the plaintext of the alert and of no alert at all differ in nothing."""
    agreed = agree(node, recipients=(recipient(0, (0,)),))
    bodies = []
    for clip in (HIGH, LOW):
        _, (seen,) = say(node, node.camera(b"gate", agreed), agreed, clip)
        bodies.append(replace(seen, header=None, number=0))
    assert bodies[0] == bodies[1]


# What else stands in them.


@pytest.mark.parametrize("status", [MessageStatus.ACTUAL, MessageStatus.TEST], ids=lambda status: status.name)
def test_the_status_of_messages_is_the_agreements(node, status):
    agreed = agree(node, status=status)
    camera = node.camera(b"gate", agreed)
    for clip in (LOW, HIGH):
        assert say(node, camera, agreed, clip)[1][0].status == status


def test_the_time_in_a_record_is_the_citys_as_beacons_told_it_and_goes_on_between_them(node):
    agreed = agree(node)
    camera = node.camera(b"gate", agreed)
    assert say(node, camera, agreed, LOW)[1][0].time_ns == 0
    told_ns = 1700000000 * NS
    node.client.beacon(node.beacon(told_ns, agreement=agreed), bytes(32))
    times = [say(node, camera, agreed, LOW)[1][0].time_ns for _ in range(3)]
    assert told_ns < times[0] < times[1] < times[2] < told_ns + DAY_S * NS


def test_an_exercise_is_an_alert_of_that_status_and_begins_no_event(node):
    agreed = agree(node, cool_down_s=DAY_S, recipients=of_all_sights(2),
                   rules=(Rule(LABELS[1], THRESHOLD, DAY_S), Rule(LABELS[2], 65536, 0)))
    emitted = node.client.exercise(agreed.index, 0)
    nothing, label, score, everything = [node.open(record, agreement=agreed) for record in emitted.records]
    for seen in (nothing, label, score, everything):
        assert (seen.status, seen.header.kind) == (MessageStatus.EXERCISE, RecordKind.OBSERVATION)
        assert (seen.persons, seen.logits, seen.camera) == (0, (), bytes(32))
    assert (nothing.kind, label.kind) == (RecordKind.OBSERVATION, RecordKind.ALERT)
    assert nothing.alerts == (Alert(NONE, 0, 0, 0), Alert(NONE, 0, 0, 1))
    assert label.alerts == (Alert(ALERT, 0, 0, 0), Alert(NONE, 0, 0, 1))
    assert score.alerts == everything.alerts == (Alert(ALERT, 65536, 0, 0), Alert(NONE, 0, 0, 1))
    number, seen = say(node, node.camera(b"gate", agreed), agreed, HIGH)
    assert seen[2].alerts[0] == Alert(ALERT, THRESHOLD, number, 0) and seen[2].status == MessageStatus.ACTUAL


def test_an_exercise_of_no_rule_or_agreement_is_refused(node):
    agreed = agree(node)
    before = node.client.info()
    for index, rule in ((agreed.index, 1), (agreed.index, 8), (agreed.index, 0xFFFFFFFF), (node.agreed.index, 0),
                        (3, 0), (4, 0), (0xFFFFFFFF, 0)):
        with refused(Status.ARGUMENT):
            node.client.exercise(index, rule)
    assert node.client.info() == before
