"""The camera process, from recordings, generated scenes and cameras that come and go, to the bridge's `done`."""

import itertools
import logging
import threading
import time
from collections import deque

import numpy as np
import pytest
from fake_bridge import CAMERA, KEY, PATIENCE_S, Clock, FakeBridge, Keys, Line, busy, done, logged, silence

from edged import config, events
from edged.bus import Router
from edged.camera import daemon, link as link_module
from edged.camera.link import OUTSTANDING_MAX, WAITING_MAX, BridgeLink
from edged.camera.recording import Recording
from edged.camera.source import Playback, Scene, Source
from edged.errors import CameraError, ConfigError, KeyRefused, MissingInput, PackageError, VerificationFailed
from edged.notify import Notifier, Watchdog
from test_agreement import SIGNED, VALID


@pytest.fixture
def bridge():
    return FakeBridge()


@pytest.fixture
def line(bridge):
    return Line(bridge)


class Node:
    """A bridge on a real socket, and the configuration of a node with one camera."""

    def __init__(self, folder, source, **changes):
        self.bridge = FakeBridge()
        self.folder = folder
        self.bridge.agreement = VALID.digest
        (folder / "a").write_bytes(SIGNED)
        (folder / "camera.key").write_bytes(KEY)
        (folder / "camera.key").chmod(0o600)
        table = dict({"hop_s": "1.0", "speed": "0"}, **changes)
        (folder / "edged.toml").write_text("\n".join([
            'schema = 1', '[node]', 'name = "node"', 'state = "."', 'run = "."',
            '[enclave]', 'kind = "host"', 'keys = "."', 'package = "p"', 'agreements = ["a"]',
            '[camera.gate]', 'source = "{}"'.format(source), 'key = "camera.key"'] + [
            "{} = {}".format(name, value) for name, value in table.items() if value] + [
            '[outbox]', 'key = "o.key"',
            '[[subscriber]]', 'name = "city"', 'address = "tcp://127.0.0.1:5000"',
            'server_key = "{}"'.format("0" * 40), 'recipient = "{}"'.format("0" * 32)]) + "\n")
        self.config = config.load(str(folder / "edged.toml"), {})
        self.router = None
        self.stop = threading.Event()
        self.error = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def open(self):
        self.router = Router(self.config.bridge_address)
        return self

    def restart(self):
        self.router.close()
        self.bridge.restart()
        self.open()

    def start(self):
        self._thread.start()
        return self

    def serve_until(self, condition):
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline, "gave up: {}".format(vars(self.bridge))
            message = self.router.receive(0.02) if self.router else time.sleep(0.02)
            for answer in self.bridge.handle(message.frames) if message else []:
                self.router.send(message.peer, answer)
        return self

    @property
    def ended(self):
        return not self._thread.is_alive()

    def _run(self):
        try:
            daemon.run(self.config, "gate", self.stop)
        except Exception as error:  # looked at by the test
            self.error = error

    def close(self):
        self.stop.set()
        if self._thread.ident is not None:
            self._thread.join(PATIENCE_S)
        if self.router:
            self.router.close()


@pytest.fixture
def node(tmp_path_factory):
    nodes = []

    def made(source, **changes):
        nodes.append(Node(tmp_path_factory.mktemp("n"), source, **changes))
        return nodes[-1]

    yield made
    for one in nodes:
        one.close()


def skeleton(x, y=240.0):
    """A person of about 200 pixels who stands upright."""
    joints = np.array([(0, 0), (0, 30), (-20, 30), (-25, 65), (-25, 100), (20, 30), (25, 65), (25, 100), (-12, 100),
                       (-12, 150), (-12, 200), (12, 100), (12, 150), (12, 200), (-4, -4), (4, -4), (-8, 0), (8, 0)])
    return np.column_stack([joints + (x, y - 100), np.full(18, 0.9)]).astype(np.float32)


def recording(seconds=5.0, people=1, fps=10.0):
    frames = tuple(np.stack([skeleton(60 + 90 * person + 4 * index / fps) for person in range(people)])
                   for index in range(int(seconds * fps)))
    return Recording(640, 480, fps, frames)


def recorded(node, seconds=5.0, people=1, **changes):
    made = node("recording:walk.jsonl.gz", **changes)
    recording(seconds, people).save(str(made.folder / "walk.jsonl.gz"))
    return made


def claimed_s(bridge):
    """Of the clips that were answered with done, from the first one's on."""
    return [round((claimed - bridge.finished[0]) / 1e9, 1) for claimed in bridge.finished]


def test_a_recording_goes_through_whole_and_the_process_ends(node, caplog):
    caplog.set_level(logging.INFO)
    walk = recorded(node, seconds=5.0, people=3).open().start()
    walk.serve_until(lambda: walk.ended)
    assert walk.error is None
    # Every second two clips of three people, and what is left at the end.
    assert claimed_s(walk.bridge) == [0, 0, 1, 1, 2, 2, 3, 3, 3.9, 3.9]
    assert {sum(head.persons for _, _, head in walk.bridge.opened[at:at + 2]) for at in range(0, 10, 2)} == {3}
    assert logged(caplog, "camera_ended") == [{"camera": "gate", "done": 10, "skipped": 0}]
    assert walk.bridge.statuses == [("live", "", 0)]


def test_a_bridge_that_restarts_in_the_middle_loses_no_clip_of_a_recording(node):
    walk = recorded(node, seconds=12.0).open().start()
    walk.serve_until(lambda: len(walk.bridge.finished) >= 4)
    walk.bridge.answer = silence
    walk.serve_until(lambda: walk.bridge.opened[-1][1] > len(walk.bridge.finished))
    walk.restart()
    walk.bridge.answer = done
    walk.serve_until(lambda: walk.ended)
    assert walk.error is None and walk.bridge.sessions == 2
    # One whose answer went down with the old bridge is asked again: at least once, never not at all.
    claimed = claimed_s(walk.bridge)
    assert sorted(set(claimed)) == list(range(11)) + [10.9]
    assert len(claimed) <= 12 + OUTSTANDING_MAX


def test_as_fast_as_can_be_means_as_fast_as_the_bridge_takes_clips(node, monkeypatch):
    """A bridge that first says busy and then nothing: the recording waits, and nothing is dropped."""
    monkeypatch.setattr(link_module, "RETRY_MAX_S", 0.1)
    monkeypatch.setattr(link_module, "RETRY_S", 0.05)
    walk = recorded(node, seconds=20.0).open()
    walk.bridge.answer = busy
    walk.start().serve_until(lambda: len(walk.bridge.opened) >= 4)
    assert len({number for _, number, _ in walk.bridge.opened}) == 2
    walk.bridge.answer = done
    walk.serve_until(lambda: walk.ended)
    walk.bridge.finished.sort()  # of the first two the second may have been taken first
    assert claimed_s(walk.bridge) == list(range(19)) + [18.9]


def test_a_recording_waits_for_the_bridge(node):
    walk = recorded(node, seconds=3.0).start()
    time.sleep(0.3)
    walk.open().serve_until(lambda: walk.ended)
    assert claimed_s(walk.bridge) == [0, 1, 1.9]


def test_a_recording_in_a_loop_goes_on_with_new_people_until_it_is_stopped(node, caplog):
    caplog.set_level(logging.INFO)
    walk = recorded(node, seconds=2.5, loop="true").open().start()
    walk.serve_until(lambda: len(walk.bridge.finished) >= 9)
    assert not walk.ended and logged(caplog, "clock_jump") == []
    walk.stop.set()
    walk.serve_until(lambda: walk.ended)
    assert walk.error is None
    passes = [walk.bridge.opened[at:at + 3] for at in (0, 3, 6)]
    assert [{head.tracks[0] for _, _, head in one} for one in passes] == [{1}, {2}, {3}]
    assert claimed_s(walk.bridge)[:9] == [0, 1, 1.4, 2.5, 3.5, 3.9, 5.0, 6.0, 6.4]


def test_a_generated_scene_goes_through(node):
    walk = node("generator:1").open().start()
    walk.serve_until(lambda: walk.ended)
    assert walk.error is None and len(walk.bridge.finished) > 20


@pytest.mark.parametrize("breaks, error, reason", [
    (lambda walk: (walk.folder / "camera.key").unlink(), MissingInput, "camera.key"),
    (lambda walk: (walk.folder / "a").unlink(), MissingInput, "/a: No such file"),
    (lambda walk: (walk.folder / "a").write_bytes(b"nonsense"), PackageError, "/a: "),
    (lambda walk: (walk.folder / "a").write_bytes(SIGNED[:-1] + bytes([SIGNED[-1] ^ 1])), VerificationFailed, "/a: "),
    (lambda walk: (walk.folder / "camera.key").chmod(0o644), KeyRefused, "chmod 600"),
    (lambda walk: (walk.folder / "camera.key").write_bytes(bytes(31)), KeyRefused, "16 or 32 raw bytes"),
    (lambda walk: (walk.folder / "walk.jsonl.gz").unlink(), MissingInput, "walk.jsonl.gz"),
    (lambda walk: (walk.folder / "walk.jsonl.gz").write_bytes(b"x"), PackageError, "walk.jsonl.gz:1"),
])
def test_what_is_not_usable_ends_the_process_with_one_clear_line(node, breaks, error, reason):
    walk = recorded(node)
    breaks(walk)
    with pytest.raises(error, match=reason):
        daemon.run(walk.config, "gate", walk.stop)


def test_a_camera_without_a_table_is_refused(node):
    with pytest.raises(ConfigError, match="no table .camera.door."):
        daemon.run(recorded(node).config, "door", threading.Event())


def test_a_model_of_another_skeleton_ends_the_process(node):
    walk = recorded(node).open()
    walk.bridge.shape = (2, 300, 25)
    walk.start().serve_until(lambda: walk.ended)
    assert isinstance(walk.error, PackageError) and "skeletons of 25 joints" in str(walk.error)


class Scripted(Source):
    """A live source that gives what a test says: scenes, None, or the reason why it is lost."""

    live = True

    def __init__(self, script):
        super().__init__()
        self.script = deque(script)

    def next(self, timeout_s):
        given = self.script.popleft()
        self.lost = given if isinstance(given, str) else None
        self.ended = not self.script
        return given if isinstance(given, Scene) else None


class Told(Notifier):
    def __init__(self):
        super().__init__({})
        self.alive_times, self.lines = 0, []

    def alive(self):
        self.alive_times += 1

    def status(self, text):
        self.lines.append(text)


def scenes(seconds, start=1700000000.0, at=100.0, fps=10.0):
    return [Scene(start + index / fps, at + index / fps, 640, 480, np.stack([skeleton(100 + index)]))
            for index in range(int(seconds * fps))]


def watched(line, script):
    told = Told()
    watchdog = Watchdog(told, {"WATCHDOG_USEC": "3"}, itertools.count().__next__)  # every progress is told
    watch = daemon.Watch("gate", Scripted(script), BridgeLink(line, CAMERA, Keys()), 1.0, watchdog, told)
    assert watch.run(threading.Event())
    return told


def test_a_camera_that_is_lost_is_told_once_and_comes_back_with_a_new_window(line, bridge, caplog):
    caplog.set_level(logging.INFO)
    told = watched(line, scenes(3) + ["no route to host"] * 5 + scenes(3, 1700000060.0, 160.0))
    assert logged(caplog, "camera_lost") == [{"camera": "gate", "reason": "no route to host"}]
    assert len(logged(caplog, "camera_live")) == 2
    assert any(line.startswith("the camera is lost") for line in told.lines)
    assert told.alive_times >= 65  # a dead camera is a state, not a standstill
    assert logged(caplog, "clock_jump") == []
    assert len(bridge.finished) == 6


def test_waiting_for_pictures_that_do_not_come_feeds_no_watchdog(line):
    assert watched(line, scenes(1) + [None] * 50).alive_times <= 12


def test_a_clock_that_is_set_is_reported_and_the_clips_begin_anew(line, bridge, caplog):
    caplog.set_level(logging.INFO)
    watched(line, scenes(3) + scenes(2, 1700003600.0, 103.0))
    jump, = logged(caplog, "clock_jump")
    assert jump["seconds"] == pytest.approx(3597, abs=0.01)
    assert [round(claimed / 1e9) for claimed in bridge.finished[-2:]] == [1700003601, 1700003602]


def test_short_tracks_are_reported(line, caplog):
    caplog.set_level(logging.INFO)
    empty = [scene._replace(people=np.zeros((0, 18, 3), np.float32)) for scene in scenes(15)]
    watched(line, scenes(0.5) + empty[5:])
    assert logged(caplog, "track_short") == [{"camera": "gate", "tracks": 1}]


def test_what_led_to_the_loss_of_a_camera_is_judged_at_once(line, bridge):
    """Who smashes the camera after a blow is not to gain the rest of the hop."""
    script = scenes(2.6) + ["no picture"] * 3
    watched(line, script + [None])
    assert [round(claimed / 1e8) - 17000000000 for claimed in bridge.finished] == [10, 20, 25]


def test_a_live_camera_does_not_wait_for_the_bridge_and_drops_the_oldest(line, bridge, caplog):
    caplog.set_level(logging.INFO)
    bridge.answer = silence
    source = Scripted(scenes(20))
    link = BridgeLink(line, CAMERA, Keys())
    stop = threading.Event()
    watch = daemon.Watch("gate", source, link, 1.0, Watchdog(Told(), {}), Told())
    source.next, give = lambda timeout_s: stop.set() if len(source.script) == 1 else give(timeout_s), source.next
    assert not watch.run(stop)
    # Of one a second for 19 s two went out; those that still waited at the end are lost as well, and the city hears it.
    assert link.counts.skipped == 19 - 2 and len(bridge.opened) == 2
    assert [event["reason"] for event in logged(caplog, "clip_skipped")].count("the camera process ends") == WAITING_MAX
    assert bridge.statuses[-1] == ("live", "", 17)


def test_at_the_end_the_number_skipped_gets_through_a_real_socket(node, caplog):
    """A recording in real time, speeded up, for a bridge that answers no clip."""
    walk = recorded(node, seconds=30.0, speed="20").open()
    walk.bridge.answer = silence
    walk.start().serve_until(lambda: logged(caplog, "clip_skipped"))
    assert walk.bridge.statuses == [("live", "", 0)]  # in the minute after that nothing more is told, but at the end
    walk.stop.set()
    walk.serve_until(lambda: walk.ended and len(walk.bridge.statuses) == 2)
    assert walk.error is None and walk.bridge.statuses[-1].skipped >= 1 + WAITING_MAX


def test_a_recording_in_real_time_gives_each_frame_when_it_is_due():
    clock = Clock()
    playback = Playback(recording(1.0), unix=lambda: 1700000000.0, clock=clock)
    playback.begin()
    given = []
    while not playback.ended:
        clock.now_s += 0.01
        scene = playback.next(0)
        if scene is not None:
            given.append((round(clock.now_s - 1000, 3), scene.time_s - 1700000000))
    assert len(given) == 10
    assert all(0 <= at - due <= 0.011 for at, due in given)
    assert playback.next(0) is None


def test_the_speed_of_a_recording_changes_its_pace_and_not_its_times():
    clock = Clock()
    playback = Playback(recording(1.0), speed=4.0, unix=lambda: 0.0, clock=clock)
    playback.begin()
    assert playback.next(0).time_s == 0 and playback.next(0) is None
    assert playback.wait_s() == pytest.approx(0.025)
    clock.now_s += 0.025
    assert playback.next(0).time_s == pytest.approx(0.1)


def test_an_empty_recording_is_at_its_end_even_in_a_loop():
    assert Playback(Recording(640, 480, 30.0, ()), loop=True).ended


class FakeCapture:
    """What edged.camera.capture.open_source returns."""

    name, live, hung = "rtsp://camera", True, False

    def __init__(self, *given):
        self.given, self.seconds = deque(given), 0.0

    def read(self, timeout_s):
        frame = self.given.popleft()
        if isinstance(frame, Exception):
            raise frame
        return frame

    def age(self):
        return self.seconds

    def close(self):
        pass


@pytest.fixture
def pictures(node, monkeypatch):
    """A live source on a fake capture, whose network finds one person in each picture."""
    capture = pytest.importorskip("edged.camera.capture")
    from edged.camera import pose, posenet, source

    fake = FakeCapture()
    monkeypatch.setattr(capture, "open_source", lambda *given: fake)
    monkeypatch.setattr(posenet, "PoseNetwork", lambda *given, **more: FakeNetwork())
    monkeypatch.setattr(pose, "decode", lambda heat, paf, cell: np.stack([skeleton(100)]))
    made = node("rtsp://camera/stream", speed=None)
    return source.open_source(made.config.camera("gate")), fake, capture.Frame


class FakeNetwork:
    def run(self, image):
        from edged.camera.posenet import Maps
        return Maps(image, image, 1.0)


def test_a_picture_becomes_a_scene_of_its_own_times(pictures):
    source, fake, frame = pictures
    fake.given.append(frame(np.zeros((48, 64, 3), np.uint8), 1700000000500000000, 7.0, 0, 7.0))
    scene = source.next(0.1)
    assert (scene.time_s, scene.at_s, scene.width, scene.height) == (1700000000.5, 7.0, 64, 48)
    assert scene.people.shape == (1, 18, 3) and source.live and not source.patient


def test_a_camera_counts_as_lost_after_some_seconds_and_not_at_once(pictures):
    source, fake, frame = pictures
    fake.given.extend([CameraError("no picture for 0.1 s"), CameraError("the stream ended"),
                       frame(np.zeros((48, 64, 3), np.uint8), 0, 7.0, 0, 7.0)])
    assert source.next(0.1) is None and source.lost is None
    fake.seconds = 6.0
    assert source.next(0.1) is None and source.lost == "the stream ended"
    assert source.next(0.1) is not None and source.lost is None


def test_a_capture_that_hangs_ends_the_process(pictures):
    source, fake, _ = pictures
    fake.given.append(CameraError("no picture"))
    fake.hung = True
    with pytest.raises(CameraError, match="hangs"):
        source.next(0.1)


def test_events_of_the_camera_are_in_the_catalogue():
    for name in ("camera_live", "camera_lost", "camera_ended", "session_opened", "clip_sent", "clip_done",
                 "clip_skipped", "clip_refused", "clock_jump", "track_short"):
        assert events.BY_NAME[name].id.startswith("E3")
