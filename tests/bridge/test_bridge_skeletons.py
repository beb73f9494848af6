"""Skeletons on their way through the bridge: records of 48 KiB, by whichever transport, also where two agreements'
first records have no room beside each other, and where the spool or the bridge fails in between."""

from dataclasses import replace

import numpy as np
import pytest

from attacks.networks import random_coordinates
from bridge_node import MODEL, BridgeNode, Killed, Saying
from edged.enclave import wire
from edged.enclave.client import EvalClient
from edged.enclave.wire import RecordKind
from edged.offload import desk, messages
from edged.trust.agreement import Rule, sign
from moves import beacon_of, failing, leave_unfinished, outbox, replace_rcpt

ALWAYS = (Rule(MODEL.labels[0], 1, 0),)
FOUR = (32, 16, 32, 16)
EVERYTHING = wire.EDGED_SEES_LABEL | wire.EDGED_SEES_SCORE | wire.EDGED_SEES_SKELETON
CLIP = random_coordinates(np.random.default_rng(3), MODEL.shape, 2)
XY = CLIP[..., :2].astype("<i2").tobytes()


class DrawnNode(BridgeNode):
    """Four recipients, of whom the last sees the label alone."""

    def __init__(self, **more):
        super().__init__(alert_key_bytes=FOUR, rules=ALWAYS, body=wire.EDGED_BODY_SKELETONS, **more)
        recipients = self.agreement.recipients
        sees = (EVERYTHING, EVERYTHING, EVERYTHING, wire.EDGED_SEES_LABEL)
        self.agreement = replace(self.agreement, recipients=tuple(
            one._replace(rules=(bits,)) for one, bits in zip(recipients, sees)))
        self.papers = [(self.agreement, self.signed(self.agreement))]

    def signed(self, agreement):
        return sign(agreement.encode(), self.mo_key, self.qdo_key)

    def drawn(self, recipient):
        """Of all clips' records."""
        return [record.skeletons and record.skeletons.xy for record in self.checked(recipient)
                if hasattr(record, "skeletons")]


@pytest.mark.parametrize("transport", ["window", "message"])
@pytest.mark.parametrize("placement", ["masked", "enclave"])
def test_four_recipients_get_their_records_and_three_the_skeletons(placement, transport):
    with DrawnNode(placement=placement, transport=transport) as node, Saying(node.bridge()) as gate:
        assert [gate.deliver(CLIP) for _ in range(3)] == [False] * 3
        assert [node.drawn(recipient) for recipient in range(4)] == [[XY] * 3] * 3 + [[None] * 3]


def test_two_agreements_whose_first_records_fit_only_one_after_the_other_are_both_in_force():
    """At the start, and again after the enclave was killed: eight records, of which six are kept at once."""
    with DrawnNode(cameras=("gate", "yard")) as node:
        other = replace(node.agreement, number=2,
                        recipients=tuple(replace_rcpt(one) for one in node.agreement.recipients))
        node.papers.append((other, node.signed(other)))
        for count in (1, 2):
            with Saying(node.bridge()) as gate, Saying(node, "yard", agreement=other.digest) as yard:
                assert gate.deliver(CLIP) is False and yard.deliver(CLIP) is False
                assert len(node.status()["agreements"]) == 2
            assert node.drawn(0) == [XY] * count
            node.stop()
            node.restart_eval()


def test_beacons_are_answered_between_clips():
    with DrawnNode() as node, Saying(node.bridge()) as gate, outbox(node) as dealer:
        for turn in range(1, 4):
            gate.deliver(CLIP)
            for recipient in range(4):
                assert dealer.send(beacon_message(node, turn, recipient))
        gate.deliver(CLIP)
        for recipient in range(4):
            beats = [record for record in node.checked(recipient) if record.kind == RecordKind.HEARTBEAT]
            assert len(beats) == 3


def beacon_message(node, turn, recipient):
    return messages.pack("beacon", {}, beacon_of(node, turn * 10 ** 9, bytes([turn]) * 16, recipient))


def test_what_the_spool_did_not_take_is_stored_once_it_works(monkeypatch):
    with DrawnNode() as node, Saying(node.bridge()) as gate:
        gate.deliver(CLIP)
        broken = failing(monkeypatch)
        gate.hello()
        gate.offer(*gate.sealed(CLIP))
        assert gate.hear("done", patience_s=0.3) is None
        broken[0] = False
        assert gate.hear("done")[1]["failed"] is False
        assert node.drawn(0) == [XY] * 2


def test_a_bridge_that_dies_while_it_fetches_a_record_leaves_it_to_the_next(monkeypatch):
    with DrawnNode() as node:
        honest, left = EvalClient.record_from, [3]

        def dying(self, emission):
            left[0] -= 1
            if left[0] == 0:
                raise Killed()
            return honest(self, emission)

        with Saying(node.bridge()) as gate:
            gate.hello()
            monkeypatch.setattr(EvalClient, "record_from", dying)
            gate.offer(*gate.sealed(CLIP))
            node.join()
        with Saying(node.bridge()) as gate:
            gate.deliver(CLIP)
            assert [node.drawn(recipient) for recipient in range(4)] == [[XY] * 2] * 3 + [[None] * 2]


def test_a_camera_that_is_gone_for_good_does_not_keep_the_room_of_the_others(monkeypatch):
    """Its clip was begun when the bridge ended; the room for four records of it is all but that of two."""
    monkeypatch.setattr(desk, "CALL_S", 0.02)
    with DrawnNode(cameras=("gate", "yard")) as node:
        with Saying(node.bridge()) as gate:
            gate.hello()
            leave_unfinished(gate, monkeypatch)
        node.stop()
        with Saying(node.bridge(), "yard") as yard:
            assert yard.deliver(CLIP) is False
        assert [(camera, kind) for camera, _, kind in node.clips()] == [
            ("gate", RecordKind.FAILED), ("yard", RecordKind.ALERT)]
