"""How far the small pose network agrees with the large one, on videos that it never saw; and how much faster it is.

Measure: PCK@0.2 of the torso (Yang and Ramanan, TPAMI 2013): the share of the large network's joints that the small one
has within a fifth of the way from neck to hips. The large network is no truth: it misses people who lie.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, List, Sequence, Tuple

import numpy as np

from edged.camera.pose import decode
from edged.camera.posenet import PoseNetwork
from edged.train import teacher

NEAR = 0.2           # of the torso: a joint that is right
SAME = 0.5           # of the torso, in the mean of the common joints: the same person
COMMON_LEAST = 3
JOINTS_LEAST = 6     # of somebody of the large network's
_NECK, _HIPS = 1, (8, 11)


@dataclass
class Agreement:
    """Counts of people, and of the joints of those found."""

    found: int = 0
    missed: int = 0
    invented: int = 0
    joints: int = 0
    near: int = 0

    def add(self, reference: np.ndarray, judged: np.ndarray) -> None:
        """One picture: people (n, 18, 3) of the large network, (m, 18, 3) of the small one."""
        reference = reference[(reference[..., 2] > 0).sum(1) >= JOINTS_LEAST] if len(reference) else reference
        free = list(range(len(judged)))
        pairs = sorted((distance, one, other) for one, person in enumerate(reference)
                       for other in free for distance in [_apart(person, judged[other])] if distance < SAME)
        taken = set()
        for _, one, other in pairs:
            if one in taken or other not in free:
                continue
            taken.add(one)
            free.remove(other)
            person, seen = reference[one], reference[one][:, 2] > 0
            off = np.hypot(*(judged[other][:, :2] - person[:, :2]).T)
            self.joints += int(seen.sum())
            self.near += int(((off < NEAR * torso(person)) & (judged[other][:, 2] > 0))[seen].sum())
        self.found += len(taken)
        self.missed += len(reference) - len(taken)
        self.invented += len(free)


def torso(person: np.ndarray) -> float:
    """From the neck to the middle of the hips seen, in pixels; where they are not seen, 0.3 of what the joints span."""
    hips = [joint for joint in _HIPS if person[joint, 2] > 0]
    if person[_NECK, 2] > 0 and hips:
        return float(max(np.hypot(*(person[hips, :2].mean(0) - person[_NECK, :2])), 1.0))
    seen = person[person[:, 2] > 0, :2]
    return float(max(0.3 * np.hypot(*np.ptp(seen, axis=0)), 1.0))


def _apart(one: np.ndarray, other: np.ndarray) -> float:
    common = (one[:, 2] > 0) & (other[:, 2] > 0)
    if common.sum() < COMMON_LEAST:
        return np.inf
    return float(np.hypot(*(one[common, :2] - other[common, :2]).T).mean()) / torso(one)


def people(network: PoseNetwork, frame: np.ndarray) -> np.ndarray:
    maps = network.run(frame)
    return decode(maps.heat, maps.paf, maps.cell)


def compare(small: PoseNetwork, large: PoseNetwork, frames: Sequence[np.ndarray]) -> Tuple[Agreement, List[float]]:
    """What they see in the same pictures, and of each picture how many times longer the large one took."""
    agreement, ratios = Agreement(), []
    for frame in frames:
        began = time.perf_counter()
        large.run(frame)
        between = time.perf_counter()
        small.run(frame)
        ratios.append((between - began) / (time.perf_counter() - between))
        agreement.add(people(large, frame), people(small, frame))
    return agreement, ratios


def evaluate(small: PoseNetwork, videos: Path, models: Any, every: int = 5) -> str:
    """A table of the held-out videos, as Markdown."""
    large = PoseNetwork(teacher.TEACHER, models)
    lines = ["| video, never trained on | people of the large network found | missed | invented | PCK@0.2 "
             "| large / small, time |",
             "|---|---|---|---|---|---|"]
    for pattern in teacher.HELD_OUT:
        frames = [frame for path in teacher.videos(videos, (pattern,)) for frame in teacher.frames(path, every)]
        seen, ratios = compare(small, large, frames)
        lines.append("| {}, {} pictures | {} of {} | {} | {} | {:.1%} | {:.1f} |".format(
            pattern, len(frames), seen.found, seen.found + seen.missed, seen.missed, seen.invented,
            seen.near / max(seen.joints, 1), np.median(ratios)))
    return "\n".join(lines)
