"""Builds the C tests; one build at a time in a checkout that several may share."""

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Sequence

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDER = ROOT / "build" / "tests"
TIMEOUT_S = 600


def missing(*tools: str) -> Sequence[str]:
    """Those of the tools that are not here, for a skip that names them."""
    return [tool for tool in tools if shutil.which(tool) is None]


def make(target: str, directory: str = "tests/c", **variables: str) -> str:
    """Run make for one target; its output. Fails the test where make fails."""
    os.makedirs(str(FOLDER), exist_ok=True)
    settings = dict({"BUILD": str(FOLDER)}, **variables)
    command = ["make", "-s", "-j2", "-C", str(ROOT / directory), target]
    command += ["{}={}".format(name, value) for name, value in settings.items()]
    with open(str(FOLDER / ".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=TIMEOUT_S)
    output = done.stdout.decode()
    assert done.returncode == 0, output
    return output


def vectors(path: Path, *arguments: str) -> Path:
    """Write the vector file (tests/c/vectors.py)."""
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join([str(ROOT), str(ROOT / "tests")]))
    command = [sys.executable, str(ROOT / "tests/c/vectors.py"), str(path)] + list(arguments)
    subprocess.run(command, check=True, env=environment, timeout=TIMEOUT_S)
    return path


def run(*command: str, status: int = 0) -> str:
    """Run a program to its end; its output. Fails the test where it ends otherwise."""
    done = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=TIMEOUT_S)
    output = done.stdout.decode(errors="replace")
    assert done.returncode == status, "{} ended with {}:\n{}".format(command[0], done.returncode, output)
    return output
