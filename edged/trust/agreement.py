"""The agreement of model owner and query data owner: what the enclave may do, and who may learn what of it.

    signed  = COSE_Sign (RFC 9052), Ed25519, by the model owner, then by the query data owner, over the payload
    payload = one canonical CBOR map (RFC 8949, 4.2.1) of exactly the fields of ``Agreement``
    digest  = SHA-256(payload)

Reading is strict: every field has one type and range, and what is decoded must encode to the same bytes again.
The enclave reads it by the same rules (trusty_ta/eval/agreement.c).
Source: DESIGN section 7; trusty_ta/include/edged_wire.h, struct eval_agreement.
"""

import hashlib
from dataclasses import dataclass
from typing import Any, List, NamedTuple, Optional, Sequence, Tuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from edged import canonical
from edged.canonical import Fields
from edged.enclave import wire
from edged.errors import PackageError, VerificationFailed

VERSION = 1
BODY_STEP = 512
THRESHOLD_ONE = 65536  # Q16
MODEL_ID_MAX = 64
MINUTES = 24 * 60
SCORE_BITS_MAX = 16
PLACEMENTS_ALL = 7
DAY_S = 86400
LIMIT_MAX_S = (1 << 31) - 1
CLIPS_PER_HOUR_MAX = 1000000

# What a recipient may see of a rule.
SEES = (0, *(wire.EDGED_SEES_LABEL | score | skeletons
             for skeletons in (0, wire.EDGED_SEES_SKELETON) for score in (0, wire.EDGED_SEES_SCORE)))

_PROTECTED = b"\xa1\x01\x27"  # {1 (alg): -8 (EdDSA)}
_START = b"\xd8\x62\x84\x40\xa0"  # tag 98 (COSE_Sign) of [h'', {}, payload, signatures]
_LIST = 0x80  # of fewer than 24
_SIGNATURE = b"\x83\x43" + _PROTECTED + b"\xa0\x58\x40"  # [protected, {}, bstr of 64]
_SIGNATURE_BYTES = 64
_CONTEXT = b"edged agreement"


class ModelTerms(NamedTuple):
    """Which packages the agreement covers: of this id and key, from this version on."""

    id: str
    least_version: int
    key_id: bytes


class Rule(NamedTuple):
    """When a label is an alert. threshold : Q16. Minutes of the UTC day; equal ones: always."""

    label: str
    threshold: int
    cool_down_s: int
    first_minute: int = 0
    end_minute: int = 0


class Recipient(NamedTuple):
    """Who gets records, sealed under which alert key, and what they tell.

    sees : EDGED_SEES_SCORES or 0
    rules : of each rule 0, or EDGED_SEES_LABEL, with or without EDGED_SEES_SCORE and EDGED_SEES_SKELETON
    """

    rcpt: bytes
    alert_key: bytes
    sees: int
    rules: Tuple[int, ...] = ()


@dataclass(frozen=True)
class Agreement:
    """The payload's fields. mo, qdo : verification keys. data_key : key id. from_s, until_s : Unix seconds."""

    mo: bytes
    qdo: bytes
    body: int
    from_s: int
    model: ModelTerms
    rules: Tuple[Rule, ...]
    until_s: int
    number: int
    status: wire.MessageStatus
    beacon_period_s: int
    beacon_limit_s: int
    data_key: bytes
    placements: int
    recipients: Tuple[Recipient, ...]
    score_bits: int
    clips_per_hour: int

    def encode(self) -> bytes:
        """The payload. Nothing is checked: what a party may not sign, a test may."""
        return canonical.encode({
            "v": VERSION,
            "mo": self.mo,
            "qdo": self.qdo,
            "body": self.body,
            "from": self.from_s,
            "model": list(self.model),
            "rules": [list(rule) for rule in self.rules],
            "until": self.until_s,
            "number": self.number,
            "status": int(self.status),
            "beacons": [self.beacon_period_s, self.beacon_limit_s],
            "data_key": self.data_key,
            "placements": self.placements,
            "recipients": [[one.rcpt, one.alert_key, one.sees, list(one.rules)] for one in self.recipients],
            "score_bits": self.score_bits,
            "clips_per_hour": self.clips_per_hour,
        })

    @property
    def digest(self) -> bytes:
        return hashlib.sha256(self.encode()).digest()

    def may_follow(self, before: "Agreement") -> bool:
        """Whether the enclave takes it as the one that follows: the same two owners, a higher number."""
        return (self.mo, self.qdo) == (before.mo, before.qdo) and self.number > before.number


def shows_skeletons(recipient: Recipient) -> bool:
    return any(bits & wire.EDGED_SEES_SKELETON for bits in recipient.rules)


def body_for(labels: int, rules: int, skeletons: bool = False) -> int:
    """The least body that holds all scores of a model of so many labels, and everything else that is sent; the only
    one where somebody sees skeletons."""
    if skeletons:
        return wire.EDGED_BODY_SKELETONS
    needed = max(wire.Scores.size() + wire.AlertEntry.size() * rules + 8 * labels,
                 wire.HeartbeatHead.size() + wire.CameraCount.size() * wire.EVAL_SESSIONS_MAX,
                 wire.ClaimHead.size() + wire.EDGED_CLAIM_MAX)
    return -(-needed // BODY_STEP) * BODY_STEP


def sign(payload: bytes, mo_key: Ed25519PrivateKey, qdo_key: Ed25519PrivateKey) -> bytes:
    """Both parties' signatures over a payload, whatever it says. Each of them would give only its own."""
    return join(payload, [sign_as_one(payload, key) for key in (mo_key, qdo_key)])


def sign_as_one(payload: bytes, key: Ed25519PrivateKey) -> bytes:
    """One party's signature over a payload, whatever it says."""
    return key.sign(_signed_bytes(payload))


def is_signed_by(payload: bytes, public: bytes, signature: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, _signed_bytes(payload))
    except (InvalidSignature, ValueError):  # ValueError: these 32 bytes are no key
        return False
    return True


def open_agreement(signed: bytes, mo_public: Optional[bytes] = None, qdo_public: Optional[bytes] = None) -> Agreement:
    """The agreement, signed by the two keys that it names, and by these (32 bytes each) where they are given.

    Raises PackageError (form), VerificationFailed (a signature, or a party that is not the expected one).
    """
    payload, signatures = split(signed, 2)
    agreement = read_payload(payload)
    parties = (("model owner", agreement.mo, mo_public), ("query data owner", agreement.qdo, qdo_public))
    for (party, public, expected), signature in zip(parties, signatures):
        if expected is not None and public != expected:
            raise VerificationFailed("agreement {}: its {} is {}, not {}".format(
                agreement.number, party, public.hex(), expected.hex()))
        if not is_signed_by(payload, public, signature):
            raise VerificationFailed("agreement {}: the {}'s signature does not verify".format(
                agreement.number, party))
    return agreement


def read_payload(payload: bytes) -> Agreement:
    """Raises PackageError unless this is the one canonical form of an agreement within all ranges."""
    fields = canonical.fields(canonical.decode(payload, "agreement"), _NAMES, "agreement")
    fields.uint("v", VERSION, VERSION)
    rules = tuple(_rule(row) for row in fields.rows("rules", 0, wire.EDGED_RULES_MAX))
    if len({rule.label for rule in rules}) != len(rules):
        raise PackageError("agreement: rules: one label stands twice")
    from_s, until_s = fields.uint("from"), fields.uint("until")
    if from_s >= until_s:
        raise PackageError("agreement: from {} until {} is no time at all".format(from_s, until_s))
    body = fields.uint("body", BODY_STEP, wire.EDGED_BODY_SKELETONS)
    status = fields.uint("status")
    if status not in (wire.MessageStatus.ACTUAL, wire.MessageStatus.TEST):
        raise PackageError("agreement: status is {}, must be {} (Actual) or {} (Test)".format(
            status, int(wire.MessageStatus.ACTUAL), int(wire.MessageStatus.TEST)))
    period_s, limit_s = _beacons(fields.list("beacons", 2))
    recipients = tuple(_recipient(row, len(rules))
                       for row in fields.rows("recipients", 1, wire.EDGED_RECIPIENTS_MAX))
    if len({one.rcpt for one in recipients}) != len(recipients):
        raise PackageError("agreement: recipients: one stands twice")
    wrong = body_fault(body, recipients)
    if wrong is not None:
        raise PackageError("agreement: body is {}, {}".format(body, wrong))
    return Agreement(
        mo=fields.octets("mo", 32),
        qdo=fields.octets("qdo", 32),
        body=body,
        from_s=from_s,
        model=_model(fields.list("model", 3)),
        rules=rules,
        until_s=until_s,
        number=fields.uint("number"),
        status=wire.MessageStatus(status),
        beacon_period_s=period_s,
        beacon_limit_s=limit_s,
        data_key=fields.octets("data_key", 16),
        placements=fields.uint("placements", 1, PLACEMENTS_ALL),
        recipients=recipients,
        score_bits=fields.uint("score_bits", 0, SCORE_BITS_MAX),
        clips_per_hour=fields.uint("clips_per_hour", 1, CLIPS_PER_HOUR_MAX),
    )


_NAMES = frozenset("v mo qdo body from model rules until number status beacons data_key placements recipients"
                   " score_bits clips_per_hour".split())


def _beacons(row: List[Any]) -> Tuple[int, int]:
    fields = Fields.of_row(row, "period limit", "agreement: beacons")
    period_s = fields.uint("period", 1, DAY_S)
    return period_s, fields.uint("limit", period_s, LIMIT_MAX_S)


def _model(row: List[Any]) -> ModelTerms:
    fields = Fields.of_row(row, "id version key_id", "agreement: model")
    return ModelTerms(fields.text("id", MODEL_ID_MAX), fields.uint("version"), fields.octets("key_id", 16))


def _rule(row: Any) -> Rule:
    fields = Fields.of_row(row, "label threshold cool_down first end", "agreement: rules")
    return Rule(fields.text("label", wire.EDGED_LABEL_MAX), fields.uint("threshold", 1, THRESHOLD_ONE),
                fields.uint("cool_down", 0, DAY_S), fields.uint("first", 0, MINUTES - 1),
                fields.uint("end", 0, MINUTES - 1))


def _recipient(row: Any, rules: int) -> Recipient:
    fields = Fields.of_row(row, "rcpt alert_key sees rules", "agreement: recipients")
    sees = fields.list("rules", rules)
    if any(type(bits) is not int or bits not in SEES for bits in sees):
        raise PackageError("agreement: recipients: rules is {!r}, must be 0, or {} (label) with or without {} (score) "
                           "and {} (skeletons)".format(sees, wire.EDGED_SEES_LABEL, wire.EDGED_SEES_SCORE,
                                                       wire.EDGED_SEES_SKELETON))
    return Recipient(fields.octets("rcpt", 16), fields.octets("alert_key", 16),
                     fields.uint("sees", 0, wire.EDGED_SEES_SCORES), tuple(sees))


def body_fault(body: int, recipients: Sequence[Recipient]) -> Optional[str]:
    """What a body's size must be, where this is another; None: it may be this. (Its least value is BODY_STEP.)"""
    if any(map(shows_skeletons, recipients)):
        return None if body == wire.EDGED_BODY_SKELETONS else "must be {} where somebody sees skeletons".format(
            wire.EDGED_BODY_SKELETONS)
    if body > wire.EDGED_BODY_MAX:
        return "must be at most {} where nobody sees skeletons".format(wire.EDGED_BODY_MAX)
    return "must be a multiple of {}".format(BODY_STEP) if body % BODY_STEP else None


def _signed_bytes(payload: bytes) -> bytes:
    return canonical.encode(["Signature", b"", _PROTECTED, _CONTEXT, payload])


def join(payload: bytes, signatures: Sequence[bytes]) -> bytes:
    """The envelope: with both signatures the agreement, with one what the other party has still to sign."""
    return (_START + canonical.encode(payload) + bytes([_LIST + len(signatures)])
            + b"".join(_SIGNATURE + signature for signature in signatures))


def split(signed: bytes, count: int) -> Tuple[bytes, Tuple[bytes, ...]]:
    """(payload, so many signatures), nothing verified. Built again and compared: there is one form only.

    Raises PackageError.
    """
    one = len(_SIGNATURE) + _SIGNATURE_BYTES
    end = len(signed) - count * one
    try:
        payload = canonical.decode(signed[len(_START):end - 1], "its payload")
    except PackageError as error:
        raise PackageError("agreement of {} bytes: not a COSE_Sign of two signatures: {}".format(
            len(signed), error)) from error
    signatures = tuple(signed[end + place * one + len(_SIGNATURE):end + (place + 1) * one] for place in range(count))
    if type(payload) is not bytes or signed != join(payload, signatures):
        raise PackageError("agreement of {} bytes: not a COSE_Sign of two Ed25519 signatures in canonical form".format(
            len(signed)))
    return payload, signatures
