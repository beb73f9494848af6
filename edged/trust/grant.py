"""A grant: one key of one party for one slot of one device, under one agreement; useless to everybody else.

    COSE_Sign1 (EdDSA, by the party) of canonical CBOR [header, wrapped]
    header  = canonical CBOR map of the fields of ``Grant``
    wrapped = RSA-OAEP (SHA-256, label SHA-256(header)) of the key, to the grant key that the device's evidence names

The signature says whose key it is, the label that it is meant for this header: whoever signs somebody else's ciphertext
anew, under a header of his own, has a grant that does not open. A number above all that the slot took from the party
makes it the newest. The key application reads it by the same rules (trusty_ta/key/grant.c).
Source: DESIGN section 7; trusty_ta/include/edged_wire.h.
"""

import hashlib
from dataclasses import dataclass
from typing import Any, Dict

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edged import canonical
from edged.enclave import wire
from edged.enclave.slots import KEY_SIZES
from edged.enclave.wire import KeyKind
from edged.errors import KeyRefused, PackageError, UsageError
from edged.trust import cose
from edged.trust.request import read_rsa

FORM = "edged grant 1"
EXTERNAL = FORM.encode("ascii")
GRANT_MAX = 1024
WRAPPED_BYTES = 256  # trusty_ta/lib/crypto.h, CRYPTO_RSA_BYTES: the key application's own keys are RSA-2048
NUMBER_MAX = canonical.UINT32
_WHAT = "grant"
_NAMES = ("form", "kind", "slot", "device", "key_id", "number", "verifier", "agreement")


@dataclass(frozen=True)
class Grant:
    """device : see ``thumbprint``      key_id : 16 bytes      verifier : the party's Ed25519 key, 32 bytes
    agreement : digest of the only one that the key may be used under"""

    kind: KeyKind
    slot: int
    device: bytes
    key_id: bytes
    number: int
    verifier: bytes
    agreement: bytes

    def encode(self) -> bytes:
        """The header. Nothing is checked: what no party may sign, a test may."""
        return canonical.encode({
            "form": FORM, "kind": int(self.kind), "slot": self.slot, "device": self.device, "key_id": self.key_id,
            "number": self.number, "verifier": self.verifier, "agreement": self.agreement})

    def as_dict(self) -> Dict[str, Any]:
        """For JSON."""
        return {"kind": self.kind.name.lower(), "slot": self.slot, "device": self.device.hex(),
                "key_id": self.key_id.hex(), "number": self.number, "verifier": self.verifier.hex(),
                "agreement": self.agreement.hex()}


def thumbprint(receiver: bytes) -> bytes:
    """How a grant names its device. receiver : the grant key of its evidence, DER SubjectPublicKeyInfo"""
    return hashlib.sha256(receiver).digest()


def make(kind: KeyKind, slot: int, key: bytes, key_id: bytes, number: int, agreement: bytes, receiver: bytes,
         signing_key: Ed25519PrivateKey) -> bytes:
    """The file. receiver : the grant key, as evidence that was *verified* says it; agreement : its digest.

    Raises PackageError (receiver), KeyRefused (the key does not fit its kind), UsageError (the rest).
    """
    if len(key) not in KEY_SIZES.get(kind, ()):
        raise KeyRefused("a key of {} bytes is none of kind {}".format(len(key), KeyKind(kind).name.lower()))
    verifier = signing_key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    header = Grant(kind, slot, thumbprint(receiver), key_id, number, verifier, agreement).encode()
    try:
        read_header(header)
    except PackageError as error:
        raise UsageError(str(error)) from error
    return seal(header, wrap(header, key, receiver), signing_key)


def wrap(header: bytes, key: bytes, receiver: bytes) -> bytes:
    """The key for this header alone. Raises PackageError."""
    public = read_rsa(receiver, "grant key")
    if public.key_size != 8 * WRAPPED_BYTES:
        raise PackageError("grant key has {} bits, must have {}: no key application draws another".format(
            public.key_size, 8 * WRAPPED_BYTES))
    return public.encrypt(key, _oaep(header))


def seal(header: bytes, wrapped: bytes, signing_key: Ed25519PrivateKey) -> bytes:
    """Sign header and wrapped key, whatever they say."""
    return cose.sign_ed25519(canonical.encode([header, wrapped]), signing_key, EXTERNAL)


def open_grant(encoded: bytes) -> Grant:
    """What a grant says, once its form is right and it is signed by whom it names. The key stays sealed.

    Raises PackageError (form), VerificationFailed.
    """
    message = cose.read(encoded, cose.SIGN1, cose.EDDSA, _WHAT, GRANT_MAX)
    if message.unprotected:
        raise PackageError("{}: its unprotected header is not empty".format(_WHAT))
    parts = canonical.decode(message.payload, _WHAT, "list")
    if type(parts) is not list or [type(part) for part in parts] != [bytes, bytes]:
        raise PackageError("{} is not a header and a wrapped key".format(_WHAT))
    header, wrapped = parts
    if len(wrapped) != WRAPPED_BYTES:
        raise PackageError("{}: its wrapped key has {} bytes, must have {}".format(_WHAT, len(wrapped), WRAPPED_BYTES))
    found = read_header(header)
    message.verify_ed25519(found.verifier, _WHAT, EXTERNAL)
    return found


def read_header(encoded: bytes) -> Grant:
    """What it says; nobody's signature is looked at. Raises PackageError."""
    fields = canonical.fields(canonical.decode(encoded, _WHAT), _NAMES, _WHAT)
    fields.form(FORM)
    found = Grant(
        kind=KeyKind(fields.uint("kind", KeyKind.MODEL, KeyKind.ALERT)),
        slot=fields.uint("slot", 0, wire.KEY_SLOTS - 1),
        device=fields.octets("device", 32),
        key_id=fields.octets("key_id", 16),
        number=fields.uint("number", 1, NUMBER_MAX),
        verifier=fields.octets("verifier", 32),
        agreement=fields.octets("agreement", 32),
    )
    for name in ("verifier", "agreement"):
        if not any(getattr(found, name)):
            raise PackageError("{}: {} is zero".format(_WHAT, name))
    return found


def _oaep(header: bytes) -> padding.OAEP:
    return padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), hashlib.sha256(header).digest())
