"""Root of a node, or whoever holds the network, between the enclave and the city's screen.

What it can do is withhold; everything it does is reported by name, and nothing false is passed on. The enclave is
played by tests/twin.py, which seals as trusty_ta does.
"""

import os
import random
import shlex
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edged import config as configuration
from edged import city, install
from edged.alerts import delivery, nodes, throttle
from edged.alerts.liveness import Back, Silence, StaleHeartbeat
from edged.alerts.record import split_record
from edged.alerts.reports import Altered, Foreign, Received, Suppressed
from edged.alerts.screen import Screen
from edged.alerts.sequence import EpochBegan, Gap, GapClosed, Replay, Rollback
from edged.alerts.spool import Spool
from edged.alerts.subscriber import Subscriber
from edged.bus import Dealer, generate_keys
from edged.enclave import wire
from edged.errors import KeyRefused
from twin import CITY_NS, ROOMY, City, Clock, Peer, admits_nobody, damaged, plain


class Field:
    """A city, and two of its nodes in the attacker's hands."""

    def __init__(self, folder):
        self.guard = admits_nobody()
        self.city = City(folder / "city", recipients=("city", "police"))
        self.clock = Clock()
        self.curve = {name: self.city.allow(name) for name in ("north", "south")}
        self.enclave = {name: self.city.enclave() for name in self.curve}
        self.subscriber = Subscriber(self.city.config, monotonic=self.clock.monotonic, clock_ns=self.clock.time_ns)
        self.peers = []
        self.north, self.south = self.connect("north"), self.connect("south")

    def connect(self, name, curve=None):
        self.peers.append(Peer(self.subscriber, curve or self.curve[name], self.city.public.curve))
        return self.peers[-1]

    def silent_for(self, seconds):
        """Time passes, the subscriber runs; its events."""
        events = []
        for _ in range(int(seconds / 0.5)):
            self.clock.ahead_s += 0.5
            events += self.subscriber.poll(0)
        return events

    def close(self):
        for peer in self.peers:
            peer.close()
        self.subscriber.close()
        self.guard.close()


@pytest.fixture
def field(tmp_path):
    made = Field(tmp_path)
    yield made
    made.close()


@pytest.fixture
def enclave(field):
    return field.enclave["north"]


def seqs(events):
    return [event.record.header.seq for event in plain(events, Received)]


# ------------------------------------------------------------------------------ withheld, replayed, reordered


def test_withheld_records_are_a_gap_by_their_numbers(field, enclave):
    field.north.deliver(enclave.begin(), enclave.clip())
    for _ in range(3):
        enclave.clip(alert=0)
    assert plain(field.north.deliver(enclave.clip()), Gap) == [Gap("north", enclave.epoch, 3, 5)]


def test_the_last_records_withheld_before_an_orderly_end_are_named_by_the_next_epoch(field, enclave):
    field.north.deliver(enclave.begin(), enclave.clip())
    old = enclave.epoch
    enclave.clip(alert=0)
    events = field.north.deliver(enclave.begin())
    assert plain(events, EpochBegan)[0].lost == ((3, 3),) and Gap("north", old, 3, 3) in events


def test_everything_withheld_is_silence_whatever_the_connection_says(field, enclave):
    field.north.deliver(enclave.begin())
    beacon, _ = field.north.beacon()
    field.north.deliver(enclave.heartbeat(beacon))
    events = []
    for _ in range(8):
        events += field.north.hello() + field.silent_for(0.5)
    assert "north" in [event.node for event in plain(events, Silence)]


@pytest.mark.parametrize("by", ["same connection", "another connection", "after a restart"])
def test_replayed_records_are_reported_and_not_passed_on(field, enclave, by):
    sent = [enclave.begin()] + [enclave.clip(alert=0) for _ in range(delivery.WINDOW + 3)]
    assert len(seqs(field.north.deliver(*sent))) == len(sent)
    peer = field.north
    if by == "another connection":
        peer = field.connect("north")
    elif by == "after a restart":
        field.subscriber.close()
        field.subscriber = Subscriber(field.city.config)
        peer = field.connect("north")
    events = peer.deliver(sent[1], sent[-1])
    assert seqs(events) == [] and plain(events, Replay) == [
        Replay("north", enclave.epoch, 2, False), Replay("north", enclave.epoch, len(sent), True)]


def test_a_replay_after_the_epoch_ended_is_reported(field, enclave):
    alert = [enclave.begin(), enclave.clip(alert=0)]
    old = enclave.epoch
    field.north.deliver(*alert)
    field.north.deliver(enclave.begin(), enclave.clip())
    events = field.north.deliver(alert[1])
    assert seqs(events) == [] and plain(events, Replay)[0].epoch == old


def test_reordered_records_are_each_passed_on_once_and_marked_late(field, enclave):
    begin = enclave.begin()
    clips = [enclave.clip() for _ in range(6)]
    field.north.deliver(begin)
    events = field.north.deliver(*[clips[index] for index in (3, 0, 5, 4, 1, 2)])
    assert [(event.record.header.seq, event.late) for event in plain(events, Received)] == [
        (5, False), (2, True), (7, False), (6, True), (3, True), (4, True)]
    assert len(plain(events, Gap)) == len(plain(events, GapClosed)) == 2


# ------------------------------------------------------------------------------------------------- altered


def test_a_record_altered_anywhere_is_refused_by_name_and_never_passed_on(field, enclave):
    """One bit in each part: head, every field of the header, ciphertext, tag."""
    field.north.deliver(enclave.begin())
    sealed = enclave.clip(alert=0)
    header = split_record(sealed)[1]
    start = wire.RecordHead.size()
    places = [0, 4, start]
    for field_name in (b"ckid", b"cseq", b"dkind", b"dnode", b"drcpt", b"dsalt", b"eepoch"):
        places += [start + header.index(field_name), start + header.index(field_name) + len(field_name) + 1]
    places += [start + len(header), len(sealed) - 17, len(sealed) - 1]
    for at in places:
        events = field.north.deliver(damaged(sealed, at), until=lambda events: plain(events, Altered, Foreign))
        assert plain(events, Received) == [] and len(events) == 1, at
        told = events[0]
        assert told.node == "north" if isinstance(told, Altered) else told.who == "north"
        field.subscriber._throttle = throttle.Throttle()
    assert len(field.north.acked) == 1
    assert seqs(field.north.deliver(sealed)) == [2], "the genuine one is still taken"


def test_a_refused_record_is_never_acknowledged_so_that_the_outbox_keeps_it(field, enclave):
    field.north.deliver(enclave.begin())
    field.north.deliver(damaged(enclave.clip()))
    assert field.north.acked == [(enclave.epoch, 1)] and field.north.refused == [(enclave.epoch, 2)]


@pytest.mark.parametrize("frames", [[b"record"], [b"record", b""], [b"record", b"x" * 600], [b"nonsense", b"y"], [b""],
                                    [b"ack", b"\x80"], [b"record", b"a", b"b"]])
def test_messages_that_are_none_of_ours_are_reported_and_harm_nothing(field, enclave, frames):
    field.north.send(*frames)
    events = []
    while not events:
        events = field.subscriber.poll(1)
    assert [type(event) for event in events] == [Altered] and events[0].node == "north"
    assert seqs(field.north.deliver(enclave.begin())) == [1]


def test_a_flood_is_counted_instead_of_reported_one_by_one(field, enclave):
    field.north.deliver(enclave.begin())
    bad = damaged(enclave.clip())
    events = field.north.deliver(*[bad] * 60)
    assert len(plain(events, Altered)) == throttle.BURST and len(field.north.refused) == 60
    assert Suppressed("north", "altered", 60 - throttle.BURST) in field.silent_for(throttle.WINDOW_S + 1)


# ------------------------------------------------------------------------------------------ harvested heartbeats


def test_harvested_heartbeats_prove_nothing(field, enclave):
    """Root has the enclave answer beacons, keeps the answers, stops the enclave and plays them later."""
    field.north.deliver(enclave.begin())
    harvest, events = [], []
    for _ in range(3):
        beacon, seen = field.north.beacon()
        harvest.append(enclave.heartbeat(beacon))
        events += seen + field.silent_for(1.0)
    events += field.silent_for(3.0)
    for sealed in harvest:
        events += field.north.deliver(sealed)
    assert [event.node for event in plain(events, Silence) if event.node == "north"] == ["north"]
    assert [event.node for event in plain(events, StaleHeartbeat)] == ["north"] * 3 and not plain(events, Back)


def test_an_answer_to_the_beacon_of_another_node_or_of_nobody_proves_nothing(field, enclave):
    other = field.enclave["south"]
    field.north.deliver(enclave.begin())
    field.south.deliver(other.begin())
    theirs, _ = field.south.beacon()
    forged = wire.Beacon(1, enclave.rcpt, 5, b"f" * 16, bytes(32)).pack()
    events = field.north.deliver(enclave.heartbeat(theirs), enclave.heartbeat(forged))
    assert plain(events, StaleHeartbeat) == [StaleHeartbeat("north", None)] * 2


# ---------------------------------------------------------------------------------------------- epochs, rollback


def test_a_hidden_epoch_is_owed_by_the_one_that_follows(field, enclave):
    field.north.deliver(enclave.begin(), enclave.clip())
    enclave.begin()
    hidden = enclave.epoch
    for _ in range(4):
        enclave.clip(alert=0)
    events = field.north.deliver(enclave.begin(unclean=True))
    began = plain(events, EpochBegan)[0]
    assert began.unclean and began.previous == hidden and began.lost == ((1, 5),) and began.hidden == 1
    assert Gap("north", hidden, 1, 5) in events


def test_what_was_withheld_before_epochs_that_were_closed_in_secret_is_owed(field, enclave):
    """Root withholds an alert, has the enclave close its epoch, and close again, and then agree: in between nobody had
    a record, so nothing is missing there."""
    field.north.deliver(enclave.begin(), enclave.clip())
    old = enclave.epoch
    withheld = enclave.clip(alert=0)
    enclave.pass_by()
    enclave.pass_by()
    events = field.north.deliver(enclave.begin())
    began = plain(events, EpochBegan)[0]
    assert (began.previous, began.lost, began.hidden, began.untold) == (old, ((3, 3),), 2, None)
    assert Gap("north", old, 3, 3) in events and not plain(events, Rollback)
    assert GapClosed("north", old, 3, 3) in field.north.deliver(withheld)


def test_an_enclave_that_forgot_the_epoch_before_is_loud(field, enclave):
    """As enclaves of releases before are: nothing says that the alert was ever sealed, but that it may have been."""
    field.north.deliver(enclave.begin(), enclave.clip())
    old = enclave.epoch
    enclave.clip(alert=0)
    enclave.pass_by(remembered=False)
    events = field.north.deliver(enclave.begin())
    assert plain(events, EpochBegan)[0].untold == old and not plain(events, Gap)
    said = [line for line in Screen().lines(events, CITY_NS) if "began" in line]
    assert len(said) == 1 and "!!! epoch 3 began" in said[0] and (
        "END UNKNOWN: nothing says which was the last record of epoch {}..".format(old[:4].hex()) in said[0])


def test_hiding_the_record_that_begins_an_epoch_leaves_a_gap(field, enclave):
    field.north.deliver(enclave.begin())
    enclave.begin(unclean=True)
    assert Gap("north", enclave.epoch, 1, 1) in field.north.deliver(enclave.clip())


@pytest.mark.parametrize("hidden", [False, True])
def test_a_sealed_state_that_was_set_back_is_reported(field, enclave, hidden):
    """What the enclave said since the copy is to be forgotten; also where its epoch record is withheld before."""
    field.north.deliver(enclave.begin(), enclave.clip())
    copied = enclave.epoch, enclave.seq, enclave.counter
    begin = [enclave.begin()]
    second = enclave.epoch
    field.north.deliver(*begin[hidden:], enclave.clip(), enclave.clip())
    enclave.epoch, enclave.seq, enclave.counter = copied
    told = plain(field.north.deliver(enclave.begin(unclean=True)), Rollback)
    assert [event.node for event in told] == ["north"] and second.hex() in told[0].epoch.hex() + told[0].reason


def test_a_sealed_state_that_was_removed_is_reported(field, enclave):
    """Until the epochs are as many again, and one more: each of them shows it."""
    for _ in range(2):
        field.north.deliver(enclave.begin(), enclave.clip())
    old = enclave.epoch
    fresh = enclave.begin(unclean=True, counter=1, previous=bytes(16), previous_seq=0)
    events = field.north.deliver(fresh)
    assert plain(events, Rollback) and plain(events, EpochBegan)[0].untold == old
    assert any("END UNKNOWN" in line for line in Screen().lines(events, CITY_NS))
    later = [field.north.deliver(enclave.begin()) for _ in range(3)]
    assert [len(plain(events, Rollback)) for events in later] == [1, 1, 0]
    assert not any(plain(events, EpochBegan)[0].untold for events in later), "told once"


# --------------------------------------------------------------------------------- others' keys, others' records


def test_another_recipients_record_is_refused_by_name(field):
    police = field.city.enclave(recipient=1)
    events = field.north.deliver(police.begin())
    assert events == [Foreign("north", "record seq 1 is for recipient {}".format(police.rcpt.hex()))]
    assert field.north.acked == []


def test_another_citys_record_is_refused_whatever_ids_it_bears(field, tmp_path, enclave):
    """First under its own ids, then under ours: the key decides."""
    other = City(tmp_path / "other").enclave()
    assert isinstance(field.north.deliver(other.begin())[0], Foreign)
    other.rcpt = enclave.rcpt
    assert "sealed under key {}, not ours".format(other.kid.hex()) in field.north.deliver(other.begin())[0].reason
    other.kid = enclave.kid
    for digest in (other.digest, enclave.digest):
        other.digest = digest
        told = field.north.deliver(other.begin())[0]
        assert isinstance(told, Altered) and "does not open" in told.reason
    assert field.north.acked == []


def test_a_record_moved_to_another_agreement_does_not_open(field, enclave):
    enclave.digest = os.urandom(32)
    assert isinstance(field.north.deliver(enclave.begin())[0], Altered)


def test_a_record_of_another_node_is_refused_once_the_nodes_are_known(field, enclave):
    """South's enclave cannot speak through north's connection, nor take north's place."""
    south = field.enclave["south"]
    field.north.deliver(enclave.begin())
    field.south.deliver(south.begin())
    told = field.north.deliver(south.clip())
    assert told == [Foreign("north", "record seq 2 is of node {}, pinned is {}".format(
        south.node.hex(), enclave.node.hex()))]
    assert field.north.acked == [(enclave.epoch, 1)]
    assert seqs(field.south.deliver(south.clip())) == [3]


def test_what_was_refused_of_a_new_board_comes_again_once_it_is_pinned(field, enclave):
    """A node's outbox keeps what was refused until the subscriber's next start, or what it takes for one."""
    field.north.deliver(enclave.begin())
    first = field.subscriber._start
    stranger = field.city.enclave()
    assert isinstance(field.north.deliver(stranger.begin())[0], Foreign)
    nodes.pin(str(field.city.nodes_file), "north", stranger.node)
    deadline = time.monotonic() + 10
    while field.subscriber._start == first:
        assert time.monotonic() < deadline
        field.subscriber.poll(0.1)
    assert seqs(field.north.deliver(stranger.begin(counter=1, previous=bytes(16), previous_seq=0))) == [1]


def test_a_new_board_of_which_nothing_comes_is_silent_though_the_former_one_answered(field, enclave):
    """Its line is cut, or root delivers what the former one says: that nothing is due must not count as an answer."""
    field.north.deliver(enclave.begin())
    beacon, _ = field.north.beacon()
    field.north.deliver(enclave.heartbeat(beacon))
    nodes.pin(str(field.city.nodes_file), "north", os.urandom(16))
    events = field.silent_for(4.0)
    events += field.north.deliver(enclave.clip(alert=0)) + field.silent_for(4.0)
    assert [event.node for event in plain(events, Silence) if event.node == "north"] == ["north"]
    assert next(one for one in field.subscriber.status() if one.name == "north").silent


def test_a_node_cannot_come_first_with_an_enclave_that_is_another_nodes(field, enclave):
    field.north.deliver(enclave.begin())
    told = field.south.deliver(enclave.clip())[0]
    assert told == Foreign("south", "record seq 2 is of node {}, which is north".format(enclave.node.hex()))


def test_the_pin_outlives_a_restart_and_gives_way_to_the_allow_list_alone(field, enclave):
    field.north.deliver(enclave.begin())
    field.subscriber.close()
    field.subscriber = Subscriber(field.city.config)
    peer = field.connect("north")
    stranger = field.city.enclave()
    told = peer.deliver(stranger.begin())[0]
    assert isinstance(told, Foreign) and "pinned is {}: where that is its new board".format(
        enclave.node.hex()) in told.reason
    # The line holds the whole command, for a city that did put another board there.
    command = told.reason.split("`")[3]
    assert city.main(shlex.split(command)[1:] + ["--dir", str(field.city.folder)]) == 0
    assert [one.node for one in nodes.read_nodes(str(field.city.nodes_file)) if one.name == "north"] == [stranger.node]
    deadline = time.monotonic() + 10
    while not seqs(peer.deliver(stranger.begin(counter=1, previous=bytes(16), previous_seq=0))):
        assert time.monotonic() < deadline
        field.subscriber.poll(0.1)
    told = peer.deliver(enclave.clip())[0]  # nobody is told to take it back in
    assert isinstance(told, Foreign) and told.reason.endswith("that is the board of before")


# ---------------------------------------------------------------------------------------- who may connect


def test_an_unlisted_key_is_not_admitted_and_named(field, enclave):
    stranger = generate_keys()
    peer = field.connect(None, stranger)
    events = []
    deadline = time.monotonic() + 5
    while not plain(events, Foreign) and time.monotonic() < deadline:
        assert not peer.dealer.send([delivery.RECORD, enclave.begin()]), "no connection, nothing to send on"
        events += field.subscriber.poll(0.05)
    assert plain(events, Foreign)[0] == Foreign(stranger.public.decode(), "key is not on the allow-list: not admitted")
    assert plain(events, Received) == []


def test_a_key_revoked_while_connected_is_cut_off_and_the_others_stay(field, enclave):
    south = field.enclave["south"]
    field.north.deliver(enclave.begin())
    field.south.deliver(south.begin())
    nodes.revoke(field.city.nodes_file, "north")
    events = field.silent_for(1.0)
    assert Foreign("north", "its key was revoked: cut off") in events
    clip, deadline = enclave.clip(alert=0), time.monotonic() + 1.5
    while time.monotonic() < deadline:
        field.north.dealer.send([delivery.RECORD, clip])
        events += field.subscriber.poll(0.05)
    assert seqs(events) == [] and Foreign("north", "key is not on the allow-list: not admitted") in events
    field.north.take()
    assert field.north.acked == [(enclave.epoch, 1)]
    assert seqs(field.south.deliver(south.clip())) == [2], "it comes back by itself"


def test_a_revoked_key_is_not_listed_again(field):
    nodes.revoke(field.city.nodes_file, "north")
    with pytest.raises(KeyRefused, match="this key of north was revoked"):
        nodes.allow(field.city.nodes_file, "fresh", field.curve["north"].public.decode())


def test_a_bad_edit_of_the_allow_list_admits_nobody_and_shuts_out_nobody(field, enclave, caplog):
    with open(field.city.nodes_file, "a") as file:
        file.write("[[node]]\nname = \"x\"\nkey = \"short\"\n")
    field.silent_for(1.0)
    assert "nodes_refused" in caplog.text and "nodes.toml:" in caplog.text
    assert seqs(field.north.deliver(enclave.begin())) == [1]


def test_an_impostor_of_the_city_gets_nothing(field, enclave):
    """The node pins the city's key: who listens in its place under another one is not talked to."""
    dealer = Dealer(field.subscriber.address, b"o" * 16, (field.curve["north"], generate_keys().public))
    deadline = time.monotonic() + 1.0
    while time.monotonic() < deadline:
        assert not dealer.send([delivery.RECORD, enclave.begin()])
        field.subscriber.poll(0.05)
    dealer.close()


# ----------------------------------------------------------------------------- killed at random, again and again

LISTEN = """
import os, sqlite3, sys
from edged.alerts import cityconfig
from edged.alerts.subscriber import Subscriber
base = sqlite3.connect(sys.argv[2], isolation_level=None)
base.execute("PRAGMA journal_mode=WAL")
base.execute("CREATE TABLE IF NOT EXISTS taken (row INTEGER, epoch BLOB, seq INTEGER)")
last = base.execute("SELECT coalesce(max(row), 0) FROM taken").fetchone()[0]
def take(event):
    if event.row > last:
        header = event.record.header
        base.execute("INSERT INTO taken VALUES (?, ?, ?)", (event.row, header.epoch, header.seq))
with Subscriber(cityconfig.load(sys.argv[1]), take) as subscriber:
    while True:
        for event in subscriber.poll(1.0):
            print(type(event).__name__, event, file=sys.stderr, flush=True)
"""
OUTBOX = "import sys; from edged import cli; sys.exit(cli.main(['outbox', '--config', sys.argv[1]]))"
RECORDS = 2000


def started(code, *arguments, **more):
    return subprocess.Popen([sys.executable, "-W", "ignore", "-c", code] + [str(one) for one in arguments],
                            stdout=subprocess.DEVNULL, **more)


def test_whatever_is_killed_whenever_nothing_is_lost_and_nothing_is_doubled_to_the_consumer(tmp_path):
    """Outbox and subscriber die at random moments while 2,000 records pass, as fast as they can and in bursts."""
    chance = random.Random(7)
    port = free_port()
    city = City(tmp_path / "city", period_s=30, bundle=False)
    city.init(address="tcp://127.0.0.1:{}".format(port))
    path = city.folder / "subscriber.toml"
    path.write_text(path.read_text().replace("127.0.0.1:0", "127.0.0.1:{}".format(port)))
    etc = tmp_path / "etc" / "edged.toml"
    done = install.install(str(city.bundle), str(etc))
    short = Path("/tmp/edged-delivery-{}".format(os.getpid()))
    etc.write_text(etc.read_text().replace("[node]\n", "[node]\nstate = \"{}\"\nrun = \"{}\"\n".format(
        tmp_path / "state", short)))
    nodes.allow(city.nodes_file, "north", done.public)
    loaded = configuration.load(str(etc))
    enclave = city.enclave()
    consumer, log = tmp_path / "consumer.db", open(str(tmp_path / "log"), "wb")
    ends = {"listen": lambda: started(LISTEN, path, consumer, stderr=log),
            "outbox": lambda: started(OUTBOX, etc, stderr=log)}
    running = {name: start() for name, start in ends.items()}
    kills = 0
    try:
        with Spool(str(loaded.spool), ROOMY) as spool:
            spool.put([enclave.begin()])
            deadline = time.monotonic() + 60
            while taken(consumer) < RECORDS:
                assert time.monotonic() < deadline, "{} of {}".format(taken(consumer), RECORDS)
                if enclave.seq < RECORDS:
                    spool.put([enclave.clip() for _ in range(min(chance.randrange(1, 60), RECORDS - enclave.seq))])
                time.sleep(chance.random() * 0.15)
                if enclave.seq < RECORDS and chance.random() < 0.25:
                    name = chance.choice(sorted(running))
                    running[name].send_signal(signal.SIGKILL)
                    running[name].wait()
                    running[name] = ends[name]()
                    kills += 1
            assert kills >= 10
            while spool.waiting():
                assert time.monotonic() < deadline
                time.sleep(0.05)
    finally:
        for process in running.values():
            process.kill()
            process.wait()
        log.close()
        for file in short.glob("*"):
            file.unlink()
        if short.exists():
            short.rmdir()
    base = sqlite3.connect(str(consumer))
    rows = base.execute("SELECT epoch, seq FROM taken ORDER BY row").fetchall()
    base.close()
    assert rows == [(enclave.epoch, seq) for seq in range(1, RECORDS + 1)]
    said = (tmp_path / "log").read_text()
    assert "Gap(" not in said and "Rollback" not in said and "Altered" not in said


def taken(consumer):
    if not consumer.exists():
        return 0
    base = sqlite3.connect(str(consumer))
    try:
        return base.execute("SELECT count(*) FROM taken").fetchone()[0]
    except sqlite3.OperationalError:
        return 0
    finally:
        base.close()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
