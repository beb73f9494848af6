"""What a node says of itself: a closed catalogue of events, each with a stable id, a meaning and a remedy.

``emit(log, "camera_lost", camera="gate")`` logs one line, ``camera_lost camera=gate``, or in JSON
``{"time": ..., "level": "warning", "id": "E301", "event": "camera_lost", "camera": "gate"}``.

Ids are for ever: E1xx bridge, E2xx enclave, E3xx camera, E4xx outbox and spool, E5xx supervisor and
configuration, E6xx the city's side. An event that is no longer logged keeps its id.
Neither secrets nor skeletons: names of fields that promise one are refused, and so are long bytes.
"""

import datetime
import json
import logging
import math
import re
import sys
from typing import Any, Dict, NamedTuple

_FORBIDDEN = re.compile(r"(^|_)(keys?|secrets?|password|masks?|pad|seeds?|keypoints?|coordinates|skeletons?|joints|"
                        r"pixels|picture|frame_data|logits|probabilities|plaintext)$")
_BYTES_MAX = 32  # a digest; what is longer is content
_TEXT_MAX = 500
# What JSON lines have of their own, and what emit is called with.
_TAKEN = ("time", "level", "id", "event", "logger", "message")


class Event(NamedTuple):
    id: str
    name: str
    level: int
    meaning: str
    remedy: str


_NONE = "none needed"

EVENTS = (
    # The bridge.
    Event("E101", "clip_evaluated", logging.INFO, "the enclave judged a clip; its records are in the spool", _NONE),
    Event("E102", "clip_failed", logging.WARNING, "all attempts at a clip failed; the city gets a record `failed`",
          "repeated: run `edgectl bench`; an accelerator that answers wrongly has to be replaced"),
    Event("E103", "clip_given_up", logging.WARNING,
          "a clip that the enclave had begun will not come again; the city gets a record `failed`",
          "expected after a restart; repeated: see why the camera or the connection breaks"),
    Event("E104", "clips_postponed", logging.WARNING,
          "the enclave takes no clips of this camera for the reason named; they are sent again",
          "locked: see the outbox and the city's subscriber; rate, agreement: ask the city; full: see spool_failing; "
          "the city is told after ten seconds, of rate and full after a minute"),
    Event("E105", "session_refused", logging.WARNING, "the enclave grants this camera no session; it asks again",
          "see the reason: agreements of enclave.agreements, slots of enclave.keys"),
    Event("E106", "message_malformed", logging.WARNING,
          "something on the bridge's socket is no message of ours, or comes from nobody known; it was dropped",
          "install matching releases; see who may write to the run folder"),
    Event("E107", "enclave_away", logging.WARNING,
          "there is no connection to the enclave, or it broke; it is tried again and again",
          "see the enclave's own messages; `edgectl status` shows when it is back"),
    Event("E108", "enclave_up", logging.INFO,
          "agreements are in force, the model is loaded; where it is not the `same` enclave, cameras say hello again",
          _NONE),
    Event("E109", "state_refused", logging.WARNING,
          "the enclave does not accept the spool's sealed state: the epoch begins as unclean and names none before it",
          "expected after the device key or the application changed; else somebody put an old or foreign spool there"),
    Event("E110", "epoch_closed", logging.INFO, "the bridge stopped with nothing unfinished", _NONE),
    Event("E118", "bridge_stopped", logging.INFO, "the bridge ends; what it did since it started", _NONE),
    Event("E111", "beacon_refused", logging.WARNING,
          "the enclave refused a beacon: no recipient's, of another epoch, or replayed",
          "expected once after a restart; repeated: the city's alert key or agreement is another"),
    Event("E112", "exercise_sealed", logging.INFO, "edgectl test-alert had an alert marked Exercise sealed", _NONE),
    Event("E113", "spool_failing", logging.ERROR,
          "records cannot be stored: nothing is confirmed, the enclave keeps them and soon takes no more clips",
          "see the reason: make room, or mend the disk"),
    Event("E114", "spool_back", logging.INFO, "records are stored again, those that waited too", _NONE),
    Event("E115", "records_evicted", logging.ERROR,
          "the spool was at its caps, and records went that no subscriber had acknowledged; the city is told which",
          "see why the subscriber is away; larger outbox.max_rows, max_bytes, max_age_s"),
    Event("E116", "accelerator_taken", logging.INFO, "who computes the masked products from now on", _NONE),
    Event("E117", "accelerator_degraded", logging.WARNING,
          "the GPU is not used, for the reason named: the CPU computes the same products, more slowly",
          "see the reason; the GPU is tried again by itself, with growing pauses"),
    Event("E119", "agreement_taken_up", logging.INFO,
          "an agreement that follows one in force is in force beside it; its cameras go over now", _NONE),
    Event("E120", "agreement_followed", logging.INFO,
          "no camera was left under an agreement that another follows: its last records name that one", _NONE),
    Event("E121", "agreement_waits", logging.WARNING,
          "an agreement that is to follow another is not in force yet; the one before goes on",
          "see the reason: install the owners' grants, then `edgectl reload`"),
    Event("E122", "agreement_faulty", logging.WARNING,
          "what lies beside an agreement as the one that follows it is not usable; the one before goes on",
          "see the reason; `edgectl rotate` with the city's bundle writes it anew once the file is removed"),
    Event("E123", "agreement_ends", logging.WARNING,
          "by this node's clock the agreement ends in so many days, and nothing is judged under it then; told daily",
          "ask the city for the bundle of the one that follows, then `edgectl rotate`"),
    Event("E124", "agreement_ended", logging.ERROR,
          "by this node's clock the agreement is over: nothing is judged under it; told daily",
          "as for agreement_ends, at once; where the date is wrong, see to the node's time service"),
    Event("E125", "agreement_left_out", logging.WARNING,
          "an agreement is not in force, and its cameras' clips wait; the others are judged",
          "see the reason; it is tried again within a minute, and by `edgectl reload`"),
    Event("E126", "agreement_taken_in", logging.INFO, "an agreement that was left out is in force", _NONE),
    Event("E127", "camera_silent", logging.ERROR,
          "a camera's process does not answer any more: the city is told that the camera is lost",
          "see that process's log and `systemctl status edged-camera@NAME`; it is started again unless its "
          "configuration is refused"),
    Event("E128", "model_not_loaded", logging.ERROR,
          "every agreement that permits this placement has ended, as the enclave knows by beacons and floors: the "
          "package is not loaded and nothing is judged, while heartbeats go on",
          "ask the city for the bundle of the next agreement, then `edgectl rotate`"),
    # The enclave.
    Event("E201", "enclave_ready", logging.INFO, "both applications of the host port run and hold their keys", _NONE),
    Event("E202", "enclave_unprotected", logging.WARNING,
          "the host port is in use: its keys, weights and clips are open to root and to its user",
          "for development and tests only; a node in the field has kind = \"trusty\""),
    Event("E203", "enclave_ended", logging.ERROR, "an application of the host port ended by itself",
          "it is started again; see its messages above, and report it where it happens twice"),
    Event("E204", "grants_restored", logging.INFO,
          "the key application got back the keys that were granted to it, as of so many changes", _NONE),
    Event("E205", "grants_locked", logging.WARNING,
          "this platform has no monotonic store: granted keys are not used before both owners say anew that they stand "
          "by them",
          "`edgectl fetch-grants` from both key servers, as edged-grants@.service does it; or `edgectl install-grant` "
          "with their floors as files"),
    Event("E206", "certificate_ends", logging.WARNING,
          "by this node's clock the device's certificate ends in so many days; key servers give it no keys then, nor "
          "unlock those that it has; told daily",
          "enrol the device again: `edged-city ca challenge`, `scripts/enrol --challenge`, `edged-city ca enrol "
          "--again`, `scripts/enrol --chain`"),
    Event("E207", "certificate_ended", logging.ERROR,
          "by this node's clock the device's certificate is over: evidence of it does not pass; told daily",
          "as for certificate_ends, at once; where the date is wrong, see to the node's time service"),
    # Cameras.
    Event("E301", "camera_lost", logging.WARNING,
          "no pictures, or the same one all the time; the city is told, and the camera is tried again and again",
          "see the reason: power, network, address, password; `edgectl status` shows when it is back"),
    Event("E302", "camera_live", logging.INFO, "the camera gives pictures, or the recording runs", _NONE),
    Event("E303", "camera_ended", logging.INFO, "the file is at its end and all its clips are done", _NONE),
    Event("E310", "session_opened", logging.INFO,
          "the enclave granted this camera a session; `again` clips of the last one are sent again", _NONE),
    Event("E311", "clip_sent", logging.INFO, "a clip went to the bridge for the first time in this session", _NONE),
    Event("E312", "clip_done", logging.INFO, "the bridge says that the clip's records are in the spool", _NONE),
    Event("E313", "clip_skipped", logging.WARNING,
          "more clips than the enclave can judge, or it is away: a waiting one was dropped for a newer one; the city "
          "is told how many, once a minute at most",
          "often: a longer hop_s, fewer cameras, group = \"few\", or a faster accelerator; see `edgectl bench`"),
    Event("E314", "clip_refused", logging.ERROR, "the enclave refused a clip for good; it is lost",
          "every clip: the camera's key is not of the agreement's data key: put that of the agreement's bundle there "
          "again; for a new agreement `edgectl rotate` its bundle"),
    Event("E315", "session_lost", logging.INFO, "the camera's session is over; a new one is asked for", _NONE),
    Event("E316", "session_waits", logging.INFO, "the bridge grants no session yet",
          "for long: see the reason, and the bridge's and the enclave's own lines"),
    Event("E317", "clip_waits", logging.WARNING, "the bridge takes no clip at present; it is sent again until it does",
          "for long: see the reason; `locked`: no beacon of the city; `rate`: the agreement's clips are used up"),
    Event("E318", "agreement_changed", logging.INFO, "the camera goes over to the agreement that follows its own",
          _NONE),
    Event("E319", "agreement_refused", logging.WARNING,
          "the bridge names an agreement that follows this camera's, and its key cannot be had; the camera goes on",
          "see the reason; run `edgectl rotate` with the city's bundle again"),
    Event("E320", "clock_jump", logging.WARNING, "this node's clock was set while the camera ran; its clips begin anew",
          "often: see to the node's time service (systemd-timesyncd, chrony)"),
    Event("E321", "track_short", logging.INFO, "so many people were seen too briefly for a clip, less than a second",
          "very many: pose estimation is too slow or too unsure: fewer frames_per_second, a better view"),
    Event("E322", "tracks_crowded", logging.WARNING, "more people at once than a camera follows (64)",
          "aim the camera at a smaller area, or use two"),
    Event("E323", "frames_late", logging.INFO, "frames were left out because time stood still or went back a little",
          "often: see to the node's time service (systemd-timesyncd, chrony)"),
    Event("E324", "keys_unread", logging.WARNING,
          "the camera's key or agreement cannot be read again; it goes on with what it had, and tries again",
          "see the reason; in the middle of a rotation: run `edgectl rotate` with the city's bundle again"),
    # Outbox and spool.
    Event("E401", "subscriber_up", logging.INFO, "a subscriber answers", _NONE),
    Event("E402", "subscriber_away", logging.WARNING, "a subscriber has not answered for some seconds",
          "its records wait in the spool; check its address and server_key in [[subscriber]], the network, and whether "
          "the city lists this node's public key (`edged-city allow`)"),
    Event("E403", "records_waiting", logging.WARNING, "a subscriber is still away and records wait for it",
          "as for subscriber_away, before the spool's caps evict the oldest ones"),
    Event("E404", "record_refused", logging.ERROR, "a subscriber did not take a record; it is kept for its next start",
          "the subscriber reports why: another recipient, key or agreement, or a record that was altered"),
    Event("E405", "record_damaged", logging.ERROR, "a row of the spool is no record any more; it is passed over",
          "check the disk; the subscriber reports the gap"),
    Event("E406", "answer_refused", logging.WARNING, "a subscriber sent something that is no answer",
          "update both ends"),
    Event("E407", "beacon_dropped", logging.WARNING, "the bridge did not take a beacon: it is not there, or busy",
          "repeated: the city will report this node as silent; see the bridge's log"),
    # Processes.
    Event("E501", "process_started", logging.INFO, "the supervisor started a process", _NONE),
    Event("E502", "process_ended", logging.WARNING, "a process ended and will be started again after the delay named",
          "see what the process itself said last; `edgectl status` counts restarts"),
    Event("E503", "process_refused", logging.ERROR,
          "a process cannot do its work: what it was given is wrong; a camera's is started again after the delay that "
          "is named, if one is, and the other cameras go on; else the run ends",
          "correct what its last line names, and check with `edgectl config check`; where no delay is named, start "
          "edged again"),
    Event("E504", "process_done", logging.INFO, "a camera reached the end of its file", _NONE),
    Event("E505", "process_killed", logging.WARNING, "a process did not stop in time when asked, and was killed",
          "see what it said last; the spool keeps what was not delivered"),
    Event("E506", "process_failed", logging.ERROR, "this process ends; the reason is the line it would print",
          "as the reason says; the exit code is that of `edgectl config check`"),
    Event("E508", "process_hung", logging.ERROR,
          "a process was not ready in time, or has not moved for the time of its watchdog: killed and started again",
          "see what it said last; where it happens again, send its log to the maker"),
    Event("E507", "node_stopping", logging.INFO, "the supervisor stops its processes, in order", _NONE),
    # The city's side.
    Event("E601", "subscriber_listening", logging.INFO, "the city's subscriber awaits its nodes", _NONE),
    Event("E602", "nodes_changed", logging.INFO, "the allow-list changed and was read again", _NONE),
    Event("E603", "nodes_refused", logging.ERROR,
          "the allow-list changed and is wrong; the one read before stays in force",
          "correct what the reason names"),
)

BY_NAME: Dict[str, Event] = {event.name: event for event in EVENTS}


def emit(log: logging.Logger, name: str, /, **fields: Any) -> None:
    """Log one event. Raises ValueError for a name that is not in the catalogue or a field that may not be logged."""
    event = BY_NAME.get(name)
    if event is None:
        raise ValueError("{}: no event of edged/events.py".format(name))
    for field, value in fields.items():
        if field in _TAKEN or _FORBIDDEN.search(field):
            raise ValueError("{}: {} may not be logged".format(name, field))
        if isinstance(value, (bytes, bytearray, memoryview)) and len(bytes(value)) > _BYTES_MAX:
            raise ValueError("{}: {} is {} bytes: log its length".format(name, field, len(bytes(value))))
    log.log(event.level, "%s", _Line(event, fields))


class _Line:
    """An event on its way through logging, which formats it only if it is shown."""

    def __init__(self, event: Event, fields: Dict[str, Any]) -> None:
        self.event = event
        self.fields = {field: _plain(value) for field, value in fields.items()}

    def __str__(self) -> str:
        return " ".join([self.event.name] + ["{}={}".format(field, _quoted(value))
                                             for field, value in self.fields.items()])


class JsonFormatter(logging.Formatter):
    """One JSON object a line, of events and of every other message."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.datetime.fromtimestamp(record.created, datetime.timezone.utc)
        shown: Dict[str, Any] = {"time": time.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
                                 "level": record.levelname.lower(), "logger": record.name}
        line = record.args[0] if isinstance(record.args, tuple) and len(record.args) == 1 else None
        if isinstance(line, _Line):
            shown.update(id=line.event.id, event=line.event.name)
            shown.update(line.fields)
        else:
            shown["message"] = record.getMessage()
        if record.exc_info:
            shown["traceback"] = self.formatException(record.exc_info)
        return json.dumps(shown)


def set_up(form: str, level: int = logging.INFO) -> None:
    """Of a daemon: from now on everything is logged to standard error as ``form`` (text | json), from ``level`` on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else logging.Formatter("%(name)s: %(message)s"))
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)


def _plain(value: Any) -> Any:
    """Something that JSON knows, and short."""
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        return float("{:.6g}".format(value)) if math.isfinite(value) else str(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value).hex()
    text = str(value)
    return text if len(text) <= _TEXT_MAX else text[:_TEXT_MAX - 4] + " ..."


def _quoted(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return str(value).lower()
    text = str(value)
    return text if re.fullmatch(r"[!#-&(-<>-\[\]-~]+", text) else json.dumps(text)
