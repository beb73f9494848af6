"""COSE (RFC 9052) in the two forms that this project signs with: one signature (COSE_Sign1), one MAC (COSE_Mac0).

    [protected: {1: algorithm}, unprotected, payload, signature or tag]        tag 18 or 17
    what is signed = ["Signature1" or "MAC0", protected, external data, payload]

Reading is strict: one encoding, the algorithm that was expected and no other header in the protected map.
Source: RFC 9053 (EdDSA -8, HMAC 256/256 5), RFC 8230 (PS256 -37).
"""

import hmac
from dataclasses import dataclass
from typing import Any, Dict

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey

from edged import canonical
from edged.errors import PackageError, VerificationFailed

EDDSA, PS256, HMAC_256 = -8, -37, 5
SIGN1, MAC0 = 18, 17
X5CHAIN = 33  # RFC 9360
_SALT = 32    # of PS256: as long as its hash; another length is another signature
_CONTEXTS = {SIGN1: "Signature1", MAC0: "MAC0"}
_NAMES = {SIGN1: "COSE_Sign1", MAC0: "COSE_Mac0"}


@dataclass(frozen=True)
class Message:
    """One decoded. kind : SIGN1 or MAC0      seal : the signature or tag, not yet verified"""

    kind: int
    algorithm: int
    unprotected: Dict[Any, Any]
    payload: bytes
    seal: bytes

    def encode(self) -> bytes:
        return _tag(self.kind) + canonical.encode([
            _protected(self.algorithm), self.unprotected, self.payload, self.seal])

    def covered(self, external: bytes) -> bytes:
        """The bytes that the seal is over."""
        return covered(self.kind, self.algorithm, self.payload, external)

    def verify_rsa(self, key: RSAPublicKey, what: str, external: bytes = b"") -> None:
        """PS256. Raises VerificationFailed."""
        try:
            key.verify(self.seal, self.covered(external), _pss(), hashes.SHA256())
        except InvalidSignature:
            raise VerificationFailed("{}: its signature does not verify".format(what)) from None

    def verify_ed25519(self, public: bytes, what: str, external: bytes = b"") -> None:
        """public : 32 bytes. Raises VerificationFailed."""
        try:
            Ed25519PublicKey.from_public_bytes(public).verify(self.seal, self.covered(external))
        except (InvalidSignature, ValueError):  # ValueError: these 32 bytes are no key
            raise VerificationFailed("{}: its signature does not verify under {}".format(
                what, public.hex())) from None

    def verify_mac(self, key: bytes, what: str, external: bytes = b"") -> None:
        """HMAC 256/256. Raises VerificationFailed."""
        if not hmac.compare_digest(_mac(key, self.covered(external)), self.seal):
            raise VerificationFailed("{}: its MAC does not verify".format(what))


def read(encoded: bytes, kind: int, algorithm: int, what: str, most: int) -> Message:
    """A message of this kind and algorithm, of at most so many bytes. Raises PackageError; verifies nothing."""
    if len(encoded) > most:
        raise PackageError("{} of {} bytes: there are at most {}".format(what, len(encoded), most))
    name = _NAMES[kind]
    # The tag by itself: what stands in one, newer releases of cbor2 decode to other types.
    parts = canonical.decode(encoded[1:], what, name) if encoded[:1] == _tag(kind) else None
    if type(parts) is not list or [type(part) for part in parts] != [bytes, dict, bytes, bytes]:
        raise PackageError("{} is not a {}".format(what, name))
    protected, unprotected, payload, seal = parts
    if protected != _protected(algorithm):
        raise PackageError("{}: its protected header is {}, must be {} (algorithm {} alone)".format(
            what, canonical.one_line(protected.hex()), _protected(algorithm).hex(), algorithm))
    return Message(kind, algorithm, unprotected, payload, seal)


def sign_rsa(payload: bytes, key: RSAPrivateKey, external: bytes = b"") -> bytes:
    return Message(SIGN1, PS256, {}, payload,
                   key.sign(covered(SIGN1, PS256, payload, external), _pss(), hashes.SHA256())).encode()


def sign_ed25519(payload: bytes, key: Ed25519PrivateKey, external: bytes = b"") -> bytes:
    return Message(SIGN1, EDDSA, {}, payload, key.sign(covered(SIGN1, EDDSA, payload, external))).encode()


def mac(payload: bytes, key: bytes, external: bytes = b"") -> bytes:
    return Message(MAC0, HMAC_256, {}, payload, _mac(key, covered(MAC0, HMAC_256, payload, external))).encode()


def covered(kind: int, algorithm: int, payload: bytes, external: bytes) -> bytes:
    return canonical.encode([_CONTEXTS[kind], _protected(algorithm), external, payload])


def _tag(kind: int) -> bytes:
    return bytes([0xc0 | kind])  # major type 6; both are below 24


def _protected(algorithm: int) -> bytes:
    return canonical.encode({1: algorithm})


def _pss() -> padding.PSS:
    return padding.PSS(padding.MGF1(hashes.SHA256()), _SALT)


def _mac(key: bytes, octets: bytes) -> bytes:
    return hmac.new(key, octets, "sha256").digest()
