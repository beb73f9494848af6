"""What lets a device's identity and the keys granted to it outlive a start of its key application.

    identity.sealed     its two RSA keys          key-state.sealed     granted slots, and which grants were taken
    identity.chain      the certificates of the identity (PEM, the device's first), as `edged-city ca enrol` wrote them

The first two are sealed to the device: whoever takes them away has nothing. Each change is answered with a new state,
which is durable here before the key application hears so (KEY_COMMIT); stopped anywhere in between, the next start has
the state before the change or the one after it (trusty_ta/key/state.c), and ``bring_back`` ends what was begun.
An older state is refused: a copy of it is a backup only until the next change, one of the identity for as long as that
is in use. Where one of the two is missing, that is said by name, and no start goes on without it: whoever has lost it
for good begins with another identity (``set_aside``, then ``draw``).
"""

import logging
import os
import time
from pathlib import Path
from typing import Callable, List, Optional, Tuple, Union

from edged.command import read_file
from edged.enclave import tipc, wire
from edged.enclave.key import KeyClient
from edged.enclave.wire import Status
from edged.errors import EnclaveError, KeyRefused, MissingInput
from edged.events import emit
from edged.placing import Owner, replace_file, sync_folder

log = logging.getLogger(__name__)

# Of granted keys where the platform has no monotonic store, after each of its starts.
LOCKED = ("granted keys are locked since the start: edgectl fetch-grants from both owners' key servers, or edgectl "
          "install-grant with both owners' floors, made by the device's present evidence")
IDENTITY_FILE, STATE_FILE, CHAIN_FILE = "identity.sealed", "key-state.sealed", "identity.chain"
DRAWN_FILE = "identity.drawn"  # an identity whose state is not stored yet: where a drawing was stopped
WAY_BACK = "put the last one back, else `edgectl identity new --again`, and enrol it again"
WAIT_S = 10.0
_RETRY_S = 0.02


def connect(at: str, stopped: Callable[[], bool] = lambda: False,
            wait_s: Optional[float] = None) -> KeyClient:
    """A client that is served. The port takes one at a time, and others (the bridge) come and go.

    stopped : asked while it waits; once it says yes the last EnclaveError is raised, and so after wait_s seconds
    """
    deadline_s = time.monotonic() + (WAIT_S if wait_s is None else wait_s)
    while True:
        client: Optional[KeyClient] = None
        try:
            client = KeyClient(tipc.connect(at, wire.KEY_PORT))
            client.info()
            return client
        except EnclaveError as error:
            if client is not None:
                client.close()
            if error.status is not None or time.monotonic() > deadline_s or stopped():
                raise
        time.sleep(_RETRY_S)


class KeyStore:
    """The files in one folder. What is written belongs to the folder's owner, whoever runs this."""

    def __init__(self, folder: Union[str, Path]) -> None:
        self.folder = Path(folder)
        self.identity, self.state, self.chain, self.drawn = (
            self.folder / name for name in (IDENTITY_FILE, STATE_FILE, CHAIN_FILE, DRAWN_FILE))

    def lost(self) -> Optional[str]:
        """Which of the two sealed files is missing though the other one is there, and the way back; else None."""
        identity, state, drawn = (os.path.lexists(str(path)) for path in (self.identity, self.state, self.drawn))
        if state and not identity and not drawn:
            return "{}: is missing, and {}, which is there, is that identity's alone: {}".format(
                self.identity, self.state.name, WAY_BACK)
        if identity and not state:
            return "{}: is missing, and without it the device would take old grants once more: {}".format(
                self.state, WAY_BACK)
        return None

    def bring_back(self, client: KeyClient) -> bool:
        """After a start, before anything else is asked of the key application; again it does nothing.

        Whether an identity is open. Raises EnclaveError or KeyRefused, with the file's name.
        """
        self._end_drawing()
        flags = client.info().flags
        known, pending = flags & wire.KEY_FLAG_STATE, flags & wire.KEY_FLAG_PENDING
        if not flags & wire.KEY_FLAG_IDENTITY:
            sealed = self._read(self.identity, wire.Identity.size())
            if sealed is None:
                lost = self.lost()
                if lost is not None:
                    raise EnclaveError(lost, Status.ORDER)
                return False
            self._hand(client.identity_open, sealed, self.identity)
        if not known:
            sealed = self._read(self.state, wire.KeyState.size())
            if sealed is not None:
                self._hand(client.restore, sealed, self.state)
                emit(log, "grants_restored", changes=wire.KeyState.unpack(sealed).counter)
                if client.info().flags & wire.KEY_FLAG_LOCKED:
                    emit(log, "grants_locked")
            elif self.identity.exists():  # else it is being drawn, and was never without
                self._keep(client, self._asked(client.state))
        # Whoever made the change was stopped; or the file went while the application ran, which still knows it. Where
        # both are gone, they were moved aside: a state alone would look like a lost identity.
        there = os.path.lexists(str(self.state))
        if (pending or (known and not there)) and (there or os.path.lexists(str(self.identity))):
            self._keep(client, client.state())
        return True

    def draw(self, client: KeyClient) -> None:
        """A new identity, which no grant knows yet. Raises KeyRefused where there is one, or what is left of one."""
        self._end_drawing()
        if os.path.lexists(str(self.identity)):
            raise KeyRefused("{}: is there already, and certificate and grants are for it: --again moves it aside, "
                             "for who wants another".format(self.identity))
        lost = self.lost()
        if lost is not None:
            raise KeyRefused(lost)
        if client.info().flags & wire.KEY_FLAG_IDENTITY:
            raise KeyRefused("{}: is not there, and an identity is open: start the enclave again (a board: boot), "
                             "which forgets it, then `edgectl identity new`".format(self.identity))
        identity = client.identity_new()
        state = client.state()
        self._write(self.drawn, identity)
        self._replace(state)
        self._end_drawing()  # from the state on the next start does it, where this is stopped
        client.commit(state)

    def _end_drawing(self) -> None:
        if os.path.lexists(str(self.drawn)) and os.path.lexists(str(self.state)) and not os.path.lexists(
                str(self.identity)):
            self._owned(lambda owner: os.rename(str(self.drawn), str(self.identity)))
            sync_folder(self.folder)

    def set_aside(self) -> List[Tuple[Path, Path]]:
        """Make room for ``draw``: (what was there, where it lies now). A copy that turns up is worth nothing else.

        Raises KeyRefused, OSError.
        """
        suffix = time.strftime(".%Y-%m-%dT%H%M%SZ", time.gmtime())
        moved = []
        # The state last of the two: stopped in between, a start names it, and the same command goes on.
        for path in (self.drawn, self.identity, self.state, self.chain):
            aside = Path(str(path) + suffix)
            if not os.path.lexists(str(path)):
                continue
            if os.path.lexists(str(aside)):
                raise KeyRefused("{}: is there already: call it again in a second".format(aside))
            try:
                os.rename(str(path), str(aside))
            except PermissionError as error:
                raise self._not_ours(error) from error
            moved.append((path, aside))
        if moved:
            sync_folder(str(self.folder))
        return moved

    def install(self, client: KeyClient, grant: bytes) -> None:
        """Have a grant taken, and keep it. Raises EnclaveError."""
        self._keep(client, self._changed(lambda: client.grant(grant)))

    def floor(self, client: KeyClient, floor: bytes) -> None:
        """Have a floor taken, and keep what it changes. Raises EnclaveError."""
        self._keep(client, self._changed(lambda: client.floor(floor)))

    def clear(self, client: KeyClient, slot: int) -> None:
        state = self._changed(lambda: client.clear_slot(slot))
        if state:
            self._keep(client, state)

    def _changed(self, change: Callable[[], bytes]) -> bytes:
        return change() if self.state.exists() else self._asked(change)

    def _asked(self, ask: Callable[[], bytes]) -> bytes:
        """Where there is no state's file: it is refused by whoever counted one."""
        try:
            return ask()
        except EnclaveError as error:
            lost = self.lost()
            if error.status != Status.ORDER or lost is None:
                raise
            raise EnclaveError(lost, error.status) from error

    def _keep(self, client: KeyClient, state: bytes) -> None:
        self._replace(state)
        client.commit(state)

    def _replace(self, state: bytes) -> None:
        self._write(self.state, state)

    def _write(self, path: Path, content: bytes) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._owned(lambda owner: replace_file(str(path), content, owner=owner))

    def _owned(self, write: Callable[[Owner], None]) -> None:
        found = os.stat(str(self.folder))
        try:
            write(None if os.geteuid() else (found.st_uid, found.st_gid))
        except PermissionError as error:
            raise self._not_ours(error) from error

    def _not_ours(self, error: OSError) -> KeyRefused:
        return KeyRefused("{}: {}: run as the user to whom it belongs, or as root".format(self.folder, error.strerror))

    @staticmethod
    def _read(path: Path, size: int) -> Optional[bytes]:
        """None where there is no such file."""
        try:
            content = read_file(str(path))
        except MissingInput:
            if os.path.lexists(str(path)):
                raise
            return None
        if len(content) != size:
            raise EnclaveError("{}: refused: it has {} bytes, not {}, which the key application of this release seals: "
                               "{}".format(path, len(content), size, WAY_BACK), Status.STATE)
        return content

    @staticmethod
    def _hand(give: Callable[[bytes], None], sealed: bytes, path: Path) -> None:
        try:
            give(sealed)
        except EnclaveError as error:
            if error.status != Status.STATE:
                raise
            raise EnclaveError("{}: refused: it is another device's, altered, older than the last one, or of a newer "
                               "release: {}".format(path, WAY_BACK), error.status) from error
