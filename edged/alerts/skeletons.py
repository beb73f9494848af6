"""The skeletons that records tell of, for the city's consumer: a file for each such record, whole and on the disk
before the record is acknowledged.

One JSON object: who sealed it, which clip of which camera, the rules that say Alert or Update of it, and

    skeletons   [person][frame][joint] of [x, y], in the order of `tracks`, in units of the camera's picture as the
                clip had them: 0 to 1 is the picture itself

A record that is passed on again, after a kill, gives the same file again. Whoever has read a file may delete it.
"""

import json
import os
import struct
from pathlib import Path
from typing import Any, Dict, List, Optional

from edged.alerts import reports
from edged.alerts.record import Observation, Skeletons
from edged.alerts.reports import Received
from edged.enclave.wire import MessageType
from edged.errors import SpoolError
from edged.placing import replace_file

ONE = 16384  # Q14
DECIMALS = 5  # nearer to n / ONE than half the way to the next: what is read is exact


def of(event: Any) -> Optional[Skeletons]:
    return event.record.skeletons if isinstance(event, Received) and isinstance(event.record, Observation) else None


def positions(skeletons: Skeletons) -> List[Any]:
    """[person][frame][joint] of [x, y]"""
    values = iter(struct.unpack("<{}h".format(len(skeletons.xy) // 2), skeletons.xy))

    def position() -> List[float]:
        return [round(next(values) / ONE, DECIMALS), round(next(values) / ONE, DECIMALS)]

    return [[[position() for _ in range(skeletons.joints)] for _ in range(skeletons.frames)]
            for _ in range(skeletons.persons)]


class SkeletonFolder:
    """path : a folder that is there, or is made, readable by its user alone. Raises SpoolError where it cannot be."""

    def __init__(self, path: str) -> None:
        self._folder = Path(os.path.abspath(path))
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            writable = os.access(str(self._folder), os.W_OK | os.X_OK)
        except OSError as error:
            raise self._fault(error) from error
        if not writable:
            raise self._fault("permission denied")

    def keep(self, event: Received) -> None:
        """For ``Subscriber.on_record``. Raises SpoolError; then the record is not acknowledged and comes again."""
        skeletons = of(event)
        if skeletons is None:
            return
        try:
            replace_file(self.path(event), json.dumps(_content(event, skeletons)).encode("ascii"))
        except OSError as error:
            raise self._fault(error) from error

    def path(self, event: Received) -> Path:
        """Of this record alone: a recipient's numbers rise in an epoch, and epochs are random."""
        header = event.record.header
        return self._folder / "{}-{}.json".format(header.epoch.hex(), header.seq)

    def _fault(self, reason: Any) -> SpoolError:
        return SpoolError("{}: skeletons cannot be written: {}: nothing of them is acknowledged: make room, or name "
                          "another folder".format(self._folder, reason))


def _content(event: Received, skeletons: Skeletons) -> Dict[str, Any]:
    record = event.record
    return {
        "node": event.node, "camera": reports.camera_name(record.camera), "epoch": record.header.epoch.hex(),
        "seq": record.header.seq, "clip": record.number, "claimed_time": reports.iso(record.claimed_ns),
        "status": record.status.name.capitalize(),
        "labels": [event.labels[alert.rule] for alert in record.alerts
                   if alert.message in (MessageType.ALERT, MessageType.UPDATE)],
        "tracks": list(record.tracks), "frames": skeletons.frames, "joints": skeletons.joints,
        "skeletons": positions(skeletons),
    }
