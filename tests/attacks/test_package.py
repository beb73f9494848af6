"""Packages that were altered, cut, exchanged, or are for somebody else: refused, each with its status.

A good one loads afterwards, and shows nobody its weights. What an owner may write inside is the business of
test_manifest.py and test_bounds.py.
"""

import os
import struct

import cbor2
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from attacks.canary import Canaries, plant_weights
from attacks.networks import SMALL, integer_model, random_coordinates
from attacks.node import ALERT_SLOT, DATA_SLOT, KEY_ID, MODEL_SLOT, refused
from attacks.offer import INPUT, MODEL, SEALED, TABLE, Offer, expect, fields_of, sealed, stream_of
from edged.emulated import public_bytes
from edged.enclave import wire
from edged.enclave.wire import EvalCommand, KeyKind, Placement, Status
from edged.errors import EnclaveError
from edged.model import package
from edged.model.layers import Kind, Row
from edged.model.tensors import read_tensors, stream_size

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
    for envelope in (good[1:], good.replace(b"\xa1\x01\x27", b"\xa1\x01\x26", 1),
                     good.replace(b"\xa0", b"\xa1\x04\x01", 1), good + b"\0", good[:-1], good[:7], b"\xd2",
                     bytes(100), b"\xff" * 32768):
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
    for index, offset, data in (
            (0, 0, offer.envelope + b"\0"), (1, 0, b"x"), (0, 1, b"x"), (0, 1 << 63, b"x"), (0, 0, b"")):
        assert node.call(EvalCommand.LOAD_ENVELOPE, wire.Chunk(index, offset).pack() + data) == (Status.OBJECT, b"")
    assert node.call(EvalCommand.LOAD_CHUNK, wire.Chunk(0, 0).pack() + bytes(20)) == (Status.ORDER, b"")
    assert offer.send(node) == (Status.OK, EvalCommand.LOAD_COMMIT)


# At rest.


def test_no_weight_and_no_key_stands_in_a_package_file(node):
    """What anyone may read in it is its manifest: labels, sizes and ranges of the layers."""
    model = integer_model(5, **dict(SMALL, channels=((40, 1), (30, 1))))
    data, stream = package.pack(model, node.model_key, node.owner, key_id=KEY_ID), stream_of(model)
    canaries = Canaries()
    plant_weights(canaries, model)
    canaries.plant_secret("model key", node.model_key)
    for begin in range(0, len(stream) - 64, 64):  # of all tensors, biases and multipliers among them
        canaries.plant("tensors", stream[begin:begin + 64])
    assert canaries.find(data) == set()
    # In the same tensors before they are sealed it finds them: the search is no blind one.
    assert canaries.find(stream) == {"weights", "tensors"}
    assert all(label.encode() in data for label in model.labels)


def test_the_same_weights_packed_twice_have_not_one_sealed_block_in_common(node):
    first, second = (b"".join(many_chunks(node).chunks) for _ in range(2))
    assert len(first) == len(second) > 4 * SEALED
    blocks = {first[at:at + 16] for at in range(0, len(first) - 16, 16)}
    assert not any(second[at:at + 16] in blocks for at in range(len(second) - 16))


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
    client.put_slot(5, KeyKind.MODEL, key, KEY_ID, public_bytes(other))
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
    encoded = cbor2.dumps(fields, canonical=True)
    offer = Offer(package.seal_encoded(encoded, fields["salt"], bytes(40), node.model_key, node.owner))
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
