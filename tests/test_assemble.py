"""Clips out of tracks: what is in them, when, and that nobody is left out."""

import numpy as np
import pytest

from edged.camera import assemble
from edged.camera.assemble import Assembler, groups
from edged.camera.clip import COORDINATE_ONE

CAMERA = b"gate".ljust(32, b"\0")
START = 1700000000.0
ONE_STEP = 1 / COORDINATE_ONE


def assembler(**changes):
    return Assembler(CAMERA, **changes)


def standing(x=320.0, y=240.0, confidence=0.5):
    """Everybody at one place of a picture of 640 x 480."""
    joints = np.empty((18, 3))
    joints[:] = (x, y, confidence)
    return joints


def figure(x, y=240.0, tall=100.0):
    """Somebody upright, ``tall`` pixels of 480."""
    joints = standing(x, y)
    joints[:, 1] += np.linspace(-tall / 2, tall / 2, 18)
    return joints


def watched(made, people_at, seconds, fps=30.0, start=START, begin=0.0):
    """Feed frames and return the clips given on the way."""
    clips = []
    for index in range(int(round(begin * fps)), int(round((begin + seconds) * fps)) + 1):
        at = index / fps
        made.add(start + at, 640, 480, people_at(at))
        clips += made.due(start + at)
    return clips


def values(clip):
    return clip.coordinates.astype(float) / COORDINATE_ONE


def walking(at):
    return [(7, standing(100 + 40 * at, 240 + 10 * at, 0.25 + 0.05 * at))]


def test_a_clip_is_normalised_and_claims_the_time_of_its_last_frame():
    made = assembler()
    clip = watched(made, lambda at: [(7, standing(480, 120, 0.75))], 1.0)[0]
    assert clip.coordinates.shape == (1, 300, 18, 3) and clip.coordinates.dtype == np.int16
    assert (clip.tracks, clip.camera) == ((7,), CAMERA)
    assert abs(clip.claimed_ns - int((START + 1) * 1e9)) < 1000
    assert np.array_equal(values(clip)[0, -1], np.tile([0.25, -0.25, 0.75], (18, 1)))


@pytest.mark.parametrize("fps", [30.0, 25.0, 10.0, 7.3, 2.5])
def test_linear_motion_is_exact_whatever_the_rate_of_the_pictures(fps):
    clip = watched(assembler(hop_s=10.0), walking, 12.0, fps)[0]
    end = clip.claimed_ns / 1e9 - START
    at = end - np.arange(299, -1, -1) / 30
    shown = at >= -1e-6
    expected = np.stack([(100 + 40 * at) / 640 - 0.5, (240 + 10 * at) / 480 - 0.5, 0.25 + 0.05 * at], axis=-1)
    assert shown.sum() >= 299
    assert np.abs(values(clip)[0][shown] - expected[shown][:, None]).max() <= ONE_STEP
    assert not values(clip)[0][~shown].any()


def test_pictures_at_uneven_times_are_interpolated_between_their_own_times():
    rng = np.random.default_rng(1)
    made = assembler(hop_s=5.0)
    clips = []
    for at in np.cumsum(rng.uniform(0.01, 0.3, 60)):
        made.add(START + at, 640, 480, walking(at))
        clips += made.due(START + at)
    at = clips[0].claimed_ns / 1e9 - START - np.arange(299, -1, -1) / 30
    shown = values(clips[0])[0, :, 0, 2] > 0
    assert shown.sum() > 100
    assert np.abs(values(clips[0])[0, shown, 0, 0] - ((100 + 40 * at[shown]) / 640 - 0.5)).max() <= ONE_STEP


def test_the_smallest_confidence_that_counts_leaves_no_place_without_one():
    clip = watched(assembler(), lambda at: [(1, standing(10, 10, 1e-6 if at < 0.5 else 0.5))], 2.0)[0]
    missing = clip.coordinates[..., 2] == 0
    assert missing.any() and not clip.coordinates[missing].any()


def test_frames_before_a_track_began_and_after_it_was_last_seen_are_empty():
    made = assembler(hop_s=5.0)
    clip = watched(made, lambda at: [(1, standing())] if 2 <= at <= 4.5 else [], 5.0)[0]
    shown = (clip.coordinates[0, :, :, 2] > 0).all(axis=1)
    at = 5.0 - np.arange(299, -1, -1) / 30
    assert np.array_equal(shown, (at > 2 - 0.001) & (at < 4.5 + 0.001))


@pytest.mark.parametrize("away, bridged", [(0.4, True), (0.6, False)])
def test_a_gap_is_bridged_up_to_half_a_second(away, bridged):
    clip = watched(assembler(hop_s=5.0), lambda at: [] if 2 < at < 2 + away - 0.01 else walking(at), 5.0)[0]
    shown = values(clip)[0, :, 0, 2] > 0
    at = 5.0 - np.arange(299, -1, -1) / 30
    inside = (at > 2.01) & (at < 2 + away - 0.04)
    assert inside.any() and (shown[inside] == bridged).all()
    assert shown[(at > 0.01) & ~((at > 2.001) & (at < 2 + away - 0.02))].all()


def test_a_joint_that_hides_is_missing_alone():
    def people(at):
        joints = standing()
        if 2 < at < 3:
            joints[4] = 0
        if 1 < at < 1.3:
            joints[5] = (np.nan, 5, 0.5)
        return [(1, joints)]

    clip = watched(assembler(hop_s=5.0), people, 5.0)[0]
    at = 5.0 - np.arange(299, -1, -1) / 30
    shown = clip.coordinates[0, :, :, 2] > 0
    hidden = (at > 2.01) & (at < 2.99)
    assert not shown[hidden, 4].any() and shown[hidden][:, np.arange(18) != 4].all()
    assert shown[at > 0.01][:, 5].all() and not clip.coordinates[0, at > 0.01, 5, :2].any()


def test_the_size_of_the_picture_may_change():
    made = assembler()
    made.add(START, 640, 480, [(1, standing(320, 240))])
    for index in range(1, 32):
        made.add(START + index / 30, 1280, 960, [(1, standing(640, 480))])
    clip, = made.due(START + 31 / 30)
    assert (clip.coordinates[0, 270:, :, :2] == 0).all() and (clip.coordinates[0, 270:, :, 2] > 0).all()


def test_a_track_is_evaluated_once_it_was_seen_for_a_second():
    made = assembler()
    clips = watched(made, lambda at: [(1, standing())] if at >= 0.5 else [], 3.0)
    assert [clip.claimed_ns // 10 ** 8 for clip in clips] == [17000000020, 17000000030]
    assert made.waiting == 0


def test_a_track_that_ends_too_soon_is_never_evaluated_and_is_counted():
    made = assembler()
    assert watched(made, lambda at: [(1, standing())] if at < 0.8 else [], 12.0) == []
    assert made.counts.short == 1


def test_an_evaluated_track_that_ends_is_not_counted_as_short():
    made = assembler()
    assert len(watched(made, lambda at: [(1, standing())] if at < 1.8 else [], 14.0)) == 2
    assert made.counts.short == 0


def test_a_track_that_left_is_in_the_clip_of_that_hop_and_in_no_later_one():
    clips = watched(assembler(), lambda at: [(1, standing())] if at <= 2.3 else [], 6.0)
    assert [round(clip.claimed_ns / 1e9 - START) for clip in clips] == [1, 2, 3]


def test_an_empty_scene_gives_no_clip():
    assert watched(assembler(), lambda at: [], 5.0) == []


def test_the_hop_is_kept_and_missed_hops_are_not_made_up_for():
    clips = watched(assembler(hop_s=2.5), walking, 10.0)
    assert [round(clip.claimed_ns / 1e9 - START, 1) for clip in clips] == [2.5, 5.0, 7.5, 10.0]
    made = assembler()
    watched(made, walking, 1.9)
    made.add(START + 6.4, 640, 480, walking(6.4))
    assert len(made.due(START + 6.4)) == 1 and made.due(START + 6.4) == []
    assert len(watched(made, walking, 0.6, begin=6.5)) == 1


def test_what_is_left_at_the_end_is_evaluated_once():
    made = assembler()
    assert len(watched(made, walking, 3.4)) == 3
    clip, = made.rest()
    assert round(clip.claimed_ns / 1e9 - START, 1) == 3.4
    assert made.rest() == []


def test_other_shapes_of_clips():
    clip = watched(assembler(frames=60, persons=1, rate=15.0), walking, 6.0)[-1]
    assert clip.coordinates.shape == (1, 60, 18, 3)
    assert (clip.coordinates[..., 2] > 0).all()
    assert values(clip)[0, 0, 0, 0] == pytest.approx((100 + 40 * (6 - 59 / 15)) / 640 - 0.5, abs=ONE_STEP)


def test_those_close_to_each_other_share_a_clip_in_the_order_of_their_numbers():
    def people(at):
        return [(9, figure(100)), (3, figure(500)), (5, figure(120)), (4, figure(518)), (8, figure(300))]

    clips = watched(assembler(), people, 3.0)
    assert [clip.tracks for clip in clips[-3:]] == [(3, 4), (5, 9), (8,)]
    assert values(clips[-2])[1, -1, 0, 0] == pytest.approx(100 / 640 - 0.5, abs=ONE_STEP)


def test_the_two_closest_are_found_first_whatever_their_numbers():
    def people(at):
        return [(1, figure(100, tall=150)), (2, figure(200, tall=150)), (3, figure(220, tall=150))]

    assert [clip.tracks for clip in watched(assembler(), people, 1.0)] == [(2, 3), (1,)]
    assert [clip.tracks for clip in watched(assembler(persons=3), people, 1.0)] == [(1, 2, 3)]


@pytest.mark.parametrize("gap, together", [(90, True), (110, False)])
def test_people_are_near_within_the_larger_ones_height(gap, together):
    clips = watched(assembler(), lambda at: [(1, figure(200)), (2, figure(200 + gap, tall=80))], 2.0)
    assert [clip.tracks for clip in clips[-(2 - together):]] == ([(1, 2)] if together else [(1,), (2,)])


def test_who_walks_by_far_behind_is_not_in_the_clip_of_who_falls():
    """Half as tall, so about twice as far from the camera: in the picture they meet, on the ground they do not."""
    clips = watched(assembler(), lambda at: [(1, figure(300, 240)), (2, figure(250 + 10 * at, 220, 50))], 10.0)
    assert {clip.tracks for clip in clips} == {(1,), (2,)}


def test_who_met_somebody_and_left_is_alone_again_after_some_seconds():
    def people(at):
        return [(1, figure(300)), (2, figure(320 + 60 * max(at - 5, 0)))]

    clips = watched(assembler(), people, 10.0)
    assert [clip.tracks for clip in clips[:5]] == [(1, 2)] * 5
    assert [clip.tracks for clip in clips[-2:]] == [(1,), (2,)]


def test_two_who_fight_share_a_clip_whatever_parts_of_them_are_seen():
    """They come together and apart, lean, and now and then half of one is hidden behind the other."""
    rng = np.random.default_rng(4)

    def people(at):
        gap = 30 + 25 * np.sin(5 * at)
        left, right = figure(300 - gap), figure(300 + gap, tall=90)
        for one in (left, right):
            one[:, :2] += rng.normal(0, 4, (18, 2))
            one[rng.random(18) < 0.4] = 0
        return [(1, left), (2, right)]

    assert {clip.tracks for clip in watched(assembler(), people, 10.0)} == {(1, 2)}


def test_who_falls_in_front_of_a_walker_far_behind_is_alone_all_the_while():
    """An alert names the tracks of its clip. Lying, one is as long as upright; the walker is seen past him all the
    while."""
    def people(at):
        turn = min(max(at - 4.0, 0.0), 0.7) / 0.7 * np.pi / 2
        faller = figure(300, 300, 150)
        up = faller[:, 1] - 375
        faller[:, 0], faller[:, 1] = 300 - up * np.sin(turn), 375 + up * np.cos(turn)
        return [(2, faller), (4, figure(240 + 12 * at, 280, 60))]

    assert {clip.tracks for clip in watched(assembler(), people, 10.0)} == {(2,), (4,)}


def test_two_at_the_edge_of_reach_do_not_change_clips_at_every_hop():
    rng = np.random.default_rng(2)
    gaps = rng.normal(100, 8, 40)

    def people(at):
        return [(1, figure(200)), (2, figure(200 + (40 if at < 4 else gaps[int(at)])))]

    clips = watched(assembler(), people, 39.0)
    assert {clip.tracks for clip in clips} == {(1, 2)}
    # Who was never together is not drawn in by it.
    apart = watched(assembler(), lambda at: [(1, figure(200)), (2, figure(310))], 5.0)
    assert {clip.tracks for clip in apart} == {(1,), (2,)}


def test_a_pair_is_not_broken_up_by_who_passes_a_little_closer():
    def people(at):
        return [(1, figure(300)), (2, figure(340)), (3, figure(700 if at < 3 else 265))]

    assert {clip.tracks for clip in watched(assembler(), people, 8.0) if clip.claimed_ns > (START + 3.5) * 1e9} == {
        (1, 2), (3,)}


def test_after_a_break_nobody_shared_a_clip_before():
    made = assembler()
    watched(made, lambda at: [(1, figure(200)), (2, figure(240))], 3.0)
    made.restart()
    assert {clip.tracks for clip in watched(made, lambda at: [(1, figure(200)), (2, figure(310))], 3.0, begin=60)} == {
        (1,), (2,)}


def test_where_clips_are_dear_all_are_put_into_as_few_as_hold_them_the_closest_together():
    def people(at):
        return [(1, figure(100)), (2, figure(600)), (3, figure(560)), (4, figure(300, 200, 40)), (5, figure(320))]

    clips = watched(assembler(near=False), people, 3.0)
    assert [clip.tracks for clip in clips[-3:]] == [(2, 3), (1, 5), (4,)]
    assert [len(clip.tracks) for clip in watched(assembler(near=False, persons=4), people, 1.0)] == [4, 1]


@pytest.mark.parametrize("persons", [1, 2, 3, 8])
def test_few_is_as_few_as_can_be_even_of_people_who_never_met(persons):
    rng = np.random.default_rng(persons)
    for count in range(12):
        shown = {}
        for number in range(count):
            frames = np.zeros((60, 18, 3))
            first = rng.integers(0, 40)
            frames[first:first + 20] = figure(*rng.uniform(-0.5, 0.5, 2), tall=rng.uniform(0.05, 0.6))
            shown[number] = frames
        made = groups(shown, persons, 1.5, near=False)
        assert len(made) == -(-count // persons)
        assert sorted(number for group in made for number in group) == list(range(count))


def test_a_lying_person_and_who_kneels_beside_share_a_clip():
    lying = figure(300, 300)
    lying[:, :2] = np.column_stack([np.linspace(240, 360, 18), np.full(18, 300)])
    clips = watched(assembler(), lambda at: [(1, lying), (2, figure(370, 270, 75))], 3.0)
    assert {clip.tracks for clip in clips} == {(1, 2)}


def test_distances_are_those_of_the_picture_and_not_of_its_normalised_sides():
    def people(at):
        return [(1, figure(100, 150, 120)), (2, figure(200, 150, 120)), (3, figure(100, 240, 120))]

    assert [clip.tracks for clip in watched(assembler(), people, 1.0)] == [(1, 3), (2,)]


@pytest.mark.parametrize("persons", [1, 2, 3, 8])
@pytest.mark.parametrize("seed", range(6))
def test_in_a_random_scene_every_live_track_is_in_exactly_one_clip_of_a_hop(persons, seed):
    rng = np.random.default_rng(seed)
    made = assembler(persons=persons, frames=60)
    lives = {number: (rng.uniform(0, 6), rng.uniform(0, 6), rng.uniform(0, 640, 2)) for number in
             rng.choice(1000, rng.integers(1, 14), replace=False).tolist()}
    seen = {}
    for index in range(71):
        at = index / 10
        here = [(number, figure(*place, tall=200)) for number, (begin, length, place) in lives.items()
                if begin <= at <= begin + length]
        for number, _ in here:
            seen.setdefault(number, []).append(at)
        made.add(START + at, 640, 480, here)
        clips = made.due(START + at)
        if not clips:
            continue
        shown = [number for clip in clips for number in clip.tracks]
        hop = at - 1.0 if at > 1.05 else -1.0
        live = [number for number, times in seen.items()
                if times[-1] > hop + 1e-9 and 1.0 - 1e-9 <= times[-1] - max(times[0], at - 59 / 30)]
        # A second is 30 frames: a track of 29/30 s may fill them, too.
        assert set(live) <= set(shown) <= {number for number, times in seen.items() if times[-1] > hop}
        assert len(shown) == len(set(shown))
        assert all(1 <= len(clip.tracks) <= persons for clip in clips)
        now = {number for number, _ in here}
        alone = [lives[clip.tracks[0]][2] for clip in clips if len(clip.tracks) == 1 and clip.tracks[0] in now]
        assert persons == 1 or all(np.hypot(*(one - other)) > 200 * assemble.NEAR
                                   for place, one in enumerate(alone) for other in alone[:place])
        assert all(clip.tracks == tuple(sorted(clip.tracks)) for clip in clips)
        assert all(clip.coordinates.shape == (len(clip.tracks), 60, 18, 3) for clip in clips)


def test_tracks_that_were_never_seen_together_have_met_nobody():
    early, late = np.zeros((60, 18, 3)), np.zeros((60, 18, 3))
    early[:30] = late[30:] = figure(0.1, 0.1, 0.2)
    assert groups({1: early, 3: late}, 2, 1.5) == [(1,), (3,)]
    late[29] = late[30]
    assert groups({1: early, 3: late}, 2, 1.5) == [(1, 3)]


@pytest.mark.parametrize("step", [-100.0, -0.8, 3600.0])
def test_a_clock_that_was_set_is_reported_and_windows_begin_anew(step):
    made = assembler()
    assert len(watched(made, walking, 3.0)) == 3
    at = START + 3.0 + step
    assert made.add(at, 640, 480, walking(3)) == pytest.approx(step, abs=0.001)
    clips = []
    for index in range(1, 61):
        assert made.add(at + index / 30, 640, 480, [(7, standing())]) is None
        clips += made.due(at + index / 30)
    assert [round(clip.claimed_ns / 1e9 - at, 1) for clip in clips] == [1.0, 2.0]
    assert (clips[-1].coordinates[0, :, 0, 2] > 0).sum() == 61


@pytest.mark.parametrize("step", [-5.0, 3.0, 40.0])
def test_beside_a_steady_clock_any_step_is_seen_and_a_pause_is_none(step):
    made = assembler()
    for index in range(60):
        assert made.add(START + index / 30, 640, 480, walking(0), steady_s=index / 30) is None
    assert made.add(START + 2 + max(step, 0.1), 640, 480, [], steady_s=2 + max(step, 0.1)) is None
    assert made.add(START + 3 + max(step, 0.1) + step, 640, 480, [], steady_s=3 + max(step, 0.1)) == pytest.approx(step)


def test_a_frame_that_is_a_little_early_is_left_out_and_counted():
    made = assembler()
    watched(made, walking, 2.0)
    assert made.add(START + 1.8, 640, 480, [(7, standing(0, 0, 1))]) is None
    assert made.add(START + 2.0, 640, 480, [(7, standing(0, 0, 1))]) is None
    assert made.counts.late == 2
    clip = watched(made, walking, 0.9, begin=2.1)[0]
    assert (clip.coordinates[0, :, :, 2] < COORDINATE_ONE).all()


def stored(made):
    return sum(len(track.times) for track in made._tracks.values())


def test_memory_is_bounded_in_time():
    made = assembler()
    watched(made, walking, 60.0)
    assert stored(made) <= 330


def test_memory_is_bounded_at_any_rate_of_pictures():
    made = assembler()
    clip = watched(made, walking, 12.0, fps=1000.0)[-1]
    assert stored(made) <= 2 * 330
    at = clip.claimed_ns / 1e9 - START - np.arange(299, -1, -1) / 30
    assert np.abs(values(clip)[0, :, 0, 0] - ((100 + 40 * at) / 640 - 0.5)).max() <= ONE_STEP


def test_at_most_so_many_tracks_are_kept_and_those_beyond_are_counted(monkeypatch):
    monkeypatch.setattr(assemble, "TRACKS_MAX", 4)
    made = assembler()
    for index in range(45):
        made.add(START + index / 30, 640, 480, [(number, standing(number * 50)) for number in range(1, 7)])
    assert sorted(made._tracks) == [1, 2, 3, 4] and made.counts.crowded == 90
    made.add(START + 1.5, 640, 480, [(9, standing())])
    assert len(made._tracks) == 4 and 9 in made._tracks and made.counts.short == 1


def test_numbers_of_tracks_stay_within_the_wire():
    clip = watched(assembler(), lambda at: [((1 << 32) + 5, standing())], 1.0)[0]
    assert clip.tracks == (5,)
    assert len(clip.pack()) > 0
