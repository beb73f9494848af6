"""One agreement ends on a node and another one follows, under other keys: nothing is lost, nothing is silent, whoever
does what first. The enclave is played by tests/twin.py.
"""

import os
import time
from dataclasses import replace

import cbor2
import pytest

from edged.alerts import adopt, delivery, keys, nodes
from edged.alerts.journal import Journal
from edged.alerts.liveness import Back, Silence
from edged.alerts.outbox import Lane
from edged.alerts.record import Succession, seal_beacon, split_record
from edged.alerts.reports import Altered, Expired, Foreign, Received, Succeeded
from edged.alerts.screen import Screen
from edged.alerts.sequence import AfterEnd, EpochBegan, Gap, GapClosed, Replay, Rollback
from edged.alerts.spool import Spool
from edged.alerts.subscriber import Subscriber
from edged.alerts.throttle import BURST
from edged.bus import Dealer
from edged.enclave import wire
from edged.trust.agreement import open_agreement, sign
from twin import CITY_NS, ROOMY, City, Clock, Peer, admits_nobody, damaged, plain, without_others


class Change:
    """A city whose second agreement is signed, and nodes that may be under either; south is there to be lied about."""

    def __init__(self, folder):
        self.guard = admits_nobody()
        self.city = City(folder / "city", recipients=("city", "police"))
        self.first = self.city.agreement
        self.signed, self.second = self.city.renew()
        self.clock = Clock()
        self.curve = {name: self.city.allow(name) for name in ("north", "south")}
        self.enclave = self.city.enclave()
        self.subscriber = self.north = None
        self.start()

    def start(self):
        self.subscriber = Subscriber(self.city.config, monotonic=self.clock.monotonic, clock_ns=self.clock.time_ns)
        self.north = self.connect("north")

    def connect(self, name):
        return Peer(self.subscriber, self.curve[name], self.city.public.curve)

    def restart(self):
        """Killed: nothing that is not on the disk survives."""
        self.north.close()
        self.subscriber._router.close()
        self.subscriber._journal.close()
        self.start()

    def adopt(self):
        self.city.adopt(self.signed)
        self.restart()

    def use(self, agreement):
        self.enclave.use(*self.city.under(agreement))

    def under_both(self):
        """Records that begin both agreements."""
        begin = self.enclave.begin()
        self.use(self.second)
        both = [begin, self.enclave.begin_agreement()]
        self.use(self.first)
        return both

    def tagged(self, beacons):
        """Which agreements these beacons are for."""
        found = []
        for sealed in beacons:
            asked = wire.Beacon.unpack(sealed)
            for agreement in (self.first, self.second):
                key, _, digest = self.city.under(agreement)
                if sealed == seal_beacon(key, self.enclave.salt, self.enclave.rcpt, digest, asked.time_ns, asked.nonce):
                    found.append(agreement.number)
        return found

    def beacons(self):
        """Those of the next period, by the numbers of the agreements."""
        self.north.take()
        self.north.beacons.clear()
        self.clock.ahead_s += 1.0
        self.subscriber.poll(0.3)
        self.north.take(0.2, 10 ** 6)
        return self.tagged(self.north.beacons)

    def answered(self, *numbers):
        """Events of half a second in which north answers the beacons that are there under these agreements alone."""
        self.clock.ahead_s += 0.5
        events = self.subscriber.poll(0.05)
        self.north.take(0.1, 10 ** 6)
        beacons, self.north.beacons = self.north.beacons, []
        used = self.enclave.alert_key, self.enclave.kid, self.enclave.digest
        for beacon in beacons:
            for agreement in (self.first, self.second):
                if self.tagged([beacon]) == [agreement.number] and agreement.number in numbers:
                    self.use(agreement)
                    events += self.north.deliver(self.enclave.heartbeat(beacon))
        self.enclave.use(*used)
        return events

    def answered_for(self, seconds, *numbers):
        return [event for _ in range(int(2 * seconds)) for event in self.answered(*numbers)]

    def close(self):
        self.north.close()
        self.subscriber.close()
        self.guard.close()


@pytest.fixture
def change(tmp_path):
    made = Change(tmp_path)
    yield made
    made.close()


@pytest.fixture
def adopted(change):
    change.adopt()
    return change


def seqs(events):
    return [event.record.header.seq for event in plain(events, Received)]


# --------------------------------------------------------------------------- the node is first: nothing is lost


class Node:
    """A node's outbox, played by hand: its spool and the lane to the city."""

    def __init__(self, change, folder):
        self.change = change
        self.spool = Spool(str(folder / "spool.db"), ROOMY)
        self.lane = Lane("city", change.enclave.rcpt, self.spool, lambda frames: self.dealer.send(frames),
                         time.monotonic())
        self.dealer, self.beacons, self.events = None, [], []
        self.connect()

    def connect(self):
        if self.dealer is not None:
            self.dealer.close()
        self.dealer = Dealer(self.change.subscriber.address, b"o" + os.urandom(15),
                             (self.change.curve["north"], self.change.city.public.curve.encode()))

    def run(self, until):
        deadline = time.monotonic() + 60
        while not until():
            assert time.monotonic() < deadline, self.events[-5:]
            self.lane.offer(time.monotonic())
            self.events += self.change.subscriber.poll(0.01)
            message = self.dealer.receive(0)
            while message is not None:
                beacon = self.lane.answer(message.frames, time.monotonic())
                self.beacons += [beacon] if beacon else []
                message = self.dealer.receive(0)

    def waiting(self):
        return [split_record(sealed)[0].seq for _, sealed in self.spool.pending(self.change.enclave.rcpt, 0, 10 ** 6)]

    def close(self):
        self.dealer.close()
        self.spool.close()


@pytest.mark.parametrize("killed", [False, True], ids=["closed", "killed"])
@pytest.mark.parametrize("turns", [3, 300], ids=["few", "many"])  # 300: more gaps than the journal once kept
def test_a_node_that_changes_before_the_citys_subscriber_loses_nothing(change, tmp_path, turns, killed):
    """Records of both agreements in turn, then the end of the first: what the city cannot open yet stays with the node
    and comes, each once, as soon as the agreement is adopted; then the node gets beacons under it."""
    node, enclave = Node(change, tmp_path), change.enclave
    node.spool.put(change.under_both())
    theirs = {2}
    for turn in range(turns):
        node.spool.put([enclave.clip(alert=0)])
        change.use(change.second)
        node.spool.put([enclave.clip(alert=turn % 2)])
        theirs.add(enclave.seq)
        change.use(change.first)
    node.spool.put([enclave.succession(change.second)])
    change.use(change.second)
    for _ in range(3):
        node.spool.put([enclave.clip(alert=1)])
        theirs.add(enclave.seq)
    ours = set(range(1, enclave.seq + 1)) - theirs
    node.run(lambda: set(node.waiting()) == theirs and node.lane.in_flight == 0)
    assert sorted(seqs(node.events)) == sorted(ours)
    told = plain(node.events, Foreign)
    assert told and all("`edged-city adopt --agreement FILE`; the node keeps the record until then" in one.reason
                        and change.second.recipients[0].alert_key.hex() in one.reason for one in told)
    ended = plain(node.events, Succeeded)
    assert [(one.number, one.next_number, one.successor) for one in ended] == [(1, 2, change.second.digest)]
    assert ended[0].todo.startswith("it is not listed here: `edged-city adopt --agreement FILE`")

    change.city.adopt(change.signed)
    if not killed:
        change.subscriber.close()
        change.start()
    else:
        change.restart()
    node.connect()
    before, node.events, node.beacons = node.events, [], []
    node.run(lambda: not node.waiting())
    taken = seqs(before) + seqs([event for event in node.events if isinstance(event, Received)
                                 and event not in before])
    assert sorted(taken) == list(range(1, enclave.seq + 1)), "all of them, and each once"
    # The last of them stand behind no gap: nothing came after.
    assert len(plain(before, Gap)) == turns + 1 and len(plain(before + node.events, GapClosed)) == turns + 1
    assert not plain(before + node.events, Replay, Altered, AfterEnd)

    node.run(lambda: 2 in change.tagged(node.beacons))
    node.spool.put([enclave.heartbeat(node.beacons[-1])])
    node.run(lambda: not node.waiting())
    assert not change.subscriber.status()[0].silent
    node.close()


def test_a_node_whose_agreement_ended_and_whose_next_one_nobody_adopted_is_silent(change):
    """There is nothing left that it could be asked: that must not look as if it answered."""
    change.north.deliver(change.enclave.begin())
    beacon, _ = change.north.beacon()
    change.north.deliver(change.enclave.heartbeat(beacon), change.enclave.succession(change.second))
    assert change.beacons() == []
    events = []
    for _ in range(8):
        change.clock.ahead_s += 0.5
        events += change.subscriber.poll(0.01)
    assert "north" in [event.node for event in plain(events, Silence)]


def test_a_node_whose_waiting_records_are_all_late_gets_beacons_under_the_next_agreement_nevertheless(change):
    """Else its enclave would evaluate nothing there, say nothing new, and never be asked."""
    begin, theirs = change.under_both()
    change.north.deliver(begin, theirs, change.enclave.clip())
    change.subscriber.poll(0)
    change.adopt()
    events = change.north.deliver(theirs)
    assert seqs(events) == [2] and plain(events, Received)[0].late
    assert set(change.beacons()) == {1, 2}


def test_a_node_that_started_anew_under_the_next_agreement_alone_is_taken_once_that_is_adopted(change):
    """It said nothing under the first one in this epoch: everything waits."""
    change.north.deliver(change.enclave.begin(), change.enclave.clip())
    change.use(change.second)
    waiting = [change.enclave.begin(), change.enclave.clip(alert=0)]
    assert seqs(change.north.deliver(*waiting)) == [] and len(change.north.refused) == 2
    change.adopt()
    events = change.north.deliver(*waiting)
    assert seqs(events) == [1, 2] and plain(events, EpochBegan)[0].lost == () and not plain(events, Gap)
    assert change.beacons() == [2]


# ------------------------------------------------------------------------- the city is first: nothing is noticed


def test_a_change_that_was_adopted_before_is_one_line_and_no_gap(adopted):
    enclave = adopted.enclave
    events = adopted.north.deliver(*adopted.under_both(), enclave.clip(alert=0))
    assert sorted(set(adopted.beacons())) == [1, 2], "both are in force"
    last = enclave.succession(adopted.second)
    adopted.use(adopted.second)
    events += adopted.north.deliver(last, enclave.clip(alert=1))
    assert seqs(events) == [1, 2, 3, 4, 5] and not any(event.late for event in plain(events, Received))
    assert [type(event) for event in events if not isinstance(event, Received)] == [EpochBegan, Succeeded]
    assert isinstance(plain(events, Received)[3].record, Succession)
    key = adopted.second.recipients[0].alert_key
    assert plain(events, Succeeded) == [Succeeded("north", 1, 2, adopted.second.digest, key, "")]
    shown = [line for line in Screen().lines(events, CITY_NS) if "ends" in line]
    assert len(shown) == 1 and "agreement 1 ends, 2 follows: key {}".format(key.hex()) in shown[0] and (
        "!!!" not in shown[0])


def test_an_agreement_that_ended_gets_no_beacons_and_none_after_a_restart(adopted):
    adopted.north.deliver(*adopted.under_both(), adopted.enclave.succession(adopted.second))
    assert set(adopted.beacons()) == {2}
    adopted.restart()
    adopted.north.hello()
    assert set(adopted.beacons()) == {2}


def test_a_node_answers_over_the_change_and_one_that_stops_is_silent(adopted):
    enclave = adopted.enclave
    events = adopted.north.deliver(*adopted.under_both())
    events += adopted.answered_for(4, 1, 2)
    events += adopted.north.deliver(enclave.succession(adopted.second))
    adopted.use(adopted.second)
    events += adopted.answered_for(4, 2)
    assert [event.node for event in plain(events, Silence)] == ["south"] and not plain(events, Back)
    for _ in range(8):
        adopted.clock.ahead_s += 0.5
        events += adopted.subscriber.poll(0.01)
    assert [event.node for event in plain(events, Silence)] == ["south", "north"]


def test_the_beacons_of_two_agreements_come_as_often_as_the_more_impatient_one_needs(tmp_path):
    city = City(tmp_path / "city", period_s=1)
    signed, _ = city.renew(beacon_period_s=50)
    city.adopt(signed)
    city.allow("north")
    with Subscriber(city.config) as subscriber:
        assert subscriber._nodes["north"].liveness.period_s == 1.0


# ------------------------------------------------------------------------------------------------- after its end


def test_an_alert_after_the_end_of_its_agreement_is_shown_and_reported(adopted):
    """No fall is missed, whatever is wrong with the node; also after a restart."""
    enclave = adopted.enclave
    adopted.north.deliver(*adopted.under_both(), enclave.succession(adopted.second))
    for restarted in (False, True):
        if restarted:
            adopted.subscriber.poll(0)
            adopted.restart()
        events = adopted.north.deliver(enclave.clip(alert=0))
        assert seqs(events) == [enclave.seq]
        assert plain(events, AfterEnd) == [AfterEnd("north", enclave.epoch, enclave.seq, adopted.first.digest, 3)]
        lines = Screen().lines(events, CITY_NS)
        assert "ALERT falling" in lines[0] and "!!! AFTER ITS END: record {} of".format(enclave.seq) in lines[1]
    assert set(adopted.beacons()) == {2}, "it does not come to life again by that"


def test_what_was_said_before_the_end_and_comes_late_is_late_and_no_more(adopted):
    enclave = adopted.enclave
    adopted.north.deliver(*adopted.under_both())
    held = enclave.clip(alert=0)
    events = adopted.north.deliver(enclave.succession(adopted.second), held)
    assert [(event.record.header.seq, event.late) for event in plain(events, Received)] == [(4, False), (3, True)]
    assert not plain(events, AfterEnd)


def test_an_end_that_comes_late_shows_what_came_after_it_before(adopted):
    enclave = adopted.enclave
    adopted.north.deliver(*adopted.under_both())
    last = enclave.succession(adopted.second)
    assert not plain(adopted.north.deliver(enclave.clip(alert=0)), AfterEnd)
    events = adopted.north.deliver(last)
    assert plain(events, AfterEnd) == [AfterEnd("north", enclave.epoch, 4, adopted.first.digest, 3)]
    assert plain(events, Received)[0].late and set(adopted.beacons()) == {2}


@pytest.mark.parametrize("killed", [False, True])
def test_clips_under_the_agreement_that_ended_are_told_in_a_new_epoch_too(adopted, killed):
    """Somebody started the node with the old list: its enclave says so by an epoch, may be asked, and is shown."""
    enclave, was = adopted.enclave, adopted.first.digest
    adopted.north.deliver(*adopted.under_both(), enclave.succession(adopted.second))
    ended_in = enclave.epoch
    adopted.subscriber.poll(0)
    if killed:
        adopted.restart()
    events = adopted.north.deliver(enclave.begin(), enclave.clip(alert=0))
    assert seqs(events) == [1, 2] and set(adopted.beacons()) == {1}
    assert plain(events, AfterEnd) == [AfterEnd("north", enclave.epoch, 2, was, 3, ended_in)]
    lines = Screen().lines(events, CITY_NS)
    assert "ALERT falling" in lines[1] and "after its end, in a new epoch: shown all the same" in lines[2]


def test_a_clip_whose_epoch_began_without_a_word_is_told_when_that_word_comes(adopted):
    """Its epoch record is kept back: nobody knows yet whether the epoch is an old one."""
    enclave, was = adopted.enclave, adopted.first.digest
    adopted.north.deliver(*adopted.under_both(), enclave.succession(adopted.second))
    ended_in, begin = enclave.epoch, enclave.begin()
    events = adopted.north.deliver(enclave.clip(alert=0))
    assert plain(events, Gap) and not plain(events, AfterEnd)
    events = adopted.north.deliver(begin)
    assert plain(events, AfterEnd) == [AfterEnd("north", enclave.epoch, 2, was, 3, ended_in)]


def test_an_end_of_an_epoch_before_that_comes_late_shows_what_was_judged_after_it(adopted):
    enclave, was = adopted.enclave, adopted.first.digest
    adopted.north.deliver(*adopted.under_both())
    ended_in, last = enclave.epoch, enclave.succession(adopted.second)
    assert not plain(adopted.north.deliver(enclave.begin(), enclave.clip(), enclave.clip(alert=0)), AfterEnd)
    events = adopted.north.deliver(last)
    assert plain(events, AfterEnd) == [AfterEnd("north", enclave.epoch, 3, was, 3, ended_in)]


def test_clips_in_an_epoch_of_a_state_set_back_are_after_the_end(adopted):
    enclave, was = adopted.enclave, adopted.first.digest
    adopted.north.deliver(*adopted.under_both(), enclave.clip(), enclave.succession(adopted.second))
    ended_in = enclave.epoch
    events = adopted.north.deliver(enclave.begin(counter=1, previous=bytes(16), previous_seq=0), enclave.clip(alert=0))
    assert plain(events, Rollback)
    assert plain(events, AfterEnd) == [AfterEnd("north", enclave.epoch, 2, was, 4, ended_in)]


def test_a_clip_of_an_epoch_before_that_comes_after_the_end_is_late_and_no_more(adopted):
    enclave = adopted.enclave
    adopted.north.deliver(enclave.begin(), enclave.clip())
    held = enclave.clip(alert=0)
    events = adopted.north.deliver(*adopted.under_both(), enclave.succession(adopted.second))
    events += adopted.north.deliver(held)
    assert plain(events, Received)[-1].late and not plain(events, AfterEnd, Rollback)


def test_a_node_started_anew_in_the_middle_of_the_change_may_say_the_end_once_more(adopted):
    """It knows of the end only when it has said it: under both again, without a clip, and ended again."""
    enclave = adopted.enclave
    events = adopted.north.deliver(*adopted.under_both(), enclave.clip(), enclave.succession(adopted.second))
    events += adopted.north.deliver(*adopted.under_both())
    adopted.use(adopted.first)
    events += adopted.north.deliver(enclave.succession(adopted.second))
    adopted.use(adopted.second)
    events += adopted.north.deliver(enclave.clip(alert=0))
    assert len(plain(events, Succeeded)) == 2 and not plain(events, AfterEnd, Gap, Rollback, Replay)
    assert set(adopted.beacons()) == {2}


# ------------------------------------------------------------------------------------------ the same keys for longer


def prolonged(change):
    """Other times, same keys, next number."""
    later = replace(change.first, number=2, from_s=1)
    return sign(later.encode(), change.city.mo_key, keys.read_signing_key(str(change.city.folder))), later


@pytest.mark.parametrize("killed", [False, True])
def test_an_agreement_with_the_same_keys_that_is_adopted_late_loses_nothing_and_is_not_called_altered(change, killed):
    signed, later = prolonged(change)
    enclave = change.enclave
    change.north.deliver(enclave.begin(), enclave.clip())
    events = change.north.deliver(enclave.succession(later))
    assert "`edged-city adopt --agreement FILE`" in plain(events, Succeeded)[0].todo
    change.use(later)
    waiting = [enclave.begin_agreement(), enclave.clip(alert=0)]
    change.subscriber.poll(0)
    if killed:
        change.restart()
    events = change.north.deliver(*waiting)
    assert len(change.north.refused) == 2
    assert [type(event) for event in events] == [Foreign, Foreign]
    assert all("agreement 2 follows on this node, under the same key, and is not listed: `edged-city adopt" in
               event.reason and "the node keeps the record until then" in event.reason for event in events)
    change.subscriber.poll(0)
    change.city.adopt(signed)
    change.restart()
    events = change.north.deliver(*waiting)
    assert seqs(events) == [4, 5] and not plain(events, Gap, Altered, Foreign, AfterEnd)
    assert [type(event) for event in change.north.deliver(damaged(enclave.clip()))] == [Altered]


def test_before_the_node_said_what_follows_the_remedy_is_told_all_the_same(change):
    signed, later = prolonged(change)
    begin = change.enclave.begin()
    change.use(later)
    events = change.north.deliver(begin, change.enclave.begin_agreement())
    altered, = plain(events, Altered)
    assert "if the city agreed to a later one with this key: `edged-city adopt" in altered.reason


def test_who_announces_the_same_key_hides_no_alteration_of_another_node_or_key(adopted):
    """North said what follows, under the first key: south's records, and those under the second one, are altered."""
    later = replace(adopted.first, number=3)
    adopted.north.deliver(*adopted.under_both(), adopted.enclave.succession(later))
    south, other = adopted.connect("south"), adopted.city.enclave()
    south.deliver(other.begin())
    assert [type(event) for event in south.deliver(damaged(other.clip()))] == [Altered]
    south.close()
    adopted.use(adopted.second)
    assert [type(event) for event in adopted.north.deliver(damaged(adopted.enclave.clip()))] == [Altered]
    adopted.use(later)
    assert [type(event) for event in adopted.north.deliver(adopted.enclave.begin_agreement())] == [Foreign]


def test_an_agreement_that_was_heard_and_dropped_excuses_no_alteration_under_its_key(change):
    """All three have one key; the second one is over everywhere."""
    signed, later = prolonged(change)
    last = replace(later, number=3)
    change.city.adopt(signed)
    change.city.adopt(sign(last.encode(), change.city.mo_key, keys.read_signing_key(str(change.city.folder))))
    nodes.revoke(change.city.nodes_file, "south")
    change.restart()
    enclave = change.enclave
    events = change.north.deliver(enclave.begin(), enclave.succession(later))
    for agreement, follows in ((later, last), (last, None)):
        change.use(agreement)
        events += change.north.deliver(enclave.begin_agreement(), *[enclave.succession(follows)] if follows else [])
    assert seqs(events) == [1, 2, 3, 4, 5] and not plain(events, Foreign, Altered)
    change.subscriber.poll(0)
    adopt.drop(str(change.city.folder), 2)
    change.restart()
    assert [type(event) for event in change.north.deliver(damaged(enclave.clip()))] == [Altered]


# ---------------------------------------------------------------------------------------------------- out of time


END_S = CITY_NS // 10 ** 9 + 100


def ending(change, came_s):
    """North's agreement ends at END_S; it is so many seconds later."""
    signed = change.city.agree(number=2, beacon_period_s=1, beacon_limit_s=60, until_s=END_S)
    change.city.adopt(signed)
    change.clock.wall_ahead_s = END_S + came_s - time.time()
    change.restart()
    change.use(open_agreement(signed))
    change.north.deliver(change.enclave.begin())


@pytest.mark.parametrize("judged_s, came_s, late_s, arrived", [
    (-1, 0, None, None), (20, 50, None, None), (29, 55, None, None), (31, 40, 31, False), (5000, 5001, 5000, False),
    (-50, 70, 70, True), (None, 40, None, None), (None, 3600, 3600, True),
])
def test_a_clip_after_the_end_of_its_agreements_time_is_shown_and_told(change, judged_s, came_s, late_s, arrived):
    ending(change, came_s)
    time_ns = 0 if judged_s is None else (END_S + judged_s) * 10 ** 9
    events = change.north.deliver(change.enclave.clip(alert=0, time_ns=time_ns, claimed_ns=time_ns or CITY_NS))
    assert seqs(events) == [2]
    told = plain(events, Expired)
    assert len(told) == (late_s is not None)
    if told:
        assert (told[0].seq, told[0].number, told[0].arrived) == (2, 2, arrived) and abs(told[0].late_s - late_s) < 5
        lines = Screen().lines(events, CITY_NS)
        assert "ALERT falling" in lines[0] and "agreement 2 expired" in lines[1] and "!!! EXPIRED: " in lines[1]
        assert "shown all the same" in lines[1] and "check" in lines[1]


def test_thousands_of_late_clips_are_all_shown_and_not_all_told(change):
    ending(change, 3600)
    events = []
    for _ in range(3):
        events += change.north.deliver(*[change.enclave.clip(alert=0) for _ in range(10)])
    assert len(plain(events, Received)) == 30 and len(plain(events, Expired)) == BURST


# ------------------------------------------------------------------------------------------------------- attacks


def test_a_succession_is_passed_on_once(adopted):
    last = [*adopted.under_both(), adopted.enclave.succession(adopted.second)]
    adopted.north.deliver(*last)
    events = adopted.north.deliver(last[-1])
    assert events == [Replay("north", adopted.enclave.epoch, 3, True)]


@pytest.mark.parametrize("kept, withheld", [(1, 2), (2, 1)])
def test_an_agreement_whose_beacons_are_withheld_is_silent_though_the_node_answers_under_another(
        adopted, kept, withheld):
    """Root prolongs a rotation: cameras are under the one, whose clips wait for want of beacons; heartbeats go on under
    the other, and the node claims that all is well."""
    events = adopted.north.deliver(*adopted.under_both()) + adopted.answered_for(2, 1, 2)
    assert "north" not in [event.node for event in plain(events, Silence)]
    events = adopted.answered_for(6, kept)
    told = [event for event in plain(events, Silence) if event.node == "north"]
    assert [event.agreement for event in told] == [withheld] and told[0].since_s > 2, "once"
    assert "!!! SILENT under agreement {}: no answer to a beacon for ".format(withheld) in Screen().lines(told, 0)[0]
    assert not plain(adopted.answered_for(2, kept), Silence)
    assert plain(adopted.answered_for(2, 1, 2), Back) == [Back("north", withheld)]


def test_an_agreement_that_an_epoch_leaves_out_is_silent(adopted):
    """Root starts the enclave with the list of before: nothing ended the agreement that the cameras are under."""
    enclave = adopted.enclave
    adopted.north.deliver(*adopted.under_both())
    adopted.answered_for(1, 1, 2)
    adopted.north.deliver(enclave.begin())
    events = adopted.answered_for(5, 1, 2)
    assert [event.agreement for event in plain(events, Silence) if event.node == "north"] == [2]
    events = adopted.north.deliver(enclave.succession(adopted.second))
    adopted.use(adopted.second)
    events += adopted.north.deliver(enclave.begin_agreement()) + adopted.answered_for(3, 2)
    assert Back("north", 2) in events and not plain(events, Silence)


def test_an_agreement_beside_the_latest_that_an_epoch_leaves_out_is_silent(adopted):
    """Each for cameras of its own: the node starts with the later one alone, for want of the other's keys or by root"""
    adopted.north.deliver(*adopted.under_both())
    adopted.answered_for(1, 1, 2)
    adopted.use(adopted.second)
    adopted.north.deliver(adopted.enclave.begin())
    events = adopted.answered_for(5, 1, 2)
    assert [event.agreement for event in plain(events, Silence) if event.node == "north"] == [1]


def test_an_agreement_is_not_missed_before_its_first_record_nor_where_the_node_went_on_to_the_next(adopted):
    """Of an agreement that was adopted nothing is due yet; one that a node left, stopped, has no last record."""
    enclave = adopted.enclave
    events = adopted.north.deliver(enclave.begin()) + adopted.answered_for(5, 1)
    adopted.use(adopted.second)
    events += adopted.north.deliver(enclave.begin()) + adopted.answered_for(5, 2)
    assert [event.node for event in plain(events, Silence)] == ["south"]


def test_a_node_that_is_silent_under_all_agreements_is_so_in_one_line(adopted):
    adopted.north.deliver(*adopted.under_both())
    events = adopted.answered_for(2, 1, 2) + adopted.answered_for(6)
    assert [(event.node, event.agreement) for event in plain(events, Silence)] == [("south", None), ("north", None)]
    events = adopted.answered_for(3, 1, 2)
    assert plain(events, Back) == [Back("north")] and not plain(events, Silence)


def test_a_succession_ends_no_other_nodes_agreement(adopted):
    """South sends what north's enclave said; then its own under north's connection."""
    south = adopted.connect("south")
    adopted.north.deliver(*adopted.under_both())
    last = adopted.enclave.succession(adopted.second)
    other = adopted.city.enclave()
    other.use(*adopted.city.under(adopted.first))
    south.deliver(other.begin())
    assert [type(event) for event in south.deliver(last)] == [Foreign]
    assert [type(event) for event in adopted.north.deliver(other.succession(adopted.second))] == [Foreign]
    assert set(adopted.beacons()) == {1, 2}
    south.close()


def test_an_altered_succession_ends_nothing(adopted):
    adopted.north.deliver(*adopted.under_both())
    last = adopted.enclave.succession(adopted.second)
    for at in (-1, -20, -400):
        assert [type(event) for event in adopted.north.deliver(damaged(last, at))] == [Altered]
    assert set(adopted.beacons()) == {1, 2}
    assert len(plain(adopted.north.deliver(last), Succeeded)) == 1, "the genuine one is still taken"


@pytest.mark.parametrize("key, digest", [("second", "first"), ("first", "second")])
def test_a_record_under_one_agreements_key_and_the_other_ones_digest_is_none(adopted, key, digest):
    adopted.north.deliver(*adopted.under_both())
    alert_key, kid, _ = adopted.city.under(getattr(adopted, key))
    adopted.enclave.use(alert_key, kid, getattr(adopted, digest).digest)
    for sealed in (adopted.enclave.succession(adopted.second), adopted.enclave.clip(alert=0)):
        events = adopted.north.deliver(sealed)
        assert [type(event) for event in events] == [Altered] and "does not open" in events[0].reason
    assert set(adopted.beacons()) == {1, 2}


def test_a_former_keys_holder_cannot_speak_under_the_new_key_id(adopted):
    adopted.north.deliver(*adopted.under_both())
    old_key, _, _ = adopted.city.under(adopted.first)
    _, kid, digest = adopted.city.under(adopted.second)
    adopted.enclave.use(old_key, kid, digest)
    assert [type(event) for event in adopted.north.deliver(adopted.enclave.clip(alert=0))] == [Altered]


def test_no_agreement_is_followed_by_an_older_one(adopted):
    """The new key's records say that the first agreement follows: numbers rise, no enclave says so."""
    adopted.north.deliver(*adopted.under_both())
    adopted.use(adopted.second)
    events = adopted.north.deliver(adopted.enclave.succession(adopted.first))
    assert [type(event) for event in events] == [Altered] and "has agreement 1 follow agreement 2" in events[0].reason
    assert set(adopted.beacons()) == {1, 2}


def test_a_succession_that_names_another_key_than_the_agreement_is_told(adopted):
    adopted.north.deliver(*adopted.under_both())
    event, = plain(adopted.north.deliver(adopted.enclave.succession(adopted.second, next_key=b"x" * 16)), Succeeded)
    assert event.next_key == b"x" * 16 and "the enclave contradicts the agreement" in event.todo
    assert "!!! agreement 1 ends, 2 follows: key 7878" in Screen().lines([event], 0)[0]


def test_who_is_none_of_the_next_agreements_recipients_is_told(change):
    change.north.deliver(change.enclave.begin())
    event, = plain(change.north.deliver(change.enclave.succession(change.second, next_key=bytes(16))), Succeeded)
    assert event.next_key is None and "names no key for this recipient" in event.todo
    assert "key none" in Screen().lines([event], 0)[0]


# -------------------------------------------------------------------------------------------------------- journal


def test_a_journal_that_the_release_before_wrote_is_taken_over(adopted, monkeypatch):
    """With its rows, gaps and pins: the column that is new is added."""
    adopted.north.deliver(*adopted.under_both())
    adopted.enclave.clip()
    adopted.north.deliver(adopted.enclave.clip())
    adopted.subscriber.poll(0)
    adopted.subscriber.close()
    adopted.north.close()
    path = str(adopted.city.config.journal)
    with Journal(path, 1) as journal:
        state, = journal.epochs(adopted.enclave.node)
        journal._base.execute("ALTER TABLE epoch RENAME TO newer")
        old = next(table for table in Journal.schema.split(";\n\n") if "TABLE epoch" in table)
        journal._base.execute(old.replace("            under BLOB NOT NULL,\n", ""))
        columns = "node, epoch, counter, began, high, named, closed, spoken, rolled, gaps"
        journal._base.execute("INSERT INTO epoch SELECT {} FROM newer".format(columns))
        journal._base.execute("DROP TABLE newer")
        without_others(journal)
        journal._base.execute("PRAGMA user_version=1")
    with Journal(path, 1) as journal:
        again, = journal.epochs(adopted.enclave.node)
    assert again.under == {} and again.gaps == state.gaps and state.under[adopted.first.digest].high == 4
    adopted.start()
    events = adopted.north.deliver(adopted.enclave.succession(adopted.second))
    assert seqs(events) == [5] and set(adopted.beacons()) == {2}


def test_a_journal_of_the_schema_before_remembers_its_ends(adopted):
    """Its values were a highest record and an end alone."""
    enclave = adopted.enclave
    adopted.north.deliver(*adopted.under_both(), enclave.succession(adopted.second))
    adopted.subscriber.poll(0)
    adopted.subscriber.close()
    adopted.north.close()
    with Journal(str(adopted.city.config.journal), 1) as journal:
        state, = journal.epochs(enclave.node)
        journal._base.execute("UPDATE epoch SET under=?", (cbor2.dumps(
            {digest: [one.high, one.end] for digest, one in state.under.items()}),))
        without_others(journal)
        journal._base.execute("PRAGMA user_version=2")
    ended_in = enclave.epoch
    adopted.start()
    events = adopted.north.deliver(enclave.begin(), enclave.clip(alert=0))
    assert plain(events, AfterEnd) == [AfterEnd("north", enclave.epoch, 2, adopted.first.digest, 3, ended_in)]


def test_more_than_a_window_of_what_cannot_be_opened_yet_does_not_stop_what_can(change, tmp_path):
    """An alert under the agreement that is known goes past any number of records that wait."""
    node, enclave = Node(change, tmp_path), change.enclave
    both = change.under_both()
    node.spool.put(both)
    change.use(change.second)
    node.spool.put([enclave.clip() for _ in range(3 * delivery.WINDOW)])
    change.use(change.first)
    node.spool.put([enclave.clip(alert=0)])
    node.run(lambda: enclave.seq in seqs(node.events))
    node.close()
