"""A device's certificate says in time that it ends: to who checks, who asks, who reads the log; clocks in our hands."""

import json
import re
import time

import pytest

from edged import check, config, edgectl, status
from edged.enclave.certified import Watch
from edged.enclave.key import KeyClient
from edged.enclave.keystore import KeyStore
from edged.errors import EnclaveError
from edged.offload import daemon as bridge
from edged.trust.chain import DAY_S, DEVICE_DAYS
from test_check import node, site  # noqa: F401
from test_identity import Device
from test_keystore import city, configured, enrolled  # noqa: F401
from test_slots import Running

WAY = ("ca challenge", "scripts/enrol --challenge", "ca enrol --again", "scripts/enrol --chain")


@pytest.fixture(scope="module")
def chain_file(tmp_path_factory):
    """(a certificate of two years from a true enrolment, its end)"""
    folder = tmp_path_factory.mktemp("enrolled")
    with Device() as running:
        running.key.close()
        authority = city.__wrapped__(folder)
        enrolled(running, authority, folder)
        running.key = KeyClient(running.enclave.connect_key())
        return (running.folder / "identity.chain").read_bytes(), authority[1] + DEVICE_DAYS * DAY_S


@pytest.fixture
def at(monkeypatch, chain_file):
    """Have this machine's clock show so many seconds before the certificate's end."""
    def move(left_s):
        monkeypatch.setattr(time, "time", lambda: chain_file[1] - left_s)
    return move


def put(folder, chain_file):
    folder.mkdir(exist_ok=True, parents=True)
    (folder / "identity.chain").write_bytes(chain_file[0])


ENDS = [(31 * DAY_S, None), (30 * DAY_S, "ends at .*, in 30 days"), (DAY_S - 1, "in less than a day"),
        (0, "ended at "), (-DAY_S, "ended at ")]


@pytest.mark.parametrize("left_s, says", ENDS)
def test_config_check_warns_of_the_end_and_then_names_it(node, chain_file, at, left_s, says):  # noqa: F811
    loaded = config.load(str(node / "edged.toml"))
    put(loaded.key_folder, chain_file)
    at(left_s)
    found, warned = ([str(one) for one in list_ if "certificate" in str(one)]
                     for list_ in (check.findings(loaded), check.warnings(loaded)))
    assert len(found) == (left_s <= 0) and len(warned) == (0 < left_s <= 30 * DAY_S)
    said = (found + warned or [""])[0]
    assert not said or ": enclave.at: " in said and all(step in said for step in WAY)
    assert_says(said, says)


def assert_says(said, says):
    assert re.search(says, said) if says else said == ""


@pytest.mark.parametrize("left_s, says", ENDS)
def test_status_shows_it_and_ends_with_69_once_it_is_over(tmp_path, chain_file, at, left_s, says):
    loaded = configured(tmp_path)
    put(tmp_path, chain_file)
    at(left_s)
    shown, missing = status.report(loaded)
    over = [one for one in missing if "certificate" in str(one)]
    assert len(over) == (left_s <= 0) and all(isinstance(one, EnclaveError) for one in over)
    assert (says is None) == ("edged-city ca enrol --again" not in shown["certificate"])
    if says is None:
        assert shown["certificate"].startswith("ends at ") and shown["certificate"].endswith("in 31 days")
    else:
        assert_says(shown["certificate"], says)


def test_a_node_without_a_certificate_has_nothing_to_say_of_it(tmp_path):
    shown, missing = status.report(configured(tmp_path))
    assert shown["certificate"] is None and not [one for one in missing if "certificate" in str(one)]
    (tmp_path / "identity.chain").write_bytes(b"no certificate")
    assert [one for one in status.report(configured(tmp_path))[1] if "identity.chain: no certificate" in str(one)]


@pytest.mark.parametrize("left_s, says", ENDS)
def test_identity_show_says_it_beside_what_it_prints(chain_file, at, capsys, left_s, says):
    with Device() as running:
        running.key.close()
        put(running.folder, chain_file)
        at(left_s)
        assert edgectl.main(["identity", "show", "--at", str(running.folder)]) == 0
        said = capsys.readouterr()
        assert json.loads(said.out)["certificate"]["until"]
        assert_says(said.err, says)
        running.key = KeyClient(running.enclave.connect_key())


def test_the_log_has_it_at_once_and_then_once_a_day(tmp_path, chain_file, monkeypatch, caplog):
    put(tmp_path, chain_file)
    begin_s, passed_s = chain_file[1] - 31 * DAY_S, [0]
    monkeypatch.setattr(time, "time", lambda: begin_s + passed_s[0])
    monkeypatch.setattr(time, "monotonic", lambda: passed_s[0])
    watch = Watch(KeyStore(tmp_path))
    said = []
    with caplog.at_level("INFO"):
        for hour in range(33 * 24):
            passed_s[0] = hour * 3600 + 1
            watch.look()
            said += [record.getMessage() for record in caplog.records]
            caplog.clear()
    ends = [line for line in said if line.startswith("certificate_ends ")]
    over = [line for line in said if line.startswith("certificate_ended ")]
    assert len(ends) == 30 and "days=29" in ends[0] and "days=0" in ends[-1] and len(over) == 2
    assert said == ends + over


def test_the_log_follows_a_certificate_that_was_renewed(tmp_path, chain_file, at, caplog):
    put(tmp_path, chain_file)
    at(DAY_S)
    watch = Watch(KeyStore(tmp_path))
    watch.LOOK_S = 0
    with caplog.at_level("INFO"):
        watch.look()
        (tmp_path / "identity.chain").write_bytes(b"half a file")
        for _ in range(2):  # said once
            watch.look()
        (tmp_path / "identity.chain").unlink()
        watch.look()
    assert [record.getMessage().split()[0] for record in caplog.records] == ["certificate_ends", "no"]


def test_the_host_ports_daemon_looks(tmp_path, chain_file, at, monkeypatch, caplog):
    at_folder = tmp_path / "e"
    put(at_folder, chain_file)
    at(DAY_S)
    monkeypatch.setattr(Running, "holds_keys", lambda self: "certificate_ends" in caplog.text)
    with caplog.at_level("INFO"):
        running = Running(configured(at_folder), monkeypatch)
    assert running.end() is None and caplog.text.count("certificate_ends") == 1


@pytest.mark.parametrize("kind, looks", [("trusty", True), ("host", False)])
def test_the_bridge_looks_where_the_files_are_its_own(tmp_path, chain_file, at, caplog, kind, looks):
    put(tmp_path, chain_file)
    at(DAY_S)
    loaded = configured(tmp_path, kind=kind, state=tmp_path)
    (tmp_path / "run").mkdir()
    made = bridge.Daemon(loaded, bridge.Papers(None, {}, {}), None, None, None, None)
    with caplog.at_level("INFO"):
        made._remind()
    assert ("certificate_ends" in caplog.text) == looks
