"""Typed clients of the two trusted applications: one method per message of the wire.

``Connection`` numbers, frames and matches messages; ``call`` gives the bare status and body, which
is what an attack needs. ``KeyClient`` and ``EvalClient`` know each message's form. What order makes
an evaluation is edged/offload/bridge.py.

A status other than OK raises EnclaveError, or VerificationFailed where the enclave refused a product.
"""

from collections import deque
from contextlib import closing
from dataclasses import dataclass
from typing import Deque, Generator, Iterable, NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np

from edged.enclave import tipc, wire
from edged.enclave.window import SharedWindow
from edged.enclave.wire import Chunk, EvalCommand, Header, KeyCommand, Status
from edged.errors import EnclaveError, PackageError, VerificationFailed
from edged.model.package import FORMAT, MAGIC

# What is wrong, and what to do about it.
_EXPLAINED = {
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
    Status.LOCKED: "no beacon came within the agreement's limit: the city must send one (or there is no monotonic "
                   "store: granted keys wait for their owners)",
    Status.FULL: "too many records are kept: fetch and confirm them first",
    Status.STATE: "what is sealed is not this device's, altered, older than the last, or of a newer release",
    Status.GRANT: "the grant is malformed, for another device, altered, or not by whom it names: ask for a new one",
    Status.REPLAY: "this grant, or a later one, was taken before: ask for one with a higher number",
}


_NOT_VERIFIED = (Status.VERIFICATION, Status.GRANT, Status.REPLAY)
# Likewise, where the key application's own reason is another.
_EXPLAINED_KEY = {
    Status.ORDER: "not permitted now: an identity is to be drawn or opened once, then its state restored, before any "
                  "slot is filled, and a change committed before the next",
    Status.ARGUMENT: "an argument is out of range, or this is not the last state",
    Status.FULL: "grants of too many parties were taken: only a new identity forgets them",
    Status.KEY: "the slot holds a granted key or another party's: clear it first (hardware takes no keys in clear)",
    Status.UNAVAILABLE: "the random source, the monotonic store or the station's secret is away",
}


class InvocationRefused(VerificationFailed):
    """A product failed its check.

    records  : the sealed records `failed` after the last attempt, else empty    record : the first of them, or None
    emission : of the last record sealed so far, 0 where there are none
    """

    def __init__(self, message: str, records: Tuple[bytes, ...] = (), emission: int = 0) -> None:
        super().__init__(message, Status.VERIFICATION)
        self.records = records
        self.emission = emission

    @property
    def record(self) -> Optional[bytes]:
        return self.records[0] if self.records else None


def refusal(command: Union[EvalCommand, KeyCommand], status: Status) -> EnclaveError:
    kind = VerificationFailed if status in _NOT_VERIFIED else EnclaveError
    explained = _EXPLAINED[status]
    if isinstance(command, KeyCommand):
        explained = _EXPLAINED_KEY.get(status, explained)
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

    def pipeline(self, command: Union[EvalCommand, KeyCommand], bodies: Iterable[bytes]) -> Generator[bytes, None, None]:
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


_STATUSES = {int(status): status for status in Status}


class KeyClient:
    """The key application's normal-world port."""

    def __init__(self, channel: tipc.Channel) -> None:
        self.connection = Connection(channel)

    def info(self) -> wire.KeyInfo:
        return wire.KeyInfo.unpack(self.connection.request(KeyCommand.INFO))

    def stats(self) -> wire.Memory:
        return wire.Memory.unpack(self.connection.request(KeyCommand.STATS))

    def put_slot(self, slot: int, kind: wire.KeyKind, key: bytes, key_id: bytes, verifier: bytes) -> None:
        """Put a key in clear: an emulated key application alone takes it.

        key : 32 bytes, of an alert also 16      key_id : 16 bytes      verifier : its owner's Ed25519 key
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


class LoadedModel(NamedTuple):
    """Public shapes of the resident model."""

    head: wire.Model
    products: Tuple[wire.Product, ...]


class Progress(NamedTuple):
    """Where an evaluation stands: the step that is due, and once it is done the sealed records.

    emission : of the last record sealed so far. Records that did not fit are the later ones: ``record_from``.
    """

    step: int
    records: Tuple[bytes, ...]
    emission: int

    @property
    def record(self) -> Optional[bytes]:
        """The first one, or None."""
        return self.records[0] if self.records else None


class Emitted(NamedTuple):
    """Sealed records that a command gave rise to. index : the agreement's, of ``put_agreement``; else 0."""

    index: int
    records: Tuple[bytes, ...]
    emission: int


class EvalClient:
    """The evaluation application's port. Arrays are uint32, C-contiguous, shaped as wire.Product says."""

    def __init__(self, channel: tipc.Channel) -> None:
        self.connection = Connection(channel)

    def info(self) -> wire.EvalInfo:
        return wire.EvalInfo.unpack(self.connection.request(EvalCommand.INFO))

    def stats(self) -> wire.EvalStats:
        return wire.EvalStats.unpack(self.connection.request(EvalCommand.STATS))

    # Shared memory.

    def attach_window(self, window: SharedWindow) -> None:
        self.connection.request(EvalCommand.WINDOW, wire.Window(window.size_bytes).pack(), window.handle)

    def detach_window(self) -> None:
        self.connection.request(EvalCommand.WINDOW, wire.Window(0).pack())

    # The model.

    def load(self, package: bytes, slot: int, placement: wire.Placement) -> LoadedModel:
        """Load a package (the whole file's bytes) and ask for the shapes of its products."""
        envelope, sealed = _split_package(package)
        self.connection.request(EvalCommand.LOAD_OPEN, wire.LoadOpen(slot, placement, len(envelope)).pack())
        self._write(EvalCommand.LOAD_ENVELOPE, 0, envelope)
        stored = wire.EVAL_SEAL_BYTES + wire.EVAL_TAG_BYTES
        chunks = (Chunk.codec.pack(index, 0, 0) + sealed[begin:begin + stored]
                  for index, begin in enumerate(range(0, len(sealed), stored)))
        for _ in self.connection.pipeline(EvalCommand.LOAD_CHUNK, chunks):
            pass
        head = wire.Model.unpack(self.connection.request(EvalCommand.LOAD_COMMIT))
        return LoadedModel(head, tuple(self.product(index) for index in range(head.products)))

    def unload(self) -> None:
        self.connection.request(EvalCommand.UNLOAD)

    def product(self, index: int) -> wire.Product:
        return wire.Product.unpack(self.connection.request(EvalCommand.PRODUCT, wire.Index(index).pack()))

    def read_weights(self, index: int, out: np.ndarray) -> None:
        """Fill out (rows, taps, channels) with one product's weights, by messages; products in order."""
        self._read(EvalCommand.WEIGHTS_READ, index, out)

    def map_weights(self, index: int) -> None:
        """Likewise into the window, at its first byte."""
        self.connection.request(EvalCommand.WEIGHTS_MAP, wire.Index(index).pack())

    # Epochs, agreements, and the records that are kept.

    def restore(self, state: bytes) -> None:
        """Give back what ``confirm`` or ``close_epoch`` answered last; before the first agreement of an epoch."""
        self.connection.request(EvalCommand.RESTORE, state)

    def put_agreement(self, model_slot: int, data_slot: int, alert_slots: Sequence[int], signed: bytes) -> Emitted:
        """Put a signed agreement in force; alert_slots : those of its recipients, in their order.

        The same one again gives the same index and no records.
        """
        slots = tuple(alert_slots) + (0,) * (wire.EDGED_RECIPIENTS_MAX - len(alert_slots))
        return self._emitted(EvalCommand.AGREEMENT,
                             wire.AgreementPut(model_slot, data_slot, slots, len(signed)).pack() + signed)

    def record_from(self, emission: int) -> Tuple[int, Optional[bytes]]:
        """The first kept record of this emission or a later one, and its emission; (the last one's, None): none."""
        emitted = self._emitted(EvalCommand.RECORD, wire.Emission(emission).pack())
        return emitted.emission, emitted.records[0] if emitted.records else None

    def confirm(self, emission: int) -> bytes:
        """All records up to this one are stored durably: the enclave forgets them. The sealed state to store next."""
        return self.connection.request(EvalCommand.CONFIRM, wire.Emission(emission).pack())

    def beacon(self, beacon: bytes, config: bytes) -> Emitted:
        """Hand a recipient's beacon in; its heartbeat. config : digest of the node's configuration (32 bytes)."""
        return self._emitted(EvalCommand.BEACON, wire.BeaconPut(wire.Beacon.unpack(beacon), config).pack())

    def exercise(self, agreement: int, rule: int) -> Emitted:
        """An alert of status EXERCISE for every recipient of the agreement, as if the rule held."""
        return self._emitted(EvalCommand.EXERCISE, wire.Exercise(agreement, rule).pack())

    def claim(self, agreement: int, kind: wire.RecordKind, data: bytes) -> Emitted:
        """Have the node's own statement sealed for every recipient. kind : CAMERA .. EVICTED"""
        return self._emitted(EvalCommand.CLAIM, wire.ClaimPut(agreement, kind, len(data)).pack() + data)

    def close_epoch(self) -> bytes:
        """End the epoch cleanly: nothing unfinished, all records confirmed. The sealed state to store."""
        return self.connection.request(EvalCommand.CLOSE)

    # Sessions, and U + pad ahead.

    def open_session(self, agreement: int, camera: bytes, nonce: bytes) -> wire.Session:
        return wire.Session.unpack(self.connection.request(
            EvalCommand.SESSION_OPEN, wire.SessionOpen(agreement, camera, nonce).pack()))

    def open_prepare(self, persons: int) -> int:
        """Begin a prepared invocation; its number."""
        return wire.Invocation.unpack(self.connection.request(
            EvalCommand.PREPARE_OPEN, wire.PrepareOpen(persons).pack())).invocation

    def read_prepared(self, index: int, out: np.ndarray) -> None:
        """Fill out (persons, frames_out, joints, rows) with U + pad of one product; products in order."""
        self._read(EvalCommand.PREPARE_READ, index, out)

    def map_prepared(self, index: int) -> None:
        self.connection.request(EvalCommand.PREPARE_MAP, wire.Index(index).pack())

    def drop_prepared(self, invocation: int) -> None:
        self.connection.request(EvalCommand.PREPARE_DROP, wire.Invocation(invocation).pack())

    # One clip. Each of these but the bulk data may end in InvocationRefused.

    def open_clip(self, session: int, flags: int, number: int, invocation: int, sealed_bytes: int) -> Progress:
        return self._progress(EvalCommand.CLIP_OPEN, wire.ClipOpen(
            session, flags, number, invocation, sealed_bytes).pack())

    def write_clip(self, sealed: bytes) -> None:
        self._write(EvalCommand.CLIP_WRITE, 0, sealed)

    def begin_clip(self) -> Progress:
        return self._progress(EvalCommand.CLIP_BEGIN, b"")

    def read_x(self, index: int, out: np.ndarray) -> None:
        """Fill out (persons, frames_in, joints, channels) with xbar of one product of the due step."""
        self._read(EvalCommand.STEP_READ, index, out)

    def write_y(self, index: int, y_bar: np.ndarray) -> None:
        """Hand in ybar (persons, frames_out, joints, rows) of one product of the due step."""
        self._write(EvalCommand.STEP_WRITE, index, _bytes_of(y_bar))

    def end_step(self, step: int) -> Progress:
        return self._progress(EvalCommand.STEP, wire.Index(step).pack())

    def abort_clip(self, session: int) -> Progress:
        """Give the session's clip up. Its records `failed` come, or none where it was not accepted yet."""
        return self._progress(EvalCommand.CLIP_ABORT, wire.Index(session).pack())

    def close_session(self, session: int) -> None:
        self.connection.request(EvalCommand.SESSION_CLOSE, wire.Index(session).pack())

    def close(self) -> None:
        self.connection.close()

    def _progress(self, command: EvalCommand, body: bytes) -> Progress:
        status, answer = self.connection.call(command, body)
        if status not in (Status.OK, Status.VERIFICATION):
            raise refusal(command, status)
        if status == Status.VERIFICATION and not answer:
            raise InvocationRefused("{} refused: {}".format(command.name, _EXPLAINED[status]))
        size = wire.Step.size()
        step = wire.Step.unpack(answer[:size])
        if len(answer) - size != step.record_bytes:
            raise EnclaveError("{} answered records of {} bytes, announced {}".format(
                command.name, len(answer) - size, step.record_bytes))
        records = _split_records(command, answer[size:])
        if status == Status.VERIFICATION:
            raise InvocationRefused("{} refused for the last time: {}".format(
                command.name, _EXPLAINED[status]), records, step.emission)
        return Progress(step.step, records, step.emission)

    def _emitted(self, command: EvalCommand, body: bytes) -> Emitted:
        return Emitted(*self._progress(command, body))

    def _read(self, command: EvalCommand, index: int, out: np.ndarray) -> None:
        memory = _bytes_of(out)
        steps = range(0, len(memory), wire.EDGED_CHUNK_BYTES)
        heads = (Chunk.codec.pack(index, 0, begin) for begin in steps)
        size = Chunk.size()
        with closing(self.connection.pipeline(command, heads)) as answers:
            for begin, answer in zip(steps, answers):
                expected = min(wire.EDGED_CHUNK_BYTES, len(memory) - begin)
                if answer[:size] != Chunk.codec.pack(index, 0, begin) or len(answer) != size + expected:
                    raise EnclaveError("{} answered {} bytes for object {} at {}, expected {}".format(
                        command.name, len(answer) - size, index, begin, expected))
                memory[begin:begin + expected] = answer[size:]

    def _write(self, command: EvalCommand, index: int, data: Union[bytes, memoryview]) -> None:
        chunks = (Chunk.codec.pack(index, 0, begin) + data[begin:begin + wire.EDGED_CHUNK_BYTES]
                  for begin in range(0, len(data), wire.EDGED_CHUNK_BYTES))
        for _ in self.connection.pipeline(command, chunks):
            pass


def _bytes_of(values: np.ndarray) -> memoryview:
    """The bytes of a C-contiguous array, without a copy; little-endian, as every machine of ours is."""
    if values.dtype != np.uint32 or not values.flags.c_contiguous:
        raise ValueError("bulk data is C-contiguous uint32, not {}".format(values.dtype))
    if values.size == 0:
        return memoryview(b"")  # a view with a 0 in its shape cannot be cast
    return memoryview(values).cast("B")


def _split_records(command: EvalCommand, data: bytes) -> Tuple[bytes, ...]:
    """Sealed records that lie one behind the other; each begins with its size."""
    records, at, size = [], 0, wire.RecordHead.size()
    while at < len(data):
        head = wire.RecordHead.unpack(data[at:at + size].ljust(size, b"\0"))
        end = at + size + head.header_bytes + head.body_bytes
        if end > len(data):
            raise EnclaveError("{} answered a record that is cut off: {} of {} bytes".format(
                command.name, len(data) - at, end - at))
        records.append(data[at:end])
        at = end
    return tuple(records)


def _split_package(package: bytes) -> Tuple[bytes, bytes]:
    """(signed envelope, sealed chunks) of a package file. What is inside, the enclave checks."""
    begin = len(MAGIC) + 8
    form, envelope_bytes = (int.from_bytes(package[at:at + 4], "little") for at in (len(MAGIC), len(MAGIC) + 4))
    if package[:len(MAGIC)] != MAGIC or form != FORMAT or len(package) < begin + envelope_bytes:
        raise PackageError("not a package of this release: {} bytes, starts with {!r}, format {}, envelope of {}".format(
            len(package), package[:len(MAGIC)], form, envelope_bytes))
    return package[begin:begin + envelope_bytes], package[begin + envelope_bytes:]
