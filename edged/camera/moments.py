"""What somebody does of whom a clip shows the last seconds, by the clip's label.

Half of a fall is enough, and a jump that has not landed yet: alerts are to come soon. What is not to be taken for a
label is done under a lesser one: who bends down or crouches when the clip ends does not fall, and is the likeliest to
be taken for it.
"""

from typing import List, NamedTuple, Optional, Tuple

import numpy as np

from edged.camera import courses, gestures
from edged.camera.acts import FALL, FALLING, JUMP, JUMPING, LYING, RUNNING, SITTING, STANDING, WALK, WALKING, WAVING
from edged.camera.acts import Act, random_fall, random_jump
from edged.camera.performance import Gait, running_gait, walking_gait
from edged.camera.puppet import Body


class Moment(NamedTuple):
    """acts, from when to when the label shows, and the gait, where it matters."""

    acts: List[Act]
    shows_s: Tuple[float, float]
    gait: Optional[Gait] = None


def idle(rng: np.random.Generator, body: Body, start_s: float, end_s: float, stoops: float) -> List[Act]:
    """Standing, now and then bending down, crouching, kneeling, or doing something with a hand."""
    acts, at = [], start_s + rng.uniform(0.5, 4)
    while at + 1.6 < end_s:
        span = min(rng.uniform(1.5, 5), end_s - at)
        if rng.random() < stoops:
            acts.append(courses.stoop(rng, body, at, span, rng.random() < 0.3))
            span = acts[-1].end_s - at
        elif rng.random() < 0.5:
            acts += gestures.handling(rng, body, at, at + span)
            span = max(span, acts[-1].end_s - at)
        at += span + rng.uniform(0.5, 5)
    return acts


def stroll(rng: np.random.Generator, body: Body, start_s: float, end_s: float) -> List[Act]:
    """Walking, with stops."""
    acts, at = [], start_s - rng.uniform(0, 1)
    while at < end_s - 1:
        span = rng.uniform(4, 14)
        stop = at + span if at + span < end_s - 1.5 else end_s
        acts.append(Act(WALK, at, stop))
        rest = rng.uniform(0.8, 2.5)
        acts.extend(idle(rng, body, stop, stop + rest, 0.2) if stop < end_s else [])
        at = max([stop + rest] + [act.end_s for act in acts])
    return acts


def jumps(rng: np.random.Generator, start_s: float, end_s: float, most: int) -> List[Act]:
    """Up to ``most`` jumps on the spot, one after the other."""
    acts, at = [], start_s
    for _ in range(most):
        jump = random_jump(rng)
        if at + jump.duration_s > end_s:
            break
        acts.append(Act(JUMP, at, at + jump.duration_s, jump, JUMPING))
        at += jump.duration_s + rng.uniform(0.0, 0.8)
    return acts


def fall(rng: np.random.Generator, body: Body, at_s: float, walking: bool) -> Act:
    made = random_fall(rng, walking)
    return Act(FALL, at_s, at_s + made.duration_s(body), made, FALLING)


def _moved(act: Act, by_s: float) -> Act:
    return Act(act.kind, act.start_s + by_s, act.end_s + by_s, act.details, act.label)


def _stands(rng: np.random.Generator, body: Body, start_s: float, end_s: float) -> Moment:
    kind, seen_s = rng.random(), end_s - start_s
    if kind < 0.12:  # is about to jump
        jump = random_jump(rng)
        at = end_s - rng.uniform(0.2, 1.0) * jump.marks()[0]
        acts = [act for act in idle(rng, body, start_s, at, 0.3) if act.end_s < at - 0.3]
        return Moment(acts + [Act(JUMP, at, at + jump.duration_s, jump)], (start_s, end_s))
    if kind < 0.22 and seen_s > 4:  # has stood up
        act = courses.sit(rng, body, 0.0, rng.uniform(1, 6), True, rng.random() < 0.2, 1.0)
        act = _moved(act, start_s + rng.uniform(0.1, 0.35) * seen_s - act.end_s)
        return Moment([act] + idle(rng, body, act.end_s, end_s + 3, 0.3), (max(act.end_s, start_s), end_s))
    if kind < 0.45:  # ends with going down, however fast
        span = rng.uniform(1.5, 5)
        act = courses.stoop(rng, body, end_s - rng.uniform(0.2, 1.0) * span, span, rng.random() < 0.5)
        acts = [one for one in idle(rng, body, start_s, act.start_s, 0.3) if one.end_s < act.start_s]
        return Moment(acts + [act], (start_s, end_s))
    return Moment(idle(rng, body, start_s - rng.uniform(0, 4), end_s + 3, 0.5), (start_s, end_s))


def _sits(rng: np.random.Generator, body: Body, start_s: float, end_s: float) -> Moment:
    kind, seen_s, floor = rng.random(), end_s - start_s, rng.random() < 0.25
    down_s = rng.uniform(0.8, 3.0) if rng.random() < 0.7 else rng.uniform(0.35, 0.8)
    if kind < 0.08 and seen_s > 5:  # on the hands and toes, or the knees
        act = courses.push_ups(rng, body, 0.0, int(rng.integers(2, 7)))
        act = _moved(act, rng.uniform(start_s - 3, start_s + 1))
        return Moment([act], (max(act.start_s, start_s), end_s))
    if kind < 0.45 or seen_s < 3:  # sits all the time
        act = courses.sit(rng, body, start_s - 4 - rng.uniform(0, 3), seen_s + 9, False, floor, down_s)
        return Moment([act] + _hands(rng, body, start_s, end_s, 0.4), (start_s, end_s))
    if kind < 0.82:  # sits down
        at = end_s - down_s - rng.uniform(0.8, seen_s - 0.8)
        act = courses.sit(rng, body, at, seen_s + 5, False, floor, down_s)
        return Moment(_came(rng, body, start_s, at) + [act], (max(at + down_s, start_s), end_s))
    act = courses.sit(rng, body, 0.0, rng.uniform(0.7, 1.2) * seen_s, True, floor, down_s)  # and stands up
    late = rng.uniform(-0.25 * seen_s, 0.8)
    act = _moved(act, end_s + late - act.end_s)
    return Moment([act] + _hands(rng, body, start_s, act.end_s - 2, 0.4), (max(act.start_s, start_s), end_s))


def _hands(rng: np.random.Generator, body: Body, start_s: float, end_s: float, likely: float) -> List[Act]:
    return gestures.handling(rng, body, start_s, end_s) if rng.random() < likely else []


def _came(rng: np.random.Generator, body: Body, start_s: float, end_s: float) -> List[Act]:
    """Before something: walked there, or stood there."""
    if rng.random() < 0.6 and end_s > start_s + 0.5:
        return [Act(WALK, start_s - 1, end_s - rng.uniform(0, 0.6))]
    return [act for act in idle(rng, body, start_s, end_s, 0.2) if act.end_s < end_s]


def _walks(rng: np.random.Generator, body: Body, start_s: float, end_s: float) -> Moment:
    acts, shows, gait = _goes(rng, body, start_s, end_s)
    return Moment(acts + _hands(rng, body, start_s, end_s, 0.25), shows, walking_gait(rng, body))


def _goes(rng: np.random.Generator, body: Body, start_s: float, end_s: float) -> Moment:
    seen_s = end_s - start_s
    least = max(1.0, 0.25 * seen_s)
    kind = rng.random()
    if kind < 0.5 or seen_s < 1.5:
        return Moment([Act(WALK, start_s - 1, end_s + 2)], (start_s, end_s))
    if kind < 0.7:
        stop = start_s + rng.uniform(least, seen_s)
        return Moment([Act(WALK, start_s - 1, stop)] + idle(rng, body, stop, end_s + 3, 0.4), (start_s, stop))
    if kind < 0.85:
        go = end_s - rng.uniform(least, seen_s)
        acts = [act for act in idle(rng, body, start_s, go - 0.2, 0.3) if act.end_s < go - 0.2]
        return Moment(acts + [Act(WALK, go - 0.2, end_s + 2)], (go, end_s))
    return Moment(stroll(rng, body, start_s, end_s), (start_s, end_s))


def _runs(rng: np.random.Generator, body: Body, start_s: float, end_s: float) -> Moment:
    seen_s, kind = end_s - start_s, rng.random()
    gait = running_gait(rng, body)
    if kind < 0.75 or seen_s < 2.5:
        return Moment([Act(WALK, start_s - 1, end_s + 2, label=RUNNING)], (start_s, end_s), gait)
    if kind < 0.88:
        stop = start_s + rng.uniform(0.5, 1.0) * seen_s
        return Moment([Act(WALK, start_s - 1, stop, label=RUNNING)], (start_s, stop), gait)
    go = end_s - rng.uniform(0.5, 1.0) * seen_s
    return Moment([Act(WALK, go, end_s + 2, label=RUNNING)], (go, end_s), gait)


def _waves(rng: np.random.Generator, body: Body, start_s: float, end_s: float) -> Moment:
    seen_s, kind = end_s - start_s, rng.random()
    span = rng.uniform(1.6, max(seen_s, 1.8)) if rng.random() < 0.6 else seen_s + 2
    at = rng.uniform(start_s - 0.2 * span, max(end_s - 0.7 * span, start_s))
    acts = gestures.wave(rng, body, at, at + span)
    shows = (max(at, start_s), min(at + span, end_s))
    if kind < 0.3:
        gait = walking_gait(rng, body, rng.uniform(-0.2, 0.6))
        return Moment(_goes(rng, body, start_s, end_s).acts + acts, shows, gait)
    if kind < 0.4:
        return Moment([courses.sit(rng, body, start_s - 5, seen_s + 9, False, False, 1.5)] + acts, shows)
    return Moment(acts, shows)


def _leaps(rng: np.random.Generator, body: Body, start_s: float, end_s: float) -> Moment:
    jump = random_jump(rng)
    airborne = 0.4 * jump.marks()[1] + 0.6 * jump.lands_s
    at = rng.uniform(start_s, max(end_s - airborne, start_s + 0.01))
    acts = [Act(JUMP, at, at + jump.duration_s, jump, JUMPING)]
    acts += jumps(rng, acts[0].end_s + rng.uniform(0, 1.5), end_s, int(rng.integers(0, 3)))
    if rng.random() < 0.4 and at - start_s > 0.8:  # came walking
        acts.insert(0, Act(WALK, start_s - 1, at - rng.uniform(0, 0.3)))
    if rng.random() < 0.4 and end_s - acts[-1].end_s > 1.5:  # goes away
        acts.append(Act(WALK, acts[-1].end_s + 0.1, end_s + 2))
    return Moment(acts, (at, min(at + jump.lands_s, end_s)))


def _lies(rng: np.random.Generator, body: Body, start_s: float, end_s: float) -> Moment:
    kind, seen_s = rng.random(), end_s - start_s
    if kind < 0.3 or seen_s < 3:  # fell before
        fell = fall(rng, body, 0.0, rng.random() < 0.5)
        fell = _moved(fell, start_s - fell.end_s - rng.uniform(0.1, 6))
        return Moment([fell], (start_s, end_s))
    if kind < 0.55:  # has lain all the time
        down_s = rng.uniform(2, 6)
        act = courses.lie_down(rng, body, start_s - down_s - rng.uniform(0.2, 4), seen_s + 6, False, down_s)
        return Moment([act], (start_s, end_s))
    if kind < 0.85:  # lies down
        down_s = rng.uniform(2, 6)
        at = end_s - down_s - rng.uniform(1.1, max(seen_s - 1.5, 1.2))
        act = courses.lie_down(rng, body, at, seen_s + 6, False, down_s)
        return Moment(_came(rng, body, start_s, at) + [act], (max(courses.lying_from_s(act), start_s), end_s))
    lain_s = rng.uniform(0.6, 1.0) * seen_s  # gets up after all
    if rng.random() < 0.5:
        fell = fall(rng, body, 0.0, False)
        fell = _moved(fell, start_s - fell.end_s - rng.uniform(0.1, 3))
        acts = [fell, courses.get_up(rng, body, start_s + lain_s, 0.0, True, abs(fell.details.towards) < 1.2)]
    else:
        act = courses.lie_down(rng, body, 0.0, lain_s + 1, True, 3.0)
        acts = [_moved(act, start_s - courses.lying_from_s(act))]
    return Moment(acts, (start_s, min(start_s + lain_s, end_s)))


def _falls(rng: np.random.Generator, body: Body, start_s: float, end_s: float) -> Moment:
    kind, seen_s = rng.random(), end_s - start_s
    running = kind < 0.1
    walking = kind < 0.6
    seated = 0.6 <= kind < 0.75 and seen_s > 3
    fell = fall(rng, body, 0.0, walking)
    latest, earliest = end_s - 0.65 * fell.end_s, start_s + 0.3
    if rng.random() < 0.4:
        earliest = max(earliest, latest - 1.8)
    elif seen_s > 8:
        earliest = start_s - 0.3 * fell.end_s
    at = rng.uniform(min(earliest, latest), latest)
    if walking:
        acts = [Act(WALK, min(start_s, at) - 1, at)]
    elif seated:
        acts = [_slumped(courses.sit(rng, body, start_s - 5, at - start_s + 8, False, rng.random() < 0.1, 1.5), at)]
    elif rng.random() < 0.5 and at - start_s > 3:
        acts = [Act(WALK, start_s - 1, at - rng.uniform(0.8, 2))]
    else:
        acts = [act for act in idle(rng, body, start_s, at, 0.3) if act.end_s < at]
    acts.append(_moved(fell, at))
    if not seated and rng.random() < 0.2:  # gets up again, or tries to
        rises = bool(rng.random() < 0.5)
        acts.append(courses.get_up(rng, body, acts[-1].end_s + rng.uniform(0.3, 3), rng.uniform(0.2, 2), rises,
                                   abs(fell.details.towards) < 1.2))
    return Moment(acts, (max(at, start_s), min(at + fell.end_s, end_s)), running_gait(rng, body) if running else None)


def _slumped(act: Act, at_s: float) -> Act:
    """Somebody who sits from now on, and ceases to fidget when falling."""
    return Act(act.kind, act.start_s, max(act.end_s, at_s + 5), act.details)


MOMENTS = {
    STANDING: _stands, SITTING: _sits, WALKING: _walks, RUNNING: _runs, WAVING: _waves, JUMPING: _leaps, LYING: _lies,
    FALLING: _falls,
}  # fmt: skip
