"""Putting a person whose joints are known on ground that the camera sees."""

from typing import Tuple

import numpy as np

from edged.camera.motion import Performance
from edged.camera.puppet import L_HIP, R_HIP
from edged.camera.viewpoint import View
from edged.camera.ways import sees, spots

_HEADINGS = 8  # that are tried


def on_ground(rng: np.random.Generator, view: View, joints: np.ndarray, shows: Tuple[int, int]) -> Performance:
    """joints (T, 18, 3) anywhere, turned and moved over the ground so that the middle of what ``shows`` is in sight.

    Of some headings drawn at random the first along which nearly all of it is, or the best.
    """
    first, last = shows
    middle = joints[(first + last) // 2, (R_HIP, L_HIP), :2].mean(0)
    spot = spots(rng, view, 1, rng.uniform(-0.04, 0.12), bool(rng.random() < 0.15))[0]
    best = None
    for _ in range(_HEADINGS):
        angle = rng.uniform(-np.pi, np.pi)
        c, s = np.cos(angle), np.sin(angle)
        there = joints.copy()
        there[..., :2] = (joints[..., :2] - middle) @ np.array([[c, s], [-s, c]]) + spot
        hips = there[:, (R_HIP, L_HIP), :2].mean(1)
        share = float(sees(view, hips)[first : max(last, first + 1)].mean() + 0.5 * sees(view, hips).mean())
        if best is None or share > best[0]:
            best = share, there
        if share > 1.4:
            break
    return Performance([best[1]], (first, max(last, min(first + 2, len(joints)))))
