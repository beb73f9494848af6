"""``edgectl``: the operator's tool."""

import argparse
import json
import logging
import os
import stat
import sys
from contextlib import ExitStack, closing
from typing import Any, List, Optional, Sequence, TextIO

from edged import command, config, events
from edged.enclave import tipc, wire
from edged.errors import EdgedError, MissingInput, UsageError

# Of edged/offload/bridge.py, which needs numpy; --help does not.
TRANSPORTS = ("message", "window")


def main(arguments: Optional[List[str]] = None) -> int:
    parser = command.parser("edgectl", __doc__)
    commands = parser.add_subparsers(required=True, dest="command", metavar="COMMAND")

    measured = commands.add_parser("bench", help="measure full-size ST-GCN in every placement",
                                   description="Measure on the host port, beside ONNX Runtime where it is installed.")
    measured.add_argument("--json", metavar="FILE", help="write the figures there, too")
    measured.add_argument("--clips", metavar="N", type=int, default=5, help="clips to count (default 5)")
    measured.add_argument("--transport", choices=TRANSPORTS, default="window",
                          help="bulk data through shared memory (default) or 4096-byte messages")
    measured.set_defaults(run=run_bench)

    asked = commands.add_parser("status", help="ask a running node, or an enclave alone, how it is",
                                description="Print as JSON what the supervisor, the bridge and the spool of a node "
                                            "say; with --at, what an enclave says that no bridge uses. Ends with 69 "
                                            "where something does not run, nothing of a camera is judged, or the "
                                            "device's sealed files or certificate are wanting.")
    where = asked.add_mutually_exclusive_group()
    _with_config(where)
    where.add_argument("--at", metavar="PLACE",
                       help="folder of `edged enclave --dir`, or the Trusty device ({})".format(tipc.DEVICE))
    asked.set_defaults(run=run_status)

    tested = commands.add_parser("test-alert", help="send an alert marked Exercise through the whole chain",
                                 description="Have the enclave seal an alert marked Exercise for every recipient of "
                                             "the agreement, and print its sequence numbers.")
    _with_config(tested)
    which = tested.add_mutually_exclusive_group()
    which.add_argument("--rule", metavar="N", type=int, default=0, help="of the agreement, counted from 0 (default 0)")
    which.add_argument("--label", metavar="TEXT", help="of the agreement's rule")
    tested.add_argument("--agreement", metavar="N", type=int,
                        help="of enclave.agreements, counted from 0 (default: each)")
    tested.set_defaults(run=run_test_alert)

    configured = commands.add_parser("config", help="judge or print the configuration")
    verbs = configured.add_subparsers(required=True, dest="verb", metavar="COMMAND")
    checked = verbs.add_parser("check", help="name all that is wrong in it and in the files that it names")
    shown = verbs.add_parser("show", help="print it as JSON, defaults included, passwords left out")
    for parsed, function in ((checked, run_config_check), (shown, run_config_show)):
        _with_config(parsed)
        parsed.set_defaults(run=function)

    listed = commands.add_parser("events", help="print the catalogue of what edged logs")
    listed.add_argument("--json", action="store_true", help="as JSON")
    listed.set_defaults(run=run_events)

    installed = commands.add_parser("install", help="put a city's bundle on this node",
                                    description="Put the keys and the agreement of a bundle of `edged-city init` where "
                                                "the configuration names them, and print this node's public key.")
    installed.add_argument("bundle", metavar="BUNDLE", help="folder")
    _with_config(installed)
    installed.add_argument("--root", metavar="DIR", default="/", help="of another system than this one")
    installed.set_defaults(run=run_install)

    rotated = commands.add_parser("rotate", help="have a new agreement of the same city follow, while the node runs",
                                  description="Put the keys and the agreement of a bundle beside the ones in force, "
                                              "have the running node go over to them, and replace the old ones. Run "
                                              "again, it goes on where it was stopped.")
    rotated.add_argument("bundle", metavar="BUNDLE", help="folder")
    _with_config(rotated)
    rotated.add_argument("--no-reload", action="store_true", help="only put the files there")
    rotated.add_argument("--wait", metavar="SECONDS", type=int, default=120,
                         help="for city and cameras to go over (default 120)")
    rotated.set_defaults(run=run_rotate)

    reloaded = commands.add_parser("reload", help="have the bridge read the agreements again")
    _with_config(reloaded)
    reloaded.set_defaults(run=run_reload)

    agreed = commands.add_parser("agreement", help="read what both owners agreed on")
    verbs = agreed.add_subparsers(required=True, dest="verb", metavar="COMMAND")
    terms = verbs.add_parser("show", help="print its terms as text, and who signed it")
    terms.add_argument("file", metavar="FILE", help="a draft, or signed by one party or both")
    terms.set_defaults(run=run_agreement_show)

    _add_device(commands)
    return command.run(parser, arguments)


def _add_device(commands: Any) -> None:
    """What concerns the key application. edged/device.py does it."""
    def add(to: Any, name: str, function: str, words: str, **more: Any) -> Any:
        parser = to.add_parser(name, help=words, **more)
        where = parser.add_mutually_exclusive_group()
        _with_config(where)
        where.add_argument("--at", metavar="PLACE", help="folder of `edged enclave --dir`, or the Trusty device, "
                                                         "where there is no configuration yet")
        parser.add_argument("--keep", metavar="DIR", help="with --at: where the sealed files lie (default: PLACE)")
        parser.set_defaults(run=run_device, function=function)
        return parser

    group = commands.add_parser("identity", help="the device's keys, which are certified and receive grants")
    verbs = group.add_subparsers(required=True, dest="verb", metavar="COMMAND")
    drawn = add(verbs, "new", "identity_new", "draw them; certificate and grants of any identity before are void")
    drawn.add_argument("--again", action="store_true",
                       help="in the place of those that are there, whose files are moved aside")
    add(verbs, "show", "identity_show", "print as JSON what the key application has")
    asked = add(verbs, "request", "identity_request", "ask the city's authority for a certificate")
    asked.add_argument("--challenge", metavar="HEX", required=True, help="as `edged-city ca challenge` prints it")
    asked.add_argument("--out", metavar="FILE", required=True)

    proved = add(commands, "attest", "attest", "write evidence of what this device is and runs",
                 description="Write evidence for a verifier, with the certificates of identity.chain where they are "
                             "there. It names the evaluation application once that has run.")
    proved.add_argument("--nonce", metavar="HEX", required=True, help="as `edged-city nonce` or `edged-owner nonce` "
                                                                     "prints it")
    proved.add_argument("--out", metavar="FILE", required=True)

    granted = add(commands, "install-grant", "install_grant", "hand grants and floors of both owners over",
                  description="Have the key application take grants and then floors, one after the other, and keep its "
                              "new state.")
    granted.add_argument("files", metavar="FILE", nargs="+")

    fetched = add(commands, "fetch-grants", "fetch_grants", "get grants from a key server, and hand them over",
                  description="Answer the challenge of the model owner's or the city's key server with evidence, and "
                              "have the key application take the grants and the floor that it gives.")
    reported = add(commands, "report", "report", "show a key server that this device is what it was",
                   description="Answer the challenge of the model owner's or the city's key server with evidence, for "
                               "no new grants: its `nodes` calls a device passed that did so of late.")
    for one in (fetched, reported):
        one.add_argument("--server", metavar="HOST:PORT", required=True, help="https:// before it is understood")
        one.add_argument("--ca", metavar="FILE", required=True,
                         help="certificates in PEM: who alone is believed for the server's")

    for one in (granted, fetched):
        whose = one.add_mutually_exclusive_group()
        whose.add_argument("--agreement", metavar="FILE", action="append",
                           help="signed by both owners: theirs alone are taken, and those of the configuration's")
        whose.add_argument("--any-signer", action="store_true", help="take anybody's: a stranger's take up slots, too")
        one.add_argument("--overwrite", action="store_true",
                         help="even where a slot holds a key of another agreement in use, which ends by that")

    cleared = add(commands, "clear-slot", "clear_slot", "wipe one key of the key application",
                  description="Wipe a key for good: the grant that brought it is not taken again.")
    cleared.add_argument("slot", metavar="N", type=int)


def run_device(given: argparse.Namespace) -> None:
    with command.needs("node"):
        from edged import device
    if given.at is None and given.keep is not None:
        raise UsageError("--keep: goes with --at")
    if given.at is not None:
        if given.keep is None and not os.path.isdir(given.at):
            raise UsageError("--at {}: --keep says where the sealed files lie".format(given.at))
        made = device.Device(given.at, given.keep or given.at)
    else:
        loaded = config.load(given.config)
        made = device.Device(loaded.enclave.at, str(loaded.key_folder),
                             [str(path) for path in loaded.enclave.agreements])
    getattr(device, given.function)(made, given)
    if given.at is None and given.function in ("install_grant", "fetch_grants"):
        from edged import status
        status.tell_of_keys(loaded)


def _with_config(parser: Any) -> None:
    parser.add_argument("--config", metavar="FILE", default=config.DEFAULT_PATH,
                        help="the node's configuration (default {})".format(config.DEFAULT_PATH))


def run_bench(given: argparse.Namespace) -> None:
    if given.clips < 1:
        raise UsageError("--clips {}: at least 1".format(given.clips))
    with command.needs("node"):
        from edged import bench
    with ExitStack() as stack:
        file = stack.enter_context(_open_kept(given.json)) if given.json else None
        report = bench.run(given.clips, given.transport)
        print(bench.table(report))
        if file is not None:
            if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                file.truncate()
            json.dump(report, file, indent=2)
            file.write("\n")


def _open_kept(path: str) -> TextIO:
    """For writing, before minutes of measuring; what the file holds stays until there is something to replace it."""
    if not os.path.isdir(os.path.dirname(path) or "."):
        raise MissingInput("{}: no such folder".format(os.path.dirname(path)))
    return open(path, "w", encoding="ascii",
                opener=lambda name, flags: os.open(name, flags & ~os.O_TRUNC, 0o666))


def run_status(given: argparse.Namespace) -> int:
    if given.at is not None:
        _enclave_status(given.at)
        return 0
    from edged import status
    shown, missing = status.report(config.load(given.config))
    print(json.dumps(shown, indent=2))
    return _end_with(missing)


def _enclave_status(at: str) -> None:
    with command.needs("node"):
        from edged.device import is_locked
        from edged.enclave.client import EvalClient
        from edged.enclave.key import KeyClient
    with closing(KeyClient(tipc.connect(at, wire.KEY_PORT))) as key, \
            closing(EvalClient(tipc.connect(at, wire.EVAL_PORT))) as evaluation:
        info, stats, slots, key_memory = evaluation.info(), evaluation.stats(), key.info(), key.stats()
    print(json.dumps({
        "emulated": bool(info.flags & wire.EVAL_FLAG_EMULATED),
        "shared_memory": bool(info.flags & wire.EVAL_FLAG_WINDOW),
        "node": slots.node.hex(),
        "epoch": info.epoch.hex(),
        "key_slots": [wire.KeyKind(kind).name.lower() for kind in slots.kinds],
        "locked": is_locked(slots),
        "clips": stats.clips,
        "records": stats.records,
        "products_checked": stats.products_checked,
        "rejections": stats.rejections,
        "peak_bytes": {"eval": stats.memory.peak_bytes, "key": key_memory.peak_bytes},
        "heap_bytes": {"limit": stats.memory.heap_limit, "peak": stats.memory.heap_peak},
    }, indent=2))


def run_test_alert(given: argparse.Namespace) -> None:
    from edged import status
    for option, number in (("--rule", given.rule), ("--agreement", given.agreement or 0)):
        if not 0 <= number < 1 << 32:
            raise UsageError("{} {}: counted from 0".format(option, number))
    asked = {"rule": given.rule} if given.label is None else {"label": given.label}
    if given.agreement is not None:
        asked["agreement"] = given.agreement
    print(json.dumps(status.drill(config.load(given.config), asked), indent=2))


def run_config_check(given: argparse.Namespace) -> int:
    from edged import check
    loaded = config.load(given.config)
    found = check.findings(loaded)
    for warning in check.warnings(loaded):
        print("edgectl: warning: {}".format(warning), file=sys.stderr)
    if not found:
        print("ok")
    return _end_with(found)


def run_config_show(given: argparse.Namespace) -> None:
    print(json.dumps(config.shown(config.load(given.config)), indent=2))


def run_events(given: argparse.Namespace) -> None:
    rows = [event._replace(level=logging.getLevelName(event.level).lower())._asdict() for event in events.EVENTS]
    if given.json:
        print(json.dumps(rows, indent=2))
        return
    for row in rows:
        print("{id} {name} ({level})\n    {meaning}\n    remedy: {remedy}".format(**row))


def run_agreement_show(given: argparse.Namespace) -> None:
    from edged import negotiation
    print(negotiation.show_agreement(given.file), end="")


def run_install(given: argparse.Namespace) -> None:
    from edged import install
    install.run(given.bundle, given.config, given.root)


def run_rotate(given: argparse.Namespace) -> None:
    from edged import rotation
    if given.wait < 0:
        raise UsageError("--wait {}: at least 0".format(given.wait))
    rotation.run(given.bundle, given.config, not given.no_reload, given.wait)


def run_reload(given: argparse.Namespace) -> None:
    from edged import rotation
    rotation.ask_reload(config.load(given.config))
    print("ok")


def _end_with(found: Sequence[EdgedError]) -> int:
    """Each on one line; the exit code of the first, 0 where there is none."""
    for error in found:
        print("edgectl: {}".format(error), file=sys.stderr)
    return found[0].exit_code if found else 0


if __name__ == "__main__":
    sys.exit(main())
