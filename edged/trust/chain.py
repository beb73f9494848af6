"""Certificates of devices: how they are made, and what a verifier asks of them.

    root (path length 1) -> issuing CA of one class (path length 0; the class in a critical extension) -> device

    device: CN = ueid in hex, its RSA attestation key, digital signatures only, at most two years, and in an extension
    the SHA-256 of the public key that receives grants. Each issuing CA has a revocation list of its own.

The class (hardware or emulated) is that of the issuing CA: nothing that a device says of itself changes it. A verifier
takes exactly these forms: X.509 that means more, or less, is refused. All CA keys are EC P-256, signing with SHA-256.
Times are Unix seconds. Source: RFC 5280; DESIGN section 7.
"""

import calendar
import datetime
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Collection, Dict, Iterable, Iterator, List, Optional, Sequence, Tuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.x509.oid import ExtensionOID, NameOID, SignatureAlgorithmOID

from edged import canonical
from edged.errors import EdgedError, PackageError, VerificationFailed
from edged.trust.request import UEID_BYTES, check_rsa

HARDWARE, EMULATED = "hardware", "emulated"
CLASSES = (HARDWARE, EMULATED)
CLASS_OID = x509.ObjectIdentifier("2.25.274826353425461186093487269131547385873")
GRANT_OID = x509.ObjectIdentifier("2.25.274826353425461186093487269131547385874")
DAY_S = 86400
ROOT_DAYS, ISSUING_DAYS, DEVICE_DAYS = 20 * 365, 10 * 365, 2 * 365
CRL_DAYS, CRL_DAYS_MOST = 7, 31
CERTIFICATE_MAX = 4096  # bytes

_BIT_STRING, _OCTET_STRING, _UTF8_STRING, _SEQUENCE = 0x03, 0x04, 0x0c, 0x30  # DER tags
_ECDSA_WITH_SHA256 = bytes.fromhex("300a06082a8648ce3d040302")
_COMMON = (ExtensionOID.BASIC_CONSTRAINTS, ExtensionOID.KEY_USAGE, ExtensionOID.SUBJECT_KEY_IDENTIFIER)
_ISSUED = _COMMON + (ExtensionOID.AUTHORITY_KEY_IDENTIFIER,)
_USAGES = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
           "key_cert_sign", "crl_sign")
_OF_A_CA = ("key_cert_sign", "crl_sign")
_OF_A_DEVICE = ("digital_signature",)

Reasons = Dict[int, Tuple[int, x509.ReasonFlags]]


@dataclass(frozen=True)
class Device:
    """What a chain that was checked says. grant : SHA-256 of the grant key      until_s : of the leaf"""

    ueid: bytes
    class_: str
    key: RSAPublicKey
    grant: bytes
    serial: int
    until_s: int


# Making.


def make_root(key: ec.EllipticCurvePrivateKey, city: str, now_s: int) -> x509.Certificate:
    name = _name("edged {} root".format(city))
    return _signed(_builder(name, name, key.public_key(), now_s, ROOT_DAYS, _OF_A_CA, path_length=1), key, None)


def make_issuing(root: x509.Certificate, root_key: ec.EllipticCurvePrivateKey, key: ec.EllipticCurvePublicKey,
                 city: str, class_: str, now_s: int) -> x509.Certificate:
    builder = _builder(root.subject, _name("edged {} {}".format(city, class_)), key, now_s, ISSUING_DAYS, _OF_A_CA,
                       path_length=0, until_s=seconds(root, "not_valid_after"))
    return _signed(builder.add_extension(x509.UnrecognizedExtension(CLASS_OID, _class_value(class_)), critical=True),
                   root_key, root)


def make_device(issuing: x509.Certificate, issuing_key: ec.EllipticCurvePrivateKey, ueid: bytes, key: RSAPublicKey,
                grant: bytes, now_s: int, days: int = DEVICE_DAYS) -> x509.Certificate:
    """grant : SHA-256 of the grant key's SubjectPublicKeyInfo"""
    builder = _builder(issuing.subject, _name(ueid.hex()), key, now_s, days, _OF_A_DEVICE, path_length=None,
                       until_s=seconds(issuing, "not_valid_after"))
    return _signed(builder.add_extension(x509.UnrecognizedExtension(GRANT_OID, _grant_value(grant)), critical=False),
                   issuing_key, issuing)


def make_crl(issuing: x509.Certificate, issuing_key: ec.EllipticCurvePrivateKey, revoked: Reasons, number: int,
             now_s: int, days: int = CRL_DAYS) -> x509.CertificateRevocationList:
    """revoked : {serial number: (when, why)}"""
    builder = (x509.CertificateRevocationListBuilder().issuer_name(issuing.subject).last_update(_time(now_s))
               .next_update(_time(now_s + days * DAY_S)).add_extension(x509.CRLNumber(number), critical=False)
               .add_extension(_authority(issuing), critical=False))
    for serial, (when_s, reason) in sorted(revoked.items()):
        builder = builder.add_revoked_certificate(
            x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(_time(when_s))
            .add_extension(x509.CRLReason(reason), critical=False).build())
    return builder.sign(issuing_key, hashes.SHA256())


def _builder(issuer: x509.Name, subject: x509.Name, key: Any, now_s: int, days: int, usages: Collection[str],
             path_length: Optional[int], until_s: Optional[int] = None) -> x509.CertificateBuilder:
    until = now_s + days * DAY_S if until_s is None else min(now_s + days * DAY_S, until_s)
    return (x509.CertificateBuilder().issuer_name(issuer).subject_name(subject).public_key(key)
            .serial_number(x509.random_serial_number()).not_valid_before(_time(now_s)).not_valid_after(_time(until))
            .add_extension(x509.BasicConstraints(ca=path_length is not None, path_length=path_length), critical=True)
            .add_extension(x509.KeyUsage(encipher_only=False, decipher_only=False,
                                         **{usage: usage in usages for usage in _USAGES}), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False))


def _signed(builder: x509.CertificateBuilder, key: ec.EllipticCurvePrivateKey,
            issuer: Optional[x509.Certificate]) -> x509.Certificate:
    if issuer is not None:
        builder = builder.add_extension(_authority(issuer), critical=False)
    return builder.sign(key, hashes.SHA256())


def _authority(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(
        issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value)


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _class_value(class_: str) -> bytes:
    return _tlv(_UTF8_STRING, class_.encode("ascii"))


def _grant_value(grant: bytes) -> bytes:
    return _tlv(_OCTET_STRING, grant)


def _time(seconds_: int) -> datetime.datetime:
    return datetime.datetime(1970, 1, 1) + datetime.timedelta(seconds=seconds_)


# Reading.


def seconds(thing: Any, name: str) -> int:
    """A time of a certificate or list. Newer releases of the library give it with a zone, older ones without."""
    found = getattr(thing, name + "_utc" if hasattr(thing, name + "_utc") else name)
    if found is None:
        raise PackageError("{} is missing".format(name))
    return calendar.timegm(found.utctimetuple())


def der(thing: Any) -> bytes:
    return thing.public_bytes(serialization.Encoding.DER)


def pem(things: Iterable[Any]) -> bytes:
    return b"".join(thing.public_bytes(serialization.Encoding.PEM) for thing in things)


def read_certificate(encoded: bytes, what: str) -> x509.Certificate:
    """One in DER, signed with ECDSA and SHA-256, in its one encoding. Raises PackageError."""
    if len(encoded) > CERTIFICATE_MAX:
        raise PackageError("{} of {} bytes: there are at most {}".format(what, len(encoded), CERTIFICATE_MAX))
    with _reading(what):
        found = x509.load_der_x509_certificate(encoded)
        # Built again of its parts: the library overlooks a count of unused bits at the signature.
        parts = found.tbs_certificate_bytes + _ECDSA_WITH_SHA256 + _tlv(_BIT_STRING, b"\0" + found.signature)
        if _tlv(_SEQUENCE, parts) != encoded:
            raise PackageError("{} is not in its one encoding".format(what))
        return found


def read_pem(content: bytes, what: str) -> List[x509.Certificate]:
    """The certificates of a PEM file, at least one. Raises PackageError."""
    mark = b"-----BEGIN CERTIFICATE-----"
    with _reading(what):
        found = [x509.load_pem_x509_certificate(mark + part) for part in content.split(mark)[1:]]
    if not found:
        raise PackageError("{}: no certificate in PEM".format(what))
    return found


def read_crl(content: bytes, what: str) -> x509.CertificateRevocationList:
    """In PEM or DER. Raises PackageError."""
    with _reading(what):
        load = x509.load_pem_x509_crl if content.startswith(b"-----") else x509.load_der_x509_crl
        return load(content)


def _tlv(tag: int, content: bytes) -> bytes:
    """DER, of at most 65535 bytes."""
    size = len(content)
    length = bytes([size]) if size < 128 else bytes([0x81, size]) if size < 256 else b"\x82" + size.to_bytes(2, "big")
    return bytes([tag]) + length + content


@contextmanager
def _reading(what: str) -> Iterator[None]:
    """Around the library, which parses some parts only when they are asked for; its errors differ between releases."""
    try:
        yield
    except EdgedError:
        raise
    except Exception as error:
        raise PackageError("{} is not well formed: {}".format(what, canonical.one_line(repr(error)))) from error


# Checking.


def check(chain: Sequence[bytes], root: x509.Certificate, crls: Sequence[x509.CertificateRevocationList],
          now_s: int) -> Device:
    """Of a device certificate and that of its issuing CA, in DER, under a root that is known from elsewhere.

    Raises PackageError (form), VerificationFailed with the one reason.
    """
    if len(chain) != 2:
        raise VerificationFailed("{} certificates came with it, not two: the device's and its issuing CA's".format(
            len(chain)))
    leaf = read_certificate(chain[0], "device certificate")
    issuing = read_certificate(chain[1], "issuing CA's certificate")
    check_root(root, now_s)
    class_ = _check_issuing(issuing, root, now_s)
    with _reading("device certificate"):
        device = _check_device(leaf, issuing, class_, now_s)
    _check_not_revoked(leaf, issuing, class_, crls, now_s)
    return device


def check_root(root: x509.Certificate, now_s: int) -> None:
    what = "root certificate"
    with _reading(what):
        _check_form(root, what, _COMMON, 1, _OF_A_CA)
        _check_signature(root, root, what)
        _check_time(root, what, now_s)


def _check_issuing(issuing: x509.Certificate, root: x509.Certificate, now_s: int) -> str:
    what = "issuing CA's certificate"
    with _reading(what):
        _check_signature(issuing, root, what)
        _check_form(issuing, what, _ISSUED + (CLASS_OID,), 0, _OF_A_CA)
        _check_time(issuing, what, now_s)
        entry = issuing.extensions.get_extension_for_oid(CLASS_OID)
        for class_ in CLASSES:
            if entry.critical and entry.value.value == _class_value(class_):
                return class_
    raise VerificationFailed("{}: its class is none of {}".format(what, ", ".join(CLASSES)))


def _check_device(leaf: x509.Certificate, issuing: x509.Certificate, class_: str, now_s: int) -> Device:
    what = "device certificate"
    _check_signature(leaf, issuing, what)
    _check_form(leaf, what, _ISSUED + (GRANT_OID,), None, _OF_A_DEVICE)
    _check_time(leaf, what, now_s)
    if seconds(leaf, "not_valid_after") - seconds(leaf, "not_valid_before") > DEVICE_DAYS * DAY_S:
        raise VerificationFailed("{}: is valid for more than {} days".format(what, DEVICE_DAYS))
    key = leaf.public_key()
    check_rsa(key, what + "'s key")
    grant = leaf.extensions.get_extension_for_oid(GRANT_OID).value.value
    if len(grant) != 34 or grant != _grant_value(grant[2:]):
        raise VerificationFailed("{}: its grant key is not named by 32 bytes".format(what))
    common = [one.value for one in leaf.subject]
    ueid = bytes.fromhex(common[0]) if len(common) == 1 and leaf.subject == _name(common[0]) else b""
    if len(ueid) != UEID_BYTES or common[0] != ueid.hex():
        raise VerificationFailed("{}: its subject is {}, must be a ueid of {} bytes".format(
            what, canonical.one_line(leaf.subject.rfc4514_string()), UEID_BYTES))
    return Device(ueid, class_, key, grant[2:], leaf.serial_number, seconds(leaf, "not_valid_after"))


def _check_form(found: x509.Certificate, what: str, oids: Collection[x509.ObjectIdentifier], path_length: Optional[int],
                usages: Collection[str]) -> None:
    extensions = {entry.oid: entry for entry in found.extensions}
    if set(extensions) != set(oids):
        raise VerificationFailed("{}: extensions missing or unknown: {}".format(
            what, ", ".join(sorted(oid.dotted_string for oid in set(extensions) ^ set(oids)))))
    constraints = extensions[ExtensionOID.BASIC_CONSTRAINTS]
    is_ca, length = constraints.value.ca, constraints.value.path_length
    if not constraints.critical or is_ca != (path_length is not None) or length != path_length:
        raise VerificationFailed("{}: basic constraints are CA {}, path length {}; must be critical, CA {}, {}".format(
            what, is_ca, length, path_length is not None, path_length))
    usage = extensions[ExtensionOID.KEY_USAGE]
    has = [name for name in _USAGES if getattr(usage.value, name)]
    if not usage.critical or sorted(has) != sorted(usages):
        raise VerificationFailed("{}: key usage is {}; must be critical, {}".format(
            what, ", ".join(has) or "none", ", ".join(usages)))


def _check_signature(found: Any, issuer: x509.Certificate, what: str) -> None:
    """Of a certificate or a revocation list."""
    key = issuer.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise VerificationFailed("{}: its issuer's key is not EC P-256".format(what))
    octets = found.tbs_certlist_bytes if hasattr(found, "tbs_certlist_bytes") else found.tbs_certificate_bytes
    try:
        if found.issuer == issuer.subject and found.signature_algorithm_oid == SignatureAlgorithmOID.ECDSA_WITH_SHA256:
            key.verify(found.signature, octets, ec.ECDSA(hashes.SHA256()))
            return
    except InvalidSignature:
        pass
    raise VerificationFailed("{}: was not issued by {}".format(
        what, canonical.one_line(issuer.subject.rfc4514_string())))


def _check_time(found: x509.Certificate, what: str, now_s: int) -> None:
    since, until = seconds(found, "not_valid_before"), seconds(found, "not_valid_after")
    if now_s < since:
        raise VerificationFailed("{}: is valid from {} on only: check this machine's clock".format(what, day(since)))
    if now_s > until:
        raise VerificationFailed("{}: expired on {}".format(what, day(until)))


def _check_not_revoked(leaf: x509.Certificate, issuing: x509.Certificate, class_: str,
                       crls: Sequence[x509.CertificateRevocationList], now_s: int) -> None:
    what = _list_of(class_)
    when_s = revoked_s(leaf.serial_number, issuing, class_, crls)
    if when_s is not None:
        raise VerificationFailed("device certificate: was revoked on {}".format(day(when_s)))
    with _reading(what):
        own = [crl for crl in crls if crl.issuer == issuing.subject]
        fresh = any(seconds(crl, "last_update") <= now_s < seconds(crl, "next_update") for crl in own)
    if not fresh:
        raise VerificationFailed("{} {}: take the city's newest (`edged-city ca crl`)".format(
            what, "is stale or not yet valid" if own else "is missing"))


def revoked_s(serial: int, issuing: x509.Certificate, class_: str,
              crls: Sequence[x509.CertificateRevocationList]) -> Optional[int]:
    """When the certificate of this number was revoked, by lists fresh or old: those tell it as well.

    issuing : of a chain that was checked. Raises PackageError (form), VerificationFailed (a list that is not its own).
    """
    what = _list_of(class_)
    with _reading(what):
        for crl in crls:
            if crl.issuer != issuing.subject:
                continue
            _check_signature(crl, issuing, what)
            extra = {entry.oid for entry in crl.extensions} - {
                ExtensionOID.CRL_NUMBER, ExtensionOID.AUTHORITY_KEY_IDENTIFIER}
            if extra:
                raise VerificationFailed("{}: unknown extensions: {}".format(
                    what, ", ".join(sorted(oid.dotted_string for oid in extra))))
            entry = crl.get_revoked_certificate_by_serial_number(serial)
            if entry is not None:
                return seconds(entry, "revocation_date")
    return None


def _list_of(class_: str) -> str:
    return "revocation list of the {} class".format(class_)


def aging(crls: Sequence[x509.CertificateRevocationList], now_s: int) -> List[str]:
    """A line for each class whose newest list has lived half of its life: what is to come may be late."""
    newest: Dict[str, Tuple[int, int]] = {}
    for crl in crls:
        issuer = canonical.one_line(crl.issuer.rfc4514_string())
        newest[issuer] = max(newest.get(issuer, (0, 0)), (seconds(crl, "next_update"), seconds(crl, "last_update")))
    return ["revocation list of {}: good until {}: take the city's newest (`edged-city ca crl`)".format(
                issuer, day(until)) for issuer, (until, since) in sorted(newest.items()) if 2 * now_s >= since + until]


def day(seconds_: int) -> str:
    return _time(seconds_).strftime("%Y-%m-%d %H:%M:%S UTC")
