"""``edgectl status`` and ``edgectl test-alert``: what the node's processes say, asked from outside."""

import json
import time
from contextlib import suppress
from typing import Any, Dict, List, Optional, Tuple

from edged.bus import Dealer
from edged.config import Config
from edged.enclave.certified import certified
from edged.enclave.keystore import KeyStore
from edged.errors import BusError, CameraError, EdgedError, EnclaveError, PackageError, SpoolError
from edged.offload import messages
from edged.supervisor import is_running, waiting_records
from edged.trust import validity

TIMEOUT_S = 5.0
# A drill is sealed, stored and synced before the bridge answers; a clip under way comes first.
DRILL_TIMEOUT_S = 60.0
KEYS_TIMEOUT_S = 2.0
_RETRY_S = 0.05


def ask_bridge(config: Config, question: str, body: Dict[str, Any], timeout_s: float) -> Tuple[str, Dict[str, Any]]:
    """(kind, body) of the bridge's answer. Raises BusError where there is none."""
    deadline_s = time.monotonic() + timeout_s
    with Dealer(config.bridge_address, messages.edgectl_identity()) as dealer:
        # Nothing is taken before the connection stands.
        while not dealer.send(messages.pack(question, body)):
            if time.monotonic() > deadline_s:
                raise BusError("{}: the bridge is not there: start it (`edged run`, or edged-bridge.service)".format(
                    config.bridge_socket))
            time.sleep(_RETRY_S)
        message = dealer.receive(max(0.0, deadline_s - time.monotonic()))
    if message is None:
        raise BusError("{}: no answer of the bridge within {:g} s: see its log".format(config.bridge_socket, timeout_s))
    try:
        return messages.to_edgectl(question, message.frames)
    except PackageError as error:
        raise BusError("{}: an answer of another form ({}): install matching releases".format(
            config.bridge_socket, error)) from error


def tell_of_keys(config: Config) -> None:
    """Have a bridge that runs look for new keys now. Where none does, or this user may not ask it, it finds them by
    itself."""
    with suppress(EdgedError, OSError):
        if config.bridge_socket.exists():
            ask_bridge(config, "keys", {}, KEYS_TIMEOUT_S)


def report(config: Config) -> Tuple[Dict[str, Any], List[EdgedError]]:
    """Everything that answers, ready for JSON; what did not, and what of it keeps clips from being judged."""
    missing: List[EdgedError] = []
    shown: Dict[str, Any] = {"node": config.node.name, "supervisor": _supervised(config)}
    missing += _refused(shown["supervisor"])
    try:
        shown["bridge"] = _plain(_granted(*ask_bridge(config, "status", {}, TIMEOUT_S)))
        missing += _unjudged(shown["bridge"])
        missing += [EnclaveError("an agreement is left out, its cameras wait: {}".format(one["reason"]))
                    for one in shown["bridge"]["agreements"] if one["reason"]]
    except EdgedError as error:
        shown["bridge"] = None
        missing.append(error)
    try:
        shown["spool"] = _waiting(config)
    except SpoolError as error:
        shown["spool"] = None
        missing.append(error)
    shown["certificate"] = _certificate(config, missing)
    return shown, missing


def _certificate(config: Config, missing: List[EdgedError]) -> Optional[str]:
    """In which words the device's ends; None where this user can see none."""
    store = KeyStore(config.key_folder)
    lost = store.lost()
    if lost is not None:
        missing.append(EnclaveError(lost))
    try:
        found = certified(store)
    except EdgedError as error:
        missing.append(error)
        return None
    if found is not None and found.ended:
        missing.append(EnclaveError(str(found)))
    return None if found is None else str(found) if found.near else validity.ends(found.until_s, found.left_s)


def _unjudged(bridge: Dict[str, Any]) -> List[EdgedError]:
    """An agreement that ended, a camera of which nothing is judged: one line each."""
    found: List[EdgedError] = []
    for one in bridge["agreements"]:
        if one["ended"]:
            found.append(EnclaveError("{}, by this node's clock; nothing is judged under it any more: ask the city for "
                                      "the bundle of the next one, then `edgectl rotate`".format(one["end"])))
    for name, camera in bridge["cameras"].items():
        if camera["state"] not in (None, "live"):
            found.append(CameraError("camera {}: {}: {}: nothing of it is judged; the city was told".format(
                name, camera["state"], camera["reason"] or "no reason given")))
    return found


def _supervised(config: Config) -> Optional[Dict[str, Any]]:
    """Of `edged run`; None where systemd does its work, or nobody."""
    if not is_running(config):
        return None
    try:
        with open(str(config.status_file), encoding="ascii") as file:
            return json.load(file)
    except (OSError, ValueError):
        return None


def _refused(supervisor: Optional[Dict[str, Any]]) -> List[EdgedError]:
    """A process that cannot do its work: one line each."""
    processes = {} if supervisor is None else supervisor["processes"]
    return [CameraError("{}: cannot do its work with what it was given (it ended with {}): see its last line, and "
                        "`edgectl config check`".format(name, process["last_end"]))
            for name, process in processes.items() if process["state"] == "refused"]


def _waiting(config: Config) -> Dict[str, Any]:
    names = {subscriber.recipient: subscriber.name for subscriber in config.subscribers}
    return {names.get(rcpt, rcpt.hex()): waiting._asdict() for rcpt, waiting in waiting_records(config).items()}


def _plain(value: Any) -> Any:
    """CBOR's bytes as hexadecimal digits."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {str(_plain(key)): _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    return value


def drill(config: Config, asked: Dict[str, Any]) -> Dict[str, Any]:
    """Have the enclave emit an alert marked Exercise to every recipient; the bridge's answer, which names the records.

    asked : {"rule": number} or {"label": text}, with {"agreement": number} of that one alone
    Raises BusError where the bridge is away or has no such rule.
    """
    return _plain(_granted(*ask_bridge(config, "exercise", asked, DRILL_TIMEOUT_S)))


def _granted(kind: str, answer: Dict[str, Any]) -> Dict[str, Any]:
    if kind == "refused":
        raise BusError("the bridge refused: {}".format(answer["reason"]))
    return answer
