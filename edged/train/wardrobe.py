"""How somebody looks: build, skin, hair and clothes, drawn at random; the same look is the same person anywhere."""

from typing import NamedTuple, Tuple

import numpy as np

# Materials, by place in ``Look.colours`` and its fellows.
SKIN, HAIR, TOP, BOTTOM, SHOE, UNDER, EYE, IRIS, LIPS, HAT, BAG = range(11)
KINDS = 11

PLAIN, BANDS, STRIPES, CHECKS, PRINT, SPECKLED, HALVES, REFLECTING, BLOTCHED = range(9)

BALD, SHORT, FULL, LONG, TAIL, CURLY = range(6)
NO_HAT, CAP, BEANIE, HOOD, HELMET = range(5)
NO_BAG, BACKPACK, HANDBAG = range(3)

# Red, green, blue of skin in daylight, from fair to dark; between two neighbours everything occurs.
_SKIN = np.array([[241, 205, 184], [226, 182, 152], [203, 150, 116], [166, 113, 80], [120, 78, 54], [78, 51, 38]])
_HAIR = np.array([[28, 24, 22], [44, 32, 25], [75, 50, 33], [120, 84, 52], [178, 142, 96], [150, 148, 145],
                  [225, 222, 216], [110, 48, 26]])
# What people wear most is dark, blue, grey or white; the rest is any colour.
_CLOTH = np.array([[25, 25, 28], [45, 48, 55], [35, 45, 75], [60, 80, 115], [95, 100, 105], [150, 150, 150],
                   [225, 225, 220], [190, 175, 145], [110, 90, 65], [85, 95, 70]])
_VIVID = np.array([[235, 235, 60], [250, 140, 40], [200, 235, 70]])


class Look(NamedTuple):
    """colours, seconds : (KINDS, 3) red, green, blue 0..1      patterns : (KINDS,)      pitch : (KINDS,) metres

    girth, belly, shoulders, hips : factors of an average build
    sleeves, legs : covered share of arms and legs      skirt, coat : reach below the hips in thighs, 0 for none
    slack, flare : metres that top and trousers stand off
    """

    colours: np.ndarray
    seconds: np.ndarray
    patterns: np.ndarray
    pitch: np.ndarray
    girth: float
    belly: float
    shoulders: float
    hips: float
    sleeves: float
    legs: float
    skirt: float
    coat: float
    slack: float
    flare: float
    tucked: bool
    collar: bool
    hair: int
    hat: int
    bag: int
    folds: float
    offset: Tuple[int, int]  # of the folds


def _cloth(rng: np.random.Generator) -> np.ndarray:
    if rng.random() < 0.6:
        return np.clip(_CLOTH[rng.integers(len(_CLOTH))] * rng.uniform(0.8, 1.15) + rng.normal(0, 7, 3), 8, 240)
    hue, strength, light = rng.random(), rng.uniform(0.3, 0.9), rng.uniform(50, 235)
    wheel = np.clip(np.abs((hue + np.array([0, 2 / 3, 1 / 3])) % 1 * 6 - 3) - 1, 0, 1)
    return light * (1 - strength * (1 - wheel))


def _skin(rng: np.random.Generator) -> np.ndarray:
    place = rng.uniform(0, len(_SKIN) - 1.001)
    first, part = int(place), place % 1
    return np.clip((1 - part) * _SKIN[first] + part * _SKIN[first + 1] + rng.normal(0, 5, 3), 20, 250)


def random_look(rng: np.random.Generator) -> Look:
    """Anybody, dressed for any weather."""
    skin = _skin(rng)
    hair = np.clip(_HAIR[rng.integers(len(_HAIR))] * rng.uniform(0.8, 1.2), 10, 240)
    colours, patterns = np.zeros((KINDS, 3)), np.zeros(KINDS, int)
    top, bottom = _cloth(rng), _cloth(rng) * rng.uniform(0.5, 1.0)
    vest = rng.random() < 0.06
    if vest:
        top = _VIVID[rng.integers(len(_VIVID))].astype(float)
    colours[[SKIN, HAIR, TOP, BOTTOM, UNDER]] = skin, hair, top, bottom, _cloth(rng)
    colours[SHOE] = _cloth(rng) * rng.uniform(0.4, 1.0)
    colours[[EYE, IRIS, LIPS]] = [225, 222, 218], [35, 28, 25], skin * [0.78, 0.52, 0.52]
    colours[[HAT, BAG]] = _cloth(rng), _cloth(rng)
    if rng.random() < 0.45:
        patterns[TOP] = rng.choice([BANDS, STRIPES, CHECKS, PRINT, PRINT, SPECKLED, HALVES, BLOTCHED])
    if rng.random() < 0.12:
        patterns[BOTTOM] = rng.choice([STRIPES, CHECKS, SPECKLED, BLOTCHED])
    if vest:
        patterns[TOP] = REFLECTING
    seconds = np.stack([_cloth(rng) for _ in range(KINDS)])
    if vest:
        seconds[TOP] = 215
    robe = rng.random()
    covered = float(rng.choice([0.0, 0.22, 0.3, 0.5, 1.0, 1.0, 1.0]))
    return Look(
        colours / 255, seconds / 255, patterns, np.exp(rng.uniform(np.log(0.02), np.log(0.12), KINDS)),
        girth=float(np.clip(rng.normal(1.0, 0.1), 0.8, 1.3)), belly=float(np.clip(rng.normal(1.0, 0.15), 0.8, 1.5)),
        shoulders=rng.uniform(0.93, 1.08), hips=rng.uniform(0.92, 1.12), sleeves=covered,
        legs=1.0 if rng.random() < 0.78 else rng.uniform(0.22, 0.55),
        skirt=rng.uniform(0.6, 1.7) if robe < 0.1 else 0.0, coat=rng.uniform(0.3, 1.1) if 0.1 < robe < 0.26 else 0.0,
        slack=rng.uniform(0.002, 0.022) if covered == 1 else rng.uniform(0.002, 0.012),
        flare=rng.uniform(0.002, 0.025), tucked=rng.random() < 0.3, collar=rng.random() < 0.4,
        hair=int(rng.choice([BALD, SHORT, SHORT, SHORT, FULL, FULL, LONG, LONG, TAIL, CURLY])),
        hat=int(rng.choice([NO_HAT] * 8 + [CAP, BEANIE, HOOD, HELMET])),
        bag=int(rng.choice([NO_BAG] * 7 + [BACKPACK, HANDBAG])), folds=rng.uniform(0.1, 0.4),
        offset=(int(rng.integers(256)), int(rng.integers(256))),
    )
