"""Memory that the normal world shares with the evaluation application.

The host port maps a memfd; the Linux driver of Trusty shares a dma_buf (TRUSTY.md section 3).
Whoever holds a window may write it at any time: it carries ciphertext and masked words only.
"""

import fcntl
import mmap
import os
import struct

from edged.errors import EnclaveError

# <linux/fcntl.h>; Python names them from 3.8 on only where its build saw them.
F_ADD_SEALS = 1033
F_SEAL_SHRINK = 2
F_SEAL_GROW = 4

DMA_HEAP = "/dev/dma_heap/system"
# <linux/dma-heap.h>: struct dma_heap_allocation_data { u64 len; u32 fd; u32 fd_flags; u64 heap_flags; }
_DMA_HEAP_DATA = struct.Struct("=QIIQ")
DMA_HEAP_IOCTL_ALLOC = 3 << 30 | _DMA_HEAP_DATA.size << 16 | ord("H") << 8  # _IOWR('H', 0, ...)


class SharedWindow:
    """A mapped window: ``handle`` goes to the enclave, ``memory`` is our view of it.

    size_bytes is a multiple of the page.
    """

    def __init__(self, handle: int, size_bytes: int) -> None:
        self.handle = handle
        self.size_bytes = size_bytes
        self.memory = mmap.mmap(handle, size_bytes, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)

    def close(self) -> None:
        """Unmap our side; the enclave's mapping lives until it detaches."""
        os.close(self.handle)
        try:
            self.memory.close()
        except BufferError:
            # An array still looks at it: the mapping goes when the last one does.
            pass


def page_rounded(size_bytes: int) -> int:
    return -(-size_bytes // mmap.PAGESIZE) * mmap.PAGESIZE


def memfd_window(size_bytes: int) -> SharedWindow:
    """For the host port. Sealed in size: the enclave must never fault on memory that was cut off."""
    size = page_rounded(size_bytes)
    handle = os.memfd_create("edged-window", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(handle, size)
    fcntl.fcntl(handle, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW)
    return SharedWindow(handle, size)


def dma_heap_window(size_bytes: int, heap: str = DMA_HEAP) -> SharedWindow:
    """For Trusty's own driver, which takes dma_buf handles alone."""
    size = page_rounded(size_bytes)
    request = bytearray(_DMA_HEAP_DATA.pack(size, 0, os.O_RDWR | os.O_CLOEXEC, 0))
    try:
        device = os.open(heap, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.ioctl(device, DMA_HEAP_IOCTL_ALLOC, request)
        finally:
            os.close(device)
    except OSError as error:
        raise EnclaveError("{}: {}: no shared memory here, choose the message transport".format(
            heap, error.strerror)) from error
    return SharedWindow(_DMA_HEAP_DATA.unpack(request)[1], size)
