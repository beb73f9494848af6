"""A camera on a mast or a wall, and where before it people have room.

The camera stands at (0, 0, height), looks along +y and down; pixels as in images, y downwards.
"""

from dataclasses import dataclass
from typing import Tuple

import numpy as np

NEAR_M = 0.4
_ROOM = 12  # of 256 spots on the ground, at least


@dataclass(frozen=True)
class View:
    """Where the camera is and how it looks: metres, radians, pixels; barrel is the lens's distortion k1."""

    height_m: float
    pitch: float
    roll: float
    focal_px: float
    barrel: float
    width: int
    height: int

    def project(self, points: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
        """World (..., 3) -> pixels (..., 2) and depth in metres (...,)."""
        c, s = np.cos(self.pitch), np.sin(self.pitch)
        up = points[..., 2] - self.height_m
        depth = points[..., 1] * c - up * s
        x, y = points[..., 0], -points[..., 1] * s - up * c
        near = np.maximum(depth, NEAR_M)
        x, y = x / near, y / near
        x, y = np.cos(self.roll) * x - np.sin(self.roll) * y, np.sin(self.roll) * x + np.cos(self.roll) * y
        bent = self.focal_px * (1 + self.barrel * (x * x + y * y))
        return np.stack([self.width / 2 + bent * x, self.height / 2 + bent * y], -1), depth

    def ground(self, pixels: np.ndarray) -> np.ndarray:
        """Where a line of sight meets the ground (lens and roll neglected): (N, 2) -> (N, 2); NaN above the horizon."""
        x = (pixels[:, 0] - self.width / 2) / self.focal_px
        y = (pixels[:, 1] - self.height / 2) / self.focal_px
        c, s = np.cos(self.pitch), np.sin(self.pitch)
        down = y * c + s
        far = np.where(down > 0.02, self.height_m / np.maximum(down, 0.02), np.nan)
        return np.stack([far * x, far * (c - y * s)], -1)


def random_view(rng: np.random.Generator, width: int = 0, height: int = 0) -> View:
    """A camera on a mast or a wall (2.2 to 7 m) or at the height of a head (one in eight), a lens of 38 to 100 degrees.

    Aimed at the ground or at people 3 to 14 m ahead, who have room in the picture. Without a size it is 1280 x 720
    or, now and then, 960 x 720.
    """
    if not width:
        width, height = (1280, 720) if rng.random() < 0.7 else (960, 720)
    while True:
        if rng.random() < 0.12:  # indoors, on a shelf
            mast = rng.uniform(1.4, 2.2)
            pitch = rng.uniform(0.02, 0.3)
        else:
            mast = rng.uniform(2.2, 7.0)
            pitch = float(np.clip(np.arctan((mast - 1.0) / rng.uniform(3.0, 14.0)), 0.1, 0.95))
        across = rng.uniform(38, 100)
        focal = float(width / 2 / np.tan(np.radians(across) / 2))
        barrel = float(rng.uniform(-0.16 if across > 70 else -0.08, 0.0))
        view = View(mast, pitch, float(rng.normal(0, 0.025)), focal, barrel, width, height)
        if len(places(rng, view, 64)) >= _ROOM:
            return view


def places(
    rng: np.random.Generator, view: View, count: int, margin: float = 0.08, cut: bool = False
) -> np.ndarray:
    """Spots on the ground where a standing person is in the picture and 0.12 to 0.95 of its height tall: (n, 2).

    n <= count; a negative ``margin`` (of the picture's width) reaches outside; ``cut``: feet or head may be outside.
    """
    # Half of them evenly over the ground's distances, half over sizes: cameras in rooms see people large.
    tall = np.exp(rng.uniform(np.log(0.12), np.log(0.95), 4 * count))
    tall[::2] = rng.uniform(0.12, 0.95, 2 * count)
    depth = 1.75 * view.focal_px / (tall * view.height)
    across = rng.uniform(margin - 0.5, 0.5 - margin, 4 * count) * view.width / view.focal_px
    # Depth along the optical axis of a spot on the ground at this distance.
    c, s = np.cos(view.pitch), np.sin(view.pitch)
    spots = np.stack([across * depth, (depth - view.height_m * s) / c], -1)
    feet, far = view.project(np.concatenate([spots, np.zeros((len(spots), 1))], 1))
    head, _ = view.project(np.concatenate([spots, np.full((len(spots), 1), 1.75)], 1))
    over, under = (-0.15, 1.3) if cut else (0.0, 0.99)
    fits = (far > 1.2) & (head[:, 1] > over * view.height) & (feet[:, 1] < under * view.height) & (spots[:, 1] > 0.8)
    return spots[fits][:count]
