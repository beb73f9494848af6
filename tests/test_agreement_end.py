"""The end of an agreement's time is told before it comes and when it has come, whatever the node says or withholds."""

import json
import time
from dataclasses import replace

import pytest

from edged.alerts.liveness import JudgesAgain, JudgesNothing, Silence
from edged.alerts.reports import AgreementEnd, Received
from edged.alerts.screen import Screen
from edged.alerts.subscriber import Subscriber
from edged.errors import ConfigError
from edged.trust import validity
from edged.trust.agreement import DAY_S, open_agreement
from edged.trust.validity import Reminder
from test_agreement import VALID
from twin import City, Clock, Peer, plain

END_S = 1900000000


class Listener:
    """A subscriber of an agreement that ends at END_S, by a clock in our hands; node north is listed."""

    def __init__(self, folder, before_s, line=""):
        self.city = City(folder, until_s=END_S)
        self.file = self.city.folder / "subscriber.toml"
        self.file.write_text(self.file.read_text() + line)
        self.curve, self.enclave = self.city.allow("north"), self.city.enclave()
        self.clock = Clock()
        self.clock.wall_ahead_s = END_S - before_s - time.time()
        self.start()

    def start(self):
        self.subscriber = Subscriber(self.city.config, monotonic=self.clock.monotonic, clock_ns=self.clock.time_ns)
        self.peer = Peer(self.subscriber, self.curve, self.city.public.curve)

    def close(self):
        self.peer.close()
        self.subscriber.close()

    def restart(self):
        self.close()
        self.start()

    def wait(self, seconds=0.0):
        """The ends that are told after so long, and within two seconds then."""
        self.clock.ahead_s += seconds
        events = self.subscriber.poll(0.05)
        self.clock.ahead_s += 2
        return plain(events + self.subscriber.poll(0.05), AgreementEnd)

    def answers(self, times):
        """The events of a node that answers so many beacons, each a period later than the one before."""
        events = []
        for _ in range(times):
            beacon, meanwhile = self.peer.beacon()
            events += meanwhile + self.peer.deliver(self.enclave.heartbeat(beacon))
            for _ in range(2):  # not a period at once: that would be one in which nobody listened
                self.clock.ahead_s += 0.5
                events += self.subscriber.poll(0.01)
        return events


@pytest.fixture
def listener(tmp_path):
    made = []

    def make(*arguments):
        made.append(Listener(tmp_path / str(len(made)), *arguments))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_from_14_days_before_it_is_told_at_each_start_and_each_day(listener):
    one = listener(15 * DAY_S)
    assert one.wait() == [] and one.wait(DAY_S / 2) == []
    first, = one.wait(DAY_S / 2)
    assert (first.number, first.until_s, first.nodes) == (1, END_S, ()) and 13.9 < first.left_s / DAY_S <= 14
    assert one.wait(DAY_S / 2) == [] and len(one.wait(DAY_S / 2)) == 1
    one.restart()
    assert len(one.wait()) == 1 and one.wait() == []


def test_the_end_itself_is_told_at_once_then_each_day_and_at_each_start(listener):
    one = listener(3600)
    assert one.wait()[0].left_s > 0 and one.wait(3000) == []
    over, = one.wait(700)
    assert over.left_s < 0 and one.wait(3600) == []
    assert len(one.wait(DAY_S)) == 1
    one.restart()
    again, = one.wait()
    assert again.left_s < -DAY_S


def test_it_needs_no_record_and_names_the_nodes_that_are_under_it(listener):
    """Root may withhold whatever it likes: this comes from the city's own agreement and clock."""
    one = listener(-10)
    assert one.wait()[0].nodes == ()
    one.peer.deliver(one.enclave.begin())
    one.restart()
    event, = one.wait()
    assert event.nodes == ("north",)
    line, = Screen().lines([event], END_S * 10 ** 9)
    assert "!!! ENDED: agreement 1 ended at 2030-03-17T17:46:40Z: nothing is judged" in line and "more: north: " in line
    shown = json.loads(Screen(True).lines([event], 0)[0])
    assert (shown["type"], shown["number"], shown["until_s"], shown["nodes"]) == ("agreement_end", 1, END_S, ["north"])


def test_on_the_screen_the_end_that_is_near_has_its_date_and_days(listener):
    line, = Screen().lines(listener(9 * DAY_S + 60).wait(), 0)
    assert "!!! ENDS SOON: agreement 1 ends at 2030-03-17T17:46:40Z, in 9 days" in line


@pytest.mark.parametrize("days, before_s, told", [(30, 29 * DAY_S, 1), (30, 31 * DAY_S, 0), (0, 60, 0), (0, -60, 1)])
def test_how_long_before_is_configured(listener, days, before_s, told):
    assert len(listener(before_s, "warn_days = {}\n".format(days)).wait()) == told


@pytest.mark.parametrize("value", ["-1", "3651", '"soon"', "true"])
def test_a_time_that_is_none_is_one_line(tmp_path, value):
    city = City(tmp_path / "city")
    file = city.folder / "subscriber.toml"
    file.write_text(file.read_text() + "warn_days = {}\n".format(value))
    with pytest.raises(ConfigError, match=r"subscriber.toml:1\d: warn_days: "):
        city.config


def test_of_a_former_agreement_it_is_told_while_a_node_is_under_it_and_no_longer(listener):
    one = listener(-10)
    one.peer.deliver(one.enclave.begin())
    signed = one.city.agree(number=2, until_s=END_S + 365 * DAY_S, beacon_period_s=1)
    one.city.adopt(signed)
    one.restart()
    assert [(event.number, event.nodes) for event in one.wait()] == [(1, ("north",))]
    follows = open_agreement(signed)
    last = one.enclave.succession(follows)
    one.enclave.use(*one.city.under(follows))
    one.peer.deliver(last, one.enclave.begin_agreement())
    one.restart()
    assert one.wait() == []


def test_a_node_that_answers_under_an_agreement_that_ended_is_not_alive(listener):
    """It looked alive: heartbeats came, and no alert could."""
    one = listener(5)
    one.peer.deliver(one.enclave.begin())
    assert plain(one.answers(4), JudgesNothing, Silence) == []
    one.clock.ahead_s += 1
    events = one.answers(6)
    told, = plain(events, JudgesNothing)
    assert told.node == "north" and not plain(events, Silence)
    status, = one.subscriber.status()
    assert status.idle and not status.silent
    assert "!!! JUDGES NOTHING" in Screen().lines([told], 0)[0]
    assert [event.left_s < 0 for event in plain(events, AgreementEnd)] == [True]
    assert len(plain(events, Received)) == 6, "they are taken all the same"


def test_under_the_agreement_that_follows_it_is_alive_again(listener):
    one = listener(-5)
    one.peer.deliver(one.enclave.begin())
    assert plain(one.answers(6), JudgesNothing)
    signed = one.city.agree(number=2, until_s=END_S + 365 * DAY_S, beacon_period_s=1)
    one.city.adopt(signed)
    one.restart()
    last = one.enclave.succession(open_agreement(signed))
    one.enclave.use(*one.city.under(open_agreement(signed)))
    one.peer.deliver(last, one.enclave.begin_agreement())
    assert not plain(one.answers(4), JudgesNothing, JudgesAgain)  # this start never saw it judge nothing
    assert not one.subscriber.status()[0].idle


# The words, and when.

def test_each_agreement_is_told_of_by_itself():
    one, other = replace(VALID, until_s=100 * DAY_S), replace(VALID, until_s=200 * DAY_S)
    reminder = Reminder(14)
    assert reminder.due([one, other], 0, 0) == []
    assert [left.agreement for left in reminder.due([one, other], 90 * DAY_S, 10)] == [one]
    assert reminder.due([one, other], 90 * DAY_S, 20) == []
    assert [left.agreement for left in reminder.due([one, other], 190 * DAY_S, 30)] == [one, other]


def test_a_clock_that_was_wrong_for_a_while_is_followed():
    one = replace(VALID, until_s=100 * DAY_S)
    reminder = Reminder(14)
    assert reminder.due([one], 101 * DAY_S, 0)[0].ended
    assert reminder.due([one], 0, 10) == []
    assert not reminder.due([one], 99 * DAY_S, 20)[0].ended


@pytest.mark.parametrize("left_s, said", [
    (5 * DAY_S, "ends at 2030-03-17T17:46:40Z, in 5 days"), (DAY_S + 1, "ends at 2030-03-17T17:46:40Z, in 1 day"),
    (DAY_S - 1, "ends at 2030-03-17T17:46:40Z, in less than a day"), (0, "ended at 2030-03-17T17:46:40Z"),
    (-1, "ended at 2030-03-17T17:46:40Z")])
def test_the_words(left_s, said):
    assert validity.words(3, END_S, left_s) == "agreement 3 " + said


def test_a_time_that_no_calendar_holds_is_a_number():
    assert validity.iso(1 << 62) == str(1 << 62)
