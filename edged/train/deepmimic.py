"""DeepMimic's motion files: JSON, for each frame its duration, the pelvis and the turns of eight limbs.

A row: duration, root (3), root turn (4), chest, neck, right hip (4 each), right knee (1), right ankle, right shoulder
(4 each), right elbow (1), and the left side likewise: 44 numbers. y up, x ahead, z to the right; metres; quaternions
with w first. Lengths are those of the humanoid that the files were made for, about 1.6 m tall.
Source: X. B. Peng et al., "DeepMimic", ACM Transactions on Graphics 37(4), 2018, and the comments of its release.
"""

import json
from pathlib import Path

import numpy as np

from edged.errors import PackageError
from edged.train.mocap import Motion, about, chained, checked, of_quaternion, text, z_up

_COLUMNS = 44
# name, parent, offset from it in metres, numbers of its turn (0: an end)
_JOINTS = (
    ("hips", -1, (0.0, 0.0, 0.0), 4), ("chest", 0, (0.0, 0.236, 0.0), 4), ("neck", 1, (0.0, 0.224, 0.0), 4),
    ("r_hip", 0, (0.0, 0.0, 0.085), 4), ("r_knee", 3, (0.0, -0.422, 0.0), 1), ("r_ankle", 4, (0.0, -0.41, 0.0), 4),
    ("r_shoulder", 1, (-0.024, 0.244, 0.183), 4), ("r_elbow", 6, (0.0, -0.275, 0.0), 1),
    ("l_hip", 0, (0.0, 0.0, -0.085), 4), ("l_knee", 8, (0.0, -0.422, 0.0), 1), ("l_ankle", 9, (0.0, -0.41, 0.0), 4),
    ("l_shoulder", 1, (-0.024, 0.244, -0.183), 4), ("l_elbow", 11, (0.0, -0.275, 0.0), 1),
    ("head", 2, (0.0, 0.18, 0.0), 0), ("r_wrist", 7, (0.0, -0.259, 0.0), 0), ("l_wrist", 12, (0.0, -0.259, 0.0), 0),
)  # fmt: skip


def _rows(path: Path) -> np.ndarray:
    try:
        given = json.loads(text(path))
        rows = given["Frames"]
        found = np.array(rows, float)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise PackageError("{}: no DeepMimic motion: {}".format(path, error)) from None
    if found.ndim != 2 or found.shape[1] != _COLUMNS or len(found) < 2 or not np.isfinite(found).all():
        raise PackageError("{}: {} numbers where frames of {} belong".format(path, found.shape, _COLUMNS))
    return found


def read(path: Path) -> Motion:
    """A humanoid3d motion, at the rate of its shortest frame."""
    rows = _rows(path)
    # The last frame's duration is 0 where the motion does not repeat.
    durations = rows[:-1, 0]
    if (durations <= 0).any():
        raise PackageError("{}: a frame of {} s".format(path, durations.min()))
    times = np.concatenate([[0], np.cumsum(durations)])
    fps = 1.0 / durations.min()
    turns = np.repeat(np.eye(3)[None], len(_JOINTS), 0)[None].repeat(len(rows), 0)
    column = 4
    for place, (_, _, _, size) in enumerate(_JOINTS):
        turn = rows[:, column : column + size]
        if size == 4:
            # Hand-edited frames are not normalised in the release: kick has 0.58.
            if (np.abs(np.linalg.norm(turn, axis=1) - 1) > 0.5).any():
                raise PackageError("{}: a turn in columns {} on that is none".format(path, column))
            turns[:, place] = of_quaternion(turn)
        elif size == 1:
            turns[:, place] = about(2, turn[:, 0])
        column += size
    offsets = np.array([offset for _, _, offset, _ in _JOINTS])
    places, _ = chained([parent for _, parent, _, _ in _JOINTS], offsets, turns, rows[:, 1:4])
    return checked(path, z_up(_evenly(times, places, fps)), [name for name, _, _, _ in _JOINTS], fps)


def _evenly(times: np.ndarray, places: np.ndarray, fps: float) -> np.ndarray:
    """(T, J, 3) at ``times`` (T,) -> at the same distance all."""
    at = np.arange(int(times[-1] * fps + 1e-6) + 1) / fps
    flat = places.reshape(len(places), -1)
    return np.stack([np.interp(at, times, one) for one in flat.T], -1).reshape((len(at),) + places.shape[1:])
