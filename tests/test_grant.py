"""Grants from both owners to the running applications: taken once, kept, restored; every refusal with one thing broken;
and power lost at every point of the state's protocol.

What no running application can be brought to (a store or a heap that fails) is in tests/c/grant_test.c, root's moves
against grants in tests/attacks/test_grants.py.
"""

import argparse
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import cbor2
import numpy as np
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from attacks.networks import random_coordinates, small
from attacks.node import DATA_SLOT, KEY_ID, MODEL_SLOT, refused
from c import build
from edged import artifacts, device, edgectl
from edged.emulated import public_bytes
from edged.enclave import wire
from edged.enclave.host import HostEnclave
from edged.enclave.key import KeyClient
from edged.enclave.keystore import KeyStore
from edged.enclave.wire import KeyCommand, KeyKind, Placement, Status
from edged.errors import EnclaveError, KeyRefused, PackageError, UsageError, VerificationFailed
from edged.trust import grant
from edged.trust.agreement import sign
from edged.trust.request import spki_of
from granting import GrantedNode, counter, digest, envelope, parts, receiver_of, refused_by_both
from test_identity import version_2  # noqa: F401  # a fixture

MODEL = small(31)
KINDS = bytes([KeyKind.MODEL, KeyKind.DATA, KeyKind.ALERT, KeyKind.ALERT]) + bytes(12)
FREE_SLOT = 9
expect_refused = partial(refused_by_both, KeyClient.grant, grant.open_grant)


def coordinates(persons=2):
    return random_coordinates(np.random.default_rng(), MODEL.shape, persons)


@pytest.fixture(scope="module")
def granted():
    """Shared by tests that change nothing that the next one sees."""
    with GrantedNode() as node:
        yield node


@pytest.fixture
def node():
    with GrantedNode() as node:
        yield node


# --------------------------------------------------------- the happy path ---


def test_a_clip_is_evaluated_under_granted_keys_alone_and_the_city_opens_its_record(node):
    assert node.kinds() == KINDS
    node.load(MODEL, Placement.MASKED)
    camera = node.camera()
    first = node.evaluate(camera, coordinates())
    assert first.kind == wire.RecordKind.OBSERVATION
    node.restart_key()
    assert node.kinds() == KINDS
    node.evaluate(camera, coordinates())  # what the evaluation application holds it keeps
    node.restart_eval()
    node.load(MODEL, Placement.ENCLAVE)
    node.evaluate(node.camera(), coordinates())


def test_a_later_grant_renews_a_key(node):
    node.load(MODEL, Placement.ENCLAVE)
    old = node.data_key
    node.data_key = bytes(range(32))
    node.store.install(node.key, node.grant(DATA_SLOT, 2))
    node.evaluate(node.camera(), coordinates())
    node.restart_key()
    node.evaluate(node.camera(), coordinates())
    node.data_key = old
    with refused(Status.REPLAY):
        node.store.install(node.key, node.grant(DATA_SLOT, 2))


def test_the_two_lengths_of_alert_keys_are_told_by_the_grant(node):
    assert (len(node.alert_key), len(node.short_alert_key)) == (32, 16)  # AttackNode's
    node.restart_key()
    assert node.agree(recipients=node.terms.recipients).terms.digest == node.terms.digest


def test_the_length_of_a_data_key_is_told_by_the_grant(node):
    node.load(MODEL, Placement.ENCLAVE)
    node.data_key = bytes(range(16))
    node.store.install(node.key, node.grant(DATA_SLOT, 2))
    node.restart_key()
    camera = node.camera()
    assert len(camera.key) == 16
    node.evaluate(camera, coordinates())


def test_numbers_are_of_each_party_and_slot(node):
    other = Ed25519PrivateKey.generate()
    node.store.install(node.key, node.grant(FREE_SLOT, 1))
    node.store.install(node.key, node.grant(FREE_SLOT, (1 << 32) - 1))
    with refused(Status.REPLAY):
        node.key.grant(node.grant(FREE_SLOT, (1 << 32) - 1))
    node.store.clear(node.key, FREE_SLOT)
    node.store.install(node.key, node.grant(FREE_SLOT, 1, party=other))
    node.store.install(node.key, node.grant(FREE_SLOT + 1, 1))
    node.restart_key()
    with refused(Status.REPLAY):
        node.key.grant(node.grant(FREE_SLOT, 1, party=other))


def test_a_cleared_slot_stays_empty_and_its_grant_is_not_taken_again(node):
    node.store.clear(node.key, MODEL_SLOT)
    for restart in (lambda: None, node.restart_key):
        restart()
        assert node.kinds() == b"\0" + KINDS[1:]
        with refused(Status.REPLAY):
            node.key.grant(node.grant())
    node.store.install(node.key, node.grant(number=2))
    assert node.kinds() == KINDS


def test_clearing_what_no_grant_filled_is_no_change(granted):
    assert granted.key.clear_slot(FREE_SLOT) == b""
    granted.key.put_slot(FREE_SLOT, KeyKind.DATA, bytes(32), bytes(16), b"v" * 32)
    assert granted.key.clear_slot(FREE_SLOT) == b""
    assert not granted.key.info().flags & wire.KEY_FLAG_PENDING


def test_a_grant_takes_the_place_of_its_own_partys_key_in_clear_and_of_no_others(node):
    node.key.put_slot(FREE_SLOT, KeyKind.MODEL, bytes(32), bytes(16), public_bytes(node.qdo))
    with refused(Status.KEY):
        node.key.grant(node.grant(FREE_SLOT))
    node.key.put_slot(FREE_SLOT, KeyKind.MODEL, bytes(32), bytes(16), public_bytes(node.owner))
    node.store.install(node.key, node.grant(FREE_SLOT))
    with refused(Status.KEY):
        node.key.put_slot(FREE_SLOT, KeyKind.MODEL, bytes(32), bytes(16), public_bytes(node.owner))


def test_forty_numbers_are_known_and_then_no_new_party(node):
    parties = [Ed25519PrivateKey.generate() for _ in range(wire.KEY_NUMBERS - len(node.keys))]
    for party in parties:
        node.store.install(node.key, node.grant(FREE_SLOT, 5, party=party))
        node.store.clear(node.key, FREE_SLOT)
    with refused(Status.FULL):
        node.key.grant(node.grant(FREE_SLOT, 5))
    with refused(Status.REPLAY):
        node.key.grant(node.grant(FREE_SLOT, 5, party=parties[0]))
    node.store.install(node.key, node.grant(FREE_SLOT, 6, party=parties[0]))
    node.restart_key()
    with refused(Status.FULL):
        node.key.grant(node.grant(FREE_SLOT + 1))


def test_the_state_fits_the_memory_and_the_stack(granted):
    memory = granted.key.stats()
    assert memory.heap_peak <= 16 << 10  # the library's own, 18 KB, comes on top on Trusty
    assert memory.stack_peak <= memory.stack_limit * 3 // 4


# ---------------------------------------------------------------- refusals ---


def broken_headers(node):
    """(what is wrong, header)"""
    right = {"form": grant.FORM, "kind": 1, "slot": FREE_SLOT, "device": grant.thumbprint(node.receiver),
             "key_id": bytes(16), "number": 7, "verifier": public_bytes(node.owner), "agreement": b"a" * 32}
    wrong = [("form", "edged grant 2"), ("form", b"edged grant 1"), ("kind", 0), ("kind", 4), ("kind", -1),
             ("kind", True), ("slot", 16), ("slot", 1 << 40), ("slot", 9.0), ("device", b"d" * 31),
             ("device", b"d" * 33), ("device", "d" * 32), ("key_id", bytes(15)), ("key_id", bytes(17)), ("number", 0),
             ("number", 1 << 32), ("number", -1), ("verifier", bytes(32)), ("verifier", b"v" * 31),
             ("agreement", bytes(32)), ("agreement", b"a" * 31)]
    for name, value in wrong:
        yield "{} {!r}".format(name, value), cbor2.dumps(dict(right, **{name: value}), canonical=True)
    for name in right:
        yield "no " + name, cbor2.dumps({key: value for key, value in right.items() if key != name}, canonical=True)
    yield "one field more", cbor2.dumps(dict(right, extra=1), canonical=True)
    yield "another order", cbor2.dumps(dict(reversed(list(right.items()))))
    canonical = cbor2.dumps(right, canonical=True)
    assert cbor2.dumps(right) == canonical
    yield "a map of indefinite length", b"\xbf" + canonical[1:] + b"\xff"
    yield "a number not in its shortest form", canonical.replace(b"fnumber\x07", b"fnumber\x18\x07")
    yield "a string's length not in its shortest form", canonical.replace(b"fdevice\x58\x20", b"fdevice\x59\x00\x20")
    yield "bytes after it", canonical + b"\0"
    yield "cut off", canonical[:-1]
    yield "empty", b""
    yield "no map", cbor2.dumps(list(right.values()))


def test_every_wrong_header_is_refused_although_signed_and_wrapped_for_it(granted):
    for what, header in broken_headers(granted):
        encoded = grant.seal(header, grant.wrap(header, bytes(32), granted.receiver), granted.owner)
        try:
            expect_refused(granted, encoded)
        except BaseException:
            print(what)
            raise


def test_every_wrong_envelope_is_refused(granted):
    right = granted.grant(FREE_SLOT)
    header, wrapped, signature = parts(right)
    payload = cbor2.dumps([header, wrapped])
    assert envelope(payload, signature) == right

    def signed(content):
        return grant.cose.sign_ed25519(content, granted.owner, grant.EXTERNAL)

    cases = [right + b"\0", right[:-1], right[1:], b"\xd1" + right[1:], b"\xd2" + right, b"\0",
             envelope(payload, signature[:-1]), envelope(payload, signature + b"\0"),
             envelope(payload, signature, b""), envelope(payload, signature, b"\xa1\x01\x38\x24"),
             envelope(payload, signature, unprotected={4: b"k"}),
             b"\xd2\x9f" + right[2:] + b"\xff",
             b"\xd2\x84\x58\x03" + right[3:],
             signed(cbor2.dumps([header])), signed(cbor2.dumps([header, wrapped, b""])),
             signed(cbor2.dumps([wrapped, header])), signed(cbor2.dumps([header, wrapped[:-1]])),
             signed(cbor2.dumps([header, wrapped + b"\0"])), signed(cbor2.dumps([header, ""])),
             signed(cbor2.dumps({0: header, 1: wrapped})), signed(payload + b"\0"), signed(b"")]
    for encoded in cases:
        expect_refused(granted, encoded, error=(PackageError, VerificationFailed))


def test_a_wrapped_key_of_3072_bits_is_refused(granted):
    """The key application's own keys have 2048."""
    header, _, _ = parts(granted.grant(FREE_SLOT))
    to = rsa.generate_private_key(65537, 3072).public_key()
    wrapped = to.encrypt(bytes(32), grant._oaep(header))
    expect_refused(granted, grant.seal(header, wrapped, granted.owner))


@pytest.mark.parametrize("external", [b"", b"edged grant 2", b"edged package", b"edged agreement"])
def test_a_signature_about_something_else_is_refused(granted, external):
    header, wrapped, _ = parts(granted.grant(FREE_SLOT))
    expect_refused(granted, grant.cose.sign_ed25519(cbor2.dumps([header, wrapped]), granted.owner, external),
                   error=(VerificationFailed,))


def test_any_flipped_bit_is_refused(granted):
    right = granted.grant(FREE_SLOT)
    for at in range(0, len(right)):
        encoded = bytearray(right)
        encoded[at] ^= 1 << at % 8
        expect_refused(granted, bytes(encoded), error=(PackageError, VerificationFailed))


def test_whatever_is_wrong_with_the_wrapped_key_the_answer_is_one(granted):
    """Signed by its party throughout: OAEP, label and length are judged last, and tell nothing."""
    header, wrapped, _ = parts(granted.grant(FREE_SLOT))
    public = granted.receiver

    def oaep(key, label=digest(header), hash_=hashes.SHA256, mgf=hashes.SHA256):
        return grant.read_rsa(public, "").encrypt(key, padding.OAEP(padding.MGF1(mgf()), hash_(), label))

    cases = [bytes(256), b"\xff" * 256, wrapped[::-1], oaep(b"k" * 32, b""), oaep(b"k" * 32, header),
             oaep(b"k" * 32, digest(header + b"\0")), oaep(b"k" * 32, hash_=hashes.SHA1),
             oaep(b"k" * 32, mgf=hashes.SHA1), grant.read_rsa(public, "").encrypt(b"k" * 32, padding.PKCS1v15())]
    cases += [oaep(bytes(size)) for size in (0, 1, 15, 16, 17, 31, 33, 64, 190)]
    for ciphertext in cases:
        expect_refused(granted, grant.seal(header, ciphertext, granted.owner), error=())


@pytest.mark.parametrize("kind, size", [(KeyKind.ALERT, 0), (KeyKind.ALERT, 15), (KeyKind.ALERT, 17),
                                        (KeyKind.ALERT, 24), (KeyKind.ALERT, 33), (KeyKind.DATA, 15),
                                        (KeyKind.DATA, 24), (KeyKind.MODEL, 16)])
def test_a_key_of_a_length_that_its_kind_does_not_have_is_refused(granted, kind, size):
    expect_refused(granted, granted.grant(FREE_SLOT, kind=kind, key=bytes(size)), error=())


def test_without_an_identity_nothing_of_grants_is_permitted():
    with tempfile.TemporaryDirectory(prefix="edged-") as folder, HostEnclave(folder) as enclave:
        key = KeyClient(enclave.connect_key())
        for cmd, body in ((KeyCommand.GRANT, b"\0"), (KeyCommand.STATE, b""), (KeyCommand.COMMIT, bytes(8)),
                          (KeyCommand.RESTORE, bytes(wire.KeyState.size()))):
            assert key.connection.call(cmd, body)[0] == Status.ORDER
        key.close()




# ------------------------------------------- the state, and losses of power ---


def stored(node):
    return node.store.state.read_bytes()


def test_a_change_waits_for_its_commit(node):
    state = node.key.grant(node.grant(FREE_SLOT))
    assert node.kinds()[FREE_SLOT] == KeyKind.MODEL, "it is in force at once"
    assert node.key.info().flags & wire.KEY_FLAG_PENDING
    with refused(Status.ORDER):
        node.key.grant(node.grant(FREE_SLOT + 1))
    with refused(Status.ORDER):
        node.key.clear_slot(FREE_SLOT)
    again = node.key.state()
    assert again != state and counter(again) == counter(state), "sealed anew, and the same state"
    for wrong in (counter(state) - 1, counter(state) + 1, 0, (1 << 64) - 1):
        assert node.key.connection.call(KeyCommand.COMMIT, struct.pack("<Q", wrong))[0] == Status.ARGUMENT
    node.key.commit(again)
    node.key.commit(again)
    assert not node.key.info().flags & wire.KEY_FLAG_PENDING
    node.key.grant(node.grant(FREE_SLOT + 1))


# A change is taken (1), its state is durable (2), the store is raised (3), the client hears so. Power is lost after:
@pytest.mark.parametrize("written, committed, expected", [(False, False, False), (True, False, True),
                                                          (True, True, True)])
@pytest.mark.parametrize("clearing", [False, True])
def test_power_lost_at_any_point_leaves_the_state_before_or_after(node, written, committed, expected, clearing):
    if clearing:
        node.store.install(node.key, node.grant(FREE_SLOT))
    state = node.key.clear_slot(FREE_SLOT) if clearing else node.key.grant(node.grant(FREE_SLOT))
    if written:
        node.store._replace(state)
    if committed:
        node.key.commit(state)
    for _ in range(2):  # power may be lost again and again
        node.restart_key()
        assert (node.kinds()[FREE_SLOT] == (0 if clearing else KeyKind.MODEL)) == expected
    again = 1 if not clearing and not expected else 2
    node.store.install(node.key, node.grant(FREE_SLOT, again))
    node.restart_key()
    assert node.kinds()[FREE_SLOT] == KeyKind.MODEL


def test_whoever_stopped_between_the_steps_does_not_stop_the_next(node):
    node.key.grant(node.grant(FREE_SLOT))  # and the client is killed
    node.key.close()
    node.key = node.connect_key()
    assert node.store.bring_back(node.key)
    assert not node.key.info().flags & wire.KEY_FLAG_PENDING
    node.restart_key()
    assert node.kinds()[FREE_SLOT] == KeyKind.MODEL


# The points at which a drawing may be stopped, in the order of KeyStore.draw.
@pytest.mark.parametrize("point", ["drawn", "answered", "kept", "state", "identity", "committed"])
def test_power_lost_while_an_identity_is_drawn_leaves_one_that_works(point):
    with tempfile.TemporaryDirectory(prefix="edged-") as folder, HostEnclave(folder) as enclave:
        store, key = KeyStore(folder), KeyClient(enclave.connect_key())
        for before in (False, True):  # the first, and one after another
            identity = key.identity_new()
            state = key.state() if point != "drawn" else None
            if point in ("kept", "state", "identity", "committed"):
                store.drawn.write_bytes(identity)
            if point in ("state", "identity", "committed"):
                store._replace(state)
            if point in ("identity", "committed"):
                store.drawn.rename(store.identity)
            if point == "committed":
                key.commit(state)
            key.close()
            enclave.restart_key()
            key = KeyClient(enclave.connect_key())
            if not store.bring_back(key):
                store.draw(key)
            assert not store.drawn.exists() and store.lost() is None
            party, receiver = Ed25519PrivateKey.generate(), receiver_of(key)
            store.install(key, grant.make(KeyKind.DATA, 4, bytes(32), bytes(16), 1, b"a" * 32, receiver, party))
            for path in (store.identity, store.state):
                path.rename(str(path) + ".moved-aside")
            key.close()
            enclave.restart_key()
            key = KeyClient(enclave.connect_key())
        key.close()


def test_an_altered_state_is_refused(node):
    sealed = stored(node)
    node.kill_key()
    node.key.identity_open(node.store.identity.read_bytes())
    for at in sorted({0, 4, 8, 39, 40, 47, 48, len(sealed) - 17, len(sealed) - 1} | set(range(0, len(sealed), 97))):
        with refused(Status.STATE):
            node.key.restore(sealed[:at] + bytes([sealed[at] ^ 1 << at % 8]) + sealed[at + 1:])
    for wrong in (b"", sealed[:-1], sealed + b"\0"):
        with refused(Status.LENGTH):
            node.key.restore(wrong)
    node.key.restore(sealed)
    with refused(Status.ORDER):
        node.key.restore(sealed)
    assert node.kinds() == KINDS


def test_a_state_is_restored_after_its_identity_and_before_any_slot_is_filled(node):
    sealed, identity = stored(node), node.store.identity.read_bytes()
    node.kill_key()
    with refused(Status.ORDER):
        node.key.restore(sealed)
    node.key.identity_open(identity)
    node.key.put_slot(FREE_SLOT, KeyKind.DATA, bytes(32), bytes(16), b"v" * 32)
    with refused(Status.ORDER):
        node.key.restore(sealed)
    node.key.clear_slot(FREE_SLOT)
    node.key.restore(sealed)


def test_an_older_state_is_refused_after_a_newer_one(node):
    states = [stored(node)]
    for number in (1, 2, 3):
        node.store.install(node.key, node.grant(FREE_SLOT, number))
        states.append(stored(node))
    node.kill_key()
    node.key.identity_open(node.store.identity.read_bytes())
    for old in states[:-1]:
        with refused(Status.STATE):
            node.key.restore(old)
    node.key.restore(states[-1])


def test_a_branch_that_was_left_uncommitted_is_refused_once_the_other_is_committed(node):
    """Two successors of one state have one counter: the store holds the name of the committed one, too."""
    left = node.key.grant(node.grant(FREE_SLOT, 1))
    node.restart_key()
    node.store.install(node.key, node.grant(FREE_SLOT, 2))
    assert counter(left) == counter(stored(node))
    node.kill_key()
    node.key.identity_open(node.store.identity.read_bytes())
    with refused(Status.STATE):
        node.key.restore(left)
    node.key.restore(stored(node))
    with refused(Status.REPLAY):
        node.key.grant(node.grant(FREE_SLOT, 1))


def test_without_its_state_an_identity_takes_no_grant(node):
    node.kill_key()
    node.key.identity_open(node.store.identity.read_bytes())
    with refused(Status.ORDER):
        node.key.grant(node.grant(FREE_SLOT, 9))
    with refused(Status.ORDER):
        node.key.state()
    assert node.kinds() == bytes(16)
    node.store.state.rename(node.folder / "moved")
    with pytest.raises(EnclaveError, match="key-state.sealed: is missing, .*edgectl identity new"):
        node.store.install(node.key, node.grant(FREE_SLOT, 9))


def test_a_store_that_was_emptied_opens_no_state(node):
    node.enclave.key.kill()
    node.enclave.key.wait()
    (node.folder / "counter").unlink()
    node.kill_key()
    with pytest.raises(EnclaveError, match="key-state.sealed: refused") as caught:
        node.store.bring_back(node.key)
    assert caught.value.status == Status.STATE


def test_a_store_cut_short_in_a_write_keeps_what_it_held(node):
    """The newer of two places is spoiled, as a write that power ended leaves it: the older one counts."""
    node.key.grant(node.grant(FREE_SLOT))
    node.enclave.key.kill()
    node.enclave.key.wait()
    path = node.folder / "counter"
    content = bytearray(path.read_bytes())
    places = {0: struct.unpack_from("<Q", content)[0], 4096: struct.unpack_from("<Q", content, 4096)[0]}
    older = min(places, key=places.get)
    content[older:older + 20] = os.urandom(20)  # where the commit would have written
    path.write_bytes(bytes(content))
    node.restart_key()
    assert node.kinds() == KINDS


@pytest.mark.parametrize("spoil", [lambda path: path.chmod(0o640), lambda path: (path.unlink(), path.mkdir())])
def test_a_store_that_others_may_write_ends_the_start(node, spoil):
    node.enclave.key.kill()
    node.enclave.key.wait()
    spoil(node.folder / "counter")
    with pytest.raises((KeyRefused, EnclaveError)):
        node.enclave.restart_key()
    shutil.rmtree(str(node.folder / "counter"), ignore_errors=True)
    if (node.folder / "counter").exists():
        (node.folder / "counter").chmod(0o600)
    node.enclave.restart_key()


def test_a_new_identity_ends_the_old_ones_states_and_grants(node):
    old_state, old_identity, old_grant = stored(node), node.store.identity.read_bytes(), node.grant(FREE_SLOT)
    for path in (node.store.identity, node.store.state):
        path.unlink()
    node.kill_key()
    node.store.draw(node.key)
    with refused(Status.GRANT):
        node.key.grant(old_grant)
    node.receiver = receiver_of(node.key)
    for one in node.grants():
        node.store.install(node.key, one)
    assert node.kinds() == KINDS
    node.kill_key()
    node.key.identity_open(old_identity)
    with refused(Status.STATE):
        node.key.restore(old_state)
    with refused(Status.ORDER):
        node.key.grant(old_grant)


def test_a_state_of_another_identity_or_device_is_refused(node):
    with GrantedNode() as other:
        theirs, their_identity = stored(other), other.store.identity.read_bytes()
    node.kill_key()
    with refused(Status.STATE):
        node.key.identity_open(their_identity)
    node.key.identity_open(node.store.identity.read_bytes())
    with refused(Status.STATE):
        node.key.restore(theirs)
    node.key.restore(stored(node))


@pytest.mark.skipif(bool(build.missing("make", "gcc")), reason="needs make and gcc")
def test_a_newer_application_opens_the_state_and_an_older_one_does_not(node, version_2, monkeypatch):
    old = stored(node)
    monkeypatch.setenv(artifacts.BUILD_VARIABLE, str(version_2))
    node.restart_key()
    assert node.kinds() == KINDS
    node.store.install(node.key, node.grant(FREE_SLOT))
    new = stored(node)
    assert [wire.KeyState.unpack(state).security_version for state in (old, new)] == [1, 2]
    monkeypatch.delenv(artifacts.BUILD_VARIABLE)
    node.kill_key()
    node.key.identity_open(node.store.identity.read_bytes())
    for wrong in (new, new[:4] + struct.pack("<I", 1) + new[8:], old):  # the version is bound; old is older
        with refused(Status.STATE):
            node.key.restore(wrong)


# ------------------------------------------------------- Python's own half ---


def receiver(bits=2048):
    return spki_of(rsa.generate_private_key(65537, bits).public_key())


def test_what_is_made_is_read_back():
    party, to = Ed25519PrivateKey.generate(), receiver()
    encoded = grant.make(KeyKind.ALERT, 15, bytes(16), b"i" * 16, 1 << 31, b"a" * 32, to, party)
    assert grant.open_grant(encoded) == grant.Grant(
        KeyKind.ALERT, 15, grant.thumbprint(to), b"i" * 16, 1 << 31, public_bytes(party), b"a" * 32)
    assert len(encoded) <= grant.GRANT_MAX


@pytest.mark.parametrize("changes, error", [
    ({"key": bytes(16), "kind": KeyKind.MODEL}, KeyRefused), ({"key": b""}, KeyRefused),
    ({"kind": KeyKind.EMPTY}, KeyRefused),
    ({"slot": 16}, UsageError), ({"slot": -1}, UsageError), ({"number": 0}, UsageError),
    ({"number": 1 << 32}, UsageError), ({"key_id": bytes(15)}, UsageError), ({"agreement": bytes(32)}, UsageError),
    ({"agreement": b"a" * 31}, UsageError), ({"receiver": b"no key"}, PackageError)])
def test_what_would_be_refused_is_not_made(changes, error):
    right = {"kind": KeyKind.DATA, "slot": 1, "key": bytes(32), "key_id": bytes(16), "number": 1,
             "agreement": b"a" * 32, "receiver": receiver(), "signing_key": Ed25519PrivateKey.generate()}
    grant.make(**right)
    with pytest.raises(error):
        grant.make(**dict(right, **changes))


@pytest.mark.parametrize("bits", [1024, 3072])
def test_a_grant_for_a_weak_key_or_one_that_no_device_draws_is_not_made(bits):
    with pytest.raises(PackageError, match="2048"):
        grant.make(KeyKind.DATA, 1, bytes(32), bytes(16), 1, b"a" * 32, receiver(bits), Ed25519PrivateKey.generate())


# -------------------------------------------------------------------- C ---


@pytest.mark.skipif(bool(build.missing("make", "cc")), reason="needs make and cc")
def test_what_a_platform_that_fails_does_changes_nothing():
    build.make("native")
    build.run(build.FOLDER / "native/grant_test")


# --------------------------------------------------------------- edgectl ---


@contextmanager
def alone():
    """A node whose key application nobody holds."""
    with GrantedNode() as node:
        node.key.close()
        yield node


def run(*arguments):
    return edgectl.main([str(one) for one in arguments])


def test_edgectl_installs_grants_and_keeps_them(tmp_path, capsys):
    with alone() as node:
        files = []
        for number in (3, 2):  # the older first, in whatever order they are named
            files.append(tmp_path / "{}.grant".format(number))
            files[-1].write_bytes(node.grant(FREE_SLOT, number))
        whose = ("--agreement", node.agreement_file, "--at", node.folder)
        assert run("install-grant", *files, *whose) == 0
        assert "slot 9 has model key" in capsys.readouterr().out
        assert run("install-grant", files[0], *whose) == 76
        assert "higher number" in capsys.readouterr().err
        node.enclave.restart_key()
        assert run("identity", "show", "--at", node.folder) == 0
        shown = json.loads(capsys.readouterr().out)
        assert shown["key_slots"][FREE_SLOT] == {
            "kind": "model", "key_id": KEY_ID.hex(), "verifier": public_bytes(node.owner).hex(), "locked": False,
            "agreement": node.terms.digest.hex()}
        assert shown["granted"] and not shown["locked"]
        assert shown["device"] == grant.thumbprint(node.receiver).hex()
        assert run("clear-slot", FREE_SLOT, "--at", node.folder) == 0
        assert run("clear-slot", 16, "--at", node.folder) == 2
        node.enclave.restart_key()
        assert run("identity", "show", "--at", node.folder) == 0
        assert json.loads(capsys.readouterr().out.split("\n", 1)[1])["key_slots"][FREE_SLOT] == {"kind": "empty"}


def flipped(content):
    return content[:-1] + bytes([content[-1] ^ 1])


class TwoCities:
    """A node with the grants of its agreement, which edgectl installed, and grants for the same slots of another."""

    def __init__(self, node, folder, **changes):
        self.node, self.folder = node, folder
        self.city = node.qdo if changes else Ed25519PrivateKey.generate()
        self.other = replace(node.terms, qdo=public_bytes(self.city), **changes)
        self.agreement = folder / "other.cose"
        self.agreement.write_bytes(sign(self.other.encode(), node.owner, self.city))
        assert run("install-grant", *self.files(2), "--agreement", node.agreement_file, "--at", node.folder) == 0

    def files(self, number, other=False):
        made = []
        for slot, (_, _, _, party) in self.node.keys.items():
            made.append(self.folder / "{}-{}-{}".format(slot, number, other))
            changes = {}
            if other:
                changes = {"agreement": self.other.digest, "party": self.city if party is self.node.qdo else party}
            made[-1].write_bytes(self.node.grant(slot, number, **changes))
        return made

    def install(self, *more):
        files = self.files(3, True)
        return run("install-grant", *files, "--agreement", self.agreement, "--agreement", self.node.agreement_file,
                   "--at", self.node.folder, *more)

    def goes_on(self):
        """The evaluation application, started anew, takes the first agreement as ever."""
        self.node.kill_eval()
        self.node.agree()


@pytest.mark.parametrize("changes", [{}, {"number": 3}], ids=["another city", "the next but one"])
def test_grants_for_slots_that_an_agreement_in_use_has_are_refused(tmp_path, capsys, changes):
    """The default slots are every city's: the second one's grants ended the first one's agreement."""
    with alone() as node:
        two = TwoCities(node, tmp_path, **changes)
        for _ in range(2):
            capsys.readouterr()
            assert two.install() == 77
            said = capsys.readouterr().err
            assert len(said.splitlines()) == 1 and "slot 0 holds the model key of agreement 1" in said
            assert "first_slot" in said and "--first-slot" in said and "--overwrite" in said
            two.goes_on()
            node.enclave.restart_key()  # what is there after a restore is known, too
            assert run("identity", "show", "--at", node.folder) == 0
            node.kill_eval()


def test_what_came_in_one_hand_over_counts_too(tmp_path, capsys):
    with alone() as node:
        two = TwoCities(node, tmp_path)
        for slot in node.keys:
            assert run("clear-slot", slot, "--at", node.folder) == 0
        files = two.files(4) + two.files(5, True)
        whose = ("--agreement", two.agreement, "--agreement", node.agreement_file, "--at", node.folder)
        assert run("install-grant", *files, *whose) == 77
        with closing(node.connect_key()) as key:
            assert not any(key.info().kinds)


@pytest.mark.parametrize("let", ["--overwrite", "clear-slot", "not in use"])
def test_slots_are_free_to_be_granted_anew_where_nobody_uses_them(tmp_path, let):
    with alone() as node:
        two = TwoCities(node, tmp_path, number=3)
        if let == "clear-slot":
            for slot in node.keys:
                assert run("clear-slot", slot, "--at", node.folder) == 0
        if let == "not in use":  # the agreement is over, and no longer configured
            assert run("install-grant", *two.files(3, True), "--agreement", two.agreement,
                       "--at", node.folder) == 0
        else:
            assert two.install(*([let] if let == "--overwrite" else [])) == 0
        with closing(node.connect_key()) as key:
            assert {slot.agreement for slot in key.slots() if slot.kind} == {two.other.digest}


@pytest.mark.parametrize("where", ["configured", "beside"])
def test_the_configurations_agreements_and_what_lies_beside_them_are_in_use(tmp_path, where):
    with alone() as node:
        two = TwoCities(node, tmp_path)
        mine = tmp_path / "mine.cose"
        if where == "configured":
            agreements = [str(node.agreement_file), str(two.agreement)]
        else:
            mine.write_bytes(two.agreement.read_bytes())
            (tmp_path / "mine.cose.next").write_bytes(node.agreement_file.read_bytes())
            agreements = [str(mine)]
        used = device.Device(str(node.folder), str(node.folder), agreements)
        given = argparse.Namespace(files=[str(one) for one in two.files(3, True)], agreement=None,
                                   any_signer=True, overwrite=False)
        with pytest.raises(KeyRefused, match="slot 0 holds the model key of agreement 1"):
            device.install_grant(used, given)


def test_a_faulty_agreement_stops_no_other_citys_grants_and_its_slots_are_not_written_over(tmp_path):
    with alone() as node:
        two = TwoCities(node, tmp_path)
        mine, broken = node.agreement_file, tmp_path / "broken.cose"
        broken.write_bytes(mine.read_bytes()[:-1])
        used = device.Device(str(node.folder), str(node.folder), [str(broken), str(two.agreement)])

        def install(files, overwrite=False):
            device.install_grant(used, argparse.Namespace(files=[str(one) for one in files], agreement=None,
                                                          any_signer=False, overwrite=overwrite))

        with pytest.raises(KeyRefused, match="slot 0 holds the model key of an agreement that may be in use"):
            install(two.files(3, True))
        free = tmp_path / "free"
        free.write_bytes(node.grant(FREE_SLOT, 4, agreement=two.other.digest))
        install([free])
        install([free.parent / "0-3-True"], overwrite=True)
        used.agreements = [str(broken)]
        with pytest.raises((PackageError, VerificationFailed), match="broken.cose"):
            install([free])


def test_edgectl_judges_all_grants_before_it_hands_over_one(tmp_path, capsys):
    with alone() as node:
        right, wrong, signed = tmp_path / "right", tmp_path / "wrong", node.agreement_file
        right.write_bytes(node.grant(FREE_SLOT))
        stranger = Ed25519PrivateKey.generate()
        with closing(node.connect_key()) as node.key:
            floors = [node.floor(node.qdo), node.floor(stranger, {})]
        for content, code, said in [(b"nonsense", 65, "grant is not a COSE_Sign1"),
                                    (node.grant(FREE_SLOT, receiver=receiver()), 77, "is for device"),
                                    (flipped(node.grant(FREE_SLOT)), 76, "does not verify"),
                                    (flipped(floors[0]), 76, "floor: its signature does not verify"),
                                    (node.grant(FREE_SLOT, party=stranger), 76, "no owner of"),
                                    (floors[1], 76, "no owner of")]:
            wrong.write_bytes(content)
            assert run("install-grant", right, wrong, "--agreement", signed, "--at", node.folder) == code
            lines = capsys.readouterr().err.splitlines()
            assert len(lines) == 1 and said in lines[0] and str(wrong) in lines[0]
        assert run("install-grant", tmp_path / "none", "--agreement", signed, "--at", node.folder) == 66
        assert run("install-grant", right, "--agreement", tmp_path / "none", "--at", node.folder) == 66
        assert run("install-grant", right, "--agreement", right, "--at", node.folder) in (65, 76)
        assert run("install-grant", right, "--at", node.folder) == 2
        assert "--any-signer" in capsys.readouterr().err
        with closing(node.connect_key()) as key:
            assert bytes(key.info().kinds) == KINDS




def test_edgectl_draws_asks_and_attests(tmp_path, capsys):
    with tempfile.TemporaryDirectory(prefix="edged-") as folder:
        secret = Path(folder) / "station.secret"
        secret.write_bytes(bytes(range(32)))
        secret.chmod(0o600)
        with HostEnclave(folder) as enclave:
            assert run("attest", "--nonce", "00" * 16, "--out", tmp_path / "e", "--at", folder) == 77
            assert "edgectl identity new" in capsys.readouterr().err
            assert run("identity", "new", "--at", folder) == 0
            assert run("identity", "new", "--at", folder) == 77
            capsys.readouterr()
            assert run("identity", "request", "--challenge", "11" * 32, "--out", tmp_path / "r", "--at", folder) == 0
            assert run("identity", "request", "--challenge", "11" * 31, "--out", tmp_path / "q", "--at", folder) == 2
            assert run("attest", "--nonce", "22" * 16, "--out", tmp_path / "e", "--at", folder) == 0
            assert "WITHOUT certificates" in capsys.readouterr().out
            for nonce in ("22" * 15, "22" * 65, "zz"):
                assert run("attest", "--nonce", nonce, "--out", tmp_path / "f", "--at", folder) == 2
            enclave.restart_key()
            assert run("attest", "--nonce", "22" * 16, "--out", tmp_path / "g", "--at", folder) == 0
            (Path(folder) / "identity.sealed").write_bytes(bytes(wire.Identity.size()))
            enclave.restart_key()
            capsys.readouterr()
            assert run("identity", "show", "--at", folder) == 69
            assert "identity.sealed: refused" in capsys.readouterr().err
            (Path(folder) / "identity.sealed").write_bytes(b"short")
            assert run("identity", "show", "--at", folder) == 69
        assert run("identity", "show", "--at", tmp_path / "none") == 2
        assert run("identity", "show", "--keep", tmp_path) == 2


def test_the_files_are_open_to_their_owner_alone(granted):
    for path in (granted.store.identity, granted.store.state, granted.folder / "counter"):
        assert path.stat().st_mode & 0o777 == 0o600


def test_neither_files_nor_answers_hold_a_granted_key(node):
    answers = [node.key.state(), stored(node), node.store.identity.read_bytes(), (node.folder / "counter").read_bytes(),
               node.key.connection.call(KeyCommand.INFO)[1], node.key.connection.call(KeyCommand.LIST)[1],
               node.key.attest(bytes(16))] + node.grants(7)
    everything = b"|".join(answers)
    for key in (node.model_key, node.data_key, node.alert_key, node.short_alert_key):
        assert key[:16] not in everything and key[-16:] not in everything


def test_the_list_of_slots_says_whose_keys_they_hold_and_for_what_and_holds_none(node):
    """All of it stands in the grants' headers, and what is in clear there is for any agreement."""
    planted = {FREE_SLOT: os.urandom(32), FREE_SLOT + 1: os.urandom(16)}
    for slot, key in planted.items():
        node.key.put_slot(slot, KeyKind.ALERT, key, bytes([slot]) * 16, b"v" * 32)
    listed = node.key.slots()
    answer = node.key.connection.call(KeyCommand.LIST)[1]
    assert len(listed) == wire.KEY_SLOTS and len(answer) == wire.KEY_SLOTS * wire.Listed.size()
    for slot, (kind, key, key_id, party) in node.keys.items():
        assert listed[slot] == wire.Listed(kind, wire.KEY_LISTED_GRANTED, key_id, public_bytes(party),
                                           node.terms.digest)
        planted[slot] = key
    for slot in (FREE_SLOT, FREE_SLOT + 1):
        assert listed[slot] == wire.Listed(KeyKind.ALERT, 0, bytes([slot]) * 16, b"v" * 32, bytes(32))
    empty = [slot for slot, one in enumerate(listed) if one == wire.Listed(0, 0, bytes(16), bytes(32), bytes(32))]
    assert empty == [slot for slot in range(wire.KEY_SLOTS) if slot not in planted]
    for key in planted.values():
        for at in range(0, len(key) - 7):
            assert key[at:at + 8] not in answer
    node.key.clear_slot(FREE_SLOT)
    node.store.clear(node.key, MODEL_SLOT)
    assert not any(node.key.slots()[slot].kind for slot in (FREE_SLOT, MODEL_SLOT))


def test_edgectl_says_of_itself_how_to_be_used():
    for arguments in (["identity"], ["identity", "new"], ["install-grant"], ["attest"], ["clear-slot"]):
        done = subprocess.run([sys.executable, "-m", "edged.edgectl"] + arguments + ["--help"],
                              stdout=subprocess.PIPE, cwd=str(Path(__file__).resolve().parent.parent))
        assert done.returncode == 0 and b"usage: edgectl" in done.stdout
