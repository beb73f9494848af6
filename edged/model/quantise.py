"""From the float network to the integer model: ranges by calibration, scales, integer layers, proven bounds."""

from dataclasses import replace
from typing import List, Optional, Sequence, Tuple

import numpy as np

from edged.errors import PackageError
from edged.model import stgcn
from edged.model.calibrate import LOGITS, POOLED, Statistics, before_weights, calibrate, join, order_of
from edged.model.fold import FoldedBlock, FoldedNetwork, fold
from edged.model.layers import (
    ACTIVATION_MAX, CHANNELS_IN, ENTRY, LOGIT_MAX, WORD, FcLayer, GraphLayer, InputLayer, Kind, Layer, Model,
    Order, PoolLayer, Residual, ResidualLayer, Row, Shape, TemporalLayer, frames_after,
)  # fmt: skip
from edged.model.reference import check_bounds, empty_person
from edged.model.scale import WORD_LIMIT, Tensor, activation_high, fit, multipliers, spread, tensor, words

MARGIN = 1.5  # clipping set the error floor in measurements; half a bit of resolution buys it off
# Pooled features are one number a clip, where the others are thousands: calibration meets less of their tail. Measured
# on 1,500 generated clips (seed 770077): at 1.5 three clips left the range, and a logit was off by 0.2; worst seen 1.6.
POOLED_MARGIN = 4.0
LOGIT_MARGIN = 2.0
_LOGIT_SCALE = 1.0 / 65536
_RESIDUALS = {
    stgcn.NO_RESIDUAL: Residual.NONE,
    stgcn.IDENTITY: Residual.IDENTITY,
    stgcn.CONVOLUTION: Residual.CONVOLUTION,
}


def _input(folded: FoldedNetwork, out: Tensor) -> InputLayer:
    """x0 = (x * 256 + bias) * mult: bias in units of 2^-22, so that an offset is as fine as the gain lets it."""
    unit = 1.0 / (stgcn.CLIP_SCALE * 256)
    with np.errstate(divide="ignore", invalid="ignore"):
        bias = np.where(folded.input_offset == 0, 0.0, folded.input_offset / (folded.input_gain * unit))
    if not np.abs(bias).max() < WORD_LIMIT - (ACTIVATION_MAX + 1) * 256:
        raise PackageError("the data batch norm of a joint has an offset over 500 times its gain: not representable")
    mult, shift = multipliers(folded.input_gain * unit / out.scale, "input")
    row = Row(Kind.INPUT, cin=CHANNELS_IN, cout=CHANNELS_IN, in_max=ACTIVATION_MAX, out_max=out.high, shift=shift)
    return InputLayer(row, mult, words(bias, "input bias"))


def _entries(adjacency: np.ndarray) -> np.ndarray:
    """Integer adjacency (P, V, V) as sorted non-zeros."""
    k, w, v = np.nonzero(adjacency.transpose(0, 2, 1))
    entries = np.zeros(len(k), ENTRY)
    entries["k"], entries["v"], entries["w"], entries["a"] = k, v, w, adjacency[k, v, w]
    return entries


def _integer_adjacency(
    adjacency: np.ndarray, ratio: float, axes: Tuple[int, ...], limit: int
) -> Tuple[np.ndarray, int]:
    """round(a * ratio * 2^shift), with the largest shift for which sum|a| over ``axes`` stays within ``limit``."""
    worst = float(np.abs(adjacency).sum(axis=axes).max()) * ratio
    if worst == 0:
        raise PackageError("an adjacency is all zero")
    rounding = adjacency.size / 2
    shift = int(np.clip(np.floor(np.log2((limit - rounding) / worst)), 1, 62))
    return np.rint(adjacency * (ratio * 2.0**shift)).astype(np.int64), shift


def _graph(block: FoldedBlock, read: Tensor, joined: Optional[Tensor], out: Tensor) -> GraphLayer:
    """``joined`` is what lies between adjacency and weights where the adjacency comes first, else None.

    What rounding the weights adds on average (their error times the mean of what they read) is taken back in
    the bias; it is the same in every frame, so pooling would not average it out.
    """
    partitions, channels_out, channels_in = block.graph_weight.shape
    if joined is not None:
        real = before_weights(block)
        limit = WORD_LIMIT // read.high
        adjacency, adj_shift = _integer_adjacency(block.adjacency, read.scale / joined.scale, (1,), limit)
        operand, mean = joined, joined.mean
        weights, scale = fit(real, block.graph_bias, operand, WORD_LIMIT)
        error = real - weights * spread(scale, real)
    else:
        # One scale for the P rows of a channel, as they are summed before the multiplier. Products and bias get
        # half of the accumulator each, so that the largest of either, of whatever channels, fit it together.
        real = block.graph_weight.transpose(1, 0, 2)
        gain = max(1.0, float(np.abs(block.adjacency).sum(axis=(0, 1)).max()) * 1.001)
        adjacency, adj_shift = _integer_adjacency(block.adjacency, 1.0, (0, 1), WORD_LIMIT)
        operand, mean = read, join(block, read.mean)
        weights, scale = fit(real, block.graph_bias, operand, int(WORD_LIMIT // 2 / gain))
        error = (real - weights * spread(scale, real)).reshape(channels_out, -1)
        weights = np.ascontiguousarray(weights.transpose(1, 0, 2)).reshape(partitions * channels_out, channels_in)
    mult, shift = multipliers(scale * operand.scale / out.scale, "graph")
    row = Row(
        Kind.GRAPH, cin=channels_in, cout=channels_out, taps=1, stride=1, order=order_of(block), in_max=read.high,
        out_max=out.high, shift=shift, adj_max=0 if joined is None else joined.high, adj_shift=adj_shift,
        nnz=int(np.count_nonzero(adjacency)),
    )  # fmt: skip
    bias = words((block.graph_bias + mean @ error.T) / (scale * operand.scale), "graph bias")
    return GraphLayer(row, _entries(adjacency), weights, bias, mult)


def _convolution(
    real: np.ndarray, bias: np.ndarray, read: Tensor, what: str
) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Integer weights, corrected integer bias and the scale of their sum: real (O, ..., C), bias (O,)."""
    weights, scale = fit(real, bias, read, WORD_LIMIT)
    error = real - weights * spread(scale, real)
    mean = read.mean.reshape(-1, real.shape[-1]).mean(axis=0)
    shift = error.reshape(len(real), -1, real.shape[-1]).sum(axis=1) @ mean
    return weights, words((bias + shift) / (scale * read.scale), what + " bias"), scale * read.scale


def _residual(block: FoldedBlock, read: Tensor, out: Tensor) -> ResidualLayer:
    weights, bias, scale = _convolution(block.residual_weight, block.residual_bias, read, "residual")
    mult, shift = multipliers(scale / out.scale, "residual")
    row = Row(
        Kind.RESIDUAL, cin=weights.shape[1], cout=weights.shape[0], taps=1, stride=block.stride, in_max=read.high,
        out_max=out.high, shift=shift,
    )  # fmt: skip
    return ResidualLayer(row, weights, bias, mult)


def _temporal(block: FoldedBlock, read: Tensor, around: Optional[Tensor], out: Tensor) -> TemporalLayer:
    weights, bias, scale = _convolution(block.temporal_weight, block.temporal_bias, read, "temporal")
    beside = around.scale / out.scale if around else 0.0
    mult, shift = multipliers(np.append(scale / out.scale, beside), "temporal")
    channels_out, taps, channels_in = weights.shape
    row = Row(
        Kind.TEMPORAL, cin=channels_in, cout=channels_out, taps=taps, stride=block.stride,
        residual=_RESIDUALS[block.residual], in_max=read.high, out_max=out.high, shift=shift,
    )  # fmt: skip
    return TemporalLayer(row, weights, bias, mult[:-1], mult[-1:])


def _block(
    folded: FoldedNetwork, index: int, seen: Statistics, read: Tensor, out: Tensor, margin: float
) -> List[Layer]:
    block = folded.blocks[index]
    joined = around = None
    if order_of(block) == Order.BEFORE:
        joined = tensor(seen[index, "joined"], activation_high(before_weights(block)), margin)
    graph = tensor(seen[index, "graph"], activation_high(block.temporal_weight), margin)
    layers: List[Layer] = [_graph(block, read, joined, graph)]
    if block.residual == stgcn.IDENTITY:
        around = read
    elif block.residual == stgcn.CONVOLUTION:
        around = tensor(seen[index, "residual"], ACTIVATION_MAX, margin)
        layers.append(_residual(block, read, around))
    return layers + [_temporal(block, graph, around, out)]


def _path(folded: FoldedNetwork, seen: Statistics, margin: float) -> List[Tensor]:
    """What each block reads, and at the end what pooling reads; only weights that read it as it is narrow it."""
    path = []
    for index, block in enumerate(folded.blocks):
        readers = [] if block.residual_weight is None else [block.residual_weight]
        if order_of(block) == Order.AFTER:
            readers.append(block.graph_weight.reshape(-1, block.graph_weight.shape[2]))
        path.append(tensor(seen[index, "in"], activation_high(*readers), margin))
    return path + [tensor(seen[len(path) - 1, "out"], ACTIVATION_MAX, margin)]


def _head(
    folded: FoldedNetwork, seen: Statistics, last: Tensor, positions: int
) -> Tuple[PoolLayer, FcLayer]:
    """``positions`` = persons * frames * joints at this depth. The empty person is not known yet."""
    if not seen[LOGITS].largest * LOGIT_MARGIN < LOGIT_MAX * _LOGIT_SCALE:
        raise PackageError("its logits reach {:.3g} on the calibration clips, and the enclave's end at {:.0f}: they "
                           "would all be alike; divide the last layer's weights and bias".format(
                               seen[LOGITS].largest, LOGIT_MAX * _LOGIT_SCALE))
    pooled = tensor(seen[POOLED], activation_high(folded.fc_weight), POOLED_MARGIN)
    labels, channels = folded.fc_weight.shape
    mult, shift = multipliers(np.array([last.scale / pooled.scale / positions]), "pool")
    row = Row(Kind.POOL, cin=channels, cout=channels, in_max=last.high, out_max=pooled.high, shift=shift)
    pool = PoolLayer(row, np.zeros(channels, WORD), mult)
    weights, bias, scale = _convolution(folded.fc_weight, folded.fc_bias, pooled, "fc")
    mult, shift = multipliers(scale / _LOGIT_SCALE, "fc")
    row = Row(Kind.FC, cin=channels, cout=labels, in_max=pooled.high, out_max=LOGIT_MAX, shift=shift)
    return pool, FcLayer(row, weights, bias, mult)


def quantise(network: stgcn.Network, calibration_clips: Sequence[np.ndarray], margin: float = MARGIN) -> Model:
    """The integer model of a network; its ranges are those of int16 clips (m <= M, T, V, 3), times ``margin``
    (POOLED_MARGIN for what pooling gives).

    Raises MissingInput without clips, ShapeError for clips of another shape, PackageError for a network that the
    format cannot hold.
    """
    folded = fold(network)
    seen = calibrate(folded, calibration_clips)
    path = _path(folded, seen, margin)
    layers: List[Layer] = [_input(folded, path[0])]
    frames = network.frames
    for index, block in enumerate(folded.blocks):
        layers += _block(folded, index, seen, path[index], path[index + 1], margin)
        frames = frames_after(frames, block.stride)
    pool, fc = _head(folded, seen, path[-1], network.persons * frames * network.joints)

    shape = Shape(network.persons, network.frames, network.joints, network.blocks[0].adjacency.shape[0])
    model = Model(network.skeleton.name, shape, network.labels, tuple(layers) + (pool, fc))
    check_bounds(model)
    pool = replace(pool, empty=empty_person(model).astype(WORD))
    return replace(model, layers=tuple(layers) + (pool, fc))
