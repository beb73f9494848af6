"""Round weights so that what they make of real inputs changes least, not each weight for itself.

A weight is rounded, and what that costs is taken back in the weights that are not yet rounded, as far as the inputs go
together: a convolution's neighbouring frames and joints do, very much. Source: Hassibi and Stork, "Second order
derivatives for network pruning" (NIPS 1992); Frantar et al., "GPTQ", arXiv:2210.17323.
"""

import numpy as np

DRIFT = 1      # units that a weight may end up away from its own rounding: the bound of its row allows for them
_DAMPING = 1e-3  # of the mean power of an input: what calibration did not meet is not for free
_PANEL = 128


def rounded(units: np.ndarray, moment: np.ndarray) -> np.ndarray:
    """Integers for ``units`` (O, K) real, each within DRIFT of its own rounding.

    moment : (K, K), the mean of input times input, in any scale
    """
    count = units.shape[1]
    power = float(np.trace(moment)) / count
    if not power > 0:
        return np.rint(units)
    order = np.argsort(-np.diag(moment), kind="stable")  # the loudest first: they have most left to lean on
    inverse = np.linalg.inv(moment[np.ix_(order, order)] + _DAMPING * power * np.eye(count))
    upper = np.linalg.cholesky((inverse + inverse.T) / 2).T
    left, own = units[:, order].copy(), np.rint(units[:, order])
    made = np.empty_like(own)
    for first in range(0, count, _PANEL):
        last = min(first + _PANEL, count)
        errors = np.empty((len(units), last - first))
        for place in range(first, last):
            made[:, place] = np.clip(np.rint(left[:, place]), own[:, place] - DRIFT, own[:, place] + DRIFT)
            errors[:, place - first] = (left[:, place] - made[:, place]) / upper[place, place]
            left[:, place + 1:last] -= np.outer(errors[:, place - first], upper[place, place + 1:last])
        left[:, last:] -= errors @ upper[first:last, last:]
    found = np.empty_like(made)
    found[:, order] = made
    return found
