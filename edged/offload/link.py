"""The bridge's one connection to the evaluation enclave, made ready in the one order that loses nothing.

    what the enclave keeps goes to the spool -> sealed state -> agreements, whose records begin the epoch -> model

A connection that breaks is made anew from the start; whether the enclave is still the one of before, its epoch tells.
"""

import itertools
import logging
import time
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from edged.alerts.spool import Spool
from edged.command import read_file
from edged.config import Config
from edged.enclave import tipc, wire
from edged.enclave.client import Emitted, EvalClient, KeyClient
from edged.enclave.keystore import KeyStore
from edged.enclave.records import Keeper
from edged.enclave.wire import KeyKind, Status
from edged.errors import ConfigError, EnclaveError, KeyRefused, PackageError, VerificationFailed
from edged.events import emit
from edged.offload.bridge import Bridge
from edged.offload.chosen import Accelerators
from edged.trust.agreement import Agreement, open_agreement

log = logging.getLogger(__name__)

# Ways to give an agreement its slots that are tried; a node has a handful of keys.
_CANDIDATES_MAX = 4096


class KeysMissing(KeyRefused):
    """No slot holds a key that is named: not yet, or never."""


class Paper(NamedTuple):
    """A signed agreement as it lies on the node's disk."""

    path: Path
    signed: bytes
    agreement: Agreement


class Papers(NamedTuple):
    """What the enclave is given: a sealed package and at least one agreement, in the configuration's order."""

    package: bytes
    agreements: Tuple[Paper, ...]


def read_papers(config: Config) -> Papers:
    """Raises MissingInput, PackageError, VerificationFailed, with the file's name."""
    papers: List[Paper] = []
    for path in config.enclave.agreements:
        signed = read_file(str(path))
        try:
            papers.append(Paper(path, signed, open_agreement(signed)))
        except (PackageError, VerificationFailed) as error:
            raise type(error)("{}: {}".format(path, error)) from error
    return Papers(read_file(str(config.enclave.package)), tuple(papers))


def is_passing(error: EnclaveError) -> bool:
    """Whether trying again may help: the enclave is away, or out of something that it gets back."""
    return error.status in (None, Status.UNAVAILABLE, Status.FULL)


class Link:
    """Connected, agreements in force, model loaded. Not for use by two threads at once.

    epoch      : the enclave's
    indices    : the agreements' numbers in the enclave, in the configuration's order
    recovered  : records that the enclave kept from before      stored : those and the new epoch's first

    Raises EnclaveError (see ``is_passing``), KeysMissing, KeyRefused, ConfigError, PackageError, AcceleratorError and
    SpoolError; then nothing is left open.
    """

    def __init__(self, config: Config, papers: Papers, spool: Spool, accelerators: Accelerators) -> None:
        self._config, self._accelerators = config, accelerators
        self.papers = papers
        self._stack = ExitStack()
        begin_s = time.monotonic()
        try:
            kinds = self._slot_kinds()
            self.client = EvalClient(tipc.connect(config.enclave.at, wire.EVAL_PORT))
            self._stack.callback(self.client.close)
            self._agree(kinds, spool)
            self._load(kinds)
        except BaseException:
            self.close()
            raise
        self.made_s = time.monotonic() - begin_s

    def close(self) -> None:
        self._stack.close()

    def agreement(self, digest: bytes) -> Optional[int]:
        """The index of the agreement of this digest, or with b"" of the only one; None where there is none such."""
        if not digest:
            return self.indices[0] if len(self.indices) == 1 else None
        return self.by_digest.get(digest)

    def peak_bytes(self) -> int:
        """Memory of both applications at their peaks, added."""
        with closing(KeyClient(tipc.connect(self._config.enclave.at, wire.KEY_PORT))) as key:
            return key.stats().peak_bytes + self.client.stats().memory.peak_bytes

    def _slot_kinds(self) -> bytes:
        with closing(KeyClient(tipc.connect(self._config.enclave.at, wire.KEY_PORT))) as key:
            if self._config.enclave.kind == "trusty":  # else `edged enclave` has done so, whose files they are
                KeyStore(self._config.key_folder).bring_back(key)
            return bytes(key.info().kinds)

    def _agree(self, kinds: bytes, spool: Spool) -> None:
        info = self.client.info()
        self.epoch = info.epoch
        self.keeper = Keeper(self.client, spool)
        self.recovered = self.keeper.settle()  # first of all: where too much is kept, no further agreement is taken
        if not info.agreements:
            self._restore(spool.state())
        records: List[bytes] = []
        self.indices: List[int] = []
        self.by_digest: Dict[bytes, int] = {}
        for paper in self.papers.agreements:
            emitted = self._put(paper, kinds)
            records.extend(emitted.records)
            self.indices.append(emitted.index)
            self.by_digest[paper.agreement.digest] = emitted.index
        # All at once: a state that knows but some of this epoch's recipients forgets how the others' last one ended.
        self.stored = self.recovered + self.keeper.take(records, emitted.emission)
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

    def _put(self, paper: Paper, kinds: bytes) -> Emitted:
        agreement = paper.agreement
        for model, data, alerts in itertools.islice(_candidates(kinds, len(agreement.recipients)), _CANDIDATES_MAX):
            try:
                return self.client.put_agreement(model, data, alerts, paper.signed)
            except EnclaveError as error:
                # Its signatures were checked above: what does not fit is a slot.
                if error.status not in (Status.AGREEMENT, Status.KEY):
                    raise
        raise KeysMissing("{}: no slots hold the keys that it names (model {}, data {}, alert {}) with their owners' "
                          "verifiers: see slots.toml of enclave.keys, or install the owners' grants".format(
                              paper.path, agreement.model.key_id.hex(), agreement.data_key.hex(),
                              ", ".join(one.alert_key.hex() for one in agreement.recipients)))

    def _load(self, kinds: bytes) -> None:
        enclave = self._config.enclave
        placement = wire.Placement[enclave.placement.upper()]
        self.bridge = Bridge(self.client, self._accelerators.first, enclave.transport, self._accelerators.spare)
        self._stack.callback(_detach, self.bridge)
        refused: Optional[EnclaveError] = None
        for slot in _of_kind(kinds, KeyKind.MODEL):
            try:
                self.model = self.bridge.load(self.papers.package, slot, placement)
                return
            except EnclaveError as error:
                if error.status == Status.PLACEMENT:
                    raise ConfigError("{}: enclave.placement = \"{}\": the owner of {} does not permit it".format(
                        self._config.path, enclave.placement, enclave.package)) from error
                if error.status not in (Status.PACKAGE, Status.KEY):
                    raise
                refused = error
        if refused is None or refused.status == Status.KEY:
            raise KeysMissing("{}: no slot holds its model key".format(enclave.package))
        raise PackageError("{}: {}".format(enclave.package, refused)) from refused


def _of_kind(kinds: bytes, kind: KeyKind) -> List[int]:
    return [slot for slot, found in enumerate(kinds) if found == kind]


def _candidates(kinds: bytes, recipients: int) -> Iterator[Tuple[int, int, Sequence[int]]]:
    """(model slot, data slot, alert slots): the enclave tells no key ids, but refuses what does not belong together."""
    alerts = itertools.product(_of_kind(kinds, KeyKind.ALERT), repeat=recipients)
    for chosen, data, model in itertools.product(alerts, _of_kind(kinds, KeyKind.DATA), _of_kind(kinds, KeyKind.MODEL)):
        yield model, data, chosen


def _detach(bridge: Bridge) -> None:
    with suppress(EnclaveError):  # it is gone, and its side of the window with it
        bridge.close()
