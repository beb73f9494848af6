"""Where the compiled parts lie: the two host applications and the C accelerator."""

import os
from pathlib import Path

from edged.errors import MissingInput

# Set by whoever built elsewhere (sanitizer builds, packages).
BUILD_VARIABLE = "EDGED_BUILD"
INSTALLED = Path("/usr/lib/edged")
CHECKOUT = Path(__file__).resolve().parent.parent / "build" / "host"


def build_folder() -> Path:
    """$EDGED_BUILD, or this checkout's build/host, or /usr/lib/edged."""
    named = os.environ.get(BUILD_VARIABLE)
    if named:
        return Path(named)
    return CHECKOUT if CHECKOUT.is_dir() else INSTALLED


def find(name: str) -> Path:
    """The path of one compiled part. Raises MissingInput, naming the fix."""
    path = build_folder() / name
    if not path.is_file():
        # pip installs the Python half alone: the C half comes from a checkout or a package.
        raise MissingInput("{}: not built: run `make -C trusty_ta` in a checkout of edged, and where that is not the "
                           "installed one set {} to its build/host".format(path, BUILD_VARIABLE))
    return path
