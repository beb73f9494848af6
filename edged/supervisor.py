"""``edged run``: a node's processes without systemd, in order, started again when they end.

    enclave (host port) -> bridge -> outbox -> cameras

Each is a process of its own, spawned and never forked, told apart by the notification socket that systemd's units
use, too: it says when it is ready and that it moves. A process that cannot do its work because of what it was given
(configuration, key, file) ends the whole run with its exit code and its one line, but for a camera, whose key and
agreement may be one city's alone: as with units it is named, started again (unless its configuration is wrong), and the
others go on, while any is left. Every other end is followed by a restart. None outlives the supervisor, even if that is
killed.
"""

import fcntl
import json
import logging
import os
import select
import sys
import time
from contextlib import closing
from typing import Callable, Dict, Iterator, List, Optional, Sequence

from edged import config as configuration
from edged.alerts.spool import Caps, Spool, Waiting
from edged.child import Child, Patience, environment_for, how
from edged.config import Config
from edged.enclave.tipc import require_socket_path
from edged.errors import (BusError, ConfigError, EdgedError, KeyRefused, MissingInput, PackageError, SpoolError,
                          UsageError, VerificationFailed)
from edged.events import emit
from edged.notify import Listener, Notifier, Watchdog
from edged.stopping import Stop

log = logging.getLogger(__name__)

LOCK = "edged.lock"
NOTIFY_SOCKET = "notify.sock"

# Whoever ends so, whenever, was given something that no restart makes right ...
_NEVER_AGAIN = (ConfigError.exit_code, UsageError.exit_code)
# ... and so was whoever ends so at the first start: later, it may be an attack or a disk that comes back.
_NOT_AT_FIRST = (PackageError.exit_code, MissingInput.exit_code, VerificationFailed.exit_code, KeyRefused.exit_code)
# A process that was ready, and ends within this: it looked at what it was given only then.
_FIRST_S = 10.0

_POLL_S = 0.05
# How long each may take to stop. The bridge finishes the clip under way and stores its records.
STOP_S = {"camera": 5.0, "bridge": 20.0, "outbox": 10.0, "enclave": 10.0}
DRAIN_S = 5.0


class ProcessRefused(EdgedError):
    """A process ended with ``exit_code`` and has said why; there is nothing to add."""

    def __init__(self, name: str, exit_code: int) -> None:
        super().__init__("{} ended with {}: see its last line".format(name, exit_code))
        self.exit_code = exit_code


def run(config_path: str, stop: Stop, until_done: bool = False, patience: Patience = Patience(),
        command: Sequence[str] = (sys.executable, "-m", "edged.cli")) -> None:
    """Until ``stop`` is set, or, with ``until_done``, all cameras reached the end of their files.

    Call it in a thread that lives as long as the process. Raises ProcessRefused, EdgedError of the configuration,
    BusError where another supervisor uses the folder.
    """
    config = configuration.load(config_path)
    for name in (configuration.BRIDGE_SOCKET, NOTIFY_SOCKET):
        require_socket_path(str(config.node.run / name))
    try:
        os.makedirs(config.node.run, mode=0o700, exist_ok=True)
    except OSError as error:
        raise ConfigError("{}: {}: name a folder that can be made as node.run".format(
            config.node.run, error.strerror)) from error
    lock = _lock(config)
    try:
        with closing(Listener(str(config.node.run / NOTIFY_SOCKET))) as listener:
            Supervisor(config, stop, until_done, patience, command, listener).run()
    finally:
        os.close(lock)


def _lock(config: Config) -> int:
    handle = os.open(str(config.node.run / LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise BusError("{}: in use by another `edged run`: stop that one, or choose another node.run".format(
            config.node.run)) from None
    return handle


def is_running(config: Config) -> bool:
    """Whether a supervisor holds the folder, so that its status file is more than a relic."""
    try:
        handle = os.open(str(config.node.run / LOCK), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    finally:
        os.close(handle)


class Supervisor:
    def __init__(self, config: Config, stop: Stop, until_done: bool, patience: Patience, command: Sequence[str],
                 listener: Listener, clock: Callable[[], float] = time.monotonic) -> None:
        self._config, self._stop, self._until_done, self._patience = config, stop, until_done, patience
        self._listener = listener
        self._environment = environment_for(listener)
        self._clock = clock
        self._written: Optional[str] = None

        def child(name: str) -> Child:
            more = ["--config", str(config.path), "--die-with", str(os.getpid())]
            return Child(name, list(command) + name.split(" ") + more, patience, clock)

        self._cameras = [child("camera " + camera.name) for camera in config.cameras]
        self._enclave = [child("enclave")] if config.enclave.kind == "host" else []
        self._bridge, self._outbox = child("bridge"), child("outbox")
        # Each waits for those before it, a while.
        self._order: List[List[Child]] = [self._enclave, [self._bridge], [self._outbox], self._cameras]
        self._queued_s = clock()
        self._refused: Dict[str, int] = {}  # cameras that cannot do their work, by name: their exit codes

    def run(self) -> None:
        notifier = Notifier()
        watchdog = Watchdog(notifier)
        try:
            notifier.ready()
            reason = "refused"
            try:
                while not self._stop.is_set() and not (self._until_done and self._all_done()):
                    self._turn()
                    watchdog.progress()
                if self._refused and not self._stop.is_set():
                    raise ProcessRefused(*next(iter(self._refused.items())))
                reason = "asked" if self._stop.is_set() else "done"
            finally:
                notifier.stopping()
                emit(log, "node_stopping", reason=reason)
                self._stop_in_order()
        finally:
            for child in self._children():
                child.kill()
            for child in self._children():
                child.reap()
            self._write_status()
            notifier.close()

    def _children(self) -> Iterator[Child]:
        for group in self._order:
            yield from group

    def _all_done(self) -> bool:
        """Or cannot do anything."""
        return all(child.state == "done" or child.name in self._refused for child in self._cameras)

    def _turn(self) -> None:
        select.select([self._listener, self._stop], [], [], _POLL_S)
        self._hear()
        for child in self._children():
            code = child.ended()
            if code is not None:
                self._hear()  # its last words came before its end
                self._judge(child, code)
            why = child.overdue()
            if why is not None:
                emit(log, "process_hung", process=child.name, pid=child.pid, reason=why)
                child.kill()
            if child.due():
                self._start(child)
            if child.state == "running" and child.age_s() >= _FIRST_S:
                self._refused.pop(child.name, None)
        self._start_queued()
        self._write_status()

    def _start_queued(self) -> None:
        """The next of the order, once those before it are ready, or have kept it waiting long enough."""
        for group in self._order:
            queued = [child for child in group if child.state == "queued"]
            if queued:
                for child in queued:
                    self._start(child)
                self._queued_s = self._clock()
                return
            ready = all(child.state in ("running", "done") for child in group)
            if not ready and self._clock() - self._queued_s < self._patience.order_s:
                return

    def _start(self, child: Child) -> None:
        try:
            child.start(self._environment)
        except OSError as error:  # no memory, no process numbers: both come back
            delay_s = child.rest(os.EX_OSERR)
            emit(log, "process_ended", process=child.name, how=error.strerror, after_s=0, again_in_s=round(delay_s, 2))
            return
        emit(log, "process_started", process=child.name, pid=child.pid, restarts=child.restarts)

    def _hear(self) -> None:
        by_pid = {child.pid: child for child in self._children() if child.pid is not None}
        for told in self._listener.take():
            if told.pid in by_pid:
                by_pid[told.pid].hear(told.states)

    def _judge(self, child: Child, code: int) -> None:
        if code == 0 and child.done:
            child.finish(code)
            self._refused.pop(child.name, None)
            emit(log, "process_done", process=child.name)
        elif code in _NEVER_AGAIN or code in _NOT_AT_FIRST and self._is_first(child):
            self._refuse(child, code)
        else:
            lived_s = child.age_s()
            delay_s = child.rest(code)
            emit(log, "process_ended", process=child.name, how=how(code), after_s=round(lived_s, 1),
                 again_in_s=round(delay_s, 2))

    def _refuse(self, child: Child, code: int) -> None:
        """What it was given is of no use. Raises ProcessRefused where nothing can work any more."""
        delay_s = None
        if child not in self._cameras or code in _NEVER_AGAIN:
            child.finish(code)
        else:  # the key, or one city's agreement, may be put there meanwhile
            delay_s = round(child.rest(code), 2)
        emit(log, "process_refused", process=child.name, code=code, again_in_s=delay_s)
        if child in self._cameras:
            self._refused[child.name] = code
            if any(camera.name not in self._refused for camera in self._cameras):
                return
        raise ProcessRefused(child.name, code)

    @staticmethod
    def _is_first(child: Child) -> bool:
        return child.starts == 1 and (child.state == "starting" or child.age_s() < _FIRST_S)

    def _stop_in_order(self) -> None:
        """Cameras, bridge, outbox, enclave: each is still there for what comes before it."""
        self._stop_all(self._cameras, STOP_S["camera"])
        self._stop_all([self._bridge], STOP_S["bridge"])
        self._drain()
        self._stop_all([self._outbox], STOP_S["outbox"])
        self._stop_all(self._enclave, STOP_S["enclave"])

    def _stop_all(self, children: List[Child], timeout_s: float) -> None:
        for child in children:
            child.ask_to_stop()
        deadline_s = self._clock() + timeout_s
        for child in children:
            while child.pid is not None and child.ended() is None:
                if self._clock() > deadline_s:
                    emit(log, "process_killed", process=child.name, pid=child.pid, after_s=timeout_s)
                    child.kill()
                    break
                select.select([self._listener], [], [], _POLL_S)
                self._hear()
            child.reap()
        self._write_status()

    def _drain(self) -> None:
        """Give the outbox time to deliver what is in the spool for those whom it knows."""
        known = {subscriber.recipient for subscriber in self._config.subscribers}
        deadline_s = self._clock() + DRAIN_S
        while self._outbox.pid is not None and self._outbox.ended() is None and self._clock() < deadline_s:
            try:
                if not known.intersection(waiting_records(self._config)):
                    return
            except SpoolError as error:
                log.warning("%s", error)
                return
            select.select([self._listener], [], [], _POLL_S)
            self._hear()

    def _state(self, child: Child) -> str:
        return "refused" if child.name in self._refused and child.pid is None else child.state

    def _write_status(self) -> None:
        processes = {child.name: {
            "pid": child.pid, "state": self._state(child), "restarts": child.restarts, "since": round(child.since, 3),
            "last_end": child.last_end, "status": child.status} for child in self._children()}
        shown = {"pid": os.getpid(), "node": self._config.node.name, "processes": processes}
        text = json.dumps(shown, indent=2) + "\n"
        if text == self._written:
            return
        self._written = text
        path = str(self._config.status_file)
        try:
            with open(path + ".new", "w", encoding="ascii") as file:
                file.write(text)
            os.replace(path + ".new", path)
        except OSError as error:  # a street is watched without it, too
            log.warning("%s: %s", path, error.strerror)


def waiting_records(config: Config) -> Dict[bytes, Waiting]:
    """What the spool holds that is not acknowledged, by recipient. Raises SpoolError."""
    if not config.spool.exists():
        return {}
    caps = Caps(config.outbox.max_rows, config.outbox.max_bytes, config.outbox.max_age_s)
    with closing(Spool(str(config.spool), caps)) as spool:
        return spool.waiting()
