"""What several tests of the bridge do to it."""

import os
import threading
from contextlib import contextmanager

import pytest

from bridge_node import PATIENCE_S, until
from edged import bus
from edged.alerts.record import split_record
from edged.alerts.spool import Caps, Spool
from edged.enclave.client import EvalClient
from edged.enclave.wire import Status
from edged.errors import EnclaveError, SpoolError
from edged.offload import messages
from edged.offload.bridge import Bridge
from edged.trust.agreement import Rule

QUIET_S = 0.3  # how long a test listens for what must not come
# Of the moments at which something is killed; each of them is tried where there is time.
EVERY = [5, pytest.param(1, marks=pytest.mark.slow)]
RULES = (Rule("label 1", 60000, 0), Rule("label 2", 60000, 0))


def event(caplog, name):
    return [record.getMessage() for record in caplog.records if record.getMessage().startswith(name + " ")
            or record.getMessage() == name]


@contextmanager
def held(monkeypatch):
    """Evaluations wait until the block ends; who was taken, in order."""
    taken, opened, honest = [], threading.Event(), Bridge.evaluate

    def evaluate(self, session, number, sealed):
        taken.append(session)
        assert opened.wait(PATIENCE_S)
        return honest(self, session, number, sealed)

    monkeypatch.setattr(Bridge, "evaluate", evaluate)
    try:
        yield taken
    finally:
        opened.set()


def replace_rcpt(recipient):
    return recipient._replace(rcpt=bytes(reversed(recipient.rcpt)))


def leave_unfinished(camera, monkeypatch):
    """A clip that the enclave accepted and is not done with: the bridge says that it has to wait."""
    def unavailable(self, step):
        raise EnclaveError("STEP refused: away", Status.UNAVAILABLE)

    with monkeypatch.context() as patched:
        patched.setattr(EvalClient, "end_step", unavailable)
        clip = camera.sealed()
        camera.offer(*clip)
        answer = camera.hear("refused")
        assert answer[1]["retry"] and not answer[1]["reopen"] and "unavailable" in answer[1]["reason"]
    return clip


@contextmanager
def outbox(node):
    with bus.Dealer(node.address, b"outbox") as dealer:
        until(lambda: dealer.send(messages.pack("beacon", {}, b"")))  # dropped: it is none
        yield dealer


def beacon_of(node, time_ns=10 ** 9, nonce=b"n" * 16, recipient=0):
    with Spool(os.path.join(node.folder, "state", "spool.db"), Caps(1, 1, 1)) as spool:
        node._salt = split_record(spool.pending(node.agreement.recipients[recipient].rcpt, 0, 1 << 20)[-1][1])[0].salt
    return node.beacon(time_ns, nonce, recipient)


def kinds(node, recipient=0):
    return [record.kind for record in node.checked(recipient)]


def failing(monkeypatch, name="put"):
    honest, broken = getattr(Spool, name), [True]

    def method(self, *arguments):
        if broken[0]:
            raise SpoolError("spool.db: disk full: make room")
        return honest(self, *arguments)

    monkeypatch.setattr(Spool, name, method)
    return broken
