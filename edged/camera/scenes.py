"""What one of a recording's cast does from its beginning to its end."""

from typing import List, Tuple

import numpy as np

from edged.camera import courses, gestures, ways
from edged.camera.acts import (
    CYCLING, FALLING, FIGHTING, JUMPING, LYING, RUNNING, SITTING, STANDING, WALK, WALKING, WAVING, Act,
)  # fmt: skip
from edged.camera.cycling import random_ride, ride
from edged.camera.moments import fall, idle, jumps, stroll
from edged.camera.pairs import fight
from edged.camera.performance import perform, running_gait
from edged.camera.puppet import Body, random_body
from edged.camera.viewpoint import View

Events = List[Tuple[str, float, float]]  # label, start and end in seconds


def acts_of(rng: np.random.Generator, body: Body, label: str, seconds: float) -> List[Act]:
    """Of one of the cast who neither rides nor fights."""
    if label == STANDING:
        return idle(rng, body, 0, seconds, 0.4)
    if label == WALKING:
        return stroll(rng, body, 0, seconds)
    if label == RUNNING:
        return [Act(WALK, -1.0, seconds + 2, label=RUNNING)]
    if label == JUMPING:
        acts, at = [], rng.uniform(1, 3)
        while at < seconds:
            made = jumps(rng, at, seconds, int(rng.integers(1, 4)))
            acts += made
            at = (made[-1].end_s if made else at) + rng.uniform(2, 5)
        return acts
    if label == WAVING:
        at = rng.uniform(0.1, 0.3) * seconds
        return gestures.wave(rng, body, at, at + rng.uniform(0.4, 0.6) * seconds)
    at = rng.uniform(0.25, 0.6) * seconds
    if label == SITTING:
        act = courses.sit(rng, body, 0.5 * at, seconds, False, False, rng.uniform(1, 2.2))
        return [Act(WALK, -1.0, act.start_s - 0.3), act]
    if label == LYING:
        act = courses.lie_down(rng, body, 0.5 * at, seconds, False, rng.uniform(2.5, 5))
        return [Act(WALK, -1.0, act.start_s - 0.3), act]
    if rng.random() < 0.6:
        return [Act(WALK, -1.0, at), fall(rng, body, at, walking=True)]
    return [fall(rng, body, at, walking=False)]


def part(
    rng: np.random.Generator, view: View, label: str, seconds: float, fps: float
) -> Tuple[List[np.ndarray], Events]:
    """Joints (T, 18, 3) metres of one of the cast, or of two who fight, and what is told of it."""
    if label == FIGHTING:
        spot = ways.spots(rng, view, 1, 0.12)[0]
        start, end = rng.uniform(0.1, 0.25) * seconds, rng.uniform(0.7, 0.9) * seconds
        return fight(rng, spot, 0.0, seconds, fps, (start, end)), [(FIGHTING, start, end)]
    body = random_body(rng)
    if label == CYCLING:
        how = random_ride(rng)
        path, first, last = ways.sweep(rng, view, how.speed * seconds, 4 * how.speed, 0.25 * how.speed ** 2 + 1.5)
        middle = 0.5 * (first + last) - rng.uniform(0.4, 0.6) * how.speed * seconds

        joints = ride(rng, body, how, lambda way: path(way + middle), 0.0, seconds, fps)
        seen = np.flatnonzero(ways.sees(view, joints[:, 1, :2]))
        span = (seen[0] / fps, seen[-1] / fps) if len(seen) else (0.0, seconds)
        return [joints], [(CYCLING, *span)]
    acts = acts_of(rng, body, label, seconds)
    margin = 0.12 if label in (JUMPING, FALLING, LYING, SITTING) else rng.uniform(-0.1, 0.1)
    path = ways.stroll(rng, view, (4.5 if label == RUNNING else 2) * seconds, margin)
    gait = running_gait(rng, body) if label == RUNNING else None
    joints = perform(rng, body, acts, path, 0.0, seconds, fps, gait)
    told = [(act.label, max(act.start_s, 0.0), act.end_s if act.end_s <= seconds or act.label in (JUMPING, FALLING)
             else seconds) for act in acts if act.label]
    return [joints], [event for event in told if event[2] <= seconds]
