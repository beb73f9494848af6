"""Who is who from frame to frame, in NumPy.

A track predicts its pose by constant velocity, a person is compared with it by object keypoint similarity, and the
frame's people are assigned to the tracks so that the sum of the similarities is greatest (exact: shortest augmenting
paths, as Jonker and Volgenant 1987). What a track may have moved unforeseen grows with the time since it was seen,
and counts against it: of two tracks that fit alike, the fresher one wins.

Source of the similarity and its spreads: COCO keypoint evaluation, https://cocodataset.org/#keypoints-eval. The other
constants were chosen on simulated passers-by who cross, hide each other, come and go at 5 and 10 frames a second.
"""

import math
from typing import Dict, List, Tuple

import numpy as np

from edged.camera.pose import JOINTS
from edged.errors import ShapeError

# COCO's standard deviations per keypoint in OpenPose's order, in units of the person's scale, twice as in COCO's own
# use; the neck, which COCO lacks, as the shoulders.
_SPREAD = 2 * np.array([
    .026, .079, .079, .072, .062, .079, .072, .062, .107, .087, .089, .107, .087, .089, .025, .025, .035, .035])
# Wrists and ankles swing; these tell where somebody is going.
_TRUNK = np.array([0, 1, 2, 5, 8, 11])

JITTER = 0.1  # scales that a network is off with small people
DRIFT_NEW = 2.0  # scales a second that a person seen once may go, either way: a scale is half a body
DRIFT = 0.6  # ... and depart from the velocity once that is known
VELOCITY_KEPT_S = 2.0  # an unseen person keeps walking, but not for ever
VELOCITY_MEAN_S = 0.3  # over which a velocity is smoothed
FADE_S = 0.7  # a keypoint that is missing is remembered, ever fainter
FADED = 0.05
SCALE_GAIN = 0.3
SIMILARITY_MIN = 0.1
COMMON_MIN = 3  # keypoints, for a comparison of poses; else of centres
CENTRE_SPREAD = 0.3
SCALE_MIN = 1.0  # pixel


class _Track:
    def __init__(self, number: int, time_s: float, pose: np.ndarray) -> None:
        self.number = number
        self.seen_s = time_s
        self.pose = pose.copy()  # a keypoint missing now keeps its last place, moved on, and fades
        self.velocity = np.zeros(2)
        self.scale = float(_scales(pose[None])[0])
        self.sightings = 1

    def predicted(self, time_s: float) -> np.ndarray:
        """(18, 3): the pose, moved on."""
        gap_s = time_s - self.seen_s
        moved = self.pose.copy()
        moved[:, :2] += self.velocity * (VELOCITY_KEPT_S * -math.expm1(-gap_s / VELOCITY_KEPT_S))
        return moved

    def drift(self, time_s: float) -> float:
        """How far, in scales, it may be from there."""
        return (DRIFT if self.sightings > 1 else DRIFT_NEW) * (time_s - self.seen_s)

    def see(self, time_s: float, pose: np.ndarray) -> None:
        predicted = self.predicted(time_s)
        gap_s = time_s - self.seen_s
        weight = _common(self.pose, pose)
        if gap_s > 0 and weight.sum() > 0:
            moved = ((pose[:, :2] - self.pose[:, :2]) * weight[:, None]).sum(axis=0) / weight.sum()
            # At first the plain mean of what was seen, later the smoothed one.
            gain = max(1 / self.sightings, -math.expm1(-gap_s / VELOCITY_MEAN_S))
            self.velocity += gain * (moved / gap_s - self.velocity)
        predicted[:, 2] *= math.exp(-gap_s / FADE_S)
        predicted[predicted[:, 2] < FADED] = 0
        self.pose = np.where(pose[:, 2:] > 0, pose, predicted)
        self.scale += SCALE_GAIN * (float(_scales(pose[None])[0]) - self.scale)
        self.seen_s = time_s
        self.sightings += 1


class Tracker:
    """Tracks of one camera. Numbers start at ``first`` and are never used again.

    max_age_s : a person unseen for longer is somebody new
    parts_min : keypoints that found a track; fewer may go on with one
    """

    def __init__(self, max_age_s: float = 2.0, parts_min: int = 5, first: int = 1) -> None:
        self.max_age_s = max_age_s
        self.parts_min = parts_min
        self._next = first
        self._tracks = []  # type: List[_Track]
        self._time_s = -math.inf

    def update(self, time_s: float, people: np.ndarray) -> List[Tuple[int, int]]:
        """(track, index of the person) of everybody who has a track, in the order of the people.

        people : (n, 18, 3): x, y in pixels and confidence, 0 where missing
        time_s : of any clock; where it goes back, another piece of film begins, and everybody is new
        Raises ShapeError.
        """
        people = np.asarray(people, np.float64)
        if people.ndim != 3 or people.shape[1:] != (JOINTS, 3) or not np.isfinite(people).all():
            raise ShapeError("people of {}, not (n, {}, 3) of finite numbers".format(people.shape, JOINTS))
        if time_s < self._time_s:
            self._tracks = []
        self._time_s = time_s
        self._tracks = [track for track in self._tracks if time_s - track.seen_s <= self.max_age_s]
        track_of = self._match(time_s, people)
        found = []
        for person, pose in enumerate(people):
            if person in track_of:
                track = track_of[person]
                track.see(time_s, pose)
            elif (pose[:, 2] > 0).sum() >= self.parts_min:
                track = _Track(self._next, time_s, pose)
                self._next += 1
                self._tracks.append(track)
            else:
                continue
            found.append((track.number, person))
        return found

    def _match(self, time_s: float, people: np.ndarray) -> Dict[int, _Track]:
        if not self._tracks or not len(people):
            return {}
        similar = similarity(
            np.stack([track.predicted(time_s) for track in self._tracks]), people,
            np.array([track.scale for track in self._tracks]),
            np.array([track.drift(time_s) for track in self._tracks]))
        similar[similar < SIMILARITY_MIN] = 0
        return {person: self._tracks[row] for row, person in enumerate(assignment(similar))
                if person >= 0 and similar[row, person] > 0}


def similarity(tracks: np.ndarray, people: np.ndarray, scale: np.ndarray, drift: np.ndarray) -> np.ndarray:
    """(t, n) in 0..1: keypoint similarity by confidence; the less, the wider one has to look and the odder the size.

    tracks : (t, 18, 3) where they should be      people : (n, 18, 3)
    scale : (t,) in pixels      drift : (t,) how far off they may be, in scales
    """
    scale = np.maximum(scale, SCALE_MIN)[:, None]
    drift = drift[:, None]
    weight = np.sqrt(tracks[:, None, :, 2] * people[None, :, :, 2])
    square = ((tracks[:, None, :, :2] - people[None, :, :, :2]) ** 2).sum(axis=3) / scale[:, :, None] ** 2
    alike = np.exp(-square / (2 * (_SPREAD ** 2 + JITTER ** 2 + drift[:, :, None] ** 2)))
    alike = (alike * weight).sum(axis=2) / np.maximum(weight.sum(axis=2), 1e-9)
    square = ((_centres(tracks)[:, None] - _centres(people)[None]) ** 2).sum(axis=2) / scale ** 2
    # Half: a centre tells little. But it tells of somebody who falls, whose keypoints are all elsewhere at once.
    by_centre = 0.5 * np.exp(-square / (2 * (CENTRE_SPREAD ** 2 + drift ** 2)))
    alike = np.where((weight > 0).sum(axis=2) >= COMMON_MIN, np.maximum(alike, by_centre), by_centre)
    # A person of another size is another one; not at once, because a part may be all that shows.
    apart = np.log(np.maximum(_scales(people), SCALE_MIN)[None] / scale)
    return alike * np.exp(-0.5 * apart ** 2) / (1 + drift)


def assignment(gain: np.ndarray) -> List[int]:
    """For each row a column, all different, so that the sum of ``gain`` is greatest; (n, m), any numbers.

    Every row gets one, or every column where there are fewer of them: then the other rows get -1.
    """
    rows, columns = gain.shape
    if rows > columns:
        chosen = [-1] * rows
        for column, row in enumerate(assignment(gain.T)):
            chosen[row] = column
        return chosen
    cost = -gain
    # Rows and columns count from 1; column 0 is where the search for a row's column starts.
    row_price, column_price = np.zeros(rows + 1), np.zeros(columns + 1)
    row_of = np.zeros(columns + 1, int)
    for row in range(1, rows + 1):
        row_of[0] = row
        column, least = 0, np.full(columns + 1, np.inf)
        used, before = np.zeros(columns + 1, bool), np.zeros(columns + 1, int)
        while True:
            used[column] = True
            reduced = cost[row_of[column] - 1] - row_price[row_of[column]] - column_price[1:]
            better = np.nonzero(~used[1:] & (reduced < least[1:]))[0] + 1
            least[better] = reduced[better - 1]
            before[better] = column
            following = int(np.argmin(np.where(used, np.inf, least)))
            step = least[following]
            row_price[row_of[used]] += step
            column_price[used] -= step
            least[~used] -= step
            column = following
            if row_of[column] == 0:
                break
        while column:
            row_of[column] = row_of[before[column]]
            column = before[column]
    chosen = [-1] * rows
    for column in range(1, columns + 1):
        if row_of[column]:
            chosen[row_of[column] - 1] = column - 1
    return chosen


def _scales(people: np.ndarray) -> np.ndarray:
    """(n,) half the diagonal of the box of each one's keypoints, in pixels; 0 where there is none."""
    known = people[:, :, 2:] > 0
    low = np.where(known, people[:, :, :2], np.inf).min(axis=1)
    high = np.where(known, people[:, :, :2], -np.inf).max(axis=1)
    return np.where(known.any(axis=(1, 2)), 0.5 * np.hypot(*np.maximum(high - low, 0).T), 0.0)


def _centres(people: np.ndarray) -> np.ndarray:
    """(n, 2) means of the keypoints by confidence."""
    weight = people[:, :, 2]
    return (people[:, :, :2] * weight[:, :, None]).sum(axis=1) / np.maximum(weight.sum(axis=1), 1e-9)[:, None]


def _common(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """(18,) weights of the keypoints that tell how far somebody went: the trunk's, or all where none of it is known."""
    weight = np.sqrt(old[:, 2] * new[:, 2])
    trunk = np.zeros(JOINTS)
    trunk[_TRUNK] = weight[_TRUNK]
    return trunk if trunk.sum() > 0 else weight
