"""The key server: keys for who proves what it is, one line of reason for everybody else; nothing is forgotten."""

import hashlib
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

pytest.importorskip("aiohttp", reason="the key server needs it: pip install 'edged[server]'")

from cryptography.hazmat.primitives import hashes, serialization  # noqa: E402
from cryptography.hazmat.primitives.asymmetric import padding  # noqa: E402

from edged import city as city_program  # noqa: E402
from edged import owner as owner_program  # noqa: E402
from edged.alerts import keys  # noqa: E402
from edged.enclave.wire import KeyKind  # noqa: E402
from edged.errors import (  # noqa: E402
    ConfigError, KeyRefused, PackageError, ServerError, SpoolError, VerificationFailed)
from edged.keyserver import config as configs  # noqa: E402
from edged.keyserver.holder import of_city, of_owner  # noqa: E402
from edged.keyserver.ledger import Standing  # noqa: E402
from edged.keyserver.limits import Buckets, network_of  # noqa: E402
from edged.keyserver.office import Office as ServerOffice  # noqa: E402
from edged.trust import canonical, cose, grant, keyprotocol, keyring  # noqa: E402
from edged.trust.certificates import STOLEN  # noqa: E402
from edged.trust.keyclient import KeyServer, fetch_grants  # noqa: E402
from edged.trust.request import spki_of  # noqa: E402
from evidence_cases import (  # noqa: E402
    DAY_S, NOW, OTHER, PASSPHRASE, REFERENCES, Device, Office, changed, signed_references)
from keyserver_cases import (  # noqa: E402, F401
    LOOPBACK, Site, another, city, ledger, office, ring, server, site, standing, terms, tls)


def opened(device, encoded):
    """(header, key) as the key application would read them."""
    header = grant.open_grant(encoded)
    message = cose.read(encoded, cose.SIGN1, cose.EDDSA, "", 1 << 12)
    head, wrapped = canonical.decode(message.payload, "", "list")
    return header, device.grant.decrypt(wrapped, padding.OAEP(
        padding.MGF1(hashes.SHA256()), hashes.SHA256(), hashlib.sha256(head).digest()))


# ------------------------------------------------------------------------------------------------------------ grants


def test_a_device_that_proves_itself_gets_the_citys_keys_for_itself_alone(site, server, city, terms, office):
    device = office.device
    made = fetch_grants("{}:{}".format(LOOPBACK, server.port), str(site.folder / "server.pem"), device.ueid,
                        lambda nonce: server.evidence(device, nonce))
    found = [opened(device, one) for one in made]
    files = [(city / name).read_bytes() for name in ("data.key", "alert-city.key", "alert-police.key")]
    assert [key for _, key in found] == files
    assert [(header.kind, header.slot, header.key_id) for header, _ in found] == [
        (KeyKind.DATA, 1, terms.data_key), (KeyKind.ALERT, 2, terms.recipients[0].alert_key),
        (KeyKind.ALERT, 3, terms.recipients[1].alert_key)]
    for header, _ in found:
        assert header.device == hashlib.sha256(spki_of(device.grant.public_key())).digest()
        assert header.verifier == terms.qdo and header.agreement == terms.digest
    assert standing(site, device) is Standing.PASSED


def test_the_owners_server_gives_the_model_key_alone(site, ring, terms, office):
    with site.serving(party="owner") as server:
        (made,) = server.client.grants(server.evidence())
    header, key = opened(office.device, made)
    assert (header.kind, header.slot, header.verifier) == (KeyKind.MODEL, 0, terms.mo)
    assert (header.key_id, key) == ring.model_key()


def test_numbers_rise_with_each_grant_of_a_slot_and_go_on_after_a_restart(site):
    numbers = []
    for _ in range(2):
        with site.serving() as server:
            for _ in range(2):
                numbers.append([grant.open_grant(one).number for one in server.client.grants(server.evidence())])
    assert numbers == [[NOW + step] * 3 for step in range(4)]


def test_numbers_go_on_where_the_ledger_was_lost(site):
    with site.serving() as server:
        before = grant.open_grant(server.client.grants(server.evidence())[0]).number
    for path in site.folder.glob("ledger.db*"):
        path.unlink()
    site.clock.now_s += 60
    with site.serving() as server:
        assert grant.open_grant(server.client.grants(server.evidence())[0]).number > before


def test_numbers_go_on_where_the_clock_was_set_back(site):
    with site.serving() as server:
        server.client.grants(server.evidence())
        site.clock.now_s -= 600
        assert grant.open_grant(server.client.grants(server.evidence())[0]).number == NOW + 1


def test_two_hundred_nodes_at_once(site, office):
    """Four at a time, as two cores allow; each gets its own numbers and stands as passed."""
    nodes = [another(office.device, "node {}".format(number)) for number in range(200)]
    chains = {node.ueid: office.issue(device=node) for node in nodes}
    listed = "".join("[node.n{}]\nueid = \"{}\"\n".format(number, node.ueid.hex()) for number, node in enumerate(nodes))
    with site.serving("[limits]\nper_address = 1000\n" + listed) as server:
        def attest(node):
            return server.client.grants(server.evidence(node, None, chains[node.ueid]))

        with ThreadPoolExecutor(4) as pool:
            made = list(pool.map(attest, nodes))
    numbers = [grant.open_grant(one).number for grants in made for one in grants]
    assert len(set(numbers)) == 200 and len(numbers) == 600
    assert {standing(site, node) for node in nodes} == {Standing.PASSED}
    with ledger(site) as found:
        assert len(list(found.audit())) == 201


# ---------------------------------------------------------------------------------------------------------- refusals


def test_a_nonce_is_good_once(site, server, office):
    evidence = server.evidence()
    server.client.grants(evidence)
    status, reason = server.refused(evidence)
    assert status == 403 and "is not out: each is good once" in reason
    assert standing(site, office.device) is Standing.PASSED  # whoever copied it does nobody harm


def test_a_nonce_is_used_up_by_evidence_that_is_refused(server, office):
    nonce = server.challenge(office.device)
    claims = changed(office.device.claims(nonce), dbgstat=0)
    assert "debugging is enabled" in server.refused(server.evidence(nonce=nonce, claims=claims))[1]
    assert "is not out" in server.refused(server.evidence(nonce=nonce))[1]


def test_a_nonce_survives_a_restart_and_is_still_good_once(site, office):
    with site.serving() as server:
        nonce = server.challenge(office.device)
    with site.serving() as server:
        evidence = server.evidence(nonce=nonce)
        assert len(server.client.grants(evidence)) == 3
    with site.serving() as server:
        assert "is not out" in server.refused(evidence)[1]


def test_a_nonce_that_this_server_never_drew_is_refused(server):
    assert server.refused(server.evidence(nonce=bytes(32)))[0] == 403


def test_a_nonce_runs_out(site, server):
    evidence = server.evidence()
    site.clock.now_s += 301
    status, reason = server.refused(evidence)
    assert status == 403 and "its nonce was drawn 301 s ago, more than 300" in reason


def test_a_nonce_long_past_is_forgotten(site, server, office):
    evidence = server.evidence()
    site.clock.now_s += 601
    server.challenge(office.device)
    assert "is not out" in server.refused(evidence)[1]


def test_evidence_of_another_node_is_refused(site, server, office):
    other = another(office.device, "other")
    nonce = server.challenge(office.device)
    status, reason = server.refused(server.evidence(other, nonce, office.issue(device=other)))
    assert status == 403 and "evidence is of device {}, asked was {}".format(
        other.ueid.hex(), office.device.ueid.hex()) in reason
    assert standing(site, other) is Standing.REFUSED and standing(site, office.device) is Standing.SILENT


def test_a_certificate_of_another_node_is_refused(site, server, office):
    other = another(office.device, "other")
    assert server.refused(server.evidence(other))[0] == 403
    assert standing(site, other) is standing(site, office.device) is Standing.SILENT


def test_a_revoked_device_is_refused_as_soon_as_the_list_is_there(site, tmp_path_factory, ring, city, terms):
    own = Office(tmp_path_factory.mktemp("own") / "ca")
    (site.folder / "own").mkdir()
    site = Site(site.folder / "own", own, ring, city, terms)
    with site.serving() as server:
        server.client.grants(server.evidence())
        own.authority.revoke("board-1", NOW - 60, STOLEN)
        site.put("hardware.crl", own.authority.crl("hardware", PASSPHRASE, NOW - 60))
        status, reason = server.refused(server.evidence())
        assert status == 403 and "revoked" in reason
        assert standing(site, own.device) is Standing.REFUSED


def test_an_expired_certificate_is_refused(server, office):
    old = office.issue(now_s=NOW - 100 * DAY_S, days=99)
    status, reason = server.refused(server.evidence(certificates=old))
    assert status == 403 and "device certificate" in reason


def test_an_emulated_device_is_refused_unless_that_is_configured(site, office):
    def evidence(server):
        return server.evidence(office.emulated, None, office.chains["emulated"])

    with site.serving() as server:
        assert "the device is emulated" in server.refused(evidence(server))[1]
    assert standing(site, office.emulated) is Standing.REFUSED
    site.put("reference.cose", signed_references(REFERENCES["emulated"]))
    with site.serving("[policy]\nallow_emulated = true\n") as server:
        assert len(server.client.grants(evidence(server))) == 3


@pytest.mark.parametrize("changes, reason", [
    (dict(dbgstat=0), "debugging is enabled"), (dict(oemboot=False), "not fused"), ({"class_": "emulated"}, "emulated"),
    (dict(submods={"key": {-65538: b"x" * 32, -65539: 1, -65540: b"u" * 16}}), "the key application's UUID")])
def test_a_state_that_nobody_should_trust_is_refused(server, office, changes, reason):
    nonce = server.challenge(office.device)
    status, said = server.refused(server.evidence(nonce=nonce, claims=changed(office.device.claims(nonce), **changes)))
    assert status == 403 and reason in said and "\n" not in said


def test_evidence_with_an_altered_byte_is_refused_and_put_down_to_nobody(site, server, office):
    evidence = bytearray(server.evidence())
    place = bytes(evidence).index(b"b" * 32)  # bootseed
    evidence[place] ^= 1
    status, reason = server.refused(bytes(evidence))
    assert status == 403 and "its signature does not verify" in reason
    assert standing(site, office.device) is Standing.SILENT


def test_whatever_is_altered_in_evidence_is_an_answer_and_no_grant(site, office):
    """Asked directly, without the network: every 13th byte of evidence and of its certificates."""
    config = site.configure("[limits]\nper_device = 1000\n")
    desk = ServerOffice(config, site.holder(), site.clock)
    try:
        for first in range(13):
            nonce = keyprotocol.read_challenge(desk.challenge(keyprotocol.ask(office.device.ueid)).body)
            evidence = office.device.attests(office.device.claims(nonce), office.chains["hardware"])
            for place in range(first, len(evidence), 13 * 13):
                broken = bytearray(evidence)
                broken[place] ^= 1 << place % 8
                answer = desk.evidence(bytes(broken))
                assert answer.status in (400, 403) and keyprotocol.read_refusal(answer.body).isprintable()
    finally:
        desk.close()


def test_a_reason_does_not_reach_a_terminal_as_anything_but_text(site, server, office, caplog):
    nonce = server.challenge(office.device)
    claims = dict(office.device.claims(nonce), **{"\x1b[2J\n": 1})
    status, reason = server.refused(server.evidence(nonce=nonce, claims=claims))
    assert status == 400 and reason.isprintable() and "\x1b" not in caplog.text


def test_what_is_no_evidence_is_malformed(server):
    for body in (b"", b"\0", b"\xd2\x80", keyprotocol.ask(b"\1" * 17)):
        assert server.refused(body)[0] == 400


def test_what_is_no_question_is_malformed(server):
    for body in (b"", b"{}", keyprotocol.ask(b"\1" * 16), keyprotocol.challenge(bytes(32))):
        assert server.refused(body, keyprotocol.CHALLENGE)[0] == 400


def test_a_node_that_is_not_listed_gets_no_challenge(site, office):
    with site.serving("[node.gate]\nueid = \"{}\"\n".format(office.emulated.ueid.hex())) as server:
        status, reason = server.refused(keyprotocol.ask(office.device.ueid), keyprotocol.CHALLENGE)
        assert status == 403 and "is none of the nodes that are listed here" in reason
        server.challenge(office.emulated)


def test_out_of_an_agreements_time_nobody_is_refused_and_nothing_is_granted(site, server, office, caplog):
    server.client.grants(server.evidence())
    evidence = server.evidence()
    site.put("agreement.cose", site.signed(replace(site.terms, until_s=NOW)))
    status, reason = server.refused(evidence)
    assert status == 503 and reason == "out of order: its operator's log says why"
    assert "put the one in force there" in caplog.text and standing(site, office.device) is Standing.PASSED
    site.put("agreement.cose", site.signed(site.terms))
    assert len(server.client.grants(evidence)) == 3  # its nonce was not used up


def test_a_new_agreement_is_in_force_once_it_is_there(site, server):
    newer = replace(site.terms, number=4)
    site.put("agreement.cose", site.signed(newer))
    assert {grant.open_grant(one).agreement for one in server.client.grants(server.evidence())} == {newer.digest}


def test_two_roots_are_none(site, office):
    site.put("root.pem", (site.folder / "root.pem").read_bytes() * 2)
    with pytest.raises(PackageError, match="root.pem: 2 certificates, not the root's alone"):
        with site.serving():
            pass


def test_an_agreement_that_names_a_key_which_is_not_here_stops_the_server(site, terms):
    site.put("agreement.cose", site.signed(replace(terms, data_key=b"D" * 16)))
    with pytest.raises(KeyRefused, match="names data key 4444.*not among these keys"):
        with site.serving():
            pass


def test_reference_values_of_another_signer_stop_the_server(site):
    site.put("reference.cose", signed_references(key=OTHER))
    with pytest.raises(VerificationFailed, match="reference values: are signed by none"):
        with site.serving():
            pass


def test_an_agreement_that_another_signed_stops_the_server(site, terms):
    signed = site.signed(terms)
    site.put("agreement.cose", signed[:-1] + bytes([signed[-1] ^ 1]))
    with pytest.raises(VerificationFailed, match="the query data owner's signature does not verify"):
        with site.serving():
            pass


def test_another_partys_keys_do_not_serve(site, terms, tmp_path):
    keys.make_keys(str(tmp_path / "elsewhere"))
    with pytest.raises(KeyRefused, match="its query data owner is {}, these keys are of".format(terms.qdo.hex())):
        of_city(str(tmp_path / "elsewhere")).due(terms)
    with pytest.raises(KeyRefused, match="its model owner is"):
        of_owner(keyring.generate()).due(terms)


# ------------------------------------------------------------------------------------------------------------ limits


def test_a_request_that_is_too_large_is_refused(server):
    status, reason = server.refused(bytes(keyprotocol.REQUEST_MAX + 1))
    assert status == 413 and "at most 16384 bytes" in reason


def test_a_request_that_says_nothing_of_its_size_is_cut_off_at_the_limit(server):
    connection = server.connection()
    connection.request("POST", keyprotocol.EVIDENCE, (bytes(1024) for _ in range(64)), encode_chunked=True,
                       headers={"Transfer-Encoding": "chunked"})
    assert connection.getresponse().status == 413
    connection.close()


def test_a_compressed_request_is_not_expanded(server, office):
    status, _, _ = server.post(keyprotocol.EVIDENCE, zlib.compress(bytes(1 << 20)), **{"Content-Encoding": "deflate"})
    assert status == 400


@pytest.mark.parametrize("sent", [b"", b"POST /evid",
                                  b"POST /evidence HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nab"])
def test_a_slow_client_is_cut_off_and_nobody_waits_for_it(site, sent):
    with site.serving("[limits]\ntimeout_s = 3.0\n") as server:
        began = time.monotonic()
        slow = server.connection()
        slow.connect()
        slow.sock.sendall(sent)
        assert len(server.client.grants(server.evidence())) == 3 and time.monotonic() - began < 3
        assert ended(slow.sock) and 2 < time.monotonic() - began < 9
        slow.close()


def test_a_slow_client_does_not_keep_the_server_from_stopping(site):
    with site.serving("[limits]\ntimeout_s = 2.0\n") as server:
        slow = server.connection()
        slow.connect()
        slow.sock.sendall(b"POST /evidence HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nab")
        time.sleep(0.1)
        began = time.monotonic()
    assert time.monotonic() - began < 10
    slow.close()


def ended(connection):
    """Waits until the other side has closed it."""
    try:
        while connection.recv(4096):
            pass
    except (ConnectionError, ssl.SSLError):
        pass
    return True


def test_who_does_not_even_shake_hands_is_cut_off(site):
    with site.serving("[limits]\ntimeout_s = 1.0\n") as server:
        with socket.create_connection((LOOPBACK, server.port), timeout=10) as silent:
            assert ended(silent)


def test_no_other_request_is_answered(server):
    for method, path, status in (("GET", "/challenge", 405), ("POST", "/", 404), ("POST", "/../etc/passwd", 404)):
        connection = server.connection()
        connection.request(method, path)
        assert connection.getresponse().status == status
        connection.close()


def test_what_is_not_http_is_not_answered_for_long(server):
    connection = server.connection()
    connection.connect()
    connection.sock.sendall(b"\0\1\2\3\r\n\r\n")
    assert ended(connection.sock)
    connection.close()


def test_without_tls_nothing_is_said(server):
    with socket.create_connection((LOOPBACK, server.port), timeout=10) as plain:
        plain.sendall(b"POST /challenge HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        found = b""
        try:
            found = plain.recv(4096)
        except ConnectionError:
            pass
        assert b"HTTP" not in found


def test_an_older_tls_is_refused(server):
    context = ssl.create_default_context(cafile=str(server.site.folder / "server.pem"))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with socket.create_connection((LOOPBACK, server.port), timeout=10) as plain:
        with pytest.raises(ssl.SSLError):
            context.wrap_socket(plain, server_hostname=LOOPBACK)


def test_an_address_that_asks_too_often_waits(site, office):
    with site.serving("[limits]\nper_address = 3\n") as server:
        for _ in range(3):
            server.challenge(office.device)
        status, headers, body = server.post(keyprotocol.CHALLENGE, keyprotocol.ask(office.device.ueid))
        assert status == 429 and 1 <= int(headers["Retry-After"]) <= 21
        assert "this address asks too often" in keyprotocol.read_refusal(body)
        with pytest.raises(ServerError, match="this address asks too often: wait"):
            server.challenge(office.device)


def test_a_device_that_asks_too_often_waits_wherever_it_asks_from(site, office):
    other = another(office.device, "other")
    with site.serving("[limits]\nper_device = 2\n") as server:
        for _ in range(2):
            server.client.grants(server.evidence())
        status, reason = server.refused(server.evidence())
        assert status == 429 and "device {} asks too often".format(office.device.ueid.hex()) in reason
        assert len(server.client.grants(server.evidence(other, None, office.issue(device=other)))) == 3


def test_in_another_devices_name_nobody_uses_up_its_share(site, office):
    with site.serving("[limits]\nper_device = 1\n") as server:
        stranger = Device(attest=office.emulated.attest)
        for _ in range(3):
            assert server.refused(server.evidence(stranger))[0] == 403
        assert len(server.client.grants(server.evidence())) == 3


def test_connections_beyond_the_limit_of_an_address_are_closed(site, office):
    with site.serving("[limits]\nconnections_per_address = 2\n") as server:
        held = [server.connection() for _ in range(2)]
        for one in held:
            one.connect()
        assert eventually(lambda: not is_served(server, office.device))
        for one in held:
            one.close()
        assert eventually(lambda: is_served(server, office.device))


def is_served(server, device):
    try:
        return len(server.challenge(device)) == keyprotocol.NONCE_BYTES
    except ServerError:
        return False


def eventually(holds):
    """A connection counts once the server has seen it, which its client does not wait for."""
    deadline_s = time.monotonic() + 10
    while not holds():
        if time.monotonic() > deadline_s:
            return False
        time.sleep(0.05)
    return True


def test_buckets_fill_again_and_forget_who_asked_longest_ago():
    buckets = Buckets(2, 10.0, kept=2)
    assert [buckets.take("a", 0.0) for _ in range(3)] == [0, 0, 5.0]
    assert buckets.take("a", 4.0) == pytest.approx(1.0) and buckets.take("a", 5.0) == 0
    assert buckets.take("a", 1000.0) == buckets.take("a", 1000.0) == 0 and buckets.take("a", 1000.0) > 0
    buckets.take("b", 1000.0)
    buckets.take("c", 1000.0)
    assert buckets.take("a", 1000.0) == 0  # forgotten


def test_an_ipv6_customer_is_one_address():
    assert network_of("2001:db8::1") == network_of("2001:db8::ffff:1") != network_of("2001:db8:0:1::1")
    assert network_of("::ffff:10.0.0.1") == network_of("10.0.0.1") == "10.0.0.1"
    assert network_of("fe80::1%eth0") == "fe80::/64" and network_of(None) == network_of("") == ""


# ------------------------------------------------------------------------------------------------- files and commands


@pytest.mark.parametrize("more, reason", [
    ("ledgers = 1\n", "ledgers: unknown key"), ("[limits]\nper_adress = 1\n", "limits.per_adress: unknown key"),
    ("[policy]\nsilent_s = 100\n", "policy.silent_s: 100: at least expires_s, 86400"),
    ("[policy]\nnonce_s = 9\n", "policy.nonce_s: 9"), ("[limits]\nper_device = 0\n", "limits.per_device: 0"),
    ("[node.Gate]\nueid = \"{}\"\n".format("01" * 17), "node.Gate: not a name"),
    ("[node.a]\nueid = \"{0}\"\n[node.b]\nueid = \"{0}\"\n".format("01" * 17), "node.b.ueid: is that of node a, too"),
    ("[node.a]\nueid = \"01\"\n", "node.a.ueid: \"01\": 34 digits")])
def test_a_configuration_that_is_wrong_is_one_line_with_file_line_and_key(site, more, reason):
    with pytest.raises(ConfigError, match=reason) as caught:
        site.configure(more)
    assert "keyserver.toml:" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("key, value", [("bind", "nowhere"), ("bind", "a:65536"), ("mo", "00")])
def test_a_value_that_is_wrong_is_named(site, key, value):
    site.configure()
    path = site.folder / configs.FILE
    path.write_text("\n".join("{} = \"{}\"".format(key, value) if line.startswith(key + " ") else line
                              for line in path.read_text().splitlines()))
    with pytest.raises(ConfigError, match=key + ": \"" + value):
        configs.load(str(path))


def test_signers_are_keys(site):
    site.configure()
    path = site.folder / configs.FILE
    path.write_text(path.read_text().replace("signers = [\"", "signers = [\"x"))
    with pytest.raises(ConfigError, match="signers: \"x.*64 digits"):
        configs.load(str(path))


def serve(site, capsys, *more):
    """What `edged-city serve` says that cannot start."""
    if not (site.folder / configs.FILE).exists():
        site.configure()
    code = city_program.main(["serve", "--dir", str(site.city), "--config", str(site.folder / configs.FILE), *more])
    err = capsys.readouterr().err
    assert err.count("\n") == 1, err
    return code, err


def test_a_private_key_that_others_may_read_is_refused(site, capsys):
    (site.folder / "server.key").chmod(0o640)
    code, err = serve(site, capsys)
    assert code == 77 and "server.key: mode 0640 lets others at it" in err


def test_a_private_key_of_another_certificate_is_refused(site, capsys):
    tls(site.folder, "other")
    (site.folder / "server.key").write_bytes((site.folder / "other.key").read_bytes())
    code, err = serve(site, capsys)
    assert code == 78 and "are no pair in PEM" in err


def test_a_private_key_under_a_passphrase_is_refused_and_nobody_is_asked(site, capsys):
    path = site.folder / "server.key"
    key = serialization.load_pem_private_key(path.read_bytes(), None)
    path.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                                       serialization.BestAvailableEncryption(b"secret")))
    code, err = serve(site, capsys)
    assert code == 78 and "or the key is under a passphrase" in err


@pytest.mark.parametrize("name", ["server.pem", "server.key", "root.pem", "hardware.crl", "reference.cose",
                                  "agreement.cose"])
def test_a_file_that_is_missing_is_named(site, capsys, name):
    site.put("agreement.cose", site.signed(replace(site.terms, from_s=0)))  # in force now
    (site.folder / name).unlink()
    code, err = serve(site, capsys)
    assert code == 66 and name in err


def test_a_ledger_that_is_none_is_left_alone(site):
    site.put("ledger.db", b"not a database, and longer than a header of one would be" * 40)
    with pytest.raises(SpoolError, match="ledger.db"):
        with site.serving():
            pass
    assert (site.folder / "ledger.db").read_bytes().startswith(b"not a database")


def test_an_address_in_use_is_one_line(site):
    with site.serving() as server:
        site.bind = "{}:{}".format(LOOPBACK, server.port)
        with pytest.raises(ServerError, match="bind 127.0.0.1:{}: ".format(server.port)):
            with site.serving():
                pass


def test_nodes_and_audit_without_a_ledger_say_so(site, capsys):
    site.configure()
    for name in ("nodes", "audit"):
        assert city_program.main([name, "--config", str(site.folder / configs.FILE)]) == 66
        assert "there is no ledger: `serve` makes one" in capsys.readouterr().err


def test_the_command_serves_until_it_is_told_to_stop(site, terms, tmp_path):
    """As a process, with the owner's ring; the agreement is for now."""
    site.put("agreement.cose", site.signed(replace(terms, from_s=0, until_s=(1 << 32) - 1)))
    site.configure("[policy]\nallow_emulated = true\n")
    for name, content in (("ring", keyring.seal(site.ring, PASSPHRASE, 1 << 4)), ("passphrase", PASSPHRASE)):
        site.put(name, content)
        (site.folder / name).chmod(0o600)
    process = subprocess.Popen(
        [sys.executable, "-m", "edged.owner", "serve", "--keys", "ring", "--passphrase-file", "passphrase"],
        cwd=str(site.folder), stderr=subprocess.PIPE,
        env=dict(os.environ, PYTHONPATH=os.path.dirname(os.path.dirname(owner_program.__file__))))
    try:
        assert process.stderr.readline() == b"devices that are EMULATED get keys: they protect nothing\n"
        line = process.stderr.readline().decode()
        assert line.startswith("listening on 127.0.0.1:"), line
        client = KeyServer(line.split()[-1], str(site.folder / "server.pem"))
        assert len(client.challenge(site.office.device.ueid)) == 32
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0 and process.stderr.read() == b""
    finally:
        process.kill()
        process.stderr.close()
        process.wait()


@pytest.mark.parametrize("odd", [1 << 20000, [1 << 20000], {1 << 20000: 1}], ids=["number", "list", "map"])
def test_a_number_that_python_does_not_print_is_malformed_like_any_other(server, site, odd):
    body = canonical.encode({"form": "edged challenge request 1", "ueid": odd})
    status, reason = server.refused(body, keyprotocol.CHALLENGE)
    assert status == 400 and "thousands of digits" in reason
    status, _ = server.refused(canonical.encode({odd if isinstance(odd, int) else 1: 2}), keyprotocol.CHALLENGE)
    assert status == 400


# -------------------------------------------------------------------------------------------------- without a server


@pytest.fixture
def desk(site, city, monkeypatch):
    """edged-city grant with these arguments: its exit code."""
    monkeypatch.setattr(ServerOffice.__init__, "__defaults__", (lambda: NOW,))
    site.configure()
    return lambda *given: city_program.main(
        ["grant", "--dir", str(city), "--config", str(site.folder / configs.FILE)] + list(given))


def test_grants_are_made_as_files_by_the_same_rules(site, desk, office, city, capsys, tmp_path):
    device = office.device
    assert desk("--challenge", device.ueid.hex()) == 0
    nonce = bytes.fromhex(capsys.readouterr().out.strip())
    evidence = device.attests(device.claims(nonce), office.chains["hardware"])
    (tmp_path / "evidence").write_bytes(evidence)
    assert desk("--evidence", str(tmp_path / "evidence"), "--out", str(tmp_path / "grants")) == 0
    said = capsys.readouterr().out.splitlines()
    assert [path.name for path in sorted((tmp_path / "grants").iterdir())] == ["1.grant", "2.grant", "3.grant"]
    assert len(said) == 3 and "data key of slot 1, number " in said[0]
    header, key = opened(device, (tmp_path / "grants" / "1.grant").read_bytes())
    assert key == (city / "data.key").read_bytes() and header.slot == 1
    assert standing(site, device) is Standing.PASSED
    assert desk("--evidence", str(tmp_path / "evidence"), "--out", str(tmp_path / "again")) == 76
    assert "each is good once" in capsys.readouterr().err and not (tmp_path / "again").exists()


@pytest.mark.parametrize("given, code, message", [
    (["--challenge", "00"], 2, "--challenge"), (["--challenge", "00" * 17, "--out", "x"], 2, "go together"),
    (["--evidence", "README.md"], 2, "go together"), (["--evidence", "setup.cfg", "--out", "x"], 65, "evidence"),
    (["--evidence", "nowhere", "--out", "x"], 66, "nowhere")])
def test_what_is_no_request_for_grants_is_one_line(desk, capsys, given, code, message):
    assert desk(*given) == code
    said = capsys.readouterr()
    assert message in said.err and len(said.err.splitlines()) == 1 and not said.out
