"""What one person does, in three dimensions: walks, runs, stands, and between that what acts.py has to offer.

Steps are planned, not swung: a foot stands where it was set down until it lifts off, so that feet do not slide and
a walker may turn, slow down and stop.
Source: gait timing after D. Winter, "The Biomechanics and Motor Control of Human Gait" (stance 62 % of a walker's
cycle, arms against legs, two bobs a cycle); of runners after T. Novacheck, "The biomechanics of running" (stance below
40 %, both feet in the air between).
"""

from dataclasses import dataclass
from typing import Callable, List, Optional, Tuple

import numpy as np

from edged.camera.acts import (
    COURSE, FALL, HANDS, JUMP, KICK, LURCH, WALK, Act, Stage, play_course, play_fall, play_hands, play_jump, play_kick,
    play_lurch, slow_noise, smooth,
)  # fmt: skip
from edged.camera.poses import stand_m
from edged.camera.puppet import SIDES, Body, Posture, joints
from edged.camera.ways import Path

_WARM_UP_S = 2.0  # a walker has been walking before the first frame
_DOUBLE_SUPPORT = 0.06  # of a cycle after a heel strike: both feet on the ground, where a walker may stop
_RAMP_S = 0.7

# time (T,) seconds -> gait cycles done (T,), how fully the person walks (T,) 0..1, way (T,) metres
Footwork = Callable[[np.ndarray], Tuple[np.ndarray, np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Gait:
    """cadence: cycles (two steps) a second; stride: metres a cycle; stance: the share of it a foot stands."""

    cadence: float
    stride: float
    stance: float
    swing: float  # of the arms, radians
    elbow: float
    lean: float
    low: float = 0.0    # how much lower the hips are than a walker's, metres
    bob: float = 0.018  # of the hips, metres
    clear: float = 0.07  # how high a foot swings, metres
    heel: float = 0.08  # how high the heel goes before the toes leave the ground

    @property
    def runs(self) -> bool:
        return self.stance < 0.5


def walking_gait(rng: np.random.Generator, body: Body, pace: Optional[float] = None) -> Gait:
    """Slow (pace 0) to brisk (1)."""
    pace = rng.uniform(0, 1) if pace is None else pace
    return Gait(0.7 + 0.4 * pace + rng.normal(0, 0.04), body.stature * (0.52 + 0.33 * pace + rng.normal(0, 0.03)),
                0.62, rng.uniform(0.0, 0.55), rng.uniform(0.1, 0.7), rng.uniform(0.0, 0.12))


def running_gait(rng: np.random.Generator, body: Body) -> Gait:
    """2.3 to 5 m/s: a jog, a run to the bus, a flight."""
    pace = rng.uniform(0, 1)
    cadence = 1.25 + 0.25 * pace + rng.normal(0, 0.04)
    speed = (2.5 + 2.5 * pace) * (body.stature / 1.75) ** 0.5
    return Gait(cadence, speed / cadence, 0.38 - 0.1 * pace, rng.uniform(0.45, 0.95), rng.uniform(1.2, 1.75),
                rng.uniform(0.06, 0.2), rng.uniform(0.03, 0.06), rng.uniform(0.03, 0.05),
                body.leg * (0.2 + 0.25 * pace + rng.uniform(0, 0.1)), 0.13)


def _steps(rng: np.random.Generator, gait: Gait, acts: List[Act], time: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """Gait cycles done (T,) and how fully the person walks, 0..1 (T,)."""
    step_s = time[1] - time[0]
    phase0 = _DOUBLE_SUPPORT + 0.5 * rng.integers(2)
    rate, amount = np.zeros(len(time)), np.zeros(len(time))
    wobble = 1 + 0.06 * slow_noise(rng, len(time), 1, step_s, 2.0)[:, 0]
    for act in acts:
        if act.kind != WALK:
            continue
        begins = smooth((time - act.start_s) / _RAMP_S) if act.start_s > time[0] + 0.1 else np.ones(len(time))
        stumbles = any(other.kind == FALL and other.start_s <= act.end_s + 1e-6 for other in acts)
        ends = smooth((act.end_s + 0.3 - time) / 0.3) if stumbles else smooth((act.end_s - time) / _RAMP_S)
        one = begins * ends
        halves = 2 * float((one * wobble).sum() * step_s * gait.cadence)
        # Whole steps from stand to stand.
        scale = 1.0 if stumbles or act.end_s > time[-1] or halves == 0 else max(np.round(halves), 1) / halves
        rate += one * wobble * gait.cadence * scale
        amount = np.maximum(amount, one)
    return phase0 + np.cumsum(rate) * step_s, amount


def _feet(
    rng: np.random.Generator, body: Body, gait: Gait, phase: np.ndarray, amount: np.ndarray, way: np.ndarray, path: Path
) -> np.ndarray:
    """Ankles (T, 2, 3) of someone who walks ``way`` (T,) metres along the path."""
    width = (rng.uniform(0.05, 0.1) + 0.5 * body.hips) * (0.6 if gait.runs else 1.0)
    ahead_m = -0.05 * gait.stride if gait.runs else 0.0  # runners land nearer to under them than walkers
    ankles = np.empty((len(phase), 2, 3))
    for foot in (0, 1):
        cycle = phase - 0.5 * foot
        number = np.floor(cycle)
        part = cycle - number
        plants = np.arange(number.min(), number.max() + 2)
        # A foot is set down where the body will be in the middle of its stance.
        place, heading = path(np.interp(plants + 0.5 * foot + gait.stance / 2, phase, way) + ahead_m)
        place = place + SIDES[foot] * width * np.stack([-np.sin(heading), np.cos(heading)], -1)
        ahead = np.stack([np.cos(heading), np.sin(heading)], -1)
        index = (number - plants[0]).astype(int)
        swing = np.clip((part - gait.stance) / (1 - gait.stance), 0, 1)
        off = smooth((part - 0.62 * gait.stance) / (0.38 * gait.stance))  # the heel, rolling over the toes
        heel = off * (1 - smooth(swing / 0.8)) * amount
        moved = smooth(swing ** 0.75 if gait.runs else swing)[:, None]
        ankles[:, foot, :2] = (1 - moved) * place[index] + moved * place[index + 1]
        ankles[:, foot, :2] += 0.05 * heel[:, None] * ahead[index]
        high = np.sin(np.pi * (swing ** 0.7 if gait.runs else swing))
        ankles[:, foot, 2] = body.ankle + gait.heel * heel + gait.clear * high * np.maximum(amount, 0.4)
    return ankles


def _gestures(rng: np.random.Generator, stage: Stage, amount: np.ndarray, free: np.ndarray) -> None:
    """What people do with their hands and heads, more of it while they stand; free (T,): 0 for one who has fallen."""
    time = stage.time
    step_s = time[1] - time[0]
    stage.head += slow_noise(rng, len(time), 2, step_s, 1.5) * np.array([0.35, 0.12]) * free[:, None]
    habit = rng.random()
    held = np.array([[rng.uniform(0.0, 0.5), rng.uniform(0.03, 0.2), rng.uniform(0.0, 0.9)]] * 2)
    if habit < 0.2:  # something held to the ear, or before the chest
        held[rng.integers(2)] = [rng.uniform(0.3, 0.9), 0.2, rng.uniform(1.5, 2.4)]
    stage.raise_arms((1 - 0.8 * amount) * free, held)
    lively = rng.uniform(0.02, 0.35)
    still = (free * (1 - 0.7 * amount))[:, None]
    stage.arms[..., 0] += lively * slow_noise(rng, len(time), 2, step_s, 0.8) * still
    stage.arms[..., 2] += np.abs(lively * slow_noise(rng, len(time), 2, step_s, 0.7)) * free[:, None]


def _turned(facing: np.ndarray, ahead_left: np.ndarray) -> np.ndarray:
    """Metres ahead and to the left of a body (T, 2), in the world's x and y."""
    c, s = np.cos(facing), np.sin(facing)
    return np.stack([c * ahead_left[:, 0] - s * ahead_left[:, 1], s * ahead_left[:, 0] + c * ahead_left[:, 1]], -1)


def _pelvis(
    rng: np.random.Generator, stage: Stage, gait: Gait, phase: np.ndarray, amount: np.ndarray, place: np.ndarray,
    facing: np.ndarray, ankles: np.ndarray,
) -> np.ndarray:
    """(T, 3): as high as the legs reach, less what acts take."""
    body, count = stage.body, len(phase)
    still = (stage.calm * (1 - amount))[:, None]
    sway = slow_noise(rng, count, 2, stage.time[1] - stage.time[0], 1.2) * 0.012 * still
    sway[:, 1] += 0.02 * np.sin(2 * np.pi * phase) * amount  # over the standing foot
    pelvis = np.empty((count, 3))
    pelvis[:, :2] = place + _turned(facing, stage.shift + sway) + stage.carry
    # Walkers are highest over the standing foot, runners in the air.
    top = 0.5 * gait.stance + (0.25 if gait.runs else 0.0)
    bob = gait.bob * np.cos(4 * np.pi * (phase - top)) - gait.low
    height = (stand_m(body) + amount * bob + stage.rise) * (1 - stage.drop)
    left = np.stack([-np.sin(facing), np.cos(facing)], -1)
    hips = pelvis[:, None, :2] + SIDES[:, None] * body.hips * left[:, None]
    level = np.sum((ankles[..., :2] - hips) ** 2, -1)
    reach = ankles[..., 2] + np.sqrt(np.maximum((0.99 * body.leg) ** 2 - level, 0))
    # Who falls, or turns too sharply, drags the feet along instead.
    pelvis[:, 2] = np.minimum(height, np.maximum(reach.min(1), 0.88 * height) + 3 * stage.drop)
    return pelvis


def _dragged(
    rng: np.random.Generator, stage: Stage, facing: np.ndarray, ankles: np.ndarray, place: np.ndarray
) -> np.ndarray:
    """The feet of a faller: down, along with a slide, and in the end stretched out away from the head."""
    body = stage.body
    ankles = ankles.copy()
    ankles[..., :2] += (_turned(facing, stage.slide) + stage.carry)[:, None]
    held_up = (ankles[..., 2] - body.ankle) * (1 - smooth(4 * stage.drop))[:, None]
    ankles[..., 2] = body.ankle + held_up + stage.lift[:, None] + stage.feet[..., 2]
    for foot in (0, 1):
        ankles[:, foot, :2] += _turned(facing, stage.feet[:, foot, :2])
    if not stage.drop.any():
        return ankles
    way = stage.tilt / np.maximum(np.hypot(stage.tilt[:, 0], stage.tilt[:, 1]), 1e-6)[:, None]
    pelvis = place + _turned(facing, stage.shift) + stage.carry
    for foot in (0, 1):
        far, aside = rng.uniform(0.55, 0.97) * body.leg, SIDES[foot] * rng.uniform(0.02, 0.3)
        rest = pelvis - _turned(facing, far * way + aside * way[:, ::-1] * np.array([1, -1]))
        ankles[:, foot, :2] += stage.spread[:, None] * (rest - ankles[:, foot, :2])
    return ankles


def perform(
    rng: np.random.Generator, body: Body, acts: List[Act], path: Path, start_s: float, end_s: float, fps: float,
    gait: Optional[Gait] = None, footwork: Optional[Footwork] = None,
) -> np.ndarray:
    """The joints of one person from ``start_s`` to ``end_s``: (frames, 18, 3) metres.

    Acts may begin before ``start_s``; only hands, kicks and lurches may overlap with something else; what follows
    a fall is lying, or a course that begins on the ground. gait: a random walker's where none
    is given. footwork: the steps, where they do not follow from walks.
    """
    first = min([start_s] + [act.start_s for act in acts])
    lead = int(np.ceil((start_s - first + _WARM_UP_S) * fps))
    time = start_s + (np.arange(lead + int(round((end_s - start_s) * fps))) - lead) / fps
    gait, stage = gait or walking_gait(rng, body), Stage(body, time)
    if footwork is None:
        phase, amount = _steps(rng, gait, acts, time)
        way = np.cumsum(amount * np.gradient(phase)) * gait.stride
        way -= way[lead]
    else:
        phase, amount, way = footwork(time)
    place, heading = path(way)
    wander = slow_noise(rng, len(time), 1, 1 / fps, 3.0)[:, 0]

    free = np.ones(len(time))
    for act in acts:
        if act.kind == FALL:
            free *= 1 - smooth((time - act.start_s) / 0.5)
        elif act.kind == COURSE:
            free *= 1 - smooth((time - act.start_s) / 0.5) * smooth((act.end_s - time) / 0.5)
    wander *= rng.uniform(0.05, 0.3) * (1 - amount)
    facing = heading + np.cumsum(np.diff(wander, prepend=wander[:1]) * free)
    stage.arms[..., 0] = gait.swing * (amount * np.cos(2 * np.pi * phase))[:, None] * SIDES  # against the legs
    stage.arms[..., 1] = 0.12
    stage.arms[..., 2] = gait.elbow * (0.3 + 0.7 * amount)[:, None]
    _gestures(rng, stage, amount, free)
    stage.tilt[:, 0] += gait.lean * amount + rng.normal(0.02, 0.03)
    for act in acts:
        at = int(np.clip(np.searchsorted(time, act.start_s), 0, len(time) - 1))
        if act.kind == JUMP:
            play_jump(rng, stage, act.details, act.start_s, np.array([np.cos(facing[at]), np.sin(facing[at])]))
        elif act.kind == COURSE:
            play_course(stage, act.details, act.start_s)
        elif act.kind == HANDS:
            play_hands(stage, act.details, act.start_s, act.end_s)
        elif act.kind == KICK:
            play_kick(stage, act.details, act.start_s, act.end_s)
        elif act.kind == LURCH:
            play_lurch(stage, act.details, act.start_s, act.end_s)
        elif act.kind == FALL:
            later = [other for other in acts if other.kind == COURSE and other.start_s >= act.end_s]
            speed = amount[at] ** 2 * gait.cadence * gait.stride
            play_fall(rng, stage, act.details, act.start_s, speed, later[0] if later else None)
    ankles = _dragged(rng, stage, facing, _feet(rng, body, gait, phase, amount, way, path), place)
    pelvis = _pelvis(rng, stage, gait, phase, amount, place, facing, ankles)
    posture = Posture(pelvis, facing, stage.tilt, stage.roll, ankles, stage.arms, stage.hands, stage.grip, stage.head,
                      stage.apart, stage.floor, 1 - stage.calm)
    return joints(body, posture)[lead:]
