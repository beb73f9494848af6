"""Clips: the session alone says whose clip it is; each is taken once, under its own number, seal and form."""

from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest

from attacks.networks import random_coordinates, small
from attacks.node import DATA_KEY_ID, DATA_SLOT, TRANSPORTS, refused
from edged.camera.clip import camera_key, seal_bytes, session_key
from edged.enclave import wire
from edged.enclave.wire import EvalCommand, KeyKind, Placement, Status
from edged.errors import VerificationFailed

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
    session = node.client.open_session(node.agreed.index, camera.name, nonce)
    for data_key in (bytes(32), node.alert_key):
        forged = camera._replace(key=session_key(camera_key(data_key, camera.name), nonce, session.nonce))
        with refused(Status.CLIP):
            node.attempt(forged, node.seal(forged, coordinates()))
    own = camera._replace(key=session_key(camera_key(node.data_key, camera.name), nonce, session.nonce))
    node.evaluate(own, coordinates())


def test_under_a_data_key_of_16_bytes_clips_are_sealed_by_aes_128_and_by_no_longer_key(fresh_node):
    node = fresh_node
    longer, node.data_key = node.data_key, node.data_key[:16]
    with closing(node.connect_key()) as key:
        key.put_slot(DATA_SLOT, KeyKind.DATA, node.data_key, DATA_KEY_ID, node.terms.qdo)
    node.load(MODEL, Placement.ENCLAVE)
    camera, nonce = node.camera(), bytes(32)
    assert len(camera.key) == 16
    node.evaluate(camera, coordinates())
    session = node.client.open_session(node.agreed.index, camera.name, nonce)
    issued = camera_key(node.data_key, camera.name)
    for key in (session_key(camera_key(longer, camera.name), nonce, session.nonce),
                session_key(issued, nonce, session.nonce) + bytes(16)):
        forged = camera._replace(key=key, session=session.session)
        with refused(Status.CLIP):
            node.attempt(forged, node.seal(forged, coordinates()))
    own = camera._replace(key=session_key(issued, nonce, session.nonce), session=session.session)
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
    "a person less": header(persons=1), "a person and a track less": header(persons=1, tracks=(1,) + (0,) * 7),
    "a person more": header(persons=3), "very many persons": header(persons=0xFFFFFFFF),
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
    for index, offset, size, status in (
            (1, 0, 100, Status.OBJECT), (0, 4, 100, Status.OBJECT), (0, 0, 0, Status.LENGTH),
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


@pytest.mark.parametrize("index", [1, 2, 3, 4, 5, 1 << 31, 0xFFFFFFFF])
def test_a_session_needs_an_agreement_that_is_in_force(fresh_node, index):
    assert fresh_node.client.info().agreements == 1 and fresh_node.agreed.index == 0
    with refused(Status.ARGUMENT):
        fresh_node.client.open_session(index, bytes(32), bytes(32))


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


def test_a_closed_session_takes_no_clip_and_makes_room_for_another_camera(fresh_node):
    node = fresh_node
    node.load(MODEL, Placement.ENCLAVE)
    cameras = [node.camera(b"camera %d" % i) for i in range(wire.EVAL_SESSIONS_MAX)]
    clip = node.seal(cameras[3], coordinates())
    node.attempt(cameras[3], clip)
    assert node.call(EvalCommand.SESSION_CLOSE, wire.Index(5).pack()) == (Status.ORDER, b"")  # a clip is under way
    node.abort(cameras[3])
    node.attempt(cameras[4], node.seal(cameras[4], coordinates()))
    node.reconnect()
    with refused(Status.ORDER):  # its clip has no record yet
        node.client.close_session(cameras[4].session)
    node.client.close_session(cameras[3].session)
    for session in (cameras[3].session, 16, 0xFFFFFFFF):
        with refused(Status.ARGUMENT):
            node.client.close_session(session)
    node.load(MODEL, Placement.ENCLAVE)
    with refused(Status.ARGUMENT):
        node.attempt(cameras[3], node.seal(cameras[3], coordinates()))
    late = node.camera(b"late")
    assert late.session == cameras[3].session
    with refused(Status.CLIP):
        node.attempt(late, node.seal(cameras[3], coordinates()))
    node.evaluate(late, coordinates())


def test_a_session_that_is_opened_again_or_closed_takes_no_kept_record_along(node, camera):
    record = node.attempt(camera, node.seal(camera, coordinates())).finish()
    again = node.camera(b"session")
    assert again.session == camera.session and again.key != camera.key
    assert node.kept(0)[-1][1] == record
    node.client.close_session(again.session)
    assert node.kept(0)[-1][1] == record


@pytest.mark.parametrize("change", ["another owner's", "another key", "none"])
def test_a_data_slot_that_no_longer_holds_the_agreements_key_opens_no_session(node, camera, change):
    """Else one owner's cameras would report under another's agreement. What was opened before goes on."""
    client = node.connect_key()
    if change == "none":
        client.clear_slot(DATA_SLOT)
    elif change == "another key":
        client.put_slot(DATA_SLOT, KeyKind.DATA, node.data_key, b"e" * 16, node.terms.qdo)
    else:
        client.put_slot(DATA_SLOT, KeyKind.DATA, node.data_key, DATA_KEY_ID, node.terms.mo)
    client.close()
    for name in (camera.name, b"another".ljust(32, b"\0")):
        with refused(Status.KEY):
            node.client.open_session(node.agreed.index, name, bytes(32))
    node.evaluate(camera, coordinates())
    node.put_keys()
    node.evaluate(node.camera(b"session"), coordinates())


def test_a_camera_of_one_name_under_two_agreements_has_two_sessions(node, camera):
    other = node.agree(number=2)
    theirs = node.camera(b"session", other)
    assert theirs.session != camera.session
    clip = coordinates()
    with refused(Status.CLIP):  # sealed for the one, it does not open in the other
        node.attempt(theirs, node.seal(camera, clip))
    node.evaluate(camera, clip)
    record = node.attempt(theirs, node.seal(theirs, clip)).finish()
    node.expect(record, clip, agreement=other)
    with pytest.raises(VerificationFailed):
        node.open(record)
    node.client.close_session(theirs.session)


def test_sessions_outlive_the_client_and_the_model(node, camera):
    node.evaluate(camera, coordinates())
    node.reconnect()
    node.load(MODEL, Placement.ENCLAVE)
    node.evaluate(camera, coordinates())
    node.client.unload()
    node.load(small(), Placement.MASKED)
    node.evaluate(camera, random_coordinates(RNG, small().shape, 2))
