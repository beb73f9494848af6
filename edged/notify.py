"""What systemd is told (sd_notify(3)), without a library of it; nothing where nobody listens.

READY=1 says that a process does its work, WATCHDOG=1 that the work moves: it is fed by progress, never by a timer.
"""

import logging
import os
import socket
import struct
import time
from typing import Callable, Dict, List, Mapping, NamedTuple, Optional

log = logging.getLogger(__name__)

SOCKET_VARIABLE = "NOTIFY_SOCKET"
WATCHDOG_VARIABLE = "WATCHDOG_USEC"
WATCHDOG_PID_VARIABLE = "WATCHDOG_PID"
# Ours; systemd passes over names that begin so. Without it nobody could tell a camera at the end of its file
# from one that was sent a SIGTERM: both end with 0.
DONE = "X_EDGED_DONE"

_SCM_CREDENTIALS = 2  # linux/socket.h; Python does not name it
_UCRED = struct.Struct("3i")  # pid, uid, gid
_DATAGRAM_BYTES = 4096


class Notifier:
    """Sends states to the socket that the environment names; to none, where it names none."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        address = environment.get(SOCKET_VARIABLE, "")
        # "@" stands for the zero byte of Linux's abstract names.
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._status: Optional[str] = None
        self._socket: Optional[socket.socket] = None
        if address.startswith(("@", "/")) and len(address) > 1:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._socket.setblocking(False)

    def ready(self, status: str = "") -> None:
        self._send("READY=1", status)

    def status(self, text: str) -> None:
        """One line for `systemctl status`; sent when it changes."""
        if text != self._status:
            self._send("", text)

    def stopping(self, status: str = "") -> None:
        self._send("STOPPING=1", status)

    def alive(self) -> None:
        self._send("WATCHDOG=1")

    def done(self) -> None:
        """This process ends because its work is at an end, not because it was asked to."""
        self._send(DONE + "=1")

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, state: str, status: str = "") -> None:
        if self._socket is None:
            return
        lines = [state] if state else []
        if status:
            self._status = status
            lines.append("STATUS=" + status.replace("\n", " "))
        try:
            self._socket.sendto("\n".join(lines).encode("utf-8"), self._address)
        except OSError as error:
            # A full or closed socket of systemd is no reason to stop watching a street.
            log.warning("%s: %s: systemd was not told %s", self._address.replace("\0", "@"), error.strerror, state)


def watchdog_s(environment: Mapping[str, str] = os.environ) -> Optional[float]:
    """How long systemd waits for a sign of life of this process; None where it does not."""
    microseconds, pid = environment.get(WATCHDOG_VARIABLE, ""), environment.get(WATCHDOG_PID_VARIABLE, "")
    if not microseconds.isdigit() or int(microseconds) == 0 or (pid and pid != str(os.getpid())):
        return None
    return int(microseconds) / 1e6


class Watchdog:
    """Turns progress into signs of life, at most one for each third of the interval."""

    def __init__(self, notifier: Notifier, environment: Mapping[str, str] = os.environ,
                 clock: Callable[[], float] = time.monotonic) -> None:
        interval_s = watchdog_s(environment)
        self.interval_s = None if interval_s is None else interval_s / 3
        self._notifier = notifier
        self._clock = clock
        self._fed_s: Optional[float] = None

    def progress(self) -> None:
        """To be called whenever the pipeline moved, however often that is."""
        if self.interval_s is None:
            return
        now_s = self._clock()
        if self._fed_s is None or now_s - self._fed_s >= self.interval_s:
            self._fed_s = now_s
            self._notifier.alive()


class Told(NamedTuple):
    """What a process said: READY -> "1" and the like."""

    pid: int
    states: Dict[str, str]


class Listener:
    """systemd's end of the socket, for `edged run`. The kernel vouches for each sender's process number."""

    def __init__(self, path: str) -> None:
        self.path = path
        if os.path.lexists(path):
            os.unlink(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        try:
            self._socket.setblocking(False)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            self._socket.bind(path)
        except OSError:
            self._socket.close()
            raise

    def fileno(self) -> int:
        return self._socket.fileno()

    def take(self) -> List[Told]:
        """All that was said since the last call; what is no such message is passed over."""
        taken = []
        while True:
            try:
                data, rights, _, _ = self._socket.recvmsg(_DATAGRAM_BYTES, socket.CMSG_SPACE(_UCRED.size))
            except BlockingIOError:
                return taken
            for level, kind, content in rights:
                if (level, kind) == (socket.SOL_SOCKET, _SCM_CREDENTIALS) and len(content) >= _UCRED.size:
                    pid = _UCRED.unpack_from(content)[0]
                    lines = data.decode("utf-8", "replace").split("\n")
                    taken.append(Told(pid, dict(line.split("=", 1) for line in lines if "=" in line)))

    def close(self) -> None:
        self._socket.close()
        try:
            os.unlink(self.path)
        except FileNotFoundError:
            pass
