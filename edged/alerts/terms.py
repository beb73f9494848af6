"""The agreements that a subscriber takes records under, each with the alert key that it names for this recipient.

While the city's keys are renewed there are two: records of the one that ends and of the one that follows come in any
order, each under its own key. Pure, but for reading the files.
"""

from typing import Container, Iterator, List, NamedTuple, Optional, Tuple

from edged.alerts.cityconfig import CityConfig
from edged.alerts.record import Observation, Record, Succession, open_record, split_record
from edged.errors import ConfigError, PackageError, VerificationFailed
from edged.trust.agreement import Agreement, open_agreement


class Held(NamedTuple):
    """key_id, key : of the recipient under this agreement"""

    agreement: Agreement
    key_id: bytes
    key: bytes

    def __repr__(self) -> str:
        return "Held(agreement {})".format(self.agreement.number)


class Terms:
    """Of one configuration. Raises MissingInput, KeyRefused, ConfigError, PackageError, VerificationFailed."""

    def __init__(self, config: CityConfig) -> None:
        keys = config.read_alert_keys()
        self._held: List[Held] = []
        for path in config.agreements:
            try:
                signed = path.read_bytes()
            except OSError as error:
                raise ConfigError("{}: agreements: {}: {}".format(config.path, path, error.strerror)) from error
            agreement = open_agreement(signed, config.mo, config.qdo)
            key_id = named_key(agreement, config.recipient)
            if key_id is None or key_id not in keys:
                raise ConfigError("{}: {} does not name recipient {} with alert key {}".format(
                    config.path, path, config.recipient.hex(), " or ".join(one.hex() for one in keys)))
            self._held.append(Held(agreement, key_id, keys[key_id]))

    @property
    def beacon_period_s(self) -> float:
        """The shortest: under none of them does the enclave wait in vain."""
        return float(min(held.agreement.beacon_period_s for held in self._held))

    def in_use(self, digests: Container[bytes]) -> Iterator[Agreement]:
        """The one in force, and of those before it these."""
        for place, held in enumerate(self._held):
            if place == 0 or held.agreement.digest in digests:
                yield held.agreement

    def find(self, digest: bytes) -> Optional[Held]:
        return next((held for held in self._held if held.agreement.digest == digest), None)

    def knows(self, key_id: bytes) -> bool:
        return any(held.key_id == key_id for held in self._held)

    def open(self, sealed: bytes) -> Tuple[Record, Agreement]:
        """Raises PackageError, VerificationFailed (under none of the agreements that name the record's key)."""
        header = split_record(sealed)[0]
        for held in self._held:
            if held.key_id != header.kid:
                continue
            try:
                record = open_record(sealed, held.key, held.agreement.digest)
            except VerificationFailed:
                continue
            _fit(record, held.agreement)
            return record, held.agreement
        raise VerificationFailed("record seq {} of epoch {} does not open: altered, or sealed under another key or "
                                 "agreement: if the city agreed to a later one with this key: `edged-city adopt "
                                 "--agreement FILE`; the node keeps the record until then".format(
                                     header.seq, header.epoch.hex()))

    def todo(self, record: Succession) -> str:
        """What the operator has to do so that what follows is taken; "" where it is listed already."""
        follows = self.find(record.successor)
        if follows is not None:
            if (follows.key_id, follows.agreement.number) == (record.next_key, record.number):
                return ""
            return ("the list here has it as agreement {} with key {}: the enclave contradicts the agreement: check "
                    "the node".format(follows.agreement.number, follows.key_id.hex()))
        if record.next_key is None:
            return "it names no key for this recipient: nothing more will come of this node"
        return ("it is not listed here: `edged-city adopt --agreement FILE` and restart `edged-city listen`: the node "
                "keeps what follows until then")


def named_key(agreement: Agreement, rcpt: bytes) -> Optional[bytes]:
    """Id of the alert key that an agreement names for a recipient; None where it is none of its recipients."""
    return next((one.alert_key for one in agreement.recipients if one.rcpt == rcpt), None)


def labels(agreement: Agreement) -> Tuple[str, ...]:
    return tuple(rule.label for rule in agreement.rules)


def _fit(record: Record, agreement: Agreement) -> None:
    """Raises PackageError where no enclave would seal this under the agreement."""
    if isinstance(record, Observation) and len(record.alerts) != len(agreement.rules):
        raise PackageError("record seq {}: {} rules, the agreement has {}".format(
            record.header.seq, len(record.alerts), len(agreement.rules)))
    if isinstance(record, Succession) and record.number <= agreement.number:
        raise PackageError("record seq {}: has agreement {} follow agreement {}: numbers rise".format(
            record.header.seq, record.number, agreement.number))
