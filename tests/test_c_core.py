"""The core in C equals NumPy bit for bit: arithmetic, every layer in every placement, and by messages.

The programs are tests/c/core_test.c, network_test.c, flip_test.c, message_test.c and agreement_test.c; what they
read, and what they must make of it, comes from tests/c/vectors.py.
"""

import pytest

from c import build, vectors

pytestmark = pytest.mark.skipif(bool(build.missing("make", "cc")), reason="needs make and cc")


@pytest.fixture(scope="module")
def programs():
    build.make("native")
    return build.FOLDER / "native"


@pytest.fixture(scope="module")
def vector_file(tmp_path_factory):
    return build.vectors(tmp_path_factory.mktemp("vectors") / "vectors")


@pytest.fixture(scope="module")
def dump(programs, vector_file, tmp_path_factory):
    path = tmp_path_factory.mktemp("dump") / "dump"
    build.run(programs / "network_test", vector_file, path, *vectors.NAMES)
    return vectors.read(path)


def test_every_kernel_set_rounding_field_and_soft_max_are_exact(programs, vector_file):
    sets = build.run(programs / "core_test", vector_file).split()
    assert sets[-1] == "kernel_portable", "the portable set is exact everywhere and stays last"


@pytest.mark.parametrize("name", vectors.NAMES)
def test_everything_a_network_makes_is_what_numpy_makes(dump, name):
    kernels = {path.split("/")[0] for path in dump}
    assert "kernel_portable" in kernels
    found = vectors.case(name)
    for kernel in kernels:
        expected = vectors.expected_dump(name, found, kernel)
        made = {path: data for path, data in dump.items() if path.startswith(kernel + "/" + name + "/")}
        assert set(made) == set(expected)
        wrong = [path for path in expected if made[path] != expected[path]]
        assert not wrong, "{} of {} differ".format(len(wrong), len(expected))


def test_the_models_have_every_kind_of_residual_order_and_tiling():
    rows = [layer.row for name in vectors.NAMES for layer in vectors.case(name).model.layers]
    convolutions = [row for row in rows if row.kind == vectors.Kind.RESIDUAL]
    assert {row.order for row in rows if row.kind == vectors.Kind.GRAPH} == {0, 1}
    assert {row.residual for row in rows if row.kind == vectors.Kind.TEMPORAL} == {0, 1, 2}
    assert {row.cout > row.stride * row.cin for row in convolutions} == {True, False}, "apart, and over the input"
    assert {row.stride for row in convolutions} >= {1, 2, 3}
    prime = [vectors.masks(vectors.pool(), vectors.LABEL_S, 1, 1, product, 2 * 21 * 7 * 2).view("<u8") & vectors.PRIME
             for product in range(5)]
    assert any((elements == vectors.PRIME).any() for elements in prime), "an s is drawn again"
    tiles = vectors.case("tiles").model.shape
    assert tiles.frames * tiles.joints > 1024, "F61_TILE_POSITIONS: more than one tile"


def test_every_bit_of_every_word_of_every_product_is_refused(programs, vector_file):
    """Exhaustive, where tests/attacks draws: a verdict for each bit, each in an invocation of its own."""
    found = vectors.case("tiny")
    products = [step.product for step in vectors.reference.steps(found.model, found.clip)
                if step.layer.row.kind in (vectors.Kind.GRAPH, vectors.Kind.RESIDUAL, vectors.Kind.TEMPORAL)]
    lines = build.run(programs / "flip_test", vector_file, "tiny").split("\n")
    refused = {tuple(line.split()[:4]): int(line.split()[4]) for line in lines if line}
    kernels = {kernel for kernel, _, _, _ in refused}
    assert "kernel_portable" in kernels
    assert refused == {(kernel, placement, when, str(index)): 32 * product.size
                       for kernel in kernels for placement in ("masked", "inputs") for when in ("online", "ahead")
                       for index, product in enumerate(products)}


def test_both_applications_evaluate_exactly_message_by_message(programs, vector_file):
    build.run(programs / "message_test", vector_file)


def test_what_agreements_beacons_and_time_decide_is_in_every_record_byte_for_byte(programs, vector_file):
    build.run(programs / "agreement_test", vector_file)
