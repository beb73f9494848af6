"""The spool fails: nothing is confirmed or called done that is not stored."""

from dataclasses import replace

from bridge_node import BridgeNode, Killed, Saying, until
from edged.enclave import wire
from edged.enclave.client import EvalClient
from edged.enclave.wire import RecordKind
from edged.trust.agreement import sign
from moves import QUIET_S, RULES, event, failing, kinds, replace_rcpt


def test_a_full_disk_means_no_done_and_no_confirmation_until_there_is_room(node, gate, monkeypatch, logged):
    gate.hello()
    confirmed, honest = [], EvalClient.confirm
    monkeypatch.setattr(EvalClient, "confirm", lambda self, n: confirmed.append(n) or honest(self, n))
    broken = failing(monkeypatch)
    clips = [gate.sealed() for _ in range(2)]
    for clip in clips:
        gate.offer(*clip)
    assert gate.hear("done", "refused", patience_s=QUIET_S) is None
    gate.offer(*clips[0])  # asked for again: it is over, and not answered
    assert gate.hear("done", "refused", patience_s=QUIET_S) is None
    assert confirmed == [] and node.status()["spool"] == "failing" and node.clips() == []
    broken[0] = False
    assert [gate.hear("done")[1]["number"] for _ in clips] == [1, 2]
    assert [claimed for _, claimed, _ in node.clips()] == [1, 2] and node.status()["spool"] == "ok"
    assert len(event(logged, "spool_failing")) == 1 and len(event(logged, "spool_back")) == 1


def test_a_disk_that_stays_full_fills_the_enclave_and_clips_have_to_wait(monkeypatch):
    with BridgeNode() as node, Saying(node.bridge()) as gate:
        gate.hello()
        broken = failing(monkeypatch)
        sent, refused = [], None
        while refused is None:
            assert len(sent) <= wire.EVAL_KEPT_MAX, "it never refuses"
            sent.append(gate.sealed())
            gate.offer(*sent[-1])
            until(lambda: node.status()["waiting"] == 0)
            refused = gate.hear("done", "refused", patience_s=0.02)
        assert refused[0] == "refused" and refused[1]["retry"] and refused[1]["reason"].startswith("full")
        assert len(sent) == wire.EVAL_KEPT_MAX + 1
        broken[0] = False
        for _ in sent[:-1]:
            assert gate.hear("done")
        gate.offer(*sent[-1])
        assert gate.hear("done")
        assert [claimed for _, claimed, _ in node.clips()] == list(range(1, len(sent) + 1))


def test_records_that_a_full_disk_kept_in_the_enclave_outlive_the_bridge(node, gate, monkeypatch):
    gate.hello()
    with monkeypatch.context() as patched:
        failing(patched)
        gate.offer(*gate.sealed())
        until(lambda: node.status()["clips"] == 1)
        node.stop()
    assert node.clips() == []
    node.bridge()
    assert [claimed for _, claimed, _ in node.clips()] == [1]


def test_a_full_enclave_takes_a_further_agreement_once_its_records_are_stored(node, gate, monkeypatch):
    gate.hello()
    with monkeypatch.context() as patched:
        failing(patched)
        while gate.hear("refused", patience_s=0.01) is None:
            gate.offer(*gate.sealed())
            until(lambda: node.status()["waiting"] == 0)
        node.stop()
    other = replace(node.agreement, number=2, recipients=tuple(replace_rcpt(one) for one in node.agreement.recipients))
    node.papers.append((other, sign(other.encode(), node.mo_key, node.qdo_key)))
    node.bridge()
    assert len(node.clips()) == wire.EVAL_KEPT_MAX and node.status()["enclave"] == "up"


def test_a_clip_that_waits_for_the_spool_is_not_done_in_a_later_session(node, gate, monkeypatch):
    gate.hello()
    broken = failing(monkeypatch)
    gate.offer(*gate.sealed())
    until(lambda: node.status()["clips"] == 1)
    gate.hello()  # as a process that began anew, and counts from 1
    broken[0] = False
    until(lambda: node.status()["spool"] == "ok")
    assert gate.hear("done", patience_s=QUIET_S) is None and len(node.clips()) == 1
    gate.number = 0
    gate.offer(*gate.sealed())
    assert gate.hear("done") == ("done", {"number": 1, "failed": False})


def test_clips_that_died_with_the_enclave_hold_nobody_up(node, gate, monkeypatch):
    for _ in range(4):
        gate.deliver()
    broken = failing(monkeypatch)
    gate.offer(*gate.sealed())
    until(lambda: node.status()["clips"] == 5)
    node.restart_eval()
    broken[0] = False
    assert gate.hear("reopen")
    gate.session = None
    assert gate.deliver() is False
    assert [claimed for _, claimed, _ in node.clips()] == [1, 2, 3, 4, 6]


def test_a_state_that_nobody_stored_is_asked_for_again(node, gate, monkeypatch):
    honest = EvalClient.confirm

    def confirm(self, emission):
        honest(self, emission)
        raise Killed()

    gate.hello()
    with monkeypatch.context() as patched:
        patched.setattr(EvalClient, "confirm", confirm)
        gate.offer(*gate.sealed())
        until(lambda: node.is_dead)
    node.join()
    epoch = node.bridge().status()["epoch"]
    node.restart_eval()
    until(lambda: node.status()["epoch"] not in (None, epoch))
    last = [record for record in node.checked() if record.kind == RecordKind.EPOCH][-1]
    assert (last.previous, last.previous_seq) == (epoch, 2)


def test_a_state_that_cannot_be_stored_is_stored_later(node, gate, monkeypatch):
    gate.hello()
    broken = failing(monkeypatch, "set_state")
    assert gate.deliver() is False  # its records are stored
    assert node.status()["spool"] == "failing"
    broken[0] = False
    until(lambda: node.status()["spool"] == "ok")
    epoch = node.status()["epoch"]
    node.restart_eval()
    until(lambda: node.status()["epoch"] not in (None, epoch))
    last = [record for record in node.checked() if record.kind == RecordKind.EPOCH][-1]
    assert (last.previous, last.previous_seq) == (epoch, 2)


def test_a_full_disk_at_the_start_of_an_epoch_delays_it(monkeypatch, logged):
    with BridgeNode() as node:
        broken = failing(monkeypatch)
        node.bridge(wait=False)
        until(lambda: event(logged, "spool_failing"))
        assert node.status()["enclave"] == "away" and node.stored() == []
        broken[0] = False
        with Saying(node) as gate:
            assert gate.deliver() is False
        assert kinds(node) == [RecordKind.EPOCH, RecordKind.OBSERVATION]


def test_an_exercise_that_cannot_be_stored_says_so(monkeypatch):
    with BridgeNode(rules=RULES) as node:
        node.bridge()
        broken = failing(monkeypatch)
        kind, answer = node.ask("exercise", rule=0)
        assert kind == "refused" and "the spool fails" in answer["reason"]
        broken[0] = False
        until(lambda: len(node.stored()) == 2)
