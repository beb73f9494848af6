"""The bridge's one connection to the evaluation enclave, made ready in the one order that loses nothing.

    what the enclave keeps goes to the spool -> sealed state -> agreements, whose records begin the epoch -> model

A connection that breaks is made anew from the start; whether the enclave is still the one of before, its epoch tells.
"""

import logging
import os
import time
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any, Collection, Container, Dict, List, NamedTuple, Optional, Sequence, Tuple

from edged.alerts.spool import Spool
from edged.beside import next_path, read_agreement, require_follows
from edged.command import read_file
from edged.config import Config
from edged.enclave import tipc, wire
from edged.enclave.client import Emitted, EvalClient, LoadedModel
from edged.enclave.key import KeyClient
from edged.enclave.keystore import LOCKED, KeyStore, connect
from edged.enclave.records import Keeper
from edged.enclave.wire import KeyKind, Listed, Status
from edged.errors import ConfigError, EdgedError, EnclaveError, KeyRefused, PackageError
from edged.events import emit
from edged.model import package
from edged.offload.bridge import Bridge
from edged.offload.chosen import Accelerators
from edged.trust import held
from edged.trust.agreement import Agreement

log = logging.getLogger(__name__)

KEY_WAIT_S = 0.5  # for the key port, which serves one at a time: clips wait meanwhile


class KeysMissing(KeyRefused):
    """No slot holds a key that is named: not yet, or never."""


class Withdrawn(KeyRefused):
    """The enclave takes the agreement no more: a floor of an owner is above it, or another followed it."""


class NoRoom(EnclaveError):
    """The enclave holds as many agreements as it can."""


class Paper(NamedTuple):
    """A signed agreement as it lies on the node's disk. following : the one that lies beside it and follows it"""

    path: Path
    signed: bytes
    agreement: Agreement
    following: Optional[Any] = None  # a Paper: a NamedTuple cannot name itself


class Papers(NamedTuple):
    """What the enclave is given: a sealed package, and agreements by their place in the configuration.

    faults : by place: why there is no agreement, or else why what lies beside it does not follow it
    """

    package: bytes
    agreements: Dict[int, Paper]
    faults: Dict[int, EdgedError]


class LeftOut(NamedTuple):
    """Of a place, why no agreement is in force. state : missing (keys) | locked | withdrawn | faulty (the file) |
    recipient (another city's) | refused (by the enclave, for another reason)"""

    state: str
    error: EdgedError


class InForce(NamedTuple):
    """An agreement that the enclave holds. place : in enclave.agreements      index : the enclave's number of it"""

    place: int
    agreement: Agreement
    index: int


def read_papers(config: Config) -> Papers:
    """Raises MissingInput, PackageError, VerificationFailed, with the file's name, where no agreement can be read, or
    not the package."""
    agreements, faults = read_agreements(config)
    return Papers(read_file(str(config.enclave.package)), agreements, faults)


def read_agreements(config: Config) -> Tuple[Dict[int, Paper], Dict[int, EdgedError]]:
    """As in ``Papers``. Raises MissingInput, PackageError, VerificationFailed, with the file's name, where none can be
    read."""
    agreements: Dict[int, Paper] = {}
    faults: Dict[int, EdgedError] = {}
    for place, path in enumerate(config.enclave.agreements):
        beside, following = next_path(path), None
        # Before the one that is named: `edgectl rotate` makes it that, and it is to be seen in one of both places.
        try:
            following = Paper(beside, *read_agreement(beside))
        except EdgedError as error:
            if os.path.exists(str(beside)):
                faults[place] = error
        try:
            paper = Paper(path, *read_agreement(path))
        except EdgedError as error:
            faults[place] = error
            continue
        if following is not None and following.agreement.digest != paper.agreement.digest:
            try:
                require_follows(beside, following.agreement, paper.agreement)
                paper = paper._replace(following=following)
            except ConfigError as error:
                faults[place] = error
        agreements[place] = paper
    if not agreements:
        raise next(iter(faults.values()))
    return agreements, faults


def is_passing(error: EnclaveError) -> bool:
    """Whether trying again may help: the enclave is away, or wants something that it will get (back)."""
    return error.status in (None, Status.UNAVAILABLE, Status.FULL, Status.LOCKED)


class Link:
    """Connected, agreements in force, model loaded unless each that permits that has ended. Not for use by two threads
    at once.

    epoch      : the enclave's
    in_force   : what it holds, in the configuration's order; behind an agreement the one that follows it
    left_out   : by place, where it holds none: one city's agreement never stops another's
    over       : digests of agreements that ended: the enclave takes them no more, and what follows them was in force
    recovered  : records that the enclave kept from before      stored : those and the new epoch's first
    model      : None where none is loaded, and so nothing is judged: all else goes on
    listed     : what the key application said of its slots when agreements were last put

    followed : digests of agreements that are over, of which none is put
    Raises EnclaveError (see ``is_passing``), KeysMissing, KeyRefused, ConfigError, PackageError, AcceleratorError and
    SpoolError; then nothing is left open.
    """

    def __init__(self, config: Config, papers: Papers, spool: Spool, accelerators: Accelerators,
                 followed: Container[bytes] = ()) -> None:
        self._config, self._followed = config, followed
        self.placement = wire.Placement[config.enclave.placement.upper()]
        self.model: Optional[LoadedModel] = None
        self.papers = papers
        self._stack = ExitStack()
        begin_s = time.monotonic()
        try:
            self.listed = slots = self.slots()
            self.client = EvalClient(tipc.connect(config.enclave.at, wire.EVAL_PORT))
            self._stack.callback(self.client.close)
            self._agree(slots, spool)
            self.bridge = Bridge(self.client, accelerators.first, config.enclave.transport, accelerators.spare)
            self._stack.callback(_detach, self.bridge)
            self._load(slots)
        except BaseException:
            self.close()
            raise
        self.made_s = time.monotonic() - begin_s

    def close(self) -> None:
        self._stack.close()

    @property
    def places(self) -> int:
        """Agreements that the configuration names."""
        return len(self._config.enclave.agreements)

    def place(self, digest: bytes) -> Optional[int]:
        """Where in the configuration the agreement of this digest stands, beside it what follows it; or None."""
        for place, paper in self.papers.agreements.items():
            if digest == paper.agreement.digest or paper.following and digest == paper.following.agreement.digest:
                return place
        return None

    def agreement(self, digest: bytes) -> Optional[int]:
        """The index of the agreement of this digest; None where it is not in force."""
        return next((one.index for one in self.in_force if one.agreement.digest == digest), None)

    def digest(self, index: int) -> bytes:
        """Of the agreement in force with this index."""
        return next(one.agreement.digest for one in self.in_force if one.index == index)

    def current(self, place: int) -> InForce:
        """The agreement that this place's cameras are to be judged under."""
        return [one for one in self.in_force if one.place == place][-1]

    def former(self, place: int) -> Optional[InForce]:
        """The one that it follows, while that is in force still."""
        both = [one for one in self.in_force if one.place == place]
        return both[0] if len(both) > 1 else None

    def is_awaited(self, rcpt: bytes) -> bool:
        """Whether a place that is left out names this recipient, or may: its file cannot be read."""
        for place in self.left_out:
            paper = self.papers.agreements.get(place)
            if paper is None:
                return True
            both = [paper.agreement] + ([paper.following.agreement] if paper.following else [])
            if any(to.rcpt == rcpt for agreement in both for to in agreement.recipients):
                return True
        return False

    def take_up(self, papers: Papers, slots: Sequence[Listed],
                places: Collection[int]) -> Tuple[Emitted, Dict[int, EdgedError]]:
        """Put what is not in force at these places, and what follows the agreements in force there; the records that
        begin them, and of each place why something is not in force yet. Sessions go on. slots : as ``slots`` lists them

        Raises ConfigError where one that is in force would be forgotten, EnclaveError where the connection breaks.
        """
        for one in self.in_force:
            if one.place not in papers.agreements:
                continue  # it cannot be read at present, and goes on as it was
            paper = papers.agreements[one.place]
            named = {paper.agreement.digest, paper.following.agreement.digest if paper.following else b""}
            if one.agreement.digest not in named:
                raise ConfigError("{}: agreement {} is in force, and neither named here nor followed: put it back, or "
                                  "start the bridge again".format(paper.path, one.agreement.number))
        self.listed = tuple(slots)
        self.papers = papers._replace(agreements={**{place: paper for place, paper in self.papers.agreements.items()
                                                     if place not in self.left_out}, **papers.agreements})
        emitted: List[Emitted] = []
        waits = dict(papers.faults)
        left_out = [place for place in places if place in self.left_out]
        # What follows another comes after all of the configuration's own: it takes nobody's room.
        for act, place in [(self._take_in, place) for place in left_out] + [(self._follow, place) for place in places]:
            try:
                act(place, slots, emitted)
            except EnclaveError as error:  # what was put before has records, which are the caller's
                if error.status is None:
                    raise
                waits[place] = error
                if place in self.left_out:
                    self.left_out[place] = LeftOut(_state(error), error)
            except KeyRefused as error:
                waits[place] = error
            if place in self.left_out:
                waits[place] = self.left_out[place].error
        return Emitted(0, _records(emitted), emitted[-1].emission if emitted else 0), waits

    def load(self, slots: Sequence[Listed]) -> None:
        """What is in force by now may permit it. Raises EnclaveError where the connection breaks."""
        try:
            self._load(slots)
        except EdgedError as error:
            if isinstance(error, EnclaveError) and error.status is None:
                raise
            log.warning("no model is loaded: %s", error)

    def succeed(self, place: int) -> Emitted:
        """The former agreement of this place ends: its last records. Raises EnclaveError."""
        former, current = self.former(place), self.current(place)
        assert former is not None
        emitted = self.client.succeed(former.index, current.index)
        self.in_force.remove(former)
        return emitted

    def peak_bytes(self) -> int:
        """Memory of both applications at their peaks, added."""
        with closing(KeyClient(tipc.connect(self._config.enclave.at, wire.KEY_PORT))) as key:
            return key.stats().peak_bytes + self.client.stats().memory.peak_bytes

    def slots(self) -> Tuple[Listed, ...]:
        """What the key application says of them. Raises EnclaveError, KeyRefused, MissingInput: none of these is the
        connection's, which goes on."""
        with closing(connect(self._config.enclave.at, wait_s=KEY_WAIT_S)) as key:
            if self._config.enclave.kind == "trusty":  # else `edged enclave` has done so, whose files they are
                KeyStore(self._config.key_folder).bring_back(key)
            return key.slots()

    def _agree(self, slots: Sequence[Listed], spool: Spool) -> None:
        info = self.client.info()
        self.epoch = info.epoch
        self.keeper = Keeper(self.client, spool)
        self.recovered = self.keeper.settle()  # first of all: where too much is kept, no further agreement is taken
        if not info.agreements:
            self._restore(spool.state())
        emitted: List[Emitted] = []
        self.in_force: List[InForce] = []
        self.left_out: Dict[int, LeftOut] = {}
        self.over: List[bytes] = []
        self._makes_room = True
        for place in range(self.places):
            self._take_in(place, slots, emitted)
        for place in range(self.places):  # only now: what follows another takes no other city's room
            following = self._due(place)
            waits = following and self._tried(place, following, slots, emitted)
            if following is not None and waits is not None:
                emit(log, "agreement_waits", number=following.agreement.number, reason=str(waits))
        self._makes_room = False  # later the ledger stores what the caller gets
        if not self.in_force:
            raise self._why_left_out()
        # All at once: a state that knows but some of this epoch's recipients forgets how the others' last one ended.
        records = _records(emitted)
        self.stored = self.recovered + self.keeper.take(records, emitted[-1].emission)
        if not records:
            self.keeper.save_state()

    def _restore(self, state: Optional[bytes]) -> None:
        if state is None:
            return  # the node's first epoch
        try:
            self.client.restore(state)
        except EnclaveError as error:
            if error.status is None:
                raise
            if error.status != Status.ORDER:  # else it knows what came before: it was told, or it was there
                emit(log, "state_refused", reason=str(error))

    def _take_in(self, place: int, slots: Sequence[Listed], emitted: List[Emitted]) -> None:
        """The agreement of a place, or where that cannot be in force the one that follows it; else the place is left
        out. Raises what concerns them all."""
        paper = self.papers.agreements.get(place)
        if paper is None:
            self.left_out[place] = LeftOut("faulty", self.papers.faults[place])
            return
        refused: Optional[EdgedError] = None
        if paper.following is None or paper.agreement.digest not in self._followed:
            refused = self._tried(place, paper, slots, emitted)
            if refused is None:
                return
        waits = refused
        if paper.following is not None:
            waits = self._tried(place, paper.following, slots, emitted)
        if waits is not None:
            missing = refused or waits
            self.left_out[place] = LeftOut(_state(missing), missing)
        # It was in force before, and the one that it follows is taken no more, whose keys are all there.
        elif isinstance(refused, Withdrawn) and not emitted[-1].records:
            self.over.append(paper.agreement.digest)

    def _why_left_out(self) -> EdgedError:
        """Of the places whose files are whole; there is one: ``read_papers`` saw to it."""
        return min((left.error for _, left in sorted(self.left_out.items()) if left.state != "faulty"), key=_patience)

    def _follow(self, place: int, slots: Sequence[Listed], emitted: List[Emitted]) -> None:
        """Put what follows an agreement that is in force. Raises KeyRefused, EnclaveError."""
        following = self._due(place)
        if following is not None:
            before = self.current(place).agreement.number
            self._put(place, following, slots, emitted)
            emit(log, "agreement_taken_up", number=following.agreement.number, after=before)

    def _due(self, place: int) -> Optional[Paper]:
        """What is to follow the agreement in force there, and is not in force yet."""
        paper = self.papers.agreements.get(place)
        if paper is None or paper.following is None or place in self.left_out:
            return None
        following: Paper = paper.following
        return following if self.agreement(following.agreement.digest) is None else None

    def _tried(self, place: int, paper: Paper, slots: Sequence[Listed], emitted: List[Emitted]) -> Optional[EdgedError]:
        """Put an agreement, or say why that one cannot be. Raises what concerns them all."""
        try:
            self._put(place, paper, slots, emitted)
        except KeyRefused as error:
            return error
        except EnclaveError as error:
            if error.status in (None, Status.UNAVAILABLE, Status.FULL):
                raise
            return error
        return None

    def _put(self, place: int, paper: Paper, slots: Sequence[Listed], emitted: List[Emitted]) -> None:
        agreement = paper.agreement
        found, missing = held.find(agreement, slots)
        if missing:  # what is in force already needs no keys any more, whatever slots are named
            found = [0] * (len(found) + len(missing))
        try:
            emitted.append(self._put_with_room(found, paper.signed, emitted))
        except EnclaveError as error:
            if missing and error.status in (Status.AGREEMENT, Status.KEY, Status.LOCKED):
                raise KeysMissing("{}: no slot holds {}: install the owners' grants for agreement {}, or see "
                                  "slots.toml of enclave.keys".format(paper.path, ", ".join(map(str, missing)),
                                                                      agreement.number)) from error
            if error.status == Status.RECIPIENT:
                raise EnclaveError("{}: names a recipient of another city's: its city has to name its own (`edged-city "
                                   "keys` makes new ids)".format(paper.path), Status.RECIPIENT) from error
            if error.status == Status.MEMORY and len(self.in_force) < wire.EVAL_AGREEMENTS_MAX:
                raise NoRoom("{}: {}".format(paper.path, error), Status.MEMORY) from error
            if error.status == Status.MEMORY:
                raise NoRoom("{}: the enclave holds {} agreements, as many as it can: wait until one that another "
                             "follows is over, or take one out of enclave.agreements and restart the bridge".format(
                                 paper.path, wire.EVAL_AGREEMENTS_MAX), Status.MEMORY) from error
            if error.status == Status.LOCKED:  # no clip was offered yet: it is a key
                raise EnclaveError(LOCKED, Status.LOCKED) from error
            if error.status == Status.AGREEMENT:  # its signatures were checked above
                raise Withdrawn("{}: agreement {} was withdrawn by an owner's floor, or another followed it: `edgectl "
                                "rotate` to the next agreement".format(paper.path, agreement.number)) from error
            if error.status == Status.KEY:  # what is listed changed meanwhile, or was a lie
                raise KeysMissing("{}: a slot has another key than is listed: install the owners' grants for agreement "
                                  "{}".format(paper.path, agreement.number)) from error
            raise
        self.in_force.append(InForce(place, agreement, emitted[-1].index))
        self.in_force.sort(key=lambda one: one.place)  # and of one place as they came
        self.left_out.pop(place, None)

    def _put_with_room(self, found: List[int], signed: bytes, emitted: List[Emitted]) -> Emitted:
        """Where, as the connection begins, the first records of those before it leave no room (they have 48 KiB each,
        where skeletons are agreed), these are stored now. Raises EnclaveError, SpoolError."""
        try:
            return self.client.put_agreement(found[0], found[1], found[2:], signed)
        except EnclaveError as error:
            if error.status != Status.FULL or not self._makes_room or not any(one.records for one in emitted):
                raise
        self.keeper.settle()
        return self.client.put_agreement(found[0], found[1], found[2:], signed)

    def _load(self, slots: Sequence[Listed]) -> None:
        enclave = self._config.enclave
        placement = self.placement
        refused: Dict[Optional[int], EnclaveError] = {}
        for slot in [number for number, one in enumerate(slots) if one.kind == KeyKind.MODEL]:
            try:
                self.model = self.bridge.load(self.papers.package, slot, placement)
                return
            except EnclaveError as error:
                if error.status not in (Status.PLACEMENT, Status.AGREEMENT, Status.PACKAGE, Status.KEY, Status.LOCKED):
                    raise
                refused.pop(error.status, None)
                refused[error.status] = error  # in the order of the slots; another's key may be for another agreement
        if Status.LOCKED in refused:
            raise EnclaveError(LOCKED, Status.LOCKED) from refused[Status.LOCKED]
        if Status.PLACEMENT in refused:
            if any(left.state != "faulty" and self.papers.agreements[place].agreement.placements >> placement & 1
                   for place, left in self.left_out.items()):
                raise self._why_left_out()  # that one permits it, and as soon as it is in force the package is loaded
            if self._permits(placement):
                emit(log, "model_not_loaded", placement=enclave.placement)
                return
            raise ConfigError("{}: enclave.placement = \"{}\": the owner of {}, or every agreement, forbids it".format(
                self._config.path, enclave.placement, enclave.package)) from refused[Status.PLACEMENT]
        if Status.AGREEMENT in refused:
            raise PackageError("{}: below the least version of its owner's floor: get a later package".format(
                enclave.package)) from refused[Status.AGREEMENT]
        if refused and list(refused)[-1] == Status.PACKAGE:
            raise PackageError("{}: {}".format(enclave.package, refused[Status.PACKAGE])) from refused[Status.PACKAGE]
        raise KeysMissing("{}: no slot holds its model key".format(enclave.package))

    def _permits(self, placement: wire.Placement) -> bool:
        """By what was signed the package may be loaded so. Where the enclave refuses, every such agreement has ended,
        by beacons or floors, and its owner's weights are not handed out any more."""
        found = package.inspect(self.papers.package)
        return bool(found.placements >> placement & 1) and any(
            one.agreement.placements >> placement & 1 and one.agreement.model.key_id == found.key_id
            for one in self.in_force)


def _records(emitted: Sequence[Emitted]) -> Tuple[bytes, ...]:
    return tuple(record for one in emitted for record in one.records)


def _patience(error: EdgedError) -> int:
    """Where no agreement can be in force, what is the reason: rather what passes, or may."""
    if isinstance(error, EnclaveError) and error.status == Status.LOCKED:
        return 0
    return 1 if isinstance(error, KeysMissing) else 2


def _state(error: EdgedError) -> str:
    if isinstance(error, EnclaveError):
        return {Status.LOCKED: "locked", Status.RECIPIENT: "recipient"}.get(error.status, "refused")
    return "withdrawn" if isinstance(error, Withdrawn) else "missing"


def _detach(bridge: Bridge) -> None:
    with suppress(EnclaveError):  # it is gone, and its side of the window with it
        bridge.close()
