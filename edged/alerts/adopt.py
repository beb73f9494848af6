"""Which agreements the city's subscribers are configured for: one is adopted, one dropped, the operator's files stay.

    adopt  the agreement goes to agreement-NUMBER.cose and to the front of ``agreements``; alert_key and alert_key_id
           become those that it names, the ones before go into a [[former]] table. One that comes late goes behind
           those of higher numbers, and its key into a [[former]] table
    drop   the agreement goes from ``agreements``, and with it the [[former]] key that no other one names
    retire the keys that dropped agreements named, and that none needs any more, are deleted

All subscribers of a folder, whatever their files are called, are treated together: all or none. Only these lines of
their configurations are edited. What comes out is read again before it is written, and has to mean what was asked for
and nothing else; where an operator's way of writing defeats the edit, that is said and nothing changed.
"""

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, Iterator, List, Mapping, NamedTuple, Sequence, Tuple

from edged import strict
from edged.alerts import cityconfig, dropped, ending, keyfiles, keys
from edged.alerts.cityconfig import CityConfig, FormerKey
from edged.alerts.journal import Journal
from edged.alerts.keyfiles import KeyFile
from edged.alerts.record import split_record
from edged.alerts.terms import named_key
from edged.command import read_file
from edged.errors import ConfigError, KeyRefused, UsageError
from edged.placing import SHARED, Placing, replace_like
from edged.trust.agreement import Agreement, open_agreement

# Strings and comments, in which nothing is structure.
_OPAQUE = re.compile(r'"""(?:\\.|[^\\])*?"""|\'\'\'.*?\'\'\'|"(?:\\.|[^"\\\n])*"|\'[^\'\n]*\'|#[^\n]*', re.S)
_STRING, _COMMENT = "\1", "\2"


def configured(folder: str) -> List[Agreement]:
    """The agreements of the folder's subscriber, the one in force first. Raises what reading raises."""
    return _listed_by(cityconfig.load(os.path.join(folder, cityconfig.FILE)))


def retire(folder: str) -> Tuple[List[str], List[str]]:
    """Take away the former keys of dropped agreements that no configuration in the folder needs, be it a subscriber's,
    whatever its file is called, or a key server's; the files that went, and those that stay though none needs them:
    no dropped agreement named them, so one that was signed and not adopted yet may.

    Raises what reading raises, KeyRefused (no former key may go), SpoolError, OSError.
    """
    agreements: List[Agreement] = []
    owed: List[bytes] = []
    for config in _subscribers(folder):
        agreements += _listed_by(config)
        owed += _owed_keys(config)
    for path, root in _tables(folder):
        if "agreement" in root and "agreements" not in root:
            agreements.append(open_agreement(read_file(str(root.file("agreement")))))
    return keys.retire(folder, agreements, dropped.read(folder), owed)


def _tables(folder: str) -> Iterator[Tuple[str, strict.Table]]:
    for path in sorted(Path(os.path.abspath(folder)).glob("*.toml")):
        yield path.name, strict.read(str(path))


def _subscribers(folder: str) -> List[CityConfig]:
    """That of subscriber.toml, and those of other recipients or journals, whatever their files are called."""
    folder = os.path.abspath(folder)
    first = cityconfig.load(os.path.join(folder, cityconfig.FILE))
    return [first] + [cityconfig.load(os.path.join(folder, name)) for name, root in _tables(folder)
                      if "agreements" in root and name != cityconfig.FILE]


def _owed_keys(config: CityConfig) -> List[bytes]:
    """Ids of the keys of records that were taken and not passed on yet."""
    if not config.journal.exists():
        return []
    with Journal(str(config.journal), config.keep_rows) as journal:
        return [split_record(entry.sealed)[0].kid for _, entry in journal.untaken() if entry.sealed is not None]


class Adopted(NamedTuple):
    """files : names of the configurations that have the agreement new. left : of those that it is not for, and why"""

    agreement: Agreement
    files: List[str]
    left: List[str]


def adopt(folder: str, signed: bytes) -> Adopted:
    """Have every subscriber of the folder whose recipient it names take records under this agreement, too. It is to
    follow the one in force, or, where its number is lower, to be taken beside it. Those before go on until they are
    dropped.

    Raises what reading raises, VerificationFailed (signatures, parties), UsageError (its number), KeyRefused (keys that
    are not in the folder, or were replaced), ConfigError (a configuration cannot be edited); then nothing was changed.
    """
    configs = _subscribers(folder)
    agreement = open_agreement(signed, configs[0].mo, configs[0].qdo)
    edits: List[Tuple[CityConfig, str]] = []
    left = []
    for config in configs:
        why = _not_for(config, agreement) if config is not configs[0] else ""
        if why:
            left.append("{}: {}".format(config.path.name, why))
        elif agreement.digest not in [one.digest for one in _listed_by(config)]:
            edits.append((config, _adopted(folder, config, agreement)))
    if edits:
        placing = Placing()
        placing.add(os.path.join(folder, keys.agreement_file(agreement)), signed, SHARED)
        _write(edits, placing.commit())
    return Adopted(agreement, [config.path.name for config, _ in edits], left)


def _not_for(config: CityConfig, agreement: Agreement) -> str:
    if (config.mo, config.qdo) != (agreement.mo, agreement.qdo):
        return "is for agreements of other parties"
    if named_key(agreement, config.recipient) is None:
        return "agreement {} does not name its recipient {}".format(agreement.number, config.recipient.hex())
    return ""


def _adopted(folder: str, config: CityConfig, agreement: Agreement) -> str:
    """What the configuration becomes."""
    listed = _listed_by(config)
    if agreement.number in [one.number for one in listed]:
        raise UsageError("agreement {}: another one of this number is in {}: both parties sign one with a higher "
                         "number".format(agreement.number, config.path))
    place = max((at + 1 for at, one in enumerate(listed) if one.number > agreement.number), default=0)
    mine = _own_key(folder, config, agreement)
    former = [one.alert_key_id for one in config.former]
    if place == 0 and mine.key_id in former:
        raise KeyRefused("agreement {}: names alert key {}, which was replaced: draw new ones with `edged-city keys "
                         "renew`".format(agreement.number, mine.key_id.hex()))
    file = keys.agreement_file(agreement)
    wanted = replace(config, agreements=config.agreements[:place] + (config.path.parent / file,)
                     + config.agreements[place:])
    text = _with_agreement(_text(config), config, file, place)
    if place and mine.key_id not in former + [config.alert_key_id]:
        wanted = replace(wanted, former=config.former + (FormerKey(config.path.parent / mine.file, mine.key_id),))
        text = _with_former(text, 'alert_key = "{}"\nalert_key_id = "{}"\n'.format(mine.file, mine.key_id.hex()))
    elif place == 0 and mine.key_id != config.alert_key_id:
        wanted = replace(wanted, alert_key=config.path.parent / mine.file, alert_key_id=mine.key_id,
                         former=config.former + (FormerKey(config.alert_key, config.alert_key_id),))
        text = _with_key(text, config, mine)
    _checked(text, wanted)
    return text


def drop(folder: str, number: int, lose: Sequence[str] = ()) -> Tuple[List[str], int]:
    """Have every subscriber of the folder take no more records under an agreement that ended: the names of their files,
    and how many records that may be of it are missing. lose : names of nodes whose records under it are given up.

    Raises what reading raises, SpoolError, UsageError (not listed, or the one in force; no node of that name),
    KeyRefused (records of it may lie on a node, or were not passed on), ConfigError (a configuration cannot be edited);
    then nothing was changed.
    """
    everyone = [(config, _listed_by(config)) for config in _subscribers(folder)]
    gone = next((one for _, listed in everyone for one in listed if one.number == number), None)
    if gone is None:
        raise UsageError("agreement {}: is not in {}".format(number, ", nor in ".join("{}, which has {}".format(
            config.path, ", ".join(str(one.number) for one in listed)) for config, listed in everyone)))
    concerned = [(config, listed) for config, listed in everyone if gone.digest in [one.digest for one in listed]]
    ending.require_nodes([config for config, _ in concerned], lose)
    edits, missing = [], 0
    for config, listed in concerned:
        if listed[0].digest == gone.digest:
            raise UsageError("agreement {}: is in force: `edged-city adopt` the one that follows first ({})".format(
                number, config.path.name))
        rest = [one for one in listed if one.digest != gone.digest]
        missing += _missing(config, gone, rest, lose)
        edits.append((config, _dropped(config, gone, rest, listed.index(gone))))
    dropped.add(folder, gone, str(everyone[0][0].path))
    _write(edits)
    return [config.path.name for config, _ in edits], missing


def _missing(config: CityConfig, gone: Agreement, rest: Sequence[Agreement], lose: Sequence[str]) -> int:
    try:
        return ending.require_ended(config, gone, rest, lose)
    except KeyRefused as refused:
        if config.path.name == cityconfig.FILE:
            raise
        raise KeyRefused("\n".join("{}: {}".format(config.path.name, line)
                                   for line in str(refused).splitlines())) from refused


def _dropped(config: CityConfig, gone: Agreement, rest: Sequence[Agreement], place: int) -> str:
    """What the configuration becomes."""
    text = _without_agreement(_text(config), config, place)
    wanted = replace(config, agreements=config.agreements[:place] + config.agreements[place + 1:])
    key_id = named_key(gone, config.recipient)
    if key_id not in [named_key(one, config.recipient) for one in rest]:
        wanted = replace(wanted, former=tuple(one for one in config.former if one.alert_key_id != key_id))
        for at in reversed([at for at, one in enumerate(config.former) if one.alert_key_id == key_id]):
            text = _without_former(text, at)
    _checked(text, wanted)
    return text


def _write(edits: Sequence[Tuple[CityConfig, str]], placed: Sequence[str] = ()) -> None:
    """All of them, or none, and none of what was placed for them. Who is killed has the same command do the rest."""
    before = [(str(config.path), _text(config), text) for config, text in edits]
    try:
        for path, _, text in before:
            replace_like(path, text.encode("utf-8"), path)
    except BaseException:
        for path, old, text in before:
            if read_file(path) == text.encode("utf-8"):
                replace_like(path, old.encode("utf-8"), path)
        for one in placed:
            os.unlink(one)
        raise


def _text(config: CityConfig) -> str:
    return read_file(str(config.path)).decode("utf-8")


def _listed_by(config: CityConfig) -> List[Agreement]:
    return [open_agreement(read_file(str(path)), config.mo, config.qdo) for path in config.agreements]


def _own_key(folder: str, config: CityConfig, agreement: Agreement) -> KeyFile:
    """The subscriber's. All that the agreement names have to be here: the city must be able to grant them."""
    public, files = keys.read_public(folder), keyfiles.read_all(folder)
    names: Mapping[bytes, str] = {one.rcpt: one.name for one in public.recipients}
    keyfiles.choose(files, folder, agreement.data_key, None).read()
    mine = None
    for one in agreement.recipients:
        if one.rcpt not in names:
            raise KeyRefused("agreement {}: recipient {} is none of {}".format(
                agreement.number, one.rcpt.hex(), os.path.join(folder, keys.PUBLIC_FILE)))
        found = keyfiles.choose(files, folder, one.alert_key, names[one.rcpt])
        found.read()
        mine = found if one.rcpt == config.recipient else mine
    if mine is None:
        raise KeyRefused("agreement {}: does not name recipient {}, whose subscriber this is".format(
            agreement.number, config.recipient.hex()))
    return mine


# ------------------------------------------------------------------------------------------------ subscriber.toml


def _checked(text: str, wanted: CityConfig) -> None:
    try:
        found = cityconfig.parse(str(wanted.path), text.encode("utf-8"))
    except ConfigError:
        found = None
    if found != wanted:
        raise _by_hand(wanted.path)


def _by_hand(path: Path) -> ConfigError:
    return ConfigError("{}: is written in a way that this command cannot edit: one line each for alert_key and "
                       "alert_key_id, and agreements as a list of strings, are needed".format(path))


def _masked(text: str) -> str:
    """As long as the text, strings and comments made unreadable."""
    def unreadable(token: Any) -> str:
        found = token.group()
        return (_COMMENT if found.startswith("#") else _STRING) * len(found)

    return _OPAQUE.sub(unreadable, text)


def _value(text: str, key: str, form: str) -> Tuple[int, int]:
    """Where the value of a key of the root table stands; (0, 0) where it is not found in this form."""
    masked = _masked(text)
    root = re.search(r"(?m)^[ \t]*\[", masked)
    found = re.compile(r"(?m)^[ \t]*{}[ \t]*=[ \t]*({})".format(key, form)).search(
        masked, 0, root.start() if root else len(masked))
    return found.span(1) if found else (0, 0)


def _with_agreement(text: str, config: CityConfig, file: str, place: int) -> str:
    begin, end = _value(text, "agreements", r"\[[^]]*\]")
    if begin == end:
        return text
    if place == 0:
        return '{}["{}", {}'.format(text[:begin], file, text[begin + 1:])
    at = begin + _listed(text, config, begin, end)[place - 1].end()
    return '{}, "{}"{}'.format(text[:at], file, text[at:])


def _listed(text: str, config: CityConfig, begin: int, end: int) -> List[Any]:
    """Where each agreement's string stands, from ``begin`` on."""
    strings = list(re.finditer(_STRING + "+", _masked(text)[begin:end]))
    if len(strings) != len(config.agreements):
        raise _by_hand(config.path)
    return strings


def _with_key(text: str, config: CityConfig, mine: KeyFile) -> str:
    former = ""
    for key, value in (("alert_key", mine.file), ("alert_key_id", mine.key_id.hex())):
        begin, end = _value(text, key, _STRING + "+")
        former += "{} = {}\n".format(key, text[begin:end])
        text = '{}"{}"{}'.format(text[:begin], value, text[end:])
    return _with_former(text, former)


def _with_former(text: str, former: str) -> str:
    return "{}{}\n[[former]]\n{}".format(text, "" if text.endswith("\n") else "\n", former)


def _without_agreement(text: str, config: CityConfig, place: int) -> str:
    begin, end = _value(text, "agreements", r"\[[^]]*\]")
    first, last = (begin + at for at in _listed(text, config, begin, end)[place].span())
    comma = re.compile(r"[ \t]*,[ \t]*").match(_masked(text), last)
    if comma is None:  # the last one goes with the comma before it; it is never the only one
        before = _masked(text).rindex(",", begin, first)
        return text[:before] + text[before + 1:first].rstrip(" \t") + text[last:]
    return text[:first] + text[comma.end():]


def _without_former(text: str, place: int) -> str:
    masked = _masked(text)
    headers = list(re.finditer(r"(?m)^[ \t]*\[\[[ \t]*former[ \t]*\]\].*$", masked))
    if place >= len(headers):
        return text
    after = re.compile(r"(?m)^[ \t]*\[").search(masked, headers[place].end())
    begin, end = headers[place].start(), after.start() if after else len(text)
    kept = "".join(line for line in text[begin:end].splitlines(True)[1:]
                   if not re.match(r"[ \t]*alert_key(_id)?[ \t]*=", line))
    return text[:begin].rstrip("\n") + "\n" + kept.strip("\n") + ("\n" if kept.strip("\n") else "") + (
        "\n" + text[end:] if after else "")
