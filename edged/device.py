"""What ``edgectl`` does with the key application: identity, certificate request, evidence, and
grants and floors, from files or from both owners' key servers.

Each opens the key application's port for itself, which takes one client at a time: the bridge uses it briefly, and is
waited for. What lies in files, sealed, is handed back first where a start forgot it.
"""

import argparse
import json
import os
import sys
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Set, Tuple, Union

from edged.beside import next_path
from edged.command import octets, read_file
from edged.enclave import tipc, wire
from edged.enclave.certified import certified
from edged.enclave.connection import Connection
from edged.enclave.key import KeyClient
from edged.enclave.keystore import LOCKED, KeyStore, connect
from edged.enclave.wire import EvalCommand, KeyKind, Listed, Status
from edged.errors import (
    EdgedError, EnclaveError, KeyRefused, MissingInput, PackageError, UsageError, VerificationFailed)
from edged.placing import SHARED, Placing
from edged.trust import chain, cose, evidence, floor, grant, held, keyclient, request
from edged.trust.agreement import Agreement, open_agreement
from edged.trust.chain import CLASSES
from edged.trust.floor import Floor
from edged.trust.grant import Grant
from edged.trust.request import NONCE_BYTES, UEID_RANDOM

_HTTPS = "https://"


Paper = Union[Grant, Floor]


class _Whose(NamedTuple):
    """signers : who may fill slots here, the owners of the agreements; None: anybody
    in_use : {digest: number} of the agreements whose keys are not written over
    unread : there are others, whose files cannot be read"""

    signers: Optional[Set[bytes]]
    in_use: Dict[bytes, int]
    unread: bool


class Device:
    """at : folder of the sockets, or device      folder : of the sealed files      agreements : of the configuration"""

    def __init__(self, at: str, folder: str, agreements: Sequence[str] = ()) -> None:
        self.at, self.store, self.agreements = at, KeyStore(folder), agreements

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
    """What is aside already, before the enclave is asked, keeps no start of it from becoming ready."""
    for path, aside in device.store.set_aside() if given.again else ():
        print("{}: is now {}".format(path, aside), flush=True)
    with device.key() as client:
        device.store.draw(client)
        print("device {}: keep {}; next: scripts/enrol --challenge, with what `edged-city ca challenge` prints; {}then "
              "its grants: edgectl fetch-grants, or install-grant".format(
                  client.info().device.hex(), device.store.identity,
                  "`edged-city ca enrol --again`; " if given.again else ""))


def identity_show(device: Device, given: argparse.Namespace) -> None:
    with device.key() as client:
        device.store.bring_back(client)
        info, slots = client.info(), client.slots()
        attestation_key = _attestation_key(client) if info.flags & wire.KEY_FLAG_IDENTITY else None
    shown: Dict[str, Any] = {
        "node": info.node.hex(),
        "ueid": _ueid(info).hex(),
        "class": CLASSES[1] if info.flags & wire.EVAL_FLAG_EMULATED else CLASSES[0],
        "device": info.device.hex() if info.flags & wire.KEY_FLAG_IDENTITY else None,
        "attestation_key": attestation_key.hex() if attestation_key is not None else None,
        "certificate": None,
        "key_slots": [_shown(slot) for slot in slots],
        "granted": bool(info.flags & wire.KEY_FLAG_STATE),
        "locked": is_locked(info),
    }
    lost = device.store.lost()
    if lost is not None:  # else it would have been refused: the identity's file went while the application runs
        print(lost, file=sys.stderr)
    certificate = certified(device.store)
    if certificate is not None:
        shown["certificate"] = {"serial": certificate.serial, "until": chain.day(certificate.until_s)}
        if certificate.near:
            print(certificate, file=sys.stderr)
    print(json.dumps(shown, indent=2))


def _shown(slot: Listed) -> Dict[str, Any]:
    """agreement : digest of the only one that the key may be used under; none of one that was put in clear"""
    shown: Dict[str, Any] = {"kind": KeyKind(slot.kind).name.lower()}
    if slot.kind != KeyKind.EMPTY:
        shown.update(key_id=slot.key_id.hex(), verifier=slot.verifier.hex(), locked=held.is_locked(slot),
                     agreement=slot.agreement.hex() if held.is_granted(slot) else None)
    return shown


def identity_request(device: Device, given: argparse.Namespace) -> None:
    challenge = octets(given.challenge, "--challenge", NONCE_BYTES)
    with device.identity() as client:
        made = client.request(challenge)
        _write(given.out, made)
    print("{}: for edged-city ca enrol; the chain that it writes goes to {}".format(given.out, device.store.chain))
    print("attestation key {}: whoever gives keys to this device lists it (README: Trust)".format(
        request.fingerprint(request.read_own(made).attest).hex()))


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


def is_locked(info: wire.KeyInfo) -> bool:
    """Whether granted keys are; then what to do is said to the user."""
    locked = bool(info.flags & wire.KEY_FLAG_LOCKED)
    if locked:
        print(LOCKED, file=sys.stderr)
    return locked


def install_grant(device: Device, given: argparse.Namespace) -> None:
    whose = _whose(device, given)
    papers = [(path, read_file(path)) for path in given.files]
    with device.identity() as client:
        _install(device, client, papers, whose)


def fetch_grants(device: Device, given: argparse.Namespace) -> None:
    whose = _whose(device, given)
    address, came = _asked(device, given, keyclient.fetch_grants)
    with device.identity() as client:
        _install(device, client, [("{}: grant {}".format(address, number), content)
                                  for number, content in enumerate(came.grants, 1)] + [
                                      (address + ": floor", came.floor)], whose)


def report(device: Device, given: argparse.Namespace) -> None:
    address, _ = _asked(device, given, keyclient.report)
    print("{}: this device passed; what it was granted stays as it is".format(address))


def _asked(device: Device, given: argparse.Namespace, ask: Callable[..., Any]) -> Tuple[str, Any]:
    """(address, what ``ask`` of trust/keyclient.py brings). The key application's port is free for others while the
    server is asked."""
    address = given.server[len(_HTTPS):] if given.server.startswith(_HTTPS) else given.server
    if not device.store.chain.exists():
        raise MissingInput("{}: is missing, as edged-city ca enrol writes it: a key server wants it".format(
            device.store.chain))
    with device.identity() as client:
        ueid = _ueid(client.info())

    def answer(nonce: bytes) -> bytes:
        with device.identity() as client:
            return _certified(device, _attested(device, client, nonce), ueid)

    return address, ask(address, given.ca, ueid, answer)


def clear_slot(device: Device, given: argparse.Namespace) -> None:
    if not 0 <= given.slot < wire.KEY_SLOTS:
        raise UsageError("{}: slots count from 0 to {}".format(given.slot, wire.KEY_SLOTS - 1))
    with device.key() as client:
        device.store.bring_back(client)
        device.store.clear(client, given.slot)
    print("slot {} is empty".format(given.slot))


def _attestation_key(client: KeyClient) -> Optional[bytes]:
    """Its fingerprint, from the application itself, not from a file; None where it makes no request, because the flash
    station left no secret here: nobody certifies such a device."""
    try:
        made = client.request(os.urandom(NONCE_BYTES))
    except EnclaveError as error:
        if error.status != Status.UNAVAILABLE:
            raise
        return None
    return request.fingerprint(request.read_own(made).attest)


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


def _whose(device: Device, given: argparse.Namespace) -> _Whose:
    """Whoever else could fill slots would take up slots and numbers, which only a new identity gives back."""
    agreements: List[Agreement] = []
    faults: List[EdgedError] = []  # of another city's agreement, where one of the configuration can be read
    for path in (*device.agreements, *(given.agreement or ())):
        try:
            agreements.append(open_agreement(read_file(path)))
        except (MissingInput, PackageError, VerificationFailed) as error:
            faults.append(error if isinstance(error, MissingInput) else _named(path, error))
            if path not in device.agreements and not given.any_signer:
                raise faults[-1]
    signers = {party for one in agreements for party in (one.mo, one.qdo)}
    if not signers and not given.any_signer:
        if faults:
            raise faults[0]
        raise UsageError("--agreement FILE, signed by both owners, says whose grants are taken here (or --any-signer)")
    for beside in (next_path(Path(path)) for path in device.agreements):
        if beside.exists():
            try:
                agreements.append(open_agreement(read_file(str(beside))))
            except (PackageError, VerificationFailed):
                pass  # the bridge does not put it in force either, and names it
    return _Whose(None if given.any_signer else signers,
                  {} if given.overwrite else {one.digest: one.number for one in agreements},
                  bool(faults) and not given.overwrite)


def _install(device: Device, client: KeyClient, papers: Sequence[Tuple[str, bytes]], whose: _Whose) -> None:
    """papers : (where from, a grant or a floor)      All are judged before the first is handed over; grants go first,
    for a floor is about those that are there."""
    info = client.info()
    read = sorted(((name, content, _read(name, content, info.device, whose.signers)) for name, content in papers),
                  key=_turn)
    _refuse_overwriting(read, client.slots(), whose)
    for name, content, found in read:
        try:
            (device.store.floor if isinstance(found, Floor) else device.store.install)(client, content)
        except EnclaveError as error:
            raise _named(name, error)
        print("{}: {}".format(name, _told(found)))
    is_locked(client.info())


def _refuse_overwriting(read: Sequence[Tuple[str, bytes, Paper]], slots: Sequence[Listed], whose: _Whose) -> None:
    """Raises KeyRefused where a slot's key is that of another agreement, which is in use: it would end with that."""
    taken: Dict[int, Union[Grant, Listed]] = dict(enumerate(slots))
    for name, _, found in read:
        if isinstance(found, Floor):
            continue
        before = taken[found.slot]
        in_use = None
        if before.agreement in whose.in_use:
            in_use = "agreement {}, which is in use".format(whose.in_use[before.agreement])
        elif whose.unread and any(before.agreement):
            in_use = "an agreement that may be in use: not all files of the configuration's can be read"
        if before.agreement != found.agreement and in_use is not None:
            raise KeyRefused("{}: slot {} holds the {} key of {}: have it granted for other slots (`first_slot` of "
                             "keyserver.toml, `--first-slot`), or --overwrite ends that".format(
                                 name, found.slot, KeyKind(before.kind).name.lower(), in_use))
        taken[found.slot] = found


def _turn(entry: Tuple[str, bytes, Paper]) -> Tuple[bool, int]:
    """Of one slot's grants, and of floors, the older first: the other way round they would be refused, or count."""
    found = entry[2]
    return (True, found.time_s) if isinstance(found, Floor) else (False, found.number)


def _told(found: Paper) -> str:
    if isinstance(found, Floor):
        by = ", ".join("slot {} from number {}".format(*one) for one in found.grants) or "no grant"
        return "{} stands by {}; the evaluation application heeds it from its next start on".format(
            found.verifier.hex()[:16], by)
    return "slot {} has {} key {}, number {}".format(found.slot, found.kind.name.lower(), found.key_id.hex(),
                                                     found.number)


def _read(path: str, content: bytes, here: bytes, signers: Optional[Set[bytes]]) -> Paper:
    found: Paper
    try:
        found = floor.open_floor(content) if floor.is_floor(content) else grant.open_grant(content)
    except EdgedError as error:
        raise _named(path, error)
    if found.device != here:
        raise KeyRefused("{}: is for device {}, this one is {}: ask for one by its present evidence".format(
            path, found.device.hex(), here.hex()))
    if signers is not None and found.verifier not in signers:
        raise VerificationFailed("{}: is signed by {}, who is no owner of the node's agreements: ask whom they "
                                 "name".format(path, found.verifier.hex()))
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
