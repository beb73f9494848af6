"""The set-up of scripts/common.sh where it must not, or cannot, do its work."""

import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parent.parent / "scripts"

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")


@pytest.fixture
def machine(tmp_path):
    """A folder of commands, which are all that a script finds; add(name, text) adds one."""

    def add(name, text):
        (tmp_path / name).write_text("#!{}\n{}\n".format(shutil.which("bash"), text))
        (tmp_path / name).chmod(0o755)

    for name in ("dirname", "basename"):
        (tmp_path / name).symlink_to(shutil.which(name))
    add("id", "echo 1000")
    add("dpkg-query", "[ \"$4\" != valgrind ] && printf installed")
    add("apt-cache", "exit 1")
    add.folder = tmp_path
    return add


def set_up(machine):
    return subprocess.run([shutil.which("bash"), "-c", "set -euo pipefail; . scripts/common.sh; apt_setup", "test"],
                          cwd=str(SCRIPTS.parent), env={"PATH": str(machine.folder)}, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, universal_newlines=True)


def test_without_root_and_sudo_one_line_names_what_is_missing(machine):
    done = set_up(machine)
    assert done.returncode == 1
    assert done.stderr == "test: neither root nor sudo here: have these packages installed first: valgrind\n"


def test_with_sudo_what_is_missing_is_installed(machine):
    machine("sudo", "echo \"$*\"")
    done = set_up(machine)
    assert done.returncode == 0
    assert done.stdout.endswith("install -y -qq --no-install-recommends valgrind\n")


def test_the_lock_of_the_set_up_lies_in_the_checkout():
    text = (SCRIPTS / "test").read_text(encoding="ascii")
    assert "exec 9>build/" in text
    assert "TMPDIR" not in text and "/tmp" not in text


def test_without_a_gpu_its_check_is_one_line_and_exit_69():
    if b"libcuda.so.1" in subprocess.run(["/sbin/ldconfig", "-p"], stdout=subprocess.PIPE).stdout:
        pytest.skip("a GPU's driver is here: scripts/check-gpu is for that")
    done = subprocess.run([str(SCRIPTS / "check-gpu")], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          universal_newlines=True)
    assert (done.returncode, done.stdout, done.stderr) == (
        69, "", "== no libcuda.so.1 here: no NVIDIA driver, so nothing to check\n")
