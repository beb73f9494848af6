"""The demo, as scripts/demo runs it once everything is set up: every process for real, from pixels to screen."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edged import staged

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT.parent / "shared" / "data"
SUMMARY = {"placement", "clips", "alerts", "products_checked", "rejections", "accelerator_bytes", "enclave_peak_bytes",
           "seconds_per_clip", "alert_delay_p95_s"}
RECORD = {"kind", "label", "score", "camera", "tracks", "time", "node", "status", "seq", "epoch"}
PEAK_MAX = 12 << 20
LATE_S = 5.0  # after a fall's end its alert is still in time


def demo(*words, **environment):
    surroundings = {name: value for name, value in os.environ.items() if name != "EDGED_MODELS"}
    done = subprocess.run([sys.executable, "-m", "edged.demo"] + list(words), stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True, timeout=900,
                          cwd=str(ROOT), env=dict(surroundings, **environment))
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("demo") / "out"


@pytest.fixture(scope="module")
def lines(out):
    """Of the bundled sample, by the bundled models alone."""
    pytest.importorskip("cv2")
    return [json.loads(line) for line in demo("--json", "--out", str(out)).stdout.splitlines()]


def alerts_of(lines):
    """Records in which an alert begins."""
    return [line for line in lines if line["type"] == "record" and line["kind"] == "alert"
            and any(alert["message"] == "alert" for alert in line["alerts"])]


def test_the_last_line_is_the_summary_and_the_enclave_checked_every_product(lines):
    summary = lines[-1]
    assert summary["type"] == "summary" and SUMMARY <= set(summary)
    assert summary["placement"] == "masked" and summary["rejections"] == 0
    assert summary["clips"] > 20 and summary["products_checked"] >= summary["clips"]
    assert 0 < summary["enclave_peak_bytes"] <= PEAK_MAX
    assert summary["accelerator_bytes"] > 0 and summary["seconds_per_clip"] > 0
    assert all(line["type"] != "summary" for line in lines[:-1])


def test_every_record_of_a_clip_says_what_it_is(lines):
    records = [line for line in lines if line["type"] == "record"]
    judged = [line for line in records if line["kind"] in ("observation", "alert", "failed")]
    assert len(judged) == lines[-1]["clips"] and not [line for line in judged if line["kind"] == "failed"]
    for line in judged:
        assert RECORD <= set(line)
        assert line["camera"] == "gate" and line["tracks"] and line["status"] == "Test"
    assert {line["kind"] for line in records} >= {"epoch", "observation", "alert", "heartbeat"}


def test_the_fall_in_the_sample_is_an_alert_in_time_and_of_who_fell(lines):
    (fall,) = staged.load(staged.FOLDER / staged.TRUTH).of("falling")
    found = lines[-1]["fall"]
    assert found["found"] and found["person"] == fall.person
    assert fall.start_s <= found["alert_s"] <= fall.end_s + LATE_S
    (alert,) = [line for line in alerts_of(lines) if line["tracks"] == found["tracks"]]
    assert alert["label"] == "falling" and 0.6 <= alert["score"] <= 1


def test_nobody_else_raises_one_and_nothing_is_missing(lines):
    assert len(alerts_of(lines)) == 1 and lines[-1]["alerts"] == 1 and lines[-1]["fall"]["other_alerts"] == 0
    assert not [line for line in lines if line["type"] in ("gap", "silence", "altered", "foreign", "rollback")]


def test_a_video_and_a_picture_show_what_the_city_was_told(lines, out):
    cv2 = pytest.importorskip("cv2")
    truth = staged.load(staged.FOLDER / staged.TRUTH)
    assert lines[-1]["annotated"] == str(out / "annotated.mp4") and lines[-1]["picture"] == str(out / "alert.png")
    film = cv2.VideoCapture(lines[-1]["annotated"])
    assert film.get(cv2.CAP_PROP_FRAME_COUNT) == truth.frames
    assert film.get(cv2.CAP_PROP_FRAME_WIDTH) == truth.width and film.get(cv2.CAP_PROP_FRAME_HEIGHT) > truth.height
    film.release()
    picture = cv2.imread(lines[-1]["picture"]).astype(int)
    assert (picture[..., 2] - picture[..., :2].max(-1) > 60).mean() > 0.05  # the alert's banner is red
    assert sorted(path.name for path in out.iterdir()) == ["alert.png", "annotated.mp4"]


def test_for_people_it_prints_alerts_and_a_summary(tmp_path):
    pytest.importorskip("cv2")
    said = demo("--people", "--seconds", "12", "--placement", "enclave", "--out", str(tmp_path / "out")).stdout
    assert "rejections           0" in said and "placement            enclave" in said
    assert not (tmp_path / "out").exists()  # made-up keypoints have no pictures


@pytest.mark.parametrize("words, code, said", [
    (["/nowhere/yard.mp4"], 66, "demo: /nowhere/yard.mp4: no such video or device\n"),
    (["--people", "/nowhere/yard.mp4"], 2, "demo: --people takes no source: it makes up its own\n"),
    (["--seconds", "0"], 2, "demo: --seconds 0: more than 0\n"),
])
def test_what_it_cannot_do_is_one_line(words, code, said):
    done = subprocess.run([sys.executable, "-m", "edged.demo"] + words, stderr=subprocess.PIPE,
                          universal_newlines=True)
    assert done.returncode == code and done.stderr == said


@pytest.mark.slow
def test_real_pedestrians_are_tracked_through_the_enclave(tmp_path):
    video = DATA / "video" / "vtest_480x360.avi"
    if not video.is_file():
        pytest.skip("{}: not here".format(video))
    pytest.importorskip("cv2")
    said = demo("--json", "--out", str(tmp_path / "out"), str(video)).stdout
    lines = [json.loads(line) for line in said.splitlines()]
    summary = lines[-1]
    assert summary["rejections"] == 0 and 0 < summary["enclave_peak_bytes"] <= PEAK_MAX
    tracks = {track for line in lines if line["type"] == "record" for track in line.get("tracks") or ()}
    assert len(tracks) > 5 and summary["clips"] > 50
    assert (tmp_path / "out" / "annotated.mp4").stat().st_size > 100000
