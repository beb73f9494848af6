"""Sitting down, lying down, kneeling, getting up: ways from pose to pose, with the feet on the ground.

A pose is a row of numbers (``Pose``) about where a person stands; a course goes through several of them at given
times, without stopping at each, by a monotone cubic (Fritsch and Carlson 1980), so that nothing overshoots.
Sizes: seats of 0.35 to 0.55 m; the middle of the hips lies 0.08 to 0.1 m over what one sits on.
"""

from typing import List, NamedTuple, Sequence, Tuple

import numpy as np

from edged.camera.puppet import SIDES, Body

LYING_M = 0.11    # of the hips over the floor
ON_SEAT_M = 0.09


class Pose(NamedTuple):
    """Relative to somebody who stands: metres ahead, to the left, up; radians.

    hips: height of their middle over the ground; shift: theirs, (ahead, left); tilt: of the trunk (forward, left);
    roll: about the trunk's axis; feet: of right and left ankle; arms: flexion, abduction, elbow of right and left;
    head: yaw, nod; apart: of the knees; floor: height of what is lain on; calm: 0 for one who lies.
    """

    hips: float
    shift: Tuple[float, float] = (0.0, 0.0)
    tilt: Tuple[float, float] = (0.0, 0.0)
    roll: float = 0.0
    feet: Sequence[Sequence[float]] = ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0))
    arms: Sequence[Sequence[float]] = ((0.1, 0.1, 0.2), (0.1, 0.1, 0.2))
    head: Tuple[float, float] = (0.0, 0.0)
    apart: float = 0.0
    floor: float = 0.0
    calm: float = 1.0

    def row(self) -> np.ndarray:
        """(23,)."""
        return np.concatenate([np.ravel(part) for part in self]).astype(float)


class Course(NamedTuple):
    """The poses of a way: ``times`` (K,) seconds after its start, when each is reached. The first and the last are
    standing where ``rises`` says so; else the last is kept."""

    times: Tuple[float, ...]
    poses: Tuple[Pose, ...]
    rises: bool

    @property
    def duration_s(self) -> float:
        return self.times[-1]


def stand_m(body: Body) -> float:
    """How high the hips of one who stands are."""
    return 0.975 * body.leg + body.ankle


def through(times: np.ndarray, rows: np.ndarray, at: np.ndarray) -> np.ndarray:
    """The monotone cubic through rows (K, D) at ``times`` (K,), level at both ends: at (T,) -> (T, D)."""
    span = np.diff(times)[:, None]
    slope = np.diff(rows, axis=0) / span
    inner = np.zeros_like(rows)
    same = slope[1:] * slope[:-1] > 0
    first, second = 2 * span[1:] + span[:-1], span[1:] + 2 * span[:-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        inner[1:-1] = np.where(same, (first + second) / (first / slope[:-1] + second / slope[1:]), 0)
    place = np.clip(np.searchsorted(times, at, side="right") - 1, 0, len(times) - 2)
    s = np.clip((at - times[place]) / span[place, 0], 0, 1)[:, None]
    length = span[place]
    return ((1 + 2 * s) * (1 - s) ** 2 * rows[place] + s * (1 - s) ** 2 * length * inner[place]
            + s * s * (3 - 2 * s) * rows[place + 1] + s * s * (s - 1) * length * inner[place + 1])


def _pair(rng: np.random.Generator, low: Sequence[float], high: Sequence[float], alike: float) -> List[np.ndarray]:
    """Values of the right and the left limb, the same for both with the likelihood ``alike``."""
    right = rng.uniform(low, high)
    return [right, right.copy() if rng.random() < alike else rng.uniform(low, high)]


def standing(body: Body) -> Pose:
    return Pose(stand_m(body))


def on_chair(rng: np.random.Generator, body: Body) -> Pose:
    """Upright, leaning back or over something, feet before the seat."""
    seat = rng.uniform(0.35, 0.55)
    lean = rng.normal(0.08, 0.22)
    if rng.random() < 0.12:  # elbows on the knees
        lean = rng.uniform(0.5, 0.9)
    ahead = rng.uniform(0.0, 0.18) + 0.05
    feet = _pair(rng, [-0.12, -0.05, 0.0], [0.25, 0.03, 0.0], 0.5)
    back = 0.85 * body.thigh + ahead
    farthest = np.sqrt((0.93 * body.leg) ** 2 - (seat + ON_SEAT_M - body.ankle) ** 2) - back
    for side, foot in zip(SIDES, feet):
        foot[:2] = min(foot[0], farthest), -side * foot[1]
    if rng.random() < 0.12:  # one leg over the other
        crossed = rng.integers(2)
        feet[crossed] = np.array([min(0.25, farthest), -SIDES[crossed] * 0.2, rng.uniform(0.12, 0.3)])
    arms = _pair(rng, [lean + 0.15, 0.05, 0.5], [lean + 0.75, 0.35, 1.5], 0.5)
    return Pose(seat + ON_SEAT_M, (-back, 0.0), (lean, rng.normal(0, 0.05)), 0.0, feet, arms,
                (rng.normal(0, 0.3), rng.normal(0.15, 0.2)), abs(rng.normal(0, 0.2)))


def on_floor(rng: np.random.Generator, body: Body) -> Pose:
    """Legs stretched, knees up, or cross-legged; leaning on the hands at times."""
    kind, lean = rng.random(), rng.normal(0.05, 0.2)
    if kind < 0.35:
        far, apart, aside = rng.uniform(0.75, 0.95), 0.0, 0.03
    elif kind < 0.7:
        far, apart, aside = rng.uniform(0.4, 0.62), abs(rng.normal(0.1, 0.2)), 0.05
    else:
        far, apart, aside = rng.uniform(0.32, 0.4), rng.uniform(1.5, 2.5), -0.1
    feet = [np.array([rng.normal(0, 0.05), side * aside, 0.0]) for side in SIDES]
    if rng.random() < 0.3:
        lean, arms = -rng.uniform(0.2, 0.5), _pair(rng, [-0.7, 0.1, 0.0], [-0.4, 0.4, 0.2], 0.8)
    else:
        arms = _pair(rng, [0.3, 0.05, 0.3], [1.1, 0.4, 1.3], 0.6)
    return Pose(LYING_M, (-far * body.leg, 0.0), (lean, rng.normal(0, 0.06)), 0.0, feet, arms,
                (rng.normal(0, 0.3), rng.normal(0.1, 0.2)), apart)


def kneeling(rng: np.random.Generator, body: Body) -> Pose:
    """On both knees, upright or on the heels, where the feet were."""
    heels = rng.uniform(0.0, 0.75)
    hips = body.thigh * (1 - 0.62 * heels) + 0.07
    back = body.thigh * (1 - (1 - 0.62 * heels) ** 2) ** 0.5
    shift = 0.93 * body.shank - back
    return Pose(hips, (shift, 0.0), (rng.uniform(0, 0.5), rng.normal(0, 0.05)), 0.0,
                ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0)), _pair(rng, [0.2, 0.05, 0.2], [1.0, 0.3, 1.2], 0.6),
                (rng.normal(0, 0.2), rng.uniform(0, 0.4)), 0.1)


def crouching(rng: np.random.Generator, body: Body) -> Pose:
    """Squatting, to pick something up or to tie a shoe."""
    tilt, reach = rng.uniform(0.4, 1.1), rng.uniform(0.0, 0.3)
    step = rng.uniform(0, 0.3) * rng.integers(2)
    feet = [np.array([step, 0, 0]), np.array([-step, 0, 0.02 * (step > 0)])]
    arms = _pair(rng, [tilt + reach, 0.05, 0.1], [tilt + reach + 0.5, 0.25, 0.6], 0.6)
    return Pose(rng.uniform(0.22, 0.5), (-rng.uniform(0.05, 0.25), 0.0), (tilt, rng.normal(0, 0.08)), 0.0,
                feet[:: rng.choice((1, -1))], arms, (rng.normal(0, 0.2), rng.uniform(-0.2, 0.4)), rng.uniform(0, 0.6))


def bent(rng: np.random.Generator, body: Body) -> Pose:
    """Bent down from the hips, legs nearly straight."""
    tilt = rng.uniform(0.6, 1.7)
    arms = _pair(rng, [tilt - 0.2, 0.05, 0.0], [tilt + 0.4, 0.25, 0.6], 0.6)
    return Pose(stand_m(body) - rng.uniform(0.02, 0.2), (-rng.uniform(0.02, 0.15), 0.0),
                (tilt, rng.normal(0, 0.08)), 0.0, arms=arms, head=(rng.normal(0, 0.2), rng.normal(0, 0.2)))


def _limp(rng: np.random.Generator) -> List[np.ndarray]:
    return _pair(rng, [-0.1, 0.1, 0.0], [0.8, 0.6, 0.9] if rng.random() < 0.7 else [2.6, 0.6, 1.2], 0.4)


def supine_from(rng: np.random.Generator, body: Body, seated: Pose) -> Pose:
    """On the back or a side, where one sat on the floor; stretched or curled."""
    side = rng.choice((0.0, 0.0, -1.0, 1.0))
    curled = rng.uniform(0, 1) if side else rng.uniform(0, 0.4)
    far = (0.93 - 0.5 * curled) * body.leg
    start = seated.shift[0]
    feet = [np.array([start + far + rng.normal(0, 0.04), sign * rng.uniform(0, 0.1), 0.0]) for sign in SIDES]
    return Pose(LYING_M, (start, 0.0), (-rng.uniform(1.45, 1.58), rng.normal(0, 0.1)), side * rng.uniform(1.1, 1.6),
                feet, _limp(rng), (rng.normal(0, 0.3), rng.normal(0.1, 0.15)), 0.0, 0.0, 0.0)


def prone_from(rng: np.random.Generator, body: Body, knelt: Pose) -> Pose:
    """On the belly or a side, ahead of where one knelt."""
    side = rng.choice((0.0, 0.0, -1.0, 1.0))
    ahead = knelt.shift[0] + rng.uniform(0.2, 0.45)
    far = rng.uniform(0.6, 0.95) * body.leg if side else rng.uniform(0.85, 0.97) * body.leg
    feet = [np.array([ahead - far + rng.normal(0, 0.03), sign * rng.uniform(-0.02, 0.12), 0.0]) for sign in SIDES]
    return Pose(LYING_M, (ahead, 0.0), (rng.uniform(1.45, 1.58), rng.normal(0, 0.1)), side * rng.uniform(1.0, 1.5),
                feet, _limp(rng), (rng.normal(0, 0.6), rng.normal(-0.1, 0.15)), 0.0, 0.0, 0.0)


def on_bed(rng: np.random.Generator, body: Body, seated: Pose) -> Pose:
    """On what one sat on, the head to the left or the right, on the back or a side."""
    left = rng.choice((-1.0, 1.0))
    high = seated.hips - ON_SEAT_M
    back, far = seated.shift[0], rng.uniform(0.6, 0.95) * body.leg
    feet = [np.array([back + rng.uniform(-0.08, 0.08) - 0.06 * sign * left, -left * far - sign * (body.hips + 0.06),
                      high]) for sign in SIDES]
    # Towards the camera of the room or away from it, as beds stand; mostly face up.
    roll = -left * rng.choice((0.5, 1.0, 1.0, 0.1)) * 0.5 * np.pi
    return Pose(high + LYING_M, (back, 0.0), (0.0, left * rng.uniform(1.4, 1.57)), roll, feet, _limp(rng),
                (rng.normal(0, 0.3), rng.normal(0.1, 0.15)), 0.0, high, 0.0)


def plank(rng: np.random.Generator, body: Body, low: bool) -> Pose:
    """Push-ups: hands and toes on the ground."""
    arm = body.upper_arm + body.forearm
    high = 0.3 if low else 0.94
    slope = np.arcsin(min((high * arm - 0.1) / (body.trunk + body.leg), 0.5))
    hips = body.ankle + 0.1 + np.sin(slope) * body.leg
    ahead = np.cos(slope) * body.leg - 0.02
    bend = 1.6 if low else 0.0
    return Pose(hips, (ahead, 0.0), (0.5 * np.pi - slope, 0.0), 0.0, ((0.0, 0.0, 0.06), (0.0, 0.0, 0.06)),
                [np.array([0.5 * np.pi - slope - 0.5 * bend, 0.3 * low + 0.1, bend])] * 2, (0.0, -0.2))
