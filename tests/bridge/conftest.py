"""A bridge against the real enclave, its seconds shortened."""

import pytest

from bridge_node import BridgeNode, Saying
from edged.offload import backoff, daemon, statements


@pytest.fixture(autouse=True)
def hurried(monkeypatch):
    """What is seconds in the field."""
    monkeypatch.setattr(backoff, "FIRST_S", 0.01)
    monkeypatch.setattr(backoff, "LAST_S", 0.1)
    monkeypatch.setattr(daemon, "POLL_S", 0.02)
    monkeypatch.setattr(daemon, "PING_S", 0.05)
    monkeypatch.setattr(statements, "CLAIM_S", 0.05)
    monkeypatch.setattr(statements, "EVICT_S", 0.05)


@pytest.fixture
def node():
    with BridgeNode() as running:
        yield running.bridge()


@pytest.fixture
def gate(node):
    with Saying(node) as camera:
        yield camera


@pytest.fixture(autouse=True)
def logged(caplog):
    caplog.set_level("INFO", "edged")
    return caplog
