"""A node's life by the commands that its people have, on the host port: made known, enrolled, granted keys, at work,
attacked, revoked and replaced.

By library, as no command does it: writing grants to files (the key servers' own way to make them), handing a clip to
the enclave (else the camera's and the bridge's work). Not covered here, as it does not exist yet: rotation of the
city's keys without losing an alert; keys that expire by time; floors, and so a device without a monotonic store.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("aiohttp", reason="the key server needs it: pip install 'edged[server]'")

from edged import artifacts, city, edgectl, owner  # noqa: E402
from edged.alerts import keys  # noqa: E402
from edged.camera.clip import Clip, camera_key, seal_clip, session_key  # noqa: E402
from edged.emulated import ALL_OF_A_RULE, ALERT_SLOT, DATA_SLOT, MODEL_SLOT  # noqa: E402
from edged.enclave import tipc, wire  # noqa: E402
from edged.enclave.client import EvalClient  # noqa: E402
from edged.enclave.wire import Placement, Status  # noqa: E402
from edged.errors import EnclaveError  # noqa: E402
from edged.keyserver.holder import of_city, of_owner  # noqa: E402
from edged.model import network, stgcn  # noqa: E402
from edged.offload.bridge import Bridge  # noqa: E402
from edged.offload.product import NumpyAccelerator  # noqa: E402
from edged.trust import agreement_text, evidence, keyring, measure  # noqa: E402
from edged.trust.agreement import Agreement, ModelTerms, Recipient, Rule, body_for, open_agreement  # noqa: E402
from keyserver_cases import tls  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
DAY_S = 86400
LEAST_VERSION = 2
LABEL = "label000"
LENIENT = ("--allow-emulated", "--allow-debug", "--allow-unfused")
PASSPHRASE = b"nobody guesses this one\n"
CAMERA = b"gate".ljust(32, b"\0")

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")


class Node:
    """The node's machine: a folder of its enclave's, and `edged enclave` while it runs."""

    def __init__(self, folder):
        self.folder, self._process = Path(folder), None

    def start(self):
        self._process = subprocess.Popen([sys.executable, "-m", "edged.cli", "enclave", "--dir", str(self.folder)],
                                         cwd=str(ROOT), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert self._process.stdout.readline() == b"ready\n"

    def stop(self):
        if self._process is not None:
            self._process.terminate()
            self._process.wait(20)
            self._process.stdout.close()
            self._process = None

    def restart(self):
        self.stop()
        self.start()

    def enrol(self, *arguments, code=0):
        """scripts/enrol, as the technician runs it."""
        done = subprocess.run([str(ROOT / "scripts" / "enrol"), *map(str, arguments), "--at", str(self.folder)],
                              env=dict(os.environ, PYTHON=sys.executable), stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, universal_newlines=True)
        assert done.returncode == code, done.stderr
        return done.stdout + done.stderr


class Life:
    """All parties' files in one folder, and their commands."""

    def __init__(self, folder, capsys):
        self.folder, self._capsys = folder, capsys
        self.city, self.ca, self.ring = folder / "city", folder / "ca", folder / "ring"
        self.agreement, self.terms = folder / "agreement.cose", None
        self.secret("passphrase", PASSPHRASE)
        self._of_ca = ("--dir", self.ca, "--passphrase-file", folder / "passphrase")
        self._of_ring = ("--keys", self.ring, "--passphrase-file", folder / "passphrase")

    def secret(self, name, content):
        path = self.folder / name
        path.write_bytes(content)
        path.chmod(0o600)
        return path

    def run(self, program, *arguments, code=0, says=""):
        """What it prints; a refusal is one line that holds ``says``."""
        ended = program.main([str(one) for one in arguments])
        output = self._capsys.readouterr()
        assert ended == code, output.err
        if code:
            assert says in output.err and output.err.count("\n") == 1, output.err
        return output.out

    # How it begins: keys of the parties, the city's authority, what is to run, what is agreed.

    def begin(self):
        self.run(city, "keys", "--dir", self.city)
        self.run(owner, "keys", "new", self.ring, "--passphrase-file", self.folder / "passphrase")
        self.run(city, "ca", "init", "--city", "Testville", *self._of_ca)
        built = self.folder / "built"
        assert measure.main([str(built)] + [part for name in ("key", "eval") for part in (
            "--" + name, str(artifacts.find("edged-" + name)))]) == 0
        self.run(owner, "sign-reference", built, "--out", self.folder / "owner.reference", *self._of_ring)
        self.run(city, "sign-reference", built, "--out", self.folder / "city.reference", "--dir", self.city)
        self._pack()
        self._agree()

    def _pack(self):
        """The owner's package of the least version that is agreed, and of the one before."""
        self.network = stgcn.random_network(5, channels=((4, 1), (6, 2)), frames=9, labels=3, taps=3)
        self.clip = stgcn.random_clip(np.random.default_rng(6), self.network, 2)
        (self.folder / "network").write_bytes(network.to_bytes(self.network))
        with open(str(self.folder / "clips"), "wb") as file:
            np.savez(file, clips=self.clip[None])
        for version in (LEAST_VERSION - 1, LEAST_VERSION):
            self.run(owner, "pack", self.folder / "network", "--calibration", self.folder / "clips", "--version",
                     version, "--out", self.folder / "{}.pkg".format(version), *self._of_ring)

    def _agree(self):
        """The owner drafts and signs, the city reads and signs."""
        public, mine, now_s = keys.read_public(str(self.city)), keyring.inspect(str(self.ring)), int(time.time())
        terms = Agreement(
            mo=mine.verify_key, qdo=public.qdo, body=body_for(3, 1), from_s=now_s - DAY_S, until_s=now_s + DAY_S,
            model=ModelTerms("stgcn", LEAST_VERSION, mine.key_ids[-1]), rules=(Rule(LABEL, 1, 1),), number=1,
            status=wire.MessageStatus.TEST, beacon_period_s=30, beacon_limit_s=DAY_S, data_key=public.data_key_id,
            placements=7, score_bits=16, clips_per_hour=1000, recipients=tuple(Recipient(
                one.rcpt, one.key_id, wire.EDGED_SEES_SCORES, (ALL_OF_A_RULE,)) for one in public.recipients))
        draft, half = self.folder / "draft.toml", self.folder / "half.cose"
        draft.write_text(agreement_text.write(terms), encoding="utf-8")
        accepted = ("--accept-digest", self.run(owner, "agreement", "check", draft).split()[-1])
        self.run(owner, "sign", draft, "--out", half, *accepted, *self._of_ring)
        self.run(city, "sign", half, "--out", self.agreement, "--mo", mine.verify_key.hex(), "--dir", self.city,
                 *accepted)
        assert "signed by the model owner and the query data owner" in self.run(
            edgectl, "agreement", "show", self.agreement)
        self.terms = open_agreement(self.agreement.read_bytes(), mine.verify_key, public.qdo)
        assert self.terms == terms

    # Boards.

    def flash(self, node, serial, replaces=None):
        """What a flash station leaves in a board, and the city's list of it."""
        assert "PROTECTS NOTHING" in node.enrol("--emulated")
        secret = self.secret(serial + ".secret", (node.folder / "station.secret").read_bytes())
        if replaces is None:
            self.run(city, "ca", "board", serial, "--node", "north", "--emulated", "--secret-file", secret,
                     *self._of_ca)
        else:
            self.run(city, "ca", "replace", replaces, "--serial", serial, "--secret-file", secret, *self._of_ca)

    def enrol(self, node, serial):
        challenge = self.run(city, "ca", "challenge", "north", "--dir", self.ca).strip()
        request, chain = self.folder / (serial + ".request"), self.folder / (serial + ".chain")
        node.enrol("--challenge", challenge, "--request", request)
        self.run(city, "ca", "enrol", "north", "--request", request, "--out", chain, *self._of_ca)
        # The challenge is used up.
        self.run(city, "ca", "enrol", "north", "--request", request, "--out", self.folder / "second", *self._of_ca,
                 "--again", code=76, says="each is good once")
        node.enrol("--chain", chain)
        self.lists()

    def lists(self):
        self.run(city, "ca", "crl", *self._of_ca)

    # Evidence and grants.

    def attest(self, node, program, name):
        """(evidence, nonce file), for whoever asks."""
        nonce, made = self.folder / (name + ".nonce"), self.folder / (name + ".evidence")
        self.run(edgectl, "attest", "--nonce", self.run(program, "nonce", nonce).strip(), "--out", made, "--at",
                 node.folder)
        return made, nonce

    def verify(self, program, made, nonce, *lenient, code=0, says=""):
        """By each with its own reference values, the owner with the city's public files."""
        public, mine = keys.read_public(str(self.city)), keyring.inspect(str(self.ring))
        by = (("--dir", self.ca, "--node", "north", "--reference", self.folder / "city.reference", "--signer",
               public.qdo.hex()) if program is city else
              ("--root", self.ca / "root.pem", "--crl", self.ca / "hardware.crl", "--crl", self.ca / "emulated.crl",
               "--reference", self.folder / "owner.reference", "--signer", mine.verify_key.hex()))
        said = self.run(program, "verify", made, "--nonce", nonce, *by, *lenient, code=code, says=says)
        return json.loads(said) if code == 0 else None

    def grants(self, made, number):
        """Of both, as files, for the device of verified evidence."""
        receiver = evidence.parse(made.read_bytes()).claims.grant
        files = []
        for name, holder in (("city", of_city(str(self.city))), ("owner", of_owner(
                keyring.open_ring(str(self.ring), PASSPHRASE.strip())))):
            for due, content in [(due, holder.grants(self.terms, [(due, number)], receiver)[0])
                                 for due in holder.due(self.terms)]:
                files.append(self.folder / "{}-{}-{}.grant".format(name, due.slot, number))
                files[-1].write_bytes(content)
        return files

    def slots(self, node):
        return json.loads(self.run(edgectl, "identity", "show", "--at", node.folder))["key_slots"][:4]

    # Key servers.

    @contextmanager
    def serving(self, party):
        """Its key server as a process; HOST:PORT."""
        folder = self.folder / (party + "-server")
        folder.mkdir()
        tls(folder)
        mine = keyring.inspect(str(self.ring)).verify_key
        signer = self.terms.qdo if party == "city" else mine
        (folder / "keyserver.toml").write_text(
            "schema = 1\nbind = \"127.0.0.1:0\"\ncertificate = \"server.pem\"\nprivate_key = \"server.key\"\n"
            "ledger = \"ledger.db\"\nagreement = \"../agreement.cose\"\nmo = \"{}\"\nqdo = \"{}\"\n"
            "root = \"../ca/root.pem\"\ncrls = [\"../ca/hardware.crl\", \"../ca/emulated.crl\"]\n"
            "references = [\"../{}.reference\"]\nsigners = [\"{}\"]\n"
            "[policy]\nallow_emulated = true\nallow_debug = true\nallow_unfused = true\n".format(
                mine.hex(), self.terms.qdo.hex(), party, signer.hex()))
        where = ("--dir", self.city) if party == "city" else self._of_ring
        process = subprocess.Popen(
            [sys.executable, "-m", "edged." + party, "serve", *map(str, where), "--config",
             str(folder / "keyserver.toml")], cwd=str(ROOT), stderr=subprocess.PIPE, universal_newlines=True)
        try:
            line = process.stderr.readline()
            while line and not line.startswith("listening on "):
                line = process.stderr.readline()
            assert line, party
            yield line.split()[-1]
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
        finally:
            process.kill()
            process.stderr.close()
            process.wait()

    def fetch(self, node, servers, **more):
        for party, address in servers.items():
            self.run(edgectl, "fetch-grants", "--server", "https://" + address, "--ca",
                     self.folder / (party + "-server") / "server.pem", "--at", node.folder, **more)

    # At work.

    def works(self, node):
        """A clip becomes an alert that the city reads."""
        (self.folder / "record").write_bytes(self._evaluated(node, LEAST_VERSION))
        shown = json.loads(self.run(
            city, "open-record", self.folder / "record", "--alert-key-file", self.city / "alert-city.key",
            "--agreement", self.agreement))
        assert (shown["kind"], shown["clip"], shown["persons"], shown["status"]) == ("alert", 1, 2, "test")
        assert [(one["message"], one["label"]) for one in shown["alerts"]] == [("alert", LABEL)]

    def refuses_the_version_before(self, node):
        with pytest.raises(EnclaveError) as caught:
            self._evaluated(node, LEAST_VERSION - 1)
        assert caught.value.status == Status.AGREEMENT

    def _evaluated(self, node, version):
        """The record of one clip under the package of this version."""
        package = (self.folder / "{}.pkg".format(version)).read_bytes()
        with closing(EvalClient(tipc.connect(str(node.folder), wire.EVAL_PORT))) as client:
            begun = client.put_agreement(MODEL_SLOT, DATA_SLOT, [ALERT_SLOT], self.agreement.read_bytes())
            with closing(Bridge(client, NumpyAccelerator())) as bridge:
                bridge.load(package, MODEL_SLOT, Placement.MASKED)
                nonce, data_key = os.urandom(32), (self.city / "data.key").read_bytes()
                session = client.open_session(begun.index, CAMERA, nonce)
                key = session_key(camera_key(data_key, CAMERA), nonce, session.nonce)
                sealed = seal_clip(key, session.session, 1, Clip(self.clip, (1, 2), 1, CAMERA))
                return bridge.evaluate(session.session, 1, sealed).record


@pytest.fixture
def nodes():
    """Folders for two, of short names: a socket's path has little room."""
    with tempfile.TemporaryDirectory(prefix="edged-") as folder:
        made = [Node(os.path.join(folder, name)) for name in ("first", "moved", "second")]
        try:
            yield made
        finally:
            for one in made:
                one.stop()


def test_the_whole_life_of_a_node(tmp_path, nodes, capsys):
    life, (node, moved, successor) = Life(tmp_path, capsys), nodes
    life.begin()
    life.flash(node, "0001")
    node.start()
    life.enrol(node, "0001")

    # Both know what it is: an emulated device, which neither takes unless told.
    for program in (city, owner):
        made, nonce = life.attest(node, program, program.__name__)
        for left_out in LENIENT:
            life.verify(program, made, nonce, *(one for one in LENIENT if one != left_out), code=76, says=left_out)
        shown = life.verify(program, made, nonce, *LENIENT)
        assert shown["class"] == "emulated"
        life.verify(program, made, nonce, *LENIENT, code=66, says="uses it up")

    # Keys come as files, and each once.
    files = life.grants(made, 1)
    life.run(edgectl, "install-grant", *files, "--at", node.folder)
    given = ["model", "data", "alert", "empty"]
    assert life.slots(node) == given
    life.run(edgectl, "install-grant", *files, "--at", node.folder, code=76, says="higher number")
    life.works(node)
    life.refuses_the_version_before(node)
    node.restart()
    assert life.slots(node) == given  # and a start forgets nothing
    life.works(node)

    image = tmp_path / "image"
    shutil.copytree(str(node.folder), str(image), ignore=shutil.ignore_patterns("*.ta", "*.lock", "com.*"))
    with life.serving("owner") as of_owners, life.serving("city") as of_citys:
        servers = {"owner": of_owners, "city": of_citys}
        life.fetch(node, servers)
        node.restart()
        assert life.slots(node) == given
        life.works(node)

        # The disk of some time ago, in the same board: its counter knows better.
        latest = (node.folder / "key-state.sealed").read_bytes()
        node.stop()
        shutil.copy(str(image / "key-state.sealed"), str(node.folder))
        node.start()
        life.run(edgectl, "identity", "show", "--at", node.folder, code=69, says="key-state.sealed: refused: it is")
        (node.folder / "key-state.sealed").write_bytes(latest)
        node.restart()
        assert life.slots(node) == given

        # The disk in another board.
        shutil.copytree(str(image), str(moved.folder))
        for name in ("device.key", "counter"):
            (moved.folder / name).unlink()
        moved.start()
        life.run(edgectl, "identity", "show", "--at", moved.folder, code=69, says="identity.sealed: refused: it is")
        moved.stop()

        # Another board in its place: the old one is nobody's from here on.
        life.flash(successor, "0002", replaces="north")
        made, nonce = life.attest(node, owner, "late")
        life.lists()
        life.verify(owner, made, nonce, *LENIENT, code=76, says="revoked")
        life.fetch(node, servers, code=76, says="revoked")
        successor.start()
        life.enrol(successor, "0002")
        # What the old one was given is of no use to it.
        life.run(edgectl, "install-grant", *files, "--at", successor.folder, code=77, says="is for device")
        life.fetch(successor, servers)
        assert life.slots(successor) == given
        life.works(successor)

    for party, program in (("owner", owner), ("city", city)):
        config = ("--config", tmp_path / (party + "-server") / "keyserver.toml")
        listed = [one["standing"] for one in json.loads(life.run(program, "nodes", "--json", *config))]
        assert sorted(listed) == ["passed", "refused"]
        log = [json.loads(line)["event"] for line in life.run(program, "audit", *config).splitlines()[:-1]]
        assert log == ["started", "granted", "refused", "granted"]
