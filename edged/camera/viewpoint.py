"""A camera on a mast, and what a pose estimator makes of its picture.

The camera stands at (0, 0, height), looks along +y and down; pixels as in images, y downwards. The estimator's
faults are those of OpenPose seen from such a height: positions jitter with a person's size, joints behind the body
or out of the picture go missing, far people lose more, left and right legs change places, and now and then a whole
person is overlooked for some frames.
"""

from dataclasses import dataclass
from typing import List, Tuple

import numpy as np

from edged.camera.acts import slow_noise
from edged.camera.puppet import (
    JOINTS, L_ANKLE, L_EAR, L_ELBOW, L_EYE, L_HIP, L_KNEE, L_SHOULDER, L_WRIST, NECK, NOSE, R_ANKLE, R_EAR, R_ELBOW,
    R_EYE, R_HIP, R_KNEE, R_SHOULDER, R_WRIST,
)  # fmt: skip

SEEN_LEAST = 0.1  # a joint of less confidence is missing, as in OpenPose
_NEAR_M = 0.4
_ROOM = 12  # of 256 spots on the ground, at least
_FACE = (NOSE, R_EYE, L_EYE, R_EAR, L_EAR)
_ENDS = (R_ELBOW, R_WRIST, L_ELBOW, L_WRIST, R_KNEE, R_ANKLE, L_KNEE, L_ANKLE)
_LEGS = ((R_HIP, R_KNEE, R_ANKLE), (L_HIP, L_KNEE, L_ANKLE))


@dataclass(frozen=True)
class View:
    """Where the camera is and how it looks: metres, radians, pixels; barrel is the lens's distortion k1."""

    height_m: float
    pitch: float
    roll: float
    focal_px: float
    barrel: float
    width: int
    height: int

    def project(self, points: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
        """World (..., 3) -> pixels (..., 2) and depth in metres (...,)."""
        c, s = np.cos(self.pitch), np.sin(self.pitch)
        up = points[..., 2] - self.height_m
        depth = points[..., 1] * c - up * s
        x, y = points[..., 0], -points[..., 1] * s - up * c
        near = np.maximum(depth, _NEAR_M)
        x, y = x / near, y / near
        x, y = np.cos(self.roll) * x - np.sin(self.roll) * y, np.sin(self.roll) * x + np.cos(self.roll) * y
        bent = self.focal_px * (1 + self.barrel * (x * x + y * y))
        return np.stack([self.width / 2 + bent * x, self.height / 2 + bent * y], -1), depth

    def ground(self, pixels: np.ndarray) -> np.ndarray:
        """Where a line of sight meets the ground (lens and roll neglected): (N, 2) -> (N, 2); NaN above the horizon."""
        x = (pixels[:, 0] - self.width / 2) / self.focal_px
        y = (pixels[:, 1] - self.height / 2) / self.focal_px
        c, s = np.cos(self.pitch), np.sin(self.pitch)
        down = y * c + s
        far = np.where(down > 0.02, self.height_m / np.maximum(down, 0.02), np.nan)
        return np.stack([far * x, far * (c - y * s)], -1)


def random_view(rng: np.random.Generator, width: int, height: int) -> View:
    """2.5 to 6 m high, aimed at the ground 3.5 to 12 m ahead, a lens of 38 to 88 degrees; people have room in it."""
    while True:
        mast = rng.uniform(2.5, 6.0)
        aim = rng.uniform(3.5, 12.0)
        focal = width / 2 / np.tan(np.radians(rng.uniform(38, 88)) / 2)
        pitch = float(np.clip(np.arctan((mast - 1.0) / aim), 0.12, 0.85))
        view = View(mast, pitch, float(rng.normal(0, 0.02)), focal, float(rng.uniform(-0.12, 0.0)), width, height)
        if len(places(rng, view, 64)) >= _ROOM:
            return view


def places(rng: np.random.Generator, view: View, count: int, margin: float = 0.08) -> np.ndarray:
    """Spots on the ground where a standing person is in the picture and 0.13 to 0.85 of its height tall: (n, 2).

    n <= count; a negative ``margin`` (of the picture's width) reaches outside.
    """
    pixels = rng.uniform([margin, 0.15], [1 - margin, 1.0], (4 * count, 2)) * [view.width, view.height]
    spots = view.ground(pixels)
    spots = spots[np.isfinite(spots).all(1)]
    feet, depth = view.project(np.concatenate([spots, np.zeros((len(spots), 1))], 1))
    head, _ = view.project(np.concatenate([spots, np.full((len(spots), 1), 1.75)], 1))
    tall = (feet[:, 1] - head[:, 1]) / view.height
    fits = (depth > 1.5) & (tall > 0.13) & (tall < 0.85) & (head[:, 1] > 0) & (feet[:, 1] < 0.99 * view.height)
    return spots[fits][:count]


def _behind_trunk(points: np.ndarray, depth: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Which joints the person's own trunk hides: pixels (T, 18, 2), metres (T, 18), height in pixels (T,) -> bool."""
    top, bottom = points[:, None, NECK], 0.5 * (points[:, None, R_HIP] + points[:, None, L_HIP])
    axis = bottom - top
    along = np.clip(np.sum((points - top) * axis, -1) / np.maximum(np.sum(axis ** 2, -1), 1e-6), 0, 1)
    gap = np.linalg.norm(points - top - along[..., None] * axis, axis=-1)
    wide = 0.35 * np.linalg.norm(points[:, R_SHOULDER] - points[:, L_SHOULDER], axis=-1) + 0.04 * size
    middle = 0.5 * depth[:, NECK] + 0.25 * (depth[:, R_HIP] + depth[:, L_HIP])
    hidden = (gap < wide[:, None]) & (depth > middle[:, None] + 0.06)
    hidden[:, [NECK, R_SHOULDER, L_SHOULDER, R_HIP, L_HIP]] = False
    return hidden


def _turned_away(joints: np.ndarray, view: View) -> np.ndarray:
    """Which parts of the face look away from the camera: (T, 18, 3) -> (T, 18) bool."""
    hidden = np.zeros(joints.shape[:2], bool)
    middle = 0.5 * (joints[:, R_EAR] + joints[:, L_EAR])
    sight = np.array([0, 0, view.height_m]) - middle
    sight /= np.maximum(np.linalg.norm(sight, axis=-1, keepdims=True), 1e-9)
    for joint in _FACE:
        out = joints[:, joint] - middle
        out = out / np.maximum(np.linalg.norm(out, axis=-1, keepdims=True), 1e-9)
        hidden[:, joint] = np.sum(out * sight, -1) < (-0.35 if joint in (R_EAR, L_EAR) else -0.1)
    return hidden


def _behind_others(points: List[np.ndarray], depth: List[np.ndarray], size: List[np.ndarray]) -> List[np.ndarray]:
    """Which joints another, nearer person hides."""
    hidden = [np.zeros(one.shape[:2], bool) for one in points]
    for index, one in enumerate(points):
        for other in range(len(points)):
            if other == index:
                continue
            top = points[other][:, None, NECK]
            feet = 0.5 * (points[other][:, None, R_ANKLE] + points[other][:, None, L_ANKLE])
            axis = feet - top
            along = np.clip(np.sum((one - top) * axis, -1) / np.maximum(np.sum(axis ** 2, -1), 1e-6), -0.15, 1)
            gap = np.linalg.norm(one - top - along[..., None] * axis, axis=-1)
            nearer = depth[other].min(1)[:, None] < depth[index].min(1)[:, None]
            hidden[index] |= (gap < 0.11 * size[other][:, None]) & nearer
    return hidden


def _estimate(
    rng: np.random.Generator, view: View, points: np.ndarray, size: np.ndarray, hidden: np.ndarray, upset: np.ndarray,
    fps: float,
) -> np.ndarray:
    """One person's joints with the estimator's faults: (T, 18, 2) pixels -> (T, 18, 3), missing ones zero.

    Estimators learnt from people who stand: who is ``upset`` (T,), off the upright, loses joints.
    """
    count, step_s = len(points), 1 / fps
    sure = np.full((count, JOINTS), rng.normal(1.5, 0.5))
    sure[:, _ENDS] -= 0.3
    sure[:, _FACE] -= 0.2
    sure -= np.clip(1.2 * (0.25 - size / view.height) / 0.12, 0, 1.6)[:, None]
    sure -= np.where(hidden, rng.uniform(2.0, 5.0), 0)
    sure -= rng.uniform(0, 1.6) * upset[:, None]
    sure += 0.6 * slow_noise(rng, count, JOINTS, step_s, 0.4) + rng.normal(0, 0.35, (count, JOINTS))
    sure -= 3.5 * np.maximum(slow_noise(rng, count, JOINTS, step_s, 0.5) - 1.7, 0)  # blinks
    confidence = 1 / (1 + np.exp(-sure))

    level = rng.uniform(0.004, 0.013) * (1 + 1.5 * hidden)[..., None] * size[:, None, None]
    found = points + level * (0.7 * slow_noise(rng, count, 2 * JOINTS, step_s, 0.25).reshape(count, JOINTS, 2)
                              + 0.7 * rng.normal(0, 1, (count, JOINTS, 2)))
    swapped = slow_noise(rng, count, 1, step_s, 0.3)[:, 0] > 2.3
    right, left = _LEGS
    found[np.ix_(swapped, right + left)] = found[np.ix_(swapped, left + right)]

    inside = ((found >= 0) & (found < [view.width, view.height])).all(-1)
    seen = inside & (confidence > SEEN_LEAST)
    return np.where(seen[..., None], np.concatenate([found, np.minimum(confidence, 0.98)[..., None]], -1), 0)


def _overlooked(rng: np.random.Generator, fps: float, upset: np.ndarray) -> np.ndarray:
    """Frames in which a person is not found at all, (T,) bool; oftener and for longer where ``upset`` (T,)."""
    gone = np.zeros(len(upset), bool)
    oftener = rng.uniform(0, 1.5)
    for start in np.flatnonzero(rng.random(len(upset)) < (0.12 + oftener * upset) / fps):
        gone[start : start + 1 + int(rng.exponential(0.12 + 0.15 * upset[start]) * fps)] = True
    return gone


def observe(rng: np.random.Generator, view: View, cast: List[np.ndarray], fps: float) -> np.ndarray:
    """What the estimator finds of each of the cast, (people, T, 18, 3) pixels and confidence.

    cast: joints of each person, (T, 18, 3) metres. A person who is not found has 18 missing joints.
    """
    points, depth = zip(*(view.project(joints) for joints in cast))
    size = [1.75 * view.focal_px / np.maximum(far[:, NECK], _NEAR_M) for far in depth]
    others = _behind_others(list(points), list(depth), size)
    found = np.zeros((len(cast), len(cast[0]), JOINTS, 3))
    for index, joints in enumerate(cast):
        hidden = _behind_trunk(points[index], depth[index], size[index]) | _turned_away(joints, view) | others[index]
        pixels = np.where(depth[index][..., None] > _NEAR_M, points[index], -1e6)
        trunk = joints[:, NECK] - 0.5 * (joints[:, R_HIP] + joints[:, L_HIP])
        upset = trunk[:, 2] < 0.5 * np.linalg.norm(trunk, axis=-1)
        one = _estimate(rng, view, pixels, size[index], hidden, upset, fps)
        one[_overlooked(rng, fps, upset)] = 0
        one[(one[..., 2] > 0).sum(1) < 4] = 0
        found[index] = one
    return found
