"""What a city hands to a node: a folder, written by `edged-city init` and read by `edgectl install`.

    bundle.toml        the subscriber's address, public key and recipient id, the cameras' names
    agreement.cose     as both parties signed it
    cameras/NAME.key   HKDF(data key, "edged camera v1" || camera): of one camera, and no other
    slots/             for an emulated enclave only, which protects nothing: every key in clear, slots.toml

It holds secrets: carry it as such.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import List, NamedTuple, Tuple

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from edged import strict
from edged.config import is_z85_key
from edged.enclave.slots import FILE as SLOTS_FILE
from edged.enclave.slots import KEY_SIZES, read_slots
from edged.enclave.wire import KeyKind
from edged.errors import ConfigError, KeyRefused, MissingInput
from edged.placing import Placing
from edged.secret import read_secret
from edged.trust.agreement import Agreement, open_agreement

FILE = "bundle.toml"
AGREEMENT_FILE = "agreement.cose"
CAMERAS, SLOTS = "cameras", "slots"
ADDRESS_MEANING = "tcp://HOST:PORT, a port from 1 to 65535"
_KEYS = ("schema", "name", "address", "server_key", "recipient", "agreement", "cameras", "emulated")


class SlotKey(NamedTuple):
    """kind : model | data | alert      file : its name in slots/      key_id : 16 bytes      verifier : 32"""

    kind: str
    file: str
    key: bytes
    key_id: bytes
    verifier: bytes


@dataclass(frozen=True)
class Bundle:
    """name : of the subscriber      server_key : Z85      recipient : 16 bytes      cameras : (name, key)
    slots : in the order of their numbers; none for hardware"""

    name: str
    address: str
    server_key: str
    recipient: bytes
    signed: bytes
    agreement: Agreement
    cameras: Tuple[Tuple[str, bytes], ...]
    slots: Tuple[SlotKey, ...]

    def __repr__(self) -> str:
        return "Bundle({}, {}, {} cameras)".format(self.name, self.address, len(self.cameras))


def camera_key(data_key: bytes, name: str) -> bytes:
    """The same as edged/camera/clip.py's, which needs numpy."""
    camera = name.encode("ascii").ljust(32, b"\0")
    return HKDF(hashes.SHA256(), len(data_key), b"", b"edged camera v1" + camera).derive(data_key)


def is_address(text: str) -> bool:
    found = re.fullmatch(r"tcp://(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):(\d{1,5})", text)
    return found is not None and 1 <= int(found.group(1)) <= 65535


def add(placing: Placing, folder: str, bundle: Bundle) -> None:
    """Have it written to a folder that is new or empty. Raises KeyRefused."""
    target = Path(folder)
    if target.is_dir() and os.listdir(folder):
        raise KeyRefused("{}: is not empty: choose a new folder for the bundle".format(folder))
    placing.add(target / AGREEMENT_FILE, bundle.signed)
    for name, key in bundle.cameras:
        placing.add(target / CAMERAS / (name + ".key"), key)
    for path, content in slot_files(bundle.slots):
        placing.add(target / SLOTS / path, content)
    placing.add(target / FILE, (
        "# For one node: `edgectl install` puts it there. It holds secrets.\nschema = 1\nname = \"{}\"\n"
        "address = \"{}\"\nserver_key = \"{}\"\nrecipient = \"{}\"\nagreement = \"{}\"\ncameras = [{}]\n"
        "emulated = {}\n".format(
            bundle.name, bundle.address, bundle.server_key, bundle.recipient.hex(), AGREEMENT_FILE,
            ", ".join('"{}"'.format(name) for name, _ in bundle.cameras),
            "true" if bundle.slots else "false")).encode("ascii"))


def slot_files(slots: Tuple[SlotKey, ...]) -> List[Tuple[str, bytes]]:
    """(name, content) of the folder that edged/enclave/slots.py reads; none where there are no slots."""
    if not slots:
        return []
    text = "# Keys in clear, for an emulated enclave, which protects nothing.\n"
    for number, slot in enumerate(slots):
        text += ("\n[[slot]]\nnumber = {}\nkind = \"{}\"\nkey_file = \"{}\"\nkey_id = \"{}\"\n"
                 "verifier = \"{}\"\n").format(number, slot.kind, slot.file, slot.key_id.hex(), slot.verifier.hex())
    return [(slot.file, slot.key) for slot in slots] + [(SLOTS_FILE, text.encode("ascii"))]


def read(folder: str) -> Bundle:
    """Raises MissingInput, KeyRefused, ConfigError, PackageError, VerificationFailed."""
    root = strict.read(os.path.join(folder, FILE), _KEYS)
    root.integer("schema", low=1, high=1)
    address, server_key, recipient = root.text("address"), root.text("server_key"), root.octets("recipient", 16)
    if not is_address(address):
        raise root.error("address", "\"{}\": {}".format(address, ADDRESS_MEANING))
    if not is_z85_key(server_key):
        raise root.error("server_key", "not a public key of CURVE: 40 characters of Z85")
    signed = _content(root.file("agreement"))
    agreement = open_agreement(signed)
    if not any(one.rcpt == recipient for one in agreement.recipients):
        raise root.error("recipient", "is none of the agreement's")
    cameras = []
    for name in root.texts("cameras"):
        if not re.fullmatch(strict.NAME, name):
            raise root.error("cameras", "\"{}\": 1 to 31 of a-z, 0-9 and -, no - first".format(name))
        cameras.append((name, read_secret(os.path.join(folder, CAMERAS, name + ".key"), KEY_SIZES[KeyKind.DATA])))
    return Bundle(
        name=root.text("name", pattern=strict.NAME, meaning="1 to 31 of a-z, 0-9 and -, no - first"),
        address=address, server_key=server_key, recipient=recipient, signed=signed, agreement=agreement,
        cameras=tuple(cameras), slots=_slots(os.path.join(folder, SLOTS)) if root.flag("emulated") else ())


def _slots(folder: str) -> Tuple[SlotKey, ...]:
    made = []
    for number, slot in enumerate(read_slots(folder)):
        if slot.number != number or slot.key_file.parent != Path(os.path.abspath(folder)):
            raise ConfigError("{}: slot {}: slots count from 0, and their files lie beside it".format(
                os.path.join(folder, SLOTS_FILE), slot.number))
        made.append(SlotKey(slot.kind.name.lower(), slot.key_file.name, slot.read_key(), slot.key_id, slot.verifier))
    return tuple(made)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise MissingInput("{}: {}".format(path, error.strerror)) from error
