"""The camera's link with the bridge: sealed, in order, again after every loss, and never twice as new."""

import logging
import random
import time
from collections import deque

import cbor2
import numpy as np
import pytest
from fake_bridge import (AGREEMENT, CAMERA, KEY, PATIENCE_S, Clock, FakeBridge, Keys, Line, busy, done, failed, logged,
                         never, silence)

from edged.beside import Paired
from edged.bus import Dealer, Router
from edged.camera import link as link_module
from edged.camera.clip import Clip
from edged.camera.link import (AGAIN_MAX_S, AGAIN_S, LOST_S, OUTSTANDING_MAX, WAIT_MAX_S, WAITING_MAX, WAITING_MOST,
                               BridgeLink)
from edged.errors import MissingInput, VerificationFailed
from edged.offload import messages


@pytest.fixture
def bridge():
    return FakeBridge()


@pytest.fixture
def line(bridge):
    return Line(bridge)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def link(line, clock):
    return BridgeLink(line, CAMERA, Keys(), clock=clock)


def clip(number, tracks=(1,)):
    return Clip(np.full((len(tracks), 300, 18, 3), number, np.int16), tuple(tracks), number, CAMERA)


def pass_time(link, clock, seconds, step_s=0.25):
    for _ in range(int(seconds / step_s)):
        clock.now_s += step_s
        link.serve(0)


def numbers(bridge):
    return [(session, number, head.claimed_ns) for session, number, head in bridge.opened]


def test_clips_are_sealed_for_the_session_under_rising_numbers(link, bridge):
    link.serve(0)
    for number in (11, 12, 13):
        link.offer(clip(number, (1, 2)))
        link.serve(0)
    assert numbers(bridge) == [(1, 1, 11), (1, 2, 12), (1, 3, 13)]
    assert bridge.opened[0][2].tracks[:2] == (1, 2) and bridge.opened[0][2].persons == 2
    assert link.counts.done == 3 and not link.busy


def test_a_bridge_that_is_not_there_yet_is_asked_again_with_the_same_nonce(link, line, bridge, clock):
    line.cut = True
    link.offer(clip(1))
    pass_time(link, clock, 30)
    assert link.session is None
    line.cut, bridge.grants = False, False
    pass_time(link, clock, 10)
    assert 4 <= len(bridge.nonces) <= 5 and len(set(bridge.nonces)) == 1
    bridge.grants = True
    pass_time(link, clock, WAIT_MAX_S)
    assert bridge.finished == [1]


def test_told_to_wait_it_says_hello_ever_more_rarely_whatever_else_the_bridge_says(link, line, bridge, clock):
    """A city's agreement may be away for days: each hello is a line in logs, and files that are read and verified."""
    bridge.grants = False
    asked = []
    for kind, fields in (("here", {}), ("follow", {"agreement": AGREEMENT}), ("reopen", {"reason": "-"})) * 2:
        before = len(bridge.nonces)
        pass_time(link, clock, 60)
        asked.append(len(bridge.nonces) - before)
        line.answers.append(messages.pack(kind, fields))
        link.serve(0)
    assert 8 <= asked[0] <= 10 and all(5 <= count <= 7 for count in asked[1:])
    bridge.grants = True
    pass_time(link, clock, WAIT_MAX_S)
    assert link.session is not None
    bridge.grants = False
    line.answers.append(messages.pack("reopen", {"reason": "-"}))
    before = len(bridge.nonces)
    pass_time(link, clock, 4)
    assert len(bridge.nonces) - before == 3, "after a session it begins anew"


def test_told_to_wait_it_says_hello_at_once_where_the_bridge_asks_for_it(link, line, bridge, clock):
    bridge.grants = False
    pass_time(link, clock, 60)
    before, bridge.grants = len(bridge.nonces), True
    line.answers.extend([messages.pack("reopen", {"reason": "-"})] * 2)
    link.serve(0)
    link.serve(0)
    assert link.session is not None and bridge.sessions in (1, 2)
    assert before < len(bridge.nonces) <= before + 2


def test_a_hello_without_an_answer_is_said_again_and_any_answer_gives_the_key(link, line, bridge, clock):
    line.deaf = True
    link.offer(clip(5))
    pass_time(link, clock, link_module.HELLO_S + 1)
    assert len(bridge.nonces) == 2 and bridge.nonces[0] == bridge.nonces[1]
    # Both answers come at last: the second session is the newest, and the only one that counts.
    line.deaf = False
    for session in (1, 2):
        granted = dict(VALID["session"], session=session, nonce=bytes([session] * 32))
        line.answers.append(messages.pack("session", granted))
    link.serve(0)
    assert bridge.finished == [5] and link.session.number == 2 and len(bridge.nonces) == 2


def test_a_session_that_was_not_asked_for_makes_the_last_one_void(link, line, bridge, clock):
    bridge.answer = silence
    link.serve(0)
    link.offer(clip(5))
    link.serve(0)
    bridge.answer = done
    line.answers.extend(bridge.handle(messages.pack("hello", {"camera": CAMERA, "nonce": bridge.nonces[0],
                                                              "agreement": AGREEMENT})))
    link.serve(0)
    assert numbers(bridge) == [(1, 1, 5), (2, 2, 5)] and bridge.finished == [5]


def test_while_a_bridge_is_at_work_hello_is_said_ever_more_rarely(link, line, bridge, clock):
    line.deaf = True
    pass_time(link, clock, 300, 0.5)
    assert 5 <= len(bridge.nonces) <= 10


def test_at_most_two_clips_are_outstanding(link, bridge):
    bridge.answer = silence
    for number in range(6):
        link.offer(clip(number))
    link.serve(0)
    assert [number for _, number, _ in bridge.opened] == [1, 2]
    assert OUTSTANDING_MAX == 2 and not link.room and link.busy


def test_an_unanswered_clip_is_sent_again_the_very_same_bytes(link, bridge, clock):
    bridge.answer = silence
    link.serve(0)
    link.offer(clip(7))
    link.serve(0)
    pass_time(link, clock, AGAIN_S + 1)
    assert numbers(bridge) == [(1, 1, 7)] * 2  # FakeBridge compares the bytes
    bridge.answer = done
    pass_time(link, clock, 2 * AGAIN_S + 1)
    assert bridge.finished == [7] and link.counts.sent == 1 and not link.busy


def test_repetitions_become_rarer(link, line, bridge, clock):
    bridge.answer = silence
    link.serve(0)
    link.offer(clip(7))
    times = []
    while clock.now_s < 1000 + LOST_S - 1:
        before = len(bridge.opened)
        pass_time(link, clock, 0.25)
        times += [clock.now_s] * (len(bridge.opened) - before)
    waits = np.diff(times)
    assert waits[0] == AGAIN_S and waits[1] > AGAIN_S and (np.diff(waits) >= 0).all() and waits[-1] == AGAIN_MAX_S


def test_the_second_answer_to_one_clip_changes_nothing(link, line, bridge):
    link.serve(0)
    link.offer(clip(7))
    link.serve(0)
    line.answers.append(messages.pack("done", {"number": 1, "failed": False}))
    line.answers.append(messages.pack("refused", {"number": 1, "reason": "replay", "reopen": False, "retry": False}))
    link.serve(0)
    assert (link.counts.done, link.counts.refused) == (1, 0)


def test_a_restarted_bridge_gets_everything_unfinished_sealed_anew(link, line, bridge, clock, caplog):
    caplog.set_level(logging.INFO)
    link.serve(0)
    link.offer(clip(1))
    link.serve(0)
    bridge.answer = silence
    for number in (2, 3, 4):
        link.offer(clip(number))
    link.serve(0)
    line.cut = True
    pass_time(link, clock, 2)
    bridge.restart()
    line.cut, bridge.answer = False, done
    pass_time(link, clock, AGAIN_S + 1)
    assert bridge.finished == [1, 2, 3, 4] and not link.busy
    assert bridge.nonces[0] != bridge.nonces[1]
    assert numbers(bridge) == [(1, 1, 1), (1, 2, 2), (1, 3, 3), (2, 4, 2), (2, 5, 3), (2, 6, 4)]
    assert bridge.sealed[1, 2] != bridge.sealed[2, 4]
    assert [event["session"] for event in logged(caplog, "session_opened")] == [1, 2]
    assert logged(caplog, "session_opened")[1]["again"] == 2


def test_reopen_makes_a_fresh_session_under_a_fresh_nonce(link, line, bridge):
    bridge.answer = silence
    link.serve(0)
    link.offer(clip(1))
    link.offer(clip(2))
    link.serve(0)
    line.answers.append(messages.pack("reopen", {"reason": "the enclave started anew"}))
    bridge.answer = done
    link.serve(0)
    assert bridge.finished == [1, 2]
    assert len(set(bridge.nonces)) == 2


def test_asked_whether_it_is_there_it_says_so_with_a_session_or_without(link, line, bridge):
    bridge.grants = False
    for _ in range(2):
        line.answers.append(messages.pack("here", {}))
        link.serve(0)
        bridge.grants = True
    assert bridge.there == 2


def test_asked_whether_it_is_there_it_says_how_it_is_as_it_told_it_last(link, line, bridge, clock):
    """Whoever was told may have been killed before the city was; what is news goes by its own rate."""
    link.status("lost", "dark")
    pass_time(link, clock, link_module.STATUS_S + 1)
    bridge.statuses.clear()
    overload(link, bridge, OUTSTANDING_MAX + WAITING_MAX + 3)
    for _ in range(2):
        line.answers.append(messages.pack("here", {}))
        link.serve(0)
    assert bridge.statuses == [("lost", "dark", 0)] * 2 and bridge.there == 0
    line.answers.append(messages.pack("reopen", {"reason": "anew"}))
    bridge.grants = False
    link.serve(0)
    line.answers.append(messages.pack("here", {}))
    link.serve(0)
    assert len(bridge.statuses) == 2 and bridge.there == 1, "without a session it may have changed since"


def test_a_bridge_that_only_asks_so_is_not_one_that_answers(link, line, bridge, clock):
    bridge.answer = silence
    link.serve(0)
    link.offer(clip(1))
    for _ in range(int(LOST_S / 10) + 1):
        line.answers.append(messages.pack("here", {}))
        pass_time(link, clock, 10, 1.0)
    assert link.counts.sessions > 1


def test_reopen_said_twice_is_one_reopening(link, line, bridge):
    link.serve(0)
    line.answers.extend([messages.pack("reopen", {"reason": "anew"})] * 2)
    bridge.grants = False
    link.serve(0)
    assert len(bridge.nonces) == 2


def test_a_bridge_that_says_nothing_for_long_is_given_up_and_greeted_again(link, bridge, clock, caplog):
    caplog.set_level(logging.INFO)
    bridge.answer = silence
    link.serve(0)
    link.offer(clip(1))
    pass_time(link, clock, LOST_S - 1)
    assert bridge.sessions == 1
    bridge.answer = done
    bridge_before = len(bridge.opened)
    pass_time(link, clock, AGAIN_MAX_S + 2)
    assert bridge.sessions == 2 and bridge.finished == [1] and len(bridge.opened) == bridge_before + 1
    assert logged(caplog, "session_lost")[0]["reason"] == "the bridge says nothing"


def test_silence_while_nothing_was_asked_is_no_loss(link, bridge, clock):
    link.serve(0)
    pass_time(link, clock, 5 * LOST_S, 10.0)
    bridge.answer = silence
    link.offer(clip(1))
    pass_time(link, clock, AGAIN_S - 1)
    assert numbers(bridge) == [(1, 1, 1)] and bridge.sessions == 1


def test_a_clip_refused_for_the_moment_is_sent_again_the_very_same_bytes(link, bridge, clock, caplog):
    caplog.set_level(logging.INFO)
    bridge.answer = busy
    link.serve(0)
    link.offer(clip(1))
    link.offer(clip(2))
    pass_time(link, clock, 60)
    assert 8 <= len(bridge.opened) <= 24 and set(numbers(bridge)) == {(1, 1, 1), (1, 2, 2)}
    assert len(logged(caplog, "clip_waits")) == 1  # and not once for each try
    bridge.answer = done
    pass_time(link, clock, link_module.RETRY_MAX_S + 1)
    assert bridge.finished == [1, 2] and bridge.sessions == 1


def test_a_clip_refused_for_the_moment_does_not_follow_one_that_was_taken_after_it(link, line, bridge, clock):
    """The enclave takes rising numbers only: sent again as it was it would be a replay."""
    held_back = []

    def first_busy(_, offer):
        if offer.number == 1:
            return busy(_, offer)
        held_back.extend(done(_, offer))
        return []

    bridge.answer = first_busy
    link.serve(0)
    link.offer(clip(1))
    link.offer(clip(2))
    pass_time(link, clock, 2)
    assert numbers(bridge) == [(1, 1, 1), (1, 2, 2)]  # nothing more before it is known what became of the second
    bridge.answer = done
    line.answers.append(held_back[0])
    pass_time(link, clock, 2)
    assert numbers(bridge)[2:] == [(1, 3, 1)] and not link.busy


def test_a_clip_refused_for_good_is_given_up_and_logged(link, bridge, caplog):
    caplog.set_level(logging.INFO)
    bridge.answer = never
    link.serve(0)
    link.offer(clip(1))
    link.serve(0)
    assert not link.busy and link.counts.refused == 1
    refused, = logged(caplog, "clip_refused")
    assert (refused["number"], refused["reason"]) == (1, "seal")


def test_a_failed_clip_is_done_too(link, bridge):
    bridge.answer = failed
    link.serve(0)
    link.offer(clip(1))
    link.serve(0)
    assert (link.counts.done, link.counts.failed) == (1, 1) and not link.busy


@pytest.mark.parametrize("most, people", [(WAITING_MAX, lambda number: (1,)), (WAITING_MOST, lambda number: (number,))])
def test_where_too_many_wait_the_oldest_goes_and_each_drop_is_counted_and_logged(link, bridge, clock, caplog, most,
                                                                                 people):
    caplog.set_level(logging.INFO)
    bridge.answer = silence
    link.serve(0)
    for number in range(2 + most + 3):
        link.offer(clip(number, people(number)))
        link.serve(0)
    dropped = [event["captured_unix_ns"] for event in logged(caplog, "clip_skipped")]
    assert link.counts.skipped == 3 and len(set(dropped)) == 3
    bridge.answer = done
    pass_time(link, clock, AGAIN_S + 1)
    assert bridge.finished[:2] == [0, 1]  # outstanding ones are never dropped
    assert sorted(bridge.finished + dropped) == list(range(2 + most + 3))
    assert 2 + most + 2 not in dropped  # and the newest is never the one


def test_of_the_same_people_the_newer_clip_takes_the_turn_of_the_older(link, bridge, clock):
    bridge.answer = silence
    link.serve(0)
    for number in range(2 + WAITING_MAX):
        link.offer(clip(number, (number,)))
        link.serve(0)
    link.offer(clip(99, (4, 5)))
    bridge.answer = done
    pass_time(link, clock, AGAIN_S + 1)
    assert bridge.finished == [0, 1, 2, 3, 99, 5, 6, 7, 8, 9]


def test_on_a_node_that_is_too_slow_everybody_gets_a_turn(link, line, bridge):
    """Twelve pairs of people a hop, three clips done in it: nobody is always the one who is skipped."""
    bridge.answer = silence
    link.serve(0)
    served = []
    for hop in range(40):
        for pair in range(12):
            link.offer(clip(100 * hop + pair, (2 * pair, 2 * pair + 1)))
        for _ in range(3):
            link.serve(0)
            held = link._outstanding[0]
            served.append(held.clip.tracks)
            line.answers.append(messages.pack("done", {"number": held.number, "failed": False}))
            link.serve(0)
    assert min(served.count((2 * pair, 2 * pair + 1)) for pair in range(12)) >= 3


def test_clips_of_a_shape_that_the_enclave_no_longer_takes_are_dropped(link, line, bridge, caplog):
    caplog.set_level(logging.INFO)
    bridge.answer = silence
    link.serve(0)
    for number in range(4):
        link.offer(clip(number))
    link.serve(0)
    bridge.shape = (2, 150, 18)
    bridge.restart()
    line.answers.append(messages.pack("reopen", {"reason": "another model"}))
    link.serve(0)
    assert not link.busy and link.counts.skipped == 4
    assert "shape" in logged(caplog, "clip_skipped")[0]["reason"]


def test_the_state_of_the_camera_is_told_when_it_changes_and_after_each_session(link, line, bridge, clock):
    link.status("live")
    pass_time(link, clock, 20)
    link.status("lost", "no route to host")
    pass_time(link, clock, 20)
    link.status("lost", "another reason")
    pass_time(link, clock, 20)
    assert bridge.statuses == [("live", "", 0), ("lost", "no route to host", 0)]
    bridge.restart()
    line.answers.append(messages.pack("reopen", {"reason": "anew"}))
    pass_time(link, clock, 20)
    assert bridge.statuses[2:] == [("lost", "another reason", 0)]


def test_a_camera_that_flickers_does_not_flood_the_city(link, bridge, clock):
    for index in range(200):
        link.status("live" if index % 2 else "lost")
        pass_time(link, clock, 0.25)
    assert 2 <= len(bridge.statuses) <= 50 / link_module.STATUS_S + 1


def overload(link, bridge, clips, tracks=(1,)):
    """Offer so many to a bridge that is at work on what it has: it answers no clip, and hears everything."""
    bridge.answer = silence
    for number in range(clips):
        link.offer(clip(number, tracks))
        link.serve(0)


def test_how_many_clips_were_skipped_is_told_once_a_minute_at_most(link, bridge, clock):
    link.status("live")
    link.serve(0)
    assert bridge.statuses == [("live", "", 0)]
    overload(link, bridge, OUTSTANDING_MAX + WAITING_MAX + 12)
    pass_time(link, clock, link_module.SKIPPED_S - 1)
    assert len(bridge.statuses) == 1
    pass_time(link, clock, 2)
    assert bridge.statuses[1:] == [("live", "", 12)]
    for minute in range(5):  # one more each second
        for _ in range(60):
            overload(link, bridge, 1)
            pass_time(link, clock, 1)
    told = [status.skipped for status in bridge.statuses[2:]]
    assert 4 <= len(told) <= 5 and told == sorted(set(told)) and 12 + 300 - 60 <= told[-1] <= 12 + 300
    pass_time(link, clock, 120)
    assert bridge.statuses[-1].skipped == link.counts.skipped == 312
    before = len(bridge.statuses)
    pass_time(link, clock, 100)  # less than LOST_S in all: silence is not yet taken for a dead bridge
    assert len(bridge.statuses) == before and bridge.sessions == 1  # no news


def test_a_change_of_state_tells_the_number_skipped_at_once(link, bridge, clock):
    link.status("live")
    link.serve(0)
    overload(link, bridge, OUTSTANDING_MAX + WAITING_MAX + 3)
    link.status("lost", "no picture")
    pass_time(link, clock, link_module.STATUS_S + 1)
    assert bridge.statuses == [("live", "", 0), ("lost", "no picture", 3)]


def test_what_was_skipped_while_the_bridge_was_away_is_told_when_it_is_back(link, line, bridge, clock):
    link.status("live")
    line.cut = True
    for number in range(WAITING_MAX + 7):
        link.offer(clip(number))
        pass_time(link, clock, 1)
    assert bridge.statuses == [] and link.counts.skipped == 7
    line.cut = False
    pass_time(link, clock, 2)
    assert bridge.statuses == [("live", "", 7)]


def test_a_status_that_did_not_get_through_is_told_again(link, line, bridge, clock):
    link.status("live")
    link.serve(0)
    overload(link, bridge, OUTSTANDING_MAX + WAITING_MAX + 3)
    line.cut = True
    pass_time(link, clock, link_module.SKIPPED_S + 5)
    line.cut = False
    pass_time(link, clock, 1)
    assert bridge.statuses[-1] == ("live", "", 3)


def test_at_the_end_what_was_never_sent_is_counted_and_told_without_delay(link, bridge, clock, caplog):
    caplog.set_level(logging.INFO)
    link.status("live")
    link.serve(0)
    overload(link, bridge, OUTSTANDING_MAX + 4)
    assert link.counts.skipped == 0 and link.finish()
    assert bridge.statuses[-1] == ("live", "", 4) and link.counts.skipped == 4
    assert {event["reason"] for event in logged(caplog, "clip_skipped")} == {"the camera process ends"}
    assert not link.finish()  # said already


def test_an_end_with_nothing_skipped_says_nothing(link, bridge):
    link.status("live")
    link.offer(clip(1))
    link.serve(0)
    assert not link.finish() and bridge.statuses == [("live", "", 0)] and bridge.finished == [1]


class Enclave:
    """Takes rising numbers only, gives its answer again to what it took, is busy at times, and loses answers."""

    def __init__(self, choose):
        self.choose, self.last, self.session, self.taken = choose, 0, 0, set()

    def __call__(self, bridge, offer):
        if offer.session != self.session:
            self.session, self.last = offer.session, 0
        if offer.number > self.last:
            if self.choose.random() < 0.3:
                return busy(bridge, offer)
            self.last = offer.number
            self.taken.add((offer.session, offer.number))
        elif (offer.session, offer.number) not in self.taken:
            return never(bridge, offer)
        return done(bridge, offer) if self.choose.random() < 0.8 else []


@pytest.mark.parametrize("seed", range(20))
def test_whatever_happens_to_the_bridge_every_clip_is_done_or_counted(line, bridge, clock, seed):
    """Lost answers, late answers, restarts, an enclave that starts anew, a cut line, in any order."""
    choose = random.Random(seed)
    bridge.answer = Enclave(choose)
    link = BridgeLink(line, CAMERA, Keys(), clock=clock)
    late = deque()
    for number in range(150):
        link.offer(clip(number, (number % 5,)))
        for _ in range(choose.randrange(4)):
            pass_time(link, clock, 0.5)
        chance = choose.random()
        if chance < 0.1:
            bridge.restart()
            line.answers.clear()
        elif chance < 0.2:
            line.answers.append(messages.pack("reopen", {"reason": "the enclave started anew"}))
        elif chance < 0.3:
            line.cut = not line.cut
        elif chance < 0.4:
            line.answers, late = late, line.answers
    line.cut, bridge.answer = False, done
    line.answers.extend(late)
    pass_time(link, clock, LOST_S + 2 * AGAIN_MAX_S)
    assert not link.busy and link.counts.refused == 0
    assert len(set(bridge.finished)) == 150 - link.counts.skipped
    assert len(set(bridge.nonces)) >= 3


VALID = {"session": {"session": 1, "nonce": bytes(32), "epoch": bytes(16), "persons": 2, "frames": 300, "joints": 18},
         "done": {"number": 1, "failed": False}, "wait": {"reason": "busy"}, "reopen": {"reason": "anew"},
         "here": {},
         "refused": {"number": 1, "reason": "busy", "reopen": False, "retry": True}}


@pytest.mark.parametrize("kind, changes", [
    ("session", {"session": -1}), ("session", {"nonce": bytes(31)}), ("session", {"nonce": "n" * 32}),
    ("session", {"persons": 0}), ("session", {"persons": 9}), ("session", {"frames": 1 << 20}),
    ("session", {"joints": True}), ("done", {"number": "1"}), ("done", {"failed": 1}), ("done", {"more": 1}),
    ("refused", {"retry": None}), ("refused", {"reason": b"busy"}), ("wait", {"reason": 1}), ("reopen", {"x": 1}),
    ("explode", {}),
])
def test_what_no_bridge_says_is_passed_over(link, line, bridge, caplog, kind, changes):
    bridge.answer = silence
    link.serve(0)
    link.offer(clip(1))
    link.serve(0)
    session = link.session
    line.answers.append(messages.pack(kind, dict(VALID.get(kind, {}), **changes)))
    link.serve(0)
    assert link.session is session and link.busy and len(bridge.nonces) == 1
    assert "passed over" in caplog.text


@pytest.mark.parametrize("frames", [[], [b"done"], [b"done", b"\xff"], [b"\xff", b"\xa0"],
                                    messages.pack("done", {"number": 1, "failed": False}, b"blob"),
                                    [b"done", cbor2.dumps([1])]])
def test_frames_that_are_no_message_are_passed_over(link, line, bridge, caplog, frames):
    bridge.answer = silence
    link.serve(0)
    link.offer(clip(1))
    link.serve(0)
    line.answers.append(frames)
    link.serve(0)
    assert link.busy and "passed over" in caplog.text


def test_neither_keys_nor_coordinates_are_logged(link, bridge, caplog):
    caplog.set_level(logging.DEBUG)
    link.serve(0)
    for number in range(20):
        link.offer(clip(23130 + number))
    link.serve(0)
    assert "clip_sent" in caplog.text and "23130 23130" not in caplog.text
    for secret in (KEY, link.session.key, bridge.nonces[0]):
        assert secret.hex() not in caplog.text and repr(secret) not in caplog.text
    assert link.session.key.hex() not in repr(link.session) and repr(link.session.key) not in repr(link.session)


def test_the_dealer_of_the_bus_is_what_the_link_needs(tmp_path_factory):
    """The same life over a real socket, in one thread."""
    folder = tmp_path_factory.mktemp("n")
    bridge = FakeBridge()
    with Router("ipc://{}/b".format(folder)) as router, Dealer("ipc://{}/b".format(folder), b"gate") as dealer:
        link = BridgeLink(dealer, CAMERA, Keys())
        link.offer(clip(1))
        deadline = time.monotonic() + PATIENCE_S
        while link.busy and time.monotonic() < deadline:
            link.serve(0.01)
            message = router.receive(0.01)
            for answer in bridge.handle(message.frames) if message else []:
                router.send(message.peer, answer)
    assert bridge.finished == [1]


# Another agreement.


def follow(line, digest=b"n" * 32):
    line.answers.append(messages.pack("follow", {"agreement": digest}))


NEXT = b"n" * 32


class Rotating(Keys):
    """The next agreement lies beside the one in force, from the start."""

    def under(self, digest):
        self.found = Paired(digest, KEY)
        return super().under(digest)


def test_a_camera_goes_over_once_all_that_it_sent_is_answered_and_nothing_is_sent_under_both(line, bridge, clock):
    keys = Rotating()
    link = BridgeLink(line, CAMERA, keys, clock=clock)
    bridge.answer = silence
    for number in range(1, 5):
        link.offer(clip(number))
    link.serve(0)
    follow(line)
    pass_time(link, clock, AGAIN_S + 1)
    assert len(bridge.nonces) == 1 and link.session.number == 1, "two clips are on their way"
    assert {head.claimed_ns for _, _, head in bridge.opened} == {1, 2}
    bridge.answer = done
    bridge.agreement = NEXT  # of the next hello
    pass_time(link, clock, AGAIN_MAX_S)
    assert keys.asked == [None, NEXT, NEXT] and len(bridge.nonces) == 2
    assert [session for session, _, head in bridge.opened if head.claimed_ns in (3, 4)] == [2, 2]
    assert bridge.finished == [1, 2, 3, 4] and link.counts.skipped == 0
    follow(line)  # it has done so
    pass_time(link, clock, 1)
    assert len(bridge.nonces) == 2


def test_clips_that_had_to_wait_go_over_unsent(line, bridge, clock):
    link = BridgeLink(line, CAMERA, Rotating(), clock=clock)
    bridge.answer = busy
    for number in (1, 2):
        link.offer(clip(number))
    link.serve(0)
    follow(line)
    bridge.answer, bridge.agreement = done, NEXT
    pass_time(link, clock, 2)
    assert bridge.finished == [1, 2] and {session for session, number, head in bridge.opened[-2:]} == {2}


def test_without_its_key_a_camera_stays_and_says_why_once(line, bridge, clock, caplog):
    keys = Keys()
    link = BridgeLink(line, CAMERA, keys, clock=clock)
    keys.found = MissingInput("gate.key: no such file")
    for number in (1, 2, 3):
        link.offer(clip(number))
        follow(line)
        link.serve(0)
    assert bridge.finished == [1, 2, 3] and len(bridge.nonces) == 1
    assert len(logged(caplog, "agreement_refused")) == 1


def reopen(line, link):
    line.answers.append(messages.pack("reopen", {"reason": "anew"}))
    link.serve(0)


@pytest.mark.parametrize("loss", ["wait", "reopen"])
def test_after_each_loss_of_its_session_a_camera_says_hello_with_what_lies_on_the_disk_then(line, bridge, clock, loss):
    keys = Keys()
    link = BridgeLink(line, CAMERA, keys, clock=clock)
    bridge.grants = loss != "wait"
    link.serve(0)
    keys.found = Paired(NEXT, KEY[::-1])
    bridge.agreement, bridge.key, bridge.grants = NEXT, KEY[::-1], True
    if loss == "reopen":
        reopen(line, link)
    link.offer(clip(1))
    pass_time(link, clock, 2)
    assert bridge.finished == [1] and len(bridge.nonces) == 2 and keys.asked == [None, AGREEMENT]


def test_a_hello_that_is_only_repeated_is_the_same_hello(line, bridge, clock):
    """Any of them may be answered, and the answer does not say which."""
    keys = Keys()
    link = BridgeLink(line, CAMERA, keys, clock=clock)
    line.deaf = True
    keys.found = Paired(NEXT, KEY)
    pass_time(link, clock, 60)
    assert len(bridge.nonces) > 2 and keys.asked == [None]


@pytest.mark.parametrize("error", [MissingInput("gate.key: no such file"), OSError(5, "input/output error"),
                                   VerificationFailed("agreement.cose: no signature")], ids=repr)
def test_what_cannot_be_read_again_is_said_once_and_the_camera_goes_on_until_it_can(line, bridge, clock, caplog, error):
    caplog.set_level(logging.INFO)
    keys = Keys()
    link = BridgeLink(line, CAMERA, keys, clock=clock)
    link.serve(0)
    keys.found = error
    for number in range(1, 4):  # each loss of a session is a try
        reopen(line, link)
        link.offer(clip(number))
        link.serve(0)
    assert bridge.finished == [1, 2, 3] and len(keys.asked) == 4
    said, = logged(caplog, "keys_unread")
    assert said["reason"] == str(error)
    bridge.grants = False
    reopen(line, link)
    keys.found, bridge.agreement, bridge.grants = Paired(NEXT, KEY), NEXT, True
    link.offer(clip(4))
    pass_time(link, clock, 2)
    assert bridge.finished == [1, 2, 3, 4] and len(logged(caplog, "agreement_changed")) == 1
    keys.found = error  # once more: that is news
    reopen(line, link)
    assert len(logged(caplog, "keys_unread")) == 2


def test_a_camera_that_cannot_read_its_key_at_the_start_does_not_start(line, clock):
    keys = Keys()
    keys.found = MissingInput("gate.key: no such file")
    with pytest.raises(MissingInput, match="no such file"):
        BridgeLink(line, CAMERA, keys, clock=clock)
