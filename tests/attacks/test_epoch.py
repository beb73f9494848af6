"""Epochs: after any end of the enclave the first records tell what came before, as far as sealed state knows; and
sealed state is worth something to its own device, unaltered, alone."""

import numpy as np
import pytest

from attacks.networks import random_coordinates, small
from attacks.node import AttackNode, confirm_all, recipient, refused, short_recipient, started_with
from edged.alerts.record import split_record
from edged.enclave import wire
from edged.enclave.wire import EvalCommand, Placement, RecordKind, Status

MODEL = small(27)
RNG = np.random.default_rng()
STATE = wire.State.layout
node = started_with(MODEL)


def coordinates(persons=1):
    return random_coordinates(RNG, MODEL.shape, persons)


def observe(node, agreed=None, clips=1):
    """So many clips' records."""
    camera = node.camera(b"gate", agreed)
    return [node.attempt(camera, node.seal(camera, coordinates())).finish() for _ in range(clips)]


def began(node, agreed=None):
    """The records of an agreement's beginning, opened: one for each recipient."""
    agreed = agreed or node.agreed
    return [node.open(record, agreement=agreed) for record in agreed.begun.records]


# What the first record says.


def test_the_first_epoch_of_all_knows_none_before(node):
    first, = began(node)
    assert (first.kind, first.header.kind, first.header.seq) == (RecordKind.EPOCH, RecordKind.EPOCH, 1)
    assert (first.unclean, first.counter, first.previous, first.previous_seq) == (True, 1, bytes(16), 0)
    assert first.agreement == node.agreed.terms.digest
    assert first.header.epoch == node.client.info().epoch


def test_after_a_kill_the_epoch_names_the_one_before_and_how_far_it_was_confirmed(node):
    epoch = node.client.info().epoch
    observe(node, clips=3)
    state = node.client.confirm(3)  # of four: the last was said, and is known to nobody
    node.restart_eval(state)
    first, = began(node)
    assert (first.unclean, first.counter, first.previous, first.previous_seq) == (True, 2, epoch, 3)
    assert first.header.seq == 1 and first.header.epoch not in (epoch, bytes(16))


def test_after_a_clean_end_the_epoch_says_so(node):
    epoch = node.client.info().epoch
    observe(node, clips=3)
    confirm_all(node)
    state = node.client.close_epoch()
    node.restart_eval(state)
    first, = began(node)
    assert (first.unclean, first.counter, first.previous, first.previous_seq) == (False, 2, epoch, 4)


def test_a_closed_epoch_is_followed_by_the_next_without_a_restart(node):
    camera = node.camera(b"gate")
    observe(node, clips=2)
    before, old = node.client.info(), node.agreed
    confirm_all(node)
    node.client.close_epoch()
    after = node.client.info()
    assert after.epoch != before.epoch and (after.agreements, after.kept) == (0, 0)
    with refused(Status.ARGUMENT):  # its sessions are gone
        node.attempt(camera, node.seal(camera, coordinates()))
    node.agreed = node.agree()
    first, = began(node)
    assert (first.unclean, first.counter, first.previous, first.previous_seq) == (False, 2, before.epoch, 3)
    assert node.agreed.salt != old.salt and first.header.seq == 1
    observe(node)
    node.restart_eval(confirm_all(node))
    first, = began(node)
    assert (first.unclean, first.counter, first.previous, first.previous_seq) == (True, 3, after.epoch, 2)


def test_without_its_state_an_epoch_knows_none_before_and_says_that_the_end_was_not_clean(node):
    observe(node)
    confirm_all(node)
    node.client.close_epoch()
    node.restart_eval()
    first, = began(node)
    assert (first.unclean, first.counter, first.previous, first.previous_seq) == (True, 1, bytes(16), 0)


def test_each_recipient_is_told_where_his_own_sequence_stood(node):
    to = (recipient(), short_recipient(), recipient(0))
    two = node.agree(number=2, body=512, recipients=to)
    observe(node, two, clips=2)
    observe(node, clips=1)
    state = confirm_all(node)
    node.restart_eval(state)
    newcomer = recipient()
    again = node.agree(number=3, body=512, recipients=(to[2], newcomer, to[1]))
    assert [first.previous_seq for first in began(node)] == [2]
    assert [first.previous_seq for first in began(node, again)] == [3, 0, 3]
    assert len({first.header.epoch for first in began(node) + began(node, again)}) == 1


@pytest.mark.parametrize("how", ["closed", "begun by strangers", "restarted", "not confirmed", "both"])
def test_epochs_in_between_hide_no_end_of_an_earlier_one(node, how):
    """Records withheld, then one epoch after the other in which nobody who misses them is told of anything."""
    epoch = node.client.info().epoch
    observe(node, clips=3)
    state = confirm_all(node)
    if how in ("closed", "both"):
        for _ in range(3):
            node.client.close_epoch()
    if how in ("begun by strangers", "both"):
        strangers = node.agree(number=7)
        state = confirm_all(node)
        node.client.close_epoch()
        assert began(node, strangers)[0].previous_seq == 0
    if how in ("restarted", "both"):
        for _ in range(3):
            state = node.client.close_epoch()
            node.kill_eval()
            node.client.restore(state)
    if how in ("not confirmed", "both"):
        for _ in range(3):
            node.agree()  # its first record, which says all, is kept back for good
            state = node.client.confirm(0)
            node.kill_eval()
            node.client.restore(state)
    node.agreed = node.agree()
    first, = began(node)
    assert (first.previous, first.previous_seq) == (epoch, 4)
    assert first.counter >= 2 and first.unclean == (how in ("not confirmed", "both"))


def test_where_every_place_is_taken_newcomers_take_those_of_others_and_not_each_others(node):
    """Thirty-two recipients in one epoch; then four new ones, of whom the next epoch knows all."""
    old = node.agree(number=2)
    for number in range(3, 13):
        new = node.agree(number=number, recipients=tuple(recipient() for _ in range(3)))
        node.client.succeed(old.index, new.index)
        confirm_all(node)
        old = new
    node.client.close_epoch()
    newcomers, epoch = tuple(recipient() for _ in range(4)), node.client.info().epoch
    node.agree(number=20, body=512, recipients=newcomers)
    state = confirm_all(node)
    node.kill_eval()
    node.client.restore(state)
    again = node.agree(number=20, body=512, recipients=newcomers)
    assert [(first.previous, first.previous_seq) for first in began(node, again)] == 4 * [(epoch, 1)]


def test_an_epoch_of_which_he_was_told_is_the_one_that_is_named(node):
    """Its first record was confirmed: so it is for the city to miss it."""
    observe(node, clips=3)
    node.restart_eval(confirm_all(node))
    epoch = node.client.info().epoch
    node.restart_eval(confirm_all(node))
    first, = began(node)
    assert (first.previous, first.previous_seq) == (epoch, 1)


def test_a_new_start_is_a_new_epoch_with_other_record_keys(node):
    seen = []
    for _ in range(3):
        node.load(MODEL, Placement.ENCLAVE)
        seen.append(split_record(observe(node)[0])[0])
        node.restart_eval()
    assert [head.seq for head in seen] == [2, 2, 2] and len({head.node for head in seen}) == 1
    assert len({head.epoch for head in seen}) == len({head.salt for head in seen}) == 3


# What may be closed.


def test_an_epoch_with_a_record_that_is_not_confirmed_is_not_closed(node):
    observe(node)
    for emission in (0, 1):
        node.client.confirm(emission)
        with refused(Status.ORDER):
            node.client.close_epoch()
    node.client.confirm(2)
    node.client.close_epoch()


def test_an_epoch_with_a_clip_that_has_no_record_is_not_closed(node):
    confirm_all(node)
    camera = node.camera(b"gate")
    node.attempt(camera, node.seal(camera, coordinates()))
    with refused(Status.ORDER):  # under way
        node.client.close_epoch()
    node.reconnect()
    with refused(Status.ORDER):  # accepted, and nobody evaluates it
        node.client.close_epoch()
    node.abort(camera)
    with refused(Status.ORDER):  # its record is kept
        node.client.close_epoch()
    confirm_all(node)
    node.client.close_epoch()


# What is worth nothing.


def test_altered_state_is_refused_and_the_right_one_is_taken_after_it(node):
    observe(node)
    epoch, state = node.client.info().epoch, confirm_all(node)
    node.kill_eval()
    for place in range(len(state)):
        broken = bytearray(state)
        broken[place] ^= 1 << place % 8
        with refused(Status.STATE):
            node.client.restore(bytes(broken))
    for nothing in (bytes(len(state)), state[:STATE["sealed"].offset] + bytes(STATE["sealed"].size)):
        with refused(Status.STATE):
            node.client.restore(nothing)
    node.client.restore(state)
    node.agreed = node.agree()
    assert began(node)[0].previous == epoch


def test_the_seal_of_one_state_does_not_fit_another_ones_head(node):
    first = node.client.confirm(0)
    second = confirm_all(node)
    assert first[:16] == second[:16] and first[16:24] != second[16:24]
    node.kill_eval()
    for mixed in (first[:24] + second[24:], second[:24] + first[24:]):
        with refused(Status.STATE):
            node.client.restore(mixed)


def test_another_devices_state_is_refused(node):
    with AttackNode() as other:
        foreign = confirm_all(other)
    node.kill_eval()
    with refused(Status.STATE):
        node.client.restore(foreign)
    node.agreed = node.agree()
    assert began(node)[0].previous == bytes(16)


def test_older_state_shows_in_the_first_record(node):
    """It cannot be refused where there is no monotonic store. But it names what the recipient knows better."""
    observe(node)
    epoch, old = node.client.info().epoch, confirm_all(node)
    observe(node, clips=2)
    confirm_all(node)
    node.restart_eval(old)
    first, = began(node)
    assert (first.unclean, first.counter, first.previous, first.previous_seq) == (True, 2, epoch, 2)  # he has 4
    node.restart_eval(old)  # and once more: the epoch between, whose first record he has, is left out
    again, = began(node)
    assert (again.counter, again.previous) == (first.counter, epoch) and again.header.epoch != first.header.epoch


def test_state_is_given_back_once_before_the_first_agreement_and_to_a_later_epoch(node):
    state = confirm_all(node)
    with refused(Status.ORDER):  # an agreement is in force, whose first record was said
        node.client.restore(state)
    node.client.close_epoch()
    with refused(Status.ORDER):  # the closed epoch is known already
        node.client.restore(state)
    node.kill_eval()
    with refused(Status.ORDER):  # of this epoch itself
        node.client.restore(node.client.confirm(0))
    node.client.restore(state)
    with refused(Status.ORDER):  # once
        node.client.restore(state)


def test_no_two_states_are_equal_and_none_shows_what_it_holds(node):
    states = [node.client.confirm(0) for _ in range(20)]
    assert [wire.State.unpack(state).count for state in states] == list(range(1, 21))
    assert {wire.State.unpack(state).epoch for state in states} == {node.client.info().epoch}
    assert len({wire.State.unpack(state).sealed for state in states}) == 20
    assert not any(node.terms.recipients[0].rcpt in state for state in states)


def test_state_of_another_length_is_refused(node):
    state = confirm_all(node)
    for body in (b"", state[:-1], state + b"\0"):
        assert node.call(EvalCommand.RESTORE, body) == (Status.LENGTH, b"")
