"""What the bridge remembers of each camera: its session, which of its clips are over, what is to be said of it."""

from collections import OrderedDict
from typing import NamedTuple, Optional, Set, Tuple

from edged.offload.messages import CameraStatus

# What the bridge claims of a camera: its clips do not open, or none of them is taken. The others it says itself.
REFUSED, WAITS = "refused", "waits"

# Clips that a camera has sent and that are not answered, at most.
OUTSTANDING = 2
# So many may stay without an answer: while a process starts, or a network is loaded.
CALLS_MAX = 4
# The answers to the last few may be asked for again.
_REMEMBERED = 4 * OUTSTANDING


class Tally(NamedTuple):
    """Clips of one camera since the bridge started. postponed : each time that one was sent and had to wait"""

    done: int = 0
    failed: int = 0
    refused: int = 0
    postponed: int = 0


class Wait(NamedTuple):
    """The enclave takes no clip. since_s, told_s : monotonic, of the first refusal; from when on the city is told
    of_session : it is a session that was refused: the next one that is opened ends the wait"""

    reason: str
    since_s: float
    told_s: float
    of_session: bool


class Camera:
    """place     : of its agreement in enclave.agreements
    session   : in this epoch, None where it has none      opened : counts them
    agreement : index of the one that it is judged under, None while that is not known
    resumed   : so many clips may be over without our knowing: a bridge before this one judged them
    """

    def __init__(self, name: str, place: int = 0) -> None:
        self.name, self.place = name, place
        self.session: Optional[int] = None
        self.agreement: Optional[int] = None
        self.opened = 0
        self.resumed = 0
        self.tally = Tally()
        self.unopened = False  # the last clip did not open: a session with a mistaken key takes none
        self.reopens = False  # was told to: what it sent in its session before, it seals anew
        self.wait: Optional[Wait] = None  # since the last that was taken, or would have been
        self.told_to_wait = False  # instead of getting a session
        self.refusal = ""  # why its clips are refused for good, until one is over
        self.next: Optional[int] = None  # a clip that had to wait, and comes again before a later one is taken
        self.given_up: Optional[Tuple[int, int]] = None  # (clip for which room was made, emission of what went)
        self.unpaid: Set[int] = set()  # clips that are over, but whose records are not in the spool yet
        self.said: Optional[CameraStatus] = None  # by its process
        self.claimed: Optional[CameraStatus] = None  # as it was last sealed, in this epoch and under this agreement
        self.claim_due_s = 0.0
        self.unanswered = 0  # calls, since its process said anything
        self.probe_due_s = 0.0  # when the enclave is to be asked whether it would take a clip
        self.follow_due_s = 0.0  # when it is to be told again which agreement follows its own
        self.unreached_s: Optional[float] = None  # since when that could not be told
        self._over: "OrderedDict[int, bool]" = OrderedDict()

    def open(self, session: int, agreement: int, resumed: bool = False) -> None:
        """A session whose clips are counted anew, or that the bridge before this one left behind."""
        if self.agreement not in (None, agreement):
            self.claimed = None
        self._close()
        self.admitted()
        self.told_to_wait = False
        self.session, self.agreement, self.reopens = session, agreement, False
        self.resumed = OUTSTANDING if resumed else 0
        self.opened += 1

    def admitted(self) -> None:
        """It gets a session, or asks for one anew: why it got none is of the past."""
        if self.wait is not None and self.wait.of_session:
            self.wait = None

    def leave(self) -> None:
        """The epoch of its session is over: the next one's records have not said yet how the camera is."""
        self._close()
        self.claimed = self.wait = None

    def _close(self) -> None:
        self.session = self.agreement = None
        self.next = self.given_up = None
        self.unpaid.clear()
        self._over.clear()

    def over(self, number: int, failed: bool) -> None:
        """This clip's records are in the spool."""
        self.unpaid.discard(number)
        self._over[number] = failed
        while len(self._over) > _REMEMBERED:
            self._over.popitem(last=False)

    def verdict(self, number: int) -> Optional[bool]:
        """Of a clip that is over: whether it failed. None of every other."""
        return self._over.get(number)

    def says(self, said: CameraStatus) -> None:
        """Its process's own word."""
        self.said = said

    def waits(self, reason: str, patience_s: float, now_s: float, of_session: bool = False) -> bool:
        """A clip was not taken, or a session not granted, for a reason that may pass: whether it is another one than
        before."""
        before = self.wait
        since_s = now_s if before is None else before.since_s
        self.wait = Wait(reason, since_s, since_s + patience_s, of_session)
        return before is None or before.reason != reason

    def taken(self) -> None:
        """A clip was, or would have been."""
        self.wait = None

    def status(self, now_s: float) -> Optional[CameraStatus]:
        """How it is, by itself and by what became of its clips; None while nobody knows. Lost before anything else:
        then there are no pictures to be judged."""
        last = self.said or self.claimed
        skipped = 0 if last is None else last.skipped  # only the camera knows how many
        if self.unanswered > CALLS_MAX:
            return CameraStatus("lost", "its process does not answer", skipped)
        if self.said is not None and self.said.state == "lost":
            return self.said
        if self.refusal:
            return CameraStatus(REFUSED, self.refusal, skipped)
        if self.wait is not None and now_s >= self.wait.told_s:
            return CameraStatus(WAITS, self.wait.reason, skipped)
        return self.said or last and CameraStatus("live", "", skipped)

    def claim(self, now_s: float) -> Optional[CameraStatus]:
        """What is to be sealed; None where that was, and is so still."""
        status = self.status(now_s)
        return None if status == self.claimed else status

    def count(self, **more: int) -> None:
        self.tally = self.tally._replace(**{name: getattr(self.tally, name) + n for name, n in more.items()})
