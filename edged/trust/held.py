"""Which of the key application's slots hold the keys that an agreement names, as it lists them itself (KEY_LIST).

A hint and no more: who falsifies the list keeps an agreement from being put in force, which he could by refusing to put
it. Which keys the slots really hold the evaluation application learns from the key application itself.
"""

from typing import List, NamedTuple, Sequence, Tuple

from edged.enclave.wire import KEY_LISTED_GRANTED, KEY_LISTED_LOCKED, KeyKind, Listed
from edged.trust.agreement import Agreement


class Named(NamedTuple):
    """A key that an agreement names. owner : in words      verifier : the owner's"""

    owner: str
    kind: KeyKind
    key_id: bytes
    verifier: bytes

    def __str__(self) -> str:
        return "the {}'s {} key {}".format(self.owner, self.kind.name.lower(), self.key_id.hex())

    def is_in(self, slot: Listed, agreement: bytes) -> bool:
        """agreement : digest of the one that it is to be used under; a key in clear is for any."""
        return ((slot.kind, slot.key_id, slot.verifier) == (self.kind, self.key_id, self.verifier)
                and (not is_granted(slot) or slot.agreement == agreement))


def is_granted(slot: Listed) -> bool:
    return bool(slot.flags & KEY_LISTED_GRANTED)


def is_locked(slot: Listed) -> bool:
    return bool(slot.flags & KEY_LISTED_LOCKED)


def named_by(agreement: Agreement) -> Tuple[Named, ...]:
    """The model's, the data, then each recipient's alert key."""
    return (Named("model owner", KeyKind.MODEL, agreement.model.key_id, agreement.mo),
            Named("city", KeyKind.DATA, agreement.data_key, agreement.qdo),
            *(Named("city", KeyKind.ALERT, to.alert_key, agreement.qdo) for to in agreement.recipients))


def find(agreement: Agreement, slots: Sequence[Listed]) -> Tuple[List[int], List[Named]]:
    """(slots in the order of ``named_by``, which keys no slot holds). Of two slots with one key any, but for locked
    ones."""
    found: List[int] = []
    missing: List[Named] = []
    for key in named_by(agreement):
        holders = [number for number, slot in enumerate(slots) if key.is_in(slot, agreement.digest)]
        if holders:
            found.append(min(holders, key=lambda number: is_locked(slots[number])))
        else:
            missing.append(key)
    return found, missing
