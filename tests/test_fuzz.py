"""The fuzzers of every entry point find nothing: a few seconds each, three minutes where CI=true (or -m slow).

$EDGED_FUZZ_SECONDS sets the time of all together.
"""

import os
import subprocess
import sys

import pytest

from c import build

FUZZERS = ("fuzz_eval", "fuzz_package", "fuzz_agreement", "fuzz_link", "fuzz_key", "fuzz_grant", "fuzz_cbor")
FEW_SECONDS = 15
THREE_MINUTES = 180

# scripts/fuzz takes clang-14 where it is, else clang.
lacking = build.missing("make", "clang")
pytestmark = pytest.mark.skipif(bool(lacking), reason="needs {} with libFuzzer".format(lacking))


def fuzz(seconds, *arguments):
    command = [str(build.ROOT / "scripts/fuzz"), "--seconds", str(seconds)] + list(arguments)
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          env=dict(os.environ, PYTHON=sys.executable), timeout=600 + 2 * seconds)
    output = done.stdout.decode(errors="replace")
    assert done.returncode == 0, output
    return output


@pytest.mark.parametrize("name", FUZZERS)
def test_a_few_seconds_find_nothing(name):
    seconds = int(os.environ.get("EDGED_FUZZ_SECONDS", FEW_SECONDS))
    assert "nothing found" in fuzz(max(1, seconds // len(FUZZERS)), "--only", name)


@pytest.mark.slow
def test_three_minutes_find_nothing():
    output = fuzz(int(os.environ.get("EDGED_FUZZ_SECONDS", THREE_MINUTES)))
    assert [line.split(":")[0] for line in output.splitlines() if "nothing found" in line] == list(FUZZERS)
