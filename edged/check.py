"""``edgectl config check``: whether what a configuration names is there, is whole, and fits together.

Nothing is started, made or changed. Run it as the user whose processes will read the files, or as root, who reads
those of all of them.
"""

import os
import stat
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Optional, Set, Tuple

from edged import artifacts, command, config as configuration, strict
from edged.beside import (CAMERA_KEY_SIZES, judged_under, key_path, next_path, read_agreement, require_follows,
                          staged_keys)
from edged.config import Camera, Config
from edged.enclave import host, tipc, wire
from edged.enclave.certified import certified
from edged.enclave.keystore import KeyStore
from edged.enclave.slots import Slot, read_slots
from edged.errors import ConfigError, EdgedError, EnclaveError, KeyRefused, MissingInput, PackageError
from edged.secret import read_secret
from edged.supervisor import NOTIFY_SOCKET
from edged.trust import validity
from edged.trust.agreement import DAY_S, Agreement
from edged.trust.held import named_by

CURVE_KEY_BYTES = 40


def findings(config: Config) -> List[EdgedError]:
    """All that is wrong, in the order of the file; each one line that names the key."""
    found: List[EdgedError] = []
    file = strict.read(str(config.path))
    for where, check in _checks(config):
        try:
            check()
        except EdgedError as error:
            found.append(_of(file.named(where), error))
        except OSError as error:
            kind = KeyRefused if isinstance(error, PermissionError) else MissingInput
            found.append(_of(file.named(where), kind("{}: {}".format(error.filename, error.strerror))))
    return found


def warnings(config: Config) -> List[EdgedError]:
    """What is right today and will not be soon: agreements, and a certificate, whose end is near, each one line. What
    cannot be read ``findings`` names."""
    file = strict.read(str(config.path))
    named, found = file.named(("enclave", "agreements")), []
    for path in config.enclave.agreements:
        with suppress(EdgedError, OSError):
            seen = _Seen()
            seen.agreements[path] = read_agreement(path)[1]
            with suppress(EdgedError, OSError):
                _following(path, seen)
            left = _left(path, seen)
            if left is not None and 0 < left.seconds <= validity.NEAR_DAYS * DAY_S:
                found.append(_of(named, _end(path, left)))
    with suppress(EdgedError):
        certificate = certified(KeyStore(config.key_folder))
        if certificate is not None and certificate.near and not certificate.ended:
            found.append(_of(file.named(_key_place(config)), EnclaveError(str(certificate))))
    return found


def _of(named: str, error: EdgedError) -> EdgedError:
    error.args = ("{}: {}".format(named, error),)
    return error


Checks = Iterator[Tuple[strict.Where, Callable[[], None]]]


class _Seen:
    """What one check read and another needs."""

    def __init__(self) -> None:
        self.slots: Optional[List[Slot]] = None
        self.agreements: Dict[Path, Agreement] = {}
        self.agreed = True  # every agreement was read
        self.following: Dict[Path, Optional[Agreement]] = {}  # after that of a path; absent where that is not known
        self.camera_keys: Dict[bytes, str] = {}


def _checks(config: Config) -> Checks:
    """(key of the configuration, function that raises what is wrong)"""
    seen = _Seen()
    yield ("node", "state"), lambda: _folder(config.node.state)
    yield ("node", "run"), lambda: _run_folder(config)
    yield from _enclave_checks(config, seen)
    yield ("accelerator", "kind"), lambda: _accelerator(config)
    for camera in config.cameras:
        yield from _camera_checks(config, camera, seen)
    yield ("outbox", "key"), lambda: _curve_key(config)
    for index, subscriber in enumerate(config.subscribers):
        yield ("subscriber", "#{}".format(index), "recipient"), lambda rcpt=subscriber.recipient: _recipient(rcpt, seen)


def _enclave_checks(config: Config, seen: _Seen) -> Checks:
    enclave = config.enclave
    if enclave.kind == "host":
        yield ("enclave", "kind"), _programs
        yield ("enclave", "at"), lambda: _enclave_folder(enclave.at)
        if enclave.keys is not None:  # else they are granted, and nobody but the enclave knows them
            yield ("enclave", "keys"), lambda: _slots(str(enclave.keys), seen)
    else:
        yield ("enclave", "at"), lambda: _device(Path(enclave.at))
    yield _key_place(config), lambda: _sealed(config)
    yield _key_place(config), lambda: _certificate(config)
    yield ("enclave", "package"), lambda: _package(enclave.package)
    for path in enclave.agreements:
        yield ("enclave", "agreements"), lambda path=path: _agreement(path, seen)
        yield ("enclave", "agreements"), lambda path=path: _following(path, seen)
        yield ("enclave", "agreements"), lambda path=path: _own_recipients(path, seen)
        yield ("enclave", "agreements"), lambda path=path: _in_time(path, seen)
    yield ("enclave", "placement"), lambda: _placement(enclave.placement, seen)


def _camera_checks(config: Config, camera: Camera, seen: _Seen) -> Checks:
    table = ("camera", camera.name)
    if camera.shown != camera.source:
        yield table + ("source",), lambda: _password(config.path)
    if camera.kind == "device":
        yield table + ("source",), lambda: _device(Path(camera.source))
    elif camera.kind in ("file", "recording"):
        yield table + ("source",), lambda: _readable(Path(camera.source))
    yield table + ("key",), lambda: _camera_key(camera.key, camera, seen)
    yield table + ("key",), lambda: _staged_key(config, camera, seen)
    for path in staged_keys(camera.key):
        yield table + ("key",), lambda path=path: _left_over(path, config, camera, seen)
    if camera.needs_pose:
        yield table + ("pose",), lambda: _pose(camera)


def _folder(path: Path) -> None:
    """A folder that this user may write, or may make."""
    there = path
    while not there.exists() and there != there.parent:
        there = there.parent
    if not there.is_dir():
        raise ConfigError("{}: not a folder".format(there))
    if not os.access(str(there), os.W_OK | os.X_OK):
        raise ConfigError("{}: not to be written by user {}: chown it, or run the check as the user of edged".format(
            there, os.geteuid()))


def _run_folder(config: Config) -> None:
    _folder(config.node.run)
    for name in (configuration.BRIDGE_SOCKET, NOTIFY_SOCKET):
        tipc.require_socket_path(str(config.node.run / name))


def _enclave_folder(at: str) -> None:
    _folder(Path(at))
    tipc.require_socket_path(os.path.join(at, host.LONGEST_SOCKET))


def _key_place(config: Config) -> strict.Where:
    """The key of the configuration that says where the device's sealed files and certificate lie."""
    return ("enclave", "at") if config.enclave.kind == "host" else ("node", "state")


def _certificate(config: Config) -> None:
    found = certified(KeyStore(config.key_folder))
    if found is not None and found.ended:
        raise EnclaveError(str(found))


def _sealed(config: Config) -> None:
    lost = KeyStore(config.key_folder).lost()
    if lost is not None:
        raise EnclaveError(lost)


def _programs() -> None:
    for name in (host.KEY_PROGRAM, host.EVAL_PROGRAM):
        artifacts.find(name)


def _slots(folder: str, seen: _Seen) -> None:
    slots = read_slots(folder)
    for slot in slots:
        slot.read_key(_owners(slot.key_file))
    seen.slots = slots


def _owners(path: Path) -> Optional[Tuple[int, ...]]:
    """Whose a key may be: under systemd each process has its own user, and root checks for all of them."""
    return None if os.geteuid() or not path.exists() else (path.stat().st_uid,)


def _device(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise EnclaveError("{}: {}: is it plugged in, is its driver loaded?".format(path, error.strerror)) from error
    if not stat.S_ISCHR(mode):
        raise ConfigError("{}: not a device".format(path))
    if not os.access(str(path), os.R_OK | os.W_OK):
        raise EnclaveError("{}: not open to user {}: add it to the group of the device".format(path, os.geteuid()))


def _password(path: Path) -> None:
    if path.stat().st_mode & 0o007:
        raise KeyRefused("holds a password, and everybody may read {0}: chmod 640 {0}".format(path))


def _readable(path: Path) -> None:
    with path.open("rb") as file:
        if not file.read(1):
            raise PackageError("{}: is empty".format(path))


def _package(path: Path) -> None:
    content = command.read_file(str(path))
    with command.needs("node"):
        from edged.model import package
    package.inspect(content)


def _curve_key(config: Config) -> None:
    secret = read_secret(str(config.outbox.key), (CURVE_KEY_BYTES,), _owners(config.outbox.key))
    if not configuration.is_z85_key(secret.decode("ascii", "replace")):
        raise KeyRefused("{}: no secret key of CURVE: 40 characters of Z85, as `edgectl install` makes it".format(
            config.outbox.key))


def _agreement(path: Path, seen: _Seen) -> None:
    try:
        agreement = seen.agreements[path] = read_agreement(path)[1]
    except EdgedError:
        seen.agreed = False
        raise
    if seen.slots is None:
        return
    for key in named_by(agreement):
        if not any((slot.kind, slot.key_id, slot.verifier) == (key.kind, key.key_id, key.verifier)
                   for slot in seen.slots):
            raise ConfigError("{}: names {}, and no slot of enclave.keys has it with that owner's verifier".format(
                path, key))


def _following(path: Path, seen: _Seen) -> None:
    beside, before = next_path(path), seen.agreements.get(path)
    if not beside.exists():
        seen.following[path] = None
    elif before is not None:
        try:
            following = read_agreement(beside)[1]
            require_follows(beside, following, before)
        except EdgedError as error:
            error.args = ("{}: remove the file, then run `edgectl rotate` with the city's bundle".format(error),)
            raise
        seen.following[path] = following


def _own_recipients(path: Path, seen: _Seen) -> None:
    """The enclave takes one alone of two cities' agreements that name the same recipient."""
    agreement = seen.agreements.get(path)
    if agreement is None:
        return
    for other, before in seen.agreements.items():
        shared = _ids(path, seen) & _ids(other, seen)
        if shared and before.qdo != agreement.qdo:
            raise ConfigError("{}: names the recipient {}, and so does {}, of another city: each city has to name its "
                              "own (`edged-city keys` makes new ids)".format(path, min(shared).hex(), other))


def _ids(path: Path, seen: _Seen) -> Set[bytes]:
    """Of the recipients of an agreement and of the one that follows it."""
    both = [one for one in (seen.agreements[path], seen.following.get(path)) if one is not None]
    return {to.rcpt for one in both for to in one.recipients}


def _in_time(path: Path, seen: _Seen) -> None:
    left = _left(path, seen)
    if left is not None and left.ended:
        raise _end(path, left)


def _left(path: Path, seen: _Seen) -> Optional[validity.Left]:
    """Of the agreement that cameras are judged under, or that follows it; None where it is not known."""
    agreement = seen.following.get(path) or seen.agreements.get(path)
    return None if agreement is None else validity.left(agreement, time.time())


def _end(path: Path, left: validity.Left) -> ConfigError:
    return ConfigError("{}: {}, by this machine's clock; after that nothing is judged under it: ask the city for the "
                       "bundle of the next one, then `edgectl rotate`".format(
                           path, validity.words(left.agreement.number, left.agreement.until_s, left.seconds)))


def _placement(placement: str, seen: _Seen) -> None:
    for agreement in seen.agreements.values():
        if not agreement.placements >> wire.Placement[placement.upper()] & 1:
            raise ConfigError("\"{}\": agreement {} does not permit it".format(placement, agreement.number))


def _accelerator(config: Config) -> None:
    if config.accelerator.kind != "numpy":
        with command.needs("node"):
            from edged.offload import chosen
            from edged.offload.cpu import LIBRARY
        artifacts.find(LIBRARY)
        if config.accelerator.kind == "cuda":
            with ExitStack() as stack:
                chosen.chosen(config.accelerator, stack)


def _camera_key(path: Path, camera: Camera, seen: _Seen) -> None:
    key = read_secret(str(path), CAMERA_KEY_SIZES, _owners(path))
    other = seen.camera_keys.setdefault(key, camera.name)
    if other != camera.name:
        raise ConfigError("{}: the same key as that of camera {}: the city issues each its own".format(path, other))


def _staged_key(config: Config, camera: Camera, seen: _Seen) -> None:
    following = seen.following.get(judged_under(config, camera))
    if following is None:
        return
    path = key_path(camera.key, following.digest)
    if not path.exists():
        raise MissingInput("{}: is missing, agreement {} is to follow: run `edgectl rotate` with the city's "
                           "bundle".format(path, following.number))
    _camera_key(path, camera, seen)


def _left_over(path: Path, config: Config, camera: Camera, seen: _Seen) -> None:
    before = judged_under(config, camera)
    if before not in seen.following:
        return  # whether something follows is not known
    following = seen.following[before]
    if following is None or path != key_path(camera.key, following.digest):
        raise ConfigError("{}: a key for no agreement that is to follow: run `edgectl rotate` with the last bundle "
                          "again, or remove the file".format(path))


def _pose(camera: Camera) -> None:
    from edged.camera import zoo

    zoo.find(camera.pose or zoo.DEFAULT, camera.models)


def _recipient(rcpt: bytes, seen: _Seen) -> None:
    if seen.agreed and not any(rcpt == one.rcpt for agreement in seen.agreements.values()
                               for one in agreement.recipients):
        raise ConfigError("{}: no agreement names this recipient: it would never get a record".format(rcpt.hex()))
