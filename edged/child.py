"""One process under supervision: started, heard, started again after a delay that grows."""

import os
import random
import signal
import subprocess
import time
from typing import Callable, Dict, Mapping, NamedTuple, Optional, Sequence

from edged import notify


class Patience(NamedTuple):
    """The supervisor's times, in seconds of the monotonic clock."""

    shortest_s: float = 0.2  # before the first restart; doubled for each one after it
    longest_s: float = 30.0
    healthy_s: float = 60.0  # who was ready for so long begins again at the shortest
    start_s: float = 180.0  # to get ready: a full-size model on a slow core, and much to spare
    watchdog_s: float = 60.0  # between two signs of life, once ready
    order_s: float = 15.0  # how long one process waits for those before it in the order


def delay_s(patience: Patience, restarts: int, chance: float) -> float:
    """Before restart ``restarts`` (0 is the first); ``chance``, in [0, 1), spreads what broke together by a quarter."""
    doubled = patience.shortest_s * 2.0 ** min(restarts, 32)
    return min(doubled, patience.longest_s) * (1 + chance / 4)


class Child:
    """state : queued | starting | running | waiting | done | stopped

    name : "bridge", "camera gate"      command : the whole command line
    """

    def __init__(self, name: str, command: Sequence[str], patience: Patience,
                 clock: Callable[[], float] = time.monotonic, chance: Callable[[], float] = random.random) -> None:
        self.name = name
        self.state = "queued"
        self.status = ""  # what it says of itself
        self.restarts = 0
        self.starts = 0
        self.since = time.time()  # for people; nothing is computed from it
        self.last_end: Optional[str] = None
        self.done = False  # it said that its work is at an end
        self._command = list(command)
        self._patience = patience
        self._clock = clock
        self._chance = chance
        self._process: Optional[subprocess.Popen] = None
        self._hastened = 0  # restarts since it was healthy
        self._due_s = 0.0  # after it ended
        self._entered_s = clock()  # this state
        self._alive_s = clock()  # the last sign of life

    @property
    def pid(self) -> Optional[int]:
        return None if self._process is None else self._process.pid

    def start(self, environment: Mapping[str, str]) -> None:
        """Spawn it, in a session of its own: a Ctrl-C reaches the supervisor alone, which stops all in order.

        Raises OSError.
        """
        given: Dict[str, str] = dict(environment)
        given[notify.WATCHDOG_VARIABLE] = str(int(self._patience.watchdog_s * 1e6))
        given.pop(notify.WATCHDOG_PID_VARIABLE, None)
        self.done, self.status = False, ""
        self.starts += 1
        self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, env=given, start_new_session=True)
        self._enter("starting")

    def hear(self, states: Mapping[str, str]) -> None:
        """What it told, by sd_notify."""
        self._alive_s = self._clock()
        if "STATUS" in states:
            self.status = states["STATUS"]
        if notify.DONE in states:
            self.done = True
        if states.get("READY") == "1" and self.state == "starting":
            self._enter("running")

    def ended(self) -> Optional[int]:
        """The exit code, or the negative number of the signal, once it has ended; else None."""
        return None if self._process is None else self._process.poll()

    def age_s(self) -> float:
        """How long it has been in this state."""
        return self._clock() - self._entered_s

    def overdue(self) -> Optional[str]:
        """Why it has to be killed, or None."""
        if self.state == "starting" and self.age_s() > self._patience.start_s:
            return "not ready within {:g} s".format(self._patience.start_s)
        if self.state == "running" and self._clock() - self._alive_s > self._patience.watchdog_s:
            return "no sign of life for {:g} s".format(self._patience.watchdog_s)
        return None

    def rest(self, code: int) -> float:
        """It ended: wait before it is started again; for how long."""
        if self.state == "running" and self.age_s() >= self._patience.healthy_s:
            self._hastened = 0
        self._forget(code)
        self._due_s = delay_s(self._patience, self._hastened, self._chance())
        self._hastened += 1
        self.restarts += 1
        self._enter("waiting")
        return self._due_s

    def due(self) -> bool:
        return self.state == "waiting" and self.age_s() >= self._due_s

    def finish(self, code: int) -> None:
        """It ended, and stays so."""
        self._forget(code)
        self._enter("done" if code == 0 and self.done else "stopped")

    def ask_to_stop(self) -> None:
        if self.ended() is None and self._process is not None:
            self._process.terminate()

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()

    def reap(self) -> None:
        """After ``kill``, or where it is known to have ended."""
        if self._process is not None:
            self.finish(self._process.wait())
        elif self.state != "done":
            self._enter("stopped")

    def _forget(self, code: int) -> None:
        self._process = None
        self.last_end = how(code)

    def _enter(self, state: str) -> None:
        self.state, self.since = state, time.time()
        self._entered_s = self._alive_s = self._clock()


def how(code: int) -> str:
    return str(code) if code >= 0 else signal.Signals(-code).name


def environment_for(listener: notify.Listener) -> Dict[str, str]:
    given = dict(os.environ)
    given[notify.SOCKET_VARIABLE] = listener.path
    return given
