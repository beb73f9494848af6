"""Fixtures of the whole suite."""

import tempfile

import pytest

from edged.enclave.host import HostEnclave


@pytest.fixture
def enclave():
    """Both applications of the host port, started afresh from build/host or $EDGED_BUILD.

    Not in tmp_path: the path of a Unix socket has no room for a long test name.
    """
    with tempfile.TemporaryDirectory(prefix="edged-") as folder:
        with HostEnclave(folder) as running:
            yield running
