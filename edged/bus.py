"""ZeroMQ, as every process of ours uses it: a Router binds, a Dealer connects, a Poller waits for several.

This file alone imports zmq. ZeroMQ's own defaults are unsafe for a daemon (it waits for ever at exit,
never notices a dead peer, takes messages of any size, keeps what it sends for peers that never come),
so no socket is made elsewhere. A send never blocks: it says whether the message was taken, and the
layer above sends again what was not answered.

A message goes as one frame of ZeroMQ's, whatever it is made of: a connection that ends between two frames of a
message, while they are read, makes libzmq abort the process (met in a test that kills one side again and again; its
Dealer drops what is half read where ZMQ_IMMEDIATE is set).

CURVE: without a ZAP handler ZeroMQ admits *any* client key (measured), so a Router that holds a CURVE
secret has a ZAP domain of its own, enforced, and asks ``allow`` about each key that connects. Each
message tells the key of its sender: a receiver can cut off a key that was revoked after it connected.

Not for use by two threads at once; sockets of different threads are.
"""

import errno
import itertools
import logging
import os
import socket
import struct
import threading
import time
from abc import ABC, abstractmethod
from typing import Any, Callable, List, NamedTuple, Optional, Sequence, Tuple, Union

import zmq
from zmq.auth.thread import ThreadAuthenticator

from edged.errors import BusError, ConfigError, KeyRefused

log = logging.getLogger(__name__)

MESSAGE_BYTES_MAX = 8 << 20  # ten clips of the largest size agreed
_LENGTH = struct.Struct("<I")  # before each of a message's frames
_QUEUE_MESSAGES = 128  # per peer and direction; twice what the outbox keeps in flight
_HEARTBEAT_MS = 2000
_DEAD_AFTER_MS = 6000  # three heartbeats
_RECONNECT_MS, _RECONNECT_MAX_MS = 100, 5000
_HANDSHAKE_MS = 10000
_BIND_PATIENCE_S = 1.0  # a socket of ours that was just closed leaves its address a little later
_IPC_PATH_MAX = 107  # sun_path without its terminator
_KEY_CHARACTERS = 40  # z85 of 32 bytes


class Message(NamedTuple):
    """What came in.

    peer : identity of the sender (b"" at a Dealer)      frames : none, too, where it was not in our form
    key  : CURVE public key of the sender in z85, as ZAP authenticated it; None without CURVE
    """

    peer: bytes
    frames: List[bytes]
    key: Optional[str]


class CurveKeys(NamedTuple):
    """A CURVE key pair, both halves 40 characters of z85."""

    public: bytes
    secret: bytes

    def __repr__(self) -> str:
        return "CurveKeys({})".format(self.public.decode("ascii", "replace"))


def generate_keys() -> CurveKeys:
    """A new pair; its public half can be an argument of a command: one in 85 would begin as an option does."""
    while True:
        keys = CurveKeys(*zmq.curve_keypair())
        if not keys.public.startswith(b"-"):
            return keys


def public_of(secret: bytes) -> bytes:
    """The public half. Raises KeyRefused where ``secret`` is no key."""
    try:
        return zmq.curve_public(_key(secret, "secret"))
    except (ValueError, zmq.ZMQError):
        raise KeyRefused("CURVE secret key: not z85") from None


def joined(frames: Sequence[bytes]) -> bytes:
    """The one frame that they are sent as: the length of each before it."""
    return b"".join(part for frame in frames for part in (_LENGTH.pack(len(frame)), frame))


def split(sent: bytes) -> List[bytes]:
    """The frames that were joined; none where it is not of this form."""
    parts, at = [], 0
    while at < len(sent):
        begin = at + _LENGTH.size
        if begin > len(sent):
            return []
        at = begin + _LENGTH.unpack_from(sent, at)[0]
        if at > len(sent):
            return []
        parts.append(sent[begin:at])
    return parts


def _opened(frames: "List[zmq.Frame]") -> List[bytes]:
    return split(frames[0].bytes) if len(frames) == 1 else []


class _Shared:
    """The one context of this process and its one ZAP handler, there while there is any socket.

    The handler stays as long: its address is free again only some time after it stopped.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sockets = 0
        self._context: Optional[zmq.Context] = None
        self._guard: Optional[ThreadAuthenticator] = None
        self._domains = itertools.count(1)

    def socket(self, kind: int) -> zmq.Socket:
        with self._lock:
            if self._context is None:
                self._context = zmq.Context()
            made = self._context.socket(kind)
            self._sockets += 1
            return made

    def close(self, opened: zmq.Socket) -> None:
        with self._lock:
            opened.close(linger=0)
            self._sockets -= 1
            if self._sockets:
                return
            if self._guard is not None:
                self._guard.stop()
                self._guard = None
            if self._context is not None:
                self._context.term()
                self._context = None

    def guard(self, admission: "_Admission") -> str:
        """Have ``admission`` decide on the client keys of a new domain; its name."""
        with self._lock:
            if self._guard is None:
                guard = ThreadAuthenticator(self._context)
                guard.start()
                self._guard = guard
            domain = "edged-{}".format(next(self._domains))
            # Of a Router that was closed it stays here, and refuses: the handler's thread reads this table.
            self._guard.configure_curve_callback(domain, admission)
            return domain


class _Admission:
    """Asks ``allow``; whatever goes wrong there is a refusal, for an exception would end the ZAP thread."""

    def __init__(self, allow: Callable[[str], bool]) -> None:
        self.allow = allow

    def callback(self, domain: str, key: bytes) -> bool:
        try:
            admitted = bool(self.allow(key.decode("ascii")))
        except Exception:  # noqa: B902 - see the class
            log.exception("the allow-list failed: key %s is refused", key.decode("ascii", "replace"))
            return False
        if not admitted:
            log.warning("key %s is not on the allow-list: refused", key.decode("ascii"))
        return admitted


_shared = _Shared()  # of the process, for ZeroMQ wants one context and one ZAP handler in each


class _Socket(ABC):
    """What a Router and a Dealer have in common."""

    def __init__(self, kind: int, address: str) -> None:
        self.address = address
        self._admission: Optional[_Admission] = None
        self._socket = _shared.socket(kind)
        self._open = True
        for option, value in (
                (zmq.LINGER, 0), (zmq.IMMEDIATE, 1), (zmq.MAXMSGSIZE, MESSAGE_BYTES_MAX),
                (zmq.SNDHWM, _QUEUE_MESSAGES), (zmq.RCVHWM, _QUEUE_MESSAGES),
                (zmq.HEARTBEAT_IVL, _HEARTBEAT_MS), (zmq.HEARTBEAT_TIMEOUT, _DEAD_AFTER_MS),
                (zmq.HEARTBEAT_TTL, _DEAD_AFTER_MS), (zmq.HANDSHAKE_IVL, _HANDSHAKE_MS),
                (zmq.RECONNECT_IVL, _RECONNECT_MS), (zmq.RECONNECT_IVL_MAX, _RECONNECT_MAX_MS),
                (zmq.IPV6, int("[" in address))):
            self._socket.setsockopt(option, value)

    def receive(self, timeout_s: float) -> Optional[Message]:
        """The next message, or None where none came in time. 0: do not wait."""
        deadline = time.monotonic() + timeout_s
        while True:
            left_ms = max(0, int(1000 * (deadline - time.monotonic()) + 0.999))
            if not self._socket.poll(left_ms, zmq.POLLIN):
                return None
            try:
                message = self._message(self._socket.recv_multipart(zmq.NOBLOCK, copy=False))
            except zmq.Again:
                continue
            if message is not None:
                return message

    def close(self) -> None:
        """Close; what was sent and is not out yet is dropped. Closing twice is no error."""
        if self._open:
            self._open = False
            if self._admission is not None:
                self._admission.allow = _nobody
            _shared.close(self._socket)

    def __enter__(self) -> "Any":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abstractmethod
    def _message(self, frames: "List[zmq.Frame]") -> Optional[Message]:
        """None where it is to be dropped."""

    def _send(self, frames: Sequence[bytes]) -> bool:
        try:
            self._socket.send_multipart(frames, zmq.NOBLOCK)
        except zmq.ZMQError as error:
            if error.errno in (zmq.EAGAIN, zmq.EHOSTUNREACH):
                return False
            raise
        return True


class Router(_Socket):
    """Binds, and knows its peers by identity.

    address      : "ipc://PATH" (mode 0660; a stale file is replaced, a missing folder made) or "tcp://HOST:PORT"
    curve_secret : our CURVE secret key (z85); then ``allow(z85 key of a client)`` decides on each who connects

    Raises BusError where the address cannot be bound, ConfigError where it is none, KeyRefused.
    """

    def __init__(self, address: str, curve_secret: Optional[bytes] = None,
                 allow: Optional[Callable[[str], bool]] = None) -> None:
        if (curve_secret is None) != (allow is None):
            raise ValueError("CURVE without an allow-list admits everybody: give both or neither")
        path = _ipc_path(address)
        super().__init__(zmq.ROUTER, address)
        try:
            self._socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
            self._socket.setsockopt(zmq.ROUTER_HANDOVER, 1)
            if curve_secret is not None and allow is not None:
                public_of(curve_secret)
                admission = _Admission(allow)
                domain = _shared.guard(admission)
                self._admission = admission
                self._socket.setsockopt(zmq.CURVE_SERVER, 1)
                self._socket.setsockopt(zmq.CURVE_SECRETKEY, curve_secret)
                self._socket.setsockopt_string(zmq.ZAP_DOMAIN, domain)
                self._socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
            self._bind(path)
        except BaseException:
            self.close()
            raise

    @property
    def port(self) -> int:
        """The TCP port that was taken."""
        return int(self._socket.getsockopt_string(zmq.LAST_ENDPOINT).rpartition(":")[2].rstrip("\0"))

    def send(self, peer: bytes, frames: Sequence[bytes]) -> bool:
        """False where the peer is not connected or does not take more at present."""
        return self._send([peer, joined(frames)])

    def _message(self, frames: "List[zmq.Frame]") -> Optional[Message]:
        key: Optional[str] = None
        if self._admission is not None:
            key = _user_id(frames[0])
            if key is None:  # never without a sender, whatever ZeroMQ may do
                log.error("%s: a message without an authenticated key is dropped", self.address)
                return None
        return Message(frames[0].bytes, _opened(frames[1:]), key)

    def _bind(self, path: Optional[str]) -> None:
        deadline = time.monotonic() + _BIND_PATIENCE_S
        while True:
            try:
                if path is None:
                    self._socket.bind(self.address)
                else:
                    self._bind_file(path)
                return
            except (OSError, zmq.ZMQError) as error:
                code = error.errno
            if code in (errno.EINVAL, zmq.EPROTONOSUPPORT):
                raise ConfigError("{}: no address to bind: tcp://HOST:PORT or ipc://PATH".format(self.address))
            if code != errno.EADDRINUSE:
                raise BusError("{}: cannot bind: {}".format(self.address, os.strerror(code or 0)))
            if time.monotonic() >= deadline:
                raise BusError("{}: address in use: stop the other, or choose another port".format(self.address))
            time.sleep(0.02)

    def _bind_file(self, path: str) -> None:
        os.makedirs(os.path.dirname(path) or ".", mode=0o750, exist_ok=True)
        # ZeroMQ unlinks whatever lies there, a living socket included: ask first.
        if _answers(path):
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
        before = os.umask(0o117)  # so that the mode is the socket's from its first moment on
        try:
            self._socket.bind(self.address)
        finally:
            os.umask(before)


class Dealer(_Socket):
    """Connects, now and again whenever the connection breaks; while there is none, nothing is taken to be sent.

    identity : by which the Router knows this one (1 to 255 bytes, the first not 0)
    curve    : (our keys, the server's public key), pinned: a server of another key is not talked to

    Raises ConfigError where the address is none, KeyRefused.
    """

    def __init__(self, address: str, identity: bytes, curve: Optional[Tuple[CurveKeys, bytes]] = None) -> None:
        if not 1 <= len(identity) <= 255 or identity[0] == 0:
            raise ValueError("identity of {} bytes".format(len(identity)))
        _ipc_path(address)
        super().__init__(zmq.DEALER, address)
        try:
            self._socket.setsockopt(zmq.ROUTING_ID, identity)
            if curve is not None:
                keys, server = curve
                if public_of(keys.secret) != keys.public:
                    raise KeyRefused("CURVE key pair: the public key is not the secret's")
                self._socket.setsockopt(zmq.CURVE_PUBLICKEY, keys.public)
                self._socket.setsockopt(zmq.CURVE_SECRETKEY, keys.secret)
                try:
                    self._socket.setsockopt(zmq.CURVE_SERVERKEY, _key(server, "server"))
                except zmq.ZMQError:
                    raise KeyRefused("CURVE server key: not z85") from None
            try:
                self._socket.connect(address)
            except zmq.ZMQError as error:
                raise ConfigError("{}: no address to connect to ({}): tcp://HOST:PORT or ipc://PATH".format(
                    address, os.strerror(error.errno))) from None
        except BaseException:
            self.close()
            raise

    def send(self, frames: Sequence[bytes]) -> bool:
        """False where there is no connection, or the queue is full."""
        return self._send([joined(frames)])

    def _message(self, frames: "List[zmq.Frame]") -> Optional[Message]:
        return Message(b"", _opened(frames), None)


Waitable = Union[_Socket, int, Any]  # a Router, a Dealer, a file descriptor, or an object with fileno()


class Poller:
    """Waits until something can be received from one of several sockets and file descriptors."""

    def __init__(self, *sources: Waitable) -> None:
        self._poller = zmq.Poller()
        self._sources: List[Tuple[Waitable, Any]] = []
        for source in sources:
            self.add(source)

    def add(self, source: Waitable) -> None:
        raw = source._socket if isinstance(source, _Socket) else source if isinstance(source, int) else source.fileno()
        self._sources.append((source, raw))
        self._poller.register(raw, zmq.POLLIN)

    def remove(self, source: Waitable) -> None:
        """Before it is closed."""
        for entry in self._sources:
            if entry[0] is source or entry[0] == source:
                self._sources.remove(entry)
                self._poller.unregister(entry[1])
                return
        raise KeyError(source)

    def wait(self, timeout_s: float) -> List[Waitable]:
        """Those that are ready, in the order in which they were added; none after the time."""
        ready = dict(self._poller.poll(max(0, int(1000 * timeout_s + 0.999))))
        return [source for source, raw in self._sources if ready.get(raw)]


def _nobody(_: str) -> bool:
    return False


def _key(key: bytes, which: str) -> bytes:
    if len(key) != _KEY_CHARACTERS:
        raise KeyRefused("CURVE {} key of {} characters: {} of z85 expected".format(which, len(key), _KEY_CHARACTERS))
    return key


def _user_id(frame: "zmq.Frame") -> Optional[str]:
    try:
        return str(frame.get("User-Id")) or None
    except zmq.ZMQError:
        return None


def _ipc_path(address: str) -> Optional[str]:
    if not address.startswith("ipc://"):
        return None
    path = address[len("ipc://"):]
    size = len(os.fsencode(path))
    if not 1 <= size <= _IPC_PATH_MAX:
        raise ConfigError("{}: a socket's path has 1 to {} bytes, this one {}: choose a shorter node.run".format(
            address, _IPC_PATH_MAX, size))
    return path


def _answers(path: str) -> bool:
    """Somebody listens on the Unix socket ``path``."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(0.5)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError as error:
            return error.errno in (errno.EAGAIN, errno.ETIMEDOUT) or isinstance(error, socket.timeout)
    return True
