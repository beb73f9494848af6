"""``edgectl install``: a city's bundle onto this node.

Puts the agreement, the cameras' keys and, of an emulated enclave, the slots where the configuration names them, and
makes the node's CURVE key if there is none. A configuration that is missing is written; one that is there is the
operator's: it is checked, and what it lacks is told. All files are written or none, and none is written over.
An agreement that follows one of the node's is refused: `edgectl rotate` is for that. A camera's key goes only where its
camera is judged under the bundle's agreement: under another one everything that it seals is lost.

    beside edged.toml    agreement.cose    cameras/NAME.key    outbox/curve.key    slots/
"""

import os
import re
import socket
from pathlib import Path
from typing import List, NamedTuple, Optional, Tuple

from edged import config as configuration
from edged.alerts import bundle as bundles
from edged.alerts.bundle import Bundle
from edged.alerts.cityconfig import CURVE_SECRET_CHARACTERS
from edged.bus import generate_keys, public_of
from edged.config import Config
from edged.errors import ConfigError, KeyRefused, PackageError, VerificationFailed
from edged.placing import SHARED, Placing
from edged.secret import read_secret
from edged.trust.agreement import open_agreement

# The identity of the host port outlives a start of the machine: not in /run.
_HOST = "at = \"/var/lib/edged-enclave\"\nkeys = \"slots\"\n"
_PACKAGE, _CURVE_KEY = "model.pkg", os.path.join("outbox", "curve.key")


class Installed(NamedTuple):
    """node : the node's name      public : its CURVE key, Z85      new : files written
    lacking : what the configuration needs, as (why, lines of TOML)"""

    node: str
    public: str
    new: Tuple[str, ...]
    lacking: Tuple[Tuple[str, str], ...]


class _Places(NamedTuple):
    """Where each thing goes, on this machine's file system."""

    agreement: Path
    cameras: Tuple[Tuple[Path, bytes], ...]
    curve_key: Path
    slots: Path


def run(folder: str, config: str, root: str = "/") -> None:
    """Install, and print what the operator and the city have to do next. Raises what ``install`` raises."""
    done = install(folder, config, root)
    for path in done.new:
        print("wrote {}".format(path))
    for why, lines in done.lacking:
        print("\n{}:\n\n{}".format(why, "".join("    {}\n".format(line) for line in lines.splitlines())))
    print("This node's public key: {}".format(done.public))
    print("At the city: edged-city allow {} --key='{}'".format(done.node, done.public))


def install(folder: str, config: str, root: str = "/") -> Installed:
    """config : as the node will see it; root : where the node's file system is.

    Raises MissingInput, KeyRefused, ConfigError, PackageError, VerificationFailed, OSError; then nothing was changed.
    """
    bundle = bundles.read(folder)
    path = _under(root, Path(os.path.abspath(config)))
    beside = path.parent
    placing = Placing()
    if path.exists():
        loaded = configuration.load(str(path))
        _refuse_successor(loaded, bundle, folder, root)
        places, lacking = _fitted(loaded, bundle, root)
        node = loaded.node.name
    else:
        node, lacking = _host_name(), []
        places = _Places(beside / "agreement.cose",
                         tuple((beside / "cameras" / (name + ".key"), key) for name, key in bundle.cameras),
                         beside / _CURVE_KEY, beside / "slots")
        placing.add(path, _written(bundle, node), SHARED)
        lacking = [("Still missing in {}".format(path), "the model's package, as {}\n{}".format(
            beside / _PACKAGE, "".join("the source of camera.{}\n".format(name) for name, _ in bundle.cameras)))]
    placing.add(places.agreement, bundle.signed, SHARED)
    for place, key in places.cameras:
        placing.add(place, key)
    for name, content in bundles.slot_files(bundle.slots):
        placing.add(places.slots / name, content)
    if places.curve_key.exists():
        secret = read_secret(str(places.curve_key), (CURVE_SECRET_CHARACTERS,))
        public = public_of(secret)
    else:
        public, secret = generate_keys()
        placing.add(places.curve_key, secret)
    return Installed(node, public.decode("ascii"), tuple(placing.commit()), tuple(lacking))


def _fitted(config: Config, bundle: Bundle, root: str) -> Tuple[_Places, List[Tuple[str, str]]]:
    """Where a configuration wants it, and what it lacks. Raises ConfigError or KeyRefused where the two disagree."""
    enclave = config.enclave
    if bundle.slots and (enclave.kind != "host" or enclave.keys is None):
        raise KeyRefused("{}: enclave.kind is \"{}\", and the bundle is for an emulated enclave: have the city "
                         "make one without --emulated".format(config.path, enclave.kind))
    lacking: List[Tuple[str, str]] = []
    beside = config.path.parent

    def relative(path: Path) -> str:
        return os.path.relpath(str(path), str(beside))

    agreement = _agreement_place(config, bundle, root)
    is_listed = agreement is not None
    if agreement is None:
        agreement = beside / "agreement-{}.cose".format(bundle.agreement.number)
        listed = [relative(one) for one in enclave.agreements] + [agreement.name]
        lacking.append(("[enclave] of {} does not list the agreement: once it does, run this again, for the cameras' "
                        "keys".format(config.path), "agreements = [{}]".format(
                            ", ".join('"{}"'.format(one) for one in listed))))
    is_only = is_listed and len(enclave.agreements) == 1
    judged = "" if is_only else "agreement = \"{}\"\n".format(relative(agreement))
    cameras = []
    known = {camera.name: camera for camera in config.cameras}
    for name, key in bundle.cameras:
        if name not in known:
            lacking.append(("{} has no camera {}".format(config.path, name), _camera_table(name) + judged))
            place = beside / "cameras" / (name + ".key")
        elif _under(root, known[name].agreement or enclave.agreements[0]) == agreement:
            place = _under(root, known[name].key)
        else:
            lacking.append(("camera.{} of {} is judged under another agreement: its key was not put there; under this "
                            "one it would need".format(name, config.path), judged))
            continue
        if is_listed:
            cameras.append((place, key))
    if all(one.recipient != bundle.recipient for one in config.subscribers):
        lacking.append(("{} has no subscriber of recipient {}".format(config.path, bundle.recipient.hex()),
                        _subscriber_table(bundle)))
    else:
        require_subscriber(config, bundle)
    slots = _under(root, enclave.keys) if enclave.keys is not None else beside / "slots"
    return _Places(agreement, tuple(cameras), _under(root, config.outbox.key), slots), lacking


def require_subscriber(config: Config, bundle: Bundle) -> None:
    """Raises ConfigError unless the configuration has the bundle's subscriber, as the bundle has it."""
    for one in config.subscribers:
        if one.recipient != bundle.recipient:
            continue
        for what, here, there in (("address", one.address, bundle.address),
                                  ("server_key", one.server_key, bundle.server_key)):
            if here != there:
                raise ConfigError("{}: subscriber {} has another {} than the bundle: {}".format(
                    config.path, one.name, what, there))
        return
    raise ConfigError("{}: no subscriber of recipient {}: add it first, as `edgectl install` says".format(
        config.path, bundle.recipient.hex()))


def _refuse_successor(config: Config, bundle: Bundle, folder: str, root: str) -> None:
    """Raises ConfigError where the bundle's agreement follows one that is there: what its cameras seal before the
    bridge goes over would be lost."""
    new, found = bundle.agreement, []
    for path in (_under(root, one) for one in config.enclave.agreements):
        try:
            found.append((path, open_agreement(path.read_bytes())))
        except (FileNotFoundError, PackageError, VerificationFailed):
            pass  # what is no agreement is not followed; `edgectl config check` names it
    if any(there.digest == new.digest for _, there in found):
        return
    for path, there in found:
        if new.may_follow(there):
            raise ConfigError("{}: agreement {} follows agreement {}: {}".format(
                path, new.number, there.number, "the bundle holds keys in clear: set the emulated node up anew"
                if bundle.slots else "run `edgectl rotate {} --config {}`".format(folder, config.path)))


def _agreement_place(config: Config, bundle: Bundle, root: str) -> Optional[Path]:
    """The listed file that holds it, or else the first that is missing."""
    missing = None
    for path in (_under(root, one) for one in config.enclave.agreements):
        if not path.exists():
            missing = missing or path
        elif path.read_bytes() == bundle.signed:
            return path
    return missing


def _under(root: str, path: Path) -> Path:
    """Paths of the node as seen from here; those beside the configuration were resolved from here already."""
    top = Path(os.path.abspath(root))
    return path if top in path.parents else top / path.relative_to(path.anchor)


def _host_name() -> str:
    name = re.sub(r"[^a-z0-9-]", "-", socket.gethostname().split(".")[0].lower()).strip("-")[:31]
    return name or "node"


def _written(bundle: Bundle, node: str) -> bytes:
    text = ("# Written by `edgectl install`; `edgectl config check` judges it.\nschema = 1\n\n[node]\nname = \"{}\"\n\n"
            "[enclave]\nkind = \"{}\"\n{}package = \"{}\"\nagreements = [\"agreement.cose\"]\n\n".format(
                node, "host" if bundle.slots else "trusty", _HOST if bundle.slots else "", _PACKAGE))
    for name, _ in bundle.cameras:
        text += _camera_table(name) + "\n"
    return (text + "[outbox]\nkey = \"{}\"\n\n".format(_CURVE_KEY) + _subscriber_table(bundle)).encode("ascii")


def _camera_table(name: str) -> str:
    return ("[camera.{0}]\nsource = \"rtsp://{0}.invalid/\"      # to be replaced: its address, device or file\n"
            "key = \"cameras/{0}.key\"\n".format(name))


def _subscriber_table(bundle: Bundle) -> str:
    return "[[subscriber]]\nname = \"{}\"\naddress = \"{}\"\nserver_key = \"{}\"\nrecipient = \"{}\"\n".format(
        bundle.name, bundle.address, bundle.server_key, bundle.recipient.hex())
