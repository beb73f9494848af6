"""A node's life by the commands that its people have, on the host port: made known, enrolled, granted keys, at work,
given other keys and another model while it works, attacked, expired, revoked and replaced.

By library, as no command does it: writing the first grants to files with numbers of the test's choice, handing a single
clip to the enclave and telling it of a time to come (else the camera's, the bridge's and the city's work).
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("aiohttp", reason="the key server needs it: pip install 'edged[server]'")

from edged import artifacts, city, edgectl, owner  # noqa: E402
from edged.alerts import keys  # noqa: E402
from edged.alerts.keyfiles import read_all  # noqa: E402
from edged.alerts.nodes import read_nodes  # noqa: E402
from edged.alerts.record import seal_beacon, split_record  # noqa: E402
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
from edged.site import loopback_address  # noqa: E402
from edged.trust import agreement_text, evidence, keyring, measure  # noqa: E402
from edged.trust.agreement import Agreement, ModelTerms, Recipient, Rule, body_for, open_agreement  # noqa: E402
from keyserver_cases import tls  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
DAY_S = 86400
LEAST_VERSION = 2  # of the package, as first agreed
LABEL = "label000"
LENIENT = ("--allow-emulated", "--allow-debug", "--allow-unfused")
PASSPHRASE = b"nobody guesses this one\n"
CAMERA = b"gate".ljust(32, b"\0")
PATIENCE_S = 120.0  # nothing takes so long: where it does, it does not work
FIRST_SLOTS = (8, 0)  # of agreements of even and of odd number
# As an operator writes it; `edgectl install` puts the rest beside it.
CONFIG = """\
schema = 1
[node]
name = "north"
state = "state"
run = "{at}/run"
[enclave]
kind = "host"
at = "{at}"
package = "model.pkg"
agreements = ["agreement.cose"]
[accelerator]
kind = "cpu"
threads = 1
[camera.gate]
source = "generator:7"
key = "cameras/gate.key"
loop = true
[outbox]
key = "outbox/curve.key"
[[subscriber]]
name = "city"
address = "{address}"
server_key = "{server_key}"
recipient = "{recipient}"
"""
# What the city's listener reports where something is missing, was altered, came again or is silent.
WRONG = ("gap", "replay", "rollback", "silence", "stale_heartbeat", "altered", "foreign", "after_end", "expired")

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
        self.run(city, "keys", "--dir", self.city, "--data-key-bytes", 16, "--alert-key-bytes", 16)
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
        """The owner's packages: of the least version that is agreed first, of the one before and of the one after."""
        self.network = stgcn.random_network(5, channels=((4, 1), (6, 2)), frames=30, labels=3, taps=3)
        self.clip = stgcn.random_clip(np.random.default_rng(6), self.network, 2)
        (self.folder / "network").write_bytes(network.to_bytes(self.network))
        with open(str(self.folder / "clips"), "wb") as file:
            np.savez(file, clips=self.clip[None])
        for version in (LEAST_VERSION - 1, LEAST_VERSION, LEAST_VERSION + 1):
            self.run(owner, "pack", self.folder / "network", "--calibration", self.folder / "clips", "--version",
                     version, "--out", self.folder / "{}.pkg".format(version), *self._of_ring)

    def _agree(self):
        """The owner drafts and signs, the city reads and signs."""
        public, mine, now_s = keys.read_public(str(self.city)), keyring.inspect(str(self.ring)), int(time.time())
        terms = Agreement(
            mo=mine.verify_key, qdo=public.qdo, body=body_for(3, 1), from_s=now_s - DAY_S, until_s=now_s + DAY_S,
            model=ModelTerms("stgcn", LEAST_VERSION, mine.key_ids[-1]), rules=(Rule(LABEL, 1, 1),), number=1,
            status=wire.MessageStatus.TEST, beacon_period_s=30, beacon_limit_s=DAY_S, data_key=public.data_key_id,
            placements=7, score_bits=16, clips_per_hour=100000, recipients=tuple(Recipient(
                one.rcpt, one.key_id, wire.EDGED_SEES_SCORES, (ALL_OF_A_RULE,)) for one in public.recipients))
        draft = self.folder / "first.toml"
        draft.write_text(agreement_text.write(terms), encoding="utf-8")
        self._sign(draft)
        assert "signed by the model owner and the query data owner" in self.run(
            edgectl, "agreement", "show", self.agreement)
        assert self.terms == terms

    def follow(self, name, least_version):
        """The agreement that follows the one in force, and takes its place where the key servers read it; its file."""
        draft = self.folder / (name + ".toml")
        self.run(owner, "agreement", "renew", self.agreement, "--city", self.city / "public.toml", "--least-version",
                 least_version, "--out", draft)
        self._sign(draft, "--previous", self.agreement)
        return draft.with_suffix(".cose")

    def _sign(self, draft, *previous):
        half, signed = draft.with_suffix(".half"), draft.with_suffix(".cose")
        mine, public = keyring.inspect(str(self.ring)), keys.read_public(str(self.city))
        accepted = ("--accept-digest", self.run(owner, "agreement", "check", draft).split()[-1]) + previous
        self.run(owner, "sign", draft, "--out", half, *accepted, *self._of_ring)
        self.run(city, "sign", half, "--out", signed, "--mo", mine.verify_key.hex(), "--dir", self.city, *accepted)
        shutil.copy(str(signed), str(self.agreement))
        self.terms = open_agreement(signed.read_bytes(), mine.verify_key, public.qdo)

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

    def enrol(self, node, serial, *more):
        challenge = self.run(city, "ca", "challenge", "north", "--dir", self.ca).strip()
        request, chain = self.folder / (serial + ".request"), self.folder / (serial + ".chain")
        said = node.enrol("--challenge", challenge, "--request", request)
        self.run(city, "ca", "enrol", "north", "--request", request, "--out", chain, *self._of_ca, *more)
        # The challenge is used up.
        self.run(city, "ca", "enrol", "north", "--request", request, "--out", self.folder / "second", *self._of_ca,
                 "--again", code=76, says="each is good once")
        node.enrol("--chain", chain)
        self.lists()
        return said

    def see(self, said):
        """Both owners stand at the board, and list what it says of itself."""
        self.listed = said.split("attestation key ")[1][:64]
        with open(str(self.folder / "devices"), "a") as file:
            file.write("{} north\n".format(self.listed))

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
        said = self.run(program, "verify", made, "--nonce", nonce, "--device", self.listed, *by, *lenient, code=code,
                        says=says)
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
        slots = json.loads(self.run(edgectl, "identity", "show", "--at", node.folder))["key_slots"]
        return [slot["kind"] for slot in slots[:4]]

    # Key servers.

    @contextmanager
    def serving(self, party):
        """Its key server as a process; HOST:PORT."""
        folder = self.folder / (party + "-server")
        if not folder.exists():
            folder.mkdir()
            tls(folder)
        mine = keyring.inspect(str(self.ring)).verify_key
        signer = self.terms.qdo if party == "city" else mine
        (folder / "keyserver.toml").write_text(
            "schema = 1\nbind = \"127.0.0.1:0\"\ncertificate = \"server.pem\"\nprivate_key = \"server.key\"\n"
            "ledger = \"ledger.db\"\nagreement = \"../agreement.cose\"\nmo = \"{}\"\nqdo = \"{}\"\n"
            "root = \"../ca/root.pem\"\ncrls = [\"../ca/hardware.crl\", \"../ca/emulated.crl\"]\n"
            "references = [\"../{}.reference\"]\nsigners = [\"{}\"]\ndevices = \"../devices\"\n"
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
            self._ask("fetch-grants", node, party, address, "--agreement", self.agreement, **more)

    def report(self, node, servers, **more):
        for party, address in servers.items():
            assert self._ask("report", node, party, address, **more) == (
                address + ": this device passed; what it was granted stays as it is\n")

    def _ask(self, what, node, party, address, *whose, **more):
        return self.run(edgectl, what, "--server", "https://" + address, "--ca",
                        self.folder / (party + "-server") / "server.pem", *whose, "--at", node.folder, **more)

    def withdraw(self, node):
        """A floor of the city, as a file, which lists no grant any more."""
        config = ("--config", self.folder / "city-server" / "keyserver.toml", "--dir", self.city)
        ueid = json.loads(self.run(edgectl, "identity", "show", "--at", node.folder))["ueid"]
        nonce = self.run(city, "grant", "--challenge", ueid, *config).strip()
        made, files = self.folder / "withdrawn.evidence", self.folder / "withdrawn"
        self.run(edgectl, "attest", "--nonce", nonce, "--out", made, "--at", node.folder)
        self.run(city, "grant", "--evidence", made, "--revoke", "--out", files, *config)
        self.run(edgectl, "install-grant", *files.iterdir(), "--agreement", self.agreement, "--at", node.folder)

    # A clip by hand.

    def works(self, node, version=LEAST_VERSION):
        """A clip becomes an alert that the city reads."""
        (self.folder / "record").write_bytes(self._evaluated(node, version))
        shown = json.loads(self.run(
            city, "open-record", self.folder / "record", "--dir", self.city, "--agreement", self.agreement))
        assert (shown["kind"], shown["clip"], shown["persons"], shown["status"]) == ("alert", 1, 2, "test")
        assert [(one["message"], one["label"]) for one in shown["alerts"]] == [("alert", LABEL)]

    def refuses(self, node, version):
        with pytest.raises(EnclaveError) as caught:
            self._evaluated(node, version)
        assert caught.value.status == Status.AGREEMENT

    def _evaluated(self, node, version):
        """The record of one clip under the package of this version."""
        with closing(EvalClient(tipc.connect(str(node.folder), wire.EVAL_PORT))) as client:
            return self._clip(client, self._agreed(client), version)

    def _agreed(self, client):
        first = FIRST_SLOTS[self.terms.number % 2]
        return client.put_agreement(first + MODEL_SLOT, first + DATA_SLOT, [first + ALERT_SLOT],
                                    self.agreement.read_bytes())

    def _clip(self, client, begun, version):
        with closing(Bridge(client, NumpyAccelerator())) as bridge:
            bridge.load((self.folder / "{}.pkg".format(version)).read_bytes(),
                        FIRST_SLOTS[self.terms.number % 2] + MODEL_SLOT, Placement.MASKED)
            nonce, data_key = os.urandom(32), read_all(str(self.city))[self.terms.data_key].read()
            session = client.open_session(begun.index, CAMERA, nonce)
            key = session_key(camera_key(data_key, CAMERA), nonce, session.nonce)
            sealed = seal_clip(key, session.session, 1, Clip(self.clip, (1, 2), 1, CAMERA))
            return bridge.evaluate(session.session, 1, sealed).record

    def expires(self, node, version):
        """Once the city says that the agreement's time is over, it is over: after a start, too, without any beacon."""
        to, over_ns = self.terms.recipients[0], (self.terms.until_s + 1) * 10 ** 9
        with closing(EvalClient(tipc.connect(str(node.folder), wire.EVAL_PORT))) as client:
            begun = self._agreed(client)
            salt = split_record(begun.records[0])[0].salt

            def beacon(time_ns):
                return client.beacon(seal_beacon(read_all(str(self.city))[to.alert_key].read(), salt, to.rcpt,
                                                 self.terms.digest, time_ns, os.urandom(16)), bytes(32))

            state = client.confirm(beacon(over_ns).emission)
            with pytest.raises(EnclaveError) as caught:
                self._clip(client, begun, version)
            assert caught.value.status == Status.AGREEMENT
            with pytest.raises(EnclaveError) as caught:
                beacon(over_ns - DAY_S * 10 ** 9)
            assert caught.value.status == Status.ARGUMENT
        node.restart()
        self.slots(node)  # which brings the grants back
        with closing(EvalClient(tipc.connect(str(node.folder), wire.EVAL_PORT))) as client:
            client.restore(state)
            with pytest.raises(EnclaveError) as caught:
                self._clip(client, self._agreed(client), version)
            assert caught.value.status == Status.AGREEMENT

    # At work.

    def settle(self, node):
        """What the node has beside its enclave, and the city to which it tells."""
        public, site = keys.read_public(str(self.city)), self.folder / "site"
        site.mkdir()
        address = loopback_address()
        self._of_nodes = ("--mo", self.terms.mo.hex(), "--address", address, "--camera", "gate", "--dir", self.city)
        self.run(city, "init", "--agreement", self.folder / "first.cose", "--bind", address, "--bundle",
                 self.folder / "first.bundle", *self._of_nodes)
        (site / "edged.toml").write_text(CONFIG.format(
            at=node.folder, address=address, server_key=public.curve, recipient=public.recipients[0].rcpt.hex()))
        said = self.run(edgectl, "install", self.folder / "first.bundle", "--config", site / "edged.toml")
        self.run(city, "allow", "north", "--key={}".format(said.rsplit("--key=", 1)[1].strip().strip("'")), "--dir",
                 self.city)
        return AtWork(site, self.city)

    def rotate(self, work, name, servers):
        """Under the agreement of this name: its grants, its bundle, and nobody but the city's listener stops."""
        site, signed = ("--config", work.site / "edged.toml"), self.folder / (name + ".cose")
        for party, address in servers.items():
            self.run(edgectl, "fetch-grants", "--server", address, "--ca",
                     self.folder / (party + "-server") / "server.pem", "--agreement", signed, *site)
        self.run(city, "adopt", "--agreement", signed, "--dir", self.city)
        work.listen_anew()
        self.run(city, "init", "--agreement", signed, "--bundle", self.folder / (name + ".bundle"), *self._of_nodes)
        ends = len(work.of_type("succeeded"))
        self.run(edgectl, "rotate", self.folder / (name + ".bundle"), *site)
        work.wait(lambda: len(work.of_type("succeeded")) > ends)
        work.tells()
        first = FIRST_SLOTS[self.terms.number % 2]  # of the keys that are there still
        slots = json.loads(self.run(edgectl, "identity", "show", *site))["key_slots"]
        assert [number for number, slot in enumerate(slots) if slot["kind"] != "empty"] == [first, first + 1, first + 2]


class AtWork:
    """All processes of the node, as `edged run` keeps them, and the city's listener, whose lines are read here."""

    def __init__(self, site, city_folder):
        self.site, self._city = site, city_folder
        self._log, self._node, self._listener, self._reader = site / "log", None, None, None
        self._lines = []

    def put_model(self, package):
        shutil.copy(str(package), str(self.site / "model.pkg"))

    def move(self, old, new):
        """The disk goes into another board."""
        file = self.site / "edged.toml"
        file.write_text(file.read_text().replace(str(old.folder), str(new.folder)))

    @contextmanager
    def running(self):
        self._listen()
        try:
            with self._log.open("ab") as log:
                self._node = subprocess.Popen(
                    [sys.executable, "-m", "edged.cli", "run", "--config", str(self.site / "edged.toml")],
                    cwd=str(ROOT), stdout=subprocess.DEVNULL, stderr=log)
            try:
                yield self
            finally:
                self._node.terminate()
                assert self._node.wait(60) == 0
        finally:
            self._stop_listening()

    def listen_anew(self):
        self._stop_listening()
        self._listen()

    def _listen(self):
        self._listener = subprocess.Popen(
            [sys.executable, "-m", "edged.city", "listen", "--config", str(self._city / "subscriber.toml"), "--json",
             "--all"], cwd=str(ROOT), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, universal_newlines=True)
        self._reader = threading.Thread(target=self._read, args=(self._listener.stdout,))
        self._reader.start()

    def _read(self, stream):
        for line in stream:
            self._lines.append(json.loads(line))

    def _stop_listening(self):
        self._listener.terminate()
        self._listener.wait(20)
        self._reader.join()
        self._listener.stdout.close()

    def of_type(self, *types):
        return [line for line in list(self._lines) if line["type"] in types]

    def alerts(self):
        return [line for line in self.of_type("record") if line["kind"] == "alert"]

    def wait(self, condition):
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert self._node.poll() is None and time.monotonic() < deadline, "{}\n{}".format(
                self._lines[-20:], self._log.read_text()[-4000:])
            time.sleep(0.05)

    def tells(self):
        """A clip that is captured from now on becomes an alert on the city's screen."""
        said = len(self.alerts())
        self.wait(lambda: len(self.alerts()) > said + 1)

    def says(self, text):
        """In the node's log, from now on."""
        begin = self._log.stat().st_size
        self.wait(lambda: text in self._log.read_bytes()[begin:].decode())

    def missed_nothing(self):
        """Every number of every epoch came, and nothing is wrong."""
        # What came again had come, but the sign of it was lost when somebody stopped.
        assert [line for line in self.of_type(*WRONG) if not line.get("resend")] == []
        assert [line for line in self.of_type("epoch_began") if line["untold"]] == []
        numbers = {}
        for line in {line["row"]: line for line in self.of_type("record")}.values():
            numbers.setdefault(line["epoch"], []).append(line["seq"])
        for epoch, found in numbers.items():
            assert sorted(found) == list(range(1, len(found) + 1)), epoch
        return len(numbers)


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
    life.see(life.enrol(node, "0001"))

    # Both know what it is: an emulated device, which neither takes unless told.
    for program in (city, owner):
        made, nonce = life.attest(node, program, program.__name__)
        for left_out in LENIENT:
            life.verify(program, made, nonce, *(one for one in LENIENT if one != left_out), code=76, says=left_out)
        shown = life.verify(program, made, nonce, *LENIENT)
        assert shown["class"] == "emulated"
        life.verify(program, made, nonce, *LENIENT, code=66, says="uses it up")

    # Keys come as files, and each once.
    files, whose = life.grants(made, 1), ("--agreement", life.agreement)
    life.run(edgectl, "install-grant", *files, *whose, "--at", node.folder)
    given = ["model", "data", "alert", "empty"]
    assert life.slots(node) == given
    life.run(edgectl, "install-grant", *files, *whose, "--at", node.folder, code=76, says="higher number")
    life.works(node)
    life.refuses(node, LEAST_VERSION - 1)
    node.restart()
    assert life.slots(node) == given  # and a start forgets nothing
    life.works(node)

    image = tmp_path / "image"
    shutil.copytree(str(node.folder), str(image), ignore=shutil.ignore_patterns("*.ta", "*.lock", "com.*"))
    with life.serving("owner") as of_owners, life.serving("city") as of_citys:
        servers = {"owner": of_owners, "city": of_citys}
        life.fetch(node, servers)
        life.report(node, servers)
        node.restart()
        assert life.slots(node) == given
        life.report(node, servers)
        life.works(node)
        node.stop()

        # At work.
        work = life.settle(node)
        work.put_model(tmp_path / "{}.pkg".format(LEAST_VERSION))
        with work.running():
            work.tells()
    # Other keys, and another model, whose predecessor is no longer taken. A key server knows the keys of its start.
    life.run(city, "keys", "renew", "--dir", life.city)
    with life.serving("owner") as of_owners, life.serving("city") as of_citys:
        servers = {"owner": of_owners, "city": of_citys}
        with work.running():
            work.tells()
            life.follow("second", LEAST_VERSION)
            life.rotate(work, "second", servers)
    life.run(city, "keys", "renew", "--dir", life.city)
    with life.serving("owner") as of_owners, life.serving("city") as of_citys:
        servers = {"owner": of_owners, "city": of_citys}
        work.put_model(tmp_path / "{}.pkg".format(LEAST_VERSION + 1))
        with work.running():
            work.tells()
            life.follow("third", LEAST_VERSION + 1)
            life.rotate(work, "third", servers)
        work.put_model(tmp_path / "{}.pkg".format(LEAST_VERSION))
        with work.running():
            work.says("agreement: it does not cover this now")
        work.put_model(tmp_path / "{}.pkg".format(LEAST_VERSION + 1))
        with work.running():
            work.tells()
        assert work.missed_nothing() == 5
        assert [line["number"] for line in work.of_type("succeeded")] == [1, 2]

        # Its time is over.
        node.start()
        assert life.slots(node) == given
        life.expires(node, LEAST_VERSION + 1)

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
        life.verify(owner, made, nonce, *LENIENT, code=76, says="revoked")
        life.fetch(node, servers, code=76, says="revoked")
        successor.start()
        said = life.enrol(successor, "0002", "--node-list", life.city / "nodes.toml")
        # Certified, but nobody has seen it.
        life.fetch(successor, servers, code=76, says="is not listed")
        life.see(said)
        # What the old one was given is of no use to it.
        life.run(edgectl, "install-grant", *files, *whose, "--at", successor.folder, code=77, says="is for device")
        life.fetch(successor, servers)
        assert life.slots(successor) == given
        life.works(successor, LEAST_VERSION + 1)
        # And at work: with the disk of before, under the node's name.
        successor.stop()
        work.move(node, successor)
        said = len(work.of_type(*WRONG))
        with work.running():
            work.tells()
        assert work.of_type(*WRONG)[said:] == []
        successor.start()
        shown = json.loads(life.run(edgectl, "identity", "show", "--at", successor.folder))
        assert [one.node.hex() for one in read_nodes(str(life.city / "nodes.toml"))] == [shown["node"]]

    # The city takes back what it granted.
    life.withdraw(successor)
    assert life.slots(successor) == ["model", "empty", "empty", "empty"]
    successor.restart()
    assert life.slots(successor) == ["model", "empty", "empty", "empty"]

    for party, program, stand, more in (
            ("owner", owner, ["passed", "revoked"], []),
            ("city", city, ["revoked", "withdrawn"], ["started", "started", "withdrawn"])):
        config = ("--config", tmp_path / (party + "-server") / "keyserver.toml")
        listed = [one["standing"] for one in json.loads(life.run(program, "nodes", "--json", *config))]
        assert sorted(listed) == stand
        log = [json.loads(line)["event"] for line in life.run(program, "audit", *config).splitlines()[:-1]]
        assert log == ["started", "granted", "reported", "reported"] + ["started", "granted"] * 2 + [
            "refused"] * 2 + ["granted"] + more


def test_a_disk_in_another_board_gets_alerts_out_again_by_the_readmes_way(tmp_path, nodes, capsys):
    """`identity new --again`, `ca replace`, `scripts/enrol`, and then the grants; the disk keeps all else."""
    life, (node, moved, _) = Life(tmp_path, capsys), nodes
    life.begin()
    life.flash(node, "0001")
    node.start()
    life.see(life.enrol(node, "0001"))
    with life.serving("owner") as of_owners, life.serving("city") as of_citys:
        servers = {"owner": of_owners, "city": of_citys}
        life.fetch(node, servers)
        given = life.slots(node)
        assert given == ["model", "data", "alert", "empty"]
        life.works(node)
        before = json.loads(life.run(edgectl, "identity", "show", "--at", node.folder))
        node.stop()

        shutil.copytree(str(node.folder), str(moved.folder), ignore=shutil.ignore_patterns(
            "*.ta", "*.lock", "com.*", "device.key", "counter", "station.secret"))  # the last three are the board's
        life.flash(moved, "0002", replaces="north")
        life.lists()
        moved.start()
        at = ("--at", moved.folder)
        for command in (("show",), ("request", "--challenge", "00" * 32, "--out", tmp_path / "no.request")):
            life.run(edgectl, "identity", *command, *at, code=69, says="identity.sealed: refused: it is another")
        life.run(edgectl, "identity", "new", *at, code=77, says="--again moves it aside")

        assert "is now" in life.run(edgectl, "identity", "new", "--again", *at)
        life.fetch(moved, servers, code=66, says="identity.chain: is missing")  # which went with the identity
        said = life.enrol(moved, "0002")
        life.fetch(moved, servers, code=76, says="is not listed")
        life.see(said)
        life.fetch(moved, servers)
        assert life.slots(moved) == given
        life.works(moved)
        moved.restart()
        assert life.slots(moved) == given
        life.works(moved)
        shown = json.loads(life.run(edgectl, "identity", "show", *at))
        assert shown["node"] != before["node"] and shown["certificate"]["serial"] != before["certificate"]["serial"]

        # And the old board, should its disk come back to it, is nobody's.
        node.start()
        life.fetch(node, servers, code=76, says="revoked")
