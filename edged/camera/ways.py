"""Where people go: smooth ways over the ground that a camera sees."""

from typing import Callable, Tuple

import numpy as np

from edged.camera.viewpoint import View, places

Path = Callable[[np.ndarray], Tuple[np.ndarray, np.ndarray]]  # way (T,) metres -> place (T, 2), heading (T,)


def averaged(x: np.ndarray, reach: int) -> np.ndarray:
    """Each row's mean with ``reach`` rows on either side: (N, C) -> (N, C)."""
    padded = np.pad(x, ((reach + 1, reach), (0, 0)), mode="edge")
    total = np.cumsum(padded, axis=0)
    return (total[2 * reach + 1 :] - total[: -2 * reach - 1]) / (2 * reach + 1)


def spots(rng: np.random.Generator, view: View, count: int, margin: float, cut: bool = False) -> np.ndarray:
    """``count`` places (count, 2) where a person fits into the picture, or hardly does (``cut``)."""
    found = places(rng, view, count, margin, cut)
    while len(found) < count:
        found = np.concatenate([found, places(rng, view, 4 * count, margin, cut)])
    return found[:count]


def _along(dense: np.ndarray) -> Path:
    """The way through points (N, 2) that lie 5 cm apart; before its first metre and after its last it goes on."""
    along = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(dense, axis=0).T))])
    step = np.gradient(dense, axis=0)
    heading = averaged(np.unwrap(np.arctan2(step[:, 1], step[:, 0]))[:, None], 12)[:, 0]
    first, last = (np.array([np.cos(angle), np.sin(angle)]) for angle in (heading[0], heading[-1]))

    def path(way: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
        place = np.stack([np.interp(way, along, dense[:, axis]) for axis in (0, 1)], -1)
        place = place + np.minimum(way, 0)[:, None] * first + np.maximum(way - along[-1], 0)[:, None] * last
        return place, np.interp(way, along, heading)

    return path


def stroll(rng: np.random.Generator, view: View, length_m: float, margin: float, cut: bool = False) -> Path:
    """A way about the part of the ground that the camera sees, ``length_m`` long or longer."""
    seen = spots(rng, view, 24, margin, cut)
    corners, long, ahead = [seen[0]], 0.0, rng.normal(0, 1, 2)
    while long < length_m + 3:
        step = seen[rng.integers(len(seen), size=6)] - corners[-1]
        far = np.hypot(step[:, 0], step[:, 1])
        # Of six spots the one that is not too near and asks for the least of a turn.
        fitness = step @ ahead / np.maximum(far, 1e-9) / np.hypot(*ahead) - 3 * (far < 1.0)
        best = int(np.argmax(fitness))
        ahead, long = step[best] + 1e-6, long + max(far[best], 0.1)
        corners.append(corners[-1] + ahead)
    corners = np.array(corners)
    marks = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(corners, axis=0).T))])
    fine = np.arange(0, marks[-1], 0.05)
    dense = np.stack([np.interp(fine, marks, corners[:, axis]) for axis in (0, 1)], -1)
    return _along(averaged(averaged(dense, 18), 18))  # corners are cut, within a stride


def sweep(
    rng: np.random.Generator, view: View, length_m: float, least_m: float, radius_m: float
) -> Tuple[Path, float, float]:
    """A fast person's way: nearly straight or a wide bend, and from where to where of it the camera sees it.

    Of some that are tried, the one that is seen for the longest, or the first to be seen for ``length_m`` metres;
    radius_m: of the sharpest bend.
    """
    best = None
    for _ in range(8):
        spot, heading = spots(rng, view, 1, 0.05)[0], rng.uniform(-np.pi, np.pi)
        if rng.random() < 0.35:  # straight at the camera, or away from it
            heading = np.arctan2(-spot[1], -spot[0]) + rng.normal(0, 0.25) + np.pi * rng.integers(2)
        reach = np.arange(-length_m, length_m, 0.25)
        bend = rng.normal(0, 0.35) / radius_m if rng.random() < 0.6 else rng.choice((-1.0, 1.0)) / radius_m
        turned = heading + bend * reach
        steps = 0.25 * np.stack([np.cos(turned), np.sin(turned)], -1)
        points = np.cumsum(steps, axis=0)
        middle = len(reach) // 2
        points += spot - points[middle]
        seen = sees(view, points)
        before, after = np.flatnonzero(~seen[:middle]), np.flatnonzero(~seen[middle:])
        first = before[-1] + 1 if len(before) else 0
        last = middle + (after[0] if len(after) else len(reach) - middle)
        if best is None or last - first > best[2] - best[1]:
            best = points, first, last
        if 0.25 * (last - first) >= least_m:
            break
    points, first, last = best
    fine = np.arange(0, len(points) - 1, 0.2)
    dense = np.stack([np.interp(fine, np.arange(len(points)), points[:, axis]) for axis in (0, 1)], -1)
    return _along(dense), 0.25 * first, 0.25 * last


def sees(view: View, points: np.ndarray) -> np.ndarray:
    """Whether somebody who stands at (N, 2) is in the picture, by the middle of the body: (N,) bool."""
    pixels, depth = view.project(np.concatenate([points, np.full((len(points), 1), 1.0)], 1))
    inside = ((pixels > 0) & (pixels < [view.width, view.height])).all(-1)
    return inside & (depth > 1.2) & (1.75 * view.focal_px / np.maximum(depth, 1.0) > 0.1 * view.height)


def fixed(place: np.ndarray, heading: float) -> Path:
    """Standing at ``place`` (2,), looking along ``heading``; steps go straight ahead."""
    ahead = np.array([np.cos(heading), np.sin(heading)])

    def path(way: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
        return place + way[:, None] * ahead, np.full(len(way), heading)

    return path
