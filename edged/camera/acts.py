"""The things people do that are no steps: a jump, a fall, a course of poses; each plays on a stage.

A jump is a crouch, a push, a parabola and a landing. A fall is an inverted pendulum about the feet (topple), knees
that give way (collapse) or feet that go away (slip), with the trunk tipping after, until all lies on the ground.
Source: a rod that falls about its foot turns by angle'' = 3 g / (2 length) sin(angle).
"""

from dataclasses import dataclass
from typing import NamedTuple, Optional, Tuple, Union

import numpy as np

from edged.camera.poses import Course, stand_m, through
from edged.camera.puppet import Body

LABELS = (
    "standing", "sitting", "walking", "running", "cycling", "waving", "jumping", "fighting", "lying", "falling",
)  # fmt: skip
STANDING, SITTING, WALKING, RUNNING, CYCLING, WAVING, JUMPING, FIGHTING, LYING, FALLING = LABELS

GRAVITY = 9.81
WALK, JUMP, FALL, COURSE, HANDS, KICK, LURCH = "walk", "jump", "fall", "course", "hands", "kick", "lurch"
TOPPLE, COLLAPSE, SLIP = range(3)

_TOES_M = 0.06  # how far heels rise at take-off


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


def hermite(x: np.ndarray, length: float, a: float, va: float, b: float, vb: float) -> np.ndarray:
    """The cubic from (0, a) with slope va to (length, b) with slope vb."""
    s = np.clip(x / length, 0, 1)
    return ((1 + 2 * s) * (1 - s) ** 2 * a + s * (1 - s) ** 2 * length * va + s * s * (3 - 2 * s) * b
            + s * s * (s - 1) * length * vb)


class Stage:
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
        self.feet = np.zeros((count, 2, 3))    # of each foot, metres ahead, to the left and up
        self.spread = np.zeros(count)          # of the feet away from where the head falls
        self.tilt = np.zeros((count, 2))
        self.roll = np.zeros(count)
        self.arms = np.zeros((count, 2, 3))
        self.hands = np.zeros((count, 2, 3))
        self.grip = np.zeros((count, 2))
        self.head = np.zeros((count, 2))
        self.apart = np.zeros(count)
        self.floor = np.zeros(count)
        self.calm = np.ones(count)             # 1 while gait and sway go on, 0 for one who lies

    def raise_arms(self, amount: np.ndarray, target: np.ndarray) -> None:
        """Blend the arms towards ``target`` (2, 3) by ``amount`` (T,)."""
        self.arms += amount[:, None, None] * (target - self.arms)

    def reach(self, arm: int, amount: np.ndarray, hand: np.ndarray) -> None:
        """Take one hand to ``hand`` (T, 3) or (3,), from its shoulder, by ``amount`` (T,)."""
        share = amount / np.maximum(np.maximum(amount, self.grip[:, arm]), 1e-9)
        self.hands[:, arm] += share[:, None] * (hand - self.hands[:, arm])
        self.grip[:, arm] = np.maximum(self.grip[:, arm], amount)


class Jump(NamedTuple):
    """height, way forward, crouch and tuck of the legs in metres; how far the arms go up, radians."""

    height: float
    forward: float
    crouch: float
    reach: float
    tuck: float

    def marks(self) -> Tuple[float, ...]:
        """Ends of crouch, push, flight, landing, recovery: seconds after the start."""
        speed = np.sqrt(2 * GRAVITY * self.height)
        push = 1.7 * (self.crouch + _TOES_M) / speed
        marks = np.cumsum([0.15 + 0.7 * self.crouch, push, 2 * speed / GRAVITY, 0.8 * push, 0.45])
        return tuple(float(mark) for mark in marks)

    @property
    def lands_s(self) -> float:
        return self.marks()[2]

    @property
    def duration_s(self) -> float:
        """From the crouch until the person stands again."""
        return self.marks()[-1]


class Fall(NamedTuple):
    """towards: radians, 0 forward, pi / 2 to the left; push: radians a second; buckle: how far a topple's knees give
    way; roll: radians about the trunk; drop_s: time that a collapse takes to the ground; braces: how many arms try to
    break it."""

    kind: int
    towards: float
    push: float
    buckle: float
    roll: float
    drop_s: float
    braces: int = 0

    def duration_s(self, body: Body) -> float:
        """From loss of balance to rest."""
        if self.kind == TOPPLE:
            return _upset_s(body, self.push) + 0.25
        return 1.5 * self.drop_s + 0.2 if self.kind == COLLAPSE else self.drop_s + 0.4


class Hands(NamedTuple):
    """One hand goes somewhere and may swing there: metres ahead, to the left and up from the shoulder.

    swing: how far it goes to either side of ``place``; rate_hz: how often; phase: 0..1; ramp_s: how fast it goes up.
    """

    arm: int
    place: Tuple[float, float, float]
    swing: Tuple[float, float, float] = (0.0, 0.0, 0.0)
    rate_hz: float = 0.0
    phase: float = 0.0
    ramp_s: float = 0.45


class Kick(NamedTuple):
    """One foot goes ``reach`` metres ahead and ``high`` up, and back."""

    foot: int
    reach: float
    high: float


class Lurch(NamedTuple):
    """The body goes after a blow, its own or one that hits it: radians and metres at the most, soon after the start."""

    tilt: Tuple[float, float] = (0.0, 0.0)
    roll: float = 0.0
    shift: Tuple[float, float] = (0.0, 0.0)
    yaw: float = 0.0  # of the head


@dataclass(frozen=True)
class Act:
    """One thing done from ``start_s`` to ``end_s``; what no act covers is standing. A walk has no details.

    label: what a recording calls it, if anything.
    """

    kind: str
    start_s: float
    end_s: float
    details: Optional[Union[Jump, Fall, Course, Hands, Kick, Lurch]] = None
    label: str = ""


def random_jump(rng: np.random.Generator) -> Jump:
    height = rng.uniform(0.1, 0.45)
    return Jump(height, max(0.0, rng.normal(0.05, 0.25)), rng.uniform(0.15, 0.4), rng.uniform(0.3, 2.9),
                rng.uniform(0, 0.5) * height)


def random_fall(rng: np.random.Generator, walking: bool) -> Fall:
    """Walkers mostly trip forward or slip backward; who stands collapses more often, any way, slowly at times."""
    kind = int(rng.choice(3, p=(0.5, 0.2, 0.3) if walking else (0.4, 0.45, 0.15)))
    tripped = 0.0 if walking else rng.choice((0.0, np.pi))
    ahead = {TOPPLE: tripped, COLLAPSE: rng.uniform(-np.pi, np.pi), SLIP: np.pi}[kind]
    if rng.random() < 0.35:
        ahead = rng.choice((-0.5, 0.5)) * np.pi
    return Fall(kind, float(ahead + rng.normal(0, 0.35)), rng.uniform(0.5, 1.8), rng.uniform(0.0, 0.35),
                rng.normal(0, 0.5), rng.uniform(0.55, 0.95) if rng.random() < 0.75 else rng.uniform(0.95, 2.2),
                int(rng.choice(3, p=(0.4, 0.25, 0.35))) if kind != COLLAPSE else 0)


def play_jump(rng: np.random.Generator, stage: Stage, jump: Jump, start_s: float, ahead: np.ndarray) -> None:
    """ahead (2,): where forward is in the world."""
    height, forward, crouch, reach, tuck = jump
    down, push, flight, land, done = jump.marks()
    speed = np.sqrt(2 * GRAVITY * height)
    x = stage.time - start_s
    on_toes = smooth((x - down - 0.4 * (push - down)) / (0.6 * (push - down)))
    air = np.clip(x - push, 0, flight - push)
    ballistic = speed * air - 0.5 * GRAVITY * air ** 2
    low = 0.8 * crouch
    pelvis = np.select(
        [x < 0, x < down, x < push, x < flight, x < land],
        [0 * x, -crouch * smooth(x / down), hermite(x - down, push - down, -crouch, 0, _TOES_M, speed),
         _TOES_M + ballistic, hermite(x - flight, land - flight, _TOES_M, -speed, -low, 0)],
        -low * (1 - smooth((x - land) / (done - land))))
    stage.rise += pelvis
    landed = smooth((x - flight) / 0.08)
    stage.lift += _TOES_M * on_toes * (1 - landed) + ballistic + tuck * np.sin(np.pi * air / (flight - push)) ** 2
    stage.carry += (forward * np.clip(air / (flight - push), 0, 1))[:, None] * ahead
    stage.tilt[:, 0] += 1.3 * np.clip(-pelvis, 0, 1) * rng.uniform(0.6, 1.2)
    back = np.array([[-0.7, 0.2, 0.3]] * 2)
    up = np.array([[reach, rng.uniform(0, 0.6), 0.3]] * 2)
    swung = smooth((x - 0.5 * down) / (0.3 + push - down))  # a quick push is too short for an arm
    stage.raise_arms(smooth((x + 0.2) / (0.5 * down + 0.2)) * (1 - swung), back)
    stage.raise_arms(swung * (1 - smooth((x - flight) / (done - flight))), up)


def play_course(stage: Stage, course: Course, start_s: float) -> None:
    count = len(course.poses)
    there = np.ones(count)
    there[0] = 0
    if course.rises:
        there[-1] = 0
    rows = np.concatenate([np.stack([pose.row() for pose in course.poses]), there[:, None]], 1)
    rows[:, 0] -= stand_m(stage.body)
    x = through(np.array(course.times), rows, stage.time - start_s)
    amount = x[:, 23]
    stage.rise += x[:, 0]
    stage.shift += x[:, 1:3]
    stage.tilt += x[:, 3:5]
    stage.roll += x[:, 5]
    stage.feet += x[:, 6:12].reshape(-1, 2, 3)
    stage.arms += amount[:, None, None] * (x[:, 12:18].reshape(-1, 2, 3) - stage.arms)
    stage.head += x[:, 18:20]
    stage.apart += x[:, 20]
    stage.floor += x[:, 21]
    stage.calm *= x[:, 22]


def play_hands(stage: Stage, hands: Hands, start_s: float, end_s: float) -> None:
    x = stage.time - start_s
    amount = smooth(x / hands.ramp_s) * smooth((end_s - stage.time) / hands.ramp_s)
    turn = 2 * np.pi * (hands.rate_hz * x + hands.phase)
    swung = np.sin(turn)[:, None] * hands.swing
    swung[:, 2] -= 0.3 * abs(hands.swing[1]) * np.sin(turn) ** 2  # a hand draws an arc
    stage.reach(hands.arm, amount, hands.place + swung)


def play_kick(stage: Stage, kick: Kick, start_s: float, end_s: float) -> None:
    span = end_s - start_s
    x = (stage.time - start_s) / span
    out = smooth(x / 0.45) * smooth((1 - x) / 0.55)
    up = smooth(x / 0.35) * smooth((1 - x) / 0.4)  # the knee comes first
    stage.feet[:, kick.foot, 0] += kick.reach * out
    stage.feet[:, kick.foot, 2] += kick.high * up
    stage.tilt[:, 0] -= 0.35 * kick.high * out
    stage.roll += 0.3 * (1 - 2 * kick.foot) * out
    stage.shift[:, 0] += 0.12 * out


def play_lurch(stage: Stage, lurch: Lurch, start_s: float, end_s: float) -> None:
    span = end_s - start_s
    x = (stage.time - start_s) / span
    amount = smooth(x / 0.25) * smooth((1 - x) / 0.75)
    stage.tilt += amount[:, None] * lurch.tilt
    stage.shift += amount[:, None] * lurch.shift
    stage.roll += amount * lurch.roll
    stage.head[:, 0] += amount * lurch.yaw


def _upset_s(body: Body, push: float) -> float:
    """When a rod of this stature, pushed so, lies: sinh(rate t) over the small-angle solution."""
    rate = 0.9 * np.sqrt(1.5 * GRAVITY / body.stature)
    time = np.linspace(0, 4, 801)
    return float(time[np.argmax(_angle(time, rate, push) >= np.pi / 2)])


def _angle(x: np.ndarray, rate: float, push: float) -> np.ndarray:
    x = np.clip(x, 0, 4)
    return 0.06 * (np.cosh(rate * x) - 1) + push / rate * np.sinh(rate * x)


def play_fall(
    rng: np.random.Generator, stage: Stage, fall: Fall, start_s: float, speed: float, rising: Optional[Act] = None
) -> None:
    """speed: metres a second at which the person walked into it; rising: what is done on the ground later on."""
    kind, towards, push, buckle, roll, drop_s = fall[:6]
    body, x = stage.body, np.maximum(stage.time - start_s, 0)
    end = fall.duration_s(body)
    way = np.array([np.cos(towards), np.sin(towards)])
    lies = rng.uniform(1.45, 1.62)
    slide = np.zeros((len(x), 2))
    if kind == TOPPLE:
        upset = np.clip(_angle(x, 0.9 * np.sqrt(1.5 * GRAVITY / body.stature), push) / (np.pi / 2), 0, 1)
        drop = 1 - np.cos(upset * np.pi / 2) * (1 - buckle * np.sin(np.pi * upset))
        away = 0.93 * body.leg * np.sin(upset * np.pi / 2) * rng.uniform(0.75, 1)
        tip = lies * upset ** rng.uniform(0.85, 1.3)
    elif kind == COLLAPSE:
        drop = smooth(x / drop_s) ** 1.2
        away = rng.uniform(0.05, 0.5) * body.leg * smooth(x / (1.4 * drop_s))
        tip = lies * smooth((x - 0.25 * drop_s) / (1.2 * drop_s)) ** rng.uniform(0.8, 1.3)
    else:
        fell_s = rng.uniform(0.45, 0.6)
        drop = np.clip((x / fell_s) ** 1.7, 0, 1)
        away = rng.uniform(0, 0.2) * smooth(x / drop_s)
        tip = lies * (0.45 * smooth(x / fell_s) + 0.55 * smooth((x - 0.35) / drop_s))
        slide -= (rng.uniform(0.3, 0.8) * smooth(x / 0.4))[:, None] * way
    momentum = 0.3 * (1 - np.exp(-x / 0.3)) * speed
    shift = away[:, None] * way
    shift[:, 0] += momentum
    slide[:, 0] += momentum * smooth(x / end) * rng.uniform(0.3, 1)
    down = np.ones(len(x))
    if rising is not None:
        # Fallen and raised meet on the ground: the hips stay where they are, the feet come after.
        course = rising.details
        down = 1 - smooth((stage.time - rising.start_s) / course.times[1])
        place = shift[np.searchsorted(stage.time, rising.start_s) - 1] - np.array(course.poses[1].shift)
        shift = down[:, None] * shift + (1 - down)[:, None] * place
        slide = down[:, None] * slide + (1 - down)[:, None] * place
    stage.drop = np.maximum(stage.drop, drop * down)
    stage.shift += shift
    stage.slide += slide
    stage.tilt += (tip * down)[:, None] * way
    stage.roll += roll * smooth((x - 0.3 * end) / (0.8 * end)) * down
    stage.spread += rng.uniform(0, 1) * smooth((x - 0.5 * end) / (0.6 * end)) * down
    flail = np.stack([rng.uniform(0.2, 2.2, 2), rng.uniform(0.1, 1.2, 2), rng.uniform(0.1, 1.2, 2)], -1)
    if kind == COLLAPSE:
        flail *= 0.35
    rest = np.stack([rng.uniform(-0.3, 2.6, 2), rng.uniform(0.1, 1.3, 2), rng.uniform(0, 1.6, 2)], -1)
    stage.raise_arms(smooth(x / 0.35) * down, flail)
    stage.raise_arms(smooth((x - 0.75 * end) / (0.5 * end)) * down, rest)
    if fall.braces:
        # Hands go to the ground before the trunk does, and give way under it.
        reach = np.array([0.45 * way[0], 0.45 * way[1], -0.6])
        out = smooth((x - 0.25 * end) / (0.3 * end)) * (1 - smooth((x - 0.9 * end) / (0.4 * end)))
        for arm in (0, 1):
            if fall.braces > 1 or arm == int(way[1] > 0):
                stage.reach(arm, out, reach + np.array([0, 0.12 * (2 * arm - 1), 0]))
    stage.head += (smooth(x / end) * down)[:, None] * np.array([rng.normal(0, 0.5), rng.normal(0, 0.25)])
    stage.calm *= 1 - smooth(x / end) * down
