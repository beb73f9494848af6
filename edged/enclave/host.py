"""Starts and stops the two trusted applications of the host port.

The host port protects nothing: it runs the applications' sources as Linux processes, for
development, tests, and machines without TrustZone.
"""

import ctypes
import logging
import os
import select
import signal
import subprocess
import time
from pathlib import Path
from typing import List, Optional, Sequence, Union

from edged import artifacts
from edged.enclave import tipc, wire
from edged.errors import ConfigError, EnclaveError

log = logging.getLogger(__name__)

KEY_PROGRAM = "edged-key"
EVAL_PROGRAM = "edged-eval"

# Each prints this line once its sockets take connections.
READY = b"ready"
READY_TIMEOUT_S = 30.0  # sanitizer builds under valgrind included
STOP_TIMEOUT_S = 5.0

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


class HostEnclave:
    """Both applications, with their sockets in ``folder``; a context manager.

    wrapper : a command that runs each application (valgrind and the like), or nothing
    """

    def __init__(self, folder: Union[str, Path], wrapper: Sequence[str] = ()) -> None:
        self.folder = str(folder)
        self._wrapper = list(wrapper)
        self.key: Optional[subprocess.Popen] = None
        self.eval: Optional[subprocess.Popen] = None

    def start(self) -> "HostEnclave":
        """Start both and wait until they are ready. Raises EnclaveError, and leaves none behind."""
        programs = [artifacts.find(name) for name in (KEY_PROGRAM, EVAL_PROGRAM)]
        try:
            os.makedirs(self.folder, mode=0o700, exist_ok=True)
        except OSError as error:
            raise ConfigError("{}: {}: name a folder that can be made".format(self.folder, error.strerror)) from error
        try:
            self.key = self._spawn(programs[0])
            self.eval = self._spawn(programs[1])
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Stop both, the evaluation application first."""
        for process in (self.eval, self.key):
            if process is None:
                continue
            if process.poll() is None:
                process.terminate()
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                log.warning("pid %d did not stop within %g s: killed", process.pid, STOP_TIMEOUT_S)
                process.kill()
                process.wait()
            if process.stdout is not None:
                process.stdout.close()
        self.eval = self.key = None

    def restart_eval(self) -> None:
        """Start the evaluation application again (it died, or was killed)."""
        self.eval = self._again(self.eval, EVAL_PROGRAM)

    def restart_key(self) -> None:
        self.key = self._again(self.key, KEY_PROGRAM)

    def wait(self) -> str:
        """Block until one of the two ends; its name and how it ended."""
        while True:
            for name, process in ((KEY_PROGRAM, self.key), (EVAL_PROGRAM, self.eval)):
                assert process is not None
                code = process.poll()
                if code is not None:
                    return "{} ended with {}".format(name, code if code >= 0 else signal.Signals(-code).name)
            time.sleep(0.2)

    @property
    def pids(self) -> List[int]:
        """Process numbers, key application first."""
        assert self.key is not None and self.eval is not None
        return [self.key.pid, self.eval.pid]

    def connect_eval(self) -> tipc.Channel:
        return tipc.connect(self.folder, wire.EVAL_PORT)

    def connect_key(self) -> tipc.Channel:
        return tipc.connect(self.folder, wire.KEY_PORT)

    def cpu_s(self) -> float:
        """CPU time of both applications so far, by their own clocks."""
        # The clock of another process: clock_getcpuclockid(3), ~pid << 3 | CPUCLOCK_SCHED.
        return sum(time.clock_gettime((~pid << 3) | 2) for pid in self.pids)

    def __enter__(self) -> "HostEnclave":
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _again(self, process: Optional[subprocess.Popen], name: str) -> subprocess.Popen:
        if process is not None:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
        return self._spawn(artifacts.find(name))

    def _spawn(self, program: Path) -> subprocess.Popen:
        libc = ctypes.CDLL(None)

        def die_with_parent() -> None:
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)

        try:
            process = subprocess.Popen(self._wrapper + [str(program), "--dir", self.folder], stdin=subprocess.DEVNULL,
                                       stdout=subprocess.PIPE, preexec_fn=die_with_parent)
        except OSError as error:
            raise EnclaveError("{}: {}: rebuild it with `make -C trusty_ta`".format(program, error.strerror)) from error
        try:
            _await_ready(process, program)
        except EnclaveError:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()
            raise
        log.info("%s is ready, pid %d, in %s", program.name, process.pid, self.folder)
        return process


def _await_ready(process: subprocess.Popen, program: Path) -> None:
    assert process.stdout is not None
    handle = process.stdout.fileno()
    deadline = time.monotonic() + READY_TIMEOUT_S
    seen = b""
    while READY not in seen.split(b"\n")[:-1]:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([handle], [], [], left)[0]:
            raise EnclaveError("{}: not ready within {:g} s: see its messages above".format(program, READY_TIMEOUT_S))
        data = os.read(handle, 4096)
        if not data:
            code = process.wait()
            raise EnclaveError("{}: ended with {} before it was ready: see its messages above".format(program, code))
        seen += data
