"""The watched accelerator: whatever the device does, each product is made, and the device gets its chance again."""

import threading
import time

import numpy as np
import pytest

from edged.errors import AcceleratorError, ShapeError
from edged.offload.guard import GuardedAccelerator
from edged.offload.product import NumpyAccelerator, masked_convolution

TIMEOUT_S = 0.5


class Device(NumpyAccelerator):
    """``trouble`` is what the next products meet."""

    name = "device"

    def __init__(self, bench):
        self.bench, self.own = bench, np.zeros(1, np.uint32)
        bench.opened += 1
        if bench.opening is not None:
            bench.opening()

    def weights(self, w_bar):
        self.bench.meet("weights")
        return super().weights(w_bar)

    def convolve(self, weights, x_bar, stride, pad, subtract=None, out=None):
        assert out is None, "the device writes into memory of its own alone"
        self.bench.threads.add(threading.current_thread().name)
        self.bench.meet("convolve")
        self.own = super().convolve(weights, x_bar, stride, pad, subtract)
        self.bench.convolved += 1
        return self.own

    def release(self, weights):
        self.bench.meet("release")

    def close(self):
        self.bench.closed += 1


class Bench:
    def __init__(self):
        self.opening = None
        self.troubles = {}
        self.opened = self.closed = self.convolved = 0
        self.threads, self.told = set(), []
        self.now_s = 0.0
        self.gone = threading.Event()  # lets what hangs go, at the end

    def meet(self, what):
        trouble = self.troubles.get(what)
        if trouble is not None:
            trouble()

    def hang(self):
        self.gone.wait(30)

    def guarded(self, **more):
        return GuardedAccelerator(lambda: Device(self), NumpyAccelerator(),
                                  lambda name, reason: self.told.append((name, reason)), timeout_s=TIMEOUT_S,
                                  open_s=TIMEOUT_S, clock=lambda: self.now_s, **more)


@pytest.fixture
def bench():
    made = Bench()
    yield made
    made.gone.set()


def fail():
    raise RuntimeError("the bus\nfell off")


def words(seed, *shape):
    return np.random.default_rng(seed).integers(0, 1 << 32, shape, dtype=np.uint32)


W, X = words(1, 5, 3, 4), words(2, 2, 9, 3, 4)
EXPECTED = masked_convolution(W, X, 1, 1)


def right(guard, weights, seed=2):
    x = words(seed, 2, 9, 3, 4)
    out = np.zeros_like(EXPECTED)
    assert guard.convolve(weights, x, 1, 1, out=out) is out
    assert np.array_equal(out, masked_convolution(W, x, 1, 1))
    assert np.array_equal(guard.convolve(weights, x, 1, 1, EXPECTED), masked_convolution(W, x, 1, 1) - EXPECTED)


def until(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def returns(guard, bench, weights):
    """At the next product, or soon after, the device computes again."""
    def back():
        right(guard, weights)
        return guard.name == "device"

    until(back)


def test_a_sound_device_computes_in_a_thread_of_its_own(bench):
    guard = bench.guarded()
    weights = guard.weights(W)
    before = bench.convolved
    right(guard, weights)
    assert guard.name == "device" and bench.convolved == before + 2 and bench.threads == {"accelerator"}
    assert bench.told == [("device", "")]
    guard.release(weights)
    guard.close()
    assert bench.closed == 1


def test_results_are_the_callers_own(bench):
    guard = bench.guarded()
    weights = guard.weights(W)
    first = guard.convolve(weights, X, 1, 1)
    second = guard.convolve(weights, words(3, 2, 9, 3, 4), 1, 1)
    assert np.array_equal(first, EXPECTED) and not np.array_equal(first, second)
    guard.close()


@pytest.mark.parametrize("what", ["convolve", "weights"])
@pytest.mark.parametrize("trouble", ["fails", "hangs"])
def test_a_product_at_which_it_fails_or_hangs_is_made_by_the_spare_one(bench, what, trouble):
    guard = bench.guarded()
    weights = guard.weights(W)
    bench.troubles[what] = bench.hang if trouble == "hangs" else fail
    if what == "weights":
        weights = guard.weights(W)
    right(guard, weights)
    assert guard.name == "numpy"
    reason = "no answer within 0.5 s" if trouble == "hangs" else "RuntimeError: the bus fell off"
    assert bench.told[-1] == ("numpy", reason) and guard.reason == reason
    opened = bench.opened
    for _ in range(5):  # not asked again before its time
        right(guard, weights)
    assert bench.opened == opened
    bench.troubles.clear()
    bench.now_s += 10
    returns(guard, bench, weights)
    assert bench.told[-1] == ("device", "") and guard.reason == ""
    right(guard, weights)
    guard.close()


def test_what_a_device_writes_too_late_is_in_nobodys_result(bench):
    guard = bench.guarded()
    weights = guard.weights(W)
    bench.troubles["convolve"] = bench.hang
    out = np.zeros_like(EXPECTED)
    guard.convolve(weights, X, 1, 1, out=out)
    before = bench.convolved
    bench.troubles.clear()
    out[...] = 7
    bench.gone.set()
    until(lambda: bench.convolved > before)
    assert (out == 7).all()
    until(lambda: bench.closed == 1)  # and then its thread ends
    guard.close()


def test_the_pauses_before_it_is_tried_again_grow_up_to_a_limit(bench):
    guard = bench.guarded(first_s=2, last_s=9)
    weights = guard.weights(W)
    bench.troubles["convolve"] = fail
    right(guard, weights)
    for pause in (2, 4, 8, 9, 9):
        assert guard._due_s - bench.now_s == pause
        opened, told = bench.opened, len(bench.told)
        bench.now_s += pause - 0.1
        right(guard, weights)
        assert bench.opened == opened
        bench.now_s += 0.1
        until(lambda: right(guard, weights) or len(bench.told) > told)  # at its known product it fails, too
        assert bench.opened == opened + 1
    bench.troubles.clear()
    bench.now_s += 9
    returns(guard, bench, weights)
    bench.troubles["convolve"] = fail
    right(guard, weights)
    assert guard._due_s - bench.now_s == 9  # its known product is no proof
    bench.troubles.clear()
    bench.now_s += 9
    returns(guard, bench, weights)
    guard.judged(True)
    bench.troubles["convolve"] = fail
    right(guard, weights)
    assert guard._due_s - bench.now_s == 2  # that the enclave believes it is
    guard.close()


def test_a_device_whose_products_are_refused_is_given_up_and_said_so(bench):
    guard = bench.guarded()
    weights = guard.weights(W)
    for judgement in (False, True, False):
        guard.judged(judgement)
    assert guard.name == "device"
    guard.judged(False)
    assert guard.name == "numpy" and bench.told[-1] == ("numpy", guard.reason)
    assert guard.reason == "the enclave refuses its products, and takes the same from numpy"
    guard.judged(False)  # of the spare one: nobody else is left
    right(guard, weights)
    bench.now_s += 10
    returns(guard, bench, weights)
    guard.close()


def test_a_device_that_hangs_whenever_it_is_opened_leaves_two_threads_and_no_more(bench):
    bench.opening = bench.hang
    guard = bench.guarded()
    weights = guard.weights(W)
    for _ in range(8):
        bench.now_s += 1000
        right(guard, weights)
    assert bench.opened == 2 and "cannot be opened" in guard.reason
    bench.opening = None
    bench.gone.set()
    until(lambda: bench.closed == 2)
    bench.now_s += 1000
    returns(guard, bench, weights)
    guard.close()


def test_where_a_device_is_required_the_error_is_all_that_is_said(bench, caplog):
    bench.opening = fail
    with pytest.raises(AcceleratorError, match="RuntimeError: the bus fell off"):
        bench.guarded(required=True)
    assert bench.told == [] and not caplog.records


def test_a_device_that_answers_wrongly_at_its_known_product_gets_no_work(bench, monkeypatch):
    monkeypatch.setattr(Device, "convolve", lambda *given, **more: EXPECTED)
    guard = bench.guarded()
    assert guard.name == "numpy" and guard.reason == "a known product came out wrong"
    right(guard, guard.weights(W))
    guard.close()
    assert bench.opened == bench.closed == 1


def test_a_device_whose_closing_fails_ends_its_thread_quietly(bench, monkeypatch, capsys):
    monkeypatch.setattr(Device, "close", lambda self: fail())
    before = set(threading.enumerate())  # one that was abandoned stays for good
    guard = bench.guarded()
    bench.troubles["convolve"] = fail
    right(guard, guard.weights(W))
    until(lambda: set(threading.enumerate()) <= before)
    guard.close()
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("opening, reason", [
    (fail, "RuntimeError: the bus fell off"), ("hang", "cannot be opened within")])
def test_a_device_that_cannot_be_opened_is_replaced_or_where_it_is_required_refused(bench, opening, reason):
    bench.opening = bench.hang if opening == "hang" else opening
    with pytest.raises(AcceleratorError, match=reason):
        bench.guarded(required=True)
    guard = bench.guarded()
    assert guard.name == "numpy" and reason in guard.reason
    weights = guard.weights(W)
    right(guard, weights)
    bench.opening = None
    bench.now_s += 10
    returns(guard, bench, weights)
    guard.close()


def test_a_trial_that_hangs_does_not_stop_the_work_and_is_given_up(bench):
    guard = bench.guarded()
    weights = guard.weights(W)
    bench.troubles["convolve"] = fail
    right(guard, weights)
    bench.opening = bench.hang
    bench.now_s += 10
    begun = time.monotonic()
    for _ in range(20):
        right(guard, weights)
    assert time.monotonic() - begun < 10 and guard.name == "numpy"
    bench.now_s += TIMEOUT_S
    right(guard, weights)
    assert "cannot be opened within" in guard.reason
    bench.opening = None
    bench.troubles.clear()
    bench.now_s += 100
    returns(guard, bench, weights)
    guard.close()


def test_weights_released_meanwhile_are_forgotten_everywhere(bench):
    guard = bench.guarded()
    kept, gone = guard.weights(W), guard.weights(words(5, 5, 3, 4))
    bench.troubles["convolve"] = fail
    right(guard, kept)
    guard.release(gone)
    bench.troubles.clear()
    bench.now_s += 10
    returns(guard, bench, kept)
    guard.release(kept)
    guard.close()


def test_a_release_that_fails_costs_the_device_not_the_caller(bench):
    guard = bench.guarded()
    weights, other = guard.weights(W), guard.weights(W)
    bench.troubles["release"] = fail
    guard.release(other)
    assert guard.name == "numpy"
    right(guard, weights)
    guard.close()


def test_arrays_that_do_not_fit_are_the_callers_fault_and_no_reason_to_leave_the_device(bench):
    guard = bench.guarded()
    weights = guard.weights(W)
    with pytest.raises(ShapeError):
        guard.convolve(weights, words(2, 2, 9, 3, 5), 1, 1)
    with pytest.raises(ShapeError):
        guard.convolve(weights, X, 1, 1, out=np.zeros((1, 2, 3, 4), np.uint32))
    assert guard.name == "device"
    guard.close()


class Stager(Device):
    """Keeps what is staged by number, as a device keeps its own addresses."""

    def __init__(self, bench):
        super().__init__(bench)
        self.staged = {}

    def stage(self, subtract):
        self.bench.meet("stage")
        self.staged[len(self.staged)] = subtract.copy()
        return len(self.staged) - 1

    def unstage(self, staged):
        self.bench.meet("unstage")
        del self.staged[staged]

    def start(self, weights, x_bar, stride, pad, subtract=None, out=None):
        self.bench.meet("start")
        u = self.staged[subtract] if isinstance(subtract, int) else subtract

        def finish():
            self.bench.meet("finish")
            return self.convolve(weights, x_bar, stride, pad, u, out)
        return finish


def products(guarded, count=4):
    """Begun one after the other: (what ends it, what is expected, what was staged)."""
    made = []
    for seed in range(count):
        w, x = words(seed, 4, 3, 5), words(seed + 50, 2, 9, 3, 5)
        plain = masked_convolution(w, x, 1, 1)
        u = words(seed + 100, *plain.shape)
        staged = guarded.stage(u)
        made.append((guarded.start(guarded.weights(w), x, 1, 1, staged), plain - u, staged))
    return made


@pytest.fixture
def guarded(bench):
    made = GuardedAccelerator(lambda: Stager(bench), NumpyAccelerator(), lambda *what: bench.told.append(what),
                              timeout_s=TIMEOUT_S, open_s=TIMEOUT_S, clock=lambda: bench.now_s)
    yield made
    bench.gone.set()
    made.close()


def test_several_products_are_on_their_way_at_once(bench, guarded):
    for end, expected, staged in reversed(products(guarded)):
        assert np.array_equal(end(), expected)
        guarded.unstage(staged)
    assert bench.convolved == 5 and len(bench.told) == 1  # the known product, too


@pytest.mark.parametrize("where", ["stage", "start", "finish"])
@pytest.mark.parametrize("how", ["fails", "hangs"])
def test_what_is_on_its_way_when_the_device_fails_is_made_by_the_spare_one(bench, guarded, where, how):
    for end, expected, staged in products(guarded, 2):
        assert np.array_equal(end(), expected)
        guarded.unstage(staged)
    earlier = products(guarded, 2)
    bench.troubles[where] = fail if how == "fails" else bench.hang
    later = products(guarded, 2)
    for end, expected, staged in earlier + later:
        assert np.array_equal(end(), expected)
        guarded.unstage(staged)
    assert guarded.name == "numpy" and bench.told[-1][1]


def test_what_was_staged_on_a_device_that_was_opened_anew_is_not_asked_of_it(bench, guarded):
    held = guarded.stage(words(1, 2, 9, 3, 4))
    bench.troubles["start"] = fail
    for end, expected, _ in products(guarded, 1):
        assert np.array_equal(end(), expected)
    bench.troubles.clear()
    deadline = time.monotonic() + 10
    while guarded.name == "numpy" and time.monotonic() < deadline:
        bench.now_s += 1000.0
        for end, expected, _ in products(guarded, 1):
            assert np.array_equal(end(), expected)
    assert guarded.name == "device"
    w, x = words(3, 4, 3, 5), words(4, 2, 9, 3, 5)
    assert np.array_equal(guarded.convolve(guarded.weights(w), x, 1, 1, held),
                          masked_convolution(w, x, 1, 1) - words(1, 2, 9, 3, 4))
    guarded.unstage(held)
    assert guarded.name == "device"


def test_staging_does_not_wait_for_the_device(bench, guarded):
    let_go = threading.Event()
    bench.troubles["stage"] = lambda: let_go.wait(TIMEOUT_S / 2)
    staged = [guarded.stage(words(seed, 2, 9, 3, 4)) for seed in range(3)]
    let_go.set()
    for one in staged:
        guarded.unstage(one)
    assert guarded.name == "device"


def test_at_the_end_a_device_that_still_hangs_is_abandoned(bench, guarded, monkeypatch):
    abandoned = []
    monkeypatch.setattr(Stager, "abandon", lambda device: abandoned.append(device.bench), raising=False)
    for end, expected, _ in products(guarded, 1):
        assert np.array_equal(end(), expected)
    bench.troubles["finish"] = bench.hang
    for end, expected, _ in products(guarded, 1):
        assert np.array_equal(end(), expected)
    guarded.close()
    assert abandoned == [bench]
