"""A floor: one party's fresh word on what of its grants to a device it still stands by, for one start of the device.

    COSE_Sign1 (EdDSA, by the party) of the canonical CBOR map of the fields of ``Floor``

Least numbers, which the device never forgets: of an agreement, of the model's versions, of each grant, and the time.
Where the device has no store that only counts up, its granted keys stay locked until such words come that name it and
its present start, as its evidence does: nothing of an earlier start, and no old state, is of use without. One that
asks for a grant's number and one more withdraws the grant, on any device. The key application reads it by the same
rules (trusty_ta/key/floor.c).
Source: DESIGN section 7; trusty_ta/include/edged_wire.h.
"""

from dataclasses import dataclass
from typing import Any, Dict, Sequence, Tuple

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edged import canonical
from edged.enclave import wire
from edged.errors import PackageError, UsageError
from edged.trust import cose
from edged.trust.grant import NUMBER_MAX

FORM = "edged floor 1"
EXTERNAL = FORM.encode("ascii")
FLOOR_MAX = 512
_WHAT = "floor"
_NAMES = ("form", "time", "model", "start", "device", "grants", "verifier", "agreement")


@dataclass(frozen=True)
class Floor:
    """time_s : the party's clock, Unix      model : least version of a package      start : bootseed of the evidence
    device : as in grants      grants : ((slot, least number), ...), slots rising      verifier : the party's Ed25519
    key      agreement : least number of one"""

    time_s: int
    model: int
    start: bytes
    device: bytes
    grants: Tuple[Tuple[int, int], ...]
    verifier: bytes
    agreement: int

    def encode(self) -> bytes:
        """The payload. Nothing is checked: what no party may sign, a test may."""
        return canonical.encode({
            "form": FORM, "time": self.time_s, "model": self.model, "start": self.start, "device": self.device,
            "grants": [list(one) for one in self.grants], "verifier": self.verifier, "agreement": self.agreement})

    def as_dict(self) -> Dict[str, Any]:
        """For JSON."""
        return {"time": self.time_s, "model": self.model, "start": self.start.hex(), "device": self.device.hex(),
                "grants": {str(slot): number for slot, number in self.grants}, "verifier": self.verifier.hex(),
                "agreement": self.agreement}


def make(time_s: int, model: int, start: bytes, device: bytes, grants: Sequence[Tuple[int, int]], agreement: int,
         signing_key: Ed25519PrivateKey) -> bytes:
    """The file. start, device : of evidence that was *verified* (``grant.thumbprint``)      grants : in any order

    Raises UsageError.
    """
    verifier = signing_key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    payload = Floor(time_s, model, start, device, tuple(sorted(grants)), verifier, agreement).encode()
    try:
        _read(payload)
    except PackageError as error:
        raise UsageError(str(error)) from error
    return seal(payload, signing_key)


def seal(payload: bytes, signing_key: Ed25519PrivateKey) -> bytes:
    """Sign it, whatever it says."""
    return cose.sign_ed25519(payload, signing_key, EXTERNAL)


def is_floor(encoded: bytes) -> bool:
    """Rather than a grant, whose payload is an array. What is neither is no floor."""
    try:
        payload = cose.read(encoded, cose.SIGN1, cose.EDDSA, _WHAT, FLOOR_MAX).payload
    except PackageError:
        return False
    return len(payload) > 0 and payload[0] >> 5 == 5


def open_floor(encoded: bytes) -> Floor:
    """What a floor says, once its form is right and it is signed by whom it names.

    Raises PackageError (form), VerificationFailed.
    """
    message = cose.read(encoded, cose.SIGN1, cose.EDDSA, _WHAT, FLOOR_MAX)
    if message.unprotected:
        raise PackageError("{}: its unprotected header is not empty".format(_WHAT))
    found = _read(message.payload)
    message.verify_ed25519(found.verifier, _WHAT, EXTERNAL)
    return found


def _read(payload: bytes) -> Floor:
    fields = canonical.fields(canonical.decode(payload, _WHAT), _NAMES, _WHAT)
    fields.form(FORM)
    grants = []
    for row in fields.rows("grants", 0, wire.KEY_SLOTS):
        one = canonical.Fields.of_row(row, "slot number", "{}: grants".format(_WHAT))
        grants.append((one.uint("slot", 0, wire.KEY_SLOTS - 1), one.uint("number", 1, NUMBER_MAX)))
    if any(late[0] <= early[0] for early, late in zip(grants, grants[1:])):
        raise PackageError("{}: grants: slots must rise".format(_WHAT))
    found = Floor(
        time_s=fields.uint("time", 0, wire.KEY_FLOOR_TIME_MAX),
        model=fields.uint("model"),
        start=fields.octets("start", 32),
        device=fields.octets("device", 32),
        grants=tuple(grants),
        verifier=fields.octets("verifier", 32),
        agreement=fields.uint("agreement"),
    )
    if not any(found.verifier):
        raise PackageError("{}: verifier is zero".format(_WHAT))
    return found
