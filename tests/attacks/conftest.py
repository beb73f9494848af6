"""Fixtures of the attacks."""

import pytest

from attacks.node import AttackNode


@pytest.fixture(scope="module")
def node():
    """Both applications, started once a module: what one test leaves behind must not harm the next."""
    with AttackNode() as running:
        yield running


@pytest.fixture
def fresh_node():
    with AttackNode() as running:
        yield running
