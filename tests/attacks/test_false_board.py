"""The city, whose authority says what a device is, wants the model key for itself: it certifies a board that it plays.
Everything else about that board is right. The model owner's server gives keys to devices that the owner has seen.
"""

from dataclasses import replace

import pytest

pytest.importorskip("aiohttp", reason="the key server needs it: pip install 'edged[server]'")

from cryptography.hazmat.primitives.asymmetric import rsa  # noqa: E402

from edged.keyserver.ledger import Standing  # noqa: E402
from edged.trust import chain, grant  # noqa: E402
from evidence_cases import KEYS, Device, seen  # noqa: E402
from keyserver_cases import city, ledger, office, ring, site, standing, terms  # noqa: E402, F401

FALSE = Device(ueid=b"\1" + b"f" * 16, attest=rsa.generate_private_key(65537, 2048),
               grant=rsa.generate_private_key(65537, 2048), secret=b"f" * 32)


@pytest.fixture(scope="module")
def certified(office):  # noqa: F811
    """By all that its authority asks for."""
    office.authority.add_board("false-1", "false-node", "hardware", FALSE.secret, b"correct horse battery")
    return office.enrol("false-1", FALSE)


def granted(site):  # noqa: F811
    with ledger(site) as found:
        return [entry.ueid for entry in found.audit() if entry.event == "granted"]


def test_a_board_that_the_owner_never_saw_gets_nothing(site, certified):
    with site.serving(party="owner") as server:
        status, reason = server.refused(server.evidence(FALSE, None, certified))
        assert status == 403 and "attestation key {} is not listed".format(seen(FALSE.attest).hex()) in reason
        assert standing(site, FALSE) is Standing.REFUSED and granted(site) == []
        server.grants(server.evidence())  # those that he saw get theirs


def test_it_would_have_got_the_model_key_where_the_authority_is_trusted(site, certified):
    """So nothing but the list stands in its way."""
    with site.serving(party="owner", devices="trust_authority = true") as server:
        (made,) = server.grants(server.evidence(FALSE, None, certified))
    assert grant.open_grant(made).slot == 0 and granted(site) == [FALSE.ueid]


def test_a_device_that_was_seen_does_not_serve_a_grant_key_that_was_not(site, office):  # noqa: F811
    """The authority puts its own grant key beside the real board's attestation key; that board names its own."""
    false = office.issue(device=replace(office.device, grant=FALSE.grant))
    with site.serving(party="owner") as server:
        reason = server.refused(server.evidence(certificates=false))[1]
        assert "evidence names another grant key than the device's certificate" in reason and granted(site) == []


def test_in_the_name_of_a_device_that_was_seen_a_false_one_changes_nothing(site, office):  # noqa: F811
    """Not what is known of it, nor how often it may ask."""
    device = replace(FALSE, ueid=office.device.ueid)
    false = office.issue(device=device)
    with site.serving("[limits]\nper_device = 2\n", "owner") as server:
        server.grants(server.evidence())
        for _ in range(3):
            status, reason = server.refused(server.evidence(device, None, false))
            assert status == 403 and "is not listed" in reason
        assert standing(site, office.device) is Standing.PASSED
        server.grants(server.evidence())


def test_a_device_with_a_new_identity_is_refused_until_it_is_listed_anew(site, office):  # noqa: F811
    """While the server runs: whoever saw it writes a line."""
    anew = replace(office.device, attest=FALSE.attest, grant=FALSE.grant)
    certificates = office.issue(device=anew)
    with site.serving(party="owner") as server:
        server.grants(server.evidence())
        assert seen(anew.attest).hex() in server.refused(server.evidence(anew, None, certificates))[1]
        site.seen(FALSE.attest)
        assert len(server.grants(server.evidence(anew, None, certificates))) == 1
        assert "is not listed" in server.refused(server.evidence())[1], "the former one"


def test_a_device_that_is_taken_off_the_list_is_refused_though_nobody_revoked_it(site, office):  # noqa: F811
    """A city that keeps a revocation to itself."""
    with site.serving(party="owner") as server:
        server.grants(server.evidence())
        site.seen(*KEYS[1:])
        assert server.refused(server.evidence())[0] == 403
        assert standing(site, office.device) is Standing.REFUSED


def test_a_list_that_cannot_be_read_lets_nobody_in(site, office, caplog):  # noqa: F811
    with site.serving(party="owner") as server:
        for content in (b"\0", b"0f north\n"):
            site.put("devices", content)
            status, reason = server.refused(server.evidence())
            assert status == 503 and "out of order" in reason and "devices:1: not 64 digits" in caplog.text
        (site.folder / "devices").unlink()
        assert server.refused(server.evidence())[0] == 503
        assert granted(site) == [] and standing(site, office.device) is Standing.SILENT


def test_the_class_is_not_the_authoritys_to_raise_either(site, office):  # noqa: F811
    """An emulated device that was seen stays one, whichever authority certified it: it says so itself."""
    device = office.emulated
    as_hardware = office.issue("hardware", device)
    assert chain.read_certificate(as_hardware[0], "").public_key() == device.attest.public_key()
    with site.serving(party="owner") as server:
        reason = server.refused(server.evidence(device, None, as_hardware))[1]
        assert "the device is emulated (it says so itself)" in reason
