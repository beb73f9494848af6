"""On a real GPU: every product of the published network, odd shapes, poisoned outputs. Skips, loudly, without one."""

import os

import numpy as np
import pytest

from kernels.test_kernels import EDGES, published, words
from edged import artifacts
from edged.errors import AcceleratorError
from edged.offload import cubins
from edged.offload.chosen import CUBINS
from edged.offload.cuda import CudaAccelerator
from edged.offload.guard import prove
from edged.offload.product import masked_convolution


@pytest.fixture(scope="module")
def gpu():
    try:
        made = CudaAccelerator(artifacts.build_folder() / CUBINS)
    except AcceleratorError as error:
        assert "EDGED_GPU_REQUIRED" not in os.environ, error
        pytest.skip("NO GPU TEST WAS RUN: {}".format(error))
    yield made
    made.close()


@pytest.mark.parametrize("kernel", list(cubins.KERNELS))
@pytest.mark.parametrize("case", EDGES + published(1, 20, 18) + published(2, 300, 18), ids=str)
def test_a_product_is_exact(gpu, case, kernel):
    persons, frames, joints, channels, rows, taps, stride, pad = case
    if kernel not in cubins.able(taps, channels, gpu.chip.capability):
        pytest.skip("no kernel {} on this chip, or for this depth".format(kernel))
    rng = np.random.default_rng(1)
    w, x = words(rng, rows, taps, channels), words(rng, persons, frames, joints, channels)
    expected = masked_convolution(w, x, stride, pad)
    u = words(rng, *expected.shape)
    weights = gpu.weights(w)
    try:
        gpu.convolve(weights, x, stride, pad, u)  # buffers of that size, and a measurement
        numbers = (persons, frames, expected.shape[1], joints, channels, rows, taps, stride, pad)
        gpu._choices.keep(numbers, {kernel: 0.0})
        for subtract, wanted in ((u, expected - u), (None, expected)):
            for buffers in gpu._buffers:
                buffers.y.host[:] = 0xDEADBEEF
                if not gpu._shared:
                    gpu._driver.memcpy_htod(buffers.y.device, buffers.y.host)
            assert np.array_equal(gpu.convolve(weights, x, stride, pad, subtract), wanted)
    finally:
        gpu.release(weights)


def test_its_known_product_is_right(gpu):
    prove(gpu)
