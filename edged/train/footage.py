"""Clips of real videos for training: what the camera process makes of them, with labels from their authors' spans.

Source of the videos: see edged/train/realvideo.py. They are few, so no clip is met as it is: mirrored half of the time,
smaller and elsewhere in the picture, at another pace, with frames and joints overlooked.
"""

from typing import Dict, List, Optional, Sequence, Tuple

import numpy as np

from edged.camera.acts import FALLING, LYING, SITTING, STANDING, WALKING
from edged.camera.assemble import Assembler
from edged.camera.puppet import (
    L_ANKLE, L_EAR, L_ELBOW, L_EYE, L_HIP, L_KNEE, L_SHOULDER, L_WRIST, NECK, R_ANKLE, R_EAR, R_ELBOW, R_EYE, R_HIP,
    R_KNEE, R_SHOULDER, R_WRIST,
)  # fmt: skip
from edged.camera.recording import Recording
from edged.camera.track import Tracker
from edged.errors import UsageError
from edged.model.stgcn import CLIP_SCALE
from edged.train.realvideo import FALLING as FALLS
from edged.train.realvideo import Video

PERSONS, FRAMES = 2, 300
STEP_S = 0.2       # between two moments that a clip may end at
SHORTEST_S = 1.2   # of a clip: the assembler wants a second
FALLEN_S = 0.8     # after its beginning half of a fall is over
_STATES = {"Walking": WALKING, "Sitting": SITTING, "Sleeping": LYING}  # whoever does something else stands or sits
_RIGHT = (R_SHOULDER, R_ELBOW, R_WRIST, R_HIP, R_KNEE, R_ANKLE, R_EYE, R_EAR)
_LEFT = (L_SHOULDER, L_ELBOW, L_WRIST, L_HIP, L_KNEE, L_ANKLE, L_EYE, L_EAR)


def label_at(video: Video, end_s: float) -> Optional[str]:
    """Of the clip that ends there, by the labels' rules; None while a fall is less than half over.

    A table names the fall and the time on the ground after it by one span.
    """
    begun = [start for what, start, _ in video.spans if what in FALLS and start < end_s]
    if begun:
        return FALLING if end_s >= begun[0] + FALLEN_S else None
    spent = {label: 0.0 for label in _STATES.values()}
    last = None
    for what, start, end in video.spans:
        label = _STATES.get(what)
        if label is not None and start < end_s:
            spent[label] += min(end, end_s) - start
            if end >= end_s - 0.5:
                last = label
    if spent[LYING] >= 1.0 and (last == LYING or spent[LYING] > end_s / 2):
        return LYING
    if spent[WALKING] >= max(1.0, end_s / 4):
        return WALKING
    return SITTING if last == SITTING or spent[SITTING] > end_s / 2 else STANDING


class _Scene:
    """A recording whose people are tracked: of each frame (seconds, [(track, (18, 3))])."""

    def __init__(self, recording: Recording) -> None:
        self.width, self.height = recording.width, recording.height
        tracker = Tracker()
        self.frames: List[Tuple[float, List[Tuple[int, np.ndarray]]]] = []
        sure: Dict[int, float] = {}
        for index, frame in enumerate(recording.frames):
            at_s = index / recording.fps
            people = [(number, frame[place]) for number, place in tracker.update(at_s, frame)]
            for number, pose in people:
                sure[number] = sure.get(number, 0.0) + float(pose[:, 2].sum())
            self.frames.append((at_s, people))
        self.sure = sure


def clip(rng: np.random.Generator, scene: _Scene, end_s: float) -> Optional[np.ndarray]:
    """(m, 300, 18, 3) of whom the video is about, which ends there; None where nobody was seen for a second."""
    pace = rng.uniform(0.85, 1.2)
    small = rng.uniform(0.45, 1.0)
    shift = rng.uniform(0, 1 - small, 2) * (scene.width, scene.height)
    mirror, every = rng.random() < 0.5, 2 if rng.random() < 0.3 else 1
    overlooked, dropped = rng.uniform(0, 0.08), rng.uniform(0, 0.06)
    assembler = Assembler(bytes(32), FRAMES, PERSONS)
    for index, (at_s, people) in enumerate(scene.frames):
        if at_s > end_s:
            break
        if index % every or rng.random() < overlooked:
            continue
        seen = []
        for number, pose in people:
            changed = pose.astype(np.float64)
            known = changed[:, 2] > 0
            if mirror:
                changed[known, 0] = scene.width - changed[known, 0]
                changed[_RIGHT + _LEFT, :] = changed[_LEFT + _RIGHT, :]
                known = changed[:, 2] > 0
            tall = float(np.ptp(changed[known, 1])) if known.any() else 0.0
            changed[:, :2] = small * (changed[:, :2] + rng.normal(0, 0.005 * tall, (18, 2))) + shift
            known &= rng.random(18) >= dropped
            known &= (changed[:, :2] >= 0).all(1) & (changed[:, :2] <= (scene.width, scene.height)).all(1)
            changed[~known] = 0
            if known[NECK] or known.sum() > 3:
                seen.append((number, changed.astype(np.float32)))
        assembler.add(at_s * pace, scene.width, scene.height, seen)
    clips = assembler.rest()
    if not clips:
        return None
    chosen = max(clips, key=lambda one: max(scene.sure.get(number, 0.0) for number in one.tracks))
    return chosen.coordinates.astype(np.float64) / CLIP_SCALE


class Footage:
    """The videos as a source of clips. Raises UsageError without videos."""

    def __init__(self, videos: Sequence[Video]) -> None:
        self._ends: Dict[str, List[List[Tuple[_Scene, float]]]] = {}
        for video in videos:
            scene, of_video = _Scene(video.recording), {}  # type: _Scene, Dict[str, List[Tuple[_Scene, float]]]
            for end_s in np.arange(SHORTEST_S, video.recording.duration_s, STEP_S):
                label = label_at(video, float(end_s))
                if label is not None:
                    of_video.setdefault(label, []).append((scene, float(end_s)))
            for label, moments in of_video.items():
                self._ends.setdefault(label, []).append(moments)
        if not self._ends:
            raise UsageError("no real videos to train on")
        self.labels = tuple(sorted(self._ends))

    def clip(self, rng: np.random.Generator, label: str) -> np.ndarray:
        """(m, 300, 18, 3), m = 1 or 2; each video as often as the others, however long."""
        while True:
            moments = self._ends[label][int(rng.integers(len(self._ends[label])))]
            found = clip(rng, *moments[int(rng.integers(len(moments)))])
            if found is not None:
                return found
