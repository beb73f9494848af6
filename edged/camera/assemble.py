"""Tracks become clips: which, when, and resampled how.

- A clip covers the last T frames at ``rate`` a second of *claimed* time (300 at 30/s: ten seconds), ending with the
  last frame seen. Each joint is interpolated linearly between its two neighbouring sightings where they lie at most
  0.5 s apart; elsewhere, and before a track began and after it was last seen, it is missing: 0, 0, 0.
- Coordinates are x / width - 0.5, y / height - 0.5 and the confidence.
- Every ``hop_s`` each track that was seen since the hop before is in exactly one clip, once it fills at least as many
  frames of it as make a second (30). Shorter ones wait; one that ends without ever having been long enough is counted.
- People who were near each other in the last three seconds share a clip, up to M persons: what they do, they may do to
  each other. Everybody else has a clip alone, so that an alert names whom it is about. Who shared one a hop ago may be
  a little farther apart: nobody is moved from clip to clip by a shaky joint. Where clips are dear, all may be put into
  as few as hold them instead, the closest together: then an alert names somebody who was far away, too. Within a clip
  tracks stand in the order of their numbers. An empty scene gives no clip.
- Time that stands still or goes back a little: the frame is left out. A clock that was set (back, or apart from
  ``steady_s``; without that, forth by more than a window): windows begin anew, and the caller is told.
- Memory: at most ``TRACKS_MAX`` tracks, those seen last; of each no more than one sighting for half a frame of the
  clip, and none older than the window and the gap that may be bridged into it.
"""

from typing import Collection, Dict, List, NamedTuple, Optional, Sequence, Set, Tuple

import numpy as np

from edged.camera.clip import Clip, fixed_point
from edged.errors import ShapeError

GAP_S = 0.5       # farther apart, two sightings say nothing of what lay between
JUMP_S = 0.5      # what a clock that is merely disciplined never moves at once
LONG_ENOUGH_S = 1.0
TRACKS_MAX = 64
TOGETHER_S = 3.0
NEAR = 1.0        # bodies between the middles of two people: beyond, neither reaches the other
ALIKE = 1.7       # times as large in the picture: who is larger is nearer to the camera
STAY = 0.8        # of both distances, for two who shared a clip a hop ago
ELSEWHERE = 1e9   # bodies: never seen at the same time, or one far behind the other
_SAME_S = 1e-5    # Unix time in float64 steps by 2.4e-7 s


class Counts(NamedTuple):
    """Since the beginning. short: tracks that ended before they were long enough; crowded: sightings beyond the bound;
    late: frames left out because time stood still or went back."""

    short: int = 0
    crowded: int = 0
    late: int = 0


class _Track:
    """Sightings of one person; one that comes within ``apart_s`` of the last but one takes the place of the last."""

    def __init__(self, apart_s: float) -> None:
        self._apart_s = apart_s
        self.times: List[float] = []
        self.joints: List[np.ndarray] = []  # each (V, 3): normalised, missing 0
        self.evaluated = False

    def add(self, time_s: float, joints: np.ndarray) -> None:
        if len(self.times) > 1 and self.times[-1] - self.times[-2] < self._apart_s:
            self.times.pop()
            self.joints.pop()
        self.times.append(time_s)
        self.joints.append(joints)

    def forget_before(self, time_s: float) -> None:
        old = int(np.searchsorted(self.times, time_s))
        del self.times[:old]
        del self.joints[:old]

    def resampled(self, at: np.ndarray) -> np.ndarray:
        """(T, V, 3) float64 at the times ``at`` (T,)."""
        times, joints = np.array(self.times), np.stack(self.joints)
        made = np.zeros((len(at),) + joints.shape[1:])
        for joint in range(joints.shape[1]):
            seen = joints[:, joint, 2] > 0
            if seen.any():
                made[:, joint] = _interpolated(times[seen], joints[seen, joint], at)
        return made


def _interpolated(times: np.ndarray, values: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Values (N, 3) seen at ``times`` (N,), at other times (T,): (T, 3), 0 where nothing is known."""
    last = len(times) - 1
    before = np.clip(np.searchsorted(times, at + _SAME_S, side="right") - 1, 0, last)
    after = np.minimum(before + 1, last)
    since = at - times[before]
    gap = times[after] - times[before]
    between = (since >= 0) & (gap > 0) & (gap <= GAP_S + _SAME_S) & (since <= gap)
    weight = np.where(between, since / np.where(gap > 0, gap, 1), 0)[:, None]
    made = values[before] * (1 - weight) + values[after] * weight
    made[~(between | (np.abs(since) <= _SAME_S))] = 0
    return made


class Assembler:
    """One camera's tracks. frames, persons, joints, rate: what the model takes; camera: 32 bytes; near: only people
    near each other share a clip."""

    def __init__(self, camera: bytes, frames: int = 300, persons: int = 2, joints: int = 18, rate: float = 30.0,
                 hop_s: float = 1.0, near: bool = True) -> None:
        self._camera, self._persons, self._joints = camera, persons, joints
        self._hop_s = hop_s
        self._near = near
        self._groups: List[Tuple[int, ...]] = []  # of the last hop
        # Ends with 0: the last frame is sampled where it is.
        self._back_s = np.arange(frames - 1, -1, -1) / rate
        self._window_s = frames / rate
        self._together = int(np.ceil(TOGETHER_S * rate))
        self._apart_s = 0.5 / rate
        self._least = min(frames, int(np.ceil(LONG_ENOUGH_S * rate)))
        self._tracks: Dict[int, _Track] = {}
        self._origin_s: Optional[float] = None  # so that float64 keeps its precision
        self._now_s = 0.0
        self._steady_s: Optional[float] = None
        self._hop_from_s = -1.0
        self._hop_due_s = 0.0
        self._aspect = 1.0
        self.counts = Counts()

    @property
    def waiting(self) -> int:
        """Tracks in sight that are not long enough yet."""
        return sum(1 for track in self._tracks.values() if not track.evaluated)

    def add(self, time_s: float, width: int, height: int, people: Sequence[Tuple[int, np.ndarray]],
            steady_s: Optional[float] = None) -> Optional[float]:
        """One frame: when it was taken (Unix), its size, and (track, (V, 3) x, y in pixels, confidence) of each person.

        steady_s : the same moment by a clock that nobody sets; it tells a set clock from a camera that paused.
        Returns None, or by how many seconds the clock was found set; then all windows have begun anew.
        Raises ShapeError for a person of another number of joints.
        """
        jump_s = self._jump_s(time_s, steady_s)
        if jump_s is not None:
            self.restart()
        if self._origin_s is None:
            self._origin_s = time_s
            self._hop_due_s = self._hop_s
        elif time_s - self._origin_s <= self._now_s:
            self.counts = self.counts._replace(late=self.counts.late + 1)
            return jump_s
        self._now_s = time_s - self._origin_s
        self._steady_s = steady_s
        self._aspect = width / height
        self._forget()
        for number, joints in people:
            track = self._tracks.get(number) or self._begin(number)
            if track is not None:
                track.add(self._now_s, self._normalised(joints, width, height))
        return jump_s

    def due(self, now_s: float) -> List[Clip]:
        """The clips of this hop, if it is complete at ``now_s`` (Unix), and so far nothing of it was given."""
        if self._origin_s is None or now_s - self._origin_s < self._hop_due_s - _SAME_S:
            return []
        passed = np.floor((now_s - self._origin_s - self._hop_due_s + _SAME_S) / self._hop_s) + 1
        self._hop_due_s += self._hop_s * float(passed)
        return self.rest()

    def rest(self) -> List[Clip]:
        """The clips of an unfinished hop: for the end of a recording."""
        if self._origin_s is None:
            return []
        from_s, self._hop_from_s = self._hop_from_s, self._now_s
        at = self._now_s - self._back_s
        shown: Dict[int, np.ndarray] = {}
        for number, track in self._tracks.items():
            if track.times[-1] <= from_s:
                continue
            made = track.resampled(at)
            if int((made[..., 2] > 0).any(axis=1).sum()) >= self._least:
                track.evaluated = True
                shown[number] = made
        claimed_ns = int(round((self._origin_s + self._now_s) * 1e9))
        self._groups = groups(shown, self._persons, self._aspect, self._together, self._near, self._groups)
        return [self._clip(group, shown, claimed_ns) for group in self._groups]

    def restart(self) -> None:
        """Forget all that was seen; what comes next has no past."""
        for number in list(self._tracks):
            self._end(number)
        self._origin_s = self._steady_s = None
        self._now_s, self._hop_from_s = 0.0, -1.0
        self._groups = []

    def _jump_s(self, time_s: float, steady_s: Optional[float]) -> Optional[float]:
        if self._origin_s is None:
            return None
        moved_s = time_s - self._origin_s - self._now_s
        if steady_s is not None and self._steady_s is not None:
            apart_s = moved_s - (steady_s - self._steady_s)
            return apart_s if abs(apart_s) > JUMP_S else None
        return moved_s if moved_s < -JUMP_S or moved_s > self._window_s else None

    def _normalised(self, joints: np.ndarray, width: int, height: int) -> np.ndarray:
        if joints.shape != (self._joints, 3):
            raise ShapeError("a person of {}, not ({}, 3)".format(joints.shape, self._joints))
        made = np.asarray(joints, np.float64) / (width, height, 1.0) - (0.5, 0.5, 0.0)
        made[~(np.isfinite(made).all(axis=1) & (made[:, 2] > 0))] = 0
        return made

    def _begin(self, number: int) -> Optional[_Track]:
        if len(self._tracks) >= TRACKS_MAX:
            oldest = min(self._tracks, key=lambda known: self._tracks[known].times[-1])
            if self._tracks[oldest].times[-1] >= self._now_s:  # all are in this very frame
                self.counts = self.counts._replace(crowded=self.counts.crowded + 1)
                return None
            self._end(oldest)
        track = self._tracks[number] = _Track(self._apart_s)
        return track

    def _forget(self) -> None:
        for number, track in list(self._tracks.items()):
            # One sighting before the window is needed to interpolate its first frame.
            track.forget_before(self._now_s - self._window_s - GAP_S)
            if not track.times:
                self._end(number)

    def _end(self, number: int) -> None:
        if not self._tracks.pop(number).evaluated:
            self.counts = self.counts._replace(short=self.counts.short + 1)

    def _clip(self, group: Tuple[int, ...], shown: Dict[int, np.ndarray], claimed_ns: int) -> Clip:
        coordinates = fixed_point(np.stack([shown[number] for number in group]))
        coordinates[coordinates[..., 2] == 0] = 0
        return Clip(coordinates, tuple(number & 0xFFFFFFFF for number in group), claimed_ns, self._camera)


def groups(shown: Dict[int, np.ndarray], persons: int, aspect: float, together: int = 90, near: bool = True,
           before: Collection[Tuple[int, ...]] = ()) -> List[Tuple[int, ...]]:
    """All tracks in groups of up to ``persons`` of whom each is near another: the closest two first, then whoever is
    closest to one of them.

    shown    : (T, V, 3) by track      together : of how many last frames nearness is judged
    near     : False makes groups as few as hold all, the closest together
    before   : the groups of a hop ago
    """
    numbers = sorted(shown)
    shared = {(one, other) for group in before for one in group for other in group}
    apart = _apart(numbers, [_Figure(shown[number][-together:], aspect) for number in numbers], shared)
    reach = NEAR if near else ELSEWHERE
    left = list(range(len(numbers)))
    made: List[Tuple[int, ...]] = []
    while left:
        group = [left[0]]
        inner = apart[np.ix_(left, left)]
        if persons > 1 and inner.min() <= reach:
            group = [left[place] for place in np.unravel_index(int(np.argmin(inner)), inner.shape)]
            while len(group) < min(persons, len(left)):
                others = [one for one in left if one not in group]
                gap, closest = min((min(apart[one, known] for known in group), one) for one in others)
                if gap > reach:
                    break
                group.append(closest)
        made.append(tuple(numbers[one] for one in sorted(group)))
        left = [one for one in left if one not in group]
    return made


class _Figure:
    """One person of a clip: the middle of the joints in each frame, NaN where none is seen, and the size, both in
    heights of the picture. The size is what the joints span, corner to corner: lying, people are as long as standing.
    """

    def __init__(self, frames: np.ndarray, aspect: float) -> None:
        seen = frames[..., 2] > 0
        count = seen.sum(axis=1)
        places = frames[..., :2] * (aspect, 1.0)
        self.middle = (places * seen[..., None]).sum(axis=1) / np.where(count > 0, count, np.nan)[:, None]
        low = np.where(seen[..., None], places, np.inf).min(axis=1)[count > 0]
        high = np.where(seen[..., None], places, -np.inf).max(axis=1)[count > 0]
        # Now and then only a part of somebody is found, never more than there is.
        self.size = float(np.quantile(np.hypot(*(high - low).T), 0.9)) if len(low) else 0.0


def _apart(numbers: List[int], figures: List[_Figure], shared: Set[Tuple[int, int]]) -> np.ndarray:
    """(N, N): how many bodies (the larger one's) lie between two people while both are seen, in the median; ELSEWHERE
    to whom was never seen at the same time, and to whom stands elsewhere behind or before; infinite to oneself.

    shared : pairs of numbers that were in one clip a hop ago
    """
    made = np.full((len(figures), len(figures)), np.inf)
    for one, figure in enumerate(figures):
        for other, second in enumerate(figures[:one]):
            stays = STAY if (numbers[one], numbers[other]) in shared else 1.0
            large, small = max(figure.size, second.size), min(figure.size, second.size)
            between = np.hypot(*(figure.middle - second.middle).T)
            between = between[np.isfinite(between)]
            gap = ELSEWHERE
            if len(between) and 0 < stays * large <= ALIKE * small:
                gap = stays * float(np.median(between)) / large
            made[one, other] = made[other, one] = gap
    return made
