"""An agreement as people read and write it: one TOML file, strict, exact.

What is written of an agreement reads back to the same canonical bytes, so its digest is that of the text, too. Reading
refuses unknown keys, and whatever the canonical form refuses, with file, line and key (edged/strict.py). Nothing stands
in for a key that is missing: what a party signs is written out.

Exactness: a threshold is n / 65536 and is written with five decimals, which are nearer to it (0.000005) than half the
way to the next (1 / 131072 = 0.0000076). Times are whole seconds.
"""

import calendar
import json
import re
import time
from typing import Any, Dict, List, Optional, Tuple

from edged import strict
from edged.canonical import UINT32
from edged.enclave import wire
from edged.errors import PackageError
from edged.trust.agreement import (
    BODY_STEP, CLIPS_PER_HOUR_MAX, DAY_S, LIMIT_MAX_S, MODEL_ID_MAX, SCORE_BITS_MAX, THRESHOLD_ONE,
    VERSION, Agreement, ModelTerms, Recipient, Rule, body_fault, read_payload)

SIZE_MAX = 1 << 16
DECIMALS = 5

_ROOT = ("schema", "number", "status", "from", "until", "mo", "qdo", "data_key", "placements", "body_bytes",
         "score_bits", "clips_per_hour", "beacons", "model", "rule", "recipient")
_TIME = "%Y-%m-%dT%H:%M:%SZ"
_TIME_FORM = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"
_DAY_PART = r"(?:[01]\d|2[0-3]):[0-5]\d-(?:[01]\d|2[0-3]):[0-5]\d"
_STATUS = {"actual": wire.MessageStatus.ACTUAL, "test": wire.MessageStatus.TEST}
SEES = {"nothing": 0, "label": wire.EDGED_SEES_LABEL,
        "label and score": wire.EDGED_SEES_LABEL | wire.EDGED_SEES_SCORE,
        "label and skeletons": wire.EDGED_SEES_LABEL | wire.EDGED_SEES_SKELETON,
        "label, score and skeletons": wire.EDGED_SEES_LABEL | wire.EDGED_SEES_SCORE | wire.EDGED_SEES_SKELETON}


def write(agreement: Agreement) -> str:
    """Raises PackageError where it holds a name that nobody can read as it is (control or invisible characters)."""
    lines = [
        "schema = {}".format(VERSION),
        "number = {}".format(agreement.number),
        _line("status", agreement.status.name.lower(), "whether its alerts are to be acted on"),
        _line("from", moment(agreement.from_s)),
        _line("until", moment(agreement.until_s)),
        _line("mo", agreement.mo.hex(), "model owner: signs, and grants the model key"),
        _line("qdo", agreement.qdo.hex(), "query data owner: signs, and grants data and alert keys"),
        _line("data_key", agreement.data_key.hex(), "id of the key that clips are sealed under"),
        "placements = [{}]  # where products may be computed".format(", ".join(map(_quoted, placements(agreement)))),
        "body_bytes = {}  # of every record".format(agreement.body),
        "score_bits = {}  # of {} that a told score keeps".format(agreement.score_bits, SCORE_BITS_MAX),
        "clips_per_hour = {}  # at most".format(agreement.clips_per_hour),
        "",
        "[beacons]",
        "period_s = {}".format(agreement.beacon_period_s),
        "limit_s = {}  # without one for so long, nothing is evaluated".format(agreement.beacon_limit_s),
        "",
        "[model]",
        _line("id", agreement.model.id),
        "least_version = {}".format(agreement.model.least_version),
        _line("key_id", agreement.model.key_id.hex()),
    ]
    for rule in agreement.rules:
        lines += ["", "[[rule]]",
                  _line("label", rule.label),
                  "threshold = {}".format(threshold(rule.threshold)),
                  "cool_down_s = {}".format(rule.cool_down_s),
                  _line("utc", day_part(rule), "always" if rule.first_minute == rule.end_minute else "")]
    for one in agreement.recipients:
        lines += ["", "[[recipient]]",
                  _line("rcpt", one.rcpt.hex()),
                  _line("alert_key", one.alert_key.hex(), "id of the key that its records are sealed under"),
                  "all_scores = {}  # of every clip and label, alert or not".format(
                      "true" if one.sees & wire.EDGED_SEES_SCORES else "false")]
        if agreement.rules:
            lines += ["", "[recipient.sees]"]
            lines += ["{} = {}".format(_quoted(rule.label), _quoted(sees(bits)))
                      for rule, bits in zip(agreement.rules, one.rules)]
    return "\n".join(lines) + "\n"


def read(path: str, text: bytes) -> Agreement:
    """path : for errors alone. Raises ConfigError (FILE:LINE: key: what is wrong), PackageError (too long)."""
    if len(text) > SIZE_MAX:
        raise PackageError("{}: {} bytes, an agreement's text has at most {}".format(path, len(text), SIZE_MAX))
    root = strict.parse(path, text, _ROOT)
    root.integer("schema", low=VERSION, high=VERSION)
    rules = _rules(root)
    beacons = root.table("beacons", ("period_s", "limit_s"))
    period_s = beacons.integer("period_s", low=1, high=DAY_S)
    from_s, until_s = _time(root, "from"), _time(root, "until")
    if from_s >= until_s:
        raise root.error("until", "{}: not later than from".format(moment(until_s)))
    body, recipients = root.integer("body_bytes", low=BODY_STEP), _recipients(root, rules)
    wrong = body_fault(body, recipients)
    if wrong is not None:
        raise root.error("body_bytes", "{}: {}".format(body, wrong))
    made = Agreement(
        mo=root.octets("mo", 32), qdo=root.octets("qdo", 32), body=body, from_s=from_s, model=_model(root),
        rules=rules, until_s=until_s, number=root.integer("number", high=UINT32),
        status=_STATUS[root.text("status", choices=tuple(_STATUS))],
        beacon_period_s=period_s, beacon_limit_s=beacons.integer("limit_s", low=period_s, high=LIMIT_MAX_S),
        data_key=root.octets("data_key", 16), placements=_placements(root), recipients=recipients,
        score_bits=root.integer("score_bits", high=SCORE_BITS_MAX),
        clips_per_hour=root.integer("clips_per_hour", low=1, high=CLIPS_PER_HOUR_MAX))
    try:
        return read_payload(made.encode())  # that nothing is written here which the enclave would not read
    except PackageError as error:
        raise root.error(None, str(error)) from error


def moment(unix_s: int) -> str:
    return time.strftime(_TIME, time.gmtime(unix_s))


def threshold(q16: int) -> str:
    return "{:.{}f}".format(q16 / THRESHOLD_ONE, DECIMALS)


def day_part(rule: Rule) -> str:
    return "-".join("{:02}:{:02}".format(*divmod(minute, 60)) for minute in (rule.first_minute, rule.end_minute))


def placements(agreement: Agreement) -> List[str]:
    return [where.name.lower() for where in wire.Placement if agreement.placements >> where & 1]


def sees(bits: int) -> str:
    return next(words for words, meant in SEES.items() if meant == bits)


def _line(key: str, value: str, comment: str = "") -> str:
    return "{} = {}{}".format(key, _quoted(value), "  # " + comment if comment else "")


def _quoted(text: str) -> str:
    if not text.isprintable():
        raise PackageError("agreement: {}: holds a character that nobody sees: it has no text form, do not sign "
                           "it".format(ascii(text)))
    return json.dumps(text, ensure_ascii=False)


def seconds(text: str) -> Optional[int]:
    """Unix seconds of what ``moment`` writes; None: it is none of these times."""
    if not re.fullmatch(_TIME_FORM, text):
        return None
    try:
        found = calendar.timegm(time.strptime(text, _TIME))
    except ValueError:
        return None
    # 23:59:60 is a time to Python, and another text
    return found if 0 <= found <= UINT32 and moment(found) == text else None


def _time(root: strict.Table, key: str) -> int:
    meaning = "a time in UTC, as 2026-01-31T00:00:00Z"
    text = root.text(key, pattern=_TIME_FORM, meaning=meaning)
    found = seconds(text)
    if found is None:
        raise root.error(key, "{}: {}, from {} to {}".format(text, meaning, moment(0), moment(UINT32)))
    return found


def _placements(root: strict.Table) -> int:
    known: Dict[str, int] = {where.name.lower(): 1 << where for where in wire.Placement}
    chosen = root.texts("placements")
    for name in chosen:
        if name not in known:
            raise root.error("placements", "{}: of {}".format(name, ", ".join(known)))
    return sum(known[name] for name in chosen)


def _model(root: strict.Table) -> ModelTerms:
    table = root.table("model", ("id", "least_version", "key_id"))
    return ModelTerms(_name(table, "id", MODEL_ID_MAX), table.integer("least_version", high=UINT32),
                      table.octets("key_id", 16))


def _rules(root: strict.Table) -> Tuple[Rule, ...]:
    made: List[Rule] = []
    tables = root.array("rule", ("label", "threshold", "cool_down_s", "utc"), optional=True)
    if len(tables) > wire.EDGED_RULES_MAX:
        raise root.error("rule", "{} of them: at most {}".format(len(tables), wire.EDGED_RULES_MAX))
    for table in tables:
        label = _name(table, "label", wire.EDGED_LABEL_MAX)
        if any(rule.label == label for rule in made):
            raise table.error("label", "{}: has a rule already".format(label))
        first, end = (int(part[:2]) * 60 + int(part[3:]) for part in table.text(
            "utc", pattern=_DAY_PART, meaning="a part of the day in UTC, as 22:00-06:00; 00:00-00:00 is always"
        ).split("-"))
        made.append(Rule(label, _threshold(table), table.integer("cool_down_s", high=DAY_S), first, end))
    return tuple(made)


def _threshold(table: strict.Table) -> int:
    value = table.number("threshold", high=1.0)
    q16 = round(value * THRESHOLD_ONE)
    if round(value, DECIMALS) != value or q16 < 1:
        raise table.error("threshold", "{}: from {} to 1, with at most {} decimals".format(
            value, threshold(1), DECIMALS))
    return q16


def _recipients(root: strict.Table, rules: Tuple[Rule, ...]) -> Tuple[Recipient, ...]:
    made: List[Recipient] = []
    tables = root.array("recipient", ("rcpt", "alert_key", "all_scores", "sees"))
    if len(tables) > wire.EDGED_RECIPIENTS_MAX:
        raise root.error("recipient", "{} of them: at most {}".format(len(tables), wire.EDGED_RECIPIENTS_MAX))
    labels = [rule.label for rule in rules]
    for table in tables:
        rcpt = table.octets("rcpt", 16)
        if any(one.rcpt == rcpt for one in made):
            raise table.error("rcpt", "{}: is a recipient already".format(rcpt.hex()))
        told: Any = table.table("sees", labels, optional=not labels)
        made.append(Recipient(rcpt, table.octets("alert_key", 16),
                              wire.EDGED_SEES_SCORES if table.flag("all_scores") else 0,
                              tuple(SEES[told.text(label, choices=tuple(SEES))] for label in labels)))
    return tuple(made)


def _name(table: strict.Table, key: str, most: int) -> str:
    text = table.text(key)
    if len(text.encode("utf-8")) > most:
        raise table.error(key, "{}: at most {} bytes".format(text, most))
    return text
