"""The bridge as a process: what ends it, when it is ready, and whom it works with."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace

import numpy as np
import pytest

from attacks.networks import random_coordinates
from bridge_node import MODEL, PATIENCE_S, BridgeNode, Saying, until
from edged import bus
from edged.camera import link as camera_link
from edged.camera.clip import Clip, camera_key
from edged.enclave import wire
from edged.enclave.wire import Status
from edged.errors import ConfigError, EnclaveError, KeyRefused, MissingInput, PackageError, VerificationFailed
from edged.offload import daemon, messages
from edged.trust.agreement import sign
from fake_bridge import Keys
from moves import QUIET_S, held


def end_of(node):
    with pytest.raises(Exception) as caught:
        daemon.run(node.config(), threading.Event())
    assert "\n" not in str(caught.value)
    return caught.value


def test_a_missing_package_is_one_line(monkeypatch):
    with BridgeNode() as node:
        loaded = node.config()
        os.unlink(os.path.join(node.folder, "model.pkg"))
        with pytest.raises(MissingInput, match="model.pkg: No such file"):
            daemon.run(loaded, threading.Event())


@pytest.mark.parametrize("spoil", [lambda data: b"nonsense", lambda data: data[:-1],
                                   lambda data: data[:-1] + bytes([data[-1] ^ 1])], ids=["other", "short", "altered"])
def test_a_wrong_package_is_one_line(spoil):
    with BridgeNode() as node:
        node._model_package = spoil(node._model_package)
        error = end_of(node)
        assert isinstance(error, PackageError) and error.exit_code == 65


def test_an_agreement_with_a_wrong_signature_is_one_line():
    with BridgeNode() as node:
        node.papers[0] = (node.agreement, sign(node.agreement.encode(), node.mo_key, node.mo_key))
        error = end_of(node)
        assert isinstance(error, VerificationFailed) and "0.agreement" in str(error) and "signature" in str(error)


def test_an_agreement_whose_keys_nobody_put_is_one_line(monkeypatch):
    monkeypatch.setattr(daemon, "KEYS_PATIENCE_S", 0.2)
    with BridgeNode() as node:
        other = replace(node.agreement, data_key=b"another data key")
        node.papers[0] = (other, sign(other.encode(), node.mo_key, node.qdo_key))
        error = end_of(node)
        assert isinstance(error, KeyRefused) and b"another data key".hex() in str(error) and error.exit_code == 77


def test_a_placement_that_the_models_owner_does_not_permit_is_one_line():
    with BridgeNode(placement="inputs") as node:
        node._model_package = node.package(MODEL, 1 << wire.Placement.MASKED)
        error = end_of(node)
        assert isinstance(error, ConfigError) and "enclave.placement" in str(error)


def test_a_package_below_its_owners_floor_is_one_line(monkeypatch):
    def refuse(*_):
        raise EnclaveError("refused", Status.AGREEMENT)

    monkeypatch.setattr("edged.offload.link.Bridge.load", refuse)
    with BridgeNode() as node:
        error = end_of(node)
        assert isinstance(error, PackageError) and "model.pkg" in str(error) and "floor" in str(error)


def test_slots_are_found_whatever_their_order():
    with BridgeNode(alert_key_bytes=(32, 16, 32)) as node:
        node.agreement = replace(node.agreement, recipients=tuple(reversed(node.agreement.recipients)))
        node.alert_keys = tuple(reversed(node.alert_keys))
        node.papers[0] = (node.agreement, sign(node.agreement.encode(), node.mo_key, node.qdo_key))
        with Saying(node.bridge()) as gate:
            gate.deliver()
            assert [len(node.clips(recipient)) for recipient in range(3)] == [1] * 3


# Beside systemd, the real camera, and as a process.

def test_ready_is_said_once_model_enclave_and_socket_are_up(monkeypatch):
    with BridgeNode() as node, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(os.path.join(node.folder, "notify"))
        listener.settimeout(PATIENCE_S)
        monkeypatch.setenv("NOTIFY_SOCKET", os.path.join(node.folder, "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "300000")
        monkeypatch.delenv("WATCHDOG_PID", raising=False)
        node.enclave.stop()
        node.bridge(wait=False)
        told = [listener.recv(4096)]
        assert not any(b"READY" in text for text in told)
        node.enclave.start()
        node.put_keys()
        while not any(b"READY=1" in text for text in told):
            told.append(listener.recv(4096))
        assert node.status()["enclave"] == "up"
        while b"WATCHDOG=1" not in told[-1]:
            told.append(listener.recv(4096))


def test_an_evaluation_that_hangs_does_not_feed_the_watchdog(node, gate, monkeypatch):
    fed = []
    gate.hello()
    monkeypatch.setattr(daemon.Watchdog, "progress", lambda self: fed.append(1))
    with held(monkeypatch) as taken:
        gate.offer(*gate.sealed())
        until(lambda: taken)
        before = len(fed)
        time.sleep(QUIET_S)
        assert len(fed) == before
    until(lambda: len(fed) > before)


def test_the_camera_process_and_the_bridge_understand_each_other_through_restarts_of_both_sides(monkeypatch):
    monkeypatch.setattr(camera_link, "AGAIN_S", 0.1)
    monkeypatch.setattr(camera_link, "RETRY_S", 0.05)
    monkeypatch.setattr(camera_link, "WAIT_S", 0.1)
    with BridgeNode() as node:
        identity = messages.camera_id("gate")
        with bus.Dealer(node.bridge().address, b"gate") as dealer:
            keys = Keys(node.agreement.digest, camera_key(node.data_key, identity))
            talk = camera_link.BridgeLink(dealer, identity, keys)
            clips = 0
            for disturb in (lambda: None, node.restart_eval, lambda: (node.stop(), node.bridge()), lambda: None):
                for _ in range(2):
                    clips += 1
                    coordinates = random_coordinates(np.random.default_rng(clips), MODEL.shape, 1)
                    talk.offer(Clip(coordinates, (1,), clips, identity))
                disturb()
                until(lambda: talk.serve(0.01) or not talk.busy)
        assert talk.counts.done == clips and talk.counts.refused == talk.counts.skipped == 0
        assert {claimed for _, claimed, _ in node.clips()} == set(range(1, clips + 1))


def test_the_process_is_killed_and_started_again_and_nothing_is_lost():
    with BridgeNode() as node:
        node.config()
        command = [sys.executable, "-m", "edged.cli", "bridge", "--config", os.path.join(node.folder, "edged.toml")]
        node._thread = threading.current_thread()  # so that the node asks it, and not a thread
        try:
            with Saying(node) as gate:
                for _ in range(3):
                    process = subprocess.Popen(command)
                    try:
                        gate.deliver(), gate.deliver()
                        gate.offer(*gate.sealed())
                    finally:
                        process.kill()
                        process.wait()
                process = subprocess.Popen(command)
                gate.session = None
                gate.deliver()
                assert node.status()["enclave"] == "up"
                process.send_signal(signal.SIGTERM)
                assert process.wait(PATIENCE_S) == 0
        finally:
            node._thread = None
            process.kill()
            process.wait()
        judged = [claimed for _, claimed, _ in node.clips()]
        assert {1, 2, 4, 5, 7, 8, 10} <= set(judged) and len(set(judged)) == len(judged)
