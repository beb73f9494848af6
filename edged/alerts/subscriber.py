"""The city's end: takes the nodes' records, opens them, and reports what came and what did not.

    bind (CURVE, allow-list) -> who sent it -> open under the alert key -> sequence -> journal -> consumer -> ack

A record is acknowledged once the journal holds it and ``on_record``, where one was given, has returned; it is passed on
once, also over restarts at any moment. What a consumer had been given when it was killed it is given again, with the
same ``row``: one that stores the row with what it did can tell.

Source: DESIGN section 6.
"""

import logging
import os
import shlex
import time
from collections import deque
from typing import Any, Callable, Deque, Dict, Iterator, List, NamedTuple, Optional, Set, Tuple

from edged.alerts import delivery, living, reports
from edged.alerts.cityconfig import CityConfig
from edged.alerts.journal import Entry, Journal, NodeRow
from edged.alerts.liveness import Liveness
from edged.alerts.nodes import AllowList
from edged.alerts.record import (
    Epoch, Heartbeat, Observation, Record, RecordHeader, Succession, open_record, seal_beacon, split_record,
)  # fmt: skip
from edged.alerts.reports import AgreementEnd, Altered, Expired, Foreign, Received, Skew, Succeeded
from edged.alerts.sequence import EpochRecord, Follower, Sequence
from edged.alerts.terms import Held, Terms, labels
from edged.alerts.throttle import Throttle
from edged.alerts.turn import Node, Refused, Run, Turn
from edged.bus import Message, Router
from edged.errors import ConfigError, PackageError, VerificationFailed
from edged.events import emit
from edged.trust import validity
from edged.trust.agreement import Agreement

log = logging.getLogger(__name__)

# Messages of one turn, which are one transaction; a node has as many in flight.
_BATCH = delivery.WINDOW
_TICK_S = 0.2
_PEERS_MAX = 8  # of one node: each start of its outbox is another
_ALLOW_LIST_S = 0.5

# A camera's clip ends before it is judged; a node that is further off than this has a wrong clock.
SKEW_S = 60.0

# A clip that was begun before the agreement's end is judged, a second time where it has to be, by then.
FINISHED_S = 30.0

# Numbers beyond are no enclave's: it would have to count a thousand million a second for centuries.
_COUNT_MAX = 1 << 63

Event = Any  # one of alerts/reports.py


class Status(NamedTuple):
    """Of one node: connected is what the transport says, silent what the enclave's answers say; idle: it answers, but
    under agreements alone that ended."""

    name: str
    connected: bool
    silent: bool
    epoch: Optional[bytes]
    idle: bool


class Subscriber:
    """Of one recipient. One thread uses it.

    Raises what reading its files raises (MissingInput, KeyRefused, ConfigError, PackageError, VerificationFailed),
    BusError where the address is taken, SpoolError where the journal cannot be used.
    """

    def __init__(self, config: CityConfig, on_record: Optional[Callable[[Received], None]] = None,
                 monotonic: Callable[[], float] = time.monotonic, clock_ns: Callable[[], int] = time.time_ns) -> None:
        self._config, self._on_record = config, on_record
        self._monotonic, self._clock_ns = monotonic, clock_ns
        self._terms = Terms(config)
        self._curve_secret = config.read_curve_secret()
        self._start = os.urandom(16)
        self._strangers: Deque[str] = deque(maxlen=_BATCH)  # filled by the thread that admits
        self._throttle = Throttle()
        self._reminder = validity.Reminder(config.warn_days)
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
        return [Status(name, one.peer is not None, one.liveness.silent, one.sequence.current if one.sequence else None,
                       one.liveness.idle)
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
        turn.events += self._agreement_ends(now)
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
        sequence = self._sequence(one, header.node)
        try:
            seen = sequence.receive(header.epoch, header.seq, _epoch_record(record), _counter(record),
                                    agreement.digest, _follower(record), isinstance(record, Observation))
        except ValueError as error:
            raise Refused(Altered(name, "record seq {} of epoch {}: {}".format(
                header.seq, header.epoch.hex(), error))) from None
        for state in seen.changed:
            turn.epochs[header.node, state.epoch] = state
        if seen.new:
            self._keep(one, turn, _row(one, record, agreement.digest, sequence))
            turn.sealed[len(turn.events)] = sealed, agreement.digest
            turn.events.append(Received(record, name, seen.late, labels(agreement), self._clock_ns()))
            turn.events += self._judged(one, record, agreement, turn)
        turn.events += seen.events

    def _opened(self, one: Node, sealed: bytes) -> Tuple[Record, Agreement]:
        """Raises Refused."""
        header, name = split_record(sealed)[0], one.listed.name
        if header.rcpt != self._config.recipient:
            raise Refused(Foreign(name, "record seq {} is for recipient {}".format(header.seq, header.rcpt.hex())))
        pinned = one.listed.node or (one.row.node if one.row else None)
        if pinned is not None and header.node != pinned:
            raise Refused(self._other_board(one, header, pinned))
        for other in self._nodes.values() if pinned is None else ():
            if header.node in (other.listed.node, other.row.node if other.row else None):
                raise Refused(Foreign(name, "record seq {} is of node {}, which is {}".format(
                    header.seq, header.node.hex(), other.listed.name)))
        if not self._terms.knows(header.kid):
            raise Refused(Foreign(name, "record seq {} is sealed under key {}, not ours: if the city agreed to that "
                                        "key: `edged-city adopt --agreement FILE`; the node keeps the record until "
                                        "then".format(header.seq, header.kid.hex())))
        try:
            return self._terms.open(sealed)
        except VerificationFailed as error:
            raise Refused(self._unopened(one, header, str(error))) from error
        except PackageError as error:
            raise Refused(Altered(name, str(error))) from error

    def _other_board(self, one: Node, header: RecordHeader, pinned: bytes) -> Event:
        reason = "record seq {} is of node {}, pinned is {}".format(header.seq, header.node.hex(), pinned.hex())
        if any(header.node in (other.listed.node, other.row.node if other.row else None)
               for other in self._nodes.values()):
            return Foreign(one.listed.name, reason)
        if self._journal.epochs(header.node):
            return Foreign(one.listed.name, reason + ": that is the board of before")
        return Foreign(one.listed.name, "{}: where that is its new board, `edged-city ca enrol` pins it, or "
                       "`edged-city allow {} --key={} --node {}`".format(
                           reason, one.listed.name, shlex.quote(one.listed.key), header.node.hex()))

    def _unopened(self, one: Node, header: RecordHeader, reason: str) -> Event:
        """Sealed under a key of ours: altered, unless the node said that an agreement with this key follows, of which
        nothing is known here."""
        if one.row is not None and one.row.node == header.node:
            for follower in self._sequence(one, header.node).unheard_followers():
                if follower.key == header.kid and self._terms.find(follower.digest) is None:
                    return Foreign(one.listed.name, "record seq {} does not open: agreement {} follows on this node, "
                                   "under the same key, and is not listed: `edged-city adopt --agreement FILE`; the "
                                   "node keeps the record until then".format(header.seq, follower.number))
        return Altered(one.listed.name, reason)

    def _sequence(self, one: Node, node: bytes) -> Sequence:
        if one.sequence is None or one.row is None:
            one.sequence = Sequence(one.listed.name, self._journal.epochs(node))
            one.sequence.alive = one.row.current.epoch if one.row is not None else None
        return one.sequence

    def _judged(self, one: Node, record: Record, agreement: Agreement, turn: Turn) -> List[Event]:
        """What its times tell, and what follows."""
        if isinstance(record, Succession):
            return [Succeeded(one.listed.name, agreement.number, record.number, record.successor, record.next_key,
                              self._terms.todo(record))]
        if isinstance(record, Heartbeat):
            now = self._monotonic()
            sent = one.liveness.proves(record.nonce, now)
            if one.row is not None and sent is not None:
                self._keep(one, turn, one.row._replace(
                    epochs=living.answered(one.row.epochs, record.header.epoch, one.came, sent)))
            if one.row is not None and one.row.beacon_ns < record.time_ns < _COUNT_MAX:
                self._keep(one, turn, one.row._replace(beacon_ns=record.time_ns))
            return one.liveness.heartbeat(record.nonce, now,
                                          not validity.left(agreement, self._clock_ns() / 1e9).ended)
        if not isinstance(record, Observation):
            return []
        events = self._expired(one, record, agreement)
        if record.time_ns:
            off_s = (record.claimed_ns - record.time_ns) / 1e9
            skewed = abs(off_s) > SKEW_S
            if skewed != one.skewed:
                one.skewed = skewed
                events.append(Skew(one.listed.name, off_s if skewed else 0.0))
        return events

    def _agreement_ends(self, now: float) -> List[Event]:
        """By this machine's clock, of the agreement in force and of those that a node is under yet."""
        under: Dict[bytes, List[str]] = {}
        for name, one in sorted(self._nodes.items()):
            for digest in one.row.current.agreements() if one.row is not None else ():
                under.setdefault(digest, []).append(name)
        return [AgreementEnd(left.agreement.number, left.agreement.until_s, left.seconds,
                             tuple(under.get(left.agreement.digest, ())))
                for left in self._reminder.due(self._terms.in_use(under), self._clock_ns() / 1e9, now)]

    def _expired(self, one: Node, record: Observation, agreement: Agreement) -> List[Event]:
        """Its time is as good as the beacons that the enclave was given: when it came counts, too."""
        judged_s = record.time_ns / 1e9 - agreement.until_s
        came_s = self._clock_ns() / 1e9 - agreement.until_s
        arrived = judged_s <= FINISHED_S
        if arrived and came_s <= agreement.beacon_limit_s:
            return []
        return [Expired(one.listed.name, record.header.epoch, record.header.seq, agreement.number,
                        came_s if arrived else judged_s, arrived)]

    def _keep(self, one: Node, turn: Turn, row: NodeRow) -> None:
        if row == one.row:
            return
        now = self._monotonic()
        before = one.row.epochs if one.row is not None else ()
        if set(row.epochs) - set(before):
            one.liveness.hurry(now)
        known = {epoch.epoch for epoch in row.epochs}
        one.came = {epoch: one.came.get(epoch, now) for epoch in known - {epoch.epoch for epoch in before}
                    | known & set(one.came)}
        one.asked = {epoch: at for epoch, at in one.asked.items() if epoch in known}
        one.row = row
        self._sequence(one, row.node).alive = row.current.epoch
        turn.rows[row.name] = row

    # ------------------------------------------------------------- beacons, allow-list

    def _beacon(self, one: Node, now: float) -> None:
        if one.row is None or not one.liveness.beacon_due(now):
            return
        one.liveness.expect(self._answers_under(one, self._in_force(one.row.current)), now)
        # The first epoch's come last: a bridge that is busy keeps the last few.
        asked = living.next_other(one.row.epochs, one.asked) + one.row.epochs[:1]
        beacons = [(epoch, held) for epoch in asked for held in self._in_force(epoch)]
        if not beacons:
            # Nothing can be asked that it could answer: it is silent, whatever the reason.
            one.liveness.sent(os.urandom(16), now)
        for epoch, held in beacons:
            # Rises whatever our clock does: the enclave takes no other.
            one.beacon_ns = max(self._clock_ns(), one.beacon_ns + 1, one.row.beacon_ns + 1)
            nonce = os.urandom(16)
            beacon = seal_beacon(held.key, epoch.salt, self._config.recipient, held.agreement.digest, one.beacon_ns,
                                 nonce)
            if one.peer is not None and not self._router.send(one.peer, [delivery.BEACON, beacon]):
                one.peer = None
            one.liveness.sent(nonce, now, held.agreement.number)
        one.asked.update((epoch.epoch, now) for epoch in asked)

    def _in_force(self, epoch: living.Living) -> List[Held]:
        return [held for held in map(self._terms.find, epoch.agreements()) if held is not None]

    def _answers_under(self, one: Node, in_force: List[Held]) -> Set[int]:
        """The agreements of its epoch, and the latest it was ever under, with those that it was under beside it: an
        epoch in which one was left out, by whoever started the node, ended none. Nothing is judged under those whose
        time is over."""
        assert one.row is not None
        sequence = self._sequence(one, one.row.node)
        ever = [held for held in map(self._terms.find, sequence.unended()) if held is not None]
        latest = sorted(ever, key=lambda held: held.agreement.number)[-1:]
        beside = [held for last in latest for held in ever
                  if held.agreement.digest in sequence.beside(last.agreement.digest)]
        return {held.agreement.number for held in in_force + latest + beside
                if not validity.left(held.agreement, self._clock_ns() / 1e9).ended}

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
        period_s = self._terms.beacon_period_s
        present: Dict[str, Node] = {}
        for listed in self._allowed.present():
            one = self._nodes.get(listed.name)
            if one is None or one.listed.key != listed.key:
                one = Node(listed, Liveness(listed.name, period_s, self._monotonic()))
                one.row = rows.get(listed.name)
            elif one.listed.node != listed.node:
                self._start = os.urandom(16)  # as after a restart, what was refused comes again: it may be right now
            one.listed = listed
            present[listed.name] = one
        for one in present.values():
            if one.row is None or one.row.node == one.listed.node:
                continue
            if one.listed.node is not None or any(one.row.node == other.listed.node for other in present.values()):
                one.row = one.sequence = None  # the list says otherwise
                one.liveness.replaced(self._monotonic())
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
        held = self._terms.find(content["digest"])
        if held is None:
            raise ConfigError("{}: row {} was not passed on yet, and is sealed under agreement {}..: list it in "
                              "agreements".format(self._config.journal, row, content["digest"][:4].hex()))
        record = open_record(entry.sealed, held.key, held.agreement.digest)
        return Received(record, content["node"], content["late"], labels(held.agreement), content["received_ns"], row)


def _row(one: Node, record: Record, digest: bytes, sequence: Sequence) -> NodeRow:
    """With a new record: what the next beacons need."""
    header, row = record.header, one.row
    epochs = living.heard(row.epochs if row is not None else (), header, digest,
                          record.previous if isinstance(record, Epoch) else None, sequence.was_followed(header.epoch),
                          lambda agreement: sequence.is_over(header.epoch, agreement))
    return NodeRow(one.listed.name, header.node, epochs, row.beacon_ns if row is not None else 0)


def _epoch_record(record: Record) -> Optional[EpochRecord]:
    if record.header.seq >= _COUNT_MAX:
        raise ValueError("no enclave counts so far")
    if not isinstance(record, Epoch):
        return None
    if max(record.counter, record.previous_seq) >= _COUNT_MAX:
        raise ValueError("no enclave counts so far")
    return EpochRecord(record.counter, record.unclean, record.previous, record.previous_seq)


def _follower(record: Record) -> Optional[Follower]:
    return Follower(record.number, record.successor, record.next_key) if isinstance(record, Succession) else None


def _counter(record: Record) -> Optional[int]:
    return record.counter if isinstance(record, Heartbeat) and record.counter < _COUNT_MAX else None


def _numbered(event: Event, row: int) -> Event:
    return event if not isinstance(event, Received) else Received(
        event.record, event.node, event.late, event.labels, event.received_ns, row)
