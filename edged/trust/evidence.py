"""Evidence: what a key application says of itself and its peer, and whether a verifier may believe it.

A CBOR Web Token with the claims of an Entity Attestation Token, signed by the device's attestation key; the device's
certificate and that of its issuing CA travel beside it. Strict by default: not listed, emulated, debug, unfused,
unknown or older measurement, wrong nonce, stale, revoked, altered in any byte: refused, each with its own reason.

    COSE_Sign1, PS256, unprotected {33 (x5chain): [device, issuing CA]}, payload = canonical CBOR map of the claims

Source: RFC 8392 (CWT), RFC 9711 (EAT), RFC 8747 (cnf), RFC 9360 (x5chain); DESIGN section 7.
"""

import hashlib
import hmac
from dataclasses import dataclass
from typing import Any, Collection, Dict, Optional, Sequence, Tuple
from uuid import UUID

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey, RSAPublicNumbers

from edged import canonical
from edged.canonical import Fields
from edged.enclave import wire
from edged.errors import PackageError, VerificationFailed
from edged.trust import chain, cose
from edged.trust.reference import APPLICATIONS, References, Version
from edged.trust.request import UEID_BYTES, check_rsa, fingerprint, spki_of

PROFILE = wire.EDGED_EVIDENCE_PROFILE
EVIDENCE_MAX = 16384
NONCE_BYTES = (wire.KEY_NONCE_MIN, wire.KEY_NONCE_MAX)
NONCE_S = 300  # how long after the nonce was drawn evidence is still fresh

_CLAIMS = {8: "cnf", 10: "nonce", 256: "ueid", 262: "oemboot", 263: "dbgstat", 265: "profile", 266: "submods",
           268: "bootseed", -65537: "class"}
_APPLICATION = {-65538: "measurement", -65539: "version", -65540: "uuid"}
_COSE_KEY = {1: "kty", -1: "n", -2: "e"}
_KTY_RSA = 3
_DEBUG = ("enabled", "disabled", "disabled since boot", "disabled permanently", "disabled fully and permanently")
_DEBUG_NEVER = 2  # since boot: "disabled" alone does not say that nobody debugged it before
_MODULUS_MAX = 3072 // 8
_WHAT = "evidence"


@dataclass(frozen=True)
class Application:
    """measurement : 32 bytes      version : security version      uuid : 16 bytes"""

    measurement: bytes
    version: int
    uuid: bytes


@dataclass(frozen=True)
class Claims:
    """All of it as the device says it. grant : DER SubjectPublicKeyInfo      debug : index of RFC 9711's dbgstat
    class_ : what the application believes of itself      applications : of "key", and of "eval" where it ran"""

    grant: bytes
    nonce: bytes
    ueid: bytes
    oemboot: bool
    debug: int
    applications: Dict[str, Application]
    bootseed: bytes
    class_: str


@dataclass(frozen=True)
class Evidence:
    """Decoded, not verified. chain : certificates in DER, the device's first"""

    message: cose.Message
    chain: Tuple[bytes, ...]
    claims: Claims


@dataclass(frozen=True)
class Expected:
    """nonce : as the verifier drew it at ``issued_s``      ueid : of the device that was asked, where that is known"""

    nonce: bytes
    issued_s: int
    ueid: Optional[bytes] = None


@dataclass(frozen=True)
class Policy:
    """What a verifier lets pass that nobody should in earnest, and how old a nonce may be.

    devices : fingerprints (trust/request.py) of the attestation keys that it has seen for itself; None: whatever the
    authority certifies is a device, for who trusts that not to certify a key of its own
    """

    allow_emulated: bool = False
    allow_debug: bool = False
    allow_unfused: bool = False
    nonce_s: int = NONCE_S
    devices: Optional[Collection[bytes]] = ()


@dataclass(frozen=True)
class Verified:
    """class_ : the issuing CA's      attest : fingerprint of the attestation key
    grant : DER SubjectPublicKeyInfo, to which alone keys may go
    serial, until_s : of the device's certificate"""

    ueid: bytes
    class_: str
    attest: bytes
    grant: bytes
    applications: Dict[str, Application]
    oemboot: bool
    debug: int
    bootseed: bytes
    serial: int
    until_s: int

    def as_dict(self) -> Dict[str, Any]:
        """For JSON."""
        return {
            "ueid": self.ueid.hex(),
            "class": self.class_,
            "attestation_key": self.attest.hex(),
            "grant_sha256": hashlib.sha256(self.grant).hexdigest(),
            "applications": {name: {"measurement": one.measurement.hex(), "version": one.version,
                                    "uuid": one.uuid.hex()} for name, one in self.applications.items()},
            "oemboot": self.oemboot,
            "debug": _DEBUG[self.debug],
            "bootseed": self.bootseed.hex(),
            "certificate": "{:x}".format(self.serial),
            "certificate_until": chain.day(self.until_s),
        }


def parse(encoded: bytes) -> Evidence:
    """Raises PackageError unless this is the one form of evidence. Nothing is verified."""
    message = cose.read(encoded, cose.SIGN1, cose.PS256, _WHAT, EVIDENCE_MAX)
    headers = canonical.fields(message.unprotected, {cose.X5CHAIN: "x5chain"}, _WHAT + ": unprotected header")
    certificates = headers.list("x5chain", 2)
    if any(type(one) is not bytes for one in certificates):
        raise PackageError("{}: x5chain is not a list of certificates".format(_WHAT))
    return Evidence(message, tuple(certificates), _claims(message.payload))


def with_chain(encoded: bytes, certificates: Sequence[bytes]) -> bytes:
    """As the enclave signed it (no unprotected header), with the certificates put in. Raises PackageError."""
    message = cose.read(encoded, cose.SIGN1, cose.PS256, _WHAT, EVIDENCE_MAX)
    if message.unprotected:
        raise PackageError("{}: its unprotected header is not empty".format(_WHAT))
    made = cose.Message(message.kind, message.algorithm, {cose.X5CHAIN: list(certificates)}, message.payload,
                        message.seal).encode()
    parse(made)
    return made


def verify(encoded: bytes, expected: Expected, root: x509.Certificate,
           crls: Sequence[x509.CertificateRevocationList], references: Sequence[References], now_s: int,
           policy: Policy = Policy()) -> Verified:
    """Whether a device is one to be trusted now, and what it is.

    references : whose signatures were checked (trust/reference.py)      now_s : Unix seconds
    Raises PackageError (form), VerificationFailed with the one reason.
    """
    evidence = parse(encoded)
    device = chain.check(evidence.chain, root, crls, now_s)
    evidence.message.verify_rsa(device.key, _WHAT)
    claims = evidence.claims
    _check_listed(device, policy)
    _check_nonce(claims, expected, now_s, policy)
    _check_identity(claims, device, expected)
    _check_class(claims, device, policy)
    _check_state(claims, policy)
    _check_applications(claims, device.class_, references)
    return Verified(ueid=claims.ueid, class_=device.class_, attest=fingerprint(spki_of(device.key)), grant=claims.grant,
                    applications=claims.applications, oemboot=claims.oemboot, debug=claims.debug,
                    bootseed=claims.bootseed, serial=device.serial, until_s=device.until_s)


def _claims(payload: bytes) -> Claims:
    fields = canonical.fields(canonical.decode(payload, _WHAT), _CLAIMS, _WHAT)
    fields.choice("profile", (PROFILE,))
    submods = fields.fields("submods", tuple(APPLICATIONS), optional=("eval",))
    return Claims(
        grant=_grant(fields.fields("cnf", {1: "COSE_Key"})),
        nonce=fields.octets("nonce", *NONCE_BYTES),
        ueid=fields.octets("ueid", UEID_BYTES),
        oemboot=fields.flag("oemboot"),
        debug=fields.uint("dbgstat", 0, len(_DEBUG) - 1),
        applications={name: _application(submods.fields(name, _APPLICATION)) for name in APPLICATIONS
                      if name in submods},
        bootseed=fields.octets("bootseed", 32),
        class_=fields.choice("class", chain.CLASSES),
    )


def _application(fields: Fields) -> Application:
    return Application(fields.octets("measurement", 32), fields.uint("version"), fields.octets("uuid", 16))


def _grant(cnf: Fields) -> bytes:
    """A COSE_Key (RFC 8230) as SubjectPublicKeyInfo."""
    key = cnf.fields("COSE_Key", _COSE_KEY)
    key.uint("kty", _KTY_RSA, _KTY_RSA)
    modulus, exponent = key.octets("n", 1, _MODULUS_MAX), key.octets("e", 1, 4)
    if 0 in (modulus[0], exponent[0]):
        raise PackageError("{}: a number starts with zeros".format(cnf.what))
    try:
        made = RSAPublicNumbers(int.from_bytes(exponent, "big"), int.from_bytes(modulus, "big")).public_key()
    except ValueError as error:
        raise PackageError("{} is no RSA key: {}".format(cnf.what, canonical.one_line(error))) from error
    check_rsa(made, cnf.what)
    assert isinstance(made, RSAPublicKey)
    return spki_of(made)


def _check_listed(device: chain.Device, policy: Policy) -> None:
    """A certificate is its authority's word alone, who could have made the key itself."""
    seen = fingerprint(spki_of(device.key))
    if policy.devices is not None and seen not in policy.devices:
        raise VerificationFailed("attestation key {} is not listed: where that is what `edgectl identity show` prints "
                                 "on the board itself, list it (`devices` of keyserver.toml, --device)".format(
                                     seen.hex()))


def _check_nonce(claims: Claims, expected: Expected, now_s: int, policy: Policy) -> None:
    if not hmac.compare_digest(claims.nonce, expected.nonce):
        raise VerificationFailed("evidence answers another nonce: {}, not {}".format(
            claims.nonce.hex(), expected.nonce.hex()))
    if now_s < expected.issued_s:
        raise VerificationFailed("the nonce was drawn in the future, at {}: check this machine's clock".format(
            chain.day(expected.issued_s)))
    if now_s - expected.issued_s > policy.nonce_s:
        raise VerificationFailed("evidence is stale: its nonce was drawn {} s ago, more than {}: ask anew".format(
            now_s - expected.issued_s, policy.nonce_s))


def _check_identity(claims: Claims, device: chain.Device, expected: Expected) -> None:
    if claims.ueid != device.ueid:
        raise VerificationFailed("evidence is of device {}, its certificate of {}".format(
            claims.ueid.hex(), device.ueid.hex()))
    if expected.ueid is not None and claims.ueid != expected.ueid:
        raise VerificationFailed("evidence is of device {}, asked was {}".format(
            claims.ueid.hex(), expected.ueid.hex()))
    if hashlib.sha256(claims.grant).digest() != device.grant:
        raise VerificationFailed("evidence names another grant key than the device's certificate")
    if claims.grant == spki_of(device.key):
        raise VerificationFailed("one key both attests and receives grants: there must be two")


def _check_class(claims: Claims, device: chain.Device, policy: Policy) -> None:
    """The CA's word counts; of the device's own only what speaks against it."""
    if chain.EMULATED in (device.class_, claims.class_) and not policy.allow_emulated:
        raise VerificationFailed("the device is emulated ({}) and protects nothing: --allow-emulated, if that is "
                                 "meant".format("its certificate says so" if device.class_ == chain.EMULATED
                                                else "it says so itself"))


def _check_state(claims: Claims, policy: Policy) -> None:
    if claims.debug < _DEBUG_NEVER and not policy.allow_debug:
        raise VerificationFailed("debugging is {}, not {} or better: --allow-debug, if that is meant".format(
            _DEBUG[claims.debug], _DEBUG[_DEBUG_NEVER]))
    if not claims.oemboot and not policy.allow_unfused:
        raise VerificationFailed("the board is not fused, nothing vouches for its measurements: --allow-unfused, if "
                                 "that is meant")


def _check_applications(claims: Claims, class_: str, references: Sequence[References]) -> None:
    known = [one for one in references if one.class_ == class_]
    if not known:
        raise VerificationFailed("no reference values of the {} class were given".format(class_))
    for name, uuid in APPLICATIONS.items():
        one = claims.applications.get(name)
        if one is None:
            raise VerificationFailed("no {} application has run since the key application started: open a session "
                                     "with it first".format(name))
        if one.uuid != uuid:
            raise VerificationFailed("the {} application's UUID is {}, must be {}".format(
                name, UUID(bytes=one.uuid), UUID(bytes=uuid)))
        floor = max(values.floors[name] for values in known)
        if one.version < floor:
            raise VerificationFailed("the {} application is of security version {}, older than {}: update it".format(
                name, one.version, floor))
        if not any(Version(one.measurement, one.version) in values.applications[name] for values in known):
            raise VerificationFailed("the {} application's measurement {} in version {} is none of the reference "
                                     "values'".format(name, one.measurement.hex(), one.version))
