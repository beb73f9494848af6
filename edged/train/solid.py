"""One solid from which whole figures are built: a tapered, round-ended rod, pressed flat in one direction at will.

A rod is the union of the balls whose centres go from ``start`` to ``end`` while their radii go from ``start_r`` to
``end_r``. Seen along z, ball t of those at pixel p has its front at

    z(t) = z0 + Z t - sqrt(q(t)),     q(t) = r(t)^2 - |p - c(t)|^2 = A t^2 + B t + C

and the rod's front is the least of them. z'(t) = 0 gives 2 A t + B = 2 Z sqrt(q), squared and solved

    t = (Z sqrt((B^2 - 4 A C) / |A - Z^2|) - B) / (2 A),

to be cut off at 0 and 1; for A < 0 (no ball's outline holds the other's) z is convex in t, so that the cut is exact.
A flat rod is a round one in a space that is stretched in the direction in which it is flat; rays stay rays there.
Within one figure rays are taken for parallel: its ends are projected truly, its depth is small against its distance.
"""

from typing import List, NamedTuple, Optional, Tuple

import numpy as np

from edged.camera import picture
from edged.camera.viewpoint import View

_NEAR_M = 0.1  # who is inside a rod does not see it
_LEAST_PX = 0.35  # radius: what is thinner is drawn so thin


class Solids(NamedTuple):
    """m rods in the world, metres. flat : unit directions in which each is ``thin`` times as thick (1: round)

    cut : (m,) bool, not round at the end but cut off square, and open there: hems
    kind : (m,) number of each one's material      origin, frame : (m, 3), (m, 3, 3), rows are the axes in which the
    material's pattern is laid
    """

    start: np.ndarray
    end: np.ndarray
    start_r: np.ndarray
    end_r: np.ndarray
    flat: np.ndarray
    thin: np.ndarray
    cut: np.ndarray
    kind: np.ndarray
    origin: np.ndarray
    frame: np.ndarray


class Surface(NamedTuple):
    """What is seen of a figure within a rectangle of the picture, ``fine`` samples a pixel each way.

    depth : (h, w) float32 metres from the camera, infinite beside it      part : (h, w) int, the rod, -1 beside it
    normal : (k, 3), place : (k, 3) in each pattern's axes, of the k samples with a part, row by row
    to_eye : (3, 3) rows: the axes in which normals stand (right, down, away), in the world
    """

    left: int
    top: int
    fine: int
    depth: np.ndarray
    part: np.ndarray
    normal: np.ndarray
    place: np.ndarray
    to_eye: np.ndarray


def eye(view: View) -> np.ndarray:
    """Where the camera is."""
    return np.array([0.0, 0.0, view.height_m])


def axes(view: View, target: np.ndarray) -> np.ndarray:
    """(3, 3) rows right, down, away, for who looks from the camera at ``target`` (3,)."""
    away = target - eye(view)
    away = away / np.linalg.norm(away)
    c, s = np.cos(view.roll), np.sin(view.roll)
    right = np.array([c, s * np.sin(view.pitch), s * np.cos(view.pitch)])
    right = right - away * (right @ away)
    right /= np.linalg.norm(right)
    return np.stack([right, np.cross(away, right), away])


class _Rays(NamedTuple):
    """One rod's round space: pixels into its plane (2, 3), depth off it (3,), normals out of it (3, 3)."""

    plane: np.ndarray
    away: np.ndarray
    out: np.ndarray
    stretch: float


def _rays(flat: np.ndarray, thin: float) -> _Rays:
    stretched = np.eye(3) + (1 / thin - 1) * np.outer(flat, flat)
    away = stretched[:, 2]
    length = float(np.linalg.norm(away))
    away = away / length
    side = np.array([1.0, 0, 0]) - away * away[0]
    side /= np.linalg.norm(side)
    basis = np.stack([side, np.cross(away, side), away])
    return _Rays(basis[:2] @ stretched, away @ stretched, stretched @ basis.T, length)


def _front(
    x: np.ndarray, y: np.ndarray, rays: _Rays, along: np.ndarray, radii: Tuple[float, float]
) -> Tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Depth (h, w), infinite where there is none, and normals in three parts, of one rod from the origin to ``along``.

    x (w,), y (h, 1), all in pixels.
    """
    u = rays.plane[0, 0] * x + rays.plane[0, 1] * y
    v = rays.plane[1, 0] * x + rays.plane[1, 1] * y
    bu, bv = rays.plane @ along
    deep = float(rays.away @ along)
    r0, less = radii[0], radii[0] - radii[1]
    a = less * less - bu * bu - bv * bv
    c = r0 * r0 - u * u - v * v
    if a < -1e-3:
        b = 2 * (bu * u + bv * v - r0 * less)
        t = np.sqrt(np.maximum(b * b - 4 * a * c, 0))
        t *= deep / np.sqrt(deep * deep - a)
        t -= b
        t *= 0.5 / a
        np.clip(t, 0, 1, out=t)
        q = (a * t + b) * t + c
    else:  # one ball's outline holds the other's
        q1 = radii[1] ** 2 - (u - bu) ** 2 - (v - bv) ** 2
        second = (q1 > 0) & ((c <= 0) | (deep - np.sqrt(np.maximum(q1, 0)) < -np.sqrt(np.maximum(c, 0))))
        t = second.astype(np.float32)
        q = np.where(second, q1, c)
    root = np.sqrt(np.maximum(q, 0))
    depth = deep * t - root
    depth -= rays.away[0] * x
    depth -= rays.away[1] * y
    depth *= 1 / rays.stretch
    depth[q <= 0] = np.inf
    return depth, u - bu * t, v - bv * t, -root


def surface(view: View, solids: Solids, fine: int = 2) -> Optional[Surface]:
    """Rods as the camera sees them; None where they are out of the picture or behind the camera."""
    middle = 0.5 * (solids.start + solids.end)
    centre = middle.mean(0)
    ends = np.stack([solids.start, solids.end], 1)
    pixels, far = view.project(ends)
    if far.min() < 0.3:
        return None
    turn = axes(view, centre)
    local = (ends - eye(view)) @ turn.T
    scale = _scale(view, ends, far)
    radius = np.maximum(np.stack([solids.start_r, solids.end_r], 1) * scale, _LEAST_PX)
    low = np.floor((pixels - radius[..., None]).min(1)).astype(int) - 1
    high = np.ceil((pixels + radius[..., None]).max(1)).astype(int) + 2
    low, high = np.maximum(low, 0), np.minimum(high, [view.width, view.height])
    left, top = low.min(0)
    right, bottom = high.max(0)
    if right - left < 2 or bottom - top < 2:
        return None
    shape = (fine * (bottom - top), fine * (right - left))
    depth, part = np.full(shape, np.inf, np.float32), np.full(shape, -1, np.int16)
    normal = [np.zeros(shape, np.float32) for _ in range(3)]
    columns = ((np.arange(shape[1]) + 0.5) / fine - 0.5 + left).astype(np.float32)
    rows = ((np.arange(shape[0]) + 0.5) / fine - 0.5 + top).astype(np.float32)[:, None]
    outs = np.zeros((len(middle), 3, 3))
    for index in np.argsort(local[:, :, 2].mean(1)):
        (x0, y0), (x1, y1) = fine * (low[index] - (left, top)), fine * (high[index] - (left, top))
        if x1 <= x0 or y1 <= y0:
            continue
        here = (slice(y0, y1), slice(x0, x1))
        each = float(scale[index].mean())
        rays = _rays(turn @ solids.flat[index], float(solids.thin[index]))
        outs[index] = rays.out
        along = np.append(pixels[index, 1] - pixels[index, 0], (local[index, 1, 2] - local[index, 0, 2]) * each)
        found, *facing = _front(columns[x0:x1] - np.float32(pixels[index, 0, 0]),
                                rows[y0:y1] - np.float32(pixels[index, 0, 1]), rays, along.astype(np.float32),
                                (float(radius[index, 0]), float(radius[index, 1])))
        if solids.cut[index]:
            x, y = columns[x0:x1] - np.float32(pixels[index, 1, 0]), rows[y0:y1] - np.float32(pixels[index, 1, 1])
            beyond = along / np.linalg.norm(along)
            found[beyond[0] * x + beyond[1] * y + beyond[2] * (found - along[2]) > 0] = np.inf
        found = found / np.float32(each) + np.float32(local[index, 0, 2])
        nearer = (found < depth[here]) & (found > _NEAR_M)
        np.copyto(depth[here], found, where=nearer)
        np.copyto(part[here], np.int16(index), where=nearer)
        for kept, given in zip(normal, facing):
            np.copyto(kept[here], given, where=nearer)
    return _finished(view, solids, turn, outs, (int(left), int(top), fine), depth, part, normal)


def _scale(view: View, points: np.ndarray, far: np.ndarray) -> np.ndarray:
    """Pixels a metre at each point (..., 3)."""
    straight = View(view.height_m, view.pitch, view.roll, 1.0, 0.0, 0, 0)
    plain, _ = straight.project(points)
    return view.focal_px * (1 + view.barrel * np.sum(plain ** 2, -1)) / far


def _finished(
    view: View, solids: Solids, turn: np.ndarray, outs: np.ndarray, where: Tuple[int, int, int], depth: np.ndarray,
    part: np.ndarray, normal: List[np.ndarray],
) -> Surface:
    """Normals of unit length, and the hits in the patterns' axes."""
    left, top, fine = where
    row, column = np.nonzero(part >= 0)
    which, deep = part[row, column], depth[row, column]
    raw = np.stack([one[row, column] for one in normal], -1)
    facing = np.einsum("kij,kj->ki", outs.astype(np.float32)[which], raw)
    facing /= np.maximum(np.linalg.norm(facing, axis=-1, keepdims=True), 1e-6)
    facing = _rounded(facing, row, column, part, fine)
    # The hit, by the ray through its pixel: near enough for a pattern.
    middle = 0.5 * (solids.start + solids.end).mean(0)
    at, _ = view.project(middle)
    away = float((middle - eye(view)) @ turn[2])
    each = view.focal_px / away
    seen = np.stack([((column + 0.5) / fine - 0.5 + left - at[0]) / each,
                     ((row + 0.5) / fine - 0.5 + top - at[1]) / each, deep - away], -1).astype(np.float32)
    frames = (solids.frame @ turn.T).astype(np.float32)
    offset = np.einsum("mij,mj->mi", solids.frame, middle - solids.origin).astype(np.float32)
    place = np.einsum("kij,kj->ki", frames[which], seen) + offset[which]
    return Surface(left, top, fine, depth, part, facing, place, turn)


def _rounded(facing: np.ndarray, row: np.ndarray, column: np.ndarray, part: np.ndarray, fine: int) -> np.ndarray:
    """Normals (k, 3) averaged with those around, so that skin and cloth go on where one rod ends in another."""
    spread = np.zeros(part.shape + (3,), np.float32)
    spread[row, column] = facing
    mean = picture.averaged(spread, max(fine // 2, part.shape[0] // 90))[row, column]
    mean += 0.35 * facing
    return mean / np.maximum(np.linalg.norm(mean, axis=-1, keepdims=True), 1e-6)
