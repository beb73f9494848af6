"""Where training clips come from: the generator, recorded motion, rag-dolls, real videos; how much of each.

A source gives clips of its labels; where several have a label, one is drawn by weight.
"""

import argparse
from pathlib import Path
from typing import Any, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from edged.camera import motion
from edged.camera.viewpoint import random_view
from edged.train import realvideo
from edged.train.corpus import Corpus
from edged.train.footage import Footage
from edged.train.ragdoll import Falls
from edged.train.takes import HELD_OUT, TRAIN

_TRIES = 30
# Against the generator's 1, where a source has the label.
RECORDED, RAGDOLLS = 1.0, 1.0
REAL = 0.5  # three people in a few rooms


class Source(NamedTuple):
    """clip(rng, label) -> (m, 300, 18, 3), for ``labels``; drawn in proportion to ``weight``."""

    name: str
    labels: Tuple[str, ...]
    weight: float
    clip: Any


def generator(weight: float = 1.0) -> Source:
    return Source("generated", motion.LABELS, weight, motion.clip)


def performed(name: str, labels: Sequence[str], weight: float, act: Any) -> Source:
    """Clips of what ``act(rng, label, view, frames)`` performs, seen as the camera process would."""

    def clip(rng: np.random.Generator, label: str) -> np.ndarray:
        for _ in range(_TRIES):
            view = random_view(rng)
            found = motion.filmed(rng, view, act(rng, label, view, 300))
            if found is not None:
                return found
        return motion.clip(rng, label)  # too much of it is out of every picture

    return Source(name, tuple(labels), weight, clip)


class Mixture:
    """Sources together; every label has one at least."""

    def __init__(self, parts: Sequence[Source]) -> None:
        self.parts = tuple(parts)

    def clip(self, rng: np.random.Generator, label: str) -> np.ndarray:
        """(m, 300, 18, 3), m = 1 or 2."""
        able = [part for part in self.parts if label in part.labels]
        weight = np.array([part.weight for part in able])
        return able[int(rng.choice(len(able), p=weight / weight.sum()))].clip(rng, label)


def add_sources(parser: argparse.ArgumentParser) -> None:
    """The options that name what ``sources`` takes."""
    parser.add_argument("--corpus", type=Path, metavar="FILE", help="of recorded motion, from train corpus")
    parser.add_argument("--falls", type=Path, metavar="FILE", help="of rag-dolls, from train ragdoll")
    parser.add_argument("--skeletons", type=Path, metavar="FOLDER", help="of GMDCSA24, see edged/train/realvideo.py")
    parser.add_argument("--tables", type=Path, metavar="FOLDER", help="its tables of what happens when")


def sources(given: argparse.Namespace, without: Optional[int] = None) -> Mixture:
    """The generator, and what the options name; of that, what is for training alone.

    without : a subject whose real videos are left out
    """
    parts = [generator()] + _recorded(given.corpus, given.falls, TRAIN)
    videos = [video for video in real_videos(given) if video.subject != without]
    if videos:
        footage = Footage(videos)
        parts.append(Source("real videos", footage.labels, REAL, footage.clip))
    return Mixture(parts)


def real_videos(given: argparse.Namespace) -> List[realvideo.Video]:
    return [] if given.skeletons is None else realvideo.load(given.skeletons, given.tables or given.skeletons)


def held_out_sources(corpus: Optional[Path], falls: Optional[Path]) -> List[Source]:
    """Whole subjects and sources that training does not touch."""
    return _recorded(corpus, falls, HELD_OUT)


def _recorded(corpus: Optional[Path], falls: Optional[Path], split: str) -> List[Source]:
    parts = []
    if corpus is not None:
        takes = Corpus.load(corpus, split)
        parts.append(performed("recorded", takes.labels, RECORDED, takes.act))
    if falls is not None:
        library = Falls.load(falls, split)
        parts.append(performed("rag-dolls", library.labels, RAGDOLLS, library.act))
    return parts
