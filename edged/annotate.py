"""A video with what the city was told of it: skeletons, tracks, labels, and the alert, for people to look at.

Tracks are found a second time, by the same network and tracker over the same pictures, and are therefore the camera
process's own; no skeleton is ever written to disk, nor does a node do any of this. Labels and alerts come from the
records that the city decrypted.
"""

import math
import os
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from edged.camera import picture, pose
from edged.camera.capture import open_source
from edged.camera.picture import Colour
from edged.camera.posenet import PoseNetwork
from edged.camera.puppet import NECK
from edged.camera.track import Tracker
from edged.errors import MissingInput

FILM, STILL = "annotated.mp4", "alert.png"
SEEN_MIN = 0.1    # confidence of a joint that is drawn
GAP_S = 0.5       # between two sightings a skeleton moves on evenly
ANSWER_S = 2.5    # so long a clip's answer stays with its people: two clips and a half
ALERT_S = 4.0     # so long an alert is shown after the clip that said it last
REMEMBERED_S = 8.0  # so long the place of somebody lost may be shown
_TRAIL = 30       # sightings of a track that are drawn as dots

# Blue, green, red. One for each track in turn; red is for alerts.
_COLOURS: Tuple[Colour, ...] = ((255, 190, 70), (120, 220, 90), (60, 200, 255), (235, 130, 205), (190, 225, 60),
                                (255, 140, 120), (90, 235, 215), (200, 170, 255))
_RED: Colour = (60, 50, 240)
_INK: Colour = (30, 26, 22)
_PAPER: Colour = (245, 245, 245)
_DIM: Colour = (175, 170, 165)
_BONES = pose.LIMBS[:17]


class Told(NamedTuple):
    """One clip, as the city knows it. at_s : its last frame in the video      alert : what it says of a rule

    chances : label -> probability, empty where the city does not see scores
    """

    at_s: float
    number: int
    tracks: Tuple[int, ...]
    chances: Dict[str, float]
    alert: Optional[Tuple[str, float]]
    began: bool  # with this clip: not an alert that goes on


class Sighting(NamedTuple):
    """at_s : of the picture      people : track -> joints (18, 3)"""

    at_s: float
    people: Dict[int, np.ndarray]


class Written(NamedTuple):
    film: str
    still: str


def look(video: str, network: PoseNetwork, frames_per_second: float, until_s: float = math.inf) -> List[Sighting]:
    """Everybody in a video file, as the camera process tracks them at that rate. Raises what open_source raises."""
    tracker, found = Tracker(), []
    with open_source(video, frames_per_second) as capture:
        while True:
            frame = capture.read()
            if frame is None or frame.at_s > until_s:
                return found
            maps = network.run(frame.image)
            people = pose.decode(maps.heat, maps.paf, maps.cell)
            found.append(Sighting(frame.at_s, {number: people[index] for number, index in tracker.update(
                frame.at_s, people)}))


def centre(sightings: Sequence[Sighting], track: int, at_s: float) -> Optional[Tuple[float, float]]:
    """The middle of the box of a track's joints at its sighting nearest to a moment; None for one never seen."""
    seen = [sighting for sighting in sightings if track in sighting.people]
    if not seen:
        return None
    joints = min(seen, key=lambda sighting: abs(sighting.at_s - at_s)).people[track]
    joints = joints[joints[:, 2] > SEEN_MIN]
    x, y = 0.5 * (joints[:, :2].min(0) + joints[:, :2].max(0))
    return float(x), float(y)


def write(
    video: str, sightings: Sequence[Sighting], told: Sequence[Told], folder: str, camera: str,
    until_s: float = math.inf,
) -> Written:
    """FILM and STILL (the moment of the first alert, else the end) in ``folder``, which is made where it is missing.

    Raises MissingInput where it cannot be made, and what open_source, Film and save raise.
    """
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise MissingInput("{}: no folder to write to: {}".format(folder, error.strerror)) from error
    written = Written(os.path.join(folder, FILM), os.path.join(folder, STILL))
    alerts = [clip.at_s for clip in told if clip.alert and clip.began]
    still_at_s = alerts[0] + 0.01 if alerts else math.inf
    still: Optional[np.ndarray] = None
    film: Optional[picture.Film] = None
    last_s = sightings[-1].at_s if sightings else 0.0
    try:
        with open_source(video, 1000.0) as capture:  # every picture
            while True:
                frame = capture.read()
                if frame is None or frame.at_s > until_s:
                    break
                page = _Page(frame.image, frame.at_s, max(last_s, 1.0), camera)
                page.draw(_between(sightings, frame.at_s), _before(sightings, frame.at_s), told)
                if film is None:
                    height, width = page.image.shape[:2]
                    film = picture.Film(written.film, width, height, _rate(video))
                film.add(page.image)
                if still is None or frame.at_s <= still_at_s:
                    still = page.image
    finally:
        if film is not None:
            film.close()
    if still is not None:
        picture.save(written.still, still)
    return written


def _rate(video: str) -> float:
    """Pictures a second, from the first few: containers lie."""
    times: List[float] = []
    with open_source(video, 1000.0) as capture:
        while len(times) < 30:
            frame = capture.read()
            if frame is None:
                break
            times.append(frame.at_s)
    return (len(times) - 1) / (times[-1] - times[0]) if len(times) > 1 and times[-1] > times[0] else 10.0


def _between(sightings: Sequence[Sighting], at_s: float) -> Dict[int, np.ndarray]:
    """Everybody at a moment, drawn on between two sightings that are near each other."""
    times = [sighting.at_s for sighting in sightings]
    after = int(np.searchsorted(times, at_s - 1e-6))
    if after < len(times) and abs(times[after] - at_s) < 1e-4:
        return sightings[after].people
    if not 0 < after < len(times) or times[after] - times[after - 1] > GAP_S:
        return {}
    old, new = sightings[after - 1], sightings[after]
    share = (at_s - old.at_s) / (new.at_s - old.at_s)
    found = {}
    for track, joints in old.people.items():
        if track in new.people:
            both = (joints[:, 2:] > 0) & (new.people[track][:, 2:] > 0)
            found[track] = np.where(both, (1 - share) * joints + share * new.people[track], 0)
    return found


def _before(sightings: Sequence[Sighting], at_s: float) -> Dict[int, List[np.ndarray]]:
    """The joints of each track up to a moment, so far as they are remembered."""
    made: Dict[int, List[np.ndarray]] = {}
    for sighting in sightings:
        if at_s - REMEMBERED_S < sighting.at_s <= at_s + 1e-6:
            for track, joints in sighting.people.items():
                made.setdefault(track, []).append(joints)
    return made


class _Page:
    """One picture of the film: the video's, and a panel beneath it."""

    def __init__(self, image: np.ndarray, at_s: float, long_s: float, camera: str) -> None:
        height, width = image.shape[:2]
        self._unit = max(height, 300) / 540
        self._panel = 2 * int(round(32 * self._unit))
        self.image = np.empty((height + height % 2 + self._panel, width + width % 2, 3), np.uint8)
        self.image[:] = _INK
        self.image[:height, :width] = image
        self._height, self._width = height, width
        self._at_s, self._long_s, self._camera = at_s, long_s, camera

    def draw(self, people: Dict[int, np.ndarray], before: Dict[int, List[np.ndarray]], told: Sequence[Told]) -> None:
        known = [clip for clip in told if clip.at_s <= self._at_s + 1e-6]
        alert = _standing(known, self._at_s)
        alarmed = set(alert.tracks) if alert else set()
        for track, joints in before.items():
            if track in people:
                self._trail(joints[-_TRAIL:], self._colour(track, alarmed))
        for track in alarmed & set(before):
            self._corners(people.get(track, before[track][-1]), "" if track in people else "{} was here".format(track))
        for track, joints in sorted(people.items()):
            self._skeleton(joints, self._colour(track, alarmed))
        for track, joints in sorted(people.items()):
            self._tag(track, joints, _answer(known, track, self._at_s), self._colour(track, alarmed))
        self._header()
        self._timeline(known, alert)
        if alert and alert.alert:
            self._banner(alert)

    @staticmethod
    def _colour(track: int, alarmed: "set[int]") -> Colour:
        return _RED if track in alarmed else _COLOURS[track % len(_COLOURS)]

    def _trail(self, joints: Sequence[np.ndarray], colour: Colour) -> None:
        """Where the neck was."""
        for one in joints[::2]:
            if one[NECK, 2] > SEEN_MIN:
                picture.disc(self.image[:self._height], one[NECK, :2], 1.3 * self._unit, colour)

    def _corners(self, joints: np.ndarray, words: str) -> None:
        """Of the box of somebody whom an alert is about."""
        seen = joints[joints[:, 2] > SEEN_MIN, :2]
        if not len(seen):
            return
        margin = 14 * self._unit
        low, high = seen.min(0) - margin, seen.max(0) + margin
        arm = 0.25 * float((high - low).min())
        for x, inward in ((low[0], arm), (high[0], -arm)):
            for y, down in ((low[1], arm), (high[1], -arm)):
                for end in ((x + inward, y), (x, y + down)):
                    picture.line(self.image[:self._height], (x, y), end, _RED, max(2, int(round(3 * self._unit))))
        if words:
            picture.text(self.image, words, (low[0], low[1] - 0.5 * margin), 11 * self._unit, _RED)

    def _skeleton(self, joints: np.ndarray, colour: Colour) -> None:
        view = self.image[:self._height, :self._width]
        seen = joints[:, 2] > SEEN_MIN
        if not seen.any():
            return
        tall = float(np.ptp(joints[seen, :2], axis=0).max())
        wide = int(np.clip(round(tall / 60), 1, 4))
        for shade, more in ((_INK, 2), (colour, 0)):
            for a, b in _BONES:
                if seen[a] and seen[b]:
                    picture.line(view, joints[a, :2], joints[b, :2], shade, wide + more)
        for place in joints[seen, :2]:
            picture.disc(view, place, 0.5 * wide + 1.3, _PAPER)

    def _tag(self, track: int, joints: np.ndarray, answer: str, colour: Colour) -> None:
        seen = joints[joints[:, 2] > SEEN_MIN, :2]
        if not len(seen):
            return
        size = 11 * self._unit
        words = "{}  {}".format(track, answer) if answer else str(track)
        wide, _ = picture.text_size(words, size)
        pad = 0.6 * size
        left = float(np.clip(seen[:, 0].mean() - 0.5 * wide - pad, 0, max(self._width - wide - 2 * pad, 0)))
        bottom = float(np.clip(seen[:, 1].min() - 1.6 * size, 4.6 * size, self._height - 2 * size))
        self._shade(left, bottom - size - pad, left + wide + 2 * pad, bottom + pad, 0.72)
        picture.line(self.image, (left, bottom - size - pad), (left, bottom + pad - 1), colour,
                     max(1, int(round(3 * self._unit))))
        picture.text(self.image, words, (left + pad, bottom), size, _PAPER)

    def _header(self) -> None:
        size = 11 * self._unit
        self._shade(0, 0, self._width, 2.6 * size, 0.6)
        picture.text(self.image, "camera {}".format(self._camera), (size, 1.8 * size), size, _PAPER)
        clock = "{:02d}:{:04.1f}".format(int(self._at_s // 60), self._at_s % 60)
        wide, _ = picture.text_size(clock, size)
        picture.text(self.image, clock, (self._width - wide - size, 1.8 * size), size, _PAPER)

    def _banner(self, alert: Told) -> None:
        label, score = alert.alert or ("", 0.0)
        size = 19 * self._unit
        words = "ALERT  {}  {:.0f} %".format(label, 100 * score)
        who = "track{} {}   clip {}   sealed in the enclave, opened by the city".format(
            "s" if len(alert.tracks) > 1 else "", " and ".join(map(str, alert.tracks)), alert.number)
        top = self._height - 3.6 * size
        self._shade(0, top, self._width, self._height, 0.86, _RED)
        picture.text(self.image, words, (size, top + 1.6 * size), size, _PAPER, max(1, int(round(2 * self._unit))))
        picture.text(self.image, who, (size, top + 2.9 * size), 0.55 * size, _PAPER)
        edge = max(2, int(round(4 * self._unit)))
        for start, end in (((0, 0), (0, self._height)), ((self._width - 1, 0), (self._width - 1, self._height)),
                           ((0, 0), (self._width, 0))):
            picture.line(self.image, start, end, _RED, edge)

    def _timeline(self, known: Sequence[Told], alert: Optional[Told]) -> None:
        """Of every clip so far, the chance of what alerts are about, or only that there was an alert."""
        size = 9.5 * self._unit
        top, low = self._height + 0.25 * self._panel, self._height + 0.86 * self._panel
        left, right = 13.5 * size, self._width - 1.5 * size
        watched = _watched(known)
        picture.text(self.image, "what the city", (size, top + size), size, _DIM)
        picture.text(self.image, "was told", (size, top + 2.6 * size), size, _DIM)
        picture.line(self.image, (left, low), (right, low), (90, 86, 82), 1)

        def across(at_s: float) -> float:
            return left + (right - left) * min(at_s / self._long_s, 1.0)

        for clip in known:
            said = clip.alert is not None
            chance = clip.chances.get(watched, 0.0) if clip.chances else float(said)
            tall = max(2.0, chance * (low - top))
            picture.line(self.image, (across(clip.at_s), low), (across(clip.at_s), low - tall),
                         _RED if said else (150, 200, 120) if chance < 0.5 else (60, 170, 240),
                         max(2, int(round(5 * self._unit))))
        now = across(self._at_s)
        picture.line(self.image, (now, top - 0.3 * size), (now, low), _PAPER, 1)
        if watched:
            wide, _ = picture.text_size(watched, size)
            picture.text(self.image, watched, (right - wide, top + 0.4 * size), size, _DIM)

    def _shade(self, left: float, top: float, right: float, bottom: float, share: float, colour: Colour = _INK) -> None:
        part = self.image[max(int(top), 0):int(bottom), max(int(left), 0):int(right)]
        part[:] = (part * (1 - share) + np.array(colour) * share).astype(np.uint8)


def _standing(known: Sequence[Told], at_s: float) -> Optional[Told]:
    """The alert to show at a moment: the last that was said, for a while."""
    said = [clip for clip in known if clip.alert and at_s - clip.at_s <= ALERT_S]
    return said[-1] if said else None


def _answer(known: Sequence[Told], track: int, at_s: float) -> str:
    said = [clip for clip in known if track in clip.tracks and at_s - clip.at_s <= ANSWER_S]
    if not said:
        return ""
    if not said[-1].chances:
        return said[-1].alert[0] if said[-1].alert else ""
    label = max(said[-1].chances, key=said[-1].chances.__getitem__)
    return "{} {:.0f} %".format(label, 100 * said[-1].chances[label])


def _watched(known: Sequence[Told]) -> str:
    """The label that the first alert is about, else falling."""
    for clip in known:
        if clip.alert:
            return clip.alert[0]
    return "falling" if any("falling" in clip.chances for clip in known) else ""
