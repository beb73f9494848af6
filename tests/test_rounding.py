"""Rounding against real inputs: less wrong than each weight for itself where inputs go together, and never far off."""

import numpy as np
import pytest

from edged.model import rounding
from edged.model.rounding import DRIFT, rounded


def inputs(rng, count, wide, ranks):
    """That go together: of ``ranks`` sources."""
    return rng.normal(size=(count, ranks)) @ rng.normal(size=(ranks, wide)) + 0.1 * rng.normal(size=(count, wide))


def wrong(weights, made, x):
    return float(np.sqrt((((weights - made) @ x.T) ** 2).mean()))


@pytest.mark.parametrize("wide", [5, 40, 300])
def test_what_weights_make_of_inputs_that_go_together_changes_less(wide):
    rng = np.random.default_rng(wide)
    x = inputs(rng, 4000, wide, max(1, wide // 5))
    weights = rng.normal(0, 20, (30, wide))
    made = rounded(weights, x[:2000].T @ x[:2000] / 2000)
    assert (made == np.rint(made)).all()
    # On inputs that it did not see.
    assert wrong(weights, made, x[2000:]) < 0.7 * wrong(weights, np.rint(weights), x[2000:])


def test_no_weight_ends_up_further_away_than_its_row_has_room_for():
    rng = np.random.default_rng(1)
    x = inputs(rng, 500, 200, 3)
    weights = rng.normal(0, 3, (50, 200))
    made = rounded(weights, x.T @ x)
    assert np.abs(made - np.rint(weights)).max() == DRIFT


def test_inputs_that_do_not_go_together_are_rounded_each_for_itself():
    rng = np.random.default_rng(2)
    weights = rng.normal(0, 20, (10, 30))
    assert np.array_equal(rounded(weights, np.diag(rng.uniform(1, 2, 30))), np.rint(weights))


@pytest.mark.parametrize("moment", [
    np.zeros((6, 6)), np.diag([1.0, 0, 0, 0, 0, 0]), np.ones((6, 6)), 1e-12 * np.ones((6, 6)), 1e12 * np.eye(6)])
def test_inputs_that_are_always_nothing_or_all_alike_do_no_harm(moment):
    weights = np.random.default_rng(3).normal(0, 20, (4, 6))
    made = rounded(weights, moment)
    assert np.isfinite(made).all() and np.abs(made - weights).max() <= DRIFT + 0.5


def test_panels_change_nothing(monkeypatch):
    rng = np.random.default_rng(4)
    x = inputs(rng, 300, 100, 9)
    weights, moment = rng.normal(0, 9, (20, 100)), x.T @ x
    whole = rounded(weights, moment)
    monkeypatch.setattr(rounding, "_PANEL", 7)
    assert (rounded(weights, moment) != whole).mean() < 0.01  # but for ties
