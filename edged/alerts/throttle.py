"""Reports that a hostile node could cause without end, held to so many a minute."""

from typing import Any, Dict, List, Tuple

from edged.alerts.reports import NAMES, RESEND, Altered, Expired, Foreign, Replay, StaleHeartbeat, Suppressed

# What a peer can bring about at will, be it by keeping thousands of records back; the rest costs it an enclave's record
# each.
_CHEAP = (Altered, Foreign, Replay, StaleHeartbeat, Expired)

BURST = 20
WINDOW_S = 60.0
_WHO_MAX = 256  # keys are free: whoever draws new ones for ever is one party
_OTHERS = "others"


class Throttle:
    """``pass_on`` of each event; now : monotonic seconds."""

    def __init__(self) -> None:
        self._counts: Dict[Tuple[str, str], int] = {}
        self._begun = float("-inf")

    def pass_on(self, events: List[Any], now: float) -> List[Any]:
        """Those to report, a Suppressed for each kind of which more came in the window that is over."""
        passed: List[Any] = []
        if now - self._begun >= WINDOW_S:
            passed += [Suppressed(who, what, count - BURST)
                       for (who, what), count in self._counts.items() if count > BURST]
            self._counts, self._begun = {}, now
        for event in events:
            if isinstance(event, _CHEAP):
                who = event.who if isinstance(event, Foreign) else event.node
                what = RESEND if isinstance(event, Replay) and event.resend else NAMES[type(event)]
                if len(self._counts) >= _WHO_MAX and (who, what) not in self._counts:
                    who = _OTHERS
                self._counts[who, what] = self._counts.get((who, what), 0) + 1
                if self._counts[who, what] > BURST:
                    continue
            passed.append(event)
        return passed
