"""A manifest that breaks a rule is refused as soon as it is whole, although its owner signed it.

``MANIFESTS`` walks the rules of eval/manifest.c one by one, ``NOT_CANONICAL`` those of lib/cbor.c.
"""

import hashlib

import cbor2
import pytest

from attacks.offer import (
    AFTER, FC, GRAPH, GRAPH_2, GRAPH_3, INPUT, POOL, RESIDUAL, RESIDUAL_4, TABLE, TEMPORAL, TEMPORAL_2, TEMPORAL_3,
    TEMPORAL_4, Offer, expect, fields_of, sealed, stream_of,
)
from edged.enclave import wire
from edged.enclave.wire import EvalCommand, Status
from edged.model import package
from edged.model.layers import Row


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


def several(*changes):
    """So many at once that only the rule in question is left to refuse them."""
    def change(fields):
        for one in changes:
            one(fields)
    return change


ENTRIES = [row(layer, nnz=0) for layer in (GRAPH, GRAPH_2, GRAPH_3, AFTER)]
WIDE = [row(GRAPH, cout=1025), row(TEMPORAL, cin=1025, cout=1025), row(GRAPH_2, cin=1025), row(TEMPORAL_2, residual=0)]
NARROW = [row(TEMPORAL_4, cin=5, cout=5), row(POOL, cin=5, cout=5), row(FC, cin=5)]


MANIFESTS = {
    "another form": field(form="stream"), "an unknown form": field(form="clap"), "a form in bytes": field(form=b"clip"),
    "schema 0": field(schema=0), "schema 2": field(schema=2),
    "a short salt": field(salt=bytes(31)), "a long salt": field(salt=bytes(33)),
    "a short digest": field(digest=bytes(31)), "a digest in text": field(digest="x" * 32),
    "a short key id": field(key_id=bytes(15)), "a long key id": field(key_id=bytes(17)),
    "no chunks": field(chunks=0), "too many chunks": field(chunks=65537),
    "chunks without end": field(chunks=(1 << 64) - 1),
    "no persons": field(persons=0), "too many persons": field(persons=9),
    "no frames": field(frames=0), "too many frames": field(frames=4097), "frames below 0": field(frames=-6),
    "no joints": field(joints=0), "too many joints": field(joints=65),
    "no partitions": field(partitions=0), "too many partitions": field(partitions=9),
    "too many positions": field(frames=4096, joints=9),
    "no placements": field(placements=0), "unknown placements": field(placements=8),
    "a version of 33 bits": field(version=1 << 32), "a version below 0": field(version=-1),
    "no model id": field(model_id=""), "a long model id": field(model_id="x" * 65),
    "a number for a model id": field(model_id=1),
    "no skeleton": field(skeleton=""), "a long skeleton": field(skeleton="x" * 65),
    "no labels": field(labels=[]), "too many labels": field(labels=["x"] * 401),
    "an empty label": field(labels=["a", "", "c"]),
    "a long label": field(labels=["a", "x" * 65, "c"]), "a label in bytes": field(labels=["a", b"b", "c"]),
    "a label less": field(labels=["a", "b"]), "a label more": field(labels=["a", "b", "c", "d"]),
    "a field more": field(extra=1),
    "a field with another name": lambda fields: fields.update(bonus=fields.pop("persons")),
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
    "two poolings": rows(lambda layers: layers[:POOL + 1] + layers[POOL:]),
    "two ends": rows(lambda layers: layers + layers[-1:]),
    "an end in the middle": exchanged(FC, POOL), "no block": rows(lambda layers: [layers[0]] * 3 + layers[-2:]),
    "a residual before its graph": exchanged(GRAPH_3, RESIDUAL),
    "a graph after its temporal": exchanged(GRAPH, TEMPORAL),
    "something after the end": rows(lambda layers: layers + layers[1:3]),
    # A row in itself.
    "no channels in": row(GRAPH, cin=0), "no channels out": row(RESIDUAL, cout=0),
    "too many channels": row(GRAPH, cout=1025),
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
    "a graph with too large a shift": row(GRAPH, adj_shift=63),
    "a graph without a range between": row(GRAPH, adj_max=0),
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
    "a graph that reads other channels": row(GRAPH_2, cin=5),
    "a graph that reads another range": row(GRAPH_2, in_max=77),
    "a residual that reads other channels": row(RESIDUAL, cin=5),
    "a residual that reads another range": row(RESIDUAL, in_max=77),
    "a residual that makes other channels": row(RESIDUAL, cout=8),
    "a residual of another stride": row(RESIDUAL_4, stride=1),
    "a temporal of another stride": row(TEMPORAL_4, stride=1),
    "a temporal that reads other channels": row(TEMPORAL, cin=5),
    "a temporal that makes other channels": row(TEMPORAL, cout=5),
    "a temporal that reads another range": row(TEMPORAL, in_max=77),
    "an identity of other channels": row(TEMPORAL_3, residual=1),
    "an identity with a stride": row(TEMPORAL_2, stride=2),
    "a residual that nobody adds": row(TEMPORAL_3, residual=0),
    "a residual that nobody made": row(TEMPORAL_2, residual=2),
    "a pooling that reads other channels": several(*NARROW[1:]),
    "a pooling that makes other channels": row(POOL, cout=5),
    "a pooling that reads another range": row(POOL, in_max=TABLE[POOL].in_max + 1),
    "an end that reads other channels": row(FC, cin=5), "an end that reads another range": row(FC, in_max=77),
    # The same where everything after it fits.
    "too many channels all the way": several(*WIDE),
    "no channels all the way": several(row(GRAPH_3, cout=0), row(RESIDUAL, cout=0), row(TEMPORAL_3, cin=0, cout=0),
                                       row(AFTER, cin=0), row(RESIDUAL_4, cin=0)),
    "a graph of a third order without a range": row(AFTER, order=2),
    "a temporal that reads other channels and so on": several(*NARROW),
    "a temporal that makes other channels and so on": several(row(TEMPORAL_4, cout=5), *NARROW[1:]),
    "an end that reads no pooling": several(without(POOL), row(FC - 1, in_max=TABLE[TEMPORAL_4].out_max)),
    "no frames and no strides": several(field(frames=0), row(RESIDUAL_4, stride=1), row(TEMPORAL_4, stride=1)),
    "no joints and no entries": several(field(joints=0), *ENTRIES),
    "no partitions and no entries": several(field(partitions=0), *ENTRIES),
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
