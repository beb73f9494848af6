"""What a subscriber reports: its events, each as a JSON line and as a line for people.

    Received                                      a record, opened: passed on once
    Gap, GapClosed, Replay, EpochBegan, Rollback, AfterEnd
                                                  alerts/sequence.py: what the enclave's numbers tell
    Succeeded                                     an agreement ended on a node, and which one follows
    Silence, Back, StaleHeartbeat, JudgesNothing, JudgesAgain
                                                  alerts/liveness.py: what its heartbeats tell
    Altered, Foreign                              what was refused, and from whom
    Skew                                          the node's clock against the city's
    Expired                                       a clip after the end of its agreement's time
    AgreementEnd                                  an agreement's time is nearly over, or over
    Suppressed                                    more of the same, not reported one by one

Pure. Whatever a node claims is escaped before it gets to a terminal.
"""

import datetime
import json
import re
from dataclasses import dataclass, fields
from typing import Any, Callable, Dict, Optional, Sequence, Tuple, Type

from edged import canonical
from edged.alerts.liveness import Back, JudgesAgain, JudgesNothing, Silence, StaleHeartbeat
from edged.alerts.record import Alert, Claim, Epoch, Heartbeat, Observation, Record, Succession
from edged.alerts.sequence import NO_EPOCH, AfterEnd, EpochBegan, Gap, GapClosed, Replay, Rollback
from edged.enclave.wire import MessageStatus, MessageType, RecordKind
from edged.trust import validity

ONE = 65536  # Q16
RESEND = "resend"  # what Suppressed calls a Replay of that kind


@dataclass(frozen=True)
class Received:
    """labels : of the agreement's rules      received_ns : Unix, this machine's clock
    row : of the journal; rises for ever, and is the same when a restart passes the record on again"""

    record: Record
    node: str
    late: bool
    labels: Tuple[str, ...]
    received_ns: int
    row: int = 0


@dataclass(frozen=True)
class Succeeded:
    """Agreement ``number`` ended on this node: what follows comes under ``next_number`` (its digest: successor).

    next_key : id of this recipient's alert key there, None: it is none of its recipients
    todo : what the operator has to do; "": nothing
    """

    node: str
    number: int
    next_number: int
    successor: bytes
    next_key: Optional[bytes]
    todo: str


@dataclass(frozen=True)
class Altered:
    """What this node sent does not open, or no enclave would have sealed it."""

    node: str
    reason: str


@dataclass(frozen=True)
class Foreign:
    """who : a node's name, or a CURVE key that is not listed. What it sent was not taken."""

    who: str
    reason: str


@dataclass(frozen=True)
class Skew:
    """The node claims times that are off the city's by so many seconds; 0: no longer."""

    node: str
    seconds: float


@dataclass(frozen=True)
class Expired:
    """A clip's record under agreement ``number`` whose time by the city's beacons, or else its arrival, is so many
    seconds after the end of the agreement's time. It was passed on."""

    node: str
    epoch: bytes
    seq: int
    number: int
    late_s: float
    arrived: bool


@dataclass(frozen=True)
class AgreementEnd:
    """The time of agreement ``number`` ends at until_s (Unix), in left_s seconds; below 0: it is over, and nothing is
    judged under it. nodes : that are under it, by what was heard of them"""

    number: int
    until_s: int
    left_s: float
    nodes: Tuple[str, ...]


@dataclass(frozen=True)
class Suppressed:
    """So many more events of this type, of this node, were not reported one by one."""

    node: str
    what: str
    count: int


NAMES: Dict[Type[Any], str] = {
    Received: "record", Gap: "gap", GapClosed: "gap_closed", Replay: "replay", EpochBegan: "epoch_began",
    Rollback: "rollback", Silence: "silence", Back: "back", StaleHeartbeat: "stale_heartbeat", Altered: "altered",
    Foreign: "foreign", Skew: "skew", Suppressed: "suppressed", AfterEnd: "after_end", Succeeded: "succeeded",
    Expired: "expired", AgreementEnd: "agreement_end", JudgesNothing: "judges_nothing", JudgesAgain: "judges_again",
}  # fmt: skip
_TYPES = {name: kind for kind, name in NAMES.items()}


def content(event: Any) -> Dict[str, Any]:
    """The fields of an event other than Received, for CBOR; ``rebuilt`` is its inverse."""
    return {entry.name: getattr(event, entry.name) for entry in fields(event)}


def rebuilt(name: str, values: Dict[str, Any]) -> Any:
    return _TYPES[name](**{key: _tuples(value) for key, value in values.items()})


def line(event: Any) -> Dict[str, Any]:
    """The event for JSON."""
    if isinstance(event, Received):
        return _record_line(event)
    shown = {"type": NAMES[type(event)]}
    for entry in fields(event):
        value = getattr(event, entry.name)
        shown[entry.name] = value.hex() if isinstance(value, bytes) else round(value, 3) if isinstance(
            value, float) else value
    return shown


def _record_line(event: Received) -> Dict[str, Any]:
    record = event.record
    header = record.header
    shown: Dict[str, Any] = {"type": "record", "kind": record.kind.name.lower(), "node": event.node}
    if isinstance(record, Observation):
        first = leading(record.alerts)
        seen = [{"message": alert.message.name.lower(), "label": event.labels[alert.rule],
                 "score": _score(alert), "began_with_clip": alert.event} for alert in record.alerts if alert.message]
        shown.update(
            label=event.labels[first.rule] if first else None, score=_score(first) if first else None,
            camera=camera_name(record.camera), tracks=list(record.tracks),
            time=iso(record.time_ns or record.claimed_ns), status=record.status.name.capitalize(),
            message=first.message.name.capitalize() if first else None, clip=record.number, persons=record.persons,
            alerts=seen, claimed_time=iso(record.claimed_ns), model=record.model.hex())
        if record.probabilities:
            shown["probabilities"] = [round(value / ONE, 5) for value in record.probabilities]
        if record.skeletons:
            shown["skeletons"] = {"frames": record.skeletons.frames, "joints": record.skeletons.joints}
    elif isinstance(record, Epoch):
        shown.update(time=iso(event.received_ns), counter=record.counter, unclean=record.unclean,
                     previous=record.previous.hex(), previous_seq=record.previous_seq)
    elif isinstance(record, Heartbeat):
        shown.update(time=iso(record.time_ns), counter=record.counter, uptime_s=round(record.uptime_ns / 1e9, 3),
                     config=record.config.hex(), clips=[
                         {"camera": count.camera.hex(), "accepted": count.accepted, "failed": count.failed}
                         for count in record.cameras])
    elif isinstance(record, Claim):
        shown.update(time=iso(event.received_ns), claim=claimed(record.data))
    elif isinstance(record, Succession):
        shown.update(time=iso(event.received_ns), next_number=record.number, successor=record.successor.hex(),
                     next_key=record.next_key.hex() if record.next_key else None)
    shown.update(epoch=header.epoch.hex(), seq=header.seq, late=event.late, received=iso(event.received_ns),
                 row=event.row)
    return shown


def leading(alerts: Sequence[Alert]) -> Optional[Alert]:
    """The one to show where a clip has several: an event that begins before one that goes on, then by score."""
    order = (MessageType.ALERT, MessageType.UPDATE, MessageType.CANCEL)
    said = [alert for alert in alerts if alert.message]
    return min(said, key=lambda alert: (order.index(alert.message), -alert.score)) if said else None


def _score(alert: Alert) -> float:
    return round(alert.score / ONE, 5)


def camera_name(camera: bytes) -> str:
    """As it is configured on the node; in hex where it is no name."""
    name = camera.rstrip(b"\0")
    return name.decode("ascii") if re.fullmatch(rb"[a-z0-9-]{1,31}", name) else camera.hex()


def claimed(data: bytes) -> Any:
    """What the node claims: the map that it is in CBOR, or hex."""
    try:
        value = canonical.decode(data, "claim")
        json.dumps(value, default=_plain, allow_nan=False)
    except Exception:  # it may be anything at all, nested at will
        return data.hex()
    return json.loads(json.dumps(value, default=_plain, allow_nan=False)) if isinstance(value, dict) else data.hex()


def _plain(value: Any) -> str:
    if isinstance(value, bytes):
        return value.hex()
    raise TypeError(type(value))


def iso(time_ns: int) -> str:
    """Unix nanoseconds in UTC, to the millisecond; what no calendar holds as a number."""
    try:
        at = datetime.datetime.fromtimestamp(time_ns // 1000000 / 1000, datetime.timezone.utc)
    except (OverflowError, ValueError, OSError):
        return str(time_ns)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _tuples(value: Any) -> Any:
    return tuple(_tuples(one) for one in value) if isinstance(value, list) else value


# ------------------------------------------------------------------------------- for people

# EpochBegan says what EPOCH says, Succeeded what SUCCESSION says.
_ROUTINE = (RecordKind.OBSERVATION, RecordKind.HEARTBEAT, RecordKind.EPOCH, RecordKind.SUCCESSION)
_RANGES_SHOWN = 8
_UNJUDGED = ("lost", "refused", "waits")  # states that a node claims of a camera: nothing of it is judged


def routine(event: Any) -> bool:
    """Whether a person need not see it."""
    if isinstance(event, Received):
        return event.record.kind in _ROUTINE
    return isinstance(event, Replay) and event.resend or isinstance(event, Suppressed) and event.what == RESEND


def text(event: Any, now_ns: int) -> str:
    """One line: time, node, what happened; what is wrong is loud."""
    if isinstance(event, Received):
        return _record_text(event)
    who = event.who if isinstance(event, Foreign) else "-" if isinstance(event, AgreementEnd) else event.node
    return _row(now_ns, who, "-", _SAID[type(event)](event))


def _record_text(event: Received) -> str:
    record = event.record
    late = "  late" if event.late else ""
    if not isinstance(record, Observation):
        claim = claimed(record.data) if isinstance(record, Claim) else None
        said = "claims {}".format(_quoted(claim)) if isinstance(record, Claim) else ""
        loud = "!!! " if isinstance(claim, dict) and claim.get("state") in _UNJUDGED else ""
        return _row(event.received_ns, event.node, "-", "{}{:<8} {}{}".format(loud, record.kind.name, said, late))
    parts = ["{} {}{}".format(alert.message.name, event.labels[alert.rule],
                              " {:.2f}".format(alert.score / ONE) if alert.score else "")
             for alert in sorted(record.alerts, key=lambda alert: -alert.score) if alert.message]
    said = "  ".join(parts) or record.kind.name
    if record.status != MessageStatus.ACTUAL:
        said = "*** {} *** {}".format(record.status.name, said)
    tracks = " ".join(map(str, record.tracks))
    return _row(record.time_ns or record.claimed_ns, event.node, camera_name(record.camera), "{}  {}clip {}{}".format(
        said, "tracks {}  ".format(tracks) if tracks else "", record.number, late))


def _row(time_ns: int, node: str, camera: str, said: str) -> str:
    return "{}  {:<16} {:<12} {}".format(re.sub(r"\.\d+Z$", "Z", iso(time_ns)), node, camera, said)


def _quoted(value: Any) -> str:
    shown = json.dumps(value)  # escapes what a terminal would obey
    return shown if len(shown) <= 400 else shown[:396] + " ..."


def _began(event: EpochBegan) -> str:
    first = event.previous == NO_EPOCH
    said = "epoch {} began, {}".format(
        event.counter, "the first that its enclave knows" if first else "after epoch {}..".format(
            event.previous[:4].hex()))
    if event.unclean and not first:
        said += ": UNCLEAN: what the enclave had not handed over is lost"
    if event.lost:
        more = len(event.lost) - _RANGES_SHOWN
        said += ": {}{} of it never came".format(", ".join(map(_range, event.lost[:_RANGES_SHOWN])),
                                                 " and {} more".format(more) if more > 0 else "")
    if event.untold is not None:
        said += ": END UNKNOWN: nothing says which was the last record of epoch {}..{}".format(
            event.untold[:4].hex(), ", with {} unknown between".format(event.hidden) if event.hidden else "")
    elif event.hidden:
        said += ": {} in between had no records for this recipient".format(event.hidden)
    return "!!! " + said if event.untold is not None or event.unclean and not first else said


def _range(part: Sequence[int]) -> str:
    return "record {}".format(part[0]) if part[0] == part[1] else "records {} to {}".format(*part)


def _succeeded(event: Succeeded) -> str:
    said = "agreement {} ends, {} follows: key {}".format(
        event.number, event.next_number, event.next_key.hex() if event.next_key else "none")
    return "!!! {}: {}".format(said, event.todo) if event.todo else said


def _after_end(event: AfterEnd) -> str:
    where = " of epoch {}..: after its end, in a new epoch".format(event.ended_in[:4].hex()) if event.ended_in else ""
    return ("!!! AFTER ITS END: record {} of epoch {}.. is under agreement {}.., which ended with record {}{}: shown "
            "all the same: check the node").format(event.seq, event.epoch[:4].hex(), event.agreement[:4].hex(),
                                                   event.end, where)


def _expired(event: Expired) -> str:
    said = "came {:.0f} s after agreement {} expired: late, or judged in secret: shown all the same: if the node was " \
           "not cut off, check it" if event.arrived else \
           "was judged {:.0f} s after agreement {} expired: shown all the same: check the node"
    return "!!! EXPIRED: record {} of epoch {}.. {}".format(
        event.seq, event.epoch[:4].hex(), said.format(event.late_s, event.number))


def _agreement_end(event: AgreementEnd) -> str:
    said = validity.words(event.number, event.until_s, event.left_s)
    nodes = ", ".join(event.nodes) if event.nodes else "no node that was heard"
    if event.left_s <= 0:
        return "!!! ENDED: {}: nothing is judged under it any more: {}: have the next one signed, `edged-city adopt` " \
               "it, and `edgectl rotate` each node".format(said, nodes)
    return "!!! ENDS SOON: {}, and nothing is judged under it then: {}: have the next one signed in time".format(
        said, nodes)


def _silence(event: Silence) -> str:
    if event.agreement is None:
        return "!!! SILENT: no answer to a beacon for {:.0f} s".format(event.since_s)
    return ("!!! SILENT under agreement {}: no answer to a beacon for {:.0f} s, and it answers under another one: "
            "check the node").format(event.agreement, event.since_s)


def _stale(event: StaleHeartbeat) -> str:
    age = "no beacon of this subscriber since it started" if event.age_s is None else "one of {:.0f} s ago".format(
        event.age_s)
    return "!!! STALE HEARTBEAT: answers {}: late or harvested, it proves nothing".format(age)


_SAID: Dict[Type[Any], Callable[[Any], str]] = {
    Gap: lambda event: "!!! GAP: {} of epoch {}.. missing".format(
        _range((event.first, event.last)), event.epoch[:4].hex()),
    GapClosed: lambda event: "gap closed: {} of epoch {}.. came after all".format(
        _range((event.first, event.last)), event.epoch[:4].hex()),
    Replay: lambda event: ("record {} of epoch {}.. was sent again: known already" if event.resend else
                           "!!! REPLAY: record {} of epoch {}.. again").format(event.seq, event.epoch[:4].hex()),
    EpochBegan: _began,
    Rollback: lambda event: "!!! ROLLBACK: the node's sealed state was set back: {}".format(event.reason),
    Silence: _silence,
    AfterEnd: _after_end,
    Expired: _expired,
    Succeeded: _succeeded,
    AgreementEnd: _agreement_end,
    Back: lambda event: "answers again{}".format(
        "" if event.agreement is None else " under agreement {}".format(event.agreement)),
    JudgesNothing: lambda event: "!!! JUDGES NOTHING: for {:.0f} s it answers under agreements alone that ended".format(
        event.since_s),
    JudgesAgain: lambda event: "judges again, under an agreement in force",
    StaleHeartbeat: _stale,
    Altered: lambda event: "!!! ALTERED: {}".format(event.reason),
    Foreign: lambda event: "!!! FOREIGN: {}".format(event.reason),
    Skew: lambda event: "its clock agrees with the city's again" if not event.seconds else
    "!!! CLOCK: claims times that are {:.0f} s {} the city's".format(
        abs(event.seconds), "ahead of" if event.seconds > 0 else "behind"),
    Suppressed: lambda event: "!!! {} more events `{}` were not reported one by one".format(event.count, event.what),
}
