"""Which epoch of a node gets the city's beacons, above all after its sealed state was set back."""

import copy
import time

import pytest

from edged.alerts import delivery, living
from edged.alerts.journal import Journal
from edged.alerts.record import seal_beacon
from edged.alerts.reports import Received
from edged.alerts.sequence import NO_EPOCH, Rollback
from edged.alerts.subscriber import Subscriber
from edged.enclave import wire
from twin import City, Clock, Peer, plain, without_others

PERIOD_S = 60  # nothing of a test lasts as long


class Talk:
    """A subscriber and a node, whose epochs are kept by name: each can be made to speak as long as a test wants."""

    def __init__(self, city):
        self.city, self.clock, self.curve = city, Clock(), city.allow("node-1")
        self.epochs = {}
        self.start()

    def start(self):
        self.subscriber = Subscriber(self.city.config, monotonic=self.clock.monotonic, clock_ns=self.clock.time_ns)
        self.peer = Peer(self.subscriber, self.curve, self.city.public.curve)
        self.sent, send = [], self.subscriber._router.send
        self.subscriber._router.send = lambda peer, frames: (
            self.sent.append(frames[1]) if frames[0] == delivery.BEACON else None, send(peer, frames))[1]
        self.peer.hello()
        deadline = time.monotonic() + 10
        while not self.subscriber.status()[0].connected:
            assert time.monotonic() < deadline, "no hello came"
            self.subscriber.poll(0.01)

    def restart(self):
        self.close()
        self.start()

    def close(self):
        self.peer.close()
        self.subscriber.close()

    def begin(self, name, after=None, **how):
        """An epoch that follows another one of the node's, or none; its first two records, which are not delivered."""
        one = self.epochs[name] = copy.copy(self.epochs[after]) if after else self.city.enclave(node=b"n" * 16)
        return [one.begin(**how), one.clip()]

    def came(self, name, after=None, **how):
        """Likewise, delivered. The events."""
        return self.peer.deliver(*self.begin(name, after, **how))

    def asked(self, rounds=1):
        """Whom the beacons of so many rounds are for."""
        self.subscriber.poll(0.0)
        self.sent.clear()
        for _ in range(rounds):
            self.clock.ahead_s += PERIOD_S
            self.subscriber.poll(0.0)
        return [self.whose(raw) for raw in self.sent]

    def whose(self, raw):
        said = wire.Beacon.unpack(raw)
        return next(name for name, one in self.epochs.items() if raw == seal_beacon(
            one.alert_key, one.salt, one.rcpt, one.digest, said.time_ns, said.nonce))

    def answer(self, name):
        """Of that epoch, to a beacon of the round that is due. The events."""
        assert name in self.asked()
        return self.peer.deliver(self.heartbeat(name))

    def heartbeat(self, name):
        return self.epochs[name].heartbeat(next(raw for raw in self.sent if self.whose(raw) == name))


@pytest.fixture
def talk(tmp_path):
    made = Talk(City(tmp_path / "city", period_s=PERIOD_S))
    yield made
    made.close()


@pytest.fixture
def rolled(talk):
    """The node's 57th epoch lived; then its spool was moved aside, and its enclave begins at 1."""
    talk.came("former", counter=57, previous=b"before".ljust(16), previous_seq=1)
    talk.answer("former")
    events = talk.came("reset", "former", unclean=True, counter=1, previous=NO_EPOCH, previous_seq=0)
    assert [event.epoch for event in plain(events, Rollback)] == [talk.epochs["reset"].epoch], "it is loud"
    return talk


def test_after_a_rollback_the_epoch_that_is_alive_gets_beacons_and_once_it_answered_no_other(rolled):
    assert sorted(rolled.asked()) == ["former", "reset"]
    assert plain(rolled.answer("reset"), Received)
    assert rolled.asked(3) == ["reset"] * 3
    status, = rolled.subscriber.status()
    assert status.epoch == rolled.epochs["reset"].epoch and not status.silent


def test_once_it_answered_its_records_are_not_late(rolled):
    assert [event.late for event in plain(rolled.answer("reset"), Received)] == [True]
    assert [event.late for event in plain(rolled.peer.deliver(rolled.epochs["reset"].clip()), Received)] == [False]


def test_epochs_after_a_rollback_follow_each_other_as_ever_and_are_loud_for_as_long_as_they_count_below(rolled):
    rolled.answer("reset")
    assert plain(rolled.came("next", "reset"), Rollback)
    assert rolled.asked(3) == ["next"] * 3
    rolled.answer("next")
    assert not plain(rolled.peer.deliver(rolled.epochs["next"].clip()), Received)[0].late


@pytest.mark.parametrize("answered", [False, True])
def test_another_start_of_the_subscriber_knows_which_epochs_may_be_alive(rolled, answered):
    if answered:
        rolled.answer("reset")
    rolled.restart()
    assert sorted(rolled.asked()) == (["reset"] if answered else ["former", "reset"])
    rolled.answer("reset")
    rolled.restart()
    assert rolled.asked(2) == ["reset"] * 2


def test_a_clean_succession_asks_nobody_but_the_new_epoch(talk):
    talk.came("first")
    talk.answer("first")
    talk.came("second", "first")
    assert talk.asked(2) == ["second"] * 2


def test_the_epoch_that_answered_keeps_its_beacons_whatever_was_withheld_and_comes_now(rolled):
    """Root had the enclave begin epochs that the city never saw, and brings them forth one by one, in each round."""
    rolled.answer("reset")
    for number in range(2 * living.OTHERS_MAX):
        rolled.came("withheld {}".format(number), "former", counter=58 + number)
        asked = rolled.asked()
        assert asked[-1] == "reset" and len(asked) == 2
    assert len(set(rolled.asked(50))) == 1 + living.OTHERS_MAX, "the oldest of them are forgotten"
    rolled.answer("reset")
    assert rolled.asked(3) == ["reset"] * 3


def test_what_was_withheld_and_comes_before_the_live_epoch_answered_leaves_it_its_turn(rolled):
    for number in range(living.OTHERS_MAX - 1):
        rolled.came("withheld {}".format(number), "former", counter=70 + number, previous=b"unseen".ljust(16))
    asked = rolled.asked(2 * living.OTHERS_MAX)
    assert asked.count("reset") == 2 and asked.count("former") == len(asked) // 2
    while "reset" not in rolled.asked():
        pass
    rolled.peer.deliver(rolled.heartbeat("reset"))
    assert rolled.asked(3) == ["reset"] * 3


def test_a_withheld_epoch_that_names_the_one_known_last_gets_no_more_than_a_turn(rolled):
    """As the next one of a node that was never set back would."""
    rolled.came("withheld", "former")
    assert sorted(set(rolled.asked(2))) == ["reset", "withheld"]
    rolled.answer("reset")
    assert rolled.asked(2) == ["reset"] * 2


def test_an_epoch_that_was_forgotten_is_asked_again_with_its_next_record(rolled):
    for number in range(living.OTHERS_MAX):
        rolled.came("withheld {}".format(number), "former", counter=70 + number, previous=b"unseen".ljust(16))
    assert "reset" not in rolled.asked(50)
    rolled.peer.deliver(rolled.epochs["reset"].claim(b"waits"))
    rolled.sent.clear()
    rolled.subscriber.poll(0.0)
    assert "reset" in rolled.asked(living.OTHERS_MAX)


def test_late_records_of_an_epoch_that_a_later_one_names_get_it_no_beacon(talk):
    first = talk.begin("first")
    talk.came("second", "first")
    assert [event.late for event in plain(talk.peer.deliver(*first), Received)] == [True, True]
    assert talk.asked(3) == ["second"] * 3


def test_an_epoch_that_came_after_a_beacon_was_sent_outlives_the_answer_to_it(rolled):
    """A heartbeat tells of no moment but that at which it was asked for."""
    rolled.asked()
    answer = rolled.heartbeat("reset")
    rolled.clock.ahead_s += 1
    rolled.came("again", "former", unclean=True, counter=1, previous=NO_EPOCH, previous_seq=0)
    rolled.peer.deliver(answer)
    assert sorted(rolled.asked()) == ["again", "reset"]


def test_an_answer_that_is_not_fresh_proves_no_epoch_alive(rolled):
    rolled.asked()
    harvested = rolled.heartbeat("reset")
    rolled.asked(3)
    rolled.peer.deliver(harvested)
    assert sorted(rolled.asked()) == ["former", "reset"]


def test_a_journal_of_the_schema_before_knows_who_gets_beacons(talk):
    talk.came("first")
    talk.close()
    with Journal(str(talk.city.config.journal), 1) as journal:
        before = journal.nodes()
        without_others(journal)
        journal._base.execute("PRAGMA user_version=3")
    with Journal(str(talk.city.config.journal), 1) as journal:
        assert journal.nodes() == before
    talk.start()
    assert talk.asked() == ["first"]
