"""cuda.py with a driver that is none: its products are exact in whatever order the streams get on, whatever fails is
one line, and nothing of the device is left behind.
"""

import json
import sys

import numpy as np
import pytest

from kernels.fake_pycuda import Error
from edged.errors import AcceleratorError, ShapeError
from edged.offload import compile as compiling
from edged.offload import cubins, cuda
from edged.offload.cuda import CudaAccelerator
from edged.offload.product import masked_convolution

LOG = "".join("Compiling entry function '{}' for\n0 bytes spill stores, 0 bytes spill loads\n"
              "Used 9 registers\n".format(name) for name in cubins.KERNELS)
CASES = [((5, 1, 3), (2, 7, 3, 3), 1, 0), ((70, 9, 20), (2, 33, 5, 20), 2, 4), ((64, 9, 64), (1, 16, 18, 64), 1, 4),
         ((129, 3, 33), (3, 12, 7, 33), 3, 2), ((1, 1, 1), (1, 1, 1, 1), 1, 0)]


def words(seed, *shape):
    return np.random.default_rng(seed).integers(0, 1 << 32, shape, dtype=np.uint32)


@pytest.fixture
def gpu(device, folder):
    made = CudaAccelerator(folder)
    yield made
    made.close()
    assert not device.allocations and device.current == 0


@pytest.mark.parametrize("subtracts", [False, True], ids=["plain", "less U"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_products_are_exact(gpu, case, subtracts, monkeypatch):
    monkeypatch.setattr(cuda, "PIECE_BYTES", 2000)  # several pieces of these small products, too
    shape, input_shape, stride, pad = case
    w, x = words(1, *shape), words(2, *input_shape)
    expected = masked_convolution(w, x, stride, pad)
    u = words(3, *expected.shape) if subtracts else None
    expected = expected - u if subtracts else expected
    weights = gpu.weights(w)
    for _ in range(3):  # buffers are used again
        assert np.array_equal(gpu.convolve(weights, x, stride, pad, u), expected)
        out = np.empty_like(expected)
        assert gpu.convolve(weights, x, stride, pad, u, out) is out and np.array_equal(out, expected)
    gpu.release(weights)


def test_products_of_changing_sizes_are_exact(gpu, monkeypatch):
    monkeypatch.setattr(cuda, "PIECE_BYTES", 1000)
    held = [gpu.weights(words(seed, *case[0])) for seed, case in enumerate(CASES)]
    rng = np.random.default_rng(5)
    for step in range(25):
        index = int(rng.integers(len(CASES)))
        shape, input_shape, stride, pad = CASES[index]
        x = words(100 + step, int(rng.integers(1, 4)), *input_shape[1:])
        expected = masked_convolution(words(index, *shape), x, stride, pad)
        assert np.array_equal(gpu.convolve(held[index], x, stride, pad), expected)
    for weights in held:
        gpu.release(weights)


def test_a_product_is_cut_into_pieces_that_cover_it_once(device, gpu, monkeypatch):
    monkeypatch.setattr(cuda, "PIECE_BYTES", 2000)
    shape, input_shape, stride, pad = CASES[1]
    weights = gpu.weights(words(1, *shape))
    gpu.convolve(weights, words(2, *input_shape), stride, pad)
    device.launched.clear()
    gpu.convolve(weights, words(2, *input_shape), stride, pad)
    parts = [numbers[-2:] for _, numbers in device.launched]
    assert len(parts) == cuda.PIECES_MAX and parts[0][0] == 0 and parts[-1][1] == 2 * 17 * 5
    assert all(one[1] == other[0] for one, other in zip(parts, parts[1:]))
    gpu.release(weights)


def test_the_fastest_kernel_of_a_shape_is_measured_once_and_remembered(device, folder, tmp_path):
    shape, input_shape, stride, pad = CASES[2]
    w, x = words(1, *shape), words(2, *input_shape)
    remembered, product = tmp_path / cuda.MEASURED, "1 16 16 18 64 64 9 1 4"

    def used():
        device.launched.clear()
        gpu = CudaAccelerator(folder, 0, tmp_path)
        weights = gpu.weights(w)
        for _ in range(2):
            assert np.array_equal(gpu.convolve(weights, x, stride, pad), masked_convolution(w, x, stride, pad))
        gpu.release(weights)
        gpu.close()
        return [name for name, _ in device.launched]

    assert set(used()) == set(cubins.KERNELS)
    kept = json.loads(remembered.read_text())
    assert list(kept["fastest"]) == [product]
    assert set(used()) == {kept["fastest"][product]}
    for name in cubins.KERNELS:  # whichever it is
        remembered.write_text(json.dumps({"of": kept["of"], "fastest": {product: name}}))
        assert set(used()) == {name}
    device.name = "another chip"
    assert set(used()) == set(cubins.KERNELS)


def test_what_the_kernels_take_is_measured_for_a_benchmark(gpu):
    shape, input_shape, stride, pad = CASES[2]
    weights = gpu.weights(words(1, *shape))
    assert set(gpu.measure(weights, words(2, *input_shape), stride, pad)) == set(cubins.KERNELS)
    gpu.release(weights)


@pytest.mark.parametrize("wrong", sorted(cubins.KERNELS))
def test_kernels_that_disagree_are_not_used(device, gpu, wrong):
    shape, input_shape, stride, pad = CASES[1]
    weights = gpu.weights(words(1, *shape))

    def on_kernel(run, y):
        run()
        if device.launched[ran.pop(0)][0] == wrong:
            y[-1] ^= 1 << 31

    ran = list(range(100))
    device.trouble.on_kernel = on_kernel
    with pytest.raises(AcceleratorError, match="its kernels direct and (dots|tensor|deep) disagree on a product"):
        gpu.convolve(weights, words(2, *input_shape), stride, pad)
    device.trouble.on_kernel = None
    gpu.release(weights)


@pytest.mark.parametrize("idle", sorted(cubins.KERNELS))
def test_a_kernel_that_writes_nothing_does_not_pass_for_the_one_before(device, gpu, idle):
    shape, input_shape, stride, pad = CASES[1]
    weights, order = gpu.weights(words(1, *shape)), iter(range(1000))
    device.trouble.on_kernel = lambda run, y: device.launched[next(order)][0] == idle or run()
    with pytest.raises(AcceleratorError, match="its kernels direct and (dots|tensor|deep) disagree"):
        gpu.convolve(weights, words(2, *input_shape), stride, pad)
    device.trouble.on_kernel = None
    gpu.release(weights)


def test_arrays_beyond_the_kernels_indices_are_refused(gpu, monkeypatch):
    monkeypatch.setattr(cuda, "WORDS_MAX", 2 * 33 * 5 * 20 - 1)
    shape, input_shape, stride, pad = CASES[1]
    weights = gpu.weights(words(1, *shape))
    with pytest.raises(ShapeError, match="no array of a GPU's product has above"):
        gpu.convolve(weights, words(2, *input_shape), stride, pad)
    gpu.release(weights)


@pytest.mark.parametrize("pieces", [2000, cuda.PIECE_BYTES])
def test_several_products_on_their_way_do_not_disturb_each_other(device, gpu, pieces, monkeypatch):
    monkeypatch.setattr(cuda, "PIECE_BYTES", pieces)
    rng, held, expected = np.random.default_rng(9), [], []
    for seed, (shape, _, _, _) in enumerate(CASES):
        held.append(gpu.weights(words(seed, *shape)))
    for turn in range(4):
        ending, staged = [], []
        for index in rng.permutation(len(CASES)):
            shape, input_shape, stride, pad = CASES[index]
            x = words(int(rng.integers(1 << 30)), *input_shape)
            made = masked_convolution(words(index, *shape), x, stride, pad)
            how = rng.integers(3)
            u = words(7, *made.shape) if how else None
            if how == 2:
                staged.append(gpu.stage(u))
            ending.append(gpu.start(held[index], x, stride, pad, staged[-1] if how == 2 else u))
            expected.append(made if u is None else made - u)
        for at in rng.permutation(len(ending)):
            found = ending[at]()
            assert np.array_equal(found, expected[at]), (turn, at)
        for one in staged:
            gpu.unstage(one)
        expected.clear()
    for weights in held:
        gpu.release(weights)


def test_what_is_staged_is_kept_apart_and_its_memory_used_again(device, gpu):
    shape, input_shape, stride, pad = CASES[1]
    w, x = words(1, *shape), words(2, *input_shape)
    weights, plain = gpu.weights(w), masked_convolution(w, x, stride, pad)
    gpu.convolve(weights, x, stride, pad)
    held = None
    for _ in range(3):
        subtract = [words(seed, *plain.shape) for seed in range(4)]
        staged = [gpu.stage(u) for u in subtract]
        for u in subtract:
            u += 1  # only what was staged counts
        for u, one in reversed(list(zip(subtract, staged))):
            assert np.array_equal(gpu.convolve(weights, x, stride, pad, one), plain - (u - 1))
        for one in staged:
            gpu.unstage(one)
        assert held in (None, len(device.allocations))
        held = len(device.allocations)
    wrong = gpu.stage(words(1, *plain.shape[:-1], plain.shape[-1] + 1))
    with pytest.raises(ShapeError, match="subtract"):
        gpu.start(weights, x, stride, pad, wrong)
    gpu.release(weights)


def test_a_product_too_deep_for_sums_of_bytes_is_made_directly(device, gpu, monkeypatch):
    monkeypatch.setattr(cubins, "SUM_MAX", 9 * 64 - 1)
    shape, input_shape, stride, pad = CASES[2]
    weights = gpu.weights(words(1, *shape))
    gpu.convolve(weights, words(2, *input_shape), stride, pad)
    assert {name for name, _ in device.launched} == {"direct"}
    gpu.release(weights)


CALLS = ["make_context", "module_from_buffer"]


@pytest.mark.parametrize("name", CALLS + ["init", "Device"])
def test_a_device_that_cannot_be_opened_is_one_line(device, folder, name):
    device.trouble.raising[name] = Error("the driver\nsays no")
    with pytest.raises(AcceleratorError, match="CUDA: the driver says no"):
        CudaAccelerator(folder)
    assert not device.allocations and device.current == 0


@pytest.mark.parametrize("name", ["mem_alloc", "memcpy_htod"])
def test_weights_that_do_not_fit_are_one_line(device, gpu, name):
    device.trouble.raising[name] = MemoryError("cuMemAlloc failed: out of memory")
    with pytest.raises(AcceleratorError, match="CUDA: cuMemAlloc failed: out of memory"):
        gpu.weights(words(1, 5, 1, 3))
    device.trouble.raising.clear()
    for allocation in list(device.allocations.values()):
        allocation.free()


@pytest.mark.parametrize("name", ["pagelocked_empty", "launch", "record", "query", "wait_for_event"])
def test_a_product_that_fails_is_one_line_and_the_next_one_is_right(device, gpu, name):
    shape, input_shape, stride, pad = CASES[1]
    w, x = words(1, *shape), words(2, *input_shape)
    weights = gpu.weights(w)
    device.trouble.raising[name] = Error("an illegal memory access was encountered")
    with pytest.raises(AcceleratorError, match="CUDA: an illegal memory access"):
        gpu.convolve(weights, x, stride, pad)
    device.trouble.raising.clear()
    assert np.array_equal(gpu.convolve(weights, x, stride, pad), masked_convolution(w, x, stride, pad))
    gpu.release(weights)


def test_no_pycuda_no_driver_and_no_device_are_three_different_lines(monkeypatch, folder, kernels, device):
    device.count = 0
    with pytest.raises(AcceleratorError, match="the CUDA driver knows no GPU"):
        CudaAccelerator(folder)
    monkeypatch.delitem(sys.modules, "pycuda.driver")
    monkeypatch.setitem(sys.modules, "pycuda", None)
    with pytest.raises(AcceleratorError, match=r"no pycuda: pip install 'edged\[gpu\]'"):
        CudaAccelerator(folder)

    class Finder:
        def find_spec(self, name, path=None, target=None):
            if name == "pycuda.driver":
                raise ImportError("libcuda.so.1: cannot open shared object file", name="pycuda._driver")

    package = type(sys)("pycuda")
    package.__path__ = []
    monkeypatch.setitem(sys.modules, "pycuda", package)
    monkeypatch.setattr(sys, "meta_path", [Finder()] + sys.meta_path)
    with pytest.raises(AcceleratorError, match="pycuda finds no CUDA driver: libcuda.so.1: cannot open"):
        CudaAccelerator(folder)


@pytest.mark.parametrize("capability, arch", [((7, 2), "sm_72"), ((8, 7), "sm_87"), ((9, 0), "sm_90"),
                                              ((11, 0), "sm_110")])
def test_a_device_gets_the_kernels_of_its_kind(device, folder, capability, arch, monkeypatch):
    read = []
    monkeypatch.setattr(cubins, "read", lambda *given, read_=cubins.read: read.append(read_(*given)) or read[-1])
    device.capability = capability
    CudaAccelerator(folder).close()
    assert read[0].endswith(arch.encode())


@pytest.mark.parametrize("capability", [(5, 3), (6, 2), (7, 0), (7, 5), (8, 6), (8, 9), (10, 0)])
def test_a_device_that_no_kernels_are_built_for_is_refused(device, folder, capability, monkeypatch, tmp_path):
    device.capability = capability
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(AcceleratorError, match="no kernels are built for compute capability {}.{}".format(*capability)):
        CudaAccelerator(folder)


def damage(path):
    content = bytearray(path.read_bytes())
    content[3] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("change, message", [
    (lambda folder: (folder / "kernels.sm_87.cubin").unlink(),
     "kernels.sm_87.cubin: is not there: run scripts/build-kernels"),
    (lambda folder: (folder / "kernels.sm_87.json").unlink(), "kernels.sm_87.json: is not there"),
    (lambda folder: damage(folder / "kernels.sm_87.cubin"), "kernels.sm_87.cubin: damaged"),
    (lambda folder: (folder / "kernels.sm_87.json").write_text("{}"), "damaged"),
    (lambda folder: (folder / "kernels.sm_87.json").write_text("[1"), "damaged"),
])
def test_kernels_that_are_missing_or_damaged_are_one_line(device, folder, change, message, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))  # no compiler either
    change(folder)
    with pytest.raises(AcceleratorError, match=message):
        CudaAccelerator(folder)


@pytest.fixture
def compiled(monkeypatch):
    """For which architectures a compiler that is none was asked."""
    asked = []

    class Compiler:
        name = "nvcc 10.2"

        def compile(self, source, arch):
            asked.append(arch)
            return b"made here", LOG

    monkeypatch.setattr(compiling, "Nvcc", Compiler)
    return asked


def test_kernels_that_are_missing_are_compiled_by_the_cuda_that_is_there(device, folder, compiled, monkeypatch):
    (folder / "kernels.sm_87.cubin").unlink()
    CudaAccelerator(folder).close()
    CudaAccelerator(folder).close()
    assert compiled == ["sm_87"] and cubins.read(folder, 87) == b"made here"
    device.capability = (8, 6)  # of no Jetson
    CudaAccelerator(folder).close()
    CudaAccelerator(folder).close()
    assert compiled == ["sm_87", "sm_86"]
    device.capability = (8, 7)
    monkeypatch.setattr(cubins, "write", lambda *_: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
    (folder / "kernels.sm_87.cubin").unlink()
    CudaAccelerator(folder).close()  # from a folder that cannot be written, each time
    assert compiled[2:] == ["sm_87"]


def test_what_was_compiled_here_is_kept_in_the_state_folder(device, folder, compiled, tmp_path):
    device.capability = (8, 6)
    for _ in range(3):
        CudaAccelerator(folder, 0, tmp_path / "state").close()
    assert compiled == ["sm_86"] and not (folder / "kernels.sm_86.cubin").exists()
    made_of = json.loads((tmp_path / "state" / cuda.COMPILED / "kernels.sm_86.json").read_text())
    assert made_of["kernels"]["direct"] == {"registers": 9, "shared": 0, "spilled": 0}


def test_kernels_of_another_source_are_refused(device, folder, tmp_path, monkeypatch):
    (tmp_path / "kernels.cu").write_text("// another one")
    monkeypatch.setattr(cubins, "SOURCE", tmp_path / "kernels.cu")
    monkeypatch.setenv("PATH", str(tmp_path))
    words = "made of another source: run scripts/build-kernels again; .*nvcc: no CUDA"
    with pytest.raises(AcceleratorError, match=words):
        CudaAccelerator(folder)


def test_without_a_driver_this_very_machine_says_so(folder):
    """Whatever is installed here: a line, or a GPU."""
    try:
        CudaAccelerator(folder)
    except AcceleratorError as error:
        assert "\n" not in str(error) and str(error)
