"""Reference values: signed by a party, canonical only; several are merged so that nothing older gets in."""

from dataclasses import replace

import cbor2
import pytest

from edged.errors import PackageError, VerificationFailed
from edged.trust import cose, reference
from edged.trust.reference import Version, merge, open_references, read, sign
from evidence_cases import MO, NOW, OTHER, REFERENCES, raw_public

VALID = REFERENCES["hardware"]
PAYLOAD = VALID.encode()
SIGNED = sign(PAYLOAD, MO)
SIGNER = raw_public(MO)


def fields(**changes):
    return cbor2.dumps(dict(cbor2.loads(PAYLOAD), **changes), canonical=True)


def test_signed_reference_values_open_under_the_signers_key():
    assert open_references(SIGNED, [SIGNER]) == open_references(SIGNED, [raw_public(OTHER), SIGNER]) == VALID
    assert list(cbor2.loads(PAYLOAD)) == ["form", "class", "floors", "issued", "applications"]
    assert VALID.as_dict()["applications"]["key"] == [{"measurement": "6b" * 32, "version": 1}]


def test_the_form_is_the_agreed_one():
    """By hand, from RFC 9052."""
    protected, unprotected, payload, signature = cbor2.loads(SIGNED[1:])
    assert SIGNED[:1] == b"\xd2" and (protected, unprotected, payload) == (b"\xa1\x01\x27", {}, PAYLOAD)
    assert signature == MO.sign(cbor2.dumps(["Signature1", protected, b"edged reference values 1", payload]))


def test_values_that_another_signed_are_refused():
    for signers in ([raw_public(OTHER)], [], [bytes(32)]):
        with pytest.raises(VerificationFailed, match="reference values: are signed by none of"):
            open_references(SIGNED, signers)


def test_a_signature_for_another_purpose_is_refused():
    for context in (b"", b"edged package", b"edged agreement"):
        with pytest.raises(VerificationFailed, match="signed by none"):
            open_references(cose.sign_ed25519(PAYLOAD, MO, context), [SIGNER])


def test_every_altered_byte_is_refused():
    for place in range(len(SIGNED)):
        broken = bytearray(SIGNED)
        broken[place] ^= 1 << place % 8
        with pytest.raises((PackageError, VerificationFailed)):
            open_references(bytes(broken), [SIGNER])
    with pytest.raises(PackageError):
        open_references(SIGNED + b"\0", [SIGNER])


@pytest.mark.parametrize("payload, reason", [
    (fields(more=1), "missing or unknown: more"), (fields(form="edged reference values 2"), "form is"),
    (fields(**{"class": "Hardware"}), "class is 'Hardware'"), (fields(issued=-1), "issued is -1"),
    (fields(issued=1.0), "issued is 1.0"), (fields(floors={"key": 1}), "floors: fields missing or unknown: eval"),
    (fields(floors={"key": 1, "eval": -1}), "eval is -1"), (fields(floors={"key": 1, "eval": True}), "eval is True"),
    (fields(applications={"key": [], "eval": []}), "key is"),
    (fields(applications={"key": [[b"k" * 32, 1]]}), "missing or unknown: eval"),
    (fields(applications={"key": [[b"k" * 31, 1]], "eval": [[b"e" * 32, 1]]}), "measurement is"),
    (fields(applications={"key": [[b"k" * 32, -1]], "eval": [[b"e" * 32, 1]]}), "version is -1"),
    (fields(applications={"key": [[b"k" * 32]], "eval": [[b"e" * 32, 1]]}), "is not a list of measurement, version"),
    (fields(applications={"key": [[bytes(32), 1]], "eval": [[b"e" * 32, 1]]}), "a measurement of zeros"),
    (fields(applications={"key": [[b"k" * 32, 1], [b"j" * 32, 1]], "eval": [[b"e" * 32, 1]]}), "not in order"),
    (fields(applications={"key": [[b"k" * 32, 1], [b"k" * 32, 2]], "eval": [[b"e" * 32, 1]]}), "one stands twice"),
    (fields(applications={"key": [[b"%032d" % i, 1] for i in range(65)], "eval": [[b"e" * 32, 1]]}), "1..64"),
    (cbor2.dumps(dict(reversed(list(cbor2.loads(PAYLOAD).items())))), "not a canonical CBOR map"),
    (PAYLOAD + b"\0", "not a canonical CBOR map"), (PAYLOAD[:-1], "not CBOR"), (b"", "not CBOR"),
    (cbor2.dumps([1]), "not a canonical CBOR map"),
], ids=lambda value: value if isinstance(value, str) else "")
def test_a_payload_of_another_form_is_neither_signed_nor_taken(payload, reason):
    with pytest.raises(PackageError, match="reference values.*" + reason):
        sign(payload, MO)
    with pytest.raises(PackageError, match=reason):
        open_references(cose.sign_ed25519(payload, MO, reference.CONTEXT), [SIGNER])


def test_merged_values_have_all_images_and_the_highest_floors():
    newer = replace(VALID, issued_s=NOW, floors={"key": 1, "eval": 2}, applications={
        "key": frozenset([Version(b"k" * 32, 1), Version(b"a" * 32, 2)]), "eval": frozenset([Version(b"f" * 32, 2)])})
    for parts in ((VALID, newer), (newer, VALID)):
        merged = merge(parts)
        assert read(merged.encode()) == merged
        assert (merged.issued_s, merged.floors) == (NOW, {"key": 1, "eval": 2})
        assert merged.applications == {"key": {Version(b"k" * 32, 1), Version(b"a" * 32, 2)},
                                       "eval": {Version(b"e" * 32, 1), Version(b"f" * 32, 2)}}
    assert merge([VALID]) == VALID


def test_what_does_not_fit_together_is_not_merged():
    with pytest.raises(PackageError, match="of classes emulated, hardware"):
        merge(list(REFERENCES.values()))
    other = replace(VALID, applications=dict(VALID.applications, key=frozenset([Version(b"k" * 32, 2)])))
    with pytest.raises(PackageError, match="one stands twice"):
        merge([VALID, other])
    with pytest.raises(PackageError, match="there are none"):
        merge([])
