"""A process that shall not outlive the one that started it."""

import ctypes
import os
import signal

from edged.errors import UsageError

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def die_with(parent: int) -> None:
    """SIGKILL for this process once its parent, process number ``parent``, has ended, however it ends.

    Linux watches the *thread* that started this process: it has to live as long as the parent. Killed it is,
    not asked: nobody is left who would kill it where asking does not help, and it has to survive that anyway.
    Raises UsageError where ``parent`` is not the parent: it ended before this was called, or never was.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        raise UsageError("process {} is not the parent of this one, or has ended".format(parent))
