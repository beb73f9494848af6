"""What people do looks like what it is called: measured in metres, radians and hertz, in three dimensions."""

import numpy as np
import pytest

from edged.camera import acts, courses, cycling, gestures, moments, motion, pairs, performance, poses, puppet, viewpoint
from edged.camera import ways

FPS = 30.0
HIPS = [puppet.R_HIP, puppet.L_HIP]
KNEES = [puppet.R_KNEE, puppet.L_KNEE]
ANKLES = [puppet.R_ANKLE, puppet.L_ANKLE]
SHOULDERS = [puppet.R_SHOULDER, puppet.L_SHOULDER]
WRISTS = [puppet.R_WRIST, puppet.L_WRIST]
SEEDS = range(8)
HERE = ways.fixed(np.zeros(2), 0.0)


def play(seed, make, seconds=8.0, **how):
    """Body and joints (T, 18, 3) of somebody who does ``make(rng, body)`` on the spot, looking along x."""
    rng = np.random.default_rng(seed)
    body = puppet.random_body(rng)
    done = make(rng, body)
    return body, performance.perform(rng, body, done, HERE, 0.0, seconds, FPS, **how), done


def perform(seed, label):
    rng = np.random.default_rng(seed)
    return motion.act(rng, label, viewpoint.random_view(rng))


def bend(joints, one, middle, other):
    """Degrees off the straight at ``middle``."""
    first, second = joints[:, middle] - joints[:, one], joints[:, other] - joints[:, middle]
    cosine = np.sum(first * second, -1) / np.linalg.norm(first, axis=-1) / np.linalg.norm(second, axis=-1)
    return np.degrees(np.arccos(np.clip(cosine, -1, 1)))


def upright(joints):
    """Cosine of the trunk's angle with the vertical (T,)."""
    trunk = joints[:, puppet.NECK] - joints[:, HIPS].mean(1)
    return trunk[:, 2] / np.linalg.norm(trunk, axis=-1)


@pytest.mark.parametrize("seed", SEEDS)
def test_who_sits_on_a_chair_has_the_hips_over_the_seat_and_the_feet_where_they_were(seed):
    body, joints, (act,) = play(seed, lambda rng, body: [courses.sit(rng, body, 1.0, 9.0, False, False, 1.5)])
    seated = joints[100:]
    hips = seated[:, HIPS, 2].mean(1)
    assert (hips > 0.35 + 0.05).all() and (hips < 0.55 + 0.15).all()
    assert np.ptp(hips) < 0.02
    assert joints[15, HIPS, 2].mean() - hips.mean() > 0.2
    flat = seated[:, ANKLES, 2].min(1)
    assert np.abs(flat - body.ankle).max() < 0.03
    assert (upright(seated) > 0.4).all()


@pytest.mark.parametrize("seed", SEEDS)
def test_who_stands_up_again_stands_where_they_stood(seed):
    body, joints, (act,) = play(seed, lambda rng, body: [courses.sit(rng, body, 1.0, 1.0, True, False, 1.0)])
    assert act.end_s < 6.5
    assert abs(joints[-1, HIPS, 2].mean() - poses.stand_m(body)) < 0.05
    assert np.hypot(*(joints[-1, HIPS] - joints[10, HIPS]).mean(0)[:2]) < 0.15


@pytest.mark.parametrize("seed", SEEDS)
def test_who_sits_on_the_floor_is_low_and_upright(seed):
    _, joints, _ = play(seed, lambda rng, body: [courses.sit(rng, body, 1.0, 9.0, False, True, 2.0)])
    assert joints[120:, HIPS, 2].max() < 0.3
    assert upright(joints[120:]).min() > 0.6


@pytest.mark.parametrize("seed", range(16))
def test_who_lies_down_takes_the_time_and_lies_flat(seed):
    _, joints, (act,) = play(seed, lambda rng, body: [courses.lie_down(rng, body, 1.0, 9.0, False, 4.0)])
    assert np.abs(upright(joints[-60:])).max() < 0.45
    assert np.ptp(joints[-60:, [puppet.NECK] + HIPS, 2].mean(0)) < 0.35
    # Nothing of a fall: nowhere does the neck go down faster than 1.6 m/s; who falls reaches 3.
    assert -np.diff(joints[:, puppet.NECK, 2]).min() * FPS < 1.8


@pytest.mark.parametrize("seed", range(12))
def test_arms_of_who_lies_do_not_stand_in_the_air(seed):
    _, joints, _ = play(seed, lambda rng, body: [moments.fall(rng, body, 1.0, False)])
    assert (joints[-30:, WRISTS, 2] - joints[-30:, puppet.NECK, 2][:, None]).max() < 0.42


@pytest.mark.parametrize("seed", SEEDS)
def test_who_gets_up_after_a_fall_stands_in_the_end_and_is_not_dragged_over_the_ground(seed):
    def make(rng, body):
        fell = moments.fall(rng, body, 1.0, False)
        return [fell, courses.get_up(rng, body, fell.end_s + 1, 0.5, True, abs(fell.details.towards) < 1.2)]

    body, joints, done = play(seed, make, 14.0)
    assert abs(joints[-1, HIPS, 2].mean() - poses.stand_m(body)) < 0.06
    lain = joints[int((done[0].end_s + 0.5) * FPS), HIPS].mean(0)
    at = int((done[1].start_s + done[1].details.times[1]) * FPS)
    assert np.hypot(*(joints[at, HIPS].mean(0) - lain)[:2]) < 0.3


@pytest.mark.parametrize("seed", range(12))
def test_the_neck_of_who_falls_comes_down_while_the_label_shows(seed):
    shown = perform(seed, "falling")
    neck = shown.people[0][:, puppet.NECK, 2]
    first, last = shown.shows
    assert neck[max(first - 3, 0)] - neck[last - 1] > 0.25 or neck[:last].max() - neck[last - 1] > 0.4
    assert neck[last - 1] < 1.05


@pytest.mark.parametrize("seed", range(24))
def test_a_clip_of_lying_shows_no_fall_and_ends_low_or_was_low_mostly(seed):
    shown = perform(seed, "lying")
    joints = shown.people[0]
    flat = np.abs(upright(joints)) < 0.5
    assert flat[-30:].all() or flat.mean() > 0.5
    rapid = -(joints[6:, puppet.NECK, 2] - joints[:-6, puppet.NECK, 2])
    assert rapid.max() < 0.42  # in a fifth of a second; a fall takes it half a metre down in that time


@pytest.mark.parametrize("seed", range(24))
def test_a_clip_of_sitting_ends_low_or_was_low_mostly(seed):
    joints = perform(seed, "sitting").people[0]
    low = joints[:, HIPS, 2].mean(1) < 0.7
    assert low[-15:].all() or low.mean() > 0.5


@pytest.mark.parametrize("seed", range(16))
def test_in_clips_of_standing_nobody_lies_or_goes_away(seed):
    for joints in perform(seed, "standing").people:
        assert not ((np.abs(upright(joints)) < 0.5) & (joints[:, HIPS, 2].mean(1) < 0.2)).any()
        moved = np.hypot(*np.diff(joints[::30, HIPS].mean(1)[:, :2], axis=0).T) if len(joints) > 60 else np.zeros(1)
        assert moved.mean() < 0.4


@pytest.mark.parametrize("seed", range(10))
def test_runners_fly_between_their_steps_and_walkers_never(seed):
    def make(rng, body):
        return [acts.Act(acts.WALK, -1.0, 9.0)]

    for gait_of, flies in ((performance.running_gait, True), (performance.walking_gait, False)):
        rng = np.random.default_rng(seed)
        body = puppet.random_body(rng)
        gait = gait_of(rng, body)
        joints = performance.perform(rng, body, make(rng, body), HERE, 0.0, 6.0, FPS, gait)
        lowest = joints[:, ANKLES, 2].min(1) - body.ankle
        airborne = (lowest > 0.04).mean()
        assert (airborne > 0.1) == flies and (airborne < 0.02) != flies
        speed = np.hypot(*(joints[-1, puppet.NECK] - joints[0, puppet.NECK])[:2]) / 6.0
        assert (2.0 < speed < 5.6) if flies else (0.4 < speed < 2.1)


@pytest.mark.parametrize("seed", range(10))
def test_a_cyclist_keeps_to_the_joint_angles_and_cadences_of_cyclists(seed):
    rng = np.random.default_rng(seed)
    body, how = puppet.random_body(rng), cycling.random_ride(rng)._replace(coasts=0.0)
    joints = cycling.ride(rng, body, how, HERE, 0.0, 10.0, FPS)
    for side in (0, 1):
        knee = bend(joints, HIPS[side], KNEES[side], ANKLES[side])
        assert 20 < knee.min() < 50 and 85 < knee.max() < 125
    # Turns of the right pedal, seen from the hips.
    foot = joints[:, puppet.R_ANKLE, 2]
    tops = np.flatnonzero((foot[1:-1] > foot[:-2]) & (foot[1:-1] >= foot[2:]))
    cadence = (len(tops) - 1) / (tops[-1] - tops[0]) * FPS * 60
    assert abs(cadence - 60 * how.cadence) < 0.1 * 60 * how.cadence
    assert 45 < cadence < 108
    assert 2 * 0.165 - 0.01 < np.ptp(foot) < 2 * 0.175 + 0.05
    speed = np.hypot(*(joints[-1, puppet.NECK] - joints[0, puppet.NECK])[:2]) / 10
    assert 1.8 < speed < 7.7
    assert (joints[:, HIPS, 2].mean(1) > 0.75).all()
    opposite = np.corrcoef(foot, joints[:, puppet.L_ANKLE, 2])[0, 1]
    assert opposite < -0.95


@pytest.mark.parametrize("seed", range(10))
def test_a_cyclist_who_coasts_keeps_the_feet_still(seed):
    rng = np.random.default_rng(seed)
    body, how = puppet.random_body(rng), cycling.random_ride(rng)._replace(coasts=0.5)
    joints = cycling.ride(rng, body, how, HERE, 0.0, 10.0, FPS)
    still = np.abs(np.diff(joints[:, puppet.R_ANKLE, 2])) < 0.003
    assert still.mean() > 0.3


@pytest.mark.parametrize("seed", range(12))
def test_a_wave_swings_a_hand_over_the_shoulder_at_its_rate(seed):
    body, joints, done = play(seed, lambda rng, body: gestures.wave(rng, body, 0.0, 10.0))
    arm, hertz = done[0].details.arm, done[0].details.rate_hz
    assert 0.8 <= hertz <= 2.5
    hand = (joints[:, WRISTS[arm]] - joints[:, SHOULDERS[arm]])[60:210]
    assert hand[:, 2].mean() > 0.1
    swing = hand - hand.mean(0)
    axis = swing[:, int(np.argmax(np.ptp(swing, axis=0)))]
    assert np.ptp(axis) > 0.1
    rates = np.fft.rfftfreq(len(axis), 1 / FPS)
    assert abs(rates[np.argmax(np.abs(np.fft.rfft(axis)))] - hertz) < 0.25


@pytest.mark.parametrize("seed", range(20))
def test_what_hands_do_otherwise_is_no_wave(seed):
    body, joints, done = play(seed, lambda rng, body: gestures.handling(rng, body, 0.5, 6.0))
    arm = done[0].details.arm
    hand = joints[:, WRISTS[arm]] - joints[:, SHOULDERS[arm]]
    high = hand[:, 2] > 0.0
    turns = np.diff(np.sign(np.diff(hand[high], axis=0)), axis=0) != 0
    wide = np.abs(np.diff(hand[high], axis=0)) * FPS > 0.6
    # Never wide and often to and fro at once.
    assert (turns & wide[:-1]).sum(0).max(initial=0) <= 4


@pytest.mark.parametrize("seed", range(10))
def test_two_who_fight_stay_within_reach_and_face_each_other(seed):
    rng = np.random.default_rng(seed)
    one, other = pairs.fight(rng, np.array([1.0, 6.0]), 0.0, 8.0, FPS)
    between = other[:, HIPS].mean(1)[:, :2] - one[:, HIPS].mean(1)[:, :2]
    apart = np.hypot(*between.T)
    assert 0.25 < apart.min() and apart.max() < 1.6 and 0.45 < np.median(apart) < 1.15
    for joints, towards in ((one, between), (other, -between)):
        left = joints[:, puppet.L_HIP] - joints[:, puppet.R_HIP]
        ahead = np.stack([left[:, 1], -left[:, 0]], -1)
        facing = np.sum(ahead * towards, -1) / np.hypot(*ahead.T) / np.hypot(*towards.T)
        assert np.median(facing) > 0.6


@pytest.mark.parametrize("seed", range(10))
def test_blows_reach_the_other_one_and_are_fast(seed):
    rng = np.random.default_rng(seed)
    one, other = pairs.fight(rng, np.array([1.0, 6.0]), 0.0, 10.0, FPS)
    speeds = []
    nearest = []
    for joints, target in ((one, other), (other, one)):
        hands = joints[:, WRISTS] - joints[:, HIPS].mean(1)[:, None]
        speeds.append(np.linalg.norm(np.diff(hands, axis=0), axis=-1).max() * FPS)
        nearest.append(np.linalg.norm(joints[:, WRISTS, None] - target[:, None, [0, 1, 2, 5]], axis=-1).min())
    assert max(speeds) > 2.5 and min(nearest) < 0.25


@pytest.mark.parametrize("seed", range(10))
def test_people_who_talk_do_it_slowly(seed):
    rng = np.random.default_rng(seed)
    for joints in pairs.talk(rng, np.array([1.0, 6.0]), 0.0, 8.0, FPS):
        hands = joints[:, WRISTS] - joints[:, HIPS].mean(1)[:, None]
        assert np.quantile(np.linalg.norm(np.diff(hands, axis=0), axis=-1), 0.95) * FPS < 2.0
        assert upright(joints).min() > 0.85


def test_push_ups_go_up_and_down_on_straight_legs():
    _, joints, (act,) = play(1, lambda rng, body: [courses.push_ups(rng, body, 0.5, 4)], 12.0)
    times = act.details.times
    part = joints[int((0.5 + times[2]) * FPS) : int((0.5 + times[-3]) * FPS)]
    shoulders = part[:, SHOULDERS, 2].mean(1)
    assert np.ptp(shoulders) > 0.12
    assert np.abs(upright(part)).max() < 0.65


@pytest.mark.parametrize("label", motion.LABELS)
def test_a_performance_ends_now_and_says_when_its_label_shows(label):
    for seed in range(12):
        shown = perform(seed, label)
        assert 1 <= len(shown.people) <= 2
        assert len({joints.shape for joints in shown.people}) == 1
        count = len(shown.people[0])
        assert 30 <= count <= 300 and shown.people[0].shape == (count, 18, 3)
        assert 0 <= shown.shows[0] < shown.shows[1] <= count
        assert np.isfinite(shown.people[0]).all()
        assert (label != "fighting") or len(shown.people) == 2


@pytest.mark.parametrize("label", motion.LABELS)
def test_a_performance_follows_from_its_seed(label):
    for one, other in zip(perform(5, label).people, perform(5, label).people):
        assert np.allclose(one, other, atol=1e-9)


def test_company_is_near_at_some_time_and_no_more_severe():
    rng = np.random.default_rng(4)
    found = 0
    for _ in range(12):
        view = viewpoint.random_view(rng)
        performer = motion.act(rng, "walking", view).people[0]
        other = motion._company(rng, "walking", view, performer)
        if other is not None:
            found += 1
            assert other.shape == performer.shape
            assert motion._distance(performer, other) < motion.NEAR_M
    assert found >= 6


@pytest.mark.parametrize("cast", [("fighting", "fighting"), ("walking", "fighting", "cycling", "fighting")])
def test_two_fighters_of_a_cast_fight_each_other(cast):
    staged = motion.stage(3, 12.0, 30.0, cast)
    one, other = (staged.people[place] for place, label in enumerate(cast) if label == "fighting")
    fights = [event for event in staged.events if event.label == "fighting"]
    assert len(fights) == 2 and fights[0].start_s == fights[1].start_s
    middle = int(0.5 * (fights[0].start_s + fights[0].end_s) * FPS)
    assert np.hypot(*(one - other)[middle, puppet.NECK, :2]) < 1.8


def test_a_staged_scene_is_what_its_recording_shows():
    staged = motion.stage(9, 8.0, 30.0, ("sitting", "waving", "lying", "running"))
    assert [joints.shape for joints in staged.people] == [(240, 18, 3)] * 4
    recording = motion.generate(9, 8.0, 30.0, ("sitting", "waving", "lying", "running"))
    assert recording.events == staged.events
    assert {(event.label, event.person) for event in staged.events} == {
        ("sitting", 0), ("waving", 1), ("lying", 2), ("running", 3)}
    assert all(0 <= event.start_s < event.end_s <= 8.0 for event in staged.events)


def test_a_given_view_is_kept():
    view = viewpoint.View(4.0, 0.4, 0.0, 500.0, 0.0, 640, 360)
    staged = motion.stage(2, 6.0, 15.0, ("cycling", "standing"), view)
    assert staged.view == view and staged.people[0].shape == (90, 18, 3)
