"""What the enclave seals besides clips, when the node asks for it: heartbeats, claims, exercises.

A claim is the node's own word, and says so; it is CBOR:

    camera    {camera, state: live | lost | refused | waits, reason, skipped: clips unjudged since its process
              started, time}
    evicted   {rcpt, time, evicted: [[epoch, first seq, last seq], ...], more: records beyond those}

Times are Unix seconds. live: pictures come, and nothing is known that keeps clips back. lost: no pictures. refused: its
clips do not open. waits: the enclave takes none, for the reason named (desk.py).
"""

import logging
import time
from typing import Any, Dict, Iterable, List, NamedTuple, Optional, Sequence, Tuple

import cbor2

from edged.alerts.record import split_record
from edged.alerts.spool import Spool
from edged.enclave import wire
from edged.enclave.client import Emitted
from edged.enclave.wire import RecordKind
from edged.errors import EnclaveError, SpoolError
from edged.events import emit
from edged.offload.cameras import Camera
from edged.offload.ledger import Ledger
from edged.offload.link import InForce, Link, is_passing
from edged.offload.messages import Beacon, ExerciseRequest

log = logging.getLogger(__name__)

CLAIM_S = 1.0  # between two of one camera: each is a record for every recipient
EVICT_S = 5.0
# Between two announcements of evictions, doubled each time: an announcement is a record, which may evict another.
ANNOUNCE_MAX_S = 3600.0
# Named in one announcement: [epoch, first, last] is at most 1 + 17 + 9 + 9 bytes, the rest of the claim less than 96.
_RANGES_MAX = (wire.EDGED_CLAIM_MAX - 96) // 36

_REFUSED_MAX = wire.EVAL_AGREEMENTS_MAX * wire.EDGED_RECIPIENTS_MAX


class Drill(NamedTuple):
    """What came of an exercise: its records (epoch, recipient, seq), or why there are none to count on."""

    records: Tuple[Dict[str, Any], ...]
    refused: Optional[str]


class _Refused(NamedTuple):
    """Of a recipient's beacons, why the last one was, and how many were answered since."""

    reason: str
    answered: int = 0


class Statements:
    """config : digest of the node's camera configuration, 32 bytes"""

    def __init__(self, ledger: Ledger, spool: Spool, config: bytes) -> None:
        self._ledger = ledger
        self._spool = spool
        self._config = config
        self._refused: Dict[bytes, _Refused] = {}  # by recipient, the oldest first
        self._unsealed = ""  # why a claim was refused for good, as was last logged
        self._evict_due_s = 0.0
        self._announce_due_s, self._announce_s = 0.0, EVICT_S

    def answer(self, link: Link, beacon: Beacon) -> Optional[Emitted]:
        """A beacon's heartbeat; None where it is refused."""
        try:
            emitted = link.client.beacon(beacon.raw, self._config)
        except EnclaveError as error:
            if error.status is None:
                raise
            self._tell_refused(beacon.rcpt, str(error))
            return None
        told = self._refused.get(beacon.rcpt)
        if told is not None:
            # He sends one under each agreement: that others are answered does not end the refusal of one.
            told = self._refused[beacon.rcpt] = told._replace(answered=told.answered + 1)
            if told.answered > wire.EVAL_AGREEMENTS_MAX:
                del self._refused[beacon.rcpt]
        self._ledger.keep(emitted)
        return emitted

    def _tell_refused(self, rcpt: bytes, reason: str) -> None:
        """Once, until the reason is another one or his beacons were answered: he sends them for as long as he lives."""
        told = self._refused.pop(rcpt, None)
        self._refused[rcpt] = _Refused(reason)
        if told is None or told.reason != reason:
            emit(log, "beacon_refused", recipient=rcpt, reason=reason)
        if len(self._refused) > _REFUSED_MAX:
            del self._refused[next(iter(self._refused))]

    def claim_of(self, link: Link, cameras: Iterable[Camera]) -> bool:
        """Seal one camera's word about itself; False where none is due."""
        now_s = time.monotonic()
        for camera in cameras:
            said = camera.claim(now_s)
            if said is None or now_s < camera.claim_due_s:
                continue
            agreement = camera.agreement
            if agreement is None:
                if camera.place in link.left_out:
                    continue  # nothing can be sealed for those whose business it is
                # The one that follows is read once the city has adopted it; the one before, for as long as it lasts.
                agreement = (link.former(camera.place) or link.current(camera.place)).index
            camera.claim_due_s = now_s + CLAIM_S
            if self._seal(link, agreement, RecordKind.CAMERA, _fitting({
                    "camera": camera.name, "state": said.state, "reason": said.reason, "skipped": said.skipped,
                    "time": int(time.time())})):
                camera.claimed = said
            return True
        return False

    def evict(self, link: Link) -> bool:
        """Have the spool keep to its caps, and announce what went unacknowledged; False where nothing is to be."""
        now_s = time.monotonic()
        if now_s < self._evict_due_s or self._ledger.failing:
            return False
        self._evict_due_s = now_s + EVICT_S
        try:
            evicted = self._spool.evict()
            # Whom an agreement that is left out names hears of it once he can read: it stays until then.
            due = {} if evicted is None else {rcpt: ranges for rcpt, ranges in evicted.records.items()
                                              if _readers(link, rcpt) or not link.is_awaited(rcpt)}
            if evicted is None or not due:
                self._announce_s = EVICT_S
                return False
            if now_s < self._announce_due_s:
                return False
            self._announce_due_s = now_s + self._announce_s
            self._announce_s = min(2 * self._announce_s, ANNOUNCE_MAX_S)
            told = {rcpt: ranges for rcpt, ranges in due.items() if self._announce(link, rcpt, ranges)}
            self._spool.announced(evicted._replace(records=told))
            for rcpt, ranges in told.items():
                emit(log, "records_evicted", recipient=rcpt, records=_records(ranges))
        except SpoolError as error:
            self._ledger.spool_failed(error)
        return True

    def exercise(self, link: Link, asked: ExerciseRequest) -> Drill:
        """An alert of status Exercise, of the agreement at this place of the configuration, or of each."""
        records: List[bytes] = []
        left = link.left_out.get(asked.agreement) if asked.agreement is not None else None
        reason = "no agreement has this rule" if left is None else str(left.error)
        for one in link.in_force:
            labels = [rule.label for rule in one.agreement.rules]
            rule = asked.rule if asked.label is None else labels.index(asked.label) if asked.label in labels else None
            if asked.agreement not in (None, one.place) or rule is None or rule >= len(labels):
                continue
            try:
                emitted = link.client.exercise(one.index, rule)
            except EnclaveError as error:
                if error.status is None:
                    raise
                reason = str(error)
                continue
            records.extend(emitted.records)
            self._ledger.keep(emitted)
        if not records:
            return Drill((), reason)
        if self._ledger.failing:
            return Drill((), "it is sealed, but the spool fails: it goes out once that is mended")
        emit(log, "exercise_sealed", records=len(records))
        headers = [split_record(record)[0] for record in records]
        return Drill(tuple({"epoch": header.epoch, "recipient": header.rcpt, "seq": header.seq} for header in headers),
                     None)

    def _announce(self, link: Link, rcpt: bytes, ranges: Sequence[Tuple[bytes, int, int]]) -> bool:
        """True where it is done, or nobody is left to be told."""
        readers = _readers(link, rcpt)
        for one in readers:
            if any(other.place == one.place for other in readers[:readers.index(one)]):
                continue  # he reads under the one before it, for sure
            body = {"rcpt": rcpt, "time": int(time.time()), "more": _records(ranges[_RANGES_MAX:]),
                    "evicted": [list(part) for part in ranges[:_RANGES_MAX]]}
            if not self._seal(link, one.index, RecordKind.EVICTED, body):
                return False
        return True

    def _seal(self, link: Link, agreement: int, kind: RecordKind, body: Dict[str, Any]) -> bool:
        """False where it has to be tried again later: whatever is wrong with a claim, clips and beacons go on."""
        try:
            emitted = link.client.claim(agreement, kind, cbor2.dumps(body, canonical=True))
        except EnclaveError as error:
            if error.status is None:
                raise
            if not is_passing(error) and str(error) != self._unsealed:
                self._unsealed = str(error)
                log.error("a claim (%s) is not sealed: %s", kind.name.lower(), error)
            return False
        self._ledger.keep(emitted)
        return True


def _fitting(body: Dict[str, Any]) -> Dict[str, Any]:
    """A camera's claim whose reason is cut, at the end of a character, where the enclave would not take the whole."""
    over = len(cbor2.dumps(body, canonical=True)) - wire.EDGED_CLAIM_MAX
    if over <= 0:
        return body
    reason = body["reason"].encode("utf-8")[:-over].decode("utf-8", "ignore")
    return dict(body, reason=reason)


def _readers(link: Link, rcpt: bytes) -> List[InForce]:
    """The agreements in force that name this recipient."""
    return [one for one in link.in_force if any(to.rcpt == rcpt for to in one.agreement.recipients)]


def _records(ranges: Sequence[Tuple[bytes, int, int]]) -> int:
    return sum(last - first + 1 for _, first, last in ranges)
