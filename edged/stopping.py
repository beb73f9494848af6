"""The request to stop: like threading.Event, but a signal handler may set it at any moment."""

import os
import select
import signal
import threading
from typing import Optional


class Stop:
    """``set`` and ``is_set``, ``wait``; ``fileno`` becomes readable once it is set, and stays so.

    threading.Event will not do: a handler that sets it while the same thread holds its lock never returns.
    """

    def __init__(self) -> None:
        self._set = False
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)

    def set(self) -> None:
        if not self._set:
            self._set = True
            os.write(self._writer, b"\0")

    def is_set(self) -> bool:
        return self._set

    def wait(self, timeout: Optional[float] = None) -> bool:
        """Whether it is set, at the latest after ``timeout`` seconds."""
        if not self._set:
            select.select([self._reader], [], [], timeout)
        return self._set

    def fileno(self) -> int:
        return self._reader

    def on_signals(self) -> "Stop":
        """SIGTERM, SIGINT and SIGHUP set it from now on. In the main thread alone; elsewhere nothing changes."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(number, lambda *_: self.set())
        return self
