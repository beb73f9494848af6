"""Clips as a file: what a network is calibrated on, and what a report compares on.

An .npz with ``clips`` int16 (N, M, T, V, 3), Q1.14 fixed point, absent persons all zero, and, where they are known,
``labels`` (N,) integers. No pickle.
"""

from pathlib import Path
from typing import List, Optional, Tuple, Union

import numpy as np

from edged.errors import MissingInput, PackageError, ShapeError
from edged.model import npz, stgcn

SIZE_MAX = 8 << 30


def read(path: Union[str, Path], network: stgcn.Network) -> Tuple[List[np.ndarray], Optional[List[int]]]:
    """Clips (m, T, V, 3) of the people who are there, and labels. Raises MissingInput, PackageError, ShapeError."""
    try:
        file = open(str(path), "rb")
    except OSError as error:
        raise MissingInput("{}: {}".format(path, error.strerror)) from error
    with file:
        arrays = npz.read(file, "{}: not a file of clips".format(path), SIZE_MAX)
    clips, labels = arrays.get("clips"), arrays.get("labels")
    if clips is None or set(arrays) - {"clips", "labels"}:
        others = sorted(set(arrays) - {"clips", "labels"})
        raise PackageError("{}: not a file of clips: {}".format(
            path, "clips is missing" if clips is None else "unknown {}".format(others[0])))
    wanted = (network.persons, network.frames, network.joints, stgcn.CHANNELS_IN)
    if clips.dtype != np.int16 or clips.ndim != 5 or clips.shape[1:] != wanted or not len(clips):
        raise ShapeError("{}: clips are {} {}, must be int16 (N, {}, {}, {}, {})".format(
            path, clips.dtype, clips.shape, *wanted))
    if labels is not None:
        if labels.shape != clips.shape[:1] or labels.dtype.kind not in "iu" or labels.min() < 0 \
                or labels.max() >= len(network.labels):
            raise ShapeError("{}: labels must be one of 0..{} for each of the {} clips".format(
                path, len(network.labels) - 1, len(clips)))
        labels = [int(label) for label in labels]
    if not clips.any():
        raise ShapeError("{}: nobody is in any of the {} clips".format(path, len(clips)))
    return [clip[clip.any(axis=(1, 2, 3))] for clip in clips], labels
