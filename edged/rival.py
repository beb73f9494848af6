"""The rival of the benchmark: the same network, unprotected, in ONNX Runtime, fp32, one thread."""

from typing import Optional

import numpy as np

from edged.model import stgcn


class Rival:
    """An ONNX Runtime session of one network."""

    def __init__(self, network: stgcn.Network) -> None:
        import onnxruntime

        from edged.model import onnx_export

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.name = "ONNX Runtime {} fp32, one thread".format(onnxruntime.__version__)
        self._session = onnxruntime.InferenceSession(onnx_export.export(network), options,
                                                     providers=["CPUExecutionProvider"])
        self._clip_input = onnx_export.clip_input
        self._network = network

    @classmethod
    def of(cls, network: stgcn.Network) -> Optional["Rival"]:
        """None where the extra `dev` (onnx, onnxruntime) is not installed."""
        try:
            return cls(network)
        except ImportError:
            return None

    def run(self, clip: np.ndarray) -> np.ndarray:
        """Logits (L,) float32 of one int16 clip (m <= M, T, V, 3)."""
        return self._session.run(None, {"clip": self._clip_input(self._network, clip)})[0]
