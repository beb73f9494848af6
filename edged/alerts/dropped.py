"""Which keys the agreements named that `edged-city drop` took off: these alone may be retired.

    [[key]]
    key_id = "32 hex digits"
    agreement = 1             # its number

A key that nobody wrote down here may be one of an agreement that is signed, in the field even, and not adopted yet.
"""

import os
from typing import Dict

from edged import strict
from edged.placing import replace_like
from edged.trust.agreement import Agreement

FILE = "dropped.toml"
_HEAD = "# Keys of dropped agreements: written by `edged-city drop`, read by `edged-city keys retire`.\nschema = 1\n"


def read(folder: str) -> Dict[bytes, int]:
    """{key id: number of the agreement that was dropped}. Raises KeyRefused (not readable), ConfigError."""
    path = os.path.join(folder, FILE)
    if not os.path.lexists(path):
        return {}
    root = strict.read(path, ("schema", "key"))
    root.integer("schema", 1, 1, 1)
    return {table.octets("key_id", 16): table.integer("agreement")
            for table in root.array("key", ("key_id", "agreement"), optional=True)}


def add(folder: str, agreement: Agreement, like: str) -> None:
    """Write the keys of this one down, too. like : a file whose owner and mode a new one gets. Raises as ``read``,
    OSError."""
    known = read(folder)
    for key_id in (agreement.data_key,) + tuple(one.alert_key for one in agreement.recipients):
        known[key_id] = agreement.number
    text = _HEAD + "".join("\n[[key]]\nkey_id = \"{}\"\nagreement = {}\n".format(key_id.hex(), number)
                           for key_id, number in known.items())
    replace_like(os.path.join(folder, FILE), text.encode("ascii"), like)
