"""Reference values: which images of the two applications a verifier may meet, signed by one of the two parties.

    COSE_Sign1 (Ed25519) over a canonical CBOR map; `scripts/build-ta` writes the map, whoever built it too signs it

An image is known by its measurement and its security version; below its floor a version is refused, known or not.
Source: DESIGN section 7.
"""

from dataclasses import dataclass
from typing import Any, Dict, FrozenSet, List, NamedTuple, Sequence
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edged import canonical
from edged.errors import PackageError, VerificationFailed
from edged.trust import cose
from edged.trust.chain import CLASSES

FORM = "edged reference values 1"
CONTEXT = FORM.encode("ascii")
# The applications by their names in evidence, and their UUIDs: those of trusty_ta/port/trusty/*/manifest.json.
APPLICATIONS = {"key": UUID("87084e91-0685-4c6b-a132-07b60757599c").bytes,
                "eval": UUID("9060cd35-56cd-4873-91a7-05f4d2b8ba49").bytes}
IMAGES_MAX = 64
REFERENCE_MAX = 16384
_ISSUED_MAX = (1 << 53) - 1
_NAMES = ("form", "class", "issued", "applications", "floors")
_WHAT = "reference values"


class Version(NamedTuple):
    """measurement : 32 bytes      version : security version"""

    measurement: bytes
    version: int


@dataclass(frozen=True)
class References:
    """issued_s : Unix seconds      applications : of each name what may run      floors : the least version of each"""

    class_: str
    issued_s: int
    applications: Dict[str, FrozenSet[Version]]
    floors: Dict[str, int]

    def encode(self) -> bytes:
        """What is signed."""
        return canonical.encode({
            "form": FORM, "class": self.class_, "issued": self.issued_s,
            "applications": {name: [list(one) for one in sorted(known)] for name, known in self.applications.items()},
            "floors": self.floors,
        })

    def as_dict(self) -> Dict[str, Any]:
        """For JSON."""
        return {"class": self.class_, "issued": self.issued_s, "floors": self.floors, "applications": {
            name: [{"measurement": one.measurement.hex(), "version": one.version} for one in sorted(known)]
            for name, known in self.applications.items()}}


def sign(payload: bytes, key: Ed25519PrivateKey) -> bytes:
    """Raises PackageError: what nobody would take is not signed."""
    read(payload)
    return cose.sign_ed25519(payload, key, CONTEXT)


def open_references(signed: bytes, signers: Sequence[bytes]) -> References:
    """Signed by one of these keys (32 bytes each). Raises PackageError (form), VerificationFailed."""
    message = cose.read(signed, cose.SIGN1, cose.EDDSA, _WHAT, REFERENCE_MAX)
    if message.unprotected:
        raise PackageError("{}: their unprotected header is not empty".format(_WHAT))
    for public in signers:
        try:
            message.verify_ed25519(public, _WHAT, CONTEXT)
            return read(message.payload)
        except VerificationFailed:
            continue
    raise VerificationFailed("{}: are signed by none of {}".format(
        _WHAT, ", ".join(one.hex() for one in signers) or "the keys, for none was given"))


def read(payload: bytes) -> References:
    """Raises PackageError unless this is the one canonical form of reference values."""
    fields = canonical.fields(canonical.decode(payload, _WHAT), _NAMES, _WHAT)
    fields.form(FORM)
    applications, floors = (
        fields.fields(name, tuple(APPLICATIONS)) for name in ("applications", "floors"))
    return References(
        class_=fields.choice("class", CLASSES),
        issued_s=fields.uint("issued", 0, _ISSUED_MAX),
        applications={name: _versions(applications.rows(name, 1, IMAGES_MAX), name) for name in APPLICATIONS},
        floors={name: floors.uint(name) for name in APPLICATIONS},
    )


def merge(parts: Sequence[References]) -> References:
    """All images of all parts, the highest floors, the latest time. Raises PackageError where they do not fit."""
    if not parts:
        raise PackageError("{}: there are none to be merged".format(_WHAT))
    classes = {one.class_ for one in parts}
    if len(classes) != 1:
        raise PackageError("{}: of classes {}: only those of one class can be merged".format(
            _WHAT, ", ".join(sorted(classes))))
    made = References(
        class_=parts[0].class_,
        issued_s=max(one.issued_s for one in parts),
        applications={name: frozenset().union(*(one.applications[name] for one in parts)) for name in APPLICATIONS},
        floors={name: max(one.floors[name] for one in parts) for name in APPLICATIONS},
    )
    return read(made.encode())


def _versions(rows: List[Any], name: str) -> FrozenSet[Version]:
    made: List[Version] = []
    for row in rows:
        fields = canonical.Fields.of_row(row, "measurement version", "{}: {}".format(_WHAT, name))
        one = Version(fields.octets("measurement", 32), fields.uint("version"))
        if not any(one.measurement):
            raise PackageError("{}: {}: a measurement of zeros is that of an image that has none".format(_WHAT, name))
        made.append(one)
    if made != sorted(made) or len({one.measurement for one in made}) != len(made):
        raise PackageError("{}: {}: images are not in order, or one stands twice".format(_WHAT, name))
    return frozenset(made)
