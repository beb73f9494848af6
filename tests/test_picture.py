"""Drawing and encoding: what is drawn is where it should be, and what is written can be read again."""

import numpy as np
import pytest

cv2 = pytest.importorskip("cv2", reason="pictures are drawn by OpenCV: pip install 'edged[node]'")

from edged.camera import picture  # noqa: E402
from edged.camera.capture import open_source  # noqa: E402
from edged.errors import MissingInput, PackageError  # noqa: E402

WHITE = (255, 255, 255)


def black(height=60, width=80):
    return np.zeros((height, width, 3), np.uint8)


def box_of(image):
    row, column = np.nonzero(image.reshape(image.shape[0], image.shape[1], -1).max(-1))
    return column.min(), row.min(), column.max(), row.max()


def test_a_polygon_a_hull_a_line_and_a_disc_are_where_they_were_asked_for():
    image = black()
    picture.fill(image, np.array([[10, 20], [30, 20], [30, 40], [10, 40]]), WHITE)
    assert np.abs(np.array(box_of(image)) - (10, 20, 30, 40)).max() <= 1 and image[30, 20].tolist() == [255] * 3
    mask = np.zeros((60, 80), np.float32)
    picture.fill_hull(mask, np.array([[10.0, 10], [20, 15], [40, 10], [40, 30], [10, 30]]), 0.5)
    assert mask[20, 20] == 0.5 and mask[12, 20] == 0.5 and mask[40, 40] == 0
    image = black()
    picture.line(image, (5, 30), (70, 30), (0, 0, 255), 1)
    assert image[30, 40, 2] > 200 and not image[30, 40, :2].any() and not image[35].any()
    image = black()
    picture.disc(image, (40, 30), 10, WHITE)
    left, top, right, bottom = box_of(image)
    assert abs(left - 30) <= 1 and abs(right - 50) <= 1 and abs(top - 20) <= 1 and abs(bottom - 40) <= 1


def test_what_lies_outside_is_cut_off_and_no_error():
    image = black()
    picture.fill(image, np.array([[-1e6, -1e6], [1e6, -1e6], [1e6, 1e6], [-1e6, 1e6]]), WHITE)
    assert image.all()
    picture.line(image, (-50, -50), (500, 500), (0, 0, 0), 2)
    picture.disc(image, (200, 200), 5, (0, 0, 0))


def test_text_is_as_wide_as_it_says_and_stands_on_its_lower_left_corner():
    image = black(60, 300)
    wide, high = picture.text_size("ALERT falling", 20)
    picture.text(image, "ALERT falling", (10, 40), 20, WHITE)
    left, top, right, bottom = box_of(image)
    assert abs(right - left - wide) < 12 and 15 < high < 32
    assert abs(left - 10) < 6 and 12 < top < 26 and 38 <= bottom < 50


def test_blur_and_smear_spread_and_keep_the_sum():
    image = np.zeros((61, 61), np.float32)
    image[30, 30] = 1.0
    for spread in (picture.blurred(image, 2.0), picture.smeared(image, 7.0, 0.0), picture.averaged(image, 3)):
        assert spread[30, 30] < 0.5 and abs(spread.sum() - 1) < 1e-3
    assert picture.blurred(image, 0.0) is image
    along = picture.smeared(image, 9.0, 0.0)
    assert along[30].sum() > 0.95 and np.count_nonzero(along[30] > 0.01) >= 7


def test_resizing_keeps_the_mean():
    image = np.random.default_rng(0).integers(0, 255, (64, 96, 3)).astype(np.float32)
    small, large = picture.resized(image, 48, 32), picture.resized(image, 192, 128)
    assert small.shape == (32, 48, 3) and large.shape == (128, 192, 3)
    assert abs(small.mean() - image.mean()) < 0.5 and abs(large.mean() - image.mean()) < 2


def test_compression_costs_more_the_lower_the_quality():
    image = np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    image = picture.blurred(image, 2.0)
    fair, bad = (np.abs(picture.compressed(image, quality).astype(int) - image).mean() for quality in (90, 10))
    assert 0 < fair < bad


def test_a_picture_that_was_saved_is_read_again(tmp_path):
    image = black()
    picture.disc(image, (40, 30), 10, (10, 200, 90))
    picture.save(str(tmp_path / "a.png"), image)
    assert np.array_equal(cv2.imread(str(tmp_path / "a.png")), image)
    with pytest.raises(MissingInput, match="cannot be written"):
        picture.save(str(tmp_path / "none" / "a.png"), image)


def test_a_film_gives_its_pictures_back_at_its_rate(tmp_path):
    path = str(tmp_path / "film.mp4")
    with picture.Film(path, 160, 120, 15.0) as film:
        for number in range(30):
            image = np.full((120, 160, 3), 40, np.uint8)
            image[:, 4 * number:4 * number + 20] = 220
            film.add(image)
    with open_source(path, 1000.0) as capture:
        frames = []
        while True:
            frame = capture.read()
            if frame is None:
                break
            frames.append(frame)
    assert len(frames) == 30 and abs(frames[-1].at_s - 29 / 15) < 0.02
    for number in (0, 15, 29):
        bright = np.nonzero(frames[number].image[60, :, 0] > 128)[0]
        assert abs(bright.min() - 4 * number) < 4


def test_a_film_that_cannot_be_written_is_one_error(tmp_path):
    with pytest.raises(PackageError, match="cannot write a video"):
        picture.Film(str(tmp_path / "none" / "film.mp4"), 160, 120, 15.0)
