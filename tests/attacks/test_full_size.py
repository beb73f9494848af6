"""A wrong answer at full size: all the channels, products and tiles that small networks do not have."""

import numpy as np
import pytest

from attacks.networks import full_size, random_coordinates
from attacks.node import OUTSIDE, AttackNode, refused
from edged.enclave.wire import Status
from edged.offload.cpu import CpuAccelerator

pytestmark = pytest.mark.slow

FRAMES = 75  # more than one tile: it has at most F61_TILE_POSITIONS = 1024 positions, 56 frames of 18 joints
PRODUCTS = 22  # ten blocks of two, two residual convolutions
WIDEST = 256
RNG = np.random.default_rng()


@pytest.fixture(scope="module")
def node():
    accelerator = CpuAccelerator()
    try:
        with AttackNode(accelerator) as running:
            yield running
    finally:
        accelerator.close()


@pytest.mark.parametrize("ahead", [False, True], ids=["on line", "ahead"])
@pytest.mark.parametrize("placement", OUTSIDE, ids=lambda placement: placement.name)
def test_a_flipped_bit_of_any_product_is_refused_and_the_next_attempt_is_exact(node, placement, ahead):
    model = full_size(3, FRAMES)
    node.load(model, placement, "window")
    assert len(node.products) == PRODUCTS and max(product.rows for product in node.products) == WIDEST
    camera = node.camera()
    for product in range(PRODUCTS):
        persons = 1 + product % 2
        clip = random_coordinates(RNG, model.shape, persons)
        sealed = node.seal(camera, clip)
        attempt = node.attempt(camera, sealed, node.prepare(persons) if ahead else None).reach(product)
        answers = attempt.answers()
        y_bar = answers[product].reshape(-1)
        word, bit = int(RNG.integers(y_bar.size)), int(RNG.integers(32))
        print("product {}, word {} of {}, bit {}".format(product, word, y_bar.size, bit))  # shown where it fails
        y_bar[word] ^= np.uint32(1) << np.uint32(bit)
        with refused(Status.VERIFICATION):
            attempt.submit(answers)
        node.attempt(camera, sealed, node.prepare(persons) if ahead else None).finish_exactly(clip)
