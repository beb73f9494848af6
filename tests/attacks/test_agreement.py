"""Agreements: none is in force that both parties did not sign for these keys, and nothing is done that it does not
cover. Each test starts from one that is taken."""

import time
from dataclasses import replace

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agreement_cases import malformed, misshapen, out_of_range
from attacks.networks import random_coordinates, small
from attacks.node import (
    ALERT_KEY_ID, ALERT_SLOT, DATA_SLOT, KEY_ID, MODEL_ID, MODEL_SLOT, SHORT_ALERT_KEY_ID, SHORT_ALERT_SLOT, AttackNode,
    confirm_all, recipient, refused, short_recipient, spoil,
)  # fmt: skip
from edged.emulated import public_bytes
from edged.enclave import wire
from edged.enclave.wire import EvalCommand, KeyKind, Placement, RecordKind, Status
from edged.errors import EnclaveError
from edged.model import package
from edged.trust.agreement import ModelTerms, Recipient, Rule, sign

MODEL = small(24)
LABELS = MODEL.labels
RNG = np.random.default_rng()
OTHER = Ed25519PrivateKey.generate()
NS = 10 ** 9
TRIES = 50


def coordinates(persons=1):
    return random_coordinates(RNG, MODEL.shape, persons)


def two_of_each(node, **changes):
    """Terms with two rules and two recipients."""
    return replace(node.terms, number=500, body=512, rules=(Rule(LABELS[0], 40000, 60), Rule(LABELS[1], 1, 0)),
                   recipients=(Recipient(b"1" * 16, ALERT_KEY_ID, 1, (3, 1)),
                               Recipient(b"2" * 16, SHORT_ALERT_KEY_ID, 1, (0, 3))), **changes)


@pytest.fixture
def nothing_new(node):
    """Whatever a test tries: no agreement more is in force, no record was sealed."""
    before = node.client.info()
    yield
    assert node.client.info() == before


def put(node, signed, model=MODEL_SLOT, data=DATA_SLOT, slots=(ALERT_SLOT, SHORT_ALERT_SLOT)):
    return node.client.put_agreement(model, data, slots, signed)


def signed_by_both(node, **changes):
    return sign(two_of_each(node, **changes).encode(), node.owner, node.qdo)


# What is signed, and by whom.


def test_the_same_agreement_again_gives_the_same_index_and_no_record(fresh_node):
    node = fresh_node
    signed = signed_by_both(node)
    first = put(node, signed)
    assert (first.index, len(first.records)) == (1, 2)
    for slots in ((ALERT_SLOT, SHORT_ALERT_SLOT), (ALERT_SLOT, ALERT_SLOT)):  # its keys were taken already
        assert put(node, signed, slots=slots) == (1, (), first.emission)
    assert node.client.info().agreements == 2


def test_an_agreement_that_one_party_did_not_sign_is_refused(node, nothing_new):
    payload = two_of_each(node).encode()
    for keys in ((node.owner, node.owner), (node.qdo, node.qdo), (node.qdo, node.owner), (OTHER, node.qdo),
                 (node.owner, OTHER)):
        with refused(Status.AGREEMENT):
            put(node, sign(payload, *keys))


@pytest.mark.parametrize("party", ["mo", "qdo"])
def test_an_agreement_of_another_party_than_the_slots_keys_have_is_refused(node, nothing_new, party):
    """It is truly signed by both whom it names: but one of them is nobody here."""
    payload = replace(two_of_each(node), **{party: public_bytes(OTHER)}).encode()
    keys = dict({"mo": node.owner, "qdo": node.qdo}, **{party: OTHER})
    with refused(Status.AGREEMENT):
        put(node, sign(payload, keys["mo"], keys["qdo"]))


def test_the_signatures_of_one_agreement_do_not_serve_another(node, nothing_new):
    old, new = signed_by_both(node, clips_per_hour=1), signed_by_both(node, clips_per_hour=2)
    assert len(old) == len(new)
    with refused(Status.AGREEMENT):
        put(node, new[:-145] + old[-145:])


def test_an_altered_byte_anywhere_in_an_agreement_is_refused(node, nothing_new):
    signed = signed_by_both(node)
    for place in range(len(signed)):
        broken = bytearray(signed)
        broken[place] ^= 1 << place % 8
        with refused(Status.AGREEMENT):
            put(node, bytes(broken))


def test_whatever_python_refuses_as_an_agreement_the_enclave_refuses_too(node, nothing_new):
    payload = two_of_each(node).encode()
    envelopes = list(misshapen(signed_by_both(node), payload).values())
    payloads = [case for case, _ in malformed(payload).values()] + [case for case, _ in out_of_range(payload)]
    for envelope in envelopes + [sign(case, node.owner, node.qdo) for case in payloads]:
        with refused(Status.AGREEMENT):
            put(node, envelope)


@pytest.mark.parametrize("changes", [
    dict(body=3584), dict(from_s=0, until_s=1), dict(status=wire.MessageStatus.TEST), dict(score_bits=0),
    dict(clips_per_hour=1), dict(beacon_period_s=1, beacon_limit_s=1), dict(number=0), dict(placements=1),
    dict(rules=(), recipients=(recipient(), short_recipient(sees=0))),
    dict(beacon_period_s=86400, beacon_limit_s=(1 << 31) - 1),
], ids=str)
def test_the_ends_of_each_range_are_taken(fresh_node, changes):
    emitted = fresh_node.put(replace(two_of_each(fresh_node), **changes))
    assert (emitted.index, emitted.emission) == (1, 3)


def test_an_agreement_may_be_as_large_as_its_form_allows(fresh_node):
    rules = tuple(Rule("l" * 31 + str(i), 65536, 86400, 1439, 1439) for i in range(wire.EDGED_RULES_MAX))
    recipients = tuple(Recipient(bytes([i]) * 16, ALERT_KEY_ID, 1, (3,) * 8) for i in range(4))
    begun = fresh_node.agree(rules=rules, recipients=recipients, model=ModelTerms("m" * 64, (1 << 32) - 1, KEY_ID))
    assert begun.begun.emission == 1 + 4
    assert len(begun.begun.records) == 1  # of the largest body: the others are fetched
    kept = dict(fresh_node.kept(1))
    assert [fresh_node.open(kept[i], agreement=begun).header.rcpt for i in range(2, 6)] == [
        one.rcpt for one in recipients]


def test_there_are_as_many_agreements_as_the_wire_says(fresh_node):
    for number in range(2, 2 + wire.EVAL_AGREEMENTS_MAX - 1):
        assert fresh_node.agree(number=number).index == number - 1
    with refused(Status.MEMORY):
        fresh_node.agree(number=9)
    assert fresh_node.put(fresh_node.terms).index == 0  # one that is in force is known still


# The slots.


@pytest.mark.parametrize("where, status", [
    (dict(model=9), Status.KEY), (dict(data=9), Status.KEY), (dict(slots=(9, SHORT_ALERT_SLOT)), Status.KEY),
    (dict(slots=(ALERT_SLOT, 9)), Status.KEY),  # all: empty slots
    (dict(model=DATA_SLOT), Status.KEY), (dict(model=ALERT_SLOT), Status.KEY), (dict(data=MODEL_SLOT), Status.KEY),
    (dict(data=ALERT_SLOT), Status.KEY), (dict(slots=(DATA_SLOT, SHORT_ALERT_SLOT)), Status.KEY),
    (dict(slots=(ALERT_SLOT, MODEL_SLOT)), Status.KEY),  # all: of another kind
    (dict(slots=(SHORT_ALERT_SLOT, ALERT_SLOT)), Status.AGREEMENT),  # exchanged
    (dict(slots=(ALERT_SLOT, ALERT_SLOT)), Status.AGREEMENT),
    (dict(slots=(ALERT_SLOT, SHORT_ALERT_SLOT, ALERT_SLOT)), Status.RESERVED),  # more than it has recipients
    (dict(model=16), Status.ARGUMENT), (dict(data=1 << 31), Status.ARGUMENT),
    (dict(slots=(ALERT_SLOT, 16)), Status.ARGUMENT)], ids=str)
def test_slots_that_do_not_hold_the_agreements_keys_are_refused(node, nothing_new, where, status):
    with refused(status):
        put(node, signed_by_both(node), **where)


@pytest.mark.parametrize("slot, kind, key_id, right", [
    (MODEL_SLOT, KeyKind.MODEL, KEY_ID, "mo"), (DATA_SLOT, KeyKind.DATA, b"d" * 16, "qdo"),
    (ALERT_SLOT, KeyKind.ALERT, b"a" * 16, "qdo")], ids=["model", "data", "alert"])
def test_a_slot_whose_key_has_another_id_or_owner_is_refused(node, nothing_new, slot, kind, key_id, right):
    client = node.connect_key()
    owner = getattr(node.terms, right)
    for changed_id, changed_owner in ((b"x" * 16, owner), (key_id, public_bytes(OTHER))):
        client.put_slot(slot, kind, bytes(32), changed_id, changed_owner)
        with refused(Status.AGREEMENT):
            put(node, signed_by_both(node))
    client.close()
    node.put_keys()


def test_without_the_key_application_no_agreement_is_taken(fresh_node):
    fresh_node.enclave.key.kill()
    fresh_node.enclave.key.wait()
    with refused(Status.UNAVAILABLE):
        fresh_node.agree(number=2)
    fresh_node.enclave.restart_key()
    fresh_node.put_keys()
    assert fresh_node.agree(number=2).index == 1


# What it covers.


def refuses(node, agreed, status, name=b"covered"):
    """A clip under this agreement is refused, and nothing comes of it."""
    camera, before = node.camera(name, agreed), node.stats()
    with refused(status):
        node.attempt(camera, node.seal(camera, coordinates()))
    after = node.stats()
    assert (after.clips, after.records) == (before.clips, before.records)


def takes(node, agreed, name=b"covered"):
    camera = node.camera(name, agreed)
    clip = coordinates()
    return node.attempt(camera, node.seal(camera, clip)).finish_exactly(clip, agreement=agreed)


@pytest.mark.parametrize("changes, status", [
    (dict(model=ModelTerms("another", 0, KEY_ID)), Status.AGREEMENT),
    (dict(model=ModelTerms(MODEL_ID + "x", 0, KEY_ID)), Status.AGREEMENT),
    (dict(model=ModelTerms(MODEL_ID[:-1], 0, KEY_ID)), Status.AGREEMENT),
    (dict(model=ModelTerms(MODEL_ID, 8, KEY_ID)), Status.AGREEMENT),  # the package is of version 7
    (dict(rules=(Rule("no such label", 1, 0),), recipients=(recipient(rules=(3,)),)), Status.AGREEMENT),
    (dict(rules=(Rule(LABELS[0][:-1], 1, 0),), recipients=(recipient(rules=(3,)),)), Status.AGREEMENT),
    (dict(placements=1), Status.PLACEMENT), (dict(placements=2), Status.PLACEMENT),
    (dict(placements=3), Status.PLACEMENT)], ids=str)
def test_a_clip_for_a_model_or_placement_that_is_not_agreed_is_refused(fresh_node, changes, status):
    node = fresh_node
    node.load(MODEL, Placement.ENCLAVE, version=7)
    refuses(node, node.agree(number=2, **changes), status)
    takes(node, node.agree(number=3, model=ModelTerms(MODEL_ID, 7, KEY_ID), placements=4))


@pytest.mark.parametrize("placement, permitted", [(Placement.INPUTS, 1), (Placement.INPUTS, 5), (Placement.MASKED, 6)])
def test_no_weight_leaves_in_a_placement_that_no_agreement_permits(placement, permitted):
    node = AttackNode()
    node.terms = replace(node.terms, placements=permitted)
    with node:
        with refused(Status.PLACEMENT):
            node.load(MODEL, placement)
        assert not node.weights
        node.agree(number=2, placements=7)
        node.load(MODEL, placement)  # another one may


def test_a_package_under_another_key_of_the_same_owner_is_not_covered(fresh_node):
    node = fresh_node
    client = node.connect_key()
    client.put_slot(6, KeyKind.MODEL, bytes(32), b"another key".ljust(16), node.terms.mo)
    client.close()
    node.load(MODEL, Placement.ENCLAVE)
    takes(node, node.agreed)
    node.client.load(node.pack(MODEL, model_key=bytes(32), key_id=b"another key".ljust(16)), 6, Placement.ENCLAVE)
    refuses(node, node.agreed, Status.AGREEMENT)


def test_a_package_of_another_owner_is_not_covered_whatever_it_calls_itself(fresh_node):
    """Same model id, version and key id: but it is not he who signed the agreement."""
    node = fresh_node
    client = node.connect_key()
    client.put_slot(6, KeyKind.MODEL, bytes(32), KEY_ID, public_bytes(OTHER))
    client.close()
    offer = package.pack(MODEL, bytes(32), OTHER, model_id=MODEL_ID, key_id=KEY_ID)
    node.load(MODEL, Placement.ENCLAVE)
    takes(node, node.agreed)
    node.client.load(offer, 6, Placement.ENCLAVE)
    refuses(node, node.agreed, Status.AGREEMENT)


def test_a_model_whose_scores_do_not_fit_the_agreed_body_is_refused_where_they_are_to_be_shown(fresh_node):
    node = fresh_node
    node.load(small(25, labels=60), Placement.ENCLAVE)
    refuses(node, node.agree(number=2, body=512), Status.AGREEMENT)
    camera = node.camera(b"fits", node.agree(number=3, body=512, recipients=(recipient(sees=0),)))
    record = node.attempt(camera, node.seal(camera, coordinates())).finish()
    assert len(record) == wire.RecordHead.size() + wire.EDGED_RECORD_HEADER_MAX + 512 + wire.EVAL_TAG_BYTES


@pytest.mark.parametrize("what, status", [("version", Status.AGREEMENT), ("placement", Status.PLACEMENT),
                                          ("labels", Status.AGREEMENT)])
def test_a_clip_sent_again_is_judged_by_the_agreement_again(fresh_node, what, status):
    """It was accepted for the model of its first attempt; another one was loaded before its second."""
    node = fresh_node
    agreed = node.agree(number=2, body=512, model=ModelTerms(MODEL_ID, 7, KEY_ID), placements=1)
    node.load(MODEL, Placement.MASKED, version=7)
    camera = node.camera(b"again", agreed)
    clip = coordinates()
    sealed = node.seal(camera, clip)
    spoil(node.attempt(camera, sealed))
    if what == "version":
        node.load(MODEL, Placement.MASKED, version=6)
    elif what == "placement":
        node.load(MODEL, Placement.INPUTS, version=7)
    else:
        node.load(small(25, labels=60), Placement.MASKED, version=7)
    with refused(status):
        node.attempt(camera, sealed)
    node.load(MODEL, Placement.MASKED, version=7)
    node.attempt(camera, sealed).finish_exactly(clip, agreement=agreed)


# Limits.


def test_neither_a_start_nor_a_session_nor_an_agreement_that_follows_brings_clips_beyond_the_rate(fresh_node):
    """Two an hour: who makes the enclave start again and again has none more for it."""
    node = fresh_node
    for number in range(2, 6):
        node.load(MODEL, Placement.MASKED)
        agreed = node.agree(number=number, clips_per_hour=2)
        for name in (b"one", b"two", b"one"):
            camera = node.camera(name, agreed)
            with refused(Status.RATE):
                node.attempt(camera, node.seal(camera, coordinates()))
        takes(node, node.agreed)  # the other agreement has its own
        state = node.client.confirm(node.client.info().emission)
        node.restart_eval(state if number % 2 else None)


def next_epoch(node):
    confirm_all(node)
    node.client.close_epoch()


def crowd_out(node):
    """So many agreements of root's own begin that the enclave can remember no other one."""
    for number in range(100, 140):
        if number % wire.EVAL_AGREEMENTS_MAX == 0:
            next_epoch(node)
        node.agree(number=number)
    next_epoch(node)


@pytest.mark.parametrize("how", ["the same again", "two in turn", "forgotten"])
def test_ending_epochs_brings_no_clips_beyond_the_rate(fresh_node, how):
    """Two a second; each epoch is ended as soon as it refuses one, and nothing else passes in between."""
    node = fresh_node
    node.load(MODEL, Placement.ENCLAVE)
    changes = [dict(number=number, clips_per_hour=7200, recipients=(recipient(),)) for number in (2, 3)]
    if how == "forgotten":
        crowd_out(node)
    began_s, taken = time.monotonic(), 0
    for turn in range(12):
        agreed = node.agree(**changes[turn % 2 if how == "two in turn" else 0])
        node.client.beacon(node.beacon(time.time_ns(), agreement=agreed), bytes(32))
        camera = node.camera(b"gate", agreed)
        with refused(Status.RATE):
            while True:
                node.attempt(camera, node.seal(camera, coordinates())).finish()
                taken += 1
        next_epoch(node)
    parties = 2 if how == "two in turn" else 1  # each agreement has its own
    assert taken <= parties * (2 * (time.monotonic() - began_s) + 2)
    assert time.monotonic() - began_s < 10, "else it shows nothing"


def unlock(node, agreed):
    """A beacon, and the moment that brings one of a million clips an hour."""
    node.client.beacon(node.beacon(time.time_ns(), agreement=agreed), bytes(32))
    time.sleep(0.01)


def test_an_agreement_that_may_be_forgotten_begins_locked(fresh_node):
    """With no time before the first beacon: else whoever crowds it out would have that time again and again."""
    node = fresh_node
    node.load(MODEL, Placement.ENCLAVE)
    crowd_out(node)
    for _ in range(2):
        agreed = node.agree(number=2)
        refuses(node, agreed, Status.LOCKED)
        unlock(node, agreed)
        takes(node, agreed)
        next_epoch(node)


def test_agreements_that_others_followed_crowd_nobody_out(fresh_node):
    """One start and many rotations: the last one, heard once, is known in the next epoch, too."""
    node = fresh_node
    node.load(MODEL, Placement.ENCLAVE)
    to, agreed = recipient(), node.agreed
    for number in range(2, 2 * wire.EVAL_RECIPIENTS_MAX):
        before, agreed = agreed, node.agree(number=number, recipients=(to,))
        node.client.succeed(before.index, agreed.index)
        confirm_all(node)
    refuses(node, agreed, Status.LOCKED)
    unlock(node, agreed)
    for _ in range(2):
        takes(node, agreed)
        next_epoch(node)
        agreed = node.agree(number=number, recipients=(to,))


def test_a_start_brings_a_seconds_clips_at_once(fresh_node):
    """Two a second: else what waited while the enclave started would wait on."""
    node = fresh_node
    node.load(MODEL, Placement.MASKED)
    began_s = time.monotonic()
    agreed = node.agree(number=2, clips_per_hour=7200)
    cameras = [node.camera(b"one", agreed), node.camera(b"two", agreed)]
    for camera in cameras:
        node.evaluate(camera, coordinates(), agreement=agreed)
    taken = 2
    with refused(Status.RATE):
        while True:  # as many as the time that passed meanwhile brings
            camera = cameras[taken % 2]
            node.evaluate(camera, coordinates(), agreement=agreed)
            taken += 1
            assert taken <= 2 * (time.monotonic() - began_s) + 2


def test_a_clip_sent_again_counts_once_and_one_that_does_not_open_counts_nothing(fresh_node):
    """Else a fault, or anybody, could use the camera's rate up. One clip in five seconds."""
    node = fresh_node
    node.load(MODEL, Placement.MASKED)
    agreed = node.agree(number=2, clips_per_hour=720)
    camera, clip = node.camera(b"again", agreed), coordinates()
    forged, sealed = node.seal(camera._replace(key=bytes(32)), clip), node.seal(camera, clip)
    status = Status.RATE
    while status == Status.RATE:  # until the first interval is over
        with pytest.raises(EnclaveError) as caught:
            node.attempt(camera, forged)
        status = caught.value.status
        time.sleep(0.05)
    assert status == Status.CLIP
    spoil(node.attempt(camera, sealed))
    node.attempt(camera, sealed).finish_exactly(clip, agreement=agreed)
    with refused(Status.RATE):
        node.attempt(camera, node.seal(camera, coordinates()))


def test_after_its_end_an_agreement_gives_no_weights_away(fresh_node):
    """In placement inputs they lie outside in clear. Masked they tell nothing, and the node goes on to say how it
    is."""
    node = fresh_node
    node.load(MODEL, Placement.INPUTS)
    node.client.beacon(node.beacon(node.terms.until_s * NS, agreement=node.agreed), bytes(32))
    with refused(Status.PLACEMENT):
        node.load(MODEL, Placement.INPUTS)
    for placement in (Placement.MASKED, Placement.ENCLAVE):
        node.load(MODEL, placement)
        refuses(node, node.agreed, Status.AGREEMENT)
    node.agree(number=2, until_s=node.terms.until_s)  # its recipients told nothing
    node.load(MODEL, Placement.INPUTS)


def test_before_its_begin_an_agreement_gives_no_weights_away(fresh_node):
    node = fresh_node
    confirm_all(node)
    node.client.close_epoch()
    agreed = node.agree(number=2, from_s=10 ** 9, recipients=(recipient(),))
    for time_s, holds in ((10 ** 9 - 3600, False), (10 ** 9 + 1, True)):
        node.client.beacon(node.beacon(time_s * NS, agreement=agreed), bytes(32))
        if not holds:
            with refused(Status.PLACEMENT):
                node.load(MODEL, Placement.INPUTS)
        node.load(MODEL, Placement.INPUTS if holds else Placement.MASKED)


def test_an_agreement_is_in_force_from_its_first_second_up_to_its_last_as_beacons_tell(fresh_node):
    node = fresh_node
    node.load(MODEL, Placement.ENCLAVE)
    hour, base = 3600, 1700000000
    agreed = node.agree(number=2, from_s=base, until_s=base + hour)
    camera = node.camera(b"valid", agreed)
    node.evaluate(camera, coordinates(), agreement=agreed)  # nobody has told the time yet
    # The enclave's clock goes on between beacons: no test here waits for the last minute.
    for time_s, holds in ((base - hour, False), (base + 60, True), (base + hour - 60, True), (base + hour, False)):
        node.client.beacon(node.beacon(time_s * NS, agreement=agreed), bytes(32))
        if holds:
            node.evaluate(camera, coordinates(), agreement=agreed)
        else:
            refuses(node, agreed, Status.AGREEMENT, b"another")
    takes(node, node.agreed)  # this one was told nothing


def until_taken(node, camera, agreed):
    """Beacon and clip, until one clip came within the limit: on a busy machine some do not."""
    for _ in range(TRIES):
        node.client.beacon(node.beacon(time.time_ns(), agreement=agreed), bytes(32))
        try:
            return node.attempt(camera, node.seal(camera, coordinates())).finish()
        except EnclaveError as error:
            assert error.status == Status.LOCKED
    raise AssertionError("no clip was taken within a second of its beacon")


@pytest.mark.parametrize("epochs", [1, 2])
def test_without_a_beacon_within_the_limit_no_clip_is_taken_until_one_comes(fresh_node, epochs):
    """Nor does ending the epoch bring the time before the first beacon once more."""
    node = fresh_node
    node.load(MODEL, Placement.ENCLAVE)
    changes = dict(number=2, beacon_period_s=1, beacon_limit_s=1, recipients=(recipient(), short_recipient()))
    agreed = node.agree(**changes)
    for _ in range(2):
        time.sleep(1.1)
        for _ in range(1, epochs):
            next_epoch(node)
            agreed, node.agreed = node.agree(**changes), node.agree()
        refuses(node, agreed, Status.LOCKED, b"locked")
        with refused(Status.KEY):  # a beacon that nobody sent does not unlock
            node.client.beacon(node.beacon(NS, agreement=agreed, key=bytes(32)), bytes(32))
        refuses(node, agreed, Status.LOCKED, b"locked")
    camera = node.camera(b"locked", agreed)
    record = until_taken(node, camera, agreed)
    assert node.open(record, agreement=agreed).kind == RecordKind.OBSERVATION
    takes(node, node.agreed)  # whose limit is another


def test_a_clip_that_was_accepted_before_the_lock_is_not_evaluated_again_but_has_its_record(fresh_node):
    node = fresh_node
    node.load(MODEL, Placement.MASKED)
    agreed = node.agree(number=2, beacon_period_s=1, beacon_limit_s=1)
    camera = node.camera(b"accepted", agreed)
    for _ in range(TRIES):
        node.client.beacon(node.beacon(time.time_ns(), agreement=agreed), bytes(32))
        sealed = node.seal(camera, coordinates())
        try:
            attempt = node.attempt(camera, sealed)
            break
        except EnclaveError as error:
            assert error.status == Status.LOCKED
    spoil(attempt.advance(1))
    time.sleep(1.1)
    with refused(Status.LOCKED):
        node.attempt(camera, sealed)
    failed = node.open(node.abort(camera)[1], agreement=agreed)
    assert (failed.kind, failed.number) == (RecordKind.FAILED, sealed[0])


@pytest.mark.parametrize("why", ["locked", "ended"])
def test_a_clip_that_was_announced_in_time_is_not_judged_later(fresh_node, why):
    """Root hands its bytes in when it likes."""
    node = fresh_node
    node.load(MODEL, Placement.ENCLAVE)
    agreed = node.agree(number=2, until_s=2 * 10 ** 9, beacon_period_s=1, beacon_limit_s=1)
    camera = node.camera(b"announced", agreed)
    number, sealed = node.seal(camera, coordinates())
    for now_s in range(10 ** 9, 10 ** 9 + TRIES):
        node.client.beacon(node.beacon(now_s * NS, agreement=agreed), bytes(32))
        try:
            node.client.open_clip(camera.session, 0, number, 0, len(sealed))
            break
        except EnclaveError as error:
            assert error.status == Status.LOCKED
    if why == "locked":
        time.sleep(1.1)
    else:
        node.client.beacon(node.beacon(agreed.terms.until_s * NS, agreement=agreed), bytes(32))
    node.client.write_clip(sealed)
    with refused(Status.LOCKED if why == "locked" else Status.AGREEMENT):
        node.client.begin_clip()
    assert node.stats().clips == 0
    assert node.abort(camera) == (Status.ORDER, None)  # it was not accepted
    takes(node, node.agreed)


# Frames.


def test_an_agreement_of_another_length_than_announced_is_refused(node, nothing_new):
    signed = signed_by_both(node)
    for said in (0, len(signed) - 1, len(signed) + 1, 0xFFFFFFFF):
        body = wire.AgreementPut(MODEL_SLOT, DATA_SLOT, (ALERT_SLOT, SHORT_ALERT_SLOT, 0, 0), said).pack() + signed
        assert node.call(EvalCommand.AGREEMENT, body) == (Status.LENGTH, b"")
