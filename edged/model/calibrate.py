"""What every activation of a folded network looks like on given clips: its range and its mean.

Follows the integer model's order of operations (adjacency before the weights where that is cheaper), so that
each tensor it will store, and each that its weights read, is met.
"""

from dataclasses import dataclass
from typing import Callable, Dict, Iterator, Optional, Sequence, Tuple

import numpy as np

from edged.errors import MissingInput
from edged.model import stgcn
from edged.model.fold import FoldedBlock, FoldedNetwork
from edged.model.layers import Order


@dataclass(frozen=True, eq=False)
class Seen:
    """``largest`` magnitude of a tensor; ``mean`` over persons and frames, (V, C), or (C,) of pooled features;
    ``moment``, (K, K), the mean of input times input of the K values that a row of its weights reads.

    How rounding shifts the sum that a weight row makes is known on average only: through these.
    """

    largest: float
    mean: np.ndarray
    moment: Optional[np.ndarray] = None


# Tensors by (block, name): "in", "joined" (order BEFORE), "graph", "residual", "out"; and of a clip
# (-1, "pooled") and (-1, "logits").
Statistics = Dict[Tuple[int, str], Seen]
POOLED = (-1, "pooled")
LOGITS = (-1, "logits")
READ = ("in", "joined", "graph", "pooled")  # by weights
SAMPLED = 400  # places of a clip that a moment is taken of


def cheaper_order(channels_in: int, channels_out: int) -> Order:
    """Masked volume with 3 partitions: 3C + 2C' before the weights, C + 6C' after them."""
    return Order.AFTER if channels_in > 2 * channels_out else Order.BEFORE


def order_of(block: FoldedBlock) -> Order:
    return cheaper_order(block.graph_weight.shape[2], block.graph_weight.shape[1])


def join(block: FoldedBlock, x: np.ndarray) -> np.ndarray:
    """The adjacency: x (..., V, C) -> (..., V, P * C)."""
    return np.concatenate([np.matmul(a.T, x) for a in block.adjacency], axis=-1)


def before_weights(block: FoldedBlock) -> np.ndarray:
    """The graph convolution's weights as one row an output channel: (out, P * in)."""
    return block.graph_weight.transpose(1, 0, 2).reshape(block.graph_weight.shape[1], -1)


def _temporal(block: FoldedBlock, g: np.ndarray) -> np.ndarray:
    taps = block.temporal_weight.shape[1]
    pad, reach = (taps - 1) // 2, (g.shape[1] - 1) // block.stride * block.stride + 1
    padded = np.pad(g, ((0, 0), (pad, pad), (0, 0), (0, 0)))
    return block.temporal_bias + sum(
        padded[:, tap : tap + reach : block.stride] @ block.temporal_weight[:, tap].T for tap in range(taps)
    )


def activations(
    folded: FoldedNetwork, clips: np.ndarray, kept: Callable[[np.ndarray], np.ndarray] = np.asarray
) -> Iterator[Tuple[Tuple[int, str], np.ndarray]]:
    """What each layer gives, in order: clips (N, M, T, V, 3) float -> (name, array), at the end LOGITS (N, L).

    kept : what becomes of an activation between its layer and the next, in a narrower arithmetic
    Raises ShapeError.
    """
    stgcn.check_clips(folded.source, clips)
    shape = clips.shape
    x = kept((clips * folded.input_gain + folded.input_offset).reshape((-1,) + shape[2:]))
    for index, block in enumerate(folded.blocks):
        yield (index, "in"), x
        joined = join(block, x)
        if order_of(block) == Order.BEFORE:
            joined = kept(joined)
            yield (index, "joined"), joined
        g = kept(stgcn.relu(joined @ before_weights(block).T + block.graph_bias))
        yield (index, "graph"), g
        h = _temporal(block, g)
        if block.residual == stgcn.IDENTITY:
            h = h + x
        elif block.residual == stgcn.CONVOLUTION:
            r = kept(x[:, :: block.stride] @ block.residual_weight.T + block.residual_bias)
            yield (index, "residual"), r
            h = h + r
        x = kept(stgcn.relu(h))
        yield (index, "out"), x
    pooled = kept(x.reshape(shape[0], -1, x.shape[-1]).mean(axis=1))
    yield POOLED, pooled
    yield LOGITS, pooled @ folded.fc_weight.T + folded.fc_bias


def _inputs(folded: FoldedNetwork, name: Tuple[int, str], x: np.ndarray) -> np.ndarray:
    """(n, K): what rows of the weights behind an activation read at some places of it, drawn alike for each clip."""
    index, what = name
    if name == POOLED:
        return x
    rng = np.random.default_rng(index)
    size, frames, joints, _ = x.shape
    person, joint = rng.integers(0, size, SAMPLED), rng.integers(0, joints, SAMPLED)
    if what != "graph":
        return x[person, rng.integers(0, frames, SAMPLED), joint]
    taps, stride = folded.blocks[index].temporal_weight.shape[1], folded.blocks[index].stride
    pad = (taps - 1) // 2
    padded = np.pad(x, ((0, 0), (pad, pad), (0, 0), (0, 0)))
    first = rng.integers(0, -(-frames // stride), SAMPLED) * stride
    return np.stack([padded[person, first + tap, joint] for tap in range(taps)], 1).reshape(SAMPLED, -1)


def calibrate(folded: FoldedNetwork, clips: Sequence[np.ndarray]) -> Statistics:
    """Widest ranges and means over int16 clips (m <= M, T, V, 3), one at a time.

    Absent persons are met where a clip has fewer than M; calibrate with clips of both kinds.
    Raises MissingInput without clips, ShapeError.
    """
    if not clips:
        raise MissingInput("no calibration clips")
    found: Statistics = {}
    for clip in clips:
        for name, x in activations(folded, stgcn.from_fixed_point(clip, folded.source.persons)[None]):
            largest, mean, moment = float(np.abs(x).max()), x.mean(axis=tuple(range(x.ndim - 2)) or 0), None
            if name[1] in READ:
                inputs = _inputs(folded, name, x)
                moment = inputs.T @ inputs / (len(inputs) * len(clips))
            before = found.get(name)
            found[name] = Seen(largest, mean / len(clips), moment) if before is None else Seen(
                max(before.largest, largest), before.mean + mean / len(clips),
                None if moment is None else before.moment + moment)
    return found
