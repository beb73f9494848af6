"""Training in PyTorch gives the network that edged computes. Needs torch, which nothing else does: skipped without."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch: pip install edged[owner]")

from edged.camera import motion  # noqa: E402
from edged.model import stgcn  # noqa: E402
from edged.model.network import read, write  # noqa: E402
from edged.train import action  # noqa: E402
from edged.train.mixture import Mixture, Source, generator  # noqa: E402

PLAN = action.Plan(seed=3, steps=4, batch=4, rate=1e-3)
MIXTURE = Mixture([generator()])


def clips_of(people, owner, count):
    clips = np.zeros((count, action.PERSONS) + people.shape[1:])
    taken = [0] * count
    for person, clip in zip(people, owner.tolist()):
        clips[clip, taken[clip]] = person
        taken[clip] += 1
    return clips


def equal(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values()))


def test_the_exported_network_is_the_trained_function():
    network = action.train(PLAN, MIXTURE)
    people, owner, labels = action.batch(MIXTURE, 9, 0, 4)
    with torch.no_grad():
        theirs = network(torch.from_numpy(people), torch.from_numpy(owner), len(labels)).numpy()
    ours = stgcn.forward(action.export(network), clips_of(people, owner, len(labels)))
    assert np.abs(ours - theirs).max() < 1e-4


def test_written_and_read_it_is_still_the_same(tmp_path):
    network = action.export(action.train(PLAN, MIXTURE))
    write(network, tmp_path / "network.npz")
    clips = clips_of(*action.batch(MIXTURE, 9, 0, 4)[:2], 4)
    again = read(tmp_path / "network.npz")
    assert again.labels == motion.LABELS
    assert np.abs(stgcn.forward(again, clips) - stgcn.forward(network, clips)).max() < 1e-5


def test_an_interrupted_run_goes_on_to_the_same_weights(tmp_path):
    """What stops it is raised by the process that makes the clips, and comes out here."""
    state, whole = tmp_path / "state.pt", action.train(PLAN, MIXTURE)
    marks = tmp_path / "marks"

    def interrupted(rng, label):
        with open(str(marks), "a") as file:
            file.write("x")
        if marks.stat().st_size > 3 * PLAN.batch:
            raise InterruptedError("the lights went out")
        return motion.clip(rng, label)

    with pytest.raises(InterruptedError, match="the lights went out"):
        # The only other source, so that what is drawn stays the same.
        action.train(PLAN, Mixture([Source("generated", motion.LABELS, 1.0, interrupted)]), state, keep_every=2)
    assert torch.load(str(state), weights_only=True)["step"] == 2
    assert equal(action.train(PLAN, MIXTURE, state), whole)


def test_a_run_may_begin_with_the_weights_of_another(tmp_path):
    state = tmp_path / "state.pt"
    first = action.train(PLAN, MIXTURE, state)
    refined = action.train(action.Plan(seed=4, steps=1, batch=4, rate=1e-9), MIXTURE, start=state)
    assert torch.allclose(first.fc.weight, refined.fc.weight, atol=1e-6)


def test_the_published_size_is_trained_by_the_same_code():
    network = action.Network("full")
    assert [block.temporal.out_channels for block in network.blocks] == [64] * 4 + [128] * 3 + [256] * 3
    assert action.export(network.eval()).blocks[7].stride == 2


def test_a_batch_holds_all_labels_and_depends_on_seed_and_step_alone():
    count = 2 * len(motion.LABELS)
    people, owner, labels = action.batch(MIXTURE, 5, 7, count)
    assert np.array_equal(people, action.batch(MIXTURE, 5, 7, count)[0])
    assert not np.array_equal(people[:1], action.batch(MIXTURE, 5, 8, count)[0][:1])
    assert sorted(labels.tolist()) == sorted(list(range(len(motion.LABELS))) * 2)
    assert set(owner.tolist()) == set(range(count))
