"""Training in PyTorch gives the network that edged computes. Needs torch, which nothing else does: skipped without."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch: pip install edged[owner]")

from edged.camera import motion  # noqa: E402
from edged.model import bundled, stgcn, train  # noqa: E402

PLAN = train.Plan(seed=3, steps=4, batch=4, rate=1e-3)


def clips_of(people, owner, count):
    clips = np.zeros((count, train.PERSONS) + tuple(people.shape[1:]))
    taken = [0] * count
    for person, clip in zip(people.numpy(), owner.tolist()):
        clips[clip, taken[clip]] = person
        taken[clip] += 1
    return clips


def equal(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values()))


def test_the_exported_network_is_the_trained_function():
    network = train.train(PLAN)
    people, owner, labels = train.batch(9, 0, 4)
    with torch.no_grad():
        theirs = network(people, owner, len(labels)).numpy()
    ours = stgcn.forward(train.export(network), clips_of(people, owner, len(labels)))
    assert np.abs(ours - theirs).max() < 1e-4


def test_written_and_loaded_it_is_still_the_same(tmp_path):
    network = train.export(train.train(PLAN))
    digest = bundled.write_network(network, tmp_path)
    (tmp_path / bundled.CARD).write_text("sha256: {}\n".format(digest), "utf-8")
    clips = clips_of(*train.batch(9, 0, 4)[:2], 4)
    assert np.abs(stgcn.forward(bundled.load(tmp_path), clips) - stgcn.forward(network, clips)).max() < 1e-5


def test_an_interrupted_run_goes_on_to_the_same_weights(tmp_path, monkeypatch):
    state, whole = tmp_path / "state.pt", train.train(PLAN)

    def interrupted(seed, step, size, batch=train.batch):
        if step == 3:
            raise KeyboardInterrupt
        return batch(seed, step, size)

    with monkeypatch.context() as patch:
        patch.setattr(train, "batch", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train.train(PLAN, state, keep_every=2)
    assert torch.load(state, weights_only=True)["step"] == 2
    assert equal(train.train(PLAN, state), whole)


def test_a_batch_holds_all_labels_and_depends_on_seed_and_step_alone():
    people, owner, labels = train.batch(5, 7, 8)
    again, _, _ = train.batch(5, 7, 8)
    assert torch.equal(people, again) and not torch.equal(people[:1], train.batch(5, 8, 8)[0][:1])
    assert sorted(labels.tolist()) == sorted(list(range(len(motion.LABELS))) * 2)
    assert set(owner.tolist()) == set(range(8))
