"""A trained ST-GCN as its owner has it: a PyTorch state dict with the layer names of the published code, or as ONNX.

    A  data_bn  st_gcn_networks.N.{gcn.conv, tcn.0, tcn.2, tcn.3, residual.0, residual.1}  edge_importance.N  fcn

Any number of blocks, channels and taps, with and without edge importance. What the integer network cannot represent is
refused by name, and code in a file is never run. Needs torch, imported on use.
Source of the names: the code to Yan, Xiong, Lin, AAAI 2018, arXiv:1801.07455.
"""

import io
import pickle
import re
import warnings
from typing import Any, Dict, List, Optional, Sequence, Set, Tuple

import numpy as np

from edged.command import needs, read_file
from edged.errors import PackageError, UsageError
from edged.model import network as networks
from edged.model import onnx_import, stgcn
from edged.model.skeleton import SKELETONS, Skeleton, adjacency

_WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "network")
_PREFIXES = ("module.", "model.", "backbone.")
_NORM = {"weight": "gain", "bias": "offset", "running_mean": "mean", "running_var": "variance"}
_PARTS = r"(gcn\.conv|tcn\.2|residual\.0)\.(weight|bias)|(tcn\.[03]|residual\.1)\.({})".format("|".join(_NORM))
_BLOCK = re.compile(r"st_gcn_networks\.(\d+)\.({})".format(_PARTS))
_OTHER = re.compile(r"A|data_bn\.({})|edge_importance\.(\d+)|fcn\.(weight|bias)".format("|".join(_NORM)))
_SAME = 1e-4  # between a published adjacency and a checkpoint's own, in float32
_SAME_HALF = 4e-3  # ... where it was saved in 16 bits
_WRAPPED_MOST = 4
_VALUES_MOST = 1 << 27

Arrays = Dict[str, np.ndarray]


def import_file(
    path: str, labels: Optional[Sequence[str]] = None, skeleton: Optional[str] = None, persons: int = 2,
    frames: int = 300, strides: Optional[Sequence[int]] = None,
) -> stgcn.Network:
    """The network of a checkpoint; an ONNX file says itself its persons, frames and strides.

    labels : in the network's order; "label 0" and so on where nobody says       skeleton : name, where A does not tell
    strides : of the blocks in time; where nobody says, the published ones, if the channels are the published ones
    Raises MissingInput (no file), PackageError (not such a checkpoint, or not representable) and UsageError (what has
    to be said as well).
    """
    content = read_file(path)
    if not _is_onnx(content):
        return from_state_dict(_arrays(_load(content, path), path), path, labels, skeleton, persons, frames, strides)
    found = onnx_import.read(content, path)
    if not found.plain and skeleton is None:
        raise UsageError("{}: its adjacencies hold their edge importance, and do not tell the skeleton: say it by "
                         "--skeleton".format(path))
    _require_numbers(found.arrays, path)
    network = from_state_dict(found.arrays, path, labels, skeleton, found.persons, found.frames, found.strides)
    onnx_import.check(content, network, path)
    return network


def _is_onnx(content: bytes) -> bool:
    """A protobuf whose first field is the IR version; PyTorch's files are zip archives or pickles."""
    return content[:1] == b"\x08"


def _load(content: bytes, path: str) -> Any:
    with needs("owner"):
        import torch
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an error below says it in one line
            return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise PackageError("{}: not a plain state dict: it holds code, which is not run, or is damaged: save "
                           "model.state_dict() again".format(path)) from error
    except Exception as error:  # a damaged file is one of a dozen kinds of error
        raise PackageError("{}: not a PyTorch checkpoint, or damaged".format(path)) from error


def _arrays(found: Any, path: str) -> Arrays:
    """The tensors by their published names, float64; whatever wraps them is taken off."""
    for _ in range(_WRAPPED_MOST):
        if not isinstance(found, dict) or not any(isinstance(found.get(name), dict) for name in _WRAPPERS):
            break
        found = next(found[name] for name in _WRAPPERS if isinstance(found.get(name), dict))
    if not isinstance(found, dict) or not found or not all(isinstance(name, str) for name in found):
        raise PackageError("{}: holds no state dict".format(path))
    made: Arrays = {}
    values = 0
    for name, value in found.items():
        if not name.isprintable():
            raise PackageError("{}: {}: a name of no layer".format(path, ascii(name[:80])))
        for prefix in _PREFIXES:
            if name.startswith(prefix):
                name = name[len(prefix):]
        if name.endswith("num_batches_tracked"):
            continue
        if not hasattr(value, "detach"):
            raise PackageError("{}: {} is no tensor".format(path, name))
        if name in made:
            raise PackageError("{}: {} is there twice, with a prefix and without".format(path, name))
        values += value.numel()
        made[name] = _numbers(value, values, "{}: {}".format(path, name))
    unknown = sorted(name for name in made if not (_BLOCK.fullmatch(name) or _OTHER.fullmatch(name)))
    if unknown:
        raise PackageError("{}: {} cannot be represented{}: only the layers of the published ST-GCN can".format(
            path, unknown[0], " (and {} more)".format(len(unknown) - 1) if len(unknown) > 1 else ""))
    _require_numbers(made, path)
    return made


def _numbers(tensor: Any, values: int, where: str) -> np.ndarray:
    """float64; ``values``: of the whole checkpoint so far. Raises PackageError unless it holds all of its numbers."""
    plain = str(tensor.layout) == "torch.strided" and tensor.device.type == "cpu" and not tensor.is_quantized \
        and not tensor.is_nested
    if not plain or tensor.is_complex() or tensor.element_size() * tensor.numel() > tensor.untyped_storage().nbytes():
        raise PackageError("{} is no plain tensor of real numbers ({}, {}): save it dense, unquantised and in full"
                           .format(where, str(tensor.dtype).replace("torch.", ""), tensor.layout))
    if values > _VALUES_MOST:
        raise PackageError("{}: more than {} values by then: no ST-GCN that the enclave takes".format(
            where, _VALUES_MOST))
    found = tensor.detach().double().numpy()
    if tensor.element_size() == 2:
        found = found.view(_Half)
    return found


class _Half(np.ndarray):
    """Was saved in 16 bits."""


def _require_numbers(arrays: Arrays, path: str) -> None:
    for name, value in arrays.items():
        if not np.isfinite(value).all():
            raise PackageError("{}: {} holds NaN or infinity".format(path, name))


class _Checkpoint:
    """Its arrays by name; each is taken with the shape that it must have, ``None`` meaning any."""

    def __init__(self, arrays: Arrays, path: str) -> None:
        self.arrays, self.path = arrays, path
        self._taken: Set[str] = set()

    def take(self, name: str, *shape: Optional[int]) -> np.ndarray:
        if name not in self.arrays:
            raise PackageError("{}: {} is missing".format(self.path, name))
        found = self.arrays[name]
        if found.ndim != len(shape) or any(want is not None and want != have for want, have in zip(shape, found.shape)):
            raise PackageError("{}: {} is {}, must be ({})".format(
                self.path, name, found.shape, ", ".join("any" if want is None else str(want) for want in shape)))
        self._taken.add(name)
        return found

    def require_all_taken(self) -> None:
        """What the network would not have is not left out silently."""
        left = sorted(set(self.arrays) - self._taken)
        if left:
            raise PackageError("{}: {}{} belongs to no layer that is there".format(
                self.path, left[0], " (and {} more)".format(len(left) - 1) if len(left) > 1 else ""))

    def norm(self, name: str, channels: int) -> stgcn.BatchNorm:
        made = stgcn.BatchNorm(**{ours: self.take("{}.{}".format(name, theirs), channels)
                                  for theirs, ours in _NORM.items()})
        if not (made.variance >= 0).all() or not (made.variance + made.epsilon > 0).all():
            raise PackageError("{}: {}.running_var is negative".format(self.path, name))
        return made

    def has(self, name: str) -> bool:
        return name in self.arrays


def from_state_dict(
    arrays: Arrays, path: str, labels: Optional[Sequence[str]], skeleton: Optional[str], persons: int, frames: int,
    strides: Optional[Sequence[int]],
) -> stgcn.Network:
    """As ``import_file``; ``arrays`` by their published names."""
    if persons < 1 or frames < 1:
        raise UsageError("--persons {} --frames {}: at least 1 of each".format(persons, frames))
    file = _Checkpoint(arrays, path)
    base = file.take("A", None, None, None)
    body = _skeleton(base, skeleton, path)
    count = 1 + max((int(match.group(1)) for match in map(_BLOCK.fullmatch, arrays) if match), default=-1)
    channels = [file.take("st_gcn_networks.{}.tcn.2.weight".format(index), None, None, None, 1).shape[0]
                for index in range(count)]
    if not channels:
        raise PackageError("{}: holds no st_gcn_networks".format(path))
    chosen = _strides(channels, strides, path)
    blocks, channels_in = [], stgcn.CHANNELS_IN
    for index, (out, stride) in enumerate(zip(channels, chosen)):
        blocks.append(_block(file, index, base, channels_in, out, stride))
        channels_in = out
    classes = file.take("fcn.weight", None, channels_in, 1, 1).shape[0]
    if labels is not None and (len(labels) != classes or len(set(labels)) != classes):
        raise PackageError("{}: answers {} labels, the list has {} different ones".format(
            path, classes, len(set(labels))))
    network = stgcn.Network(
        skeleton=body,
        persons=persons,
        frames=frames,
        labels=tuple(labels) if labels is not None else tuple("label {}".format(one) for one in range(classes)),
        data_norm=file.norm("data_bn", body.joints * stgcn.CHANNELS_IN),
        blocks=tuple(blocks),
        fc_weight=file.take("fcn.weight", classes, channels_in, 1, 1)[:, :, 0, 0],
        fc_bias=file.take("fcn.bias", classes),
    )
    file.require_all_taken()
    try:
        networks.check(network)
    except PackageError as error:
        raise PackageError("{}: {}".format(path, error)) from error
    return network


def _skeleton(base: np.ndarray, name: Optional[str], path: str) -> Skeleton:
    """The one whose adjacency it is; a named one is taken at its word where it is nobody's."""
    partitions = base.shape[0]
    if not partitions or not base.any():
        raise PackageError("{}: A ({}) joins nothing".format(path, " x ".join(map(str, base.shape))))
    alike = _SAME_HALF if isinstance(base, _Half) else _SAME
    told = [body for body in SKELETONS.values()
            if base.shape[1:] == (body.joints,) * 2 and np.abs(base - adjacency(body, partitions)).max() < alike]
    if name is not None:
        if name not in SKELETONS:
            raise UsageError("--skeleton {}: choose of {}".format(name, ", ".join(sorted(SKELETONS))))
        if base.shape[1:] != (SKELETONS[name].joints,) * 2:
            raise PackageError("{}: A is {}, {} has {} joints".format(
                path, base.shape, name, SKELETONS[name].joints))
        if told and SKELETONS[name] not in told:
            raise PackageError("{}: A is the adjacency of {}, not of {}".format(path, told[0].name, name))
        return SKELETONS[name]
    if told:
        return told[0]
    raise PackageError("{}: A ({} x {} x {}) is the adjacency of no skeleton that edged knows ({}): say which one it "
                       "is by --skeleton".format(path, *(base.shape + (", ".join(sorted(SKELETONS)),))))


def _strides(channels: List[int], said: Optional[Sequence[int]], path: str) -> Tuple[int, ...]:
    if said is not None:
        if len(said) != len(channels) or min(said) < 1:
            raise UsageError("--strides {}: {} has {} blocks, and a stride is at least 1".format(
                ",".join(map(str, said)), path, len(channels)))
        return tuple(said)
    if channels != [out for out, _ in stgcn.FULL_CHANNELS]:
        raise UsageError("{}: a state dict does not hold strides, and channels {} are not the published ones: say them "
                         "by --strides, one for each block".format(path, ", ".join(map(str, channels))))
    return tuple(stride for _, stride in stgcn.FULL_CHANNELS)


def _block(file: _Checkpoint, index: int, base: np.ndarray, channels_in: int, out: int, stride: int) -> stgcn.Block:
    name = "st_gcn_networks.{}.".format(index)
    partitions, joints = base.shape[:2]
    kernel = file.take(name + "gcn.conv.weight", partitions * out, channels_in, None, 1)
    if kernel.shape[2] != 1:
        raise PackageError("{}: {}gcn.conv reaches over {} frames: only 1 can be represented".format(
            file.path, name, kernel.shape[2]))
    temporal = file.take(name + "tcn.2.weight", out, out, None, 1)
    if not temporal.shape[2] % 2:
        raise PackageError("{}: {}tcn.2 has {} taps: only an odd number can be represented".format(
            file.path, name, temporal.shape[2]))
    importance = np.ones_like(base)
    if any(other.startswith("edge_importance.") for other in file.arrays):  # of all blocks, or of none
        importance = file.take("edge_importance.{}".format(index), partitions, joints, joints)
    around = file.has(name + "residual.0.weight")
    if not around and index and (channels_in != out or stride != 1):
        raise PackageError("{}: {}residual is missing: {} channels at stride {} cannot be added to {}".format(
            file.path, name, channels_in, stride, out))

    def bias(layer: str, channels: int) -> np.ndarray:
        return file.take(name + layer + ".bias", channels) if file.has(name + layer + ".bias") else np.zeros(channels)

    return stgcn.Block(
        adjacency=base * importance,
        graph_weight=kernel[:, :, 0, 0],
        graph_bias=bias("gcn.conv", partitions * out),
        graph_norm=file.norm(name + "tcn.0", out),
        temporal_weight=np.ascontiguousarray(temporal[..., 0].transpose(0, 2, 1)),
        temporal_bias=bias("tcn.2", out),
        temporal_norm=file.norm(name + "tcn.3", out),
        stride=stride,
        residual=stgcn.CONVOLUTION if around else stgcn.IDENTITY if index else stgcn.NO_RESIDUAL,
        residual_weight=file.take(name + "residual.0.weight", out, channels_in, 1, 1)[:, :, 0, 0] if around else None,
        residual_bias=bias("residual.0", out) if around else None,
        residual_norm=file.norm(name + "residual.1", out) if around else None,
    )
