"""The console commands: what they print, and the exit codes of DESIGN section 10."""

import configparser
import errno
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import cbor2
import numpy as np
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import edged
from edged import cli, city, command, edgectl, owner
from edged.emulated import MODEL_SLOT, EmulatedNode, public_bytes
from edged.enclave import host, wire
from edged.enclave.client import EvalClient
from edged.errors import AcceleratorError
from edged.model import quantise, stgcn
from edged.offload.bridge import TRANSPORTS, Bridge
from edged.offload.product import NumpyAccelerator
from edged.trust import agreement_text, evidence, floor, grant, keyclient, keyprotocol
from edged.trust.agreement import open_agreement, sign
from edged.trust.certificates import Authority
from edged.trust.chain import EMULATED
from processes import is_alive

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
        (folder / "alert.key").write_bytes(node.alert_keys[0])
        (folder / "alert.key").chmod(0o600)
        (folder / "agreement").write_bytes(sign(node.agreement.encode(), node.mo_key, node.qdo_key))
        (folder / "epoch").write_bytes(node.begun.records[0])
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


def open_record(record, key, agreement):
    return ["open-record", str(record), "--alert-key-file", str(key), "--agreement", str(agreement)]


def test_open_record_prints_what_the_recipient_may_read(evaluated, capsys):
    folder, seen = evaluated
    assert city.main(open_record(folder / "record", folder / "alert.key", folder / "agreement")) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["kind"], shown["clip"], shown["persons"]) == ("observation", 1, 2)
    assert shown["logits"] == [value / 65536 for value in seen.logits]
    assert shown["claimed_by_node"] == {"time_ns": 1, "tracks": [1, 2]}
    assert (shown["status"], shown["alerts"]) == ("test", [])


def test_open_record_prints_how_an_epoch_began(evaluated, capsys):
    folder, _ = evaluated
    assert city.main(open_record(folder / "epoch", folder / "alert.key", folder / "agreement")) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["kind"], shown["seq"], shown["unclean"], shown["previous"]) == ("epoch", 1, True, "00" * 16)


def test_a_record_of_another_agreement_ends_with_76(evaluated, tmp_path, capsys):
    folder, _ = evaluated
    key = Ed25519PrivateKey.generate()
    agreed = open_agreement((folder / "agreement").read_bytes())
    other = replace(agreed, mo=public_bytes(key), qdo=public_bytes(key))
    (tmp_path / "agreement").write_bytes(sign(other.encode(), key, key))
    fails(capsys, 76, "does not open", city.main,
          *open_record(folder / "record", folder / "alert.key", tmp_path / "agreement"))


def test_an_agreement_that_was_altered_ends_with_76_and_none_with_66(evaluated, tmp_path, capsys):
    folder, _ = evaluated
    signed = (folder / "agreement").read_bytes()
    (tmp_path / "agreement").write_bytes(signed[:-1] + bytes([signed[-1] ^ 1]))
    fails(capsys, 76, "signature does not verify", city.main,
          *open_record(folder / "record", folder / "alert.key", tmp_path / "agreement"))
    fails(capsys, 66, "No such file", city.main,
          *open_record(folder / "record", folder / "alert.key", tmp_path / "none"))


def test_a_record_under_another_key_ends_with_76(evaluated, tmp_path, capsys):
    folder, _ = evaluated
    (tmp_path / "key").write_bytes(bytes(32))
    (tmp_path / "key").chmod(0o600)
    fails(capsys, 76, "does not open", city.main,
          *open_record(folder / "record", tmp_path / "key", folder / "agreement"))


def test_a_record_of_another_form_ends_with_65(evaluated, tmp_path, capsys):
    folder, _ = evaluated
    (tmp_path / "record").write_bytes(cbor2.dumps({}))
    fails(capsys, 65, "shorter than its head", city.main,
          *open_record(tmp_path / "record", folder / "alert.key", folder / "agreement"))


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_key_that_others_may_read_ends_with_77(evaluated, tmp_path, capsys, mode):
    folder, _ = evaluated
    (tmp_path / "key").write_bytes(bytes(32))
    (tmp_path / "key").chmod(mode)
    fails(capsys, 77, "chmod 600", city.main,
          *open_record(folder / "record", tmp_path / "key", folder / "agreement"))


def test_a_key_of_another_size_ends_with_77(evaluated, tmp_path, capsys):
    folder, _ = evaluated
    (tmp_path / "key").write_bytes(bytes(33))
    (tmp_path / "key").chmod(0o600)
    fails(capsys, 77, "16 or 32 raw bytes", city.main,
          *open_record(folder / "record", tmp_path / "key", folder / "agreement"))


def test_a_key_that_is_no_file_ends_with_77(evaluated, tmp_path, capsys):
    folder, _ = evaluated
    fails(capsys, 77, "not a regular file", city.main,
          *open_record(folder / "record", tmp_path, folder / "agreement"))


def test_status_without_an_enclave_ends_with_69(tmp_path, capsys):
    fails(capsys, 69, "edged enclave --dir", edgectl.main, "status", "--at", str(tmp_path))


def test_status_of_a_running_enclave(enclave, capsys):
    assert edgectl.main(["status", "--at", enclave.folder]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["emulated"] is True
    assert shown["key_slots"] == ["empty"] * wire.KEY_SLOTS
    assert (shown["clips"], shown["rejections"]) == (0, 0)


def test_status_of_an_enclave_that_serves_a_bridge_ends_with_69_and_does_not_advise_a_restart(enclave, capsys):
    with closing(EvalClient(enclave.connect_eval())) as bridge:
        bridge.info()
        fails(capsys, 69, "busy", edgectl.main, "status", "--at", enclave.folder)
        bridge.info()


def test_a_bench_of_no_clips_ends_with_2(capsys):
    fails(capsys, 2, "at least 1", edgectl.main, "bench", "--clips", "0")


def test_a_bench_into_no_folder_ends_with_66_before_it_measures(tmp_path, capsys):
    fails(capsys, 66, "no such folder", edgectl.main, "bench", "--json", str(tmp_path / "none" / "file"))


@pytest.fixture
def measured(monkeypatch):
    """A bench that costs nothing; the list of what was asked of it."""
    asked = []
    monkeypatch.setattr("edged.bench.run", lambda *given: asked.append(given) or {"clips": given[0]})
    monkeypatch.setattr("edged.bench.table", lambda report: "table")
    return asked


@pytest.mark.parametrize("before", [None, "x" * 1000])
def test_a_bench_writes_its_figures_over_what_the_file_held(measured, tmp_path, capsys, before):
    file = tmp_path / "file"
    if before is not None:
        file.write_text(before)
    assert edgectl.main(["bench", "--clips", "7", "--json", str(file)]) == 0
    assert json.loads(file.read_text()) == {"clips": 7}
    assert capsys.readouterr().out == "table\n"


def test_a_bench_into_a_folder_ends_with_66_before_it_measures(measured, tmp_path, capsys):
    fails(capsys, 66, str(tmp_path), edgectl.main, "bench", "--json", str(tmp_path))
    assert measured == []


def test_a_bench_that_fails_leaves_the_figures_of_the_last_one(tmp_path, monkeypatch, capsys):
    def fail(*_):
        raise AcceleratorError("broken")

    monkeypatch.setattr("edged.bench.run", fail)
    (tmp_path / "file").write_text("precious")
    fails(capsys, 69, "broken", edgectl.main, "bench", "--json", str(tmp_path / "file"))
    assert (tmp_path / "file").read_text() == "precious"


def test_a_bench_into_something_that_cannot_be_cut_writes_there(measured, capsys):
    assert edgectl.main(["bench", "--json", os.devnull]) == 0


def test_the_transports_are_those_of_the_bridge():
    assert sorted(edgectl.TRANSPORTS) == sorted(TRANSPORTS)


def ended(error):
    """The exit code of a command that ends so."""
    def run(_):
        raise error

    parser = command.parser("edgectl", None)
    parser.set_defaults(run=run)
    return command.run(parser, [])


@pytest.mark.parametrize("name, code", [
    ("ENOENT", 66), ("ENOTDIR", 66), ("EISDIR", 66), ("EACCES", 77), ("EPERM", 77), ("ENOSPC", 69), ("EIO", 69)])
def test_an_error_of_the_system_is_one_line_and_an_exit_code(capsys, name, code):
    number = getattr(errno, name)
    assert ended(OSError(number, os.strerror(number), "a/file")) == code
    assert capsys.readouterr().err == "edgectl: a/file: {}\n".format(os.strerror(number))


def test_an_error_of_the_system_without_a_number_is_one_line(capsys):
    assert ended(OSError("it broke")) == 69
    assert capsys.readouterr().err == "edgectl: it broke\n"


PRINTS = """
import sys
from edged import command
parser = command.parser("edgectl", None)
parser.set_defaults(run=lambda _: print("x" * int(sys.argv[1])))
sys.exit(command.run(parser, []))
"""


@pytest.mark.parametrize("size", [1, 1 << 20])
def test_a_reader_who_left_is_no_message(size):
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, "-c", PRINTS, str(size)], stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert (done.returncode, done.stderr) == (69, b"")


@pytest.mark.parametrize("size", [1, 1 << 20])
def test_an_output_that_is_full_is_one_line(size):
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-c", PRINTS, str(size)], stdout=full, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (69, b"edgectl: No space left on device\n")


NO_NUMPY = "import sys; sys.modules['numpy'] = None; from edged import {0}; sys.exit({0}.main(sys.argv[1:]))"


def without_numpy(module, *arguments):
    """(exit code, standard output, standard error) of a command where numpy is not installed."""
    # Not the warnings of libraries that have begun to leave this Python behind.
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", NO_NUMPY.format(module)] + list(arguments),
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("module, name", [("cli", "edged"), ("edgectl", "edgectl"), ("owner", "edged-owner"),
                                          ("city", "edged-city")])
def test_the_version_needs_no_numpy(module, name):
    assert without_numpy(module, "--version") == (0, "{} {}\n".format(name, edged.__version__), "")


@pytest.mark.parametrize("module, arguments, extra", [
    ("edgectl", ("status", "--at", "."), "node"), ("edgectl", ("bench",), "node"),
    ("owner", ("inspect", "file"), "owner")])
def test_what_needs_numpy_names_the_extra_that_brings_it(module, arguments, extra):
    code, output, errors = without_numpy(module, *arguments)
    assert (code, output) == (66, "")
    assert errors.count("\n") == 1
    assert "numpy" in errors and "pip install 'edged[{}]'".format(extra) in errors


def test_every_extra_that_is_named_brings_numpy():
    settings = configparser.ConfigParser()
    settings.read(os.path.join(os.path.dirname(__file__), "..", "setup.cfg"))
    for extra in ("node", "owner"):
        assert "numpy" in settings["options.extras_require"][extra]


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


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_edged_enclave_well_whenever_it_comes(tmp_path_factory, number):
    """Also while it starts: from the moment its first line shows that it has its handlers, in steps of 2 ms."""
    for wait_ms in range(0, 40, 2):
        process = subprocess.Popen(
            [sys.executable, "-m", "edged.cli", "enclave", "--dir", str(tmp_path_factory.mktemp("e"))],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True)
        assert "protects nothing" in process.stderr.readline()
        time.sleep(wait_ms / 1000)
        process.send_signal(number)
        process.communicate(timeout=10)
        assert process.returncode == 0, "after {} ms".format(wait_ms)


def test_a_signal_right_after_ready_ends_edged_enclave_well(tmp_path_factory):
    for _ in range(10):
        process = start_enclave(tmp_path_factory.mktemp("e"))
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=10)
        assert process.returncode == 0


def test_an_enclave_that_is_no_longer_wanted_while_it_starts_leaves_no_process(short_folder):
    slow = ["sh", "-c", "echo $$ >\"$0/new\"; mv \"$0/new\" \"$0/pid\"; exec sleep 60", str(short_folder)]
    begin_s = time.monotonic()
    with pytest.raises(host.Stopped):
        host.HostEnclave(short_folder, slow, stopped=(short_folder / "pid").exists).start()
    assert time.monotonic() - begin_s < 5
    assert not os.path.exists("/proc/" + (short_folder / "pid").read_text().strip())


def test_the_applications_end_with_the_process_that_started_them(short_folder):
    process = start_enclave(short_folder)
    children = children_of(process)
    for pid in children:
        with open("/proc/{}/cmdline".format(pid), encoding="ascii") as file:
            assert "--die-with-parent" in file.read().split("\0")
    process.kill()
    process.communicate()
    deadline_s = time.monotonic() + 5
    while any(is_alive(pid) for pid in children):
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def refused_start(folder):
    """(exit code, lines of edged itself) of `edged enclave` in a folder where it does not start."""
    done = subprocess.run([sys.executable, "-m", "edged.cli", "enclave", "--dir", str(folder)],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True, timeout=20)
    assert done.stdout == ""
    return done.returncode, [line for line in done.stderr.splitlines() if line.startswith("edged: ")]


def test_a_device_key_that_others_may_read_ends_edged_enclave_with_77(short_folder):
    (short_folder / "device.key").write_bytes(bytes(32))
    (short_folder / "device.key").chmod(0o644)
    code, lines = refused_start(short_folder)
    assert (code, len(lines)) == (77, 1)
    assert str(short_folder) in lines[0] and "device.key must be 32 bytes of mode 0600" in lines[0]


@pytest.mark.parametrize("more, code", [(0, 0), (1, 78)])
def test_a_folder_too_long_for_a_socket_ends_edged_enclave_with_78(short_folder, more, code):
    room = 107 - len("/" + wire.KEY_EVAL_PORT + ".ta") + more
    folder = short_folder / ("f" * (room - len(str(short_folder)) - 1))
    if code == 0:
        process = start_enclave(folder)
        process.terminate()
        process.communicate(timeout=10)
        assert process.returncode == 0
    else:
        found, lines = refused_start(folder)
        assert (found, len(lines)) == (78, 1)
        assert "shorter path" in lines[0]
        assert not folder.exists()


def test_edged_enclave_ends_with_69_when_an_application_dies(short_folder):
    process = start_enclave(short_folder)
    os.kill(children_of(process)[1], signal.SIGKILL)
    _, errors = process.communicate(timeout=10)
    assert process.returncode == 69
    assert "edged-eval ended with SIGKILL" in errors


def test_edged_enclave_without_its_programs_names_the_fix(short_folder, monkeypatch, capsys):
    monkeypatch.setenv("EDGED_BUILD", str(short_folder))
    before = [(number, signal.getsignal(number)) for number in (signal.SIGTERM, signal.SIGINT)]
    try:
        assert cli.main(["enclave", "--dir", str(short_folder)]) == 66
    finally:
        for number, handler in before:
            signal.signal(number, handler)
    message = capsys.readouterr().err
    # To whoever has the sources, and to whoever has what pip installed.
    assert "make -C trusty_ta` in a checkout" in message and "set EDGED_BUILD" in message


# The processes of a node, by its configuration.


@pytest.fixture
def node(short_folder):
    """A folder with a configuration and the slots of an emulated enclave."""
    (short_folder / "edged.toml").write_text(
        'schema = 1\n[node]\nname = "n1"\nstate = "state"\nrun = "run"\n[enclave]\nkind = "host"\nkeys = "."\n'
        'package = "model.pkg"\nagreements = ["a.cose"]\n[camera.gate]\nsource = "generator:1"\nkey = "gate.key"\n'
        '[outbox]\nkey = "curve.key"\n[[subscriber]]\nname = "city"\naddress = "tcp://127.0.0.1:5555"\n'
        'server_key = "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"\nrecipient = "00112233445566778899aabbccddeeff"\n')
    (short_folder / "slots.toml").write_text('[[slot]]\nnumber = 3\nkind = "data"\nkey_file = "data.key"\n'
                                             'key_id = "{}"\nverifier = "{}"\n'.format("11" * 16, "22" * 32))
    (short_folder / "data.key").write_bytes(bytes(range(32)))
    (short_folder / "data.key").chmod(0o600)
    return short_folder


def run_edged(node, *arguments, **given):
    return subprocess.run([sys.executable, "-W", "ignore", "-m", "edged.cli"] + list(arguments)
                          + ["--config", str(node / "edged.toml")], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          universal_newlines=True, timeout=30, **given)


def with_json(node):
    text = (node / "edged.toml").read_text()
    (node / "edged.toml").write_text(text.replace('name = "n1"', 'name = "n1"\nlog = "json"', 1))


PROCESSES = [("run",), ("enclave",), ("bridge",), ("camera", "gate"), ("outbox",)]


@pytest.mark.parametrize("process", PROCESSES, ids="-".join)
def test_a_wrong_configuration_ends_every_process_with_78_and_one_line(node, process):
    with open(str(node / "edged.toml"), "a") as file:
        file.write("treshold = 0.5\n")
    done = run_edged(node, *process)
    assert (done.returncode, done.stdout) == (78, "")
    assert done.stderr == ("edged: {}:21: subscriber.treshold: unknown key: what is an alert stands in the signed "
                           "agreement, not on the node\n".format(node / "edged.toml"))


@pytest.mark.parametrize("process", PROCESSES, ids="-".join)
def test_an_absent_configuration_ends_every_process_with_66(node, process):
    (node / "edged.toml").unlink()
    done = run_edged(node, *process)
    assert (done.returncode, done.stderr) == (66, "edged: {}: No such file or directory\n".format(node / "edged.toml"))


@pytest.mark.parametrize("process, named", [
    (("camera", "gate"), "a.cose"), (("outbox",), "curve.key"), (("bridge",), "a.cose")], ids=lambda value: value[0])
def test_a_process_without_its_file_ends_with_66_and_one_line(node, process, named):
    done = run_edged(node, *process)
    assert done.returncode == 66
    lines = [line for line in done.stderr.splitlines() if line.startswith("edged: ")]
    assert len(lines) == 1 and named in lines[0]


def test_a_camera_that_the_configuration_does_not_name_ends_with_78(node):
    done = run_edged(node, "camera", "door")
    assert done.returncode == 78
    assert done.stderr == "edged: {}: no table [camera.door]: its cameras are gate\n".format(node / "edged.toml")


def test_where_every_line_is_json_the_last_one_is(node):
    with_json(node)
    done = run_edged(node, "outbox")
    assert done.returncode == 66
    last = [json.loads(line) for line in done.stderr.splitlines()][-1]
    assert (last["event"], last["code"]) == ("process_failed", 66)
    assert "curve.key" in last["reason"]


def test_a_run_ends_with_the_code_and_the_line_of_the_process_that_cannot_work(node):
    (node / "data.key").chmod(0o644)
    done = run_edged(node, "run")
    assert done.returncode == 77
    lines = [line for line in done.stderr.splitlines() if line.startswith("edged: ")]
    assert len(lines) == 1 and "chmod 600" in lines[0]
    assert "process_refused process=enclave code=77" in done.stderr


def test_a_process_that_shall_end_with_somebody_else_than_its_parent_ends_with_2(node):
    done = run_edged(node, "outbox", "--die-with", "1")
    assert (done.returncode, done.stderr) == (2, "edged: process 1 is not the parent of this one, or has ended\n")


@pytest.mark.parametrize("program", [("-m", "edged.cli"), ("-c", NO_NUMPY.format("cli"))], ids=["", "without numpy"])
def test_edged_enclave_says_that_it_is_ready_once_its_keys_are_in_and_ends_well_on_sigterm(node, program):
    from edged.enclave import tipc
    from edged.enclave.key import KeyClient

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(node / "notify"))
        systemd.settimeout(30)
        process = subprocess.Popen([sys.executable, *program, "enclave", "--config", str(node / "edged.toml")],
                                   stderr=subprocess.PIPE, universal_newlines=True,
                                   env=dict(os.environ, NOTIFY_SOCKET=str(node / "notify"), WATCHDOG_USEC="300000"))
        said = [systemd.recv(4096)]
        while not said[-1].startswith(b"READY=1"):
            said.append(systemd.recv(4096))
        with closing(KeyClient(tipc.connect(str(node / "run" / "enclave"), wire.KEY_PORT))) as client:
            assert client.info().kinds[3] == wire.KeyKind.DATA
        while said[-1] != b"WATCHDOG=1":
            said.append(systemd.recv(4096))
        process.terminate()
        while said[-1] != b"STOPPING=1":
            said.append(systemd.recv(4096))
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "enclave_unprotected" in errors and "enclave_ready" in errors


@pytest.mark.parametrize("arguments", [("bridge",), ("camera", "gate")], ids="-".join)
def test_a_process_without_numpy_names_the_extra(node, arguments):
    code, output, errors = without_numpy("cli", *arguments, "--config", str(node / "edged.toml"))
    assert (code, output) == (66, "")
    assert errors.splitlines()[-1] == "edged: the Python module numpy is not installed: pip install 'edged[node]'"


def test_the_status_of_a_node_needs_no_numpy(node):
    script = ("import sys; sys.modules['numpy'] = None; from edged import edgectl, status; status.TIMEOUT_S = 0.2\n"
              "sys.exit(edgectl.main(sys.argv[1:]))")
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script, "status", "--config",
                           str(node / "edged.toml")],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True)
    assert done.returncode == 69, done.stderr
    assert json.loads(done.stdout)["spool"] == {}
    assert "the bridge is not there" in done.stderr


def test_a_command_may_return_its_exit_code(capsys):
    parser = command.parser("edgectl", None)
    parser.set_defaults(run=lambda _: 69)
    assert command.run(parser, []) == 69


# What edgectl has of both parties' papers.


def test_edgectl_shows_an_agreement_as_text(evaluated, tmp_path, capsys):
    folder, _ = evaluated
    agreed = open_agreement((folder / "agreement").read_bytes())
    assert edgectl.main(["agreement", "show", str(folder / "agreement")]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("# agreement 1, signed by the model owner and the query data owner\n# digest {}\n".format(
        agreed.digest.hex()))
    assert agreement_text.read("shown", shown.encode()) == agreed
    (tmp_path / "draft.toml").write_text(shown)
    assert edgectl.main(["agreement", "show", str(tmp_path / "draft.toml")]) == 0
    assert "signed by nobody" in capsys.readouterr().out


def test_an_agreement_that_cannot_be_shown_is_one_line(evaluated, tmp_path, capsys):
    folder, _ = evaluated
    signed = (folder / "agreement").read_bytes()
    fails(capsys, 66, "No such file", edgectl.main, "agreement", "show", str(tmp_path / "none"))
    (tmp_path / "altered").write_bytes(signed[:-1] + bytes([signed[-1] ^ 1]))
    fails(capsys, 76, "altered", edgectl.main, "agreement", "show", str(tmp_path / "altered"))
    (tmp_path / "cut").write_bytes(signed[:40])
    fails(capsys, 65, "cut", edgectl.main, "agreement", "show", str(tmp_path / "cut"))


@pytest.fixture(scope="module")
def certified(tmp_path_factory):
    """The folder of running applications, with an identity and its certificates."""
    authority, now_s, secret = Authority(str(tmp_path_factory.mktemp("ca") / "ca")), int(time.time()), os.urandom(32)
    authority.create("Testing", b"a passphrase of a test", now_s)
    authority.add_board("0001", "north", EMULATED, secret, b"a passphrase of a test")
    with tempfile.TemporaryDirectory(prefix="edged-") as name:
        folder = Path(name)
        folder.joinpath("station.secret").write_bytes(secret)
        folder.joinpath("station.secret").chmod(0o600)
        with host.HostEnclave(folder):
            request = str(tmp_path_factory.mktemp("request") / "request")
            assert edgectl.main(["identity", "new", "--at", name]) == 0
            assert edgectl.main(["identity", "request", "--at", name, "--out", request, "--challenge",
                                 authority.challenge("0001", now_s).hex()]) == 0
            made = authority.enrol("0001", Path(request).read_bytes(), b"a passphrase of a test", now_s)
            folder.joinpath("identity.chain").write_bytes(made.chain)
            folder.joinpath("ca.pem").write_bytes(authority.certificate("root").public_bytes(
                serialization.Encoding.PEM))
            yield folder


def fetch(folder, server="localhost:9", ca=None):
    return ["fetch-grants", "--any-signer", "--at", str(folder), "--server", server, "--ca",
            str(ca or folder / "ca.pem")]


@pytest.fixture
def key_server(monkeypatch):
    """A key server's answer, in its place: the grants that ``answer`` makes of a device's evidence."""
    def put(*answers):
        def fetch_grants(address, ca, ueid, attest):
            seen.append((address, ca, ueid, evidence.parse(attest(bytes(range(32))))))
            claims = seen[-1][-1].claims
            made = tuple(answer(claims.grant) for answer in answers)
            return keyprotocol.Given(made, floor.make(
                1, 0, claims.bootseed, grant.thumbprint(claims.grant), [(5, 2)], 0, SIGNER))

        monkeypatch.setattr(keyclient, "fetch_grants", fetch_grants)
        return seen

    seen = []
    return put


SIGNER = Ed25519PrivateKey.generate()


def granting(number, slot=5, signer=SIGNER):
    return lambda receiver: grant.make(wire.KeyKind.DATA, slot, b"k" * 32, b"i" * 16, number, b"a" * 32, receiver,
                                       signer)


def test_fetch_grants_installs_what_comes(certified, key_server, capsys):
    seen = key_server(granting(2), granting(1))
    assert edgectl.main(fetch(certified, "https://keys.example:7444")) == 0
    output = capsys.readouterr()
    assert (output.err, output.out.count("\n")) == ("", 3)
    assert ("keys.example:7444: floor: {} stands by slot 5 from number 2; the evaluation application heeds it from its "
            "next start on\n").format(public_bytes(SIGNER).hex()[:16]) in output.out
    assert "keys.example:7444: grant 1: slot 5 has data key {}, number 2\n".format((b"i" * 16).hex()) in output.out
    address, ca, ueid, found = seen[0]
    assert (address, ca) == ("keys.example:7444", str(certified / "ca.pem"))
    assert (found.claims.ueid, found.claims.nonce, len(found.chain)) == (ueid, bytes(range(32)), 2)
    assert set(found.claims.applications) == {"key", "eval"}
    fails(capsys, 76, "keys.example:7444: grant 2: ", edgectl.main, *fetch(certified, "keys.example:7444"))


def flipped(content):
    return content[:-1] + bytes([content[-1] ^ 1])


def test_fetch_grants_judges_all_before_it_hands_over_one(certified, key_server, capsys):
    for bad, code, line in [(lambda _: b"nonsense", 65, "grant is not a COSE_Sign1"),
                            (lambda receiver: flipped(granting(1, 6)(receiver)), 76, "does not verify")]:
        key_server(granting(1, 6), bad)
        fails(capsys, code, line, edgectl.main, *fetch(certified))
    assert edgectl.main(["identity", "show", "--at", str(certified)]) == 0
    assert json.loads(capsys.readouterr().out)["key_slots"][6] == {"kind": "empty"}


def test_fetch_grants_says_in_one_line_what_is_wrong(certified, tmp_path, capsys):
    with closing(socket.socket()) as nobody:
        nobody.bind(("127.0.0.1", 0))  # taken, and nobody listens
        fails(capsys, 69, "see that it runs", edgectl.main,
              *fetch(certified, "https://127.0.0.1:{}".format(nobody.getsockname()[1])))
    for server in ("localhost", "http://localhost:1", "https://localhost:1/", "localhost:0", ""):
        fails(capsys, 2, "not a key server's address", edgectl.main, *fetch(certified, server))
    fails(capsys, 66, "none.pem", edgectl.main, *fetch(certified, ca=tmp_path / "none.pem"))
    fails(capsys, 65, "not certificates", edgectl.main, *fetch(certified, ca=certified / "identity.sealed"))
    fails(capsys, 66, "identity.chain: is missing", edgectl.main, *fetch(certified), "--keep", str(tmp_path))
