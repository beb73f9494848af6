"""systemd hears what sd_notify(3) says, and only of progress."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from edged.notify import Listener, Notifier, Told, Watchdog, watchdog_s
from edged.stopping import Stop
from processes import is_alive


@pytest.fixture(params=["path", "abstract"])
def systemd(request, tmp_path_factory):
    """(what NOTIFY_SOCKET says, systemd's socket)"""
    name = str(tmp_path_factory.mktemp("n") / "s") if request.param == "path" else "@edged-test-{}".format(os.getpid())
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind("\0" + name[1:] if name.startswith("@") else name)
        bound.settimeout(5)
        yield name, bound


@pytest.fixture
def notifier(systemd):
    made = Notifier({"NOTIFY_SOCKET": systemd[0]})
    yield made
    made.close()


def test_each_state_is_one_datagram(systemd, notifier):
    _, bound = systemd
    notifier.ready("3 cameras")
    notifier.status("all well")
    notifier.alive()
    notifier.stopping()
    notifier.done()
    assert [bound.recv(4096) for _ in range(5)] == [
        b"READY=1\nSTATUS=3 cameras", b"STATUS=all well", b"WATCHDOG=1", b"STOPPING=1", b"X_EDGED_DONE=1"]


def test_a_status_is_said_when_it_changes_and_stays_one_line(systemd, notifier):
    _, bound = systemd
    notifier.ready("a")
    for text in ("a", "a", "b\nREADY=0", "b\nREADY=0"):
        notifier.status(text)
    notifier.alive()
    assert [bound.recv(4096) for _ in range(3)] == [b"READY=1\nSTATUS=a", b"STATUS=b READY=0", b"WATCHDOG=1"]


@pytest.mark.parametrize("environment", [
    {}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "@"}, {"NOTIFY_SOCKET": "vsock:2:3"}])
def test_without_a_socket_nothing_happens(environment):
    notifier = Notifier(environment)
    notifier.ready("x")
    notifier.alive()
    notifier.close()
    notifier.close()


def test_a_socket_that_is_gone_does_not_stop_the_process(tmp_path, caplog):
    notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")})
    notifier.ready()
    assert "was not told READY=1" in caplog.text
    notifier.close()


def test_a_socket_that_is_full_does_not_block_the_process(systemd, notifier):
    for _ in range(5000):
        notifier.alive()


@pytest.mark.parametrize("environment, expected", [
    ({}, None), ({"WATCHDOG_USEC": "0"}, None), ({"WATCHDOG_USEC": "soon"}, None), ({"WATCHDOG_USEC": "-5"}, None),
    ({"WATCHDOG_USEC": "30000000"}, 30.0), ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": str(os.getpid())}, 0.5),
    ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": "1"}, None)])
def test_the_interval_is_the_one_of_this_process(environment, expected):
    assert watchdog_s(environment) == expected


class Counting:
    def __init__(self):
        self.fed = 0

    def alive(self):
        self.fed += 1


def test_progress_feeds_the_watchdog_at_most_once_in_a_third_of_the_interval():
    now, notifier = [100.0], Counting()
    watchdog = Watchdog(notifier, {"WATCHDOG_USEC": "9000000"}, lambda: now[0])
    for expected, at in ((1, 0), (1, 1), (1, 2.99), (2, 3), (2, 5.9), (3, 6), (4, 100)):
        now[0] = 100.0 + at
        watchdog.progress()
        assert notifier.fed == expected


def test_without_progress_the_watchdog_is_not_fed():
    notifier = Counting()
    Watchdog(notifier, {"WATCHDOG_USEC": "1000"})
    time.sleep(0.02)
    assert notifier.fed == 0


def test_without_a_watchdog_progress_says_nothing():
    notifier = Counting()
    Watchdog(notifier, {}).progress()
    assert notifier.fed == 0


@pytest.fixture
def listener(tmp_path_factory):
    made = Listener(str(tmp_path_factory.mktemp("n") / "s"))
    yield made
    made.close()


def test_a_listener_hears_who_said_what(listener):
    notifier = Notifier({"NOTIFY_SOCKET": listener.path})
    notifier.ready("a=b")
    notifier.alive()
    assert listener.take() == [Told(os.getpid(), {"READY": "1", "STATUS": "a=b"}), Told(os.getpid(), {"WATCHDOG": "1"})]
    assert listener.take() == []


def test_a_listener_knows_the_sender_from_the_kernel_and_passes_over_what_is_no_message(listener):
    script = ("import os, socket, sys; s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n"
              "for data in (b'', b'\\xff\\xfe', b'x' * 9000, b'READY=1\\nnonsense'): s.sendto(data, sys.argv[1])")
    child = subprocess.Popen([sys.executable, "-c", script, listener.path])
    child.wait()
    told = listener.take()
    assert {one.pid for one in told} == {child.pid}
    assert [one.states for one in told if one.states] == [{"READY": "1"}]


def test_a_listener_replaces_what_a_killed_one_left_and_removes_its_own(tmp_path_factory):
    path = str(tmp_path_factory.mktemp("n") / "s")
    left = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    left.bind(path)
    left.close()
    Listener(path).close()
    assert not os.path.exists(path)


# The request to stop.


def test_a_stop_is_set_once_and_wakes_who_waits():
    stop = Stop()
    assert not stop.is_set() and not stop.wait(0.01)
    threading.Timer(0.05, stop.set).start()
    assert stop.wait(5)
    stop.set()
    assert stop.is_set() and stop.wait(0) and stop.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_sets_a_stop_and_raises_nothing(number):
    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    try:
        stop = Stop().on_signals()
        for _ in range(3):
            os.kill(os.getpid(), number)
        assert stop.wait(5)
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def test_a_stop_that_is_made_in_another_thread_leaves_signals_alone():
    before, made = signal.getsignal(signal.SIGTERM), []
    thread = threading.Thread(target=lambda: made.append(Stop().on_signals()))
    thread.start()
    thread.join()
    assert len(made) == 1 and signal.getsignal(signal.SIGTERM) == before


# The parent.

FOLLOWER = ("import sys, time; from edged.parent import die_with; die_with(int(sys.argv[1])); print('on', flush=True); "
            "time.sleep(60)")
LEADER = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", sys.argv[1], str(os.getpid())], stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
time.sleep(60)
"""


def test_who_follows_its_parent_ends_with_it_even_if_that_is_killed():
    leader = subprocess.Popen([sys.executable, "-c", LEADER, FOLLOWER], stdout=subprocess.PIPE, universal_newlines=True)
    follower = int(leader.stdout.readline())
    assert is_alive(follower)
    leader.kill()
    leader.communicate()
    deadline_s = time.monotonic() + 5
    while is_alive(follower):
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def test_who_follows_somebody_else_than_its_parent_refuses():
    done = subprocess.run([sys.executable, "-c", FOLLOWER, "1"], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          timeout=20)
    assert done.returncode != 0 and done.stdout == b""
    assert b"not the parent" in done.stderr
