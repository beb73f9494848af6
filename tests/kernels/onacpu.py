"""kernels.cu, run on the CPU: see cuda_on_cpu.h."""

import ctypes
import os
import subprocess
from pathlib import Path

import numpy as np

from edged.offload import cubins

HERE = Path(__file__).parent
FLAGS = ["-std=c++14", "-O2", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas", "-Wno-stringop-overflow",
         "-shared", "-fPIC", "-pthread"]


def build(folder, source=None):
    """The library; ``source`` in the place of kernels.cu."""
    library = Path(folder) / "libkernels.so"
    text = (HERE / "run_kernels.cc").read_text()
    main = Path(folder) / "run_kernels.cc"
    main.write_text(text.replace("../../edged/offload/kernels.cu", str(source or cubins.SOURCE)))
    subprocess.run(["g++"] + FLAGS + ["-I", str(HERE), "-o", str(library), str(main)], check=True)
    return Kernels(library)


class Kernels:
    def __init__(self, library):
        self._library = ctypes.CDLL(str(library))
        self._library.run_kernel.argtypes = [ctypes.c_char_p] + [ctypes.c_uint32] * 4 + [ctypes.c_void_p] * 5

    def run(self, name, grid, threads, w, x, u, y, numbers):
        """Addresses, and the kernel's eleven numbers."""
        numbers = np.array(numbers, np.uint32)
        code = self._library.run_kernel(name.encode(), threads, grid[0], grid[1], len(os.sched_getaffinity(0)), w, x, u,
                                        y, numbers.ctypes.data)
        assert code == 0, "no kernel {}".format(name)

    def convolve(self, name, w, x, stride, pad, subtract=None, part=(0.0, 1.0), filled=0xDEADBEEF):
        """As masked_convolution, with the shares of the output pixels to compute; the others stay ``filled``."""
        rows, taps, channels = w.shape
        persons, frames_in, joints, _ = x.shape
        frames = (frames_in + 2 * pad - taps) // stride + 1
        w, x, y = guarded(w), guarded(x), guarded(np.full((persons, frames, joints, rows), filled, np.uint32))
        u = None if subtract is None else guarded(subtract)
        pixels = persons * frames * joints
        begin, end = (int(pixels * share) for share in part)
        kernel = cubins.KERNELS[name]
        grid = (-(-(end - begin) // kernel.pixels), -(-rows // kernel.rows))
        self.run(name, grid, kernel.threads, w.ctypes.data, x.ctypes.data, None if u is None else u.ctypes.data,
                 y.ctypes.data, (persons, frames_in, frames, joints, channels, rows, taps, stride, pad, begin, end))
        return y


_PAGE = os.sysconf("SC_PAGESIZE")
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]
_libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]


class _Pages:
    def __init__(self, size):
        self.size = 2 * _PAGE + -(-size // _PAGE) * _PAGE
        self.address = _libc.mmap(None, self.size, 3, 0x22, -1, 0)  # private, anonymous
        assert self.address not in (None, ctypes.c_void_p(-1).value)
        for end in (self.address, self.address + self.size - _PAGE):
            assert _libc.mprotect(end, _PAGE, 0) == 0

    def __del__(self):
        _libc.munmap(self.address, self.size)


def guarded(values):
    """A copy that ends where memory does: whoever reads or writes behind it dies at once."""
    pages = _Pages(values.nbytes)
    begin = pages.address + pages.size - _PAGE - -(-values.nbytes // 16) * 16  # vectors of four want 16 bytes
    holder = (ctypes.c_uint8 * values.nbytes).from_address(begin)
    holder.pages = pages
    made = np.frombuffer(holder, np.uint32).reshape(values.shape)
    made[...] = values
    return made
