"""The model owner's private keys in one file, encrypted with a passphrase: a copy of the file is a backup.

A ring holds the Ed25519 seed that signs packages and agreements, and the model keys (AES-256), each named by a key id;
whoever renews a model key keeps the older ones, which older packages need. In clear stand only the verification key and
the key ids; all of the file is authenticated.

    trust/sealed.py's form with magic "edged-keyring-1\n", in clear [verify_key, key_ids], and sealed CBOR [seed, pairs]
"""

import os
from dataclasses import dataclass
from typing import Any, Dict, Tuple

import cbor2
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edged.errors import KeyRefused, MissingInput, UsageError
from edged.placing import Placing
from edged.trust import sealed
from edged.trust.sealed import COST, read_passphrase  # noqa: F401  # the ring's and its passphrase's go together

MAGIC = b"edged-keyring-1\n"
KEY, KEY_ID = 32, 16
_WHAT = "key ring"


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


def seal(ring: Keyring, passphrase: bytes, cost: int = COST) -> bytes:
    """The file's content, with a fresh salt."""
    public = ring.public
    secret = cbor2.dumps([ring.seed, [list(pair) for pair in ring.model_keys]], canonical=True)
    return sealed.seal(MAGIC, [public.verify_key, list(public.key_ids)], secret, passphrase, cost)


def _head(content: bytes, path: str) -> Tuple[sealed.Sealed, Public]:
    found = sealed.take_apart(MAGIC, content, path, _WHAT, _fits)
    verify_key, key_ids = found.clear
    return found, Public(verify_key, tuple(key_ids))


def _fits(clear: Any) -> bool:
    verify_key, key_ids = clear
    return bool(key_ids) and all(type(part) is bytes and len(part) == size for part, size in
                                 [(verify_key, 32)] + [(one, KEY_ID) for one in key_ids])


def inspect(path: str) -> Public:
    """What stands in clear, not yet authenticated: no passphrase is needed. Raises MissingInput, KeyRefused."""
    return _head(sealed.read_file(path), path)[1]


def open_ring(path: str, passphrase: bytes) -> Keyring:
    """Raises MissingInput, and KeyRefused for a wrong passphrase and for a ring that was altered."""
    found, public = _head(sealed.read_file(path), path)
    seed, pairs = cbor2.loads(found.open(passphrase, path, "ring"))
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
