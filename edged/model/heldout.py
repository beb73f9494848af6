"""Held-out clips: made by the generator alone from a seed that no training uses, the same everywhere."""

import numpy as np

from edged.camera import motion
from edged.camera.clip import fixed_point

SEED = 990001  # training counts (seed, step): a first part of its own is enough


def label(index: int) -> int:
    """Of the clip of that number; all labels are alike often."""
    return index % len(motion.LABELS)


def clip(index: int) -> np.ndarray:
    """int16 (m, 300, 18, 3); depends on its number alone."""
    rng = np.random.default_rng((SEED, index))
    return fixed_point(motion.clip(rng, motion.LABELS[label(index)]))
