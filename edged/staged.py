"""What is known to happen in a rendered video: the truth beside edged/bundled/sample.mp4, as `edged-owner train sample`
writes it.

    {"schema": 1, "seed": 5, "fps": 15.0, "frames": 450, "width": 960, "height": 540,
     "events": [{"label": "falling", "person": 2, "start_s": 12.0, "end_s": 13.3}],
     "box": ["time_s", "left", "top", "right", "bottom"],
     "people": [{"person": 0, "boxes": [[0.0, 12, 80, 66, 240]]}]}

Boxes go from head to foot, in pixels, twice a second while somebody is in the picture. For the demo, which compares
what the city was told, and for tests: nothing of it gets near a node.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

from edged.errors import MissingInput, PackageError

SCHEMA = 1
FOLDER = Path(__file__).resolve().parent / "bundled"
VIDEO, TRUTH = "sample.mp4", "sample.json"
_NEAR_S = 0.6  # from a box to the next, and a little

Box = Tuple[float, float, float, float, float]  # time_s, left, top, right, bottom


@dataclass(frozen=True)
class Happening:
    """What one person does between two moments, seconds after the video's first picture."""

    label: str
    person: int
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Staged:
    """events : in the order of the file      boxes : of each person, by time"""

    seed: int
    fps: float
    frames: int
    width: int
    height: int
    events: Tuple[Happening, ...]
    boxes: Dict[int, Tuple[Box, ...]]

    def of(self, label: str) -> List[Happening]:
        return [event for event in self.events if event.label == label]

    def box(self, person: int, time_s: float) -> Optional[Box]:
        """The box nearest in time, None where the person is not in the picture then."""
        near = min(self.boxes.get(person, ()), key=lambda box: abs(box[0] - time_s), default=None)
        return near if near is not None and abs(near[0] - time_s) <= _NEAR_S else None

    def nearest(self, time_s: float, x: float, y: float) -> Optional[int]:
        """Whose box's centre is the nearest to a place in the picture, of those that are no farther than their own
        size."""
        found = []
        for person in self.boxes:
            box = self.box(person, time_s)
            if box is not None:
                away = math.hypot(x - 0.5 * (box[1] + box[3]), y - 0.5 * (box[2] + box[4]))
                if away <= math.hypot(box[3] - box[1], box[4] - box[2]):
                    found.append((away, person))
        return min(found)[1] if found else None


def load(path: Path) -> Staged:
    """Raises MissingInput where there is no such file, PackageError where it is not of this form."""
    try:
        said: Any = json.loads(path.read_text(encoding="utf-8"))
        if said["schema"] != SCHEMA:
            raise PackageError("{}: schema {!r}: this release reads {}".format(path, said["schema"], SCHEMA))
        events = tuple(Happening(str(event["label"]), int(event["person"]), float(event["start_s"]),
                                 float(event["end_s"])) for event in said["events"])
        boxes: Dict[int, Tuple[Box, ...]] = {}
        for one in said["people"]:
            rows = [tuple(float(value) for value in row) for row in one["boxes"]]
            boxes[int(one["person"])] = tuple((row[0], row[1], row[2], row[3], row[4]) for row in rows)
        return Staged(int(said["seed"]), float(said["fps"]), int(said["frames"]), int(said["width"]),
                      int(said["height"]), events, boxes)
    except OSError as error:
        raise MissingInput("{}: {}".format(path, error.strerror)) from error
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise PackageError("{}: not the truth of a rendered video: {!r}".format(path, error)) from error
