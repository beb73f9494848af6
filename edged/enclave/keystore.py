"""What lets a device's identity and the keys granted to it outlive a start of its key application.

    identity.sealed     its two RSA keys          key-state.sealed     granted slots, and which grants were taken
    identity.chain      the certificates of the identity (PEM, the device's first), as `edged-city ca enrol` wrote them

The first two are sealed to the device: whoever takes them away has nothing. Each change is answered with a new state,
which is durable here before the key application hears so (KEY_COMMIT); stopped anywhere in between, the next start has
the state before the change or the one after it (trusty_ta/key/state.c), and ``bring_back`` ends what was begun.
An older state is refused: a copy of these files is a backup only until the next change.
"""

import logging
import os
import time
from pathlib import Path
from typing import Callable, Optional, Union

from edged.command import read_file
from edged.enclave import tipc, wire
from edged.enclave.client import KeyClient
from edged.enclave.wire import Status
from edged.errors import EnclaveError, KeyRefused, MissingInput, PackageError
from edged.events import emit
from edged.placing import Owner, Placing, replace_file

log = logging.getLogger(__name__)

IDENTITY_FILE, STATE_FILE, CHAIN_FILE = "identity.sealed", "key-state.sealed", "identity.chain"
WAIT_S = 10.0
_RETRY_S = 0.02


def connect(at: str, stopped: Callable[[], bool] = lambda: False) -> KeyClient:
    """A client that is served. The port takes one at a time, and others (the bridge) come and go.

    stopped : asked while it waits; once it says yes the last EnclaveError is raised
    """
    deadline_s = time.monotonic() + WAIT_S
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
        self.identity, self.state, self.chain = (self.folder / name for name in (IDENTITY_FILE, STATE_FILE, CHAIN_FILE))

    def bring_back(self, client: KeyClient) -> bool:
        """After a start, before anything else is asked of the key application; again it does nothing.

        Whether an identity is open. Raises EnclaveError, PackageError or KeyRefused, with the file's name.
        """
        flags = client.info().flags
        if not flags & wire.KEY_FLAG_IDENTITY:
            sealed = self._read(self.identity, wire.Identity.size())
            if sealed is None:
                return False
            self._hand(client.identity_open, sealed, self.identity)
        if not flags & wire.KEY_FLAG_STATE:
            sealed = self._read(self.state, wire.KeyState.size())
            if sealed is not None:
                self._hand(client.restore, sealed, self.state)
                emit(log, "grants_restored", changes=wire.KeyState.unpack(sealed).counter)
        if flags & wire.KEY_FLAG_PENDING:  # whoever made the change was stopped
            self._keep(client, client.state())
        return True

    def draw(self, client: KeyClient) -> None:
        """A new identity, which no grant knows yet. Raises KeyRefused where there is one."""
        if os.path.lexists(str(self.identity)):
            raise KeyRefused("{}: is there already, and certificate and grants are for it: whoever wants another "
                             "identity moves it aside first".format(self.identity))
        if client.info().flags & wire.KEY_FLAG_IDENTITY:
            raise KeyRefused("{}: is missing, and an identity is open: start the enclave again, which forgets "
                             "it".format(self.identity))
        identity = client.identity_new()
        state = client.state()
        self._replace(state)  # first: without its identity it is nothing, but the identity without it takes no grants
        self._owned(lambda owner: self._place(identity, owner))
        client.commit(state)

    def install(self, client: KeyClient, grant: bytes) -> None:
        """Have a grant taken, and keep it. Raises EnclaveError."""
        self._keep(client, self._changed(lambda: client.grant(grant)))

    def clear(self, client: KeyClient, slot: int) -> None:
        state = self._changed(lambda: client.clear_slot(slot))
        if state:
            self._keep(client, state)

    def _changed(self, change: Callable[[], bytes]) -> bytes:
        try:
            return change()
        except EnclaveError as error:
            if error.status == Status.ORDER and not self.state.exists():
                raise EnclaveError("{}: is missing, and without it the device would take old grants once more: put it "
                                   "back, or draw a new identity (edgectl identity new)".format(self.state),
                                   error.status) from error
            raise

    def _keep(self, client: KeyClient, state: bytes) -> None:
        self._replace(state)
        client.commit(state)

    def _replace(self, state: bytes) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._owned(lambda owner: replace_file(str(self.state), state, owner=owner))

    def _place(self, identity: bytes, owner: Owner) -> None:
        placing = Placing(owner)
        placing.add(self.identity, identity)
        placing.commit()

    def _owned(self, write: Callable[[Owner], None]) -> None:
        found = os.stat(str(self.folder))
        try:
            write(None if os.geteuid() else (found.st_uid, found.st_gid))
        except PermissionError as error:
            raise KeyRefused("{}: {}: run as the user to whom it belongs, or as root".format(
                self.folder, error.strerror)) from error

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
            raise PackageError("{}: has {} bytes, not {}: not what the key application of this release sealed".format(
                path, len(content), size))
        return content

    @staticmethod
    def _hand(give: Callable[[bytes], None], sealed: bytes, path: Path) -> None:
        try:
            give(sealed)
        except EnclaveError as error:
            if error.status != Status.STATE:
                raise
            raise EnclaveError("{}: refused: it is another device's, altered, older than the last one, or of a newer "
                               "release: put the last one back, or move it and {} aside and draw a new identity".format(
                                   path, IDENTITY_FILE), error.status) from error
