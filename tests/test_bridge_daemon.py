"""The bridge process against the real enclave: nothing is lost, doubled, or said before it holds, whatever dies."""

import itertools
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import replace

import cbor2
import numpy as np
import pytest

from attacks.networks import random_coordinates
from bridge_node import MODEL, PATIENCE_S, BridgeNode, Killed, Refused, Saying, until
from edged import bus
from edged.alerts.record import split_record
from edged.alerts.spool import Caps, Evicted, Spool
from edged.camera import link as camera_link
from edged.camera.clip import Clip, camera_key
from edged.enclave import tipc, wire
from edged.enclave.client import Emitted, EvalClient
from edged.enclave.wire import MessageStatus, RecordKind, Status
from edged.errors import (
    BusError, ConfigError, EnclaveError, KeyRefused, MissingInput, PackageError, SpoolError, VerificationFailed,
)  # fmt: skip
from edged.model import reference
from edged.offload import backoff, daemon, link, messages, statements
from edged.offload.bridge import Bridge
from edged.offload.desk import PREPARED_MAX
from edged.offload.product import NumpyAccelerator
from edged.trust.agreement import Rule, sign

QUIET_S = 0.3  # how long a test listens for what must not come
# Of the moments at which something is killed; each of them is tried where there is time.
EVERY = [5, pytest.param(1, marks=pytest.mark.slow)]
RULES = (Rule("label 1", 60000, 0), Rule("label 2", 60000, 0))


@pytest.fixture(autouse=True)
def hurried(monkeypatch):
    """What is seconds in the field."""
    monkeypatch.setattr(backoff, "FIRST_S", 0.01)
    monkeypatch.setattr(backoff, "LAST_S", 0.1)
    monkeypatch.setattr(daemon, "POLL_S", 0.02)
    monkeypatch.setattr(daemon, "PING_S", 0.05)
    monkeypatch.setattr(statements, "CLAIM_S", 0.05)
    monkeypatch.setattr(statements, "EVICT_S", 0.05)


@pytest.fixture
def node():
    with BridgeNode() as running:
        yield running.bridge()


@pytest.fixture
def gate(node):
    with Saying(node) as camera:
        yield camera


def event(caplog, name):
    return [record.getMessage() for record in caplog.records if record.getMessage().startswith(name + " ")
            or record.getMessage() == name]


@pytest.fixture(autouse=True)
def logged(caplog):
    caplog.set_level("INFO", "edged")
    return caplog


# A clip's way.

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

@contextmanager
def held(monkeypatch):
    """Evaluations wait until the block ends; who was taken, in order."""
    taken, opened, honest = [], threading.Event(), Bridge.evaluate

    def evaluate(self, session, number, sealed):
        taken.append(session)
        assert opened.wait(PATIENCE_S)
        return honest(self, session, number, sealed)

    monkeypatch.setattr(Bridge, "evaluate", evaluate)
    try:
        yield taken
    finally:
        opened.set()


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
    gate.say("hello", camera=messages.camera_id("yard"), nonce=bytes(32), agreement=b"")
    assert gate.hear("session", "wait", patience_s=QUIET_S) is None
    assert "in the name of another camera" in event(logged, "message_malformed")[0]


def test_a_camera_that_the_configuration_does_not_name_is_not_answered(node, logged):
    with Saying(node, "stranger") as stranger:
        stranger.say("hello", camera=messages.camera_id("stranger"), nonce=bytes(32), agreement=b"")
        assert stranger.hear(patience_s=QUIET_S) is None
    assert "nobody whom the configuration names" in event(logged, "message_malformed")[0]


def test_an_unknown_agreement_has_to_wait(gate, logged):
    gate.say("hello", camera=messages.camera_id("gate"), nonce=bytes(32), agreement=bytes(32))
    assert gate.hear("session", "wait") == ("wait", {"reason": "no agreement of this digest is in force"})
    assert event(logged, "session_refused")


def test_of_several_agreements_one_has_to_be_named():
    with BridgeNode(cameras=("gate", "yard")) as node:
        other = replace(node.agreement, number=2, recipients=tuple(
            replace_rcpt(one) for one in node.agreement.recipients))
        node.papers.append((other, sign(other.encode(), node.mo_key, node.qdo_key)))
        with Saying(node.bridge()) as gate, Saying(node, "yard", agreement=other.digest) as yard:
            gate.say("hello", camera=messages.camera_id("gate"), nonce=bytes(32), agreement=b"")
            assert gate.hear("session", "wait") == ("wait", {"reason": "several agreements are in force: name one"})
            gate.agreement = node.agreement.digest
            assert gate.deliver() is False and yard.deliver() is False
            assert [camera for camera, _, _ in node.clips()] == ["gate"]  # of the first agreement's recipient
            assert node.status()["records"] == 4


def replace_rcpt(recipient):
    return recipient._replace(rcpt=bytes(reversed(recipient.rcpt)))


def test_a_camera_that_starts_again_gives_up_what_it_had_begun(node, gate, monkeypatch, logged):
    """Its clip was accepted, and the key application went away before the end."""
    gate.hello()
    leave_unfinished(gate, monkeypatch)
    with Saying(node) as again:
        again.claimed = 10
        assert again.deliver() is False
    assert node.clips() == [("gate", 1, RecordKind.FAILED), ("gate", 11, RecordKind.OBSERVATION)]
    assert event(logged, "clip_given_up") == ["clip_given_up session=0"]


def leave_unfinished(camera, monkeypatch):
    """A clip that the enclave accepted and is not done with: the bridge says that it has to wait."""
    def unavailable(self, step):
        raise EnclaveError("STEP refused: away", Status.UNAVAILABLE)

    with monkeypatch.context() as patched:
        patched.setattr(EvalClient, "end_step", unavailable)
        clip = camera.sealed()
        camera.offer(*clip)
        answer = camera.hear("refused")
        assert answer[1]["retry"] and not answer[1]["reopen"] and "unavailable" in answer[1]["reason"]
    return clip


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


def test_the_clips_of_an_hour_are_taken_and_no_more():
    with BridgeNode(clips_per_hour=2) as node, Saying(node.bridge()) as gate:
        gate.deliver(), gate.deliver()
        gate.offer(*gate.sealed())
        assert gate.hear("refused")[1] == {"number": 3, "retry": True, "reopen": False,
                                           "reason": "rate: the agreement's clips of this hour are used up"}


def test_what_the_agreement_does_not_cover_waits():
    with BridgeNode(placement="inputs", placements=1 << wire.Placement.MASKED) as node, Saying(node.bridge()) as gate:
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


# What else is sealed.

@contextmanager
def outbox(node):
    with bus.Dealer(node.address, b"outbox") as dealer:
        until(lambda: dealer.send(messages.pack("beacon", {}, b"")))  # dropped: it is none
        yield dealer


def beacon_of(node, time_ns=10 ** 9, nonce=b"n" * 16, recipient=0):
    with Spool(os.path.join(node.folder, "state", "spool.db"), Caps(1, 1, 1)) as spool:
        node._salt = split_record(spool.pending(node.agreement.recipients[recipient].rcpt, 0, 1 << 20)[-1][1])[0].salt
    return node.beacon(time_ns, nonce, recipient)


def kinds(node, recipient=0):
    return [record.kind for record in node.checked(recipient)]


def test_a_beacon_is_answered_by_a_heartbeat_of_its_recipient():
    with BridgeNode(alert_key_bytes=(32, 32)) as node, Saying(node.bridge()) as gate, outbox(node) as beacons:
        gate.deliver()
        for recipient, nonce in ((0, b"0" * 16), (1, b"1" * 16)):
            beacons.send(messages.pack("beacon", {}, beacon_of(node, 10 ** 9, nonce, recipient)))
            until(lambda: RecordKind.HEARTBEAT in kinds(node, recipient))
            heartbeat = node.checked(recipient)[-1]
            assert heartbeat.nonce == nonce and heartbeat.config == daemon.config_digest(node.config())
            assert heartbeat.cameras[0].accepted == 1


def test_what_is_claimed_of_the_cameras_changes_with_their_configuration():
    with BridgeNode(cameras=("gate",)) as one, BridgeNode(cameras=("gate", "yard")) as two:
        assert len({daemon.config_digest(node.config()) for node in (one, one, two)}) == 2


@pytest.mark.parametrize("blob, said", [(b"", "message_malformed"), (bytes(81), "message_malformed"),
                                        (bytes(80), "beacon_refused")])
def test_a_beacon_of_nobody_is_named_and_changes_nothing(node, gate, logged, blob, said):
    with bus.Dealer(node.address, b"outbox") as dealer:
        until(lambda: dealer.send(messages.pack("beacon", {}, blob)))
        until(lambda: event(logged, said))
    assert gate.deliver() is False
    assert kinds(node) == [RecordKind.EPOCH, RecordKind.OBSERVATION]


def test_a_replayed_beacon_is_refused(node, logged):
    with outbox(node) as beacons:
        beacon = messages.pack("beacon", {}, beacon_of(node))
        beacons.send(beacon)
        until(lambda: RecordKind.HEARTBEAT in kinds(node))
        beacons.send(beacon)
        until(lambda: event(logged, "beacon_refused"))
    assert kinds(node).count(RecordKind.HEARTBEAT) == 1


def claims(node):
    return [cbor2.loads(record.data) for record in node.checked() if record.kind == RecordKind.CAMERA]


def test_what_a_camera_says_of_itself_is_sealed_once_for_each_change(node, gate):
    gate.hello()
    for state, reason in (("live", ""), ("live", ""), ("lost", "no pictures: " + "\u00fc" * 300), ("live", "")):
        gate.say("status", state=state, reason=reason)
        until(lambda: claims(node) and claims(node)[-1]["state"] == state)
    assert [claim["state"] for claim in claims(node)] == ["live", "lost", "live"]
    assert claims(node)[1]["camera"] == "gate" and claims(node)[1]["reason"].startswith("no pictures: \u00fc")
    assert abs(claims(node)[1]["time"] - time.time()) < 600
    assert node.status()["cameras"]["gate"]["state"] == "live"


def test_a_new_epoch_is_told_again_how_the_camera_is(node, gate):
    gate.hello()
    gate.say("status", state="lost", reason="dark")
    until(lambda: len(claims(node)) == 1)
    node.restart_eval()
    until(lambda: len(claims(node)) == 2)
    assert len({record.header.epoch for record in node.checked()}) == 2


def test_an_exercise_reaches_every_recipient_and_says_its_numbers():
    with BridgeNode(alert_key_bytes=(32, 32), rules=RULES) as node:
        node.bridge()
        kind, answer = node.ask("exercise", rule=1)
        assert kind == "ok" and [one["seq"] for one in answer["records"]] == [2, 2]
        assert [one["recipient"] for one in answer["records"]] == [one.rcpt for one in node.agreement.recipients]
        assert node.ask("exercise", label="label 1")[0] == "ok"
        assert node.ask("exercise", rule=0, agreement=0)[0] == "ok"
        for recipient in range(2):
            drills = node.checked(recipient)[1:]
            assert [drill.status for drill in drills] == [MessageStatus.EXERCISE] * 3
            assert [[alert.rule for alert in drill.alerts if alert.message] for drill in drills] == [[1], [0], [0]]


@pytest.mark.parametrize("body, reason", [
    (dict(rule=2), "no agreement has this rule"), (dict(label="nothing"), "no agreement has this rule"),
    (dict(rule=0, agreement=1), "no agreement has this rule"), (dict(), "of fields none"),
    (dict(rule=-1), "out of its range"),
    (dict(rule=0, label="label 1"), "of fields label, rule"),
])
def test_an_exercise_of_no_rule_is_refused(body, reason):
    with BridgeNode(rules=RULES) as node:
        node.bridge()
        kind, answer = node.ask("exercise", **body)
        assert kind == "refused" and reason in answer["reason"]
        assert kinds(node) == [RecordKind.EPOCH]


def test_what_the_spool_had_to_let_go_is_announced(logged):
    with BridgeNode(max_rows=3) as node, Saying(node.bridge()) as gate:
        for _ in range(6):
            gate.deliver()
        until(lambda: event(logged, "records_evicted"))
        until(lambda: any(record.kind == RecordKind.EVICTED for record in node.stored()))
        said = [cbor2.loads(record.data) for record in node.stored() if record.kind == RecordKind.EVICTED]
        rcpt, epoch = node.agreement.recipients[0].rcpt, node.status()["epoch"]
        assert said[0]["rcpt"] == rcpt and said[0]["evicted"][0][:2] == [epoch, 1]
        until(lambda: len(event(logged, "records_evicted")) > 2)
        said = [cbor2.loads(record.data) for record in node.stored() if record.kind == RecordKind.EVICTED]
        assert [one["evicted"][0][1] for one in said] == sorted({one["evicted"][0][1] for one in said})  # each once


class Clock:
    """Of the module that is given it."""

    def __init__(self):
        self.now_s = 1000.0

    def monotonic(self):
        return self.now_s

    def time(self):
        return 1.7e9


class Announced:
    """A spool that had to let go, a ledger that keeps, and an enclave that seals: what was announced, and when."""

    failing = False

    def __init__(self, clock, agreement, ranges):
        self.clock, self.papers = clock, link.Papers(b"", (link.Paper(None, b"", agreement),))
        self.indices, self.client, self.said, self.ranges = [0], self, [], ranges

    def evict(self):
        rcpt = self.papers.agreements[0].agreement.recipients[0].rcpt
        return Evicted({rcpt: self.ranges}, 1) if self.ranges else None

    def announced(self, evicted):
        pass

    def claim(self, index, kind, data):
        self.said.append((self.clock.now_s, data))
        return Emitted(0, (), 0)

    def keep(self, emitted):
        pass


def announcing(monkeypatch, ranges):
    clock = Clock()
    monkeypatch.setattr(statements, "time", clock)
    monkeypatch.setattr(statements, "EVICT_S", 5.0)
    with BridgeNode() as node:
        announced = Announced(clock, node.agreement, ranges)
    return announced, statements.Statements(announced, announced, bytes(32))


def test_announcements_do_not_drive_out_what_they_announce(monkeypatch):
    """Each is a record, and may evict another: they become rare, and no record is named twice as often."""
    announced, made = announcing(monkeypatch, [(b"e" * 16, 1, 1)])
    begin = announced.clock.now_s
    while announced.clock.now_s < begin + 86400:
        announced.clock.now_s += 1
        made.evict(announced)
    assert 5 <= len(announced.said) <= 40
    announced.ranges = None
    announced.clock.now_s += 10
    made.evict(announced)
    announced.ranges, count = [(b"e" * 16, 2, 2)], len(announced.said)
    announced.clock.now_s += 7200
    made.evict(announced)
    announced.clock.now_s += 6
    made.evict(announced)
    assert len(announced.said) == count + 2


def test_an_announcement_is_one_claim_however_much_went(monkeypatch):
    most = (1 << 64) - 1
    announced, made = announcing(monkeypatch, [(bytes([n]) * 16, most - 1, most) for n in range(100)])
    made.evict(announced)
    ((_, data),) = announced.said
    told = cbor2.loads(data)
    assert len(data) <= wire.EDGED_CLAIM_MAX
    assert len(told["evicted"]) >= 6 and 2 * len(told["evicted"]) + told["more"] == 200


# Messages of no form.

GARBAGE = {
    "nothing": [b""], "one frame": [b"clip"], "four frames": [b"clip", b"\xa0", b"", b""],
    "no map": [b"clip", cbor2.dumps([1]), b""], "no CBOR": [b"clip", b"\xff\xff", b""],
    "a map that is cut off": [b"clip", b"\xbf", b""], "an unknown type": [b"sing", b"\xa0"],
    "a type that is no text": [b"\xff\xfe", b"\xa0"], "too large": [b"clip", cbor2.dumps({"x": bytes(50000)}), b""],
    "deep": [b"clip", b"\x81" * 900 + b"\x00", b""],
    "a long form": [b"hello", b"\xb8\x00"],
    "fields missing": messages.pack("clip", {"session": 0, "number": 1}, b"x"),
    "a field too many": messages.pack("clip", {"session": 0, "number": 1, "captured_ns": 0, "more": 1}, b"x"),
    "no blob": messages.pack("clip", {"session": 0, "number": 1, "captured_ns": 0}),
    "a blob too many": messages.pack("status", {"state": "live", "reason": ""}, b"x"),
    "a negative number": messages.pack("clip", {"session": 0, "number": -1, "captured_ns": 0}, b"x"),
    "a number too large": messages.pack("clip", {"session": 1 << 32, "number": 1, "captured_ns": 0}, b"x"),
    "a truth for a number": messages.pack("clip", {"session": False, "number": 1, "captured_ns": 0}, b"x"),
    "a short nonce": messages.pack("hello", {"camera": messages.camera_id("gate"), "nonce": b"", "agreement": b""}),
    "an unknown state": messages.pack("status", {"state": "asleep", "reason": ""}),
    "a state that is a list": messages.pack("status", {"state": [], "reason": ""}),
    "a beacon": messages.pack("beacon", {}, bytes(80)),
}


@pytest.mark.parametrize("peer", [b"gate", b"outbox", b"edgectl", b"nobody"])
def test_garbage_is_named_dropped_and_harms_nobody(node, gate, logged, peer):
    gate.dealer.close()
    sent = [frames for what, frames in GARBAGE.items() if (what, peer) != ("a beacon", b"outbox")]
    with bus.Dealer(node.address, peer) as dealer:
        for frames in sent:
            until(lambda: dealer.send(frames))
        until(lambda: len(event(logged, "message_malformed")) == len(sent))
    with Saying(node) as again:
        assert again.deliver() is False


# The enclave dies.

def test_an_enclave_that_is_not_there_yet_is_waited_for(logged):
    with BridgeNode() as node:
        node.enclave.stop()
        node.bridge(wait=False)
        until(lambda: event(logged, "enclave_away"))
        assert node.status()["enclave"] == "away" and node.ask("exercise", rule=0)[1] == {"reason": messages.AWAY}
        with Saying(node) as gate:
            gate.say("hello", camera=messages.camera_id("gate"), nonce=bytes(32), agreement=b"")
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


# The bridge dies.

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


# The spool fails.

def failing(monkeypatch, name="put"):
    honest, broken = getattr(Spool, name), [True]

    def method(self, *arguments):
        if broken[0]:
            raise SpoolError("spool.db: disk full: make room")
        return honest(self, *arguments)

    monkeypatch.setattr(Spool, name, method)
    return broken


def test_a_full_disk_means_no_done_and_no_confirmation_until_there_is_room(node, gate, monkeypatch, logged):
    gate.hello()
    confirmed, honest = [], EvalClient.confirm
    monkeypatch.setattr(EvalClient, "confirm", lambda self, n: confirmed.append(n) or honest(self, n))
    broken = failing(monkeypatch)
    clips = [gate.sealed() for _ in range(2)]
    for clip in clips:
        gate.offer(*clip)
    assert gate.hear("done", "refused", patience_s=QUIET_S) is None
    gate.offer(*clips[0])  # asked for again: it is over, and not answered
    assert gate.hear("done", "refused", patience_s=QUIET_S) is None
    assert confirmed == [] and node.status()["spool"] == "failing" and node.clips() == []
    broken[0] = False
    assert [gate.hear("done")[1]["number"] for _ in clips] == [1, 2]
    assert [claimed for _, claimed, _ in node.clips()] == [1, 2] and node.status()["spool"] == "ok"
    assert len(event(logged, "spool_failing")) == 1 and len(event(logged, "spool_back")) == 1


def test_a_disk_that_stays_full_fills_the_enclave_and_clips_have_to_wait(monkeypatch):
    with BridgeNode() as node, Saying(node.bridge()) as gate:
        gate.hello()
        broken = failing(monkeypatch)
        sent, refused = [], None
        while refused is None:
            assert len(sent) <= wire.EVAL_KEPT_MAX, "it never refuses"
            sent.append(gate.sealed())
            gate.offer(*sent[-1])
            until(lambda: node.status()["waiting"] == 0)
            refused = gate.hear("done", "refused", patience_s=0.02)
        assert refused[0] == "refused" and refused[1]["retry"] and refused[1]["reason"].startswith("full")
        assert len(sent) == wire.EVAL_KEPT_MAX + 1
        broken[0] = False
        for _ in sent[:-1]:
            assert gate.hear("done")
        gate.offer(*sent[-1])
        assert gate.hear("done")
        assert [claimed for _, claimed, _ in node.clips()] == list(range(1, len(sent) + 1))


def test_records_that_a_full_disk_kept_in_the_enclave_outlive_the_bridge(node, gate, monkeypatch):
    gate.hello()
    with monkeypatch.context() as patched:
        failing(patched)
        gate.offer(*gate.sealed())
        until(lambda: node.status()["clips"] == 1)
        node.stop()
    assert node.clips() == []
    node.bridge()
    assert [claimed for _, claimed, _ in node.clips()] == [1]


def test_a_full_enclave_takes_a_further_agreement_once_its_records_are_stored(node, gate, monkeypatch):
    gate.hello()
    with monkeypatch.context() as patched:
        failing(patched)
        while gate.hear("refused", patience_s=0.01) is None:
            gate.offer(*gate.sealed())
            until(lambda: node.status()["waiting"] == 0)
        node.stop()
    other = replace(node.agreement, number=2, recipients=tuple(replace_rcpt(one) for one in node.agreement.recipients))
    node.papers.append((other, sign(other.encode(), node.mo_key, node.qdo_key)))
    node.bridge()
    assert len(node.clips()) == wire.EVAL_KEPT_MAX and node.status()["enclave"] == "up"


def test_a_clip_that_waits_for_the_spool_is_not_done_in_a_later_session(node, gate, monkeypatch):
    gate.hello()
    broken = failing(monkeypatch)
    gate.offer(*gate.sealed())
    until(lambda: node.status()["clips"] == 1)
    gate.hello()  # as a process that began anew, and counts from 1
    broken[0] = False
    until(lambda: node.status()["spool"] == "ok")
    assert gate.hear("done", patience_s=QUIET_S) is None and len(node.clips()) == 1
    gate.number = 0
    gate.offer(*gate.sealed())
    assert gate.hear("done") == ("done", {"number": 1, "failed": False})


def test_clips_that_died_with_the_enclave_hold_nobody_up(node, gate, monkeypatch):
    for _ in range(4):
        gate.deliver()
    broken = failing(monkeypatch)
    gate.offer(*gate.sealed())
    until(lambda: node.status()["clips"] == 5)
    node.restart_eval()
    broken[0] = False
    assert gate.hear("reopen")
    gate.session = None
    assert gate.deliver() is False
    assert [claimed for _, claimed, _ in node.clips()] == [1, 2, 3, 4, 6]


def test_a_state_that_nobody_stored_is_asked_for_again(node, gate, monkeypatch):
    honest = EvalClient.confirm

    def confirm(self, emission):
        honest(self, emission)
        raise Killed()

    gate.hello()
    with monkeypatch.context() as patched:
        patched.setattr(EvalClient, "confirm", confirm)
        gate.offer(*gate.sealed())
        until(lambda: node.is_dead)
    node.join()
    epoch = node.bridge().status()["epoch"]
    node.restart_eval()
    until(lambda: node.status()["epoch"] not in (None, epoch))
    last = [record for record in node.checked() if record.kind == RecordKind.EPOCH][-1]
    assert (last.previous, last.previous_seq) == (epoch, 2)


def test_a_state_that_cannot_be_stored_is_stored_later(node, gate, monkeypatch):
    gate.hello()
    broken = failing(monkeypatch, "set_state")
    assert gate.deliver() is False  # its records are stored
    assert node.status()["spool"] == "failing"
    broken[0] = False
    until(lambda: node.status()["spool"] == "ok")
    epoch = node.status()["epoch"]
    node.restart_eval()
    until(lambda: node.status()["epoch"] not in (None, epoch))
    last = [record for record in node.checked() if record.kind == RecordKind.EPOCH][-1]
    assert (last.previous, last.previous_seq) == (epoch, 2)


def test_a_full_disk_at_the_start_of_an_epoch_delays_it(monkeypatch, logged):
    with BridgeNode() as node:
        broken = failing(monkeypatch)
        node.bridge(wait=False)
        until(lambda: event(logged, "spool_failing"))
        assert node.status()["enclave"] == "away" and node.stored() == []
        broken[0] = False
        with Saying(node) as gate:
            assert gate.deliver() is False
        assert kinds(node) == [RecordKind.EPOCH, RecordKind.OBSERVATION]


def test_an_exercise_that_cannot_be_stored_says_so(monkeypatch):
    with BridgeNode(rules=RULES) as node:
        node.bridge()
        broken = failing(monkeypatch)
        kind, answer = node.ask("exercise", rule=0)
        assert kind == "refused" and "the spool fails" in answer["reason"]
        broken[0] = False
        until(lambda: len(node.stored()) == 2)


# What no waiting mends.

def end_of(node):
    with pytest.raises(Exception) as caught:
        daemon.run(node.config(), threading.Event())
    assert "\n" not in str(caught.value)
    return caught.value


def test_a_missing_package_is_one_line(monkeypatch):
    with BridgeNode() as node:
        loaded = node.config()
        os.unlink(os.path.join(node.folder, "model.pkg"))
        with pytest.raises(MissingInput, match="model.pkg: No such file"):
            daemon.run(loaded, threading.Event())


@pytest.mark.parametrize("spoil", [lambda data: b"nonsense", lambda data: data[:-1],
                                   lambda data: data[:-1] + bytes([data[-1] ^ 1])], ids=["other", "short", "altered"])
def test_a_wrong_package_is_one_line(spoil):
    with BridgeNode() as node:
        node._model_package = spoil(node._model_package)
        error = end_of(node)
        assert isinstance(error, PackageError) and error.exit_code == 65


def test_an_agreement_with_a_wrong_signature_is_one_line():
    with BridgeNode() as node:
        node.papers[0] = (node.agreement, sign(node.agreement.encode(), node.mo_key, node.mo_key))
        error = end_of(node)
        assert isinstance(error, VerificationFailed) and "0.agreement" in str(error) and "signature" in str(error)


def test_an_agreement_whose_keys_nobody_put_is_one_line(monkeypatch):
    monkeypatch.setattr(daemon, "KEYS_PATIENCE_S", 0.2)
    with BridgeNode() as node:
        other = replace(node.agreement, data_key=b"another data key")
        node.papers[0] = (other, sign(other.encode(), node.mo_key, node.qdo_key))
        error = end_of(node)
        assert isinstance(error, KeyRefused) and b"another data key".hex() in str(error) and error.exit_code == 77


def test_a_placement_that_the_models_owner_does_not_permit_is_one_line():
    with BridgeNode(placement="inputs") as node:
        node._model_package = node.package(MODEL, 1 << wire.Placement.MASKED)
        error = end_of(node)
        assert isinstance(error, ConfigError) and "enclave.placement" in str(error)


def test_slots_are_found_whatever_their_order():
    with BridgeNode(alert_key_bytes=(32, 16, 32)) as node:
        node.agreement = replace(node.agreement, recipients=tuple(reversed(node.agreement.recipients)))
        node.alert_keys = tuple(reversed(node.alert_keys))
        node.papers[0] = (node.agreement, sign(node.agreement.encode(), node.mo_key, node.qdo_key))
        with Saying(node.bridge()) as gate:
            gate.deliver()
            assert [len(node.clips(recipient)) for recipient in range(3)] == [1] * 3


# Beside systemd, the real camera, and as a process.

def test_ready_is_said_once_model_enclave_and_socket_are_up(monkeypatch):
    with BridgeNode() as node, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(os.path.join(node.folder, "notify"))
        listener.settimeout(PATIENCE_S)
        monkeypatch.setenv("NOTIFY_SOCKET", os.path.join(node.folder, "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "300000")
        monkeypatch.delenv("WATCHDOG_PID", raising=False)
        node.enclave.stop()
        node.bridge(wait=False)
        told = [listener.recv(4096)]
        assert not any(b"READY" in text for text in told)
        node.enclave.start()
        node.put_keys()
        while not any(b"READY=1" in text for text in told):
            told.append(listener.recv(4096))
        assert node.status()["enclave"] == "up"
        while b"WATCHDOG=1" not in told[-1]:
            told.append(listener.recv(4096))


def test_an_evaluation_that_hangs_does_not_feed_the_watchdog(node, gate, monkeypatch):
    fed = []
    gate.hello()
    monkeypatch.setattr(daemon.Watchdog, "progress", lambda self: fed.append(1))
    with held(monkeypatch) as taken:
        gate.offer(*gate.sealed())
        until(lambda: taken)
        before = len(fed)
        time.sleep(QUIET_S)
        assert len(fed) == before
    until(lambda: len(fed) > before)


def test_the_camera_process_and_the_bridge_understand_each_other_through_restarts_of_both_sides(monkeypatch):
    monkeypatch.setattr(camera_link, "AGAIN_S", 0.1)
    monkeypatch.setattr(camera_link, "RETRY_S", 0.05)
    with BridgeNode() as node:
        identity = messages.camera_id("gate")
        with bus.Dealer(node.bridge().address, b"gate") as dealer:
            talk = camera_link.BridgeLink(dealer, identity, camera_key(node.data_key, identity))
            clips = 0
            for disturb in (lambda: None, node.restart_eval, lambda: (node.stop(), node.bridge()), lambda: None):
                for _ in range(2):
                    clips += 1
                    coordinates = random_coordinates(np.random.default_rng(clips), MODEL.shape, 1)
                    talk.offer(Clip(coordinates, (1,), clips, identity))
                disturb()
                until(lambda: talk.serve(0.01) or not talk.busy)
        assert talk.counts.done == clips and talk.counts.refused == talk.counts.skipped == 0
        assert {claimed for _, claimed, _ in node.clips()} == set(range(1, clips + 1))


def test_the_process_is_killed_and_started_again_and_nothing_is_lost():
    with BridgeNode() as node:
        node.config()
        command = [sys.executable, "-m", "edged.cli", "bridge", "--config", os.path.join(node.folder, "edged.toml")]
        node._thread = threading.current_thread()  # so that the node asks it, and not a thread
        try:
            with Saying(node) as gate:
                for _ in range(3):
                    process = subprocess.Popen(command)
                    try:
                        gate.deliver(), gate.deliver()
                        gate.offer(*gate.sealed())
                    finally:
                        process.kill()
                        process.wait()
                process = subprocess.Popen(command)
                gate.session = None
                gate.deliver()
                assert node.status()["enclave"] == "up"
                process.send_signal(signal.SIGTERM)
                assert process.wait(PATIENCE_S) == 0
        finally:
            node._thread = None
            process.kill()
            process.wait()
        judged = [claimed for _, claimed, _ in node.clips()]
        assert {1, 2, 4, 5, 7, 8, 10} <= set(judged) and len(set(judged)) == len(judged)
