"""What a subscriber holds of one node: which epochs, which records of each, and what is owed.

Records come in order, late, twice, or never; the node may hide an epoch, or set its enclave's sealed state back.
Only what opened under the alert key gets here, so every number is the enclave's own word.

    an epoch begins with record 1, of kind `epoch`, which names the one before and its last confirmed record
    counters of epochs rise; one that does not, or that passes over the epoch known last, shows a state set back
    a record is passed on once: the second copy is a Replay, however long ago its epoch ended

Pure: the caller stores each EpochState that ``changed`` names, together with the record.
Source: DESIGN section 6; trusty_ta/include/edged_wire.h, struct edged_epoch.
"""

from dataclasses import dataclass, field
from typing import Dict, Iterable, List, NamedTuple, Optional, Tuple

from edged.alerts.delivery import WINDOW
from edged.enclave import wire

NO_EPOCH = bytes(16)

# Records that an enclave may have sealed, and we received, though the state that its next start got does not tell
# of them: those kept for the last confirmation whose state was lost, and those kept after it.
UNCONFIRMED_MAX = 2 * wire.EVAL_KEPT_MAX

# Of one epoch. Beyond it the oldest gap is given up: its records are refused as replays, should they ever come.
OPEN_GAPS_MAX = 256

Range = Tuple[int, int]  # first and last, both included


@dataclass(frozen=True)
class Gap:
    """Records first to last of this epoch did not come."""

    node: str
    epoch: bytes
    first: int
    last: int


@dataclass(frozen=True)
class GapClosed:
    """All records of a gap that was reported have come after all."""

    node: str
    epoch: bytes
    first: int
    last: int


@dataclass(frozen=True)
class Replay:
    """A record came again and was not passed on. resend: as it does where an acknowledgement was lost."""

    node: str
    epoch: bytes
    seq: int
    resend: bool


@dataclass(frozen=True)
class EpochBegan:
    """An enclave started, or its epoch was closed and the next began.

    unclean      : the epoch before was not closed: what the enclave had not finished or handed over is lost
    lost         : records of the previous epoch that were confirmed and never came (reported as Gap, too)
    hidden       : epochs in between whose epoch records did not come
    """

    node: str
    epoch: bytes
    counter: int
    unclean: bool
    previous: bytes
    lost: Tuple[Range, ...]
    hidden: int


@dataclass(frozen=True)
class Rollback:
    """The node's sealed state was set back, copied or removed: what the enclave said in between may be hidden."""

    node: str
    epoch: bytes
    reason: str


class EpochRecord(NamedTuple):
    """Body of record 1."""

    counter: int
    unclean: bool
    previous: bytes
    previous_seq: int


@dataclass
class OpenGap:
    first: int
    last: int
    missing: List[Range]

    def take(self, seq: int) -> bool:
        """Whether the record was missing; it is not any more."""
        for index, (first, last) in enumerate(self.missing):
            if first <= seq <= last:
                rest = [(first, seq - 1), (seq + 1, last)]
                self.missing[index:index + 1] = [part for part in rest if part[0] <= part[1]]
                return True
        return False


@dataclass
class EpochState:
    """high: the highest record known to exist. began: its epoch record is in. named: a later one named it as the
    one before. closed: its last record where it was closed cleanly. rolled: it showed a state set back, and that was
    told. spoken: records that came, but for epoch records."""

    epoch: bytes
    counter: Optional[int] = None
    began: bool = False
    high: int = 0
    named: bool = False
    closed: Optional[int] = None
    spoken: int = 0
    rolled: bool = False
    gaps: List[OpenGap] = field(default_factory=list)

    def holds(self, seq: int) -> bool:
        return seq <= self.high and not any(
            first <= seq <= last for gap in self.gaps for first, last in gap.missing)

    @property
    def established(self) -> bool:
        """More than epoch records came: then the enclave's state of it must have been stored."""
        return self.spoken > 0


class Received(NamedTuple):
    """new: pass the record on. late: after a later one, or in an epoch that is over."""

    new: bool
    late: bool
    events: List[object]
    changed: List[EpochState]


class Sequence:
    """One node towards one recipient. ``node`` is the name that events bear; ``epochs`` what was stored."""

    def __init__(self, node: str, epochs: Iterable[EpochState] = ()) -> None:
        self.node = node
        self._epochs: Dict[bytes, EpochState] = {state.epoch: state for state in epochs}
        self._top: Optional[EpochState] = None  # established, of the highest counter
        self._last: Optional[EpochState] = None  # begun, of the highest counter
        for state in self._epochs.values():
            self._place(state)

    @property
    def current(self) -> Optional[bytes]:
        """The epoch of the highest counter that began."""
        return self._last.epoch if self._last else None

    def receive(self, epoch: bytes, seq: int, body: Optional[EpochRecord] = None,
                counter: Optional[int] = None) -> Received:
        """A record that opened. ``body`` of an epoch record, ``counter`` of a heartbeat.

        Each agreement that this recipient is in begins with an epoch record, the epoch with the first of them.
        Raises ValueError where no enclave would have sealed it: number 0, a first record that is no epoch record,
        another counter than before.
        """
        if seq < 1 or seq == 1 and body is None:
            raise ValueError("record {} is not an epoch record".format(seq))
        if body is not None:
            counter = body.counter
        state = self._epochs.get(epoch)
        if state is not None and state.holds(seq):
            return Received(False, True, [Replay(self.node, epoch, seq, seq > state.high - WINDOW)], [])
        if state is not None and counter is not None and state.counter not in (None, counter):
            raise ValueError("epoch counter {}, before it was {}".format(counter, state.counter))
        if state is None:
            state = self._epochs[epoch] = EpochState(epoch)
        late = seq < state.high or state.named or self._passed(state, counter)
        events: List[object] = []
        changed = [state]
        first_sight = counter is not None and state.counter is None
        if counter is not None:
            state.counter = counter
        if body is not None and not state.began:
            # Before the record counts as received: it is to be compared with what was there.
            events += self._begin(state, body, changed)
        if first_sight:
            events += self._counted(state)
        events += self._number(state, seq, body is None)
        self._place(state)
        return Received(True, late, events, changed)

    def _passed(self, state: EpochState, counter: Optional[int]) -> bool:
        known = counter if counter is not None else state.counter
        return known is not None and self._last is not None and known < (self._last.counter or 0)

    def _number(self, state: EpochState, seq: int, spoke: bool) -> List[object]:
        events: List[object] = []
        if seq <= state.high:
            gap = next(gap for gap in state.gaps if gap.take(seq))
            if not gap.missing:
                state.gaps.remove(gap)
                events.append(GapClosed(self.node, state.epoch, gap.first, gap.last))
        else:
            if state.closed is not None:
                events += self._rolled(state, "record {} of an epoch that was closed after {}".format(
                    seq, state.closed))
            events += self._owed(state, seq - 1)
            state.high = seq
        was = state.established
        state.spoken += spoke
        if state.established and not was:
            events += self._establish(state)
        return events

    def _owed(self, state: EpochState, last: int) -> List[object]:
        """Records up to ``last`` exist."""
        if last <= state.high:
            return []
        gap = OpenGap(state.high + 1, last, [(state.high + 1, last)])
        state.gaps.append(gap)
        del state.gaps[:-OPEN_GAPS_MAX]
        state.high = last
        return [Gap(self.node, state.epoch, gap.first, gap.last)]

    def _begin(self, state: EpochState, body: EpochRecord, changed: List[EpochState]) -> List[object]:
        state.began = True
        events = self._named(state, body)
        lost: Tuple[Range, ...] = ()
        if body.previous != NO_EPOCH:
            before = self._epochs.get(body.previous)
            if before is None:
                before = self._epochs[body.previous] = EpochState(body.previous)
            before.named = True
            events += self._compared(before, body)
            events += self._owed(before, body.previous_seq)
            if not body.unclean:
                before.closed = body.previous_seq
            lost = tuple(part for gap in before.gaps for part in gap.missing)
            changed.append(before)
        hidden = 0
        if self._last is not None and not state.named:
            hidden = max(body.counter - (self._last.counter or 0) - 1, 0)
        return [EpochBegan(self.node, state.epoch, body.counter, body.unclean, body.previous, lost, hidden)] + events

    def _counted(self, state: EpochState) -> List[object]:
        """The epoch's counter became known. An epoch that a later one named comes late, and is none the worse."""
        top = self._top
        if top is None or top is state or state.named or (state.counter or 0) > (top.counter or 0):
            return []
        return self._rolled(state, "epoch counter {}, after {} in epoch {}".format(
            state.counter, top.counter, top.epoch.hex()))

    def _named(self, state: EpochState, body: EpochRecord) -> List[object]:
        """Judge which epoch it names as the one before."""
        return self._passed_over(state, body) + self._misnamed(state, body)

    def _passed_over(self, state: EpochState, body: EpochRecord) -> List[object]:
        """Epochs of which records came, but not the first one, belong before this one: is one of them left out?"""
        before = self._epochs.get(body.previous)
        if state.named or before is None or not before.began:
            return []
        events: List[object] = []
        for other in self._epochs.values():
            if other.spoken and not other.began and not other.named and other.epoch != body.previous:
                events += self._rolled(other, "epoch {} passes it over and names {} as the one before".format(
                    state.epoch.hex(), body.previous.hex()))
        return events

    def _misnamed(self, state: EpochState, body: EpochRecord) -> List[object]:
        top = self._top
        if top is None or top is state or state.named or top.epoch == body.previous:
            return []
        if body.counter <= (top.counter or 0):
            return []  # told already, by its counter
        before = self._epochs.get(body.previous)
        if before is not None and before.counter is not None:
            after_top = before.counter > (top.counter or 0)  # only its epoch record came
        else:
            # Hidden, and told as such, where there is room for one in between.
            after_top = body.previous != NO_EPOCH and body.counter > (top.counter or 0) + 1
        if after_top:
            return []
        return self._rolled(state, "names epoch {} as the one before, not {}".format(
            body.previous.hex() if body.previous != NO_EPOCH else "none", top.epoch.hex()))

    def _compared(self, before: EpochState, body: EpochRecord) -> List[object]:
        """Judge the number that it names as confirmed last."""
        ahead = max(before.high, before.closed or 0) - body.previous_seq
        if ahead > (UNCONFIRMED_MAX if body.unclean else 0):
            return self._rolled(before, "a later one names its record {} as confirmed last, {} was known".format(
                body.previous_seq, before.high))
        return []

    def _establish(self, state: EpochState) -> List[object]:
        """Of two epochs that took the same counter one died before its state was stored, and said no more."""
        top = self._top
        if top is None or top is state or state.named or state.counter is None or state.counter != top.counter:
            return []
        return self._rolled(state, "epoch counter {}, as in epoch {}".format(state.counter, top.epoch.hex()))

    def _rolled(self, state: EpochState, reason: str) -> List[object]:
        if state.rolled:
            return []
        state.rolled = True
        return [Rollback(self.node, state.epoch, reason)]

    def _place(self, state: EpochState) -> None:
        if state.counter is None:
            return
        if state.began and (self._last is None or state.counter >= (self._last.counter or 0)):
            self._last = state
        if state.established and (self._top is None or state.counter > (self._top.counter or 0)):
            self._top = state
