"""The cameras' desk: their sessions, and the way of each clip from its offer to its answer.

    offered -> waits, by turns -> evaluated -> records owed to the ledger -> done
                                -> refused: for the moment (retry), for this session (reopen), or for good

Every method that is given a link may raise EnclaveError without a status: the connection broke. Then what was under
way comes first once there is another.
"""

import logging
import time
from collections import Counter, deque
from typing import Any, Callable, Deque, Dict, Iterable, List, Mapping, NamedTuple, Optional, Set

from edged.bus import Router
from edged.enclave import wire
from edged.enclave.client import Emitted
from edged.enclave.wire import Status
from edged.errors import EnclaveError, PackageError
from edged.events import emit
from edged.offload import messages
from edged.offload.bridge import Outcome
from edged.offload.cameras import CALLS_MAX, Camera
from edged.offload.ledger import Ledger
from edged.offload.link import InForce, Link
from edged.offload.messages import Hello, Offer
from edged.offload.queue import FairQueue
from edged.offload.sessions import Granted, Sessions
from edged.trust import validity

log = logging.getLogger(__name__)

# Of refusals, until the city is told that the camera waits: a clip comes again within 10 s, a burst of them passes.
PATIENCE_S, BURST_S = 10.0, 60.0
PROBE_S = 5.0  # a camera before which nobody walks has no clips that could be refused: then the enclave is asked
CALL_S = 10.0  # between two questions whether a camera's process is there
FOLLOW_S = 5.0  # until a camera is told again that another agreement follows its own
ABSENT_S = 30.0  # a camera that is not even connected for so long does not keep its old agreement in force
PREPARED_MAX = 2
RECENT_CLIPS = 32  # whose numbers of persons tell what to prepare for

# Refusals that pass: the camera sends the same clip again, later.
_PASSING = {
    Status.LOCKED: "locked: no beacon of the city came in time",
    Status.RATE: "rate: the agreement's clips of this hour are used up",
    Status.FULL: "full: the spool does not take the records of earlier clips",
    Status.AGREEMENT: "agreement: it does not cover this now: its time (by beacons and floors), or the package",
    Status.PLACEMENT: "agreement: it does not permit this placement",
    Status.UNAVAILABLE: "unavailable: the key application or the random source is away",
}
_BURSTS = (Status.RATE, Status.FULL)


class Totals(NamedTuple):
    """Since the process started. seconds : of evaluations      bytes : to and from the accelerator"""

    clips: int = 0
    failed: int = 0
    bytes: int = 0
    seconds: float = 0.0


class Desk:
    """places : in enclave.agreements, of the one that each camera of the configuration is judged under, by its name
    sessions : as the process before left them"""

    def __init__(self, places: Mapping[str, int], router: Router, sessions: Sessions) -> None:
        self.cameras = {name.encode("utf-8"): Camera(name, place) for name, place in places.items()}
        self.totals = Totals()
        self.ledger = Ledger(self._done)
        self._router = router
        self._sessions = sessions
        self._to_reopen: Dict[bytes, str] = {}
        self._to_call: Set[bytes] = set()  # sessions of before, whose cameras have not been asked yet how they are
        self._queue: FairQueue[Offer] = FairQueue()
        self._begun: Optional[Offer] = None  # the clip that the enclave may have had when the connection broke
        self._epoch: Optional[bytes] = None
        self._persons: Deque[int] = deque(maxlen=RECENT_CLIPS)
        self._call_due_s = time.monotonic() + CALL_S

    def __len__(self) -> int:
        """Clips that wait."""
        return len(self._queue)

    def connected(self, link: Link) -> bool:
        """There is a connection; whether it is to the enclave of before, whose sessions are open still."""
        same, is_loaded = link.epoch == self._epoch, link.model is not None
        if same and is_loaded:
            return True
        granted = self._sessions.of(link.epoch) if self._epoch is None and is_loaded else {}
        self._epoch = link.epoch
        self._begun = None
        for name, camera in self.cameras.items():
            self._queue.drop(camera.name)
            camera.leave()
            known = granted.get(camera.name)
            index = None if known is None else link.agreement(known.agreement)
            if known is not None and index is not None:
                camera.open(known.session, index, resumed=True)
                self._to_call.add(name)
            else:
                self._to_reopen[name] = "the enclave began a new epoch" if is_loaded else "no model is loaded"
        return same

    def ask_to_reopen(self) -> None:
        """Tell those who are there by now and have not said hello meanwhile."""
        for name, reason in list(self._to_reopen.items()):
            if self._router.send(name, messages.pack("reopen", {"reason": reason})):
                del self._to_reopen[name]

    def invite(self) -> None:
        """Something is in force that was not: those who were told to wait need not until they ask by themselves."""
        for name, camera in self.cameras.items():
            if camera.told_to_wait:
                self._to_reopen.setdefault(name, "its agreement may be in force")

    def taken_in(self, place: int) -> None:
        """The agreement there was left out: that its cameras waited for it is of the past."""
        for camera in self.cameras.values():
            if camera.place == place:
                camera.admitted()

    def call(self) -> None:
        """Have each camera's process say that it is there, and how it is: a claim `live` is not to outlive it, and what
        it told a bridge that was killed is not to be lost with that."""
        self._to_call -= self._called(self._to_call)
        now_s = time.monotonic()
        if now_s < self._call_due_s:
            return
        self._call_due_s = now_s + CALL_S
        for camera in self.cameras.values():
            camera.unanswered += 1
            if camera.unanswered == CALLS_MAX + 1:
                emit(log, "camera_silent", camera=camera.name)
        self._called(self.cameras)

    def call_all(self) -> Set[bytes]:
        """Names of the cameras that are there and have a session; each answers once it has heard all that was said."""
        return self._called(name for name, camera in self.cameras.items() if camera.session is not None)

    def _called(self, names: Iterable[bytes]) -> Set[bytes]:
        return {name for name in names if self._router.send(name, messages.pack("here", {}))}

    def shown(self) -> Dict[str, Dict[str, Any]]:
        """For a status, by camera."""
        return {camera.name: dict(
            camera.tally._asdict(), session=camera.session, waiting=len(self._queue.waiting(camera.name)),
            postponed_for=camera.wait.reason if camera.wait else None, **_state(camera))
            for camera in self.cameras.values()}

    def _say(self, camera: Camera, kind: str, **fields: Any) -> None:
        # Whoever does not get it sends its clip, or its hello, again.
        self._router.send(camera.name.encode("utf-8"), messages.pack(kind, fields))

    # Sessions.

    def hello(self, link: Optional[Link], camera: Camera, hello: Hello) -> None:
        self._to_reopen.pop(camera.name.encode("utf-8"), None)
        if link is None:
            self._have_wait(camera, messages.AWAY)
            return
        index, place = link.agreement(hello.agreement), link.place(hello.agreement)
        if place is None:  # where it was followed, and the files replaced since, the camera finds what followed there
            self._refuse_session(camera, "no agreement of this digest is in force")
            return
        if index is None and place in link.left_out:
            self._refuse_session(camera, str(link.left_out[place].error))
            return
        if index is None:
            self._refuse_session(camera, "its agreement is not in force: agreement {} is".format(
                link.current(place).agreement.number))
            self._direct(camera, link.current(place))
            return
        if link.model is None:
            judged = next(one.agreement for one in link.in_force if one.index == index)
            permits = judged.placements >> link.placement & 1
            self._refuse_session(camera, validity.words(judged.number, judged.until_s, 0) if permits
                                 else _PASSING[Status.PLACEMENT])
            return
        self._queue.drop(camera.name)
        if camera.session is not None:
            self._give_up(link, camera.session)
        try:
            session = self._open_session(link, camera, index, hello.nonce)
        except EnclaveError as error:
            if error.status is None:
                raise
            self._refuse_session(camera, str(error))
            return
        if camera.session not in (None, session.session) and camera.agreement != index:
            _close_session(link, camera.session)  # what was under way went over with the new one's opening
        camera.open(session.session, index)
        camera.probe_due_s = time.monotonic() + PROBE_S
        self._remember(link)
        head = link.model.head
        self._say(camera, "session", session=session.session, nonce=session.nonce, epoch=link.epoch,
                  persons=head.persons, frames=head.frames, joints=head.joints)

    def _open_session(self, link: Link, camera: Camera, index: int, nonce: bytes) -> wire.Session:
        identity = messages.camera_id(camera.name)
        try:
            return link.client.open_session(index, identity, nonce)
        except EnclaveError as error:
            if error.status not in (Status.ORDER, Status.MEMORY):
                raise
            # Sessions of before this process: the camera's own has an unfinished clip, or there is no room for more.
            self.clear(link, error.status == Status.MEMORY)
        try:
            return link.client.open_session(index, identity, nonce)
        except EnclaveError as error:
            if error.status != Status.MEMORY or camera.session is None:
                raise
            _close_session(link, camera.session)  # as many cameras as there are sessions: its events begin anew
            return link.client.open_session(index, identity, nonce)

    def clear(self, link: Link, close: bool) -> None:
        """Give up what is unfinished in sessions of before this process, and close them or not."""
        known = {camera.session for camera in self.cameras.values()}
        for session in set(range(wire.EVAL_SESSIONS_MAX)) - known:
            self._give_up(link, session)
            if close:
                _close_session(link, session)

    def _remember(self, link: Link) -> None:
        self._sessions.write(link.epoch, {camera.name: Granted(camera.session, link.digest(camera.agreement))
                                          for camera in self.cameras.values()
                                          if camera.session is not None and camera.agreement is not None})

    # From one agreement to the next.

    def stay(self, index: int) -> List[str]:
        """Names of the cameras that are judged under the agreement of this index."""
        return [camera.name for camera in self.cameras.values() if camera.agreement == index]

    def move_on(self, link: Link, may: Callable[[InForce], bool]) -> None:
        """Tell cameras whose agreement another follows to go over to that, where it may be used, until they do.

        One that is not there for a while holds up nobody: when it is back, its hello is the first thing it says.
        """
        now_s = time.monotonic()
        for camera in self.cameras.values():
            if camera.session is None or camera.agreement is None or now_s < camera.follow_due_s:
                continue
            place = next(one.place for one in link.in_force if one.index == camera.agreement)
            if link.current(place).index == camera.agreement or not may(link.current(place)):
                continue
            camera.follow_due_s = now_s + FOLLOW_S
            if self._direct(camera, link.current(place)):
                camera.unreached_s = None
                continue
            camera.unreached_s = camera.unreached_s or now_s
            if now_s - camera.unreached_s > ABSENT_S:
                camera.unreached_s = None
                self._queue.drop(camera.name)
                self._give_up(link, camera.session)
                _close_session(link, camera.session)
                camera.leave()
                self._remember(link)

    def _direct(self, camera: Camera, to: InForce) -> bool:
        return self._router.send(camera.name.encode("utf-8"),
                                 messages.pack("follow", {"agreement": to.agreement.digest}))

    def _refuse_session(self, camera: Camera, reason: str) -> None:
        if camera.waits(reason, PATIENCE_S, time.monotonic(), of_session=True):
            emit(log, "session_refused", camera=camera.name, reason=reason)
        self._have_wait(camera, reason)

    def _have_wait(self, camera: Camera, reason: str) -> None:
        camera.told_to_wait = True
        self._say(camera, "wait", reason=reason)

    def _give_up(self, link: Link, session: int) -> Optional[int]:
        """Have the session's unfinished clip end in records `failed`; the last one's emission, None: there are none."""
        try:
            ended = link.bridge.give_up(session)
        except EnclaveError as error:
            if error.status is None:
                raise
            return None
        if not ended.records:
            return None
        emit(log, "clip_given_up", session=session)
        self._count(clips=1, failed=1)
        self.ledger.keep(Emitted(0, ended.records, ended.emission))
        return ended.emission

    # Clips.

    def offer(self, camera: Camera, offer: Offer) -> None:
        if self._epoch is None:
            return  # whether its session lives is not known yet; it will send it again
        if camera.session != offer.session or camera.reopens:
            self._have_reopen(camera, offer, "not its session")
            return
        failed, expected, camera.next = camera.verdict(offer.number), camera.next, None
        if expected is not None and offer.number > expected:
            reason = camera.wait.reason if camera.wait else "an earlier clip comes first"
            self._say(camera, "refused", number=offer.number, reason=reason, reopen=False, retry=True)
        elif failed is not None:
            self._say(camera, "done", number=offer.number, failed=failed)
        elif offer.number in camera.unpaid or offer in self._queue.waiting(camera.name):
            pass  # it will be answered in its turn
        elif not self._queue.put(camera.name, offer):
            self._say(camera, "refused", number=offer.number, reason="busy", reopen=False, retry=True)

    def evaluate(self, link: Link) -> bool:
        """The next clip; False where none waits."""
        taken = self._queue.take()
        if taken is None:
            return False
        name, offer = taken
        camera = self.cameras[name.encode("utf-8")]
        again, self._begun = self._begun == offer, offer
        try:
            outcome = link.bridge.evaluate(offer.session, offer.number, offer.sealed)
        except PackageError as error:  # its size is no clip's
            self._begun = None
            self._refuse(camera, offer, str(error))
        except EnclaveError as error:
            if error.status is None:
                self._queue.put_back(name, offer)
                raise
            self._begun = None
            self._not_taken(link, camera, offer, error, again)
        else:
            self._begun = None
            self._over(link, camera, offer, outcome)
        return True

    def _over(self, link: Link, camera: Camera, offer: Offer, outcome: Outcome) -> None:
        assert link.model is not None  # it made the records
        head = link.model.head
        persons = next(persons for persons in range(head.persons + 1)
                       if wire.sealed_clip_bytes(persons, head.frames, head.joints) == len(offer.sealed))
        self._persons.append(persons)
        self._count(clips=1, failed=int(outcome.failed), bytes=outcome.cost.bytes, seconds=outcome.cost.wall_s)
        camera.taken()
        camera.unopened, camera.resumed = False, 0
        self.ledger.owe(camera, offer.number, outcome.failed, outcome.emission)
        self.ledger.keep(Emitted(0, outcome.records, outcome.emission))
        emit(log, "clip_failed" if outcome.failed else "clip_evaluated", camera=camera.name, session=offer.session,
             number=offer.number, persons=persons, attempts=outcome.attempts, seconds=round(outcome.cost.wall_s, 4))

    def _not_taken(self, link: Link, camera: Camera, offer: Offer, error: EnclaveError, again: bool) -> None:
        """The enclave refused the clip itself. again : it had it before, when the connection broke."""
        if error.status == Status.FULL and self._make_room(link):
            self._queue.put_back(camera.name, offer)
        elif error.status in _PASSING:
            self._postpone(link, camera, offer, error)
        elif error.status == Status.ORDER:
            # The session has an unfinished clip: one that its camera dropped, or this one, tried too often.
            emission = self._give_up(link, offer.session)
            if emission is None:
                self._postpone(link, camera, offer, error)
            else:
                camera.given_up = offer.number, emission
                self._queue.put_back(camera.name, offer)
        elif error.status == Status.CLIP and camera.given_up is not None and camera.given_up[0] == offer.number:
            self.ledger.owe(camera, offer.number, True, camera.given_up[1])  # it was this one
        elif error.status == Status.CLIP and (again or camera.resumed):
            # It is over, nobody said so, and its records were stored when the connection was made anew.
            camera.resumed = max(0, camera.resumed - 1)
            self._done(camera, offer.number, False)
        elif error.status in (Status.CLIP, Status.ARGUMENT) and not camera.unopened:
            # Its first: perhaps the session is not its own, or its key a mistaken one. Or a later one overtook it, for
            # it was lost with a bridge; then what waits behind it is not to be judged twice.
            camera.unopened = camera.reopens = True
            self._queue.drop(camera.name)
            self._have_reopen(camera, offer, str(error))
        else:
            self._refuse(camera, offer, str(error))

    def _have_reopen(self, camera: Camera, offer: Offer, reason: str) -> None:
        self._say(camera, "refused", number=offer.number, reason=reason, reopen=True, retry=True)

    def _make_room(self, link: Link) -> bool:
        """Where the spool works, what others began takes the room (of records with skeletons little is there): a clip
        of a session of whose camera nothing is heard is given up. False where there is none."""
        heard = {camera.session for camera in self.cameras.values() if camera.unanswered <= CALLS_MAX}
        return not self.ledger.failing and any(
            self._give_up(link, session) is not None
            for session in range(wire.EVAL_SESSIONS_MAX) if session not in heard)

    def probe(self, link: Link) -> bool:
        """Ask the enclave whether it would take a clip of a camera of which none came lately; False where none is due.

        What keeps clips back - no beacons, an agreement that ended, a package that it does not cover - is known so
        before somebody falls.
        """
        now_s = time.monotonic()
        for camera in self.cameras.values():
            if camera.session is None or now_s < camera.probe_due_s:
                continue
            camera.probe_due_s = now_s + PROBE_S
            try:
                link.bridge.probe(camera.session)
            except EnclaveError as error:
                if error.status is None:
                    raise
                if error.status in _PASSING:
                    self._not_now(link, camera, error)
            else:
                camera.taken()
            return True
        return False

    def _not_now(self, link: Link, camera: Camera, error: EnclaveError) -> str:
        """No clip of the camera is taken at present; the reason."""
        now_s, patience_s = time.monotonic(), BURST_S if error.status in _BURSTS else PATIENCE_S
        reason = str(error) if error.status not in _PASSING else _PASSING[Status(error.status)]
        judged = next((one.agreement for one in link.in_force if one.index == camera.agreement), None)
        if error.status == Status.AGREEMENT and judged is not None:
            left = validity.left(judged, time.time())  # by this clock: the enclave does not say why
            reason = validity.words(judged.number, judged.until_s, left.seconds) if left.ended else reason
        camera.probe_due_s = now_s + PROBE_S
        if camera.waits(reason, patience_s, now_s):
            emit(log, "clips_postponed", camera=camera.name, reason=reason)
        return reason

    def _postpone(self, link: Link, camera: Camera, offer: Offer, error: EnclaveError) -> None:
        camera.count(postponed=1)
        reason = self._not_now(link, camera, error)
        self._say(camera, "refused", number=offer.number, reason=reason, reopen=False, retry=True)
        # The other outstanding clip, too, or it would overtake this one: the enclave takes rising numbers only.
        behind = self._queue.drop(camera.name)
        for one in behind:
            self._say(camera, "refused", number=one.number, reason=reason, reopen=False, retry=True)
        camera.next = None if behind else offer.number

    def _refuse(self, camera: Camera, offer: Offer, reason: str) -> None:
        camera.count(refused=1)
        camera.refusal = reason  # nothing of it is judged: the city has to know
        emit(log, "clip_refused", camera=camera.name, number=offer.number, reason=reason)
        self._say(camera, "refused", number=offer.number, reason=reason, reopen=False, retry=False)

    def _done(self, camera: Camera, number: int, failed: bool) -> None:
        camera.over(number, failed)
        camera.count(done=1, failed=int(failed))
        camera.refusal = ""
        self._say(camera, "done", number=number, failed=failed)

    def prepare(self, link: Link) -> bool:
        """Nothing else to do: have U + pad of the clip to be expected computed ahead."""
        if link.model is None or not link.model.head.products or not self._persons:
            return False
        persons = Counter(self._persons).most_common(1)[0][0]
        if persons == 0 or link.bridge.prepared(persons) >= PREPARED_MAX:
            return False
        try:
            self._count(bytes=link.bridge.prepare(persons).bytes)
        except EnclaveError as error:
            if error.status is None:
                raise
            return False  # those for other numbers of persons fill the enclave
        return True

    def _count(self, **more: Any) -> None:
        self.totals = self.totals._replace(**{name: getattr(self.totals, name) + n for name, n in more.items()})


def _state(camera: Camera) -> Dict[str, Optional[str]]:
    status = camera.status(time.monotonic())
    return {"state": status and status.state, "reason": status and (status.reason or None)}


def _close_session(link: Link, session: int) -> None:
    try:
        link.client.close_session(session)
    except EnclaveError as error:
        if error.status is None:
            raise
        log.debug("session %d stays: %s", session, error)
