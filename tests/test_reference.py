"""The NumPy reference equals slow loops over Python integers bit for bit, and refuses every broken bound."""

from dataclasses import replace
from fractions import Fraction
from math import floor

import numpy as np
import pytest

from edged.errors import PackageError, ShapeError
from edged.model import quantise, reference, stgcn
from edged.model.layers import Kind, Order, Residual
from model_fixtures import clips_of, small_model, small_network, wild_clip


def rs(z, s):
    return floor(Fraction(z + 2 ** (s - 1), 2**s))


def clamp(z, low, high):
    return max(low, min(high, z))


class ByLoops:
    """The specification's formulas, one output value at a time. Tensors become nested lists of int."""

    def __init__(self, model):
        self.model = model
        self.persons, self.frames, self.joints, self.partitions = model.shape

    def person(self, clip):
        """What one person (T, V, 3) adds to the pooling sums."""
        x = clip.tolist()
        for layer in self.model.layers[:-2]:
            row = layer.row
            if row.kind == Kind.INPUT:
                mult, bias = layer.mult.tolist(), layer.bias.tolist()
                x = [[[
                    clamp(rs((frame[v][c] * 256 + bias[v][c]) * mult[v][c], row.shift), -row.out_max, row.out_max)
                    for c in range(3)] for v in range(self.joints)] for frame in x]  # fmt: skip
                r = None
            elif row.kind == Kind.GRAPH:
                g = [self.graph(layer, frame) for frame in x]
            elif row.kind == Kind.RESIDUAL:
                r = self.residual(layer, x)
            else:
                around = {Residual.NONE: None, Residual.IDENTITY: x, Residual.CONVOLUTION: r}[row.residual]
                x = self.temporal(layer, g, around)
        return [sum(x[t][v][c] for t in range(len(x)) for v in range(self.joints)) for c in range(len(x[0][0]))]

    def graph(self, layer, x):
        row, entries = layer.row, layer.adjacency.tolist()
        weights, bias, mult = layer.weights.tolist(), layer.bias.tolist(), layer.mult.tolist()
        g = []
        for w in range(self.joints):
            if row.order == Order.BEFORE:
                joined = [
                    clamp(
                        rs(sum(a * x[v][c] for k2, v, w2, _, a in entries if (k2, w2) == (k, w)), row.adj_shift),
                        -row.adj_max, row.adj_max,
                    )
                    for k in range(self.partitions) for c in range(row.cin)
                ]  # fmt: skip
                acc = [sum(p * q for p, q in zip(weights[o], joined)) + bias[w][o] for o in range(row.cout)]
            else:
                acc = []
                for o in range(row.cout):
                    total = 0
                    for k, v, w2, _, a in entries:
                        if w2 == w:
                            total += a * sum(p * q for p, q in zip(weights[k * row.cout + o], x[v]))
                    acc.append(rs(total, row.adj_shift) + bias[w][o])
            g.append([clamp(rs(acc[o] * mult[o], row.shift), 0, row.out_max) for o in range(row.cout)])
        return g

    def residual(self, layer, x):
        row, weights, bias, mult = layer.row, layer.weights.tolist(), layer.bias.tolist(), layer.mult.tolist()
        return [[[
            clamp(
                rs((sum(p * q for p, q in zip(weights[o], x[t][v])) + bias[o]) * mult[o], row.shift),
                -row.out_max, row.out_max,
            )
            for o in range(row.cout)] for v in range(self.joints)] for t in range(0, len(x), row.stride)]  # fmt: skip

    def temporal(self, layer, g, r):
        row, weights, bias, mult = layer.row, layer.weights.tolist(), layer.bias.tolist(), layer.mult.tolist()
        res_mult, pad, out = int(layer.res_mult[0]), (row.taps - 1) // 2, []
        for t in range((len(g) - 1) // row.stride + 1):
            frame = []
            for v in range(self.joints):
                values = []
                for o in range(row.cout):
                    acc = bias[o]
                    for tap in range(row.taps):
                        at = t * row.stride + tap - pad
                        if 0 <= at < len(g):
                            acc += sum(p * q for p, q in zip(weights[o][tap], g[at][v]))
                    z = acc * mult[o] + (r[t][v][o] * res_mult if r else 0)
                    values.append(clamp(rs(z, row.shift), 0, row.out_max))
                frame.append(values)
            out.append(frame)
        return out

    def logits(self, clip):
        pool, fc = self.model.layers[-2:]
        sums = [(self.persons - len(clip)) * int(empty) for empty in pool.empty]
        for person in clip:
            sums = [a + b for a, b in zip(sums, self.person(person))]
        high = pool.row.out_max
        f = [clamp(rs(total * int(pool.mult[0]), pool.row.shift), -high, high) for total in sums]
        found = []
        for weights, bias, mult in zip(fc.weights.tolist(), fc.bias.tolist(), fc.mult.tolist()):
            acc = sum(p * q for p, q in zip(weights, f)) + bias
            found.append(clamp(rs(acc * mult, fc.row.shift), -(2**30), 2**30))
        return found


def softmax_by_loops(logits):
    powers = []
    for logit in logits:
        d = min(max(logits) - logit, 32 * 65536)
        u = (d * 94548) >> 16
        n, f = min(u >> 16, 31), u & 65535
        y = 1013087
        y = 9880762 - ((f * y) >> 16)
        y = 59371525 - ((f * y) >> 16)
        y = 257890134 - ((f * y) >> 16)
        y = 744257239 - ((f * y) >> 16)
        y = 1073741824 - ((f * y) >> 16)
        powers.append(y >> n)
    return [power * 65536 // sum(powers) for power in powers]


@pytest.mark.parametrize("persons", [0, 1, 2])
def test_a_clip_gives_what_loops_give(persons):
    clip = clips_of(small_network(), 2)[1][:persons]
    logits, probabilities = reference.run(small_model(), clip)
    assert (logits.dtype, probabilities.dtype) == (np.int32, np.uint32)
    assert logits.tolist() == ByLoops(small_model()).logits(clip)
    assert probabilities.tolist() == softmax_by_loops(logits.tolist())


@pytest.mark.parametrize("seed", range(3))
def test_any_int16_clip_gives_what_loops_give(seed):
    clip = wild_clip(seed)
    assert reference.run(small_model(), clip)[0].tolist() == ByLoops(small_model()).logits(clip)


@pytest.mark.parametrize("options", [
    dict(channels=((4, 3), (4, 1)), frames=7, joints=3, partitions=2, taps=3),
    dict(channels=((2, 1), (7, 4)), frames=6, joints=2, partitions=1, taps=5),
    dict(channels=((9, 1), (3, 1), (1, 2)), frames=1, joints=1, persons=3, taps=1),
])  # fmt: skip
def test_other_shapes_give_what_loops_give(options):
    network = stgcn.random_network(8, labels=3, **options)
    model = quantise.quantise(network, clips_of(network, 3))
    clip = wild_clip(1, 2, network.frames, network.joints)
    assert reference.run(model, clip)[0].tolist() == ByLoops(model).logits(clip)


def test_the_empty_person_is_what_a_clip_of_zeros_sums_to():
    model = small_model()
    zeros = np.zeros((model.shape.frames, model.shape.joints, 3), np.int16)
    assert model.layers[-2].empty.tolist() == ByLoops(model).person(zeros)


def test_a_step_holds_the_product_that_the_accelerator_computes():
    clip = clips_of(small_network(), 2)[1]
    for step in reference.steps(small_model(), clip):
        if step.layer.row.kind in (Kind.GRAPH, Kind.RESIDUAL, Kind.FC):
            assert (step.product == step.operand @ step.layer.weights.astype(np.int64).T).all()
        assert np.abs(step.output).max() <= step.layer.row.out_max


@pytest.mark.parametrize(
    "z, s, expected", [(1, 1, 1), (-1, 1, 0), (-3, 1, -1), (5, 2, 1), (6, 2, 2), (-6, 2, -1), (2**62, 62, 1)]
)
def test_round_shift_rounds_half_up(z, s, expected):
    assert reference.round_shift(np.array([z], np.int64), s).tolist() == [expected] == [rs(z, s)]


def test_softmax_equals_loops_and_nearly_the_exact_one():
    rng = np.random.default_rng(0)
    for size in (1, 2, 60, 400):
        logits = (rng.normal(0, 3, size) * 65536).astype(np.int32)
        found = reference.softmax(logits)
        exact = np.exp(logits / 65536 - logits.max() / 65536)
        assert found.tolist() == softmax_by_loops(logits.tolist())
        # a power is off by 2.8e-4 of itself at most, so p by p(1-p) of that: 4.6 units; one more by rounding down
        assert np.abs(found - 65536 * exact / exact.sum()).max() < 5.6
        assert 65536 - size < found.sum() <= 65536


def test_softmax_of_logits_as_far_apart_as_they_get():
    found = reference.softmax(np.array([2**30, -(2**30), 2**30 - 32 * 65536], np.int32))
    assert found.tolist() == [65536, 0, 0]


@pytest.mark.parametrize("clip", [
    np.zeros((3, 13, 5, 3), np.int16), np.zeros((1, 12, 5, 3), np.int16), np.zeros((1, 13, 5, 2), np.int16),
    np.zeros((13, 5, 3), np.int16), np.zeros((1, 13, 5, 3), np.int32),
])  # fmt: skip
def test_a_clip_of_another_shape_or_type_is_refused(clip):
    with pytest.raises(ShapeError, match="clip is"):
        reference.run(small_model(), clip)


# --- every stated bound, broken alone -------------------------------------------------------------------------------


MIN32, MAX32 = -(2**31), 2**31 - 1


def index_of(kind, order=None, residual=None):
    for index, row in enumerate(small_model().table):
        if row.kind == kind and order in (None, row.order) and residual in (None, row.residual):
            return index
    raise LookupError(kind)


def with_layer(index, row=(), **tensors):
    """The small model with fields of one row, or tensors of one layer, replaced."""
    layers = list(small_model().layers)
    layers[index] = replace(layers[index], row=layers[index].row._replace(**dict(row)), **tensors)
    return replace(small_model(), layers=tuple(layers))


def with_value(kind, tensor, value, order=None, residual=None, at=0):
    index = index_of(kind, order, residual)
    changed = getattr(small_model().layers[index], tensor).copy()
    changed.reshape(-1)[at] = value
    return with_layer(index, **{tensor: changed})


def with_entry(field, value, at=0):
    index = index_of(Kind.GRAPH, Order.BEFORE)
    changed = small_model().layers[index].adjacency.copy()
    changed[field][at] = value
    return with_layer(index, adjacency=changed)


def filled(kind, tensor, value, order=None):
    index = index_of(kind, order)
    return with_layer(index, **{tensor: np.full_like(getattr(small_model().layers[index], tensor), value)})


def with_row(which, to_order=None, **fields):
    """A row of kind ``which`` with these fields; of that order where there are two."""
    return with_layer(index_of(which, to_order), fields)


def with_layers(*slices):
    return replace(small_model(), layers=sum((small_model().layers[part] for part in slices), ()))


def with_shape(**changes):
    return replace(small_model(), shape=small_model().shape._replace(**changes))


def joined(entries):
    """The small model with all entries of an adjacency after the weights alike, and the widest products allowed."""
    index = index_of(Kind.GRAPH, Order.AFTER)
    changed = small_model().layers[index].adjacency.copy()
    changed["a"] = entries
    row, weights = small_model().table[index], small_model().layers[index].weights
    widest = MAX32 // (row.in_max * row.cin)
    return with_layer(index, adjacency=changed, weights=np.full_like(weights, widest))


BROKEN = {
    "input bias": (lambda: with_value(Kind.INPUT, "bias", 2**31 - 2**23), "INPUT: accumulator"),
    "input bias below": (lambda: with_value(Kind.INPUT, "bias", MIN32), "INPUT: accumulator"),
    "input multiplier": (lambda: with_value(Kind.INPUT, "mult", MIN32), "INPUT: multiplier"),
    "adjacency sum": (lambda: with_entry("a", 65539), "GRAPH: adjacency sum"),
    "graph weights": (lambda: filled(Kind.GRAPH, "weights", 32767, Order.BEFORE), "GRAPH: accumulator"),
    "graph bias": (lambda: with_value(Kind.GRAPH, "bias", MAX32), "GRAPH: accumulator"),
    "graph bias of the last joint": (lambda: with_value(Kind.GRAPH, "bias", MIN32, at=-1), "GRAPH: accumulator"),
    "graph multiplier": (lambda: with_value(Kind.GRAPH, "mult", MIN32), "GRAPH: multiplier"),
    "products before the adjacency": (lambda: filled(Kind.GRAPH, "weights", 32767, Order.AFTER), "GRAPH: product"),
    "adjacency of products": (lambda: joined(2**29), "GRAPH: adjacency may"),
    "adjacency and products together": (lambda: joined(2**29 - 1), "GRAPH: accumulator"),
    "bias after the adjacency": (lambda: with_value(Kind.GRAPH, "bias", MAX32, Order.AFTER), "GRAPH: accumulator"),
    "shift after the adjacency": (lambda: with_row(Kind.GRAPH, Order.AFTER, adj_shift=1), "GRAPH: accumulator"),
    "residual weights": (lambda: filled(Kind.RESIDUAL, "weights", -32768), "RESIDUAL: accumulator"),
    "residual bias": (lambda: with_value(Kind.RESIDUAL, "bias", MAX32), "RESIDUAL: accumulator"),
    "temporal weights": (lambda: filled(Kind.TEMPORAL, "weights", 32767), "TEMPORAL: accumulator"),
    "temporal bias": (lambda: with_value(Kind.TEMPORAL, "bias", MIN32), "TEMPORAL: accumulator"),
    "temporal multiplier": (lambda: with_value(Kind.TEMPORAL, "mult", MIN32), "TEMPORAL: multiplier"),
    "residual multiplier": (
        lambda: with_value(Kind.TEMPORAL, "res_mult", MIN32, residual=Residual.IDENTITY), "residual multiplier may"),
    "residual multiplier of none": (
        lambda: with_value(Kind.TEMPORAL, "res_mult", 1, residual=Residual.NONE), "without a residual"),
    "empty person": (lambda: with_value(Kind.POOL, "empty", 7 * 5 * 32767 + 1), "POOL: empty person"),
    "pool multiplier": (lambda: with_value(Kind.POOL, "mult", MIN32), "POOL: multiplier"),
    "fc weights": (lambda: filled(Kind.FC, "weights", 32767), "FC: accumulator"),
    "fc bias": (lambda: with_value(Kind.FC, "bias", MAX32), "FC: accumulator"),
    "fc multiplier": (lambda: with_value(Kind.FC, "mult", MIN32), "FC: multiplier"),
    "entry zero": (lambda: with_entry("a", 0), "zero entry"),
    "entry padding": (lambda: with_entry("zero", 1), "padding byte"),
    "entry partition": (lambda: with_entry("k", 3, -1), "entry outside"),
    "entry joint": (lambda: with_entry("w", 5, -1), "entry outside"),
    "entry order": (lambda: with_entry("k", 2), "not sorted"),
    "weights type": (
        lambda: with_layer(index_of(Kind.FC), weights=small_model().layers[-1].weights.astype(np.int32)), "weights is"),
    "weights shape": (lambda: with_layer(index_of(Kind.FC), weights=small_model().layers[-1].weights.T), "weights is"),
    "kind": (lambda: with_row(Kind.FC, kind=6), "kind is 6"),
    "unused field": (lambda: with_row(Kind.POOL, nnz=1), "nnz is 1, must be 0"),
    "input channels": (lambda: with_row(Kind.INPUT, cin=4), "cin is 4"),
    "input range": (lambda: with_row(Kind.INPUT, in_max=32766), "in_max is 32766"),
    "out_max none": (lambda: with_row(Kind.GRAPH, out_max=0), "out_max is 0"),
    "out_max past int16": (lambda: with_row(Kind.TEMPORAL, out_max=32768), "out_max is 32768"),
    "logit range": (lambda: with_row(Kind.FC, out_max=2**30 - 1), "must be 2\\^30"),
    "shift none": (lambda: with_row(Kind.GRAPH, shift=0), "shift is 0"),
    "shift of 63": (lambda: with_row(Kind.GRAPH, shift=63), "shift is 63"),
    "adjacency shift of 63": (lambda: with_row(Kind.GRAPH, adj_shift=63), "adj_shift is 63"),
    "dearer order": (lambda: with_row(Kind.GRAPH, Order.BEFORE, order=1, adj_max=0), "order is 1"),
    "adj_max after": (lambda: with_row(Kind.GRAPH, Order.AFTER, adj_max=5), "adj_max is 5"),
    "graph stride": (lambda: with_row(Kind.GRAPH, stride=2), "stride is 2"),
    "even taps": (lambda: with_row(Kind.TEMPORAL, taps=8), "must be odd"),
    "seventeen taps": (lambda: with_row(Kind.TEMPORAL, taps=17), "taps is 17"),
    "stride 5": (lambda: with_row(Kind.RESIDUAL, stride=5), "stride is 5"),
    "range not handed on": (lambda: with_row(Kind.TEMPORAL, in_max=99), "in_max is 99"),
    "channels not handed on": (lambda: with_row(Kind.POOL, cin=5, cout=5), "cin is 5"),
    "strides that differ": (lambda: with_row(Kind.RESIDUAL, stride=3), "stride 2, residual 3"),
    "identity over a stride": (
        lambda: with_layer(index_of(Kind.TEMPORAL, residual=Residual.IDENTITY), dict(stride=2)), "identity residual"),
    "residual without its layer": (lambda: with_row(Kind.TEMPORAL, residual=Residual.CONVOLUTION), "disagree"),
    "pool that widens": (lambda: with_row(Kind.POOL, cout=5), "must be equal"),
    "rows for labels": (lambda: with_row(Kind.FC, cout=6), "6 rows for 7 labels"),
    "no block": (lambda: with_layers(slice(1), slice(-2, None)), "layers is 3"),
    "sequence": (lambda: with_layers(slice(-2), slice(-1, None), slice(-1, None)), "of kinds"),
    "too many positions": (lambda: with_shape(frames=4096, joints=64), "persons \\* frames"),
    "nine persons": (lambda: with_shape(persons=9), "persons is 9"),
    "no label": (lambda: replace(small_model(), labels=()), "labels is 0"),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(BROKEN))
def test_a_model_that_breaks_one_bound_is_refused_by_name(name):
    make, answer = BROKEN[name]
    with pytest.raises(PackageError, match=answer):
        reference.check_bounds(make())


def test_a_broken_bound_stops_the_reference_itself():
    with pytest.raises(PackageError, match="accumulator"):
        reference.run(filled(Kind.FC, "weights", 32767), wild_clip(0))


def test_the_small_model_holds_every_bound():
    reference.check_bounds(small_model())
