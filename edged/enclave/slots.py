"""Keys from files into the slots of an emulated key application.

A folder with ``slots.toml``, of tables ``[[slot]]`` (number, kind, key_file, key_id, verifier), and the key files
that it names, raw, readable by their user alone. Hardware takes no keys in clear.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Collection, List, Optional, Sequence, Union

from edged import strict
from edged.enclave.wire import KEY_SLOTS, KeyKind
from edged.secret import read_secret

if TYPE_CHECKING:
    from edged.enclave.key import KeyClient

FILE = "slots.toml"
# Bytes of a key of each kind: the city chooses AES-128 or AES-256 for its clips and its records.
KEY_SIZES = {KeyKind.MODEL: (32,), KeyKind.DATA: (16, 32), KeyKind.ALERT: (16, 32)}
_KINDS = {"model": KeyKind.MODEL, "data": KeyKind.DATA, "alert": KeyKind.ALERT}


@dataclass(frozen=True)
class Slot:
    """key_id : 16 bytes      verifier : Ed25519 key of the key's owner, 32 bytes"""

    number: int
    kind: KeyKind
    key_file: Path
    key_id: bytes
    verifier: bytes

    def read_key(self, owners: Optional[Collection[int]] = None) -> bytes:
        """Raises MissingInput or KeyRefused. owners : as of read_secret"""
        return read_secret(str(self.key_file), KEY_SIZES[self.kind], owners)


def read_slots(folder: Union[str, Path]) -> List[Slot]:
    """What slots.toml says, in its order; the keys themselves stay in their files.

    Raises MissingInput, KeyRefused (not readable) or ConfigError with file, line and key.
    """
    made: List[Slot] = []
    root = strict.read(os.path.join(str(folder), FILE), ("slot",))
    for table in root.array("slot", ("number", "kind", "key_file", "key_id", "verifier")):
        slot = Slot(
            number=table.integer("number", low=0, high=KEY_SLOTS - 1),
            kind=_KINDS[table.text("kind", choices=tuple(_KINDS))],
            key_file=table.file("key_file"),
            key_id=bytes.fromhex(table.text("key_id", pattern="[0-9a-f]{32}", meaning="32 digits of 0-9, a-f")),
            verifier=bytes.fromhex(table.text("verifier", pattern="[0-9a-f]{64}", meaning="64 digits of 0-9, a-f")),
        )
        if not any(slot.verifier):
            raise table.error("verifier", "is zero: the Ed25519 verification key of the key's owner belongs here")
        if any(slot.number == other.number for other in made):
            raise table.error("number", "{}: is there twice".format(slot.number))
        made.append(slot)
    return made


def put_slots(client: "KeyClient", slots: Sequence[Slot]) -> None:
    """Put every key. Raises MissingInput or KeyRefused before the first is put, EnclaveError if one is refused."""
    keys = [slot.read_key() for slot in slots]
    for slot, key in zip(slots, keys):
        client.put_slot(slot.number, slot.kind, key, slot.key_id, slot.verifier)
