"""The benchmark against homomorphic encryption: its products are right, and its text says what was measured."""

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
    done = subprocess.run([str(ROOT / "scripts" / "bench-homomorphic"), "--rows", "1", "--clips", "1"],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 3 and "1 of the 64 rows" in lines[0]
    assert "weights in clear" in lines[1] and "weights encrypted" in lines[2] and "times less" in lines[2]
