"""Ways through poses: sits down and up again, lies down, kneels, picks something up, does push-ups."""

from typing import List, Tuple

import numpy as np

from edged.camera import poses
from edged.camera.acts import COURSE, LYING, SITTING, Act, Course
from edged.camera.poses import Pose
from edged.camera.puppet import Body

_Steps = List[Tuple[float, Pose]]  # seconds to get there from the pose before


def _course(body: Body, steps: _Steps, rises: bool) -> Course:
    """From standing through the steps, the last of them back to standing where the person ``rises``."""
    times = np.cumsum([0.0] + [seconds for seconds, _ in steps])
    along = (poses.standing(body),) + tuple(pose for _, pose in steps)
    return Course(tuple(float(time) for time in times), along, rises)


def _fidgets(rng: np.random.Generator, pose: Pose, hold_s: float, lively: float) -> _Steps:
    """``pose`` for ``hold_s``, hands, trunk and head moving now and then."""
    steps, left = [], hold_s  # type: _Steps, float
    while left > 0.6:
        span = min(left, rng.uniform(0.5, 3.5))
        arms = np.array(pose.arms) + lively * rng.normal(0, [0.3, 0.1, 0.4], (2, 3)) * rng.integers(0, 2, (2, 1))
        arms[:, 2] = np.abs(arms[:, 2])
        tilt = (pose.tilt[0] + lively * rng.normal(0, 0.06), pose.tilt[1] + lively * rng.normal(0, 0.04))
        head = (pose.head[0] + rng.normal(0, 0.35), pose.head[1] + rng.normal(0, 0.15))
        steps.append((span, pose._replace(arms=arms, tilt=tilt, head=head)))
        left -= span
    return steps + [(max(left, 0.05), pose)]


def _between(one: Pose, other: Pose, share: float, lean: float) -> Pose:
    """Part of the way from one pose to another, bent forward by ``lean``."""
    row = (1 - share) * one.row() + share * other.row()
    return Pose(row[0], tuple(row[1:3]), (row[3] + lean, row[4]), row[5], row[6:12].reshape(2, 3),
                row[12:18].reshape(2, 3), tuple(row[18:20]), row[20], row[21], row[22])


def sit(
    rng: np.random.Generator, body: Body, start_s: float, hold_s: float, rises: bool, floor: bool, down_s: float,
) -> Act:
    """Sits down on a chair or the floor in ``down_s``, for ``hold_s``, and stands up again where ``rises``."""
    pose = poses.on_floor(rng, body) if floor else poses.on_chair(rng, body)
    steps = _to_seat(rng, body, pose, down_s) + _fidgets(rng, pose, hold_s, rng.uniform(0, 1.3))
    if rises:
        up_s = rng.uniform(0.8, 2.2) * (1.5 if floor else 1.0)
        steps += [(0.45 * up_s, _between(pose, poses.standing(body), 0.25, rng.uniform(0.3, 0.6))),
                  (0.55 * up_s, poses.standing(body))]
    course = _course(body, steps, rises)
    return Act(COURSE, start_s, start_s + course.duration_s, course, SITTING)


def _to_seat(rng: np.random.Generator, body: Body, pose: Pose, down_s: float) -> _Steps:
    lean = rng.uniform(0.25, 0.65)
    return [(0.55 * down_s, _between(poses.standing(body), pose, 0.6, lean)), (0.45 * down_s, pose)]


def lie_down(
    rng: np.random.Generator, body: Body, start_s: float, hold_s: float, rises: bool, down_s: float
) -> Act:
    """Lies down on purpose on the floor or a bed, slowly, by way of sitting or kneeling; gets up where ``rises``."""
    kind = rng.random()
    if kind < 0.4:
        seated = poses.on_floor(rng, body)
        lying = poses.supine_from(rng, body, seated)
        way = _to_seat(rng, body, seated, 0.5 * down_s)
    elif kind < 0.65:
        seated = poses.kneeling(rng, body)
        lying = poses.prone_from(rng, body, seated)
        way = [(0.45 * down_s, seated)]
        fours = _between(seated, lying, 0.35, 0.5)
        way.append((0.2 * down_s, fours._replace(arms=((1.3, 0.1, 0.1), (1.3, 0.1, 0.1)), calm=1.0)))
    else:
        seated = poses.on_chair(rng, body)
        lying = poses.on_bed(rng, body, seated)
        way = _to_seat(rng, body, seated, 0.5 * down_s)
    steps = way + [(0.5 * down_s, lying)]
    steps += _fidgets(rng, lying, hold_s, rng.uniform(0, 0.5) * rng.integers(0, 2))
    if rises:
        up_s = rng.uniform(2, 5)
        steps += [(0.5 * up_s, seated), (0.5 * up_s, poses.standing(body))]
    course = _course(body, steps, rises)
    return Act(COURSE, start_s, start_s + course.duration_s, course, LYING)


def lying_from_s(act: Act) -> float:
    """When somebody who lies down does lie, as far as ``calm`` tells."""
    course = act.details
    return act.start_s + next(time for time, pose in zip(course.times, course.poses) if pose.calm < 0.5)


def stoop(rng: np.random.Generator, body: Body, start_s: float, span_s: float, fast: bool = False) -> Act:
    """Bends down, crouches or kneels, for a while."""
    kind = rng.random()
    if kind < 0.4:
        pose = poses.bent(rng, body)
    elif kind < 0.75:
        pose = poses.crouching(rng, body)
    else:
        pose = poses.kneeling(rng, body)
    down_s = min(rng.uniform(0.35, 0.6) if fast else rng.uniform(0.5, 1.3), 0.4 * span_s)
    steps = [(down_s, pose)] + _fidgets(rng, pose, max(span_s - 2.2 * down_s, 0.1), rng.uniform(0, 0.8))
    course = _course(body, steps + [(1.2 * down_s, poses.standing(body))], True)
    return Act(COURSE, start_s, start_s + course.duration_s, course)


def push_ups(rng: np.random.Generator, body: Body, start_s: float, count: int) -> Act:
    """Down on the hands, ``count`` push-ups, and up again."""
    down, period = rng.uniform(1.2, 2.5), rng.uniform(1.0, 2.2)
    low, high = poses.plank(rng, body, True), poses.plank(rng, body, False)
    steps = [(0.6 * down, poses.crouching(rng, body)), (0.4 * down, high)]
    for _ in range(count):
        steps += [(0.5 * period, low), (0.5 * period, high)]
    steps += [(0.5 * down, poses.crouching(rng, body)), (0.6 * down, poses.standing(body))]
    course = _course(body, steps, True)
    return Act(COURSE, start_s, start_s + course.duration_s, course)


def get_up(
    rng: np.random.Generator, body: Body, start_s: float, hold_s: float, rises: bool, prone: bool
) -> Act:
    """After a fall: sits up or kneels for ``hold_s``, then stands up, or (not ``rises``) goes down again."""
    pose = poses.kneeling(rng, body) if prone else poses.on_floor(rng, body)
    steps = [(rng.uniform(1.0, 2.5), pose)] + _fidgets(rng, pose, hold_s, 0.5)
    if rises:
        steps.append((rng.uniform(1.2, 2.5), poses.standing(body)))
    else:
        low = poses.prone_from(rng, body, pose) if prone else poses.supine_from(rng, body, pose)
        steps.append((rng.uniform(0.8, 2.0), low))
    course = _course(body, steps, rises)
    return Act(COURSE, start_s, start_s + course.duration_s, course)
