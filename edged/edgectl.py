"""``edgectl``: the operator's tool."""

import argparse
import json
import os
import stat
import sys
from contextlib import ExitStack, closing
from typing import List, Optional, TextIO

from edged import command
from edged.enclave import tipc, wire
from edged.errors import MissingInput, UsageError

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

    asked = commands.add_parser("status", help="ask a running enclave who it is and what it holds")
    asked.add_argument("--at", metavar="PLACE", default=tipc.DEVICE,
                       help="folder of `edged enclave --dir`, or the Trusty device (default {})".format(tipc.DEVICE))
    asked.set_defaults(run=run_status)
    return command.run(parser, arguments)


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


def run_status(given: argparse.Namespace) -> None:
    with command.needs("node"):
        from edged.enclave.client import EvalClient, KeyClient
    with closing(KeyClient(tipc.connect(given.at, wire.KEY_PORT))) as key, \
            closing(EvalClient(tipc.connect(given.at, wire.EVAL_PORT))) as evaluation:
        info, stats, slots, key_memory = evaluation.info(), evaluation.stats(), key.info(), key.stats()
    print(json.dumps({
        "emulated": bool(info.flags & wire.EVAL_FLAG_EMULATED),
        "shared_memory": bool(info.flags & wire.EVAL_FLAG_WINDOW),
        "node": slots.node.hex(),
        "epoch": info.epoch.hex(),
        "key_slots": [wire.KeyKind(kind).name.lower() for kind in slots.kinds],
        "clips": stats.clips,
        "records": stats.records,
        "products_checked": stats.products_checked,
        "rejections": stats.rejections,
        "peak_bytes": {"eval": stats.memory.peak_bytes, "key": key_memory.peak_bytes},
        "heap_bytes": {"limit": stats.memory.heap_limit, "peak": stats.memory.heap_peak},
    }, indent=2))


if __name__ == "__main__":
    sys.exit(main())
