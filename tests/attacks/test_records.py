"""Records: nobody but the recipient reads one, nobody alters one, none is lost, and none tells by its looks."""

import hashlib
import struct
from dataclasses import replace

import cbor2
import numpy as np
import pytest

from attacks.networks import random_coordinates, small
from attacks.node import ALERT_SLOT, MODEL_SLOT, SHORT_ALERT_SLOT, refused
from edged.alerts.record import open_record, split_record
from edged.enclave import wire
from edged.enclave.wire import Placement, RecordKind, Status
from edged.errors import PackageError, VerificationFailed
from edged.model.package import inspect

MODEL = small(22)
RNG = np.random.default_rng()


def coordinates(persons=2):
    return random_coordinates(RNG, MODEL.shape, persons)


@pytest.fixture
def camera(node):
    node.load(MODEL, Placement.ENCLAVE)
    return node.camera(b"records")


@pytest.mark.parametrize("slot", [ALERT_SLOT, SHORT_ALERT_SLOT], ids=["32 bytes", "16 bytes"])
def test_a_record_opens_under_its_recipients_alert_key_alone(node, slot):
    node.load(MODEL, Placement.ENCLAVE)
    camera = node.camera(b"records", slot)
    right, wrong = (node.alert_key, node.short_alert_key)[::1 if slot == ALERT_SLOT else -1]
    clip = coordinates()
    record = node.attempt(camera, node.seal(camera, clip)).finish()
    observation = node.expect(record, clip, right)
    assert observation.header.rcpt == struct.pack("<I12x", slot)
    assert observation.header.kid == (b"a" if slot == ALERT_SLOT else b"s") * 16
    assert observation.camera == camera.name and observation.tracks == (1, 2) and observation.claimed_ns == 5
    for key in (wrong, bytes(32), bytes(16), node.data_key, node.model_key, right[:-1] + bytes([right[-1] ^ 1])):
        with pytest.raises(VerificationFailed):
            open_record(record, key)
    if slot == ALERT_SLOT:  # a 32-byte key is not two 16-byte ones
        with pytest.raises(VerificationFailed):
            open_record(record, right[:16])


def test_two_recipients_with_one_alert_key_cannot_exchange_their_records(node):
    """The recipient is part of the record's key, not only of its header."""
    node.load(MODEL, Placement.ENCLAVE)
    camera = node.camera(b"records")
    record = node.attempt(camera, node.seal(camera, coordinates())).finish()
    with pytest.raises(VerificationFailed):
        open_record(rewritten(record, rcpt=struct.pack("<I12x", 7)), node.alert_key)


def rewritten(record, **changes):
    """The record with another header, in its canonical form."""
    head, _, body = split_record(record)
    data = replace(head, **changes).pack()
    return wire.RecordHead(len(data), len(body)).pack() + data + body


@pytest.mark.parametrize("changes", [
    dict(seq=1 << 40), dict(kind=int(RecordKind.FAILED)), dict(kind=1), dict(node=bytes(16)), dict(epoch=bytes(16)),
    dict(kid=bytes(16)), dict(rcpt=bytes(16)), dict(salt=bytes(32))], ids=lambda changes: "".join(changes))
def test_a_record_whose_header_was_altered_is_refused(node, camera, changes):
    record = node.attempt(camera, node.seal(camera, coordinates())).finish()
    with pytest.raises(VerificationFailed):
        open_record(rewritten(record, **changes), node.alert_key)


def test_a_flipped_bit_anywhere_in_a_record_is_refused(node, camera):
    record = node.attempt(camera, node.seal(camera, coordinates())).finish()
    open_record(record, node.alert_key)
    for place in range(0, len(record), 7):
        broken = bytearray(record)
        broken[place] ^= 1 << int(RNG.integers(8))
        with pytest.raises((VerificationFailed, PackageError)):
            open_record(bytes(broken), node.alert_key)


def test_records_are_numbered_per_recipient_without_a_gap_and_name_one_epoch_and_node(fresh_node):
    node = fresh_node
    node.load(MODEL, Placement.ENCLAVE)
    cameras = [node.camera(b"one"), node.camera(b"two", SHORT_ALERT_SLOT), node.camera(b"three")]
    heads = {ALERT_SLOT: [], SHORT_ALERT_SLOT: []}
    for turn in range(12):
        camera = cameras[turn % 3]
        slot = SHORT_ALERT_SLOT if turn % 3 == 1 else ALERT_SLOT
        record = node.attempt(camera, node.seal(camera, coordinates(turn % 2))).finish()
        heads[slot].append(split_record(record)[0])
    for seen in heads.values():
        assert [head.seq for head in seen] == list(range(1, len(seen) + 1))
    both = heads[ALERT_SLOT] + heads[SHORT_ALERT_SLOT]
    assert len({(head.epoch, head.node, head.salt) for head in both}) == 1
    assert both[0].epoch == node.client.info().epoch


def test_a_new_start_is_a_new_epoch_with_other_record_keys(fresh_node):
    node, seen = fresh_node, []
    for _ in range(3):
        node.load(MODEL, Placement.ENCLAVE)
        camera = node.camera()
        seen.append(split_record(node.attempt(camera, node.seal(camera, coordinates())).finish())[0])
        node.restart_eval()
    assert [head.seq for head in seen] == [1, 1, 1] and len({head.node for head in seen}) == 1
    assert len({head.epoch for head in seen}) == len({head.salt for head in seen}) == 3


def test_a_record_names_the_model_that_decided_it(node, camera):
    digests = []
    for _ in range(2):
        package = node.pack(MODEL)
        node.client.load(package, MODEL_SLOT, Placement.ENCLAVE)
        record = node.attempt(camera, node.seal(camera, coordinates())).finish()
        digests.append(node.open(record).model)
        assert digests[-1] == hashlib.sha256(inspect(package).encoded).digest()
    assert digests[0] != digests[1]  # another salt, another package


def test_the_last_record_of_a_session_is_given_again_byte_for_byte(fresh_node):
    """For a client that did not get it: in any state, after a disconnect, with no model at all."""
    node = fresh_node
    node.load(MODEL, Placement.ENCLAVE)
    camera, other = node.camera(b"one"), node.camera(b"other")
    with refused(Status.ORDER):
        node.client.record(camera.session)
    first = node.attempt(camera, node.seal(camera, coordinates())).finish()
    under_way = node.attempt(other, node.seal(other, coordinates()))
    assert node.client.record(camera.session) == first
    with refused(Status.ORDER):
        node.client.record(other.session)
    second = under_way.finish()
    assert (node.client.record(camera.session), node.client.record(other.session)) == (first, second)
    node.reconnect()
    assert (node.client.record(camera.session), node.client.record(other.session)) == (first, second)
    for session in (16, 0xFFFFFFFF):
        with refused(Status.ARGUMENT):
            node.client.record(session)
    node.load(MODEL, Placement.ENCLAVE)
    node.attempt(camera, node.seal(camera, coordinates()))
    failed = node.abort(camera)[1]
    assert node.client.record(camera.session) == failed != first
    assert split_record(failed)[0].seq == 3  # to say it again spends no number


def test_records_have_one_size_whatever_their_number_and_kind(fresh_node):
    node = fresh_node
    node.load(MODEL, Placement.ENCLAVE)
    camera, sizes = node.camera(), set()
    for turn in range(300):  # CBOR needs more bytes for a number from 24 and from 256 on
        attempt = node.attempt(camera, node.seal(camera, coordinates(1 + turn % 2)))
        sizes.add(len(node.abort(camera)[1] if turn % 3 == 0 else attempt.finish()))
    assert sizes == {node.loaded.head.record_bytes}


def test_a_record_tells_by_its_size_neither_the_result_nor_the_number_of_people(node, camera):
    sizes = {len(split_record(node.attempt(camera, node.seal(camera, coordinates(persons))).finish())[2])
             for persons in (0, 1, 2)}
    assert len(sizes) == 1


def test_a_record_is_of_canonical_cbor_and_holds_nothing_but_its_fields(node, camera):
    record = node.attempt(camera, node.seal(camera, coordinates())).finish()
    head, data, _ = split_record(record)
    assert list(cbor2.loads(data)) == ["v", "kid", "seq", "kind", "node", "rcpt", "salt", "epoch"]
    assert head.pack() == data
    assert len(record) <= node.loaded.head.record_bytes <= wire.EDGED_MESSAGE_BYTES
