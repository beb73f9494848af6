"""The builds that nobody runs day by day: twice the same bytes, and with the other crypto library."""

import os
import re
from pathlib import Path

import numpy as np
import pytest

from attacks.networks import random_coordinates, small
from attacks.node import TRANSPORTS, AttackNode
from c import build
from edged.enclave.wire import Placement

PROGRAMS = ("edged-eval", "edged-key")
BORINGSSL = "android-libboringssl-dev"  # scripts/common.sh installs it where the distribution has it
BORINGSSL_HEADER = Path("/usr/include/android/openssl/base.h")

pytestmark = pytest.mark.skipif(bool(build.missing("make", "gcc")), reason="needs make and gcc")


def test_two_builds_in_two_folders_are_equal_byte_for_byte(tmp_path):
    output = build.make("reproducible", "trusty_ta", BUILD=str(tmp_path))
    sums = re.findall(r"^([0-9a-f]{64}) [ *](\S+)$", output, re.M)
    assert [name for _, name in sums] == list(PROGRAMS) * 2, output
    assert sums[:2] == sums[2:] and sums[0][0] != sums[1][0]
    assert output.endswith("reproducible: equal\n")


@pytest.fixture(scope="module")
def boringssl_build(tmp_path_factory):
    if not BORINGSSL_HEADER.is_file():
        pytest.skip("needs the package {}: no {}; the build with BoringSSL was NOT tested".format(
            BORINGSSL, BORINGSSL_HEADER))
    folder = tmp_path_factory.mktemp("boringssl")
    build.make("all", "trusty_ta", BUILD=str(folder), CRYPTO="boringssl")
    return folder


@pytest.fixture
def boringssl(boringssl_build, monkeypatch):
    """The applications that HostEnclave starts, found by the loader without help from outside."""
    monkeypatch.setenv("EDGED_BUILD", str(boringssl_build))
    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
    monkeypatch.delenv("LD_PRELOAD", raising=False)
    return boringssl_build


@pytest.mark.skipif(bool(build.missing("ldd")), reason="needs ldd")
def test_the_loader_finds_boringssl_and_no_other_crypto_library(boringssl):
    for name in PROGRAMS:
        found = re.findall(r"^\s*(libcrypto\S*) => (\S+)", build.run("ldd", boringssl / name), re.M)
        assert len(found) == 1, found
        path = Path(found[0][1])  # "not" of "not found" is no file
        assert path.parent.name == "android" and os.path.isfile(str(path)), found


@pytest.mark.parametrize("transport", list(TRANSPORTS))
@pytest.mark.parametrize("placement", list(Placement), ids=lambda placement: placement.name)
def test_with_boringssl_both_applications_evaluate_a_clip_exactly(boringssl, placement, transport):
    """Package, clip and record are sealed, signed and opened by Python's OpenSSL at the other end."""
    rng = np.random.default_rng(4)
    with AttackNode() as node:
        node.load(small(), placement, transport)
        camera = node.camera()
        for persons in (1, 2):
            node.evaluate(camera, random_coordinates(rng, small().shape, persons))
            if placement != Placement.ENCLAVE:
                node.evaluate(camera, random_coordinates(rng, small().shape, persons), node.prepare(persons))
