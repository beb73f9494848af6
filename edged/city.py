"""``edged-city``: the subscriber's side."""

import argparse
import json
import os
import sys
import time
from typing import Any, Dict, List, Optional

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edged import authority, command, negotiation, serving
from edged.alerts import adopt, cityconfig, keyfiles, keys, nodes
from edged.alerts.record import Claim, Epoch, Heartbeat, Observation, Record, Succession, open_record, split_record
from edged.alerts.screen import Screen
from edged.alerts.skeletons import SkeletonFolder, positions
from edged.alerts.subscriber import Subscriber
from edged.enclave.slots import KEY_SIZES
from edged.enclave.wire import KeyKind
from edged.errors import KeyRefused, UsageError
from edged.keyserver import holder
from edged.secret import read_secret
from edged.stopping import Stop
from edged.trust.agreement import Agreement, open_agreement
from edged.trust.cosign import Party


def main(arguments: Optional[List[str]] = None) -> int:
    parser = command.parser("edged-city", __doc__)
    commands = parser.add_subparsers(required=True, dest="command", metavar="COMMAND")
    opened = commands.add_parser("open-record", help="open one sealed record and print it as JSON")
    opened.add_argument("file", metavar="FILE", help="the sealed record")
    key = opened.add_mutually_exclusive_group(required=True)
    key.add_argument("--alert-key-file", metavar="FILE", help="16 or 32 raw bytes, readable by you alone")
    key.add_argument("--dir", metavar="DIR", help="the city's folder: the key that the record names")
    opened.add_argument("--agreement", required=True, metavar="FILE",
                        help="the signed agreement that it is sealed under")
    opened.set_defaults(run=run_open_record)

    drawn = commands.add_parser("keys", help="draw the city's keys into a new folder")
    _with_folder(drawn)
    drawn.add_argument("--recipient", metavar="NAME", action="append", dest="recipients",
                       help="who gets records; may be given several times (default: city)")
    for what in (KeyKind.DATA, KeyKind.ALERT):
        drawn.add_argument("--{}-key-bytes".format(what.name.lower()), type=int, choices=KEY_SIZES[what], default=32,
                           help="of {}; default 32: AES-256".format("clips" if what is KeyKind.DATA else "records"))
    drawn.set_defaults(run=run_keys)
    changed = drawn.add_subparsers(dest="keys", metavar="COMMAND", description="without: draw them")
    renewed = changed.add_parser("renew", help="draw a new data key and new alert keys; the former ones stay")
    renewed.set_defaults(run=run_keys_renew)
    retired = changed.add_parser("retire", help="delete the former keys of dropped agreements that none needs any more",
                                 description="Delete the former keys that a dropped agreement named, and for which no "
                                             "subscriber's and no key server's configuration in the folder has an "
                                             "agreement. What else was sealed under them, as copies of records, never "
                                             "opens again.")
    retired.set_defaults(run=run_keys_retire)
    for one in (renewed, retired):
        _with_folder(one, argparse.SUPPRESS)

    begun = commands.add_parser("init", help="write the subscriber's configuration, and a bundle for a node")
    _with_folder(begun)
    begun.add_argument("--agreement", required=True, metavar="FILE", help="as both parties signed it")
    begun.add_argument("--mo", metavar="HEX", help="the model owner's verification key, to be compared")
    begun.add_argument("--recipient", metavar="NAME", help="of --dir's; where there is one only, that")
    begun.add_argument("--bind", metavar="ADDRESS", default="tcp://0.0.0.0:7443", help="default %(default)s")
    begun.add_argument("--address", required=True, metavar="ADDRESS", help="where nodes reach it: tcp://HOST:PORT")
    begun.add_argument("--camera", required=True, metavar="NAME", action="append", dest="cameras",
                       help="of the node; may be given several times")
    begun.add_argument("--bundle", required=True, metavar="DIR", help="for the node: a new folder")
    begun.add_argument("--emulated", action="store_true",
                       help="the node's enclave is the host port: the bundle carries every key in clear")
    begun.add_argument("--model-key-file", metavar="FILE", help="for --emulated: 32 raw bytes, from the model's owner")
    begun.set_defaults(run=run_init)

    adopted = commands.add_parser("adopt", help="have the subscribers take records of the agreement that follows, too")
    adopted.add_argument("--agreement", required=True, metavar="FILE", help="as both parties signed it")
    adopted.set_defaults(run=run_adopt)
    dropped = commands.add_parser("drop", help="have them take no more records under one that ended everywhere")
    dropped.add_argument("number", metavar="NUMBER", type=int)
    dropped.add_argument("--lose", metavar="NODE", action="append", default=[],
                         help="give up what this node may still hold of it; may be given several times")
    dropped.set_defaults(run=run_drop)
    for one in (adopted, dropped):
        _with_folder(one)

    allowed = commands.add_parser("allow", help="list a node: it may connect")
    allowed.add_argument("name", metavar="NAME")
    allowed.add_argument("--key", required=True, metavar="Z85",
                         help="the node's public key, as `edgectl install` says it")
    allowed.add_argument("--node", metavar="HEX", help="its enclave's name; else learnt from its first record")
    _with_folder(allowed)
    allowed.set_defaults(run=run_allow)

    revoked = commands.add_parser("revoke", help="revoke a node's key: it is cut off, at once")
    revoked.add_argument("which", metavar="NAME|Z85")
    _with_folder(revoked)
    revoked.set_defaults(run=run_revoke)

    heard = commands.add_parser("listen", help="take the nodes' records and print what comes, until SIGINT or SIGTERM",
                                description="Print alerts, and loudly what is missing, altered or silent. A line that "
                                            "was printed and not read is printed again after a kill.")
    heard.add_argument("--config", metavar="FILE", default=cityconfig.FILE, help="default ./%(default)s")
    heard.add_argument("--json", action="store_true", help="every event as one JSON line")
    heard.add_argument("--all", action="store_true", help="routine records, too")
    heard.add_argument("--skeletons", metavar="DIR", help="write those of each record that tells them into a file "
                                                          "there before it is acknowledged; its JSON line names the "
                                                          "file")
    heard.set_defaults(run=run_listen)
    authority.add_ca(commands)
    authority.add_verify(commands, city=True)
    negotiation.add_agreement(commands)
    for signed in (authority.add_sign_reference(commands, _signing_key),
                   negotiation.add_sign(commands, Party.QUERY_DATA_OWNER, _signing_key),
                   serving.add_serve(commands, _holder), serving.add_grant(commands, _holder)):
        _with_folder(signed)
    return command.run(parser, arguments)


def _with_folder(parser: argparse.ArgumentParser, default: str = ".") -> None:
    parser.add_argument("--dir", metavar="DIR", default=default, help="the city's folder (default: this one)")


def _holder(given: argparse.Namespace) -> holder.Holder:
    return holder.of_city(given.dir)


def _signing_key(given: argparse.Namespace) -> Ed25519PrivateKey:
    return keys.read_signing_key(given.dir)


def run_keys(given: argparse.Namespace) -> None:
    keys.make_keys(given.dir, given.recipients or ("city",), given.alert_key_bytes, given.data_key_bytes)
    print("wrote {}: the model's owner needs {}".format(given.dir, os.path.join(given.dir, keys.PUBLIC_FILE)))


def run_keys_renew(given: argparse.Namespace) -> None:
    if given.recipients is not None:
        raise UsageError("--recipient: recipients stay who they are: name them where keys are drawn first")
    public = keys.renew(given.dir)
    print("drew data key {} and {} alert key(s) beside the former ones: now an agreement has to name them: "
          "`edged-owner agreement renew`, or `edged-city agreement renew`, with {}\nback up {}; restart `edged-city "
          "serve`".format(public.data_key_id.hex(), len(public.recipients), os.path.join(given.dir, keys.PUBLIC_FILE),
                          given.dir))


def run_keys_retire(given: argparse.Namespace) -> None:
    gone, kept = adopt.retire(given.dir)
    print("deleted {}".format(", ".join(gone)) if gone else "there are no former keys")
    if kept:
        print("kept {}: {}".format(", ".join(kept), keys.KEPT))


def run_adopt(given: argparse.Namespace) -> None:
    agreement, files, left = adopt.adopt(given.dir, command.read_file(given.agreement))
    for one in left:
        print("left as it is: {}".format(one))
    if not files:
        print("agreement {} is listed here already".format(agreement.number))
        return
    print("agreement {}: written to {}".format(agreement.number, ", ".join(files)))
    if adopt.configured(given.dir)[0].digest != agreement.digest:
        print("agreement {} is taken, too, behind those of higher numbers: restart `edged-city listen` (nodes keep "
              "what it has not acknowledged)".format(agreement.number))
        return
    print("agreement {} is in force, those before it go on: restart `edged-city listen` (nodes keep what it has not "
          "acknowledged), then `edged-city init --agreement {} ...` for each node's bundle".format(
              agreement.number, given.agreement))


def run_drop(given: argparse.Namespace) -> None:
    files, missing = adopt.drop(given.dir, given.number, given.lose)
    print("agreement {} is no longer listed in {}: restart `edged-city listen`; `edged-city keys retire` deletes its "
          "keys".format(given.number, ", ".join(files)))
    for name in given.lose:
        print("given up: what {} still holds of it".format(name))
    if missing:
        print("{} record(s) that may be under it never came: should they come yet, they do not open".format(missing))


def run_init(given: argparse.Namespace) -> None:
    if given.emulated != (given.model_key_file is not None):
        raise UsageError("--emulated and --model-key-file belong together")
    model_key = read_secret(given.model_key_file, (32,)) if given.emulated else None
    written = keys.init(given.dir, command.read_file(given.agreement), given.bind, given.address, given.cameras,
                        given.bundle, given.recipient, _hex(given.mo, "--mo", 32), model_key)
    print("wrote {}; on the node: edgectl install {}".format(written, given.bundle))


def run_allow(given: argparse.Namespace) -> None:
    nodes.allow(os.path.join(given.dir, nodes.FILE), given.name, given.key, _hex(given.node, "--node", 16))
    print("{} may connect".format(given.name))


def run_revoke(given: argparse.Namespace) -> None:
    print("the key of {} is revoked".format(nodes.revoke(os.path.join(given.dir, nodes.FILE), given.which)))


def run_listen(given: argparse.Namespace) -> None:
    stop = Stop().on_signals()
    folder = None if given.skeletons is None else SkeletonFolder(given.skeletons)
    screen = Screen(given.json, given.all, folder)
    with Subscriber(cityconfig.load(given.config), folder and folder.keep) as subscriber:
        print("edged-city: listening on {}".format(subscriber.address), file=sys.stderr, flush=True)
        while not stop.is_set():
            events = subscriber.poll(0.5)
            for line in screen.lines(events, time.time_ns()):
                print(line)
            sys.stdout.flush()


def _hex(text: Optional[str], option: str, size: int) -> Optional[bytes]:
    return None if text is None else command.octets(text, option, size)


def run_open_record(given: argparse.Namespace) -> None:
    agreement = open_agreement(command.read_file(given.agreement))
    sealed = command.read_file(given.file)
    record = open_record(sealed, _record_key(given, sealed), agreement.digest)
    header = record.header
    print(json.dumps(dict({
        "kind": record.kind.name.lower(),
        "seq": header.seq,
        "node": header.node.hex(),
        "epoch": header.epoch.hex(),
        "recipient": header.rcpt.hex(),
        "key_id": header.kid.hex(),
    }, **_content(record, agreement)), indent=2))


def _record_key(given: argparse.Namespace, sealed: bytes) -> bytes:
    if given.dir is None:
        return read_secret(given.alert_key_file, KEY_SIZES[KeyKind.ALERT])
    key_id, files = split_record(sealed)[0].kid, keyfiles.read_all(given.dir)
    if key_id not in files:
        raise KeyRefused("{}: holds no key of id {}, which the record names".format(given.dir, key_id.hex()))
    return files[key_id].read()


def _content(record: Record, agreement: Agreement) -> Dict[str, Any]:
    if isinstance(record, Observation):
        return {
            "status": record.status.name.lower(),
            "camera": record.camera.hex(),
            "model": record.model.hex(),
            "clip": record.number,
            "time_ns": record.time_ns,
            "persons": record.persons,
            "claimed_by_node": {"time_ns": record.claimed_ns, "tracks": list(record.tracks)},
            "alerts": [{"message": alert.message.name.lower(), "label": rule.label, "score": alert.score / 65536,
                        "began_with_clip": alert.event}
                       for alert, rule in zip(record.alerts, agreement.rules) if alert.message],
            # Q16 fixed point: 16 fractional bits
            "logits": [value / 65536 for value in record.logits],
            "probabilities": [value / 65536 for value in record.probabilities],
            "skeletons": positions(record.skeletons) if record.skeletons else [],
        }
    if isinstance(record, Epoch):
        return {"unclean": record.unclean, "counter": record.counter, "previous": record.previous.hex(),
                "previous_seq": record.previous_seq, "agreement": record.agreement.hex()}
    if isinstance(record, Heartbeat):
        return {
            "nonce": record.nonce.hex(),
            "time_ns": record.time_ns,
            "uptime_ns": record.uptime_ns,
            "counter": record.counter,
            "cameras": [{"camera": count.camera.hex(), "accepted": count.accepted, "failed": count.failed}
                        for count in record.cameras],
            "claimed_by_node": {"config": record.config.hex()},
        }
    if isinstance(record, Succession):
        return {"number": record.number, "successor": record.successor.hex(),
                "next_key": record.next_key.hex() if record.next_key else None}
    assert isinstance(record, Claim)
    return {"claimed_by_node": {"data": record.data.hex()}}


if __name__ == "__main__":
    sys.exit(main())
