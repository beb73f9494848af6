"""Reference values of a build, not yet signed: `scripts/build-ta` runs this.

emulated : the applications measure their own image, so its SHA-256 is what they will say
hardware : the build has its measurement compiled in (port/trusty/rules-common.mk), and tells it
"""

import argparse
import hashlib
import sys
import time
from typing import Dict, List, Optional

from edged import command
from edged.enclave import wire
from edged.errors import UsageError
from edged.placing import SHARED, Placing
from edged.trust.chain import EMULATED, HARDWARE
from edged.trust.reference import APPLICATIONS, References, Version, read


def main(arguments: Optional[List[str]] = None) -> int:
    parser = command.parser("build-ta", __doc__)
    parser.add_argument("out", metavar="FILE")
    for name in APPLICATIONS:
        parser.add_argument("--{}".format(name), required=True, metavar="IMAGE|HEX",
                            help="the image; with --hardware its measurement")
    parser.add_argument("--hardware", action="store_true")
    parser.add_argument("--floor", type=command.at_least(0), metavar="N",
                        help="least security version that is taken (default: this build's)")
    parser.set_defaults(run=run)
    return command.run(parser, arguments)


def run(given: argparse.Namespace) -> None:
    version = wire.EDGED_SECURITY_VERSION
    floor = version if given.floor is None else given.floor
    if floor > version:
        raise UsageError("--floor {}: this build has security version {}".format(floor, version))
    measured: Dict[str, bytes] = {}
    for name in APPLICATIONS:
        value = getattr(given, name)
        measured[name] = (command.octets(value, "--" + name, 32) if given.hardware
                          else hashlib.sha256(command.read_file(value)).digest())
    made = References(
        HARDWARE if given.hardware else EMULATED, int(time.time()),
        {name: frozenset([Version(measurement, version)]) for name, measurement in measured.items()},
        {name: floor for name in APPLICATIONS})
    placing = Placing()
    placing.add(given.out, read(made.encode()).encode(), SHARED)
    placing.commit()
    for name, measurement in measured.items():
        print("{} {} version {}".format(measurement.hex(), name, version))


if __name__ == "__main__":
    sys.exit(main())
