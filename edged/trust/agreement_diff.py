"""What one agreement permits that another did not: each field that differs, and whether it is wider.

WIDER is whatever lets more be computed, seen, said or done, or for longer; OTHER is what the fields alone cannot tell,
as another key. Recipients are compared by name and rules by label, wherever in the agreement they stand.
"""

from enum import Enum
from typing import Any, Callable, FrozenSet, Iterator, List, NamedTuple, Tuple

from edged.enclave import wire
from edged.trust import agreement_text as text
from edged.trust.agreement import MINUTES, Agreement, Recipient, Rule


class Width(Enum):
    WIDER = "WIDER"
    NARROWER = "narrower"
    OTHER = "other"


class Change(NamedTuple):
    """field : by its key in the text form      old, new : as they stand there; "" where there was or is none"""

    field: str
    old: str
    new: str
    width: Width

    def __str__(self) -> str:
        return "{:8}  {}: {} -> {}".format(self.width.value, self.field, self.old or "none", self.new or "none")


class _Field(NamedTuple):
    key: str
    value: Callable[[Any], Any]
    shown: Callable[[Any], str] = str
    more: int = 0  # 1: a higher value is wider, -1: a lower one, 0: neither


def _hex(octets: bytes) -> str:
    return octets.hex()


_FIELDS = (
    _Field("number", lambda a: a.number),
    # Actual alerts are acted on.
    _Field("status", lambda a: a.status, lambda status: status.name.lower(), -1),
    _Field("from", lambda a: a.from_s, text.moment, -1),
    _Field("until", lambda a: a.until_s, text.moment, 1),
    _Field("mo", lambda a: a.mo, _hex),
    _Field("qdo", lambda a: a.qdo, _hex),
    _Field("data_key", lambda a: a.data_key, _hex),
    _Field("body_bytes", lambda a: a.body, str, 1),
    _Field("score_bits", lambda a: a.score_bits, str, 1),
    _Field("clips_per_hour", lambda a: a.clips_per_hour, str, 1),
    # Fewer beacons: evaluated for longer without the city's word, and silence is noticed later.
    _Field("beacons.period_s", lambda a: a.beacon_period_s, str, 1),
    _Field("beacons.limit_s", lambda a: a.beacon_limit_s, str, 1),
    _Field("model.id", lambda a: a.model.id),
    _Field("model.least_version", lambda a: a.model.least_version, str, -1),
    _Field("model.key_id", lambda a: a.model.key_id, _hex),
)
_OF_A_RULE = (
    _Field("threshold", lambda rule: rule.threshold, text.threshold, -1),
    _Field("cool_down_s", lambda rule: rule.cool_down_s, str, -1),
)
_OF_A_RECIPIENT = (
    _Field("alert_key", lambda one: one.alert_key, _hex),
    _Field("all_scores", lambda one: bool(one.sees & wire.EDGED_SEES_SCORES), lambda seen: str(seen).lower(), 1),
)


def diff(old: Agreement, new: Agreement) -> Tuple[Change, ...]:
    """In the order of the text form. Empty where both are the same agreement, and only then."""
    return tuple(_changes(old, new))


def rotated(old: Agreement, new: Agreement) -> Tuple[str, ...]:
    """Which keys of the city are others: the data key, and those of the recipients that stand in both, by name."""
    was, now = ({one.rcpt: one.alert_key for one in agreement.recipients} for agreement in (old, new))
    return (("data key",) if old.data_key != new.data_key else ()) + tuple(
        "alert key of {}".format(rcpt.hex()) for rcpt in was if rcpt in now and was[rcpt] != now[rcpt])


def _changes(old: Agreement, new: Agreement) -> Iterator[Change]:
    yield from _fields(_FIELDS, "", old, new)
    had, has = text.placements(old), text.placements(new)
    for name in sorted(set(had) ^ set(has)):
        yield _come_or_gone("placements", name, name in has)
    yield from _rules(old.rules, new.rules)
    yield from _recipients(old, new)


def _fields(fields: Tuple[_Field, ...], prefix: str, old: Any, new: Any) -> Iterator[Change]:
    for field in fields:
        was, now = field.value(old), field.value(new)
        if was != now:
            width = Width.OTHER
            if field.more:
                width = Width.WIDER if (now > was) == (field.more > 0) else Width.NARROWER
            yield Change(prefix + field.key, field.shown(was), field.shown(now), width)


def _come_or_gone(field: str, name: str, is_new: bool) -> Change:
    return Change(field, "", name, Width.WIDER) if is_new else Change(field, name, "", Width.NARROWER)


def _order(field: str, old: List[str], new: List[str]) -> Iterator[Change]:
    """Of those that stand in both: by their places records name them."""
    was, now = ([name for name in names if name in old and name in new] for names in (old, new))
    if was != now:
        yield Change(field + " order", ", ".join(was), ", ".join(now), Width.OTHER)


def _rules(old: Tuple[Rule, ...], new: Tuple[Rule, ...]) -> Iterator[Change]:
    was, now = ({rule.label: rule for rule in rules} for rules in (old, new))
    for label in list(was) + [label for label in now if label not in was]:
        if label not in was or label not in now:
            yield _come_or_gone("rule", label, label in now)
            continue
        prefix = "rule {}: ".format(label)
        yield from _fields(_OF_A_RULE, prefix, was[label], now[label])
        if text.day_part(was[label]) != text.day_part(now[label]):
            before, after = _minutes(was[label]), _minutes(now[label])
            width = (Width.OTHER if before == after else Width.WIDER if after - before else Width.NARROWER)
            yield Change(prefix + "utc", text.day_part(was[label]), text.day_part(now[label]), width)
    yield from _order("rule", list(was), list(now))


def _minutes(rule: Rule) -> FrozenSet[int]:
    """Of the day, at which the rule holds."""
    first, end = rule.first_minute, rule.end_minute
    if first < end:
        return frozenset(range(first, end))
    return frozenset(range(first, MINUTES)) | frozenset(range(end))


def _recipients(old: Agreement, new: Agreement) -> Iterator[Change]:
    was, now = ({one.rcpt.hex(): one for one in agreement.recipients} for agreement in (old, new))
    for rcpt in list(was) + [rcpt for rcpt in now if rcpt not in was]:
        if rcpt not in was or rcpt not in now:
            yield _come_or_gone("recipient", rcpt, rcpt in now)
        prefix = "recipient {}: ".format(rcpt)
        if rcpt in was and rcpt in now:
            yield from _fields(_OF_A_RECIPIENT, prefix, was[rcpt], now[rcpt])
        elif rcpt in now and now[rcpt].sees & wire.EDGED_SEES_SCORES:
            yield Change(prefix + "all_scores", "", "true", Width.WIDER)
        before = _told(old.rules, was.get(rcpt))
        after = _told(new.rules, now.get(rcpt))
        for label in list(before) + [label for label in after if label not in before]:
            had, has = before.get(label, 0), after.get(label, 0)
            if had != has:
                yield Change("{}sees {}".format(prefix, label), text.sees(had), text.sees(has),
                             _width(had, has))
    yield from _order("recipient", list(was), list(now))


def _width(had: int, has: int) -> Width:
    """Of bits seen of a rule. Whoever sees one thing in another's stead sees what he did not."""
    return Width.WIDER if has & ~had else Width.NARROWER


def _told(rules: Tuple[Rule, ...], one: Any) -> Any:
    """{label: bits} of a recipient, of None too."""
    return dict(zip((rule.label for rule in rules), one.rules)) if isinstance(one, Recipient) else {}
