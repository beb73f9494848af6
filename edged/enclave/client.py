"""Typed client of the evaluation application: one method per message of the wire. What order makes an evaluation is
edged/offload/bridge.py.
"""

from contextlib import closing
from typing import NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np

from edged.enclave import tipc, wire
from edged.enclave.connection import EXPLAINED, Connection, refusal
from edged.enclave.window import SharedWindow
from edged.enclave.wire import Chunk, EvalCommand, Status
from edged.errors import EnclaveError, PackageError, VerificationFailed
from edged.model.package import FORMAT, MAGIC


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


class LoadedModel(NamedTuple):
    """Public shapes of the resident model."""

    head: wire.Model
    products: Tuple[wire.Product, ...]


class Progress(NamedTuple):
    """Where an evaluation stands: the step that is due, and once it is done the sealed records.

    emission : of the last record sealed so far. Records that did not fit are the later ones: ``record_from``.
    Where one alone fits no message, all are there: they were fetched piece by piece.
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
        step, first = _split_piece(self.connection.request(EvalCommand.RECORD, wire.RecordAsk(emission, 0).pack()))
        if not first:
            return step.emission, None
        size = _record_size(first)
        made, rest = [first], range(len(first), size, len(first))
        asks = (wire.RecordAsk(step.emission, at).pack() for at in rest)
        with closing(self.connection.pipeline(EvalCommand.RECORD, asks)) as answers:
            for at, answer in zip(rest, answers):
                more, piece = _split_piece(answer)
                if more.emission != step.emission or len(piece) != min(len(first), size - at):
                    raise EnclaveError("RECORD answered {} bytes of record {} at {} of {}, asked for record {}".format(
                        len(piece), more.emission, at, size, step.emission))
                made.append(piece)
        record = b"".join(made)
        if len(record) != size:
            raise EnclaveError("RECORD answered {} bytes of a record of {}".format(len(record), size))
        return step.emission, record

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

    def succeed(self, agreement: int, successor: int) -> Emitted:
        """One agreement follows another: the last record under it for each of its recipients. Then it is over."""
        return self._emitted(EvalCommand.SUCCEED, wire.Succeed(agreement, successor).pack())

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
            raise InvocationRefused("{} refused: {}".format(command.name, EXPLAINED[status]))
        size = wire.Step.size()
        step = wire.Step.unpack(answer[:size])
        if len(answer) - size != step.record_bytes:
            raise EnclaveError("{} answered records of {} bytes, announced {}".format(
                command.name, len(answer) - size, step.record_bytes))
        records = _split_records(command, answer[size:])
        if step.records and not records:
            records = tuple(self._sealed(command, emission)
                            for emission in range(step.emission - step.records + 1, step.emission + 1))
        if status == Status.VERIFICATION:
            raise InvocationRefused("{} refused for the last time: {}".format(
                command.name, EXPLAINED[status]), records, step.emission)
        return Progress(step.step, records, step.emission)

    def _sealed(self, command: EvalCommand, emission: int) -> bytes:
        """A record that this command sealed just now."""
        found, record = self.record_from(emission)
        if record is None or found != emission:
            raise EnclaveError("{} sealed record {}, kept is {}: install matching releases".format(
                command.name, emission, "none" if record is None else found))
        return record

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


def _split_piece(answer: bytes) -> Tuple[wire.Step, bytes]:
    size = wire.Step.size()
    step = wire.Step.unpack(answer[:size])
    if len(answer) - size != step.record_bytes:
        raise EnclaveError("RECORD answered {} bytes of a record, announced {}".format(
            len(answer) - size, step.record_bytes))
    return step, answer[size:]


def _record_size(data: bytes) -> int:
    """Of the record that begins with these bytes."""
    size = wire.RecordHead.size()
    head = wire.RecordHead.unpack(data[:size].ljust(size, b"\0"))
    return size + head.header_bytes + head.body_bytes


def _split_records(command: EvalCommand, data: bytes) -> Tuple[bytes, ...]:
    """Sealed records that lie one behind the other; each begins with its size."""
    records, at = [], 0
    while at < len(data):
        end = at + _record_size(data[at:])
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
        raise PackageError("not a package of this release: {} bytes, starts with {!r}, format {}, envelope of "
                           "{}".format(len(package), package[:len(MAGIC)], form, envelope_bytes))
    return package[begin:begin + envelope_bytes], package[begin + envelope_bytes:]
