"""The annotated video: the camera's own tracks, what the city was told at the time when it was told, and the alert."""

import numpy as np
import pytest

cv2 = pytest.importorskip("cv2", reason="videos are drawn by OpenCV: pip install 'edged[node]'")

from edged import annotate  # noqa: E402
from edged.annotate import Sighting, Told  # noqa: E402
from edged.camera import picture  # noqa: E402
from edged.camera.capture import open_source  # noqa: E402
from edged.camera.posenet import Maps  # noqa: E402
from edged.errors import MissingInput  # noqa: E402
from pose_fixtures import maps, person  # noqa: E402

WIDE, HIGH, FPS, SECONDS = 456, 256, 15.0, 4.0
FRAMES = int(FPS * SECONDS)
ALERT_S = 2.0


class Network:
    """Finds one person who walks from left to right, and a second one from the third second on."""

    def run(self, image):
        share = float(image[0, :, 0].mean()) / 200  # the video's own clock: it grows brighter
        people = [person(12 + 30 * share, 16, 20)]
        if share > 0.75:
            people.append(person(50, 16, 16))
        return Maps(*maps(people), 8.0)


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    path = str(tmp_path_factory.mktemp("video") / "yard.mp4")
    with picture.Film(path, WIDE, HIGH, FPS) as film:
        for number in range(FRAMES):
            film.add(np.full((HIGH, WIDE, 3), round(200 * number / FRAMES), np.uint8))
    return path


@pytest.fixture(scope="module")
def sightings(video):
    return annotate.look(video, Network(), 10.0)


def told(at_s, number, tracks=(1,), alert=None, began=False, **chances):
    return Told(at_s, number, tracks, chances, alert, began)


def frames(path):
    with open_source(path, 1000.0) as capture:
        found = []
        while True:
            frame = capture.read()
            if frame is None:
                return found
            found.append(frame.image.astype(int))


def redness(image):
    return (image[..., 2] - image[..., :2].max(-1) > 60).mean()


def test_tracks_are_those_of_the_camera_at_its_rate(sightings):
    assert len(sightings) == round(10 * SECONDS) and abs(sightings[-1].at_s - SECONDS) < 0.15
    assert all(1 in sighting.people for sighting in sightings)
    assert {track for sighting in sightings for track in sighting.people} == {1, 2}
    assert 2 not in sightings[20].people and 2 in sightings[-1].people
    left = [annotate.centre(sightings, 1, at_s)[0] for at_s in (0.0, 2.0, 4.0)]
    assert left[0] < left[1] - 50 < left[2] - 100
    assert annotate.centre(sightings, 7, 1.0) is None


def test_looking_ends_where_it_is_told_to(video):
    assert annotate.look(video, Network(), 10.0, 1.0)[-1].at_s <= 1.0


def test_every_picture_is_in_the_film_with_a_panel_and_the_alert_only_after_it_was_said(video, sightings, tmp_path):
    clips = [told(1.0, 1, walking=0.9, falling=0.02),
             told(ALERT_S, 2, alert=("falling", 0.91), began=True, walking=0.05, falling=0.91)]
    written = annotate.write(video, sightings, clips, str(tmp_path / "out"), "gate")
    made = frames(written.film)
    assert len(made) == FRAMES
    assert made[0].shape[0] > HIGH and made[0].shape[1] == WIDE
    before = [redness(image[:HIGH]) for image in made[:int(ALERT_S * FPS) - 1]]
    after = [redness(image[:HIGH]) for image in made[int(ALERT_S * FPS) + 1:]]
    assert max(before) < 0.02 and min(after) > 0.1
    still = cv2.imread(written.still).astype(int)
    assert still.shape == made[0].shape and redness(still[:HIGH]) > 0.1


def test_skeletons_are_drawn_on_the_people(video, sightings, tmp_path):
    written = annotate.write(video, sightings, [told(1.0, 1, walking=0.9)], str(tmp_path), "gate")
    bare, made = frames(video)[30], frames(written.film)[30]
    x, y = annotate.centre(sightings, 1, 30 / FPS)
    there = np.abs(made[:HIGH] - bare)[int(y) - 40:int(y) + 40, int(x) - 25:int(x) + 25].max(-1) > 40
    elsewhere = np.abs(made[:HIGH] - bare)[60:200, :40].max(-1) > 40
    assert there.mean() > 0.05 and elsewhere.mean() < 0.01


def test_without_an_alert_the_picture_is_the_last_one(video, sightings, tmp_path):
    written = annotate.write(video, sightings, [told(1.0, 1, walking=0.9)], str(tmp_path), "gate")
    still, last = cv2.imread(written.still).astype(int), frames(written.film)[-1]
    assert np.abs(still - last).mean() < 6 and redness(still) < 0.02


def test_between_two_sightings_a_skeleton_moves_on_evenly_and_over_a_gap_it_does_not():
    first, second = person(100, 100, 80), person(140, 100, 80, missing=(4,))
    near = [Sighting(1.0, {1: first}), Sighting(1.2, {1: second, 2: second})]
    found = annotate._between(near, 1.1)
    assert set(found) == {1} and abs(found[1][1, 0] - 120) < 1e-6 and not found[1][4].any()
    assert annotate._between(near, 1.2)[2] is second
    far = [Sighting(1.0, {1: first}), Sighting(1.0 + 2 * annotate.GAP_S, {1: second})]
    assert annotate._between(far, 1.3) == {} and annotate._between(near, 0.5) == {} and annotate._between(near, 9) == {}


def test_an_answer_is_that_of_the_persons_last_clip_and_fades():
    known = [told(1.0, 1, (1, 2), walking=0.7, falling=0.1), told(2.0, 2, (2,), walking=0.2, falling=0.8)]
    assert annotate._answer(known, 1, 2.1) == "walking 70 %" and annotate._answer(known, 2, 2.1) == "falling 80 %"
    assert annotate._answer(known, 1, 1.0 + annotate.ANSWER_S + 0.1) == "" and annotate._answer(known, 3, 2.0) == ""
    # A city that does not see scores knows of alerts alone.
    assert annotate._answer([told(1.0, 1, alert=("falling", 0.0))], 1, 1.5) == "falling"
    assert annotate._answer([told(1.0, 1)], 1, 1.5) == ""


def test_a_folder_that_cannot_be_made_is_one_error(video, sightings, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(MissingInput, match="file"):
        annotate.write(video, sightings, [told(1.0, 1)], str(tmp_path / "file"), "gate")
