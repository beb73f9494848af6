"""A node that judges nothing says so, to the city and to its operator, also where nobody walks before the camera.

Every reason for which the enclave keeps clips back: root withholds the beacons, an owner's floor told a time too far
ahead, the agreement ended, it does not cover the package. Beacons are answered all the while.
"""

import time
from contextlib import closing
from dataclasses import replace
from types import SimpleNamespace

import cbor2
import pytest

from bridge_node import BridgeNode, Saying, until
from edged.alerts.reports import Received
from edged.alerts.screen import Screen
from edged.enclave import keystore, wire
from edged.enclave.keystore import KeyStore
from edged.enclave.wire import RecordKind
from edged.errors import ConfigError
from edged.offload import daemon, desk, messages
from edged.offload.cameras import CALLS_MAX, Camera
from edged.offload.messages import CameraStatus
from edged.trust.agreement import Rule, sign
from granting import claims_of
from moves import QUIET_S, beacon_of, event, leave_unfinished, outbox, replace_rcpt
from test_bridge_locked import GrantedBridgeNode

END_S = 2 * 10 ** 9
AGREEMENT = "agreement: it does not cover this now"


@pytest.fixture(autouse=True)
def sooner(monkeypatch):
    assert desk.PROBE_S + desk.PATIENCE_S + desk.PROBE_S <= 20, "on the screen within a minute, the way there included"
    monkeypatch.setattr(desk, "PROBE_S", 0.05)
    monkeypatch.setattr(desk, "PATIENCE_S", 0.2)


def claims(node):
    return [cbor2.loads(record.data) for record in node.checked() if record.kind == RecordKind.CAMERA]


def said(node):
    return [claim["state"] for claim in claims(node)]


def waits(node, reason):
    """Until the city is told; nobody walked before the camera."""
    until(lambda: said(node)[-1:] == ["waits"], "the city is not told")
    assert claims(node)[-1]["reason"].startswith(reason)
    assert node.clips() == []
    shown = node.status()["cameras"]["gate"]
    assert (shown["state"], shown["reason"]) == ("waits", claims(node)[-1]["reason"])


def live(gate):
    gate.hello()
    gate.say("status", state="live", reason="", skipped=7)


def tell(node, time_s):
    with outbox(node) as beacons:
        beacons.send(messages.pack("beacon", {}, beacon_of(node, time_s * 10 ** 9)))
        until(lambda: node.stored()[-1].kind == RecordKind.HEARTBEAT)


def test_a_camera_whose_clips_would_be_taken_is_live_and_nothing_else_is_said(node, gate, logged):
    live(gate)
    until(lambda: said(node) == ["live"])
    time.sleep(2 * QUIET_S)
    assert gate.deliver() is False
    assert said(node) == ["live"] and not event(logged, "clips_postponed")
    assert node.status()["cameras"]["gate"]["state"] == "live" and node.status()["clips"] == 1


def test_a_camera_whose_process_is_gone_is_lost_to_the_city_until_it_speaks_again(logged, monkeypatch):
    assert (CALLS_MAX + 1) * desk.CALL_S <= 50
    monkeypatch.setattr(desk, "CALL_S", 0.1)
    with BridgeNode() as node, Saying(node.bridge()) as gate:
        live(gate)
        until(lambda: said(node) == ["live"])
        gate.heard.clear()
        for _ in range(4 * CALLS_MAX):  # it answers
            assert gate.hear("never", patience_s=0.1) is None
        assert said(node) == ["live"] and len(gate.heard) > CALLS_MAX
        until(lambda: said(node) == ["live", "lost"])
        assert claims(node)[-1]["reason"] == "its process does not answer" and claims(node)[-1]["skipped"] == 7
        assert node.status()["cameras"]["gate"]["state"] == "lost" and len(event(logged, "camera_silent")) == 1
        gate.say("here")
        until(lambda: said(node)[2:] == ["live"])


def test_a_camera_that_never_came_is_lost_to_the_city(monkeypatch):
    monkeypatch.setattr(desk, "CALL_S", 0.1)
    with BridgeNode() as node:
        node.bridge()
        until(lambda: said(node) == ["lost"])


def test_where_the_beacons_are_withheld_the_city_is_told_before_anybody_falls_and_of_the_end(logged):
    with BridgeNode(beacon_period_s=1, beacon_limit_s=1) as node, Saying(node.bridge()) as gate:
        live(gate)
        waits(node, "locked: no beacon")
        assert claims(node)[-1]["skipped"] == 7 and len(event(logged, "clips_postponed")) == 1
        tell(node, 10)
        until(lambda: said(node)[-1] == "live")
        assert claims(node)[-1]["reason"] == "" and "locked" not in str(node.status()["cameras"])


def test_an_agreement_that_ended_is_told_while_its_heartbeats_go_on(logged):
    with BridgeNode(until_s=END_S) as node, Saying(node.bridge()) as gate:
        live(gate)
        until(lambda: said(node) == ["live"])
        tell(node, END_S)
        waits(node, AGREEMENT)  # this machine's clock says that it goes on: the enclave does not go by it
        assert not event(logged, "agreement_ended")


@pytest.mark.parametrize("restarts", [("stop",), ("stop", "restart_eval"), ("restart_eval",)])
def test_in_the_placement_whose_weights_are_not_handed_out_any_more_the_bridge_stays_up_after_the_end(logged, restarts):
    """What cannot be loaded then is no error of the configuration: who waits for heartbeats must not see silence."""
    with BridgeNode(until_s=END_S, placement="inputs", placements=1 << wire.Placement.INPUTS) as node, \
            Saying(node.bridge()) as gate:
        live(gate)
        tell(node, END_S)
        waits(node, AGREEMENT)
        for name in restarts:
            getattr(node, name)()
        if node.is_dead:
            node.bridge()
        until(lambda: event(logged, "model_not_loaded"))
        before = len(claims(node))
        for _ in range(3):
            gate.offer(*gate.sealed())  # its session is of before
            gate.say("hello", camera=messages.camera_id("gate"), nonce=bytes(32), agreement=gate.agreement)
            assert "ended at " in gate.hear("wait")[1]["reason"]
            time.sleep(QUIET_S)
        until(lambda: len(claims(node)) > before and claims(node)[-1]["state"] == "waits"
              and "ended at " in claims(node)[-1]["reason"])
        tell(node, END_S + 10)
        assert node.died is None and node.status()["enclave"] == "up"


def test_where_nothing_is_loaded_who_never_permitted_the_placement_is_told_so_and_of_no_end():
    with BridgeNode(until_s=END_S, placement="inputs", placements=1 << wire.Placement.INPUTS) as node:
        other = replace(node.agreement, number=2, placements=1 << wire.Placement.MASKED, until_s=END_S * 2,
                        recipients=tuple(map(replace_rcpt, node.agreement.recipients)))
        node.papers.append((other, sign(other.encode(), node.mo_key, node.qdo_key)))
        node.bridge()
        tell(node, END_S)
        node.stop()
        with Saying(node.bridge()) as gate:
            for digest, words in ((node.agreement.digest, "agreement 1 ended at "),
                                  (other.digest, "agreement: it does not permit this placement")):
                gate.say("hello", camera=messages.camera_id("gate"), nonce=bytes(32), agreement=digest)
                assert gate.hear("wait")[1]["reason"].startswith(words)


def test_a_placement_that_no_agreement_permits_is_an_error_of_the_configuration_as_before():
    with BridgeNode(placement="inputs", placements=1 << wire.Placement.MASKED) as node:
        node.bridge(wait=False)
        until(lambda: node.died is not None)
        node.join()
        assert isinstance(node.died, ConfigError) and "forbids it" in str(node.died)


def test_by_the_nodes_clock_the_end_is_told_with_its_date(logged):
    ended = int(time.time()) - 60
    with BridgeNode(until_s=ended) as node, Saying(node.bridge()) as gate:
        live(gate)
        tell(node, ended + 60)
        waits(node, "agreement 1 ended at 20")
        assert len(event(logged, "agreement_ended")) == 1 and "number=1" in event(logged, "agreement_ended")[0]
        told = node.status()["agreements"][0]
        assert told["ended"] and told["end"].startswith("agreement 1 ended at ") and told["state"] == "in force"


def test_an_agreement_that_ends_soon_is_logged_and_judged_under(logged):
    with BridgeNode(until_s=int(time.time()) + 13 * 86400 + 60) as node, Saying(node.bridge()) as gate:
        assert gate.deliver() is False
        assert len(event(logged, "agreement_ends")) == 1 and "days=13" in event(logged, "agreement_ends")[0]
        told = node.status()["agreements"][0]
        assert not told["ended"] and told["end"].endswith("in 13 days")


def test_an_agreement_that_was_followed_is_not_told_of_while_the_enclave_is_away():
    old, new = (SimpleNamespace(agreement=SimpleNamespace(digest=digest), following=None) for digest in (b"o", b"n"))
    old.following = new
    for followed, judged in (((), old), ((b"o",), new)):
        away = SimpleNamespace(_link=None, _papers=SimpleNamespace(agreements={0: old}), _followed=followed)
        assert daemon.Daemon._judged_under(away, 0) is judged.agreement


def test_an_owners_floor_far_ahead_blinds_no_node_that_looks_alive():
    """The key application never forgets its time: by it the agreement is over."""
    with GrantedBridgeNode(until_s=END_S) as node:
        with closing(keystore.connect(node.enclave.folder)) as key:
            evidence = claims_of(key)
            for holder in node.holders:
                numbers = {due.slot: 1 for due in holder.due(node.agreement)}
                KeyStore(node.enclave.folder).floor(key, holder.floor(
                    numbers, 0, 0, evidence.bootseed, evidence.grant, END_S + 1))
        with Saying(node.bridge()) as gate:
            live(gate)
            tell(node, END_S - 1000)  # what the city says is earlier
            waits(node, AGREEMENT)


def test_a_package_that_the_agreement_does_not_cover_is_told():
    with BridgeNode(rules=(Rule("no such label", 1, 0),)) as node, Saying(node.bridge()) as gate:
        live(gate)
        waits(node, AGREEMENT)


def test_a_placement_that_the_agreement_forbids_by_now_is_told():
    with BridgeNode(placements=1 << wire.Placement.MASKED, placement="enclave") as node, Saying(node.bridge()) as gate:
        live(gate)
        waits(node, "agreement: it does not permit this placement")


def test_a_camera_without_a_session_is_told(node, gate):
    """Its key is of another agreement: nothing of it was ever judged."""
    gate.agreement = bytes(32)
    for _ in range(4):
        gate.say("hello", camera=messages.camera_id("gate"), nonce=bytes(32), agreement=gate.agreement)
        assert gate.hear("wait")
        time.sleep(0.1)
    waits(node, "no agreement of this digest is in force")
    gate.agreement = node.agreement.digest
    assert gate.deliver() is False
    until(lambda: said(node)[-1] == "live")


def test_of_several_cities_that_one_is_told_whose_camera_it_is_by_the_configuration():
    """What its hello names is of no agreement here."""
    with BridgeNode() as node:
        other = replace(node.agreement, number=2, recipients=tuple(map(replace_rcpt, node.agreement.recipients)))
        node.papers.append((other, sign(other.encode(), node.mo_key, node.qdo_key)))
        with Saying(node.bridge(), agreement=bytes(32)) as gate:
            for _ in range(4):
                gate.say("hello", camera=messages.camera_id("gate"), nonce=bytes(32), agreement=gate.agreement)
                assert gate.hear("wait")
                time.sleep(0.1)
            waits(node, "no agreement of this digest is in force")
        assert node.status()["records"] == 3  # an epoch for each, one claim


def test_a_burst_beyond_the_rate_is_told_only_where_it_lasts(monkeypatch):
    with BridgeNode(clips_per_hour=2) as node, Saying(node.bridge()) as gate:
        live(gate)
        gate.offer(*gate.sealed())
        assert "rate" in gate.hear("refused")[1]["reason"]
        time.sleep(2 * QUIET_S)
        assert said(node) == ["live"] and node.status()["cameras"]["gate"]["postponed_for"].startswith("rate")
        assert desk.BURST_S == 60
    monkeypatch.setattr(desk, "BURST_S", 0.3)
    with BridgeNode(clips_per_hour=2) as node, Saying(node.bridge()) as gate:
        live(gate)
        waits(node, "rate")


def test_the_bridges_question_uses_up_no_clip_number_and_leaves_an_unfinished_clip_alone(node, gate, monkeypatch):
    gate.hello()
    clip = leave_unfinished(gate, monkeypatch)
    time.sleep(2 * QUIET_S)  # the bridge asked meanwhile
    assert node.clips() == []
    gate.offer(*clip)
    assert gate.hear("done")[1] == {"number": clip[0], "failed": True}, "given up by its camera's word alone"
    time.sleep(QUIET_S)
    assert gate.deliver() is False
    assert node.clips() == [("gate", 1, RecordKind.FAILED), ("gate", 2, RecordKind.OBSERVATION)]


def test_the_bridges_question_uses_up_no_clip_of_the_hour(logged):
    """One a second: a dozen questions would be too many."""
    with BridgeNode(clips_per_hour=3600) as node, Saying(node.bridge()) as gate:
        live(gate)
        time.sleep(3 * QUIET_S)
        assert not event(logged, "clips_postponed")
        assert gate.deliver() is False


def test_a_new_epoch_is_told_again_that_the_camera_waits():
    with BridgeNode(rules=(Rule("no such label", 1, 0),)) as node, Saying(node.bridge()) as gate:
        live(gate)
        waits(node, AGREEMENT)
        node.restart_eval()
        assert gate.hear("reopen")
        gate.hello()
        until(lambda: said(node).count("waits") == 2)
        assert len({record.header.epoch for record in node.checked() if record.kind == RecordKind.CAMERA}) == 2


def test_on_the_citys_screen_it_is_as_loud_as_a_camera_that_is_lost():
    with BridgeNode(rules=(Rule("no such label", 1, 0),)) as node, Saying(node.bridge()) as gate:
        live(gate)
        waits(node, AGREEMENT)
        gate.say("status", state="lost", reason="no pictures", skipped=7)
        until(lambda: said(node)[-1] == "lost")
        lines = Screen().lines([Received(record, "north", False, (), 0) for record in node.stored()
                                if record.kind == RecordKind.CAMERA], 0)
    assert ["!!! " in line for line in lines] == [state != "live" for state in said_of(lines)]
    assert said_of(lines)[-2:] == ["waits", "lost"] and AGREEMENT in lines[-2]


def said_of(lines):
    return [line.partition('"state": "')[2].partition('"')[0] for line in lines]


# What is said of a camera, by itself.

LIVE, LOST = CameraStatus("live", "", 3), CameraStatus("lost", "dark", 3)


def test_a_wait_is_told_after_its_patience_and_not_forgotten_when_its_reason_changes():
    camera = Camera("gate")
    camera.says(LIVE)
    assert camera.waits("locked", 10, 100.0) and not camera.waits("locked", 10, 105.0)
    assert camera.status(109.9) == LIVE
    assert camera.waits("agreement", 10, 109.0) and camera.status(110.0) == CameraStatus("waits", "agreement", 3)
    camera.taken()
    assert camera.status(110.0) == LIVE


def test_a_camera_that_says_live_again_waits_nevertheless_and_lost_comes_first():
    camera = Camera("gate")
    camera.waits("locked", 0, 1.0)
    camera.says(LIVE)
    assert camera.status(1.0).state == "waits"
    camera.says(LOST)
    assert camera.status(1.0) == LOST
    camera.says(LIVE)
    camera.refusal = "seal"
    assert camera.status(1.0) == CameraStatus("refused", "seal", 3)


def test_of_a_camera_that_never_spoke_and_was_never_refused_nothing_is_said():
    assert Camera("gate").claim(1.0) is None
