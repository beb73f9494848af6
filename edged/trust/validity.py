"""When the end of an agreement or of a device's certificate is told, and in which words: on the node, at the city.

Nothing is judged after an agreement's, and the heartbeats go on; after a certificate's no key server takes the device's
evidence, and keys go on: whoever has none that follows learns it in time. Pure.
"""

import datetime
from typing import Dict, Iterable, List, Mapping, NamedTuple, Tuple

from edged.trust.agreement import DAY_S, Agreement

NEAR_DAYS = 14  # to agree on the next one, have both sign it, and get keys to every node
CERTIFICATE_NEAR_DAYS = 30  # to have a technician enrol each node of a fleet again
_LOOK_S = 1.0


class Left(NamedTuple):
    """seconds : until the agreement's end; below 0: since"""

    agreement: Agreement
    seconds: float

    @property
    def ended(self) -> bool:
        return self.seconds <= 0


def left(agreement: Agreement, time_s: float) -> Left:
    """time_s : Unix, of a clock that may be wrong: the enclave goes by the city's beacons."""
    return Left(agreement, agreement.until_s - time_s)


def words(number: int, until_s: int, left_s: float) -> str:
    """"agreement 3 ended at 2027-01-15T08:00:00Z", or "ends at ..., in 5 days"."""
    return "agreement {} {}".format(number, ends(until_s, left_s))


def ends(until_s: int, left_s: float) -> str:
    """The words without whose end it is."""
    at = iso(until_s)
    if left_s <= 0:
        return "ended at {}".format(at)
    days = int(left_s // DAY_S)
    return "ends at {}, in {}".format(
        at, "{} day{}".format(days, "" if days == 1 else "s") if days else "less than a day")


def iso(time_s: int) -> str:
    """In UTC; as a number where no calendar holds it."""
    try:
        at = datetime.datetime.fromtimestamp(time_s, datetime.timezone.utc)
    except (OverflowError, ValueError, OSError):
        return str(time_s)
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


class Reminder:
    """Tells of each thing that its end is near, and that it has come: at once, and then once a day."""

    def __init__(self, near_days: int = NEAR_DAYS) -> None:
        self._near_s = near_days * DAY_S
        self._told: Dict[bytes, Tuple[bool, float]] = {}  # by digest: whether as ended, and when
        self._look_s = float("-inf")

    def due(self, agreements: Iterable[Agreement], time_s: float, now_s: float) -> List[Left]:
        """Those to be told now. time_s : Unix      now_s : monotonic"""
        by_digest = {one.digest: one for one in agreements}
        return [left(by_digest[digest], time_s) for digest in self.due_of(
            {digest: one.until_s for digest, one in by_digest.items()}, time_s, now_s)]

    def due_of(self, until_s: Mapping[bytes, int], time_s: float, now_s: float) -> List[bytes]:
        """Likewise, of whatever has an end. until_s : {digest: Unix seconds}"""
        if now_s < self._look_s:
            return []
        self._look_s = now_s + _LOOK_S
        found = []
        for digest, end_s in until_s.items():
            left_s = end_s - time_s
            if left_s > self._near_s:
                self._told.pop(digest, None)
                continue
            was_ended, told_s = self._told.get(digest, (None, 0.0))
            if was_ended != (left_s <= 0) or now_s - told_s >= DAY_S:
                self._told[digest] = left_s <= 0, now_s
                found.append(digest)
        return found
