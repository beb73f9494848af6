"""One agreement follows another on a running bridge: it ends once none of its cameras is left, and stays ended.

    both in force -> the city's recipients read under the new one -> cameras go over, each in its time (desk)
                  -> the old one's last records, in the spool -> remembered

A recipient reads under an agreement whose beacons of his were answered. What is judged under one that he did not adopt
waits for that on the node, alerts too: so cameras wait for each who is alive under the old one.
"""

import logging
import time
from typing import Dict, List, NamedTuple, Optional, Tuple

from edged.alerts.record import split_record
from edged.enclave.client import Emitted
from edged.enclave.wire import Status
from edged.errors import EnclaveError
from edged.events import emit
from edged.offload.desk import Desk
from edged.offload.followed import Followed
from edged.offload.ledger import Ledger
from edged.offload.link import InForce, Link
from edged.trust import validity

log = logging.getLogger(__name__)

AGAIN_S = 5.0  # after a refusal: what it is for passes


class _Ended(NamedTuple):
    digest: bytes
    number: int
    by: int
    emission: int  # of its last records


class Succession:
    def __init__(self, desk: Desk, ledger: Ledger, followed: Followed) -> None:
        self._desk, self._ledger, self._followed = desk, ledger, followed
        self._ended: List[_Ended] = []
        self._heard: Dict[Tuple[bytes, bytes], float] = {}  # under an agreement (its digest) a recipient, and when
        self._since_s = self._heard_s = time.monotonic()  # from when on they could be heard; when anybody was last
        self._due_s = 0.0

    def connected(self, link: Link) -> None:
        """What was not stored when the connection broke was fetched by this one, or is said again in a new epoch."""
        self._ended.clear()
        self._since_s = self._heard_s = time.monotonic()
        in_force = {one.agreement.digest for one in link.in_force}
        self._heard = {key: at for key, at in self._heard.items() if key[0] in in_force}
        for digest in link.over:
            self._followed.add(digest)

    def answered(self, link: Link, heartbeat: Emitted) -> None:
        """A beacon was: whoever sends one under an agreement reads what is sealed under it."""
        now_s = time.monotonic()
        if now_s - self._heard_s > max(one.agreement.beacon_limit_s for one in link.in_force):
            self._since_s = now_s  # all were cut off: who is heard first is not the only one alive
        self._heard_s = now_s
        for record in heartbeat.records:
            header = split_record(record)[0]
            for one in link.in_force:  # by the key's id, which a new agreement draws anew
                if any((to.rcpt, to.alert_key) == (header.rcpt, header.kid) for to in one.agreement.recipients):
                    self._heard[one.agreement.digest, header.rcpt] = now_s

    def is_read(self, link: Link, agreement: InForce) -> bool:
        """Whether the city took it over. Until then no camera goes over to it, and the one before it does not end: else
        nobody could read what the node says, and the enclave would soon stop for want of beacons."""
        return not self.unread_by(link, agreement.place)

    def unread_by(self, link: Link, place: int) -> List[bytes]:
        """The recipients of the agreement there that cameras wait for. One who was not heard under the former one for
        its beacon limit either holds up nobody, nor does anybody once its time is over; but one has to read."""
        former, current = link.former(place), link.current(place).agreement
        unread = [to.rcpt for to in current.recipients if (current.digest, to.rcpt) not in self._heard]
        if len(unread) == len(current.recipients):
            return unread
        if former is None or validity.left(former.agreement, time.time()).ended:
            return []
        before = former.agreement
        alive_s = time.monotonic() - before.beacon_limit_s
        return [rcpt for rcpt in unread if rcpt in [to.rcpt for to in before.recipients]
                and max(self._since_s, self._heard.get((before.digest, rcpt), 0.0)) >= alive_s]

    def step(self, link: Link) -> bool:
        """End an agreement, or remember that it ended; False where neither is due."""
        if self.remember():
            return True
        now_s = time.monotonic()
        if now_s < self._due_s or self._ledger.failing:
            return False
        for place in range(link.places):
            former = link.former(place)
            if former is not None and self.is_read(link, link.current(place)) and not self._desk.stay(former.index):
                self._due_s = now_s + AGAIN_S
                self._end(link, place)
                return True
        return False

    def remember(self) -> bool:
        """What ended is over once its last records are in the spool; whether any was.

        Before a connection is given up, too: an enclave that begins anew would be asked for them again.
        """
        count = len(self._ended)
        while self._ended and self._ledger.has_stored(self._ended[0].emission):
            ended = self._ended.pop(0)
            self._followed.add(ended.digest)
            emit(log, "agreement_followed", number=ended.number, by=ended.by)
        return len(self._ended) < count

    def _end(self, link: Link, place: int) -> None:
        former, current = link.former(place), link.current(place)
        assert former is not None
        try:
            emitted = link.succeed(place)
        except EnclaveError as error:
            if error.status is None:
                raise
            log.info("agreement %d goes on: %s", former.agreement.number, error)
            if error.status == Status.ORDER:  # a session that a bridge before this one opened, and none of ours
                self._desk.clear(link, True)
            return
        self._due_s = 0.0
        self._ended.append(_Ended(former.agreement.digest, former.agreement.number, current.agreement.number,
                                  emitted.emission))
        self._ledger.keep(emitted)

    def state(self, link: Optional[Link], place: int) -> str:
        """Of the agreement there: in force | waits (for the next one's keys) | unread (by some of the city, under
        the next one) | goes over | ends | followed; where none is in force, as LeftOut says."""
        if link is None:
            return "away"
        if place in link.left_out:
            return link.left_out[place].state
        paper = link.papers.agreements[place]
        if paper.following is None:
            return "in force"
        if link.agreement(paper.following.agreement.digest) is None:
            return "waits"
        if link.agreement(paper.agreement.digest) is not None:
            return "goes over" if self.is_read(link, link.current(place)) else "unread"
        return "ends" if any(one.digest == paper.agreement.digest for one in self._ended) else "followed"
