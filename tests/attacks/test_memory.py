"""Twelve mebibytes: both applications at full size, as they measure themselves and as their manifests limit them."""

import json
from pathlib import Path

import numpy as np
import pytest

from attacks.networks import full_size, random_coordinates
from attacks.node import OUTSIDE, SEES_ALL, TRANSPORTS, confirm_all, recipient
from edged import artifacts
from edged.enclave import wire
from edged.enclave.host import EVAL_PROGRAM
from edged.enclave.wire import Placement
from edged.trust.agreement import Rule

BUDGET = 12 * 1024 * 1024
MANIFESTS = Path(__file__).resolve().parent.parent.parent / "trusty_ta" / "port" / "trusty"


@pytest.fixture(autouse=True)
def measured():
    program = artifacts.find(EVAL_PROGRAM)
    if b"__asan_init" in program.read_bytes():
        pytest.skip("{}: a sanitizer build measures no stack, and its image is not the enclave's".format(program))


def memories(node):
    key = node.connect_key()
    both = node.stats().memory, key.stats()
    key.close()
    return both


def four_who_see_skeletons(node, model):
    """The largest records for the most recipients, of a rule that holds for every clip."""
    node.client.confirm(node.client.info().emission)
    return node.agree(number=2, body=wire.EDGED_BODY_SKELETONS, rules=(Rule(model.labels[0], 1, 0),), recipients=tuple(
        recipient(wire.EDGED_SEES_SCORES, (SEES_ALL | wire.EDGED_SEES_SKELETON,)) for _ in range(4)))


def check_peak(node, capsys, what):
    """Heap and stack at their peaks, image, channels, of both."""
    both = memories(node)
    for one in both:
        assert 0 < one.heap_peak <= one.heap_limit and 0 < one.stack_peak <= one.stack_limit
        assert one.image > 0 and one.channels > 0
    peak = sum(one.peak_bytes for one in both)
    with capsys.disabled():
        print("\npeak memory, {}: {} bytes, {:.1f} % of 12 MiB".format(what, peak, 100 * peak / BUDGET))
    assert peak <= BUDGET


def test_the_manifests_limits_with_image_and_channels_are_within_twelve_mebibytes(node):
    both = memories(node)
    for one, name in zip(both, ("eval", "key")):
        manifest = json.loads((MANIFESTS / name / "manifest.json").read_text(encoding="ascii"))
        assert (one.heap_limit, one.stack_limit) == (manifest["min_heap"], manifest["min_stack"])
    assert sum(one.heap_limit + one.stack_limit + one.image + one.channels for one in both) <= BUDGET


@pytest.mark.parametrize("placement", list(Placement), ids=lambda placement: placement.name)
def test_the_full_size_model_is_held_in_twelve_mebibytes(fresh_node, capsys, placement):
    """All that an evaluation needs is allocated at the load, but for skeletons; the slow tests below evaluate too."""
    fresh_node.load(full_size(1), placement)
    check_peak(fresh_node, capsys, "full size loaded, placement {}".format(placement.name))


@pytest.mark.slow
@pytest.mark.parametrize("transport", list(TRANSPORTS))
@pytest.mark.parametrize("placement", list(Placement), ids=lambda placement: placement.name)
def test_full_size_clips_are_evaluated_in_twelve_mebibytes(fresh_node, capsys, placement, transport):
    node, model = fresh_node, full_size(1)
    node.load(model, placement, transport)
    camera = node.camera()
    clip = random_coordinates(np.random.default_rng(1), model.shape, 2)
    heap = node.stats().memory.heap_peak
    node.evaluate(camera, clip)
    if placement in OUTSIDE:
        node.evaluate(camera, clip, node.prepare(2))
    assert node.stats().memory.heap_peak == heap
    assert node.stats().memory.window == (0 if transport == "message" else node.transport._window.size_bytes)
    check_peak(node, capsys, "full size evaluated, placement {}, transport {}".format(placement.name, transport))


def test_a_full_size_clip_with_skeletons_for_four_recipients_is_taken_in_twelve_mebibytes(fresh_node, capsys):
    """Its x and y, and all that may be kept beside: the most that the application ever needs."""
    node, model = fresh_node, full_size(1)
    node.load(model, Placement.ENCLAVE)
    heap = node.stats().memory.heap_peak
    agreed = four_who_see_skeletons(node, model)
    camera = node.camera(b"gate", agreed)
    confirm_all(node)
    clip = random_coordinates(np.random.default_rng(1), model.shape, 2)
    node.attempt(camera, node.seal(camera, clip))
    points = 2 * 300 * 18
    assert node.stats().memory.heap_peak >= heap + 4 * points, "its skeletons are kept"
    for time_ns in (1, 2):
        node.client.beacon(node.beacon(time_ns, agreement=agreed), bytes(32))
    node.client.abort_clip(camera.session)
    assert node.client.info().kept * len(node.client.record_from(0)[1]) == wire.EVAL_KEPT_BYTES
    check_peak(node, capsys, "full size, skeletons for four recipients")


@pytest.mark.slow
@pytest.mark.parametrize("transport", list(TRANSPORTS))
@pytest.mark.parametrize("placement", list(Placement), ids=lambda placement: placement.name)
def test_full_size_clips_with_skeletons_are_evaluated_in_twelve_mebibytes(fresh_node, capsys, placement, transport):
    node, model = fresh_node, full_size(1)
    node.load(model, placement, transport)
    agreed = four_who_see_skeletons(node, model)
    camera = node.camera(b"gate", agreed)
    confirm_all(node)
    clip = random_coordinates(np.random.default_rng(1), model.shape, 2)
    attempt = node.attempt(camera, node.seal(camera, clip))
    attempt.finish()
    for record in attempt.progress.records:
        assert node.open(record, agreement=agreed).skeletons.xy == clip[..., :2].astype("<i2").tobytes()
    check_peak(node, capsys, "full size with skeletons, placement {}, transport {}".format(placement.name, transport))
