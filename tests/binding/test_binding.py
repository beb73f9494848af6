"""cuda.py with pycuda itself, on a driver that runs the kernels on the CPU: scripts/check-pycuda makes both, and runs
this.

What it shows beyond tests/kernels/test_cuda.py: that every call fits pycuda's binding and types, that a context belongs
to the thread that has it, and that nothing of the device is held once an accelerator is closed.
"""

import ctypes
import gc
import subprocess
import sys
import threading

import numpy as np
import pytest

from edged.errors import AcceleratorError
from edged.offload import cubins, cuda
from edged.offload.cuda import CudaAccelerator
from edged.offload.guard import GuardedAccelerator
from edged.offload.product import NumpyAccelerator, masked_convolution

CASES = [((5, 1, 3), (2, 7, 3, 3), 1, 0), ((70, 9, 20), (2, 33, 5, 20), 2, 4), ((64, 9, 64), (1, 40, 18, 64), 1, 4),
         ((129, 3, 33), (3, 12, 7, 33), 3, 2), ((1, 1, 1), (1, 1, 1, 1), 1, 0)]
OUT_OF_MEMORY, NO_DEVICE, ILLEGAL_ADDRESS = 2, 100, 700


def words(seed, *shape):
    return np.random.default_rng(seed).integers(0, 1 << 32, shape, dtype=np.uint32)


@pytest.fixture(scope="module")
def driver():
    try:
        found = ctypes.CDLL("libcuda.so.1")
    except OSError:
        pytest.skip("no CUDA driver, not even one for the CPU: scripts/check-pycuda runs these")
    if not hasattr(found, "driver_refuse"):
        pytest.skip("a real CUDA driver is here: tests/gpu is for that")
    pytest.importorskip("pycuda.driver")
    return found


@pytest.fixture(params=[0, 1], ids=["own memory", "shared memory"])
def device(driver, request):
    driver.driver_set(1, request.param)
    yield driver
    gc.collect()
    assert driver.driver_held() == 0


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(cuda, "TRIALS", 1)
    for arch in cubins.ARCHITECTURES:
        cubins.write(tmp_path / "cuda", arch, b"\x7fELF of " + arch.encode(), "none", {})
    return tmp_path / "cuda"


@pytest.fixture
def gpu(device, folder):
    made = CudaAccelerator(folder)
    yield made
    made.close()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_products_are_exact(gpu, case, monkeypatch):
    monkeypatch.setattr(cuda, "PIECE_BYTES", 2000)
    shape, input_shape, stride, pad = case
    w, x = words(1, *shape), words(2, *input_shape)
    plain = masked_convolution(w, x, stride, pad)
    u = words(3, *plain.shape)
    weights, staged = gpu.weights(w), gpu.stage(u)
    for _ in range(3):
        out = np.empty_like(plain)
        ending = [gpu.start(weights, x, stride, pad, subtract, out if subtract is None else None)
                  for subtract in (None, u, staged)]
        assert np.array_equal(ending[2](), plain - u)
        assert ending[0]() is out and np.array_equal(out, plain)
        assert np.array_equal(ending[1](), plain - u)
    gpu.unstage(staged)
    gpu.release(weights)


def test_every_kernel_is_reached(gpu, tmp_path):
    shape, input_shape, stride, pad = CASES[1]
    weights = gpu.weights(words(1, *shape))
    seconds = gpu.measure(weights, words(2, *input_shape), stride, pad)
    assert set(seconds) == set(cubins.KERNELS) and all(took > 0 for took in seconds.values())
    gpu.release(weights)


def test_others_may_use_the_device_aside(gpu):
    import pycuda.driver
    shape, input_shape, stride, pad = CASES[0]
    w, x = words(1, *shape), words(2, *input_shape)
    weights = gpu.weights(w)
    with gpu.aside():
        with pytest.raises(pycuda.driver.Error):
            pycuda.driver.mem_alloc(4)  # no context is current
    assert np.array_equal(gpu.convolve(weights, x, stride, pad), masked_convolution(w, x, stride, pad))
    gpu.release(weights)


@pytest.mark.parametrize("call, code, message", [
    ("cuInit", NO_DEVICE, "CUDA: .*no CUDA-capable device"), ("cuCtxCreate_v2", OUT_OF_MEMORY, "CUDA: .*out of memory"),
    ("cuModuleLoadDataEx", 209, "CUDA: "), ("cuStreamCreate", OUT_OF_MEMORY, "CUDA: .*out of memory")])
def test_a_device_that_cannot_be_opened_is_one_line(device, folder, call, code, message):
    device.driver_refuse(call.encode(), code)
    try:
        with pytest.raises(AcceleratorError, match=message) as caught:
            CudaAccelerator(folder)
    finally:
        device.driver_refuse(call.encode(), 0)
    assert "\n" not in str(caught.value)
    del caught


def test_a_machine_without_a_device_is_one_line(driver, folder):
    driver.driver_set(0, 0)
    with pytest.raises(AcceleratorError, match="the CUDA driver knows no GPU"):
        CudaAccelerator(folder)


@pytest.mark.parametrize("call", ["cuMemAlloc_v2", "cuMemHostAlloc"])
def test_memory_that_is_short_is_one_line(device, folder, call):
    gpu = CudaAccelerator(folder)
    shape, input_shape, stride, pad = CASES[1]
    w, x = words(1, *shape), words(2, *input_shape)
    weights = gpu.weights(w)
    device.driver_refuse(call.encode(), OUT_OF_MEMORY)
    try:
        if call == "cuMemAlloc_v2":
            with pytest.raises(AcceleratorError, match="out of memory"):
                gpu.weights(w)
        else:
            with pytest.raises(AcceleratorError, match="out of memory"):
                gpu.convolve(weights, x, stride, pad)
    finally:
        device.driver_refuse(call.encode(), 0)
    assert np.array_equal(gpu.convolve(weights, x, stride, pad), masked_convolution(w, x, stride, pad))
    gpu.release(weights)
    gpu.close()


@pytest.mark.parametrize("trouble", ["launch", "illegal address", "hang"])
def test_a_device_that_fails_in_its_thread_is_left_and_opened_anew(device, folder, trouble):
    """As the bridge has it: opened, used, given up and closed in threads of their own."""
    shape, input_shape, stride, pad = CASES[1]
    w, x = words(1, *shape), words(2, *input_shape)
    expected, told, now = masked_convolution(w, x, stride, pad), [], [0.0]
    guarded = GuardedAccelerator(lambda: CudaAccelerator(folder), NumpyAccelerator(), lambda *what: told.append(what),
                                 timeout_s=5.0, clock=lambda: now[0])
    try:
        weights = guarded.weights(w)
        assert "CPU as a GPU" in guarded.name
        assert np.array_equal(guarded.convolve(weights, x, stride, pad), expected)
        if trouble == "hang":
            device.driver_hang(1)
        else:
            device.driver_refuse({"launch": b"cuLaunchKernel", "illegal address": b"cuEventQuery"}[trouble],
                                 ILLEGAL_ADDRESS)
        staged = guarded.stage(expected)
        assert not guarded.convolve(weights, x, stride, pad, staged).any()
        assert guarded.name == "numpy" and told[-1][1]
        for call in (b"cuLaunchKernel", b"cuEventQuery"):
            device.driver_refuse(call, 0)
        device.driver_hang(0)
        deadline = 1000
        while guarded.name == "numpy" and deadline:
            now[0] += 1000.0  # a busy machine may take it for one that hangs, and then it is tried again
            assert np.array_equal(guarded.convolve(weights, x, stride, pad), expected)
            deadline -= 1
            threading.Event().wait(0.05)
        assert "CPU as a GPU" in guarded.name and told[-1][1] == ""
        assert np.array_equal(guarded.convolve(weights, x, stride, pad), expected)
    finally:
        guarded.close()
    for thread in threading.enumerate():  # those that were left come to their end, too
        if thread.name == "accelerator":
            thread.join(10)
            assert not thread.is_alive()


ENDING = """
import ctypes, pathlib, sys
import numpy as np
from edged.errors import AcceleratorError
from edged.offload.cuda import CudaAccelerator
from edged.offload.guard import GuardedAccelerator
from edged.offload.product import NumpyAccelerator

folder, when = pathlib.Path(sys.argv[1]), sys.argv[2]
driver = ctypes.CDLL("libcuda.so.1")
if when == "opening":
    driver.driver_hang(1)
try:
    guarded = GuardedAccelerator(lambda: CudaAccelerator(folder), NumpyAccelerator(), required=True, timeout_s=0.5,
                                 open_s=1.0)
except AcceleratorError as error:
    sys.exit(error.exit_code)
weights = guarded.weights(np.ones((3, 1, 3), np.uint32))
if when == "computing":
    driver.driver_hang(1)
made = guarded.convolve(weights, np.ones((1, 4, 2, 3), np.uint32), 1, 0)
guarded.close()
sys.exit(0 if (made == 3).all() else 1)
"""


@pytest.mark.parametrize("when, code", [("never", 0), ("computing", 0), ("opening", 69)])
def test_a_process_ends_as_it_should_while_its_device_hangs(driver, folder, when, code):
    """pycuda aborts a process in which a thread comes back with its context current."""
    done = subprocess.run([sys.executable, "-c", ENDING, str(folder), when], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=120)
    assert done.returncode == code, done.stdout.decode()
