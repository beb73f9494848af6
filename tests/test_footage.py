"""Training clips of real videos: their labels, and that no clip is met as it is; leaving subjects out."""

import argparse
import csv

import numpy as np
import pytest

pytest.importorskip("mujoco", reason="the physics engine comes with the owner extra: scripts/test --slow installs it")

from edged.camera import motion  # noqa: E402
from edged.camera.recording import Recording  # noqa: E402
from edged.errors import UsageError  # noqa: E402
from edged.train import mixture  # noqa: E402
from edged.train.footage import Footage, label_at  # noqa: E402
from edged.train.realvideo import Video  # noqa: E402

WALK_AND_FALL = (("Walking", 0.0, 2.0), ("Falling", 2.0, 6.0))


def video(subject, spans, name="v", seed=1):
    whole = motion.generate(seed, cast=(motion.WALKING,), seconds=6.0)
    return Video(name, subject, Recording(whole.width, whole.height, whole.fps, whole.frames), spans)


@pytest.mark.parametrize("spans, end_s, label", [
    (WALK_AND_FALL, 1.5, "walking"), (WALK_AND_FALL, 2.0, "walking"), (WALK_AND_FALL, 2.3, None),
    (WALK_AND_FALL, 2.8, "falling"), (WALK_AND_FALL, 6.0, "falling"),
    ((("Sitting", 0.0, 1.0), ("Sleeping", 1.0, 6.0)), 1.5, "sitting"),
    ((("Sitting", 0.0, 1.0), ("Sleeping", 1.0, 6.0)), 4.0, "lying"),
    ((("Reading", 0.0, 6.0), ("Sitting", 0.0, 6.0)), 3.0, "sitting"),
    ((("Sleeping", 0.0, 2.0), ("Sitting", 2.0, 6.0)), 5.0, "sitting"),
    ((("Exercising", 0.0, 6.0),), 3.0, "standing"), ((), 3.0, "standing"),
    ((("Walking", 0.0, 0.5), ("Standing", 0.5, 6.0)), 3.0, "standing"),
    ((("Walking", 0.0, 1.0), ("Standing", 1.0, 6.0)), 5.5, "standing"),
])
def test_a_clips_label_follows_the_authors_spans(spans, end_s, label):
    assert label_at(video(1, spans), end_s) == label


def test_clips_have_the_labels_asked_for_and_each_is_another():
    footage = Footage([video(1, WALK_AND_FALL), video(2, (("Sitting", 0.0, 6.0),), seed=2)])
    assert footage.labels == ("falling", "sitting", "walking")
    rng = np.random.default_rng(3)
    clips = [footage.clip(rng, label) for label in footage.labels for _ in range(10)]
    assert all(clip.shape[1:] == (300, 18, 3) and len(clip) in (1, 2) for clip in clips)
    assert all((clip[..., 2] > 0).any() and np.abs(clip[..., :2]).max() <= 0.5 for clip in clips)
    assert len({clip.tobytes() for clip in clips}) == len(clips)
    # A walk of up to two seconds, at up to 1.2 of its pace, fills no more of its clip.
    walks = [np.flatnonzero(clip[..., 2].any(axis=(0, 2))) for clip in clips[20:]]
    assert all(len(seen) and 300 - seen.min() <= 30 * 2.2 * 1.2 + 2 for seen in walks)


def test_half_of_the_clips_are_mirrored():
    """Who shows the camera a right arm only shows a left one in about half of them."""
    spans = (("Standing", 0.0, 6.0),)
    original = video(1, spans)
    for frame in original.recording.frames:
        frame[:, [5, 6, 7], :] = 0
        frame[:, [2, 3, 4], 2] = np.maximum(frame[:, [2, 3, 4], 2], 0.5)
    footage, rng = Footage([original]), np.random.default_rng(4)
    left = [bool((clip[:, :, 5:8, 2] > 0).sum() > (clip[:, :, 2:5, 2] > 0).sum())
            for clip in (footage.clip(rng, "standing") for _ in range(60))]
    assert 15 < sum(left) < 45


def test_without_videos_there_is_nothing_to_train_on():
    with pytest.raises(UsageError, match="no real videos"):
        Footage([])


@pytest.fixture
def given(tmp_path):
    for subject, seed in ((1, 1), (2, 2)):
        one = video(subject, WALK_AND_FALL, seed=seed).recording
        one.save(str(tmp_path / "Subject_{}_Fall_01.json.gz".format(subject)))
        with open(str(tmp_path / "S{}_Fall.csv".format(subject)), "w", newline="") as file:
            csv.writer(file).writerows([["File Name", "Classes"],
                                        ["01.mp4", "Falling (FW)[2.0 to 6]; Walking[0 to 2.0]"]])
    parser = argparse.ArgumentParser()
    mixture.add_sources(parser)
    return parser.parse_args(["--skeletons", str(tmp_path)])


def test_a_subject_left_out_is_in_no_clip(given, monkeypatch):
    taken = []
    monkeypatch.setattr(mixture, "Footage", lambda videos: taken.extend(videos) or Footage(videos))
    assert [part.name for part in mixture.sources(given, without=2).parts] == ["generated", "real videos"]
    assert [one.subject for one in taken] == [1]
    taken.clear()
    mixture.sources(given)
    assert [one.subject for one in taken] == [1, 2]
