"""``edged-city``: the subscriber's side."""

import argparse
import json
import sys
from typing import List, Optional

from edged import command
from edged.alerts.record import ALERT_KEY_SIZES, open_record
from edged.secret import read_secret


def main(arguments: Optional[List[str]] = None) -> int:
    parser = command.parser("edged-city", __doc__)
    commands = parser.add_subparsers(required=True, dest="command", metavar="COMMAND")
    opened = commands.add_parser("open-record", help="open one sealed record and print it as JSON")
    opened.add_argument("file", metavar="FILE", help="the sealed record")
    opened.add_argument("--alert-key-file", required=True, metavar="FILE",
                        help="16 or 32 raw bytes, readable by you alone")
    opened.set_defaults(run=run_open_record)
    return command.run(parser, arguments)


def run_open_record(given: argparse.Namespace) -> None:
    key = read_secret(given.alert_key_file, ALERT_KEY_SIZES)
    seen = open_record(command.read_file(given.file), key)
    header = seen.header
    print(json.dumps({
        "kind": seen.kind.name.lower(),
        "seq": header.seq,
        "node": header.node.hex(),
        "epoch": header.epoch.hex(),
        "recipient": header.rcpt.hex(),
        "key_id": header.kid.hex(),
        "camera": seen.camera.hex(),
        "model": seen.model.hex(),
        "clip": seen.number,
        "persons": seen.persons,
        "claimed_by_node": {"time_ns": seen.claimed_ns, "tracks": list(seen.tracks)},
        # Q16 fixed point: 16 fractional bits
        "logits": [value / 65536 for value in seen.logits],
        "probabilities": [value / 65536 for value in seen.probabilities],
    }, indent=2))


if __name__ == "__main__":
    sys.exit(main())
