"""Tracking: known people who walk, cross, hide and jitter; the exact assignment; a real film."""

import itertools

import numpy as np
import pytest

from edged.camera import pose
from edged.camera.track import Tracker, assignment, similarity
from edged.errors import ShapeError
from pose_fixtures import STANDING, needs, person


def walk(tracker, people, seconds, rate=10.0, start_s=0.0, shuffled=None):
    """Tracks of each person over time: people are functions of seconds, giving (18, 3) or None where unseen."""
    tracks = [[] for _ in people]
    for step in range(int(round(seconds * rate)) + 1):
        time_s = step / rate
        seen = [(index, made) for index, made in enumerate(one(time_s) for one in people) if made is not None]
        if shuffled is not None:
            seen = [seen[place] for place in shuffled.permutation(len(seen))]
        given = np.array([made for _, made in seen]).reshape(-1, 18, 3)
        for number, place in tracker.update(start_s + time_s, given):
            tracks[seen[place][0]].append(number)
    return tracks


def walker(x, y, tall, speed=0.0, missing=()):
    """A person whose hips are at x + speed * t; arms and legs swing at a walking pace."""
    def at(time_s):
        made = person(x + speed * time_s, y, tall, missing=missing)
        swing = np.sin(2 * np.pi * 0.9 * time_s + x) * tall
        made[[9, 10, 6, 7], 0] += swing * np.array([.1, .22, .05, .1])
        made[[12, 13, 3, 4], 0] -= swing * np.array([.1, .22, .05, .1])
        made[list(missing)] = 0
        return made
    return at


def hidden(one, from_s, to_s):
    return lambda time_s: None if from_s < time_s < to_s else one(time_s)


def shaky(one, seed, pixels, lost=0.15):
    random = np.random.default_rng(seed)

    def at(time_s):
        made = one(time_s)
        made[:, :2] += random.normal(0, pixels, (18, 2))
        made[random.random(18) < lost] = 0
        return made
    return at


@pytest.mark.parametrize("rate", [5.0, 10.0, 25.0])
def test_a_walker_is_one_track_from_the_first_frame_on(rate):
    tracks = walk(Tracker(), [walker(50, 200, 160, speed=150)], 4, rate)
    assert tracks == [[1] * (int(4 * rate) + 1)]


def test_the_answer_says_which_person_has_which_track():
    left, right = person(100, 200, 150), person(400, 200, 150)
    tracker = Tracker(first=7)
    assert tracker.update(0.0, np.stack([left, right])) == [(7, 0), (8, 1)]
    assert tracker.update(0.1, np.stack([right, left])) == [(8, 0), (7, 1)]
    assert tracker.update(0.2, np.stack([right])) == [(8, 0)]
    assert tracker.update(0.3, np.zeros((0, 18, 3))) == []


@pytest.mark.parametrize("rate", [5.0, 10.0])
def test_people_who_cross_keep_their_tracks(rate):
    crowd = [walker(100, 200, 150, speed=120), walker(500, 205, 150, speed=-110), walker(300, 198, 150, speed=5)]
    tracks = walk(Tracker(), crowd, 4, rate, shuffled=np.random.default_rng(1))
    assert [set(one) for one in tracks] == [{one[0]} for one in tracks]
    assert len({one[0] for one in tracks}) == 3


def test_who_is_hidden_while_crossing_comes_back_as_himself():
    behind = hidden(walker(100, 200, 140, speed=120), 1.5, 2.6)
    tracks = walk(Tracker(), [behind, walker(500, 210, 160, speed=-90)], 4)
    assert set(tracks[0]) == {1} and set(tracks[1]) == {2}


def test_one_who_stays_away_for_longer_is_somebody_new():
    tracks = walk(Tracker(max_age_s=1.0), [hidden(walker(300, 200, 150), 1.0, 2.5)], 4)
    assert set(tracks[0]) == {1, 2}
    tracks = walk(Tracker(max_age_s=2.0), [hidden(walker(300, 200, 150), 1.0, 2.5)], 4)
    assert set(tracks[0]) == {1}


def test_people_who_leave_and_enter_get_numbers_never_used_before():
    tracker = Tracker(max_age_s=1.0)
    seen = []
    for guest in range(5):
        tracks = walk(tracker, [walker(300, 200, 150, speed=40)], 1, start_s=3.0 * guest)
        seen.append(set(tracks[0]))
    assert seen == [{1}, {2}, {3}, {4}, {5}]


def test_one_who_enters_where_another_left_long_ago_is_new_and_one_far_away_is_new_at_once():
    near = [hidden(walker(300, 200, 150), 1.0, 9.0), lambda time_s: person(600, 200, 150) if time_s > 1.05 else None]
    tracks = walk(Tracker(), near, 2)
    assert set(tracks[0]) == {1} and set(tracks[1]) == {2}


@pytest.mark.parametrize("rate", [5.0, 10.0])
def test_jitter_and_missing_joints_do_not_break_a_track(rate):
    crowd = [shaky(walker(120 + 150 * place, 200, 110, speed=25), place, 4.0) for place in range(4)]
    tracks = walk(Tracker(), crowd, 5, rate, shuffled=np.random.default_rng(2))
    assert [set(one) for one in tracks] == [{one[0]} for one in tracks]
    assert len({one[0] for one in tracks}) == 4


def test_one_who_shows_now_the_upper_and_now_the_lower_half_stays_the_same():
    whole, legs, trunk = walker(300, 200, 150), tuple(range(8, 14)), (0, 2, 3, 4, 5, 6, 7, 14, 15, 16, 17)
    halves = [whole, walker(300, 200, 150, missing=legs), walker(300, 200, 150, missing=trunk)]
    for rate in (5.0, 25.0):
        assert set(walk(Tracker(), [lambda time_s: halves[int(2 * time_s) % 3](time_s)], 4, rate)[0]) == {1}


def test_a_fragment_goes_on_with_a_track_but_founds_none():
    whole, fragment = person(300, 200, 150), person(300, 200, 150, missing=range(3, 18))
    assert Tracker().update(0.0, fragment[None]) == []
    tracker = Tracker()
    assert tracker.update(0.0, whole[None]) == tracker.update(0.1, fragment[None]) == [(1, 0)]


def test_somebody_who_falls_stays_the_same():
    def falling(time_s):
        turn = min(max(time_s - 1.0, 0.0), 0.8) / 0.8 * np.pi / 2
        made = person(0, -75, 150)
        x, y = made[:, 0].copy(), made[:, 1].copy()
        made[:, 0], made[:, 1] = x * np.cos(turn) - y * np.sin(turn) + 300, x * np.sin(turn) + y * np.cos(turn) + 280
        return made
    for rate in (5.0, 10.0):
        assert set(walk(Tracker(), [falling], 3, rate)[0]) == {1}


def test_of_two_candidates_the_more_confident_keypoints_decide():
    track = np.stack([person(300, 200, 150)])
    sure, unsure = person(300, 200, 150), person(300, 200, 150)
    for one, arm in ((sure, 0.1), (unsure, 0.9)):
        one[[3, 4, 6, 7], 0] += 60  # the arms are elsewhere
        one[[3, 4, 6, 7], 2] = arm
    scores = similarity(track, np.stack([sure, unsure]), np.array([75.0]), np.array([0.0]))
    assert scores[0, 0] > scores[0, 1]


def test_similarity_is_one_for_the_same_and_falls_with_distance_size_and_drift():
    one = person(300, 200, 150)
    box = one[:, :2].max(axis=0) - one[:, :2].min(axis=0)
    scale = np.array([0.5 * np.hypot(*box)])
    still = np.zeros(1)
    others = np.stack([person(x, 200, tall) for x, tall in ((300, 150), (310, 150), (340, 150), (300, 300))])
    scores = similarity(one[None], others, scale, still)[0]
    assert scores[0] == pytest.approx(1.0) and scores[0] > scores[1] > scores[2] and scores[3] < 0.5
    assert similarity(one[None], others, scale, np.ones(1))[0, 0] < scores[0]
    # Where one has to look far, the place says little, the size still something.
    far = similarity(one[None], others, scale, np.full(1, 5.0))[0]
    assert far[3] < 0.85 * far[0] and far[2] > 0.95 * far[0]
    # With some drift a pose half a scale away still fits better than its centre alone would.
    assert similarity(one[None], others, scale, np.full(1, 0.5))[0, 2] > 0.34
    # Nothing in common: by centres, and never as sure.
    halves = np.stack([person(300, 200, 150, missing=range(9)), person(300, 200, 150, missing=range(9, 18))])
    assert 0 < similarity(halves[:1], halves[1:], scale, np.ones(1))[0, 0] <= 0.5


def test_where_time_goes_back_everybody_is_new():
    tracker = Tracker()
    assert tracker.update(50.0, person(300, 200, 150)[None]) == [(1, 0)]
    assert tracker.update(0.0, person(300, 200, 150)[None]) == [(2, 0)]
    assert tracker.update(0.0, person(301, 200, 150)[None]) == [(2, 0)]
    assert tracker.update(0.5, person(301, 200, 150)[None]) == [(2, 0)]
    assert tracker.update(0.4, person(301, 200, 150)[None]) == [(3, 0)]


@pytest.mark.parametrize("people", [
    np.zeros((18, 3)), np.zeros((1, 17, 3)), np.zeros((1, 18, 2)), np.full((1, 18, 3), np.nan)],
    ids=["one person bare", "17 joints", "no confidence", "nan"])
def test_another_form_is_refused(people):
    with pytest.raises(ShapeError, match="people of"):
        Tracker().update(0.0, people)


@pytest.mark.parametrize("rows, columns", [(0, 0), (0, 3), (3, 0), (1, 1), (2, 5), (5, 2), (4, 4), (6, 6), (3, 7)])
def test_the_assignment_is_the_best_of_all(rows, columns):
    random = np.random.default_rng(rows * 10 + columns)
    for round_ in range(20):
        gain = random.random((rows, columns))
        if round_ % 2:
            gain = np.round(gain * 3) / 3 * (gain > 0.5)  # ties and zeros
        chosen = assignment(gain)
        taken = [column for column in chosen if column >= 0]
        assert len(taken) == len(set(taken)) == min(rows, columns)
        wide = gain if rows <= columns else gain.T
        best = max((sum(wide[row, column] for row, column in enumerate(columns_))
                    for columns_ in itertools.permutations(range(wide.shape[1]), wide.shape[0])), default=0)
        assert sum(gain[row, column] for row, column in enumerate(chosen) if column >= 0) == pytest.approx(best)


def test_the_best_sum_may_deny_somebody_his_nearest():
    assert assignment(np.array([[0.9, 0.8], [0.85, 0.1]])) == [1, 0]


def crowd_of(seed, rate, seconds=15, count=6):
    """Passers-by of all sizes in 640 x 480 who hide each other and leave at the rims: (time, who, people) per frame."""
    random = np.random.default_rng(seed)
    who = [(tall, random.uniform(0, 640), random.uniform(200, 300),
            random.choice([-1, 1]) * tall * random.uniform(.3, 1)) for tall in random.uniform(60, 160, count)]
    for step in range(int(seconds * rate)):
        seen, boxes = [], []
        for name, (tall, x, y, speed) in sorted(enumerate(who), key=lambda one: -one[1][0]):
            lap, place = divmod(x + speed * step / rate, 640)
            made = walker(x, y, tall)(step / rate)
            made[:, 0] += place - x
            low, high = made[:, :2].min(axis=0), made[:, :2].max(axis=0)
            hidden_ = any(np.maximum(0, np.minimum(high, top) - np.maximum(low, bottom)).prod()
                          > 0.6 * (high - low).prod() for bottom, top in boxes)
            boxes.append((low, high))
            if hidden_ or random.random() < 0.1:
                continue
            made[:, :2] += random.normal(0, 0.03 * tall, (18, 2))
            made[:, 2] = random.uniform(.3, .9, 18)
            made[random.random(18) < 0.15] = 0
            seen.append(((name, int(lap)), made))
        order = random.permutation(len(seen))
        yield step / rate, [seen[place][0] for place in order], np.array(
            [seen[place][1] for place in order]).reshape(-1, 18, 3)


@pytest.mark.parametrize("rate, switches_most", [(10.0, 6), (5.0, 20)])
def test_a_crowd_is_followed_with_few_mistakes(rate, switches_most):
    switches = people = tracks = 0
    for seed in range(4):
        tracker, last, numbers = Tracker(), {}, set()
        for time_s, names, given in crowd_of(seed, rate):
            for number, place in tracker.update(time_s, given):
                switches += last.get(names[place], number) != number
                last[names[place]] = number
                numbers.add(number)
        people += len(last)
        tracks += len(numbers)
    assert people > 50
    assert switches <= switches_most
    assert 0.8 * people <= tracks <= 1.1 * people


def follow_film(film, rate, seconds):
    """Lengths of the tracks of a real film, in frames, and the frames."""
    pytest.importorskip("cv2")
    from edged.camera.capture import open_source
    from edged.camera.posenet import PoseNetwork

    network = PoseNetwork("human-pose-estimation-0001", needs("pose"))
    tracker, lengths, frames = Tracker(), {}, 0
    with open_source(str(needs("video/" + film)), rate) as source:
        frame = source.read()
        while frame is not None and frame.at_s < seconds:
            for number, _ in tracker.update(frame.at_s, pose.decode(*network.run(frame.image))):
                lengths[number] = lengths.get(number, 0) + 1
            frames += 1
            frame = source.read()
    return sorted(lengths.values(), reverse=True), frames


def test_three_people_who_exercise_are_three_tracks():
    lengths, frames = follow_film("felix_exercise.avi", 5.0, 3.0)
    assert frames >= 14 and lengths[:3] == [frames] * 3 and sum(lengths[3:]) <= 2


@pytest.mark.slow
def test_pedestrians_of_a_real_film_keep_their_tracks():
    lengths, frames = follow_film("vtest_480x360.avi", 5.0, 80.0)
    assert frames >= 390
    # About 35 people pass in these 80 s, 3 to 4 at a time within the network's reach.
    assert sum(lengths) >= 2.5 * frames
    assert len(lengths) <= 70
    # A sighting lies, on average, on a track of at least 8 s: with frequent switches it would be 1 or 2.
    assert sum(length * length for length in lengths) / sum(lengths) >= 40


def test_the_standing_figure_is_a_person():
    assert STANDING.shape == (18, 2) and np.ptp(STANDING[:, 1]) == pytest.approx(1, abs=0.02)
