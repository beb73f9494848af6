"""Which agreements of this node are over, because another followed: a file of their digests in the state folder.

The enclave knows it until its epoch ends. From then on it would take the old one again, and the city would be told of
an agreement that it heard the last of; so the bridge puts none of these.
"""

import logging
from pathlib import Path
from typing import List

import cbor2

from edged.placing import replace_file

log = logging.getLogger(__name__)

FILE = "followed"
_REMEMBERED = 64  # of each the file is replaced soon after


class Followed:
    """The file of one node. Of no use, it counts as empty: then the last word under an agreement is said once more."""

    def __init__(self, state: Path) -> None:
        self._path = state / FILE
        self._digests: List[bytes] = []
        try:
            read = cbor2.loads(self._path.read_bytes())
            if not isinstance(read, list) or not all(isinstance(one, bytes) and len(one) == 32 for one in read):
                raise ValueError("not a list of digests")
            self._digests = read
        except FileNotFoundError:
            pass
        except Exception as error:  # cbor2's own errors differ between its releases
            log.warning("%s: not read: %s", self._path, error)

    def __contains__(self, digest: bytes) -> bool:
        return digest in self._digests

    def add(self, digest: bytes) -> None:
        if digest in self._digests:
            return
        self._digests = (self._digests + [digest])[-_REMEMBERED:]
        try:
            replace_file(self._path, cbor2.dumps(self._digests, canonical=True))
        except OSError as error:  # it holds until this process ends
            log.warning("%s: not written: %s", self._path, error.strerror)
