"""A body round 18 joints: which rods (solid.py) make somebody of a certain look.

Lengths are those of a person of 1.75 m and are scaled to whoever stands there, as the bones tell.
"""

from typing import List, Optional, Tuple

import numpy as np

from edged.camera.puppet import (
    L_ANKLE, L_EAR, L_ELBOW, L_EYE, L_HIP, L_KNEE, L_SHOULDER, L_WRIST, NECK, NOSE, R_ANKLE, R_EAR, R_ELBOW, R_EYE,
    R_HIP, R_KNEE, R_SHOULDER, R_WRIST,
)  # fmt: skip
from edged.train import wardrobe
from edged.train.solid import Solids
from edged.train.wardrobe import BAG, BOTTOM, EYE, HAIR, HAT, IRIS, LIPS, SHOE, SKIN, TOP, Look

_STATURE_M = 1.75
_ARMS = ((R_SHOULDER, R_ELBOW, R_WRIST), (L_SHOULDER, L_ELBOW, L_WRIST))
_LEGS = ((R_HIP, R_KNEE, R_ANKLE), (L_HIP, L_KNEE, L_ANKLE))


def _unit(vector: np.ndarray, otherwise: Tuple[float, float, float] = (1.0, 0.0, 0.0)) -> np.ndarray:
    length = float(np.linalg.norm(vector))
    return vector / length if length > 1e-6 else np.array(otherwise)


def _frame(along: np.ndarray, ahead: np.ndarray) -> np.ndarray:
    """Rows left, ahead, along: a right-handed frame with ``along`` kept and ``ahead`` bent to it."""
    along = _unit(along, (0.0, 0.0, 1.0))
    ahead = ahead - along * (ahead @ along)
    if np.linalg.norm(ahead) < 1e-3:
        ahead = np.cross(along, [0.3, 0.8, 0.5])
    ahead = _unit(ahead)
    return np.stack([np.cross(along, ahead), ahead, along])


class _Body:
    """The rods so far, and the scale of the person."""

    def __init__(self, look: Look, joints: np.ndarray) -> None:
        self.look, self.joints = look, joints
        hips = 0.5 * (joints[R_HIP] + joints[L_HIP])
        bones = [np.linalg.norm(joints[NECK] - hips) / 0.288]
        for hip, knee, ankle in _LEGS:
            bones += [np.linalg.norm(joints[knee] - joints[hip]) / 0.245,
                      np.linalg.norm(joints[ankle] - joints[knee]) / 0.246]
        self.scale = float(np.median(bones)) / _STATURE_M
        self.hips = hips
        across = _unit(joints[L_SHOULDER] - joints[R_SHOULDER]) + _unit(joints[L_HIP] - joints[R_HIP])
        self.up = _unit(joints[NECK] - hips, (0.0, 0.0, 1.0))
        self.ahead = _unit(np.cross(across, self.up))
        self.trunk = _frame(self.up, self.ahead)
        self.left = self.trunk[0]
        self._rows: List[Tuple[np.ndarray, np.ndarray, float, float, np.ndarray, float, bool, int]] = []
        self._patterns: List[Tuple[np.ndarray, np.ndarray]] = []

    def rod(
        self, kind: int, start: np.ndarray, end: np.ndarray, start_r: float, end_r: float,
        frame: Optional[np.ndarray] = None, flat: Optional[np.ndarray] = None, thin: float = 1.0,
        origin: Optional[np.ndarray] = None, cut: bool = False,
    ) -> None:
        """Radii in metres of the person of 1.75 m."""
        frame = self.trunk if frame is None else frame
        self._rows.append((start, end, start_r * self.scale, end_r * self.scale,
                           frame[1] if flat is None else flat, thin, cut, kind))
        self._patterns.append((start if origin is None else origin, frame))

    def solids(self) -> Solids:
        start, end, start_r, end_r, flat, thin, cut, kind = zip(*self._rows)
        origin, frame = zip(*self._patterns)
        return Solids(np.stack(start), np.stack(end), np.array(start_r), np.array(end_r), np.stack(flat),
                      np.array(thin), np.array(cut), np.array(kind), np.stack(origin), np.stack(frame))


def solids(look: Look, joints: np.ndarray) -> Solids:
    """joints : (18, 3) metres, all known."""
    body = _Body(look, np.asarray(joints, float))
    _trunk(body)
    for side in (0, 1):
        _arm(body, side)
        _leg(body, side)
    _head(body)
    _carried(body)
    return body.solids()


def _trunk(body: _Body) -> None:
    look, joints, s = body.look, body.joints, body.scale
    neck, up, ahead, hips = joints[NECK], body.up, body.ahead, body.hips
    right, left = joints[R_SHOULDER], joints[L_SHOULDER]
    wide = 0.5 * float(np.linalg.norm(left - right)) / s * look.shoulders
    slack, girth = look.slack, look.girth
    chest, waist, seat = 0.81 * wide + slack, 0.128 * girth + slack, 0.162 * girth * look.hips + slack

    def part(from_: np.ndarray, to: np.ndarray, r0: float, r1: float, thin: float, cut: bool = False) -> None:
        body.rod(TOP, from_, to, r0, r1, flat=ahead, thin=thin, origin=neck, cut=cut)

    part(right + 0.1 * (left - right) - 0.014 * s * up, left + 0.1 * (right - left) - 0.014 * s * up,
         0.052 + 0.7 * slack, 0.052 + 0.7 * slack, 1.0)
    for shoulder in (right, left):  # the slope from the neck
        part(neck + 0.07 * s * up, 0.2 * neck + 0.8 * shoulder + 0.008 * s * up, 0.05, 0.045 + 0.5 * slack, 1.0)
    part(neck - 0.13 * s * up, neck - 0.27 * s * up, chest, 0.92 * chest, 0.66)
    part(neck - 0.24 * s * up, hips + 0.1 * s * up + 0.02 * (look.belly - 1) * s * ahead, 0.9 * chest, waist,
         0.7 * look.belly ** 0.5)
    if look.tucked:
        part(hips + 0.1 * s * up, hips + 0.06 * s * up, waist, waist, 0.74)
    else:
        part(hips + 0.1 * s * up, hips - 0.05 * s * up, waist + 0.004, seat + 0.016, 0.72, cut=True)
    kind = TOP if look.coat else BOTTOM
    body.rod(kind, hips + 0.05 * s * up, hips - 0.04 * s * up, seat - slack, 0.93 * seat - slack, flat=ahead,
             thin=0.69, origin=neck)
    for hip in (joints[R_HIP], joints[L_HIP]):
        body.rod(kind, hip - 0.022 * s * ahead + 0.02 * s * up, hip - 0.016 * s * ahead - 0.06 * s * up,
                 0.076 * girth, 0.076 * girth, origin=neck)
    reach = max(look.skirt, look.coat)
    if reach:
        knees = 0.5 * (joints[R_KNEE] + joints[L_KNEE])
        apart = 0.5 * float(np.linalg.norm(joints[R_KNEE] - joints[L_KNEE])) / s * min(reach, 1.0)
        hem = hips + min(reach, 1.0) * (knees - hips)
        frame = _frame(hips - hem, ahead)
        body.rod(TOP if look.coat else BOTTOM, hips, hem, seat + 0.01, max(0.105, 0.09 + apart), frame=frame,
                 thin=0.8, origin=neck, cut=True)
        if reach > 1.05:
            ankles = 0.5 * (joints[R_ANKLE] + joints[L_ANKLE])
            apart = 0.5 * float(np.linalg.norm(joints[R_ANKLE] - joints[L_ANKLE])) / s * (reach - 1)
            body.rod(TOP if look.coat else BOTTOM, knees, knees + (reach - 1) * (ankles - knees),
                     max(0.105, 0.09 + apart), 0.1 + 0.7 * apart, frame=_frame(knees - ankles, ahead), thin=0.85,
                     origin=knees, cut=True)


def _arm(body: _Body, side: int) -> None:
    look, s = body.look, body.scale
    shoulder, elbow, wrist = body.joints[list(_ARMS[side])]
    thick = 0.5 + 0.5 * look.girth
    upper = _frame(shoulder - elbow, body.ahead)
    bend = elbow - 0.5 * (shoulder + wrist)
    fore = _frame(elbow - wrist, body.ahead - bend)
    covered, slack = look.sleeves, look.slack
    body.rod(SKIN, shoulder, elbow, 0.05 * thick, 0.042 * thick, frame=upper)
    third = elbow + 0.3 * (wrist - elbow)
    body.rod(SKIN, elbow, third, 0.041 * thick, 0.044 * thick, frame=fore)
    body.rod(SKIN, third, wrist, 0.044 * thick, 0.029 * thick, frame=fore)
    body.rod(TOP, shoulder, shoulder + 0.12 * (elbow - shoulder), 0.051 * thick + slack, 0.051 * thick + slack,
             frame=upper)
    if covered:
        share = min(2 * covered, 1.0)
        body.rod(TOP, shoulder, shoulder + share * (elbow - shoulder), 0.051 * thick + slack,
                 (0.052 - 0.006 * share) * thick + 1.3 * slack, frame=upper, cut=share < 1)
    if covered > 0.5:
        body.rod(TOP, elbow, third, 0.047 * thick + slack, 0.047 * thick + slack, frame=fore)
        body.rod(TOP, third, wrist, 0.047 * thick + slack, 0.036 * thick + 0.8 * slack, frame=fore, cut=True)
    out = -fore[2]
    palm = wrist + 0.085 * s * out
    thumb = body.ahead - out * (body.ahead @ out)
    body.rod(SKIN, wrist + 0.02 * s * out, palm, 0.032, 0.035, frame=fore, flat=fore[0], thin=0.5)
    body.rod(SKIN, palm, palm + 0.075 * s * out - 0.012 * s * fore[1], 0.033, 0.017, frame=fore, flat=fore[0],
             thin=0.45)
    body.rod(SKIN, wrist + 0.035 * s * out, wrist + 0.09 * s * out + 0.038 * s * _unit(thumb), 0.016, 0.011,
             frame=fore)


def _leg(body: _Body, side: int) -> None:
    look, s = body.look, body.scale
    hip, knee, ankle = body.joints[list(_LEGS[side])]
    hip = hip + 0.24 * (body.hips - hip)  # the bone starts beside the joint, the flesh does not
    thick, flare = 0.3 + 0.7 * look.girth, look.flare
    bulge = knee - 0.5 * (hip + ankle)  # knees bend forward: the surest sign of where a foot points
    ahead = _unit(body.ahead + 3 * bulge / s)
    upper, lower = _frame(hip - knee, ahead), _frame(knee - ankle, ahead)
    calf = knee + 0.33 * (ankle - knee) - 0.014 * s * lower[1]
    bare = look.legs
    if bare < 1 or look.skirt:
        body.rod(SKIN, hip, knee, 0.08 * thick, 0.055 * thick, frame=upper)
        body.rod(SKIN, knee, calf, 0.052 * thick, 0.056 * thick, frame=lower)
        body.rod(SKIN, calf, ankle, 0.056 * thick, 0.036 * thick, frame=lower)
    if not look.skirt:
        share = min(2 * bare, 1.0) if bare < 0.5 else 1.0
        body.rod(BOTTOM, hip, hip + share * (knee - hip), 0.085 * thick + 0.3 * flare,
                 (0.085 - 0.025 * share) * thick + flare, frame=upper, cut=share < 1)
        if bare >= 1:
            body.rod(BOTTOM, knee, calf, 0.056 * thick + flare, 0.057 * thick + flare, frame=lower)
            body.rod(BOTTOM, calf, ankle - 0.015 * s * lower[2], 0.057 * thick + flare, 0.042 + 1.1 * flare,
                     frame=lower, cut=True)
    down = -lower[2]
    point = _unit(lower[1] + 0.25 * down)
    if ankle[2] < 0.3 * s and down[2] < -0.5:  # it stands: the sole is level, or the heel is off
        level = _unit(np.append(point[:2], 0.0))
        rise = np.clip((ankle[2] / s - 0.085) / 0.16, 0, 1)
        point = _unit(level * np.sqrt(1 - 0.6 * rise ** 2) - np.array([0, 0, 0.75 * rise]))
        down = _unit(np.array([0, 0, -1.0]) - point * -point[2])
    frame = _frame(-down, point)
    heel = ankle + (0.045 * down - 0.035 * point) * s
    ball = ankle + (0.052 * down + 0.115 * point) * s
    body.rod(SHOE, ankle + 0.008 * s * down, heel, 0.038, 0.034, frame=frame)
    body.rod(SHOE, heel, ball, 0.034, 0.038, frame=frame, flat=down, thin=0.8)
    body.rod(SHOE, ankle + 0.02 * s * down + 0.02 * s * point, ball + 0.03 * s * point, 0.034, 0.031, frame=frame,
             flat=down, thin=0.75)


def _head(body: _Body) -> None:
    look, joints, s = body.look, body.joints, body.scale
    middle = 0.5 * (joints[R_EAR] + joints[L_EAR])
    left = _unit(joints[L_EAR] - joints[R_EAR])
    ahead = joints[NOSE] - middle
    ahead = _unit(ahead - left * (ahead @ left))
    frame = np.stack([left, ahead, np.cross(ahead, left)])
    # Nose and eyes lie 1 and 2 cm to either side of the level of the ears: tip the frame back by what that makes.
    up = _unit(frame[2] - 0.2 * ahead)
    ahead = np.cross(left, up)
    frame = np.stack([left, ahead, up])

    def at(x: float, y: float, z: float) -> np.ndarray:
        return middle + s * (x * left + y * ahead + z * up)

    def rod(kind: int, start: np.ndarray, end: np.ndarray, r0: float, r1: float, flat: np.ndarray = left,
            thin: float = 1.0) -> None:
        body.rod(kind, start, end, r0, r1, frame=frame, flat=flat, thin=thin, origin=middle)

    rod(SKIN, joints[NECK] + 0.02 * s * body.up, at(0, -0.012, -0.05), 0.062, 0.055)
    if look.collar:
        rod(TOP, joints[NECK] + 0.05 * s * body.up, joints[NECK] + 0.085 * s * body.up, 0.075, 0.066)
    rod(SKIN, at(0, 0.006, 0.03), at(0, -0.02, 0.028), 0.08, 0.082, thin=0.9)
    rod(SKIN, at(0, 0.012, -0.005), at(0, 0.034, -0.072), 0.068, 0.037, thin=0.94)
    rod(SKIN, at(0, 0.078, 0.012), joints[NOSE] - 0.006 * s * ahead, 0.007, 0.014)
    for eye, ear, sign in ((R_EYE, R_EAR, -1), (L_EYE, L_EAR, 1)):
        centre = joints[eye] - 0.008 * s * ahead
        rod(EYE, centre - 0.008 * s * left, centre + 0.008 * s * left, 0.009, 0.009, flat=up, thin=0.75)
        rod(IRIS, centre + 0.006 * s * ahead, centre + 0.006 * s * ahead, 0.0065, 0.0065)
        brow = centre + (0.021 * up + 0.003 * ahead) * s
        rod(HAIR, brow - 0.017 * s * left, brow + 0.017 * s * left, 0.005, 0.005, flat=up, thin=0.8)
        rod(SKIN, joints[ear] + 0.002 * s * sign * left - 0.014 * s * up, joints[ear] + 0.016 * s * up, 0.016, 0.021,
            thin=0.5)
    rod(LIPS, at(-0.019, 0.068, -0.058), at(0.019, 0.068, -0.058), 0.0075, 0.0075, flat=up, thin=0.7)
    _hair(look, joints[NECK] - 0.05 * s * body.up - 0.07 * s * body.ahead, at, rod, up, ahead)


def _hair(look: Look, back: np.ndarray, at, rod, up: np.ndarray, ahead: np.ndarray) -> None:  # type: ignore
    style = look.hair
    if look.hat in (wardrobe.BEANIE, wardrobe.HELMET):
        grow = 0.008 if look.hat == wardrobe.HELMET else 0.0
        rod(HAT, at(0, -0.008, 0.05), at(0, -0.025, 0.04), 0.091 + grow, 0.092 + grow)
    elif look.hat == wardrobe.HOOD:
        rod(TOP, at(0, -0.022, 0.045), at(0, -0.045, -0.02), 0.098, 0.095)
        rod(TOP, at(0, -0.045, -0.02), back, 0.09, 0.08)
    elif look.hat == wardrobe.CAP:
        rod(HAT, at(0, -0.008, 0.052), at(0, -0.022, 0.045), 0.088, 0.089)
        rod(HAT, at(0, 0.06, 0.068), at(0, 0.12, 0.056), 0.06, 0.045, flat=up, thin=0.12)
    if style == wardrobe.BALD or look.hat == wardrobe.HOOD:
        return
    if style == wardrobe.CURLY and not look.hat:
        rod(HAIR, at(0, -0.03, 0.07), at(0, -0.05, 0.01), 0.1, 0.1)
    elif not look.hat:
        rod(HAIR, at(0, -0.022, 0.056), at(0, -0.036, 0.03), 0.083, 0.086, thin=0.95)
    if style in (wardrobe.FULL, wardrobe.LONG, wardrobe.TAIL):
        rod(HAIR, at(0, -0.035, 0.02), at(0, -0.05, -0.04), 0.083, 0.066)
    if style == wardrobe.LONG:
        rod(HAIR, at(0, -0.04, 0.0), back, 0.08, 0.062, flat=ahead, thin=0.75)
    elif style == wardrobe.TAIL:
        rod(HAIR, at(0, -0.095, 0.04), 0.5 * (at(0, -0.14, -0.03) + back), 0.03, 0.022)


def _carried(body: _Body) -> None:
    look, s = body.look, body.scale
    neck, up, ahead = body.joints[NECK], body.up, body.ahead
    if look.bag == wardrobe.BACKPACK:
        back = -0.155 * s * ahead
        body.rod(BAG, neck - 0.1 * s * up + back, neck - 0.36 * s * up + 1.05 * back, 0.125, 0.14, flat=ahead,
                 thin=0.6, origin=neck)
        for shoulder in (body.joints[R_SHOULDER], body.joints[L_SHOULDER]):
            strap = neck + 0.6 * (shoulder - neck)
            body.rod(BAG, strap + 0.05 * s * up, strap + 0.115 * s * ahead - 0.14 * s * up, 0.02, 0.02, origin=neck)
    elif look.bag == wardrobe.HANDBAG:
        hand = body.joints[R_WRIST] - 0.1 * s * np.array([0, 0, 1.0])
        if hand[2] > 0.45 * s:
            drop = np.array([0, 0, 1.0])
            frame = _frame(drop, body.left)
            body.rod(BAG, hand - 0.13 * s * drop, hand - 0.23 * s * drop, 0.1, 0.12, frame=frame,
                     flat=body.left, thin=0.35)
