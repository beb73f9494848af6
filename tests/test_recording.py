"""Recordings of keypoints: the round trip, and each way in which a file can be wrong."""

import gzip
import json

import numpy as np
import pytest

from edged.camera import recording
from edged.camera.recording import RecordedEvent, Recording
from edged.errors import MissingInput, PackageError, ShapeError


def person(x=100.0, y=50.0):
    joints = np.zeros((18, 3), np.float32)
    joints[:] = (x, y, 0.5)
    joints[:, 0] += np.arange(18)
    joints[4] = 0
    return joints


def recorded(frames=3):
    people = (np.stack([person(), person(200)]), np.zeros((0, 18, 3), np.float32), np.stack([person(101.25)]))
    return Recording(640, 480, 25.0, people[:frames], (RecordedEvent("falling", 0, 0.04, 0.08),))


@pytest.fixture
def lines(tmp_path):
    recorded().save(str(tmp_path / "valid.jsonl"))
    return (tmp_path / "valid.jsonl").read_text().splitlines()


def load_lines(folder, lines, end="\n"):
    path = folder / "broken.jsonl"
    path.write_text("\n".join(lines) + end)
    return Recording.load(str(path))


def header(lines, **changes):
    made = json.loads(lines[0])
    made.update(changes)
    return [json.dumps({name: value for name, value in made.items() if value is not None})] + lines[1:]


@pytest.mark.parametrize("name", ["walk.jsonl", "walk.jsonl.gz"])
def test_what_was_saved_is_loaded(tmp_path, name):
    path = str(tmp_path / name)
    recorded().save(path)
    loaded = Recording.load(path)
    assert (loaded.width, loaded.height, loaded.fps, loaded.events) == (640, 480, 25.0, recorded().events)
    assert [frame.shape for frame in loaded.frames] == [(2, 18, 3), (0, 18, 3), (1, 18, 3)]
    for before, after in zip(recorded().frames, loaded.frames):
        assert after.dtype == np.float32 and np.array_equal(before, after)


def test_a_gzip_file_is_one_and_does_not_depend_on_the_clock(tmp_path):
    path = tmp_path / "walk.jsonl.gz"
    recorded().save(str(path))
    first = path.read_bytes()
    assert first[:2] == b"\x1f\x8b" and first[4:8] == bytes(4)
    assert gzip.decompress(first).count(b"\n") == 4


def test_values_are_rounded_and_a_joint_of_no_confidence_becomes_a_missing_one(tmp_path):
    frame = np.stack([person(10.123456, 20.987654)])
    frame[0, 3] = (5, 5, 0.0004)
    path = str(tmp_path / "walk.jsonl")
    Recording(640, 480, 30.0, (frame,)).save(path)
    joints = Recording.load(path).frames[0][0]
    assert joints[0].tolist() == np.float32([10.12, 20.99, 0.5]).tolist()
    assert joints[3].tolist() == [0, 0, 0]


def test_the_duration_is_that_of_all_frames():
    assert recorded().duration_s == pytest.approx(3 / 25)


@pytest.mark.parametrize("frame", [np.zeros((1, 17, 3), np.float32), np.zeros((18, 3), np.float32),
                                   np.zeros((1, 18, 3))])
def test_a_frame_of_another_form_is_refused(frame):
    with pytest.raises(ShapeError, match="frame 0 is"):
        Recording(640, 480, 30.0, (frame,))


@pytest.mark.parametrize("value, reason", [
    ((1, 2, 1.5), "confidence"), ((np.nan, 2, 0.5), "not finite"), ((1, 2, 0), "without confidence")])
def test_a_frame_that_could_not_be_loaded_again_cannot_be_made(value, reason):
    frame = np.stack([person()])
    frame[0, 7] = value
    with pytest.raises(ShapeError, match="frame 0: .*{}".format(reason)):
        Recording(640, 480, 30.0, (frame,))


def test_an_absent_file_is_missing_input(tmp_path):
    with pytest.raises(MissingInput, match="nowhere.jsonl: No such file"):
        Recording.load(str(tmp_path / "nowhere.jsonl"))


@pytest.mark.parametrize("changes, reason", [
    ({"schema": 2}, "schema 2: this release reads 1"),
    ({"schema": True}, "schema True"),
    ({"skeleton": "body25"}, "skeleton 'body25'"),
    ({"width": 0}, "width is 0"),
    ({"height": 480.5}, "height is 480.5"),
    ({"height": 1 << 17}, "height is 131072"),
    ({"fps": 0}, "fps is 0"),
    ({"fps": "25"}, "fps is '25'"),
    ({"fps": 1001}, "fps is 1001"),
    ({"fps": 10 ** 400}, "not a number of sensible size"),
    ({"frames": -1}, "frames is -1"),
    ({"events": {}}, "events is no list"),
    ({"events": [{"label": "falling"}]}, "not an object of exactly label, person, start_s, end_s"),
    ({"events": [{"label": "", "person": 0, "start_s": 0, "end_s": 1}]}, "label is ''"),
    ({"events": [{"label": "falling", "person": -1, "start_s": 0, "end_s": 1}]}, "person is -1"),
    ({"events": [{"label": "falling", "person": 0, "start_s": 2, "end_s": 1}]}, "lasts from 2.0 to 1.0"),
    ({"fps": None}, "not an object of exactly schema"),
    ({"colour": "red"}, "not an object of exactly schema"),
])
def test_a_wrong_header_is_refused_with_file_and_line(tmp_path, lines, changes, reason):
    with pytest.raises(PackageError, match="broken.jsonl:1: .*{}".format(reason)):
        load_lines(tmp_path, header(lines, **changes))


def one(*values, count=54):
    return json.dumps([list(values) + [0] * (count - len(values))])


@pytest.mark.parametrize("line, reason", [
    ("{", "not JSON"),
    ("", "not JSON"),
    ("[NaN]", "NaN is not a finite number"),
    ("[" * 100000, "not JSON"),
    ("{}", "a list of at most 64 people"),
    ("[" + ",".join(["[" + ",".join(["0"] * 54) + "]"] * 65) + "]", "at most 64 people"),
    (one(count=53), "a list of 54 numbers"),
    (one(count=57), "a list of 54 numbers"),
    ("[3]", "a list of 54 numbers"),
    (one("1"), "no number"),
    (one(True), "no number"),
    (one(None), "no number"),
    (one(1, 2, 1.5), "confidence is not within"),
    (one(1, 2, -0.5), "confidence is not within"),
    (one(1, 2, 0), "without confidence has a position"),
    (one(1, 2, 0.5).replace("2", "1e999"), "not finite"),
    (one(1, 2, 0.5).replace("2", "1e39"), "not finite"),
    (one(1, 10 ** 400, 0.5), "not finite"),
])
def test_a_wrong_frame_is_refused_with_file_and_line(tmp_path, lines, line, reason):
    with pytest.raises(PackageError, match="broken.jsonl:3: .*{}".format(reason)):
        load_lines(tmp_path, lines[:2] + [line] + lines[3:])


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_a_missing_frame_is_refused(tmp_path, lines, keep):
    with pytest.raises(PackageError, match="broken.jsonl:{}: {} frames follow .* announces 3".format(keep, keep - 1)):
        load_lines(tmp_path, lines[:keep])


def test_a_frame_too_many_is_refused(tmp_path, lines):
    with pytest.raises(PackageError, match="broken.jsonl:4: 4 frames follow"):
        load_lines(tmp_path, lines + ["[]"])


def test_a_file_that_is_cut_within_a_line_is_refused(tmp_path, lines):
    with pytest.raises(PackageError, match="broken.jsonl:4: the last line has no end: cut off"):
        load_lines(tmp_path, lines, end="")
    with pytest.raises(PackageError, match="broken.jsonl:1: not JSON"):
        load_lines(tmp_path, [""], end="")


def test_text_that_is_not_utf8_is_refused(tmp_path):
    path = tmp_path / "broken.jsonl"
    path.write_bytes(b"\xff\xfe\n")
    with pytest.raises(PackageError, match="broken.jsonl:1: not JSON"):
        Recording.load(str(path))


@pytest.mark.parametrize("damage", [lambda data: data[:-20], lambda data: b"plain text", lambda data: b"",
                                    lambda data: data[:40] + b"\xff" * 20 + data[60:]])
def test_a_damaged_gzip_file_is_refused(tmp_path, damage):
    path = tmp_path / "walk.jsonl.gz"
    recorded().save(str(path))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(PackageError, match="walk.jsonl.gz:1: not"):
        Recording.load(str(path))


def test_a_file_that_unpacks_to_more_than_the_bound_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(recording, "BYTES_MAX", 1 << 16)
    path = tmp_path / "bomb.jsonl.gz"
    path.write_bytes(gzip.compress(bytes(1 << 20)))
    with pytest.raises(PackageError, match="bomb.jsonl.gz:1: more than"):
        Recording.load(str(path))


def extracted(**changes):
    joints = [10.0, 20.0, 1.06] + [0.0] * 51
    made = {"source": "walk.mp4", "fps": 30.0, "width": 640, "height": 480, "frame_stride": 2,
            "layout": "openpose-coco18",
            "frames": [{"frame_index": 0, "people": [{"pose_keypoints_2d": joints}]},
                       {"frame_index": 2, "people": []}]}
    made.update(changes)
    return json.dumps(made)


def test_the_output_of_an_extractor_is_loaded_at_the_rate_of_its_frames(tmp_path):
    path = tmp_path / "walk.json.gz"
    path.write_bytes(gzip.compress(extracted().encode()))
    loaded = Recording.load(str(path))
    assert (loaded.width, loaded.height, loaded.fps, loaded.events) == (640, 480, 15.0, ())
    assert [len(frame) for frame in loaded.frames] == [1, 0]
    assert loaded.frames[0][0, 0].tolist() == [10, 20, 1]


@pytest.mark.parametrize("changes, reason", [
    ({"layout": "body25"}, "layout 'body25'"),
    ({"frame_stride": 0}, "frame_stride is 0"),
    ({"frames": {}}, "frames is no list"),
    ({"frames": [{"frame_index": 1, "people": []}]}, "frame 0: its index is 1, not 0"),
    ({"frames": [{"frame_index": 0, "people": 3}]}, "frame 0: not an object of exactly pose_keypoints_2d"),
    ({"frames": [{"frame_index": 0, "people": [{"pose_keypoints_2d": [1]}]}]}, "frame 0: a person is a list of 54"),
    ({"frames": [{"frame_index": 0, "people": [{"pose_keypoints_2d": 7}]}]}, "frame 0: a person is a list of 54"),
    ({"frames": [{"frame_index": 0, "people": [{"pose_keypoints_2d": [1.0, 1.0, 3.0] + [0] * 51}]}]},
     "frame 0: a confidence"),
    ({"extra": 1}, "not an object of exactly source"),
])
def test_wrong_output_of_an_extractor_is_refused(tmp_path, changes, reason):
    path = tmp_path / "walk.json"
    path.write_text(extracted(**changes))
    with pytest.raises(PackageError, match="walk.json:1: .*{}".format(reason)):
        Recording.load(str(path))


def test_nothing_may_follow_the_output_of_an_extractor(tmp_path):
    path = tmp_path / "walk.json"
    path.write_text(extracted() + "\n[]\n")
    with pytest.raises(PackageError, match="walk.json:2: something follows"):
        Recording.load(str(path))
