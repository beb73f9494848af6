"""The link between the applications: what lies between them can stop it, and can do nothing else.

On hardware the trusted kernel carries these messages; the host port's socket lets a test stand in the way.
"""

import os
import socket
import struct
import threading

import pytest

from attacks.node import ALERT_KEY_ID, ALERT_SLOT, DATA_KEY_ID, DATA_SLOT, AttackNode, refused
from edged.enclave import wire
from edged.enclave.wire import EvalCommand, KeyCommand, KeyKind, Status

HEAD = wire.Header.size()
# Where a hello has its signature and that one's size; four reserved bytes lie between.
SIGNATURE = [*range(96, 100), *range(104, wire.Hello.size())]
CAMERA = b"linked".ljust(32, b"\0")
OTHER_SLOT = 7


class Relay:
    """Between the evaluation and the key application; ``ask`` and ``answer`` may falsify what passes."""

    def __init__(self, folder):
        path = os.path.join(folder, wire.KEY_EVAL_PORT + ".ta")
        self.real = path + ".real"
        os.rename(path, self.real)
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind(path)
        self.listener.listen(4)
        self.ask = self.answer = lambda cmd, message: message
        self.seen = []  # (cmd, the key application's answer)
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            try:
                below, _ = self.listener.accept()
            except OSError:
                return
            with below, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as above:
                above.connect(self.real)
                above.send(below.recv(16))  # the UUID
                while True:
                    message = below.recv(4096)
                    if not message:
                        break
                    cmd = struct.unpack_from("<H", message, 2)[0]
                    above.send(self.ask(cmd, message))
                    answer = above.recv(4096)
                    self.seen.append((cmd, answer))
                    below.send(self.answer(cmd, answer))

    def honest(self):
        self.ask = self.answer = lambda cmd, message: message


@pytest.fixture(scope="module")
def tapped():
    with AttackNode() as node:
        node.enclave.restart_key()  # the link that is open already ends
        node.put_keys()
        node.relay = Relay(node.enclave.folder)
        yield node
        node.relay.listener.close()


def open_session(node):
    body = wire.SessionOpen(node.agreed.index, CAMERA, bytes(32)).pack()
    return node.call(EvalCommand.SESSION_OPEN, body)[0]


def flipped(message, place, bit=0):
    return message[:place] + bytes([message[place] ^ 1 << bit]) + message[place + 1:]


@pytest.fixture(autouse=True)
def untouched_before_and_after(tapped):
    """A link that nobody falsifies opens: also after any that was."""
    tapped.relay.honest()
    assert open_session(tapped) == Status.OK
    yield
    tapped.relay.honest()
    assert open_session(tapped) == Status.OK


def only(cmd, change):
    """``change`` for messages of one command, the rest untouched."""
    return lambda at, message: change(message) if at == cmd else message


def breaking_first(change):
    """The first derived key is falsified, which breaks the open link, so that a hello must come; then ``change``."""
    broken = []

    def both(at, message):
        if broken:
            return change(at, message)
        broken.append(at)
        return flipped(message, len(message) - 1)

    return both


def places(size):
    return [*range(HEAD), *range(HEAD, HEAD + size, 5), HEAD + size - 1]


def test_a_flipped_bit_in_a_derived_key_gives_no_session(tapped):
    for place in places(wire.Sealed.size()):
        tapped.relay.answer = only(KeyCommand.DERIVE, lambda message: flipped(message, place, place % 8))
        assert open_session(tapped) == Status.UNAVAILABLE, place


def test_a_link_that_broke_once_is_opened_anew(tapped):
    tapped.relay.seen.clear()
    tapped.relay.answer = breaking_first(lambda at, message: message)
    assert open_session(tapped) == Status.OK
    assert KeyCommand.HELLO in [cmd for cmd, _ in tapped.relay.seen]


@pytest.mark.parametrize("way", ["ask", "answer"])
def test_a_flipped_bit_in_a_hello_gives_no_session(tapped, way):
    for place in places(wire.Hello.size()):
        tapped.relay.honest()
        falsify = only(KeyCommand.HELLO, lambda message: flipped(message, place, place % 8))
        if way == "answer":
            tapped.relay.answer = breaking_first(falsify)
        else:
            tapped.relay.answer = breaking_first(lambda at, message: message)
            tapped.relay.ask = falsify
        # A peer that claims a signature is refused by name: there are none yet.
        claims = way == "ask" and place - HEAD in SIGNATURE
        assert open_session(tapped) == (Status.KEY if claims else Status.UNAVAILABLE), place
        tapped.relay.honest()
        assert open_session(tapped) == Status.OK


def test_an_answer_to_another_question_is_refused(tapped):
    """Asked for one slot's key, told another's, under the same link: the question is part of the seal."""
    client = tapped.connect_key()
    client.put_slot(OTHER_SLOT, KeyKind.DATA, bytes(32), DATA_KEY_ID, tapped.terms.qdo)
    client.close()

    def other_slot(at, message):
        if at == KeyCommand.DERIVE and struct.unpack_from("<I", message, HEAD)[0] == DATA_SLOT:
            return message[:HEAD] + struct.pack("<I", OTHER_SLOT) + message[HEAD + 4:]
        return message

    tapped.relay.ask = other_slot
    assert open_session(tapped) == Status.UNAVAILABLE


def test_a_flipped_bit_in_any_answer_about_an_agreements_keys_puts_none_in_force(tapped):
    """Of model and data key who their owners are, and the recipient's keys for records and for beacons."""
    seen = []

    def flip(at, message):
        seen.append(at)
        return flipped(message, len(message) - 1) if len(seen) >= broken else message

    for broken in range(1, 5):
        seen.clear()
        tapped.relay.answer = flip
        with refused(Status.UNAVAILABLE):
            tapped.agree(number=100)
        tapped.relay.honest()
        assert len(seen) >= broken and tapped.client.info().agreements == 1


def test_an_earlier_answer_to_the_same_question_is_refused(tapped):
    """The counter rises within a link: a key that was replaced cannot be told again."""
    tapped.relay.seen.clear()
    assert open_session(tapped) == Status.OK
    old = tapped.relay.seen[0][1]  # the first question of a session is for the camera's key
    asked = []

    def note(at, message):
        asked.append(message[HEAD:HEAD + 4])
        return message

    def replay(at, message):  # its body under the right header
        again = at == KeyCommand.DERIVE and asked[-1] == struct.pack("<I", DATA_SLOT)
        return message[:HEAD] + old[HEAD:] if again else message

    tapped.relay.ask, tapped.relay.answer = note, replay
    assert open_session(tapped) == Status.UNAVAILABLE


def test_an_alert_key_that_is_exchanged_between_two_questions_of_one_agreement_is_noticed(tapped):
    """Else its records would be sealed under the recipient's key, and beacons taken that another one made."""
    asked = []

    def exchange(at, message):
        asked.append(at)
        if len(asked) == 4:  # model, data, for records; now for beacons
            client = tapped.connect_key()
            client.put_slot(ALERT_SLOT, KeyKind.ALERT, bytes(32), ALERT_KEY_ID, tapped.terms.mo)
            client.close()
        return message

    tapped.relay.ask = exchange
    with refused(Status.AGREEMENT):
        tapped.agree(number=100)
    tapped.relay.honest()
    tapped.put_keys()
    assert asked == [KeyCommand.DERIVE] * 4 and tapped.client.info().agreements == 1


@pytest.mark.parametrize("cut", [lambda m: m[:HEAD - 1], lambda m: m[:HEAD], lambda m: m[:-1], lambda m: m + b"\0"],
                         ids=["no header", "no body", "short", "long"])
def test_an_answer_of_another_length_gives_no_session(tapped, cut):
    tapped.relay.answer = lambda at, message: cut(message)
    assert open_session(tapped) == Status.UNAVAILABLE
