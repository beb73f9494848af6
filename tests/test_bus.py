"""The bus on real sockets: who is let in, what a flood or garbage does, what is left after close."""

import os
import socket
import stat
import subprocess
import sys
import threading
import time

import pytest
import zmq

from edged import bus
from edged.bus import CurveKeys, Dealer, Message, Poller, Router, generate_keys, public_of
from edged.errors import BusError, ConfigError, KeyRefused

PATIENCE_S = 20.0  # until a test is given up; nothing here takes long
QUIET_S = 0.3  # how long a test listens for what must not come


@pytest.fixture
def city():
    return generate_keys()


@pytest.fixture
def node():
    return generate_keys()


@pytest.fixture
def run(tmp_path_factory):
    """A folder whose path leaves room for a socket's name."""
    return str(tmp_path_factory.mktemp("r"))


def local(router):
    return "tcp://127.0.0.1:{}".format(router.port)


def allowing(*keys):
    names = {key.public.decode() for key in keys}
    return names.__contains__


def until(condition):
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.01)


def push(dealer, *frames):
    until(lambda: dealer.send(list(frames)))


def tasks():
    return len(os.listdir("/proc/self/task"))


# Two that know each other.

def test_a_message_goes_there_and_back(run):
    with Router("ipc://{}/a".format(run)) as router, Dealer("ipc://{}/a".format(run), b"north") as dealer:
        push(dealer, b"hello", b"", b"x" * 70000)
        assert router.receive(PATIENCE_S) == Message(b"north", [b"hello", b"", b"x" * 70000], None)
        assert router.send(b"north", [b"session", b"1"])
        assert dealer.receive(PATIENCE_S) == Message(b"", [b"session", b"1"], None)


def test_a_public_key_never_looks_like_an_option(monkeypatch):
    pairs = [(b"-" * 40, b"a" * 40), (b"b-" * 20, b"-" * 40)]
    monkeypatch.setattr(zmq, "curve_keypair", lambda: pairs.pop(0))
    assert bus.generate_keys() == bus.CurveKeys(b"b-" * 20, b"-" * 40) and not pairs


def test_with_curve_a_message_tells_its_senders_key(city, node):
    with Router("tcp://127.0.0.1:0", city.secret, allowing(node)) as router:
        with Dealer(local(router), b"n", (node, city.public)) as dealer:
            push(dealer, b"record")
            message = router.receive(PATIENCE_S)
            assert message.key == node.public.decode()
            assert router.send(b"n", [b"ack"])
            assert dealer.receive(PATIENCE_S).frames == [b"ack"]


def test_two_routers_of_one_process_have_allow_lists_of_their_own(city, node):
    other = generate_keys()
    with Router("tcp://127.0.0.1:0", city.secret, allowing(node)) as mine, \
            Router("tcp://127.0.0.1:0", city.secret, allowing(other)) as theirs, \
            Dealer(local(mine), b"n", (node, city.public)) as dealer, \
            Dealer(local(theirs), b"n", (node, city.public)) as stranger:
        push(dealer, b"x")
        assert mine.receive(PATIENCE_S).key == node.public.decode()
        assert not stranger.send([b"x"]) and theirs.receive(QUIET_S) is None


def test_the_public_key_follows_from_the_secret(node):
    assert public_of(node.secret) == node.public
    assert node.secret.decode() not in repr(node)


# Those who are not let in.

def refused(router, dealer, seen):
    """The router was asked about a key, or the handshake failed; nothing arrives either way."""
    until(seen)
    deadline = time.monotonic() + QUIET_S
    while time.monotonic() < deadline:
        assert not dealer.send([b"record"])
        time.sleep(0.01)
    assert router.receive(0) is None


def test_an_unlisted_key_is_refused(city, node):
    asked = []
    with Router("tcp://127.0.0.1:0", city.secret, lambda key: bool(asked.append(key))) as router:
        with Dealer(local(router), b"n", (node, city.public)) as dealer:
            refused(router, dealer, lambda: asked)
    assert set(asked) == {node.public.decode()}


def test_a_failing_allow_list_refuses_and_goes_on_to_serve(city, node, caplog):
    asked = []

    def allow(key):
        asked.append(key)
        if len(asked) == 1:
            raise OSError("nodes.toml: permission denied")
        return True

    with Router("tcp://127.0.0.1:0", city.secret, allow) as router:
        with Dealer(local(router), b"n", (node, city.public)) as dealer:
            until(lambda: asked)
        with Dealer(local(router), b"m", (node, city.public)) as dealer:
            push(dealer, b"x")
            assert router.receive(PATIENCE_S).peer == b"m"
    assert "allow-list failed" in caplog.text


def test_a_server_of_another_key_is_not_talked_to(city, node):
    asked = []
    impostor = generate_keys()
    with Router("tcp://127.0.0.1:0", impostor.secret, lambda key: asked.append(key) or True) as router:
        with Dealer(local(router), b"n", (node, city.public)) as dealer:
            refused(router, dealer, lambda: True)
    assert asked == []  # it never got as far as to tell who it is


def test_without_curve_nothing_enters_a_router_that_has_it(city):
    with Router("tcp://127.0.0.1:0", city.secret, lambda key: True) as router:
        with Dealer(local(router), b"n") as dealer:
            refused(router, dealer, lambda: True)


def test_a_dealer_with_a_pinned_key_says_nothing_to_a_router_without_curve(city, node):
    with Router("tcp://127.0.0.1:0") as router, Dealer(local(router), b"n", (node, city.public)) as dealer:
        refused(router, dealer, lambda: True)


def test_a_key_revoked_while_connected_is_named_on_every_message(city, node):
    listed = {node.public.decode()}
    with Router("tcp://127.0.0.1:0", city.secret, listed.__contains__) as router:
        with Dealer(local(router), b"n", (node, city.public)) as dealer:
            push(dealer, b"1")
            assert router.receive(PATIENCE_S).key in listed
            listed.clear()
            push(dealer, b"2")  # the connection lives: ZeroMQ asks once
            message = router.receive(PATIENCE_S)
            assert message.frames == [b"2"] and message.key == node.public.decode()
            assert message.key not in listed


def test_curve_without_an_allow_list_cannot_be_asked_for(city):
    with pytest.raises(ValueError, match="admits everybody"):
        Router("tcp://127.0.0.1:0", city.secret)
    with pytest.raises(ValueError, match="admits everybody"):
        Router("tcp://127.0.0.1:0", allow=lambda key: True)


# What a peer can do to us.

def fill(send):
    """Send until no more is taken for a while; how many were."""
    taken, deadline = 0, time.monotonic() + PATIENCE_S
    quiet_since = time.monotonic()
    while time.monotonic() - quiet_since < QUIET_S:
        assert taken < 2000 and time.monotonic() < deadline, "it takes everything"
        if send([b"x" * 100000]):
            taken, quiet_since = taken + 1, time.monotonic()
    return taken


def test_a_flood_that_nobody_reads_blocks_nobody(run):
    address = "ipc://{}/a".format(run)
    with Router(address) as router, Dealer(address, b"north") as flooder, Dealer(address, b"south") as other:
        push(flooder, b"0")
        push(other, b"0")
        taken = fill(flooder.send)  # full at last, and says so
        push(other, b"1")
        before = 0
        while router.receive(PATIENCE_S)[:2] != (b"south", [b"1"]):
            before += 1
        assert before < taken


def test_a_peer_that_reads_nothing_does_not_block_the_router(run):
    address = "ipc://{}/a".format(run)
    with Router(address) as router, Dealer(address, b"deaf") as deaf, Dealer(address, b"south") as other:
        push(deaf, b"x")
        push(other, b"x")
        assert {router.receive(PATIENCE_S).peer, router.receive(PATIENCE_S).peer} == {b"deaf", b"south"}
        fill(lambda frames: router.send(b"deaf", frames))
        assert router.send(b"south", [b"hear"])
        assert other.receive(PATIENCE_S).frames == [b"hear"]


def test_an_oversized_message_costs_its_sender_the_connection_and_nobody_else(run):
    address = "ipc://{}/a".format(run)
    with Router(address) as router, Dealer(address, b"north") as north, Dealer(address, b"south") as south:
        push(south, b"1")
        push(north, b"x" * (bus.MESSAGE_BYTES_MAX + 1))
        push(south, b"2")
        assert [router.receive(PATIENCE_S).frames for _ in range(2)] == [[b"1"], [b"2"]]
        until(lambda: north.send([b"back"]) and router.receive(QUIET_S) is not None)


def test_garbage_instead_of_zeromq_disturbs_nobody(run, city, node):
    address = "ipc://{}/a".format(run)
    rubbish = [b"", b"\0" * 100, b"\xff" * 64, os.urandom(4000), b"GET / HTTP/1.0\r\n\r\n",
               b"\xff\0\0\0\0\0\0\0\1\x7f\3\0NULL" + bytes(16) + bytes(32) + b"\4\xff" + b"\xff" * 40]
    with Router(address) as router, Router("tcp://127.0.0.1:0", city.secret, allowing(node)) as guarded, \
            Dealer(address, b"north") as plain, Dealer(local(guarded), b"n", (node, city.public)) as curve:
        for data in rubbish:
            for family, where in ((socket.AF_UNIX, run + "/a"), (socket.AF_INET, ("127.0.0.1", guarded.port))):
                with socket.socket(family, socket.SOCK_STREAM) as raw:
                    raw.connect(where)
                    try:
                        raw.sendall(data)
                    except OSError:
                        pass  # cut off in the middle
        push(plain, b"1")
        push(curve, b"2")
        while router.receive(PATIENCE_S)[:2] != (b"north", [b"1"]):
            pass  # some of it is a message of ZMTP 1.0
        assert guarded.receive(PATIENCE_S).frames == [b"2"]


@pytest.mark.parametrize("frames", [[b""], [b"", b""], [b"\xff" * 9] * 50], ids=len)
def test_odd_frames_arrive_as_they_are(run, frames):
    address = "ipc://{}/a".format(run)
    with Router(address) as router, Dealer(address, b"north") as dealer:
        push(dealer, *frames)
        assert router.receive(PATIENCE_S).frames == frames


# Coming and going.

def test_a_dealer_that_is_there_first_waits_and_takes_nothing_meanwhile(run):
    address = "ipc://{}/a".format(run)
    with Dealer(address, b"north") as dealer:
        assert not dealer.send([b"lost"])
        with Router(address) as router:
            push(dealer, b"1")
            assert router.receive(PATIENCE_S).frames == [b"1"]


@pytest.mark.parametrize("kind", ["ipc", "tcp"])
def test_a_dealer_comes_back_after_its_router_started_anew(run, city, node, kind):
    address = "ipc://{}/a".format(run) if kind == "ipc" else "tcp://127.0.0.1:0"
    guard = (city.secret, allowing(node)) if kind == "tcp" else ()
    curve = (node, city.public) if kind == "tcp" else None
    first = Router(address, *guard)
    if kind == "tcp":
        address = local(first)
    with Dealer(address, b"north", curve) as dealer:
        push(dealer, b"1")
        assert first.receive(PATIENCE_S).frames == [b"1"]
        first.close()
        until(lambda: not dealer.send([b"into the void"]))
        with Router(address, *guard) as second:
            push(dealer, b"2")
            assert second.receive(PATIENCE_S).frames == [b"2"]
            assert second.send(b"north", [b"3"])
            assert dealer.receive(PATIENCE_S).frames == [b"3"]


def test_a_new_connection_of_a_name_takes_the_name_over(run):
    address = "ipc://{}/a".format(run)
    with Router(address) as router, Dealer(address, b"north") as old:
        push(old, b"1")
        assert router.receive(PATIENCE_S).frames == [b"1"]
        with Dealer(address, b"north") as new:  # as after a crash that the router did not notice yet
            push(new, b"2")
            assert router.receive(PATIENCE_S).frames == [b"2"]
            assert router.send(b"north", [b"3"])
            assert new.receive(PATIENCE_S).frames == [b"3"]


def test_a_peer_that_is_not_there_is_no_error(run):
    with Router("ipc://{}/a".format(run)) as router:
        assert not router.send(b"nobody", [b"x"])


def test_nothing_comes_of_waiting_for_nobody(run):
    with Router("ipc://{}/a".format(run)) as router:
        assert router.receive(0) is None and router.receive(0.02) is None


# Addresses.

def test_a_port_in_use_is_one_line():
    with Router("tcp://127.0.0.1:0") as router:
        with pytest.raises(BusError, match=r"^tcp://127.0.0.1:\d+: address in use: stop the other, or choose") as error:
            Router(local(router))
        assert error.value.exit_code == 69 and "\n" not in str(error.value)


def test_a_living_ipc_socket_is_not_taken_away(run):
    address = "ipc://{}/a".format(run)
    with Router(address) as router, Dealer(address, b"north") as dealer:
        with pytest.raises(BusError, match="address in use"):
            Router(address)
        push(dealer, b"1")
        assert router.receive(PATIENCE_S).frames == [b"1"]


def test_the_socket_of_a_killed_process_is_replaced(run):
    address = "ipc://{}/a".format(run)
    code = "import sys, os; from edged.bus import Router; r = Router(sys.argv[1]); os.kill(os.getpid(), 9)"
    assert subprocess.run([sys.executable, "-c", code, address], check=False).returncode == -9
    assert os.path.exists(run + "/a")
    with Router(address) as router, Dealer(address, b"north") as dealer:
        push(dealer, b"1")
        assert router.receive(PATIENCE_S).frames == [b"1"]


def test_an_ipc_socket_is_open_to_its_user_and_group_alone(run):
    with Router("ipc://{}/new/folder/a".format(run)):
        assert stat.S_IMODE(os.stat(run + "/new/folder/a").st_mode) == 0o660
        assert stat.S_IMODE(os.stat(run + "/new/folder").st_mode) & 0o007 == 0


@pytest.mark.parametrize("make", [Router, lambda address: Dealer(address, b"n")], ids=["router", "dealer"])
def test_a_path_too_long_for_a_socket_is_a_wrong_configuration(make):
    with pytest.raises(ConfigError, match="107 bytes, this one 200: choose a shorter") as error:
        make("ipc:///" + "x" * 199)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("address", ["nonsense", "tcp://127.0.0.1", "tcp://127.0.0.1:port", "pigeon://x",
                                     "ipc://"])
@pytest.mark.parametrize("make", [Router, lambda address: Dealer(address, b"n")], ids=["router", "dealer"])
def test_what_is_no_address_is_a_wrong_configuration(make, address):
    with pytest.raises(ConfigError):
        make(address)


def test_an_address_of_another_machine_cannot_be_bound():
    with pytest.raises(BusError, match="cannot bind"):
        Router("tcp://192.0.2.1:0")


def test_a_folder_that_cannot_be_made_is_one_line(run):
    open(run + "/file", "w").close()
    with pytest.raises(BusError, match="cannot bind"):
        Router("ipc://{}/file/a".format(run))


@pytest.mark.parametrize("key", [b"", b"x" * 39, b"\0" * 40, b'"' * 40], ids=["empty", "short", "binary", "no z85"])
def test_what_is_no_key_is_refused_without_being_quoted(city, node, key):
    makers = [lambda: public_of(key), lambda: Router("tcp://127.0.0.1:0", key, lambda name: True),
              lambda: Dealer("tcp://127.0.0.1:1", b"n", (node, key)),
              lambda: Dealer("tcp://127.0.0.1:1", b"n", (CurveKeys(node.public, key), city.public))]
    for make in makers:
        with pytest.raises(KeyRefused) as error:
            make()
        assert not key or key.decode("latin-1") not in str(error.value)


def test_halves_of_two_key_pairs_are_refused(city, node):
    with pytest.raises(KeyRefused, match="not the secret's"):
        Dealer("tcp://127.0.0.1:1", b"n", (CurveKeys(city.public, node.secret), city.public))


# Waiting for several.

def test_a_poller_names_those_that_are_ready(run):
    address = "ipc://{}/a".format(run)
    reading, writing = os.pipe()
    try:
        with Router(address) as router, Dealer(address, b"north") as dealer:
            poller = Poller(router, dealer, reading)
            assert poller.wait(0) == []
            os.write(writing, b"!")
            assert poller.wait(PATIENCE_S) == [reading]
            push(dealer, b"1")
            until(lambda: poller.wait(PATIENCE_S) == [router, reading])
            poller.remove(reading)
            router.receive(0)
            router.send(b"north", [b"2"])
            assert poller.wait(PATIENCE_S) == [dealer]
            poller.remove(dealer)
            assert poller.wait(0) == []
            with pytest.raises(KeyError):
                poller.remove(dealer)
    finally:
        os.close(reading)
        os.close(writing)


# What is left.

def test_after_the_last_close_no_thread_and_no_descriptor_is_left(run, city, node):
    threads, before = threading.active_count(), tasks()
    descriptors = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with Router("tcp://127.0.0.1:0", city.secret, allowing(node)) as router, \
                Dealer(local(router), b"n", (node, city.public)) as dealer, Dealer("ipc://{}/b".format(run), b"n"):
            push(dealer, b"1")
            assert router.receive(PATIENCE_S)
            assert tasks() > before
        router.close()  # twice is no error
    assert threading.active_count() == threads
    until(lambda: tasks() == before)
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_a_socket_that_could_not_be_made_leaves_nothing(city):
    before, descriptors = tasks(), len(os.listdir("/proc/self/fd"))
    for make in (lambda: Router("nonsense"), lambda: Router("tcp://192.0.2.1:0", city.secret, lambda key: True)):
        with pytest.raises((ConfigError, BusError)):
            make()
    until(lambda: tasks() == before)
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_the_sockets_of_a_process_share_one_context(run):
    with Dealer("ipc://{}/a".format(run), b"a") as first, Dealer("ipc://{}/b".format(run), b"b") as second:
        assert first._socket.context is second._socket.context


def test_closing_does_not_wait_for_what_nobody_took(run):
    """In a process of its own: a context that waits for ever would hang the suite."""
    code = ("import sys; from edged import bus\n"
            "bus._HEARTBEAT_MS = 0\n"  # else it would end as soon as the other counts as dead
            "with bus.Router(sys.argv[1]) as r:\n"
            "    r.receive(30)\n"
            "    for _ in range(1000): r.send(b'n', [b'x' * 100000])\n")
    address = "ipc://{}/a".format(run)
    with Dealer(address, b"n") as deaf:
        process = subprocess.Popen([sys.executable, "-c", code, address])
        push(deaf, b"x")
        try:
            assert process.wait(60) == 0
        finally:
            process.kill()
            process.wait()


@pytest.mark.parametrize("frames", [[], [b""], [b"one"], [b"", b""], [b"type", b"map", bytes(1 << 20)]], ids=len)
def test_what_is_joined_is_split_again(frames):
    assert bus.split(bus.joined(frames)) == frames


@pytest.mark.parametrize("sent", [b"\1", b"\1\0\0\0", b"\xff\xff\xff\xffmuch", b"\1\0\0\0aa", b"\0\0\0\0\2\0\0\0b"])
def test_what_is_not_of_the_form_has_no_frames(sent):
    assert bus.split(sent) == []


def test_a_message_in_several_frames_of_zeromqs_is_none_of_ours(run):
    """No Dealer of ours sends it, and what is half read when its connection ends is what libzmq dies of."""
    with Router("ipc://{}/s".format(run)) as router:
        stranger = zmq.Context.instance().socket(zmq.DEALER)
        stranger.setsockopt(zmq.LINGER, 0)
        stranger.setsockopt(zmq.ROUTING_ID, b"stranger")
        stranger.connect(router.address)
        try:
            stranger.send_multipart([b"type", b"map"])
            assert router.receive(PATIENCE_S) == Message(b"stranger", [], None)
            stranger.send(bus.joined([b"type", b"map"]))
            assert router.receive(PATIENCE_S) == Message(b"stranger", [b"type", b"map"], None)
        finally:
            stranger.close()


def test_no_other_file_imports_zmq():
    root = os.path.dirname(bus.__file__)
    found = []
    for folder, _, names in os.walk(root):
        for name in names:
            if name.endswith(".py"):
                with open(os.path.join(folder, name), encoding="utf-8") as source:
                    if any(line.split()[:2] in (["import", "zmq"], ["from", "zmq"]) or line.startswith("from zmq.")
                           for line in source):
                        found.append(os.path.relpath(os.path.join(folder, name), root))
    assert found == ["bus.py"]


def test_a_guarded_router_may_come_and_go_beside_another_socket(tmp_path):
    """The allow-list's thread needs its address back before the next router has it: it stays as long as any socket."""
    secret = generate_keys().secret
    with Dealer("ipc://{}".format(tmp_path / "nobody.sock"), b"beside"):
        for _ in range(8):
            Router("tcp://127.0.0.1:0", secret, lambda key: True).close()
