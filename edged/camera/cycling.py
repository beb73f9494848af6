"""Somebody on a bicycle: the feet on the pedals, the hands on the bars, all that follows by inverse kinematics.

Source of the measures: crank 165 to 175 mm, saddle so high that the knee keeps 25 to 40 degrees at the lowest pedal,
seat tube at 73 degrees (bicycle fitting after Holmes, Pruitt and Whalen); 50 to 100 turns a minute.
"""

from typing import NamedTuple

import numpy as np

from edged.camera.acts import Stage, slow_noise, smooth
from edged.camera.puppet import SIDES, Body, Posture, joints

_AXLE_M = 0.28           # of the bottom bracket over the ground
_SEAT_TUBE = np.radians(73)
_Q_M = 0.1               # of the feet from the middle
_ROUND = np.linspace(0, 2 * np.pi, 36, endpoint=False)


class Ride(NamedTuple):
    """speed: metres a second; cadence: turns a second while pedalling; knee: bend at the lowest pedal, radians.

    coasts: the share of the time without pedalling; lean: of the trunk; reach: of the arms' length, to the bars;
    down: of the arms below the level, radians.
    """

    speed: float
    cadence: float
    crank: float
    knee: float
    coasts: float
    lean: float
    reach: float
    down: float


def random_ride(rng: np.random.Generator) -> Ride:
    """From an upright city bicycle to a bent racer."""
    sport = rng.uniform(0, 1)
    cadence = rng.uniform(50, 100) / 60
    # 2 to 7 m/s: some 2.5 m (low gear) to 5 m a turn.
    speed = float(np.clip(cadence * rng.uniform(2.2, 4.8), 2.0, 7.0))
    return Ride(speed, cadence, rng.uniform(0.165, 0.175), np.radians(rng.uniform(28, 42)),
                rng.uniform(0.1, 0.6) * rng.integers(0, 2), 0.12 + 0.65 * sport + rng.normal(0, 0.05),
                rng.uniform(0.82, 0.96), 0.55 + 0.45 * sport + rng.normal(0, 0.08))


def ride(rng: np.random.Generator, body: Body, how: Ride, path, start_s: float, end_s: float, fps: float) -> np.ndarray:
    """The joints of somebody who rides along ``path`` (performance.Path) from its beginning: (frames, 18, 3) metres."""
    count = int(round((end_s - start_s) * fps))
    time = np.arange(count) / fps
    stage = Stage(body, time)
    speed = how.speed * (1 + 0.06 * slow_noise(rng, count, 1, 1 / fps, 3.0)[:, 0])
    way = np.cumsum(speed) / fps
    place, heading = path(way)
    pedals = np.ones(count)
    if how.coasts:
        mood = slow_noise(rng, count, 1, 1 / fps, 2.5)[:, 0]
        pedals = smooth((mood - np.quantile(mood, how.coasts)) / 0.3 + 0.5)
    turn = 2 * np.pi * (rng.uniform(0, 1) + np.cumsum(pedals * how.cadence * speed / how.speed) / fps)
    angle = turn[:, None] + np.array([0.0, np.pi])

    # All of it from the bottom bracket, metres ahead and up; the foot's joint is behind and over the pedal's axle.
    heel = 0.02 * np.sin(angle + rng.uniform(-0.5, 0.5))
    set_back = rng.uniform(0.08, 0.13)
    foot_ahead = how.crank * np.sin(angle) - set_back
    foot_up = how.crank * np.cos(angle) + 0.1 + heel
    longest = np.sqrt(body.thigh ** 2 + body.shank ** 2 + 2 * body.thigh * body.shank * np.cos(how.knee))
    tube = np.array([-np.cos(_SEAT_TUBE), np.sin(_SEAT_TUBE)])
    circle = how.crank * np.stack([np.sin(_ROUND), np.cos(_ROUND)], -1) + [-set_back, 0.1]
    # The saddle goes up its tube until the leg is as long as it may be at the farthest pedal.
    heights = np.linspace(0.4, 1.2, 81)
    farthest = np.linalg.norm(heights[:, None, None] * tube - circle, axis=-1).max(1)
    hip = float(np.interp(longest, farthest, heights))
    hip_ahead, hip_up = hip * tube

    stage.tilt[:, 0] = how.lean + 0.03 * slow_noise(rng, count, 1, 1 / fps, 1.5)[:, 0]
    stage.tilt[:, 1] = 0.025 * np.sin(turn) * pedals
    forward, left = np.stack([np.cos(heading), np.sin(heading)], -1), np.stack([-np.sin(heading), np.cos(heading)], -1)
    sway = 0.012 * np.sin(turn) * pedals + 0.02 * slow_noise(rng, count, 1, 1 / fps, 1.0)[:, 0]
    pelvis = np.concatenate([place + hip_ahead * forward + sway[:, None] * left,
                             np.full((count, 1), _AXLE_M + hip_up)], 1)
    ankles = np.empty((count, 2, 3))
    for foot in (0, 1):
        ankles[:, foot, :2] = place + foot_ahead[:, foot, None] * forward + SIDES[foot] * _Q_M * left
        ankles[:, foot, 2] = _AXLE_M + foot_up[:, foot]
    stage.head += slow_noise(rng, count, 2, 1 / fps, 1.2) * [0.35, 0.08]
    stage.head[:, 1] -= 0.6 * how.lean  # the eyes stay on the way
    arm = body.upper_arm + body.forearm
    wide = rng.uniform(0.2, 0.28) - body.shoulders
    free = int(rng.integers(2)) if rng.random() < 0.15 else -1  # a hand hangs, shows the turn
    for hand in (0, 1):
        if hand == free:
            stage.arms[:, hand] = [rng.uniform(-0.1, 0.4), rng.choice((0.1, 1.5)), rng.uniform(0, 0.5)]
            continue
        bars = how.reach * arm * np.array([np.cos(how.down), 0, -np.sin(how.down)]) + [0, SIDES[hand] * wide, 0]
        stage.reach(hand, np.ones(count), bars)
    posture = Posture(pelvis, heading, stage.tilt, stage.roll, ankles, stage.arms, stage.hands, stage.grip, stage.head,
                      stage.apart, stage.floor, 1 - stage.calm)
    return joints(body, posture)
