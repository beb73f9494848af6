"""Whether a node is alive, told by fresh answers to beacons alone."""

import pytest

from edged.alerts.liveness import Back, Liveness, Silence, StaleHeartbeat

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
