"""``scripts/demo``: from camera to the city's screen, all processes for real, on this machine.

Key and evaluation enclave (emulated: they protect nothing), bridge, camera and outbox run under ``edged run`` as they
would on a node; the city's subscriber runs here. Every party's keys are drawn for this one run. Without a source the
camera replays people that edged/camera/motion.py makes up: two walk, one jumps, one falls.
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

from edged import command
from edged.alerts import cityconfig
from edged.alerts.record import Observation
from edged.alerts.reports import Received
from edged.alerts.screen import Screen
from edged.alerts.subscriber import Subscriber
from edged.enclave.wire import MessageType
from edged.errors import EdgedError, MissingInput, UsageError
from edged.site import Site, Terms, loopback_address

CAMERA = "gate"
SEED, SECONDS = 3, 30.0
CAST = ("walking", "walking", "jumping", "falling")
# Least probability, cool-down: what would be agreed in earnest, too.
RULES = (("falling", 0.6, 30), ("jumping", 0.7, 10))
LINGER_S = 5.0  # for the last records, once the node has ended


class _NodeEnded(EdgedError):
    """The node's own exit code; it has said why."""

    def __init__(self, code: int) -> None:
        super().__init__("edged run ended with {}: see its lines above".format(code))
        self.exit_code = code


def main(arguments: Optional[List[str]] = None) -> int:
    parser = command.parser("demo", __doc__)
    parser.add_argument("source", nargs="?", metavar="VIDEO|RTSP-URL|DEVICE", help="instead of generated people")
    parser.add_argument("--json", action="store_true", help="JSON lines: every record, then a summary")
    parser.add_argument("--seconds", type=float, metavar="N",
                        help="end after N seconds (a camera never ends by itself)")
    parser.add_argument("--placement", choices=("masked", "inputs", "enclave"), default="masked",
                        help="where the linear products are computed (default masked)")
    parser.set_defaults(run=run)
    return command.run(parser, arguments)


def run(given: argparse.Namespace) -> None:
    if given.seconds is not None and given.seconds <= 0:
        raise UsageError("--seconds {:g}: more than 0".format(given.seconds))
    with tempfile.TemporaryDirectory(prefix="edged-demo-") as folder:
        _Demo(given, folder).run()


class _Demo:
    """One run in a folder of its own."""

    def __init__(self, given: argparse.Namespace, folder: str) -> None:
        with command.needs("node"):
            from edged.model import bundled
        self._json = given.json
        self._seconds: Optional[float] = given.seconds
        self._events: Tuple[Any, ...] = ()  # what a recording says of itself
        lines = self._camera(given.source, folder)
        self._say("sets up: keys of both owners, agreement, package (placement {})".format(given.placement))
        self._site = Site(folder, bundled.model(), bundled.MODEL_ID, Terms(RULES), {CAMERA: lines},
                          loopback_address(), given.placement, log="json")
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
        self._summarise()

    def _camera(self, source: Optional[str], folder: str) -> List[str]:
        """The lines of its table."""
        if source is None:
            from edged.camera import motion
            recording = motion.generate(SEED, self._seconds or SECONDS, cast=CAST)
            path = os.path.join(folder, "people.jsonl.gz")
            recording.save(path)
            self._events = recording.events
            self._seconds = None  # it ends by itself
            return ["source = {}".format(json.dumps("recording:" + path))]
        if "://" not in source:
            if not os.path.exists(source):
                raise MissingInput("{}: no such video or device".format(source))
            source = os.path.abspath(source)
        lines = ["source = {}".format(json.dumps(source))]
        if os.path.isfile(source):
            lines.append("speed = 0")  # every picture counts, however long the pose network takes
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

    def _summarise(self) -> None:
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
        if self._json:
            print(json.dumps(summary), flush=True)
            return
        print()
        for name, value in summary.items():
            if name != "type":
                print("{:<20} {}".format(name, "-" if value is None else value))

    def _say(self, text: str) -> None:
        if not self._json:
            print(text, flush=True)


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
