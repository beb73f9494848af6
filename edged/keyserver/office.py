"""What a key server decides: which challenge it gives, and who gets keys. It knows nothing of HTTP.

A refusal is put down to a node only where the evidence is surely of that node: signed by the key of the certificate
that passed last, or of one that the city vouches for. So nobody makes another node look refused, and one whose
certificate was revoked since shows as what it is. Where the server itself is out of order (a file, the agreement's
time), no nonce is used up, no node is refused, and its log alone says why.
"""

import hashlib
import logging
import os
import time
from dataclasses import replace
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence

from cryptography import x509

from edged.command import read_file
from edged.errors import EdgedError, KeyRefused, PackageError, VerificationFailed
from edged.keyserver.config import HOUR_S, ServerConfig
from edged.keyserver.holder import Due, Holder
from edged.keyserver.ledger import SLOT, Ledger, Node
from edged.keyserver.limits import Buckets
from edged.trust import agreement_text, certificates, chain, evidence, keyprotocol, reference
from edged.trust.agreement import Agreement, open_agreement
from edged.trust.evidence import Evidence, Expected, Policy, Verified
from edged.trust.grant import thumbprint
from edged.trust.keyprotocol import Status
from edged.trust.reference import References
from edged.trust.request import check_rsa, fingerprint, spki_of

_AHEAD_S = 60  # of floors in the same second, or the next ones: a device asks a few times an hour
log = logging.getLogger(__name__)


class Answer(NamedTuple):
    """wait_s : of those who ask too often"""

    status: Status
    body: bytes
    wait_s: float = 0.0


class Terms(NamedTuple):
    """What is in force now."""

    agreement: Agreement
    due: List[Due]
    root: x509.Certificate
    crls: Sequence[x509.CertificateRevocationList]
    references: Sequence[References]
    policy: Policy


class _OutOfOrder(EdgedError):
    """The server, not who asks."""


class Office:
    """clock : Unix seconds. Every method in one and the same thread: that of the ledger."""

    def __init__(self, config: ServerConfig, holder: Holder, clock: Callable[[], float] = time.time) -> None:
        """Raises what reading the configured files raises, SpoolError, KeyRefused."""
        self._config, self._holder, self._clock = config, holder, clock
        now_s = self._now()
        self._warned_s = 0
        terms = self._read_terms(now_s)  # whoever starts it hears what is wrong
        self._ledger = Ledger(str(config.ledger))
        self._devices = Buckets(config.limits.per_device, HOUR_S)
        with self._ledger.changing():
            self._ledger.append(now_s, "started", b"", {"agreement": terms.agreement.digest.hex()})
        number, digest = self._ledger.head()
        log.info("agreement %d, %s; audit log at %d:%s", terms.agreement.number, terms.agreement.digest.hex(), number,
                 digest.hex())

    def close(self) -> None:
        self._ledger.close()

    def challenge(self, body: bytes) -> Answer:
        return self._answered(self._challenge, body)

    def evidence(self, body: bytes) -> Answer:
        return self._answered(lambda body: self._evidence(body, self._granted), body)

    def withdraw(self, body: bytes) -> Answer:
        """For the same evidence no grants, but the bare floor that withdraws those of before under this agreement."""
        return self._answered(lambda body: self._evidence(body, self._withdrawn), body)

    def report(self, body: bytes) -> Answer:
        """For the same evidence nothing but to be known as one that passed now: no grant, no number, no floor."""
        return self._answered(lambda body: self._evidence(body, self._reported), body)

    def _answered(self, decide: Callable[[bytes], Answer], body: bytes) -> Answer:
        try:
            return decide(body)
        except VerificationFailed as error:
            status, reason = Status.REFUSED, str(error)
        except PackageError as error:
            status, reason = Status.MALFORMED, str(error)
        except EdgedError as error:
            log.error("out of order: %s", error)
            return Answer(Status.UNAVAILABLE, keyprotocol.refusal("out of order: its operator's log says why"))
        log.warning("refused: %s", keyprotocol.shown(reason))
        return Answer(status, keyprotocol.refusal(reason))

    def _challenge(self, body: bytes) -> Answer:
        ueid = keyprotocol.read_asked(body)
        if self._config.nodes and ueid not in self._config.nodes:
            raise VerificationFailed("device {} is none of the nodes that are listed here".format(ueid.hex()))
        nonce = os.urandom(keyprotocol.NONCE_BYTES)
        with self._ledger.changing():
            # One that ran out is told so for some time yet.
            self._ledger.put_nonce(nonce, ueid, self._now(), 2 * self._config.policy.nonce_s)
        return Answer(Status.OK, keyprotocol.challenge(nonce))

    def _evidence(self, body: bytes, passed: Callable[[Verified, Sequence[bytes], Terms, int], Answer]) -> Answer:
        now_s = self._now()
        found = evidence.parse(body)
        asked = self._ledger.asked(found.claims.nonce)  # before all that takes long: for a stranger's none does
        try:
            terms = self._read_terms(now_s)
        except EdgedError as error:
            raise _OutOfOrder(str(error)) from error
        with self._ledger.changing():
            self._ledger.use_nonce(found.claims.nonce)
        author = self._author(found, terms, now_s)
        wait_s = self._devices.take(author, time.monotonic()) if author is not None else 0.0
        if author is not None and wait_s:
            log.warning("device %s asks too often", author.hex())
            return Answer(Status.TOO_OFTEN, keyprotocol.refusal("device {} asks too often: wait {:.0f} s".format(
                author.hex(), wait_s + 1)), wait_s)
        try:
            verified = evidence.verify(body, Expected(found.claims.nonce, asked[1], asked[0]), terms.root, terms.crls,
                                       terms.references, now_s, terms.policy)
        except (VerificationFailed, PackageError) as error:
            if author is not None:
                self._refused(author, now_s, keyprotocol.shown(str(error)))
            raise
        return passed(verified, found.chain, terms, now_s)

    def _author(self, found: Evidence, terms: Terms, now_s: int) -> Optional[bytes]:
        """The ueid of the node whose evidence this surely is, whatever else is wrong with it."""
        claimed = found.claims.ueid
        known = self._ledger.node(claimed)
        try:
            if known is not None and known.certificate == _digest(found.chain[0]):
                # It passed once, and may have been revoked since, or have run out.
                key = chain.read_certificate(found.chain[0], "device certificate").public_key()
                check_rsa(key, "device certificate's key")
            else:
                device = chain.check(found.chain, terms.root, terms.crls, now_s)
                if device.ueid != claimed:
                    return None
                listed = terms.policy.devices
                if known is not None and known.certificate is not None and listed is not None and (
                        fingerprint(spki_of(device.key)) not in listed):
                    return None  # the authority alone says that this is the node that passed
                key = device.key
            found.message.verify_rsa(key, "evidence")
        except (VerificationFailed, PackageError):
            return None
        return claimed

    def _refused(self, ueid: bytes, now_s: int, reason: str) -> None:
        known = self._ledger.node(ueid)
        before = known if known is not None else Node(ueid, now_s, False, reason, None, None, None)
        with self._ledger.changing():
            self._ledger.put_node(before._replace(heard_s=now_s, passed=False, reason=reason))
            self._ledger.append(now_s, "refused", ueid, {"reason": reason})

    def _granted(self, verified: Verified, certificates: Sequence[bytes], terms: Terms, now_s: int) -> Answer:
        device = thumbprint(verified.grant)
        with self._ledger.changing():
            numbers = [(due, self._ledger.next_number(due.slot, now_s)) for due in terms.due]
            made = self._holder.grants(terms.agreement, numbers, verified.grant)
            for due, number in numbers:
                self._ledger.put_standing(device, due.slot, number, terms.agreement)
            said_s = self._floor_s(verified, now_s)
            said = self._floor(verified, {due.slot: number for due, number in numbers}, now_s, said_s)
            self._put_passed(verified, certificates, now_s, withdrawn=False, said_s=said_s)
            self._ledger.append(now_s, "granted", verified.ueid, dict(
                self._details(verified, terms), **{"{}{}".format(SLOT, due.slot): number for due, number in numbers}))
        log.info("device %s (%s): %d grant(s) under agreement %d", verified.ueid.hex(), verified.class_, len(made),
                 terms.agreement.number)
        return Answer(Status.OK, keyprotocol.grants(made, said))

    def _withdrawn(self, verified: Verified, certificates: Sequence[bytes], terms: Terms, now_s: int) -> Answer:
        with self._ledger.changing():
            device = thumbprint(verified.grant)
            # Wherever this device has grants, and where it would have them, for the ledger may be a new one.
            slots = {due.slot for due in terms.due}.union(self._ledger.slots_of(device))
            numbers = {slot: self._ledger.next_number(slot, now_s) for slot in sorted(slots)}
            self._ledger.withdraw(device, slots)
            said_s = self._floor_s(verified, now_s)
            said = self._floor(verified, numbers, now_s, said_s)
            self._put_passed(verified, certificates, now_s, withdrawn=True, said_s=said_s)
            self._ledger.append(now_s, "withdrawn", verified.ueid, dict(
                self._details(verified, terms),
                **{"{}{}".format(SLOT, slot): number for slot, number in numbers.items()}))
        log.info("device %s (%s): all grants are withdrawn", verified.ueid.hex(), verified.class_)
        return Answer(Status.OK, said)

    def _reported(self, verified: Verified, certificates: Sequence[bytes], terms: Terms, now_s: int) -> Answer:
        known = self._ledger.node(verified.ueid)
        with self._ledger.changing():
            self._put_passed(verified, certificates, now_s, withdrawn=known is not None and known.withdrawn,
                             said_s=known.said_s if known is not None else 0)
            self._ledger.append(now_s, "reported", verified.ueid, self._details(verified, terms))
        log.info("device %s (%s): reported", verified.ueid.hex(), verified.class_)
        return Answer(Status.OK, keyprotocol.reported())

    def _floor_s(self, verified: Verified, now_s: int) -> int:
        """Later than that of the last floor of this device, which would not take another one of the same time."""
        known = self._ledger.node(verified.ueid)
        last_s = known.said_s if known is not None else 0
        # A last one far ahead is of a clock that was wrong: the device may not have had it, and is not told it again.
        return last_s + 1 if now_s <= last_s < now_s + _AHEAD_S else now_s

    def _floor(self, verified: Verified, numbers: Mapping[int, int], now_s: int, said_s: int) -> bytes:
        # And what goes on under an agreement beside this one: what a floor leaves out, nobody vouches for.
        others = self._ledger.standing(thumbprint(verified.grant), now_s, self._config.least_agreement)
        return self._holder.floor({**others, **numbers}, self._config.least_agreement, self._config.least_model,
                                  verified.bootseed, verified.grant, said_s)

    def _put_passed(self, verified: Verified, certificates: Sequence[bytes], now_s: int, withdrawn: bool,
                    said_s: int) -> None:
        leaf, issuing = certificates
        self._ledger.put_node(Node(verified.ueid, now_s, True, "", _digest(leaf), verified.class_, verified.until_s,
                                   leaf, issuing, withdrawn, said_s))

    @staticmethod
    def _details(verified: Verified, terms: Terms) -> Dict[str, Any]:
        return {"agreement": terms.agreement.digest.hex(), "class": verified.class_,
                "device": thumbprint(verified.grant).hex()}

    def _read_terms(self, now_s: int) -> Terms:
        config = self._config
        agreement = open_agreement(read_file(str(config.agreement)), config.mo, config.qdo)
        if not agreement.from_s <= now_s < agreement.until_s:
            raise KeyRefused("{}: agreement {} is for {} to {}: put the one in force there".format(
                config.agreement, agreement.number, agreement_text.moment(agreement.from_s),
                agreement_text.moment(agreement.until_s)))
        if agreement.number < config.least_agreement:
            raise KeyRefused("{}: agreement {} is below least_agreement, {}: devices would not use its keys".format(
                config.agreement, agreement.number, config.least_agreement))
        roots = certificates.read_certificates(str(config.root))
        if len(roots) != 1:
            raise PackageError("{}: {} certificates, not the root's alone".format(config.root, len(roots)))
        crls = [chain.read_crl(read_file(str(path)), str(path)) for path in config.crls]
        if now_s - self._warned_s >= HOUR_S:
            self._warned_s = now_s
            for line in chain.aging(crls, now_s):
                log.warning("%s", line)
        return Terms(
            agreement, self._holder.due(agreement, config.first_slot), roots[0], crls,
            [reference.open_references(read_file(str(path)), config.signers) for path in config.references],
            replace(config.policy, devices=config.read_devices()))

    def _now(self) -> int:
        return int(self._clock())


def _digest(octets: bytes) -> bytes:
    return hashlib.sha256(octets).digest()

