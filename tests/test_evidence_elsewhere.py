"""Evidence and an independent implementation of COSE: what one signs, the other verifies; what one refuses, the other
does. pycose is in the extra `dev`; cwt, which verifies whole CBOR Web Tokens, holds cbor2 below 6 and so gets an
environment of its own (build/cwt-VERSION, by pip)."""

import json
import subprocess
import sys
import time
from dataclasses import replace

import cbor2
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from c import build
from edged.errors import PackageError, VerificationFailed
from edged.trust import cose, request
from edged.trust.evidence import PROFILE, parse
from evidence_cases import MO, NONCE, REFERENCES, office, raw_public, signed_references  # noqa: F401


# pycose


@pytest.fixture(scope="module")
def pycose():
    pytest.importorskip("pycose", reason="pip install 'edged[dev]'; NOT compared with another implementation of COSE")
    from pycose import algorithms, headers, keys, messages

    class Pycose:
        pass

    Pycose.algorithms, Pycose.headers, Pycose.keys, Pycose.messages = algorithms, headers, keys, messages
    return Pycose


def octets(number):
    return number.to_bytes(-(-number.bit_length() // 8), "big")


def rsa_key(pycose, key):
    public = key.public_key() if isinstance(key, rsa.RSAPrivateKey) else key
    numbers = public.public_numbers()
    parts = {"n": octets(numbers.n), "e": octets(numbers.e)}
    if isinstance(key, rsa.RSAPrivateKey):
        own = key.private_numbers()
        parts.update(d=octets(own.d), p=octets(own.p), q=octets(own.q), dp=octets(own.dmp1), dq=octets(own.dmq1),
                     qinv=octets(own.iqmp))
    return pycose.keys.RSAKey(**parts)


def decoded(pycose, encoded):
    """Its CoseMessage.decode does the same, but for the types to which cbor2 6 decodes what stands in a tag."""
    kind = {b"\xd1": pycose.messages.Mac0Message, b"\xd2": pycose.messages.Sign1Message}[encoded[:1]]
    return kind.from_cose_obj(cbor2.loads(encoded[1:]), True)


def test_pycose_verifies_our_evidence(pycose, office):
    encoded = office.evidence()
    message = decoded(pycose, encoded)
    assert message.get_attr(pycose.headers.Algorithm) is pycose.algorithms.Ps256
    assert [bytes(one) for one in message.get_attr(pycose.headers.X5chain)] == list(office.chains["hardware"])
    message.key = rsa_key(pycose, office.device.attest.public_key())
    assert message.verify_signature()
    claims = cbor2.loads(message.payload)
    assert (claims[10], claims[265]) == (NONCE, PROFILE)
    message.payload = message.payload[:-1] + b"x"
    assert not message.verify_signature()
    message = decoded(pycose, encoded)
    message.key = rsa_key(pycose, office.emulated.attest.public_key())
    assert not message.verify_signature()


def their_evidence(pycose, office, algorithm):
    message = pycose.messages.Sign1Message(
        phdr={pycose.headers.Algorithm: algorithm},
        uhdr={pycose.headers.X5chain: list(office.chains["hardware"])},
        payload=cbor2.dumps(office.device.claims(), canonical=True))
    message.key = rsa_key(pycose, office.device.attest)
    return message.encode()


def test_we_verify_what_pycose_signed(pycose, office):
    """Its encoding is the deterministic one by itself."""
    verified = office.verify(their_evidence(pycose, office, pycose.algorithms.Ps256))
    assert verified.ueid == office.device.ueid


def test_the_same_claims_under_another_algorithm_of_pycose_are_refused(pycose, office):
    for algorithm in (pycose.algorithms.Ps384, pycose.algorithms.Ps512, pycose.algorithms.RsaPkcs1Sha256):
        with pytest.raises(PackageError, match="its protected header is"):
            office.verify(their_evidence(pycose, office, algorithm))


def test_both_refuse_evidence_with_a_flipped_bit_in_what_is_signed(pycose, office):
    good = parse(office.evidence()).message
    for place in range(0, len(good.payload), 7):
        payload = bytearray(good.payload)
        payload[place] ^= 1 << place % 8
        broken = replace(good, payload=bytes(payload))
        message = decoded(pycose, broken.encode())
        message.key = rsa_key(pycose, office.device.attest.public_key())
        assert not message.verify_signature()
        with pytest.raises(VerificationFailed):
            broken.verify_rsa(office.device.attest.public_key(), "evidence")


def test_pycose_verifies_a_certificate_request_and_makes_one(pycose, office):
    nonce, external = b"n" * 32, b"edged certificate request 1"
    key = pycose.keys.SymmetricKey(k=request.mac_key(office.device.secret))
    outer = decoded(pycose, office.device.request(nonce))
    outer.key, outer.external_aad = key, external
    assert outer.verify_tag()
    inner = decoded(pycose, outer.payload)
    inner.key, inner.external_aad = rsa_key(pycose, office.device.attest.public_key()), external
    assert inner.verify_signature()
    outer.external_aad = b""
    assert not outer.verify_tag()

    signed = pycose.messages.Sign1Message(phdr={pycose.headers.Algorithm: pycose.algorithms.Ps256}, uhdr={},
                                          payload=office.device.asks(nonce), external_aad=external)
    signed.key = rsa_key(pycose, office.device.attest)
    made = pycose.messages.Mac0Message(phdr={pycose.headers.Algorithm: pycose.algorithms.HMAC256}, uhdr={},
                                       payload=signed.encode(), external_aad=external)
    made.key = key
    assert request.open_request(made.encode(), office.device.secret).nonce == nonce


def test_pycose_verifies_our_reference_values(pycose):
    message = decoded(pycose, signed_references())
    message.key = pycose.keys.OKPKey(crv="ED25519", x=raw_public(MO))
    message.external_aad = b"edged reference values 1"
    assert message.verify_signature()
    assert message.payload == REFERENCES["hardware"].encode()
    message.external_aad = b"edged package"
    assert not message.verify_signature()


# cwt


TRIES, PAUSE_S = 3, 5


@pytest.fixture(scope="module")
def cwt_python():
    """Of an environment with cwt. Skips where pip cannot get it; a broken installation fails."""
    folder = build.ROOT / "build" / "cwt-{}.{}".format(*sys.version_info)
    python = folder / "bin" / "python"
    has_cwt = [str(python), "-c", "import cwt"]
    if not python.exists() or subprocess.run(has_cwt, stderr=subprocess.DEVNULL).returncode != 0:
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        for left in reversed(range(TRIES)):
            done = subprocess.run([str(python), "-m", "pip", "install", "--quiet", "cwt"], stdout=subprocess.PIPE,
                                  stderr=subprocess.STDOUT, universal_newlines=True)
            if done.returncode == 0:
                break
            if left == 0:
                pytest.skip("pip cannot get cwt; NOT compared with another implementation of CWT: {}".format(
                    done.stdout[-300:]))
            time.sleep(PAUSE_S)
        subprocess.run(has_cwt, check=True)
    return str(python)


def public_pem(key):
    return key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


@pytest.mark.slow
@pytest.mark.skipif(sys.version_info < (3, 9), reason="cwt's last release for Python 3.8 does not find OpenSSL 3; NOT "
                                                      "compared here with another implementation of CWT")
def test_cwt_decodes_our_evidence_as_a_web_token_and_we_verify_what_it_signed(cwt_python, office, tmp_path):
    # It looks for the key by its name, which our evidence does not have: the certificate is in it.
    named = replace(parse(office.evidence()).message, unprotected={4: b"device"}).encode()
    files = {"evidence": named, "device.pem": public_pem(office.device.attest),
             "other.pem": public_pem(office.emulated.attest),
             "payload": cbor2.dumps(office.device.claims(), canonical=True),
             "private.pem": office.device.attest.private_bytes(
                 serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())}
    files.update(("chain.{}".format(place), one) for place, one in enumerate(office.chains["hardware"]))
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    done = subprocess.run([cwt_python, str(build.ROOT / "tests/cwt_evidence.py"), str(tmp_path)],
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True)
    assert done.returncode == 0, done.stdout
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "nonce": NONCE.hex(), "ueid": office.device.ueid.hex(), "refused": True}
    made = (tmp_path / "signed").read_bytes()
    signed = cose.read(made, cose.SIGN1, cose.PS256, "evidence", 1 << 14)
    signed.verify_rsa(office.device.attest.public_key(), "evidence")
    assert office.verify(made).ueid == office.device.ueid
