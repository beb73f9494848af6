"""edged_wire.h is compiled, and everything in it is compared with edged/enclave/wire.py.

The header itself is read for what there is to compare, so that nothing can be forgotten.
"""

import re
import shutil
import subprocess
from dataclasses import fields
from pathlib import Path

import pytest

from edged.enclave import wire
from edged.errors import EnclaveError

HEADER = Path(__file__).resolve().parent.parent / "trusty_ta" / "include" / "edged_wire.h"

# C enum -> its mirror, and the prefixes that Python drops (the longest first).
ENUMS = {
    "edged_status": (wire.Status, ("EDGED_ERR_", "EDGED_")),
    "eval_cmd": (wire.EvalCommand, ("EVAL_",)),
    "eval_placement": (wire.Placement, ("EVAL_",)),
    "edged_record_kind": (wire.RecordKind, ("EDGED_",)),
    "edged_message_status": (wire.MessageStatus, ("EDGED_",)),
    "edged_message_type": (wire.MessageType, ("EDGED_MESSAGE_",)),
    "key_cmd": (wire.KeyCommand, ("KEY_",)),
    "key_kind": (wire.KeyKind, ("KEY_",)),
    "key_purpose": (wire.KeyPurpose, ("KEY_FOR_", "KEY_")),
}

# The host, and the two machines of TRUSTY.md section 1 where their tools are at hand.
TARGETS = {
    "host": ("cc", ()),
    "aarch64": ("aarch64-linux-gnu-gcc", ("qemu-aarch64",)),
    "arm": ("arm-linux-gnueabi-gcc", ("qemu-arm",)),
}


def header_text():
    return re.sub(r"/\*.*?\*/", "", HEADER.read_text(encoding="ascii"), flags=re.S)


def header_structs():
    """{struct: [field, ...]} in the header's order."""
    found = {}
    for name, body in re.findall(r"^struct (\w+) \{(.*?)^\};", header_text(), flags=re.S | re.M):
        found[name] = [re.sub(r"\[.*", "", line).split()[-1] for line in body.split(";") if line.strip()]
    return found


def header_enums():
    """{enum: [enumerator, ...]} in the header's order."""
    found = {}
    for name, body in re.findall(r"^enum (\w+) \{(.*?)^\};", header_text(), flags=re.S | re.M):
        found[name] = re.findall(r"(\w+) *=", body)
    return found


def header_defines():
    return [name for name in re.findall(r"^#define (\w+)", header_text(), flags=re.M) if name != "EDGED_WIRE_H"]


@pytest.fixture(scope="module", params=sorted(TARGETS))
def compiled(request, tmp_path_factory):
    """{expression: value}, as the compiler of one target sees the header."""
    compiler, runner = TARGETS[request.param]
    for tool in (compiler,) + runner:
        if shutil.which(tool) is None:
            pytest.skip("{} is not installed".format(tool))
    lines = ["#include <stddef.h>", "#include <stdio.h>", '#include "edged_wire.h"',
             'static void number(const char *n, unsigned long long v) { printf("%s %llu\\n", n, v); }',
             'static void text(const char *n, const char *v) { printf("%s %s\\n", n, v); }',
             "#define SHOW(x) _Generic((x), char *: text, default: number)(#x, x)",
             "int main(void) {"]
    for name, members in header_structs().items():
        lines.append('number("{0}", sizeof(struct {0}));'.format(name))
        for member in members:
            lines.append('number("{0}.{1}", offsetof(struct {0}, {1}));'.format(name, member))
            lines.append('number("{0}.{1} size", sizeof(((struct {0} *)0)->{1}));'.format(name, member))
    for enumerators in header_enums().values():
        lines.extend('number("{0}", (unsigned long long){0});'.format(name) for name in enumerators)
    lines.extend("SHOW({});".format(name) for name in header_defines())
    lines.append("return 0; }")
    folder = tmp_path_factory.mktemp("wire")
    (folder / "wire.c").write_text("\n".join(lines) + "\n", encoding="ascii")
    subprocess.run([compiler, "-std=c11", "-Wall", "-Wextra", "-Werror", "-static", "-I", str(HEADER.parent),
                    "-o", str(folder / "wire"), str(folder / "wire.c")], check=True)
    output = subprocess.run(list(runner) + [str(folder / "wire")], check=True, stdout=subprocess.PIPE,
                            universal_newlines=True).stdout
    return dict(line.rsplit(" ", 1) for line in output.splitlines())


def test_every_struct_of_the_header_has_its_mirror():
    assert sorted(header_structs()) == sorted(wire.STRUCTS)


def test_every_enum_of_the_header_has_its_mirror():
    assert sorted(header_enums()) == sorted(ENUMS)


def test_every_struct_has_the_size_and_the_offsets_of_the_header(compiled):
    for name, members in header_structs().items():
        mirror = wire.STRUCTS[name]
        assert [entry.name for entry in fields(mirror)] == members, name
        assert mirror.size() == int(compiled[name]), name
        for member in members:
            expected = wire.Layout(int(compiled[name + "." + member]),
                                   int(compiled[name + "." + member + " size"]))
            assert mirror.layout[member] == expected, (name, member)


def test_every_enumerator_has_the_value_of_the_header(compiled):
    for name, enumerators in header_enums().items():
        mirror, prefixes = ENUMS[name]
        expected = {}
        for enumerator in enumerators:
            prefix = next(entry for entry in prefixes if enumerator.startswith(entry))
            expected[enumerator[len(prefix):]] = int(compiled[enumerator])
        assert {member.name: member.value for member in mirror} == expected, name


def test_every_constant_has_the_value_of_the_header(compiled):
    for name in header_defines():
        assert str(getattr(wire, name)) == compiled[name], name


def test_a_message_survives_packing():
    head = wire.Product(1, 64, 9, 2, 4, 64, 300, 150, 18, 4, 4096, 8192)
    assert wire.Product.unpack(head.pack()) == head
    stats = wire.EvalStats(wire.Memory(1, 2, 3, 4, 5, 6, 7), 8, 9, 10, 11)
    assert wire.EvalStats.unpack(stats.pack()) == stats
    clip = wire.ClipHead(1, 2, 300, 18, 5, (1, 2, 0, 0, 0, 0, 0, 0), bytes(range(32)))
    assert wire.ClipHead.unpack(clip.pack()) == clip
    beacon = wire.BeaconPut(wire.Beacon(1, b"r" * 16, 2, b"n" * 16, b"t" * 32), b"c" * 32)
    assert wire.BeaconPut.unpack(beacon.pack()) == beacon


@pytest.mark.parametrize("name", sorted(header_structs()))
def test_a_message_of_another_length_is_refused(name):
    mirror = wire.STRUCTS[name]
    for size in (0, mirror.size() - 1, mirror.size() + 1):
        with pytest.raises(EnclaveError, match="{}: {} bytes".format(name, size)):
            mirror.unpack(bytes(size))


@pytest.mark.parametrize("name", sorted(n for n, members in header_structs().items() if "reserved" in members))
def test_a_reserved_field_that_is_not_0_is_refused(name):
    mirror = wire.STRUCTS[name]
    for position in range(mirror.layout["reserved"].size):
        data = bytearray(mirror.size())
        data[mirror.layout["reserved"].offset + position] = 1
        with pytest.raises(EnclaveError, match="reserved"):
            mirror.unpack(bytes(data))


def test_a_field_of_another_length_is_not_packed():
    with pytest.raises(ValueError, match="camera: 31 bytes, not 32"):
        wire.SessionOpen(0, bytes(31), bytes(32)).pack()
