"""Pictures from an RTSP address, a device or a video file, through OpenCV.

A file gives every picture that is due, in order, and then None. A live source is drained by a thread of its own:
the newest picture wins, older ones are dropped, and a camera that is lost is opened again, with back-off, until
``close``. OpenCV may hang in a call for longer than any timeout it was given: ``hung`` says so, and only the end of
the process helps then, which is why each camera has its own.
"""

import math
import os
import random
import re
import threading
import time
from pathlib import Path
from typing import Any, Callable, NamedTuple, Optional, Union

# FFmpeg and OpenCV write lines of their own about what is reported here in one; read when the first source opens.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

import cv2  # noqa: E402
import numpy as np  # noqa: E402

from edged.errors import CameraError, MissingInput, PackageError, ShapeError, UsageError  # noqa: E402

DEVICE = re.compile(r"/dev/video\d+|\d{1,3}")
STREAM = re.compile(r"(rtsps?|https?)://")
FALLBACK_RATE = 25.0  # of a file that states none
SIDE_MIN, SIDE_MAX = 16, 16384
EARLY_S = 0.01
CATCH_UP_S = 2.0  # at most so much of a file is skipped before a picture is given, so that there is progress


class Frame(NamedTuple):
    """image : (H, W, 3) uint8, BGR      claimed_ns : this node's time, or that of a file's start plus its position
    at_s : the same moment on a clock that nobody sets      number : rises with every picture of the source, dropped
    ones included      arrived_s : time.monotonic() when it came"""

    image: np.ndarray
    claimed_ns: int
    at_s: float
    number: int
    arrived_s: float

    def age(self) -> float:
        """Seconds since it arrived."""
        return time.monotonic() - self.arrived_s


class Limits(NamedTuple):
    """Seconds. open_s, read_s : OpenCV's own timeouts      frozen_s : of pictures equal to the last bit"""

    open_s: float = 5.0
    read_s: float = 5.0
    # Longer than the distance of an encoder's key frames: between them a still scene may decode to equal pictures.
    frozen_s: float = 15.0

    @property
    def hung_s(self) -> float:
        """A call that takes longer will not return: that a server froze was noticed after three read timeouts."""
        return self.open_s + 4 * self.read_s


class Reconnect:
    """How long to wait before a camera is tried again: doubling, with jitter, from ``first_s`` to ``most_s``.

    A camera that gives a picture and dies again is no better than a dead one: only ``steady_s`` of pictures reset it.
    Times are of a monotonic clock.
    """

    def __init__(self, first_s: float = 0.5, most_s: float = 30.0, steady_s: float = 10.0,
                 chance: Callable[[], float] = random.random) -> None:
        self.first_s, self.most_s, self.steady_s = first_s, most_s, steady_s
        self._chance = chance
        self._failures = 0
        self._steady_since = None  # type: Optional[float]

    def worked(self, at_s: float) -> None:
        """A picture came."""
        if self._steady_since is None:
            self._steady_since = at_s
        elif at_s - self._steady_since >= self.steady_s:
            self._failures = 0

    def delay_s(self) -> float:
        """The camera failed: seconds to wait, between half and all of the doubled delay."""
        self._steady_since = None
        delay = min(self.most_s, self.first_s * 2.0 ** min(self._failures, 30))
        self._failures += 1
        return delay * (0.5 + 0.5 * self._chance())


class Capture:
    """What ``open_source`` returns. ``live``: whether it goes on for ever; ``name``: the source as it may be shown."""

    live = False

    def __init__(self, name: str) -> None:
        self.name = name
        self._arrived_s = time.monotonic()

    def read(self, timeout_s: Optional[float] = None) -> Optional[Frame]:
        """The next picture; None at the end of a file. See the two kinds for errors."""
        raise TypeError("an abstract capture")

    def age(self) -> float:
        """Seconds since the last picture arrived, or since the source was opened."""
        return time.monotonic() - self._arrived_s

    @property
    def hung(self) -> bool:
        """Whether OpenCV does not return: end the process."""
        return False

    def close(self) -> None:
        """Let the source go."""

    def __enter__(self) -> "Capture":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


def open_source(source: Union[str, int], frames_per_second: float = 10.0, speed: float = 0.0,
                start_ns: Optional[int] = None, limits: Limits = Limits()) -> Capture:
    """A capture of an RTSP or HTTP address, a device (``/dev/video0`` or ``0``) or a video file.

    frames_per_second : at most so many are given, the others are skipped
    speed : of a file: 1 is real time (what comes too late is skipped), 0 as fast as it is read
    start_ns : of a file: the claimed time of its first picture; default now
    Of a file raises MissingInput (no such file) or PackageError (no video). A live source is opened in the
    background: what is wrong with it, ``read`` raises.
    """
    source = str(source)
    if not frames_per_second > 0 or not speed >= 0:
        raise UsageError("{} frames per second at speed {}".format(frames_per_second, speed))
    _quieten()
    if STREAM.match(source):
        return LiveCapture(shown(source), lambda: _open_stream(source, limits), frames_per_second, limits)
    if "://" in source:
        raise UsageError("{}: not an address to capture from: rtsp, rtsps, http or https".format(shown(source)))
    if DEVICE.fullmatch(source):
        path = "/dev/video" + source if source.isdigit() else source
        return LiveCapture(path, lambda: _open_device(path), frames_per_second, limits)
    return FileCapture(source, frames_per_second, speed, start_ns)


def shown(source: str) -> str:
    """An address without its user and password."""
    return re.sub(r"(//).*@", r"\1***@", source)


class FileCapture(Capture):
    """A video file. A picture's position is what the file says, or follows the rate where the file says nonsense."""

    def __init__(self, path: str, frames_per_second: float, speed: float = 0.0, start_ns: Optional[int] = None,
                 opener: Optional[Callable[[str], Any]] = None) -> None:
        super().__init__(path)
        _require_file(path)
        self._handle = (opener or _open_file)(path)
        rate = self._handle.get(cv2.CAP_PROP_FPS)
        self._interval_s = 1 / rate if math.isfinite(rate) and 0.1 <= rate <= 1000 else 1 / FALLBACK_RATE
        self._pick = _Pick(frames_per_second)
        self._speed = speed
        self._number = -1
        self._position_s = 0.0
        self._base_s = 0.0
        self._closing = threading.Event()
        # So that a file without a picture is refused here and not somewhere on the way.
        self._waiting = self._next(math.inf) if self._handle.isOpened() else None
        if self._waiting is None:
            self._handle.release()
            raise PackageError("{}: no video that OpenCV can read".format(path))
        self._start_ns = time.time_ns() if start_ns is None else start_ns
        self._start_s = time.monotonic()

    def read(self, timeout_s: Optional[float] = None) -> Optional[Frame]:
        """The next picture that is due, or None at the end.

        Raises PackageError for pictures of another kind, and CameraError where ``speed`` makes it wait for longer than
        ``timeout_s``: then it may be called again.
        """
        if self._waiting is None:
            self._waiting = self._next(self._position_s + CATCH_UP_S)
        if self._waiting is None or self._closing.is_set():
            return None
        if self._speed:
            wait_s = self._start_s + self._position_s / self._speed - time.monotonic()
            self._closing.wait(max(0.0, wait_s if timeout_s is None else min(wait_s, timeout_s)))
            if timeout_s is not None and wait_s > timeout_s:
                raise CameraError("{}: no picture for {:.1f} s".format(self.name, self.age()))
        image, self._waiting = self._waiting, None
        self._arrived_s = time.monotonic()
        return Frame(_bgr(image, self.name), self._start_ns + int(round(self._position_s * 1e9)), self._position_s,
                     self._number, self._arrived_s)

    def close(self) -> None:
        self._closing.set()
        self._handle.release()

    def _next(self, skip_until_s: float) -> Any:
        while self._handle.grab():
            self._advance()
            late = (self._speed and self._number > 0 and self._position_s < skip_until_s
                    and self._start_s + (self._position_s + self._pick.interval_s) / self._speed < time.monotonic())
            if late or not self._pick.takes(self._position_s):
                continue
            whole, image = self._handle.retrieve()
            if whole and image is not None:
                return image
        return None

    def _advance(self) -> None:
        said_s = self._handle.get(cv2.CAP_PROP_POS_MSEC) / 1000
        self._number += 1
        if self._number == 0:
            self._base_s = said_s if math.isfinite(said_s) else 0.0
        elif math.isfinite(said_s) and said_s - self._base_s > self._position_s:
            self._position_s = said_s - self._base_s
        else:
            # The last pictures of some files have no time of their own, and OpenCV says 0.
            self._position_s += self._interval_s


class LiveCapture(Capture):
    """A camera. opener : opens it and returns what has isOpened, grab, retrieve and release, as cv2.VideoCapture."""

    live = True

    def __init__(self, name: str, opener: Callable[[], Any], frames_per_second: float, limits: Limits = Limits(),
                 reconnect: Optional[Reconnect] = None) -> None:
        super().__init__(name)
        self._opener = opener
        self._limits = limits
        self._reconnect = reconnect or Reconnect()
        self._pick = _Pick(frames_per_second)
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._frame = None  # type: Optional[Frame]
        self._given = self._number = -1
        self._reason = ""  # why there is no picture, empty while there is
        self._losses = self._told = 0
        self._call_since = None  # type: Optional[float]
        self._picture = None  # type: Optional[np.ndarray]
        self._moved_s = 0.0
        self._frozen = False
        self._thread = threading.Thread(target=self._run, name="capture", daemon=True)
        self._thread.start()

    def read(self, timeout_s: Optional[float] = None) -> Frame:
        """The newest picture, waiting for one not given before, ``timeout_s`` at most (default: until a call is hung).

        Raises CameraError when the camera was lost, once for each attempt to open it, and when nothing came in time;
        it may be called again, because the camera is tried again all the while.
        """
        deadline = time.monotonic() + (self._limits.hung_s if timeout_s is None else timeout_s)
        with self._changed:
            while True:
                if self._frame is not None and self._frame.number > self._given:
                    self._given = self._frame.number
                    self._told = self._losses
                    return self._frame
                if self._losses > self._told:
                    self._told = self._losses
                    raise CameraError(self._reason)
                if self._closing.is_set():
                    raise CameraError("{}: closed".format(self.name))
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    raise CameraError(self._reason or "{}: no picture for {:.1f} s".format(self.name, self.age()))
                self._changed.wait(left_s)

    @property
    def hung(self) -> bool:
        since = self._call_since
        return since is not None and time.monotonic() - since > self._limits.hung_s

    def close(self) -> None:
        self._closing.set()
        with self._changed:
            self._changed.notify_all()
        # The thread releases what it opened; one that hangs is left behind, it ends with the process.
        self._thread.join(1.0)

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                self._session()
            except CameraError as error:
                self._lost(str(error))
            except Exception as error:  # OpenCV and its Python layer raise what they like
                self._lost("{}: {}".format(self.name, " ".join(str(error).split())[:200] or type(error).__name__))
            self._closing.wait(self._reconnect.delay_s())

    def _session(self) -> None:
        if not self._frozen:
            self._picture = None
        handle = self._call(self._opener)
        try:
            if not handle.isOpened():
                raise CameraError("{}: cannot be opened within {:g} s: is the camera on, and the address right?".format(
                    self.name, self._limits.open_s))
            while not self._closing.is_set():
                if not self._call(handle.grab):
                    raise CameraError("{}: the stream ended, or sent nothing for {:g} s".format(
                        self.name, self._limits.read_s))
                self._arrived(handle, time.time_ns(), time.monotonic())
        finally:
            self._call(handle.release)

    def _arrived(self, handle: Any, claimed_ns: int, now_s: float) -> None:
        self._number += 1
        if not self._pick.takes(now_s):
            return
        whole, image = self._call(handle.retrieve)
        if not whole:
            return
        try:
            image = _bgr(image, self.name)
        except ShapeError as error:
            raise CameraError(str(error)) from error
        if self._picture is None or not np.array_equal(image, self._picture):
            self._picture, self._moved_s, self._frozen = image, now_s, False
        elif now_s - self._moved_s > self._limits.frozen_s:
            # Opening it again does not thaw it: only another picture does.
            self._frozen = True
            raise CameraError("{}: frozen: the same picture for {:.1f} s".format(self.name, now_s - self._moved_s))
        self._reconnect.worked(now_s)
        with self._changed:
            self._frame = Frame(image, claimed_ns, now_s, self._number, now_s)
            self._arrived_s = now_s
            self._reason = ""
            self._changed.notify_all()

    def _lost(self, reason: str) -> None:
        with self._changed:
            self._reason = reason
            self._losses += 1
            # What the camera saw before is not what it sees now.
            self._frame = None
            self._changed.notify_all()

    def _call(self, function: Callable[[], Any]) -> Any:
        self._call_since = time.monotonic()
        try:
            return function()
        finally:
            self._call_since = None


class _Pick:
    """Which pictures are due at so many a second, without falling behind where the source's rate is no multiple."""

    def __init__(self, frames_per_second: float) -> None:
        self.interval_s = 1 / frames_per_second
        self._due_s = -math.inf

    def takes(self, at_s: float) -> bool:
        # Pictures come a little early as often as late.
        if at_s < self._due_s - min(0.1 * self.interval_s, EARLY_S):
            return False
        behind = at_s - self._due_s > self.interval_s
        self._due_s = (at_s if behind else self._due_s) + self.interval_s
        return True


def _bgr(image: Any, name: str) -> np.ndarray:
    """Grey, BGR or BGRA of 8 or 16 bits as (H, W, 3) uint8; raises ShapeError for anything else."""
    if isinstance(image, np.ndarray) and image.ndim in (2, 3) and image.dtype in (np.uint8, np.uint16):
        if image.dtype == np.uint16:
            image = (image >> 8).astype(np.uint8)
        if image.ndim == 2:
            image = image[:, :, None]
        if image.shape[2] == 1:
            image = np.repeat(image, 3, axis=2)
        if image.shape[2] in (3, 4) and SIDE_MIN <= min(image.shape[:2]) and max(image.shape[:2]) <= SIDE_MAX:
            return np.ascontiguousarray(image[:, :, :3])
    raise ShapeError("{}: a picture of {} {}, not of {} to {} pixels a side and 1, 3 or 4 channels".format(
        name, getattr(image, "shape", "no shape"), getattr(image, "dtype", type(image).__name__), SIDE_MIN, SIDE_MAX))


def _require_file(path: str) -> None:
    try:
        if not Path(path).is_file():
            raise MissingInput("{}: {}".format(path, "not a file" if Path(path).exists() else "no such file"))
        with open(path, "rb") as file:
            head = file.read(4096)
    except OSError as error:
        raise MissingInput("{}: cannot be read: {}".format(path, error.strerror)) from error
    # FFmpeg takes text for a terminal's, and follows the addresses in play lists.
    if head and b"\0" not in head and not re.search(rb"[\x01-\x08\x0e-\x1a\x1c-\x1f]", head) and _is_utf8(head):
        raise PackageError("{}: a text file, not a video".format(path))


def _is_utf8(head: bytes) -> bool:
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start > len(head) - 4 and len(head) == 4096  # a character that the end cut
    return True


def _open_file(path: str) -> Any:
    return cv2.VideoCapture(os.path.abspath(path), cv2.CAP_FFMPEG if _has_ffmpeg() else cv2.CAP_ANY)


def _open_stream(address: str, limits: Limits) -> Any:
    if not _has_ffmpeg():
        # Other back ends refuse timeouts that they do not know.
        return cv2.VideoCapture(address)
    return cv2.VideoCapture(address, cv2.CAP_FFMPEG, [
        cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, int(limits.open_s * 1000),
        cv2.CAP_PROP_READ_TIMEOUT_MSEC, int(limits.read_s * 1000)])


def _open_device(path: str) -> Any:
    if not os.path.exists(path):
        raise CameraError("{}: no such device: is the camera plugged in?".format(path))
    if not os.access(path, os.R_OK | os.W_OK):
        raise CameraError("{}: no permission: the user of this process has to be in the group video".format(path))
    return cv2.VideoCapture(path, cv2.CAP_V4L2)


def _has_ffmpeg() -> bool:
    return cv2.CAP_FFMPEG in cv2.videoio_registry.getStreamBackends()


def _quieten() -> None:
    if "OPENCV_LOG_LEVEL" not in os.environ:
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
