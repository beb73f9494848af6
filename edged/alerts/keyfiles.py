"""The files that hold the city's data and alert keys, found by the keys' ids.

    data.key, data.id      alert-NAME.key, alert-NAME.id      as drawn first
    data.2.key, data.2.id  alert-NAME.2.key, alert-NAME.2.id  as drawn when they were renewed; and so on

An id lies beside its key, so that any key of the folder is found by it; public.toml says which ids are the current
ones. No name of a recipient has a dot. A key goes in three steps, whose first one decides: ``data.id`` becomes
``data.gone``, by which it is found no more; then its key goes, then ``data.gone``.
"""

import os
import re
from contextlib import suppress
from typing import Dict, List, Mapping, NamedTuple, Optional

from edged import strict
from edged.enclave.slots import KEY_SIZES
from edged.enclave.wire import KeyKind
from edged.errors import ConfigError, KeyRefused
from edged.placing import sync_folder
from edged.secret import read_secret

_FORM = re.compile(r"(?:data|alert-(?P<name>{}))(?:\.(?P<drawn>[2-9]|[1-9]\d{{1,8}}))?\.(?P<kind>id|key|gone)".format(
    strict.NAME))


class KeyFile(NamedTuple):
    """recipient : None: the data key      drawn : 1, or how often keys had been drawn with it"""

    folder: str
    key_id: bytes
    recipient: Optional[str]
    drawn: int

    @property
    def stem(self) -> str:
        return stem(self.recipient, self.drawn)

    @property
    def file(self) -> str:
        return self.stem + ".key"

    def read(self) -> bytes:
        """Raises MissingInput, KeyRefused."""
        return read_secret(os.path.join(self.folder, self.file),
                           KEY_SIZES[KeyKind.DATA if self.recipient is None else KeyKind.ALERT])


def stem(recipient: Optional[str], drawn: int) -> str:
    return ("data" if recipient is None else "alert-" + recipient) + ("" if drawn == 1 else ".{}".format(drawn))


def id_line(key_id: bytes) -> bytes:
    return key_id.hex().encode("ascii") + b"\n"


def read_all(folder: str) -> Dict[bytes, KeyFile]:
    """{key id: its file}. Raises OSError, ConfigError (an .id file without an id, or one id twice)."""
    found: Dict[bytes, KeyFile] = {}
    for name in sorted(os.listdir(folder)):
        match = _FORM.fullmatch(name)
        if match is None or match.group("kind") != "id":
            continue
        path = os.path.join(folder, name)
        with open(path, "rb") as file:
            line = file.read(34)
        if not re.fullmatch(rb"[0-9a-f]{32}\n?", line):
            raise ConfigError("{}: not a key id: 32 digits of 0-9, a-f".format(path))
        key_id = bytes.fromhex(line.decode("ascii"))
        if key_id in found:
            raise ConfigError("{}: is the id of {}, too: each key has its own".format(path, found[key_id].file))
        found[key_id] = KeyFile(folder, key_id, match.group("name"), int(match.group("drawn") or 1))
    return found


def last_drawn(folder: str) -> int:
    """How often keys were drawn, or were about to be when that was killed. Raises OSError."""
    found = [_FORM.fullmatch(name) for name in os.listdir(folder)]
    return max((int(match.group("drawn") or 1) for match in found if match is not None), default=0)


def unfinished(folder: str) -> List[str]:
    """Stems of the keys whose ``remove`` was stopped half way; of those that somebody put back since, none.
    Raises OSError."""
    names = set(os.listdir(folder))
    found = [name[:-len(".gone")] for name in sorted(names) if name.endswith(".gone") and _FORM.fullmatch(name)]
    return [one for one in found if one + ".id" not in names]


def remove(folder: str, stem: str) -> None:
    """A key and its id, for good. Killed at any moment, it leaves both as they were, or a key that no id finds, which
    ``unfinished`` names: the same call finishes. Raises OSError."""
    path = os.path.join(folder, stem)
    with suppress(FileNotFoundError):  # it was stopped after this
        os.rename(path + ".id", path + ".gone")
    sync_folder(folder)
    with suppress(FileNotFoundError):
        os.unlink(path + ".key")
    sync_folder(folder)
    os.unlink(path + ".gone")


def choose(files: Mapping[bytes, KeyFile], folder: str, key_id: bytes, recipient: Optional[str]) -> KeyFile:
    """The file of a recipient's alert key, or of the data key (None). Raises KeyRefused where there is none."""
    one = files.get(key_id)
    if one is None or one.recipient != recipient:
        raise KeyRefused("{}: holds no {} of id {}".format(
            folder, "data key" if recipient is None else "alert key of {}".format(recipient), key_id.hex()))
    return one
