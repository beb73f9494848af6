"""Processes that tests look at, and those that they kill."""

import os
import signal

# All that a program here changes files by.
FILE_STEPS = ("open", "link", "unlink", "mkdir", "rename", "replace", "chmod", "fchmod", "fsync", "close", "urandom")


def is_alive(pid):
    """Whether the process runs: where nobody reaps orphans, it may stay as a zombie."""
    try:
        with open("/proc/{}/stat".format(pid), encoding="ascii") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def ends_although_killed(step, act):
    """Call ``act`` in a process that is killed before its n-th step with a file, or right after; whether it came to its
    end before that."""
    child = os.fork()
    if child == 0:
        left = [step]

        def stopping(name):
            real = getattr(os, name)

            def stopped(*arguments, **named):
                left[0] -= 1
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                made = real(*arguments, **named)
                left[0] -= 1
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return made
            return stopped

        try:
            for name in FILE_STEPS:
                setattr(os, name, stopping(name))
            act()
        except BaseException:
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert status in (0, signal.SIGKILL)
    return status == 0
