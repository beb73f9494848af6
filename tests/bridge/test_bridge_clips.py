"""A clip's way through the bridge: judged once, by turns, under its own session, refused with its reason."""

import threading
import time
from dataclasses import replace

import numpy as np
import pytest

from attacks.networks import random_coordinates
from bridge_node import MODEL, PATIENCE_S, BridgeNode, Refused, Saying, until
from edged.enclave import wire
from edged.enclave.client import EvalClient
from edged.enclave.wire import RecordKind, Status
from edged.errors import BusError, EnclaveError
from edged.model import reference
from edged.offload import daemon, messages
from edged.offload.bridge import Bridge
from edged.offload.desk import PREPARED_MAX
from edged.offload.product import NumpyAccelerator
from edged.trust.agreement import Rule, sign
from moves import QUIET_S, beacon_of, event, held, kinds, leave_unfinished, outbox, replace_rcpt


@pytest.mark.parametrize("transport", ["window", "message"])
@pytest.mark.parametrize("placement", ["masked", "inputs", "enclave"])
def test_a_clip_becomes_the_record_that_the_reference_defines(placement, transport):
    with BridgeNode(placement=placement, transport=transport) as node, Saying(node.bridge()) as gate:
        clips = [random_coordinates(np.random.default_rng(seed), MODEL.shape, persons)
                 for seed, persons in enumerate((1, 2, 0, 2))]
        assert [gate.deliver(clip) for clip in clips] == [False] * 4
        seen = [record for record in node.checked() if record.kind == RecordKind.OBSERVATION]
        assert [record.logits for record in seen] == [tuple(reference.run(MODEL, clip)[0]) for clip in clips]


def test_done_is_said_of_what_the_spool_holds(node, gate):
    for number in range(1, 6):
        gate.deliver()
        assert node.clips() == [("gate", n, RecordKind.OBSERVATION) for n in range(1, number + 1)]


def test_every_recipient_gets_its_record():
    with BridgeNode(alert_key_bytes=(32, 16, 32, 16)) as node, Saying(node.bridge()) as gate:
        gate.deliver()
        gate.deliver()
        for recipient in range(4):
            assert len(node.clips(recipient)) == 2


def test_records_too_large_for_one_answer_are_fetched():
    with BridgeNode(alert_key_bytes=(32, 16, 32, 16), body=wire.EDGED_BODY_MAX) as node, \
            Saying(node.bridge()) as gate:
        gate.deliver()
        assert [len(node.clips(recipient)) for recipient in range(4)] == [1] * 4


def test_a_clip_that_is_sent_again_is_answered_again_and_judged_once(node, gate):
    gate.hello()
    number, sealed = gate.sealed()
    for _ in range(3):
        gate.offer(number, sealed)
        assert gate.hear() == ("done", {"number": number, "failed": False})
    assert len(node.clips()) == 1


def test_a_clip_that_is_sent_again_while_it_waits_is_judged_once(node, gate, monkeypatch):
    gate.hello()
    first, second = gate.sealed(), gate.sealed()
    with held(monkeypatch) as taken:
        gate.offer(*first)
        until(lambda: taken)
        for clip in (second, first, second, first):
            gate.offer(*clip)
        time.sleep(0.1)
    heard = [gate.hear() for _ in range(4)]
    assert {kind for kind, _ in heard} == {"done"} and gate.hear(patience_s=QUIET_S) is None
    assert len(node.clips()) == 2


def test_two_bridges_cannot_serve_one_node(node):
    with pytest.raises(BusError, match="address in use"):
        daemon.run(node.config(), threading.Event())


def test_a_failing_accelerator_ends_in_a_record_failed(node, gate, monkeypatch, logged):
    right = NumpyAccelerator.convolve

    def wrong(self, *arguments):
        out = right(self, *arguments)
        out[...] += 1
        return out

    monkeypatch.setattr(NumpyAccelerator, "convolve", wrong)
    assert gate.deliver() is True
    monkeypatch.setattr(NumpyAccelerator, "convolve", right)
    assert gate.deliver() is False
    assert [kind for _, _, kind in node.clips()] == [RecordKind.FAILED, RecordKind.OBSERVATION]
    assert node.status()["cameras"]["gate"]["failed"] == 1 and node.status()["rejections"] == 3
    assert "attempts=3" in event(logged, "clip_failed")[0]


def test_idle_time_is_spent_on_the_clip_to_be_expected(node, gate, monkeypatch):
    made, honest = [], Bridge.prepare
    monkeypatch.setattr(Bridge, "prepare", lambda self, persons: made.append(persons) or honest(self, persons))
    for seed in range(3):
        gate.deliver(random_coordinates(np.random.default_rng(seed), MODEL.shape, 2))
    until(lambda: len(made) >= PREPARED_MAX)
    time.sleep(QUIET_S)
    assert set(made) == {2} and len(made) <= 3 + PREPARED_MAX
    ready = len(made)
    gate.deliver(random_coordinates(np.random.default_rng(9), MODEL.shape, 2))
    until(lambda: len(made) == ready + 1)  # one was used
    assert node.status()["rejections"] == 0


def test_nothing_is_prepared_where_nothing_leaves_the_enclave(monkeypatch):
    with BridgeNode(placement="enclave") as node, Saying(node.bridge()) as gate:
        monkeypatch.setattr(Bridge, "prepare", lambda *_: pytest.fail("nothing to prepare"))
        gate.deliver()
        time.sleep(QUIET_S)
        gate.deliver()


# By turns.

def test_cameras_have_equal_turns_whoever_came_first(monkeypatch):
    names = ("gate", "yard", "hall")
    with BridgeNode(cameras=names) as node:
        cameras = [Saying(node.bridge(), names[0])] + [Saying(node, name) for name in names[1:]]
        sessions = [camera.hello()["session"] for camera in cameras]
        with held(monkeypatch) as taken:
            cameras[0].offer(*cameras[0].sealed())
            until(lambda: taken)
            for camera in cameras:  # all of the first one's before any of the second's
                for _ in range(2):
                    camera.offer(*camera.sealed())
                time.sleep(0.1)
        for camera in cameras:
            for _ in range(3 if camera is cameras[0] else 2):
                assert camera.hear("done")
            camera.dealer.close()
        assert taken == [sessions[0]] + sessions + sessions


def test_a_third_waiting_clip_is_refused_for_the_moment(node, gate, monkeypatch):
    gate.hello()
    with held(monkeypatch) as taken:
        clips = [gate.sealed() for _ in range(4)]
        gate.offer(*clips[0])
        until(lambda: taken)
        for clip in clips[1:]:
            gate.offer(*clip)
        time.sleep(0.1)
    answers = [gate.hear("done", "refused") for _ in clips]
    assert ("refused", {"number": 4, "reason": "busy", "reopen": False, "retry": True}) in answers
    assert [fields["number"] for kind, fields in answers if kind == "done"] == [1, 2, 3]
    gate.offer(*clips[3])
    assert gate.hear() == ("done", {"number": 4, "failed": False})


# Sessions.

def test_a_session_tells_what_the_model_takes(node, gate):
    told = gate.hello()
    head = MODEL.shape
    assert (told["persons"], told["frames"], told["joints"]) == (head.persons, head.frames, head.joints)
    assert told["epoch"] == node.status()["epoch"]


def test_a_session_of_another_camera_is_refused(monkeypatch):
    with BridgeNode(cameras=("gate", "yard")) as node, Saying(node.bridge()) as gate, Saying(node, "yard") as yard:
        gate.hello(), yard.hello()
        gate.offer(*gate.sealed(), session=yard.session)
        assert gate.hear() == ("refused", {"number": 1, "reason": "not its session", "reopen": True, "retry": True})
        assert gate.deliver() is False and yard.deliver() is False
        assert [camera for camera, _, _ in node.clips()] == ["gate", "yard"]


def test_a_camera_without_a_session_is_asked_for_a_hello(gate):
    gate.say("clip", bytes(300), session=3, number=1, captured_ns=1)
    assert gate.hear("refused")[1] == {"number": 1, "reason": "not its session", "reopen": True, "retry": True}


def test_a_hello_in_another_cameras_name_is_dropped(node, gate, logged):
    gate.say("hello", camera=messages.camera_id("yard"), nonce=bytes(32), agreement=gate.agreement)
    assert gate.hear("session", "wait", patience_s=QUIET_S) is None
    assert "in the name of another camera" in event(logged, "message_malformed")[0]


def test_a_camera_that_the_configuration_does_not_name_is_not_answered(node, logged):
    with Saying(node, "stranger") as stranger:
        stranger.say("hello", camera=messages.camera_id("stranger"), nonce=bytes(32),
                     agreement=stranger.agreement)
        assert stranger.hear(patience_s=QUIET_S) is None
    assert "nobody whom the configuration names" in event(logged, "message_malformed")[0]


def test_an_unknown_agreement_has_to_wait(gate, logged):
    gate.say("hello", camera=messages.camera_id("gate"), nonce=bytes(32), agreement=bytes(32))
    assert gate.hear("session", "wait") == ("wait", {"reason": "no agreement of this digest is in force"})
    assert event(logged, "session_refused")


def test_of_several_agreements_each_camera_names_its_own():
    with BridgeNode(cameras=("gate", "yard")) as node:
        other = replace(node.agreement, number=2, recipients=tuple(
            replace_rcpt(one) for one in node.agreement.recipients))
        node.papers.append((other, sign(other.encode(), node.mo_key, node.qdo_key)))
        with Saying(node.bridge()) as gate, Saying(node, "yard", agreement=other.digest) as yard:
            assert gate.deliver() is False and yard.deliver() is False
            assert [camera for camera, _, _ in node.clips()] == ["gate"]  # of the first agreement's recipient
            assert node.status()["records"] == 4


def test_a_camera_that_starts_again_gives_up_what_it_had_begun(node, gate, monkeypatch, logged):
    """Its clip was accepted, and the key application went away before the end."""
    gate.hello()
    leave_unfinished(gate, monkeypatch)
    with Saying(node) as again:
        again.claimed = 10
        assert again.deliver() is False
    assert node.clips() == [("gate", 1, RecordKind.FAILED), ("gate", 11, RecordKind.OBSERVATION)]
    assert event(logged, "clip_given_up") == ["clip_given_up session=0"]


def test_a_later_clip_makes_the_unfinished_one_fail(node, gate, monkeypatch):
    gate.hello()
    leave_unfinished(gate, monkeypatch)
    assert gate.deliver() is False
    assert node.clips() == [("gate", 1, RecordKind.FAILED), ("gate", 2, RecordKind.OBSERVATION)]


# Clips that the enclave refuses.

def test_a_clip_that_does_not_open_is_refused_for_good_and_the_next_one_taken(node, gate, logged):
    gate.deliver()
    number, sealed = gate.sealed()
    damaged = bytes([sealed[0] ^ 1]) + sealed[1:]
    gate.offer(number, damaged)
    assert gate.hear("refused")[1]["reopen"]  # perhaps it is the session
    gate.hello()
    number, sealed = gate.sealed()
    gate.offer(number, sealed[:-1] + bytes([sealed[-1] ^ 1]))
    kind, fields = gate.hear("refused")
    assert (fields["reopen"], fields["retry"]) == (False, False) and "seal, number or form" in fields["reason"]
    assert event(logged, "clip_refused")
    assert gate.deliver() is False
    assert len(node.clips()) == 2 and node.status()["cameras"]["gate"]["refused"] == 1


def test_a_camera_with_a_mistaken_key_is_told_and_asks_for_one_new_session_only(node):
    with Saying(node, data_key=bytes(32)) as stranger:
        with pytest.raises(Refused, match="seal, number or form"):
            stranger.deliver()
        assert [kind for kind, _ in stranger.heard].count("session") == 2
    assert node.clips() == []


@pytest.mark.parametrize("size", [0, 1, 300, 100000])
def test_a_clip_of_no_clips_size_is_refused_for_good(node, gate, size):
    gate.hello()
    gate.offer(1, bytes(size))
    kind, fields = gate.hear("refused")
    assert not fields["retry"] and "no number of persons" in fields["reason"]
    gate.number = 1
    assert gate.deliver() is False


def test_a_number_of_before_is_refused(node, gate):
    gate.hello()
    first, second = gate.sealed(), gate.sealed()
    gate.offer(*second)
    assert gate.hear("done")
    gate.offer(*first)
    assert gate.hear("refused")[1]["reopen"]
    assert len(node.clips()) == 1


def test_what_its_camera_sent_before_it_was_told_to_reopen_is_not_judged_for_it_is_sealed_anew(node, gate):
    """A clip that was lost with a bridge, and that a later one overtook: another one is on its way meanwhile."""
    gate.hello()
    lost, second, third = (gate.sealed() for _ in range(3))
    gate.offer(*second)
    assert gate.hear("done")
    gate.offer(*lost)
    gate.offer(*third)
    assert gate.hear("done", "refused")[1]["reopen"]
    gate.offer(*third)
    kind, fields = gate.hear("done", "refused")
    assert kind == "refused" and fields["reopen"] and fields["number"] == third[0]
    gate.hello()
    assert gate.deliver() is False
    assert [number for _, number, _ in node.clips()] == [2, gate.number]


def test_without_a_beacon_clips_wait_and_one_beacon_frees_them(logged):
    with BridgeNode(beacon_period_s=1, beacon_limit_s=1) as node, Saying(node.bridge()) as gate:
        gate.hello()
        clip = gate.sealed()
        time.sleep(1.1)  # the enclave's clock cannot be hurried
        gate.offer(*clip)
        kind, fields = gate.hear("refused")
        assert fields["retry"] and not fields["reopen"] and fields["reason"].startswith("locked")
        assert node.status()["cameras"]["gate"]["postponed_for"].startswith("locked")
        with outbox(node) as beacons:
            beacons.send(messages.pack("beacon", {}, beacon_of(node)))
            until(lambda: RecordKind.HEARTBEAT in kinds(node))
        gate.offer(*clip)
        assert gate.hear("done")
        assert len(event(logged, "clips_postponed")) == 1


def test_clips_beyond_the_rate_are_not_taken():
    with BridgeNode(clips_per_hour=2) as node, Saying(node.bridge()) as gate:
        gate.hello()
        gate.offer(*gate.sealed())
        assert gate.hear("refused")[1] == {"number": 1, "retry": True, "reopen": False,
                                           "reason": "rate: the agreement's clips of this hour are used up"}


def test_what_the_agreement_does_not_cover_waits():
    with BridgeNode(rules=(Rule("no such label", 1, 0),)) as node, Saying(node.bridge()) as gate:
        gate.hello()
        gate.offer(*gate.sealed())
        assert gate.hear("refused")[1]["reason"].startswith("agreement")


@pytest.mark.parametrize("late", [False, True], ids=["waiting", "on its way"])
def test_a_clip_behind_one_that_has_to_wait_does_not_overtake_it(node, gate, monkeypatch, late):
    gate.hello()
    honest, work = EvalClient.open_clip, daemon.Daemon._work
    clips, taken, opened = [gate.sealed(), gate.sealed()], threading.Event(), threading.Event()

    def full(self, *arguments):
        taken.set()
        assert opened.wait(PATIENCE_S)
        monkeypatch.setattr(EvalClient, "open_clip", honest)
        raise EnclaveError("CLIP_OPEN refused: full", Status.FULL)

    monkeypatch.setattr(EvalClient, "open_clip", full)
    if late:
        gate.offer(*clips[0])
        assert taken.wait(PATIENCE_S)
        gate.offer(*clips[1])
    else:
        monkeypatch.setattr(daemon.Daemon, "_work", lambda self: None)  # till both are in the queue
        for clip in clips:
            gate.offer(*clip)
        until(lambda: node.status()["waiting"] == 2)
        monkeypatch.setattr(daemon.Daemon, "_work", work)
    opened.set()
    assert [gate.hear("done", "refused") for _ in clips] == [
        ("refused", {"number": number, "reason": gate.heard[-1][1]["reason"], "reopen": False, "retry": True})
        for number in (1, 2)]
    for clip in clips:
        gate.offer(*clip)
    assert [gate.hear("done", "refused") for _ in clips] == [("done", {"number": n, "failed": False}) for n in (1, 2)]
