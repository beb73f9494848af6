"""Beacons and heartbeats: only a recipient's fresh beacon tells the time and is answered, and its answer is no other's.

Stopping evaluation without beacons, and validity by their time, are test_agreement.py's.
"""

import time
from dataclasses import replace

import numpy as np
import pytest

from attacks.networks import random_coordinates, small
from attacks.node import confirm_all, recipient, refused, short_recipient
from edged.alerts.record import BEACON_VERSION, camera_tag, seal_beacon, split_record
from edged.enclave import wire
from edged.enclave.wire import EvalCommand, Placement, RecordKind, Status
from edged.errors import VerificationFailed

MODEL = small(26)
RNG = np.random.default_rng()
NS = 10 ** 9
NOW = 1700000000 * NS


def coordinates(persons=1):
    return random_coordinates(RNG, MODEL.shape, persons)


@pytest.fixture
def both(fresh_node):
    """An agreement of two recipients."""
    return fresh_node.agree(number=2, recipients=(recipient(), short_recipient()))


def beat(node, beacon, agreed, config=bytes(32)):
    """The one record that answers a beacon, opened."""
    emitted = node.client.beacon(beacon, config)
    assert len(emitted.records) == 1
    return node.open(emitted.records[0], agreement=agreed)


# The answer.


@pytest.mark.parametrize("which", [0, 1], ids=["32 bytes", "16 bytes"])
def test_a_heartbeat_answers_its_beacon_to_its_sender_alone(fresh_node, both, which):
    node, nonce, config = fresh_node, RNG.bytes(16), RNG.bytes(32)
    emitted = node.client.beacon(node.beacon(NOW, nonce, both, which), config)
    assert len(emitted.records) == 1 and emitted.emission == 1 + 2 + 1
    seen = node.open(emitted.records[0], agreement=both)
    assert (seen.kind, seen.header.kind) == (RecordKind.HEARTBEAT, RecordKind.HEARTBEAT)
    assert (seen.nonce, seen.time_ns, seen.config) == (nonce, NOW, config)
    assert seen.header.rcpt == both.terms.recipients[which].rcpt
    assert seen.seq == seen.header.seq == 2 and seen.counter == 1 and seen.cameras == ()
    with pytest.raises(VerificationFailed):
        node.open(emitted.records[0], (node.alert_key, node.short_alert_key)[1 - which], both)


def test_a_heartbeat_counts_the_clips_of_each_camera_of_its_agreement(fresh_node, both):
    node = fresh_node
    node.load(MODEL, Placement.ENCLAVE)
    one, two = node.camera(b"one", both), node.camera(b"two", both)
    other = node.camera(b"of another agreement")
    node.camera(b"idle", both)
    for camera in (one, one, two, other):
        node.evaluate(camera, coordinates(), agreement=node.agreed if camera is other else both)
    node.attempt(one, node.seal(one, coordinates()))
    node.abort(one)
    with refused(Status.CLIP):  # one that never was accepted
        node.attempt(two, node.seal(one, coordinates()))
    counts = {name.ljust(32, b"\0"): count for name, count in ((b"one", (3, 1)), (b"two", (1, 0)), (b"idle", (0, 0)))}
    for turn in range(2):
        seen = beat(node, node.beacon(NOW + turn, agreement=both), both)
        assert {count.camera: (count.accepted, count.failed) for count in seen.cameras} == {
            camera_tag(name): count for name, count in counts.items()}
        node.camera(b"one", both)  # a new session of it counts on


def test_a_heartbeat_tells_the_highest_number_so_that_withheld_records_are_missed(fresh_node, both):
    node = fresh_node
    node.load(MODEL, Placement.ENCLAVE)
    camera = node.camera(b"gate", both)
    for _ in range(3):
        node.evaluate(camera, coordinates(), agreement=both)
    seen = beat(node, node.beacon(NOW, agreement=both), both)
    assert seen.seq == seen.header.seq == 1 + 3 + 1
    assert beat(node, node.beacon(NOW + 1, agreement=both), both).seq == 6


def test_the_uptime_in_heartbeats_rises(fresh_node):
    times = [beat(fresh_node, fresh_node.beacon(NOW + turn), None).uptime_ns for turn in range(3)]
    assert 0 < times[0] < times[1] < times[2]


def test_a_heartbeat_has_the_size_of_every_record(fresh_node, both):
    emitted = fresh_node.client.beacon(fresh_node.beacon(NOW, agreement=both), bytes(32))
    assert len(emitted.records[0]) == len(both.begun.records[0])


def test_beacons_are_answered_in_any_state(fresh_node):
    """While a clip is under way too: its evaluation goes on."""
    node = fresh_node
    beat(node, node.beacon(NOW), None)
    node.load(MODEL, Placement.MASKED)
    camera, clip = node.camera(), coordinates()
    attempt = node.attempt(camera, node.seal(camera, clip))
    for turn in range(3):
        answers = attempt.answers()
        beat(node, node.beacon(NOW + 1 + turn), None)
        attempt.submit(answers)
    attempt.finish_exactly(clip)


# What is no beacon.


@pytest.fixture
def nothing_said(fresh_node):
    yield
    info = fresh_node.client.info()
    assert info.emission == info.kept == 1 + 2  # the two agreements' epochs


def refuses(node, beacon, status):
    with refused(status):
        node.client.beacon(beacon, bytes(32))


def test_a_beacon_under_any_other_key_or_agreement_is_refused(fresh_node, both, nothing_said):
    node, (to, short) = fresh_node, both.terms.recipients
    for key in (node.short_alert_key, bytes(32), node.data_key, node.model_key, node.alert_key[:16]):
        refuses(node, node.beacon(NOW, agreement=both, key=key), Status.KEY)
    digest = both.terms.digest
    for salt, rcpt, agreement in ((bytes(32), to.rcpt, digest), (both.salt, short.rcpt, digest),
                                  (both.salt, to.rcpt, node.agreed.terms.digest), (both.salt, bytes(16), digest)):
        refuses(node, seal_beacon(node.alert_key, salt, rcpt, agreement, NOW, bytes(16)), Status.KEY)


def test_a_beacon_of_one_recipient_is_none_of_another_with_the_same_key(fresh_node):
    node = fresh_node
    agreed = node.agree(number=2, recipients=(recipient(), recipient()))
    beacon = wire.Beacon.unpack(node.beacon(NOW, agreement=agreed, recipient=0))
    refuses(node, replace(beacon, rcpt=agreed.terms.recipients[1].rcpt).pack(), Status.KEY)
    assert beat(node, beacon.pack(), agreed).header.rcpt == agreed.terms.recipients[0].rcpt


def test_a_flipped_bit_anywhere_in_a_beacon_is_refused(fresh_node, both, nothing_said):
    beacon = fresh_node.beacon(NOW, agreement=both)
    reserved = wire.Beacon.layout["reserved"]
    for place in range(len(beacon)):
        for bit in (0, 7):
            broken = bytearray(beacon)
            broken[place] ^= 1 << bit
            inside = reserved.offset <= place < reserved.offset + reserved.size
            assert fresh_node.call(EvalCommand.BEACON, bytes(broken) + bytes(32)) == (
                Status.RESERVED if inside else Status.KEY, b"")


def test_a_beacon_of_another_version_is_refused_though_its_tag_is_right(fresh_node, both, nothing_said, monkeypatch):
    monkeypatch.setattr("edged.alerts.record.BEACON_VERSION", BEACON_VERSION + 1)
    refuses(fresh_node, fresh_node.beacon(NOW, agreement=both), Status.ARGUMENT)


def test_a_beacon_that_comes_again_or_goes_back_in_time_is_refused(fresh_node, both):
    node = fresh_node
    first, second = (node.beacon(NOW + turn, agreement=both) for turn in (0, 10))
    beat(node, first, both)
    refuses(node, first, Status.ARGUMENT)
    beat(node, second, both)
    for time_ns in (NOW, NOW + 9, NOW + 10, 0):
        refuses(node, node.beacon(time_ns, b"another nonce...", both), Status.ARGUMENT)
    beat(node, node.beacon(NOW + 9, agreement=both, recipient=1), both)  # each recipient has its own clock
    beat(node, node.beacon(NOW + 11, agreement=both), both)


@pytest.mark.parametrize("time_ns", [0, 1 << 63, (1 << 64) - 1])
def test_a_beacon_of_a_time_that_cannot_be_is_refused(fresh_node, both, nothing_said, time_ns):
    refuses(fresh_node, fresh_node.beacon(time_ns, agreement=both), Status.ARGUMENT)


@pytest.mark.parametrize("end", ["killed", "closed", "restored"])
def test_a_beacon_of_an_earlier_epoch_is_refused(fresh_node, end):
    """Heard and hoarded: it is worth nothing after a restart."""
    node = fresh_node
    unused = node.beacon(NOW + 10 * NS)
    beat(node, node.beacon(NOW), None)
    if end == "closed":
        confirm_all(node)
        node.client.close_epoch()
        node.agreed = node.agree()
    else:
        state = confirm_all(node)
        node.restart_eval(state if end == "restored" else None)
    refuses(node, unused, Status.KEY)
    if end != "killed":  # it knows what time it was
        refuses(node, node.beacon(NOW), Status.ARGUMENT)
    beat(node, node.beacon(NOW if end == "killed" else NOW + 1), None)


def test_an_agreement_that_ended_does_not_begin_again_with_a_restart(fresh_node):
    """Else root would restart the enclave at its end, keep every beacon away, and go on."""
    node = fresh_node
    node.load(MODEL, Placement.ENCLAVE)
    changes = {"number": 2, "until_s": NOW // NS + 1000, "recipients": (recipient(),)}
    agreed = node.agree(**changes)
    beat(node, node.beacon(NOW + 1000 * NS, agreement=agreed), agreed)
    state = confirm_all(node)
    node.restart_eval(state)
    agreed = node.agree(**changes)
    node.load(MODEL, Placement.ENCLAVE)
    camera = node.camera(b"gate", agreed)
    with refused(Status.AGREEMENT):
        node.evaluate(camera, coordinates(), agreement=agreed)


def test_a_hoarded_beacon_does_not_turn_the_enclaves_clock_back(fresh_node):
    """It is answered, so that who sent it learns that it was held back; the time and the lock heed it not."""
    node = fresh_node
    node.load(MODEL, Placement.ENCLAVE)
    agreed = node.agree(number=2, recipients=(recipient(), short_recipient()), beacon_limit_s=1000,
                        from_s=NOW // NS - 1000, until_s=NOW // NS + 1000)
    camera = node.camera(b"gate", agreed)
    beat(node, node.beacon(NOW, agreement=agreed), agreed)
    late = NOW - 3600 * NS  # the other recipient's, of an hour ago: the agreement was not valid yet
    assert beat(node, node.beacon(late, agreement=agreed, recipient=1), agreed).time_ns == late
    assert node.evaluate(camera, coordinates(), agreement=agreed).time_ns > NOW


@pytest.mark.parametrize("epochs", [1, 2])
def test_a_hoarded_beacon_unlocks_nothing(fresh_node, epochs):
    node = fresh_node
    node.load(MODEL, Placement.ENCLAVE)
    changes = dict(number=2, recipients=(recipient(), short_recipient()), beacon_period_s=1, beacon_limit_s=1)
    agreed = node.agree(**changes)
    beat(node, node.beacon(NOW, agreement=agreed), agreed)
    time.sleep(1.1)
    for _ in range(1, epochs):
        confirm_all(node)
        node.client.close_epoch()
        agreed = node.agree(**changes)
    camera = node.camera(b"gate", agreed)
    beat(node, node.beacon(NOW - 3600 * NS, agreement=agreed, recipient=1), agreed)
    with refused(Status.LOCKED):
        node.attempt(camera, node.seal(camera, coordinates()))


def test_a_beacon_for_no_agreement_is_refused(fresh_node):
    beacon = fresh_node.beacon(NOW)
    fresh_node.client.confirm(1)
    fresh_node.client.close_epoch()
    refuses(fresh_node, beacon, Status.KEY)
    assert split_record(fresh_node.agree().begun.records[0])[0].seq == 1
