"""What the subscriber knows of a node, and what one turn of its loop brings about.

Bookkeeping alone: what it means is decided in subscriber.py.
"""

from collections import OrderedDict
from typing import Any, Dict, List, Optional, Tuple

from edged.alerts import delivery
from edged.alerts.journal import NodeRow
from edged.alerts.liveness import Liveness
from edged.alerts.nodes import Listed
from edged.alerts.sequence import EpochState, Sequence


class Run:
    """A peer's records, as it counts them. due : the next number; None once one was missing."""

    def __init__(self, run: bytes, due: Optional[int]) -> None:
        self.run, self.due = run, due


class Node:
    """What is known of one listed node."""

    def __init__(self, listed: Listed, liveness: Liveness) -> None:
        self.listed, self.liveness = listed, liveness
        self.peer: Optional[bytes] = None  # the last that spoke
        self.runs: "OrderedDict[bytes, Run]" = OrderedDict()  # by peer
        self.row: Optional[NodeRow] = None
        self.sequence: Optional[Sequence] = None
        self.beacon_ns = 0
        # Of the row's epochs: when the first record of this start came, and when a beacon was sent last.
        self.came: Dict[bytes, float] = {}
        self.asked: Dict[bytes, float] = {}
        self.skewed = False


class Refused(Exception):
    """A record was not taken; ``event`` says why."""

    def __init__(self, event: Any) -> None:
        super().__init__(event)
        self.event = event


class Turn:
    """What one turn brings about: events, and what the journal has to hold before anything is acknowledged."""

    def __init__(self) -> None:
        self.events: List[Any] = []
        self.sealed: Dict[int, Tuple[bytes, bytes]] = {}  # of events by their index: the record, agreement's digest
        self.epochs: Dict[Tuple[bytes, bytes], EpochState] = {}
        self.rows: Dict[str, NodeRow] = {}
        self.answers: List[Tuple[bytes, List[bytes]]] = []
        self.acks: Dict[bytes, List[delivery.Name]] = {}
        self.refusals: Dict[bytes, List[delivery.Name]] = {}
