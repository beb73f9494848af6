"""The accelerator on all cores: product.c through ctypes, cut into pieces of (person, frames).

Its results equal product.NumpyAccelerator bit for bit; tests/test_product.py compares them.
"""

import ctypes
import os
from concurrent.futures import ThreadPoolExecutor, wait
from typing import NamedTuple, Optional, Set

import numpy as np

from edged import artifacts
from edged.errors import AcceleratorError
from edged.offload.product import Accelerator, convolution_shape, require_out

LIBRARY = "libedged_accel.so"

# Pieces per core: enough to level the cores out, few enough that the calls cost nothing.
_PIECES_PER_THREAD = 4


class _Weights(NamedTuple):
    """Packed by C; w_bar stays for its shape."""

    packed: int
    w_bar: np.ndarray


class CpuAccelerator(Accelerator):
    """threads : cores to use; all that this process may run on where it is not given."""

    name = "cpu"

    def __init__(self, threads: Optional[int] = None) -> None:
        path = artifacts.find(LIBRARY)
        try:
            self._library = ctypes.CDLL(str(path))
        except OSError as error:
            raise AcceleratorError("{}: {}: rebuild it with `make -C trusty_ta`".format(path, error)) from error
        u32, address = ctypes.c_uint32, ctypes.c_void_p
        self._library.accel_weights.argtypes = [u32, u32, u32, address]
        self._library.accel_weights.restype = address
        self._library.accel_weights_free.argtypes = [address]
        self._library.accel_weights_free.restype = None
        self._library.accel_convolve.argtypes = [address, address] + [u32] * 7 + [address, address]
        self._library.accel_convolve.restype = ctypes.c_int
        self.threads = threads or len(os.sched_getaffinity(0))
        self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix="accelerator")
        self._packed: Set[int] = set()  # addresses to give back

    def weights(self, w_bar: np.ndarray) -> _Weights:
        w_bar = np.require(w_bar, np.uint32, "CA")
        rows, taps, channels = w_bar.shape
        packed = self._library.accel_weights(rows, taps, channels, w_bar.ctypes.data)
        if not packed:
            raise AcceleratorError("no memory for weights {}".format(w_bar.shape))
        self._packed.add(packed)
        return _Weights(packed, w_bar)

    def convolve(self, weights: _Weights, x_bar: np.ndarray, stride: int, pad: int,
                 subtract: Optional[np.ndarray] = None, out: Optional[np.ndarray] = None) -> np.ndarray:
        shape = convolution_shape(weights.w_bar, x_bar, stride, pad, subtract)
        if out is None:
            out = np.empty(shape, np.uint32)
        require_out(out, shape)
        x_bar = np.require(x_bar, requirements="CA")
        if subtract is not None:
            subtract = np.require(subtract, requirements="CA")
        persons, frames, joints, _ = shape
        frames_in = x_bar.shape[1]
        step = max(1, -(-frames * persons // (self.threads * _PIECES_PER_THREAD)))

        def piece(person: int, begin: int) -> int:
            return self._library.accel_convolve(
                weights.packed, x_bar[person].ctypes.data, frames_in, joints, stride, pad, frames,
                begin, min(begin + step, frames),
                None if subtract is None else subtract[person].ctypes.data, out[person].ctypes.data)

        pieces = [self._pool.submit(piece, person, begin)
                  for person in range(persons) for begin in range(0, frames, step)]
        wait(pieces)  # all of them: after a failure, too, nobody may still write into out
        if any(done.result() != 0 for done in pieces):
            raise AcceleratorError("no memory for a convolution of {} into {}".format(x_bar.shape, shape))
        return out

    def release(self, weights: _Weights) -> None:
        self._packed.remove(weights.packed)
        self._library.accel_weights_free(weights.packed)

    def close(self) -> None:
        self._pool.shutdown()
        while self._packed:
            self._library.accel_weights_free(self._packed.pop())
