"""A whole node on the host port, with keys drawn for one run: for benchmarks, demonstrations and tests.

It plays every party at once - model owner, query data owner, camera and city - so it protects nothing.
"""

import os
from typing import Optional, Sequence, Tuple

import numpy as np
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edged.alerts.record import Observation, open_record
from edged.camera.clip import Clip, camera_key, seal_clip, session_key
from edged.enclave import wire
from edged.enclave.client import EvalClient, KeyClient
from edged.enclave.host import HostEnclave
from edged.model import package
from edged.model.layers import Model

MODEL_SLOT, DATA_SLOT, ALERT_SLOT = 0, 1, 2


class EmulatedNode:
    """Both applications running in ``folder``, their slots filled; a context manager.

    alert_key_bytes : 16 or 32
    """

    def __init__(self, folder: str, wrapper: Sequence[str] = (), alert_key_bytes: int = 32) -> None:
        self.owner_key = Ed25519PrivateKey.generate()
        self.model_key, self.data_key = os.urandom(32), os.urandom(32)
        self.alert_key = os.urandom(alert_key_bytes)
        self.model_key_id, self.alert_key_id = os.urandom(16), os.urandom(16)
        self.camera = os.urandom(32)
        self.enclave = HostEnclave(folder, wrapper)
        self._session: Optional[Tuple[int, bytes]] = None
        self._number = 0

    def __enter__(self) -> "EmulatedNode":
        self.enclave.start()
        try:
            self.connect()
        except BaseException:
            self.enclave.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.disconnect()
        self.enclave.stop()

    def connect(self) -> None:
        """Connect to both applications and fill the key slots (also after a restart of either)."""
        self.key = KeyClient(self.enclave.connect_key())
        self.eval = EvalClient(self.enclave.connect_eval())
        verifier = self.owner_key.public_key().public_bytes(
            serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        self.key.put_slot(MODEL_SLOT, wire.KeyKind.MODEL, self.model_key, self.model_key_id, verifier)
        self.key.put_slot(DATA_SLOT, wire.KeyKind.DATA, self.data_key, bytes(16))
        self.key.put_slot(ALERT_SLOT, wire.KeyKind.ALERT, self.alert_key, self.alert_key_id)
        self._session = None

    def disconnect(self) -> None:
        self.key.close()
        self.eval.close()

    def package(self, model: Model, placements: int = package.PLACEMENTS_ALL) -> bytes:
        """A package of the model, for this node's model key."""
        return package.pack(model, self.model_key, self.owner_key, placements=placements, key_id=self.model_key_id)

    @property
    def session(self) -> int:
        """The camera's session with this enclave start; opened at first use."""
        return self._opened()[0]

    def seal(self, coordinates: np.ndarray) -> Tuple[int, bytes]:
        """The next number, and a clip (persons, T, V, 3) int16 sealed under it."""
        session, key = self._opened()
        self._number += 1
        clip = Clip(coordinates, tuple(range(1, len(coordinates) + 1)), self._number, self.camera)
        return self._number, seal_clip(key, session, self._number, clip)

    def open(self, record: bytes) -> Observation:
        return open_record(record, self.alert_key)

    def peak_bytes(self) -> int:
        """Memory of both applications at their peak, added."""
        return self.key.stats().peak_bytes + self.eval.stats().memory.peak_bytes

    def _opened(self) -> Tuple[int, bytes]:
        if self._session is None:
            nonce = os.urandom(32)
            answer = self.eval.open_session(DATA_SLOT, ALERT_SLOT, self.camera, nonce)
            key = session_key(camera_key(self.data_key, self.camera), nonce, answer.nonce)
            self._session = answer.session, key
        return self._session
