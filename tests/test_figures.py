"""Rendered people: they are where their joints are, hide each other, throw shadows, and are the same for the same
arguments; a network that was taught on photographs finds them."""

import numpy as np
import pytest

pytest.importorskip("cv2", reason="figures are drawn by OpenCV: pip install 'edged[owner]'")

from edged.camera import pose  # noqa: E402
from edged.camera.puppet import (  # noqa: E402
    L_ANKLE, L_EYE, L_HIP, L_KNEE, NECK, NOSE, R_ANKLE, R_EYE, R_HIP, R_KNEE)
from edged.camera.viewpoint import View, random_view  # noqa: E402
from edged.errors import ShapeError  # noqa: E402
from edged.train.anatomy import solids  # noqa: E402
from edged.train.backdrop import Backdrop, Light, random_backdrop  # noqa: E402
from edged.train.figures import draw, random_look  # noqa: E402
from edged.train.sensor import CLEAN, Sensor, random_sensor, sensed  # noqa: E402
from edged.train.solid import Solids, axes, eye, surface  # noqa: E402
from pose_fixtures import needs  # noqa: E402

VIEW = View(2.2, 0.2, 0.01, 520.0, -0.04, 640, 360)
GREY = 128
# Metres ahead, to the left, up, of somebody of 1.75 m who stands.
STANDING = np.array([
    (.1, 0, 1.61), (0, 0, 1.43), (0, -.18, 1.43), (.02, -.22, 1.12), (.1, -.24, .86), (0, .18, 1.43), (.02, .22, 1.12),
    (.1, .24, .86), (0, -.1, .93), (.02, -.11, .5), (0, -.12, .08), (0, .1, .93), (.02, .11, .5), (0, .12, .08),
    (.09, -.03, 1.64), (.09, .03, 1.64), (.01, -.075, 1.63), (.01, .075, 1.63)])
LEGS = [R_HIP, R_KNEE, R_ANKLE, L_HIP, L_KNEE, L_ANKLE]
TO_THE_CAMERA = -np.pi / 2


def person(x, y, facing=TO_THE_CAMERA):
    """(18, 3) metres, at x, y, looking along an angle from +x towards +y; the camera looks along +y."""
    c, s = np.cos(facing), np.sin(facing)
    return STANDING @ np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]]) + [x, y, 0]


def look(seed=1):
    return random_look(np.random.default_rng(seed))


def empty(towards=(0.0, 0.0, 1.0), shadow=0.0):
    """A grey place without anything in it."""
    light = Light(np.array(towards) / np.linalg.norm(towards), (0.6, 0.6, 0.6), (0.5, 0.5, 0.5), (0.2, 0.2, 0.2),
                  shadow, 0.5, 0.0)
    shape = (VIEW.height, VIEW.width)
    return Backdrop(np.full(shape + (3,), GREY, np.uint8), np.full(shape, np.inf, np.float32), light)


def changed(image):
    return (np.abs(image.astype(int) - GREY) > 3).any(-1)


def rods(*rows):
    """Solids of (start, end, start_r, end_r[, flat, thin, cut])."""
    start, end, start_r, end_r, *_ = zip(*rows)
    flat = [row[4] if len(row) > 4 else (1.0, 0, 0) for row in rows]
    thin = [row[5] if len(row) > 5 else 1.0 for row in rows]
    cut = [row[6] if len(row) > 6 else False for row in rows]
    count = len(rows)
    return Solids(np.array(start, float), np.array(end, float), np.array(start_r), np.array(end_r), np.array(flat),
                  np.array(thin), np.array(cut), np.zeros(count, int), np.array(start, float),
                  np.repeat(np.eye(3)[None], count, 0))


def test_a_person_is_painted_round_the_joints_that_the_view_projects():
    one = person(0.3, 5.0)
    drawn = draw(empty(), VIEW, [look()], [one])
    assert drawn.image.shape == (360, 640, 3) and drawn.image.dtype == np.uint8
    assert np.array_equal(drawn.points[0], VIEW.project(one)[0])
    assert drawn.visible[0].all()
    column, row = np.round(drawn.points[0]).astype(int).T
    painted = changed(drawn.image)
    assert painted[row, column].all()
    # And nowhere else: within a hand's breadth (48 pixels are half a metre here) of the joints' box.
    left, top, right, bottom = column.min() - 30, row.min() - 30, column.max() + 30, row.max() + 30
    painted[top:bottom, left:right] = False
    assert not painted.any()


def test_the_same_arguments_give_the_same_picture_and_leave_the_backdrop_alone():
    place, rng = empty((1.0, 0.2, 1.0), 0.4), np.random.default_rng(3)
    people, sensor = [person(0, 5), person(1, 6, 0.3)], random_sensor(rng)
    before = place.image.copy()
    first, again = (draw(place, VIEW, [look(1), look(2)], people, sensor, np.random.default_rng(4)) for _ in range(2))
    assert np.array_equal(first.image, again.image) and np.array_equal(first.visible, again.visible)
    assert np.array_equal(place.image, before)
    assert not np.array_equal(first.image, draw(place, VIEW, [look(5), look(2)], people).image)


def test_who_stands_behind_somebody_is_not_visible():
    near, far = person(0, 4.0), person(0, 6.5) * [0.9, 1, 0.9]
    for order in ([near, far], [far, near]):
        visible = draw(empty(), VIEW, [look(), look(2)], order).visible
        front, back = (0, 1) if order[0] is near else (1, 0)
        assert visible[front].all() and not visible[back][[NECK, R_HIP, L_HIP]].any()


def test_furniture_hides_what_is_behind_it_and_nothing_before_it():
    place = empty()
    wall_from = int(VIEW.project(np.array([0, 5.0, 0.75]))[0][1])
    place.depth[wall_from:] = 4.0
    hidden = draw(place, VIEW, [look()], [person(0, 5.0)])
    assert not hidden.visible[0][[R_KNEE, L_KNEE, R_ANKLE, L_ANKLE]].any() and hidden.visible[0][NECK]
    assert not changed(hidden.image)[wall_from + 1:].any()
    assert draw(place, VIEW, [look()], [person(0, 3.6)]).visible[0].all()


def test_a_face_is_visible_from_before_and_not_from_behind():
    faced = draw(empty(), VIEW, [look()], [person(0, 4.0)]).visible[0]
    turned = draw(empty(), VIEW, [look()], [person(0, 4.0, -TO_THE_CAMERA)]).visible[0]
    assert faced[[NOSE, R_EYE, L_EYE]].all() and not turned[[NOSE, R_EYE, L_EYE]].any()
    assert turned[[NECK] + LEGS].all()


def test_a_shadow_falls_away_from_the_sun():
    one = person(0, 6.0)
    lit = draw(empty((1.0, 0, 0.7), 0.5), VIEW, [look()], [one]).image
    painted = changed(draw(empty(), VIEW, [look()], [one]).image)
    shadow = changed(lit) & ~painted
    feet = VIEW.project(one[[R_ANKLE, L_ANKLE]])[0].mean(0)
    columns = np.nonzero(shadow)[1]
    assert len(columns) > 400 and np.median(columns) < feet[0] - 20
    assert (lit[shadow] < GREY).all()


@pytest.mark.parametrize("place", [(40.0, 6.0), (0.0, -5.0)])
def test_who_is_out_of_the_picture_leaves_no_trace_in_it(place):
    drawn = draw(empty(), VIEW, [look()], [person(*place)])
    assert not changed(drawn.image).any() and not drawn.visible.any()


def test_nobody_gives_the_backdrop():
    drawn = draw(empty(), VIEW, [], np.zeros((0, 18, 3)))
    assert not changed(drawn.image).any() and drawn.points.shape == (0, 18, 2) and drawn.visible.shape == (0, 18)


def test_people_and_looks_that_do_not_fit_are_refused():
    with pytest.raises(ShapeError, match="2 people of 1 looks"):
        draw(empty(), VIEW, [look()], [person(0, 5), person(1, 5)])
    with pytest.raises(ShapeError):
        draw(empty(), VIEW, [look()], [np.full((18, 3), np.nan)])
    with pytest.raises(ShapeError, match="random"):
        draw(empty(), VIEW, [look()], [person(0, 5)], Sensor(noise=2.0))


def test_every_look_is_a_whole_person_whatever_the_posture():
    rng = np.random.default_rng(8)
    for seed in range(40):
        joints = person(0, 5.0, rng.uniform(0, 6.3)) + rng.normal(0, 0.15, (18, 3))
        made = solids(look(seed), joints)
        assert all(np.isfinite(part).all() for part in made)
        assert (made.start_r > 0).all() and (made.end_r > 0).all()
        assert np.allclose(np.linalg.norm(made.flat, axis=-1), 1, atol=1e-6)
        assert np.allclose(made.frame @ made.frame.transpose(0, 2, 1), np.eye(3), atol=1e-6)


def test_a_rod_is_the_union_of_its_balls():
    """The slow twin: sixty balls of a tapered rod that points at the camera askew, one after the other."""
    rod = (np.array([-0.3, 4.0, 1.2]), np.array([0.4, 4.7, 1.7]), 0.30, 0.12)
    whole = surface(VIEW, rods(rod), 1)
    share = np.linspace(0, 1, 60)[:, None]
    balls = rod[0] + share * (rod[1] - rod[0])
    radii = rod[2] + share[:, 0] * (rod[3] - rod[2])
    many = surface(VIEW, rods(*[(ball, ball, radius, radius) for ball, radius in zip(balls, radii)]), 1)
    both = [np.full((VIEW.height, VIEW.width), np.inf) for _ in range(2)]
    for target, seen in zip(both, (whole, many)):
        target[seen.top:seen.top + seen.depth.shape[0], seen.left:seen.left + seen.depth.shape[1]] = seen.depth
    covered = [np.isfinite(depth) for depth in both]
    assert (covered[0] != covered[1]).sum() < 0.03 * covered[0].sum()
    common = covered[0] & covered[1]
    assert np.quantile(np.abs(both[0][common] - both[1][common]), 0.95) < 0.03


def test_a_ball_is_as_large_and_as_near_as_it_is():
    middle = np.array([0.2, 5.0, 1.0])
    seen = surface(VIEW, rods((middle, middle, 0.4, 0.4)), 2)
    away = axes(VIEW, middle)[2] @ (middle - eye(VIEW))
    assert abs(seen.depth.min() - (away - 0.4)) < 0.01
    wide = (seen.part >= 0).any(0).sum() / 2
    assert abs(wide - 2 * 0.4 * VIEW.focal_px / away) < 3
    nearest = np.argmin(seen.depth[seen.part >= 0])
    assert seen.normal[nearest] @ [0, 0, -1] > 0.98


def test_flat_rods_are_thin_and_cut_ones_end_square():
    low, high = np.array([0, 5.0, 0.6]), np.array([0, 5.0, 1.4])
    round_, flat, cut = (surface(VIEW, rods((low, high, 0.3, 0.3, (1.0, 0, 0), thin, square)), 2).part >= 0
                         for thin, square in ((1.0, False), (0.5, False), (1.0, True)))
    assert 0.45 < flat.sum(1).max() / round_.sum(1).max() < 0.55
    top = np.nonzero(cut.any(1))[0][0], np.nonzero(round_.any(1))[0][0]
    assert (top[0] - top[1]) / 2 > 0.7 * 0.3 * VIEW.focal_px / 5
    assert cut[top[0] + 30].sum() > 0.9 * round_.sum(1).max()  # seen from above, the rim is an ellipse


def test_backdrops_are_of_the_views_size_repeatable_and_various():
    made = {}
    for seed in range(8):
        pictures = []
        for _ in range(2):
            rng = np.random.default_rng(seed)
            view = random_view(rng, 320, 180)
            pictures.append(random_backdrop(rng, view))
        assert pictures[0].image.shape == (180, 320, 3) and pictures[0].depth.shape == (180, 320)
        assert np.array_equal(pictures[0].image, pictures[1].image)
        assert (pictures[0].depth > 0).all() and 0 <= pictures[0].light.shadow < 1
        made[pictures[0].image.tobytes()] = pictures[0].image.mean()
    assert len(made) == 8 and np.std(list(made.values())) > 10


def test_a_sensor_does_what_it_says():
    image = np.zeros((60, 80, 3), np.uint8)
    image[:, :40] = (200, 40, 90)
    rng = np.random.default_rng(0)
    assert sensed(rng, image, CLEAN) is image
    night = sensed(rng, image, Sensor(grey=1.0))
    assert np.ptp(night.astype(int), axis=-1).max() <= 1
    assert sensed(rng, image, Sensor(gain=0.5))[0, 0, 0] == 100
    noisy = sensed(rng, image, Sensor(noise=8.0)).astype(int)
    assert 4 < noisy[:, :40, 2].std() < 14
    soft = sensed(rng, image, Sensor(blur=2.0)).astype(int)
    assert 0 < soft[30, 41, 0] < 200
    for seed in range(30):
        made = sensed(rng, image, random_sensor(np.random.default_rng(seed)))
        assert made.shape == image.shape and made.dtype == np.uint8


def test_a_network_taught_on_photographs_finds_those_who_stand():
    needs("pose/human-pose-estimation-0001.f32.456x256.onnx")
    from edged.camera.posenet import PoseNetwork
    network = PoseNetwork("human-pose-estimation-0001", needs("pose"))
    hit = total = 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        joints = person(rng.uniform(-0.7, 0.7), 4.2, TO_THE_CAMERA + rng.uniform(-0.8, 0.8))
        place = random_backdrop(np.random.default_rng(100 + seed), VIEW)
        drawn = draw(place._replace(depth=empty().depth), VIEW, [random_look(rng)], [joints])
        maps = network.run(drawn.image)
        trunk = np.linalg.norm(drawn.points[0, NECK] - drawn.points[0, [R_HIP, L_HIP]].mean(0))
        near = [(np.linalg.norm(found[:, :2] - drawn.points[0], axis=1) < 0.2 * trunk)[drawn.visible[0]].sum()
                for found in pose.decode(maps.heat, maps.paf, maps.cell)]
        hit += max(near, default=0)
        total += drawn.visible[0].sum()
    assert hit / total > 0.6
