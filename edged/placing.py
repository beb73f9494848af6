"""Several new files at once, all or none, and never over one that is there; or one over what is there, at once."""

import os
from typing import List, Optional, Tuple, Union

from edged.errors import KeyRefused

SECRET = 0o600
SHARED = 0o640

Path = Union[str, "os.PathLike[str]"]
Owner = Optional[Tuple[int, int]]


class Placing:
    """``add`` files, then ``commit``. Until then nothing is written. owner : (user, group), where root writes for it"""

    def __init__(self, owner: Owner = None) -> None:
        self._files: List[Tuple[str, bytes, int]] = []
        self._owner = owner

    def add(self, path: Path, content: bytes, mode: int = SECRET) -> None:
        self._files.append((os.path.abspath(os.fspath(path)), content, mode))

    def commit(self) -> List[str]:
        """Write them, and folders that are missing (mode 0700); the paths that are new.

        One that is there with the same content stays as it is. Raises KeyRefused where the content is another one,
        or whatever is there is no file; OSError where writing fails. Either way nothing was changed.
        """
        todo = [entry for entry in self._files if not _is_there(entry[0], entry[1])]
        folders: List[str] = []
        written: List[str] = []
        placed: List[str] = []
        try:
            for path, content, mode in todo:
                folders += _make_folders(os.path.dirname(path))
                temporary = os.path.join(os.path.dirname(path), ".{}.new-{}".format(
                    os.path.basename(path), os.getpid()))
                _write(temporary, content, mode, written, self._owner)
            for (path, _, _), temporary in zip(todo, list(written)):
                os.link(temporary, path)  # unlike a renaming it replaces nothing
                placed.append(path)
            for folder in {os.path.dirname(path) for path in placed}:
                _sync(folder)
        except BaseException:
            for path in placed + written:
                os.unlink(path)
            for folder in reversed(folders):
                os.rmdir(folder)
            raise
        for path in written:
            os.unlink(path)
        return placed


def replace_file(path: Path, content: bytes, mode: int = SECRET, owner: Owner = None) -> None:
    """At any moment the old or the new one is whole. Raises OSError; then nothing was changed."""
    target = os.path.abspath(os.fspath(path))
    part = "{}.new-{}".format(target, os.getpid())
    written: List[str] = []
    try:
        _write(part, content, mode, written, owner)
        os.replace(part, target)
    except BaseException:
        for left in written:
            os.unlink(left)
        raise
    _sync(os.path.dirname(target))


def _is_there(path: str, content: bytes) -> bool:
    if not os.path.lexists(path):
        return False
    if os.path.isfile(path) and not os.path.islink(path):
        with open(path, "rb") as file:
            if file.read(len(content) + 1) == content:
                return True
    raise KeyRefused("{}: is there already, with other content: move it aside first".format(path))


def _make_folders(folder: str) -> List[str]:
    missing: List[str] = []
    while not os.path.isdir(folder):
        missing.append(folder)
        folder = os.path.dirname(folder)
    missing.reverse()
    made: List[str] = []
    try:
        for folder in missing:
            os.mkdir(folder, 0o700)
            made.append(folder)
    except BaseException:
        for folder in reversed(made):
            os.rmdir(folder)
        raise
    return made


def _write(path: str, content: bytes, mode: int, written: List[str], owner: Owner) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    written.append(path)
    with os.fdopen(handle, "wb") as file:
        os.fchmod(file.fileno(), mode)  # whatever the umask
        if owner is not None:
            os.fchown(file.fileno(), *owner)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: str) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
