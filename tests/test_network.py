"""Network files: what is written is read again, to the bit; what is damaged, hostile or no network is one clear
error."""

import hashlib
import io
import os
import zipfile
from dataclasses import fields, is_dataclass, replace

import numpy as np
import pytest

from edged.errors import MissingInput, PackageError
from edged.model import network as networks
from edged.model import npz, stgcn
from edged.model.skeleton import COCO_18, Skeleton


@pytest.fixture(scope="module")
def network():
    """With every kind of residual, weights that float32 holds."""
    made = stgcn.random_network(4, channels=((4, 1), (4, 1), (6, 2)), frames=12, labels=3)
    made = replace(made, labels=("walking", "falling", "höher"))
    return networks.from_bytes(networks.to_bytes(made), "made")


def same(one, other):
    if is_dataclass(one):
        return all(same(getattr(one, field.name), getattr(other, field.name)) for field in fields(one))
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other)
    if isinstance(one, tuple):
        return len(one) == len(other) and all(same(*pair) for pair in zip(one, other))
    return one == other


def arrays_of(network):
    with np.load(io.BytesIO(networks.to_bytes(network))) as found:
        return dict(found)


def packed(arrays):
    made = io.BytesIO()
    np.savez(made, **arrays)
    return made.getvalue()


def test_a_network_comes_back_to_the_bit(network, tmp_path):
    path = tmp_path / "network.npz"
    sha256 = networks.write(network, path)
    assert sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert {block.residual for block in network.blocks} == {stgcn.NO_RESIDUAL, stgcn.IDENTITY, stgcn.CONVOLUTION}
    assert same(networks.read(path), network)
    assert os.listdir(str(tmp_path)) == ["network.npz"]


def test_the_same_network_gives_the_same_bytes(network):
    assert networks.to_bytes(network) == networks.to_bytes(network)


def test_what_was_there_is_replaced_whole_or_not_at_all(network, tmp_path):
    path = tmp_path / "network.npz"
    path.write_bytes(b"before")
    with pytest.raises(PackageError, match="fc_bias"):
        networks.write(replace(network, fc_bias=np.full_like(network.fc_bias, np.nan)), path)
    assert path.read_bytes() == b"before"
    networks.write(network, path)
    assert same(networks.read(path), network) and os.listdir(str(tmp_path)) == ["network.npz"]


@pytest.mark.parametrize("changes, message", [
    ({"fc_weight": np.inf}, "fc_weight"), ({"fc_weight": 1e39}, "fc_weight: holds what is not a finite float32")])
def test_weights_that_float32_cannot_hold_are_not_written(network, tmp_path, changes, message):
    broken = replace(network, **{name: np.full_like(getattr(network, name), value) for name, value in changes.items()})
    with np.errstate(over="ignore"), pytest.raises(PackageError, match=message):
        networks.write(broken, tmp_path / "network.npz")
    assert os.listdir(str(tmp_path)) == []


def test_a_skeleton_without_a_name_is_not_written(network, tmp_path):
    other = Skeleton(**dict({field.name: getattr(COCO_18, field.name) for field in fields(COCO_18)}, name="mine"))
    with pytest.raises(PackageError, match="skeleton mine: a network file knows"):
        networks.write(replace(network, skeleton=other), tmp_path / "network.npz")


def test_a_bad_path_is_one_line_and_leaves_nothing(network, tmp_path):
    with pytest.raises(MissingInput, match="none"):
        networks.write(network, tmp_path / "none" / "network.npz")
    (tmp_path / "folder").mkdir()
    with pytest.raises(MissingInput, match="folder"):
        networks.write(network, tmp_path / "folder")
    assert os.listdir(str(tmp_path)) == ["folder"]
    for path in (tmp_path / "nothing.npz", tmp_path / "folder"):
        with pytest.raises(MissingInput):
            networks.read(path)


def test_a_bit_flipped_anywhere_is_refused_or_harmless(network, tmp_path):
    whole = networks.to_bytes(network)
    rng = np.random.default_rng(5)
    refused = 0
    for _ in range(400):
        at = int(rng.integers(len(whole)))
        damaged = bytearray(whole)
        damaged[at] ^= 1 << int(rng.integers(8))
        try:
            found = networks.from_bytes(bytes(damaged), "n.npz")
        except PackageError as error:
            assert str(error).startswith("n.npz: not a network file") and "\n" not in str(error)
            refused += 1
        else:
            assert same(found, network)  # a field of the archive that nobody reads
    assert refused > 200


def test_a_cut_file_is_refused_wherever_it_is_cut(network):
    whole = networks.to_bytes(network)
    for size in range(0, len(whole), max(1, len(whole) // 150)):
        with pytest.raises(PackageError):
            networks.from_bytes(whole[:size], "n.npz")


@pytest.mark.parametrize("name", [
    "format", "skeleton", "strides", "residuals", "labels", "persons", "frames", "fc_weight", "data_norm.gain",
    "blocks.0.adjacency", "blocks.2.residual_weight"])
def test_what_is_missing_is_named(network, name):
    arrays = arrays_of(network)
    del arrays[name]
    with pytest.raises(PackageError, match="{}.* is missing".format(name.replace(".", "[.]"))):
        networks.from_bytes(packed(arrays), "n.npz")


@pytest.mark.parametrize("changes, message", [
    ({"format": np.array("edged-network-2")}, "format edged-network-2, not"),
    ({"skeleton": np.array("cat_9")}, "skeleton cat_9: known are"),
    ({"more": np.zeros(3)}, "unknown more"), ({"blocks.3.adjacency": np.zeros((3, 18, 18))}, "unknown blocks.3"),
    ({"strides": np.array([1, 1])}, "do not fit"), ({"strides": np.array([1, 0, 2])}, "do not fit"),
    ({"strides": np.array([1, 1, 1 << 40])}, "do not fit"),
    ({"residuals": np.array(["none", "sum", "none"])}, "do not fit"),
    ({"strides": np.array([], np.int64), "residuals": np.array([], str)}, "do not fit"),
    ({"persons": np.int64(0)}, ""), ({"persons": np.int64(1 << 40)}, ""), ({"frames": np.int64(1 << 40)}, ""),
    ({"frames": np.int64(-1)}, ""), ({"labels": np.array(["one"])}, ""), ({"labels": np.array("one")}, ""),
    ({"fc_weight": np.zeros((3, 5), np.float32)}, ""),
    ({"fc_weight": np.full((3, 6), np.nan, np.float32)}, "fc_weight"),
    ({"fc_weight": np.zeros((3, 6), np.int32)}, "fc_weight"), ({"fc_weight": np.array(["a"] * 3)}, "fc_weight"),
    ({"data_norm.variance": np.full(54, -1, np.float32)}, ""), ({"blocks.0.graph_weight": np.zeros(3, np.float32)}, ""),
    ({"blocks.1.adjacency": np.zeros((3, 17, 17), np.float32)}, ""),
])
def test_what_is_no_network_is_refused(network, changes, message):
    with pytest.raises(PackageError, match="^n.npz: not a network file.*" + message) as caught:
        networks.from_bytes(packed(dict(arrays_of(network), **changes)), "n.npz")
    assert "\n" not in str(caught.value)


class Payload:
    """Runs when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_a_pickle_with_code_in_it_is_refused_and_never_runs(network, tmp_path):
    payload = Payload()
    payload.path = str(tmp_path / "ran")
    arrays = dict(arrays_of(network), labels=np.array([payload], object))
    with pytest.raises(PackageError, match="not a network file"):
        networks.from_bytes(packed(arrays), "n.npz")
    assert not (tmp_path / "ran").exists()


def zipped(**parts):
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name + ".npy", content)
    return made.getvalue()


def header(shape):
    made = io.BytesIO()
    np.lib.format.write_array_header_1_0(made, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return made.getvalue()


def test_a_small_file_that_unpacks_to_much_is_refused_before_it_does():
    bomb = zipped(fc_weight=header((1 << 20,)) + bytes(4 << 20))
    assert len(bomb) < 10000
    with pytest.raises(PackageError, match="takes 4 MiB unpacked, at most 1 are read"):
        npz.read(io.BytesIO(bomb), "n.npz", 1 << 20)


@pytest.mark.parametrize("shape", [(1 << 40,), (1 << 31, 1 << 31), (-1,)])
def test_an_array_that_claims_to_be_larger_than_its_content_is_refused(shape):
    with pytest.raises(PackageError, match="no .npz of plain arrays, or damaged"):
        npz.read(io.BytesIO(zipped(fc_weight=header(shape) + bytes(64))), "n.npz", 1 << 30)


@pytest.mark.parametrize("content", [b"", b"PK\x05\x06", b"\x80\x04N.", bytes(1000), b"\x93NUMPY"])
def test_what_is_no_archive_is_refused(content):
    with pytest.raises(PackageError, match="n.npz: not a network file"):
        networks.from_bytes(content, "n.npz")
