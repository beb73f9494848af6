"""What a training step needs, made ahead by a second process, so that the first one only learns."""

import multiprocessing
from collections import deque
from concurrent.futures import Future, ProcessPoolExecutor
from typing import Any, Callable, Deque, Iterator

DEPTH = 6  # steps ahead


def ahead(make: Callable[[int], Any], first: int, last: int) -> Iterator[Any]:
    """make(first) .. make(last - 1), in order; what it raises there is raised here.

    ``make`` runs in a fork of this process: it may hold whatever this one holds, its results travel by pickle.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("fork"), _keep, (make,)) as process:
        waiting: Deque["Future[Any]"] = deque()
        try:
            for step in range(first, last):
                waiting.append(process.submit(_made, step))
                if len(waiting) == DEPTH:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


_make: Any = None


def _keep(make: Callable[[int], Any]) -> None:
    global _make
    _make = make


def _made(step: int) -> Any:
    return _make(step)
