"""kernels.cu on the CPU, unchanged: equal to the NumPy twin bit for bit, whatever the shape, and within its memory."""

import re
import signal
import subprocess
import sys

import numpy as np
import pytest

from kernels import onacpu
from edged.model import stgcn
from edged.offload import cubins
from edged.offload.product import masked_convolution

NAMES = tuple(cubins.KERNELS)
BARRIERS = 7
# persons, frames in, joints, channels, rows, taps, stride, pad
EDGES = [
    (1, 1, 1, 1, 1, 1, 1, 0), (1, 1, 1, 4, 1, 9, 1, 4), (1, 9, 1, 1, 1, 9, 1, 0), (2, 7, 3, 3, 5, 1, 1, 0),
    (1, 2, 18, 32, 64, 1, 2, 0), (2, 11, 5, 16, 70, 9, 1, 4), (2, 11, 5, 17, 67, 9, 2, 4), (3, 12, 7, 33, 129, 3, 3, 2),
    (2, 30, 25, 5, 66, 5, 4, 2), (1, 129, 1, 8, 64, 1, 1, 0), (8, 4, 3, 12, 20, 15, 1, 7), (1, 5, 2, 36, 3, 9, 1, 8),
]


def words(rng, *shape):
    """Of the whole range, its ends often."""
    made = rng.integers(0, 1 << 32, shape, dtype=np.uint32)
    ends = np.array([0, 1, 0xFF, 0x100, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF], np.uint32)
    return np.where(rng.random(shape) < 0.2, ends[rng.integers(0, len(ends), shape)], made)


def published(persons, frames, joints):
    """Every product of the published network, as its layers ask for them."""
    made, channels = [], 3
    for out, stride in stgcn.FULL_CHANNELS:
        made.append((persons, frames, joints, 3 * channels, out, 1, 1, 0))  # graph, adjacency first
        made.append((persons, frames, joints, out, out, 9, stride, 4))
        if channels != out and channels != 3:
            made.append((persons, frames, joints, channels, out, 1, stride, 0))
        channels, frames = out, -(-frames // stride)
    return sorted(set(made))


def compare(kernels, name, case, seed=1, subtracts=True):
    persons, frames, joints, channels, rows, taps, stride, pad = case
    rng = np.random.default_rng(seed)
    w, x = words(rng, rows, taps, channels), words(rng, persons, frames, joints, channels)
    plain = masked_convolution(w, x, stride, pad)
    u = words(rng, *plain.shape) if subtracts else None
    assert np.array_equal(kernels.convolve(name, w, x, stride, pad, u), plain - u if subtracts else plain)


@pytest.mark.parametrize("subtracts", [False, True], ids=["plain", "less U"])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("case", EDGES, ids=str)
def test_odd_shapes_are_exact(kernels, case, name, subtracts):
    compare(kernels, name, case, subtracts=subtracts)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("case", published(1, 6, 18), ids=str)
def test_every_layer_of_the_published_network_is_exact_over_few_frames(kernels, case, name):
    compare(kernels, name, case)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("case", published(1, 300, 18), ids=str)
def test_every_layer_of_the_published_network_is_exact(kernels, case, name):
    """Of one person: more of them are more blocks of the same, and CI's time is short."""
    compare(kernels, name, case)


@pytest.mark.parametrize("seed", range(12))
def test_random_shapes_are_exact(kernels, seed):
    rng = np.random.default_rng(seed)
    taps, stride = int(rng.choice([1, 3, 5, 9, 15])), int(rng.integers(1, 5))
    frames = int(rng.integers(max(1, taps // 2), 40))
    pad = int(rng.integers(max(0, -(-(taps - frames) // 2)), taps))
    case = (int(rng.integers(1, 4)), frames, int(rng.integers(1, 26)), int(rng.integers(1, 80)),
            int(rng.integers(1, 150)), taps, stride, pad)
    for name in NAMES:
        compare(kernels, name, case, seed)


@pytest.mark.parametrize("name", NAMES)
def test_the_largest_sums_of_bytes_are_exact(kernels, name):
    """All bytes 255, as deep as the byte kernels are allowed to go."""
    channels = cubins.SUM_MAX // 8 * 8
    w, x = np.full((2, 1, channels), 0xFFFFFFFF, np.uint32), np.full((1, 1, 1, channels), 0xFFFFFFFF, np.uint32)
    assert (kernels.convolve(name, w, x, 1, 0) == channels).all()  # (-1) * (-1), so often
    assert name in cubins.able(1, channels, 87)


def test_deeper_products_are_for_the_direct_kernel_alone():
    assert cubins.able(9, cubins.SUM_MAX, 87) == ["direct"] and cubins.able(1, cubins.SUM_MAX, 87) == list(NAMES)


def test_a_xavier_has_no_deep_kernel():
    assert cubins.able(9, 64, 72) == ["direct", "dots", "tensor"] and cubins.able(9, 64, 80) == list(NAMES)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("part", [(0.0, 0.3), (0.3, 0.77), (0.77, 1.0)], ids=str)
def test_a_part_computes_its_own_pixels_and_no_others(kernels, name, part):
    rng = np.random.default_rng(3)
    w, x = words(rng, 70, 9, 20), words(rng, 2, 21, 5, 20)
    whole = masked_convolution(w, x, 2, 4)
    found = kernels.convolve(name, w, x, 2, 4, part=part).reshape(-1, 70)
    begin, end = (int(len(found) * share) for share in part)
    assert np.array_equal(found[begin:end], whole.reshape(-1, 70)[begin:end])
    assert (found[:begin] == 0xDEADBEEF).all() and (found[end:] == 0xDEADBEEF).all()


@pytest.mark.parametrize("name", NAMES)
def test_the_constants_of_the_launch_are_those_of_the_source(name):
    source = cubins.SOURCE.read_text()
    bound = re.search(r"__launch_bounds__\((\d+)\)\n{}\(".format(name), source)
    kernel = cubins.KERNELS[name]
    assert int(bound.group(1)) == kernel.threads
    defined = {key: int(value) for key, value in re.findall(r"#define (\w+) (\d+)\n", source)}
    sides = {"direct": ("DIRECT_PIXELS", "DIRECT_ROWS"), "dots": ("DOTS_SIDE", "DOTS_SIDE"),
             "tensor": ("TENSOR_PIXELS", "TENSOR_ROWS"), "deep": ("TENSOR_PIXELS", "TENSOR_ROWS")}[name]
    assert (kernel.pixels, kernel.rows) == tuple(defined[side] for side in sides)


@pytest.mark.parametrize("number", range(BARRIERS))
def test_a_barrier_that_is_missing_is_noticed(tmp_path, number):
    """Else running on a CPU would prove nothing of them."""
    parts = re.split(r"(__sync(?:threads|warp)\(\);)", cubins.SOURCE.read_text())
    barriers = [place for place, part in enumerate(parts) if part.startswith("__sync")]
    assert len(barriers) == BARRIERS
    parts[barriers[number]] = ""
    (tmp_path / "changed.cu").write_text("".join(parts))
    changed = onacpu.build(tmp_path, tmp_path / "changed.cu")
    rng = np.random.default_rng(4)
    w, x = words(rng, 130, 3, 70), words(rng, 2, 40, 18, 70)
    expected = masked_convolution(w, x, 1, 1)
    wrong = [name for name in NAMES if not np.array_equal(changed.convolve(name, w, x, 1, 1), expected)]
    assert wrong in (["direct"], ["dots"], ["tensor", "deep"]), "removing barrier {} changes {}".format(number, wrong)


def test_whoever_reads_behind_an_array_dies(tmp_path):
    """The guard pages, which the tests above rely on."""
    code = "import sys; sys.path[:0] = [{!r}, {!r}]; from kernels import onacpu; import numpy as np, ctypes; " \
           "a = onacpu.guarded(np.zeros(8, np.uint32)); ctypes.string_at(a.ctypes.data + 32, 1)"
    done = subprocess.run([sys.executable, "-c", code.format(str(onacpu.HERE.parent), str(onacpu.HERE.parent.parent))],
                          stderr=subprocess.DEVNULL)
    assert done.returncode == -signal.SIGSEGV
