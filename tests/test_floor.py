"""Floors from both owners to the running applications: what they change, that it lasts, and every refusal with one
thing broken. What root may try against them is in tests/attacks/test_floors.py.
"""

import json
from contextlib import closing
from dataclasses import replace
from functools import partial

import cbor2
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from attacks.networks import random_coordinates, small
from attacks.node import ALERT_SLOT, DATA_KEY_ID, DATA_SLOT, KEY_ID, MODEL_SLOT, SHORT_ALERT_SLOT, recipient, refused
from edged import edgectl
from edged.emulated import public_bytes
from edged.enclave import wire
from edged.enclave.key import KeyClient
from edged.enclave.wire import KeyKind, Placement, Status
from edged.errors import PackageError, UsageError, VerificationFailed
from edged.offload.link import KeysMissing, Link, Paper, Withdrawn
from edged.trust import floor, grant
from edged.trust.agreement import open_agreement, sign
from granting import GrantedNode, claims_of, envelope, refused_by_both

MODEL = small(51)
FREE = 9
CITYS = (DATA_SLOT, ALERT_SLOT, SHORT_ALERT_SLOT)
expect_refused = partial(refused_by_both, KeyClient.floor, floor.open_floor)


@pytest.fixture(scope="module")
def granted():
    """Shared by tests that change nothing that the next one sees."""
    with GrantedNode() as node:
        yield node


@pytest.fixture
def node():
    with GrantedNode() as node:
        yield node


def coordinates():
    return random_coordinates(np.random.default_rng(), MODEL.shape, 1)


# ------------------------------------------------------------ what they do ---


def test_a_floor_of_what_is_there_changes_no_slot(node):
    before = node.key.info()
    node.vouch()
    assert node.key.info() == before
    node.load(MODEL, Placement.ENCLAVE)
    node.evaluate(node.camera(), coordinates())
    node.restart_key()
    assert node.key.info() == before


def test_a_floor_above_a_grants_number_withdraws_it_for_good(node):
    old_state = node.store.state.read_bytes()
    node.store.floor(node.key, node.floor(node.qdo, {slot: 2 for slot in CITYS}))
    for restart in (lambda: None, node.restart_key):
        restart()
        assert node.kinds() == bytes([KeyKind.MODEL]) + bytes(15)
        with refused(Status.REPLAY):
            node.key.grant(node.grant(DATA_SLOT, 1))
    node.kill_key()
    node.key.identity_open(node.store.identity.read_bytes())
    with refused(Status.STATE):
        node.key.restore(old_state)
    assert node.store.bring_back(node.key)
    node.store.install(node.key, node.grant(DATA_SLOT, 2))
    assert node.kinds()[DATA_SLOT] == KeyKind.DATA


def test_what_runs_goes_on_after_a_floor_until_the_evaluation_applications_next_start(node):
    node.load(MODEL, Placement.ENCLAVE)
    camera = node.camera()
    node.store.floor(node.key, node.floor(node.qdo, agreement=node.terms.number + 1))
    node.evaluate(camera, coordinates())
    node.kill_eval()
    with refused(Status.AGREEMENT):
        node.agree()


def test_the_bridge_tells_a_withdrawn_agreement_from_one_without_keys(node):
    """The operator of the former would look for keys that are there."""
    def told(terms):
        signed = sign(terms.encode(), node.owner, node.qdo)
        link = Link.__new__(Link)
        link.client = node.client
        with pytest.raises((KeysMissing, Withdrawn)) as caught:
            link._put(0, Paper(node.agreement_file, signed, open_agreement(signed)), node.key.slots(), [])
        assert "\n" not in str(caught.value)
        return caught.value

    said = told(replace(node.terms, number=node.terms.number + 1))  # whose keys are granted for another agreement
    assert isinstance(said, KeysMissing) and "withdrawn" not in str(said) and str(said).startswith(
        "{}: no slot holds the model owner's model key {}, the city's data key {}".format(
            node.agreement_file, KEY_ID.hex(), DATA_KEY_ID.hex()))
    node.store.floor(node.key, node.floor(node.qdo, agreement=node.terms.number + 1))
    node.kill_eval()
    said = told(node.terms)
    assert isinstance(said, Withdrawn) and str(said).endswith(
        "agreement {} was withdrawn by an owner's floor, or another followed it: `edgectl rotate` to the next "
        "agreement".format(node.terms.number))


def test_a_withdrawn_number_may_be_granted_still_and_none_before_it(node):
    node.store.install(node.key, node.grant(FREE, 5))
    node.store.floor(node.key, node.floor(node.owner, {FREE: 9}))
    assert node.kinds()[FREE] == KeyKind.EMPTY
    for number in (5, 6, 8):
        with refused(Status.REPLAY):
            node.key.grant(node.grant(FREE, number))
    node.store.install(node.key, node.grant(FREE, 9))


def test_a_slot_that_was_emptied_first_is_closed_to_what_a_floor_withdraws(node):
    """Else root would empty it before it hands the floor over, and fill it afterwards."""
    held_back = node.grant(DATA_SLOT, 2)
    node.store.clear(node.key, DATA_SLOT)
    node.store.floor(node.key, node.floor(node.qdo, {DATA_SLOT: 3}))
    with refused(Status.REPLAY):
        node.key.grant(held_back)
    node.store.install(node.key, node.grant(DATA_SLOT, 3))


def test_a_floor_is_about_its_own_partys_grants_alone(node):
    before = node.kinds()
    node.store.floor(node.key, node.floor(node.qdo, {MODEL_SLOT: 1000, FREE: 1000}))
    assert node.kinds() == before
    node.store.install(node.key, node.grant(MODEL_SLOT, 2))
    node.store.install(node.key, node.grant(FREE, 1))
    node.store.clear(node.key, FREE)
    with refused(Status.REPLAY):
        node.key.grant(node.grant(FREE, 999, party=node.qdo))  # its own: though none was ever there
    node.store.install(node.key, node.grant(FREE, 1000, party=node.qdo))


def test_floors_of_eight_parties_are_known_and_then_no_new_one(node):
    parties = [Ed25519PrivateKey.generate() for _ in range(wire.KEY_FLOORS)]
    for party in parties:
        node.store.install(node.key, node.grant(FREE, 1, party=party))
        node.store.floor(node.key, node.floor(party, {FREE: 1}))
        node.store.clear(node.key, FREE)
    before = node.key.info()
    with refused(Status.FULL):
        node.key.floor(node.floor(node.owner))
    assert node.key.info() == before
    node.store.install(node.key, node.grant(FREE, 2, party=parties[0]))
    node.store.floor(node.key, node.floor(parties[0], {FREE: 2}))


def test_a_floor_waits_for_its_commit_and_is_a_change_like_any_other(node):
    state = node.key.floor(node.floor(node.owner, {MODEL_SLOT: 2}))
    assert node.kinds()[MODEL_SLOT] == KeyKind.EMPTY and node.key.info().flags & wire.KEY_FLAG_PENDING
    with refused(Status.ORDER):
        node.key.floor(node.floor(node.owner, {MODEL_SLOT: 2}))
    node.key.commit(state)


@pytest.mark.parametrize("written, committed, expected", [(False, False, False), (True, False, True),
                                                          (True, True, True)])
def test_power_lost_while_a_floor_is_taken_leaves_the_state_before_or_after(node, written, committed, expected):
    state = node.key.floor(node.floor(node.owner, {MODEL_SLOT: 2}, agreement=7))
    if written:
        node.store._replace(state)
    if committed:
        node.key.commit(state)
    for _ in range(2):
        node.restart_key()
        assert (node.kinds()[MODEL_SLOT] == KeyKind.EMPTY) == expected
    node.store.install(node.key, node.grant(MODEL_SLOT, 2))
    node.kill_eval()
    if expected:
        with refused(Status.AGREEMENT):
            node.agree()
    else:
        node.agree()


# ---------------------------------------- what the evaluation makes of them ---


@pytest.mark.parametrize("party", ["owner", "qdo"])
def test_an_agreement_below_either_owners_least_number_is_refused(node, party):
    whose = getattr(node, party)
    node.store.floor(node.key, node.floor(whose, agreement=node.terms.number))
    node.kill_eval()
    node.agree()
    node.store.floor(node.key, node.floor(whose, agreement=node.terms.number + 1))
    node.store.floor(node.key, node.floor(whose, agreement=0))  # it only rises
    for restart in (node.restart_key, node.kill_eval):
        restart()
        node.kill_eval()
        with refused(Status.AGREEMENT):
            node.agree()


def test_a_package_below_the_owners_least_version_is_not_evaluated(node):
    node.kill_eval()
    node.load(MODEL, Placement.ENCLAVE, version=2)
    node.store.floor(node.key, node.floor(node.owner, model=3))
    node.store.floor(node.key, node.floor(node.qdo, model=9))  # none of its business
    node.agreed = node.agree()
    camera = node.camera()
    with refused(Status.AGREEMENT):
        node.evaluate(camera, coordinates())
    node.reconnect()
    with refused(Status.AGREEMENT):
        node.load(MODEL, Placement.ENCLAVE, version=2)
    node.load(MODEL, Placement.ENCLAVE, version=3)
    node.evaluate(node.camera(), coordinates())


@pytest.mark.parametrize("party", ["owner", "qdo"])
def test_an_agreement_that_ended_by_an_owners_clock_evaluates_nothing(node, party):
    """Without any beacon: its time would be unknown otherwise, and it would go on for ever."""
    until_s = 1000
    node.terms = replace(node.terms, until_s=until_s, number=2, recipients=(recipient(),))
    for slot in node.keys:
        node.store.install(node.key, node.grant(slot, 2))
    for time_s, ended in ((until_s - 100, False), (until_s, True), (wire.KEY_FLOOR_TIME_MAX, True), (5, True)):
        if time_s == 5:
            node.restart_key()  # of this start the one before is the last
        numbers = {slot: 2 for slot, (_, _, _, whose) in node.keys.items() if whose is getattr(node, party)}
        node.store.floor(node.key, node.floor(getattr(node, party), numbers, time_s=time_s))
        node.kill_eval()
        node.agreed = node.agree()
        node.load(MODEL, Placement.ENCLAVE)
        camera = node.camera()
        if ended:
            with refused(Status.AGREEMENT):
                node.evaluate(camera, coordinates())
        else:
            node.evaluate(camera, coordinates())


def test_a_beacon_that_lags_behind_a_floor_unlocks_nothing(node):
    limit_s, now_s = 30, 1000000
    node.terms = replace(node.terms, beacon_limit_s=limit_s, number=2, recipients=(recipient(),))
    for slot in node.keys:
        node.store.install(node.key, node.grant(slot, 2))
    node.store.floor(node.key, node.floor(node.owner, {MODEL_SLOT: 2}, time_s=now_s))
    node.kill_eval()
    node.agreed = node.agree()
    node.client.beacon(node.beacon((now_s - limit_s) * 10**9 - 1), bytes(32))
    node.load(MODEL, Placement.ENCLAVE)
    camera = node.camera()
    assert node.evaluate(camera, coordinates()).time_ns == 0, "it told no time"
    in_time_s = now_s - limit_s + 20  # the floor's time goes on meanwhile
    node.client.beacon(node.beacon(in_time_s * 10**9), bytes(32))
    assert node.evaluate(camera, coordinates()).time_ns >= in_time_s * 10**9


# ---------------------------------------------------------------- refusals ---


def broken(node):
    """(what is wrong, payload)"""
    right = {"form": floor.FORM, "time": 7, "model": 0, "start": claims_of(node.key).bootseed,
             "device": grant.thumbprint(node.receiver), "grants": [[0, 1], [9, 2]],
             "verifier": public_bytes(node.owner), "agreement": 0}
    wrong = [("form", "edged floor 2"), ("form", b"edged floor 1"), ("time", -1), ("time", 1 << 40), ("time", 1.0),
             ("model", 1 << 32), ("model", -1), ("model", True), ("start", b"s" * 31), ("start", b"s" * 33),
             ("start", "s" * 32), ("device", b"d" * 31), ("device", b"d" * 33), ("grants", [[0, 0]]),
             ("grants", [[0, 1 << 32]]), ("grants", [[16, 1]]), ("grants", [[1, 1], [0, 1]]),
             ("grants", [[1, 1], [1, 1]]), ("grants", [[0, 1, 1]]), ("grants", [[0]]), ("grants", [0, 1]),
             ("grants", {0: 1}),
             ("grants", [[slot, 1] for slot in range(17)]), ("verifier", bytes(32)), ("verifier", b"v" * 31),
             ("agreement", 1 << 32), ("agreement", None)]
    for name, value in wrong:
        yield "{} {!r}".format(name, value), cbor2.dumps(dict(right, **{name: value}), canonical=True)
    for name in right:
        yield "no " + name, cbor2.dumps({key: value for key, value in right.items() if key != name}, canonical=True)
    yield "one field more", cbor2.dumps(dict(right, extra=1), canonical=True)
    yield "another order", cbor2.dumps(dict(reversed(list(right.items()))))
    canonical = cbor2.dumps(right, canonical=True)
    assert cbor2.dumps(right) == canonical
    yield "a map of indefinite length", b"\xbf" + canonical[1:] + b"\xff"
    yield "a number not in its shortest form", canonical.replace(b"dtime\x07", b"dtime\x18\x07")
    yield "bytes after it", canonical + b"\0"
    yield "cut off", canonical[:-1]
    yield "a grant's payload", cbor2.dumps([b"header", bytes(256)])


def test_every_wrong_field_is_refused_although_signed(granted):
    for what, payload in broken(granted):
        try:
            expect_refused(granted, floor.seal(payload, granted.owner))
        except BaseException:
            print(what)
            raise


def test_every_wrong_envelope_is_refused(granted):
    right = granted.floor()
    _, _, payload, signature = cbor2.loads(right).value
    assert envelope(payload, signature) == right
    for encoded in (right + b"\0", right[:-1], right[1:], b"\xd1" + right[1:], b"\xd2" + right, b"\0",
                    envelope(payload, signature[:-1]), envelope(payload, signature + b"\0"),
                    envelope(payload, signature, b""), envelope(payload, signature, b"\xa1\x01\x38\x24"),
                    envelope(payload, signature, unprotected={4: b"k"}), envelope(b"", signature)):
        expect_refused(granted, encoded, error=(PackageError, VerificationFailed))


@pytest.mark.parametrize("external", [b"", b"edged floor 2", b"edged grant 1", b"edged package", b"edged agreement"])
def test_a_signature_about_something_else_is_refused(granted, external):
    _, _, payload, _ = cbor2.loads(granted.floor()).value
    expect_refused(granted, floor.cose.sign_ed25519(payload, granted.owner, external), error=(VerificationFailed,))


def test_any_flipped_bit_is_refused(granted):
    right = granted.floor()
    for at in range(len(right)):
        encoded = bytearray(right)
        encoded[at] ^= 1 << at % 8
        before = granted.key.info()
        status, _ = granted.key.connection.call(wire.KeyCommand.FLOOR, bytes(encoded))
        assert status in (Status.GRANT, Status.REPLAY) and granted.key.info() == before
        with pytest.raises((PackageError, VerificationFailed)):
            floor.open_floor(bytes(encoded))


def test_a_floor_of_another_device_start_or_party_is_refused(granted):
    stranger = Ed25519PrivateKey.generate()
    expect_refused(granted, granted.floor(device=b"d" * 32), error=())
    expect_refused(granted, granted.floor(start=b"s" * 32), Status.REPLAY, error=())
    expect_refused(granted, granted.floor(signed_by=granted.qdo), error=(VerificationFailed,))
    expect_refused(granted, granted.floor(stranger, {}), Status.KEY, error=())
    expect_refused(granted, granted.floor(stranger, {MODEL_SLOT: 5}), Status.KEY, error=())


# ------------------------------------------------------------------ Python ---


def test_a_floor_says_what_it_was_made_of():
    party = Ed25519PrivateKey.generate()
    made = floor.make(9, 2, b"s" * 32, b"d" * 32, [(9, 4), (0, 3)], 5, party)
    assert floor.open_floor(made) == floor.Floor(9, 2, b"s" * 32, b"d" * 32, ((0, 3), (9, 4)), public_bytes(party), 5)
    assert floor.is_floor(made) and not floor.is_floor(b"nonsense")
    json.dumps(floor.open_floor(made).as_dict())
    most = floor.make(wire.KEY_FLOOR_TIME_MAX, floor.canonical.UINT32, b"s" * 32, b"d" * 32,
                      [(slot, floor.NUMBER_MAX) for slot in range(16)], floor.canonical.UINT32, party)
    assert len(most) <= floor.FLOOR_MAX


@pytest.mark.parametrize("changes", [{"time_s": -1}, {"time_s": 1 << 40}, {"model": -1}, {"model": 1 << 32},
                                     {"start": b"s" * 31}, {"device": b""}, {"grants": [(0, 1), (0, 2)]},
                                     {"grants": [(16, 1)]}, {"grants": [(0, 0)]}, {"agreement": 1 << 32}])
def test_what_would_be_refused_is_not_made(changes):
    right = {"time_s": 1, "model": 0, "start": b"s" * 32, "device": b"d" * 32, "grants": [(0, 1)], "agreement": 0,
             "signing_key": Ed25519PrivateKey.generate()}
    floor.make(**right)
    with pytest.raises(UsageError):
        floor.make(**dict(right, **changes))


def test_the_longest_floor_is_taken(granted):
    node = granted
    numbers = {slot: (1 << 32) - 1 if slot not in node.keys else 1 for slot in range(16)}
    node.store.floor(node.key, node.floor(node.owner, numbers, time_s=1 << 33, model=0, agreement=0))


# ----------------------------------------------------------------- edgectl ---


def run(*arguments):
    return edgectl.main([str(one) for one in arguments])


def test_edgectl_takes_grants_and_floors_in_any_order(node, tmp_path, capsys):
    said = node.floor(node.owner, {MODEL_SLOT: 2})
    node.key.close()
    (tmp_path / "floor-mo").write_bytes(said)
    (tmp_path / "0.grant").write_bytes(node.grant(MODEL_SLOT, 2))
    assert run("install-grant", tmp_path / "floor-mo", tmp_path / "0.grant", "--agreement", node.agreement_file,
               "--at", node.folder) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and "0.grant: slot 0 has model key" in lines[0]
    assert "floor-mo: {} stands by slot 0 from number 2".format(public_bytes(node.owner).hex()[:16]) in lines[1]
    assert lines[1].endswith("the evaluation application heeds it from its next start on")
    with closing(node.connect_key()) as key:
        assert key.info().kinds[MODEL_SLOT] == KeyKind.MODEL
    node.enclave.restart_key()
    assert run("install-grant", tmp_path / "floor-mo", "--agreement", node.agreement_file, "--at", node.folder) == 76
    assert "another start" in capsys.readouterr().err
