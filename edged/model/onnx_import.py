"""An ST-GCN as ONNX, as PyTorch exports the published code: back to the arrays of its state dict.

The graph is read from its answer to its input. What only moves or shapes tensors is passed over, batch norms that the
exporter folded into a convolution come back as ones that do nothing, and at the end the file itself is run on a random
clip: a network that does not answer as its file is refused. Needs onnx and onnxruntime, imported on use.
"""

from typing import Any, Dict, List, NamedTuple, Optional, Tuple

import numpy as np

from edged.command import needs
from edged.errors import PackageError
from edged.model import stgcn

_SHAPING = ("Reshape", "Transpose", "Identity", "Squeeze", "Unsqueeze", "Flatten", "Dropout", "Cast")
_POOLING = ("ReduceMean", "GlobalAveragePool", "AveragePool")
_EPSILON = 1e-5  # of stgcn.BatchNorm
_EINSUM = "nkctv,kvw->nctw"
_CLOSE = 1e-3
_BATCH_MOST = 256


class Imported(NamedTuple):
    """arrays : by the published names; ``A`` is all ones, what the file holds stands in edge_importance.N
    plain : whether all blocks have one adjacency, which is then ``A``"""

    arrays: Dict[str, np.ndarray]
    strides: Tuple[int, ...]
    persons: int
    frames: int
    plain: bool


class _Graph:
    """The graph of a file, and what it refuses to be."""

    def __init__(self, content: bytes, path: str) -> None:
        with needs("owner"):
            import onnx
            from onnx import numpy_helper
        self.path = path
        try:
            model = onnx.load_model_from_string(content)
            onnx.checker.check_model(model)
        except Exception as error:  # protobuf's and the checker's own kinds
            raise PackageError("{}: not an ONNX file, or damaged".format(path)) from error
        self._to_array, self._helper = numpy_helper.to_array, onnx.helper
        self.graph = model.graph
        self._made = {output: node for node in self.graph.node for output in node.output}
        self._known = {one.name: np.asarray(numpy_helper.to_array(one)) for one in self.graph.initializer}
        inputs = [one for one in self.graph.input if one.name not in self._known]
        if len(inputs) != 1 or len(self.graph.output) != 1:
            raise self.refuse("has {} inputs and {} outputs, must have one of each".format(
                len(inputs), len(self.graph.output)))
        self.input = inputs[0].name
        self.input_shape = [one.dim_value for one in inputs[0].type.tensor_type.shape.dim]

    def refuse(self, why: str) -> PackageError:
        return PackageError("{}: {}: not the published ST-GCN, which alone can be represented".format(self.path, why))

    def attribute(self, node: Any, name: str, default: Any) -> Any:
        for one in node.attribute:
            if one.name == name:
                found = self._helper.get_attribute_value(one)
                return found.decode("ascii") if isinstance(found, bytes) else found
        return default

    def constant(self, name: str) -> np.ndarray:
        """float64; raises PackageError where it depends on the input."""
        if name in self._known:
            return self._known[name].astype(np.float64)
        node = self._made.get(name)
        if node is not None and node.op_type == "Constant":
            return np.asarray(self._to_array(self.attribute(node, "value", None)), np.float64)
        if node is not None and node.op_type in ("Identity", "Cast"):
            return self.constant(node.input[0])
        if node is not None and node.op_type == "Mul":  # the adjacency times its importance
            return self.constant(node.input[0]) * self.constant(node.input[1])
        raise self.refuse("{} is no constant".format(name))

    def before(self, name: str) -> Any:
        """The node that made a tensor, shaping passed over; None for the input."""
        while name != self.input:
            node = self._made.get(name)
            if node is None:
                raise self.refuse("{} comes from nowhere".format(name))
            if node.op_type not in _SHAPING:
                return node
            name = node.input[0]
        return None

    def want(self, node: Any, *kinds: str) -> Any:
        if node is None or node.op_type not in kinds:
            raise self.refuse("{} where {} was expected".format(
                "the input" if node is None else "{} {}".format(node.op_type, node.name), " or ".join(kinds)))
        return node


def read(content: bytes, path: str) -> Imported:
    """Raises PackageError for any other graph, MissingInput where onnx is not installed."""
    try:
        return _imported(_Graph(content, path))
    except (LookupError, ValueError, TypeError, AttributeError) as error:  # of a node unlike any that PyTorch writes
        raise PackageError("{}: a node of it is damaged, or unlike PyTorch's: {}".format(
            path, ascii(str(error))[:120])) from error


def _imported(graph: _Graph) -> Imported:
    if len(graph.input_shape) != 5 or graph.input_shape[1] != stgcn.CHANNELS_IN or min(graph.input_shape[2:]) < 1:
        raise graph.refuse("input {}, must be (N, 3, frames, joints, persons)".format(graph.input_shape))
    if graph.input_shape[0] > _BATCH_MOST:
        raise graph.refuse("input {}: more than {} clips at once".format(graph.input_shape, _BATCH_MOST))
    _, _, frames, joints, persons = graph.input_shape
    arrays: Dict[str, np.ndarray] = {}
    node = graph.want(graph.before(graph.graph.output[0].name), "Conv", "Gemm")
    weight = graph.constant(node.input[1])
    if node.op_type == "Gemm" and not graph.attribute(node, "transB", 0):
        weight = weight.T
    arrays["fcn.weight"] = weight.reshape(weight.shape[0], -1, 1, 1)
    arrays["fcn.bias"] = graph.constant(node.input[2]) if len(node.input) > 2 else np.zeros(len(weight))
    node = graph.want(graph.before(node.input[0]), *_POOLING)
    while node is not None and node.op_type in _POOLING:
        node = graph.before(node.input[0])
    blocks: List[Tuple[Dict[str, np.ndarray], int]] = []
    while node is not None and node.op_type == "Relu":
        found, stride, node = _block(graph, node)
        blocks.append((found, stride))
    data = graph.want(node, "BatchNormalization")
    if not blocks or graph.before(data.input[0]) is not None:
        raise graph.refuse("no blocks between its input and its answer")
    _put_norm(graph, arrays, "data_bn", data, joints * stgcn.CHANNELS_IN)
    blocks.reverse()
    for index, (found, _) in enumerate(blocks):
        for name, value in found.items():
            theirs = "edge_importance.{}" if name == "adjacency" else "st_gcn_networks.{}." + name
            arrays[theirs.format(index)] = value
    spreads = [found["adjacency"] for found, _ in blocks]
    plain = all(np.array_equal(one, spreads[0]) for one in spreads)
    arrays["A"] = spreads[0] if plain else np.ones_like(spreads[0])
    if plain:
        for index in range(len(blocks)):
            del arrays["edge_importance.{}".format(index)]
    return Imported(arrays, tuple(stride for _, stride in blocks), persons, frames, plain)


def _block(graph: _Graph, relu: Any) -> Tuple[Dict[str, np.ndarray], int, Any]:
    """A block's arrays, its stride, and the node before it (None: the input)."""
    found: Dict[str, np.ndarray] = {}
    node = graph.before(relu.input[0])
    branches = [node] if node is None or node.op_type != "Add" else [graph.before(name) for name in node.input]
    temporal = [branch for branch in branches if _is_temporal(graph, branch)]
    if len(temporal) != 1:
        raise graph.refuse("{} is not the end of a block".format(relu.name))
    around = [branch for branch in branches if branch is not temporal[0]]
    norm, convolution = _split(graph, temporal[0])
    found["tcn.2.weight"], found["tcn.2.bias"], stride = _convolution(graph, convolution)
    _put_norm(graph, found, "tcn.3", norm, len(found["tcn.2.bias"]))
    norm = graph.before(graph.before(convolution.input[0]).input[0])
    einsum = norm if norm.op_type == "Einsum" else graph.before(norm.input[0])
    _put_norm(graph, found, "tcn.0", None if norm is einsum else norm, len(found["tcn.2.bias"]))
    if _renamed(graph.attribute(einsum, "equation", "")) != _renamed(_EINSUM):
        raise graph.refuse("Einsum {}".format(graph.attribute(einsum, "equation", "")))
    found["adjacency"] = graph.constant(einsum.input[1])
    spread = graph.want(graph.before(einsum.input[0]), "Conv")
    found["gcn.conv.weight"], found["gcn.conv.bias"], spread_stride = _convolution(graph, spread)
    if spread_stride != 1:
        raise graph.refuse("a graph convolution with stride {}".format(spread_stride))
    begin = graph.before(spread.input[0])
    if around and around[0] is not begin:
        norm, convolution = _split(graph, around[0])
        found["residual.0.weight"], found["residual.0.bias"], around_stride = _convolution(graph, convolution)
        _put_norm(graph, found, "residual.1", norm, len(found["residual.0.bias"]))
        if graph.before(convolution.input[0]) is not begin or around_stride != stride:
            raise graph.refuse("{} does not go round its block".format(convolution.name))
    return found, stride, begin


def _is_temporal(graph: _Graph, branch: Any) -> bool:
    """Whether it is [BatchNormalization of] Conv of Relu of [BatchNormalization of] Einsum."""
    for kinds in (("BatchNormalization",), ("Conv",), ("Relu",), ("BatchNormalization",), ("Einsum",)):
        if branch is None:
            return False
        if branch.op_type in kinds:
            if branch.op_type == "Einsum":
                return True
            branch = graph.before(branch.input[0])
        elif kinds != ("BatchNormalization",):
            return False
    return False


def _split(graph: _Graph, node: Any) -> Tuple[Optional[Any], Any]:
    """(batch norm or None, convolution) at the end of a branch."""
    if node is not None and node.op_type == "BatchNormalization":
        return node, graph.want(graph.before(node.input[0]), "Conv")
    return None, graph.want(node, "Conv")


def _convolution(graph: _Graph, node: Any) -> Tuple[np.ndarray, np.ndarray, int]:
    """(out, in, taps, 1), (out,) and the stride in time."""
    weight = graph.constant(node.input[1])
    if weight.ndim != 4 or weight.shape[3] != 1:
        raise graph.refuse("{}: a kernel of {}".format(node.name, weight.shape))
    pad = weight.shape[2] // 2
    stride = graph.attribute(node, "strides", [1, 1])
    if list(graph.attribute(node, "pads", [0] * 4)) != [pad, 0, pad, 0] or graph.attribute(node, "group", 1) != 1 \
            or list(graph.attribute(node, "dilations", [1, 1])) != [1, 1] or stride[1] != 1:
        raise graph.refuse("{}: its padding, groups or dilation".format(node.name))
    bias = graph.constant(node.input[2]) if len(node.input) > 2 else np.zeros(len(weight))
    return weight, bias, int(stride[0])


def _put_norm(graph: _Graph, arrays: Dict[str, np.ndarray], name: str, node: Optional[Any], channels: int) -> None:
    """One that is not there does nothing."""
    parts = [np.ones(channels), np.zeros(channels), np.zeros(channels), np.full(channels, 1 - _EPSILON)]
    if node is not None:
        graph.want(node, "BatchNormalization")
        parts = [graph.constant(one) for one in node.input[1:5]]
        parts[3] = parts[3] + graph.attribute(node, "epsilon", 1e-5) - _EPSILON
    for part, value in zip(("weight", "bias", "running_mean", "running_var"), parts):
        arrays["{}.{}".format(name, part)] = value


def _renamed(equation: str) -> str:
    """Letters in the order of their appearance, so that only the pattern counts."""
    names: Dict[str, str] = {}
    return "".join(names.setdefault(one, chr(ord("a") + len(names))) if one.isalpha() else one
                   for one in equation.replace(" ", ""))


def check(content: bytes, network: stgcn.Network, path: str) -> None:
    """Raise PackageError unless the network answers as the file does, on a random clip."""
    with needs("owner"):
        import onnxruntime
    rng = np.random.default_rng(1)
    clip = stgcn.from_fixed_point(stgcn.random_clip(rng, network, network.persons), network.persons)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        many = session.get_inputs()[0].shape[0]
        fed = np.repeat(clip.transpose(3, 1, 2, 0)[None].astype(np.float32), many if isinstance(many, int) else 1, 0)
        theirs = session.run(None, {name: fed})[0].reshape(len(fed), -1)[0]
    except Exception as error:  # of onnxruntime's own kinds
        raise PackageError("{}: cannot be run: {}".format(path, " ".join(str(error).split())[:200])) from error
    ours = stgcn.forward(network, clip[None])[0]
    if theirs.shape != ours.shape or np.abs(ours - theirs).max() > _CLOSE * max(1.0, float(np.abs(theirs).max())):
        raise PackageError("{}: what was read of it does not answer as the file: it does more than the published "
                           "ST-GCN".format(path))
