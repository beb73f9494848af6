"""The one error tree of ``edged``, and the exit code of the process that dies of each.

    EdgedError                 1   never raised itself
    +-- UsageError             2   the command line makes no sense
    +-- PackageError          65   a package, clip file or record is malformed or breaks a stated bound
    |   +-- ShapeError        65   an array has another shape or element type than the contract says
    +-- MissingInput          66   a file or stream that was named does not exist
    +-- CameraError           69   a camera is unreachable, frozen or sends nothing usable
    +-- AcceleratorError      69   the accelerator is absent or failed
    +-- SpoolError            69   a database of records is full, damaged, or held by another process
    +-- BusError              69   a ZeroMQ address is in use or cannot be bound
    +-- ServerError           69   a key server is unreachable or out of order, or its address cannot be bound
    +-- EnclaveError(status)  69   the enclave is absent, or answered with a status other than 0
    |   +-- VerificationFailed 76  a signature, seal, measurement or masked product was refused
    +-- KeyRefused            77   a key is missing, of the wrong kind, or not permitted here
    +-- ConfigError           78   the configuration file is wrong (quotes file, line and key)

The codes are those of sysexits.h where it has one; systemd units rely on 78 (no restart).
Raise where the fact is known, decide in one place, never turn an error into an empty value.
"""

from typing import Optional


class EdgedError(Exception):
    """Root of the tree; ``exit_code`` is what the process returns when it dies of this error."""

    exit_code = 1


class UsageError(EdgedError):
    exit_code = 2


class PackageError(EdgedError):
    exit_code = 65


class ShapeError(PackageError):
    exit_code = 65


class MissingInput(EdgedError):
    exit_code = 66


class CameraError(EdgedError):
    exit_code = 69


class AcceleratorError(EdgedError):
    exit_code = 69


class SpoolError(EdgedError):
    exit_code = 69


class BusError(EdgedError):
    exit_code = 69


class ServerError(EdgedError):
    exit_code = 69


class EnclaveError(EdgedError):
    """The enclave is absent (``status`` None) or answered ``status`` (enum eval_status / key_status)."""

    exit_code = 69

    def __init__(self, message: str, status: Optional[int] = None) -> None:
        super().__init__(message if status is None else "{} (status {})".format(message, status))
        self.status = status


class VerificationFailed(EnclaveError):
    exit_code = 76


class KeyRefused(EdgedError):
    exit_code = 77


class ConfigError(EdgedError):
    exit_code = 78
