"""``edged``: the processes of a node."""

import argparse
import logging
import signal
import sys
from typing import List, Optional

from edged import command
from edged.enclave.host import HostEnclave, Stopped
from edged.errors import EnclaveError

log = logging.getLogger(__name__)


def main(arguments: Optional[List[str]] = None) -> int:
    parser = command.parser("edged", __doc__)
    commands = parser.add_subparsers(required=True, dest="command", metavar="COMMAND")
    enclave = commands.add_parser("enclave", help="run the two trusted applications of the host port",
                                  description="Run both applications as Linux processes. This protects nothing: "
                                              "it serves development, tests, and machines without TrustZone.")
    enclave.add_argument("--dir", required=True, help="folder for the sockets; made where it is missing")
    enclave.set_defaults(run=run_enclave)
    return command.run(parser, arguments)


def run_enclave(given: argparse.Namespace) -> None:
    """Until SIGTERM or SIGINT (which end it well, whenever they come) or until an application ends (EnclaveError)."""
    # Handlers only take a note: one that raised could hit between two statements that belong together.
    asked: List[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda which, _: asked.append(which))
    log.warning("the host port protects nothing: its keys, weights and clips are open to root and to this user")
    try:
        with HostEnclave(given.dir, stopped=lambda: bool(asked)) as enclave:
            print("ready", flush=True)
            ended = enclave.wait()
    except Stopped:
        return
    raise EnclaveError("{}: see its messages above, and start again".format(ended))


if __name__ == "__main__":
    sys.exit(main())
