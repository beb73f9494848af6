"""The evaluation application's side of the link, for tests that stand in its place at KEY_EVAL_PORT of a host port."""

import hashlib
import hmac
from dataclasses import replace
from pathlib import Path

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from edged.enclave import wire
from edged.enclave.wire import KeyCommand, Status

HELLO = wire.Hello(b"n" * 32, b"\x09" + bytes(31), b"m" * 32, 0, 7, bytes(384))  # X25519's base point


def secret_of(folder):
    """What trusty_ta/port/host/device.c gives to the two applications of a device."""
    return hmac.new((Path(folder) / "device.key").read_bytes(), b"edged host link v1\0", "sha256").digest()


def greet(port, secret, hello=HELLO):
    """Say hello with a key of our own; the link's key, right where the secret is."""
    private = X25519PrivateKey.generate()
    mine = replace(hello, public_key=private.public_key().public_bytes(
        serialization.Encoding.Raw, serialization.PublicFormat.Raw))
    status, answer = port.call(KeyCommand.HELLO, mine.pack())
    assert status == Status.OK
    theirs = wire.Hello.unpack(answer)
    info = b"edged link v1" + hashlib.sha256(mine.pack() + answer).digest()
    shared = private.exchange(X25519PublicKey.from_public_bytes(theirs.public_key))
    return HKDF(hashes.SHA256(), 32, mine.nonce + theirs.nonce, info).derive(shared + secret)


def tag_of(key):
    return hmac.new(key, b"edged link confirmed v1", "sha256").digest()


def confirm(port, tag):
    return port.call(KeyCommand.CONFIRM, wire.Confirm(tag).pack())[0]


def link(port, folder, hello=HELLO):
    """As the evaluation application does it; the link's key."""
    key = greet(port, secret_of(folder), hello)
    assert confirm(port, tag_of(key)) == Status.OK
    return key
