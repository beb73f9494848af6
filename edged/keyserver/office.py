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
from typing import Any, Callable, List, NamedTuple, Optional, Sequence

from cryptography import x509

from edged.command import read_file
from edged.errors import EdgedError, KeyRefused, PackageError, VerificationFailed
from edged.keyserver.config import HOUR_S, ServerConfig
from edged.keyserver.holder import Due, Holder
from edged.keyserver.ledger import SLOT, Ledger, Node
from edged.keyserver.limits import Buckets
from edged.trust import agreement_text, certificates, chain, evidence, keyprotocol, reference
from edged.trust.agreement import Agreement, open_agreement
from edged.trust.evidence import Evidence, Expected, Verified
from edged.trust.keyprotocol import Status
from edged.trust.reference import References
from edged.trust.request import check_rsa

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


class _OutOfOrder(EdgedError):
    """The server, not who asks."""


class Office:
    """clock : Unix seconds. Every method in one and the same thread: that of the ledger."""

    def __init__(self, config: ServerConfig, holder: Holder, clock: Callable[[], float] = time.time) -> None:
        """Raises what reading the configured files raises, SpoolError, KeyRefused."""
        self._config, self._holder, self._clock = config, holder, clock
        now_s = self._now()
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
        return self._answered(self._evidence, body)

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

    def _evidence(self, body: bytes) -> Answer:
        now_s = self._now()
        try:
            terms = self._read_terms(now_s)
        except EdgedError as error:
            raise _OutOfOrder(str(error)) from error
        found = evidence.parse(body)
        with self._ledger.changing():
            asked = self._ledger.use_nonce(found.claims.nonce)
        if asked is None:
            raise VerificationFailed("nonce {} is not out: each is good once, and not for long: ask for another "
                                     "challenge".format(found.claims.nonce.hex()))
        author = self._author(found, terms, now_s)
        wait_s = self._devices.take(author, time.monotonic()) if author is not None else 0.0
        if author is not None and wait_s:
            log.warning("device %s asks too often", author.hex())
            return Answer(Status.TOO_OFTEN, keyprotocol.refusal("device {} asks too often: wait {:.0f} s".format(
                author.hex(), wait_s + 1)), wait_s)
        try:
            verified = evidence.verify(body, Expected(found.claims.nonce, asked[1], asked[0]), terms.root, terms.crls,
                                       terms.references, now_s, self._config.policy)
        except (VerificationFailed, PackageError) as error:
            if author is not None:
                self._refused(author, now_s, keyprotocol.shown(str(error)))
            raise
        return self._granted(verified, found.chain[0], terms, now_s)

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
                key = device.key
            found.message.verify_rsa(key, "evidence")
        except (VerificationFailed, PackageError):
            return None
        return claimed

    def _refused(self, ueid: bytes, now_s: int, reason: str) -> None:
        known = self._ledger.node(ueid)
        before = (known.certificate, known.class_, known.until_s) if known else (None, None, None)
        with self._ledger.changing():
            self._ledger.put_node(Node(ueid, now_s, False, reason, *before))
            self._ledger.append(now_s, "refused", ueid, {"reason": reason})

    def _granted(self, verified: Verified, certificate: bytes, terms: Terms, now_s: int) -> Answer:
        with self._ledger.changing():
            numbers = [(due, self._ledger.next_number(due.slot, now_s)) for due in terms.due]
            made = self._holder.grants(terms.agreement, numbers, verified.grant)
            self._ledger.put_node(Node(verified.ueid, now_s, True, "", _digest(certificate), verified.class_,
                                       verified.until_s))
            details: Any = {"{}{}".format(SLOT, due.slot): number for due, number in numbers}
            details.update({"agreement": terms.agreement.digest.hex(), "class": verified.class_,
                            "device": _digest(verified.grant).hex()})
            self._ledger.append(now_s, "granted", verified.ueid, details)
        log.info("device %s (%s): %d grant(s) under agreement %d", verified.ueid.hex(), verified.class_, len(made),
                 terms.agreement.number)
        return Answer(Status.OK, keyprotocol.grants(made))

    def _read_terms(self, now_s: int) -> Terms:
        config = self._config
        agreement = open_agreement(read_file(str(config.agreement)), config.mo, config.qdo)
        if not agreement.from_s <= now_s < agreement.until_s:
            raise KeyRefused("{}: agreement {} is for {} to {}: put the one in force there".format(
                config.agreement, agreement.number, agreement_text.moment(agreement.from_s),
                agreement_text.moment(agreement.until_s)))
        roots = certificates.read_certificates(str(config.root))
        if len(roots) != 1:
            raise PackageError("{}: {} certificates, not the root's alone".format(config.root, len(roots)))
        return Terms(
            agreement, self._holder.due(agreement), roots[0],
            [chain.read_crl(read_file(str(path)), str(path)) for path in config.crls],
            [reference.open_references(read_file(str(path)), config.signers) for path in config.references])

    def _now(self) -> int:
        return int(self._clock())


def _digest(octets: bytes) -> bytes:
    return hashlib.sha256(octets).digest()

