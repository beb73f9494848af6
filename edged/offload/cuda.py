"""The accelerator on an NVIDIA GPU: kernels.cu by pycuda. The only file that imports pycuda.

Weights stay on the device. A product is cut into pieces along time: while one is computed, the next one's input is on
its way up and the last one's output on its way down; on a Jetson, whose CPU and GPU share memory, nothing moves and the
kernels read and write where the CPU does. Which kernel is the fastest for a shape is measured when it is first met,
and remembered; there the kernels are compared with each other, too. Several products may be on their way at once.

Not to be shared between threads, and not trusted to come back: see guard.py.
"""

import hashlib
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Tuple, Union

import numpy as np

from edged.errors import AcceleratorError, ShapeError
from edged.offload import compile as compiling
from edged.offload import cubins
from edged.offload.choices import Choices
from edged.offload.product import Accelerator, convolution_shape, require_out

PIECE_BYTES = 2 << 20  # of output; smaller ones cost more to start than they hide
PIECES_MAX = 8
TRIALS = 3
WORDS_MAX = (1 << 31) - 1  # of an array: the kernels' indices have 32 bits, signed where they may lie before a clip
COMPILED, MEASURED = "cuda", "kernels.json"  # in the state folder
POISON = 0xDEADBEEF
PAUSE_S = 1e-3  # between two looks at what is waited for, at most
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


class _Buffers:
    """Of one product on its way: input, what is subtracted, output."""

    def __init__(self, driver: Any, shared: bool) -> None:
        self.x, self.u, self.y = (_Buffer(driver, shared) for _ in range(3))

    def free(self) -> None:
        for buffer in (self.x, self.u, self.y):
            buffer.free()


class _Staged(NamedTuple):
    """What is to be subtracted, on its way to the device or there."""

    buffer: _Buffer
    shape: Tuple[int, ...]
    arrived: Any


class _Piece(NamedTuple):
    """Of the output pixels, and how many of the input's words are needed by its end."""

    begin: int
    end: int
    words_in: int


class CudaAccelerator(Accelerator):
    """folder : of the compiled kernels      device : its number
    state : folder for what was compiled or measured here, or None

    Raises AcceleratorError, with one line that says what is missing.
    """

    def __init__(self, folder: Path, device: int = 0, state: Optional[Path] = None) -> None:
        self._driver = driver = _driver()
        try:
            found = driver.Device(device)
            major, minor = found.compute_capability()
            cubin = _cubin(folder, 10 * major + minor, None if state is None else state / COMPILED)
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
            self._abandoned = threading.Event()
            self._buffers: List[_Buffers] = []
            self._idle: List[_Buffers] = []  # of them, those of no product now
            self._staging: List[_Buffer] = []
            self._unstaged: List[_Buffer] = []
            self._choices = Choices(None if state is None else state / MEASURED, "{}, driver {}, kernels {}".format(
                self.chip, driver.get_driver_version(), hashlib.sha256(cubin).hexdigest()), self.chip.capability)
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
                 subtract: Union[np.ndarray, _Staged, None] = None, out: Optional[np.ndarray] = None) -> np.ndarray:
        """As ``Accelerator.convolve``; without ``out`` the result is the device's own, good until the next product."""
        return self.start(weights, x_bar, stride, pad, subtract, out)()

    def start(self, weights: _Weights, x_bar: np.ndarray, stride: int, pad: int,
              subtract: Union[np.ndarray, _Staged, None] = None,
              out: Optional[np.ndarray] = None) -> Callable[[], np.ndarray]:
        """As ``Accelerator.start``: all of it is handed to the device before this returns, nothing is waited for."""
        shape = convolution_shape(np.empty(weights.shape, np.uint32), x_bar, stride, pad, None)
        if subtract is not None and subtract.shape != shape:
            raise ShapeError("subtract {}, not {}".format(subtract.shape, shape))
        if out is not None:
            require_out(out, shape)
        numbers = _numbers(weights, x_bar, shape, stride, pad)
        words_out = int(np.prod(shape))
        if not words_out:
            return lambda: np.empty(shape, np.uint32) if out is None else out
        try:
            buffers = self._take(x_bar.size, words_out)
            if isinstance(subtract, np.ndarray):
                buffers.u.want(words_out)
            kernel = self._choices.of(numbers)
            if kernel is None:
                kernel = self._choices.keep(numbers, self._measure(buffers, weights, numbers, x_bar))
            done = self._hand_in(buffers, weights, numbers, kernel, x_bar.reshape(-1), subtract)
        except (self._driver.Error, MemoryError) as error:
            raise _explained(error) from error

        def finish() -> np.ndarray:
            try:
                for event in done:
                    self._await(event)
            except self._driver.Error as error:
                raise _explained(error) from error
            found = buffers.y.host[:words_out].reshape(shape)
            self._idle.append(buffers)
            if out is None:
                return found
            out[...] = found
            return out

        return finish

    def stage(self, subtract: np.ndarray) -> _Staged:
        """As ``Accelerator.stage``: it is on its way when this returns."""
        subtract = np.require(subtract, np.uint32, "CA")
        try:
            fitting = [buffer for buffer in self._unstaged if len(buffer.host) >= subtract.size]
            if fitting:
                buffer = min(fitting, key=lambda one: len(one.host))
                self._unstaged.remove(buffer)
            else:
                buffer = _Buffer(self._driver, self._shared)
                self._staging.append(buffer)
            buffer.want(max(subtract.size, 1))
            self._lift(buffer, subtract.reshape(-1), 0, subtract.size, self._up)
            arrived = self._driver.Event(self._driver.event_flags.DISABLE_TIMING)
            arrived.record(self._up)
        except (self._driver.Error, MemoryError) as error:
            raise _explained(error) from error
        return _Staged(buffer, subtract.shape, arrived)

    def unstage(self, staged: _Staged) -> None:
        self._unstaged.append(staged.buffer)

    def release(self, weights: _Weights) -> None:
        weights.device.free()

    def close(self) -> None:
        try:
            for stream in (self._up, self._work, self._down):
                stream.synchronize()  # what is still under way has its memory until it is over
            for held in self._buffers + self._staging:  # type: Union[_Buffers, _Buffer]
                held.free()
            self._kernels.clear()
        finally:
            self._context.detach()

    def abandon(self) -> None:
        self._abandoned.set()

    def _await(self, event: Any) -> None:
        """Without burning a core that the enclave may need; a driver that hangs is guard.py's concern."""
        pause_s, deadline_s = 2e-5, time.monotonic() + HANG_S
        while not event.query():
            if self._abandoned.is_set():
                # A thread that came back while the interpreter ends would be taken apart with its context current:
                # pycuda aborts the whole process then.
                threading.Event().wait()
            if time.monotonic() > deadline_s:
                raise AcceleratorError("no answer within {:g} s".format(HANG_S))
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, PAUSE_S)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Let others use the device in this thread."""
        self._context.pop()
        try:
            yield
        finally:
            self._context.push()

    def measure(self, weights: _Weights, x_bar: np.ndarray, stride: int, pad: int) -> Dict[str, float]:
        """Seconds on the device, of each kernel that is exact for this product, its input being there.

        Raises AcceleratorError where two kernels disagree.
        """
        shape = convolution_shape(np.empty(weights.shape, np.uint32), x_bar, stride, pad, None)
        buffers = self._take(x_bar.size, int(np.prod(shape)))
        found = self._measure(buffers, weights, _numbers(weights, x_bar, shape, stride, pad), x_bar)
        self._idle.append(buffers)
        return found

    def _measure(self, buffers: _Buffers, weights: _Weights, numbers: Tuple[int, ...],
                 x_bar: np.ndarray) -> Dict[str, float]:
        driver = self._driver
        pixels = numbers[0] * numbers[2] * numbers[3]
        words_out = pixels * numbers[5]
        buffers.u.want(words_out)  # whatever it holds is the same for all
        self._lift(buffers.x, x_bar.reshape(-1), 0, x_bar.size, self._work)
        minus = buffers.u.at(0)
        seconds: Dict[str, float] = {}
        agreed: Optional[np.ndarray] = None
        for name in cubins.able(numbers[6], numbers[4], self.chip.capability):
            # What the last kernel made must not pass for this one's.
            self._lift(buffers.y, np.full(words_out, POISON ^ len(seconds), np.uint32), 0, words_out, self._work)
            for _ in range(TRIALS):
                begin, end = driver.Event(), driver.Event()
                # Keeps the device busy while what is measured is handed in.
                self._launch(name, buffers, weights, numbers, 0, pixels, minus)
                begin.record(self._work)
                self._launch(name, buffers, weights, numbers, 0, pixels, minus)
                end.record(self._work)
                self._await(end)
                seconds[name] = min(seconds.get(name, float("inf")), end.time_since(begin) / 1e3)
            if not self._shared:
                driver.memcpy_dtoh_async(buffers.y.host[:words_out], buffers.y.at(0), self._work)
                end = driver.Event()
                end.record(self._work)
                self._await(end)
            made = buffers.y.host[:words_out]
            if agreed is None:
                agreed = made.copy()
            elif not np.array_equal(agreed, made):
                raise AcceleratorError("its kernels {} and {} disagree on a product {}".format(
                    next(iter(seconds)), name, numbers))
        return seconds

    def _hand_in(self, buffers: _Buffers, weights: _Weights, numbers: Tuple[int, ...], kernel: str, x: np.ndarray,
                 subtract: Union[np.ndarray, _Staged, None]) -> List[Any]:
        """Events after which the output is there."""
        driver, rows = self._driver, numbers[5]
        lifted, done = 0, []  # type: int, List[Any]
        u, minus = None, 0
        if isinstance(subtract, _Staged):
            minus = subtract.buffer.at(0)
            self._work.wait_for_event(subtract.arrived)
        elif subtract is not None:
            u, minus = subtract.reshape(-1), buffers.u.at(0)
        for piece in _pieces(numbers):
            begin, end = piece.begin * rows, piece.end * rows
            self._lift(buffers.x, x, lifted, piece.words_in, self._up)
            lifted = max(lifted, piece.words_in)
            if u is not None:
                self._lift(buffers.u, u, begin, end, self._up)
            arrived = driver.Event(driver.event_flags.DISABLE_TIMING)
            arrived.record(self._up)
            self._work.wait_for_event(arrived)
            self._launch(kernel, buffers, weights, numbers, piece.begin, piece.end, minus)
            made = driver.Event(driver.event_flags.DISABLE_TIMING)
            made.record(self._work)
            if not self._shared:
                self._down.wait_for_event(made)
                driver.memcpy_dtoh_async(buffers.y.host[begin:end], buffers.y.at(begin), self._down)
                made = driver.Event(driver.event_flags.DISABLE_TIMING)
                made.record(self._down)
            done.append(made)
        return done

    def _take(self, words_in: int, words_out: int) -> _Buffers:
        if not self._idle:
            self._buffers.append(_Buffers(self._driver, self._shared))
            self._idle.append(self._buffers[-1])
        buffers = self._idle.pop()
        buffers.x.want(max(words_in, 1))
        buffers.y.want(max(words_out, 1))
        return buffers

    def _lift(self, buffer: _Buffer, words: np.ndarray, begin: int, end: int, stream: Any) -> None:
        if begin < end:
            buffer.host[begin:end] = words[begin:end]
            if not self._shared:
                self._driver.memcpy_htod_async(buffer.at(begin), buffer.host[begin:end], stream)

    def _launch(self, name: str, buffers: _Buffers, weights: _Weights, numbers: Tuple[int, ...], begin: int, end: int,
                minus: int) -> None:
        kernel = cubins.KERNELS[name]
        addresses = (int(weights.device), buffers.x.at(0), minus, buffers.y.at(0))
        arguments: List[Any] = [np.uintp(address) for address in addresses]
        arguments += [np.uint32(number) for number in numbers + (begin, end)]
        grid = (-(-(end - begin) // kernel.pixels), -(-numbers[5] // kernel.rows))
        self._kernels[name](*arguments, block=(kernel.threads, 1, 1), grid=grid, stream=self._work)


def _numbers(weights: _Weights, x_bar: np.ndarray, shape: Tuple[int, ...], stride: int, pad: int) -> Tuple[int, ...]:
    """A product's, as the kernels take them."""
    rows, taps, channels = weights.shape
    if max(x_bar.size, int(np.prod(shape)), rows * taps * channels) > WORDS_MAX:
        raise ShapeError("a product {} by {}: no array of a GPU's product has above 2^31 - 1 words".format(
            weights.shape, x_bar.shape))
    return (shape[0], x_bar.shape[1], shape[1], shape[2], channels, rows, taps, stride, pad)


def _cubin(folder: Path, capability: int, own: Optional[Path]) -> bytes:
    """The one that was built before, or else one that this machine's own compiler makes, kept in ``own``."""
    try:
        return cubins.read(folder, capability)
    except AcceleratorError as missing:
        try:
            return cubins.read(own or folder, capability)
        except AcceleratorError:
            pass
        try:
            return compiling.built_here(own or folder, capability)
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
