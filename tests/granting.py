"""A node whose keys are granted: both owners' sides of it, and the files that the device's side keeps."""

import hashlib
import itertools
from pathlib import Path

import cbor2
import pytest

from attacks.node import ALERT_KEY_ID, ALERT_SLOT, DATA_KEY_ID, DATA_SLOT, KEY_ID, MODEL_SLOT, SHORT_ALERT_KEY_ID
from attacks.node import SHORT_ALERT_SLOT, AttackNode, refused
from edged.emulated import public_bytes
from edged.enclave import wire
from edged.enclave.keystore import KeyStore
from edged.enclave.wire import KeyKind, Status
from edged.errors import PackageError
from edged.trust import evidence, floor, grant
from edged.trust.agreement import sign


def claims_of(client):
    found = client.attest(bytes(16))
    return evidence.parse(evidence.with_chain(found, [b"", b""])).claims


def receiver_of(client):
    """The grant key of a device's evidence, DER SubjectPublicKeyInfo; a party takes it from *verified* evidence."""
    return claims_of(client).grant


class GrantedNode(AttackNode):
    """``AttackNode`` with nothing in clear. ``with`` draws an identity and installs the grants of ``terms``.

    key : the key application, whose port nobody else uses meanwhile      store : its files
    """

    agreement = None  # digest, where it is another than that of ``terms``

    def put_keys(self):
        self.store = KeyStore(self.enclave.folder)
        self.key = self.connect_key()
        self.store.draw(self.key)
        self.receiver = receiver_of(self.key)
        self.floor_s = itertools.count(1)
        for one in self.grants():
            self.store.install(self.key, one)

    def __exit__(self, *error):
        if hasattr(self, "key"):
            self.key.close()
        super().__exit__(*error)

    @property
    def folder(self):
        return Path(self.enclave.folder)

    @property
    def agreement_file(self):
        """As both owners signed it."""
        path = self.folder / "agreement.cose"
        path.write_bytes(sign(self.terms.encode(), self.owner, self.qdo))
        return path

    def kill_key(self):
        """kill -9 of the key application, then a new one, which knows nothing yet."""
        self.enclave.key.kill()
        self.key.close()
        self.enclave.restart_key()
        self.key = self.connect_key()

    def restart_key(self):
        self.kill_key()
        assert self.store.bring_back(self.key)

    # Of each slot: kind, key, key id, whose.
    @property
    def keys(self):
        return {MODEL_SLOT: (KeyKind.MODEL, self.model_key, KEY_ID, self.owner),
                DATA_SLOT: (KeyKind.DATA, self.data_key, DATA_KEY_ID, self.qdo),
                ALERT_SLOT: (KeyKind.ALERT, self.alert_key, ALERT_KEY_ID, self.qdo),
                SHORT_ALERT_SLOT: (KeyKind.ALERT, self.short_alert_key, SHORT_ALERT_KEY_ID, self.qdo)}

    def grant(self, slot=MODEL_SLOT, number=1, **changes):
        """One grant. Changes: key, party, receiver, or a field of the header, which is then not what it should be."""
        kind, key, key_id, party = self.keys.get(slot, (KeyKind.MODEL, self.model_key, KEY_ID, self.owner))
        key, party = changes.pop("key", key), changes.pop("party", party)
        receiver = changes.pop("receiver", self.receiver)
        fields = {"kind": kind, "slot": slot, "device": grant.thumbprint(receiver), "key_id": key_id, "number": number,
                  "verifier": public_bytes(party), "agreement": self.agreement or self.terms.digest}
        fields.update(changes)
        header = grant.Grant(**fields).encode()
        return grant.seal(header, grant.wrap(header, key, receiver), party)

    def grants(self, number=1):
        return [self.grant(slot, number) for slot in self.keys]

    def floor(self, party=None, numbers=None, **changes):
        """One party's floor for this start: number 1 of each of its slots, or what is given {slot: number}.

        Changes: fields, which are then not what they should be; signed_by : another's key. Each is a second later.
        """
        party = party or self.owner
        if numbers is None:
            numbers = {slot: 1 for slot, (_, _, _, whose) in self.keys.items() if whose is party}
        signed_by = changes.pop("signed_by", party)
        fields = {"time_s": next(self.floor_s), "model": 0, "start": claims_of(self.key).bootseed,
                  "device": grant.thumbprint(self.receiver), "grants": tuple(sorted(numbers.items())),
                  "verifier": public_bytes(party), "agreement": 0}
        fields.update(changes)
        return floor.seal(floor.Floor(**fields).encode(), signed_by)

    def vouch(self, number=1):
        """Both parties' floors."""
        for party in (self.owner, self.qdo):
            self.store.floor(self.key, self.floor(party, {
                slot: number for slot, (_, _, _, whose) in self.keys.items() if whose is party}))

    def kinds(self):
        return bytes(self.key.info().kinds)


def refused_by_both(hand_over, read, node, encoded, status=Status.GRANT, error=(PackageError,)):
    """By the application (``hand_over`` of its client) and by Python (``read``) alike, and nothing changed."""
    before = node.key.info()
    with refused(status):
        hand_over(node.key, encoded)
    assert node.key.info() == before
    if error:
        with pytest.raises(error):
            read(encoded)


def parts(encoded):
    """(header, wrapped, signature) of a grant."""
    _, _, payload, signature = cbor2.loads(encoded).value
    return tuple(cbor2.loads(payload)) + (signature,)


def envelope(payload, signature, protected=b"\xa1\x01\x27", unprotected=None):
    """COSE_Sign1, whatever it holds."""
    return b"\xd2" + cbor2.dumps([protected, unprotected or {}, payload, signature], canonical=True)


def digest(data):
    return hashlib.sha256(data).digest()


def counter(state):
    return wire.KeyState.unpack(state).counter
