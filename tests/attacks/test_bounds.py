"""Tensors that break a bound are refused at the commit, signed or not: no input may overflow an accumulator.

``BOUNDS`` changes the tensors of one layer of a valid model; each entry leaves one bound of
edged/model/bounds.py, which eval/tensors.c proves again.
"""

from dataclasses import replace

import numpy as np
import pytest

from attacks.networks import random_coordinates
from attacks.offer import (
    AFTER, FC, GRAPH, GRAPH_2, INPUT, MODEL, POOL, RESIDUAL, RESIDUAL_4, TABLE, TEMPORAL, TEMPORAL_2, TEMPORAL_3,
    TEMPORAL_4, expect, fields_of, sealed, stream_of,
)
from edged.enclave import wire
from edged.enclave.wire import EvalCommand, Status

LIMIT = (1 << 31) - 1


def at(layer, **tensors):
    def change(layers):
        layers[layer] = replace(layers[layer], **{
            name: make(getattr(layers[layer], name).copy()) for name, make in tensors.items()})
    return change


def put(value, where=0):
    def change(tensor):
        tensor.reshape(-1)[where] = value
        return tensor
    return change


def fill(value):
    def change(tensor):
        tensor[...] = value
        return tensor
    return change


def room_of(layer, row=0):
    """What is left of 2^31 - 1 in one row of a product, beside its bias."""
    one = MODEL.layers[layer]
    most = one.row.adj_max or one.row.in_max
    return LIMIT - most * int(np.abs(one.weights.reshape(len(one.weights), -1)[row].astype(np.int64)).sum())


def entry(index, **changes):
    def change(entries):
        for name, value in changes.items():
            entries[index][name] = value
        return entries
    return change


def every_entry(value):
    def change(entries):
        entries["a"] = value
        return entries
    return change


def swapped(entries):
    entries[[0, 1]] = entries[[1, 0]]
    return entries


def doubled(entries):
    entries[1] = entries[0]
    return entries


FULL_POOL = 3 * MODEL.shape.joints * TABLE[POOL].in_max  # frames at that depth: (6 - 1) // 2 + 1

BOUNDS = {
    "a graph layer's rows": at(GRAPH, weights=fill(32767)),
    "one weight of a graph layer": at(GRAPH, weights=put(-32768), bias=fill(LIMIT - room_of(GRAPH) // 2)),
    "a temporal layer's rows": at(TEMPORAL_3, weights=fill(-32768)),
    "a residual layer's rows": at(RESIDUAL, weights=fill(32767), bias=fill(LIMIT)),
    "the last row of the fully connected layer": at(FC, bias=put(LIMIT, -1)),
    "a row's bias by one": at(TEMPORAL, bias=put(room_of(TEMPORAL) + 1)),
    "a row's negative bias by one": at(TEMPORAL, bias=put(-room_of(TEMPORAL) - 1)),
    "a bias of INT32_MIN": at(TEMPORAL_2, bias=put(-1 << 31)),
    "one joint's bias before": at(GRAPH, bias=put(room_of(GRAPH) + 1, MODEL.layers[GRAPH].bias.shape[1] * 3)),
    "one joint's bias after": at(AFTER, bias=put(LIMIT)),
    "the adjacency before": at(GRAPH, adjacency=entry(0, a=LIMIT // TABLE[GRAPH].in_max + 1)),
    "an adjacency entry of INT32_MIN": at(GRAPH_2, adjacency=entry(0, a=-1 << 31)),
    "the adjacency after": at(AFTER, adjacency=entry(0, a=LIMIT)),
    "the adjacency after of weights of zero": at(AFTER, adjacency=every_entry(LIMIT), weights=fill(0), bias=fill(0)),
    "an adjacency after of INT32_MIN": at(AFTER, adjacency=entry(0, a=-1 << 31)),
    "an adjacency entry of zero": at(GRAPH, adjacency=entry(0, a=0)),
    "an adjacency's padding": at(GRAPH, adjacency=entry(0, zero=1)),
    "an adjacency's partition": at(GRAPH, adjacency=entry(-1, k=MODEL.shape.partitions)),
    "an adjacency's joint read": at(GRAPH, adjacency=entry(-1, v=MODEL.shape.joints)),
    "an adjacency's joint written": at(AFTER, adjacency=entry(-1, w=MODEL.shape.joints)),
    "an adjacency's order": at(GRAPH, adjacency=swapped),
    "an adjacency entry twice": at(AFTER, adjacency=doubled),
    "the input's bias": at(INPUT, bias=put(LIMIT - 32768 * 256 + 1)),
    "the input's negative bias": at(INPUT, bias=put(-(LIMIT - 32768 * 256) - 1, -1)),
    "a multiplier of the input": at(INPUT, mult=put(-1 << 31, -1)),
    "a multiplier of a graph layer": at(GRAPH, mult=put(-1 << 31)),
    "a multiplier of a residual layer": at(RESIDUAL_4, mult=put(-1 << 31, -1)),
    "a multiplier of a temporal layer": at(TEMPORAL_4, mult=put(-1 << 31)),
    "the multiplier of the pooling": at(POOL, mult=put(-1 << 31)),
    "a multiplier of the fully connected layer": at(FC, mult=put(-1 << 31)),
    "a residual's multiplier": at(TEMPORAL_2, res_mult=put(-1 << 31)),
    "a residual's multiplier without a residual": at(TEMPORAL, res_mult=put(1)),
    "the empty person": at(POOL, empty=put(FULL_POOL + 1)),
    "the empty person, negative": at(POOL, empty=put(-FULL_POOL - 1, -1)),
    "the empty person of INT32_MIN": at(POOL, empty=put(-1 << 31)),
}


@pytest.mark.parametrize("name", list(BOUNDS))
def test_a_package_whose_tensors_break_a_bound_is_refused(node, name):
    layers = list(MODEL.layers)
    BOUNDS[name](layers)
    offer = sealed(node, stream=stream_of(replace(MODEL, layers=tuple(layers))))
    expect(node, offer, Status.PACKAGE, EvalCommand.LOAD_COMMIT)


ON_THE_BOUND = {
    "a row's bias": at(TEMPORAL, bias=put(room_of(TEMPORAL))),
    "a row's negative bias": at(TEMPORAL, bias=put(-room_of(TEMPORAL))),
    "one joint's bias before": at(GRAPH, bias=put(room_of(GRAPH), MODEL.layers[GRAPH].bias.shape[1] * 3)),
    "the input's bias": at(INPUT, bias=put(LIMIT - 32768 * 256)),
    "a multiplier": at(GRAPH, mult=put(-LIMIT)),
    "the empty person": at(POOL, empty=put(-FULL_POOL)),
}


@pytest.mark.parametrize("name", list(ON_THE_BOUND))
def test_a_package_exactly_on_a_bound_is_taken_and_exact(node, name):
    layers = list(MODEL.layers)
    ON_THE_BOUND[name](layers)
    node.load(replace(MODEL, layers=tuple(layers)))  # which packs it, and so proves the bound in Python too
    node.evaluate(node.camera(), random_coordinates(np.random.default_rng(1), MODEL.shape, 1))


def test_a_pooling_sum_that_would_overflow_is_refused(node):
    """M T V in_max < 2^31 cannot be broken within the format's own limits: 65536 * 32767."""
    assert wire.EVAL_POSITIONS_MAX * 32767 < 1 << 31
    huge = fields_of(frames=4096, joints=5, persons=8)
    expect(node, sealed(node, huge), Status.PACKAGE, EvalCommand.LOAD_ENVELOPE)
