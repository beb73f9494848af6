"""What `edged-owner` and `edged-city` do alike to grant keys: serve, grant (without a server), nodes, audit.

The work: edged/keyserver.
"""

import argparse
import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable, Collection, Optional, Sequence

from cryptography import x509

from edged import command
from edged.errors import MissingInput, PackageError, UsageError, VerificationFailed
from edged.keyserver import config as configs
from edged.keyserver.config import ServerConfig
from edged.keyserver.holder import Holder
from edged.keyserver.ledger import Ledger, Node, Standing
from edged.placing import SHARED, Placing
from edged.stopping import Stop
from edged.trust import agreement_text, chain, floor, grant, keyprotocol
from edged.trust.cosign import Party
from edged.trust.keyprotocol import Status
from edged.trust.request import UEID_BYTES, fingerprint, spki_of
from edged.trust.validity import CERTIFICATE_NEAR_DAYS


_RENEW = "`edged-city ca challenge`, `scripts/enrol`, `edged-city ca enrol --again`"
# Both owners' may lie in one folder, as their grants may.
_FLOORS = {Party.MODEL_OWNER: "floor-mo", Party.QUERY_DATA_OWNER: "floor-qdo"}


def add_serve(commands: Any, holder: Callable[[argparse.Namespace], Holder]) -> argparse.ArgumentParser:
    """`serve`, `nodes` and `audit`; the caller adds to the first, which is returned, where its keys are."""
    served = commands.add_parser("serve", help="give keys to nodes that prove what they are, until SIGINT or SIGTERM")
    served.set_defaults(run=run_serve, holder=holder)
    listed = commands.add_parser("nodes", help="list what became of each node of the key server")
    listed.add_argument("--json", action="store_true")
    listed.set_defaults(run=run_nodes)
    audited = commands.add_parser("audit", help="check the key server's audit log and print it, as JSON lines",
                                  description="Check the log and print it. Keep the head that is printed last "
                                              "elsewhere: --head notices whatever was changed up to it.")
    audited.add_argument("--head", metavar="N:HEX", help="as an earlier audit printed it")
    audited.set_defaults(run=run_audit)
    for one in (served, listed, audited):
        one.add_argument("--config", metavar="FILE", default=configs.FILE, help="default ./%(default)s")
    _add_first_slot(served)
    return served


def add_grant(commands: Any, holder: Callable[[argparse.Namespace], Holder]) -> argparse.ArgumentParser:
    """`grant`; the caller adds where its keys are."""
    made = commands.add_parser(
        "grant", help="what a key server does, by files that a technician carries",
        description="By the key server's configuration and in its ledger, no server running: a challenge for a device; "
                    "then, for its evidence, grants that are good for that device alone, and a floor, by which the "
                    "device knows, as long as it runs, that its grants still stand.")
    what = made.add_mutually_exclusive_group(required=True)
    what.add_argument("--challenge", metavar="UEID", help="print a nonce for `edgectl attest`, good once")
    what.add_argument("--evidence", metavar="FILE", help="the device's answer")
    made.add_argument("--out", metavar="DIR", help="with --evidence: a new folder for the grants, SLOT.grant each, and "
                                                   "the floor, floor-PARTY")
    made.add_argument("--revoke", action="store_true", help="with --evidence: no grants, but a floor that withdraws "
                                                            "all that the device has of this party")
    made.add_argument("--config", metavar="FILE", default=configs.FILE, help="default ./%(default)s")
    _add_first_slot(made)
    made.set_defaults(run=run_grant, holder=holder)
    return made


def _add_first_slot(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--first-slot", metavar="N", type=int, help="of the agreement's keys, instead of what the "
                                                                    "configuration or the agreement's number says")


def _config(given: argparse.Namespace) -> ServerConfig:
    found = configs.load(given.config)
    if given.first_slot is None:
        return found
    if not 0 <= given.first_slot <= configs.FIRST_SLOT_MAX:
        raise UsageError("--first-slot {}: 0 to {}".format(given.first_slot, configs.FIRST_SLOT_MAX))
    return replace(found, first_slot=given.first_slot)


def run_grant(given: argparse.Namespace) -> None:
    from edged.keyserver.office import Office
    if (given.evidence is None) != (given.out is None):
        raise UsageError("--evidence and --out go together")
    if given.revoke and given.evidence is None:
        raise UsageError("--revoke: goes with --evidence")
    ueid = None if given.challenge is None else command.octets(given.challenge, "--challenge", UEID_BYTES)
    body = keyprotocol.ask(ueid) if ueid is not None else command.read_file(given.evidence)
    config = _config(given)
    if given.out is not None and os.path.lexists(given.out):
        raise UsageError("{}: is there already: name a new folder".format(given.out))
    holder = given.holder(given)
    office = Office(config, holder)
    try:
        answer = (office.challenge(body) if ueid is not None else
                  office.withdraw(body) if given.revoke else office.evidence(body))
    finally:
        office.close()
    if answer.status != Status.OK:
        reason = keyprotocol.read_refusal(answer.body)
        raise PackageError(reason) if answer.status == Status.MALFORMED else VerificationFailed(reason)
    if ueid is not None:
        print(keyprotocol.read_challenge(answer.body).hex())
        return
    placing, lines = Placing(), []
    grants, said = ((), answer.body) if given.revoke else keyprotocol.read_grants(answer.body)
    for made in grants:
        header = grant.open_grant(made)
        path = Path(given.out) / "{}.grant".format(header.slot)
        placing.add(path, made, SHARED)
        lines.append("{}: {} key of slot {}, number {}".format(path, header.kind.name.lower(), header.slot,
                                                              header.number))
    path = Path(given.out) / _FLOORS[holder.party]
    placing.add(path, said, SHARED)
    lines.append("{}: floor for the device's present start: {}".format(path, ", ".join(
        "slot {} from number {}".format(*one) for one in floor.open_floor(said).grants)))
    placing.commit()
    print("\n".join(lines))


def run_serve(given: argparse.Namespace) -> None:
    with command.needs("server"):
        from edged.keyserver import web
    from edged.keyserver.office import Office
    config = _config(given)
    holder = given.holder(given)
    if config.policy.allow_emulated:
        print("devices that are EMULATED get keys: they protect nothing", file=sys.stderr)
    if config.devices is None:
        print("trust_authority: whatever {} certifies gets keys, be it a device or not".format(config.root),
              file=sys.stderr)

    def ready(port: int) -> None:
        print("listening on {}:{}".format(config.bind[0], port), file=sys.stderr, flush=True)

    web.serve(config, lambda: Office(config, holder), Stop().on_signals(), ready)


def run_nodes(given: argparse.Namespace) -> None:
    config = configs.load(given.config)
    crls = [chain.read_crl(command.read_file(str(path)), str(path)) for path in config.crls]
    devices = config.read_devices()
    with _ledger(config) as ledger:
        known = {node.ueid: node for node in ledger.nodes()}
    listed = [_described(config, ueid, known.get(ueid), crls, devices, int(time.time()))
              for ueid in sorted(set(known) | set(config.nodes), key=lambda ueid: (config.nodes.get(ueid, "~"), ueid))]
    if given.json:
        print(json.dumps(listed, indent=2))
        return
    for one in listed:
        said = [one["reason"]] if one["reason"] else []
        if one["until"] is not None:
            said.append("certificate until {}{}".format(one["until"], ": {}: {}".format(
                "OVER" if one["days_left"] < 0 else "{} day(s) left".format(one["days_left"]), _RENEW)
                if one["certificate_ends"] else ""))
        print("{:9}  {:31}  {}  {:20}  {}".format(one["standing"], one["name"] or "-", one["ueid"],
                                                  one["heard"] or "never", "; ".join(said)).rstrip())


def run_audit(given: argparse.Namespace) -> None:
    kept = _head(given.head) if given.head is not None else None
    with _ledger(configs.load(given.config)) as ledger:
        head, as_kept = (0, b""), kept is None
        for entry in ledger.audit():
            head = (entry.number, entry.digest)
            as_kept = as_kept or head == kept
            print(json.dumps({"n": entry.number, "time": agreement_text.moment(entry.time_s), "event": entry.event,
                              "ueid": entry.ueid.hex(), **entry.details}))
        print("# head {}:{}".format(head[0], head[1].hex()))
        if not as_kept:
            raise VerificationFailed("{}: head {} is not of this audit log: entries up to it were altered, or taken "
                                     "off".format(ledger.path, given.head))


def _ledger(config: ServerConfig) -> Ledger:
    if not os.path.isfile(config.ledger):
        raise MissingInput("{}: there is no ledger: `serve` makes one".format(config.ledger))
    return Ledger(str(config.ledger))


def _described(config: ServerConfig, ueid: bytes, node: Optional[Node],
               crls: Sequence[x509.CertificateRevocationList], devices: Optional[Collection[bytes]],
               now_s: int) -> Any:
    standing = _standing(config, node, crls, devices, now_s) if node else Standing.SILENT
    until_s = node.until_s if node else None
    left_s = None if until_s is None else until_s - now_s
    # Of one that is not wanted any more nobody has to renew it.
    wanted = standing not in (Standing.REVOKED, Standing.UNLISTED)
    return {"standing": standing.value, "name": config.nodes.get(ueid, ""), "ueid": ueid.hex(),
            "heard": agreement_text.moment(node.heard_s) if node else None,
            "class": node.class_ if node else None, "reason": node.reason if node else "",
            "until": None if until_s is None else agreement_text.moment(until_s),
            "days_left": None if left_s is None else left_s // chain.DAY_S,
            "certificate_ends": wanted and left_s is not None and left_s <= CERTIFICATE_NEAR_DAYS * chain.DAY_S}


def _standing(config: ServerConfig, node: Node, crls: Sequence[x509.CertificateRevocationList],
              devices: Optional[Collection[bytes]], now_s: int) -> Standing:
    """By the lists of now: a node that was revoked, or taken off the list, since it passed need not come once more."""
    revoked, listed = False, True
    if node.leaf is not None and node.issuing is not None and node.class_ is not None:
        leaf = chain.read_certificate(node.leaf, "device certificate")
        issuing = chain.read_certificate(node.issuing, "issuing CA's certificate")
        revoked = chain.revoked_s(leaf.serial_number, issuing, node.class_, crls) is not None
        listed = devices is None or fingerprint(spki_of(leaf.public_key())) in devices
    return node.standing(now_s, config.expires_s, config.silent_s, revoked, listed)


def _head(text: str) -> Any:
    number, _, digest = text.partition(":")
    if not number.isdigit():
        raise UsageError("--head {}: N:HEX, as audit prints it".format(text))
    return int(number), command.octets(digest, "--head", 32)
