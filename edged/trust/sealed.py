"""Secrets in one file under a passphrase: a copy of the file is a backup.

    magic  CBOR [n, salt, nonce, clear]  AES-256-GCM of the secret, as one CBOR byte string
    key = scrypt(passphrase, salt, n, r = 8, p = 1); all that stands before the secret is associated data

Source: C. Percival, "Stronger key derivation via sequential memory-hard functions" (scrypt), RFC 7914.
"""

import io
import os
from dataclasses import dataclass
from typing import Any, Callable

import cbor2
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from edged import canonical
from edged.errors import KeyRefused
from edged.secret import read_secret

COST = 1 << 17        # 128 MiB, about half a second
COST_MOST = 1 << 20
PASSPHRASE_LEAST, PASSPHRASE_MOST = 12, 1024
SIZE_MAX = 1 << 20
SALT, NONCE = 16, 12


@dataclass(frozen=True)
class Sealed:
    """A file taken apart. clear : what stands in it for all to read, not authenticated before ``open``"""

    cost: int
    salt: bytes
    nonce: bytes
    clear: Any
    head: bytes
    secret: bytes

    def open(self, passphrase: bytes, path: str, what: str) -> bytes:
        """The secret. Raises KeyRefused for a wrong passphrase and for a file that was altered."""
        try:
            return _cipher(passphrase, self.salt, self.cost).decrypt(self.nonce, self.secret, self.head)
        except InvalidTag as error:
            raise KeyRefused("{}: the passphrase is another one, or the {} was altered".format(path, what)) from error


def read_passphrase(path: str) -> bytes:
    """The first line of a file that nobody else may read. Raises MissingInput, KeyRefused."""
    found = read_secret(path, range(PASSPHRASE_MOST + 2)).split(b"\n")[0].rstrip(b"\r")
    if not PASSPHRASE_LEAST <= len(found) <= PASSPHRASE_MOST:
        raise KeyRefused("{}: a passphrase is {} to {} bytes in the first line".format(
            path, PASSPHRASE_LEAST, PASSPHRASE_MOST))
    return found


def read_file(path: str) -> bytes:
    """Raises MissingInput, KeyRefused."""
    return read_secret(path, range(SIZE_MAX + 1))


def seal(magic: bytes, clear: Any, secret: bytes, passphrase: bytes, cost: int) -> bytes:
    """The file's content, with a fresh salt."""
    salt, nonce = os.urandom(SALT), os.urandom(NONCE)
    head = magic + canonical.encode([cost, salt, nonce, clear])
    return head + canonical.encode(_cipher(passphrase, salt, cost).encrypt(nonce, secret, head))


def take_apart(magic: bytes, content: bytes, path: str, what: str, fits: Callable[[Any], bool]) -> Sealed:
    """Raises KeyRefused unless it is such a file, with a cost that is bearable, whose clear part ``fits``."""
    refused = KeyRefused("{}: not a {}, or damaged: put the backup in its place".format(path, what))
    if not content.startswith(magic):
        raise refused
    try:
        decoder = cbor2.CBORDecoder(io.BytesIO(content[len(magic):]))
        parts, secret = decoder.decode(), decoder.decode()
        cost, salt, nonce, clear = parts
        head = magic + canonical.encode(parts)
        good = (type(cost) is int and 2 <= cost <= COST_MOST and cost & (cost - 1) == 0
                and type(salt) is bytes and len(salt) == SALT and type(nonce) is bytes and len(nonce) == NONCE
                and type(secret) is bytes and head + canonical.encode(secret) == content and fits(clear))
    except Exception as error:  # cbor2's own errors differ between its releases
        raise refused from error
    if not good:
        raise refused
    return Sealed(cost, salt, nonce, clear, head, secret)


def _cipher(passphrase: bytes, salt: bytes, cost: int) -> AESGCM:
    return AESGCM(Scrypt(salt=salt, length=32, n=cost, r=8, p=1).derive(passphrase))
