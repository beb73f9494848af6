"""Who holds keys: a party with its signing key, and the keys that it grants, opened once."""

from dataclasses import dataclass, field
from typing import List, Mapping, NamedTuple, Optional, Sequence, Tuple

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edged.alerts import keyfiles, keys
from edged.enclave.wire import KeyKind
from edged.errors import KeyRefused
from edged.trust import floor, grant
from edged.trust.agreement import Agreement
from edged.trust.cosign import Party
from edged.trust.keyring import Keyring

# Of the key application's slots, as bundles fill them: the model's, the data's, then the recipients' in their order.
MODEL_SLOT, DATA_SLOT, ALERT_SLOT = 0, 1, 2
# While one agreement follows another both are in force, and a slot's key is for one of them alone. So those of even
# number have slots of their own, from here on.
EVEN_FIRST_SLOT = 8


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

    def due(self, agreement: Agreement, first_slot: Optional[int] = None) -> List[Due]:
        """first_slot : of the agreement, where it is not the one that its number says (EVEN_FIRST_SLOT)

        Raises KeyRefused where the agreement is another party's, or names a key that is not here.
        """
        first = first_slot if first_slot is not None else 0 if agreement.number % 2 else EVEN_FIRST_SLOT
        if self.party.key_of(agreement) != self.public:
            raise KeyRefused("agreement {}: its {} is {}, these keys are of {}".format(
                agreement.number, self.party.value, self.party.key_of(agreement).hex(), self.public.hex()))
        if self.party is Party.MODEL_OWNER:
            made = [Due(KeyKind.MODEL, first + MODEL_SLOT, agreement.model.key_id)]
        else:
            made = [Due(KeyKind.DATA, first + DATA_SLOT, agreement.data_key)] + [
                Due(KeyKind.ALERT, first + ALERT_SLOT + place, one.alert_key)
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

    def floor(self, numbers: Mapping[int, int], least_agreement: int, least_model: int, start: bytes,
              receiver: bytes, now_s: int) -> bytes:
        """numbers : {slot: least number of a grant}      least_agreement, least_model : of all that are this party's
        on the device      start, receiver : as verified evidence says them"""
        return floor.make(now_s, least_model, start, grant.thumbprint(receiver), list(numbers.items()),
                          least_agreement, self.signing_key)


def of_owner(ring: Keyring) -> Holder:
    return Holder(Party.MODEL_OWNER, ring.signing_key, dict(ring.model_keys))


def of_city(folder: str) -> Holder:
    """All keys of the city's folder, those that were renewed, too. Raises MissingInput, KeyRefused, ConfigError."""
    signing_key = keys.read_signing_key(folder)
    return Holder(Party.QUERY_DATA_OWNER, signing_key,
                  {key_id: file.read() for key_id, file in keyfiles.read_all(folder).items()})
