"""The accelerator that a node's configuration asks for, and the one that steps in for it."""

import importlib.util
import logging
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple, Optional

from edged import artifacts
from edged.config import Accelerator as Config
from edged.events import emit
from edged.offload.cpu import CpuAccelerator
from edged.offload.cuda import CudaAccelerator
from edged.offload.guard import GuardedAccelerator
from edged.offload.product import Accelerator, NumpyAccelerator

log = logging.getLogger(__name__)

CUBINS = "cuda"  # in the build folder
_NO_PYCUDA = "no pycuda: pip install 'edged[gpu]' where there is a GPU"


class Accelerators(NamedTuple):
    """first : computes      spare : makes last attempts, and what the first one fails at"""

    first: Accelerator
    spare: Accelerator


def chosen(config: Config, stack: ExitStack, state: Optional[Path] = None) -> Accelerators:
    """``stack`` closes them.

    state : folder for what was compiled for the GPU here, and measured on it

    Of kind "auto" it is the GPU where pycuda is installed, watched, with the CPU to step in. Raises MissingInput where
    the CPU's library was not built, AcceleratorError where the GPU is required and cannot be had.
    """
    if config.kind == "numpy":
        made: Accelerator = NumpyAccelerator()
        _tell(made.name, "")
        return Accelerators(made, made)
    spare = CpuAccelerator(config.threads)
    stack.callback(spare.close)
    if config.kind == "cpu" or config.kind == "auto" and importlib.util.find_spec("pycuda") is None:
        emit(log, "accelerator_taken", accelerator=spare.name, reason="" if config.kind == "cpu" else _NO_PYCUDA)
        return Accelerators(spare, spare)
    folder = artifacts.build_folder() / CUBINS
    guarded = GuardedAccelerator(lambda: CudaAccelerator(folder, config.device, state), spare, _tell,
                                 required=config.kind == "cuda")
    stack.callback(guarded.close)
    return Accelerators(guarded, spare)


def _tell(name: str, reason: str) -> None:
    emit(log, "accelerator_degraded" if reason else "accelerator_taken", accelerator=name, reason=reason)
