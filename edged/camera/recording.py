"""A recording of keypoints: what the camera saw, without the camera.

A file is JSON lines, gzip where its name ends in .gz. The first line is the header

    {"schema": 1, "skeleton": "coco18", "width": 640, "height": 480, "fps": 30.0, "frames": 300,
     "events": [{"label": "falling", "person": 0, "start_s": 2.5, "end_s": 4.0}]}

then follows one line per frame: a list of people, each 54 numbers, x, y (pixels) and confidence (0..1) of the
18 joints in OpenPose's COCO order; a missing joint is 0, 0, 0. Frame i was taken i / fps seconds after the first.
People of different frames are not matched: that is tracking's work, for a recording as for a camera.

Read only: the output of a pose extractor, one JSON object with "layout": "openpose-coco18".
Needs NumPy alone.
"""

import gzip
import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

import numpy as np

from edged.errors import MissingInput, PackageError, ShapeError

SCHEMA = 1
SKELETON = "coco18"
JOINTS = 18
BYTES_MAX = 64 << 20  # unpacked: about an hour of two people at 15 frames a second
PEOPLE_MAX = 64       # in one frame
SIDE_MAX = 1 << 16    # pixels
FPS_MAX = 1000.0
EXTRACTED_LAYOUT = "openpose-coco18"

_HEADER = ("schema", "skeleton", "width", "height", "fps", "frames", "events")
_EVENT = ("label", "person", "start_s", "end_s")


@dataclass(frozen=True)
class RecordedEvent:
    """What one person does between two moments, seconds after the first frame: for people and tests, never sent."""

    label: str
    person: int
    start_s: float
    end_s: float


@dataclass(frozen=True, eq=False)
class Recording:
    """Frames at a steady rate.

    frames : each (people, 18, 3) float32: x, y in pixels, confidence 0..1; a missing joint is 0, 0, 0
    Raises ShapeError where a frame has another form, so that whatever exists can be saved and loaded.
    """

    width: int
    height: int
    fps: float
    frames: Tuple[np.ndarray, ...]
    events: Tuple[RecordedEvent, ...] = ()

    def __post_init__(self) -> None:
        for index, frame in enumerate(self.frames):
            if frame.ndim != 3 or frame.shape[1:] != (JOINTS, 3) or frame.dtype != np.float32:
                raise ShapeError("frame {} is {} of {}, not (people, {}, 3) of float32".format(
                    index, frame.shape, frame.dtype, JOINTS))
            fault = _fault(frame)
            if fault:
                raise ShapeError("frame {}: {}".format(index, fault))

    @property
    def duration_s(self) -> float:
        return len(self.frames) / self.fps

    @classmethod
    def load(cls, path: str) -> "Recording":
        """Read a file of either form.

        Raises MissingInput where there is none, PackageError (file and line) where anything in it is wrong.
        """
        lines = _lines(path)
        first = _json(path, 1, lines[0])
        if isinstance(first, dict) and "layout" in first:
            if len(lines) > 2 or b"".join(lines[1:]):
                raise PackageError("{}:2: something follows the one object of an extractor's file".format(path))
            return _extracted(path, first)
        if lines.pop() != b"":
            raise PackageError("{}:{}: the last line has no end: cut off".format(path, len(lines) + 1))
        width, height, fps, count, events = _header(path, first)
        if len(lines) - 1 != count:
            raise PackageError("{}:{}: {} frames follow the header, which announces {}".format(
                path, min(len(lines), count + 1), len(lines) - 1, count))
        frames = tuple(_frame("{}:{}".format(path, number), _json(path, number, line))
                       for number, line in enumerate(lines[1:], 2))
        return cls(width, height, fps, frames, events)

    def save(self, path: str) -> None:
        """Write it, positions rounded to 0.01 pixels and confidences to 0.001; the same recording, the same bytes."""
        header = {"schema": SCHEMA, "skeleton": SKELETON, "width": self.width, "height": self.height, "fps": self.fps,
                  "frames": len(self.frames), "events": [vars(event) for event in self.events]}
        lines = [json.dumps(header, allow_nan=False)]
        lines.extend(json.dumps(_rounded(frame), separators=(",", ":"), allow_nan=False) for frame in self.frames)
        data = ("\n".join(lines) + "\n").encode()
        if path.endswith(".gz"):
            data = gzip.compress(data, mtime=0)
        Path(path).write_bytes(data)


def _rounded(frame: np.ndarray) -> List[List[float]]:
    rounded = frame.astype(np.float64)
    rounded[..., :2] = np.round(rounded[..., :2], 2)
    rounded[..., 2] = np.round(rounded[..., 2], 3)
    rounded[rounded[..., 2] == 0] = 0
    return rounded.reshape(len(frame), JOINTS * 3).tolist()


def _lines(path: str) -> List[bytes]:
    try:
        with (gzip.open(path, "rb") if path.endswith(".gz") else open(path, "rb")) as stream:
            data = stream.read(BYTES_MAX + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise PackageError("{}:1: not a whole gzip file: {}".format(path, error)) from error
    except OSError as error:
        raise MissingInput("{}: {}".format(path, error.strerror or error)) from error
    if len(data) > BYTES_MAX:
        raise PackageError("{}:1: more than {} MiB unpacked: cut the recording into parts".format(
            path, BYTES_MAX >> 20))
    return data.split(b"\n")


def _json(path: str, number: int, line: bytes) -> Any:
    def refuse(word: str) -> None:
        raise ValueError("{} is not a finite number".format(word))

    try:
        return json.loads(line.decode("utf-8"), parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise PackageError("{}:{}: not JSON: {}".format(path, number, error)) from error


def _header(path: str, header: Any) -> Tuple[int, int, float, int, Tuple[RecordedEvent, ...]]:
    where = "{}:1".format(path)
    _keys(where, header, _HEADER)
    if header["schema"] != SCHEMA or isinstance(header["schema"], bool):
        raise PackageError("{}: schema {!r}: this release reads {}".format(where, header["schema"], SCHEMA))
    if header["skeleton"] != SKELETON:
        raise PackageError("{}: skeleton {!r}: this release reads {}".format(where, header["skeleton"], SKELETON))
    if not isinstance(header["events"], list):
        raise PackageError("{}: events is no list".format(where))
    events = tuple(_event(where, event) for event in header["events"])
    return (_integer(where, header, "width", 1, SIDE_MAX), _integer(where, header, "height", 1, SIDE_MAX),
            _rate(where, header), _integer(where, header, "frames", 0, BYTES_MAX), events)


def _event(where: str, event: Any) -> RecordedEvent:
    _keys(where, event, _EVENT)
    if not isinstance(event["label"], str) or not event["label"]:
        raise PackageError("{}: an event's label is {!r}, not a word".format(where, event["label"]))
    start_s, end_s = (_number(where, event, name) for name in ("start_s", "end_s"))
    if not 0 <= start_s <= end_s:
        raise PackageError("{}: event {!r} lasts from {} to {}".format(where, event["label"], start_s, end_s))
    return RecordedEvent(event["label"], _integer(where, event, "person", 0, 1 << 31), start_s, end_s)


def _frame(where: str, people: Any) -> np.ndarray:
    """(people, 18, 3) float32 of a list of lists of 54 numbers."""
    if not isinstance(people, list) or len(people) > PEOPLE_MAX:
        raise PackageError("{}: a frame is a list of at most {} people".format(where, PEOPLE_MAX))
    for person in people:
        if not isinstance(person, list) or len(person) != JOINTS * 3:
            raise PackageError("{}: a person is a list of {} numbers".format(where, JOINTS * 3))
        if not all(type(value) in (int, float) for value in person):
            raise PackageError("{}: a person holds something that is no number".format(where))
    try:
        with np.errstate(over="ignore"):
            frame = np.array(people, np.float64).astype(np.float32).reshape(len(people), JOINTS, 3)
    except OverflowError:
        raise PackageError("{}: a number is not finite".format(where)) from None
    fault = _fault(frame)
    if fault:
        raise PackageError("{}: {}".format(where, fault))
    return frame


def _fault(frame: np.ndarray) -> Optional[str]:
    """What is wrong with the numbers of a frame (people, 18, 3)."""
    if len(frame) > PEOPLE_MAX:
        return "{} people, more than {}".format(len(frame), PEOPLE_MAX)
    if not np.isfinite(frame).all():
        return "a number is not finite"
    confidence = frame[..., 2]
    if not ((confidence >= 0) & (confidence <= 1)).all():
        return "a confidence is not within 0..1"
    if frame[confidence == 0].any():
        return "a joint without confidence has a position: a missing joint is 0, 0, 0"
    return None


def _extracted(path: str, found: Dict[str, Any]) -> Recording:
    where = "{}:1".format(path)
    _keys(where, found, ("source", "fps", "width", "height", "frame_stride", "layout", "frames"))
    if found["layout"] != EXTRACTED_LAYOUT:
        raise PackageError("{}: layout {!r}: this release reads {}".format(where, found["layout"], EXTRACTED_LAYOUT))
    stride = _integer(where, found, "frame_stride", 1, 1000)
    if not isinstance(found["frames"], list):
        raise PackageError("{}: frames is no list".format(where))
    frames = []
    for index, frame in enumerate(found["frames"]):
        here = "{}: frame {}".format(where, index)
        _keys(here, frame, ("frame_index", "people"))
        if frame["frame_index"] != index * stride:
            raise PackageError("{}: its index is {!r}, not {}".format(here, frame["frame_index"], index * stride))
        people = frame["people"] if isinstance(frame["people"], list) else [None]
        for person in people:
            _keys(here, person, ("pose_keypoints_2d",))
        frames.append(_frame(here, [_at_most_sure(person["pose_keypoints_2d"]) for person in people]))
    return Recording(_integer(where, found, "width", 1, SIDE_MAX), _integer(where, found, "height", 1, SIDE_MAX),
                     _rate(where, found) / stride, tuple(frames))


def _at_most_sure(values: Any) -> Any:
    """Extractors interpolate heat maps and so overshoot 1 by a little."""
    if not isinstance(values, list):
        return values
    return [min(value, 1.0) if place % 3 == 2 and isinstance(value, float) and value < 1.5 else value
            for place, value in enumerate(values)]


def _keys(where: str, found: Any, names: Tuple[str, ...]) -> None:
    if not isinstance(found, dict) or set(found) != set(names):
        raise PackageError("{}: not an object of exactly {}".format(where, ", ".join(names)))


def _integer(where: str, found: Dict[str, Any], name: str, least: int, most: int) -> int:
    value = found[name]
    if type(value) is not int or not least <= value <= most:
        raise PackageError("{}: {} is {!r}, not a whole number within {}..{}".format(where, name, value, least, most))
    return value


def _number(where: str, found: Dict[str, Any], name: str) -> float:
    value = found[name]
    if type(value) not in (int, float) or not -1e12 < value < 1e12:  # false for NaN, too
        raise PackageError("{}: {} is {!r}, not a number of sensible size".format(where, name, value))
    return float(value)


def _rate(where: str, found: Dict[str, Any]) -> float:
    value = _number(where, found, "fps")
    if not 0 < value <= FPS_MAX:
        raise PackageError("{}: fps is {!r}, not a rate up to {:g}".format(where, value, FPS_MAX))
    return value
