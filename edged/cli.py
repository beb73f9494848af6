"""``edged``: the processes of a node."""

import argparse
import importlib
import logging
import sys
from typing import Any, List, Optional

from edged import command, config, events
from edged.enclave.host import HostEnclave, Stopped
from edged.errors import EdgedError, EnclaveError
from edged.parent import die_with
from edged.stopping import Stop

log = logging.getLogger(__name__)


def main(arguments: Optional[List[str]] = None) -> int:
    parser = command.parser("edged", __doc__)
    commands = parser.add_subparsers(required=True, dest="command", metavar="COMMAND")

    node = _daemon(commands, "run", "run all of this node, started again where they end")
    node.add_argument("--until-done", action="store_true", help="end once every camera is at the end of its file")
    node.set_defaults(run=run_node)

    enclave = _daemon(commands, "enclave", "run the two trusted applications of the host port",
                      description="Run both applications as Linux processes. This protects nothing: "
                                  "it serves development, tests, and machines without TrustZone.")
    enclave.add_argument("--dir", help="folder for the sockets, made where it is missing; no configuration is read, "
                                       "and no key put")
    enclave.set_defaults(run=run_enclave)

    bridge = _daemon(commands, "bridge", "bring clips to the enclave and records to the spool")
    bridge.set_defaults(run=run_process, module="edged.offload.daemon")

    camera = _daemon(commands, "camera", "watch one camera")
    camera.add_argument("name", metavar="NAME", help="of its table [camera.NAME]")
    camera.set_defaults(run=run_process, module="edged.camera.daemon")

    outbox = _daemon(commands, "outbox", "deliver the spool's records to the subscribers")
    outbox.set_defaults(run=run_process, module="edged.alerts.outbox")
    return command.run(parser, arguments)


def _daemon(commands: Any, name: str, help: str, description: Optional[str] = None) -> argparse.ArgumentParser:
    made = commands.add_parser(name, help=help, description=description or help.capitalize() + ".")
    made.add_argument("--config", metavar="FILE", default=config.DEFAULT_PATH,
                      help="the node's configuration (default {})".format(config.DEFAULT_PATH))
    made.add_argument("--die-with", metavar="PID", type=int, help=argparse.SUPPRESS)
    return made


def _begin(given: argparse.Namespace) -> config.Config:
    """The configuration; logging as it says."""
    if given.die_with is not None:
        die_with(given.die_with)
    loaded = config.load(given.config)
    events.set_up(loaded.node.log)
    return loaded


def _end(error: EdgedError, form: str) -> int:
    """Raise it, to be the one line; where every line is JSON, log it, for the exit code."""
    if form != "json":
        raise error
    events.emit(log, "process_failed", code=error.exit_code, reason=error)
    return error.exit_code


def run_node(given: argparse.Namespace) -> int:
    stop = Stop().on_signals()
    from edged import supervisor
    loaded = _begin(given)
    try:
        supervisor.run(given.config, stop, given.until_done)
    except supervisor.ProcessRefused as error:
        return error.exit_code  # that process has said why
    except EdgedError as error:
        return _end(error, loaded.node.log)
    return 0


def run_process(given: argparse.Namespace) -> int:
    """Until SIGTERM, SIGINT or SIGHUP, or, of a camera, until its file ends."""
    stop = Stop().on_signals()
    loaded = _begin(given)
    try:
        more = [loaded.camera(given.name).name] if given.command == "camera" else []
        with command.needs("node"):
            daemon = importlib.import_module(given.module)
        daemon.run(loaded, *more, stop)
    except EdgedError as error:
        return _end(error, loaded.node.log)
    return 0


def run_enclave(given: argparse.Namespace) -> int:
    """Until SIGTERM or SIGINT (which end it well, whenever they come) or until an application ends (EnclaveError)."""
    if given.dir is None:
        given.module = "edged.enclave.daemon"
        return run_process(given)
    # Handlers only take a note: one that raised could hit between two statements that belong together.
    stop = Stop().on_signals()
    log.warning("the host port protects nothing: its keys, weights and clips are open to root and to this user")
    try:
        with HostEnclave(given.dir, stopped=stop.is_set) as enclave:
            print("ready", flush=True)
            ended = enclave.wait()
    except Stopped:
        return 0
    raise EnclaveError("{}: see its messages above, and start again".format(ended))


if __name__ == "__main__":
    sys.exit(main())
