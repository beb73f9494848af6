"""The integer model: a table of layers and the tensors that each row asks for.

    INPUT, then per block GRAPH, [RESIDUAL], TEMPORAL, then POOL, FC

A row is 13 unsigned integers and alone decides the size of every tensor (``tensor_shapes``). ``Kind`` and
the order of ``Row``'s fields are wire format: the enclave (trusty_ta/eval) reads the same table.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Dict, NamedTuple, Tuple, Union

import numpy as np


class Kind(IntEnum):
    INPUT = 0
    GRAPH = 1
    RESIDUAL = 2
    TEMPORAL = 3
    POOL = 4
    FC = 5


class Order(IntEnum):
    """Where a graph convolution applies the adjacency."""

    BEFORE = 0
    AFTER = 1


class Residual(IntEnum):
    """What a temporal layer adds before its ReLU."""

    NONE = 0
    IDENTITY = 1
    CONVOLUTION = 2


class Row(NamedTuple):
    """One line of the layer table; what a kind does not use is 0.

    in_max, out_max, adj_max   activations read, written and between adjacency and weights are within +-this
    shift, adj_shift           1..62, right shifts that end a requantisation
    """

    kind: int
    cin: int = 0
    cout: int = 0
    taps: int = 0
    stride: int = 0
    order: int = 0
    residual: int = 0
    in_max: int = 0
    out_max: int = 0
    shift: int = 0
    adj_max: int = 0
    adj_shift: int = 0
    nnz: int = 0


ACTIVATION_MAX = 32767  # int16 storage
LOGIT_MAX = 1 << 30
CHANNELS_IN = 3

# One non-zero of an adjacency: out[w] += a * in[v] in partition k. Sorted by (k, w, v).
ENTRY = np.dtype([("k", "u1"), ("v", "u1"), ("w", "u1"), ("zero", "u1"), ("a", "<i4")])
WEIGHT = np.dtype("<i2")
WORD = np.dtype("<i4")


@dataclass(frozen=True, eq=False)
class InputLayer:
    """mult, bias (V, 3) int32."""

    row: Row
    mult: np.ndarray
    bias: np.ndarray


@dataclass(frozen=True, eq=False)
class GraphLayer:
    """adjacency (nnz,) ENTRY; weights int16 (cout, P*cin) BEFORE, (P*cout, cin) AFTER; bias (V, cout), mult (cout,)."""

    row: Row
    adjacency: np.ndarray
    weights: np.ndarray
    bias: np.ndarray
    mult: np.ndarray


@dataclass(frozen=True, eq=False)
class ResidualLayer:
    """weights int16 (cout, cin); bias, mult (cout,) int32."""

    row: Row
    weights: np.ndarray
    bias: np.ndarray
    mult: np.ndarray


@dataclass(frozen=True, eq=False)
class TemporalLayer:
    """weights int16 (cout, taps, cin); bias, mult (cout,) int32; res_mult (1,) int32."""

    row: Row
    weights: np.ndarray
    bias: np.ndarray
    mult: np.ndarray
    res_mult: np.ndarray


@dataclass(frozen=True, eq=False)
class PoolLayer:
    """empty (C,) int32: what an absent person adds to the sums; mult (1,) int32."""

    row: Row
    empty: np.ndarray
    mult: np.ndarray


@dataclass(frozen=True, eq=False)
class FcLayer:
    """weights int16 (labels, cin); bias, mult (labels,) int32."""

    row: Row
    weights: np.ndarray
    bias: np.ndarray
    mult: np.ndarray


Layer = Union[InputLayer, GraphLayer, ResidualLayer, TemporalLayer, PoolLayer, FcLayer]

LAYER_CLASSES = {
    Kind.INPUT: InputLayer,
    Kind.GRAPH: GraphLayer,
    Kind.RESIDUAL: ResidualLayer,
    Kind.TEMPORAL: TemporalLayer,
    Kind.POOL: PoolLayer,
    Kind.FC: FcLayer,
}


class Shape(NamedTuple):
    """What a clip is and what the table is laid over: M, T, V and P of the formulas."""

    persons: int
    frames: int
    joints: int
    partitions: int


@dataclass(frozen=True, eq=False)
class Model:
    """A quantised network. ``layers`` are in table order; logit ``i`` belongs to ``labels[i]``."""

    skeleton: str
    shape: Shape
    labels: Tuple[str, ...]
    layers: Tuple[Layer, ...]
    form: str = "clip"

    @property
    def table(self) -> Tuple[Row, ...]:
        return tuple(layer.row for layer in self.layers)


TensorShapes = Dict[str, Tuple[np.dtype, Tuple[int, ...]]]


def tensor_shapes(row: Row, shape: Shape) -> TensorShapes:
    """Element type and shape of every tensor of a row, in stream order, by the layer class's field names."""
    if row.kind == Kind.INPUT:
        return {"mult": (WORD, (shape.joints, CHANNELS_IN)), "bias": (WORD, (shape.joints, CHANNELS_IN))}
    if row.kind == Kind.GRAPH:
        before = row.order == Order.BEFORE
        fan = (row.cout, shape.partitions * row.cin) if before else (shape.partitions * row.cout, row.cin)
        return {
            "adjacency": (ENTRY, (row.nnz,)),
            "weights": (WEIGHT, fan),
            "bias": (WORD, (shape.joints, row.cout)),
            "mult": (WORD, (row.cout,)),
        }
    if row.kind == Kind.TEMPORAL:
        return {
            "weights": (WEIGHT, (row.cout, row.taps, row.cin)),
            "bias": (WORD, (row.cout,)),
            "mult": (WORD, (row.cout,)),
            "res_mult": (WORD, (1,)),
        }
    if row.kind == Kind.POOL:
        return {"empty": (WORD, (row.cout,)), "mult": (WORD, (1,))}
    return {"weights": (WEIGHT, (row.cout, row.cin)), "bias": (WORD, (row.cout,)), "mult": (WORD, (row.cout,))}


def frames_after(frames: int, stride: int) -> int:
    """Frames that a strided convolution with centred padding leaves."""
    return (frames - 1) // stride + 1
