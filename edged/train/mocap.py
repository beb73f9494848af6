"""Recorded motion as joint positions, whatever its format.

Every reader gives a ``Motion``: metres, z up, named joints. Readers refuse what they do not fully understand with
one line that names the file: a number lost on the way would be motion that nobody made.
"""

import os
from pathlib import Path
from typing import NamedTuple, Sequence, Tuple

import numpy as np

from edged.errors import MissingInput, PackageError

MOST_FRAMES = 200000   # of a file; an hour at 60 frames a second
MOST_BYTES = 256 << 20
_WORLD_M = 100.0       # nobody is farther from where the recording began


class Motion(NamedTuple):
    """positions (T, J, 3) float64, metres, z up; joints: J names; fps: frames a second."""

    positions: np.ndarray
    joints: Tuple[str, ...]
    fps: float


def read(path: Path) -> Motion:
    """A recording of any known format, by the file's name.

    .bvh in centimetres; .amc with its subject's .asf beside it; .npz of positions, metres, y up; DeepMimic's
    humanoid3d_*.txt; other .txt: CMU trials as exponential maps.
    Raises MissingInput, or PackageError for a file that is damaged or of no known format.
    """
    from edged.train import acclaim, bvh, deepmimic, expmap
    path = Path(path)
    if path.suffix == ".bvh":
        return bvh.read(path)
    if path.suffix == ".amc":
        return acclaim.read(path.with_name(path.stem.split("_")[0] + ".asf"), path)
    if path.suffix == ".npz":
        return read_positions(path)
    if path.suffix == ".txt":
        return deepmimic.read(path) if path.name.startswith("humanoid3d_") else expmap.read(path)
    raise PackageError("{}: motion is read from .bvh, .amc, .npz and .txt files".format(path))


def text(path: Path) -> str:
    """A whole text file. Raises MissingInput, or PackageError where it is too long or no text."""
    try:
        if os.path.getsize(str(path)) > MOST_BYTES:
            raise PackageError("{}: longer than any recording".format(path))
        return Path(path).read_text(encoding="ascii")
    except FileNotFoundError:
        raise MissingInput("{}: no such file".format(path)) from None
    except UnicodeDecodeError:
        raise PackageError("{}: no text file".format(path)) from None


def floats(path: Path, words: Sequence[str]) -> np.ndarray:
    """Words as finite numbers (N,)."""
    try:
        found = np.array(words, float)
    except ValueError as error:
        raise PackageError("{}: {}".format(path, error)) from None
    if not np.isfinite(found).all():
        raise PackageError("{}: a number that is not finite".format(path))
    return found


def checked(path: Path, positions: np.ndarray, joints: Sequence[str], fps: float) -> Motion:
    """A Motion that holds together, or PackageError."""
    joints = tuple(str(name) for name in joints)
    if positions.ndim != 3 or positions.shape[1:] != (len(joints), 3):
        raise PackageError("{}: positions {} of {} joints".format(path, positions.shape, len(joints)))
    if not 2 <= len(positions) <= MOST_FRAMES:
        raise PackageError("{}: {} frames".format(path, len(positions)))
    if len(set(joints)) != len(joints):
        raise PackageError("{}: two joints of one name".format(path))
    if not 5 <= fps <= 1000:
        raise PackageError("{}: {} frames a second".format(path, fps))
    if not (np.abs(positions - positions[:1, :1]) < _WORLD_M).all():  # not so for NaN, too
        raise PackageError("{}: a joint more than {:.0f} m away".format(path, _WORLD_M))
    return Motion(np.asarray(positions, float), joints, float(fps))


def read_positions(path: Path) -> Motion:
    """.npz of ``positions`` (T, J, 3), metres, y up, ``joints`` (J,) names and ``fps``."""
    try:
        with np.load(str(path), allow_pickle=False) as file:
            found, joints, fps = file["positions"], file["joints"], file["fps"]
    except FileNotFoundError:
        raise MissingInput("{}: no such file".format(path)) from None
    except Exception as error:  # numpy and zipfile raise a dozen kinds of error for a damaged file
        raise PackageError("{}: no recorded positions: {}".format(path, error)) from None
    if found.dtype.kind != "f" or found.ndim != 3 or found.shape[-1] != 3 or joints.dtype.kind != "U" or fps.shape:
        raise PackageError("{}: no recorded positions: {} {}".format(path, found.dtype, found.shape))
    return checked(path, z_up(found.astype(float)), joints.ravel(), float(fps))


def z_up(positions: np.ndarray) -> np.ndarray:
    """From y up: (..., 3)."""
    return np.stack([positions[..., 0], -positions[..., 2], positions[..., 1]], -1)


def about(axis: int, angle: np.ndarray) -> np.ndarray:
    """Turns about x, y or z (0, 1, 2) by radians (...,): matrices (..., 3, 3)."""
    c, s, zero = np.cos(angle), np.sin(angle), np.zeros_like(angle)
    one, two = (axis + 1) % 3, (axis + 2) % 3
    turn = np.zeros(np.shape(angle) + (3, 3))
    turn[..., axis, axis] = zero + 1
    turn[..., one, one], turn[..., one, two], turn[..., two, one], turn[..., two, two] = c, -s, s, c
    return turn


def of_quaternion(quaternion: np.ndarray) -> np.ndarray:
    """(..., 4), w first, of any length but 0: matrices (..., 3, 3)."""
    w, x, y, z = np.moveaxis(quaternion / np.linalg.norm(quaternion, axis=-1, keepdims=True), -1, 0)
    return np.stack([
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ], -1).reshape(w.shape + (3, 3))  # fmt: skip


def chained(
    parents: Sequence[int], offsets: np.ndarray, turns: np.ndarray, root: np.ndarray
) -> Tuple[np.ndarray, np.ndarray]:
    """Forward kinematics of a tree: positions (T, J, 3) and orientations (T, J, 3, 3).

    parents: J indices, each lower than its joint's own, -1 for the first; offsets (J, 3) or (T, J, 3) in the parent's
    frame; turns (T, J, 3, 3) relative to the parent; root (T, 3).
    """
    count = len(turns)
    offsets = np.broadcast_to(offsets, (count, len(parents), 3))
    places, frames = np.empty((count, len(parents), 3)), np.empty((count, len(parents), 3, 3))
    for joint, parent in enumerate(parents):
        if parent < 0:
            places[:, joint], frames[:, joint] = root + offsets[:, joint], turns[:, joint]
        else:
            places[:, joint] = places[:, parent] + np.einsum("tij,tj->ti", frames[:, parent], offsets[:, joint])
            frames[:, joint] = frames[:, parent] @ turns[:, joint]
    return places, frames
