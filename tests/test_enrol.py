"""scripts/enrol on a host enclave: one step after the other, and one clear line for each mistake."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edged.trust.certificates import Authority
from edged.trust.chain import EMULATED
from edged.trust.request import fingerprint, spki_of
from test_identity import STATION_SECRET, Device

ENROL = Path(__file__).resolve().parent.parent / "scripts" / "enrol"
PASSPHRASE = b"a passphrase of a test"

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")


def enrol(*arguments, cwd=None):
    return subprocess.run([str(ENROL)] + [str(one) for one in arguments], stdout=subprocess.PIPE, cwd=cwd,
                          stderr=subprocess.PIPE, universal_newlines=True, env=dict(os.environ, PYTHON=sys.executable))


def refused(code, line, *arguments):
    done = enrol(*arguments)
    assert (done.returncode, done.stdout) == (code, ""), done
    assert done.stderr.count("\n") == 1 and line in done.stderr, done.stderr


@pytest.fixture
def city(tmp_path):
    authority = Authority(str(tmp_path / "ca"))
    authority.create("Testing", PASSPHRASE, int(time.time()))
    authority.add_board("0001", "north", EMULATED, STATION_SECRET, PASSPHRASE)
    return authority


def request(city, device, tmp_path, name="request"):
    """The chain that the city makes of a request."""
    now_s = int(time.time())
    done = enrol("--challenge", city.challenge("0001", now_s).hex(), "--request", name, "--at", device.folder,
                 cwd=str(tmp_path))
    assert done.returncode == 0 and "{}: for edged-city ca enrol".format(tmp_path / name) in done.stdout, done
    seen = done.stdout.split("attestation key ")[1][:64]
    chain = tmp_path / (name + ".chain")
    made = city.enrol("0001", (tmp_path / name).read_bytes(), PASSPHRASE, now_s, True)
    assert fingerprint(spki_of(made.certificate.public_key())).hex() == seen, "what the technician reads is its key"
    chain.write_bytes(made.chain)
    return chain


def test_a_technician_enrols_a_node(city, tmp_path):
    with Device() as device:
        device.key.close()
        first = request(city, device, tmp_path)
        identity = (device.folder / "identity.sealed").read_bytes()
        device.enclave.restart_key()  # the script hands back what it forgot
        done = enrol("--chain", first, "--at", device.folder)
        assert done.returncode == 0, done.stderr
        shown = json.loads(done.stdout)
        assert shown["certificate"]["serial"] and len(shown["attestation_key"]) == 64
        assert (device.folder / "identity.chain").read_bytes() == first.read_bytes()
        second = request(city, device, tmp_path, "again")  # the identity stays
        assert (device.folder / "identity.sealed").read_bytes() == identity
        assert enrol("--chain", second, "--at", device.folder).returncode == 0
        assert (device.folder / "identity.chain").read_bytes() == second.read_bytes() != first.read_bytes()
        assert not [path for path in device.folder.iterdir() if ".new" in path.name]


def test_a_chain_of_another_identity_is_not_installed(city, tmp_path):
    with Device() as device:
        device.key.close()
        chain = request(city, device, tmp_path)
        (tmp_path / "leaf").write_bytes(chain.read_bytes().split(b"-----END CERTIFICATE-----\n")[0]
                                        + b"-----END CERTIFICATE-----\n")
        refused(65, "{}: has 1 certificates".format(tmp_path / "leaf"), "--chain", tmp_path / "leaf", "--at",
                device.folder)
        refused(66, "none: is missing", "--chain", tmp_path / "none", "--at", device.folder)
        for name in ("identity.sealed", "key-state.sealed"):
            (device.folder / name).unlink()
        device.enclave.restart_key()
        refused(77, "edgectl identity new", "--chain", chain, "--at", device.folder)
        request(city, device, tmp_path, "other")
        refused(76, "{}: its certificate is of another identity".format(chain), "--chain", chain, "--at", device.folder)
        assert not (device.folder / "identity.chain").exists()


def test_emulated_plays_the_flash_station_once_and_says_that_it_protects_nothing(tmp_path):
    place = tmp_path / "new" / "enclave"
    done = enrol("--emulated", "--at", place)
    secret = place / "station.secret"
    assert done.returncode == 0 and "PROTECTS NOTHING" in done.stderr and str(secret) in done.stdout
    content = secret.read_bytes()
    assert len(content) == 32 and secret.stat().st_mode & 0o777 == 0o600 and place.stat().st_mode & 0o777 == 0o700
    assert content.hex() not in done.stdout + done.stderr
    again = enrol("--emulated", "--at", place)
    assert again.returncode == 77 and "is not written over" in again.stderr.splitlines()[-1]
    assert secret.read_bytes() == content and [one.name for one in place.iterdir()] == ["station.secret"]


def test_without_a_station_secret_no_request_is_made(tmp_path):
    with Device(station=None) as device:
        device.key.close()
        done = enrol("--challenge", "11" * 32, "--request", tmp_path / "request", "--at", device.folder)
        assert done.returncode == 69 and done.stderr.count("\n") == 1, done
        assert not (tmp_path / "request").exists()


@pytest.mark.parametrize("challenge", ["zz", "11" * 31, "11" * 33, "g" * 64])
def test_a_challenge_that_is_none_draws_no_identity(tmp_path, challenge):
    with Device() as device:
        device.key.close()
        refused(2, "--challenge: ", "--challenge", challenge, "--request", tmp_path / "r", "--at", device.folder)
        assert not (device.folder / "identity.sealed").exists() and not (tmp_path / "r").exists()


@pytest.mark.parametrize("arguments", [
    (), ("--emulated", "--chain", "c"), ("--challenge", "11"), ("--request", "r"), ("--chain",), ("--other", "x"),
    ("--chain", "c", "--request", "r"), ("--chain", "c", "--at", "a", "--config", "c"), ("--chain", "c", "--keep", "k"),
    ("--emulated", "--at", "/dev/null")])
def test_a_call_that_makes_no_sense_is_one_line_and_exit_2(arguments):
    refused(2, "enrol: ", *arguments)


def test_what_is_wrong_elsewhere_is_one_line(tmp_path):
    refused(66, "none.toml", "--chain", "c", "--config", tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("schema = 1\nnodes = 1\n")
    refused(78, "bad.toml:2", "--chain", "c", "--config", tmp_path / "bad.toml")
    refused(69, "edged enclave --dir", "--challenge", "11" * 32, "--request", tmp_path / "r", "--at", tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone writes for others")
def test_root_writes_through_no_link_of_the_folders_owner(tmp_path):
    """Whoever owns the folder may guess names in it."""
    place, own = tmp_path / "place", tmp_path / "roots.own"
    place.mkdir()
    own.write_bytes(b"root's own")
    own.chmod(0o600)
    for number in range(os.getpid(), os.getpid() + 400):
        for name in ("station.secret.new-{}", ".station.secret.new-{}"):
            (place / name.format(number)).symlink_to(own)
    os.chown(str(place), 12345, 12345)
    subprocess.run([str(ENROL), "--emulated", "--at", str(place)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert own.read_bytes() == b"root's own" and own.stat().st_uid == 0
