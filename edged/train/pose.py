"""``edged-owner train pose``: the small pose network, from a large one's answers and from rendered figures.

Three steps, each of which goes on where it was interrupted: ``--prepare`` lets the teacher look at the videos and
renders figures, without an option the network is trained, ``--evaluate`` compares it with the teacher on videos that
neither step met. Every batch follows from (seed, step).
"""

import argparse
import os
from functools import partial
from pathlib import Path
from typing import Dict, Iterator, List, Sequence, Tuple

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from edged import command
from edged.camera import motion, picture
from edged.camera.pose import LIMBS
from edged.camera.posenet import PoseNetwork
from edged.errors import UsageError
from edged.train import state as states
from edged.train import targets, teacher
from edged.train.agreement import evaluate
from edged.train.ahead import ahead
from edged.train.backdrop import random_backdrop
from edged.train.figures import draw, random_look
from edged.train.sensor import random_sensor
from edged.train.student import MEAN, SCALE, Student, exported
from edged.train.teacher import CELL, Example

SIDE = 256              # pixels of a training crop
EXPORTED = (448, 256)   # width and height that the file names; it takes others
DRAWN_OF_A_SCENE = 8
_MIRROR = (0, 1, 5, 6, 7, 2, 3, 4, 11, 12, 13, 8, 9, 10, 15, 14, 17, 16)  # each joint on the other side
_FOREGROUND = 6.0       # how much more a cell of a person counts
_INVENTED = 8.0         # ... and one in which something is seen that is not there
_SCRAMBLED_SHARE = 0.12  # crops of what is in pictures, in an order in which it is nobody
_RENDERED_SHARE = 0.5
_AVERAGED = 0.998       # of the weights of steps before: the mean is what is exported


def _mirrored_limbs() -> List[Tuple[int, bool]]:
    return [(LIMBS.index((_MIRROR[start], _MIRROR[end])), False) for start, end in LIMBS]


LIMB_MIRROR = _mirrored_limbs()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--prepare", action="store_true", help="make the examples, then end")
    parser.add_argument("--evaluate", action="store_true", help="compare the bundled network with the large one")
    parser.add_argument("--videos", metavar="FOLDER", type=Path, help="the videos, as teacher.py names them")
    parser.add_argument("--models", metavar="FOLDER", help="where the large network lies (default $EDGED_MODELS)")
    parser.add_argument("--examples", metavar="FOLDER", type=Path, help="where examples are kept")
    parser.add_argument("--scenes", type=command.at_least(1), default=500, metavar="N",
                        help="rendered, eight pictures each (default 500)")
    parser.add_argument("--out", metavar="FILE", type=Path, help="the network as ONNX")
    parser.add_argument("--state", metavar="FILE", type=Path, help="checkpoint: written now and then, gone on from")
    parser.add_argument("--start", metavar="FILE", type=Path, help="another run's state, which this one refines")
    parser.add_argument("--seed", type=command.at_least(0), default=1)
    parser.add_argument("--steps", type=command.at_least(2), default=7000)
    parser.add_argument("--batch", type=command.at_least(2), default=16)
    parser.add_argument("--rate", type=float, default=2e-3)


def run(given: argparse.Namespace) -> None:
    needed = {"videos": given.prepare or given.evaluate, "examples": not given.evaluate,
              "out": not (given.prepare or given.evaluate)}
    for name in sorted(needed):
        if needed[name] and getattr(given, name) is None:
            raise UsageError("train pose: --{} is needed here".format(name))
    if given.evaluate:
        print(evaluate(PoseNetwork("edged-pose"), given.videos, given.models))
    elif given.prepare:
        render(given.examples / "rendered", given.scenes, given.seed)
        teacher.keep(given.examples / "taught", given.videos, given.models, 1, given.seed, tqdm)
    else:
        train(given)


def scene(seed: int, index: int) -> Iterator[Tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Pictures (H, W, 3), points (n, 18, 2) and visible (n, 18) of one staged scene of one to four people."""
    rng = np.random.default_rng((seed, index))
    labels = list(motion.LABELS) + [motion.FALLING, motion.LYING, motion.WALKING]
    cast = [labels[rng.integers(len(labels))] for _ in range(int(rng.integers(1, 5)))]
    staged = motion.stage(int(rng.integers(2 ** 31)), 8.0, 5.0, cast)
    view = staged.view
    backdrop = random_backdrop(rng, view)
    looks = [random_look(rng) for _ in staged.people]
    sensor = random_sensor(rng)
    for frame in rng.choice(len(staged.people[0]), DRAWN_OF_A_SCENE, replace=False):
        yield draw(backdrop, view, looks, [one[frame] for one in staged.people], sensor, rng)


def render(folder: Path, scenes: int, seed: int) -> None:
    """Examples of rendered figures at sizes drawn at random; what is there already is kept."""
    os.makedirs(str(folder), exist_ok=True)
    for index in tqdm(range(scenes), desc="rendered"):
        last = folder / "{:05d}-{}.npz".format(index, DRAWN_OF_A_SCENE - 1)
        if last.exists():
            continue
        rng = np.random.default_rng((seed, index, 1))
        for number, (image, points, visible) in enumerate(scene(seed, index)):
            seen = teacher.sized(image, 456 * 256 * float(rng.choice(teacher.DETAILS)))
            scale = np.array([seen.shape[1] / image.shape[1], seen.shape[0] / image.shape[0]])
            maps = targets.maps((points + 0.5) * scale - 0.5, visible, seen.shape[0], seen.shape[1])
            teacher.write(folder / "{:05d}-{}.npz".format(index, number), Example(seen, maps.astype(np.float16)))


def crop(rng: np.random.Generator, example: Example) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(SIDE, SIDE, 3) uint8, maps (57, SIDE / 8, SIDE / 8) float32 and where they count (SIDE / 8, SIDE / 8)."""
    if rng.random() < 0.5:
        example = teacher.flipped(example, _MIRROR, LIMB_MIRROR)
    cells = SIDE // CELL
    rows, columns = example.maps.shape[1:]
    # More often than not, somebody is in it.
    background = np.asarray(example.maps[18], np.float32)
    there = np.argwhere(background < 0.5)
    if len(there) and rng.random() < 0.65:
        at = there[rng.integers(len(there))] - rng.integers(cells // 5, cells - cells // 5, 2)
    else:
        at = np.array([rng.integers(-2, max(rows - cells + 3, -1)), rng.integers(-2, max(columns - cells + 3, -1))])
    at = np.clip(at, np.minimum(0, [rows - cells, columns - cells]), np.maximum(0, [rows - cells, columns - cells]))
    image = np.full((SIDE, SIDE, 3), 128, np.uint8)
    maps = np.zeros((example.maps.shape[0], cells, cells), np.float32)
    counts = np.zeros((cells, cells), np.float32)
    top, left = np.maximum(0, at)
    bottom, right = min(rows, at[0] + cells), min(columns, at[1] + cells)
    to = (slice(top - at[0], bottom - at[0]), slice(left - at[1], right - at[1]))
    maps[(slice(None),) + to] = example.maps[:, top:bottom, left:right]
    counts[to] = 1
    image[CELL * to[0].start:CELL * to[0].stop, CELL * to[1].start:CELL * to[1].stop] = \
        example.image[CELL * top:CELL * bottom, CELL * left:CELL * right]
    chance = rng.random()
    if chance < _SCRAMBLED_SHARE:
        image, maps = _scrambled(rng, image), np.zeros_like(maps)
        maps[18] = 1
    elif chance < 0.7:
        image = _cluttered(rng, image, maps)
    return _recoloured(rng, image), maps, counts


def _scrambled(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """The same colours, edges and textures, of real places too, in tiles too small for a body."""
    side = int(rng.choice((8, 16, 32)))
    many = SIDE // side
    tiles = image.reshape(many, side, many, side, 3).swapaxes(1, 2).reshape(-1, side, side, 3)
    tiles = tiles[rng.permutation(len(tiles))]
    if rng.random() < 0.5:
        tiles = tiles.swapaxes(1, 2)
    return np.ascontiguousarray(tiles.reshape(many, many, side, side, 3).swapaxes(1, 2).reshape(SIDE, SIDE, 3))


def _cluttered(rng: np.random.Generator, image: np.ndarray, maps: np.ndarray) -> np.ndarray:
    """Poles, signs, bags and stripes where nobody is: what a network that met few places takes for people."""
    drawn = image.copy()
    for _ in range(int(rng.integers(1, 13))):
        at, tall = rng.uniform(0, SIDE, 2), SIDE * rng.uniform(0.04, 0.5)
        colour = rng.uniform(0, 255, 3) if rng.random() < 0.6 else np.full(3, rng.uniform(0, 255))
        kind = rng.integers(4)
        if kind == 0:  # a pole, a rail
            way = rng.normal(0, 0.12) + (np.pi / 2 if rng.random() < 0.75 else rng.uniform(0, np.pi))
            end = at + tall * np.array([np.cos(way), np.sin(way)])
            picture.line(drawn, at, end, tuple(float(one) for one in colour), int(rng.integers(1, 9)))
        elif kind == 1:
            corners = at + rng.normal(0, 0.25 * tall, (int(rng.integers(3, 7)), 2)) * [rng.uniform(0.3, 1), 1]
            picture.fill_hull(drawn, corners, colour)
        elif kind == 2:
            picture.disc(drawn, at, rng.uniform(1, 0.12 * tall + 2), tuple(float(one) for one in colour))
        else:  # something of elsewhere in the picture
            wide, high = int(rng.integers(8, SIDE // 3)), int(rng.integers(8, SIDE // 2))
            fro, to = (rng.integers(0, [SIDE - wide, SIDE - high]) for _ in range(2))
            piece = image[fro[1]:fro[1] + high, fro[0]:fro[0] + wide]
            empty = maps[18, fro[1] // CELL:(fro[1] + high) // CELL + 1, fro[0] // CELL:(fro[0] + wide) // CELL + 1]
            if empty.min() > 0.8:
                drawn[to[1]:to[1] + high, to[0]:to[0] + wide] = piece[::-1] if rng.random() < 0.3 else piece
    somebody = (np.abs(maps[:18]).max(0) > 0.08) | (np.abs(maps[19:]).max(0) > 0.08)
    near = picture.averaged(somebody.astype(np.float32), 1) > 0
    return np.where(near.repeat(CELL, 0).repeat(CELL, 1)[..., None], image, drawn)


def _recoloured(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Another light, another sensor, another coder."""
    seen = image.astype(np.float32)
    if rng.random() < 0.8:
        seen = 255 * (seen / 255) ** np.exp(rng.normal(0, 0.25))
        seen = seen * rng.uniform(0.75, 1.25) * rng.uniform(0.9, 1.1, 3) + rng.uniform(-15, 15)
    if rng.random() < 0.15:
        seen[:] = seen.mean(axis=2, keepdims=True)
    if rng.random() < 0.3:
        seen = picture.blurred(seen, rng.uniform(0.3, 1.2))
    if rng.random() < 0.4:
        seen += rng.normal(0, rng.uniform(1, 9), seen.shape)
    seen = np.clip(seen, 0, 255).astype(np.uint8)
    return picture.compressed(seen, int(rng.integers(25, 90))) if rng.random() < 0.3 else seen


def batch(seed: int, step: int, size: int, taught: Sequence[Path], rendered: Sequence[Path]) -> Tuple[np.ndarray, ...]:
    """images (B, SIDE, SIDE, 3) uint8, maps (B, 57, ...) float16, counts (B, ...) float16."""
    rng = np.random.default_rng((seed, step))
    made = []
    for index in range(size):
        source = rendered if index < _RENDERED_SHARE * size else taught
        made.append(crop(rng, teacher.read(source[rng.integers(len(source))])))
    images, maps, counts = (np.stack(column) for column in zip(*made))
    return images, maps.astype(np.float16), counts.astype(np.float16)


def loss_of(answers: Sequence[torch.Tensor], maps: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """Squared error; a cell in which something is, or is wrongly seen, counts more."""
    total = torch.zeros(())
    for answer in answers:
        invented = (maps.abs() < 0.02) & (answer.detach().abs() > 0.1)
        weight = counts[:, None] * (1 + _FOREGROUND * (maps.abs() > 0.05) + _INVENTED * invented)
        total = total + (weight * (answer - maps) ** 2).sum() / counts.sum().clamp(min=1)
    return total


def train(given: argparse.Namespace) -> None:
    """Write the network to ``given.out``, every 200 steps and at the end."""
    states.require_folder(given.out)
    torch.manual_seed(given.seed)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    taught, rendered = (teacher.kept(given.examples / name) for name in ("taught", "rendered"))
    network = Student().to(memory_format=torch.channels_last)
    if given.start is not None:
        states.fill(network, states.load(given.start).get("mean", {}), given.start)
    plan = {"seed": given.seed, "steps": given.steps, "batch": given.batch, "rate": given.rate}
    mean: Dict[str, torch.Tensor] = {name: value.clone() for name, value in network.state_dict().items()}
    optimiser = torch.optim.AdamW(network.parameters(), lr=given.rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, given.rate, total_steps=given.steps, pct_start=0.1)
    first = 0
    kept = states.resumed(given.state, plan)
    if kept is not None:
        network.load_state_dict(kept["network"])
        optimiser.load_state_dict(kept["optimiser"])
        schedule.load_state_dict(kept["schedule"])
        mean, first = kept["mean"], kept["step"]
    made = ahead(partial(batch, given.seed, size=given.batch, taught=taught, rendered=rendered), first, given.steps)
    bar = tqdm(made, initial=first, total=given.steps, desc="pose", mininterval=5)
    network.train()
    smooth = 0.0
    for step, found in enumerate(bar, first):
        images, maps, counts = (torch.from_numpy(part) for part in found)
        pictures = ((images.float() - MEAN) * SCALE).permute(0, 3, 1, 2).to(memory_format=torch.channels_last)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            answers = network(pictures)
        loss = loss_of([answer.float() for answer in answers], maps.float(), counts.float())
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimiser.step()
        schedule.step()
        keep = min(_AVERAGED, (step + 1) / (step + 20))
        for name, value in network.state_dict().items():
            if value.is_floating_point():
                mean[name].mul_(keep).add_(value, alpha=1 - keep)
            else:
                mean[name].copy_(value)
        smooth = float(loss.detach()) if step == first else 0.98 * smooth + 0.02 * float(loss.detach())
        bar.set_postfix(loss="{:.3f}".format(smooth), refresh=False)
        if (step + 1) % 200 == 0 or step + 1 == given.steps:
            states.keep(given.state, plan, step + 1, network=network.state_dict(), mean=mean,
                        optimiser=optimiser.state_dict(), schedule=schedule.state_dict())
            _export(mean, given.out)


def _export(mean: Dict[str, torch.Tensor], path: Path) -> None:
    averaged = Student()
    averaged.load_state_dict(mean)
    part = str(path) + ".part"
    with open(part, "wb") as file:
        file.write(exported(averaged, *EXPORTED))
    os.replace(part, str(path))


def main() -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    run(parser.parse_args())


if __name__ == "__main__":
    main()
