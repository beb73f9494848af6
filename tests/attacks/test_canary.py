"""Root looks for what it may not have, everywhere in the normal world, while a node runs.

A whole node under its supervisor, in processes of its own: keys, weights, what alerts say, skeletons and pixels are
known here and searched for in the memory of every process, in every file, in what every socket carried and in the logs.
None is there, but in a camera's process what the design leaves to it: its pixels or skeletons, the key that the city
issued to it, the key of its session. That these *are* found, and keys and weights in the enclave's processes, says
that the search finds what is there.

All keys come by grants, while the node runs and is searched: ``edgectl``, which brings them, is a process of the normal
world, too, and is looked at whenever a grant, evidence or the sealed state passes between it and the key application,
once before anything else works and once beside the node at work. (From ``slots.toml``,
in clear, ``edged enclave`` itself would read them: a weakness of the emulated class alone, and no hardware takes keys
so.)
"""

import os
import subprocess
import sys
import tempfile
import time
from typing import Dict, NamedTuple, Optional, Set

import numpy as np
import pytest

from attacks.canary import (
    STEP, Canaries, changed_files, changed_under, frozen, may_trace, memory, nameless)
from attacks.watched import KNOWN, Node, wait_for
from edged.enclave.host import EVAL_PROGRAM, KEY_PROGRAM
from edged.enclave.wire import KeyCommand

# What the design leaves to a process of the normal world, and is found there ...
OWN = {
    "supervisor": {KNOWN},
    "enclave": {KNOWN},
    "bridge": {KNOWN},
    "outbox": {KNOWN, "node's CURVE key"},
    "camera gate": {KNOWN, "keypoints", "skeletons", "camera key of gate", "session key of gate"},
    "camera yard": {KNOWN, "pixels", "camera key of yard", "session key of yard"},
}
# ... and to its files: keys that are its own, and of the emulated device the one that a fuse would hold.
OWN_FILES = {
    "node/cameras/gate.key": {"camera key of gate"},
    "node/cameras/yard.key": {"camera key of yard"},
    "node/curve.key": {"node's CURVE key"},
    "node/run/enclave/device.key": {"device key"},
    "node/run/enclave/station.secret": {"station secret"},
}
# Known before a node works ...
KEYS = {"model key", "data key", "alert key", "device key", "station secret", "camera key of gate",
        "camera key of yard", "city's CURVE key", "node's CURVE key", "ATTEST private key", "GRANT private key"}
BEGINNING = KEYS | {"weights", "keypoints", "pixels"}
# ... and made by its work.
SECRETS = BEGINNING | {"session key of gate", "session key of yard", "record key", "alert", "skeletons"}
TURNS = 2           # times that everything is frozen and searched
# Messages and answers that have to do with keys: edgectl holds evidence, grants, a floor, the sealed state.
HELD = {about + answer for answer in (0, 1)
        for about in (KeyCommand.ATTEST, KeyCommand.GRANT, KeyCommand.FLOOR, KeyCommand.COMMIT)}

@pytest.fixture(scope="module")
def node(tmp_path_factory):
    made = Node(tmp_path_factory.mktemp("c"))
    try:
        yield made
    finally:
        made.stop()


def searched(node, pids):
    """{process: names of what is in its memory, and in files that it alone still has}; None: closed to this user."""
    found = {}
    for name, pid in pids.items():
        found[name] = set()
        try:
            for pieces in (memory(pid), nameless(pid)):
                for data in pieces:
                    found[name] |= node.canaries.find(data)
        except PermissionError:
            if may_trace():
                raise
            found[name] = None
    return found


def say_what_was_not_searched(found):
    """At a test's end. Skips where it was not root's view: a process that is closed to others is no proof."""
    closed = sorted(name for name, names in found.items() if names is None)
    if closed:
        pytest.skip("the memory of {} was NOT searched: this user may not trace them (no CAP_SYS_PTRACE)".format(
            ", ".join(closed)))


def in_files(node):
    """{path: names}; where there is nothing there is no entry."""
    found = {}
    for path, content in node.files():
        names = node.canaries.find(content)
        if names:
            found[os.path.relpath(path, str(node.folder))] = names
    return found


def check_outside(node):
    """Files, traffic and logs: none but what is the node's own."""
    assert in_files(node) == OWN_FILES
    for tap in node.taps:
        assert node.canaries.find(tap.data()) == set(), tap.name
    assert node.canaries.find(node.log_file.read_bytes()) == set()


def check_own(found):
    """Of the normal world's processes; one that is closed is named at the end of the test."""
    assert {name: found[name] for name in OWN if found[name] is not None} == {
        name: own for name, own in OWN.items() if found[name] is not None}


class Moment(NamedTuple):
    """edgectl, at a message that is held.

    message : KeyCommand, one more in an answer      own : names of what of all that is secret it has
    has : whether it has the message itself      everywhere : {process: names} where all the others were searched, too
    """

    command: str
    message: int
    own: Optional[Set[str]]
    has: bool
    everywhere: Dict[str, Optional[Set[str]]]


def moments_of(node, number):
    """The keys come, as grants of this number: what was found meanwhile."""
    found = []
    with node.owners(number) as commands:
        for words in commands:
            def look(pid, about, message):
                if about not in HELD:
                    return
                everywhere = {}
                with frozen([pid]):
                    own = searched(node, {"edgectl": pid})["edgectl"]
                    has = own is not None and passes_in(message[-64:], pid)
                    if about == KeyCommand.GRANT:
                        pids = node.pids
                        with frozen(pids.values()):
                            everywhere = searched(node, pids)
                            check_outside(node)
                found.append(Moment(words[0], about, own, has, everywhere))

            node.command(look, *words)
    return found


def passes_in(octets, pid):
    """Whether a message's end, when it can be told from what is everywhere, is in the process's memory."""
    sent = Canaries()
    return sent.plant("it", octets) and any(sent.find(data) for data in memory(pid))


def check_moments(moments, processes):
    """edgectl never had anything; when it handed a grant over, nor had the others but what is theirs. Those moments."""
    grants = [moment for moment in moments if moment.message == KeyCommand.GRANT]
    assert [moment.command for moment in grants] == ["install-grant", "fetch-grants", "fetch-grants"]
    assert {moment.command for moment in moments if moment.message == KeyCommand.ATTEST + 1} == {
        "fetch-grants", "report"}
    for moment in moments:
        assert moment.own in ({KNOWN}, None), moment
    for moment in grants:
        assert moment.has or moment.own is None
        for name in processes:
            names = moment.everywhere[name]
            assert names is None or {KNOWN} <= names <= OWN[name], name
    return grants


@pytest.fixture(scope="module")
def first_moments(node):
    with node.enclave_alone():
        return moments_of(node, 1)


@pytest.fixture(scope="module")
def at_work(node, first_moments):
    node.start()
    wait_for(node.works, node)
    return node


def test_nothing_secret_is_anywhere_in_the_normal_world_while_the_first_keys_come(node, first_moments):
    assert node.canaries.names >= BEGINNING | {KNOWN}
    grants = check_moments(first_moments, ["enclave"])
    # From one grant to the next the key application has more of what root finds nowhere else.
    inside = [moment.everywhere[KEY_PROGRAM] for moment in grants]
    if None not in inside:
        assert ["model key" in names for names in inside] == [False, True, True]
        assert ["data key" in names for names in inside] == [False, False, True]
    say_what_was_not_searched(dict(grants[-1].everywhere, edgectl=grants[-1].own))


def test_nothing_secret_is_anywhere_in_the_normal_world_while_the_node_works(at_work):
    node = at_work
    for _ in range(TURNS):
        before = node.alerts()
        wait_for(lambda: node.alerts() > before + 1, node)
        pids = node.pids
        with frozen([pids[EVAL_PROGRAM]]):
            wait_for(node.clips_under_way, node)
            with frozen([pid for name, pid in pids.items() if name != EVAL_PROGRAM]):
                node.plant_what_came()
                assert node.canaries.names == SECRETS | {KNOWN}
                found = searched(node, pids)
                check_outside(node)
        check_own(found)
        # In the enclave they are, and on the host port root may look there, too: it protects nothing.
        assert found[KEY_PROGRAM] is None or found[KEY_PROGRAM] >= {
            "model key", "data key", "alert key", "ATTEST private key", "GRANT private key", "station secret"}
        assert found[EVAL_PROGRAM] is None or found[EVAL_PROGRAM] >= {"weights", "record key"}
    assert all(tap.data() for tap in node.taps) and b"clip_done" in node.log_file.read_bytes()
    say_what_was_not_searched(found)


def test_nor_while_other_keys_come_to_the_node_at_work(at_work):
    at_work.plant_what_came()
    grants = check_moments(moments_of(at_work, 2), OWN)
    say_what_was_not_searched(dict(grants[-1].everywhere, edgectl=grants[-1].own))


def test_nor_in_what_it_leaves_behind(at_work):
    node = at_work
    wait_for(lambda: node.works() and node.alerts() > 1, node)
    assert node.stop() == 0
    node.plant_what_came()
    assert node.canaries.names == SECRETS | {KNOWN}
    check_outside(node)


def test_the_search_finds_what_is_there_wherever_it_begins_and_nothing_else():
    rng = np.random.default_rng(2)
    canaries, secret = Canaries(), rng.bytes(32)
    canaries.plant_secret("key", secret)
    canaries.plant("row", rng.bytes(108))
    around = rng.bytes(2 * STEP + 64)
    assert canaries.find(around) == set()
    for at in list(range(9)) + list(range(STEP - 40, STEP + 9)) + [len(around)]:
        assert canaries.find(around[at & ~0xFFF:at] + secret[:16] + around[at:at + 64]) == {"key"}
    for at in (STEP - 31, STEP - 1, 2 * STEP):
        assert canaries.find(around[:at] + secret + around[at:]) == {"key"}
    assert canaries.find(bytes(5) + secret.hex().encode()) == {"key"}
    assert canaries.find(around[:99] + secret[:15] + b"?" + secret[17:-1] + b"?") == set()
    assert not canaries.plant("zeros", bytes(64))


# Writes what it is told, masked until then, at one place of a block, and nowhere else.
HOLDER = """
import sys
held = bytearray(int(sys.argv[1]))
for line in sys.stdin:
    at, masked = line.split()
    for place, octet in enumerate(bytes.fromhex(masked), int(at)):
        held[place] = octet ^ 0xa5
    print("there", flush=True)
"""


def test_memory_is_read_to_its_end_and_skips_nothing():
    known = os.urandom(32)
    canaries = Canaries()
    canaries.plant("known", known)
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(3 * STEP)], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE, universal_newlines=True)

    def found(at, octets):
        print(at, bytes(octet ^ 0xa5 for octet in octets).hex(), file=holder.stdin, flush=True)
        assert holder.stdout.readline() == "there\n"
        return set().union(*(canaries.find(data) for data in memory(holder.pid)))

    try:
        for at in (0, STEP - 7, 3 * STEP - 32):
            assert found(at, known) == {"known"}
            assert found(at, bytes(32)) == set()
    except PermissionError:
        if may_trace():
            raise
        say_what_was_not_searched({"a process of this user": None})
    finally:
        holder.kill()
        holder.communicate()


def test_files_are_found_that_have_no_name_any_more_or_lie_where_everybody_may_write(tmp_path):
    known, since_s = os.urandom(32), time.time()
    canaries = Canaries()
    canaries.plant("known", known)
    (tmp_path / "left out").mkdir()
    for path in (tmp_path / "left out" / "one", tmp_path / "deep" / "two", tmp_path / "not read"):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(known)
    left_out = [tmp_path / "left out", tmp_path / "not read"]
    assert [path for path, content in changed_under(tmp_path, since_s, *left_out) if canaries.find(content)] == [
        str(tmp_path / "deep" / "two")]
    assert list(changed_under(tmp_path, time.time() + 60)) == []
    for place in ("/dev/shm", None):
        with tempfile.NamedTemporaryFile(dir=place) as file:
            file.write(known)
            file.flush()
            assert file.name in [path for path, content in changed_files(since_s, tmp_path) if canaries.find(content)]
    assert not any(canaries.find(content) for content in nameless(os.getpid()))
    with tempfile.TemporaryFile() as file:
        file.write(known)
        file.flush()
        assert any(canaries.find(content) for content in nameless(os.getpid()))
