"""CMU trials as rows of exponential maps, 120 a second: 39 x 3 numbers, the root's place and 38 turns.

The files hold no skeleton. Its 38 joints are those of CMU's .bvh conversions, which share the rest pose of its .asf
files: arms aside, legs 20 degrees apart, y up. Lengths here are an adult's, in the unit of the files (inches / 0.45);
whoever wants another body's takes the bones' directions (retarget.py).
"""

from pathlib import Path

import numpy as np

from edged.errors import PackageError
from edged.train.mocap import Motion, chained, checked, floats, text, z_up

FPS = 120.0
_COLUMNS = 117
_UNIT_M = 0.0254 / 0.45
_LEG = (("hip", (1.63, -1.8, 0.62)), ("knee", (2.6, -7.13, 0.0)), ("ankle", (2.48, -6.81, 0.0)),
        ("toe", (0.21, -0.58, 2.14)), ("toe_end", (0.0, 0.0, 1.11)))  # fmt: skip
_ARM = (("clavicle", (0.0, 2.06, 0.06)), ("shoulder", (3.52, 0.83, -0.25)), ("elbow", (4.95, 0.0, 0.0)),
        ("wrist", (3.7, 0.0, 0.0)), ("hand", (0.0, 0.0, 0.0)), ("fingers", (0.66, 0.0, 0.0)),
        ("finger_end", (0.53, 0.0, 0.0)), ("thumb", (0.0, 0.0, 0.0)), ("thumb_end", (0.54, 0.0, 0.54)))  # fmt: skip
_SPINE = (("lowerback", (0.0, 0.0, 0.0)), ("upperback", (0.0, 2.05, -0.1)), ("thorax", (0.0, 2.06, -0.03)),
          ("lowerneck", (0.0, 2.06, 0.06)), ("upperneck", (0.0, 1.57, 0.15)), ("head", (0.0, 1.56, -0.1)),
          ("head_end", (0.0, 1.63, -0.05)))  # fmt: skip


def _skeleton():
    """Names, parents and offsets (38, 3): hips, left leg, right leg, spine, left arm, right arm."""
    names, parents, offsets = ["hips"], [-1], [(0.0, 0.0, 0.0)]

    def chain(prefix, side, links, start):
        parent = start
        for name, (x, y, z) in links:
            if name == "thumb":  # the hand's second branch
                parent = names.index(prefix + "wrist")
            names.append(prefix + name)
            parents.append(parent)
            offsets.append((side * x, y, z))
            parent = len(names) - 1

    for prefix, side in (("l_", 1.0), ("r_", -1.0)):
        chain(prefix, side, (("pelvis", (0.0, 0.0, 0.0)),) + _LEG, 0)
    chain("", 1.0, _SPINE, 0)
    for prefix, side in (("l_", 1.0), ("r_", -1.0)):
        chain(prefix, side, _ARM, names.index("thorax"))
    return tuple(names), tuple(parents), np.array(offsets)


def _turns(maps: np.ndarray) -> np.ndarray:
    """Exponential maps (..., 3) -> matrices (..., 3, 3), by Rodrigues."""
    angle = np.linalg.norm(maps, axis=-1)[..., None, None]
    x, y, z = np.moveaxis(maps, -1, 0)
    zero = np.zeros_like(x)
    cross = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape(maps.shape[:-1] + (3, 3))
    small = np.maximum(angle, 1e-9)
    return np.eye(3) + np.sin(small) / small * cross + (1 - np.cos(small)) / small ** 2 * (cross @ cross)


def read(path: Path) -> Motion:
    """One trial: rows of 117 numbers with commas between them."""
    rows = [line.split(",") for line in text(path).splitlines() if line.strip()]
    for number, row in enumerate(rows, 1):
        if len(row) != _COLUMNS:
            raise PackageError("{}: {} numbers in row {}, not {}".format(path, len(row), number, _COLUMNS))
    values = floats(path, [word for row in rows for word in row]).reshape(len(rows), _COLUMNS // 3, 3)
    names, parents, offsets = _skeleton()
    # The files' turns act on rows of coordinates: transposed against ours.
    turns = _turns(values[:, 1:]).swapaxes(-1, -2)
    places, _ = chained(parents, offsets * _UNIT_M, turns, values[:, 0] * _UNIT_M)
    return checked(path, z_up(places), names, FPS)
