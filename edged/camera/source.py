"""Where people come from: a camera or video and the pose network, a recording, or the generator of one.

Each source gives scenes: who was seen when, untracked. A recording does not go through OpenCV and needs none.
"""

import logging
import time
from typing import Any, Callable, NamedTuple, Optional

import numpy as np

from edged import config
from edged.camera.recording import Recording
from edged.errors import CameraError

log = logging.getLogger(__name__)

LOST_S = 5.0  # without a picture: more than any stream pauses between two


class Scene(NamedTuple):
    """time_s : claimed, Unix      at_s : the same moment by a clock that nobody sets; goes back where a recording
    begins again      people : (n, 18, 3) float32, x, y in pixels, confidence; missing joints 0"""

    time_s: float
    at_s: float
    width: int
    height: int
    people: np.ndarray


class Source:
    """live: a camera, which waits for nobody and never ends      patient: it can wait whenever it is asked to"""

    live = False
    patient = False

    def __init__(self) -> None:
        self.ended = False
        self.lost: Optional[str] = None  # why there are no scenes, where there should be some

    def begin(self) -> None:
        """Called once, when somebody is there to take scenes; a camera has begun long before."""

    def wait_s(self) -> float:
        """For how long ``next`` surely has nothing."""
        return 0.0

    def next(self, timeout_s: float) -> Optional[Scene]:
        """The next scene, or None where none came in time; then see ``ended`` and ``lost``."""
        raise TypeError("an abstract source")

    def close(self) -> None:
        """Let the source go."""

    def __enter__(self) -> "Source":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_source(camera: config.Camera) -> Source:
    """The source that a table [camera.NAME] names.

    Raises MissingInput, PackageError, ConfigError or VerificationFailed where the file, or the pose network that it
    needs, is not there or not what it should be. A camera that does not answer is no error: it is ``lost``.
    """
    if camera.kind == "recording":
        return Playback(Recording.load(camera.source), camera.speed, camera.loop)
    if camera.kind == "generator":
        from edged.camera import motion
        return Playback(motion.generate(int(camera.source)), camera.speed, camera.loop)
    return Pictures(camera)


class Playback(Source):
    """A recording. Its first frame is claimed to be taken when it begins, the others as much later as they were.

    speed : 1 is real time, 0 as fast as scenes are asked for      loop : begin again, for ever
    """

    def __init__(self, recording: Recording, speed: float = 1.0, loop: bool = False,
                 unix: Callable[[], float] = time.time, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self.patient = speed == 0
        self.ended = not recording.frames
        self._recording, self._speed, self._loop = recording, speed, loop
        self._unix, self._clock = unix, clock
        self._given = 0  # frames, of all passes
        self._start_unix_s = self._start_s = 0.0

    def begin(self) -> None:
        self._start_unix_s, self._start_s = self._unix(), self._clock()

    def wait_s(self) -> float:
        if self._speed == 0 or self.ended:
            return 0.0
        return max(0.0, self._start_s + self._given / self._recording.fps / self._speed - self._clock())

    def next(self, timeout_s: float) -> Optional[Scene]:
        wait_s = self.wait_s()
        if wait_s > 0:
            time.sleep(min(wait_s, timeout_s))
        if self.ended or wait_s > timeout_s:
            return None
        recording, index = self._recording, self._given % len(self._recording.frames)
        scene = Scene(self._start_unix_s + self._given / recording.fps, index / recording.fps, recording.width,
                      recording.height, recording.frames[index])
        self._given += 1
        self.ended = not self._loop and self._given == len(recording.frames)
        return scene


class Pictures(Source):
    """A camera or a video file, looked at by the pose network."""

    def __init__(self, camera: config.Camera) -> None:
        super().__init__()
        # Here, so that a recording needs no OpenCV.
        from edged.camera import capture, pose, posenet, zoo
        self._decode = pose.decode
        self._camera = camera
        self._open = capture.open_source
        self._network = posenet.PoseNetwork(camera.pose or zoo.DEFAULT, camera.models, backend=camera.pose_backend)
        self._capture: Any = self._opened()
        self.live = self._capture.live
        self.patient = not self.live and camera.speed == 0

    def begin(self) -> None:
        if not self.live:  # a file's time runs from its opening on
            self._capture.close()
            self._capture = self._opened()

    def next(self, timeout_s: float) -> Optional[Scene]:
        """Raises CameraError where OpenCV does not return any more: only the end of the process helps."""
        try:
            frame = self._capture.read(timeout_s)
        except CameraError as error:
            if self._capture.hung:
                raise CameraError("{}: OpenCV hangs in it; this process has to start anew".format(
                    self._capture.name)) from error
            if self._capture.age() > LOST_S:
                self.lost = str(error)
            return None
        if frame is None:
            self.ended = True
            return None
        self.lost = None
        height, width = frame.image.shape[:2]
        maps = self._network.run(frame.image)
        return Scene(frame.claimed_ns / 1e9, frame.at_s, width, height, self._decode(maps.heat, maps.paf, maps.cell))

    def close(self) -> None:
        self._capture.close()

    def _opened(self) -> Any:
        camera = self._camera
        return self._open(camera.source, camera.frames_per_second, camera.speed)
