"""Batch norms folded into the convolutions beside them: what both the integer model and ONNX start from.

The graph convolution's bias goes through the adjacency, so it becomes one bias for each joint and channel.
"""

from dataclasses import dataclass
from typing import Optional, Tuple

import numpy as np

from edged.model import stgcn


@dataclass(frozen=True, eq=False)
class FoldedBlock:
    """A block without batch norms.

    adjacency       (P, V, V)
    graph_weight    (P, out, in)         graph_bias    (V, out), after the adjacency
    temporal_weight (out, taps, out)     temporal_bias (out,)
    residual_weight (out, in)            residual_bias (out,)    None unless ``residual`` is CONVOLUTION
    """

    adjacency: np.ndarray
    graph_weight: np.ndarray
    graph_bias: np.ndarray
    temporal_weight: np.ndarray
    temporal_bias: np.ndarray
    stride: int
    residual: str
    residual_weight: Optional[np.ndarray]
    residual_bias: Optional[np.ndarray]


@dataclass(frozen=True, eq=False)
class FoldedNetwork:
    """``input_gain``, ``input_offset`` are (V, 3): first block's input = clip * gain + offset."""

    source: stgcn.Network
    input_gain: np.ndarray
    input_offset: np.ndarray
    blocks: Tuple[FoldedBlock, ...]
    fc_weight: np.ndarray
    fc_bias: np.ndarray


def _affine(norm: stgcn.BatchNorm) -> Tuple[np.ndarray, np.ndarray]:
    """The norm as ``x * gain + offset``."""
    gain = norm.gain / np.sqrt(norm.variance + norm.epsilon)
    return gain, norm.offset - norm.mean * gain


def _fold_block(block: stgcn.Block) -> FoldedBlock:
    partitions, channels = block.adjacency.shape[0], block.channels_out
    gain, offset = _affine(block.graph_norm)
    bias = np.einsum("kvw,ko->wo", block.adjacency, block.graph_bias.reshape(partitions, channels))
    temporal_gain, temporal_offset = _affine(block.temporal_norm)
    residual_weight = residual_bias = None
    if block.residual == stgcn.CONVOLUTION:
        residual_gain, residual_offset = _affine(block.residual_norm)
        residual_weight = block.residual_weight * residual_gain[:, None]
        residual_bias = block.residual_bias * residual_gain + residual_offset
    return FoldedBlock(
        adjacency=block.adjacency,
        graph_weight=block.graph_weight.reshape(partitions, channels, -1) * gain[:, None],
        graph_bias=bias * gain + offset,
        temporal_weight=block.temporal_weight * temporal_gain[:, None, None],
        temporal_bias=block.temporal_bias * temporal_gain + temporal_offset,
        stride=block.stride,
        residual=block.residual,
        residual_weight=residual_weight,
        residual_bias=residual_bias,
    )


def fold(network: stgcn.Network) -> FoldedNetwork:
    """The same function of a clip without a batch norm in it."""
    gain, offset = _affine(network.data_norm)
    return FoldedNetwork(
        source=network,
        input_gain=gain.reshape(network.joints, stgcn.CHANNELS_IN),
        input_offset=offset.reshape(network.joints, stgcn.CHANNELS_IN),
        blocks=tuple(_fold_block(block) for block in network.blocks),
        fc_weight=network.fc_weight,
        fc_bias=network.fc_bias,
    )
