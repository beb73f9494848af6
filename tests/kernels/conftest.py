"""The kernels, compiled for the CPU once; a GPU that is none."""

import sys
import types

import pytest

from kernels import onacpu
from kernels.fake_pycuda import Device
from edged.offload import compile as compiling
from edged.offload import cubins, cuda


@pytest.fixture(scope="session")
def kernels(tmp_path_factory):
    return onacpu.build(tmp_path_factory.mktemp("kernels"))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Compiled kernels of this source, as far as a device that is none looks at them; no compiler but on PATH."""
    monkeypatch.setattr(compiling, "NVCC", str(tmp_path / "nvcc"))
    monkeypatch.setattr(cuda, "TRIALS", 1)
    for arch in cubins.ARCHITECTURES:
        cubins.write(tmp_path / "cuda", arch, b"\x7fELF of " + arch.encode(), "none", {})
    return tmp_path / "cuda"


@pytest.fixture(params=[False, True], ids=["own memory", "shared memory"])
def device(request, kernels, monkeypatch):
    """Installed in the place of pycuda."""
    made = Device(kernels, integrated=request.param)
    install(monkeypatch, made.driver())
    return made


def install(monkeypatch, driver):
    package = types.ModuleType("pycuda")
    package.driver = driver
    monkeypatch.setitem(sys.modules, "pycuda", package)
    monkeypatch.setitem(sys.modules, "pycuda.driver", driver)
