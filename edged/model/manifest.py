"""The manifest of a package: what its owner signed and anyone may read.

One canonical CBOR map (RFC 8949, 4.2.1) of exactly the fields below. Reading is strict: every field has one type
and range, and what is decoded must encode to the same bytes again.
"""

import os
from dataclasses import dataclass
from typing import Any, Callable, Dict, Tuple

import cbor2

from edged.errors import PackageError
from edged.model.bounds import check_table
from edged.model.layers import Model, Row, Shape

SCHEMA = 1
FORMS = ("clip",)
PLACEMENT_MASKED, PLACEMENT_INPUTS, PLACEMENT_ENCLAVE = 1, 2, 4
PLACEMENTS_ALL = PLACEMENT_MASKED | PLACEMENT_INPUTS | PLACEMENT_ENCLAVE
CHUNKS_MAX = 65536
TEXT_MAX = 64
_UINT32 = (1 << 32) - 1


@dataclass(frozen=True)
class Manifest:
    """What a package says of itself in clear. ``encoded`` is the signed CBOR; the rest is decoded from it.

    placements  bit 0 masked, bit 1 inputs, bit 2 enclave: where the owner allows the products to run
    digest      SHA-256 of the tensor stream    salt  32 random bytes    key_id  names the model key (16 bytes)
    """

    encoded: bytes
    form: str
    salt: bytes
    chunks: int
    digest: bytes
    key_id: bytes
    labels: Tuple[str, ...]
    table: Tuple[Row, ...]
    version: int
    model_id: str
    skeleton: str
    placements: int
    shape: Shape


def manifest_fields(model: Model, model_id: str, version: int, placements: int, key_id: bytes) -> Dict[str, Any]:
    """The manifest of a model as ``seal`` takes it, with a fresh salt."""
    return {
        "form": model.form,
        "salt": os.urandom(32),
        "frames": model.shape.frames,
        "joints": model.shape.joints,
        "key_id": key_id,
        "labels": list(model.labels),
        "layers": [[int(field) for field in row] for row in model.table],
        "schema": SCHEMA,
        "persons": model.shape.persons,
        "version": version,
        "model_id": model_id,
        "skeleton": model.skeleton,
        "partitions": model.shape.partitions,
        "placements": placements,
    }


class _Fields:
    """Takes typed fields out of a decoded map, naming the one that is wrong."""

    def __init__(self, fields: Dict[str, Any]) -> None:
        self.fields = fields

    def _take(self, name: str, kind: type, holds: Callable[[Any], bool], rule: str) -> Any:
        value = self.fields[name]
        if type(value) is not kind or not holds(value):
            raise PackageError("manifest: {} is {!r}, must be {}".format(name, value, rule))
        return value

    def uint(self, name: str, low: int, high: int) -> int:
        return self._take(name, int, lambda v: low <= v <= high, "an integer {}..{}".format(low, high))

    def octets(self, name: str, size: int) -> bytes:
        return self._take(name, bytes, lambda v: len(v) == size, "{} bytes".format(size))

    def text(self, name: str) -> str:
        return self._take(name, str, _is_short, "text of 1..{} bytes".format(TEXT_MAX))

    def labels(self) -> Tuple[str, ...]:
        rule = "a list of different texts of 1..{} bytes".format(TEXT_MAX)
        found = self._take("labels", list, lambda v: all(type(x) is str and _is_short(x) for x in v), rule)
        if len(set(found)) != len(found):
            raise PackageError("manifest: labels: one stands twice")
        return tuple(found)

    def table(self) -> Tuple[Row, ...]:
        width = len(Row._fields)
        rows = self._take("layers", list, lambda v: all(type(row) is list for row in v), "a list of lists")
        for index, row in enumerate(rows):
            if len(row) != width or any(type(x) is not int or not 0 <= x <= _UINT32 for x in row):
                raise PackageError("manifest: layers: {} is {!r}, must be {} unsigned words".format(index, row, width))
        return tuple(Row(*row) for row in rows)


def _is_short(text: str) -> bool:
    return 1 <= len(text.encode("utf-8")) <= TEXT_MAX


_NAMES = frozenset(
    "chunks digest form frames joints key_id labels layers model_id partitions persons placements salt schema skeleton"
    " version".split()
)


def read_manifest(encoded: bytes) -> Manifest:
    try:
        decoded = cbor2.loads(encoded)
        again = cbor2.dumps(decoded, canonical=True)
    except (cbor2.CBORError, ValueError, TypeError, OverflowError, RecursionError, MemoryError) as error:
        raise PackageError("manifest is not CBOR: {}".format(error)) from error
    if type(decoded) is not dict or again != encoded:
        raise PackageError("manifest is not a canonical CBOR map")
    if set(decoded) != _NAMES:
        odd = sorted(str(name) for name in set(decoded) ^ _NAMES)
        raise PackageError("manifest: fields missing or unknown: {}".format(", ".join(odd)))
    fields = _Fields(decoded)
    fields.uint("schema", SCHEMA, SCHEMA)
    form = fields.text("form")
    if form not in FORMS:
        raise PackageError("manifest: form is {!r}, must be one of {}".format(form, ", ".join(FORMS)))
    shape = Shape(*(fields.uint(name, 1, _UINT32) for name in Shape._fields))
    manifest = Manifest(
        encoded=encoded,
        form=form,
        salt=fields.octets("salt", 32),
        chunks=fields.uint("chunks", 1, CHUNKS_MAX),
        digest=fields.octets("digest", 32),
        key_id=fields.octets("key_id", 16),
        labels=fields.labels(),
        table=fields.table(),
        version=fields.uint("version", 0, _UINT32),
        model_id=fields.text("model_id"),
        skeleton=fields.text("skeleton"),
        placements=fields.uint("placements", 1, PLACEMENTS_ALL),
        shape=shape,
    )
    check_table(manifest.table, shape, len(manifest.labels))
    return manifest
