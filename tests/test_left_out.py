"""Several cities on one node, whose keys are granted: none stops another, whatever becomes of its own agreement.
The real enclave, bridge and camera link; which slots hold what the key application says itself."""

import itertools
import os
import shutil
import time
from contextlib import closing, contextmanager
from dataclasses import replace
from os import urandom
from pathlib import Path

import cbor2
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bridge.bridge_node import CAPS, until
from c import build
from edged import artifacts, check, edgectl, rotation, status
from edged.alerts import bundle as bundles
from edged.alerts.record import Epoch, split_record
from edged.alerts.sequence import EpochBegan, EpochRecord, Sequence
from edged.alerts.spool import Spool
from edged.camera import link as camera_link
from edged.emulated import public_bytes
from edged.enclave import keystore, wire
from edged.enclave.client import EvalClient
from edged.enclave.key import KeyClient
from edged.enclave.keystore import KeyStore
from edged.enclave.wire import KeyKind, RecordKind, Status
from edged.errors import EnclaveError, KeyRefused
from edged.keyserver.holder import EVEN_FIRST_SLOT, Holder
from edged.offload import daemon, desk, link, statements
from edged.offload.followed import Followed
from edged.trust.agreement import sign
from edged.trust.cosign import Party
from granting import claims_of
from test_rotation import City, Node, Watching, assert_judged_once, hurried, rotate  # noqa: F401  # a fixture

README = Path(__file__).resolve().parent.parent / "README.md"
FOUR = (32, 16, 32, 32)  # alert keys: as many recipients as an agreement may have
FIRST_SLOTS = (0, EVEN_FIRST_SLOT)
SUBSCRIBER = """
[[subscriber]]
name = "other"
address = "tcp://127.0.0.1:5555"
server_key = "rq:rM>}}U?@Lns47E1%kR.o@n%FcmmsL/@{{H8]yf7"
recipient = "{}"
"""


class Granted(Node):
    """All keys come by grants, as key servers make them. locked : the platform has no store, and floors are needed"""

    def __init__(self, locked=False, **more):
        super().__init__(**more)
        self.numbers, self.floor_s, self.locked = itertools.count(1), itertools.count(1), locked
        self.qdo_keys = {self.agreement.qdo: self.qdo_key}
        self.first_slots = {}

    def put_keys(self):
        self.store = KeyStore(self.enclave.folder)
        with self.key() as key:
            self.store.draw(key)
        self.grant(self.agreement)

    @contextmanager
    def key(self):
        with closing(keystore.connect(self.enclave.folder)) as key:
            yield key

    def holders(self, made):
        citys = {made.data_key: self.data[made.digest]}
        citys.update((to.alert_key, self.alert[to.alert_key]) for to in made.recipients)
        return (Holder(Party.MODEL_OWNER, self.mo_key, {made.model.key_id: self.model_key}),
                Holder(Party.QUERY_DATA_OWNER, self.qdo_keys[made.qdo], citys))

    def grant(self, made, parties=(0, 1)):
        first = self.first_slots.get(made.digest)
        with self.key() as key:
            receiver = claims_of(key).grant
            for party in parties:
                holder = self.holders(made)[party]
                numbered = [(due, next(self.numbers)) for due in holder.due(made, first)]
                for one in holder.grants(made, numbered, receiver):
                    self.store.install(key, one)
        if self.locked:
            self.say(0, *self.agreements)
            self.say(1, made)

    def say(self, party, *agreements, least=1, least_agreement=0, least_model=0):
        """A party's floor: it stands by all that it granted for these; or above, by nothing."""
        with self.key() as key:
            claims = claims_of(key)
            numbers = {due.slot: least for made in agreements
                       for due in self.holders(made)[party].due(made, self.first_slots.get(made.digest))
                       if key.slots()[due.slot].kind}
            self.store.floor(key, self.holders(agreements[0])[party].floor(
                numbers, least_agreement, least_model, claims.bootseed, claims.grant, next(self.floor_s)))

    def second(self, **changes):
        """Another city's agreement, under which yard is judged; its keys are not granted yet."""
        qdo = Ed25519PrivateKey.generate()
        recipients = tuple(to._replace(rcpt=urandom(16), alert_key=urandom(16)) for to in self.agreement.recipients)
        made = replace(self.agreement, **dict(dict(qdo=public_bytes(qdo), data_key=urandom(16), recipients=recipients),
                                              **changes))
        self.qdo_keys[made.qdo] = qdo
        self.data[made.digest] = urandom(32)
        self.alert.update({to.alert_key: urandom(32) for to in made.recipients})
        self.first_slots[made.digest] = EVEN_FIRST_SLOT
        self.papers.append((made, sign(made.encode(), self.mo_key, qdo)))
        self.agreements.append(made)
        self.put_under("yard", 1)
        with open(self.path, "a") as file:
            file.write(SUBSCRIBER.format(made.recipients[0].rcpt.hex()))
        return made

    def bundle(self, made, **changes):
        qdo_key, self.qdo_key = self.qdo_key, self.qdo_keys[made.qdo]
        try:
            return super().bundle(made, **changes)
        finally:
            self.qdo_key = qdo_key

    def grants_of(self, made):
        """Files, of both owners."""
        with self.key() as key:
            receiver = claims_of(key).grant
        for holder in self.holders(made):
            for due in holder.due(made, self.first_slots.get(made.digest)):
                number = next(self.numbers)
                content, = holder.grants(made, [(due, number)], receiver)
                self.write("grant-{}".format(number), content)
                yield os.path.join(self.folder, "grant-{}".format(number))

    def restart_enclave(self):
        """Both applications: the keys that were granted are given back, as `edged enclave` does it."""
        self.enclave.key.kill()
        self.enclave.restart_key()
        with self.key() as key:
            assert self.store.bring_back(key)
        self.restart_eval()

    def stands(self, place=1):
        return self.status()["agreements"][place]


def assert_only_hidden(node, recipient):
    """What the city's subscriber makes of these records: epochs without it, and nothing that is lost or set back."""
    city, hidden = Sequence("n1"), 0
    for _, _, record in node.told(recipient.rcpt):
        body = None
        if isinstance(record, Epoch):
            body = EpochRecord(record.counter, record.unclean, record.previous, record.previous_seq)
        taken = city.receive(record.header.epoch, record.header.seq, body, agreement=node.agreement.digest)
        assert taken.new and not [one for one in taken.events if not isinstance(one, EpochBegan)]
        hidden += sum(one.hidden for one in taken.events)
    return hidden


@contextmanager
def two_cities(other_is_granted=True, **more):
    with Granted(cameras=("gate", "yard"), **more) as node:
        other = node.second()
        if other_is_granted:
            node.grant(other)
        node.bridge()
        gate, yard = (Watching(node, name) for name in node.cameras)
        node.city = City(node)
        gate.goes_on()
        if other_is_granted:
            yard.goes_on()
        yield node, gate, yard, other
        node.city.stop()
        for one in (gate, yard):
            one.stop()


# The slots.


def test_a_city_of_four_recipients_rotates_from_odd_to_even_slots_and_back_while_its_node_runs():
    with Granted(alert_key_bytes=FOUR) as node:
        node.bridge()
        gate = Watching(node)
        gate.goes_on()
        node.city = City(node)
        chain = [node.agreement]
        for turn in range(3):
            chain.append(node.succeeding())
            rotate(node, node.bundle(chain[-1]))
            gate.goes_on()
            first = FIRST_SLOTS[1 - turn % 2]
            with node.key() as key:
                filled = {number: slot.agreement for number, slot in enumerate(key.slots()) if slot.kind}
            assert filled == {number: chain[-1].digest for number in range(first, first + 6)}, "the old keys are gone"
        node.city.stop()
        assert_judged_once(node, gate)
        for before, after in zip(chain, chain[1:]):
            for to in before.recipients:
                node.assert_followed(before, after, to.rcpt)


def test_two_cities_of_four_recipients_share_the_slots_and_start_again():
    with two_cities(alert_key_bytes=FOUR) as (node, gate, yard, other):
        for restart in (node.stop, node.restart_enclave):
            restart()
            if node.is_dead:
                node.bridge()
            for one in (gate, yard):
                one.goes_on()
        node.city.stop()
        assert_judged_once(node, gate)
        for to in other.recipients:
            assert_judged_once(node, yard, rcpt=to.rcpt)


def test_of_two_slots_with_one_key_any_is_taken():
    with Node(alert_key_bytes=FOUR) as node:
        with closing(KeyClient(node.enclave.connect_key())) as key:
            for slot, to in enumerate(node.agreement.recipients, 12):
                key.put_slot(slot, KeyKind.ALERT, node.alert[to.alert_key], to.alert_key, node.agreement.qdo)
            key.clear_slot(3)
        node.bridge()
        Watching(node).goes_on()


def exchanged(slots):
    """Each key where another one is."""
    return slots[:1] + tuple(reversed(slots[1:4])) + slots[4:]


@pytest.mark.parametrize("lie", [
    exchanged, lambda slots: tuple(wire.Listed(1, 0, bytes(16), bytes(32), bytes(32)) for _ in slots),
    lambda slots: tuple(replace(slot, kind=9, flags=0xFFFFFFFF) for slot in slots),
    lambda slots: slots[:2] + (slots[3], slots[2]) + slots[4:]])
def test_who_falsifies_the_list_of_slots_puts_nothing_in_force_and_no_record_under_a_wrong_key(monkeypatch, lie):
    monkeypatch.setattr(daemon, "KEYS_PATIENCE_S", 0.2)
    honest = KeyClient.slots
    monkeypatch.setattr(KeyClient, "slots", lambda self: lie(honest(self)))
    with Node(alert_key_bytes=(32, 32)) as node:
        node.bridge(wait=False)
        until(lambda: node.died is not None, "the bridge goes on")
        assert isinstance(node.died, KeyRefused) and "\n" not in str(node.died)
        node.join()
        with closing(node.eval_client()) as client:
            assert client.info().agreements == 0


def test_what_is_missing_is_named_by_whose_key_it_is():
    with Granted(alert_key_bytes=FOUR) as node:
        with node.key() as key:
            for slot in (0, 4):
                node.store.clear(key, slot)
        node.bridge(wait=False)
        until(lambda: node.status()["reason"] is not None)
        assert node.status()["reason"].endswith(
            "0.agreement: no slot holds the model owner's model key {}, the city's alert key {}: install the owners' "
            "grants for agreement 1, or see slots.toml of enclave.keys".format(
                node.model_key_id.hex(), node.agreement.recipients[2].alert_key.hex()))
        node.grant(node.agreement)
        until(lambda: node.status()["enclave"] == "up", "the keys are there")


# One city's agreement cannot be in force.


def trying(monkeypatch, first_s, last_s=0.3):
    """How often what is left out is tried again."""
    monkeypatch.setattr(daemon, "LEFT_OUT_S", first_s)
    monkeypatch.setattr(daemon, "LEFT_OUT_MAX_S", last_s)


NEVER_S = 1e6


def keys_go(node, other):
    with node.key() as key:
        for slot in (EVEN_FIRST_SLOT + 1, EVEN_FIRST_SLOT + 2):
            node.store.clear(key, slot)


def revoked(node, other):
    node.say(1, other, least=1 << 30)


def outdated(node, other):
    node.say(1, other, least_agreement=other.number + 1)


def damaged(node, other):
    path = node.config().enclave.agreements[1]
    path.write_bytes(path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 1]))


def gone(node, other):
    node.config().enclave.agreements[1].unlink()


def granted_anew(node, other):
    node.numbers = itertools.count(1 << 30)
    node.grant(other, (1,))


def put_back(node, other):
    node.config().enclave.agreements[1].write_bytes(node.papers[1][1])


@pytest.mark.parametrize("go_wrong, state, reason, mend", [
    (keys_go, "missing", "no slot holds the city's data key", granted_anew),
    (revoked, "missing", "no slot holds the city's data key", granted_anew),
    (damaged, "faulty", "signature", put_back),
    (gone, "faulty", "No such file", put_back),
    (outdated, "withdrawn", "agreement 1 was withdrawn by an owner's floor", None),
], ids=["keys gone", "revoked", "damaged", "gone", "below the least number"])
def test_one_city_is_left_out_and_the_others_clips_are_judged(monkeypatch, caplog, go_wrong, state, reason, mend):
    with two_cities() as (node, gate, yard, other):
        go_wrong(node, other)
        for again in range(2):
            node.stop()
            node.restart_enclave()
            node.bridge()
            gate.goes_on()
            assert [one["state"] for one in node.status()["agreements"]] == ["in force", state]
            assert reason in node.stands()["reason"] and "\n" not in node.stands()["reason"]
        node.restart_enclave()  # while the bridge goes on
        gate.goes_on()
        assert node.stands()["state"] == state
        until(lambda: yard.link.session is None, "its camera has no session")
        assert reason in node.ask("exercise", rule=0, agreement=1)[1]["reason"]
        said = [str(one) for one in status.report(node.config())[1]]
        assert len(said) == 1 and "an agreement is left out, its cameras wait: " in said[0] and reason in said[0]
        before = yard.count
        gate.goes_on()
        assert yard.count == before
        assert [record for record in caplog.records if record.getMessage().startswith("agreement_left_out")
                and "1.agreement" in record.getMessage() and reason in record.getMessage()]
        if mend is None:
            node.city.stop()
            return
        until(lambda: "session_refused camera=yard" in caplog.text, "its camera is not told")
        sessions, hellos = node.status()["cameras"]["gate"]["session"], len(gate.link.hellos)
        mend(node, other)
        assert node.ask("reload")[0] == "ok"  # at once, and else within a minute
        yard.goes_on()
        gate.goes_on()
        assert node.status()["cameras"]["gate"]["session"] == sessions and len(gate.link.hellos) == hellos
        assert node.stands()["state"] == "in force" and node.stands()["reason"] is None
        assert not status.report(node.config())[1]
        node.city.stop()
        assert_judged_once(node, gate)
        assert_judged_once(node, yard, rcpt=other.recipients[0].rcpt)
        assert assert_only_hidden(node, node.agreement.recipients[0]) == 0
        assert assert_only_hidden(node, other.recipients[0]) >= 2


def test_a_city_whose_keys_come_later_is_taken_in_by_itself(monkeypatch, caplog):
    trying(monkeypatch, 0.3)
    with two_cities(other_is_granted=False) as (node, gate, yard, other):
        assert node.stands()["state"] == "missing"
        time.sleep(1.0)
        hellos, said = len(gate.link.hellos), caplog.text.count("agreement_left_out")
        assert said == 1, "once, and not at each attempt"
        node.grant(other)
        yard.goes_on()
        gate.goes_on()
        assert len(gate.link.hellos) == hellos and node.stands()["state"] == "in force"
        assert caplog.text.count("agreement_taken_in") == 1
        node.city.stop()
        assert_judged_once(node, gate)
        assert_judged_once(node, yard, rcpt=other.recipients[0].rcpt)


@pytest.mark.skipif(bool(build.missing("make", "gcc")), reason="needs make and gcc")
def test_one_citys_keys_are_locked_and_the_others_clips_are_judged(monkeypatch):
    folder = build.FOLDER / "storeless"
    build.make(str(folder / "edged-key"), "trusty_ta", BUILD=str(folder), COUNTER="0")
    shutil.copy(str(artifacts.find("edged-eval")), str(folder / "edged-eval"))
    monkeypatch.setenv(artifacts.BUILD_VARIABLE, str(folder))
    with two_cities(locked=True) as (node, gate, yard, other):
        node.restart_enclave()
        until(lambda: node.status()["enclave"] == "away", "all are locked")
        node.say(0, *node.agreements)
        node.say(1, node.agreement)
        gate.goes_on()
        assert [one["state"] for one in node.status()["agreements"]] == ["in force", "locked"]
        assert "fetch-grants" in node.stands()["reason"]
        node.stop()
        node.bridge()
        gate.goes_on()
        assert node.stands()["state"] == "locked"
        node.say(1, other)
        assert node.ask("reload")[0] == "ok"
        yard.goes_on()
        gate.goes_on()
        node.city.stop()


def test_a_city_rotates_whatever_becomes_of_the_other(capsys):
    """Its keys, its file: neither is any business of the one that rotates."""
    with two_cities(other_is_granted=False) as (node, gate, yard, other):
        after = node.succeeding(node.agreement, number=2, grant=False)
        node.first_slots[after.digest] = 5  # the other's own, all of them, are to stay free
        node.grant(after)
        damaged(node, other)
        rotate(node, node.bundle(after))
        gate.goes_on()
        assert "agreement 2 is the one in force" in capsys.readouterr().out
        kind, answer = node.ask("reload")
        assert kind == "refused" and "1.agreement" in answer["reason"]
        assert node.ask("reload", agreement=0)[0] == "ok"
        node.city.stop()
        assert_judged_once(node, gate)
        node.assert_followed(node.agreement, after)


def test_records_of_what_was_put_are_kept_though_the_enclave_had_no_room_for_the_next(monkeypatch):
    with two_cities(other_is_granted=False) as (node, gate, yard, other):
        after = node.succeeding(node.agreement, number=2, grant=False)
        node.first_slots.update({after.digest: 4, other.digest: 8})
        node.grant(after)
        node.grant(other)
        honest, full = EvalClient.put_agreement, []

        def put(self, model, data, alerts, signed):
            if signed == node.papers[1][1] and not full:
                full.append(True)
                raise EnclaveError("no room", Status.FULL)
            return honest(self, model, data, alerts, signed)

        monkeypatch.setattr(EvalClient, "put_agreement", put)
        rotation.stage(rotation._judged(node.config(), bundles.read(node.bundle(after))))
        kind, answer = node.ask("reload")
        assert kind == "refused" and full
        until(lambda: (after, RecordKind.EPOCH) in [told[:2] for told in node.told()])
        assert node.stands()["state"] == "refused" and "no room" in node.stands()["reason"]
        assert node.ask("reload")[0] == "ok"
        for one in (gate, yard):
            one.goes_on()
        node.city.stop()


def test_where_only_the_agreement_that_is_left_out_permits_the_placement_it_is_waited_for():
    with Granted(cameras=("gate", "yard"), placement="inputs", placements=1 << wire.Placement.MASKED) as node:
        other = node.second(placements=7)
        node.bridge(wait=False)
        until(lambda: "no slot holds" in (node.status()["reason"] or ""), "it does not say what it waits for")
        assert node.died is None
        node.grant(other)
        until(lambda: node.status()["enclave"] == "up", "the bridge does not come up")
        yard = Watching(node, "yard")
        yard.goes_on()
        yard.stop()


@pytest.mark.parametrize("party, floor, reason, code", [
    (1, "least_agreement", "was withdrawn by an owner's floor", 77), (0, "least_model", "get a later package", 65)])
def test_where_nothing_is_left_above_a_floor_the_bridge_ends_as_the_readme_says(party, floor, reason, code):
    with Granted() as node:
        node.say(party, node.agreement, **{floor: 1 << 30})
        node.restart_enclave()
        node.bridge(wait=False)
        until(lambda: node.died is not None, "the bridge goes on")
        node.join()
        assert reason in str(node.died) and "\n" not in str(node.died) and node.died.exit_code == code
    rows = [line for line in README.read_text(encoding="utf-8").splitlines() if "below a floor" in line]
    assert [row for row in rows if "the bridge ends with {};".format(code) in row and "`SILENT`" in row]


def test_a_city_that_was_left_out_for_good_comes_back_with_its_next_agreement():
    with two_cities() as (node, gate, yard, other):
        outdated(node, other)
        node.restart_enclave()
        until(lambda: node.stands()["state"] == "withdrawn")
        after = node.succeeding(other, number=2, grant=False)
        node.first_slots[after.digest] = 4
        node.grant(after)
        rotate(node, node.bundle(after, name="other", recipient=other.recipients[0].rcpt))
        for one in (gate, yard):
            one.goes_on()
        node.city.stop()
        assert_judged_once(node, gate)
        assert_judged_once(node, yard, rcpt=other.recipients[0].rcpt)


def test_the_check_of_a_configuration_names_the_agreement_that_cannot_be_read_and_no_other():
    with two_cities() as (node, gate, yard, other):
        gone(node, other)
        found = [str(one) for one in check.findings(node.config()) if "agreement" in str(one)]
        assert [one for one in found if "1.agreement" in one] and not [one for one in found if "0.agreement" in one]
        node.city.stop()


# What it costs the others, and the log.


def told_of(caplog, event, **fields):
    """Lines of this event with these fields."""
    words = [event] + ["{}={}".format(name, value) for name, value in fields.items()]
    return [record for record in caplog.records if set(words) <= set(record.getMessage().split())]


def test_while_somebody_else_holds_the_key_port_the_others_connection_goes_on(monkeypatch, caplog):
    trying(monkeypatch, 0.05, 0.1)
    monkeypatch.setattr(link, "KEY_WAIT_S", 0.05)
    with two_cities(other_is_granted=False) as (node, gate, yard, other):
        with node.key():
            until(lambda: "no agreement is taken in" in caplog.text)
            for _ in range(3):
                gate.goes_on()
            kind, answer = node.ask("reload")
            assert kind == "refused" and "busy" in answer["reason"]
        assert len(told_of(caplog, "enclave_up")) == 1 and not told_of(caplog, "enclave_away")
        assert caplog.text.count("no agreement is taken in") == 1, "once, and not at each attempt"
        node.grant(other)
        yard.goes_on()
        node.city.stop()
        assert_judged_once(node, gate)


@pytest.mark.parametrize("error", [EnclaveError("altered", Status.STATE), KeyRefused("of another user"),
                                   EnclaveError("gone"), PermissionError(13, "denied")])
def test_what_the_key_side_refuses_while_a_city_is_left_out_ends_nothing(monkeypatch, caplog, error):
    trying(monkeypatch, 0.05, 0.1)
    with two_cities(other_is_granted=False) as (node, gate, yard, other):
        honest, asked = link.Link.slots, []

        def slots(self):
            asked.append(self)
            raise error

        monkeypatch.setattr(link.Link, "slots", slots)
        until(lambda: len(asked) > 3)
        gate.goes_on()
        assert node.died is None and len(told_of(caplog, "enclave_up")) == 1
        assert caplog.text.count("no agreement is taken in") == 1
        monkeypatch.setattr(link.Link, "slots", honest)
        node.grant(other)
        yard.goes_on()
        node.city.stop()


def test_what_is_left_out_is_tried_ever_more_rarely_until_the_slots_change(monkeypatch):
    trying(monkeypatch, 0.05, NEVER_S)
    honest, asked = link.Link.slots, []
    monkeypatch.setattr(link.Link, "slots", lambda self: asked.append(time.monotonic()) or honest(self))
    with two_cities(other_is_granted=False) as (node, gate, yard, other):
        time.sleep(2.0)
        count = len(asked)
        assert 3 <= count <= 8
        node.grant(other, (0,))  # one owner's, and the other's later
        until(lambda: len(asked) >= count + 5, "seconds that double")
        assert node.stands()["state"] == "missing"
        node.grant(other, (1,))
        yard.goes_on()
        node.city.stop()


def test_edgectl_has_a_running_bridge_look_for_the_keys_that_it_installed(monkeypatch, capsys):
    trying(monkeypatch, NEVER_S, NEVER_S)
    with two_cities(other_is_granted=False) as (node, gate, yard, other):
        monkeypatch.setattr(type(node.config()), "key_folder", node.store.folder)
        assert edgectl.main(["install-grant", "--config", node.path, *node.grants_of(other)]) == 0
        assert not capsys.readouterr().err
        yard.goes_on()
        node.city.stop()
        node.stop()
        assert edgectl.main(["install-grant", "--config", node.path, *node.grants_of(other)]) == 0
        assert not capsys.readouterr().err, "nobody to be asked, and nothing to be said of it"


def test_a_camera_that_was_told_to_wait_is_called_once_its_agreement_is_in_force(monkeypatch):
    monkeypatch.setattr(camera_link, "WAIT_S", 60.0)  # by itself it would not ask again within this test
    trying(monkeypatch, 0.1)
    with two_cities(other_is_granted=False) as (node, gate, yard, other):
        until(lambda: yard.link.hellos)
        hellos = len(gate.link.hellos)
        node.grant(other)
        yard.goes_on()
        assert len(yard.link.hellos) <= 3 and len(gate.link.hellos) == hellos
        node.city.stop()


def test_once_its_keys_came_late_a_citys_camera_is_no_more_said_to_wait_for_them(monkeypatch):
    """Of four recipients all keys: naming them is longer than a claim."""
    monkeypatch.setattr(desk, "PATIENCE_S", 0.0)
    trying(monkeypatch, 0.1)
    with two_cities(other_is_granted=False, alert_key_bytes=FOUR) as (node, gate, yard, other):
        until(lambda: node.status()["cameras"]["yard"]["state"] == "waits")
        assert len(node.stands()["reason"]) > wire.EDGED_CLAIM_MAX
        node.grant(other)
        yard.goes_on()
        gate.goes_on()
        assert node.status()["cameras"]["yard"]["postponed_for"] is None and node.died is None
        assert not [record for _, kind, record in node.told(other.recipients[0].rcpt) if kind == RecordKind.CAMERA
                    and "no slot holds" in cbor2.loads(record.data)["reason"]]
        node.city.stop()


def test_a_refused_session_and_a_refused_beacon_are_logged_once_for_one_reason(monkeypatch, caplog):
    monkeypatch.setattr(camera_link, "WAIT_MAX_S", 0.05)
    honest, refused = EvalClient.beacon, []

    def beacon(self, raw, config):
        try:
            return honest(self, raw, config)
        except EnclaveError:
            refused.append(raw)
            raise

    with two_cities() as (node, gate, yard, other):
        keys_go(node, other)
        node.restart_enclave()
        until(lambda: node.status()["enclave"] == "up" and node.stands()["state"] == "missing")
        monkeypatch.setattr(EvalClient, "beacon", beacon)
        hellos = len(yard.link.hellos)
        until(lambda: len(yard.link.hellos) > hellos + 8 and len(refused) > 8)
        gate.goes_on()
        assert len(told_of(caplog, "session_refused", camera="yard")) == 1
        assert len([one for one in told_of(caplog, "beacon_refused")
                    if other.recipients[0].rcpt.hex() in one.getMessage()]) == 1
        node.city.stop()


def test_while_another_package_is_written_a_city_is_taken_in_and_the_next_connection_has_the_old_one(monkeypatch):
    trying(monkeypatch, 0.05)
    with two_cities(other_is_granted=False) as (node, gate, yard, other):
        path = node.config().enclave.package
        whole = path.read_bytes()
        path.write_bytes(whole[:len(whole) // 2])
        time.sleep(0.5)  # it is tried again several times
        node.restart_eval()
        gate.goes_on()
        path.unlink()
        node.grant(other)
        yard.goes_on()
        node.restart_eval()
        gate.goes_on()
        node.city.stop()


def test_an_agreement_that_names_another_citys_recipient_is_named_so_and_the_check_says_it_before(monkeypatch):
    with Granted(cameras=("gate", "yard"), alert_key_bytes=(32, 32)) as node:
        first = node.agreement.recipients
        other = node.second(recipients=(first[0]._replace(rcpt=urandom(16), alert_key=urandom(16)),
                                        first[1]._replace(alert_key=urandom(16))))
        node.grant(other)
        found = [str(one) for one in check.findings(node.config()) if "recipient" in str(one)]
        assert len(found) == 1 and "1.agreement: names the recipient {}".format(first[1].rcpt.hex()) in found[0]
        assert "`edged-city keys` makes new ids" in found[0] and "\n" not in found[0]
        node.bridge()
        gate = Watching(node, "gate")
        gate.goes_on()
        assert [one["state"] for one in node.status()["agreements"]] == ["in force", "recipient"]
        assert ("1.agreement: names a recipient of another city's: its city has to name its own (`edged-city keys` "
                "makes new ids)") in node.stands()["reason"]
        gate.stop()


def test_what_a_city_that_is_left_out_lost_by_eviction_it_is_told_once_it_reads_again(monkeypatch, caplog):
    monkeypatch.setattr(statements, "EVICT_S", 0.05)
    with two_cities(max_rows=12) as (node, gate, yard, other):
        keys_go(node, other)
        node.restart_enclave()
        until(lambda: node.status()["enclave"] == "up" and node.stands()["state"] == "missing")
        rcpt = other.recipients[0].rcpt

        def announced(to):
            return [one for one in told_of(caplog, "records_evicted") if to.hex() in one.getMessage()]

        known = len(announced(rcpt))

        def pending():
            with Spool(os.path.join(node.folder, "state", "spool.db"), CAPS) as spool:
                return [split_record(sealed)[0].kind for _, sealed in spool.pending(rcpt, 0, 1 << 20)]

        while pending():
            gate.goes_on()
        before = len(announced(node.agreement.recipients[0].rcpt))
        while len(announced(node.agreement.recipients[0].rcpt)) < before + 2:
            gate.goes_on()
        assert len(announced(rcpt)) == known, "nobody can have read it"
        granted_anew(node, other)
        assert node.ask("reload")[0] == "ok"
        until(lambda: RecordKind.EVICTED in pending(), "nobody told the city")
        node.city.stop()


@pytest.mark.parametrize("go_wrong", [None, outdated], ids=["keys missing", "below the least number"])
def test_an_agreement_that_never_ended_does_not_count_as_followed(go_wrong):
    with two_cities(other_is_granted=go_wrong is not None) as (node, gate, yard, other):
        if go_wrong is not None:
            go_wrong(node, other)
            node.restart_enclave()
            until(lambda: node.status()["enclave"] == "up" and node.stands()["state"] == "withdrawn")
        after = node.succeeding(other, number=2, grant=False)
        node.first_slots[after.digest] = 4
        node.grant(after)
        rotation.stage(rotation._judged(node.config(), bundles.read(
            node.bundle(after, name="other", recipient=other.recipients[0].rcpt))))
        for _ in range(2):  # connections to an enclave in which the first city's agreement is in force
            node.stop()
            assert other.digest not in Followed(node.config().node.state)
            node.bridge()
            gate.goes_on()
        node.city.stop()
