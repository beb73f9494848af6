"""When to try again what failed."""

import random
import time
from typing import Optional

FIRST_S, LAST_S = 0.2, 5.0


class Backoff:
    """Delays that double, with some jitter, so that those who wait for one thing do not all come at once."""

    def __init__(self, first_s: Optional[float] = None, last_s: Optional[float] = None) -> None:
        self._first_s = FIRST_S if first_s is None else first_s
        self._last_s = LAST_S if last_s is None else last_s
        self._due_s = 0.0
        self._delay_s = self._first_s

    @property
    def due(self) -> bool:
        """It may be tried now."""
        return time.monotonic() >= self._due_s

    def failed(self) -> None:
        self._due_s = time.monotonic() + self._delay_s * random.uniform(0.75, 1.25)
        self._delay_s = min(2 * self._delay_s, self._last_s)

    def succeeded(self) -> None:
        self._due_s, self._delay_s = 0.0, self._first_s

    def begin_again(self) -> None:
        """As after the first failure."""
        self.succeeded()
        self.failed()
