"""Whether a node is alive, told by fresh answers to beacons alone."""

import pytest

from edged.alerts.liveness import Back, JudgesAgain, JudgesNothing, Liveness, Silence, StaleHeartbeat

PERIOD = 10.0


@pytest.fixture
def alive():
    """Asked at 0, answered."""
    made = Liveness("node", PERIOD, 0.0)
    made.sent(b"first", 0.0)
    assert made.heartbeat(b"first", 1.0) == [] and ticked(made, 1, 10) == []
    return made


def ticked(liveness, begin, end):
    """Events of a tick each second."""
    return [event for second in range(begin, end + 1) for event in liveness.tick(float(second))]


def test_beacons_are_due_once_a_period():
    made = Liveness("node", PERIOD, 0.0)
    assert made.beacon_due(0.0)
    made.sent(b"a", 0.0)
    assert not made.beacon_due(9.9) and made.beacon_due(10.0)


def test_a_node_that_came_anew_does_not_wait_for_its_beacon(alive):
    assert not alive.beacon_due(2.0)
    alive.hurry(2.0)
    assert alive.beacon_due(2.0)


def test_a_node_that_answers_every_beacon_is_never_silent(alive):
    for second in range(11, 100):
        assert alive.tick(float(second)) == []
        if alive.beacon_due(float(second)):
            alive.sent(b"%d" % second, float(second))
            assert alive.heartbeat(b"%d" % second, second + 0.5) == []


def test_no_answer_to_a_beacon_within_two_periods_is_silence_reported_once(alive):
    alive.sent(b"second", 10.0)
    alive.sent(b"third", 20.0)
    assert ticked(alive, 11, 30) == []
    assert ticked(alive, 31, 60) == [Silence("node", 31.0)]


def test_a_node_that_never_came_is_silent_after_two_periods():
    made = Liveness("node", PERIOD, 0.0)
    assert ticked(made, 1, 20) == [] and ticked(made, 21, 50) == [Silence("node", 21.0)]


def test_a_board_that_replaces_one_that_answered_is_waited_for(alive):
    alive.sent(b"second", 10.0)
    assert alive.heartbeat(b"second", 11.0) == [] and ticked(alive, 11, 60) == [], "nothing is due"
    alive.sent(b"third", 60.0)
    alive.replaced(61.0)
    assert alive.heartbeat(b"third", 62.0) == [StaleHeartbeat("node", None)], "the former one's"
    assert ticked(alive, 62, 81) == [] and ticked(alive, 82, 110) == [Silence("node", 21.0)]


def test_an_answer_ends_the_silence(alive):
    alive.sent(b"second", 10.0)
    ticked(alive, 11, 31)
    alive.sent(b"third", 32.0)
    assert alive.heartbeat(b"third", 33.0) == [Back("node")]
    assert ticked(alive, 34, 60) == [], "nothing is due"


def test_an_answer_to_an_old_beacon_proves_nothing(alive):
    alive.sent(b"second", 10.0)
    ticked(alive, 11, 31)
    assert alive.heartbeat(b"second", 32.0) == [StaleHeartbeat("node", 22.0)] and alive.silent


def test_an_answer_to_no_beacon_of_ours_proves_nothing(alive):
    assert alive.heartbeat(b"harvested", 2.0) == [StaleHeartbeat("node", None)]


def test_an_answer_to_one_beacon_leaves_the_later_ones_due(alive):
    alive.sent(b"second", 10.0)
    alive.sent(b"third", 20.0)
    assert alive.heartbeat(b"second", 21.0) == []
    assert ticked(alive, 11, 40) == [] and ticked(alive, 41, 41) == [Silence("node", 31.0)]


def test_time_that_we_did_not_run_is_not_the_nodes_silence(alive):
    alive.sent(b"second", 10.0)
    assert ticked(alive, 11, 12) == []
    assert alive.tick(500.0) == [], "stopped for hours: its answer may lie in the socket"
    assert alive.heartbeat(b"second", 500.1) == [StaleHeartbeat("node", 490.1)]
    assert ticked(alive, 501, 505) == [] and len(ticked(alive, 506, 530)) == 1


def test_nonces_of_beacons_are_forgotten_in_the_end(alive):
    for number in range(1000):
        alive.sent(b"%d" % number, 10.0)
    assert alive.heartbeat(b"0", 11.0) == [StaleHeartbeat("node", None)] and alive.heartbeat(b"999", 11.0) == []


def answered(liveness, begin, end, *in_force):
    """Events of a node that answers each period, under agreements of which these are in force or not."""
    events = []
    for at in range(begin, end, int(PERIOD)):
        for number, holds in enumerate(in_force):
            nonce = b"%d/%d" % (at, number)
            liveness.sent(nonce, float(at))
            events += liveness.heartbeat(nonce, at + 1.0, holds)
        events += ticked(liveness, at + 2, at + 9)
    return events


def test_a_node_that_answers_under_agreements_alone_that_ended_judges_nothing_and_is_not_silent(alive):
    assert answered(alive, 10, 100, False) == [JudgesNothing("node", 21.0)] and alive.idle and not alive.silent
    assert answered(alive, 100, 130, False) == [], "told once"
    assert answered(alive, 130, 160, True) == [JudgesAgain("node")] and not alive.idle


def test_a_node_that_is_under_a_former_agreement_yet_judges(alive):
    assert answered(alive, 10, 200, False, True) == [] and answered(alive, 200, 400, True, False) == []


def test_a_node_that_judges_nothing_and_goes_silent_is_both(alive):
    answered(alive, 10, 50, False)
    alive.sent(b"last", 50.0)
    assert [type(event) for event in ticked(alive, 51, 80)] == [Silence]
    alive.sent(b"again", 81.0)
    assert alive.heartbeat(b"again", 82.0, False) == [Back("node")] and alive.idle


def test_time_that_we_did_not_run_is_no_time_in_which_nothing_was_judged(alive):
    assert answered(alive, 10, 20, True, False) == []
    alive.tick(5000.0)
    alive.sent(b"after", 5000.0)
    assert alive.heartbeat(b"after", 5001.0, False) == []


def under(liveness, begin, end, *answered, of=(1, 2)):
    """Events of a node that is asked under all of these agreements each period, and answers under some of them."""
    events = []
    for at in range(begin, end, int(PERIOD)):
        liveness.expect(of, float(at))
        for number in of:
            liveness.sent(b"%d/%d" % (at, number), float(at), number)
        for number in answered:
            events += liveness.heartbeat(b"%d/%d" % (at, number), at + 1.0)
        events += ticked(liveness, at + 2, at + 9)
    return events


def test_a_node_that_answers_under_one_of_two_agreements_is_silent_under_the_other_told_once(alive):
    assert under(alive, 10, 50, 1, 2) == [] and under(alive, 50, 80, 2) == [Silence("node", 32.0, 1)]
    assert under(alive, 80, 200, 2) == [] and not alive.silent
    assert under(alive, 200, 220, 2, 1) == [Back("node", 1)]


def test_a_line_that_broke_for_a_moment_is_no_silence_under_the_agreement_that_is_heard_second(alive):
    under(alive, 10, 20, 1, 2)
    assert under(alive, 20, 30) == []
    for nonce, number in ((b"a", 1), (b"b", 2)):
        alive.sent(nonce, 39.0, number)
    assert alive.heartbeat(b"a", 41.0) == [] and ticked(alive, 41, 58) == [] and alive.heartbeat(b"b", 58.0) == []
    assert under(alive, 60, 70) == []


def test_what_ended_is_not_waited_for_and_what_follows_is_from_then_on(alive):
    under(alive, 10, 30, 1, 2)
    under(alive, 30, 40, 2)
    assert under(alive, 40, 100, 2, of=(2,)) == [] and under(alive, 100, 120, 2, of=(2, 3)) == []
    assert under(alive, 120, 140, 2, of=(2, 3)) == [Silence("node", 32.0, 3)]


def test_time_that_we_did_not_run_is_no_silence_under_an_agreement(alive):
    under(alive, 10, 30, 1, 2)
    under(alive, 30, 40, 2)
    alive.tick(5000.0)
    assert alive.tick(5001.0) == []


def test_a_stale_answer_under_an_agreement_that_ended_says_nothing(alive):
    alive.sent(b"second", 10.0)
    assert alive.heartbeat(b"second", 100.0, False) == [StaleHeartbeat("node", 90.0)] and not alive.idle
