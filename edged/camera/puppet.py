"""A person of sticks: proportions, and the 18 joints that follow from where pelvis, trunk and feet are.

World: metres, z up, the ground at 0. Joints in OpenPose's COCO order. Bones keep their lengths exactly: trunk and
head are rigid, arms are laid out from the shoulder, legs are solved from hip and ankle (two bones, one circle of
possible knees), and what would go through the ground is turned about its joint until it does not.
Source of the proportions: Drillis and Contini 1966, as tabled in D. Winter, "Biomechanics and Motor Control of
Human Movement", chapter 4.
"""

from dataclasses import dataclass
from typing import Tuple

import numpy as np

JOINTS = 18
NOSE, NECK, R_SHOULDER, R_ELBOW, R_WRIST, L_SHOULDER, L_ELBOW, L_WRIST = range(8)
R_HIP, R_KNEE, R_ANKLE, L_HIP, L_KNEE, L_ANKLE, R_EYE, L_EYE, R_EAR, L_EAR = range(8, 18)
SIDES = np.array([-1.0, 1.0])  # right, left: the sign of y in the body's frame

# Every bone and every pair that a rigid part holds together.
BONES = (
    (NECK, R_SHOULDER), (R_SHOULDER, R_ELBOW), (R_ELBOW, R_WRIST), (NECK, L_SHOULDER), (L_SHOULDER, L_ELBOW),
    (L_ELBOW, L_WRIST), (NECK, R_HIP), (R_HIP, R_KNEE), (R_KNEE, R_ANKLE), (NECK, L_HIP), (L_HIP, L_KNEE),
    (L_KNEE, L_ANKLE), (R_HIP, L_HIP), (NECK, NOSE), (NOSE, R_EYE), (R_EYE, R_EAR), (NOSE, L_EYE), (L_EYE, L_EAR),
)  # fmt: skip

_FLOOR_M = 0.06  # half the thickness of a limb: no joint's centre comes nearer to the ground
_STRETCH = 0.999  # of a leg's length: a knee is never quite straight


@dataclass(frozen=True)
class Body:
    """Lengths in metres; shoulders and hips are half widths, ankle is its height over the sole, head is the stature
    that the head would fit."""

    stature: float
    trunk: float
    shoulders: float
    hips: float
    upper_arm: float
    forearm: float
    thigh: float
    shank: float
    ankle: float
    head: float

    @property
    def leg(self) -> float:
        return self.thigh + self.shank


def random_body(rng: np.random.Generator) -> Body:
    """An adult or adolescent, no two built alike."""
    stature = rng.uniform(1.48, 1.95)
    part = np.array([0.288, 0.112, 0.068, 0.186, 0.155, 0.245, 0.246, 0.042, 1.0]) * rng.uniform(0.93, 1.07, 9)
    return Body(stature, *(float(share * stature) for share in part))


@dataclass(frozen=True, eq=False)
class Posture:
    """What decides where all joints are, for T moments.

    pelvis (T, 3)     middle of the hips, metres
    facing (T,)       heading of the body, radians from +x towards +y
    tilt (T, 2)       how far the trunk is off the upright, radians, forward and to its left
    roll (T,)         turn about the trunk's own axis
    ankles (T, 2, 3)  where the feet want to be: right, left
    arms (T, 2, 3)    right, left: shoulder flexion (0 hangs, pi up), abduction, elbow flexion
    hands (T, 2, 3)   where the hands want to be: metres ahead, to the left and up from their shoulders
    grip (T, 2)       how far they get their will: 0 as ``arms`` says .. 1 as ``hands`` says
    head (T, 2)       yaw, nod
    apart (T,)        how far the knees point aside: 0 ahead, 1 half aside
    floor (T,)        height of what the person lies or kneels on
    limp (T,)         0 .. 1 where the arms sink to the floor
    """

    pelvis: np.ndarray
    facing: np.ndarray
    tilt: np.ndarray
    roll: np.ndarray
    ankles: np.ndarray
    arms: np.ndarray
    hands: np.ndarray
    grip: np.ndarray
    head: np.ndarray
    apart: np.ndarray
    floor: np.ndarray
    limp: np.ndarray


def _about_z(angle: np.ndarray) -> np.ndarray:
    """(T,) -> (T, 3, 3)."""
    c, s, zero = np.cos(angle), np.sin(angle), np.zeros_like(angle)
    return np.stack([c, -s, zero, s, c, zero, zero, zero, zero + 1], -1).reshape(-1, 3, 3)


def _tilted(posture: Posture) -> np.ndarray:
    """The trunk's frame (T, 3, 3), columns forward, left, up: turned by roll, then tipped over."""
    angle = np.hypot(posture.tilt[:, 0], posture.tilt[:, 1])
    towards = posture.facing + np.arctan2(posture.tilt[:, 1], posture.tilt[:, 0])
    turn, zero = _about_z(towards), np.zeros_like(angle)
    c, s = np.cos(angle), np.sin(angle)
    tip = np.stack([c, zero, s, zero, zero + 1, zero, -s, zero, c], -1).reshape(-1, 3, 3)
    return turn @ tip @ turn.transpose(0, 2, 1) @ _about_z(posture.facing + posture.roll)


def _trunk_and_head(body: Body, posture: Posture, frame: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """Shoulders, hips, neck (T, 5, 3) and nose, eyes, ears (T, 5, 3), from the pelvis."""
    trunk = np.array([
        [0, -body.shoulders, body.trunk], [0, body.shoulders, body.trunk], [0, -body.hips, 0], [0, body.hips, 0],
        [0, 0, body.trunk],
    ])  # fmt: skip
    face = body.head * np.array([
        [0.058, 0, 0.105], [0.052, -0.018, 0.122], [0.052, 0.018, 0.122], [0.008, -0.043, 0.115],
        [0.008, 0.043, 0.115],
    ])  # fmt: skip
    nod, zero = posture.head[:, 1], np.zeros(len(frame))
    c, s = np.cos(nod), np.sin(nod)
    nodded = np.stack([c, zero, s, zero, zero + 1, zero, -s, zero, c], -1).reshape(-1, 3, 3)
    head = frame @ _about_z(posture.head[:, 0]) @ nodded
    placed = trunk @ frame.transpose(0, 2, 1)
    return placed, placed[:, 4:] + face @ head.transpose(0, 2, 1)


def _above_ground(start: np.ndarray, end: np.ndarray, floor: np.ndarray) -> np.ndarray:
    """``end`` of a bone (T, 2, 3), turned about its start until it lies on the floor (T, 1) where it was below it."""
    below = end[..., 2] < floor
    if not below.any():
        return end
    reach = end - start
    length = np.linalg.norm(reach, axis=-1)
    fall = np.minimum(start[..., 2] - floor, length)
    level = np.hypot(reach[..., 0], reach[..., 1])
    grow = np.sqrt(np.maximum(length ** 2 - fall ** 2, 0)) / np.maximum(level, 1e-9)
    laid = np.stack([reach[..., 0] * grow, reach[..., 1] * grow, -fall], -1)
    # A limb that hangs straight down has no side to give way to; it stays, by less than the limb's thickness.
    return np.where((below & (level > 1e-6))[..., None], start + laid, end)


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-9)


def _grasping(body: Body, reach: np.ndarray, frame: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """Which way upper arms and forearms point for hands that ``reach`` (T, 2, 3); elbows go down, out and back."""
    length = np.linalg.norm(reach, axis=-1, keepdims=True)
    along = reach / np.maximum(length, 1e-9)
    length = np.clip(length, abs(body.upper_arm - body.forearm) + 0.08, 0.995 * (body.upper_arm + body.forearm))
    part = (body.upper_arm ** 2 - body.forearm ** 2 + length ** 2) / (2 * length)
    out = np.stack([np.full(2, -0.5), 0.7 * SIDES, np.full(2, -0.8)], -1) @ frame.transpose(0, 2, 1)
    out = _unit(out - along * np.sum(out * along, -1, keepdims=True))
    elbow = part * along + np.sqrt(np.maximum(body.upper_arm ** 2 - part ** 2, 0)) * out
    return _unit(elbow), _unit(length * along - elbow)


def _arms(body: Body, posture: Posture, frame: np.ndarray, shoulders: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """Elbows and wrists (T, 2, 3)."""
    flexion, aside, elbow = posture.arms[..., 0], posture.arms[..., 1], posture.arms[..., 2]

    def along(turn: np.ndarray, out: np.ndarray) -> np.ndarray:
        local = np.stack([np.sin(turn) * np.cos(out), SIDES * np.sin(out), -np.cos(turn) * np.cos(out)], -1)
        return local @ frame.transpose(0, 2, 1)

    upper, lower = along(flexion, aside), along(flexion + elbow, 0.5 * aside)
    if posture.grip.any():
        held_upper, held_lower = _grasping(body, posture.hands @ _about_z(-posture.facing), frame)
        grip = posture.grip[..., None]
        upper, lower = _unit(upper + grip * (held_upper - upper)), _unit(lower + grip * (held_lower - lower))
    if posture.limp.any():
        sink = posture.limp[:, None, None] * np.array([0, 0, 1.6])
        upper, lower = _unit(upper - sink), _unit(lower - sink)
    floor = _FLOOR_M + posture.floor[:, None]
    elbows = _above_ground(shoulders, shoulders + body.upper_arm * upper, floor)
    return elbows, _above_ground(elbows, elbows + body.forearm * lower, floor)


def _one_way(turns: np.ndarray, low: np.ndarray) -> np.ndarray:
    """Of two ways round (2, T, 2), for as long as a knee is low (T, 2), the one that was the shorter at first."""
    chosen = np.zeros(low.shape)
    for leg in (0, 1):
        edges = np.flatnonzero(np.diff(np.concatenate([[0], low[:, leg].astype(int), [0]])))
        for start, end in zip(edges[::2], edges[1::2]):
            way = int(np.argmin(np.abs(turns[:, start, leg] + 0.05 * SIDES[leg])))
            chosen[start:end, leg] = turns[way, start:end, leg]
    return chosen


def _eased(turn: np.ndarray) -> np.ndarray:
    """A knee gives way over some frames, not at once: angles (T, 2) averaged over nine moments."""
    if not turn.any():
        return turn
    padded = np.pad(np.unwrap(turn, axis=0), ((5, 4), (0, 0)), mode="edge")
    total = np.cumsum(padded, axis=0)
    return (total[9:] - total[:-9]) / 9


def _legs(
    body: Body, posture: Posture, frame: np.ndarray, hips: np.ndarray
) -> Tuple[np.ndarray, np.ndarray]:
    """Knees and ankles (T, 2, 3): ankles as wanted, or as near as the leg reaches; knees point forward."""
    thigh, shank, floor = body.thigh, body.shank, _FLOOR_M + posture.floor[:, None]
    reach = posture.ankles - hips
    length = np.maximum(np.linalg.norm(reach, axis=-1, keepdims=True), 1e-9)
    along = reach / length
    length = np.clip(length, 0.25 * body.leg, _STRETCH * body.leg)
    ankles = _above_ground(hips, hips + along * length, floor)
    along = (ankles - hips) / length
    part = (thigh ** 2 - shank ** 2 + length ** 2) / (2 * length)
    centre = hips + along * part
    radius = np.sqrt(np.maximum(thigh ** 2 - part ** 2, 0))
    # Knees bend ahead of who stands and upwards before who sits or bends down.
    forward = (frame[..., 0] + 0.7 * frame[..., 2])[:, None]
    if posture.apart.any():
        forward = forward + (posture.apart[:, None] * SIDES)[..., None] * frame[:, None, :, 1]
    fore = _unit(forward - along * np.sum(forward * along, -1, keepdims=True))
    # The knee's circle is centre + radius (cos b fore + sin b across); b = 0 unless that is below the ground.
    low = (centre + radius * fore)[..., 2] < floor
    if not low.any():
        return centre + radius * fore, ankles
    across = np.cross(along, fore)
    rise, side = fore[..., 2], across[..., 2]
    steep = np.maximum(radius[..., 0] * np.hypot(rise, side), 1e-9)
    open_ = np.arccos(np.clip((floor - centre[..., 2]) / steep, -1, 1))
    top = np.arctan2(side, rise)
    turns = np.stack([top + open_, top - open_])
    turns = (turns + np.pi) % (2 * np.pi) - np.pi
    turn = _eased(np.where(low, _one_way(turns, low), 0.0))[..., None]
    return centre + radius * (np.cos(turn) * fore + np.sin(turn) * across), ankles


def joints(body: Body, posture: Posture) -> np.ndarray:
    """Where the 18 joints are: (T, 18, 3) metres."""
    frame = _tilted(posture)
    trunk, face = _trunk_and_head(body, posture, frame)
    lowest = np.minimum(trunk[..., 2].min(1), face[..., 2].min(1) + 0.03)
    pelvis = posture.pelvis.copy()
    pelvis[:, 2] = np.maximum(pelvis[:, 2], posture.floor + _FLOOR_M + 0.02 - lowest)
    trunk, face = trunk + pelvis[:, None], face + pelvis[:, None]
    elbows, wrists = _arms(body, posture, frame, trunk[:, :2])
    knees, ankles = _legs(body, posture, frame, trunk[:, 2:4])
    placed = np.empty((len(pelvis), JOINTS, 3))
    placed[:, [R_SHOULDER, L_SHOULDER, R_HIP, L_HIP, NECK]] = trunk
    placed[:, [NOSE, R_EYE, L_EYE, R_EAR, L_EAR]] = face
    placed[:, [R_ELBOW, L_ELBOW]], placed[:, [R_WRIST, L_WRIST]] = elbows, wrists
    placed[:, [R_KNEE, L_KNEE]], placed[:, [R_ANKLE, L_ANKLE]] = knees, ankles
    return placed
