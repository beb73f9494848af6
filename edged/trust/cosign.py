"""An agreement on its way to both signatures: a draft in text, then with one party's signature, then with the other's.

    draft         trust/agreement_text.py's form
    half-signed   the agreement's COSE_Sign with one signature, of either party
    agreement     with both, the model owner's first

Every signature is over all of the payload: who signs second signs what the other did, or nothing.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Mapping

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edged.errors import KeyRefused, PackageError, UsageError, VerificationFailed
from edged.trust import agreement as agreements
from edged.trust import agreement_text
from edged.trust.agreement import Agreement

_ENVELOPE = b"\xd8\x62"  # no text starts so: it is not UTF-8


class Party(Enum):
    """By what errors call it. In the order of the signatures."""

    MODEL_OWNER = "model owner"
    QUERY_DATA_OWNER = "query data owner"

    @property
    def other(self) -> "Party":
        return Party.QUERY_DATA_OWNER if self is Party.MODEL_OWNER else Party.MODEL_OWNER

    def key_of(self, agreement: Agreement) -> bytes:
        return agreement.mo if self is Party.MODEL_OWNER else agreement.qdo


@dataclass(frozen=True)
class Paper:
    """signatures : those that are there; each was verified"""

    agreement: Agreement
    signatures: Mapping[Party, bytes]

    @property
    def signers(self) -> str:
        return " and ".join("the {}".format(party.value) for party in Party if party in self.signatures) or "nobody"

    def encode(self) -> bytes:
        return agreements.join(self.agreement.encode(), [self.signatures[party] for party in Party
                                                         if party in self.signatures])


def read(path: str, content: bytes) -> Paper:
    """path : for errors alone. Raises ConfigError (a draft), PackageError (form), VerificationFailed."""
    if not content.startswith(_ENVELOPE):
        return Paper(agreement_text.read(path, content), {})
    try:
        return _both(content) if _is_whole(content) else _half(content)
    except PackageError as error:
        raise PackageError("{}: {}".format(path, error)) from error
    except VerificationFailed as error:
        raise VerificationFailed("{}: {}".format(path, error)) from error


def sign(paper: Paper, party: Party, key: Ed25519PrivateKey, digest: bytes) -> Paper:
    """With this party's signature. digest : of the agreement that the party has read

    Raises UsageError (another digest, nothing to sign), KeyRefused (the agreement names another key).
    """
    agreement = paper.agreement
    if digest != agreement.digest:
        raise UsageError("agreement {}: its digest is {}, accepted was {}: read it again".format(
            agreement.number, agreement.digest.hex(), digest.hex()))
    if agreement.mo == agreement.qdo:
        raise UsageError("agreement {}: names one key for both parties, who would agree with nobody".format(
            agreement.number))
    public = key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    if public != party.key_of(agreement):
        raise KeyRefused("agreement {}: its {} is {}, this key is {}".format(
            agreement.number, party.value, party.key_of(agreement).hex(), public.hex()))
    if party in paper.signatures:
        raise UsageError("agreement {}: the {} has signed it: it {}".format(
            agreement.number, party.value, "is in final form" if party.other in paper.signatures
            else "is for the {} to sign".format(party.other.value)))
    return Paper(agreement, {**paper.signatures, party: agreements.sign_as_one(agreement.encode(), key)})


def _is_whole(content: bytes) -> bool:
    try:
        agreements.split(content, 2)
    except PackageError:
        return False
    return True


def _both(content: bytes) -> Paper:
    agreement = agreements.open_agreement(content)
    return Paper(agreement, dict(zip(Party, agreements.split(content, 2)[1])))


def _half(content: bytes) -> Paper:
    try:
        payload, (signature,) = agreements.split(content, 1)
    except PackageError:
        raise PackageError("not an agreement with one signature or two, in canonical form") from None
    agreement = agreements.read_payload(payload)
    for party in Party:
        if agreements.is_signed_by(payload, party.key_of(agreement), signature):
            return Paper(agreement, {party: signature})
    raise VerificationFailed("agreement {}: its one signature is neither party's, or is of other terms".format(
        agreement.number))
