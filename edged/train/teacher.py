"""What the large pose network sees in videos, kept on disk: the small one learns from it (student.py, pose.py).

Every kept example is one file: a picture at the size that the network looked at, and its maps there. The large
network's weights are not taken over, only what it answers. Source of the idea: Hinton, Vinyals, Dean, "Distilling the
Knowledge in a Neural Network", arXiv:1503.02531.
"""

import os
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Sequence, Tuple

import numpy as np

from edged.camera import picture
from edged.camera.capture import FileCapture
from edged.camera.posenet import PoseNetwork
from edged.errors import MissingInput, PackageError

TEACHER = "human-pose-estimation-0001"
CELL = 8
DETAILS = (0.5, 0.75, 1.0, 1.4, 2.0)  # times the teacher's published number of pixels
_FPS = 10.0

# Whose licences allow training (tests/ and the card name them); the rest of the folder is for measuring alone.
TRAIN = ("gmdcsa24/S1_*.mp4", "gmdcsa24/S2_*.mp4", "felix_exercise.avi", "intel/*.mp4")
HELD_OUT = ("gmdcsa24/S3_*.mp4", "vtest_480x360.avi")


class Example(NamedTuple):
    """image : (H, W, 3) uint8, sides multiples of 8     maps : (57, H / 8, W / 8) float16, 19 heat, then 38 PAF"""

    image: np.ndarray
    maps: np.ndarray


def videos(folder: Path, patterns: Sequence[str]) -> List[Path]:
    """Raises MissingInput where a pattern matches nothing."""
    found: List[Path] = []
    for pattern in patterns:
        some = sorted(folder.glob(pattern))
        if not some:
            raise MissingInput("{}: no video there is called {}".format(folder, pattern))
        found += some
    return found


def frames(path: Path, every: int = 1) -> Iterator[np.ndarray]:
    """Pictures of a video, ten a second of it, of which one in ``every`` is given."""
    with FileCapture(str(path), _FPS) as capture:
        index = 0
        while True:
            frame = capture.read()
            if frame is None:
                return
            if index % every == 0:
                yield frame.image
            index += 1


def sized(image: np.ndarray, pixels: float) -> np.ndarray:
    """The picture with about so many pixels, its sides multiples of CELL."""
    scale = np.sqrt(pixels / (image.shape[0] * image.shape[1]))
    height, width = (max(CELL, int(round(side * scale / CELL)) * CELL) for side in image.shape[:2])
    return picture.resized(image, width, height)


def keep(folder: Path, video_folder: Path, models: str, looks: int, seed: int, progress: Any) -> int:
    """Let the teacher look at the videos of TRAIN, each frame at ``looks`` sizes drawn from ``seed``; returns how many.

    What is there already is kept: an interrupted run goes on. ``progress`` wraps an iterator (tqdm).
    """
    os.makedirs(str(folder), exist_ok=True)
    networks: Dict[float, PoseNetwork] = {}
    made = 0
    for number, path in enumerate(videos(video_folder, TRAIN)):
        for index, image in enumerate(progress(frames(path), desc=path.name)):
            rng = np.random.default_rng((seed, number, index))
            for detail in rng.choice(DETAILS, looks, replace=False):
                target = folder / "{:02d}-{:05d}-{}.npz".format(number, index, detail)
                made += 1
                if target.exists():
                    continue
                if detail not in networks:
                    networks[detail] = PoseNetwork(TEACHER, models, detail=float(detail))
                network = networks[detail]
                seen = sized(image, network.model.width * network.model.height * float(detail))
                maps = network.run(seen)
                write(target, Example(seen, np.concatenate([maps.heat, maps.paf]).astype(np.float16)))
    return made


def write(path: Path, example: Example) -> None:
    """Whole or not at all."""
    part = path.with_suffix(".part")
    with open(str(part), "wb") as file:
        np.savez(file, image=example.image, maps=example.maps)
    os.replace(str(part), str(path))


def read(path: Path) -> Example:
    """Raises PackageError for anything that ``write`` did not write."""
    try:
        with np.load(str(path), allow_pickle=False) as found:
            return Example(found["image"], found["maps"])
    except (OSError, ValueError, KeyError) as error:
        raise PackageError("{}: not an example: remove it and prepare again".format(path)) from error


def kept(folder: Path) -> List[Path]:
    """Raises MissingInput where there is none."""
    found = sorted(folder.glob("*.npz"))
    if not found:
        raise MissingInput("{}: no examples there: run `edged-owner train pose --prepare` first".format(folder))
    return found


def flipped(example: Example, joints: Sequence[int], limbs: Sequence[Tuple[int, bool]]) -> Example:
    """Mirrored: left is right. ``joints``: for each heat map the other side's; ``limbs``: for each limb the one on the
    other side, and whether that runs the other way."""
    maps = example.maps[:, :, ::-1].copy()
    heat = np.concatenate([maps[:18][list(joints)], maps[18:19]])
    field = maps[19:].reshape(19, 2, maps.shape[1], maps.shape[2])
    field = np.stack([field[other] * (-1 if back else 1) for other, back in limbs])
    field[:, 0] *= -1
    return Example(example.image[:, ::-1].copy(), np.concatenate([heat, field.reshape(maps[19:].shape)]))
