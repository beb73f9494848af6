"""The integer model answers as the float network does, and holds its bounds for networks of any shape."""

from dataclasses import replace

import numpy as np
import pytest

from edged.errors import MissingInput, PackageError, ShapeError
from edged.model import quantise, reference, stgcn
from edged.model.layers import Kind, Order, Residual
from edged.model.scale import activation_high
from model_fixtures import clips_of, small_model, small_network

Q16 = 65536


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_float_and_integer_networks_answer_alike(seed):
    network = stgcn.random_network(seed, ((16, 1), (16, 1), (32, 2), (32, 1)), frames=24, labels=20)
    model = quantise.quantise(network, clips_of(network, 8, seed))
    clips = clips_of(network, 20, 100 + seed)
    expected = np.array([stgcn.forward_clip(network, clip) for clip in clips])
    found = np.array([reference.run(model, clip)[0] / Q16 for clip in clips])
    spread = expected.std(axis=0).mean()
    assert np.sqrt(((found - expected) ** 2).mean()) < 0.01 * spread
    ranked = np.sort(expected, axis=1)
    clear = ranked[:, -1] - ranked[:, -2] > 0.05 * spread  # a near tie may fall either way
    assert clear.sum() >= 15
    assert (found.argmax(axis=1) == expected.argmax(axis=1))[clear].all()


def test_probabilities_are_those_of_the_float_network():
    network = small_network()
    for clip in clips_of(network, 6):
        exact = np.exp(stgcn.forward_clip(network, clip))
        _, found = reference.run(small_model(), clip)
        assert np.abs(found / Q16 - exact / exact.sum()).max() < 0.005


SHAPES = {
    "one joint": dict(joints=1),
    "one frame": dict(frames=1),
    "eight persons": dict(persons=8),
    "one partition": dict(partitions=1),
    "two partitions": dict(partitions=2),
    "eight partitions": dict(partitions=8),
    "one label": dict(labels=1),
    "one tap": dict(taps=1),
    "fifteen taps": dict(taps=15),
    "stride 4": dict(channels=((5, 4), (5, 4))),
    "adjacency after the weights": dict(channels=((7, 1), (3, 1), (1, 1))),
    "one block": dict(channels=((8, 1),)),
}


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_a_network_of_any_shape_quantises_within_its_bounds(name):
    options = dict(dict(channels=((6, 1), (6, 2)), frames=9, joints=4, labels=3), **SHAPES[name])
    network = stgcn.random_network(4, **options)
    clips = clips_of(network, 4)
    model = quantise.quantise(network, clips)
    reference.check_bounds(model)
    found = np.array([reference.run(model, clip)[0] / Q16 for clip in clips])
    expected = np.array([stgcn.forward_clip(network, clip) for clip in clips])
    assert np.abs(found - expected).max() < 0.05 * max(1.0, np.abs(expected).max())


def test_the_small_model_has_every_kind_of_layer_order_and_residual():
    table = small_model().table
    assert {row.kind for row in table} == set(Kind)
    assert {row.order for row in table if row.kind == Kind.GRAPH} == set(Order)
    assert {row.residual for row in table if row.kind == Kind.TEMPORAL} == set(Residual)


def test_every_weight_row_uses_its_share_of_the_budget():
    network = stgcn.random_network(1, ((64, 1), (64, 1)), frames=16)
    for layer in quantise.quantise(network, clips_of(network, 2)).layers:
        if layer.row.kind not in (Kind.TEMPORAL, Kind.GRAPH):
            continue
        read = layer.row.adj_max or layer.row.in_max
        rows = np.abs(layer.weights.astype(np.int64)).reshape(layer.row.cout, -1)
        bias = np.abs(layer.bias.astype(np.int64)).reshape(-1, layer.row.cout).max(axis=0)
        full = (read * rows.sum(axis=1) + bias) / 2.0**31
        assert ((full > 0.98) | (rows.max(axis=1) == 32767)).all()


def test_activation_bits_are_half_the_budget_and_two():
    assert activation_high(np.ones((1, 2048))) == 2**12  # budget 20
    assert activation_high(np.ones((4, 2))) == 32767  # int16 holds no more
    assert activation_high(np.zeros((4, 2048))) == 32767  # rows of zeros read nothing
    assert activation_high() == 32767


def _with_norm(network, **changes):
    first = network.blocks[0]
    changed = replace(first, temporal_norm=replace(first.temporal_norm, **changes))
    return replace(network, blocks=(changed,) + network.blocks[1:])


@pytest.mark.parametrize("gain, offset", [(0.0, 0.0), (0.0, 3.0), (1e-12, 0.5), (-1.0, 0.2), (1.0, 100.0)])
def test_a_dead_a_negative_or_a_far_off_channel_quantises(gain, offset):
    network = small_network()
    norm = network.blocks[0].temporal_norm
    gains, offsets = norm.gain.copy(), norm.offset.copy()
    gains[2], offsets[2] = gain, offset
    changed = _with_norm(network, gain=gains, offset=offsets)
    clips = clips_of(changed, 4)
    model = quantise.quantise(changed, clips)
    for clip in clips:
        expected = stgcn.forward_clip(changed, clip)
        tolerance = 0.02 * max(1.0, np.abs(expected).max())
        assert np.abs(reference.run(model, clip)[0] / Q16 - expected).max() < tolerance


def test_an_absent_person_equals_one_of_zeros_bit_for_bit():
    model, (clip,) = small_model(), clips_of(small_network(), 1)
    both = np.concatenate([clip, np.zeros_like(clip)])
    assert (reference.run(model, clip)[0] == reference.run(model, both)[0]).all()


def test_without_clips_there_is_nothing_to_calibrate_with():
    with pytest.raises(MissingInput):
        quantise.quantise(small_network(), [])


def test_calibration_clips_of_another_length_are_refused():
    with pytest.raises(ShapeError, match="must be"):
        quantise.quantise(small_network(), [np.zeros((1, 12, 5, 3), np.int16)])


def test_a_data_norm_without_gain_is_refused():
    network = small_network()
    norm = network.data_norm
    flat = replace(network, data_norm=replace(norm, gain=norm.gain * 0, offset=norm.offset + 1))
    with pytest.raises(PackageError, match="data batch norm"):
        quantise.quantise(flat, clips_of(network, 1))


def test_an_adjacency_of_zeros_is_refused():
    network = small_network()
    block = replace(network.blocks[1], adjacency=network.blocks[1].adjacency * 0)
    cut = replace(network, blocks=(network.blocks[0], block) + network.blocks[2:])
    with pytest.raises(PackageError, match="adjacency"):
        quantise.quantise(cut, clips_of(network, 1))


def test_pooled_features_have_room_for_twice_what_calibration_met():
    network = stgcn.random_network(2, ((8, 1), (12, 2)), frames=24, labels=10)
    clips = clips_of(network, 8, 2)
    model = quantise.quantise(network, clips)
    pooled = [list(reference.steps(model, clip))[-2] for clip in clips]
    met = max(int(np.abs(step.output).max()) for step in pooled)
    assert pooled[0].layer.row.kind == Kind.POOL
    assert 2 * met < pooled[0].layer.row.out_max
