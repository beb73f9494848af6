"""What a person sees of a subscriber's events: every one that is news.

An alert that goes on comes again with every clip, as an Update. It is news where its Alert was never shown (withheld,
or before this screen began), where it tells of somebody new, and every ten seconds: it may be another fall of the same
people, or numbers of tracks that a camera gave anew. Else it says what is on the screen already.
"""

import json
from collections import OrderedDict
from typing import Any, Dict, List, Optional, Sequence, Tuple

from edged.alerts import reports, skeletons
from edged.alerts.record import Observation
from edged.alerts.reports import Received
from edged.alerts.skeletons import SkeletonFolder
from edged.enclave.wire import MessageType, RecordKind

_REMEMBERED = 4096  # ongoing alerts; a forgotten one is shown again
AGAIN_NS = 10 * 10 ** 9  # a clip's length


class _Shown:
    """When an alert was last shown, by both clocks, and with whom since it began."""

    def __init__(self) -> None:
        self.people: Any = set()
        self.received_ns = self.claimed_ns = 0


class Screen:
    """everything: routine records, too      as_json: one object for each event, all of them
    folder: where the skeletons of records lie, which the objects name then"""

    def __init__(self, as_json: bool = False, everything: bool = False,
                 folder: Optional[SkeletonFolder] = None) -> None:
        self._as_json, self._everything, self._folder = as_json, everything, folder
        self._shown: "OrderedDict[Tuple[Any, ...], _Shown]" = OrderedDict()  # by alert

    def lines(self, events: Sequence[Any], now_ns: int) -> List[str]:
        if self._as_json:
            return [json.dumps(dict({"time": reports.iso(now_ns)}, **self._line(event))) for event in events]
        return [reports.text(event, now_ns) for event in events
                if self._is_news(event) or self._everything]

    def _line(self, event: Any) -> Dict[str, Any]:
        shown = reports.line(event)
        if self._folder is not None and skeletons.of(event) is not None:
            shown["skeletons"]["file"] = str(self._folder.path(event))
        return shown

    def _is_news(self, event: Any) -> bool:
        if not isinstance(event, Received) or not isinstance(event.record, Observation):
            return not reports.routine(event)
        news = event.record.kind == RecordKind.FAILED
        for alert in event.record.alerts:
            if alert.message == MessageType.NONE:
                continue
            name = (event.node, event.record.header.epoch, event.record.camera, alert.rule, alert.event)
            shown = self._shown.setdefault(name, _Shown())
            self._shown.move_to_end(name)
            if alert.message != MessageType.UPDATE or set(event.record.tracks) - shown.people or abs(
                    event.received_ns - shown.received_ns) >= AGAIN_NS or abs(
                    event.record.claimed_ns - shown.claimed_ns) >= AGAIN_NS:
                news = True
                shown.received_ns, shown.claimed_ns = event.received_ns, event.record.claimed_ns
            shown.people.update(event.record.tracks)
        while len(self._shown) > _REMEMBERED:
            self._shown.popitem(last=False)
        return news
