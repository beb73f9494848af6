"""A node whose keys are granted: both owners' sides of it, and the files that the device's side keeps."""

import hashlib
from pathlib import Path

import cbor2

from attacks.node import ALERT_KEY_ID, ALERT_SLOT, DATA_KEY_ID, DATA_SLOT, KEY_ID, MODEL_SLOT, SHORT_ALERT_KEY_ID
from attacks.node import SHORT_ALERT_SLOT, AttackNode
from edged.emulated import public_bytes
from edged.enclave import wire
from edged.enclave.keystore import KeyStore
from edged.enclave.wire import KeyKind
from edged.trust import evidence, grant

FIELDS = ("kind", "slot", "device", "key_id", "number", "verifier", "agreement")


def receiver_of(client):
    """The grant key of a device's evidence, DER SubjectPublicKeyInfo; a party takes it from *verified* evidence."""
    found = client.attest(bytes(16))
    return evidence.parse(evidence.with_chain(found, [b"", b""])).claims.grant


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
        for one in self.grants():
            self.store.install(self.key, one)

    def __exit__(self, *error):
        if hasattr(self, "key"):
            self.key.close()
        super().__exit__(*error)

    @property
    def folder(self):
        return Path(self.enclave.folder)

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

    def kinds(self):
        return bytes(self.key.info().kinds)


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
