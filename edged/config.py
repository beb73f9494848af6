"""A node's configuration: one TOML file, read once, strict, frozen, passed explicitly.

``load`` judges what is in the file; it opens none of the files that are named there. What decides about
alerts (thresholds, labels, cool-downs) is no part of it: that stands in the agreement, which both owners signed.
"""

import os
import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Dict, Mapping, Optional, Tuple

from edged import strict
from edged.enclave.wire import EVAL_AGREEMENTS_MAX
from edged.errors import ConfigError

DEFAULT_PATH = "/etc/edged/edged.toml"
SCHEMA = 1
MODELS_VARIABLE = "EDGED_MODELS"
# Of edged/enclave/tipc.py.
TRUSTY_DEVICE = "/dev/trusty-ipc-dev0"

# In node.run and node.state.
BRIDGE_SOCKET = "bridge.sock"
STATUS_FILE = "status.json"
SPOOL_FILE = "spool.db"

# Identities of the others on the bridge's socket.
RESERVED_NAMES = ("outbox", "edgectl")

_TABLES = ("schema", "node", "enclave", "accelerator", "camera", "outbox", "subscriber")
_DAY_S = 86400
_Z85 = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
_DECIDED_ELSEWHERE = re.compile(r"th?r?eshold|label|cool_?-?down|score|schedule|recipients|rate_limit")


@dataclass(frozen=True)
class Node:
    """name : [a-z0-9-]      state, run : folders      log : text | json"""

    name: str
    state: Path
    run: Path
    log: str


@dataclass(frozen=True)
class Enclave:
    """kind : host | trusty      at : folder of the sockets, or device
    keys : folder with slots.toml (host only; None where all keys are granted)
    placement : masked | inputs | enclave      transport : window | message"""

    kind: str
    at: str
    keys: Optional[Path]
    package: Path
    agreements: Tuple[Path, ...]
    placement: str
    transport: str


@dataclass(frozen=True)
class Accelerator:
    """kind : auto | cuda | cpu | numpy      threads : of the CPU, None is one for each core
    device : GPU's number"""

    kind: str
    threads: Optional[int]
    device: int


@dataclass(frozen=True)
class Camera:
    """kind : rtsp | device | file | recording | generator      source : the address, path or seed, without the kind
    key : file of 16 or 32 raw bytes      agreement : one of the enclave's, None where it has one
    models : folder, None where nobody named one      pose : a model's name, or None
    pose_backend : auto | opencv | onnxruntime
    speed : 1 is real time, 0 as fast as can be      group : near | few, of the people in a clip"""

    name: str
    kind: str
    source: str
    key: Path
    agreement: Optional[Path]
    models: Optional[Path]
    pose: Optional[str]
    pose_backend: str
    hop_s: float
    frames_per_second: float
    loop: bool
    speed: float
    group: str

    @property
    def shown(self) -> str:
        """The source as it may be printed: without the password of an address."""
        return re.sub(r"(//)[^/@]*@", r"\1***@", self.source)

    @property
    def needs_pose(self) -> bool:
        """Whether the source gives pictures; the others give skeletons."""
        return self.kind in ("rtsp", "device", "file")


@dataclass(frozen=True)
class Outbox:
    """key : file of a CURVE secret, 40 characters of Z85"""

    key: Path
    max_rows: int
    max_bytes: int
    max_age_s: int


@dataclass(frozen=True)
class Subscriber:
    """address : tcp://HOST:PORT      server_key : Z85      recipient : 16 bytes"""

    name: str
    address: str
    server_key: str
    recipient: bytes


@dataclass(frozen=True)
class Config:
    path: Path
    node: Node
    enclave: Enclave
    accelerator: Accelerator
    cameras: Tuple[Camera, ...]
    outbox: Outbox
    subscribers: Tuple[Subscriber, ...]

    @property
    def spool(self) -> Path:
        return self.node.state / SPOOL_FILE

    @property
    def key_folder(self) -> Path:
        """Of enclave/keystore.py's files: an emulated device's lie beside its own key, which opens them."""
        return Path(self.enclave.at) if self.enclave.kind == "host" else self.node.state

    @property
    def bridge_socket(self) -> Path:
        return self.node.run / BRIDGE_SOCKET

    @property
    def bridge_address(self) -> str:
        return "ipc://{}".format(self.bridge_socket)

    @property
    def status_file(self) -> Path:
        """What the supervisor says of its processes."""
        return self.node.run / STATUS_FILE

    def camera(self, name: str) -> Camera:
        """Raises ConfigError where the file has no such camera."""
        for camera in self.cameras:
            if camera.name == name:
                return camera
        raise ConfigError("{}: no table [camera.{}]: its cameras are {}".format(
            self.path, name, ", ".join(camera.name for camera in self.cameras)))


def load(path: str = DEFAULT_PATH, environment: Mapping[str, str] = os.environ) -> Config:
    """Raises MissingInput, KeyRefused (not readable) or ConfigError (FILE:LINE: key: what is wrong)."""
    try:
        return _judged(strict.read(path), environment)
    except ConfigError as error:
        raise _explained(error) from None


def _judged(root: strict.Table, environment: Mapping[str, str]) -> Config:
    if "schema" not in root:
        raise root.error("schema", "is missing: write schema = {} on top".format(SCHEMA))
    schema = root.integer("schema")
    if schema != SCHEMA:
        raise root.error("schema", "{}: this edged reads schema {}".format(schema, SCHEMA))
    root.require_known(_TABLES)
    node = _node(root)
    enclave = _enclave(root, node)
    return Config(
        path=Path(root.path),
        node=node,
        enclave=enclave,
        accelerator=_accelerator(root),
        cameras=_cameras(root, enclave, environment),
        outbox=_outbox(root),
        subscribers=_subscribers(root),
    )


def _explained(error: ConfigError) -> ConfigError:
    """Of an unknown key that would decide about alerts: where that is decided."""
    found = re.match(r"(.*:\d+: (?:\S+\.)?(\S+): unknown key)", str(error))
    if found and _DECIDED_ELSEWHERE.search(found.group(2)) and "did you mean" not in str(error):
        return ConfigError(found.group(1) + ": what is an alert stands in the signed agreement, not on the node")
    return error


def _keys(kind: Any, without: Tuple[str, ...] = ()) -> Tuple[str, ...]:
    return tuple(entry.name for entry in fields(kind) if entry.name not in without)


def _node(root: strict.Table) -> Node:
    table = root.table("node", _keys(Node))
    return Node(
        name=table.text("name", pattern=strict.NAME, meaning="1 to 31 of a-z, 0-9 and -, no - first"),
        state=table.file("state", Path("/var/lib/edged")),
        run=table.file("run", Path("/run/edged")),
        log=table.text("log", "text", choices=("text", "json")),
    )


def _enclave(root: strict.Table, node: Node) -> Enclave:
    table = root.table("enclave", _keys(Enclave))
    kind = table.text("kind", choices=("host", "trusty"))
    if kind == "host":
        at = str(table.file("at", node.run / "enclave"))
        keys = table.file("keys", None)
    else:
        at = str(table.file("at", Path(TRUSTY_DEVICE)))
        if "keys" in table:
            raise table.error("keys", "for kind = \"host\" alone: a Trusty node takes grants, not keys in files")
        keys = None
    agreements = table.files("agreements")
    if len(agreements) > EVAL_AGREEMENTS_MAX:
        raise table.error("agreements", "{}: the enclave holds {}".format(len(agreements), EVAL_AGREEMENTS_MAX))
    return Enclave(
        kind=kind, at=at, keys=keys, package=table.file("package"), agreements=agreements,
        placement=table.text("placement", "masked", choices=("masked", "inputs", "enclave")),
        # Few Trusty ports share memory with Linux.
        transport=table.text("transport", "window" if kind == "host" else "message", choices=("window", "message")),
    )


def _accelerator(root: strict.Table) -> Accelerator:
    table = root.table("accelerator", _keys(Accelerator), optional=True)
    return Accelerator(kind=table.text("kind", "auto", choices=("auto", "cuda", "cpu", "numpy")),
                       threads=table.integer("threads", None, 1, 1024), device=table.integer("device", 0, 0, 63))


def _cameras(root: strict.Table, enclave: Enclave, environment: Mapping[str, str]) -> Tuple[Camera, ...]:
    named = root.tables("camera", _keys(Camera, without=("name", "kind")))
    for name, table in named:
        if name in RESERVED_NAMES:
            raise table.error(None, "the name of another process: choose another")
    models = environment.get(MODELS_VARIABLE)
    default = Path(os.path.abspath(models)) if models else None
    return tuple(_camera(name, table, enclave, default) for name, table in named)


def _camera(name: str, table: strict.Table, enclave: Enclave, models: Optional[Path]) -> Camera:
    kind, source = _source(table)
    for key, kinds in (("loop", ("recording", "generator")), ("speed", ("file", "recording", "generator"))):
        if key in table and kind not in kinds:
            raise table.error(key, "not for a source of kind {}: only for {}".format(kind, ", ".join(kinds)))
    return Camera(
        name=name, kind=kind, source=source, key=table.file("key"), agreement=_judged_under(table, enclave),
        models=table.file("models", models),
        pose=table.text("pose", None, pattern=r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}",
                        meaning="the name of a model, no path"),
        pose_backend=table.text("pose_backend", "auto", choices=("auto", "opencv", "onnxruntime")),
        hop_s=table.number("hop_s", 1.0, 1, 10),
        frames_per_second=table.number("frames_per_second", 10.0, 1, 120),
        loop=table.flag("loop", False),
        speed=table.number("speed", 1.0, 0, 1000),
        group=table.text("group", "near", choices=("near", "few")),
    )


def _judged_under(table: strict.Table, enclave: Enclave) -> Optional[Path]:
    """The agreement whose data key the camera's key comes of."""
    if len(enclave.agreements) == 1 and "agreement" not in table:
        return None
    given = table.file("agreement")
    if given not in enclave.agreements:
        raise table.error("agreement", "\"{}\": none of [enclave] agreements".format(given))
    return given


def _source(table: strict.Table) -> Tuple[str, str]:
    given = table.text("source")
    scheme = re.match(r"([a-z0-9+.-]+)://", given)
    if scheme:
        if scheme.group(1) not in ("rtsp", "rtsps") or not re.fullmatch(
                r"rtsps?://(?:[^/@\s]*@)?(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?(?:/\S*)?", given):
            raise table.error("source", "not an address of a camera: rtsp://HOST[:PORT]/PATH")  # it may hold a password
        return "rtsp", given
    if given.startswith("generator:"):
        seed = given[len("generator:"):]
        if not re.fullmatch(r"[0-9]{1,10}", seed) or int(seed) >= 1 << 32:
            raise table.error("source", "\"{}\": generator:SEED, a number below 2^32".format(given))
        return "generator", str(int(seed))
    if given.startswith("recording:"):
        if given == "recording:":
            raise table.error("source", "\"recording:\": recording:FILE")
        return "recording", str(table.resolved(given[len("recording:"):]))
    path = str(table.resolved(given))
    return "device" if re.fullmatch(r"/dev/video\d+", path) else "file", path


def _outbox(root: strict.Table) -> Outbox:
    table = root.table("outbox", _keys(Outbox))
    return Outbox(
        key=table.file("key"),
        # A record of 512 bytes takes less than 1 KiB: about a day of 20 cameras that judge every second.
        max_rows=table.integer("max_rows", 2000000, 1),
        max_bytes=table.integer("max_bytes", 2 << 30, 1 << 16),
        max_age_s=table.integer("max_age_s", 30 * _DAY_S, 1),
    )


def _subscribers(root: strict.Table) -> Tuple[Subscriber, ...]:
    made = []
    for table in root.array("subscriber", _keys(Subscriber)):
        one = Subscriber(
            name=table.text("name", pattern=strict.NAME, meaning="1 to 31 of a-z, 0-9 and -, no - first"),
            address=_address(table), server_key=_curve_key(table),
            recipient=bytes.fromhex(table.text("recipient", pattern=r"[0-9a-f]{32}", meaning="32 digits of 0-9, a-f")),
        )
        for key in ("name", "recipient"):
            if any(getattr(one, key) == getattr(other, key) for other in made):
                raise table.error(key, "is there twice: each subscriber has its own")
        made.append(one)
    return tuple(made)


def _address(table: strict.Table) -> str:
    given = table.text("address")
    found = re.fullmatch(r"tcp://(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):(\d{1,5})", given)
    if not found or not 1 <= int(found.group(1)) <= 65535:
        raise table.error("address", "\"{}\": tcp://HOST:PORT, a port from 1 to 65535".format(given))
    return given


def _curve_key(table: strict.Table) -> str:
    given = table.text("server_key")
    if not is_z85_key(given):
        raise table.error("server_key", "not a public key of CURVE: 40 characters of Z85")
    return given


def shown(config: Config) -> Dict[str, Any]:
    """For people, ready for JSON: defaults included, passwords of cameras left out."""
    cameras = {}
    for camera in config.cameras:
        cameras[camera.name] = dict(_plain(camera), source=camera.shown)
        del cameras[camera.name]["name"]
    return {"schema": SCHEMA, "node": _plain(config.node), "enclave": _plain(config.enclave),
            "accelerator": _plain(config.accelerator), "camera": cameras, "outbox": _plain(config.outbox),
            "subscriber": [_plain(subscriber) for subscriber in config.subscribers]}


def _plain(table: Any) -> Dict[str, Any]:
    made = {}
    for entry in fields(table):
        value = getattr(table, entry.name)
        if isinstance(value, bytes):
            value = value.hex()
        elif isinstance(value, tuple):
            value = [str(one) for one in value]
        elif isinstance(value, Path):
            value = str(value)
        made[entry.name] = value
    return made


def is_z85_key(given: str) -> bool:
    """Whether these are 32 bytes in Z85: 40 characters, each five of them a number below 2^32 (ZeroMQ RFC 32)."""
    if len(given) != 40 or any(character not in _Z85 for character in given):
        return False
    for begin in range(0, 40, 5):
        value = 0
        for character in given[begin:begin + 5]:
            value = value * 85 + _Z85.index(character)
        if value >> 32:
            return False
    return True
