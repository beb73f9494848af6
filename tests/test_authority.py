"""`edged-city ca`, `nonce`, `verify` and `sign-reference` as they are typed: nothing secret is shown, errors are one
line with their exit code."""

import hashlib
import json
import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from c import build
from edged import authority, city, owner
from edged.alerts import keys, nodes
from edged.bus import generate_keys
from edged.trust import certificates, chain, evidence, keyring, reference
from edged.trust.measure import main as measure
from evidence_cases import CHEAP, KEYS, NONCE, REFERENCES, Device, changed, raw_public, seen

ROOT = Path(__file__).resolve().parent.parent
PASSPHRASE = "correct horse battery"


def private(path, content):
    path.write_bytes(content)
    path.chmod(0o600)
    return str(path)


@pytest.fixture
def desk(tmp_path, monkeypatch, capsys):
    """A city's folder, the current one, with an authority in ./ca; run(program, ...) gives (code, out, err)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(authority, "Authority", lambda folder: certificates.Authority(folder, CHEAP))
    keys.make_keys(str(tmp_path / "city"))
    private(tmp_path / "words", PASSPHRASE.encode())
    private(tmp_path / "station.secret", Device().secret)

    def run(program, *arguments):
        code = program.main([str(one) for one in arguments])
        said = capsys.readouterr()
        for secret in (PASSPHRASE, Device().secret.hex(), Device().secret.decode()):
            assert secret not in said.out + said.err
        return code, said.out, said.err

    run.folder = tmp_path
    assert run(city, "ca", "init", "--city", "Testing", "--passphrase-file", "words")[0] == 0
    return run


def nodes_file(desk):
    """The subscriber's list, beside the authority's folder."""
    (desk.folder / nodes.FILE).touch()
    return nodes.FILE


def enrol(desk, device=Device(), node="bridge-street", *more):
    words = ("--passphrase-file", "words")
    if not more:
        assert desk(city, "ca", "board", "board-1", "--node", node, "--secret-file", "station.secret", *words,
                    *(["--emulated"] if device.emulated else []))[0] == 0
    code, challenge, _ = desk(city, "ca", "challenge", node)
    assert code == 0
    (desk.folder / "request").write_bytes(device.request(bytes.fromhex(challenge)))
    return desk(city, "ca", "enrol", node, "--request", "request", "--out", "chain.pem", *words, *more)


def attest(desk, device=Device(), **changes):
    """Draws a nonce and answers it with evidence; the signed reference values lie beside it."""
    code, nonce, _ = desk(owner, "nonce", "nonce")
    assert code == 0
    claims = changed(device.claims(bytes.fromhex(nonce)), **changes)
    (desk.folder / "evidence").write_bytes(device.attests(claims, [
        chain.der(one) for one in certificates.read_certificates("chain.pem")]))
    if not os.path.exists("signed"):
        (desk.folder / "values").write_bytes(REFERENCES["emulated" if device.emulated else "hardware"].encode())
        assert desk(city, "sign-reference", "values", "--dir", "city", "--out", "signed")[0] == 0
    assert desk(city, "ca", "crl", "--passphrase-file", "words")[0] == 0


def terms():
    return ("--nonce", "nonce", "--reference", "signed", "--signer", keys.read_public("city").qdo.hex(),
            "--device", seen(Device().attest).hex())


FILES = ("--root", "ca/root.pem", "--crl", "ca/hardware.crl")


def test_a_board_is_enrolled_and_its_evidence_verified_by_both_parties(desk):
    code, out, err = enrol(desk)
    assert (code, err) == (0, "") and "board board-1 is bridge-street, device " + Device().ueid.hex() in out
    for program, where in ((city, ("--dir", "ca", "--node", "bridge-street")), (owner, FILES),
                           (owner, FILES + ("--ueid", Device().ueid.hex()))):
        attest(desk)
        code, out, err = desk(program, "verify", "evidence", *terms(), *where)
        assert (code, err) == (0, "")
        assert json.loads(out)["class"] == "hardware" and json.loads(out)["ueid"] == Device().ueid.hex()
        assert not os.path.exists("nonce")


def test_a_device_that_was_not_seen_is_refused_unless_the_authority_is_trusted(desk):
    enrol(desk)
    attest(desk)
    who, listed = terms()[:-2], seen(Device().attest).hex()
    for devices in ((), ("--device", "0a" * 32)):
        code, out, err = desk(owner, "verify", "evidence", *who, *devices, *FILES)
        assert (code, out) == (76, "") and "attestation key {} is not listed".format(listed) in err
        assert err.count("\n") == 1 and "--device" in err
    code, out, _ = desk(owner, "verify", "evidence", *who, "--device", "0a" * 32, "--device", listed, *FILES)
    assert code == 0 and json.loads(out)["attestation_key"] == listed
    attest(desk)
    assert desk(owner, "verify", "evidence", *who, "--trust-authority", *FILES)[0] == 0
    attest(desk)
    code, _, err = desk(owner, "verify", "evidence", *who, "--device", "zz", *FILES)
    assert code == 2 and "--device zz: 64 digits" in err


def test_a_nonce_serves_once(desk):
    enrol(desk)
    attest(desk)
    assert desk(owner, "verify", "evidence", *terms(), *FILES)[0] == 0
    code, _, err = desk(owner, "verify", "evidence", *terms(), *FILES)
    assert code == 66 and "evidence that was taken uses it up" in err and err.count("\n") == 1


def test_what_is_refused_says_why_in_one_line_and_leaves_the_nonce(desk):
    enrol(desk)
    attest(desk, oemboot=False)
    code, out, err = desk(owner, "verify", "evidence", *terms(), *FILES)
    assert (code, out) == (76, "") and err.startswith("edged-owner: the board is not fused") and err.count("\n") == 1
    assert desk(owner, "verify", "evidence", *terms(), *FILES, "--allow-unfused")[0] == 0


def test_evidence_to_another_nonce_or_a_stale_one_is_refused(desk):
    enrol(desk)
    attest(desk)
    private(desk.folder / "nonce", json.dumps({"nonce": NONCE.hex(), "issued": int(time.time())}).encode())
    code, _, err = desk(owner, "verify", "evidence", *terms(), *FILES)
    assert code == 76 and "answers another nonce" in err
    os.unlink("nonce")
    attest(desk)
    found = json.loads((desk.folder / "nonce").read_text())
    private(desk.folder / "nonce", json.dumps(dict(found, issued=found["issued"] - 400)).encode())
    code, _, err = desk(owner, "verify", "evidence", *terms(), *FILES)
    assert code == 76 and "evidence is stale" in err
    assert desk(owner, "verify", "evidence", *terms(), *FILES, "--max-age", "500")[0] == 0


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"\xff", b'{"nonce": "00", "issued": 1}',
                                     b'{"nonce": "' + b"0" * 64 + b'", "issued": "1"}'])
def test_a_nonce_file_that_is_none_is_bad_data(desk, content):
    private(desk.folder / "nonce", content)
    (desk.folder / "signed").write_bytes(b"")
    code, _, err = desk(owner, "verify", "nonce", *terms(), *FILES)
    assert code == 65 and "nonce: not a nonce" in err


def test_an_emulated_device_passes_only_where_each_thing_is_allowed(desk):
    device = Device(emulated=True)
    assert enrol(desk, device)[0] == 0
    attest(desk, device, oemboot=False, dbgstat=0)
    allow = ("--allow-emulated", "--allow-debug", "--allow-unfused")
    for missing in allow:
        others = [one for one in allow if one != missing]
        code, _, err = desk(city, "verify", "evidence", *terms(), "--dir", "ca", *others)
        assert code == 76 and missing in err
    code, out, err = desk(city, "verify", "evidence", *terms(), "--dir", "ca", *allow)
    assert code == 0 and json.loads(out)["class"] == "emulated" and "EMULATED: it protects nothing" in err


def test_a_revoked_board_is_refused_after_the_next_list(desk):
    enrol(desk)
    attest(desk)
    assert desk(city, "ca", "revoke", "bridge-street", "--reason", "stolen")[0] == 0
    code, _, err = desk(city, "verify", "evidence", *terms(), "--dir", "ca", "--node", "bridge-street")
    assert code == 2 and "no board in force" in err
    assert desk(city, "ca", "crl", "--passphrase-file", "words")[0] == 0
    code, _, err = desk(owner, "verify", "evidence", *terms(), *FILES)
    assert code == 76 and "device certificate: was revoked on" in err


def test_a_broken_board_is_replaced_with_one_command(desk):
    enrol(desk)
    private(desk.folder / "other.secret", b"t" * 32)
    code, out, _ = desk(city, "ca", "replace", "bridge-street", "--serial", "board-2", "--secret-file", "other.secret",
                        "--passphrase-file", "words")
    assert code == 0 and "board board-1 is revoked, board-2 is expected as bridge-street" in out
    assert "ca/hardware.crl" in out and "edged-city ca enrol" in out
    listed = json.loads(desk(city, "ca", "list")[1])
    assert [(one["serial"], one["revoked"] is None) for one in listed] == [("board-1", False), ("board-2", True)]


def test_a_replacement_is_in_the_lists_and_pins_the_new_board_as_it_is_enrolled(desk):
    """The records of the old board's thief come under the node's name and key, from another enclave."""
    nodes.write_nodes(nodes_file(desk), [nodes.Listed("bridge-street", generate_keys().public.decode(), None, False)])
    assert enrol(desk)[0] == 0
    attest(desk)
    assert [one.node for one in nodes.read_nodes("nodes.toml")] == [Device().ueid[1:]]
    private(desk.folder / "station.secret", b"t" * 32)
    assert desk(city, "ca", "replace", "bridge-street", "--serial", "board-2", "--secret-file", "station.secret",
                "--passphrase-file", "words")[0] == 0
    code, _, err = desk(owner, "verify", "evidence", *terms(), *FILES)
    assert code == 76 and "device certificate: was revoked on" in err
    os.unlink("chain.pem")
    new = Device(secret=b"t" * 32, ueid=b"\1" + b"o" * 16, attest=KEYS[2], grant=KEYS[3])
    code, out, err = enrol(desk, new, "board-2", "--node-list", "nodes.toml")
    assert code == 0, err
    assert "nodes.toml: records of bridge-street are taken of node {} alone".format(
        new.ueid[1:].hex()) in out
    assert [one.node for one in nodes.read_nodes("nodes.toml")] == [new.ueid[1:]]


def test_who_is_not_listed_yet_is_named_for_allow(desk):
    code, out, _ = enrol(desk)
    assert code == 0 and "edged-city allow bridge-street --key=Z85 --node {}".format(Device().ueid[1:].hex()) in out
    os.unlink("chain.pem")
    nodes.write_nodes(nodes_file(desk), [])
    code, out, _ = enrol(desk, Device(), "bridge-street", "--again")
    assert code == 0 and "nodes.toml: bridge-street is not listed yet: `edged-city allow" in out
    os.unlink("chain.pem")
    code, _, err = enrol(desk, Device(), "bridge-street", "--again", "--node-list", "none.toml")
    assert code == 66 and "none.toml" in err and not os.path.exists("chain.pem")


def test_the_first_lists_are_there_with_the_authority(desk):
    """Who verifies takes nobody without one."""
    code, out, _ = desk(city, "ca", "init", "--city", "Other", "--passphrase-file", "words", "--dir", "other")
    assert code == 0 and "hardware.crl and emulated.crl, which are good for 7 days" in out
    now_s, root = int(time.time()), certificates.read_certificates("other/root.pem")[0]
    for class_ in chain.CLASSES:
        found = chain.read_crl(Path("other", class_ + ".crl").read_bytes(), class_)
        assert found.issuer == certificates.read_certificates("other/{}.pem".format(class_))[0].subject
        assert not chain.aging([found], now_s) and chain.aging([found], now_s + 4 * 86400)
    assert root.subject != found.issuer


def test_an_enrolment_whose_answer_would_be_lost_does_not_begin(desk):
    assert enrol(desk)[0] == 0
    code, _, err = enrol(desk, Device(), "bridge-street", "--again")
    assert code == 2 and "chain.pem: is there already" in err
    os.unlink("chain.pem")
    assert enrol(desk, Device(), "bridge-street", "--again")[0] == 0


@pytest.mark.parametrize("arguments, code, words", [
    (("challenge", "nobody"), 2, "no board in force"), (("list", "--dir", "nowhere"), 66, "`edged-city ca init`"),
    (("crl", "--passphrase-file", "nothing"), 66, "nothing"),
    (("board", "s", "--node", "n", "--secret-file", "words", "--passphrase-file", "words"), 77, "not a key of 32 raw"),
    (("init", "--city", "X", "--passphrase-file", "words"), 77, "is not empty"),
    (("crl", "--days", "99", "--passphrase-file", "words"), 2, "--days 99"),
])
def test_errors_are_one_line_with_their_exit_code(desk, arguments, code, words):
    found, out, err = desk(city, "ca", *arguments)
    assert (found, out) == (code, "") and words in err and err.count("\n") == 1


@pytest.mark.parametrize("more, words", [
    ((), "--root: the city's root"), (("--root", "ca/root.pem", "--node", "x"), "--node: needs --dir"),
    (("--root", "ca/root.pem", "--ueid", "00"), "--ueid 00: 34 digits"),
    (("--root", "ca/root.pem", "--signer", "zz"), "--signer zz: 64 digits")])
def test_options_that_do_not_fit_are_usage(desk, more, words):
    enrol(desk)
    attest(desk)
    code, _, err = desk(city, "verify", "evidence", *terms(), *more)
    assert code == 2 and words in err


def test_the_owner_signs_reference_values_of_several_builds(desk):
    ring = keyring.generate()
    private(desk.folder / "ring", keyring.seal(ring, PASSPHRASE.encode(), CHEAP))
    (desk.folder / "one").write_bytes(REFERENCES["hardware"].encode())
    for name in ("key", "eval"):
        (desk.folder / name).write_bytes(name.encode())
    assert measure(["two", "--hardware", "--key", "aa" * 32, "--eval", "bb" * 32, "--floor", "0"]) == 0
    with_keys = ("--keys", "ring", "--passphrase-file", "words")
    code, out, _ = desk(owner, "sign-reference", "one", "two", "--out", "both", *with_keys)
    assert code == 0 and len(json.loads(out[out.index("{"):])["applications"]["key"]) == 2
    found = reference.open_references((desk.folder / "both").read_bytes(), [raw_public(ring.signing_key)])
    assert found.floors == {"key": 1, "eval": 1}
    assert stat.S_IMODE(os.stat("both").st_mode) == 0o640
    (desk.folder / "two").write_bytes(b"\0")
    code, _, err = desk(owner, "sign-reference", "one", "two", "--out", "more", *with_keys)
    assert code == 65 and "two: reference values" in err and not os.path.exists("more")


def test_a_build_is_measured_as_the_host_port_measures_itself(desk):
    for name in ("key", "eval"):
        (desk.folder / name).write_bytes(name.encode())
    assert measure(["out", "--key", "key", "--eval", "eval"]) == 0
    found = reference.read((desk.folder / "out").read_bytes())
    assert found.class_ == "emulated"
    assert {one.measurement for one in found.applications["key"]} == {hashlib.sha256(b"key").digest()}
    version = next(iter(found.applications["key"])).version
    assert found.floors == {"key": version, "eval": version}
    assert measure(["out2", "--key", "key", "--eval", "eval", "--floor", str(version + 1)]) == 2


def build_ta(path, *arguments, **environment):
    done = subprocess.run(["bash", str(ROOT / "scripts" / "build-ta"), str(path), *arguments], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, env=dict(os.environ, PYTHON=sys.executable, **environment))
    assert done.returncode == 0, done.stdout
    return reference.read(path.read_bytes())


needs_make = pytest.mark.skipif(bool(build.missing("make", "gcc", "bash")), reason="needs make, gcc and bash")


@needs_make
def test_the_script_measures_the_sources_and_the_boards_choices_for_hardware_and_compiles_nothing(tmp_path):
    plain, again, fused = (build_ta(tmp_path / name, "--hardware", *choices, CC="false") for name, choices in (
        ("a", ()), ("b", ()), ("c", ("EDGED_OEMBOOT=1", "EDGED_DBGSTAT=4"))))
    assert plain.class_ == "hardware" and plain.applications == again.applications
    for name in ("key", "eval"):
        assert not plain.applications[name] & fused.applications[name]
    assert plain.applications["key"] != plain.applications["eval"]


@needs_make
@pytest.mark.slow
def test_the_script_builds_the_host_port_twice_and_measures_it(tmp_path):
    found = build_ta(tmp_path / "values")
    for name in ("key", "eval"):
        image = (ROOT / "build" / "host" / ("edged-" + name)).read_bytes()
        assert {one.measurement for one in found.applications[name]} == {hashlib.sha256(image).digest()}


def test_the_nonce_file_is_for_its_user_alone(desk):
    code, out, _ = desk(city, "nonce", "nonce")
    assert code == 0 and len(bytes.fromhex(out)) == 32 and stat.S_IMODE(os.stat("nonce").st_mode) == 0o600
    assert evidence.NONCE_BYTES == (16, 64)
    assert desk(city, "nonce", "nonce")[0] == 77
