"""The agreements of the C tests, and the keys that they name; also for a reader without CBOR (tests/c/city.h)."""

import hashlib
import struct
from dataclasses import replace
from typing import List, NamedTuple, Tuple

import numpy as np
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edged.enclave import wire
from edged.enclave.wire import KeyKind
from edged.model import package
from edged.trust.agreement import Agreement, ModelTerms, Recipient, Rule, body_for, sign

OWNER, CITY, OTHER_CITY = "owner of the tests", "city of the tests", "other city of the tests"


def party(name: str) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(hashlib.sha256(name.encode()).digest())


def public_of(name: str) -> bytes:
    return party(name).public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)


class Slot(NamedTuple):
    """A key, and whose it is."""

    kind: KeyKind
    key: bytes
    key_id: bytes
    owner: str

    @property
    def verifier(self) -> bytes:
        return public_of(self.owner)


def _slot(kind: KeyKind, name: str, owner: str, key_bytes: int = 32) -> Slot:
    return Slot(kind, hashlib.sha256(("key/" + name).encode()).digest()[:key_bytes], name.ljust(16).encode(), owner)


# By number. Recipients have keys of both lengths, the cities each their own.
MODEL_SLOT, DATA_SLOT, ALERT_SLOT, SHORT_ALERT_SLOT, OTHER_DATA_SLOT, OTHER_ALERT_SLOT, FORGED_SLOT = range(7)
SLOTS = (
    Slot(KeyKind.MODEL, hashlib.sha256(b"key/model").digest(), b"k" * 16, OWNER),
    _slot(KeyKind.DATA, "data", CITY), _slot(KeyKind.ALERT, "alert", CITY), _slot(KeyKind.ALERT, "short", CITY, 16),
    _slot(KeyKind.DATA, "other data", OTHER_CITY), _slot(KeyKind.ALERT, "other alert", OTHER_CITY),
    Slot(KeyKind.MODEL, hashlib.sha256(b"key/model").digest(), b"k" * 16, OTHER_CITY),  # as if it were the owner's
)
_EVERYTHING = wire.EDGED_SEES_LABEL | wire.EDGED_SEES_SCORE


class Deal(NamedTuple):
    """An agreement, and the slots with the keys that it names. labels : of its rules, by index in the model"""

    agreement: Agreement
    qdo: str
    data_slot: int
    alert_slots: Tuple[int, ...]
    labels: Tuple[int, ...]

    def signed(self) -> bytes:
        return sign(self.agreement.encode(), party(OWNER), party(self.qdo))

    def put(self) -> bytes:
        """The body of EVAL_AGREEMENT."""
        signed, slots = self.signed(), self.alert_slots + (0,) * (wire.EDGED_RECIPIENTS_MAX - len(self.alert_slots))
        return wire.AgreementPut(MODEL_SLOT, self.data_slot, slots, len(signed)).pack() + signed

    def terms(self) -> bytes:
        """The agreement for a test that reads no CBOR: struct terms of tests/c/city.h."""
        terms = self.agreement
        out = struct.pack("<8I32s32s", terms.status, terms.body, terms.score_bits, terms.beacon_limit_s, self.data_slot,
                          len(terms.rules), len(terms.recipients), terms.number, terms.digest, terms.qdo)
        for index in range(wire.EDGED_RULES_MAX):
            used = index < len(terms.rules)
            out += struct.pack("<6I", *((self.labels[index],) + terms.rules[index][1:] + (0,) if used else (0,) * 6))
        for one, number in zip(terms.recipients, self.alert_slots):
            sees = one.rules + (0,) * (wire.EDGED_RULES_MAX - len(one.rules))
            key = SLOTS[number].key
            out += struct.pack("<16s16s32s3I9I", one.rcpt, one.alert_key, key, len(key), number, one.sees, *sees, 0)
        return out.ljust(32 + 2 * 32 + 8 * 24 + 4 * 112, b"\0")


def make(nobody: np.ndarray, alone: np.ndarray, both: np.ndarray) -> List[Deal]:
    """Agreements about a package, by its probabilities for clips of 0, 1 and 2 persons: (labels,) each.

    0  which an honest client uses: every kind of rule, one recipient who sees all and one who sees some
    1  another city: the largest body, few clips an hour, not in placement inputs
    2  asks for a later version of the model      3  expired before any beacon      4  as the first, another number
    5  of that city, too: the rules in another order, the second recipient with another key, and a new one
    6  as 1, but a recipient has the name of the first one's
    7  as the first, another number; both see skeletons, of some rules
    """
    nobody, alone, both = (scores.astype(int) for scores in (nobody, alone, both))
    # One rule holds for one person alone, the next by day, for two alone, the third at night, for whatever score.
    labels = [int(np.argmax(alone - both)), int(np.argmax(both - alone))]
    assert alone[labels[0]] > max(both[labels[0]], nobody[labels[0]])
    assert both[labels[1]] > max(alone[labels[1]], nobody[labels[1]])
    rules = [(int(alone[labels[0]]), 60, 0, 0), (int(both[labels[1]]), 0, 6 * 60, 20 * 60)]
    if len(alone) > 2:
        labels.append(min(set(range(len(alone))) - set(labels)))
        rules.append((1, 600, 22 * 60, 6 * 60))
    sees = tuple(_EVERYTHING for _ in rules)
    some = (wire.EDGED_SEES_LABEL, 0, _EVERYTHING)[:len(rules)]
    first = Agreement(
        mo=public_of(OWNER), qdo=public_of(CITY), body=body_for(len(alone), len(rules)), from_s=1000,
        model=ModelTerms("test", 1, SLOTS[MODEL_SLOT].key_id),
        rules=tuple(Rule("label{:03d}".format(label), *rule) for label, rule in zip(labels, rules)),
        until_s=(1 << 32) - 1, number=1, status=wire.MessageStatus.ACTUAL, beacon_period_s=60, beacon_limit_s=7200,
        data_key=SLOTS[DATA_SLOT].key_id, placements=package.PLACEMENTS_ALL,
        recipients=(Recipient(b"sees everything ", SLOTS[ALERT_SLOT].key_id, wire.EDGED_SEES_SCORES, sees),
                    Recipient(b"sees some alerts", SLOTS[SHORT_ALERT_SLOT].key_id, 0, some)),
        score_bits=8, clips_per_hour=1000000)
    key_id = SLOTS[OTHER_ALERT_SLOT].key_id
    other = replace(
        first, qdo=public_of(OTHER_CITY), body=wire.EDGED_BODY_MAX, rules=first.rules[:1], number=2,
        status=wire.MessageStatus.TEST, data_key=SLOTS[OTHER_DATA_SLOT].key_id, placements=5, clips_per_hour=2,
        recipients=(Recipient(b"of another city ", key_id, wire.EDGED_SEES_SCORES, sees[:1]),
                    Recipient(b"the city's other", key_id, 0, (0,))))
    later = replace(first, model=first.model._replace(least_version=2), number=3)
    over = replace(first, until_s=first.from_s + 1, number=4)
    made = [Deal(one, CITY, DATA_SLOT, (ALERT_SLOT, SHORT_ALERT_SLOT), tuple(labels))
            for one in (first, later, over, replace(first, number=5))]
    changed = replace(first, number=6, rules=first.rules[::-1], recipients=(
        first.recipients[1]._replace(alert_key=SLOTS[ALERT_SLOT].key_id, rules=sees),
        Recipient(b"came with change", SLOTS[SHORT_ALERT_SLOT].key_id, 0, some)))
    made.append(Deal(changed, CITY, DATA_SLOT, (ALERT_SLOT, SHORT_ALERT_SLOT), tuple(labels[::-1])))
    naming = replace(other, number=9, recipients=other.recipients[:1] + (
        other.recipients[1]._replace(rcpt=first.recipients[0].rcpt),))
    for place, one in ((1, other), (6, naming)):
        made.insert(place, Deal(one, OTHER_CITY, OTHER_DATA_SLOT, (OTHER_ALERT_SLOT, OTHER_ALERT_SLOT),
                                tuple(labels[:1])))
    sees_skeletons = (_EVERYTHING | wire.EDGED_SEES_SKELETON, _EVERYTHING, _EVERYTHING | wire.EDGED_SEES_SKELETON)
    some_skeletons = (wire.EDGED_SEES_LABEL | wire.EDGED_SEES_SKELETON,) + some[1:]
    drawn = replace(first, number=7, body=wire.EDGED_BODY_SKELETONS, recipients=(
        first.recipients[0]._replace(rules=sees_skeletons[:len(rules)]),
        first.recipients[1]._replace(rules=some_skeletons)))
    made.append(Deal(drawn, CITY, DATA_SLOT, (ALERT_SLOT, SHORT_ALERT_SLOT), tuple(labels)))
    return made
