"""Capture: films made here, files that are none, cameras that are away, hang, freeze and come back."""

import http.server
import re
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

cv2 = pytest.importorskip("cv2")

from edged.camera import capture  # noqa: E402
from edged.camera.capture import FileCapture, Limits, LiveCapture, Reconnect, open_source  # noqa: E402
from edged.errors import CameraError, MissingInput, PackageError, ShapeError, UsageError  # noqa: E402
from rtsp_server import RtspCamera  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
QUICK = Limits(open_s=0.05, read_s=0.05, frozen_s=60.0)
SOON_S = 10.0  # a bound for what happens at once, on a busy machine


def picture(value, width=64, height=48):
    return np.full((height, width, 3), value, np.uint8)


@pytest.fixture
def film(tmp_path):
    """Makes a film of so many grey pictures, each 4 brighter than the one before; returns its path."""
    def make(frames=20, rate=10.0, name="film.avi", width=64, height=48):
        path = str(tmp_path / name)
        writer = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*"MJPG"), rate, (width, height))
        assert writer.isOpened()
        for index in range(frames):
            writer.write(picture(4 * index, width, height))
        writer.release()
        return path
    return make


def everything(source):
    """All the frames of a file."""
    with source:
        frames = []
        frame = source.read()
        while frame is not None:
            frames.append(frame)
            frame = source.read()
        return frames


def shade(frame):
    return int(round(frame.image.mean() / 4))


# Files.


def test_a_film_gives_each_picture_with_its_time(film):
    source = open_source(film(), start_ns=1700000000000000000)
    assert not source.live and not source.hung
    frames = everything(source)
    assert [shade(frame) for frame in frames] == [frame.number for frame in frames] == list(range(20))
    np.testing.assert_allclose([frame.at_s for frame in frames], np.arange(20) / 10, atol=1e-6)
    assert [frame.claimed_ns for frame in frames] == [1700000000000000000 + 100000000 * index for index in range(20)]
    assert frames[0].image.shape == (48, 64, 3) and frames[0].image.dtype == np.uint8


def test_without_a_start_the_film_starts_now(film):
    before = time.time_ns()
    frames = everything(open_source(film()))
    assert before <= frames[0].claimed_ns <= time.time_ns()


@pytest.mark.parametrize("rate, most, numbers", [
    (30.0, 10.0, [0, 3, 6, 9, 12]), (25.0, 10.0, [0, 3, 5, 8, 10]), (10.0, 10.0, list(range(5))),
    (10.0, 60.0, list(range(5))), (10.0, 1.0, [0, 10, 20, 30, 40])])
def test_pictures_beyond_the_rate_are_skipped_and_the_times_stay(film, rate, most, numbers):
    frames = everything(open_source(film(frames=50, rate=rate), frames_per_second=most))
    assert [frame.number for frame in frames][:5] == numbers
    np.testing.assert_allclose([frame.at_s for frame in frames][:5], np.array(numbers) / rate, atol=1e-3)


def test_speed_one_is_real_time_and_slower_than_speed_ten(film):
    path = film(frames=10, rate=20.0)
    spent = {}
    for speed in (1.0, 10.0):
        with open_source(path, 20.0, speed=speed) as source:
            frame, begin = source.read(), time.monotonic()
            while frame is not None:
                # Whatever the machine does: no picture comes before its time.
                assert time.monotonic() - begin >= frame.at_s / speed - 0.02
                frame = source.read()
            spent[speed] = time.monotonic() - begin
    assert spent[10.0] < spent[1.0]


def test_a_reader_too_slow_for_real_time_misses_pictures_but_not_all(film):
    with open_source(film(frames=40, rate=20.0), 20.0, speed=4.0) as source:
        numbers = []
        frame = source.read()
        while frame is not None:
            numbers.append(frame.number)
            time.sleep(0.06)  # 4.8 pictures long
            frame = source.read()
    assert 3 <= len(numbers) < 30 and numbers == sorted(set(numbers))


def test_a_wait_longer_than_the_timeout_is_said_and_loses_no_picture(film):
    with open_source(film(frames=3, rate=2.0), speed=1.0) as source:
        assert source.read(0.0).number == 0
        with pytest.raises(CameraError, match="film.avi: no picture for"):
            source.read(0.01)
        assert source.read().number == 1


def test_a_closed_film_is_at_its_end(film):
    source = open_source(film())
    source.close()
    assert source.read() is None


def test_a_missing_file_is_missing_input(tmp_path):
    with pytest.raises(MissingInput, match="none.avi: no such file") as caught:
        open_source(str(tmp_path / "none.avi"))
    assert caught.value.exit_code == 66


def test_a_folder_is_missing_input(tmp_path):
    with pytest.raises(MissingInput, match="not a file"):
        open_source(str(tmp_path))


def no_videos(folder, film_path):
    whole = Path(film_path).read_bytes()
    yield "empty.avi", b""
    yield "words.txt", b"Anybody here?\n" * 500
    yield "list.m3u8", b"#EXTM3U\n#EXTINF:10,\nhttp://127.0.0.1:9/secret\n"
    yield "umlaut.txt", ("\u00fc" * 2047 + "ab\u00fc" * 10).encode("utf-8")  # cut in the middle of a character
    yield "zeros.mp4", bytes(10000)
    yield "noise.avi", np.random.default_rng(0).bytes(20000)
    yield "head.avi", whole[:300]
    yield "program", Path(sys.executable).resolve().read_bytes()[:50000]


def test_what_is_no_video_is_one_clear_line(tmp_path, film):
    for name, content in no_videos(tmp_path, film()):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(PackageError) as caught:
            open_source(str(tmp_path / name))
        assert caught.value.exit_code == 65
        assert str(caught.value).startswith(str(tmp_path / name)) and "\n" not in str(caught.value)


def test_nothing_but_that_line_is_written(tmp_path, film):
    """FFmpeg and OpenCV like to write to standard error themselves."""
    for name, content in no_videos(tmp_path, film()):
        (tmp_path / name).write_bytes(content)
    code = ("import sys\nfrom edged.camera.capture import open_source\nfrom edged.errors import EdgedError\n"
            "for path in sys.argv[1:]:\n    try:\n        open_source(path).read(3)\n        print('A PICTURE')\n"
            "    except EdgedError as error:\n        print(error)\n")
    paths = [str(path) for path in sorted(tmp_path.iterdir()) if path.name != "film.avi"]
    paths += ["rtsp://name:pass@127.0.0.1:9/x", "/dev/video99"]
    done = subprocess.run([sys.executable, "-c", code] + paths, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          cwd=str(ROOT), timeout=60)
    assert done.stderr == b"" and done.returncode == 0
    assert len(done.stdout.splitlines()) == len(paths)
    assert b"A PICTURE" not in done.stdout and b"pass@" not in done.stdout


def test_of_a_film_cut_short_the_pictures_before_the_cut_are_given(film, tmp_path):
    whole = Path(film(frames=50)).read_bytes()
    (tmp_path / "cut.avi").write_bytes(whole[:len(whole) // 2])
    frames = everything(open_source(str(tmp_path / "cut.avi")))
    assert 5 <= len(frames) < 30 and [shade(frame) for frame in frames] == list(range(len(frames)))


@pytest.mark.parametrize("width, height", [(16, 16), (18, 34), (640, 16), (322, 242)])
def test_odd_sizes_are_taken(film, width, height):
    assert everything(open_source(film(width=width, height=height)))[0].image.shape == (height, width, 3)


def test_a_film_too_small_for_anybody_is_refused(film):
    with open_source(film(width=8, height=8)) as source:
        with pytest.raises(ShapeError, match="film.avi: a picture of"):
            source.read()


def test_after_a_pause_pictures_do_not_come_faster_than_the_rate(film):
    times_ms = [0, 100, 5000, 5020, 5040, 5060, 5080, 5100, 5120, 5200]
    frames = everything(FileCapture(film(), 10.0, opener=lambda path: FakeFile(times_ms, 10.0)))
    np.testing.assert_allclose([frame.at_s for frame in frames], [0, .1, 5, 5.1, 5.2], atol=1e-9)


class FakeFile:
    """As cv2.VideoCapture: pictures with the times that a damaged file might state."""

    def __init__(self, times_ms, rate, image=picture(1)):
        self.times_ms, self.rate, self.image = list(times_ms), rate, image
        self.now = -1

    def isOpened(self):
        return True

    def get(self, what):
        return self.rate if what == cv2.CAP_PROP_FPS else self.times_ms[self.now]

    def grab(self):
        self.now += 1
        return self.now < len(self.times_ms)

    def retrieve(self):
        return True, self.image

    def release(self):
        pass


@pytest.mark.parametrize("times_ms, rate, expected", [
    ([200, 300, 400, 0, 0], 10.0, [0, .1, .2, .3, .4]),
    ([0, 0, 0, 0], 0.0, [0, .04, .08, .12]),
    ([0, 0, 0], float("nan"), [0, .04, .08]),
    ([0, 100, 50, 300], 10.0, [0, .1, .2, .3]),
    ([0, float("nan"), float("inf"), 300], 10.0, [0, .1, .2, .3]),
    ([-500, -400, -300], 10.0, [0, .1, .2]),
    ([0, 30, 120, 125], 30.0, [0, .03, .12, .125]),
])
def test_times_rise_whatever_the_file_says(film, times_ms, rate, expected):
    source = FileCapture(film(), 1000.0, opener=lambda path: FakeFile(times_ms, rate))
    np.testing.assert_allclose([frame.at_s for frame in everything(source)], expected, atol=1e-9)


@pytest.mark.parametrize("image", [
    np.full((48, 64), 9, np.uint8), np.full((48, 64, 1), 9, np.uint8), np.full((48, 64, 4), 9, np.uint8),
    np.full((48, 64), 9 << 8, np.uint16), np.full((96, 128, 3), 9, np.uint8)[::2, ::2]],
    ids=["grey", "one channel", "with alpha", "16 bits", "a view"])
def test_grey_and_other_pictures_become_blue_green_red(film, image):
    frame = FileCapture(film(), 10.0, opener=lambda path: FakeFile([0], 10.0, image)).read()
    assert frame.image.shape == (48, 64, 3) and frame.image.dtype == np.uint8 and (frame.image == 9).all()
    assert frame.image.flags.c_contiguous


@pytest.mark.parametrize("image", [
    np.zeros((48, 64, 2), np.uint8), np.zeros((48, 64, 3), np.float32), np.zeros((15, 64, 3), np.uint8),
    np.zeros(5, np.uint8)], ids=["two channels", "float", "low", "a row"])
def test_other_pictures_are_refused(film, image):
    with pytest.raises(ShapeError, match="not of 16 to 16384 pixels a side"):
        FileCapture(film(), 10.0, opener=lambda path: FakeFile([0], 10.0, image)).read()


# Cameras.


class FakeCamera:
    """As cv2.VideoCapture: plays a script of pictures, numbers (seconds to wait), False (failure) and Events."""

    def __init__(self, *script, opened=True, last=False):
        self.script, self.opened, self.last = list(script), opened, last
        self.image, self.released, self.over = None, False, threading.Event()

    def isOpened(self):
        return self.opened

    def grab(self):
        while True:
            step = self.script.pop(0) if self.script else self.last
            if isinstance(step, np.ndarray):
                self.image = step
                return True
            if isinstance(step, threading.Event):
                step.wait(30)
            elif step is False:
                return False
            elif isinstance(step, Exception):
                raise step
            else:
                self.over.wait(step)

    def retrieve(self):
        return True, self.image

    def release(self):
        self.released = True


class Cameras:
    """An opener that gives one fake camera after the other, the last one for ever."""

    def __init__(self, *given):
        self.given, self.opened = list(given), []

    def __call__(self):
        camera = self.given.pop(0) if len(self.given) > 1 else self.given[0]
        if isinstance(camera, Exception):
            raise camera
        self.opened.append(camera)
        return camera


@pytest.fixture
def live():
    """Makes a LiveCapture on fake cameras, closed at the end."""
    made = []

    def make(*cameras, limits=QUICK, rate=1e6, reconnect=None):
        opener = Cameras(*cameras)
        source = LiveCapture("rtsp://gate", opener, rate, limits, reconnect or Reconnect(0.01, 0.02))
        source.opener = opener
        made.append(source)
        return source
    yield make
    for source in made:
        for camera in source.opener.opened:
            camera.over.set()
        source.close()


def endless():
    """Pictures every 5 ms, all different."""
    script = []
    for index in range(4000):
        script += [0.005, picture(index % 251)]
    return script


def test_a_camera_gives_its_newest_picture_and_drops_older_ones(live):
    source = live(FakeCamera(*endless()))
    assert source.live
    first = source.read(SOON_S)
    time.sleep(0.1)
    second = source.read(SOON_S)
    third = source.read(SOON_S)
    assert second.number > first.number + 3 and third.number > second.number
    assert third.at_s > second.at_s > first.at_s and third.claimed_ns > second.claimed_ns > first.claimed_ns
    assert abs(third.claimed_ns / 1e9 - time.time()) < SOON_S and third.age() < SOON_S


def test_no_picture_is_given_twice(live):
    source = live(FakeCamera(picture(1), picture(2), 30))
    numbers = [source.read(SOON_S).number]
    try:
        while True:
            numbers.append(source.read(0.2).number)
    except CameraError as error:
        assert "no picture for" in str(error)
    assert numbers in ([0, 1], [1])


def test_at_most_so_many_pictures_a_second_are_taken(live):
    source = live(FakeCamera(*endless()), rate=20.0)
    times = [source.read(SOON_S).at_s for _ in range(6)]
    assert np.diff(times).min() >= 0.04


def test_a_camera_that_is_away_is_an_error_at_each_attempt_and_is_found_when_it_comes(live):
    away = FakeCamera(opened=False)
    source = live(away, away, away, FakeCamera(*endless()))
    for _ in range(2):
        with pytest.raises(CameraError, match="rtsp://gate: cannot be opened within 0.05 s"):
            source.read(SOON_S)
    deadline = time.monotonic() + SOON_S
    while True:
        try:
            source.read(SOON_S)
            break
        except CameraError:
            assert time.monotonic() < deadline
    assert away.released


def test_a_camera_that_dies_is_opened_again_and_its_old_picture_is_not_given(live):
    source = live(FakeCamera(picture(1), 0.3), FakeCamera(0.2, picture(2), 30))
    assert source.read(SOON_S).image[0, 0, 0] == 1
    with pytest.raises(CameraError, match="the stream ended, or sent nothing for 0.05 s"):
        source.read(SOON_S)
    assert source.read(SOON_S).image[0, 0, 0] == 2
    assert source.opener.opened[0].released and source.age() < SOON_S


def test_a_loss_between_two_pictures_that_were_read_is_not_told_later(live):
    source = live(FakeCamera(picture(1), False), FakeCamera(picture(2), 30))
    deadline = time.monotonic() + SOON_S
    while len(source.opener.opened) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.1)
    assert source.read(SOON_S).image[0, 0, 0] == 2
    with pytest.raises(CameraError, match="no picture for"):
        source.read(0.1)


def test_of_a_camera_that_is_gone_no_unread_picture_is_given(live):
    source = live(FakeCamera(picture(1), False), FakeCamera(opened=False))
    deadline = time.monotonic() + SOON_S
    while len(source.opener.opened) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    with pytest.raises(CameraError, match="cannot be opened"):
        source.read(SOON_S)


def test_a_camera_that_was_away_and_shows_the_same_is_not_frozen(live):
    source = live(FakeCamera(picture(7), False), FakeCamera(0.3, picture(7), 30), limits=Limits(1, 1, frozen_s=0.1))
    seen = until(source, lambda seen: is_picture(seen) and seen.number == 1)
    assert not [one for one in seen if "frozen" in str(one)]


def test_a_frozen_picture_is_an_error_and_stays_one_until_it_moves(live):
    still = [step for _ in range(2000) for step in (0.005, picture(7))]
    source = live(FakeCamera(*still), FakeCamera(*still), FakeCamera(picture(8), 30), limits=Limits(.05, .05, .15))
    given, reasons = [], []
    while len(reasons) < 2 or given[-1] != 8:
        try:
            given.append(int(source.read(SOON_S).image[0, 0, 0]))
            assert given[-1] == 7 or len(reasons) == 2
        except CameraError as error:
            reasons.append(str(error))
            at_first = given[:] if len(reasons) == 1 else at_first
    assert len(at_first) > 1 and given == at_first + [8]
    for reason in reasons:
        assert re.fullmatch(r"rtsp://gate: frozen: the same picture for \d+\.\d s", reason)


def test_pictures_that_differ_by_one_grey_level_are_not_frozen(live):
    noisy = []
    for index in range(400):
        image = picture(7)
        image[5, 5, 1] += index % 2
        noisy += [0.005, image]
    source = live(FakeCamera(*noisy), limits=Limits(0.05, 0.05, frozen_s=0.05))
    begin = source.read(SOON_S).at_s
    while source.read(SOON_S).at_s - begin < 0.4:
        pass


def test_a_call_that_hangs_is_reported_by_age_and_as_hung(live):
    hanging = threading.Event()
    source = live(FakeCamera(picture(1), hanging, picture(2), 30))
    source.read(SOON_S)
    assert not source.hung
    with pytest.raises(CameraError, match=r"no picture for \d"):
        source.read()  # the timeout is that of a hung call
    deadline = time.monotonic() + SOON_S
    while not source.hung and time.monotonic() < deadline:
        time.sleep(0.01)
    assert source.hung and source.age() >= QUICK.hung_s
    hanging.set()
    assert source.read(SOON_S).image[0, 0, 0] == 2
    assert not source.hung


def test_the_limit_of_a_hung_call_is_above_three_read_timeouts():
    assert Limits(5.0, 2.0).hung_s > 3 * 2.0
    assert Limits().frozen_s > Limits().read_s


def test_closing_does_not_wait_for_a_call_that_hangs_and_wakes_a_reader(live):
    hanging = threading.Event()
    source = live(FakeCamera(hanging), limits=Limits(10.0, 10.0))
    caught = []

    def read():
        try:
            source.read()
        except CameraError as error:
            caught.append(str(error))
    reader = threading.Thread(target=read)
    reader.start()
    source.close()
    reader.join(SOON_S)
    hanging.set()
    assert caught == ["rtsp://gate: closed"]


def test_what_opencv_raises_is_one_line_and_the_camera_is_tried_again(live):
    source = live(ValueError("a\n  b"), FakeCamera(cv2.error("broken\nbadly"), last=30), FakeCamera(*endless()))
    with pytest.raises(CameraError, match="^rtsp://gate: a b$"):
        source.read(SOON_S)
    with pytest.raises(CameraError, match="^rtsp://gate: broken badly$"):
        source.read(SOON_S)
    source.read(SOON_S)


def test_a_camera_of_odd_pictures_is_an_error(live):
    source = live(FakeCamera(np.zeros((48, 64, 2), np.uint8), 30))
    with pytest.raises(CameraError, match=r"rtsp://gate: a picture of \(48, 64, 2\)"):
        source.read(SOON_S)


def test_a_grey_camera_is_taken(live):
    assert live(FakeCamera(np.full((48, 64), 3, np.uint8), 30)).read(SOON_S).image.shape == (48, 64, 3)


# Reconnecting.


def test_delays_double_up_to_the_most_with_jitter():
    least, most = Reconnect(0.5, 30.0, chance=lambda: 0.0), Reconnect(0.5, 30.0, chance=lambda: 1.0)
    assert [least.delay_s() for _ in range(8)] == [0.25, 0.5, 1, 2, 4, 8, 15, 15]
    assert [most.delay_s() for _ in range(8)] == [0.5, 1, 2, 4, 8, 16, 30, 30]
    for _ in range(2000):
        assert most.delay_s() == 30
    spread = [Reconnect(8.0).delay_s() for _ in range(100)]
    assert 4 <= min(spread) < max(spread) <= 8


def test_only_steady_pictures_reset_the_delay():
    back_off = Reconnect(1.0, 30.0, steady_s=10.0, chance=lambda: 1.0)
    assert [back_off.delay_s() for _ in range(3)] == [1, 2, 4]
    back_off.worked(100.0)  # one picture, and it dies again
    back_off.worked(104.0)
    assert back_off.delay_s() == 8
    back_off.worked(200.0)
    back_off.worked(211.0)
    assert back_off.delay_s() == 1


def test_the_pauses_between_attempts_are_the_back_offs(live):
    source = live(FakeCamera(opened=False), reconnect=Reconnect(0.2, 0.2, chance=lambda: 1.0))
    times = []
    for _ in range(3):
        with pytest.raises(CameraError):
            source.read(SOON_S)
        times.append(time.monotonic())
    assert np.diff(times).min() >= 0.15


# Addresses and devices, with OpenCV itself.


@pytest.mark.parametrize("source", ["/dev/video99", "99", 99])
def test_a_device_that_does_not_exist_is_a_camera_error(source):
    with open_source(source) as camera:
        assert camera.live
        with pytest.raises(CameraError, match="/dev/video99: no such device") as caught:
            camera.read(SOON_S)
        assert caught.value.exit_code == 69


def closed_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_a_closed_port_is_a_camera_error_without_the_password():
    address = "rtsp://admin:p@ss/word@127.0.0.1:{}/stream".format(closed_port())
    with open_source(address, limits=Limits(1.0, 1.0)) as camera:
        with pytest.raises(CameraError) as caught:
            camera.read(SOON_S)
    assert "cannot be opened" in str(caught.value) and "127.0.0.1" in str(caught.value)
    assert "admin" not in str(caught.value) and "word" not in str(caught.value)


def test_a_server_that_accepts_and_says_nothing_times_out():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(5)
        address = "rtsp://127.0.0.1:{}/stream".format(server.getsockname()[1])
        with open_source(address, limits=Limits(0.5, 0.5)) as camera:
            with pytest.raises(CameraError, match="cannot be opened within 0.5 s"):
                camera.read(SOON_S)


def until(source, wanted):
    """Read until a picture, or an error, is as wanted; what was read before it."""
    deadline = time.monotonic() + 3 * SOON_S
    seen = []
    while time.monotonic() < deadline:
        try:
            seen.append(source.read(2.0))
        except CameraError as error:
            seen.append(str(error))
        if wanted(seen[-1]):
            return seen
    raise AssertionError(seen)


def is_picture(seen):
    return not isinstance(seen, str)


def test_a_real_rtsp_camera_is_read_falls_silent_and_comes_back():
    with RtspCamera() as camera, open_source(camera.address, 100.0, limits=Limits(5.0, 0.5)) as source:
        first = until(source, is_picture)[-1]
        assert first.image.shape == (120, 160, 3)
        assert int(first.image.max()) > 200 and int(np.median(first.image)) in range(35, 46)
        assert until(source, is_picture)[-1].number > first.number
        camera.silent.set()
        lost = until(source, lambda seen: "sent nothing for 0.5 s" in str(seen))[-1]
        assert "hush" not in lost and "127.0.0.1" in lost
        camera.silent.clear()
        until(source, is_picture)
        assert camera.plays >= 2
        camera.gone.set()
        until(source, lambda seen: not is_picture(seen))
        camera.gone.clear()
        until(source, is_picture)


def test_a_process_whose_camera_hangs_ends_when_it_wants_to():
    code = ("import sys\nfrom edged.camera.capture import Limits, open_source\nfrom edged.errors import CameraError\n"
            "source = open_source(sys.argv[1], limits=Limits(300.0, 300.0))\n"
            "try:\n    source.read(1.0)\nexcept CameraError as error:\n    print(error)\n"
            "source.close()\nsys.exit(69)\n")
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(5)
        done = subprocess.run([sys.executable, "-c", code, "rtsp://127.0.0.1:{}/x".format(server.getsockname()[1])],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=str(ROOT), timeout=60)
    assert (done.returncode, done.stderr) == (69, b"") and b"no picture for" in done.stdout


@pytest.mark.parametrize("source", ["ftp://host/film.avi", "file:///etc/passwd", "concat://a"])
def test_other_addresses_are_refused(source):
    with pytest.raises(UsageError, match="rtsp, rtsps, http or https"):
        open_source(source)


def test_a_rate_of_nothing_is_refused(film):
    with pytest.raises(UsageError):
        open_source(film(), frames_per_second=0)
    with pytest.raises(UsageError):
        open_source(film(), speed=-1)


class MovingPictures(http.server.BaseHTTPRequestHandler):
    """A camera as many are: JPEG pictures, one after the other; hangs up after ``server.most`` of them."""

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=picture")
        self.end_headers()
        self.server.visits += 1
        try:
            for index in range(self.server.most):
                jpeg = cv2.imencode(".jpg", picture(5 * index % 250, 160, 120))[1].tobytes()
                self.wfile.write(b"--picture\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(jpeg))
                self.wfile.write(jpeg + b"\r\n")
                time.sleep(0.02)
        except OSError:
            pass

    def log_message(self, *_):
        pass


def test_a_real_stream_is_read_lost_and_found_again():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), MovingPictures) as server:
        server.daemon_threads, server.most, server.visits = True, 60, 0
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        address = "http://127.0.0.1:{}/stream.mjpg".format(server.server_address[1])
        numbers, reasons = [], []
        with open_source(address, frames_per_second=100.0, limits=Limits(2.0, 2.0)) as camera:
            deadline = time.monotonic() + 3 * SOON_S
            while server.visits < 2 or not reasons or len(numbers) < 20:
                assert time.monotonic() < deadline, (numbers, reasons)
                try:
                    frame = camera.read(2.0)
                    assert frame.image.shape == (120, 160, 3)
                    numbers.append(frame.number)
                except CameraError as error:
                    reasons.append(str(error))
        server.shutdown()
        thread.join(SOON_S)
    assert numbers == sorted(set(numbers))
    assert "the stream ended" in reasons[0]


def test_only_three_files_import_opencv():
    importers = {str(path.relative_to(ROOT)) for path in (ROOT / "edged").rglob("*.py")
                 if re.search(r"^\s*(import|from) cv2\b", path.read_text(encoding="utf-8"), re.MULTILINE)}
    assert importers == {"edged/camera/" + name for name in ("capture.py", "picture.py", "posenet.py")}


def test_the_address_is_shown_without_user_and_password():
    assert capture.shown("rtsp://admin:secret@host:554/a") == "rtsp://***@host:554/a"
    assert capture.shown("rtsp://host:554/a") == "rtsp://host:554/a"
    assert "cret" not in capture.shown("rtsp://admin:se/cr@cret@host/a")
