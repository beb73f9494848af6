"""``edged-owner train sample``: the clip that the demo shows, rendered from made-up people on a made-up square.

Two walk past, one stands and waves, one slips, falls and stays down. Writes sample.mp4 and
sample.json, which says what happens in it: when, to whom, and where everybody is (edged/staged.py reads it).
"""

import argparse
import json
import os
from typing import Any, Dict, List, NamedTuple, Sequence, Tuple

import numpy as np

from edged.camera.acts import FALL, FALLING, LYING, SLIP, STANDING, WALK, WALKING, WAVING, Act, Fall
from edged.camera.gestures import wave
from edged.camera.performance import Path, perform, walking_gait
from edged.camera.puppet import L_HIP, R_HIP, Body, random_body
from edged.camera.viewpoint import View
from edged.errors import MissingInput, UsageError
from edged.staged import SCHEMA, TRUTH, VIDEO

SEED, SECONDS, FPS = 3, 26.0, 15.0
BOXES_PER_S = 2
FALLS_S, WAVES_S = 13.0, (4.0, 9.0)
SLIPS = Fall(SLIP, np.pi, 1.0, 0.1, 0.0, 0.8)
FALLERS_WAY, FALLERS_M = ((-7.0, 9.6), (-2.5, 7.6), (1.0, 5.0)), 7.2  # metres; how far along it the fall begins
DRESSED = (5, 11, 15, 5)  # seeds of their looks
_SOLE_M, _CROWN_M = 0.08, 0.13  # what a person has below the ankles and above the ears


class Part(NamedTuple):
    """joints : (frames, 18, 3) metres      doing : what the person does, (label, start_s, end_s)"""

    joints: np.ndarray
    doing: Tuple[Tuple[str, float, float], ...]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seed", type=int, default=SEED, metavar="N", help="default {}".format(SEED))
    parser.add_argument("--out", required=True, metavar="FOLDER", help="where {} and {} go".format(VIDEO, TRUTH))
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> None:
    """Raises MissingInput where the folder cannot be made, UsageError for a negative seed."""
    from tqdm import tqdm

    from edged.camera.picture import Film
    from edged.train.figures import draw, random_look
    from edged.train.plaza import VIEW, plaza
    from edged.train.sensor import Sensor
    if given.seed < 0:
        raise UsageError("--seed {}: 0 or more".format(given.seed))
    try:
        os.makedirs(given.out, exist_ok=True)
    except OSError as error:
        raise MissingInput("{}: {}".format(given.out, error.strerror)) from error
    parts = play(given.seed)
    looks = [random_look(np.random.default_rng([dressed, 100 + number])) for number, dressed in enumerate(DRESSED)]
    rng = np.random.default_rng([given.seed, 99])
    backdrop, sensor = plaza(VIEW), Sensor(blur=0.35, noise=0.5, vignette=0.12)
    with Film(os.path.join(given.out, VIDEO), VIEW.width, VIEW.height, FPS) as film:
        for at in tqdm(range(len(parts[0].joints)), desc="sample", unit="picture"):
            film.add(draw(backdrop, VIEW, looks, [part.joints[at] for part in parts], sensor, rng).image)
    with open(os.path.join(given.out, TRUTH), "w", encoding="utf-8") as file:
        json.dump(truth(given.seed, VIEW, parts), file, indent=1)
        file.write("\n")


def _way(corners: Sequence[Tuple[float, float]]) -> Path:
    """Through these places on the ground, metres, smoothly; before the first and after the last straight on."""
    points = np.array(corners, float)
    length = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(points, axis=0).T))])
    fine = np.arange(-3, length[-1] + 12, 0.05)
    ends = [(points[0] - points[1]) / length[1], (points[-1] - points[-2]) / (length[-1] - length[-2])]
    dense = np.stack([np.interp(fine, length, points[:, axis]) for axis in (0, 1)], -1)
    dense += np.maximum(-fine, 0)[:, None] * ends[0] + np.maximum(fine - length[-1], 0)[:, None] * ends[1]
    window = np.hanning(43) / np.hanning(43).sum()
    padded = np.pad(dense, ((21, 21), (0, 0)), mode="reflect", reflect_type="odd")
    dense = np.stack([np.convolve(padded[:, axis], window, "valid") for axis in (0, 1)], -1)
    step = np.gradient(dense, axis=0)
    heading = np.unwrap(np.arctan2(step[:, 1], step[:, 0]))

    def path(way: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
        return (np.stack([np.interp(way, fine, dense[:, axis]) for axis in (0, 1)], -1),
                np.interp(way, fine, heading))

    return path


class _Actor:
    """One of the cast; the same for the same seed, whatever the others do."""

    def __init__(self, seed: int, number: int) -> None:
        self.rng = np.random.default_rng([seed, number])
        self.body: Body = random_body(self.rng)
        self._seed = int(self.rng.integers(1 << 32))

    def stands(self, x: float, y: float, facing: float, acts: Sequence[Act]) -> np.ndarray:
        def path(way: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
            return np.zeros((len(way), 2)) + [x, y], np.full(len(way), facing)

        return self._performed(acts, path)

    def walks(self, corners: Sequence[Tuple[float, float]], along_m: float, at_s: float, acts: Sequence[Act],
              pace: float) -> np.ndarray:
        """Along these corners, ``along_m`` metres from the first at the moment ``at_s``."""
        def straight(way: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
            return np.stack([way, 0 * way], -1), 0 * way

        paced = self._performed(acts, straight, pace)
        gone = float(paced[int(at_s * FPS), [R_HIP, L_HIP], 0].mean())
        path = _way(corners)
        return self._performed(acts, lambda way: path(way + along_m - gone), pace)

    def _performed(self, acts: Sequence[Act], path: Path, pace: float = 0.5) -> np.ndarray:
        rng = np.random.default_rng(self._seed)
        return perform(rng, self.body, list(acts), path, 0.0, SECONDS, FPS, walking_gait(rng, self.body, pace))


def play(seed: int) -> List[Part]:
    """What everybody does for SECONDS, the same for the same seed."""
    cast = [_Actor(seed, number) for number in range(4)]
    through = [Act(WALK, -1, SECONDS)]
    parts = [Part(cast[0].walks([(8, 9.7), (0, 9.3), (-8, 9.6)], 8.0, 6.0, through, 0.6), ((WALKING, 0.0, SECONDS),))]
    waving = wave(cast[1].rng, cast[1].body, *WAVES_S)
    parts.append(Part(cast[1].stands(3.2, 8.3, -1.9, waving),
                      ((STANDING, 0.0, WAVES_S[0]), (WAVING,) + WAVES_S, (STANDING, WAVES_S[1], SECONDS))))
    end_s = FALLS_S + SLIPS.duration_s(cast[2].body)
    acts = [Act(WALK, -1, FALLS_S), Act(FALL, FALLS_S, end_s, SLIPS)]
    parts.append(Part(cast[2].walks(FALLERS_WAY, FALLERS_M, FALLS_S, acts, 0.55),
                      ((WALKING, 0.0, FALLS_S), (FALLING, FALLS_S, end_s), (LYING, end_s, SECONDS))))
    parts.append(Part(cast[3].walks([(-8, 10.2), (0, 9.9), (8, 10.2)], 8.0, 23.0, through, 0.7),
                      ((WALKING, 0.0, SECONDS),)))
    return parts


def truth(seed: int, view: View, parts: Sequence[Part]) -> Dict[str, Any]:
    """What sample.json says. A box is from head to foot, in pixels, cut at the picture's edges; absent people have
    none."""
    people = []
    for number, part in enumerate(parts):
        boxes = []
        for at in range(0, len(part.joints), int(FPS / BOXES_PER_S)):
            box = _box(view, part.joints[at])
            if box is not None:
                boxes.append([round(at / FPS, 3)] + box)
        people.append({"person": number, "boxes": boxes})
    events = [{"label": label, "person": number, "start_s": round(start_s, 3), "end_s": round(end_s, 3)}
              for number, part in enumerate(parts) for label, start_s, end_s in part.doing]
    return {"schema": SCHEMA, "seed": seed, "fps": FPS, "frames": len(parts[0].joints), "width": view.width,
            "height": view.height, "events": events, "box": ["time_s", "left", "top", "right", "bottom"],
            "people": people}


def _box(view: View, joints: np.ndarray) -> Any:
    around = np.concatenate([joints - [0, 0, _SOLE_M], joints + [0, 0, _CROWN_M * 0.7]])
    pixels, depth = view.project(around)
    low, high = np.maximum(pixels.min(0), 0), np.minimum(pixels.max(0), [view.width - 1, view.height - 1])
    if depth.min() < 0.4 or (high - low < 8).any():
        return None
    return [int(round(value)) for value in (*low, *high)]
