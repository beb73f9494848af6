"""What the four console commands share: errors as one line and an exit code, logging, files."""

import argparse
import logging
import sys
from typing import List, Optional

from edged import __version__
from edged.errors import EdgedError, MissingInput


def parser(program: str, description: Optional[str]) -> argparse.ArgumentParser:
    """A parser whose subcommands set ``run``, a function of the parsed arguments."""
    made = argparse.ArgumentParser(prog=program, description=description)
    made.add_argument("--version", action="version", version="%(prog)s " + __version__)
    made.add_argument("-v", "--verbose", action="store_true", help="log changes of state")
    return made


def run(made: argparse.ArgumentParser, arguments: Optional[List[str]]) -> int:
    """Parse and run; the exit code (errors.py, DESIGN section 10)."""
    given = made.parse_args(arguments)
    logging.basicConfig(level=logging.INFO if given.verbose else logging.WARNING,
                        format="%(name)s: %(message)s", stream=sys.stderr)
    try:
        given.run(given)
    except EdgedError as error:
        print("{}: {}".format(made.prog, error), file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


def read_file(path: str) -> bytes:
    """Raises MissingInput."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise MissingInput("{}: {}".format(path, error.strerror)) from error
