"""Read an .npz of plain arrays: a damaged or hostile one is one error; no pickle, and nothing over a stated size."""

import zipfile
from typing import BinaryIO, Dict

import numpy as np

from edged.errors import PackageError


def read(file: BinaryIO, what: str, size_max: int) -> Dict[str, np.ndarray]:
    """Its arrays by name; ``size_max`` in bytes, of all of them unpacked. Raises PackageError: ``what``, and why."""
    try:
        with zipfile.ZipFile(file) as archive:
            size = sum(part.file_size for part in archive.infolist())
        if size <= size_max:
            file.seek(0)
            with np.load(file, allow_pickle=False) as found:
                return {name: found[name] for name in found.files}
    except Exception as error:  # numpy and zipfile raise a dozen kinds of error for a damaged file
        raise PackageError("{}: no .npz of plain arrays, or damaged".format(what)) from error
    raise PackageError("{}: takes {} MiB unpacked, at most {} are read".format(what, size >> 20, size_max >> 20))
