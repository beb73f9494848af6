"""The accelerator on an NVIDIA GPU: kernels.cu by pycuda. The only file that imports pycuda.

Weights stay on the device. A product is cut into pieces along time: while one is computed, the next one's input is on
its way up and the last one's output on its way down; on a Jetson, whose CPU and GPU share memory, nothing moves and the
kernels read and write where the CPU does. Which kernel is the fastest for a shape is measured when it is first met.

Not to be shared between threads, and not trusted to come back: see guard.py.
"""

import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Tuple

import numpy as np

from edged.errors import AcceleratorError
from edged.offload import compile as compiling
from edged.offload import cubins
from edged.offload.product import Accelerator, convolution_shape, require_out

PIECE_BYTES = 2 << 20  # of output; smaller ones cost more to start than they hide
PIECES_MAX = 8
TRIALS = 3
HANG_S = 120.0  # nobody waits for it by then


class Chip(NamedTuple):
    """What a device says of itself: capability (87 is 8.7), processors, their clock, its memory's bytes a second."""

    name: str
    capability: int
    processors: int
    hertz: float
    memory_bytes_s: float


class _Weights(NamedTuple):
    device: Any
    shape: Tuple[int, int, int]


class _Buffer:
    """Host memory that the device reaches by itself, and where it does not share it, as much on the device."""

    def __init__(self, driver: Any, shared: bool) -> None:
        self._driver, self._shared = driver, shared
        self.host = np.empty(0, np.uint32)
        self.device: Any = None

    def want(self, words: int) -> None:
        if len(self.host) < words:
            self.free()
            flags = self._driver.host_alloc_flags.DEVICEMAP if self._shared else 0
            self.host = self._driver.pagelocked_empty(words, np.uint32, mem_flags=flags)
            if self._shared:
                self.device = int(self.host.base.get_device_pointer())
            else:
                self.device = self._driver.mem_alloc(4 * words)

    def at(self, word: int) -> int:
        return int(self.device) + 4 * word

    def free(self) -> None:
        if self.device is not None and not self._shared:
            self.device.free()
        self.host, self.device = np.empty(0, np.uint32), None


class _Piece(NamedTuple):
    """Of the output pixels, and how many of the input's words are needed by its end."""

    begin: int
    end: int
    words_in: int


class CudaAccelerator(Accelerator):
    """cubins : folder of the compiled kernels      device : its number

    Raises AcceleratorError, with one line that says what is missing.
    """

    def __init__(self, folder: Path, device: int = 0) -> None:
        self._driver = driver = _driver()
        try:
            found = driver.Device(device)
            major, minor = found.compute_capability()
            cubin = _cubin(folder, 10 * major + minor)
            attributes = driver.device_attribute
            self.chip = Chip(found.name(), 10 * major + minor, found.get_attribute(attributes.MULTIPROCESSOR_COUNT),
                             1e3 * found.get_attribute(attributes.CLOCK_RATE),
                             2e3 * found.get_attribute(attributes.MEMORY_CLOCK_RATE)
                             * found.get_attribute(attributes.GLOBAL_MEMORY_BUS_WIDTH) / 8)
            self._context = found.make_context()
        except (driver.Error, MemoryError) as error:
            raise _explained(error) from error
        try:
            shared = bool(found.get_attribute(attributes.INTEGRATED)) and \
                bool(found.get_attribute(attributes.CAN_MAP_HOST_MEMORY))
            self._shared = shared
            self.name = "cuda ({})".format(self.chip.name)
            module = driver.module_from_buffer(cubin)
            self._kernels = {name: module.get_function(name) for name in cubins.KERNELS}
            self._up, self._work, self._down = driver.Stream(), driver.Stream(), driver.Stream()
            self._x, self._u, self._y = (_Buffer(driver, shared) for _ in range(3))
            self._fastest: Dict[Tuple[int, ...], str] = {}
        except BaseException as error:
            self._context.detach()  # of the current context that takes it off the stack, too, and raises nothing
            if isinstance(error, (driver.Error, MemoryError)):
                raise _explained(error) from error
            raise

    def weights(self, w_bar: np.ndarray) -> _Weights:
        w_bar = np.require(w_bar, np.uint32, "CA")
        try:
            device = self._driver.mem_alloc(max(w_bar.nbytes, 4))
            self._driver.memcpy_htod(device, w_bar)
        except (self._driver.Error, MemoryError) as error:
            raise _explained(error) from error
        return _Weights(device, w_bar.shape)

    def convolve(self, weights: _Weights, x_bar: np.ndarray, stride: int, pad: int,
                 subtract: Optional[np.ndarray] = None, out: Optional[np.ndarray] = None) -> np.ndarray:
        """As ``Accelerator.convolve``; without ``out`` the result is the device's own, good until the next product."""
        rows, taps, channels = weights.shape
        shape = convolution_shape(np.empty(weights.shape, np.uint32), x_bar, stride, pad, subtract)
        if out is not None:
            require_out(out, shape)
        persons, frames, joints, _ = shape
        numbers = (persons, x_bar.shape[1], frames, joints, channels, rows, taps, stride, pad)
        words_out = int(np.prod(shape))
        if not words_out:
            return np.empty(shape, np.uint32) if out is None else out
        try:
            self._x.want(max(x_bar.size, 1))
            self._y.want(words_out)
            if subtract is not None:
                self._u.want(words_out)
            if numbers not in self._fastest:
                self._measure(weights, numbers, x_bar, subtract)
            made = self._pipeline(weights, numbers, self._fastest[numbers], x_bar.reshape(-1),
                                  None if subtract is None else subtract.reshape(-1))
        except (self._driver.Error, MemoryError) as error:
            raise _explained(error) from error
        found = made.reshape(shape)
        if out is None:
            return found
        out[...] = found
        return out

    def release(self, weights: _Weights) -> None:
        weights.device.free()

    def close(self) -> None:
        try:
            for buffer in (self._x, self._u, self._y):
                buffer.free()
            self._kernels.clear()
        finally:
            self._context.detach()

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Let others use the device in this thread."""
        self._context.pop()
        try:
            yield
        finally:
            self._context.push()

    def measure(self, weights: _Weights, x_bar: np.ndarray, stride: int, pad: int) -> Dict[str, float]:
        """Seconds on the device, of each kernel that is exact for this product, its input being there."""
        rows, taps, channels = weights.shape
        shape = convolution_shape(np.empty(weights.shape, np.uint32), x_bar, stride, pad, None)
        numbers = (shape[0], x_bar.shape[1], shape[1], shape[2], channels, rows, taps, stride, pad)
        self._x.want(x_bar.size)
        self._y.want(int(np.prod(shape)))
        return self._measure(weights, numbers, x_bar, None)

    def _measure(self, weights: _Weights, numbers: Tuple[int, ...], x_bar: np.ndarray,
                 subtract: Optional[np.ndarray]) -> Dict[str, float]:
        driver = self._driver
        self._lift(self._x, x_bar.reshape(-1), 0, x_bar.size, self._work)
        pixels = numbers[0] * numbers[2] * numbers[3]
        seconds: Dict[str, float] = {}
        for name in cubins.able(numbers[6], numbers[4]):
            for _ in range(TRIALS):
                begin, end = driver.Event(), driver.Event()
                begin.record(self._work)
                self._launch(name, weights, numbers, 0, pixels, subtract is not None)
                end.record(self._work)
                end.synchronize()
                seconds[name] = min(seconds.get(name, float("inf")), end.time_since(begin) / 1e3)
        self._fastest[numbers] = min(seconds, key=lambda name: seconds[name])
        return seconds

    def _pipeline(self, weights: _Weights, numbers: Tuple[int, ...], kernel: str, x: np.ndarray,
                  u: Optional[np.ndarray]) -> np.ndarray:
        driver, rows = self._driver, numbers[5]
        lifted, done = 0, []  # type: int, List[Any]
        planned = _pieces(numbers)
        for piece in planned:
            begin, end = piece.begin * rows, piece.end * rows
            self._lift(self._x, x, lifted, piece.words_in, self._up)
            lifted = max(lifted, piece.words_in)
            if u is not None:
                self._lift(self._u, u, begin, end, self._up)
            arrived = driver.Event(driver.event_flags.DISABLE_TIMING)
            arrived.record(self._up)
            self._work.wait_for_event(arrived)
            self._launch(kernel, weights, numbers, piece.begin, piece.end, u is not None)
            made = driver.Event(driver.event_flags.DISABLE_TIMING)
            made.record(self._work)
            if not self._shared:
                self._down.wait_for_event(made)
                driver.memcpy_dtoh_async(self._y.host[begin:end], self._y.at(begin), self._down)
                made = driver.Event(driver.event_flags.DISABLE_TIMING)
                made.record(self._down)
            done.append(made)
        for event in done:
            _await(event)
        return self._y.host[:planned[-1].end * rows]

    def _lift(self, buffer: _Buffer, words: np.ndarray, begin: int, end: int, stream: Any) -> None:
        if begin < end:
            buffer.host[begin:end] = words[begin:end]
            if not self._shared:
                self._driver.memcpy_htod_async(buffer.at(begin), buffer.host[begin:end], stream)

    def _launch(self, name: str, weights: _Weights, numbers: Tuple[int, ...], begin: int, end: int,
                subtracts: bool) -> None:
        kernel = cubins.KERNELS[name]
        addresses = (int(weights.device), self._x.at(0), self._u.at(0) if subtracts else 0, self._y.at(0))
        arguments: List[Any] = [np.uintp(address) for address in addresses]
        arguments += [np.uint32(number) for number in numbers + (begin, end)]
        grid = (-(-(end - begin) // kernel.pixels), -(-numbers[5] // kernel.rows))
        self._kernels[name](*arguments, block=(kernel.threads, 1, 1), grid=grid, stream=self._work)


def _cubin(folder: Path, capability: int) -> bytes:
    """The one that was built before, or else one that this machine's own compiler makes."""
    try:
        return cubins.read(folder, capability)
    except AcceleratorError as missing:
        try:
            return compiling.built_here(folder, capability)
        except AcceleratorError as error:
            raise AcceleratorError("{}; {}".format(missing, error)) from error


def _pieces(numbers: Tuple[int, ...]) -> List[_Piece]:
    """Cut at whole output frames; the last one needs all of the input."""
    persons, frames_in, frames, joints, channels, rows, taps, stride, pad = numbers
    total = persons * frames
    count = max(1, min(PIECES_MAX, total, 4 * total * joints * rows // PIECE_BYTES))
    made: List[_Piece] = []
    for index in range(count):
        first, last = total * index // count, total * (index + 1) // count
        person, frame = divmod(last - 1, frames)
        needed = person * frames_in + min(frames_in, frame * stride - pad + taps)
        if index + 1 == count:
            needed = persons * frames_in
        made.append(_Piece(first * joints, last * joints, max(0, needed) * joints * channels))
    return made


def _await(event: Any) -> None:
    """Without burning a core that the enclave may need; a driver that hangs is guard.py's concern."""
    pause_s, deadline_s = 2e-5, time.monotonic() + HANG_S
    while not event.query():
        if time.monotonic() > deadline_s:
            raise AcceleratorError("no answer within {:g} s".format(HANG_S))
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, 1e-3)


def _driver() -> Any:
    try:
        import pycuda  # noqa: F401  by itself it needs no driver
    except ImportError as error:
        raise AcceleratorError("no pycuda: pip install 'edged[gpu]' (see README)") from error
    try:
        import pycuda.driver as driver
    except ImportError as error:
        raise AcceleratorError("pycuda finds no CUDA driver: {}".format(" ".join(str(error).split()))) from error
    try:
        driver.init()
        count = driver.Device.count()
    except driver.Error as error:
        raise _explained(error) from error
    if not count:
        raise AcceleratorError("the CUDA driver knows no GPU")
    return driver


def _explained(error: BaseException) -> AcceleratorError:
    return AcceleratorError("CUDA: {}".format(" ".join(str(error).split()) or type(error).__name__))
