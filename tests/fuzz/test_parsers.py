"""Whatever arrives, a parser takes it or says in one line why not: no other exception, no endless work, and what it
takes has one form only, for it is written out again as the same bytes.

The seed is fixed; a few hundred inputs for each parser, thirty times as many where CI=true (or -m slow). An input that
fails is shown as a literal.
"""

import os
import random
import resource
import time

import pytest

from edged.alerts import delivery, record, reports
from edged.errors import EdgedError, PackageError
from edged.model import manifest
from edged.offload import messages
from edged.trust import evidence, keyprotocol
from evidence_cases import office  # noqa: F401  # a fixture
from fuzz import mutate, targets

FEW, MANY = 150, 4500
CPU_S = 2.0       # of one input: the slowest takes milliseconds
MEMORY_KIB = 1 << 18
LINE_MAX = 1000
SEED = int(os.environ.get("EDGED_FUZZ_SEED", "1"))
NAMES = ("evidence", "enrolment", "grants", "floors", "agreements", "packages", "messages", "records", "files")


def the_targets(name, office):
    make = getattr(targets, "of_" + name)
    return make(office) if name in ("evidence", "enrolment") else make()


def taken(target, inner):
    """Whether it was; asserts everything that is promised of any input."""
    given = target.sealed(inner)
    began_s = time.process_time()
    try:
        made = target.read(given)
    except EdgedError as error:
        said = str(error)
        assert said.isprintable() and said and len(said) <= LINE_MAX, (target.name, said, given)
        return False
    except BaseException as error:
        raise AssertionError("{}: {!r} of {!r}".format(target.name, error, given)) from error
    finally:
        assert time.process_time() - began_s < CPU_S, (target.name, given)
    if target.again is not None:
        assert target.again(made) == inner, (target.name, "has two forms", given)
    return True


def run(name, office, count):
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for target in the_targets(name, office):
        draw = random.Random("{} {}".format(SEED, target.name))
        for valid in target.valid:
            assert taken(target, valid), (target.name, "refuses what is valid", valid)
        for _ in range(max(1, int(count * target.share))):
            valid, other = draw.choice(target.valid), draw.choice(target.valid)
            taken(target, target.broken(draw, valid) if target.broken is not mutate.octets
                  else mutate.octets(draw, valid, other))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak_kib < MEMORY_KIB


@pytest.mark.parametrize("name", NAMES)
def test_a_few_inputs(name, office):
    run(name, office, FEW)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_many_inputs(name, office):
    run(name, office, MANY)


@pytest.mark.parametrize("levels", [4, 24, 300])
def test_shared_values_are_not_written_out(levels):
    """24 levels, 221 bytes: 23 seconds of the key server's one thread, before who asks is known; 300: for ever."""
    bomb = mutate.bomb(levels)
    readers = {"/challenge": keyprotocol.read_asked, "/evidence": evidence.parse, "manifest": manifest.read_manifest,
               "message": lambda data: messages.unpack([b"status", data]), "grant": targets.grant.open_grant,
               "header": record.RecordHeader.unpack, "acknowledgement": lambda data: delivery.unpack_answer(
                   [delivery.ACK, data])}
    for name, read in readers.items():
        for given in (bomb, b"\xd2" + bomb, b"\xa1\0" + bomb, b"\xa1\x64form" + bomb):
            began_s = time.process_time()
            with pytest.raises(PackageError):
                read(given)
            assert time.process_time() - began_s < CPU_S, name
    assert reports.claimed(bomb) == bomb.hex()
