"""Pose models by name: what is pinned, and one clear line for each thing that is wrong."""

import hashlib
from dataclasses import replace

import pytest

from edged.camera import zoo
from edged.camera.pose import LIMBS
from edged.errors import ConfigError, MissingInput, VerificationFailed
from pose_fixtures import needs

CONTENT = b"a network"
LARGE = "human-pose-estimation-0001"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder that holds a model called "tiny"."""
    tiny = replace(zoo.MODELS[LARGE], name="tiny", file="tiny.onnx", sha256=hashlib.sha256(CONTENT).hexdigest())
    monkeypatch.setitem(zoo.MODELS, "tiny", tiny)
    monkeypatch.delenv(zoo.ENVIRONMENT, raising=False)
    (tmp_path / "tiny.onnx").write_bytes(CONTENT)
    return tmp_path


def test_a_model_is_found_by_its_name(folder):
    assert zoo.find("tiny", folder) == folder / "tiny.onnx"
    assert zoo.read("tiny", str(folder)) == (CONTENT,)


def test_the_environment_names_the_folder_where_nothing_else_does(folder, monkeypatch):
    monkeypatch.setenv(zoo.ENVIRONMENT, str(folder))
    assert zoo.find("tiny") == folder / "tiny.onnx"
    with pytest.raises(MissingInput):
        zoo.find("tiny", folder / "other")


def test_a_changed_bit_is_refused_by_both_hashes(folder):
    (folder / "tiny.onnx").write_bytes(b"b" + CONTENT[1:])
    with pytest.raises(VerificationFailed) as caught:
        zoo.find("tiny", folder)
    assert caught.value.exit_code == 76
    for said in (str(folder / "tiny.onnx"), zoo.model("tiny").sha256, hashlib.sha256(b"b" + CONTENT[1:]).hexdigest()):
        assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_names_file_folder_and_what_names_the_folder(folder):
    (folder / "tiny.onnx").unlink()
    with pytest.raises(MissingInput) as caught:
        zoo.find("tiny", folder)
    assert caught.value.exit_code == 66
    for said in (str(folder / "tiny.onnx"), "EDGED_MODELS", "`models`", "No such file"):
        assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_in_the_files_place_is_missing_input(folder):
    (folder / "tiny.onnx").unlink()
    (folder / "tiny.onnx").mkdir()
    with pytest.raises(MissingInput, match="tiny.onnx"):
        zoo.find("tiny", folder)


def test_no_folder_at_all_is_said(folder):
    with pytest.raises(MissingInput, match="no folder .* tiny.onnx: set EDGED_MODELS or `models`"):
        zoo.find("tiny")


@pytest.mark.parametrize("name", ["", "../tiny", "tiny.onnx", "TINY"])
def test_an_unknown_name_is_an_error_of_the_configuration_that_lists_the_names(folder, name):
    with pytest.raises(ConfigError, match="edged-pose, human-pose-estimation-0001, human-pose-estimation-0001-fp32, "
                                        "mobilenet_v2_small"):
        zoo.find(name, folder)


@pytest.mark.parametrize("model", zoo.MODELS.values(), ids=lambda model: model.name)
def test_each_model_has_a_channel_pair_for_each_limb_and_uses_each_channel_once(model):
    assert len(model.paf_channels) == len(LIMBS)
    assert sorted(channel for pair in model.paf_channels for channel in pair) == list(range(38))
    assert model.width % model.stride == model.height % model.stride == 0 == model.multiple % model.stride


@pytest.mark.parametrize("name", ["human-pose-estimation-0001", "mobilenet_v2_small"])
def test_the_pinned_hashes_are_those_of_the_files(name):
    folder = needs("pose")
    assert zoo.find(name, folder).parent == folder


def test_the_default_one_comes_with_edged_whatever_folder_is_named(tmp_path, monkeypatch):
    monkeypatch.delenv(zoo.ENVIRONMENT, raising=False)
    found = zoo.find(zoo.DEFAULT)
    assert found == zoo.find(zoo.DEFAULT, tmp_path) and found.parent == zoo.BUNDLED
    assert found.stat().st_size <= 4_000_000


def test_a_bundled_one_that_was_altered_or_is_gone_is_refused(tmp_path, monkeypatch):
    whole, = zoo.read(zoo.DEFAULT)
    monkeypatch.setattr(zoo, "BUNDLED", tmp_path)
    with pytest.raises(MissingInput, match="install edged again"):
        zoo.read(zoo.DEFAULT)
    (tmp_path / zoo.MODELS[zoo.DEFAULT].file).write_bytes(whole[:-1])
    with pytest.raises(VerificationFailed, match="this is not pose model edged-pose"):
        zoo.read(zoo.DEFAULT)


def test_a_network_in_two_files_is_checked_whole(folder, monkeypatch):
    pair = replace(zoo.MODELS["tiny"], name="pair", file="pair.xml",
                   weights=("pair.bin", hashlib.sha256(b"w").hexdigest()))
    monkeypatch.setitem(zoo.MODELS, "pair", pair)
    (folder / "pair.xml").write_bytes(CONTENT)
    with pytest.raises(MissingInput, match="pair.bin"):
        zoo.read("pair", folder)
    (folder / "pair.bin").write_bytes(b"v")
    with pytest.raises(VerificationFailed, match="pair.bin"):
        zoo.read("pair", folder)
    (folder / "pair.bin").write_bytes(b"w")
    assert zoo.read("pair", folder) == (CONTENT, b"w") and zoo.find("pair", folder) == folder / "pair.xml"


def test_the_best_network_of_a_folder(tmp_path, monkeypatch):
    monkeypatch.delenv(zoo.ENVIRONMENT, raising=False)
    assert zoo.best() == zoo.best(tmp_path) == zoo.DEFAULT
    (tmp_path / zoo.model(LARGE).file).write_bytes(b"")
    assert zoo.best(tmp_path) == LARGE
    monkeypatch.setenv(zoo.ENVIRONMENT, str(tmp_path))
    (tmp_path / zoo.model("human-pose-estimation-0001-fp32").file).write_bytes(b"")
    assert zoo.best() == "human-pose-estimation-0001-fp32"


def test_its_card_names_its_hash():
    card = (zoo.BUNDLED / "POSE.md").read_text("utf-8")
    assert "sha256: {}\n".format(zoo.MODELS[zoo.DEFAULT].sha256) in card
