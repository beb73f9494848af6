"""A network in OpenVINO's form gives what it gave as ONNX; what cannot be represented is refused by name."""

import xml.etree.ElementTree as xml

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from edged.camera.openvino import to_onnx
from edged.errors import PackageError
from openvino_ir import Writer, from_onnx
from pose_fixtures import needs

LARGE = "human-pose-estimation-0001.f32.456x256.onnx"


def small(seed=1):
    """Each operator that is taken: scaling, convolutions with and without bias, by groups, dilated; a sum, a join."""
    rng = np.random.default_rng(seed)
    tensors, nodes = [], []

    def put(kind, name, *inputs, **attributes):
        nodes.append(helper.make_node(kind, inputs, [name], name, **attributes))

    def constant(name, *shape):
        tensors.append(numpy_helper.from_array(rng.normal(0, 0.4, shape).astype(np.float32), name))
        return name

    def convolve(name, source, out, into, side, stride=1, dilation=1, group=1, bias=True):
        inputs = [source, constant(name + "_w", out, into // group, side, side)]
        inputs += [constant(name + "_b", out)] if bias else []
        put("Conv", name, *inputs, strides=[stride] * 2, dilations=[dilation] * 2, group=group,
            pads=[dilation * (side // 2)] * 4, kernel_shape=[side] * 2)

    put("Mul", "scaled", "data", constant("scale", 1, 1, 1, 1))
    put("Add", "shifted", "scaled", constant("shift", 1, 3, 1, 1))
    convolve("first", "shifted", 8, 3, 3, stride=2)
    put("Relu", "active", "first")
    convolve("deep", "active", 8, 8, 3, dilation=2, group=8)
    put("Elu", "bent", "deep", alpha=0.5)
    convolve("wide", "bent", 8, 8, 1, bias=False)
    put("Add", "sum", "wide", "active")
    put("Concat", "joined", "sum", "bent", axis=1)
    convolve("heat", "joined", 19, 16, 1)
    convolve("paf", "joined", 38, 16, 1)
    graph = helper.make_graph(
        nodes, "small", [helper.make_tensor_value_info("data", TensorProto.FLOAT, [1, 3, 16, 24])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, count, 8, 12])
         for name, count in (("heat", 19), ("paf", 38))], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)


def answers(content, picture):
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return dict(zip([one.name for one in session.get_outputs()], session.run(None, {"data": picture})))


def test_every_operator_answers_as_before():
    model = small()
    made = to_onnx(*from_onnx(model))
    onnx.checker.check_model(onnx.load_from_string(made), full_check=True)
    picture = np.random.default_rng(2).normal(0, 1, (1, 3, 16, 24)).astype(np.float32)
    before, after = answers(model.SerializeToString(), picture), answers(made, picture)
    assert list(after) == ["heat", "paf"] and all(np.array_equal(before[name], after[name]) for name in before)
    kinds = [node.op_type for node in onnx.load_from_string(made).graph.node]
    assert kinds.count("Conv") == 5 and kinds.count("Add") == 2  # biases are the convolutions' own


def test_the_same_files_give_the_same_bytes():
    files = from_onnx(small())
    assert to_onnx(*files) == to_onnx(*files)


def test_half_precision_is_taken():
    model = small()
    picture = np.random.default_rng(3).normal(0, 1, (1, 3, 16, 24)).astype(np.float32)
    before, after = answers(model.SerializeToString(), picture), answers(to_onnx(*from_onnx(model, "f16")), picture)
    assert all(np.abs(before[name] - after[name]).max() < 0.01 * np.abs(before[name]).max() for name in before)


def test_the_large_network_answers_bit_for_bit():
    """Written as its publisher's file is, which could not be had here."""
    path = needs("pose") / LARGE
    picture = np.random.default_rng(4).uniform(0, 255, (1, 3, 256, 456)).astype(np.float32)
    before, after = answers(str(path), picture), answers(to_onnx(*from_onnx(onnx.load(str(path)))), picture)
    assert set(before) == set(after) and all(np.array_equal(before[name], after[name]) for name in before)


def test_an_addition_to_a_convolution_that_others_use_stays_one():
    writer = Writer()
    writer.layer("data", "Parameter", (1, 3, 4, 4), element_type="f32", shape="1,3,4,4")
    writer.constant("w", np.ones((2, 3, 1, 1), np.float32))
    writer.layer("c", "Convolution", (1, 2, 4, 4), ["data", "w"], strides="1,1", dilations="1,1", pads_begin="0,0",
                 pads_end="0,0", auto_pad="explicit")
    writer.constant("b", np.full((1, 2, 1, 1), 5, np.float32))
    writer.layer("plus", "Add", (1, 2, 4, 4), ["c", "b"])
    for name in ("c", "plus"):
        writer.layer(name + "/sink", "Result", (), [name])
    found = answers(to_onnx(*writer.files()), np.ones((1, 3, 4, 4), np.float32))
    assert (found["c"] == 3).all() and (found["plus"] == 8).all()


def described(old, new):
    """The small network's files, something in the description replaced."""
    description, weights = from_onnx(small())
    assert old in description
    return description.replace(old, new), weights


@pytest.mark.parametrize("old, new, message", [
    (b'version="10"', b'version="7"', "version 10 or 11"), (b"<net ", b"<model ", "not a network"),
    (b'type="Elu"', b'type="Swish"', "layer bent: Swish is not taken"),
    (b'auto_pad="explicit"', b'auto_pad="same_upper"', "auto_pad same_upper"),
    (b'element_type="f32" offset', b'element_type="i8" offset', "i8 is none of f32, f16"),
    (b'offset="0"', b'offset="99999999"', "outside of the file"),
    (b'offset="0"', b'offset="-4"', "outside of the file"),
    (b'shape="8, 3, 3, 3"', b'shape="8, 3, 3, 5"', "of another size"), (b'name="bent"', b'name="deep"', "of one name"),
    (b'alpha="0.5"', b'', "alpha"), (b'alpha="0.5"', b'alpha="1e300"', "not a network"),
    (b'size="864" shape="8, 3, 3, 3"', b'size="-4" shape="-1"', "outside of the file"),
    (b"<dim>24</dim>", b"<dim>1180591620717411303424</dim>", "a shape of"),
    (b"<dim>24</dim>", b"<dim>-24</dim>", "a shape of"), (b'strides="2, 2"', b'strides="two"', "not a network"),
    (b'from-layer="0"', b'from-layer="77"', "77"), (b"</net>", b"", "not a network"),
])
def test_what_cannot_be_represented_is_refused_by_name(old, new, message):
    description, weights = described(old, new)
    if old == b"<net ":
        description = description.replace(b"</net>", b"</model>")
    with pytest.raises(PackageError, match=message) as caught:
        to_onnx(description, weights)
    assert "\n" not in str(caught.value)


def test_a_cut_file_is_refused_wherever_it_is_cut():
    description, weights = from_onnx(small())
    for size in range(0, len(description), 97):
        with pytest.raises(PackageError):
            to_onnx(description[:size], weights)
    for size in range(0, len(weights), 101):
        with pytest.raises(PackageError, match="outside of the file"):
            to_onnx(description, weights[:size])


def test_layers_and_edges_in_another_order_are_the_same_network():
    description, weights = from_onnx(small())
    root = xml.fromstring(description)
    rng = np.random.default_rng(5)
    for name in ("layers", "edges"):
        parent = root.find(name)
        parent[:] = [parent[place] for place in rng.permutation(len(parent))]
    picture = rng.normal(0, 1, (1, 3, 16, 24)).astype(np.float32)
    one, other = (answers(to_onnx(text, weights), picture) for text in (description, xml.tostring(root)))
    assert all(np.array_equal(one[name], other[name]) for name in one)


def test_layers_that_wait_for_each_other_are_refused():
    description, weights = from_onnx(small())
    last = max(int(part.split(b'"')[0]) for part in description.split(b'<layer id="')[1:])
    edge = b'<edge from-layer="%d" from-port="0" to-layer="2" to-port="0"' % last
    first = description.index(b'<edge ')
    end = description.index(b"/>", first)
    with pytest.raises(PackageError, match="wait for each other"):
        to_onnx(description[:first] + edge + description[end:].lstrip(), weights)


def test_weights_that_are_no_numbers_are_refused():
    description, weights = from_onnx(small())
    with pytest.raises(PackageError, match="not finite"):
        to_onnx(description, b"\xff" * len(weights))
