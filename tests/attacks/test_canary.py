"""Root looks for what it may not have, everywhere in the normal world, while a node runs.

A whole node under its supervisor, in processes of its own: keys, weights, what alerts say, skeletons and pixels are
known here and searched for in the memory of every process, in every file, in what every socket carried and in the logs.
None is there, but in a camera's process what the design leaves to it: its pixels or skeletons, the key that the city
issued to it, the key of its session. That these *are* found, and keys and weights in the enclave's processes, says
that the search finds what is there.

All keys come by grants. (From ``slots.toml``, in clear, ``edged enclave`` itself would read them: a weakness of the
emulated class alone, and no hardware takes keys so.)
"""

import json
import os
import socket
import struct
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from zmq.utils import z85

from attacks.canary import STEP, Canaries, Tap, children, frozen, memory, plant_weights, zmtp_messages
from attacks.networks import integer_model
from edged import config as configuration
from edged.alerts.keys import read_public, read_signing_key
from edged.alerts.record import Observation, record_key
from edged.alerts.reports import Received
from edged.bus import split
from edged.camera import motion
from edged.camera.clip import camera_key, session_key
from edged.enclave import wire
from edged.enclave.host import EVAL_PROGRAM, KEY_PROGRAM, HostEnclave
from edged.enclave.key import KeyClient
from edged.enclave.keystore import IDENTITY_FILE, KeyStore
from edged.enclave.wire import KeyKind, RecordKind
from edged.offload import messages
from edged.site import Site, Terms, loopback_address
from edged.trust import grant
from edged.trust.agreement import open_agreement
from granting import receiver_of
from screen import Screen
from test_identity import open_identity

LABELS = 8
FRAMES, JOINTS = 30, 18
KNOWN = "what all may know"  # and have, in their environment: so the search of each finds something
# What the design leaves to a process of the normal world, and is found there ...
OWN = {
    "supervisor": {KNOWN},
    "enclave": {KNOWN},
    "bridge": {KNOWN},
    "outbox": {KNOWN, "node's CURVE key"},
    "camera gate": {KNOWN, "keypoints", "skeletons", "camera key of gate", "session key of gate"},
    "camera yard": {KNOWN, "pixels", "camera key of yard", "session key of yard"},
}
# ... and to its files: keys that are its own, and of the emulated device the one that a fuse would hold.
OWN_FILES = {
    "cameras/gate.key": {"camera key of gate"},
    "cameras/yard.key": {"camera key of yard"},
    "curve.key": {"node's CURVE key"},
    "run/enclave/device.key": {"device key"},
}
SECRETS = {"model key", "data key", "alert key", "device key", "camera key of gate", "camera key of yard",
           "session key of gate", "session key of yard", "record key", "city's CURVE key", "node's CURVE key",
           "ATTEST private key", "GRANT private key", "weights", "alert", "skeletons", "keypoints", "pixels"}
TURNS = 2           # times that everything is frozen and searched
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


class Node:
    """Site, grants, taps and processes; what is secret about it goes into ``canaries``."""

    def __init__(self, folder):
        self.folder = folder
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
        self._grant()
        self._plant_keys()
        plant_weights(self.canaries, model)
        self._stand_between()
        self.log_file = folder / "stderr"
        known = os.urandom(32).hex()
        self.canaries.plant(KNOWN, known.encode())
        self.city = Screen(self.site)
        with open(str(self.log_file), "wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", SUPERVISE, str(self.site.config), str(folder / "child.py")],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=dict(os.environ, CANARY=known))

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

    def _grant(self):
        """What both owners do once the device's evidence is verified."""
        public, agreement = read_public(str(self.site.city)), self.agreement
        qdo = read_signing_key(str(self.site.city))
        given = [(KeyKind.MODEL, self.site.model_key, agreement.model.key_id, self.site.owner),
                 (KeyKind.DATA, self.data_key, public.data_key_id, qdo),
                 (KeyKind.ALERT, self.alert_key, public.recipients[0].key_id, qdo)]
        store = KeyStore(self.config.key_folder)
        with HostEnclave(self.config.enclave.at) as enclave, closing(KeyClient(enclave.connect_key())) as key:
            store.draw(key)
            receiver = receiver_of(key)
            for slot, (kind, content, key_id, party) in enumerate(given):
                store.install(key, grant.make(kind, slot, content, key_id, 1, agreement.digest, receiver, party))

    def _plant_keys(self):
        canaries, at = self.canaries, Path(self.config.enclave.at)
        canaries.plant_secret("model key", self.site.model_key)
        canaries.plant_secret("data key", self.data_key)
        canaries.plant_secret("alert key", self.alert_key)
        canaries.plant_secret("device key", (at / "device.key").read_bytes())
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
        (self.folder / "child.py").write_text(CHILD.format(config=str(behind)))
        self.taps = [Tap(self.config.bridge_socket, inner / self.config.bridge_socket.name)]
        self.taps += [Tap(inner / "enclave" / (name + ".ns"), at / (name + ".ns"), socket.SOCK_SEQPACKET)
                      for name in (wire.EVAL_PORT, wire.KEY_PORT)]
        listens = loopback_address()
        subscriber = Path(self.site.subscriber)
        subscriber.write_text(subscriber.read_text().replace(self.site.address, listens))
        self.taps.append(Tap(port_of(self.site.address), port_of(listens)))
        self.bus = self.taps[0]

    # The running node.

    @property
    def pids(self):
        """Process numbers by name, or None while not all are there."""
        try:
            shown = json.loads(self.config.status_file.read_text())["processes"]
        except (OSError, ValueError):
            return None
        found = {name: one["pid"] for name, one in shown.items() if one["state"] == "running"}
        if set(found) != set(OWN) - {"supervisor"}:
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
        """Both cameras have a session, and said so."""
        return self.pids is not None and sum(
            any(kind == "status" for kind, _, _ in there) for there, _ in self.said()) == 2

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

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.city.close()
        for tap in self.taps:
            tap.close()
        return self.process.returncode



@pytest.fixture(scope="module")
def node(tmp_path_factory):
    made = Node(tmp_path_factory.mktemp("c"))
    try:
        yield made
    finally:
        made.stop()


def searched(node, pids):
    """{process: names of what is in its memory}"""
    found = {}
    for name, pid in pids.items():
        found[name] = set()
        try:
            for data in memory(pid):
                found[name] |= node.canaries.find(data)
        except PermissionError as error:
            pytest.skip("{}: this user may not read the memory of its processes (ptrace): {}".format(name, error))
    return found


def in_files(node):
    """{path in the node's folder: names}; where there is nothing there is no entry."""
    found = {}
    for path in sorted(node.site.node.rglob("*")):
        if path.is_file():
            names = node.canaries.find(path.read_bytes())
            if names:
                found[str(path.relative_to(node.site.node))] = names
    return found


def check_outside(node):
    """Files, traffic and logs: none but what is the node's own."""
    assert in_files(node) == OWN_FILES
    for tap in node.taps:
        data = tap.data()
        assert data and node.canaries.find(data) == set(), tap.name
    logs = node.log_file.read_bytes()
    assert b"clip_done" in logs and node.canaries.find(logs) == set()


def test_nothing_secret_is_anywhere_in_the_normal_world_while_the_node_works(node):
    wait_for(node.works, node)
    for _ in range(TURNS):
        before = node.alerts()
        wait_for(lambda: node.alerts() > before + 1, node)
        pids = node.pids
        with frozen([pids[EVAL_PROGRAM]]):
            wait_for(node.clips_under_way, node)
            with frozen([pid for name, pid in pids.items() if name != EVAL_PROGRAM]):
                node.plant_what_came()
                assert node.canaries.names == SECRETS | {KNOWN}
                found = searched(node, pids)
                check_outside(node)
        assert {name: found[name] for name in OWN} == OWN
        # In the enclave they are, and on the host port root may look there, too: it protects nothing.
        assert found[KEY_PROGRAM] >= {"model key", "data key", "alert key", "ATTEST private key", "GRANT private key"}
        assert found[EVAL_PROGRAM] >= {"weights", "record key"}


def test_nor_in_what_it_leaves_behind(node):
    wait_for(lambda: node.works() and node.alerts() > 1, node)
    assert node.stop() == 0
    node.plant_what_came()
    assert node.canaries.names == SECRETS | {KNOWN}
    check_outside(node)


def test_the_search_finds_what_is_there_wherever_it_begins_and_nothing_else():
    rng = np.random.default_rng(2)
    canaries, secret = Canaries(), rng.bytes(32)
    canaries.plant_secret("key", secret)
    canaries.plant("row", rng.bytes(108))
    around = rng.bytes(2 * STEP + 64)
    assert canaries.find(around) == set()
    for at in list(range(9)) + list(range(STEP - 40, STEP + 9)) + [len(around)]:
        assert canaries.find(around[at & ~0xFFF:at] + secret[:16] + around[at:at + 64]) == {"key"}
    for at in (STEP - 31, STEP - 1, 2 * STEP):
        assert canaries.find(around[:at] + secret + around[at:]) == {"key"}
    assert canaries.find(bytes(5) + secret.hex().encode()) == {"key"}
    assert canaries.find(around[:99] + secret[:15] + b"?" + secret[17:-1] + b"?") == set()
    assert not canaries.plant("zeros", bytes(64))


# Writes what it is told, masked until then, at one place of a block, and nowhere else.
HOLDER = """
import sys
held = bytearray(int(sys.argv[1]))
for line in sys.stdin:
    at, masked = line.split()
    for place, octet in enumerate(bytes.fromhex(masked), int(at)):
        held[place] = octet ^ 0xa5
    print("there", flush=True)
"""


def test_memory_is_read_to_its_end_and_skips_nothing():
    known = os.urandom(32)
    canaries = Canaries()
    canaries.plant("known", known)
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(3 * STEP)], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE, universal_newlines=True)

    def found(at, octets):
        print(at, bytes(octet ^ 0xa5 for octet in octets).hex(), file=holder.stdin, flush=True)
        assert holder.stdout.readline() == "there\n"
        return set().union(*(canaries.find(data) for data in memory(holder.pid)))

    try:
        for at in (0, STEP - 7, 3 * STEP - 32):
            assert found(at, known) == {"known"}
            assert found(at, bytes(32)) == set()
    except PermissionError as error:
        pytest.skip("this user may not read the memory of its processes (ptrace): {}".format(error))
    finally:
        holder.kill()
        holder.communicate()
