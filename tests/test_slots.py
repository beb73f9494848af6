"""Keys from files into an emulated key application's slots, and the process that does it."""

import os
import threading
import time
from contextlib import closing

import pytest

from edged import config
from edged.enclave import daemon, keystore, slots, wire
from edged.enclave.host import HostEnclave
from edged.enclave.key import KeyClient
from edged.enclave.slots import put_slots, read_slots
from edged.errors import ConfigError, EnclaveError, KeyRefused, MissingInput
from edged.stopping import Stop

SLOT = """\
[[slot]]
number = {}
kind = "{}"
key_file = "{}"
key_id = "{}"
verifier = "{}"
"""
THREE = [(0, "model", "model.key", "11" * 16, "aa" * 32), (1, "data", "data.key", "22" * 16, "bb" * 32),
         (15, "alert", "alert.key", "33" * 16, "bb" * 32)]


def write(folder, rows=tuple(THREE), sizes=(32, 32, 16)):
    (folder / "slots.toml").write_text("".join(SLOT.format(*row) for row in rows))
    for row, size in zip(rows, sizes):
        (folder / row[2]).write_bytes(os.urandom(size))
        (folder / row[2]).chmod(0o600)
    return folder


def test_a_folder_gives_its_slots(tmp_path):
    first, second, third = read_slots(write(tmp_path))
    assert first == slots.Slot(0, wire.KeyKind.MODEL, tmp_path / "model.key", b"\x11" * 16, b"\xaa" * 32)
    assert (second.number, second.kind) == (1, wire.KeyKind.DATA)
    assert (third.number, third.kind, len(third.read_key())) == (15, wire.KeyKind.ALERT, 16)


@pytest.mark.parametrize("old, new, line, message", [
    ("number = 1\n", "number = 16\n", 8, "slot.number: 16: from 0 to 15"),
    ("number = 1\n", "number = 0\n", 8, "slot.number: 0: is there twice"),
    ("number = 1\n", "", 7, "slot.number: is missing"),
    ('"data"', '"empty"', 9, 'slot.kind: "empty": one of "model", "data", "alert"'),
    ("22" * 16, "22", 11, "slot.key_id: \"22\": 32 digits of 0-9, a-f"),
    ("22" * 16, "GG" * 16, 11, "slot.key_id"),
    ("bb" * 32, "00" * 32, 12, "slot.verifier: is zero"),
    ('key_file = "data.key"', 'key = "data.key"', 10, "slot.key: unknown key: did you mean key_"),
])
def test_a_wrong_slot_is_named_with_its_line(tmp_path, old, new, line, message):
    write(tmp_path)
    text = (tmp_path / "slots.toml").read_text()
    assert old in text
    (tmp_path / "slots.toml").write_text(text.replace(old, new, 1))
    with pytest.raises(ConfigError) as caught:
        read_slots(tmp_path)
    assert str(caught.value).startswith("{}:{}: {}".format(tmp_path / "slots.toml", line, message))


def test_a_folder_without_slots_is_missing_input(tmp_path):
    with pytest.raises(MissingInput, match="slots.toml"):
        read_slots(tmp_path)
    (tmp_path / "slots.toml").write_text("")
    with pytest.raises(ConfigError, match="slot: is missing"):
        read_slots(tmp_path)


class Recording:
    def __init__(self):
        self.put = []

    def put_slot(self, *given):
        self.put.append(given)


def test_every_slot_is_put(tmp_path):
    client = Recording()
    read = read_slots(write(tmp_path))
    put_slots(client, read)
    assert client.put == [(slot.number, slot.kind, slot.read_key(), slot.key_id, slot.verifier) for slot in read]


@pytest.mark.parametrize("name, size, mode, error", [
    ("alert.key", 24, 0o600, KeyRefused), ("data.key", 15, 0o600, KeyRefused), ("model.key", 16, 0o600, KeyRefused),
    ("data.key", 32, 0o640, KeyRefused)])
def test_a_wrong_key_is_refused_before_any_is_put(tmp_path, name, size, mode, error):
    client = Recording()
    read = read_slots(write(tmp_path))
    (tmp_path / name).write_bytes(bytes(size))
    (tmp_path / name).chmod(mode)
    with pytest.raises(error, match=name):
        put_slots(client, read)
    assert client.put == []


def test_an_absent_key_is_missing_input_before_any_is_put(tmp_path):
    client = Recording()
    read = read_slots(write(tmp_path))
    (tmp_path / "alert.key").unlink()
    with pytest.raises(MissingInput, match="alert.key"):
        put_slots(client, read)
    assert client.put == []


def test_the_key_application_holds_what_was_put(tmp_path, enclave):
    with closing(KeyClient(enclave.connect_key())) as client:
        put_slots(client, read_slots(write(tmp_path)))
        kinds = client.info().kinds
    assert (kinds[0], kinds[1], kinds[15]) == (wire.KeyKind.MODEL, wire.KeyKind.DATA, wire.KeyKind.ALERT)
    assert set(kinds[2:15]) == {wire.KeyKind.EMPTY}


# The process.


@pytest.fixture
def node(tmp_path_factory):
    """A configuration of the host port in a folder with a short path."""
    folder = tmp_path_factory.mktemp("e")
    (folder / "slots").mkdir()
    write(folder / "slots")
    return config.Config(
        folder / "edged.toml", config.Node("n1", folder, folder / "run", "text"),
        config.Enclave("host", str(folder / "run" / "enclave"), folder / "slots", folder / "p", (), "masked", "window"),
        config.Accelerator("cpu", None, 0), (), config.Outbox(folder / "k", 1, 65536, 1), ())


class Running(threading.Thread):
    """daemon.run in a thread that lives as long; ``error`` is what it raised."""

    def __init__(self, node, monkeypatch):
        super().__init__(daemon=True)
        self.node, self.stop, self.error, self.pids = node, Stop(), None, []
        start = HostEnclave.start

        def noted(enclave):
            start(enclave)
            self.pids = enclave.pids
            return enclave

        monkeypatch.setattr(HostEnclave, "start", noted)
        self.start()
        deadline_s = time.monotonic() + 20
        while not self.holds_keys() and self.is_alive():
            assert time.monotonic() < deadline_s
            time.sleep(0.02)

    def run(self):
        try:
            daemon.run(self.node, self.stop)
        except Exception as error:
            self.error = error

    def holds_keys(self):
        from edged.enclave import tipc

        try:
            with closing(KeyClient(tipc.connect(self.node.enclave.at, wire.KEY_PORT))) as client:
                return client.info().kinds[15] == wire.KeyKind.ALERT
        except EnclaveError:
            return False

    def end(self):
        self.stop.set()
        self.join(20)
        assert not self.is_alive()
        return self.error


def test_the_daemon_fills_the_slots_and_ends_well_when_asked(node, monkeypatch):
    running = Running(node, monkeypatch)
    pids = running.pids
    assert len(pids) == 2
    assert running.end() is None
    assert not any(os.path.exists("/proc/{}".format(pid)) for pid in pids)


@pytest.mark.parametrize("which, name", [(0, "edged-key"), (1, "edged-eval")])
def test_the_death_of_an_application_ends_the_daemon(node, monkeypatch, which, name):
    running = Running(node, monkeypatch)
    os.kill(running.pids[which], 9)
    running.join(20)
    assert isinstance(running.error, EnclaveError)
    assert "{} ended with SIGKILL".format(name) in str(running.error)
    assert not any(os.path.exists("/proc/{}".format(pid)) for pid in running.pids)


def test_the_daemon_is_ready_only_once_the_keys_are_in(node, monkeypatch):
    from edged.notify import Notifier

    seen = []
    monkeypatch.setattr(Notifier, "ready", lambda *_: seen.append("ready"))
    monkeypatch.setattr(daemon, "put_slots", lambda client, read: (put_slots(client, read), seen.append("keys")))
    assert Running(node, monkeypatch).end() is None
    assert seen == ["keys", "ready"]


def test_a_bridge_that_came_first_does_not_keep_the_keys_out(node, monkeypatch):
    """The key application serves one client at a time, and a bridge that waits for the enclave is quick."""
    start, first = HostEnclave.start, []

    def occupied(enclave):
        start(enclave)
        first.append(KeyClient(enclave.connect_key()))
        first[0].info()
        threading.Timer(0.5, first[0].close).start()
        return enclave

    monkeypatch.setattr(HostEnclave, "start", occupied)
    running = Running(node, monkeypatch)
    assert first and running.holds_keys()
    assert running.end() is None


def test_a_key_port_that_stays_busy_ends_the_daemon(node, monkeypatch):
    start, first = HostEnclave.start, []

    def occupied(enclave):
        start(enclave)
        first.append(KeyClient(enclave.connect_key()))
        first[0].info()
        return enclave

    monkeypatch.setattr(HostEnclave, "start", occupied)
    monkeypatch.setattr(keystore, "WAIT_S", 0.3)
    with pytest.raises(EnclaveError, match="busy"):
        daemon.run(node, Stop())
    first[0].close()


def test_a_wrong_key_is_refused_before_anything_starts(node):
    (node.enclave.keys / "data.key").chmod(0o644)
    with pytest.raises(KeyRefused, match="data.key"):
        daemon.run(node, Stop())
    assert not os.path.exists(node.enclave.at)


def test_a_trusty_node_has_no_enclave_to_start(node):
    from dataclasses import replace

    trusty = replace(node, enclave=replace(node.enclave, kind="trusty", keys=None))
    with pytest.raises(ConfigError, match="for \"host\" alone"):
        daemon.run(trusty, Stop())
