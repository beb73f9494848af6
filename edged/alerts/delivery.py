"""What outbox and subscriber say to each other, as ZeroMQ frames: a type in ASCII, then what belongs to it.

    outbox -> subscriber    hello     run                    every HELLO_S: here I am, and this is the way to me
                            record    run || number, sealed record
    subscriber -> outbox    welcome   16 bytes               answers a hello: which start of the subscriber this is
                            ack       [[epoch, seq], ...]    stored for good: not to be sent again
                            refused   [[epoch, seq], ...]    not taken: to be sent again to another start only
                            again     run                    something is missing in it: begin a new one
                            beacon    struct edged_beacon    for the node's bridge

A run (8 random bytes) counts its records from 1, little-endian in 8 bytes, and begins with whatever is not
acknowledged. The subscriber takes them in this order alone, so that what is lost with a connection, or with a process,
comes again before what follows it: a gap that it reports is none of the transport's.

Lists are CBOR. Every frame comes over CURVE, from a peer whose key is known; what is in it is judged nevertheless.
Pure.
"""

from typing import Iterable, List, NamedTuple, Optional, Sequence, Tuple

from edged import canonical
from edged.errors import PackageError

HELLO, RECORD = b"hello", b"record"
WELCOME, ACK, REFUSED, AGAIN, BEACON = b"welcome", b"ack", b"refused", b"again", b"beacon"

# Records sent and not acknowledged, at most; subscribers take a repeated record that is no older for a resend.
WINDOW = 64
HELLO_S = 1.0
RESEND_S = 5.0

RUN_BYTES = 8
_NUMBER_BYTES = 8
_EPOCH_BYTES = 16
_PLAIN = (WELCOME, AGAIN, BEACON)

Name = Tuple[bytes, int]  # (epoch, seq) of a record


class Answer(NamedTuple):
    """From the subscriber. names: of ACK and REFUSED; data: of the others."""

    kind: bytes
    names: Tuple[Name, ...]
    data: bytes


class Offer(NamedTuple):
    """From the outbox. number, sealed: of RECORD; 0 and None in HELLO."""

    run: bytes
    number: int
    sealed: Optional[bytes]


def pack_hello(run: bytes) -> List[bytes]:
    return [HELLO, run]


def pack_record(run: bytes, number: int, sealed: bytes) -> List[bytes]:
    return [RECORD, run + number.to_bytes(_NUMBER_BYTES, "little"), sealed]


def unpack_offer(frames: Sequence[bytes]) -> Offer:
    """Raises PackageError."""
    if len(frames) == 2 and frames[0] == HELLO and len(frames[1]) == RUN_BYTES:
        return Offer(frames[1], 0, None)
    if len(frames) == 3 and frames[0] == RECORD and len(frames[1]) == RUN_BYTES + _NUMBER_BYTES:
        return Offer(frames[1][:RUN_BYTES], int.from_bytes(frames[1][RUN_BYTES:], "little"), frames[2])
    raise PackageError("a message of {} frames that is neither hello nor record".format(len(frames)))


def pack_names(kind: bytes, names: Iterable[Name]) -> List[bytes]:
    return [kind, canonical.encode([[epoch, seq] for epoch, seq in names])]


def unpack_answer(frames: Sequence[bytes]) -> Answer:
    """Raises PackageError."""
    if len(frames) != 2 or frames[0] not in _PLAIN + (ACK, REFUSED):
        raise PackageError("answer of the subscriber: {} frames, {!r}".format(len(frames), bytes(frames[0][:16])
                                                                              if frames else b""))
    kind, data = frames
    if kind in _PLAIN:
        return Answer(kind, (), data)
    names = canonical.decode(data, kind.decode(), "list")
    if not isinstance(names, list) or len(names) > 2 * WINDOW:
        raise PackageError("{}: no list of at most {} records".format(kind.decode(), 2 * WINDOW))
    for name in names:
        if not (isinstance(name, list) and len(name) == 2 and isinstance(name[0], bytes)
                and len(name[0]) == _EPOCH_BYTES and isinstance(name[1], int) and not isinstance(name[1], bool)
                and 0 <= name[1] < 1 << 64):
            raise PackageError("{}: not [epoch, seq]".format(kind.decode()))
    return Answer(kind, tuple((epoch, seq) for epoch, seq in names), b"")
