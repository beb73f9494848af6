"""The node's side of identity and grants: who hands the files back, and what edgectl does with a configuration."""

import hashlib
import json
import os
import time
from contextlib import closing
from pathlib import Path

import pytest

from attacks.node import MODEL_SLOT
from edged import artifacts, config, edgectl
from edged.enclave import keystore, wire
from edged.enclave.client import KeyClient
from edged.enclave.wire import KeyKind, Status
from edged.errors import EnclaveError, KeyRefused, PackageError
from edged.offload.link import Link
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
        assert link._slot_kinds()[MODEL_SLOT] == KeyKind.MODEL
    link._config = configured(node.folder, state=tmp_path)
    node.enclave.restart_key()
    assert link._slot_kinds() == bytes(16), "of an emulated one the files are not its own"


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
            path.write_bytes(right + b"\0")
            with pytest.raises(PackageError, match=path.name):
                node.store.bring_back(key)
            path.write_bytes(right)
        assert node.store.bring_back(key)


def test_an_identity_is_not_drawn_over_another(node):
    with keystore_client(node.folder) as key:
        with pytest.raises(KeyRefused, match="is there already"):
            node.store.draw(key)
        node.store.identity.rename(node.folder / "moved")
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


def enrolled(running, city, tmp_path):
    """edgectl's way from a new identity to identity.chain."""
    authority, now_s = city
    at = ["--at", str(running.folder)]
    assert edgectl.main(["identity", "new"] + at) == 0
    challenge = authority.challenge("0001", now_s).hex()
    assert edgectl.main(["identity", "request", "--challenge", challenge, "--out", str(tmp_path / "request")] + at) == 0
    made = authority.enrol("0001", (tmp_path / "request").read_bytes(), b"a passphrase of a test", now_s)
    (running.folder / "identity.chain").write_bytes(made.chain)
    return made


def test_evidence_of_a_device_without_any_key_names_both_applications_and_is_believed(city, tmp_path, capsys):
    """Nobody grants a key before: so it must not take one to have the evaluation application in the evidence."""
    authority, now_s = city
    with Device() as running:
        running.key.close()
        made = enrolled(running, city, tmp_path)
        nonce, at = bytes(range(32)), ["--at", str(running.folder)]
        assert edgectl.main(["attest", "--nonce", nonce.hex(), "--out", str(tmp_path / "evidence")] + at) == 0
        assert "is not in it" not in capsys.readouterr().err
        assert edgectl.main(["identity", "show"] + at) == 0
        shown = json.loads(capsys.readouterr().out)
        assert shown["ueid"] == made.ueid.hex() and shown["certificate"]["serial"]
        running.key = KeyClient(running.enclave.connect_key())
    measured = {name: hashlib.sha256(artifacts.find("edged-" + name).read_bytes()).digest() for name in ("key", "eval")}
    values = References(EMULATED, now_s, {name: frozenset([Version(one, 1)]) for name, one in measured.items()},
                        {"key": 1, "eval": 1})
    crl = chain.read_crl(authority.crl(EMULATED, b"a passphrase of a test", now_s), "CRL")
    verified = evidence.verify((tmp_path / "evidence").read_bytes(), Expected(nonce, now_s, made.ueid),
                               authority.certificate("root"), [crl], [values], now_s, Policy(True, True, True))
    assert hashlib.sha256(verified.grant).hexdigest() == shown["device"]


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
    seen = []
    monkeypatch.setattr(config, "load", lambda path: seen.append(path) or configured(node.folder))
    (tmp_path / "g").write_bytes(node.grant(9))
    assert edgectl.main(["install-grant", str(tmp_path / "g"), "--config", "there.toml"]) == 0
    assert seen == ["there.toml"]
    with keystore_client(node.folder) as key:
        assert key.info().kinds[9] == KeyKind.MODEL
    trusty = configured(node.folder, kind="trusty", state=tmp_path / "state")
    assert trusty.key_folder == tmp_path / "state"
