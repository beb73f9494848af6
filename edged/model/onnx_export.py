"""The float network as ONNX, as fast as a sensible person would write it: the unprotected yardstick.

Batch norms are folded. Inside, tensors are (M, C, V, T): with frames last, the adjacency is one product from
the left that turns (V, T) into (P * V, T), its partitions become channels by a mere reshape, and the temporal
convolution runs along contiguous memory. Nothing but the input is transposed.

Needs the ``owner`` or ``dev`` extra (onnx), imported on use.
"""

from typing import TYPE_CHECKING, List, Tuple

import numpy as np

from edged.model import stgcn
from edged.model.fold import FoldedBlock, FoldedNetwork, fold

if TYPE_CHECKING:
    import onnx

OPSET = 13
IR_VERSION = 8  # of the opset's time, so that older ONNX Runtimes load it


class _Graph:
    """Nodes and constants in the making; every method returns the name of what it adds."""

    def __init__(self) -> None:
        from onnx import helper, numpy_helper

        self._helper, self._numpy = helper, numpy_helper
        self.nodes: List["onnx.NodeProto"] = []
        self.constants: List["onnx.TensorProto"] = []

    def constant(self, value: np.ndarray) -> str:
        name = "c{}".format(len(self.constants))
        self.constants.append(self._numpy.from_array(np.ascontiguousarray(value), name))
        return name

    def weights(self, value: np.ndarray) -> str:
        return self.constant(value.astype(np.float32))

    def add(self, kind: str, *inputs: str, name: str = "", **attributes: object) -> str:
        name = name or "t{}".format(len(self.nodes))
        self.nodes.append(self._helper.make_node(kind, list(inputs), [name], **attributes))
        return name


def _block(graph: _Graph, block: FoldedBlock, x: str, shape: Tuple[int, int, int]) -> str:
    """``shape`` is (M, V, T) of x (M, C, V, T)."""
    persons, joints, frames = shape
    partitions, channels_out, channels_in = block.graph_weight.shape
    if partitions > 1:
        fused = block.adjacency.transpose(0, 2, 1).reshape(partitions * joints, joints)
        y = graph.add("MatMul", graph.weights(fused), x)  # (M, C, P * V, T)
        wanted = np.array([persons, channels_in * partitions, joints, frames], np.int64)
        y = graph.add("Reshape", y, graph.constant(wanted))
    else:
        y = graph.add("MatMul", graph.weights(block.adjacency[0].T), x)
    # the reshape made channel c * P + k
    pointwise = block.graph_weight.transpose(1, 2, 0).reshape(channels_out, -1, 1, 1)
    even = block.graph_bias.mean(axis=0)
    y = graph.add("Conv", y, graph.weights(pointwise), graph.weights(even), kernel_shape=[1, 1])
    uneven = block.graph_bias - even  # what importance of edges makes of the bias, joint by joint
    if np.abs(uneven).max() > 1e-12:
        y = graph.add("Add", y, graph.weights(uneven.T[None, :, :, None]))
    g = graph.add("Relu", y)
    taps = block.temporal_weight.shape[1]
    pad = (taps - 1) // 2
    along = block.temporal_weight.transpose(0, 2, 1)[:, :, None, :]
    y = graph.add(
        "Conv", g, graph.weights(along), graph.weights(block.temporal_bias),
        kernel_shape=[1, taps], pads=[0, pad, 0, pad], strides=[1, block.stride],
    )  # fmt: skip
    if block.residual == stgcn.IDENTITY:
        y = graph.add("Add", y, x)
    elif block.residual == stgcn.CONVOLUTION:
        weight, bias = graph.weights(block.residual_weight[:, :, None, None]), graph.weights(block.residual_bias)
        y = graph.add("Add", y, graph.add("Conv", x, weight, bias, kernel_shape=[1, 1], strides=[1, block.stride]))
    return graph.add("Relu", y)


def _nodes(graph: _Graph, folded: FoldedNetwork) -> None:
    network = folded.source
    x = graph.add("Transpose", "clip", perm=[0, 1, 3, 2])
    x = graph.add("Mul", x, graph.weights(folded.input_gain.T[None, :, :, None]))
    x = graph.add("Add", x, graph.weights(folded.input_offset.T[None, :, :, None]))
    frames = network.frames
    for block in folded.blocks:
        x = _block(graph, block, x, (network.persons, network.joints, frames))
        frames = (frames - 1) // block.stride + 1
    pooled = graph.add("ReduceMean", x, axes=[0, 2, 3], keepdims=0)
    row = graph.add("Reshape", pooled, graph.constant(np.array([1, -1], np.int64)))
    row = graph.add("Gemm", row, graph.weights(folded.fc_weight), graph.weights(folded.fc_bias), transB=1)
    graph.add("Reshape", row, graph.constant(np.array([-1], np.int64)), name="logits")


def export(network: stgcn.Network) -> bytes:
    """An ONNX model: ``clip`` float32 (M, 3, T, V), absent persons zero -> ``logits`` float32 (L,)."""
    from onnx import TensorProto, checker, helper

    graph = _Graph()
    _nodes(graph, fold(network))
    shape = [network.persons, stgcn.CHANNELS_IN, network.frames, network.joints]
    body = helper.make_graph(
        graph.nodes,
        "stgcn",
        [helper.make_tensor_value_info("clip", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [len(network.labels)])],
        graph.constants,
    )
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    checker.check_model(model)
    return model.SerializeToString()


def clip_input(network: stgcn.Network, clip: np.ndarray) -> np.ndarray:
    """An int16 clip (m, T, V, 3) as the exported network takes it: float32 (M, 3, T, V)."""
    full = stgcn.from_fixed_point(clip, network.persons).astype(np.float32)
    return np.ascontiguousarray(full.transpose(0, 3, 1, 2))
