"""Which accelerator a configuration gets, what is said of it, and that a required one is not replaced."""

import logging
import sys
from contextlib import ExitStack

import numpy as np
import pytest

from edged.config import Accelerator
from edged.errors import AcceleratorError
from edged.offload import chosen as choosing
from edged.offload.chosen import chosen
from edged.offload.product import masked_convolution


@pytest.fixture
def said(monkeypatch):
    found = []
    monkeypatch.setattr(choosing, "emit", lambda log, name, **fields: found.append((name, fields)))
    return found


@pytest.fixture
def stack():
    with ExitStack() as made:
        yield made


def works(accelerator):
    rng = np.random.default_rng(1)
    w, x = (rng.integers(0, 1 << 32, shape, dtype=np.uint32) for shape in ((4, 3, 5), (1, 7, 2, 5)))
    weights = accelerator.weights(w)
    assert np.array_equal(accelerator.convolve(weights, x, 1, 1), masked_convolution(w, x, 1, 1))
    accelerator.release(weights)


@pytest.mark.parametrize("kind", ["cpu", "numpy"])
def test_a_named_one_is_taken(kind, said, stack):
    first, spare = chosen(Accelerator(kind, 1, 0), stack)
    assert first is spare and first.name == kind
    assert said == [("accelerator_taken", {"accelerator": kind, "reason": ""})]
    works(first)


def test_auto_without_pycuda_is_the_cpu_and_says_why(said, stack, monkeypatch):
    monkeypatch.setattr(choosing.importlib.util, "find_spec", lambda name: None)
    first, spare = chosen(Accelerator("auto", 1, 0), stack)
    assert first is spare and first.name == "cpu"
    assert said[0][0] == "accelerator_taken" and "no pycuda" in said[0][1]["reason"]


@pytest.fixture
def broken_gpu(monkeypatch):
    """pycuda is there, a driver is not."""
    package = type(sys)("pycuda")
    package.__path__ = []
    monkeypatch.setitem(sys.modules, "pycuda", package)
    monkeypatch.setitem(sys.modules, "pycuda.driver", None)
    monkeypatch.setattr(choosing.importlib.util, "find_spec", lambda name: object())


def test_auto_with_a_gpu_that_cannot_be_had_is_degraded_and_works(said, stack, broken_gpu, caplog):
    caplog.set_level(logging.CRITICAL)
    first, spare = chosen(Accelerator("auto", 1, 0), stack)
    assert first is not spare and first.name == spare.name == "cpu" and "pycuda finds no CUDA driver" in first.reason
    assert [name for name, _ in said] == ["accelerator_degraded"]
    works(first)


def test_a_required_gpu_that_cannot_be_had_is_exit_69(said, stack, broken_gpu):
    with pytest.raises(AcceleratorError, match="pycuda finds no CUDA driver") as caught:
        chosen(Accelerator("cuda", 1, 0), stack)
    assert caught.value.exit_code == 69
