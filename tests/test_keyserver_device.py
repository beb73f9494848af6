"""Both parties' key servers before the running key application: it takes what they give, and knows old from new."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

pytest.importorskip("aiohttp", reason="the key server needs it: pip install 'edged[server]'")

from edged.enclave import wire  # noqa: E402
from edged.enclave.keystore import KeyStore  # noqa: E402
from edged.enclave.wire import KeyKind  # noqa: E402
from edged.errors import EnclaveError  # noqa: E402
from edged.trust import chain, evidence  # noqa: E402
from edged.trust.certificates import Authority  # noqa: E402
from edged.trust.chain import CLASSES, EMULATED  # noqa: E402
from edged.trust.reference import References, Version  # noqa: E402
import linking  # noqa: E402
from evidence_cases import CHEAP, NOW, PASSPHRASE, signed_references  # noqa: E402
from keyserver_cases import Site, city, ring, terms  # noqa: E402, F401
from test_identity import STATION_SECRET, Device, applications, key_link_of  # noqa: E402

LENIENT = "[policy]\nallow_emulated = true\nallow_debug = true\nallow_unfused = true\n"


@pytest.fixture
def node():
    with Device() as running:
        yield running


def test_keys_come_from_two_servers_into_the_running_enclave(node, tmp_path, ring, city, terms):  # noqa: F811
    store = KeyStore(node.folder)
    store.draw(node.key)
    authority = Authority(str(tmp_path / "ca"), CHEAP)
    authority.create("Testing", PASSPHRASE, NOW)
    authority.add_board("0001", "north", EMULATED, STATION_SECRET, PASSPHRASE)
    enrolled = authority.enrol("0001", node.key.request(authority.challenge("0001", NOW)), PASSPHRASE, NOW)
    certificates = [chain.der(one) for one in chain.read_pem(enrolled.chain, "chain")]
    known = applications()

    site = Site(tmp_path, SimpleNamespace(root=authority.certificate("root"), crls=[
        chain.read_crl(authority.crl(class_, PASSPHRASE, NOW), class_) for class_ in CLASSES]), ring, city, terms)
    site.seen(chain.read_certificate(certificates[0], ""))
    site.put("reference.cose", signed_references(References(EMULATED, NOW, {
        name: frozenset([Version(one[-65538], one[-65539])]) for name, one in known.items()}, {"key": 1, "eval": 1})))

    def fetch(party):
        with site.serving(LENIENT, party) as server, key_link_of(node) as link:
            # The evaluation application links itself, as at its start.
            linking.link(link, node.folder, replace(
                linking.HELLO, measurement=known["eval"][-65538], security_version=1))
            return server.grants(evidence.with_chain(node.key.attest(server.challenge(node)), certificates))

    grants = fetch("owner") + fetch("city")
    for one in grants:
        store.install(node.key, one)
    given = [KeyKind.MODEL, KeyKind.DATA, KeyKind.ALERT, KeyKind.ALERT]
    assert list(node.key.info().kinds)[:4] == given
    for one in grants:  # once more
        with pytest.raises(EnclaveError):
            store.install(node.key, one)
    node.restart_key()
    assert store.bring_back(node.key) and list(node.key.info().kinds)[:4] == given
    for one in fetch("city"):  # newer ones are taken
        store.install(node.key, one)
    assert node.key.info().flags & wire.KEY_FLAG_STATE
