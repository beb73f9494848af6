"""Narrower arithmetics that others use for the same network, to be measured beside edged's own.

two decimals : weights and activations rounded to 0.01, as in Gomez, Yu, Duverger, SECRYPT 2023 (2-digit floats)
int8         : symmetric, one scale per tensor by its largest magnitude over the calibration clips
int8, per channel : the weights with one scale per output channel
What they compute between roundings is exact; batch norms are folded, as everybody does before quantising.
"""

from dataclasses import replace
from typing import Callable, List, Sequence, Tuple

import numpy as np

from edged.model import stgcn
from edged.model.calibrate import LOGITS, activations
from edged.model.fold import FoldedNetwork, fold

Answer = Callable[[np.ndarray], np.ndarray]
_INT8 = 127


def rivals(network: stgcn.Network, calibration_clips: Sequence[np.ndarray]) -> List[Tuple[str, Answer]]:
    """(name, function of an int16 clip (m, T, V, 3) that gives its logits (L,)) of each."""
    folded = fold(network)
    largest = _largest(folded, calibration_clips)
    return [("two decimals", _answer(_with_weights(folded, _two_decimals), lambda _: _two_decimals)),
            ("int8", _answer(_with_weights(folded, _per_tensor), lambda place: _int8(largest[place]))),
            ("int8, weights per channel", _answer(_with_weights(folded, _per_channel),
                                                  lambda place: _int8(largest[place])))]


def _two_decimals(x: np.ndarray) -> np.ndarray:
    return np.rint(x * 100) / 100


def _int8(largest: float) -> Callable[[np.ndarray], np.ndarray]:
    step = max(largest, 1e-12) / _INT8
    return lambda x: np.clip(np.rint(x / step), -_INT8, _INT8) * step


def _per_tensor(weights: np.ndarray) -> np.ndarray:
    return _int8(float(np.abs(weights).max()))(weights)


def _per_channel(weights: np.ndarray) -> np.ndarray:
    """(..., out, K): one scale for each row of what is multiplied; (out, taps, K): for each output channel."""
    axes = (1, 2) if weights.ndim == 3 else (weights.ndim - 1,)
    step = np.maximum(np.abs(weights).max(axis=axes, keepdims=True), 1e-12) / _INT8
    return np.rint(weights / step) * step


def _with_weights(folded: FoldedNetwork, rounded: Callable[[np.ndarray], np.ndarray]) -> FoldedNetwork:
    """Weights alone: biases and adjacency are small and stay exact in all of them."""
    blocks = []
    for block in folded.blocks:
        partitions, channels, channels_in = block.graph_weight.shape
        rows = block.graph_weight.transpose(1, 0, 2).reshape(channels, -1)  # a row an output channel
        blocks.append(replace(
            block, graph_weight=rounded(rows).reshape(channels, partitions, channels_in).transpose(1, 0, 2),
            temporal_weight=rounded(block.temporal_weight),
            residual_weight=None if block.residual_weight is None else rounded(block.residual_weight)))
    return replace(folded, blocks=tuple(blocks), fc_weight=rounded(folded.fc_weight))


def _largest(folded: FoldedNetwork, clips: Sequence[np.ndarray]) -> List[float]:
    """Of each activation that ``activations`` keeps, in the order in which it keeps them."""
    most: List[float] = []
    for clip in clips:
        seen: List[float] = []

        def kept(x: np.ndarray, seen: List[float] = seen) -> np.ndarray:
            seen.append(float(np.abs(x).max()))
            return x

        for _ in activations(folded, stgcn.from_fixed_point(clip, folded.source.persons)[None], kept):
            pass
        most = [max(pair) for pair in zip(most, seen)] if most else seen
    return most


def _answer(folded: FoldedNetwork, rounding: Callable[[int], Callable[[np.ndarray], np.ndarray]]) -> Answer:
    def answer(clip: np.ndarray) -> np.ndarray:
        place = iter(range(1 << 20))
        for name, x in activations(folded, stgcn.from_fixed_point(clip, folded.source.persons)[None],
                                   lambda x: rounding(next(place))(x)):
            pass
        assert name == LOGITS
        return x[0]

    return answer
