"""Several new files at once, all or none, and never over one that is there; or one over what is there, at once; or a
folder that is there whole or not at all, whenever whoever makes it is killed."""

import os
import shutil
import stat
import tempfile
from contextlib import contextmanager
from typing import Iterable, Iterator, List, Optional, Tuple, Union

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
                temporary = os.path.join(os.path.dirname(path), "." + _fresh(os.path.basename(path)))
                _write(temporary, content, mode, written, self._owner)
            for (path, _, _), temporary in zip(todo, list(written)):
                os.link(temporary, path)  # unlike a renaming it replaces nothing
                placed.append(path)
            for folder in {os.path.dirname(path) for path in placed}:
                sync_folder(folder)
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
    part = _fresh(target)
    written: List[str] = []
    try:
        _write(part, content, mode, written, owner)
        os.replace(part, target)
    except BaseException:
        for left in written:
            os.unlink(left)
        raise
    sync_folder(os.path.dirname(target))


def undo(placed: Iterable[str], path: Path, content: bytes) -> None:
    """Take away what was placed for a file that was to be replaced by this content; not where it was, after all."""
    with open(os.fspath(path), "rb") as file:
        replaced = file.read() == content
    for one in () if replaced else placed:
        os.unlink(one)


def replace_like(path: Path, content: bytes, like: Path) -> None:
    """Likewise; mode, and where root writes it the owner, as of the file ``like``."""
    found = os.stat(like)
    owner = (found.st_uid, found.st_gid) if os.geteuid() == 0 else None
    replace_file(path, content, stat.S_IMODE(found.st_mode), owner)


@contextmanager
def new_folder(path: Path) -> Iterator[str]:
    """Yields a folder beside ``path``, which becomes it as the block ends well: what is there until then is nothing, or
    an empty folder. Raises OSError (ENOTEMPTY where it is not empty); then nothing was changed.

    Who is killed leaves a hidden folder ``.NAME.new-...``, which nobody misses.
    """
    target = os.path.realpath(os.fspath(path))
    folders = _make_folders(os.path.dirname(target))
    part = None
    try:
        part = tempfile.mkdtemp(prefix=".{}.new-".format(os.path.basename(target)), dir=os.path.dirname(target))
        yield part
        if os.path.isdir(target):
            os.chmod(part, stat.S_IMODE(os.stat(target).st_mode))
        sync_folder(part)
        os.rename(part, target)  # replaces nothing but an empty folder
    except BaseException:
        if part is not None:
            shutil.rmtree(part)
        for folder in reversed(folders):
            os.rmdir(folder)
        raise
    sync_folder(os.path.dirname(target))


def _fresh(path: str) -> str:
    """Beside it, of a name that nobody left: the number of a process that was killed comes again."""
    return "{}.new-{}".format(path, os.urandom(8).hex())


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


def sync_folder(folder: Path) -> None:
    """What was renamed in it is so after a loss of power, too."""
    handle = os.open(os.fspath(folder), os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
