"""Made-up people before a made-up camera: recordings for the demo and the tests, samples for training.

Everything follows from the seed. Nothing here was fetched or recorded: proportions and timing come from textbooks
(puppet.py, performance.py and their neighbours), the camera and a pose estimator's faults from viewpoint.py and
estimator.py.
"""

from typing import List, NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np

from edged.camera import ways
from edged.camera.acts import (
    CYCLING, FALLING, FIGHTING, JUMPING, LABELS, LYING, RUNNING, SITTING, STANDING, WALK, WALKING, WAVING, Act,
)  # fmt: skip  # noqa: F401 (all labels are known under this module's name)
from edged.camera.assemble import GAP_S
from edged.camera.cycling import random_ride, ride
from edged.camera.estimator import observe
from edged.camera.moments import MOMENTS
from edged.camera.pairs import fight, talk, together
from edged.camera.performance import perform, running_gait, walking_gait
from edged.camera.puppet import JOINTS, NECK, random_body
from edged.camera.recording import RecordedEvent, Recording
from edged.camera.scenes import part
from edged.camera.viewpoint import View, random_view
from edged.errors import UsageError

CLIP_FPS = 30.0
NEAR_M = 2.6     # about 1.5 body heights: who comes no nearer is not in the same clip
_APART_M = 0.7   # people do not walk through each other
_TRIES = 12
_LOOKS = (1, 2, 3, 3, 3, 4, 6)  # of so many frames the pose estimator has time for one
_LEAST_S = {STANDING: 1.2, WALKING: 1.2, RUNNING: 1.2, CYCLING: 1.2}


class Performance(NamedTuple):
    """Who is seen from some moment to the clip's end.

    people : 1 or 2 arrays (T, 18, 3) of joints in metres, at CLIP_FPS; the last frame is now; people[0] does it
    shows : frames (first, last) of T within which the label shows
    """

    people: List[np.ndarray]
    shows: Tuple[int, int]


def _shown(people: List[np.ndarray], shows_s: Tuple[float, float], start_s: float) -> Performance:
    count = len(people[0])
    first = min(max(int((shows_s[0] - start_s) * CLIP_FPS), 0), count - 1)
    last = int((shows_s[1] - start_s) * CLIP_FPS)
    return Performance(people, (first, min(max(last, first + 2), count)))


def act(rng: np.random.Generator, label: str, view: View, frames: int = 300) -> Performance:
    """Somebody, or two, of whom the most severe does what ``label`` says, on ground that the camera sees; T <= frames.

    The person may have appeared late, the action may be anywhere, right at the end included, or half over at the
    start.
    """
    seconds = frames / CLIP_FPS
    seen_s = seconds
    if rng.random() < 0.5:
        least = min(_LEAST_S.get(label, 2.2), seconds)
        seen_s = least + (seconds - least) * rng.uniform(0, 1) ** 1.5
    cut = bool(rng.random() < 0.15)
    margin = rng.uniform(-0.08, 0.12)
    if label == CYCLING or (label == RUNNING and rng.random() < 0.8):
        return _passes(rng, label, view, seen_s)
    if label == FIGHTING or (label == STANDING and rng.random() < 0.2) or (label == FALLING and rng.random() < 0.08):
        return _pair(rng, label, view, seen_s)
    if label in (WALKING, RUNNING) and rng.random() < 0.15:
        gait = running_gait(rng, random_body(rng)) if label == RUNNING else walking_gait(rng, random_body(rng))
        path = ways.stroll(rng, view, 1.3 * gait.cadence * gait.stride * seen_s, margin, cut)
        walks = [Act(WALK, -1.0, seen_s + 2)]
        return _shown(together(rng, path, gait, walks, 0.0, seen_s, CLIP_FPS), (0.0, seen_s), 0.0)
    body = random_body(rng)
    moment = MOMENTS[label](rng, body, seconds - seen_s, seconds)
    path = ways.stroll(rng, view, (4.5 if label == RUNNING else 1.8) * seconds, margin, cut)
    joints = perform(rng, body, moment.acts, path, seconds - seen_s, seconds, CLIP_FPS, moment.gait)
    return _shown([joints], moment.shows_s, seconds - seen_s)


def _passes(rng: np.random.Generator, label: str, view: View, seen_s: float) -> Performance:
    """Runs or rides through the picture, and is somewhere in it at the end."""
    body = random_body(rng)
    how, gait = random_ride(rng), running_gait(rng, body)
    speed = how.speed if label == CYCLING else gait.cadence * gait.stride
    least_m = min(rng.uniform(1.5, 7), seen_s) * speed + 1
    path, first, last = ways.sweep(rng, view, 2 + seen_s * speed, least_m, 0.25 * speed ** 2 + 1.5)
    end = rng.uniform(0.6 * last + 0.4 * first, last + 0.1 * speed)
    seen_s = float(np.clip((end - first) / speed + 0.2, 1.2, seen_s))

    def through(way: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
        return path(way + end - seen_s * speed)

    if label == CYCLING:
        joints = ride(rng, body, how, through, 0.0, seen_s, CLIP_FPS)
    else:
        joints = perform(rng, body, [Act(WALK, -1.0, seen_s + 2)], through, 0.0, seen_s, CLIP_FPS, gait)
    return _shown([joints], (0.0, seen_s), 0.0)


def _pair(rng: np.random.Generator, label: str, view: View, seen_s: float) -> Performance:
    spot = ways.spots(rng, view, 1, 0.08, bool(rng.random() < 0.1))[0]
    if label == STANDING:
        return _shown(talk(rng, spot, 0.0, seen_s, CLIP_FPS), (0.0, seen_s), 0.0)
    if label == FALLING:
        at = rng.uniform(0.4, max(seen_s - 1.2, 0.5))
        people = fight(rng, spot, 0.0, seen_s, CLIP_FPS, (-1.0, at), at)[::-1]
        return _shown(people, (at, min(at + 1.2, seen_s)), 0.0)
    if rng.random() < 0.7 or seen_s < 4:
        brawl_s = (-1.0, seen_s + 1.0)
    else:  # it begins, or is over
        length = rng.uniform(1.8, 0.8 * seen_s)
        begins = rng.uniform(0, seen_s - length)
        brawl_s = (begins, begins + length)
    people = fight(rng, spot, 0.0, seen_s, CLIP_FPS, brawl_s)
    order = rng.permutation(2)
    return _shown([people[place] for place in order], brawl_s, 0.0)


def _company(rng: np.random.Generator, label: str, view: View, performer: np.ndarray) -> Optional[np.ndarray]:
    """Somebody near a performer (T, 18, 3) who does nothing more severe, for as long, or None after some tries."""
    rank, count = LABELS.index(label), len(performer)
    for _ in range(4):
        lesser = LABELS[int(rng.integers(0, rank + 1))]
        if lesser in (FIGHTING, CYCLING) and lesser != label:
            continue
        other = act(rng, lesser, view, max(count, 40)).people[0][-count:]
        late = count - len(other)
        at, away = int(rng.integers(late, count)), rng.uniform(-np.pi, np.pi)
        beside = performer[at, NECK, :2] + rng.uniform(0.6, 2.2) * np.array([np.cos(away), np.sin(away)])
        other = other + np.append(beside - other[at - late, NECK, :2], 0)
        if late:  # behind the camera until then
            other = np.concatenate([np.repeat(other[:1] - [0, 1000, 0], late, 0), other])
        if 0.4 < _distance(performer, other) < NEAR_M:
            return other
    return None


def filmed(
    rng: np.random.Generator, view: View, performance: Performance, frames: int = 300
) -> Optional[np.ndarray]:
    """The performance as the camera process delivers it: (m, frames, 18, 3), zeros where nothing was found.

    x / width - 0.5, y / height - 0.5, confidence; people in any order. None where too little is seen of people[0], or
    of what it does.
    """
    looks = np.arange(len(performance.people[0]) - 1, -1, -int(rng.choice(_LOOKS)))[::-1]
    found = [drawn_out(one, looks) for one in observe(rng, view, performance.people, CLIP_FPS)]
    there = (found[0][..., 2] > 0).sum(1) >= 5
    first, last = performance.shows
    if there.mean() <= 0.4 or there[first:last].mean() <= 0.4 or not there[-45:].any():
        return None
    # The assembler leaves out whom it has seen for less than a second.
    kept = [one for number, one in enumerate(found) if not number or (one[..., 2] > 0).any(1).sum() >= CLIP_FPS]
    whole = np.zeros((len(kept), frames, JOINTS, 3))
    for place, one in zip(rng.permutation(len(kept)), kept):
        whole[place, -len(one) :] = np.where(one[..., 2:] > 0, one / [view.width, view.height, 1] - [0.5, 0.5, 0], 0)
    return whole


def drawn_out(found: np.ndarray, looks: np.ndarray) -> np.ndarray:
    """What becomes of poses (T, 18, 3) of which the camera process takes those of the frames ``looks`` alone.

    The assembler's rule, at 30 frames a second: between two sightings that are near enough a joint moves straight.
    """
    drawn, every = np.zeros_like(found), np.arange(len(found))
    for joint in range(found.shape[1]):
        known = looks[found[looks, joint, 2] > 0]
        if not len(known):
            continue
        before = np.searchsorted(known, every, side="right") - 1
        after = np.minimum(before + 1, len(known) - 1)
        gap = known[after] - known[before]
        near = (before >= 0) & ((every == known[before]) | ((gap > 0) & (gap <= GAP_S * CLIP_FPS)))
        for axis in range(3):
            drawn[near, joint, axis] = np.interp(every[near], known, found[known, joint, axis])
    return drawn


def sample(rng: np.random.Generator, label: str, frames: int = 300) -> np.ndarray:
    """One person of a clip, as the camera process would deliver it: (frames, 18, 3)."""
    return clip(rng, label, 1, frames)[0]


def clip(rng: np.random.Generator, label: str, persons: int = 2, frames: int = 300) -> np.ndarray:
    """The people of a clip whose most severe action is ``label``: (m, frames, 18, 3), m = 1 .. persons.

    Company is as severe or less, in the order of LABELS, near by at some time, and in any place.
    """
    while True:  # one try in five shows too little
        view = random_view(rng)
        performance = act(rng, label, view, frames)
        if persons < 2:
            performance = performance._replace(people=performance.people[:1])
        elif len(performance.people) < 2 and rng.random() < 0.35:
            company = _company(rng, label, view, performance.people[0])
            if company is not None:
                performance = performance._replace(people=performance.people + [company])
        found = filmed(rng, view, performance, frames)
        if found is not None:
            return found


def _distance(one: np.ndarray, other: np.ndarray) -> float:
    """How near two people come to each other: (T, 18, 3) metres each."""
    gap = one[:, NECK, :2] - other[:, NECK, :2]
    return float(np.hypot(gap[:, 0], gap[:, 1]).min())


class Staged(NamedTuple):
    """A scene in three dimensions: people are (T, 18, 3) metres each, in the order of the cast."""

    view: View
    people: List[np.ndarray]
    events: Tuple[RecordedEvent, ...]


def stage(
    seed: int, seconds: float = 30.0, fps: float = 30.0, cast: Sequence[str] = (WALKING, WALKING, FALLING),
    view: Optional[View] = None,
) -> Staged:
    """What the cast does before one camera (a random one, 1280 x 720, where none is given), T = seconds * fps.

    cast, events and errors as of ``generate``.
    """
    return _staged(np.random.default_rng(seed), seconds, fps, cast, view or (1280, 720))


def _staged(
    rng: np.random.Generator, seconds: float, fps: float, cast: Sequence[str], view: Union[View, Tuple[int, int]]
) -> Staged:
    for label in cast:
        if label not in LABELS:
            raise UsageError("generator: nobody can be {!r}: choose of {}".format(label, ", ".join(LABELS)))
    if seconds < 4 or not 1 <= fps <= 240:
        raise UsageError("generator: {} s at {} frames a second: ask for 4 s or more at 1 to 240".format(seconds, fps))
    if not isinstance(view, View):
        view = random_view(rng, *view)
    people, events = [None] * len(cast), []  # type: List, List[RecordedEvent]
    fighters = [place for place, label in enumerate(cast) if label == FIGHTING]
    groups = [tuple(fighters[at : at + 2]) for at in range(0, len(fighters), 2)]
    groups += [(place,) for place, label in enumerate(cast) if label != FIGHTING]
    for group in sorted(groups):
        others = [one for one in people if one is not None]
        best = None
        for _ in range(_TRIES):
            made, done = part(rng, view, cast[group[0]], seconds, fps)
            gap = min([_distance(one, other) for one in made[: len(group)] for other in others] or [np.inf])
            if best is None or gap > best[0]:
                best = gap, made, done
            if gap > _APART_M:
                break
        for place, one in zip(group, best[1]):
            people[place] = one
            events += [RecordedEvent(label, place, round(float(start), 3), round(float(end), 3))
                       for label, start, end in best[2]]
    events.sort(key=lambda event: (event.start_s, event.person))
    return Staged(view, people, tuple(events))


def generate(
    seed: int, seconds: float = 30.0, fps: float = 30.0, cast: Sequence[str] = (WALKING, WALKING, FALLING),
    width: int = 1280, height: int = 720,
) -> Recording:
    """A recording of people before one camera, the same for the same arguments.

    cast : what each person does, of LABELS. A walker stops at times, a faller walks or stands, falls once between a
    quarter and two thirds of the time and stays down. Two who fight face each other; a single one fights with somebody
    whom the camera does not see. An event's ``person`` is the place in the cast; it lasts from the loss of balance to
    rest, from a jump's crouch until the person stands again, or for as long as it is done. Standing and walking are
    no events.
    Raises UsageError for a label that is none, or less than four seconds.
    """
    rng = np.random.default_rng(seed)
    view, people, events = _staged(rng, seconds, fps, cast, (width, height))
    frames = int(round(seconds * fps))
    found = observe(rng, view, people, fps) if people else np.zeros((0, frames, JOINTS, 3))
    found = found.astype(np.float32)
    there = (found[..., 2] > 0).any(-1)
    return Recording(width, height, float(fps), tuple(found[there[:, at], at] for at in range(frames)), events)
