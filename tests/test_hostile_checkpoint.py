"""Checkpoints made to mislead or to break the import: each is one line that names the file and what is wrong with it,
and nothing is written. What is left out of a network, or taken for another, is refused as well.
"""

import copy
import os

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="import needs onnx: scripts/test --slow installs it")
torch = pytest.importorskip("torch", reason="import needs torch: scripts/test --slow installs it")

from edged import owner  # noqa: E402
from edged.model import network as networks  # noqa: E402
from edged.model.importer import import_file  # noqa: E402
from edged.model.skeleton import BODY_25, COCO_18, adjacency  # noqa: E402
from torch_stgcn import Model  # noqa: E402

CHANNELS = ((4, 1), (6, 2), (6, 1))
FRAMES = 12


@pytest.fixture(scope="module")
def state():
    torch.manual_seed(1)
    return Model(adjacency(COCO_18, 3), CHANNELS, 3).eval().state_dict()


@pytest.fixture
def desk(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def importing(code, message, *more, file="model.pt", out="out.npz"):
        before = {name: open(name, "rb").read() for name in os.listdir(".") if os.path.isfile(name)}
        strides = [] if file.endswith(".onnx") else ["--strides", "1,2,1", "--frames", str(FRAMES)]
        try:
            found = owner.main(["import", file, "--out", out] + strides + list(more))
        except SystemExit as error:
            found = error.code
        said = capsys.readouterr()
        assert found == code, said.err
        last = said.err.splitlines()[-1]
        assert message in last and last.isprintable() and (code == 2 or len(said.err.splitlines()) == 1)
        assert {name: open(name, "rb").read() for name in os.listdir(".") if os.path.isfile(name)} == before

    return importing


def stored(state, **changes):
    made = dict(state)
    for name, value in changes.items():
        name = name.replace("__", ".")
        if value is None:
            del made[name]
        else:
            made[name] = value
    torch.save(made, "model.pt")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name, value", [
    ("sparse", lambda x: x.to_sparse()), ("csr", lambda x: x.reshape(3, 6).to_sparse_csr()),
    ("meta", lambda x: x.to("meta")), ("quantised", lambda x: torch.quantize_per_tensor(x, 0.1, 0, torch.qint8)),
    ("complex", lambda x: x.to(torch.complex64)), ("expanded", lambda x: torch.zeros(1).expand(1 << 20, 1 << 20, 1, 1)),
    ("nested", lambda x: torch.nested.nested_tensor([x[0], x[1]])),
])
def test_a_tensor_that_does_not_hold_its_numbers_is_refused_at_once(state, desk, name, value):
    stored(state, fcn__weight=value(state["fcn.weight"]))
    desk(65, "model.pt: fcn.weight is no plain tensor of real numbers")


def test_a_checkpoint_that_wraps_itself_ends(desk):
    made = {}
    made["state_dict"] = made
    torch.save(made, "model.pt")
    desk(65, "model.pt: state_dict is no tensor")


@pytest.mark.parametrize("changes, message", [
    ({"edge_importance__1": None}, "edge_importance.1 is missing"),
    ({"edge_importance__7": torch.ones(3, 18, 18)}, "edge_importance.7 belongs to no layer that is there"),
    ({"st_gcn_networks__2__residual__0__bias": torch.ones(6)}, "st_gcn_networks.2.residual.0.bias belongs to no layer"),
    ({"st_gcn_networks__0__residual__1__weight": torch.ones(4)}, "residual.1.weight belongs to no layer"),
    ({"module.fcn__bias": torch.ones(3)}, "fcn.bias is there twice"),
    ({"A": torch.zeros(0, 18, 18)}, "A (0 x 18 x 18) joins nothing"), ({"A": torch.zeros(3, 18, 18)}, "joins nothing"),
    ({"bad\n\x1b[31m": torch.ones(1)}, r"'bad\n\x1b[31m': a name of no layer"),
    ({"fcn__weight": torch.full((3, 6, 1, 1), 1e300, dtype=torch.float64)}, "model.pt: fc_weight: holds what is not"),
])
def test_what_would_be_left_out_or_taken_for_something_else_is_refused(state, desk, changes, message):
    stored(state, **changes)
    desk(65, message)


def test_the_least_negative_variance_is_refused(state, desk):
    stored(state, data_bn__running_var=torch.full((54,), -9e-6))
    desk(65, "data_bn.running_var is negative")


def test_a_skeleton_named_against_its_own_adjacency_is_refused(desk):
    torch.save(Model(adjacency(BODY_25, 3), CHANNELS, 3).state_dict(), "model.pt")
    desk(65, "A is the adjacency of body25, not of ntu25", "--skeleton", "ntu25")


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_weights_of_16_bits_are_taken(state, desk, kind):
    torch.save({name: value.to(kind) if value.is_floating_point() else value for name, value in state.items()},
               "half.pt")
    made = import_file("half.pt", frames=FRAMES, strides=(1, 2, 1))
    assert made.skeleton == COCO_18
    assert np.array_equal(made.fc_bias, state["fcn.bias"].to(kind).double().numpy())


@pytest.mark.parametrize("options, message", [
    (("--persons", "9"), "persons is 9, must be 1..8"), (("--persons", "9" * 20), "persons is 9999"),
    (("--frames", "5000"), "frames is 5000, must be 1..4096"), (("--strides", "1,5,1"), "block 1 has stride 5"),
])
def test_what_no_enclave_takes_is_refused_before_it_is_written(state, desk, options, message):
    stored(state)
    desk(65, "model.pt: " + message, *options)


@pytest.mark.parametrize("channels, options, message", [
    (((4, 1),) * 40, {}, "40 blocks make 83 layers"), (((1100, 1),), {}, "block 0 has channels 1100"),
    (((4, 1),), {"taps": 17}, "block 0 has taps 17"), (((4, 1),), {"labels": 450}, "labels is 450, must be 1..400"),
])
def test_a_network_larger_than_the_enclave_takes_is_refused(desk, channels, options, message):
    torch.save(Model(adjacency(COCO_18, 3), channels, **dict({"labels": 3}, **options)).state_dict(), "model.pt")
    desk(65, "model.pt: " + message, "--strides", ",".join("1" for _ in channels))


@pytest.mark.parametrize("content, shown", [
    (b"a\nb\n\x1b[31mc\n", r"label '\x1b[31mc'"), ("a\nb\n\u202ec\n".encode(), r"label '\u202ec'"),
    (b"a\nb\nc\0\n", r"label 'c\x00'"), (b"a\nb\n" + b"c" * 65, "label 'cccc"),
    (b"a\nb\n\xff\n", "not a list of labels"), (b"a\nb\n", "answers 3 labels, the list has 2"),
    (b"a\nb\nb\n", "the list has 2 different ones"), (b"", "the list has 0"),
])
def test_labels_that_a_screen_would_not_show_as_they_are_are_refused(state, desk, content, shown):
    stored(state)
    with open("labels", "wb") as file:
        file.write(content)
    desk(65, shown, "--labels", "labels")


@pytest.mark.parametrize("content", [b"\xef\xbb\xbfa\nb\nc\n", b"a\r\nb\r\nc\r\n", b"a\n\n  b \nc"])
def test_what_editors_add_to_a_list_of_labels_is_no_label(state, desk, content):
    stored(state)
    with open("labels", "wb") as file:
        file.write(content)
    assert owner.main(["import", "model.pt", "--strides", "1,2,1", "--labels", "labels", "--out", "out.npz"]) == 0
    assert networks.read("out.npz").labels == ("a", "b", "c")


def test_strides_that_are_no_numbers_are_a_usage_error(state, desk):
    stored(state)
    desk(2, "'a': numbers with commas between them are needed", "--strides", "a")


def test_whatever_is_there_is_never_written_over(state, desk):
    """The ring, the checkpoint itself, a device, a link."""
    stored(state)
    for name in ("ring", "out.npz.part"):
        with open(name, "wb") as file:
            file.write(b"precious")
    os.symlink("ring", "link")
    os.mkfifo("pipe")
    for out in ("ring", "model.pt", "link", "pipe", "."):
        desk(77, "is there already", out=out)
    assert owner.main(["import", "model.pt", "--strides", "1,2,1", "--out", "out.npz"]) == 0
    assert open("out.npz.part", "rb").read() == b"precious" and os.path.islink("link")


def onnx_of(state, many=1):
    model = Model(adjacency(COCO_18, 3), CHANNELS, 3, importance=False).eval()
    torch.onnx.export(model, (torch.zeros(many, 3, FRAMES, 18, 2),), "model.onnx", dynamo=False)
    return onnx.load("model.onnx")


def first(graph, kind):
    return next(node for node in graph.node if node.op_type == kind)


def constant(graph, name, value):
    for one in graph.initializer:
        if one.name == name:
            one.CopyFrom(onnx.numpy_helper.from_array(value, name))


def attribute(node, name, value):
    for one in list(node.attribute):
        if one.name == name:
            node.attribute.remove(one)
    node.attribute.append(onnx.helper.make_attribute(name, value))


def frames(graph, many, place=2):
    graph.input[0].type.tensor_type.shape.dim[place].dim_value = many


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("change, message", [
    (lambda graph: constant(graph, "fcn.weight", np.float32(1)), "a node of it is damaged"),
    (lambda graph: constant(graph, "fcn.weight", np.zeros((0, 6, 1, 1), np.float32)), "a node of it is damaged"),
    (lambda graph: constant(graph, "fcn.bias", np.array([b"a", b"b", b"c"], object)), "a node of it is damaged"),
    (lambda graph: attribute(first(graph, "Conv"), "strides", [1]), "a node of it is damaged"),
    (lambda graph: attribute(first(graph, "Einsum"), "equation", b"\xff\xfe"), "a node of it is damaged"),
    (lambda graph: frames(graph, 1 << 40), "frames is 1099511627776, must be 1..4096"),
    (lambda graph: frames(graph, 1 << 33, 4), "persons is 8589934592, must be 1..8"),
    (lambda graph: frames(graph, 1 << 33, 0), "more than 256 clips at once"),
], ids=["scalar", "no labels", "texts", "stride", "equation", "frames", "persons", "batch"])
def test_a_damaged_node_of_onnx_is_one_line(state, desk, change, message):
    model = onnx_of(state)
    change(model.graph)
    with open("model.onnx", "wb") as file:
        file.write(model.SerializeToString())
    desk(65, message, file="model.onnx")


@pytest.mark.filterwarnings("ignore")
def test_onnx_of_several_clips_at_once_is_taken(state, desk):
    onnx_of(state, many=4)
    assert import_file("model.onnx").frames == FRAMES


@pytest.mark.filterwarnings("ignore")
def test_a_bit_flipped_anywhere_in_onnx_is_one_line_or_another_network(state, desk, capsys):
    """Weights may change unnoticed; what is no network is one line."""
    content = onnx_of(state).SerializeToString()
    rng = np.random.default_rng(7)
    refused = 0
    for number in range(60):
        damaged = bytearray(content)
        damaged[int(rng.integers(4000 if number % 2 else len(content)))] ^= 1 << int(rng.integers(8))
        with open("model.onnx", "wb") as file:
            file.write(copy.copy(damaged))
        code = owner.main(["import", "model.onnx", "--skeleton", "coco18", "--out", "out{}.npz".format(number)])
        said = capsys.readouterr().err
        assert code in (0, 65) and len(said.splitlines()) == (code == 65), said
        refused += code == 65
    assert refused
