"""The camera's side of the protocol with the bridge.

    hello {camera, nonce, agreement}    -> session {session, nonce, epoch, persons, frames, joints} | wait {reason}
    clip {session, number, captured_ns} + sealed   -> done {number, failed} | refused {number, reason, reopen, retry}
    status {state, reason, skipped}     -> -
    here {} | status as last told       <- here {}
                                        <- reopen {reason}
                                        <- follow {agreement}

A clip is held in clear, in memory, until the bridge says ``done`` or refuses it for good. At most two are
outstanding; the others wait, and where many do a newer clip takes the place of the waiting one of the same people,
and at last the oldest goes: each such drop is counted and logged, and the city is told their number in the camera's
status: nobody is to think that what was not judged was quiet. Outstanding ones are never dropped.

Within a session the same clip is the same sealed bytes, however often it is sent. Under a new session (the bridge
asks for one, or says nothing for ``LOST_S``) it is sealed again. Numbers rise for as long as the process lives, so an
answer to an older session is never taken for one to a newer.

Where the bridge names another agreement to follow, the camera goes over once all that it sent is answered, so that no
clip is judged under both; until then nothing new is sent. Its key for that agreement it takes from the disk, never
from a message; and after each `wait` and each loss of a session it looks there again, for while it waited one agreement
may have followed another.
"""

import logging
import os
import time
from collections import deque
from typing import Any, Callable, Deque, Dict, List, NamedTuple, Optional, Sequence, Tuple, Union

from edged import events
from edged.beside import CameraKeys, Paired
from edged.bus import Dealer, Message
from edged.camera.clip import Clip, seal_clip, session_key
from edged.enclave import wire
from edged.errors import EdgedError, PackageError
from edged.offload import messages

log = logging.getLogger(__name__)

OUTSTANDING_MAX = 2
WAITING_MAX = 8        # beyond these a newer clip of the same people takes the place of the older
WAITING_MOST = 32      # clips of different people: 64 at two a clip
HELLO_S, HELLO_MAX_S = 5.0, 60.0  # until hello is said again: a bridge hears nothing while it evaluates a clip
AGAIN_S, AGAIN_MAX_S = 3.0, 24.0  # an unanswered clip: a bridge that started meanwhile answers with reopen
# A bridge that lives answers in the end, but others have their turns first: too early a new session would cost ours.
LOST_S = 600.0
RETRY_S, RETRY_MAX_S = 0.5, 10.0  # after a refusal that passes
WAIT_S, WAIT_MAX_S = 1.0, 10.0  # until hello is said again after ever more `wait`: an agreement may be away for days
STATUS_S = 5.0         # each status becomes a record: a camera that flickers is not to fill the spool
SKIPPED_S = 60.0       # ... nor one on a node that is too slow all day


class Session(NamedTuple):
    """What the enclave granted: session number, key of its seals, and the shape of its model's clips."""

    number: int
    key: bytes
    epoch: bytes
    persons: int
    frames: int
    joints: int

    def takes(self, clip: Clip) -> bool:
        persons, frames, joints, _ = clip.coordinates.shape
        return persons <= self.persons and (frames, joints) == (self.frames, self.joints)

    def __repr__(self) -> str:
        return "Session({}, {} x {} x {})".format(self.number, self.persons, self.frames, self.joints)


class Counts(NamedTuple):
    """Since the process began."""

    sent: int = 0
    done: int = 0
    failed: int = 0
    skipped: int = 0   # dropped while waiting: for a newer one, or because the process ends
    refused: int = 0   # for good
    sessions: int = 0


class _Held:
    """A clip on its way. sealed is for the session ``session``, and None before."""

    def __init__(self, clip: Clip) -> None:
        self.clip = clip
        self.offered_ns = time.time_ns()
        self.session: Optional[Session] = None
        self.number = 0
        self.sealed = b""
        self.sent_s: Optional[float] = None  # None: is to be sent
        self.again_s = AGAIN_S
        self.told = False  # that it was sent in this session

    def forget_seal(self) -> None:
        self.session, self.sealed, self.sent_s, self.again_s, self.told = None, b"", None, AGAIN_S, False


class BridgeLink:
    """Sends one camera's clips.

    camera_id : 32 bytes, the camera's name      keys : its own, and the agreements that they are of, on the disk
    clock     : seconds that nobody sets
    Not for use by two threads at once. Raises as ``keys.read`` does; later on what was read before serves.
    """

    def __init__(self, dealer: Dealer, camera_id: bytes, keys: CameraKeys,
                 clock: Callable[[], float] = time.monotonic) -> None:
        self._dealer = dealer
        self._name = camera_id.rstrip(b"\0").decode()
        self._camera_id, self._keys, self._clock = camera_id, keys, clock
        self._under = keys.read()
        self._next: Optional[Paired] = None  # to go over to
        self._follow_refused = ""
        self._is_stale = False  # what ``_under`` is of may have been replaced
        self._unread = ""  # why it was not read again, as was last said
        self.session: Optional[Session] = None
        self._nonce = os.urandom(32)
        self._hello_due_s, self._hello_s = clock(), HELLO_S
        self._wait_s = WAIT_S  # after the next `wait`
        self._is_to_wait = False  # the last hello was answered so
        self._outstanding: List[_Held] = []
        self._waiting: Deque[_Held] = deque()
        self._number = 0
        self._heard_s = clock()
        self._retry_due_s = 0.0
        self._retry_s = RETRY_S
        self._done_number = 0
        self._wait_reason = ""
        self._status: Dict[str, Any] = {}
        self._told: Dict[str, Any] = {}  # the status, in this session
        self._status_due_s = 0.0
        self._skipped_told = 0
        self._skipped_due_s = 0.0
        self.counts = Counts()

    @property
    def busy(self) -> bool:
        """Clips are on their way or wait."""
        return bool(self._outstanding or self._waiting)

    @property
    def room(self) -> bool:
        """A clip that is offered now makes no other one wait: for sources that can wait themselves."""
        return not self._waiting

    def offer(self, clip: Clip) -> None:
        """Take a clip, to be sent in its turn; where too many wait, one is dropped."""
        held = _Held(clip)
        if len(self._waiting) >= WAITING_MAX:
            for place, other in enumerate(self._waiting):
                if set(other.clip.tracks) <= set(clip.tracks):
                    # Its turn as well: else a busy node would always skip the same people.
                    self._waiting[place] = held
                    self._skip(other.clip, "a newer one of the same people waits")
                    return
        self._waiting.append(held)
        if len(self._waiting) > WAITING_MOST:
            self._skip(self._waiting.popleft().clip, "too many wait")

    def status(self, state: str, reason: str = "") -> None:
        """Tell the bridge whether the camera is "live" or "lost"; told again when it changes, and when more clips were
        skipped."""
        self._status = {"state": state, "reason": reason[:200]}

    def finish(self) -> bool:
        """The process ends: what was not sent is skipped, and the number told now rather than in its time. Whether
        something was said: it needs a moment to leave."""
        unsent = [held for held in self._outstanding if held.sent_s is None] + list(self._waiting)
        self._outstanding = [held for held in self._outstanding if held.sent_s is not None]
        self._waiting.clear()
        for held in unsent:
            self._skip(held.clip, "the camera process ends")
        if self.session is None or not self._status or self.counts.skipped == self._skipped_told:
            return False
        return self._send_status(self._clock())

    def serve(self, timeout_s: float) -> None:
        """Send what is due and take the bridge's answers, for so long; 0: only those that are here."""
        deadline = self._clock() + timeout_s
        while True:
            self._send_due()
            left_s = deadline - self._clock()
            # Woken again in between: what is due by time is not announced by a message.
            message = self._dealer.receive(max(0.0, min(left_s, 0.1)))
            if message is not None:
                self._take(message)
            elif left_s <= 0:
                return

    def _send_due(self) -> None:
        now_s = self._clock()
        if self.session is not None and self._outstanding and now_s - self._heard_s > LOST_S:
            self._reopen("the bridge says nothing")
        if self._next is not None and all(held.sent_s is None for held in self._outstanding):
            self._reopen("another agreement follows")
        if self.session is None:
            if now_s >= self._hello_due_s:
                self._say_hello(now_s)
            return
        self._tell_status(now_s)
        if now_s < self._retry_due_s:
            return
        while self._waiting and self._next is None and len(self._outstanding) < OUTSTANDING_MAX:
            if not self._outstanding:
                self._heard_s = now_s  # silence counts from the question on
            self._outstanding.append(self._waiting.popleft())
        for held in self._outstanding:
            due = (now_s - held.sent_s >= held.again_s if held.sent_s is not None
                   else self._next is None and not self._overtaken(held))
            if due and not self._send_clip(held, now_s):
                return

    def _overtaken(self, held: _Held) -> bool:
        """It was refused for the moment, and what became of a later one is not known yet."""
        return held.session is self.session and any(
            other.sent_s is not None and other.number > held.number for other in self._outstanding)

    def _say_hello(self, now_s: float) -> None:
        if self._is_stale:
            self._read_again()
        self._is_to_wait = False
        # The nonce stays until it is answered: whichever hello an answer is to, it is to this nonce.
        fields = {"camera": self._camera_id, "nonce": self._nonce, "agreement": self._under.agreement}
        if self._send("hello", fields):
            self._hello_due_s = now_s + self._hello_s
            self._hello_s = min(2 * self._hello_s, HELLO_MAX_S)
        else:
            self._hello_due_s, self._hello_s = now_s + RETRY_S, HELLO_S

    def _read_again(self) -> None:
        try:
            found = self._keys.read(self._under.agreement)
        except (EdgedError, OSError) as error:  # half replaced, perhaps: the next hello looks again
            if str(error) != self._unread:
                self._unread = str(error)
                events.emit(log, "keys_unread", camera=self._name, reason=str(error))
            return
        self._is_stale, self._unread = False, ""
        self._go_over(found)

    def _go_over(self, to: Paired) -> None:
        if to.agreement != self._under.agreement:
            self._follow_refused = ""
            events.emit(log, "agreement_changed", camera=self._name, agreement=to.agreement)
        self._under = to

    def _tell_status(self, now_s: float) -> None:
        if not self._status or now_s < self._status_due_s:
            return
        changed = self._status["state"] != self._told.get("state")
        if changed or self.counts.skipped != self._skipped_told and now_s >= self._skipped_due_s:
            self._send_status(now_s)

    def _send_status(self, now_s: float) -> bool:
        fields = dict(self._status, skipped=self.counts.skipped)
        if not self._send("status", fields):
            return False
        self._told, self._skipped_told = fields, self.counts.skipped
        self._status_due_s, self._skipped_due_s = now_s + STATUS_S, now_s + SKIPPED_S
        return True

    def _send_clip(self, held: _Held, now_s: float) -> bool:
        session = self.session
        assert session is not None
        # The enclave takes rising numbers only: of a clip that it refused for the moment, and after which it took
        # a later one, the old number would be a replay now.
        passed = held.sent_s is None and held.number < self._done_number
        if held.session is not session or passed:
            self._number += 1
            held.session, held.number = session, self._number
            held.sealed = seal_clip(session.key, session.number, held.number, held.clip)
        fields = {"session": session.number, "number": held.number, "captured_ns": held.clip.claimed_ns}
        if not self._send("clip", fields, held.sealed):
            return False
        if held.sent_s is not None:
            held.again_s = min(2 * held.again_s, AGAIN_MAX_S)
        held.sent_s = now_s
        if not held.told:
            held.told = True
            self.counts = self.counts._replace(sent=self.counts.sent + 1)
            events.emit(log, "clip_sent", camera=self._name, session=session.number, number=held.number,
                        captured_unix_ns=held.clip.claimed_ns, offered_unix_ns=held.offered_ns,
                        tracks=len(held.clip.tracks))
        return True

    def _send(self, kind: str, fields: Dict[str, Any], blob: Optional[bytes] = None) -> bool:
        return self._dealer.send(messages.pack(kind, fields, blob))

    def _take(self, message: Message) -> None:
        takers: Dict[str, Callable[[Dict[str, Any]], None]] = {
            "session": self._take_session, "wait": self._take_wait, "done": self._take_done,
            "refused": self._take_refused, "here": self._take_here, "reopen": self._take_reopen,
            "follow": self._take_follow}
        try:
            kind, fields = _opened(message.frames)
        except PackageError as error:
            log.warning("camera %s: passed over what the bridge says: %s", self._name, error)
            return
        if kind != "here":  # nothing of what was asked is answered by it
            self._heard_s, self._hello_s = self._clock(), HELLO_S
        takers[kind](fields)

    def _take_session(self, fields: Dict[str, Any]) -> None:
        key = session_key(self._under.key, self._nonce, fields["nonce"])
        session = self.session = Session(fields["session"], key, fields["epoch"], fields["persons"], fields["frames"],
                                         fields["joints"])
        for held in self._outstanding + list(self._waiting):
            held.forget_seal()
            if not session.takes(held.clip):
                self._skip(held.clip, "the enclave's model takes clips of another shape")
        self._outstanding = [held for held in self._outstanding if session.takes(held.clip)]
        self._waiting = deque(held for held in self._waiting if session.takes(held.clip))
        self._retry_due_s, self._retry_s, self._wait_reason = 0.0, RETRY_S, ""
        self._wait_s, self._is_to_wait = WAIT_S, False
        self._told = {}  # an enclave that is new does not know
        self.counts = self.counts._replace(sessions=self.counts.sessions + 1)
        events.emit(log, "session_opened", camera=self._name, session=self.session.number, epoch=self.session.epoch,
                    again=len(self._outstanding))

    def _take_wait(self, fields: Dict[str, Any]) -> None:
        self._hello_due_s = self._clock() + self._wait_s
        self._wait_s = min(2 * self._wait_s, WAIT_MAX_S)
        self._is_to_wait = self._is_stale = True
        self._say_why("session_waits", fields["reason"])

    def _take_here(self, fields: Dict[str, Any]) -> None:
        # The bridge that was told may have been killed before it had that sealed. What is not news becomes no record.
        if self.session is not None and self._told:
            self._send("status", self._told)
        else:
            self._send("here", {})

    def _take_reopen(self, fields: Dict[str, Any]) -> None:
        if self.session is not None:
            self._reopen(fields["reason"])
        elif self._is_to_wait:  # else hello is under way
            self._hello_due_s = self._clock()

    def _take_follow(self, fields: Dict[str, Any]) -> None:
        digest = fields["agreement"]
        if digest == self._under.agreement or self._next is not None and self._next.agreement == digest:
            return
        try:
            self._next = Paired(digest, self._keys.under(digest))
        except (EdgedError, OSError) as error:
            if str(error) != self._follow_refused:
                self._follow_refused = str(error)
                events.emit(log, "agreement_refused", camera=self._name, agreement=digest, reason=str(error))

    def _take_done(self, fields: Dict[str, Any]) -> None:
        held = self._find(fields["number"])
        if held is None:
            return  # the second answer to a clip that was sent twice
        self._outstanding.remove(held)
        self._retry_s, self._retry_due_s, self._wait_reason = RETRY_S, 0.0, ""
        self._done_number = max(self._done_number, held.number)
        self.counts = self.counts._replace(done=self.counts.done + 1, failed=self.counts.failed + fields["failed"])
        events.emit(log, "clip_done", camera=self._name, number=held.number, captured_unix_ns=held.clip.claimed_ns,
                    failed=fields["failed"])

    def _take_refused(self, fields: Dict[str, Any]) -> None:
        held = self._find(fields["number"])
        if held is None:
            return
        if fields["reopen"]:
            self._reopen(fields["reason"])
        elif fields["retry"]:
            held.sent_s, held.again_s = None, AGAIN_S
            self._retry_due_s = self._clock() + self._retry_s
            self._retry_s = min(2 * self._retry_s, RETRY_MAX_S)
            self._say_why("clip_waits", fields["reason"])
        else:
            self._outstanding.remove(held)
            self.counts = self.counts._replace(refused=self.counts.refused + 1)
            events.emit(log, "clip_refused", camera=self._name, number=held.number, reason=fields["reason"])

    def _find(self, number: int) -> Optional[_Held]:
        return next((held for held in self._outstanding if held.session is not None and held.number == number), None)

    def _reopen(self, reason: str) -> None:
        events.emit(log, "session_lost", camera=self._name, reason=reason)
        self.session = None
        self._is_stale = True
        if self._next is not None:
            self._go_over(self._next)
            self._next = None
        self._nonce = os.urandom(32)
        self._hello_due_s = self._heard_s = self._clock()
        for held in self._outstanding:
            held.forget_seal()

    def _say_why(self, event: str, reason: str) -> None:
        """Once, until something else is the reason: a locked enclave may stay so for hours."""
        if reason != self._wait_reason:
            self._wait_reason = reason
            events.emit(log, event, camera=self._name, reason=reason)

    def _skip(self, clip: Clip, reason: str) -> None:
        self.counts = self.counts._replace(skipped=self.counts.skipped + 1)
        events.emit(log, "clip_skipped", camera=self._name, captured_unix_ns=clip.claimed_ns,
                    tracks=len(clip.tracks), reason=reason, skipped=self.counts.skipped)


_Kind = Union[type, int, range]  # of a field: a type, the size of a byte string, the range of a number

_U32, _U64 = range(1 << 32), range(1 << 64)

_ANSWERS: Dict[str, Dict[str, _Kind]] = {
    "session": {"session": _U32, "nonce": 32, "epoch": 16, "persons": range(1, wire.EVAL_PERSONS_MAX + 1),
                "frames": range(1, 4097), "joints": range(1, 65)},
    "wait": {"reason": str},
    "done": {"number": _U64, "failed": bool},
    "refused": {"number": _U64, "reason": str, "reopen": bool, "retry": bool},
    "here": {},
    "reopen": {"reason": str},
    "follow": {"agreement": 32},
}


def _opened(frames: Sequence[bytes]) -> Tuple[str, Dict[str, Any]]:
    """(type, fields). Raises PackageError where it is no message that the bridge sends to a camera."""
    kind, fields, blob = messages.unpack(frames)
    form = _ANSWERS.get(kind)
    if form is None or blob is not None or set(fields) != set(form):
        raise PackageError("{!r}: not one of {}, or not of its fields".format(kind[:20], ", ".join(_ANSWERS)))
    for name, of in form.items():
        if not _fits(fields[name], of):
            raise PackageError("{}: {} is out of its range".format(kind, name))
    return kind, fields


def _fits(value: Any, of: _Kind) -> bool:
    if isinstance(of, range):
        return type(value) is int and value in of
    return isinstance(value, bytes) and len(value) == of if isinstance(of, int) else type(value) is of
