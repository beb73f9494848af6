"""The model owner's private keys in one file, encrypted with a passphrase: a copy of the file is a backup.

A ring holds the Ed25519 seed that signs packages and agreements, and the model keys (AES-256), each named by a key id;
whoever renews a model key keeps the older ones, which older packages need. In clear stand only the verification key and
the key ids; all of the file is authenticated.

    "edged-keyring-1\n"  CBOR [n, salt, nonce, public]  AES-256-GCM of CBOR [seed, {key id: key}]
    key = scrypt(passphrase, salt, n, r = 8, p = 1); the head is associated data

Source: C. Percival, "Stronger key derivation via sequential memory-hard functions" (scrypt), RFC 7914.
"""

import io
import os
from dataclasses import dataclass
from typing import Any, Dict, List, Tuple

import cbor2
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from edged.errors import KeyRefused, MissingInput, UsageError
from edged.placing import Placing
from edged.secret import read_secret

MAGIC = b"edged-keyring-1\n"
COST = 1 << 17        # 128 MiB, about half a second
COST_MOST = 1 << 20
PASSPHRASE_LEAST, PASSPHRASE_MOST = 12, 1024
SIZE_MAX = 1 << 20
SALT, NONCE, KEY, KEY_ID = 16, 12, 32, 16


@dataclass(frozen=True)
class Public:
    """verify_key : 32 raw bytes      key_ids : of the model keys, the newest last"""

    verify_key: bytes
    key_ids: Tuple[bytes, ...]


@dataclass(frozen=True)
class Keyring:
    """An opened ring."""

    seed: bytes
    model_keys: Tuple[Tuple[bytes, bytes], ...]

    @property
    def signing_key(self) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(self.seed)

    @property
    def public(self) -> Public:
        raw = self.signing_key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        return Public(raw, tuple(key_id for key_id, _ in self.model_keys))

    def model_key(self, key_id: bytes = b"") -> Tuple[bytes, bytes]:
        """(key id, key) of that name, or the newest. Raises KeyRefused."""
        if not key_id:
            return self.model_keys[-1]
        for pair in self.model_keys:
            if pair[0] == key_id:
                return pair
        raise KeyRefused("the ring has no model key {}: it has {}".format(
            key_id.hex(), ", ".join(one.hex() for one, _ in self.model_keys)))

    def renewed(self) -> "Keyring":
        """With one more model key."""
        return Keyring(self.seed, self.model_keys + ((os.urandom(KEY_ID), os.urandom(KEY)),))


def generate() -> Keyring:
    return Keyring(os.urandom(32), ()).renewed()


def read_passphrase(path: str) -> bytes:
    """The first line of a file that nobody else may read. Raises MissingInput, KeyRefused."""
    found = read_secret(path, range(PASSPHRASE_MOST + 2)).split(b"\n")[0].rstrip(b"\r")
    if not PASSPHRASE_LEAST <= len(found) <= PASSPHRASE_MOST:
        raise KeyRefused("{}: a passphrase is {} to {} bytes in the first line".format(
            path, PASSPHRASE_LEAST, PASSPHRASE_MOST))
    return found


def _cipher(passphrase: bytes, salt: bytes, cost: int) -> AESGCM:
    return AESGCM(Scrypt(salt=salt, length=KEY, n=cost, r=8, p=1).derive(passphrase))


def seal(ring: Keyring, passphrase: bytes, cost: int = COST) -> bytes:
    """The file's content, with a fresh salt."""
    salt, nonce, public = os.urandom(SALT), os.urandom(NONCE), ring.public
    head = MAGIC + cbor2.dumps([cost, salt, nonce, [public.verify_key, list(public.key_ids)]], canonical=True)
    secret = cbor2.dumps([ring.seed, [list(pair) for pair in ring.model_keys]], canonical=True)
    return head + cbor2.dumps(_cipher(passphrase, salt, cost).encrypt(nonce, secret, head), canonical=True)


def _head(content: bytes, path: str) -> Tuple[int, bytes, bytes, Public, bytes, bytes]:
    """cost, salt, nonce, public, the head's bytes and the sealed rest."""
    refused = KeyRefused("{}: not a key ring, or damaged: put the backup in its place".format(path))
    if not content.startswith(MAGIC):
        raise refused
    try:
        head, sealed = _items(content[len(MAGIC):])
        cost, salt, nonce, (verify_key, key_ids) = head
        fits = (type(cost) is int and 2 <= cost <= COST_MOST and cost & (cost - 1) == 0
                and all(type(part) is bytes and len(part) == size for part, size in
                        [(salt, SALT), (nonce, NONCE), (verify_key, 32)] + [(one, KEY_ID) for one in key_ids])
                and type(sealed) is bytes and key_ids)
    except (ValueError, TypeError, cbor2.CBORDecodeError) as error:
        raise refused from error
    if not fits:
        raise refused
    clear = MAGIC + cbor2.dumps(head, canonical=True)
    if clear + cbor2.dumps(sealed, canonical=True) != content:
        raise refused
    return cost, salt, nonce, Public(verify_key, tuple(key_ids)), clear, sealed


def _items(encoded: bytes) -> List[Any]:
    """The two CBOR items of a ring."""
    decoder = cbor2.CBORDecoder(io.BytesIO(encoded))
    return [decoder.decode(), decoder.decode()]


def _read(path: str) -> bytes:
    return read_secret(path, range(SIZE_MAX + 1))


def inspect(path: str) -> Public:
    """What stands in clear, not yet authenticated: no passphrase is needed. Raises MissingInput, KeyRefused."""
    return _head(_read(path), path)[3]


def open_ring(path: str, passphrase: bytes) -> Keyring:
    """Raises MissingInput, and KeyRefused for a wrong passphrase and for a ring that was altered."""
    cost, salt, nonce, public, head, sealed = _head(_read(path), path)
    try:
        seed, pairs = cbor2.loads(_cipher(passphrase, salt, cost).decrypt(nonce, sealed, head))
    except InvalidTag as error:
        raise KeyRefused("{}: the passphrase is another one, or the ring was altered".format(path)) from error
    ring = Keyring(seed, tuple((key_id, key) for key_id, key in pairs))
    if ring.public != public:
        raise KeyRefused("{}: what it says in clear is not what it holds".format(path))
    return ring


def create(path: str, ring: Keyring, passphrase: bytes) -> None:
    """A new file, never over another one. Raises KeyRefused, MissingInput."""
    placing = Placing()
    placing.add(path, seal(ring, passphrase))
    placing.commit()


def replace(path: str, ring: Keyring, passphrase: bytes) -> None:
    """Put a ring that was opened from ``path`` there again; at any moment the old or the new one is whole."""
    path = os.path.realpath(path)  # behind a link is the ring, of which there has to be one
    part = path + ".new"
    if os.path.lexists(part):
        raise UsageError("{}: is left of an earlier try: look at it and remove it".format(part))
    placing = Placing()
    placing.add(part, seal(ring, passphrase))
    placing.commit()
    try:
        open_ring(part, passphrase)  # before the old one goes
        os.replace(part, path)
    except OSError as error:
        os.unlink(part)
        raise MissingInput("{}: cannot be written: {}".format(path, error.strerror)) from error


def as_dict(public: Public) -> Dict[str, Any]:
    """For JSON."""
    return {"verify_key": public.verify_key.hex(), "model_key_ids": [one.hex() for one in public.key_ids]}
