"""Drawing in pictures, and pictures and videos to and from files: the only place where OpenCV draws or encodes.

Pictures are (H, W, 3) uint8 in BGR, masks (H, W) float32 of 0..1; x to the right, y down, in pixels, centres at whole
numbers. Colours are (blue, green, red). What is drawn is drawn in place.
"""

import os
from typing import Any, Sequence, Tuple

import cv2
import numpy as np

from edged.errors import MissingInput, PackageError

Colour = Tuple[int, int, int]
_SHIFT = 4  # OpenCV's drawing takes fixed-point pixels
_CODEC = "mp4v"  # the one that every OpenCV wheel can write


def fill(target: np.ndarray, corners: np.ndarray, colour: Any) -> None:
    """A convex polygon, smooth at its edges where ``target`` is uint8. corners : (n, 2) pixels"""
    whole = np.round(np.clip(corners, -1e4, 1e4) * (1 << _SHIFT)).astype(np.int32)
    smooth = cv2.LINE_AA if target.dtype == np.uint8 else cv2.LINE_8
    cv2.fillConvexPoly(target, whole, colour, smooth, _SHIFT)


def fill_hull(target: np.ndarray, points: np.ndarray, colour: Any) -> None:
    """The convex hull of points (n, 2)."""
    fill(target, cv2.convexHull(points.astype(np.float32))[:, 0], colour)


def line(target: np.ndarray, start: Sequence[float], end: Sequence[float], colour: Colour, width: int = 1) -> None:
    ends = [tuple(int(round(float(value) * (1 << _SHIFT))) for value in point) for point in (start, end)]
    cv2.line(target, ends[0], ends[1], colour, width, cv2.LINE_AA, _SHIFT)


def disc(target: np.ndarray, centre: Sequence[float], radius: float, colour: Colour) -> None:
    at = tuple(int(round(float(value) * (1 << _SHIFT))) for value in centre)
    cv2.circle(target, at, int(round(radius * (1 << _SHIFT))), colour, -1, cv2.LINE_AA, _SHIFT)


def text_size(words: str, size: float, width: int = 1) -> Tuple[int, int]:
    """Width and height in pixels of one line; ``size`` is the height of a capital letter."""
    (wide, high), _ = cv2.getTextSize(words, cv2.FONT_HERSHEY_DUPLEX, size / 22, width)
    return wide, high


def text(target: np.ndarray, words: str, at: Sequence[float], size: float, colour: Colour, width: int = 1) -> None:
    """One line of plain ASCII, its lower left corner at ``at``."""
    place = (int(round(at[0])), int(round(at[1])))
    cv2.putText(target, words, place, cv2.FONT_HERSHEY_DUPLEX, size / 22, colour, width, cv2.LINE_AA)


def blurred(picture: np.ndarray, sigma: float) -> np.ndarray:
    """By a Gaussian of ``sigma`` pixels; of any number of channels."""
    return cv2.GaussianBlur(picture, (0, 0), sigma) if sigma > 0.05 else picture


def averaged(picture: np.ndarray, reach: int) -> np.ndarray:
    """Each pixel's mean with its neighbours, ``reach`` on either side."""
    return cv2.blur(picture, (2 * reach + 1, 2 * reach + 1))


def smeared(picture: np.ndarray, length: float, angle: float) -> np.ndarray:
    """As if the camera had moved by ``length`` pixels, at an angle in radians, while it looked."""
    side = max(3, 2 * int(np.ceil(length / 2)) + 1)
    kernel = np.zeros((side, side), np.float32)
    middle, half = side // 2, 0.5 * length * np.array([np.cos(angle), np.sin(angle)])
    line_from, line_to = (tuple(int(round(middle + sign * value)) for value in half) for sign in (-1, 1))
    cv2.line(kernel, line_from, line_to, 1.0, 1, cv2.LINE_AA)
    return cv2.filter2D(picture, -1, kernel / max(float(kernel.sum()), 1e-6))


def resized(picture: np.ndarray, width: int, height: int) -> np.ndarray:
    """Averaged where it shrinks, linear where it grows."""
    shrinks = width * height < picture.shape[0] * picture.shape[1]
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def compressed(picture: np.ndarray, quality: int) -> np.ndarray:
    """What is left of it after JPEG of that quality, 1..100."""
    _, content = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, int(quality)])
    return cv2.imdecode(content, cv2.IMREAD_COLOR)


def save(path: str, picture: np.ndarray) -> None:
    """As the ending of ``path`` says; raises MissingInput where the file cannot be written."""
    whole, content = cv2.imencode(os.path.splitext(path)[1] or ".png", picture)
    try:
        with open(path, "wb") as file:
            file.write(content.tobytes() if whole else b"")
    except OSError as error:
        raise MissingInput("{}: cannot be written: {}".format(path, error.strerror)) from error


class Film:
    """A video file that is being written, MPEG-4; raises PackageError where this OpenCV cannot write one."""

    def __init__(self, path: str, width: int, height: int, fps: float) -> None:
        self._path, self._size = path, (width, height)
        self._writer = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*_CODEC), fps, self._size)
        if not self._writer.isOpened():
            raise PackageError("{}: OpenCV {} cannot write a video there".format(path, cv2.__version__))

    def add(self, picture: np.ndarray) -> None:
        self._writer.write(picture)

    def close(self) -> None:
        self._writer.release()

    def __enter__(self) -> "Film":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()
