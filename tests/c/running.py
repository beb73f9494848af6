"""The running applications, brought to any state by one honest flow, and asked anything in between."""

import array
import contextlib
import json
import os
import socket
import uuid
from pathlib import Path
from typing import Iterator, Optional, Sequence, Tuple

import numpy as np

from c import build, deals, vectors
from edged import artifacts
from edged.alerts import record
from edged.camera import clip as camera_clip
from edged.enclave import wire
from edged.enclave.client import EvalClient
from edged.enclave.host import HostEnclave
from edged.enclave.key import KeyClient
from edged.enclave.wire import Chunk, EvalCommand, Header, Status
from edged.model import reference
from edged.offload.product import NumpyAccelerator

CAMERA = b"camera of the tests".ljust(32, b"\0")
DATA_KEY = deals.SLOTS[deals.DATA_SLOT].key
EMPTY_SLOT = len(deals.SLOTS)

# Points of the flow; the last two are one state of the wire: xbar is due, ybar is due.
STATES = ("EMPTY", "ENVELOPE", "CHUNKS", "WEIGHTS", "READY", "PREPARE", "CLIP", "STEP", "TAKING")


class Port:
    """One socket of one application: whole messages, with any descriptors."""

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected

    @classmethod
    def connect(cls, path: Path) -> "Port":
        port = cls(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        port.socket.settimeout(60)
        port.socket.connect(str(path))
        return port

    def ask(self, message: bytes, handles: Sequence[int] = ()) -> Tuple[Status, bytes]:
        """Status and body of the answer, whose header must fit the request."""
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", handles))] if handles else []
        self.socket.sendmsg([message], rights)
        answer = self.socket.recv(wire.EDGED_MESSAGE_BYTES + 1)
        assert len(answer) >= Header.size(), "the application ended, or cut its answer: {!r}".format(answer)
        head = Header.unpack(answer[:Header.size()])
        known = Header.codec.unpack(message[:Header.size()].ljust(Header.size(), b"\0"))
        assert (head.version, head.cmd, head.seq) == (wire.EDGED_WIRE_VERSION, known[1] | 1, known[3])
        assert head.len == len(answer) - Header.size()
        assert head.status in (Status.OK, Status.VERIFICATION) or head.len == 0, "a refusal has no body"
        return Status(head.status), answer[Header.size():]

    def call(self, cmd: int, body: bytes = b"", handles: Sequence[int] = ()) -> Tuple[Status, bytes]:
        return self.ask(request(cmd, body), handles)

    def close(self) -> None:
        self.socket.close()


def request(cmd: int, body: bytes = b"", version: int = wire.EDGED_WIRE_VERSION, length: Optional[int] = None,
            status: int = 0, reserved: int = 0) -> bytes:
    length = len(body) if length is None else length
    return Header.codec.pack(version, cmd, length, 0xC0FFEE, status, reserved) + body


class Running:
    """Both applications of the sanitizer build, with keys and an agreement; a context manager.

    logs : where a sanitizer reports    deal, agreement : what is agreed, and the body of its EVAL_AGREEMENT
    """

    def __init__(self, folder: Path) -> None:
        self.logs = folder / "logs"
        self.logs.mkdir()
        self.enclave = HostEnclave(folder)
        self.case = vectors.case("small")
        self.deal = deals.make(*vectors.scores(self.case))[0]
        self.agreement = self.deal.put()
        items = vectors.message_items(self.case)
        envelope_bytes = int.from_bytes(items["package"][12:16], "little")
        self.envelope = items["package"][16:16 + envelope_bytes]
        stored = wire.EVAL_SEAL_BYTES + wire.EVAL_TAG_BYTES
        sealed = items["package"][16 + envelope_bytes:]
        self.chunks = [sealed[at:at + stored] for at in range(0, len(sealed), stored)]
        self.products: Tuple[wire.Product, ...] = ()
        self.session: Optional[wire.Session] = None
        self.number = 0
        self.client: Optional[EvalClient] = None
        self._flow: Optional[Iterator[str]] = None

    def __enter__(self) -> "Running":
        with self._environment():
            self.enclave.start()
        keys = KeyClient(self.enclave.connect_key())
        for number, slot in enumerate(deals.SLOTS):
            keys.put_slot(number, slot.kind, slot.key, slot.key_id, slot.verifier)
        keys.close()
        self.client = EvalClient(self.enclave.connect_eval())
        self._agree()
        return self

    def __exit__(self, *_: object) -> None:
        if self.client is not None:
            self.client.close()
        self.enclave.stop()

    def restart_eval(self) -> None:
        with self._environment():
            self.enclave.restart_eval()
        self.session, self.number = None, 0

    @contextlib.contextmanager
    def _environment(self) -> Iterator[None]:
        """What the applications inherit: HostEnclave starts those of $EDGED_BUILD."""
        options = "log_path={}/report:abort_on_error=1".format(self.logs)
        ours = {artifacts.BUILD_VARIABLE: str(build.FOLDER / "sanitize"), "ASAN_OPTIONS": options,
                "UBSAN_OPTIONS": options + ":print_stacktrace=1"}
        before = {name: os.environ.get(name) for name in ours}
        os.environ.update(ours)
        try:
            yield
        finally:
            for name, value in before.items():
                os.environ.pop(name)
                if value is not None:
                    os.environ[name] = value

    def assert_sane(self) -> None:
        """Both live, and no sanitizer has said anything."""
        reports = "\n".join(path.read_text(errors="replace") for path in self.logs.iterdir())
        assert not reports, reports
        assert self.enclave.key.poll() is None and self.enclave.eval.poll() is None

    # ------------------------------------------------------------- the flow ---

    def go(self, state: str) -> Port:
        """Start again from a new connection and stop where the application is in that state."""
        if self.client is not None:
            self.client.close()
        self.client = EvalClient(self.enclave.connect_eval())
        self._flow = self._honest()
        for reached in self._flow:
            if reached == state:
                break
        # The flow's own connection, for messages of any kind in between.
        return Port(self.client.connection.channel._socket)

    def finish(self) -> None:
        """Go on from where ``go`` stopped; the scores must be exact."""
        for _ in self._flow:
            pass
        self.assert_sane()

    def evaluate(self) -> None:
        self.go("EMPTY")
        self.finish()

    def _honest(self) -> Iterator[str]:
        client, connection = self.client, self.client.connection
        yield "EMPTY"
        connection.request(EvalCommand.LOAD_OPEN, wire.LoadOpen(deals.MODEL_SLOT, 0, len(self.envelope)).pack())
        yield "ENVELOPE"
        connection.request(EvalCommand.LOAD_ENVELOPE, Chunk(0, 0).pack() + self.envelope)
        yield "CHUNKS"
        for index, chunk in enumerate(self.chunks):
            connection.request(EvalCommand.LOAD_CHUNK, Chunk(index, 0).pack() + chunk)
        head = wire.Model.unpack(connection.request(EvalCommand.LOAD_COMMIT))
        self.products = tuple(client.product(index) for index in range(head.products))
        yield "WEIGHTS"
        w_bar = [np.empty(product.w_shape, np.uint32) for product in self.products]
        for index, out in enumerate(w_bar):
            client.read_weights(index, out)
        if self.session is not None:
            yield "READY_UNSETTLED"  # a clip may still wait for its record
        self._settle_session()
        yield "READY"
        invocation = client.open_prepare(1)
        yield "PREPARE"
        ahead = [np.empty(product.y_shape(1), np.uint32) for product in self.products]
        for index, out in enumerate(ahead):
            client.read_prepared(index, out)
        sealed = self.sealed_clip()
        client.open_clip(self.session.session, 0, self.number, invocation, len(sealed))
        yield "CLIP"
        client.write_clip(sealed)
        progress = client.begin_clip()
        first = True
        accelerator = NumpyAccelerator()
        while progress.record is None:
            due = [index for index, product in enumerate(self.products) if product.step == progress.step]
            if first:
                yield "STEP"
            x_bar = {index: np.empty(self.products[index].x_shape(1), np.uint32) for index in due}
            for index in due:
                client.read_x(index, x_bar[index])
            if first:
                yield "TAKING"
            first = False
            for index in due:
                product = self.products[index]
                weights = accelerator.weights(w_bar[index])
                y_bar = np.empty(product.y_shape(1), np.uint32)
                client.write_y(index, accelerator.convolve(
                    weights, x_bar[index], product.stride, product.pad, ahead[index], y_bar))
            progress = client.end_step(progress.step)
        scores = record.open_record(progress.record, deals.SLOTS[deals.ALERT_SLOT].key, self.deal.agreement.digest)
        logits, probabilities = reference.run(self.case.model, self.case.clip[:1])
        assert np.array_equal(scores.logits, logits) and np.array_equal(scores.probabilities, probabilities)

    def _agree(self) -> int:
        """The agreement's index; nothing is kept."""
        emitted = self.client.put_agreement(
            deals.MODEL_SLOT, self.deal.data_slot, self.deal.alert_slots, self.deal.signed())
        self.client.confirm(emitted.emission)
        return emitted.index

    def _settle_session(self) -> None:
        """A session without a clip under way: an earlier flow may have ended inside one."""
        agreed = self._agree()
        if self.session is not None:
            status, _ = self.client.connection.call(EvalCommand.CLIP_ABORT, wire.Index(self.session.session).pack())
            assert status in (Status.OK, Status.ORDER)
            return
        nonce = bytes(range(32))
        self.session = self.client.open_session(agreed, CAMERA, nonce)
        self._session_key = camera_clip.session_key(camera_clip.camera_key(DATA_KEY, CAMERA), nonce, self.session.nonce)

    def sealed_clip(self) -> bytes:
        """The next clip of one person."""
        self.number += 1
        return camera_clip.seal_clip(self._session_key, self.session.session, self.number, camera_clip.Clip(
            coordinates=self.case.clip[:1], tracks=(1,), claimed_ns=5, camera=CAMERA))


@contextlib.contextmanager
def key_link(folder: Path) -> Iterator[Port]:
    """KEY_EVAL_PORT as the evaluation application meets it: its UUID comes first."""
    manifest = json.loads((build.ROOT / "trusty_ta/port/trusty/eval/manifest.json").read_text(encoding="ascii"))
    port = Port.connect(Path(folder) / (wire.KEY_EVAL_PORT + ".ta"))
    try:
        port.socket.send(uuid.UUID(manifest["uuid"]).bytes_le)
        yield port
    finally:
        port.close()
