"""The demo, as scripts/demo runs it once everything is set up: every process for real, from camera to screen."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT.parent / "shared" / "data"
SUMMARY = {"placement", "clips", "alerts", "products_checked", "rejections", "accelerator_bytes", "enclave_peak_bytes",
           "seconds_per_clip", "alert_delay_p95_s"}
RECORD = {"kind", "label", "score", "camera", "tracks", "time", "node", "status", "seq", "epoch"}
PEAK_MAX = 12 << 20


def demo(*words, **environment):
    done = subprocess.run([sys.executable, "-m", "edged.demo"] + list(words), stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True, timeout=900,
                          cwd=str(ROOT), env=dict(os.environ, **environment))
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def lines():
    pytest.importorskip("cv2")
    return [json.loads(line) for line in demo("--json").stdout.splitlines()]


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


def test_the_fall_is_an_alert_and_nothing_is_missing(lines):
    alerts = [line for line in lines if line["type"] == "record" and line["kind"] == "alert"]
    began = [line for line in alerts if line["message"] == "Alert"]
    assert "falling" in {line["label"] for line in began}
    assert all(line["label"] in ("falling", "jumping") and 0 < line["score"] <= 1 for line in began)
    assert lines[-1]["alerts"] == sum(
        one["message"] == "alert" for line in alerts for one in line["alerts"])
    assert not [line for line in lines if line["type"] in ("gap", "silence", "altered", "foreign", "rollback")]


def test_for_people_it_prints_alerts_and_a_summary():
    pytest.importorskip("cv2")
    said = demo("--seconds", "12", "--placement", "enclave").stdout
    assert "rejections           0" in said and "placement            enclave" in said


def test_a_source_that_is_not_there_is_one_line():
    done = subprocess.run([sys.executable, "-m", "edged.demo", "/nowhere/yard.mp4"], stderr=subprocess.PIPE,
                          universal_newlines=True)
    assert done.returncode == 66 and done.stderr == "demo: /nowhere/yard.mp4: no such video or device\n"


@pytest.mark.slow
def test_real_pedestrians_are_tracked_through_the_enclave():
    video = DATA / "video" / "vtest_480x360.avi"
    if not video.is_file():
        pytest.skip("{}: not here".format(video))
    pytest.importorskip("cv2")
    lines = [json.loads(line) for line in demo(
        "--json", str(video), EDGED_MODELS=str(DATA / "pose")).stdout.splitlines()]
    summary = lines[-1]
    assert summary["rejections"] == 0 and 0 < summary["enclave_peak_bytes"] <= PEAK_MAX
    tracks = {track for line in lines if line["type"] == "record" for track in line.get("tracks") or ()}
    assert len(tracks) > 5 and summary["clips"] > 50
