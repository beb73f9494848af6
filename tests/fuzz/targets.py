"""Every parser of what comes from outside, with something valid to begin from, and what it makes written out again.

``sealed`` puts a broken inner part where only a key's holder could put it, with a true signature, MAC or seal: that is
what reaches the code behind the first check.
"""

from dataclasses import dataclass, replace
from typing import Any, Callable, Optional, Sequence

import cbor2
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import load_der_public_key

import test_package
import test_record
from edged import canonical
from edged.alerts import delivery, record, reports
from edged.enclave.wire import KeyKind
from edged.errors import EdgedError
from edged.model import manifest, package
from edged.model.tensors import write_tensors
from edged.offload import messages
from edged.trust import agreement, agreement_text, chain, cose, cosign, evidence, floor, grant, keyprotocol, reference
from edged.trust import request
from edged.trust import sealed as sealed_files
from evidence_cases import MO, NOW, REFERENCES, cose_key, raw_public, signed_references
from fuzz import mutate
from model_fixtures import small_model
from test_agreement import MO as OWNER
from test_agreement import PAYLOAD, QDO, SIGNED, VALID

RECORD_KEY = test_record.KEY


def _same(inner):
    return inner


@dataclass(frozen=True)
class Target:
    """valid : what is broken      broken : a mutator (tests/fuzz/mutate.py)      sealed : the input around it
    read : the parser      again : from what it made, the bytes that were broken; None where it keeps no more than them
    share : of the usual number of inputs, where one is slow"""

    name: str
    valid: Sequence[bytes]
    broken: Callable[..., bytes]
    read: Callable[[bytes], Any]
    sealed: Callable[[bytes], bytes] = _same
    again: Optional[Callable[[Any], bytes]] = None
    share: float = 1.0


# Evidence, certificates.


def _claims_again(found):
    claims = found.claims
    submods = {name: {-65538: one.measurement, -65539: one.version, -65540: one.uuid}
               for name, one in claims.applications.items()}
    return cbor2.dumps({
        8: {1: cose_key(load_der_public_key(claims.grant))}, 10: claims.nonce, 256: claims.ueid,
        262: claims.oemboot, 263: claims.debug, 265: evidence.PROFILE, 266: submods, 268: claims.bootseed,
        -65537: claims.class_}, canonical=True)


def _der(tag, content):
    return chain._tlv(tag, content)


def _resigned(key):
    """A certificate or list around what is to be signed, with a true signature."""
    def sealed(tbs):
        signature = key.sign(tbs, ec.ECDSA(hashes.SHA256()))
        return _der(0x30, tbs + chain._ECDSA_WITH_SHA256 + _der(0x03, b"\0" + signature))
    return sealed


def of_evidence(office):
    device, certificates = office.device, office.chains["hardware"]
    claims = [cbor2.dumps(device.claims(), canonical=True), cbor2.dumps(office.emulated.claims(), canonical=True)]
    whole = [office.evidence(), office.emulated.attests(claims[1], office.chains["emulated"])]
    bare = cose.sign_rsa(claims[0], device.attest)
    headers = canonical.encode({cose.X5CHAIN: list(certificates)})
    parsed = evidence.parse(whole[0]).message

    def with_headers(encoded):
        """The signature is not over them."""
        return b"\xd2\x84" + canonical.encode(cbor2.loads(whole[0][1:])[0]) + encoded + canonical.encode(
            parsed.payload) + canonical.encode(parsed.seal)

    leaf, issuing = (chain.read_certificate(one, "one") for one in certificates)
    crl = office.crls[0]
    in_chain = lambda which: lambda encoded: office.verify(replace(parsed, unprotected={  # noqa: E731
        cose.X5CHAIN: [encoded if place == which else one for place, one in enumerate(certificates)]}).encode())
    return [
        Target("evidence", whole, mutate.octets, evidence.parse, again=lambda made: made.message.encode()),
        Target("evidence: CBOR", [one[1:] for one in whole], mutate.cbor, evidence.parse, lambda inner: b"\xd2" + inner,
               lambda made: made.message.encode()[1:]),
        Target("evidence: claims", claims, mutate.cbor, evidence.parse,
               lambda payload: device.attests(payload, certificates), _claims_again, 0.5),
        Target("evidence: claims, verified", claims[:1], mutate.cbor, office.verify,
               lambda payload: device.attests(payload, certificates), share=0.3),
        Target("evidence: unprotected header", [headers], mutate.cbor, evidence.parse, with_headers),
        Target("evidence: of the enclave", [bare], mutate.octets,
               lambda encoded: evidence.with_chain(encoded, certificates)),
        Target("certificate", certificates, mutate.octets, lambda encoded: chain.read_certificate(encoded, "one"),
               again=chain.der),
        Target("certificate: device, signed", [leaf.tbs_certificate_bytes], mutate.octets, in_chain(0),
               _resigned(office.key("hardware"))),
        Target("certificate: issuing CA, signed", [issuing.tbs_certificate_bytes], mutate.octets, in_chain(1),
               _resigned(office.key("root"))),
        Target("certificates in PEM", [chain.pem([leaf, issuing])], mutate.octets,
               lambda content: chain.read_pem(content, "chain")),
        Target("revocation list", [chain.der(crl), chain.pem([crl])], mutate.octets,
               lambda content: chain.check(certificates, office.root, [chain.read_crl(content, "list")], NOW)),
        Target("revocation list: signed", [crl.tbs_certlist_bytes], mutate.octets,
               lambda content: chain.check(certificates, office.root, [chain.read_crl(content, "list")], NOW),
               _resigned(office.key("hardware"))),
    ]


# Requests and reference values.


def of_enrolment(office):
    device = office.device
    payload = device.asks(bytes(32))
    signed = cose.sign_rsa(payload, device.attest, request.EXTERNAL)
    opened = lambda encoded: request.open_request(encoded, device.secret)  # noqa: E731
    maced = lambda inner: cose.mac(inner, request.mac_key(device.secret), request.EXTERNAL)  # noqa: E731
    values = [one.encode() for one in REFERENCES.values()]
    public = [raw_public(MO)]
    return [
        Target("request", [device.request(bytes(32))], mutate.octets, opened),
        Target("request: within its MAC", [signed], mutate.octets, opened, maced),
        Target("request: signed", [payload], mutate.cbor, opened, lambda inner: request.seal(
            inner, device.attest, device.secret), lambda made: made.encode(), 0.5),
        Target("reference values", [signed_references()], mutate.octets,
               lambda signed: reference.open_references(signed, public)),
        Target("reference values: signed", values, mutate.cbor,
               lambda signed: reference.open_references(signed, public),
               lambda payload: cose.sign_ed25519(payload, MO, reference.CONTEXT), lambda made: made.encode()),
    ]


# Grants and agreements.


GRANT_HEADER = grant.Grant(KeyKind.MODEL, 3, b"d" * 32, b"k" * 16, 300, raw_public(MO), b"a" * 32).encode()
GRANT_PARTS = canonical.encode([GRANT_HEADER, b"w" * 256])
GRANT = cose.sign_ed25519(GRANT_PARTS, MO, grant.EXTERNAL)


def of_grants():
    return [
        Target("grant", [GRANT], mutate.octets, grant.open_grant),
        Target("grant: CBOR", [GRANT[1:]], mutate.cbor, grant.open_grant, lambda inner: b"\xd2" + inner),
        Target("grant: parts, signed", [GRANT_PARTS], mutate.cbor, grant.open_grant,
               lambda inner: cose.sign_ed25519(inner, MO, grant.EXTERNAL)),
        Target("grant: header, signed", [GRANT_HEADER], mutate.cbor, grant.open_grant,
               lambda inner: grant.seal(inner, b"w" * 256, MO), lambda made: made.encode()),
    ]


FLOOR_PAYLOADS = [
    floor.Floor(NOW, 2, b"s" * 32, b"d" * 32, ((0, 1), (3, 300), (15, (1 << 32) - 1)), raw_public(MO), 70000).encode(),
    floor.Floor(0, 0, bytes(32), bytes(32), (), raw_public(MO), 0).encode()]
FLOORS = [floor.seal(payload, MO) for payload in FLOOR_PAYLOADS]


def of_floors():
    return [
        Target("floor", FLOORS, mutate.octets, floor.open_floor),
        Target("floor: CBOR", [one[1:] for one in FLOORS], mutate.cbor, floor.open_floor,
               lambda inner: b"\xd2" + inner),
        Target("floor: signed", FLOOR_PAYLOADS, mutate.cbor, floor.open_floor,
               lambda payload: floor.seal(payload, MO), lambda made: made.encode()),
    ]


AGREEMENT_TEXT = agreement_text.write(VALID).encode("utf-8")


def _told(made):
    """By its own text. What was written is read: there is no agreement that only one of both can tell."""
    text = agreement_text.write(made).encode("utf-8")
    try:
        return agreement_text.read("draft", text)
    except EdgedError as error:
        raise AssertionError(text) from error


def _text_again(made):
    """What a text said is said by its digest's own text, too."""
    assert _told(made) == made
    return made


def of_agreements():
    least = replace(VALID, rules=(), recipients=(VALID.recipients[0]._replace(rules=()),)).encode()
    by_both = lambda payload: agreement.sign(payload, OWNER, QDO)  # noqa: E731
    half = agreement.join(PAYLOAD, [agreement.sign_as_one(PAYLOAD, QDO)])
    return [
        Target("agreement", [SIGNED, agreement.sign(least, OWNER, QDO)], mutate.octets, agreement.open_agreement),
        Target("agreement: payload, signed", [PAYLOAD, least], mutate.cbor, agreement.open_agreement, by_both,
               lambda made: made.encode()),
        Target("agreement: to text and back", [PAYLOAD, least], mutate.cbor,
               lambda payload: _told(agreement.read_payload(payload)), again=lambda made: made.encode()),
        Target("agreement: half-signed", [half], mutate.octets, lambda content: cosign.read("paper", content),
               again=lambda made: made.encode()),
        Target("agreement: text", [AGREEMENT_TEXT], mutate.text,
               lambda content: _text_again(agreement_text.read("draft", content)), share=4),
    ]


# Packages.


STREAM = write_tensors(small_model(), test_package.BLIND)


def _manifest_again(made):
    return canonical.encode({
        "form": made.form, "salt": made.salt, "chunks": made.chunks, "digest": made.digest, "key_id": made.key_id,
        "labels": list(made.labels), "layers": [list(row) for row in made.table], "schema": manifest.SCHEMA,
        "version": made.version, "model_id": made.model_id, "skeleton": made.skeleton, "placements": made.placements,
        **made.shape._asdict()})


def of_packages():
    packed = test_package.sealed()
    encoded = package.inspect(packed).encoded
    salt = package.inspect(packed).salt

    def signed(inner):
        return package.seal_encoded(inner, salt, STREAM, test_package.MODEL_KEY, test_package.OWNER)

    opened = test_package.opened
    return [
        Target("package", [packed], mutate.octets, opened, share=0.5),
        Target("manifest", [encoded], mutate.octets, manifest.read_manifest, again=_manifest_again),
        Target("manifest: CBOR", [encoded], mutate.cbor, manifest.read_manifest, again=_manifest_again),
        Target("manifest: signed", [encoded], mutate.cbor, opened, signed, share=0.5),
        Target("tensors: signed", [STREAM], mutate.octets, opened, lambda stream: test_package.sealed(stream),
               share=0.5),
    ]


# What goes over the network.


def of_messages():
    grants = keyprotocol.grants([GRANT, GRANT], b"floor")
    names = delivery.pack_names(delivery.ACK, [(b"e" * 16, 7), (b"f" * 16, 1 << 40)])[1]
    status = canonical.encode({"state": "lost", "reason": "no route", "skipped": 3})
    clip = canonical.encode({"session": 1, "number": 2, "captured_ns": 3})

    def said_again(given):
        return keyprotocol.grants(*given)

    claim = canonical.encode({"camera": "gate", "state": "lost", "reason": "frozen", "skipped": 1, "time": NOW})
    return [
        Target("challenge request", [keyprotocol.ask(b"\1" * 17)], mutate.cbor, keyprotocol.read_asked,
               again=keyprotocol.ask),
        Target("challenge", [keyprotocol.challenge(b"n" * 32)], mutate.cbor, keyprotocol.read_challenge,
               again=keyprotocol.challenge),
        Target("grants", [grants], mutate.cbor, keyprotocol.read_grants, again=said_again),
        Target("grants: bytes", [grants], mutate.octets, keyprotocol.read_grants, again=said_again),
        Target("reported", [keyprotocol.reported()], mutate.cbor, keyprotocol.read_reported,
               again=lambda nothing: keyprotocol.reported()),
        Target("refusal", [keyprotocol.refusal("stale")], mutate.cbor, keyprotocol.read_refusal),
        Target("acknowledgement", [names], mutate.cbor, lambda data: delivery.unpack_answer([delivery.ACK, data]),
               again=lambda made: delivery.pack_names(delivery.ACK, made.names)[1]),
        Target("camera's status", [status], mutate.cbor, lambda data: messages.from_camera("gate", [b"status", data])),
        Target("camera's clip", [clip], mutate.cbor, lambda data: messages.from_camera("gate", [b"clip", data, b"x"]),
               again=lambda made: canonical.encode({"session": made.session, "number": made.number,
                                                    "captured_ns": made.captured_ns})),
        Target("node's claim", [claim], mutate.cbor, reports.claimed),
        Target("node's claim: bytes", [claim], mutate.octets, reports.claimed),
    ]


# Records.


def _body(header):
    """A record around a plaintext of the agreed size, under the key that its header asks for."""
    size = 192 + test_record.BODY_BYTES - len(header)

    def sealed(plain):
        plain = plain[:size].ljust(size, b"\0")
        derived = HKDF(hashes.SHA256(), 32, b"s" * 32, b"edged record v1" + b"r" * 16 + test_record.AGREEMENT).derive(
            RECORD_KEY)
        body = AESGCM(derived).encrypt((258).to_bytes(8, "little") + bytes(4), plain, header)
        return len(header).to_bytes(4, "little") + len(body).to_bytes(4, "little") + header + body
    return sealed


def of_records():
    opened = lambda sealed: record.open_record(sealed, RECORD_KEY, test_record.AGREEMENT)  # noqa: E731
    header = test_record.canonical()
    made = [Target("record", [test_record.seal()], mutate.octets, opened),
            Target("record: header", [header], mutate.cbor, record.RecordHeader.unpack, again=lambda made: made.pack())]
    for name, kind, plain in (("alert", 0, test_record.clip(test_record.ALERTED, kind=1)),
                              ("clip", 0, test_record.clip()), ("epoch", 3, test_record.epoch()),
                              ("heartbeat", 2, test_record.heartbeat()), ("claim", 5, test_record.claim())):
        header = test_record.canonical(kind=kind)
        made.append(Target("record: {}, sealed".format(name), [plain], mutate.octets, opened, _body(header)))
    return made


# Files.


def of_files():
    fits = lambda clear: clear == "name"  # noqa: E731
    key_file = sealed_files.seal(b"magic\n", "name", b"secret", b"words words words", 1 << 4)
    return [Target("file under a passphrase", [key_file], mutate.octets,
                   lambda content: sealed_files.take_apart(b"magic\n", content, "file", "key", fits)),
            Target("file under a passphrase: CBOR", [key_file[6:]], mutate.cbor,
                   lambda content: sealed_files.take_apart(b"magic\n", content, "file", "key", fits),
                   lambda inner: b"magic\n" + inner)]
