"""``edged``: the processes of a node."""

import argparse
import logging
import signal
import sys
from typing import Any, List, Optional

from edged import command
from edged.enclave.host import HostEnclave
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
    """Until SIGTERM or SIGINT (which end it well) or until an application ends (which raises EnclaveError)."""
    signal.signal(signal.SIGTERM, _stop)
    log.warning("the host port protects nothing: its keys, weights and clips are open to root and to this user")
    with HostEnclave(given.dir) as enclave:
        print("ready", flush=True)
        try:
            ended = enclave.wait()
        except KeyboardInterrupt:
            return
        raise EnclaveError("{}: see its messages above, and start again".format(ended))


def _stop(*_: Any) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
