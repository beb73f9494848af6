"""The node's side of a key server: the one certificate that it believes, and answers that make no sense."""

import socket
import ssl
import threading
import time

import pytest

pytest.importorskip("aiohttp", reason="the key server needs it: pip install 'edged[server]'")

from edged.errors import MissingInput, PackageError, ServerError, UsageError, VerificationFailed  # noqa: E402
from edged.trust import floor, grant, keyprotocol  # noqa: E402
from edged.trust.keyclient import KeyServer  # noqa: E402
from keyserver_cases import LOOPBACK, city, office, ring, server, site, terms, tls  # noqa: E402, F401


def client(port, site, name="server.pem", timeout_s=5.0, host=LOOPBACK):
    return KeyServer("{}:{}".format(host, port), str(site.folder / name), timeout_s)


def test_a_server_with_another_certificate_is_refused(site, server, office):
    tls(site.folder, "other")
    with pytest.raises(VerificationFailed, match="its certificate is refused: .*: --ca .* has to hold this "
                                                 "certificate, or its issuer's, as the server's operator gives it$"):
        client(server.port, site, "other.pem").challenge(office.device.ueid)


def test_a_server_with_an_expired_certificate_is_refused(site, office):
    tls(site.folder, days=-1)
    with site.serving() as server:
        with pytest.raises(VerificationFailed, match="is refused: certificate has expired: its operator puts a"):
            server.challenge(office.device)


def test_a_server_of_another_name_is_refused(site, office):
    site.bind = "0.0.0.0:0"
    with site.serving() as server:
        with pytest.raises(VerificationFailed, match="is refused: IP address mismatch.*: --server has to name it as"):
            client(server.port, site, host="127.0.0.2").challenge(office.device.ueid)


def test_a_server_that_is_not_there_is_one_line(site, office):
    with socket.socket() as free:
        free.bind((LOOPBACK, 0))
        port = free.getsockname()[1]
    with pytest.raises(ServerError, match="key server 127.0.0.1:{}: Connection refused: see that".format(port)):
        client(port, site).challenge(office.device.ueid)


@pytest.fixture
def talker(site):
    """A server with the right certificate that says whatever it is told to, a piece every 0.2 s."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(str(site.folder / "server.pem"), str(site.folder / "server.key"))
    listening = socket.create_server((LOOPBACK, 0))
    pieces, done = [], threading.Event()

    def work():
        plain = listening.accept()[0]
        try:
            with context.wrap_socket(plain, server_side=True) as one:
                heard = one.recv(4096)
                while heard.endswith(b"\r\n\r\n"):  # its body comes by itself
                    heard += one.recv(4096)
                for piece in pieces:
                    one.sendall(piece)
                    if done.wait(0.2):
                        break
        except OSError:
            pass

    thread = threading.Thread(target=work)
    thread.start()
    yield listening.getsockname()[1], pieces
    done.set()
    with socket.socket() as last:  # where nobody came
        last.connect_ex(listening.getsockname())
    thread.join(10)
    listening.close()


def answer(body, status="200 OK"):
    return "HTTP/1.1 {}\r\nContent-Length: {}\r\n\r\n".format(status, len(body)).encode() + body


@pytest.mark.parametrize("said, error, reason", [
    (answer(b"hello"), PackageError, "edged challenge 1"),
    (answer(keyprotocol.challenge(bytes(31))), PackageError, "nonce is"),
    (answer(keyprotocol.grants([b"g"], b"f")), PackageError, "unknown: floor, grants, nonce"),
    (answer(bytes(keyprotocol.ANSWER_MAX + 1)), PackageError, "its answer has more than"),
    (answer(keyprotocol.refusal("go\x1b[2Jaway"), "403 Forbidden"), VerificationFailed, r"go\?\[2Jaway"),
    (answer(b"<html>", "500 Oh"), ServerError, "HTTP status 500"), (b"", ServerError, "see that it runs"),
    (b"SSH-2.0\r\n", ServerError, "see that it runs"), 
    (b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", PackageError, "is not CBOR"),
    (answer(keyprotocol.challenge(bytes(32)), "302 Found"), ServerError, "HTTP status 302")])
def test_an_answer_that_makes_no_sense_is_one_line(site, talker, office, said, error, reason):
    port, pieces = talker
    pieces.append(said)
    with pytest.raises(error, match=reason) as caught:
        client(port, site).challenge(office.device.ueid)
    assert "\n" not in str(caught.value) and str(caught.value).isprintable()


def test_a_server_that_speaks_slowly_is_not_waited_for(site, talker, office):
    port, pieces = talker
    pieces += [b"H", b"T", b"T", b"P"] + [b"x"] * 100
    began = time.monotonic()
    with pytest.raises(ServerError, match="no answer within 1 s"):
        client(port, site, timeout_s=1.0).challenge(office.device.ueid)
    assert time.monotonic() - began < 5


def test_a_server_that_shakes_hands_slowly_is_not_waited_for(site, office):
    with socket.create_server((LOOPBACK, 0)) as listening:
        done = threading.Event()

        def work():
            with listening.accept()[0] as plain:
                try:
                    for octet in b"\x16\x03\x03\x40\x00" + bytes(100):
                        plain.sendall(bytes([octet]))
                        if done.wait(0.1):
                            break
                except OSError:
                    pass

        thread = threading.Thread(target=work)
        thread.start()
        began = time.monotonic()
        try:
            with pytest.raises(ServerError, match="no answer within 1 s"):
                client(listening.getsockname()[1], site, timeout_s=1.0).challenge(office.device.ueid)
            assert time.monotonic() - began < 5
        finally:
            done.set()
            thread.join(10)


@pytest.mark.parametrize("address", ["nowhere", "a:0", "a:65536", "https://a:1", "a b:1", ":1"])
def test_an_address_that_is_none_is_a_usage_error(site, address):
    with pytest.raises(UsageError, match="not a key server's address: HOST:PORT"):
        KeyServer(address, str(site.folder / "server.pem"))


def test_authorities_that_are_none_are_refused(site):
    with pytest.raises(MissingInput, match="none.pem: No such file"):
        KeyServer("a:1", str(site.folder / "none.pem"))
    site.put("bad.pem", b"no certificate")
    with pytest.raises(PackageError, match="bad.pem: not certificates in PEM"):
        KeyServer("a:1", str(site.folder / "bad.pem"))


def test_a_refusal_is_one_short_printable_line():
    assert keyprotocol.read_refusal(keyprotocol.refusal("a\n b\tc")) == "a b c"
    assert len(keyprotocol.read_refusal(keyprotocol.refusal("\u00e9" * 1000)).encode()) <= keyprotocol.REASON_MAX
    assert keyprotocol.read_refusal(keyprotocol.refusal("")) == "refused"


def test_grants_are_counted_and_bounded():
    for made in ([], [b""], [b"g"] * 17, [b"g" * (grant.GRANT_MAX + 1)], ["g"]):
        with pytest.raises(PackageError):
            keyprotocol.read_grants(keyprotocol.grants(made, b"f"))
    for said in (b"", b"f" * (floor.FLOOR_MAX + 1), "f"):
        with pytest.raises(PackageError):
            keyprotocol.read_grants(keyprotocol.grants([b"g"], said))
    most = keyprotocol.Given((b"g" * grant.GRANT_MAX,) * keyprotocol.GRANTS_MAX, b"f" * floor.FLOOR_MAX)
    encoded = keyprotocol.grants(*most)
    assert len(encoded) <= keyprotocol.ANSWER_MAX and keyprotocol.read_grants(encoded) == most
