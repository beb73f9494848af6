"""Planted values, and where they are found again: in the memory of processes, in files, in what sockets carried.

``Canaries`` knows what was planted and searches bytes for all of it at once, ``memory`` reads a process as root can,
``changed_files`` finds what was written anywhere that all may write, ``Tap`` stands in a socket's place and keeps what
passes, ``Halt`` holds it there.
"""

import array
import base64
import os
import queue
import signal
import socket
import stat
import tempfile
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from edged.model.layers import GraphLayer, ResidualLayer, TemporalLayer

WORD = 8
LEAST_BYTES = 16          # of a needle: by chance nowhere
DISTINCT = 4              # different bytes in each word that is looked for: words of zeros and ones are everywhere
STEP = 8 << 20
OVERLAP = 4096            # the longest needle

CLOCK_S = 1.0             # that a file's time may be behind: the kernel's clock for it is a coarse one
CAP_SYS_PTRACE = 19       # of linux/capability.h

_HASH = np.uint64(0x9E3779B97F4A7C15)
_TABLE_BITS = 22
_NOT_MEMORY = ("[vvar]", "[vvar_vclock]", "[vsyscall]")


class Canaries:
    """Every needle has a name; many may have the same.

    A word-aligned word of memory lies in a needle, wherever that begins, at one of eight offsets. So words alone are
    looked up, all needles at once, and only where one is known the whole needle is compared.
    """

    def __init__(self):
        self._needles = []  # (name, bytes), each once
        self._known = set()
        self._at = {}       # word -> [(index of the needle, offset in it)]
        self._table = self._words = None

    @property
    def names(self):
        return {name for name, _ in self._known}

    def plant(self, name, octets):
        """Whether it can be told from what is everywhere."""
        octets = bytes(octets)
        assert LEAST_BYTES <= len(octets) <= OVERLAP, name
        distinct = [len(set(octets[at:at + WORD])) for at in range(len(octets) - WORD + 1)]
        anchor = max(range(len(distinct) - WORD + 1), key=lambda at: min(distinct[at:at + WORD]))
        if min(distinct[anchor:anchor + WORD]) < DISTINCT:
            return False
        if (name, octets) in self._known:
            return True
        self._known.add((name, octets))
        for at in range(anchor, anchor + WORD):
            word = int.from_bytes(octets[at:at + WORD], "little")
            self._at.setdefault(word, []).append((len(self._needles), at))
        self._needles.append((name, octets))
        self._table = None
        return True

    def plant_secret(self, name, secret):
        """A key: every half of it, and the forms in which it would stand in a text."""
        parts = {secret[at:at + LEAST_BYTES] for at in range(0, len(secret) - LEAST_BYTES + 1, LEAST_BYTES)}
        parts.add(secret[-LEAST_BYTES:])
        for part in parts:
            self.plant(name, part)
        self.plant(name, secret.hex().encode()[:32])
        self.plant(name, secret.hex().upper().encode()[:32])
        for code in (base64.b64encode, base64.urlsafe_b64encode):
            self.plant(name, code(secret)[:LEAST_BYTES])

    def find(self, data):
        """The names of what stands in it."""
        if self._table is None:
            self._words = np.array(sorted(self._at), np.uint64)
            self._table = np.zeros(1 << _TABLE_BITS, bool)
            self._table[self._hash(self._words)] = True
        found = set()
        data = bytes(data)
        for begin in range(0, len(data), STEP):
            found |= self._find(data[begin:begin + STEP + OVERLAP])
        return found

    @staticmethod
    def _hash(words):
        return (words * _HASH) >> np.uint64(64 - _TABLE_BITS)

    def _find(self, data):
        found = set()
        words = np.frombuffer(data.ljust(-(-len(data) // WORD) * WORD, b"\0"), "<u8")
        likely = np.flatnonzero(self._table[self._hash(words)])
        nearest = np.searchsorted(self._words, words[likely]).clip(max=len(self._words) - 1)
        for at in likely[self._words[nearest] == words[likely]]:
            for index, offset in self._at[int(words[at])]:
                name, needle = self._needles[index]
                begin = int(at) * WORD - offset
                if name not in found and begin >= 0 and data[begin:begin + len(needle)] == needle:
                    found.add(name)
        return found


def plant_weights(canaries, model):
    products = [layer for layer in model.layers if isinstance(layer, (GraphLayer, ResidualLayer, TemporalLayer))]
    assert len(products) > 3
    for layer in products:
        rows = layer.weights.reshape(len(layer.weights), -1)
        for plane in (rows, rows.T):  # as the package has them, and in the enclave's panels of 16 rows
            plane = np.ascontiguousarray(plane).reshape(-1)
            for begin in range(0, plane.size - 16 + 1, 16):
                for kind in (np.int8, np.int16, np.int32, np.float32):
                    canaries.plant("weights", plane[begin:begin + 16].astype(kind).tobytes())


def memory(pid):
    """All that the process can read, map by map, in pieces that overlap.

    Raises PermissionError, and OSError where a map that is no file's cannot be read.
    """
    with open("/proc/{}/maps".format(pid), encoding="utf-8", errors="replace") as file:
        maps = [line.split(None, 5) for line in file]
    with open("/proc/{}/mem".format(pid), "rb", buffering=0) as mem:
        for words in maps:
            name = words[5].strip() if len(words) > 5 else ""
            if "r" not in words[1] or name in _NOT_MEMORY:
                continue
            begin, end = (int(bound, 16) for bound in words[0].split("-"))
            for at in range(begin, end, STEP):
                data = _read(mem, at, min(STEP + OVERLAP, end - at))
                if not data and not name.startswith("/"):
                    raise OSError("process {}: {} is not to be read".format(pid, " ".join(words)))
                yield data


def nameless(pid):
    """The content of files that the process has open and nobody finds by name: deleted ones, memory shared as a file.

    Raises PermissionError.
    """
    folder = "/proc/{}/fd".format(pid)
    for name in os.listdir(folder):
        path = os.path.join(folder, name)
        with suppress(FileNotFoundError):  # closed meanwhile: nobody looks at it then
            about = os.stat(path)
            if stat.S_ISREG(about.st_mode) and not about.st_nlink:
                with open(path, "rb") as file:
                    yield file.read()


def may_trace():
    """Whether nothing of this machine's is closed to who searches (CAP_SYS_PTRACE): root, where nobody took it away."""
    with open("/proc/self/status", encoding="ascii") as file:
        effective = [line.split()[1] for line in file if line.startswith("CapEff:")]
    return bool(int(effective[0], 16) >> CAP_SYS_PTRACE & 1)


def changed_files(since_s, *leave_out):
    """(path, content) of this user's files under the folders that are for everybody's, changed since then.

    leave_out : folders and files that are looked at elsewhere, or are another's
    """
    tops = {os.path.realpath(top) for top in (tempfile.gettempdir(), "/tmp", "/var/tmp", "/dev/shm")}
    for top in sorted(tops):
        yield from changed_under(top, since_s, *leave_out)


def changed_under(top, since_s, *leave_out):
    """As ``changed_files``, under this folder."""
    leave_out = {str(path) for path in leave_out}
    for folder, folders, files in os.walk(str(top)):
        folders[:] = sorted(name for name in folders if os.path.join(folder, name) not in leave_out)
        for path in sorted(os.path.join(folder, name) for name in files):
            with suppress(FileNotFoundError):  # others write there, too, and take theirs away
                about = os.lstat(path)
                if (path not in leave_out and stat.S_ISREG(about.st_mode) and about.st_uid == os.geteuid()
                        and about.st_ctime > since_s - CLOCK_S):
                    with open(path, "rb") as file:
                        yield path, file.read()


def _read(mem, at, size):
    """What there is: a file that is shorter than its map has no more."""
    parts = []
    while size:
        try:
            mem.seek(at)
            part = mem.read(size)
        except PermissionError:
            raise
        except OSError:
            break
        if not part:
            break
        parts.append(part)
        at, size = at + len(part), size - len(part)
    return b"".join(parts)


def children(pid):
    """{name: process number} of whom it started."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                name, rest = (entry / "stat").read_text().split("(", 1)[1].rsplit(")", 1)
                if int(rest.split()[1]) == pid:
                    found[name] = int(entry.name)
    return found


def _state(pid):
    return Path("/proc/{}/stat".format(pid)).read_text().rsplit(")", 1)[1].split()[0]


@contextmanager
def frozen(pids):
    """Nobody moves meanwhile, so that what one has just dropped is not with another that was looked at before."""
    stopped = []
    try:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
            stopped.append(pid)
        for pid in pids:
            while _state(pid) not in "TtZX":
                time.sleep(0.001)
        yield
    finally:
        for pid in reversed(stopped):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


class Halt:
    """Where a tap's messages wait, each until it is let on."""

    def __init__(self):
        self._waiting, self._over = queue.Queue(), threading.Event()

    def hold(self, data):
        """In the tap's thread."""
        passed = threading.Event()
        self._waiting.put((data, passed))
        while not passed.wait(0.05) and not self._over.is_set():
            pass

    @contextmanager
    def next(self, timeout_s):
        """The next message, which goes on afterwards; None where none comes."""
        try:
            data, passed = self._waiting.get(timeout=timeout_s)
        except queue.Empty:
            yield None
            return
        try:
            yield data
        finally:
            passed.set()

    def end(self):
        """All go on, and whatever comes."""
        self._over.set()


class Tap:
    """Listens where the one who connects expects the other, connects to that, and keeps what passes.

    listen, to : paths of Unix sockets, or ports of this machine      kind : as of socket.socket
    heard : of each connection what it carried [there, back], a list of bytes as they were received
    halt : a ``Halt`` at which all that passes from now on is held
    """

    halt = None

    def __init__(self, listen, to, kind=socket.SOCK_STREAM):
        self.name = str(to)
        self._to, self._kind = to, kind
        self.heard = []
        self._open = []
        self._lock = threading.Lock()
        self._closing = False
        self._listener = self._socket(listen)
        self._listener.bind(self._address(listen))
        self._listener.listen(16)
        threading.Thread(target=self._accept, daemon=True).start()

    def data(self):
        """All of it; what followed on another on one way stays behind it."""
        return b"".join(b"".join(list(way)) for ways in list(self.heard) for way in ways)

    def close(self):
        self._closing = True
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for one in self._open:
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def _socket(self, place):
        return socket.socket(socket.AF_INET if isinstance(place, int) else socket.AF_UNIX, self._kind)

    @staticmethod
    def _address(place):
        return ("127.0.0.1", place) if isinstance(place, int) else str(place)

    def _accept(self):
        while not self._closing:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = self._socket(self._to)
            try:
                far.connect(self._address(self._to))
            except OSError:  # the other is not there yet: whoever came sees it
                near.close()
                far.close()
                continue
            ways = ([], [])
            with self._lock:
                self.heard.append(ways)
                self._open += [near, far]
            for source, sink, way in ((near, far, ways[0]), (far, near, ways[1])):
                threading.Thread(target=self._pass, args=(source, sink, way), daemon=True).start()

    def _pass(self, source, sink, way):
        """What is shared in a message is passed on with it."""
        handles = array.array("i")
        room = socket.CMSG_SPACE(4 * handles.itemsize)
        with suppress(OSError):
            while True:
                data, ancillary, _, _ = source.recvmsg(1 << 16, room)
                if not data:
                    break
                way.append(data)
                halt = self.halt
                if halt is not None:
                    halt.hold(data)
                held = array.array("i")
                for level, kind, content in ancillary:
                    if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                        held.frombytes(content[:len(content) // held.itemsize * held.itemsize])
                sent = sink.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, held)] if held else [])
                if sent < len(data):
                    sink.sendall(data[sent:])
                for handle in held:
                    os.close(handle)
        for one in (source, sink):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


def zmtp_messages(stream):
    """The whole messages of one way of a ZeroMQ connection that is not encrypted, each a list of frames."""
    at, frames = 64, []  # after the greeting
    while at + 9 <= len(stream) or at + 2 <= len(stream) and not stream[at] & 2:
        flags = stream[at]
        size, at = (int.from_bytes(stream[at + 1:at + 9], "big"), at + 9) if flags & 2 else (stream[at + 1], at + 2)
        if at + size > len(stream):
            return
        if not flags & 4:  # no command
            frames.append(stream[at:at + size])
            if not flags & 1:
                yield frames
                frames = []
        at += size
