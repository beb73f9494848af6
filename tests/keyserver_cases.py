"""A key server on loopback, with TLS made here, before a city's stand-in devices (evidence_cases.py)."""

import datetime
import http.client
import ipaddress
import ssl
import threading
from contextlib import contextmanager
from dataclasses import dataclass, replace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from edged.alerts import keys
from edged.enclave import wire
from edged.keyserver import config as configs
from edged.keyserver.holder import of_city, of_owner
from edged.keyserver.ledger import Ledger, Standing
from edged.keyserver.office import Office as ServerOffice
from edged.stopping import Stop
from edged.trust import chain, keyprotocol, keyring
from edged.trust.agreement import Agreement, ModelTerms, Recipient, Rule, sign
from edged.trust.keyclient import KeyServer
from evidence_cases import (  # noqa: F401  # office is a fixture
    DAY_S, KEYS, MO, NOW, office, raw_public, seen, signed_references)

LOOPBACK = "127.0.0.1"
SEEN = "devices = \"devices\""


def tls(folder, name="server", days=1):
    """NAME.pem and NAME.key of a certificate for loopback, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    begin = datetime.datetime(2020, 1, 1)
    end = datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None) + datetime.timedelta(days=days)
    certificate = (x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
                   .serial_number(x509.random_serial_number()).not_valid_before(begin).not_valid_after(end)
                   .add_extension(x509.SubjectAlternativeName([
                       x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address(LOOPBACK))]), False)
                   .add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
                   .sign(key, hashes.SHA256()))
    (folder / (name + ".pem")).write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    path = folder / (name + ".key")
    path.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                                       serialization.NoEncryption()))
    path.chmod(0o600)


class Clock:
    """Of the server, which its tests move."""

    now_s = NOW

    def __call__(self):
        return self.now_s


class Site:
    """All files of a key server in a folder. terms : the agreement; its parties' keys are in ``ring`` and ``city``"""

    bind = LOOPBACK + ":0"

    def __init__(self, folder, office, ring, city, terms):
        self.folder, self.office, self.clock = folder, office, Clock()
        self.ring, self.city, self.terms = ring, city, terms
        tls(folder)
        self.put("root.pem", chain.pem([office.root]))
        for class_, crl in zip(chain.CLASSES, office.crls):
            self.put(class_ + ".crl", chain.pem([crl]))
        self.put("reference.cose", signed_references())
        self.put("agreement.cose", self.signed(terms))
        self.seen(*KEYS)

    def put(self, name, content):
        (self.folder / name).write_bytes(content)

    def seen(self, *keys):
        """Whose attestation keys the party lists."""
        self.put("devices", "".join("{} a board\n".format(seen(key).hex()) for key in keys).encode())

    def signed(self, terms):
        return sign(terms.encode(), self.ring.signing_key, keys.read_signing_key(str(self.city)))

    def configure(self, more="", before="", devices=SEEN):
        (self.folder / configs.FILE).write_text(
            before + "schema = 1\nbind = \"{}\"\ncertificate = \"server.pem\"\nprivate_key = \"server.key\"\n"
            "ledger = \"ledger.db\"\nagreement = \"agreement.cose\"\nmo = \"{}\"\nqdo = \"{}\"\nroot = \"root.pem\"\n"
            "crls = [\"hardware.crl\", \"emulated.crl\"]\nreferences = [\"reference.cose\"]\nsigners = [\"{}\"]\n"
            "{}\n{}".format(self.bind, self.terms.mo.hex(), self.terms.qdo.hex(), raw_public(MO).hex(), devices, more))
        return configs.load(str(self.folder / configs.FILE))

    def holder(self, party="city"):
        return of_city(str(self.city)) if party == "city" else of_owner(self.ring)

    @contextmanager
    def serving(self, more="", party="city", before="", devices=SEEN):
        """A ``Running`` server. more : tables      before : keys outside of any      devices : who may ask"""
        config, holder = self.configure(more, before, devices), self.holder(party)
        stop, ports, came, failed = Stop(), [], threading.Event(), []

        def ready(port):
            ports.append(port)
            came.set()

        def work():
            from edged.keyserver import web  # needs the extra `server`
            try:
                web.serve(config, lambda: ServerOffice(config, holder, self.clock), stop, ready)
            except BaseException as error:
                failed.append(error)
            finally:
                came.set()

        thread = threading.Thread(target=work)
        thread.start()
        try:
            assert came.wait(20)
            if failed:
                raise failed[0]
            yield Running(self, ports[0])
        finally:
            stop.set()
            thread.join(20)
            assert not thread.is_alive()
        assert not failed, failed


@dataclass(frozen=True)
class Running:
    site: Site
    port: int

    @property
    def client(self):
        return KeyServer("{}:{}".format(LOOPBACK, self.port), str(self.site.folder / "server.pem"), 10)

    def connection(self, timeout=10.0, **more):
        context = ssl.create_default_context(cafile=str(self.site.folder / "server.pem"))
        return http.client.HTTPSConnection(LOOPBACK, self.port, timeout=timeout, context=context, **more)

    def post(self, path, body, **headers):
        """(status, headers, body)"""
        connection = self.connection()
        try:
            connection.request("POST", path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()

    def grants(self, evidence):
        return self.client.grants(evidence).grants

    def challenge(self, device):
        return self.client.challenge(device.ueid)

    def evidence(self, device=None, nonce=None, certificates=None, claims=None):
        """Valid for a challenge of this server, but for what is given."""
        office = self.site.office
        device = device or office.device
        nonce = nonce or self.challenge(device)
        return device.attests(claims or device.claims(nonce), certificates or office.chains["hardware"])

    def refused(self, body, path=keyprotocol.EVIDENCE):
        """(status, reason)"""
        status, _, content = self.post(path, body)
        return status, keyprotocol.read_refusal(content)


def another(device, name):
    """The same keys under another ueid, which no authority would certify: it spares drawing keys."""
    return replace(device, ueid=b"\1" + name.encode().ljust(16, b"\0")[:16])


def ledger(site):
    return Ledger(str(site.folder / "ledger.db"))


def standing(site, device, now_s=NOW):
    with ledger(site) as found:
        node = found.node(device.ueid)
    return node.standing(now_s, DAY_S, 2 * DAY_S) if node else Standing.SILENT


@pytest.fixture(scope="module")
def ring():
    return keyring.generate()


@pytest.fixture(scope="module")
def city(tmp_path_factory):
    folder = tmp_path_factory.mktemp("city") / "city"
    keys.make_keys(str(folder), ("city", "police"))
    return folder


@pytest.fixture(scope="module")
def terms(ring, city):
    public = keys.read_public(str(city))
    return Agreement(
        mo=ring.public.verify_key, qdo=public.qdo, body=1024, from_s=NOW - DAY_S,
        model=ModelTerms("st-gcn", 1, ring.public.key_ids[-1]), rules=(Rule("falling", 40000, 60),),
        until_s=NOW + 30 * DAY_S, number=3, status=wire.MessageStatus.TEST, beacon_period_s=10, beacon_limit_s=60,
        data_key=public.data_key_id, placements=5, score_bits=7, clips_per_hour=3600,
        recipients=tuple(Recipient(one.rcpt, one.key_id, 0, (3,)) for one in public.recipients))


@pytest.fixture
def site(tmp_path, office, ring, city, terms):
    return Site(tmp_path, office, ring, city, terms)


@pytest.fixture
def server(site):
    with site.serving() as running:
        yield running
