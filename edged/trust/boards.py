"""The index of a certification authority: which boards there are, what each was given, what of that was revoked.

One SQLite file. A board is known by its serial number, stands for one node, and is of the class that it was added as;
of the boards of one node all but the newest are revoked. Station secrets lie in it sealed: AES-256-GCM under the
authority's own key, bound to the serial. Times are Unix seconds.
"""

import os
import sqlite3
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Iterator, List, Optional, Tuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from edged.errors import KeyRefused, MissingInput, PackageError, UsageError

SERIAL = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
_NONCE = 12
_SCHEMA = 1
_TABLES = """
CREATE TABLE boards (serial TEXT PRIMARY KEY, node TEXT NOT NULL, class TEXT NOT NULL, secret BLOB NOT NULL,
                     revoked INTEGER, challenge BLOB, challenge_until INTEGER);
CREATE UNIQUE INDEX one_board_of_a_node ON boards (node) WHERE revoked IS NULL;
CREATE TABLE certificates (number TEXT PRIMARY KEY, board TEXT NOT NULL REFERENCES boards (serial), class TEXT NOT NULL,
                           ueid BLOB NOT NULL, attest BLOB NOT NULL, grant_key BLOB NOT NULL, until INTEGER NOT NULL,
                           revoked INTEGER, reason TEXT, der BLOB NOT NULL);
CREATE TABLE lists (class TEXT PRIMARY KEY, number INTEGER NOT NULL);
"""


@dataclass(frozen=True)
class Board:
    """revoked_s : None while it is in force      challenge : outstanding one, good until ``challenge_until_s``"""

    serial: str
    node: str
    class_: str
    revoked_s: Optional[int]
    challenge: Optional[bytes]
    challenge_until_s: Optional[int]


@dataclass(frozen=True)
class Issued:
    """attest, grant : SHA-256 of the SubjectPublicKeyInfo      reason : of the revocation, a flag of RFC 5280"""

    number: int
    board: str
    class_: str
    ueid: bytes
    attest: bytes
    grant: bytes
    until_s: int
    revoked_s: Optional[int]
    reason: Optional[str]
    der: bytes


_BOARD = "serial, node, class, revoked, challenge, challenge_until"
_ISSUED = "number, board, class, ueid, attest, grant_key, until, revoked, reason, der"


def create(path: str) -> None:
    """A new, empty index. Raises KeyRefused where there is one."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        raise KeyRefused("{}: is there already: an index is not written over".format(path)) from None
    database = sqlite3.connect(path)
    try:
        database.executescript(_TABLES + "PRAGMA user_version = {};".format(_SCHEMA))
    finally:
        database.close()


@contextmanager
def changing(path: str) -> Iterator["Boards"]:
    """The index, locked: all that is done in the block is kept, or nothing where it raises.

    Raises MissingInput, PackageError (no index, or a damaged one).
    """
    if not os.path.isfile(path):
        raise MissingInput("{}: there is no index of boards: `edged-city ca init` makes one".format(path))
    database = sqlite3.connect(path, isolation_level=None, timeout=10)
    try:
        database.execute("PRAGMA foreign_keys = ON")
        database.execute("PRAGMA synchronous = FULL")
        database.execute("BEGIN IMMEDIATE")
        if database.execute("PRAGMA user_version").fetchone() != (_SCHEMA,):
            raise PackageError("{}: not an index of this edged".format(path))
        try:
            yield Boards(database)
        except BaseException:
            database.execute("ROLLBACK")
            raise
        database.execute("COMMIT")
    except sqlite3.DatabaseError as error:
        raise PackageError("{}: {}: wait for the other command, or put a copy of the index in its place".format(
            path, error)) from error
    finally:
        database.close()


class Boards:
    """Inside ``changing``. Finds and writes rows; what is permitted is for the authority to say."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    def find(self, which: str) -> Board:
        """By serial, or by the node that it stands for. Raises UsageError."""
        for column in ("serial = ?", "node = ? AND revoked IS NULL"):
            found = self._database.execute("SELECT {} FROM boards WHERE {}".format(_BOARD, column), (which,)).fetchone()
            if found:
                return Board(*found)
        raise UsageError("{}: no board in force has this serial number or node name: `edged-city ca list` shows "
                         "them".format(which))

    def all(self) -> List[Board]:
        return [Board(*row) for row in self._database.execute(
            "SELECT {} FROM boards ORDER BY node, revoked IS NULL, revoked".format(_BOARD))]

    def add(self, serial: str, node: str, class_: str, sealed: bytes) -> None:
        """Raises UsageError where the serial or the node is taken."""
        taken = self._database.execute("SELECT serial, node, revoked FROM boards WHERE serial = ? "
                                       "OR (node = ? AND revoked IS NULL)", (serial, node)).fetchone()
        if taken and taken[2] is not None:
            raise UsageError("board {} was revoked as {}, for good: take another board".format(*taken[:2]))
        if taken:
            raise UsageError("board {} stands for {} already: `edged-city ca replace` exchanges boards".format(
                *taken[:2]))
        self._database.execute("INSERT INTO boards (serial, node, class, secret) VALUES (?, ?, ?, ?)",
                               (serial, node, class_, sealed))

    def secret(self, serial: str, key: bytes) -> bytes:
        """Raises KeyRefused."""
        (sealed,) = self._database.execute("SELECT secret FROM boards WHERE serial = ?", (serial,)).fetchone()
        try:
            return AESGCM(key).decrypt(sealed[:_NONCE], sealed[_NONCE:], _bound(serial))
        except InvalidTag:
            raise KeyRefused("the station secret of board {} does not open: the index was altered, or is of another "
                             "authority".format(serial)) from None

    def challenge(self, serial: str, nonce: Optional[bytes], until_s: Optional[int]) -> None:
        """The one that is outstanding; None: none is."""
        self._database.execute("UPDATE boards SET challenge = ?, challenge_until = ? WHERE serial = ?",
                               (nonce, until_s, serial))

    def issued(self, board: str) -> List[Issued]:
        return self._issued("board = ? ORDER BY rowid", (board,))

    def revoked(self, class_: str) -> List[Issued]:
        return self._issued("class = ? AND revoked IS NOT NULL", (class_,))

    def with_keys(self, ueid: bytes, digests: Tuple[bytes, bytes]) -> List[Issued]:
        """Of this ueid, or of one of these keys, in either use."""
        return self._issued("ueid = ? OR attest IN (?, ?) OR grant_key IN (?, ?)", (ueid,) + digests + digests)

    def issue(self, one: Issued) -> None:
        self._database.execute("INSERT INTO certificates ({}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)".format(_ISSUED), (
            "{:x}".format(one.number), one.board, one.class_, one.ueid, one.attest, one.grant, one.until_s,
            one.revoked_s, one.reason, one.der))

    def revoke_certificates(self, board: str, now_s: int, reason: str) -> int:
        """How many were in force."""
        return self._database.execute(
            "UPDATE certificates SET revoked = ?, reason = ? WHERE board = ? AND revoked IS NULL",
            (now_s, reason, board)).rowcount

    def revoke(self, serial: str, now_s: int) -> None:
        self._database.execute("UPDATE boards SET revoked = ?, challenge = NULL, challenge_until = NULL "
                               "WHERE serial = ?", (now_s, serial))

    def next_list(self, class_: str) -> int:
        """The number of the next revocation list: they only rise."""
        row = self._database.execute("SELECT number FROM lists WHERE class = ?", (class_,)).fetchone()
        number = row[0] + 1 if row else 1
        self._database.execute("INSERT OR REPLACE INTO lists (class, number) VALUES (?, ?)", (class_, number))
        return number

    def _issued(self, where: str, values: Tuple[object, ...]) -> List[Issued]:
        return [Issued(int(row[0], 16), *row[1:]) for row in self._database.execute(
            "SELECT {} FROM certificates WHERE {}".format(_ISSUED, where), values)]


def seal_secret(secret: bytes, serial: str, key: bytes) -> bytes:
    nonce = os.urandom(_NONCE)
    return nonce + AESGCM(key).encrypt(nonce, secret, _bound(serial))


def _bound(serial: str) -> bytes:
    return b"edged station secret " + serial.encode("ascii")
