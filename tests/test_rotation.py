"""One agreement follows another on a running node: the real enclave, bridge and camera link; whatever is killed, every
clip is judged once, no number is missing, and the last word under the old key names the new one."""

import itertools
import os
import stat
import threading
import time
from contextlib import closing, contextmanager
from dataclasses import replace

import cbor2
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from attacks.networks import random_coordinates
from bridge.bridge_node import CAPS, MODEL, PATIENCE_S, BridgeNode, Killed, until
from edged import beside, config, edgectl, rotation
from edged.alerts import bundle as bundles
from edged.alerts.record import open_record, record_key, seal_beacon, split_record
from edged.alerts.spool import Spool
from edged.bus import Dealer, Message
from edged.camera import link as camera_link
from edged.camera.clip import Clip
from edged.camera.link import BridgeLink
from edged.emulated import DATA_SLOT, public_bytes
from edged.enclave import wire
from edged.enclave.client import EvalClient
from edged.enclave.key import KeyClient
from edged.enclave.wire import KeyKind, RecordKind
from edged.errors import BusError, ConfigError, EdgedError, KeyRefused
from edged.offload import backoff, daemon, desk, link, messages, succession
from edged.offload.followed import Followed
from edged.placing import Placing
from edged.trust.agreement import Rule, open_agreement, sign

SERVER_KEY = "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"
CITY = bytes.fromhex("00112233445566778899aabbccddeeff")


@pytest.fixture(autouse=True)
def hurried(monkeypatch, caplog):
    """What is seconds in the field."""
    for module, name, seconds in (
            (desk, "FOLLOW_S", 0.05), (succession, "AGAIN_S", 0.05), (rotation, "_POLL_S", 0.02),
            (rotation, "RELOAD_TIMEOUT_S", 2.0), (daemon, "POLL_S", 0.02), (daemon, "PING_S", 0.05),
            (backoff, "FIRST_S", 0.01), (backoff, "LAST_S", 0.1),
            (camera_link, "AGAIN_S", 0.1), (camera_link, "RETRY_S", 0.05), (camera_link, "WAIT_S", 0.1),
            (camera_link, "HELLO_S", 0.1)):
        monkeypatch.setattr(module, name, seconds)
    caplog.set_level("INFO", "edged")


class Node(BridgeNode):
    """Its city rotates: ``bundle`` makes the next agreement, its keys, and puts these into the key application."""

    def __init__(self, **more):
        super().__init__(**more)
        self.agreement = replace(self.agreement, recipients=(self.agreement.recipients[0]._replace(rcpt=CITY),)
                                 + self.agreement.recipients[1:])
        self.papers = [(self.agreement, sign(self.agreement.encode(), self.mo_key, self.qdo_key))]
        self.agreements = [self.agreement]
        self.alert = {to.alert_key: key for to, key in zip(self.agreement.recipients, self.alert_keys)}
        self.data = {self.agreement.digest: self.data_key}
        self._next_slot = DATA_SLOT + 1 + len(self.alert_keys)
        self._written = None

    def config(self):
        """Written once: what a rotation does to the files stays."""
        if self._written is None:
            self._written = super().config()
            for name in self.cameras:
                self.write_key(name, self.agreement.digest)
        return config.load(self.path, {})

    @property
    def path(self):
        return os.path.join(self.folder, "edged.toml")

    def write_key(self, name, digest):
        path = os.path.join(self.folder, name + ".key")
        with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
            file.write(bundles.camera_key(self.data[digest], name))

    def put_under(self, name, place):
        """Have this camera judged under the agreement of this place of the configuration."""
        self.config()
        self.write_key(name, self.agreements[place].digest)
        with open(self.path) as file:
            head, camera = file.read().split("[camera.{}]".format(name))
        with open(self.path, "w") as file:
            camera = camera.replace("0.agreement", "{}.agreement".format(place), 1)
            file.write(head + "[camera.{}]".format(name) + camera)

    def succeeding(self, after=None, grant=True, **changes):
        """An agreement that follows the last one: other keys for the cameras and for each recipient."""
        before = after or self.agreements[-1]
        recipients = tuple(to._replace(alert_key=os.urandom(16)) for to in before.recipients)
        made = replace(before, **dict(dict(number=before.number + 1, data_key=os.urandom(16), recipients=recipients),
                                      **changes))
        self.data[made.digest] = os.urandom(32)
        self.alert.update({to.alert_key: self.alert.get(to.alert_key, os.urandom(32)) for to in made.recipients})
        self.agreements.append(made)
        if grant:
            self.grant(made)
        return made

    def grant(self, made):
        with closing(KeyClient(self.enclave.connect_key())) as key:
            keys = [(KeyKind.DATA, self.data[made.digest], made.data_key)]
            keys += [(KeyKind.ALERT, self.alert[to.alert_key], to.alert_key) for to in made.recipients]
            for kind, secret, key_id in keys:
                key.put_slot(self._next_slot % wire.KEY_SLOTS, kind, secret, key_id, made.qdo)
                self._next_slot += 1

    def bundle(self, made, **changes):
        """The folder that the city hands out."""
        folder = os.path.join(self.folder, "bundle-{}".format(os.urandom(4).hex()))
        signed = sign(made.encode(), self.mo_key, self.qdo_key)
        fields = dict(name="city", address="tcp://127.0.0.1:5555", server_key=SERVER_KEY, recipient=CITY, signed=signed,
                      agreement=made, slots=(),
                      cameras=tuple((name, bundles.camera_key(self.data[made.digest], name)) for name in self.cameras))
        placing = Placing()
        bundles.add(placing, folder, bundles.Bundle(**dict(fields, **changes)))
        placing.commit()
        return folder

    # What the city reads.

    def told(self, rcpt=CITY):
        """[(agreement, kind, body)] of a recipient, in order of arrival; no number is missing or there twice."""
        with Spool(os.path.join(self.folder, "state", "spool.db"), CAPS) as spool:
            rows = [sealed for _, sealed in spool.pending(rcpt, 0, 1 << 20)]
        opened, numbers = [], {}
        for sealed in rows:
            header, associated, body = split_record(sealed)
            assert len(sealed) == len(rows[0]), "all records of one size"
            numbers.setdefault(header.epoch, []).append(header.seq)
            under, = [one for one in self.agreements if header.kid in [to.alert_key for to in one.recipients
                                                                       if to.rcpt == rcpt]]
            key = self.alert[header.kid]
            if header.kind == RecordKind.SUCCESSION:
                plain = AESGCM(record_key(key, header, under.digest)).decrypt(
                    header.seq.to_bytes(8, "little") + bytes(4), body, associated)
                size = wire.SuccessionBody.size()
                assert not any(plain[size:])
                opened.append((under, RecordKind.SUCCESSION, wire.SuccessionBody.unpack(plain[:size])))
            else:
                record = open_record(sealed, key, under.digest)
                opened.append((under, record.kind, record))
        for found in numbers.values():
            assert found == list(range(1, len(found) + 1))
        return opened

    def judged(self, rcpt=CITY):
        """{camera: [claimed times]} of all observations."""
        found = {}
        for _, kind, record in self.told(rcpt):
            if kind == RecordKind.OBSERVATION:
                found.setdefault(record.camera.rstrip(b"\0").decode(), []).append(record.claimed_ns)
        return found

    def assert_followed(self, before, after, rcpt=CITY):
        """In each epoch the last word under the old agreement names the new one; nothing is missing."""
        told = self.told(rcpt)
        last = [(kind, body) for under, kind, body in told if under == before][-1]
        key = next((to.alert_key for to in after.recipients if to.rcpt == rcpt), bytes(16))
        assert last[0] == RecordKind.SUCCESSION
        assert (last[1].number, last[1].next_key, last[1].successor) == (after.number, key, after.digest)
        assert [kind for under, kind, _ in told if under == before].count(RecordKind.SUCCESSION) == 1

    def in_place(self):
        """Numbers of the agreements that the configuration's files hold; nothing lies beside them."""
        loaded = self.config()
        assert not [name for name in os.listdir(self.folder) if name.endswith(".next") or ".key." in name]
        return [open_agreement(path.read_bytes()).number for path in loaded.enclave.agreements]


class City:
    """The city's part: a beacon now and then, for each recipient, under each agreement that it (all) and he (each)
    adopted."""

    def __init__(self, node):
        self._node, self._ends, self.adopts = node, threading.Event(), lambda agreement: True
        self.reads = lambda agreement, rcpt: True
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        with Dealer(self._node.address, b"outbox") as outbox:
            while not self._ends.wait(0.1):
                with Spool(os.path.join(self._node.folder, "state", "spool.db"), CAPS) as spool:
                    for agreement in list(self._node.agreements):
                        if self.adopts(agreement):
                            for to in agreement.recipients:
                                if self.reads(agreement, to.rcpt):
                                    self._say(outbox, spool, agreement, to)

    def _say(self, outbox, spool, agreement, to):
        heard = spool.pending(to.rcpt, 0, 1 << 20)
        if heard:
            salt = split_record(heard[-1][1])[0].salt
            outbox.send(messages.pack("beacon", {}, seal_beacon(
                self._node.alert[to.alert_key], salt, to.rcpt, agreement.digest, time.time_ns(), os.urandom(16))))

    def stop(self):
        self._ends.set()
        self._thread.join(PATIENCE_S)


class Link(BridgeLink):
    """hellos : digests of the agreements that were named      followed : those that the bridge said to follow"""

    def __init__(self, *given, **more):
        self.finished, self.hellos, self.followed = [], [], []
        super().__init__(*given, **more)

    def _take_done(self, fields):
        held = self._find(fields["number"])
        super()._take_done(fields)
        if held is not None:
            self.finished.append(held.clip.claimed_ns)

    def _send(self, kind, fields, blob=None):
        if kind == "hello":
            self.hellos.append(fields["agreement"])
        return super()._send(kind, fields, blob)

    def _take_follow(self, fields):
        self.followed.append(fields["agreement"])
        super()._take_follow(fields)


class Watching:
    """A camera process at work: clips without end, until it is stopped or killed. keys : what it reads its keys with"""

    claimed = itertools.count(1)

    def __init__(self, node, name="gate"):
        self.node, self.name, self.finished = node, name, []
        self.start()

    def start(self, keys=beside.CameraKeys):
        self._ends, self.link, self.died = threading.Event(), None, None
        self._thread = threading.Thread(target=self._run, args=(self.node.config(), keys), daemon=True)
        self._thread.start()

    def _run(self, loaded, keys):
        try:
            self._watch(loaded, keys(loaded, loaded.camera(self.name)))
        except Exception as error:  # of its thread
            self.died = error

    def _watch(self, loaded, keys):
        identity = messages.camera_id(self.name)
        with Dealer(loaded.bridge_address, self.name.encode()) as dealer:
            self.link = Link(dealer, identity, keys)
            while not self._ends.is_set():
                self.link.serve(0.005)
                if self.link.room and self.link.session is not None:
                    claimed = next(self.claimed)
                    self.link.offer(Clip(random_coordinates(np.random.default_rng(claimed), MODEL.shape, 1), (1,),
                                         claimed, identity))

    def kill(self):
        """Whatever it held is gone."""
        self._ends.set()
        self._thread.join(PATIENCE_S)
        assert self.died is None, self.died
        if self.link is not None:  # killed before it had read its key
            self.finished += self.link.finished
            self.link.finished = []

    def restart(self, keys=beside.CameraKeys):
        self.kill()
        self.start(keys)

    def stop(self):
        self.kill()
        return self.finished

    @property
    def count(self):
        assert self.died is None, self.died
        return len(self.finished) + (0 if self.link is None else len(self.link.finished))

    def goes_on(self, clips=3):
        begin = self.count
        until(lambda: self.count >= begin + clips, "{}: no clips are done".format(self.name))


@contextmanager
def running(cameras=("gate",), **more):
    with Node(cameras=cameras, **more) as node:
        node.bridge()
        watching = [Watching(node, name) for name in cameras]
        for one in watching:
            one.goes_on()
        node.city = City(node)
        yield (node, *watching)
        node.city.stop()
        for one in watching:
            one.stop()


def assert_judged_once(node, *watching, rcpt=CITY):
    """Every clip that is done was judged, and none twice."""
    node.stop()
    for one in watching:
        judged = node.judged(rcpt).get(one.name, [])
        assert len(set(judged)) == len(judged), "judged twice"
        assert set(one.stop()) <= set(judged), "said to be done, and not judged"


def rotate(node, folder, **more):
    rotation.run(folder, node.path, **more)


def test_a_node_goes_over_to_the_next_agreement_while_it_judges_clips(capsys):
    with running() as (node, gate):
        after = node.succeeding()
        rotate(node, node.bundle(after))
        gate.goes_on()
        assert "agreement 2 is the one in force" in capsys.readouterr().out
        assert node.in_place() == [2]
        assert_judged_once(node, gate)
        node.assert_followed(node.agreement, after)
        assert gate.link.counts.skipped == 0 and gate.link.counts.refused == 0
        last = [under for under, kind, _ in node.told() if kind == RecordKind.OBSERVATION][-1]
        assert last == after


def test_rotations_go_on_for_ever_in_one_epoch():
    with running(cameras=("gate", "yard")) as (node, gate, yard):
        chain = [node.agreement]
        for _ in range(6):  # more than the enclave has places
            chain.append(node.succeeding())
            rotate(node, node.bundle(chain[-1]))
            gate.goes_on()
            yard.goes_on()
        assert node.in_place() == [7]
        assert_judged_once(node, gate, yard)
        for before, after in zip(chain, chain[1:]):
            node.assert_followed(before, after)
        assert len({record.header.epoch for _, _, record in node.told() if hasattr(record, "header")}) == 1


def test_after_a_rotation_each_process_starts_again_as_after_any_other_day():
    with running() as (node, gate):
        after = node.succeeding()
        rotate(node, node.bundle(after))
        for again in range(2):
            gate.kill()
            node.stop()
            if again:
                node.restart_eval()
            node.bridge()
            gate.start()
            gate.goes_on()
        rotate(node, node.bundle(after))  # in place already
        assert_judged_once(node, gate)
        node.assert_followed(node.agreement, after)


def test_without_the_new_keys_the_old_agreement_goes_on_and_the_next_try_succeeds(caplog):
    with running() as (node, gate):
        after = node.succeeding(grant=False)
        folder = node.bundle(after)
        with pytest.raises(KeyRefused, match="no slot holds the city's data key.*what was in force goes on"):
            rotate(node, folder)
        gate.goes_on()
        for restart in (node.restart_eval, node.stop, gate.restart):  # whatever is started again: the old one goes on
            restart()
            if node.is_dead:
                node.bridge()
            gate.goes_on()
        assert {under.number for under, _, _ in node.told()} == {1}
        node.grant(after)
        rotate(node, folder)
        gate.goes_on()
        assert node.in_place() == [2]
        assert_judged_once(node, gate)
        node.assert_followed(node.agreement, after)


def test_after_the_end_in_the_placement_inputs_the_next_agreement_follows_on_a_bridge_that_started_since(caplog):
    """Nothing is loaded under an agreement that has ended, and a rotation needs a bridge."""
    until_s = int(time.time()) + 5
    with running(placement="inputs", until_s=until_s) as (node, gate):
        until(lambda: any(kind == RecordKind.HEARTBEAT and record.time_ns // 10 ** 9 >= until_s
                          for _, kind, record in node.told()))
        after = node.succeeding(until_s=until_s + 10 ** 8)
        for count, restart in enumerate((node.stop, node.restart_eval), 1):
            restart()
            if node.is_dead:
                node.bridge()
            until(lambda: len([record for record in caplog.records
                               if record.getMessage().startswith("model_not_loaded")]) == count)
            until(lambda: "ended at " in (node.status()["cameras"]["gate"]["postponed_for"] or ""))
        rotate(node, node.bundle(after))
        gate.goes_on()
        assert node.in_place() == [2]
        assert_judged_once(node, gate)


def another_city(node):
    """Its agreement stands in the configuration, too, and its keys are there."""
    qdo = Ed25519PrivateKey.generate()
    recipients = tuple(to._replace(rcpt=os.urandom(16), alert_key=os.urandom(16)) for to in node.agreement.recipients)
    made = replace(node.agreement, qdo=public_bytes(qdo), data_key=os.urandom(16), recipients=recipients)
    node.data[made.digest] = os.urandom(32)
    node.alert.update({to.alert_key: os.urandom(32) for to in recipients})
    node.papers.append((made, sign(made.encode(), node.mo_key, qdo)))
    node.agreements.append(made)
    node.grant(made)


@contextmanager
def full():
    """As many cities as the enclave takes agreements."""
    with Node() as node:
        for _ in range(wire.EVAL_AGREEMENTS_MAX - 1):
            another_city(node)
        node.bridge()
        gate = Watching(node)
        gate.goes_on()
        yield node, gate
        gate.stop()


def test_where_the_enclave_has_no_room_a_rotation_says_so_and_leaves_nothing_behind(capsys):
    with full() as (node, gate):
        folder = node.bundle(node.succeeding(node.agreement))
        for staged in (False, True):
            if staged:
                rotate(node, folder, reload=False)
            assert edgectl.main(["rotate", folder, "--config", node.path]) == ConfigError.exit_code
            line, = capsys.readouterr().err.splitlines()
            assert "0.agreement.next: the enclave holds 4 agreements, as many as it can" in line
            assert "model" not in line and "what was in force goes on" in line
            assert node.in_place() == [1] * wire.EVAL_AGREEMENTS_MAX
            assert [(one["state"], one["next"]) for one in node.status()["agreements"]] == [("in force", None)] * 4
        gate.goes_on()


def test_what_is_to_follow_one_citys_agreement_puts_no_others_out_of_force_at_any_start(caplog):
    with full() as (node, gate):
        rotate(node, node.bundle(node.succeeding(node.agreement)), reload=False)
        for restart in (node.stop, node.restart_eval):
            restart()
            if node.is_dead:
                node.bridge()
            gate.goes_on()
            states = [one["state"] for one in node.status()["agreements"]]
            assert states == ["waits", "in force", "in force", "in force"]
        told = [record.getMessage() for record in caplog.records if record.getMessage().startswith("agreement_waits")]
        assert told and all("number=2" in one and "as many as it can" in one for one in told)


def test_beacons_of_both_agreements_are_answered_though_they_wait_together():
    with running() as (node, gate):
        node.city.stop()
        after = node.succeeding()
        folder = node.bundle(after)
        gate.kill()  # so that its session stays under the old one
        rotation.stage(rotation._judged(config.load(node.path, {}), bundles.read(folder)))
        assert node.ask("reload")[0] == "ok"
        salt = split_record_of(node).salt
        with Dealer(node.address, b"outbox") as outbox:
            until(lambda: outbox.send(messages.pack("beacon", {}, b"")))
            for under in (node.agreement, after):
                to, = under.recipients
                outbox.send(messages.pack("beacon", {}, seal_beacon(node.alert[to.alert_key], salt, CITY, under.digest,
                                                                    10 ** 9, under.digest[:16])))
            until(lambda: {record.nonce for _, kind, record in node.told() if kind == RecordKind.HEARTBEAT}
                  == {node.agreement.digest[:16], after.digest[:16]})
        gate.start()


def split_record_of(node):
    with Spool(os.path.join(node.folder, "state", "spool.db"), CAPS) as spool:
        return split_record(spool.pending(CITY, 0, 1 << 20)[-1][1])[0]


@pytest.mark.parametrize("beacons", ["of the old one", "none"])
def test_the_old_agreement_goes_on_until_the_city_reads_under_the_new_one(capsys, beacons):
    """Else the city is told, under keys that it does not know, that what it knows has ended."""
    with running() as (node, gate):
        node.city.adopts = lambda agreement: beacons != "none" and agreement == node.agreement
        after = node.succeeding()
        folder = node.bundle(after)
        for _ in range(2):
            assert edgectl.main(["rotate", folder, "--config", node.path, "--wait", "1"]) == BusError.exit_code
            told = capsys.readouterr()
            assert told.err.count("\n") == 1 and "the city has not adopted agreement 2 yet" in told.err
            assert "edged-city adopt" in told.err and "waits for a beacon under agreement 2" in told.out
            gate.goes_on()
            judged = {under.number for under, kind, _ in node.told() if kind == RecordKind.OBSERVATION}
            assert judged == {1} and node.status()["agreements"][0]["state"] == "unread"
            node.stop()  # nothing but beacons changes that
            node.bridge()
            gate.goes_on()
        node.city.adopts = lambda agreement: True
        rotate(node, folder)
        gate.goes_on()
        assert node.in_place() == [2]
        assert_judged_once(node, gate)
        node.assert_followed(node.agreement, after)


def test_cameras_wait_for_each_recipient_that_is_alive_under_the_former_agreement_and_it_is_said_for_whom(capsys):
    """What is judged under one that he has not adopted lies on the node until he has."""
    with running(alert_key_bytes=(32, 32)) as (node, gate):
        police = node.agreement.recipients[1].rcpt
        after = node.succeeding()
        node.city.reads = lambda agreement, rcpt: agreement == node.agreement or rcpt == CITY
        folder = node.bundle(after)
        assert edgectl.main(["rotate", folder, "--config", node.path, "--wait", "1"]) == BusError.exit_code
        told = capsys.readouterr()
        assert "no beacon of {} came under it: agreement 1 goes on".format(police.hex()) in told.err
        until(lambda: [one["unread"] for one in node.status()["agreements"]] == [[police.hex()]])
        assert any(under == after and kind == RecordKind.HEARTBEAT for under, kind, _ in node.told())
        gate.goes_on()
        assert {under.number for under, kind, _ in node.told(police) if kind == RecordKind.OBSERVATION} == {1}
        assert node.status()["agreements"][0]["state"] == "unread"
        node.city.reads = lambda agreement, rcpt: True
        rotate(node, folder)
        gate.goes_on()
        assert node.status()["agreements"][0]["unread"] == [] and node.in_place() == [2]
        assert_judged_once(node, gate)
        for rcpt in (CITY, police):
            node.assert_followed(node.agreement, after, rcpt)


def test_what_is_claimed_of_a_camera_that_is_gone_is_said_where_the_city_reads(monkeypatch):
    """The next agreement waits for the city to adopt it, and the enclave starts anew: nobody would read it."""
    with running(cameras=("gate", "yard")) as (node, gate, yard):
        node.city.adopts = lambda agreement: agreement == node.agreement
        with pytest.raises(BusError, match="has not adopted"):
            rotate(node, node.bundle(node.succeeding()), wait_s=0.5)
        yard.kill()
        node.stop()
        node.restart_eval()
        monkeypatch.setattr(desk, "CALL_S", 0.1)
        node.bridge()

        def lost():
            claims = [(under.number, cbor2.loads(record.data)) for under, kind, record in node.told()
                      if kind == RecordKind.CAMERA]
            return [number for number, said in claims if (said["camera"], said["state"]) == ("yard", "lost")]

        until(lost)
        assert set(lost()) == {1}
        gate.goes_on()


def test_a_camera_that_is_gone_holds_nothing_up(monkeypatch):
    monkeypatch.setattr(desk, "ABSENT_S", 0.2)
    with running(cameras=("gate", "yard")) as (node, gate, yard):
        yard.kill()
        after = node.succeeding()
        rotate(node, node.bundle(after))
        gate.goes_on()
        yard.start()
        yard.goes_on()
        assert_judged_once(node, gate, yard)
        node.assert_followed(node.agreement, after)


def test_a_camera_without_its_new_key_stays_and_is_named():
    with running(cameras=("gate", "yard")) as (node, gate, yard):
        after = node.succeeding()
        folder = node.bundle(after)
        stage = rotation._judged(config.load(node.path, {}), bundles.read(folder))
        rotation.stage(stage)
        os.unlink(str(beside.key_path(stage.config.camera("yard").key, after.digest)))
        assert node.ask("reload")[0] == "ok"
        with pytest.raises(BusError, match="not gone over: yard, see their logs"):
            rotation._await_end(stage, 1.0)
        yard.goes_on()  # the old key is not taken for the new one
        rotate(node, folder)
        yard.goes_on()
        assert_judged_once(node, gate, yard)
        node.assert_followed(node.agreement, after)


@contextmanager
def two_cities():
    """The node, its camera of either, and the second one's recipient."""
    with Node(cameras=("gate", "yard")) as node, Node() as stranger:
        other = replace(stranger.agreement, mo=node.agreement.mo, model=node.agreement.model, recipients=(
            stranger.agreement.recipients[0]._replace(rcpt=b"another city\0\0\0\0"),))
        node.papers.append((other, sign(other.encode(), node.mo_key, stranger.qdo_key)))
        node.agreements.append(other)
        node.data[other.digest] = stranger.data_key
        to, = other.recipients
        node.alert[to.alert_key] = stranger.alert_keys[0]
        node.grant(other)
        node.put_under("yard", 1)
        node.bridge()
        gate, yard = (Watching(node, name) for name in node.cameras)
        node.city = City(node)
        yield node, gate, yard, to
        node.city.stop()
        for one in (gate, yard):
            one.stop()


def test_two_cities_on_one_node_and_one_of_them_rotates():
    with two_cities() as (node, gate, yard, to):
        after = node.succeeding(node.agreement, number=9)
        rotate(node, node.bundle(after))
        for one in (gate, yard):
            one.goes_on()
        assert node.in_place() == [9, 1]
        assert_judged_once(node, gate)
        node.assert_followed(node.agreement, after)
        assert_judged_once(node, yard, rcpt=to.rcpt)
        assert {under.number for under, _, _ in node.told(to.rcpt)} == {1}


def test_as_many_cameras_as_the_enclave_has_sessions_go_over():
    names = tuple("camera-{}".format(number) for number in range(wire.EVAL_SESSIONS_MAX))
    with running(cameras=names) as (node, *watching):
        after = node.succeeding()
        rotate(node, node.bundle(after))
        for one in watching:
            one.goes_on(1)
        assert_judged_once(node, *watching)
        node.assert_followed(node.agreement, after)


def test_the_commands_say_what_they_did(capsys):
    with running() as (node, gate):
        after = node.succeeding(grant=False)
        folder = node.bundle(after)
        given = ["rotate", folder, "--config", node.path]
        assert edgectl.main(given) == KeyRefused.exit_code
        told = capsys.readouterr()
        assert told.err.count("\n") == 1 and "install the owners' grants for agreement 2" in told.err
        assert edgectl.main(["reload", "--config", node.path]) == KeyRefused.exit_code
        node.grant(after)
        assert edgectl.main(["reload", "--config", node.path]) == 0
        assert edgectl.main(given + ["--wait", "20"]) == 0
        assert "replaced {}".format(node.config().enclave.agreements[0]) in capsys.readouterr().out
        assert edgectl.main(given + ["--wait", "-1"]) == 2
        node.stop()
        assert edgectl.main(["reload", "--config", node.path]) == BusError.exit_code


def test_keys_keep_their_owner_and_mode_and_nothing_is_printed_of_them(capsys):
    with running() as (node, gate):
        os.chmod(str(node.config().enclave.agreements[0]), 0o640)
        after = node.succeeding()
        rotate(node, node.bundle(after))
        key = node.config().camera("gate").key
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
        assert stat.S_IMODE(node.config().enclave.agreements[0].stat().st_mode) == 0o640
        assert key.read_bytes() == bundles.camera_key(node.data[after.digest], "gate")
        assert key.read_bytes().hex() not in capsys.readouterr().out


# What does not follow.


@pytest.mark.parametrize("changes, error, match", [
    (dict(number=1), ConfigError, "agreement 1 does not follow agreement 1: its number must be higher"),
    (dict(number=0), ConfigError, "agreement 0 does not follow agreement 1"),
])
def test_a_bundle_that_does_not_follow_changes_nothing(changes, error, match):
    with Node() as node:
        node.config()
        before = sorted(os.listdir(node.folder))
        folder = node.bundle(node.succeeding(**changes))
        with pytest.raises(error, match=match):
            rotate(node, folder)
        assert sorted(os.listdir(node.folder)) == sorted(before + [os.path.basename(folder)])


@pytest.mark.parametrize("changes, error, match", [
    (dict(slots=(bundles.SlotKey("model", "model.key", b"k" * 32, b"i" * 16, b"v" * 32),)), KeyRefused,
     "keys in clear: an emulated node with such keys is set up anew"),
    (dict(address="tcp://127.0.0.1:5556"), ConfigError, "subscriber city has another address than the bundle"),
    (dict(cameras=(("yard", bytes(32)),)), ConfigError,
     "camera gate is judged under agreement 1, and the bundle has no key for it"),
])
def test_a_bundle_of_another_node_or_city_changes_nothing(changes, error, match):
    with Node() as node:
        node.config()
        folder = node.bundle(node.succeeding(), **changes)
        before = sorted(os.listdir(node.folder))
        with pytest.raises(error, match=match):
            rotate(node, folder)
        assert sorted(os.listdir(node.folder)) == before


def test_an_agreement_of_other_owners_is_no_successor():
    with Node() as node, Node() as other:
        node.config()
        with pytest.raises(ConfigError, match="no agreement of the owners of agreement 2"):
            rotate(node, other.bundle(other.succeeding()))


def test_a_second_rotation_waits_for_the_first_to_end():
    with Node() as node:
        node.config()
        rotate(node, node.bundle(node.succeeding()), reload=False)
        with pytest.raises(KeyRefused, match="another agreement is about to follow"):
            rotate(node, node.bundle(node.succeeding()), reload=False)


@pytest.mark.parametrize("content", [b"", b"no agreement", "older", "foreign", "unsigned"])
def test_whatever_lies_beside_an_agreement_without_following_it_is_named_and_changes_nothing(caplog, content):
    with running() as (node, gate):
        older = replace(node.agreement, number=0)
        foreign = replace(node.agreement, number=2)
        forged = {"older": sign(older.encode(), node.mo_key, node.qdo_key),
                  "foreign": sign(replace(foreign, qdo=node.agreement.mo).encode(), node.mo_key, node.mo_key),
                  "unsigned": sign(foreign.encode(), node.mo_key, node.mo_key)}.get(content, content)
        path = str(beside.next_path(node.config().enclave.agreements[0]))
        with open(path, "wb") as file:
            file.write(forged)
        kind, answer = node.ask("reload")
        assert kind == "refused" and path in answer["reason"]
        gate.goes_on()
        node.stop()
        node.bridge()
        assert [record for record in caplog.records if record.getMessage().startswith("agreement_faulty")]
        gate.goes_on()
        assert {under.number for under, _, _ in node.told()} == {1}


@pytest.mark.parametrize("spoil", [lambda data: b"", lambda data: data[:-1] + bytes([data[-1] ^ 1])],
                         ids=["empty", "forged"])
def test_a_reload_of_an_agreement_that_was_altered_is_refused_and_the_one_in_force_goes_on(spoil):
    with running() as (node, gate):
        path = node.config().enclave.agreements[0]
        right = path.read_bytes()
        path.write_bytes(spoil(right))
        kind, answer = node.ask("reload")
        assert kind == "refused" and str(path) in answer["reason"]
        gate.goes_on()
        path.write_bytes(right)
        assert node.ask("reload")[0] == "ok"
        assert node.ask("reload", more=1)[0] == "refused"


def test_the_bridge_forgets_no_agreement_that_is_in_force():
    with running() as (node, gate):
        after = node.succeeding()
        with open(str(node.config().enclave.agreements[0]), "wb") as file:
            file.write(sign(after.encode(), node.mo_key, node.qdo_key))
        kind, answer = node.ask("reload")
        assert kind == "refused" and "agreement 1 is in force, and neither named here nor followed" in answer["reason"]
        gate.goes_on()


@pytest.mark.parametrize("frames", [
    [b"follow", b"\xa0"], messages.pack("follow", {"agreement": b"short"}),
    messages.pack("follow", {"agreement": bytes(32)}), messages.pack("follow", {"agreement": bytes(32)}, b"blob"),
], ids=["empty", "short", "unknown", "blob"])
def test_a_forged_message_to_a_camera_changes_nothing_but_what_lies_on_the_disk(frames):
    with running() as (node, gate):
        gate.link._take(Message(b"", frames, None))
        gate.goes_on()
        assert gate.link._next is None and gate.link._under.agreement == node.agreement.digest


@pytest.mark.parametrize("content", [b"", b"\xff", b"\x01", b"\x81\x41a", b"\x81\x01"])
def test_a_list_of_what_is_over_that_is_of_no_use_counts_as_empty(tmp_path, content, caplog):
    (tmp_path / "followed").write_bytes(content)
    made = Followed(tmp_path)
    assert b"d" * 32 not in made and "followed: not read" in caplog.text
    made.add(b"d" * 32)
    assert b"d" * 32 in Followed(tmp_path)
    for number in range(100):
        made.add(bytes([number]) * 32)
    assert bytes([99]) * 32 in Followed(tmp_path)
    assert bytes(32) not in Followed(tmp_path)


# Killed at any moment.


def in_rotate(monkeypatch, act):
    """``act`` with the number, from 1 on, of each moment of the command: before whatever it does to the node."""
    numbers = itertools.count(1)

    def around(honest, counts):
        def watched(*arguments, **more):
            if counts(*arguments):
                act(next(numbers))
            return honest(*arguments, **more)

        return watched

    for name in ("_write", "ask_reload", "_await_end", "_clear", "sync_folder"):
        monkeypatch.setattr(rotation, name, around(getattr(rotation, name), lambda *_: True))
    monkeypatch.setattr(os, "replace", around(os.replace, lambda path, _: str(path).endswith(".next")))


def stopped_in_rotate(monkeypatch, node, folder, moment):
    """The command, up to this moment of it."""
    def act(number):
        if number == moment:
            raise Killed()

    with monkeypatch.context() as patched:
        in_rotate(patched, act)
        with pytest.raises(Killed):
            rotate(node, folder)


@pytest.mark.parametrize("stop", range(1, 14))
def test_a_rotation_that_is_stopped_anywhere_leaves_a_node_that_works_and_is_completed_by_the_next(monkeypatch, stop):
    with running(cameras=("gate", "yard")) as (node, gate, yard):
        after = node.succeeding()
        folder = node.bundle(after)
        stopped_in_rotate(monkeypatch, node, folder, stop)
        for one in (gate, yard):
            one.restart()
            one.goes_on()
        node.stop()
        node.bridge()
        for one in (gate, yard):
            one.goes_on()
        node.restart_eval()
        for one in (gate, yard):
            one.goes_on()
        rotate(node, folder)
        for one in (gate, yard):
            one.goes_on()
        assert node.in_place() == [2]
        assert_judged_once(node, gate, yard)
        node.assert_followed(node.agreement, after)


# A camera process that starts at any moment.

# Of a rotation with one camera, as ``in_rotate`` counts them.
BEGINS, KEY_STAGED, STAGED, BOTH_IN_FORCE, OVER, CLEARED, HALF_SETTLED, SETTLED, TIDY, UNLOADED = range(1, 11)
STARTS = pytest.mark.parametrize("start", range(BEGINS, UNLOADED + 1))


class AsRead(beside.CameraKeys):
    """What the process read as it started is what it says first, however late that is."""

    def __init__(self, *given):
        super().__init__(*given)
        self.first = super().read()

    def read(self, had=None):
        first, self.first = self.first, None
        return first or super().read(had)


def slow(name, reached, goes_on):
    """Keys whose reader stops before one of its steps until ``goes_on`` is set, and has not reached the bridge yet."""

    class Slow(AsRead):
        pass

    def step(self, *given):
        reached.set()
        assert goes_on.wait(PATIENCE_S)
        return getattr(super(Slow, self), name)(*given)

    setattr(Slow, name, step)
    return Slow


def assert_no_loop(watching, *named):
    """It named these agreements, one after the other, and said hello so often only because a hello may be lost."""
    said = watching.link.hellos
    assert [one for one, _ in itertools.groupby(said)] == [one.digest for one in named]
    assert len(said) <= 12 and len(watching.link.followed) <= 24
    assert watching.link.counts.refused == watching.link.counts.skipped == 0


@STARTS
def test_a_camera_that_starts_again_at_any_moment_of_a_rotation_is_judged(monkeypatch, start):
    with running() as (node, gate):
        after = node.succeeding()

        def act(number):
            if number == start:
                gate.restart()
                gate.goes_on()

        in_rotate(monkeypatch, act)
        rotate(node, node.bundle(after))
        gate.goes_on()
        assert_no_loop(gate, *([node.agreement, after] if start < HALF_SETTLED else [after]))
        assert node.in_place() == [2]
        assert_judged_once(node, gate)
        node.assert_followed(node.agreement, after)


@STARTS
def test_a_camera_that_read_its_files_at_any_moment_and_says_hello_after_the_rotation_is_judged(monkeypatch, start):
    monkeypatch.setattr(desk, "ABSENT_S", 0.2)
    with running() as (node, gate):
        after, read, resumed = node.succeeding(), threading.Event(), threading.Event()

        class Suspended(AsRead):
            def __init__(self, *given):
                super().__init__(*given)
                read.set()
                assert resumed.wait(PATIENCE_S)

        def act(number):
            if number == start:
                gate.restart(Suspended)
                assert read.wait(PATIENCE_S)

        in_rotate(monkeypatch, act)
        rotate(node, node.bundle(after))
        resumed.set()
        gate.goes_on()
        assert_no_loop(gate, *([node.agreement, after] if start < HALF_SETTLED else [after]))
        assert_judged_once(node, gate)
        node.assert_followed(node.agreement, after)


@pytest.mark.parametrize("start", [STAGED, CLEARED, HALF_SETTLED])
@pytest.mark.parametrize("step", ["_following", "_named", "_named_key", "_staged"])
def test_a_rotation_that_settles_while_a_camera_reads_is_no_harm(monkeypatch, start, step):
    monkeypatch.setattr(desk, "ABSENT_S", 0.2)
    with running() as (node, gate):
        after, reached, goes_on = node.succeeding(), threading.Event(), threading.Event()

        def act(number):
            if number == start:
                gate.restart(slow(step, reached, goes_on))
                assert reached.wait(PATIENCE_S)
            elif number == UNLOADED:
                goes_on.set()

        in_rotate(monkeypatch, act)
        rotate(node, node.bundle(after))
        gate.goes_on()
        assert_no_loop(gate, *([after] if step in ("_following", "_named") else [node.agreement, after]))
        assert_judged_once(node, gate)
        node.assert_followed(node.agreement, after)


@STARTS
def test_power_that_is_lost_at_any_moment_of_a_rotation_leaves_cameras_that_are_judged(monkeypatch, start):
    """Everything starts again at once, and nobody runs the command for a while."""
    with running() as (node, gate):
        after = node.succeeding()
        folder = node.bundle(after)
        stopped_in_rotate(monkeypatch, node, folder, start)
        gate.kill()
        node.stop()
        node.restart_eval()
        node.bridge()
        gate.start()
        gate.goes_on()
        assert gate.link.counts.refused == 0
        rotate(node, folder)
        gate.goes_on()
        assert gate.link.hellos[-1] == after.digest and len(gate.link.hellos) <= 12
        assert node.in_place() == [2]
        assert_judged_once(node, gate)
        node.assert_followed(node.agreement, after)


@pytest.mark.parametrize("start", [STAGED, BOTH_IN_FORCE, OVER, HALF_SETTLED, SETTLED])
@pytest.mark.parametrize("late", [False, True])
def test_of_two_cities_on_one_node_one_rotates_and_its_camera_starts_again(monkeypatch, start, late):
    monkeypatch.setattr(desk, "ABSENT_S", 0.2)
    with two_cities() as (node, gate, yard, to):
        after, reached, goes_on = node.succeeding(node.agreement, number=9), threading.Event(), threading.Event()

        def act(number):
            if number == start and late:
                gate.restart(slow("_named_key", reached, goes_on))
                assert reached.wait(PATIENCE_S)
            elif number == start:
                gate.restart()
                gate.goes_on()

        in_rotate(monkeypatch, act)
        rotate(node, node.bundle(after))
        goes_on.set()
        for one in (gate, yard):
            one.goes_on()
        assert node.in_place() == [9, 1]
        assert_judged_once(node, gate)
        node.assert_followed(node.agreement, after)


MOMENTS = ((EvalClient, "put_agreement"), (EvalClient, "open_session"), (EvalClient, "close_session"),
           (EvalClient, "succeed"), (EvalClient, "confirm"), (Spool, "put"), (Followed, "add"), (link.Link, "take_up"))


def at_moment(monkeypatch, due, act):
    """Once, around everything that a rotation does in the bridge, ``act`` at the due-th moment."""
    moments, armed = itertools.count(1), threading.Event()

    def moment():
        if armed.is_set() and next(moments) == due:
            act()

    for owner, name in MOMENTS:
        honest = getattr(owner, name)

        def watched(self, *arguments, honest=honest):
            moment()
            answer = honest(self, *arguments)
            moment()
            return answer

        monkeypatch.setattr(owner, name, watched)
    return armed


@pytest.mark.parametrize("due", [due if due in (2, 5, 9, 14, 20, 30) else pytest.param(due, marks=pytest.mark.slow)
                                 for due in range(1, 40)])
@pytest.mark.parametrize("victim", ["bridge", "enclave", "camera"])
def test_whoever_is_killed_in_a_rotation_nothing_is_lost_and_it_goes_on(monkeypatch, victim, due):
    with running() as (node, gate):
        after = node.succeeding()
        folder = node.bundle(after)
        dead = threading.Event()

        def act():
            dead.set()
            if victim == "bridge":
                raise Killed()
            if victim == "enclave":
                node.restart_eval()

        armed = at_moment(monkeypatch, due, act)
        armed.set()
        deadline = time.monotonic() + PATIENCE_S
        rotating = threading.Thread(daemon=True, target=retried, args=(
            lambda: rotate(node, folder, wait_s=2), deadline))
        rotating.start()
        while rotating.is_alive():
            assert time.monotonic() < deadline + 5
            if node.is_dead:
                node.join()
                assert isinstance(node.died, Killed), node.died
                node.bridge(wait=False)
            if victim == "camera" and dead.is_set():
                dead.clear()
                gate.restart()
            time.sleep(0.002)
        gate.goes_on()
        assert node.in_place() == [2]
        assert_judged_once(node, gate)
        told = node.told()
        assert [under.number for under, _, _ in told if under == after], "the next one is in use"
        last_old = [(kind, record) for under, kind, record in told if under == node.agreement][-1]
        assert last_old[0] == RecordKind.SUCCESSION
        if victim != "enclave":
            node.assert_followed(node.agreement, after)


def test_an_enclave_that_dies_when_its_last_word_is_stored_does_not_say_it_again(monkeypatch):
    with running() as (node, gate):
        after, honest, died = node.succeeding(), EvalClient.confirm, threading.Event()

        def confirm(self, emission):
            if not died.is_set() and any(kind == RecordKind.SUCCESSION for _, kind, _ in node.told()):
                died.set()
                node.restart_eval()
            return honest(self, emission)

        monkeypatch.setattr(EvalClient, "confirm", confirm)
        retried(lambda: rotate(node, node.bundle(after)), time.monotonic() + PATIENCE_S)
        gate.goes_on()
        assert died.is_set() and node.in_place() == [2]
        assert_judged_once(node, gate)
        node.assert_followed(node.agreement, after)


def retried(act, deadline):
    while True:
        try:
            act()
            return
        except EdgedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


@pytest.mark.parametrize("changes, reason", [
    (dict(least_version=9), "from version 9 on"), (dict(id="another"), "takes another"),
    (dict(key_id=b"k" * 16), "under key"), (dict(rules=(Rule("no such label", 1, 0),)), "has no label"),
    (dict(placements=4), "does not permit it")], ids=str)
def test_no_camera_goes_over_to_an_agreement_that_takes_no_clip_of_the_nodes_package(changes, reason):
    with Node() as node:
        loaded, terms = node.config(), dict(changes)
        model = {name: terms.pop(name) for name in ("least_version", "id", "key_id") if name in terms}
        if "rules" in terms:
            terms["recipients"] = tuple(to._replace(alert_key=os.urandom(16), rules=(0,))
                                        for to in node.agreement.recipients)
        made = node.succeeding(grant=False, model=node.agreement.model._replace(**model), **terms)
        with pytest.raises(ConfigError, match=reason):
            rotation.run(node.bundle(made), node.path)
        assert not beside.next_path(loaded.enclave.agreements[0]).exists()


def test_an_agreement_that_keeps_an_alert_key_does_not_follow_while_the_node_runs():
    with Node() as node:
        node.config()
        made = node.succeeding(grant=False, recipients=node.agreement.recipients)
        with pytest.raises(ConfigError, match="keeps the alert key .*: edged-city keys renew"):
            rotation.run(node.bundle(made), node.path)
