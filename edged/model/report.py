"""How far a quantised network answers as its original does: what a model owner reads before selling it.

top-1 and top-5 agreement: the share of the clips for which both name the same label first, and for which the five
likeliest labels are the same five, whatever their order. Mean loss change: of the mean cross-entropy against the true
labels, (integer - original) / original; without labels, against what the original says is likeliest. Top-1 and top-5
accuracy: the share for which the true label is the likeliest, or one of the five. A layer's error is the root mean
square of what it is off, relative to the original's activations, in the scale that fits best; clipped are the clips in
which it met the end of its range, which calibration on other clips would have made wider.
"""

from dataclasses import dataclass, field
from typing import Any, Callable, Dict, Iterable, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from edged.errors import MissingInput, ShapeError
from edged.model import reference, stgcn
from edged.model.calibrate import LOGITS, activations
from edged.model.fold import FoldedNetwork, fold
from edged.model.layers import FcLayer, GraphLayer, Kind, Layer, Model, Order, ResidualLayer, TemporalLayer

LOGIT_ONE = 65536.0
BOUND = 2.0 ** 31
TOP = 5


class LayerError(NamedTuple):
    """weight_bits, activation_bits : widths of what the product reads; bound_used : of 2^31, in the worst case
    clipped : clips"""

    name: str
    weight_bits: int
    activation_bits: int
    bound_used: float
    error: float
    clipped: int


@dataclass
class Comparison:
    """Answers of an original, and of what is compared with it, on the same clips: logits (L,) of each, in turn."""

    labels: Optional[Sequence[int]]
    original: List[np.ndarray] = field(default_factory=list)
    other: List[np.ndarray] = field(default_factory=list)

    def add(self, original: np.ndarray, other: np.ndarray) -> None:
        self.original.append(original)
        self.other.append(other)

    @property
    def figures(self) -> Dict[str, Any]:
        """By name, as the JSON report has them."""
        original, other = np.array(self.original), np.array(self.other)
        top = min(TOP, original.shape[1])
        first = [np.argsort(-logits, axis=1, kind="stable")[:, :top] for logits in (original, other)]
        labels = original.argmax(1) if self.labels is None else np.asarray(self.labels)
        losses = [_losses(logits, labels).mean() for logits in (original, other)]
        found = {
            "clips": len(original),
            "top1_agreement": float((original.argmax(1) == other.argmax(1)).mean()),
            "top5_agreement": float((np.sort(first[0]) == np.sort(first[1])).all(1).mean()),
            "mean_loss_change": float((losses[1] - losses[0]) / max(losses[0], 1e-12)),
            "largest_logit_error": float(np.abs(original - other).max()),
        }
        if self.labels is not None:
            for name, best in zip(("original", "quantised"), first):
                found["top1_accuracy_" + name] = float((best[:, 0] == labels).mean())
                found["top5_accuracy_" + name] = float((best == labels[:, None]).any(1).mean())
        return found


def _losses(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Cross-entropy of each clip: (N, L), (N,) -> (N,)."""
    high = logits.max(1)
    return high + np.log(np.exp(logits - high[:, None]).sum(1)) - logits[np.arange(len(labels)), labels]


class Report:
    """Of one network and its integer model. ``layers`` and ``figures`` are of the clips compared so far."""

    def __init__(self, network: stgcn.Network, model: Model, labels: Optional[Sequence[int]] = None) -> None:
        if network.labels != model.labels:
            raise ShapeError("the package has labels {}, its original {}".format(
                ", ".join(model.labels), ", ".join(network.labels)))
        if _sizes(model) != _sizes_of(network):
            raise ShapeError("the package is of another network: sizes {}, its original's are {}".format(
                _sizes(model), _sizes_of(network)))
        reference.check_bounds(model)
        self._network, self._model, self._folded = network, model, fold(network)
        self._comparison = Comparison(labels)
        # Of each layer: sums of original * integer, of integer^2 and of original^2.
        self._sums = np.zeros((len(model.layers), 3))
        self._clipped = np.zeros(len(model.layers), int)

    def add(self, clip: np.ndarray) -> np.ndarray:
        """One int16 clip (m, T, V, 3); returns the original's logits. Raises ShapeError."""
        full = stgcn.from_fixed_point(clip, self._network.persons)
        real = _by_layer(self._folded, full[None])
        for index, (step, original) in enumerate(zip(reference.steps(self._model, clip), real)):
            found = step.output.astype(np.float64)
            theirs = original[:len(found)] if found.ndim == 4 else original[0]
            self._sums[index] += (theirs * found).sum(), (found ** 2).sum(), (theirs ** 2).sum()
            self._clipped[index] += bool((np.abs(step.output) >= step.layer.row.out_max).any())
        self._comparison.add(original[0], found / LOGIT_ONE)
        return original[0]

    @property
    def figures(self) -> Dict[str, Any]:
        """Raises MissingInput before the first clip."""
        if not self._comparison.original:
            raise MissingInput("a report needs at least one clip")
        return self._comparison.figures

    @property
    def layers(self) -> List[LayerError]:
        made = []
        for layer, (both, ours, theirs), clipped in zip(self._model.layers, self._sums, self._clipped):
            rest = theirs - both * both / ours if ours else theirs
            error = float(np.sqrt(max(rest, 0.0) / theirs)) if theirs else 0.0
            kind = Kind(layer.row.kind).name.lower()
            made.append(LayerError("{} {}".format(len(made), kind), *_widths(layer), error, int(clipped)))
        return made


def _sizes(model: Model) -> Tuple[int, ...]:
    """Persons, frames, joints, partitions, then channels and stride of each block."""
    made = [model.shape.persons, model.shape.frames, model.shape.joints, model.shape.partitions]
    for layer in model.layers:
        if isinstance(layer, TemporalLayer):
            made += [layer.row.cout, layer.row.stride]
    return tuple(made)


def _sizes_of(network: stgcn.Network) -> Tuple[int, ...]:
    made = [network.persons, network.frames, network.joints, network.blocks[0].adjacency.shape[0]]
    for block in network.blocks:
        made += [block.channels_out, block.stride]
    return tuple(made)


def _by_layer(folded: FoldedNetwork, clips: np.ndarray) -> List[np.ndarray]:
    """The original's output of each layer of the integer model, in its order."""
    made: List[np.ndarray] = []
    for (index, name), x in activations(folded, clips):
        if (index, name) == (0, "in") or name in ("graph", "residual", "out", "pooled") or (index, name) == LOGITS:
            made.append(x)
    return made


def _widths(layer: Layer) -> Tuple[int, int, float]:
    """Bits of weights and of the activations they read, and the share of 2^31 that a product may reach."""
    if not isinstance(layer, (GraphLayer, ResidualLayer, TemporalLayer, FcLayer)):
        return 0, _bits(layer.row.in_max), 0.0
    before = isinstance(layer, GraphLayer) and layer.row.order == Order.BEFORE
    read = layer.row.adj_max if before else layer.row.in_max
    weights = np.abs(layer.weights.astype(np.int64)).reshape(layer.weights.shape[0], -1)
    return _bits(int(weights.max())), _bits(read), read * int(weights.sum(1).max()) / BOUND


def _bits(largest: int) -> int:
    """Of a signed number of that magnitude."""
    return int(largest).bit_length() + 1


def as_text(figures: Dict[str, Any], layers: Sequence[LayerError]) -> str:
    lines = ["{:<24} {}".format(name, "{:.6g}".format(value) if isinstance(value, float) else value)
             for name, value in figures.items()]
    lines += ["", "{:<14} {:>8} {:>12} {:>12} {:>10} {:>8}".format(
        "layer", "weights", "activations", "bound used", "error", "clipped")]
    lines += ["{:<14} {:>8} {:>12} {:>12} {:>10.2e} {:>8}".format(
        one.name, one.weight_bits or "-", one.activation_bits,
        "{:.0%}".format(one.bound_used) if one.weight_bits else "-", one.error, one.clipped) for one in layers]
    return "\n".join(lines)


def as_table(compared: Dict[str, Dict[str, Any]]) -> str:
    """Figures of several arithmetics on the same clips, by name, as Markdown."""
    lines = ["| arithmetic | top-1 agreement | top-5 agreement | mean loss change | largest logit error "
             "| top-1 accuracy |", "|---|---|---|---|---|---|"]
    for name, figures in compared.items():
        accuracy = figures.get("top1_accuracy_quantised")
        lines.append("| {} | {:.1%} | {:.1%} | {:+.3%} | {:.2g} | {} |".format(
            name, figures["top1_agreement"], figures["top5_agreement"], figures["mean_loss_change"],
            figures["largest_logit_error"], "-" if accuracy is None else "{:.1%}".format(accuracy)))
    return "\n".join(lines)


def draw(figures: Dict[str, Any], layers: Sequence[LayerError], path: str) -> None:
    """Each layer's error and use of the bound, as a picture of the kind that ``path`` ends with."""
    from matplotlib.figure import Figure

    sheet = Figure(figsize=(8, 5), layout="constrained")
    error, used = sheet.subplots(2, 1, sharex=True)
    names = [one.name for one in layers]
    error.bar(names, [max(one.error, 1e-9) for one in layers], color="#2a6f97")
    error.set_yscale("log")
    error.set_ylabel("relative error")
    error.set_title("{clips} clips: top-1 agreement {top1_agreement:.2%}, top-5 {top5_agreement:.2%}, mean loss "
                    "change {mean_loss_change:+.4%}".format(**figures))
    used.bar(names, [one.bound_used for one in layers], color="#e09f3e")
    used.set_ylabel("share of 2^31")
    used.set_ylim(0, 1)
    used.tick_params(axis="x", rotation=60)
    sheet.savefig(path, dpi=100)


def compare(report: Report, clips: Iterable[np.ndarray],
            others: Sequence[Tuple[str, Callable[[np.ndarray], np.ndarray]]],
            labels: Optional[Sequence[int]] = None) -> Dict[str, Dict[str, Any]]:
    """Feed the report; figures of rivals (rivals.py) on the same clips, by their names."""
    made = {name: Comparison(labels) for name, _ in others}
    for clip in clips:
        original = report.add(clip)
        for name, answer in others:
            made[name].add(original, answer(clip))
    return {name: one.figures for name, one in made.items()}
