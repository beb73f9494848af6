"""The benchmark measures what it says, at full size, and what must hold does hold."""

import json
from contextlib import ExitStack

import numpy as np
import pytest

from edged import bench, edgectl
from edged.enclave import wire
from edged.errors import VerificationFailed
from edged.model import quantise, reference, stgcn
from edged.offload.product import NumpyAccelerator
from edged.offload.transport import WindowTransport

FIGURES = {"enclave_cpu_ms", "enclave_cpu_sustained_ms", "accelerator_ms", "wall_ms", "round_trips", "messages", "bytes",
           "peak_enclave_bytes"}


@pytest.mark.slow
@pytest.mark.parametrize("transport", ["window", "message"])
def test_the_bench_reports_every_placement_within_its_limits(transport, tmp_path, capsys):
    path = tmp_path / "report.json"
    assert edgectl.main(["bench", "--clips", "1", "--transport", transport, "--json", str(path)]) == 0
    printed = capsys.readouterr().out
    report = json.loads(path.read_text())
    assert report["unprotected_ms"] > 0
    assert "ONNX Runtime" in printed
    assert set(report["placements"]) == {"masked", "inputs", "enclave"}
    for name, placement in report["placements"].items():
        assert FIGURES <= set(placement)
        assert placement["messages"] == 2 * placement["round_trips"]
        assert 0 < placement["peak_enclave_bytes"] <= 12 << 20, name
        assert 0 < placement["enclave_cpu_ms"] <= placement["enclave_cpu_sustained_ms"]
        if transport == "window":  # DESIGN section 9
            assert placement["round_trips"] <= 22
            assert placement["bytes"] <= 180e6
        assert name in printed


def test_the_bench_fails_where_an_answer_differs_from_the_reference():
    rng = np.random.default_rng(3)
    network = stgcn.random_network(3, channels=((4, 1),), frames=5, joints=3, labels=2, taps=3)
    model = quantise.quantise(network, [stgcn.random_clip(rng, network, 2)])
    clip = stgcn.random_clip(rng, network, 2)
    logits = reference.run(model, clip)[0]
    with ExitStack() as stack:
        contender = bench.Contender(wire.Placement.MASKED, model, WindowTransport.name, NumpyAccelerator(), stack)
        assert contender.evaluate(clip, logits).ahead_bytes > 0
        with pytest.raises(VerificationFailed, match="clip 2 differs from the reference"):
            contender.evaluate(clip, logits + 1)
