"""A whole node under its supervisor, in processes of its own, of which all that is secret is known; a city and an owner
with their key servers for it; taps between them all.
"""

import json
import os
import socket
import struct
import subprocess
import sys
import time
from contextlib import closing, contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from zmq.utils import z85

import keyserver_cases
from attacks.canary import (
    Canaries, Halt, Tap, changed_files, changed_under, children, plant_weights, zmtp_messages)
from attacks.networks import integer_model
from edged import config as configuration
from edged.alerts.record import Observation, record_key
from edged.alerts.reports import Received
from edged.bus import split
from edged.camera import motion
from edged.camera.clip import camera_key, session_key
from edged.enclave import wire
from edged.enclave.host import EVAL_PROGRAM, KEY_PROGRAM, HostEnclave
from edged.enclave.key import KeyClient
from edged.enclave.keystore import IDENTITY_FILE, KeyStore
from edged.enclave.wire import RecordKind
from edged.keyserver.holder import Holder
from edged.offload import messages
from edged.site import NODE, Site, Terms, loopback_address
from edged.trust import chain
from edged.trust.agreement import open_agreement
from edged.trust.certificates import Authority
from edged.trust.chain import EMULATED
from edged.trust.cosign import Party
from edged.trust.reference import References, Version
from evidence_cases import CHEAP, PASSPHRASE, signed_references
from granting import receiver_of
from screen import Screen
from test_identity import applications, open_identity
from test_keyserver_device import LENIENT

LABELS = 8
FRAMES, JOINTS = 30, 18
KNOWN = "what all may know"  # and have, in their environment: so the search of each finds something
PROCESSES = ("enclave", "bridge", "outbox", "camera gate", "camera yard")
SETTLE_S = 120.0    # nothing takes so long: where it does, the node does not work

# As `edged run`. The bridge alone reads another configuration, so that taps stand between it and all others.
SUPERVISE = """
import sys
from edged import events, supervisor
from edged.stopping import Stop
stop = Stop().on_signals()
events.set_up("json")
supervisor.run(sys.argv[1], stop, command=(sys.executable, sys.argv[2]))
"""
CHILD = """
import os, sys
words = sys.argv[1:]
if words[0] == "bridge":
    words[words.index("--config") + 1] = {config!r}
os.execv(sys.executable, [sys.executable, "-m", "edged.cli"] + words)
"""


def port_of(address):
    return int(address.rsplit(":", 1)[1])


def wait_for(condition, node):
    deadline = time.monotonic() + SETTLE_S
    while not condition():
        assert node.process.poll() is None and time.monotonic() < deadline, node.log_file.read_text()[-4000:]
        time.sleep(0.02)


class Servers(keyserver_cases.Site):
    """Both parties' key servers, of this site, at this time; an authority whose device they know."""

    def __init__(self, folder, site, authority, now_s):
        folder.mkdir()
        self._of, agreement = site, open_agreement(site.signed)
        super().__init__(folder, SimpleNamespace(root=authority.certificate("root"), crls=[
            chain.read_crl(authority.crl(class_, PASSPHRASE, now_s), class_) for class_ in chain.CLASSES]),
            None, site.city, agreement)
        self.clock.now_s = now_s
        self.put("reference.cose", signed_references(References(EMULATED, now_s, {
            name: frozenset([Version(one[-65538], one[-65539])]) for name, one in applications().items()},
            {"key": 1, "eval": 1})))

    def signed(self, terms):
        return self._of.signed

    def holder(self, party="city"):
        if party == "city":
            return super().holder(party)
        return Holder(Party.MODEL_OWNER, self._of.owner, {self.terms.model.key_id: self._of.model_key})


class Node:
    """Site, identity, taps and processes; what is secret goes into ``canaries``. Its keys are still to come."""

    def __init__(self, folder):
        self.folder, self.began_s = folder, time.time()
        self.process, self._is_alone = None, False
        self.canaries = Canaries()
        self._scene(folder)
        labels = tuple("label {}".format(index) for index in range(LABELS))
        model = integer_model(5, ((16, 1), (16, 2)), FRAMES, JOINTS, labels=LABELS)
        # The likeliest of eight labels has an eighth: every clip is an alert, and none cools down for long.
        terms = Terms(tuple((label, 0.12, 1) for label in labels), beacon_period_s=1)
        self.site = Site(str(folder), model, "canary", terms, {
            "gate": ['source = "recording:{}"'.format(self.people), "loop = true", "speed = 0"],
            "yard": ['source = "{}"'.format(self.video), "frames_per_second = 1"],
        }, loopback_address(), threads=1, log="json", granted=True)
        self.config = configuration.load(str(self.site.config))
        self.agreement = open_agreement(self.site.signed)
        self.data_key = (self.site.city / "data.key").read_bytes()
        self.alert_key = (self.site.city / "alert-city.key").read_bytes()
        self._enrol()
        self._plant_keys()
        plant_weights(self.canaries, model)
        self._stand_between()
        self.log_file = folder / "stderr"
        known = os.urandom(32).hex()
        self.canaries.plant(KNOWN, known.encode())
        self.city = Screen(self.site)
        self._environment = dict(os.environ, CANARY=known)

    @contextmanager
    def enclave_alone(self):
        """As before the first keys, without which nothing else works."""
        self._is_alone = True
        self.process = self._start("-m", "edged.cli", "enclave", "--config", str(self.site.config))
        try:
            wait_for(lambda: self.pids is not None and b"enclave_ready" in self.log_file.read_bytes(), self)
            yield
        finally:
            self.process.terminate()
            self.process.wait(60)
            self._is_alone = False

    def start(self):
        """All processes, under their supervisor."""
        self.process = self._start("-c", SUPERVISE, str(self.site.config), str(self.folder / "child.py"))

    def _start(self, *words):
        with open(str(self.log_file), "ab") as log:
            return subprocess.Popen([sys.executable, *words], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                    env=self._environment)

    def _scene(self, folder):
        """Somebody who falls, as keypoints, and a street without people, as pixels."""
        cv2 = pytest.importorskip("cv2")
        self.people, self.video = folder / "people.jsonl", folder / "street.avi"
        recording = motion.generate(3, 6.0, cast=("walking", "falling"))
        recording.save(str(self.people))
        for frame in type(recording).load(str(self.people)).frames[::7]:
            for person in frame:
                self.canaries.plant("keypoints", person.tobytes())
        picture = np.random.default_rng(9).integers(0, 256, (120, 160, 3), np.uint8)
        writer = cv2.VideoWriter(str(self.video), cv2.VideoWriter_fourcc(*"MJPG"), 1.0, (160, 120))
        for _ in range(600):  # longer than any run: one picture, whenever it is looked at
            writer.write(picture)
        writer.release()
        film = cv2.VideoCapture(str(self.video))
        _, seen = film.read()
        film.release()
        for row in seen[::10]:
            self.canaries.plant("pixels", row.tobytes())

    def _enrol(self):
        """What flash station, authority and technician do before the node's start."""
        now_s, at = int(time.time()), Path(self.config.enclave.at)
        at.mkdir(parents=True, mode=0o700)
        self.station = os.urandom(32)
        (at / "station.secret").write_bytes(self.station)
        (at / "station.secret").chmod(0o600)
        authority = Authority(str(self.folder / "ca"), CHEAP)
        authority.create("Testing", PASSPHRASE, now_s)
        authority.add_board("0001", NODE, EMULATED, self.station, PASSPHRASE)
        store = KeyStore(self.config.key_folder)
        with HostEnclave(at) as enclave, closing(KeyClient(enclave.connect_key())) as key:
            store.draw(key)
            self.receiver = receiver_of(key)
            asked = key.request(authority.challenge("0001", now_s))
            certified = authority.enrol("0001", asked, PASSPHRASE, now_s).chain
        store.chain.write_bytes(certified)
        self.servers = Servers(self.folder / "servers", self.site, authority, now_s)
        self.servers.seen(chain.read_pem(certified, "chain")[0])

    def _plant_keys(self):
        canaries, at = self.canaries, Path(self.config.enclave.at)
        canaries.plant_secret("model key", self.site.model_key)
        canaries.plant_secret("data key", self.data_key)
        canaries.plant_secret("alert key", self.alert_key)
        canaries.plant_secret("device key", (at / "device.key").read_bytes())
        canaries.plant_secret("station secret", self.station)
        for name in ("gate", "yard"):
            canaries.plant_secret("camera key of " + name, camera_key(self.data_key, messages.camera_id(name)))
        for name, path in (("city's CURVE key", self.site.city / "curve.key"),
                           ("node's CURVE key", self.config.outbox.key)):
            canaries.plant(name, path.read_bytes())
            canaries.plant(name, z85.decode(path.read_bytes()))
        for name, private in zip(("ATTEST", "GRANT"),
                                 open_identity(at, (at / IDENTITY_FILE).read_bytes())):
            numbers = private.private_numbers()
            for number in (numbers.p, numbers.q, numbers.d, numbers.dmp1, numbers.dmq1, numbers.iqmp):
                size = -(-number.bit_length() // 8)
                for order in ("big", "little"):
                    # In any part of 64 bytes: a library may keep a number with gaps.
                    octets = number.to_bytes(size, order)
                    for begin in range(0, size - 64 + 1, 64):
                        canaries.plant("{} private key".format(name), octets[begin:begin + 64])

    def _stand_between(self):
        """The bridge binds, and looks for the enclave, where nobody else does; a tap stands where it should."""
        at, inner = Path(self.config.enclave.at), self.site.node / "in"
        (inner / "enclave").mkdir(parents=True, mode=0o700)
        text = self.site.config.read_text()
        behind = self.site.node / "bridge.toml"
        behind.write_text(text.replace('run = "run"', 'run = "in"'))
        self.behind = configuration.load(str(behind))
        (self.folder / "child.py").write_text(CHILD.format(config=str(behind)))
        self.taps = [Tap(self.config.bridge_socket, inner / self.config.bridge_socket.name)]
        self.taps += [Tap(inner / "enclave" / (name + ".ns"), at / (name + ".ns"), socket.SOCK_SEQPACKET)
                      for name in (wire.EVAL_PORT, wire.KEY_PORT)]
        listens = loopback_address()
        subscriber = Path(self.site.subscriber)
        subscriber.write_text(subscriber.read_text().replace(self.site.address, listens))
        self.taps.append(Tap(port_of(self.site.address), port_of(listens)))
        self.bus, self._key = self.taps[0], self.taps[2]

    # The keys.

    @contextmanager
    def owners(self, number):
        """What ``edgectl`` is to be told, one command after the other, so that both owners' keys come: the model's in a
        file, with this number, the city's from its server; then a report.
        """
        due, = self.servers.holder("owner").due(self.agreement)
        carried = self.folder / "carried.grant"
        carried.write_bytes(self.servers.holder("owner").grants(self.agreement, [(due, number)], self.receiver)[0])
        theirs = ("--agreement", str(self.site.node / "agreement.cose"))
        with self.servers.serving(LENIENT) as server:
            port = port_of(loopback_address())
            self.taps.append(Tap(port, server.port))
            asked = ("--server", "127.0.0.1:{}".format(port), "--ca", str(self.servers.folder / "server.pem"))
            yield [("install-grant", str(carried)) + theirs, ("fetch-grants",) + asked + theirs, ("report",) + asked]

    def command(self, look, *words):
        """``edgectl``. look : is called with its process and the command of each message between it and the key
        application, and the message, which is held meanwhile
        """
        halt = self._key.halt = Halt()
        process = self._start("-m", "edged.edgectl", *words, "--at", str(self.behind.enclave.at), "--keep",
                              str(self.config.key_folder))
        deadline = time.monotonic() + SETTLE_S
        try:
            while process.poll() is None:
                assert time.monotonic() < deadline, words
                with halt.next(0.05) as message:
                    if message is not None:
                        look(process.pid, wire.Header.unpack(message[:wire.Header.size()]).cmd, message)
        finally:
            self._key.halt = None
            halt.end()
            process.kill()
        assert process.wait() == 0, self.log_file.read_text()[-4000:]

    # The running node.

    @property
    def pids(self):
        """Process numbers by name, or None while not all are there."""
        if self._is_alone:
            applications = children(self.process.pid)
            is_whole = {KEY_PROGRAM, EVAL_PROGRAM} <= set(applications)
            return dict(applications, enclave=self.process.pid) if is_whole else None
        try:
            shown = json.loads(self.config.status_file.read_text())["processes"]
        except (OSError, ValueError):
            return None
        found = {name: one["pid"] for name, one in shown.items() if one["state"] == "running"}
        if set(found) != set(PROCESSES):
            return None
        applications = children(found["enclave"])
        if not {KEY_PROGRAM, EVAL_PROGRAM} <= set(applications):
            return None
        return dict(found, supervisor=self.process.pid, **applications)

    def said(self):
        """What cameras and bridge said to each other: for each connection (there, back), lists of messages."""
        return [tuple([messages.unpack(split(frames[0])) for frames in zmtp_messages(b"".join(list(way)))
                       if split(frames[0])] for way in ways) for ways in list(self.bus.heard)]

    def works(self):
        """Both cameras have a session, and said so. (One that waited long may have come again.)"""
        return self.pids is not None and len({
            fields["camera"] for there, _ in self.said() if any(kind == "status" for kind, _, _ in there)
            for kind, fields, _ in there if kind == "hello"}) == 2

    def clips_under_way(self):
        """Sent and not answered: a camera holds them."""
        for there, back in self.said():
            sent = {fields["number"] for kind, fields, _ in there if kind == "clip"}
            answered = {fields["number"] for kind, fields, _ in back if kind in ("done", "refused")}
            if sent - answered:
                return True
        return False

    def alerts(self):
        return sum(record.kind == RecordKind.ALERT for record in self.city.observations)

    def plant_what_came(self):
        """Of the run so far: session keys, skeletons of the clips, records' keys and plaintexts."""
        for there, back in self.said():
            hellos = [fields for kind, fields, _ in there if kind == "hello"]
            if not hellos:
                continue
            camera = hellos[0]["camera"]
            name = camera.rstrip(b"\0").decode()
            issued = camera_key(self.data_key, camera)
            keys = [session_key(issued, hello["nonce"], fields["nonce"])
                    for hello in hellos for kind, fields, _ in back if kind == "session"]
            for key in keys:
                self.canaries.plant_secret("session key of " + name, key)
            for kind, fields, sealed in there:
                if kind == "clip":
                    self._plant_clip(keys, fields, sealed)
        carried = self.taps[1].data()
        for event in list(self.city.events):
            if isinstance(event, Received):
                self._plant_record(event.record, carried)

    def _plant_clip(self, keys, fields, sealed):
        data = b"edged clip v1" + struct.pack("<IQ", fields["session"], fields["number"])
        for key in keys:
            try:
                plain = AESGCM(key).decrypt(struct.pack("<QI", fields["number"], 0), sealed, data)
            except InvalidTag:
                continue
            row = JOINTS * 3 * 2
            for begin in range(wire.ClipHead.size(), len(plain) - row + 1, row):
                self.canaries.plant("skeletons", plain[begin:begin + row])
            return
        raise AssertionError("a clip that no session's key opens")

    def _plant_record(self, record, carried):
        """carried : what came from the enclave, the record among it, sealed"""
        if record.header.seq == 1:  # one salt for each epoch
            self.canaries.plant_secret("record key", record_key(self.alert_key, record.header, self.agreement.digest))
        if not isinstance(record, Observation):
            return
        scores = wire.Scores(
            version=wire.EDGED_BODY_VERSION, kind=record.kind, status=record.status, sees=wire.EDGED_SEES_SCORES,
            labels=LABELS, rules=len(record.alerts), persons=record.persons, number=record.number,
            claimed_ns=record.claimed_ns, time_ns=record.time_ns,
            tracks=record.tracks + (0,) * (wire.EVAL_PERSONS_MAX - record.persons), camera=record.camera,
            model=record.model)
        body = scores.pack() + b"".join(wire.AlertEntry(one.message, one.score, one.event).pack()
                                        for one in record.alerts)
        answer = struct.pack("<{0}i{0}I".format(LABELS), *(record.logits + record.probabilities))
        header, seq = record.header.pack(), record.header.seq
        plain = (body + answer).ljust(wire.EDGED_RECORD_HEADER_MAX + self.agreement.body - len(header), b"\0")
        sealed = AESGCM(record_key(self.alert_key, record.header, self.agreement.digest)).encrypt(
            struct.pack("<QI", seq, 0), plain, header)
        assert sealed in carried, "the enclave sealed something else: what is searched for would be nowhere anyway"
        # Whole, and that alone which nobody but the enclave can have said.
        for plain in (body + answer, answer[:4 * LABELS], answer[4 * LABELS:]):
            self.canaries.plant("alert", plain)

    # What it wrote.

    def files(self):
        """(path, content) of all that somebody wrote since the beginning: in this folder, but for what is the other
        parties', and where everybody may write.
        """
        others = [self.folder / name for name in ("city", "bundle", "ca", "servers", self.people.name, self.video.name)]
        tests = [folder for folder in self.folder.parents if folder.name.startswith("pytest-of-")]
        yield from changed_under(self.folder, self.began_s, *others)
        yield from changed_files(self.began_s, self.folder, *tests)

    def stop(self):
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.city.close()
        for tap in self.taps:
            tap.close()
        return self.process and self.process.returncode
