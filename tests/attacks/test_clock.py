"""The city's time only goes on: whatever root withholds, hoards, ends or restarts, the enclave takes no time for now
that is before what it was told, by a floor or by a recipient under any agreement, and the time that passed since."""

import time
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from attacks.networks import random_coordinates, small
from attacks.node import ALERT_KEY_ID, MODEL_SLOT, Agreed, AttackNode, confirm_all, recipient, refused, started_with
from edged.emulated import public_bytes
from edged.enclave import wire
from edged.enclave.wire import KeyKind, Placement, Status
from edged.trust.agreement import sign
from granting import GrantedNode

MODEL = small(26)
RNG = np.random.default_rng()
NS = 10 ** 9
NOW_S = 4 * 10 ** 9
TO = recipient()
node = started_with(MODEL)


def evaluate(node, agreed):
    camera = node.camera(b"gate", agreed)
    return node.evaluate(camera, random_coordinates(RNG, MODEL.shape, 1), agreement=agreed)


def is_over(node, agreed):
    with refused(Status.AGREEMENT):
        evaluate(node, agreed)


def tell(node, agreed, time_s=NOW_S):
    node.client.beacon(node.beacon(time_s * NS, agreement=agreed), bytes(32))


def agree(node, number, until_s=NOW_S + 10 ** 6, to=TO, **changes):
    """That one recipient's."""
    return node.agree(number=number, until_s=until_s, recipients=(to,), **changes)


def test_the_first_beacon_of_an_epoch_is_no_older_than_the_floor_and_what_passed_since():
    """Sent in time, held back, handed in after the agreement's end: it tells no time and unlocks nothing."""
    with GrantedNode() as node:
        now_s = int(time.time())
        node.kill_eval()
        node.terms = replace(node.terms, until_s=now_s + 4, beacon_period_s=1, beacon_limit_s=2)
        for slot in node.keys:
            node.store.install(node.key, node.grant(slot, 2))
        for party in (node.owner, node.qdo):
            node.store.floor(node.key, node.floor(party, time_s=now_s))
        agreed = node.agree()
        node.load(MODEL, Placement.ENCLAVE)
        hoarded = node.beacon(now_s * NS + 1, agreement=agreed)
        evaluate(node, agreed)
        time.sleep(5)
        is_over(node, agreed)  # without any beacon, by the floor and the enclave's clock
        node.client.beacon(hoarded, bytes(32))
        is_over(node, agreed)


def test_a_first_beacon_that_lags_behind_the_epoch_before_unlocks_nothing(node):
    """By the time that passed since, too: root has it for as long as it likes before it hands it in."""
    limits = {"beacon_period_s": 1, "beacon_limit_s": 1}
    agreed = agree(node, 2, **limits)
    tell(node, agreed)
    node.restart_eval(confirm_all(node))
    node.load(MODEL, Placement.ENCLAVE)
    agreed = agree(node, 2, **limits)
    hoarded = node.beacon(NOW_S * NS + 1, agreement=agreed)
    time.sleep(1.2)
    node.client.beacon(hoarded, bytes(32))
    with refused(Status.LOCKED):
        evaluate(node, agreed)
    tell(node, agreed, NOW_S + 1)
    evaluate(node, agreed)


def test_another_agreement_of_the_same_recipient_knows_the_time_at_once(node):
    tell(node, agree(node, 2))
    is_over(node, agree(node, 3, NOW_S - 1000))
    evaluate(node, agree(node, 4, NOW_S + 1000))


def test_a_late_beacon_of_another_agreement_lowers_no_bound(node):
    """Answered under the old agreement, where it is late: the time that it told is not the enclave's."""
    old = agree(node, 2, beacon_period_s=1, beacon_limit_s=1)
    tell(node, old)
    time.sleep(2.1)
    tell(node, old, NOW_S + 1)
    is_over(node, agree(node, 3, NOW_S + 2))


def test_an_agreement_of_strangers_knows_nothing_of_it(node):
    tell(node, agree(node, 2))
    evaluate(node, agree(node, 3, NOW_S - 1000, to=recipient()))


def test_another_city_sets_no_clock_by_the_name_of_somebody_elses_recipient(node):
    """It reads names in the records that it carries; its own agreement may name whom it likes."""
    other = Ed25519PrivateKey.generate()
    public = public_bytes(other)
    with closing(node.connect_key()) as key:
        key.put_slot(9, KeyKind.DATA, node.data_key, b"e" * 16, public)
        key.put_slot(10, KeyKind.ALERT, node.alert_key, ALERT_KEY_ID, public)
    terms = replace(node.terms, qdo=public, data_key=b"e" * 16, number=9, recipients=(TO,))
    begun = node.client.put_agreement(MODEL_SLOT, 9, [10], sign(terms.encode(), node.owner, other))
    theirs = Agreed(begun.index, terms, begun)
    tell(node, theirs, 2 * NOW_S)
    with refused(Status.RECIPIENT):  # not while that is in force
        agree(node, 2)
    node.restart_eval(confirm_all(node))
    node.load(MODEL, Placement.ENCLAVE)
    agreed = agree(node, 2)
    evaluate(node, agreed)
    tell(node, agreed, NOW_S + 1)
    evaluate(node, agreed)


@pytest.mark.parametrize("how", ["closed", "restarted"])
def test_what_passed_since_the_last_beacon_is_not_forgotten_with_the_epoch(node, how):
    """Else each epoch would give the agreement that time once more."""
    tell(node, agree(node, 2))
    time.sleep(2.1)
    state = confirm_all(node)
    if how == "closed":
        node.client.close_epoch()
    else:
        node.kill_eval()
        node.client.restore(state)
        node.load(MODEL, Placement.ENCLAVE)
    evaluate(node, agree(node, 3, NOW_S + 1000))
    is_over(node, agree(node, 2, NOW_S + 2))


def test_a_bound_below_the_time_does_not_say_that_an_agreement_has_not_begun(node):
    """It was told before a start, which may be long ago; what the agreement's own beacons tell, says so."""
    tell(node, agree(node, 2))
    node.restart_eval(confirm_all(node))
    node.load(MODEL, Placement.ENCLAVE)
    agreed = agree(node, 3, from_s=NOW_S + 1000)
    evaluate(node, agreed)
    tell(node, agreed, NOW_S + 10)
    is_over(node, agreed)
    tell(node, agreed, NOW_S + 1000)
    evaluate(node, agreed)


@pytest.mark.parametrize("epochs", [1, 2, 5])
def test_an_epoch_without_an_agreement_forgets_no_time(node, epochs):
    tell(node, agree(node, 2))
    confirm_all(node)
    for _ in range(epochs):
        node.client.close_epoch()
    ended = agree(node, 2, NOW_S)
    is_over(node, ended)
    with refused(Status.ARGUMENT):
        tell(node, ended)


@pytest.mark.parametrize("starts", [1, 2, 5])
def test_a_state_that_is_sealed_before_the_first_agreement_forgets_no_time(node, starts):
    tell(node, agree(node, 2))
    state = confirm_all(node)
    for _ in range(starts):
        node.kill_eval()
        node.client.restore(state)
        state = node.client.confirm(0)
    node.kill_eval()
    node.client.restore(state)
    node.load(MODEL, Placement.ENCLAVE)
    is_over(node, agree(node, 2, NOW_S))


def test_a_state_of_other_recipients_alone_forgets_no_time(node):
    tell(node, agree(node, 2))
    for number in range(3, 6):
        node.restart_eval(confirm_all(node))  # and its own agreement, of another recipient
    node.load(MODEL, Placement.ENCLAVE)
    is_over(node, agree(node, 2, NOW_S))


def test_a_succession_forgets_no_time(node):
    """The old agreement's place is free once its last records are stored; who told the time under it did tell it."""
    old = agree(node, 2)
    tell(node, old)
    new = agree(node, 3, to=recipient())
    node.client.succeed(old.index, new.index)
    confirm_all(node)
    is_over(node, agree(node, 4, NOW_S))
    confirm_all(node)
    node.client.close_epoch()
    is_over(node, agree(node, 5, NOW_S))


def test_the_highest_time_of_all_agreements_is_kept_whatever_came_last(node):
    first, second = agree(node, 2), agree(node, 3, NOW_S + 10 ** 6 + 1)
    tell(node, first)
    tell(node, second, NOW_S - 10 ** 6)
    node.restart_eval(confirm_all(node))
    node.load(MODEL, Placement.ENCLAVE)
    is_over(node, agree(node, 2, NOW_S))


def test_an_epoch_of_as_many_recipients_as_there_can_be_is_sealed_whole(node):
    """Thirty-two, under agreements that follow one another: each one's time and number outlive the epoch."""
    old = agree(node, 2)
    tell(node, old)
    for number in range(3, 13):
        new = node.agree(number=number, recipients=tuple(recipient() for _ in range(3)))
        node.client.succeed(old.index, new.index)
        state = confirm_all(node)
        old = new
    node.kill_eval()
    node.client.restore(state)
    node.load(MODEL, Placement.ENCLAVE)
    again = agree(node, 2, NOW_S)
    assert node.open(again.begun.records[0], agreement=again).previous_seq == 3
    is_over(node, again)


def strangers(node, recipients):
    """An agreement of root's own: it is model owner and city in one, of a name that nobody has heard yet."""
    own = Ed25519PrivateKey.generate()
    public = public_bytes(own)
    with closing(node.connect_key()) as key:
        key.put_slot(8, KeyKind.MODEL, bytes(32), node.terms.model.key_id, public)
        key.put_slot(9, KeyKind.DATA, bytes(32), node.terms.data_key, public)
        key.put_slot(10, KeyKind.ALERT, bytes(32), ALERT_KEY_ID, public)
    terms = replace(node.terms, mo=public, qdo=public, recipients=tuple(recipient() for _ in range(recipients)))
    return node.client.put_agreement(8, 9, [10] * recipients, sign(terms.encode(), own, own))


def close(node):
    confirm_all(node)
    node.client.close_epoch()


def test_agreements_of_roots_own_push_no_city_out_of_what_is_remembered(node):
    """Thirty-two names at most: who comes last is refused, and not who came first forgotten."""
    tell(node, agree(node, 2))
    epoch = node.client.info().epoch
    close(node)
    for _ in range((wire.EVAL_RECIPIENTS_MAX - 2) // 3):  # two are the city's
        strangers(node, 3)
        close(node)
    for recipients in (1, 4):
        with refused(Status.MEMORY):
            strangers(node, recipients)
    ended = agree(node, 2, NOW_S)
    is_over(node, ended)
    first = node.open(ended.begun.records[0], agreement=ended)
    assert (first.previous, first.previous_seq, first.unclean) == (epoch, 2, False)
    agree(node, 3, to=recipient())  # where its own give way, the city has newcomers, too


def test_another_device_knows_nothing_of_it(node):
    tell(node, agree(node, 2))
    with AttackNode() as other:
        other.load(MODEL, Placement.ENCLAVE)
        evaluate(other, agree(other, 2, 1000))
