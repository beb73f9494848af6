"""A network in OpenVINO's form (IR, versions 10 and 11: a .xml and a .bin) as ONNX, which every OpenCV can load.

Pose networks are published so, and the OpenCV that pip installs cannot read it. Of the operators only those of
convolutional networks are taken; what else there is is refused by name. Source: OpenVINO's documentation of the IR and
of operation set 1.
"""

import xml.etree.ElementTree as xml
from typing import Dict, List, NamedTuple, Set, Tuple

import numpy as np

from edged.camera import onnxwire
from edged.errors import PackageError

VERSIONS = ("10", "11")
ELEMENTS = {"f32": "<f4", "f16": "<f2"}
SIDE_MAX = 1 << 24
PLAIN = {"ReLU": "Relu", "Add": "Add", "Multiply": "Mul", "Elu": "Elu", "Concat": "Concat"}
Port = Tuple[str, str]  # the layer's id, the port's


class _Layer(NamedTuple):
    number: str
    name: str
    kind: str
    data: Dict[str, str]
    inputs: List[str]
    outputs: List[str]
    shape: Tuple[int, ...]  # of its output


def to_onnx(description: bytes, weights: bytes) -> bytes:
    """The ONNX file of a .xml's and a .bin's content: the same content, the same bytes.

    Outputs are called as the layers that make them. Raises PackageError where it is none, or has what is not taken.
    """
    try:
        return _Graph(description, weights).model()
    except (xml.ParseError, LookupError, ValueError, ArithmeticError) as error:
        raise PackageError("not a network of OpenVINO: {!r}".format(error)) from error


class _Graph:
    def __init__(self, description: bytes, weights: bytes) -> None:
        root = xml.fromstring(description)
        if root.tag != "net" or root.get("version") not in VERSIONS:
            raise PackageError("not a network of OpenVINO's IR, version {}".format(" or ".join(VERSIONS)))
        self._name, self._weights = root.get("name", ""), weights
        self._layers = {layer.number: layer for layer in map(_layer, root.findall("./layers/layer"))}
        self._from: Dict[Port, str] = {}
        self._users: Dict[str, List[str]] = {}
        for edge in root.findall("./edges/edge"):
            self._from[edge.attrib["to-layer"], edge.attrib["to-port"]] = edge.attrib["from-layer"]
            self._users.setdefault(edge.attrib["from-layer"], []).append(edge.attrib["to-layer"])
        self._tensors: Dict[str, np.ndarray] = {}
        self._nodes: List[bytes] = []
        self._biased: Dict[str, str] = {}  # a convolution, by the addition that is its bias

    def model(self) -> bytes:
        order = self._ordered()
        for number in order:
            self._find_bias(self._layers[number])
        inputs, outputs = [], []
        for number in order:
            layer = self._layers[number]
            if layer.kind == "Parameter":
                inputs.append((layer.name, layer.shape))
            elif layer.kind == "Const":
                self._tensors[layer.name] = self._constant(layer)
            elif layer.kind == "Result":
                source = self._sources(layer)[0]
                outputs.append((source.name, source.shape))
            else:
                self._add(layer)
        used = {name: value for name, value in self._tensors.items() if name in self._needed}
        return onnxwire.model(self._name, self._nodes, [onnxwire.tensor(*one) for one in sorted(used.items())],
                              inputs, outputs)

    def _sources(self, layer: _Layer) -> List[_Layer]:
        return [self._layers[self._from[layer.number, port]] for port in layer.inputs]

    def _ordered(self) -> List[str]:
        """Each layer after what it takes."""
        self._needed: Set[str] = set()
        made, done = [], set()  # type: List[str], Set[str]
        waiting = [number for number, layer in self._layers.items()]
        while waiting:
            ready = [number for number in waiting
                     if all(source.number in done for source in self._sources(self._layers[number]))]
            if not ready:
                raise PackageError("a network of OpenVINO whose layers wait for each other")
            made += ready
            done.update(ready)
            waiting = [number for number in waiting if number not in done]
        names = [self._layers[number].name for number in made]
        if len(set(names)) != len(names):
            raise PackageError("a network of OpenVINO with two layers of one name")
        return made

    def _constant(self, layer: _Layer) -> np.ndarray:
        kind, offset, size = (layer.data[key] for key in ("element_type", "offset", "size"))
        if kind not in ELEMENTS:
            raise PackageError("constant {}: {} is none of {}".format(layer.name, kind, ", ".join(ELEMENTS)))
        begin, shape = int(offset), _numbers(layer.data["shape"])
        count = int(size) // np.dtype(ELEMENTS[kind]).itemsize
        inside = 0 <= begin <= begin + int(size) <= len(self._weights)
        if not inside or min(shape, default=1) < 1 or count != int(np.prod(shape)):
            raise PackageError("constant {}: outside of the file of weights, or of another size".format(layer.name))
        value = np.frombuffer(self._weights, ELEMENTS[kind], count, begin).reshape(shape).astype(np.float32)
        if not np.isfinite(value).all():
            raise PackageError("constant {}: not finite".format(layer.name))
        return value

    def _find_bias(self, layer: _Layer) -> None:
        """A constant for each channel that is added to a convolution alone is its bias, which costs nothing there."""
        if layer.kind != "Add":
            return
        one, other = self._sources(layer)
        convolution = one.kind in ("Convolution", "GroupConvolution")
        channels = other.shape[1:2] == one.shape[1:2] and other.shape == (1,) + one.shape[1:2] + (1, 1)
        if convolution and other.kind == "Const" and channels and self._users[one.number] == [layer.number]:
            self._biased[one.number] = layer.number

    def _add(self, layer: _Layer) -> None:
        sources = self._sources(layer)
        if layer.kind in ("Convolution", "GroupConvolution"):
            self._convolve(layer, sources)
        elif layer.kind not in PLAIN:
            raise PackageError("layer {}: {} is not taken; of OpenVINO's operators these are: {}".format(
                layer.name, layer.kind, ", ".join(sorted(set(PLAIN) | {"Convolution", "GroupConvolution"}))))
        elif layer.number not in self._biased.values():
            attributes: Dict[str, onnxwire.Attribute] = {}
            if layer.kind == "Elu":
                attributes = {"alpha": float(layer.data["alpha"])}
            elif layer.kind == "Concat":
                attributes = {"axis": int(layer.data["axis"])}
            self._put(PLAIN[layer.kind], [source.name for source in sources], layer.name, attributes)

    def _convolve(self, layer: _Layer, sources: List[_Layer]) -> None:
        if layer.data.get("auto_pad", "explicit") not in ("explicit", "notset"):
            raise PackageError("layer {}: auto_pad {} is not taken".format(layer.name, layer.data["auto_pad"]))
        if sources[1].kind != "Const":
            raise PackageError("layer {}: a convolution whose weights are no constant".format(layer.name))
        weight, groups = sources[1], 1
        value = self._constant(weight)
        if layer.kind == "GroupConvolution":  # (groups, out, in, ...), where ONNX has (groups * out, in, ...)
            groups = value.shape[0]
            value = value.reshape((-1,) + value.shape[2:])
        self._tensors[weight.name] = value
        attributes: Dict[str, onnxwire.Attribute] = {
            "strides": _numbers(layer.data["strides"]), "dilations": _numbers(layer.data["dilations"]),
            "pads": _numbers(layer.data["pads_begin"]) + _numbers(layer.data["pads_end"]), "group": groups,
            "kernel_shape": value.shape[2:]}
        names, output = [sources[0].name, weight.name], layer.name
        if layer.number in self._biased:
            addition = self._layers[self._biased[layer.number]]
            bias, output = self._sources(addition)[1], addition.name
            self._tensors[bias.name + " (bias)"] = self._constant(bias).reshape(-1)
            names.append(bias.name + " (bias)")
        self._put("Conv", names, output, attributes)

    def _put(self, kind: str, inputs: List[str], output: str, attributes: Dict[str, onnxwire.Attribute]) -> None:
        self._needed.update(inputs)
        self._nodes.append(onnxwire.node(kind, inputs, output, attributes))


def _layer(found: xml.Element) -> _Layer:
    data = found.find("data")
    ports = [[port.attrib["id"] for port in found.findall("./{}/port".format(side))] for side in ("input", "output")]
    shape = tuple(int(side.text or "") for side in found.findall("./output/port[1]/dim"))
    if shape and not 0 < min(shape) <= max(shape) < SIDE_MAX:
        raise PackageError("layer {}: a shape of {}".format(ascii(found.attrib["name"])[:80], shape))
    return _Layer(found.attrib["id"], found.attrib["name"], found.attrib["type"],
                  {} if data is None else dict(data.attrib), ports[0], ports[1], shape)


def _numbers(text: str) -> Tuple[int, ...]:
    return tuple(int(part) for part in text.split(",") if part.strip())
