"""The city's end: takes the nodes' records, opens them, and reports what came and what did not.

    bind (CURVE, allow-list) -> who sent it -> open under the alert key -> sequence -> journal -> consumer -> ack

A record is acknowledged once the journal holds it and ``on_record``, where one was given, has returned; it is passed on
once, also over restarts at any moment. What a consumer had been given when it was killed it is given again, with the
same ``row``: one that stores the row with what it did can tell.

Source: DESIGN section 6.
"""

import logging
import os
import time
from collections import deque
from typing import Any, Callable, Deque, Dict, Iterator, List, NamedTuple, Optional, Set, Tuple

from edged.alerts import delivery, reports
from edged.alerts.cityconfig import CityConfig
from edged.alerts.journal import Entry, Journal, NodeRow
from edged.alerts.liveness import Liveness
from edged.alerts.nodes import AllowList
from edged.alerts.record import (
    Epoch, Heartbeat, Observation, Record, RecordHeader, open_record, seal_beacon, split_record,
)  # fmt: skip
from edged.alerts.reports import Altered, Foreign, Received, Skew
from edged.alerts.sequence import EpochRecord, Sequence
from edged.alerts.throttle import Throttle
from edged.alerts.turn import Node, Refused, Run, Turn
from edged.bus import Message, Router
from edged.errors import ConfigError, PackageError, VerificationFailed
from edged.events import emit
from edged.trust.agreement import Agreement, open_agreement

log = logging.getLogger(__name__)

# Messages of one turn, which are one transaction; a node has as many in flight.
_BATCH = delivery.WINDOW
_TICK_S = 0.2
_DIGEST_BYTES = 32
_PEERS_MAX = 8  # of one node: each start of its outbox is another
_ALLOW_LIST_S = 0.5

# A camera's clip ends before it is judged; a node that is further off than this has a wrong clock.
SKEW_S = 60.0

# Numbers beyond are no enclave's: it would have to count a thousand million a second for centuries.
_COUNT_MAX = 1 << 63

Event = Any  # one of alerts/reports.py


class Status(NamedTuple):
    """Of one node: connected is what the transport says, silent what the enclave's answers say."""

    name: str
    connected: bool
    silent: bool
    epoch: Optional[bytes]


class Subscriber:
    """Of one recipient. One thread uses it.

    Raises what reading its files raises (MissingInput, KeyRefused, ConfigError, PackageError, VerificationFailed),
    BusError where the address is taken, SpoolError where the journal cannot be used.
    """

    def __init__(self, config: CityConfig, on_record: Optional[Callable[[Received], None]] = None,
                 monotonic: Callable[[], float] = time.monotonic, clock_ns: Callable[[], int] = time.time_ns) -> None:
        self._config, self._on_record = config, on_record
        self._monotonic, self._clock_ns = monotonic, clock_ns
        self._alert_key = config.read_alert_key()
        self._curve_secret = config.read_curve_secret()
        self._agreements = _agreements(config)
        self._start = os.urandom(16)
        self._strangers: Deque[str] = deque(maxlen=_BATCH)  # filled by the thread that admits
        self._throttle = Throttle()
        self._allowed = AllowList(str(config.nodes))
        self._allowed_s = monotonic()
        self._nodes: Dict[str, Node] = {}
        self._journal = Journal(str(config.journal), config.keep_rows)
        try:
            # Passed on, but not known to have been taken; rows and events.
            self._queue: Deque[Tuple[int, Event]] = deque(
                (row, self._rebuilt(row, entry)) for row, entry in self._journal.untaken())
            self._given = 0  # row of the last event that poll returned
            self._recorded = 0  # row of the last record that on_record returned from
            self._broken: Optional[BaseException] = None
            self._unsent: List[Tuple[bytes, List[bytes]]] = []
            self._router = self._bound(config.bind)
        except BaseException:
            self._journal.close()
            raise
        self.address = "{}:{}".format(config.bind.rpartition(":")[0], self._router.port)
        self._list_nodes()
        emit(log, "subscriber_listening", address=self.address, recipient=config.recipient, nodes=len(self._nodes))

    def close(self) -> None:
        """What poll returned last counts as taken."""
        try:
            if self._given and self._broken is None:
                self._journal.write([], taken=self._given)
        finally:
            self._router.close()
            self._journal.close()

    def __enter__(self) -> "Subscriber":
        return self

    def __exit__(self, kind: Any, *_: object) -> None:
        if kind is not None:
            self._given = 0  # who knows how far the consumer got
        self.close()

    def __iter__(self) -> Iterator[Event]:
        while True:
            yield from self.poll(1.0)

    def poll(self, timeout_s: float) -> List[Event]:
        """The events since the last call, which counts as the sign that those it returned were taken.

        Empty after ``timeout_s`` without any. Raises what ``on_record`` raises (then that record and those after it
        are not acknowledged, and come again with the next call), SpoolError.
        """
        deadline = self._monotonic() + timeout_s
        while True:
            if self._broken is not None:
                raise self._broken
            if not self._queue:
                try:
                    self._turn(max(0.0, min(deadline - self._monotonic(), _TICK_S)))
                except BaseException as error:
                    # What was counted may not have been stored: only a new start may acknowledge anything.
                    self._broken = error
                    raise
            events = self._hand_out()
            if events or self._monotonic() >= deadline:
                return events

    def status(self) -> List[Status]:
        return [Status(name, one.peer is not None, one.liveness.silent, one.sequence.current if one.sequence else None)
                for name, one in self._nodes.items()]

    # ------------------------------------------------------------------------ one turn

    def _turn(self, timeout_s: float) -> None:
        turn = Turn()
        for _ in range(_BATCH):
            message = self._router.receive(timeout_s)
            if message is None:
                break
            self._take(message, turn)
            timeout_s = 0.0
        now = self._monotonic()
        self._refresh(turn, now)
        while self._strangers:
            turn.events.append(Foreign(self._strangers.popleft(), "key is not on the allow-list: not admitted"))
        for one in self._nodes.values():
            turn.events += one.liveness.tick(now)
        self._store(turn, now)
        self._unsent += turn.answers
        self._unsent += [(peer, delivery.pack_names(delivery.ACK, names)) for peer, names in turn.acks.items()]
        self._unsent += [(peer, delivery.pack_names(delivery.REFUSED, names)) for peer, names in turn.refusals.items()]
        for one in self._nodes.values():
            self._beacon(one, now)

    def _store(self, turn: Turn, now: float) -> None:
        """Into the journal, at once, and then into the queue."""
        numbered = {id(event): index for index, event in enumerate(turn.events)}
        passed = self._throttle.pass_on(turn.events, now)
        entries = [self._entry(event, turn.sealed.get(numbered.get(id(event), -1))) for event in passed]
        taken = self._given or None
        if not entries and not turn.epochs and not turn.rows and taken is None:
            return
        rows = self._journal.write(
            entries, [(node, state) for (node, _), state in turn.epochs.items()], turn.rows.values(), taken)
        self._given = 0
        self._queue.extend((row, _numbered(event, row)) for row, event in zip(rows, passed))

    def _hand_out(self) -> List[Event]:
        for row, event in self._queue:
            if self._on_record is not None and isinstance(event, Received) and row > self._recorded:
                self._on_record(event)
                self._recorded = row
        events = [event for _, event in self._queue]
        if self._queue:
            self._given = self._queue[-1][0]
            self._queue.clear()
        unsent, self._unsent = self._unsent, []
        for peer, frames in unsent:
            self._router.send(peer, frames)  # who is gone sends again, and is answered then
        return events

    # --------------------------------------------------------------------- a message

    def _take(self, message: Message, turn: Turn) -> None:
        listed = self._allowed.find(message.key or "")
        if listed is None or listed.revoked:
            turn.events.append(Foreign(
                listed.name if listed else str(message.key),
                "key {}: nothing of it is taken".format("was revoked" if listed else "is not on the allow-list")))
            return
        one = self._nodes[listed.name]
        if one.peer != message.peer:
            one.peer = message.peer
            one.liveness.hurry(self._monotonic())
        try:
            offer = delivery.unpack_offer(message.frames)
        except PackageError as error:
            turn.events.append(Altered(listed.name, str(error)))
            return
        if offer.sealed is None:
            turn.answers.append((message.peer, [delivery.WELCOME, self._start]))
        if self._is_due(one, message.peer, offer, turn) and offer.sealed is not None:
            self._take_record(one, message.peer, offer.sealed, turn)

    @staticmethod
    def _is_due(one: Node, peer: bytes, offer: delivery.Offer, turn: Turn) -> bool:
        """Whether this is the next record of its run; where it is not, the peer is asked to begin another, once."""
        run = one.runs.get(peer)
        if run is None or run.run != offer.run:
            run = one.runs[peer] = Run(offer.run, 1)
            while len(one.runs) > _PEERS_MAX:
                one.runs.popitem(last=False)
        if offer.sealed is None or run.due is None:
            return False
        if offer.number != run.due:
            run.due = None
            turn.answers.append((peer, [delivery.AGAIN, offer.run]))
            return False
        run.due += 1
        return True

    def _take_record(self, one: Node, peer: bytes, sealed: bytes, turn: Turn) -> None:
        name = one.listed.name
        try:
            header = split_record(sealed)[0]
        except PackageError as error:
            turn.events.append(Altered(name, str(error)))
            return
        try:
            self._take_opened(one, sealed, turn)
        except Refused as refused:
            turn.events.append(refused.event)
            turn.refusals.setdefault(peer, []).append((header.epoch, header.seq))
        else:
            turn.acks.setdefault(peer, []).append((header.epoch, header.seq))

    def _take_opened(self, one: Node, sealed: bytes, turn: Turn) -> None:
        record, agreement = self._opened(one, sealed)
        header, name = record.header, one.listed.name
        try:
            seen = self._sequence(one, header.node).receive(header.epoch, header.seq, _epoch_record(record),
                                                            _counter(record))
        except ValueError as error:
            raise Refused(Altered(name, "record seq {} of epoch {}: {}".format(
                header.seq, header.epoch.hex(), error))) from None
        for state in seen.changed:
            turn.epochs[header.node, state.epoch] = state
        if seen.new:
            if one.row is None or not seen.late:
                self._keep(one, turn, _row(one, header, agreement.digest))
            turn.sealed[len(turn.events)] = sealed, agreement.digest
            turn.events.append(Received(record, name, seen.late, _labels(agreement), self._clock_ns()))
            turn.events += self._judged(one, record, turn)
        turn.events += seen.events

    def _opened(self, one: Node, sealed: bytes) -> Tuple[Record, Agreement]:
        """Raises Refused."""
        header, name = split_record(sealed)[0], one.listed.name
        if header.rcpt != self._config.recipient:
            raise Refused(Foreign(name, "record seq {} is for recipient {}".format(header.seq, header.rcpt.hex())))
        if header.kid != self._config.alert_key_id:
            raise Refused(Foreign(name, "record seq {} is sealed under key {}, not ours".format(
                header.seq, header.kid.hex())))
        pinned = one.listed.node or (one.row.node if one.row else None)
        if pinned is not None and header.node != pinned:
            raise Refused(Foreign(name, "record seq {} is of node {}, pinned is {}".format(
                header.seq, header.node.hex(), pinned.hex())))
        for other in self._nodes.values() if pinned is None else ():
            if header.node in (other.listed.node, other.row.node if other.row else None):
                raise Refused(Foreign(name, "record seq {} is of node {}, which is {}".format(
                    header.seq, header.node.hex(), other.listed.name)))
        for agreement in self._agreements:
            try:
                record = open_record(sealed, self._alert_key, agreement.digest)
                _labels_fit(record, agreement)
                return record, agreement
            except VerificationFailed:
                continue  # under another of the agreements, then
            except PackageError as error:
                raise Refused(Altered(name, str(error))) from error
        raise Refused(Altered(name, "record seq {} of epoch {} does not open: altered, or sealed under another key or "
                                     "agreement".format(header.seq, header.epoch.hex())))

    def _sequence(self, one: Node, node: bytes) -> Sequence:
        if one.sequence is None or one.row is None:
            one.sequence = Sequence(one.listed.name, self._journal.epochs(node))
        return one.sequence

    def _judged(self, one: Node, record: Record, turn: Turn) -> List[Event]:
        """What its times tell."""
        if isinstance(record, Heartbeat):
            if one.row is not None and one.row.beacon_ns < record.time_ns < _COUNT_MAX:
                self._keep(one, turn, one.row._replace(beacon_ns=record.time_ns))
            return one.liveness.heartbeat(record.nonce, self._monotonic())
        if isinstance(record, Observation) and record.time_ns:
            off_s = (record.claimed_ns - record.time_ns) / 1e9
            skewed = abs(off_s) > SKEW_S
            if skewed != one.skewed:
                one.skewed = skewed
                return [Skew(one.listed.name, off_s if skewed else 0.0)]
        return []

    def _keep(self, one: Node, turn: Turn, row: NodeRow) -> None:
        if row == one.row:
            return
        if one.row is None or (row.epoch, row.digests) != (one.row.epoch, one.row.digests):
            one.liveness.hurry(self._monotonic())
        one.row = row
        turn.rows[row.name] = row

    # ------------------------------------------------------------- beacons, allow-list

    def _beacon(self, one: Node, now: float) -> None:
        if one.row is None or not one.liveness.beacon_due(now):
            return
        for at in range(0, len(one.row.digests), _DIGEST_BYTES):
            # Rises whatever our clock does: the enclave takes no other.
            one.beacon_ns = max(self._clock_ns(), one.beacon_ns + 1, one.row.beacon_ns + 1)
            nonce = os.urandom(16)
            beacon = seal_beacon(self._alert_key, one.row.salt, self._config.recipient,
                                 one.row.digests[at:at + _DIGEST_BYTES], one.beacon_ns, nonce)
            if one.peer is not None and not self._router.send(one.peer, [delivery.BEACON, beacon]):
                one.peer = None
            one.liveness.sent(nonce, now)

    def _refresh(self, turn: Turn, now: float) -> None:
        if now - self._allowed_s < _ALLOW_LIST_S:
            return
        self._allowed_s = now
        before = {one.listed.key for one in self._nodes.values()}
        try:
            changed = self._allowed.refresh()
        except ConfigError as error:
            emit(log, "nodes_refused", reason=error)
            return
        if not changed:
            return
        self._list_nodes()
        after = {one.listed.key for one in self._nodes.values()}
        emit(log, "nodes_changed", nodes=len(after))
        if before - after:
            self._cut_off(before - after, turn)

    def _list_nodes(self) -> None:
        """Bring the nodes in line with the allow-list."""
        rows = self._journal.nodes()
        period_s = float(self._agreements[0].beacon_period_s)
        present: Dict[str, Node] = {}
        for listed in self._allowed.present():
            one = self._nodes.get(listed.name)
            if one is None or one.listed.key != listed.key:
                one = Node(listed, Liveness(listed.name, period_s, self._monotonic()))
                one.row = rows.get(listed.name)
            one.listed = listed
            present[listed.name] = one
        for one in present.values():
            if one.row is None or one.row.node == one.listed.node:
                continue
            if one.listed.node is not None or any(one.row.node == other.listed.node for other in present.values()):
                one.row = one.sequence = None  # the list says otherwise
        self._nodes = present

    def _cut_off(self, keys: Set[str], turn: Turn) -> None:
        """ZeroMQ closes no single connection: all are closed, and those that may come back within a moment."""
        for key in keys:
            listed = self._allowed.find(key)
            turn.events.append(Foreign(listed.name if listed else key, "its key was {}: cut off".format(
                "revoked" if listed else "taken off the allow-list")))
        self._router.close()
        self._router = self._bound(self.address)
        for one in self._nodes.values():
            one.peer = None

    def _bound(self, address: str) -> Router:
        return Router(address, self._curve_secret, self._admit)

    def _admit(self, key: str) -> bool:
        """Asked by another thread, at each connection."""
        if self._allowed.allows(key):
            return True
        listed = self._allowed.find(key)
        self._strangers.append(listed.name if listed else key)
        return False

    # ------------------------------------------------------------------------ journal

    def _entry(self, event: Event, sealed: Optional[Tuple[bytes, bytes]]) -> Entry:
        kind, line = reports.NAMES[type(event)], reports.line(event)
        if sealed is None:
            return Entry(kind, reports.content(event), line)
        del line["row"]  # not known before it is stored
        content = {"node": event.node, "late": event.late, "received_ns": event.received_ns, "digest": sealed[1]}
        return Entry(kind, content, line, sealed[0])

    def _rebuilt(self, row: int, entry: Entry) -> Event:
        if entry.sealed is None:
            return reports.rebuilt(entry.kind, entry.content)
        content = entry.content
        agreement = next((one for one in self._agreements if one.digest == content["digest"]), None)
        if agreement is None:
            raise ConfigError("{}: row {} was not passed on yet, and is sealed under agreement {}..: list it in "
                              "agreements".format(self._config.journal, row, content["digest"][:4].hex()))
        record = open_record(entry.sealed, self._alert_key, agreement.digest)
        return Received(record, content["node"], content["late"], _labels(agreement), content["received_ns"], row)


def _agreements(config: CityConfig) -> List[Agreement]:
    made = []
    for path in config.agreements:
        try:
            signed = path.read_bytes()
        except OSError as error:
            raise ConfigError("{}: agreements: {}: {}".format(config.path, path, error.strerror)) from error
        agreement = open_agreement(signed, config.mo, config.qdo)
        mine = [one for one in agreement.recipients if one.rcpt == config.recipient]
        if not mine or mine[0].alert_key != config.alert_key_id:
            raise ConfigError("{}: {} does not name recipient {} with alert key {}".format(
                config.path, path, config.recipient.hex(), config.alert_key_id.hex()))
        made.append(agreement)
    return made


def _row(one: Node, header: RecordHeader, digest: bytes) -> NodeRow:
    """With a record of its current epoch: what its next beacons need, one for each agreement."""
    row = one.row
    digests = row.digests if row is not None and row.epoch == header.epoch else b""
    known = [digests[at:at + _DIGEST_BYTES] for at in range(0, len(digests), _DIGEST_BYTES)]
    return NodeRow(one.listed.name, header.node, header.salt, header.epoch,
                   digests if digest in known else digests + digest, row.beacon_ns if row is not None else 0)


def _labels(agreement: Agreement) -> Tuple[str, ...]:
    return tuple(rule.label for rule in agreement.rules)


def _labels_fit(record: Record, agreement: Agreement) -> None:
    if isinstance(record, Observation) and len(record.alerts) != len(agreement.rules):
        raise PackageError("record seq {}: {} rules, the agreement has {}".format(
            record.header.seq, len(record.alerts), len(agreement.rules)))


def _epoch_record(record: Record) -> Optional[EpochRecord]:
    if record.header.seq >= _COUNT_MAX:
        raise ValueError("no enclave counts so far")
    if not isinstance(record, Epoch):
        return None
    if max(record.counter, record.previous_seq) >= _COUNT_MAX:
        raise ValueError("no enclave counts so far")
    return EpochRecord(record.counter, record.unclean, record.previous, record.previous_seq)


def _counter(record: Record) -> Optional[int]:
    return record.counter if isinstance(record, Heartbeat) and record.counter < _COUNT_MAX else None


def _numbered(event: Event, row: int) -> Event:
    return event if not isinstance(event, Received) else Received(
        event.record, event.node, event.late, event.labels, event.received_ns, row)
