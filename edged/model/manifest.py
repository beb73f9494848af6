"""The manifest of a package: what its owner signed and anyone may read.

One canonical CBOR map (edged/canonical.py) of exactly the fields below, each of one type and range.
"""

import os
from dataclasses import dataclass
from typing import Any, Dict, Tuple

from edged import canonical
from edged.canonical import UINT32, Fields
from edged.errors import PackageError
from edged.model.bounds import check_table
from edged.model.layers import Model, Row, Shape

SCHEMA = 1
FORMS = ("clip",)
PLACEMENT_MASKED, PLACEMENT_INPUTS, PLACEMENT_ENCLAVE = 1, 2, 4
PLACEMENTS_ALL = PLACEMENT_MASKED | PLACEMENT_INPUTS | PLACEMENT_ENCLAVE
CHUNKS_MAX = 65536
TEXT_MAX = 64


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


def _labels(fields: Fields) -> Tuple[str, ...]:
    rule = "a list of different texts of 1..{} bytes".format(TEXT_MAX)
    found = fields.take("labels", list, lambda v: all(type(x) is str and _is_short(x) for x in v), rule)
    if len(set(found)) != len(found):
        raise PackageError("manifest: labels: one stands twice")
    return tuple(found)


def _table(fields: Fields) -> Tuple[Row, ...]:
    width = len(Row._fields)
    rows = fields.take("layers", list, lambda v: all(type(row) is list for row in v), "a list of lists")
    for index, row in enumerate(rows):
        if len(row) != width or any(type(x) is not int or not 0 <= x <= UINT32 for x in row):
            raise PackageError("manifest: layers: {} is {}, must be {} unsigned words".format(
                index, canonical.one_line(row), width))
    return tuple(Row(*row) for row in rows)


def _is_short(text: str) -> bool:
    return 1 <= len(text.encode("utf-8")) <= TEXT_MAX


_NAMES = frozenset(
    "chunks digest form frames joints key_id labels layers model_id partitions persons placements salt schema skeleton"
    " version".split()
)


def read_manifest(encoded: bytes) -> Manifest:
    fields = canonical.fields(canonical.decode(encoded, "manifest"), _NAMES, "manifest")
    fields.uint("schema", SCHEMA, SCHEMA)
    form = fields.choice("form", FORMS)
    shape = Shape(*(fields.uint(name, 1) for name in Shape._fields))
    manifest = Manifest(
        encoded=encoded,
        form=form,
        salt=fields.octets("salt", 32),
        chunks=fields.uint("chunks", 1, CHUNKS_MAX),
        digest=fields.octets("digest", 32),
        key_id=fields.octets("key_id", 16),
        labels=_labels(fields),
        table=_table(fields),
        version=fields.uint("version"),
        model_id=fields.text("model_id", TEXT_MAX),
        skeleton=fields.text("skeleton", TEXT_MAX),
        placements=fields.uint("placements", 1, PLACEMENTS_ALL),
        shape=shape,
    )
    check_table(manifest.table, shape, len(manifest.labels))
    return manifest
