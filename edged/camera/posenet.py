"""An OpenPose-type network through OpenCV's dnn, or on a GPU by ONNX Runtime: a frame in, heat maps and part affinity
fields out.

The aspect of the frame is kept: a stretched person is another person to the network. A network that takes any size
gets the frame's own aspect at about its published number of pixels, or the frame as it is where that is not much
more; another gets the frame at the top left of its fixed size, the rest padded. The maps are cut back to the frame.
"""

import logging
import math
from pathlib import Path
from typing import Dict, NamedTuple, Optional, Tuple, Union

import cv2
import numpy as np

from edged.camera import zoo
from edged.camera.openvino import to_onnx
from edged.camera.ort import OrtNet, gpu_providers
from edged.errors import CameraError, PackageError, ShapeError

log = logging.getLogger(__name__)

BACKENDS = ("auto", "opencv", "onnxruntime")  # auto: ONNX Runtime where it has a GPU

HEAT_CHANNELS = 19  # 18 keypoints and the background
SIDE_MAX = 16384
# Small people are lost by resampling before they are lost by size: of pedestrians 60 pixels tall in 480 x 360, 92 %
# were found in the frame as it is, 66 % at 392 x 296 (of those found in 680 x 512).
UNSCALED_LEAST, UNSCALED_MOST = 0.75, 1.5
ASPECT_MOST = 8  # beyond, there is no cell left for a person
PADDING = 128


class Maps(NamedTuple):
    """heat : (19, h, w) float32      paf : (38, h, w) float32, limb k of edged.camera.pose.LIMBS at 2k (x), 2k + 1 (y)

    cell : frame pixels per cell; cell (i, j) has its centre at x = (j + 0.5) * cell - 0.5, likewise y
    """

    heat: np.ndarray
    paf: np.ndarray
    cell: float


class Placement(NamedTuple):
    """The network's input, ``wide`` x ``high``, and the part of it, from the top left, that is the scaled frame."""

    wide: int
    high: int
    inner_wide: int
    inner_high: int
    scale: float


class _OpenCv:
    def __init__(self, model: zoo.PoseModel, content: Tuple[bytes, ...], threads: Optional[int]) -> None:
        if threads is not None:
            cv2.setNumThreads(threads)
        try:
            if model.importer == "tensorflow":
                self._net = cv2.dnn.readNetFromTensorflow(np.frombuffer(content[0], np.uint8))
            else:
                self._net = cv2.dnn.readNetFromONNX(np.frombuffer(_onnx(model, content), np.uint8))
        except cv2.error as error:
            raise PackageError("OpenCV {} cannot load pose model {}: {}".format(
                cv2.__version__, model.name, _one_line(error))) from error
        # All of them: OpenCV 5 refuses to compute a part.
        self.outputs = list(self._net.getUnconnectedOutLayersNames())

    def run(self, blob: np.ndarray) -> Dict[str, np.ndarray]:
        try:
            self._net.setInput(blob)
            return dict(zip(self.outputs, self._net.forward(self.outputs)))
        except cv2.error as error:
            raise CameraError(_one_line(error)) from error


def _onnx(model: zoo.PoseModel, content: Tuple[bytes, ...]) -> bytes:
    return to_onnx(*content) if model.importer == "openvino" else content[0]


class PoseNetwork:
    """A model of ``edged.camera.zoo``, loaded. Not to be shared between threads.

    threads : of OpenCV, in the whole process; None leaves OpenCV's own choice
    backend : of BACKENDS; what ONNX Runtime fails at is done by OpenCV from then on
    detail : times the published number of pixels, where the model takes any size: time grows alike, people may be
    smaller by the square root
    Raises what ``zoo.read`` raises, and PackageError where this OpenCV cannot load the model.
    """

    def __init__(self, name: str = zoo.DEFAULT, folder: Optional[Union[str, Path]] = None,
                 threads: Optional[int] = None, detail: float = 1.0, backend: str = "opencv") -> None:
        self.model = zoo.model(name)
        self.detail = detail
        self._content, self._threads = zoo.read(name, folder), threads
        self._net: Union[_OpenCv, OrtNet] = self._loaded(backend)
        for output, _ in (self.model.heat, self.model.paf):
            if output not in self._net.outputs:
                raise PackageError("pose model {} has no output {}, only {}".format(
                    name, output, ", ".join(sorted(self._net.outputs))))
        log.info("pose network %s is computed by %s", name, self.where)
        self._channels = [channel for pair in self.model.paf_channels for channel in pair]

    @property
    def where(self) -> str:
        """Who computes."""
        return "OpenCV {}".format(cv2.__version__) if isinstance(self._net, _OpenCv) else \
            "ONNX Runtime, {}".format(self._net.where[0])

    def _loaded(self, backend: str) -> Union[_OpenCv, OrtNet]:
        able = self.model.importer != "tensorflow"
        if backend == "onnxruntime" or backend == "auto" and able and gpu_providers():
            if not able:
                raise PackageError("pose model {} is not ONNX: pose_backend = \"opencv\"".format(self.model.name))
            try:
                return OrtNet(_onnx(self.model, self._content), self._threads)
            except PackageError as error:
                if backend == "onnxruntime":
                    raise
                log.warning("pose network %s: %s; OpenCV takes over", self.model.name, error)
        return _OpenCv(self.model, self._content, self._threads)

    def _computed(self, blob: np.ndarray) -> Dict[str, np.ndarray]:
        try:
            return self._net.run(blob)
        except CameraError as error:
            if isinstance(self._net, _OpenCv):
                raise
            log.warning("pose network %s: %s; OpenCV takes over", self.model.name, error)
            self._net = _OpenCv(self.model, self._content, self._threads)
            return self._net.run(blob)

    def placement(self, width: int, height: int) -> Placement:
        """What becomes of a frame of this size, in pixels."""
        model = self.model
        wide, high = model.width, model.height
        if model.any_size:
            pixels = wide * high * self.detail
            if UNSCALED_LEAST <= width * height / pixels <= UNSCALED_MOST:
                scale = 1.0
            else:
                scale = math.sqrt(pixels / (width * height))
            wide, high = (-(-max(1, int(round(side * scale))) // model.multiple) * model.multiple
                          for side in (width, height))
        else:
            scale = min(wide / width, high / height)
        inner = max(1, int(round(width * scale))), max(1, int(round(height * scale)))
        return Placement(wide, high, inner[0], inner[1], scale)

    def run(self, frame: np.ndarray) -> Maps:
        """The maps of one frame, (H, W, 3) uint8 in BGR, no side more than ASPECT_MOST times the other.

        Raises ShapeError for another kind of array and CameraError where OpenCV fails in it.
        """
        if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8 or not 0 < min(frame.shape[:2]) \
                or max(frame.shape) > min(SIDE_MAX, ASPECT_MOST * min(frame.shape[:2])):
            raise ShapeError("frame of {} {}, not (H, W, 3) of uint8".format(frame.shape, frame.dtype))
        model = self.model
        height, width = frame.shape[:2]
        place = self.placement(width, height)
        canvas = np.full((place.high, place.wide, 3), PADDING, np.uint8)
        canvas[:place.inner_high, :place.inner_wide] = _resized(frame, place)
        try:
            blob = cv2.dnn.blobFromImage(canvas, model.scale, mean=model.mean, swapRB=model.rgb)
            outputs = self._computed(blob)
        except CameraError as error:
            raise CameraError("pose model {} failed on a frame of {} x {}: {}".format(
                model.name, width, height, error)) from error
        # Cells of the padding hold no frame; a cell that holds a part of it stays.
        rows, columns = (-(-side // model.stride) for side in (place.inner_high, place.inner_wide))
        heat = outputs[model.heat[0]][0, model.heat[1]:, :rows, :columns][:HEAT_CHANNELS]
        paf = outputs[model.paf[0]][0, model.paf[1]:, :rows, :columns][self._channels]
        return Maps(heat, paf, model.stride / place.scale)


def _resized(frame: np.ndarray, place: Placement) -> np.ndarray:
    """Averaged to the next whole fraction, then by Lanczos: sharper than averaging alone, and not aliased.

    Of the pedestrians above, Lanczos found 66 %, cubic 57 %, averaging 49 %.
    """
    fraction = int(1 / place.scale + 1e-6)
    if fraction > 1:
        frame = cv2.resize(frame, (max(1, frame.shape[1] // fraction), max(1, frame.shape[0] // fraction)),
                           interpolation=cv2.INTER_AREA)
    inner = place.inner_wide, place.inner_high
    if (frame.shape[1], frame.shape[0]) == inner:
        return frame
    return cv2.resize(frame, inner, interpolation=cv2.INTER_LANCZOS4)


def _one_line(error: cv2.error) -> str:
    return " ".join(str(error).split())[:200]
