"""The node's side of a key server: ask for a challenge, hand evidence in, get grants or report. Standard library only.

Only the authorities in the one file that is given are believed for the server's certificate, whatever else this system
trusts. What the server says is bounded in size, and each exchange in time, whole.
"""

import http.client
import re
import socket
import ssl
import threading
from typing import Callable

from edged.errors import KeyRefused, MissingInput, PackageError, ServerError, UsageError, VerificationFailed
from edged.trust import keyprotocol
from edged.trust.keyprotocol import Given, Status

ADDRESS = r"(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\]):\d{1,5}"
TIMEOUT_S = 20.0

# By OpenSSL's X509_V_ERR_...: not yet valid, expired, another host name, another IP address.
_REMEDIES = {
    9: "check this machine's clock", 10: "its operator puts a new one there, or this machine's clock is wrong",
    62: "--server has to name it as the certificate does", 64: "--server has to name it as the certificate does"}
_UNKNOWN = "--ca (CA of a unit) has to hold this certificate, or its issuer's, as the server's operator gives it"


def fetch_grants(address: str, ca_file: str, ueid: bytes, attest: Callable[[bytes], bytes],
                 timeout_s: float = TIMEOUT_S) -> Given:
    """The grants that a party's key server gives this device, and its floor; the key application judges each.

    address : HOST:PORT      ueid : 17 bytes      attest : evidence, with certificates, for a nonce of 32 bytes
    timeout_s : of each of both exchanges
    Raises UsageError, MissingInput, KeyRefused (the CA file), ServerError (unreachable, out of order, asked too
    often), VerificationFailed (its certificate, or it refuses this device), PackageError (no sense in its answer).
    """
    server = KeyServer(address, ca_file, timeout_s)
    return server.grants(attest(server.challenge(ueid)))


def report(address: str, ca_file: str, ueid: bytes, attest: Callable[[bytes], bytes],
           timeout_s: float = TIMEOUT_S) -> None:
    """Fresh evidence without new grants: the party knows that the node is what it was. Likewise."""
    server = KeyServer(address, ca_file, timeout_s)
    server.report(attest(server.challenge(ueid)))


class KeyServer:
    """One party's, as a node sees it."""

    def __init__(self, address: str, ca_file: str, timeout_s: float = TIMEOUT_S) -> None:
        if not re.fullmatch(ADDRESS, address) or not 1 <= int(address.rpartition(":")[2]) <= 65535:
            raise UsageError("{}: not a key server's address: HOST:PORT".format(address))
        self.address, self.timeout_s = address, timeout_s
        self._context = _context(ca_file)

    def challenge(self, ueid: bytes) -> bytes:
        return keyprotocol.read_challenge(self._post(keyprotocol.CHALLENGE, keyprotocol.ask(ueid)))

    def grants(self, evidence: bytes) -> Given:
        return keyprotocol.read_grants(self._post(keyprotocol.EVIDENCE, evidence))

    def report(self, evidence: bytes) -> None:
        keyprotocol.read_reported(self._post(keyprotocol.REPORT, evidence))

    def _post(self, path: str, body: bytes) -> bytes:
        connection, late = _Connection(self.address, self.timeout_s, self._context), threading.Event()
        # The socket's own limit is for each call: who sends a byte now and then would never run into it.
        deadline = threading.Timer(self.timeout_s, _cut, (connection, late))
        deadline.daemon = True
        deadline.start()
        try:
            connection.request("POST", path, body, {"Content-Type": keyprotocol.MEDIA_TYPE, "Connection": "close"})
            answer = connection.getresponse()
            status, content = answer.status, answer.read(keyprotocol.ANSWER_MAX + 1)
        except ssl.SSLCertVerificationError as error:
            raise VerificationFailed("key server {}: its certificate is refused: {}: {}".format(
                self.address, error.verify_message, _REMEDIES.get(error.verify_code, _UNKNOWN))) from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            timed_out = late.is_set() or isinstance(error, socket.timeout)  # of all, or of one step
            what = "no answer within {:g} s".format(self.timeout_s) if timed_out else (
                getattr(error, "strerror", None) or str(error) or type(error).__name__)
            raise ServerError("key server {}: {}: see that it runs and can be reached".format(
                self.address, keyprotocol.shown(what))) from error
        finally:
            deadline.cancel()
            connection.close()
        return self._judged(status, content)

    def _judged(self, status: int, content: bytes) -> bytes:
        if len(content) > keyprotocol.ANSWER_MAX:
            raise PackageError("key server {}: its answer has more than {} bytes".format(
                self.address, keyprotocol.ANSWER_MAX))
        if status == Status.OK:
            return content
        try:
            reason = keyprotocol.read_refusal(content)
        except PackageError:
            reason = "HTTP status {}".format(status)
        said = "key server {}: {}".format(self.address, reason)
        if status in (Status.MALFORMED, Status.REFUSED, Status.TOO_LARGE):
            raise VerificationFailed(said)
        raise ServerError(said)


def _context(ca_file: str) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        made.load_verify_locations(cafile=ca_file)
    except PermissionError as error:
        raise KeyRefused("{}: {}: run as a user who may read it".format(ca_file, error.strerror)) from error
    except ssl.SSLError as error:
        raise PackageError("{}: not certificates in PEM: {}".format(ca_file, error.reason)) from error
    except OSError as error:
        raise MissingInput("{}: {}".format(ca_file, error.strerror)) from error
    return made


class _Connection(http.client.HTTPConnection):
    """Over TLS; its socket can be cut off while it still shakes hands, which that of HTTPSConnection cannot."""

    def __init__(self, address: str, timeout_s: float, context: ssl.SSLContext) -> None:
        host, _, port = address.rpartition(":")
        super().__init__(host.strip("[]"), int(port), timeout=timeout_s)
        self._context = context

    def connect(self) -> None:
        plain = socket.create_connection((self.host, self.port), self.timeout)
        made = self._context.wrap_socket(plain, server_hostname=self.host, do_handshake_on_connect=False)
        self.sock = made
        made.do_handshake()


def _cut(connection: _Connection, late: threading.Event) -> None:
    late.set()
    if connection.sock is not None:
        try:
            connection.sock.shutdown(socket.SHUT_RDWR)
        except OSError:  # it is closed already
            pass
