"""The README names only what exists, and its table is one that the benchmark printed."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
MODULES = {"edged": "edged.cli", "edgectl": "edged.edgectl", "edged-owner": "edged.owner", "edged-city": "edged.city"}


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(([^)#:]+)\)", README))))
def test_every_link_leads_to_a_file(target):
    assert (ROOT / target).is_file()


@pytest.mark.parametrize("folder", sorted(set(re.findall(r"`((?:trusty_ta|edged|scripts|tests)(?:/\w+)*)`", README))))
def test_every_path_is_there(folder):
    assert (ROOT / folder).exists()


@pytest.mark.parametrize("program, command", sorted(set(re.findall(
    r"\b(edged|edgectl|edged-owner|edged-city) ([a-z][a-z-]+)(?= --| FILE|`)", README))))
def test_every_command_is_one_of_the_program(program, command):
    done = subprocess.run([sys.executable, "-m", MODULES[program], command, "--help"], cwd=str(ROOT),
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert done.returncode == 0, done.stdout.decode()


@pytest.mark.parametrize("placement", ["masked", "inputs", "enclave"])
def test_the_table_of_the_benchmark_has_a_row_of_figures_for_each_placement(placement):
    rows = re.findall(r"^\| `{}` \|(.*)\|$".format(placement), README, re.M)
    assert rows
    for row in rows:
        assert all(re.search(r"\d", cell) for cell in row.split("|"))
