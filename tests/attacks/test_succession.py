"""One agreement follows another: only the owners' own next one, never while somebody is judged under the old one, told
to every recipient under the old key, and nothing after it."""

import os
import time
from contextlib import closing
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from attacks.node import (ALERT_KEY_ID, ALERT_SLOT, DATA_SLOT, MODEL_SLOT, SHORT_ALERT_KEY_ID, Agreed, confirm_all,
                          recipient, refused, short_recipient, started_with)
from attacks.test_alerts import ALERT, CANCEL, HIGH, LABELS, LOW, MODEL, NONE, SEES_ALL, THRESHOLD, UPDATE, message
from edged.alerts.record import record_key, split_record
from edged.emulated import public_bytes
from edged.enclave import wire
from edged.enclave.wire import KeyKind, MessageStatus, RecordKind, Status
from edged.trust.agreement import Rule, sign

DAY_S = 86400
RULE = Rule(LABELS[1], THRESHOLD, DAY_S)
node = started_with(MODEL)


def agree(node, number, to, **changes):
    return node.agree(**dict(dict(number=number, body=512, rules=(RULE,), recipients=tuple(to)), **changes))


def sees():
    return recipient(rules=(SEES_ALL,))


def opened(node, sealed, under):
    """(header, body) of a last record."""
    header, associated, body = split_record(sealed)
    plain = AESGCM(record_key(node.key_of(header.kid), header, under.terms.digest)).decrypt(
        header.seq.to_bytes(8, "little") + bytes(4), body, associated)
    size = wire.SuccessionBody.size()
    assert header.kind == RecordKind.SUCCESSION and not any(plain[size:])
    return header, wire.SuccessionBody.unpack(plain[:size])


def succeed(node, old, new):
    return node.client.succeed(old.index, new.index)


def test_every_recipient_is_told_under_the_old_key_which_agreement_and_key_follow(node):
    one, two, gone = sees(), short_recipient(rules=(SEES_ALL,)), sees()
    old = agree(node, 2, (one, two, gone))
    new = agree(node, 7, (two._replace(alert_key=ALERT_KEY_ID), one._replace(alert_key=SHORT_ALERT_KEY_ID), sees()))
    emitted = succeed(node, old, new)
    told = [opened(node, sealed, old) for sealed in emitted.records]
    assert [header.rcpt for header, _ in told] == [one.rcpt, two.rcpt, gone.rcpt]
    assert [body.next_key for _, body in told] == [SHORT_ALERT_KEY_ID, ALERT_KEY_ID, bytes(16)]
    assert {(body.number, body.successor) for _, body in told} == {(7, new.terms.digest)}
    assert [header.seq for header, _ in told] == [3, 3, 2]  # after both epoch records, or the one


def test_the_last_record_is_as_long_as_any_other(node):
    old, new = agree(node, 2, (sees(),)), agree(node, 3, (sees(),))
    claim = node.client.claim(old.index, RecordKind.HEALTH, b"")
    assert {len(sealed) for sealed in (old.begun.records + claim.records + succeed(node, old, new).records)} == {
        len(claim.records[0])}


def test_what_does_not_follow_is_refused_and_nothing_is_sealed(node):
    to = sees()
    old, new = agree(node, 5, (to,)), agree(node, 6, (to,))
    before = node.client.info()
    wrong = [(old.index, old.index), (new.index, old.index), (new.index, node.agreed.index), (old.index, 3),
             (3, new.index), (old.index, 4), (4, new.index), (old.index, 1 << 31), ((1 << 32) - 1, new.index)]
    for pair in wrong:
        with refused(Status.ARGUMENT):
            node.client.succeed(*pair)
    assert node.client.info() == before


@pytest.mark.parametrize("party", ["mo", "qdo"])
def test_an_agreement_of_another_owner_follows_none(node, party):
    """Whoever has signed something of a higher number does not end the city's agreement by it."""
    old = agree(node, 2, (sees(),))
    other = Ed25519PrivateKey.generate()
    public = public_bytes(other)
    key = node.connect_key()
    if party == "mo":
        key.put_slot(8, KeyKind.MODEL, os.urandom(32), node.terms.model.key_id, public)
    else:
        key.put_slot(9, KeyKind.DATA, os.urandom(32), node.terms.data_key, public)
        key.put_slot(10, KeyKind.ALERT, os.urandom(32), ALERT_KEY_ID, public)
    key.close()
    terms = replace(old.terms, number=9, recipients=(sees(),), **{party: public})
    keys = dict(dict(mo=node.owner, qdo=node.qdo), **{party: other})
    model, data, alert = (8, DATA_SLOT, ALERT_SLOT) if party == "mo" else (MODEL_SLOT, 9, 10)
    begun = node.client.put_agreement(model, data, [alert], sign(terms.encode(), keys["mo"], keys["qdo"]))
    foreign = Agreed(begun.index, terms, begun)
    with refused(Status.ARGUMENT):
        succeed(node, old, foreign)
    assert node.client.exercise(old.index, 0).records  # in force still


def test_while_a_camera_is_judged_under_it_an_agreement_does_not_end(node):
    to = sees()
    old, new = agree(node, 2, (to,)), agree(node, 3, (to,))
    cameras = [node.camera(b"gate", old), node.camera(b"yard", old), node.camera(b"gate", new)]
    for camera in cameras[:2]:
        with refused(Status.ORDER):
            succeed(node, old, new)
        node.client.close_session(camera.session)
    assert succeed(node, old, new).records


def test_a_clip_without_a_record_keeps_its_agreement_in_force(node):
    to = sees()
    old, new = agree(node, 2, (to,)), agree(node, 3, (to,))
    camera = node.camera(b"gate", old)
    node.attempt(camera, node.seal(camera, HIGH))
    node.reconnect()
    with refused(Status.ORDER):
        node.client.close_session(camera.session)
    with refused(Status.ORDER):
        succeed(node, old, new)
    node.abort(camera)
    node.client.close_session(camera.session)
    succeed(node, old, new)


def test_after_its_last_record_nothing_is_sealed_under_an_agreement(node):
    to = sees()
    old, new = agree(node, 2, (to,)), agree(node, 3, (to,))
    succeed(node, old, new)
    for _ in ("its place is taken still", "it is free"):
        before = node.client.info().emission
        for act in (lambda: node.camera(b"gate", old), lambda: node.client.exercise(old.index, 0),
                    lambda: node.client.claim(old.index, RecordKind.HEALTH, b""), lambda: succeed(node, old, new),
                    lambda: succeed(node, new, old)):
            with refused(Status.ARGUMENT):
                act()
        with refused(Status.KEY):
            node.client.beacon(node.beacon(10 ** 9, agreement=old), bytes(32))
        with refused(Status.AGREEMENT):
            node.put(old.terms)
        assert node.client.info().emission == before
        node.client.confirm(before)


def test_no_number_below_the_one_that_is_over_begins_again_in_its_epoch(node):
    to = sees()
    old, new = agree(node, 5, (to,)), agree(node, 6, (to,))
    succeed(node, old, new)
    confirm_all(node)
    for number in (2, 5):
        with refused(Status.AGREEMENT):
            node.put(replace(old.terms, number=number))
    agree(node, 7, (to,))


def test_the_last_record_stays_kept_until_it_is_confirmed_and_its_place_until_then(node):
    to = sees()
    old, new = agree(node, 2, (to,)), agree(node, 3, (to,))
    agree(node, 4, (sees(),))
    emitted = succeed(node, old, new)
    with refused(Status.MEMORY):  # four places
        agree(node, 5, (to,))
    node.reconnect()
    assert node.client.record_from(emitted.emission) == (emitted.emission, emitted.records[0])
    node.client.confirm(emitted.emission)
    assert agree(node, 6, (to,)).index == old.index


def test_the_sequence_goes_on_over_any_number_of_agreements_and_over_an_absence(node):
    one, two = sees(), sees()
    seen = []
    old = agree(node, 2, (one, two))
    seen += old.begun.records
    for number in range(3, 12):
        to = (one, two) if number % 3 else (one,)  # the second one leaves, and comes back
        new = agree(node, number, to)
        seen += new.begun.records + succeed(node, old, new).records
        state = confirm_all(node)
        old = new
    for to in (one, two):
        numbers = [split_record(sealed)[0].seq for sealed in seen if split_record(sealed)[0].rcpt == to.rcpt]
        assert numbers == list(range(1, len(numbers) + 1))
    node.restart_eval(state)
    again = agree(node, 20, (one,))
    last = max(split_record(sealed)[0].seq for sealed in seen if split_record(sealed)[0].rcpt == one.rcpt)
    assert node.open(again.begun.records[0], agreement=again).previous_seq == last


def test_an_epoch_hears_of_so_many_recipients_and_no_more(node):
    old = node.agreed
    for number in range(2, 2 + (wire.EVAL_RECIPIENTS_MAX - 1) // 4):
        new = agree(node, number, [sees() for _ in range(4)])
        succeed(node, old, new)
        confirm_all(node)
        old = new
    last = [sees() for _ in range(4)]
    with refused(Status.MEMORY):
        agree(node, 50, last)
    assert agree(node, 50, last[:3])


def test_a_recipient_who_left_is_told_later_where_his_sequence_stood(node):
    """Else what he missed of it could be withheld: he would not know how far it went."""
    gone, stays = sees(), sees()
    old, new = agree(node, 2, (gone, stays)), agree(node, 3, (stays,))
    last = {split_record(sealed)[0].rcpt: split_record(sealed)[0].seq for sealed in succeed(node, old, new).records}
    node.restart_eval(confirm_all(node))
    again = agree(node, 4, (gone, stays))
    told = [node.open(sealed, agreement=again) for sealed in again.begun.records]
    assert [first.previous_seq for first in told] == [last[gone.rcpt], last[stays.rcpt]] == [2, 3]


def test_a_recipient_who_left_epochs_ago_is_told_of_the_last_one_that_was_his(node):
    gone, stays = sees(), sees()
    agree(node, 2, (gone, stays))
    epochs = []
    for turn in range(2):
        epochs.append(node.client.info().epoch)
        node.restart_eval(node.client.confirm(node.client.info().emission))
        again = agree(node, 3, (stays, gone) if turn else (stays,))
    told = [node.open(sealed, agreement=again) for sealed in again.begun.records]
    assert [(first.previous, first.previous_seq) for first in told] == [(epochs[1], 1), (epochs[0], 1)]


def test_no_camera_begins_under_a_number_below_one_that_is_over(node):
    """In force still, for the cameras that it has: but a new one belongs under what followed."""
    to = sees()
    first, second, third = (agree(node, number, (to,)) for number in (2, 3, 4))
    camera = node.camera(b"gate", first)
    succeed(node, second, third)
    for name in (b"gate", b"yard"):
        with refused(Status.AGREEMENT):
            node.camera(name, first)
    node.attempt(camera, node.seal(camera, HIGH)).finish()  # what it has goes on
    node.client.close_session(camera.session)
    succeed(node, first, third)
    node.camera(b"gate", third)


# What was under way.


@pytest.mark.parametrize("changes", [{}, dict(number=9), dict(score_bits=1),
                                     dict(rules=(Rule(LABELS[0], 65536, 0), Rule(LABELS[1], 1, DAY_S)))], ids=str)
def test_an_event_goes_on_where_all_who_hear_of_it_knew_of_it(node, changes):
    to = sees()
    old = agree(node, 2, (to,))
    rules = changes.get("rules", (RULE,))
    at = [rule.label for rule in rules].index(LABELS[1])
    new = agree(node, **dict(dict(number=3, to=(to._replace(rules=(SEES_ALL,) * len(rules)),)), **changes))
    first = message(node, node.camera(b"gate", old), old, HIGH)
    camera = node.camera(b"gate", new)
    attempt = node.attempt(camera, node.seal(camera, HIGH))
    attempt.finish()
    alert = node.open(attempt.progress.record, agreement=new).alerts[at]
    assert (alert.message, alert.event) == (UPDATE, first[0])


def test_an_event_that_went_over_ends_there(node):
    to = sees()
    rule = RULE._replace(cool_down_s=1)
    old, new = agree(node, 2, (to,), rules=(rule,)), agree(node, 3, (to,), rules=(rule,))
    first = message(node, node.camera(b"gate", old), old, HIGH)[0]
    camera = node.camera(b"gate", new)
    time.sleep(1.1)
    assert message(node, camera, new, LOW)[1:] == (CANCEL, first)


def test_an_event_that_went_over_ends_once(node):
    """The session that it left, open as long as root likes, knows nothing of it any more."""
    to = sees()
    rule = RULE._replace(cool_down_s=1)
    old, new = agree(node, 2, (to,), rules=(rule,)), agree(node, 3, (to,), rules=(rule,))
    before = node.camera(b"gate", old)
    first = message(node, before, old, HIGH)[0]
    camera = node.camera(b"gate", new)
    time.sleep(1.1)
    assert message(node, before, old, LOW)[1:] == (NONE, 0)
    assert message(node, camera, new, LOW)[1:] == (CANCEL, first)
    assert message(node, camera, new, LOW)[1:] == (NONE, 0)


def test_an_event_stays_where_no_session_came_of_its_going_over(node):
    """The data key is away for a moment: nothing is moved into nothing."""
    to = sees()
    old, new = agree(node, 2, (to,)), agree(node, 3, (to,))
    before = node.camera(b"gate", old)
    first = message(node, before, old, HIGH)[0]
    with closing(node.connect_key()) as key:
        key.put_slot(DATA_SLOT, KeyKind.DATA, node.data_key, b"of another time.", node.terms.qdo)
    with refused(Status.KEY):
        node.camera(b"gate", new)
    assert message(node, before, old, HIGH)[1:] == (UPDATE, first)


@pytest.mark.parametrize("what", ["a newcomer", "one who did not see it", "another label", "of a test"])
def test_else_it_is_an_alert_anew(node, what):
    """Told twice rather than an update of something that somebody never heard of."""
    to, blind = sees(), recipient(rules=(0,))
    old = agree(node, 2, (to, blind), **(dict(status=MessageStatus.TEST) if what == "of a test" else {}))
    readers = {"a newcomer": (to, sees()), "one who did not see it": (to, blind._replace(rules=(SEES_ALL,)))}
    rules = (Rule(LABELS[2], 1, DAY_S),) if what == "another label" else (RULE,)
    new = agree(node, 3, readers.get(what, (to, blind)), rules=rules)
    assert message(node, node.camera(b"gate", old), old, HIGH)[1] == ALERT
    number, said, event = message(node, node.camera(b"gate", new), new, HIGH)
    assert (said, event) == (ALERT, number)


def test_events_go_to_no_other_camera_and_to_no_agreement_before(node):
    to = sees()
    old, new = agree(node, 2, (to,)), agree(node, 3, (to,))
    assert message(node, node.camera(b"gate", new), new, HIGH)[1] == ALERT
    assert message(node, node.camera(b"yard", old), old, HIGH)[1] == ALERT
    assert message(node, node.camera(b"gate", old), old, HIGH)[1] == ALERT  # of one that follows
    assert message(node, node.camera(b"hall", new), new, HIGH)[1] == ALERT  # of another camera
