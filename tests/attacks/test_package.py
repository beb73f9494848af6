"""Packages that the evaluation application must refuse, and its status for each; a good one loads afterwards.

The owner is dishonest in most of these: everything is signed and sealed as it should be, only what is inside is not.
"""

import hashlib
import os
import struct
from contextlib import contextmanager
from dataclasses import replace

import cbor2
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from attacks.networks import SMALL, integer_model, random_coordinates, small
from attacks.node import ALERT_SLOT, DATA_SLOT, KEY_ID, MODEL_SLOT, refused, verifier_of
from edged.enclave import wire
from edged.enclave.wire import EvalCommand, KeyKind, Placement, Status
from edged.errors import EnclaveError
from edged.model import package
from edged.model.layers import Kind, Row
from edged.model.manifest import manifest_fields
from edged.model.tensors import BLIND_BYTES, read_tensors, stream_size, write_tensors

MODEL = small()
TABLE = MODEL.table
LIMIT = (1 << 31) - 1
SEALED = wire.EVAL_SEAL_BYTES + wire.EVAL_TAG_BYTES
ENVELOPE_AT = len(package.MAGIC) + 8

# Rows of MODEL by place, see networks.SMALL.
INPUT, GRAPH, TEMPORAL, GRAPH_2, TEMPORAL_2, GRAPH_3, RESIDUAL, TEMPORAL_3, AFTER, RESIDUAL_4, TEMPORAL_4, POOL, FC = range(13)


def fields_of(model=MODEL, **changes):
    fields = manifest_fields(model, "attack", 1, package.PLACEMENTS_ALL, KEY_ID)
    return dict(fields, **changes)


def stream_of(model=MODEL):
    return write_tensors(model, os.urandom(BLIND_BYTES))


class Offer:
    """A package in its parts, as the client sends them."""

    def __init__(self, data):
        size = int.from_bytes(data[12:16], "little")
        self.envelope = data[ENVELOPE_AT:ENVELOPE_AT + size]
        sealed = data[ENVELOPE_AT + size:]
        self.chunks = [sealed[at:at + SEALED] for at in range(0, len(sealed), SEALED)]

    def send(self, node, placement=Placement.MASKED, slot=MODEL_SLOT):
        """(status, command) of the first message that is not taken, or of the commit."""
        messages = [(EvalCommand.LOAD_OPEN, wire.LoadOpen(slot, placement, len(self.envelope)).pack())]
        messages += [(EvalCommand.LOAD_ENVELOPE, wire.Chunk(0, at).pack() + self.envelope[at:at + wire.EDGED_CHUNK_BYTES])
                     for at in range(0, len(self.envelope), wire.EDGED_CHUNK_BYTES)]
        messages += [(EvalCommand.LOAD_CHUNK, wire.Chunk(index, 0).pack() + chunk)
                     for index, chunk in enumerate(self.chunks)]
        for command, body in messages + [(EvalCommand.LOAD_COMMIT, b"")]:
            status, answer = node.call(command, body)
            if status != Status.OK:
                assert answer == b""
                break
        return status, command


def sealed(node, fields=None, stream=None, key=None, owner=None):
    """An offer with the owner's true signature and seal."""
    return Offer(package.seal(fields or fields_of(), stream or stream_of(), key or node.model_key, owner or node.owner))


@contextmanager
def nothing_is_loaded_and_a_good_package_loads(node):
    yield
    for command in (EvalCommand.LOAD_CHUNK, EvalCommand.LOAD_COMMIT, EvalCommand.WEIGHTS_READ, EvalCommand.PREPARE_OPEN):
        bodies = {EvalCommand.LOAD_COMMIT: b"", EvalCommand.PREPARE_OPEN: wire.PrepareOpen(1).pack(),
                  EvalCommand.LOAD_CHUNK: wire.Chunk(0, 0).pack() + bytes(20)}
        assert node.call(command, bodies.get(command, wire.Chunk(0, 0).pack())) == (Status.ORDER, b"")
    assert sealed(node).send(node) == (Status.OK, EvalCommand.LOAD_COMMIT)


def expect(node, offer, status, command, **how):
    with nothing_is_loaded_and_a_good_package_loads(node):
        assert offer.send(node, **how) == (status, command)


# Bounds. ``breaks`` changes the tensors of one layer of the valid model; each names the row of masked.h, layer.h or
# /edged/model/bounds.py that it leaves.


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


# The manifest: its fields and the table, each rule of eval/manifest.c.


def row(layer, **changes):
    def change(fields):
        fields["layers"][layer] = list(Row(*fields["layers"][layer])._replace(**changes))
    return change


def field(**changes):
    def change(fields):
        fields.update(changes)
    return change


def rows(make):
    def change(fields):
        fields["layers"] = make([list(one) for one in fields["layers"]])
    return change


def without(layer):
    return rows(lambda layers: layers[:layer] + layers[layer + 1:])


def exchanged(one, other):
    def make(layers):
        layers[one], layers[other] = layers[other], layers[one]
        return layers
    return rows(make)


def drop(name):
    def change(fields):
        del fields[name]
    return change


MANIFESTS = {
    "another form": field(form="stream"), "an unknown form": field(form="clap"), "a form in bytes": field(form=b"clip"),
    "schema 0": field(schema=0), "schema 2": field(schema=2),
    "a short salt": field(salt=bytes(31)), "a long salt": field(salt=bytes(33)),
    "a short digest": field(digest=bytes(31)), "a digest in text": field(digest="x" * 32),
    "a short key id": field(key_id=bytes(15)), "a long key id": field(key_id=bytes(17)),
    "no chunks": field(chunks=0), "too many chunks": field(chunks=65537), "chunks without end": field(chunks=(1 << 64) - 1),
    "no persons": field(persons=0), "too many persons": field(persons=9),
    "no frames": field(frames=0), "too many frames": field(frames=4097), "frames below 0": field(frames=-6),
    "no joints": field(joints=0), "too many joints": field(joints=65),
    "no partitions": field(partitions=0), "too many partitions": field(partitions=9),
    "too many positions": field(frames=4096, joints=9),
    "no placements": field(placements=0), "unknown placements": field(placements=8),
    "a version of 33 bits": field(version=1 << 32), "a version below 0": field(version=-1),
    "no model id": field(model_id=""), "a long model id": field(model_id="x" * 65), "a number for a model id": field(model_id=1),
    "no skeleton": field(skeleton=""), "a long skeleton": field(skeleton="x" * 65),
    "no labels": field(labels=[]), "too many labels": field(labels=["x"] * 401), "an empty label": field(labels=["a", "", "c"]),
    "a long label": field(labels=["a", "x" * 65, "c"]), "a label in bytes": field(labels=["a", b"b", "c"]),
    "a label less": field(labels=["a", "b"]), "a label more": field(labels=["a", "b", "c", "d"]),
    "a field more": field(extra=1), "a field with another name": lambda fields: fields.update(bonus=fields.pop("persons")),
    "a field less": drop("version"), "a number for the layers": field(layers=1), "no layers": field(layers=[]),
    "too many layers": rows(lambda layers: layers[:1] + layers[1:3] * 31 + layers[-2:]),
    "a row too short": rows(lambda layers: layers[:1] + [layers[1][:12]] + layers[2:]),
    "a row too long": rows(lambda layers: layers[:1] + [layers[1] + [0]] + layers[2:]),
    "a row of text": rows(lambda layers: ["x"] + layers[1:]),
    "a word of 33 bits in a row": row(GRAPH, nnz=1 << 32), "a word below 0 in a row": row(GRAPH, shift=-1),
    "a layer of no kind": row(GRAPH, kind=6), "a layer of a kind of 32 bits": row(GRAPH, kind=0xFFFFFFFF),
    # The sequence.
    "no input": without(INPUT), "no graph": without(GRAPH), "no temporal": without(TEMPORAL),
    "no residual where one is asked for": without(RESIDUAL), "no pooling": without(POOL), "no end": without(FC),
    "two inputs": rows(lambda layers: layers[:1] + layers), "two graphs": rows(lambda layers: layers[:2] + layers[1:]),
    "two residuals": rows(lambda layers: layers[:RESIDUAL + 1] + layers[RESIDUAL:]),
    "two temporals": rows(lambda layers: layers[:TEMPORAL + 1] + layers[TEMPORAL:]),
    "two poolings": rows(lambda layers: layers[:POOL + 1] + layers[POOL:]), "two ends": rows(lambda layers: layers + layers[-1:]),
    "an end in the middle": exchanged(FC, POOL), "no block": rows(lambda layers: [layers[0]] * 3 + layers[-2:]),
    "a residual before its graph": exchanged(GRAPH_3, RESIDUAL), "a graph after its temporal": exchanged(GRAPH, TEMPORAL),
    "something after the end": rows(lambda layers: layers + layers[1:3]),
    # A row in itself.
    "no channels in": row(GRAPH, cin=0), "no channels out": row(RESIDUAL, cout=0), "too many channels": row(GRAPH, cout=1025),
    "no shift": row(TEMPORAL, shift=0), "too large a shift": row(TEMPORAL, shift=63),
    "no range": row(GRAPH, out_max=0), "too large a range": row(TEMPORAL, out_max=32768),
    "a residual without a range": row(RESIDUAL, out_max=0), "a pooling without a range": row(POOL, out_max=0),
    "an input of more channels": row(INPUT, cin=4), "an input that makes other channels": row(INPUT, cout=4),
    "an input of another range": row(INPUT, in_max=32766), "an input without a range": row(INPUT, out_max=0),
    "an input with taps": row(INPUT, taps=1), "an input with entries": row(INPUT, nnz=1),
    "an input with a residual": row(INPUT, residual=1), "an input with a stride": row(INPUT, stride=1),
    "a graph of two taps": row(GRAPH, taps=2), "a graph without taps": row(GRAPH, taps=0),
    "a graph with a stride": row(GRAPH, stride=2), "a graph of a third order": row(GRAPH, order=2),
    "a graph with a residual": row(GRAPH, residual=1), "a graph without a shift": row(GRAPH, adj_shift=0),
    "a graph with too large a shift": row(GRAPH, adj_shift=63), "a graph without a range between": row(GRAPH, adj_max=0),
    "a graph with too large a range between": row(GRAPH, adj_max=32768),
    "a graph after with a range between": row(AFTER, adj_max=1),
    "more entries than there are places": row(GRAPH, nnz=2 * 25 + 1),
    "a residual of three taps": row(RESIDUAL, taps=3), "a residual without a stride": row(RESIDUAL, stride=0),
    "a residual of too large a stride": row(RESIDUAL, stride=5), "a residual with entries": row(RESIDUAL, nnz=1),
    "a residual with a residual": row(RESIDUAL, residual=1), "a residual with an order": row(RESIDUAL, order=1),
    "a temporal of even taps": row(TEMPORAL, taps=2), "a temporal without taps": row(TEMPORAL, taps=0),
    "a temporal of too many taps": row(TEMPORAL, taps=17), "a temporal without a stride": row(TEMPORAL, stride=0),
    "a temporal of too large a stride": row(TEMPORAL, stride=5), "a temporal with entries": row(TEMPORAL, nnz=1),
    "a temporal with an order": row(TEMPORAL, order=1), "a temporal of a fourth residual": row(TEMPORAL, residual=3),
    "a pooling with a stride": row(POOL, stride=1), "a pooling with a range between": row(POOL, adj_max=1),
    "an end with taps": row(FC, taps=1), "an end of another range": row(FC, out_max=(1 << 30) - 1),
    "an end of another size than the labels": row(FC, cout=4),
    # A row and what it reads.
    "a graph that reads other channels": row(GRAPH_2, cin=5), "a graph that reads another range": row(GRAPH_2, in_max=77),
    "a residual that reads other channels": row(RESIDUAL, cin=5), "a residual that reads another range": row(RESIDUAL, in_max=77),
    "a residual that makes other channels": row(RESIDUAL, cout=8),
    "a residual of another stride": row(RESIDUAL_4, stride=1), "a temporal of another stride": row(TEMPORAL_4, stride=1),
    "a temporal that reads other channels": row(TEMPORAL, cin=5), "a temporal that makes other channels": row(TEMPORAL, cout=5),
    "a temporal that reads another range": row(TEMPORAL, in_max=77),
    "an identity of other channels": row(TEMPORAL_3, residual=1), "an identity with a stride": row(TEMPORAL_2, stride=2),
    "a residual that nobody adds": row(TEMPORAL_3, residual=0), "a residual that nobody made": row(TEMPORAL_2, residual=2),
    "a pooling that reads other channels": row(POOL, cin=5, cout=5), "a pooling that makes other channels": row(POOL, cout=5),
    "a pooling that reads another range": row(POOL, in_max=TABLE[POOL].in_max + 1),
    "an end that reads other channels": row(FC, cin=5), "an end that reads another range": row(FC, in_max=77),
}


@pytest.mark.parametrize("name", list(MANIFESTS))
def test_a_manifest_that_breaks_a_rule_is_refused_although_its_owner_signed_it(node, name):
    fields = fields_of()
    fields.update(chunks=len(sealed(node).chunks), digest=bytes(32))
    MANIFESTS[name](fields)
    encoded = cbor2.dumps(fields, canonical=True)
    offer = Offer(package.seal_encoded(encoded, fields_of()["salt"], stream_of(), node.model_key, node.owner))
    expect(node, offer, Status.PACKAGE, EvalCommand.LOAD_ENVELOPE)


def rewritten(change):
    """The manifest's bytes, changed after encoding, with a true signature."""
    def make(node):
        fields, stream = fields_of(), stream_of()
        fields.update(chunks=-(-len(stream) // wire.EVAL_SEAL_BYTES), digest=hashlib.sha256(stream).digest())
        encoded = change(cbor2.dumps(fields, canonical=True))
        return Offer(package.seal_encoded(encoded, fields["salt"], stream, node.model_key, node.owner))
    return make


def replaced(old, new):
    def change(encoded):
        assert encoded.count(old) >= 1
        return encoded.replace(old, new, 1)
    return change


def map_without_length(encoded):
    return b"\xbf" + encoded[1:] + b"\xff"


def keys_out_of_order(encoded):
    return replaced(b"\x66frames\x06\x66joints\x05", b"\x66joints\x05\x66frames\x06")(encoded)


NOT_CANONICAL = {
    "a number longer than it need be": replaced(b"\x66schema\x01", b"\x66schema\x18\x01"),
    "a number in eight bytes": replaced(b"\x66frames\x06", b"\x66frames\x1b" + bytes(7) + b"\x06"),
    "a text's length longer than it need be": replaced(b"\x64clip", b"\x78\x04clip"),
    "a key's length longer than it need be": replaced(b"\x66schema", b"\x78\x06schema"),
    "an array's length longer than it need be": replaced(b"\x66labels\x83", b"\x66labels\x98\x03"),
    "an array without a length": lambda encoded: replaced(b"\x66labels\x83", b"\x66labels\x9f")(encoded).replace(
        b"\x66layers", b"\xff\x66layers", 1),
    "a text without a length": replaced(b"\x64clip", b"\x7f\x64clip\xff"),
    "a map without a length": map_without_length,
    "keys out of order": keys_out_of_order,
    "a key twice": replaced(b"\x66joints\x05", b"\x66frames\x06"),
    "a tag": replaced(b"\x66schema\x01", b"\x66schema\xc1\x01"),
    "a float": replaced(b"\x66schema\x01", b"\x66schema\xf9\x3c\x00"),
    "true for one": replaced(b"\x66schema\x01", b"\x66schema\xf5"),
    "a label that is not UTF-8": replaced(b"\x67label 0", b"\x67label \xff"),
    "a label of overlong UTF-8": replaced(b"\x67label 0", b"\x67label" + b"\xc0\xaf"),
    "a byte behind": lambda encoded: encoded + b"\x00",
    "a byte less": lambda encoded: encoded[:-1],
    "nothing": lambda encoded: b"\xa0",
    "a reserved length": lambda encoded: b"\xbc" + encoded[1:],
}


@pytest.mark.parametrize("name", list(NOT_CANONICAL))
def test_a_manifest_that_is_not_canonical_cbor_is_refused(node, name):
    expect(node, rewritten(NOT_CANONICAL[name])(node), Status.PACKAGE, EvalCommand.LOAD_ENVELOPE)


def test_the_same_manifest_unchanged_is_taken(node):
    assert rewritten(lambda encoded: encoded)(node).send(node) == (Status.OK, EvalCommand.LOAD_COMMIT)


# The envelope and its signature.


def test_a_flipped_bit_anywhere_in_the_envelope_is_refused(node):
    offer = sealed(node)
    original = offer.envelope
    tail = len(original) - 64
    places = list(range(12)) + [tail - 3, tail - 2, tail - 1, tail, tail + 31, tail + 32, len(original) - 1]
    places += [int(place) for place in np.random.default_rng().integers(12, tail, 40)]
    for place in places:
        bit = 1 << int(np.random.default_rng().integers(8))
        offer.envelope = original[:place] + bytes([original[place] ^ bit]) + original[place + 1:]
        status, command = offer.send(node)
        assert (status, command) == (Status.PACKAGE, EvalCommand.LOAD_ENVELOPE), place
    offer.envelope = original
    assert offer.send(node) == (Status.OK, EvalCommand.LOAD_COMMIT)


def test_a_package_of_another_owner_is_refused(node):
    expect(node, sealed(node, owner=Ed25519PrivateKey.generate()), Status.PACKAGE, EvalCommand.LOAD_ENVELOPE)


def test_a_signature_of_another_package_or_of_none_is_refused(node):
    offer = sealed(node)
    for signature in (sealed(node).envelope[-64:], bytes(64), b"\xff" * 64):
        offer.envelope = offer.envelope[:-64] + signature
        expect(node, offer, Status.PACKAGE, EvalCommand.LOAD_ENVELOPE)


def test_an_envelope_of_another_form_is_refused(node):
    """Untagged, with another algorithm, with an unprotected header, with bytes behind, empty, or not CBOR at all."""
    good = sealed(node).envelope
    for envelope in (good[1:], good.replace(b"\xa1\x01\x27", b"\xa1\x01\x26", 1), good.replace(b"\xa0", b"\xa1\x04\x01", 1),
                     good + b"\0", good[:-1], good[:7], b"\xd2", bytes(100), b"\xff" * 32768):
        offer = sealed(node)
        offer.envelope = envelope
        expect(node, offer, Status.PACKAGE, EvalCommand.LOAD_ENVELOPE)


@pytest.mark.parametrize("size", [0, 32769, 0xFFFFFFFF])
def test_an_envelope_of_an_impossible_size_is_refused(node, size):
    assert node.call(EvalCommand.LOAD_OPEN, wire.LoadOpen(MODEL_SLOT, 0, size).pack()) == (Status.ARGUMENT, b"")


def test_more_envelope_than_announced_or_out_of_place_is_refused(node):
    offer = sealed(node)
    size = len(offer.envelope)
    assert node.call(EvalCommand.LOAD_OPEN, wire.LoadOpen(MODEL_SLOT, 0, size).pack())[0] == Status.OK
    for index, offset, data in ((0, 0, offer.envelope + b"\0"), (1, 0, b"x"), (0, 1, b"x"), (0, 1 << 63, b"x"), (0, 0, b"")):
        assert node.call(EvalCommand.LOAD_ENVELOPE, wire.Chunk(index, offset).pack() + data) == (Status.OBJECT, b"")
    assert node.call(EvalCommand.LOAD_CHUNK, wire.Chunk(0, 0).pack() + bytes(20)) == (Status.ORDER, b"")
    assert offer.send(node) == (Status.OK, EvalCommand.LOAD_COMMIT)


# Keys and placements.


def test_a_package_for_another_key_id_is_refused(node):
    expect(node, sealed(node, fields_of(key_id=b"another key's id")), Status.KEY, EvalCommand.LOAD_ENVELOPE)


def test_a_package_sealed_under_another_key_is_refused(node):
    expect(node, sealed(node, key=os.urandom(32)), Status.PACKAGE, EvalCommand.LOAD_CHUNK)


@pytest.mark.parametrize("slot", [DATA_SLOT, ALERT_SLOT, 9])
def test_a_slot_that_is_empty_or_of_another_kind_opens_no_package(node, slot):
    expect(node, sealed(node), Status.KEY, EvalCommand.LOAD_ENVELOPE, slot=slot)


@pytest.mark.parametrize("slot", [16, 0xFFFFFFFF])
def test_a_slot_that_does_not_exist_is_refused(node, slot):
    assert sealed(node).send(node, slot=slot) == (Status.ARGUMENT, EvalCommand.LOAD_OPEN)


@pytest.mark.parametrize("placement", [3, 0xFFFFFFFF])
def test_a_placement_that_does_not_exist_is_refused(node, placement):
    assert sealed(node).send(node, placement=placement) == (Status.ARGUMENT, EvalCommand.LOAD_OPEN)


@pytest.mark.parametrize("placement", list(Placement), ids=lambda placement: placement.name)
def test_a_placement_that_the_owner_did_not_sign_is_refused_and_each_that_he_did_is_taken(node, placement):
    offer = sealed(node, fields_of(placements=7 & ~(1 << placement)))
    expect(node, offer, Status.PLACEMENT, EvalCommand.LOAD_ENVELOPE, placement=placement)
    for other in Placement:
        if other != placement:
            assert offer.send(node, placement=other) == (Status.OK, EvalCommand.LOAD_COMMIT)
    alone = sealed(node, fields_of(placements=1 << placement))
    assert alone.send(node, placement=placement) == (Status.OK, EvalCommand.LOAD_COMMIT)


def test_two_owners_packages_load_each_from_its_own_slot_only(node):
    other, key = Ed25519PrivateKey.generate(), os.urandom(32)
    client = node.connect_key()
    client.put_slot(5, KeyKind.MODEL, key, KEY_ID, verifier_of(other))
    client.close()
    theirs = sealed(node, key=key, owner=other)
    assert theirs.send(node, slot=5) == (Status.OK, EvalCommand.LOAD_COMMIT)
    expect(node, theirs, Status.PACKAGE, EvalCommand.LOAD_ENVELOPE)
    expect(node, sealed(node), Status.PACKAGE, EvalCommand.LOAD_ENVELOPE, slot=5)


# Chunks.


def many_chunks(node):
    """A package of several chunks, the last one shorter."""
    model = integer_model(5, **dict(SMALL, channels=((40, 1), (30, 1))))
    offer = sealed(node, fields_of(model), stream_of(model))
    assert len(offer.chunks) >= 5 and len(offer.chunks[-1]) < SEALED
    return offer


def test_a_flipped_bit_in_any_chunk_is_refused(node):
    offer = many_chunks(node)
    for index, chunk in enumerate(offer.chunks):
        for place in (0, 17, len(chunk) // 2, len(chunk) - 17, len(chunk) - 16, len(chunk) - 1):
            offer.chunks[index] = chunk[:place] + bytes([chunk[place] ^ 0x10]) + chunk[place + 1:]
            assert offer.send(node) == (Status.PACKAGE, EvalCommand.LOAD_CHUNK), (index, place)
        offer.chunks[index] = chunk
    assert offer.send(node) == (Status.OK, EvalCommand.LOAD_COMMIT)


def test_chunks_in_another_order_are_refused(node):
    offer = many_chunks(node)
    offer.chunks[1], offer.chunks[2] = offer.chunks[2], offer.chunks[1]
    expect(node, offer, Status.PACKAGE, EvalCommand.LOAD_CHUNK)
    offer = many_chunks(node)
    offer.chunks[2] = offer.chunks[1]
    expect(node, offer, Status.PACKAGE, EvalCommand.LOAD_CHUNK)


def test_a_chunk_of_another_package_is_refused(node):
    offer, other = many_chunks(node), many_chunks(node)  # the same model and key: only the manifest's salt differs
    offer.chunks[2] = other.chunks[2]
    expect(node, offer, Status.PACKAGE, EvalCommand.LOAD_CHUNK)
    offer = many_chunks(node)
    offer.chunks = other.chunks
    expect(node, offer, Status.PACKAGE, EvalCommand.LOAD_CHUNK)


def test_the_chunks_under_a_manifest_that_differs_in_a_number_are_refused(node):
    fields, stream = fields_of(), stream_of()
    offer = sealed(node, fields, stream)
    offer.envelope = sealed(node, dict(fields, version=2), stream).envelope
    expect(node, offer, Status.PACKAGE, EvalCommand.LOAD_CHUNK)


def test_a_package_that_ends_early_is_refused(node):
    whole = many_chunks(node).chunks
    for count in range(len(whole)):
        offer = many_chunks(node)
        offer.chunks = offer.chunks[:count]
        expect(node, offer, Status.PACKAGE, EvalCommand.LOAD_COMMIT)


def test_a_chunk_too_short_or_too_long_is_refused(node):
    for index, size in ((0, SEALED - 1), (0, SEALED - 8), (0, 16), (0, 1), (0, 0), (-1, 16)):
        offer = many_chunks(node)
        offer.chunks[index] = offer.chunks[index][:size]
        assert offer.send(node) == (Status.LENGTH, EvalCommand.LOAD_CHUNK), (index, size)
    offer = many_chunks(node)
    offer.chunks[-1] = offer.chunks[-1][:-1]  # of any length, but it does not open
    expect(node, offer, Status.PACKAGE, EvalCommand.LOAD_CHUNK)
    offer = many_chunks(node)
    offer.chunks[0] += b"\0"
    assert offer.send(node) == (Status.LENGTH, EvalCommand.LOAD_CHUNK)


def test_a_chunk_too_many_or_with_a_wrong_number_is_refused(node):
    offer = many_chunks(node)
    offer.chunks.append(offer.chunks[0])
    assert offer.send(node) == (Status.OBJECT, EvalCommand.LOAD_CHUNK)
    assert node.call(EvalCommand.LOAD_COMMIT)[0] == Status.OK  # the package itself had come whole
    offer = many_chunks(node)
    node.call(EvalCommand.LOAD_OPEN, wire.LoadOpen(MODEL_SLOT, 0, len(offer.envelope)).pack())
    assert node.call(EvalCommand.LOAD_ENVELOPE, wire.Chunk(0, 0).pack() + offer.envelope)[0] == Status.OK
    for index, offset in ((1, 0), (1 << 31, 0), (0, 1), (0, 1 << 63)):
        body = wire.Chunk(index, offset).pack() + offer.chunks[0]
        assert node.call(EvalCommand.LOAD_CHUNK, body) == (Status.OBJECT, b"")
    assert node.call(EvalCommand.LOAD_CHUNK, wire.Chunk(0, 0).pack() + offer.chunks[0])[0] == Status.OK
    assert node.call(EvalCommand.LOAD_CHUNK, wire.Chunk(0, 0).pack() + offer.chunks[0]) == (Status.OBJECT, b"")


def test_tensors_that_do_not_fill_the_table_or_do_more_are_refused(node):
    """The owner sealed and signed another number of bytes than his table takes."""
    stream = stream_of()
    assert len(stream) == stream_size(TABLE, MODEL.shape)
    for wrong in (stream[:-8], stream[:-1], stream[:32], stream[:31]):
        expect(node, sealed(node, stream=wrong), Status.PACKAGE, EvalCommand.LOAD_COMMIT)
    for wrong in (stream + bytes(8), stream + b"\0", stream + b"\1"):
        expect(node, sealed(node, stream=wrong), Status.PACKAGE, EvalCommand.LOAD_CHUNK)


def test_tensors_with_another_digest_are_refused(node):
    expect(node, sealed(node, fields_of(digest=bytes(32))), Status.PACKAGE, EvalCommand.LOAD_COMMIT)


def test_padding_behind_a_tensor_that_is_not_zero_is_refused(node):
    stream = stream_of()
    assert read_tensors(stream, TABLE, MODEL.shape)
    assert stream[-4:] == bytes(4) and len(MODEL.labels) % 2 == 1  # FC's mult: three words and four bytes
    expect(node, sealed(node, stream=stream[:-1] + b"\1"), Status.PACKAGE, EvalCommand.LOAD_CHUNK)


def test_chunks_announced_that_the_table_does_not_take_are_refused(node):
    for chunks in (1 + len(sealed(node).chunks), 65536):
        fields = fields_of(chunks=chunks)
        offer = sealed(node, fields)
        status, command = offer.send(node)
        # What the last chunk is follows from the number announced.
        assert (status, command) in ((Status.LENGTH, EvalCommand.LOAD_CHUNK), (Status.PACKAGE, EvalCommand.LOAD_CHUNK))
    assert sealed(node).send(node) == (Status.OK, EvalCommand.LOAD_COMMIT)


# Memory.


def test_a_model_whose_weights_do_not_fit_the_heap_is_refused_before_any_of_them_come(node):
    fields = fields_of()
    wide = dict(cin=1024, cout=1024)
    table = [list(MODEL.table[INPUT]),
             list(Row(Kind.GRAPH, 3, 1024, 1, 1, 0, 0, TABLE[INPUT].out_max, 100, 20, 100, 9, 4)),
             list(Row(Kind.TEMPORAL, taps=15, stride=1, in_max=100, out_max=100, shift=20, **wide)),
             list(Row(Kind.POOL, in_max=100, out_max=100, shift=20, **wide)),
             list(Row(Kind.FC, 1024, 3, in_max=100, out_max=1 << 30, shift=20))]
    fields.update(layers=table, chunks=7900, digest=bytes(32))
    offer = Offer(package.seal_encoded(cbor2.dumps(fields, canonical=True), fields["salt"], bytes(40), node.model_key, node.owner))
    expect(node, offer, Status.MEMORY, EvalCommand.LOAD_ENVELOPE)


def test_a_model_whose_activations_do_not_fit_the_heap_is_refused_at_the_commit(node):
    fields = fields_of(integer_model(1, ((400, 1),), 40, 5, taps=1), frames=1600, persons=8)  # 51 MB of activations
    offer = sealed(node, fields, stream_of(integer_model(1, ((400, 1),), 40, 5, taps=1)))
    expect(node, offer, Status.MEMORY, EvalCommand.LOAD_COMMIT)
    assert node.stats().memory.heap_peak <= node.stats().memory.heap_limit


def test_a_hundred_refused_packages_leave_no_memory_behind(node):
    """The heap's limit is hard: what a refusal forgot to give back would make a later load fail."""
    big = integer_model(1, ((300, 1), (300, 1)), 40, 18, taps=9)  # 5 MB of 12
    data = package.pack(big, node.model_key, node.owner, key_id=KEY_ID)
    for cut in range(4):
        offer = Offer(data)
        place = len(offer.chunks) - 1 - cut
        offer.chunks[place] = offer.chunks[place][:-1] + bytes([offer.chunks[place][-1] ^ 1])
        assert offer.send(node) == (Status.PACKAGE, EvalCommand.LOAD_CHUNK)
    for _ in range(100):
        offer = Offer(data)
        offer.chunks = offer.chunks[:1]
        assert offer.send(node) == (Status.PACKAGE, EvalCommand.LOAD_COMMIT)
    assert Offer(data).send(node) == (Status.OK, EvalCommand.LOAD_COMMIT)


def test_a_new_load_begins_anywhere_in_the_one_before(node):
    """LOAD_OPEN drops what was loaded or half loaded; the last one wins."""
    offer = many_chunks(node)
    node.load(MODEL)
    opening = wire.LoadOpen(MODEL_SLOT, 0, len(offer.envelope)).pack()
    assert node.call(EvalCommand.LOAD_OPEN, opening)[0] == Status.OK
    assert node.call(EvalCommand.PREPARE_OPEN, wire.PrepareOpen(1).pack()) == (Status.ORDER, b"")
    assert node.call(EvalCommand.LOAD_ENVELOPE, wire.Chunk(0, 0).pack() + offer.envelope[:100])[0] == Status.OK
    assert node.call(EvalCommand.LOAD_OPEN, opening)[0] == Status.OK
    assert node.call(EvalCommand.LOAD_ENVELOPE, wire.Chunk(0, 0).pack() + offer.envelope)[0] == Status.OK
    assert node.call(EvalCommand.LOAD_CHUNK, wire.Chunk(0, 0).pack() + offer.chunks[0])[0] == Status.OK
    node.load(MODEL)
    node.evaluate(node.camera(), random_coordinates(np.random.default_rng(1), MODEL.shape, 2))
    node.client.unload()
    assert node.call(EvalCommand.PREPARE_OPEN, wire.PrepareOpen(1).pack()) == (Status.ORDER, b"")


def test_a_package_file_of_another_format_never_reaches_the_enclave(node):
    good = node.pack(MODEL)
    for data in (b"", good[:15], b"EDGEDPKH" + good[8:], good[:8] + struct.pack("<I", 2) + good[12:], good[:100]):
        with pytest.raises(Exception) as caught:
            node.client.load(data, MODEL_SLOT, Placement.MASKED)
        assert not isinstance(caught.value, EnclaveError)


def test_load_counts_only_what_was_taken_and_never_falls(node):
    first = node.client.load(node.pack(MODEL), MODEL_SLOT, Placement.MASKED).head.load
    with refused(Status.PACKAGE):
        node.client.load(node.pack(MODEL)[:-1], MODEL_SLOT, Placement.MASKED)
    assert node.client.load(node.pack(MODEL), MODEL_SLOT, Placement.ENCLAVE).head.load > first
