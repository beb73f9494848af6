"""What a pose estimator makes of a camera's picture of people.

Its faults are those of OpenPose seen from such a height: positions jitter with a person's size, joints behind the body
or out of the picture go missing, far people lose more, left and right change places, people who lie are found badly,
and now and then a whole person is overlooked for some frames.
"""

from typing import List, Tuple

import numpy as np

from edged.camera.acts import slow_noise
from edged.camera.puppet import (
    JOINTS, L_ANKLE, L_EAR, L_ELBOW, L_EYE, L_HIP, L_KNEE, L_SHOULDER, L_WRIST, NECK, NOSE, R_ANKLE, R_EAR, R_ELBOW,
    R_EYE, R_HIP, R_KNEE, R_SHOULDER, R_WRIST,
)  # fmt: skip
from edged.camera.viewpoint import NEAR_M, View

SEEN_LEAST = 0.1  # a joint of less confidence is missing, as in OpenPose
_FACE = (NOSE, R_EYE, L_EYE, R_EAR, L_EAR)
_ENDS = (R_ELBOW, R_WRIST, L_ELBOW, L_WRIST, R_KNEE, R_ANKLE, L_KNEE, L_ANKLE)
_EARS = (R_EAR, L_EAR)
_LEGS = ((R_HIP, R_KNEE, R_ANKLE), (L_HIP, L_KNEE, L_ANKLE))
_SIDES = ((R_SHOULDER, R_ELBOW, R_WRIST) + _LEGS[0], (L_SHOULDER, L_ELBOW, L_WRIST) + _LEGS[1])
_LIMBS = ((R_ELBOW, R_WRIST), (L_ELBOW, L_WRIST), (R_KNEE, R_ANKLE), (L_KNEE, L_ANKLE))


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


def _upset(joints: np.ndarray, points: np.ndarray) -> np.ndarray:
    """How far a person is off the upright, in the picture above all: (T, 18, 3), (T, 18, 2) -> (T,) 0..1."""
    down = 0.5 * (points[:, R_HIP] + points[:, L_HIP]) - points[:, NECK]
    shown = down[:, 1] / np.maximum(np.hypot(down[:, 0], down[:, 1]), 1e-6)
    trunk = joints[:, NECK] - 0.5 * (joints[:, R_HIP] + joints[:, L_HIP])
    stands = trunk[:, 2] / np.linalg.norm(trunk, axis=-1)
    return np.clip(np.maximum((0.75 - shown) / 0.5, 0.7 * (0.6 - stands) / 0.4), 0, 1)


def _behind_things(rng: np.random.Generator, points: np.ndarray) -> np.ndarray:
    """Which joints a table, a wall or a car hides, (T, 18) bool: what is lower than its edge, as long as it is wide."""
    at = points[int(rng.integers(len(points)))]
    tall = np.ptp(at[:, 1])
    edge = at[int(rng.choice((R_HIP, L_HIP, R_KNEE, L_KNEE, R_ANKLE))), 1] - 0.03 * tall
    left, right = at[:, 0].mean() + rng.uniform(0.2, 2.5, 2) * tall * np.array([-1, 1])
    return (points[..., 1] > edge) & (points[..., 0] > left) & (points[..., 0] < right)


def _swapped(found: np.ndarray, when: np.ndarray, right: Tuple[int, ...], left: Tuple[int, ...]) -> None:
    if when.any():
        found[np.ix_(when, right + left)] = found[np.ix_(when, left + right)]


def _estimate(
    rng: np.random.Generator, view: View, points: np.ndarray, size: np.ndarray, hidden: np.ndarray, upset: np.ndarray,
    fps: float,
) -> np.ndarray:
    """One person's joints with the estimator's faults: (T, 18, 2) pixels -> (T, 18, 3), missing ones zero.

    Estimators learnt from people who stand: who is ``upset`` (T,), off the upright, loses joints, the legs' most.
    """
    count, step_s = len(points), 1 / fps
    slow = slow_noise(rng, count, 3 * JOINTS + 6, step_s, 0.4)
    sure = np.full((count, JOINTS), rng.normal(1.6, 0.5))
    sure[:, _ENDS] -= 0.4
    sure[:, _FACE] -= 0.2
    sure[:, _EARS] -= 0.7
    sure -= np.clip(1.2 * (0.25 - size / view.height) / 0.12, 0, 1.6)[:, None]
    sure -= np.where(hidden, rng.uniform(2.0, 5.0), 0)
    worse = rng.uniform(0, 1.8)
    sure -= worse * upset[:, None]
    sure[:, _LEGS[0] + _LEGS[1]] -= rng.uniform(0, 1.2) * upset[:, None]
    sure += 0.6 * slow[:, :JOINTS] + rng.normal(0, 0.35, (count, JOINTS))
    sure -= 3.5 * np.maximum(-slow[:, :JOINTS] - 1.7, 0)  # blinks
    for number, limb in enumerate(_LIMBS):  # whole limbs are lost, too
        sure[:, limb] -= 4.0 * np.maximum(slow[:, JOINTS + number] - 1.6, 0)[:, None]
    confidence = 1 / (1 + np.exp(-sure))

    level = rng.uniform(0.004, 0.013) * (1 + 1.5 * hidden)[..., None] * (size * (1 + upset))[:, None, None]
    wander = slow[:, JOINTS + 6 :].reshape(count, JOINTS, 2)
    found = points + level * (0.7 * wander + 0.7 * rng.normal(0, 1, (count, JOINTS, 2)))
    _swapped(found, slow[:, JOINTS + 4] + 0.4 * upset > 2.3, *_LEGS)
    _swapped(found, slow[:, JOINTS + 5] + 0.4 * upset > 2.6, *_SIDES)

    inside = ((found >= 0) & (found < [view.width, view.height])).all(-1)
    seen = inside & (confidence > SEEN_LEAST)
    return np.where(seen[..., None], np.concatenate([found, np.minimum(confidence, 0.98)[..., None]], -1), 0)


def _overlooked(rng: np.random.Generator, fps: float, upset: np.ndarray) -> np.ndarray:
    """Frames in which a person is not found at all, (T,) bool.

    Rare for who stands. People who lie are found nearly always, half of the time or hardly ever, by estimator and
    scene: of eleven videos of falls that a public model saw, three, three and five. The last are fewer here: of whom
    hardly anything is seen, no clip is made.
    """
    count = len(upset)
    gone = np.zeros(count, bool)
    for start in np.flatnonzero(rng.random(count) < 0.15 / fps):
        gone[start : start + 1 + int(rng.exponential(0.15) * fps)] = True
    lost = rng.choice((rng.uniform(0, 0.2), rng.uniform(0.2, 0.8), rng.uniform(0.8, 0.98)), p=(0.45, 0.3, 0.25))
    if upset.any():
        share = np.clip(lost * upset, 1e-3, 0.98)
        mood = 0.8 * slow_noise(rng, count, 1, 1 / fps, 0.35)[:, 0] + 0.5 * rng.normal(0, 1, count)
        gone |= mood > np.log((1 - share) / share) / 1.8  # near enough to the normal's quantile
    return gone


def observe(rng: np.random.Generator, view: View, cast: List[np.ndarray], fps: float) -> np.ndarray:
    """What the estimator finds of each of the cast, (people, T, 18, 3) pixels and confidence.

    cast: joints of each person, (T, 18, 3) metres. A person who is not found has 18 missing joints.
    """
    points, depth = zip(*(view.project(joints) for joints in cast))
    size = [1.75 * view.focal_px / np.maximum(far[:, NECK], NEAR_M) for far in depth]
    others = _behind_others(list(points), list(depth), size)
    found = np.zeros((len(cast), len(cast[0]), JOINTS, 3))
    for index, joints in enumerate(cast):
        hidden = _behind_trunk(points[index], depth[index], size[index]) | _turned_away(joints, view) | others[index]
        pixels = np.where(depth[index][..., None] > NEAR_M, points[index], -1e6)
        upset = _upset(joints, points[index])
        if rng.random() < 0.15:
            hidden |= _behind_things(rng, pixels)
        one = _estimate(rng, view, pixels, size[index], hidden, upset, fps)
        one[_overlooked(rng, fps, upset)] = 0
        one[(one[..., 2] > 0).sum(1) < 4] = 0
        found[index] = one
    return found
