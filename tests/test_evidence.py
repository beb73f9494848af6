"""Evidence: each test starts from what a verifier takes, breaks one thing, and names the answer."""

import json
import random
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import cbor2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from edged.errors import ConfigError, PackageError, VerificationFailed
from edged.trust import chain, cose, devices, evidence
from edged.trust.evidence import Expected, parse, with_chain
from edged.trust.reference import APPLICATIONS, Version
from edged.trust.request import spki_of
from evidence_cases import (
    ANYTHING, CLAIMS, DAY_S, EXPECTED, KEYS, MEASUREMENTS, NONCE, NOW, REFERENCES, Device, Policy, changed, cose_key,
    office, rebuilt, refused, seen,
)  # noqa: F401  # office is a fixture

def test_evidence_of_an_enrolled_board_is_taken_and_says_what_it_is(office):
    verified = office.verify(office.evidence())
    device = office.device
    assert (verified.ueid, verified.class_, verified.oemboot, verified.debug) == (device.ueid, "hardware", True, 3)
    assert verified.grant == spki_of(device.grant.public_key())
    assert {name: one.measurement for name, one in verified.applications.items()} == MEASUREMENTS
    said = json.loads(json.dumps(verified.as_dict()))
    assert said["class"] == "hardware" and said["debug"] == "disabled permanently"
    assert said["certificate_until"] == chain.day(verified.until_s)


def test_the_form_is_the_agreed_one(office):
    """By hand: the tag, the protected header, the claims' order, no leading zero in the key."""
    encoded = office.evidence()
    assert encoded.startswith(bytes.fromhex("d28444a1013824a1182182"))
    payload = parse(encoded).message.payload
    assert payload.startswith(bytes.fromhex("a908a101a3010320590100"))
    assert list(cbor2.loads(payload)) == [8, 10, 256, 262, 263, 265, 266, 268, -65537]
    assert list(cbor2.loads(payload)[266]) == ["key", "eval"]  # the shorter first: 63.. before 64..
    assert list(cbor2.loads(payload)[266]["key"]) == [-65538, -65539, -65540]


def test_the_uuids_are_those_of_the_manifests():
    for name, uuid in APPLICATIONS.items():
        path = Path(__file__).parent.parent / "trusty_ta" / "port" / "trusty" / name / "manifest.json"
        assert UUID(json.loads(path.read_text(encoding="utf-8"))["uuid"]).bytes == uuid


def test_certificates_are_put_into_what_the_enclave_signed(office):
    bare = replace(parse(office.evidence()).message, unprotected={}).encode()
    assert office.verify(with_chain(bare, office.chains["hardware"]))
    with pytest.raises(PackageError, match="x5chain"):
        parse(bare)
    with pytest.raises(PackageError, match="unprotected header is not empty"):
        with_chain(office.evidence(), office.chains["hardware"])


# The nonce.


def test_another_nonce_is_refused(office):
    for other in (NONCE[:-1], NONCE + b"\0", b"x" * 32):
        with refused("answers another nonce"):
            office.verify(office.evidence(nonce=other))


@pytest.mark.parametrize("size", [16, 64])
def test_nonces_of_every_length_are_taken(office, size):
    assert office.verify(office.evidence(nonce=b"n" * size), expected=Expected(b"n" * size, NOW))


def test_a_nonce_is_good_for_its_time_only(office):
    assert office.verify(office.evidence(), expected=Expected(NONCE, NOW - 300))
    assert office.verify(office.evidence(), expected=Expected(NONCE, NOW - 600), policy=Policy(nonce_s=600))
    with refused("evidence is stale: its nonce was drawn 301 s ago, more than 300"):
        office.verify(office.evidence(), expected=Expected(NONCE, NOW - 301))
    with refused("drawn in the future"):
        office.verify(office.evidence(), expected=Expected(NONCE, NOW + 1))


# What the device says of itself.


@pytest.mark.parametrize("state, passes", [(0, False), (1, False), (2, True), (3, True), (4, True)])
def test_a_device_that_somebody_may_have_debugged_is_refused(office, state, passes):
    encoded = office.evidence(dbgstat=state)
    if not passes:
        with refused("debugging is (enabled|disabled), not disabled since boot or better: --allow-debug"):
            office.verify(encoded)
    assert office.verify(encoded, policy=Policy(allow_debug=True)).debug == state
    if not passes:
        with refused("debugging"):
            office.verify(encoded, policy=Policy(allow_emulated=True, allow_unfused=True))


def test_an_unfused_board_is_refused(office):
    encoded = office.evidence(oemboot=False)
    with refused("the board is not fused.*--allow-unfused"):
        office.verify(encoded, policy=Policy(allow_emulated=True, allow_debug=True))
    assert not office.verify(encoded, policy=Policy(allow_unfused=True)).oemboot


def test_an_emulated_device_is_refused_even_if_it_says_the_truth(office):
    device = office.emulated
    encoded = device.attests(device.claims(), office.chains["emulated"])
    with refused(r"the device is emulated \(its certificate says so\)"):
        office.verify(encoded, policy=Policy(allow_debug=True, allow_unfused=True))
    assert office.verify(encoded, policy=Policy(allow_emulated=True)).class_ == "emulated"


def test_a_certified_board_that_calls_itself_emulated_is_refused(office):
    encoded = office.evidence(class_="emulated")
    with refused(r"the device is emulated \(it says so itself\)"):
        office.verify(encoded)
    assert office.verify(encoded, policy=Policy(allow_emulated=True)).class_ == "hardware"


# Which images run.


def submods(office, name, **changes):
    made = {app: dict(claims) for app, claims in office.device.claims()[266].items()}
    made[name].update({{"measurement": -65538, "version": -65539, "uuid": -65540}[key]: value
                       for key, value in changes.items()})
    return made


@pytest.mark.parametrize("name", APPLICATIONS)
def test_an_unknown_image_is_refused(office, name):
    with refused("the {} application's measurement 7878.* is none of the reference values'".format(name)):
        office.verify(office.evidence(submods=submods(office, name, measurement=b"x" * 32)), policy=ANYTHING)


@pytest.mark.parametrize("name, other", [("key", "eval"), ("eval", "key")])
def test_the_image_of_one_application_is_none_of_the_others(office, name, other):
    with refused("the {} application's measurement".format(name)):
        office.verify(office.evidence(submods=submods(office, name, measurement=MEASUREMENTS[other])))


@pytest.mark.parametrize("name", APPLICATIONS)
def test_a_known_image_that_claims_another_version_is_refused(office, name):
    with refused("the {} application's measurement .* in version 2 is none".format(name)):
        office.verify(office.evidence(submods=submods(office, name, version=2)))


@pytest.mark.parametrize("name", APPLICATIONS)
def test_an_older_image_is_refused_known_or_not(office, name):
    raised = replace(REFERENCES["hardware"], floors=dict({"key": 1, "eval": 1}, **{name: 2}))
    for references in ([raised], [REFERENCES["hardware"], raised], [raised, REFERENCES["hardware"]]):
        with refused("the {} application is of security version 1, older than 2".format(name)):
            office.verify(office.evidence(), references=references, policy=ANYTHING)
    with refused("of security version 0, older than 1"):
        office.verify(office.evidence(submods=submods(office, name, version=0)))


@pytest.mark.parametrize("name", APPLICATIONS)
def test_another_application_is_refused(office, name):
    other = APPLICATIONS["eval" if name == "key" else "key"]
    with refused("the {} application's UUID is {}".format(name, UUID(bytes=other))):
        office.verify(office.evidence(submods=submods(office, name, uuid=other)))


def test_evidence_without_the_evaluation_application_is_refused(office):
    with refused("no eval application has run"):
        office.verify(office.evidence(submods={"key": office.device.claims()[266]["key"]}), policy=ANYTHING)


def test_reference_values_of_the_other_class_do_not_count(office):
    with refused("no reference values of the hardware class were given"):
        office.verify(office.evidence(), references=[REFERENCES["emulated"]], policy=ANYTHING)
    with refused("no reference values"):
        office.verify(office.evidence(), references=[])


def test_images_of_several_references_are_taken(office):
    newer = replace(REFERENCES["hardware"], applications={
        name: frozenset([Version(b"new " * 8, 2)]) for name in APPLICATIONS})
    assert office.verify(office.evidence(), references=[newer, REFERENCES["hardware"]])


# Whose evidence it is.


def test_evidence_of_another_device_than_the_asked_one_is_refused(office):
    assert office.verify(office.evidence(), expected=replace(EXPECTED, ueid=office.device.ueid))
    with refused("evidence is of device 016e.*, asked was 016d"):
        office.verify(office.evidence(), expected=replace(EXPECTED, ueid=office.emulated.ueid))


def test_a_ueid_that_is_not_the_certificates_is_refused(office):
    with refused("evidence is of device 0178.*, its certificate of 016e"):
        office.verify(office.evidence(ueid=b"\1" + b"x" * 16))


def test_a_grant_key_that_is_not_the_certificates_is_refused(office):
    with refused("another grant key than the device's certificate"):
        office.verify(office.evidence(cnf={1: cose_key(KEYS[3].public_key())}))


def test_one_key_for_both_uses_is_refused(office):
    device = replace(office.device, grant=office.device.attest)
    with refused("one key both attests and receives grants"):
        office.verify(device.attests(device.claims(), office.issue(device=device)))


# The certificates.


def test_a_device_certificate_made_by_hand_is_taken(office):
    """So that the tests below break what they say they break."""
    assert office.verify(office.device.attests(office.device.claims(), office.issue()))


def with_leaf(office, **changes):
    leaf, issuing = (chain.read_certificate(one, "") for one in office.chains["hardware"])
    made = rebuilt(leaf, office.key("hardware"), **changes)
    return office.device.attests(office.device.claims(), (chain.der(made), chain.der(issuing)))


def with_issuing(office, key="root", **changes):
    leaf, issuing = (chain.read_certificate(one, "") for one in office.chains["hardware"])
    made = rebuilt(issuing, office.key(key) if isinstance(key, str) else key, **changes)
    return office.device.attests(office.device.claims(), (chain.der(leaf), chain.der(made)))


def usage(*names):
    return x509.KeyUsage(encipher_only=False, decipher_only=False, **{one: one in names for one in chain._USAGES}), True


BASIC, USAGE = x509.BasicConstraints.oid, x509.KeyUsage.oid


def test_rebuilt_certificates_are_taken(office):
    assert office.verify(with_leaf(office)) and office.verify(with_issuing(office))


@pytest.mark.parametrize("changes, reason", [
    (dict(extensions={BASIC: (x509.BasicConstraints(True, 0), True)}), "basic constraints are CA True"),
    (dict(extensions={BASIC: (x509.BasicConstraints(False, None), False)}), "basic constraints"),
    (dict(extensions={BASIC: None}), "extensions missing or unknown: 2.5.29.19"),
    (dict(extensions={USAGE: usage("digital_signature", "key_encipherment")}), "key usage is digital_signature, key_"),
    (dict(extensions={USAGE: usage("key_cert_sign")}), "key usage is key_cert_sign"),
    (dict(extensions={USAGE: (usage("digital_signature")[0], False)}), "key usage is digital_signature; must be crit"),
    (dict(extensions={USAGE: None}), "extensions missing or unknown: 2.5.29.15"),
    (dict(extensions={chain.GRANT_OID: None}), "extensions missing or unknown: 2.25.27482635342"),
    (dict(extensions={chain.GRANT_OID: (x509.UnrecognizedExtension(chain.GRANT_OID, b"\x04\x1f" + bytes(31)), False)}),
     "grant key is not named by 32 bytes"),
    (dict(extensions={chain.CLASS_OID: (x509.UnrecognizedExtension(chain.CLASS_OID, b"\x0c\x08hardware"), True)}),
     "extensions missing or unknown"),
    (dict(subject_name=chain._name("016E" + "6e" * 15)), "device certificate"),
    (dict(subject_name=chain._name("01" * 16)), "must be a ueid of 17 bytes"),
    (dict(subject_name=x509.Name([])), "must be a ueid"),
    (dict(subject_name=x509.Name([x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "01" * 17)])), "must be a ueid"),
    (dict(not_valid_before=chain._time(NOW + 1)), "device certificate: is valid from .* on only"),
    (dict(not_valid_after=chain._time(NOW - 1)), "device certificate: expired on 2027-01-15 07:59:59 UTC"),
    (dict(not_valid_after=chain._time(NOW + 3 * 365 * DAY_S)), "is valid for more than 730 days"),
    (dict(algorithm=hashes.SHA384()),
     "device certificate is not in its one encoding"),
    (dict(issuer=chain._name("edged Testing emulated")), "device certificate: was not issued by"),
])
def test_a_device_certificate_that_means_anything_else_is_refused(office, changes, reason):
    with pytest.raises((VerificationFailed, PackageError), match=reason):
        office.verify(with_leaf(office, **changes), policy=ANYTHING)


@pytest.mark.parametrize("changes, reason", [
    (dict(extensions={BASIC: (x509.BasicConstraints(True, 1), True)}), "CA True, path length 1"),
    (dict(extensions={BASIC: (x509.BasicConstraints(True, None), True)}), "path length None"),
    (dict(extensions={BASIC: (x509.BasicConstraints(False, None), True)}), "CA False"),
    (dict(extensions={USAGE: usage("digital_signature")}), "key usage is digital_signature"),
    (dict(extensions={chain.CLASS_OID: None}), "extensions missing or unknown"),
    (dict(extensions={chain.CLASS_OID: (x509.UnrecognizedExtension(chain.CLASS_OID, b"\x0c\x08hardware"), False)}),
     "its class is none of hardware, emulated"),
    (dict(extensions={chain.CLASS_OID: (x509.UnrecognizedExtension(chain.CLASS_OID, b"\x0c\x08Hardware"), True)}),
     "its class is none"),
    (dict(extensions={chain.CLASS_OID: (x509.UnrecognizedExtension(chain.CLASS_OID, b"\x13\x08hardware"), True)}),
     "its class is none"),
    (dict(not_valid_after=chain._time(NOW - 1)), "issuing CA's certificate: expired"),
    (dict(not_valid_before=chain._time(NOW + 1)), "issuing CA's certificate: is valid from"),
    (dict(key="emulated"), "issuing CA's certificate: was not issued by"),
    (dict(issuer=chain._name("edged Testing")), "issuing CA's certificate: was not issued by"),
    (dict(public_key=KEYS[2].public_key()), "device certificate: its issuer's key is not EC P-256"),
    (dict(public_key=ec.derive_private_key(7, ec.SECP384R1()).public_key()), "issuer's key is not EC P-256"),
    (dict(public_key=ec.derive_private_key(7, ec.SECP256R1()).public_key()), "device certificate: was not issued by"),
])
def test_an_issuing_ca_that_means_anything_else_is_refused(office, changes, reason):
    with refused(reason):
        office.verify(with_issuing(office, **changes), policy=ANYTHING)


@pytest.mark.parametrize("changes, reason", [
    (dict(extensions={BASIC: (x509.BasicConstraints(True, 0), True)}), "root certificate: basic constraints"),
    (dict(extensions={chain.CLASS_OID: (x509.UnrecognizedExtension(chain.CLASS_OID, b"\x0c\x08hardware"), True)}),
     "root certificate: extensions"),
    (dict(not_valid_after=chain._time(NOW - 1)), "root certificate: expired"),
    (dict(public_key=ec.derive_private_key(7, ec.SECP256R1()).public_key()), "root certificate: was not issued by"),
])
def test_a_root_that_is_none_is_refused(office, changes, reason):
    with refused(reason):
        office.verify(office.evidence(), root=rebuilt(office.root, office.key("root"), **changes))


def test_a_chain_is_two_certificates_in_order(office):
    leaf, issuing = office.chains["hardware"]
    root = chain.der(office.root)
    for certificates in ((issuing, leaf), (leaf, root), (leaf, leaf), (root, root)):
        with refused("was not issued by|extensions missing|issuer's key is not"):
            office.verify(office.device.attests(office.device.claims(), certificates))
    for certificates in ((), (leaf,), (leaf, issuing, root)):
        with pytest.raises(PackageError, match="x5chain is .* must be a list of 2"):
            office.verify(office.device.attests(office.device.claims(), certificates))


@pytest.mark.parametrize("key", [
    rsa.generate_private_key(65537, 1024), rsa.generate_private_key(3, 2048),
    ec.derive_private_key(7, ec.SECP256R1())], ids=["1024 bits", "exponent 3", "EC"])
def test_an_attestation_key_of_another_kind_is_refused(office, key):
    with pytest.raises(PackageError, match="device certificate's key is not an RSA key of 2048 or 3072 bits"):
        office.verify(office.device.attests(office.device.claims(), office.issue(key=key.public_key())))


def test_an_attestation_key_of_3072_bits_is_taken(office):
    device = replace(office.device, attest=rsa.generate_private_key(65537, 3072))
    assert office.verify(device.attests(device.claims(), office.issue(device=device)),
                         policy=Policy(devices=[seen(device.attest)]))


# Revocation.


def test_without_a_fresh_list_nothing_is_taken(office):
    encoded = office.evidence()
    with refused("revocation list of the hardware class is missing"):
        office.verify(encoded, crls=[])
    with refused("revocation list of the hardware class is missing"):
        office.verify(encoded, crls=office.crls[1:])
    with refused("is stale or not yet valid"):
        office.verify(encoded, crls=[office.crl("hardware", NOW - 7 * DAY_S)])
    with refused("is stale or not yet valid"):
        office.verify(encoded, crls=[office.crl("hardware", NOW + 1)])
    assert office.verify(encoded, crls=[office.crl("hardware", NOW - 7 * DAY_S + 1)])
    assert office.verify(encoded, crls=[office.crl("hardware", NOW - 7 * DAY_S), office.crl("hardware", NOW)])


def test_a_list_of_somebody_else_is_refused(office):
    issuing = office.authority.certificate("hardware")
    for key in (office.key("emulated"), office.key("root")):
        forged = chain.make_crl(issuing, key, {}, 9, NOW)
        for crls in ([forged], [forged] + office.crls, office.crls + [forged]):
            with refused("revocation list of the hardware class: was not issued by"):
                office.verify(office.evidence(), crls=crls)


def test_a_list_that_is_of_a_part_only_is_refused(office):
    issuing, key = office.authority.certificate("hardware"), office.key("hardware")
    builder = (x509.CertificateRevocationListBuilder().issuer_name(issuing.subject).last_update(chain._time(NOW))
               .next_update(chain._time(NOW + DAY_S)).add_extension(x509.DeltaCRLIndicator(1), critical=True))
    with refused("revocation list of the hardware class: unknown extensions: 2.5.29.27"):
        office.verify(office.evidence(), crls=[builder.sign(key, hashes.SHA256())])


def test_a_revoked_certificate_is_refused_even_by_a_list_that_is_stale(office):
    issuing, key = office.authority.certificate("hardware"), office.key("hardware")
    serial = chain.read_certificate(office.chains["hardware"][0], "").serial_number
    revoked = {serial: (NOW - 5, x509.ReasonFlags.key_compromise)}
    for crls in ([chain.make_crl(issuing, key, revoked, 2, NOW)],
                 office.crls + [chain.make_crl(issuing, key, revoked, 2, NOW - 30 * DAY_S)]):
        with refused("device certificate: was revoked on 2027-01-15 07:59:55 UTC"):
            office.verify(office.evidence(), crls=crls, policy=ANYTHING)
    assert office.verify(office.evidence(), crls=[
        chain.make_crl(issuing, key, {serial + 1: revoked[serial]}, 2, NOW)])


# Who was seen.


def test_a_device_that_is_not_listed_is_refused_and_its_fingerprint_named(office):
    for listed in ((), [seen(office.emulated.attest)], [seen(office.device.grant)]):
        with refused("attestation key {} is not listed: where that is what `edgectl identity show` prints on the board "
                     "itself, list it".format(seen(office.device.attest).hex())):
            office.verify(office.evidence(), policy=Policy(devices=listed))
    for listed in ([seen(office.device.attest)], None):
        verified = office.verify(office.evidence(), policy=Policy(devices=listed))
        assert verified.attest == seen(office.device.attest)
        assert verified.as_dict()["attestation_key"] == seen(office.device.attest).hex()


def test_a_verifier_who_was_told_nothing_takes_nobody(office):
    with refused("is not listed"):
        office.verify(office.evidence(), policy=evidence.Policy())


def test_a_list_of_devices_is_read_strictly():
    one, two = "0a" * 32, "0b" * 32
    assert devices.read("# mine\n\n{} north, of 2026\n  {}\n".format(one, two).encode(), "list") == {
        bytes.fromhex(one), bytes.fromhex(two)}
    assert devices.read(b"", "list") == frozenset()
    for content, line in ((one.upper(), 1), (one[:-2], 1), ("# x\n" + one + "north", 2), ("north " + one, 1),
                          ("\0" + one, 1)):
        with pytest.raises(ConfigError, match="list:{}: not 64 digits of 0-9, a-f".format(line)):
            devices.read(content.encode(), "list")
    with pytest.raises(ConfigError, match="list:2: {} is there twice".format(one)):
        devices.read("{0} a\n{0} b\n".format(one).encode(), "list")


# The signature.


def test_claims_signed_by_any_other_key_are_refused(office):
    for key in (KEYS[1], KEYS[2]):  # its own grant key, another device's
        with refused("evidence: its signature does not verify"):
            office.verify(replace(office.device, attest=key).attests(
                office.device.claims(), office.chains["hardware"]))


def test_a_signature_over_anything_else_is_refused(office):
    claims, key = cbor2.dumps(office.device.claims(), canonical=True), office.device.attest
    headers = {cose.X5CHAIN: list(office.chains["hardware"])}
    for signed in (cose.sign_rsa(claims, key, b"external"), cose.sign_rsa(claims + b"\0", key)):
        seal = cose.read(signed, cose.SIGN1, cose.PS256, "", 1 << 16).seal
        with refused("its signature does not verify"):
            office.verify(cose.Message(cose.SIGN1, cose.PS256, headers, claims, seal).encode())


def test_every_altered_byte_is_refused(office):
    """Which of the two errors it is, the form says: what cannot be read, or what cannot be believed."""
    good = office.evidence()
    for place in range(len(good)):
        for bit in {1, 2, 1 << place % 8}:  # 1, 2: of a count of bits that are not used
            broken = bytearray(good)
            broken[place] ^= bit
            with pytest.raises((PackageError, VerificationFailed)) as caught:
                office.verify(bytes(broken), policy=ANYTHING)
            assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_every_altered_bit_of_the_certificates_is_refused(office):
    """Where a stranger's bytes reach the library before any signature is verified."""
    good = office.evidence()
    for certificate in office.chains["hardware"]:
        start = good.index(certificate)
        for place in range(start, start + len(certificate)):
            for bit in range(8):
                broken = bytearray(good)
                broken[place] ^= 1 << bit
                with pytest.raises((PackageError, VerificationFailed)):
                    office.verify(bytes(broken), policy=ANYTHING)


def test_evidence_that_is_cut_or_has_a_tail_is_refused(office):
    good = office.evidence()
    for size in range(len(good)):
        with pytest.raises(PackageError):
            parse(good[:size])
    with pytest.raises(PackageError):
        parse(good + b"\0")
    with pytest.raises(PackageError, match="there are at most 16384"):
        parse(bytes(16385))


def test_random_mutations_are_refused_in_one_line(office):
    """From a fixed seed: bytes set, cut out, put in, repeated, exchanged."""
    rng = random.Random(20220)
    good = office.evidence()
    other = office.emulated.attests(office.emulated.claims(), office.chains["emulated"])
    for _ in range(1500):
        broken = bytearray(good)
        for _ in range(rng.randrange(1, 4)):
            at, to = sorted(rng.randrange(len(broken) + 1) for _ in range(2))
            what = rng.randrange(5)
            if what == 0:
                broken[at:at + 1] = bytes([rng.randrange(256)])
            elif what == 1:
                del broken[at:min(to, at + 40)]
            elif what == 2:
                broken[at:at] = bytes(rng.randrange(256) for _ in range(rng.randrange(1, 9)))
            elif what == 3:
                broken[at:at] = broken[at:min(to, at + 300)]
            else:
                broken[at:to] = other[at:to]
        if bytes(broken) in (good, other):
            continue
        with pytest.raises((PackageError, VerificationFailed)) as caught:
            office.verify(bytes(broken), policy=ANYTHING)
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


# One encoding.


def noncanonical(payload):
    """{what: the same claims in another encoding}"""
    claims = cbor2.loads(payload)
    return {
        "order": cbor2.dumps(dict(reversed(list(claims.items())))),
        "a key twice": b"\xaa" + payload[1:] + b"\x0a\x58\x20" + NONCE,
        "a longer key": payload.replace(b"\x0a\x58\x20", b"\x18\x0a\x58\x20", 1),
        "a longer length": payload.replace(b"\x0a\x58\x20", b"\x0a\x59\x00\x20", 1),
        "a longer head": b"\xb8\x09" + payload[1:],
        "indefinite": b"\xbf" + payload[1:] + b"\xff",
        "indefinite bytes": payload.replace(b"\x0a\x58\x20" + NONCE, b"\x0a\x5f\x58\x20" + NONCE + b"\xff", 1),
        "a float for a number": payload.replace(b"\x19\x01\x07\x03", b"\x19\x01\x07\xf9\x42\x00", 1),
        "a tag": b"\xd8\x3d" + payload,
        "a tail": payload + b"\xf6",
    }


@pytest.mark.parametrize("what", list(noncanonical(cbor2.dumps(Device().claims(), canonical=True))))
def test_the_same_claims_in_another_encoding_are_refused(office, what):
    """Signed by the device itself: there is one form, whoever signs."""
    payload = cbor2.dumps(office.device.claims(), canonical=True)
    assert office.verify(office.device.attests(payload, office.chains["hardware"]))
    other = noncanonical(payload)[what]
    assert other != payload
    with pytest.raises(PackageError, match="evidence"):
        parse(office.device.attests(other, office.chains["hardware"]))


def envelopes(good, message):
    payload, seal = message.payload, message.seal
    headers = message.unprotected

    def built(protected=b"\xa1\x01\x38\x24", unprotected=headers, tag=b"\xd2", **changes):
        return tag + cbor2.dumps([protected, unprotected, changes.get("payload", payload), changes.get("seal", seal)],
                                 canonical=True)

    return {
        "no tag": good[1:], "tag 98": b"\xd8\x62" + good[1:], "a longer tag": b"\xd8\x12" + good[1:],
        "CWT tag around": b"\xd8\x3d" + good, "COSE_Mac0": b"\xd1" + good[1:],
        "indefinite list": b"\xd2\x9f" + good[2:] + b"\xff",
        "RS256": built(b"\xa1\x01\x39\x01\x00"), "EdDSA": built(b"\xa1\x01\x27"), "PS384": built(b"\xa1\x01\x38\x25"),
        "no algorithm": built(b""), "empty header map": built(b"\xa0"),
        "algorithm in the unprotected header": built(b"", {**headers, 1: -37}),
        "one more protected header": built(b"\xa2\x01\x38\x24\x04\x41a"),
        "critical header": built(b"\xa2\x01\x38\x24\x02\x81\x04"),
        "one more unprotected header": built(unprotected={**headers, 4: b"key id"}),
        "x5chain under another number": built(unprotected={34: headers[33]}),
        "x5chain under a float": built(unprotected={33.0: headers[33]}),
        "x5chain of texts": built(unprotected={33: ["a", "b"]}),
        "one certificate, no list": built(unprotected={33: headers[33][0]}),
        "no payload": built(payload=None), "detached payload": built(payload=b""), "no signature": built(seal=None),
        "payload not wrapped": built(payload=cbor2.loads(payload)),
        "five parts": b"\xd2" + cbor2.dumps([b"\xa1\x01\x38\x24", headers, payload, seal, b""], canonical=True),
        "nothing": b"", "a number": b"\x00", "deep": b"\x81" * 9000 + b"\x00", "huge length": b"\xd2\x9b" + b"\xff" * 8,
    }


@pytest.mark.parametrize("what", list(envelopes(b"", cose.Message(18, -37, {33: [b"", b""]}, b"\xa0", b""))))
def test_an_envelope_of_another_form_is_refused(office, what):
    good = office.evidence()
    case = envelopes(good, parse(good).message)[what]
    assert case != good
    with pytest.raises(PackageError, match="^evidence"):
        parse(case)


KEY = Device().claims()[8][1]
APPLICATION = Device().claims()[266]["key"]


@pytest.mark.parametrize("changes, reason", [
    (dict(nonce=bytes(15)), "nonce is .* 16..64 bytes"), (dict(nonce=bytes(65)), "nonce"),
    (dict(nonce=[bytes(32)]), "nonce"), (dict(nonce=None), "fields missing or unknown: nonce"),
    (dict(ueid=bytes(16)), "ueid"), (dict(ueid=bytes(33)), "ueid"), (dict(oemboot=1), "oemboot is 1"),
    (dict(oemboot="yes"), "oemboot"), (dict(dbgstat=5), "dbgstat is 5"), (dict(dbgstat=-1), "dbgstat"),
    (dict(dbgstat=True), "dbgstat is True"), (dict(dbgstat=3.0), "dbgstat is 3.0"),
    (dict(profile="urn:uuid:8f1c1d0a-5b0e-4f0b-9d3e-2c60ad1f7e52"), "profile is"), (dict(profile=b"x"), "profile"),
    (dict(profile=None), "missing or unknown: profile"), (dict(bootseed=bytes(31)), "bootseed"),
    (dict(class_="Hardware"), "class is 'Hardware', must be one of"), (dict(class_=None), "unknown: class"),
    (dict(submods={}), "submods: fields missing or unknown: key"), (dict(submods=[]), "submods is not"),
    (dict(submods={"key": APPLICATION, "more": APPLICATION}), "unknown: more"),
    (dict(submods={"key": APPLICATION, "eval": None}), "submods: eval is not"),
    (dict(submods={"key": {**APPLICATION, -65538: bytes(31)}}), "submods: key: measurement"),
    (dict(submods={"key": {**APPLICATION, -65539: -1}}), "submods: key: version is -1"),
    (dict(submods={"key": {**APPLICATION, -65539: 1 << 32}}), "version"),
    (dict(submods={"key": {**APPLICATION, -65540: bytes(15)}}), "uuid"),
    (dict(submods={"key": {**APPLICATION, 1: 1}}), "unknown: 1"),
    (dict(submods={"key": {-65538: bytes(32)}}), "missing or unknown: uuid, version"),
    (dict(cnf={}), "cnf: fields missing or unknown: COSE_Key"), (dict(cnf={1: KEY, 2: KEY}), "unknown: 2"),
    (dict(cnf={True: KEY}), "cnf: fields missing or unknown"), (dict(cnf={1.0: KEY}), "cnf: fields"),
    (dict(cnf={1: {**KEY, 1: 2}}), "kty is 2"), (dict(cnf={1: {**KEY, -1: b"\0" + KEY[-1]}}), "a number starts with"),
    (dict(cnf={1: {**KEY, -2: b"\0\1\0\1"}}), "a number starts with"),
    (dict(cnf={1: {**KEY, -2: b"\3"}}), "exponent 65537"),
    (dict(cnf={1: {**KEY, -1: KEY[-1][:-1]}}), "not an RSA key"), (dict(cnf={1: {**KEY, -1: b""}}), "n is"),
    (dict(cnf={1: {**KEY, -1: b"\1" * 385}}), "n is"), (dict(cnf={1: {**KEY, 3: -41}}), "unknown: 3"),
], ids=lambda value: value if isinstance(value, str) else None)
def test_a_claim_of_another_form_is_refused(office, changes, reason):
    with pytest.raises(PackageError, match=reason):
        parse(office.evidence(**changes))


def test_an_unknown_claim_is_refused(office):
    for extra in ({1: "issuer"}, {4: NOW}, {-65541: 0}, {"profile": evidence.PROFILE}, {262.0: True}):
        claims = {**{k: v for k, v in office.device.claims().items() if k not in extra}, **extra}
        with pytest.raises(PackageError, match="fields missing or unknown"):
            parse(office.device.attests(claims, office.chains["hardware"]))


def test_every_claim_is_covered_by_the_signature(office):
    """The claims of another piece of evidence of the same device under this one's signature."""
    good = parse(office.evidence()).message
    for name, value in (("nonce", b"x" * 32), ("oemboot", False), ("dbgstat", 4), ("bootseed", b"y" * 32)):
        assert name in CLAIMS
        claims = cbor2.dumps(changed(office.device.claims(), **{name: value}), canonical=True)
        with refused("its signature does not verify"):
            office.verify(replace(good, payload=claims).encode(), policy=ANYTHING)
