"""The bridge dies at any moment, or stops: nothing is lost, doubled, or said before it holds."""

import itertools
import os
import threading
import time

import cbor2
import pytest

from bridge_node import PATIENCE_S, BridgeNode, Killed, Saying, until
from edged.alerts.spool import Caps, Spool
from edged.bus import Dealer
from edged.camera import link as camera_link
from edged.camera.clip import camera_key
from edged.camera.link import BridgeLink
from edged.enclave import wire
from edged.enclave.client import EvalClient
from edged.enclave.wire import RecordKind, Status
from edged.errors import EnclaveError
from edged.offload import backoff, daemon, desk, messages
from edged.offload.bridge import Bridge
from edged.offload.statements import Statements
from fake_bridge import Keys
from moves import EVERY, QUIET_S, event, failing, held, leave_unfinished


def killed_at(monkeypatch, due):
    """The bridge dies at the due-th of the moments around everything that stores, confirms or judges."""
    moments = itertools.count(1)

    def moment():
        if next(moments) == due:
            raise Killed()

    def around(owner, name):
        honest = getattr(owner, name)

        def watched(self, *arguments):
            moment()
            answer = honest(self, *arguments)
            moment()
            return answer

        monkeypatch.setattr(owner, name, watched)

    for owner, names in ((Spool, "put set_state state"), (Bridge, "load evaluate give_up"),
                         (EvalClient, "restore put_agreement record_from confirm open_session end_step")):
        for name in names.split():
            around(owner, name)


@pytest.mark.parametrize("step", EVERY)
def test_the_bridge_may_be_killed_at_any_moment_and_every_clip_is_judged_once(monkeypatch, step):
    killed = 0
    for due in range(1, 200, step):
        with BridgeNode() as node:
            node.deaths = 0
            with monkeypatch.context() as patched:
                killed_at(patched, due)
                node.bridge(wait=False)
                with Saying(node) as gate:
                    clips = threading.Thread(target=lambda: [gate.deliver() for _ in range(2)], daemon=True)
                    clips.start()
                    while clips.is_alive():
                        if node.is_dead:
                            node.join()
                            assert isinstance(node.died, Killed), node.died
                            node.deaths += 1
                            node.bridge(wait=False)
                        time.sleep(0.002)
            node.stop()
            judged = [claimed for _, claimed, kind in node.clips() if kind == RecordKind.OBSERVATION]
            assert judged == [1, 2], due
            if not node.deaths:
                break  # there are no more moments
            killed += 1
    assert killed > 50 // step


def test_a_clip_that_a_killed_bridge_had_begun_goes_on_where_its_camera_sends_it_again(node, gate, monkeypatch):
    gate.hello()
    with monkeypatch.context() as patched:
        patched.setattr(EvalClient, "end_step", lambda *_: (_ for _ in ()).throw(Killed()))
        clip = gate.sealed()
        gate.offer(*clip)
        until(lambda: node.is_dead)
    node.join()
    node.bridge()
    until(lambda: gate.offer(*clip) or gate.hear(patience_s=QUIET_S) == ("done", {"number": 1, "failed": False}))
    assert node.clips() == [("gate", 1, RecordKind.OBSERVATION)]


def test_a_clip_that_a_killed_bridge_had_begun_fails_where_its_camera_began_anew(node, gate, monkeypatch):
    gate.hello()
    with monkeypatch.context() as patched:
        patched.setattr(EvalClient, "end_step", lambda *_: (_ for _ in ()).throw(Killed()))
        gate.offer(*gate.sealed())
        until(lambda: node.is_dead)
    node.join()
    node.bridge()
    gate.session = None
    assert gate.deliver() is False
    assert node.clips() == [("gate", 1, RecordKind.FAILED), ("gate", 2, RecordKind.OBSERVATION)]


class Reporting:
    """A camera's own link with the bridge; no clips."""

    def __init__(self, node, name="gate"):
        self._ends, self._thread = threading.Event(), threading.Thread(target=self._run, args=(node, name), daemon=True)
        self.link = None
        self._thread.start()
        until(lambda: self.link is not None and self.link.session is not None)

    def _run(self, node, name):
        identity = messages.camera_id(name)
        keys = Keys(node.agreement.digest, camera_key(node.data_key, identity))
        with Dealer(node.address, name.encode()) as dealer:
            link = BridgeLink(dealer, identity, keys)
            while not self._ends.is_set():
                link.serve(0.01)
                self.link = link

    def __enter__(self):
        return self.link

    def __exit__(self, *_):
        self._ends.set()
        self._thread.join()


def said(node):
    return [cbor2.loads(record.data)["state"] for record in node.checked() if record.kind == RecordKind.CAMERA]


def test_what_a_camera_told_a_bridge_that_was_killed_before_it_was_sealed_the_next_one_has_sealed(node, monkeypatch):
    monkeypatch.setattr(camera_link, "STATUS_S", 0.0)
    with Reporting(node) as link:
        link.status("live")
        until(lambda: said(node) == ["live"])
        honest = Statements.claim_of

        def killed(self, link, cameras):
            if any(camera.said.state == "lost" for camera in cameras):
                raise Killed()
            return honest(self, link, cameras)

        with monkeypatch.context() as patched:
            patched.setattr(Statements, "claim_of", killed)
            link.status("lost", "dark")
            until(lambda: node.is_dead)
        node.join()
        node.bridge()
        until(lambda: said(node) == ["live", "lost"])
        assert link.counts.sessions == 1 and node.status()["cameras"]["gate"]["state"] == "lost"


def test_what_a_killed_bridge_said_of_a_camera_the_next_one_takes_back_where_it_is_over(node, monkeypatch):
    monkeypatch.setattr(desk, "PATIENCE_S", 0.0)
    monkeypatch.setattr(desk, "PROBE_S", 0.02)
    with Reporting(node) as link:
        link.status("live")
        with monkeypatch.context() as patched:
            patched.setattr(Bridge, "probe", lambda *_: (_ for _ in ()).throw(EnclaveError("locked", Status.LOCKED)))
            until(lambda: said(node)[-1:] == ["waits"])
            patched.setattr(Statements, "claim_of", lambda *_: (_ for _ in ()).throw(Killed()))
            until(lambda: node.is_dead)
        node.join()
        node.bridge()
        until(lambda: said(node)[-1] == "live")
        assert link.counts.sessions == 1


def test_after_a_restart_a_camera_cannot_take_the_session_of_another(monkeypatch):
    with BridgeNode(cameras=("gate", "yard")) as node, Saying(node.bridge()) as gate, Saying(node, "yard") as yard:
        gate.hello(), yard.hello()
        with monkeypatch.context() as patched:
            patched.setattr(Bridge, "evaluate", lambda *_: (_ for _ in ()).throw(Killed()))
            gate.offer(*gate.sealed())
            until(lambda: node.is_dead)
        node.join()
        node.bridge()
        until(lambda: gate.offer(7, gate.sealed()[1], session=yard.session) or gate.hear("refused", patience_s=QUIET_S))
        assert gate.heard[-1][1]["reopen"]
        assert yard.deliver() is False and gate.deliver() is False
        assert sorted(camera for camera, _, _ in node.clips()) == ["gate", "yard"]


@pytest.mark.parametrize("damage", [
    lambda told: b"", lambda told: b"\xff" * 40, lambda told: cbor2.dumps([1]), lambda told: told[:-3],
    lambda told: cbor2.dumps(dict(cbor2.loads(told), epoch=bytes(16))),
    lambda told: cbor2.dumps(dict(cbor2.loads(told), sessions={"gate": 7})), None,
], ids=["empty", "no CBOR", "a list", "cut off", "another epoch", "another form", "gone"])
def test_without_what_it_noted_of_its_sessions_a_bridge_asks_for_new_ones(node, gate, monkeypatch, damage):
    gate.hello()
    with monkeypatch.context() as patched:
        patched.setattr(Bridge, "evaluate", lambda *_: (_ for _ in ()).throw(Killed()))
        gate.offer(*gate.sealed())
        until(lambda: node.is_dead)
    node.join()
    path = os.path.join(node.folder, "run", "sessions")
    with open(path, "rb") as file:
        told = file.read()
    os.unlink(path)
    if damage is not None:
        node.write("run/sessions", damage(told))
    node.bridge()
    assert gate.deliver() is False
    assert [kind for kind, _ in gate.heard].count("session") == 2
    assert node.clips() == [("gate", 2, RecordKind.OBSERVATION)]


def test_sessions_of_cameras_that_are_no_more_make_room(monkeypatch):
    names = ["old-{}".format(number) for number in range(wire.EVAL_SESSIONS_MAX)]
    with BridgeNode(cameras=names) as node:
        node.bridge()
        for name in names:
            with Saying(node, name) as camera:
                camera.hello()
        with monkeypatch.context() as patched:
            patched.setattr(EvalClient, "info", lambda *_: (_ for _ in ()).throw(Killed()))
            until(lambda: node.is_dead)
        node.join()
        node.cameras = ("gate",)
        with Saying(node.bridge()) as gate:
            assert gate.deliver() is False


# Stop, and the epoch after it.

def test_a_stopped_bridge_closes_the_epoch_and_the_next_one_says_so(node, gate, logged):
    gate.deliver()
    first = node.status()["epoch"]
    node.stop()
    assert event(logged, "epoch_closed")
    said = event(logged, "bridge_stopped")[0]
    assert " clips=1 failed=0 records=2 waiting=0 products_checked=10 rejections=0 " in said
    node.restart_eval()
    node.bridge()
    epochs = [record for record in node.checked() if record.kind == RecordKind.EPOCH]
    assert (epochs[1].unclean, epochs[1].previous, epochs[1].previous_seq) == (False, first, 2)
    assert epochs[1].counter == epochs[0].counter + 1
    gate.session = None
    assert gate.deliver() is False


def test_with_something_unfinished_the_epoch_stays_open_and_its_clip_goes_on(node, gate, monkeypatch, logged):
    gate.hello()
    clip = leave_unfinished(gate, monkeypatch)
    epoch = node.status()["epoch"]
    node.stop()
    assert not event(logged, "epoch_closed")
    node.bridge()
    assert node.status()["epoch"] == epoch
    until(lambda: gate.offer(*clip) or gate.hear(patience_s=QUIET_S) == ("done", {"number": 1, "failed": False}))
    assert node.clips() == [("gate", 1, RecordKind.OBSERVATION)]


def test_the_clip_under_way_is_finished_before_the_bridge_stops(node, gate, monkeypatch):
    gate.hello()
    with held(monkeypatch) as taken:
        gate.offer(*gate.sealed())
        until(lambda: taken)
        node._stop.set()
    node.join()
    assert node.died is None and len(node.clips()) == 1


def test_a_camera_that_reads_late_hears_that_its_clip_is_done_before_the_bridge_is_gone(node, gate, monkeypatch):
    """What has arrived and was not read goes with the connection: it would be judged again in the next epoch."""
    monkeypatch.setattr(daemon, "PARTS_S", PATIENCE_S)
    gate.hello()
    gate.offer(*gate.sealed())
    until(lambda: node.status()["clips"] == 1)
    node._stop.set()
    time.sleep(QUIET_S)
    assert gate.hear("done", patience_s=QUIET_S)
    gate.hear(patience_s=QUIET_S)  # answers the call
    node.join()
    assert node.clips() == [("gate", 1, RecordKind.OBSERVATION)]


def test_a_camera_that_does_not_answer_keeps_no_bridge_from_stopping(node, gate, monkeypatch):
    monkeypatch.setattr(daemon, "PARTS_S", 0.1)
    gate.hello()
    node.stop()


def test_what_waited_for_the_spool_is_stored_when_the_bridge_stops(node, gate, monkeypatch, logged):
    monkeypatch.setattr(backoff, "FIRST_S", 3600.0)
    gate.hello()
    broken = failing(monkeypatch)
    gate.offer(*gate.sealed())
    until(lambda: node.status()["spool"] == "failing")
    broken[0] = False
    node.stop()
    assert len(node.clips()) == 1 and event(logged, "epoch_closed")


def test_a_foreign_state_is_named_and_the_epoch_begins_without_it(node, gate, logged):
    gate.deliver()
    node.stop()
    with Spool(os.path.join(node.folder, "state", "spool.db"), Caps(1 << 20, 1 << 30, 1 << 30)) as spool:
        state = spool.state()
        spool.set_state(state[:-1] + bytes([state[-1] ^ 1]))
    node.restart_eval()
    node.bridge()
    assert event(logged, "state_refused")
    last = [record for record in node.checked() if record.kind == RecordKind.EPOCH][-1]
    assert last.unclean and last.previous == bytes(16)
