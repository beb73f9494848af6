"""The tensors of a model as one stream of bytes, and back.

    32 random bytes, then every layer's tensors in table order and in the order of ``layers.tensor_shapes``,
    little-endian, each padded with zeros to a multiple of 8 bytes

The random bytes keep the stream's digest, which is public, from confirming a guess at the weights.
"""

from typing import Sequence

import numpy as np

from edged.errors import PackageError
from edged.model.layers import LAYER_CLASSES, Kind, Layer, Model, Row, Shape, tensor_shapes

BLIND_BYTES = 32
ALIGNMENT = 8


def _padded(size_bytes: int) -> int:
    return -(-size_bytes // ALIGNMENT) * ALIGNMENT


def _size(dtype: np.dtype, shape: Sequence[int]) -> int:
    return dtype.itemsize * int(np.prod(shape, dtype=np.int64))


def stream_size(table: Sequence[Row], shape: Shape) -> int:
    """Bytes of the stream that a table asks for."""
    sizes = (_size(*tensor) for row in table for tensor in tensor_shapes(row, shape).values())
    return BLIND_BYTES + sum(_padded(size) for size in sizes)


def write_tensors(model: Model, blind: bytes) -> bytes:
    """``blind`` is 32 random bytes. Tensors must have the table's types and shapes (``check_bounds``)."""
    parts = [blind]
    for layer in model.layers:
        for name, (dtype, _) in tensor_shapes(layer.row, model.shape).items():
            data = np.ascontiguousarray(getattr(layer, name), dtype).tobytes()
            parts.append(data.ljust(_padded(len(data)), b"\0"))
    return b"".join(parts)


def read_tensors(stream: bytes, table: Sequence[Row], shape: Shape) -> Sequence[Layer]:
    """The layers of a table from its stream. Raises PackageError for another length or padding that is not 0."""
    size = stream_size(table, shape)
    if len(stream) != size:
        raise PackageError("tensors take {} bytes, the table asks for {}".format(len(stream), size))
    layers, at = [], BLIND_BYTES
    for index, row in enumerate(table):
        tensors = {}
        for name, (dtype, wanted) in tensor_shapes(row, shape).items():
            size = _size(dtype, wanted)
            tensors[name] = np.frombuffer(stream, dtype, size // dtype.itemsize, at).reshape(wanted)
            if any(stream[at + size : at + _padded(size)]):
                raise PackageError("layer {}: padding after {} is not zero".format(index, name))
            at += _padded(size)
        layers.append(LAYER_CLASSES[Kind(row.kind)](row, **tensors))
    return tuple(layers)
