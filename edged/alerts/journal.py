"""The subscriber's own memory: what came, from whom, and what is owed; a SQLite file.

    log       every event in the order in which it is passed on: records decrypted (as JSON) and as they came,
              gaps, replays, silences; its row numbers rise for ever
    cursor    the last row that the consumer is known to have taken
    epoch     alerts/sequence.py's EpochState, of each node
    node      the enclave that a listed name was first seen with, and what its next beacons need

What belongs together is one transaction, with full synchronisation, before a record is acknowledged: a subscriber
that is killed at any moment passes on each event after its restart, and a record that it had counted never again.
"""

import json
from typing import Any, Dict, Iterable, List, NamedTuple, Optional, Sequence, Tuple

import cbor2

from edged.alerts.living import Epochs, Living
from edged.alerts.sequence import EpochState, Follower, OpenGap, Under
from edged.alerts.spool import Database

_PRUNE_EVERY_ROWS = 1000


class NodeRow(NamedTuple):
    """node : the enclave's name, 16 bytes. epochs : that may be alive, one at least (alerts/living.py)
    beacon_ns : of the last beacon that it answered"""

    name: str
    node: bytes
    epochs: Epochs
    beacon_ns: int

    @property
    def current(self) -> Living:
        return self.epochs[0]


class Entry(NamedTuple):
    """One row of the log. content : what the event is rebuilt from; sealed : of a record, as it came."""

    kind: str
    content: Dict[str, Any]
    line: Dict[str, Any]
    sealed: Optional[bytes] = None


class Journal(Database):
    """Of one subscriber, which is one process."""

    application = 0x4544474A
    version = 4
    upgrades = {
        1: "ALTER TABLE epoch ADD COLUMN under BLOB NOT NULL DEFAULT x'a0'",  # the empty map of CBOR
        2: "SELECT 1",  # its values have more in them since: shorter ones are read as before
        3: "ALTER TABLE node ADD COLUMN others BLOB NOT NULL DEFAULT x'80'",  # the empty array of CBOR
    }
    schema = """
        CREATE TABLE log (
            row INTEGER PRIMARY KEY AUTOINCREMENT,
            kind TEXT NOT NULL,
            content BLOB NOT NULL,
            line TEXT NOT NULL,
            sealed BLOB
        );

        CREATE TABLE cursor (row INTEGER NOT NULL);

        INSERT INTO cursor VALUES (0);

        CREATE TABLE node (
            name TEXT PRIMARY KEY,
            node BLOB NOT NULL UNIQUE,
            salt BLOB NOT NULL,
            epoch BLOB NOT NULL,
            digests BLOB NOT NULL,
            beacon_ns INTEGER NOT NULL,
            others BLOB NOT NULL
        );

        CREATE TABLE epoch (
            node BLOB NOT NULL,
            epoch BLOB NOT NULL,
            counter INTEGER,
            began INTEGER NOT NULL,
            high INTEGER NOT NULL,
            named INTEGER NOT NULL,
            closed INTEGER,
            spoken INTEGER NOT NULL,
            rolled INTEGER NOT NULL,
            gaps TEXT NOT NULL,
            under BLOB NOT NULL,
            PRIMARY KEY (node, epoch)
        )"""

    def __init__(self, path: str, keep_rows: int) -> None:
        self.keep_rows = keep_rows
        self._pruned = 0
        super().__init__(path)

    def write(self, entries: Sequence[Entry], epochs: Iterable[Tuple[bytes, EpochState]] = (),
              nodes: Iterable[NodeRow] = (), taken: Optional[int] = None) -> List[int]:
        """All of it or none; the row of each entry. taken : the consumer has had the rows up to this one."""
        rows = []
        with self._writing() as base:
            for entry in entries:
                rows.append(base.execute(
                    "INSERT INTO log (kind, content, line, sealed) VALUES (?, ?, ?, ?)",
                    (entry.kind, cbor2.dumps(entry.content), json.dumps(entry.line), entry.sealed)).lastrowid)
            for node, state in epochs:
                base.execute("INSERT OR REPLACE INTO epoch (node, epoch, counter, began, high, named, closed, "
                             "spoken, rolled, gaps, under) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", (
                    node, state.epoch, state.counter, state.began, state.high, state.named, state.closed,
                    state.spoken, state.rolled, json.dumps([gap.__dict__ for gap in state.gaps]),
                    cbor2.dumps({agreement: [one.high, one.end, one.clip, one.follower and list(one.follower)]
                                 for agreement, one in state.under.items()})))
            for row in nodes:
                now = row.current
                base.execute("INSERT OR REPLACE INTO node (name, node, salt, epoch, digests, beacon_ns, others) "
                             "VALUES (?, ?, ?, ?, ?, ?, ?)", (
                    row.name, row.node, now.salt, now.epoch, now.digests, row.beacon_ns,
                    cbor2.dumps([list(other) for other in row.epochs[1:]])))
            if taken is not None:
                base.execute("UPDATE cursor SET row = max(row, ?)", (taken,))
            if rows and rows[-1] - self._pruned >= _PRUNE_EVERY_ROWS:
                self._pruned = rows[-1]
                base.execute("DELETE FROM log WHERE row <= ? AND row <= (SELECT row FROM cursor)",
                             (rows[-1] - self.keep_rows,))
        return rows

    def untaken(self) -> List[Tuple[int, Entry]]:
        """(row, entry) past the cursor."""
        return self.read(self.taken(), -1)

    def taken(self) -> int:
        with self._explained():
            return self._base.execute("SELECT row FROM cursor").fetchone()[0]

    def read(self, after: int, limit: int) -> List[Tuple[int, Entry]]:
        """(row, entry) past row ``after``, in order; limit -1: all."""
        with self._explained():
            found = self._base.execute("SELECT row, kind, content, line, sealed FROM log WHERE row > ? ORDER BY row "
                                       "LIMIT ?", (after, limit)).fetchall()
        return [(row, Entry(kind, cbor2.loads(content), json.loads(line), sealed))
                for row, kind, content, line, sealed in found]

    def nodes(self) -> Dict[str, NodeRow]:
        """By name."""
        with self._explained():
            found = self._base.execute(
                "SELECT name, node, salt, epoch, digests, beacon_ns, others FROM node").fetchall()
        return {name: NodeRow(name, node, (Living(epoch, salt, digests),) + tuple(
                    Living(*other) for other in cbor2.loads(others)), beacon_ns)
                for name, node, salt, epoch, digests, beacon_ns, others in found}

    def epochs(self, node: bytes) -> List[EpochState]:
        with self._explained():
            found = self._base.execute("SELECT epoch, counter, began, high, named, closed, spoken, rolled, gaps, "
                                       "under FROM epoch WHERE node = ?", (node,)).fetchall()
        return [EpochState(epoch, counter, bool(began), high, bool(named), closed, spoken, bool(rolled),
                           [OpenGap(gap["first"], gap["last"], [(first, last) for first, last in gap["missing"]])
                            for gap in json.loads(gaps)],
                           {agreement: _under(*one) for agreement, one in cbor2.loads(under).items()})
                for epoch, counter, began, high, named, closed, spoken, rolled, gaps, under in found]


def _under(high: int, end: Optional[int], clip: int = 0, follower: Optional[List[Any]] = None) -> Under:
    return Under(high, end, clip, follower and Follower(*follower))
