"""Fixtures of the whole suite."""

import os
import tempfile

# Before numpy is imported: on a busy machine OpenBLAS's threads spin against each other, ten times slower.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import pytest  # noqa: E402

from edged.enclave.host import HostEnclave  # noqa: E402


@pytest.fixture
def enclave():
    """Both applications of the host port, started afresh from build/host or $EDGED_BUILD.

    Not in tmp_path: the path of a Unix socket has no room for a long test name.
    """
    with tempfile.TemporaryDirectory(prefix="edged-") as folder:
        with HostEnclave(folder) as running:
            yield running
