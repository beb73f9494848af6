"""Clips and records: the session alone says whose clip it is; nobody but its recipient reads a record."""

import struct
from dataclasses import replace

import cbor2
import numpy as np
import pytest

from attacks.networks import random_coordinates, small
from attacks.node import ALERT_SLOT, DATA_SLOT, MODEL_SLOT, SHORT_ALERT_SLOT, TRANSPORTS, refused
from edged.alerts.record import open_record, split_record
from edged.camera.clip import camera_key, seal_bytes, session_key
from edged.enclave import wire
from edged.enclave.wire import EvalCommand, Placement, RecordKind, Status
from edged.errors import PackageError, VerificationFailed

MODEL = small(21, frames=5)  # as many frames as joints: exchanging them changes no length
RNG = np.random.default_rng()
HEAD = wire.ClipHead.size()

each_transport = pytest.mark.parametrize("transport", list(TRANSPORTS))


def coordinates(persons=2):
    return random_coordinates(RNG, MODEL.shape, persons)


@pytest.fixture
def camera(node):
    node.load(MODEL, Placement.ENCLAVE)
    return node.camera(b"session")


def expect(node, camera, clip, status=Status.CLIP):
    """The clip is refused, no record comes of it, and the camera's next clip is evaluated exactly."""
    before = node.stats()
    with refused(status):
        node.attempt(camera, clip)
    after = node.stats()
    assert (after.clips, after.records) == (before.clips, before.records)
    node.evaluate(camera, coordinates())


# Seals.


@each_transport
def test_a_flipped_bit_anywhere_in_a_sealed_clip_is_refused(node, transport):
    node.load(MODEL, Placement.ENCLAVE, transport)
    camera = node.camera()
    number, sealed = node.seal(camera, coordinates())
    for place in [0, 4, 20, HEAD - 1, HEAD, len(sealed) - 17, len(sealed) - 16, len(sealed) - 1] + list(
            RNG.integers(0, len(sealed), 20)):
        broken = bytearray(sealed)
        broken[place] ^= 1 << int(RNG.integers(8))
        with refused(Status.CLIP):
            node.attempt(camera, (number, bytes(broken)))
    node.attempt(camera, (number, sealed)).finish()


def test_a_clip_under_another_number_than_its_own_is_refused(node, camera):
    number, sealed = node.seal(camera, coordinates())
    for other in (number + 1, number + (1 << 32), (1 << 64) - 1):
        with refused(Status.CLIP):
            node.attempt(camera, (other, sealed))
    node.attempt(camera, (number, sealed)).finish()


def test_a_clip_of_another_camera_is_refused(node, camera):
    other = node.camera(b"another")
    expect(node, camera, node.seal(other, coordinates()))
    expect(node, other, node.seal(camera, coordinates()))


def test_a_clip_whose_header_names_another_camera_is_refused(node, camera):
    """Sealed by this camera, for this session: the session selects, a header only repeats."""
    number, _ = node.seal(camera, coordinates())
    plain = node.clip(camera._replace(name=b"another".ljust(32, b"\0")), coordinates())
    expect(node, camera, (number, seal_bytes(camera.key, camera.session, number, plain)))


def test_a_clip_of_an_earlier_session_of_the_same_camera_is_refused(node, camera):
    number, sealed = node.seal(camera, coordinates())
    again = node.camera(b"session")
    assert again.session == camera.session and again.key != camera.key
    expect(node, again, (number, sealed))


def test_a_clip_sealed_for_another_sessions_number_is_refused(node, camera):
    other = node.camera(b"another")
    number, _ = node.seal(camera, coordinates())
    sealed = seal_bytes(camera.key, other.session, number, node.clip(camera, coordinates()))
    expect(node, camera, (number, sealed))


def test_a_clip_from_before_the_enclave_was_started_again_is_refused(fresh_node):
    node = fresh_node
    node.load(MODEL, Placement.ENCLAVE)
    camera = node.camera()
    clip = node.seal(camera, coordinates())
    node.attempt(camera, clip).finish()
    node.restart_eval()
    node.load(MODEL, Placement.ENCLAVE)
    with refused(Status.ARGUMENT):  # no session at all
        node.attempt(camera, clip)
    again = node.camera()
    expect(node, again._replace(session=camera.session), clip)


def test_a_session_under_another_data_key_takes_no_clip(node, camera):
    """Who has no camera key cannot seal: neither with a wrong key nor with the nonces alone."""
    nonce = bytes(32)
    session = node.client.open_session(DATA_SLOT, ALERT_SLOT, camera.name, nonce)
    for data_key in (bytes(32), node.alert_key):
        forged = camera._replace(key=session_key(camera_key(data_key, camera.name), nonce, session.nonce))
        with refused(Status.CLIP):
            node.attempt(forged, node.seal(forged, coordinates()))
    own = camera._replace(key=session_key(camera_key(node.data_key, camera.name), nonce, session.nonce))
    node.evaluate(own, coordinates())


# Numbers.


def test_a_replayed_or_older_number_is_refused(node, camera):
    clips = [node.seal(camera, coordinates()) for _ in range(3)]
    node.attempt(camera, clips[1]).finish()
    for clip in (clips[1], clips[0]):
        expect(node, camera, clip)
    with refused(Status.CLIP):  # by now older too
        node.attempt(camera, clips[2])
    with refused(Status.CLIP):
        node.attempt(camera, node.seal(camera, coordinates(), number=0))


def test_numbers_may_leap_to_the_last_one_and_no_further(node):
    node.load(MODEL, Placement.ENCLAVE)
    camera = node.camera(b"leap")
    for number in (1 << 40, (1 << 64) - 1):
        node.attempt(camera, node.seal(camera, coordinates(), number)).finish()
    for number in ((1 << 64) - 1, 0, 1):
        with refused(Status.CLIP):
            node.attempt(camera, node.seal(camera, coordinates(), number))
    node.evaluate(node.camera(b"leap"), coordinates())  # a new session begins anew, under a new key


# Sizes and header.


def header(**changes):
    def change(head):
        return replace(head, **changes)
    return change


WRONG_HEADERS = {
    "version 0": header(version=0), "version 2": header(version=2),
    "a person less": header(persons=1), "a person more": header(persons=3), "very many persons": header(persons=0xFFFFFFFF),
    "nobody": header(persons=0), "frames more": header(frames=6), "frames less": header(frames=4),
    "joints more": header(joints=6), "joints less": header(joints=4), "no frames": header(frames=0),
    "a product of frames and joints that overflows": header(frames=1 << 16, joints=1 << 16),
    "a track of a third person": header(tracks=(1, 2, 3, 0, 0, 0, 0, 0)),
    "a track of an eighth person": header(tracks=(1, 2, 0, 0, 0, 0, 0, 1)),
    "another camera": header(camera=b"another".ljust(32, b"\0")), "no camera": header(camera=bytes(32)),
}


@pytest.mark.parametrize("name", list(WRONG_HEADERS))
def test_a_truly_sealed_clip_with_a_wrong_header_is_refused(node, camera, name):
    number, _ = node.seal(camera, coordinates())
    plain = node.clip(camera, coordinates())
    head = WRONG_HEADERS[name](wire.ClipHead.unpack(plain[:HEAD]))
    expect(node, camera, (number, seal_bytes(camera.key, camera.session, number, head.pack() + plain[HEAD:])))


def test_a_clip_of_another_length_is_refused_before_it_is_read(node, camera):
    number, sealed = node.seal(camera, coordinates())
    sizes = [0, 1, HEAD, HEAD + 15, HEAD + 17, len(sealed) - 1, len(sealed) + 1, len(sealed) - 6, len(sealed) + 6,
             wire.sealed_clip_bytes(3, 5, 5), wire.sealed_clip_bytes(2, 6, 5), 0xFFFFFFFF]
    for size in sizes:
        body = wire.ClipOpen(camera.session, 0, number, 0, size).pack()
        assert node.call(EvalCommand.CLIP_OPEN, body) == (Status.LENGTH, b""), size
    node.attempt(camera, (number, sealed)).finish()


def test_a_clip_of_another_number_of_frames_is_refused(node, camera):
    longer = random_coordinates(RNG, MODEL.shape._replace(frames=10), 1)  # as long as two persons
    number = node.number = node.number + 1
    sealed = seal_bytes(camera.key, camera.session, number, node.clip(camera, longer))
    expect(node, camera, (number, sealed))


@pytest.mark.parametrize("flags", [2, 3, 1 << 31])
def test_unknown_flags_are_refused(node, camera, flags):
    number, sealed = node.seal(camera, coordinates())
    body = wire.ClipOpen(camera.session, flags, number, 0, len(sealed)).pack()
    assert node.call(EvalCommand.CLIP_OPEN, body) == (Status.RESERVED, b"")


@pytest.mark.parametrize("session", [15, 16, 1 << 31, 0xFFFFFFFF])
def test_a_session_that_was_never_opened_is_refused(fresh_node, session):
    fresh_node.load(MODEL, Placement.ENCLAVE)
    fresh_node.camera()
    body = wire.ClipOpen(session, 0, 1, 0, wire.sealed_clip_bytes(1, 5, 5)).pack()
    assert fresh_node.call(EvalCommand.CLIP_OPEN, body) == (Status.ARGUMENT, b"")


def test_a_clip_by_the_window_needs_a_window_that_is_large_enough(node, camera):
    number, sealed = node.seal(camera, coordinates())
    node.client.detach_window()  # of a test before
    with refused(Status.WINDOW):
        node.client.open_clip(camera.session, wire.EVAL_CLIP_WINDOW, number, 0, len(sealed))
    node.load(small(21, frames=5, channels=((64, 1),)), Placement.MASKED)  # needs more than a page
    window = node.client.connection.channel.window(4096)
    node.client.attach_window(window)
    with refused(Status.WINDOW):
        node.client.open_clip(camera.session, wire.EVAL_CLIP_WINDOW, number, 0, len(sealed))
    node.client.detach_window()
    window.close()


def test_a_clip_written_out_of_order_or_too_long_is_refused(node, camera):
    clip = coordinates()
    number, sealed = node.seal(camera, clip)
    node.client.open_clip(camera.session, 0, number, 0, len(sealed))
    assert node.call(EvalCommand.CLIP_BEGIN) == (Status.ORDER, b"")
    for index, offset, size, status in ((1, 0, 100, Status.OBJECT), (0, 4, 100, Status.OBJECT), (0, 0, 0, Status.LENGTH),
                                        (0, 0, len(sealed) + 1, Status.LENGTH), (0, 1 << 63, 4, Status.OBJECT)):
        body = wire.Chunk(index, offset).pack() + bytes(size)
        assert node.call(EvalCommand.CLIP_WRITE, body) == (status, b"")
    node.client.write_clip(sealed)
    assert node.call(EvalCommand.CLIP_WRITE, wire.Chunk(0, len(sealed)).pack() + b"x") == (Status.LENGTH, b"")
    status, _ = node.call(EvalCommand.CLIP_BEGIN)
    assert status == Status.OK
    node.expect(node.client.end_step(0).record or finish(node), clip)


def finish(node):
    """The rest of the steps in placement enclave."""
    for step in range(1, node.loaded.head.steps):
        progress = node.client.end_step(step)
    return progress.record


# Sessions.


@pytest.mark.parametrize("data, alert, status", [
    (ALERT_SLOT, ALERT_SLOT, Status.KEY), (DATA_SLOT, DATA_SLOT, Status.KEY), (MODEL_SLOT, ALERT_SLOT, Status.KEY),
    (DATA_SLOT, MODEL_SLOT, Status.KEY), (9, ALERT_SLOT, Status.KEY), (DATA_SLOT, 9, Status.KEY),
    (16, ALERT_SLOT, Status.ARGUMENT), (DATA_SLOT, 1 << 31, Status.ARGUMENT)])
def test_a_session_needs_a_data_key_and_an_alert_key(node, data, alert, status):
    with refused(status):
        node.client.open_session(data, alert, bytes(32), bytes(32))


def test_there_are_as_many_sessions_as_cameras_of_a_node_and_each_camera_has_one(fresh_node):
    node = fresh_node
    node.load(MODEL, Placement.ENCLAVE)
    cameras = [node.camera(b"camera %d" % i) for i in range(wire.EVAL_SESSIONS_MAX)]
    assert len({camera.session for camera in cameras}) == len({camera.key for camera in cameras}) == len(cameras)
    with refused(Status.MEMORY):
        node.camera(b"one too many")
    again = node.camera(b"camera 7")
    assert again.session == cameras[7].session
    for camera in cameras[:7] + [again] + cameras[8:]:
        node.evaluate(camera, coordinates(1))


def test_a_refused_session_leaves_the_old_one_in_force(node, camera):
    with refused(Status.KEY):
        node.client.open_session(DATA_SLOT, 9, camera.name, bytes(32))
    node.evaluate(camera, coordinates())


def test_sessions_outlive_the_client_and_the_model(node, camera):
    node.evaluate(camera, coordinates())
    node.reconnect()
    node.load(MODEL, Placement.ENCLAVE)
    node.evaluate(camera, coordinates())
    node.client.unload()
    node.load(small(), Placement.MASKED)
    node.evaluate(camera, random_coordinates(RNG, small().shape, 2))


# Records.


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
