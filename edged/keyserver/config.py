"""A key server's configuration: one TOML file, strict, frozen. Paths are relative to its folder.

What stands in files that are public (agreement, certificates, lists, reference values) is read anew for each evidence:
a revocation or a new agreement is in force as soon as its file is in place.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Mapping, Tuple

from edged import strict
from edged.trust.evidence import NONCE_S, Policy
from edged.trust.request import UEID_BYTES

FILE = "keyserver.toml"
SCHEMA = 1
BIND = r"(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\]):\d{1,5}"
DAY_S = 86400
HOUR_S = 3600

_KEYS = ("schema", "bind", "certificate", "private_key", "ledger", "agreement", "mo", "qdo", "root", "crls",
         "references", "signers", "policy", "limits", "node")


@dataclass(frozen=True)
class Limits:
    """per_address : requests a minute      per_device : evidence an hour      connections : at once, in all and of
    one address      timeout_s : from a connection's first byte to its last"""

    per_address: int
    per_device: int
    connections: int
    connections_per_address: int
    timeout_s: float


@dataclass(frozen=True)
class ServerConfig:
    """bind : (host, port)      certificate, private_key : of TLS      mo, qdo : who must have signed the agreement
    signers : of reference values      expires_s : how long evidence that passed counts      silent_s : after which
    a node is silent      nodes : {ueid: name}; empty: any device that the city certified"""

    path: Path
    bind: Tuple[str, int]
    certificate: Path
    private_key: Path
    ledger: Path
    agreement: Path
    mo: bytes
    qdo: bytes
    root: Path
    crls: Tuple[Path, ...]
    references: Tuple[Path, ...]
    signers: Tuple[bytes, ...]
    policy: Policy
    expires_s: int
    silent_s: int
    limits: Limits
    nodes: Mapping[bytes, str]


def load(path: str) -> ServerConfig:
    """Raises MissingInput, KeyRefused (not readable) or ConfigError (FILE:LINE: key: what is wrong)."""
    root = strict.read(path, _KEYS)
    root.integer("schema", low=SCHEMA, high=SCHEMA)
    policy = root.table("policy", ("allow_emulated", "allow_debug", "allow_unfused", "nonce_s", "expires_s",
                                   "silent_s"), optional=True)
    expires_s = policy.integer("expires_s", DAY_S, 60)
    silent_s = policy.integer("silent_s", 2 * expires_s, 60)
    if silent_s < expires_s:
        raise policy.error("silent_s", "{}: at least expires_s, {}: who is silent did not pass".format(
            silent_s, expires_s))
    return ServerConfig(
        path=Path(root.path), bind=_bind(root), certificate=root.file("certificate"),
        private_key=root.file("private_key"), ledger=root.file("ledger"), agreement=root.file("agreement"),
        mo=root.octets("mo", 32), qdo=root.octets("qdo", 32), root=root.file("root"), crls=root.files("crls"),
        references=root.files("references"), signers=_signers(root),
        policy=Policy(*(policy.flag("allow_" + what, False) for what in ("emulated", "debug", "unfused")),
                      nonce_s=policy.integer("nonce_s", NONCE_S, 10, HOUR_S)),
        expires_s=expires_s, silent_s=silent_s, limits=_limits(root), nodes=_nodes(root))


def _bind(root: strict.Table) -> Tuple[str, int]:
    meaning = "HOST:PORT, as 0.0.0.0:7444"
    text = root.text("bind", pattern=BIND, meaning=meaning)
    host, _, port = text.rpartition(":")
    if int(port) > 65535:
        raise root.error("bind", "\"{}\": {}".format(text, meaning))
    return host.strip("[]"), int(port)


def _signers(root: strict.Table) -> Tuple[bytes, ...]:
    found = root.texts("signers")
    for text in found:
        if len(text) != 64 or any(digit not in "0123456789abcdef" for digit in text):
            raise root.error("signers", "\"{}\": 64 digits of 0-9, a-f".format(text))
    return tuple(bytes.fromhex(text) for text in found)


def _limits(root: strict.Table) -> Limits:
    table = root.table("limits", ("per_address", "per_device", "connections", "connections_per_address", "timeout_s"),
                       optional=True)
    return Limits(per_address=table.integer("per_address", 60, 1), per_device=table.integer("per_device", 12, 1),
                  connections=table.integer("connections", 512, 1, 4096),
                  connections_per_address=table.integer("connections_per_address", 32, 1, 4096),
                  timeout_s=table.number("timeout_s", 15.0, 0.1, 300.0))


def _nodes(root: strict.Table) -> Mapping[bytes, str]:
    made = {}
    for name, table in (root.tables("node", ("ueid",)) if "node" in root else []):
        ueid = table.octets("ueid", UEID_BYTES)
        if ueid in made:
            raise table.error("ueid", "is that of node {}, too".format(made[ueid]))
        made[ueid] = name
    return made
