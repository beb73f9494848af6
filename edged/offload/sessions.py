"""Which camera has which session, for a bridge that is started again while the enclave lives on.

A file in the run folder: it need not outlive the machine, for the enclave does not. Losing it costs no record, only
that clips which were judged, and whose `done` did not reach the camera, are judged once more.
"""

import logging
import os
from pathlib import Path
from typing import Dict, NamedTuple

import cbor2

log = logging.getLogger(__name__)

FILE = "sessions"
_BYTES_MAX = 1 << 16


class Granted(NamedTuple):
    """agreement : its digest"""

    session: int
    agreement: bytes


class Sessions:
    """The file of one node."""

    def __init__(self, run: Path) -> None:
        self._path = run / FILE

    def of(self, epoch: bytes) -> Dict[str, Granted]:
        """By camera; none where the file is of another epoch, or of no use."""
        try:
            with open(str(self._path), "rb") as file:
                told = cbor2.loads(file.read(_BYTES_MAX))
            if told["epoch"] != epoch:
                return {}
            return {str(name): Granted(int(session), bytes(agreement))
                    for name, (session, agreement) in told["sessions"].items()}
        except FileNotFoundError:
            return {}
        except Exception as error:  # whatever is in there: it is a help, and no more
            log.warning("%s: not read: %s", self._path, error)
            return {}

    def write(self, epoch: bytes, sessions: Dict[str, Granted]) -> None:
        """Whole or not at all."""
        fresh = str(self._path) + ".new"
        try:
            with open(fresh, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
                file.write(cbor2.dumps({"epoch": epoch, "sessions": {
                    name: [granted.session, granted.agreement] for name, granted in sessions.items()}}, canonical=True))
            os.replace(fresh, str(self._path))
        except OSError as error:
            log.warning("%s: not written: %s", self._path, error.strerror)
