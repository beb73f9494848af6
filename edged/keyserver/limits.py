"""How often somebody may ask: a bucket of tokens each, which fills again at a steady rate."""

import ipaddress
from collections import OrderedDict
from typing import Hashable, Optional, Tuple

KEPT = 1 << 16  # of those who asked lately: at 200 bytes each, 13 MiB


class Buckets:
    """count : at once, and again in each ``period_s``"""

    def __init__(self, count: int, period_s: float, kept: int = KEPT) -> None:
        self._count, self._per_s, self._kept = count, count / period_s, kept
        # Who has not asked for longest stands first, and is forgotten first.
        self._levels: "OrderedDict[Hashable, Tuple[float, float]]" = OrderedDict()

    def take(self, who: Hashable, now_s: float) -> float:
        """0 where a token was there and is taken now, else the seconds until there is one. now_s : of a monotonic
        clock"""
        level, at_s = self._levels.pop(who, (float(self._count), now_s))
        level = min(self._count, level + (now_s - at_s) * self._per_s)
        wait_s = 0.0 if level >= 1 else (1 - level) / self._per_s
        self._levels[who] = (level if wait_s else level - 1, now_s)
        if len(self._levels) > self._kept:
            self._levels.popitem(last=False)
        return wait_s


def network_of(address: Optional[str]) -> str:
    """Whom an address stands for: of IPv6 its /64, which one customer has to himself."""
    return _network(address, 64, 32)


def neighbourhood_of(address: Optional[str]) -> str:
    """What one customer may have in all: of IPv6 a /48, of IPv4 a /24."""
    return _network(address, 48, 24)


def _network(address: Optional[str], bits_6: int, bits_4: int) -> str:
    try:
        found = ipaddress.ip_address((address or "").partition("%")[0])
    except ValueError:
        return ""
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    bits = bits_6 if isinstance(found, ipaddress.IPv6Address) else bits_4
    if bits == found.max_prefixlen:
        return str(found)
    return str(ipaddress.ip_network((int(found), bits), strict=False))
