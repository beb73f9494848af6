"""Places as a camera on a wall sees them: ground, walls and fronts, furniture, and their light; nobody in them.

Every pixel's ray is followed to the ground or to the nearest rectangle or rod (solid.py); textures lie in metres
(texture.py). What stands about has a depth, so that it hides people behind it; ground and walls have none: people
are wherever the view sees ground, and no wall may swallow them.
"""

from typing import NamedTuple, Sequence, Tuple

import numpy as np

from edged.camera import picture
from edged.camera.viewpoint import View
from edged.train.solid import Solids, surface
from edged.train.texture import BLOTCHES, Texture, bands, linear, rough, sampled, slabs, windows

_FAR_M = 400.0


class Light(NamedTuple):
    """towards : (3,) where it comes from      sun, sky, ground : linear red, green, blue

    shadow : share of the picture's brightness that a shadow takes, soft : pixels of its edge at 640 across
    contact : how dark it is under feet and bodies
    """

    towards: np.ndarray
    sun: Tuple[float, float, float]
    sky: Tuple[float, float, float]
    ground: Tuple[float, float, float]
    shadow: float
    soft: float
    contact: float


class Backdrop(NamedTuple):
    """image : (H, W, 3) uint8 BGR      depth : (H, W) float32 metres of what stands about, elsewhere infinite"""

    image: np.ndarray
    depth: np.ndarray
    light: Light


def _light(turn: float, height: float, sun: float, sky: float, warmth: float, soft: float) -> Light:
    towards = np.array([np.cos(turn) * np.cos(height), np.sin(turn) * np.cos(height), np.sin(height)])
    level = sun * towards[2]
    # Pictures are darkened after gamma.
    shadow = 1 - (0.8 * sky / (0.8 * sky + level)) ** (1 / 2.2)
    return Light(towards, (sun * (1 + warmth), sun, sun * (1 - warmth)), (sky * (1 - 0.4 * warmth), sky,
                                                                         sky * (1 + 0.6 * warmth)),
                 (0.35 * sky, 0.33 * sky, 0.3 * sky), float(shadow), soft, 0.8)


def random_light(rng: np.random.Generator, inside: bool) -> Light:
    turn, height = rng.uniform(0, 2 * np.pi), rng.uniform(0.4, 1.3)
    if inside:
        return _light(turn, 1.2, rng.uniform(0.15, 0.4), rng.uniform(0.4, 0.75), rng.uniform(-0.05, 0.1),
                      rng.uniform(3, 7))
    if rng.random() < 0.45:
        return _light(turn, height, rng.uniform(0.05, 0.2), rng.uniform(0.6, 0.95), 0.0, rng.uniform(4, 9))
    return _light(turn, height, rng.uniform(0.5, 1.0), rng.uniform(0.3, 0.5), rng.uniform(0.03, 0.14),
                  rng.uniform(0.4, 2))


class Scene:
    """A picture in the making: linear colours, how far each pixel's ray goes, and what hides people."""

    def __init__(self, view: View, light: Light) -> None:
        self.view, self.light = view, light
        self.rays = _rays(view)
        shape = self.rays.shape[:2]
        self.colour = np.zeros(shape + (3,), np.float32)
        self.reach = np.full(shape, _FAR_M, np.float32)  # metres along the axis
        self.depth = np.full(shape, np.inf, np.float32)
        self._eye = np.array([0, 0, view.height_m], np.float32)
        self._cast = np.zeros(shape, np.float32)  # shadows on the ground
        self._contact = np.zeros(shape, np.float32)
        self._level = np.zeros(shape, bool)  # where the ground is seen, unless something is before it

    def sky(self, low: np.ndarray, high: np.ndarray) -> None:
        up = np.clip(self.rays[..., 2:] / 0.5, 0, 1)
        self.colour[:] = low + up * (high - low)

    def ground(self, texture: Texture, turn: float = 0.0) -> None:
        """Everywhere below the horizon; ``turn`` is the angle of its pattern, radians."""
        falls = np.maximum(-self.rays[..., 2], 1e-4)
        reach = self.view.height_m / falls
        below = (self.rays[..., 2] < -1e-4) & (reach < _FAR_M)
        where = np.nonzero(below)
        far = reach[where]
        spots = self.rays[where] * far[:, None]
        c, s = np.cos(turn), np.sin(turn)
        u, v = c * spots[:, 0] + s * spots[:, 1], c * spots[:, 1] - s * spots[:, 0]
        # A pixel covers far / focal across, and more along the line of sight, which grazes the ground.
        pixel = far / self.view.focal_px * np.sqrt(far / self.view.height_m)
        level = np.array(self.light.sky) + np.array(self.light.sun) * self.light.towards[2]
        self.colour[where] = texture(u, v, pixel) * level.astype(np.float32)
        self.reach[where] = far
        self._level = below

    def rectangle(
        self, corner: Sequence[float], along: Sequence[float], up: Sequence[float], texture: Texture,
        solid: bool = False, bright: float = 1.0,
    ) -> None:
        """corner + u along + v up, 0 <= u, v <= 1; seen from either side. ``solid``: it hides people."""
        o, a, b = (np.asarray(each, float) for each in (corner, along, up))
        corners = np.stack([o, o + a, o + b, o + a + b])
        pixels, deep = self.view.project(corners)
        height, width = self.reach.shape
        if deep.max() < 0.3:
            return
        low, high = np.floor(pixels.min(0)).astype(int) - 2, np.ceil(pixels.max(0)).astype(int) + 3
        if deep.min() < 0.5:  # reaches behind the camera: its corners tell nothing
            low, high = np.zeros(2, int), np.array([width, height])
        (x0, y0), (x1, y1) = np.clip(low, 0, [width, height]), np.clip(high, 0, [width, height])
        if x1 <= x0 or y1 <= y0:
            return
        here = (slice(y0, y1), slice(x0, x1))
        rays = self.rays[here]
        long, tall = np.linalg.norm(a), np.linalg.norm(b)
        normal = np.cross(a / long, b / tall)
        facing = rays @ normal.astype(np.float32)
        away = float((o - self._eye) @ normal)
        reach = away / np.where(np.abs(facing) < 1e-6, 1e-6, facing)
        hit = rays * reach[..., None] - (o - self._eye).astype(np.float32)
        u, v = hit @ (a / long ** 2).astype(np.float32), hit @ (b / tall ** 2).astype(np.float32)
        inside = (reach > 0.05) & (reach < self.reach[here]) & (u >= 0) & (u <= 1) & (v >= 0) & (v <= 1)
        if not inside.any():
            return
        if away > 0:  # the side that is seen
            normal = -normal
        level = np.array(self.light.sky) * (0.65 + 0.35 * normal[2]) + np.array(self.light.sun) * max(
            0.0, float(normal @ self.light.towards))
        pixel = reach[inside] / self.view.focal_px
        self.colour[here][inside] = texture(u[inside] * long, v[inside] * tall, pixel) * level.astype(
            np.float32) * bright
        self.reach[here][inside] = reach[inside]
        self._level[here][inside] &= abs(float(normal[2])) > 0.9 and float(o[2]) < 0.1
        if solid:
            self.depth[here][inside] = reach[inside]

    def box(self, middle: Sequence[float], size: Sequence[float], turn: float, texture: Texture,
            solid: bool = True) -> None:
        """middle : of its foot      size : metres along, across, up      turn : radians"""
        c, s = np.cos(turn), np.sin(turn)
        ahead, aside, up = (np.array(each) * half for each, half in zip(
            ((c, s, 0), (-s, c, 0), (0, 0, 1)), (size[0], size[1], size[2])))
        foot = np.asarray(middle, float) - 0.5 * ahead - 0.5 * aside
        for corner, along, high in ((foot, ahead, up), (foot + aside, ahead, up), (foot, aside, up),
                                    (foot + ahead, aside, up), (foot + up, ahead, aside), (foot, ahead, aside)):
            self.rectangle(corner, along, high, texture, solid)
        if solid:
            corners = foot + np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]]) @ np.stack([ahead, aside, up])
            self._shadow(np.concatenate([corners, corners + up]), min(corners[0, 2], 1.0))

    def rods(self, ends: np.ndarray, radii: np.ndarray, colour: np.ndarray, rugged: float = 0.0) -> None:
        """Posts, trunks, crowns of trees: ends (m, 2, 3), radii (m, 2); they hide people."""
        count = len(ends)
        frame = np.repeat(np.eye(3)[None], count, 0)
        seen = surface(self.view, Solids(ends[:, 0], ends[:, 1], radii[:, 0], radii[:, 1], frame[:, 0], np.ones(count),
                                         np.zeros(count, bool), np.zeros(count, int), ends[:, 0], frame), 1)
        if seen is None:
            return
        normal = seen.normal
        covered = seen.part >= 0
        if rugged:
            row, column = np.nonzero(covered)
            ruffle = np.stack([sampled(1, 2 * column + shift, 2 * row) for shift in (0, 77, 150)], -1)
            normal = normal + rugged * ruffle
            normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
        up, sun = seen.to_eye @ [0, 0, 1.0], seen.to_eye @ self.light.towards
        level = (0.6 + 0.4 * normal @ up)[:, None] * self.light.sky + np.clip(normal @ sun, 0, 1)[
            :, None] * self.light.sun
        here = (slice(seen.top, seen.top + seen.depth.shape[0]), slice(seen.left, seen.left + seen.depth.shape[1]))
        shown = covered & (seen.depth < self.reach[here])
        self.colour[here][shown] = (colour * level)[shown[covered]]
        self.reach[here][shown] = seen.depth[shown]
        self.depth[here][shown] = seen.depth[shown]
        turn = np.linspace(0, 2 * np.pi, 9)[:-1]
        ring = np.stack([np.cos(turn), np.sin(turn), np.zeros(8)], -1)
        for one, wide in zip(ends, radii):
            self._shadow((one[:, None] + wide[:, None, None] * ring).reshape(-1, 3), min(one[0, 2], 1.0))

    def _shadow(self, points: np.ndarray, high: float) -> None:
        """Of the hull of points (n, 3) that begins so many metres above the ground."""
        towards = self.light.towards
        for mask, way in ((self._cast, towards[:2] / towards[2]), (self._contact, np.zeros(2))):
            flat = points[:, :2] - points[:, 2:] * way
            pixels, deep = self.view.project(np.concatenate([flat, np.zeros((len(flat), 1))], 1))
            if deep.min() > 0.4:
                picture.fill_hull(mask, pixels, 1.0 - high if mask is self._contact else 1.0)

    def finished(self) -> Backdrop:
        light, wide = self.light, self.view.width / 640
        # In linear light, which is why the shares are raised: they are of the brightness after gamma.
        dark = (1 - light.shadow * picture.blurred(self._cast, light.soft * wide)) ** 2.2
        dark *= (1 - 0.35 * light.contact * picture.blurred(self._contact, 5 * wide)) ** 2.2
        ground = self._level & ~np.isfinite(self.depth)
        self.colour[ground] *= dark[ground][:, None]
        # The camera's exposure, of place and people alike: towards a fifth of the brightest, as far as it reaches.
        gain = float(np.clip(0.2 / max(float(self.colour.mean()), 1e-3), 0.5, 1.8))
        sun, sky, bounced = (tuple(gain * each for each in part) for part in (light.sun, light.sky, light.ground))
        image = 255 * np.clip(gain * self.colour, 0, 1)[..., ::-1] ** (1 / 2.2)
        return Backdrop((image + 0.5).astype(np.uint8), self.depth, light._replace(sun=sun, sky=sky, ground=bounced))


def _rays(view: View) -> np.ndarray:
    """(H, W, 3) float32: through each pixel, one metre deep."""
    x = (np.arange(view.width) - view.width / 2) / view.focal_px + np.zeros((view.height, 1))
    y = ((np.arange(view.height) - view.height / 2) / view.focal_px)[:, None] + np.zeros(view.width)
    u, v = x, y
    for _ in range(5):  # the lens undone
        bend = 1 + view.barrel * (u * u + v * v)
        u, v = x / bend, y / bend
    c, s = np.cos(view.roll), np.sin(view.roll)
    u, v = c * u + s * v, c * v - s * u
    cos, sin = np.cos(view.pitch), np.sin(view.pitch)
    return np.stack([u, cos - v * sin, -sin - v * cos], -1).astype(np.float32)


def _paint(rng: np.random.Generator, low: float = 40, high: float = 230) -> np.ndarray:
    """A wall's or a thing's colour: mostly dull."""
    grey = rng.uniform(low, high)
    return linear(np.clip(grey + rng.normal(0, 1, 3) * rng.choice([4, 10, 35]), 8, 245))


def random_ground(rng: np.random.Generator, inside: bool) -> Texture:
    offset = int(rng.integers(1 << 12))
    grey = rng.uniform(60, 170)
    colour = linear(np.clip(grey + rng.normal(0, 6, 3), 20, 240))
    kind = rng.random()
    if inside:
        if kind < 0.5:
            side = rng.uniform(0.3, 0.9)
            light = linear(np.clip(rng.uniform(110, 220) + rng.normal(0, 10, 3), 20, 240))
            return slabs(light, light * rng.uniform(0.4, 0.8), side, side, 0.006, 0.0, rng.uniform(0, 0.08), offset)
        if kind < 0.75:
            wood = linear([rng.uniform(120, 190), rng.uniform(85, 130), rng.uniform(50, 90)])
            return slabs(wood, 0.5 * wood, rng.uniform(0.8, 1.6), rng.uniform(0.1, 0.2), 0.004, 0.37, 0.14, offset)
        return rough(_paint(rng, 50, 170), 0.12, 0.03, 0.08, offset)
    if kind < 0.3:
        return rough(colour, 0.16, 0.035, 0.12, offset)
    if kind < 0.65:
        side = rng.uniform(0.2, 0.8)
        return slabs(colour, colour * rng.uniform(0.4, 0.75), side, side * rng.choice([0.5, 1.0]), 0.008,
                     rng.choice([0.0, 0.5]), rng.uniform(0.03, 0.14), offset)
    if kind < 0.8:
        grass = linear([rng.uniform(60, 110), rng.uniform(95, 135), rng.uniform(35, 65)])
        return rough(grass, 0.35, 0.05, 0.2, offset)
    edges = np.cumsum(rng.uniform([2.5, 0.1] * 4, [5.0, 0.16] * 4)) - rng.uniform(0, 10)
    return bands(rough(colour, 0.15, 0.04, 0.12, offset), linear([210, 208, 200]), list(edges[1:]), rng.random() < 0.5)


def random_wall(rng: np.random.Generator, inside: bool) -> Texture:
    offset = int(rng.integers(1 << 12))
    kind = rng.random()
    plain = rough(_paint(rng, 90, 225), 0.03, 0.05, 0.06, offset)
    if kind < 0.3:
        brick = linear([rng.uniform(110, 175), rng.uniform(60, 105), rng.uniform(45, 85)])
        plain = slabs(brick, linear([165, 158, 148]), 0.24, 0.075, 0.008, 0.5, 0.2, offset)
    elif kind < 0.45:
        plain = slabs(_paint(rng, 80, 210), _paint(rng, 30, 90), rng.uniform(0.6, 2), rng.uniform(0.5, 3), 0.015, 0,
                      0.04, offset)
    if rng.random() < (0.3 if inside else 0.7):
        plain = windows(plain, _paint(rng, 40, 130), rng.uniform(1.4, 3.2), rng.uniform(2.6, 3.4),
                        rng.uniform(0.35, 0.75), offset)
    elif inside and rng.random() < 0.6:
        edge = rng.uniform(0.08, 1.3)
        plain = bands(plain, _paint(rng, 40, 200), [0, edge])
    return plain


def far_m(view: View) -> float:
    """From here on a standing person is less than an eighth of the picture's height: behind it walls may stand."""
    return min(1.75 * view.focal_px / (0.125 * view.height), 60.0)


def _walls(rng: np.random.Generator, scene: Scene, inside: bool) -> None:
    """At the far end, now and then at the sides, too."""
    edge = far_m(scene.view) * rng.uniform(0.8, 1.3)
    turn = rng.normal(0, 0.25)
    high = rng.uniform(2.6, 4.5) if inside else rng.uniform(3, 16)
    along, into = np.array([np.cos(turn), np.sin(turn), 0]), np.array([-np.sin(turn), np.cos(turn), 0])
    centre = np.array([0, edge, 0])
    left = -rng.uniform(15, 40)
    pieces = [left] + list(left + np.cumsum(rng.uniform(6, 30, 5)))
    one = random_wall(rng, inside)
    for start, end in zip(pieces, pieces[1:]):
        if not inside:
            one, tall = random_wall(rng, inside), high * rng.uniform(0.6, 1.4)
            if rng.random() < 0.15:
                continue
        else:
            tall = high
        scene.rectangle(centre + start * along + rng.uniform(0, 2) * into * (not inside), (end - start) * along,
                        [0, 0, tall], one)
    if rng.random() < 0.25:
        side = rng.choice([-1, 1])
        at = centre + side * 0.75 * edge * along
        scene.rectangle(at - 60 * into, 80 * into, [0, 0, high], one)
    if inside:
        lid = rough(_paint(rng, 150, 240), 0.01, 0.1, 0.03, 1)
        scene.rectangle([-60, -5, high], [120, 0, 0], [0, 90, 0], lid)


def _spot(rng: np.random.Generator, view: View) -> np.ndarray:
    """Somewhere on the ground that is seen, (3,)."""
    pixels = rng.uniform([0.02, 0.25], [0.98, 0.98], (32, 2)) * [view.width, view.height]
    spots = view.ground(pixels)
    spots = spots[np.isfinite(spots).all(1) & (spots[:, 1] > 2.0) & (spots[:, 1] < far_m(view))]
    return np.append(spots[0] if len(spots) else [0, 8.0], 0.0)


def _furniture(rng: np.random.Generator, scene: Scene, inside: bool) -> None:
    for _ in range(int(rng.choice([0, 1, 2, 3, 4, 6]))):
        at, turn = _spot(rng, scene.view), rng.uniform(0, np.pi)
        kind = rng.random()
        plain = rough(_paint(rng), 0.05, 0.03, 0.06, int(rng.integers(1 << 12)))
        if kind < 0.3:
            _bench(scene, at, turn, plain, rng.uniform(0.9, 2.0), rng.random() < 0.5)
        elif kind < 0.55:
            scene.box(at, rng.uniform([0.4, 0.35, 0.4], [1.6, 0.8, 1.3]), turn, plain)
        elif kind < 0.65 and not inside:
            _car(scene, at, turn, rng)
        elif kind < 0.8:
            radius = rng.uniform(0.04, 0.14)
            high = rng.uniform(0.7, 1.1) if rng.random() < 0.6 else rng.uniform(3, 6)
            scene.rods(np.array([[at + [0, 0, 0.0], at + [0, 0, high]]]), np.full((1, 2), radius), _paint(rng, 20, 200))
        else:
            _tree(scene, at, rng, inside)


def _bench(scene: Scene, at: np.ndarray, turn: float, plain: Texture, long: float, back: bool) -> None:
    """Or a table: a top on two feet."""
    c, s = np.cos(turn), np.sin(turn)
    up = np.array([0, 0, 1.0])
    for end in (-0.4, 0.4):
        scene.box(at + end * long * np.array([c, s, 0]), (0.06, 0.4, 0.42), turn, plain)
    scene.box(at + 0.42 * up, (long, 0.45, 0.05), turn, plain)
    if back:
        scene.box(at + 0.6 * up + 0.22 * np.array([-s, c, 0]), (long, 0.04, 0.35), turn, plain)


def _car(scene: Scene, at: np.ndarray, turn: float, rng: np.random.Generator) -> None:
    paint, glass = rough(_paint(rng, 20, 240), 0.01, 0.1, 0.03, 3), rough(linear([40, 48, 55]), 0.05, 0.2, 0.1, 4)
    tyre = rough(linear([22, 22, 24]), 0.05, 0.1, 0, 5)
    c, s = np.cos(turn), np.sin(turn)
    long = rng.uniform(3.8, 4.7)
    for along in (-0.3, 0.3):
        scene.box(at + along * long * np.array([c, s, 0]), (0.62, 1.72, 0.6), turn, tyre)
    scene.box(at + [0, 0, 0.25], (long, 1.7, 0.6), turn, paint)
    scene.box(at + [0, 0, 0.85] - 0.05 * long * np.array([c, s, 0]), (0.52 * long, 1.5, 0.5), turn, glass)
    scene.box(at + [0, 0, 1.35] - 0.05 * long * np.array([c, s, 0]), (0.48 * long, 1.45, 0.07), turn, paint)


def _tree(scene: Scene, at: np.ndarray, rng: np.random.Generator, inside: bool) -> None:
    """Inside, a plant in a pot."""
    size = rng.uniform(0.25, 0.4) if inside else rng.uniform(0.7, 1.5)
    high = 3.2 * size if not inside else 2.2 * size
    scene.rods(np.array([[at, at + [0, 0, high]]]), np.array([[0.13, 0.09]]) * size, linear([75, 60, 48]))
    if inside:
        scene.rods(np.array([[at + [0, 0, 0.1], at + [0, 0, 0.35]]]), np.array([[0.14, 0.18]]), _paint(rng))
    count = 9
    balls = at + [0, 0, high + 0.3 * size] + rng.normal(0, 0.55, (count, 3)) * size
    ends = np.stack([balls, balls + rng.normal(0, 0.2, (count, 3)) * size], 1)
    green = linear([rng.uniform(45, 90), rng.uniform(80, 120), rng.uniform(30, 60)])
    scene.rods(ends, rng.uniform(0.45, 0.75, (count, 2)) * size, green, 0.9)


def _abstract(rng: np.random.Generator, view: View, light: Light) -> Backdrop:
    """No place at all: coarse blotches of colour, so that nothing but people means people."""
    scene = Scene(view, light)
    x, y = np.meshgrid(np.arange(view.width), np.arange(view.height))
    first, second = _paint(rng), _paint(rng)
    for _ in range(3):
        each = 10 ** rng.uniform(-0.7, 0.4)
        share = sampled(BLOTCHES, each * x + rng.integers(256), each * y + rng.integers(256))
        scene.colour += (first + np.clip(share, 0, 1.5)[..., None] * (second - first)) / 3
        first, second = _paint(rng), _paint(rng)
    return scene.finished()


def random_backdrop(rng: np.random.Generator, view: View) -> Backdrop:
    """A street, a yard, a hall, a room; one in twelve is no place at all."""
    inside = rng.random() < 0.4
    light = random_light(rng, inside)
    if rng.random() < 0.08:
        return _abstract(rng, view, light)
    scene = Scene(view, light)
    scene.sky(linear([205, 212, 220]) * rng.uniform(0.5, 1.1), linear([120, 160, 215]) * rng.uniform(0.5, 1.1))
    turn = rng.uniform(-0.8, 0.8)
    scene.ground(random_ground(rng, inside), turn)
    if not inside and rng.random() < 0.35:  # another ground beyond a line
        edge, along = _spot(rng, view), turn + rng.normal(0, 0.1)
        c, s = np.cos(along), np.sin(along)
        for width, texture in ((60.0, random_ground(rng, inside)), (0.18, rough(linear([175, 172, 165]), 0.05, 0.05,
                                                                              0.05, 7))):
            scene.rectangle(edge - 60 * np.array([c, s, 0]) + [0, 0, 0.01], [120 * c, 120 * s, 0],
                            [-width * s, width * c, 0], texture)
    if inside or rng.random() < 0.8:
        _walls(rng, scene, inside)
    _furniture(rng, scene, inside)
    return scene.finished()

