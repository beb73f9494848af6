"""For whom cameras wait before they go over to the agreement that follows."""

from types import SimpleNamespace

import pytest

from edged.enclave.client import Emitted
from edged.offload import succession
from edged.offload.link import InForce
from twin import outer_record


class Times:
    """For succession: its clocks."""

    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        return 5000.0 + self.now

    def time(self):
        return 1800000000.0 + self.now


@pytest.fixture
def heard(monkeypatch):
    """Agreement 2 follows 1: a, b and c are recipients of both, d of the next alone. ``heard(names, number)``: beacons
    of theirs under this one were answered; ``unread()``: whom cameras wait for."""
    times = Times()
    monkeypatch.setattr(succession, "time", times)
    agreements = {number: SimpleNamespace(
        number=number, digest=bytes([number]) * 32, beacon_limit_s=100, until_s=1800001000, recipients=[
            SimpleNamespace(rcpt=rcpt, alert_key=rcpt[:15] + bytes([number])) for rcpt in
            (b"a" * 16, b"b" * 16, b"c" * 16, b"d" * 16)[:2 + number]]) for number in (1, 2)}
    both = [InForce(0, agreement, index) for index, agreement in enumerate(agreements.values())]
    link = SimpleNamespace(in_force=both, over=[], current=lambda place: both[-1],
                           former=lambda place: both[0] if len(both) > 1 else None)
    made = succession.Succession(None, None, set())
    made.connected(link)

    def hear(names, number):
        for name in names:
            record = outer_record(1, rcpt=name.encode() * 16, kid=name.encode() * 15 + bytes([number]))
            made.answered(link, Emitted(0, [record], 0))

    hear.times, hear.link, hear.made, hear.both = times, link, made, both
    hear.unread = lambda: "".join(chr(rcpt[0]) for rcpt in made.unread_by(link, 0))
    return hear


def test_until_anybody_reads_all_are_waited_for_and_then_those_who_read_the_former_one(heard):
    assert heard.unread() == "abcd"
    heard("abc", 1)
    assert heard.unread() == "abcd"
    heard("a", 2)
    assert heard.unread() == "bc", "the fourth was not there before: it cannot be known to live"
    assert not heard.made.is_read(heard.link, heard.both[1])
    heard("bc", 2)
    assert heard.unread() == "" and heard.made.is_read(heard.link, heard.both[1])


def test_who_is_silent_under_the_former_one_too_is_waited_for_no_longer_than_its_beacon_limit(heard):
    heard("a", 2)
    assert heard.unread() == "bc", "the bridge has just begun: it cannot know yet who is alive"
    for _ in range(6):
        heard.times.now += 20
        heard("ab", 1)
    assert heard.unread() == "b"
    heard("c", 1)
    assert heard.unread() == "bc", "he is back"


def test_after_the_end_of_the_former_one_nobody_is_waited_for_who_is_not_alone(heard):
    heard.times.now = 990
    heard("abc", 1)
    heard("a", 2)
    assert heard.unread() == "bc"
    heard.times.now = 1001
    assert heard.unread() == ""


def test_after_a_time_in_which_all_were_cut_off_who_is_heard_first_is_not_the_only_one_alive(heard):
    heard("abc", 1)
    heard.times.now = 500
    heard("a", 2)
    assert heard.unread() == "bc"


def test_after_a_new_connection_to_the_enclave_all_count_as_alive_for_a_beacon_limit(heard):
    heard("abc", 1)
    heard("a", 2)
    for _ in range(6):
        heard.times.now += 20
        heard("a", 2)
    assert heard.unread() == ""
    heard.made.connected(heard.link)
    assert heard.unread() == "bc"


def test_of_agreements_that_are_not_in_force_any_more_nothing_is_remembered(heard):
    heard("abc", 1)
    heard("abcd", 2)
    del heard.both[0]
    heard.made.connected(heard.link)
    assert len(heard.made._heard) == 4 and heard.unread() == ""
