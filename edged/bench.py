"""The benchmark: full-size ST-GCN in every placement, beside the same network unprotected.

One interleaved run - each clip goes through the rival and through every placement in turn, so that a
machine whose speed drifts drifts for all of them - and medians. The enclave's time is the CPU clock of
its two processes, not the wall's. Every placement has its own enclave, whose memory peak is its own.
What U + pad costs that is prepared ahead of a clip stands apart ("ahead"); "sustained" is both together.
Every answer is compared with the NumPy reference, bit for bit; one difference fails the run.
"""

import logging
import tempfile
import time
from contextlib import ExitStack
from statistics import median, median_low
from typing import Any, Dict, List, NamedTuple, Optional

import numpy as np

from edged.alerts.record import Observation
from edged.emulated import MODEL_SLOT, EmulatedNode
from edged.enclave import wire
from edged.errors import VerificationFailed
from edged.model import quantise, reference, stgcn
from edged.model.layers import Model
from edged.offload.bridge import Bridge, Cost
from edged.offload.cpu import CpuAccelerator
from edged.offload.product import Accelerator
from edged.rival import Rival

log = logging.getLogger(__name__)

PERSONS = 2
CALIBRATION_CLIPS = 2
SEED = 1


class Sample(NamedTuple):
    """One clip in one placement. ahead: what preparing U + pad cost before it."""

    enclave_cpu_s: float
    ahead_cpu_s: float
    cost: Cost
    ahead: Cost


NOTHING = Cost(round_trips=0, messages=0, bytes=0, accelerator_s=0.0, wall_s=0.0)


class Contender:
    """One placement with its own enclave."""

    def __init__(self, placement: wire.Placement, model: Model, transport: str, accelerator: Accelerator,
                 stack: ExitStack) -> None:
        self.placement = placement
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="edged-bench-"))
        self.node = stack.enter_context(EmulatedNode(folder))
        self._bridge = Bridge(self.node.eval, accelerator, transport)
        stack.callback(self._bridge.close)
        self._products = self._bridge.load(self.node.package(model), MODEL_SLOT, placement).head.products
        self.samples: List[Sample] = []

    def evaluate(self, clip: np.ndarray, logits: np.ndarray) -> Sample:
        """One clip. Raises VerificationFailed unless its logits are these."""
        number, sealed = self.node.seal(clip)
        start_s = self.node.enclave.cpu_s()
        ahead = self._bridge.prepare(len(clip)) if self._products else NOTHING
        ready_s = self.node.enclave.cpu_s()
        outcome = self._bridge.evaluate(self.node.session, number, sealed)
        end_s = self.node.enclave.cpu_s()
        seen = self.node.open(outcome.record)
        exact = isinstance(seen, Observation) and (seen.number, seen.logits) == (number, tuple(logits.tolist()))
        if outcome.failed or not exact:
            raise VerificationFailed("{}: clip {} differs from the reference".format(self.placement.name, number))
        return Sample(end_s - ready_s, ready_s - start_s, outcome.cost, ahead)

    def report(self, rival_ms: Optional[float]) -> Dict[str, Any]:
        """Medians, under the names that the issue of the benchmark fixed, and more."""
        cpu_ms = 1e3 * median(sample.enclave_cpu_s for sample in self.samples)
        sustained_ms = 1e3 * median(sample.enclave_cpu_s + sample.ahead_cpu_s for sample in self.samples)
        return {
            "enclave_cpu_ms": cpu_ms,
            "enclave_cpu_sustained_ms": sustained_ms,
            "accelerator_ms": 1e3 * median(sample.cost.accelerator_s for sample in self.samples),
            "wall_ms": 1e3 * median(sample.cost.wall_s for sample in self.samples),
            "round_trips": median_low(sample.cost.round_trips for sample in self.samples),
            "round_trips_ahead": median_low(sample.ahead.round_trips for sample in self.samples),
            "round_trips_sustained": median_low(
                sample.cost.round_trips + sample.ahead.round_trips for sample in self.samples),
            "messages": median_low(sample.cost.messages for sample in self.samples),
            "messages_ahead": median_low(sample.ahead.messages for sample in self.samples),
            "bytes": median_low(sample.cost.bytes for sample in self.samples),
            "bytes_ahead": median_low(sample.ahead.bytes for sample in self.samples),
            "bytes_sustained": median_low(sample.cost.bytes + sample.ahead.bytes for sample in self.samples),
            "peak_enclave_bytes": self.node.peak_bytes(),
            "ratio": cpu_ms / rival_ms if rival_ms else None,
            "ratio_sustained": sustained_ms / rival_ms if rival_ms else None,
        }


def run(clips: int, transport: str) -> Dict[str, Any]:
    """Measure ``clips`` clips (after one that is not counted); the report.

    Raises VerificationFailed if any logits differ from the reference.
    """
    rng = np.random.default_rng(SEED)
    network = stgcn.full_size(SEED, persons=PERSONS)
    model = quantise.quantise(network, [stgcn.random_clip(rng, network, PERSONS) for _ in range(CALIBRATION_CLIPS)])
    inputs = [stgcn.random_clip(rng, network, PERSONS) for _ in range(clips + 1)]
    expected = [reference.run(model, clip)[0] for clip in inputs]
    rival = Rival.of(network)
    rival_s: List[float] = []
    with ExitStack() as stack:
        accelerator = CpuAccelerator()
        stack.callback(accelerator.close)
        contenders = [Contender(placement, model, transport, accelerator, stack) for placement in wire.Placement]
        for index, (clip, logits) in enumerate(zip(inputs, expected)):
            counted = index > 0
            if rival is not None:
                begin_s = time.process_time()
                rival.run(clip)
                rival_s += [time.process_time() - begin_s] * counted
            for contender in contenders:
                contender.samples += [contender.evaluate(clip, logits)] * counted
            log.info("clip %d of %d", index, clips)
        rival_ms = 1e3 * median(rival_s) if rival_s else None
        return {
            "network": "ST-GCN, random weights: {} persons, {} frames, {} joints, {} labels".format(
                PERSONS, network.frames, network.joints, len(network.labels)),
            "clips": clips,
            "transport": transport,
            "accelerator": "{}, {} threads".format(accelerator.name, accelerator.threads),
            "unprotected": rival.name if rival else None,
            "unprotected_ms": rival_ms,
            "placements": {contender.placement.name.lower(): contender.report(rival_ms) for contender in contenders},
        }


_TIMES = (
    # heading, width, figure of a placement's report
    ("enclave CPU ms", 15, lambda r: "{:.0f}".format(r["enclave_cpu_ms"])),
    ("ratio", 6, lambda r: _ratio(r["ratio"])),
    ("sustained ms", 14, lambda r: "{:.0f}".format(r["enclave_cpu_sustained_ms"])),
    ("ratio", 6, lambda r: _ratio(r["ratio_sustained"])),
    ("accel. ms", 11, lambda r: "{:.0f}".format(r["accelerator_ms"])),
    ("wall ms", 9, lambda r: "{:.0f}".format(r["wall_ms"])),
    ("peak MiB", 10, lambda r: "{:.2f}".format(r["peak_enclave_bytes"] / 2 ** 20)),
)
_CROSSINGS = (
    ("round trips", 15, lambda r: "{}".format(r["round_trips"])),
    ("ahead", 6, lambda r: "{}".format(r["round_trips_ahead"])),
    ("sustained", 10, lambda r: "{}".format(r["round_trips_sustained"])),
    ("messages", 10, lambda r: "{}".format(r["messages"])),
    ("ahead", 6, lambda r: "{}".format(r["messages_ahead"])),
    ("MB", 8, lambda r: "{:.1f}".format(r["bytes"] / 1e6)),
    ("ahead", 6, lambda r: "{:.1f}".format(r["bytes_ahead"] / 1e6)),
    ("sustained", 10, lambda r: "{:.1f}".format(r["bytes_sustained"] / 1e6)),
)


def table(report: Dict[str, Any]) -> str:
    """The report for a terminal."""
    lines = [
        report["network"],
        "{} clips, interleaved, medians; transport {}, accelerator {}; the host port protects nothing".format(
            report["clips"], report["transport"], report["accelerator"]),
        "unprotected: {}".format(
            "{}: {:.0f} ms of CPU; ratios are to this".format(report["unprotected"], report["unprotected_ms"])
            if report["unprotected"] else "onnxruntime is not installed (the extra `dev`): no ratios"),
    ]
    for columns in (_TIMES, _CROSSINGS):
        lines += ["", "placement".ljust(10) + "".join(heading.rjust(width) for heading, width, _ in columns)]
        lines += [name.ljust(10) + "".join(figure(placement).rjust(width) for _, width, figure in columns)
                  for name, placement in report["placements"].items()]
    lines += ["", "Per clip, with U + pad prepared before it; ahead: what preparing it costs; sustained: both.",
              "Every clip's logits equal the NumPy reference bit for bit."]
    return "\n".join(lines)


def _ratio(value: Optional[float]) -> str:
    return "-" if value is None else "{:.2f}".format(value)
