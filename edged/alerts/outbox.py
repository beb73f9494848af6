"""The node's end of delivery: what the spool holds goes to the subscribers until they acknowledge it.

Each subscriber has a lane: its records in order, at most a window of them sent and not acknowledged; when no answer
comes, or the subscriber misses something or was started anew, all that is not acknowledged comes again, in order. A
record that it refuses waits for its next start, out of the way of the others. Beacons go the other way, to the
bridge; an answer to them is a record.

Source: DESIGN section 6.
"""

import logging
import os
import time
from bisect import bisect_right, insort
from contextlib import ExitStack
from typing import Callable, Collection, Dict, List, Optional, Sequence, Tuple

import cbor2

from edged.alerts import delivery
from edged.alerts.cityconfig import CURVE_SECRET_CHARACTERS
from edged.alerts.record import split_record
from edged.alerts.spool import Caps, Spool
from edged.bus import CurveKeys, Dealer, Poller, public_of
from edged.config import Config
from edged.enclave import wire
from edged.errors import PackageError
from edged.events import emit
from edged.notify import Notifier, Watchdog
from edged.secret import read_secret
from edged.stopping import Stop

log = logging.getLogger(__name__)

IDENTITY = b"outbox"  # on the bridge's socket

_SPOOL_S = 0.2
_AWAY_S = 10.0  # several hellos
_REMIND_S = 60.0
_LAST_ANSWERS_S = 0.5


class _Refused:
    """Rows that a subscriber refused, as ranges of the spool's row numbers: whatever of his within one is not
    acknowledged was refused. He may refuse all that comes for months; ranges are never more than rows in flight, and
    one."""

    def __init__(self) -> None:
        self._ranges: List[Tuple[int, int]] = []  # first and last, in order

    def add(self, row: int) -> None:
        insort(self._ranges, (row, row))

    def join(self, after: int, flight: Collection[int]) -> None:
        """Those between which nothing waits for its answer. after : the last row of this run, flight : of those"""
        joined: List[Tuple[int, int]] = []
        for first, last in self._ranges:
            if joined and first <= after and not any(joined[-1][1] < row < first for row in flight):
                joined[-1] = joined[-1][0], last
            else:
                joined.append((first, last))
        self._ranges = joined

    def last_beside(self, row: int) -> Optional[int]:
        """The last row of its range; None where it was not refused."""
        place = bisect_right(self._ranges, (row, float("inf"))) - 1
        return self._ranges[place][1] if place >= 0 and row <= self._ranges[place][1] else None

    def clear(self) -> None:
        self._ranges.clear()

    def __len__(self) -> int:
        return len(self._ranges)


class Lane:
    """The records of one subscriber. send : frames -> whether they were taken; now : monotonic seconds."""

    def __init__(self, name: str, rcpt: bytes, spool: Spool, send: Callable[[List[bytes]], bool], now: float) -> None:
        self.name, self.rcpt = name, rcpt
        self._spool, self._send = spool, send
        self._flight: Dict[delivery.Name, int] = {}  # in order; the row of each
        self._refused = _Refused()
        self._start: Optional[bytes] = None
        self._answered_s = self._reminded_s = now
        self.up: Optional[bool] = None  # None: not known yet
        self._begin(now)

    @property
    def in_flight(self) -> int:
        return len(self._flight)

    def offer(self, now: float) -> None:
        """Send what is due."""
        if self._flight and now - self._progress_s >= delivery.RESEND_S:
            self._begin(now)
        if now - self._hello_s >= delivery.HELLO_S and self._send(delivery.pack_hello(self._run)):
            self._hello_s = now
        if self._hello_s > float("-inf"):
            self._fill(now)
        self._watch(now)

    def answer(self, frames: Sequence[bytes], now: float) -> Optional[bytes]:
        """Of the subscriber; a beacon's bytes where it is one. Raises PackageError."""
        said = delivery.unpack_answer(frames)
        self._answered_s = now
        if said.kind == delivery.WELCOME:
            self._welcomed(said.data, now)
        elif said.kind == delivery.ACK:
            self._spool.ack(self.rcpt, said.names)
            self._land(said.names, now)
            self._refused.join(self._after, self._flight.values())
        elif said.kind == delivery.AGAIN:
            if said.data == self._run:
                self._begin(now)
        elif said.kind == delivery.REFUSED:
            for (epoch, seq), row in self._land(said.names, now).items():
                self._refused.add(row)
                emit(log, "record_refused", subscriber=self.name, epoch=epoch, seq=seq)
            self._refused.join(self._after, self._flight.values())
        if not self.up:
            self.up = True
            emit(log, "subscriber_up", subscriber=self.name)
        return said.data if said.kind == delivery.BEACON else None

    def _begin(self, now: float) -> None:
        """A new run, of all that is not acknowledged."""
        self._run, self._number = os.urandom(delivery.RUN_BYTES), 0
        self._flight.clear()
        self._after = 0  # row of the last record sent
        self._hello_s = float("-inf")
        self._progress_s = now

    def _land(self, names: Sequence[delivery.Name], now: float) -> Dict[delivery.Name, int]:
        landed = {name: self._flight.pop(name) for name in names if name in self._flight}
        if landed:
            self._progress_s = now
        return landed

    def _welcomed(self, start: bytes, now: float) -> None:
        if self._start not in (None, start):
            self._refused.clear()
            self._begin(now)
        self._start = start

    def _fill(self, now: float) -> None:
        while len(self._flight) < delivery.WINDOW:
            rows = self._spool.pending(self.rcpt, self._after, delivery.WINDOW - len(self._flight))
            if not rows:
                return
            for row, sealed in rows:
                if row <= self._after:
                    continue  # refused, like one before it
                refused = self._refused.last_beside(row)
                if refused is None and not self._forward(row, sealed, now):
                    return
                self._after = refused or row

    def _forward(self, row: int, sealed: bytes, now: float) -> bool:
        """Send one record, or pass it over; whether that was done."""
        try:
            header = split_record(sealed)[0]
        except PackageError as error:  # the disk's doing, for the spool takes no such record
            emit(log, "record_damaged", subscriber=self.name, row=row, reason=error)
            return True
        if not self._send(delivery.pack_record(self._run, self._number + 1, sealed)):
            return False
        if not self._flight:
            self._progress_s = now
        self._number += 1
        self._flight[header.epoch, header.seq] = row
        return True

    def _watch(self, now: float) -> None:
        if self.up is not False and now - self._answered_s > _AWAY_S:
            self.up = False
            self._reminded_s = now
            emit(log, "subscriber_away", subscriber=self.name, silent_s=round(now - self._answered_s, 1))
        elif self.up is False and now - self._reminded_s > _REMIND_S:
            self._reminded_s = now
            waiting = self._spool.waiting().get(self.rcpt)
            if waiting is not None:
                emit(log, "records_waiting", subscriber=self.name, rows=waiting.rows, bytes=waiting.bytes,
                     silent_s=round(now - self._answered_s))


def run(config: Config, stop: Stop) -> None:
    """Until ``stop`` is set. Raises MissingInput or KeyRefused (the CURVE key), SpoolError."""
    secret = read_secret(str(config.outbox.key), (CURVE_SECRET_CHARACTERS,))
    keys = CurveKeys(public_of(secret), secret)
    caps = Caps(config.outbox.max_rows, config.outbox.max_bytes, config.outbox.max_age_s)
    notifier = Notifier()
    try:
        with ExitStack() as stack:
            spool = stack.enter_context(Spool(str(config.spool), caps))
            bridge = stack.enter_context(Dealer(config.bridge_address, IDENTITY))
            lanes: Dict[Dealer, Lane] = {}
            now = time.monotonic()
            for one in config.subscribers:
                dealer = stack.enter_context(
                    Dealer(one.address, _identity(), (keys, one.server_key.encode("ascii"))))
                lanes[dealer] = Lane(one.name, one.recipient, spool, dealer.send, now)
            _Outbox(bridge, lanes, stop, notifier).run()
    finally:
        notifier.stopping()
        notifier.close()


class _Outbox:
    def __init__(self, bridge: Dealer, lanes: Dict[Dealer, Lane], stop: Stop, notifier: Notifier) -> None:
        self._bridge, self._lanes, self._stop, self._notifier = bridge, lanes, stop, notifier
        self._poller = Poller(stop, bridge, *lanes)

    def run(self) -> None:
        watchdog = Watchdog(self._notifier)
        self._notifier.ready()
        while not self._stop.is_set():
            now = time.monotonic()
            for lane in self._lanes.values():
                lane.offer(now)
            watchdog.progress()  # the spool was read
            away = [lane.name for lane in self._lanes.values() if lane.up is False]
            self._notifier.status("no answer from " + ", ".join(away) if away else "all subscribers answer")
            self._hear(_SPOOL_S)
        deadline = time.monotonic() + _LAST_ANSWERS_S
        # Spares the subscribers the records that they hold already.
        while any(lane.in_flight for lane in self._lanes.values()) and time.monotonic() < deadline:
            for dealer in self._lanes:
                self._answers(dealer, 0.05)

    def _hear(self, timeout_s: float) -> None:
        for source in self._poller.wait(timeout_s):
            if source is self._bridge:
                self._bridge.receive(0)  # it has nothing to say to us
            elif source is not self._stop:
                self._answers(source, 0)

    def _answers(self, dealer: Dealer, timeout_s: float) -> None:
        message = dealer.receive(timeout_s)
        while message is not None:
            lane = self._lanes[dealer]
            try:
                beacon = lane.answer(message.frames, time.monotonic())
                if beacon is not None:
                    self._forward(lane, beacon)
            except PackageError as error:
                emit(log, "answer_refused", subscriber=lane.name, reason=error)
            message = dealer.receive(0)

    def _forward(self, lane: Lane, beacon: bytes) -> None:
        if len(beacon) != wire.Beacon.size():
            raise PackageError("beacon of {} bytes, not {}".format(len(beacon), wire.Beacon.size()))
        if not self._bridge.send([b"beacon", cbor2.dumps({}, canonical=True), beacon]):
            emit(log, "beacon_dropped", subscriber=lane.name)


def _identity() -> bytes:
    """Random; the first byte is not 0, which ZeroMQ keeps for itself."""
    return b"o" + os.urandom(15)
