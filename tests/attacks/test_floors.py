"""Root against a platform without a monotonic store: every state opens there, so what ever was granted can be put back,
and every grant of a later number than an old state knows can be handed in. Nothing of it may be of use unless its owner
says so for this very start; and what an owner withdrew may not come back at all.
"""

import json
import shutil
import time
from dataclasses import replace

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from attacks.networks import random_coordinates, small
from attacks.node import ALERT_SLOT, DATA_SLOT, MODEL_SLOT, SHORT_ALERT_SLOT, refused
from c import build
from edged import artifacts, edgectl
from edged.enclave import wire
from edged.enclave.wire import KeyKind, Placement, Status
from granting import GrantedNode

MODEL = small(61)
FREE = 9
CITYS = (DATA_SLOT, ALERT_SLOT, SHORT_ALERT_SLOT)

pytestmark = pytest.mark.skipif(bool(build.missing("make", "gcc")), reason="needs make and gcc")


@pytest.fixture(scope="module")
def storeless():
    """The key application of a platform without a store, beside the evaluation application."""
    folder = build.FOLDER / "storeless"
    build.make(str(folder / "edged-key"), "trusty_ta", BUILD=str(folder), COUNTER="0")
    shutil.copy(str(artifacts.find("edged-eval")), str(folder / "edged-eval"))
    return folder


class StorelessNode(GrantedNode):
    """Its first agreement is in force after both parties' floors."""

    def put_keys(self):
        super().put_keys()
        assert is_locked(self)
        self.vouch()


@pytest.fixture
def node(storeless, monkeypatch):
    monkeypatch.setenv(artifacts.BUILD_VARIABLE, str(storeless))
    with StorelessNode() as running:
        yield running


def is_locked(node):
    return bool(node.key.info().flags & wire.KEY_FLAG_LOCKED)


def begin(node, state):
    """A start of both applications with any state that was ever answered."""
    node.kill_key()
    node.key.identity_open(node.store.identity.read_bytes())
    node.key.restore(state)
    node.kill_eval()


def works(node):
    node.agreed = node.agree()
    node.load(MODEL, Placement.ENCLAVE)
    node.evaluate(node.camera(), random_coordinates(np.random.default_rng(), MODEL.shape, 1))


def everything_is_locked(node):
    assert is_locked(node)
    with refused(Status.LOCKED):
        node.agree()
    with refused(Status.LOCKED):
        node.client.load(node.pack(MODEL), MODEL_SLOT, Placement.ENCLAVE)


def test_after_a_start_nothing_is_of_use_before_both_owners_say_so(node):
    works(node)
    for _ in range(2):
        begin(node, node.store.state.read_bytes())
        everything_is_locked(node)
        node.vouch()
        assert not is_locked(node)
        works(node)


def test_one_owners_floor_unlocks_its_own_slots_alone(node):
    begin(node, node.store.state.read_bytes())
    node.store.floor(node.key, node.floor(node.owner))
    assert is_locked(node)
    with refused(Status.LOCKED):
        node.agree()
    node.client.load(node.pack(MODEL), MODEL_SLOT, Placement.ENCLAVE)
    node.kill_eval()
    begin(node, node.store.state.read_bytes())
    node.store.floor(node.key, node.floor(node.qdo, {MODEL_SLOT: 1, **{slot: 1 for slot in CITYS}}))
    with refused(Status.LOCKED):
        node.client.load(node.pack(MODEL), MODEL_SLOT, Placement.ENCLAVE)
    node.store.floor(node.key, node.floor(node.owner))
    works(node)


def test_root_does_not_vouch_for_a_slot_that_it_once_filled_itself(node):
    """Its own grants are known there, and it may sign floors of its own: they are about no key of the city's."""
    root, known = Ed25519PrivateKey.generate(), bytes(32)
    for slot in (DATA_SLOT, FREE):
        node.store.clear(node.key, slot)
        node.store.install(node.key, node.grant(slot, 1, party=root, key=known))
    node.store.clear(node.key, DATA_SLOT)
    node.store.install(node.key, node.grant(DATA_SLOT, 2))
    begin(node, node.store.state.read_bytes())
    node.store.floor(node.key, node.floor(node.owner))
    node.store.floor(node.key, node.floor(node.qdo, {ALERT_SLOT: 1, SHORT_ALERT_SLOT: 1}))
    node.store.floor(node.key, node.floor(root, {DATA_SLOT: 1, FREE: 1}))
    assert is_locked(node)
    with refused(Status.LOCKED):
        node.agree()


def test_a_floor_of_an_earlier_start_unlocks_nothing(node):
    harvested = [node.floor(party) for party in (node.owner, node.qdo)]
    begin(node, node.store.state.read_bytes())
    for one in harvested:
        with refused(Status.REPLAY):
            node.key.floor(one)
    everything_is_locked(node)


def test_an_old_state_is_of_no_use_once_its_owners_went_on(node):
    old = node.store.state.read_bytes()
    for slot in node.keys:
        node.store.install(node.key, node.grant(slot, 2))
    begin(node, old)
    everything_is_locked(node)
    node.vouch(2)  # by what they granted last
    assert node.kinds() == bytes(16), "the old keys are gone, not locked"
    for slot in node.keys:  # the harvested old ones do not come again, the present ones do
        with refused(Status.REPLAY):
            node.key.grant(node.grant(slot, 1))
        node.store.install(node.key, node.grant(slot, 2))
    everything_is_locked(node)
    node.vouch(2)
    works(node)


def test_an_old_grant_handed_in_after_the_floors_is_not_used(node):
    """A state that never knew it: its number is no obstacle."""
    withheld = node.grant(DATA_SLOT, 2, key=bytes(32))
    node.store.install(node.key, withheld)
    with refused(Status.LOCKED):
        node.camera(b"another")  # the agreement is in force, and asks for the key again
    node.kill_eval()
    with refused(Status.LOCKED):
        node.agree()
    node.store.floor(node.key, node.floor(node.qdo, {DATA_SLOT: 3, ALERT_SLOT: 1, SHORT_ALERT_SLOT: 1}))
    assert node.kinds()[DATA_SLOT] == KeyKind.EMPTY


def test_a_slot_that_a_floor_leaves_out_is_locked_again(node):
    node.store.floor(node.key, node.floor(node.qdo, {ALERT_SLOT: 1, SHORT_ALERT_SLOT: 1}))
    assert is_locked(node)
    node.kill_eval()
    with refused(Status.LOCKED):
        node.agree()


def test_an_earlier_floor_handed_in_again_vouches_for_nothing_that_the_later_one_left_out(node):
    """Both are of this start; the owner took his word back between them."""
    early = node.floor(node.qdo, time_s=100)
    node.store.floor(node.key, early)
    node.store.floor(node.key, node.floor(node.qdo, {ALERT_SLOT: 1, SHORT_ALERT_SLOT: 1}, time_s=200))
    before = node.key.info()
    with refused(Status.REPLAY):
        node.key.floor(early)
    assert node.key.info() == before and is_locked(node)
    node.kill_eval()
    with refused(Status.LOCKED):
        node.agree()
    node.store.floor(node.key, node.floor(node.owner, time_s=1))  # of the other party's clock nothing is known by it
    node.store.floor(node.key, node.floor(node.qdo, time_s=201))
    works(node)


def test_of_two_floors_of_one_second_only_the_first_counts_and_it_may_come_again(node):
    """Which of them its owner said last, nobody can tell: the withdrawal may be one, and the hoarded word the other."""
    said = node.floor(node.qdo, {ALERT_SLOT: 1, SHORT_ALERT_SLOT: 1}, time_s=200)
    for _ in range(2):
        node.store.floor(node.key, said)
    with refused(Status.REPLAY):
        node.key.floor(node.floor(node.qdo, time_s=200))
    assert is_locked(node)
    node.store.floor(node.key, node.floor(node.qdo, time_s=201))
    works(node)


def test_a_grant_that_was_held_back_does_not_fill_a_slot_after_its_withdrawal():
    """It never was there: nothing of it is known but what the floor says."""
    with GrantedNode() as node:
        hoarded = {slot: node.grant(slot, 7, kind=KeyKind.ALERT, party=node.qdo, key=bytes(32)) for slot in (FREE, 10)}
        node.store.floor(node.key, node.floor(node.qdo, {**{slot: 1 for slot in CITYS}, FREE: 8, 10: 7}))
        node.restart_key()  # it is in the state
        with refused(Status.REPLAY):
            node.key.grant(hoarded[FREE])
        assert node.kinds()[FREE] == KeyKind.EMPTY
        node.store.install(node.key, hoarded[10])  # stood by
        works(node)


def test_the_floors_of_one_party_leave_room_for_anothers_grants():
    """Sixteen slots a party are remembered: one that names them all takes as much room as one that fills them."""
    with GrantedNode() as node:
        every = {slot: 9 for slot in range(wire.KEY_SLOTS)}
        node.store.floor(node.key, node.floor(node.qdo, every))
        node.store.floor(node.key, node.floor(node.owner, {slot: 9 for slot in every if slot != MODEL_SLOT}))
        strangers = Ed25519PrivateKey.generate()
        for slot in range(4, 4 + wire.KEY_NUMBERS - 2 * wire.KEY_SLOTS):
            node.store.install(node.key, node.grant(slot, 1, party=strangers))
        with refused(Status.FULL):
            node.key.grant(node.grant(15, 1, party=strangers))
        node.store.floor(node.key, node.floor(strangers, {4: 2, 15: 2}, agreement=7))  # all else of it counts
        assert node.kinds()[4] == KeyKind.EMPTY
        with refused(Status.FULL):
            node.key.grant(node.grant(15, 2, party=strangers))
        node.store.floor(node.key, node.floor(node.owner, {MODEL_SLOT: 1}))


def test_strangers_may_take_the_places_of_floors_but_not_those_that_are_taken():
    """Root signs as eight parties: who had no floor before has no room for one, until the board has a new identity."""
    with GrantedNode() as node:
        node.store.floor(node.key, node.floor(node.qdo, {}))
        strangers = [Ed25519PrivateKey.generate() for _ in range(wire.KEY_FLOORS)]
        for party in strangers[1:]:
            node.store.install(node.key, node.grant(FREE, 1, party=party))
            node.store.floor(node.key, node.floor(party, {FREE: 1}))
            node.store.clear(node.key, FREE)
        node.store.install(node.key, node.grant(FREE, 1, party=strangers[0]))
        for party in (strangers[0], node.owner):
            with refused(Status.FULL):
                node.key.floor(node.floor(party, {}))
        node.store.floor(node.key, node.floor(node.qdo, {DATA_SLOT: 1}, time_s=2))


def test_an_agreement_ends_by_a_floor_while_the_start_lasts_and_no_beacon_is_let_in(node):
    """The floor's time goes on inside; each new start of the evaluation alone would ask it anew, unaged."""
    now_s = 1000000
    node.terms = replace(node.terms, number=2, until_s=now_s + 3)
    for slot in node.keys:
        node.store.install(node.key, node.grant(slot, 2))
    for party in (node.owner, node.qdo):
        node.store.floor(node.key, node.floor(party, {
            slot: 2 for slot, (_, _, _, whose) in node.keys.items() if whose is party}, time_s=now_s))
    node.kill_eval()
    works(node)
    time.sleep(4)
    node.kill_eval()
    with refused(Status.AGREEMENT):
        works(node)


def test_what_a_floor_did_and_nobody_kept_has_to_be_said_again(node):
    before = node.store.state.read_bytes()
    node.key.floor(node.floor(node.qdo, {slot: 2 for slot in CITYS}))  # its state is thrown away
    begin(node, before)
    everything_is_locked(node)
    node.store.floor(node.key, node.floor(node.owner))
    node.store.floor(node.key, node.floor(node.qdo, {slot: 2 for slot in CITYS}))
    assert node.kinds() == bytes([KeyKind.MODEL]) + bytes(15) and not is_locked(node)


def test_a_floor_that_is_not_committed_gives_no_key(node):
    begin(node, node.store.state.read_bytes())
    node.store.floor(node.key, node.floor(node.owner))
    state = node.key.floor(node.floor(node.qdo))
    with refused(Status.UNAVAILABLE):
        node.agree()
    node.key.commit(state)
    works(node)


def test_a_new_identity_begins_unlocked_by_nobody(node):
    for path in (node.store.identity, node.store.state):
        path.unlink()
    node.kill_key()
    node.store.draw(node.key)
    assert not is_locked(node), "there is nothing to be locked"
    with refused(Status.KEY):
        node.key.floor(node.floor(node.owner, device=node.key.info().device))


def test_a_camera_begins_under_no_agreement_that_its_owner_withdrew_since():
    """It was in force before: root keeps the enclave running, which would never ask again."""
    with GrantedNode() as node:
        works(node)
        camera = node.camera(b"another")
        node.store.floor(node.key, node.floor(node.qdo, agreement=node.terms.number + 1))
        for name in (b"another", b"third"):
            with refused(Status.AGREEMENT):
                node.camera(name)
        node.evaluate(camera, random_coordinates(np.random.default_rng(), MODEL.shape, 1))  # what it has goes on


def test_a_camera_that_begins_brings_its_owners_time():
    with GrantedNode() as node:
        works(node)
        node.store.floor(node.key, node.floor(node.qdo, time_s=node.terms.until_s))
        camera = node.camera(b"another")
        with refused(Status.AGREEMENT):
            node.evaluate(camera, random_coordinates(np.random.default_rng(), MODEL.shape, 1))


def test_a_package_that_its_owner_withdrew_since_is_not_loaded():
    """Under an agreement that was in force before, which knows nothing of the floor."""
    with GrantedNode() as node:
        node.load(MODEL, Placement.ENCLAVE, version=2)
        node.store.floor(node.key, node.floor(node.owner, model=3))
        node.store.floor(node.key, node.floor(node.qdo, model=9))  # none of its business
        with refused(Status.AGREEMENT):
            node.load(MODEL, Placement.ENCLAVE, version=2)
        node.load(MODEL, Placement.ENCLAVE, version=3)
        node.evaluate(node.camera(), random_coordinates(np.random.default_rng(), MODEL.shape, 1))


def test_whoever_takes_the_state_away_has_no_key_of_before_and_new_grants_are_all_it_takes(node):
    """Where nothing counts nobody can tell that it is gone: a device that lost it is one that was never granted any."""
    old = node.grants(1)
    node.store.state.unlink()
    node.restart_key()
    node.kill_eval()
    assert not any(node.key.info().kinds)
    for one in old:
        node.store.install(node.key, one)
    everything_is_locked(node)
    for one in node.grants(2):
        node.store.install(node.key, one)
    node.vouch(2)
    works(node)


def test_the_start_says_that_keys_are_locked(node, caplog):
    node.kill_key()
    with caplog.at_level("WARNING"):
        for _ in range(2):
            assert node.store.bring_back(node.key)
    assert caplog.text.count("grants_locked") == 1


def test_whoever_looks_is_told_what_to_do(node, tmp_path, capsys):
    begin(node, node.store.state.read_bytes())
    said = [node.floor(node.owner), node.floor(node.qdo)]
    node.key.close()
    node.client.close()
    at = ["--at", str(node.folder)]
    for command in (["identity", "show"], ["status"]):
        assert edgectl.main(command + at) == 0
        shown = capsys.readouterr()
        assert json.loads(shown.out)["locked"] is True
        assert len(shown.err.splitlines()) == 1 and "fetch-grants" in shown.err and "floors" in shown.err
    for number, content in enumerate(said):
        path = tmp_path / str(number)
        path.write_bytes(content)
        assert edgectl.main(["install-grant", str(path), "--agreement", str(node.agreement_file)] + at) == 0
        assert ("locked" in capsys.readouterr().err) == (number == 0)
    assert edgectl.main(["status"] + at) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)["locked"] is False and not shown.err
