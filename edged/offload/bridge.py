"""The flow of one evaluation between the enclave and an untrusted accelerator.

    load       package -> enclave; wbar of each product -> accelerator, once per load
    prepare    U + pad of each product -> accelerator, ahead of a clip (optional)
    evaluate   sealed clip -> enclave; then per step: xbar -> accelerator -> ybar -> enclave; at last
               the sealed records come out, one for each recipient

Bulk data goes by either transport. The bridge sees ciphertext and masked words alone, and decides
one thing: what becomes of a refused invocation (DESIGN section 3). The same sealed clip goes in
again at most twice, the last time on the CPU accelerator; then the enclave emits the records `failed`.
"""

import logging
import time
from collections import deque
from dataclasses import dataclass
from typing import Any, Deque, Dict, List, NamedTuple, Optional, Tuple, Type

import numpy as np

from edged.enclave import wire
from edged.enclave.client import EvalClient, InvocationRefused, LoadedModel, Progress
from edged.enclave.wire import Status
from edged.errors import AcceleratorError, EnclaveError, PackageError
from edged.offload.product import Accelerator
from edged.offload.transport import MessageTransport, Transport, WindowTransport

log = logging.getLogger(__name__)

# The clip itself was refused: no invocation was used up by it.
_NOT_TAKEN = frozenset((Status.ORDER, Status.LENGTH, Status.PLACEMENT, Status.CLIP, Status.AGREEMENT, Status.RATE,
                        Status.LOCKED, Status.FULL))

TRANSPORTS: Dict[str, Type[Transport]] = {kind.name: kind for kind in (WindowTransport, MessageTransport)}


@dataclass(frozen=True)
class Cost:
    """What one operation cost. bytes: all that crossed the boundary, through messages and window."""

    round_trips: int
    messages: int
    bytes: int
    accelerator_s: float
    wall_s: float


class Outcome(NamedTuple):
    """The sealed records of one clip, how many attempts it took, and their cost together.

    records  : one for each recipient, as far as they fitted the last answer; the client fetches later ones
    emission : of the last of them, the fetched ones included: to be confirmed when all are stored
    """

    records: Tuple[bytes, ...]
    emission: int
    failed: bool
    attempts: int
    cost: Cost

    @property
    def record(self) -> bytes:
        """The first recipient's."""
        return self.records[0]


class _Prepared(NamedTuple):
    invocation: int
    subtract: List[np.ndarray]  # U + pad per product


class Bridge:
    """One evaluation application, one accelerator.

    fallback : serves the last attempt, and products at which the accelerator fails; the accelerator
               itself where it is None
    """

    def __init__(self, client: EvalClient, accelerator: Accelerator, transport: str = WindowTransport.name,
                 fallback: Optional[Accelerator] = None) -> None:
        self._client = client
        self._accelerator = accelerator
        self._fallback = fallback or accelerator
        self._transport_kind = TRANSPORTS[transport]
        self._transport: Optional[Transport] = None
        self._w_bar: List[np.ndarray] = []
        self._weights: Dict[Tuple[Accelerator, int], Any] = {}
        self._prepared: Dict[int, Deque[_Prepared]] = {}  # by persons
        self._accelerator_s = 0.0

    def load(self, package: bytes, slot: int, placement: wire.Placement) -> LoadedModel:
        """Load a package from a key slot; afterwards the accelerator holds every product's wbar."""
        self._forget()
        model = self._client.load(package, slot, placement)
        self._transport = self._transport_kind(self._client, model)
        for index in range(model.head.products):
            self._w_bar.append(self._transport.weights(index))
            self._weights_of(self._accelerator, index)
        log.info("model load %d: placement %s, %d products in %d steps, transport %s", model.head.load,
                 wire.Placement(model.head.placement).name, model.head.products, model.head.steps, self._transport.name)
        return model

    def prepare(self, persons: int) -> Cost:
        """Have U + pad computed ahead for the next clip of so many persons."""
        transport = self._loaded()
        meter = self._meter()
        invocation = self._client.open_prepare(persons)
        subtract = [transport.prepared(index, persons) for index in range(transport.model.head.products)]
        self._prepared.setdefault(persons, deque()).append(_Prepared(invocation, subtract))
        return self._cost(meter)

    def prepared(self, persons: int) -> int:
        """How many preparations for so many persons are in stock."""
        return len(self._prepared.get(persons, ()))

    def evaluate(self, session: int, number: int, sealed: bytes) -> Outcome:
        """Evaluate one sealed clip, as often as the rule permits; its sealed records.

        Takes a prepared invocation of as many persons where there is one. Raises EnclaveError where
        the enclave is away or refuses the clip itself.
        """
        meter = self._meter()
        persons = self._persons_of(sealed)
        for attempt in range(1, wire.EVAL_ATTEMPTS_MAX + 1):
            accelerator = self._fallback if attempt == wire.EVAL_ATTEMPTS_MAX else self._accelerator
            try:
                ended = self._attempt(session, number, sealed, persons, accelerator)
                records, emission, failed = ended.records, ended.emission, False
            except InvocationRefused as refused:
                log.warning("session %d clip %d attempt %d on %s: %s", session, number, attempt, accelerator.name,
                            refused)
                records, emission, failed = refused.records, refused.emission, True
            except AcceleratorError as error:
                log.error("session %d clip %d given up, no accelerator works: %s", session, number, error)
                ended = self.give_up(session)
                records, emission, failed = ended.records, ended.emission, True
            if records:
                return Outcome(records, emission, failed, attempt, self._cost(meter))
        raise EnclaveError("session {} clip {}: refused {} times without a record".format(
            session, number, wire.EVAL_ATTEMPTS_MAX))

    def give_up(self, session: int) -> Progress:
        """End the session's unfinished clip: its records `failed`, which are to be delivered like any other.

        No records where the clip was not accepted yet. Raises EnclaveError (ORDER) where there is none.
        """
        return self._client.abort_clip(session)

    def close(self) -> None:
        """Detach from the enclave and take the weights off the accelerator; both stay usable."""
        self._forget()

    def _attempt(self, session: int, number: int, sealed: bytes, persons: int, accelerator: Accelerator) -> Progress:
        transport = self._loaded()
        ready = self._prepared.get(persons)
        prepared = ready.popleft() if ready else None
        try:
            progress = transport.begin(session, number, prepared.invocation if prepared else 0, sealed)
        except EnclaveError as error:
            if ready is not None and prepared is not None and error.status in _NOT_TAKEN:
                ready.appendleft(prepared)
            raise
        while not progress.records:
            due = [index for index, product in enumerate(transport.model.products) if product.step == progress.step]
            answers = []
            for index in due:
                x_bar = transport.x_bar(index, persons)
                subtract = prepared.subtract[index] if prepared else None
                answers.append((index, self._compute(accelerator, index, x_bar, subtract,
                                                     transport.y_bar(index, persons))))
            for index, y_bar in answers:
                transport.submit(index, y_bar)
            progress = self._client.end_step(progress.step)
        return progress

    def _compute(self, accelerator: Accelerator, index: int, x_bar: np.ndarray, subtract: Optional[np.ndarray],
                 out: np.ndarray) -> np.ndarray:
        begin = time.perf_counter()
        try:
            return self._convolve(accelerator, index, x_bar, subtract, out)
        except AcceleratorError as error:
            if accelerator is self._fallback:
                raise
            # Nothing of this product was handed in yet: the same masked product may be made elsewhere.
            log.warning("product %d: %s failed (%s), taken over by %s", index, accelerator.name, error,
                        self._fallback.name)
            return self._convolve(self._fallback, index, x_bar, subtract, out)
        finally:
            self._accelerator_s += time.perf_counter() - begin

    def _convolve(self, accelerator: Accelerator, index: int, x_bar: np.ndarray, subtract: Optional[np.ndarray],
                  out: np.ndarray) -> np.ndarray:
        product = self._loaded().model.products[index]
        return accelerator.convolve(self._weights_of(accelerator, index), x_bar, product.stride, product.pad,
                                    subtract, out)

    def _weights_of(self, accelerator: Accelerator, index: int) -> Any:
        key = (accelerator, index)
        if key not in self._weights:
            self._weights[key] = accelerator.weights(self._w_bar[index])
        return self._weights[key]

    def _persons_of(self, sealed: bytes) -> int:
        """The size of a sealed clip tells its persons, by design; what else it holds stays sealed."""
        head = self._loaded().model.head
        for persons in range(head.persons + 1):
            if wire.sealed_clip_bytes(persons, head.frames, head.joints) == len(sealed):
                return persons
        raise PackageError("sealed clip of {} bytes: no number of persons up to {} gives that for {} frames of {} "
                           "joints".format(len(sealed), head.persons, head.frames, head.joints))

    def _loaded(self) -> Transport:
        if self._transport is None:
            raise EnclaveError("no model is loaded: call load first")
        return self._transport

    def _forget(self) -> None:
        if self._transport is not None:
            self._transport.close()
            self._transport = None
        for (accelerator, _), weights in self._weights.items():
            accelerator.release(weights)
        self._weights.clear()
        self._w_bar.clear()
        self._prepared.clear()

    def _meter(self) -> Tuple[int, int, int, float, float]:
        traffic = self._client.connection.traffic
        moved = self._loaded().window_bytes_moved
        return traffic.round_trips, traffic.messages, traffic.bytes + moved, self._accelerator_s, time.perf_counter()

    def _cost(self, before: Tuple[int, int, int, float, float]) -> Cost:
        now = self._meter()
        return Cost(*(ended - begun for ended, begun in zip(now, before)))  # type: ignore[arg-type]
