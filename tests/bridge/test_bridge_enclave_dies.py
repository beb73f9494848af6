"""The enclave, or the connection to it, dies at any message: nothing is lost, doubled, or said before it holds."""

import time

import pytest

from bridge_node import BridgeNode, Saying, until
from edged.enclave import tipc, wire
from edged.enclave.client import EvalClient
from edged.enclave.wire import RecordKind
from edged.errors import EnclaveError
from edged.offload import messages
from moves import EVERY, QUIET_S, event, failing, leave_unfinished


def test_an_enclave_that_is_not_there_yet_is_waited_for(logged):
    with BridgeNode() as node:
        node.enclave.stop()
        node.bridge(wait=False)
        until(lambda: event(logged, "enclave_away"))
        assert node.status()["enclave"] == "away" and node.ask("exercise", rule=0)[1] == {"reason": messages.AWAY}
        with Saying(node) as gate:
            gate.say("hello", camera=messages.camera_id("gate"), nonce=bytes(32), agreement=gate.agreement)
            assert gate.hear() == ("wait", {"reason": messages.AWAY})
            node.enclave.start()
            time.sleep(0.1)  # without its keys
            node.put_keys()
            assert gate.deliver() is False
        assert len(event(logged, "enclave_up")) == 1


def test_an_enclave_that_died_while_idle_is_noticed_and_cameras_are_told(node, gate):
    gate.deliver()
    before = node.status()["epoch"]
    node.restart_eval()
    assert gate.hear("reopen") == ("reopen", {"reason": "the enclave began a new epoch"})
    gate.session = None
    assert gate.deliver() is False
    assert node.status()["epoch"] != before
    epochs = [record for record in node.checked() if record.kind == RecordKind.EPOCH]
    assert (epochs[1].unclean, epochs[1].previous, epochs[1].previous_seq) == (True, before, 2)


def test_a_camera_that_was_told_to_wait_while_the_enclave_was_away_is_called_when_it_is_back(node, gate, monkeypatch):
    """Also where it is the one of before, in which the camera has no session: it asks ever more rarely by itself."""
    honest = EvalClient.info

    def info(self):
        raise EnclaveError("the connection broke")

    monkeypatch.setattr(EvalClient, "info", info)
    until(lambda: node.status()["enclave"] == "away")
    gate.say("hello", camera=messages.camera_id("gate"), nonce=bytes(32), agreement=node.agreement.digest)
    assert gate.hear("wait", "session") == ("wait", {"reason": "the enclave is away"})
    monkeypatch.setattr(EvalClient, "info", honest)
    assert gate.hear("reopen") == ("reopen", {"reason": "its agreement may be in force"})
    assert gate.deliver() is False


class Interposed(tipc.Channel):
    """A channel to the evaluation application, on whose n-th message from now something happens first, or after."""

    due, act, after, kills = 0, None, False, 0

    def __init__(self, channel):
        self.inner, self.name = channel, channel.name

    def send(self, message, handle=None):
        cls = Interposed
        cls.due -= 1
        if cls.due == 0 and not cls.after:
            cls.act()
        self.inner.send(message, handle)

    def receive(self):
        message = self.inner.receive()
        cls = Interposed
        if cls.due == 0 and cls.after:
            cls.due = -1
            cls.act()  # the enclave did it, and nobody heard
            raise EnclaveError("the connection broke")
        return message

    def window(self, size_bytes):
        return self.inner.window(size_bytes)

    def close(self):
        self.inner.close()


@pytest.fixture
def interposed(monkeypatch):
    connect = tipc.connect

    def patched(place, port, *more):
        channel = connect(place, port, *more)
        return Interposed(channel) if port == wire.EVAL_PORT else channel

    monkeypatch.setattr(tipc, "connect", patched)
    Interposed.due, Interposed.act, Interposed.after, Interposed.kills = 0, None, False, 0
    yield Interposed


def arm(interposed, due, after, act):
    interposed.after, interposed.act, interposed.due = after, act, due


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("transport, dues", [("window", range(1, 16)), ("message", range(1, 60, 4))])
def test_the_enclave_may_be_killed_at_any_message_of_a_clip(interposed, transport, dues, after):
    with BridgeNode(transport=transport) as node, Saying(node.bridge()) as gate:
        gate.deliver()
        for due in dues:
            arm(interposed, due, after, lambda: kill(interposed, node))
            assert gate.deliver() is False
        assert interposed.kills > len(dues) // 2
        judged_through_kills(interposed, node, gate)


@pytest.mark.parametrize("step", EVERY)
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_the_enclave_may_be_killed_again_at_any_message_of_the_connection_that_follows(interposed, after, step):
    dues = range(1, 50, step)
    with BridgeNode() as node, Saying(node.bridge()) as gate:
        gate.deliver()
        for due in dues:
            arm(interposed, 3, after, lambda: kill(interposed, node) or arm(
                interposed, due, after, lambda: kill(interposed, node)))
            assert gate.deliver() is False
        assert interposed.kills > 1.6 * len(dues)
        judged_through_kills(interposed, node, gate)


def kill(interposed, node):
    interposed.kills += 1
    node.restart_eval()


def judged_through_kills(interposed, node, gate):
    """Every clip, most of them once; every epoch that said anything names the one before, and none is left out."""
    arm(interposed, 0, False, None)
    assert gate.deliver() is False
    judged = [claimed for _, claimed, kind in node.clips() if kind == RecordKind.OBSERVATION]
    assert set(judged) == set(range(1, gate.claimed + 1))
    begun = [record for record in node.checked() if record.kind == RecordKind.EPOCH]
    assert all(epoch.unclean for epoch in begun) and begun[0].previous == bytes(16)
    for index, epoch in enumerate(begun[1:]):
        # Killed before its first state was stored, an epoch has said no more than that it began: it may be passed over.
        while epoch.previous != begun[index].header.epoch:
            assert said_in(node, begun[index]) == [1]
            index -= 1
        assert epoch.counter == begun[index].counter + 1
        last = said_in(node, begun[index])[-1]
        assert epoch.previous_seq in (last, last - 1)  # stored, and the enclave killed before it was confirmed


def said_in(node, epoch):
    return [record.header.seq for record in node.checked() if record.header.epoch == epoch.header.epoch]


def test_a_connection_that_breaks_at_any_message_costs_nothing(interposed):
    """The same enclave: every clip is judged exactly once, though no camera is asked for anything."""
    def cut():
        raise EnclaveError("the connection broke")

    with BridgeNode() as node, Saying(node.bridge()) as gate:
        gate.deliver()
        epoch = node.status()["epoch"]
        for after in (False, True):
            for due in range(1, 45):
                arm(interposed, due, after, cut if not after else lambda: None)
                gate.deliver()
        arm(interposed, 0, False, None)
        gate.deliver()
        assert node.status()["epoch"] == epoch
        judged = [(claimed, kind) for _, claimed, kind in node.clips()]
        assert judged == [(claimed, RecordKind.OBSERVATION) for claimed in range(1, gate.claimed + 1)]
        assert [kind for kind, _ in gate.heard].count("session") == 1


def test_a_clip_whose_connection_broke_needs_not_be_sent_again(node, gate, monkeypatch):
    def broken(self, step):
        monkeypatch.setattr(EvalClient, "end_step", honest)
        raise EnclaveError("the connection broke")

    gate.hello()
    honest = EvalClient.end_step
    monkeypatch.setattr(EvalClient, "end_step", broken)
    gate.offer(*gate.sealed())
    assert gate.hear("done") == ("done", {"number": 1, "failed": False})


def test_a_clip_whose_connection_breaks_each_time_fails_in_the_end(monkeypatch):
    honest = EvalClient.end_step

    def broken(self, step):
        raise EnclaveError("the connection broke")

    with BridgeNode() as node, Saying(node.bridge()) as gate:
        gate.hello()
        monkeypatch.setattr(EvalClient, "end_step", broken)
        assert gate.deliver() is True
        monkeypatch.setattr(EvalClient, "end_step", honest)
        assert gate.deliver() is False
        assert [kind for _, _, kind in node.clips()] == [RecordKind.FAILED, RecordKind.OBSERVATION]


def test_a_failed_clip_is_done_only_once_its_record_is_stored(node, gate, monkeypatch):
    gate.hello()
    clip = leave_unfinished(gate, monkeypatch)
    broken = failing(monkeypatch)
    gate.offer(*clip)  # in the midst of its evaluation: it can but fail
    until(lambda: node.status()["failed"] == 1)
    assert gate.hear("done", patience_s=QUIET_S) is None and node.clips() == []
    broken[0] = False
    assert gate.hear("done")
    assert gate.heard[-1] == ("done", {"number": 1, "failed": True})
    assert [kind for _, _, kind in node.clips()] == [RecordKind.FAILED]
