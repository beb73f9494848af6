"""Where training clips come from: by weight among those that have the label, the generator where nothing else has."""

import argparse
from collections import Counter

import numpy as np
import pytest

pytest.importorskip("mujoco", reason="the physics engine comes with the owner extra: scripts/test --slow installs it")

from edged.camera import motion  # noqa: E402
from edged.errors import MissingInput  # noqa: E402
from edged.train import mixture  # noqa: E402
from edged.train.mixture import Mixture, Source  # noqa: E402


def named(name, labels, weight):
    """A source whose clips hold its name's length everywhere."""
    return Source(name, labels, weight, lambda rng, label: np.full((1, 300, 18, 3), float(len(name))))


def test_sources_are_drawn_by_weight_among_those_that_have_the_label():
    parts = Mixture([named("a", ("falling", "lying"), 1.0), named("bb", ("falling",), 3.0),
                     named("ccc", ("lying",), 0.0)])
    rng = np.random.default_rng(1)
    drawn = Counter(int(parts.clip(rng, "falling")[0, 0, 0, 0]) for _ in range(400))
    assert set(drawn) == {1, 2} and 250 < drawn[2] < 350
    assert {int(parts.clip(rng, "lying")[0, 0, 0, 0]) for _ in range(50)} == {1}


def test_what_no_picture_shows_is_taken_from_the_generator():
    """Far behind the camera all the time."""
    def act(rng, label, view, frames):
        return motion.Performance([np.full((60, 18, 3), -1000.0)], (0, 60))

    source = mixture.performed("nowhere", ("walking",), 1.0, act)
    assert source.clip(np.random.default_rng(2), "walking").shape[1:] == (300, 18, 3)


def test_without_files_there_is_the_generator_alone(tmp_path):
    parser = argparse.ArgumentParser()
    mixture.add_sources(parser)
    assert [part.name for part in mixture.sources(parser.parse_args([])).parts] == ["generated"]
    for option in ("--corpus", "--falls"):
        with pytest.raises(MissingInput):
            mixture.sources(parser.parse_args([option, str(tmp_path / "none.npz")]))
