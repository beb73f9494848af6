"""Rag-dolls take over a pose as it is, fall, stay above the ground, and keep their bones."""

import argparse

import numpy as np
import pytest

pytest.importorskip("mujoco", reason="the physics engine comes with the owner extra")
pytest.importorskip("tqdm", reason="progress bars come with the owner extra")

from edged.camera import motion, puppet, viewpoint
from edged.errors import MissingInput, PackageError, UsageError
from edged.train import humanoid, ragdoll, retarget
from edged.train.ragdoll import Falls

EARS = (puppet.R_EAR, puppet.L_EAR)
RIGID = [pair for pair in puppet.BONES if pair not in ((1, 8), (1, 11))]  # the spine bends


def person(label, seed, frames=60):
    rng = np.random.default_rng(seed)
    return motion.act(rng, label, viewpoint.random_view(rng), frames).people[0]


def lengths(placed):
    return np.stack([np.linalg.norm(placed[:, a] - placed[:, b], axis=-1) for a, b in RIGID], 1)


@pytest.fixture(scope="module")
def falls():
    return [ragdoll.make(3, index, None, None) for index in range(15)]


@pytest.fixture
def library(falls, tmp_path):
    ragdoll.write(ragdoll.Library(3, "", falls), tmp_path / "falls.npz")
    return tmp_path / "falls.npz"


@pytest.mark.parametrize("label", ["standing", "walking", "running", "sitting", "waving"])
def test_a_pose_that_is_taken_is_the_pose_that_is_read(label):
    placed = person(label, 4)
    moved, body = retarget.of_joints(placed)
    doll = humanoid.standing_in(moved, len(placed) - 1, body)
    doll.take(moved, len(placed) - 1, 30.0)
    assert np.abs(doll.joints() - placed[-1]).max() < 0.05
    hips = (puppet.R_HIP, puppet.L_HIP)
    assert np.abs(doll.joints()[list(hips)] - placed[-1, hips]).max() < 1e-5


def test_a_pose_that_is_taken_goes_on_as_fast_as_it_came():
    placed = person("walking", 5)
    moved, body = retarget.of_joints(placed)
    doll = humanoid.standing_in(moved, 20, body)
    doll.take(moved, 20, 30.0)
    speed = (moved.pelvis[20] - moved.pelvis[19]) * 30
    assert np.allclose(doll.data.qvel[:3], speed, atol=1e-6)


def test_the_body_weighs_what_its_height_lets_expect():
    body = puppet.random_body(np.random.default_rng(1))
    moved, _ = retarget.of_joints(person("standing", 1))
    doll = humanoid.standing_in(moved, 10, body)
    assert doll.mass == pytest.approx(23.0 * body.stature ** 2, rel=0.02)


def test_twelve_of_twelve_who_are_pushed_fall():
    people = [person(("standing", "walking")[seed % 2], seed) for seed in range(20)]
    upright = [placed for placed in people if placed[-1, EARS, 2].mean() > 0.9][:12]  # nobody is bending down just then
    down = 0
    for seed, placed in enumerate(upright):
        found = ragdoll.drop(np.random.default_rng((seed, 1)), placed, "standing", ragdoll.PUSH)
        down += found is not None and found.joints[-1, EARS, 2].mean() < ragdoll.DOWN_M
    assert down == 12


@pytest.mark.parametrize("kind", ragdoll.KINDS)
def test_walkers_fall_of_every_cause(kind):
    found = [ragdoll.drop(np.random.default_rng((seed, 2)), person("walking", seed), "walking", kind)
             for seed in range(6)]
    assert sum(one is not None for one in found) >= 5
    assert {one.kind for one in found if one is not None} == {kind}


def test_falls_keep_bones_and_stay_above_the_ground(falls):
    for one in falls:
        placed = one.joints.astype(float)
        assert np.isfinite(placed).all() and placed[one.begins :, :, 2].min() > 0.005
        assert np.ptp(lengths(placed[one.begins :]), axis=0).max() < 1e-4
        assert np.abs(np.diff(placed, axis=0)).max() < 0.7      # 20 m/s
        assert placed[one.begins - 1, EARS, 2].mean() > 0.85 and placed[-1, EARS, 2].mean() < ragdoll.DOWN_M


def test_falls_take_about_as_long_as_peoples_do(falls):
    took = [(ragdoll.landed(one) - one.begins) / 30 for one in falls]
    assert 0.5 < np.median(took) < 1.6 and min(took) > 0.3


def test_at_rest_nothing_moves(falls):
    for one in falls:
        still = one.joints[one.rests :].astype(float)
        if len(still) > 1:
            assert np.abs(np.diff(still, axis=0)).max() * 30 < 0.12 + 1e-3


def test_a_fall_follows_from_seed_and_index(falls):
    again = ragdoll.make(3, 7, None, None)
    assert np.array_equal(again.joints, falls[7].joints) and again[1:] == falls[7][1:]
    assert not np.array_equal(ragdoll.make(4, 7, None, None).joints[:20], falls[7].joints[:20])


def test_who_sits_on_the_floor_does_not_fall():
    placed = person("lying", 3)
    assert ragdoll.drop(np.random.default_rng(1), placed, "lying", ragdoll.PUSH) is None


def test_every_fifth_is_held_out(library):
    assert len(Falls.load(library, "train").falls) == 12 and len(Falls.load(library, "held-out").falls) == 3
    with pytest.raises(UsageError):
        Falls.load(library, "test")


@pytest.mark.parametrize("label", Falls.labels)
def test_performances_show_what_the_label_says(library, label):
    found = Falls.load(library, "train")
    for seed in range(16):
        rng = np.random.default_rng(seed)
        acted = found.act(rng, label, viewpoint.random_view(rng))
        placed, = acted.people
        first, last = acted.shows
        assert placed.shape[1:] == (18, 3) and 2 <= len(placed) <= 300 and np.isfinite(placed).all()
        assert 0 <= first < last <= len(placed) and placed[..., 2].min() > -0.01
        head = placed[:, EARS, 2].mean(1)
        if label == "lying":
            assert head.max() < ragdoll.DOWN_M + 0.1 and len(placed) >= 36
        else:  # half a fall at least
            assert head[first] > 0.8 and head[-1] < 0.85 * head[first]
    with pytest.raises(UsageError):
        found.act(np.random.default_rng(1), "walking", viewpoint.random_view(np.random.default_rng(1)))


def changed(path, **changes):
    with np.load(str(path)) as file:
        arrays = {key: file[key] for key in file.files}
    for key, change in changes.items():
        if change is None:
            del arrays[key]
        else:
            arrays[key] = change(arrays.get(key))
    np.savez(str(path), **arrays)
    return path


@pytest.mark.parametrize("changes", [
    {"seed": None}, {"form": lambda x: np.array("falls")}, {"more": lambda _: np.zeros(1)}, {"ends": lambda x: x + 1},
    {"ends": lambda x: x[::-1]}, {"joints": lambda x: x[:, :17]}, {"joints": lambda x: x * np.nan},
    {"joints": lambda x: x.astype(float)}, {"moments": lambda x: x[:, ::-1]}, {"moments": lambda x: x + 10000},
    {"kind": lambda x: np.array(["fainting"] * len(x))}, {"start": lambda x: x[1:]}, {"seed": lambda x: np.array([1])},
])
def test_a_library_that_is_not_whole_is_refused_in_one_line(library, changes):
    with pytest.raises(PackageError) as error:
        Falls.load(changed(library, **changes))
    assert "\n" not in str(error.value)


def command(*words):
    parser = argparse.ArgumentParser()
    ragdoll.add_arguments(parser)
    return ragdoll.run(parser.parse_args([str(word) for word in words]))


def test_a_library_that_is_gone_on_with_is_the_one_made_in_one_go(tmp_path):
    command("--count", 2, "--seed", 3, "--out", tmp_path / "a.npz")
    command("--count", 4, "--seed", 3, "--out", tmp_path / "a.npz")
    command("--count", 4, "--seed", 3, "--out", tmp_path / "b.npz")
    one, other = ragdoll.read(tmp_path / "a.npz"), ragdoll.read(tmp_path / "b.npz")
    assert len(one.falls) == 4
    assert all(np.array_equal(a.joints, b.joints) for a, b in zip(one.falls, other.falls))


def test_the_command_refuses_what_cannot_be_and_writes_nothing(library, tmp_path):
    before = library.read_bytes()
    for words, error in ((("--count", 0), UsageError), (("--seed", 4), UsageError),
                         (("--corpus", tmp_path / "none.npz", "--seed", 3), MissingInput)):
        with pytest.raises(error):
            command("--out", library, *words)
    assert library.read_bytes() == before and {path.name for path in tmp_path.iterdir()} == {"falls.npz"}
