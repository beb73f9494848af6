"""Which kernel is the fastest for which product, kept over restarts of the process.

A file of JSON: {"of": what it was measured on, "fastest": {"2 300 300 18 64 64 9 1 4": "tensor"}}. It decides speed
alone, and is never needed: what is damaged, was measured elsewhere or cannot be written is measured again.
"""

import json
import logging
from pathlib import Path
from typing import Dict, Optional, Tuple

from edged.offload import cubins
from edged.placing import replace_file

log = logging.getLogger(__name__)

PRODUCTS_MAX = 1024


class Choices:
    """of : chip, driver and kernels, in words; with others nothing is remembered      capability : the chip's"""

    def __init__(self, path: Optional[Path], of: str, capability: int) -> None:
        self._path, self._of, self._capability = path, of, capability
        self._fastest = {} if path is None else _read(path, of)

    def of(self, product: Tuple[int, ...]) -> Optional[str]:
        """A kernel's name; None where none was measured.

        product : the kernels' nine numbers, taps at 6, channels at 4
        """
        name = self._fastest.get(_key(product))
        return name if name in cubins.able(product[6], product[4], self._capability) else None

    def keep(self, product: Tuple[int, ...], seconds: Dict[str, float]) -> str:
        """The fastest by these times, from now on."""
        name = min(seconds, key=lambda one: seconds[one])
        if len(self._fastest) >= PRODUCTS_MAX:
            self._fastest.clear()
        self._fastest[_key(product)] = name
        if self._path is not None:
            try:
                kept = json.dumps({"of": self._of, "fastest": self._fastest}, indent=1) + "\n"
                replace_file(self._path, kept.encode("utf-8"))
            except OSError as error:
                log.info("%s: %s: kernels are measured again next time", self._path, error.strerror)
        return name


def _key(product: Tuple[int, ...]) -> str:
    return " ".join(map(str, product))


def _read(path: Path, of: str) -> Dict[str, str]:
    try:
        found = json.loads(path.read_text("utf-8"))
        if found["of"] != of:
            return {}
        return {str(product): str(name) for product, name in list(found["fastest"].items())[:PRODUCTS_MAX]}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        log.info("%s: not what was written there (%s): kernels are measured again", path, error)
        return {}
