"""``scripts/demo``: from camera to the city's screen, all processes for real, on this machine.

Key and evaluation enclave (emulated: they protect nothing), bridge, camera and outbox run under ``edged run`` as they
would on a node; the city's subscriber runs here. Every party's keys are drawn for this one run. Without a source the
camera watches the bundled sample, edged/bundled/sample.mp4, in which somebody falls; with ``--people`` it replays
keypoints that edged/camera/motion.py makes up. Of a video it then draws what the city was told (annotate.py).
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import threading
import time
from typing import Any, Dict, List, Optional, Tuple

from edged import command, staged
from edged.alerts import cityconfig, reports
from edged.alerts.record import Observation
from edged.alerts.reports import ONE, Received
from edged.alerts.screen import Screen
from edged.alerts.subscriber import Subscriber
from edged.camera import zoo
from edged.enclave.wire import MessageType, RecordKind
from edged.errors import EdgedError, MissingInput, UsageError
from edged.site import Site, Terms, loopback_address

CAMERA = "gate"
SEED, SECONDS = 3, 30.0
CAST = ("walking", "walking", "jumping", "falling")
# Least probability, cool-down: what would be agreed in earnest, too.
RULES = (("falling", 0.6, 30), ("fighting", 0.8, 30))
FALL = "falling"
LATE_S = 5.0    # after a fall's end an alert is still one of it
LINGER_S = 5.0  # for the last records, once the node has ended
RATE = 10.0     # pictures a second that the pose network looks at
OUT = "demo-output"


class _NodeEnded(EdgedError):
    """The node's own exit code; it has said why."""

    def __init__(self, code: int) -> None:
        super().__init__("edged run ended with {}: see its lines above".format(code))
        self.exit_code = code


def main(arguments: Optional[List[str]] = None) -> int:
    parser = command.parser("demo", __doc__)
    parser.add_argument("source", nargs="?", metavar="VIDEO|RTSP-URL|DEVICE", help="instead of the bundled sample")
    parser.add_argument("--pose", metavar="NAME", help="a pose network (default: of a source of yours the best one in "
                                                       "$EDGED_MODELS, else the one that comes with edged)")
    parser.add_argument("--people", action="store_true", help="generated keypoints: no picture, no pose network")
    parser.add_argument("--json", action="store_true", help="JSON lines: every record, then a summary")
    parser.add_argument("--seconds", type=float, metavar="N",
                        help="end after N seconds (a camera never ends by itself)")
    parser.add_argument("--placement", choices=("masked", "inputs", "enclave"), default="masked",
                        help="where the linear products are computed (default masked)")
    parser.add_argument("--out", default=OUT, metavar="FOLDER",
                        help="for the annotated video and picture (default {})".format(OUT))
    parser.set_defaults(run=run)
    return command.run(parser, arguments)


def run(given: argparse.Namespace) -> None:
    if given.seconds is not None and given.seconds <= 0:
        raise UsageError("--seconds {:g}: more than 0".format(given.seconds))
    if given.people and given.source is not None:
        raise UsageError("--people takes no source: it makes up its own")
    if given.people and given.pose is not None:
        raise UsageError("--people takes no --pose: there is no picture to look at")
    with tempfile.TemporaryDirectory(prefix="edged-demo-") as folder:
        _Demo(given, folder).run()


class _Demo:
    """One run in a folder of its own."""

    def __init__(self, given: argparse.Namespace, folder: str) -> None:
        with command.needs("node"):
            from edged.model import bundled
        self._json, self._out = given.json, given.out
        self._seconds: Optional[float] = given.seconds
        self._limited = given.seconds is not None
        self._pose = zoo.DEFAULT
        self._video: Optional[str] = None  # a file that can be looked at again
        self._staged: Optional[staged.Staged] = None
        self._events: Tuple[Any, ...] = ()  # what a recording says of itself
        lines = self._camera(given, folder)
        self._say("sets up: keys of both owners, agreement, package (placement {})".format(given.placement))
        model = bundled.model()
        self._labels = tuple(model.labels)
        rules = tuple(rule for rule in RULES if rule[0] in self._labels)
        self._site = Site(folder, model, bundled.MODEL_ID, Terms(rules), {CAMERA: lines}, loopback_address(),
                          given.placement, log="json")
        self._log = _NodeLog()
        self._screen = Screen(self._json)
        self._received: List[Received] = []
        self._alert_delays_s: List[float] = []

    def run(self) -> None:
        """Raises EdgedError where a process cannot do its work."""
        with Subscriber(cityconfig.load(self._site.subscriber)) as subscriber:
            node = subprocess.Popen(
                [sys.executable, "-m", "edged.cli", "run", "--until-done", "--config", str(self._site.config)],
                stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, universal_newlines=True)
            reader = threading.Thread(target=self._log.read, args=(node.stderr,), daemon=True)
            reader.start()
            try:
                self._watch(subscriber, node)
            finally:
                node.terminate()
                code = node.wait()
                reader.join()
        if code:
            raise _NodeEnded(code)
        self._summarise(self._annotated())

    def _camera(self, given: argparse.Namespace, folder: str) -> List[str]:
        """The lines of its table."""
        source = given.source
        if given.people:
            from edged.camera import motion
            recording = motion.generate(SEED, self._seconds or SECONDS, cast=CAST)
            path = os.path.join(folder, "people.jsonl.gz")
            recording.save(path)
            self._events = recording.events
            self._seconds = None  # it ends by itself
            return ["source = {}".format(json.dumps("recording:" + path))]
        self._pose = given.pose or (zoo.DEFAULT if source is None else zoo.best())
        zoo.find(self._pose)
        self._say("looks with pose network {}".format(self._pose))
        if source is None:
            self._staged = staged.load(staged.FOLDER / staged.TRUTH)
            source = str(staged.FOLDER / staged.VIDEO)
        if "://" not in source:
            if not os.path.exists(source):
                raise MissingInput("{}: no such video or device".format(source))
            source = os.path.abspath(source)
        lines = ["source = {}".format(json.dumps(source)), "frames_per_second = {:g}".format(RATE),
                 "pose = {}".format(json.dumps(self._pose))]
        if os.path.isfile(source):
            lines.append("speed = 0")  # every picture counts, however long the pose network takes
            self._video = source
        return lines

    def _watch(self, subscriber: Subscriber, node: "subprocess.Popen[str]") -> None:
        began_s = time.monotonic()
        ended_s: Optional[float] = None
        while True:
            for event in subscriber.poll(0.2):
                self._take(event)
            now_s = time.monotonic()
            if ended_s is None and node.poll() is not None:
                ended_s = now_s
            if ended_s is not None and (now_s - ended_s > LINGER_S or self._complete()):
                return
            if self._seconds is not None and now_s - began_s > self._seconds and ended_s is None:
                node.terminate()  # in order: what is in the spool still comes
                self._seconds = None

    def _complete(self) -> bool:
        """Whether everything that the node's spool held is here."""
        totals = self._log.totals
        return totals is not None and len(self._received) >= totals["records"]

    def _take(self, event: Any) -> None:
        if isinstance(event, Received):
            self._received.append(event)
            self._time(event)
        for line in self._screen.lines([event], time.time_ns()):
            print(line, flush=True)

    def _time(self, event: Received) -> None:
        """How long an alert took: from the beginning of what it tells where that is known, else from the clip's end."""
        record = event.record
        if not isinstance(record, Observation):
            return
        for alert in record.alerts:
            if alert.message != MessageType.ALERT:
                continue
            seen_ns = self._log.offered_ns.get(record.number)
            began_s = self._log.began_s
            begun = [known.start_s for known in self._events if known.label == event.labels[alert.rule] and began_s
                     and began_s + known.start_s <= event.received_ns / 1e9]
            if begun and began_s:
                self._alert_delays_s.append(event.received_ns / 1e9 - began_s - max(begun))
            elif seen_ns is not None:
                self._alert_delays_s.append((event.received_ns - seen_ns) / 1e9)

    def _annotated(self) -> Dict[str, Any]:
        """What drawing gave for the summary: the files, and of the sample whether the alert is its fall."""
        if self._video is None:
            if not self._events:
                self._say("no annotated video: a live source cannot be looked at again")
            return {}
        with command.needs("node"):
            from edged import annotate
            from edged.camera.posenet import PoseNetwork
        told = self._told(annotate.Told)
        if not told:
            self._say("no annotated video: the city was told nothing")
            return {}
        self._say("draws what the city was told into {}".format(self._out))
        until_s = told[-1].at_s + 1 if self._limited else math.inf
        sightings = annotate.look(self._video, PoseNetwork(self._pose), RATE, until_s)
        written = annotate.write(self._video, sightings, told, self._out, CAMERA, until_s)
        made: Dict[str, Any] = {"annotated": written.film, "picture": written.still}
        if self._staged is not None:
            made["fall"] = _verdict(self._staged, told, sightings, annotate.centre)
        return made

    def _told(self, kind: Any) -> List[Any]:
        """Every clip's answer, by the time of its last picture in the video."""
        made = []
        for event in self._received:
            record = event.record
            if not isinstance(record, Observation) or record.kind == RecordKind.FAILED or self._log.began_s is None:
                continue
            leading = reports.leading(record.alerts)
            alert = None
            if leading is not None and leading.message in (MessageType.ALERT, MessageType.UPDATE):
                alert = event.labels[leading.rule], leading.score / ONE
            chances = {label: value / ONE for label, value in zip(self._labels, record.probabilities)}
            made.append(kind(record.claimed_ns / 1e9 - self._log.began_s, record.number, record.tracks, chances, alert,
                             alert is not None and leading is not None and leading.message == MessageType.ALERT))
        return sorted(made, key=lambda clip: (clip.at_s, clip.number))

    def _summarise(self, more: Dict[str, Any]) -> None:
        totals = self._log.totals or {}
        delays = sorted(self._alert_delays_s)
        alerts = sum(alert.message == MessageType.ALERT for event in self._received
                     if isinstance(event.record, Observation) for alert in event.record.alerts)
        summary = {"type": "summary", "placement": totals.get("placement"), "clips": totals.get("clips"),
                   "alerts": alerts}
        for name in ("products_checked", "rejections", "accelerator_bytes", "enclave_peak_bytes", "seconds_per_clip"):
            summary[name] = totals.get(name)
        # The nearest rank that 95 % do not exceed.
        summary["alert_delay_p95_s"] = round(delays[math.ceil(0.95 * len(delays)) - 1], 3) if delays else None
        summary["records"] = len(self._received)
        summary.update(more)
        if self._json:
            print(json.dumps(summary), flush=True)
            return
        if "fall" in summary:
            summary["fall"] = _in_words(summary["fall"])
        print()
        for name, value in summary.items():
            if name != "type":
                print("{:<20} {}".format(name, "-" if value is None else value))

    def _say(self, text: str) -> None:
        if not self._json:
            print(text, flush=True)


def _verdict(truth: staged.Staged, told: List[Any], sightings: List[Any], centre: Any) -> Dict[str, Any]:
    """Whether what began as an alert is the fall that the sample holds, then and of who fell; and how many were not."""
    fall = truth.of(FALL)[0]
    made: Dict[str, Any] = {"person": fall.person, "start_s": fall.start_s, "end_s": fall.end_s, "alert_s": None,
                            "tracks": [], "found": False, "other_alerts": 0}
    for clip in told:
        if not clip.began:
            continue
        people = set()
        for track in clip.tracks:
            place = centre(sightings, track, clip.at_s)
            if place is not None:
                people.add(truth.nearest(clip.at_s, *place))
        timely = fall.start_s <= clip.at_s <= fall.end_s + LATE_S
        if clip.alert[0] == FALL and timely and fall.person in people and not made["found"]:
            made.update(alert_s=round(clip.at_s, 2), tracks=list(clip.tracks), found=True)
        else:
            made["other_alerts"] += 1
    return made


def _in_words(fall: Dict[str, Any]) -> str:
    said = "person {person} falls from {start_s:g} to {end_s:g} s: ".format(**fall)
    if fall["found"]:
        said += "alert at {:g} s, of track {}".format(fall["alert_s"], " and ".join(map(str, fall["tracks"])))
    else:
        said += "NO ALERT OF IT"
    return said + ("; {} other alerts".format(fall["other_alerts"]) if fall["other_alerts"] else "")


class _NodeLog:
    """The node's JSON lines: warnings are shown, and what the summary needs is kept."""

    def __init__(self) -> None:
        self.totals: Optional[Dict[str, Any]] = None
        self.offered_ns: Dict[int, int] = {}  # clip number -> when its last frame had been looked at
        self.began_s: Optional[float] = None  # when the camera showed its first frame

    def read(self, lines: Any) -> None:
        for line in lines:
            try:
                entry = json.loads(line)
            except ValueError:
                entry = None
            if not isinstance(entry, dict) or entry.get("level") in ("warning", "error", "critical"):
                print(line.rstrip() if entry is None else _shown(entry), file=sys.stderr, flush=True)
            if isinstance(entry, dict):
                self._keep(entry)

    def _keep(self, entry: Dict[str, Any]) -> None:
        event = entry.get("event")
        if event == "bridge_stopped":
            self.totals = entry
        elif event == "clip_sent":
            self.offered_ns[entry["number"]] = entry["offered_unix_ns"]
        elif event == "camera_live" and self.began_s is None:
            self.began_s = entry["since_unix_ns"] / 1e9


def _shown(entry: Dict[str, Any]) -> str:
    hidden = ("time", "level", "logger", "id")
    said = ["{}={}".format(key, value) for key, value in entry.items() if key not in hidden + ("event", "message")]
    return "node: {}".format(" ".join([str(entry.get("event") or entry.get("message"))] + said))


if __name__ == "__main__":
    sys.exit(main())
