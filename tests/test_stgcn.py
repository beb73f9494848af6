"""The float network is the published one, and random networks behave as trained ones do."""

from dataclasses import replace

import numpy as np
import pytest

from edged.errors import ShapeError
from edged.model import calibrate, fold, skeleton, stgcn
from model_fixtures import CHANNELS, clips_of, small_network


def test_coco_18_has_52_non_zeros_of_972():
    matrix = skeleton.adjacency(skeleton.COCO_18)
    assert (matrix.size, np.count_nonzero(matrix)) == (972, 52)


@pytest.mark.parametrize("partitions", [1, 2, 3, 4])
def test_partitions_share_no_edge_and_sum_to_one(partitions):
    matrix = skeleton.adjacency(skeleton.COCO_18, partitions)
    assert (np.count_nonzero(matrix, axis=0) <= 1).all()
    assert np.allclose(matrix.sum(axis=(0, 1)), 1)


def test_the_spatial_partition_tells_outward_from_inward():
    root, outward, inward = skeleton.adjacency(skeleton.COCO_18)
    assert outward[4, 3] and not outward[3, 4]  # the wrist is farther from the neck than the elbow
    assert inward[3, 4] and not inward[4, 3]
    assert root[4, 4] and not root[3, 4]


def test_no_partition_is_no_adjacency():
    with pytest.raises(ShapeError):
        skeleton.adjacency(skeleton.COCO_18, 0)


def test_the_full_plan_has_the_published_size():
    weights = products = 0
    channels_in, frames = 3, 300
    for index, (channels, stride) in enumerate(stgcn.FULL_CHANNELS):
        graph, temporal = 3 * channels_in * channels, 9 * channels**2
        frames_out = (frames - 1) // stride + 1
        convolved = index and (channels_in != channels or stride != 1)
        residual = channels_in * channels if convolved else 0
        weights += graph + temporal + residual
        products += 2 * 18 * (frames * graph + frames_out * (temporal + residual))
        channels_in, frames = channels, frames_out
    assert len(stgcn.FULL_CHANNELS) == 10
    assert round(weights / 1e6, 2) == 3.05
    assert round(products / 1e9, 1) == 11.7


def by_loops(network, clip):
    """Logits of one float clip (M, T, V, 3), value by value, batch norms unfolded."""
    pooled = 0
    for person in clip:
        frames, joints = person.shape[:2]
        norm = network.data_norm
        x = np.array([[
            [_norm(norm, v * 3 + c, person[t, v, c]) for c in range(3)] for v in range(joints)] for t in range(frames)
        ])  # fmt: skip
        for block in network.blocks:
            x = _block_by_loops(block, x)
        pooled = pooled + x.mean(axis=(0, 1))
    return network.fc_weight @ (pooled / len(clip)) + network.fc_bias


def _norm(norm, c, value):
    return norm.gain[c] * (value - norm.mean[c]) / np.sqrt(norm.variance[c] + norm.epsilon) + norm.offset[c]


def _block_by_loops(block, x):
    frames, joints, _ = x.shape
    partitions, out = block.adjacency.shape[0], block.channels_out
    g = np.zeros((frames, joints, out))
    for t in range(frames):
        for w in range(joints):
            for o in range(out):
                total = 0
                for k in range(partitions):
                    row = k * out + o
                    for v in range(joints):
                        convolved = block.graph_weight[row] @ x[t, v] + block.graph_bias[row]
                        total += block.adjacency[k, v, w] * convolved
                g[t, w, o] = max(_norm(block.graph_norm, o, total), 0)
    taps = block.temporal_weight.shape[1]
    frames_out = len(range(0, frames, block.stride))
    y = np.zeros((frames_out, joints, out))
    for t in range(frames_out):
        for v in range(joints):
            for o in range(out):
                total = block.temporal_bias[o]
                for tap in range(taps):
                    at = t * block.stride + tap - taps // 2
                    if 0 <= at < frames:
                        total += block.temporal_weight[o, tap] @ g[at, v]
                total = _norm(block.temporal_norm, o, total)
                if block.residual == stgcn.IDENTITY:
                    total += x[t, v, o]
                elif block.residual == stgcn.CONVOLUTION:
                    around = block.residual_weight[o] @ x[t * block.stride, v] + block.residual_bias[o]
                    total += _norm(block.residual_norm, o, around)
                y[t, v, o] = max(total, 0)
    return y


def test_forward_equals_the_published_formulas_value_by_value():
    network = stgcn.random_network(5, CHANNELS, frames=6, joints=3, labels=4, taps=5)
    assert [block.residual for block in network.blocks] == ["none", "identity", "convolution", "convolution"]
    clip = stgcn.from_fixed_point(clips_of(network, 1)[0], network.persons)
    assert np.allclose(stgcn.forward(network, clip[None])[0], by_loops(network, clip), atol=1e-9)


def test_an_absent_person_is_zeros_that_the_network_sees():
    network = small_network()
    (clip,) = clips_of(network, 1)
    both = np.concatenate([clip, np.zeros_like(clip)])
    assert (stgcn.forward_clip(network, clip) == stgcn.forward_clip(network, both)).all()
    norm = network.data_norm
    moved = replace(network, data_norm=replace(norm, mean=norm.mean + 0.5))
    absent = np.zeros((1, 2) + clip.shape[1:])
    assert not np.allclose(stgcn.features(network, absent), stgcn.features(moved, absent))


def test_folding_changes_nothing():
    network = small_network()
    clips = np.stack([stgcn.from_fixed_point(clip, network.persons) for clip in clips_of(network, 4)])
    (name, logits), = list(calibrate.activations(fold.fold(network), clips))[-1:]
    assert name == calibrate.LOGITS
    assert np.allclose(logits, stgcn.forward(network, clips), atol=1e-9)


def test_activations_neither_die_nor_explode():
    quarter = [(channels // 4, stride) for channels, stride in stgcn.FULL_CHANNELS]
    network = stgcn.random_network(1, quarter, frames=24)
    clips = np.stack([stgcn.from_fixed_point(clip, 2) for clip in clips_of(network, 2)])
    x = stgcn.data_norm(network, clips)
    for block in network.blocks:
        x = stgcn.block_forward(block, x)
        assert 0.1 < x.std() < 20 and (x > 0).mean() > 0.2


def test_different_clips_win_different_labels():
    network = small_network()
    winners = {int(stgcn.forward_clip(network, clip).argmax()) for clip in clips_of(network, 24)}
    assert len(winners) > 1


def test_the_same_seed_makes_the_same_network():
    a, b, other = (stgcn.random_network(seed, CHANNELS, frames=8, joints=4) for seed in (1, 1, 2))
    assert (a.fc_weight == b.fc_weight).all() and not (a.fc_weight == other.fc_weight).all()


def test_random_clips_stay_within_plus_minus_one():
    clip = stgcn.random_clip(np.random.default_rng(0), (40, 18), 2)
    assert (clip.dtype, clip.shape) == (np.int16, (2, 40, 18, 3))
    assert np.abs(clip.astype(int)).max() <= stgcn.CLIP_SCALE and clip[..., 2].min() == 0


@pytest.mark.parametrize("shape", [(3, 13, 5, 3), (1, 13, 5), (2, 13, 5, 3)])
def test_a_clip_of_another_shape_or_type_is_refused(shape):
    wrong = np.zeros(shape, np.int16 if shape[0] != 2 else np.float32)
    with pytest.raises(ShapeError):
        stgcn.from_fixed_point(wrong, 2)


def test_clips_of_another_length_are_refused():
    with pytest.raises(ShapeError, match="must be"):
        stgcn.forward(small_network(), np.zeros((1, 2, 14, 5, 3)))
