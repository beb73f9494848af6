"""The seal of a clip, against a second derivation written from the wire header alone."""

import hashlib
import hmac
from dataclasses import replace

import numpy as np
import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from edged.alerts import bundle
from edged.camera.clip import Clip, camera_key, fixed_point, seal_clip, session_key
from edged.enclave import wire
from edged.errors import ShapeError

CAMERA = bytes(range(32))
KEY = bytes(range(100, 132))


def hkdf(key, salt, info):
    """RFC 5869 with one block of output, of which as much as the key is long."""
    extracted = hmac.new(salt, key, hashlib.sha256).digest()
    return hmac.new(extracted, info + b"\x01", hashlib.sha256).digest()[:len(key)]


def clip():
    coordinates = np.arange(2 * 5 * 3 * 3, dtype=np.int16).reshape(2, 5, 3, 3) - 40
    return Clip(coordinates, (7, 9), 123456789, CAMERA)


def test_a_sealed_clip_opens_to_the_bytes_of_the_header():
    sealed = seal_clip(KEY, 3, 0x0102030405060708, clip())
    nonce = bytes([8, 7, 6, 5, 4, 3, 2, 1, 0, 0, 0, 0])
    data = b"edged clip v1" + bytes([3, 0, 0, 0, 8, 7, 6, 5, 4, 3, 2, 1])
    plain = AESGCM(KEY).decrypt(nonce, sealed, data)
    head = wire.ClipHead.unpack(plain[:wire.ClipHead.size()])
    assert head == wire.ClipHead(1, 2, 5, 3, 123456789, (7, 9, 0, 0, 0, 0, 0, 0), CAMERA)
    assert np.frombuffer(plain, "<i2", offset=wire.ClipHead.size()).tolist() == list(range(-40, 50))


def test_the_size_of_a_sealed_clip_follows_from_its_shape():
    assert len(seal_clip(KEY, 1, 1, clip())) == wire.sealed_clip_bytes(2, 5, 3)
    nobody = Clip(np.zeros((0, 5, 3, 3), np.int16), (), 0, CAMERA)
    assert len(seal_clip(KEY, 1, 1, nobody)) == wire.sealed_clip_bytes(0, 5, 3)


@pytest.mark.parametrize("session, number", [(2, 1), (1, 2)])
def test_a_clip_opens_in_its_own_session_and_under_its_own_number_only(session, number):
    sealed = seal_clip(KEY, 1, 1, clip())
    data = b"edged clip v1" + session.to_bytes(4, "little") + number.to_bytes(8, "little")
    with pytest.raises(InvalidTag):
        AESGCM(KEY).decrypt(number.to_bytes(8, "little") + bytes(4), sealed, data)


@pytest.mark.parametrize("key", [KEY, KEY[:16]], ids=["AES-256", "AES-128"])
def test_keys_derive_as_the_header_says(key):
    issued = camera_key(key, CAMERA)
    assert issued == hkdf(key, bytes(32), b"edged camera v1" + CAMERA) == bundle.camera_key(key, CAMERA.decode("ascii"))
    theirs, ours = bytes([1] * 32), bytes([2] * 32)
    assert session_key(issued, theirs, ours) == hkdf(issued, theirs + ours, b"edged session v1")


def test_coordinates_become_fixed_point():
    assert fixed_point(np.array([0, 1, -1, 0.5 / 16384, -0.5 / 16384, 5, -5])).tolist() == [
        0, 16384, -16384, 1, 0, 32767, -32768]


def test_a_clip_with_a_track_too_few_is_refused():
    with pytest.raises(ShapeError, match="1 tracks of 2 persons"):
        replace(clip(), tracks=(7,)).pack()


def test_a_clip_of_another_element_type_is_refused():
    with pytest.raises(ShapeError, match="of int32"):
        replace(clip(), coordinates=clip().coordinates.astype(np.int32)).pack()


def test_a_clip_of_more_persons_than_the_wire_holds_is_refused():
    with pytest.raises(ShapeError, match="0..8"):
        Clip(np.zeros((9, 5, 3, 3), np.int16), tuple(range(9)), 0, CAMERA).pack()
