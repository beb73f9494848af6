"""The host port keeps Trusty's promises: tests/c/echo runs on it and is misused.

The application is built by trusty_ta/Makefile into a folder of this test's own.
"""

import array
import ctypes
import fcntl
import hashlib
import json
import os
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux") or shutil.which("make") is None, reason="needs Linux and make"
)

ROOT = Path(__file__).resolve().parent.parent
TRUSTY = ROOT / "trusty_ta"
ECHO_MANIFEST = json.loads((ROOT / "tests/c/echo/manifest.json").read_text(encoding="ascii"))

MESSAGE_BYTES = 4096
HEADER = struct.Struct("<HHIIIQ")  # struct edged_hdr
MEMORY = struct.Struct("<7Q")  # struct edged_memory
LENGTH, ARGUMENT = 3, 7  # EDGED_ERR_*
DONE, REFUSED = b"\x01", b"\x00"
QUEUE = 4  # msg_queue_len of the echo port

FRIEND = uuid.UUID("23ece6ba-caee-43e0-b19c-f9f1abfdb8e6")

# `SANITIZE=1 pytest tests/test_host_port.py` builds so (the Makefile reads the environment).
unsanitized = pytest.mark.skipif(
    bool(os.environ.get("SANITIZE")), reason="a sanitizer build has neither a filter nor its own stack"
)

# Of linux/fcntl.h; Python names them from 3.9 on.
F_ADD_SEALS, F_SEAL_SHRINK = 1033, 2


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    folder = tmp_path_factory.mktemp("build")
    make("test-apps", folder)
    return folder


def make(target, folder, **variables):
    command = ["make", "-s", "-j4", "-C", str(TRUSTY), target, f"BUILD={folder}"]
    command += [f"{name}={value}" for name, value in variables.items()]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout


@pytest.fixture
def folder(tmp_path):
    return tmp_path


class Application:
    """One running application; `with` stops it."""

    def __init__(self, program, folder):
        self.folder = folder
        self.process = subprocess.Popen(
            [str(program), "--dir", str(folder), "--die-with-parent", str(os.getpid())],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.ready = self.process.stdout.readline()

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.stop(signal.SIGKILL)

    def stop(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        return self.end()

    def end(self):
        """Wait for the end; returns the exit status and standard error."""
        _, stderr = self.process.communicate(timeout=5)
        return self.process.returncode, stderr.decode()


@pytest.fixture
def echo(build, folder):
    with Application(build / "edged-echo", folder) as application:
        assert application.ready == b"ready\n"
        yield application


class Client:
    """A client of one socket of the application."""

    def __init__(self, folder, name="com.edged.echo.ns"):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(5)
        self.socket.connect(str(folder / name))

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.socket.close()

    def send(self, message, descriptors=()):
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        self.socket.sendmsg([message], rights)

    def receive(self):
        return self.socket.recv(2 * MESSAGE_BYTES)

    def ask(self, message, descriptors=()):
        self.send(message, descriptors)
        return self.receive()

    def ended(self):
        """True once the application closed the channel."""
        try:
            return self.receive() == b""
        except ConnectionResetError:
            return True

    def drain(self):
        """The number of messages that were still queued when the channel was closed."""
        count = 0
        while True:
            try:
                if self.receive() == b"":
                    return count
                count += 1
            except ConnectionResetError:  # reported once, before what is queued
                pass

    def memory(self):
        """(heap limit, peak, stack limit, peak, image, channels, window)"""
        return MEMORY.unpack(self.ask(b"m"))


@pytest.fixture
def client(echo):
    with Client(echo.folder) as one:
        yield one


def amount(letter, value):
    return letter + struct.pack("<Q", value)


def memfd(size_bytes, sealed=True):
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.memfd_create(b"window", 3)  # CLOEXEC, ALLOW_SEALING
    os.ftruncate(descriptor, size_bytes)
    if sealed:
        fcntl.fcntl(descriptor, F_ADD_SEALS, F_SEAL_SHRINK)
    return descriptor


# ---------------------------------------------------------------- messages ---


def test_says_that_it_protects_nothing(echo):
    status, stderr = echo.stop()
    assert status == 0
    assert "EMULATED" in stderr and "PROTECTS NOTHING" in stderr


@pytest.mark.parametrize("size", [1, 23, 24, MESSAGE_BYTES - 1, MESSAGE_BYTES])
def test_a_message_of_up_to_4096_bytes_arrives_whole(client, size):
    message = (b"e" + bytes(range(256)) * 16)[:size]
    assert client.ask(message) == message


def test_a_longer_message_is_refused_and_the_channel_lives(client):
    head = HEADER.pack(1, ord("e"), 4073, 77, 0, 0)
    answer = client.ask(head.ljust(MESSAGE_BYTES + 1, b"x"))
    assert HEADER.unpack(answer) == (1, ord("e") | 1, 0, 77, LENGTH, 0)
    assert client.ask(b"e") == b"e"


def test_an_empty_message_is_a_message(client):
    assert client.ask(b"") == DONE


@pytest.mark.parametrize("count", [2, 8, 9, 20])
def test_more_than_one_handle_is_refused_and_all_are_closed(client, count):
    reader, writer = os.pipe()
    answer = client.ask(b"w".ljust(HEADER.size, b"\0"), [writer] * count)
    os.close(writer)
    assert HEADER.unpack(answer)[4] == ARGUMENT
    assert is_abandoned(reader)
    assert client.ask(b"e") == b"e"


def test_a_stray_handle_is_closed(client):
    reader, writer = os.pipe()
    assert client.ask(b"e", [writer]) == b"e"
    os.close(writer)
    assert is_abandoned(reader)


def is_abandoned(reader):
    """True when nobody holds the other end of this pipe."""
    readable, _, _ = select.select([reader], [], [], 2)
    ended = bool(readable) and os.read(reader, 1) == b""
    os.close(reader)
    return ended


# ----------------------------------------------------------- shared memory ---


def test_a_sealed_memfd_is_mapped_and_shared(client):
    window = memfd(8192)
    os.pwrite(window, b"\x41", 0)
    assert client.ask(amount(b"w", 8192), [window]) == DONE
    assert os.pread(window, 1, 0) == b"\x42"
    assert client.memory()[6] == 0, "the window was unmapped"
    os.close(window)


def test_an_unsealed_memfd_is_refused(client):
    window = memfd(8192, sealed=False)
    assert client.ask(amount(b"w", 8192), [window]) == REFUSED
    os.close(window)


def test_a_memfd_smaller_than_the_window_is_refused(client):
    window = memfd(4096)
    assert client.ask(amount(b"w", 4097), [window]) == REFUSED
    assert client.ask(amount(b"w", 0), [window]) == REFUSED
    assert client.ask(amount(b"w", 2**63), [window]) == REFUSED
    assert client.ask(amount(b"w", 4096), [window]) == DONE
    os.close(window)


def test_a_handle_that_is_no_memory_is_refused(client, tmp_path):
    reader, writer = os.pipe()
    assert client.ask(amount(b"w", 4096), [writer]) == REFUSED
    os.close(writer)
    assert is_abandoned(reader)
    with open(tmp_path / "file", "wb+") as file:
        file.truncate(8192)
        assert client.ask(amount(b"w", 4096), [file.fileno()]) == REFUSED


def test_handles_do_not_leak(client):
    window = memfd(4096)
    for _ in range(200):  # more than the 64 handles of an application
        assert client.ask(amount(b"w", 4096), [window]) == DONE
    os.close(window)


# ---------------------------------------------------------------- channels ---


def test_an_excess_connection_is_closed_at_once(echo, client):
    assert client.ask(b"e") == b"e"
    with Client(echo.folder) as second:
        assert second.ended()
    assert client.ask(b"e") == b"e"


def test_a_client_that_left_makes_room(echo):
    for _ in range(50):
        with Client(echo.folder) as one:
            assert one.ask(b"e") == b"e"
    with Client(echo.folder) as last:
        assert struct.unpack("<Q", last.ask(b"d")) == (50,)


def test_a_client_that_never_reads_loses_its_channel_and_no_more(echo):
    with Client(echo.folder) as deaf:
        deaf.socket.setblocking(False)
        sent = 0
        deadline = time.monotonic() + 3
        while time.monotonic() < deadline:
            try:
                deaf.send(b"f")
                sent += 1
            except BlockingIOError:
                time.sleep(0.001)
            except (BrokenPipeError, ConnectionResetError):
                break
        else:
            pytest.fail("the application still serves a client that reads nothing")
        deaf.socket.settimeout(5)
        answers = deaf.drain()
        assert QUEUE <= answers < sent
    with Client(echo.folder) as next_client:
        assert next_client.ask(b"e") == b"e"


def test_as_many_unread_answers_as_the_queue_holds_are_no_offence(client):
    for _ in range(QUEUE):
        client.send(b"f")
    assert [client.receive()[:1] for _ in range(QUEUE)] == [b"f"] * QUEUE
    assert client.ask(b"e") == b"e"


def test_a_client_killed_while_it_is_served_leaves_the_application_sane(echo):
    window = memfd(4096)
    for _ in range(10):
        with Client(echo.folder) as dying:
            dying.send(b"f")
            dying.send(amount(b"w", 4096), [window])
    os.close(window)
    with Client(echo.folder) as healthy:
        assert healthy.ask(b"e") == b"e"


def test_a_client_that_sends_its_own_socket_does_not_live_for_ever(echo):
    with Client(echo.folder) as dying:
        dying.send(b"f")
        dying.send(amount(b"w", 4096), [dying.socket.fileno()])
    # Until the application has dropped the second message its channel is open.
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        with Client(echo.folder) as healthy:
            try:
                if healthy.ask(b"e") == b"e":
                    return
            except (BrokenPipeError, ConnectionResetError):
                pass
    pytest.fail("the dead client's channel is still open")


# --------------------------------------------------------------- peer UUID ---


def link(folder, claim=None):
    peer = Client(folder, "com.edged.echo.link.ta")
    if claim is not None:
        peer.send(claim)
    return peer


def test_the_uuid_of_the_acl_is_admitted(echo):
    with link(echo.folder, FRIEND.bytes_le) as friend:
        assert friend.ask(b"e") == b"e"


@pytest.mark.parametrize(
    "claim",
    [uuid.UUID(int=0).bytes_le, uuid.UUID(int=FRIEND.int ^ 1).bytes_le, FRIEND.bytes_le[:15], FRIEND.bytes_le + b"e"],
    ids=["nobody", "stranger", "short", "long"],
)
def test_another_uuid_is_refused(echo, claim):
    with link(echo.folder, claim) as stranger:
        assert stranger.ended()


def test_silent_connections_do_not_keep_the_friend_out(echo):
    silent = [link(echo.folder) for _ in range(8)]
    with link(echo.folder, FRIEND.bytes_le) as friend:
        assert friend.ask(b"e") == b"e"
    for peer in silent:
        peer.socket.close()


# ------------------------------------------------- call of another application ---


class KeyApplication:
    """The test in the part of the key application: whom does the port call, and how."""

    def __init__(self, folder):
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.settimeout(5)
        self.listener.bind(str(folder / "com.edged.key.eval.ta"))
        self.listener.listen(1)

    def accept(self):
        peer, _ = self.listener.accept()
        peer.settimeout(5)
        assert peer.recv(64) == uuid.UUID(ECHO_MANIFEST["uuid"]).bytes_le
        return peer


@pytest.fixture
def key(folder):
    application = KeyApplication(folder)
    yield application
    application.listener.close()


def outcome(answer):
    return struct.unpack("<q?", answer[:9]) + (answer[9:],)


ANSWER = bytes(range(100))


def test_the_key_application_is_connected_once_and_called_often(key, client):
    client.send(b"cfirst")
    with key.accept() as peer:
        assert peer.recv(64) == b"first"
        peer.send(ANSWER)
        assert outcome(client.receive()) == (100, True, ANSWER)
        client.send(b"csecond")
        assert peer.recv(64) == b"second"
        peer.send(ANSWER)
        assert outcome(client.receive()) == (100, False, ANSWER)


def test_a_key_application_that_restarted_is_called_again(key, client):
    client.send(b"cfirst")
    with key.accept() as peer:
        peer.send(ANSWER)
        assert outcome(client.receive())[0] == 100
    client.send(b"csecond")
    with key.accept() as peer:
        assert peer.recv(64) == b"second"
        peer.send(ANSWER)
        assert outcome(client.receive()) == (100, True, ANSWER)


def test_a_missing_key_application_is_an_error_and_no_hang(client):
    assert outcome(client.ask(b"cfirst"))[0] < 0
    assert client.ask(b"e") == b"e"


@pytest.mark.parametrize("wrong", [b"", ANSWER[: HEADER.size - 1], bytes(MESSAGE_BYTES)],
                         ids=["empty", "short", "long"])
def test_an_answer_of_the_key_application_that_does_not_fit_is_an_error(key, client, wrong):
    client.send(b"cfirst")
    with key.accept() as peer:
        assert peer.recv(64) == b"first"
        peer.send(wrong)
        assert outcome(client.receive())[0] < 0
        assert peer.recv(64) == b"", "the port dropped the channel"


# ------------------------------------------------------- memory and sandbox ---


def test_the_heap_limit_of_the_manifest_is_enforced(client):
    limit = ECHO_MANIFEST["min_heap"]
    assert client.memory()[:2] == (limit, 0)
    assert client.ask(amount(b"a", limit - 16)) == DONE  # with its block's header
    assert client.ask(amount(b"a", limit - 15)) == REFUSED
    assert client.ask(amount(b"a", limit)) == REFUSED
    assert client.ask(amount(b"a", 2**40)) == REFUSED
    assert client.memory()[:2] == (limit, limit)


def test_every_kind_of_allocation_counts_and_works(client):
    for _ in range(100):  # a leak would reach the limit
        assert client.ask(b"A") == DONE


@unsanitized
def test_the_stack_is_limited_and_measured(client):
    _, _, limit, before, _, _, _ = client.memory()
    assert limit == ECHO_MANIFEST["min_stack"]
    assert 0 < before < 8192
    assert client.ask(b"s") == DONE
    assert 16384 <= client.memory()[3] < limit


def test_image_and_channels_are_reported(client, build):
    _, _, _, _, image, channels, _ = client.memory()
    assert 10_000 < image < os.path.getsize(str(build / "edged-echo"))
    # its two ports, and its end of the channel to the key application
    assert channels == (QUEUE + 1 + 1) * MESSAGE_BYTES


def test_the_measurement_is_that_of_the_executable(client, build):
    assert client.ask(b"h") == hashlib.sha256((build / "edged-echo").read_bytes()).digest()


@unsanitized
def test_opening_a_file_kills_the_application(echo, client):
    client.send(b"o")
    assert client.ended()
    assert echo.end()[0] == -signal.SIGSYS


# ------------------------------------------------------------ start and end ---


def run(build, *arguments):
    command = [str(build / "edged-echo"), *map(str, arguments)]
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=5)


def test_a_dead_process_is_replaced(build, folder):
    with Application(build / "edged-echo", folder) as first:
        assert first.stop(signal.SIGKILL)[0] == -signal.SIGKILL
    assert (folder / "com.edged.echo.ns").is_socket()
    with Application(build / "edged-echo", folder) as second, Client(folder) as client:
        assert second.ready == b"ready\n"
        assert client.ask(b"e") == b"e"


def test_a_second_process_is_refused_while_the_first_serves_on(build, echo, client):
    second = run(build, "--dir", echo.folder)
    assert second.returncode == 69
    assert "already running" in second.stderr
    assert client.ask(b"e") == b"e"


def test_a_foreign_listener_is_left_alone(build, folder):
    path = folder / "com.edged.echo.ns"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as foreign:
        foreign.bind(str(path))
        foreign.listen(1)
        assert run(build, "--dir", folder).returncode == 69
    assert path.is_socket()


def test_a_file_in_the_way_is_left_alone(build, folder):
    path = folder / "com.edged.echo.ns"
    path.write_text("precious")
    assert run(build, "--dir", folder).returncode == 69
    assert path.read_text() == "precious"


@pytest.mark.parametrize("arguments", [(), ("--dir",), ("--die", "x"), ("--dir", "/tmp", "extra"),
                                       ("--dir", "/tmp", "--die-with-parent")])
def test_wrong_usage_exits_2(build, arguments):
    result = run(build, *arguments)
    assert result.returncode == 2
    assert "usage" in result.stderr


@pytest.mark.parametrize("parent", ["1", "0", "none", str(2 ** 40)])
def test_whose_parent_ended_before_it_could_watch_it_ends_at_once(build, folder, parent):
    """Killed between fork and exec, a launcher would leave an application behind that keeps the next one out."""
    result = run(build, "--dir", folder, "--die-with-parent", parent)
    assert result.returncode == 69
    assert "not the parent" in result.stderr and not list(folder.iterdir())


def test_a_missing_folder_exits_69(build, folder):
    assert run(build, "--dir", folder / "missing").returncode == 69


@pytest.mark.parametrize("more, code", [(0, 0), (1, 78)])
def test_a_folder_too_long_for_a_socket_exits_78(build, tmp_path_factory, more, code):
    top = str(tmp_path_factory.mktemp("e"))
    folder = Path(top, "f" * (107 - len("/com.edged.key.eval.ta") + more - len(top) - 1))
    folder.mkdir()
    if code == 0:
        with Application(build / "edged-echo", folder) as application:
            assert application.ready == b"ready\n"
    else:
        result = run(build, "--dir", folder)
        assert result.returncode == code
        assert "shorter path" in result.stderr


def test_the_device_key_survives_a_restart_and_is_bound_to_the_folder(build, tmp_path):
    keys = []
    for name in ("one", "one", "two"):
        (tmp_path / name).mkdir(exist_ok=True)
        with Application(build / "edged-echo", tmp_path / name), Client(tmp_path / name) as client:
            keys.append(client.ask(b"k"))
    assert len(keys[0]) == 32
    assert keys[0] == keys[1] != keys[2]


@pytest.mark.parametrize("mode, size", [(0o644, 32), (0o600, 31), (0o600, 33)])
def test_a_device_key_that_others_may_read_or_that_is_cut_exits_77(build, folder, mode, size):
    key = folder / "device.key"
    key.write_bytes(bytes(size))
    key.chmod(mode)
    assert run(build, "--dir", folder).returncode == 77


def test_no_core_file_and_few_descriptors(echo):
    limits = Path(f"/proc/{echo.process.pid}/limits").read_text()
    core = re.search(r"Max core file size +(\d+) +(\d+)", limits)
    files = re.search(r"Max open files +(\d+) +(\d+)", limits)
    assert core.groups() == ("0", "0")
    assert files.groups() == ("128", "128")


# --------------------------------------------------------------- manifests ---


@pytest.mark.parametrize("name", ["eval", "key"])
def test_the_uuid_of_the_manifest_is_that_of_the_sources(name):
    manifest = json.loads((TRUSTY / "port/trusty" / name / "manifest.json").read_text(encoding="ascii"))
    header = (TRUSTY / "port/trusty/uuids.h").read_text(encoding="ascii")
    body = re.search(rf"#define {name.upper()}_UUID \\\n +\{{(.*)\}}\n", header).group(1)
    numbers = [int(n, 16) for n in re.findall(r"0x[0-9a-f]+", body)]
    app = uuid.UUID(manifest["uuid"])
    assert numbers == [app.time_low, app.time_mid, app.time_hi_version, *app.bytes[8:]]


def test_the_budget_of_12_mib_leaves_room_for_code():
    limits = 0
    for name in ("eval", "key"):
        manifest = json.loads((TRUSTY / "port/trusty" / name / "manifest.json").read_text(encoding="ascii"))
        limits += manifest["min_heap"] + manifest["min_stack"]
    assert limits <= 12 * 2**20 - 256 * 2**10


@pytest.mark.parametrize(
    "key, value, quoted",
    [("min_heap", 4095, "4095"), ("min_stack", "64K", "64K"), ("uuid", "nobody", "nobody"), ("heap", 1, "heap")],
)
def test_a_wrong_manifest_is_refused_with_its_value(tmp_path, key, value, quoted):
    wrong = tmp_path / "manifest.json"
    wrong.write_text(json.dumps({**ECHO_MANIFEST, key: value}), encoding="ascii")
    command = [sys.executable, str(TRUSTY / "port/host/manifest.py"), str(wrong), str(tmp_path / "header.h")]
    result = subprocess.run(command, stderr=subprocess.PIPE, text=True)
    assert result.returncode == 65
    assert quoted in result.stderr
    assert not (tmp_path / "header.h").exists()
