"""The small pose network's training: targets that the decoder reads back, examples, batches, and a step that learns."""

import argparse

import numpy as np
import pytest

for module in ("torch", "cv2", "tqdm", "onnx"):
    pytest.importorskip(module, reason="training needs it: scripts/test --slow installs it")

import torch  # noqa: E402

from edged.camera import zoo  # noqa: E402
from edged.camera.pose import LIMBS, decode  # noqa: E402
from edged.camera.posenet import PoseNetwork  # noqa: E402
from edged.errors import MissingInput, PackageError, UsageError  # noqa: E402
from edged.train import agreement, pose, student, targets, teacher  # noqa: E402
from pose_fixtures import person  # noqa: E402

WIDE, HIGH = 320, 256


def example(*people):
    maps = targets.maps([one[:, :2] for one in people], [one[:, 2] > 0 for one in people], HIGH, WIDE)
    rng = np.random.default_rng(1)
    image = rng.integers(0, 256, (HIGH, WIDE, 3), np.uint8)
    return teacher.Example(image, maps.astype(np.float16))


def read_back(made):
    maps = np.asarray(made.maps, np.float32)
    return decode(maps[:19], maps[19:], 8.0)


def test_the_decoder_finds_in_the_targets_who_was_put_in():
    people = [person(80, 120, 170), person(220, 140, 130, missing=(4, 7, 14))]
    found = sorted(read_back(example(*people)), key=lambda one: one[1, 0])
    assert len(found) == 2
    for one, other in zip(people, found):
        assert np.array_equal(one[:, 2] > 0, other[:, 2] > 0)
        seen = one[:, 2] > 0
        assert np.abs(one[seen, :2] - other[seen, :2]).max() < 2.5


def test_a_joint_that_is_not_seen_has_no_target():
    made = example(person(160, 120, 170, missing=(3,)))
    assert made.maps[3].max() == 0
    fields = np.abs(made.maps[19:].reshape(19, 2, HIGH // 8, WIDE // 8)).max(axis=(1, 2, 3))
    assert [bool(field) for field in fields] == [3 not in limb for limb in LIMBS]


def test_mirrored_twice_is_as_before_and_once_is_the_other_side():
    made = example(person(100, 120, 170, missing=(4, 11)))
    once = teacher.flipped(made, pose._MIRROR, pose.LIMB_MIRROR)
    twice = teacher.flipped(once, pose._MIRROR, pose.LIMB_MIRROR)
    assert np.array_equal(made.maps, twice.maps) and np.array_equal(made.image, twice.image)
    mirrored, = read_back(once)
    assert mirrored[7, 2] == 0 and mirrored[8, 2] == 0 and mirrored[4, 2] > 0
    assert mirrored[2, 0] == pytest.approx(WIDE - 1 - read_back(made)[0][5, 0], abs=0.5)


def test_an_example_is_kept_as_it_is_and_another_file_is_refused(tmp_path):
    made = example(person(100, 120, 170))
    teacher.write(tmp_path / "one.npz", made)
    again = teacher.read(tmp_path / "one.npz")
    assert np.array_equal(again.image, made.image) and np.array_equal(again.maps, made.maps)
    (tmp_path / "two.npz").write_bytes(b"no")
    with pytest.raises(PackageError, match="two.npz: not an example"):
        teacher.read(tmp_path / "two.npz")
    with pytest.raises(MissingInput, match="--prepare"):
        teacher.kept(tmp_path / "none")


def test_a_crop_shows_the_same_in_picture_and_maps(monkeypatch):
    monkeypatch.setattr(pose, "_recoloured", lambda rng, image: image)
    monkeypatch.setattr(pose, "_cluttered", lambda rng, image, maps: image)
    made = example(person(160, 120, 170))
    made.image[:] = 0
    made.image[112:128, 152:168] = 255  # at the hips' middle
    met = 0
    for seed in range(20):
        image, maps, counts = pose.crop(np.random.default_rng(seed), made)
        assert image.shape == (256, 256, 3) and maps.shape == (57, 32, 32) and counts.shape == (32, 32)
        assert ((image == 128).all(2) == (counts == 0).repeat(8, 0).repeat(8, 1)).all()  # grey is outside
        lit = np.argwhere(image.min(2) == 255)
        hips = [np.argwhere(maps[joint] > 0.5) for joint in (8, 11)]
        if len(lit) == 256 and all(len(one) for one in hips):
            met += 1
            assert np.abs(lit.mean(0) - np.mean([one.mean(0) for one in hips], axis=0) * 8 - 3.5).max() < 8
    assert met > 5


def test_clutter_leaves_people_alone():
    made = example(person(128, 120, 200))
    image, maps = made.image[:256, :256], np.asarray(made.maps[:, :32, :32], np.float32)
    changed = np.zeros((256, 256), bool)
    for seed in range(10):
        changed |= (pose._cluttered(np.random.default_rng(seed), image, maps) != image).any(2)
    assert changed.any()
    body = (maps[:18].max(0) > 0.3).repeat(8, 0).repeat(8, 1)
    assert not (changed & body).any()


@pytest.fixture
def examples(tmp_path):
    for kind in ("taught", "rendered"):
        (tmp_path / kind).mkdir()
        for index in range(3):
            teacher.write(tmp_path / kind / "{}.npz".format(index), example(person(100 + 40 * index, 120, 170)))
    return tmp_path


def given(folder, **changes):
    parser = argparse.ArgumentParser()
    pose.add_arguments(parser)
    made = parser.parse_args(["--examples", str(folder), "--out", str(folder / "pose.onnx"), "--steps", "3", "--batch",
                              "2", "--state", str(folder / "state.pt")])
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def test_batches_follow_from_seed_and_step(examples):
    taught, rendered = (teacher.kept(examples / kind) for kind in ("taught", "rendered"))
    one, again = (pose.batch(1, 5, 4, taught, rendered) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(one, again))
    assert not np.array_equal(one[0], pose.batch(1, 6, 4, taught, rendered)[0])


def test_a_run_writes_a_network_that_opencv_loads_and_an_interrupted_one_goes_on(examples, monkeypatch):
    pose.run(given(examples))
    state = torch.load(str(examples / "state.pt"), weights_only=True)
    assert state["step"] == 3
    content = (examples / "pose.onnx").read_bytes()
    assert len(content) <= 4_000_000
    import hashlib
    from dataclasses import replace
    tiny = replace(zoo.MODELS["edged-pose"], name="tiny", sha256=hashlib.sha256(content).hexdigest(), bundled=False)
    monkeypatch.setitem(zoo.MODELS, "tiny", tiny)
    network = PoseNetwork("tiny", examples)
    frame = np.random.default_rng(2).integers(0, 256, (240, 320, 3), np.uint8)
    for picture in (frame, frame[:, :200]):  # of any size
        maps = network.run(picture)
        assert maps.heat.shape[0] == 19 and maps.paf.shape[0] == 38 and np.isfinite(maps.heat).all()
    pose.run(given(examples, steps=3))  # nothing is left to do
    assert torch.load(str(examples / "state.pt"), weights_only=True)["step"] == 3


def test_the_exported_network_is_the_trained_one(examples):
    torch.manual_seed(1)
    made = student.Student().eval()
    content = student.exported(made, 64, 32)
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    x = torch.randn(1, 3, 32, 64)
    heat, paf = session.run(None, {"picture": x.numpy()})
    with torch.no_grad():
        _, maps = made(x)
    assert np.abs(np.concatenate([heat, paf], 1) - maps.numpy()).max() < 1e-4


def test_what_is_needed_for_a_step_is_said(examples):
    for changes in ({"out": None}, {"examples": None}, {"prepare": True}, {"evaluate": True}):
        with pytest.raises(UsageError, match="is needed here"):
            pose.run(given(examples, **changes))


def test_agreement_counts_people_and_joints():
    seen = agreement.Agreement()
    there, gone, other = person(100, 120, 170), person(300, 120, 170), person(500, 120, 170)
    near, off = there.copy(), there.copy()
    near[:9, 0] += 5          # a torso is 61 pixels
    near[4, 0] += 30
    seen.add(np.stack([there, gone]), np.stack([other, near]))
    assert (seen.found, seen.missed, seen.invented, seen.joints, seen.near) == (1, 1, 1, 18, 17)
    off[:, 0] += 60
    seen.add(np.stack([there]), np.stack([off]))
    assert (seen.found, seen.missed, seen.invented) == (1, 2, 2)
    seen.add(np.zeros((0, 18, 3)), np.zeros((0, 18, 3)))
    assert (seen.found, seen.missed, seen.invented) == (1, 2, 2)


def test_videos_that_are_not_there_are_named(tmp_path):
    with pytest.raises(MissingInput, match="no video there is called felix"):
        teacher.videos(tmp_path, ("felix_exercise.avi",))


def test_nothing_of_the_internal_test_data_is_trained_on():
    assert not set(teacher.TRAIN) & set(teacher.HELD_OUT)
    assert not any("vtest" in name or "S3_" in name for name in teacher.TRAIN)
