"""Recorded motion for training: segments with labels, and whole performances made of them.

``edged-owner train corpus`` reads the recordings that takes.py names once and keeps their moves in one file, which is
never committed. Whole subjects and sources are held out. A performance is somebody of random build who does what a
segment shows, mirrored half of the time and at another pace, with other segments of the same split before and after
it, none more severe; where nothing fits, the pose is held.
"""

import argparse
import os
from pathlib import Path
from typing import List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from edged.camera.motion import LABELS, Performance
from edged.camera.acts import FALLING, FIGHTING, JUMPING, LYING, RUNNING, SITTING, STANDING, WALKING, WAVING
from edged.camera.puppet import L_ANKLE, R_ANKLE, Body, random_body
from edged.camera.viewpoint import View
from edged.errors import MissingInput, PackageError, UsageError
from edged.train import splice
from edged.train.mocap import read
from edged.train.retarget import (
    FPS, L_SHANK, L_THIGH, LOWEST_M, R_SHANK, R_THIGH, TRUNK, WAYS, Moves, at_rate, fitted, grounded, joints, mirrored,
    moves,
)  # fmt: skip
from edged.train.stage import on_ground
from edged.train.takes import SOURCES, SPLITS, TAKES, Take, split_of

_FORM = "edged corpus 1"
_LENGTHS = tuple(Body.__dataclass_fields__)
_STEADY = (STANDING, SITTING, WALKING, RUNNING, LYING)
_FADE = 10
_MOST_FRAMES = 1 << 22


class Segment(NamedTuple):
    """moves at 30 frames a second of a body of lengths ``own``; shows: the frames that the label is about."""

    name: str
    label: str
    source: str
    subject: str
    licence: str
    split: str
    shows: Tuple[int, int]
    own: Body
    moves: Moves


def _driven(moved: Moves, own: Body) -> Moves:
    """Walking on the spot becomes walking: the pelvis goes as fast as the feet on the ground go backwards."""
    placed = joints(moved, own)[:, (R_ANKLE, L_ANKLE)]
    low = placed[..., 2] < placed[..., 2].min() + 0.05
    speed = np.diff(placed[..., :2], axis=0)[low[:-1] & low[1:]]
    if len(speed) < 3:
        return moved
    way = -np.median(speed, axis=0)
    return Moves(moved.pelvis + np.append(way, 0) * np.arange(len(moved.pelvis))[:, None], moved.ways)


def _planted(moved: Moves, own: Body) -> Moves:
    """In every frame the lowest joint is as high as an ankle of one who stands."""
    return Moves(moved.pelvis + (own.ankle - joints(moved, own)[..., 2].min(1))[:, None] * [0, 0, 1], moved.ways)


def segment(take: Take, folder: Path) -> Segment:
    """One take of the table, read from below the data folder."""
    source = SOURCES[take.source]
    path = Path(folder) / source.folder / take.file
    motion = read(path)
    try:
        moved, own = moves(motion, source.head_leans)
    except PackageError as error:
        raise PackageError("{}: {}".format(path, error)) from None
    moved = at_rate(moved, motion.fps)
    if source.ground_m is not None:
        moved = Moves(moved.pelvis + [0, 0, source.ground_m], moved.ways)
    else:
        moved = grounded(moved.cut(take.span[0], None), own)
        moved = Moves(np.pad(moved.pelvis, ((take.span[0], 0), (0, 0))),
                      np.pad(moved.ways, ((take.span[0], 0), (0, 0), (0, 0))))
    first, last = take.span[0], min(take.span[1], len(moved.pelvis))
    shows = max(take.shows[0] - first, 0), min(take.shows[1], last) - first
    moved = moved.cut(first, last)
    if len(moved.pelvis) < 6 or shows[1] - shows[0] < 4:
        raise PackageError("{}: {} frames where {} to {} are wanted".format(path, len(moved.pelvis), first, last))
    if take.planted:
        moved = _planted(moved, own)
    if take.loop:
        travelled = float(np.hypot(*(moved.pelvis[-1] - moved.pelvis[0])[:2]))
        if take.label in (WALKING, RUNNING) and travelled < 0.3:
            moved = _driven(moved, own)
        once = moved
        while len(moved.pelvis) < 3 * len(once.pelvis) - 2:
            moved = splice.joined(moved, once, 1)
        shows = 0, len(moved.pelvis)
    return Segment("{}/{}:{}".format(take.source, take.file, first), take.label, take.source, take.subject,
                   source.licence, split_of(take), shows, own, moved)


def prepare(folder: Path, takes: Sequence[Take] = TAKES) -> List[Segment]:
    """Every take of the table, in its order. Raises MissingInput or PackageError for the first that cannot be read."""
    from tqdm import tqdm
    if not Path(folder).is_dir():
        raise MissingInput("{}: no such folder".format(folder))
    return [segment(take, folder) for take in tqdm(takes, desc="recordings", disable=None)]


def write(segments: Sequence[Segment], path: Path) -> None:
    """All segments in one .npz, put in place whole."""
    ends = np.cumsum([len(one.moves.pelvis) for one in segments])
    arrays = {
        "form": np.array(_FORM), "ends": ends.astype(np.int64),
        "pelvis": np.concatenate([one.moves.pelvis for one in segments]).astype(np.float32),
        "ways": np.concatenate([one.moves.ways for one in segments]).astype(np.float32),
        "shows": np.array([one.shows for one in segments], np.int64),
        "own": np.array([[getattr(one.own, name) for name in _LENGTHS] for one in segments], np.float64),
    }
    for name in ("name", "label", "source", "subject", "licence", "split"):
        arrays[name] = np.array([getattr(one, name) for one in segments])
    beside = Path(str(path) + ".part")
    with open(str(beside), "wb") as file:
        np.savez_compressed(file, **arrays)
    os.replace(str(beside), str(path))


def read_corpus(path: Path) -> List[Segment]:
    """What ``write`` wrote. Raises MissingInput, or PackageError for anything else."""
    try:
        with np.load(str(path), allow_pickle=False) as file:
            given = {key: file[key] for key in file.files}
    except FileNotFoundError:
        raise MissingInput("{}: no such file; make it with edged-owner train corpus".format(path)) from None
    except Exception as error:  # numpy and zipfile raise a dozen kinds of error for a damaged file
        raise PackageError("{}: no corpus: {}".format(path, error)) from None
    words = ("name", "label", "source", "subject", "licence", "split")
    wanted = set(words) | {"form", "ends", "pelvis", "ways", "shows", "own"}
    if set(given) != wanted or str(given["form"]) != _FORM:
        raise PackageError("{}: no corpus of form {!r}: make it anew with edged-owner train corpus".format(path, _FORM))
    ends, shows, own = given["ends"], given["shows"], given["own"]
    pelvis, ways = given["pelvis"], given["ways"]
    count = len(ends) if ends.ndim == 1 else 0
    frames = len(pelvis) if pelvis.ndim == 2 else 0
    starts = np.concatenate([[0], ends[:-1]]) if count else ends
    if not (
        count and ends.dtype == shows.dtype == np.int64 and own.dtype == np.float64
        and pelvis.dtype == ways.dtype == np.float32 and pelvis.shape == (frames, 3) and frames <= _MOST_FRAMES
        and ways.shape == (frames, WAYS, 3) and shows.shape == (count, 2) and own.shape == (count, len(_LENGTHS))
        and all(given[word].shape == (count,) and given[word].dtype.kind == "U" for word in words)
        and (ends - starts >= 6).all() and ends[-1] == frames
        and (0 <= shows[:, 0]).all() and (shows[:, 0] < shows[:, 1]).all() and (shows[:, 1] <= ends - starts).all()
        and (own > 0.01).all() and (own < 3).all() and (np.abs(pelvis) < 1e3).all()
        and (np.abs(np.linalg.norm(ways, axis=-1) - 1) < 1e-3).all()
        and set(given["label"]) <= set(LABELS) and set(given["split"]) <= set(SPLITS)
    ):
        raise PackageError("{}: a corpus whose parts do not fit together".format(path))
    return [
        Segment(*(str(given[word][at]) for word in words), (int(shows[at, 0]), int(shows[at, 1])), Body(*own[at]),
                Moves(pelvis[start:end].astype(float), ways[start:end].astype(float)))
        for at, (start, end) in enumerate(zip(starts, ends))
    ]


class Corpus:
    """The segments of one split; ``act`` makes performances of them."""

    def __init__(self, segments: Sequence[Segment]) -> None:
        self.segments = tuple(segments)
        self._of = {label: [] for label in LABELS}  # type: Dict[str, List[Segment]]
        for one in segments:
            self._of[one.label].append(one)

    @classmethod
    def load(cls, path: Path, split: str) -> "Corpus":
        """From the file of ``edged-owner train corpus``, or from the data folder itself, which takes some seconds."""
        if split not in SPLITS:
            raise UsageError("corpus: no split {!r}: choose of {}".format(split, ", ".join(SPLITS)))
        found = prepare(path) if Path(path).is_dir() else read_corpus(path)
        return cls([one for one in found if one.split == split])

    @property
    def labels(self) -> Tuple[str, ...]:
        """What this split has segments of."""
        return tuple(label for label in LABELS if self._of[label])

    def draw(self, rng: np.random.Generator, label: str) -> Segment:
        """Sources alike, however many takes they have; long segments more often than short ones."""
        able = self._of[label]
        length = np.array([np.sqrt(len(one.moves.pelvis)) for one in able])
        total = {one.source: 0.0 for one in able}
        for one, part in zip(able, length):
            total[one.source] += part
        share = np.array([part / np.sqrt(total[one.source]) for one, part in zip(able, length)])
        return able[int(rng.choice(len(able), p=share / share.sum()))]

    def act(self, rng: np.random.Generator, label: str, view: View, frames: int = 300) -> Performance:
        """One person before a camera; T <= frames. Raises UsageError for a label that this split has nothing of."""
        if not self._of.get(label):
            raise UsageError("corpus: nobody is {!r} in it: choose of {}".format(label, ", ".join(self.labels)))
        return on_ground(rng, view, *self.performed(rng, label, frames))

    def performed(
        self, rng: np.random.Generator, label: str, frames: int = 300, body: Optional[Body] = None
    ) -> Tuple[np.ndarray, Tuple[int, int]]:
        """What ``act`` places: joints (T, 18, 3) and the frames within which the label shows."""
        body = body or random_body(rng)
        seen = frames if rng.random() < 0.6 else int(rng.uniform(min(45, frames), frames + 1))
        cast = _Cast(rng, self, body)
        if label in (WALKING, RUNNING):
            moved, shows = cast.on_the_way(label, seen)
        else:
            moved, shows = cast.scene(label, seen)
        placed = joints(splice.looking(rng, moved), body)
        # Where two pieces fade into each other a hand or a foot may cut the ground.
        placed[..., 2] += np.maximum(LOWEST_M - placed[..., 2].min(1), 0)[:, None]
        return placed, shows


class _Cast:
    """One person of a performance: everything is fitted to one body, all of it mirrored or none."""

    def __init__(self, rng: np.random.Generator, corpus: Corpus, body: Body) -> None:
        self.rng, self.corpus, self.body = rng, corpus, body
        self.mirror = bool(rng.random() < 0.5)

    def piece(self, one: Segment) -> Tuple[Moves, Tuple[int, int]]:
        """A segment by this person, at a pace of 0.85 to 1.15 of the recorded one."""
        pace = float(self.rng.uniform(0.85, 1.15))
        moved = at_rate(one.moves, FPS * pace)
        moved = fitted(moved, one.own, self.body)
        count = len(moved.pelvis)
        shows = int(one.shows[0] / pace), min(int(np.ceil(one.shows[1] / pace)), count)
        return mirrored(moved) if self.mirror else moved, shows

    def on_the_way(self, label: str, seen: int) -> Tuple[Moves, Tuple[int, int]]:
        """Walking and running, along a curve more often than not."""
        moved, _ = self.piece(self.corpus.draw(self.rng, label))
        moved = splice.repeated(moved, seen + 1)
        start = int(self.rng.integers(0, len(moved.pelvis) - seen))
        moved = moved.cut(start, start + seen)
        way = float(np.hypot(*np.diff(moved.pelvis[:, :2], axis=0).T).sum())
        if self.rng.random() < 0.7:
            radius = self.rng.uniform(1.2, 6.0) * (2.5 if label == RUNNING else 1.0)
            moved = splice.bent(moved, float(self.rng.choice((-1, 1))) * way / max(seen - 1, 1) / radius)
        return moved, (0, seen)

    def scene(self, label: str, seen: int) -> Tuple[Moves, Tuple[int, int]]:
        """What the label says, with what comes before and after, as far as it is seen."""
        moved, (first, last) = self.piece(self.corpus.draw(self.rng, label))
        if label in _STEADY and last == len(moved.pelvis):
            more = splice.repeated(moved, int(self.rng.uniform(0.3, 1.0) * seen)) if first == 0 else moved
            last, moved = len(more.pelvis), more
        if label == FIGHTING:  # one blow is no fight
            wanted = int(self.rng.uniform(40, max(0.8 * seen, 41)))
            while last - first < wanted:
                more, _ = self.piece(self.corpus.draw(self.rng, label))
                moved = splice.joined(moved.cut(0, last), more, _FADE)
                last = len(moved.pelvis)
        least = 0.55 * (last - first) if label in (FALLING, JUMPING) else min(last - first, 36)
        if label == LYING and last < len(moved.pelvis):  # who gets up has lain for most of the time before
            lain = max(int(0.75 * seen) - (last - first), 0)
            moved = splice.reversed_held(self.rng, moved, lain)
            end = min(lain + last + int(self.rng.uniform(0, 0.3) * seen), len(moved.pelvis))
            first, last = 0, min(lain + last, end)
            return self._window(moved, first, last, end, seen, label)
        end = first + int(self.rng.uniform(min(least, seen), seen)) + 1
        if label == LYING and first > 0:
            end = max(end, first + 36)
        if len(moved.pelvis) < end:
            moved = self._after(moved, end, label)
            if label in (SITTING, LYING) and last >= len(moved.pelvis) - 1 or not upright(moved, -1, self.body):
                last = end
        return self._window(moved, first, min(last, end), end, seen, label)

    def _window(
        self, moved: Moves, first: int, last: int, end: int, seen: int, label: str
    ) -> Tuple[Moves, Tuple[int, int]]:
        """The last ``seen`` frames before ``end``; what is missing at the start comes before."""
        missing = seen - end
        if missing > 0:
            moved = self._before(moved, missing, label)
            first, last, end = first + missing, last + missing, seen
        start = end - seen
        return moved.cut(start, end), (max(first - start, 0), max(min(last - start, seen), 2))

    def _after(self, moved: Moves, end: int, label: str) -> Moves:
        """At least ``end`` frames: more of the same, standing, walking off, or nothing else."""
        again = label in (FIGHTING, JUMPING, WAVING)
        while len(moved.pelvis) < end:
            missing = end - len(moved.pelvis)
            if not upright(moved, -1, self.body):
                one = self._fitting(moved, label) if label in (SITTING, LYING) else None
                if one is None:
                    return splice.held(self.rng, moved, missing, 0.008 if label in (LYING, FALLING) else 0.012)
                moved = splice.joined(moved, one, _FADE)
                continue
            if label == STANDING or not again or self.rng.random() < 0.4:
                kind = WALKING if label != STANDING and self.rng.random() < 0.3 else STANDING
            else:
                kind = label
            if kind not in self.corpus.labels:
                return splice.held(self.rng, moved, missing)
            one, _ = self.piece(self.corpus.draw(self.rng, kind))
            if upright(one, 0, self.body):
                moved = splice.joined(moved, one, _FADE)
            else:
                moved = splice.held(self.rng, moved, min(missing, 45))
        return moved

    def _fitting(self, moved: Moves, label: str) -> Optional[Moves]:
        """A piece that goes on from the last pose, if one is drawn soon."""
        for _ in range(4):
            one, _ = self.piece(self.corpus.draw(self.rng, label))
            if splice.apart(moved, one) < 0.25 and not upright(one, -1, self.body):
                return one
        return None

    def _before(self, moved: Moves, missing: int, label: str) -> Moves:
        """``missing`` frames before it; nobody walks in a clip of standing or sitting, which are less severe."""
        if not upright(moved, 0, self.body):
            return splice.reversed_held(self.rng, moved, missing)
        kind = STANDING if label in (STANDING, SITTING) or self.rng.random() < 0.5 else WALKING
        if kind not in self.corpus.labels:
            return splice.reversed_held(self.rng, moved, missing)
        for _ in range(4):
            one, _ = self.piece(self.corpus.draw(self.rng, kind))
            if upright(one, -1, self.body):
                break
        else:
            return splice.reversed_held(self.rng, moved, missing)
        one = splice.repeated(one, missing + _FADE)
        one = one.cut(len(one.pelvis) - missing - _FADE, None)
        made = splice.joined(one, moved, _FADE)
        return made.cut(len(made.pelvis) - len(moved.pelvis) - missing, None)


def upright(moved: Moves, frame: int, body: Body) -> bool:
    """Whether somebody stands or walks in this frame: trunk up, legs under it, near the ground."""
    ways = moved.ways[frame]
    legs = (ways[[R_THIGH, R_SHANK, L_THIGH, L_SHANK], 2].mean() < -0.8)
    low = moved.pelvis[frame, 2] < 1.15 * (body.leg + body.ankle)
    return bool(legs and low and ways[TRUNK, 2] > 0.8)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", metavar="FOLDER", type=Path, required=True, help="where mocap/ and motion/ are")
    parser.add_argument("--out", metavar="FILE", type=Path, required=True, help="the corpus, not to be published")


def run(given: argparse.Namespace) -> None:
    segments = prepare(given.data)
    write(segments, given.out)
    print(table(segments))


def table(segments: Sequence[Segment]) -> str:
    """Seconds and segments of each label and split, as text; a loop is kept, and counted, three times round."""
    lines = ["{:10} {:>9} {:>10}".format("label", *SPLITS)]
    for label in LABELS:
        row = []
        for split in SPLITS:
            of = [one for one in segments if one.label == label and one.split == split]
            row.append("{:.0f} s/{}".format(sum(len(one.moves.pelvis) for one in of) / FPS, len(of)))
        lines.append("{:10} {:>9} {:>10}".format(label, *row))
    return "\n".join(lines)
