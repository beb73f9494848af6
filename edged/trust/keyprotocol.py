"""What a node and a key server say to one another, over TLS: a challenge, then evidence for one of two ends.

POSTs of canonical CBOR, a connection each.

    POST /challenge   {"form": "edged challenge request 1", "ueid": bstr 17}  ->  {"form": "edged challenge 1", "nonce"}
    POST /evidence    evidence for that nonce (trust/evidence.py)
                                                        ->  {"form": "edged grants 1", "floor", "grants"}
    POST /report      likewise, to be known as a node that passed now
                                                        ->  {"form": "edged report 1"}
    otherwise         {"form": "edged refusal 1", "reason": one line}, with one of the statuses below
"""

from enum import IntEnum
from typing import NamedTuple, Sequence, Tuple

from edged import canonical
from edged.errors import PackageError
from edged.trust.evidence import EVIDENCE_MAX
from edged.trust.floor import FLOOR_MAX
from edged.trust.grant import GRANT_MAX
from edged.trust.request import UEID_BYTES

CHALLENGE, EVIDENCE, REPORT = "/challenge", "/evidence", "/report"
MEDIA_TYPE = "application/cbor"
NONCE_BYTES = 32
GRANTS_MAX = 16  # as many as the key application has slots
REQUEST_MAX = EVIDENCE_MAX
ANSWER_MAX = GRANTS_MAX * (GRANT_MAX + 3) + FLOOR_MAX + 3 + 64
REASON_MAX = 600

_ASKED, _CHALLENGE = "edged challenge request 1", "edged challenge 1"
_GRANTS, _REPORTED, _REFUSAL = "edged grants 1", "edged report 1", "edged refusal 1"


class Given(NamedTuple):
    """grants : 1 .. GRANTS_MAX      floor : for the start that the evidence is of"""

    grants: Tuple[bytes, ...]
    floor: bytes


class Status(IntEnum):
    """Of HTTP."""

    OK = 200
    MALFORMED = 400
    REFUSED = 403
    TOO_LARGE = 413
    TOO_OFTEN = 429
    UNAVAILABLE = 503


def ask(ueid: bytes) -> bytes:
    return canonical.encode({"form": _ASKED, "ueid": ueid})


def read_asked(body: bytes) -> bytes:
    """The ueid. This and all readers below raise PackageError."""
    return _fields(body, _ASKED, "ueid").octets("ueid", UEID_BYTES)


def challenge(nonce: bytes) -> bytes:
    return canonical.encode({"form": _CHALLENGE, "nonce": nonce})


def read_challenge(body: bytes) -> bytes:
    return _fields(body, _CHALLENGE, "nonce").octets("nonce", NONCE_BYTES)


def grants(made: Sequence[bytes], floor: bytes) -> bytes:
    return canonical.encode({"form": _GRANTS, "floor": floor, "grants": list(made)})


def read_grants(body: bytes) -> Given:
    fields = _fields(body, _GRANTS, "floor", "grants")
    found = fields.rows("grants", 1, GRANTS_MAX)
    if any(type(one) is not bytes or not 1 <= len(one) <= GRANT_MAX for one in found):
        raise PackageError("{}: grants of 1 to {} bytes are needed".format(_GRANTS, GRANT_MAX))
    return Given(tuple(found), fields.octets("floor", 1, FLOOR_MAX))


def reported() -> bytes:
    return canonical.encode({"form": _REPORTED})


def read_reported(body: bytes) -> None:
    _fields(body, _REPORTED)


def refusal(reason: str) -> bytes:
    return canonical.encode({"form": _REFUSAL, "reason": shown(reason) or "refused"})


def read_refusal(body: bytes) -> str:
    return shown(_fields(body, _REFUSAL, "reason").text("reason", REASON_MAX))


def shown(reason: str) -> str:
    """One printable line of at most REASON_MAX bytes: what a stranger sent stands in reasons, and goes to terminals."""
    line = "".join(character if character.isprintable() else "?" for character in " ".join(reason.split()))
    return line.encode("utf-8", "replace")[:REASON_MAX].decode("utf-8", "ignore")


def _fields(body: bytes, form: str, *names: str) -> canonical.Fields:
    fields = canonical.fields(canonical.decode(body, form), ("form",) + names, form)
    fields.form(form)
    return fields
