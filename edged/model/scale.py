"""Scales: how many integers a real value gets. ``real = scale * integer`` throughout.

An activation has one scale, a weight matrix one an output channel. For every output channel
max|X| * sum|W| + |bias| < 2^31 must hold, so weight and activation bits share a budget of
B = 31 - log2(sum|W| / max|W|) magnitude bits: about 22 at K = 2304, 27 at K = 64.
"""

from dataclasses import dataclass
from typing import Optional, Tuple

import numpy as np

from edged.errors import PackageError
from edged.model.calibrate import Seen
from edged.model.layers import ACTIVATION_MAX, WEIGHT, WORD
from edged.model.rounding import DRIFT, rounded

WORD_LIMIT = (1 << 31) - 1

# An activation gets half of the budget and two bits more; each weight row then takes all that is left, up to 15
# bits. Even halves would suit equal errors: the activation needs more, as its range has a margin and a long
# tail, and as rounding.py makes up for much of a weight's rounding. Measured (rms logit error): at full size, random
# weights, two seeds: 1 bit 0.0089 and 0.0059, 2 bits 0.0074 and 0.0042, 3 bits 0.0108 and 0.0069 (1 bit, each weight
# rounded for itself: 0.0125 and 0.0071); the bundled network: 0.0023, 0.0016, 0.0016 (0.0024).
_SHARE_BITS = 2.0


@dataclass(frozen=True, eq=False)
class Tensor:
    """An activation as stored: ``high`` is its largest integer, ``scale`` the real value of 1, ``mean`` and ``moment``
    real."""

    high: int
    scale: float
    mean: np.ndarray
    moment: Optional[np.ndarray] = None


def tensor(seen: Seen, high: int, margin: float) -> Tensor:
    return Tensor(high, max(seen.largest, 1e-6) * margin / high, seen.mean, seen.moment)


def activation_high(*readers: np.ndarray) -> int:
    """Largest integer of an activation, by the weights (out, ...) that read it; without any, 32767."""
    high = ACTIVATION_MAX
    for weights in readers:
        rows = np.abs(weights).reshape(weights.shape[0], -1)
        live = rows[rows.max(axis=1) > 0]
        if live.size:
            budget = 31 - np.log2((live.sum(axis=1) / live.max(axis=1)).max())
            high = min(high, int(2 ** (budget / 2 + _SHARE_BITS)))
    return high


def fit(weights: np.ndarray, bias: np.ndarray, read: Tensor, limit: int) -> Tuple[np.ndarray, np.ndarray]:
    """int16 weights and their scale by channel: weights (O, ...), bias (..., O) real -> (O, ...), (O,).

    Takes the largest 1 / scale for which no weight passes 32767 and read.high * sum|W| + max|bias| stays within
    ``limit`` once rounded: that adds at most read.high * (DRIFT + 1 / 2) a weight to the sum, and as much to a
    corrected bias.
    """
    flat = np.abs(weights).reshape(weights.shape[0], -1)
    offset = np.abs(bias).reshape(-1, weights.shape[0]).max(axis=0)
    room = limit - (2 * DRIFT + 1) * read.high * flat.shape[1] - 1
    load = read.high * flat.sum(axis=1) + offset / read.scale
    with np.errstate(divide="ignore"):
        units = np.minimum((ACTIVATION_MAX - DRIFT) / flat.max(axis=1), room / load)
    scale = 1 / np.where(np.isfinite(units), units, 1.0)
    real = weights / spread(scale, weights)
    if read.moment is None or read.moment.shape[0] != flat.shape[1]:
        return np.rint(real).astype(WEIGHT), scale
    return rounded(real.reshape(len(real), -1), read.moment).reshape(real.shape).astype(WEIGHT), scale


def spread(scale: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """scale (O,) shaped to multiply weights (O, ...)."""
    return scale.reshape((-1,) + (1,) * (weights.ndim - 1))


def words(x: np.ndarray, what: str) -> np.ndarray:
    """x rounded to int32.  Raises PackageError where it does not fit."""
    rounded = np.rint(x)
    if not np.abs(rounded).max() <= WORD_LIMIT:
        raise PackageError("{} needs more than 31 bits: {:.6g}".format(what, float(np.abs(rounded).max())))
    return rounded.astype(WORD)


def multipliers(ratios: np.ndarray, what: str) -> Tuple[np.ndarray, int]:
    """Real ratios as int32 ``mult / 2^shift``, the largest with 31 bits."""
    largest = float(np.abs(ratios).max())
    shift = 62 if largest == 0 else int(min(30 - np.floor(np.log2(largest)), 62))
    if np.rint(largest * 2.0**shift) > WORD_LIMIT:
        shift -= 1
    if shift < 1:
        raise PackageError("{}: a ratio of {:.6g} between scales needs no shift".format(what, largest))
    return words(ratios * 2.0**shift, what), shift
