"""Root against grants: it sees every one, hands over what it likes when it likes, keeps and puts back every file, and
may make grants of its own, for the grant key is public. What it must not get: a key that no party granted to this
device in use, a key that was withdrawn in use again, or a key in use under another agreement than its owner meant.
"""

from dataclasses import replace

import cbor2
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from attacks.networks import random_coordinates, small
from attacks.node import ALERT_SLOT, DATA_SLOT, KEY_ID, MODEL_SLOT, recipient, refused
from edged.emulated import public_bytes
from edged.enclave import wire
from edged.enclave.wire import KeyKind, Placement, Status
from edged.errors import EnclaveError
from edged.model import package
from edged.trust import grant
from edged.trust.agreement import sign
from edged.trust.request import spki_of
from granting import GrantedNode, parts

MODEL = small(41)
FREE = 9
ROOT = Ed25519PrivateKey.generate()


def coordinates(persons=2):
    return random_coordinates(np.random.default_rng(), MODEL.shape, persons)


@pytest.fixture(scope="module")
def node():
    with GrantedNode() as running:
        yield running


@pytest.fixture
def fresh():
    with GrantedNode() as running:
        yield running


def still_works(node):
    node.load(MODEL, Placement.ENCLAVE)
    node.evaluate(node.camera(), coordinates())


# Root's own keys.


def test_a_grant_of_roots_own_fills_no_slot_of_a_party(node):
    for slot in (MODEL_SLOT, DATA_SLOT, ALERT_SLOT):
        with refused(Status.KEY):
            node.key.grant(node.grant(slot, 5, party=ROOT, key=bytes(32)))
    for slot in (MODEL_SLOT, DATA_SLOT):  # in the party's name
        header, _, _ = parts(node.grant(slot, 5))
        with refused(Status.GRANT):
            node.key.grant(grant.seal(header, grant.wrap(header, bytes(32), node.receiver), ROOT))
    still_works(node)


def test_what_root_grants_into_a_cleared_slot_serves_no_agreement_of_the_parties(fresh):
    """A known data key would open every clip, a known alert key every record."""
    for slot in (MODEL_SLOT, DATA_SLOT, ALERT_SLOT):
        fresh.store.clear(fresh.key, slot)
        fresh.store.install(fresh.key, fresh.grant(slot, 2, party=ROOT, key=bytes(32)))
        fresh.kill_eval()
        with refused(Status.AGREEMENT):
            fresh.agree()
        fresh.store.clear(fresh.key, slot)
        fresh.store.install(fresh.key, fresh.grant(slot, 2))
    fresh.agree()


def test_a_package_of_the_owner_does_not_load_under_a_key_of_roots(fresh):
    fresh.store.install(fresh.key, fresh.grant(FREE, party=ROOT, key=fresh.model_key))
    with refused(Status.PACKAGE):  # signed by the owner, not by the slot's party
        fresh.client.load(fresh.pack(MODEL), FREE, Placement.ENCLAVE)
    mine = package.pack(MODEL, fresh.model_key, ROOT, model_id="stgcn", key_id=KEY_ID)
    with refused(Status.PACKAGE):
        fresh.client.load(mine, MODEL_SLOT, Placement.ENCLAVE)


def test_a_ciphertext_of_a_party_does_not_open_under_roots_header(node):
    """Root would name itself as the party, have the model's key in a slot of its own, and load packages of its own."""
    header, wrapped, _ = parts(node.grant(FREE))
    mine = cbor2.dumps(dict(cbor2.loads(header), verifier=public_bytes(ROOT)), canonical=True)
    with refused(Status.GRANT):
        node.key.grant(grant.seal(mine, wrapped, ROOT))
    for name, value in (("kind", 2), ("slot", FREE + 1), ("number", 99), ("key_id", bytes(16)),
                        ("agreement", b"a" * 32)):
        other = cbor2.dumps(dict(cbor2.loads(header), verifier=public_bytes(ROOT), **{name: value}), canonical=True)
        with refused(Status.GRANT):
            node.key.grant(grant.seal(other, wrapped, ROOT))
    assert node.kinds()[FREE] == KeyKind.EMPTY


def test_the_private_key_is_no_oracle_about_somebody_elses_ciphertext(node):
    """Multiples of a harvested ciphertext (Bleichenbacher, Manger), under headers that root signs: one answer."""
    receiver = grant.read_rsa(node.receiver, "")
    numbers = receiver.public_numbers()
    _, wrapped, _ = parts(node.grant(FREE))
    header, _, _ = parts(node.grant(FREE, party=ROOT))
    c = int.from_bytes(wrapped, "big")
    for factor in (1, 2, 3, 1 << 16, 1 << 64, numbers.n - 1):
        altered = c * pow(factor, numbers.e, numbers.n) % numbers.n
        with refused(Status.GRANT):
            node.key.grant(grant.seal(header, altered.to_bytes(256, "big"), ROOT))
    for number in (0, 1, numbers.n - 1, numbers.n, (1 << 2048) - 1):
        with refused(Status.GRANT):
            node.key.grant(grant.seal(header, number.to_bytes(256, "big"), ROOT))


# Grants of the parties, used otherwise than they meant.


def test_a_grant_fits_its_own_slot_alone(node):
    header, wrapped, signature = parts(node.grant(FREE))
    for slot in (FREE + 1, DATA_SLOT):
        moved = cbor2.dumps(dict(cbor2.loads(header), slot=slot), canonical=True)
        payload = cbor2.dumps([moved, wrapped])
        encoded = b"\xd2" + cbor2.dumps([b"\xa1\x01\x27", {}, payload, signature])
        with refused(Status.GRANT):
            node.key.grant(encoded)


def test_halves_of_two_grants_make_no_third(node):
    first, second = parts(node.grant(FREE)), parts(node.grant(DATA_SLOT, 9))
    for signature in (first[2], second[2]):
        for header, wrapped in ((first[0], second[1]), (second[0], first[1])):
            payload = cbor2.dumps([header, wrapped])
            with refused(Status.GRANT):
                node.key.grant(b"\xd2" + cbor2.dumps([b"\xa1\x01\x27", {}, payload, signature]))


def test_a_grant_relayed_to_another_device_is_refused_there(node):
    with GrantedNode() as other:
        with refused(Status.GRANT):
            other.key.grant(node.grant(FREE))
        # Renamed on its way, by whoever can sign for the party (nobody): the ciphertext is still another device's.
        header, wrapped, _ = parts(node.grant(FREE))
        renamed = cbor2.dumps(dict(cbor2.loads(header), device=other.key.info().device), canonical=True)
        with refused(Status.GRANT):
            other.key.grant(grant.seal(renamed, wrapped, node.owner))


def test_the_evidence_of_one_device_does_not_draw_grants_to_roots_own_key(node):
    """A party that encrypts to a key of root's makes a grant that names that key, and no device takes it."""
    mine = spki_of(rsa.generate_private_key(65537, 2048).public_key())
    with refused(Status.GRANT):
        node.key.grant(node.grant(FREE, receiver=mine))


# Another agreement.


@pytest.mark.parametrize("slot", [MODEL_SLOT, DATA_SLOT, ALERT_SLOT])
def test_a_key_granted_for_one_agreement_serves_no_other(fresh, slot):
    """Both parties signed the other one, too, and it names the same keys: but this key was not granted for it."""
    other = replace(fresh.terms, number=2, recipients=(recipient(),))
    for at in (MODEL_SLOT, DATA_SLOT, ALERT_SLOT):
        if at != slot:
            fresh.store.install(fresh.key, fresh.grant(at, 2, agreement=other.digest))
    with refused(Status.KEY):
        fresh.put(other)
    fresh.store.install(fresh.key, fresh.grant(slot, 2, agreement=other.digest))
    fresh.put(other)
    fresh.kill_eval()
    with refused(Status.KEY):
        fresh.put(fresh.terms)  # nor the first one, from now on
    fresh.put(other)


def test_a_model_granted_for_another_agreement_is_not_loaded_where_one_is_in_force(fresh):
    fresh.store.install(fresh.key, fresh.grant(FREE, agreement=b"x" * 32))
    with refused(Status.KEY):
        fresh.client.load(fresh.pack(MODEL), FREE, Placement.MASKED)
    fresh.kill_eval()
    fresh.client.load(fresh.pack(MODEL), FREE, Placement.ENCLAVE)  # none is in force: nothing is evaluated yet
    with refused(Status.KEY):
        fresh.client.put_agreement(FREE, DATA_SLOT, [ALERT_SLOT], sign(fresh.terms.encode(), fresh.owner, fresh.qdo))


def test_a_data_key_exchanged_for_one_of_another_agreement_opens_no_session(fresh):
    """The agreement is in force already: its sessions ask for the key anew."""
    fresh.load(MODEL, Placement.ENCLAVE)
    fresh.store.install(fresh.key, fresh.grant(DATA_SLOT, 2, agreement=b"x" * 32))
    with refused(Status.KEY):
        fresh.camera()
    fresh.store.install(fresh.key, fresh.grant(DATA_SLOT, 3))
    fresh.evaluate(fresh.camera(), coordinates())


# Harvested grants, and states put back.


def test_a_harvested_grant_is_not_taken_again(fresh):
    harvested = fresh.grants(number=2)
    for one in harvested:
        fresh.store.install(fresh.key, one)
    for restart in (lambda: None, fresh.restart_key):
        restart()
        for one in harvested + fresh.grants(number=1):
            with refused(Status.REPLAY):
                fresh.key.grant(one)


def test_clearing_a_slot_does_not_make_an_old_grant_new(fresh):
    old = fresh.grant(MODEL_SLOT, 2)
    fresh.store.install(fresh.key, old)
    fresh.store.install(fresh.key, fresh.grant(MODEL_SLOT, 3))
    fresh.store.clear(fresh.key, MODEL_SLOT)
    for restart in (lambda: None, fresh.restart_key):
        restart()
        with refused(Status.REPLAY):
            fresh.key.grant(old)
    fresh.store.install(fresh.key, fresh.grant(MODEL_SLOT, 1, party=ROOT))  # another party in between
    fresh.store.clear(fresh.key, MODEL_SLOT)
    with refused(Status.REPLAY):
        fresh.key.grant(old)


def test_a_withdrawn_key_does_not_come_back_with_any_state_that_root_kept(fresh):
    """Every state that ever crossed, committed or not, at every later start."""
    kept = [fresh.store.state.read_bytes()]
    identity = fresh.store.identity.read_bytes()
    for number in (2, 3, 4):
        for _ in range(2):  # the same change, left once and committed once: two branches
            kept.append(fresh.key.grant(fresh.grant(DATA_SLOT, number)))
            kept.append(fresh.key.state())
            fresh.restart_key()
        fresh.store.install(fresh.key, fresh.grant(DATA_SLOT, number))
    fresh.store.clear(fresh.key, DATA_SLOT)
    last = fresh.store.state.read_bytes()
    for state in kept:
        fresh.kill_key()
        fresh.key.identity_open(identity)
        with refused(Status.STATE):
            fresh.key.restore(state)
        for number in (1, 2, 3, 4, 5):
            with refused(Status.ORDER):
                fresh.key.grant(fresh.grant(DATA_SLOT, number))
        assert fresh.kinds() == bytes(16)
    fresh.key.restore(last)
    assert fresh.kinds()[DATA_SLOT] == KeyKind.EMPTY


def test_a_new_identity_brings_no_old_grant_back(fresh):
    """Root may draw one at any time: the parties' grants are for another device then."""
    old = fresh.grants(number=7)
    fresh.kill_key()
    fresh.key.identity_new()
    for one in old:
        with refused(Status.GRANT):
            fresh.key.grant(one)
    fresh.kill_key()
    assert fresh.store.bring_back(fresh.key), "what was not committed changed nothing"
    still_works(fresh)


def test_a_commit_without_a_durable_file_loses_keys_and_wins_nothing(fresh):
    """Root lies about the file: the device has no keys then, until the parties grant anew to a new identity."""
    before = fresh.store.state.read_bytes()
    fresh.key.commit(fresh.key.grant(fresh.grant(DATA_SLOT, 2)))
    fresh.kill_key()
    with pytest.raises(EnclaveError) as caught:
        fresh.store.bring_back(fresh.key)
    assert caught.value.status == Status.STATE and fresh.store.state.read_bytes() == before
    with refused(Status.ORDER):
        fresh.key.grant(fresh.grant(DATA_SLOT, 2))


def test_an_uncommitted_grant_does_not_outlive_the_start_without_its_state(fresh):
    fresh.key.grant(fresh.grant(FREE))
    fresh.restart_key()
    assert fresh.kinds()[FREE] == KeyKind.EMPTY
    assert not fresh.key.info().flags & wire.KEY_FLAG_PENDING
