"""What lies beside a node's files while one agreement follows another (edged/rotation.py).

    agreement.cose          in force, and named by the configuration
    agreement.cose.next     the one that follows it; the bridge puts it in force as well, once its keys are there
    NAME.key                of a camera, under the first
    NAME.key.DIGITS         under the agreement whose digest begins with these

Until the first is over nothing that the configuration names has changed: whatever is started again meanwhile finds a
key and the agreement that it is of. Then NAME.key is replaced first and agreement.cose after it, so whoever reads the
agreement first and the key after it never holds an old key for a new agreement.
"""

import glob
import re
from pathlib import Path
from typing import List, NamedTuple, Optional, Tuple

from edged.command import read_file
from edged.config import Camera, Config
from edged.enclave.slots import KEY_SIZES
from edged.enclave.wire import KeyKind
from edged.errors import ConfigError, EdgedError, KeyRefused, MissingInput, PackageError, VerificationFailed
from edged.secret import read_secret
from edged.trust.agreement import Agreement, open_agreement

CAMERA_KEY_SIZES = KEY_SIZES[KeyKind.DATA]  # a camera's key is as long as that of which it comes
_DIGITS = 16


def next_path(agreement: Path) -> Path:
    return agreement.with_name(agreement.name + ".next")


def key_path(key: Path, digest: bytes) -> Path:
    return key.with_name("{}.{}".format(key.name, digest.hex()[:_DIGITS]))


def staged_keys(key: Path) -> List[Path]:
    """What lies beside a camera's key as one under another agreement."""
    return sorted(path for path in key.parent.glob(glob.escape(key.name) + ".*")
                  if re.fullmatch(r"\.[0-9a-f]{{{}}}".format(_DIGITS), path.name[len(key.name):]))


def judged_under(config: Config, camera: Camera) -> Path:
    """The agreement that the configuration names for this camera."""
    return camera.agreement or config.enclave.agreements[0]  # that is the only one then


def read_agreement(path: Path) -> Tuple[bytes, Agreement]:
    """The signed bytes and what they say. Raises MissingInput, KeyRefused, PackageError, VerificationFailed, with the
    file's name."""
    signed = read_file(str(path))
    try:
        return signed, open_agreement(signed)
    except (PackageError, VerificationFailed) as error:
        raise type(error)("{}: {}".format(path, error)) from error


def require_follows(path: Path, agreement: Agreement, before: Agreement) -> None:
    """Raises ConfigError where the agreement of this file may not follow the one before."""
    if not agreement.may_follow(before):
        raise ConfigError("{}: agreement {} cannot follow agreement {}: the same owners and a higher number do".format(
            path, agreement.number, before.number))


class Paired(NamedTuple):
    """agreement : digest of the one that a camera is judged under      key : the camera's under it, 16 or 32 bytes"""

    agreement: bytes
    key: bytes

    def __repr__(self) -> str:
        return "Paired({})".format(self.agreement.hex())


class CameraKeys:
    """A camera's keys and their agreements, as they lie on the disk at the moment of each question."""

    def __init__(self, config: Config, camera: Camera) -> None:
        self._key, self._agreement = camera.key, judged_under(config, camera)

    def read(self, had: Optional[bytes] = None) -> Paired:
        """What to say hello with. had : digest of the agreement that the camera went over to before

        Whoever went over stays there while that agreement lies beside the one that it follows; else it is the one that
        the configuration names. Raises MissingInput, KeyRefused, PackageError, VerificationFailed.
        """
        # In this order: `settle` makes the agreement that lies beside the named one that which is named.
        following = self._following()
        if following is not None and had == following:
            staged = self._staged(following)
            if staged is not None:
                return Paired(following, staged)
        named = self._named()
        if following is None or following == named:
            return Paired(named, self._named_key())
        if had == following:  # a key in memory is worth more than that of an agreement that may be over
            raise self._missing(following)
        key = self._named_key()
        if key == self._staged_or_none(following):  # half settled: the named one is over, its key is gone
            return Paired(following, key)
        return Paired(named, key)

    def under(self, digest: bytes) -> bytes:
        """The camera's key under the agreement of this digest.

        Raises as ``read``, and KeyRefused where there is no such agreement for this camera, or no key for it.
        """
        found = self.read(digest)
        if found.agreement != digest:
            # The key of the agreement in force is none of the one that follows: its clips would be refused for good.
            raise self._missing(digest)
        return found.key

    def _following(self) -> Optional[bytes]:
        """None where nothing lies there, or what the bridge cannot put in force either and names."""
        try:
            return read_agreement(next_path(self._agreement))[1].digest
        except EdgedError:
            return None

    def _named(self) -> bytes:
        return read_agreement(self._agreement)[1].digest

    def _named_key(self) -> bytes:
        return read_secret(str(self._key), CAMERA_KEY_SIZES)

    def _staged(self, digest: bytes) -> Optional[bytes]:
        try:
            return read_secret(str(key_path(self._key, digest)), CAMERA_KEY_SIZES)
        except MissingInput:
            return None

    def _staged_or_none(self, digest: bytes) -> Optional[bytes]:
        try:
            return self._staged(digest)
        except KeyRefused:  # the bridge's `follow` says so in time; until then the named agreement goes on
            return None

    def _missing(self, digest: bytes) -> KeyRefused:
        return KeyRefused("{}: no key for the agreement {}..: run `edgectl rotate`".format(
            key_path(self._key, digest), digest.hex()[:_DIGITS]))
