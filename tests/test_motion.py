"""Generated people move as people do, the same for the same seed; pictures of them have an estimator's faults."""

import numpy as np
import pytest

from edged.camera import acts, estimator, motion, performance, puppet, scenes, viewpoint, ways
from edged.camera.assemble import Assembler
from edged.camera.clip import fixed_point
from edged.errors import UsageError

SECONDS, FPS = 12.0, 30.0
ALONE = [label for label in motion.LABELS if label not in ("cycling", "fighting")]  # and on their own feet
ANKLES = [puppet.R_ANKLE, puppet.L_ANKLE]
HIPS = [puppet.R_HIP, puppet.L_HIP]


def act_out(seed, label, seconds=SECONDS):
    """Body, joints (T, 18, 3) metres and acts of one person who does ``label``."""
    rng = np.random.default_rng(seed)
    view, body = viewpoint.random_view(rng, 1280, 720), puppet.random_body(rng)
    done = scenes.acts_of(rng, body, label, seconds)
    path = ways.stroll(rng, view, 2 * seconds, 0.05)
    return body, performance.perform(rng, body, done, path, 0.0, seconds, FPS), done


def perform(seed, label):
    rng = np.random.default_rng(seed)
    return motion.act(rng, label, viewpoint.random_view(rng))


def walk_straight(seed, seconds=6.0):
    rng = np.random.default_rng(seed)
    body = puppet.random_body(rng)
    walk = [acts.Act(acts.WALK, -1.0, seconds + 2)]

    def path(way):
        return np.stack([way, 0 * way], -1), 0 * way

    return body, performance.perform(rng, body, walk, path, 0.0, seconds, FPS)


def same(one, other):
    return (one.events == other.events and len(one.frames) == len(other.frames)
            and all(np.array_equal(a, b) for a, b in zip(one.frames, other.frames)))


def test_a_seed_gives_the_same_recording_every_time_whatever_the_global_random_state():
    np.random.seed(1)
    first = motion.generate(7, seconds=8)
    np.random.seed(2)
    assert same(first, motion.generate(7, seconds=8))


def test_another_seed_gives_another_recording():
    assert not same(motion.generate(7, seconds=8), motion.generate(8, seconds=8))


def test_a_recording_has_the_asked_length_size_and_people():
    recording = motion.generate(3, seconds=6, fps=25, cast=("walking", "standing"), width=640, height=480)
    assert (recording.width, recording.height, recording.fps, len(recording.frames)) == (640, 480, 25.0, 150)
    assert max(len(frame) for frame in recording.frames) == 2
    for frame in recording.frames:
        seen = frame[frame[..., 2] > 0]
        assert (seen[:, 0] >= 0).all() and (seen[:, 0] < 640).all() and (seen[:, 1] < 480).all()
        assert (frame[frame[..., 2] == 0] == 0).all()


def test_a_recording_without_people_is_empty():
    assert [len(frame) for frame in motion.generate(3, seconds=4, cast=()).frames] == [0] * 120


@pytest.mark.parametrize("seed", range(6))
def test_every_faller_falls_once_between_a_quarter_and_two_thirds_of_the_time(seed):
    recording = motion.generate(seed, seconds=20, cast=("walking", "falling"))
    fall, = recording.events
    assert (fall.label, fall.person) == ("falling", 1)
    assert 5.0 <= fall.start_s <= 13.4
    assert 0.5 < fall.end_s - fall.start_s < 3.7


def test_jumps_are_told_one_by_one_and_walkers_have_no_events():
    recording = motion.generate(5, seconds=20, cast=("walking", "jumping"))
    assert len(recording.events) >= 2
    assert {(event.label, event.person) for event in recording.events} == {("jumping", 1)}
    for before, after in zip(recording.events, recording.events[1:]):
        assert before.end_s <= after.start_s
        assert after.end_s <= 20


@pytest.mark.parametrize("cast", [("swimming",), ("walking", "Falling"), ("",)])
def test_what_nobody_can_do_is_refused(cast):
    with pytest.raises(UsageError, match="choose of standing, sitting, walking, running, cycling, waving, jumping"):
        motion.generate(1, cast=cast)


@pytest.mark.parametrize("ask", [{"seconds": 1}, {"fps": 0}, {"fps": 1000}])
def test_a_length_or_rate_that_makes_no_film_is_refused(ask):
    with pytest.raises(UsageError, match="ask for 4 s or more"):
        motion.generate(1, **ask)


@pytest.mark.parametrize("label", motion.LABELS)
@pytest.mark.parametrize("seed", range(6))
def test_bones_keep_their_lengths_whatever_a_person_does(label, seed):
    for joints in perform(seed, label).people:
        for one, other in puppet.BONES:
            length = np.linalg.norm(joints[:, one] - joints[:, other], axis=-1)
            assert np.ptp(length) < 1e-9, (one, other)


@pytest.mark.parametrize("label", motion.LABELS)
@pytest.mark.parametrize("seed", range(6))
def test_nobody_sinks_into_the_ground_or_is_beamed_elsewhere(label, seed):
    for joints in perform(seed, label).people:
        assert joints[..., 2].min() > -0.15
        pelvis = joints[:, HIPS].mean(1)
        assert np.linalg.norm(np.diff(pelvis, axis=0), axis=-1).max() * FPS < 8.5


@pytest.mark.parametrize("seed", range(8))
def test_a_walkers_feet_stand_still_while_they_carry(seed):
    body, joints = walk_straight(seed)
    feet = joints[:, ANKLES]
    speed = np.abs(np.diff(feet[..., 0], axis=0)) * FPS
    flat = (feet[:-1, :, 2] < body.ankle + 0.002) & (feet[1:, :, 2] < body.ankle + 0.002)
    assert flat.mean() > 0.15
    assert np.quantile(speed[flat], 0.95) < 0.05
    assert speed.max() > 1.5  # and the other foot swings


@pytest.mark.parametrize("seed", range(8))
def test_a_walker_moves_arms_against_legs_and_bends_knees(seed):
    _, joints = walk_straight(seed)
    ahead = joints[:, ANKLES, 0] - joints[:, [puppet.R_HIP, puppet.L_HIP], 0]
    hands = joints[:, [puppet.R_WRIST, puppet.L_WRIST], 0] - joints[:, [puppet.R_SHOULDER, puppet.L_SHOULDER], 0]
    if np.ptp(hands[:, 0]) > 0.35:  # not with hands in the pockets
        assert np.corrcoef(ahead[:, 0], hands[:, 0])[0, 1] < 0
    thigh = joints[:, puppet.R_KNEE] - joints[:, puppet.R_HIP]
    shank = joints[:, puppet.R_ANKLE] - joints[:, puppet.R_KNEE]
    cosine = np.sum(thigh * shank, -1) / np.linalg.norm(thigh, axis=-1) / np.linalg.norm(shank, axis=-1)
    bend = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
    assert bend.max() > 30 and bend.min() < 25 and bend.max() < 130


@pytest.mark.parametrize("label", ALONE)
@pytest.mark.parametrize("seed", range(4))
def test_noses_are_where_noses_are(label, seed):
    body, joints, _ = act_out(seed, label)
    assert 0.85 * body.stature < joints[:, puppet.NOSE, 2].max() < body.stature + 0.6 * (label == "jumping")
    neck_to_nose = np.linalg.norm(joints[0, puppet.NOSE] - joints[0, puppet.NECK])
    assert 0.15 < neck_to_nose < 0.3


@pytest.mark.parametrize("seed", range(8))
def test_a_fall_ends_near_the_ground_and_stays_there(seed):
    body, joints, done = act_out(seed, "falling")
    fall = done[-1]
    before, after = int((fall.start_s - 0.1) * FPS), int((fall.end_s + 0.3) * FPS)
    assert joints[before, puppet.NECK, 2] > 0.7 * body.stature
    assert joints[after:, [puppet.NECK, puppet.R_HIP, puppet.L_HIP, puppet.NOSE], 2].max() < 0.5
    assert np.linalg.norm(joints[-1] - joints[after + 30], axis=-1).max() < 0.05


@pytest.mark.parametrize("seed", range(6))
def test_a_jump_leaves_the_ground_by_free_flight_and_comes_back(seed):
    body, joints, done = act_out(seed, "jumping")
    jump = done[0]
    part = joints[int(jump.start_s * FPS) : int(jump.end_s * FPS) + 1]
    height = part[:, ANKLES, 2].min(1) - body.ankle
    assert 0.1 < height.max() < 0.8
    assert height[0] < 0.01 and height[-1] < 0.01
    pelvis = part[:, [puppet.R_HIP, puppet.L_HIP], 2].mean(1)
    top = int(pelvis.argmax())
    falls = -np.diff(pelvis[top - 2 : top + 3], n=2) * FPS ** 2
    assert np.allclose(falls, acts.GRAVITY, atol=0.5)


def test_the_near_person_hides_the_far_one():
    view = viewpoint.View(2.5, 0.2, 0.0, 900.0, 0.0, 1280, 720)
    _, joints = walk_straight(1, seconds=1.0)
    joints = joints - joints[:, puppet.NECK:puppet.NECK + 1] * [1, 1, 0]
    near, far = joints + [0, 5, 0], joints + [0, 6.5, 0]

    def parts(cast):
        found = [estimator.observe(np.random.default_rng(seed), view, cast, FPS)[-1] for seed in range(10)]
        return sum((one[..., 2] > 0).sum() for one in found)

    assert parts([near, far]) < 0.85 * parts([far])


def test_an_estimators_faults_grow_with_distance():
    view = viewpoint.View(4.0, 0.25, 0.0, 900.0, 0.0, 1280, 720)
    body, joints = walk_straight(2, seconds=3.0)
    joints = joints - joints[:, puppet.NECK:puppet.NECK + 1] * [1, 1, 0]

    def confidence(metres):
        found = estimator.observe(np.random.default_rng(1), view, [joints + [0, metres, 0]], FPS)[0]
        return found[..., 2].mean()

    assert confidence(6) > confidence(14) + 0.1


def test_a_joint_outside_the_picture_is_missing():
    view = viewpoint.View(4.0, 0.4, 0.0, 900.0, 0.0, 1280, 720)
    _, joints = walk_straight(1, seconds=1.0)
    far_left = joints - joints[:, puppet.NECK:puppet.NECK + 1] * [1, 1, 0] + [-9, 7, 0]
    assert not estimator.observe(np.random.default_rng(1), view, [far_left], FPS).any()


@pytest.mark.parametrize("label", motion.LABELS)
def test_a_sample_is_one_person_in_the_coordinates_of_a_clip(label):
    for seed in range(6):
        one = motion.sample(np.random.default_rng(seed), label)
        assert one.shape == (300, 18, 3)
        again = motion.sample(np.random.default_rng(seed), label)
        assert np.allclose(one, again, atol=1e-9)  # NumPy's last bit may depend on where memory lies
        seen = one[..., 2] > 0
        assert np.abs(one[seen][:, :2]).max() <= 0.5 and one[..., 2].max() <= 1
        assert not one[~seen].any()
        assert seen.any(1)[-60:].any()  # the end of a clip is now


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("every", [1, 3, 6])
def test_samples_are_resampled_as_the_camera_process_does_it(seed, every):
    rng = np.random.default_rng(seed)
    body, joints = walk_straight(seed, seconds=10.0)
    view = viewpoint.View(4.0, 0.35, 0.0, 500.0, 0.0, 1280, 720)
    found = estimator.observe(rng, view, [joints - [4, -8, 0]], FPS)[0]
    looks = np.arange(299, -1, -every)[::-1]
    assembler = Assembler(bytes(32), hop_s=100.0)
    for look in looks:
        if found[look].any():
            assembler.add(look / FPS, 1280, 720, [(1, found[look])])
        else:
            assembler.add(look / FPS, 1280, 720, [])
    theirs = assembler.rest()[0].coordinates[0]
    ours = motion.drawn_out(found, looks)
    ours = np.where(ours[..., 2:] > 0, ours / [1280, 720, 1] - [0.5, 0.5, 0], 0)
    assert (theirs[..., 2] > 0).mean() > 0.3
    assert np.abs(fixed_point(ours).astype(int) - theirs).max() <= 1


def test_some_samples_show_somebody_who_has_just_appeared():
    rng = np.random.default_rng(1)
    seen = [(motion.sample(rng, "walking")[:30, :, 2] > 0).any() for _ in range(30)]
    assert 5 < sum(seen) < 30


def test_a_clip_holds_one_person_or_two():
    rng = np.random.default_rng(3)
    sizes = {len(motion.clip(rng, "falling")) for _ in range(20)}
    assert sizes == {1, 2}
    assert {len(motion.clip(rng, "fighting", persons=1)) for _ in range(4)} == {1}
