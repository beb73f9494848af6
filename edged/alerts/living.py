"""Which epochs of a node's enclave may be alive, and so get beacons.

    the first   answered a fresh beacon last, or names the one that did as the epoch before it
    others      of which something new came that no record explains: the live one of an enclave whose state was set
                back, or one long dead whose records were kept back. No record tells which; a heartbeat does

An enclave has one epoch at a time: one that answered a nonce ran after that was sent, and all epochs that were known
by then are over. Whoever brings forth old records has beacons sent to dead epochs, too, and never keeps one from the
live epoch for good: each gets its first beacon as soon as anything new of it comes, then one after the other.

Pure. Source: DESIGN section 6.
"""

from typing import Callable, List, Mapping, NamedTuple, Optional, Tuple

from edged.alerts.record import RecordHeader

# Root may have records of any number of epochs. Beyond this the one that was heard of longest ago is forgotten: it was
# asked when it came, and is asked again with its next record.
OTHERS_MAX = 8

_DIGEST_BYTES = 32


class Living(NamedTuple):
    """salt : of its records. digests : of the agreements that they are sealed under and that did not end there, 32
    bytes each"""

    epoch: bytes
    salt: bytes
    digests: bytes

    def agreements(self) -> List[bytes]:
        return [self.digests[at:at + _DIGEST_BYTES] for at in range(0, len(self.digests), _DIGEST_BYTES)]


Epochs = Tuple[Living, ...]  # the others by when something new came of them, the last one first


def heard(epochs: Epochs, header: RecordHeader, digest: bytes, previous: Optional[bytes], over: bool,
          ended: Callable[[bytes], bool]) -> Epochs:
    """After a new record under the agreement ``digest``. previous : the epoch that it names as the one before;
    over : a later one named its epoch so; ended : of an agreement, whether it did in this epoch"""
    known = next((one for one in epochs if one.epoch == header.epoch), None)
    if known is None and over:
        return epochs
    agreements = known.agreements() if known else []
    agreements += [] if digest in agreements else [digest]
    now = Living(header.epoch, header.salt, b"".join(one for one in agreements if not ended(one)))
    others = tuple(one for one in epochs[1:] if one.epoch != header.epoch)
    if not epochs or epochs[0].epoch in (header.epoch, previous):
        return (now,) + others
    return epochs[:1] + ((now,) + others)[:OTHERS_MAX]


def answered(epochs: Epochs, epoch: bytes, came: Mapping[bytes, float], sent: float) -> Epochs:
    """After a heartbeat of an epoch that answers a beacon of the time ``sent``. came : when something came of an epoch
    first, as far as it is known"""
    alive = tuple(one for one in epochs if one.epoch == epoch)
    if not alive:
        return epochs  # a later one named it since
    return alive + tuple(one for one in epochs if one.epoch != epoch and came.get(one.epoch, sent) > sent)


def next_other(epochs: Epochs, asked: Mapping[bytes, float]) -> Epochs:
    """The one, if any, whose turn it is beside the first: one that was not asked yet, else who waits longest."""
    others = sorted(epochs[1:], key=lambda one: asked.get(one.epoch, float("-inf")))
    return tuple(others[:1])
