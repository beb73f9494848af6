"""What ``edgectl`` does with the key application: identity, certificate request, evidence, and
grants, from files or from both owners' key servers.

Each opens the key application's port for itself, which takes one client at a time: the bridge uses it briefly, and is
waited for. What lies in files, sealed, is handed back first where a start forgot it.
"""

import argparse
import json
import sys
from contextlib import closing, contextmanager
from typing import Any, Dict, Iterator, Sequence, Tuple

from edged.command import octets, read_file
from edged.enclave import tipc, wire
from edged.enclave.client import Connection, KeyClient
from edged.enclave.keystore import KeyStore, connect
from edged.enclave.wire import EvalCommand, KeyKind, Status
from edged.errors import (
    EdgedError, EnclaveError, KeyRefused, MissingInput, PackageError, UsageError, VerificationFailed)
from edged.placing import SHARED, Placing
from edged.trust import chain, cose, evidence, grant, keyclient
from edged.trust.chain import CLASSES
from edged.trust.request import NONCE_BYTES, UEID_RANDOM

_HTTPS = "https://"


class Device:
    """at : folder of the sockets, or device      folder : of the sealed files"""

    def __init__(self, at: str, folder: str) -> None:
        self.at, self.store = at, KeyStore(folder)

    @contextmanager
    def key(self) -> Iterator[KeyClient]:
        client = connect(self.at)
        try:
            yield client
        finally:
            client.close()

    @contextmanager
    def identity(self) -> Iterator[KeyClient]:
        """With an identity open. Raises KeyRefused where there is none."""
        with self.key() as client:
            if not self.store.bring_back(client):
                raise KeyRefused("{}: is missing, the device has no identity: edgectl identity new".format(
                    self.store.identity))
            yield client


def identity_new(device: Device, given: argparse.Namespace) -> None:
    with device.key() as client:
        device.store.draw(client)
        print("device {}: keep {}; next: edgectl identity request".format(
            client.info().device.hex(), device.store.identity))


def identity_show(device: Device, given: argparse.Namespace) -> None:
    with device.key() as client:
        device.store.bring_back(client)
        info = client.info()
    shown: Dict[str, Any] = {
        "node": info.node.hex(),
        "ueid": _ueid(info).hex(),
        "class": CLASSES[1] if info.flags & wire.EVAL_FLAG_EMULATED else CLASSES[0],
        "device": info.device.hex() if info.flags & wire.KEY_FLAG_IDENTITY else None,
        "certificate": None,
        "key_slots": [KeyKind(kind).name.lower() for kind in info.kinds],
        "granted": bool(info.flags & wire.KEY_FLAG_STATE),
        "locked": bool(info.flags & wire.KEY_FLAG_LOCKED),
    }
    if device.store.chain.exists():
        leaf = _chain(device)[0]
        shown["certificate"] = {"serial": leaf.serial_number,
                                "until": chain.day(chain.seconds(leaf, "not_valid_after"))}
    print(json.dumps(shown, indent=2))


def identity_request(device: Device, given: argparse.Namespace) -> None:
    challenge = octets(given.challenge, "--challenge", NONCE_BYTES)
    with device.identity() as client:
        _write(given.out, client.request(challenge))
    print("{}: for edged-city ca enrol; the chain that it writes goes to {}".format(given.out, device.store.chain))


def attest(device: Device, given: argparse.Namespace) -> None:
    nonce = _nonce(given.nonce)
    with device.identity() as client:
        found, ueid = _attested(device, client, nonce), _ueid(client.info())
    if device.store.chain.exists():
        found = _certified(device, found, ueid)
        print("{}: evidence of device {}".format(given.out, ueid.hex()))
    else:
        print("{}: evidence of device {}, WITHOUT certificates: {} is missing, as edged-city ca enrol writes it".format(
            given.out, ueid.hex(), device.store.chain))
    if "eval" not in _claims(found).applications:
        print("the evaluation application is not in it, and a verifier will want it: start it, or let the bridge "
              "connect", file=sys.stderr)
    _write(given.out, found)


def install_grant(device: Device, given: argparse.Namespace) -> None:
    grants = [(path, read_file(path)) for path in given.files]
    with device.identity() as client:
        _install(device, client, grants)


def fetch_grants(device: Device, given: argparse.Namespace) -> None:
    """The key application's port is free for others while the server is asked."""
    address = given.server[len(_HTTPS):] if given.server.startswith(_HTTPS) else given.server
    if not device.store.chain.exists():
        raise MissingInput("{}: is missing, as edged-city ca enrol writes it: a key server wants it".format(
            device.store.chain))
    with device.identity() as client:
        ueid = _ueid(client.info())

    def answer(nonce: bytes) -> bytes:
        with device.identity() as client:
            return _certified(device, _attested(device, client, nonce), ueid)

    came = keyclient.fetch_grants(address, given.ca, ueid, answer)
    with device.identity() as client:
        _install(device, client, [("{}: grant {}".format(address, number), content)
                                  for number, content in enumerate(came, 1)])


def clear_slot(device: Device, given: argparse.Namespace) -> None:
    if not 0 <= given.slot < wire.KEY_SLOTS:
        raise UsageError("{}: slots count from 0 to {}".format(given.slot, wire.KEY_SLOTS - 1))
    with device.key() as client:
        device.store.bring_back(client)
        device.store.clear(client, given.slot)
    print("slot {} is empty".format(given.slot))


def _attested(device: Device, client: KeyClient, nonce: bytes) -> bytes:
    """Evidence, of both applications where that can be."""
    found = client.attest(nonce)
    if "eval" not in _claims(found).applications:
        _link(device.at)
        found = client.attest(nonce)
    return found


def _certified(device: Device, found: bytes, ueid: bytes) -> bytes:
    """Evidence with the certificates of identity.chain. Raises VerificationFailed where they are another identity's."""
    certificates = _chain(device)
    made = evidence.with_chain(found, [chain.der(one) for one in certificates])
    try:
        evidence.parse(made).message.verify_rsa(certificates[0].public_key(), "evidence")
    except VerificationFailed as error:
        raise VerificationFailed("{}: its certificate is of another identity than device {} has: enrol it "
                                 "again".format(device.store.chain, ueid.hex())) from error
    return made


def _install(device: Device, client: KeyClient, grants: Sequence[Tuple[str, bytes]]) -> None:
    """grants : (where from, it)      All are judged before the first is handed over."""
    here = client.info().device
    read = [_read_grant(name, content, here) for name, content in grants]
    for (name, content), found in sorted(zip(grants, read), key=_number):
        try:
            device.store.install(client, content)
        except EnclaveError as error:
            raise _named(name, error)
        print("{}: slot {} has {} key {}, number {}".format(
            name, found.slot, found.kind.name.lower(), found.key_id.hex(), found.number))


def _number(entry: Tuple[Any, grant.Grant]) -> int:
    """Of one slot's, the older first: the other way round it would be refused."""
    return entry[1].number


def _read_grant(path: str, content: bytes, here: bytes) -> grant.Grant:
    try:
        found = grant.open_grant(content)
    except EdgedError as error:
        raise _named(path, error)
    if found.device != here:
        raise KeyRefused("{}: is for device {}, this one is {}: ask for one by its present evidence".format(
            path, found.device.hex(), here.hex()))
    return found


def _named(path: str, error: EdgedError) -> EdgedError:
    error.args = ("{}: {}".format(path, error),)
    return error


def _chain(device: Device) -> Any:
    found = chain.read_pem(read_file(str(device.store.chain)), str(device.store.chain))
    if len(found) != 2:
        raise PackageError("{}: has {} certificates, must have the device's and that of its issuing CA".format(
            device.store.chain, len(found)))
    return found


def _nonce(text: str) -> bytes:
    try:
        found = bytes.fromhex(text)
    except ValueError:
        found = b""
    if not wire.KEY_NONCE_MIN <= len(found) <= wire.KEY_NONCE_MAX:
        raise UsageError("--nonce {}: {} to {} digits of 0-9, a-f".format(
            text, 2 * wire.KEY_NONCE_MIN, 2 * wire.KEY_NONCE_MAX))
    return found


def _claims(found: bytes) -> evidence.Claims:
    message = cose.read(found, cose.SIGN1, cose.PS256, "evidence", evidence.EVIDENCE_MAX)
    return evidence.parse(found if message.unprotected else evidence.with_chain(found, [b"", b""])).claims


def _link(at: str) -> None:
    """Have the evaluation application say hello to the key application, as it does when it first needs a key: here for
    what is no package, whose load ends with that. Where a bridge is connected it has done so, and nothing happens.
    """
    envelope = cose.Message(cose.SIGN1, cose.EDDSA, {}, b"\0", bytes(64)).encode()
    try:
        with closing(Connection(tipc.connect(at, wire.EVAL_PORT))) as connection:
            status, _ = connection.call(EvalCommand.LOAD_OPEN, wire.LoadOpen(
                0, wire.Placement.ENCLAVE, len(envelope)).pack())
            if status == Status.OK:
                connection.call(EvalCommand.LOAD_ENVELOPE, wire.Chunk.codec.pack(0, 0, 0) + envelope)
    except EnclaveError:
        pass  # it is busy or away: the evidence tells


def _ueid(info: wire.KeyInfo) -> bytes:
    return bytes([UEID_RANDOM]) + info.node


def _write(path: str, content: bytes) -> None:
    placing = Placing()
    placing.add(path, content, SHARED)
    placing.commit()
