"""Typed client of the key application: one method per message of the wire. keystore.py keeps what it seals.

The key *server*, which a party runs elsewhere, has its client in edged/trust/keyclient.py.
"""

from typing import Tuple

from edged.enclave import tipc, wire
from edged.enclave.connection import Connection
from edged.enclave.wire import KeyCommand
from edged.errors import EnclaveError


class KeyClient:
    """The key application's normal-world port."""

    def __init__(self, channel: tipc.Channel) -> None:
        self.connection = Connection(channel)

    def info(self) -> wire.KeyInfo:
        return wire.KeyInfo.unpack(self.connection.request(KeyCommand.INFO))

    def slots(self) -> Tuple[wire.Listed, ...]:
        """What each of the wire.KEY_SLOTS slots holds; never a key."""
        size, answer = wire.Listed.size(), self.connection.request(KeyCommand.LIST)
        if len(answer) != wire.KEY_SLOTS * size:
            raise EnclaveError("{} bytes for {} slots: client and enclave are of different versions".format(
                len(answer), wire.KEY_SLOTS))
        return tuple(wire.Listed.unpack(answer[at:at + size]) for at in range(0, len(answer), size))

    def stats(self) -> wire.Memory:
        return wire.Memory.unpack(self.connection.request(KeyCommand.STATS))

    def put_slot(self, slot: int, kind: wire.KeyKind, key: bytes, key_id: bytes, verifier: bytes) -> None:
        """Put a key in clear: an emulated key application alone takes it.

        key : 32 bytes, of data or an alert also 16      key_id : 16 bytes      verifier : its owner's Ed25519 key
        """
        self.connection.request(KeyCommand.SLOT_PUT, wire.SlotPut(
            slot, kind, len(key), key_id, key.ljust(32, b"\0"), verifier).pack())

    def clear_slot(self, slot: int) -> bytes:
        """The sealed state where a grant had filled it: store it, then ``commit``; else nothing."""
        return self.connection.request(KeyCommand.SLOT_CLEAR, wire.Index(slot).pack())

    # The device's identity. One is open from these two on until the key application ends (wire.KEY_FLAG_IDENTITY
    # of ``info``); then either is refused with ORDER, and without one so are ``request`` and ``attest``.

    def identity_new(self) -> bytes:
        """Draw the device's keys. What to store, and to hand to ``identity_open`` after every start."""
        return self.connection.request(KeyCommand.IDENTITY_NEW)

    def identity_open(self, sealed: bytes) -> None:
        """Give back what ``identity_new`` answered. STATE: another device's, altered, or of a newer application."""
        self.connection.request(KeyCommand.IDENTITY_OPEN, sealed)

    def request(self, challenge: bytes) -> bytes:
        """A certificate request (COSE_Mac0). challenge : 32 bytes of the authority that is asked

        UNAVAILABLE where the flash station left no secret in this device.
        """
        return self.connection.request(KeyCommand.REQUEST, wire.Challenge(challenge).pack())

    def attest(self, nonce: bytes) -> bytes:
        """Evidence (COSE_Sign1) without its certificates. nonce : the verifier's, of 16 to 64 bytes"""
        return self.connection.request(KeyCommand.ATTEST, nonce)

    # Grants. What ``grant`` and ``state`` answer is to be stored durably, and then committed.

    def grant(self, grant: bytes) -> bytes:
        """Fill the slot that the grant names; the sealed state.

        ORDER: no identity, its state not restored, the last change not committed. KEY: the slot is another party's.
        """
        return self.connection.request(KeyCommand.GRANT, grant)

    def floor(self, floor: bytes) -> bytes:
        """Have a party's floor taken (trust/floor.py); the sealed state.

        ORDER: as above. KEY: the party has granted no key here. REPLAY: it is for another start.
        """
        return self.connection.request(KeyCommand.FLOOR, floor)

    def state(self) -> bytes:
        """The sealed state as of the last change."""
        return self.connection.request(KeyCommand.STATE)

    def restore(self, state: bytes) -> None:
        """Give back the last state after ``identity_open``, before any slot is filled. STATE: it is none, or older."""
        self.connection.request(KeyCommand.RESTORE, state)

    def commit(self, state: bytes) -> None:
        """This state, the last answered, is stored: none before it opens any more."""
        self.connection.request(KeyCommand.COMMIT, wire.Commit(wire.KeyState.unpack(state).counter).pack())

    def close(self) -> None:
        self.connection.close()
