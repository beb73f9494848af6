"""The console commands: what they print, and the exit codes of DESIGN section 10."""

import json
import os
import signal
import subprocess
import sys

import cbor2
import numpy as np
import pytest

from edged import cli, city, edgectl, owner
from edged.emulated import MODEL_SLOT, EmulatedNode
from edged.enclave import wire
from edged.model import quantise, stgcn
from edged.offload.bridge import Bridge
from edged.offload.product import NumpyAccelerator

COMMANDS = {"edged": cli.main, "edgectl": edgectl.main, "edged-owner": owner.main, "edged-city": city.main}


@pytest.fixture(scope="module")
def small_model():
    rng = np.random.default_rng(5)
    network = stgcn.random_network(5, channels=((4, 1), (6, 2)), frames=9, joints=5, labels=3, taps=3)
    return quantise.quantise(network, [stgcn.random_clip(rng, network, 2)])


@pytest.fixture(scope="module")
def evaluated(small_model, tmp_path_factory):
    """(folder with package, record and alert key, what the record holds)"""
    folder = tmp_path_factory.mktemp("evaluated")
    with EmulatedNode(str(folder / "enclave")) as node:
        package = node.package(small_model)
        bridge = Bridge(node.eval, NumpyAccelerator())
        bridge.load(package, MODEL_SLOT, wire.Placement.MASKED)
        clip = stgcn.random_clip(np.random.default_rng(6), (9, 5), 2)
        number, sealed = node.seal(clip)
        record = bridge.evaluate(node.session, number, sealed).record
        bridge.close()
        (folder / "package").write_bytes(package)
        (folder / "record").write_bytes(record)
        (folder / "alert.key").write_bytes(node.alert_key)
        (folder / "alert.key").chmod(0o600)
        return folder, node.open(record)


def fails(capsys, code, line, main, *arguments):
    """The command ends with this code and one line on stderr that holds ``line``."""
    assert main(list(arguments)) == code
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.count("\n") == 1
    assert line in output.err


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_without_a_command_the_usage_is_shown(name, capsys):
    with pytest.raises(SystemExit) as ended:
        COMMANDS[name]([])
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("usage: " + name)


def test_inspect_prints_the_manifest(evaluated, capsys):
    folder, _ = evaluated
    assert owner.main(["inspect", str(folder / "package")]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["frames"], shown["joints"], shown["labels"]) == (9, 5, ["label000", "label001", "label002"])
    assert shown["placements"] == ["masked", "inputs", "enclave"]
    assert [layer["kind"] for layer in shown["layers"]] == [
        "input", "graph", "temporal", "graph", "residual", "temporal", "pool", "fc"]


def test_inspect_of_a_package_cut_off_ends_with_65(evaluated, tmp_path, capsys):
    folder, _ = evaluated
    (tmp_path / "cut").write_bytes((folder / "package").read_bytes()[:-1])
    fails(capsys, 65, "package", owner.main, "inspect", str(tmp_path / "cut"))


def test_inspect_of_no_file_ends_with_66(tmp_path, capsys):
    fails(capsys, 66, "No such file", owner.main, "inspect", str(tmp_path / "none"))


def test_open_record_prints_what_the_recipient_may_read(evaluated, capsys):
    folder, seen = evaluated
    assert city.main(["open-record", str(folder / "record"), "--alert-key-file", str(folder / "alert.key")]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["kind"], shown["clip"], shown["persons"]) == ("observation", 1, 2)
    assert shown["logits"] == [value / 65536 for value in seen.logits]
    assert shown["claimed_by_node"] == {"time_ns": 1, "tracks": [1, 2]}


def test_a_record_under_another_key_ends_with_76(evaluated, tmp_path, capsys):
    folder, _ = evaluated
    (tmp_path / "key").write_bytes(bytes(32))
    (tmp_path / "key").chmod(0o600)
    fails(capsys, 76, "does not open", city.main, "open-record", str(folder / "record"), "--alert-key-file",
          str(tmp_path / "key"))


def test_a_record_of_another_form_ends_with_65(evaluated, tmp_path, capsys):
    folder, _ = evaluated
    (tmp_path / "record").write_bytes(cbor2.dumps({}))
    fails(capsys, 65, "shorter than its head", city.main, "open-record", str(tmp_path / "record"),
          "--alert-key-file", str(folder / "alert.key"))


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_key_that_others_may_read_ends_with_77(evaluated, tmp_path, capsys, mode):
    folder, _ = evaluated
    (tmp_path / "key").write_bytes(bytes(32))
    (tmp_path / "key").chmod(mode)
    fails(capsys, 77, "chmod 600", city.main, "open-record", str(folder / "record"), "--alert-key-file",
          str(tmp_path / "key"))


def test_a_key_of_another_size_ends_with_77(evaluated, tmp_path, capsys):
    folder, _ = evaluated
    (tmp_path / "key").write_bytes(bytes(33))
    (tmp_path / "key").chmod(0o600)
    fails(capsys, 77, "16 or 32 raw bytes", city.main, "open-record", str(folder / "record"), "--alert-key-file",
          str(tmp_path / "key"))


def test_a_key_that_is_no_file_ends_with_77(evaluated, tmp_path, capsys):
    folder, _ = evaluated
    fails(capsys, 77, "not a regular file", city.main, "open-record", str(folder / "record"), "--alert-key-file",
          str(tmp_path))


def test_status_without_an_enclave_ends_with_69(tmp_path, capsys):
    fails(capsys, 69, "edged enclave --dir", edgectl.main, "status", "--at", str(tmp_path))


def test_status_of_a_running_enclave(enclave, capsys):
    assert edgectl.main(["status", "--at", enclave.folder]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["emulated"] is True
    assert shown["key_slots"] == ["empty"] * wire.KEY_SLOTS
    assert (shown["clips"], shown["rejections"]) == (0, 0)


def test_a_bench_of_no_clips_ends_with_2(capsys):
    fails(capsys, 2, "at least 1", edgectl.main, "bench", "--clips", "0")


def test_a_bench_into_no_folder_ends_with_66_before_it_measures(tmp_path, capsys):
    fails(capsys, 66, "no such folder", edgectl.main, "bench", "--json", str(tmp_path / "none" / "file"))


def start_enclave(folder):
    process = subprocess.Popen([sys.executable, "-m", "edged.cli", "enclave", "--dir", str(folder)],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True)
    assert process.stdout.readline() == "ready\n"
    return process


def children_of(process):
    with open("/proc/{0}/task/{0}/children".format(process.pid), encoding="ascii") as file:
        return [int(pid) for pid in file.read().split()]


@pytest.fixture
def short_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("e")


def test_edged_enclave_says_that_it_protects_nothing_and_ends_well_on_sigterm(short_folder):
    process = start_enclave(short_folder)
    children = children_of(process)
    assert len(children) == 2
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=10)
    assert process.returncode == 0
    assert "protects nothing" in errors
    assert not any(os.path.exists("/proc/{}".format(pid)) for pid in children)


def test_edged_enclave_ends_with_69_when_an_application_dies(short_folder):
    process = start_enclave(short_folder)
    os.kill(children_of(process)[1], signal.SIGKILL)
    _, errors = process.communicate(timeout=10)
    assert process.returncode == 69
    assert "edged-eval ended with SIGKILL" in errors


def test_edged_enclave_without_its_programs_names_the_fix(short_folder, monkeypatch, capsys):
    monkeypatch.setenv("EDGED_BUILD", str(short_folder))
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert cli.main(["enclave", "--dir", str(short_folder)]) == 66
    finally:
        signal.signal(signal.SIGTERM, before)
    assert "make -C trusty_ta" in capsys.readouterr().err
