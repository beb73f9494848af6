"""Whoever is killed, at whatever message: the others stay sane.

One flow - load, weights, session, U + pad, clip, steps, record - is cut at every message of it: before the message is
sent, and after, when the answer is still to come. Then the next client must find an enclave in which it can load and
evaluate exactly, and the clip under way has its one record, no more and no less.
"""

import copy
import os
import signal
import time

import numpy as np
import pytest

from attacks.networks import SMALL, integer_model, random_coordinates
from attacks.node import TRANSPORTS, AttackNode, confirm_all, refused
from edged.enclave import wire
from edged.enclave.client import EvalClient
from edged.enclave.key import KeyClient
from edged.enclave.tipc import Channel
from edged.enclave.wire import EvalCommand, Placement, Status
from edged.errors import EnclaveError

MODEL = integer_model(31, **dict(SMALL, channels=((4, 1), (3, 2))))
RNG = np.random.default_rng()
CHILD_S = 20.0

each_moment = pytest.mark.parametrize("sent", [False, True], ids=["before it is sent", "before its answer"])


def coordinates():
    return random_coordinates(RNG, MODEL.shape, 2)


class Cut(Exception):
    """The client ended here."""


class Tripwire(Channel):
    """Passes messages on; at the one numbered ``at`` (from 0) it does ``action``, before or after sending it."""

    def __init__(self, channel, at=None, sent=False, action=None):
        self.name, self.inner = channel.name, channel
        self.count, self.at, self.sent, self.action = 0, at, sent, action

    def send(self, message, handle=None):
        here = self.count == self.at
        self.count += 1
        if here and not self.sent:
            self.action()
        self.inner.send(message, handle)
        if here and self.sent:
            self.action()

    def receive(self):
        return self.inner.receive()

    def window(self, size_bytes):
        return self.inner.window(size_bytes)

    def close(self):
        self.inner.close()


class Scene:
    """A node with a camera whose session was opened beforehand, and the flow that is to be cut."""

    def __init__(self, node, transport):
        self.node, self.transport = node, transport
        self.camera = node.camera(b"scene")
        self.renew()
        probe = self.client()
        self.flow(probe)
        self.messages = probe.client.connection.channel.count
        assert self.messages > 20
        probe.client.close()

    def renew(self):
        """Another clip, and nobody at the port."""
        self.clip = coordinates()
        self.sealed = self.node.seal(self.camera, self.clip)
        self.node.client.close()

    def client(self, at=None, sent=False, action=None):
        """The node as another client sees it, who trips at message ``at``."""
        node = copy.copy(self.node)
        channel = self.node.connect().connection.channel  # one that is served
        node.client, node.transport = EvalClient(Tripwire(channel, at, sent, action)), None
        return node

    def flow(self, node):
        node.client.info()
        node.load(MODEL, Placement.MASKED, self.transport)
        confirm_all(node)
        node.client.open_session(node.agreed.index, b"another camera".ljust(32), bytes(32))
        ready = node.prepare(2)
        node.attempt(self.camera, self.sealed, ready).finish_exactly(self.clip)

    def records(self):
        """How many there were so far, asked by a client of its own."""
        self.node.reconnect()
        return self.node.stats().records

    def settle(self, records_before):
        """The next client: exact results, and one record for the clip that was cut, if it had none."""
        node = self.node
        node.reconnect()
        node.load(MODEL, Placement.MASKED, self.transport)
        try:
            node.attempt(self.camera, self.sealed).finish_exactly(self.clip)
        except EnclaveError as error:
            assert error.status == Status.CLIP  # its record was out, or on its way, when the client ended
            node.expect(node.kept(0)[-1][1], self.clip)
        assert node.stats().records == records_before + 1
        node.evaluate(self.camera, coordinates())


def run_and_die(scene, at, sent):
    """A client process that kill -9s itself at one message."""
    child = os.fork()
    if child == 0:
        try:
            scene.flow(scene.client(at, sent, lambda: os.kill(os.getpid(), signal.SIGKILL)))
        finally:
            os._exit(1)
    deadline = time.monotonic() + CHILD_S
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise AssertionError("the client of message {} did not come to its end".format(at))
        time.sleep(0.001)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, "message {}: {}".format(at, status)


def run_and_close(scene, at, sent):
    """A client that closes its channel at one message."""
    def cut():
        node.client.close()
        raise Cut

    node = scene.client(at, sent, cut)
    with pytest.raises((Cut, EnclaveError)):  # what is under way in a pipeline meets a closed channel
        scene.flow(node)


@each_moment
@pytest.mark.parametrize("end", [run_and_die, run_and_close], ids=["kill -9", "close"])
@pytest.mark.parametrize("transport", list(TRANSPORTS))
def test_a_client_that_ends_at_any_message_leaves_the_enclave_sane(fresh_node, transport, end, sent):
    scene = Scene(fresh_node, transport)
    scene.node.reconnect()
    epoch = scene.node.client.info().epoch
    for at in range(scene.messages):
        before = scene.records()
        scene.renew()
        end(scene, at, sent)
        scene.settle(before)
    assert scene.node.client.info().epoch == epoch  # one process, from the first to the last


@each_moment
def test_the_evaluation_application_killed_at_any_message_leaves_client_and_key_application_sane(fresh_node, sent):
    node = fresh_node
    scene = Scene(node, "message")
    for at in range(scene.messages):
        scene.renew()
        cut = scene.client(at, sent, node.enclave.eval.kill)
        with pytest.raises(EnclaveError) as caught:
            scene.flow(cut)
            cut.client.info()  # where the last answer was under way already
        assert caught.value.status is None  # gone, said so; nothing hangs, nothing is taken for an answer
        cut.client.close()
        key = node.connect_key()
        assert key.info().kinds[:4] == bytes([1, 2, 3, 3])  # its keys are still there
        key.close()
        node.enclave.restart_eval()
        node.reconnect()
        node.agreed = node.agree()
        scene.camera = node.camera(b"scene")
        scene.renew()
        scene.settle(records_before=1)  # of the epoch's begin


@each_moment
def test_the_key_application_killed_at_any_message_leaves_the_evaluation_application_sane(fresh_node, sent):
    node = fresh_node
    scene = Scene(node, "message")
    node.reconnect()
    epoch = node.client.info().epoch
    ends = set()
    for at in range(scene.messages):
        before = scene.records()
        scene.renew()
        cut = scene.client(at, sent, kill_key(node))
        try:
            scene.flow(cut)
            ends.add("finished")
        except EnclaveError as error:
            assert error.status == Status.UNAVAILABLE  # the only thing it may answer, and only where it needs a key
            ends.add(error.status)
        cut.client.close()
        node.enclave.restart_key()
        node.put_keys()
        scene.settle(before)
    assert ends == {"finished", Status.UNAVAILABLE}
    assert node.client.info().epoch == epoch


def kill_key(node):
    def kill():
        node.enclave.key.kill()
        node.enclave.key.wait()
    return kill


def test_without_the_key_application_open_sessions_go_on_and_new_ones_are_unavailable(fresh_node):
    node = fresh_node
    node.load(MODEL)
    camera = node.camera()
    kill_key(node)()
    for _ in range(3):
        node.evaluate(camera, coordinates())
    with refused(Status.UNAVAILABLE):
        node.camera(b"another")
    with refused(Status.UNAVAILABLE):
        node.load(MODEL)
    node.enclave.restart_key()
    with refused(Status.KEY):  # it is there again, but has no keys yet
        node.load(MODEL)
    node.put_keys()
    node.load(MODEL)
    node.evaluate(camera, coordinates())
    node.evaluate(node.camera(b"another"), coordinates())


def test_the_key_application_restarted_many_times_finds_its_peer_again(fresh_node):
    for _ in range(10):
        fresh_node.enclave.restart_key()
        fresh_node.put_keys()
        fresh_node.load(MODEL)
        fresh_node.evaluate(fresh_node.camera(), coordinates())


def test_another_key_in_the_slot_after_a_restart_is_not_taken_for_the_old_one(fresh_node):
    node = fresh_node
    node.load(MODEL)
    package = node.pack(MODEL)
    node.enclave.restart_key()
    node.model_key = RNG.bytes(32)
    node.put_keys()
    with refused(Status.PACKAGE):
        node.client.load(package, 0, Placement.MASKED)
    node.load(MODEL)


@pytest.mark.slow
def test_a_key_application_that_hangs_makes_a_load_unavailable_and_no_more():
    with AttackNode() as node:
        node.load(MODEL)
        camera = node.camera()
        node.enclave.key.send_signal(signal.SIGSTOP)
        try:
            with refused(Status.UNAVAILABLE):
                node.camera(b"another")
            node.evaluate(camera, coordinates())
        finally:
            node.enclave.key.send_signal(signal.SIGCONT)
        node.camera(b"another")
        node.load(MODEL)
        node.evaluate(camera, coordinates())


# A second client.


def expect_second_client_refused(node):
    for _ in range(3):
        intruder = EvalClient(node.enclave.connect_eval())
        with pytest.raises(EnclaveError) as caught:
            intruder.info()
        assert caught.value.status is None
        intruder.close()


@pytest.mark.parametrize("transport", list(TRANSPORTS))
def test_a_second_client_is_refused_at_any_time_and_harms_nothing(node, transport):
    node.client.info()
    expect_second_client_refused(node)
    node.load(MODEL, Placement.MASKED, transport)
    expect_second_client_refused(node)
    camera = node.camera()
    clip = coordinates()
    ready = node.prepare(2)
    attempt = node.attempt(camera, node.seal(camera, clip), ready)
    while not attempt.done:
        answers = attempt.answers()
        expect_second_client_refused(node)
        attempt.submit(answers)
    node.expect(attempt.progress.record, clip)


def test_many_clients_at_once_harm_nothing(node):
    node.load(MODEL)
    camera = node.camera()
    clip = coordinates()
    attempt = node.attempt(camera, node.seal(camera, clip)).advance(1)
    crowd = []
    for _ in range(40):
        try:
            crowd.append(node.enclave.connect_eval())
        except EnclaveError:
            pass  # refused at the door
    attempt.advance(1)
    for channel in crowd:
        channel.close()
    attempt.finish_exactly(clip)


def test_a_second_client_of_the_key_application_harms_nothing(node):
    first = node.connect_key()
    assert first.info().slots == wire.KEY_SLOTS
    second = KeyClient(node.enclave.connect_key())
    with pytest.raises(EnclaveError):
        second.info()
    second.close()
    assert first.info().slots == wire.KEY_SLOTS
    first.close()
    node.load(MODEL)
    node.evaluate(node.camera(), coordinates())


# Clients that do not behave.


def test_a_client_that_never_reads_its_answers_blocks_nobody(fresh_node):
    """Its channel is closed, the next client is served."""
    node = fresh_node
    channel = node.client.connection.channel
    head = wire.Header(wire.EDGED_WIRE_VERSION, EvalCommand.STATS, 0, 1, 0).pack()
    channel._socket.settimeout(2.0)  # the socket of the host port: nothing else can be told not to read
    try:
        for _ in range(20000):
            channel.send(head)
    except EnclaveError:
        pass  # cut off, or nothing more fits
    channel.close()
    node.client = node.connect()
    node.load(MODEL)
    node.evaluate(node.camera(), coordinates())


def test_a_window_whose_memory_is_taken_back_under_the_enclave_does_not_kill_it(fresh_node):
    """A memfd that could shrink is refused: reading past its end would be fatal."""
    node = fresh_node
    handle = os.memfd_create("shrinks", os.MFD_CLOEXEC)
    os.ftruncate(handle, 1 << 20)
    status, _ = node.client.connection.call(EvalCommand.WINDOW, wire.Window(1 << 20).pack(), handle)
    if status == Status.OK:
        os.ftruncate(handle, 0)
        node.load(MODEL, Placement.MASKED)
        camera = node.camera()
        number, sealed = node.seal(camera, coordinates())
        node.client.open_clip(camera.session, wire.EVAL_CLIP_WINDOW, number, 0, len(sealed))
    assert status == Status.WINDOW
    os.close(handle)
    node.load(MODEL, Placement.MASKED, "window")
    node.evaluate(node.camera(), coordinates())
