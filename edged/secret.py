"""Secrets come from files that nobody else may read, never from a command line or the environment."""

import os
import stat
from typing import Collection, Optional

from edged.errors import KeyRefused, MissingInput


def read_secret(path: str, sizes: Collection[int], owners: Optional[Collection[int]] = None) -> bytes:
    """The raw bytes of a key file. owners : user numbers; root and this user where nobody says.

    Raises MissingInput, or KeyRefused where we may not read the file or others may, another user owns it, or the
    key has none of ``sizes``.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except PermissionError as error:
        raise KeyRefused("{}: {}: run as the user to whom it belongs".format(path, error.strerror)) from error
    except OSError as error:
        raise MissingInput("{}: {}".format(path, error.strerror)) from error
    try:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            raise KeyRefused("{}: not a regular file".format(path))
        if found.st_uid not in ((0, os.geteuid()) if owners is None else owners):
            raise KeyRefused("{}: belongs to user {}, not to you or root".format(path, found.st_uid))
        if found.st_mode & 0o077:
            raise KeyRefused("{}: mode {:04o} lets others at it: chmod 600 {}".format(
                path, stat.S_IMODE(found.st_mode), path))
        key = os.read(handle, max(sizes) + 1)
    finally:
        os.close(handle)
    if len(key) not in sizes:
        wanted = " or ".join(map(str, sorted(sizes))) if len(sizes) < 5 else "{} to {}".format(min(sizes), max(sizes))
        raise KeyRefused("{}: not a key of {} raw bytes".format(path, wanted))
    return key
