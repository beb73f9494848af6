"""Falls and lying by physics: people out of recordings or of the generator, pushed, tripped, slipping, giving way.

A jointed body (humanoid.py) takes over where the recording is stopped, at its pose and speed, with some tone in its
muscles and, often, an arm that goes ahead to break the fall; it is simulated until it rests. Fall ``index`` of a
library follows from (seed, index); every fifth is held out, and starts from held-out subjects.
``edged-owner train ragdoll`` makes a library and goes on where it was interrupted.
"""

import argparse
import hashlib
import os
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Tuple

import numpy as np

from edged.camera import motion
from edged.camera.acts import FALLING, FIGHTING, LYING, RUNNING, SITTING, STANDING, WALKING, WAVING
from edged.camera.motion import Performance
from edged.camera.puppet import JOINTS, L_ANKLE, L_EAR, L_HIP, R_ANKLE, R_EAR, R_HIP
from edged.camera.viewpoint import View, random_view
from edged.errors import MissingInput, PackageError, UsageError
from edged.train import splice
from edged.train.corpus import Corpus
from edged.train.humanoid import STEPS, Humanoid, standing_in
from edged.train.retarget import FPS, joints, mirrored, of_joints
from edged.train.stage import on_ground
from edged.train.takes import HELD_OUT, SPLITS, TRAIN

_FORM = "edged falls 1"
_PARTS = {"form", "seed", "corpus", "joints", "ends", "moments", "kind", "start"}
HELD_OUT_EVERY = 5
DOWN_M = 0.45           # the head is lower than this when somebody has fallen
_STARTS_M = 0.9         # and at least as high as this before: who sits on the floor does not fall
_LEAST_S, _MOST_S = 1.2, 5.0
_TRIES = 12
_KEPT_EVERY = 100
_STARTS = ((STANDING, 0.36), (WALKING, 0.38), (RUNNING, 0.08), (SITTING, 0.08), (FIGHTING, 0.05), (WAVING, 0.05))
PUSH, TRIP, SLIP, COLLAPSE = KINDS = ("push", "trip", "slip", "collapse")


class Fall(NamedTuple):
    """joints (T, 18, 3) metres at 30 a second; begins: the frame in which balance is lost; rests: from which on
    nothing moves; kind: of KINDS; start: what was done before."""

    joints: np.ndarray
    begins: int
    rests: int
    kind: str
    start: str


class _Plan(NamedTuple):
    """kind; force (3,) newton on ``bodies`` for the first ``lasts`` s; tone at first, when (s) and to what it sinks;
    grip of the soles; when the arms reach out (s, None: never) and how far the elbows are bent then."""

    kind: str
    bodies: Tuple[str, ...]
    force: np.ndarray
    lasts: float
    tone: Dict[str, float]
    limp_s: float
    limp: float
    grip: float
    brace_s: Optional[float]
    bend: float


def _plan(rng: np.random.Generator, kind: str, mass: float, speed: np.ndarray, swings: str) -> _Plan:
    """speed (3,) of the pelvis, m/s; swings: the side of the foot that is in the air."""
    pace = float(np.hypot(*speed[:2]))
    ahead = speed / pace if pace > 0.3 else np.array([1.0, 0, 0])
    angle = rng.uniform(-np.pi, np.pi)
    aside = np.array([np.cos(angle), np.sin(angle), 0])
    tone = {name: float(rng.uniform(0.4, 1.8)) for name in ("spine", "neck", "shoulder", "elbow", "ankle")}
    tone.update({name: float(rng.uniform(0.4, 3.2)) for name in ("hip", "knee")})
    lasts, grip = float(rng.uniform(0.12, 0.3)), 0.8
    limp_s, limp = float(rng.uniform(0.7, 2.0)), float(rng.uniform(0.03, 0.1))
    if kind == PUSH:
        bodies, force = ("chest",), mass * rng.uniform(0.7, 1.8) / lasts * aside
    elif kind == TRIP:
        bodies, force = (swings + "_shank",), -rng.uniform(100, 280) * ahead + [0, 0, rng.uniform(-40, 20)]
        lasts = float(rng.uniform(0.15, 0.35))
    elif kind == SLIP:
        bodies, force = ("r_foot", "l_foot"), rng.uniform(30, 95) * ahead + 25 * aside
        grip, lasts = 0.04, float(rng.uniform(0.2, 0.4))
    else:
        bodies, force = ("pelvis",), mass * rng.uniform(0.1, 0.6) / lasts * aside
        tone = {name: share * float(rng.uniform(0.05, 0.35)) for name, share in tone.items()}
    brace = float(rng.uniform(0.12, 0.45)) if rng.random() < (0.25 if kind == COLLAPSE else 0.7) else None
    return _Plan(kind, bodies, force, lasts, tone, limp_s, limp, grip, brace, float(rng.uniform(0.2, 1.0)))


def _reach_out(rng: np.random.Generator, doll: Humanoid, bend: float) -> None:
    """One arm or both want to be where the body goes: springs pull them there."""
    chest = doll.turn_of("chest")
    speed = chest.T @ doll.data.cvel[doll.model.body("chest").id, 3:]
    along = np.array([speed[0], speed[1], 0.0])
    along = along / max(np.linalg.norm(along), 0.2)
    sides = (("r",), ("l",), ("r", "l"), ("r", "l"))[int(rng.integers(4))]
    for side in sides:
        out = -0.35 if side == "r" else 0.35
        down = -(along + [0.15, out, -0.35])
        down = down / np.linalg.norm(down)  # the arm's z points from the elbow to the shoulder
        left = np.array([0.0, 1.0, 0.0]) - down * down[1]
        left = left / max(np.linalg.norm(left), 1e-6)
        want = chest @ np.stack([np.cross(left, down), left, down], -1)
        start = doll.model.jnt_qposadr[doll.kind[side + "_shoulder"]]
        doll.model.qpos_spring[start : start + 4] = doll.ball(side + "_shoulder", chest, want)
        doll.model.qpos_spring[doll.model.jnt_qposadr[doll.kind[side + "_elbow"]]] = bend


def drop(rng: np.random.Generator, before: np.ndarray, start: str, kind: str) -> Optional[Fall]:
    """Somebody (T, 18, 3), T >= 2, loses balance after the last frame. None where nobody is down in the end."""
    if before[-1, (R_EAR, L_EAR), 2].mean() < _STARTS_M:
        return None
    moved, body = of_joints(before)
    doll = standing_in(moved, len(before) - 1, body)
    doll.take(moved, len(before) - 1, FPS)
    first = doll.joints()
    low = min(float(doll.data.geom_xpos[doll.model.geom(side + "_sole").id, 2]) for side in "rl") - 0.02
    if low < 0:  # whoever stands a little in the ground is not thrown out of it
        doll.data.qpos[2] -= low
    steps = before[-1, (R_ANKLE, L_ANKLE)]
    swings = "r" if steps[0, 2] > steps[1, 2] else "l"
    speed = (moved.pelvis[-1] - moved.pelvis[-2]) * FPS
    plan = _plan(rng, kind, doll.mass, speed, swings)
    doll.tense(plan.tone)
    if plan.brace_s is not None:
        plan.tone.update(shoulder=max(plan.tone["shoulder"], 1.2), elbow=max(plan.tone["elbow"], 1.5))
    for side in "rl":
        doll.model.geom_friction[doll.model.geom(side + "_sole").id, 0] = plan.grip
    # MuJoCo takes the larger friction of two geoms in contact: the ground's must not hide the sole's.
    doll.model.geom_friction[doll.model.geom("ground").id, 0] = min(plan.grip, 0.8) if plan.grip < 0.5 else 0.8
    ids = [doll.model.body(name).id for name in plan.bodies]
    placed, quiet, braced = [], 0, plan.brace_s is None
    for frame in range(int(_MOST_S * FPS)):
        now = frame / FPS
        if not braced and now >= plan.brace_s:
            _reach_out(rng, doll, plan.bend)
            doll.tense(plan.tone)
            braced = True
        if now >= plan.limp_s:
            fade = max(0.0, 1 - (now - plan.limp_s) / 0.5)
            doll.tense({name: plan.limp + fade * (share - plan.limp) for name, share in plan.tone.items()})
            doll.model.geom_friction[0, 0] = 0.8
        for number in ids:
            doll.data.xfrc_applied[number, :3] = plan.force / len(ids) if now < plan.lasts else 0.0
        doll.mujoco.mj_step(doll.model, doll.data, STEPS)
        placed.append(doll.joints())
        quick = np.abs(placed[-1] - placed[-2]).max() * FPS if frame else 9.0
        quiet = quiet + 1 if quick < 0.12 else 0
        if not np.isfinite(placed[-1]).all() or quick > 60:
            return None
        if quiet > 10 and now > _LEAST_S:
            break
    fell = np.stack(placed)
    head = fell[:, (R_EAR, L_EAR), 2].mean(1)
    if head[-1] > DOWN_M or fell[-1, (R_HIP, L_HIP), 2].max() > DOWN_M or fell[..., 2].min() < 0.0:
        return None
    # Where a recording shrugs the jointed body does not: what is left of the step is spread over a few frames before.
    jump = first - before[-1]
    ease = np.clip(np.arange(len(before)) - (len(before) - 7), 0, 6)[:, None, None] / 6.0
    whole = np.concatenate([before + ease * jump, fell]).astype(np.float32)
    return Fall(whole, len(before), len(whole) - quiet, kind, start)


def _before(rng: np.random.Generator, corpus: Optional[Corpus]) -> Tuple[np.ndarray, str]:
    """What somebody does until balance is lost: joints (T, 18, 3) and its label."""
    names = [name for name, _ in _STARTS]
    share = np.array([part for _, part in _STARTS])
    label = names[int(rng.choice(len(names), p=share / share.sum()))]
    if corpus is not None and label in corpus.labels and rng.random() < 0.75:
        made, _ = corpus.performed(rng, label, 240)
    else:
        made = motion.act(rng, label, random_view(rng), 240).people[0]
    return made[: int(rng.integers(min(20, len(made) - 1), len(made))) + 1], label


def make(seed: int, index: int, train: Optional[Corpus], held_out: Optional[Corpus]) -> Fall:
    """Fall ``index`` of the library ``seed``; corpora may lack: then all start from the generator."""
    corpus = held_out if split_of(index) == HELD_OUT else train
    for attempt in range(_TRIES):
        rng = np.random.default_rng((seed, index, attempt))
        before, label = _before(rng, corpus)
        pace = float(np.hypot(*(before[-1, (R_HIP, L_HIP), :2] - before[-2, (R_HIP, L_HIP), :2]).mean(0))) * FPS
        share = [0.3, 0.3, 0.22, 0.18] if pace > 0.5 else [0.5, 0.0, 0.15, 0.35]
        found = drop(rng, before, label, KINDS[int(rng.choice(len(KINDS), p=share))])
        if found is not None:
            return found
    raise UsageError("ragdoll: fall {} of seed {} stays on its feet {} times".format(index, seed, _TRIES))


def split_of(index: int) -> str:
    return HELD_OUT if index % HELD_OUT_EVERY == HELD_OUT_EVERY - 1 else TRAIN


class Library(NamedTuple):
    """seed; corpus: SHA-256 of the corpus file's bytes, in hexadecimal, or empty; falls in the order of their index."""

    seed: int
    corpus: str
    falls: List[Fall]


def write(library: Library, path: Path) -> None:
    """A library in one .npz, put in place whole."""
    falls = library.falls
    beside = Path(str(path) + ".part")
    with open(str(beside), "wb") as file:
        np.savez_compressed(
            file, form=np.array(_FORM), seed=np.array(library.seed, np.int64),
            corpus=np.array(library.corpus),
            joints=np.concatenate([one.joints for one in falls]).astype(np.float32),
            ends=np.cumsum([len(one.joints) for one in falls]).astype(np.int64),
            moments=np.array([(one.begins, one.rests) for one in falls], np.int64),
            kind=np.array([one.kind for one in falls]), start=np.array([one.start for one in falls]))
    os.replace(str(beside), str(path))


def read(path: Path) -> Library:
    """What ``write`` wrote. Raises MissingInput, or PackageError for anything that is none."""
    try:
        with np.load(str(path), allow_pickle=False) as file:
            given = {key: file[key] for key in file.files}
    except FileNotFoundError:
        raise MissingInput("{}: no such file; make it with edged-owner train ragdoll".format(path)) from None
    except Exception as error:  # numpy and zipfile raise a dozen kinds of error for a damaged file
        raise PackageError("{}: no library of falls: {}".format(path, error)) from None
    if set(given) != _PARTS or str(given["form"]) != _FORM:
        raise PackageError("{}: no falls of form {!r}: make them with edged-owner train ragdoll".format(path, _FORM))
    placed, ends, moments = given["joints"], given["ends"], given["moments"]
    count = len(ends) if ends.ndim == 1 else 0
    starts = np.concatenate([[0], ends[:-1]]) if count else ends
    length = ends - starts
    if not (
        count and placed.ndim == 3 and placed.shape[1:] == (JOINTS, 3) and placed.dtype == np.float32
        and ends.dtype == moments.dtype == np.int64 and ends[-1] == len(placed) and (length > 2).all()
        and moments.shape == (count, 2) and (0 < moments[:, 0]).all() and (moments[:, 0] < moments[:, 1]).all()
        and (moments[:, 1] <= length).all() and (np.abs(placed) < 1e3).all() and given["seed"].shape == ()
        and given["kind"].shape == given["start"].shape == (count,) and set(given["kind"]) <= set(KINDS)
        and given["seed"].dtype == np.int64 and given["corpus"].shape == ()
    ):
        raise PackageError("{}: a library of falls whose parts do not fit together".format(path))
    falls = [Fall(placed[start:end], int(moments[at, 0]), int(moments[at, 1]), str(given["kind"][at]),
                  str(given["start"][at])) for at, (start, end) in enumerate(zip(starts, ends))]
    return Library(int(given["seed"]), str(given["corpus"]), falls)


def landed(fall: Fall) -> int:
    """The frame from which on the head stays down: limbs may settle long after a fall is over."""
    up = np.flatnonzero(fall.joints[:, (R_EAR, L_EAR), 2].mean(1) > DOWN_M)
    return min(max(int(up[-1]) + 6, fall.begins + 10), fall.rests) if len(up) else fall.rests


class Falls:
    """The falls of one split of a library; ``act`` shows them falling, or lying afterwards."""

    labels = (LYING, FALLING)

    def __init__(self, falls: List[Fall]) -> None:
        self.falls = tuple(falls)

    @classmethod
    def load(cls, path: Path, split: str = TRAIN) -> "Falls":
        if split not in SPLITS:
            raise UsageError("falls: no split {!r}: choose of {}".format(split, ", ".join(SPLITS)))
        falls = read(path).falls
        mine = [one for index, one in enumerate(falls) if split_of(index) == split]
        if not mine:
            raise UsageError("{}: {} falls, none of them {}".format(path, len(falls), split))
        return cls(mine)

    def act(self, rng: np.random.Generator, label: str, view: View, frames: int = 300) -> Performance:
        """One person before a camera; T <= frames. Raises UsageError for another label."""
        if label not in self.labels:
            raise UsageError("falls: nobody is {!r} in them: choose of {}".format(label, ", ".join(self.labels)))
        fall = self.falls[int(rng.integers(len(self.falls)))]
        seen = frames if rng.random() < 0.6 else int(rng.uniform(min(66, frames), frames + 1))
        span = landed(fall) - fall.begins
        moved, body = of_joints(fall.joints.astype(float))
        if label == FALLING:
            end = fall.begins + int(rng.uniform(0.55 * span, max(seen - 0.3 * span, 0.6 * span))) + 1
            shows = fall.begins, fall.begins + span
        else:  # from after the fall on
            end = fall.rests + int(rng.uniform(min(36, seen), 3 * FPS)) + seen
            shows = fall.rests, end
        moved = splice.held(rng, moved, end - len(moved.pelvis), 0.006)
        start = max(end - seen, fall.rests if label == LYING else 0)
        moved = moved.cut(start, end)
        if rng.random() < 0.5:
            moved = mirrored(moved)
        first, last = max(shows[0] - start, 0), min(shows[1], end) - start
        return on_ground(rng, view, joints(moved, body), (first, last))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--count", type=int, default=500, help="how many falls (default 500)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--corpus", metavar="FILE", type=Path,
                        help="of edged-owner train corpus; without it all starts are the generator's")
    parser.add_argument("--out", metavar="FILE", type=Path, required=True,
                        help="the library; one of the same seed that is there already is gone on with")


def run(given: argparse.Namespace) -> None:
    from tqdm import tqdm
    if given.count < 1 or given.seed < 0:
        raise UsageError("ragdoll: {} falls of seed {}: ask for one or more".format(given.count, given.seed))
    corpora = [Corpus.load(given.corpus, split) if given.corpus else None for split in SPLITS]
    digest = hashlib.sha256(given.corpus.read_bytes()).hexdigest() if given.corpus else ""
    library = read(given.out) if given.out.exists() else Library(given.seed, digest, [])
    if (library.seed, library.corpus) != (given.seed, digest):
        raise UsageError("{}: falls of another seed or corpus: name another file".format(given.out))
    falls = library.falls
    bar = tqdm(range(len(falls), given.count), initial=len(falls), total=given.count, desc="falls", disable=None)
    for index in bar:
        falls.append(make(given.seed, index, *corpora))
        if len(falls) % _KEPT_EVERY == 0 or len(falls) == given.count:
            write(library, given.out)
