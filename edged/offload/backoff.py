"""When to try again what failed."""

import random
import time

FIRST_S, LAST_S = 0.2, 5.0


class Backoff:
    """Delays that double, with some jitter, so that those who wait for one thing do not all come at once."""

    def __init__(self) -> None:
        self._due_s = 0.0
        self._delay_s = FIRST_S

    @property
    def due(self) -> bool:
        """It may be tried now."""
        return time.monotonic() >= self._due_s

    def failed(self) -> None:
        self._due_s = time.monotonic() + self._delay_s * random.uniform(0.75, 1.25)
        self._delay_s = min(2 * self._delay_s, LAST_S)

    def succeeded(self) -> None:
        self._due_s, self._delay_s = 0.0, FIRST_S
