"""Pictures of people: figures that stand where joints are, lit, dressed, casting shadows, before a backdrop.

Each figure is built of rods (anatomy.py), seen through the view with true hidden surfaces (solid.py) and shaded here:
sky and sun, cloth with patterns and folds, darker where parts meet. Everything follows from the arguments.
"""

from typing import List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from edged.camera import picture
from edged.camera.puppet import BONES, JOINTS, L_EAR, L_EYE, NOSE, R_EAR, R_EYE
from edged.camera.viewpoint import View
from edged.errors import ShapeError
from edged.train import wardrobe
from edged.train.anatomy import solids
from edged.train.backdrop import Backdrop, Light
from edged.train.sensor import CLEAN, Sensor, sensed
from edged.train.solid import Surface, surface
from edged.train.texture import BLOTCHES, CLOTH, FOLDS, GRAIN, sampled
from edged.train.wardrobe import EYE, HAIR, KINDS, SHOE, SKIN, Look, random_look

__all__ = ["Drawn", "Look", "draw", "random_look"]

_FACE = (NOSE, R_EYE, L_EYE, R_EAR, L_EAR)
_FACE_DEEP_M = 0.06  # behind the head's front, an eye, nose or ear is on its other side
_DEEP_M = 0.3        # behind the person's own front, another joint is out of sight
_BEHIND_M = 0.12     # a limb's half thickness: somebody that much nearer hides it
_FINE_MOST_PX = 420  # taller figures have enough samples without more of them


class Drawn(NamedTuple):
    """image : (H, W, 3) uint8 BGR      points : (n, 18, 2) pixels      visible : (n, 18) bool"""

    image: np.ndarray
    points: np.ndarray
    visible: np.ndarray


def draw(
    backdrop: Backdrop, view: View, looks: Sequence[Look], people: Sequence[np.ndarray], sensor: Sensor = CLEAN,
    rng: Optional[np.random.Generator] = None,
) -> Drawn:
    """People (n, 18, 3) metres, of these looks, before the backdrop, which was made for this view.

    A joint is visible where it is in the picture, neither furniture nor another person is before it, and it is not
    on the far side of the person's own head or body. Raises ShapeError where the arguments do not fit together.
    """
    joints = np.asarray(people, float).reshape(-1, JOINTS, 3)
    if len(joints) != len(looks) or backdrop.image.shape[:2] != (view.height, view.width) \
            or not np.isfinite(joints).all():
        raise ShapeError("{} people of {} looks before a backdrop of {}, view {} x {}".format(
            len(joints), len(looks), backdrop.image.shape, view.width, view.height))
    points, depth = view.project(joints)
    image = _shadowed(backdrop, view, joints)
    nearest = backdrop.depth.copy()
    owner = np.full(nearest.shape, -1, np.int16)
    for index, (look, one) in enumerate(zip(looks, joints)):
        tall = np.ptp(points[index, :, 1])
        seen = surface(view, solids(look, one), 1 if tall > _FINE_MOST_PX else 2)
        if seen is not None:
            _paint(image, nearest, owner, index, seen, _shaded(seen, solids(look, one).kind, look, backdrop.light))
    visible = np.stack([_visible(view, points[index], depth[index], nearest, owner, index)
                        for index in range(len(joints))]) if len(joints) else np.zeros((0, JOINTS), bool)
    image = np.clip(image + 0.5, 0, 255).astype(np.uint8)
    if sensor != CLEAN:
        if rng is None:
            raise ShapeError("a sensor's noise needs a generator of random numbers")
        image = sensed(rng, image, sensor)
    return Drawn(image, points, visible)


def _shaded(seen: Surface, kind: np.ndarray, look: Look, light: Light) -> np.ndarray:
    """(k, 3) BGR 0..255 of the samples of a figure."""
    which = kind[seen.part[seen.part >= 0]]
    colour = _dyed(seen, which, look)
    normal = _folded(seen, which, look)
    up, sun = seen.to_eye @ np.array([0, 0, 1.0]), seen.to_eye @ light.towards
    high = (0.5 + 0.5 * (normal @ up.astype(np.float32)))[:, None]
    falls = normal @ sun.astype(np.float32)
    lit = np.clip((falls + 0.25) / 1.25, 0, 1)[:, None]
    sky, ground, bright = (np.array(each, np.float32) for each in (light.sky, light.ground, light.sun))
    shade = _crevices(seen)[:, None]
    colour = colour * ((high * sky + (1 - high) * ground) * shade + lit * bright * (0.4 + 0.6 * shade))
    gloss = np.array([0.05 if each == SKIN else 0.1 if each in (HAIR, SHOE) else 0.25 if each == EYE else 0.01
                      for each in range(KINDS)], np.float32)[which]
    half = sun - [0, 0, 1.0]
    shine = np.clip(normal @ (half / np.linalg.norm(half)).astype(np.float32), 0, 1) ** 24
    colour = colour + (gloss * shine)[:, None] * bright
    return 255 * np.clip(colour[:, ::-1], 0, 1) ** (1 / 2.2)


def _dyed(seen: Surface, which: np.ndarray, look: Look) -> np.ndarray:
    """Linear red, green, blue (k, 3) of what the figure wears, unlit."""
    first, second = ((each ** 2.2).astype(np.float32) for each in (look.colours, look.seconds))
    colour = first[which]
    aside, ahead, along = seen.place.T
    x, y = 150 * aside + look.offset[0] + 4096, 150 * along + look.offset[1] + 4096
    for kind in np.unique(which):
        pattern, pitch = look.patterns[kind], look.pitch[kind]
        if pattern == wardrobe.PLAIN:
            continue
        mine = which == kind
        bands, stripes = np.floor(along / pitch) % 2 > 0, np.floor(aside / pitch) % 2 > 0
        if pattern == wardrobe.CHECKS:
            colour[mine] *= (1 - 0.3 * (bands.astype(np.float32) + stripes))[mine, None]
            continue
        other = {
            wardrobe.BANDS: bands,
            wardrobe.STRIPES: stripes,
            wardrobe.PRINT: (np.abs(aside) < 0.05 + pitch) & (np.abs(along + 0.2) < 0.04 + 0.8 * pitch)
            & (ahead > 0.02) & (sampled(BLOTCHES, 3 * x, 3 * y) > -0.3),
            wardrobe.SPECKLED: sampled(CLOTH, 2 * x, 2 * y) > 1.0,
            wardrobe.HALVES: along < -0.2,
            wardrobe.REFLECTING: np.abs((along + 0.02) % 0.17 - 0.1) < 0.025,
            wardrobe.BLOTCHED: sampled(BLOTCHES, x, y) > 0.2,
        }[int(pattern)]
        colour[mine & other] = second[kind]
    grain = np.array([0.04 if each == SKIN else 0.2 if each == HAIR else 0.07 for each in range(KINDS)], np.float32)
    colour *= (1 + grain[which] * (0.6 * sampled(GRAIN, 6 * x, 2 * y) + 0.5 * sampled(CLOTH, x, y)))[:, None]
    return np.clip(colour, 0.002, 1)


def _folded(seen: Surface, which: np.ndarray, look: Look) -> np.ndarray:
    """Normals (k, 3), ruffled where there is cloth."""
    aside, ahead, along = seen.place.T
    cloth = np.array([0.1 if each in (SKIN, EYE) else 1.0 for each in range(KINDS)], np.float32)[which]
    x, y = 220 * (aside + 0.7 * ahead) + look.offset[1] + 4096, 220 * along + look.offset[0] + 4096
    normal = seen.normal.copy()
    normal[:, 0] += look.folds * cloth * sampled(FOLDS, y, x)
    normal[:, 1] += look.folds * cloth * sampled(FOLDS, y + 91, x + 57)
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    return normal


def _crevices(seen: Surface) -> np.ndarray:
    """(k,) 0..1: how much of the sky a sample sees, by how far it lies behind what surrounds it."""
    covered = seen.part >= 0
    reach = max(2, int(0.05 * seen.depth.shape[0]))
    deep = np.where(covered, seen.depth, 0)
    around = picture.averaged(np.stack([deep, covered.astype(np.float32)], -1), reach)
    behind = (seen.depth - around[..., 0] / np.maximum(around[..., 1], 1e-6))[covered]
    return 1 - 0.5 * np.clip(behind / 0.12, 0, 1)


def _paint(
    image: np.ndarray, nearest: np.ndarray, owner: np.ndarray, index: int, seen: Surface, colour: np.ndarray
) -> None:
    """A figure into the picture, where nothing nearer is; its edges are mixed."""
    fine, (rows, columns) = seen.fine, seen.depth.shape
    here = (slice(seen.top, seen.top + rows // fine), slice(seen.left, seen.left + columns // fine))
    covered = seen.part >= 0
    layer = np.zeros((rows, columns, 4), np.float32)
    layer[covered, :3] = colour
    layer[covered, 3] = 1
    depth = seen.depth.reshape(rows // fine, fine, columns // fine, fine).min((1, 3))
    layer = layer.reshape(rows // fine, fine, columns // fine, fine, 4).mean((1, 3))
    share = layer[..., 3]
    before = (depth < nearest[here]) & (share > 0)
    image[here][before] += layer[before][:, :3] - share[before][:, None] * image[here][before]
    solid = before & (share >= 0.5)
    nearest[here][solid] = depth[solid]
    owner[here][solid] = index


def _visible(
    view: View, points: np.ndarray, depth: np.ndarray, nearest: np.ndarray, owner: np.ndarray, index: int
) -> np.ndarray:
    """(18,) bool of one person, once all are painted."""
    whole = np.round(points).astype(int)
    inside = ((whole >= 0) & (whole < [view.width, view.height])).all(-1) & (depth > 0.3)
    column, row = np.where(inside[:, None], whole, 0).T
    front, who = nearest[row, column], owner[row, column]
    slack = np.where(who == index, _DEEP_M, _BEHIND_M)
    slack[list(_FACE)] = np.where(who[list(_FACE)] == index, _FACE_DEEP_M, _BEHIND_M)
    return inside & (depth - front < slack)


def _shadowed(backdrop: Backdrop, view: View, joints: np.ndarray) -> np.ndarray:
    """The backdrop (H, W, 3) float32 with what the people take of its light."""
    image = backdrop.image.astype(np.float32)
    light = backdrop.light
    if not len(joints):
        return image
    contact = _cast(view, joints, np.array([0.0, 0.0, 1.0]), 0.55)
    dark = 1 - 0.5 * light.contact * picture.blurred(contact, max(1.0, 0.006 * view.width))
    if light.shadow > 0.02 and light.towards[2] > 0.1:
        cast = _cast(view, joints, light.towards, 3.0)
        dark = dark * (1 - light.shadow * picture.blurred(cast, light.soft * view.width / 640))
    image *= np.where(np.isfinite(backdrop.depth), 1, dark)[..., None]
    return image


def _cast(view: View, joints: np.ndarray, towards: np.ndarray, most_m: float) -> np.ndarray:
    """(H, W) float32: the shadows of bones on the ground, by a light that comes from ``towards``; fainter from above
    ``most_m``."""
    mask = np.zeros((view.height, view.width), np.float32)
    turn = np.linspace(0, 2 * np.pi, 7)[:-1]
    ring = np.stack([np.cos(turn), np.sin(turn)], -1)
    for one in joints:
        bones: List[Tuple[np.ndarray, np.ndarray, float]] = [
            (one[a], one[b], 0.07 if a > 1 else 0.13) for a, b in BONES[:13]]
        bones.append((one[NOSE], one[NOSE] + 0.08 * (one[NOSE] - one[1]), 0.11))
        for start, end, radius in sorted(bones, key=lambda bone: -bone[0][2] - bone[1][2]):
            high = 0.5 * (start[2] + end[2])
            if high > most_m:
                continue
            ends = np.stack([start, end])
            flat = ends[:, :2] - ends[:, 2:] / towards[2] * towards[:2]
            rim = (flat[:, None] + radius * ring).reshape(-1, 2)
            pixels, deep = view.project(np.concatenate([rim, np.zeros((len(rim), 1))], 1))
            if deep.min() > 0.4:
                picture.fill_hull(mask, pixels, float(1 - 0.8 * high / most_m) if most_m < 1 else 1.0)
    return mask
