"""The enclave and the parties' tools take the same agreements, grants, floors and manifests: what one reads and the
other refuses would be signed for nothing, or do something that its signer's own tool cannot read.

The C readers (tests/c/read_inputs.c) get the very inputs that the Python ones get, all with true signatures where they
have any.
"""

import os
import random
import struct
import subprocess

import pytest

from agreement_cases import malformed, misshapen, out_of_range
from c import build
from edged.errors import EdgedError, PackageError
from edged.model import manifest, package
from edged.trust import agreement, floor, grant
from fuzz import mutate, targets
from fuzz.test_parsers import SEED
from test_agreement import MO, PAYLOAD, QDO, SIGNED
from test_package import sealed

lacking = build.missing("make", "cc")
pytestmark = pytest.mark.skipif(bool(lacking), reason="needs {}".format(lacking))

FEW, MANY = 1500, 30000
AT_ONCE = 5000
# What an owner's tool refuses of a manifest and the enclave need not (trusty_ta/eval/manifest.c): unwise, but safe.
UNWISE = ("labels: one stands twice", "(the cheaper)", "nnz is 0, ")


@pytest.fixture(scope="module")
def program():
    build.make("native")
    return str(build.FOLDER / "native/read_inputs")


def statuses(program, what, inputs):
    given = b"".join(what + struct.pack("<I", len(one)) + one for one in inputs)
    done = subprocess.run([program], input=given, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          timeout=build.TIMEOUT_S)
    assert done.returncode == 0, done.stdout.decode(errors="replace")
    return [int(line) for line in done.stdout.split()]


def refusal(read, given):
    """What the Python reader says; None where it takes it."""
    try:
        read(given)
    except EdgedError as error:
        return str(error)
    return None


def compare(program, what, read, inputs, may_differ=()):
    """How many both took."""
    taken = 0
    inputs = list(inputs)
    for begin in range(0, len(inputs), AT_ONCE):
        part = inputs[begin:begin + AT_ONCE]
        for given, status in zip(part, statuses(program, what, part)):
            said = refusal(read, given)
            if said is not None and status == 0 and any(words in said for words in may_differ):
                continue
            assert (said is None) == (status == 0), "C says {}, Python {!r} of {!r}".format(status, said, given)
            taken += said is None
    return taken


def drawn(names, make, count):
    """Inputs of these targets, as their parser gets them; the valid ones first."""
    for target in make:
        if target.name in names:
            draw = random.Random("{} {} both".format(SEED, target.name))
            yield from (target.sealed(valid) for valid in target.valid)
            for _ in range(count):
                yield target.sealed(target.broken(draw, draw.choice(target.valid)))


def agreements(count):
    cases = ([payload for payload, _ in malformed(PAYLOAD).values()] + [one for one, _ in out_of_range(PAYLOAD)])
    yield from (agreement.sign(payload, MO, QDO) for payload in cases)
    yield from misshapen(SIGNED, PAYLOAD).values()
    yield from drawn(("agreement", "agreement: payload, signed"), targets.of_agreements(), count)


def grants(count):
    return drawn(("grant", "grant: CBOR", "grant: parts, signed", "grant: header, signed"), targets.of_grants(), count)


def floors(count):
    return drawn(("floor", "floor: CBOR", "floor: signed"), targets.of_floors(), count)


def manifests(count):
    """Beside what is broken anywhere: tables in which one number is another one."""
    yield from drawn(("manifest", "manifest: CBOR"), targets.of_packages(), count)
    draw = random.Random("{} tables".format(SEED))
    encoded = package.inspect(sealed()).encoded
    for _ in range(2 * count):
        root = mutate.tree(encoded)
        rows = dict(root)["layers"]
        for _ in range(draw.choice((1, 1, 2))):
            row = draw.choice(rows)
            at = draw.randrange(len(row))
            row[at] = draw.choice((row[at] + 1, max(0, row[at] - 1), draw.choice(mutate.NUMBERS),
                                   draw.choice(rows)[at]))
        yield mutate.encode(root)


def compare_all(program, count):
    assert compare(program, b"a", agreement.open_agreement, agreements(count)) > count // 20
    assert compare(program, b"g", grant.open_grant, grants(count)) > count // 20
    assert compare(program, b"f", floor.open_floor, floors(count)) > count // 20
    assert compare(program, b"m", manifest.read_manifest, manifests(count), UNWISE) > count // 20


def test_both_take_the_same(program):
    compare_all(program, int(os.environ.get("EDGED_FUZZ_INPUTS", FEW)))


@pytest.mark.slow
def test_both_take_the_same_of_many(program):
    compare_all(program, MANY)


def test_the_comparison_sees_a_reader_that_takes_more(program):
    """One that takes everything, and one that takes nothing, differ from the C ones at once."""
    def takes_nothing(given):
        raise PackageError("no")

    for read in (lambda given: None, takes_nothing):
        with pytest.raises(AssertionError, match="C says"):
            compare(program, b"g", read, grants(50))
