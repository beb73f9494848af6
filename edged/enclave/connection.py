"""One channel's requests and answers, of whichever trusted application.

``Connection`` numbers, frames and matches messages; ``call`` gives the bare status and body, which is what an attack
needs. client.py and key.py know each message's form.

A status other than OK raises EnclaveError, or VerificationFailed where the enclave refused a product.
"""

from collections import deque
from dataclasses import dataclass
from typing import Deque, Generator, Iterable, Optional, Tuple, Union

from edged.enclave import tipc, wire
from edged.enclave.wire import EvalCommand, Header, KeyCommand, Status
from edged.errors import EnclaveError, VerificationFailed

# What is wrong, and what to do about it.
EXPLAINED = {
    Status.VERSION: "the enclave speaks another wire version: install matching releases",
    Status.COMMAND: "no such command on this port: install matching releases",
    Status.LENGTH: "message of a wrong length: install matching releases",
    Status.RESERVED: "a field that must be 0 is not: install matching releases",
    Status.ORDER: "not permitted now: load a model first, or abort the clip under way",
    Status.OBJECT: "not the expected object or offset: bulk data goes in sequence",
    Status.ARGUMENT: "an argument is out of range",
    Status.MEMORY: "the enclave's heap does not hold this model: take a smaller one",
    Status.WINDOW: "no shared memory, or too little: choose the message transport",
    Status.PACKAGE: "the package was refused: it is malformed, altered, or not for this slot's key",
    Status.PLACEMENT: "the package's owner does not permit this placement",
    Status.KEY: "the key slot is empty, of another kind or of another owner: put the right key first",
    Status.UNAVAILABLE: "the key application or the random source is away: restart the enclave",
    Status.CLIP: "the clip was refused: seal, number or form",
    Status.VERIFICATION: "a masked product failed its check: this invocation is dead",
    Status.AGREEMENT: "the agreement is not signed by both parties, does not cover this, or is not valid now",
    Status.RATE: "the agreement's clips of this hour are used up: send it later",
    Status.LOCKED: "no beacon came within the agreement's limit: the city must send one (or granted keys are locked: "
                   "floors of both owners are needed)",
    Status.FULL: "too many records are kept: fetch and confirm them first",
    Status.STATE: "what is sealed is not this device's, altered, older than the last, or of a newer release",
    Status.GRANT: "the grant or floor is malformed, for another device, altered, or not by whom it names: ask for a "
                  "new one",
    Status.REPLAY: "this grant, or a later one, was taken before: ask for one with a higher number; or the floor is "
                   "no later than the last, or for another start of the device: ask for one by present evidence",
    Status.RECIPIENT: "the agreement names a recipient of another city's, whose agreement is in force: each city names "
                      "its own",
}
# Likewise, where the key application's own reason is another.
_EXPLAINED_KEY = {
    Status.ORDER: "not permitted now: an identity is to be drawn or opened once, then its state restored, before any "
                  "slot is filled, and a change committed before the next",
    Status.ARGUMENT: "an argument is out of range, or this is not the last state",
    Status.FULL: "grants or floors of too many parties were taken: only a new identity forgets them",
    Status.KEY: "the slot holds a granted key or another party's: clear it first (hardware takes no keys in clear); or "
                "no slot holds a key of the floor's party: its grants come first",
    Status.UNAVAILABLE: "the random source, the monotonic store or the station's secret is away",
}
# And of the evaluation application, where it is another for one request.
_EXPLAINED_OF = {
    (EvalCommand.AGREEMENT, Status.MEMORY):
        "the enclave has no place for it: {} agreements are in force, its epoch had {} recipients (restart it), or it "
        "remembers those of other cities: have all records delivered, stop the node, move its spool.db aside and start "
        "it".format(wire.EVAL_AGREEMENTS_MAX, wire.EVAL_RECIPIENTS_MAX),
    (EvalCommand.SESSION_OPEN, Status.MEMORY): "the enclave holds as many sessions as it can: name fewer cameras",
}
_STATUSES = {int(status): status for status in Status}
_NOT_VERIFIED = (Status.VERIFICATION, Status.GRANT, Status.REPLAY)


def refusal(command: Union[EvalCommand, KeyCommand], status: Status) -> EnclaveError:
    kind = VerificationFailed if status in _NOT_VERIFIED else EnclaveError
    explained = EXPLAINED[status]
    if isinstance(command, KeyCommand):
        explained = _EXPLAINED_KEY.get(status, explained)
    else:
        explained = _EXPLAINED_OF.get((command, status), explained)
    return kind("{} refused: {}".format(command.name, explained), status)


@dataclass
class Traffic:
    """What crossed the boundary in messages; both headers are counted. A round trip is a request and its answer."""

    round_trips: int = 0
    messages: int = 0
    bytes: int = 0


class Connection:
    """Requests and their answers over one channel. Not for use by two threads at once."""

    def __init__(self, channel: tipc.Channel) -> None:
        self.channel = channel
        self.traffic = Traffic()
        self._seq = 0
        self._outstanding: Deque[Tuple[int, int]] = deque()  # (cmd, seq), the oldest first

    def call(self, cmd: int, body: bytes = b"", handle: Optional[int] = None) -> Tuple[Status, bytes]:
        """Send one request, give its answer's status and body, whatever they are."""
        self._send(cmd, body, handle)
        return self._receive()

    def request(self, command: Union[EvalCommand, KeyCommand], body: bytes = b"",
                handle: Optional[int] = None) -> bytes:
        """Like ``call``; raises where the status is not OK."""
        status, answer = self.call(command, body, handle)
        if status != Status.OK:
            raise refusal(command, status)
        return answer

    def pipeline(self, command: Union[EvalCommand, KeyCommand],
                 bodies: Iterable[bytes]) -> Generator[bytes, None, None]:
        """The answers' bodies, in order, with up to wire.EDGED_QUEUE requests under way.

        At the first refusal no more is sent; answers under way are taken before it is raised.
        """
        try:
            for body in bodies:
                if len(self._outstanding) == wire.EDGED_QUEUE:
                    yield self._accept(command)
                self._send(command, body)
            while self._outstanding:
                yield self._accept(command)
        finally:
            while self._outstanding:
                self._receive()

    def close(self) -> None:
        self.channel.close()

    def _accept(self, command: Union[EvalCommand, KeyCommand]) -> bytes:
        status, answer = self._receive()
        if status != Status.OK:
            raise refusal(command, status)
        return answer

    def _send(self, cmd: int, body: bytes, handle: Optional[int] = None) -> None:
        self._seq = (self._seq + 1) & 0xFFFFFFFF
        head = Header.codec.pack(wire.EDGED_WIRE_VERSION, cmd, len(body), self._seq, 0, 0)
        self.channel.send(head + body, handle)
        self._outstanding.append((cmd, self._seq))
        self.traffic.round_trips += 1
        self.traffic.messages += 1
        self.traffic.bytes += len(head) + len(body)

    def _receive(self) -> Tuple[Status, bytes]:
        cmd, seq = self._outstanding.popleft()
        try:
            message = self.channel.receive()
        except EnclaveError:
            self._outstanding.clear()  # nothing more will come
            raise
        self.traffic.messages += 1
        self.traffic.bytes += len(message)
        size = Header.size()
        try:
            if len(message) < size:
                raise EnclaveError("answer of {} bytes".format(len(message)))
            version, got_cmd, length, got_seq, status, reserved = Header.codec.unpack_from(message)
            expected = (wire.EDGED_WIRE_VERSION, cmd + 1, len(message) - size, seq, 0)
            if (version, got_cmd, length, got_seq, reserved) != expected or status not in _STATUSES:
                raise EnclaveError("answer (version {}, cmd {}, len {}, seq {}, reserved {}) to a request that expects "
                                   "{}, or unknown status {}".format(version, got_cmd, length, got_seq, reserved,
                                                                     expected, status))
        except EnclaveError as error:
            self._outstanding.clear()  # out of step: no later answer can be matched
            raise EnclaveError("{}: {}: install matching releases".format(self.channel.name, error)) from None
        return _STATUSES[status], message[size:]
