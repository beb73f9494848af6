"""What the bridge remembers of each camera: its session, which of its clips are over, what it claims to be."""

from collections import OrderedDict
from typing import NamedTuple, Optional, Set, Tuple

from edged.offload.messages import CameraStatus

# Clips that a camera has sent and that are not answered, at most.
OUTSTANDING = 2
# The answers to the last few may be asked for again.
_REMEMBERED = 4 * OUTSTANDING


class Tally(NamedTuple):
    """Clips of one camera since the bridge started. postponed : each time that one was sent and had to wait"""

    done: int = 0
    failed: int = 0
    refused: int = 0
    postponed: int = 0


class Camera:
    """session   : in this epoch, None where it has none      opened : counts them
    agreement : index of the one that it is judged under, None while that is not known
    resumed   : so many clips may be over without our knowing: a bridge before this one judged them
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.session: Optional[int] = None
        self.agreement: Optional[int] = None
        self.opened = 0
        self.resumed = 0
        self.tally = Tally()
        self.unopened = False  # the last clip did not open: a session with a mistaken key takes none
        self.postponed = ""  # why its clips have to wait at present, as was last logged
        self.next: Optional[int] = None  # a clip that had to wait, and comes again before a later one is taken
        self.given_up: Optional[Tuple[int, int]] = None  # (clip for which room was made, emission of what went)
        self.unpaid: Set[int] = set()  # clips that are over, but whose records are not in the spool yet
        self.claimed: Optional[CameraStatus] = None  # as it was last sealed
        self.claim: Optional[CameraStatus] = None  # to be sealed
        self.claim_due_s = 0.0
        self._over: "OrderedDict[int, bool]" = OrderedDict()

    def open(self, session: int, agreement: int, resumed: bool = False) -> None:
        """A session whose clips are counted anew, or that the bridge before this one left behind."""
        self._close()
        self.session, self.agreement = session, agreement
        self.resumed = OUTSTANDING if resumed else 0
        self.opened += 1

    def leave(self) -> None:
        """The epoch of its session is over."""
        self._close()
        # The records of a new epoch have not said yet how the camera is.
        self.claim, self.claimed = self.claim or self.claimed, None

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

    def claims(self, said: CameraStatus) -> None:
        """Something to be sealed, unless it was, and is so still."""
        self.claim = None if said == self.claimed else said

    def claims_state(self, state: str, reason: str = "") -> None:
        """As ``claims``, of what the bridge knows by itself; how many clips were skipped only the camera knows."""
        last = self.claim or self.claimed
        self.claims(CameraStatus(state, reason, 0 if last is None else last.skipped))

    def count(self, **more: int) -> None:
        self.tally = self.tally._replace(**{name: getattr(self.tally, name) + n for name, n in more.items()})
