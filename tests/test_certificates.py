"""The city's certification authority: whom it gives a certificate, whom not, and what it keeps of that."""

import errno
import hashlib
import hmac
import os
import sqlite3
import stat
from dataclasses import replace

import cbor2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from edged.errors import KeyRefused, MissingInput, PackageError, UsageError, VerificationFailed
from edged.trust import boards, certificates, chain, cose, request, sealed
from edged.trust.certificates import Authority
from edged.trust.request import open_request, seal, spki_of
from evidence_cases import CHEAP, DAY_S, KEYS, NOW, PASSPHRASE, Device, Office
from processes import ends_although_killed

DEVICE = Device()
NONCE = b"n" * 32
NEW_KEYS = [rsa.generate_private_key(65537, 2048) for _ in range(2)]


@pytest.fixture
def authority(tmp_path):
    made = Authority(str(tmp_path / "ca"), CHEAP)
    made.create("Testing", PASSPHRASE, NOW)
    made.add_board("board-1", "bridge-street", "hardware", DEVICE.secret, PASSPHRASE)
    return made


@pytest.fixture
def office(tmp_path):
    return Office(tmp_path / "office")


def ask(authority, device=DEVICE, which="board-1", now_s=NOW, **changes):
    return device.request(authority.challenge(which, now_s), **changes)


def enrol(authority, device=DEVICE, which="board-1", now_s=NOW, **options):
    return authority.enrol(which, ask(authority, device, which, now_s), PASSPHRASE, now_s, **options)


def refused(what):
    return pytest.raises(VerificationFailed, match=what)


def numbers(authority):
    return [(entry["serial"], bool(entry["revoked"]), [bool(one["revoked"]) for one in entry["certificates"]])
            for entry in authority.list()]


# The request.


def test_a_request_opens_under_its_boards_secret():
    asked = open_request(DEVICE.request(NONCE), DEVICE.secret)
    assert (asked.ueid, asked.nonce, asked.emulated) == (DEVICE.ueid, NONCE, False)
    assert (asked.attest, asked.grant) == tuple(spki_of(key.public_key()) for key in KEYS[:2])


def test_the_form_of_a_request_is_the_agreed_one():
    """By hand, from RFC 9052: two tags, two protected headers, the map's order, the external data."""
    encoded = DEVICE.request(NONCE)
    assert encoded.startswith(bytes.fromhex("d18443a10105a0"))
    protected, _, inner, tag = cbor2.loads(encoded[1:])
    assert inner.startswith(bytes.fromhex("d28444a1013824a0"))
    extract = hmac.new(bytes(32), DEVICE.secret, hashlib.sha256).digest()
    key = hmac.new(extract, b"edged enrol v1\x01", hashlib.sha256).digest()
    covered = cbor2.dumps(["MAC0", protected, b"edged certificate request 1", inner])
    assert tag == hmac.new(key, covered, hashlib.sha256).digest()
    assert list(cbor2.loads(cbor2.loads(inner[1:])[2])) == ["form", "ueid", "grant", "nonce", "attest", "emulated"]


def test_a_request_under_another_secret_is_refused():
    with refused("certificate request of another board, or altered: its MAC"):
        open_request(DEVICE.request(NONCE), b"t" * 32)


def test_a_request_that_another_key_signed_is_refused():
    with refused("certificate request: its signature does not verify"):
        open_request(seal(DEVICE.asks(NONCE), KEYS[2], DEVICE.secret), DEVICE.secret)


def test_every_altered_byte_of_a_request_is_refused():
    good = DEVICE.request(NONCE)
    for place in range(len(good)):
        broken = bytearray(good)
        broken[place] ^= 1 << place % 8
        with pytest.raises((PackageError, VerificationFailed)):
            open_request(bytes(broken), DEVICE.secret)
    with pytest.raises(PackageError):
        open_request(good + b"\0", DEVICE.secret)


def test_every_altered_byte_is_refused_of_a_signature_by_one_who_knows_the_secret():
    inner = cose.read(DEVICE.request(NONCE), cose.MAC0, cose.HMAC_256, "", 4096).payload
    for place in range(len(inner)):
        broken = bytearray(inner)
        broken[place] ^= 1 << place % 8
        with pytest.raises((PackageError, VerificationFailed)):
            open_request(cose.mac(bytes(broken), request.mac_key(DEVICE.secret), request.EXTERNAL), DEVICE.secret)


def test_a_mac_or_signature_for_another_purpose_is_refused():
    key, payload = request.mac_key(DEVICE.secret), DEVICE.asks(NONCE)
    with refused("its MAC"):
        open_request(cose.mac(cose.sign_rsa(payload, DEVICE.attest, request.EXTERNAL), key), DEVICE.secret)
    with refused("its signature"):
        open_request(cose.mac(cose.sign_rsa(payload, DEVICE.attest), key, request.EXTERNAL), DEVICE.secret)



def spki(key):
    return key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


@pytest.mark.parametrize("changes, reason", [
    (dict(ueid=b"\2" + b"n" * 16), "must start with 01"), (dict(ueid=bytes(16)), "ueid is"),
    (dict(nonce=bytes(31)), "nonce is"), (dict(emulated=2), "emulated is 2"), (dict(grant=b""), "grant is"),
    (dict(grant=b"\x30\x00"), "grant is not a public key in DER"), (dict(grant=bytes(600)), "grant is"),
    (dict(grant=spki(rsa.generate_private_key(65537, 1024))), "grant is not an RSA key of 2048 or 3072 bits"),
    (dict(grant=spki(ec.derive_private_key(5, ec.SECP256R1()))), "grant is not an RSA key"),
    (dict(attest=spki(ec.derive_private_key(5, ec.SECP256R1()))), "attest is not an RSA key"),
    (dict(grant=spki(KEYS[1]) + b"\0"), "grant is not"),
], ids=lambda value: value if isinstance(value, str) else ",".join(value))
def test_a_field_of_another_form_is_refused(changes, reason):
    with pytest.raises(PackageError, match="certificate request.*" + reason):
        open_request(DEVICE.request(**dict({"nonce": NONCE}, **changes)), DEVICE.secret)


def test_the_same_request_in_another_encoding_is_refused():
    fields = cbor2.loads(DEVICE.asks(NONCE))
    for payload in (cbor2.dumps(dict(reversed(list(fields.items())))),
                    cbor2.dumps(dict(fields, more=1), canonical=True),
                    cbor2.dumps(dict(fields, emulated=False), canonical=True), cbor2.dumps(list(fields.values())),
                    cbor2.dumps(dict(fields, form="edged certificate request 2"), canonical=True),
                    DEVICE.asks(NONCE).replace(b"\x58\x20" + NONCE, b"\x59\x00\x20" + NONCE)):
        with pytest.raises(PackageError, match="certificate request"):
            open_request(seal(payload, DEVICE.attest, DEVICE.secret), DEVICE.secret)


def test_one_key_for_both_uses_gets_no_certificate():
    with refused("one key both attests and receives grants"):
        open_request(DEVICE.request(NONCE, grant=spki(KEYS[0])), DEVICE.secret)


# Enrolment.


def test_a_board_gets_a_certificate_of_its_class_for_its_keys(authority):
    made = enrol(authority)
    leaf, issuing = chain.read_pem(made.chain, "chain")
    crl = chain.read_crl(authority.crl("hardware", PASSPHRASE, NOW), "crl")
    device = chain.check([chain.der(leaf), chain.der(issuing)], authority.certificate("root"), [crl], NOW)
    assert (device.ueid, device.class_, made.ueid) == (DEVICE.ueid, "hardware", DEVICE.ueid)
    assert spki_of(device.key) == spki(DEVICE.attest) and device.until_s == NOW + 730 * DAY_S
    assert authority.ueid("bridge-street") == DEVICE.ueid


def test_a_request_with_the_secret_of_another_board_is_refused(authority):
    authority.add_board("board-2", "north", "hardware", b"t" * 32, PASSPHRASE)
    with refused("of another board, or altered: its MAC"):
        enrol(authority, which="board-2")
    assert [entry["certificates"] for entry in authority.list()] == [[], []]


def test_an_answer_to_another_challenge_is_refused(authority):
    with refused("no challenge of board board-1 is outstanding"):
        authority.enrol("board-1", DEVICE.request(NONCE), PASSPHRASE, NOW)
    old = ask(authority)
    authority.challenge("board-1", NOW)
    for answer in (old, DEVICE.request(NONCE)):
        with refused("answers another challenge than the newest of board board-1"):
            authority.enrol("board-1", answer, PASSPHRASE, NOW)


def test_the_challenge_of_one_board_is_none_of_anothers(authority):
    authority.add_board("board-2", "north", "hardware", b"t" * 32, PASSPHRASE)
    authority.challenge("board-2", NOW)
    other = replace(DEVICE, secret=b"t" * 32)
    with refused("answers another challenge"):
        authority.enrol("board-2", other.request(authority.challenge("board-1", NOW)), PASSPHRASE, NOW)


def test_a_challenge_runs_out(authority):
    answer = ask(authority)
    with refused("the challenge of board board-1 ran out"):
        authority.enrol("board-1", answer, PASSPHRASE, NOW + 901)
    assert authority.enrol("board-1", answer, PASSPHRASE, NOW + 900)


def test_a_challenge_is_good_once(authority):
    answer = ask(authority)
    authority.enrol("board-1", answer, PASSPHRASE, NOW)
    with refused("no challenge of board board-1 is outstanding: each is good once"):
        authority.enrol("board-1", answer, PASSPHRASE, NOW, again=True)


@pytest.mark.parametrize("class_, emulated", [("hardware", True), ("emulated", False)])
def test_a_board_that_calls_itself_of_another_class_gets_nothing(authority, class_, emulated):
    authority.add_board("board-2", "north", class_, b"t" * 32, PASSPHRASE)
    device = replace(DEVICE, secret=b"t" * 32, emulated=emulated)
    with refused("board board-2 is listed as {}, and says of itself".format(class_)):
        enrol(authority, device, "board-2")


def test_a_board_that_has_a_certificate_gets_another_only_if_told(authority):
    first = enrol(authority)
    with refused("board board-1 has a certificate: --again"):
        enrol(authority)
    second = enrol(authority, again=True)
    assert first.certificate.serial_number != second.certificate.serial_number
    assert numbers(authority) == [("board-1", False, [True, False])]
    crl = chain.read_crl(authority.crl("hardware", PASSPHRASE, NOW), "crl")
    entry = crl.get_revoked_certificate_by_serial_number(first.certificate.serial_number)
    assert entry.extensions.get_extension_for_class(x509.CRLReason).value.reason == x509.ReasonFlags.superseded
    assert crl.get_revoked_certificate_by_serial_number(second.certificate.serial_number) is None


def test_a_board_that_was_flashed_anew_is_enrolled_again_with_new_keys(authority):
    enrol(authority)
    assert enrol(authority, replace(DEVICE, attest=NEW_KEYS[0], grant=NEW_KEYS[1]), again=True)


def test_an_expired_certificate_needs_no_again(authority):
    enrol(authority, days=1)
    with refused("has a certificate"):
        enrol(authority, now_s=NOW + DAY_S)
    assert enrol(authority, now_s=NOW + DAY_S + 1)


@pytest.mark.parametrize("changes", [
    dict(ueid=DEVICE.ueid), dict(attest=DEVICE.attest), dict(grant=DEVICE.grant), dict(attest=DEVICE.grant),
    dict(grant=DEVICE.attest)], ids=["ueid", "attest", "grant", "grant as attest", "attest as grant"])
@pytest.mark.parametrize("revoked", [False, True])
def test_a_board_with_a_key_or_the_name_of_another_gets_nothing(authority, changes, revoked):
    enrol(authority)
    authority.add_board("board-2", "north", "hardware", b"t" * 32, PASSPHRASE)
    if revoked:
        authority.revoke("board-1", NOW)
    fresh = Device(b"\1" + b"o" * 16, NEW_KEYS[0], NEW_KEYS[1], b"t" * 32)
    with refused("board board-2 comes with the ueid or a key of board board-1"):
        enrol(authority, replace(fresh, **changes), "board-2")
    assert enrol(authority, fresh, "board-2")


def test_a_board_may_not_exchange_its_keys(authority):
    enrol(authority)
    with refused("board board-1 has exchanged its keys"):
        enrol(authority, replace(DEVICE, attest=DEVICE.grant, grant=DEVICE.attest), again=True)


def test_no_certificate_outlives_two_years_or_its_issuer(authority):
    for days in (0, 731):
        with pytest.raises(UsageError, match="--days"):
            enrol(authority, days=days)
    issuing = chain.seconds(authority.certificate("hardware"), "not_valid_after")
    assert chain.seconds(enrol(authority, now_s=issuing - DAY_S).certificate, "not_valid_after") == issuing


# Revocation and replacement.


def test_a_revoked_board_is_on_the_list_and_never_comes_back(authority):
    made = enrol(authority)
    board, count = authority.revoke("bridge-street", NOW + 5, certificates.STOLEN)
    assert (board.serial, count) == ("board-1", 1)
    crl = chain.read_crl(authority.crl("hardware", PASSPHRASE, NOW + 9), "crl")
    entry = crl.get_revoked_certificate_by_serial_number(made.certificate.serial_number)
    assert chain.seconds(entry, "revocation_date") == NOW + 5
    assert entry.extensions.get_extension_for_class(x509.CRLReason).value.reason == x509.ReasonFlags.key_compromise
    for act in (lambda: authority.challenge("board-1", NOW), lambda: authority.revoke("board-1", NOW),
                lambda: authority.enrol("board-1", DEVICE.request(NONCE), PASSPHRASE, NOW)):
        with refused("board board-1 of bridge-street was revoked on .*, for good: `edged-city ca replace`"):
            act()
    with pytest.raises(UsageError, match="board board-1 was revoked as bridge-street, for good"):
        authority.add_board("board-1", "north", "hardware", DEVICE.secret, PASSPHRASE)


def test_a_challenge_dies_with_the_board(authority):
    answer = ask(authority)
    authority.revoke("board-1", NOW)
    with refused("was revoked"):
        authority.enrol("board-1", answer, PASSPHRASE, NOW)


def test_a_broken_board_is_replaced_in_one_step(authority):
    enrol(authority)
    old = authority.replace("bridge-street", "board-9", b"t" * 32, PASSPHRASE, NOW)
    assert old.serial == "board-1"
    assert numbers(authority) == [("board-1", True, [True]), ("board-9", False, [])]
    with refused("board board-9 of bridge-street has no certificate: enrol it first"):
        authority.ueid("bridge-street")
    new = Device(b"\1" + b"o" * 16, NEW_KEYS[0], NEW_KEYS[1], b"t" * 32)
    assert enrol(authority, new, "bridge-street").board.serial == "board-9"
    assert authority.ueid("bridge-street") == new.ueid


def test_a_replacement_that_cannot_be_leaves_the_old_board_in_force(authority):
    enrol(authority)
    authority.add_board("board-2", "north", "hardware", b"t" * 32, PASSPHRASE)
    for serial, secret, error in (("board-1", b"t" * 32, UsageError), ("board-2", b"t" * 32, UsageError),
                                  ("../board", b"t" * 32, UsageError), ("board-3", bytes(32), KeyRefused),
                                  ("board-3", b"t" * 31, KeyRefused)):
        with pytest.raises(error):
            authority.replace("bridge-street", serial, secret, PASSPHRASE, NOW)
    assert numbers(authority) == [("board-1", False, [False]), ("board-2", False, [])]


def test_lists_are_of_one_class_each_with_rising_numbers(authority):
    enrol(authority)
    authority.revoke("board-1", NOW)
    found = [chain.read_crl(authority.crl(class_, PASSPHRASE, NOW, days), "crl")
             for class_, days in (("hardware", 7), ("hardware", 1), ("emulated", 7))]
    assert [len(list(one)) for one in found] == [1, 1, 0]
    assert [one.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number for one in found] == [2, 3, 2]
    assert [chain.seconds(one, "next_update") - NOW for one in found] == [7 * DAY_S, DAY_S, 7 * DAY_S]
    with pytest.raises(UsageError, match="--days 32"):
        authority.crl("hardware", PASSPHRASE, NOW, 32)


# The folder.


def test_the_folder_tells_no_secret(authority):
    enrol(authority)
    secrets = [DEVICE.secret] + [authority._issuing_key(name, PASSPHRASE).private_numbers().private_value.to_bytes(
        32, "big") for name in chain.CLASSES] + [authority._open("boards", PASSPHRASE)]
    assert serialization.load_der_private_key(authority._open("root", PASSPHRASE), None)
    for name in os.listdir(authority.folder):
        path = os.path.join(authority.folder, name)
        with open(path, "rb") as file:
            content = file.read()
        assert not any(secret in content for secret in secrets), name
        assert stat.S_IMODE(os.stat(path).st_mode) == (0o640 if name.endswith((".pem", ".crl")) else 0o600)
    assert sorted(os.listdir(authority.folder)) == [
        "boards.db", "boards.key", "emulated.crl", "emulated.key", "emulated.pem", "hardware.crl", "hardware.key",
        "hardware.pem", "root.key", "root.pem"]


def test_another_passphrase_is_refused(authority):
    answer = ask(authority)
    for act in (lambda wrong: authority.enrol("board-1", answer, wrong, NOW),
                lambda wrong: authority.crl("hardware", wrong, NOW),
                lambda wrong: authority.add_board("board-2", "north", "hardware", b"t" * 32, wrong)):
        with pytest.raises(KeyRefused, match="the passphrase is another one, or the key"):
            act(PASSPHRASE + b"!")
    assert authority.enrol("board-1", answer, PASSPHRASE, NOW)


def test_one_key_file_does_not_serve_as_another(authority):
    """Both are under the one passphrase: an emulated board must not be signed for by the hardware class."""
    files = [os.path.join(authority.folder, name) for name in ("hardware.key", "emulated.key")]
    os.replace(files[0], files[1])
    with pytest.raises(KeyRefused, match="emulated.key: not a key of a certification authority"):
        authority.crl("emulated", PASSPHRASE, NOW)
    with open(files[1], "rb") as file:
        secret = sealed.take_apart(certificates.MAGIC, file.read(), "", "", lambda _: True).open(PASSPHRASE, "", "")
    with open(files[1], "wb") as file:
        file.write(authority._sealed("emulated", secret, PASSPHRASE))
    with pytest.raises(KeyRefused, match="is not the key of emulated.pem"):
        authority.crl("emulated", PASSPHRASE, NOW)


def test_the_roots_key_may_be_kept_elsewhere(authority):
    os.unlink(os.path.join(authority.folder, "root.key"))
    assert enrol(authority) and authority.crl("hardware", PASSPHRASE, NOW)


def test_an_authority_is_never_written_over(authority):
    with pytest.raises(KeyRefused, match="is not empty: keys are not written over"):
        authority.create("Testing", PASSPHRASE, NOW)


@pytest.mark.parametrize("stride", [5, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("empty", [False, True], ids=["new", "empty"])
def test_an_authority_is_there_whole_or_can_be_begun_again_wherever_its_making_is_killed(tmp_path, empty, stride):
    whole, step, ended = 0, 0, False
    while not ended:
        step += stride
        folder = tmp_path / str(step) / "ca"
        folder.parent.mkdir()
        if empty:
            folder.mkdir(0o750)
        ended = ends_although_killed(step, lambda: Authority(str(folder), CHEAP).create("Testing", PASSPHRASE, NOW))
        made = Authority(str(folder), CHEAP)
        if folder.is_dir() and os.listdir(str(folder)):
            whole += 1
            with pytest.raises(KeyRefused, match="is not empty"):
                made.create("Testing", PASSPHRASE, NOW)
        else:
            made.create("Testing", PASSPHRASE, NOW)
        made.add_board("board-1", "gate", "hardware", b"s" * 32, PASSPHRASE)
        assert made.crl("hardware", PASSPHRASE, NOW) and made.certificate("root")
        assert stat.S_IMODE(folder.stat().st_mode) == (0o750 if empty else 0o700)
    assert step > 100 and whole > 1  # the end, and at least once after the folder was there


def test_an_authority_that_cannot_be_written_leaves_nothing(tmp_path, monkeypatch):
    def fails(path):
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(certificates.boards, "create", fails)
    with pytest.raises(OSError, match="no space"):
        Authority(str(tmp_path / "deep" / "ca"), CHEAP).create("Testing", PASSPHRASE, NOW)
    assert os.listdir(str(tmp_path)) == []


@pytest.mark.parametrize("city", ["", "a" * 33, "a/b", "-a", "a\n", "ä"])
def test_a_city_has_a_plain_name(tmp_path, city):
    with pytest.raises(UsageError, match="--city"):
        Authority(str(tmp_path / "ca"), CHEAP).create(city, PASSPHRASE, NOW)


def test_boards_have_names_and_stand_for_one_node_each(authority):
    for serial, node, class_ in (("", "n", "hardware"), ("a b", "n", "hardware"), ("s", "N", "hardware"),
                                 ("s", "n", "Hardware"), ("board-1", "n", "hardware"),
                                 ("s", "bridge-street", "hardware")):
        with pytest.raises(UsageError):
            authority.add_board(serial, node, class_, b"t" * 32, PASSPHRASE)
    for which in ("board-7", "nobody", ""):
        with pytest.raises(UsageError, match="no board in force has this serial number or node name"):
            authority.challenge(which, NOW)


def test_a_station_secret_that_was_moved_to_another_board_does_not_open(authority):
    authority.add_board("board-2", "north", "hardware", b"t" * 32, PASSPHRASE)
    database = sqlite3.connect(os.path.join(authority.folder, certificates.INDEX))
    database.execute("UPDATE boards SET secret = (SELECT secret FROM boards WHERE serial = 'board-1')")
    database.commit()
    database.close()
    with pytest.raises(KeyRefused, match="the station secret of board board-2 does not open"):
        enrol(authority, which="board-2")


def test_an_index_that_is_none_is_refused(authority):
    path = os.path.join(authority.folder, certificates.INDEX)
    with open(path, "wb") as file:
        file.write(b"no database at all" * 100)
    with pytest.raises(PackageError, match="boards.db"):
        authority.list()
    os.unlink(path)
    with pytest.raises(MissingInput, match="`edged-city ca init`"):
        authority.list()
    with open(path, "wb"):
        pass
    with pytest.raises(PackageError, match="not an index of this edged"):
        authority.list()


def test_nothing_is_kept_of_what_fails(authority):
    path = os.path.join(authority.folder, certificates.INDEX)
    with pytest.raises(RuntimeError):
        with boards.changing(path) as index:
            index.revoke("board-1", NOW)
            raise RuntimeError
    assert numbers(authority) == [("board-1", False, [])]


def test_a_chain_file_is_read_back(office, tmp_path):
    path = tmp_path / "chain.pem"
    path.write_bytes(chain.pem(chain.read_certificate(one, "") for one in office.chains["hardware"]))
    assert tuple(chain.der(one) for one in certificates.read_certificates(str(path))) == office.chains["hardware"]
    path.write_bytes(b"nothing")
    with pytest.raises(PackageError, match="no certificate in PEM"):
        certificates.read_certificates(str(path))
