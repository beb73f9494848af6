"""Inputs that are nearly right: what a valid one becomes when bytes, CBOR, or DER are broken in a few places.

``octets`` breaks bytes, ``cbor`` the items of one CBOR item, which it then writes in whatever form, ``text`` a text.
All draw from a random.Random that the caller has seeded: the same seed makes the same inputs.
"""

import struct

import cbor2

BITS_64 = 1 << 64
NUMBERS = (0, 1, 2, 7, 8, 15, 16, 17, 23, 24, 31, 32, 33, 63, 64, 65, 127, 128, 255, 256, 511, 512, 513, 1439, 1440,
           65535, 65536, 65537, 86400, 86401, 1000000, 1000001, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 32,
           (1 << 53) - 1, 1 << 53, (1 << 63) - 1, 1 << 63, BITS_64 - 1)
NAMES = ("", "v", "form", "kind", "falling", "\0", "\n", "\x1b[2J", "\u202e", "\U0001f600", "x" * 32, "x" * 33,
         "x" * 64, "x" * 65, "\xe9" * 32)
DEPTH = 500  # above what any decoder takes


class Raw(bytes):
    """One item's bytes, in whatever form."""


class Pairs(list):
    """A map as it stands: in this order, keys twice if they are."""


# ------------------------------------------------------------------- CBOR ---


def head(major, value, size=None):
    """size : bytes of the argument; the shortest where none is given"""
    if size is None:
        size = 0 if value < 24 else next(size for size in (1, 2, 4, 8) if value < 1 << 8 * size)
    if size == 0:
        return bytes([major << 5 | value])
    return bytes([major << 5 | {1: 24, 2: 25, 4: 26, 8: 27}[size]]) + value.to_bytes(size, "big")


def encode(item):
    """A tree of ``tree``; canonical where nothing in it was broken."""
    if isinstance(item, Raw):
        return bytes(item)
    if isinstance(item, Pairs):
        return head(5, len(item)) + b"".join(encode(key) + encode(value) for key, value in item)
    if isinstance(item, list):
        return head(4, len(item)) + b"".join(map(encode, item))
    if isinstance(item, str):
        return head(3, len(item.encode())) + item.encode()
    return cbor2.dumps(item, canonical=True)


def tree(encoded):
    """Of a valid item."""
    def convert(item):
        if isinstance(item, dict):
            return Pairs((key, convert(value)) for key, value in item.items())
        return [convert(one) for one in item] if isinstance(item, list) else item
    return convert(cbor2.loads(encoded))


def _places(item, found, parent=None, index=None):
    """Every item, as (what holds it, its index there)."""
    found.append((parent, index))
    if isinstance(item, Pairs):
        for place, (_, value) in enumerate(item):
            _places(value, found, item, place)
    elif isinstance(item, list):
        for place, value in enumerate(item):
            _places(value, found, item, place)
    return found


def _get(root, parent, index):
    return root if parent is None else parent[index][1] if isinstance(parent, Pairs) else parent[index]


def _put(parent, index, value):
    parent[index] = (parent[index][0], value) if isinstance(parent, Pairs) else value


def _number(random, value):
    """Near it, or at the edge of a range."""
    return random.choice((value + 1, max(0, value - 1), -1 - value, random.choice(NUMBERS), -random.choice(NUMBERS)))


def _octets(random, value):
    return random.choice((value + b"\0", b"\0" + value, value[:-1], bytes(len(value)), b"", octets(random, value),
                          value * 2, random.getrandbits(8 * max(1, len(value))).to_bytes(max(1, len(value)), "big")))


def _alike(random, item):
    """Another value of the same type, in its one form."""
    if isinstance(item, bool):
        return not item
    if isinstance(item, int):
        return _number(random, item)
    if isinstance(item, bytes):
        return _octets(random, item)
    if isinstance(item, str):
        return random.choice((item + "x", item[:-1], item.upper(), random.choice(NAMES), item * 9))
    if isinstance(item, Pairs):
        return _rearranged(random, Pairs(item))
    if isinstance(item, list):
        return random.choice((item[:-1], item + item[-1:], list(reversed(item)), [], item * 9))
    return 0


def _rearranged(random, pairs):
    """A field less, more or renamed; in canonical order or another; one twice."""
    what = random.randrange(6)
    if not pairs or what == 0:
        pairs.append((random.choice(NAMES + NUMBERS), 0))
    elif what == 1:
        del pairs[random.randrange(len(pairs))]
    elif what == 2:
        at = random.randrange(len(pairs))
        pairs[at] = (_alike(random, pairs[at][0]), pairs[at][1])
    elif what == 3:
        random.shuffle(pairs)
        return pairs
    elif what == 4:
        pairs.append(random.choice(pairs))
    else:
        at = random.randrange(len(pairs))
        pairs.insert(at, pairs[at])
    if random.random() < 0.7:
        pairs.sort(key=lambda pair: (len(encode(pair[0])), encode(pair[0])))
    return pairs


def _misshapen(random, item):
    """The item's bytes in a form that is not the one, or announcing what is not there."""
    encoded = encode(item)
    major, size = encoded[0] >> 5, len(item) if isinstance(item, (bytes, str, list)) else 0
    if isinstance(item, str):
        size = len(item.encode())
    value = item if isinstance(item, int) and 0 <= item < BITS_64 else size
    shortest = len(head(major, value)) if major < 6 else 1
    body = encoded[shortest:]
    huge = random.choice((1 << 16, 1 << 24, 1 << 28, (1 << 32) - 1, 1 << 40, BITS_64 - 1))
    tag = random.choice((0, 1, 2, 3, 4, 5, 24, 25, 28, 29, 30, 35, 36, 37, 98, 100, 256, 258, 260, 261, 1004, 55799))
    return Raw(random.choice((
        head(min(major, 5), value, random.choice([size for size in (1, 2, 4, 8) if value < 1 << 8 * size])) + body,
        bytes([major << 5 | 31]) + body + b"\xff",                        # without a length
        bytes([major << 5 | random.randrange(28, 31)]) + body,            # reserved
        head(min(major, 5), huge) + body,
        head(6, tag) + encoded,
        head(6, 2) + head(2, max(1, shortest)) + value.to_bytes(8, "big")[-max(1, shortest):],  # as a bignum
        head(6, 28) + head(4, 2) + head(6, 29) + b"\0" + encoded,         # holds itself
        head(random.choice((2, 3, 4)), size) + body,                      # of another type
        b"\x62\xc3\x28" + b"\x61\x80" * random.randrange(2),              # no UTF-8
        b"\x63\xed\xa0\x80",                                              # a surrogate
        b"\x81" * DEPTH + encoded, b"\xa1\0" * DEPTH + encoded, b"\xc6" * DEPTH + encoded,
        b"\xf6", b"\xf7", b"\xf4", b"\xf5", b"\xe0", b"\xf8\xff", b"\xff",
        b"\xf9\x7e\0", b"\xf9\x7c\0", b"\xfb\x7f\xf8\0\0\0\0\0\1", b"\xf9\x3c\0",
        b"\xfb" + struct.pack(">d", float(min(value, 1 << 53))),
    )))


def bomb(levels):
    """A list of shared values, each of which names the one before it twice: 2^levels of them, once written out."""
    twice = [head(6, 28) + head(4, 2) + 2 * (head(6, 29) + head(0, at)) for at in range(levels)]
    return head(4, levels + 1) + head(6, 28) + head(4, 0) + b"".join(twice)


def cbor(random, encoded, most=3):
    """A valid item, broken in one to ``most`` places; mostly such that it is in its one form and says something else.
    """
    root = tree(encoded)
    for _ in range(random.randint(1, most)):
        parent, index = random.choice(_places(root, []))
        item = _get(root, parent, index)
        if isinstance(item, Raw):
            continue
        kind = random.random()
        made = _alike(random, item) if kind < 0.8 else _misshapen(random, item) if kind < 0.98 else Raw(bomb(60))
        if parent is None:
            root = made
        else:
            _put(parent, index, made)
        if isinstance(root, Raw):
            break
    return encode(root)


# ------------------------------------------------------------------ bytes ---


def octets(random, valid, other=b""):
    """Bits flipped, cut, spliced with another valid one, lengthened. other : to be spliced with"""
    made = bytearray(valid)
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        at, what = random.randrange(len(made) + 1), random.randrange(9)
        if what <= 3 and made:
            made[at % len(made)] ^= 1 << random.randrange(8)
        elif what == 4 and made:
            made[at % len(made)] = random.choice((0, 1, 0x7f, 0x80, 0xff, random.randrange(256)))
        elif what == 5:
            del made[at:at + random.choice((1, 1, 2, 4, 64, len(made)))]
        elif what == 6:
            made[at:at] = bytes(random.randrange(256) for _ in range(random.choice((1, 2, 8, 64))))
        elif what == 7 and other:
            begin = random.randrange(len(other))
            made[at:] = other[begin:] if random.random() < 0.5 else other[at:]
        else:
            made += random.choice((b"\0", b"\xff", bytes(valid[:16]), bytes(64)))
    return bytes(made)


def text(random, valid):
    """A text whose lines, words, numbers are exchanged, doubled, left out; or its bytes broken."""
    if random.random() < 0.2:
        return octets(random, valid)
    lines = valid.decode().split("\n")
    for _ in range(random.choice((1, 1, 2))):
        at, what = random.randrange(len(lines)), random.randrange(7)
        if what == 0:
            lines.insert(at, random.choice(lines))
        elif what == 1 and len(lines) > 1:
            del lines[at]
        elif what == 2:
            other = random.randrange(len(lines))
            lines[at], lines[other] = lines[other], lines[at]
        else:
            words = lines[at].split(" ")
            words[random.randrange(len(words))] = random.choice((
                "", "=", "0", "-1", "true", "[]", "{}", '""', "1e400", "nan", "0x10", "1_0", str(1 << 64), "9" * 5000,
                '"' + "ab" * 16 + '"', '"\\u0000"', '"\\ud800"', "\u202e", "1979-05-27T07:32:00Z", "[" * DEPTH,
                '"\u202e"', '"\x7f"', "'\x1b[2J'", "\x7f",
                "a." * DEPTH + "b", "#", "'''", '"1970-01-01T00:00:00Z"', '"2106-02-07T06:28:15Z"', "0.00002", "1.0",
                '"00:00-24:00"', '"masked"', '"test"') + tuple(map(str, NUMBERS)))
            lines[at] = " ".join(words)
    return "\n".join(lines).encode("utf-8", "surrogatepass")
