"""The outbox: in order, until acknowledged, never more than a window ahead; beacons go to the bridge."""

import os
import random
import threading
import time

import cbor2
import pytest

from edged import config as configuration
from edged.alerts import delivery, outbox
from edged.alerts.outbox import Lane
from edged.alerts.record import split_record
from edged.alerts.spool import Spool
from edged.bus import Router, generate_keys
from edged.enclave import wire
from edged.errors import KeyRefused, MissingInput, PackageError
from edged.stopping import Stop
from twin import CITY, EPOCH, ROOMY, outer_record as record

WINDOW, RESEND_S = delivery.WINDOW, delivery.RESEND_S


class Wire:
    """What a lane sends, while it is connected."""

    def __init__(self):
        self.connected, self.frames = True, []

    def send(self, frames):
        if self.connected:
            self.frames.append(frames)
        return self.connected

    def seqs(self):
        """Of the records since the last call."""
        sent = [frames for frames in self.frames if frames[0] == delivery.RECORD]
        self.frames = []
        return [split_record(frames[2])[0].seq for frames in sent]


@pytest.fixture
def spool(tmp_path):
    with Spool(str(tmp_path / "spool.db"), ROOMY) as opened:
        yield opened


@pytest.fixture
def wired():
    return Wire()


@pytest.fixture
def lane(spool, wired):
    return Lane("city", CITY, spool, wired.send, 0.0)


def ack(*seqs):
    return delivery.pack_names(delivery.ACK, [(EPOCH, seq) for seq in seqs])


def welcome(start):
    return [delivery.WELCOME, start]


# ---------------------------------------------------------------------------------------------------- a lane


def test_records_go_out_in_order_once(lane, spool, wired):
    spool.put([record(seq) for seq in (1, 2, 3)])
    lane.offer(0.0)
    offers = [delivery.unpack_offer(frames) for frames in wired.frames]
    assert offers[0].sealed is None and len({offer.run for offer in offers}) == 1
    assert [offer.number for offer in offers[1:]] == [1, 2, 3] and wired.seqs() == [1, 2, 3]
    spool.put([record(4)])
    lane.offer(0.5)
    assert wired.seqs() == [4]


def test_no_more_than_a_window_is_under_way_and_each_acknowledgement_makes_room(lane, spool, wired):
    spool.put([record(seq) for seq in range(1, WINDOW + 10)])
    lane.offer(0.0)
    assert wired.seqs() == list(range(1, WINDOW + 1))
    lane.offer(0.1)
    assert wired.seqs() == []
    lane.answer(ack(2, 3), 0.2)
    lane.offer(0.2)
    assert wired.seqs() == [WINDOW + 1, WINDOW + 2] and lane.in_flight == WINDOW


def test_an_acknowledged_record_is_marked_in_the_spool_and_not_sent_again(lane, spool, wired):
    spool.put([record(1), record(2)])
    lane.offer(0.0)
    lane.answer(ack(1), 0.1)
    assert [split_record(sealed)[0].seq for _, sealed in spool.pending(CITY)] == [2]
    wired.seqs()
    lane.offer(RESEND_S + 1)
    assert wired.seqs() == [2]


def test_what_is_not_acknowledged_in_time_is_sent_again_in_order_as_a_run_of_its_own(lane, spool, wired):
    spool.put([record(1), record(2)])
    lane.offer(0.0)
    spool.put([record(3)])
    lane.offer(3.0)
    first = delivery.unpack_offer(wired.frames[0])
    assert wired.seqs() == [1, 2, 3]
    lane.answer(ack(1), 3.0)
    lane.offer(RESEND_S + 2.9)
    assert wired.seqs() == []
    lane.offer(RESEND_S + 3.0)
    hello, *offers = [delivery.unpack_offer(frames) for frames in wired.frames]
    assert hello.sealed is None and hello.run != first.run and {offer.run for offer in offers} == {hello.run}
    assert [offer.number for offer in offers] == [1, 2] and wired.seqs() == [2, 3]


def test_a_subscriber_that_misses_something_gets_all_again_at_once(lane, spool, wired):
    spool.put([record(seq) for seq in (1, 2, 3)])
    lane.offer(0.0)
    run = delivery.unpack_offer(wired.frames[0]).run
    assert wired.seqs() == [1, 2, 3]
    lane.answer([delivery.AGAIN, b"of past "], 0.1)
    lane.offer(0.1)
    assert wired.seqs() == []
    lane.answer([delivery.AGAIN, run], 0.2)
    lane.offer(0.2)
    assert wired.seqs() == [1, 2, 3]
    lane.answer([delivery.AGAIN, run], 0.3)
    lane.offer(0.3)
    assert wired.seqs() == [], "that run is over"


def test_no_record_goes_out_before_its_runs_hello(lane, spool, wired):
    spool.put([record(1)])
    send, refused = wired.send, []
    lane._send = lambda frames: send(frames) if refused else bool(refused.append(frames))
    lane.offer(0.0)  # the hello is refused, and then the connection stands
    lane.offer(0.05)
    assert refused == [[delivery.HELLO, refused[0][1]]]
    assert [frames[0] for frames in wired.frames] == [delivery.HELLO, delivery.RECORD]


def test_while_there_is_no_connection_nothing_counts_as_sent(lane, spool, wired):
    wired.connected = False
    spool.put([record(1)])
    lane.offer(0.0)
    assert lane.in_flight == 0
    wired.connected = True
    lane.offer(0.1)
    assert wired.seqs() == [1]


def test_a_new_start_of_the_subscriber_gets_everything_again_at_once_and_in_order(lane, spool, wired):
    spool.put([record(seq) for seq in (1, 2, 3)])
    lane.offer(0.0)
    lane.answer(welcome(b"s1"), 0.1)
    lane.answer(ack(2), 0.1)
    lane.offer(0.2)
    assert wired.seqs() == [1, 2, 3]
    lane.answer(welcome(b"s1"), 0.3)
    lane.offer(0.3)
    assert wired.seqs() == []
    lane.answer(welcome(b"s2"), 0.4)
    lane.offer(0.4)
    assert wired.seqs() == [1, 3]


def test_a_refused_record_waits_for_the_subscribers_next_start_out_of_the_others_way(lane, spool, wired, caplog):
    spool.put([record(seq) for seq in range(1, 3 * WINDOW)])
    lane.answer(welcome(b"s1"), 0.0)
    for _ in range(2):
        lane.offer(0.0)
        lane.answer(delivery.pack_names(delivery.REFUSED, [(EPOCH, seq) for seq in wired.seqs()]), 0.0)
    for now in (0.0, RESEND_S + 1):
        lane.offer(now)
        assert wired.seqs() == list(range(2 * WINDOW + 1, 3 * WINDOW))
    assert "record_refused subscriber=city" in caplog.text
    lane.answer(welcome(b"s2"), RESEND_S + 2)
    lane.offer(RESEND_S + 2)
    assert wired.seqs() == list(range(1, WINDOW + 1))


@pytest.mark.parametrize("seed", range(5))
def test_however_many_records_are_refused_in_whatever_order_they_take_no_room_and_none_comes_again(
        lane, spool, wired, seed, monkeypatch):
    """While a city that did not adopt an agreement refuses all of it and takes the rest."""
    monkeypatch.setattr(delivery, "WINDOW", 8)
    chance = random.Random(seed)
    spool.put([record(seq) for seq in range(1, 301)])
    lane.answer(welcome(b"s1"), 0.0)
    refused, acked, flight, now, most = set(), set(), [], 0.0, 0
    while len(refused) + len(acked) < 300:
        lane.offer(now)
        flight += wired.seqs()
        assert not (refused | acked) & set(flight) and len(flight) == len(set(flight))
        if chance.random() < 0.1:
            now += RESEND_S + 1  # no answer came: a new run
            flight = []
            continue
        answered = chance.sample(flight, chance.randint(1, len(flight)))
        flight = [seq for seq in flight if seq not in answered]
        taken = [seq for seq in answered if seq % 3]
        rest = [seq for seq in answered if seq not in taken]
        acked.update(taken)
        refused.update(rest)
        lane.answer(ack(*taken), now)
        lane.answer(delivery.pack_names(delivery.REFUSED, [(EPOCH, seq) for seq in rest]), now)
        most = max(most, len(lane._refused))
    assert 1 < most <= 8 + 1 and len(lane._refused) == 1
    lane.answer(welcome(b"s2"), now)
    spool.put([record(301)])
    lane.offer(now)
    assert wired.seqs() == sorted(refused)[:8], "with its next start they come again"


def test_a_row_that_is_no_record_is_passed_over(lane, spool, wired, caplog):
    spool.put([record(1), record(2)])
    spool._base.execute("UPDATE record SET sealed = x'00' WHERE seq = 1")
    lane.offer(0.0)
    assert wired.seqs() == [2] and "record_damaged" in caplog.text


@pytest.mark.parametrize("frames", [
    [], [b"ack"], [b"nonsense", b""], [b"ack", b"\xff"], [b"ack", cbor2.dumps({"a": 1})],
    [b"ack", cbor2.dumps([[b"e", 1]])], [b"ack", cbor2.dumps([[EPOCH, -1]])], [b"ack", cbor2.dumps([[EPOCH, True]])],
    [b"ack", cbor2.dumps([[EPOCH, 1 << 64]])],
    [b"ack", cbor2.dumps([[EPOCH, 1, 2]])], [b"ack", cbor2.dumps([[EPOCH, 1]] * (2 * WINDOW + 1))], [b"ack", b"", b""]])
def test_an_answer_that_is_none_changes_nothing(lane, spool, wired, frames):
    spool.put([record(1)])
    lane.offer(0.0)
    with pytest.raises(PackageError):
        lane.answer(frames, 0.1)
    assert lane.in_flight == 1 and len(spool.pending(CITY)) == 1


def test_a_subscriber_that_does_not_answer_is_told_once_and_reminded_of_and_told_when_it_is_back(lane, spool, caplog):
    caplog.set_level("INFO")
    spool.put([record(1)])
    for second in range(80):
        lane.offer(float(second))
    assert caplog.text.count("subscriber_away") == 1
    assert caplog.text.count("records_waiting subscriber=city rows=1") == 1
    assert lane.up is False
    lane.answer(welcome(b"s1"), 80.0)
    lane.answer(welcome(b"s1"), 81.0)
    assert caplog.text.count("subscriber_up") == 1 and lane.up


# ------------------------------------------------------------------------------------------------- the process


class Node:
    """An outbox on its thread, its bridge and its subscriber's socket."""

    def __init__(self, folder, run, subscribers=("city",)):
        self.keys, self.city = generate_keys(), generate_keys()
        os.makedirs(str(folder / "run"))
        os.symlink(str(folder / "run"), run)  # a Unix socket's path has no room for a test's name
        (folder / "outbox.key").write_bytes(self.keys.secret)
        (folder / "outbox.key").chmod(0o600)
        self.routers = [Router("tcp://127.0.0.1:0", self.city.secret, lambda key: key == self.keys.public.decode())
                        for _ in subscribers]
        text = ("schema = 1\n[node]\nname = \"node\"\nstate = \"state\"\nrun = \"{}\"\n[enclave]\nkind = \"trusty\"\n"
                "package = \"p\"\nagreements = [\"a\"]\n[camera.gate]\nsource = \"generator:1\"\nkey = \"k\"\n"
                "[outbox]\nkey = \"outbox.key\"\n".format(run))
        for index, name in enumerate(subscribers):
            text += "[[subscriber]]\nname = \"{}\"\naddress = \"tcp://127.0.0.1:{}\"\nserver_key = \"{}\"\n" \
                    "recipient = \"{}\"\n".format(name, self.routers[index].port, self.city.public.decode(),
                                                  bytes([99 + index] * 16).hex())
        (folder / "edged.toml").write_text(text)
        self.config = configuration.load(str(folder / "edged.toml"))
        self.bridge = Router(self.config.bridge_address)
        self.spool = Spool(str(self.config.spool), ROOMY)
        self.stop = Stop()
        self.thread = threading.Thread(target=outbox.run, args=(self.config, self.stop))

    def receive(self, kind, router=0):
        deadline = time.monotonic() + 10
        while True:
            message = self.routers[router].receive(max(0.0, deadline - time.monotonic()))
            assert message is not None, "no {}".format(kind)
            if message.frames[0] == kind:
                return message

    def close(self):
        self.stop.set()
        if self.thread.is_alive():
            self.thread.join()
        for router in self.routers + [self.bridge]:
            router.close()
        self.spool.close()


@pytest.fixture
def node(tmp_path):
    run = "/tmp/edged-outbox-{}".format(os.getpid())
    made = Node(tmp_path, run, ("city", "police"))
    try:
        yield made
    finally:
        made.close()
        os.unlink(run)


def test_it_delivers_over_curve_to_each_subscriber_its_own_and_forwards_its_beacons(node):
    police = bytes([100] * 16)
    node.spool.put([record(1), record(1, police), record(2)])
    node.thread.start()
    assert [split_record(node.receive(delivery.RECORD).frames[2])[0].seq for _ in range(2)] == [1, 2]
    theirs = node.receive(delivery.RECORD, 1)
    assert split_record(theirs.frames[2])[0].rcpt == police and len(theirs.peer) == 16
    hello = node.receive(delivery.HELLO)
    assert hello.key == node.keys.public.decode()

    beacon = wire.Beacon(1, CITY, 5, b"n" * 16, b"t" * 32).pack()
    for wrong in (beacon[:-1], beacon + b"\0"):
        assert node.routers[0].send(hello.peer, [delivery.BEACON, wrong])
    deadline = time.monotonic() + 10
    message = None
    while message is None and time.monotonic() < deadline:
        assert node.routers[0].send(hello.peer, [delivery.BEACON, beacon])
        message = node.bridge.receive(0.3)
    assert message.peer == b"outbox" and message.frames == [b"beacon", cbor2.dumps({}), beacon]

    node.routers[0].send(hello.peer, ack(1, 2))
    node.spool.put([record(3)])
    assert split_record(node.receive(delivery.RECORD).frames[2])[0].seq == 3
    node.stop.set()
    node.thread.join()
    assert [split_record(sealed)[0].seq for _, sealed in node.spool.pending(CITY)] == [3]


@pytest.mark.parametrize("content, mode, error, words", [
    (None, 0o600, MissingInput, "No such file"), (b"x" * 39, 0o600, KeyRefused, "not a key of 40"),
    (b"\x00" * 40, 0o600, KeyRefused, "z85"), (b"x" * 40, 0o644, KeyRefused, "lets others at it")])
def test_a_curve_key_that_is_none_is_one_line(node, content, mode, error, words):
    path = node.config.outbox.key
    path.unlink()
    if content is not None:
        path.write_bytes(content)
        path.chmod(mode)
    with pytest.raises(error, match=words):
        outbox.run(node.config, node.stop)
