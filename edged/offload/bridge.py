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
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Callable, Deque, Dict, List, NamedTuple, Optional, Tuple, Type

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
                        Status.LOCKED, Status.FULL, Status.MEMORY))
_LAST_NUMBER = (1 << 64) - 1  # of a session's clips: above all of them

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
    """U + pad per product, and where the accelerator has taken it."""

    invocation: int
    subtract: List[np.ndarray]
    staged: List[Any]


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
        prepared = _Prepared(invocation, [], [])
        try:
            for index in range(transport.model.head.products):
                prepared.subtract.append(transport.prepared(index, persons))
                # It travels while the enclave computes the next one.
                prepared.staged.append(self._accelerator.stage(prepared.subtract[-1]))
        except BaseException:
            self._unstage(prepared)
            raise
        self._prepared.setdefault(persons, deque()).append(prepared)
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
                self._accelerator.judged(attempt < wire.EVAL_ATTEMPTS_MAX)
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

    def probe(self, session: int) -> None:
        """Have the enclave say whether it would take a clip of this session now: one is announced, and given up before
        any of it is sent. It counts for nothing. Raises EnclaveError: why it would not."""
        head = self._loaded().model.head
        self._client.open_clip(session, 0, _LAST_NUMBER, 0, wire.sealed_clip_bytes(0, head.frames, head.joints))
        self._client.abort_clip(session)

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
            if ready is not None and prepared is not None:
                if error.status in _NOT_TAKEN:
                    ready.appendleft(prepared)
                else:
                    self._unstage(prepared)
            raise
        ending: List[Tuple[int, Callable[[], np.ndarray]]] = []
        try:
            while not progress.records:
                for index, product in enumerate(transport.model.products):
                    if product.step == progress.step:
                        x_bar = transport.x_bar(index, persons)
                        ending.append((index, self._begin(accelerator, index, x_bar, prepared,
                                                          transport.y_bar(index, persons))))
                while ending:
                    index, end = ending.pop(0)
                    transport.submit(index, end())
                progress = self._client.end_step(progress.step)
        finally:
            for _, end in ending:  # of a step that broke off: what they hold is held no longer
                with suppress(AcceleratorError):
                    end()
            if prepared is not None:
                self._unstage(prepared)
        return progress

    def _begin(self, accelerator: Accelerator, index: int, x_bar: np.ndarray, prepared: Optional[_Prepared],
               out: np.ndarray) -> Callable[[], np.ndarray]:
        """Begin one masked product; what is returned ends it, and gives ybar in ``out``."""
        product = self._loaded().model.products[index]

        def start(who: Accelerator) -> Callable[[], np.ndarray]:
            subtract = None
            if prepared is not None:
                subtract = (prepared.staged if who is self._accelerator else prepared.subtract)[index]
            return who.start(self._weights_of(who, index), x_bar, product.stride, product.pad, subtract, out)

        def attempt(who: Accelerator, act: Callable[[], Any]) -> Any:
            begin = time.perf_counter()
            try:
                return act()
            except AcceleratorError as error:
                if who is self._fallback:
                    raise
                # Nothing of this product was handed in yet: the same masked product may be made elsewhere.
                log.warning("product %d: %s failed (%s), taken over by %s", index, who.name, error,
                            self._fallback.name)
                return None
            finally:
                self._accelerator_s += time.perf_counter() - begin

        end = attempt(accelerator, lambda: start(accelerator))

        def ended() -> np.ndarray:
            made = None if end is None else attempt(accelerator, end)
            return attempt(self._fallback, lambda: start(self._fallback)()) if made is None else made

        return ended

    def _unstage(self, prepared: _Prepared) -> None:
        for staged in prepared.staged:
            self._accelerator.unstage(staged)

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
        transport, self._transport = self._transport, None
        try:
            if transport is not None:
                transport.close()
        finally:  # an enclave that is gone says so here; the accelerator outlives it
            for (accelerator, _), weights in self._weights.items():
                accelerator.release(weights)
            self._weights.clear()
            self._w_bar.clear()
            for ready in self._prepared.values():
                for prepared in ready:
                    self._unstage(prepared)
            self._prepared.clear()

    def _meter(self) -> Tuple[int, int, int, float, float]:
        traffic = self._client.connection.traffic
        moved = self._loaded().window_bytes_moved
        return traffic.round_trips, traffic.messages, traffic.bytes + moved, self._accelerator_s, time.perf_counter()

    def _cost(self, before: Tuple[int, int, int, float, float]) -> Cost:
        now = self._meter()
        return Cost(*(ended - begun for ended, begun in zip(now, before)))  # type: ignore[arg-type]
