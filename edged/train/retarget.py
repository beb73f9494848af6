"""Recorded motion as directions of bones, and from these the 18 joints of any body.

Directions belong to a movement, lengths to a person: a recording gives 13 unit vectors a frame and where the pelvis
is, and whoever performs it brings the lengths (puppet.Body). So a toy figure's walk becomes an adult's, and bones keep
their lengths whatever is blended. Neck and pelvis are the middles of shoulders and hips; nose, eyes and ears follow
from the head's frame with puppet's proportions.
"""

import re
from dataclasses import replace
from typing import Dict, NamedTuple, Optional, Tuple

import numpy as np

from edged.camera.puppet import (
    JOINTS, L_ANKLE, L_EAR, L_ELBOW, L_EYE, L_HIP, L_KNEE, L_SHOULDER, L_WRIST, NECK, NOSE, R_ANKLE, R_EAR, R_ELBOW,
    R_EYE, R_HIP, R_KNEE, R_SHOULDER, R_WRIST, Body,
)  # fmt: skip
from edged.camera.ways import averaged
from edged.errors import PackageError
from edged.train.mocap import Motion

FPS = 30.0
# Both halves of hips and shoulders point from right to left; UP and AHEAD are the head's.
WAYS = 13
HIPS, TRUNK, SHOULDERS, R_UPPER, R_FOREARM, L_UPPER, L_FOREARM = range(7)
R_THIGH, R_SHANK, L_THIGH, L_SHANK, UP, AHEAD = range(7, WAYS)
_MIRROR = (HIPS, TRUNK, SHOULDERS, L_UPPER, L_FOREARM, R_UPPER, R_FOREARM, L_THIGH, L_SHANK, R_THIGH, R_SHANK, UP,
           AHEAD)  # fmt: skip
LOWEST_M = 0.03   # no joint's centre comes nearer to the ground
_LAID_M = 0.06     # half the thickness of what somebody who has no foot on the ground rests on

# What the joints are called, without prefixes, points and dashes: Acclaim's first, then others', the more special
# before the more general. {} is r or l, or the word.
_NAMES = {
    "hip": ("{}hipjoint", "{}thigh", "thigh{}", "upperleg{}", "{}upleg", "{}upperleg", "{}hip"),
    "knee": ("{}femur", "{}calf", "calf{}", "shin{}", "lowerleg{}", "{}shin", "{}leg", "{}lowerleg", "{}knee"),
    "ankle": ("{}tibia", "{}foot", "foot{}", "{}ankle"),
    "shoulder": ("{}clavicle", "{}upperarm", "upperarm{}", "{}shldr", "{}arm", "{}shoulder"),
    "elbow": ("{}humerus", "{}forearm", "forearm{}", "lowerarm{}", "{}lowerarm", "{}elbow", "{}arm"),
    "wrist": ("{}radius", "{}hand", "hand{}", "wrist{}", "{}wrist"),
}


class Moves(NamedTuple):
    """pelvis (T, 3), middle of the hips in metres; ways (T, 13, 3), unit vectors."""

    pelvis: np.ndarray
    ways: np.ndarray

    def cut(self, first: int, last: int) -> "Moves":
        return Moves(self.pelvis[first:last], self.ways[first:last])


def _plain(name: str) -> str:
    return re.sub(r"^(ccbase|def)", "", re.sub(r"[^a-z0-9]", "", name.lower()))


def _places(motion: Motion) -> Dict[str, Tuple[int, int]]:
    """For each part of ``_NAMES`` the places of the right and the left joint."""
    plain = {_plain(name): place for place, name in enumerate(motion.joints)}
    acclaim = "lfemur" in plain  # joints are the bones' ends there, and their names those of others' starts
    found = {}
    for part, forms in _NAMES.items():
        for form in forms[:1] if acclaim else forms[1:]:
            pairs = [(form.format(right), form.format(left)) for right, left in (("r", "l"), ("right", "left"))]
            pair = [one for one in pairs if one[0] in plain and one[1] in plain]
            if pair:
                found[part] = plain[pair[0][0]], plain[pair[0][1]]
                break
        else:
            raise PackageError("motion without a {}: {}".format(part, ", ".join(motion.joints)[:200]))
    found["head"] = (plain["head"],) * 2 if "head" in plain else (-1, -1)
    if found["head"][0] < 0:
        raise PackageError("motion without a head: {}".format(", ".join(motion.joints)[:200]))
    return found


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-9)


def moves(motion: Motion, head_leans: float = 0.0) -> Tuple[Moves, Body]:
    """A recording's moves at its own rate, and the lengths of who was recorded.

    head_leans : how far ahead of the trunk's line, in radians, the head's joint lies from the middle of the shoulders
    when somebody looks straight ahead. Raises PackageError for joints whose names mean nothing here.
    """
    at, places = _places(motion), motion.positions
    right, left = ({part: places[:, pair[side]] for part, pair in at.items()} for side in (0, 1))
    neck, pelvis = (right["shoulder"] + left["shoulder"]) / 2, (right["hip"] + left["hip"]) / 2
    spans = [left["hip"] - right["hip"], neck - pelvis, left["shoulder"] - right["shoulder"]]
    for side in (right, left):
        spans += [side["elbow"] - side["shoulder"], side["wrist"] - side["elbow"]]
    for side in (right, left):
        spans += [side["knee"] - side["hip"], side["ankle"] - side["knee"]]
    length = [float(np.median(np.linalg.norm(span, axis=-1))) for span in spans]
    if min(length) < 0.01:
        raise PackageError("motion with a bone of {:.3f} m".format(min(length)))
    ways = unit(np.stack(spans, 1))
    across = unit(ways[:, SHOULDERS] - ways[:, TRUNK] * np.sum(ways[:, SHOULDERS] * ways[:, TRUNK], -1, keepdims=True))
    lean = np.cross(across, ways[:, TRUNK])  # ahead of the chest
    reach = unit(right["head"] - neck)
    c, s = np.cos(head_leans), np.sin(head_leans)
    fore = unit(lean - reach * np.sum(lean * reach, -1, keepdims=True))
    up = c * reach - s * fore
    ahead = unit(np.cross(across, up))
    half = 0.5 * (np.array(length[3:7:2] + length[4:7:2]).reshape(2, 2).sum(1))
    legs = 0.5 * (np.array([length[7] + length[9], length[8] + length[10]]))
    stature = float(legs.sum() / 0.491)  # thigh and shank, as puppet.random_body divides a body
    body = Body(stature, length[1], length[2] / 2, length[0] / 2, float(half[0]), float(half[1]), float(legs[0]),
                float(legs[1]), 0.042 * stature, stature)
    return Moves(pelvis, np.concatenate([ways, up[:, None], ahead[:, None]], 1)), body


def joints(moved: Moves, body: Body) -> np.ndarray:
    """Where the 18 joints are: (T, 18, 3) metres."""
    way = moved.ways
    placed = np.empty((len(way), JOINTS, 3))
    neck = moved.pelvis + body.trunk * way[:, TRUNK]
    placed[:, NECK] = neck
    for sign, shoulder, elbow, wrist, upper, lower in (
        (-1, R_SHOULDER, R_ELBOW, R_WRIST, R_UPPER, R_FOREARM), (1, L_SHOULDER, L_ELBOW, L_WRIST, L_UPPER, L_FOREARM),
    ):
        placed[:, shoulder] = neck + sign * body.shoulders * way[:, SHOULDERS]
        placed[:, elbow] = placed[:, shoulder] + body.upper_arm * way[:, upper]
        placed[:, wrist] = placed[:, elbow] + body.forearm * way[:, lower]
    for sign, hip, knee, ankle, upper, lower in (
        (-1, R_HIP, R_KNEE, R_ANKLE, R_THIGH, R_SHANK), (1, L_HIP, L_KNEE, L_ANKLE, L_THIGH, L_SHANK),
    ):
        placed[:, hip] = moved.pelvis + sign * body.hips * way[:, HIPS]
        placed[:, knee] = placed[:, hip] + body.thigh * way[:, upper]
        placed[:, ankle] = placed[:, knee] + body.shank * way[:, lower]
    up, ahead = way[:, UP], unit(way[:, AHEAD] - way[:, UP] * np.sum(way[:, AHEAD] * way[:, UP], -1, keepdims=True))
    aside = np.cross(up, ahead)
    for joint, (fore, out, over) in (
        (NOSE, (0.058, 0, 0.105)), (R_EYE, (0.052, -0.018, 0.122)), (L_EYE, (0.052, 0.018, 0.122)),
        (R_EAR, (0.008, -0.043, 0.115)), (L_EAR, (0.008, 0.043, 0.115)),
    ):  # puppet's face
        placed[:, joint] = neck + body.head * (fore * ahead + out * aside + over * up)
    return placed


def of_joints(placed: np.ndarray) -> Tuple[Moves, Body]:
    """The other way: moves and lengths from 18 joints (T, 18, 3), as puppet.joints gives them."""
    pairs = ((R_HIP, L_HIP), (None, NECK), (R_SHOULDER, L_SHOULDER), (R_SHOULDER, R_ELBOW), (R_ELBOW, R_WRIST),
             (L_SHOULDER, L_ELBOW), (L_ELBOW, L_WRIST), (R_HIP, R_KNEE), (R_KNEE, R_ANKLE), (L_HIP, L_KNEE),
             (L_KNEE, L_ANKLE))  # fmt: skip
    pelvis = (placed[:, R_HIP] + placed[:, L_HIP]) / 2
    spans = [placed[:, end] - (pelvis if start is None else placed[:, start]) for start, end in pairs]
    length = [float(np.median(np.linalg.norm(span, axis=-1))) for span in spans]
    # Of puppet's face: ears lie on the head's left-right axis, and the nose is ahead of and below their middle.
    aside = unit(placed[:, L_EAR] - placed[:, R_EAR])
    ears, nose = (placed[:, R_EAR] + placed[:, L_EAR]) / 2 - placed[:, NECK], placed[:, NOSE] - placed[:, NECK]
    # [nose, ears] = head * [[0.058, 0.105], [0.008, 0.115]] @ [ahead, up]
    inverse = np.linalg.inv([[0.058, 0.105], [0.008, 0.115]])
    ahead, up = unit(inverse[0, 0] * nose + inverse[0, 1] * ears), unit(inverse[1, 0] * nose + inverse[1, 1] * ears)
    up = unit(up - aside * np.sum(up * aside, -1, keepdims=True))
    ahead = np.where(np.sum(ahead * np.cross(aside, up), -1, keepdims=True) < 0, -1, 1) * np.cross(aside, up)
    stature = float(np.median(np.linalg.norm(placed[:, L_EAR] - placed[:, R_EAR], axis=-1)) / 0.086)
    body = Body(stature, length[1], length[2] / 2, length[0] / 2, (length[3] + length[5]) / 2,
                (length[4] + length[6]) / 2, (length[7] + length[9]) / 2, (length[8] + length[10]) / 2,
                0.042 * stature, stature)
    return Moves(pelvis, np.concatenate([unit(np.stack(spans, 1)), up[:, None], ahead[:, None]], 1)), body


def at_rate(moved: Moves, fps: float, wanted: float = FPS) -> Moves:
    """The same seconds at another number of frames a second: directions are interpolated, then made unit again."""
    count = len(moved.pelvis)
    at = np.arange(0, (count - 1) / fps + 1e-6, 1 / wanted) * fps
    low = np.minimum(at.astype(int), count - 2)
    part = (at - low)[:, None]
    pelvis = moved.pelvis[low] * (1 - part) + moved.pelvis[low + 1] * part
    return Moves(pelvis, unit(moved.ways[low] * (1 - part[..., None]) + moved.ways[low + 1] * part[..., None]))


def mirrored(moved: Moves) -> Moves:
    """Left and right exchanged, as in a mirror at y = 0."""
    flip = np.array([1.0, -1.0, 1.0])
    ways = moved.ways[:, _MIRROR] * flip
    ways[:, [HIPS, SHOULDERS]] *= -1
    return Moves(moved.pelvis * flip, ways)


def turned(moved: Moves, angle: float, shift: Optional[np.ndarray] = None) -> Moves:
    """Turned about the origin's vertical by radians, then moved over the ground by ``shift`` (2,)."""
    c, s = np.cos(angle), np.sin(angle)
    turn = np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])
    return Moves(moved.pelvis @ turn + (0 if shift is None else np.append(shift, 0)), moved.ways @ turn)


def grounded(moved: Moves, body: Body) -> Moves:
    """So high that the lowest that somebody comes is standing on, or lying on, the ground."""
    placed = joints(moved, body)
    low = placed[..., 2].min(1)
    frame = int(np.argmin(low))
    lowest = int(np.argmin(placed[frame, :, 2]))
    rest = body.ankle if lowest in (R_ANKLE, L_ANKLE) else _LAID_M
    # A few frames may sink a little: what most of the low frames say counts.
    return Moves(moved.pelvis + [0, 0, rest - float(np.quantile(low, 0.03))], moved.ways)


def fitted(moved: Moves, own: Body, body: Body) -> Moves:
    """Somebody else's moves for ``body``: the way over the ground grows with the legs, and what was so far above the
    ground stays so, in leg lengths."""
    scale = body.leg / own.leg
    pelvis = moved.pelvis * scale
    over = joints(moved, own)[..., 2].min(1) - own.ankle
    above = joints(Moves(pelvis, moved.ways), body)[..., 2].min(1) - body.ankle
    rise = averaged((np.where(over > 0, over * scale, over) - above)[:, None], 2)[:, 0]
    rise = np.maximum(rise, LOWEST_M - body.ankle - above)
    return Moves(pelvis + rise[:, None] * [0, 0, 1], moved.ways)


def scaled(body: Body, share: float) -> Body:
    """The same build, taller or shorter."""
    return replace(body, **{name: getattr(body, name) * share for name in body.__dataclass_fields__})
