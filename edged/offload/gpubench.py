"""``scripts/bench-gpu``: the masked products of the published network on this machine's GPU, layer by layer.

Each kernel's time on the device, the share of what its unit can do, and PyTorch's fp32 convolution of the same size,
unprotected, measured in turns in the same run where PyTorch with CUDA is installed. Then a whole clip's products, with
what travels between host and device.
"""

import argparse
import json
import statistics
import sys
import time
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

import numpy as np

from edged import artifacts, command
from edged.model import stgcn
from edged.offload import cubins
from edged.offload.chosen import CUBINS
from edged.offload.cuda import TRIALS, Chip, CudaAccelerator

PERSONS, FRAMES, JOINTS, PARTITIONS, TAPS = 2, 300, 18, 3, 9
# A 32-bit multiply-add is this much work of each kernel's unit.
WORK = {"direct": 1.0, "dots": 10 / 4, "tensor": 10.0, "deep": 10.0}
# 32-bit multiply-adds, and dp4a, a clock of one processor; 8-bit multiply-adds of its tensor cores, dense, by
# capability. Source: NVIDIA's CUDA programming guide (throughput of instructions), data sheets of Xavier, Orin, H100.
ORDINARY = 64
TENSOR = {72: 1024, 87: 2048, 90: 4096}


class Product(NamedTuple):
    """One of the network's; ``times`` it stands in it."""

    name: str
    shape: Tuple[int, int, int]
    frames: int
    stride: int
    pad: int
    times: int

    @property
    def macs(self) -> int:
        rows, taps, channels = self.shape
        return rows * taps * channels * PERSONS * -(-self.frames // self.stride) * JOINTS


def products() -> List[Product]:
    """Of the published network with the adjacency first, equal ones counted."""
    found: Dict[Tuple[Any, ...], int] = {}
    channels, frames = stgcn.CHANNELS_IN, FRAMES
    for index, (out, stride) in enumerate(stgcn.FULL_CHANNELS):
        keys = [("graph", (out, 1, PARTITIONS * channels), frames, 1, 0),
                ("temporal", (out, TAPS, out), frames, stride, TAPS // 2)]
        if index and (channels != out or stride != 1):
            keys.append(("residual", (out, 1, channels), frames, stride, 0))
        for key in keys:
            found[key] = found.get(key, 0) + 1
        channels, frames = out, -(-frames // stride)
    return [Product(*key, times) for key, times in found.items()]


def limit(chip: Chip, kernel: str) -> Optional[float]:
    """32-bit multiply-adds a second that the kernel's unit could do at best; None where nobody says."""
    each = TENSOR.get(chip.capability) if kernel in ("tensor", "deep") else ORDINARY
    return None if each is None else each * chip.processors * chip.hertz / WORK[kernel]


def rival() -> Optional[Callable[[Product], Callable[[], float]]]:
    """PyTorch's unprotected convolution: a product -> (-> seconds on the device); None without PyTorch and CUDA."""
    try:
        import torch
    except ImportError:
        return None
    if not torch.cuda.is_available():
        return None
    torch.backends.cudnn.allow_tf32 = False  # fp32 is meant

    def of(product: Product) -> Callable[[], float]:
        rows, taps, channels = product.shape
        layer = torch.nn.Conv2d(channels, rows, (taps, 1), (product.stride, 1), (product.pad, 0), bias=False).cuda()
        x = torch.randn(PERSONS, channels, product.frames, JOINTS, device="cuda")

        def once() -> float:
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            with torch.no_grad():
                layer(x)  # keeps the device busy while what is measured is handed in
                begin.record()
                layer(x)
                end.record()
            end.synchronize()
            return float(begin.elapsed_time(end)) / 1e3

        def seconds() -> float:
            return min(once() for _ in range(TRIALS))

        return seconds

    return of


def measure(gpu: CudaAccelerator, rounds: int) -> Dict[str, Any]:
    """Rows of products, and of a clip the seconds of all products with transfers and of PyTorch's."""
    rng, other = np.random.default_rng(1), rival()
    rows: List[Dict[str, Any]] = []
    clip: List[float] = [0.0] * rounds
    for product in products():
        w_bar = rng.integers(0, 1 << 32, product.shape, dtype=np.uint32)
        x_bar = rng.integers(0, 1 << 32, (PERSONS, product.frames, JOINTS, product.shape[2]), dtype=np.uint32)
        weights = gpu.weights(w_bar)
        out = gpu.convolve(weights, x_bar, product.stride, product.pad).copy()
        with gpu.aside():
            theirs = None if other is None else other(product)
        seconds: Dict[str, List[float]] = {}
        for index in range(rounds):  # in turns
            for kernel, took in gpu.measure(weights, x_bar, product.stride, product.pad).items():
                seconds.setdefault(kernel, []).append(took)
            if theirs is not None:
                with gpu.aside():
                    seconds.setdefault("fp32", []).append(theirs())
            begin = time.perf_counter()
            gpu.convolve(weights, x_bar, product.stride, product.pad, None, out)
            clip[index] += product.times * (time.perf_counter() - begin)
        gpu.release(weights)
        best = {name: statistics.median(took) for name, took in seconds.items()}
        chosen = min((name for name in best if name in cubins.KERNELS), key=lambda name: best[name])
        moved = 4 * (w_bar.size + x_bar.size + 2 * out.size)  # U is read, too
        at_best = limit(gpu.chip, chosen)
        rows.append({
            "product": product.name, "shape": product.shape, "frames": product.frames, "times": product.times,
            "kernel": chosen, "ms": {name: 1e3 * took for name, took in best.items()},
            "gmac_s": product.macs / best[chosen] / 1e9,
            "share_of_limit": None if at_best is None else product.macs / best[chosen] / at_best,
            "share_of_bandwidth": moved / best[chosen] / gpu.chip.memory_bytes_s,
            "against_fp32": best["fp32"] / best[chosen] if "fp32" in best else None,
        })
    ours = sum(row["times"] * row["ms"][row["kernel"]] for row in rows)
    fp32 = sum(row["times"] * row["ms"]["fp32"] for row in rows) if other is not None else None
    return {"device": gpu.chip._asdict(), "rows": rows, "clip_ms": ours,
            "clip_with_transfers_ms": 1e3 * statistics.median(clip),
            "clip_fp32_ms": fp32, "clip_against_fp32": None if fp32 is None else fp32 / ours}


def as_text(found: Dict[str, Any]) -> str:
    device = found["device"]
    lines = ["{name}, compute capability {capability}, {processors} processors".format(**device), "",
             "| product | rows x taps x channels | frames | times | kernel | ms | GMAC/s | of its unit | of bandwidth "
             "| fp32 ms | fp32 / ours |", "|---" * 11 + "|"]
    for row in found["rows"]:
        lines.append("| {} | {} | {} | {} | {} | {:.3f} | {:.0f} | {} | {:.0%} | {} | {} |".format(
            row["product"], " x ".join(map(str, row["shape"])), row["frames"], row["times"], row["kernel"],
            row["ms"][row["kernel"]], row["gmac_s"], _or_dash("{:.0%}", row["share_of_limit"]),
            row["share_of_bandwidth"],
            _or_dash("{:.3f}", row["ms"].get("fp32")), _or_dash("{:.2f}", row["against_fp32"])))
    fp32 = "not measured: no PyTorch with CUDA here"
    if found["clip_fp32_ms"] is not None:
        fp32 = "{:.2f} ms ({:.2f} x ours)".format(found["clip_fp32_ms"], found["clip_against_fp32"])
    lines += ["", "a clip's products: {:.2f} ms on the device, {:.2f} ms with what travels; fp32 unprotected {}".format(
        found["clip_ms"], found["clip_with_transfers_ms"], fp32)]
    return "\n".join(lines)


def _or_dash(form: str, value: Optional[float]) -> str:
    return "-" if value is None else form.format(value)


def run(given: argparse.Namespace) -> None:
    gpu = CudaAccelerator(artifacts.build_folder() / CUBINS, given.device)
    try:
        found = measure(gpu, given.rounds)
    finally:
        gpu.close()
    print(json.dumps(found, indent=2) if given.json else as_text(found))


def main(arguments: Optional[List[str]] = None) -> int:
    parser = command.parser("bench-gpu", __doc__)
    parser.add_argument("--device", type=command.at_least(0), default=0, metavar="N")
    parser.add_argument("--rounds", type=command.at_least(1), default=20, metavar="N")
    parser.add_argument("--json", action="store_true")
    parser.set_defaults(run=run)
    return command.run(parser, arguments)


if __name__ == "__main__":
    sys.exit(main())
