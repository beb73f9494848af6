"""Root on a node, or in the network, wants to be taken for a board that is to be trusted. Each test is one way to try;
where the attacker has a device of his own, what he does with it is genuine."""

from dataclasses import replace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from edged.errors import PackageError
from edged.trust import chain, request
from edged.trust.evidence import Expected, parse
from evidence_cases import (
    ANYTHING, CLAIMS, DAY_S, EXPECTED, KEYS, NONCE, NOW, PASSPHRASE, REFERENCES, Device, Policy, changed, cose_key,
    office, rebuilt, refused,
)  # noqa: F401  # office is a fixture

def test_evidence_of_a_good_device_does_not_serve_a_bad_one(office):
    """Relay: the bad node has the good one answer the verifier's nonce, and hands that in as its own."""
    relayed = office.evidence()
    with refused("evidence is of device 016e.*, asked was 016d"):
        office.verify(relayed, expected=replace(EXPECTED, ueid=office.emulated.ueid))


def test_who_relays_for_a_verifier_that_asks_nobody_in_particular_gets_no_key(office):
    """The one grant key that the evidence names is the good device's: what is sealed to it the relay cannot open."""
    assert office.verify(office.evidence()).grant == request.spki_of(office.device.grant.public_key())


def test_the_good_devices_evidence_with_the_bad_ones_certificate_is_refused(office):
    good = parse(office.evidence()).message
    for chains in (office.chains["emulated"], (office.chains["emulated"][0], office.chains["hardware"][1]),
                   (office.chains["hardware"][0], office.chains["emulated"][1])):
        mixed = replace(good, unprotected={33: list(chains)}).encode()
        with refused("signature does not verify|was not issued by"):
            office.verify(mixed, policy=ANYTHING)


def test_the_bad_devices_grant_key_in_the_good_ones_name_is_refused(office):
    """The attacker owns a certified device and has it sign whatever he likes: still not in another's name."""
    bad, good = office.emulated, office.device
    claims = changed(bad.claims(), ueid=good.ueid, class_="hardware")
    with refused("evidence is of device 016e.*, its certificate of 016d"):
        office.verify(bad.attests(claims, office.chains["emulated"]), policy=ANYTHING)
    claims = changed(good.claims(), cnf={1: cose_key(bad.grant.public_key())})
    with refused("evidence: its signature does not verify"):
        office.verify(bad.attests(claims, office.chains["hardware"]), policy=ANYTHING)


def test_an_emulated_device_that_claims_hardware_is_emulated(office):
    """All of its claims are those of fused hardware, even the measurements: its certificate is not."""
    device = office.emulated
    claims = changed(device.claims(), class_="hardware", oemboot=True, dbgstat=4)
    encoded = device.attests(claims, office.chains["emulated"])
    with refused(r"the device is emulated \(its certificate says so\)"):
        office.verify(encoded)
    verified = office.verify(encoded, policy=Policy(allow_emulated=True))
    assert verified.class_ == "emulated"
    with refused("no reference values of the emulated class"):
        office.verify(encoded, references=[REFERENCES["hardware"]], policy=ANYTHING)


def test_an_emulated_device_cannot_enrol_as_hardware(office):
    """Not even with the station secret of a real board: it says what it is, and a lie has to be in the software."""
    office.authority.add_board("attacked", "attacked", "hardware", b"v" * 32, PASSPHRASE)
    device = replace(office.emulated, ueid=b"\1" + b"v" * 16, attest=KEYS[2], secret=b"v" * 32)
    nonce = office.authority.challenge("attacked", NOW)
    with refused("is listed as hardware, and says of itself that it is emulated"):
        office.authority.enrol("attacked", device.request(nonce), PASSPHRASE, NOW)
    with refused("comes with the ueid or a key of board"):  # it lies, with the keys that it has
        office.authority.enrol("attacked", device.request(nonce, emulated=False), PASSPHRASE, NOW)


def test_without_the_station_secret_nobody_enrols(office):
    office.authority.add_board("stolen", "stolen", "hardware", b"w" * 32, PASSPHRASE)
    for secret in (bytes(32), b"s" * 32, b"t" * 32):  # a default, those of other boards
        nonce = office.authority.challenge("stolen", NOW)
        with refused("of another board, or altered: its MAC"):
            office.authority.enrol("stolen", replace(Device(), secret=secret).request(nonce), PASSPHRASE, NOW)


def test_old_evidence_is_refused(office):
    """Replay: to the next nonce, and to the same one when its time is over."""
    old = office.evidence()
    with refused("answers another nonce"):
        office.verify(old, expected=Expected(b"next nonce".ljust(32), NOW))
    with refused("is stale"):
        office.verify(old, expected=Expected(NONCE, NOW), now_s=NOW + 301)


def test_a_device_does_not_make_devices(office):
    """A device's key signs a certificate for another: it is no CA, whatever that certificate says."""
    leaf = chain.read_certificate(office.chains["hardware"][0], "")
    device = replace(office.device, attest=KEYS[2], grant=KEYS[3])
    fake = office.issue(device=device)[0]
    for certificates in ((fake, chain.der(leaf)), (office.chains["emulated"][0], chain.der(leaf))):
        with refused("extensions missing or unknown|issuer's key is not|was not issued by"):
            office.verify(device.attests(device.claims(), certificates), policy=ANYTHING)


def test_a_ca_of_ones_own_with_the_citys_names_is_refused(office):
    """Every name, number and date is the city's: the keys are not."""
    root_key, issuing_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    issuing = rebuilt(office.authority.certificate("hardware"), root_key, public_key=issuing_key.public_key())
    leaf = rebuilt(chain.read_certificate(office.chains["hardware"][0], ""), issuing_key)
    encoded = office.device.attests(office.device.claims(), (chain.der(leaf), chain.der(issuing)))
    with refused("issuing CA's certificate: was not issued by CN=edged Testing root"):
        office.verify(encoded, crls=office.crls + [chain.make_crl(issuing, issuing_key, {}, 1, NOW)], policy=ANYTHING)


def test_the_emulated_ca_cannot_make_hardware(office):
    """Whoever runs it is trusted with less: a certificate of its own, or its own in the other's name."""
    key = office.key("emulated")
    issuing = office.authority.certificate("hardware")
    leaf = chain.make_device(issuing, key, office.device.ueid, office.device.attest.public_key(), bytes(32), NOW)
    with refused("device certificate: was not issued by CN=edged Testing hardware"):
        office.verify(office.device.attests(office.device.claims(), (chain.der(leaf), chain.der(issuing))))
    below = rebuilt(issuing, key, issuer=office.authority.certificate("emulated").subject)
    with refused("issuing CA's certificate: was not issued by CN=edged Testing root"):
        office.verify(office.device.attests(office.device.claims(), (chain.der(leaf), chain.der(below))))


def test_withholding_the_revocation_list_does_not_help(office):
    """None, one that ran out, that of the other class, an empty one that somebody else signed."""
    issuing = office.authority.certificate("hardware")
    forged = chain.make_crl(issuing, office.key("emulated"), {}, 99, NOW)
    for crls, why in (([], "is missing"), ([office.crl("hardware", NOW - 8 * DAY_S)], "is stale"),
                      ([office.crls[1]], "is missing"), ([forged], "was not issued by")):
        with refused("revocation list of the hardware class:? {}".format(why)):
            office.verify(office.evidence(), crls=crls, policy=ANYTHING)


def test_a_stolen_board_is_out_with_the_next_list(office):
    device = Device(b"\1" + b"q" * 16, KEYS[3], KEYS[2], b"q" * 32)
    certificate = office.issue(device=device)
    serial = chain.read_certificate(certificate[0], "").serial_number
    encoded = device.attests(device.claims(), certificate)
    assert office.verify(encoded)
    listed = chain.make_crl(office.authority.certificate("hardware"), office.key("hardware"),
                            {serial: (NOW, x509.ReasonFlags.key_compromise)}, 5, NOW)
    with refused("was revoked"):
        office.verify(encoded, crls=office.crls + [listed], policy=ANYTHING)


def test_an_older_image_with_a_known_hole_is_refused(office):
    """Roll-back: genuine, measured, once good; the city has since raised the floor."""
    for name in ("key", "eval"):
        raised = replace(REFERENCES["hardware"], floors=dict(REFERENCES["hardware"].floors, **{name: 2}))
        with refused("the {} application is of security version 1, older than 2".format(name)):
            office.verify(office.evidence(), references=[REFERENCES["hardware"], raised], policy=ANYTHING)


def test_every_claim_matters(office):
    """Whatever is left out, nothing is assumed in its place."""
    for name in CLAIMS:
        with pytest.raises(PackageError, match="fields missing or unknown: " + name):
            office.verify(office.evidence(**{name: None}), policy=ANYTHING)
