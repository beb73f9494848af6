"""The compiled kernels: one file for each architecture, and what it was made of.

``kernels.sm_87.cubin`` lies beside ``kernels.sm_87.json``: {"arch", "source", "cubin", "compiler", "kernels"}, source
and cubin being SHA-256, and of each kernel its registers, shared memory and spills. What was made of another source
than the one beside this file is refused: it would compute something else.
"""

import hashlib
import json
from pathlib import Path
from typing import Dict, List, NamedTuple

from edged.errors import AcceleratorError
from edged.placing import replace_file

PUBLIC = 0o644  # whoever runs a bridge reads them
SOURCE = Path(__file__).with_name("kernels.cu")
# Xavier, Orin, Hopper, Thor.
ARCHITECTURES = ("sm_72", "sm_87", "sm_90", "sm_110")


class Kernel(NamedTuple):
    """threads : of a block      pixels, rows : that it computes      since : the least compute capability"""

    threads: int
    pixels: int
    rows: int
    since: int = 0


# As in kernels.cu; tests compare.
KERNELS = {"direct": Kernel(128, 128, 64), "dots": Kernel(256, 64, 64), "tensor": Kernel(256, 128, 64),
           "deep": Kernel(256, 128, 64, 80)}
# Of taps * channels: beyond, a sum of products of bytes might not fit 31 bits.
SUM_MAX = ((1 << 31) - 1) // (4 * 255 * 255)


def source_digest() -> str:
    return hashlib.sha256(SOURCE.read_bytes()).hexdigest()


def write(folder: Path, arch: str, cubin: bytes, compiler: str, uses: Dict[str, Dict[str, int]]) -> Path:
    """Keep a compiled file, what it was made of, and what each kernel uses."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "kernels.{}.cubin".format(arch)
    made_of = json.dumps({"arch": arch, "source": source_digest(), "cubin": hashlib.sha256(cubin).hexdigest(),
                          "compiler": compiler, "kernels": uses}, indent=2) + "\n"
    for place, content in ((path, cubin), (path.with_suffix(".json"), made_of.encode("utf-8"))):
        replace_file(place, content, PUBLIC)
    return path


def read(folder: Path, capability: int) -> bytes:
    """The file for a device of this compute capability (87 is 8.7). Raises AcceleratorError, saying what to do.

    A Jetson's and a desktop's do not run on each other, so each is for its own number alone.
    """
    arch = "sm_{}".format(capability)
    path = folder / "kernels.{}.cubin".format(arch)
    if arch not in ARCHITECTURES and not path.exists():  # it may have been built on the spot
        raise AcceleratorError("no kernels are built for compute capability {}.{}: only for {}".format(
            capability // 10, capability % 10, ", ".join(ARCHITECTURES)))
    try:
        cubin = path.read_bytes()
        made_of = json.loads(path.with_suffix(".json").read_text("utf-8"))
        source, digest = str(made_of["source"]), str(made_of["cubin"])
    except FileNotFoundError as error:
        raise AcceleratorError("{}: is not there: run scripts/build-kernels".format(error.filename)) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AcceleratorError("{}: damaged: run scripts/build-kernels again".format(path)) from error
    if digest != hashlib.sha256(cubin).hexdigest():
        raise AcceleratorError("{}: damaged: run scripts/build-kernels again".format(path))
    if source != source_digest():
        raise AcceleratorError("{}: made of another source: run scripts/build-kernels again".format(path))
    return cubin


def able(taps: int, channels: int, capability: int) -> List[str]:
    """The kernels that a device of this capability has, and that are exact for a product of this depth."""
    return [name for name, kernel in KERNELS.items()
            if capability >= kernel.since and (name == "direct" or taps * channels <= SUM_MAX)]
