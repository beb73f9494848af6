"""Kill -9 of any process of a running node, at any moment: the rest carries on and the killed one returns; no record
that the enclave emitted is lost or passed on twice, no clip that was called done is without its record, and what a
killed enclave had not finished is announced.
"""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from attacks.networks import integer_model
from edged import config
from edged.alerts.record import Heartbeat, Observation
from edged.alerts.reports import Altered, EpochBegan, Foreign, Received, Replay, Rollback
from edged.site import Site, Terms, loopback_address
from screen import Screen

# As `edged run`, but patient with processes that somebody kills all the time.
SUPERVISE = """
import sys
from edged import config, events, supervisor
from edged.child import Patience
from edged.stopping import Stop
stop = Stop().on_signals()
events.set_up("json")
supervisor.run(sys.argv[1], stop, patience=Patience(shortest_s=0.05, longest_s=0.3))
"""
CAMERAS = ("gate", "yard")
VICTIMS = ("edged-eval", "edged-key", "enclave", "bridge", "outbox", "camera gate", "camera yard")
SETTLE_S = 60.0


class Node:
    """A node under a supervisor, its log kept line by line."""

    def __init__(self, site):
        self.site, self.lines = site, []
        self.process = subprocess.Popen([sys.executable, "-c", SUPERVISE, str(site.config)], stderr=subprocess.PIPE,
                                        stdin=subprocess.DEVNULL, universal_newlines=True)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self.process.stderr:
            try:
                self.lines.append(json.loads(line))
            except ValueError:
                self.lines.append({"raw": line.rstrip()})

    def events(self, name):
        return [line for line in list(self.lines) if line.get("event") == name]

    def find(self, victim):
        """Its process number now, or None."""
        programs = {"edged-eval": b"edged-eval", "edged-key": b"edged-key"}
        folder = str(self.site.run / "enclave").encode()
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if victim in programs:
                if words[0].endswith(programs[victim]) and folder in words:
                    return int(entry.name)
            elif str(self.site.config).encode() in words and b"edged.cli" in words:
                first = words.index(b"edged.cli") + 1
                if words[first:first + len(victim.split())] == [word.encode() for word in victim.split()]:
                    return int(entry.name)
        return None

    def stop(self):
        self.process.terminate()
        try:
            code = self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        self._reader.join(10)
        assert not self._reader.is_alive(), "a process of the node outlives it"
        return code


def wait_for(condition, timeout_s=SETTLE_S):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "nothing came of it"
        time.sleep(0.1)


@pytest.mark.parametrize("kills", [12, pytest.param(100, marks=pytest.mark.slow)])
def test_killing_processes_at_random_loses_and_doubles_nothing(tmp_path_factory, kills):
    rng = random.Random(kills)
    site = Site(str(tmp_path_factory.mktemp("c")), integer_model(5, ((8, 1), (8, 2)), 30, 18), "chaos",
                Terms((("label 0", 0.5, 5),), beacon_period_s=1),
                {name: ['source = "generator:{}"'.format(seed), "loop = true"] for seed, name in enumerate(CAMERAS)},
                loopback_address(), threads=1, log="json")
    screen, node = Screen(site), None
    killed = Counter()
    try:
        node = Node(site)
        wait_for(lambda: len(screen.observations) >= 4)
        for _ in range(kills):
            time.sleep(rng.uniform(0.0, 0.8))
            victim = rng.choice(VICTIMS)
            wait_for(lambda: node.find(victim) is not None)
            os.kill(node.find(victim), signal.SIGKILL)
            killed[victim] += 1
        # It carries on: new clips of every camera reach the screen, from whatever epoch is the last.
        calm = len(screen.events)
        wait_for(lambda: {name_of(record.camera) for event in screen.events[calm:]
                          if isinstance(event, Received) for record in [event.record]
                          if isinstance(record, Observation)} == set(CAMERAS))
        wait_for(lambda: all(node.find(victim) is not None for victim in VICTIMS))
        assert node.stop() == 0
        done = {(line["camera"], line["captured_unix_ns"]) for line in node.events("clip_done")}
        wait_for(lambda: done <= {(name_of(record.camera), record.claimed_ns) for record in screen.observations})
        node = None
    finally:
        if node is not None:
            node.stop()
        screen.close()
    assert len(done) > len(CAMERAS)
    check(screen, killed)


def name_of(camera):
    return camera.rstrip(b"\0").decode()


def check(screen, killed):
    received = screen.of(Received)
    names = [(event.record.header.epoch, event.record.header.seq) for event in received]
    assert len(set(names)) == len(names), "a record was passed on twice"
    assert not screen.of((Altered, Foreign, Rollback))
    assert not [event for event in screen.of(Replay) if not event.resend]
    # In each epoch every number from 1 on has come, or its gap was closed later.
    epochs = {}
    for epoch, seq in names:
        epochs.setdefault(epoch, set()).add(seq)
    for epoch, seqs in epochs.items():
        assert seqs == set(range(1, max(seqs) + 1)), "epoch {}: {} missing".format(
            epoch.hex(), sorted(set(range(1, max(seqs) + 1)) - seqs))
    # Every start of the enclave is an epoch that says what came before.
    began = screen.of(EpochBegan)
    assert len(began) == len(epochs)
    starts = killed["edged-eval"] + killed["edged-key"] + killed["enclave"]
    unclean = [event for event in began if event.unclean]
    assert 1 <= len(unclean) <= starts + 1
    if killed["edged-eval"] or killed["enclave"]:
        assert len(unclean) >= 2, "the end of a killed enclave was not announced"
    assert not [event for event in began if event.lost], "an epoch names confirmed records that never came"


def test_a_node_whose_spool_was_moved_aside_is_judged_on_by_a_city_that_knew_higher_epochs(tmp_path_factory):
    """Its enclave begins to count anew; without beacons it would judge for two seconds."""
    site = Site(str(tmp_path_factory.mktemp("r")), integer_model(5, ((8, 1), (8, 2)), 30, 18), "rolled",
                Terms((("label 0", 0.5, 5),), beacon_period_s=1, beacon_limit_s=2),
                {"gate": ['source = "generator:1"', "loop = true"]}, loopback_address(), threads=1, log="json")
    screen = Screen(site)

    def beats(seconds=0):
        """Whether, of the node that runs now, an epoch that is so old answered a beacon."""
        return any(isinstance(event, Received) and isinstance(event.record, Heartbeat)
                   and event.record.uptime_ns > seconds * 10 ** 9 for event in screen.events[before:])

    before, node = 0, None
    try:
        for _ in range(2):
            before, node = len(screen.events), Node(site)
            wait_for(beats)
            assert node.stop() == 0
        spool = config.load(str(site.config), {}).spool
        spool.rename(spool.with_name("aside.db"))
        before, node = len(screen.events), Node(site)
        wait_for(lambda: beats(6))
        judged = len(screen.observations)
        wait_for(lambda: len(screen.observations) > judged)
        assert node.stop() == 0
        node = None
    finally:
        if node is not None:
            node.stop()
        screen.close()
    rolled, = screen.of(Rollback)
    assert rolled.reason.startswith("epoch counter 1, after 2")
