"""``scripts/bench-homomorphic``: one layer's product under homomorphic encryption, beside the masked one.

The product is the graph convolution's of the network's 64-channel blocks: 64 rows of 192 weights, at every position of
a clip. Homomorphically (BFV, exact integers, one ciphertext for each of the 192 inputs, a position in each slot) it is
made twice: with the weights in clear, which hides what the placement ``inputs`` hides, and with the weights encrypted,
which hides what ``masked`` hides. The masked one is the running enclave's: what a network of two blocks costs it and
the accelerator more than one of a single block, a smaller convolution and all that is not linear counted in. Both are
measured in turn, some clips after each homomorphic row. Nothing checks a homomorphic product; the enclave checks each.

Source: J. Fan, F. Vercauteren, "Somewhat Practical Fully Homomorphic Encryption", IACR ePrint 2012/144 (BFV).
"""

import argparse
import json
import sys
import time
from contextlib import ExitStack
from statistics import median
from typing import Any, Callable, Dict, List, Optional

import numpy as np

from edged import command
from edged.bench import Contender
from edged.enclave import wire
from edged.errors import AcceleratorError, VerificationFailed
from edged.model import quantise, reference, stgcn
from edged.offload.cpu import CpuAccelerator

ROWS, DEPTH = 64, 192
PERSONS, FRAMES, JOINTS = 2, 226, 18  # 8,136 positions: one ciphertext
SLOTS = 8192
# Primes of the form 2 * SLOTS * k + 1: the sums below fit their product.
MODULI = (1032193, 786433)
WEIGHT_BITS, INPUT_BITS = 9, 12  # signed


def homomorphic(rows: int, after_row: Callable[[], None]) -> Dict[str, Dict[str, float]]:
    """Seconds for ``rows`` of the layer's rows, and bytes that travel; what ``after_row`` does is not counted.

    Raises AcceleratorError without TenSEAL.
    """
    try:
        import tenseal
    except ImportError as error:
        raise AcceleratorError("no TenSEAL here: scripts/bench-homomorphic installs it") from error
    rng = np.random.default_rng(1)
    positions = PERSONS * FRAMES * JOINTS
    w = rng.integers(-(1 << WEIGHT_BITS - 1), 1 << WEIGHT_BITS - 1, (rows, DEPTH))
    w[w == 0] = 1  # SEAL refuses to multiply by 0
    x = rng.integers(-(1 << INPUT_BITS - 1), 1 << INPUT_BITS - 1, (DEPTH, positions))
    found: Dict[str, Dict[str, float]] = {}
    for name in ("weights in clear", "weights encrypted"):
        residues, figures = [], {"encrypt_s": 0.0, "product_s": 0.0, "decrypt_s": 0.0, "bytes": 0.0}
        for modulus in MODULI:
            context = tenseal.context(tenseal.SCHEME_TYPE.BFV, poly_modulus_degree=SLOTS, plain_modulus=modulus)
            begin = time.process_time()
            inputs = [tenseal.bfv_vector(context, row.tolist()) for row in x]
            if name == "weights encrypted":
                weights: List[List[Any]] = [[tenseal.bfv_vector(context, [int(one)] * positions) for one in row]
                                            for row in w]
            else:
                weights = (w % modulus).tolist()
            figures["encrypt_s"] += time.process_time() - begin
            sums = []
            for row in weights:
                begin = time.process_time()
                total = inputs[0] * row[0]
                for one, other in zip(inputs[1:], row[1:]):
                    total += one * other
                figures["product_s"] += time.process_time() - begin
                sums.append(total)
                after_row()
            begin = time.process_time()
            residues.append(np.array([total.decrypt() for total in sums], np.int64))
            figures["decrypt_s"] += time.process_time() - begin
            figures["bytes"] += sum(len(one.serialize()) for one in inputs + sums)
        if not np.array_equal(_joined(residues), w @ x):
            raise VerificationFailed("homomorphic, {}: not the product".format(name))
        found[name] = figures
    return found


def _joined(residues: List[np.ndarray]) -> np.ndarray:
    """The signed number behind its residues (Chinese remainder theorem)."""
    one, other = MODULI
    low = residues[0] % one
    high = (residues[1] - low) * pow(one, other - 2, other) % other
    joined = low + one * high
    return np.where(joined > one * other // 2, joined - one * other, joined)


class Masked:
    """The running enclave with networks of one block and of two, in both placements. Closed by ``stack``."""

    def __init__(self, stack: ExitStack) -> None:
        rng = np.random.default_rng(2)
        networks = [stgcn.random_network(3, [(ROWS, 1)] * blocks, frames=FRAMES, persons=PERSONS, taps=1)
                    for blocks in (1, 2)]
        self._clip = stgcn.random_clip(rng, networks[0], PERSONS)
        models = [quantise.quantise(network, [self._clip]) for network in networks]
        self._expected = [reference.run(model, self._clip)[0] for model in models]
        accelerator = CpuAccelerator(1)
        stack.callback(accelerator.close)
        self._contenders = {placement: [Contender(placement, model, "window", accelerator, stack) for model in models]
                            for placement in (wire.Placement.MASKED, wire.Placement.INPUTS)}
        self._costs: Dict[str, List[float]] = {}
        self.evaluate()  # warms up
        self._costs.clear()

    def evaluate(self) -> None:
        for placement, contenders in self._contenders.items():
            took = []
            for contender, logits in zip(contenders, self._expected):
                sample = contender.evaluate(self._clip, logits)
                took.append(sample.enclave_cpu_s + sample.ahead_cpu_s + sample.cost.accelerator_s)
            self._costs.setdefault(placement.name.lower(), []).append(took[1] - took[0])

    @property
    def seconds(self) -> Dict[str, float]:
        """That one more block costs the processors of enclave and accelerator, all masks included, by placement."""
        return {name: median(more) for name, more in self._costs.items()}


def measure(rows: int, clips: int) -> Dict[str, Any]:
    """clips : through the enclave after each row"""
    with ExitStack() as stack:
        masked = Masked(stack)

        def after_row() -> None:
            for _ in range(clips):
                masked.evaluate()

        encrypted, ours = homomorphic(rows, after_row), masked.seconds
    whole = {name: figures["product_s"] * ROWS / rows for name, figures in encrypted.items()}
    return {
        "rows_measured": rows, "homomorphic": encrypted, "layer_s": whole, "edged_s": ours,
        "ratio": {"weights in clear": whole["weights in clear"] / ours["inputs"],
                  "weights encrypted": whole["weights encrypted"] / ours["masked"]},
    }


def as_text(found: Dict[str, Any]) -> str:
    lines = ["{} x {} weights at {} positions; homomorphically, {} of the {} rows were measured".format(
        ROWS, DEPTH, PERSONS * FRAMES * JOINTS, found["rows_measured"], ROWS)]
    for name, ours in (("weights in clear", "inputs"), ("weights encrypted", "masked")):
        figures = found["homomorphic"][name]
        lines.append("homomorphic, {}: {:.1f} s of product for the layer, {:.1f} s to encrypt, {:.0f} MB of "
                     "ciphertexts; edged `{}`: {:.3f} s, checks and all that is not linear included: {:.0f} times "
                     "less".format(
                         name, found["layer_s"][name], figures["encrypt_s"], figures["bytes"] / 1e6, ours,
                         found["edged_s"][ours], found["ratio"][name]))
    return "\n".join(lines)


def run(given: argparse.Namespace) -> None:
    found = measure(given.rows, given.clips)
    print(json.dumps(found, indent=2) if given.json else as_text(found))


def main(arguments: Optional[List[str]] = None) -> int:
    parser = command.parser("bench-homomorphic", __doc__)
    parser.add_argument("--rows", type=command.at_least(1), default=2, metavar="N", help="to measure of 64 (default 2)")
    parser.add_argument("--clips", type=command.at_least(1), default=2, metavar="N",
                        help="through the enclave after each row (default 2)")
    parser.add_argument("--json", action="store_true")
    parser.set_defaults(run=run)
    return command.run(parser, arguments)


if __name__ == "__main__":
    sys.exit(main())
