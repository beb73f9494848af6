"""Clips that wait for the enclave, taken from the cameras by turns.

However fast one camera sends, each of the others is served after at most one clip of every camera that has some.
"""

from collections import deque
from typing import Deque, Dict, Generic, List, Optional, Tuple, TypeVar

PER_CAMERA = 2  # one under way or next, one behind it: more would only grow old here

Item = TypeVar("Item")


class FairQueue(Generic[Item]):
    """Round robin over sources; of one source first in, first out. At most ``limit`` items of a source wait."""

    def __init__(self, limit: int = PER_CAMERA) -> None:
        self._limit = limit
        self._turns: Deque[str] = deque()  # sources that have something waiting, each once, the next one first
        self._items: Dict[str, Deque[Item]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._items.values()))

    def put(self, source: str, item: Item) -> bool:
        """False where as many of this source wait already."""
        waiting = self._items.setdefault(source, deque())
        if len(waiting) >= self._limit:
            return False
        if not waiting:
            self._turns.append(source)
        waiting.append(item)
        return True

    def take(self) -> Optional[Tuple[str, Item]]:
        """The next source's oldest item, and the source goes to the end of the line; None where nothing waits."""
        if not self._turns:
            return None
        source = self._turns.popleft()
        item = self._items[source].popleft()
        if self._items[source]:
            self._turns.append(source)
        return source, item

    def put_back(self, source: str, item: Item) -> None:
        """What was taken and could not be served: it is the very next, whatever the limit."""
        waiting = self._items.setdefault(source, deque())
        if waiting:
            self._turns.remove(source)
        self._turns.appendleft(source)
        waiting.appendleft(item)

    def drop(self, source: str) -> List[Item]:
        """Forget what waits of this source; it."""
        dropped = list(self._items.pop(source, ()))
        if dropped:
            self._turns.remove(source)
        return dropped

    def waiting(self, source: str) -> Tuple[Item, ...]:
        return tuple(self._items.get(source, ()))
