"""Maps as the pose network should answer them, from where the joints are (Cao et al., arXiv:1611.08050, 2.2 and 2.3).

A heat map holds a Gaussian for each visible joint, the last one what is left of the background. A part affinity field
holds the limb's direction in the cells near the line between its joints; where people overlap, the mean.
"""

from typing import Sequence

import numpy as np

from edged.camera.pose import JOINTS, LIMBS

CELL = 8
SIGMA_CELLS = 1.0      # of the Gaussians: the large network answers with 0.9 to 1.1
LIMB_CELLS = 1.0       # half of a limb's width
_NEAR = 4.6            # e^-4.6 = 0.01: beyond, a Gaussian is left out


def maps(points: Sequence[np.ndarray], visible: Sequence[np.ndarray], height: int, width: int) -> np.ndarray:
    """points (n, 18, 2) pixels, visible (n, 18), of a picture ``height`` x ``width`` -> (57, H / 8, W / 8) float32."""
    rows, columns = height // CELL, width // CELL
    heat = np.zeros((JOINTS + 1, rows, columns), np.float32)
    field = np.zeros((len(LIMBS), 2, rows, columns), np.float32)
    count = np.zeros((len(LIMBS), rows, columns), np.float32)
    y, x = np.mgrid[:rows, :columns].astype(np.float32)
    for person, seen in zip(points, visible):
        at = (np.asarray(person, np.float32) + 0.5) / CELL - 0.5
        for joint in np.flatnonzero(seen):
            far = ((x - at[joint, 0]) ** 2 + (y - at[joint, 1]) ** 2) / (2 * SIGMA_CELLS ** 2)
            np.maximum(heat[joint], np.where(far < _NEAR, np.exp(-far), 0), out=heat[joint])
        for limb, (start, end) in enumerate(LIMBS):
            if not (seen[start] and seen[end]):
                continue
            along = at[end] - at[start]
            length = float(np.hypot(*along))
            if length < 1e-3:
                continue
            ahead = along / length
            step = (x - at[start, 0]) * ahead[0] + (y - at[start, 1]) * ahead[1]
            aside = np.abs((x - at[start, 0]) * ahead[1] - (y - at[start, 1]) * ahead[0])
            inside = (step >= -0.5) & (step <= length + 0.5) & (aside <= LIMB_CELLS)
            field[limb] += ahead[:, None, None] * inside
            count[limb] += inside
    field /= np.maximum(count, 1)[:, None]
    heat[JOINTS] = 1 - heat[:JOINTS].max(axis=0)
    return np.concatenate([heat, field.reshape(2 * len(LIMBS), rows, columns)])
