"""No branch and no index of the core depends on a secret: tests/c/ct_test.c under valgrind, which is told that
weights, activations, masks and check elements are undefined memory; nor does the alert decision depend on scores
otherwise than by arithmetic.

Judged are the portable and the AVX2 kernels, compiled with the release's flags. Valgrind 3.19 knows no AVX-512, so
that set is *not* judged: it is the same source compiled for wider registers, and its disassembly keeps public
pointers and flags in vector and mask registers, so that no simple rule over its instructions would prove anything.
"""

import pytest

from c import build

lacking = build.missing("make", "cc", "valgrind")
pytestmark = pytest.mark.skipif(bool(lacking), reason="needs {}".format(lacking))

FOUND = 99  # exit status when memcheck reports an error

VALGRIND = ("valgrind", "-q", "--error-exitcode={}".format(FOUND), "--leak-check=no")


@pytest.fixture(scope="module")
def ct_test():
    build.make("ct")
    return build.FOLDER / "ct" / "ct_test"


@pytest.fixture(scope="module")
def vector_file(tmp_path_factory):
    return build.vectors(tmp_path_factory.mktemp("vectors") / "vectors")


def has_avx2():
    try:
        with open("/proc/cpuinfo") as info:
            return " avx2 " in info.read()
    except OSError:
        return False


@pytest.mark.parametrize("kernel", [
    "kernel_portable",
    pytest.param("kernel_avx2", marks=pytest.mark.skipif(not has_avx2(), reason="needs AVX2")),
])  # fmt: skip
def test_no_branch_and_no_index_depends_on_a_secret(ct_test, vector_file, kernel):
    output = build.run(*VALGRIND, ct_test, vector_file, "core", kernel)
    assert output.split() == [kernel], "memcheck reports nothing at all"


def test_no_branch_and_no_index_of_the_verdict_depends_on_a_score(ct_test, vector_file):
    assert build.run(*VALGRIND, ct_test, vector_file, "verdict").split() == ["verdict"], "memcheck reports nothing"


@pytest.mark.parametrize("leak, report", [
    ("leak-branch", "Conditional jump or move depends on uninitialised value"),
    ("leak-index", "Use of uninitialised value"),
])  # fmt: skip
def test_a_leak_is_found(ct_test, vector_file, leak, report):
    assert report in build.run(*VALGRIND, ct_test, vector_file, leak, status=FOUND)
