"""The accelerator's contract: products in Z mod 2^32, and the slow NumPy twin that defines them.

An accelerator is not trusted. It sees masked words only, and its answers are checked inside the
enclave; a wrong one costs the invocation, never the result. Every implementation equals
``NumpyAccelerator`` bit for bit.
"""

from abc import ABC, abstractmethod
from typing import Any, Callable, Optional, Tuple

import numpy as np

from edged.errors import ShapeError

# Sums of 16-bit limb products must stay exact in float64: two of them, below 2^53.
_INNER_MAX = 1 << 20


def masked_product(w_bar: np.ndarray, x_bar: np.ndarray) -> np.ndarray:
    """Multiply in Z mod 2^32: ``y[c, n] = sum_k w_bar[c, k] * x_bar[k, n]``.

    w_bar : (C, K) uint32      x_bar : (K, N) uint32      returns (C, N) uint32
    Raises ShapeError if the inner sizes or the element types differ from these.

    With 16-bit limbs, w = w0 + 2^16 w1:  w x = w0 x0 + 2^16 (w0 x1 + w1 x0)  (mod 2^32), each sum
    an exact float64 product of matrices (K * 2^33 < 2^53).
    Source: DESIGN section 3; Tramer & Boneh, arXiv:1806.03287.
    """
    _require(w_bar, 2, "w_bar")
    _require(x_bar, 2, "x_bar")
    if w_bar.shape[1] != x_bar.shape[0]:
        raise ShapeError("w_bar {} and x_bar {}: the inner sizes differ".format(w_bar.shape, x_bar.shape))
    if w_bar.shape[1] > _INNER_MAX:
        raise ShapeError("w_bar {}: inner size above {}".format(w_bar.shape, _INNER_MAX))
    w_low, w_high = _limbs(w_bar)
    x_low, x_high = _limbs(x_bar)
    low = w_low @ x_low
    crossed = w_low @ x_high + w_high @ x_low
    return low.astype(np.uint64).astype(np.uint32) + (crossed.astype(np.uint64).astype(np.uint32) << np.uint32(16))


def frames_out(frames_in: int, taps: int, stride: int, pad: int) -> int:
    """Frames of a convolution along time, zero padding at both ends."""
    return (frames_in + 2 * pad - taps) // stride + 1


def masked_convolution(w_bar: np.ndarray, x_bar: np.ndarray, stride: int, pad: int,
                       subtract: Optional[np.ndarray] = None) -> np.ndarray:
    """Convolve along time in Z mod 2^32, x_bar being 0 outside its frames:

        y[m, t', v, r] = sum_{tap, c} w_bar[r, tap, c] * x_bar[m, t' * stride + tap - pad, v, c] - subtract[m, t', v, r]

    w_bar : (rows, taps, channels) uint32      x_bar : (persons, frames_in, joints, channels) uint32
    subtract and the result : (persons, frames_out, joints, rows) uint32
    Raises ShapeError if the arrays do not fit together.
    """
    shape = convolution_shape(w_bar, x_bar, stride, pad, subtract)
    persons, frames, joints, rows = shape
    _, taps, channels = w_bar.shape
    result = np.zeros(shape, np.uint32) if subtract is None else np.uint32(0) - subtract
    for tap in range(taps):
        # Output frames whose input frame t' * stride + tap - pad exists: the rest adds 0.
        begin = max(0, -((tap - pad) // stride))
        end = min(frames, (x_bar.shape[1] - 1 + pad - tap) // stride + 1)
        if begin >= end:
            continue
        first = begin * stride + tap - pad
        seen = x_bar[:, first:first + (end - begin - 1) * stride + 1:stride]
        flat = masked_product(np.ascontiguousarray(w_bar[:, tap, :]),
                              np.ascontiguousarray(seen.reshape(-1, channels).T))
        result[:, begin:end] += flat.T.reshape(persons, end - begin, joints, rows)
    return result


def convolution_shape(w_bar: np.ndarray, x_bar: np.ndarray, stride: int, pad: int,
                      subtract: Optional[np.ndarray]) -> Tuple[int, int, int, int]:
    """Shape of the result of ``masked_convolution``; raises ShapeError as it does."""
    _require(w_bar, 3, "w_bar")
    _require(x_bar, 4, "x_bar")
    rows, taps, channels = w_bar.shape
    persons, frames_in, joints, x_channels = x_bar.shape
    if channels != x_channels:
        raise ShapeError("w_bar {} and x_bar {}: the channels differ".format(w_bar.shape, x_bar.shape))
    if stride < 1 or not 0 <= pad < max(taps, 1) or frames_in + 2 * pad < taps:
        raise ShapeError("{} frames with {} taps, stride {}, pad {}".format(frames_in, taps, stride, pad))
    shape = (persons, frames_out(frames_in, taps, stride, pad), joints, rows)
    if subtract is not None:
        _require(subtract, 4, "subtract")
        if subtract.shape != shape:
            raise ShapeError("subtract {}, not {}".format(subtract.shape, shape))
    return shape


class Accelerator(ABC):
    """Who computes the masked products. Raises AcceleratorError when it cannot."""

    name: str

    @abstractmethod
    def weights(self, w_bar: np.ndarray) -> Any:
        """Take w_bar (rows, taps, channels) over, once per load; the result goes into ``convolve``."""

    @abstractmethod
    def convolve(self, weights: Any, x_bar: np.ndarray, stride: int, pad: int,
                 subtract: Optional[np.ndarray] = None, out: Optional[np.ndarray] = None) -> np.ndarray:
        """``masked_convolution``, into ``out`` where it is given (C-contiguous, every word written)."""

    def start(self, weights: Any, x_bar: np.ndarray, stride: int, pad: int, subtract: Any = None,
              out: Optional[np.ndarray] = None) -> Callable[[], np.ndarray]:
        """Begin ``convolve``: what is returned ends it, and gives its result. Meanwhile others may be begun.

        x_bar, subtract and out are left alone until then. subtract may be what ``stage`` returned.
        """
        made = self.convolve(weights, x_bar, stride, pad, subtract, out)
        return lambda: made

    def stage(self, subtract: np.ndarray) -> Any:
        """Take what a later product subtracts to where it is needed; ``start`` takes the result in its place."""
        return subtract

    def unstage(self, staged: Any) -> None:
        """Give back what ``stage`` returned, no product that uses it being under way."""

    def release(self, weights: Any) -> None:
        """Forget weights taken over (the model is being replaced)."""

    def close(self) -> None:
        """Give back all that it holds."""

    def judged(self, right: bool) -> None:
        """The enclave believed the products that went into a clip; or refused them, and then believed another's."""

    def abandon(self) -> None:
        """From another thread: the process ends, whatever is still waited for."""


class NumpyAccelerator(Accelerator):
    """The twin that defines the others."""

    name = "numpy"

    def weights(self, w_bar: np.ndarray) -> np.ndarray:
        _require(w_bar, 3, "w_bar")
        return w_bar

    def convolve(self, weights: np.ndarray, x_bar: np.ndarray, stride: int, pad: int,
                 subtract: Optional[np.ndarray] = None, out: Optional[np.ndarray] = None) -> np.ndarray:
        result = masked_convolution(weights, x_bar, stride, pad, subtract)
        if out is None:
            return result
        require_out(out, result.shape)
        out[...] = result
        return out


def require_out(out: np.ndarray, shape: Tuple[int, ...]) -> None:
    _require(out, len(shape), "out")
    if out.shape != shape or not out.flags.c_contiguous:
        raise ShapeError("out {}, not C-contiguous {}".format(out.shape, shape))


def _require(values: np.ndarray, dimensions: int, name: str) -> None:
    if values.dtype != np.uint32 or values.ndim != dimensions:
        raise ShapeError("{}: {} dimensions of {}, not {} of uint32".format(
            name, values.ndim, values.dtype, dimensions))


def _limbs(values: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    return (values & np.uint32(0xFFFF)).astype(np.float64), (values >> np.uint32(16)).astype(np.float64)
