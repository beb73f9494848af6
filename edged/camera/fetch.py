"""``scripts/fetch-models``: the pose networks of edged.camera.zoo from their publishers, each file by its pinned hash.

A file is there under its name only when all of it is, and is the pinned one; what is there already is left alone.
"""

import argparse
import hashlib
import http.client
import os
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import List, Optional

from edged import command
from edged.camera import zoo
from edged.errors import MissingInput, UsageError, VerificationFailed

TIMEOUT_S = 30.0  # without a byte
WHOLE_S = 1800.0   # for one file
TRIES = 3
_CHUNK = 1 << 16


def published() -> List[str]:
    return [name for name, model in zoo.MODELS.items() if model.published is not None]


def fetch(name: str, folder: Path, base: Optional[str] = None, timeout_s: float = TIMEOUT_S) -> List[Path]:
    """The files of a model into ``folder``; which of them were not there.

    base : an address in place of the publisher's, of a mirror
    Raises UsageError for a model that nobody publishes, MissingInput where a file cannot be had or kept, and
    VerificationFailed where it is another one than was pinned.
    """
    model = zoo.model(name)
    if model.published is None:
        raise UsageError("{}: nobody publishes this file; these can be fetched: {}".format(
            name, ", ".join(published())))
    address, sizes = model.published
    made = []
    for (file, sha256), size in zip(model.files, sizes):
        path = folder / file
        if _is(path, sha256):
            continue
        _keep(_loaded((base or address).rstrip("/") + "/" + file, size, sha256, timeout_s), path)
        made.append(path)
    return made


def _is(path: Path, sha256: str) -> bool:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest() == sha256
    except FileNotFoundError:
        return False
    except OSError as error:
        raise MissingInput("{}: {}".format(path, error.strerror)) from error


def _loaded(address: str, size: int, sha256: str, timeout_s: float) -> bytes:
    for left in reversed(range(TRIES)):
        try:
            content = _once(address, size, timeout_s)
            break
        except (OSError, http.client.HTTPException, ValueError) as error:
            # What the server says of itself is final, unless it is that it is busy.
            final = isinstance(error, ValueError) or isinstance(error, urllib.error.HTTPError) and error.code < 500
            if final or not left:
                reason = getattr(error, "reason", None) or error
                raise MissingInput("{}: cannot be fetched: {}: where there is no internet, name a mirror by --from, or "
                                   "carry the file there".format(address, reason)) from error
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise VerificationFailed("{}: {} bytes of SHA-256 {}, not the {} bytes of {} that were pinned; nothing was "
                                 "kept".format(address, len(content), found, size, sha256))
    return content


def _once(address: str, size: int, timeout_s: float) -> bytes:
    """Not more than one byte over ``size``."""
    if not address.startswith(("http://", "https://")):
        raise ValueError("not an address of http or https")
    deadline_s = time.monotonic() + WHOLE_S
    with urllib.request.urlopen(address, timeout=timeout_s) as answer:
        content = bytearray()
        while len(content) <= size:
            if time.monotonic() > deadline_s:
                raise TimeoutError("not whole within {:g} s".format(WHOLE_S))
            chunk = answer.read1(min(_CHUNK, size + 1 - len(content)))  # what there is: one that drips is noticed
            if not chunk:
                break
            content += chunk
        stated = answer.headers.get("Content-Length", "")
    if stated.isdigit() and len(content) < min(int(stated), size):
        raise http.client.IncompleteRead(bytes(content), int(stated) - len(content))
    return bytes(content)


def _keep(content: bytes, path: Path) -> None:
    part = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=str(path.parent), prefix=path.name + ".", delete=False) as file:
            part = file.name  # nobody else's, who fetches the same at the same time
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            os.fchmod(file.fileno(), 0o644)
        os.replace(part, str(path))
    except OSError as error:
        if part is not None:
            os.unlink(part)
        raise MissingInput("{}: cannot be kept: {}".format(path, error.strerror)) from error


def run(given: argparse.Namespace) -> None:
    for name in given.names or published():
        made = fetch(name, given.to, given.base)
        print("{}: {}".format(name, "is there" if not made else ", ".join(str(path) for path in made)), file=sys.stderr)
    print("use it: EDGED_MODELS={} and --pose {}, or `models` and `pose` of a camera".format(
        given.to, (given.names or published())[0]), file=sys.stderr)


def main(arguments: Optional[List[str]] = None) -> int:
    parser = command.parser("fetch-models", __doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="default: all: {}".format(", ".join(published())))
    parser.add_argument("--to", type=Path, default=Path(os.environ.get(zoo.ENVIRONMENT) or "models"),
                        metavar="FOLDER", help="default: $EDGED_MODELS, or ./models")
    parser.add_argument("--from", dest="base", metavar="URL", help="a mirror: what lies in the publisher's folder")
    parser.set_defaults(run=run)
    return command.run(parser, arguments)


if __name__ == "__main__":
    sys.exit(main())
