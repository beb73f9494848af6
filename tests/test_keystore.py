"""The node's side of identity and grants: who hands the files back, and what edgectl does with a configuration."""

import hashlib
import json
import os
import threading
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from attacks.node import MODEL_SLOT
from edged import artifacts, config, edgectl, status
from edged.enclave import keystore, wire
from edged.enclave.key import KeyClient
from edged.enclave.wire import KeyKind, Status
from edged.errors import EnclaveError, KeyRefused
from edged.offload.link import KEY_WAIT_S, Link
from edged.trust import chain, evidence
from edged.trust.certificates import Authority
from edged.trust.chain import EMULATED
from edged.trust.evidence import Expected, Policy
from edged.trust.reference import References, Version
from granting import GrantedNode
from test_identity import STATION_SECRET, Device
from test_slots import Running, write


@pytest.fixture
def node():
    with GrantedNode() as running:
        running.key.close()
        yield running


def configured(at, keys=None, kind="host", state=Path("/nowhere")):
    return config.Config(
        Path(str(at)) / "edged.toml", config.Node("n1", state, Path(str(at)) / "run", "text"),
        config.Enclave(kind, str(at), keys, Path("p"), (), "masked", "message"),
        config.Accelerator("cpu", None, 0), (), config.Outbox(Path("k"), 1, 65536, 1), ())


def test_the_daemon_hands_identity_and_grants_back_and_fills_the_other_slots(node, tmp_path, monkeypatch, caplog):
    node.enclave.stop()
    with caplog.at_level("INFO"):
        slots = write(tmp_path, [(15, "alert", "a.key", "33" * 16, "bb" * 32)], [16])
        running = Running(configured(node.folder, slots), monkeypatch)
    with keystore_client(node.folder) as key:
        kinds = key.info().kinds
    assert kinds[MODEL_SLOT] == KeyKind.MODEL and kinds[15] == KeyKind.ALERT
    assert "grants_restored changes=5" in caplog.text
    assert running.end() is None


def test_the_daemon_needs_no_keys_in_clear(node, monkeypatch):
    node.enclave.stop()
    monkeypatch.setattr(Running, "holds_keys", lambda self: holds(node.folder))
    running = Running(configured(node.folder), monkeypatch)
    assert running.end() is None


def test_a_key_in_clear_for_a_granted_slot_ends_the_daemon(node, tmp_path, monkeypatch):
    node.enclave.stop()
    running = Running(configured(node.folder, write(tmp_path, [(0, "model", "m.key", "11" * 16, "aa" * 32)], [32])),
                      monkeypatch)
    assert isinstance(running.error, EnclaveError) and running.error.status == Status.KEY
    assert "holds a granted key" in str(running.error)


def test_a_state_that_is_refused_ends_the_daemon(node, monkeypatch):
    node.enclave.stop()
    sealed = bytearray(node.store.state.read_bytes())
    sealed[100] ^= 1
    node.store.state.write_bytes(sealed)
    running = Running(configured(node.folder), monkeypatch)
    assert isinstance(running.error, EnclaveError) and running.error.status == Status.STATE
    assert "key-state.sealed: refused" in str(running.error)


def holds(folder):
    try:
        with keystore_client(folder) as key:
            return key.info().kinds[MODEL_SLOT] == KeyKind.MODEL
    except EnclaveError:
        return False


def keystore_client(folder):
    return closing(keystore.connect(str(folder)))


def test_the_bridge_hands_them_back_to_a_trusty_enclave(node, tmp_path):
    """There `edged enclave` does not run. The folder stands for the device."""
    for path in (node.store.identity, node.store.state):
        os.rename(str(path), str(tmp_path / path.name))
    node.enclave.restart_key()
    link = object.__new__(Link)
    link._config = configured(node.folder, kind="trusty", state=tmp_path)
    for _ in range(2):  # at each connection
        assert link.slots()[MODEL_SLOT].kind == KeyKind.MODEL
    link._config = configured(node.folder, state=tmp_path)
    node.enclave.restart_key()
    assert not any(slot.kind for slot in link.slots()), "of an emulated one the files are not its own"


def test_the_bridge_waits_its_turn_at_the_port_but_not_long(node):
    link = object.__new__(Link)
    link._config = configured(node.folder)
    for leaves_s in (0.1, 60.0):
        holder = KeyClient(node.enclave.connect_key())
        holder.info()
        leaves = threading.Timer(leaves_s, holder.close)
        leaves.start()
        begin_s = time.monotonic()
        if leaves_s < KEY_WAIT_S:
            assert link.slots()
        else:
            with pytest.raises(EnclaveError, match="busy"):
                link.slots()
        assert time.monotonic() - begin_s < 5 * KEY_WAIT_S
        leaves.cancel()
        holder.close()


def test_waiting_for_the_port_ends(node, monkeypatch):
    monkeypatch.setattr(keystore, "WAIT_S", 0.2)
    holder = KeyClient(node.enclave.connect_key())
    holder.info()
    with pytest.raises(EnclaveError, match="busy"):
        keystore.connect(str(node.folder))
    asked = []
    with pytest.raises(EnclaveError, match="busy"):
        keystore.connect(str(node.folder), stopped=lambda: asked.append(time.monotonic()) or True)
    assert len(asked) == 1
    holder.close()


def test_files_of_another_size_are_refused_by_name(node):
    node.enclave.restart_key()
    with keystore_client(node.folder) as key:
        for path in (node.store.identity, node.store.state):
            right = path.read_bytes()
            for wrong in (right + b"\0", right[:100], b""):
                path.write_bytes(wrong)
                said = path.name + ": refused: it has .*identity new --again"
                with pytest.raises(EnclaveError, match=said) as caught:
                    node.store.bring_back(key)
                assert caught.value.exit_code == 69
            path.write_bytes(right)
        assert node.store.bring_back(key)


@pytest.mark.parametrize("name", ["key-state.sealed", "identity.sealed"])
def test_a_sealed_file_that_is_missing_is_told_by_everything_that_starts_with_it(node, tmp_path, monkeypatch, capsys,
                                                                                 name):
    """The other one is there: what was drawn or granted last is not on this disk."""
    (node.folder / name).rename(tmp_path / "moved")
    at = ["--at", str(node.folder)]
    for call in (["identity", "show"], ["attest", "--nonce", "00" * 32, "--out", str(tmp_path / "e")],
                 ["clear-slot", "0"], ["identity", "request", "--challenge", "11" * 32, "--out", str(tmp_path / "r")]):
        node.enclave.restart_key()
        for _ in range(2):  # without its state the identity is open the second time
            assert edgectl.main(call + at) == 69
            said = capsys.readouterr()
            assert said.out == "" and said.err.count("\n") == 1
            assert name + ": is missing" in said.err and "edgectl identity new --again" in said.err
    assert not [name for name in ("e", "r") if (tmp_path / name).exists()]
    loaded = configured(node.folder)
    assert name + ": is missing" in status_of(loaded)
    node.enclave.stop()
    running = Running(loaded, monkeypatch)
    assert isinstance(running.error, EnclaveError) and name + ": is missing" in str(running.error)
    (tmp_path / "moved").rename(node.folder / name)
    assert name not in status_of(loaded)


def status_of(loaded):
    return "\n".join(map(str, status.report(loaded)[1]))


def test_the_bridge_of_a_trusty_enclave_names_an_identity_that_is_missing(node, tmp_path):
    node.store.state.rename(tmp_path / "key-state.sealed")
    node.enclave.restart_key()
    link = object.__new__(Link)
    link._config = configured(node.folder, kind="trusty", state=tmp_path)
    with pytest.raises(EnclaveError, match="identity.sealed: is missing"):
        link.slots()


def test_a_lost_identity_is_not_drawn_over_and_a_copy_of_any_age_brings_all_back(node, tmp_path, capsys):
    copy = node.store.identity.read_bytes()
    with keystore_client(node.folder) as key:
        node.store.install(key, node.grant(9))
    node.store.identity.unlink()
    at, state = ["--at", str(node.folder)], node.store.state.read_bytes()
    for _ in range(2):  # while it is open, and after a start
        assert edgectl.main(["identity", "new"] + at) == 77
        assert "identity.sealed: is missing" in capsys.readouterr().err
        assert not node.store.identity.exists() and node.store.state.read_bytes() == state
        node.enclave.restart_key()
    node.store.identity.write_bytes(copy)
    with keystore_client(node.folder) as key:
        assert node.store.bring_back(key) and key.info().kinds[9] == KeyKind.MODEL


def test_an_identity_whose_file_goes_while_it_is_open_is_named_and_goes_on(node, capsys):
    node.store.identity.unlink()
    assert edgectl.main(["identity", "show", "--at", str(node.folder)]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["device"] and "identity.sealed: is missing" in said.err
    with keystore_client(node.folder) as key:
        node.store.install(key, node.grant(9))
        assert key.info().kinds[9] == KeyKind.MODEL


def test_what_was_moved_aside_while_the_identity_is_open_does_not_come_back_in_part(node):
    """The application still knows the state, and would have it written; alone it would look like a lost identity."""
    node.store.set_aside()
    with keystore_client(node.folder) as key:
        assert node.store.bring_back(key)
    assert not node.store.state.exists() and node.store.lost() is None


def test_a_chain_that_is_missing_is_named_by_what_wants_it(city, tmp_path, capsys):
    """Of the store's own file, `counter`, test_grant.py has the same."""
    with Device() as running:
        running.key.close()
        enrolled(running, city, tmp_path)
        (running.folder / "identity.chain").unlink()
        running.enclave.restart_key()
        capsys.readouterr()
        at = ["--at", str(running.folder)]
        assert edgectl.main(["attest", "--nonce", "00" * 32, "--out", str(tmp_path / "e")] + at) == 0
        assert "identity.chain is missing, as edged-city ca enrol writes it" in capsys.readouterr().out
        assert edgectl.main(["report", "--server", "127.0.0.1:1", "--ca", "none"] + at) == 66
        assert "identity.chain: is missing, as edged-city ca enrol writes it" in capsys.readouterr().err
        running.key = KeyClient(running.enclave.connect_key())


@pytest.mark.parametrize("name", ["key-state.sealed", "identity.sealed"])
@pytest.mark.parametrize("lose", [lambda path: path.unlink(), lambda path: path.write_bytes(b"\0" * 100)])
def test_a_lost_file_has_a_way_back_to_certificate_and_grants(city, tmp_path, capsys, lose, name):
    authority, now_s = city
    with Device() as running:
        running.key.close()
        enrolled(running, city, tmp_path)
        at = ["--at", str(running.folder)]
        lose(running.folder / name)
        running.enclave.restart_key()
        assert edgectl.main(["identity", "new"] + at) == 77
        assert "--again" in capsys.readouterr().err
        assert edgectl.main(["identity", "new", "--again"] + at) == 0
        said = capsys.readouterr().out
        assert "scripts/enrol" in said and "ca enrol --again" in said and "fetch-grants" in said
        aside = sorted(path.name.rpartition(".2")[0] for path in running.folder.iterdir() if ".sealed.2" in path.name
                       or ".chain.2" in path.name)
        assert set(aside) <= {"identity.sealed", "key-state.sealed", "identity.chain"} and "identity.chain" in aside
        made = enrolled(running, city, tmp_path, again=True)
        assert edgectl.main(["attest", "--nonce", "00" * 32, "--out", str(tmp_path / "e")] + at) == 0
        running.enclave.restart_key()
        capsys.readouterr()
        assert edgectl.main(["identity", "show"] + at) == 0
        shown = json.loads(capsys.readouterr().out)
        assert shown["ueid"] == made.ueid.hex() and shown["certificate"]["serial"]
        running.key = KeyClient(running.enclave.connect_key())


def test_an_open_identity_is_forgotten_by_a_start_before_another_is_drawn(node, capsys):
    at = ["--at", str(node.folder)]
    assert edgectl.main(["identity", "new", "--again"] + at) == 77
    said = capsys.readouterr()
    assert "identity.sealed: is now " in said.out and "start the enclave again" in said.err
    node.enclave.restart_key()
    assert edgectl.main(["identity", "new"] + at) == 0


def test_an_identity_is_not_drawn_over_another(node):
    with keystore_client(node.folder) as key:
        with pytest.raises(KeyRefused, match="is there already"):
            node.store.draw(key)
        node.store.identity.rename(node.folder / "moved")
        with pytest.raises(KeyRefused, match="identity.sealed: is missing, and key-state.sealed, which is there"):
            node.store.draw(key)
        node.store.state.rename(node.folder / "moved too")
        with pytest.raises(KeyRefused, match="start the enclave again"):
            node.store.draw(key)


def test_a_disk_that_takes_no_file_leaves_the_change_to_be_committed(node, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with keystore_client(node.folder) as key:
        with monkeypatch.context() as patched:
            patched.setattr(keystore, "replace_file", full)
            with pytest.raises(OSError):
                node.store.install(key, node.grant(9))
        assert key.info().flags & wire.KEY_FLAG_PENDING
        assert node.store.bring_back(key)
        assert not key.info().flags & wire.KEY_FLAG_PENDING
    node.enclave.restart_key()
    with keystore_client(node.folder) as key:
        assert node.store.bring_back(key) and key.info().kinds[9] == KeyKind.MODEL


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it writes as another user")
def test_what_root_writes_belongs_to_the_folders_owner(node):
    os.chown(str(node.folder), 12345, 12346)
    with keystore_client(node.folder) as key:
        node.store.install(key, node.grant(9))
    found = node.store.state.stat()
    assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (12345, 12346, 0o600)
    os.chown(str(node.folder), 0, 0)


# edgectl, with a configuration; from the authority's challenge to evidence that is believed.


@pytest.fixture
def city(tmp_path):
    authority, now_s = Authority(str(tmp_path / "ca")), int(time.time())
    authority.create("testville", b"a passphrase of a test", now_s)
    authority.add_board("0001", "north", EMULATED, STATION_SECRET, b"a passphrase of a test")
    return authority, now_s


def enrolled(running, city, tmp_path, again=False):
    """edgectl's way from a new identity to identity.chain; again: it is drawn already, after another."""
    authority, now_s = city
    at, out = ["--at", str(running.folder)], tmp_path / ("request-again" if again else "request")
    assert again or edgectl.main(["identity", "new"] + at) == 0
    challenge = authority.challenge("0001", now_s).hex()
    assert edgectl.main(["identity", "request", "--challenge", challenge, "--out", str(out)] + at) == 0
    made = authority.enrol("0001", out.read_bytes(), b"a passphrase of a test", now_s, again)
    (running.folder / "identity.chain").write_bytes(made.chain)
    return made


def test_evidence_of_a_device_without_any_key_names_both_applications_and_is_believed(city, tmp_path, capsys):
    """Nobody grants a key before: so it must not take one to have the evaluation application in the evidence."""
    authority, now_s = city
    with Device() as running:
        running.key.close()
        made = enrolled(running, city, tmp_path)
        listed = capsys.readouterr().out.split("attestation key ")[1][:64]
        nonce, at = bytes(range(32)), ["--at", str(running.folder)]
        assert edgectl.main(["attest", "--nonce", nonce.hex(), "--out", str(tmp_path / "evidence")] + at) == 0
        assert "is not in it" not in capsys.readouterr().err
        assert edgectl.main(["identity", "show"] + at) == 0
        shown = json.loads(capsys.readouterr().out)
        assert shown["ueid"] == made.ueid.hex() and shown["certificate"]["serial"]
        assert shown["attestation_key"] == listed
        running.key = KeyClient(running.enclave.connect_key())
    measured = {name: hashlib.sha256(artifacts.find("edged-" + name).read_bytes()).digest() for name in ("key", "eval")}
    values = References(EMULATED, now_s, {name: frozenset([Version(one, 1)]) for name, one in measured.items()},
                        {"key": 1, "eval": 1})
    crl = chain.read_crl(authority.crl(EMULATED, b"a passphrase of a test", now_s), "CRL")
    verified = evidence.verify((tmp_path / "evidence").read_bytes(), Expected(nonce, now_s, made.ueid),
                               authority.certificate("root"), [crl], [values], now_s, Policy(
                                   True, True, True, devices=[bytes.fromhex(shown["attestation_key"])]))
    assert hashlib.sha256(verified.grant).hexdigest() == shown["device"]


def test_a_device_without_a_station_secret_or_an_identity_shows_no_attestation_key(capsys):
    with Device(station=None) as running:
        running.key.close()
        at = ["--at", str(running.folder)]
        for _ in range(2):
            assert edgectl.main(["identity", "show"] + at) == 0
            assert json.loads(capsys.readouterr().out)["attestation_key"] is None, "nobody could certify it"
            edgectl.main(["identity", "new"] + at)
            capsys.readouterr()
        running.key = KeyClient(running.enclave.connect_key())


def test_attest_says_where_the_chain_is_another_identitys(city, tmp_path, capsys):
    with Device() as running:
        running.key.close()
        enrolled(running, city, tmp_path)
        for name in ("identity.sealed", "key-state.sealed"):
            (running.folder / name).unlink()
        running.enclave.restart_key()
        at = ["--at", str(running.folder)]
        assert edgectl.main(["identity", "new"] + at) == 0
        assert edgectl.main(["attest", "--nonce", "00" * 16, "--out", str(tmp_path / "e")] + at) == 76
        assert "identity.chain: its certificate is of another identity" in capsys.readouterr().err
        (running.folder / "identity.chain").write_bytes(b"no certificate")
        assert edgectl.main(["attest", "--nonce", "00" * 16, "--out", str(tmp_path / "e")] + at) == 65
        running.key = KeyClient(running.enclave.connect_key())


def test_edgectl_takes_place_and_folder_from_the_configuration(node, tmp_path, monkeypatch, capsys):
    seen, loaded = [], configured(node.folder)
    loaded = replace(loaded, enclave=replace(loaded.enclave, agreements=(node.agreement_file,)))
    monkeypatch.setattr(config, "load", lambda path: seen.append(path) or loaded)
    (tmp_path / "s").write_bytes(node.grant(9, party=Ed25519PrivateKey.generate()))
    assert edgectl.main(["install-grant", str(tmp_path / "s"), "--config", "there.toml"]) == 76
    (tmp_path / "g").write_bytes(node.grant(9))
    assert edgectl.main(["install-grant", str(tmp_path / "g"), "--config", "there.toml"]) == 0
    assert seen == ["there.toml"] * 2
    with keystore_client(node.folder) as key:
        assert key.info().kinds[9] == KeyKind.MODEL
    trusty = configured(node.folder, kind="trusty", state=tmp_path / "state")
    assert trusty.key_folder == tmp_path / "state"
