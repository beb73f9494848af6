"""Whatever the GPU returns, the enclave's answer is right or the clip is refused: the whole path, from the sealed clip
to the record, with a driver that is none and faults in it.
"""

import time

import numpy as np
import pytest

from attacks.networks import integer_model, random_coordinates
from attacks.node import MODEL_SLOT, AttackNode
from kernels.fake_pycuda import Error
from edged.enclave.wire import Placement, RecordKind
from edged.errors import EnclaveError
from edged.model import reference
from edged.offload import cubins, cuda
from edged.offload.bridge import Bridge
from edged.offload.cpu import CpuAccelerator
from edged.offload.cuda import CudaAccelerator
from edged.offload.guard import GuardedAccelerator
from edged.offload.transport import WindowTransport

MODEL = integer_model(3, ((8, 1), (12, 2), (12, 1)), 26, 18)
TIMEOUT_S = 60.0


class Rig:
    """A running enclave, a camera, a bridge with a watched GPU that is none."""

    def __init__(self, node, device, folder):
        self.device, self.now_s, self.told = device, 0.0, []
        self.spare = CpuAccelerator(1)
        self.guard = GuardedAccelerator(lambda: CudaAccelerator(folder), self.spare,
                                        lambda name, reason: self.told.append((name, reason)), timeout_s=TIMEOUT_S,
                                        clock=lambda: self.now_s)
        self.rng = np.random.default_rng(6)
        self.connect(node)

    def connect(self, node):
        self.node = node
        self.bridge = Bridge(node.client, self.guard, "window", self.spare)
        self.bridge.load(node.pack(MODEL), MODEL_SLOT, Placement.MASKED)
        self.camera = node.camera()

    def clip(self, ahead=False):
        """Evaluate one; the record's kind and how many attempts it took. An observation is the reference's."""
        clip = random_coordinates(self.rng, MODEL.shape, 2)
        expected = reference.run(MODEL, clip)
        self.node.make_room()
        if ahead:
            self.bridge.prepare(2)
        outcome = self.bridge.evaluate(self.camera.session, *self.node.seal(self.camera, clip))
        record = self.node.open(outcome.record)
        if record.kind == RecordKind.OBSERVATION:
            assert record.logits == tuple(expected[0]) and record.probabilities == tuple(expected[1])
        return record.kind, outcome.attempts

    def close(self):
        self.device.trouble.__init__()
        self.bridge.close()
        self.guard.close()
        self.spare.close()


@pytest.fixture(autouse=True)
def two_kernels(monkeypatch):
    """That all of them are exact is shown elsewhere; by fibers they take their time."""
    monkeypatch.setattr(cubins, "KERNELS", {name: cubins.KERNELS[name] for name in ("direct", "dots")})


@pytest.fixture(scope="module")
def node():
    with AttackNode() as running:
        yield running


@pytest.fixture
def rig(node, device, folder, monkeypatch):
    monkeypatch.setattr(cuda, "PIECE_BYTES", 4000)
    monkeypatch.setattr(cuda, "TRIALS", 1)
    made = Rig(node, device, folder)
    assert made.guard.name == "cuda (Fake GPU)"
    yield made
    made.close()


@pytest.mark.parametrize("ahead", [False, True], ids=["on line", "ahead"])
def test_a_sound_gpu_gives_the_references_answer(rig, ahead):
    for _ in range(3):
        assert rig.clip(ahead) == (RecordKind.OBSERVATION, 1)
    assert rig.guard.name.startswith("cuda") and not [reason for _, reason in rig.told if reason]


def flipping(rig, word, bit, once=True):
    left = [1]

    def on_kernel(run, y):
        run()
        if left:
            y[word % len(y)] ^= np.uint32(1 << bit)
            if once:
                left.pop()

    return on_kernel


@pytest.mark.parametrize("word, bit", [(0, 0), (1, 31), (17, 7), (300, 16)])
def test_a_bit_flipped_once_costs_one_attempt(rig, word, bit):
    rig.clip()  # every shape was measured
    rig.device.trouble.on_kernel = flipping(rig, word, bit)
    assert rig.clip() == (RecordKind.OBSERVATION, 2)
    assert rig.clip() == (RecordKind.OBSERVATION, 1)


def test_bits_that_always_flip_leave_the_last_attempt_to_the_cpu(rig):
    rig.clip()
    rig.device.trouble.on_kernel = flipping(rig, 5, 3, once=False)
    for _ in range(2):
        assert rig.clip() == (RecordKind.OBSERVATION, 3)
    assert rig.told[-1] == ("cpu", "the enclave refuses its products, and takes the same from cpu")
    assert rig.clip() == (RecordKind.OBSERVATION, 1)  # the GPU is not asked again before its time


@pytest.mark.parametrize("nothing", [
    lambda run, y: None,                # stale: what the last product left there
    lambda run, y: y.fill(0),
    lambda run, y: run() or y[::2].fill(0xFFFFFFFF),
], ids=["nothing written", "zeros", "every other word"])
def test_a_kernel_that_does_not_do_its_work_is_noticed(rig, nothing):
    rig.clip()
    rig.device.trouble.on_kernel = nothing
    assert rig.clip() == (RecordKind.OBSERVATION, 3)


def test_the_result_of_another_product_is_noticed(rig):
    """Stale results: each kernel hands out what the one before it made."""
    rig.clip()
    before, handed_out = {}, []

    def on_kernel(run, y):
        run()
        made = y.copy()
        if len(y) in before:
            y[:] = before[len(y)]
            handed_out.append(len(y))
        before[len(y)] = made

    rig.device.trouble.on_kernel = on_kernel
    kind, attempts = rig.clip()
    assert kind == RecordKind.OBSERVATION and attempts > 1 and handed_out


def test_events_that_are_over_before_the_work_is_are_noticed(rig):
    rig.clip()
    rig.device.trouble.early = True
    assert rig.clip() == (RecordKind.OBSERVATION, 3)
    rig.device.trouble.early = False


@pytest.mark.parametrize("name", ["launch", "query", "record", "memcpy_htod", "mem_alloc", "pagelocked_empty"])
def test_a_context_that_is_killed_costs_no_clip_and_the_gpu_comes_back(rig, name):
    rig.clip()
    rig.device.trouble.raising = {call: Error("context is destroyed") for call in (name, "launch", "make_context")}
    assert rig.clip() == (RecordKind.OBSERVATION, 1)  # the identical product was made by the CPU
    assert rig.guard.name == "cpu" and rig.told[-1] == ("cpu", "CUDA: context is destroyed")
    launched = len(rig.device.launched)
    assert rig.clip() == (RecordKind.OBSERVATION, 1) and len(rig.device.launched) == launched
    rig.device.trouble.raising = {}
    rig.now_s += 10
    deadline = time.monotonic() + 20
    while rig.guard.name == "cpu":
        assert rig.clip() == (RecordKind.OBSERVATION, 1) and time.monotonic() < deadline
    assert rig.clip() == (RecordKind.OBSERVATION, 1) and len(rig.device.launched) > launched


@pytest.mark.parametrize("where", [None, "submit", "prepared", "x_bar"])
def test_a_connection_that_breaks_anywhere_leaves_nothing_on_the_gpu(device, folder, where):
    """The guard, and what it holds, outlive it. where : of the transport's moves, the one at which it breaks"""
    rig, held = None, []
    sound = where and getattr(WindowTransport, where)
    for _ in range(4):
        with AttackNode() as node, pytest.MonkeyPatch.context() as patch:
            if rig is None:
                rig = Rig(node, device, folder)
            else:
                rig.connect(node)
            rig.clip(True)
            rig.bridge.prepare(2)
            if where is not None:
                left = [3]

                def move(*given):
                    if not left[0]:
                        node.enclave.stop()
                        raise EnclaveError("the connection broke")
                    left[0] -= 1
                    return sound(*given)

                patch.setattr(WindowTransport, where, move)
                with pytest.raises(EnclaveError):
                    rig.clip(True)
            node.enclave.stop()
            with pytest.raises(EnclaveError):
                rig.bridge.close()
        gpu = rig.guard._worker.do(lambda accelerator: accelerator, TIMEOUT_S)
        assert len(gpu._idle) == len(gpu._buffers) and len(gpu._unstaged) == len(gpu._staging)
        held.append(len(device.allocations))
    assert held[1:] == held[:1] * 3
    rig.guard.close()
    rig.spare.close()
    assert not device.allocations


def test_a_gpu_that_hangs_costs_no_clip(rig):
    rig.clip()
    rig.device.trouble.hanging, rig.guard._timeout_s = True, 1.0
    assert rig.clip() == (RecordKind.OBSERVATION, 1)
    assert rig.told[-1] == ("cpu", "no answer within 1 s")
    assert rig.clip() == (RecordKind.OBSERVATION, 1)


def test_a_gpu_out_of_memory_at_the_first_weights_leaves_a_node_that_works(node, device, folder):
    rig = None
    device.trouble.raising = {"mem_alloc": MemoryError("cuMemAlloc failed: out of memory")}
    try:
        rig = Rig(node, device, folder)
        assert rig.guard.name == "cpu" and "out of memory" in rig.guard.reason
        assert rig.clip() == (RecordKind.OBSERVATION, 1)
    finally:
        if rig is not None:
            rig.close()
