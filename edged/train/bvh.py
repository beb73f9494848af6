"""Biovision hierarchies (.bvh): a tree of offsets, and channels of each joint for every frame.

Source: the format as used since Biovision's own viewer; M. Meredith and S. Maddock, "Motion Capture File Formats
Explained", University of Sheffield CS-01-11, section 3.
"""

from pathlib import Path
from typing import Iterator, List, NamedTuple, Tuple

import numpy as np

from edged.errors import PackageError
from edged.train.mocap import Motion, about, chained, checked, floats, text, z_up

_MOST_JOINTS = 512
_TURNS = {"Xrotation": 0, "Yrotation": 1, "Zrotation": 2}
_SHIFTS = {"Xposition": 0, "Yposition": 1, "Zposition": 2}


class _Joint(NamedTuple):
    name: str
    parent: int
    offset: np.ndarray
    channels: Tuple[str, ...]


def read(path: Path, unit_m: float = 0.01) -> Motion:
    """A .bvh file whose lengths are in ``unit_m``, y up. End sites are no joints."""
    words = iter(text(path).split())
    try:
        tree = _tree(path, words)
        count, fps = _timing(path, words)
    except StopIteration:
        raise PackageError("{}: it ends too early".format(path)) from None
    columns = sum(len(joint.channels) for joint in tree)
    values = floats(path, list(words))
    if not columns or len(values) != count * columns:
        raise PackageError("{}: {} numbers for {} frames of {} channels".format(path, len(values), count, columns))
    values = values.reshape(count, columns)
    offsets = np.repeat(np.stack([joint.offset for joint in tree])[None], count, 0)
    turns = np.repeat(np.eye(3)[None], len(tree), 0)[None].repeat(count, 0)
    column = 0
    for place, joint in enumerate(tree):
        for channel in joint.channels:
            if channel in _SHIFTS:
                offsets[:, place, _SHIFTS[channel]] += values[:, column]
            else:
                turns[:, place] = turns[:, place] @ about(_TURNS[channel], np.radians(values[:, column]))
            column += 1
    places, _ = chained([joint.parent for joint in tree], offsets, turns, np.zeros((count, 3)))
    return checked(path, z_up(places * unit_m), [joint.name for joint in tree], fps)


def _expect(path: Path, words: Iterator[str], wanted: str) -> None:
    word = next(words)
    if word != wanted:
        raise PackageError("{}: {!r} where {} belongs".format(path, word[:40], wanted))


def _offset(path: Path, words: Iterator[str]) -> np.ndarray:
    _expect(path, words, "OFFSET")
    return floats(path, [next(words) for _ in range(3)])


def _tree(path: Path, words: Iterator[str]) -> List[_Joint]:
    _expect(path, words, "HIERARCHY")
    _expect(path, words, "ROOT")
    tree, open_ = [], []  # type: List[_Joint], List[int]
    name = next(words)
    while True:
        if len(tree) == _MOST_JOINTS:
            raise PackageError("{}: more than {} joints".format(path, _MOST_JOINTS))
        _expect(path, words, "{")
        offset = _offset(path, words)
        _expect(path, words, "CHANNELS")
        channels = tuple(next(words) for _ in range(_channels(path, next(words))))
        for channel in channels:
            if channel not in _TURNS and channel not in _SHIFTS:
                raise PackageError("{}: channel {!r}".format(path, channel[:40]))
        tree.append(_Joint(name, open_[-1] if open_ else -1, offset, channels))
        open_.append(len(tree) - 1)
        word = next(words)
        while word in ("}", "End"):
            if word == "End":
                _expect(path, words, "Site")
                _expect(path, words, "{")
                _offset(path, words)
                _expect(path, words, "}")
            else:
                open_.pop()
                if not open_:
                    return tree
            word = next(words)
        if word != "JOINT":
            raise PackageError("{}: {!r} where JOINT belongs".format(path, word[:40]))
        name = next(words)


def _channels(path: Path, word: str) -> int:
    if word not in ("0", "3", "6"):
        raise PackageError("{}: {!r} channels".format(path, word[:40]))
    return int(word)


def _timing(path: Path, words: Iterator[str]) -> Tuple[int, float]:
    for wanted in ("MOTION", "Frames:"):
        _expect(path, words, wanted)
    word = next(words)
    if not word.isdigit():
        raise PackageError("{}: {!r} frames".format(path, word[:40]))
    for wanted in ("Frame", "Time:"):
        _expect(path, words, wanted)
    frame_s = floats(path, [next(words)])[0]
    if frame_s <= 0:
        raise PackageError("{}: a frame of {} s".format(path, frame_s))
    return int(word), 1.0 / frame_s
