"""A release's signatures over the measurements of its two applications, by which they know each other.

Whoever signs releases has an RSA-2048 key. Its public half is built into both applications; over each one's measurement
and security version it signs (PS256)

    "edged measurement v1 com.edged.key" (or "...eval")  version (u32, little-endian)  measurement (32 bytes)

and the signature goes to the application beside its image: it is not a part of what is measured.
"""

import argparse
import struct
import sys
from pathlib import Path
from typing import List, Optional, Tuple

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from edged import command
from edged.errors import KeyRefused
from edged.placing import SHARED, Placing
from edged.trust.reference import APPLICATIONS
from edged.trust.sealed import read_file, read_passphrase

BITS = 2048
PRIVATE, PUBLIC = "release.pem", "release.der"
_PSS = padding.PSS(padding.MGF1(hashes.SHA256()), 32)


def message(application: str, version: int, measurement: bytes) -> bytes:
    """application : "key" or "eval"      measurement : 32 bytes"""
    return b"edged measurement v1 com.edged." + application.encode("ascii") + struct.pack("<I", version) + measurement


def sign(private: rsa.RSAPrivateKey, application: str, version: int, measurement: bytes) -> bytes:
    """256 bytes."""
    return private.sign(message(application, version, measurement), _PSS, hashes.SHA256())


def draw(passphrase: bytes) -> Tuple[bytes, bytes]:
    """A new key: PEM under the passphrase, and DER of its public half."""
    private = rsa.generate_private_key(65537, BITS)
    return (private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                                  serialization.BestAvailableEncryption(passphrase)),
            private.public_key().public_bytes(serialization.Encoding.DER,
                                              serialization.PublicFormat.SubjectPublicKeyInfo))


def open_private(path: str, passphrase: bytes) -> rsa.RSAPrivateKey:
    """Raises MissingInput, KeyRefused."""
    try:
        private = serialization.load_pem_private_key(read_file(path), passphrase)
    except (ValueError, TypeError) as error:
        raise KeyRefused("{}: the passphrase is another one, or the key was altered".format(path)) from error
    if not isinstance(private, rsa.RSAPrivateKey) or private.key_size != BITS:
        raise KeyRefused("{}: releases are signed by an RSA key of {} bits".format(path, BITS))
    return private


def run_new(given: argparse.Namespace) -> None:
    pem, der = draw(read_passphrase(given.passphrase_file))
    placing = Placing()
    placing.add(Path(given.dir) / PRIVATE, pem)
    placing.add(Path(given.dir) / PUBLIC, der, SHARED)
    placing.commit()
    print("{}: to be built in: make -C trusty_ta RELEASE_KEY=FILE".format(Path(given.dir) / PUBLIC))


def run_sign(given: argparse.Namespace) -> None:
    private = open_private(str(Path(given.dir) / PRIVATE), read_passphrase(given.passphrase_file))
    measurement = command.octets(given.measurement, "--measurement", 32)
    placing = Placing()
    placing.add(Path(given.out), sign(private, given.application, given.security_version, measurement), SHARED)
    placing.commit()


def main(arguments: Optional[List[str]] = None) -> int:
    parser = command.parser("release", __doc__)
    commands = parser.add_subparsers(required=True, dest="command", metavar="COMMAND")
    drawn = commands.add_parser("new", help="draw a release key into a folder")
    signed = commands.add_parser("sign", help="sign one application's measurement")
    for parsed, function in ((drawn, run_new), (signed, run_sign)):
        parsed.add_argument("--dir", required=True, metavar="DIR", help="the release key's folder")
        parsed.add_argument("--passphrase-file", required=True, metavar="FILE", help="readable by you alone")
        parsed.set_defaults(run=function)
    signed.add_argument("application", choices=APPLICATIONS)
    signed.add_argument("--measurement", required=True, metavar="HEX", help="as scripts/build-ta prints it")
    signed.add_argument("--security-version", required=True, type=command.at_least(1), metavar="N")
    signed.add_argument("--out", required=True, metavar="FILE", help="on the host port the image's path and .sig")
    return command.run(parser, arguments)


if __name__ == "__main__":
    sys.exit(main())
