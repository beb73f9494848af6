"""What one person does, in three dimensions: walks, stands, jumps, falls.

Steps are planned, not swung: a foot stands where it was set down until it lifts off, so that feet do not slide and
a walker may turn, slow down and stop. A jump is a crouch, a push, a parabola and a landing. A fall is an inverted
pendulum about the feet (topple), knees that give way (collapse) or feet that go away (slip), with the trunk tipping
after, until all lies on the ground.
Sources: gait timing after D. Winter, "The Biomechanics and Motor Control of Human Gait" (stance 62 % of a cycle,
arms against legs, two bobs a cycle); a falling rod turns by angle'' = 3 g / (2 length) sin(angle).
"""

from dataclasses import dataclass
from typing import Callable, List, Tuple

import numpy as np

from edged.camera.puppet import SIDES, Body, Posture, joints

GRAVITY = 9.81
WALK, JUMP, FALL, STOOP = "walk", "jump", "fall", "stoop"
TOPPLE, COLLAPSE, SLIP = "topple", "collapse", "slip"

_WARM_UP_S = 2.0  # a walker has been walking before the first frame
_DOUBLE_SUPPORT = 0.06  # of a cycle after a heel strike: both feet on the ground, where a walker may stop
_RAMP_S = 0.7

Path = Callable[[np.ndarray], Tuple[np.ndarray, np.ndarray]]  # way (T,) metres -> place (T, 2), heading (T,)


@dataclass(frozen=True)
class Act:
    """One thing done from ``start_s`` to ``end_s``; what no act covers is standing. Details are drawn by kind."""

    kind: str
    start_s: float
    end_s: float
    details: Tuple[float, ...] = ()


@dataclass(frozen=True)
class Gait:
    """cadence: cycles (two steps) a second; stride: metres a cycle; stance: the share of it a foot stands."""

    cadence: float
    stride: float
    stance: float
    swing: float  # of the arms, radians
    elbow: float
    lean: float


def random_gait(rng: np.random.Generator, body: Body) -> Gait:
    """Mostly walkers, slow to brisk; one in twelve runs."""
    if rng.random() < 0.08:
        return Gait(rng.uniform(1.25, 1.45), body.stature * rng.uniform(0.95, 1.2), 0.42, rng.uniform(0.4, 0.8),
                    rng.uniform(1.2, 1.6), rng.uniform(0.08, 0.2))
    pace = rng.uniform(0, 1)
    return Gait(0.7 + 0.4 * pace + rng.normal(0, 0.04), body.stature * (0.52 + 0.33 * pace + rng.normal(0, 0.03)),
                0.62, rng.uniform(0.0, 0.55), rng.uniform(0.1, 0.7), rng.uniform(0.0, 0.12))


def jump_details(rng: np.random.Generator) -> Tuple[float, ...]:
    """height m, way forward m, crouch m, arms' reach rad, legs' tuck m."""
    height = rng.uniform(0.1, 0.45)
    return (height, max(0.0, rng.normal(0.05, 0.25)), rng.uniform(0.15, 0.4), rng.uniform(0.3, 2.9),
            rng.uniform(0, 0.5) * height)


def jump_duration_s(details: Tuple[float, ...], landed: bool = False) -> float:
    """From the crouch until the person stands again, or until the feet are down."""
    return _jump_times(details)[2 if landed else -1]


def fall_details(rng: np.random.Generator, walking: bool) -> Tuple[float, ...]:
    """kind, direction rad (0 forward, pi/2 to the left), push rad/s, buckling, roll rad, speed of collapse s."""
    kind = rng.choice(3, p=(0.5, 0.2, 0.3) if walking else (0.4, 0.45, 0.15))
    ahead = {0: 0.0 if walking else rng.choice((0.0, np.pi)), 1: rng.uniform(-np.pi, np.pi), 2: np.pi}[int(kind)]
    if rng.random() < 0.35:
        ahead = rng.choice((-0.5, 0.5)) * np.pi
    return (float(kind), float(ahead + rng.normal(0, 0.35)), rng.uniform(0.5, 1.8), rng.uniform(0.0, 0.35),
            rng.normal(0, 0.5), rng.uniform(0.55, 0.95))


def fall_duration_s(body: Body, details: Tuple[float, ...]) -> float:
    """From loss of balance to rest."""
    kind, _, push, _, _, drop_s = details
    if int(kind) == 0:
        return _upset_s(body, push) + 0.25
    return 1.5 * drop_s + 0.2 if int(kind) == 1 else drop_s + 0.4


def stoop_details(rng: np.random.Generator) -> Tuple[float, ...]:
    """depth m, forward bend rad, way of the hips backward m: from picking something up to sitting down."""
    if rng.random() < 0.4:
        return rng.uniform(0.35, 0.5), rng.uniform(0.1, 0.5), rng.uniform(0.25, 0.4)
    return rng.uniform(0.02, 0.55), rng.uniform(0.3, 1.4), rng.uniform(0, 0.1)


def smooth(x: np.ndarray) -> np.ndarray:
    """0 below 0, 1 above 1, a smooth step between."""
    x = np.clip(x, 0, 1)
    return x * x * (3 - 2 * x)


def slow_noise(rng: np.random.Generator, count: int, columns: int, step_s: float, period_s: float) -> np.ndarray:
    """Unit noise (count, columns) that takes about ``period_s`` to change."""
    knots = max(int(np.ceil(count * step_s / period_s)) + 3, 4)
    value = rng.normal(0, 1, (knots, columns))
    place = np.linspace(0, knots - 1.001, count) if count > 1 else np.zeros(count)
    whole = place.astype(int)
    part = smooth(place - whole)[:, None]
    return value[whole] * (1 - part) + value[np.minimum(whole + 1, knots - 1)] * part


def _hermite(x: np.ndarray, length: float, a: float, va: float, b: float, vb: float) -> np.ndarray:
    """The cubic from (0, a) with slope va to (length, b) with slope vb."""
    s = np.clip(x / length, 0, 1)
    return ((1 + 2 * s) * (1 - s) ** 2 * a + s * (1 - s) ** 2 * length * va + s * s * (3 - 2 * s) * b
            + s * s * (s - 1) * length * vb)


class _Stage:
    """The arrays that acts write to, over T moments ``time`` (seconds)."""

    def __init__(self, body: Body, time: np.ndarray) -> None:
        count = len(time)
        self.body, self.time = body, time
        self.rise = np.zeros(count)            # of the pelvis over standing height
        self.drop = np.zeros(count)            # 0 standing .. 1 pelvis on the ground
        self.shift = np.zeros((count, 2))      # of the pelvis, metres ahead and to the left
        self.carry = np.zeros((count, 2))      # of everything, world metres
        self.lift = np.zeros(count)            # of both feet
        self.slide = np.zeros((count, 2))      # of both feet, metres ahead and to the left
        self.spread = np.zeros(count)          # of the feet away from where the head falls
        self.tilt = np.zeros((count, 2))
        self.roll = np.zeros(count)
        self.arms = np.zeros((count, 2, 3))
        self.head = np.zeros((count, 2))
        self.calm = np.ones(count)             # 1 while gait and sway go on, 0 for one who lies

    def raise_arms(self, amount: np.ndarray, target: np.ndarray) -> None:
        """Blend the arms towards ``target`` (2, 3) by ``amount`` (T,)."""
        self.arms += amount[:, None, None] * (target - self.arms)


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


def _feet(rng, body: Body, gait: Gait, phase, amount, way, path: Path) -> np.ndarray:
    """Ankles (T, 2, 3) of someone who walks ``way`` (T,) metres along the path."""
    width = rng.uniform(0.05, 0.1) + 0.5 * body.hips
    ankles = np.empty((len(phase), 2, 3))
    for foot in (0, 1):
        cycle = phase - 0.5 * foot
        number = np.floor(cycle)
        part = cycle - number
        plants = np.arange(number.min(), number.max() + 2)
        # A foot is set down where the body will be in the middle of its stance.
        place, heading = path(np.interp(plants + 0.5 * foot + gait.stance / 2, phase, way))
        place = place + SIDES[foot] * width * np.stack([-np.sin(heading), np.cos(heading)], -1)
        ahead = np.stack([np.cos(heading), np.sin(heading)], -1)
        index = (number - plants[0]).astype(int)
        swing = np.clip((part - gait.stance) / (1 - gait.stance), 0, 1)
        off = smooth((part - 0.62 * gait.stance) / (0.38 * gait.stance))  # the heel, rolling over the toes
        heel = off * (1 - smooth(swing / 0.8)) * amount
        moved = smooth(swing)[:, None]
        ankles[:, foot, :2] = (1 - moved) * place[index] + moved * place[index + 1]
        ankles[:, foot, :2] += 0.05 * heel[:, None] * ahead[index]
        ankles[:, foot, 2] = body.ankle + 0.08 * heel + 0.07 * np.sin(np.pi * swing) * np.maximum(amount, 0.4)
    return ankles


def _jump_times(details: Tuple[float, ...]) -> Tuple[float, ...]:
    """Ends of crouch, push, flight, landing, recovery, seconds after the start."""
    height, _, crouch, _, _ = details
    speed = np.sqrt(2 * GRAVITY * height)
    push = 1.7 * (crouch + 0.06) / speed
    marks = np.cumsum([0.15 + 0.7 * crouch, push, 2 * speed / GRAVITY, 0.8 * push, 0.45])
    return tuple(float(mark) for mark in marks)


def _jump(rng: np.random.Generator, stage: _Stage, act: Act, ahead: np.ndarray) -> None:
    height, forward, crouch, reach, tuck = act.details
    down, push, flight, land, done = _jump_times(act.details)
    speed, toes = np.sqrt(2 * GRAVITY * height), 0.06
    x = stage.time - act.start_s
    on_toes = smooth((x - down - 0.4 * (push - down)) / (0.6 * (push - down)))
    air = np.clip(x - push, 0, flight - push)
    ballistic = speed * air - 0.5 * GRAVITY * air ** 2
    low = 0.8 * crouch
    pelvis = np.select(
        [x < 0, x < down, x < push, x < flight, x < land],
        [0 * x, -crouch * smooth(x / down), _hermite(x - down, push - down, -crouch, 0, toes, speed),
         toes + ballistic, _hermite(x - flight, land - flight, toes, -speed, -low, 0)],
        -low * (1 - smooth((x - land) / (done - land))))
    stage.rise += pelvis
    landed = smooth((x - flight) / 0.08)
    stage.lift += toes * on_toes * (1 - landed) + ballistic + tuck * np.sin(np.pi * air / (flight - push)) ** 2
    stage.carry += (forward * np.clip(air / (flight - push), 0, 1))[:, None] * ahead
    stage.tilt[:, 0] += 1.3 * np.clip(-pelvis, 0, 1) * rng.uniform(0.6, 1.2)
    back = np.array([[-0.7, 0.2, 0.3]] * 2)
    up = np.array([[reach, rng.uniform(0, 0.6), 0.3]] * 2)
    swung = smooth((x - 0.5 * down) / (0.3 + push - down))  # a quick push is too short for an arm
    stage.raise_arms(smooth((x + 0.2) / (0.5 * down + 0.2)) * (1 - swung), back)
    stage.raise_arms(swung * (1 - smooth((x - flight) / (done - flight))), up)


def _stoop(stage: _Stage, act: Act) -> None:
    depth, bend, backward = act.details
    span = act.end_s - act.start_s
    ramp = min(1.2, 0.4 * span)
    x = stage.time - act.start_s
    amount = smooth(x / ramp) * (1 - smooth((x - span + ramp) / ramp))
    stage.rise -= depth * amount
    stage.tilt[:, 0] += bend * amount
    stage.shift[:, 0] -= backward * amount
    # Arms hang down from a bent trunk, or rest on the knees where the ground is nearer than they are long.
    body = stage.body
    room = body.leg + body.ankle - depth + body.trunk * np.cos(bend) - 0.15
    reach = np.arccos(np.clip(room / (body.upper_arm + body.forearm), 0, 1))
    stage.raise_arms(amount, np.array([[bend + reach, 0.1, 0.2]] * 2))


def _upset_s(body: Body, push: float) -> float:
    """When a rod of this stature, pushed so, lies: sinh(rate t) over the small-angle solution."""
    rate = 0.9 * np.sqrt(1.5 * GRAVITY / body.stature)
    time = np.linspace(0, 4, 801)
    return float(time[np.argmax(_angle(time, rate, push) >= np.pi / 2)])


def _angle(x: np.ndarray, rate: float, push: float) -> np.ndarray:
    x = np.clip(x, 0, 4)
    return 0.06 * (np.cosh(rate * x) - 1) + push / rate * np.sinh(rate * x)


def _fall(rng: np.random.Generator, stage: _Stage, act: Act, speed: float) -> None:
    kind, towards, push, buckle, roll, drop_s = act.details
    body, x = stage.body, stage.time - act.start_s
    x = np.maximum(x, 0)
    end = act.end_s - act.start_s
    way = np.array([np.cos(towards), np.sin(towards)])
    lies = rng.uniform(1.45, 1.62)
    if int(kind) == 0:
        upset = np.clip(_angle(x, 0.9 * np.sqrt(1.5 * GRAVITY / body.stature), push) / (np.pi / 2), 0, 1)
        drop = 1 - np.cos(upset * np.pi / 2) * (1 - buckle * np.sin(np.pi * upset))
        away = 0.93 * body.leg * np.sin(upset * np.pi / 2) * rng.uniform(0.75, 1)
        tip = lies * upset ** rng.uniform(0.85, 1.3)
    elif int(kind) == 1:
        drop = smooth(x / drop_s) ** 1.2
        away = rng.uniform(0.05, 0.5) * body.leg * smooth(x / (1.4 * drop_s))
        tip = lies * smooth((x - 0.25 * drop_s) / (1.2 * drop_s)) ** rng.uniform(0.8, 1.3)
    else:
        fell_s = rng.uniform(0.45, 0.6)
        drop = np.clip((x / fell_s) ** 1.7, 0, 1)
        away = rng.uniform(0, 0.2) * smooth(x / drop_s)
        tip = lies * (0.45 * smooth(x / fell_s) + 0.55 * smooth((x - 0.35) / drop_s))
        stage.slide -= (rng.uniform(0.3, 0.8) * smooth(x / 0.4))[:, None] * way
    stage.drop = np.maximum(stage.drop, drop)
    stage.shift += away[:, None] * way
    stage.tilt += tip[:, None] * way
    stage.roll += roll * smooth((x - 0.3 * end) / (0.8 * end))
    momentum = 0.3 * (1 - np.exp(-x / 0.3)) * speed
    stage.shift[:, 0] += momentum
    stage.slide[:, 0] += momentum * smooth(x / end) * rng.uniform(0.3, 1)
    stage.spread += rng.uniform(0, 1) * smooth((x - 0.5 * end) / (0.6 * end))
    flail = np.stack([rng.uniform(0.2, 2.2, 2), rng.uniform(0.1, 1.2, 2), rng.uniform(0.1, 1.2, 2)], -1)
    if int(kind) == 1:
        flail *= 0.35
    rest = np.stack([rng.uniform(-0.3, 2.6, 2), rng.uniform(0.1, 1.3, 2), rng.uniform(0, 1.6, 2)], -1)
    stage.raise_arms(smooth(x / 0.35), flail)
    stage.raise_arms(smooth((x - 0.75 * end) / (0.5 * end)), rest)
    stage.head += smooth(x / end)[:, None] * np.array([rng.normal(0, 0.5), rng.normal(0, 0.25)])
    stage.calm *= 1 - smooth(x / end)


def _gestures(rng: np.random.Generator, stage: _Stage, amount: np.ndarray) -> None:
    """What people do with their hands and heads, more of it while they stand."""
    time = stage.time
    step_s = time[1] - time[0]
    stage.head += slow_noise(rng, len(time), 2, step_s, 1.5) * np.array([0.35, 0.12]) * stage.calm[:, None]
    habit = rng.random()
    held = np.array([[rng.uniform(0.0, 0.5), rng.uniform(0.03, 0.2), rng.uniform(0.0, 0.9)]] * 2)
    if habit < 0.2:  # something held to the ear, or before the chest
        held[rng.integers(2)] = [rng.uniform(0.3, 0.9), 0.2, rng.uniform(1.5, 2.4)]
    stage.raise_arms((1 - 0.8 * amount) * stage.calm, held)
    lively = rng.uniform(0.02, 0.35)
    stage.arms[..., 0] += lively * slow_noise(rng, len(time), 2, step_s, 0.8) * (stage.calm * (1 - 0.7 * amount))[:, None]
    stage.arms[..., 2] += np.abs(lively * slow_noise(rng, len(time), 2, step_s, 0.7)) * stage.calm[:, None]
    if rng.random() < 0.3:  # one arm goes up: a wave, a pointed finger
        start, arm = rng.uniform(time[0], time[-1]), rng.integers(2)
        reach = smooth((time - start) / 0.5) * (1 - smooth((time - start - rng.uniform(1, 3)) / 0.6)) * stage.calm
        raised = np.array([rng.uniform(1.2, 2.9), rng.uniform(0, 0.6), rng.uniform(0.1, 1.0)])
        stage.arms[:, arm] += reach[:, None] * (raised - stage.arms[:, arm])
        stage.arms[:, arm, 2] += 0.4 * reach * np.sin(9 * (time - start))


def _turned(facing: np.ndarray, ahead_left: np.ndarray) -> np.ndarray:
    """Metres ahead and to the left of a body (T, 2), in the world's x and y."""
    c, s = np.cos(facing), np.sin(facing)
    return np.stack([c * ahead_left[:, 0] - s * ahead_left[:, 1], s * ahead_left[:, 0] + c * ahead_left[:, 1]], -1)


def _pelvis(rng, stage: _Stage, phase, amount, place, facing, ankles) -> np.ndarray:
    """(T, 3): as high as the legs reach, less what acts take."""
    body, count = stage.body, len(phase)
    sway = slow_noise(rng, count, 2, stage.time[1] - stage.time[0], 1.2) * 0.012 * (stage.calm * (1 - amount))[:, None]
    sway[:, 1] += 0.02 * np.sin(2 * np.pi * phase) * amount  # over the standing foot
    pelvis = np.empty((count, 3))
    pelvis[:, :2] = place + _turned(facing, stage.shift + sway) + stage.carry
    height = 0.975 * body.leg + body.ankle - 0.018 * amount * np.cos(4 * np.pi * phase)
    height = (height + stage.rise) * (1 - stage.drop)
    left = np.stack([-np.sin(facing), np.cos(facing)], -1)
    hips = pelvis[:, None, :2] + SIDES[:, None] * body.hips * left[:, None]
    level = np.sum((ankles[..., :2] - hips) ** 2, -1)
    reach = ankles[..., 2] + np.sqrt(np.maximum((0.99 * body.leg) ** 2 - level, 0))
    # Who falls, or turns too sharply, drags the feet along instead.
    pelvis[:, 2] = np.minimum(height, np.maximum(reach.min(1), 0.88 * height) + 3 * stage.drop)
    return pelvis


def _dragged(rng, stage: _Stage, facing, ankles: np.ndarray, place: np.ndarray) -> np.ndarray:
    """The feet of a faller: down, along with a slide, and in the end stretched out away from the head."""
    body = stage.body
    ankles = ankles.copy()
    ankles[..., :2] += (_turned(facing, stage.slide) + stage.carry)[:, None]
    ankles[..., 2] = body.ankle + (ankles[..., 2] - body.ankle) * (1 - smooth(4 * stage.drop))[:, None] + stage.lift[:, None]
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
    rng: np.random.Generator, body: Body, acts: List[Act], path: Path, start_s: float, end_s: float, fps: float
) -> np.ndarray:
    """The joints of one person from ``start_s`` to ``end_s``: (frames, 18, 3) metres.

    Acts may begin before ``start_s``; they do not overlap. After a fall there is nothing but lying.
    """
    first = min([start_s] + [act.start_s for act in acts])
    lead = int(np.ceil((start_s - first + _WARM_UP_S) * fps))
    time = start_s + (np.arange(lead + int(round((end_s - start_s) * fps))) - lead) / fps
    gait, stage = random_gait(rng, body), _Stage(body, time)
    phase, amount = _steps(rng, gait, acts, time)
    way = np.cumsum(amount * np.gradient(phase)) * gait.stride
    way -= way[lead]
    place, heading = path(way)
    wander = slow_noise(rng, len(time), 1, 1 / fps, 3.0)[:, 0]

    for act in acts:
        if act.kind == FALL:
            stage.calm *= 1 - smooth((time - act.start_s) / 0.5)
    wander *= rng.uniform(0.05, 0.3) * (1 - amount)
    facing = heading + np.cumsum(np.diff(wander, prepend=wander[:1]) * stage.calm)
    stage.arms[..., 0] = gait.swing * (amount * np.cos(2 * np.pi * phase))[:, None] * SIDES  # against the legs
    stage.arms[..., 1] = 0.12
    stage.arms[..., 2] = gait.elbow * (0.3 + 0.7 * amount)[:, None]
    _gestures(rng, stage, amount)
    stage.tilt[:, 0] += gait.lean * amount + rng.normal(0.02, 0.03)
    for act in acts:
        at = int(np.clip(np.searchsorted(time, act.start_s), 0, len(time) - 1))
        if act.kind == JUMP:
            _jump(rng, stage, act, np.array([np.cos(facing[at]), np.sin(facing[at])]))
        elif act.kind == STOOP:
            _stoop(stage, act)
        elif act.kind == FALL:
            _fall(rng, stage, act, amount[at] ** 2 * gait.cadence * gait.stride)
    ankles = _dragged(rng, stage, facing, _feet(rng, body, gait, phase, amount, way, path), place)
    pelvis = _pelvis(rng, stage, phase, amount, place, facing, ankles)
    posture = Posture(pelvis, facing, stage.tilt, stage.roll, ankles, stage.arms, stage.head)
    return joints(body, posture)[lead:]
