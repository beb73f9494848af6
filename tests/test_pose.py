"""Decoding heat maps and affinity fields: maps of known people, slow twins, real films."""

import gzip
import json

import numpy as np
import pytest

from edged.camera import pose
from edged.errors import ShapeError
from pose_fixtures import maps, needs, person

CELL = 8.0


def decode(people, **given):
    """What is found in the maps of people given in cells, back in cells."""
    found = pose.decode(*maps(people), cell=1.0, **given)
    return found


def same_people(found, expected, within=0.15):
    """Each expected person is found once, keypoint by keypoint, and nobody else."""
    assert len(found) == len(expected)
    left = list(range(len(found)))
    for one in expected:
        known = one[:, 2] > 0
        distance = [np.abs(found[index][known, :2] - one[known, :2]).max() for index in left]
        best = left.pop(int(np.argmin(distance)))
        assert min(distance) < within
        assert ((found[best][:, 2] > 0) == known).all()
        np.testing.assert_allclose(found[best][known, 2], one[known, 2], atol=0.35)
        assert (found[best][~known] == 0).all()


def test_one_person_is_found_keypoint_by_keypoint():
    same_people(decode([person(20.3, 15.7, 24)]), [person(20.3, 15.7, 24)])


def test_cells_become_frame_pixels_of_the_cells_centre():
    heat, paf = maps([person(20, 15, 24)])
    cells, pixels = pose.decode(heat, paf), pose.decode(heat, paf, cell=CELL)
    np.testing.assert_allclose(pixels[..., :2], (cells[..., :2] + 0.5) * CELL - 0.5, atol=1e-3)
    assert pixels.shape == (1, 18, 3) and pixels.dtype == np.float32


def test_many_people_are_kept_apart():
    crowd = [person(x, y, tall) for x, y, tall in
             ((6, 16, 24), (15, 14, 20), (23, 17, 22), (31, 13, 18), (39, 16, 26), (49, 15, 20))]
    same_people(decode(crowd), crowd)


def test_the_order_of_channels_is_the_order_of_limbs():
    heat, paf = maps([person(20, 15, 24)])
    swapped = paf.copy()
    swapped[[2, 3, 4, 5]] = paf[[4, 5, 2, 3]]
    found = pose.decode(heat, swapped)
    assert not found[0][3, 2] or not found[0][5, 2]


def test_people_who_cross_keep_their_own_limbs():
    left, right = person(36, 32, 52), person(44, 32, 52)
    left[:, 0] -= (left[:, 1] - 32) * 0.3  # heads apart the one way, feet the other: trunks and legs cross
    right[:, 0] += (right[:, 1] - 32) * 0.3
    assert left[0, 0] > right[0, 0] and left[10, 0] < right[10, 0]
    same_people(pose.decode(*maps([left, right], 64, 80)), [left, right], within=0.5)


def test_a_missing_joint_is_zero_and_what_hangs_on_it_is_lost():
    whole, maimed = person(14, 15, 24), person(38, 15, 24, missing=(3, 9))
    found = decode([whole, maimed])
    # Without elbow and knee nothing leads to wrist and ankle: that is this method's limit.
    expected = person(38, 15, 24, missing=(3, 4, 9, 10))
    same_people(found, [whole, expected])


def test_nobody_gives_an_empty_array_of_the_same_form():
    assert decode([]).shape == (0, 18, 3)
    noise = np.random.default_rng(5).normal(0, 0.02, (19, 32, 57)).astype(np.float32)
    assert pose.decode(noise, np.zeros((38, 32, 57), np.float32)).shape == (0, 18, 3)


def test_two_parts_of_a_person_become_one_when_a_limb_joins_them():
    # The strongest limbs are the legs' and the arms': both halves exist before neck and hips are joined.
    heat, paf = maps([person(28, 15, 26)])
    for limb in (6, 9):
        paf[2 * limb:2 * limb + 2] *= 0.4
    same_people(pose.decode(heat, paf), [person(28, 15, 26)])


def test_without_that_limb_they_stay_two():
    heat, paf = maps([person(28, 15, 26)])
    for limb in (6, 9, 12, 13, 14, 15, 16, 17, 18):
        paf[2 * limb:2 * limb + 2] = 0
    found = pose.decode(heat, paf, parts_min=3)
    assert sorted((one[:, 2] > 0).sum() for one in found) == [3, 3, 7]


def test_of_two_people_who_share_a_limb_one_has_it():
    one, other = person(22, 15, 24), person(30, 15, 24)
    other[[2, 3, 4]] = one[[5, 6, 7]]  # her right arm is his left arm, drawn once
    other[2, 0] += 0.1
    found = decode([one, other])
    assert len(found) == 2
    places = [tuple(np.round(found[index][joint, :2], 3)) + (joint,)
              for index in range(2) for joint in range(18) if found[index][joint, 2]]
    assert len(set(places)) == len(places)
    for whole, expected in zip(sorted(found, key=lambda person_: person_[10, 0]), (one, other)):
        np.testing.assert_allclose(whole[[10, 13], :2], expected[[10, 13], :2], atol=0.2)


def test_of_two_candidates_the_field_decides():
    one = person(28, 15, 26)
    heat, paf = maps([one])
    ghost = one[4].copy()
    ghost[:2] += (-4, 1)  # a second wrist, as strong, to which no field leads
    heat[4] = np.maximum(heat[4], maps([np.where(np.arange(18)[:, None] == 4, ghost, 0)])[0][4])
    assert (pose.find_peaks(heat[:18]).joint == 4).sum() == 2
    same_people(pose.decode(heat, paf), [one])


def test_of_two_candidates_on_one_field_the_better_line_wins_and_neither_is_used_twice():
    first, second = person(20, 15, 24), person(23, 15, 24)
    found = decode([first, second])
    assert len(found) == 2
    same_people(found, [first, second], within=0.6)


def test_few_keypoints_or_little_confidence_are_nobody():
    head = person(28, 15, 26, missing=range(2, 14))
    assert len(decode([head])) == 1
    assert len(decode([head], parts_min=7)) == 0
    faint = maps([person(28, 15, 26, confidence=0.15)], strength=0.1)
    assert len(pose.decode(*faint)) == 0 and len(pose.decode(*faint, score_min=0.2)) == 1


def test_the_best_person_comes_first():
    found = decode([person(14, 15, 24, confidence=0.5), person(38, 15, 24, confidence=0.9)])
    assert found[0][1, 0] > found[1][1, 0]


def test_at_the_rim_of_the_frame_no_coordinate_is_negative():
    heat, paf = maps([person(1.6, 11, 24)])
    assert pose.find_peaks(heat[:18]).x.min() == 0.0
    for cell in (CELL, 0.5):
        found = pose.decode(heat, paf, cell=cell)
        assert len(found) == 1 and (found >= 0).all()


@pytest.mark.parametrize("x, y, column, row", [
    (0.2, 8.7, 0, 8.7), (12.9, 8.3, 13, 8.3), (6.3, 0.1, 6.3, 0), (6.6, 15.4, 6.6, 15), (-0.6, 8.0, 0, 8)])
def test_a_peak_at_the_rim_is_placed_at_its_cells_centre(x, y, column, row):
    one = np.zeros((18, 3))
    one[7] = x, y, 0.8
    peaks = pose.find_peaks(maps([one], 16, 14)[0][:18])
    assert abs(peaks.x[0] - column) < 0.02 and abs(peaks.y[0] - row) < 0.02


def test_a_limb_longer_than_half_the_maps_is_worth_less():
    heat, paf = maps([person(28, 15, 26)])
    peaks = pose.Peaks(np.array([1, 2, 2]), np.array([5.0, 9.0, 45.0]), np.full(3, 8.0), np.ones(3))
    field = np.zeros_like(paf)
    field[0] = 1.0
    links = pose.score_links(peaks, field)
    assert links.end.tolist() == [1, 2]
    np.testing.assert_allclose(links.score, [1.0, 0.5 * 32 / 40])


def linked(joints, *links):
    """Peaks of these keypoints, and links (limb, start, end, score) as score_links gives them."""
    peaks = pose.Peaks(np.array(joints), np.zeros(len(joints)), np.zeros(len(joints)), np.full(len(joints), 0.9))
    links = sorted(links, key=lambda link: -link[3])
    return peaks, pose.Links(*(np.array(column) for column in zip(*links)))


def people_of(peaks, links, parts_min=2):
    return sorted(sorted(members) for members in pose.assemble(peaks, links, parts_min, 0.0))


def test_no_peak_is_in_two_links_of_one_limb():
    _, links = linked([1, 1, 2, 2], (0, 0, 2, .9), (0, 1, 2, .8), (0, 0, 3, .7), (0, 1, 3, .2), (1, 0, 2, .1))
    kept = pose.choose(links)
    assert list(zip(kept.limb, kept.start, kept.end)) == [(0, 0, 2), (0, 1, 3), (1, 0, 2)]


def test_two_who_both_have_a_neck_are_not_joined_by_a_limb():
    # Neck 0 - right shoulder 1; neck 2 - left shoulder 3 - elbow 4; and a stray limb from neck 0 to shoulder 3.
    peaks, links = linked([1, 2, 1, 5, 6], (0, 0, 1, .9), (1, 2, 3, .8), (4, 3, 4, .7), (1, 0, 3, .1))
    assert people_of(peaks, links) == [[0, 1], [2, 3, 4]]


def test_a_place_that_is_taken_stays_taken():
    # Two right elbows at one shoulder, by limbs of one kind that nothing filtered: the better one has the place.
    peaks, links = linked([1, 2, 3, 3], (0, 0, 1, .9), (2, 1, 2, .8), (2, 1, 3, .7))
    assert people_of(peaks, links) == [[0, 1, 2]]


def test_a_head_that_only_the_ear_holds_is_joined_to_its_trunk():
    # Nose 0 - eye 1 - ear 2; neck 3 - shoulder 4; the strongest of all is shoulder to ear.
    peaks, links = linked([0, 14, 16, 1, 2], (17, 4, 2, .95), (13, 0, 1, .9), (14, 1, 2, .8), (0, 3, 4, .7))
    assert people_of(peaks, links) == [[0, 1, 2, 3, 4]]


def test_shoulder_and_ear_alone_are_nobody():
    peaks, links = linked([2, 16], (17, 0, 1, .9))
    assert people_of(peaks, links) == []


def test_more_peaks_than_the_bound_keep_the_strongest():
    heat = np.zeros((18, 40, 60), np.float32)
    heat[3, ::3, ::3] = np.linspace(0.2, 0.9, 14 * 20).reshape(14, 20)
    peaks = pose.find_peaks(heat)
    assert len(peaks.joint) == pose.PEAKS_MAX
    assert peaks.confidence.min() >= np.sort(heat[3].ravel())[-pose.PEAKS_MAX]


def test_noise_all_over_stays_bounded():
    noise = np.random.default_rng(1)
    heat, paf = noise.random((19, 32, 57), np.float32), noise.normal(0, 1, (38, 32, 57)).astype(np.float32)
    found = pose.decode(heat, paf)
    assert np.isfinite(found).all() and (found[..., 2] <= 1).all()


@pytest.mark.parametrize("heat, paf", [
    ((17, 8, 8), (38, 8, 8)), ((19, 8, 8), (38, 8, 9)), ((19, 8, 8), (37, 8, 8)), ((8, 8), (38, 8, 8))])
def test_maps_that_do_not_fit_together_are_refused(heat, paf):
    with pytest.raises(ShapeError, match="heat maps of"):
        pose.decode(np.zeros(heat, np.float32), np.zeros(paf, np.float32))


@pytest.mark.parametrize("height, width", [(1, 1), (1, 9), (9, 1), (2, 2)])
def test_maps_of_hardly_any_cell_are_decoded(height, width):
    assert len(pose.decode(np.ones((19, height, width), np.float32), np.ones((38, height, width), np.float32))) == 0


def slow_peaks(heat):
    """By loops: a cell that is above all neighbours before it and not below those after it."""
    found = []
    for joint, rows in enumerate(heat):
        for (row, column), value in np.ndenumerate(rows):
            near = [(r, c) for r in (row - 1, row, row + 1) for c in (column - 1, column, column + 1)
                    if (r, c) != (row, column) and 0 <= r < rows.shape[0] and 0 <= c < rows.shape[1]]
            if value >= pose.PEAK_MIN and all(
                    value > rows[place] if place_before((row, column), place) else value >= rows[place]
                    for place in near):
                found.append((joint, row, column))
    return found


def place_before(here, there):
    """Whether a tie with ``there`` is lost: it lies above, or left, or above to the right ... of ``here``."""
    down, right = there[0] - here[0], there[1] - here[1]
    return (down, right) in ((0, -1), (-1, 1), (-1, 0), (-1, -1))


def test_peaks_equal_their_slow_twin():
    random = np.random.default_rng(3)
    heat = np.round(random.random((18, 12, 14)), 1).astype(np.float32)  # rounded: plateaus
    peaks = pose.find_peaks(heat)
    expected = slow_peaks(heat)
    assert peaks.joint.tolist() == [joint for joint, _, _ in expected]
    for x, y, (_, row, column) in zip(peaks.x, peaks.y, expected):
        assert abs(x - column) <= 0.5 and abs(y - row) <= 0.5


def test_the_line_integral_equals_its_slow_twin():
    random = np.random.default_rng(4)
    heat, paf = random.random((18, 10, 12)).astype(np.float32), random.normal(0, 1, (38, 10, 12)).astype(np.float32)
    peaks = pose.find_peaks(heat)
    links = pose.score_links(peaks, paf)
    got = {(limb, start, end): score for limb, start, end, score in zip(*(column.tolist() for column in links))}
    expected = {}
    for limb, (a, b) in enumerate(pose.LIMBS):
        for start in np.nonzero(peaks.joint == a)[0].tolist():
            for end in np.nonzero(peaks.joint == b)[0].tolist():
                along = np.array([peaks.x[end] - peaks.x[start], peaks.y[end] - peaks.y[start]])
                length = np.hypot(*along) + 1e-9
                values = []
                for share in np.linspace(0, 1, pose.SAMPLES):
                    x, y = peaks.x[start] + share * along[0], peaks.y[start] + share * along[1]
                    values.append(sum(bilinear(paf[2 * limb + axis], x, y) * along[axis] / length for axis in (0, 1)))
                score = np.mean(values) + min(0.5 * 10 / length - 1, 0)
                if np.mean(np.array(values) > pose.SAMPLE_MIN) >= pose.SAMPLE_SHARE and score > 0:
                    expected[limb, start, end] = score
    assert got.keys() == expected.keys() and len(got) > 20
    for link, score in expected.items():
        assert got[link] == pytest.approx(score, abs=1e-6)


def bilinear(field, x, y):
    x, y = min(max(x, 0), field.shape[1] - 1), min(max(y, 0), field.shape[0] - 1)
    left, top = min(int(x), field.shape[1] - 2), min(int(y), field.shape[0] - 2)
    right, low = x - left, y - top
    return ((1 - right) * (1 - low) * field[top, left] + right * (1 - low) * field[top, left + 1]
            + (1 - right) * low * field[top + 1, left] + right * low * field[top + 1, left + 1])


def test_a_peak_between_cells_is_placed_within_a_fiftieth_of_a_cell():
    random = np.random.default_rng(6)
    for x, y in random.uniform(10, 20, (20, 2)):
        one = np.zeros((18, 3))
        one[7] = x, y, 0.8
        peaks = pose.find_peaks(maps([one])[0][:18])
        assert abs(peaks.x[0] - x) < 0.02 and abs(peaks.y[0] - y) < 0.02


@pytest.mark.parametrize("film, extracted, frames, people", [
    ("felix_exercise.avi", "felix_exercise", (0, 100, 200, 300), 3),
    ("gmdcsa24/S1_Fall_13.mp4", "Subject_1_Fall_13", (0, 30, 60), 1),
])
def test_people_of_a_film_are_where_another_decoder_found_them(film, extracted, frames, people):
    cv2 = pytest.importorskip("cv2")
    from edged.camera.posenet import PoseNetwork

    other = json.loads(gzip.open(str(needs("skeleton/derived/{}.json.gz".format(extracted)))).read())
    network = PoseNetwork("human-pose-estimation-0001", needs("pose"))
    handle = cv2.VideoCapture(str(needs("video/" + film)))
    seen = 0
    for index in range(max(frames) + 1):
        assert handle.grab()
        if index not in frames:
            continue
        found = pose.decode(*network.run(handle.retrieve()[1]))
        theirs = [np.array(one["pose_keypoints_2d"]).reshape(18, 3)
                  for one in other["frames"][index // other["frame_stride"]]["people"]]
        assert other["frames"][index // other["frame_stride"]]["frame_index"] == index
        assert len(found) >= people
        for one in theirs:
            known = one[:, 2] > 0
            if known.sum() < 10:
                continue
            # Stretched and placed to whole cells there: 5 % of a body's height is their grain, not our error.
            tall = np.ptp(one[known, 1])
            near = [np.median(np.hypot(*(mine[both, :2] - one[both, :2]).T)) / tall
                    for mine in found for both in [known & (mine[:, 2] > 0)] if both.sum() >= 0.7 * known.sum()]
            assert near and min(near) < 0.05
            seen += 1
    handle.release()
    assert seen >= people * (len(frames) - 1)
