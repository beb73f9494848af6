"""Random integer networks, made directly: any shape in milliseconds, and every bound nearly reached.

``stgcn.random_network`` with ``quantise`` makes networks that look trained; these look like nothing, use the whole
range of every field that the format has, and one row of each product reaches its bound exactly.
"""

from dataclasses import replace
from functools import lru_cache

import numpy as np

from edged.model import reference
from edged.model.layers import (
    ACTIVATION_MAX, CHANNELS_IN, ENTRY, LOGIT_MAX, WEIGHT, WORD, FcLayer, GraphLayer, InputLayer, Kind, Model, Order,
    PoolLayer, Residual, ResidualLayer, Row, Shape, TemporalLayer, frames_after,
)  # fmt: skip

LIMIT = (1 << 31) - 1
CALIBRATION_FRAMES = 12
_UNCLAMPED = 1 << 50


def random_coordinates(rng, shape, persons):
    """int16 (persons, T, V, 3), the whole range and both its ends."""
    clip = rng.integers(-32768, 32768, (persons, shape.frames, shape.joints, CHANNELS_IN)).astype(np.int16)
    ends = rng.integers(0, 40, clip.shape)
    clip[ends == 0], clip[ends == 1] = -32768, 32767
    return clip


def integer_model(seed, channels, frames, joints, persons=2, labels=3, partitions=3, taps=9, skeleton="random"):
    """``channels``: one (out channels, stride) a block. Raises PackageError if a bound does not hold."""
    return _Builder(np.random.default_rng(seed), Shape(persons, frames, joints, partitions), taps).model(
        channels, labels, skeleton)


def full_size(seed, frames=300, persons=2, labels=60):
    """The published shape: ten blocks, 18 joints, three partitions."""
    channels = ((64, 1),) * 4 + ((128, 2),) + ((128, 1),) * 2 + ((256, 2),) + ((256, 1),) * 2
    return integer_model(seed, channels, frames, 18, persons, labels)


class _Builder:
    def __init__(self, rng, shape, taps):
        self.rng, self.shape, self.taps = rng, shape, taps
        few = shape._replace(frames=min(shape.frames, CALIBRATION_FRAMES))
        self.x = random_coordinates(rng, few, 1).astype(np.int64)

    def model(self, channels, labels, skeleton):
        layers = [self.input()]
        frames = self.shape.frames
        for index, (width, stride) in enumerate(channels):
            layers += self.block(layers[-1].row, width, stride, first=index == 0)
            frames = frames_after(frames, stride)
        layers += self.head(layers[-1].row, frames, labels)
        model = Model(skeleton, self.shape, tuple("label {}".format(i) for i in range(labels)), tuple(layers))
        reference.check_bounds(model)
        return model

    # Parts of a layer.

    def out_max(self):
        return int(self.rng.choice([ACTIVATION_MAX, ACTIVATION_MAX, 4095, 1000, 255]))

    def requantisation(self, count, accumulators, out_max):
        """mult (count,), shift: typical accumulators come out at about a third of out_max, some clamped."""
        typical = max(float(np.abs(accumulators).mean()), 1.0)
        mult = self.rng.integers(1 << 24, LIMIT, count, endpoint=True)
        shift = int(np.clip(np.rint(np.log2(typical * float(mult.mean()) * 3 / out_max)), 1, 62))
        mult = np.where(self.rng.uniform(size=count) < 0.1, -mult, mult)
        mult[0] = abs(mult[0])
        return mult.astype(WORD), shift

    def weights(self, rows, columns, in_max, limit=LIMIT):
        """int16 (rows, columns), in_max * sum|W| <= limit in every row; and the room that each row leaves."""
        amplitude = min(32767, max(1, limit // (in_max * columns)))
        weights = self.rng.integers(-amplitude, amplitude, (rows, columns), endpoint=True)
        weights[self.rng.integers(rows), self.rng.integers(columns)] = -amplitude
        room = limit - in_max * np.abs(weights).sum(axis=1)
        assert (room >= 0).all()
        return weights.astype(WEIGHT), room

    def bias(self, room):
        """Up to a quarter of what the row has left; row 0 all of it, so that it reaches its bound."""
        bias = (room // 4 * self.rng.uniform(-1, 1, room.shape)).astype(np.int64)
        bias[..., 0] = room[..., 0] * self.rng.choice([-1, 1])
        return bias.astype(WORD)

    def entries(self, limit):
        """Adjacency (nnz,) ENTRY, sum over (k, v) of |a| <= limit for each w; some columns stay empty."""
        partitions, joints = self.shape.partitions, self.shape.joints
        amplitude = max(1, min(limit // (partitions * joints), LIMIT))
        dense = self.rng.integers(-amplitude, amplitude, (partitions, joints, joints), endpoint=True)  # k, w, v
        dense[self.rng.uniform(size=dense.shape) < 0.6] = 0
        dense[0, 0, 0] = amplitude
        k, w, v = np.nonzero(dense)
        entries = np.zeros(len(k), ENTRY)
        entries["k"], entries["v"], entries["w"], entries["a"] = k, v, w, dense[k, w, v]
        return entries

    # Layers. Each is first run with mult 1 and without a clamp, to see what its accumulators are like.

    def input(self):
        joints, out_max = self.shape.joints, self.out_max()
        bias = self.rng.integers(-(1 << 22), 1 << 22, (joints, CHANNELS_IN))
        bias[0] = LIMIT - 32768 * 256
        mult, shift = self.requantisation(joints * CHANNELS_IN, self.x * 256 + bias, out_max)
        row = Row(Kind.INPUT, cin=3, cout=3, in_max=ACTIVATION_MAX, out_max=out_max, shift=shift)
        layer = InputLayer(row, mult.reshape(joints, CHANNELS_IN), bias.astype(WORD))
        self.x = reference.input_layer(layer, self.x)
        return layer

    def block(self, read, width, stride, first):
        graph = self.graph(read, width)
        layers, residual, r = [graph], Residual.NONE, np.zeros(1, np.int64)
        if not first and stride == 1 and read.cout == width:
            residual, r = Residual.IDENTITY, self.x
        elif not first:
            beside = self.residual(read, width, stride)
            layers.append(beside)
            residual, r = Residual.CONVOLUTION, reference.residual_layer(beside, self.x).output
        g = reference.graph_layer(graph, self.x, self.shape.partitions).output
        return layers + [self.temporal(graph.row, stride, residual, g, r)]

    def graph(self, read, width):
        partitions, joints, in_max = self.shape.partitions, self.shape.joints, read.out_max
        order = Order.AFTER if read.cout > 2 * width else Order.BEFORE
        out_max = self.out_max()
        row = Row(Kind.GRAPH, cin=read.cout, cout=width, taps=1, stride=1, order=order, in_max=in_max,
                  out_max=_UNCLAMPED, shift=1)
        if order == Order.BEFORE:
            entries = self.entries(LIMIT // in_max)
            adj_max = self.out_max()
            weights, room = self.weights(width, partitions * read.cout, adj_max)
            reach = float(np.abs(entries["a"]).sum()) / (partitions * joints) * float(np.abs(self.x).mean() + 1)
            adj_shift = int(np.clip(np.rint(np.log2(reach * 2 / adj_max)), 1, 62))
            bias = np.stack([self.bias(room) for _ in range(joints)])
        else:
            entries, adj_max = self.entries(1 << 26), 0
            weights, _ = self.weights(partitions * width, read.cout, in_max, LIMIT // 2)
            most = in_max * int(np.abs(weights.astype(np.int64)).sum(axis=1).max())
            column = int(max(np.abs(entries["a"][entries["w"] == w]).sum() for w in range(joints)))
            adj_shift = max(1, (column * most).bit_length() - 30)
            room = LIMIT - 1 - ((column * most) >> adj_shift)
            bias = np.stack([self.bias(np.full(width, room)) for _ in range(joints)])
        row = row._replace(adj_max=adj_max, adj_shift=adj_shift, nnz=len(entries))
        layer = GraphLayer(row, entries, weights, bias, np.ones(width, WORD))
        mult, shift = self.requantisation(
            width, 2 * reference.graph_layer(layer, self.x, partitions).output, out_max)
        return replace(layer, row=row._replace(out_max=out_max, shift=shift), mult=mult)

    def residual(self, read, width, stride):
        weights, room = self.weights(width, read.cout, read.out_max)
        row = Row(Kind.RESIDUAL, cin=read.cout, cout=width, taps=1, stride=stride, in_max=read.out_max,
                  out_max=_UNCLAMPED, shift=1)
        layer = ResidualLayer(row, weights, self.bias(room), np.ones(width, WORD))
        out_max = self.out_max()
        mult, shift = self.requantisation(width, 2 * reference.residual_layer(layer, self.x).output, out_max)
        return replace(layer, row=row._replace(out_max=out_max, shift=shift), mult=mult)

    def temporal(self, graph, stride, residual, g, r):
        weights, room = self.weights(graph.cout, self.taps * graph.cout, graph.out_max)
        row = Row(Kind.TEMPORAL, cin=graph.cout, cout=graph.cout, taps=self.taps, stride=stride, residual=residual,
                  in_max=graph.out_max, out_max=_UNCLAMPED, shift=1)
        layer = TemporalLayer(row, weights.reshape(graph.cout, self.taps, graph.cout), self.bias(room),
                              np.ones(graph.cout, WORD), np.zeros(1, WORD))
        out_max = self.out_max()
        mult, shift = self.requantisation(graph.cout, 2 * reference.temporal_layer(layer, g, r).output, out_max)
        beside = 0
        if residual != Residual.NONE:  # of about the size of the other term
            beside = int(np.clip(2.0 ** shift * out_max / 3 / (float(np.abs(r).mean()) + 1), 1, LIMIT))
        layer = replace(layer, row=row._replace(out_max=out_max, shift=shift), mult=mult,
                        res_mult=np.array([beside], WORD))
        self.x = reference.temporal_layer(layer, g, r).output
        return layer

    def head(self, last, frames, labels):
        one = frames * self.shape.joints * last.out_max
        empty = self.rng.integers(-one, one, last.cout, endpoint=True)
        empty[0] = one
        out_max = self.out_max()
        total = self.shape.persons * frames * self.shape.joints * self.x.mean(axis=(0, 1, 2))
        mult, shift = self.requantisation(1, total, out_max)
        row = Row(Kind.POOL, cin=last.cout, cout=last.cout, in_max=last.out_max, out_max=out_max, shift=shift)
        pool = PoolLayer(row, empty.astype(WORD), mult)
        weights, room = self.weights(labels, last.cout, out_max)
        row = Row(Kind.FC, cin=last.cout, cout=labels, in_max=out_max, out_max=LOGIT_MAX, shift=1)
        fc = FcLayer(row, weights, self.bias(room), np.ones(labels, WORD))
        product = reference.fc_layer(fc, reference.pool_layer(pool, self.x, self.shape.persons)).output
        mult, shift = self.requantisation(labels, 2 * product, 4 << 16)  # logits spread by a few units
        return [pool, replace(fc, row=row._replace(shift=shift), mult=mult)]


# Few words, yet a product of every kind: adjacency before and after, residual beside and over its input, stride,
# and in block 2 a graph, a residual and a temporal product whose answers have one shape.
SMALL = dict(channels=((4, 1), (4, 1), (9, 1), (4, 2)), frames=6, joints=5, persons=2, labels=3, partitions=2, taps=3)


@lru_cache(maxsize=None)
def small(seed=7, **changes):
    return integer_model(seed, **dict(SMALL, **changes))
