"""The subscriber: what it takes is stored before it is acknowledged, and passed on once."""

import dataclasses
import json
import os

import pytest

from edged.alerts import reports
from edged.alerts.journal import Entry, Journal
from edged.alerts.liveness import Back, Silence
from edged.alerts.record import Epoch, Heartbeat, Observation, seal_beacon
from edged.alerts.reports import Altered, Received, Skew
from edged.alerts.screen import Screen
from edged.alerts.sequence import EpochBegan, Gap, GapClosed, Replay
from edged.alerts.subscriber import Subscriber
from edged.enclave import wire
from edged.enclave.wire import MessageStatus, MessageType, RecordKind
from edged.errors import BusError, ConfigError, KeyRefused, MissingInput, SpoolError, VerificationFailed
from edged.trust.agreement import open_agreement
from twin import CITY_NS, City, Clock, Peer, cbor_claim, plain


@pytest.fixture
def city(tmp_path):
    return City(tmp_path / "city")


class Talk:
    """A subscriber and one listed node, node-1, connected to it."""

    def __init__(self, city, **more):
        self.city = city
        self.clock = Clock()
        self.curve = city.allow("node-1")
        self.enclave = city.enclave()
        self.more = more
        self.peer = None
        self.start()

    def start(self):
        self.subscriber = Subscriber(self.city.config, monotonic=self.clock.monotonic, clock_ns=self.clock.time_ns,
                                     **self.more)
        self.peer = Peer(self.subscriber, self.curve, self.city.public.curve)

    def restart(self, killed=True):
        """killed : nothing that is not on the disk survives."""
        self.peer.close()
        if killed:
            self.subscriber._router.close()
            self.subscriber._journal.close()
        else:
            self.subscriber.close()
        self.start()

    def close(self):
        self.peer.close()
        self.subscriber.close()


@pytest.fixture
def talk(city):
    made = Talk(city)
    yield made
    made.close()


def seqs(events):
    return [event.record.header.seq for event in plain(events, Received)]


# ------------------------------------------------------------------------------------------------- records


def test_records_are_opened_passed_on_in_order_and_acknowledged(talk):
    sent = [talk.enclave.begin(), talk.enclave.clip(), talk.enclave.clip(alert=0), talk.enclave.claim(b"fog")]
    events = talk.peer.deliver(*sent)
    received = plain(events, Received)
    assert [type(event.record) for event in received[:3]] == [Epoch, Observation, Observation]
    assert [event.record.kind for event in received] == [RecordKind.EPOCH, RecordKind.OBSERVATION, RecordKind.ALERT,
                                                         RecordKind.CAMERA]
    assert {event.node for event in received} == {"node-1"} and not any(event.late for event in received)
    assert talk.peer.acked == [(talk.enclave.epoch, seq) for seq in (1, 2, 3, 4)] and talk.peer.refused == []
    rows = [event.row for event in received]
    assert rows == sorted(set(rows)) and rows[0] > 0


def test_a_hello_is_answered_with_this_start_and_another_start_with_another(talk):
    talk.peer.hello()
    talk.subscriber.poll(0.3)
    talk.peer.take()
    first = talk.peer.welcomes[0]
    talk.restart()
    talk.peer.hello()
    talk.subscriber.poll(0.3)
    talk.peer.take()
    assert len(first) == 16 and talk.peer.welcomes[0] != first


def test_a_record_is_in_the_journal_before_it_is_acknowledged(city, monkeypatch):
    talk = Talk(city)
    steps = []
    write, send = Journal.write, talk.subscriber._router.send
    monkeypatch.setattr(Journal, "write",
                        lambda self, *args, **more: (write(self, *args, **more), steps.append("stored"))[0])
    monkeypatch.setattr(talk.subscriber._router, "send",
                        lambda peer, frames: steps.append(frames[0].decode()) or send(peer, frames))
    talk.peer.deliver(talk.enclave.begin())
    assert steps[0] == "stored" and "ack" in steps
    talk.close()


def test_nothing_is_acknowledged_once_the_journal_failed(talk, monkeypatch):
    """Also not by a consumer that tries again: what was counted in memory was not stored."""
    def full(*_, **__):
        raise SpoolError("journal.db: disk full")

    monkeypatch.setattr(Journal, "write", full)
    with pytest.raises(SpoolError):
        talk.peer.deliver(talk.enclave.begin())
    monkeypatch.undo()
    with pytest.raises(SpoolError):
        talk.subscriber.poll(0.1)
    talk.peer.take()
    assert talk.peer.acked == []
    talk.restart()
    talk.enclave.seq = 1
    assert seqs(talk.peer.deliver(talk.enclave.clip())) == [2]


def test_what_follows_a_message_that_was_lost_is_not_taken_until_it_came(talk):
    """A connection broke: no gap is reported, the run begins again."""
    begin, clips = talk.enclave.begin(), [talk.enclave.clip() for _ in range(3)]
    events = talk.peer.deliver(begin)
    talk.peer.number += 1  # clips[0], lost
    for sealed in clips[1:]:
        events += talk.peer.offer(sealed)
    events += talk.subscriber.poll(0.3)
    talk.peer.take()
    assert seqs(events) == [1] and talk.peer.agains == [talk.peer.run] and len(talk.peer.acked) == 1
    talk.peer.run, talk.peer.number = b"another ", 0
    events += talk.peer.deliver(*clips)
    assert seqs(events) == [1, 2, 3, 4] and not plain(events, Gap, Replay)


def test_a_run_that_was_begun_with_another_start_is_begun_again(talk):
    talk.peer.deliver(talk.enclave.begin())
    run, number = talk.peer.run, talk.peer.number
    talk.restart(killed=False)
    talk.peer.run, talk.peer.number = run, number
    talk.peer.offer(talk.enclave.clip())
    assert talk.subscriber.poll(0.3) == []
    talk.peer.take()
    assert talk.peer.agains == [run] and talk.peer.acked == []


# ------------------------------------------------------------------------------------- restarts, the consumer


def test_after_a_kill_the_events_that_were_not_taken_are_passed_on_again_with_their_rows(talk):
    """The consumer had them when it was killed: nobody knows what it did with them."""
    first = talk.peer.deliver(talk.enclave.begin(), talk.enclave.clip())
    talk.subscriber.poll(0)  # they were taken
    talk.enclave.clip()
    second = talk.peer.deliver(talk.enclave.clip(alert=1))
    talk.restart()
    again = talk.subscriber.poll(0)
    assert seqs(first) == [1, 2] and seqs(second) == [4] and again == second
    assert plain(again, Gap) and talk.peer.deliver(talk.enclave.clip())[0].record.header.seq == 5


def test_after_a_clean_end_nothing_is_passed_on_again(talk):
    talk.peer.deliver(talk.enclave.begin(), talk.enclave.clip())
    talk.restart(killed=False)
    assert talk.subscriber.poll(0) == []


def test_a_consumer_that_failed_in_the_middle_gets_its_events_again(city):
    talk = Talk(city)
    with pytest.raises(RuntimeError):
        with talk.subscriber:
            given = talk.peer.deliver(talk.enclave.begin())
            raise RuntimeError
    talk.peer.close()
    talk.start()
    assert talk.subscriber.poll(0) == given
    talk.close()


def test_a_record_that_was_counted_is_never_passed_on_again_by_a_later_start(talk):
    clip = [talk.enclave.begin(), talk.enclave.clip()]
    talk.peer.deliver(*clip)
    talk.subscriber.poll(0)
    talk.restart()
    events = talk.peer.deliver(*clip)
    assert seqs(events) == [] and plain(events, Replay) == [
        Replay("node-1", talk.enclave.epoch, 1, True), Replay("node-1", talk.enclave.epoch, 2, True)]
    assert len(talk.peer.acked) == 2, "acknowledged nevertheless, or it would come for ever"


def test_a_gap_is_known_over_a_restart_and_closed_by_the_record_that_comes_late(talk):
    talk.peer.deliver(talk.enclave.begin())
    held = talk.enclave.clip()
    assert plain(talk.peer.deliver(talk.enclave.clip()), Gap) == [Gap("node-1", talk.enclave.epoch, 2, 2)]
    talk.subscriber.poll(0)
    talk.restart()
    events = talk.peer.deliver(held)
    assert plain(events, GapClosed) and plain(events, Received)[0].late


def test_on_record_commits_before_the_acknowledgement_and_what_it_refuses_comes_to_it_again(city):
    seen, angry = [], [True]

    def commit(event):
        if angry[0] and event.record.header.seq == 2:
            raise OSError("consumer's disk full")
        seen.append(event.record.header.seq)

    talk = Talk(city, on_record=commit)
    with pytest.raises(OSError):
        talk.peer.deliver(talk.enclave.begin(), talk.enclave.clip(), talk.enclave.clip())
        talk.subscriber.poll(1)
    talk.peer.take()
    assert seen == [1] and (talk.enclave.epoch, 2) not in talk.peer.acked
    angry[0] = False
    talk.subscriber.poll(1)
    talk.subscriber.poll(0.2)
    talk.peer.take()
    assert seen == [1, 2, 3] and talk.peer.acked[-2:] == [(talk.enclave.epoch, 2), (talk.enclave.epoch, 3)]
    talk.close()


def test_after_a_kill_on_record_gets_what_it_had_not_taken(city):
    seen = []
    talk = Talk(city, on_record=lambda event: seen.append(event.row))
    talk.peer.deliver(talk.enclave.begin())
    talk.peer.deliver(talk.enclave.clip())
    last, seen[:] = seen[-1], []
    talk.restart()
    talk.subscriber.poll(0)
    assert seen == [last], "the same row, by which it can tell"
    talk.close()


def test_iterating_gives_the_events_one_by_one(talk):
    talk.peer.offer(talk.enclave.begin())
    talk.peer.offer(talk.enclave.clip())
    events = iter(talk.subscriber)
    assert seqs([next(events) for _ in range(3)]) == [1, 2]


def test_the_journal_forgets_the_oldest_rows_that_were_taken(tmp_path):
    with Journal(str(tmp_path / "journal.db"), keep_rows=10) as journal:
        entries = [Entry("silence", {"node": "n", "since_s": 1.0}, {"type": "silence"})] * 100
        for _ in range(25):
            rows = journal.write(entries)
        assert len(journal.read(0, -1)) == rows[-1] == 2500, "nothing was taken, nothing is forgotten"
        for _ in range(12):
            rows = journal.write(entries, taken=rows[-1])
        kept = [row for row, _ in journal.read(0, -1)]
        assert kept[-1] == rows[-1] == 3700 and 10 <= len(kept) <= 1100


# -------------------------------------------------------------------------------------- beacons and heartbeats


def test_a_node_gets_beacons_once_its_salt_is_known_and_its_answers_prove_it_alive(talk):
    talk.peer.hello()
    talk.subscriber.poll(0.3)
    talk.peer.take()
    assert talk.peer.beacons == [], "no salt, no beacon"
    talk.peer.deliver(talk.enclave.begin())
    for _ in range(3):
        beacon, _ = talk.peer.beacon()
        assert isinstance(plain(talk.peer.deliver(talk.enclave.heartbeat(beacon)), Received)[0].record, Heartbeat)
        talk.clock.ahead_s += 1.0
    assert not talk.subscriber.status()[0].silent and talk.subscriber.status()[0].connected


def test_beacons_are_authentic_and_their_time_rises_whatever_our_clock_does(talk):
    talk.peer.deliver(talk.enclave.begin())
    times = []
    for jump_s in (0, 3600, -7200, 0):
        talk.clock.wall_ahead_s += jump_s
        talk.clock.ahead_s += 1.0
        sealed, _ = talk.peer.beacon()
        beacon = wire.Beacon.unpack(sealed)
        times.append(beacon.time_ns)
        assert sealed == seal_beacon(talk.enclave.alert_key, talk.enclave.salt, talk.enclave.rcpt, talk.enclave.digest,
                                     beacon.time_ns, beacon.nonce)
    assert times == sorted(set(times)) and abs(times[0] - talk.clock.time_ns()) < 7300 * 10 ** 9


def test_beacons_go_on_rising_after_a_restart_with_a_clock_set_back(talk):
    talk.clock.wall_ahead_s = 10 ** 6
    talk.peer.deliver(talk.enclave.begin())
    first, _ = talk.peer.beacon()
    talk.peer.deliver(talk.enclave.heartbeat(first))
    talk.clock.wall_ahead_s = 0
    talk.restart()
    talk.peer.hello()
    second, _ = talk.peer.beacon()
    assert wire.Beacon.unpack(second).time_ns > wire.Beacon.unpack(first).time_ns


def test_a_new_epoch_gets_a_beacon_of_its_own_at_once(tmp_path):
    talk = Talk(City(tmp_path / "city", period_s=60))
    talk.peer.deliver(talk.enclave.begin())
    talk.peer.beacon()
    talk.peer.deliver(talk.enclave.clip())
    assert talk.subscriber.poll(0.3) == []
    talk.peer.take()
    assert talk.peer.beacons == [], "none is due"
    talk.peer.deliver(talk.enclave.begin())
    beacon, _ = talk.peer.beacon()
    assert plain(talk.peer.deliver(talk.enclave.heartbeat(beacon)), Received)
    talk.close()


def test_a_node_that_stops_answering_is_silent_and_one_that_answers_again_is_back(talk):
    talk.peer.deliver(talk.enclave.begin())
    beacon, _ = talk.peer.beacon()
    talk.peer.deliver(talk.enclave.heartbeat(beacon))
    events = []
    for _ in range(8):
        talk.clock.ahead_s += 0.5
        events += talk.subscriber.poll(0.01)
    assert [event.node for event in plain(events, Silence)] == ["node-1"] and talk.subscriber.status()[0].silent
    talk.peer.take()
    talk.peer.beacons.clear()
    talk.clock.ahead_s += 1.0
    beacon, _ = talk.peer.beacon()
    assert Back("node-1") in talk.peer.deliver(talk.enclave.heartbeat(beacon))


def test_a_listed_node_that_never_came_is_reported_as_silent(city):
    talk = Talk(city)
    city.allow("node-2")
    events = []
    for _ in range(8):
        talk.clock.ahead_s += 0.6
        events += talk.subscriber.poll(0.01)
    assert sorted(event.node for event in plain(events, Silence)) == ["node-1", "node-2"]
    talk.close()


# --------------------------------------------------------------------------------------------- clocks, claims


def test_a_node_whose_clock_is_off_is_reported_once_and_once_more_when_it_is_right_again(talk):
    enclave = talk.enclave
    hour = 3600 * 10 ** 9
    events = talk.peer.deliver(enclave.begin(), enclave.clip(), enclave.clip(claimed_ns=CITY_NS + hour),
                               enclave.clip(claimed_ns=CITY_NS + hour), enclave.clip(),
                               enclave.clip(time_ns=0, claimed_ns=5))
    assert plain(events, Skew) == [Skew("node-1", 3600.0), Skew("node-1", 0.0)]


def test_lines_for_programs_are_json_and_name_what_an_alert_is(talk):
    enclave = talk.enclave
    events = talk.peer.deliver(enclave.begin(), enclave.clip(alert=0, status=MessageStatus.EXERCISE),
                               enclave.claim(cbor_claim(state="lost", reason="\x1b[31m")), enclave.claim(b"\xff\xfe"))
    made = [json.loads(line) for line in Screen(True, True).lines(events, CITY_NS)]
    assert [line["type"] for line in made] == ["record", "epoch_began", "record", "record", "record"]
    alert = made[2]
    assert (alert["kind"], alert["label"], alert["score"], alert["camera"], alert["tracks"], alert["time"]) == (
        "alert", "falling", 0.97, "gate", [3], "2027-01-15T08:00:00.000Z")
    assert (alert["status"], alert["message"], alert["node"], alert["seq"], alert["clip"]) == (
        "Exercise", "Alert", "node-1", 2, 1)
    assert made[3]["claim"] == {"state": "lost", "reason": "\x1b[31m"} and made[4]["claim"] == "fffe"


def test_lines_for_people_mark_exercises_leave_out_routine_and_hold_no_control_character(talk):
    enclave = talk.enclave
    events = talk.peer.deliver(enclave.begin(), enclave.clip(), enclave.clip(alert=0),
                               enclave.clip(alert=1, status=MessageStatus.EXERCISE),
                               enclave.claim(cbor_claim(x="\x1b[31m")))
    made = Screen(False, False).lines(events, CITY_NS)
    assert len(made) == 4 and "epoch 1 began" in made[0]
    assert made[1].split() == [
        "2027-01-15T08:00:00Z", "node-1", "gate", "ALERT", "falling", "0.97", "tracks", "3", "clip", "2"]
    assert "*** EXERCISE *** ALERT jumping 0.97" in made[2] and "EXERCISE" not in made[1]
    assert all(line.isprintable() for line in made)
    assert len(Screen(False, True).lines(events, CITY_NS)) == 6


def test_an_alert_that_goes_on_is_one_line_until_somebody_new_falls_or_it_was_never_shown(talk):
    enclave = talk.enclave
    events = talk.peer.deliver(enclave.begin(), *[enclave.clip(alert=0, **more) for more in (
        {}, dict(message=MessageType.UPDATE), dict(message=MessageType.UPDATE, tracks=(3, 9)),
        dict(message=MessageType.UPDATE, tracks=(9,)), dict(message=MessageType.CANCEL))])
    shown = Screen().lines([event for event in events if isinstance(event, Received)], CITY_NS)
    assert [line.split()[3] for line in shown] == ["ALERT", "UPDATE", "CANCEL"] and "tracks 3 9" in shown[1]
    late = Screen().lines([event for event in events if isinstance(event, Received)][2:4], CITY_NS)
    assert [line.split()[3] for line in late] == ["UPDATE", "UPDATE"]  # its Alert was not seen here


def test_an_alert_that_goes_on_is_shown_again_after_a_while_for_it_may_be_another_fall_of_the_same_people(talk):
    enclave, second = talk.enclave, 10 ** 9
    events = [event for event in talk.peer.deliver(enclave.begin(), enclave.clip(alert=0), *[
        enclave.clip(alert=0, message=MessageType.UPDATE, claimed_ns=CITY_NS + at * second)
        for at in (1, 9, 10, 11, 600)])
        if isinstance(event, Received) and isinstance(event.record, Observation)]
    screen = Screen()
    shown = [bool(screen.lines([event], CITY_NS)) for event in events]
    assert shown == [True, False, False, True, False, True]
    # The same claimed time again and again does not keep it quiet: this machine's clock counts, too.
    later = dataclasses.replace(events[1], received_ns=events[-1].received_ns + 10 * second)
    assert screen.lines([dataclasses.replace(later, record=events[-1].record)], CITY_NS)


def test_every_event_has_a_line_and_is_rebuilt_from_its_fields():
    from edged.alerts.liveness import JudgesAgain, JudgesNothing, StaleHeartbeat
    from edged.alerts.reports import AgreementEnd, Expired, Foreign, Succeeded, Suppressed
    from edged.alerts.sequence import AfterEnd, Rollback
    import cbor2
    epoch = b"E" * 16
    for event in (Gap("n", epoch, 1, 2), GapClosed("n", epoch, 1, 1), Replay("n", epoch, 1, False),
                  Replay("n", epoch, 1, True), EpochBegan("n", epoch, 2, True, b"P" * 16, ((1, 2), (4, 4)), 3),
                  EpochBegan("n", epoch, 2, False, bytes(16), (), 0, b"U" * 16),
                  Rollback("n", epoch, "r"), Silence("n", 3.5), Back("n"), Silence("n", 3.5, 2), Back("n", 2),
                  StaleHeartbeat("n", None),
                  StaleHeartbeat("n", 4.5), Altered("n", "r"), Foreign("n", "r"), Skew("n", -90.0),
                  Skew("n", 0.0), Suppressed("n", "gap", 4), AfterEnd("n", epoch, 5, b"D" * 32, 4),
                  AfterEnd("n", epoch, 5, b"D" * 32, 4, b"O" * 16), Expired("n", epoch, 5, 1, 90.5, False),
                  Expired("n", epoch, 5, 1, 90.5, True), JudgesNothing("n", 61.5), JudgesAgain("n"),
                  AgreementEnd(3, 2000000000, 9.5, ("a", "b")), AgreementEnd(3, 2000000000, -9.5, ()),
                  Succeeded("n", 1, 2, b"D" * 32, b"K" * 16, ""), Succeeded("n", 1, 2, b"D" * 32, None, "adopt")):
        content = cbor2.loads(cbor2.dumps(reports.content(event)))
        assert reports.rebuilt(reports.NAMES[type(event)], content) == event
        assert json.loads(Screen(True, False).lines([event], 0)[0])["type"] == reports.NAMES[type(event)]
        assert len(Screen(False, True).lines([event], 0)) == 1


def test_of_an_epochs_beginning_what_is_wrong_is_loud_and_what_is_not_is_quiet():
    def said(*fields):
        line, = Screen().lines([EpochBegan("n", b"E" * 16, 4, *fields)], 0)
        return line.split(None, 3)[3]

    before, lost = b"P" * 16, b"U" * 16
    assert said(False, before, (), 0) == "epoch 4 began, after epoch 50505050.."
    assert said(False, before, (), 2) == "epoch 4 began, after epoch 50505050..: 2 in between had no " \
        "records for this recipient"
    assert said(True, bytes(16), (), 0) == "epoch 4 began, the first that its enclave knows"
    assert said(True, before, (), 0).startswith("!!! epoch 4 began, after epoch 50505050..: UNCLEAN: ")
    for previous, hidden in ((before, 2), (bytes(16), 0)):
        assert said(False, previous, (), hidden, lost).startswith("!!! epoch 4 began, ")
        assert ": END UNKNOWN: nothing says which was the last record of epoch 55555555.." in said(
            False, previous, (), hidden, lost)


def test_an_epoch_that_lost_thousands_of_records_here_and_there_is_still_one_line_that_fits_a_screen():
    lost = tuple((seq, seq) for seq in range(2, 20000, 2))
    line, = Screen(False, True).lines([EpochBegan("n", b"E" * 16, 2, True, b"P" * 16, lost, 0)], 0)
    assert "record 2, record 4, " in line and "and {} more of it never came".format(len(lost) - 8) in line
    assert len(line) < 300


# ----------------------------------------------------------------------------------------------- several agreements


def test_records_under_the_agreement_before_are_still_opened_after_a_change(tmp_path):
    city = City(tmp_path / "city")
    talk = Talk(city)
    old = talk.enclave
    waiting = [old.begin(), old.clip(alert=0)]
    (city.folder / "agreement-2.cose").write_bytes(city.agree(number=2))
    file = city.folder / "subscriber.toml"
    file.write_text(file.read_text().replace('["agreement-1.cose"]', '["agreement-2.cose", "agreement-1.cose"]'))
    talk.restart()
    new = city.enclave(node=old.node)
    new.digest = open_agreement((city.folder / "agreement-2.cose").read_bytes()).digest
    new.counter, new.epoch, new.seq = old.counter, old.epoch, old.seq
    events = talk.peer.deliver(*waiting, new.begin(), new.clip(alert=1))
    assert seqs(events) == [1, 2, 1, 2] and not plain(events, Altered)
    talk.close()


def test_several_agreements_in_force_share_a_sequence_and_each_gets_its_beacons(tmp_path):
    city = City(tmp_path / "city", period_s=60)
    (city.folder / "agreement-2.cose").write_bytes(city.agree(number=2, beacon_period_s=60))
    file = city.folder / "subscriber.toml"
    file.write_text(file.read_text().replace('["agreement-1.cose"]', '["agreement-2.cose", "agreement-1.cose"]'))
    talk = Talk(city)
    enclave = talk.enclave
    first, second = enclave.digest, open_agreement((city.folder / "agreement-2.cose").read_bytes()).digest
    begin = enclave.begin()
    enclave.digest = second
    events = talk.peer.deliver(begin, enclave.begin_agreement())
    enclave.digest = first
    events += talk.peer.deliver(enclave.clip(alert=0))
    assert seqs(events) == [1, 2, 3] and len(plain(events, EpochBegan)) == 1 and len(talk.peer.acked) == 3
    for started_anew in (False, True):
        if started_anew:
            talk.restart()
            talk.peer.hello()
        else:
            talk.peer.beacons.clear()
            talk.clock.ahead_s += 60
        beacons = [talk.peer.beacon()[0], talk.peer.beacon()[0]]
        answers = [wire.Beacon.unpack(beacon) for beacon in beacons]
        tagged = [digest for digest in (first, second) for beacon, asked in zip(beacons, answers)
                  if beacon == seal_beacon(enclave.alert_key, enclave.salt, enclave.rcpt, digest, asked.time_ns,
                                           asked.nonce)]
        assert tagged == [first, second], "one each"
        assert len({asked.time_ns for asked in answers}) == 2
    talk.close()


# ------------------------------------------------------------------------------------------- what it is given


def test_a_port_in_use_is_one_line(talk):
    config = talk.city.folder / "subscriber.toml"
    config.write_text(config.read_text().replace("tcp://127.0.0.1:0", talk.subscriber.address))
    with pytest.raises(BusError, match="address in use: stop the other, or choose another port") as caught:
        Subscriber(talk.city.config)
    assert caught.value.exit_code == 69


def with_line(city, key, line):
    """The configuration with another line for a key."""
    path = city.folder / "subscriber.toml"
    lines = [line if old.startswith(key + " ") else old for old in path.read_text().splitlines()]
    path.write_text("\n".join(lines) + "\n")
    return city


@pytest.mark.parametrize("key, line, error, words", [
    ("bind", 'bind = "udp://x"', ConfigError, r"subscriber.toml:3: bind: .*tcp://ADDRESS:PORT"),
    ("bind", 'colour = "red"', ConfigError, r"subscriber.toml:3: colour: unknown key"),
    ("schema", "schema = 2", ConfigError, r"subscriber.toml:2: schema: 2: this edged reads schema 1"),
    ("mo", 'mo = "00"', ConfigError, "mo: .*64 digits"),
    ("mo", 'mo = "{}"'.format("00" * 32), VerificationFailed, "its model owner is"),
    ("qdo", 'qdo = "{}"'.format("11" * 32), VerificationFailed, "its query data owner is"),
    ("recipient", 'recipient = "{}"'.format("22" * 16), ConfigError, "does not name recipient 2222"),
    ("alert_key_id", 'alert_key_id = "{}"'.format("33" * 16), ConfigError, "with alert key 3333"),
    ("alert_key", 'alert_key = "absent.key"', MissingInput, "absent.key: No such file"),
    ("curve_key", 'curve_key = "data.key"', KeyRefused, "data.key: not a key of 40 raw bytes"),
    ("agreements", 'agreements = ["absent.cose"]', ConfigError, "agreements: .*absent.cose: No such file"),
    ("nodes", 'nodes = "absent.toml"', MissingInput, "absent.toml"),
    ("journal", 'journal = "curve.key"', SpoolError, r"curve.key: damaged \(file is not a database\)"),
    ("journal", 'journal = "/proc/none/journal.db"', SpoolError, "/proc/none/journal.db: "),
])
def test_a_wrong_configuration_is_one_line(city, key, line, error, words):
    with pytest.raises(error, match=words) as caught:
        Subscriber(with_line(city, key, line).config)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("table, error, words", [
    ('alert_key = "alert-city.key"', ConfigError, r"subscriber.toml:1\d: former.alert_key_id: is missing"),
    ('alert_key = "absent.key"\nalert_key_id = "{}"'.format("44" * 16), MissingInput, "absent.key: No such file"),
    ('alert_key = "curve.key"\nalert_key_id = "{}"'.format("44" * 16), KeyRefused, "not a key of 16 or 32"),
    ('alert_key = "alert-city.key"\nalert_key_id = "{}"\nname = "x"'.format("44" * 16), ConfigError,
     "former.name: unknown key"),
])
def test_a_wrong_former_key_is_one_line(city, table, error, words):
    path = city.folder / "subscriber.toml"
    path.write_text("{}\n[[former]]\n{}\n".format(path.read_text(), table))
    with pytest.raises(error, match=words) as caught:
        Subscriber(city.config)
    assert "\n" not in str(caught.value)


def test_another_citys_alert_key_opens_nothing_and_is_told(tmp_path):
    """The file has the right size and the wrong key: no record opens."""
    city = City(tmp_path / "city")
    enclave = city.enclave()
    (city.folder / "alert-city.key").write_bytes(os.urandom(32))
    talk = Talk(city)
    events = talk.peer.deliver(enclave.begin())
    assert [type(event) for event in events] == [Altered] and talk.peer.acked == []
    talk.close()


def test_the_citys_side_needs_neither_numpy_nor_opencv():
    import subprocess
    import sys
    code = ("import sys\nfor name in ('numpy', 'cv2', 'onnx', 'torch'): sys.modules[name] = None\n"
            "from edged.alerts import subscriber, outbox, keys\nfrom edged import city, install\n"
            "try: city.main(['listen', '--help'])\nexcept SystemExit as end: sys.exit(end.code)")
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", code], stdout=subprocess.DEVNULL).returncode == 0
