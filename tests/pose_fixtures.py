"""People of known keypoints, their maps as a perfect network would draw them, and the way to the real films."""

from pathlib import Path

import numpy as np
import pytest

from edged.camera.pose import LIMBS

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"

# A standing person one unit tall, seen from the front, the hips' middle at 0, 0; OpenPose's order.
STANDING = np.array([
    (0, -.48), (0, -.36), (-.1, -.35), (-.14, -.18), (-.15, -.02), (.1, -.35), (.14, -.18), (.15, -.02), (-.06, 0),
    (-.07, .24), (-.07, .48), (.06, 0), (.07, .24), (.07, .48), (-.03, -.51), (.03, -.51), (-.06, -.49), (.06, -.49)])
SPREAD_CELLS = 0.9  # of a keypoint's blob: 7 pixels at stride 8, as OpenPose was trained


def needs(name):
    """A file of the shared data; the test is skipped where that folder is not beside the repository."""
    path = DATA / name
    if not path.exists():
        pytest.skip("needs {}: the data folder is not beside the repository".format(path))
    return path


def person(x, y, tall, confidence=0.9, missing=()):
    """(18, 3) of a standing person, the hips' middle at x, y."""
    made = np.c_[STANDING * tall + (x, y), np.full(18, confidence)]
    made[list(missing)] = 0
    return made


def maps(people, height=32, width=57, strength=1.0):
    """heat (19, h, w) and paf (38, h, w) of people in cells; overlapping blobs by maximum, fields by mean."""
    rows, columns = np.mgrid[:height, :width]
    heat = np.zeros((19, height, width), np.float32)
    paf = np.zeros((38, height, width), np.float32)
    count = np.zeros((19, height, width))
    for one in people:
        for joint, (x, y, confidence) in enumerate(one):
            if confidence:
                square = (columns - x) ** 2 + (rows - y) ** 2
                heat[joint] = np.maximum(heat[joint], confidence * np.exp(-square / (2 * SPREAD_CELLS ** 2)))
        for limb, (a, b) in enumerate(LIMBS):
            if not (one[a, 2] and one[b, 2]):
                continue
            along = one[b, :2] - one[a, :2]
            length = np.hypot(*along)
            along = along / length
            dx, dy = columns - one[a, 0], rows - one[a, 1]
            ahead, aside = dx * along[0] + dy * along[1], dx * along[1] - dy * along[0]
            on = (ahead >= -1) & (ahead <= length + 1) & (np.abs(aside) <= 1.0)
            count[limb] += on
            for axis in (0, 1):
                paf[2 * limb + axis] += strength * along[axis] * on
    paf /= np.maximum(np.repeat(count, 2, axis=0), 1).astype(np.float32)
    heat[18] = 1 - heat[:18].max(axis=0)
    return heat, paf
