"""Write a network in OpenVINO's form, as the publisher's files are: for tests, from an ONNX model.

Convolutions without their biases, which are added by a layer of their own; a Result for each output.
"""

import xml.etree.ElementTree as xml

import numpy as np
import onnx
from onnx import numpy_helper, shape_inference

KINDS = {"Relu": "ReLU", "Mul": "Multiply", "Add": "Add", "Elu": "Elu", "Concat": "Concat"}


class Writer:
    def __init__(self, element="f32"):
        self.root = xml.Element("net", name="net", version="10")
        self.layers, self.edges = xml.SubElement(self.root, "layers"), xml.SubElement(self.root, "edges")
        self.weights, self.element, self.count = b"", element, 0
        self.made = {}  # name -> (layer, port), shape

    def layer(self, name, kind, sides, inputs=(), **data):
        """Its output is called ``name``; ``inputs`` are such names."""
        number, self.count = str(self.count), self.count + 1
        made = xml.SubElement(self.layers, "layer", id=number, name=name, type=kind, version="opset1")
        if data:
            xml.SubElement(made, "data", **{key: str(value) for key, value in data.items()})
        taken = xml.SubElement(made, "input") if inputs else None
        for port, one in enumerate(inputs):
            source, its = self.made[one]
            _port(taken, port, its)
            xml.SubElement(self.edges, "edge", {"from-layer": source[0], "from-port": source[1], "to-layer": number,
                                                "to-port": str(port)})
        if kind != "Result":
            _port(xml.SubElement(made, "output"), len(inputs), sides)
            self.made[name] = (number, str(len(inputs))), sides

    def constant(self, name, value):
        packed = np.ascontiguousarray(value, {"f32": "<f4", "f16": "<f2"}[self.element]).tobytes()
        self.layer(name, "Const", value.shape, element_type=self.element, offset=len(self.weights), size=len(packed),
                   shape=_joined(value.shape))
        self.weights += packed

    def files(self):
        return xml.tostring(self.root), self.weights


def _port(parent, number, shape):
    port = xml.SubElement(parent, "port", id=str(number), precision="FP32")
    for side in shape:
        xml.SubElement(port, "dim").text = str(side)


def _joined(numbers):
    return ", ".join(str(number) for number in numbers)


def from_onnx(model, element="f32"):
    """(xml, bin) of a model of the operators that pose networks have."""
    model = shape_inference.infer_shapes(model)
    graph, writer = model.graph, Writer(element)
    shapes = {value.name: tuple(side.dim_value for side in value.type.tensor_type.shape.dim)
              for value in list(graph.value_info) + list(graph.output) + list(graph.input)}
    constants = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    for value in graph.input:
        if value.name not in constants:
            writer.layer(value.name, "Parameter", shapes[value.name], element_type=element,
                         shape=_joined(shapes[value.name]))
    for node in graph.node:
        given = {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}
        output, shape = node.output[0], shapes[node.output[0]]
        if node.op_type == "Conv":
            weight, groups = constants[node.input[1]], given.get("group", 1)
            if groups > 1:
                weight = weight.reshape((groups, -1) + weight.shape[1:])
            writer.constant(output + "/weights", weight)
            biased = len(node.input) == 3
            pads = given["pads"]
            writer.layer(output + "/WithoutBiases" if biased else output,
                         "GroupConvolution" if groups > 1 else "Convolution", shape,
                         [node.input[0], output + "/weights"], auto_pad="explicit", strides=_joined(given["strides"]),
                         dilations=_joined(given["dilations"]), pads_begin=_joined(pads[:2]),
                         pads_end=_joined(pads[2:]))
            if biased:
                writer.constant(output + "/Dims", constants[node.input[2]].reshape(1, -1, 1, 1))
                writer.layer(output, "Add", shape, [output + "/WithoutBiases", output + "/Dims"],
                             auto_broadcast="numpy")
            continue
        for name in node.input:
            if name in constants and name not in writer.made:
                writer.constant(name, constants[name])
        data = {"Elu": {"alpha": given.get("alpha", 1)}, "Concat": {"axis": given.get("axis", 1)}}
        writer.layer(output, KINDS[node.op_type], shape, list(node.input), **data.get(node.op_type, {}))
    for value in graph.output:
        writer.layer(value.name + "/sink_port_0", "Result", (), [value.name])
    return writer.files()
