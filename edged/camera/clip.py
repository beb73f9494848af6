"""Clips as the enclave takes them, and their seal.

    camera key  = HKDF(data key, salt = "", "edged camera v1" || camera)        issued by the query data owner
    session key = HKDF(camera key, salt = nonce || nonce', "edged session v1")  once per enclave start
    sealed clip = AES-GCM(session key, nonce = number le64 || 0 0 0 0,
                          associated data = "edged clip v1" || session le32 || number le64)

Source: trusty_ta/include/edged_wire.h, struct eval_session and edged_clip.
"""

from dataclasses import dataclass
from typing import Tuple

import numpy as np
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from edged.enclave import wire
from edged.errors import ShapeError

COORDINATE_ONE = 16384  # Q1.14: coordinates and confidences lie within -2..2
CLIP_VERSION = 1


@dataclass(frozen=True)
class Clip:
    """What one camera saw for T frames.

    coordinates : (persons, T, V, 3) int16, (x, y, confidence) * 16384; persons may be 0
    tracks : one id per person      claimed_ns : the camera's own time      camera : 32 bytes
    """

    coordinates: np.ndarray
    tracks: Tuple[int, ...]
    claimed_ns: int
    camera: bytes

    def pack(self) -> bytes:
        """The plaintext that is sealed. Raises ShapeError if the parts do not fit together."""
        shape = self.coordinates.shape
        if self.coordinates.dtype != np.int16 or len(shape) != 4 or shape[3] != 3 or shape[0] > wire.EVAL_PERSONS_MAX:
            raise ShapeError("clip {} of {}, not (0..{}, T, V, 3) of int16".format(
                shape, self.coordinates.dtype, wire.EVAL_PERSONS_MAX))
        if len(self.tracks) != shape[0]:
            raise ShapeError("{} tracks of {} persons".format(len(self.tracks), shape[0]))
        tracks = self.tracks + (0,) * (wire.EVAL_PERSONS_MAX - len(self.tracks))
        head = wire.ClipHead(CLIP_VERSION, shape[0], shape[1], shape[2], self.claimed_ns, tracks, self.camera)
        return head.pack() + self.coordinates.astype("<i2").tobytes()


def fixed_point(coordinates: np.ndarray) -> np.ndarray:
    """Coordinates as int16 Q1.14, rounded half up and clamped; any shape."""
    scaled = np.floor(np.asarray(coordinates, np.float64) * COORDINATE_ONE + 0.5)
    return np.clip(scaled, -32768, 32767).astype(np.int16)


def camera_key(data_key: bytes, camera: bytes) -> bytes:
    """The key that the query data owner issues to one camera process, as long as the data key: 16 or 32 bytes.

    camera : 32 bytes
    """
    return _hkdf(data_key, b"", b"edged camera v1" + camera)


def session_key(camera_key_: bytes, nonce_camera: bytes, nonce_enclave: bytes) -> bytes:
    """The key of one camera's session with one enclave start, as long as the camera's; nonces of 32 bytes."""
    return _hkdf(camera_key_, nonce_camera + nonce_enclave, b"edged session v1")


def seal_clip(key: bytes, session: int, number: int, clip: Clip) -> bytes:
    """Seal a clip under a session key; ``number`` must rise with every clip of the session."""
    return seal_bytes(key, session, number, clip.pack())


def seal_bytes(key: bytes, session: int, number: int, plaintext: bytes) -> bytes:
    """The seal alone, over whatever bytes."""
    data = b"edged clip v1" + session.to_bytes(4, "little") + number.to_bytes(8, "little")
    return AESGCM(key).encrypt(number.to_bytes(8, "little") + bytes(4), plaintext, data)


def _hkdf(key: bytes, salt: bytes, info: bytes) -> bytes:
    # An empty salt and 32 zero bytes are the same to HKDF (RFC 5869 section 2.2).
    return HKDF(hashes.SHA256(), len(key), salt or None, info).derive(key)
