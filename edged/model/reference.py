"""The integer network, defined: every result of the enclave equals these, bit for bit, in every placement.

Activations are int16, channel-last (persons, T, V, C), clamped to +-out_max of the layer that wrote them.
Every sum is exact. Throughout, ``rs(z, s) = floor((z + 2^(s-1)) / 2^s)``, 1 <= s <= 62: round half up.
Products run as float64 matrix products: their sums of integers stay below 2^31 (bounds.py), far below the
2^53 up to which float64 is exact, so the order in which a BLAS adds does not matter.
"""

from typing import Iterator, NamedTuple, Optional, Tuple

import numpy as np

from edged.errors import PackageError, ShapeError
from edged.model.bounds import check_bounds
from edged.model.layers import (
    CHANNELS_IN, FcLayer, GraphLayer, InputLayer, Kind, Layer, Model, Order, PoolLayer, Residual, ResidualLayer,
    Shape, TemporalLayer, frames_after,
)  # fmt: skip

__all__ = ["Model", "Step", "check_bounds", "empty_person", "run", "softmax", "steps"]


class Step(NamedTuple):
    """What one layer did.

    operand  what the matrix product read, int64 (persons, T, V, K); None where the layer has none. x' of an
             order-BEFORE graph layer, g itself of a temporal one (its taps are not laid side by side)
    product  W times operand before bias, int64 (persons, T', V, rows): Y of the masked layer; None likewise
    output   int64, what the layer writes: (persons, T', V, C), (C,) of POOL, (L,) of FC
    """

    layer: Layer
    operand: Optional[np.ndarray]
    product: Optional[np.ndarray]
    output: np.ndarray


def round_shift(z: np.ndarray, shift: int) -> np.ndarray:
    """rs(z, shift) of int64; |z| <= 2^62 + 2^46 leaves room for the added half."""
    return (z + (1 << (shift - 1))) >> shift


def _clamp(z: np.ndarray, low: int, high: int) -> np.ndarray:
    return np.clip(z, low, high)


def _matmul(x: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Exact ``y[..., o] = sum_j weights[o, j] * x[..., j]``: x (..., K) int64, weights (R, K) -> (..., R) int64."""
    y = x.astype(np.float64) @ weights.astype(np.float64).T
    if y.size and np.abs(y).max() >= 2.0**31:
        raise PackageError("a product left its 31 bits although its bound was proven")
    return y.astype(np.int64)


def input_layer(layer: InputLayer, clip: np.ndarray) -> np.ndarray:
    """x0[t,v,c] = clamp+-out_max(rs((x * 256 + bias[v,c]) * mult[v,c], shift)): (m, T, V, 3) -> same."""
    acc = clip.astype(np.int64) * 256 + layer.bias
    return _clamp(round_shift(acc * layer.mult, layer.row.shift), -layer.row.out_max, layer.row.out_max)


def _join(layer: GraphLayer, x: np.ndarray, partitions: int, summed: bool) -> np.ndarray:
    """The adjacency, one non-zero at a time.

    BEFORE (not summed): z[t,w,k*C+c] = sum_v a[k,v,w] * x[t,v,c]             x (..., V, C) -> (..., V, P*C)
    AFTER (summed):      z[t,w,o] = sum_k sum_v a[k,v,w] * x[t,v,k*C+o]       x (..., V, P*C) -> (..., V, C)
    """
    channels = layer.row.cout if summed else layer.row.cin
    z = np.zeros(x.shape[:3] + (channels if summed else partitions * channels,), np.int64)
    for k, v, w, _, a in layer.adjacency.tolist():
        own = slice(k * channels, (k + 1) * channels)
        if summed:
            z[:, :, w] += a * x[:, :, v, own]
        else:
            z[:, :, w, own] += a * x[:, :, v]
    return z


def graph_layer(layer: GraphLayer, x: np.ndarray, partitions: int) -> Step:
    """x (m, T, V, cin) -> g (m, T, V, cout).

    BEFORE  x'  = clamp+-adj_max(rs(sum_v a[k,v,w] * x[t,v,c], adj_shift))
            acc = sum_j W[o,j] * x'[t,w,j] + bias[w,o]
    AFTER   p   = sum_c W[k*cout+o,c] * x[t,v,c]
            acc = rs(sum_k sum_v a[k,v,w] * p[t,v,k*cout+o], adj_shift) + bias[w,o]
    g[t,w,o] = clamp[0,out_max](rs(acc * mult[o], shift))
    """
    row = layer.row
    if row.order == Order.BEFORE:
        joined = round_shift(_join(layer, x, partitions, summed=False), row.adj_shift)
        operand = _clamp(joined, -row.adj_max, row.adj_max)
        product = _matmul(operand, layer.weights)
        acc = product + layer.bias
    else:
        operand = x
        product = _matmul(operand, layer.weights)
        acc = round_shift(_join(layer, product, partitions, summed=True), row.adj_shift) + layer.bias
    g = _clamp(round_shift(acc * layer.mult, row.shift), 0, row.out_max)
    return Step(layer, operand, product, g)


def residual_layer(layer: ResidualLayer, x: np.ndarray) -> Step:
    """r[t',v,o] = clamp+-out_max(rs((sum_c W[o,c] * x[t'*stride,v,c] + bias[o]) * mult[o], shift))."""
    row = layer.row
    operand = x[:, :: row.stride]
    product = _matmul(operand, layer.weights)
    r = round_shift((product + layer.bias) * layer.mult, row.shift)
    return Step(layer, operand, product, _clamp(r, -row.out_max, row.out_max))


def temporal_layer(layer: TemporalLayer, g: np.ndarray, r: np.ndarray) -> Step:
    """g (m, T, V, C), r (m, T', V, C) or 0 -> (m, T', V, C); pad = (taps-1)/2, T' = (T-1)//stride + 1.

    acc[t',v,o] = sum_{tap,c} W[o,tap,c] * g[t'*stride+tap-pad,v,c] + bias[o]      (g = 0 outside 0..T-1)
    out = clamp[0,out_max](rs(acc * mult[o] + r * res_mult, shift))
    """
    row = layer.row
    pad, frames_out = (row.taps - 1) // 2, frames_after(g.shape[1], row.stride)
    padded = np.pad(g, ((0, 0), (pad, pad), (0, 0), (0, 0)))
    product = np.zeros((g.shape[0], frames_out, g.shape[2], row.cout), np.int64)
    for tap in range(row.taps):
        reach = padded[:, tap : tap + (frames_out - 1) * row.stride + 1 : row.stride]
        product += _matmul(reach, layer.weights[:, tap])
    z = (product + layer.bias) * layer.mult + r * layer.res_mult.astype(np.int64)
    return Step(layer, g, product, _clamp(round_shift(z, row.shift), 0, row.out_max))


def pool_layer(layer: PoolLayer, x: np.ndarray, persons: int) -> np.ndarray:
    """f[c] = clamp+-out_max(rs(sum[c] * mult, shift)): x (m, T, V, C) -> (C,).

    sum[c] = sum of x over the clip's m persons, t and v + (persons - m) * empty[c]
    """
    total = x.sum(axis=(0, 1, 2)) + (persons - x.shape[0]) * layer.empty.astype(np.int64)
    f = round_shift(total * layer.mult, layer.row.shift)
    return _clamp(f, -layer.row.out_max, layer.row.out_max)


def fc_layer(layer: FcLayer, f: np.ndarray) -> Step:
    """logit[l] = clamp+-2^30(rs((sum_c W[l,c] * f[c] + bias[l]) * mult[l], shift)): Q16, (C,) -> (L,)."""
    product = _matmul(f, layer.weights)
    logits = round_shift((product + layer.bias) * layer.mult, layer.row.shift)
    return Step(layer, f, product, _clamp(logits, -layer.row.out_max, layer.row.out_max))


# 2^-x for x in [0, 1) as y = c0 - x(c1 - x(c2 - ...)), c_i in Q30, largest power first, fitted: exact at 0, within
# 1e-7 everywhere, falling throughout, so that order is kept.
_EXP2 = (1013087, 9880762, 59371525, 257890134, 744257239, 1073741824)
_LOG2_E = 94548  # log2(e) in Q16
_FAR = 32 * 65536  # e^-32 is 0 in Q30


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities of Q16 logits, Q16: (L,) -> (L,) uint32; their sum is 65536 - L < sum <= 65536.

    d = min(max - l_i, 32 * 65536);  u = (d * 94548) >> 16;  n = min(u >> 16, 31);  f = u & 65535
    y = the polynomial _EXP2 in f, each step  y = c - ((f * y) >> 16);  e_i = y >> n
    p_i = floor(e_i * 65536 / sum e)
    """
    wide = logits.astype(np.int64)
    u = (np.minimum(wide.max() - wide, _FAR) * _LOG2_E) >> 16
    whole, part = np.minimum(u >> 16, 31), u & 65535
    y = np.full(wide.shape, _EXP2[0], np.int64)
    for constant in _EXP2[1:]:
        y = constant - ((part * y) >> 16)
    e = y >> whole
    return (e * 65536 // e.sum()).astype(np.uint32)


def _check_clip(shape: Shape, clip: np.ndarray) -> None:
    one = (shape.frames, shape.joints, CHANNELS_IN)
    if clip.dtype != np.int16 or clip.ndim != 4 or clip.shape[1:] != one or clip.shape[0] > shape.persons:
        text = "clip is {} {}, must be int16 (0..{}, {}, {}, {})"
        raise ShapeError(text.format(clip.dtype, clip.shape, shape.persons, *one))


def steps(model: Model, clip: np.ndarray) -> Iterator[Step]:
    """Every layer's step in table order. The bounds are taken as proven (``check_bounds``).  Raises ShapeError."""
    _check_clip(model.shape, clip)
    x = g = r = clip.astype(np.int64)  # x: the block's input; g: its graph layer's output; r: its residual
    for layer in model.layers:
        kind = layer.row.kind
        if kind == Kind.INPUT:
            step = Step(layer, None, None, input_layer(layer, clip))
        elif kind == Kind.GRAPH:
            step = graph_layer(layer, x, model.shape.partitions)
        elif kind == Kind.RESIDUAL:
            step = residual_layer(layer, x)
        elif kind == Kind.TEMPORAL:
            around = {Residual.NONE: np.zeros(1, np.int64), Residual.IDENTITY: x, Residual.CONVOLUTION: r}
            step = temporal_layer(layer, g, around[Residual(layer.row.residual)])
        elif kind == Kind.POOL:
            step = Step(layer, None, None, pool_layer(layer, x, model.shape.persons))
        else:
            step = fc_layer(layer, x)
        yield step
        if kind == Kind.GRAPH:
            g = step.output
        elif kind == Kind.RESIDUAL:
            r = step.output
        else:
            x = step.output


def empty_person(model: Model) -> np.ndarray:
    """What one absent person adds to the pooling sums, ``empty`` of the POOL layer: (C,) int32."""
    absent = np.zeros((1, model.shape.frames, model.shape.joints, CHANNELS_IN), np.int16)
    for step in steps(model, absent):
        if step.layer.row.kind == Kind.TEMPORAL:
            last = step.output
    return last.sum(axis=(0, 1, 2)).astype(np.int32)


def run(model: Model, clip: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """One int16 clip (m <= M, T, V, 3) -> logits (L,) int32 and probabilities (L,) uint32, both Q16.

    Raises PackageError if the model breaks a bound, ShapeError if the clip has another shape or type.
    """
    check_bounds(model)
    for step in steps(model, clip):
        logits = step.output
    return logits.astype(np.int32), softmax(logits)
