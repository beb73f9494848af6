"""The benchmark's products are the network's, and its table is made of what was measured."""

import json

import pytest

from edged.errors import AcceleratorError
from edged.model import stgcn
from edged.offload import cubins, cuda, gpubench
from edged.offload.cuda import Chip, CudaAccelerator


def test_the_products_are_those_of_the_published_network():
    found = gpubench.products()
    assert sum(one.times for one in found if one.name == "graph") == len(stgcn.FULL_CHANNELS) == 10
    assert sum(one.times for one in found if one.name == "temporal") == 10
    assert sum(one.times for one in found if one.name == "residual") == 2
    assert 11.5e9 < sum(one.times * one.macs for one in found) < 12e9  # DESIGN: 11.7 GMAC a clip


def test_limits_follow_the_chip():
    orin = Chip("Orin", 87, 16, 1.3e9, 2e11)
    assert gpubench.limit(orin, "direct") == pytest.approx(64 * 16 * 1.3e9)
    assert gpubench.limit(orin, "dots") == pytest.approx(64 * 16 * 1.3e9 / 2.5)
    assert gpubench.limit(orin, "tensor") == pytest.approx(2048 * 16 * 1.3e9 / 10)
    assert gpubench.limit(orin._replace(capability=110), "tensor") is None


def test_a_table_is_made_of_what_was_measured(device, folder, monkeypatch, capsys):
    monkeypatch.setattr(gpubench, "FRAMES", 4)
    monkeypatch.setattr(gpubench, "PERSONS", 1)
    monkeypatch.setattr(cuda, "TRIALS", 1)
    monkeypatch.setattr(stgcn, "FULL_CHANNELS", ((8, 1), (12, 2)))
    monkeypatch.setattr(gpubench, "rival", lambda: lambda product: lambda: 1e-3)
    gpu = CudaAccelerator(folder)
    found = gpubench.measure(gpu, 2)
    gpu.close()
    assert len(found["rows"]) == 5 and json.loads(json.dumps(found)) is not None
    for row in found["rows"]:
        assert row["kernel"] in cubins.KERNELS and set(row["ms"]) == set(cubins.KERNELS) | {"fp32"}
        assert row["ms"][row["kernel"]] == min(row["ms"][name] for name in cubins.KERNELS)
        assert row["against_fp32"] == pytest.approx(1.0 / row["ms"][row["kernel"]])
    assert found["clip_fp32_ms"] == pytest.approx(5.0)
    text = gpubench.as_text(found)
    assert text.startswith("Fake GPU") and len([line for line in text.splitlines() if line.startswith("|")]) == 7


def test_without_a_gpu_it_ends_with_one_line(monkeypatch, capsys):
    def none(*_):
        raise AcceleratorError("no pycuda: pip install 'edged[gpu]' (see README)")

    monkeypatch.setattr(gpubench, "CudaAccelerator", none)
    assert gpubench.main([]) == 69
    assert capsys.readouterr().err == "bench-gpu: no pycuda: pip install 'edged[gpu]' (see README)\n"
