"""Made-up people before a made-up camera: recordings for the demo and the tests, samples for training.

Everything follows from the seed. Nothing here was fetched or recorded: proportions and timing come from textbooks
(puppet.py, performance.py), the camera and a pose estimator's faults from viewpoint.py.
"""

from typing import List, Sequence, Tuple

import numpy as np

from edged.camera.acts import FALL, JUMP, STOOP, WALK, Act, random_fall, random_jump, random_stoop
from edged.camera.assemble import GAP_S
from edged.camera.performance import Path, perform
from edged.camera.puppet import NECK, Body, random_body
from edged.camera.recording import RecordedEvent, Recording
from edged.camera.viewpoint import View, observe, places, random_view
from edged.errors import UsageError

STANDING, WALKING, JUMPING, FALLING = LABELS = ("standing", "walking", "jumping", "falling")
CLIP_FPS = 30.0
_APART_M = 0.7  # people do not walk through each other
_TRIES = 12
_LOOKS = (1, 2, 3, 3, 3, 4, 6)  # of so many frames the pose estimator has time for one
_EVENTS = {JUMP: JUMPING, FALL: FALLING}


def _ways(rng: np.random.Generator, view: View, length_m: float, margin: float) -> Path:
    """A smooth way over the part of the ground that the camera sees, ``length_m`` long or longer."""
    spots = places(rng, view, 64, margin)
    while len(spots) < 8:
        spots = np.concatenate([spots, places(rng, view, 256, margin)])
    corners, long, ahead = [spots[0]], 0.0, rng.normal(0, 1, 2)
    while long < length_m + 3:
        step = spots[rng.integers(len(spots), size=6)] - corners[-1]
        far = np.hypot(step[:, 0], step[:, 1])
        # Of six spots the one that is not too near and asks for the least of a turn.
        fitness = step @ ahead / np.maximum(far, 1e-9) / np.hypot(*ahead) - 3 * (far < 1.0)
        best = int(np.argmax(fitness))
        ahead, long = step[best] + 1e-6, long + max(far[best], 0.1)
        corners.append(corners[-1] + ahead)
    corners = np.array(corners)
    marks = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(corners, axis=0).T))])
    fine = np.arange(0, marks[-1], 0.05)
    dense = np.stack([np.interp(fine, marks, corners[:, axis]) for axis in (0, 1)], -1)
    dense = _averaged(_averaged(dense, 18), 18)  # corners are cut, within a stride
    along = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(dense, axis=0).T))])
    step = np.gradient(dense, axis=0)
    heading = _averaged(np.unwrap(np.arctan2(step[:, 1], step[:, 0]))[:, None], 12)[:, 0]
    # Before its first metre and after its last the way goes straight on.
    first, last = (np.array([np.cos(angle), np.sin(angle)]) for angle in (heading[0], heading[-1]))

    def path(way: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
        place = np.stack([np.interp(way, along, dense[:, axis]) for axis in (0, 1)], -1)
        place = place + np.minimum(way, 0)[:, None] * first + np.maximum(way - along[-1], 0)[:, None] * last
        return place, np.interp(way, along, heading)

    return path


def _averaged(x: np.ndarray, reach: int) -> np.ndarray:
    """Each row's mean with ``reach`` rows on either side: (N, C) -> (N, C)."""
    padded = np.pad(x, ((reach + 1, reach), (0, 0)), mode="edge")
    total = np.cumsum(padded, axis=0)
    return (total[2 * reach + 1 :] - total[: -2 * reach - 1]) / (2 * reach + 1)


def _idle(rng: np.random.Generator, start_s: float, end_s: float, stoops: float) -> List[Act]:
    """Standing, now and then bending down or sitting down for a while."""
    acts, at = [], start_s + rng.uniform(0.5, 4)
    while at + 2 < end_s:
        span = min(rng.uniform(1.8, 5), end_s - at)
        if rng.random() < stoops:
            acts.append(Act(STOOP, at, at + span, random_stoop(rng)))
        at += span + rng.uniform(0.5, 5)
    return acts


def _stroll(rng: np.random.Generator, start_s: float, end_s: float) -> List[Act]:
    """Walking, with stops."""
    acts, at = [], start_s - rng.uniform(0, 1)
    while at < end_s - 1:
        span = rng.uniform(4, 14)
        stop = at + span if at + span < end_s - 1.5 else end_s
        acts.append(Act(WALK, at, stop))
        rest = rng.uniform(0.8, 2.5)
        acts.extend(_idle(rng, stop, stop + rest, 0.2) if stop < end_s else [])
        at = stop + rest
    return acts


def _jumps(rng: np.random.Generator, start_s: float, end_s: float, most: int) -> List[Act]:
    """Up to ``most`` jumps on the spot, one after the other."""
    acts, at = [], start_s
    for _ in range(most):
        jump = random_jump(rng)
        if at + jump.duration_s > end_s:
            break
        acts.append(Act(JUMP, at, at + jump.duration_s, jump))
        at += jump.duration_s + rng.uniform(0.0, 0.8)
    return acts


def _fall(rng: np.random.Generator, body: Body, at_s: float, walking: bool) -> Act:
    fall = random_fall(rng, walking)
    return Act(FALL, at_s, at_s + fall.duration_s(body), fall)


def _part(rng: np.random.Generator, body: Body, label: str, seconds: float) -> List[Act]:
    """What one of the cast does in a recording."""
    if label == STANDING:
        return _idle(rng, 0, seconds, 0.4)
    if label == WALKING:
        return _stroll(rng, 0, seconds)
    if label == JUMPING:
        acts, at = [], rng.uniform(1, 3)
        while at < seconds:
            jumps = _jumps(rng, at, seconds, int(rng.integers(1, 4)))
            acts += jumps
            at = (jumps[-1].end_s if jumps else at) + rng.uniform(2, 5)
        return acts
    at = rng.uniform(0.25, 0.6) * seconds
    if rng.random() < 0.6:
        return [Act(WALK, -1.0, at), _fall(rng, body, at, walking=True)]
    return [_fall(rng, body, at, walking=False)]


# What somebody does who is seen from start_s to end_s, and from when to when the label shows. Half of a fall is
# enough, and a jump that has not landed yet: alerts are to come soon.
_Moment = Tuple[List[Act], Tuple[float, float]]


def _stands(rng: np.random.Generator, body: Body, start_s: float, end_s: float) -> _Moment:
    """Who bends down or crouches when the clip ends does not fall, and is the likeliest to be taken for it."""
    kind = rng.random()
    if kind < 0.2:  # fell before, lies still
        fell = _fall(rng, body, 0.0, walking=rng.random() < 0.5)
        at = start_s - fell.end_s - rng.uniform(0.1, 6)
        return [Act(FALL, at, at + fell.end_s, fell.details)], (start_s, end_s)
    if kind < 0.35:  # is about to jump
        jump = random_jump(rng)
        at = end_s - rng.uniform(0.2, 1.0) * jump.marks()[0]
        return _idle(rng, start_s, at, 0.3) + [Act(JUMP, at, at + jump.duration_s, jump)], (start_s, end_s)
    return _idle(rng, start_s - rng.uniform(0, 4), end_s + 3, 0.6), (start_s, end_s)


def _walks(rng: np.random.Generator, body: Body, start_s: float, end_s: float) -> _Moment:
    seen_s = end_s - start_s
    least = max(1.0, 0.25 * seen_s)
    kind = rng.random()
    if kind < 0.5:
        return [Act(WALK, start_s - 1, end_s + 2)], (start_s, end_s)
    if kind < 0.7:
        stop = start_s + rng.uniform(least, seen_s)
        return [Act(WALK, start_s - 1, stop)] + _idle(rng, stop, end_s + 3, 0.4), (start_s, stop)
    if kind < 0.85:
        go = end_s - rng.uniform(least, seen_s)
        return _idle(rng, start_s, go - 0.2, 0.3) + [Act(WALK, go - 0.2, end_s + 2)], (go, end_s)
    return _stroll(rng, start_s, end_s), (start_s, end_s)


def _leaps(rng: np.random.Generator, body: Body, start_s: float, end_s: float) -> _Moment:
    jump = random_jump(rng)
    airborne = 0.4 * jump.marks()[1] + 0.6 * jump.lands_s
    at = rng.uniform(start_s, max(end_s - airborne, start_s + 0.01))
    acts = [Act(JUMP, at, at + jump.duration_s, jump)]
    acts += _jumps(rng, acts[0].end_s + rng.uniform(0, 1.5), end_s, int(rng.integers(0, 3)))
    if rng.random() < 0.4 and at - start_s > 0.8:  # came walking
        acts.insert(0, Act(WALK, start_s - 1, at - rng.uniform(0, 0.3)))
    if rng.random() < 0.4 and end_s - acts[-1].end_s > 1.5:  # goes away
        acts.append(Act(WALK, acts[-1].end_s + 0.1, end_s + 2))
    return acts, (at, min(at + jump.lands_s, end_s))


def _falls(rng: np.random.Generator, body: Body, start_s: float, end_s: float) -> _Moment:
    walking = rng.random() < 0.6
    fell = _fall(rng, body, 0.0, walking)
    latest, earliest = end_s - 0.65 * fell.end_s, start_s + 0.3
    if rng.random() < 0.4:
        earliest = max(earliest, latest - 1.8)
    elif end_s - start_s > 8:
        earliest = start_s - 0.3 * fell.end_s
    at = rng.uniform(earliest, latest)
    if walking:
        acts = [Act(WALK, min(start_s, at) - 1, at)]
    elif rng.random() < 0.5 and at - start_s > 3:
        acts = [Act(WALK, start_s - 1, at - rng.uniform(0.8, 2))]
    else:
        acts = _idle(rng, start_s, at, 0.3)
    return acts + [Act(FALL, at, at + fell.end_s, fell.details)], (max(at, start_s), min(at + fell.end_s, end_s))


_MOMENTS = {STANDING: _stands, WALKING: _walks, JUMPING: _leaps, FALLING: _falls}


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
    """One person of a clip, as the camera process would deliver it: (frames, 18, 3), zeros where nothing was found.

    x / width - 0.5, y / height - 0.5, confidence; 30 frames a second, and the last one is now. The person may have
    appeared late, the action may be anywhere, right at the end included, or half over at the start.
    """
    seconds, width, height = frames / CLIP_FPS, 1280, 720
    while True:
        least = 1.2 if label in (STANDING, WALKING) else 2.2
        seen_s = seconds if rng.random() < 0.6 else rng.uniform(least, seconds)
        body, view = random_body(rng), random_view(rng, width, height)
        acts, (shows, over) = _MOMENTS[label](rng, body, seconds - seen_s, seconds)
        path = _ways(rng, view, 2 * seconds, rng.uniform(-0.08, 0.12))
        joints = perform(rng, body, acts, path, seconds - seen_s, seconds, CLIP_FPS)
        found = observe(rng, view, [joints], CLIP_FPS)[0]
        found = drawn_out(found, np.arange(len(found) - 1, -1, -int(rng.choice(_LOOKS)))[::-1])
        there = (found[..., 2] > 0).sum(1) >= 6
        first = int((shows - seconds + seen_s) * CLIP_FPS)
        acting = there[max(first, 0) : max(int((over - seconds + seen_s) * CLIP_FPS), first + 2)]
        if there.mean() > 0.5 and acting.mean() > 0.5 and there[-45:].any():
            break
    whole = np.zeros((frames, found.shape[1], 3))
    known = found[..., 2] > 0
    found = np.stack([found[..., 0] / width - 0.5, found[..., 1] / height - 0.5, found[..., 2]], -1)
    whole[-len(found) :] = np.where(known[..., None], found, 0)
    return whole


def clip(rng: np.random.Generator, label: str, persons: int = 2, frames: int = 300) -> np.ndarray:
    """The people of a clip whose most severe action is ``label``: (m, frames, 18, 3), m = 1 .. persons.

    Company is as severe or less, in the order of LABELS, and in any place.
    """
    rank = LABELS.index(label)
    company = int(rng.integers(0, persons)) if rng.random() < 0.9 else 0
    people = [sample(rng, label, frames)]
    people += [sample(rng, LABELS[rng.integers(0, rank + 1)], frames) for _ in range(company)]
    return np.stack([people[place] for place in rng.permutation(len(people))])


def _distance(one: np.ndarray, other: np.ndarray) -> float:
    """How near two people come to each other: (T, 18, 3) metres each."""
    gap = one[:, NECK, :2] - other[:, NECK, :2]
    return float(np.hypot(gap[:, 0], gap[:, 1]).min())


def _act_out(
    rng: np.random.Generator, view: View, label: str, others: List[np.ndarray], seconds: float, fps: float
) -> Tuple[np.ndarray, List[Act]]:
    """Joints (T, 18, 3) metres and acts of one of the cast, out of the others' way as far as that can be had."""
    best = None
    margin = 0.12 if label in (JUMPING, FALLING) else rng.uniform(-0.1, 0.1)
    for _ in range(_TRIES):
        body = random_body(rng)
        acts = _part(rng, body, label, seconds)
        joints = perform(rng, body, acts, _ways(rng, view, 2 * seconds, margin), 0.0, seconds, fps)
        gap = min([_distance(joints, other) for other in others] or [np.inf])
        if best is None or gap > best[0]:
            best = gap, joints, acts
        if gap > _APART_M:
            break
    return best[1], best[2]


def _events(cast: Sequence[List[Act]], seconds: float) -> Tuple[RecordedEvent, ...]:
    found = [RecordedEvent(_EVENTS[act.kind], person, round(float(act.start_s), 3), round(float(act.end_s), 3))
             for person, acts in enumerate(cast) for act in acts if act.kind in _EVENTS and act.end_s <= seconds]
    return tuple(sorted(found, key=lambda event: (event.start_s, event.person)))


def generate(
    seed: int, seconds: float = 30.0, fps: float = 30.0, cast: Sequence[str] = (WALKING, WALKING, FALLING),
    width: int = 1280, height: int = 720,
) -> Recording:
    """A recording of people before one camera, the same for the same arguments.

    cast : what each person does, of LABELS. A walker stops at times, a faller walks or stands, falls once between a
    quarter and two thirds of the time and stays down. An event's ``person`` is the place in the cast; it lasts from
    the loss of balance to rest, or from a jump's crouch until the person stands again.
    Raises UsageError for a label that is none, or less than four seconds.
    """
    for label in cast:
        if label not in LABELS:
            raise UsageError("generator: nobody can be {!r}: choose of {}".format(label, ", ".join(LABELS)))
    if seconds < 4 or not 1 <= fps <= 240:
        raise UsageError("generator: {} s at {} frames a second: ask for 4 s or more at 1 to 240".format(seconds, fps))
    rng = np.random.default_rng(seed)
    view = random_view(rng, width, height)
    joints, acts = [], []  # type: List[np.ndarray], List[List[Act]]
    for label in cast:
        one, done = _act_out(rng, view, label, joints, seconds, fps)
        joints.append(one)
        acts.append(done)
    frames = int(round(seconds * fps))
    found = observe(rng, view, joints, fps) if joints else np.zeros((0, frames, 18, 3))
    found = found.astype(np.float32)
    there = (found[..., 2] > 0).any(-1)
    return Recording(width, height, float(fps), tuple(found[there[:, at], at] for at in range(frames)),
                     _events(acts, seconds))
