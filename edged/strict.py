"""One TOML file, read strictly: an unknown key, a wrong type, a value out of range is an error with its line.

Raises MissingInput where the file is absent, KeyRefused where it may not be read, and ConfigError for all
that is wrong in it: ``FILE:LINE: table.key: what is wrong: what to do``.
"""

import difflib
import json
import math
import os
import re
import sys
from pathlib import Path
from typing import Any, Collection, Dict, List, Optional, Tuple

from edged import canonical
from edged.errors import ConfigError, KeyRefused, MissingInput

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# Of cameras, nodes and subscribers: 32 bytes on the wire, one of them zero; an argument of a command, a socket's
# identity, an instance of a systemd unit.
NAME = r"[a-z0-9][a-z0-9-]{0,30}"

Where = Tuple[str, ...]

_TOKEN = re.compile(r'"""(?:\\.|[^\\])*?"""|\'\'\'.*?\'\'\'|"(?:\\.|[^"\\\n])*"|\'[^\'\n]*\'|#[^\n]*', re.S)
_PART = r"(?:[A-Za-z0-9_-]+|\"(?:\\.|[^\"\\])*\"|'[^']*')"
_KEY = r"{0}(?:[ \t]*\.[ \t]*{0})*".format(_PART)
_HEADER = re.compile(r"[ \t]*(\[\[?)[ \t]*({})[ \t]*\]\]?[ \t\r]*$".format(_KEY))
_ASSIGNED = re.compile(r"[ \t]*({})[ \t]*=".format(_KEY))
_AT_LINE = re.compile(r" \(at line (\d+), column \d+\)$")
_MISSING = object()


def read(path: str, known: Optional[Collection[str]] = None) -> "Table":
    """The root table of a file; its keys are all in ``known``, where that is given."""
    path = os.path.abspath(path)
    try:
        with open(path, "rb") as file:
            data = file.read()
    except PermissionError as error:
        raise KeyRefused("{}: {}: run as a user who may read it".format(path, error.strerror)) from error
    except OSError as error:
        raise MissingInput("{}: {}".format(path, error.strerror)) from error
    return parse(path, data, known)


def parse(path: str, data: bytes, known: Optional[Collection[str]] = None) -> "Table":
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError("{}:{}: not UTF-8".format(path, data.count(b"\n", 0, error.start) + 1)) from error
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = _AT_LINE.search(str(error))
        line = int(found.group(1)) if found else text.rstrip("\n").count("\n") + 1
        raise ConfigError("{}:{}: not TOML: {}".format(path, line, _AT_LINE.sub("", str(error)))) from error
    except (ValueError, RecursionError) as error:  # of Python itself: thousands of digits, or of brackets
        raise ConfigError("{}: not TOML of this file: a number or a nesting without end".format(path)) from error
    return Table(path, _lines(text), (), values, known)


class Table:
    """One table; each method gives one value, judged. ``default`` makes a key optional."""

    def __init__(self, path: str, lines: Dict[Where, int], where: Where, values: Dict[str, Any],
                 known: Optional[Collection[str]]) -> None:
        self.path, self.where = path, where
        self._lines, self._values = lines, values
        if known is not None:
            self.require_known(known)

    def require_known(self, known: Collection[str]) -> None:
        for key in self._values:
            if key not in known:
                raise self.error(key, "unknown key" + _advice(key, known))

    def error(self, key: Optional[str], what: str) -> ConfigError:
        """To be raised by the caller: of a key of this table, or of the table."""
        where = self.where if key is None else self.where + (key,)
        return ConfigError("{}: {}".format(self.named(where), what))

    def named(self, where: Where) -> str:
        """FILE:LINE: table.key, of a key anywhere in the file (``#0`` is the first table of an array)."""
        # An inline table's keys have no line of their own: that of the table they are in.
        line = next((self._lines[where[:size]] for size in range(len(where), 0, -1) if where[:size] in self._lines), 1)
        shown = [part if re.fullmatch(r"[A-Za-z0-9_-]{1,80}", part) else canonical.one_line(json.dumps(part))
                 for part in where if not part.startswith("#")]
        return "{}:{}: {}".format(self.path, line, ".".join(shown))

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def text(self, key: str, default: Any = _MISSING, choices: Optional[Collection[str]] = None,
             pattern: Optional[str] = None, meaning: str = "") -> Any:
        """A string, not empty, without control characters; matching all of ``pattern``, which ``meaning`` explains."""
        value = self._value(key, default, str, "a string")
        if key not in self._values:
            return value
        if not value:
            raise self.error(key, "is empty")
        if any(not character.isprintable() for character in value):
            raise self.error(key, "{}: holds a control character".format(_shown(value)))
        if choices is not None and value not in choices:
            near = difflib.get_close_matches(value, choices, 1)
            raise self.error(key, "{}: one of {}{}".format(
                _shown(value), ", ".join(map(_shown, choices)), ": did you mean {}?".format(near[0]) if near else ""))
        if pattern is not None and not re.fullmatch(pattern, value):
            raise self.error(key, "{}: {}".format(_shown(value), meaning))
        return value

    def octets(self, key: str, size: int) -> bytes:
        """So many bytes, in hexadecimal."""
        meaning = "{} digits of 0-9, a-f".format(2 * size)
        return bytes.fromhex(self.text(key, pattern="[0-9a-f]{%d}" % (2 * size), meaning=meaning))

    def texts(self, key: str) -> List[str]:
        """A list of at least one string, none of them twice."""
        values = self._value(key, _MISSING, list, "a list of strings")
        if not values:
            raise self.error(key, "is empty: at least one")
        for index, value in enumerate(values):
            if not isinstance(value, str) or not value or not value.isprintable():
                raise self.error(key, "{}: a list of strings".format(_shown(value)))
            if value in values[:index]:
                raise self.error(key, "{}: is there twice".format(_shown(value)))
        return values

    def integer(self, key: str, default: Any = _MISSING, low: int = 0, high: int = (1 << 63) - 1) -> Any:
        value = self._value(key, default, int, "a whole number")
        return value if key not in self._values else self._in_range(key, value, low, high)

    def number(self, key: str, default: Any = _MISSING, low: float = 0.0, high: float = math.inf) -> Any:
        """A finite float; a whole number will do."""
        value = self._value(key, default, (int, float), "a number")
        if key not in self._values:
            return value
        if not math.isfinite(value):
            raise self.error(key, "{}: a finite number".format(value))
        return float(self._in_range(key, value, low, high))

    def flag(self, key: str, default: Any = _MISSING) -> Any:
        return self._value(key, default, bool, "true or false")

    def file(self, key: str, default: Any = _MISSING) -> Any:
        """An absolute path: a relative one is relative to the folder of the TOML file. Nothing is opened."""
        value = self.text(key, default)
        return value if key not in self._values else self.resolved(value)

    def files(self, key: str) -> Tuple[Path, ...]:
        return tuple(self.resolved(value) for value in self.texts(key))

    def resolved(self, path: str) -> Path:
        return Path(os.path.normpath(os.path.join(os.path.dirname(self.path), path)))

    def table(self, key: str, known: Collection[str], optional: bool = False) -> "Table":
        """A table; where it is ``optional`` and absent, an empty one."""
        values = self._value(key, {} if optional else _MISSING, dict, "a table")
        return Table(self.path, self._lines, self.where + (key,), values, known)

    def tables(self, key: str, known: Collection[str]) -> List[Tuple[str, "Table"]]:
        """The tables ``[key.NAME]``, at least one."""
        group = Table(self.path, self._lines, self.where + (key,), self._value(key, _MISSING, dict, "a table"), None)
        if not group._values:
            raise self.error(key, "is empty: at least one table [{}.NAME]".format(key))
        for name in group._values:
            if not re.fullmatch(NAME, name):
                raise group.error(name, "not a name: 1 to 31 of a-z, 0-9 and -, no - first")
        return [(name, group.table(name, known)) for name in group._values]

    def array(self, key: str, known: Collection[str], optional: bool = False) -> List["Table"]:
        """The tables ``[[key]]``, at least one unless ``optional``."""
        values = self._value(key, [] if optional else _MISSING, list, "tables [[{}]]".format(key))
        if not values and not optional:
            raise self.error(key, "is empty: at least one table [[{}]]".format(key))
        if not all(isinstance(one, dict) for one in values):
            raise self.error(key, "tables [[{}]] are needed here".format(key))
        return [Table(self.path, self._lines, self.where + (key, "#{}".format(index)), one, known)
                for index, one in enumerate(values)]

    def _value(self, key: str, default: Any, kind: Any, kind_name: str) -> Any:
        value = self._values.get(key, default)
        if value is _MISSING:
            raise self.error(key, "is missing")
        # bool is an int to Python
        if key in self._values and (not isinstance(value, kind) or isinstance(value, bool) != (kind is bool)):
            raise self.error(key, "{}: {} is needed here".format(_shown(value), kind_name))
        return value

    def _in_range(self, key: str, value: Any, low: Any, high: Any) -> Any:
        if not low <= value <= high:
            raise self.error(key, "{}: {}".format(
                value, "at least {:g}".format(low) if high in (math.inf, (1 << 63) - 1)
                else "from {:g} to {:g}".format(low, high)))
        return value


def _shown(value: Any) -> str:
    """On one line, and short."""
    text = json.dumps(value, default=str, ensure_ascii=False)
    if not text.isprintable():
        text = canonical.one_line(json.dumps(value, default=str))
    return text if len(text) <= 80 else text[:76] + " ..."


def _advice(key: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(key, known, 1)
    return ": did you mean {}?".format(near[0]) if near else ": known here: {}".format(", ".join(known))


def _lines(text: str) -> Dict[Where, int]:
    """Where each table and key stands, for tomllib does not say; ``#0`` is the first table of an array."""
    lines: Dict[Where, int] = {}
    counts: Dict[Where, int] = {}
    table: Where = ()
    bare = _TOKEN.sub(_without_lines, text)
    for number, line in enumerate(bare.split("\n"), 1):
        header, assigned = _HEADER.match(line), _ASSIGNED.match(line)
        if header:
            table = _indexed(_parts(header.group(2)), counts)
            if header.group(1) == "[[":
                counts[table] = counts.get(table, 0) + 1
                lines.setdefault(table, number)
                table += ("#{}".format(counts[table] - 1),)
            _note(lines, table, number)
        elif assigned:
            _note(lines, table + _parts(assigned.group(1)), number)
    return lines


def _without_lines(token: Any) -> str:
    found = token.group()
    if found.startswith("#"):
        return ""
    return "\n" * found.count("\n") if found.startswith(('"""', "'''")) else found


def _note(lines: Dict[Where, int], where: Where, number: int) -> None:
    for size in range(1, len(where) + 1):
        lines.setdefault(where[:size], number)


def _parts(key: str) -> Where:
    return tuple(json.loads(part) if part.startswith('"') else part.strip("'") for part in re.findall(_PART, key))


def _indexed(where: Where, counts: Dict[Where, int]) -> Where:
    """With the number of the array's table that a header is in."""
    made: Where = ()
    for position, part in enumerate(where):
        made += (part,)
        if made in counts and position + 1 < len(where):
            made += ("#{}".format(counts[made] - 1),)
    return made
