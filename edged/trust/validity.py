"""When an agreement's end is to be told, and in which words: on the node, and at the city.

Nothing is judged after it, and the heartbeats go on: whoever has no agreement that follows learns it in time. Pure.
"""

import datetime
from typing import Dict, Iterable, List, NamedTuple, Tuple

from edged.trust.agreement import DAY_S, Agreement

NEAR_DAYS = 14  # to agree on the next one, have both sign it, and get keys to every node
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
    at = iso(until_s)
    if left_s <= 0:
        return "agreement {} ended at {}".format(number, at)
    days = int(left_s // DAY_S)
    return "agreement {} ends at {}, in {}".format(
        number, at, "{} day{}".format(days, "" if days == 1 else "s") if days else "less than a day")


def iso(time_s: int) -> str:
    """In UTC; as a number where no calendar holds it."""
    try:
        at = datetime.datetime.fromtimestamp(time_s, datetime.timezone.utc)
    except (OverflowError, ValueError, OSError):
        return str(time_s)
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


class Reminder:
    """Tells of each agreement that its end is near, and that it has come: at once, and then once a day."""

    def __init__(self, near_days: int = NEAR_DAYS) -> None:
        self._near_s = near_days * DAY_S
        self._told: Dict[bytes, Tuple[bool, float]] = {}  # by digest: whether as ended, and when
        self._look_s = float("-inf")

    def due(self, agreements: Iterable[Agreement], time_s: float, now_s: float) -> List[Left]:
        """Those to be told now. time_s : Unix      now_s : monotonic"""
        if now_s < self._look_s:
            return []
        self._look_s = now_s + _LOOK_S
        found = []
        for one in (left(agreement, time_s) for agreement in agreements):
            if one.seconds > self._near_s:
                self._told.pop(one.agreement.digest, None)
                continue
            ended, told_s = self._told.get(one.agreement.digest, (None, 0.0))
            if ended != one.ended or now_s - told_s >= DAY_S:
                self._told[one.agreement.digest] = one.ended, now_s
                found.append(one)
        return found
