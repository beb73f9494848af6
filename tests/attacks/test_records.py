"""Records: nobody but the recipient reads one, he reads what the agreement says, nobody alters one, none is lost, and
none tells by its looks."""

import hashlib
from dataclasses import replace

import cbor2
import numpy as np
import pytest

from attacks.networks import random_coordinates, small
from attacks.node import MODEL_SLOT, confirm_all, recipient, refused, short_recipient, spoil
from edged.alerts.record import open_record, split_record
from edged.enclave import wire
from edged.enclave.wire import EvalCommand, Placement, RecordKind, Status
from edged.errors import PackageError, VerificationFailed
from edged.model.package import inspect

MODEL = small(22)
RNG = np.random.default_rng()
CLAIMS = [RecordKind.CAMERA, RecordKind.HEALTH, RecordKind.STATISTICS, RecordKind.EVICTED]


def coordinates(persons=2):
    return random_coordinates(RNG, MODEL.shape, persons)


@pytest.fixture
def camera(node):
    node.load(MODEL, Placement.ENCLAVE)
    return node.camera(b"records")


def record_of(node, camera, persons=2):
    return node.attempt(camera, node.seal(camera, coordinates(persons))).finish()


def finished(node, camera):
    """The answer to the last step of a clip."""
    attempt = node.attempt(camera, node.seal(camera, coordinates()))
    attempt.finish()
    return attempt.progress


# Seals and headers.


@pytest.fixture(scope="module")
def by_key(node):
    """An agreement of who has the 32-byte key, and one of who has the 16-byte key."""
    return [node.agree(number=2, recipients=(recipient(),)), node.agree(number=3, recipients=(short_recipient(),))]


@pytest.mark.parametrize("which", [0, 1], ids=["32 bytes", "16 bytes"])
def test_a_record_opens_under_its_recipients_alert_key_and_agreement_alone(node, by_key, which):
    node.load(MODEL, Placement.ENCLAVE)
    agreed, other = by_key[which], by_key[1 - which]
    camera = node.camera(b"records", agreed)
    right, wrong = (node.alert_key, node.short_alert_key)[::1 - 2 * which]
    clip = coordinates()
    record = node.attempt(camera, node.seal(camera, clip)).finish()
    observation = node.expect(record, clip, right, agreed)
    to = agreed.terms.recipients[0]
    assert (observation.header.rcpt, observation.header.kid) == (to.rcpt, to.alert_key)
    assert observation.camera == camera.name and observation.tracks == (1, 2) and observation.claimed_ns == 5
    for key in (wrong, bytes(32), bytes(16), node.data_key, node.model_key, right[:-1] + bytes([right[-1] ^ 1])):
        with pytest.raises(VerificationFailed):
            node.open(record, key, agreed)
    for agreement in (node.agreed, other):
        with pytest.raises(VerificationFailed):
            node.open(record, right, agreement)
    if which == 0:  # a 32-byte key is not two 16-byte ones
        with pytest.raises(VerificationFailed):
            node.open(record, right[:16], agreed)


def rewritten(record, **changes):
    """The record with another header, in its canonical form."""
    head, _, body = split_record(record)
    data = replace(head, **changes).pack()
    return wire.RecordHead(len(data), len(body)).pack() + data + body


def test_two_recipients_with_one_alert_key_cannot_exchange_their_records(node):
    """The recipient is part of the record's key, not only of its header."""
    node.load(MODEL, Placement.ENCLAVE)
    agreed = node.agree(number=4, body=512, recipients=(recipient(), recipient()))
    one, other = finished(node, node.camera(b"records", agreed)).records
    assert {split_record(one)[0].rcpt, split_record(other)[0].rcpt} == {to.rcpt for to in agreed.terms.recipients}
    for record, wrong in ((one, other), (other, one)):
        node.open(record, agreement=agreed)
        with pytest.raises(VerificationFailed):
            node.open(rewritten(record, rcpt=split_record(wrong)[0].rcpt), agreement=agreed)


@pytest.mark.parametrize("changes", [
    dict(seq=1 << 40), dict(kind=int(RecordKind.FAILED)), dict(kind=1), dict(node=bytes(16)), dict(epoch=bytes(16)),
    dict(kid=bytes(16)), dict(rcpt=bytes(16)), dict(salt=bytes(32))], ids=lambda changes: "".join(changes))
def test_a_record_whose_header_was_altered_is_refused(node, camera, changes):
    record = record_of(node, camera)
    with pytest.raises(VerificationFailed):
        open_record(rewritten(record, **changes), node.alert_key, node.agreed.terms.digest)


def test_a_flipped_bit_anywhere_in_a_record_is_refused(node, camera):
    record = record_of(node, camera)
    node.open(record)
    for place in range(0, len(record), 7):
        broken = bytearray(record)
        broken[place] ^= 1 << int(RNG.integers(8))
        with pytest.raises((VerificationFailed, PackageError)):
            open_record(bytes(broken), node.alert_key, node.agreed.terms.digest)


def test_a_record_is_of_canonical_cbor_and_holds_nothing_but_its_fields(node, camera):
    record = record_of(node, camera)
    head, data, _ = split_record(record)
    assert list(cbor2.loads(data)) == ["v", "kid", "seq", "kind", "node", "rcpt", "salt", "epoch"]
    assert head.pack() == data


def test_a_record_names_the_model_that_decided_it(node, camera):
    digests = []
    for _ in range(2):
        package = node.pack(MODEL)
        node.client.load(package, MODEL_SLOT, Placement.ENCLAVE)
        digests.append(node.open(record_of(node, camera)).model)
        assert digests[-1] == hashlib.sha256(inspect(package).encoded).digest()
    assert digests[0] != digests[1]  # another salt, another package


# One for each recipient of each clip, numbered.


def test_records_are_numbered_per_recipient_without_a_gap_and_name_one_epoch_and_node(fresh_node):
    node = fresh_node
    node.load(MODEL, Placement.ENCLAVE)
    other = node.agree(number=2, recipients=(short_recipient(),))
    cameras = [node.camera(b"one"), node.camera(b"two", other), node.camera(b"three")]
    heads = {agreed.index: [split_record(agreed.begun.records[0])[0]] for agreed in (node.agreed, other)}
    for turn in range(12):
        agreed = other if turn % 3 == 1 else node.agreed
        heads[agreed.index].append(split_record(record_of(node, cameras[turn % 3], turn % 2))[0])
    for seen in heads.values():
        assert [head.seq for head in seen] == list(range(1, len(seen) + 1))
    both = heads[0] + heads[1]
    assert len({(head.epoch, head.node, head.salt) for head in both}) == 1
    assert both[0].epoch == node.client.info().epoch


def test_who_is_a_recipient_of_two_agreements_has_one_sequence_over_both(fresh_node):
    """Two sequences of one epoch would be one, with doubles, to who stores or counts the records."""
    node = fresh_node
    node.load(MODEL, Placement.ENCLAVE)
    other = node.agree(number=2, recipients=node.terms.recipients)
    cameras = [node.camera(b"one"), node.camera(b"two", other)]
    records = [record_of(node, cameras[turn % 2]) for turn in range(6)]
    heads = [split_record(record)[0] for record in node.agreed.begun.records + other.begun.records + tuple(records)]
    assert [head.seq for head in heads] == list(range(1, 9))
    for turn, record in enumerate(records):
        node.open(record, agreement=(node.agreed, other)[turn % 2])
    beat = node.open(node.client.beacon(node.beacon(1), bytes(32)).records[0])
    assert beat.seq == beat.header.seq == 9


def four(**changes):
    return dict(dict(number=7, body=512, recipients=(recipient(), short_recipient(), recipient(0), short_recipient(0))),
                **changes)


@pytest.mark.parametrize("end", ["observation", "failed", "given up"])
def test_every_clip_gives_exactly_one_record_for_each_recipient_all_of_one_size(fresh_node, end):
    node = fresh_node
    node.load(MODEL, Placement.MASKED)
    agreed = node.agree(**four())
    camera = node.camera(b"four", agreed)
    before = node.client.info().emission
    sealed = node.seal(camera, coordinates())
    if end == "observation":
        attempt = node.attempt(camera, sealed)
        attempt.finish()
        answer = attempt.progress
    elif end == "failed":
        spoil(node.attempt(camera, sealed))
        spoil(node.attempt(camera, sealed))
        answer = refusal_of(node.attempt(camera, sealed))
    else:
        node.attempt(camera, sealed)
        answer = node.client.abort_clip(camera.session)
    heads = [split_record(record)[0] for record in answer.records]
    assert [head.rcpt for head in heads] == [to.rcpt for to in agreed.terms.recipients]
    assert {head.kind for head in heads} == {RecordKind.OBSERVATION if end == "observation" else RecordKind.FAILED}
    assert len({len(record) for record in answer.records + agreed.begun.records}) == 1
    assert answer.emission == node.client.info().emission == before + 4
    for record in answer.records:
        seen = node.open(record, agreement=agreed)
        assert (seen.number, seen.camera, seen.header.seq) == (sealed[0], camera.name, 2)
    with refused(Status.CLIP):
        node.attempt(camera, sealed)
    assert node.client.info().emission == before + 4


def refusal_of(attempt):
    answers = {index: y_bar ^ np.uint32(1) for index, y_bar in attempt.answers().items()}
    with refused(Status.VERIFICATION) as caught:
        attempt.submit(answers)
    return caught.value


def test_records_that_do_not_fit_one_answer_are_fetched(fresh_node):
    node = fresh_node
    node.load(MODEL, Placement.ENCLAVE)
    agreed = node.agree(**four(body=wire.EDGED_BODY_MAX))
    confirm_all(node)
    before = node.client.info().emission
    done = finished(node, node.camera(b"large", agreed))
    assert len(done.records) == 1 and done.emission == before + 4
    kept = node.kept(before)
    assert [emission for emission, _ in kept] == [before + i for i in range(1, 5)]
    assert kept[0][1] == done.record
    assert [split_record(record)[0].rcpt for _, record in kept] == [to.rcpt for to in agreed.terms.recipients]
    assert {len(record) for _, record in kept} == {8 + 192 + wire.EDGED_BODY_MAX + 16}


# What they tell by their looks.


def test_records_have_one_size_whatever_their_number_and_kind(fresh_node):
    node = fresh_node
    node.load(MODEL, Placement.ENCLAVE)
    agreed = node.agree(number=2, body=512)
    camera, sizes = node.camera(b"sizes", agreed), {len(agreed.begun.records[0])}
    for turn in range(260):  # CBOR needs more bytes for a number from 24 and from 256 on; the rate lets 277 at once
        attempt = node.attempt(camera, node.seal(camera, coordinates(1 + turn % 2)))
        sizes.add(len(node.abort(camera)[1] if turn % 3 == 0 else attempt.finish()))
        if turn % 50 == 0:
            sizes.add(len(node.client.beacon(node.beacon(1 + turn, agreement=agreed), bytes(32)).records[0]))
            sizes.add(len(node.client.claim(agreed.index, RecordKind.HEALTH, bytes(turn)).records[0]))
    assert sizes == {wire.RecordHead.size() + wire.EDGED_RECORD_HEADER_MAX + 512 + wire.EVAL_TAG_BYTES}


def test_a_record_tells_by_its_size_and_kind_neither_the_result_nor_the_number_of_people(node, camera):
    records = [record_of(node, camera, persons) for persons in (0, 1, 2)]
    assert len({len(split_record(record)[2]) for record in records}) == 1
    assert {split_record(record)[0].kind for record in records} == {RecordKind.OBSERVATION}


# Kept until they are confirmed.


def test_kept_records_are_given_again_byte_for_byte_until_they_are_confirmed(fresh_node):
    """In any state, after a disconnect, with no model at all; to say them again spends no number."""
    node = fresh_node
    node.load(MODEL, Placement.ENCLAVE)
    camera, other = node.camera(b"one"), node.camera(b"other")
    said = [node.agreed.begun.records[0], record_of(node, camera)]
    under_way = node.attempt(other, node.seal(other, coordinates()))
    assert [record for _, record in node.kept(0)] == said
    said.append(under_way.finish())
    node.reconnect()
    assert node.kept(0) == list(enumerate(said, 1))
    assert node.kept(1) == list(enumerate(said, 1))[1:]
    assert node.client.record_from(4) == node.client.record_from((1 << 64) - 1) == (3, None)
    node.load(MODEL, Placement.ENCLAVE)
    node.attempt(camera, node.seal(camera, coordinates()))
    said.append(node.abort(camera)[1])
    node.client.confirm(2)
    node.client.confirm(1)  # nothing comes back
    assert node.kept(0) == list(enumerate(said, 1))[2:]
    assert split_record(said[-1])[0].seq == 4 and node.client.info().kept == 2
    node.client.confirm(4)
    assert node.kept(0) == [] and node.client.info().kept == 0
    assert node.client.record_from(0) == (4, None)
    assert split_record(record_of(node, camera))[0].seq == 5


def test_what_was_not_sealed_cannot_be_confirmed(fresh_node):
    node = fresh_node
    for emission in (2, 1 << 32, (1 << 64) - 1):
        with refused(Status.ARGUMENT):
            node.client.confirm(emission)
    assert node.client.info().kept == 1


def test_when_too_many_records_are_kept_clips_are_refused_until_some_are_confirmed(fresh_node):
    node = fresh_node
    node.load(MODEL, Placement.MASKED)
    agreed = node.agree(**four())
    camera = node.camera(b"full", agreed)
    node.client.confirm(1)  # the default agreement's; four more wait
    for _ in range(wire.EVAL_KEPT_MAX // 4 - 1):
        node.attempt(camera, node.seal(camera, coordinates()), make_room=False).finish()
    assert node.client.info().kept == wire.EVAL_KEPT_MAX
    before = node.client.info()
    clip = node.seal(camera, coordinates())
    for ask in (lambda: node.attempt(camera, clip, make_room=False),
                lambda: node.client.claim(agreed.index, RecordKind.HEALTH, b"warm"),
                lambda: node.client.beacon(node.beacon(1, agreement=agreed), bytes(32)),
                lambda: node.agree(number=9)):
        with refused(Status.FULL):
            ask()
    assert node.client.info() == before
    for room in range(1, 4):  # one more of the first four; a clip needs four
        node.client.confirm(1 + room)
        with refused(Status.FULL):
            node.attempt(camera, clip, make_room=False)
    node.client.confirm(5)
    node.attempt(camera, clip, make_room=False).finish()
    assert node.client.info() == replace(before, emission=before.emission + 4)


@pytest.mark.parametrize("when", ["announced", "under way", "refused"])
def test_a_clip_that_was_taken_has_its_room_whatever_else_is_to_be_said(fresh_node, when):
    node = fresh_node
    node.load(MODEL, Placement.MASKED)
    agreed = node.agree(**four())
    camera = node.camera(b"room", agreed)
    for _ in range((wire.EVAL_KEPT_MAX - 5 - 4) // 4):
        node.client.claim(agreed.index, RecordKind.HEALTH, b"")
    while node.client.info().kept < wire.EVAL_KEPT_MAX - 4:
        node.client.claim(node.agreed.index, RecordKind.HEALTH, b"")
    clip = coordinates()
    number, sealed = node.seal(camera, clip)
    node.client.open_clip(camera.session, 0, number, 0, len(sealed))
    if when == "announced":
        for _ in range(2):
            with refused(Status.FULL):
                node.client.claim(node.agreed.index, RecordKind.HEALTH, b"")
        node.client.write_clip(sealed)
        node.client.begin_clip()
    else:
        node.client.write_clip(sealed)
        node.client.begin_clip()
    if when == "refused":
        node.reconnect()
        node.load(MODEL, Placement.MASKED)
    with refused(Status.FULL):
        node.client.claim(node.agreed.index, RecordKind.HEALTH, b"")
    with refused(Status.FULL):
        node.client.beacon(node.beacon(1), bytes(32))
    records = node.client.abort_clip(camera.session).records
    assert len(records) == 4 and node.client.info().kept == wire.EVAL_KEPT_MAX


# What the node itself says.


@pytest.mark.parametrize("kind", CLAIMS, ids=lambda kind: kind.name)
@pytest.mark.parametrize("size", [0, 1, wire.EDGED_CLAIM_MAX])
def test_a_claim_carries_the_nodes_bytes_to_every_recipient(fresh_node, kind, size):
    node = fresh_node
    agreed = node.agree(**four())
    data = RNG.bytes(size)
    emitted = node.client.claim(agreed.index, kind, data)
    assert len(emitted.records) == 4
    for record, to in zip(emitted.records, agreed.terms.recipients):
        claim = node.open(record, agreement=agreed)
        assert (claim.kind, claim.header.kind, claim.data, claim.header.rcpt) == (kind, kind, data, to.rcpt)


def test_a_claim_that_is_too_long_or_of_a_kind_that_only_the_enclave_says_is_refused(node):
    before = node.client.info()
    for kind in [kind for kind in range(12) if kind not in CLAIMS] + [1 << 31, 0xFFFFFFFF]:
        with refused(Status.ARGUMENT):
            node.client.claim(node.agreed.index, kind, b"an alert, surely")
    for index in (9, 1 << 31, 0xFFFFFFFF):
        with refused(Status.ARGUMENT):
            node.client.claim(index, RecordKind.HEALTH, b"")
    with refused(Status.ARGUMENT):
        node.client.claim(node.agreed.index, RecordKind.HEALTH, bytes(wire.EDGED_CLAIM_MAX + 1))
    for said in (0, 2, 0xFFFFFFFF):
        body = wire.ClaimPut(node.agreed.index, RecordKind.HEALTH, said).pack() + b"?"
        assert node.call(EvalCommand.CLAIM, body) == (Status.LENGTH, b"")
    assert node.client.info() == before
