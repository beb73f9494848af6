"""Who gets a clip's `done`, and when: only once all its records are in the spool.

Stored is whatever the enclave emits, at once where the spool works. Where it does not (a full disk), the records stay
in the enclave, nothing is confirmed and nothing is `done`; it is tried again with growing delays, until the enclave
takes no more clips, and beyond.
"""

import logging
from collections import deque
from typing import Callable, Deque, NamedTuple, Optional

from edged.enclave.client import Emitted
from edged.enclave.records import Keeper
from edged.errors import SpoolError
from edged.events import emit
from edged.offload.backoff import Backoff
from edged.offload.cameras import Camera

log = logging.getLogger(__name__)


class _Owed(NamedTuple):
    emission: int
    camera: Camera
    opened: int  # a later session of the camera has other clips under the same numbers
    number: int
    failed: bool


class Ledger:
    """say_done : tells a camera that this clip is over, and whether it failed
    keeper    : of the present connection, None while there is none
    records   : stored since the process started      failing : the spool does not take any at present
    """

    def __init__(self, say_done: Callable[[Camera, int, bool], None]) -> None:
        self.keeper: Optional[Keeper] = None
        self.records = 0
        self.failing = False
        self._say_done = say_done
        self._retry = Backoff()
        self._owed: Deque[_Owed] = deque()

    @property
    def due(self) -> bool:
        """The spool failed, and may be tried again now."""
        return self.failing and self._retry.due

    def has_stored(self, emission: int) -> bool:
        """Whether all records up to this one are in the spool."""
        return self.keeper is not None and emission <= self.keeper.stored

    def owe(self, camera: Camera, number: int, failed: bool, emission: int) -> None:
        """`done` of this clip, once all records up to this one are stored."""
        camera.unpaid.add(number)
        self._owed.append(_Owed(emission, camera, camera.opened, number, failed))
        self._pay()

    def keep(self, emitted: Emitted) -> None:
        """Store and confirm, or later if the spool does not work. Raises EnclaveError."""
        if self.keeper is None or (self.failing and not self._retry.due):
            return
        keeper = self.keeper
        self._stored(lambda: keeper.take(emitted.records, emitted.emission))

    def settle(self) -> None:
        """Store and confirm everything that the enclave keeps, if the spool works. Raises EnclaveError."""
        if self.keeper is not None:
            self._stored(self.keeper.settle)

    def connected(self, keeper: Keeper, stored: int, same_epoch: bool) -> None:
        """A connection; so many records of it went to the spool already. same_epoch : the enclave is that of before."""
        self.keeper = keeper
        self.records += stored
        self._works()
        if not same_epoch:
            self._owed.clear()  # what was stored is paid; the rest ended with the enclave that kept it
        self._pay()

    def disconnected(self) -> None:
        self.keeper = None

    def spool_failed(self, error: SpoolError) -> None:
        self._retry.failed()
        if not self.failing:
            self.failing = True
            emit(log, "spool_failing", reason=str(error))

    def _stored(self, store: Callable[[], int]) -> None:
        try:
            self.records += store()
            self._works()
        except SpoolError as error:
            self.spool_failed(error)
        finally:
            self._pay()

    def _works(self) -> None:
        self._retry.succeeded()
        if self.failing:
            self.failing = False
            emit(log, "spool_back")

    def _pay(self) -> None:
        while self._owed and self.keeper is not None and self._owed[0].emission <= self.keeper.stored:
            owed = self._owed.popleft()
            if owed.opened == owed.camera.opened:
                self._say_done(owed.camera, owed.number, owed.failed)
