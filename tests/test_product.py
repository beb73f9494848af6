"""The accelerator's contract: the NumPy twin against plain integers, the C one against the twin."""

import os
import subprocess
import sys

import numpy as np
import pytest

from edged.errors import AcceleratorError, ShapeError
from edged.offload.cpu import CpuAccelerator
from edged.offload.product import NumpyAccelerator, masked_convolution, masked_product

POISON = 0xDEADBEEF

# rows, taps, channels, persons, frames_in, joints, stride, pad
SHAPES = [
    (1, 1, 1, 1, 1, 1, 1, 0),
    (5, 3, 7, 2, 11, 3, 1, 1),
    (5, 3, 7, 2, 11, 3, 2, 1),
    (3, 9, 4, 1, 30, 5, 2, 4),
    (3, 9, 4, 1, 29, 5, 2, 4),
    (4, 9, 2, 2, 3, 2, 1, 4),   # fewer frames than taps
    (4, 9, 2, 2, 1, 2, 1, 4),   # one frame
    (2, 5, 3, 1, 13, 4, 3, 2),
    (2, 1, 3, 2, 13, 4, 2, 0),  # a residual
    (2, 1, 3, 2, 14, 4, 4, 0),
    (17, 3, 33, 1, 6, 1, 1, 1),
    (64, 9, 65, 1, 8, 18, 1, 4),
    (65, 1, 192, 2, 7, 18, 1, 0),
    (2, 3, 2, 0, 5, 3, 1, 1),   # nobody there
]
IDS = ["-".join(map(str, shape)) for shape in SHAPES]


def words(rng, *shape):
    return rng.integers(0, 1 << 32, shape, np.uint64).astype(np.uint32)


def example(shape, seed=0):
    """(w_bar, x_bar, stride, pad, subtract) of uniform words."""
    rows, taps, channels, persons, frames_in, joints, stride, pad = shape
    rng = np.random.default_rng(seed)
    frames = (frames_in + 2 * pad - taps) // stride + 1
    return (words(rng, rows, taps, channels), words(rng, persons, frames_in, joints, channels), stride, pad,
            words(rng, persons, frames, joints, rows))


def by_definition(w_bar, x_bar, stride, pad, subtract):
    """The formula of ``masked_convolution`` in Python's integers."""
    rows, taps, channels = w_bar.shape
    persons, frames_in, joints, _ = x_bar.shape
    w, x = w_bar.tolist(), x_bar.tolist()
    result = np.zeros(subtract.shape, np.uint32)
    for m, t, v, r in np.ndindex(*subtract.shape):
        total = -int(subtract[m, t, v, r])
        for tap in range(taps):
            source = t * stride + tap - pad
            if 0 <= source < frames_in:
                total += sum(w[r][tap][c] * x[m][source][v][c] for c in range(channels))
        result[m, t, v, r] = total % (1 << 32)
    return result


@pytest.fixture(scope="module")
def cpu():
    accelerator = CpuAccelerator(threads=2)
    yield accelerator
    accelerator.close()


@pytest.mark.parametrize("c, k, n", [(1, 1, 1), (3, 5, 2), (7, 1, 4), (1, 200, 1), (0, 3, 2), (2, 0, 3)])
def test_the_twin_multiplies_as_integers_do(c, k, n):
    rng = np.random.default_rng(1)
    w, x = words(rng, c, k), words(rng, k, n)
    expected = [[sum(int(w[i, j]) * int(x[j, l]) for j in range(k)) % (1 << 32) for l in range(n)] for i in range(c)]
    assert masked_product(w, x).tolist() == expected


def test_the_twin_is_exact_where_every_limb_is_full():
    w, x = np.full((2, 9216), 0xFFFFFFFF, np.uint32), np.full((9216, 3), 0xFFFFFFFF, np.uint32)
    assert masked_product(w, x).tolist() == [[9216] * 3] * 2


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape[0] * shape[2] < 1000], ids=lambda s: str(s))
def test_the_twin_convolves_as_the_formula_says(shape):
    w_bar, x_bar, stride, pad, subtract = example(shape)
    assert np.array_equal(masked_convolution(w_bar, x_bar, stride, pad, subtract),
                          by_definition(w_bar, x_bar, stride, pad, subtract))


def test_without_anything_to_subtract_nothing_is_subtracted():
    w_bar, x_bar, stride, pad, subtract = example(SHAPES[1])
    assert np.array_equal(masked_convolution(w_bar, x_bar, stride, pad) - subtract,
                          masked_convolution(w_bar, x_bar, stride, pad, subtract))


@pytest.mark.parametrize("shape", SHAPES, ids=IDS)
@pytest.mark.parametrize("subtracting", [False, True])
def test_c_equals_the_twin_and_writes_every_word(cpu, shape, subtracting):
    w_bar, x_bar, stride, pad, subtract = example(shape, seed=2)
    subtract = subtract if subtracting else None
    expected = masked_convolution(w_bar, x_bar, stride, pad, subtract)
    out = np.full(expected.shape, POISON, np.uint32)
    weights = cpu.weights(w_bar)
    assert cpu.convolve(weights, x_bar, stride, pad, subtract, out) is out
    assert np.array_equal(out, expected)
    cpu.release(weights)


def test_c_takes_words_from_a_window_that_is_not_aligned(cpu):
    w_bar, x_bar, stride, pad, _ = example(SHAPES[1])
    raw = b"\0" + x_bar.tobytes()
    shifted = np.frombuffer(raw, np.uint32, x_bar.size, 1).reshape(x_bar.shape)
    assert np.array_equal(cpu.convolve(cpu.weights(w_bar), shifted, stride, pad),
                          masked_convolution(w_bar, x_bar, stride, pad))


@pytest.mark.parametrize("shape", [
    (256, 9, 256, 2, 75, 18, 1, 4), (128, 9, 128, 1, 301, 18, 2, 4), (256, 1, 384, 2, 75, 18, 1, 0),
], ids=str)
def test_c_equals_the_twin_at_full_size(cpu, shape):
    w_bar, x_bar, stride, pad, subtract = example(shape, seed=3)
    assert np.array_equal(cpu.convolve(cpu.weights(w_bar), x_bar, stride, pad, subtract),
                          masked_convolution(w_bar, x_bar, stride, pad, subtract))


@pytest.fixture(params=["numpy", "cpu"])
def accelerator(request, cpu):
    return cpu if request.param == "cpu" else NumpyAccelerator()


def refuse(accelerator, w_bar, x_bar, stride, pad, subtract, out=None):
    with pytest.raises(ShapeError):
        accelerator.convolve(accelerator.weights(w_bar), x_bar, stride, pad, subtract, out)


def test_other_channels_are_refused(accelerator):
    w_bar, x_bar, stride, pad, subtract = example(SHAPES[1])
    refuse(accelerator, w_bar, x_bar[..., :-1], stride, pad, subtract)


def test_another_shape_to_subtract_is_refused(accelerator):
    w_bar, x_bar, stride, pad, subtract = example(SHAPES[1])
    refuse(accelerator, w_bar, x_bar, stride, pad, subtract[:, :-1])


def test_another_shape_of_the_output_is_refused(accelerator):
    w_bar, x_bar, stride, pad, subtract = example(SHAPES[1])
    refuse(accelerator, w_bar, x_bar, stride, pad, subtract, subtract[:, :-1].copy())


def test_an_output_with_gaps_is_refused(accelerator):
    w_bar, x_bar, stride, pad, subtract = example(SHAPES[1])
    refuse(accelerator, w_bar, x_bar, stride, pad, subtract, np.repeat(subtract, 2, axis=3)[..., ::2])


def test_another_element_type_is_refused(accelerator):
    w_bar, x_bar, stride, pad, subtract = example(SHAPES[1])
    refuse(accelerator, w_bar, x_bar.view(np.int32), stride, pad, subtract)


@pytest.mark.parametrize("stride, pad", [(0, 1), (1, -1), (1, 3)])
def test_a_stride_or_pad_out_of_range_is_refused(accelerator, stride, pad):
    w_bar, x_bar, _, _, _ = example(SHAPES[1])
    refuse(accelerator, w_bar, x_bar, stride, pad, None)


def test_products_of_other_inner_sizes_are_refused():
    with pytest.raises(ShapeError, match="inner sizes differ"):
        masked_product(np.zeros((2, 3), np.uint32), np.zeros((4, 2), np.uint32))


# Run in a process of its own. A convolution of 4 frames x 2^20 joints needs 64 MiB of its own for each frame.
SHORT_OF_MEMORY = """
import resource, numpy as np
from edged.errors import AcceleratorError
from edged.offload.cpu import CpuAccelerator

cpu = CpuAccelerator(threads=1)
weights = cpu.weights(np.ones((1, 1, 1), np.uint32))
cpu.convolve(weights, np.ones((1, 1, 1, 1), np.uint32), 1, 0)  # its thread runs now
x_bar, out = np.ones((1, 4, 1 << 20, 1), np.uint32), np.zeros((1, 4, 1 << 20, 1), np.uint32)
large = np.ones((1, 1, 1 << 20), np.uint32)  # packed for 16 rows
with open("/proc/self/statm") as file:
    used = int(file.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (32 << 20),) * 2)
for ask in (lambda: cpu.convolve(weights, x_bar, 1, 0, out=out), lambda: cpu.weights(large)):
    try:
        ask()
    except AcceleratorError as error:
        print(error)
"""


@pytest.mark.skipif("LD_PRELOAD" in os.environ, reason="the sanitizers need address space of their own")
def test_c_without_memory_is_an_error_and_no_answer():
    done = subprocess.run([sys.executable, "-c", SHORT_OF_MEMORY], stdout=subprocess.PIPE, universal_newlines=True)
    assert done.stdout.splitlines() == [
        "no memory for a convolution of (1, 4, 1048576, 1) into (1, 4, 1048576, 1)",
        "no memory for weights (1, 1, 1048576)",
    ]


def test_one_piece_that_fails_fails_the_whole_convolution(monkeypatch):
    cpu = CpuAccelerator(threads=2)
    w_bar, x_bar, stride, pad, subtract = example(SHAPES[1])
    weights = cpu.weights(w_bar)
    real, begins = cpu._library.accel_convolve, []

    class Library:
        def accel_convolve(self, *arguments):
            begins.append(arguments[7])
            return -1 if len(begins) == 3 else real(*arguments)

    monkeypatch.setattr(cpu, "_library", Library())
    with pytest.raises(AcceleratorError, match="no memory"):
        cpu.convolve(weights, x_bar, stride, pad, subtract)
    assert sorted(begins) == [0, 0, 3, 3, 6, 6, 9, 9], "nothing was still under way"
    monkeypatch.undo()
    cpu.close()
