"""The two transports: real sockets for the host port; the Trusty device by its system calls."""

import array
import ctypes
import errno
import mmap
import os
import socket
import struct
import tempfile
import threading
from contextlib import contextmanager

import pytest

from edged.enclave import tipc, window
from edged.enclave.window import memfd_window
from edged.errors import ConfigError, EnclaveError, KeyRefused

PORT = "com.edged.test"


class Server:
    """One SEQPACKET peer in a thread: ``serve(connection)`` runs once for the first client."""

    def __init__(self, folder, serve):
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(str(folder / (PORT + ".ns")))
        self._listener.listen(1)
        self._thread = threading.Thread(target=self._run, args=(serve,))
        self._thread.start()

    def _run(self, serve):
        connection, _ = self._listener.accept()
        with connection:
            serve(connection)

    def close(self):
        self._thread.join()
        self._listener.close()


@pytest.fixture
def serve(tmp_path):
    servers = []

    def start(function):
        servers.append(Server(tmp_path, function))
        return str(tmp_path)

    yield start
    for server in servers:
        server.close()


def test_a_whole_message_goes_each_way(serve):
    def echo(connection):
        for _ in range(2):
            connection.send(connection.recv(5000)[::-1])

    channel = tipc.connect(serve(echo), PORT)
    channel.send(b"first")
    channel.send(bytes(4095) + b"\1")
    assert channel.receive() == b"tsrif"
    assert channel.receive() == b"\1" + bytes(4095)
    channel.close()


def test_the_peer_maps_the_window_that_came_with_a_message(serve):
    def write_into_window(connection):
        _, ancillary, _, _ = connection.recvmsg(5000, socket.CMSG_SPACE(4))
        handle = array.array("i", ancillary[0][2])[0]
        with mmap.mmap(handle, 8192) as memory:
            memory[5000:5003] = b"yes"
        os.close(handle)
        connection.send(b"written")

    channel = tipc.connect(serve(write_into_window), PORT)
    shared = channel.window(5001)
    assert shared.size_bytes == 8192
    channel.send(b"window", shared.handle)
    assert channel.receive() == b"written"
    assert shared.memory[5000:5003] == b"yes"
    shared.close()
    channel.close()


@pytest.mark.parametrize("size_bytes", [0, 4096, 12288])
def test_a_window_cannot_change_its_size(size_bytes):
    shared = memfd_window(8192)
    with pytest.raises(PermissionError):
        os.ftruncate(shared.handle, size_bytes)
    shared.close()


def test_an_enclave_that_ends_is_an_error(serve):
    channel = tipc.connect(serve(lambda connection: connection.recv(10)), PORT)
    channel.send(b"x")
    with pytest.raises(EnclaveError, match="closed the connection"):
        channel.receive()
    with pytest.raises(EnclaveError, match="closed the connection"):
        channel.send(b"x")
    channel.close()


def test_an_enclave_that_ends_before_its_first_answer_is_busy_and_not_to_be_started_again(serve):
    channel = tipc.connect(serve(lambda connection: None), PORT)
    for use in (channel.receive, lambda: channel.send(b"x")):
        with pytest.raises(EnclaveError, match="one client at a time: stop the other") as caught:
            use()
        assert "start it again" not in str(caught.value)
    channel.close()


def test_an_enclave_that_ends_after_an_answer_is_to_be_started_again(serve):
    channel = tipc.connect(serve(lambda connection: connection.send(b"answer")), PORT)
    assert channel.receive() == b"answer"
    with pytest.raises(EnclaveError, match="closed the connection.*start it again"):
        channel.receive()
    channel.close()


def test_an_enclave_that_is_silent_is_an_error(serve):
    done = threading.Event()
    channel = tipc.HostChannel(serve(lambda connection: done.wait(10)), PORT, timeout_s=0.05)
    with pytest.raises(EnclaveError, match="no answer within 0.05 s"):
        channel.receive()
    done.set()
    channel.close()


def test_a_folder_without_an_enclave_names_the_command(tmp_path):
    with pytest.raises(EnclaveError, match="edged enclave --dir " + str(tmp_path)):
        tipc.connect(str(tmp_path), PORT)


@pytest.mark.parametrize("more, error", [(0, EnclaveError), (1, ConfigError)])
def test_a_folder_too_long_for_a_socket_is_no_enclave_to_be_started(tmp_path, monkeypatch, more, error):
    monkeypatch.chdir(tmp_path)
    folder = "f" * (107 + more - len("/" + PORT + ".ns"))
    os.mkdir(folder)
    with pytest.raises(error) as caught:
        tipc.connect(folder, PORT)
    assert ("start the enclave" in str(caught.value)) == (error is EnclaveError)
    assert ("shorter path" in str(caught.value)) == (error is ConfigError)


@contextmanager
def unprivileged():
    """Not root for a while."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(before)


@pytest.mark.parametrize("closed", [".", "enclave", "enclave/" + PORT + ".ns"])
def test_the_enclave_of_another_user_is_not_permitted(closed):
    with tempfile.TemporaryDirectory() as top, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        os.chmod(top, 0o755)
        folder = os.path.join(top, "enclave")
        os.mkdir(folder)
        listener.bind(os.path.join(folder, PORT + ".ns"))
        listener.listen(1)
        os.chmod(os.path.join(top, closed), 0)
        with unprivileged(), pytest.raises(KeyRefused, match="{}.*become the user".format(folder)):
            tipc.connect(folder, PORT)
        os.chmod(os.path.join(top, closed), 0o700)


def test_a_place_that_does_not_exist_is_an_error(tmp_path):
    with pytest.raises(EnclaveError, match="No such file"):
        tipc.connect(str(tmp_path / "none"), PORT)


def test_a_device_that_is_no_trusty_driver_is_an_error():
    with pytest.raises(EnclaveError, match="trusted application"):
        tipc.connect("/dev/null", PORT)


class Driver:
    """The Trusty driver as TRUSTY.md section 3 gives it: a socket pair for read and write, and its ioctls."""

    def __init__(self, monkeypatch):
        ours, self.enclave = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.handle = ours.detach()
        self.port = None
        self.shared = None
        self.has_send_msg = True
        monkeypatch.setattr(tipc.os, "open", lambda path, flags: self.handle)
        monkeypatch.setattr(tipc.fcntl, "ioctl", self.ioctl)

    def ioctl(self, handle, request, argument):
        assert handle == self.handle
        if request == 0x40087280:  # _IOW('r', 0x80, char *)
            self.port = argument
        elif request == 0x40207281 and self.has_send_msg:  # _IOW('r', 0x81, struct tipc_send_msg_req)
            iov, shm, iov_count, shm_count = struct.unpack("=QQQQ", argument)
            base, size = struct.unpack("=QQ", ctypes.string_at(iov, 16))
            self.shared = struct.unpack("=iI", ctypes.string_at(shm, 8))
            assert (iov_count, shm_count) == (1, 1)
            os.write(self.handle, ctypes.string_at(base, size))
        else:
            raise OSError(errno.ENOTTY, "Inappropriate ioctl for device")


@pytest.fixture
def driver(monkeypatch):
    return Driver(monkeypatch)


def test_the_device_is_connected_by_the_ports_name(driver):
    channel = tipc.DeviceChannel("/dev/trusty", PORT)
    assert driver.port == PORT.encode() + b"\0"
    channel.send(b"question")
    assert driver.enclave.recv(100) == b"question"
    driver.enclave.send(b"answer")
    assert channel.receive() == b"answer"
    driver.enclave.close()
    with pytest.raises(EnclaveError, match="closed the connection"):
        channel.receive()
    channel.close()


def test_the_device_shares_memory_by_its_second_ioctl(driver):
    channel = tipc.DeviceChannel("/dev/trusty", PORT)
    channel.send(b"window", 42)
    assert driver.enclave.recv(100) == b"window"
    assert driver.shared == (42, 0)  # TRUSTY_SHARE
    channel.close()


def test_a_driver_without_shared_memory_names_the_message_transport(driver):
    driver.has_send_msg = False
    channel = tipc.DeviceChannel("/dev/trusty", PORT)
    with pytest.raises(EnclaveError, match="message transport"):
        channel.send(b"window", 42)
    channel.close()


def test_a_silent_device_is_an_error(driver):
    channel = tipc.DeviceChannel("/dev/trusty", PORT, timeout_s=0.05)
    with pytest.raises(EnclaveError, match="no answer within 0.05 s"):
        channel.receive()
    channel.close()


def test_a_window_for_the_device_comes_from_the_dma_heap(monkeypatch, tmp_path):
    heap = tmp_path / "heap"
    heap.write_bytes(b"")
    buffer = os.memfd_create("buffer")
    os.ftruncate(buffer, 8192)

    def allocate(handle, request, argument):
        assert request == 0xC0184800  # _IOWR('H', 0, struct dma_heap_allocation_data)
        assert struct.unpack("=QIIQ", argument) == (8192, 0, os.O_RDWR | os.O_CLOEXEC, 0)
        argument[8:12] = struct.pack("=I", buffer)

    monkeypatch.setattr(window.fcntl, "ioctl", allocate)
    shared = window.dma_heap_window(5000, str(heap))
    assert (shared.handle, shared.size_bytes, len(shared.memory)) == (buffer, 8192, 8192)
    shared.close()


def test_a_machine_without_dma_heap_names_the_message_transport(tmp_path):
    with pytest.raises(EnclaveError, match="message transport"):
        window.dma_heap_window(4096, str(tmp_path / "none"))
