"""The place of the bundled sample: a small square before a row of shops, as a camera above a door sees it."""

import numpy as np

from edged.camera.viewpoint import View
from edged.train.backdrop import Backdrop, Light, Scene
from edged.train.texture import bands, linear, rough, slabs, windows

VIEW = View(height_m=3.3, pitch=0.34, roll=0.006, focal_px=940.0, barrel=-0.05, width=960, height=540)
_FRONT_M = 14.5  # how far the shops are


def plaza(view: View = VIEW) -> Backdrop:
    """A bright afternoon, the sun from the left behind the camera."""
    towards = np.array([-0.62, -0.34, 0.71])
    light = Light(towards / np.linalg.norm(towards), (0.8, 0.74, 0.64), (0.42, 0.46, 0.54), (0.19, 0.18, 0.16), 0.4,
                  1.1, 0.8)
    scene = Scene(view, light)
    scene.sky(linear([205, 214, 226]), linear([135, 170, 220]))
    scene.ground(slabs(linear([150, 143, 133]), linear([92, 87, 80]), 0.6, 0.4, 0.012, 0.5, 0.07, 11), 0.08)
    _ground(scene)
    _front(scene)
    _furniture(scene)
    return scene.finished()


def _ground(scene: Scene) -> None:
    """A gutter of small stones, a darker carpet of paving along the shops, a drain."""
    setts = slabs(linear([96, 94, 92]), linear([55, 53, 50]), 0.11, 0.11, 0.012, 0.5, 0.14, 3)
    scene.rectangle([-15, 4.7, 0.004], [30, 0.35, 0], [0, 0.33, 0], setts)
    scene.rectangle([-15, 11.9, 0.004], [30, 0, 0], [0, _FRONT_M - 11.9, 0],
                    slabs(linear([112, 104, 98]), linear([70, 66, 62]), 0.3, 0.3, 0.008, 0.0, 0.08, 5))
    scene.rectangle([2.3, 8.8, 0.006], [0.5, 0, 0], [0, 0.5, 0],
                    bands(rough(linear([60, 60, 60]), 0.05, 0.02, 0.1, 1), linear([20, 20, 20]),
                          [0.06, 0.12, 0.18, 0.24, 0.3, 0.36, 0.42, 0.47]))


def _front(scene: Scene) -> None:
    brick = slabs(linear([150, 88, 68]), linear([170, 160, 148]), 0.24, 0.075, 0.01, 0.5, 0.16, 9)
    plaster = rough(linear([205, 194, 172]), 0.02, 0.05, 0.04, 31)
    dark = rough(linear([46, 60, 62]), 0.03, 0.05, 0.06, 12)
    stone = rough(linear([128, 124, 118]), 0.08, 0.03, 0.08, 17)
    glass = windows(rough(linear([58, 66, 70]), 0.05, 0.4, 0.1, 4), linear([92, 112, 122]), 2.1, 2.9, 0.92, 6)
    for left, right, wall in ((-16.0, -4.2, plaster), (-4.2, 3.9, brick), (3.9, 16.0, plaster)):
        scene.rectangle([left, _FRONT_M, 0], [right - left, 0, 0], [0, 0, 7], wall)
        scene.rectangle([left, _FRONT_M - 0.03, 0], [right - left, 0, 0], [0, 0, 0.45], stone)
    for left, wide in ((-10.4, 4.2), (-3.2, 2.1), (1.0, 2.1), (5.0, 4.2), (10.0, 4.2)):
        scene.rectangle([left, _FRONT_M - 0.04, 0.5], [wide, 0, 0], [0, 0, 2.3], glass)
        scene.rectangle([left - 0.15, _FRONT_M - 0.08, 2.8], [wide + 0.3, 0, 0], [0, 0, 0.5], dark)
    door = bands(rough(linear([70, 48, 36]), 0.05, 0.06, 0.06, 3), linear([40, 28, 22]), [0.55, 0.6, 1.5, 1.55])
    scene.rectangle([-0.5, _FRONT_M - 0.04, 0], [1.05, 0, 0], [0, 0, 2.25], door)
    scene.rectangle([-0.32, _FRONT_M - 0.05, 1.1], [0.7, 0, 0], [0, 0, 0.95], rough(linear([120, 138, 145]), 0.03, 0.3,
                                                                                  0.15, 8))
    awning = bands(rough(linear([182, 60, 48]), 0.03, 0.1, 0.05, 2), linear([225, 218, 205]),
                   list(np.arange(0.3, 5, 0.3)), vertical=True)
    scene.rectangle([5.0, _FRONT_M, 2.9], [4.2, 0, 0], [0, -1.0, -0.45], awning)


def _furniture(scene: Scene) -> None:
    wood, iron = rough(linear([134, 96, 62]), 0.1, 0.05, 0.1, 21), rough(linear([48, 50, 52]), 0.05, 0.05, 0.05, 22)
    for left in (-5.0, -3.5):
        scene.box([left, 10.6, 0], (0.07, 0.42, 0.43), 0, iron)
    scene.box([-4.25, 10.6, 0.43], (1.9, 0.46, 0.05), 0, wood)
    scene.box([-4.25, 10.82, 0.56], (1.9, 0.05, 0.34), 0, wood)
    tub = np.array([4.3, 11.3, 0.0])
    scene.box(tub, (0.9, 0.9, 0.55), 0.1, rough(linear([118, 112, 104]), 0.07, 0.03, 0.1, 25))
    scene.rods(np.array([[tub + [0, 0, 0.5], tub + [0, 0, 2.2]]]), np.array([[0.06, 0.05]]), linear([82, 64, 48]))
    rng = np.random.default_rng(4)
    crown = tub + [0, 0, 2.5] + rng.normal(0, 0.26, (16, 3))
    scene.rods(np.stack([crown, crown + rng.normal(0, 0.12, (16, 3))], 1), rng.uniform(0.24, 0.36, (16, 2)),
               linear([72, 98, 50]), 0.9)
    for x in (-2.6, -1.3, 1.4, 2.7):
        foot = np.array([x, 12.6, 0])
        scene.rods(np.array([[foot, foot + [0, 0, 0.85]]]), np.full((1, 2), 0.06), linear([70, 72, 74]))
    post = np.array([-6.4, 12.4, 0])
    scene.rods(np.array([[post, post + [0, 0, 6]]]), np.array([[0.09, 0.07]]), linear([60, 66, 64]))
    scene.rods(np.array([[[3.1, 12.9, 0.1], [3.1, 12.9, 0.75]]]), np.array([[0.22, 0.22]]), linear([54, 78, 60]))
