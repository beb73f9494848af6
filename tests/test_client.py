"""The typed clients against scripted answers: each test breaks one thing in a valid exchange."""

from dataclasses import replace

import numpy as np
import pytest

from edged.emulated import ALERT_SLOT, DATA_SLOT, EmulatedNode
from edged.enclave import wire
from edged.enclave.client import EvalClient, InvocationRefused
from edged.enclave.connection import Connection, refusal
from edged.enclave.key import KeyClient
from edged.enclave.tipc import Channel, FakeChannel
from edged.enclave.wire import EvalCommand, Header, Status
from edged.errors import EnclaveError, PackageError, VerificationFailed


def answer_to(message, body=b"", **changes):
    """A valid answer to a request, with some of its header's fields changed."""
    head = Header.unpack(message[:Header.size()])
    fields = dict(version=1, cmd=head.cmd + 1, len=len(body), seq=head.seq, status=0, reserved=0)
    fields.update(changes)
    return Header.codec.pack(*fields.values()) + body


def client(body=b"", **changes):
    return EvalClient(FakeChannel(lambda message, _: answer_to(message, body, **changes)))


INFO = wire.EvalInfo(wire.EVAL_FLAG_EMULATED, 4096, b"e" * 16, agreements=1, kept=2, emission=3)


def test_a_valid_answer_is_taken():
    assert client(INFO.pack()).info() == INFO


def test_a_request_is_framed_as_the_header_says():
    seen = []

    def record(message, handle):
        seen.append((message, handle))
        return answer_to(message)

    KeyClient(FakeChannel(record)).put_slot(3, wire.KeyKind.ALERT, b"k" * 16, b"i" * 16, b"v" * 32)
    message, handle = seen[0]
    assert Header.unpack(message[:24]) == Header(1, wire.KeyCommand.SLOT_PUT, wire.SlotPut.size(), 1, 0)
    assert wire.SlotPut.unpack(message[24:]) == wire.SlotPut(3, 3, 16, b"i" * 16, b"k" * 16 + bytes(16), b"v" * 32)
    assert handle is None


@pytest.mark.parametrize("changes", [
    {"version": 2}, {"cmd": EvalCommand.INFO}, {"cmd": EvalCommand.STATS + 1}, {"len": 39}, {"seq": 2},
    {"reserved": 1}, {"status": 24},
], ids=str)
def test_an_answer_that_does_not_fit_the_request_is_an_error(changes):
    with pytest.raises(EnclaveError, match="matching releases"):
        client(INFO.pack(), **changes).info()


@pytest.mark.parametrize("size", [1, 23])
def test_an_answer_shorter_than_its_header_is_an_error(size):
    with pytest.raises(EnclaveError, match="answer of {} bytes".format(size)):
        EvalClient(FakeChannel(lambda *_: bytes(size))).info()


@pytest.mark.parametrize("status", [status for status in Status if status != Status.OK], ids=lambda s: s.name)
def test_every_refusal_carries_its_status(status):
    with pytest.raises(EnclaveError) as caught:
        client(status=status).info()
    assert caught.value.status == status
    assert isinstance(caught.value, VerificationFailed) == (
        status in (Status.VERIFICATION, Status.GRANT, Status.REPLAY))


def test_a_bare_call_gives_any_status_and_body():
    channel = FakeChannel(lambda message, _: answer_to(message, b"abc", status=Status.ORDER))
    assert Connection(channel).call(EvalCommand.STEP, b"x") == (Status.ORDER, b"abc")


class Queue(Channel):
    """Answers only when asked, and remembers how many requests were under way at most."""

    def __init__(self, answer):
        self.name = "queue"
        self._answer = answer
        self._waiting = []
        self.sent = 0
        self.most = 0

    def send(self, message, handle=None):
        self._waiting.append(message)
        self.sent += 1
        self.most = max(self.most, len(self._waiting))

    def receive(self):
        return self._answer(self._waiting.pop(0))

    def window(self, size_bytes):
        raise AssertionError("nobody here shares memory")

    def close(self):
        self._waiting.clear()


def test_bulk_data_keeps_several_requests_under_way():
    channel = Queue(lambda message: answer_to(message, message[Header.size():]))
    bodies = [bytes([value]) for value in range(50)]
    assert list(Connection(channel).pipeline(EvalCommand.CLIP_WRITE, bodies)) == bodies
    assert channel.most == wire.EDGED_QUEUE


@pytest.mark.parametrize("ask, said", [(lambda c: c.put_agreement(1, 2, (3,), b""), "its spool.db aside"),
                                       (lambda c: c.open_prepare(1), "smaller one")], ids=["agreement", "model"])
def test_where_there_is_no_room_it_says_for_what(ask, said):
    with pytest.raises(EnclaveError, match=said):
        ask(client(status=Status.MEMORY))


def test_after_a_refusal_in_bulk_data_the_connection_is_in_step():
    refused = []

    def answer(message):
        if message[Header.size():] == b"\x05":
            refused.append(message)
            return answer_to(message, status=Status.OBJECT)
        return answer_to(message)

    channel = Queue(answer)
    connection = Connection(channel)
    with pytest.raises(EnclaveError) as caught:
        list(connection.pipeline(EvalCommand.CLIP_WRITE, (bytes([value]) for value in range(50))))
    assert caught.value.status == Status.OBJECT
    assert channel.sent == 5 + wire.EDGED_QUEUE
    assert connection.call(EvalCommand.INFO) == (Status.OK, b"")


def test_traffic_counts_every_message_and_byte():
    eval_client = client(INFO.pack())
    eval_client.info()
    traffic = eval_client.connection.traffic
    assert (traffic.round_trips, traffic.messages, traffic.bytes) == (1, 2, 24 + 24 + wire.EvalInfo.size())


def echo_chunks(content, corrupt=lambda head, data: (head, data)):
    """An enclave that serves one object by READ requests."""

    def answer(message, _):
        head = wire.Chunk.unpack(message[Header.size():])
        data = content[head.offset:head.offset + wire.EDGED_CHUNK_BYTES]
        head, data = corrupt(head, data)
        return answer_to(message, head.pack() + data)

    return EvalClient(FakeChannel(answer))


@pytest.mark.parametrize("count", [0, 1, 1014, 1015, 20000])
def test_bulk_data_is_read_whole(count):
    words = np.arange(count, dtype=np.uint32)
    out = np.empty(count, np.uint32)
    echo_chunks(words.tobytes()).read_x(3, out)
    assert np.array_equal(out, words)


@pytest.mark.parametrize("corrupt", [
    lambda head, data: (wire.Chunk(head.object + 1, head.offset), data),
    lambda head, data: (wire.Chunk(head.object, head.offset + 4), data),
    lambda head, data: (head, data[:-4]),
    lambda head, data: (head, data + bytes(4)),
], ids=["object", "offset", "short", "long"])
def test_bulk_data_that_was_not_asked_for_is_an_error(corrupt):
    with pytest.raises(EnclaveError, match="STEP_READ answered"):
        echo_chunks(bytes(400), corrupt).read_x(0, np.empty(100, np.uint32))


def test_bulk_data_is_written_in_sequence():
    chunks = []

    def answer(message, _):
        body = message[Header.size():]
        chunks.append((wire.Chunk.unpack(body[:16]), body[16:]))
        return answer_to(message)

    words = np.arange(3000, dtype=np.uint32)
    EvalClient(FakeChannel(answer)).write_y(7, words)
    assert [(head.object, head.offset) for head, _ in chunks] == [(7, 0), (7, 4056), (7, 8112)]
    assert b"".join(data for _, data in chunks) == words.tobytes()


def a_record(content):
    """As much of a record as a client looks at: its sizes."""
    return wire.RecordHead(1, len(content) - 1).pack() + content


RECORDS = (a_record(b"one"), a_record(b"another"))
BOTH = b"".join(RECORDS)


def test_a_step_gives_the_records_at_the_end():
    done = client(wire.Step(21, len(BOTH), 7, 2).pack() + BOTH).end_step(20)
    assert done == (21, RECORDS, 7) and done.record == RECORDS[0]
    under_way = client(wire.Step(3, 0, 5, 0).pack()).end_step(2)
    assert under_way == (3, (), 5) and under_way.record is None


def test_records_of_another_size_than_announced_are_an_error():
    with pytest.raises(EnclaveError, match="records of {} bytes, announced 5".format(len(BOTH))):
        client(wire.Step(21, 5, 7, 2).pack() + BOTH).end_step(20)


@pytest.mark.parametrize("cut", [BOTH[:-1], BOTH[:len(RECORDS[0]) + 3]], ids=["content", "head"])
def test_a_record_that_is_cut_off_is_an_error(cut):
    with pytest.raises(EnclaveError, match="cut off"):
        client(wire.Step(21, len(cut), 7, 2).pack() + cut).end_step(20)


def test_a_refused_product_says_whether_the_records_failed_came():
    with pytest.raises(InvocationRefused) as caught:
        client(status=Status.VERIFICATION).end_step(4)
    assert (caught.value.records, caught.value.record, caught.value.emission) == ((), None, 0)
    with pytest.raises(InvocationRefused) as caught:
        client(wire.Step(4, len(BOTH), 9, 2).pack() + BOTH, status=Status.VERIFICATION).end_step(4)
    assert (caught.value.records, caught.value.record, caught.value.emission) == (RECORDS, RECORDS[0], 9)


def asked(ask, answer):
    """(command, body) of the one request that ``ask`` makes of a client, and what it made of this answer."""
    seen = []

    def serve(message, _):
        seen.append((EvalCommand(Header.unpack(message[:24]).cmd), message[24:]))
        return answer_to(message, answer)

    result = ask(EvalClient(FakeChannel(serve)))
    assert len(seen) == 1
    return seen[0], result


EMITTED = wire.Step(2, len(BOTH), 7, 2).pack() + BOTH
BEACON = wire.Beacon(1, b"r" * 16, 5, b"n" * 16, b"t" * 32).pack()


@pytest.mark.parametrize("ask, command, body", [
    (lambda c: c.put_agreement(1, 2, (3, 4), b"signed"), EvalCommand.AGREEMENT,
     wire.AgreementPut(1, 2, (3, 4, 0, 0), 6).pack() + b"signed"),
    (lambda c: c.beacon(BEACON, b"c" * 32), EvalCommand.BEACON, BEACON + b"c" * 32),
    (lambda c: c.exercise(1, 3), EvalCommand.EXERCISE, wire.Exercise(1, 3).pack()),
    (lambda c: c.claim(1, wire.RecordKind.HEALTH, b"hot"), EvalCommand.CLAIM, wire.ClaimPut(1, 6, 3).pack() + b"hot"),
], ids=["put_agreement", "beacon", "exercise", "claim"])
def test_what_seals_records_gives_them(ask, command, body):
    assert asked(ask, EMITTED) == ((command, body), (2, RECORDS, 7))


STATE = wire.State(b"e" * 16, 3, bytes(wire.State.layout["sealed"].size)).pack()


def test_sealed_state_comes_and_goes_as_it_is():
    assert asked(lambda c: c.confirm(9), STATE) == ((EvalCommand.CONFIRM, wire.Emission(9).pack()), STATE)
    assert asked(lambda c: c.close_epoch(), STATE) == ((EvalCommand.CLOSE, b""), STATE)
    assert asked(lambda c: c.restore(STATE), b"") == ((EvalCommand.RESTORE, STATE), None)


def test_kept_records_are_fetched_one_by_one():
    kept = {4: RECORDS[0], 6: RECORDS[1]}

    def serve(message, _):
        at = min([emission for emission in kept if emission >= wire.RecordAsk.unpack(message[24:]).emission], default=6)
        found = kept.get(at) if at >= wire.RecordAsk.unpack(message[24:]).emission else b""
        return answer_to(message, wire.Step(0, len(found), at, 0).pack() + found)

    fetching = EvalClient(FakeChannel(serve))
    assert fetching.record_from(5) == (6, RECORDS[1])
    assert fetching.record_from(7) == (6, None)
    assert fetching.record_from(0) == fetching.record_from(4) == (4, RECORDS[0])


LARGE = [wire.RecordHead(192, 5000 + size).pack() + bytes([size]) * (192 + 5000 + size) for size in (0, 77)]
ROOM = wire.EDGED_MESSAGE_BYTES - Header.size() - wire.Step.size()


def keeping(kept, answered=None, wrong=None):
    """A client of an enclave that keeps these records, by emission, and answers this to whatever else it is asked."""
    def serve(message, _):
        head = Header.unpack(message[:24])
        if head.cmd != EvalCommand.RECORD:
            return answer_to(message, answered)
        asked = wire.RecordAsk.unpack(message[24:])
        at = min([emission for emission in kept if emission >= asked.emission], default=None)
        piece = b"" if at is None else kept[at][asked.offset:asked.offset + ROOM]
        emission, piece = max(kept) if at is None else at, piece
        if wrong is not None and asked.offset:
            emission, piece = wrong(emission, piece)
        return answer_to(message, wire.Step(0, len(piece), emission, 0).pack() + piece)

    return EvalClient(FakeChannel(serve))


def test_a_record_that_fits_no_message_is_fetched_piece_by_piece():
    kept = keeping({4: LARGE[0], 6: LARGE[1], 7: RECORDS[0]})
    assert kept.record_from(1) == kept.record_from(4) == (4, LARGE[0]) and kept.record_from(5) == (6, LARGE[1])
    assert kept.record_from(7) == (7, RECORDS[0]) and kept.record_from(8) == (7, None)
    assert kept.connection.traffic.round_trips == 3 * 2 + 1 + 1


def test_what_seals_records_that_fit_no_message_gives_them_all():
    sealed = keeping({6: LARGE[0], 7: LARGE[1]}, wire.Step(21, 0, 7, 2).pack())
    assert sealed.exercise(0, 0) == (21, tuple(LARGE), 7)
    assert sealed.end_step(20).records == tuple(LARGE) and sealed.end_step(20).record == LARGE[0]
    none = keeping({6: LARGE[0]}, wire.Step(3, 0, 7, 0).pack())
    assert none.end_step(2) == (3, (), 7)


@pytest.mark.parametrize("wrong, reason", [
    (lambda emission, piece: (emission + 1, piece), "of record 5 at {}".format(ROOM)),
    (lambda emission, piece: (emission, piece[:-1]), "RECORD answered 1[0-9]+ bytes of record 4"),
    (lambda emission, piece: (emission, piece + b"x"), "RECORD answered"),
    (lambda emission, piece: (emission, b""), "RECORD answered 0 bytes"),
], ids=["another's", "cut off", "too long", "nothing"])
def test_pieces_that_do_not_make_the_record_are_refused(wrong, reason):
    with pytest.raises(EnclaveError, match=reason):
        keeping({4: LARGE[0]}, wrong=wrong).record_from(4)


def test_records_that_were_sealed_and_are_not_kept_are_refused():
    with pytest.raises(EnclaveError, match="EXERCISE sealed record 6, kept is 7"):
        keeping({7: LARGE[0]}, wire.Step(0, 0, 7, 2).pack()).exercise(0, 0)
    with pytest.raises(EnclaveError, match="EXERCISE sealed record 8, kept is none"):
        keeping({7: LARGE[0]}, wire.Step(0, 0, 8, 1).pack()).exercise(0, 0)


@pytest.mark.parametrize("package", [
    b"", b"EDGEDPKG", b"EDGEDPKX" + bytes(8), b"EDGEDPKG\2\0\0\0\0\0\0\0", b"EDGEDPKG\1\0\0\0\5\0\0\0abcd",
], ids=str)
def test_a_file_that_is_no_package_is_never_sent(package):
    with pytest.raises(PackageError, match="not a package of this release"):
        EvalClient(FakeChannel(lambda *_: pytest.fail("sent"))).load(package, 0, wire.Placement.MASKED)


def test_a_key_slot_that_was_cleared_opens_no_session_and_takes_no_agreement(tmp_path_factory):
    with EmulatedNode(str(tmp_path_factory.mktemp("e"))) as node:
        assert node.eval.open_session(node.begun.index, node.camera, bytes(32)).session == node.session
        node.key.clear_slot(ALERT_SLOT)
        node.eval.open_session(node.begun.index, node.camera, bytes(32))  # the keys of its agreement were taken before
        node.key.clear_slot(DATA_SLOT)
        assert node.key.info().kinds[DATA_SLOT] == wire.KeyKind.EMPTY
        with pytest.raises(EnclaveError) as caught:
            node.eval.open_session(node.begun.index, node.camera, bytes(32))
        assert caught.value.status == Status.KEY
        node.agreement = replace(node.agreement, number=2)
        with pytest.raises(EnclaveError) as caught:
            node.agree()
        assert caught.value.status == Status.KEY


@pytest.mark.parametrize("command, words", [
    (EvalCommand.AGREEMENT, "has no place for it"), (EvalCommand.SESSION_OPEN, "as many sessions as it can"),
    (EvalCommand.LOAD_OPEN, "does not hold this model")])
def test_for_want_of_what_memory_is_refused_is_said_by_the_request(command, words):
    error = refusal(command, Status.MEMORY)
    assert words in str(error) and ("model" in str(error)) == (command == EvalCommand.LOAD_OPEN)
