"""Whether a node is alive: beacons that it was sent, and heartbeats of its enclave that answer them.

Connections prove nothing, for the node's root holds them. A heartbeat proves that the enclave ran after the beacon
whose nonce it echoes was sent; one that echoes an older nonce, or none of ours, may have been harvested.

Pure: times are seconds of a monotonic clock, handed in. Source: DESIGN section 6.
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import List, Optional

# Without a fresh answer for so many beacon periods the node is silent, and an answer as old as that is not fresh.
PERIODS = 2

_NONCES_MAX = 64


@dataclass(frozen=True)
class Silence:
    """No fresh answer to a beacon for since_s seconds (of a node that never came: since the subscriber started)."""

    node: str
    since_s: float


@dataclass(frozen=True)
class Back:
    """A node that was silent answers again."""

    node: str


@dataclass(frozen=True)
class StaleHeartbeat:
    """A heartbeat that proves nothing: it answers a beacon of age_s seconds ago (None: no beacon of this start)."""

    node: str
    age_s: Optional[float]


class Liveness:
    """One node. now: monotonic seconds."""

    def __init__(self, node: str, period_s: float, now: float) -> None:
        self.node = node
        self.period_s = period_s
        self.silent = False
        self._sent: "OrderedDict[bytes, float]" = OrderedDict()
        self._next = now
        self._proof = now  # the last moment at which the enclave is known to have run, or our start
        self._waiting: Optional[float] = now  # since when an answer is due
        self._ticked = now

    def beacon_due(self, now: float) -> bool:
        return now >= self._next

    def hurry(self, now: float) -> None:
        """The node has just come, or began an epoch: do not let it wait for its next beacon."""
        self._next = now

    def sent(self, nonce: bytes, now: float) -> None:
        """A beacon went out, or would have, had there been a connection."""
        self._sent[nonce] = now
        while len(self._sent) > _NONCES_MAX:
            self._sent.popitem(last=False)
        self._next = now + self.period_s
        if self._waiting is None:
            self._waiting = now

    def heartbeat(self, nonce: bytes, now: float) -> List[object]:
        """A heartbeat opened, and is no replay."""
        sent = self._sent.get(nonce)
        if sent is None or now - sent > PERIODS * self.period_s:
            return [StaleHeartbeat(self.node, None if sent is None else now - sent)]
        self._proof = max(self._proof, sent)
        later = [at for at in self._sent.values() if at > sent]
        self._waiting = min(later) if later else None
        if not self.silent:
            return []
        self.silent = False
        return [Back(self.node)]

    def tick(self, now: float) -> List[object]:
        """To be called more often than once a period."""
        away = now - self._ticked
        self._ticked = now
        if away > self.period_s and self._waiting is not None:
            # It was us who did not run (stopped, asleep): answers may lie in the socket, unread.
            self._waiting += away
        if self.silent or self._waiting is None or now - self._waiting <= PERIODS * self.period_s:
            return []
        self.silent = True
        return [Silence(self.node, now - self._proof)]
