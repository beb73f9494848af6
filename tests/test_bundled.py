"""The action network that comes with edged is the one that its card describes, and knows a fall when it sees one."""

import hashlib
import re
import shutil
from functools import lru_cache

import numpy as np
import pytest

from edged.camera import motion
from edged.camera.assemble import Assembler
from edged.camera.track import Tracker
from edged.errors import MissingInput, PackageError
from edged.model import bundled, heldout, package, reference, stgcn, tensors
from edged.model.network import read, write
from edged.train import takes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

FALLING = motion.LABELS.index("falling")
HELD_OUT = 40


@lru_cache(maxsize=None)
def network():
    return bundled.load()


@lru_cache(maxsize=None)
def model():
    return bundled.model()


@lru_cache(maxsize=None)
def judged():
    """Of held-out clips: true labels (N,), logits in floating point and in integers, both (N, L)."""
    clips = [heldout.clip(index) for index in range(HELD_OUT)]
    return (np.array([heldout.label(index) for index in range(HELD_OUT)]),
            np.array([stgcn.forward_clip(network(), clip) for clip in clips]),
            np.array([reference.run(model(), clip)[0] / 65536 for clip in clips]))


@pytest.fixture
def folder(tmp_path):
    """A copy that a test may spoil."""
    copy = tmp_path / "bundled"
    shutil.copytree(str(bundled.FOLDER), str(copy))
    return copy


def test_the_card_names_the_hash_of_the_weights():
    card = (bundled.FOLDER / bundled.CARD).read_text("utf-8")
    found = hashlib.sha256((bundled.FOLDER / bundled.WEIGHTS).read_bytes()).hexdigest()
    assert re.findall(r"^sha256: (\w+)$", card, re.MULTILINE) == [found]


def test_the_card_gives_credit_and_says_what_exists_only_as_synthesis():
    card = " ".join((bundled.FOLDER / bundled.CARD).read_text("utf-8").split())
    for said in (takes.CMU, "exist only as synthesis", "Where it fails", "## How it was made"):
        assert said in card


def test_the_weights_stay_small():
    assert (bundled.FOLDER / bundled.WEIGHTS).stat().st_size < 2_000_000


def test_the_network_is_an_stgcn_for_clips_of_the_camera_process():
    loaded = network()
    assert (loaded.persons, loaded.frames, loaded.joints) == (2, 300, 18)
    assert loaded.labels == motion.LABELS and len(loaded.labels) >= 10
    assert all(block.adjacency.shape == (3, 18, 18) and block.temporal_weight.shape[1] == 9 for block in loaded.blocks)
    assert {block.residual for block in loaded.blocks} == {"none", "identity", "convolution"}


def test_written_again_the_weights_are_the_same_file(tmp_path):
    assert write(network(), tmp_path / "one.npz") == write(network(), tmp_path / "two.npz")
    with np.load(str(tmp_path / "one.npz")) as ours, np.load(str(bundled.FOLDER / bundled.WEIGHTS)) as theirs:
        assert sorted(ours.files) == sorted(theirs.files)
        assert all(np.array_equal(ours[name], theirs[name]) for name in ours.files)
    assert read(tmp_path / "one.npz").labels == network().labels


@pytest.mark.parametrize("place", [0, 1000, -1])
def test_weights_with_one_bit_flipped_are_refused(folder, place):
    path = folder / bundled.WEIGHTS
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(PackageError, match=r"action.npz: its SHA-256 is \w{64}, the card says \w{64}: it was altered"):
        bundled.load(folder)


@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: data + b"\0", lambda data: b""])
def test_weights_cut_off_or_with_something_added_are_refused(folder, change):
    path = folder / bundled.WEIGHTS
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(PackageError, match="it was altered"):
        bundled.load(folder)


def test_other_weights_in_a_proper_file_are_refused(folder):
    write(stgcn.random_network(1, ((4, 1),), frames=300), folder / bundled.WEIGHTS)
    with pytest.raises(PackageError, match="it was altered"):
        bundled.load(folder)


@pytest.mark.parametrize("change", [lambda card: card.replace("sha256: ", "sha1: "),
                                    lambda card: card + "\nsha256: " + "0" * 64 + "\n"])
def test_a_card_without_exactly_one_hash_is_refused(folder, change):
    path = folder / bundled.CARD
    path.write_text(change(path.read_text("utf-8")), "utf-8")
    with pytest.raises(PackageError, match="must be one line"):
        bundled.load(folder)


def test_a_card_that_is_no_text_is_refused(folder):
    (folder / bundled.CARD).write_bytes(b"\xff\xfe\xfd")
    with pytest.raises(PackageError, match="ACTION.md: not text"):
        bundled.load(folder)


@pytest.mark.parametrize("name", [bundled.WEIGHTS, bundled.CARD])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(MissingInput, match=name + ": No such file"):
        bundled.load(folder)


def test_the_integer_network_recognises_people_it_never_saw():
    labels, _, integers = judged()
    assert (integers.argmax(1) == labels).mean() >= 0.6  # chance is 0.1


def test_integers_and_floating_point_judge_alike():
    _, floats, integers = judged()
    assert (floats.argmax(1) == integers.argmax(1)).all()
    assert np.abs(floats - integers).max() < 0.05


def test_quantised_again_it_is_the_same_model():
    streams = [tensors.write_tensors(one, bytes(tensors.BLIND_BYTES)) for one in (model(), bundled.model())]
    assert streams[0] == streams[1]


def test_an_empty_scene_is_no_fall():
    _, probabilities = reference.run(model(), np.zeros((0, 300, 18, 3), np.int16))
    assert probabilities[FALLING] < 0.5 * 65536


def test_it_is_packed_and_opened_like_any_other_model():
    key, owner = bytes(range(32)), Ed25519PrivateKey.generate()
    packed = package.pack(model(), key, owner, model_id=bundled.MODEL_ID)
    manifest, opened = package.open_package(packed, key, owner.public_key())
    assert manifest.labels == motion.LABELS
    clip = heldout.clip(0)
    assert np.array_equal(reference.run(opened, clip)[0], reference.run(model(), clip)[0])


def highest_falling(seed, cast):
    """Of a recording's clips through tracker and assembler: the highest probability of falling, and the fall."""
    recording = motion.generate(seed, seconds=20.0, cast=cast)
    falls = [event for event in recording.events if event.label == "falling"]
    tracker, assembler, highest = Tracker(), Assembler(bytes(32)), 0.0
    for index, frame in enumerate(recording.frames):
        at_s = index / recording.fps
        people = [(number, frame[place]) for number, place in tracker.update(at_s, frame)]
        assembler.add(at_s, recording.width, recording.height, people)
        for clip in assembler.due(at_s):
            if not falls or falls[0].end_s < at_s < falls[0].end_s + 6:
                highest = max(highest, reference.run(model(), clip.coordinates)[1][FALLING] / 65536)
    return highest


def test_most_recorded_falls_are_found_through_tracker_and_assembler_and_walks_are_none():
    falls = [highest_falling(seed, ("walking", "falling")) for seed in range(16)]
    walks = [highest_falling(seed, ("walking", "walking")) for seed in range(6)]
    assert sum(one > 0.6 for one in falls) >= 12
    assert sum(one > 0.6 for one in walks) == 0


def test_calibration_has_one_and_two_people():
    clips = bundled.calibration_clips(8)
    assert {len(clip) for clip in clips} == {1, 2}
    assert all(clip.dtype == np.int16 and clip.shape[1:] == (300, 18, 3) for clip in clips)
    assert np.array_equal(clips[3], bundled.calibration_clips(4)[3])
