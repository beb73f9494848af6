"""Whether a node is alive: beacons that it was sent, and heartbeats of its enclave that answer them.

Connections prove nothing, for the node's root holds them. A heartbeat proves that the enclave ran after the beacon
whose nonce it echoes was sent; one that echoes an older nonce, or none of ours, may have been harvested. Under an
agreement whose time is over it proves no more than that: such a node runs and judges nothing. Under two agreements it
proves nothing about the other one: who withholds the beacons of one has clips wait that are judged under that.

Pure: times are seconds of a monotonic clock, handed in. Source: DESIGN section 6.
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Dict, Iterable, List, Optional, Tuple

# Without a fresh answer for so many beacon periods the node is silent, and an answer as old as that is not fresh.
PERIODS = 2

_NONCES_MAX = 64


@dataclass(frozen=True)
class Silence:
    """No fresh answer to a beacon for since_s seconds (of a node that never came: since the subscriber started).
    agreement : its number, where the node answers under another one, and not under this; None: under none"""

    node: str
    since_s: float
    agreement: Optional[int] = None


@dataclass(frozen=True)
class Back:
    """A node that was silent answers again. agreement : likewise"""

    node: str
    agreement: Optional[int] = None


@dataclass(frozen=True)
class StaleHeartbeat:
    """A heartbeat that proves nothing: it answers a beacon of age_s seconds ago (None: no beacon of this start)."""

    node: str
    age_s: Optional[float]


@dataclass(frozen=True)
class JudgesNothing:
    """A node answers, but for since_s seconds only under agreements whose time is over: nothing is judged there."""

    node: str
    since_s: float


@dataclass(frozen=True)
class JudgesAgain:
    """A node answers under an agreement in force again."""

    node: str


class _Under:
    """Of one agreement. proof : when the last beacon that was answered under it was sent, or since when it counts
    behind : when the first one was that was answered after that, under another"""

    def __init__(self, proof: float) -> None:
        self.proof = proof
        self.behind: Optional[float] = None
        self.silent = False


class Liveness:
    """One node. now: monotonic seconds."""

    def __init__(self, node: str, period_s: float, now: float) -> None:
        self.node = node
        self.period_s = period_s
        self.silent = False
        self.idle = False  # it runs, and judges nothing
        self._sent: "OrderedDict[bytes, Tuple[float, Optional[int]]]" = OrderedDict()
        self._under: Dict[int, _Under] = {}  # by the agreement's number
        self._next = now
        self._proof = now  # the last moment at which the enclave is known to have run, or our start
        self._judged = now  # likewise, under an agreement in force
        self._waiting: Optional[float] = now  # since when an answer is due
        self._ticked = now

    def replaced(self, now: float) -> None:
        """Another board bears the name from now on: it is waited for, whatever the former one answered."""
        self._sent.clear()
        self._under.clear()
        self._proof = self._judged = self._waiting = now

    def beacon_due(self, now: float) -> bool:
        return now >= self._next

    def hurry(self, now: float) -> None:
        """The node has just come, or began an epoch: do not let it wait for its next beacon."""
        self._next = now

    def expect(self, agreements: Iterable[int], now: float) -> None:
        """Those under which it has to answer, each for itself, from now on."""
        self._under = {number: self._under.get(number) or _Under(now) for number in agreements}

    def sent(self, nonce: bytes, now: float, agreement: Optional[int] = None) -> None:
        """A beacon under an agreement went out, or would have, had there been a connection."""
        self._sent[nonce] = now, agreement
        while len(self._sent) > _NONCES_MAX:
            self._sent.popitem(last=False)
        self._next = now + self.period_s
        if self._waiting is None:
            self._waiting = now

    def proves(self, nonce: bytes, now: float) -> Optional[float]:
        """When the beacon was sent that a heartbeat answers; None where that is no fresh answer."""
        sent, _ = self._sent.get(nonce, (None, None))
        return sent if sent is not None and now - sent <= PERIODS * self.period_s else None

    def heartbeat(self, nonce: bytes, now: float, in_force: bool = True) -> List[Any]:
        """A heartbeat opened, and is no replay. in_force : the time of its agreement is not over"""
        sent, agreement = self._sent.get(nonce, (None, None))
        if sent is None or self.proves(nonce, now) is None:
            return [StaleHeartbeat(self.node, None if sent is None else now - sent)]
        self._proof = max(self._proof, sent)
        later = [at for at, _ in self._sent.values() if at > sent]
        self._waiting = min(later) if later else None
        events: List[Any] = [Back(self.node)] if self.silent else []
        self.silent = False
        events += self._answered(sent, agreement)
        if in_force:
            self._judged = max(self._judged, sent)
            events += [JudgesAgain(self.node)] if self.idle else []
            self.idle = False
        elif not self.idle and now - self._judged > PERIODS * self.period_s:
            self.idle = True
            events.append(JudgesNothing(self.node, now - self._judged))
        return events

    def tick(self, now: float) -> List[Any]:
        """To be called more often than once a period."""
        away = now - self._ticked
        self._ticked = now
        if away > self.period_s:
            # It was us who did not run (stopped, asleep): answers may lie in the socket, unread.
            self._judged += away
            self._waiting = None if self._waiting is None else self._waiting + away
            for one in self._under.values():
                one.behind = None if one.behind is None else one.behind + away
        events = [Silence(self.node, now - one.proof, number) for number, one in self._under.items()
                  if not one.silent and one.behind is not None and now - one.behind > PERIODS * self.period_s]
        for event in events:
            self._under[event.agreement].silent = True
        if not self.silent and self._waiting is not None and now - self._waiting > PERIODS * self.period_s:
            self.silent = True
            events.append(Silence(self.node, now - self._proof))
        return events

    def _answered(self, sent: float, agreement: Optional[int]) -> List[Any]:
        """A beacon that was sent then, under this agreement."""
        events: List[Any] = []
        for number, one in self._under.items():
            if number != agreement:
                one.behind = sent if one.behind is None and sent > one.proof else one.behind
            elif sent >= one.proof:
                events += [Back(self.node, number)] if one.silent else []
                one.proof, one.behind, one.silent = sent, None, False
        return events
