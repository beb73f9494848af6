"""ST-GCN in floating point, as published: the oracle that folding, quantising and exporting are held to.

Shapes: a clip is (M, T, V, 3) - persons, frames, joints, (x, y, confidence) - and an absent person is all
zeros, which the data batch norm turns into a constant that the network does see, as in the original code.
Source: Yan et al. 2018, arXiv:1801.07455; layer order after github.com/yysijie/st-gcn.
"""

from dataclasses import dataclass, replace
from typing import Optional, Sequence, Tuple, Union

import numpy as np

from edged.errors import ShapeError
from edged.model.skeleton import COCO_18, Skeleton, adjacency, binary_tree

CLIP_SCALE = 16384  # a clip's int16 values are Q1.14 fixed point
CHANNELS_IN = 3

# (out channels, stride) of the ten published blocks
FULL_CHANNELS = ((64, 1),) * 4 + ((128, 2),) + ((128, 1),) * 2 + ((256, 2),) + ((256, 1),) * 2

NO_RESIDUAL, IDENTITY, CONVOLUTION = "none", "identity", "convolution"


@dataclass(frozen=True, eq=False)
class BatchNorm:
    """``y = gain * (x - mean) / sqrt(variance + epsilon) + offset``, all (C,) float64."""

    gain: np.ndarray
    offset: np.ndarray
    mean: np.ndarray
    variance: np.ndarray
    epsilon: float = 1e-5

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """x (..., C) -> (..., C)."""
        return self.gain * (x - self.mean) / np.sqrt(self.variance + self.epsilon) + self.offset


@dataclass(frozen=True, eq=False)
class Block:
    """Graph convolution, then temporal convolution, with a residual round both.

    adjacency       (P, V, V)            edge importance multiplied in
    graph_weight    (P * out, in)        row k * out + o, as in the original Conv2d
    graph_bias      (P * out,)
    temporal_weight (out, taps, out)     temporal_bias (out,)
    residual_weight (out, in)            residual_bias (out,)    residual_norm; None unless CONVOLUTION
    """

    adjacency: np.ndarray
    graph_weight: np.ndarray
    graph_bias: np.ndarray
    graph_norm: BatchNorm
    temporal_weight: np.ndarray
    temporal_bias: np.ndarray
    temporal_norm: BatchNorm
    stride: int
    residual: str
    residual_weight: Optional[np.ndarray] = None
    residual_bias: Optional[np.ndarray] = None
    residual_norm: Optional[BatchNorm] = None

    @property
    def channels_in(self) -> int:
        return self.graph_weight.shape[1]

    @property
    def channels_out(self) -> int:
        return self.temporal_weight.shape[0]


@dataclass(frozen=True, eq=False)
class Network:
    """data_norm is over V * 3 values, joint by joint; fc_weight (L, C), fc_bias (L,)."""

    skeleton: Skeleton
    persons: int
    frames: int
    labels: Tuple[str, ...]
    data_norm: BatchNorm
    blocks: Tuple[Block, ...]
    fc_weight: np.ndarray
    fc_bias: np.ndarray

    @property
    def joints(self) -> int:
        return self.skeleton.joints


def check(network: Network) -> None:
    """Raise ShapeError, naming the part, unless all parts of a network fit each other."""

    def want(what: str, found: Optional[np.ndarray], *shape: int) -> None:
        if found is None or found.shape != shape:
            raise ShapeError("{} is {}, must be {}".format(what, None if found is None else found.shape, shape))

    def want_norm(what: str, norm: Optional[BatchNorm], channels: int) -> None:
        for part in ("gain", "offset", "mean", "variance"):
            want("{}.{}".format(what, part), None if norm is None else getattr(norm, part), channels)
        if norm is not None and not (norm.variance + norm.epsilon > 0).all():
            raise ShapeError("{}.variance is not positive".format(what))

    if network.persons < 1 or network.frames < 1 or not network.labels or not network.blocks:
        raise ShapeError("{} persons, {} frames, {} labels, {} blocks: of each at least one".format(
            network.persons, network.frames, len(network.labels), len(network.blocks)))
    if len(set(network.labels)) != len(network.labels):
        raise ShapeError("a label is there twice")
    joints, channels = network.joints, CHANNELS_IN
    want_norm("data_norm", network.data_norm, joints * CHANNELS_IN)
    partitions = network.blocks[0].adjacency.shape[0]
    for index, block in enumerate(network.blocks):
        name = "blocks.{}.".format(index)
        if block.temporal_weight.ndim != 3 or not block.temporal_weight.shape[1] % 2:
            raise ShapeError("{}temporal_weight is {}, must be (out, an odd number of taps, out)".format(
                name, block.temporal_weight.shape))
        out, taps = block.temporal_weight.shape[:2]
        want(name + "adjacency", block.adjacency, partitions, joints, joints)
        want(name + "graph_weight", block.graph_weight, partitions * out, channels)
        want(name + "graph_bias", block.graph_bias, partitions * out)
        want_norm(name + "graph_norm", block.graph_norm, out)
        want(name + "temporal_weight", block.temporal_weight, out, taps, out)
        want(name + "temporal_bias", block.temporal_bias, out)
        want_norm(name + "temporal_norm", block.temporal_norm, out)
        if block.residual == CONVOLUTION:
            want(name + "residual_weight", block.residual_weight, out, channels)
            want(name + "residual_bias", block.residual_bias, out)
            want_norm(name + "residual_norm", block.residual_norm, out)
        elif block.residual == IDENTITY and (out != channels or block.stride != 1):
            raise ShapeError("{}residual: {} channels at stride {} cannot be added to {}".format(
                name, channels, block.stride, out))
        channels = out
    want("fc_weight", network.fc_weight, len(network.labels), channels)
    want("fc_bias", network.fc_bias, len(network.labels))


def from_fixed_point(clip: np.ndarray, persons: int) -> np.ndarray:
    """An int16 clip (m, T, V, 3), m <= persons, as floats (persons, T, V, 3), absent persons zero."""
    if clip.dtype != np.int16 or clip.ndim != 4 or clip.shape[0] > persons:
        raise ShapeError("clip is {} {}, must be int16 (0..{}, T, V, 3)".format(clip.dtype, clip.shape, persons))
    full = np.zeros((persons,) + clip.shape[1:])
    full[: clip.shape[0]] = clip / CLIP_SCALE
    return full


def graph_convolution(block: Block, x: np.ndarray) -> np.ndarray:
    """1x1 convolution to P * out channels, then the adjacency: x (B, T, V, in) -> (B, T, V, out)."""
    partitions = block.adjacency.shape[0]
    spread = x @ block.graph_weight.T + block.graph_bias
    spread = spread.reshape(x.shape[:3] + (partitions, block.channels_out))
    joined = 0
    for k in range(partitions):
        joined = joined + np.matmul(block.adjacency[k].T, spread[:, :, :, k])
    return joined


def temporal_convolution(block: Block, g: np.ndarray) -> np.ndarray:
    """taps x 1 convolution with zero padding and stride: g (B, T, V, out) -> (B, T', V, out)."""
    frames, taps = g.shape[1], block.temporal_weight.shape[1]
    frames_out = (frames - 1) // block.stride + 1
    pad = (taps - 1) // 2
    padded = np.pad(g, ((0, 0), (pad, pad), (0, 0), (0, 0)))
    out = block.temporal_bias
    for tap in range(taps):
        reach = padded[:, tap : tap + (frames_out - 1) * block.stride + 1 : block.stride]
        out = out + reach @ block.temporal_weight[:, tap].T
    return out


def residual(block: Block, x: np.ndarray) -> np.ndarray:
    """What goes round the block: x (B, T, V, in) -> (B, T', V, out)."""
    if block.residual == NO_RESIDUAL:
        return np.zeros(1)
    if block.residual == IDENTITY:
        return x
    return block.residual_norm(x[:, :: block.stride] @ block.residual_weight.T + block.residual_bias)


def relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0)


def block_forward(block: Block, x: np.ndarray) -> np.ndarray:
    """x (B, T, V, in) -> (B, T', V, out)."""
    g = relu(block.graph_norm(graph_convolution(block, x)))
    return relu(block.temporal_norm(temporal_convolution(block, g)) + residual(block, x))


def data_norm(network: Network, clips: np.ndarray) -> np.ndarray:
    """clips (N, M, T, V, 3) -> the first block's input (N * M, T, V, 3)."""
    flat = clips.reshape(-1, network.frames, network.joints * CHANNELS_IN)
    return network.data_norm(flat).reshape(-1, network.frames, network.joints, CHANNELS_IN)


def check_clips(network: Network, clips: np.ndarray) -> None:
    """Raise ShapeError unless clips are (N, M, T, V, 3) of this network."""
    expected = (network.persons, network.frames, network.joints, CHANNELS_IN)
    if clips.ndim != 5 or clips.shape[1:] != expected:
        raise ShapeError("clips are {}, must be (N, {}, {}, {}, {})".format(clips.shape, *expected))


def features(network: Network, clips: np.ndarray) -> np.ndarray:
    """The pooled features: clips (N, M, T, V, 3) float -> (N, C)."""
    check_clips(network, clips)
    x = data_norm(network, clips)
    for block in network.blocks:
        x = block_forward(block, x)
    return x.reshape(clips.shape[0], -1, x.shape[-1]).mean(axis=1)


def forward(network: Network, clips: np.ndarray) -> np.ndarray:
    """Logits of whole clips: (N, M, T, V, 3) float -> (N, L) float64.  Raises ShapeError."""
    return features(network, clips) @ network.fc_weight.T + network.fc_bias


def forward_clip(network: Network, clip: np.ndarray) -> np.ndarray:
    """Logits of one int16 clip (m <= M, T, V, 3) -> (L,) float64; absent persons are filled in."""
    return forward(network, from_fixed_point(clip, network.persons)[None])[0]


def random_clip(rng: np.random.Generator, shape: Union[Network, Tuple[int, int]], persons: int) -> np.ndarray:
    """People who sway: int16 (persons, T, V, 3) for a network or a (frames, joints) pair.

    Joints stand on a circle (a fixed pose), scaled and placed at random, each swinging on its own sinusoid;
    one joint in twenty is unseen (zeros, as OpenPose gives). Coordinates are within +-1, confidences 0..1.
    """
    frames, joints = (shape.frames, shape.joints) if isinstance(shape, Network) else shape
    angle = 2 * np.pi * np.arange(joints) / joints
    pose = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    time = np.arange(frames)[None, :, None, None]
    clip = np.zeros((persons, frames, joints, CHANNELS_IN))
    place = rng.uniform(-0.3, 0.3, (persons, 1, 1, 2))
    size = rng.uniform(0.1, 0.3, (persons, 1, 1, 1))
    swing = size * rng.uniform(0.02, 0.6, (persons, 1, 1, 1)) * rng.uniform(0, 1, (persons, 1, joints, 2))
    pace = rng.uniform(0.02, 0.6, (persons, 1, joints, 1))
    phase = rng.uniform(0, 2 * np.pi, (persons, 1, joints, 2))
    clip[..., :2] = place + size * pose + swing * np.sin(pace * time + phase)
    clip[..., 2] = np.clip(rng.uniform(0.4, 1.0, (persons, 1, joints)) + rng.normal(0, 0.05, clip.shape[:3]), 0, 1)
    clip[rng.uniform(size=clip.shape[:3]) < 0.05] = 0
    return np.clip(np.rint(clip * CLIP_SCALE), -CLIP_SCALE, CLIP_SCALE).astype(np.int16)


def _short(x: np.ndarray) -> np.ndarray:
    """Round to 16 significant bits: statistics then do not depend on the order in which a BLAS sums."""
    mantissa, exponent = np.frexp(x)
    return np.ldexp(np.rint(np.ldexp(mantissa, 16)), exponent - 16)


def _trained_norm(rng: np.random.Generator, x: np.ndarray) -> BatchNorm:
    """A batch norm such as training on ``x`` (..., C) leaves: its statistics, random gain and offset."""
    axes = tuple(range(x.ndim - 1))
    channels = x.shape[-1]
    return BatchNorm(
        gain=rng.uniform(0.5, 1.3, channels),
        offset=rng.normal(0, 0.3, channels),
        mean=_short(x.mean(axis=axes)),
        variance=_short(x.var(axis=axes)),
    )


def _random_block(rng, base: np.ndarray, x: np.ndarray, channels: int, stride: int, taps: int, first: bool) -> Block:
    """He-initialised weights; each batch norm fitted to the activations ``x`` (B, T, V, in) give it."""
    joints, partitions, channels_in = x.shape[2], base.shape[0], x.shape[3]
    unfitted = BatchNorm(np.ones(channels), np.zeros(channels), np.zeros(channels), np.ones(channels))
    identity = channels_in == channels and stride == 1
    kind = NO_RESIDUAL if first else IDENTITY if identity else CONVOLUTION
    block = Block(
        adjacency=base * rng.uniform(0.6, 1.4, (partitions, joints, joints)),
        graph_weight=rng.normal(0, np.sqrt(2 / channels_in), (partitions * channels, channels_in)),
        graph_bias=rng.normal(0, 0.1, partitions * channels),
        graph_norm=unfitted,
        temporal_weight=rng.normal(0, np.sqrt(2 / (taps * channels)), (channels, taps, channels)),
        temporal_bias=rng.normal(0, 0.1, channels),
        temporal_norm=unfitted,
        stride=stride,
        residual=kind,
    )
    if kind == CONVOLUTION:
        weight, bias = rng.normal(0, np.sqrt(1 / channels_in), (channels, channels_in)), rng.normal(0, 0.1, channels)
        seen = x[:, ::stride] @ weight.T + bias
        block = replace(
            block, residual_weight=weight, residual_bias=bias, residual_norm=_trained_norm(rng, seen)
        )
    g = graph_convolution(block, x)
    block = replace(block, graph_norm=_trained_norm(rng, g))
    h = temporal_convolution(block, relu(block.graph_norm(g)))
    return replace(block, temporal_norm=_trained_norm(rng, h))


def _sample(rng: np.random.Generator, count: int, frames: int, joints: int) -> np.ndarray:
    """Random people (count, T, V, 3), the last one absent: a trained network has seen that too."""
    people = random_clip(rng, (frames, joints), count) / CLIP_SCALE
    people[-1] = 0
    return people


def random_network(
    seed: int,
    channels: Sequence[Tuple[int, int]] = FULL_CHANNELS,
    frames: int = 300,
    joints: Optional[int] = None,
    skeleton: Skeleton = COCO_18,
    persons: int = 2,
    partitions: int = 3,
    labels: int = 60,
    taps: int = 9,
) -> Network:
    """A network with random weights whose activations neither die nor explode and whose answer varies.

    ``channels`` is one (out channels, stride) a block; ``joints`` asks for a binary tree of that size in
    place of ``skeleton``. Every batch norm holds the statistics of a few random clips, and the last layer
    is centred and scaled on them, so that logits spread by about 2.5 and different clips win different labels.
    """
    rng = np.random.default_rng(seed)
    body = skeleton if joints is None else binary_tree(joints)
    base = adjacency(body, partitions)
    x, whole = _sample(rng, 12, min(frames, 32), body.joints), _sample(rng, 4, frames, body.joints)
    norm = _trained_norm(rng, x.reshape(-1, body.joints * CHANNELS_IN))
    x, whole = (norm(y.reshape(y.shape[:2] + (-1,))).reshape(y.shape) for y in (x, whole))
    blocks = []
    for width, stride in channels:
        blocks.append(_random_block(rng, base, x, width, stride, taps, first=not blocks))
        x, whole = block_forward(blocks[-1], x), block_forward(blocks[-1], whole)
    alone = whole.mean(axis=(1, 2))  # one person's features; a clip is any of them with another, or with no one
    pooled = np.concatenate([alone + (persons - 1) * np.roll(alone, turn, axis=0) for turn in (0, 1, 2)]) / persons
    weight = rng.normal(0, 1, (labels, pooled.shape[1]))
    spread = max(float((pooled @ weight.T).std(axis=0).mean()), 1e-6)
    weight = weight * _short(np.array(2.5 / spread))
    return Network(
        skeleton=body,
        persons=persons,
        frames=frames,
        labels=tuple("label{:03d}".format(i) for i in range(labels)),
        data_norm=norm,
        blocks=tuple(blocks),
        fc_weight=weight,
        fc_bias=_short(-(pooled.mean(axis=0) @ weight.T)) + rng.normal(0, 0.3, labels),
    )


def full_size(seed: int, frames: int = 300, persons: int = 2, labels: int = 60) -> Network:
    """The published network: ten blocks, COCO-18, three partitions, with random weights."""
    return random_network(seed, frames=frames, persons=persons, labels=labels)
