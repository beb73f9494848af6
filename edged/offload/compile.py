"""``scripts/build-kernels``: kernels.cu to a cubin for each architecture, by NVRTC through ctypes or by nvcc.

No GPU and no driver is needed. A kernel that spills registers to memory is refused: it would be slow without a word.
"""

import argparse
import ctypes
import glob
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Tuple, Union

from edged import artifacts, command
from edged.errors import AcceleratorError, MissingInput
from edged.offload import cubins

log = logging.getLogger(__name__)

_LIBRARY = "libnvrtc.so.*"
_BUILTINS = "libnvrtc-builtins.so.*"
_FUNCTION = re.compile(r"Compiling entry function '(\w+)'")
_SPILLS = re.compile(r"(\d+) bytes spill stores, (\d+) bytes spill loads")


class Resources(NamedTuple):
    """Of one kernel: registers of a thread, shared memory of a block, bytes spilled by a thread."""

    registers: int
    shared: int
    spilled: int


def resources(log: str) -> Dict[str, Resources]:
    """What ptxas says (-v), by kernel. Raises AcceleratorError where it says nothing of one."""
    found: Dict[str, Resources] = {}
    name, spilled = "", 0
    for line in log.splitlines():
        function, spills = _FUNCTION.search(line), _SPILLS.search(line)
        if function:
            name, spilled = function.group(1), 0
        elif spills:
            spilled = int(spills.group(1)) + int(spills.group(2))
        elif name and "registers" in line:
            registers = re.search(r"Used (\d+) registers", line)
            shared = re.search(r"(\d+) bytes smem", line)
            assert registers is not None
            found[name] = Resources(int(registers.group(1)), int(shared.group(1)) if shared else 0, spilled)
    if set(found) != set(cubins.KERNELS):
        raise AcceleratorError("the compiler tells of kernels {}, not of {}".format(
            ", ".join(sorted(found)) or "none", ", ".join(cubins.KERNELS)))
    return found


class Nvrtc:
    """One of NVIDIA's run-time compilers, by its library."""

    def __init__(self, library: Path) -> None:
        try:
            for builtins in glob.glob(str(library.parent / _BUILTINS)):  # it looks for them by name alone
                ctypes.CDLL(builtins, ctypes.RTLD_GLOBAL)
            self._library = ctypes.CDLL(str(library))
        except OSError as error:
            raise AcceleratorError("{}: {}".format(library, error)) from error
        major, minor = ctypes.c_int(), ctypes.c_int()
        self._do("nvrtcVersion", ctypes.byref(major), ctypes.byref(minor))
        self.name = "nvrtc {}.{}".format(major.value, minor.value)

    def _do(self, function: str, *arguments: object) -> None:
        code = getattr(self._library, function)(*arguments)
        if code:
            text = self._library.nvrtcGetErrorString
            text.restype = ctypes.c_char_p
            raise AcceleratorError("{}: {}".format(function, text(code).decode("ascii", "replace")))

    def _text(self, program: ctypes.c_void_p, what: str) -> bytes:
        size = ctypes.c_size_t()
        self._do("nvrtcGet{}Size".format(what), program, ctypes.byref(size))
        found = ctypes.create_string_buffer(size.value)
        self._do("nvrtcGet" + what, program, found)
        return found.raw

    def compile(self, source: bytes, arch: str) -> Tuple[bytes, str]:
        """The cubin and ptxas' log. Raises AcceleratorError with the first error of the source."""
        program = ctypes.c_void_p()
        self._do("nvrtcCreateProgram", ctypes.byref(program), source, b"kernels.cu", 0, None, None)
        try:
            given = [option.encode() for option in ("--gpu-architecture=" + arch, "--std=c++14", "--ptxas-options=-v")]
            try:
                self._do("nvrtcCompileProgram", program, len(given), (ctypes.c_char_p * len(given))(*given))
            except AcceleratorError as error:
                log = self._text(program, "ProgramLog").decode("utf-8", "replace")
                raise AcceleratorError("{} for {}: {}".format(self.name, arch, _first_error(log) or error)) from error
            return self._text(program, "CUBIN"), self._text(program, "ProgramLog").decode("utf-8", "replace")
        finally:
            self._library.nvrtcDestroyProgram(ctypes.byref(program))


# Where JetPack installs it, whose services do not have it on their PATH.
NVCC = "/usr/local/cuda/bin/nvcc"


class Nvcc:
    """The compiler of an installed CUDA: on an L4T R32 the only one."""

    def __init__(self) -> None:
        self._program = program = shutil.which("nvcc") or NVCC
        try:
            said = subprocess.run([program, "--version"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise AcceleratorError("{}: no CUDA compiler: {}".format(program, error)) from error
        found = re.search(rb"release ([\d.]+)", said.stdout)
        self.name = "nvcc {}".format(found.group(1).decode() if found else "of unknown version")

    def compile(self, source: bytes, arch: str) -> Tuple[bytes, str]:
        with tempfile.TemporaryDirectory() as folder:
            path, cubin = os.path.join(folder, "kernels.cu"), os.path.join(folder, "kernels.cubin")
            with open(path, "wb") as file:
                file.write(source)
            given = ["-cubin", "-arch=" + arch, "-std=c++14", "-Xptxas", "-v", "-o", cubin, path]
            done = subprocess.run([self._program] + given, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            log = done.stdout.decode("utf-8", "replace")
            if done.returncode:
                raise AcceleratorError("{} for {}: {}".format(self.name, arch, _first_error(log) or "failed"))
            with open(cubin, "rb") as file:
                return file.read(), log


def _first_error(log: str) -> str:
    return next((line.strip() for line in log.splitlines() if "error" in line.lower()), "")


def build(folder: Path, arch: str, compiler: Union[Nvrtc, Nvcc]) -> Dict[str, Resources]:
    """Compile for one architecture into ``folder``. Raises AcceleratorError; then nothing was written."""
    cubin, log = compiler.compile(cubins.SOURCE.read_bytes(), arch)
    found = resources(log)
    spilling = [name for name, used in found.items() if used.spilled]
    if spilling:
        raise AcceleratorError("{} for {}: kernel {} spills {} bytes".format(
            compiler.name, arch, spilling[0], found[spilling[0]].spilled))
    cubins.write(folder, arch, cubin, compiler.name, {name: used._asdict() for name, used in found.items()})
    return found


def built_here(folder: Path, capability: int) -> bytes:
    """The kernels for a device, by the CUDA that is installed on it; kept in ``folder`` where that can be written.

    Raises AcceleratorError where there is none, or it cannot compile them.
    """
    compiler, arch = Nvcc(), "sm_{}".format(capability)
    cubin, text = compiler.compile(cubins.SOURCE.read_bytes(), arch)
    found = resources(text)
    spilling = sorted(name for name, used in found.items() if used.spilled)
    log.log(logging.WARNING if spilling else logging.INFO, "kernels for %s compiled by %s%s: %s", arch, compiler.name,
            ", slower than they should be, for they spill: " + ", ".join(spilling) if spilling else "", found)
    try:
        cubins.write(folder, arch, cubin, compiler.name, {name: used._asdict() for name, used in found.items()})
    except OSError as error:
        log.info("%s: %s: they are compiled again next time", folder, error.strerror)
    return cubin


def library(folder: str) -> Path:
    """The NVRTC below a folder into which pip installed it. Raises MissingInput."""
    found = sorted(path for path in Path(folder).rglob(_LIBRARY) if ".alt." not in path.name)
    if not found:
        raise MissingInput("{}: no libnvrtc there".format(folder))
    return found[0]


def _job(text: str) -> Tuple[str, str]:
    arch, _, where = text.partition("=")
    if arch not in cubins.ARCHITECTURES or not where:
        raise argparse.ArgumentTypeError("{!r}: ARCH=FOLDER or ARCH=nvcc; ARCH is one of {}".format(
            text, ", ".join(cubins.ARCHITECTURES)))
    return arch, where


def run(given: argparse.Namespace) -> None:
    folder = given.out or artifacts.build_folder() / "cuda"
    print("{:<8} {:<12} {:<8} {:>9} {:>7} {:>7}".format("arch", "compiler", "kernel", "registers", "shared", "spilled"))
    for arch, where in given.jobs:
        compiler = Nvcc() if where == "nvcc" else Nvrtc(library(where))
        for name, used in build(folder, arch, compiler).items():
            print("{:<8} {:<12} {:<8} {:>9} {:>7} {:>7}".format(arch, compiler.name, name, *used))


def main(arguments: Optional[List[str]] = None) -> int:
    parser = command.parser("build-kernels", __doc__)
    parser.add_argument("jobs", nargs="+", type=_job, metavar="ARCH=FOLDER|ARCH=nvcc",
                        help="what to compile for, and the folder with NVRTC below it")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="default: the build folder's cuda")
    parser.set_defaults(run=run)
    return command.run(parser, arguments)


if __name__ == "__main__":
    sys.exit(main())
