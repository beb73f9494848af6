"""An accelerator that may fail, hang or be absent, watched: the identical product is then made on another one.

The watched one works in a thread of its own. One that has not answered in time is left alone with its thread and its
memory, for a device that hangs cannot be told to stop; nothing it writes later is looked at. From then on the spare
one computes, and every now and then, with growing pauses, a new thread opens the device anew and makes a product that
is known. Only when that is right does the device get work again.

A driver that hangs inside one of its own calls may hold Python's lock: then the process' watchdog ends it, and what
comes next begins anew.
"""

import logging
import queue
import threading
import time
from typing import Any, Callable, List, NamedTuple, Optional, Union

import numpy as np

from edged.errors import AcceleratorError
from edged.offload.product import Accelerator, convolution_shape, masked_convolution, require_out

log = logging.getLogger(__name__)

TIMEOUT_S = 10.0   # for one product, or to take one product's weights over
OPEN_S = 30.0      # to open the device, kernels compiled and measured
REFUSALS_MAX = 2   # clips in a row that a device could not do and the spare one could
LEFT_MAX = 2       # threads that hang before no further one is begun: only a new process helps then
PARTING_S = 0.05   # for a thread to notice that the process ends
FIRST_S, LAST_S = 5.0, 600.0  # before the device is tried again


class _Handle:
    """Weights, as both accelerators hold them; the watched one's belong to one opening of it."""

    def __init__(self, w_bar: np.ndarray) -> None:
        self.w_bar = w_bar
        self.spare: Any = None
        self.device: Any = None
        self.opening = -1


class _Job(NamedTuple):
    act: Callable[[Accelerator], Any]
    done: "queue.Queue[Any]"


class _Worker:
    """A thread that opens an accelerator and does jobs on it, one after the other, until it is told to end."""

    def __init__(self, opened: Callable[[], Accelerator]) -> None:
        self._opened = opened
        self._jobs: "queue.Queue[Optional[_Job]]" = queue.Queue()
        self.ready: "queue.Queue[Any]" = queue.Queue()
        self.name = ""
        self._accelerator: Optional[Accelerator] = None
        self._thread = threading.Thread(target=self._run, name="accelerator", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            accelerator = self._accelerator = self._opened()
        except Exception as error:  # whatever a driver's binding raises
            self.ready.put(error)
            return
        self.name = accelerator.name
        try:
            prove(accelerator)
        except Exception as error:
            self._close(accelerator)
            self.ready.put(error)
            return
        self.ready.put(None)
        while True:
            job = self._jobs.get()
            if job is None:
                self._close(accelerator)
                return
            try:
                found = job.act(accelerator)
            except Exception as error:
                found = error
            job.done.put(found)

    def _close(self, accelerator: Accelerator) -> None:
        try:
            accelerator.close()
        except Exception as error:  # of a context that is dead
            log.info("%s cannot be closed: %s", self.name, _explained(error))

    def do(self, act: Callable[[Accelerator], Any], timeout_s: float) -> Any:
        """What ``act`` returns. Raises AcceleratorError where it fails, or has not ended in time."""
        return self.end_of(self.begin(act), timeout_s)

    def begin(self, act: Callable[[Accelerator], Any]) -> _Job:
        """It is done after all that was begun before."""
        job = _Job(act, queue.Queue())
        self._jobs.put(job)
        return job

    def end_of(self, job: _Job, timeout_s: float) -> Any:
        """As ``do``, of what was begun."""
        try:
            found = job.done.get(timeout=timeout_s)
        except queue.Empty:
            raise AcceleratorError("no answer within {:g} s".format(timeout_s)) from None
        if isinstance(found, Exception):
            raise _explained(found) from found
        return found

    def end(self, timeout_s: float) -> None:
        self._jobs.put(None)
        self._thread.join(timeout_s)

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def abandon(self) -> None:
        """The process ends."""
        if self._accelerator is not None:
            self._accelerator.abandon()


class _Staged:
    """What is to be subtracted, and the job that has a worker's accelerator take it."""

    def __init__(self, words: np.ndarray, worker: Optional[_Worker]) -> None:
        self.words, self.worker = words, worker
        self._job = None if worker is None else worker.begin(lambda accelerator: accelerator.stage(words))
        self._there: Any = None

    def there(self, timeout_s: float) -> Any:
        """As the worker's accelerator knows it. Raises AcceleratorError where it could not take it."""
        if self._job is not None:
            assert self.worker is not None
            self._there, self._job = self.worker.end_of(self._job, timeout_s), None
        return self._there


def prove(accelerator: Accelerator) -> None:
    """One small product of every kind of word. Raises AcceleratorError where it is wrong."""
    rng = np.random.default_rng(20)
    w_bar = rng.integers(0, 1 << 32, (5, 3, 7), dtype=np.uint32)
    x_bar = rng.integers(0, 1 << 32, (2, 9, 3, 7), dtype=np.uint32)
    w_bar[0], x_bar[0, 0] = 0xFFFFFFFF, 0xFFFFFFFF
    weights = accelerator.weights(w_bar)
    try:
        if not np.array_equal(accelerator.convolve(weights, x_bar, 2, 1), masked_convolution(w_bar, x_bar, 2, 1)):
            raise AcceleratorError("a known product came out wrong")
    finally:
        accelerator.release(weights)


class GuardedAccelerator(Accelerator):
    """``opened`` opens the device, and may raise or hang; ``spare`` computes meanwhile, and belongs to the caller.

    changed : told the accelerator's name and, where it is the spare one, why
    required : raise AcceleratorError where the device cannot be opened at the start
    """

    def __init__(self, opened: Callable[[], Accelerator], spare: Accelerator,
                 changed: Callable[[str, str], None] = lambda name, reason: None, required: bool = False,
                 timeout_s: float = TIMEOUT_S, open_s: float = OPEN_S, first_s: float = FIRST_S,
                 last_s: float = LAST_S, clock: Callable[[], float] = time.monotonic) -> None:
        self._opened, self._spare, self._changed, self._clock = opened, spare, changed, clock
        self._timeout_s, self._open_s, self._first_s, self._last_s = timeout_s, open_s, first_s, last_s
        self._worker: Optional[_Worker] = None
        self._trial: Optional[_Worker] = None  # on its way
        self._left: List[_Worker] = []  # whose threads may still hang
        self._trial_until_s = self._due_s = 0.0
        self._pause_s, self._required = first_s, required
        self._refusals = 0
        self._opening = 0
        self.reason = ""
        self._try()
        assert self._trial is not None
        self._await(self._trial, open_s)
        if self._worker is None and required:
            self.close()
            raise AcceleratorError(self.reason)

    @property
    def name(self) -> str:  # type: ignore[override]
        """Of whoever computes now."""
        return self._spare.name if self._worker is None else self._worker.name

    def weights(self, w_bar: np.ndarray) -> _Handle:
        handle = _Handle(w_bar)
        if self._worker is not None:
            try:
                self._on_device(self._worker, handle)
            except AcceleratorError as error:
                self._give_up(error)
        if self._worker is None:
            handle.spare = self._spare.weights(w_bar)
        return handle

    def convolve(self, weights: _Handle, x_bar: np.ndarray, stride: int, pad: int,
                 subtract: Union[np.ndarray, _Staged, None] = None, out: Optional[np.ndarray] = None) -> np.ndarray:
        return self.start(weights, x_bar, stride, pad, subtract, out)()

    def start(self, weights: _Handle, x_bar: np.ndarray, stride: int, pad: int,
              subtract: Union[np.ndarray, _Staged, None] = None,
              out: Optional[np.ndarray] = None) -> Callable[[], np.ndarray]:
        """As ``Accelerator.start``. What began on a device that fails before it ends is computed by the spare one."""
        minus = subtract.words if isinstance(subtract, _Staged) else subtract
        shape = convolution_shape(weights.w_bar, x_bar, stride, pad, minus)
        if out is not None:
            require_out(out, shape)
        self._look()
        worker, begun = self._worker, None
        if worker is not None:
            try:
                device = self._on_device(worker, weights)
                there = subtract.there(self._timeout_s) if isinstance(subtract, _Staged) and \
                    subtract.worker is worker else minus
                begun = worker.begin(lambda accelerator: accelerator.start(device, x_bar, stride, pad, there))
            except AcceleratorError as error:
                self._give_up(error)

        def finish() -> np.ndarray:
            if begun is not None and worker is not None and worker is self._worker:
                try:
                    ending = worker.end_of(begun, self._timeout_s)
                    # Never into ``out``: a device that answers too late writes into what is its own.
                    found = worker.do(lambda accelerator: ending(), self._timeout_s)
                except AcceleratorError as error:
                    self._give_up(error)
                else:
                    if out is None:
                        return np.array(found)
                    out[...] = found
                    return out
            if weights.spare is None:
                weights.spare = self._spare.weights(weights.w_bar)
            return self._spare.convolve(weights.spare, x_bar, stride, pad, minus, out)

        return finish

    def stage(self, subtract: np.ndarray) -> _Staged:
        return _Staged(subtract, self._worker)

    def unstage(self, staged: _Staged) -> None:
        if self._worker is not None and staged.worker is self._worker:
            try:
                there = staged.there(self._timeout_s)
                self._worker.begin(lambda accelerator: accelerator.unstage(there))
            except AcceleratorError as error:
                self._give_up(error)

    def release(self, weights: _Handle) -> None:
        if weights.spare is not None:
            self._spare.release(weights.spare)
        if self._worker is not None and weights.opening == self._opening:
            try:
                self._worker.do(lambda accelerator: accelerator.release(weights.device), self._timeout_s)
            except AcceleratorError as error:
                self._give_up(error)

    def close(self) -> None:
        """Of the device; the spare one stays its owner's."""
        for worker in (self._worker, self._trial):
            if worker is not None:
                worker.end(self._timeout_s)
                self._left.append(worker)
        self._worker = self._trial = None
        self._left = [worker for worker in self._left if worker.alive]
        for worker in self._left:
            worker.abandon()
        if self._left:
            time.sleep(PARTING_S)

    def judged(self, right: bool) -> None:
        """As ``Accelerator.judged``. Only what the enclave believed makes the pauses short again."""
        if self._worker is None:
            return
        if right:
            self._pause_s, self._refusals = self._first_s, 0
            return
        self._refusals += 1
        if self._refusals >= REFUSALS_MAX:
            self._give_up(AcceleratorError("the enclave refuses its products, and takes the same from {}".format(
                self._spare.name)))

    def _on_device(self, worker: _Worker, handle: _Handle) -> Any:
        if handle.opening != self._opening:
            handle.device = worker.do(lambda accelerator: accelerator.weights(handle.w_bar), self._timeout_s)
            handle.opening = self._opening
        return handle.device

    def _give_up(self, error: AcceleratorError) -> None:
        """The device is not asked again before its time; its thread ends when, and if, it ever comes to it."""
        assert self._worker is not None
        self._leave(self._worker)
        self._worker = None
        self._later(str(error))

    def _leave(self, worker: _Worker) -> None:
        worker.end(0)
        self._left = [one for one in self._left if one.alive] + [worker]

    def _later(self, reason: str) -> None:
        self.reason = reason
        self._due_s = self._clock() + self._pause_s
        self._pause_s = min(2 * self._pause_s, self._last_s)
        if self._opening or not self._required:  # else whoever opens it is told by an error
            self._changed(self._spare.name, reason)

    def _look(self) -> None:
        """Between two products: is the device back, or is it time to try?"""
        if self._worker is not None:
            return
        if self._trial is not None:
            self._await(self._trial, 0)
        elif self._clock() >= self._due_s:
            self._left = [worker for worker in self._left if worker.alive]
            if len(self._left) < LEFT_MAX:
                self._try()

    def _try(self) -> None:
        self._trial = _Worker(self._opened)
        self._trial_until_s = self._clock() + self._open_s

    def _await(self, trial: _Worker, wait_s: float) -> None:
        try:
            found = trial.ready.get(timeout=wait_s) if wait_s else trial.ready.get_nowait()
        except queue.Empty:
            if wait_s or self._clock() >= self._trial_until_s:
                self._trial = None
                self._leave(trial)
                self._later("the device cannot be opened within {:g} s".format(self._open_s))
            return
        self._trial = None
        if found is not None:
            self._later(str(_explained(found)))
            return
        self._worker, self.reason = trial, ""
        self._opening += 1
        self._refusals = 0
        self._changed(trial.name, "")


def _explained(error: Exception) -> AcceleratorError:
    if isinstance(error, AcceleratorError):
        return error
    return AcceleratorError("{}: {}".format(type(error).__name__, " ".join(str(error).split()) or "no reason given"))
