"""The device's identity, certificate requests and evidence of the running key application, judged by other
implementations: cbor2 and the library `cryptography`, and the sealed identity opened with the emulated device key.

What no running application can be brought to (a platform that fails, fused boards) is in tests/c/identity_test.c.
"""

import hashlib
import hmac
import json
import os
import shutil
import struct
import tempfile
import uuid
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import cbor2
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

import linking
from c import build, deals, vectors
from c.running import key_link
from edged import artifacts
from edged.enclave import wire
from edged.enclave.client import EvalClient
from edged.enclave.host import HostEnclave
from edged.enclave.key import KeyClient
from edged.enclave.wire import KeyCommand, Status
from edged.errors import EnclaveError, KeyRefused, VerificationFailed
from edged.trust import chain, evidence
from edged.trust.certificates import Authority
from edged.trust.chain import EMULATED
from edged.trust.evidence import Expected, Policy
from edged.trust.reference import References, Version
from linking import HELLO

STATION_SECRET = bytes(range(100, 132))
CHALLENGE = bytes(range(32))
NONCE = bytes(range(200, 216))
FORM = "edged certificate request 1"
PS256, HMAC256 = bytes.fromhex("a1013824"), bytes.fromhex("a10105")
PSS = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
KEY_UUID, EVAL_UUID = (uuid.UUID(json.loads((build.ROOT / "trusty_ta/port/trusty" / name / "manifest.json").read_text(
    encoding="ascii"))["uuid"]) for name in ("key", "eval"))


class Device:
    """Both applications in a folder of their own, and what a flash station left there; a context manager."""

    def __init__(self, station=STATION_SECRET):
        self._folder = tempfile.TemporaryDirectory(prefix="edged-")
        self.folder = Path(self._folder.name)
        if station is not None:
            self.put_station(station)
        self.enclave = HostEnclave(self.folder)

    def put_station(self, secret, mode=0o600):
        path = self.folder / "station.secret"
        path.write_bytes(secret)
        path.chmod(mode)

    def restart_key(self):
        self.key.close()
        self.enclave.restart_key()
        self.key = KeyClient(self.enclave.connect_key())

    @property
    def ueid(self):
        return b"\1" + self.key.info().node

    def __enter__(self):
        try:
            self.enclave.start()
        except BaseException:
            self._folder.cleanup()
            raise
        self.key = KeyClient(self.enclave.connect_key())
        return self

    def __exit__(self, *_):
        self.key.close()
        self.enclave.stop()
        self._folder.cleanup()


@pytest.fixture
def device():
    with Device() as running:
        yield running


def refused(status, call, *arguments):
    with pytest.raises(EnclaveError) as error:
        call(*arguments)
    assert error.value.status == status


def canonical(data):
    """The decoded bytes, which must be the one encoding that deterministic CBOR has for them."""
    decoded = cbor2.loads(data)
    assert cbor2.dumps(decoded, canonical=True) == data
    return decoded


def message(data, tag, protected):
    """(payload, signature or MAC) of a COSE message of that form, and no other."""
    decoded = canonical(data)
    assert decoded.tag == tag
    header, unprotected, payload, authenticator = decoded.value
    assert header == protected and unprotected == {}
    return payload, authenticator


def verify(public, external, payload, signature):
    public.verify(signature, cbor2.dumps(["Signature1", PS256, external, payload]), PSS, hashes.SHA256())


def derive(secret, salt, info):
    return HKDF(hashes.SHA256(), 32, salt, info).derive(secret)


def open_request(data, secret=STATION_SECRET):
    """The map of a certificate request, once its MAC and its signature hold."""
    signed, mac = message(data, 17, HMAC256)
    key = derive(secret, None, b"edged enrol v1")
    assert hmac.new(key, cbor2.dumps(["MAC0", HMAC256, FORM.encode(), signed]), "sha256").digest() == mac
    payload, signature = message(signed, 18, PS256)
    found = canonical(payload)
    verify(serialization.load_der_public_key(found["attest"]), FORM.encode(), payload, signature)
    return found


def open_evidence(data, attest):
    """The claims of evidence, once its signature holds; attest : DER SubjectPublicKeyInfo."""
    payload, signature = message(data, 18, PS256)
    verify(serialization.load_der_public_key(attest), b"", payload, signature)
    return canonical(payload)


def open_identity(folder, sealed):
    """Both private keys, as whoever reads the emulated device key can."""
    found = wire.Identity.unpack(sealed)
    label = b"edged identity v1"
    source = b"edged host hwkey v1\0" + KEY_UUID.bytes_le + hashlib.sha256(label).digest()
    device_key = hmac.new((folder / "device.key").read_bytes(), source, "sha256").digest()
    key = derive(device_key, found.salt, label + struct.pack("<I", found.security_version))
    plain = AESGCM(key).decrypt(bytes(12), found.sealed, sealed[:wire.Identity.layout["sealed"].offset])
    sizes = struct.unpack_from("<2I", plain)
    keys = [plain[8 + at * wire.KEY_PRIVATE_BYTES:][:wire.KEY_PRIVATE_BYTES] for at in range(2)]
    assert not any(data[size:].strip(b"\0") for data, size in zip(keys, sizes))
    return [serialization.load_der_private_key(data[:size], None) for data, size in zip(keys, sizes)]


def spki(private):
    return private.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


@contextmanager
def key_link_of(device):
    """KEY_EVAL_PORT, whose one channel the evaluation application has until it ends."""
    device.enclave.eval.kill()
    device.enclave.eval.wait()
    with key_link(device.folder) as link:
        yield link


def applications():
    """{name: what evidence says of it}"""
    return {name: {-65538: hashlib.sha256(artifacts.find("edged-" + name).read_bytes()).digest(),
                   -65539: wire.EDGED_SECURITY_VERSION, -65540: app.bytes}
            for name, app in (("key", KEY_UUID), ("eval", EVAL_UUID))}


# ------------------------------------------------------- request, evidence ---


def test_a_certificate_request_is_what_its_form_says(device):
    sealed = device.key.identity_new()
    found = open_request(device.key.request(CHALLENGE))
    attest, grant = open_identity(device.folder, sealed)
    assert found == {"form": FORM, "ueid": device.ueid, "grant": spki(grant), "nonce": CHALLENGE,
                     "attest": spki(attest), "emulated": 1}
    assert list(found) == ["form", "ueid", "grant", "nonce", "attest", "emulated"]
    assert found["attest"] != found["grant"]
    for data in (found["attest"], found["grant"]):
        key = serialization.load_der_public_key(data)
        assert (key.key_size, key.public_numbers().e) == (2048, 65537)


def test_evidence_is_what_its_form_says(device):
    attest, grant = open_identity(device.folder, device.key.identity_new())
    claims = open_evidence(device.key.attest(NONCE), spki(attest))
    numbers = grant.public_key().public_numbers()
    bootseed = claims[268]
    assert len(bootseed) == 32 and any(bootseed)
    assert claims == {
        8: {1: {1: 3, -1: numbers.n.to_bytes(256, "big"), -2: b"\1\0\1"}}, 10: NONCE, 256: device.ueid, 262: False,
        263: 0, 265: "urn:uuid:8f1c1d0a-5b0e-4f0b-9d3e-2c60ad1f7e51", 266: {"key": applications()["key"]},
        268: bootseed, -65537: "emulated"}
    assert claims[262] is False
    assert list(claims) == [8, 10, 256, 262, 263, 265, 266, 268, -65537]


def test_a_signature_for_one_purpose_does_not_serve_another(device):
    device.key.identity_new()
    data = device.key.request(CHALLENGE)
    payload, signature = message(message(data, 17, HMAC256)[0], 18, PS256)
    with pytest.raises(InvalidSignature):
        verify(serialization.load_der_public_key(open_request(data)["attest"]), b"", payload, signature)


def test_every_byte_of_a_request_and_of_evidence_is_covered(device):
    device.key.identity_new()
    data = device.key.request(CHALLENGE)
    attest = open_request(data)["attest"]
    for found, judge in ((data, open_request), (device.key.attest(NONCE), lambda it: open_evidence(it, attest))):
        for at in range(0, len(found), 13):
            with pytest.raises(Exception):
                judge(found[:at] + bytes([found[at] ^ 1]) + found[at + 1:])


def test_evidence_names_the_evaluation_application_once_it_is_linked(device):
    sealed = device.key.identity_new()
    attest = open_request(device.key.request(CHALLENGE))["attest"]
    assert set(open_evidence(device.key.attest(NONCE), attest)[266]) == {"key"}
    for number, slot in enumerate(deals.SLOTS):
        device.key.put_slot(number, slot.kind, slot.key, slot.key_id, slot.verifier)
    deal = deals.make(*vectors.scores(vectors.case("small")))[0]
    with closing(EvalClient(device.enclave.connect_eval())) as client:
        client.put_agreement(deals.MODEL_SLOT, deal.data_slot, deal.alert_slots, deal.signed())
    claims = open_evidence(device.key.attest(NONCE), attest)
    assert claims[266] == applications() and list(claims[266]) == ["key", "eval"]
    with key_link_of(device) as link:
        assert open_evidence(device.key.attest(NONCE), attest)[266] == applications(), "it was linked since start"
        # Another image of it:
        linking.link(link, device.folder)
        now = open_evidence(device.key.attest(NONCE), attest)[266]
        assert now["eval"] == {-65538: HELLO.measurement, -65539: HELLO.security_version, -65540: EVAL_UUID.bytes}
        for wrong in (replace(HELLO, measurement=b"w" * 32, security_version=0),
                      replace(HELLO, measurement=b"w" * 32, public_key=bytes(32))):
            assert link.call(KeyCommand.HELLO, wrong.pack())[0] != Status.OK
        assert open_evidence(device.key.attest(NONCE), attest)[266] == now, "a refused hello is not remembered"
    device.restart_key()
    device.key.identity_open(sealed)
    assert set(open_evidence(device.key.attest(NONCE), attest)[266]) == {"key"}


def test_the_boot_seed_is_new_at_every_start_and_the_same_in_between(device):
    sealed = device.key.identity_new()
    attest = open_request(device.key.request(CHALLENGE))["attest"]
    seeds = []
    for _ in range(3):
        seeds.append({open_evidence(device.key.attest(NONCE), attest)[268] for _ in range(2)})
        device.restart_key()
        device.key.identity_open(sealed)
    assert [len(found) for found in seeds] == [1, 1, 1] and len(set.union(*seeds)) == 3


@pytest.mark.parametrize("size", [16, 17, 31, 32, 63, 64])
def test_a_nonce_may_have_16_to_64_bytes(device, size):
    attest, _ = open_identity(device.folder, device.key.identity_new())
    assert open_evidence(device.key.attest(bytes(size)), spki(attest))[10] == bytes(size)


def test_a_nonce_or_a_challenge_of_another_length_is_refused(device):
    device.key.identity_new()
    for size in (0, 1, 15, 65, 4000):
        refused(Status.LENGTH, device.key.attest, bytes(size))
    for size in (0, 31, 33):
        refused(Status.LENGTH, device.key.connection.request, KeyCommand.REQUEST, bytes(size))


def test_the_citys_authority_certifies_the_device_and_a_verifier_believes_it(device, tmp_path):
    now_s, passphrase = 1800000000, b"correct horse battery"
    authority = Authority(str(tmp_path / "ca"), cost=16)
    authority.create("Testing", passphrase, now_s)
    authority.add_board("0001", "north", EMULATED, STATION_SECRET, passphrase)
    device.key.identity_new()
    enrolled = authority.enrol("0001", device.key.request(authority.challenge("0001", now_s)), passphrase, now_s)
    assert enrolled.ueid == device.ueid
    with key_link_of(device) as link:
        measured = applications()["eval"][-65538]
        linking.link(link, device.folder, replace(HELLO, measurement=measured, security_version=1))
        found = evidence.with_chain(device.key.attest(NONCE), [
            chain.der(one) for one in chain.read_pem(enrolled.chain, "chain")])
    values = References(EMULATED, now_s, {name: frozenset([Version(app[-65538], app[-65539])])
                                          for name, app in applications().items()}, {"key": 1, "eval": 1})
    crl = chain.read_crl(authority.crl(EMULATED, passphrase, now_s), "CRL")

    def judge(encoded, **lenient):
        return evidence.verify(encoded, Expected(NONCE, now_s, device.ueid), authority.certificate("root"), [crl],
                               [values], now_s, Policy(devices=None, **lenient))

    said = judge(found, allow_emulated=True, allow_debug=True, allow_unfused=True)
    assert (said.ueid, said.class_, said.oemboot, said.debug) == (device.ueid, EMULATED, False, 0)
    for one in ("allow_emulated", "allow_debug", "allow_unfused"):
        with pytest.raises(VerificationFailed):
            judge(found, **{name: name != one for name in ("allow_emulated", "allow_debug", "allow_unfused")})


# ------------------------------------------------------- the sealed identity ---


def test_the_identity_outlives_a_restart(device):
    assert not device.key.info().flags & wire.KEY_FLAG_IDENTITY
    sealed = device.key.identity_new()
    assert device.key.info().flags & wire.KEY_FLAG_IDENTITY
    before = open_request(device.key.request(CHALLENGE))
    device.restart_key()
    assert not device.key.info().flags & wire.KEY_FLAG_IDENTITY
    device.key.identity_open(sealed)
    assert device.key.info().flags & wire.KEY_FLAG_IDENTITY
    assert open_request(device.key.request(CHALLENGE)) == before
    open_evidence(device.key.attest(NONCE), before["attest"])


def test_what_comes_in_the_wrong_order_is_refused(device):
    refused(Status.ORDER, device.key.attest, NONCE)
    refused(Status.ORDER, device.key.request, CHALLENGE)
    sealed = device.key.identity_new()
    refused(Status.ORDER, device.key.identity_new)
    refused(Status.ORDER, device.key.identity_open, sealed)
    device.restart_key()
    refused(Status.ORDER, device.key.attest, NONCE)
    refused(Status.ORDER, device.key.request, CHALLENGE)
    device.key.identity_open(sealed)
    refused(Status.ORDER, device.key.identity_new)
    refused(Status.ORDER, device.key.identity_open, sealed)
    device.restart_key()
    assert device.key.identity_new() != sealed, "after a start another may be drawn"


def test_an_altered_identity_is_refused(device):
    sealed = device.key.identity_new()
    device.restart_key()
    places = {0, 1, 4, 7, 8, 39, 40, 47, 48, 1000, len(sealed) - 17, len(sealed) - 16, len(sealed) - 1}
    for at in sorted(places | set(range(0, len(sealed), 101))):  # tests/c/identity_test.c does them all
        for bit in (1, 128):
            refused(Status.STATE, device.key.identity_open, sealed[:at] + bytes([sealed[at] ^ bit]) + sealed[at + 1:])
    for wrong in (b"", sealed[:-1], sealed + b"\0", sealed[:1000]):
        refused(Status.LENGTH, device.key.identity_open, wrong)
    refused(Status.STATE, device.key.identity_open, bytes(len(sealed)))
    refused(Status.ORDER, device.key.attest, NONCE)
    device.key.identity_open(sealed)


def test_the_identity_of_another_device_is_refused(device):
    with Device() as other:
        sealed = other.key.identity_new()
    refused(Status.STATE, device.key.identity_open, sealed)


def test_two_identities_share_nothing(device):
    first = device.key.identity_new()
    device.restart_key()
    second = device.key.identity_new()
    moduli = [key.public_key().public_numbers().n for sealed in (first, second)
              for key in open_identity(device.folder, sealed)]
    assert len(set(moduli)) == 4
    assert wire.Identity.unpack(first).salt != wire.Identity.unpack(second).salt


@pytest.fixture(scope="module")
def version_2():
    """The key application of security version 2, beside the evaluation application of version 1."""
    folder = build.FOLDER / "version-2"
    build.make(str(folder / "edged-key"), "trusty_ta", BUILD=str(folder), SECURITY_VERSION="2")
    shutil.copy(str(artifacts.find("edged-eval")), str(folder / "edged-eval"))
    return folder


@pytest.mark.skipif(bool(build.missing("make", "gcc")), reason="needs make and gcc")
def test_an_evaluation_of_an_older_release_is_not_linked_where_nothing_is_signed_either(device, version_2, monkeypatch):
    monkeypatch.setenv(artifacts.BUILD_VARIABLE, str(version_2))
    device.restart_key()
    with key_link_of(device) as port:
        for version, expected in ((1, Status.KEY), (2, Status.OK), (3, Status.OK)):
            assert port.call(KeyCommand.HELLO, replace(HELLO, security_version=version).pack())[0] == expected


@pytest.mark.skipif(bool(build.missing("make", "gcc")), reason="needs make and gcc")
def test_a_newer_application_opens_the_identity_and_an_older_one_does_not(device, version_2, monkeypatch):
    old = device.key.identity_new()
    attest = open_request(device.key.request(CHALLENGE))["attest"]
    monkeypatch.setenv(artifacts.BUILD_VARIABLE, str(version_2))
    device.restart_key()
    device.key.identity_open(old)
    claims = open_evidence(device.key.attest(NONCE), attest)
    expected = applications()["key"]
    expected[-65539] = 2
    assert claims[266]["key"] == expected
    device.restart_key()
    new = device.key.identity_new()
    assert (wire.Identity.unpack(old).security_version, wire.Identity.unpack(new).security_version) == (1, 2)
    open_identity(device.folder, new)
    device.restart_key()
    device.key.identity_open(new)
    monkeypatch.delenv(artifacts.BUILD_VARIABLE)
    device.restart_key()
    refused(Status.STATE, device.key.identity_open, new)
    # The version in clear is bound: to say 1 does not help.
    refused(Status.STATE, device.key.identity_open, new[:4] + struct.pack("<I", 1) + new[8:])
    device.key.identity_open(old)


def secrets_of(private):
    """Every secret number of an RSA key, as it would lie in a DER or in memory."""
    numbers = private.private_numbers()
    for number in (numbers.d, numbers.p, numbers.q, numbers.dmp1, numbers.dmq1, numbers.iqmp):
        size = (number.bit_length() + 7) // 8
        yield number.to_bytes(size, "big")
        yield number.to_bytes(size, "little")


def test_no_answer_holds_a_private_key_or_the_stations_secret(device):
    sealed = device.key.identity_new()
    answers = [sealed]
    for turn in range(4):
        answers += [device.key.request(bytes([turn] * 32)), device.key.attest(bytes([turn] * 64))]
        for cmd, body in ((KeyCommand.IDENTITY_NEW, b""), (KeyCommand.IDENTITY_OPEN, sealed), (KeyCommand.INFO, b""),
                          (KeyCommand.STATS, b""), (KeyCommand.SLOT_CLEAR, wire.Index(0).pack())):
            answers.append(device.key.connection.call(cmd, body)[1])
        if turn % 2:
            device.restart_key()
            device.key.identity_open(sealed)
    everything = b"|".join(answers)
    secret = [value for private in open_identity(device.folder, sealed) for value in secrets_of(private)]
    secret += [STATION_SECRET, (device.folder / "device.key").read_bytes()]
    for value in secret:
        for at in range(0, len(value) - 15, 8):
            assert value[at:at + 16] not in everything


# ------------------------------------------------------ the station's secret ---


def test_without_a_stations_secret_a_request_is_refused_and_evidence_is_not():
    with Device(station=None) as device:
        sealed = device.key.identity_new()
        refused(Status.UNAVAILABLE, device.key.request, CHALLENGE)
        device.key.attest(NONCE)
        device.put_station(STATION_SECRET)
        refused(Status.UNAVAILABLE, device.key.request, CHALLENGE)  # it is read at start
        device.restart_key()
        device.key.identity_open(sealed)
        open_request(device.key.request(CHALLENGE))


def test_a_request_under_another_stations_secret_does_not_hold():
    with Device(station=bytes(32)) as device:
        device.key.identity_new()
        data = device.key.request(CHALLENGE)
        open_request(data, bytes(32))
        with pytest.raises(AssertionError):
            open_request(data)


@pytest.mark.parametrize("secret, mode", [(STATION_SECRET[:31], 0o600), (STATION_SECRET + b"\0", 0o600), (b"", 0o600),
                                          (STATION_SECRET, 0o640), (STATION_SECRET, 0o604)])
def test_a_stations_secret_that_others_may_read_or_of_another_size_ends_the_start(secret, mode):
    device = Device(station=None)
    device.put_station(secret, mode)
    with pytest.raises(KeyRefused):
        device.__enter__()


def test_a_stations_secret_is_not_read_through_a_link():
    device = Device(station=None)
    (device.folder / "elsewhere").write_bytes(STATION_SECRET)
    os.chmod(str(device.folder / "elsewhere"), 0o600)
    (device.folder / "station.secret").symlink_to("elsewhere")
    with pytest.raises(KeyRefused):
        device.__enter__()


# -------------------------------------------------------------- memory, C ---


def test_the_identity_fits_the_key_applications_memory(device):
    sealed = device.key.identity_new()
    for _ in range(3):
        device.key.request(CHALLENGE)
        device.key.attest(bytes(64))
    drawn = device.key.stats()
    device.restart_key()
    device.key.identity_open(sealed)
    for memory in (drawn, device.key.stats()):
        assert memory.heap_peak <= 12 << 10  # the library's own, 18 KB, comes on top on Trusty
        assert memory.stack_peak <= memory.stack_limit * 3 // 4


INTEGERS = [0, 23, 24, 255, 256, 65535, 65536, 2**32 - 1, 2**32, 2**63 - 1,
            -1, -24, -25, -256, -257, -65536, -65537, -(2**32), -(2**32) - 1, -(2**63)]


# Debian's android-libboringssl-dev, as trusty_ta/Makefile has it.
BORINGSSL = {"CRYPTO_CFLAGS": "-isystem /usr/include/android",
             "CRYPTO_LIBS": "-L/usr/lib/{0}/android -Wl,-rpath,/usr/lib/{0}/android -lcrypto"}


def boringssl(folder, target, directory, **settings):
    """Build one thing with BoringSSL."""
    if not Path("/usr/include/android/openssl/base.h").is_file():
        pytest.skip("needs the package android-libboringssl-dev: NOT tested with BoringSSL")
    build.make(str(folder / target), directory, BUILD=str(folder), **settings)
    return folder / target


@pytest.mark.skipif(bool(build.missing("make", "gcc")), reason="needs make and gcc")
def test_the_two_crypto_libraries_open_each_others_identities(device, monkeypatch):
    folder = build.FOLDER / "boringssl"
    boringssl(folder, "edged-key", "trusty_ta", CRYPTO="boringssl")
    shutil.copy(str(artifacts.find("edged-eval")), str(folder / "edged-eval"))
    by_openssl = device.key.identity_new()
    asked = open_request(device.key.request(CHALLENGE))
    monkeypatch.setenv(artifacts.BUILD_VARIABLE, str(folder))
    device.restart_key()
    device.key.identity_open(by_openssl)
    assert open_request(device.key.request(CHALLENGE)) == asked
    open_evidence(device.key.attest(NONCE), asked["attest"])
    device.restart_key()
    by_boringssl = device.key.identity_new()
    asked = open_request(device.key.request(CHALLENGE))
    monkeypatch.delenv(artifacts.BUILD_VARIABLE)
    device.restart_key()
    device.key.identity_open(by_boringssl)
    assert open_request(device.key.request(CHALLENGE)) == asked


@pytest.fixture(scope="module", params=["openssl", "boringssl"])
def program(request):
    """identity_test, with either library."""
    if request.param == "openssl":
        build.make("native")
        return build.FOLDER / "native/identity_test"
    multiarch = build.run("gcc", "-print-multiarch").strip()
    settings = {name: value.format(multiarch) for name, value in BORINGSSL.items()}
    return boringssl(build.FOLDER / "boringssl-c", "native/identity_test", "tests/c", **settings)


@pytest.fixture(scope="module")
def made(program, tmp_path_factory):
    """(vectors, dump) of identity_test, which has judged the first."""
    folder = tmp_path_factory.mktemp("identity")
    message_, label = bytes(range(256)) * 3, hashlib.sha256(b"the header of a grant").digest()
    items = {"pss/message": message_, "cbor/integers": struct.pack("<{}q".format(len(INTEGERS)), *INTEGERS)}
    for bits in (1024, 2048, 3072, 4096):
        key = rsa.generate_private_key(65537, bits)
        items["pss/public {}".format(bits)] = spki(key)
        items["pss/signature {}".format(bits)] = key.sign(message_, PSS, hashes.SHA256())
        items["pss/other salt {}".format(bits)] = key.sign(
            message_, padding.PSS(padding.MGF1(hashes.SHA256()), 20), hashes.SHA256())
        if bits in (2048, 3072):
            items["pss/private {}".format(bits)] = pkcs8(key)
    oaep = rsa.generate_private_key(65537, 2048)
    items.update({"oaep/key": pkcs8(oaep), "oaep/label": label, "oaep/plain": b"k" * 32,
                  "oaep/sealed": oaep.public_key().encrypt(b"k" * 32, oaep_of(label)),
                  "oaep/unlabelled": oaep.public_key().encrypt(b"u" * 190, oaep_of(None)),
                  "ec/private": pkcs8(ec.generate_private_key(ec.SECP256R1()))})
    vectors.write(folder / "vectors", items)
    build.run(program, folder / "vectors", folder / "dump")
    return items, vectors.read(folder / "dump")


def pkcs8(key):
    return key.private_bytes(serialization.Encoding.DER, serialization.PrivateFormat.PKCS8,
                             serialization.NoEncryption())


def oaep_of(label):
    return padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), label)


c_tools = pytest.mark.skipif(bool(build.missing("make", "cc")), reason="needs make and cc")


@c_tools
def test_rsa_of_the_thin_header_agrees_with_another_implementation(made):
    items, dump = made
    private = serialization.load_der_private_key(dump["drawn/private"], None)
    public = private.public_key()
    assert spki(private) == dump["drawn/public"] and pkcs8(private) == dump["drawn/private"]
    numbers = public.public_numbers()
    assert (public.key_size, numbers.e) == (2048, 65537)
    assert dump["drawn/modulus"] == numbers.n.to_bytes(256, "big") and dump["drawn/exponent"] == b"\1\0\1"
    public.verify(dump["drawn/signature"], items["pss/message"], PSS, hashes.SHA256())


@c_tools
def test_numbers_and_truths_are_written_as_cbor2_writes_them(made):
    _, dump = made
    assert dump["cbor/items"] == cbor2.dumps(cbor2.CBORTag(18, INTEGERS + [False, True]))


@c_tools
def test_evidence_of_a_fused_board_says_so(made):
    _, dump = made
    request = open_request(dump["hardware request"], b"\x5e" * 32)
    assert request["emulated"] == 0 and open_request(dump["request"], b"\x5e" * 32)["emulated"] == 1
    claims = open_evidence(dump["evidence"], request["attest"])
    assert (claims[262], claims[263], claims[-65537]) == (True, 3, "hardware")
    assert claims[266]["eval"] == {-65538: b"\x22" * 32, -65539: 0xFFFFFFFF, -65540: b"evaluation's id\0"}
    assert claims[266]["key"] == {-65538: b"\x11" * 32, -65539: wire.EDGED_SECURITY_VERSION,
                                  -65540: b"the key's uuid!\0"}
