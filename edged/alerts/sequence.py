"""What a subscriber holds of one node: which epochs, which records of each, and what is owed.

Records come in order, late, twice, or never; the node may hide an epoch, or set its enclave's sealed state back.
Only what opened under the alert key gets here, so every number is the enclave's own word.

    an epoch begins with record 1, of kind `epoch`, which names the last one before that had records for this
    recipient, however many epochs ago, and the last of those that was confirmed
    counters of epochs rise; one that does not, or that passes over the epoch known last, shows a state set back
    a record is passed on once: the second copy is a Replay, however long ago its epoch ended
    an agreement that ended stays ended: no later epoch has clips under it

Pure: the caller stores each EpochState that ``changed`` names, together with the record.
Source: DESIGN section 6; trusty_ta/include/edged_wire.h, struct edged_epoch.
"""

from dataclasses import dataclass, field
from typing import Dict, Iterable, List, NamedTuple, Optional, Set, Tuple

from edged.alerts.delivery import WINDOW
from edged.enclave import wire

NO_EPOCH = bytes(16)

# Records that an enclave may have sealed, and we received, though the state that its next start got does not tell
# of them: those kept for the last confirmation whose state was lost, and those kept after it.
UNCONFIRMED_MAX = 2 * wire.EVAL_KEPT_MAX

# Of one epoch. Beyond it the oldest gap is given up: its records are refused as replays, should they ever come.
# While a node seals under two agreements of which this subscriber does not know one yet, every other record is a gap
# until that one is adopted: an enclave says hardly two a second, and under an agreement that gets no beacons it is
# soon still.
OPEN_GAPS_MAX = 1 << 14

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
    hidden       : epochs between the one known last and this one. They had no records for this recipient where this
                   one names that which is known last
    untold       : else that which is known last, where nothing that came says how it ended: of its last records any
                   may be withheld
    """

    node: str
    epoch: bytes
    counter: int
    unclean: bool
    previous: bytes
    lost: Tuple[Range, ...]
    hidden: int
    untold: Optional[bytes] = None


@dataclass(frozen=True)
class Rollback:
    """The node's sealed state was set back, copied or removed: what the enclave said in between may be hidden."""

    node: str
    epoch: bytes
    reason: str


@dataclass(frozen=True)
class AfterEnd:
    """A record that an enclave should not have sealed: under an agreement (its digest) that ended with record ``end``
    of this epoch, or of the epoch ``ended_in``, which was before. It was passed on: whatever is wrong with the node,
    somebody may have fallen."""

    node: str
    epoch: bytes
    seq: int
    agreement: bytes
    end: int
    ended_in: Optional[bytes] = None


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


class Follower(NamedTuple):
    """The agreement that an enclave said to follow. digest : 32 bytes; key : id of the recipient's alert key there"""

    number: int
    digest: bytes
    key: Optional[bytes]


@dataclass
class Under:
    """What came under one agreement. high : its highest record      end : its last one, where it said so
    clip : its highest one of a clip, 0 where there is none      follower : as its last one said"""

    high: int = 0
    end: Optional[int] = None
    clip: int = 0
    follower: Optional[Follower] = None


@dataclass
class EpochState:
    """high: the highest record known to exist. began: its epoch record is in. named: a later one named it as the
    one before. closed: its last record where it was closed cleanly. rolled: it showed a state set back, and that was
    told. spoken: records that came, but for epoch records. under: by the agreements' digests."""

    epoch: bytes
    counter: Optional[int] = None
    began: bool = False
    high: int = 0
    named: bool = False
    closed: Optional[int] = None
    spoken: int = 0
    rolled: bool = False
    gaps: List[OpenGap] = field(default_factory=list)
    under: Dict[bytes, Under] = field(default_factory=dict)

    def holds(self, seq: int) -> bool:
        return seq <= self.high and self.gap_of(seq) is None

    def gap_of(self, seq: int) -> Optional[OpenGap]:
        """That in which this record is missing. Gaps lie in the order of their numbers, and there may be thousands."""
        low, high = 0, len(self.gaps)
        while low < high:
            middle = (low + high) // 2
            if self.gaps[middle].last < seq:
                low = middle + 1
            else:
                high = middle
        found = self.gaps[low] if low < len(self.gaps) else None
        return found if found is not None and any(first <= seq <= last for first, last in found.missing) else None

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
        self.alive: Optional[bytes] = None  # the epoch that is, as far as the caller knows
        self._epochs: Dict[bytes, EpochState] = {state.epoch: state for state in epochs}
        self._top: Optional[EpochState] = None  # established, of the highest counter
        self._last: Optional[EpochState] = None  # begun, of the highest counter
        self._ends: Dict[bytes, List[EpochState]] = {}  # those in which an agreement ended
        for state in self._epochs.values():
            self._place(state)
            for agreement, under in state.under.items():
                if under.end is not None:
                    self._ends.setdefault(agreement, []).append(state)

    @property
    def current(self) -> Optional[bytes]:
        """The epoch that is alive, else that of the highest counter that began."""
        return self.alive or (self._last.epoch if self._last else None)

    def receive(self, epoch: bytes, seq: int, body: Optional[EpochRecord] = None, counter: Optional[int] = None,
                agreement: bytes = b"", follower: Optional[Follower] = None, clip: bool = False) -> Received:
        """A record that opened. ``body`` of an epoch record, ``counter`` of a heartbeat. agreement : digest of the one
        that it is sealed under; follower : of one that says that it is the last one there; clip : it is of a clip.

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
        late = seq < state.high or state.named or epoch != self.alive and self._passed(state, counter)
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
        events += self._ended(state, seq, agreement, follower, clip)
        if first_sight:
            events += [event for one, under in state.under.items() if under.clip
                       for event in self._revived(state, one, under.clip)]
        self._place(state)
        return Received(True, late, events, changed)

    def _passed(self, state: EpochState, counter: Optional[int]) -> bool:
        known = counter if counter is not None else state.counter
        return known is not None and self._last is not None and known < (self._last.counter or 0)

    def _number(self, state: EpochState, seq: int, spoke: bool) -> List[object]:
        events: List[object] = []
        if seq <= state.high:
            gap = state.gap_of(seq)
            if gap is not None and gap.take(seq) and not gap.missing:
                state.gaps = [one for one in state.gaps if one is not gap]
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

    def was_followed(self, epoch: bytes) -> bool:
        """Whether a later epoch names this one as the one before."""
        state = self._epochs.get(epoch)
        return state is not None and state.named

    def is_over(self, epoch: bytes, agreement: bytes) -> bool:
        """Whether this agreement ended in this epoch."""
        state = self._epochs.get(epoch)
        return state is not None and agreement in state.under and state.under[agreement].end is not None

    def unended(self) -> Set[bytes]:
        """Agreements under which anything came, in whichever epochs, and that never ended in one."""
        return {agreement for state in self._epochs.values() for agreement in state.under} - set(self._ends)

    def beside(self, agreement: bytes) -> Set[bytes]:
        """Agreements that never ended, of the epochs in which anything came under this one."""
        unended = self.unended()
        return {one for state in self._epochs.values() if agreement in state.under for one in state.under
                if one in unended}

    def unheard_followers(self) -> List[Follower]:
        """Agreements that follow, as this node said, and of which nothing came."""
        heard = {agreement for state in self._epochs.values() for agreement in state.under}
        return [under.follower for states in self._epochs.values() for under in states.under.values()
                if under.follower is not None and under.follower.digest not in heard]

    def _ended(self, state: EpochState, seq: int, agreement: bytes, follower: Optional[Follower],
               clip: bool) -> List[object]:
        """Judge whether anything came under an agreement after its last record. The first end counts."""
        under = state.under.setdefault(agreement, Under())
        after = seq if under.end is not None and seq > under.end else 0
        ends = follower is not None and under.end is None
        if ends:
            under.end, under.follower = seq, follower
            after = under.high if under.high > seq else 0
            self._ends.setdefault(agreement, []).append(state)
        under.high = max(under.high, seq)
        under.clip = max(under.clip, seq if clip else 0)
        if after and under.end:
            return [AfterEnd(self.node, state.epoch, after, agreement, under.end)]
        if clip:
            return self._revived(state, agreement, seq)
        # What came after it before, in epochs that no other end had put in the wrong.
        return [event for other in self._epochs.values() if ends and other is not state
                and agreement in other.under and other.under[agreement].clip
                and self._ends_before(other, agreement) == [state]
                for event in self._revived(other, agreement, other.under[agreement].clip)]

    def _revived(self, state: EpochState, agreement: bytes, clip: int) -> List[object]:
        """Judge a clip under an agreement by the epochs before. That it begins and ends there once more is no harm: a
        node was started anew before it knew that all was said."""
        ended = self._ends_before(state, agreement)
        return [AfterEnd(self.node, state.epoch, clip, agreement, ended[0].under[agreement].end or 0,
                         ended[0].epoch)] if ended else []

    def _ends_before(self, state: EpochState, agreement: bytes) -> List[EpochState]:
        """Epochs before this one in which the agreement ended. One that shows a state set back is after all of them."""
        if state.counter is None:
            return []
        back = state.rolled and not state.named
        return [other for other in self._ends.get(agreement, ()) if other is not state and other.counter is not None
                and (other.counter < state.counter or back)]

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
        untold = self._untold(state, body)
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
        return [EpochBegan(self.node, state.epoch, body.counter, body.unclean, body.previous, lost, hidden,
                           untold)] + events

    def _untold(self, state: EpochState, body: EpochRecord) -> Optional[bytes]:
        """The epoch known last, where this one does not say how it ended: it names another, which is owed that."""
        if state.named:
            return None  # it comes late
        last = self._last
        if last is None:
            return next((other.epoch for other in self._epochs.values() if other.spoken and other is not state
                         and not other.named and other.epoch != body.previous), None)
        if last.named or body.previous == last.epoch:
            return None
        if body.previous != NO_EPOCH and self._top is not None and body.counter <= (self._top.counter or 0):
            return None  # a Rollback is told
        return last.epoch

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
