"""What a subscriber concludes from the enclave's numbers, of one node. Each test tells a history and its report."""

import random

import pytest

from edged.alerts import sequence as sequence_module
from edged.alerts.sequence import (
    NO_EPOCH, UNCONFIRMED_MAX, AfterEnd, EpochBegan, EpochRecord, Follower, Gap, GapClosed, Replay, Rollback, Sequence,
)  # fmt: skip

A, B, C, D = (bytes([letter]) * 16 for letter in b"ABCD")


class History:
    """A sequence under test; ``begin`` and ``get`` give the events of what came."""

    def __init__(self):
        self.sequence = Sequence("node")
        self.passed = []

    def begin(self, epoch, counter, previous=NO_EPOCH, previous_seq=0, unclean=False):
        return self._receive(epoch, 1, EpochRecord(counter, unclean, previous, previous_seq))

    def get(self, epoch, *seqs, counter=None):
        events = []
        for seq in seqs:
            events += self._receive(epoch, seq, None, counter)
        return events

    def _receive(self, epoch, seq, body=None, counter=None):
        seen = self.sequence.receive(epoch, seq, body, counter)
        if seen.new:
            self.passed.append((epoch, seq, seen.late))
        return seen.events


@pytest.fixture
def history():
    made = History()
    made.begin(A, 1)
    return made


def kinds(events):
    return [type(event) for event in events]


# ------------------------------------------------------------------------------------------ within an epoch


def test_the_first_record_begins_an_epoch_and_those_that_follow_are_silent():
    history = History()
    assert history.begin(A, 1) == [EpochBegan("node", A, 1, False, NO_EPOCH, (), 0)]
    assert history.get(A, 2, 3, 4) == []
    assert history.passed == [(A, 1, False), (A, 2, False), (A, 3, False), (A, 4, False)]


def test_a_gap_is_reported_once_and_closed_when_the_last_of_its_records_comes(history):
    assert history.get(A, 5) == [Gap("node", A, 2, 4)]
    assert history.get(A, 6) == []
    assert history.get(A, 3) == [] and history.get(A, 2) == []
    assert history.get(A, 4) == [GapClosed("node", A, 2, 4)]
    assert [late for _, _, late in history.passed] == [False, False, False, True, True, True]


def test_two_gaps_are_told_apart(history):
    assert history.get(A, 3, 6) == [Gap("node", A, 2, 2), Gap("node", A, 4, 5)]
    assert history.get(A, 2) == [GapClosed("node", A, 2, 2)]


def test_a_record_that_comes_again_is_a_replay_and_is_not_passed_on(history):
    history.get(A, 2, 3)
    assert history.get(A, 2, 2) == [Replay("node", A, 2, True)] * 2
    assert history.passed.count((A, 2, False)) == 1


def test_a_record_that_is_older_than_any_resend_is_told_apart(history):
    history.get(A, *range(2, 100))
    assert history.get(A, 35) == [Replay("node", A, 35, False)] and history.get(A, 36) == [Replay("node", A, 36, True)]


def test_a_replay_is_known_long_after_its_epoch_ended(history):
    history.get(A, 2)
    history.begin(B, 2, A, 2)
    history.get(B, 2)
    history.begin(C, 3, B, 2)
    assert kinds(history.get(A, 1 + 1)) == [Replay] and history.passed.count((A, 2, False)) == 1


def test_a_record_of_a_gap_counts_once_only(history):
    history.get(A, 5)
    history.get(A, 3)
    assert kinds(history.get(A, 3)) == [Replay]


def test_a_second_agreement_begins_with_an_epoch_record_of_its_own_in_the_same_sequence(history):
    again = EpochRecord(1, False, NO_EPOCH, 0)
    seen = history.sequence.receive(A, 2, again)
    assert seen.new and not seen.late and seen.events == []
    assert history.get(A, 3) == [] and kinds(history.sequence.receive(A, 2, again).events) == [Replay]
    with pytest.raises(ValueError, match="epoch counter 2, before it was 1"):
        history.sequence.receive(A, 4, EpochRecord(2, False, NO_EPOCH, 0))


def test_an_epoch_whose_first_epoch_record_was_withheld_begins_with_the_second(history):
    history.get(A, 2)
    seen = history.sequence.receive(B, 2, EpochRecord(2, False, A, 2))
    assert kinds(seen.events) == [EpochBegan, Gap] and history.sequence.current == B


def test_an_enclave_that_was_killed_before_its_first_confirmation_may_have_begun_several_agreements(history):
    history.get(A, 2)
    history.begin(B, 2, A, 2, unclean=True)
    history.sequence.receive(B, 2, EpochRecord(2, True, A, 2))
    assert kinds(history.begin(C, 2, A, 2, unclean=True)) == [EpochBegan]


@pytest.mark.parametrize("seq, body", [(0, None), (1, None), (0, EpochRecord(1, False, NO_EPOCH, 0))])
def test_what_no_enclave_would_seal_is_refused(seq, body):
    with pytest.raises(ValueError):
        Sequence("node").receive(A, seq, body)


def test_an_epoch_has_one_counter(history):
    with pytest.raises(ValueError, match="epoch counter 2, before it was 1"):
        history.get(A, 2, counter=2)
    assert history.get(A, 2, counter=1) == []


def test_a_gap_of_any_size_costs_nothing(history):
    assert history.get(A, 1 << 60) == [Gap("node", A, 2, (1 << 60) - 1)]
    assert history.get(A, 12345) == [] and kinds(history.get(A, 12345)) == [Replay]


def test_of_endlessly_many_gaps_the_oldest_is_given_up_and_its_records_are_refused(history, monkeypatch):
    monkeypatch.setattr(sequence_module, "OPEN_GAPS_MAX", 3)
    history.get(A, 3, 5, 7, 9)
    assert kinds(history.get(A, 2)) == [Replay] and history.get(A, 4) == [GapClosed("node", A, 4, 4)]


@pytest.mark.parametrize("seed", range(20))
def test_in_whatever_order_and_however_often_records_come_each_is_passed_on_once(seed):
    chance = random.Random(seed)
    history, events = History(), []
    wanted = list(range(1, 60))
    sent = wanted * 2
    chance.shuffle(sent)
    for seq in sent:
        events += history.begin(A, 1) if seq == 1 else history.get(A, seq)
    assert sorted(seq for _, seq, _ in history.passed) == wanted
    opened = sorted((event.first, event.last) for event in events if isinstance(event, Gap))
    closed = sorted((event.first, event.last) for event in events if isinstance(event, GapClosed))
    assert opened == closed and kinds(events).count(Replay) == len(wanted)


# ----------------------------------------------------------------------------------------- an agreement that ends


@pytest.mark.parametrize("seed", range(20))
def test_in_whatever_order_records_come_the_end_of_an_agreement_is_judged_by_their_numbers(seed):
    """20 under one agreement, ended by the 20th, and 5 that should not be; others under the next one in between."""
    chance = random.Random(seed)
    first, second = b"1" * 32, b"2" * 32
    sent = [(seq, first if seq % 2 == 0 or seq > 40 else second) for seq in range(2, 46)]
    chance.shuffle(sent)
    sequence, told = Sequence("node"), []
    sequence.receive(A, 1, EpochRecord(1, False, NO_EPOCH, 0), None, second)
    for seq, agreement in sent:
        known = max((at for at, under in sent[:sent.index((seq, agreement))] if under == first), default=0)
        seen = sequence.receive(A, seq, None, None, agreement, Follower(2, second, None) if seq == 40 else None)
        assert seen.new
        found = [event for event in seen.events if isinstance(event, AfterEnd)]
        told += found
        if seq == 40:
            assert found == ([AfterEnd("node", A, known, first, 40)] if known > 40 else [])
    assert {event.end for event in told} <= {40} and {event.agreement for event in told} <= {first}
    ended = sent.index((40, first))
    late = [seq for seq, agreement in sent[ended:] if seq > 40]
    early = [seq for seq, agreement in sent[:ended] if seq > 40]
    assert sorted(event.seq for event in told) == sorted(late + ([max(early)] if early else []))
    assert sequence.is_over(A, first) and not sequence.is_over(A, second) and not sequence.is_over(B, first)


def test_a_clip_after_two_ends_of_its_agreement_is_told_once():
    """The node ended it, was started anew, ended it once more, and then began it again; the second end comes late."""
    first, end = b"1" * 32, Follower(2, b"2" * 32, None)
    sequence, told = Sequence("node"), []
    for seen in (sequence.receive(A, 1, EpochRecord(1, False, NO_EPOCH, 0), None, first),
                 sequence.receive(A, 2, None, None, first, end),
                 sequence.receive(B, 1, EpochRecord(2, False, A, 2), None, first),
                 sequence.receive(C, 1, EpochRecord(3, False, B, 2), None, first),
                 sequence.receive(C, 2, None, None, first, None, True),
                 sequence.receive(B, 2, None, None, first, end)):
        told += [event for event in seen.events if isinstance(event, AfterEnd)]
    assert told == [AfterEnd("node", C, 2, first, 2, A)]


# ------------------------------------------------------------------------------------------- from epoch to epoch


def test_a_clean_succession_reports_nothing_but_itself(history):
    history.get(A, 2, 3)
    assert history.begin(B, 2, A, 3) == [EpochBegan("node", B, 2, False, A, (), 0)]
    assert history.sequence.current == B


def test_records_that_the_next_epoch_says_were_confirmed_are_owed(history):
    history.get(A, 2)
    assert history.begin(B, 2, A, 5) == [EpochBegan("node", B, 2, False, A, ((3, 5),), 0), Gap("node", A, 3, 5)]
    assert history.get(A, 3, 4, 5) == [GapClosed("node", A, 3, 5)]
    assert history.passed[-3:] == [(A, 3, True), (A, 4, True), (A, 5, True)]


def test_a_killed_enclave_is_announced_and_what_it_confirmed_is_owed(history):
    history.get(A, 2)
    events = history.begin(B, 2, A, 4, unclean=True)
    assert events == [EpochBegan("node", B, 2, True, A, ((3, 4),), 0), Gap("node", A, 3, 4)]
    assert history.get(A, 5) == [], "a record that was sealed and not confirmed may follow"


def test_gaps_that_were_open_are_named_when_the_epoch_ends(history):
    history.get(A, 4)
    assert history.begin(B, 2, A, 4)[0].lost == ((2, 3),)


def test_an_epoch_that_was_hidden_is_owed_from_its_first_record(history):
    history.get(A, 2)
    assert history.begin(C, 3, B, 7) == [EpochBegan("node", C, 3, False, B, ((1, 7),), 1, A), Gap("node", B, 1, 7)]
    assert history.get(C, 2, 3) == []
    assert history.begin(B, 2, A, 2) == [EpochBegan("node", B, 2, False, A, (), 0)], "named: late, not rolled back"
    assert history.get(B, *range(2, 8)) == [GapClosed("node", B, 1, 7)]
    assert all(late for epoch, _, late in history.passed if epoch == B)


def test_epochs_without_a_record_for_this_recipient_hide_nothing_of_the_one_before(history):
    """Closed, closed again, and then agreed to: the record names where his own last sequence ended."""
    history.get(A, 2)
    assert history.begin(D, 4, A, 5) == [EpochBegan("node", D, 4, False, A, ((3, 5),), 2), Gap("node", A, 3, 5)]
    assert history.get(A, 3, 4, 5) == [GapClosed("node", A, 3, 5)] and kinds(history.get(A, 6)) == [Rollback]


@pytest.mark.parametrize("between", [0, 5])
def test_a_clean_end_that_says_less_than_what_came_is_a_rollback_however_many_epochs_ago(history, between):
    history.get(A, 2, 3)
    assert Rollback in kinds(history.begin(D, 2 + between, A, 2))


@pytest.mark.parametrize("previous, counter", [(C, 3), (C, 9), (NO_EPOCH, 1), (NO_EPOCH, 3)])
@pytest.mark.parametrize("spoke", [True, False])
def test_an_epoch_that_does_not_say_how_the_one_known_last_ended_says_so(history, previous, counter, spoke):
    history.get(A, *[2] * spoke)
    assert history.begin(D, counter, previous, 0)[0].untold == A


def test_so_does_one_that_passes_over_an_epoch_of_which_but_its_first_record_came(history):
    """The rest of B was withheld, the state set back to A, and an epoch run from it in secret."""
    history.get(A, 2)
    history.begin(B, 2, A, 2)
    assert history.begin(D, 3, A, 2)[0].untold == B


@pytest.mark.parametrize("counter", [2, 3])
def test_so_does_one_of_the_same_counter_or_after_that(history, counter):
    """Likewise, and the state of A restored for the next one, too: it counts as B did."""
    history.get(A, 2)
    history.begin(B, 2, A, 2)
    assert history.begin(C, 2, A, 2)[0].untold == B
    assert history.begin(D, counter, C, 0)[0].untold is None, "told once"


def test_so_does_one_after_an_epoch_whose_first_record_was_withheld():
    history = History()
    history.get(B, 2, 3)
    assert history.begin(D, 4, C, 0)[0].untold == B
    assert history.begin(A, 5, D, 1)[0].untold is None, "told once"


def test_the_end_of_an_epoch_is_told_by_the_one_that_comes_late(history):
    history.get(A, 2)
    assert history.begin(C, 3, B, 1)[0].untold == A
    late = history.begin(B, 2, A, 4)
    assert late[0].untold is None and late[0].lost == ((3, 4),) and Gap("node", A, 3, 4) in late


def test_several_hidden_epochs_are_counted(history):
    history.get(A, 2)
    assert history.begin(D, 9, C, 0)[0].hidden == 7


def test_the_first_epoch_that_a_new_subscriber_sees_owes_what_the_one_before_confirmed():
    assert History().begin(B, 5, A, 3) == [EpochBegan("node", B, 5, False, A, ((1, 3),), 0), Gap("node", A, 1, 3)]


def test_an_epoch_whose_first_record_was_withheld_shows_a_gap(history):
    history.get(A, 2)
    assert history.get(B, 2) == [Gap("node", B, 1, 1)]
    assert history.begin(B, 2, A, 2) == [EpochBegan("node", B, 2, False, A, (), 0), GapClosed("node", B, 1, 1)]


def test_a_record_past_the_end_of_an_epoch_that_was_closed_shows_a_state_set_back(history):
    history.get(A, 2)
    history.begin(B, 2, A, 2)
    assert kinds(history.get(A, 3)) == [Rollback]


# --------------------------------------------------------------------------------------------------- rollback


def test_a_counter_that_does_not_rise_is_a_rollback(history):
    history.get(A, 2)
    history.begin(B, 2, A, 2)
    history.get(B, 2)
    events = history.begin(C, 2, A, 2, unclean=True)
    assert Rollback("node", C, "epoch counter 2, after 2 in epoch {}".format(B.hex())) in events


def test_an_enclave_that_knows_no_epoch_before_is_a_rollback(history):
    history.get(A, 2)
    assert Rollback in kinds(history.begin(B, 1, unclean=True))


def test_passing_over_the_epoch_known_last_is_a_rollback(history):
    """The state was set back, and another epoch run from it in secret."""
    history.get(A, 2)
    history.begin(B, 2, A, 2)
    history.get(B, 2)
    assert Rollback in kinds(history.begin(D, 3, C, 4))


def test_a_clean_end_before_records_that_came_is_a_rollback(history):
    history.get(A, 2, 3)
    assert Rollback in kinds(history.begin(B, 2, A, 2))


def test_a_kill_may_forget_what_was_not_confirmed_but_no_more(history):
    history.get(A, *range(2, UNCONFIRMED_MAX + 3))
    assert Rollback not in kinds(history.begin(B, 2, A, 2, unclean=True))
    history = History()
    history.begin(A, 1)
    history.get(A, *range(2, UNCONFIRMED_MAX + 4))
    assert Rollback in kinds(history.begin(B, 2, A, 2, unclean=True))


def test_an_enclave_that_was_killed_before_its_first_confirmation_is_no_rollback(history):
    """Its epoch record got out, the state that tells of it did not: twice."""
    history.get(A, 2)
    for epoch in (B, C, D):
        assert kinds(history.begin(epoch, 2, A, 2, unclean=True)) == [EpochBegan]
    assert history.get(D, 2) == []


def test_two_epochs_of_one_counter_that_both_go_on_are_a_rollback(history):
    history.get(A, 2)
    history.begin(B, 2, A, 2, unclean=True)
    history.begin(C, 2, A, 2, unclean=True)
    assert history.get(B, 2) == [] and kinds(history.get(C, 2)) == [Rollback]


def test_a_heartbeat_betrays_a_rollback_whose_epoch_record_is_withheld(history):
    history.get(A, 2)
    history.begin(B, 2, A, 2)
    history.get(B, 2)
    assert kinds(history.get(C, 2, counter=2)) == [Rollback, Gap]
    assert history.get(C, 3, counter=2) == [], "told once"


def test_an_epoch_without_its_first_record_that_the_next_one_passes_over_is_a_rollback(history):
    history.get(A, 2)
    assert kinds(history.get(B, 2, 3)) == [Gap]
    assert kinds(history.begin(C, 2, A, 2, unclean=True)) == [EpochBegan, Rollback]
    assert kinds(history.begin(D, 3, C, 1, unclean=True)) == [EpochBegan], "told once"


def test_an_epoch_without_its_first_record_that_the_next_one_names_is_none(history):
    history.get(A, 2)
    history.get(B, 2, 3)
    assert kinds(history.begin(C, 3, B, 3)) == [EpochBegan]


# ------------------------------------------------------------------------------------------------ over restarts


def test_it_goes_on_where_it_stopped(history):
    states = {}

    def note(seen):
        states.update((state.epoch, state) for state in seen.changed)

    note(history.sequence.receive(A, 4))
    note(history.sequence.receive(B, 1, EpochRecord(2, False, A, 4)))
    note(history.sequence.receive(B, 2))
    again = History()
    again.sequence = Sequence("node", states.values())
    assert again.sequence.current == B
    assert kinds(again.get(A, 4)) == [Replay] and again.get(A, 2, 3) == [GapClosed("node", A, 2, 3)]
    assert Rollback in kinds(again.begin(C, 2, A, 4)) and again.get(B, 4) == [Gap("node", B, 3, 3)]
