"""Putting pieces of motion together: one after the other, over and over, held, bent around a curve.

Pieces meet where the second is turned and moved so that its bones point as the first's do; over some frames the one
fades into the other. Bones keep their lengths: directions are blended, not joints.
"""

from typing import Tuple

import numpy as np

from edged.camera.ways import averaged
from edged.train.retarget import AHEAD, FPS, UP, WAYS, Moves, turned, unit

_NEAR = 0.06   # squared distance of unit vectors, on average, at which two poses pass into each other unnoticed


def joined(first: Moves, second: Moves, overlap: int) -> Moves:
    """``second`` after ``first``, of which the last ``overlap`` frames fade into the second's first."""
    overlap = max(1, min(overlap, len(first.pelvis), len(second.pelvis)))
    one, other = first.ways[-overlap:], second.ways[:overlap]
    cross = np.sum(other[..., 0] * one[..., 1] - other[..., 1] * one[..., 0])
    second = turned(second, float(np.arctan2(cross, np.sum(one[..., :2] * other[..., :2]))))
    shift = (first.pelvis[-overlap:, :2] - second.pelvis[:overlap, :2]).mean(0)
    second = turned(second, 0.0, shift)
    share = (np.arange(overlap) + 1.0) / (overlap + 1)
    share = (share * share * (3 - 2 * share))[:, None]
    pelvis = first.pelvis[-overlap:] + share * (second.pelvis[:overlap] - first.pelvis[-overlap:])
    ways = unit(one + share[..., None] * (second.ways[:overlap] - one))
    return Moves(np.concatenate([first.pelvis[:-overlap], pelvis, second.pelvis[overlap:]]),
                 np.concatenate([first.ways[:-overlap], ways, second.ways[overlap:]]))


def _features(moved: Moves) -> np.ndarray:
    """Poses as seen by whoever has them: (T, 3 * 13 + 1), heading taken out, height of the pelvis with them."""
    across = moved.ways[:, 0, :2] + moved.ways[:, 2, :2]
    trunk = moved.ways[:, 1, :2]
    level = np.hypot(across[:, 0], across[:, 1]) > 0.5
    heading = np.where(level, np.arctan2(across[:, 1], across[:, 0]), np.arctan2(trunk[:, 1], trunk[:, 0]))
    c, s = np.cos(heading)[:, None], np.sin(heading)[:, None]
    x, y = moved.ways[..., 0], moved.ways[..., 1]
    around = np.stack([c * x + s * y, c * y - s * x, moved.ways[..., 2]], -1)
    return np.concatenate([around.reshape(len(around), -1), 3 * moved.pelvis[:, 2:]], 1)


def apart(one: Moves, other: Moves) -> float:
    """How unlike the last pose of one and the first of the other are: 0 alike .. about 2."""
    return float(np.sum((_features(one.cut(-1, None)) - _features(other.cut(0, 1))) ** 2) / WAYS)


def period(moved: Moves, least: int = 12) -> Tuple[int, int, float]:
    """(first, last, distance): from which frame to which a piece may be repeated, best, and how badly its ends meet."""
    count = len(moved.pelvis)
    fade = min(6, count // 4)
    if count < least + fade + 1:
        return 0, count - 1, np.inf
    pose = _features(moved)
    pose = np.concatenate([pose, 3 * np.gradient(pose, axis=0)], 1)
    ends = count - fade
    square = np.sum(pose ** 2, 1)
    gap = np.maximum(square[:, None] + square - 2 * pose @ pose.T, 0) / WAYS
    # Of all frames that fade into each other: along the diagonals.
    total = sum(gap[at : ends + at, at : ends + at] for at in range(fade + 1)) / (fade + 1)
    first, last = np.arange(ends)[:, None], np.arange(ends)
    # A longer piece is worth a little: less is seen twice.
    cost = np.where(last - first >= least, total - 0.0002 * (last - first), np.inf)
    best = np.unravel_index(int(np.argmin(cost)), cost.shape)
    return int(best[0]), int(best[1]), float(total[best])


def repeated(moved: Moves, count: int) -> Moves:
    """A piece again and again, at least ``count`` frames; where its ends do not meet, to and fro."""
    if len(moved.pelvis) >= count:
        return moved
    first, last, gap = period(moved)
    if gap > _NEAR:
        again = Moves(moved.pelvis[::-1], moved.ways[::-1])
        made = moved
        while len(made.pelvis) < count:
            made = joined(made, again if (len(made.pelvis) // len(moved.pelvis)) % 2 else moved, 1)
        return made
    fade = min(6, len(moved.pelvis) // 4)
    made, cycle = moved.cut(0, last + fade), moved.cut(first, last + fade)
    while len(made.pelvis) < count:
        made = joined(made, cycle, fade)
    return made


def noise(rng: np.random.Generator, count: int, columns: int, reach_s: float) -> np.ndarray:
    """Smooth noise of unit deviation, (count, columns), that changes within about ``reach_s``."""
    reach = max(1, int(reach_s * FPS / 2))
    rough = averaged(averaged(rng.normal(0, 1, (count + 4 * reach, columns)), reach), reach)
    return rough[2 * reach : 2 * reach + count] * np.sqrt(1.5 * (2 * reach + 1))


def held(rng: np.random.Generator, moved: Moves, count: int, stir: float = 0.012) -> Moves:
    """``count`` more frames of the last pose, stirring a little: ``stir`` radians."""
    if count <= 0:
        return moved
    grow = np.minimum(np.arange(1, count + 1) / 20.0, 1.0)[:, None]
    sway = (stir * grow * noise(rng, count, 3 * WAYS, 1.5)).reshape(count, WAYS, 3)
    pelvis = moved.pelvis[-1] + 0.003 * grow * noise(rng, count, 3, 2.0) * [1, 1, 0]
    return Moves(np.concatenate([moved.pelvis, pelvis]),
                 np.concatenate([moved.ways, unit(moved.ways[-1] + sway)]))


def reversed_held(rng: np.random.Generator, moved: Moves, count: int) -> Moves:
    """``count`` frames of the first pose before it."""
    back = held(rng, Moves(moved.pelvis[::-1], moved.ways[::-1]), count)
    return Moves(back.pelvis[::-1], back.ways[::-1])


def bent(moved: Moves, rate: float) -> Moves:
    """The same steps along a curve: the heading turns by ``rate`` radians a frame."""
    turn = rate * np.arange(len(moved.pelvis))
    c, s = np.cos(turn), np.sin(turn)

    def around(x: np.ndarray) -> np.ndarray:
        cosine, sine = (c, s) if x.ndim == 2 else (c[:, None], s[:, None])
        return np.stack([cosine * x[..., 0] - sine * x[..., 1], sine * x[..., 0] + cosine * x[..., 1], x[..., 2]], -1)

    step = np.diff(moved.pelvis, axis=0, prepend=moved.pelvis[:1]) * [1, 1, 0]
    pelvis = moved.pelvis[0] * [1, 1, 0] + np.cumsum(around(step), 0)
    pelvis[:, 2] = moved.pelvis[:, 2]
    return Moves(pelvis, around(moved.ways))


def looking(rng: np.random.Generator, moved: Moves, reach: float = 0.35) -> Moves:
    """The head turns about its own axis, slowly, by about ``reach`` radians: recordings without eyes do not say."""
    angle = np.clip(reach * noise(rng, len(moved.pelvis), 1, 1.2), -1.2, 1.2)
    up, ahead = moved.ways[:, UP], moved.ways[:, AHEAD]
    ways = moved.ways.copy()
    ways[:, AHEAD] = unit(np.cos(angle) * ahead + np.sin(angle) * np.cross(up, ahead))
    return Moves(moved.pelvis, ways)
