"""The exported network gives ONNX Runtime what NumPy gets from the published form."""

import numpy as np
import pytest

from edged.model import onnx_export, stgcn
from model_fixtures import clips_of, small_network

pytest.importorskip("onnx", reason="onnx is not installed: the export is NOT tested")
runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: the export is NOT tested")


def logits_of(network, clip):
    session = runtime.InferenceSession(onnx_export.export(network), providers=["CPUExecutionProvider"])
    assert [output.name for output in session.get_outputs()] == ["logits"]
    return session.run(None, {"clip": onnx_export.clip_input(network, clip)})[0]


@pytest.mark.parametrize("persons", [1, 2])
def test_onnx_runtime_agrees_with_numpy(persons):
    network = small_network()
    clip = clips_of(network, 2)[persons - 1]
    assert np.allclose(logits_of(network, clip), stgcn.forward_clip(network, clip), atol=1e-4)


def test_one_partition_and_the_coco_skeleton_export_too():
    network = stgcn.random_network(2, ((8, 1), (8, 2)), frames=9, partitions=1, labels=3)
    (clip,) = clips_of(network, 1)
    assert np.allclose(logits_of(network, clip), stgcn.forward_clip(network, clip), atol=1e-4)
