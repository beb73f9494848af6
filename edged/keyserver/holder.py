"""Who holds keys: a party with its signing key, and the keys that it grants, opened once."""

import os
from dataclasses import dataclass, field
from typing import Dict, List, Mapping, NamedTuple, Sequence, Tuple

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edged.alerts import keys
from edged.alerts.record import ALERT_KEY_SIZES
from edged.enclave.wire import KeyKind
from edged.errors import KeyRefused
from edged.secret import read_secret
from edged.trust import grant
from edged.trust.agreement import Agreement
from edged.trust.cosign import Party
from edged.trust.keyring import Keyring

# Of the key application's slots, as bundles fill them: the model's, the data's, then the recipients' in their order.
MODEL_SLOT, DATA_SLOT, ALERT_SLOT = 0, 1, 2


class Due(NamedTuple):
    """A key that an agreement has its party grant."""

    kind: KeyKind
    slot: int
    key_id: bytes


@dataclass(frozen=True)
class Holder:
    """keys : {key id: key}"""

    party: Party
    signing_key: Ed25519PrivateKey = field(repr=False)
    keys: Mapping[bytes, bytes] = field(repr=False)

    @property
    def public(self) -> bytes:
        return self.signing_key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)

    def due(self, agreement: Agreement) -> List[Due]:
        """Raises KeyRefused where the agreement is another party's, or names a key that is not here."""
        if self.party.key_of(agreement) != self.public:
            raise KeyRefused("agreement {}: its {} is {}, these keys are of {}".format(
                agreement.number, self.party.value, self.party.key_of(agreement).hex(), self.public.hex()))
        if self.party is Party.MODEL_OWNER:
            made = [Due(KeyKind.MODEL, MODEL_SLOT, agreement.model.key_id)]
        else:
            made = [Due(KeyKind.DATA, DATA_SLOT, agreement.data_key)] + [
                Due(KeyKind.ALERT, ALERT_SLOT + place, one.alert_key)
                for place, one in enumerate(agreement.recipients)]
        for one in made:
            if one.key_id not in self.keys:
                raise KeyRefused("agreement {}: names {} key {}, which is not among these keys".format(
                    agreement.number, one.kind.name.lower(), one.key_id.hex()))
        return made

    def grants(self, agreement: Agreement, numbers: Sequence[Tuple[Due, int]], receiver: bytes) -> List[bytes]:
        """receiver : the device's grant key, as verified evidence says it      numbers : of each what is due"""
        return [grant.make(due.kind, due.slot, self.keys[due.key_id], due.key_id, number, agreement.digest, receiver,
                           self.signing_key) for due, number in numbers]


def of_owner(ring: Keyring) -> Holder:
    return Holder(Party.MODEL_OWNER, ring.signing_key, dict(ring.model_keys))


def of_city(folder: str) -> Holder:
    """All keys of the city's folder. Raises MissingInput, KeyRefused, ConfigError."""
    public = keys.read_public(folder)
    found: Dict[bytes, bytes] = {public.data_key_id: read_secret(os.path.join(folder, "data.key"), (32,))}
    for one in public.recipients:
        found[one.key_id] = read_secret(os.path.join(folder, "alert-{}.key".format(one.name)), ALERT_KEY_SIZES)
    return Holder(Party.QUERY_DATA_OWNER, keys.read_signing_key(folder), found)
