"""What people do with their hands: waves, and what must not be taken for one.

A wave goes to and fro above the shoulder at 0.8 to 2.5 Hz with one arm or both. Who scratches the head, telephones,
points, raises an arm once or drinks holds a hand there too, but does not swing it.
"""

from typing import List

import numpy as np

from edged.camera.acts import HANDS, WAVING, Act, Hands
from edged.camera.puppet import SIDES, Body


def wave(rng: np.random.Generator, body: Body, start_s: float, end_s: float) -> List[Act]:
    """Waving from ``start_s`` to ``end_s``, one arm mostly."""
    arm_m = body.upper_arm + body.forearm
    rate, phase = rng.uniform(0.8, 2.5), rng.uniform(0, 1)
    if rng.random() < 0.7:
        arms = [int(rng.integers(2))]
    else:
        arms = [0, 1]
    # The wider the slower: a hand hardly goes faster than 2.5 m/s.
    width = rng.uniform(0.5, 1.0) * min(0.42 * arm_m, 2.5 / (2 * np.pi * rate))
    high, out, ahead = rng.uniform(0.3, 0.85), rng.uniform(0.1, 0.55), rng.uniform(0.05, 0.35)
    flags, together = rng.random() < 0.2, rng.random() < 0.6
    acts = []
    for arm in arms:
        if flags:  # up and down instead of to and fro
            place, swing = (ahead, SIDES[arm] * out, 0.6), (0.0, 0.0, width)
        else:
            place = (ahead, SIDES[arm] * out, high)
            swing = (0.25 * width, width * (SIDES[arm] if together else 1.0), 0.0)
        made = Hands(arm, tuple(part * arm_m for part in place), swing, rate, phase, rng.uniform(0.3, 0.6))
        acts.append(Act(HANDS, start_s, end_s, made, "" if acts else WAVING))
    return acts


def handling(rng: np.random.Generator, body: Body, start_s: float, end_s: float) -> List[Act]:
    """Something done with a hand that is no wave, somewhere between ``start_s`` and ``end_s``."""
    arm, arm_m = int(rng.integers(2)), body.upper_arm + body.forearm
    side, kind = SIDES[arm], rng.random()
    length, swing, rate = rng.uniform(1.5, 6), (0.0, 0.0, 0.0), 0.0
    if kind < 0.2:  # scratches the head, arranges the hair
        place = (0.06, -side * 0.10, rng.uniform(0.22, 0.34))
        swing, rate = (0.015, 0.02, 0.01), rng.uniform(2, 4)
    elif kind < 0.4:  # telephones
        place, length = (0.07, -side * 0.09, rng.uniform(0.1, 0.17)), rng.uniform(4, 15)
    elif kind < 0.6:  # points somewhere
        away, up = rng.normal(0, 0.6), rng.uniform(-0.3, 0.5)
        place = (np.cos(away) * arm_m, np.sin(away) * arm_m, up * arm_m)
    elif kind < 0.8:  # raises an arm, once
        place = (rng.uniform(0, 0.4) * arm_m, side * rng.uniform(0, 0.5) * arm_m, rng.uniform(0.5, 0.95) * arm_m)
        length = rng.uniform(0.9, 3)
    else:  # drinks, eats, holds a thing before the eyes
        place = (rng.uniform(0.12, 0.3), -side * rng.uniform(0.08, 0.16), rng.uniform(-0.05, 0.15))
        swing, rate = (0.05, 0.0, 0.05), rng.uniform(0.1, 0.4)
    start_s = rng.uniform(start_s, max(end_s - 1.0, start_s + 0.01))
    made = Hands(arm, tuple(float(part) for part in place), swing, rate, 0.0, rng.uniform(0.35, 0.7))
    return [Act(HANDS, start_s, min(start_s + length, end_s + 3), made)]


def talking(rng: np.random.Generator, body: Body, start_s: float, end_s: float) -> List[Act]:
    """Hands that go along with words, before the belly or the chest."""
    acts = []
    for arm, side in enumerate(SIDES):
        if rng.random() < 0.7:
            place = (rng.uniform(0.2, 0.4), side * rng.uniform(-0.1, 0.2), rng.uniform(-0.4, -0.1))
            swing = (rng.uniform(0, 0.08), rng.uniform(-0.1, 0.1), rng.uniform(0, 0.1))
            made = Hands(arm, place, swing, rng.uniform(0.4, 1.5), rng.uniform(0, 1), rng.uniform(0.4, 0.7))
            acts.append(Act(HANDS, start_s, start_s + rng.uniform(1.2, 5), made))
    return acts or handling(rng, body, start_s, end_s)
