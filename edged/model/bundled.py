"""The action network that comes with edged: its weights (network.py), and a card that says what they are and are not.

The card names the weights' SHA-256, and nothing of another hash is loaded. How it was trained: edged/train/action.py.
"""

import hashlib
import re
from pathlib import Path
from typing import List

import numpy as np

from edged.camera import motion
from edged.camera.clip import fixed_point
from edged.errors import MissingInput, PackageError
from edged.model import stgcn
from edged.model.layers import Model
from edged.model.network import from_bytes
from edged.model.quantise import quantise

FOLDER = Path(__file__).resolve().parent.parent / "bundled"
WEIGHTS, CARD = "action.npz", "ACTION.md"
MODEL_ID = "edged-action"
CALIBRATION_SEED = 1
_CARD_HASH = re.compile(r"^sha256: ([0-9a-f]{64})$", re.MULTILINE)
_SIZE_MAX = 4 << 20


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
    return from_bytes(_checked(folder), str(folder / WEIGHTS))


def calibration_clips(count: int = 60) -> List[np.ndarray]:
    """Clips of one person and of two, of every label: int16 (m, 300, 18, 3), always the same."""
    rng = np.random.default_rng((CALIBRATION_SEED, 0))
    return [fixed_point(motion.clip(rng, motion.LABELS[index % len(motion.LABELS)])) for index in range(count)]


def model(folder: Path = FOLDER) -> Model:
    """The bundled network in integers, as it is packed for the enclave; the same for the same weights."""
    return quantise(load(folder), calibration_clips())
