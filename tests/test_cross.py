"""The same sources on ARM: they compile without a warning for both kinds of Trusty, and their core gives the same
bits under qemu as on this machine. No crypto library is at hand there: the masks come from the vector file.
"""

import pytest

from c import build, vectors

COMPILERS = ("aarch64-linux-gnu-gcc", "arm-linux-gnueabi-gcc")
MACHINES = {"aarch64": ("qemu-aarch64", COMPILERS[0]), "arm": ("qemu-arm", COMPILERS[1])}

lacking = build.missing("make", "cc", *COMPILERS)
pytestmark = pytest.mark.skipif(bool(lacking), reason="needs {} (scripts/common.sh lists the packages)".format(lacking))


@pytest.fixture(scope="module")
def vector_file(tmp_path_factory):
    return build.vectors(tmp_path_factory.mktemp("vectors") / "vectors")


@pytest.fixture(scope="module")
def native_dump(vector_file, tmp_path_factory):
    build.make("native")
    path = tmp_path_factory.mktemp("dump") / "native"
    build.run(build.FOLDER / "native" / "network_test", vector_file, path, *vectors.NAMES)
    portable = {name: data for name, data in vectors.read(path).items() if name.startswith("kernel_portable/")}
    assert portable
    return portable


def test_every_application_source_compiles_for_both_trusty_ports_without_a_warning():
    output = build.make("cross-check", "trusty_ta", BUILD=str(build.FOLDER / "cross-check"))
    assert "warning" not in output, output


@pytest.mark.parametrize("machine", MACHINES)
def test_the_core_gives_the_same_bits(machine, native_dump, vector_file, tmp_path):
    emulator, compiler = MACHINES[machine]
    if build.missing(emulator, compiler):
        pytest.skip("needs {}".format(build.missing(emulator, compiler)))
    build.make("cross")
    programs = build.FOLDER / machine
    assert build.run(emulator, programs / "core_test", vector_file).split() == ["kernel_portable"]
    build.run(emulator, programs / "network_test", vector_file, tmp_path / "dump", *vectors.NAMES)
    dump = vectors.read(tmp_path / "dump")
    assert set(dump) == set(native_dump)
    wrong = [name for name in native_dump if dump[name] != native_dump[name]]
    assert not wrong, "{} of {} differ".format(len(wrong), len(dump))
