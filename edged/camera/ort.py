"""A pose network by ONNX Runtime, on the GPU where that was built in. The only file here that imports onnxruntime.

JetPack's and PyPI's GPU builds (onnxruntime-gpu) offer CUDA; the plain build has the CPU alone. They offer TensorRT,
too, which is faster once it has compiled for the chip, minutes long for each size of picture: a camera would be lost
meanwhile.
"""

from typing import Dict, List, Optional

import numpy as np

from edged.camera.onnxwire import any_size
from edged.errors import CameraError, PackageError

GPU = "CUDAExecutionProvider"
CPU = "CPUExecutionProvider"


def gpu_providers() -> List[str]:
    """What of GPU this installation says that it can do; nothing where ONNX Runtime is not installed."""
    try:
        import onnxruntime
    except ImportError:
        return []
    return [name for name in onnxruntime.get_available_providers() if name == GPU]


class OrtNet:
    """``content``: an ONNX file, whatever size of picture it names.

    where : the providers that it really got, the first one computing
    Raises PackageError where there is no ONNX Runtime, or it cannot load the file.
    """

    def __init__(self, content: bytes, threads: Optional[int] = None) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise PackageError("no onnxruntime: pip install onnxruntime-gpu (on a Jetson: NVIDIA's wheel), or "
                               "pose_backend = \"opencv\"") from error
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        if threads is not None:
            options.intra_op_num_threads = threads
        try:
            self._session = onnxruntime.InferenceSession(any_size(content), options, providers=gpu_providers() + [CPU])
        except Exception as error:  # of its own kinds
            raise PackageError("ONNX Runtime cannot load the pose model: {}".format(_one_line(error))) from error
        self.where = list(self._session.get_providers())
        self.outputs = [one.name for one in self._session.get_outputs()]
        self._input = self._session.get_inputs()[0].name

    def run(self, blob: np.ndarray) -> Dict[str, np.ndarray]:
        """Outputs by name of a picture (1, 3, H, W) float32. Raises CameraError."""
        try:
            return dict(zip(self.outputs, self._session.run(None, {self._input: blob})))
        except Exception as error:
            raise CameraError("ONNX Runtime failed on a picture: {}".format(_one_line(error))) from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
