"""Write an ONNX model: the few messages of it that a pose network takes, in protobuf's wire form.

By hand, for a node has no onnx package, and so that the same network is the same bytes for ever. Source: onnx.proto of
ONNX 1.8 (IR version 7, operator set 13); protobuf's encoding guide. tests/test_openvino.py reads it back with onnx.
"""

import struct
from typing import Iterator, List, Mapping, Sequence, Tuple, Union

import numpy as np

from edged.errors import PackageError

IR_VERSION, OPERATORS = 7, 13
_FLOAT, _INTS_TYPE, _FLOAT_TYPE, _INT_TYPE = 1, 7, 1, 2  # TensorProto.FLOAT; AttributeProto.INTS, FLOAT, INT
Attribute = Union[int, float, Sequence[int]]


def _varint(value: int) -> bytes:
    made = bytearray()
    value &= (1 << 64) - 1
    while value > 127:
        made.append(value & 127 | 128)
        value >>= 7
    made.append(value)
    return bytes(made)


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _text(field: int, value: str) -> bytes:
    return _bytes(field, value.encode("utf-8"))


def _attribute(name: str, value: Attribute) -> bytes:
    if isinstance(value, float):
        body, kind = _varint(2 << 3 | 5) + struct.pack("<f", value), _FLOAT_TYPE
    elif isinstance(value, int):
        body, kind = _number(3, value), _INT_TYPE
    else:
        body, kind = b"".join(_number(8, one) for one in value), _INTS_TYPE
    return _text(1, name) + body + _number(20, kind)


def node(kind: str, inputs: Sequence[str], output: str, attributes: Mapping[str, Attribute]) -> bytes:
    """A NodeProto."""
    made = b"".join(_text(1, one) for one in inputs) + _text(2, output) + _text(3, output) + _text(4, kind)
    return made + b"".join(_bytes(5, _attribute(name, attributes[name])) for name in sorted(attributes))


def tensor(name: str, value: np.ndarray) -> bytes:
    """A TensorProto of float32."""
    made = b"".join(_number(1, side) for side in value.shape) + _number(2, _FLOAT) + _text(8, name)
    return made + _bytes(9, np.ascontiguousarray(value, "<f4").tobytes())


def _value(name: str, shape: Sequence[int]) -> bytes:
    sides = b"".join(_bytes(1, _number(1, side)) for side in shape)
    return _text(1, name) + _bytes(2, _bytes(1, _number(1, _FLOAT) + _bytes(2, sides)))


def model(name: str, nodes: Sequence[bytes], tensors: Sequence[bytes], inputs: Sequence[Tuple[str, Sequence[int]]],
          outputs: Sequence[Tuple[str, Sequence[int]]]) -> bytes:
    """A ModelProto; ``nodes`` in an order in which they can be worked out; in- and outputs with their shapes."""
    graph: List[bytes] = [_bytes(1, one) for one in nodes] + [_text(2, name)]
    graph += [_bytes(5, one) for one in tensors]
    graph += [_bytes(11, _value(*one)) for one in inputs] + [_bytes(12, _value(*one)) for one in outputs]
    return _number(1, IR_VERSION) + _bytes(7, b"".join(graph)) + _bytes(8, _number(2, OPERATORS))


def _read_varint(content: bytes, at: int) -> Tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(content) or shift > 63:
            raise PackageError("not an ONNX file, or damaged")
        value |= (content[at] & 127) << shift
        at, shift = at + 1, shift + 7
        if content[at - 1] < 128:
            return value, at


def _fields(content: bytes) -> Iterator[Tuple[int, bytes, bytes]]:
    """(number, the whole field, its value where that is bytes, else b"") of a message."""
    at = 0
    while at < len(content):
        begin = at
        key, at = _read_varint(content, at)
        kind, value = key & 7, b""
        if kind == 0:
            _, at = _read_varint(content, at)
        elif kind == 2:
            size, at = _read_varint(content, at)
            value, at = content[at:at + size], at + size
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
        else:
            raise PackageError("not an ONNX file, or damaged")
        if at > len(content):
            raise PackageError("not an ONNX file, or damaged")
        yield key >> 3, content[begin:at], value


def any_size(content: bytes) -> bytes:
    """An ONNX file whose inputs and outputs name no height and width. Raises PackageError where it is none."""
    def freed(value: bytes) -> bytes:
        """A ValueInfoProto; a side is field 1 (a number) or 2 (a name) of its dimension."""
        made = b""
        for number, whole, inner in _fields(value):
            if number == 2:
                kind = b"".join(_bytes(1, _freed_tensor(one)) if place == 1 else field
                                for place, field, one in _fields(inner))
                whole = _bytes(2, kind)
            made += whole
        return made

    return b"".join(_bytes(7, b"".join(_bytes(number, freed(value)) if number in (11, 12) else whole
                                       for number, whole, value in _fields(inner))) if field == 7 else all_of_it
                    for field, all_of_it, inner in _fields(content))


def _freed_tensor(tensor_type: bytes) -> bytes:
    made = b""
    for number, whole, shape in _fields(tensor_type):
        if number == 2:
            sides = [field for place, field, _ in _fields(shape) if place == 1]
            if len(sides) == 4:
                sides[2:] = [_bytes(1, _text(2, name)) for name in ("height", "width")]
                whole = _bytes(2, b"".join(sides))
        made += whole
    return made
