"""``edged-owner``: the model owner's tools."""

import argparse
import json
import sys
from typing import List, Optional

from edged import command
from edged.enclave.wire import Placement


def main(arguments: Optional[List[str]] = None) -> int:
    parser = command.parser("edged-owner", __doc__)
    commands = parser.add_subparsers(required=True, dest="command", metavar="COMMAND")
    inspected = commands.add_parser("inspect", help="print what a package says of itself, as JSON",
                                    description="Print a package's manifest. Neither its signature nor its sealed "
                                                "tensors are verified: the enclave does that at load.")
    inspected.add_argument("file", metavar="FILE", help="the package")
    inspected.set_defaults(run=run_inspect)
    return command.run(parser, arguments)


def run_inspect(given: argparse.Namespace) -> None:
    with command.needs("owner"):
        from edged.model import package
        from edged.model.layers import Kind
    manifest = package.inspect(command.read_file(given.file))
    print(json.dumps({
        "model_id": manifest.model_id,
        "version": manifest.version,
        "form": manifest.form,
        "skeleton": manifest.skeleton,
        "persons": manifest.shape.persons,
        "frames": manifest.shape.frames,
        "joints": manifest.shape.joints,
        "partitions": manifest.shape.partitions,
        "placements": [where.name.lower() for where in Placement if manifest.placements >> where & 1],
        "key_id": manifest.key_id.hex(),
        "chunks": manifest.chunks,
        "layers": [dict(row._asdict(), kind=Kind(row.kind).name.lower()) for row in manifest.table],
        "labels": list(manifest.labels),
    }, indent=2))


if __name__ == "__main__":
    sys.exit(main())
