"""A float network as a file: an .npz of float32 arrays named by their place (``blocks.2.graph_weight``), no pickle.

The same network gives the same bytes, so that a card can name their SHA-256.
"""

import hashlib
import io
import os
from dataclasses import fields
from pathlib import Path
from typing import Any, Dict, List, Union

import numpy as np

from edged.errors import MissingInput, PackageError
from edged.model import npz, stgcn
from edged.model.bounds import CHANNELS_MAX, LAYERS_MAX, STRIDE_MAX, TAPS_MAX, check_shape
from edged.model.layers import Shape
from edged.model.manifest import TEXT_MAX
from edged.model.skeleton import SKELETONS

FORMAT = "edged-network-1"
SIZE_MAX = 256 << 20
_NORMS = ("data_norm", "graph_norm", "temporal_norm", "residual_norm")
_NAMES = ("format", "skeleton", "labels", "persons", "frames", "strides", "residuals")


def _put(arrays: Dict[str, np.ndarray], name: str, value: Any) -> None:
    """Arrays of a dataclass, its dataclasses and their tuples, by dotted names."""
    if isinstance(value, np.ndarray):
        arrays[name] = value.astype(np.float32)
    elif isinstance(value, float):
        arrays[name] = np.float64(value)
    elif isinstance(value, tuple):
        for index, one in enumerate(value):
            _put(arrays, "{}.{}".format(name, index), one)
    elif isinstance(value, (stgcn.BatchNorm, stgcn.Block)):
        for field in fields(value):
            _put(arrays, "{}.{}".format(name, field.name), getattr(value, field.name))


def check(network: stgcn.Network) -> None:
    """Raise ShapeError unless its parts fit each other, PackageError unless the enclave takes its sizes and texts."""
    stgcn.check(network)
    check_shape(Shape(network.persons, network.frames, network.joints, network.blocks[0].adjacency.shape[0]),
                len(network.labels))
    for label in network.labels:
        check_text(label, "label")
    for index, block in enumerate(network.blocks):
        for what, found, most in (("channels", block.channels_out, CHANNELS_MAX), ("stride", block.stride, STRIDE_MAX),
                                  ("taps", block.temporal_weight.shape[1], TAPS_MAX)):
            if found > most:
                raise PackageError("block {} has {} {}, the enclave takes at most {}".format(index, what, found, most))
    layers = 3 + 2 * len(network.blocks) + sum(block.residual == stgcn.CONVOLUTION for block in network.blocks)
    if layers > LAYERS_MAX:
        raise PackageError("{} blocks make {} layers, the enclave takes at most {}".format(
            len(network.blocks), layers, LAYERS_MAX))


def check_text(text: str, what: str) -> None:
    """Raise PackageError for what a screen would not show as it is: it is signed, and read by people."""
    if not text.isprintable() or text != text.strip() or not 1 <= len(text.encode("utf-8", "replace")) <= TEXT_MAX:
        raise PackageError("{} {}: must be 1 to {} bytes of printable text".format(what, ascii(text[:80]), TEXT_MAX))


def to_bytes(network: stgcn.Network) -> bytes:
    """Raises as ``check``, and PackageError for a skeleton that the format has no name for and for weights that are no
    numbers."""
    check(network)
    if SKELETONS.get(network.skeleton.name) != network.skeleton:
        raise PackageError("skeleton {}: a network file knows {}".format(
            network.skeleton.name, ", ".join(sorted(SKELETONS))))
    arrays: Dict[str, np.ndarray] = {
        "format": np.array(FORMAT), "skeleton": np.array(network.skeleton.name), "labels": np.array(network.labels),
        "persons": np.int64(network.persons), "frames": np.int64(network.frames),
        "strides": np.array([block.stride for block in network.blocks], np.int64),
        "residuals": np.array([block.residual for block in network.blocks]),
    }
    with np.errstate(over="ignore"):  # said below
        for name in ("data_norm", "blocks", "fc_weight", "fc_bias"):
            _put(arrays, name, getattr(network, name))
    for name, value in arrays.items():
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            raise PackageError("{}: holds what is not a finite float32".format(name))
    packed = io.BytesIO()
    np.savez_compressed(packed, **arrays)
    return packed.getvalue()


def write(network: stgcn.Network, path: Union[str, Path]) -> str:
    """Whole or not at all, in the place of an earlier one; returns the file's SHA-256.

    Raises as ``to_bytes``, and MissingInput for a bad path.
    """
    packed = to_bytes(network)
    part = "{}.part-{}".format(path, os.getpid())
    made = False
    try:
        if os.path.lexists(str(path)) and (os.path.islink(str(path)) or not os.path.isfile(str(path))):
            raise OSError(0, "is there, and no plain file")
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644), "wb") as file:
            made = True
            file.write(packed)
        os.replace(part, str(path))
    except OSError as error:
        if made:
            os.unlink(part)
        raise MissingInput("{}: cannot be written: {}".format(path, error.strerror)) from error
    return hashlib.sha256(packed).hexdigest()


def read(path: Union[str, Path]) -> stgcn.Network:
    """Raises MissingInput where there is no such file, PackageError for anything that ``write`` did not write."""
    try:
        with open(str(path), "rb") as file:
            packed = file.read(SIZE_MAX + 1)
    except OSError as error:
        raise MissingInput("{}: {}".format(path, error.strerror)) from error
    return from_bytes(packed, str(path))


def from_bytes(packed: bytes, what: str) -> stgcn.Network:
    """The network in ``packed``, weights in float64; raises PackageError, which begins with ``what``."""
    arrays = npz.read(io.BytesIO(packed), "{}: not a network file".format(what), SIZE_MAX)
    try:
        return _network(arrays)
    except (ValueError, KeyError, TypeError, IndexError, PackageError) as error:
        reason = "{} is missing".format(error) if isinstance(error, KeyError) else " ".join(str(error).split())
        raise PackageError("{}: not a network file: {}".format(what, reason)) from error


def _network(arrays: Dict[str, np.ndarray]) -> stgcn.Network:
    if str(arrays["format"]) != FORMAT:
        raise ValueError("format {}, not {}".format(arrays["format"], FORMAT))
    name = str(arrays["skeleton"])
    if name not in SKELETONS:
        raise ValueError("skeleton {}: known are {}".format(name, ", ".join(sorted(SKELETONS))))
    for where, value in arrays.items():
        if where not in _NAMES and (value.dtype.kind != "f" or not np.isfinite(value).all()):
            raise ValueError("{} holds what is not a finite number".format(where))
    strides: List[int] = [int(stride) for stride in arrays["strides"]]
    residuals: List[str] = [str(kind) for kind in arrays["residuals"]]
    if not strides or len(strides) != len(residuals) or not all(1 <= stride <= 64 for stride in strides) \
            or any(kind not in (stgcn.NO_RESIDUAL, stgcn.IDENTITY, stgcn.CONVOLUTION) for kind in residuals):
        raise ValueError("strides {} and residuals {} do not fit".format(strides, residuals))
    known = set(_NAMES) | {"fc_weight", "fc_bias"}
    made = stgcn.Network(
        skeleton=SKELETONS[name],
        persons=int(arrays["persons"]),
        frames=int(arrays["frames"]),
        labels=tuple(str(label) for label in arrays["labels"]),
        data_norm=_norm(arrays, "data_norm", known),
        blocks=tuple(_block(arrays, index, stride, kind, known)
                     for index, (stride, kind) in enumerate(zip(strides, residuals))),
        fc_weight=arrays["fc_weight"].astype(np.float64),
        fc_bias=arrays["fc_bias"].astype(np.float64),
    )
    unknown = sorted(set(arrays) - known)
    if unknown:
        raise ValueError("unknown {}".format(", ".join(unknown)))
    check(made)
    return made


def _norm(arrays: Dict[str, np.ndarray], name: str, known: set) -> stgcn.BatchNorm:
    parts = ["{}.{}".format(name, part) for part in ("gain", "offset", "mean", "variance", "epsilon")]
    known.update(parts)
    return stgcn.BatchNorm(*(arrays[part].astype(np.float64) for part in parts[:4]), epsilon=float(arrays[parts[4]]))


def _block(arrays: Dict[str, np.ndarray], index: int, stride: int, kind: str, known: set) -> stgcn.Block:
    made: Dict[str, Any] = {"stride": stride, "residual": kind}
    for field in fields(stgcn.Block):
        name = "blocks.{}.{}".format(index, field.name)
        if field.name in made or field.name.startswith("residual_") and kind != stgcn.CONVOLUTION:
            continue
        if field.name in _NORMS:
            made[field.name] = _norm(arrays, name, known)
        else:
            made[field.name] = arrays[name].astype(np.float64)
            known.add(name)
    return stgcn.Block(**made)
