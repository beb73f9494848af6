"""The camera process: people seen become tracks, tracks become clips, clips go sealed to the bridge.

It does not end for a dead camera, nor for a bridge or an enclave that is away: it says so and goes on trying. It ends
with 0 when a file or recording is at its end and all its clips are done, and with an error where what it was given
cannot be used.
"""

import logging
from contextlib import ExitStack
from typing import Any, List, Optional, Tuple

from edged import events
from edged.beside import CameraKeys
from edged.bus import Dealer
from edged.camera.assemble import Assembler, Counts
from edged.camera.clip import Clip
from edged.camera.link import BridgeLink, Session
from edged.camera.pose import JOINTS
from edged.camera.source import Scene, Source, open_source
from edged.camera.track import Tracker
from edged.config import Config
from edged.errors import PackageError
from edged.notify import Notifier, Watchdog
from edged.offload.messages import camera_id

log = logging.getLogger(__name__)

POLL_S = 0.05     # how late a request to stop, or an answer of the bridge, may be noticed
SUMMARY_S = 60.0  # of claimed time, between two words on tracks that gave no clip


def run(config: Config, name: str, stop: Any) -> None:
    """Watch until ``stop`` is set, or the source is at its end.

    Raises ConfigError (no such camera), KeyRefused, MissingInput, PackageError, VerificationFailed (what the table
    names is not usable) and CameraError (OpenCV hangs).
    """
    camera = config.camera(name)
    notifier = Notifier()
    with ExitStack() as stack:
        dealer = stack.enter_context(Dealer(config.bridge_address, name.encode("utf-8")))
        link = BridgeLink(dealer, camera_id(name), CameraKeys(config, camera))  # before the source: it needs no device
        source = stack.enter_context(open_source(camera))
        watch = Watch(name, source, link, camera.hop_s, Watchdog(notifier), notifier, camera.group == "near")
        log.info("camera %s: %s %s", name, camera.kind, camera.shown)
        notifier.ready("waits for the bridge")
        ended = watch.run(stop)
        if ended:
            notifier.done()
        else:
            notifier.stopping()
    notifier.close()


class Watch:
    """One camera at work."""

    def __init__(self, name: str, source: Source, link: BridgeLink, hop_s: float, watchdog: Watchdog,
                 notifier: Notifier, near: bool = True) -> None:
        self._name, self._source, self._link, self._hop_s, self._near = name, source, link, hop_s, near
        self._watchdog, self._notifier = watchdog, notifier
        self._tracker = Tracker()
        self._assembler: Optional[Assembler] = None
        self._shape: Optional[Tuple[int, int, int]] = None
        self._at_s: Optional[float] = None  # of the last scene
        self._live: Optional[bool] = None  # as last said
        self._told = Counts()
        self._told_s = 0.0

    def run(self, stop: Any) -> bool:
        """Whether the source is at its end; False where ``stop`` ended it."""
        source, link = self._source, self._link
        if not source.live:  # nothing is missed by waiting
            while link.session is None and not stop.is_set():
                self._serve(POLL_S)
        source.begin()
        while not stop.is_set() and not source.ended:
            self._link.serve(min(source.wait_s(), POLL_S))
            scene = source.next(POLL_S)
            if scene is not None:
                self._say_live(True, since_s=scene.time_s)
                self._see(scene, stop)
                self._watchdog.progress()
            elif source.lost is not None:
                if self._live:  # what led to it is told now, not when the camera is back
                    self._send(self._rest(), stop)
                self._say_live(False, source.lost)
                self._watchdog.progress()  # a dead camera is a state, not a standstill
        if not stop.is_set():
            self._send(self._rest(), stop)
        while link.busy and not stop.is_set():
            self._serve(POLL_S)
        if link.finish():
            link.serve(POLL_S)  # a socket that is closed drops what has not left
        self._tell_counts()
        if source.ended and not stop.is_set():
            events.emit(log, "camera_ended", camera=self._name, done=link.counts.done, skipped=link.counts.skipped)
            return True
        return False

    def _serve(self, timeout_s: float) -> None:
        """While there is nothing to do but to wait for the bridge: that is a state, too."""
        self._link.serve(timeout_s)
        self._watchdog.progress()
        self._show()

    def _see(self, scene: Scene, stop: Any) -> None:
        assembler = self._assembler_for(self._link.session)
        if self._at_s is not None and scene.at_s < self._at_s and assembler is not None:
            # The recording begins again: nobody walks from its end to its beginning.
            self._send(self._rest(), stop)
            assembler.restart()
        self._at_s = scene.at_s
        people = [(number, scene.people[index]) for number, index in self._tracker.update(scene.at_s, scene.people)]
        if assembler is None:
            return
        jump_s = assembler.add(scene.time_s, scene.width, scene.height, people, scene.at_s)
        if jump_s is not None:
            events.emit(log, "clock_jump", camera=self._name, seconds=round(jump_s, 3))
        self._send(assembler.due(scene.time_s), stop)
        if abs(scene.time_s - self._told_s) >= SUMMARY_S:
            self._told_s = scene.time_s
            self._tell_counts()
        self._show()

    def _assembler_for(self, session: Optional[Session]) -> Optional[Assembler]:
        """One that makes clips of the shape that the enclave takes now; None before it has said."""
        shape = None if session is None else (session.frames, session.persons, session.joints)
        if shape is not None and shape != self._shape:
            if shape[2] != JOINTS:
                raise PackageError("the enclave's model takes skeletons of {} joints, a camera gives {}".format(
                    shape[2], JOINTS))
            self._shape = shape
            self._tell_counts()
            self._told = Counts()
            self._assembler = Assembler(camera_id(self._name), *shape, hop_s=self._hop_s, near=self._near)
        return self._assembler

    def _send(self, clips: List[Clip], stop: Any) -> None:
        for clip in clips:
            while self._source.patient and not self._link.room and not stop.is_set():
                self._serve(POLL_S)
            self._link.offer(clip)
        if clips:
            self._link.serve(0)

    def _rest(self) -> List[Clip]:
        return [] if self._assembler is None else self._assembler.rest()

    def _say_live(self, live: bool, reason: str = "", since_s: float = 0.0) -> None:
        if live == self._live:
            return
        self._live = live
        if live:
            events.emit(log, "camera_live", camera=self._name, since_unix_ns=int(since_s * 1e9))
        else:
            events.emit(log, "camera_lost", camera=self._name, reason=reason)
        self._link.status("live" if live else "lost", reason)
        self._show()

    def _tell_counts(self) -> None:
        if self._assembler is None or self._assembler.counts == self._told:
            return
        counts, told = self._assembler.counts, self._told
        self._told = counts
        if counts.short > told.short:
            events.emit(log, "track_short", camera=self._name, tracks=counts.short - told.short)
        if counts.crowded > told.crowded:
            events.emit(log, "tracks_crowded", camera=self._name, sightings=counts.crowded - told.crowded)
        if counts.late > told.late:
            events.emit(log, "frames_late", camera=self._name, frames=counts.late - told.late)

    def _show(self) -> None:
        """One line for the supervisor and systemd."""
        state = {None: "no picture yet", True: "live", False: "the camera is lost"}[self._live]
        if self._link.session is None:
            state += ", waits for the bridge"
        counts = self._link.counts
        self._notifier.status("{}; clips: {} done, {} skipped, {} refused".format(
            state, counts.done, counts.skipped, counts.refused))
