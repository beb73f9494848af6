"""``edgectl rotate``: a city's new bundle onto a node that runs, while it runs.

    stage     each camera's new key as NAME.key.DIGITS, then the agreement as agreement.cose.next (edged/beside.py)
    reload    the bridge puts it in force beside the old one, and its cameras go over
    wait      until the city reads under the new one, and the old one is over: its last records are in the spool
              (where the enclave has no room for it, what was staged is taken back)
    clear     the key slots that were granted for the old one: nobody puts it in force again
    settle    each camera's key to NAME.key, the agreement to agreement.cose, NAME.key.DIGITS away; reload once more

Whatever is stopped in between, the node works, and running it again completes it: what the configuration names is
replaced only when nothing needs the old content any more.
"""

import os
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from edged import config as configuration
from edged import install, status
from edged.alerts import bundle as bundles
from edged.alerts.bundle import Bundle
from edged.beside import key_path, next_path, read_agreement
from edged.command import read_file
from edged.config import Camera, Config
from edged.enclave.keystore import KeyStore, connect
from edged.enclave.wire import Placement
from edged.errors import BusError, ConfigError, EdgedError, KeyRefused
from edged.model import package
from edged.placing import SECRET, SHARED, replace_file, sync_folder
from edged.trust.agreement import Agreement

WAIT_S = 120.0
RELOAD_TIMEOUT_S = 60.0  # a clip under way comes first
_POLL_S = 0.2


class NoRoom(ConfigError):
    """The enclave holds as many agreements as it can."""


class _Rotation(NamedTuple):
    """path : of the agreement in force      cameras : those that are judged under it, with their new keys"""

    config: Config
    path: Path
    agreement: Agreement
    bundle: Bundle
    cameras: Tuple[Tuple[Camera, bytes], ...]

    @property
    def digest(self) -> bytes:
        """Of the agreement that follows."""
        return self.bundle.agreement.digest


def run(folder: str, config: str, reload: bool = True, wait_s: float = WAIT_S) -> None:
    """Rotate, and print what was done.

    Raises MissingInput, KeyRefused (keys that are not granted yet, too), ConfigError, PackageError, VerificationFailed,
    OSError, NoRoom (nothing is staged then), BusError (the bridge is away, or city or cameras have not gone over within
    ``wait_s`` seconds).
    """
    rotation = _judged(configuration.load(config), bundles.read(folder))
    number = rotation.bundle.agreement.number
    if rotation.agreement.digest == rotation.digest:
        print("agreement {} is in place: {}".format(number, rotation.path))
        settle(rotation)
    else:
        for path in stage(rotation):
            print("wrote {}".format(path))
        if not reload:
            print("staged: run `edgectl reload`, and this command once more when the node runs")
            return
        try:
            ask_reload(rotation.config, rotation.path)
        except NoRoom:
            for path in unstage(rotation):
                print("removed {}".format(path))
            with suppress(EdgedError):  # what it read it forgets
                ask_reload(rotation.config, rotation.path)
            raise
        print("agreement {} is in force beside agreement {}".format(number, rotation.agreement.number))
        _await_end(rotation, wait_s)
        for slot in _clear(rotation):
            print("slot {} is empty: its key was for agreement {}".format(slot, rotation.agreement.number))
        for path in settle(rotation):
            print("replaced {}".format(path))
    if reload:
        ask_reload(rotation.config, rotation.path)
    print("agreement {} is the one in force".format(number))


def ask_reload(config: Config, path: Optional[Path] = None) -> None:
    """Have the bridge read the agreements again. path : whether that one, or what follows it, waits is all that counts

    Raises KeyRefused where keys are missing, NoRoom, BusError.
    """
    asked = {} if path is None else {"agreement": config.enclave.agreements.index(path)}
    kind, answer = status.ask_bridge(config, "reload", asked, RELOAD_TIMEOUT_S)
    if kind == "missing":
        raise KeyRefused("{}; what was in force goes on: run this again then".format(answer["reason"]))
    if kind == "full":
        raise NoRoom("{}; what was in force goes on".format(answer["reason"]))
    if kind == "refused":
        raise BusError("the bridge refused: {}".format(answer["reason"]))


def _judged(config: Config, bundle: Bundle) -> _Rotation:
    """Raises where the bundle does not follow what is there."""
    if bundle.slots:
        raise KeyRefused("the bundle holds keys in clear: an emulated node with such keys is set up anew")
    install.require_subscriber(config, bundle)
    path, agreement = _place(config, bundle)
    keys = dict(bundle.cameras)
    cameras: List[Tuple[Camera, bytes]] = []
    for camera in config.cameras:
        if camera.agreement not in (None, path):
            continue
        if camera.name not in keys:
            raise ConfigError("{}: camera {} is judged under agreement {}, and the bundle has no key for it: have the "
                              "city add it".format(config.path, camera.name, agreement.number))
        cameras.append((camera, keys[camera.name]))
    if agreement.digest != bundle.agreement.digest:
        _require_covered(config, bundle.agreement)
        _require_new_keys(agreement, bundle.agreement)
    return _Rotation(config, path, agreement, bundle, tuple(cameras))


def _require_covered(config: Config, agreement: Agreement) -> None:
    """The node's package has to be one that the new agreement takes: else cameras would go over to where no clip is
    judged."""
    path, terms = config.enclave.package, agreement.model
    found = package.inspect(read_file(str(path)))
    if (found.model_id, found.key_id) != (terms.id, terms.key_id) or found.version < terms.least_version:
        raise ConfigError("{}: is {} of version {}, and agreement {} takes {} under key {} from version {} on: put "
                          "such a package there and restart the bridge first".format(
                              path, found.model_id, found.version, agreement.number, terms.id, terms.key_id.hex(),
                              terms.least_version))
    for rule in agreement.rules:
        if rule.label not in found.labels:
            raise ConfigError("{}: has no label \"{}\", for which agreement {} has a rule: have its owners agree on "
                              "labels of the package".format(path, rule.label, agreement.number))
    if not agreement.placements >> Placement[config.enclave.placement.upper()] & 1:
        raise ConfigError("{}: enclave.placement = \"{}\": agreement {} does not permit it: set another and restart "
                          "the bridge first".format(config.path, config.enclave.placement, agreement.number))


def _require_new_keys(agreement: Agreement, new: Agreement) -> None:
    """By its key's id the bridge tells under which agreement a beacon came (edged/offload/succession.py)."""
    before = {one.alert_key for one in agreement.recipients}
    for one in new.recipients:
        if one.alert_key in before:
            raise ConfigError("agreement {} keeps the alert key {} of agreement {}: nobody could tell that the city "
                              "reads it: edged-city keys renew, then agree anew".format(
                                  new.number, one.alert_key.hex(), agreement.number))


def _place(config: Config, bundle: Bundle) -> Tuple[Path, Agreement]:
    """The agreement that the bundle's follows, or is."""
    new = bundle.agreement
    found: List[Tuple[Path, Agreement]] = []
    faults: List[EdgedError] = []
    for path in config.enclave.agreements:
        try:
            found.append((path, read_agreement(path)[1]))
        except EdgedError as error:  # another city's is no business of this one
            faults.append(error)
    for path, agreement in found:
        if agreement.digest == new.digest:
            return path, agreement
    before = [(path, agreement) for path, agreement in found if new.may_follow(agreement)]
    if len(before) == 1:
        return before[0]
    if before:
        raise ConfigError("{}: agreement {} may follow several: {}".format(
            config.path, new.number, ", ".join(str(path) for path, _ in before)))
    same = [agreement.number for _, agreement in found if (agreement.mo, agreement.qdo) == (new.mo, new.qdo)]
    if same:
        raise ConfigError("{}: agreement {} does not follow agreement {}: its number must be higher".format(
            config.path, new.number, max(same)))
    if faults:
        raise faults[0]
    raise ConfigError("{}: no agreement of the owners of agreement {}: put it there with `edgectl install`".format(
        config.path, new.number))


def stage(rotation: _Rotation) -> List[Path]:
    """What is written to go on. Raises KeyRefused where another rotation is under way, OSError."""
    beside = next_path(rotation.path)
    if beside.exists() and read_file(str(beside)) != rotation.bundle.signed:
        raise KeyRefused("{}: another agreement is about to follow: finish that with its own bundle, or remove the "
                         "file where it was never in force".format(beside))
    # The agreement last: with it the bridge, and so a camera, may need the keys.
    todo = [(key_path(camera.key, rotation.digest), key, camera.key, SECRET) for camera, key in rotation.cameras]
    todo.append((beside, rotation.bundle.signed, rotation.path, SHARED))
    written = []
    for path, content, like, mode in todo:
        if not (path.exists() and path.read_bytes() == content):
            _write(path, content, like, mode)
            written.append(path)
    return written


def unstage(rotation: _Rotation) -> List[Path]:
    """Nothing of what was staged is in force: remove it; what was. Raises OSError."""
    # The agreement first: while it lies there a camera may look for the keys.
    staged = [next_path(rotation.path)] + [key_path(camera.key, rotation.digest) for camera, _ in rotation.cameras]
    removed = [path for path in staged if path.exists()]
    for path in removed:
        path.unlink()
        sync_folder(path.parent)
    return removed


def _clear(rotation: _Rotation) -> List[int]:
    """The slots. Raises EnclaveError, KeyRefused, PackageError."""
    store, cleared = KeyStore(rotation.config.key_folder), []
    with closing(connect(rotation.config.enclave.at)) as client:
        store.bring_back(client)
        for number, slot in enumerate(client.slots()):
            if slot.agreement == rotation.agreement.digest:
                store.clear(client, number)
                cleared.append(number)
    return cleared


def settle(rotation: _Rotation) -> List[Path]:
    """The agreement before is over: its files give way; what was replaced. Raises OSError."""
    replaced = []
    for camera, key in rotation.cameras:
        if not (camera.key.exists() and camera.key.read_bytes() == key):
            _write(camera.key, key, camera.key, SECRET)
            replaced.append(camera.key)
    beside = next_path(rotation.path)
    if beside.exists() and rotation.agreement.digest != rotation.digest:
        os.replace(str(beside), str(rotation.path))
        sync_folder(rotation.path.parent)
        replaced.append(rotation.path)
    # Only now: while the agreement lies beside the old one a camera looks for its key there, and nowhere else.
    for camera, _ in rotation.cameras:
        staged = key_path(camera.key, rotation.digest)
        if staged.exists():
            staged.unlink()
            sync_folder(staged.parent)
    return replaced


def _write(path: Path, content: bytes, like: Path, mode: int) -> None:
    """For whom the file is that it will replace."""
    try:
        there = os.stat(str(like))
    except FileNotFoundError:
        replace_file(path, content, mode)
        return
    mine = (there.st_uid, there.st_gid) == (os.geteuid(), os.getegid())
    replace_file(path, content, there.st_mode & 0o777, None if mine else (there.st_uid, there.st_gid))


def _await_end(rotation: _Rotation, wait_s: float) -> None:
    deadline_s = time.monotonic() + wait_s
    new, is_told = rotation.bundle.agreement, False
    while True:
        found = _told(rotation)
        if found["state"] == "followed":
            return
        if found["state"] == "unread" and not is_told:
            print("waits for a beacon under agreement {} of {}: where the city has not adopted it yet, edged-city "
                  "adopt, and listen started anew".format(new.number, ", ".join(found["unread"])), flush=True)
            is_told = True
        if time.monotonic() > deadline_s:
            if found["state"] == "unread":
                raise BusError("the city has not adopted agreement {} yet, no beacon of {} came under it: agreement {} "
                               "goes on; edged-city adopt, then run this again".format(
                                   new.number, ", ".join(found["unread"]), rotation.agreement.number))
            stay = ", ".join(found["cameras"])
            raise BusError("agreement {} has not followed agreement {} yet ({}{}): run this again to finish".format(
                new.number, rotation.agreement.number, found["state"],
                "; not gone over: {}, see their logs".format(stay) if stay else ""))
        time.sleep(_POLL_S)


def _told(rotation: _Rotation) -> Dict[str, Any]:
    """What the bridge says of the agreement; "away" where that is not there for the moment."""
    try:
        kind, answer = status.ask_bridge(rotation.config, "status", {}, status.TIMEOUT_S)
    except BusError:
        kind, answer = "away", {}
    for found in answer.get("agreements", ()):
        if kind == "status" and found["digest"] == rotation.agreement.digest and found["next"] == rotation.digest:
            return found
    return {"state": "away", "cameras": []}
