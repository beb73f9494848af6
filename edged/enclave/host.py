"""Starts and stops the two trusted applications of the host port.

The host port protects nothing: it runs the applications' sources as Linux processes, for
development, tests, and machines without TrustZone.
"""

import logging
import os
import select
import signal
import subprocess
import time
from pathlib import Path
from typing import Callable, List, NoReturn, Optional, Sequence, Union

from edged import artifacts
from edged.enclave import tipc, wire
from edged.errors import ConfigError, EnclaveError, KeyRefused

log = logging.getLogger(__name__)

KEY_PROGRAM = "edged-key"
EVAL_PROGRAM = "edged-eval"

# Of all names in the folder: where its path fits a socket's, they all do. main.c of the host port has the same limit.
LONGEST_SOCKET = wire.KEY_EVAL_PORT + ".ta"

# Each prints this line once its sockets take connections.
READY = b"ready"
READY_TIMEOUT_S = 30.0  # sanitizer builds under valgrind included
STOP_TIMEOUT_S = 5.0
# How late a request to stop may be seen.
POLL_S = 0.2


class Stopped(Exception):
    """No error: ``stopped`` said that the enclave is no longer wanted."""


class HostEnclave:
    """Both applications, with their sockets in ``folder``; a context manager.

    Each application ends with the *thread* that started it (``--die-with-parent``: Linux watches the thread,
    not its process), so start it in a thread that lives as long as the enclave shall.

    wrapper : a command that runs each application (valgrind and the like), or nothing
    stopped : asked while it starts or waits; once it says yes these end in Stopped
    """

    def __init__(self, folder: Union[str, Path], wrapper: Sequence[str] = (),
                 stopped: Callable[[], bool] = lambda: False) -> None:
        self.folder = str(folder)
        self._wrapper = list(wrapper)
        self._stopped = stopped
        self.key: Optional[subprocess.Popen] = None
        self.eval: Optional[subprocess.Popen] = None

    def start(self) -> "HostEnclave":
        """Start both and wait until they are ready.

        Leaves none behind where it raises EnclaveError, KeyRefused (a file in the folder is not theirs to use),
        ConfigError (the folder) or Stopped.
        """
        tipc.require_socket_path(os.path.join(self.folder, LONGEST_SOCKET))
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
        """Block until one of the two ends; its name and how it ended. Raises Stopped."""
        while True:
            for name, process in ((KEY_PROGRAM, self.key), (EVAL_PROGRAM, self.eval)):
                assert process is not None
                code = process.poll()
                if code is not None:
                    self._end_if_stopped()  # a Ctrl-C reaches them, too
                    return "{} ended with {}".format(name, code if code >= 0 else signal.Signals(-code).name)
            self._end_if_stopped()
            time.sleep(POLL_S)

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

    def _end_if_stopped(self) -> None:
        if self._stopped():
            raise Stopped

    def _again(self, process: Optional[subprocess.Popen], name: str) -> subprocess.Popen:
        if process is not None:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
        return self._spawn(artifacts.find(name))

    def _spawn(self, program: Path) -> subprocess.Popen:
        command = self._wrapper + [str(program), "--dir", self.folder, "--die-with-parent", str(os.getpid())]
        try:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        except OSError as error:
            raise EnclaveError("{}: {}: rebuild it with `make -C trusty_ta`".format(program, error.strerror)) from error
        try:
            self._await_ready(process, program)
        except BaseException:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()
            raise
        log.info("%s is ready, pid %d, in %s", program.name, process.pid, self.folder)
        return process

    def _await_ready(self, process: subprocess.Popen, program: Path) -> None:
        assert process.stdout is not None
        handle = process.stdout.fileno()
        deadline = time.monotonic() + READY_TIMEOUT_S
        seen = b""
        while READY not in seen.split(b"\n")[:-1]:
            self._end_if_stopped()
            left = deadline - time.monotonic()
            if left <= 0:
                raise EnclaveError("{}: not ready within {:g} s: see its messages above".format(
                    program, READY_TIMEOUT_S))
            if not select.select([handle], [], [], min(left, POLL_S))[0]:
                continue
            data = os.read(handle, 4096)
            if not data:
                code = process.wait()
                self._end_if_stopped()
                _refuse_start(program, self.folder, code)
            seen += data


def _refuse_start(program: Path, folder: str, code: int) -> NoReturn:
    """Raise what the exit code of an application that never was ready says."""
    if code == KeyRefused.exit_code:
        raise KeyRefused("{}: {} may not use what lies there, see its message above: device.key must be 32 bytes of "
                         "mode 0600 (station.secret, where there is one, likewise), and both and every *.lock and "
                         "socket must belong to user {}".format(
                             folder, program.name, os.geteuid()))
    if code == ConfigError.exit_code:
        raise ConfigError("{}: refused by {}: see its message above".format(folder, program.name))
    raise EnclaveError("{}: ended with {} before it was ready: see its messages above".format(program, code))
