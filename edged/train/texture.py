"""Surfaces from noise: cloth, asphalt, paving, bricks, grass; colours are linear red, green, blue, 0..1.

A texture is a function of two coordinates in metres (any shape) and of how many metres a pixel covers there, because
what is finer than a pixel has to fade, not to flicker.
"""

from functools import lru_cache
from typing import Callable, Sequence

import numpy as np

TILE = 256
GRAIN, CLOTH, FOLDS, BLOTCHES = range(4)

Texture = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


@lru_cache(maxsize=1)
def noise() -> np.ndarray:
    """(4, 256, 256) float32, periodic, unit variance, from fine to coarse; the same for ever."""
    rng = np.random.default_rng(20)
    across = np.fft.fftfreq(TILE)[:, None]
    made = []
    for wide, high in ((1.2, 1.2), (3, 3), (7, 18), (16, 16)):
        window = np.exp(-2 * (np.pi * across * high) ** 2) * np.exp(-2 * (np.pi * across.T * wide) ** 2)
        field = np.fft.ifft2(np.fft.fft2(rng.normal(size=(TILE, TILE))) * window).real
        made.append(field / field.std())
    return np.stack(made).astype(np.float32)


def sampled(layer: int, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The noise at (x, y), in its own pixels, repeated for ever."""
    return noise()[layer, y.astype(np.int64) & (TILE - 1), x.astype(np.int64) & (TILE - 1)]


def linear(colour: Sequence[float]) -> np.ndarray:
    """Of a colour as screens take it, 0..255."""
    return ((np.asarray(colour, float) / 255) ** 2.2).astype(np.float32)


def _fades(size_m: float, pixel_m: np.ndarray) -> np.ndarray:
    """1 where a detail of that size is larger than a pixel, 0 where it is much smaller."""
    return np.clip(size_m / np.maximum(pixel_m, 1e-6) - 0.3, 0, 1).astype(np.float32)


def _grainy(u: np.ndarray, v: np.ndarray, pixel_m: np.ndarray, size_m: float, offset: int) -> np.ndarray:
    """Unit noise whose grains are ``size_m``."""
    return sampled(CLOTH, 4 * u / size_m + offset, 4 * v / size_m + 2 * offset) * _fades(size_m, pixel_m)


def _stained(u: np.ndarray, v: np.ndarray, offset: int) -> np.ndarray:
    """Unit noise over metres: wear and dirt."""
    return 0.6 * sampled(BLOTCHES, 11 * u + offset, 11 * v + 3 * offset) \
        + 0.5 * sampled(BLOTCHES, 31 * u + 5 * offset, 31 * v + offset)


def rough(colour: np.ndarray, grain: float, grain_m: float, stains: float, offset: int) -> Texture:
    """Asphalt, concrete, plaster, carpet, grass: grains and stains of one colour."""
    def texture(u: np.ndarray, v: np.ndarray, pixel_m: np.ndarray) -> np.ndarray:
        level = 1 + grain * _grainy(u, v, pixel_m, grain_m, offset) + stains * _stained(u, v, offset)
        return colour * np.maximum(level, 0.15)[..., None]
    return texture


def slabs(
    colour: np.ndarray, gap: np.ndarray, wide: float, high: float, gap_m: float, shift: float, uneven: float,
    offset: int,
) -> Texture:
    """Paving, tiles, bricks, planks: rows of slabs, every row shifted by a share of a slab."""
    def texture(u: np.ndarray, v: np.ndarray, pixel_m: np.ndarray) -> np.ndarray:
        row = np.floor(v / high)
        along = u / wide + shift * row
        column = np.floor(along)
        edge = np.minimum(np.minimum(along - column, 1 - along + column) * wide,
                          np.minimum(v / high - row, 1 - v / high + row) * high)
        own = sampled(GRAIN, 37 * column + 11 * row + offset, 53 * row + 17 * column + offset)
        level = 1 + uneven * own * _fades(min(wide, high), pixel_m) \
            + 0.06 * _grainy(u, v, pixel_m, 0.05, offset) + 0.07 * _stained(u, v, offset)
        # Where a gap is thinner than a pixel, the pixel is a mixture.
        share = np.clip((gap_m - edge) / np.maximum(pixel_m, 0.3 * gap_m) + 0.5, 0, 1)
        share = share * np.minimum(1, 2 * gap_m / np.maximum(pixel_m, 1e-6))
        made = colour * np.maximum(level, 0.1)[..., None]
        return made + share[..., None].astype(np.float32) * (gap - made)
    return texture


def windows(wall: Texture, pane: np.ndarray, wide: float, high: float, share: float, offset: int) -> Texture:
    """A front of windows, one in each ``wide`` x ``high``, some lit or curtained."""
    def texture(u: np.ndarray, v: np.ndarray, pixel_m: np.ndarray) -> np.ndarray:
        column, row = np.floor(u / wide), np.floor(v / high)
        x, y = u / wide - column - 0.5, v / high - row - 0.55
        made = wall(u, v, pixel_m)
        inside = (np.abs(x) < 0.5 * share) & (np.abs(y) < 0.3)
        frame = inside & ((np.abs(x) > 0.5 * share - 0.07 / wide) | (np.abs(y) > 0.3 - 0.07 / high)
                          | (np.abs(x) < 0.03 / wide))
        own = sampled(GRAIN, 41 * column + offset, 29 * row + 7 * column + offset)
        glass = pane * np.clip(0.8 + 0.5 * own + 0.5 * y, 0.1, 3)[..., None]
        made = np.where(inside[..., None], glass, made)
        return np.where(frame[..., None], np.float32(0.55), made)
    return texture


def bands(base: Texture, colour: np.ndarray, edges: Sequence[float], vertical: bool = False) -> Texture:
    """``base`` with stripes painted between each pair of ``edges``, across v, or across u."""
    def texture(u: np.ndarray, v: np.ndarray, pixel_m: np.ndarray) -> np.ndarray:
        across = u if vertical else v
        made = base(u, v, pixel_m)
        for low, high in zip(edges[::2], edges[1::2]):
            soft = np.maximum(pixel_m, 0.01)
            share = np.clip((across - low) / soft + 0.5, 0, 1) * np.clip((high - across) / soft + 0.5, 0, 1)
            made = made + (0.85 * share)[..., None].astype(np.float32) * (colour - made)
        return made
    return texture
