"""What the four console commands share: errors as one line and an exit code, logging, files, extras."""

import argparse
import errno
import logging
import os
import sys
from contextlib import contextmanager
from typing import Callable, Iterator, List, Optional

from edged import __version__
from edged.errors import EdgedError, EnclaveError, KeyRefused, MissingInput, UsageError

# An OSError that nobody explained: the exit code of the error that is nearest in meaning.
_EXIT_CODES = {
    errno.ENOENT: MissingInput.exit_code,
    errno.ENOTDIR: MissingInput.exit_code,
    errno.EISDIR: MissingInput.exit_code,
    errno.EACCES: KeyRefused.exit_code,
    errno.EPERM: KeyRefused.exit_code,
}
_UNAVAILABLE = EnclaveError.exit_code


def parser(program: str, description: Optional[str]) -> argparse.ArgumentParser:
    """A parser whose subcommands set ``run``: a function of the parsed arguments, which may return an exit code."""
    made = argparse.ArgumentParser(prog=program, description=description)
    made.add_argument("--version", action="version", version="%(prog)s " + __version__)
    made.add_argument("-v", "--verbose", action="store_true", help="log changes of state")
    return made


def at_least(low: int) -> Callable[[str], int]:
    """A type of arguments: whole numbers from ``low`` on."""
    def number(text: str) -> int:
        try:
            found = int(text)
        except ValueError:
            found = low - 1
        if found < low:
            raise argparse.ArgumentTypeError("{!r}: a whole number, at least {}, is needed".format(text, low))
        return found

    return number


def octets(text: str, option: str, size: int) -> bytes:
    """So many bytes in hexadecimal, of an option. Raises UsageError."""
    try:
        found = bytes.fromhex(text)
    except ValueError:
        found = b""
    if len(found) != size:
        raise UsageError("{} {}: {} digits of 0-9, a-f".format(option, text, 2 * size))
    return found


def run(made: argparse.ArgumentParser, arguments: Optional[List[str]]) -> int:
    """Parse and run; the exit code (errors.py, DESIGN section 10)."""
    given = made.parse_args(arguments)
    logging.basicConfig(level=logging.INFO if given.verbose else logging.WARNING,
                        format="%(name)s: %(message)s", stream=sys.stderr)
    try:
        code = given.run(given)
        if sys.stdout is not None:
            sys.stdout.flush()  # here its failure is an error like any other
    except EdgedError as error:
        print("{}: {}".format(made.prog, error), file=sys.stderr)
        return error.exit_code
    except OSError as error:
        _abandon_output()
        if error.errno != errno.EPIPE:  # whoever read our output has left, and knows it
            print("{}: {}".format(made.prog, _explained(error)), file=sys.stderr)
        return _EXIT_CODES.get(error.errno or 0, _UNAVAILABLE)
    except KeyboardInterrupt:
        return 130
    return code or 0


def _explained(error: OSError) -> str:
    what = error.strerror or str(error)
    return what if error.filename is None else "{}: {}".format(error.filename, what)


def _abandon_output() -> None:
    """Where standard output is what failed, spare Python the second try at exit, and its traceback."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


@contextmanager
def needs(extra: str) -> Iterator[None]:
    """Around imports: a module that is not installed is MissingInput, which names the extra that brings it."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] == __package__:
            raise
        raise MissingInput("the Python module {} is not installed: pip install 'edged[{}]'".format(
            error.name, extra)) from error


def read_file(path: str) -> bytes:
    """Raises MissingInput, or KeyRefused where it may not be read."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except PermissionError as error:
        raise KeyRefused("{}: {}: run as a user who may read it".format(path, error.strerror)) from error
    except OSError as error:
        raise MissingInput("{}: {}".format(path, error.strerror)) from error
