"""The certification authority of one city, in a folder: who may call itself one of its boards.

    root.pem, hardware.pem, emulated.pem      certificates: what verifiers get
    hardware.crl, emulated.crl                revocation lists, likewise; each is good for a week (chain.CRL_DAYS)
    root.key, hardware.key, emulated.key      their keys, and boards.key, which seals the station secrets in the index;
    boards.key                                each under the passphrase (trust/sealed.py). The root's signs nothing
                                              more: it may be kept elsewhere
    boards.db                                 the index (trust/boards.py)

A board is added with the secret that its flash station put into it, asked with a challenge, and enrolled with its
answer (trust/request.py). The class is chosen when it is added, by whoever knows what was flashed; a board that says
of itself that it is emulated gets no other. All times are Unix seconds. Source: DESIGN section 7.
"""

import hashlib
import os
import re
from dataclasses import dataclass
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from edged import strict
from edged.command import read_file
from edged.errors import KeyRefused, UsageError, VerificationFailed
from edged.placing import SHARED, Placing, new_folder
from edged.trust import boards, chain, request, sealed
from edged.trust.boards import Board, Issued
from edged.trust.chain import CLASSES, EMULATED, HARDWARE

INDEX = "boards.db"
ROOT, SECRETS = "root", "boards"
CHALLENGE_S = 900          # from the challenge to the answer: a board may be at the other end of the city
CITY = r"[A-Za-z0-9](?:[A-Za-z0-9 .-]{0,30}[A-Za-z0-9])?"
MAGIC = b"edged-authority-key-1\n"
_WHAT = "key of a certification authority"
_SECRETS_KEY = 32

REVOKED = x509.ReasonFlags.cessation_of_operation
STOLEN = x509.ReasonFlags.key_compromise
SUPERSEDED = x509.ReasonFlags.superseded
REASONS = {"retired": REVOKED, "stolen": STOLEN}


class Enrolled(NamedTuple):
    """certificate : of the device      chain : both in PEM, as the node keeps them"""

    board: Board
    certificate: x509.Certificate
    ueid: bytes
    chain: bytes


@dataclass(frozen=True)
class Authority:
    """An authority's folder. cost : of scrypt, for the keys that ``create`` writes"""

    folder: str
    cost: int = sealed.COST

    def create(self, city: str, passphrase: bytes, now_s: int) -> None:
        """Draw all keys into a folder that is new or empty; whenever this is killed, the folder is whole or still so.

        Raises UsageError, KeyRefused, OSError.
        """
        if not re.fullmatch(CITY, city):
            raise UsageError("--city {}: 1 to 32 letters, digits, points, spaces and -".format(city))
        if os.path.isdir(self.folder) and os.listdir(self.folder):
            raise KeyRefused("{}: is not empty: keys are not written over; choose a new folder".format(self.folder))
        keys = {name: ec.generate_private_key(ec.SECP256R1()) for name in (ROOT,) + CLASSES}
        root = chain.make_root(keys[ROOT], city, now_s)
        certificates = {class_: chain.make_issuing(root, keys[ROOT], keys[class_].public_key(), city, class_, now_s)
                        for class_ in CLASSES}
        certificates[ROOT] = root
        with new_folder(self.folder) as folder:
            placing = Placing()
            for name, key in keys.items():
                placing.add(os.path.join(folder, name + ".key"), self._sealed(name, _private(key), passphrase))
                placing.add(os.path.join(folder, name + ".pem"), chain.pem([certificates[name]]), SHARED)
            placing.add(os.path.join(folder, SECRETS + ".key"),
                        self._sealed(SECRETS, os.urandom(_SECRETS_KEY), passphrase))
            index = os.path.join(folder, INDEX)
            boards.create(index)
            with boards.changing(index) as lists:
                for class_ in CLASSES:  # who verifies takes nobody without one, so the first are there from the start
                    made = chain.make_crl(certificates[class_], keys[class_], {}, lists.next_list(class_), now_s)
                    placing.add(os.path.join(folder, list_name(class_)), chain.pem([made]), SHARED)
            placing.commit()

    def certificate(self, name: str) -> x509.Certificate:
        """The root's, or an issuing CA's. Raises MissingInput, KeyRefused, PackageError."""
        return read_certificates(self._path(name + ".pem"))[0]

    def add_board(self, serial: str, node: str, class_: str, secret: bytes, passphrase: bytes) -> None:
        """serial : as printed on the board      node : the name of what it is to be      secret : of its station

        Raises UsageError, KeyRefused.
        """
        stored = self._secret(serial, secret, passphrase)
        with self._changing() as index:
            self._add(index, serial, node, class_, stored)

    def challenge(self, which: str, now_s: int) -> bytes:
        """A fresh one for this board (by serial or node), good once and for CHALLENGE_S. Raises UsageError."""
        with self._changing() as index:
            board = _in_force(index.find(which))
            nonce = os.urandom(request.NONCE_BYTES)
            index.challenge(board.serial, nonce, now_s + CHALLENGE_S)
            return nonce

    def enrol(self, which: str, answer: bytes, passphrase: bytes, now_s: int, again: bool = False,
              days: int = chain.DEVICE_DAYS) -> Enrolled:
        """A certificate for the board that answered its challenge.

        again : it had one, which is revoked by this (a board that was flashed anew, or whose certificate runs out).
        Raises UsageError, PackageError, VerificationFailed, KeyRefused.
        """
        if not 1 <= days <= chain.DEVICE_DAYS:
            raise UsageError("--days {}: 1 to {}".format(days, chain.DEVICE_DAYS))
        secrets_key = self._open(SECRETS, passphrase)
        with self._changing() as index:
            board = _in_force(index.find(which))
            asked = request.open_request(answer, index.secret(board.serial, secrets_key))
            _check_challenge(board, asked.nonce, now_s)
            if asked.emulated != (board.class_ == EMULATED):
                raise VerificationFailed("board {} is listed as {}, and says of itself that it is {}".format(
                    board.serial, board.class_, EMULATED if asked.emulated else HARDWARE))
            attest, grant = (hashlib.sha256(key).digest() for key in (asked.attest, asked.grant))
            _check_keys(index, board, asked.ueid, attest, grant)
            if not again and any(one.revoked_s is None and one.until_s >= now_s for one in index.issued(board.serial)):
                raise VerificationFailed("board {} has a certificate: --again revokes it and issues another".format(
                    board.serial))
            issuing = self.certificate(board.class_)
            made = chain.make_device(issuing, self._issuing_key(board.class_, passphrase), asked.ueid,
                                     request.read_rsa(asked.attest, "attest"), grant, now_s, days)
            index.revoke_certificates(board.serial, now_s, SUPERSEDED.name)
            index.issue(Issued(made.serial_number, board.serial, board.class_, asked.ueid, attest, grant,
                               chain.seconds(made, "not_valid_after"), None, None, chain.der(made)))
            index.challenge(board.serial, None, None)
            return Enrolled(board, made, asked.ueid, chain.pem([made, issuing]))

    def revoke(self, which: str, now_s: int, reason: x509.ReasonFlags = REVOKED) -> Tuple[Board, int]:
        """The board, for good, with its certificates; it, and how many were in force. Raises UsageError."""
        with self._changing() as index:
            return _revoke(index, which, now_s, reason)

    def replace(self, which: str, serial: str, secret: bytes, passphrase: bytes, now_s: int,
                reason: x509.ReasonFlags = REVOKED) -> Board:
        """Another board in the place of one that is broken or gone: the same node, the same class; the old one.

        Raises UsageError, KeyRefused.
        """
        stored = self._secret(serial, secret, passphrase)
        with self._changing() as index:
            old, _ = _revoke(index, which, now_s, reason)
            self._add(index, serial, old.node, old.class_, stored)
            return old

    def crl(self, class_: str, passphrase: bytes, now_s: int, days: int = chain.CRL_DAYS) -> bytes:
        """A new revocation list of one class, in PEM. Raises UsageError, KeyRefused."""
        if not 1 <= days <= chain.CRL_DAYS_MOST:
            raise UsageError("--days {}: 1 to {}".format(days, chain.CRL_DAYS_MOST))
        key = self._issuing_key(class_, passphrase)
        with self._changing() as index:
            revoked: chain.Reasons = {
                one.number: (one.revoked_s, x509.ReasonFlags[one.reason]) for one in index.revoked(class_)
                if one.revoked_s is not None and one.reason is not None}
            made = chain.make_crl(self.certificate(class_), key, revoked, index.next_list(class_), now_s, days)
        return chain.pem([made])

    def list(self) -> List[Dict[str, Any]]:
        """For JSON: every board, with its certificates."""
        with self._changing() as index:
            return [{
                "serial": board.serial, "node": board.node, "class": board.class_,
                "revoked": _day(board.revoked_s),
                "certificates": [{"number": "{:x}".format(one.number), "ueid": one.ueid.hex(),
                                  "until": _day(one.until_s), "revoked": _day(one.revoked_s), "reason": one.reason}
                                 for one in index.issued(board.serial)],
            } for board in index.all()]

    def ueid(self, node: str) -> bytes:
        """Of the board that stands for a node now. Raises UsageError, VerificationFailed."""
        with self._changing() as index:
            board = _in_force(index.find(node))
            for one in index.issued(board.serial):
                if one.revoked_s is None:
                    return one.ueid
        raise VerificationFailed("board {} of {} has no certificate: enrol it first".format(board.serial, board.node))

    def _path(self, name: str) -> str:
        return os.path.join(self.folder, name)

    def _changing(self) -> Any:
        return boards.changing(self._path(INDEX))

    def _add(self, index: boards.Boards, serial: str, node: str, class_: str, stored: bytes) -> None:
        if class_ not in CLASSES:
            raise UsageError("{}: one of {}".format(class_, ", ".join(CLASSES)))
        if not re.fullmatch(strict.NAME, node):
            raise UsageError("{}: not a name: 1 to 31 of a-z, 0-9 and -, no - first".format(node))
        index.add(serial, node, class_, stored)

    def _secret(self, serial: str, secret: bytes, passphrase: bytes) -> bytes:
        """As the index keeps it."""
        if not re.fullmatch(boards.SERIAL, serial):
            raise UsageError("{}: not a serial number: 1 to 64 letters, digits, ., _ and -".format(serial))
        request.mac_key(secret)
        if not any(secret):
            raise KeyRefused("a station secret of zeros is none: the flash station draws one for each board")
        return boards.seal_secret(secret, serial, self._open(SECRETS, passphrase))

    def _sealed(self, name: str, secret: bytes, passphrase: bytes) -> bytes:
        return sealed.seal(MAGIC, name, secret, passphrase, self.cost)

    def _open(self, name: str, passphrase: bytes) -> bytes:
        path = self._path(name + ".key")
        found = sealed.take_apart(MAGIC, sealed.read_file(path), path, _WHAT, lambda clear: clear == name)
        return found.open(passphrase, path, _WHAT)

    def _issuing_key(self, class_: str, passphrase: bytes) -> ec.EllipticCurvePrivateKey:
        key = serialization.load_der_private_key(self._open(class_, passphrase), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        certified = self.certificate(class_).public_key()
        if not isinstance(certified, ec.EllipticCurvePublicKey) or (
                certified.public_numbers() != key.public_key().public_numbers()):
            raise KeyRefused("{}: is not the key of {}.pem".format(self._path(class_ + ".key"), class_))
        return key


def list_name(class_: str) -> str:
    """Of the file with this class's newest revocation list, in an authority's folder."""
    return class_ + ".crl"


def read_certificates(path: str) -> List[x509.Certificate]:
    """Of a PEM file. Raises MissingInput, KeyRefused, PackageError."""
    return chain.read_pem(read_file(path), path)


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(serialization.Encoding.DER, serialization.PrivateFormat.PKCS8,
                             serialization.NoEncryption())  # sealed before it is written


def _in_force(board: Board) -> Board:
    if board.revoked_s is not None:
        raise VerificationFailed("board {} of {} was revoked on {}, for good: `edged-city ca replace` puts another in "
                                 "its place".format(board.serial, board.node, chain.day(board.revoked_s)))
    return board


def _check_challenge(board: Board, nonce: bytes, now_s: int) -> None:
    if board.challenge is None or board.challenge_until_s is None:
        raise VerificationFailed("no challenge of board {} is outstanding: each is good once; draw another".format(
            board.serial))
    if nonce != board.challenge:
        raise VerificationFailed("certificate request answers another challenge than the newest of board {}".format(
            board.serial))
    if now_s > board.challenge_until_s:
        raise VerificationFailed("the challenge of board {} ran out on {}: draw another".format(
            board.serial, chain.day(board.challenge_until_s)))


def _check_keys(index: boards.Boards, board: Board, ueid: bytes, attest: bytes, grant: bytes) -> None:
    """Keys never leave a board: who comes with those of another is not what it says it is."""
    for one in index.with_keys(ueid, (attest, grant)):
        if one.board != board.serial:
            raise VerificationFailed("board {} comes with the ueid or a key of board {}".format(
                board.serial, one.board))
        if one.attest == grant or one.grant == attest:
            raise VerificationFailed("board {} has exchanged its keys: one attests, the other receives grants".format(
                board.serial))


def _revoke(index: boards.Boards, which: str, now_s: int, reason: x509.ReasonFlags) -> Tuple[Board, int]:
    board = _in_force(index.find(which))
    index.revoke(board.serial, now_s)
    return board, index.revoke_certificates(board.serial, now_s, reason.name)


def _day(seconds: Optional[int]) -> Optional[str]:
    return None if seconds is None else chain.day(seconds)
