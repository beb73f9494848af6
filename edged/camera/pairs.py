"""Two people and each other: a fight, and what must not be taken for one: talk, a handshake, an embrace, company.

A fight: 0.5 to 1.1 m apart, face to face or nearly so, small steps to and fro and around, punches of a quarter to half
a second alone or in series, kicks, shoves, holds; who is hit gives way.
"""

from dataclasses import replace
from typing import List, NamedTuple, Optional, Tuple

import numpy as np

from edged.camera import gestures, poses
from edged.camera.acts import (
    COURSE, FALL, HANDS, KICK, LURCH, TOPPLE, Act, Course, Fall, Hands, Kick, Lurch, smooth,
)  # fmt: skip
from edged.camera.performance import Footwork, Gait, perform
from edged.camera.poses import Pose
from edged.camera.puppet import SIDES, Body, random_body
from edged.camera.ways import Path

_STEPS = Gait(1.0, 1.0, 0.62, 0.0, 0.5, 0.0)  # of who does not go anywhere
_FIRST = 0.06  # of a cycle: both feet on the ground


class Dance(NamedTuple):
    """Where two stand: at each of ``times`` (K,) begins another step; places (2, K, 2), headings (2, K)."""

    times: np.ndarray
    places: np.ndarray
    headings: np.ndarray
    twists: Tuple[float, float]  # off the other one, to the left

    def path(self, who: int) -> Path:
        marks = 0.5 * np.arange(len(self.times))

        def path(way: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
            place = np.stack([np.interp(way, marks, self.places[who, :, axis]) for axis in (0, 1)], -1)
            return place, np.interp(way, marks, self.headings[who])

        return path

    def footwork(self, until_s: float) -> Footwork:
        def footwork(time: np.ndarray) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
            time = np.minimum(time, until_s)
            last = np.clip(np.searchsorted(self.times, time) - 1, 0, len(self.times) - 2)
            span = np.minimum(np.diff(self.times), 0.45)[last]
            part = smooth((time - self.times[last]) / span)
            half = np.where(time < self.times[0], 0, last + part)
            return _FIRST + 0.5 * half, 0.5 * np.sin(np.pi * np.clip(part, 0, 1)), 0.5 * half

        return footwork


def _dance(
    rng: np.random.Generator, spot: np.ndarray, seconds: float, apart: Tuple[float, float], restless: float,
    drift: float, twist: float,
) -> Dance:
    """restless: metres and radians a half step; drift: metres a second that the first drives the second back."""
    times = np.cumsum(rng.uniform(0.28, 0.85, int(seconds / 0.4) + 4)) - 2.0 - 0.3
    count = len(times)
    bearing = rng.uniform(-np.pi, np.pi) + np.cumsum(rng.normal(0, restless, count))
    ahead = np.stack([np.cos(bearing), np.sin(bearing)], -1)
    distance = rng.uniform(apart[0], apart[1], count)
    distance = 0.5 * distance + 0.5 * np.concatenate([distance[:1], distance[:-1]])
    driven = 0.5 * drift * ahead * rng.integers(0, 2, (count, 1))
    middle = np.cumsum(rng.normal(0, 0.35 * restless, (count, 2)) + driven, 0)
    middle += spot - middle[count // 2]
    half = 0.5 * distance[:, None] * ahead
    twists = tuple(float(side * twist) for side in rng.choice((-1.0, 1.0), 2))
    return Dance(times, np.stack([middle - half, middle + half]),
                 np.stack([bearing + twists[0], bearing + np.pi + twists[1]]), twists)


def _guard(rng: np.random.Generator, body: Body, start_s: float, end_s: float, twist: float, high: float) -> Act:
    """Knees a little bent, one foot ahead, fists before the chest or the chin; high: 0 hanging arms .. 1 a boxer's."""
    stance = np.sign(twist) * rng.uniform(0.08, 0.2)
    arms = np.stack([rng.uniform([0.5, 0.1, 1.3], [0.9, 0.45, 2.2]) for _ in SIDES]) * high
    pose = Pose(poses.stand_m(body) - rng.uniform(0.02, 0.07), (0.0, 0.0), (rng.uniform(0.03, 0.2), 0.0), 0.0,
                ((stance, 0, 0), (-stance, 0, 0)), arms)
    course = Course((0.0, 0.6, end_s - start_s + 4), (poses.standing(body), pose, pose), False)
    return Act(COURSE, start_s - 3, end_s + 1, course)


def _punch(rng: np.random.Generator, arm: int, at: float, far: float, twist: float) -> List[Act]:
    """To head or chest of somebody ``far`` away."""
    span = rng.uniform(0.24, 0.45)
    wide = rng.uniform(0, 0.25) * SIDES[arm]  # a hook comes from the side
    c, s = np.cos(-twist), np.sin(-twist)
    ahead, left = rng.uniform(0.75, 1.0) * far, -0.1 * SIDES[arm]
    place = (c * ahead - s * left, s * ahead + c * left, rng.uniform(-0.25, 0.25))
    fist = Hands(arm, place, (0.0, wide, 0.0), 1 / (2 * span), 0.0, 0.45 * span)
    lurch = Lurch((rng.uniform(0.05, 0.25), 0.0), -SIDES[arm] * rng.uniform(-0.5, -0.2), (rng.uniform(0, 0.12), 0.0))
    return [Act(HANDS, at, at + span, fist), Act(LURCH, at - 0.05, at + span + 0.15, lurch)]


def _hit(rng: np.random.Generator, at: float, hard: float) -> List[Act]:
    """Gives way to a blow, and may cover the head."""
    acts = [Act(LURCH, at, at + rng.uniform(0.45, 0.9), Lurch(
        (-hard * rng.uniform(0.1, 0.5), hard * rng.normal(0, 0.15)), rng.normal(0, 0.25) * hard,
        (-hard * rng.uniform(0.02, 0.15), 0.0), rng.normal(0, 0.5) * hard))]
    if rng.random() < 0.35:
        acts += [Act(HANDS, at, at + rng.uniform(0.5, 1.2), Hands(arm, (0.18, -0.1 * side, 0.2), ramp_s=0.2))
                 for arm, side in enumerate(SIDES)]
    return acts


def _exchange(
    rng: np.random.Generator, at: float, far: float, twists: Tuple[float, float], striker: int, style: float
) -> Tuple[List[List[Act]], float]:
    """One attack and its answer: acts of both, and when it is over."""
    acts = [[], []]  # type: List[List[Act]]
    kind = rng.random()
    if kind < 0.62:
        arm = int(rng.integers(2))
        for _ in range(int(rng.integers(1, 5))):
            acts[striker] += _punch(rng, arm, at, far, twists[striker])
            if rng.random() < 0.6:
                acts[1 - striker] += _hit(rng, at + 0.15, rng.uniform(0.4, 1))
            at, arm = at + rng.uniform(0.22, 0.5), 1 - arm if rng.random() < 0.75 else arm
    elif kind < 0.62 + 0.18 * style:
        span, foot = rng.uniform(0.55, 0.9), int(rng.integers(2))
        acts[striker].append(Act(KICK, at, at + span, Kick(foot, rng.uniform(0.7, 1.0) * max(far, 0.6),
                                                         rng.uniform(0.2, 0.9))))
        acts[1 - striker] += _hit(rng, at + 0.4 * span, rng.uniform(0.5, 1))
        at += span
    else:  # a shove, or a grip at the collar
        span = rng.uniform(0.4, 0.7) if rng.random() < 0.65 else rng.uniform(0.8, 2.0)
        for arm, side in enumerate(SIDES):
            place = (rng.uniform(0.85, 1.0) * far, -0.05 * side - 0.4 * twists[striker] * far, rng.uniform(-0.2, 0.0))
            acts[striker].append(Act(HANDS, at, at + span, Hands(arm, place, (0.05, 0.02, 0.03), 2.0, 0.0, 0.18)))
        acts[striker].append(Act(LURCH, at, at + span, Lurch((0.25, 0.0), 0.0, (0.1, 0.0))))
        acts[1 - striker] += _hit(rng, at + 0.15, rng.uniform(0.7, 1.3))
        at += span
    return acts, at


def fight(
    rng: np.random.Generator, spot: np.ndarray, start_s: float, end_s: float, fps: float,
    brawl_s: Optional[Tuple[float, float]] = None, downed_s: Optional[float] = None,
) -> List[np.ndarray]:
    """Two who fight about ``spot`` (2,) from brawl_s[0] to brawl_s[1] (all the time where none is given), the first
    more than the second: (T, 18, 3) each. downed_s: when the second is knocked down."""
    seconds = end_s - start_s
    begins, ends = brawl_s or (start_s - 1, end_s + 1)
    one_sided, style, twist = rng.random() < 0.35, rng.uniform(0, 1), rng.uniform(0.15, 0.55)
    apart = (0.5, 0.85) if rng.random() < 0.5 else (0.65, 1.1)
    dance = _dance(rng, spot, seconds + 5, apart, rng.uniform(0.06, 0.25), rng.uniform(0.1, 0.6) * one_sided, twist)
    dance = dance._replace(times=dance.times + start_s)
    bodies = [random_body(rng), random_body(rng)]
    acts = [[_guard(rng, bodies[who], begins, ends, dance.twists[who], rng.uniform(0.3, 1))] for who in (0, 1)]
    at = begins + rng.uniform(0, 0.4)
    while at < ends:
        striker = int(rng.random() < (0.15 if one_sided else 0.5))
        more, over = _exchange(rng, at, float(np.mean(apart)), dance.twists, striker, style)
        for who in (0, 1):
            acts[who] += more[who]
        at = over + rng.exponential(0.35)
    if downed_s is not None:
        acts[1] = [act for act in acts[1] if act.start_s < downed_s and act.kind != COURSE]
        fell = Fall(TOPPLE, float(np.pi + rng.normal(0, 0.5)), rng.uniform(0.8, 1.8), rng.uniform(0, 0.35),
                    rng.normal(0, 0.4), 0.8, int(rng.integers(0, 3)))
        acts[1].append(Act(FALL, downed_s, downed_s + fell.duration_s(bodies[1]), fell))
    steps = dance.footwork(np.inf if downed_s is None else downed_s)
    return [perform(rng, bodies[who], acts[who], dance.path(who), start_s, end_s, fps, _STEPS, steps)
            for who in (0, 1)]


def talk(rng: np.random.Generator, spot: np.ndarray, start_s: float, end_s: float, fps: float) -> List[np.ndarray]:
    """Two who stand face to face about ``spot`` and talk, shake hands or embrace: (T, 18, 3) each."""
    kind = rng.random()
    apart = (0.75, 1.4) if kind < 0.6 else (0.7, 0.85) if kind < 0.8 else (0.32, 0.42)
    dance = _dance(rng, spot, end_s - start_s + 5, apart, 0.02, 0.0, rng.uniform(0, 0.35) * (kind < 0.6))
    seldom = np.cumsum(rng.uniform(1.5, 6, len(dance.times))) + start_s - 4
    dance = dance._replace(times=seldom)
    bodies, people = [random_body(rng), random_body(rng)], []
    at, span, shake = rng.uniform(start_s - 1, end_s - 1), rng.uniform(1.5, 4), rng.uniform(1.5, 2.5)
    for who, body in enumerate(bodies):
        acts, free_s = [], start_s - 1  # type: List[Act], float
        if kind < 0.6:
            while free_s < end_s and rng.random() < 0.7:
                acts += gestures.talking(rng, body, free_s, end_s)
                free_s = max(act.end_s for act in acts) + rng.uniform(0.2, 3)
        elif kind < 0.8:
            acts.append(Act(HANDS, at, at + span, Hands(0, (0.36, 0.12, -0.32), (0.0, 0.0, 0.04), shake, 0.0, 0.5)))
        else:
            for arm, side in enumerate(SIDES):
                acts.append(Act(HANDS, at, at + span + 1, Hands(arm, (0.38, -0.1 * side, rng.uniform(-0.25, 0.05)),
                                                               (0.0, 0.0, 0.02), 1.0, 0.0, 0.6)))
            acts.append(Act(LURCH, at, at + span + 1, Lurch((0.15, 0.0), 0.0, (0.05, 0.0))))
        people.append(perform(rng, body, acts, dance.path(who), start_s, end_s, fps, _STEPS, dance.footwork(np.inf)))
    return people


def together(
    rng: np.random.Generator, path: Path, gait: Gait, walks: List[Act], start_s: float, end_s: float, fps: float
) -> List[np.ndarray]:
    """Two who go side by side: (T, 18, 3) each."""
    aside = rng.uniform(0.5, 0.9) * rng.choice((-1.0, 1.0))

    def beside(way: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
        place, heading = path(way)
        return place + aside * np.stack([-np.sin(heading), np.cos(heading)], -1), heading

    other = replace(gait, swing=rng.uniform(0, 0.5), elbow=rng.uniform(0.1, 0.6))
    return [perform(rng, random_body(rng), walks, path, start_s, end_s, fps, gait),
            perform(rng, random_body(rng), walks, beside, start_s, end_s, fps, other)]
