"""The network that comes with edged, as files: weights and a card that says what they are and what they are not.

The weights are a .npz of float32 arrays named by their place (``blocks.2.graph_weight``); the card names its SHA-256,
and nothing of another hash is loaded. Trained on generated motion alone (train.py): for the demo and the tests.
"""

import hashlib
import io
import re
from dataclasses import fields
from pathlib import Path
from typing import Any, Dict, List

import numpy as np

from edged.camera import motion
from edged.camera.clip import fixed_point
from edged.errors import MissingInput, PackageError
from edged.model import stgcn
from edged.model.layers import Model
from edged.model.quantise import quantise
from edged.model.skeleton import COCO_18

FOLDER = Path(__file__).resolve().parent / "bundled"
WEIGHTS, CARD = "motion.npz", "CARD.md"
MODEL_ID = "edged-motion"
CALIBRATION_SEED = 1
_CARD_HASH = re.compile(r"^sha256: ([0-9a-f]{64})$", re.MULTILINE)
_SIZE_MAX = 4 << 20


def _put(arrays: Dict[str, np.ndarray], name: str, value: Any) -> None:
    """Arrays of a dataclass, its dataclasses and their tuples, by dotted names."""
    if isinstance(value, np.ndarray):
        arrays[name] = value.astype(np.float32)
    elif isinstance(value, tuple):
        for index, one in enumerate(value):
            _put(arrays, "{}.{}".format(name, index), one)
    elif isinstance(value, (stgcn.BatchNorm, stgcn.Block)):
        for field in fields(value):
            _put(arrays, "{}.{}".format(name, field.name), getattr(value, field.name))


def write_network(network: stgcn.Network, folder: Path) -> str:
    """Write a network's weights, the same bytes for the same weights; returns their SHA-256, for the card."""
    arrays = {"strides": np.array([block.stride for block in network.blocks], np.int64)}  # type: Dict[str, np.ndarray]
    for name in ("data_norm", "blocks", "fc_weight", "fc_bias"):
        _put(arrays, name, getattr(network, name))
    packed = io.BytesIO()
    np.savez_compressed(packed, **arrays)
    (folder / WEIGHTS).write_bytes(packed.getvalue())
    return hashlib.sha256(packed.getvalue()).hexdigest()


def _norm(arrays: Dict[str, np.ndarray], name: str) -> stgcn.BatchNorm:
    return stgcn.BatchNorm(*(arrays["{}.{}".format(name, part)] for part in ("gain", "offset", "mean", "variance")))


def _block(arrays: Dict[str, np.ndarray], index: int, stride: int) -> stgcn.Block:
    name = "blocks.{}.".format(index)

    def one(part: str) -> np.ndarray:
        return arrays[name + part]

    around = name + "residual_weight" in arrays
    identity = stride == 1 and one("temporal_weight").shape[0] == one("graph_weight").shape[1]
    return stgcn.Block(
        adjacency=one("adjacency"),
        graph_weight=one("graph_weight"),
        graph_bias=one("graph_bias"),
        graph_norm=_norm(arrays, name + "graph_norm"),
        temporal_weight=one("temporal_weight"),
        temporal_bias=one("temporal_bias"),
        temporal_norm=_norm(arrays, name + "temporal_norm"),
        stride=stride,
        residual=stgcn.CONVOLUTION if around else stgcn.IDENTITY if identity and index else stgcn.NO_RESIDUAL,
        residual_weight=one("residual_weight") if around else None,
        residual_bias=one("residual_bias") if around else None,
        residual_norm=_norm(arrays, name + "residual_norm") if around else None,
    )


def _checked(folder: Path) -> bytes:
    """The weights' bytes, which are those that the card describes."""
    try:
        card = (folder / CARD).read_text("utf-8")
        with open(str(folder / WEIGHTS), "rb") as stream:
            packed = stream.read(_SIZE_MAX + 1)
    except OSError as error:
        raise MissingInput("{}: {}: install edged again".format(error.filename, error.strerror)) from error
    except UnicodeDecodeError as error:
        raise PackageError("{}: not text: install edged again".format(folder / CARD)) from error
    named = _CARD_HASH.findall(card)
    if len(named) != 1:
        raise PackageError("{}: names {} hashes of its weights, must be one line `sha256: ...`: install edged again"
                           .format(folder / CARD, len(named)))
    found = hashlib.sha256(packed).hexdigest()
    if found != named[0]:
        raise PackageError("{}: its SHA-256 is {}, the card says {}: it was altered; install edged again".format(
            folder / WEIGHTS, found, named[0]))
    return packed


def load(folder: Path = FOLDER) -> stgcn.Network:
    """The bundled network in floating point.

    Raises MissingInput where a file is absent, PackageError where the weights are not the ones of the card.
    """
    with np.load(io.BytesIO(_checked(folder)), allow_pickle=False) as found:
        arrays = {name: found[name].astype(np.float64) for name in found.files}
    strides = arrays["strides"].astype(int).tolist()
    return stgcn.Network(
        skeleton=COCO_18,
        persons=2,
        frames=300,
        labels=motion.LABELS,
        data_norm=_norm(arrays, "data_norm"),
        blocks=tuple(_block(arrays, index, stride) for index, stride in enumerate(strides)),
        fc_weight=arrays["fc_weight"],
        fc_bias=arrays["fc_bias"],
    )


def calibration_clips(count: int = 48) -> List[np.ndarray]:
    """Clips of one person and of two, of every label: int16 (m, 300, 18, 3), always the same."""
    rng = np.random.default_rng((CALIBRATION_SEED, 0))
    return [fixed_point(motion.clip(rng, motion.LABELS[index % len(motion.LABELS)])) for index in range(count)]


def model(folder: Path = FOLDER) -> Model:
    """The bundled network in integers, as it is packed for the enclave; the same for the same weights."""
    return quantise(load(folder), calibration_clips())
