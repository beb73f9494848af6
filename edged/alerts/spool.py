"""The node's durable spool: sealed records on their way to the subscribers, and the enclave's sealed state.

SQLite in WAL mode with full synchronisation: what ``put`` and ``set_state`` return from is on the disk. The bridge
puts, the outbox sends and acknowledges, each in its own process.

    record      one row each, unique by (epoch, rcpt, seq); acknowledged rows stay, marked, until a cap evicts them
    evicted     what a cap took away unacknowledged and nobody has announced yet
    state       struct edged_state, of the enclave's next start

Eviction goes by the caps on rows, bytes and age, acknowledged rows first, then the oldest; nothing in a record's
content can make it go or stay. Age counts while the node runs, on the clock that no jump of time and date moves.

Source: DESIGN section 6; FIELD, ZeroMQ.
"""

import os
import sqlite3
import time
from contextlib import contextmanager
from typing import Callable, Dict, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from edged.alerts.record import split_record
from edged.errors import PackageError, SpoolError

# Another process's transaction is one fsync long; a disk that sleeps takes some seconds to come round.
BUSY_TIMEOUT_S = 10.0

# The log is cut back to this after a burst.
_WAL_KEPT_BYTES = 4 << 20

Clock = Callable[[], Tuple[str, float]]


class Caps(NamedTuple):
    """What the spool may hold: rows, bytes of records, seconds of the node's running."""

    max_rows: int
    max_bytes: int
    max_age_s: int


class Evicted(NamedTuple):
    """Unacknowledged records that a cap took: recipient -> [(epoch, first seq, last seq), ...], oldest first."""

    records: Dict[bytes, List[Tuple[bytes, int, int]]]
    last: int  # what `announced` shall forget


class Waiting(NamedTuple):
    rows: int
    bytes: int


class Database:
    """A SQLite file of one schema, mode 0600, which several processes may use at once.

    Raises SpoolError where the file cannot be made or used, is damaged, or was written by another release.
    """

    # "EDGD" and what of; subclasses set these. upgrades : version -> the statements that make it the next one,
    # separated as those of the schema
    application = 0
    version = 1
    schema = ""
    upgrades: Dict[int, str] = {}

    def __init__(self, path: str) -> None:
        self.path = path
        with self._explained():
            os.makedirs(os.path.dirname(path) or ".", mode=0o700, exist_ok=True)
            # SQLite gives its own files beside it the mode of this one.
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.fchmod(handle, 0o600)
            finally:
                os.close(handle)
            self._base = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
        try:
            with self._explained():
                self._set_up()
        except BaseException:
            self._base.close()
            raise

    def close(self) -> None:
        self._base.close()

    def __enter__(self) -> "Database":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _set_up(self) -> None:
        self._to_wal()
        self._base.execute("PRAGMA synchronous=FULL")
        self._base.execute("PRAGMA journal_size_limit={}".format(_WAL_KEPT_BYTES))
        if self._marks() == (0, 0):  # else no writer need be waited for
            with self._writing():
                self._make()
        if self._marks()[0] != self.application:
            raise SpoolError("{}: not made by edged: name another file, or move this one aside".format(self.path))
        if self._marks()[1] in self.upgrades:
            with self._writing():
                self._upgrade()
        found = self._marks()
        if found[1] != self.version:
            raise SpoolError("{}: schema {}, this release reads {}: use the release that wrote it, or move it "
                             "aside".format(self.path, found[1], self.version))

    def _marks(self) -> Tuple[int, int]:
        return self._pragma("application_id"), self._pragma("user_version")

    def _make(self) -> None:
        if self._base.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            return  # something else's, or another process was faster
        for statement in self.schema.split(";\n\n"):  # executescript would commit first
            self._base.execute(statement)
        self._base.execute("PRAGMA application_id={}".format(self.application))
        self._base.execute("PRAGMA user_version={}".format(self.version))

    def _upgrade(self) -> None:
        version = self._marks()[1]  # another process may have been faster
        while version in self.upgrades:
            for statement in self.upgrades[version].split(";\n\n"):
                self._base.execute(statement)
            version += 1
        self._base.execute("PRAGMA user_version={}".format(version))

    def _to_wal(self) -> None:
        # Two processes that make the file at once meet here, and SQLite does not wait for this lock by itself.
        deadline = time.monotonic() + BUSY_TIMEOUT_S
        while True:
            try:
                mode = self._base.execute("PRAGMA journal_mode=WAL").fetchone()[0]
                break
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
        if mode != "wal":
            raise SpoolError("{}: its file system has no shared memory for SQLite's WAL: use a local one".format(
                self.path))

    def _pragma(self, name: str) -> int:
        return int(self._base.execute("PRAGMA " + name).fetchone()[0])

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction: all of it is on the disk when this ends, or none."""
        with self._explained():
            self._base.execute("BEGIN IMMEDIATE")
            try:
                yield self._base
                self._base.execute("COMMIT")
            except BaseException:
                if self._base.in_transaction:  # SQLite itself may have rolled back, on a full disk for one
                    self._base.execute("ROLLBACK")
                raise

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise SpoolError("{}: {}".format(self.path, _remedy(str(error), self.path))) from error
        except OSError as error:
            raise SpoolError("{}: {}".format(self.path, error.strerror)) from error


def _remedy(message: str, path: str) -> str:
    if "full" in message:
        return "disk full: make room; what is not stored is not confirmed and comes again"
    if "disk I/O" in message:
        return ("{}: check the disk and its space (df, dmesg); what is not stored is not confirmed and comes "
                "again".format(message))
    if "malformed" in message or "not a database" in message:
        return ("damaged ({}): stop edged, move it and what lies beside it aside (mkdir damaged; mv {}* damaged/) and "
                "start again; what it alone held is lost and will be reported as a gap".format(message, path))
    if "locked" in message:
        return "held by another process for {:.0f} s: is a second edged running?".format(BUSY_TIMEOUT_S)
    if "readonly" in message or "unable to open" in message:
        return "cannot be written ({}): check the owner and mode of it and of its folder".format(message)
    return message


def running_clock() -> Tuple[str, float]:
    """(this boot's id, seconds since it, sleep included)."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip(), time.clock_gettime(time.CLOCK_BOOTTIME)


class Spool(Database):
    """See the module. Of one thread; every process opens its own."""

    application = 0x45444753
    version = 1
    schema = """
        CREATE TABLE record (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            epoch BLOB NOT NULL,
            rcpt BLOB NOT NULL,
            seq INTEGER NOT NULL,
            sealed BLOB NOT NULL,
            bytes INTEGER NOT NULL,
            arrived REAL NOT NULL,
            acked INTEGER NOT NULL DEFAULT 0,
            UNIQUE (epoch, rcpt, seq)
        );

        CREATE INDEX waiting ON record (rcpt, id) WHERE acked = 0;

        CREATE INDEX done ON record (id) WHERE acked = 1;

        CREATE INDEX age ON record (arrived);

        CREATE TABLE evicted (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            rcpt BLOB NOT NULL,
            epoch BLOB NOT NULL,
            first INTEGER NOT NULL,
            last INTEGER NOT NULL
        );

        CREATE TABLE held (rows INTEGER NOT NULL, bytes INTEGER NOT NULL);

        INSERT INTO held VALUES (0, 0);

        CREATE TRIGGER added AFTER INSERT ON record BEGIN
            UPDATE held SET rows = rows + 1, bytes = bytes + new.bytes; END;

        CREATE TRIGGER removed AFTER DELETE ON record BEGIN
            UPDATE held SET rows = rows - 1, bytes = bytes - old.bytes; END;

        CREATE TABLE clock (boot TEXT NOT NULL, at REAL NOT NULL, running REAL NOT NULL);

        CREATE TABLE state (sealed BLOB NOT NULL)"""

    def __init__(self, path: str, caps: Caps, clock: Clock = running_clock) -> None:
        self.caps = caps
        self._clock = clock
        super().__init__(path)

    def put(self, records: Sequence[bytes]) -> int:
        """Store sealed records, all or none; how many were new. A record that is there already is no error.

        Raises SpoolError (then confirm nothing), or PackageError where a record is malformed or its number is
        taken by another one.
        """
        rows = []
        for sealed in records:
            header = split_record(sealed)[0]
            if header.seq >= 1 << 63:
                raise PackageError("record seq {}: no enclave counts so far".format(header.seq))
            rows.append((header.epoch, header.rcpt, header.seq, bytes(sealed)))
        new = 0
        with self._writing() as base:
            now = self._running(base) if rows else 0.0
            for epoch, rcpt, seq, sealed in rows:
                there = base.execute("SELECT sealed FROM record WHERE epoch = ? AND rcpt = ? AND seq = ?",
                                     (epoch, rcpt, seq)).fetchone()
                if there is None:
                    base.execute("INSERT INTO record (epoch, rcpt, seq, sealed, bytes, arrived) "
                                 "VALUES (?, ?, ?, ?, ?, ?)", (epoch, rcpt, seq, sealed, len(sealed), now))
                    new += 1
                elif there[0] != sealed:
                    raise PackageError("record seq {} of epoch {}: another one is stored under this number".format(
                        seq, epoch.hex()))
        return new

    def pending(self, rcpt: bytes, after: int = 0, limit: int = 64) -> List[Tuple[int, bytes]]:
        """(row id, sealed record) not acknowledged yet, in order of arrival, of rows past ``after``."""
        with self._explained():
            return self._base.execute("SELECT id, sealed FROM record WHERE rcpt = ? AND acked = 0 AND id > ? "
                                      "ORDER BY id LIMIT ?", (rcpt, after, limit)).fetchall()

    def ack(self, rcpt: bytes, records: Iterable[Tuple[bytes, int]]) -> None:
        """Mark (epoch, seq) of this recipient as delivered; what is not there is passed over."""
        rows = [(epoch, rcpt, seq) for epoch, seq in records if seq < 1 << 63]
        with self._writing() as base:
            base.executemany("UPDATE record SET acked = 1 WHERE epoch = ? AND rcpt = ? AND seq = ?", rows)

    def waiting(self) -> Dict[bytes, Waiting]:
        """What is not acknowledged, by recipient."""
        with self._explained():
            return {rcpt: Waiting(rows, size) for rcpt, rows, size in self._base.execute(
                "SELECT rcpt, count(*), sum(bytes) FROM record WHERE acked = 0 GROUP BY rcpt")}

    def state(self) -> Optional[bytes]:
        """The enclave's sealed state, as stored last."""
        with self._explained():
            row = self._base.execute("SELECT sealed FROM state").fetchone()
        return None if row is None else row[0]

    def set_state(self, sealed: bytes) -> None:
        with self._writing() as base:
            base.execute("DELETE FROM state")
            base.execute("INSERT INTO state VALUES (?)", (bytes(sealed),))

    def evict(self) -> Optional[Evicted]:
        """Bring the spool under its caps. Unacknowledged records that went, now or before, and that nobody has
        announced; None where there are none. Once they are announced (sealed as a claim): ``announced``.
        """
        with self._explained():
            rows, size = self._base.execute("SELECT rows, bytes FROM held").fetchone()
            oldest = self._base.execute("SELECT min(arrived) FROM record").fetchone()[0]
            known = self._base.execute("SELECT count(*) FROM evicted").fetchone()[0]
        # Most calls end here, without a write.
        if rows > self.caps.max_rows or size > self.caps.max_bytes or (
                oldest is not None and self._now()[2] - oldest > self.caps.max_age_s):
            self._bring_under_caps()
        elif not known:
            return None
        return self._unannounced()

    def announced(self, evicted: Evicted) -> None:
        """``evict`` need not return these again. evicted : as that returned it, of some recipients or all"""
        with self._writing() as base:
            base.executemany("DELETE FROM evicted WHERE id <= ? AND rcpt = ?",
                             [(evicted.last, rcpt) for rcpt in evicted.records])

    def _bring_under_caps(self) -> None:
        with self._writing() as base:
            limit = self._running(base) - self.caps.max_age_s
            self._remove(base, base.execute("SELECT id FROM record WHERE arrived < ? ORDER BY id", (limit,)))
            for acked in (1, 0):
                self._remove(base, self._oldest_above_caps(base, acked))

    def _oldest_above_caps(self, base: sqlite3.Connection, acked: int) -> Iterator[Tuple[int]]:
        rows, size = base.execute("SELECT rows, bytes FROM held").fetchone()
        for row, taken in base.execute("SELECT id, bytes FROM record WHERE acked = ? ORDER BY id", (acked,)):
            if rows <= self.caps.max_rows and size <= self.caps.max_bytes:
                return
            rows, size = rows - 1, size - taken
            yield (row,)

    @staticmethod
    def _remove(base: sqlite3.Connection, ids: Iterable[Tuple[int]]) -> None:
        for (row,) in list(ids):
            rcpt, epoch, seq, acked = base.execute(
                "SELECT rcpt, epoch, seq, acked FROM record WHERE id = ?", (row,)).fetchone()
            base.execute("DELETE FROM record WHERE id = ?", (row,))
            if acked:
                continue
            joined = base.execute("UPDATE evicted SET last = ? WHERE rcpt = ? AND epoch = ? AND last = ?",
                                  (seq, rcpt, epoch, seq - 1)).rowcount
            if not joined:
                base.execute("INSERT INTO evicted (rcpt, epoch, first, last) VALUES (?, ?, ?, ?)",
                             (rcpt, epoch, seq, seq))

    def _unannounced(self) -> Optional[Evicted]:
        found: Dict[bytes, List[Tuple[bytes, int, int]]] = {}
        last = 0
        with self._explained():
            rows = self._base.execute("SELECT id, rcpt, epoch, first, last FROM evicted ORDER BY id").fetchall()
        for last, rcpt, epoch, first, final in rows:
            found.setdefault(rcpt, []).append((epoch, first, final))
        return Evicted(found, last) if found else None

    def _now(self) -> Tuple[str, float, float]:
        """(boot, seconds since it, seconds that the node has run as far as the spool knows)."""
        boot, at = self._clock()
        with self._explained():
            row = self._base.execute("SELECT boot, at, running FROM clock").fetchone()
        if row is None:
            return boot, at, 0.0
        return boot, at, row[2] + (max(at - row[1], 0.0) if row[0] == boot else 0.0)

    def _running(self, base: sqlite3.Connection) -> float:
        """Likewise, and note it."""
        now = self._now()
        base.execute("DELETE FROM clock")
        base.execute("INSERT INTO clock VALUES (?, ?, ?)", now)
        return now[2]
