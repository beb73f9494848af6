"""CBOR in its one deterministic form (RFC 8949, 4.2.1), and typed fields out of what it holds.

Nothing else is taken: what is decoded must encode to the same bytes again. No item has a tag: the library makes values
of other types of tagged ones, and of a shared one (tag 29) as many as 200 bytes can name, which is any number. Every
error is a PackageError that names what was read and the field that is wrong.
"""

from typing import Any, Callable, Collection, Dict, List, Mapping, Optional, Union

import cbor2

from edged.errors import PackageError

UINT32 = (1 << 32) - 1
DEPTH_MAX = 16  # of containers in one another; the deepest that is written has five
_BYTES, _TEXT, _ARRAY, _MAP, _TAG = 2, 3, 4, 5, 6  # major types
_SHOWN = 120  # characters of a wrong value that an error quotes


def encode(value: Any) -> bytes:
    return cbor2.dumps(value, canonical=True)


def decode(encoded: bytes, what: str, kind: str = "map") -> Any:
    """The one item that these bytes are; ``kind`` is for the error alone. Raises PackageError."""
    odd = _oddity(encoded)
    if odd is not None:
        raise PackageError("{} is not CBOR: {}".format(what, odd))
    try:
        decoded = cbor2.loads(encoded)
        again = encode(decoded)
    except Exception as error:  # cbor2's own errors differ between its releases
        raise PackageError("{} is not CBOR: {}".format(what, one_line(error))) from error
    if again != encoded:
        raise PackageError("{} is not a canonical CBOR {}".format(what, kind))
    return decoded


def _oddity(encoded: bytes) -> Optional[str]:
    """What the library need not see: who announces more than there is, nests without end, or tags."""
    at, left = 0, [1]  # items that each open container still waits for
    while left:
        if left[-1] == 0:
            left.pop()
            continue
        left[-1] -= 1
        if at == len(encoded):
            return "it ends too early"
        major, short = encoded[at] >> 5, encoded[at] & 31
        at += 1
        if short > 27:
            return "a length that is not told at the start"
        size = 1 << short - 24 if short >= 24 else 0
        value = int.from_bytes(encoded[at:at + size], "big") if size else short
        at += size
        if major == _TAG:
            return "a tag"
        if major in (_BYTES, _TEXT):
            at += value
        elif major in (_ARRAY, _MAP):
            left.append(value * (2 if major == _MAP else 1))
        if at > len(encoded) or left[-1] > len(encoded) - at:
            return "it ends too early"
        if len(left) > DEPTH_MAX:
            return "more than {} levels".format(DEPTH_MAX)
    return None


def one_line(value: Any) -> str:
    """Of an error or a value, printable and short: what a stranger sent may be neither."""
    text = " ".join(str(value).split())
    text = "".join(character if character.isprintable() else "?" for character in text[:_SHOWN + 1])
    return text if len(text) <= _SHOWN else text[:_SHOWN - 4] + " ..."


def _shown(value: Any) -> str:
    """As the sender would write it."""
    return one_line(repr(value))


def fields(value: Any, names: Union[Collection[str], Mapping[int, str]], what: str,
           optional: Collection[str] = ()) -> "Fields":
    """Of a decoded map with exactly these keys; whole numbers are given as {number: name}, as errors name them.

    Raises PackageError, also where a key is of another type (1.0 and True are 1 to Python).
    """
    if type(value) is not dict:
        raise PackageError("{} is not a canonical CBOR map".format(what))
    known: Dict[Any, str] = dict(names) if isinstance(names, Mapping) else {name: name for name in names}
    kinds = {type(key) for key in known}
    found = {known[key]: entry for key, entry in value.items() if type(key) in kinds and key in known}
    odd = [one_line(key) for key in value if type(key) not in kinds or key not in known]
    odd += [name for name in known.values() if name not in found and name not in optional]
    if odd:
        raise PackageError("{}: fields missing or unknown: {}".format(what, one_line(", ".join(sorted(odd)))))
    return Fields(found, what)


class Fields:
    """Takes typed values out of a decoded map or row, naming the one that is wrong."""

    def __init__(self, values: Dict[str, Any], what: str) -> None:
        self._values, self.what = values, what

    @classmethod
    def of_row(cls, row: Any, names: str, what: str) -> "Fields":
        """Of a list, whose places have these names."""
        parts = names.split()
        if type(row) is not list or len(row) != len(parts):
            raise PackageError("{}: {} is not a list of {}".format(what, _shown(row), ", ".join(parts)))
        return cls(dict(zip(parts, row)), what)

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def take(self, name: str, kind: type, holds: Callable[[Any], bool], rule: str) -> Any:
        value = self._values[name]
        if type(value) is not kind or not holds(value):
            raise PackageError("{}: {} is {}, must be {}".format(self.what, name, _shown(value), rule))
        return value

    def form(self, form: str) -> None:
        """The field "form" is this one."""
        self.take("form", str, lambda v: v == form, repr(form))

    def uint(self, name: str, low: int = 0, high: int = UINT32) -> int:
        return self.take(name, int, lambda v: low <= v <= high, "an integer {}..{}".format(low, high))

    def flag(self, name: str) -> bool:
        return self.take(name, bool, lambda v: True, "true or false")

    def octets(self, name: str, low: int, high: int = 0) -> bytes:
        """``low`` bytes, or as many as up to ``high`` where that is given."""
        rule = "{}..{} bytes".format(low, high) if high else "{} bytes".format(low)
        return self.take(name, bytes, lambda v: low <= len(v) <= (high or low), rule)

    def text(self, name: str, most: int) -> str:
        return self.take(name, str, lambda v: 1 <= len(v.encode("utf-8")) <= most, "text of 1..{} bytes".format(most))

    def choice(self, name: str, choices: Collection[str]) -> str:
        return self.take(name, str, lambda v: v in choices, "one of {}".format(", ".join(choices)))

    def list(self, name: str, size: int) -> List[Any]:
        return self.take(name, list, lambda v: len(v) == size, "a list of {}".format(size))

    def rows(self, name: str, low: int, high: int) -> List[Any]:
        return self.take(name, list, lambda v: low <= len(v) <= high, "a list of {}..{}".format(low, high))

    def fields(self, name: str, names: Union[Collection[str], Mapping[int, str]],
               optional: Collection[str] = ()) -> "Fields":
        """Of a map within this one."""
        return fields(self._values[name], names, "{}: {}".format(self.what, name), optional)
