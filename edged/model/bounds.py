"""What a layer table and its integers must obey so that no input whatever overflows an accumulator.

The enclave proves the same bounds at load and refuses what breaks one; this is the packer's copy. ``|x|``
is replaced by its declared range, sums are over absolute values, so each bound is a proof and not a test.
All arithmetic is in int64; the largest intermediate is below 2^62.
"""

from typing import Iterable, Sequence, Tuple

import numpy as np

from edged.errors import PackageError
from edged.model.layers import (
    ACTIVATION_MAX, CHANNELS_IN, LAYER_CLASSES, LOGIT_MAX, GraphLayer, Kind, Layer, Model, Order, PoolLayer,
    Residual, Row, Shape, TemporalLayer, frames_after, tensor_shapes,
)  # fmt: skip

ACCUMULATOR = 1 << 31
SHIFT_MAX = 62
CHANNELS_MAX, TAPS_MAX, STRIDE_MAX = 1024, 15, 4
PERSONS_MAX, FRAMES_MAX, JOINTS_MAX, PARTITIONS_MAX, LABELS_MAX = 8, 4096, 64, 8, 400
POSITIONS_MAX = 65536  # persons * frames * joints
LAYERS_MAX = 64


def _require(holds: bool, text: str, *values: object) -> None:
    if not holds:
        raise PackageError(text.format(*values))


def _within(name: str, value: int, low: int, high: int) -> None:
    _require(low <= value <= high, "{} is {}, must be {}..{}", name, value, low, high)


def check_shape(shape: Shape, labels: int) -> None:
    """Raise PackageError unless M, T, V, P and the number of labels are ones the enclave takes."""
    _within("persons", shape.persons, 1, PERSONS_MAX)
    _within("frames", shape.frames, 1, FRAMES_MAX)
    _within("joints", shape.joints, 1, JOINTS_MAX)
    _within("partitions", shape.partitions, 1, PARTITIONS_MAX)
    _within("labels", labels, 1, LABELS_MAX)
    _within("persons * frames * joints", shape.persons * shape.frames * shape.joints, 1, POSITIONS_MAX)


# Fields that a kind uses; every other one must be 0.
_USED = {
    Kind.INPUT: {"cin", "cout", "in_max", "out_max", "shift"},
    Kind.GRAPH: {"cin", "cout", "taps", "stride", "order", "in_max", "out_max", "shift", "adj_max", "adj_shift", "nnz"},
    Kind.RESIDUAL: {"cin", "cout", "taps", "stride", "in_max", "out_max", "shift"},
    Kind.TEMPORAL: {"cin", "cout", "taps", "stride", "residual", "in_max", "out_max", "shift"},
    Kind.POOL: {"cin", "cout", "in_max", "out_max", "shift"},
    Kind.FC: {"cin", "cout", "in_max", "out_max", "shift"},
}


def _check_row(row: Row, where: str, shape: Shape, labels: int) -> None:
    """The row by itself: every field in range, what its kind does not use 0."""
    for name in row._fields[1:]:
        if name not in _USED[Kind(row.kind)]:
            _require(getattr(row, name) == 0, "{}: {} is {}, must be 0", where, name, getattr(row, name))
    _within(where + " cin", row.cin, 1, CHANNELS_MAX)
    _within(where + " cout", row.cout, 1, CHANNELS_MAX)
    _within(where + " in_max", row.in_max, 1, ACTIVATION_MAX)
    _within(where + " shift", row.shift, 1, SHIFT_MAX)
    if row.kind == Kind.FC:
        _require(row.out_max == LOGIT_MAX, "{}: out_max is {}, must be 2^30", where, row.out_max)
        _require(row.cout == labels, "{}: {} rows for {} labels", where, row.cout, labels)
    else:
        _within(where + " out_max", row.out_max, 1, ACTIVATION_MAX)
    if row.kind == Kind.GRAPH:
        order = Order.AFTER if row.cin > 2 * row.cout else Order.BEFORE
        _require(row.order == order, "{}: order is {}, must be {} (the cheaper)", where, row.order, int(order))
        low, high = (1, ACTIVATION_MAX) if order == Order.BEFORE else (0, 0)
        _within(where + " adj_max", row.adj_max, low, high)
        _within(where + " adj_shift", row.adj_shift, 1, SHIFT_MAX)
        _within(where + " nnz", row.nnz, 1, shape.partitions * shape.joints ** 2)
    if row.kind in (Kind.GRAPH, Kind.RESIDUAL, Kind.TEMPORAL):  # the products that leave the enclave
        _within(where + " stride", row.stride, 1, 1 if row.kind == Kind.GRAPH else STRIDE_MAX)
        _within(where + " taps", row.taps, 1, TAPS_MAX if row.kind == Kind.TEMPORAL else 1)
    if row.kind == Kind.TEMPORAL:
        _require(row.taps % 2 == 1, "{}: taps is {}, must be odd", where, row.taps)
        _within(where + " residual", row.residual, Residual.NONE, Residual.CONVOLUTION)


def _reads(row: Row, where: str, channels: int, in_max: int) -> None:
    _require(row.cin == channels, "{}: cin is {}, its input has {} channels", where, row.cin, channels)
    _require(row.in_max == in_max, "{}: in_max is {}, its input has out_max {}", where, row.in_max, in_max)


def check_table(table: Sequence[Row], shape: Shape, labels: int) -> None:
    """Raise PackageError unless the rows are in sequence, in range, and each fits what it reads."""
    check_shape(shape, labels)
    _within("layers", len(table), 5, LAYERS_MAX)
    for index, row in enumerate(table):
        _require(row.kind in LAYER_CLASSES, "layer {}: kind is {}, must be 0..5", index, row.kind)
        _check_row(row, _name(index, row), shape, labels)
    kinds = "".join(str(int(row.kind)) for row in table)
    blocks = kinds[1:-2].replace("123", "B").replace("13", "B")
    proper = kinds[:1] == "0" and kinds[-2:] == "45" and blocks and not blocks.strip("B")
    _require(bool(proper), "layers are of kinds {}, must be 0, then 1 [2] 3 for each block, then 4 5", kinds)

    first = table[0]
    _reads(first, _name(0, first), CHANNELS_IN, ACTIVATION_MAX)
    _require(first.cout == CHANNELS_IN, "{}: cout is {}, must be 3", _name(0, first), first.cout)
    block = graph = seen = first  # seen: what flows along the main path; block: what the block reads
    residual = None
    for index, row in enumerate(table[1:], 1):
        where = _name(index, row)
        if row.kind == Kind.RESIDUAL:
            _reads(row, where, block.cout, block.out_max)
            _require(row.cout == graph.cout, "{}: cout is {}, its block's is {}", where, row.cout, graph.cout)
            residual = row
            continue
        _reads(row, where, seen.cout, seen.out_max)
        if row.kind == Kind.GRAPH:
            block, graph, residual = seen, row, None
        elif row.kind == Kind.TEMPORAL:
            _require(row.cout == row.cin, "{}: cout is {}, cin {}; must be equal", where, row.cout, row.cin)
            has = row.residual == Residual.CONVOLUTION
            _require(has == (residual is not None), "{}: residual {} and its layer disagree", where, row.residual)
            if residual is not None:
                same = residual.stride == row.stride
                _require(same, "{}: stride {}, residual {}", where, row.stride, residual.stride)
            if row.residual == Residual.IDENTITY:
                same = row.stride == 1 and block.cout == row.cout
                _require(same, "{}: identity residual from {} channels, stride {}", where, block.cout, row.stride)
        elif row.kind == Kind.POOL:
            _require(row.cout == row.cin, "{}: cout is {}, cin {}; must be equal", where, row.cout, row.cin)
        seen = row


def _name(index: int, row: Row) -> str:
    return "layer {} {}".format(index, Kind(row.kind).name)


def depth_frames(table: Iterable[Row], frames: int) -> int:
    """Frames left where the pooling layer reads."""
    for row in table:
        if row.kind == Kind.TEMPORAL:
            frames = frames_after(frames, row.stride)
    return frames


def _magnitude(x: np.ndarray) -> np.ndarray:
    return np.abs(x.astype(np.int64))


def _row_sums(weights: np.ndarray) -> np.ndarray:
    """sum |W| over all but the output channel: (cout, ...) -> (cout,) int64."""
    return _magnitude(weights).reshape(weights.shape[0], -1).sum(axis=1)


def _require_below(where: str, what: str, bound: np.ndarray) -> None:
    worst = int(np.max(bound))
    _require(worst < ACCUMULATOR, "{}: {} may reach {}, must stay below 2^31", where, what, worst)


def check_adjacency(layer: GraphLayer, shape: Shape, where: str) -> None:
    """Raise PackageError unless the entries are in range, non-zero and strictly rising in (k, w, v)."""
    entries = layer.adjacency
    _require(not entries["zero"].any(), "{}: adjacency's padding byte is not 0", where)
    _require(bool((entries["a"] != 0).all()), "{}: adjacency holds a zero entry", where)
    inside = (entries["k"] < shape.partitions) & (entries["v"] < shape.joints) & (entries["w"] < shape.joints)
    _require(bool(inside.all()), "{}: adjacency entry outside {} x {} joints", where, shape.partitions, shape.joints)
    place = (entries["k"].astype(np.int64) * shape.joints + entries["w"]) * shape.joints + entries["v"]
    _require(bool((np.diff(place) > 0).all()), "{}: adjacency not sorted by (k, w, v), or an entry twice", where)


def _column_sums(layer: GraphLayer, shape: Shape) -> np.ndarray:
    """sum_v |a[k, v, w]|: (P, V) int64."""
    sums = np.zeros((shape.partitions, shape.joints), np.int64)
    np.add.at(sums, (layer.adjacency["k"], layer.adjacency["w"]), _magnitude(layer.adjacency["a"]))
    return sums


def _check_graph(layer: GraphLayer, shape: Shape, where: str) -> None:
    row, columns, rows = layer.row, _column_sums(layer, shape), _row_sums(layer.weights)
    bias = _magnitude(layer.bias)
    if row.order == Order.BEFORE:
        _require_below(where, "adjacency sum", row.in_max * columns)
        _require_below(where, "accumulator", row.adj_max * rows + bias.max(axis=0))
        return
    product = row.in_max * int(rows.max())
    _require_below(where, "product", np.array(product))
    # Below 2^31, so that not even products which no honest accelerator returns make the sum reach 2^62 before
    # they are verified; honest ones keep it below 2^62 all the more.
    _require_below(where, "adjacency", columns.sum(axis=0))
    wide = columns.sum(axis=0) * product
    _require_below(where, "accumulator", (wide >> row.adj_shift) + 1 + bias.max(axis=1))


def _check_layer(layer: Layer, shape: Shape, frames: int, where: str) -> None:
    """Accumulator bounds of one layer whose tensors have the right shapes; ``frames`` is the depth's."""
    row = layer.row
    _require_below(where, "multiplier", _magnitude(layer.mult))
    if row.kind == Kind.INPUT:
        _require_below(where, "accumulator", (ACTIVATION_MAX + 1) * 256 + _magnitude(layer.bias))
    elif row.kind == Kind.GRAPH:
        check_adjacency(layer, shape, where)
        _check_graph(layer, shape, where)
    elif isinstance(layer, PoolLayer):
        person = frames * shape.joints * row.in_max
        _require_below(where, "sum", np.array(shape.persons * person))
        _require(int(_magnitude(layer.empty).max()) <= person, "{}: empty person exceeds {}", where, person)
    else:
        _require_below(where, "accumulator", row.in_max * _row_sums(layer.weights) + _magnitude(layer.bias))
    if isinstance(layer, TemporalLayer):
        _require_below(where, "residual multiplier", _magnitude(layer.res_mult))
        unused = row.residual == Residual.NONE and layer.res_mult.any()
        _require(not unused, "{}: residual multiplier without a residual", where)


def _check_tensors(layer: Layer, shape: Shape, where: str) -> None:
    _require(type(layer) is LAYER_CLASSES[Kind(layer.row.kind)], "{}: tensors of {}", where, type(layer).__name__)
    for name, (dtype, wanted) in tensor_shapes(layer.row, shape).items():
        tensor = getattr(layer, name)
        found: Tuple[object, ...] = (tensor.dtype, tensor.shape)
        _require(found == (dtype, wanted), "{}: {} is {} {}, must be {} {}", where, name, *(found + (dtype, wanted)))


def check_bounds(model: Model) -> None:
    """Raise PackageError, naming layer and bound, unless every stated bound of the model holds."""
    check_table(model.table, model.shape, len(model.labels))
    frames = depth_frames(model.table, model.shape.frames)
    for index, layer in enumerate(model.layers):
        where = _name(index, layer.row)
        _check_tensors(layer, model.shape, where)
        _check_layer(layer, model.shape, frames, where)
