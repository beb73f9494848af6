"""The running enclave equals the NumPy reference bit for bit: every placement, both transports, U ahead or not.

The reference is compared with the published network elsewhere; here only equality counts. Shapes are chosen so that
every path of the C core is walked: adjacency before and after, residuals beside and over their input, tiles that end
in the middle, rows that are no multiple of a panel's 16, single elements of everything.
"""

from functools import lru_cache

import numpy as np
import pytest

from attacks.networks import full_size, integer_model, random_coordinates
from attacks.node import MODEL_SLOT, OUTSIDE, AttackNode
from edged.enclave.wire import Placement, RecordKind
from edged.model import quantise, reference, stgcn
from edged.model.layers import Kind, Order, Residual
from edged.offload.bridge import TRANSPORTS, Bridge
from edged.offload.cpu import CpuAccelerator

SHAPES = {
    "every kind of layer": dict(channels=((8, 1), (8, 1), (16, 2), (6, 1)), frames=21, joints=18, labels=7),
    "a residual that does not fit over its input": dict(
        channels=((5, 1), (17, 1), (33, 2), (50, 1)), frames=13, joints=7),
    "adjacency after the weights": dict(channels=((20, 1), (3, 1), (9, 1), (4, 2), (1, 1)), frames=17, joints=11),
    "a single frame": dict(channels=((7, 1), (7, 2), (18, 4)), frames=1, joints=5, taps=15),
    "a single everything": dict(channels=((1, 1),), frames=1, joints=1, persons=1, labels=1, partitions=1, taps=1),
    "large strides": dict(channels=((9, 4), (9, 3), (2, 2)), frames=50, joints=25, persons=3, partitions=2),
    "one frame less than two strides": dict(channels=((6, 1), (6, 2), (6, 2)), frames=31, joints=13, taps=5),
    "as many persons, partitions and labels as there may be": dict(
        channels=((4, 1), (6, 1)), frames=3, joints=5, persons=8, partitions=8, labels=400),
    "as many joints as there may be": dict(channels=((3, 1), (9, 2), (3, 1)), frames=11, joints=64, labels=5),
    "as many channels as there may be": dict(channels=((1024, 1), (16, 1)), frames=5, joints=2, persons=1, taps=1),
    "as many frames and positions as there may be": dict(
        channels=((2, 1), (3, 2)), frames=4096, joints=2, persons=8, taps=3),
    "sixteen rows and one": dict(channels=((16, 1), (17, 1), (16, 1)), frames=29, joints=6, partitions=1, taps=7),
    "tiles that end in the middle": dict(channels=((48, 1), (96, 2), (40, 1)), frames=83, joints=18, labels=60),
}


@pytest.fixture(scope="module")
def node():
    with AttackNode() as running:
        yield running


@pytest.fixture(scope="module")
def accelerator():
    cpu = CpuAccelerator()
    yield cpu
    cpu.close()


@lru_cache(maxsize=None)
def model_of(name):
    return integer_model(sorted(SHAPES).index(name), **SHAPES[name])


@lru_cache(maxsize=None)
def clip_of(name, persons):
    model = model_of(name)
    clip = random_coordinates(np.random.default_rng(persons), model.shape, persons)
    return clip, reference.run(model, clip)


def evaluate(node, bridge, camera, clip, expected, ahead):
    """One clip through the bridge; its record must say exactly what the reference says."""
    node.make_room()
    if ahead:
        bridge.prepare(len(clip))
    outcome = bridge.evaluate(camera.session, *node.seal(camera, clip))
    observation = node.open(outcome.record)
    assert (observation.kind, outcome.attempts, outcome.failed) == (RecordKind.OBSERVATION, 1, False)
    assert (observation.number, observation.persons) == (node.number, len(clip))
    assert observation.logits == tuple(expected[0]) and observation.probabilities == tuple(expected[1])


@pytest.mark.parametrize("transport", list(TRANSPORTS))
@pytest.mark.parametrize("placement", list(Placement), ids=lambda placement: placement.name)
@pytest.mark.parametrize("name", list(SHAPES))
def test_every_shape_gives_the_bits_of_the_reference(node, accelerator, name, placement, transport):
    model = model_of(name)
    bridge = Bridge(node.client, accelerator, transport)
    bridge.load(node.pack(model), MODEL_SLOT, placement)
    camera = node.camera()
    most = model.shape.persons
    for persons in sorted({0, 1, most - 1, most}):
        clip, expected = clip_of(name, persons)
        evaluate(node, bridge, camera, clip, expected, ahead=False)
        if persons and placement in OUTSIDE:
            evaluate(node, bridge, camera, clip, expected, ahead=True)
    bridge.close()


def test_the_shapes_above_walk_every_path():
    rows = [(row, before) for name in SHAPES for row, before in zip(model_of(name).table[1:], model_of(name).table)]
    graphs = {row.order for row, _ in rows if row.kind == Kind.GRAPH}
    residuals = {row.residual for row, _ in rows if row.kind == Kind.TEMPORAL}
    over = {row.cout <= row.stride * row.cin for row, _ in rows if row.kind == Kind.RESIDUAL}
    assert (graphs, residuals, over) == (set(Order), set(Residual), {True, False})


def test_the_ends_of_the_range_of_a_clip_are_exact(node, accelerator):
    model = model_of("every kind of layer")
    bridge = Bridge(node.client, accelerator)
    for placement in Placement:
        bridge.load(node.pack(model), MODEL_SLOT, placement)
        camera = node.camera()
        for value in (-32768, -1, 0, 32767):
            clip = np.full((2, model.shape.frames, model.shape.joints, 3), value, np.int16)
            evaluate(node, bridge, camera, clip, reference.run(model, clip), ahead=False)
    bridge.close()


def test_many_clips_with_their_products_prepared_in_any_order_are_exact(node, accelerator):
    name = "every kind of layer"
    bridge = Bridge(node.client, accelerator)
    bridge.load(node.pack(model_of(name)), MODEL_SLOT, Placement.MASKED)
    camera = node.camera()
    for persons in (2, 1, 1, 2, 2):
        bridge.prepare(persons)
    for persons in (1, 2, 2, 1, 2, 1):  # the last finds nothing prepared
        evaluate(node, bridge, camera, *clip_of(name, persons), ahead=False)
    bridge.close()


def test_a_prepared_invocation_for_two_serves_one_person_exactly(node):
    name = "every kind of layer"
    for transport in TRANSPORTS:
        for placement in OUTSIDE:
            node.load(model_of(name), placement, transport)
            node.evaluate(node.camera(), clip_of(name, 1)[0], node.prepare(2))
            node.transport.close()


def check_everything(node, accelerator, model, clips):
    expected = [reference.run(model, clip) for clip in clips]
    package = node.pack(model)
    for transport in TRANSPORTS:
        for placement in Placement:
            bridge = Bridge(node.client, accelerator, transport)
            bridge.load(package, MODEL_SLOT, placement)
            camera = node.camera()
            for clip, logits in zip(clips, expected):
                evaluate(node, bridge, camera, clip, logits, ahead=False)
                if placement in OUTSIDE:
                    evaluate(node, bridge, camera, clip, logits, ahead=True)
            bridge.close()


def test_the_full_size_network_is_exact(node, accelerator):
    """The slow tests below do it in every way; this one always runs."""
    model = full_size(1)
    clip = random_coordinates(np.random.default_rng(1), model.shape, 2)
    expected = reference.run(model, clip)
    for placement in (Placement.MASKED, Placement.ENCLAVE):
        bridge = Bridge(node.client, accelerator)
        bridge.load(node.pack(model), MODEL_SLOT, placement)
        evaluate(node, bridge, node.camera(), clip, expected, ahead=False)
        bridge.close()


def test_a_network_as_wide_and_deep_as_the_full_size_one_is_exact_in_every_placement(node, accelerator):
    model = full_size(1, frames=19)
    check_everything(node, accelerator, model, [random_coordinates(np.random.default_rng(1), model.shape, 2)])


@pytest.mark.slow
@pytest.mark.parametrize("seed, frames, persons", [
    (2, 300, 2), (3, 300, 2), (4, 299, 2), (5, 300, 1), (6, 301, 1), (7, 37, 2), (8, 75, 1)])
def test_full_size_networks_of_any_length_are_exact(node, accelerator, seed, frames, persons):
    model = full_size(seed, frames, persons)
    rng = np.random.default_rng(seed)
    check_everything(node, accelerator, model,
                     [random_coordinates(rng, model.shape, count) for count in range(1, persons + 1)])


@pytest.mark.slow
@pytest.mark.parametrize("seed, frames, persons", [(9, 300, 2), (10, 301, 1), (11, 37, 2)])
def test_full_size_quantised_networks_are_exact(node, accelerator, seed, frames, persons):
    network = stgcn.full_size(seed, frames=frames, persons=persons)
    rng = np.random.default_rng(seed)
    clips = [stgcn.random_clip(rng, network, count) for count in range(1, persons + 1)]
    check_everything(node, accelerator, quantise.quantise(network, clips), clips)
