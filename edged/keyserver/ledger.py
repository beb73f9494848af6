"""What a key server must not forget: nonces that are out, what became of each node, grant numbers, who got what,
what of it still stands.

SQLite, as the node's spool: what a block of ``changing`` did is on the disk when it ends, or none of it is. The audit
log only grows: each entry's digest is over the one before it, and who keeps a head (number and digest) elsewhere
notices whatever is changed up to it. Times are Unix seconds.

    entry  = canonical CBOR [n, time, event, ueid, {detail: text or number}]
    digest = SHA-256(digest of entry n - 1, or 32 zero bytes || entry)
"""

import hashlib
from enum import Enum
from typing import Any, ContextManager, Dict, Iterable, Iterator, List, Mapping, NamedTuple, Optional, Tuple

from edged import canonical
from edged.alerts.spool import Database
from edged.errors import KeyRefused, PackageError, VerificationFailed
from edged.trust.agreement import Agreement
from edged.trust.grant import NUMBER_MAX

SLOT = "slot "  # and its number: the detail of an entry that tells a grant's number, or below which all are withdrawn
_START = bytes(32)
_EVENTS = ("started", "granted", "refused", "withdrawn", "reported")
_NODE = "ueid, heard, passed, reason, certificate, class, until, leaf, issuing, withdrawn, said"


class Standing(Enum):
    REVOKED = "revoked"      # its certificate is, since it passed
    UNLISTED = "unlisted"    # it passed, and is none of the party's devices any more
    WITHDRAWN = "withdrawn"  # its grants are, and it was given none since
    PASSED = "passed"
    REFUSED = "refused"
    EXPIRED = "expired"      # it passed, too long ago
    SILENT = "silent"        # nothing that is surely of it came for long, or ever


class Node(NamedTuple):
    """What the last evidence came to that was surely of this device.

    heard_s : when that evidence came      reason : of a refusal
    certificate, class_, until_s : of what passed last, its SHA-256 in DER      leaf, issuing : it and that of its
    issuing CA, in DER; None in a ledger of before until the node passes again
    withdrawn : its grants were, and it was given none since      said_s : the time of its last floor, 0: of none
    """

    ueid: bytes
    heard_s: int
    passed: bool
    reason: str
    certificate: Optional[bytes]
    class_: Optional[str]
    until_s: Optional[int]
    leaf: Optional[bytes] = None
    issuing: Optional[bytes] = None
    withdrawn: bool = False
    said_s: int = 0

    def standing(self, now_s: int, expires_s: int, silent_s: int, revoked: bool = False,
                 listed: bool = True) -> Standing:
        """revoked : whether a list says so of the certificate that passed last      listed : whether its key still is
        """
        if revoked:
            return Standing.REVOKED
        if not listed:
            return Standing.UNLISTED
        if self.withdrawn:
            return Standing.WITHDRAWN
        age_s = now_s - self.heard_s
        if not 0 <= age_s <= silent_s:  # from the future: a clock was set back, and nobody knows
            return Standing.SILENT
        if not self.passed:
            return Standing.REFUSED
        return Standing.PASSED if age_s <= expires_s and now_s <= (self.until_s or 0) else Standing.EXPIRED


class Entry(NamedTuple):
    """Of the audit log."""

    number: int
    time_s: int
    event: str
    ueid: bytes
    details: Dict[str, Any]
    digest: bytes


_STANDING = """
        CREATE TABLE standing (
            device BLOB NOT NULL,
            slot INTEGER NOT NULL,
            number INTEGER NOT NULL,
            agreement BLOB NOT NULL,
            agreement_number INTEGER NOT NULL,
            until INTEGER NOT NULL,
            PRIMARY KEY (device, slot)
        )"""

# Since version 3: who shows a node looks up its certificate and its key in the lists of now.
_CERTIFIED = (("leaf", "BLOB"), ("issuing", "BLOB"), ("withdrawn", "INTEGER NOT NULL DEFAULT 0"),
              ("said", "INTEGER NOT NULL DEFAULT 0"))


class Ledger(Database):
    """Of one server; a command may read it at the same time."""

    application = 0x4544474B
    version = 3
    upgrades = {1: _STANDING,
                2: ";\n\n".join("ALTER TABLE node ADD COLUMN {} {}".format(*column) for column in _CERTIFIED)}
    schema = """
        CREATE TABLE nonce (nonce BLOB PRIMARY KEY, ueid BLOB NOT NULL, issued INTEGER NOT NULL);

        CREATE TABLE node (
            ueid BLOB PRIMARY KEY,
            heard INTEGER NOT NULL,
            passed INTEGER NOT NULL,
            reason TEXT NOT NULL,
            certificate BLOB,
            class TEXT,
            until INTEGER,
""" + ",\n".join("            {} {}".format(*column) for column in _CERTIFIED) + """
        );

        CREATE TABLE number (slot INTEGER PRIMARY KEY, number INTEGER NOT NULL);

        CREATE TABLE audit (n INTEGER PRIMARY KEY, entry BLOB NOT NULL, digest BLOB NOT NULL);

        CREATE TRIGGER audit_stays BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'the audit log only grows'); END;

        CREATE TRIGGER audit_is_kept BEFORE DELETE ON audit BEGIN SELECT RAISE(ABORT, 'the audit log only grows'); END;

""" + _STANDING

    def changing(self) -> ContextManager[Any]:
        """All that is written in the block is kept, or nothing where it raises. Raises SpoolError."""
        return self._writing()

    # Inside ``changing``.

    def put_nonce(self, nonce: bytes, ueid: bytes, now_s: int, forget_s: int) -> None:
        """And forget those that are older than ``forget_s`` seconds."""
        self._base.execute("DELETE FROM nonce WHERE issued < ?", (now_s - forget_s,))
        self._base.execute("INSERT INTO nonce VALUES (?, ?, ?)", (nonce, ueid, now_s))

    def use_nonce(self, nonce: bytes) -> None:
        """Raises VerificationFailed where it is not out: it was asked for, and another process used it since."""
        if self._base.execute("DELETE FROM nonce WHERE nonce = ?", (nonce,)).rowcount != 1:
            raise _not_out(nonce)

    def next_number(self, slot: int, now_s: int) -> int:
        """Above every one before it, of any device. Raises KeyRefused where there are no more.

        Never below the time: who lost the ledger goes on with numbers that devices have not seen. (The clock cannot
        use them up: certificates bound how far off it may be while devices pass.)
        """
        number = max(self.last_number(slot) + 1, now_s)
        if number > NUMBER_MAX:
            raise KeyRefused("slot {}: grant numbers are used up: devices need a new identity".format(slot))
        self._base.execute("INSERT OR REPLACE INTO number VALUES (?, ?)", (slot, number))
        return number

    def put_standing(self, device: bytes, slot: int, number: int, agreement: Agreement) -> None:
        """Of this grant and later ones under the agreement, its party stands by whichever arrived."""
        self._base.execute("DELETE FROM standing WHERE device = ? AND slot = ? AND agreement <> ?",
                           (device, slot, agreement.digest))
        self._base.execute("INSERT OR IGNORE INTO standing VALUES (?, ?, ?, ?, ?, ?)",
                           (device, slot, number, agreement.digest, agreement.number, agreement.until_s))

    def withdraw(self, device: bytes, slots: Iterable[int]) -> None:
        """By the slots' grants nobody stands any more."""
        self._base.executemany("DELETE FROM standing WHERE device = ? AND slot = ?", [(device, slot) for slot in slots])

    def put_node(self, node: Node) -> None:
        self._base.execute("INSERT OR REPLACE INTO node ({}) VALUES ({})".format(
            _NODE, ", ".join("?" * len(node))), node)

    def append(self, now_s: int, event: str, ueid: bytes, details: Mapping[str, Any]) -> None:
        number, digest = self.head()
        entry = canonical.encode([number + 1, now_s, event, ueid, dict(details)])
        self._base.execute("INSERT INTO audit VALUES (?, ?, ?)", (number + 1, entry, _chained(digest, entry)))

    # Anywhere.

    def node(self, ueid: bytes) -> Optional[Node]:
        return next(iter(self._nodes("WHERE ueid = ?", (ueid,))), None)

    def nodes(self) -> List[Node]:
        return list(self._nodes("ORDER BY ueid", ()))

    def asked(self, nonce: bytes) -> Tuple[bytes, int]:
        """(ueid that asked, when). Raises VerificationFailed where the nonce is not out."""
        with self._explained():
            found = self._base.execute("SELECT ueid, issued FROM nonce WHERE nonce = ?", (nonce,)).fetchone()
        if found is None:
            raise _not_out(nonce)
        return found

    def slots_of(self, device: bytes) -> List[int]:
        """Where its grants to this device stand, under whatever agreement, over or not."""
        with self._explained():
            return [slot for slot, in self._base.execute("SELECT slot FROM standing WHERE device = ?", (device,))]

    def standing(self, device: bytes, now_s: int, least_agreement: int = 0) -> Dict[int, int]:
        """{slot: least number} of the grants to this device (its thumbprint) that still stand."""
        with self._explained():
            return dict(self._base.execute(
                "SELECT slot, number FROM standing WHERE device = ? AND until > ? AND agreement_number >= ?",
                (device, now_s, least_agreement)))

    def last_number(self, slot: int) -> int:
        """The highest that any device was given; 0: none was."""
        with self._explained():
            found = self._base.execute("SELECT number FROM number WHERE slot = ?", (slot,)).fetchone()
        return found[0] if found else 0

    def head(self) -> Tuple[int, bytes]:
        """(number, digest) of the newest entry; (0, zeros) of an empty log."""
        with self._explained():
            found = self._base.execute("SELECT n, digest FROM audit ORDER BY n DESC LIMIT 1").fetchone()
        return found or (0, _START)

    def audit(self) -> Iterator[Entry]:
        """Every entry, checked. Raises VerificationFailed at the first that is not what was written, and at the end
        where grants were given that it does not tell of."""
        digest, number = _START, 0
        numbers: Dict[int, int] = {}
        with self._explained():
            self._base.execute("BEGIN")  # all of it as it is now, while a server goes on writing
            try:
                given = dict(self._base.execute("SELECT slot, number FROM number"))
                for place, encoded, kept in self._base.execute(
                        "SELECT n, CAST(entry AS BLOB), CAST(digest AS BLOB) FROM audit ORDER BY n"):
                    number, digest = number + 1, _chained(digest, encoded)
                    if place != number or kept != digest:
                        raise VerificationFailed("{}: audit entry {} was altered, or one before it: what follows "
                                                 "proves nothing".format(self.path, number))
                    entry = self._entry(number, encoded, digest)
                    numbers.update({int(name[len(SLOT):]): value for name, value in entry.details.items()
                                    if name.startswith(SLOT)})
                    yield entry
            finally:
                self._base.execute("ROLLBACK")
        if numbers != given:
            raise VerificationFailed("{}: the audit log ends before the last grant that was given: entries were taken "
                                     "off its end".format(self.path))

    def _entry(self, number: int, encoded: bytes, digest: bytes) -> Entry:
        what = "audit entry {}".format(number)
        try:
            fields = canonical.Fields.of_row(canonical.decode(encoded, what, "list"), "n time event ueid details", what)
            fields.uint("n", number, number)
            details = fields.take("details", dict, lambda v: all(type(key) is str for key in v), "a map")
            return Entry(number, fields.uint("time"), fields.choice("event", _EVENTS),
                         fields.take("ueid", bytes, lambda v: True, "bytes"), details, digest)
        except PackageError as error:
            raise VerificationFailed("{}: {}".format(self.path, error)) from error

    def _nodes(self, where: str, values: Tuple[object, ...]) -> Iterator[Node]:
        with self._explained():
            rows = self._base.execute("SELECT {} FROM node {}".format(_NODE, where), values).fetchall()
        for row in rows:
            found = Node(*row)
            yield found._replace(passed=bool(found.passed), withdrawn=bool(found.withdrawn))


def _not_out(nonce: bytes) -> VerificationFailed:
    return VerificationFailed("nonce {} is not out: each is good once, and not for long: ask for another "
                              "challenge".format(nonce.hex()))


def _chained(digest: bytes, entry: bytes) -> bytes:
    return hashlib.sha256(digest + entry).digest()
