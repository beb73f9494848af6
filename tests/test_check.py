"""`edgectl config check` names everything that a node would stumble over, each on one line, and changes nothing."""

import json
import os
import shutil
import socket
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from attacks.networks import small
from edged import check, config, edgectl, status
from edged.alerts.keys import read_signing_key
from edged.beside import key_path
from edged.bus import Router
from edged.errors import BusError, KeyRefused
from edged.offload import messages
from edged.secret import read_secret
from edged.site import Site, Terms
from edged.trust.agreement import DAY_S, open_agreement, sign

CAMERAS = {"gate": ['source = "generator:7"'], "yard": ['source = "recording:people.npz"']}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    model = small()
    folder = tmp_path_factory.mktemp("c")
    site = Site(str(folder), model, "small", Terms(((model.labels[0], 0.5, 5),)), CAMERAS, "tcp://127.0.0.1:5555")
    (site.node / "people.npz").write_bytes(b"x")
    return site


@pytest.fixture
def node(site, tmp_path_factory):
    """A folder with everything that a node needs, to be broken."""
    folder = tmp_path_factory.mktemp("n")
    shutil.copytree(str(site.node), str(folder / "node"))
    return folder / "node"


def checked(node, capsys):
    """(exit code, standard output, lines of standard error without their file)"""
    before = everything(node)
    code = edgectl.main(["config", "check", "--config", str(node / "edged.toml")])
    assert everything(node) == before
    output = capsys.readouterr()
    lines = output.err.splitlines()
    head = "edgectl: {}:".format(node / "edged.toml")
    assert all(line.startswith(head) for line in lines), lines
    return code, output.out, [line[len(head):] for line in lines]


def everything(folder):
    return sorted((str(path), path.stat().st_mtime_ns) for path in Path(folder).rglob("*"))


def edit(node, old, new):
    text = (node / "edged.toml").read_text()
    assert old in text
    (node / "edged.toml").write_text(text.replace(old, new, 1))
    return text[:text.index(old)].count("\n") + 1


def test_a_node_that_has_everything_is_ok(node, capsys):
    assert checked(node, capsys) == (0, "ok\n", [])


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: chown")
def test_root_checks_the_keys_of_every_process_and_these_their_own_alone(node, capsys):
    for number, name in enumerate(("cameras/gate.key", "cameras/yard.key", "curve.key")):
        os.chown(str(node / name), 54321 + number, -1)
    assert checked(node, capsys) == (0, "ok\n", [])
    with pytest.raises(KeyRefused, match="belongs to user 54321"):
        read_secret(str(node / "cameras" / "gate.key"), (32,))


def test_what_is_missing_is_named_in_the_order_of_the_file(node, capsys):
    for name in ("model.pkg", "agreement.cose", "slots/slots.toml", "cameras/yard.key", "people.npz"):
        (node / name).unlink()
    code, output, lines = checked(node, capsys)
    assert (code, output) == (66, "")
    assert [line.split(": ")[1] for line in lines] == [
        "enclave.keys", "enclave.package", "enclave.agreements", "camera.yard.source", "camera.yard.key"]
    assert all("No such file" in line for line in lines)
    numbers = [int(line.split(":")[0]) for line in lines]
    text = (node / "edged.toml").read_text().splitlines()
    assert text[numbers[0] - 1].startswith("keys =") and text[numbers[1] - 1].startswith("package =")


@pytest.mark.parametrize("kind, key", [("host", "enclave.at"), ("trusty", "node.state")])
@pytest.mark.parametrize("left, missing", [("key-state.sealed", "identity.sealed"),
                                           ("identity.sealed", "key-state.sealed")])
def test_a_sealed_file_without_the_other_one_is_named(node, capsys, kind, key, left, missing):
    if kind == "trusty":
        text = (node / "edged.toml").read_text().replace('kind = "host"', 'kind = "trusty"')
        (node / "edged.toml").write_text("".join(
            line for line in text.splitlines(True) if not line.startswith("keys =")))
    folder = config.load(str(node / "edged.toml")).key_folder
    folder.mkdir(exist_ok=True, parents=True)
    (folder / left).write_bytes(b"s")
    code, _, lines = checked(node, capsys)
    found = [line for line in lines if missing + ": is missing" in line]
    assert code and len(found) == 1 and ": {}: ".format(key) in found[0] and "identity new --again" in found[0]


@pytest.mark.parametrize("name, key", [("cameras/gate.key", "camera.gate.key"), ("curve.key", "outbox.key"),
                                       ("slots/slot-0.key", "enclave.keys")])
def test_a_key_that_others_may_read_ends_with_77(node, capsys, name, key):
    if not (node / name).exists():
        name = next(str(path.relative_to(node)) for path in (node / "slots").glob("*.key"))
    (node / name).chmod(0o644)
    code, _, lines = checked(node, capsys)
    assert code == 77
    assert len(lines) == 1 and ": {}: ".format(key) in lines[0] and "chmod 600" in lines[0]


@pytest.mark.parametrize("name, content, key, code, message", [
    ("cameras/gate.key", bytes(31), "camera.gate.key", 77, "not a key of 16 or 32 raw bytes"),
    ("curve.key", b"#" * 40, "outbox.key", 77, "no secret key of CURVE"),
    ("curve.key", b"short", "outbox.key", 77, "not a key of 40 raw bytes"),
    ("model.pkg", b"", "enclave.package", 65, ""),
    ("model.pkg", b"nonsense" * 100, "enclave.package", 65, ""),
    ("agreement.cose", b"nonsense", "enclave.agreements", 65, "agreement"),
    ("people.npz", b"", "camera.yard.source", 65, "is empty"),
    ("slots/slots.toml", b"[[slot]]\nnumber = 99\n", "enclave.keys", 78, "slots.toml:2: slot.number: 99"),
])
def test_a_file_of_other_content_is_named(node, capsys, name, content, key, code, message):
    (node / name).write_bytes(content)
    found, _, lines = checked(node, capsys)
    assert found == code
    assert len(lines) == 1 and ": {}: ".format(key) in lines[0] and message in lines[0]


def test_an_agreement_that_was_altered_ends_with_76(node, capsys):
    signed = bytearray((node / "agreement.cose").read_bytes())
    signed[-1] ^= 1
    (node / "agreement.cose").write_bytes(signed)
    code, _, lines = checked(node, capsys)
    assert code == 76
    assert len(lines) == 1 and "signature does not verify" in lines[0] and "agreement.cose" in lines[0]


def test_a_key_of_the_agreement_that_no_slot_has_is_named(node, capsys):
    text = (node / "slots" / "slots.toml").read_text()
    key_id = text[text.index('key_id = "') + 10:][:32]
    (node / "slots" / "slots.toml").write_text(text.replace(key_id, "00" * 16))
    code, _, lines = checked(node, capsys)
    assert code == 78
    assert len(lines) == 1 and key_id in lines[0] and "no slot of enclave.keys has it" in lines[0]


def test_a_recipient_that_no_agreement_names_is_named_with_the_line_of_its_table(node, capsys):
    text = (node / "edged.toml").read_text()
    rcpt = text[text.index('recipient = "') + 13:][:32]
    line = edit(node, rcpt, "ff" * 16)
    assert checked(node, capsys) == (78, "", ["{}: subscriber.recipient: {}: no agreement names this recipient: it "
                                              "would never get a record".format(line, "ff" * 16)])


def test_two_cameras_with_one_key_are_named(node, capsys):
    shutil.copy(str(node / "cameras" / "gate.key"), str(node / "cameras" / "yard.key"))
    code, _, lines = checked(node, capsys)
    assert code == 78 and "the same key as that of camera gate" in lines[0]


# The end of an agreement's time.


def in_days(days):
    return int(time.time()) + days * DAY_S + 60


def warned(node, capsys):
    """(exit code, standard output, standard error)"""
    code = edgectl.main(["config", "check", "--config", str(node / "edged.toml")])
    output = capsys.readouterr()
    return code, output.out, output.err


def test_an_agreement_that_ended_is_named(site, node, capsys):
    agree(site, node / "agreement.cose", until_s=in_days(-1))
    code, output, lines = checked(node, capsys)
    assert (code, output, len(lines)) == (78, "", 1)
    assert "enclave.agreements: " in lines[0] and "agreement 1 ended at " in lines[0] and "edgectl rotate" in lines[0]


@pytest.mark.parametrize("days, words", [(13, "in 13 days"), (0, "in less than a day")])
def test_an_agreement_that_ends_soon_is_one_line_and_no_fault(site, node, capsys, days, words):
    agree(site, node / "agreement.cose", until_s=in_days(days))
    code, output, said = warned(node, capsys)
    assert (code, output) == (0, "ok\n") and said.count("\n") == 1
    assert said.startswith("edgectl: warning: {}:".format(node / "edged.toml"))
    assert "enclave.agreements: " in said and "agreement 1 ends at " in said and words in said


def test_an_agreement_that_another_follows_in_time_is_not_warned_of(site, node, capsys):
    agree(site, node / "agreement.cose", until_s=in_days(-1))
    stage(site, node, until_s=in_days(15))
    assert "ended" not in warned(node, capsys)[2]
    stage(site, node, until_s=in_days(13))
    assert "agreement 2 ends at " in warned(node, capsys)[2]
    agree(site, node / "agreement.cose.next", number=1, until_s=in_days(15))  # it follows nothing
    assert "agreement 1 ended at " in warned(node, capsys)[2]


def test_status_of_a_node_that_judges_nothing_ends_with_69_and_says_of_which_camera(node, capsys):
    camera, agreement = TOLD["cameras"]["gate"], TOLD["agreements"][0]
    told = dict(TOLD, cameras={"gate": dict(camera, state="waits", reason="locked: no beacon"), "hall": camera,
                               "yard": dict(camera, state="lost"), "roof": dict(camera, state=None)},
                agreements=[dict(agreement, ended=True, end="agreement 1 ended at 2030"),
                            dict(agreement, end="agreement 2 ends at 2031")])
    with Bridge(node, messages.pack("status", told)):
        assert ask(node, "status") == 69
    output = capsys.readouterr()
    assert json.loads(output.out)["bridge"]["cameras"]["gate"]["state"] == "waits"
    lines = output.err.splitlines()
    assert len(lines) == 3 and lines[0].startswith("edgectl: agreement 1 ended at 2030, by this node's clock; nothing")
    assert lines[1].startswith("edgectl: camera gate: waits: locked: no beacon: nothing of it is judged")
    assert lines[2].startswith("edgectl: camera yard: lost: no reason given")


# While one agreement follows another.


def agree(site, path, **terms):
    """Another agreement of the site's parties, signed, in this file."""
    agreement = replace(open_agreement(site.signed), **terms)
    path.write_bytes(sign(agreement.encode(), site.owner, read_signing_key(str(site.city))))
    return agreement


def stage(site, node, number=2, **terms):
    """As `edgectl rotate` does; the agreement's digits."""
    following = agree(site, node / "agreement.cose.next", number=number, data_key=os.urandom(16), **terms)
    for name in CAMERAS:
        path = key_path(node / "cameras" / (name + ".key"), following.digest)
        path.write_bytes(os.urandom(32))
        path.chmod(0o600)
    return path.suffix[1:]


def test_a_node_in_the_middle_of_a_rotation_is_ok(site, node, capsys):
    digits = stage(site, node)
    assert checked(node, capsys) == (0, "ok\n", [])
    shutil.copy(str(node / "cameras" / ("gate.key." + digits)), str(node / "cameras" / "gate.key"))  # half settled
    assert checked(node, capsys) == (0, "ok\n", [])


@pytest.mark.parametrize("content, code, message", [
    (b"nonsense", 65, "agreement.cose.next: "), ("older", 78, "agreement 1 cannot follow agreement 1: the same owners"),
    ("altered", 76, "signature does not verify")])
def test_what_lies_beside_an_agreement_and_cannot_follow_it_is_named(site, node, capsys, content, code, message):
    stage(site, node, number=1 if content == "older" else 2)
    if content == "altered":
        signed = (node / "agreement.cose.next").read_bytes()
        content = signed[:-1] + bytes([signed[-1] ^ 1])
    if content != "older":
        (node / "agreement.cose.next").write_bytes(content)
    found, _, lines = checked(node, capsys)
    assert found == code and len(lines) == 1 and ": enclave.agreements: " in lines[0] and message in lines[0]
    assert lines[0].endswith("remove the file, then run `edgectl rotate` with the city's bundle")


def test_a_staged_key_that_is_missing_is_named(site, node, capsys):
    digits = stage(site, node)
    (node / "cameras" / ("yard.key." + digits)).unlink()
    code, _, lines = checked(node, capsys)
    assert code == 66 and len(lines) == 1 and ": camera.yard.key: " in lines[0]
    assert "yard.key.{}: is missing, agreement 2 is to follow: run `edgectl rotate`".format(digits) in lines[0]


@pytest.mark.parametrize("spoil, code, message", [
    (lambda path: path.chmod(0o640), 77, "chmod 600"), (lambda path: path.write_bytes(b"short"), 77, "or 32 raw bytes"),
    (lambda path: path.write_bytes((path.parent / "yard.key").read_bytes()), 78, "the same key as that of camera")])
def test_a_staged_key_that_is_not_usable_is_named(site, node, capsys, spoil, code, message):
    path = node / "cameras" / ("gate.key." + stage(site, node))
    spoil(path)
    found, _, lines = checked(node, capsys)
    assert found == code and len(lines) == 1 and message in lines[0]


@pytest.mark.parametrize("left", ["another", "its agreement settled", "its agreement removed"])
def test_a_staged_key_that_was_left_behind_is_named(site, node, capsys, left):
    digits = stage(site, node)
    beside = node / "agreement.cose.next"
    if left == "another":
        digits = "00" * 8
        for name in CAMERAS:
            shutil.copy(str(node / "cameras" / (name + ".key")), str(node / "cameras" / (name + ".key." + digits)))
    elif left == "its agreement removed":
        beside.unlink()
    else:
        beside.replace(node / "agreement.cose")
        slots = (node / "slots" / "slots.toml")
        was, now = open_agreement(site.signed), open_agreement((node / "agreement.cose").read_bytes())
        slots.write_text(slots.read_text().replace(was.data_key.hex(), now.data_key.hex()))
    (node / "cameras" / "gate.key.old").write_bytes(b"not ours")
    code, _, lines = checked(node, capsys)
    assert code == 78 and [line.split(": ")[1] for line in lines] == ["camera.gate.key", "camera.yard.key"]
    for name, line in zip(CAMERAS, lines):
        assert "{}.key.{}: a key for no agreement that is to follow: run `edgectl rotate` ".format(name, digits) in line


LARGE = "human-pose-estimation-0001"


def test_a_model_that_is_missing_or_another_is_named(node, capsys):
    from edged.camera import zoo

    edit(node, 'source = "generator:7"', 'source = "rtsp://camera/"\nmodels = "models"\npose = "{}"'.format(LARGE))
    code, _, lines = checked(node, capsys)
    assert code == 66 and ": camera.gate.pose: " in lines[0] and zoo.model(LARGE).file in lines[0]
    (node / "models").mkdir()
    (node / "models" / zoo.model(LARGE).file).write_bytes(b"another")
    code, _, lines = checked(node, capsys)
    assert code == 76 and "SHA-256" in lines[0]
    edit(node, LARGE, "nose")
    code, _, lines = checked(node, capsys)
    assert code == 78 and "no pose model is called 'nose'" in lines[0]


@pytest.mark.parametrize("source, code, message", [
    ("/dev/video77", 69, "is it plugged in"), ("none.mp4", 66, "No such file"), ("cameras", 66, "Is a directory")])
def test_a_source_that_is_not_there_is_named(node, capsys, source, code, message):
    edit(node, 'source = "recording:people.npz"', 'source = "{}"'.format(source))
    found, _, lines = checked(node, capsys)
    assert found == code
    assert ": camera.yard.source: " in lines[0] and message in lines[0]


@pytest.mark.parametrize("key, name", [("node.run", "notify.sock"), ("enclave.at", "com.edged")])
def test_a_folder_too_long_for_its_sockets_is_named(node, capsys, key, name):
    long = str(node / ("r" * 90))
    if key == "node.run":
        edit(node, 'run = "run"', 'run = "{}"'.format(long))
    else:
        edit(node, 'kind = "host"', 'kind = "host"\nat = "{}"'.format(long))
    code, _, lines = checked(node, capsys)
    assert code == 78
    assert any(": {}: ".format(key) in line and "shorter path" in line for line in lines)


def test_a_folder_that_cannot_be_made_is_named(node, capsys):
    edit(node, 'state = "state"', 'state = "curve.key/state"')
    code, _, lines = checked(node, capsys)
    assert code == 78 and "node.state" in lines[0] and "curve.key: not a folder" in lines[0]


def test_programs_that_are_not_built_are_named(node, capsys, monkeypatch):
    monkeypatch.setenv("EDGED_BUILD", str(node))
    code, _, lines = checked(node, capsys)
    assert code == 66
    assert [line.split(": ")[1] for line in lines] == ["enclave.kind", "accelerator.kind"]


def test_a_placement_that_the_agreement_does_not_permit_is_named(node, capsys, monkeypatch):
    seen = check._Seen()
    loaded = config.load(str(node / "edged.toml"))
    path, = loaded.enclave.agreements
    check._agreement(path, seen)
    seen.agreements[path] = replace(seen.agreements[path], placements=1, number=9)
    check._placement("masked", seen)
    with pytest.raises(check.ConfigError, match="\"inputs\": agreement 9 does not permit it"):
        check._placement("inputs", seen)


def test_a_trusty_node_needs_its_device(node, capsys):
    edit(node, 'keys = "slots"', "")
    edit(node, 'kind = "host"', 'kind = "trusty"\nat = "{}"'.format(node / "none"))
    code, _, lines = checked(node, capsys)
    assert code == 69 and "enclave.at" in lines[0] and "is its driver loaded" in lines[0]
    (node / "none").write_text("")
    code, _, lines = checked(node, capsys)
    assert code == 78 and "not a device" in lines[0]


def test_a_wrong_configuration_is_one_line_and_78(node, capsys):
    line = edit(node, 'kind = "host"', 'kind = "hots"')
    code, output, lines = checked(node, capsys)
    assert (code, output, len(lines)) == (78, "", 1)
    assert lines[0] == "{}: enclave.kind: \"hots\": one of \"host\", \"trusty\": did you mean host?".format(line)


def test_a_password_that_everybody_may_read_ends_with_77(node, capsys):
    edit(node, 'source = "recording:people.npz"', 'source = "rtsp://user:hunter2@camera/a"')
    (node / "edged.toml").chmod(0o644)
    assert any("holds a password, and everybody may read" in line and "hunter2" not in line
               for line in checked(node, capsys)[2])
    (node / "edged.toml").chmod(0o640)
    assert not any("password" in line for line in checked(node, capsys)[2])


def test_config_show_prints_the_values_and_no_password(node, capsys):
    edit(node, 'source = "generator:7"', 'source = "rtsp://user:hunter2@camera/a"')
    assert edgectl.main(["config", "show", "--config", str(node / "edged.toml")]) == 0
    output = capsys.readouterr().out
    shown = json.loads(output)
    assert shown["camera"]["gate"]["source"] == "rtsp://***@camera/a"
    assert shown["camera"]["gate"]["hop_s"] == 1.0 and shown["node"]["run"] == str(node / "run")
    assert "hunter2" not in output


# What a running node says.


class Bridge:
    """Answers like one, in a thread."""

    def __init__(self, node, answer):
        self.asked, self._answer, self._stop = [], answer, threading.Event()
        self._router = Router(config.load(str(node / "edged.toml")).bridge_address)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self):
        while not self._stop.is_set():
            message = self._router.receive(0.05)
            if message is not None:
                assert messages.is_edgectl(message.peer)
                self.asked.append(messages.from_edgectl(message.frames))
                if self._answer is not None:
                    self._router.send(message.peer, self._answer)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()
        self._router.close()


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(status, "TIMEOUT_S", 0.3)
    monkeypatch.setattr(status, "DRILL_TIMEOUT_S", 0.3)


def ask(node, *arguments):
    return edgectl.main([arguments[0], "--config", str(node / "edged.toml")] + list(arguments[1:]))


TOLD = {
    "enclave": "up", "reason": None, "epoch": b"\xab" * 16, "placement": "masked", "transport": "window",
    "accelerator": "cpu", "degraded": None, "spool": "ok", "clips": 3, "failed": 0, "records": 5,
    "accelerator_bytes": 9, "waiting": 0, "seconds_per_clip": 0.25, "products_checked": 7, "rejections": 0,
    "enclave_peak_bytes": 1 << 20,
    "cameras": {"gate": {"done": 3, "failed": 0, "refused": 0, "postponed": 0, "session": 1, "waiting": 0,
                         "postponed_for": None, "state": "live", "reason": None}},
    "agreements": [{"number": 1, "digest": b"\xcd" * 32, "next": None, "state": "in force", "reason": None,
                    "until": "2027-01-15T08:00:00Z", "ended": False, "end": "agreement 1 ends at 2027-01-15T08:00:00Z",
                    "cameras": [], "unread": []}]}
RECORDS = {"records": [{"epoch": b"\x01" * 16, "recipient": b"\x02" * 16, "seq": 7}]}


def test_status_of_a_node_that_does_not_run_says_so_and_ends_with_69(node, capsys, impatient):
    assert ask(node, "status") == 69
    output = capsys.readouterr()
    assert json.loads(output.out) == {"node": "demo-node", "supervisor": None, "bridge": None, "spool": {},
                                       "certificate": None}
    assert output.err.count("\n") == 1 and "the bridge is not there" in output.err


def test_status_prints_what_the_bridge_says(node, capsys):
    with Bridge(node, messages.pack("status", TOLD)) as bridge:
        assert ask(node, "status") == 0
    assert bridge.asked == [messages.StatusRequest()]
    shown = json.loads(capsys.readouterr().out)
    assert shown["bridge"] == dict(TOLD, epoch="ab" * 16,
                                   agreements=[dict(TOLD["agreements"][0], digest="cd" * 32)])


@pytest.mark.parametrize("question, answer", [
    (("status",), messages.pack("ok", {})), (("status",), messages.pack("ok", {"records": []})),
    (("status",), messages.pack("status", {})), (("status",), messages.pack("status", dict(TOLD, more=1))),
    (("status",), messages.pack("status", dict(TOLD, agreements=[{}]))),
    (("status",), messages.pack("status", dict(TOLD, cameras={"gate": {"state": "live"}}))),
    (("status",), messages.pack("status", TOLD, b"")), (("status",), messages.pack("refused", {})),
    (("test-alert",), messages.pack("ok", {})), (("test-alert",), messages.pack("status", TOLD)),
    (("test-alert",), messages.pack("ok", {"records": [{"seq": 1}]})),
    (("reload",), messages.pack("status", TOLD)), (("reload",), messages.pack("ok", {"records": []})),
    (("reload",), messages.pack("missing", {}))])
def test_an_answer_to_another_question_or_of_other_fields_is_none(node, capsys, question, answer):
    with Bridge(node, answer):
        assert ask(node, *question) == 69
    line, = capsys.readouterr().err.splitlines()
    assert "an answer of another form" in line and "install matching releases" in line


def test_who_asks_at_the_same_time_gets_his_own_answer(node, capsys):
    loaded, answers = config.load(str(node / "edged.toml")), {}
    with Router(loaded.bridge_address) as bridge:
        def asks(question, body):
            answers[question] = status.ask_bridge(loaded, question, body, 20)

        threads = [threading.Thread(target=asks, args=given) for given in (("status", {}), ("exercise", {"rule": 0}))]
        for thread in threads:
            thread.start()
        asked = [bridge.receive(20) for _ in threads]
        for message in reversed(asked):
            is_status = message.frames[0] == b"status"
            assert bridge.send(message.peer, messages.pack(*("status", TOLD) if is_status else ("ok", RECORDS)))
        for thread in threads:
            thread.join()
    assert answers == {"status": ("status", TOLD), "exercise": ("ok", RECORDS)}


def test_status_counts_what_waits_in_the_spool_by_subscriber(node, capsys, impatient, monkeypatch):
    from edged.alerts.spool import Waiting

    rcpt = config.load(str(node / "edged.toml")).subscribers[0].recipient
    monkeypatch.setattr(status, "waiting_records", lambda _: {rcpt: Waiting(2, 900), b"\xff": Waiting(1, 450)})
    ask(node, "status")
    assert json.loads(capsys.readouterr().out)["spool"] == {
        "city": {"rows": 2, "bytes": 900}, "ff": {"rows": 1, "bytes": 450}}


@pytest.mark.parametrize("given, asked", [
    ((), messages.ExerciseRequest(0, None, None)), (("--rule", "3"), messages.ExerciseRequest(3, None, None)),
    (("--label", "falling", "--agreement", "1"), messages.ExerciseRequest(None, "falling", 1))])
def test_a_test_alert_asks_the_bridge_for_an_exercise_and_prints_its_records(node, capsys, given, asked):
    with Bridge(node, messages.pack("ok", RECORDS)) as bridge:
        assert ask(node, "test-alert", *given) == 0
    assert bridge.asked == [asked]
    assert json.loads(capsys.readouterr().out) == {
        "records": [{"epoch": "01" * 16, "recipient": "02" * 16, "seq": 7}]}


def test_a_test_alert_that_is_refused_ends_with_69_and_the_reason(node, capsys):
    with Bridge(node, messages.pack("refused", {"reason": "no agreement has that rule"})):
        assert ask(node, "test-alert") == 69
    assert capsys.readouterr().err == "edgectl: the bridge refused: no agreement has that rule\n"


def test_a_test_alert_without_a_bridge_ends_with_69(node, capsys, impatient):
    assert ask(node, "test-alert") == 69
    assert "the bridge is not there" in capsys.readouterr().err


def test_a_bridge_that_is_silent_ends_with_69(node, capsys, impatient):
    with Bridge(node, None):
        assert ask(node, "test-alert") == 69
    assert "no answer of the bridge" in capsys.readouterr().err


@pytest.mark.parametrize("answer", [[b"ok"], [b"ok", b"\xff\xff"], [b"\xff", b"\xa0"], [b"ok", b"\x01"], [b"ok", b""]])
def test_an_answer_of_another_form_ends_with_69(node, answer):
    with Bridge(node, answer):
        with pytest.raises(BusError, match="install matching releases"):
            status.drill(config.load(str(node / "edged.toml")), {"rule": 0})


def test_a_status_that_is_refused_ends_with_69(node, capsys):
    with Bridge(node, messages.pack("refused", {"reason": "busy"})):
        assert ask(node, "status") == 69
    assert "the bridge refused: busy" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--rule", "--agreement"])
def test_a_number_below_zero_ends_with_2(node, capsys, option):
    assert ask(node, "test-alert", option, "-1") == 2
    assert "counted from 0" in capsys.readouterr().err


def test_a_socket_that_a_killed_bridge_left_is_no_bridge(node, capsys, impatient):
    path = config.load(str(node / "edged.toml")).bridge_socket
    os.makedirs(str(path.parent), exist_ok=True)
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    assert ask(node, "test-alert") == 69
