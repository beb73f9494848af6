"""The pose network by ONNX Runtime: the same maps as OpenCV's, at any size; what it cannot do, OpenCV does."""

import logging
import sys
from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("cv2")

from edged import config  # noqa: E402
from edged.camera import ort, posenet, zoo  # noqa: E402
from edged.camera.onnxwire import any_size  # noqa: E402
from edged.camera.ort import OrtNet  # noqa: E402
from edged.camera.posenet import PoseNetwork  # noqa: E402
from edged.errors import CameraError, PackageError  # noqa: E402
from pose_fixtures import needs  # noqa: E402


def frame(width, height, seed=1):
    """Blobs of colour: smooth, as pictures are."""
    coarse = np.random.default_rng(seed).integers(0, 255, (height // 16 + 1, width // 16 + 1, 3), dtype=np.uint8)
    return coarse.repeat(16, 0).repeat(16, 1)[:height, :width]


def alike(name, folder, sizes, most):
    ours, theirs = (PoseNetwork(name, folder, backend=backend) for backend in ("onnxruntime", "opencv"))
    assert ours.where == "ONNX Runtime, CPUExecutionProvider" and theirs.where.startswith("OpenCV ")
    for size in sizes:
        one, other = ours.run(frame(*size)), theirs.run(frame(*size))
        assert one.cell == other.cell and one.heat.shape == other.heat.shape and one.paf.shape == other.paf.shape
        assert np.abs(one.heat - other.heat).max() < most and np.abs(one.paf - other.paf).max() < most


def test_the_bundled_network_gives_the_same_maps_at_any_size():
    alike("edged-pose", None, [(448, 256), (640, 480), (360, 640), (1280, 720)], 1e-4)


def test_the_large_network_gives_the_same_maps_at_any_size():
    alike("human-pose-estimation-0001", needs("pose"), [(456, 256), (480, 360)], 1e-4)


def test_the_configuration_offers_what_there_is(tmp_path):
    line = next(line for line in Path(config.__file__).read_text().splitlines() if '"pose_backend", "auto"' in line)
    assert str(posenet.BACKENDS).replace("'", '"') in line


def test_a_file_without_sizes_is_the_same_network():
    content, = zoo.read(zoo.DEFAULT)
    freed = onnx.load_from_string(any_size(content))
    onnx.checker.check_model(freed)
    whole = onnx.load_from_string(content)
    assert freed.graph.node == whole.graph.node and freed.graph.initializer == whole.graph.initializer
    for value in list(freed.graph.input) + list(freed.graph.output):
        sides = value.type.tensor_type.shape.dim
        assert [side.dim_param for side in sides[2:]] == ["height", "width"] and sides[0].dim_value == 1


def test_a_damaged_file_is_one_line():
    content, = zoo.read(zoo.DEFAULT)
    rng = np.random.default_rng(2)
    for size in [0, 1, 5, 100, 5000] + rng.integers(0, len(content), 10).tolist():
        with pytest.raises(PackageError) as caught:
            OrtNet(content[:size])
        assert "\n" not in str(caught.value)
    for _ in range(20):
        with pytest.raises(PackageError):
            OrtNet(bytes(rng.integers(0, 256, 200, dtype=np.uint8)))


def test_without_a_gpu_auto_is_opencv(monkeypatch):
    monkeypatch.setattr(posenet, "gpu_providers", list)
    assert PoseNetwork(backend="auto").where.startswith("OpenCV ")


def test_with_a_gpu_auto_is_onnx_runtime_and_what_it_cannot_load_is_opencvs(monkeypatch, caplog):
    monkeypatch.setattr(posenet, "gpu_providers", lambda: [ort.GPU])
    assert PoseNetwork(backend="auto").where.startswith("ONNX Runtime")

    def none(*_):
        raise PackageError("ONNX Runtime cannot load the pose model: no kernel image")

    monkeypatch.setattr(posenet, "OrtNet", none)
    caplog.set_level(logging.WARNING)
    assert PoseNetwork(backend="auto").where.startswith("OpenCV ")
    assert "no kernel image; OpenCV takes over" in caplog.text
    with pytest.raises(PackageError, match="no kernel image"):
        PoseNetwork(backend="onnxruntime")


def test_what_it_fails_at_is_done_by_opencv_from_then_on(monkeypatch, caplog):
    network, expected = PoseNetwork(backend="onnxruntime"), PoseNetwork().run(frame(448, 256))
    monkeypatch.setattr(OrtNet, "run", lambda *_: (_ for _ in ()).throw(CameraError("CUDA failure 719")))
    for _ in range(2):
        found = network.run(frame(448, 256))
        assert np.array_equal(found.heat, expected.heat) and network.where.startswith("OpenCV ")
    assert caplog.text.count("CUDA failure 719; OpenCV takes over") == 1


def test_a_picture_that_it_cannot_take_is_one_line():
    net = OrtNet(zoo.read(zoo.DEFAULT)[0])
    with pytest.raises(CameraError, match="ONNX Runtime failed on a picture") as caught:
        net.run(np.zeros((1, 4, 32, 32), np.float32))
    assert "\n" not in str(caught.value)


def test_no_onnx_runtime_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert ort.gpu_providers() == []
    with pytest.raises(PackageError, match="no onnxruntime: pip install onnxruntime-gpu"):
        PoseNetwork(backend="onnxruntime")


def test_a_network_that_is_not_onnx_stays_with_opencv(monkeypatch):
    folder = needs("pose")
    monkeypatch.setattr(posenet, "gpu_providers", lambda: [ort.GPU])
    assert PoseNetwork("mobilenet_v2_small", folder, backend="auto").where.startswith("OpenCV ")
    with pytest.raises(PackageError, match="is not ONNX"):
        PoseNetwork("mobilenet_v2_small", folder, backend="onnxruntime")
