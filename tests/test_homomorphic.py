"""The benchmark against homomorphic encryption: its products are right, and its text says what was measured."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from edged import homomorphic
from edged.errors import AcceleratorError

ROOT = Path(__file__).resolve().parents[1]


def test_residues_join_to_the_signed_number():
    wanted = np.array([0, 1, -1, 1 << 31, -(1 << 31), (1 << 34) + 12345, -(1 << 34) - 999])
    assert np.array_equal(homomorphic._joined([wanted % modulus for modulus in homomorphic.MODULI]), wanted)
    one, other = homomorphic.MODULI
    assert homomorphic.DEPTH << homomorphic.WEIGHT_BITS + homomorphic.INPUT_BITS - 2 < one * other // 2
    assert all(modulus % (2 * homomorphic.SLOTS) == 1 for modulus in homomorphic.MODULI)


def test_without_the_library_it_is_one_line(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tenseal", None)
    with pytest.raises(AcceleratorError, match="no TenSEAL here: scripts/bench-homomorphic installs it"):
        homomorphic.homomorphic(1, lambda: None)


@pytest.mark.slow
def test_the_benchmark_runs_and_every_product_is_right():
    """And dearer than masked. Times, but no limit in seconds: both are of one run, in turns, and the script's factor is
    hundreds and thousands, so what else the machine does cannot turn it round.
    """
    done = subprocess.run([str(ROOT / "scripts" / "bench-homomorphic"), "--rows", "1", "--clips", "3", "--json"],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["ratio"]["weights encrypted"] > found["ratio"]["weights in clear"] > 1
    for name in found["ratio"]:
        layer_s = found["homomorphic"][name]["product_s"] * homomorphic.ROWS
        ours_s = found["edged_s"][{"weights in clear": "inputs", "weights encrypted": "masked"}[name]]
        assert found["layer_s"][name] == pytest.approx(layer_s)
        assert found["ratio"][name] == pytest.approx(layer_s / ours_s)
    lines = homomorphic.as_text(found).splitlines()
    assert len(lines) == 3 and "1 of the 64 rows" in lines[0]
    for line, name in zip(lines[1:], ("weights in clear", "weights encrypted")):
        assert name in line and line.endswith("{:.0f} times less".format(found["ratio"][name]))
