"""The package: a signed manifest anyone may read, and the tensors sealed for the enclave.

    "EDGEDPKG" | u32 1 | u32 envelope bytes | envelope | chunk 0 | chunk 1 | ...        (little-endian)

envelope  COSE_Sign1 (RFC 9052), Ed25519, over the manifest: a canonical CBOR map (RFC 8949, 4.2.1)
chunk     AES-256-GCM of 4032 bytes of the tensor stream (the last one of what is left), which with its tag and
          a wire header fits a 4096-byte message; bound to the manifest, its own index and the total

The chunk key is derived from the model key and the manifest's random salt, so a nonce that counts chunks
never meets the same key twice. Reading is strict: what is decoded must encode to the same bytes again.
"""

import hashlib
import os
import struct
from typing import Any, Dict, Tuple

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from edged import canonical
from edged.errors import KeyRefused, PackageError, VerificationFailed
from edged.model.bounds import check_bounds
from edged.model.layers import Model
from edged.model.manifest import PLACEMENTS_ALL, Manifest, manifest_fields, read_manifest
from edged.model.tensors import BLIND_BYTES, read_tensors, stream_size, write_tensors

MAGIC = b"EDGEDPKG"
FORMAT = 1
_HEADER = struct.Struct("<8sII")
ENVELOPE_MAX = 32768
CHUNK_BYTES = 4032
TAG_BYTES = 16
KEY_BYTES = 32

_PROTECTED = b"\xa1\x01\x27"  # {1 (alg): -8 (EdDSA)}
_ENVELOPE_START = b"\xd2\x84\x43" + _PROTECTED + b"\xa0"
_SIGNATURE_START = b"\x58\x40"  # bstr of 64
SIGNATURE_BYTES = 64
_SIGNED_CONTEXT = b"edged package"
_KEY_INFO = b"edged package v1"
_CHUNK_CONTEXT = b"edged chunk"


def _chunk_count(stream_bytes: int) -> int:
    return -(-stream_bytes // CHUNK_BYTES)


def _signed_bytes(manifest: bytes) -> bytes:
    return canonical.encode(["Signature1", _PROTECTED, _SIGNED_CONTEXT, manifest])


def _cipher(model_key: bytes, salt: bytes) -> AESGCM:
    if len(model_key) != KEY_BYTES:
        raise KeyRefused("model key has {} bytes, must have {}".format(len(model_key), KEY_BYTES))
    return AESGCM(HKDF(hashes.SHA256(), KEY_BYTES, salt=salt, info=_KEY_INFO).derive(model_key))


def _chunk_binding(manifest: bytes, index: int, total: int) -> Tuple[bytes, bytes]:
    """Nonce and associated data of a chunk."""
    associated = _CHUNK_CONTEXT + hashlib.sha256(manifest).digest() + struct.pack("<II", index, total)
    return struct.pack("<I8x", index), associated


def seal_encoded(manifest: bytes, salt: bytes, stream: bytes, model_key: bytes, owner_key: Ed25519PrivateKey) -> bytes:
    """Sign these manifest bytes and seal a tensor stream, whatever they are: nothing is checked here.

    A dishonest owner would package with this; so do the tests.
    """
    cipher, total = _cipher(model_key, salt), _chunk_count(len(stream))
    signature = owner_key.sign(_signed_bytes(manifest))
    envelope = _ENVELOPE_START + canonical.encode(manifest) + _SIGNATURE_START + signature
    parts = [_HEADER.pack(MAGIC, FORMAT, len(envelope)), envelope]
    for index in range(total):
        nonce, associated = _chunk_binding(manifest, index, total)
        parts.append(cipher.encrypt(nonce, stream[index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES], associated))
    return b"".join(parts)


def seal(fields: Dict[str, Any], stream: bytes, model_key: bytes, owner_key: Ed25519PrivateKey) -> bytes:
    """As ``seal_encoded``, from a manifest's fields; ``chunks`` and ``digest`` follow from the stream unless given."""
    derived = {"chunks": _chunk_count(len(stream)), "digest": hashlib.sha256(stream).digest()}
    manifest = canonical.encode(dict(derived, **fields))
    return seal_encoded(manifest, fields["salt"], stream, model_key, owner_key)


def pack(
    model: Model,
    model_key: bytes,
    owner_key: Ed25519PrivateKey,
    model_id: str = "stgcn",
    version: int = 1,
    placements: int = PLACEMENTS_ALL,
    key_id: bytes = bytes(16),
) -> bytes:
    """The package of a model whose bounds hold.

    Raises PackageError if a bound or a field does not hold, KeyRefused for a model key that is not 32 bytes.
    """
    check_bounds(model)
    fields = manifest_fields(model, model_id, version, placements, key_id)
    package = seal(fields, write_tensors(model, os.urandom(BLIND_BYTES)), model_key, owner_key)
    inspect(package)
    return package


def _split(package: bytes) -> Tuple[Manifest, bytes, bytes]:
    """Manifest, signature and the bytes of all chunks, whose length fits the manifest's table."""
    if len(package) < _HEADER.size:
        raise PackageError("package has {} bytes, its header alone takes {}".format(len(package), _HEADER.size))
    magic, form, envelope_bytes = _HEADER.unpack_from(package)
    if magic != MAGIC or form != FORMAT:
        raise PackageError("package starts with {!r}, format {}; must be {!r}, {}".format(magic, form, MAGIC, FORMAT))
    if envelope_bytes > ENVELOPE_MAX or _HEADER.size + envelope_bytes > len(package):
        raise PackageError("package: an envelope of {} bytes is too long".format(envelope_bytes))
    envelope = package[_HEADER.size : _HEADER.size + envelope_bytes]
    sealed = package[_HEADER.size + envelope_bytes :]
    encoded, signature = _open_envelope(envelope)
    manifest = read_manifest(encoded)
    stream_bytes = stream_size(manifest.table, manifest.shape)
    if manifest.chunks != _chunk_count(stream_bytes):
        text = "manifest: {} chunks, its layers take {}"
        raise PackageError(text.format(manifest.chunks, _chunk_count(stream_bytes)))
    if len(sealed) != stream_bytes + manifest.chunks * TAG_BYTES:
        text = "package: chunks take {} bytes, its layers ask for {}"
        raise PackageError(text.format(len(sealed), stream_bytes + manifest.chunks * TAG_BYTES))
    return manifest, signature, sealed


def _open_envelope(envelope: bytes) -> Tuple[bytes, bytes]:
    """Manifest and signature. The envelope has one encoding only: rebuilt from its parts it must be the same."""
    tail = len(_SIGNATURE_START) + SIGNATURE_BYTES
    for head in (1, 2, 3):  # bytes of the manifest's CBOR length: below 24, 256, 65536
        manifest = envelope[len(_ENVELOPE_START) + head : -tail]
        signature = envelope[-SIGNATURE_BYTES:]
        if envelope == _ENVELOPE_START + canonical.encode(manifest) + _SIGNATURE_START + signature:
            return manifest, signature
    raise PackageError("package: the envelope is not a COSE_Sign1 of this kind")


def inspect(package: bytes) -> Manifest:
    """What the package says of itself; neither signature nor tensors are verified.  Raises PackageError."""
    return _split(package)[0]


def _verified(package: bytes, owner_verify_key: Ed25519PublicKey) -> Tuple[Manifest, bytes]:
    """The manifest, signed by the owner, and the bytes of all chunks."""
    manifest, signature, sealed = _split(package)
    try:
        owner_verify_key.verify(signature, _signed_bytes(manifest.encoded))
    except InvalidSignature:
        raise VerificationFailed("the package's manifest is not signed by this owner") from None
    return manifest, sealed


def verify(package: bytes, owner_verify_key: Ed25519PublicKey) -> Manifest:
    """The manifest, signed by the owner; chunks are not opened.  Raises PackageError, VerificationFailed."""
    return _verified(package, owner_verify_key)[0]


def open_package(package: bytes, model_key: bytes, owner_verify_key: Ed25519PublicKey) -> Tuple[Manifest, Model]:
    """Everything the enclave does at load: verify, unseal, compare the digest, prove the bounds.

    Raises PackageError for what is malformed or breaks a bound, VerificationFailed for a signature, chunk or digest
    that does not fit (a wrong model key looks the same), KeyRefused for a key that is not 32 bytes.
    """
    manifest, sealed = _verified(package, owner_verify_key)
    cipher, size = _cipher(model_key, manifest.salt), CHUNK_BYTES + TAG_BYTES
    parts = []
    for index in range(manifest.chunks):
        nonce, associated = _chunk_binding(manifest.encoded, index, manifest.chunks)
        try:
            parts.append(cipher.decrypt(nonce, sealed[index * size : (index + 1) * size], associated))
        except InvalidTag:
            raise VerificationFailed("chunk {} of {} does not open".format(index, manifest.chunks)) from None
    stream = b"".join(parts)
    if hashlib.sha256(stream).digest() != manifest.digest:
        raise VerificationFailed("the tensors do not have the manifest's digest")
    layers = read_tensors(stream, manifest.table, manifest.shape)
    model = Model(manifest.skeleton, manifest.shape, manifest.labels, layers, manifest.form)
    check_bounds(model)
    return manifest, model
