"""A package opens only as its owner sealed it, and never with a bound broken."""

import os
from dataclasses import replace
from functools import lru_cache

import cbor2
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edged.errors import KeyRefused, PackageError, VerificationFailed
from edged.model import package, reference
from edged.model.layers import Kind
from edged.model.tensors import read_tensors, stream_size, write_tensors
from model_fixtures import small_model, wild_clip

OWNER = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
MODEL_KEY = bytes(range(100, 132))
BLIND = bytes(32)


def small_package(version):
    key_id = bytes(range(16))
    return package.pack(small_model(), MODEL_KEY, OWNER, "small", version, placements=5, key_id=key_id)


@lru_cache(maxsize=None)
def packed():
    return small_package(version=3)


def opened(data):
    return package.open_package(data, MODEL_KEY, OWNER.public_key())


def fields():
    return package.manifest_fields(small_model(), "small", 3, 5, bytes(range(16)))


def sealed(stream=None, **changes):
    """A package of the small model, honestly signed and sealed but for what is given."""
    content = dict(fields(), **changes)
    stream = write_tensors(small_model(), BLIND) if stream is None else stream
    return package.seal({name: value for name, value in content.items() if value is not None}, stream, MODEL_KEY, OWNER)


def flipped(data, at):
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def envelope_end():
    return 16 + int.from_bytes(packed()[12:16], "little")


def test_what_was_packed_opens_to_the_same_integers():
    manifest, model = opened(packed())
    assert (manifest.model_id, manifest.version, manifest.placements) == ("small", 3, 5)
    assert manifest.key_id == bytes(range(16)) and manifest.chunks == 2
    assert model.table == small_model().table and model.labels == small_model().labels
    for found, original in zip(model.layers, small_model().layers):
        for name, value in vars(original).items():
            assert name == "row" or (getattr(found, name) == value).all()
    clip = wild_clip(1)
    assert (reference.run(model, clip)[0] == reference.run(small_model(), clip)[0]).all()


def test_the_public_part_needs_no_key():
    assert package.inspect(packed()) == opened(packed())[0]


def test_two_packages_of_one_model_share_neither_digest_nor_ciphertext():
    one, other = (package.pack(small_model(), MODEL_KEY, OWNER) for _ in range(2))
    assert package.inspect(one).digest != package.inspect(other).digest
    assert one[-4096:] != other[-4096:]


def test_the_layout_is_the_documented_one():
    data = packed()
    assert data[:12] == b"EDGEDPKG" + (1).to_bytes(4, "little")
    envelope = cbor2.loads(data[16 : envelope_end()])
    assert envelope.tag == 18 and list(envelope.value[:2]) == [cbor2.dumps({1: -8}), {}]
    assert list(cbor2.loads(envelope.value[2])) == (
        "form salt chunks digest frames joints key_id labels layers schema persons version model_id skeleton partitions"
        " placements"
    ).split()
    signed = cbor2.dumps(["Signature1", cbor2.dumps({1: -8}), b"edged package", envelope.value[2]])
    OWNER.public_key().verify(envelope.value[3], signed)
    size = stream_size(small_model().table, small_model().shape)
    assert len(data) == envelope_end() + size + 16 * -(-size // 4032)


def test_every_flipped_byte_of_header_and_envelope_is_refused():
    for at in range(envelope_end()):
        with pytest.raises((PackageError, VerificationFailed)):
            opened(flipped(packed(), at))


@pytest.mark.parametrize("chunk", [0, 1, -1])
@pytest.mark.parametrize("byte", [0, 5, -1])
def test_a_flipped_byte_of_a_chunk_is_refused(chunk, byte):
    starts = list(range(envelope_end(), len(packed()), 4048)) + [len(packed())]
    begin, end = list(zip(starts, starts[1:]))[chunk]
    with pytest.raises(VerificationFailed, match="chunk"):
        opened(flipped(packed(), range(begin, end)[byte]))


def test_chunks_that_change_places_are_refused():
    data, start = packed(), envelope_end()
    swapped = data[:start] + data[start + 4048 : start + 8096] + data[start : start + 4048] + data[start + 8096 :]
    with pytest.raises(VerificationFailed, match="chunk 0"):
        opened(swapped)


def test_a_chunk_of_another_version_is_refused():
    other = small_package(version=4)
    assert len(other) == len(packed())
    with pytest.raises(VerificationFailed, match="chunk 0"):
        opened(packed()[: envelope_end()] + other[envelope_end() :])


@pytest.mark.parametrize("cut", [0, 8, 15, 16, 200, -4048, -1])
def test_a_package_cut_short_is_refused(cut):
    with pytest.raises(PackageError):
        opened(packed()[:cut])


def test_bytes_after_the_last_chunk_are_refused():
    with pytest.raises(PackageError, match="chunks take"):
        opened(packed() + b"\0")


def test_another_owner_is_refused():
    with pytest.raises(VerificationFailed, match="owner"):
        package.open_package(packed(), MODEL_KEY, Ed25519PrivateKey.generate().public_key())


def test_another_model_key_is_refused():
    with pytest.raises(VerificationFailed, match="chunk 0"):
        package.open_package(packed(), os.urandom(32), OWNER.public_key())


@pytest.mark.parametrize("size", [0, 16, 31, 33])
def test_a_model_key_of_another_length_is_refused(size):
    with pytest.raises(KeyRefused, match="must have 32"):
        package.pack(small_model(), bytes(size), OWNER)


WRONG_FIELDS = [
    ("schema", 2), ("schema", True), ("form", "stream"), ("form", b"clip"), ("salt", bytes(31)), ("digest", bytes(33)),
    ("key_id", bytes(15)), ("chunks", 0), ("chunks", -1), ("frames", 0), ("frames", 4097), ("frames", 1.0),
    ("joints", 65), ("persons", 0), ("persons", 9), ("partitions", 9), ("placements", 0), ("placements", 8),
    ("version", -1), ("version", 2**32), ("model_id", ""), ("model_id", "m" * 65), ("skeleton", "\u00e9" * 33),
    ("labels", []), ("labels", ["a"] * 7), ("labels", ["", *"abcdef"]), ("labels", [1, *"abcdef"]), ("labels", "abc"),
    ("layers", []), ("layers", [[0] * 12]), ("layers", [[-1] * 13]), ("layers", [[2**32] * 13]), ("layers", [0] * 13),
]  # fmt: skip


@pytest.mark.parametrize("name, value", WRONG_FIELDS)
def test_a_manifest_with_one_wrong_field_is_refused_by_name(name, value):
    changes = {name: value}
    if name == "salt":
        encoded = cbor2.dumps(dict(fields(), chunks=3, digest=bytes(32), **changes), canonical=True)
        data = package.seal_encoded(encoded, bytes(32), write_tensors(small_model(), BLIND), MODEL_KEY, OWNER)
    else:
        data = sealed(**changes)
    with pytest.raises(PackageError, match=name):
        opened(data)


@pytest.mark.parametrize("name", ["form", "layers", "placements"])
def test_a_manifest_without_a_field_is_refused(name):
    with pytest.raises(PackageError, match=name):
        opened(sealed(**{name: None}))


def test_a_manifest_with_an_unknown_field_is_refused():
    with pytest.raises(PackageError, match="colour"):
        opened(sealed(colour="red"))


def test_a_package_that_says_the_right_chunks_of_another_size_is_refused():
    with pytest.raises(PackageError, match="chunks take"):
        opened(sealed(stream=write_tensors(small_model(), BLIND)[:-8]))


def test_a_wrong_number_of_chunks_is_refused():
    with pytest.raises(PackageError, match="chunks, its layers"):
        opened(sealed(chunks=package.inspect(packed()).chunks + 1))


def test_a_wrong_digest_is_refused():
    with pytest.raises(VerificationFailed, match="digest"):
        opened(sealed(digest=bytes(32)))


def encoded_manifest():
    return package.inspect(packed()).encoded


NOT_CANONICAL = {
    "a trailing byte": lambda: encoded_manifest() + b"\0",
    "an integer too long": lambda: encoded_manifest().replace(b"fframes\x0d", b"fframes\x18\x0d"),
    "fields out of order": lambda: cbor2.dumps(dict(sorted(cbor2.loads(encoded_manifest()).items()))),
    "a field twice": lambda: b"\xb1" + encoded_manifest()[1:] + b"dformdclip",
    "a map without end": lambda: b"\xbf" + encoded_manifest()[1:] + b"\xff",
    "no map": lambda: cbor2.dumps([1]),
    "nothing": lambda: b"",
    "half a map": lambda: encoded_manifest()[:100],
    "text that is not UTF-8": lambda: encoded_manifest().replace(b"dclip", b"d\xff\xff\xff\xff"),
    "many arrays in arrays": lambda: b"\x81" * 20000 + b"\0",
}


@pytest.mark.parametrize("name", sorted(NOT_CANONICAL))
def test_a_signed_manifest_in_another_encoding_is_refused(name):
    manifest = NOT_CANONICAL[name]()
    assert manifest != encoded_manifest()
    data = package.seal_encoded(manifest, bytes(32), write_tensors(small_model(), BLIND), MODEL_KEY, OWNER)
    with pytest.raises(PackageError, match="manifest"):
        opened(data)


def test_an_envelope_over_its_limit_is_refused():
    data = sealed(model_id="m" * 33000)
    with pytest.raises(PackageError, match="too long"):
        opened(data)


def overflowing(kind):
    """The small model with the largest weights int16 holds in one layer."""
    layers = list(small_model().layers)
    index = [row.kind for row in small_model().table].index(kind)
    layers[index] = replace(layers[index], weights=np.full_like(layers[index].weights, -32768))
    return replace(small_model(), layers=tuple(layers))


@pytest.mark.parametrize("kind", [Kind.GRAPH, Kind.RESIDUAL, Kind.TEMPORAL, Kind.FC])
def test_weights_that_could_overflow_are_neither_packed_nor_opened(kind):
    with pytest.raises(PackageError, match=kind.name):
        package.pack(overflowing(kind), MODEL_KEY, OWNER)
    with pytest.raises(PackageError, match=kind.name):
        opened(sealed(stream=write_tensors(overflowing(kind), BLIND)))


def test_padding_that_is_not_zero_is_refused():
    stream = bytearray(write_tensors(small_model(), BLIND))
    stream[-1] = 1  # seven multipliers of 4 bytes: four bytes of padding
    with pytest.raises(PackageError, match="padding after mult"):
        opened(sealed(stream=bytes(stream)))


def test_the_tensor_stream_has_the_documented_order():
    stream = write_tensors(small_model(), bytes(range(32)))
    first = small_model().layers[0]
    assert stream[:32] == bytes(range(32))
    assert stream[32:92] == first.mult.astype("<i4").tobytes() and stream[92:96] == bytes(4)
    assert stream[96:156] == first.bias.astype("<i4").tobytes()
    graph = small_model().layers[1]
    k, v, w, _, a = graph.adjacency[0].tolist()
    assert stream[160:168] == bytes([k, v, w, 0]) + a.to_bytes(4, "little", signed=True)
    assert len(stream) == stream_size(small_model().table, small_model().shape)


def test_a_stream_of_another_length_is_refused():
    stream = write_tensors(small_model(), BLIND)
    with pytest.raises(PackageError, match="the table asks for"):
        read_tensors(stream + bytes(8), small_model().table, small_model().shape)
