"""A stand-in for the key application, and a city around it: evidence and requests of which one thing can be broken."""

import functools
import hashlib
from dataclasses import dataclass, replace

import cbor2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edged.errors import VerificationFailed
from edged.trust import chain, cose, evidence, reference, request
from edged.trust.certificates import Authority
from edged.trust.evidence import Expected
from edged.trust.reference import APPLICATIONS, References, Version

NOW = 1800000000
DAY_S = 86400
PASSPHRASE = b"correct horse battery"
CHEAP = 1 << 4  # of scrypt
MO = Ed25519PrivateKey.from_private_bytes(b"\1" * 32)
OTHER = Ed25519PrivateKey.from_private_bytes(b"\3" * 32)
MEASUREMENTS = {"key": b"k" * 32, "eval": b"e" * 32}
NONCE = bytes(range(32))
EXPECTED = Expected(NONCE, NOW - 10)
KEYS = [rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(4)]


def cose_key(key):
    """An RSA key as evidence carries it: COSE_Key (RFC 8230), both numbers in as few bytes as they take."""
    numbers = key.public_numbers()
    modulus, exponent = (one.to_bytes(-(-one.bit_length() // 8), "big") for one in (numbers.n, numbers.e))
    return {1: 3, -1: modulus, -2: exponent}


def seen(key):
    """By what its owner lists a device with this attestation key."""
    return request.fingerprint(request.spki_of(key.public_key()))


# Strict, but for devices that were seen: those of Office, and whoever has their keys.
Policy = functools.partial(evidence.Policy, devices=tuple(seen(key) for key in KEYS))
ANYTHING = Policy(allow_emulated=True, allow_debug=True, allow_unfused=True)


def raw_public(key):
    from edged.emulated import public_bytes
    return public_bytes(key)


@dataclass(frozen=True)
class Device:
    """A key application with its two keys, on a board with this station secret."""

    ueid: bytes = b"\1" + b"n" * 16
    attest: rsa.RSAPrivateKey = KEYS[0]
    grant: rsa.RSAPrivateKey = KEYS[1]
    secret: bytes = b"s" * 32
    emulated: bool = False

    def asks(self, nonce, **changes):
        """The payload of a certificate request."""
        fields = dict(ueid=self.ueid, grant=request.spki_of(self.grant.public_key()), nonce=nonce,
                      attest=request.spki_of(self.attest.public_key()), emulated=self.emulated)
        return request.Request(**dict(fields, **changes)).encode()

    def request(self, nonce, **changes):
        return request.seal(self.asks(nonce, **changes), self.attest, self.secret)

    def claims(self, nonce=NONCE):
        """As a map: what hardware would say."""
        return {
            8: {1: cose_key(self.grant.public_key())},
            10: nonce,
            256: self.ueid,
            262: True,
            263: 3,
            265: evidence.PROFILE,
            266: {name: {-65538: MEASUREMENTS[name], -65539: 1, -65540: uuid} for name, uuid in APPLICATIONS.items()},
            268: b"b" * 32,
            -65537: "emulated" if self.emulated else "hardware",
        }

    def attests(self, claims, certificates):
        """Evidence of these claims (a map, or bytes as they are), as it leaves the node."""
        payload = claims if isinstance(claims, bytes) else cbor2.dumps(claims, canonical=True)
        signed = cose.read(cose.sign_rsa(payload, self.attest), cose.SIGN1, cose.PS256, "", 1 << 16)
        return replace(signed, unprotected={cose.X5CHAIN: list(certificates)}).encode()


REFERENCES = {class_: References(class_, NOW - DAY_S, {
    name: frozenset([Version(measurement, 1)]) for name, measurement in MEASUREMENTS.items()}, {"key": 1, "eval": 1})
    for class_ in chain.CLASSES}


class Office:
    """A city's authority with one board of each class enrolled.

    device, emulated : devices      chains : their certificates in DER, device's first      crls : of both classes
    """

    def __init__(self, folder):
        self.authority = Authority(str(folder), CHEAP)
        self.authority.create("Testing", PASSPHRASE, NOW - 30 * DAY_S)
        self.device = Device()
        self.emulated = Device(ueid=b"\1" + b"m" * 16, attest=KEYS[2], grant=KEYS[3], secret=b"t" * 32, emulated=True)
        self.chains = {}
        for device, serial, class_ in ((self.device, "board-1", "hardware"), (self.emulated, "board-2", "emulated")):
            self.authority.add_board(serial, class_ + "-node", class_, device.secret, PASSPHRASE)
            self.chains[class_] = self.enrol(serial, device)
        self.root = self.authority.certificate("root")
        self.crls = [self.crl(class_) for class_ in chain.CLASSES]

    def enrol(self, serial, device, now_s=NOW - DAY_S, **options):
        nonce = self.authority.challenge(serial, now_s)
        made = self.authority.enrol(serial, device.request(nonce), PASSPHRASE, now_s, **options)
        return tuple(chain.der(one) for one in chain.read_pem(made.chain, "chain"))

    def crl(self, class_, now_s=NOW - 3600, **options):
        return chain.read_crl(self.authority.crl(class_, PASSPHRASE, now_s, **options), "crl")

    def key(self, name):
        """A CA's private key."""
        return self.authority._issuing_key(name, PASSPHRASE)

    def issue(self, class_="hardware", device=None, **changes):
        """A chain with a device certificate made by hand."""
        device = device or self.device
        terms = dict(ueid=device.ueid, key=device.attest.public_key(), now_s=NOW - DAY_S,
                     grant=hashlib.sha256(request.spki_of(device.grant.public_key())).digest())
        issuing = self.authority.certificate(class_)
        return (chain.der(chain.make_device(issuing, self.key(class_), **dict(terms, **changes))), chain.der(issuing))

    def evidence(self, **changes):
        """Of the hardware device, valid but for these claims: {name: value}; None leaves one out."""
        return self.device.attests(changed(self.device.claims(), **changes), self.chains["hardware"])

    def verify(self, encoded, **changes):
        given = dict(expected=EXPECTED, root=self.root, crls=self.crls, references=list(REFERENCES.values()), now_s=NOW,
                     policy=Policy())
        return evidence.verify(encoded, **dict(given, **changes))


@pytest.fixture(scope="module")
def office(tmp_path_factory):
    return Office(tmp_path_factory.mktemp("authority") / "ca")


def refused(what):
    return pytest.raises(VerificationFailed, match=what)


CLAIMS = {name: number for number, name in evidence._CLAIMS.items()}


def changed(claims, **changes):
    made = dict(claims)
    for name, value in changes.items():
        made[CLAIMS[name.rstrip("_")]] = value
    return {number: value for number, value in made.items() if value is not None}


def rebuilt(certificate, key, issuer=None, **changes):
    """A certificate once more, signed again, with other parts: extensions={oid: (value, critical) or None}, or what
    the builder calls it."""
    terms = dict(issuer_name=certificate.issuer if issuer is None else issuer, subject_name=certificate.subject,
                 public_key=certificate.public_key(), serial_number=certificate.serial_number,
                 not_valid_before=chain._time(chain.seconds(certificate, "not_valid_before")),
                 not_valid_after=chain._time(chain.seconds(certificate, "not_valid_after")))
    extensions = {entry.oid: (entry.value, entry.critical) for entry in certificate.extensions}
    extensions.update(changes.pop("extensions", {}))
    algorithm = changes.pop("algorithm", None)
    builder = x509.CertificateBuilder()
    for name, value in dict(terms, **changes).items():
        builder = getattr(builder, name)(value)
    for entry in extensions.values():
        if entry is not None:
            builder = builder.add_extension(entry[0], critical=entry[1])
    return builder.sign(key, algorithm or hashes.SHA256())


def signed_references(references=REFERENCES["hardware"], key=MO):
    return reference.sign(references.encode(), key)
