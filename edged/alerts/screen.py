"""What a person sees of a subscriber's events: every one that is news, once.

An alert that goes on comes again with every clip, as an Update. It is news where its Alert was never shown (withheld,
or before this screen began) or where it tells of somebody new; else it says what is on the screen already.
"""

import json
from collections import OrderedDict
from typing import Any, List, Sequence, Set, Tuple

from edged.alerts import reports
from edged.alerts.record import Observation
from edged.alerts.reports import Received
from edged.enclave.wire import MessageType, RecordKind

_REMEMBERED = 4096  # ongoing alerts; a forgotten one is shown again


class Screen:
    """everything: routine records, too      as_json: one object for each event, all of them"""

    def __init__(self, as_json: bool = False, everything: bool = False) -> None:
        self._as_json, self._everything = as_json, everything
        self._shown: "OrderedDict[Tuple[Any, ...], Set[int]]" = OrderedDict()  # alert -> people it was shown with

    def lines(self, events: Sequence[Any], now_ns: int) -> List[str]:
        if self._as_json:
            return [json.dumps(dict({"time": reports.iso(now_ns)}, **reports.line(event))) for event in events]
        return [reports.text(event, now_ns) for event in events
                if self._is_news(event) or self._everything]

    def _is_news(self, event: Any) -> bool:
        if not isinstance(event, Received) or not isinstance(event.record, Observation):
            return not reports.routine(event)
        news = event.record.kind == RecordKind.FAILED
        for alert in event.record.alerts:
            if alert.message == MessageType.NONE:
                continue
            name = (event.node, event.record.header.epoch, event.record.camera, alert.rule, alert.event)
            people = self._shown.setdefault(name, set())
            self._shown.move_to_end(name)
            if alert.message != MessageType.UPDATE or not people or set(event.record.tracks) - people:
                news = True
            people.update(event.record.tracks or (0,))
        while len(self._shown) > _REMEMBERED:
            self._shown.popitem(last=False)
        return news
