"""The city's allow-list: which nodes may connect, by their CURVE keys.

    [[node]]
    name = "bridge-street"
    key = "..."              # the node's CURVE public key, in Z85
    node = "32 hex digits"   # optional: the enclave's own name; else learnt from its first record, and journalled
    revoked = true           # optional: listed for ever, so that whoever comes with it is known by name

`edged-city allow`, `revoke` and `ca enrol` write it; a running subscriber reads it again when it changes.
"""

import fcntl
import os
import re
import stat
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Dict, Iterator, List, Optional, Sequence, Tuple

from edged import strict
from edged.config import is_z85_key
from edged.errors import ConfigError, EdgedError, KeyRefused, UsageError
from edged.placing import replace_file

_KEYS = ("name", "key", "node", "revoked")
FILE = "nodes.toml"
HEAD = "# The nodes that may connect: written by `edged-city allow` and `edged-city revoke`.\nschema = 1\n"
_NODE = r"[0-9a-f]{32}"


@dataclass(frozen=True)
class Listed:
    """key : Z85      node : 16 bytes, None until learnt"""

    name: str
    key: str
    node: Optional[bytes]
    revoked: bool


def read_nodes(path: str) -> Tuple[Listed, ...]:
    """Raises MissingInput, KeyRefused or ConfigError (FILE:LINE: key: what is wrong)."""
    root = strict.read(path, ("schema", "node"))
    root.integer("schema", 1, 1, 1)
    made: List[Listed] = []
    for table in root.array("node", _KEYS, optional=True):
        node = table.text("node", None, pattern=_NODE, meaning="32 digits of 0-9, a-f")
        one = Listed(
            name=table.text("name", pattern=strict.NAME, meaning="1 to 31 of a-z, 0-9 and -, no - first"),
            key=table.text("key"),
            node=None if node is None else bytes.fromhex(node),
            revoked=table.flag("revoked", False),
        )
        if not is_z85_key(one.key):
            raise table.error("key", "not a public key of CURVE: 40 characters of Z85")
        if any(one.key == other.key for other in made):
            raise table.error("key", "is there twice")
        if not one.revoked:
            for other in made:
                if not other.revoked and one.name == other.name:
                    raise table.error("name", "\"{}\" has two keys: revoke one".format(one.name))
                if not other.revoked and one.node is not None and one.node == other.node:
                    raise table.error("node", "is that of \"{}\", too".format(other.name))
        made.append(one)
    return tuple(made)


def write_nodes(path: str, nodes: Sequence[Listed]) -> None:
    """Replace the file, at once; who may read it stays."""
    text = HEAD
    for one in nodes:
        text += "\n[[node]]\nname = \"{}\"\nkey = \"{}\"\n".format(one.name, one.key)
        if one.node is not None:
            text += "node = \"{}\"\n".format(one.node.hex())
        if one.revoked:
            text += "revoked = true\n"
    replace_file(path, text.encode("ascii"), stat.S_IMODE(os.stat(path).st_mode))


def allow(path: str, name: str, key: str, node: Optional[bytes] = None) -> None:
    """List a node. Raises UsageError, KeyRefused where the key was revoked, and what read_nodes raises."""
    if not re.fullmatch(strict.NAME, name):
        raise UsageError("{}: not a name: 1 to 31 of a-z, 0-9 and -, no - first".format(name))
    if not is_z85_key(key):
        raise UsageError("--key {}: not a public key of CURVE: 40 characters of Z85".format(key))
    with _changing(path) as nodes:
        for one in nodes:
            if one.key == key and one.revoked:
                raise KeyRefused("this key of {} was revoked: have the node make a new one".format(one.name))
            if one.key == key and one.name != name:
                raise UsageError("this key is listed already, as {}".format(one.name))
            if one.name == name and not one.revoked and one.key != key:
                raise UsageError("{} is listed with another key: `edged-city revoke {}` first".format(name, name))
            if node is not None and one.node == node and one.name != name and not one.revoked:
                raise UsageError("node {} is listed already, as {}".format(node.hex(), one.name))
        same = [index for index, one in enumerate(nodes) if one.key == key]
        if same:
            nodes[same[0]] = replace(nodes[same[0]], node=node or nodes[same[0]].node)
        else:
            # Another key of the same node: a key is of the disk, the node's own name of the board.
            before = [one.node for one in nodes if one.name == name]
            nodes.append(Listed(name, key, node or (before[-1] if before else None), False))


def pin(path: str, name: str, node: bytes) -> bool:
    """Have records of this enclave alone be taken under a name, which may have been another's (a broken board).

    Whether it is listed. Raises UsageError where the enclave is listed under another name, and what read_nodes raises.
    """
    with _changing(path) as nodes:
        for one in nodes:
            if one.node == node and one.name != name and not one.revoked:
                raise UsageError("node {} is listed already, as {}: `edged-city revoke {}` first".format(
                    node.hex(), one.name, one.name))
        places = [index for index, one in enumerate(nodes) if one.name == name]
        if places:  # of a name all but the last are revoked
            nodes[places[-1]] = replace(nodes[places[-1]], node=node)
        return bool(places)


def revoke(path: str, which: str) -> str:
    """Revoke the key of a node, by its name or key; its name. Raises UsageError where none is listed so."""
    with _changing(path) as nodes:
        for index, one in enumerate(nodes):
            if which in (one.name, one.key) and not one.revoked:
                nodes[index] = replace(one, revoked=True)
                return one.name
        raise UsageError("{}: no node is listed so, or its key is revoked already".format(which))


@contextmanager
def _changing(path: str) -> Iterator[List[Listed]]:
    """The list; what the caller leaves in it is written. One writer at a time."""
    handle = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        nodes = list(read_nodes(path))
        yield nodes
        write_nodes(path, nodes)
    finally:
        os.close(handle)


class AllowList:
    """The file as a running subscriber sees it. ``allows`` may be asked by another thread."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._seen = self._stamp()
        self._by_key: Dict[str, Listed] = {one.key: one for one in read_nodes(path)}

    def find(self, key: str) -> Optional[Listed]:
        return self._by_key.get(key)

    def allows(self, key: str) -> bool:
        one = self._by_key.get(key)
        return one is not None and not one.revoked

    def present(self) -> List[Listed]:
        """Those that may connect."""
        return [one for one in self._by_key.values() if not one.revoked]

    def refresh(self) -> bool:
        """Read it again if it changed; whether it did. Raises EdgedError once for each bad version, and goes on
        with the last good one: a slip of the editor neither admits nor shuts out anybody."""
        stamp = self._stamp()
        if stamp == self._seen:
            return False
        self._seen = stamp
        try:
            self._by_key = {one.key: one for one in read_nodes(self.path)}
        except EdgedError as error:
            raise ConfigError("{}: the list read before stays in force".format(error)) from error
        return True

    def _stamp(self) -> Tuple[int, ...]:
        try:
            found = os.stat(self.path)
        except OSError:
            return ()
        return found.st_mtime_ns, found.st_size, found.st_ino
