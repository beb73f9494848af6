"""When the device's certificate ends, said in time by whoever can read identity.chain.

After it no key server takes the device's evidence: keys that are granted go on, new ones wait, and so does the next
start where no store counts (its keys stay locked). The time is this machine's, which may be wrong.
"""

import hashlib
import logging
import os
import time
from typing import NamedTuple, Optional

from edged.command import read_file
from edged.enclave.keystore import KeyStore
from edged.errors import EdgedError
from edged.events import emit
from edged.trust import chain, validity
from edged.trust.validity import CERTIFICATE_NEAR_DAYS

log = logging.getLogger(__name__)

RENEW = ("after that no evidence of this device passes, and new grants wait: `edged-city ca challenge`, `scripts/enrol "
         "--challenge`, `edged-city ca enrol --again`, `scripts/enrol --chain`")


class Certified(NamedTuple):
    """The device's certificate. digest : SHA-256 in DER      left_s : until its end; below 0: since"""

    path: str
    digest: bytes
    serial: int
    until_s: int
    left_s: float

    @property
    def ended(self) -> bool:
        return self.left_s <= 0

    @property
    def near(self) -> bool:
        """Whether its end is to be told; of one that ended, too."""
        return self.left_s <= CERTIFICATE_NEAR_DAYS * chain.DAY_S

    def __str__(self) -> str:
        return "{}: the device's certificate {}, by this machine's clock; {}".format(
            self.path, validity.ends(self.until_s, self.left_s), RENEW)


def certified(store: KeyStore) -> Optional[Certified]:
    """None where no certificate can be seen. Raises KeyRefused, MissingInput, PackageError."""
    path = str(store.chain)
    if not os.path.lexists(path):
        return None
    leaf = chain.read_pem(read_file(path), path)[0]
    until_s = chain.seconds(leaf, "not_valid_after")
    return Certified(path, hashlib.sha256(chain.der(leaf)).digest(), leaf.serial_number, until_s,
                     until_s - time.time())


class Watch:
    """Tells in the log, at once and then once a day."""

    LOOK_S = 60.0  # the file is small, but who asks does so several times a second

    def __init__(self, store: KeyStore) -> None:
        self._store, self._look_s = store, float("-inf")
        self._unread = ""  # why there is none to look at, as was last logged
        self._reminder = validity.Reminder(CERTIFICATE_NEAR_DAYS)

    def look(self) -> None:
        now_s = time.monotonic()
        if now_s < self._look_s:
            return
        self._look_s = now_s + self.LOOK_S
        try:
            found = certified(self._store)
        except EdgedError as error:
            if str(error) != self._unread:
                self._unread = str(error)
                log.info("no certificate: %s", error)
            return
        self._unread = ""
        if found is not None and self._reminder.due_of({found.digest: found.until_s}, time.time(), now_s):
            emit(log, "certificate_ended" if found.ended else "certificate_ends", until=validity.iso(found.until_s),
                 days=int(found.left_s // chain.DAY_S))
