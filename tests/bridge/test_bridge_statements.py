"""What the bridge has sealed beside clips: heartbeats, claims, exercises, announcements; and messages of no form."""

import time

import cbor2
import pytest

from bridge_node import BridgeNode, Saying, until
from edged import bus
from edged.alerts.spool import Evicted
from edged.enclave import wire
from edged.enclave.client import Emitted, EvalClient
from edged.enclave.wire import MessageStatus, RecordKind, Status
from edged.errors import EnclaveError
from edged.offload import daemon, link, messages, statements
from moves import RULES, beacon_of, event, kinds, outbox


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


def test_beacons_that_came_while_a_clip_was_evaluated_are_all_answered_up_to_one_for_each_agreement(monkeypatch):
    """Under which agreement one is only the enclave can tell, and it may hold more of them than the files do."""
    busy, came = [True], []
    work, take = daemon.Daemon._work, daemon.Daemon._take_beacon
    monkeypatch.setattr(daemon.Daemon, "_work", lambda self: None if busy else work(self))
    monkeypatch.setattr(daemon.Daemon, "_take_beacon", lambda self, beacon: (take(self, beacon), came.append(beacon)))
    with BridgeNode() as node:
        node.bridge()
        with outbox(node) as beacons:
            for second in range(1, 7):
                beacons.send(messages.pack("beacon", {}, beacon_of(node, second * 10 ** 9, bytes([second]) * 16)))
            until(lambda: len(came) == 6)
            busy.clear()
            until(lambda: kinds(node).count(RecordKind.HEARTBEAT) == wire.EVAL_AGREEMENTS_MAX)
        answered = [record.nonce[0] for record in node.checked() if record.kind == RecordKind.HEARTBEAT]
        assert answered == [3, 4, 5, 6]


def claims(node):
    return [cbor2.loads(record.data) for record in node.checked() if record.kind == RecordKind.CAMERA]


def test_what_a_camera_says_of_itself_is_sealed_once_for_each_change(node, gate):
    gate.hello()
    for state, reason in (("live", ""), ("live", ""), ("lost", "no pictures: " + "\u00fc" * 300), ("live", "")):
        gate.say("status", state=state, reason=reason, skipped=0)
        until(lambda: claims(node) and claims(node)[-1]["state"] == state)
    assert [claim["state"] for claim in claims(node)] == ["live", "lost", "live"]
    assert claims(node)[1]["camera"] == "gate" and claims(node)[1]["reason"].startswith("no pictures: \u00fc")
    assert abs(claims(node)[1]["time"] - time.time()) < 600
    assert node.status()["cameras"]["gate"]["state"] == "live"


def test_the_city_is_told_how_many_clips_a_camera_skipped(node, gate):
    gate.hello()
    for skipped in (0, 12, 12, (1 << 64) - 1):
        gate.say("status", state="live", reason="x" * 300, skipped=skipped)
        until(lambda: claims(node) and claims(node)[-1]["skipped"] == skipped)
    assert [claim["skipped"] for claim in claims(node)] == [0, 12, (1 << 64) - 1]


def test_the_city_is_told_of_a_camera_whose_clips_do_not_open_and_of_its_return(node, gate):
    """A mistaken key: the camera is live, and nothing of it is judged."""
    gate.hello()
    gate.say("status", state="live", reason="", skipped=5)
    for _ in range(2):  # the first time a new session is asked for
        gate.hello()
        number, sealed = gate.sealed()
        gate.offer(number, sealed[:-1] + bytes([sealed[-1] ^ 1]))
        assert gate.hear("refused")
    until(lambda: claims(node) and claims(node)[-1]["state"] == "refused")
    assert "seal, number or form" in claims(node)[-1]["reason"]
    gate.deliver()
    until(lambda: claims(node)[-1]["state"] == "live")
    assert {claim["skipped"] for claim in claims(node)} == {5}


@pytest.mark.parametrize("reason", ["x" * 1000, "x" + "\u00fc" * 500, "\U0001f600" * 200])
def test_a_reason_of_any_length_is_cut_at_a_character_so_that_its_claim_is_taken(reason):
    name = "n" * 31
    with BridgeNode(cameras=(name,)) as node, Saying(node.bridge(), name) as camera:
        camera.hello()
        honest = daemon.Daemon._work

        def refused(self):
            self._desk.cameras[name.encode()].refusal = reason
            return honest(self)

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(daemon.Daemon, "_work", refused)
            camera.say("status", state="live", reason="", skipped=(1 << 64) - 1)
            until(lambda: claims(node) and claims(node)[-1]["state"] == "refused")
        told = [record.data for record in node.checked() if record.kind == RecordKind.CAMERA][-1]
        cut = cbor2.loads(told)["reason"]
        assert wire.EDGED_CLAIM_MAX - 4 < len(told) <= wire.EDGED_CLAIM_MAX and reason.startswith(cut)


def test_a_claim_that_the_enclave_refuses_ends_no_bridge_and_is_sealed_once_it_is_not(node, gate, monkeypatch, caplog):
    refused, honest = [], EvalClient.claim

    def claim(self, *given):
        refused.append(given)
        raise EnclaveError("CLAIM refused: an argument is out of range", Status.ARGUMENT)

    monkeypatch.setattr(EvalClient, "claim", claim)
    gate.hello()
    gate.say("status", state="lost", reason="dark", skipped=0)
    until(lambda: len(refused) > 3)
    assert gate.deliver() is False and caplog.text.count("is not sealed: CLAIM refused") == 1
    monkeypatch.setattr(EvalClient, "claim", honest)
    until(lambda: claims(node) and claims(node)[-1]["state"] == "lost")


def test_a_new_epoch_is_told_again_how_the_camera_is(node, gate):
    gate.hello()
    gate.say("status", state="lost", reason="dark", skipped=0)
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
        self.clock, self.in_force = clock, [link.InForce(0, agreement, 0)]
        self.client, self.said, self.ranges = self, [], ranges
        self.awaited, self.others, self.forgotten = (), {}, []

    def evict(self):
        rcpt = self.in_force[0].agreement.recipients[0].rcpt
        return Evicted({rcpt: self.ranges, **self.others}, 1) if self.ranges else None

    def announced(self, evicted):
        self.forgotten += evicted.records

    def is_awaited(self, rcpt):
        return rcpt in self.awaited

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


def test_evictions_of_whom_nothing_can_be_sealed_for_yet_stay_and_hold_up_no_others(monkeypatch):
    announced, made = announcing(monkeypatch, [(bytes(16), 1, 2)])
    rcpt, awaited, nobodys = announced.in_force[0].agreement.recipients[0].rcpt, b"a" * 16, b"n" * 16
    announced.others = {awaited: [(bytes(16), 1, 2)], nobodys: [(bytes(16), 1, 2)]}
    announced.awaited = (awaited,)
    made.evict(announced)
    assert [cbor2.loads(data)["rcpt"] for _, data in announced.said] == [rcpt]
    assert announced.forgotten == [rcpt, nobodys]
    announced.ranges, announced.others, announced.awaited = [(bytes(16), 3, 3)], {}, (rcpt,)
    announced.clock.now_s += 60
    made.evict(announced)
    assert announced.forgotten == [rcpt, nobodys, rcpt], "he reads under another agreement"


class Answering:
    """An enclave that answers beacons as it is told."""

    def __init__(self):
        self.client, self.refusal = self, None

    def beacon(self, raw, config):
        if self.refusal is not None:
            raise EnclaveError(self.refusal, 1)
        return Emitted(0, (), 0)

    def keep(self, emitted):
        pass


def test_a_refused_beacon_is_logged_where_the_reason_changed(logged):
    enclave, beacon = Answering(), messages.Beacon(b"r" * 16, b"")
    made = statements.Statements(enclave, None, bytes(32))
    seen = []
    # His beacon under another agreement is answered in between; and in the end all are, for long.
    for reason in ["late", "late", None, "late", None, None, "other", "late"] + [None] * 5 + ["late"]:
        enclave.refusal = reason
        made.answer(enclave, beacon)
        seen.append(len(event(logged, "beacon_refused")))
    assert seen == [1, 1, 1, 1, 1, 1, 2, 3, 3, 3, 3, 3, 3, 4]


def test_beacons_of_ever_other_recipients_fill_no_memory(logged):
    enclave = Answering()
    made, enclave.refusal = statements.Statements(enclave, None, bytes(32)), "unknown"
    for number in range(100):
        made.answer(enclave, messages.Beacon(bytes([number]) * 16, b""))
    assert len(made._refused) == 16


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
    "a blob too many": messages.pack("status", {"state": "live", "reason": "", "skipped": 0}, b"x"),
    "a negative number": messages.pack("clip", {"session": 0, "number": -1, "captured_ns": 0}, b"x"),
    "a number too large": messages.pack("clip", {"session": 1 << 32, "number": 1, "captured_ns": 0}, b"x"),
    "a truth for a number": messages.pack("clip", {"session": False, "number": 1, "captured_ns": 0}, b"x"),
    "a short nonce": messages.pack("hello", {"camera": messages.camera_id("gate"), "nonce": b"",
                                             "agreement": bytes(32)}),
    "no agreement named": messages.pack("hello", {"camera": messages.camera_id("gate"), "nonce": bytes(32),
                                                  "agreement": b""}),
    "an unknown state": messages.pack("status", {"state": "asleep", "reason": "", "skipped": 0}),
    "a state that is a list": messages.pack("status", {"state": [], "reason": "", "skipped": 0}),
    "a negative count": messages.pack("status", {"state": "live", "reason": "", "skipped": -1}),
    "no count": messages.pack("status", {"state": "live", "reason": ""}),
    "keys by name": messages.pack("keys", {"agreement": 0}),
    "a beacon": messages.pack("beacon", {}, bytes(80)),
}


@pytest.mark.parametrize("peer", [b"gate", b"outbox", b"edgectl:1", b"nobody"])
def test_garbage_is_named_dropped_and_harms_nobody(node, gate, logged, peer):
    gate.dealer.close()
    sent = [frames for what, frames in GARBAGE.items() if (what, peer) != ("a beacon", b"outbox")]
    with bus.Dealer(node.address, peer) as dealer:
        for frames in sent:
            until(lambda: dealer.send(frames))
        until(lambda: len(event(logged, "message_malformed")) == len(sent))
    with Saying(node) as again:
        assert again.deliver() is False
