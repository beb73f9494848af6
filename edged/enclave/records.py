"""Sealed records on their way out of the enclave: fetched, stored durably, and only then confirmed.

The enclave keeps each record byte-identical until it is confirmed, so whatever dies in between, the same records come
out again; the spool knows them by their numbers and stores none twice. What confirming answers, the sealed state, goes
to the spool, too: with it the next epoch can say what came before.
"""

from typing import List, Optional, Sequence

from edged.alerts.spool import Spool
from edged.enclave.client import EvalClient
from edged.errors import EnclaveError


class Keeper:
    """Of one connection to the enclave. Begin with ``settle``.

    stored : emission up to which every record is in the spool
    """

    def __init__(self, client: EvalClient, spool: Spool) -> None:
        self._client = client
        self._spool = spool
        self._state: Optional[bytes] = None  # confirmed with, but not in the spool yet
        self._confirmed = 0
        self.stored = 0

    def take(self, records: Sequence[bytes], emission: int) -> int:
        """Store what a command emitted, and all that was left before it; how many were new to the spool.

        emission : that of the last record sealed so far. Raises SpoolError (nothing is lost: ``settle`` later),
        EnclaveError.
        """
        if emission - self._confirmed != len(records):
            return self.settle()
        return self._store(records, emission)

    def settle(self) -> int:
        """Likewise for everything that the enclave keeps."""
        records: List[bytes] = []
        last, record = self._client.record_from(self._confirmed + 1)
        while record is not None:
            records.append(record)
            emission = last
            last, record = self._client.record_from(emission + 1)
            if last < emission:
                raise EnclaveError("the enclave counts {} records after {}: install matching releases".format(
                    last, emission))
        return self._store(records, last)

    def save_state(self) -> None:
        """Store the sealed state as it is now: whoever confirmed last may have died before doing so.

        Not before the epoch's first records are stored: till then the state of the epoch before is the one to keep.
        """
        self._state = self._client.confirm(self._confirmed)
        self._save_state()

    def end_epoch(self) -> None:
        """Have the epoch end cleanly. Raises EnclaveError (ORDER) while something is unfinished or kept; SpoolError."""
        self._state = self._client.close_epoch()
        self._save_state()

    def _store(self, records: Sequence[bytes], emission: int) -> int:
        new = self._spool.put(records) if records else 0
        self.stored = emission
        if records:
            self._state = self._client.confirm(emission)
        self._confirmed = emission
        self._save_state()
        return new

    def _save_state(self) -> None:
        if self._state is not None:
            self._spool.set_state(self._state)
            self._state = None
