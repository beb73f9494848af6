"""A key server's configuration: one TOML file, strict, frozen. Paths are relative to its folder.

What stands in files that are public (agreement, certificates, lists, reference values, devices) is read anew for each
evidence: a revocation, a new agreement or device is in force as soon as its file is in place.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import FrozenSet, Mapping, Optional, Tuple

from edged import strict
from edged.canonical import UINT32
from edged.command import read_file
from edged.enclave import wire
from edged.errors import MissingInput
from edged.trust import devices
from edged.trust.evidence import NONCE_S, Policy
from edged.trust.request import UEID_BYTES

FILE = "keyserver.toml"
SCHEMA = 1
BIND = r"(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\]):\d{1,5}"
DAY_S = 86400
HOUR_S = 3600

# The highest: the keys of an agreement of EDGED_RECIPIENTS_MAX recipients lie in six slots.
FIRST_SLOT_MAX = wire.KEY_SLOTS - 2 - wire.EDGED_RECIPIENTS_MAX

_KEYS = ("schema", "bind", "certificate", "private_key", "ledger", "agreement", "least_agreement", "least_model",
         "first_slot", "mo", "qdo", "root", "crls", "references", "signers", "devices", "trust_authority", "policy",
         "limits", "node")


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
    least_agreement, least_model : the numbers of agreements and the versions of models below which devices shall use
    none, of all that are this party's      first_slot : None: as the agreement's number says
    signers : of reference values      devices : that this party has seen for itself (trust/devices.py); None: whatever
    the root certifies is a device      expires_s : how long evidence that passed counts      silent_s : after which
    a node is silent      nodes : {ueid: name}; empty: any device that the city certified"""

    path: Path
    bind: Tuple[str, int]
    certificate: Path
    private_key: Path
    ledger: Path
    agreement: Path
    least_agreement: int
    least_model: int
    first_slot: Optional[int]
    mo: bytes
    qdo: bytes
    root: Path
    crls: Tuple[Path, ...]
    references: Tuple[Path, ...]
    signers: Tuple[bytes, ...]
    devices: Optional[Path]
    policy: Policy
    expires_s: int
    silent_s: int
    limits: Limits
    nodes: Mapping[bytes, str]

    def read_devices(self) -> Optional[FrozenSet[bytes]]:
        """Those that are listed now; None: the authority is trusted. Raises MissingInput, KeyRefused, ConfigError."""
        return None if self.devices is None else devices.read(read_file(str(self.devices)), str(self.devices))


def load(path: str) -> ServerConfig:
    """Raises MissingInput, KeyRefused (not readable) or ConfigError (FILE:LINE: key: what is wrong)."""
    try:
        root = strict.read(path, _KEYS)
    except MissingInput as error:
        raise MissingInput("{}: write one, systemd/keyserver.toml.example explains each key, or name it by "
                           "--config".format(error)) from error
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
        least_agreement=root.integer("least_agreement", 0, 0, UINT32),
        least_model=root.integer("least_model", 0, 0, UINT32),
        first_slot=root.integer("first_slot", None, 0, FIRST_SLOT_MAX),
        mo=root.octets("mo", 32), qdo=root.octets("qdo", 32), root=root.file("root"), crls=root.files("crls"),
        references=root.files("references"), signers=_signers(root), devices=_devices(root),
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


def _devices(root: strict.Table) -> Optional[Path]:
    """Nobody believes the authority without having said so."""
    found = root.file("devices", None)
    if root.flag("trust_authority", False) == (found is not None):
        raise root.error("devices", "{}: name a file of the devices that you have seen for yourself (README: Trust), "
                                    "or say trust_authority = true: whatever the root certifies gets keys".format(
                                        "is missing" if found is None else "with trust_authority, one of both"))
    return found


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
