"""A board's request for a certificate: what it says, signed by its attestation key, authenticated by its station.

    COSE_Mac0 (HMAC 256/256) around COSE_Sign1 (PS256, the attestation key) around a canonical CBOR map
    MAC key = HKDF-SHA256(station secret, info = "edged enrol v1")

The station secret is the board's own; whoever flashed the board put it where the key application alone reads it. The
signature shows that the requester holds the key, the MAC which board it is. Neither says what software it runs:
evidence does. Source: DESIGN section 7.
"""

import hashlib
from dataclasses import dataclass

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from edged import canonical
from edged.errors import KeyRefused, PackageError, VerificationFailed
from edged.trust import cose

FORM = "edged certificate request 1"
EXTERNAL = FORM.encode("ascii")
SECRET_BYTES = 32
NONCE_BYTES = 32
UEID_BYTES = 17
UEID_RANDOM = 1          # RFC 9711, 4.2.1: type RAND
RSA_BITS = (2048, 3072)
EXPONENT = 65537
REQUEST_MAX = 4096       # as one message of the wire
_SPKI_MAX = 512
_WHAT = "certificate request"
_NAMES = ("form", "ueid", "grant", "nonce", "attest", "emulated")


@dataclass(frozen=True)
class Request:
    """ueid : 17 bytes      attest, grant : DER SubjectPublicKeyInfo      nonce : the challenge, 32 bytes"""

    ueid: bytes
    grant: bytes
    nonce: bytes
    attest: bytes
    emulated: bool

    def encode(self) -> bytes:
        """What is signed. Nothing is checked: what a board may not ask, a test may."""
        return canonical.encode({"form": FORM, "ueid": self.ueid, "grant": self.grant, "nonce": self.nonce,
                                 "attest": self.attest, "emulated": int(self.emulated)})


def seal(payload: bytes, attest: RSAPrivateKey, secret: bytes) -> bytes:
    """The request as a board sends it."""
    return cose.mac(cose.sign_rsa(payload, attest, EXTERNAL), mac_key(secret), EXTERNAL)


def mac_key(secret: bytes) -> bytes:
    """Raises KeyRefused."""
    if len(secret) != SECRET_BYTES:
        raise KeyRefused("a station secret has {} bytes, not {}".format(SECRET_BYTES, len(secret)))
    return HKDF(hashes.SHA256(), 32, salt=None, info=b"edged enrol v1").derive(secret)


def open_request(encoded: bytes, secret: bytes) -> Request:
    """Of the board whose station secret this is, by the holder of the key that it names.

    Whether the challenge is the right one is for the caller to say.
    Raises PackageError (form), VerificationFailed (MAC or signature), KeyRefused.
    """
    sealed = cose.read(encoded, cose.MAC0, cose.HMAC_256, _WHAT, REQUEST_MAX)
    _bare(sealed)
    sealed.verify_mac(mac_key(secret), _WHAT + " of another board, or altered", EXTERNAL)
    return _read(sealed)


def read_own(encoded: bytes) -> Request:
    """Likewise, for who has no station secret, because it is the board's own application that he asked."""
    return _read(cose.read(encoded, cose.MAC0, cose.HMAC_256, _WHAT, REQUEST_MAX))


def _read(sealed: cose.Message) -> Request:
    signed = cose.read(sealed.payload, cose.SIGN1, cose.PS256, _WHAT, REQUEST_MAX)
    _bare(signed)
    fields = canonical.fields(canonical.decode(signed.payload, _WHAT), _NAMES, _WHAT)
    fields.form(FORM)
    request = Request(
        ueid=fields.octets("ueid", UEID_BYTES),
        grant=fields.octets("grant", 1, _SPKI_MAX),
        nonce=fields.octets("nonce", NONCE_BYTES),
        attest=fields.octets("attest", 1, _SPKI_MAX),
        emulated=fields.uint("emulated", 0, 1) == 1,
    )
    if request.ueid[0] != UEID_RANDOM:
        raise PackageError("{}: ueid is {}, must start with {:02x} (type RAND)".format(
            _WHAT, request.ueid.hex(), UEID_RANDOM))
    read_rsa(request.grant, _WHAT + ": grant")
    signed.verify_rsa(read_rsa(request.attest, _WHAT + ": attest"), _WHAT, EXTERNAL)
    if request.grant == request.attest:
        raise VerificationFailed("{}: one key both attests and receives grants: there must be two".format(_WHAT))
    return request


def read_rsa(spki: bytes, what: str) -> RSAPublicKey:
    """A public key of a size that is taken, in its one encoding. Raises PackageError."""
    try:
        key = serialization.load_der_public_key(spki)
    except Exception as error:  # the library's errors differ between its releases
        raise PackageError("{} is not a public key in DER: {}".format(what, canonical.one_line(error))) from error
    check_rsa(key, what)
    assert isinstance(key, RSAPublicKey)
    if spki_of(key) != spki:
        raise PackageError("{} is not in its one encoding".format(what))
    return key


def check_rsa(key: object, what: str) -> None:
    """Raises PackageError unless it is an RSA key of 2048 or 3072 bits with the usual exponent."""
    if not isinstance(key, RSAPublicKey) or key.key_size not in RSA_BITS or key.public_numbers().e != EXPONENT:
        raise PackageError("{} is not an RSA key of {} bits with exponent {}".format(
            what, " or ".join(map(str, RSA_BITS)), EXPONENT))


def spki_of(key: RSAPublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def fingerprint(spki: bytes) -> bytes:
    """SHA-256. By its attestation key's a device is known to who has seen it."""
    return hashlib.sha256(spki).digest()


def _bare(message: cose.Message) -> None:
    if message.unprotected:
        raise PackageError("{}: its unprotected header is not empty".format(_WHAT))
