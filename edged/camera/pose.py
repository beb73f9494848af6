"""People out of heat maps and part affinity fields, in NumPy.

    peaks     of each keypoint's heat map, placed between the cells by a quadratic fit
    links     every pair of peaks that a limb could join is scored by the line integral of its field
    limbs     per limb, best score first, each peak used once
    people    the limbs, best score first over all people, join peaks into people and partial people into one

Source: Cao, Simon, Wei, Sheikh, "Realtime Multi-Person 2D Pose Estimation using Part Affinity Fields", CVPR 2017,
arXiv:1611.08050, section 2; the constants are those of its published code unless a comment says otherwise.
"""

from typing import Dict, List, NamedTuple

import numpy as np

from edged.errors import ShapeError

JOINTS = 18
# COCO-18: 0 nose, 1 neck, 2-4 right arm, 5-7 left arm, 8-10 right leg, 11-13 left leg, 14-15 eyes, 16-17 ears.
# The last two, shoulder to ear, run along others: they join and confirm, but found nobody.
LIMBS = (
    (1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10), (1, 11),
    (11, 12), (12, 13), (1, 0), (0, 14), (14, 16), (0, 15), (15, 17), (2, 16), (5, 17),
)  # fmt: skip
FOUNDING_LIMBS = 17

PEAK_MIN = 0.1
SAMPLES = 10
SAMPLE_MIN = 0.05
SAMPLE_SHARE = 0.8
PARTS_MIN = 5
SCORE_MIN = 0.4
FLOOR = 0.01  # of a heat map's values, for their logarithms
OUTSIDE = -1e9  # below any value
PEAKS_MAX = 40  # of one keypoint; bounds the pairs, and thereby the time, whatever the picture shows

_LIMB_OF = np.full((JOINTS, JOINTS), -1)
for _limb, (_a, _b) in enumerate(LIMBS):
    _LIMB_OF[_a, _b] = _limb


class Peaks(NamedTuple):
    """joint : (P,) int      x, y : (P,) float64, in cells      confidence : (P,) float64, 0..1"""

    joint: np.ndarray
    x: np.ndarray
    y: np.ndarray
    confidence: np.ndarray


class Links(NamedTuple):
    """Pairs of peaks, best first. limb, start, end : (L,) int      score : (L,) float64"""

    limb: np.ndarray
    start: np.ndarray
    end: np.ndarray
    score: np.ndarray


def decode(heat: np.ndarray, paf: np.ndarray, cell: float = 1.0, parts_min: int = PARTS_MIN,
           score_min: float = SCORE_MIN) -> np.ndarray:
    """People of one frame: (people, 18, 3) float32 of x, y in frame pixels and confidence 0..1; missing is 0, 0, 0.

    heat : (18 or more, h, w)      paf : (38, h, w), limb k at 2k (x) and 2k + 1 (y)      cell : frame pixels per cell
    parts_min, score_min : of a person, the fewest keypoints and the least (keypoints' + limbs' scores) / keypoints
    Best person first. Raises ShapeError if the maps do not fit together.
    """
    if heat.ndim != 3 or heat.shape[0] < JOINTS or paf.shape != (2 * len(LIMBS),) + heat.shape[1:]:
        raise ShapeError("heat maps of {} and affinity fields of {}".format(heat.shape, paf.shape))
    peaks = find_peaks(heat[:JOINTS])
    people = assemble(peaks, choose(score_links(peaks, paf)), parts_min, score_min)
    found = np.zeros((len(people), JOINTS, 3), np.float32)
    x = (peaks.x + 0.5) * cell - 0.5
    y = (peaks.y + 0.5) * cell - 0.5
    for row, members in zip(found, people):
        joints = peaks.joint[members]
        row[joints, 0] = np.maximum(x[members], 0)
        row[joints, 1] = np.maximum(y[members], 0)
        row[joints, 2] = peaks.confidence[members]
    return found


def find_peaks(heat: np.ndarray) -> Peaks:
    """Local maxima of at least PEAK_MIN among their eight neighbours; of a plateau, one cell. heat : (18, h, w)"""
    joints, height, width = heat.shape
    padded = np.full((joints, height + 2, width + 2), OUTSIDE, np.float32)
    padded[:, 1:-1, 1:-1] = heat
    centre = padded[:, 1:-1, 1:-1]
    best = centre >= PEAK_MIN
    # Strict one way and not the other: of two equal neighbours the first one wins.
    for down, right in ((0, 1), (1, -1), (1, 0), (1, 1)):
        best &= centre >= padded[:, 1 + down:1 + down + height, 1 + right:1 + right + width]
        best &= centre > padded[:, 1 - down:1 - down + height, 1 - right:1 - right + width]
    joint, row, column = np.nonzero(best)
    value = heat[joint, row, column]
    keep = _strongest(joint, value)
    joint, row, column, value = joint[keep], row[keep], column[keep], value[keep]
    x = column + _vertex(padded, joint, row, column, 0, 1)
    y = row + _vertex(padded, joint, row, column, 1, 0)
    return Peaks(joint, x, y, np.clip(value, 0, 1).astype(np.float64))


def score_links(peaks: Peaks, paf: np.ndarray) -> Links:
    """Each pair of peaks that a limb may join, and whose field says so, by the field's mean along the line.

    Sampled at SAMPLES points; accepted where SAMPLE_SHARE of them exceed SAMPLE_MIN and the mean less the
    penalty of a line longer than half the maps' height is above 0.
    """
    limb = _LIMB_OF[peaks.joint[:, None], peaks.joint[None, :]]
    start, end = np.nonzero(limb >= 0)
    limb = limb[start, end]
    dx, dy = peaks.x[end] - peaks.x[start], peaks.y[end] - peaks.y[start]
    length = np.hypot(dx, dy) + 1e-9
    step = np.linspace(0, 1, SAMPLES)
    along = _sample(paf, limb, peaks.x[start, None] + dx[:, None] * step, peaks.y[start, None] + dy[:, None] * step)
    along = along[0] * (dx / length)[:, None] + along[1] * (dy / length)[:, None]
    score = along.mean(axis=1) + np.minimum(0.5 * paf.shape[1] / length - 1, 0)
    accepted = ((along > SAMPLE_MIN).mean(axis=1) >= SAMPLE_SHARE) & (score > 0)
    order = np.nonzero(accepted)[0]
    order = order[np.argsort(-score[order], kind="stable")]
    return Links(limb[order], start[order], end[order], score[order])


def choose(links: Links) -> Links:
    """Of each limb the best links, no peak in two links of one limb."""
    taken = set()
    kept = []
    for index, (limb, start, end) in enumerate(zip(links.limb.tolist(), links.start.tolist(), links.end.tolist())):
        if (limb, start) not in taken and (limb, end) not in taken:
            taken.update(((limb, start), (limb, end)))
            kept.append(index)
    return Links(*(column[kept] for column in links))


def assemble(peaks: Peaks, links: Links, parts_min: int, score_min: float) -> List[List[int]]:
    """People as lists of peaks, best first: a peak in at most one person, a person with at most one peak a keypoint."""
    joint, confidence = peaks.joint.tolist(), peaks.confidence.tolist()
    people = {}  # type: Dict[int, _Person]
    owner = {}  # type: Dict[int, int]
    rows = list(zip(links.limb.tolist(), links.start.tolist(), links.end.tolist(), links.score.tolist()))
    founding = [row for row in rows if row[0] < FOUNDING_LIMBS]
    for limb, start, end, score in founding + [row for row in rows if row[0] >= FOUNDING_LIMBS]:
        first, second = owner.get(start), owner.get(end)
        if first is None and second is None:
            if limb < FOUNDING_LIMBS:
                people[start] = _Person({joint[start]: start, joint[end]: end}, score)
                owner[start] = owner[end] = start
        elif first is None or second is None:
            new, home = (start, second) if first is None else (end, first)
            if joint[new] not in people[home].parts:
                people[home].parts[joint[new]] = new
                people[home].links += score
                owner[new] = home
        elif first == second:
            people[first].links += score
        elif not set(people[first].parts) & set(people[second].parts):
            joined = people.pop(second)
            people[first].parts.update(joined.parts)
            people[first].links += joined.links + score
            owner.update((peak, first) for peak in joined.parts.values())
    ranked = []
    for person in people.values():
        members = list(person.parts.values())
        total = person.links + sum(confidence[peak] for peak in members)
        if len(members) >= parts_min and total >= score_min * len(members):
            ranked.append((-total, members))
    return [members for _, members in sorted(ranked)]


class _Person:
    def __init__(self, parts: Dict[int, int], links: float) -> None:
        self.parts = parts  # keypoint -> peak
        self.links = links  # sum of the links' scores


def _strongest(joint: np.ndarray, value: np.ndarray) -> np.ndarray:
    if len(joint) == 0 or np.bincount(joint).max() <= PEAKS_MAX:
        return np.arange(len(joint))
    order = np.lexsort((-value, joint))
    place = np.arange(len(order)) - np.searchsorted(joint[order], joint[order])
    return np.sort(order[place < PEAKS_MAX])


def _vertex(padded: np.ndarray, joint: np.ndarray, row: np.ndarray, column: np.ndarray, down: int,
            right: int) -> np.ndarray:
    """Where, within half a cell, a parabola through the logarithms of a peak and its two neighbours has its top.

    Of a Gaussian, which is what the network was taught to draw, that is the exact place. At the rim, where one
    neighbour is missing, the cell's own centre.
    """
    before, here, after = (
        padded[joint, 1 + row + k * down, 1 + column + k * right].astype(np.float64) for k in (-1, 0, 1))
    inside = (before > OUTSIDE) & (after > OUTSIDE)
    before, here, after = (np.log(np.maximum(value, FLOOR)) for value in (before, here, after))
    bend = np.maximum(2 * here - before - after, 1e-6)
    return np.where(inside, np.clip((after - before) / (2 * bend), -0.5, 0.5), 0.0)


def _sample(paf: np.ndarray, limb: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Both channels of each pair's limb at its points, bilinear. x, y : (L, S) in cells      returns (2, L, S)"""
    _, height, width = paf.shape
    x, y = np.clip(x, 0, width - 1), np.clip(y, 0, height - 1)
    left = np.minimum(x.astype(np.intp), max(width - 2, 0))
    top = np.minimum(y.astype(np.intp), max(height - 2, 0))
    right_share, low_share = x - left, y - top
    # With one row or one column only the neighbour is the cell itself.
    right, below = min(1, width - 1), min(1, height - 1) * width
    flat = paf.reshape(len(LIMBS), 2, height * width)
    index = top * width + left
    limb = limb[:, None]
    corners = np.stack([flat[limb, :, index + offset] for offset in (0, right, below, below + right)])
    weights = np.stack([(1 - right_share) * (1 - low_share), right_share * (1 - low_share),
                        (1 - right_share) * low_share, right_share * low_share])
    return np.moveaxis((corners * weights[..., None]).sum(axis=0), -1, 0)
