"""The benchmark measures what it says, at full size, and what must hold does hold."""

import json
from contextlib import ExitStack

import numpy as np
import pytest

from edged import bench, edgectl
from edged.enclave import wire
from edged.errors import VerificationFailed
from edged.model import quantise, reference, stgcn
from edged.model.layers import Kind
from edged.offload.bridge import Cost
from edged.offload.product import NumpyAccelerator
from edged.offload.transport import MessageTransport, WindowTransport

OUTSIDE = (wire.Placement.MASKED, wire.Placement.INPUTS)
LINEAR = (Kind.GRAPH, Kind.RESIDUAL, Kind.TEMPORAL)

FIXED = {"enclave_cpu_ms", "enclave_cpu_sustained_ms", "accelerator_ms", "wall_ms", "round_trips", "messages", "bytes",
         "peak_enclave_bytes"}
FIGURES = FIXED | {"round_trips_ahead", "round_trips_sustained", "messages_ahead", "bytes_ahead", "bytes_sustained"}


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
        assert placement["messages_ahead"] == 2 * placement["round_trips_ahead"]
        assert placement["round_trips_sustained"] == placement["round_trips"] + placement["round_trips_ahead"]
        assert placement["bytes_sustained"] == placement["bytes"] + placement["bytes_ahead"]
        assert (placement["bytes_ahead"] > 60e6) == (name != "enclave")
        assert 0 < placement["peak_enclave_bytes"] <= 12 << 20, name
        assert 0 < placement["enclave_cpu_ms"] <= placement["enclave_cpu_sustained_ms"]
        if transport == "window":  # DESIGN section 9
            assert placement["round_trips"] <= 22
            assert placement["bytes"] <= 180e6
        assert name in printed


def small():
    """A model, a clip and its logits."""
    rng = np.random.default_rng(3)
    network = stgcn.random_network(3, channels=((4, 1),), frames=5, joints=3, labels=2, taps=3)
    model = quantise.quantise(network, [stgcn.random_clip(rng, network, 2)])
    clip = stgcn.random_clip(rng, network, 2)
    return model, clip, reference.run(model, clip)[0]


def test_the_bench_fails_where_an_answer_differs_from_the_reference():
    model, clip, logits = small()
    with ExitStack() as stack:
        contender = bench.Contender(wire.Placement.MASKED, model, WindowTransport.name, NumpyAccelerator(), stack)
        assert contender.evaluate(clip, logits).ahead.bytes > 0
        with pytest.raises(VerificationFailed, match="clip 2 differs from the reference"):
            contender.evaluate(clip, logits + 1)


@pytest.mark.parametrize("placement", list(wire.Placement), ids=lambda placement: placement.name)
def test_the_sustained_figures_are_all_that_crosses_for_a_clip(placement):
    """Nothing is left out: the connection's own counters, which know no clip and no ahead, agree."""
    model, clip, logits = small()
    with ExitStack() as stack:
        contender = bench.Contender(placement, model, MessageTransport.name, NumpyAccelerator(), stack)
        contender.evaluate(clip, logits)  # opens the session
        traffic = contender.node.eval.connection.traffic
        before = traffic.round_trips, traffic.messages, traffic.bytes
        contender.samples = [contender.evaluate(clip, logits)]
        crossed = [now - then for now, then in zip((traffic.round_trips, traffic.messages, traffic.bytes), before)]
        report = contender.report(None)
    assert FIGURES <= set(report)
    assert [report["round_trips_sustained"], report["messages"] + report["messages_ahead"],
            report["bytes_sustained"]] == crossed
    ahead = [report["round_trips_ahead"], report["messages_ahead"], report["bytes_ahead"]]
    assert all(ahead) if placement != wire.Placement.ENCLAVE else ahead == [0, 0, 0]


@pytest.mark.parametrize("placement", OUTSIDE, ids=lambda placement: placement.name)
def test_ahead_costs_one_round_trip_a_product_and_one_more_where_there_is_a_window(placement):
    model, clip, logits = small()
    words = sum(layer.row.cout * clip[..., 0].size for layer in model.layers if layer.row.kind in LINEAR)
    with ExitStack() as stack:
        contender = bench.Contender(placement, model, WindowTransport.name, NumpyAccelerator(), stack)
        ahead = contender.evaluate(clip, logits).ahead
    assert (ahead.round_trips, ahead.messages) == (1 + 2, 2 * (1 + 2))
    assert 0 < ahead.bytes - 4 * words <= ahead.messages * wire.EDGED_MESSAGE_BYTES


def test_the_table_shows_ahead_and_sustained_beside_what_a_clip_costs():
    sample = bench.Sample(enclave_cpu_s=0.1, ahead_cpu_s=0.2, cost=Cost(21, 42, 177400000, 0.3, 0.4),
                          ahead=Cost(23, 46, 66400000, 0.0, 0.5))
    model = small()[0]
    with ExitStack() as stack:
        contender = bench.Contender(wire.Placement.MASKED, model, WindowTransport.name, NumpyAccelerator(), stack)
        contender.samples = [sample]
        report = contender.report(200.0)
    lines = bench.table({
        "network": "a network", "clips": 1, "transport": "window", "accelerator": "one", "unprotected": "a rival",
        "unprotected_ms": 200.0, "placements": {"masked": report}}).split("\n")
    times, crossings = [line.split()[1:] for line in lines if line.startswith("masked")]
    assert times[:6] == ["100", "0.50", "300", "1.50", "300", "400"]
    assert crossings == ["21", "23", "44", "42", "46", "177.4", "66.4", "243.8"]
    headings = [line for line in lines if line.startswith("placement")]
    assert headings[1].split()[1:] == ["round", "trips", "ahead", "sustained", "messages", "ahead", "MB", "ahead",
                                       "sustained"]
