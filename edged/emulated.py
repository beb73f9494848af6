"""A whole node on the host port, with keys drawn for one run: for benchmarks, demonstrations and tests.

It plays every party at once - model owner, query data owner, camera and city - so it protects nothing.
"""

import os
from dataclasses import replace
from typing import Any, Optional, Sequence, Tuple

import numpy as np
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edged.alerts.record import Record, open_record, seal_beacon, split_record
from edged.camera.clip import Clip, camera_key, seal_clip, session_key
from edged.enclave import wire
from edged.enclave.client import Emitted, EvalClient
from edged.enclave.host import HostEnclave
from edged.enclave.key import KeyClient
from edged.model import package
from edged.model.layers import Model
from edged.trust.agreement import Agreement, ModelTerms, Recipient, Rule, sign

MODEL_SLOT, DATA_SLOT, ALERT_SLOT = 0, 1, 2  # of further recipients: 3, 4, 5

MODEL_ID = "stgcn"
ROOMY = 1024  # a body that holds all scores of 93 labels beside 8 rules
YEAR_S = 365 * 86400
ALL_OF_A_RULE = wire.EDGED_SEES_LABEL | wire.EDGED_SEES_SCORE


def public_bytes(key: Ed25519PrivateKey) -> bytes:
    """The 32 bytes by which this key's signatures are checked."""
    return key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)


class EmulatedNode:
    """Both applications running in ``folder``, their slots filled, an agreement in force; a context manager.

    alert_key_bytes : 16 or 32, one for each recipient
    rules : of the agreement. Its other fields may be given by their names; ``agreement`` may be replaced before start

    Unless told otherwise every recipient sees everything, all placements are allowed, and no limit is met.
    """

    def __init__(self, folder: str, wrapper: Sequence[str] = (), alert_key_bytes: Sequence[int] = (32,),
                 rules: Sequence[Rule] = (), **terms: Any) -> None:
        self.mo_key, self.qdo_key = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
        self.model_key, self.data_key = os.urandom(32), os.urandom(32)
        self.alert_keys = tuple(os.urandom(size) for size in alert_key_bytes)
        self.model_key_id, self.data_key_id = os.urandom(16), os.urandom(16)
        self.camera = os.urandom(32)
        self.agreement = replace(Agreement(
            mo=public_bytes(self.mo_key),
            qdo=public_bytes(self.qdo_key),
            body=ROOMY,
            from_s=0,
            model=ModelTerms(MODEL_ID, 0, self.model_key_id),
            rules=tuple(rules),
            until_s=(1 << 32) - 1,
            number=1,
            status=wire.MessageStatus.TEST,
            beacon_period_s=30,
            beacon_limit_s=YEAR_S,
            data_key=self.data_key_id,
            placements=package.PLACEMENTS_ALL,
            recipients=tuple(
                Recipient(os.urandom(16), os.urandom(16), wire.EDGED_SEES_SCORES, (ALL_OF_A_RULE,) * len(rules))
                for _ in self.alert_keys),
            score_bits=16,
            clips_per_hour=1000000,
        ), **terms)
        self.enclave = HostEnclave(folder, wrapper)
        self._session: Optional[Tuple[int, bytes]] = None
        self._number = 0
        self._unconfirmed = 0  # records of clips sealed since the last confirmation, at most

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
        """Connect to both applications, fill the key slots and put the agreement (also after a restart of either).

        ``begun`` : what the agreement gave rise to, its index and the records `epoch`
        """
        self.key = KeyClient(self.enclave.connect_key())
        self.eval = EvalClient(self.enclave.connect_eval())
        mo, qdo = self.agreement.mo, self.agreement.qdo
        self.key.put_slot(MODEL_SLOT, wire.KeyKind.MODEL, self.model_key, self.model_key_id, mo)
        self.key.put_slot(DATA_SLOT, wire.KeyKind.DATA, self.data_key, self.data_key_id, qdo)
        for slot, (key, recipient) in enumerate(zip(self.alert_keys, self.agreement.recipients), ALERT_SLOT):
            self.key.put_slot(slot, wire.KeyKind.ALERT, key, recipient.alert_key, qdo)
        self.begun = self.agree()
        if self.begun.records:  # else the agreement is in force already, and its salt is known
            self._salt = split_record(self.begun.records[0])[0].salt
        self._session = None

    def disconnect(self) -> None:
        self.key.close()
        self.eval.close()

    def agree(self) -> Emitted:
        """Sign the agreement for both parties, and put it."""
        slots = range(ALERT_SLOT, ALERT_SLOT + len(self.alert_keys))
        return self.eval.put_agreement(MODEL_SLOT, DATA_SLOT, slots,
                                       sign(self.agreement.encode(), self.mo_key, self.qdo_key))

    def package(self, model: Model, placements: int = package.PLACEMENTS_ALL) -> bytes:
        """A package of the model, for this node's model key."""
        return package.pack(model, self.model_key, self.mo_key, model_id=MODEL_ID, placements=placements,
                            key_id=self.model_key_id)

    @property
    def session(self) -> int:
        """The camera's session with this enclave start; opened at first use."""
        return self._opened()[0]

    def seal(self, coordinates: np.ndarray) -> Tuple[int, bytes]:
        """The next number, and a clip (persons, T, V, 3) int16 sealed under it.

        Now and then the records so far are confirmed, so that there is room: whoever asks for clips has seen them.
        """
        session, key = self._opened()
        self._unconfirmed += len(self.alert_keys)
        if self._unconfirmed > wire.EVAL_KEPT_MAX // 2:
            self.eval.confirm(self.eval.info().emission)
            self._unconfirmed = 0
        self._number += 1
        clip = Clip(coordinates, tuple(range(1, len(coordinates) + 1)), self._number, self.camera)
        return self._number, seal_clip(key, session, self._number, clip)

    def open(self, record: bytes, recipient: int = 0) -> Record:
        return open_record(record, self.alert_keys[recipient], self.agreement.digest)

    def beacon(self, time_ns: int, nonce: bytes, recipient: int = 0) -> bytes:
        """A beacon of one recipient in this epoch; nonce : 16 bytes."""
        return seal_beacon(self.alert_keys[recipient], self._salt, self.agreement.recipients[recipient].rcpt,
                           self.agreement.digest, time_ns, nonce)

    def peak_bytes(self) -> int:
        """Memory of both applications at their peak, added."""
        return self.key.stats().peak_bytes + self.eval.stats().memory.peak_bytes

    def _opened(self) -> Tuple[int, bytes]:
        if self._session is None:
            nonce = os.urandom(32)
            answer = self.eval.open_session(self.begun.index, self.camera, nonce)
            key = session_key(camera_key(self.data_key, self.camera), nonce, answer.nonce)
            self._session = answer.session, key
        return self._session
