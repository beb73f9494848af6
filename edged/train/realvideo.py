"""Real falls and real daily life: the skeletons of videos of GMDCSA24, with what their authors say happens when.

Source: Alam et al., "GMDCSA-24: A dataset for human fall detection in videos", MIT licence. The skeletons were
extracted with a large OpenPose-type network; people are not tracked there, the camera process' own tracker does that.
"""

import csv
import re
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from edged.camera.recording import Recording
from edged.errors import MissingInput, PackageError

_NAME = re.compile(r"Subject_(\d+)_(Fall|ADL)_(\d+)\.json\.gz")
_SPAN = re.compile(r"([A-Za-z ]+?)\s*(?:\([^)]*\))?\s*\[\s*([\d.]+)\s*to\s*([\d.]+)\s*\]")
FALLING = ("Falling", "Fall")


class Video(NamedTuple):
    """spans : (what its authors call it, from second, to second), in order of time"""

    name: str
    subject: int
    recording: Recording
    spans: Tuple[Tuple[str, float, float], ...]

    @property
    def fall(self) -> Optional[Tuple[float, float]]:
        """When the first fall begins and ends; None where nobody falls."""
        found = [(start, end) for what, start, end in self.spans if what in FALLING]
        return found[0] if found else None


def load(skeletons: Path, tables: Path) -> List[Video]:
    """``skeletons``: Subject_N_Fall_NN.json.gz and the like; ``tables``: SN_Fall.csv and the like.

    Raises MissingInput where there are none, PackageError where a table does not name a video.
    """
    videos, said = [], {}  # type: List[Video], Dict[Tuple[str, str], Dict[str, str]]
    for path in sorted(skeletons.glob("Subject_*.json.gz")):
        match = _NAME.fullmatch(path.name)
        if match is None:
            continue
        subject, kind, number = match.groups()
        if (subject, kind) not in said:
            said[subject, kind] = _table(tables / "S{}_{}.csv".format(subject, kind))
        if number not in said[subject, kind]:
            raise PackageError("{}: no line for {}.mp4".format(tables / "S{}_{}.csv".format(subject, kind), number))
        spans = [(what.strip(), float(start), float(end))
                 for what, start, end in _SPAN.findall(said[subject, kind][number])]
        videos.append(Video(path.name[:-8], int(subject), Recording.load(str(path)),
                            tuple(sorted(spans, key=lambda span: span[1]))))
    if not videos:
        raise MissingInput("{}: no skeletons of GMDCSA24 there".format(skeletons))
    return videos


def _table(path: Path) -> Dict[str, str]:
    """Of each video's number what the last column says."""
    try:
        with open(str(path), newline="", encoding="utf-8", errors="replace") as file:
            rows = list(csv.reader(file))
    except OSError as error:
        raise MissingInput("{}: {}".format(path, error.strerror)) from error
    return {row[0].split(".")[0].strip(): row[-1] for row in rows[1:] if row}


def interval(found: int, count: int, z: float = 1.96) -> Tuple[float, float]:
    """Wilson's 95 % interval of a share. Source: E. B. Wilson, JASA 22 (1927) 209-212."""
    if not count:
        return 0.0, 1.0
    share, more = found / count, z * z / count
    middle = (share + more / 2) / (1 + more)
    half = z * np.sqrt(share * (1 - share) / count + more / (4 * count)) / (1 + more)
    return max(0.0, float(middle - half)), min(1.0, float(middle + half))


def outcome(videos: Sequence[Video], said: Sequence[Sequence[Tuple[float, float]]], threshold: float) -> str:
    """One line: falls that raised an alert, and alarms without a fall. ``said``: of each video (second, probability of
    falling) of its clips."""
    falls = found = alarmed = quiet = 0
    quiet_s = 0.0
    for video, clips in zip(videos, said):
        raised = [at_s for at_s, probability in clips if probability >= threshold]
        if video.fall is None:
            quiet, quiet_s = quiet + 1, quiet_s + video.recording.duration_s
            alarmed += bool(raised)
        else:
            falls += 1
            found += any(at_s >= video.fall[0] for at_s in raised)
            quiet_s += video.fall[0]
    low, high = interval(found, falls)
    return ("{} of {} falls ({:.0%} to {:.0%}); {} of {} videos of daily life alarmed, {:.3f} hours without a fall"
            .format(found, falls, low, high, alarmed, quiet, quiet_s / 3600))
