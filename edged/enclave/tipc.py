"""Trusty's IPC from Linux: one whole message each way, at most 4096 bytes (TRUSTY.md section 3).

Two transports of one interface: the SEQPACKET sockets of the host port, and the device of the
Trusty driver. This is the only file that knows either. ``FakeChannel`` ships beside them.
"""

import array
import ctypes
import errno
import fcntl
import os
import select
import socket
import stat
from abc import ABC, abstractmethod
from typing import Callable, List, Optional, Tuple

from edged.enclave.window import SharedWindow, dma_heap_window, memfd_window
from edged.enclave.wire import EDGED_MESSAGE_BYTES
from edged.errors import ConfigError, EnclaveError, KeyRefused

DEVICE = "/dev/trusty-ipc-dev0"

# The slowest answer: EVAL_LOAD_COMMIT and EVAL_PREPARE_OPEN of a full-size network on a slow core.
TIMEOUT_S = 120.0

# Normal-world sockets of the host port: DIR/<port>.ns
SOCKET_SUFFIX = ".ns"
# sockaddr_un.sun_path of Linux, less the final NUL
SOCKET_PATH_BYTES = 107

_POINTER_BYTES = ctypes.sizeof(ctypes.c_void_p)
TIPC_IOC_CONNECT = 1 << 30 | _POINTER_BYTES << 16 | ord("r") << 8 | 0x80  # _IOW('r', 0x80, char *)


class _Iovec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("len", ctypes.c_size_t)]


class _TrustyShm(ctypes.Structure):
    _fields_ = [("fd", ctypes.c_int32), ("transfer", ctypes.c_uint32)]


class _SendMsgReq(ctypes.Structure):
    _fields_ = [("iov", ctypes.c_uint64), ("shm", ctypes.c_uint64),
                ("iov_cnt", ctypes.c_uint64), ("shm_cnt", ctypes.c_uint64)]


TIPC_IOC_SEND_MSG = 1 << 30 | ctypes.sizeof(_SendMsgReq) << 16 | ord("r") << 8 | 0x81
TRUSTY_SHARE = 0


class Channel(ABC):
    """One connection to one port. Not for use by two threads at once."""

    name: str
    _answered = False  # something was received

    @abstractmethod
    def send(self, message: bytes, handle: Optional[int] = None) -> None:
        """Send one message, with shared memory where ``handle`` is given."""

    @abstractmethod
    def receive(self) -> bytes:
        """The next whole message. Raises EnclaveError when the peer is gone or silent."""

    @abstractmethod
    def window(self, size_bytes: int) -> SharedWindow:
        """Fresh memory that this transport can share."""

    @abstractmethod
    def close(self) -> None:
        """End the connection; the peer sees it."""

    def _gone(self, error: Optional[OSError] = None) -> EnclaveError:
        why = "" if error is None else " ({})".format(error.strerror)
        if not self._answered:
            # This is how Trusty refuses a client beyond the port's limit: it lets it connect, then closes.
            return EnclaveError("{}: the enclave closed the connection before its first answer{}: it is busy, for it "
                                "serves one client at a time: stop the other (the bridge, a benchmark) first".format(
                                    self.name, why))
        return EnclaveError("{}: the enclave closed the connection{}: see its log, and start it again".format(
            self.name, why))

    def _silent(self, timeout_s: float) -> EnclaveError:
        return EnclaveError("{}: no answer within {:g} s: the enclave hangs, start it again".format(
            self.name, timeout_s))


class HostChannel(Channel):
    """The host port: a Unix SEQPACKET socket in the enclave's folder."""

    def __init__(self, folder: str, port: str, timeout_s: float = TIMEOUT_S) -> None:
        self.name = os.path.join(folder, port + SOCKET_SUFFIX)
        self._timeout_s = timeout_s
        require_socket_path(self.name)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.settimeout(timeout_s)
        try:
            self._socket.connect(self.name)
        except PermissionError as error:
            self._socket.close()
            raise _not_permitted(self.name, error) from error
        except OSError as error:
            self._socket.close()
            raise EnclaveError("{}: {}: start the enclave with `edged enclave --dir {}`".format(
                self.name, error.strerror or error, folder)) from error

    def send(self, message: bytes, handle: Optional[int] = None) -> None:
        ancillary: List[Tuple[int, int, array.array]] = []
        if handle is not None:
            ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [handle]))]
        try:
            self._socket.sendmsg([message], ancillary)
        except socket.timeout:
            raise self._silent(self._timeout_s) from None
        except OSError as error:
            raise self._gone(error) from error

    def receive(self) -> bytes:
        try:
            # One byte more than allowed, to tell a message that is too long.
            message = self._socket.recv(EDGED_MESSAGE_BYTES + 1)
        except socket.timeout:
            raise self._silent(self._timeout_s) from None
        except OSError as error:
            raise self._gone(error) from error
        if not message:
            raise self._gone()
        self._answered = True
        return message

    def window(self, size_bytes: int) -> SharedWindow:
        return memfd_window(size_bytes)

    def close(self) -> None:
        self._socket.close()


class DeviceChannel(Channel):
    """The Trusty driver: connect by ioctl, then each read and write carries one whole message."""

    def __init__(self, device: str, port: str, timeout_s: float = TIMEOUT_S) -> None:
        self.name = "{} {}".format(device, port)
        self._timeout_s = timeout_s
        try:
            self._file = os.open(device, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise EnclaveError("{}: {}: is the Trusty driver loaded, and may this user open it?".format(
                device, error.strerror)) from error
        try:
            fcntl.ioctl(self._file, TIPC_IOC_CONNECT, port.encode("ascii") + b"\0")
        except OSError as error:
            os.close(self._file)
            raise EnclaveError("{}: {}: is the trusted application in this board's image?".format(
                self.name, error.strerror)) from error

    def send(self, message: bytes, handle: Optional[int] = None) -> None:
        try:
            if handle is None:
                os.write(self._file, message)
            else:
                self._send_shared(message, handle)
        except OSError as error:
            raise self._gone(error) from error

    def _send_shared(self, message: bytes, handle: int) -> None:
        buffer = ctypes.create_string_buffer(message, len(message))
        iov = _Iovec(ctypes.addressof(buffer), len(message))
        shm = _TrustyShm(handle, TRUSTY_SHARE)
        request = _SendMsgReq(ctypes.addressof(iov), ctypes.addressof(shm), 1, 1)
        try:
            fcntl.ioctl(self._file, TIPC_IOC_SEND_MSG, bytes(request))
        except OSError as error:
            if error.errno not in (errno.ENOTTY, errno.EINVAL):
                raise
            # NVIDIA's R32 driver has CONNECT alone.
            raise EnclaveError("{}: this driver cannot share memory: choose the message transport".format(
                self.name)) from error

    def receive(self) -> bytes:
        poll = select.poll()
        poll.register(self._file, select.POLLIN)
        if not poll.poll(self._timeout_s * 1000):
            raise self._silent(self._timeout_s)
        try:
            message = os.read(self._file, EDGED_MESSAGE_BYTES)
        except OSError as error:
            raise self._gone(error) from error
        if not message:
            raise self._gone()
        self._answered = True
        return message

    def window(self, size_bytes: int) -> SharedWindow:
        return dma_heap_window(size_bytes)

    def close(self) -> None:
        os.close(self._file)


class FakeChannel(Channel):
    """For tests: ``answer(message, handle)`` gives the answer to each message, at once."""

    def __init__(self, answer: Callable[[bytes, Optional[int]], bytes]) -> None:
        self.name = "fake"
        self._answer = answer
        self._answers: List[bytes] = []

    def send(self, message: bytes, handle: Optional[int] = None) -> None:
        self._answers.append(self._answer(message, handle))

    def receive(self) -> bytes:
        if not self._answers:
            raise self._silent(0)
        return self._answers.pop(0)

    def window(self, size_bytes: int) -> SharedWindow:
        return memfd_window(size_bytes)

    def close(self) -> None:
        pass


def connect(place: str, port: str, timeout_s: float = TIMEOUT_S) -> Channel:
    """A channel to ``port``: of the host port where ``place`` is a folder, else of the device."""
    try:
        is_device = stat.S_ISCHR(os.stat(place).st_mode)
    except PermissionError as error:
        raise _not_permitted(place, error) from error
    except OSError as error:
        raise EnclaveError("{}: {}: name the folder of `edged enclave --dir`, or {}".format(
            place, error.strerror, DEVICE)) from error
    return (DeviceChannel if is_device else HostChannel)(place, port, timeout_s)


def require_socket_path(path: str) -> None:
    """Raises ConfigError where the path is longer than a Unix socket's may be."""
    size = len(os.fsencode(path))
    if size > SOCKET_PATH_BYTES:
        raise ConfigError("{}: {} bytes, and the path of a Unix socket has at most {}: name a folder with a "
                          "shorter path".format(path, size, SOCKET_PATH_BYTES))


def _not_permitted(path: str, error: OSError) -> KeyRefused:
    return KeyRefused("{}: {}: become the user who started the enclave".format(path, error.strerror))
