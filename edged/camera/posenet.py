"""An OpenPose-type network through OpenCV's dnn: a frame in, heat maps and part affinity fields out.

The aspect of the frame is kept: a stretched person is another person to the network. A network that takes any size
gets the frame's own aspect at about its published number of pixels, or the frame as it is where that is not much
more; another gets the frame at the top left of its fixed size, the rest padded. The maps are cut back to the frame.
"""

import math
from pathlib import Path
from typing import NamedTuple, Optional, Union

import cv2
import numpy as np

from edged.camera import zoo
from edged.camera.openvino import to_onnx
from edged.errors import CameraError, PackageError, ShapeError

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


class PoseNetwork:
    """A model of ``edged.camera.zoo``, loaded. Not to be shared between threads.

    threads : of OpenCV, in the whole process; None leaves OpenCV's own choice
    detail : times the published number of pixels, where the model takes any size: time grows alike, people may be
    smaller by the square root
    Raises what ``zoo.read`` raises, and PackageError where this OpenCV cannot load the model.
    """

    def __init__(self, name: str = zoo.DEFAULT, folder: Optional[Union[str, Path]] = None,
                 threads: Optional[int] = None, detail: float = 1.0) -> None:
        self.model = zoo.model(name)
        self.detail = detail
        content = zoo.read(name, folder)
        if threads is not None:
            cv2.setNumThreads(threads)
        try:
            if self.model.importer == "tensorflow":
                self._net = cv2.dnn.readNetFromTensorflow(np.frombuffer(content[0], np.uint8))
            else:
                file = to_onnx(*content) if self.model.importer == "openvino" else content[0]
                self._net = cv2.dnn.readNetFromONNX(np.frombuffer(file, np.uint8))
        except cv2.error as error:
            raise PackageError("OpenCV {} cannot load pose model {}: {}".format(
                cv2.__version__, name, _one_line(error))) from error
        # All of them: OpenCV 5 refuses to compute a part.
        self._outputs = list(self._net.getUnconnectedOutLayersNames())
        for output, _ in (self.model.heat, self.model.paf):
            if output not in self._outputs:
                raise PackageError("pose model {} has no output {}, only {}".format(
                    name, output, ", ".join(sorted(self._outputs))))
        self._channels = [channel for pair in self.model.paf_channels for channel in pair]

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
            self._net.setInput(cv2.dnn.blobFromImage(canvas, model.scale, mean=model.mean, swapRB=model.rgb))
            outputs = dict(zip(self._outputs, self._net.forward(self._outputs)))
        except cv2.error as error:
            raise CameraError("pose model {} failed on a frame of {} x {}: {}".format(
                model.name, width, height, _one_line(error))) from error
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
