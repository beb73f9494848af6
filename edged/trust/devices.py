"""The devices that a party has seen for itself: a text file of their attestation keys.

    # a comment
    0f3c...e1 north, 12 Bridge Street

A line each: the fingerprint (trust/request.py, 64 hex digits), then whatever its owner calls it. `edgectl identity
show` prints it on the board, `scripts/enrol` too. Who is not listed gets nothing, whatever an authority certifies.
"""

import re
from typing import FrozenSet, Set

from edged.errors import ConfigError

_LINE = re.compile(r"([0-9a-f]{64})(?:[ \t]+[^ \t].*)?")


def read(content: bytes, path: str) -> FrozenSet[bytes]:
    """Fingerprints, 32 bytes each. Raises ConfigError (FILE:LINE: what is wrong)."""
    found: Set[bytes] = set()
    for number, line in enumerate(content.decode("utf-8", "replace").splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise ConfigError("{}:{}: not 64 digits of 0-9, a-f, as `edgectl identity show` prints them, and a "
                              "name".format(path, number))
        one = bytes.fromhex(match.group(1))
        if one in found:
            raise ConfigError("{}:{}: {} is there twice: take one line away".format(path, number, one.hex()))
        found.add(one)
    return frozenset(found)
