"""The bridge process: clips of all cameras in, by turns; sealed records into the spool; nothing said before it holds.

    clip -> fair queue -> enclave and accelerator -> records -> spool (durable) -> confirmed to the enclave
                                                                                 -> `done` to the camera

One thread and one loop: take what came over the socket, then do one piece of work. Whatever dies meanwhile, nothing is
lost: a clip stays with its camera until `done`, a record in the enclave until it is confirmed. A broken connection is
made anew from the start (link.py). Where the enclave itself was started anew, its sessions are gone, and every camera
is asked to say hello again; where only this process was, they go on (sessions.py).
"""

import hashlib
import logging
import time
from collections import deque
from contextlib import ExitStack
from typing import Any, Callable, Collection, Deque, Dict, Optional, Sequence, Tuple

import cbor2

from edged.alerts.spool import Caps, Spool
from edged.beside import judged_under
from edged.bus import Message, Router
from edged.config import Config
from edged.enclave import wire
from edged.enclave.certified import Watch
from edged.enclave.keystore import KeyStore
from edged.enclave.wire import Listed
from edged.errors import ConfigError, EdgedError, EnclaveError, PackageError, SpoolError
from edged.events import emit
from edged.notify import Notifier, Watchdog
from edged.offload import messages
from edged.offload.backoff import Backoff
from edged.offload.chosen import Accelerators, chosen
from edged.offload.desk import Desk
from edged.offload.followed import Followed
from edged.offload.link import KeysMissing, Link, NoRoom, Papers, is_passing, read_agreements, read_papers
from edged.offload.messages import (Beacon, CameraStatus, ExerciseRequest, Hello, KeysCame, Offer, ReloadRequest,
                                    StatusRequest)
from edged.offload.sessions import Sessions
from edged.offload.statements import Statements
from edged.offload.succession import Succession
from edged.trust import validity
from edged.trust.agreement import DAY_S, Agreement

log = logging.getLogger(__name__)

POLL_S = 0.2  # how late a request to stop may be noticed
KEYS_PATIENCE_S = 10.0  # an enclave that just started may not have its keys yet
PING_S = 1.0  # an idle bridge notices within this that the enclave is gone
PARTS_S = 1.0  # for cameras to hear the last answers
MESSAGES_MAX = 64  # taken from the socket between two pieces of work
EXERCISES_MAX = 8  # that wait
LEFT_OUT_S, LEFT_OUT_MAX_S = 5.0, 60.0  # until an agreement that cannot be in force is tried again
_RECIPIENTS_MAX = wire.EVAL_AGREEMENTS_MAX * wire.EDGED_RECIPIENTS_MAX

def run(config: Config, stop: Any) -> None:
    """Serve until ``stop`` is set. stop : has is_set(), as threading.Event

    Raises what waiting does not mend: MissingInput, PackageError, VerificationFailed, KeyRefused, ConfigError (of
    what the configuration names), BusError, SpoolError (at the start), AcceleratorError, EnclaveError.
    """
    papers = read_papers(config)
    with ExitStack() as stack:
        caps = Caps(config.outbox.max_rows, config.outbox.max_bytes, config.outbox.max_age_s)
        spool = Spool(str(config.spool), caps)
        stack.callback(spool.close)
        router = stack.enter_context(Router(config.bridge_address))
        notifier = Notifier()
        stack.callback(notifier.close)
        # Before and beyond any enclave: what is known of a GPU that hangs outlives a connection.
        accelerators = chosen(config.accelerator, stack, config.node.state)
        for place, fault in papers.faults.items():
            if place in papers.agreements:
                emit(log, "agreement_faulty", reason=str(fault))
        daemon = Daemon(config, papers, spool, router, notifier, accelerators)
        stack.callback(daemon.close)
        daemon.serve(stop)
        notifier.stopping()
        daemon.finish()
        daemon.part()


def config_digest(config: Config) -> bytes:
    """SHA-256 of how the cameras are configured: what the node claims of them in each heartbeat."""
    rows = [{"name": camera.name, "kind": camera.kind, "source": camera.shown, "pose": camera.pose,
             "hop_s": camera.hop_s, "frames_per_second": camera.frames_per_second, "loop": camera.loop,
             "speed": camera.speed, "group": camera.group}
            for camera in sorted(config.cameras, key=lambda camera: camera.name)]
    return hashlib.sha256(cbor2.dumps(rows, canonical=True)).digest()


class Daemon:
    """See the module."""

    def __init__(self, config: Config, papers: Papers, spool: Spool, router: Router, notifier: Notifier,
                 accelerators: Accelerators) -> None:
        self._config, self._papers, self._spool, self._router = config, papers, spool, router
        self._accelerators = accelerators
        self._notifier, self._watchdog = notifier, Watchdog(notifier)
        self._link: Optional[Link] = None
        self._retry = Backoff()
        self._away = ""  # why the enclave is away, as was last logged
        self._keys_missing_s: Optional[float] = None
        places = {camera.name: config.enclave.agreements.index(judged_under(config, camera))
                  for camera in config.cameras}
        self._desk = Desk(places, router, Sessions(config.node.run))
        self._ledger = self._desk.ledger
        self._subscribers = {one.recipient: one.name for one in config.subscribers}
        self._statements = Statements(self._ledger, spool, config_digest(config))
        self._followed = Followed(config.node.state)
        self._succession = Succession(self._desk, self._ledger, self._followed)
        self._beacons: Dict[bytes, Deque[Beacon]] = {}  # the last of each recipient, who may read under several
        self._exercises: Deque[Tuple[bytes, ExerciseRequest]] = deque()  # and who asked
        self._ping_due_s = 0.0
        self._reminder = validity.Reminder()
        # Else `edged enclave` looks, whose files they are.
        self._certificate = Watch(KeyStore(config.key_folder)) if config.enclave.kind == "trusty" else None
        self._left_out: Dict[int, str] = {}  # by place, why no agreement is in force, as was last logged
        self._left_out_retry = Backoff(LEFT_OUT_S, LEFT_OUT_MAX_S)
        self._untried = ""  # why they were not tried again, when that was last logged

    # The loop.

    def serve(self, stop: Any) -> None:
        """Until ``stop`` is set."""
        while not stop.is_set():
            self._receive(0.0 if self._is_busy() else POLL_S)
            if self._link is None:
                self._reach()
            else:
                self._guarded(self._work)
            self._desk.ask_to_reopen()
            self._remind()
            # Each turn of the loop ends something: a message, a clip, an attempt. What hangs does not come here.
            self._watchdog.progress()

    def _remind(self) -> None:
        if self._certificate is not None:
            self._certificate.look()
        judged = [self._judged_under(place) for place in range(len(self._config.enclave.agreements))]
        for one in self._reminder.due([one for one in judged if one is not None], time.time(), time.monotonic()):
            emit(log, "agreement_ended" if one.ended else "agreement_ends", number=one.agreement.number,
                 until=validity.iso(one.agreement.until_s), days=int(one.seconds // DAY_S))

    def _judged_under(self, place: int) -> Optional[Agreement]:
        """The agreement that cameras of this place of the configuration are to be judged under; None where its file
        cannot be read."""
        if self._link is not None and place not in self._link.left_out:
            return self._link.current(place).agreement
        paper = self._papers.agreements.get(place)
        if paper is None:
            return None
        is_over = paper.following is not None and paper.agreement.digest in self._followed
        return paper.following.agreement if is_over else paper.agreement

    def finish(self) -> None:
        """Leave everything stored and, where nothing is unfinished, the epoch closed."""
        if self._link is not None:
            try:
                self._ledger.settle()
                self._succession.remember()
                self._link.keeper.end_epoch()
                emit(log, "epoch_closed", epoch=self._link.epoch)
            except (EnclaveError, SpoolError) as error:
                log.info("the epoch stays open: %s", error)
        did = self._status()
        emit(log, "bridge_stopped", placement=did["placement"], transport=did["transport"],
             accelerator=did["accelerator"], clips=did["clips"], failed=did["failed"], records=did["records"],
             waiting=did["waiting"], products_checked=did["products_checked"], rejections=did["rejections"],
             accelerator_bytes=did["accelerator_bytes"], enclave_peak_bytes=did["enclave_peak_bytes"],
             seconds_per_clip=did["seconds_per_clip"])

    def part(self) -> None:
        """Cameras that are there hear all that was said, for what has arrived and was not read goes with the connection:
        one that does not know that its clip is done has it judged again in the next epoch."""
        unheard, deadline_s = self._desk.call_all(), time.monotonic() + PARTS_S
        while unheard and time.monotonic() < deadline_s:
            message = self._router.receive(max(0.0, deadline_s - time.monotonic()))
            if message is not None and messages.answers_call(message.frames):
                unheard.discard(message.peer)

    def close(self) -> None:
        if self._link is not None:
            self._link.close()
            self._link = None

    def _is_busy(self) -> bool:
        return self._link is not None and bool(len(self._desk) or self._beacons or self._exercises)

    def _work(self) -> None:
        """One piece of it."""
        link = self._up()
        if self._ledger.due:
            self._ledger.settle()
        elif link.left_out and self._left_out_retry.due:
            self._try_again(link)
        elif self._beacons:
            heartbeat = self._statements.answer(link, self._next_beacon())
            if heartbeat is not None:
                self._succession.answered(link, heartbeat)
        elif self._exercises:
            self._exercise(link)
        elif not (self._statements.claim_of(link, self._desk.cameras.values()) or self._statements.evict(link)
                  or self._succession.step(link) or self._desk.probe(link) or self._desk.evaluate(link)
                  or self._desk.prepare(link)):
            self._ping(link)
        self._desk.move_on(link, lambda agreement: self._succession.is_read(link, agreement))
        self._desk.call()

    def _guarded(self, work: Callable[[], None]) -> None:
        """Do it; where the connection to the enclave breaks in the middle, it is made anew later."""
        try:
            work()
        except EnclaveError as error:
            if error.status is not None:
                raise
            self._lose(error)

    # The enclave.

    def _reach(self) -> None:
        if not self._retry.due:
            return
        try:
            link = Link(self._config, self._papers, self._spool, self._accelerators, self._followed)
        except KeysMissing as error:
            now_s = time.monotonic()
            self._keys_missing_s = self._keys_missing_s or now_s
            if now_s - self._keys_missing_s > KEYS_PATIENCE_S:
                raise
            self._unreachable(str(error))
        except EnclaveError as error:
            if not is_passing(error):
                raise
            self._unreachable(str(error))
        except SpoolError as error:
            self._ledger.spool_failed(error)
            self._unreachable(str(error))
        else:
            self._come_up(link)

    def _unreachable(self, reason: str) -> None:
        self._retry.failed()
        if reason != self._away:
            self._away = reason
            emit(log, "enclave_away", reason=reason)
            self._notifier.status(messages.AWAY)

    def _come_up(self, link: Link) -> None:
        same = self._desk.connected(link)
        emit(log, "enclave_up", epoch=link.epoch, same=same, recovered=link.recovered, agreements=len(link.in_force),
             products=None if link.model is None else link.model.head.products, seconds=round(link.made_s, 3))
        self._link = link
        self._retry.succeeded()
        self._away, self._keys_missing_s = "", None
        self._ping_due_s = time.monotonic() + PING_S
        self._ledger.connected(link.keeper, link.stored, same)
        self._succession.connected(link)
        self._tell_left_out(link)
        self._left_out_retry.begin_again()
        self._desk.invite()
        self._notifier.ready("{} cameras, placement {}".format(
            len(self._config.cameras), self._config.enclave.placement))

    def _try_again(self, link: Link) -> None:
        """Nothing that fails here concerns those that are in force, but where the connection to them breaks."""
        self._left_out_retry.failed()
        try:
            agreements, faults = read_agreements(self._config)
            slots = link.slots()
        except (EdgedError, OSError) as error:
            # In which words a port is busy or away depends on the moment.
            why = "away" if isinstance(error, EnclaveError) and error.status is None else str(error)
            if why != self._untried:
                self._untried = why
                log.info("no agreement is taken in: %s", error)
            return
        self._untried = ""
        if slots != link.listed:  # owners grant one after the other
            self._left_out_retry.begin_again()
        # What lies beside the others is taken up when that is asked for, and so is another package.
        self._take_up(link, Papers(link.papers.package, {place: paper for place, paper in agreements.items()
                                                         if place in link.left_out}, faults), slots,
                      tuple(link.left_out))

    def _take_up(self, link: Link, papers: Papers, slots: Sequence[Listed],
                 places: Collection[int]) -> Dict[int, EdgedError]:
        """Of each place why something is not in force yet. Raises ConfigError, EnclaveError."""
        before = len(link.in_force)
        emitted, waits = link.take_up(papers, slots, places)
        self._papers = link.papers
        if emitted.records:
            self._ledger.keep(emitted)
        if len(link.in_force) > before:
            if link.model is None:
                link.load(slots)
            self._desk.invite()
        self._tell_left_out(link)
        return waits

    def _tell_left_out(self, link: Link) -> None:
        """Once, and again where the reason changed."""
        for place, path in enumerate(self._config.enclave.agreements):
            left, told = link.left_out.get(place), self._left_out.pop(place, None)
            if left is not None:
                self._left_out[place] = str(left.error)
                if told != self._left_out[place]:
                    emit(log, "agreement_left_out", file=str(path), state=left.state, reason=str(left.error))
            elif told is not None:
                emit(log, "agreement_taken_in", file=str(path))
                self._desk.taken_in(place)

    def _lose(self, error: EnclaveError) -> None:
        self._succession.remember()
        self._ledger.disconnected()
        self.close()
        while self._exercises:
            self._refuse_edgectl(self._exercises.popleft()[0], messages.AWAY)
        self._unreachable(str(error))

    def _ping(self, link: Link) -> None:
        now_s = time.monotonic()
        if now_s < self._ping_due_s:
            return
        self._ping_due_s = now_s + PING_S
        link.client.info()

    def _up(self) -> Link:
        assert self._link is not None
        return self._link

    # Requests.

    def _receive(self, timeout_s: float) -> None:
        message = self._router.receive(timeout_s)
        for _ in range(MESSAGES_MAX):
            if message is None:
                return
            try:
                act = self._understood(message)
            except PackageError as error:
                emit(log, "message_malformed", peer=message.peer[:32].decode("utf-8", "replace"), reason=str(error))
                if messages.is_edgectl(message.peer):
                    self._refuse_edgectl(message.peer, str(error))
            else:
                self._guarded(act)
            message = self._router.receive(0)

    def _understood(self, message: Message) -> Callable[[], None]:
        """What is to be done about it. Raises PackageError."""
        if message.peer == messages.OUTBOX:
            beacon = messages.from_outbox(message.frames)
            return lambda: self._take_beacon(beacon)
        if messages.is_edgectl(message.peer):
            asked = messages.from_edgectl(message.frames)
            return lambda: self._take_question(message.peer, asked)
        camera = self._desk.cameras.get(message.peer)
        if camera is None:
            raise PackageError("from nobody whom the configuration names")
        said = messages.from_camera(camera.name, message.frames)
        camera.unanswered = 0
        if isinstance(said, Hello):
            return lambda: self._desk.hello(self._link, camera, said)
        if isinstance(said, Offer):
            return lambda: self._desk.offer(camera, said)
        if isinstance(said, CameraStatus):
            return lambda: camera.says(said)
        return lambda: None  # it is there

    def _take_beacon(self, beacon: Beacon) -> None:
        if self._link is None or beacon.rcpt not in self._beacons and len(self._beacons) >= _RECIPIENTS_MAX:
            return
        self._beacons.setdefault(beacon.rcpt, deque(maxlen=wire.EVAL_AGREEMENTS_MAX)).append(beacon)

    def _next_beacon(self) -> Beacon:
        rcpt, wait = next(iter(self._beacons.items()))
        beacon = wait.popleft()
        if not wait:
            del self._beacons[rcpt]
        return beacon

    # Edgectl.

    def _take_question(self, peer: bytes, asked: Any) -> None:
        if isinstance(asked, StatusRequest):
            self._router.send(peer, messages.pack("status", self._status()))
        elif isinstance(asked, KeysCame):
            self._left_out_retry.succeeded()
            self._router.send(peer, messages.pack("ok", {}))
        elif self._link is None:
            self._refuse_edgectl(peer, messages.AWAY)
        elif isinstance(asked, ReloadRequest):
            self._reload(self._link, peer, asked.agreement)
        elif len(self._exercises) >= EXERCISES_MAX:
            self._refuse_edgectl(peer, "busy")
        else:
            self._exercises.append((peer, asked))

    def _reload(self, link: Link, peer: bytes, asked: Optional[int]) -> None:
        """Nothing but what lies on the disk decides; where that is wrong, what was in force goes on. asked : a place of
        enclave.agreements; what is wrong elsewhere is then not told"""
        try:
            papers, slots = read_papers(self._config), link.slots()
        except (EdgedError, OSError) as error:
            self._refuse_edgectl(peer, str(error))
            return
        self._left_out_retry.begin_again()
        try:
            waits = self._take_up(link, papers, slots, range(len(self._config.enclave.agreements)))
        except (ConfigError, EnclaveError) as error:
            self._refuse_edgectl(peer, str(error))
            if isinstance(error, EnclaveError) and error.status is None:
                raise
            return
        told = [error for place, error in sorted(waits.items()) if asked in (None, place)]
        if told:
            kind = {KeysMissing: "missing", NoRoom: "full"}.get(type(told[0]), "refused")
            self._router.send(peer, messages.pack(kind, {"reason": str(told[0])}))
        else:
            self._router.send(peer, messages.pack("ok", {}))

    def _exercise(self, link: Link) -> None:
        # Of those that wait it is the first until it is answered: where the connection breaks, it is refused with them.
        peer, asked = self._exercises[0]
        drill = self._statements.exercise(link, asked)
        self._exercises.popleft()
        if drill.refused is not None:
            self._refuse_edgectl(peer, drill.refused)
        else:
            self._router.send(peer, messages.pack("ok", {"records": list(drill.records)}))

    def _refuse_edgectl(self, peer: bytes, reason: str) -> None:
        self._router.send(peer, messages.pack("refused", {"reason": reason}))

    def _status(self) -> Dict[str, Any]:
        """Counters of this process and of the enclave's epoch; None where the enclave is away."""
        totals, link = self._desk.totals, self._link
        shown: Dict[str, Any] = {
            "enclave": "away" if link is None else "up", "reason": self._away or None,
            "epoch": None if link is None else link.epoch,
            "placement": self._config.enclave.placement, "transport": self._config.enclave.transport,
            "accelerator": self._accelerators.first.name,
            "degraded": getattr(self._accelerators.first, "reason", "") or None,
            "spool": "failing" if self._ledger.failing else "ok",
            "clips": totals.clips, "failed": totals.failed, "records": self._ledger.records,
            "accelerator_bytes": totals.bytes, "waiting": len(self._desk),
            "seconds_per_clip": totals.seconds / totals.clips if totals.clips else None,
            "products_checked": None, "rejections": None, "enclave_peak_bytes": None, "cameras": self._desk.shown(),
            "agreements": [self._agreement(place) for place in range(len(self._config.enclave.agreements))],
        }
        if link is not None:
            try:
                stats = link.client.stats()
                shown.update(products_checked=stats.products_checked, rejections=stats.rejections,
                             enclave_peak_bytes=link.peak_bytes())
            except EnclaveError as error:
                log.info("no figures of the enclave: %s", error)
        return shown

    def _agreement(self, place: int) -> Dict[str, Any]:
        """Of enclave.agreements. cameras : those that have not gone over to the next one yet
        unread : whom they wait for, as `edged.toml` names recipients
        reason : why none is in force there      number, digest : None where the file cannot be read"""
        paper, link = self._papers.agreements.get(place), self._link
        former = None if link is None else link.former(place)
        left_out = None if link is None else link.left_out.get(place)
        following = None if paper is None else paper.following
        judged = self._judged_under(place)
        left = None if judged is None else validity.left(judged, time.time())
        return {"number": None if paper is None else paper.agreement.number,
                "digest": None if paper is None else paper.agreement.digest,
                "next": None if following is None else following.agreement.digest,
                "state": self._succession.state(link, place),
                "reason": None if left_out is None else str(left_out.error),
                "until": None if judged is None else validity.iso(judged.until_s),
                "ended": left is not None and left.ended,
                "end": None if judged is None or left is None else validity.words(judged.number, judged.until_s,
                                                                                  left.seconds),
                "cameras": [] if former is None else self._desk.stay(former.index),
                "unread": [] if former is None or link is None else [
                    self._subscribers.get(rcpt, rcpt.hex()) for rcpt in self._succession.unread_by(link, place)]}
