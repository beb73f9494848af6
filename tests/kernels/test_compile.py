"""Compiling the kernels: for every architecture, without spills; what cannot be compiled is one line."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from edged.errors import AcceleratorError, MissingInput
from edged.offload import compile as compiling
from edged.offload import cubins

ROOT = Path(__file__).resolve().parents[2]
LOG = """ptxas info    : Compiling entry function 'tensor' for 'sm_87'
ptxas info    : Function properties for tensor
ptxas         .     0 bytes stack frame, {} bytes spill stores, {} bytes spill loads
ptxas info    : Used 195 registers, used 1 barriers, 24576 bytes smem, 420 bytes cmem[0]
ptxas info    : Compiling entry function 'deep' for 'sm_87'
ptxas         .     0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 206 registers, 24576 bytes smem
ptxas info    : Compiling entry function 'dots' for 'sm_87'
ptxas         .     0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 123 registers, 16384 bytes smem
ptxas info    : Compiling entry function 'direct' for 'sm_87'
ptxas         .     0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 128 registers, 12288 bytes smem, 420 bytes cmem[0]
"""


class Compiler:
    name = "none 1.0"

    def __init__(self, log):
        self.log = log

    def compile(self, source, arch):
        assert source == cubins.SOURCE.read_bytes()
        return b"cubin of " + arch.encode(), self.log


def test_what_a_kernel_uses_is_read_from_the_log():
    found = compiling.resources(LOG.format(8, 4))
    assert found == {"deep": (206, 24576, 0), "tensor": (195, 24576, 12), "dots": (123, 16384, 0),
                     "direct": (128, 12288, 0)}
    right = LOG.format(0, 0)
    for log in ("", right.replace("'dots'", "'dot'"), right + right.replace("dots", "more")):
        with pytest.raises(AcceleratorError, match="the compiler tells of kernels"):
            compiling.resources(log)


def test_what_is_built_can_be_read(tmp_path):
    compiling.build(tmp_path / "cuda", "sm_87", Compiler(LOG.format(0, 0)))
    assert cubins.read(tmp_path / "cuda", 87) == b"cubin of sm_87"


def test_a_kernel_that_spills_is_refused_and_not_written(tmp_path):
    with pytest.raises(AcceleratorError, match="none 1.0 for sm_87: kernel tensor spills 24 bytes"):
        compiling.build(tmp_path / "cuda", "sm_87", Compiler(LOG.format(16, 8)))
    assert not (tmp_path / "cuda").exists()


def nvcc(tmp_path, monkeypatch, body):
    program = tmp_path / "nvcc"
    program.write_text("#!/bin/sh\n" + body)
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", "{}:{}".format(tmp_path, os.environ["PATH"]))


def test_nvcc_is_asked_for_a_cubin(tmp_path, monkeypatch):
    nvcc(tmp_path, monkeypatch, """if [ "$1" = --version ]; then
    echo "Cuda compilation tools, release 10.2, V10.2.300"
    exit
fi
while [ $# -gt 0 ]; do if [ "$1" = -o ]; then printf made > "$2"; fi; shift; done
cat <<'END'
{}END
""".format(LOG.format(0, 0)))
    compiler = compiling.Nvcc()
    assert compiler.name == "nvcc 10.2"
    compiling.build(tmp_path / "cuda", "sm_72", compiler)
    assert cubins.read(tmp_path / "cuda", 72) == b"made"


def test_nvccs_first_error_is_the_line(tmp_path, monkeypatch):
    nvcc(tmp_path, monkeypatch, '[ "$1" = --version ] || { echo "kernels.cu(3): error: no"; echo more; exit 2; }\n')
    with pytest.raises(AcceleratorError, match=r"nvcc of unknown version for sm_72: kernels.cu\(3\): error: no$"):
        compiling.Nvcc().compile(b"", "sm_72")


def test_no_nvcc_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(compiling, "NVCC", str(tmp_path / "cuda" / "nvcc"))
    with pytest.raises(AcceleratorError, match="nvcc: no CUDA compiler"):
        compiling.Nvcc()


def test_nvcc_is_found_where_jetpack_puts_it(tmp_path, monkeypatch):
    nvcc(tmp_path, monkeypatch, 'echo "release 10.2"\n')
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(compiling, "NVCC", str(tmp_path / "nvcc"))
    assert compiling.Nvcc().name == "nvcc 10.2"


def test_no_nvrtc_and_a_library_that_is_none_are_one_line(tmp_path):
    with pytest.raises(MissingInput, match="no libnvrtc there"):
        compiling.library(str(tmp_path))
    (tmp_path / "libnvrtc.so.12").write_bytes(b"text")
    with pytest.raises(AcceleratorError, match="libnvrtc.so.12"):
        compiling.Nvrtc(compiling.library(str(tmp_path)))


@pytest.mark.parametrize("job", ["sm_87", "sm_99=nvcc", "=nvcc", "sm_87="])
def test_a_job_that_is_none_is_a_usage_error(job, capsys):
    with pytest.raises(SystemExit) as ended:
        compiling.main([job])
    assert ended.value.code == 2 and "ARCH=FOLDER or ARCH=nvcc" in capsys.readouterr().err


@pytest.mark.slow
def test_every_architecture_is_compiled_without_spills(tmp_path):
    """By the compilers that PyPI has: of a source with an error the first line of it, of this one four files."""
    done = subprocess.run([str(ROOT / "scripts" / "build-kernels")], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          universal_newlines=True)
    assert done.returncode == 0, done.stderr
    rows = [row.split() for row in done.stdout.splitlines()[1:]]
    assert {(row[0], row[-4]) for row in rows} == {
        (arch, name) for arch in cubins.ARCHITECTURES for name in cubins.KERNELS}
    assert all(int(row[-1]) == 0 and int(row[-3]) <= 255 and int(row[-2]) <= 48 << 10 for row in rows)
    for capability in (72, 87, 90, 110):
        assert cubins.read(ROOT / "build" / "host" / "cuda", capability)[:4] == b"\x7fELF"
    compiler = compiling.Nvrtc(compiling.library(str(ROOT / "build" / "nvrtc" / "nvidia-cuda-nvrtc-cu12-12.9.86")))
    with pytest.raises(AcceleratorError, match="nvrtc 12.9 for sm_90: .*error"):
        compiler.compile(b"extern \"C\" __global__ void f() { wrong }", "sm_90")


def test_the_module_runs_without_a_gpu():
    done = subprocess.run([sys.executable, "-m", "edged.offload.compile", "--help"], stdout=subprocess.PIPE,
                          cwd=str(ROOT))
    assert done.returncode == 0 and b"ARCH=nvcc" in done.stdout
