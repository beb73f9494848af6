"""The bundled sample: its truth is what was rendered, its pictures show it, and the code still makes it."""

import json

import numpy as np
import pytest

pytest.importorskip("cv2", reason="the sample is a video: pip install 'edged[node]'")

from edged import staged  # noqa: E402
from edged.camera.capture import open_source  # noqa: E402
from edged.camera.puppet import L_ANKLE, L_HIP, NECK, R_ANKLE, R_HIP  # noqa: E402
from edged.errors import MissingInput, PackageError  # noqa: E402
from edged.train import sample  # noqa: E402
from edged.train.plaza import VIEW, plaza  # noqa: E402

BYTES_MAX = 4 << 20
SHORTEST_S, LONGEST_S = 20, 40


@pytest.fixture(scope="module")
def truth():
    return staged.load(staged.FOLDER / staged.TRUTH)


@pytest.fixture(scope="module")
def parts(truth):
    return sample.play(truth.seed)


@pytest.fixture(scope="module")
def film():
    """Every third picture in grey, (n, H, W), and the time of each."""
    pictures, times = [], []
    with open_source(str(staged.FOLDER / staged.VIDEO), 5.0) as capture:
        while True:
            frame = capture.read()
            if frame is None:
                return np.stack(pictures), np.array(times)
            pictures.append(frame.image.mean(-1).astype(np.uint8))
            times.append(frame.at_s)


def test_the_video_is_what_its_truth_says(truth, film):
    pictures, times = film
    assert (staged.FOLDER / staged.VIDEO).stat().st_size <= BYTES_MAX
    assert pictures.shape[1:] == (truth.height, truth.width)
    assert SHORTEST_S <= truth.frames / truth.fps <= LONGEST_S
    assert abs(times[-1] - (truth.frames - 1) / truth.fps) < 0.25


def test_several_walk_and_one_falls_and_stays_down(truth):
    (fall,) = truth.of("falling")
    (lying,) = truth.of("lying")
    walkers = {event.person for event in truth.of("walking")} - {fall.person}
    assert len(walkers) >= 2 and lying.person == fall.person
    assert fall.start_s > 10 and lying.start_s == fall.end_s  # ten seconds are one clip
    assert lying.end_s == truth.frames / truth.fps and lying.end_s - lying.start_s > 10


def test_the_code_still_plays_what_was_rendered(truth, parts):
    assert sample.truth(truth.seed, VIEW, parts) == json.loads(
        (staged.FOLDER / staged.TRUTH).read_text(encoding="utf-8"))


def test_everybody_does_what_the_truth_says(truth, parts):
    for event in truth.events:
        joints = parts[event.person].joints[int(event.start_s * sample.FPS):int(event.end_s * sample.FPS)]
        hips = joints[:, [R_HIP, L_HIP]].mean(1)
        gone = np.hypot(*np.ptp(hips[:, :2], axis=0))
        if event.label == "walking":
            assert gone > 0.5 * (event.end_s - event.start_s)
        elif event.label in ("standing", "waving", "sitting"):
            assert gone < 0.5
        elif event.label == "lying":
            assert (joints[:, [NECK, R_HIP, L_HIP], 2] < 0.45).all()
        else:
            assert event.label == "falling" and hips[0, 2] > 0.7 and hips[-1, 2] < 0.35
        assert (joints[:, [R_ANKLE, L_ANKLE], 2] > 0).all()


def test_nobody_else_is_near_the_faller_from_the_fall_on(truth, parts):
    (fall,) = truth.of("falling")
    down = parts[fall.person].joints[int(fall.start_s * sample.FPS):, NECK, :2]
    for number, part in enumerate(parts):
        if number != fall.person:
            away = np.hypot(*(part.joints[int(fall.start_s * sample.FPS):, NECK, :2] - down).T)
            assert away.min() > 2.5


def test_each_box_of_the_truth_holds_somebody_in_the_pictures(truth, film):
    pictures, times = film
    empty = np.median(pictures[::3], axis=0)
    checked = 0
    for person, boxes in truth.boxes.items():
        still = {event.label for event in truth.events if event.person == person} & {"standing", "sitting", "waving"}
        for time_s, left, top, right, bottom in boxes[::4]:
            at = int(np.argmin(np.abs(times - time_s)))
            if still or (right - left) * (bottom - top) < 2500 or abs(times[at] - time_s) > 0.1:
                continue  # who never moves is a part of the median
            part = np.abs(pictures[at].astype(float) - empty)[int(top):int(bottom), int(left):int(right)]
            lies = any(event.person == person and event.label == "lying" and time_s > event.start_s
                       for event in truth.events)
            if not lies:
                assert (part > 18).mean() > 0.12, (person, time_s)
                checked += 1
    assert checked > 10


def test_the_square_is_the_same_every_time_and_of_the_views_size():
    one, other = plaza(), plaza()
    assert np.array_equal(one.image, other.image) and one.image.shape == (VIEW.height, VIEW.width, 3)
    assert np.isfinite(one.depth).any() and np.isinf(one.depth).mean() > 0.7  # some furniture, much room


def test_who_is_where_is_found_by_the_nearest_box(truth):
    (fall,) = truth.of("falling")
    box = truth.box(fall.person, fall.end_s + 2)
    x, y = 0.5 * (box[1] + box[3]), 0.5 * (box[2] + box[4])
    assert truth.nearest(fall.end_s + 2, x, y) == fall.person
    assert truth.nearest(fall.end_s + 2, -4000.0, -4000.0) is None
    assert truth.box(fall.person, 1e6) is None and truth.box(99, 0.0) is None


@pytest.mark.parametrize("text, words", [
    ("{", "not the truth"), ("[]", "not the truth"), ('{"schema": 2}', "schema 2"), ('{"schema": 1}', "not the truth"),
])
def test_a_damaged_truth_is_one_error(tmp_path, text, words):
    path = tmp_path / "sample.json"
    path.write_text(text)
    with pytest.raises(PackageError, match=words):
        staged.load(path)


def test_a_missing_truth_is_missing_input(tmp_path):
    with pytest.raises(MissingInput):
        staged.load(tmp_path / "sample.json")
