"""A subscriber's configuration: one TOML file, strict, frozen; `edged-city init` writes it.

Paths are relative to its folder. `[[former]]` tables hold the alert keys of agreements before the one in force, of
which records may still come; `edged-city adopt` adds them, `edged-city drop` takes them away. The period of the beacons
and what an alert is stand in the agreement.
"""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Dict, NamedTuple, Tuple

from edged import strict
from edged.enclave.slots import KEY_SIZES
from edged.enclave.wire import KeyKind
from edged.secret import read_secret
from edged.trust.validity import NEAR_DAYS

FILE = "subscriber.toml"
SCHEMA = 1
BIND = r"tcp://(?:[A-Za-z0-9._*-]+|\[[0-9A-Fa-f:.]+\]):\d{1,5}"
BIND_MEANING = "tcp://ADDRESS:PORT, as tcp://0.0.0.0:7443"
CURVE_SECRET_CHARACTERS = 40


class FormerKey(NamedTuple):
    """alert_key : file      alert_key_id : 16 bytes"""

    alert_key: Path
    alert_key_id: bytes


@dataclass(frozen=True)
class CityConfig:
    """bind : tcp://HOST:PORT (port 0: any)      curve_key, alert_key : files
    recipient, alert_key_id : 16 bytes      agreements : signed files, the one in force first; mo, qdo : the keys
    that must have signed them      nodes : the allow-list      journal : database      keep_rows : of its log
    warn_days : before the end of an agreement      former : alert keys of agreements that were in force before"""

    path: Path
    bind: str
    curve_key: Path
    recipient: bytes
    alert_key: Path
    alert_key_id: bytes
    agreements: Tuple[Path, ...]
    mo: bytes
    qdo: bytes
    nodes: Path
    journal: Path
    keep_rows: int
    warn_days: int
    former: Tuple[FormerKey, ...]

    def read_alert_keys(self) -> Dict[bytes, bytes]:
        """{id: key}, the one in force first. Raises MissingInput or KeyRefused."""
        return {key_id: read_secret(str(path), KEY_SIZES[KeyKind.ALERT])
                for path, key_id in ((self.alert_key, self.alert_key_id),) + self.former}

    def read_curve_secret(self) -> bytes:
        """Likewise; 40 characters of Z85."""
        return read_secret(str(self.curve_key), (CURVE_SECRET_CHARACTERS,))


_KNOWN = ["schema"] + [entry.name for entry in fields(CityConfig) if entry.name != "path"]


def load(path: str) -> CityConfig:
    """Raises MissingInput, KeyRefused (not readable) or ConfigError (FILE:LINE: key: what is wrong)."""
    return _judged(strict.read(path, _KNOWN))


def parse(path: str, data: bytes) -> CityConfig:
    """Likewise, of what is to be written there: an absolute path."""
    return _judged(strict.parse(path, data, _KNOWN))


def _judged(root: strict.Table) -> CityConfig:
    schema = root.integer("schema")
    if schema != SCHEMA:
        raise root.error("schema", "{}: this edged reads schema {}".format(schema, SCHEMA))
    return CityConfig(
        path=Path(root.path),
        bind=root.text("bind", pattern=BIND, meaning=BIND_MEANING),
        curve_key=root.file("curve_key"),
        recipient=root.octets("recipient", 16),
        alert_key=root.file("alert_key"),
        alert_key_id=root.octets("alert_key_id", 16),
        agreements=root.files("agreements"),
        mo=root.octets("mo", 32),
        qdo=root.octets("qdo", 32),
        nodes=root.file("nodes"),
        journal=root.file("journal"),
        # About 2 KiB each: a record of 512 bytes, sealed and as JSON. With skeletons 50 KiB.
        keep_rows=root.integer("keep_rows", 1000000, 1),
        warn_days=root.integer("warn_days", NEAR_DAYS, 0, 3650),
        former=tuple(FormerKey(table.file("alert_key"), table.octets("alert_key_id", 16))
                     for table in root.array("former", FormerKey._fields, optional=True)),
    )
