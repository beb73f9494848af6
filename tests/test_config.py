"""One strict TOML file: every mistake is one line with file, line and key."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edged import config, strict
from edged.errors import ConfigError, KeyRefused, MissingInput

EXAMPLE = Path(__file__).resolve().parent.parent / "systemd" / "edged.toml.example"
SERVER_KEY = "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"

VALID = """\
schema = 1
[node]
name = "n1"
[enclave]
kind = "host"
keys = "slots"
package = "model.pkg"
agreements = ["a.cose"]
[camera.gate]
source = "generator:7"
key = "gate.key"
[outbox]
key = "curve.key"
[[subscriber]]
name = "city"
address = "tcp://127.0.0.1:5555"
server_key = "{}"
recipient = "00112233445566778899aabbccddeeff"
""".format(SERVER_KEY)


def load(tmp_path, text, environment={}):
    (tmp_path / "edged.toml").write_text(text, encoding="utf-8")
    return config.load(str(tmp_path / "edged.toml"), environment)


def refused(tmp_path, text):
    """(line, the rest) of what is wrong."""
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    message = str(caught.value)
    assert "\n" not in message
    file, line, rest = message.split(":", 2)
    assert file == str(tmp_path / "edged.toml")
    return int(line), rest.strip()


def line_of(text, needle):
    return [needle in line for line in text.splitlines()].index(True) + 1


def test_a_valid_file_gives_its_values_and_the_defaults(tmp_path):
    loaded = load(tmp_path, VALID)
    assert loaded.node == config.Node("n1", Path("/var/lib/edged"), Path("/run/edged"), "text")
    assert loaded.enclave == config.Enclave(
        "host", "/run/edged/enclave", tmp_path / "slots", tmp_path / "model.pkg", (tmp_path / "a.cose",), "masked",
        "window")
    assert loaded.accelerator == config.Accelerator("auto", None, 0)
    assert loaded.cameras == (config.Camera(
        "gate", "generator", "7", tmp_path / "gate.key", None, None, None, "auto", 1.0, 10.0, False, 1.0, "near"),)
    assert loaded.outbox.key == tmp_path / "curve.key"
    assert loaded.subscribers == (config.Subscriber(
        "city", "tcp://127.0.0.1:5555", SERVER_KEY, bytes.fromhex("00112233445566778899aabbccddeeff")),)
    assert loaded.spool == Path("/var/lib/edged/spool.db")
    assert loaded.bridge_address == "ipc:///run/edged/bridge.sock"
    assert loaded.camera("gate") is loaded.cameras[0]


def test_the_example_is_valid():
    loaded = config.load(str(EXAMPLE))
    assert [camera.name for camera in loaded.cameras] == ["gate"]


def test_every_default_that_the_example_names_is_the_default(tmp_path):
    """What is commented out says what holds without it."""
    text = EXAMPLE.read_text(encoding="utf-8")
    uncommented = "\n".join(line[1:] if line.startswith("#") and " = " in line else line for line in text.split("\n"))
    uncommented = uncommented.replace('pose = "human', '#').replace("threads = ", "#").replace(
        "agreement = ", "#").replace("loop = ", "#").replace(
        "speed = ", "#")
    assert uncommented != text
    assert load(tmp_path, uncommented) == load(tmp_path, text)


def test_the_example_names_every_key():
    text = EXAMPLE.read_text(encoding="utf-8")
    for kind in (config.Node, config.Enclave, config.Accelerator, config.Camera, config.Outbox, config.Subscriber):
        for key in config._keys(kind, without=("name", "kind") if kind is config.Camera else ()):
            assert "\n{} = ".format(key) in text or "\n#{} = ".format(key) in text, key


def test_a_configuration_is_frozen(tmp_path):
    with pytest.raises(AttributeError):
        load(tmp_path, VALID).node.name = "other"


@pytest.mark.parametrize("after, line, message", [
    ("[camera.gate]", "treshold = 0.5", "camera.gate.treshold: unknown key: what is an alert stands in the signed"),
    ("[camera.gate]", "threshold = 0.5", "camera.gate.threshold: unknown key: what is an alert stands in the signed"),
    ("[camera.gate]", "cooldown_s = 5", "camera.gate.cooldown_s: unknown key: what is an alert stands in the signed"),
    ("[enclave]", "labels = ['fall']", "enclave.labels: unknown key: what is an alert stands in the signed"),
    ("[camera.gate]", "sourze = 1", "camera.gate.sourze: unknown key: did you mean source?"),
    ("[camera.gate]", "name = 'x'", "camera.gate.name: unknown key"),
    ("[node]", "satte = 'x'", "node.satte: unknown key: did you mean state?"),
    ("[outbox]", "'ä 1' = 1", "outbox.\"\\u00e4 1\": unknown key: known here: key, max_rows, max_bytes, max_age_s"),
    ("[[subscriber]]", "port = 1", "subscriber.port: unknown key"),
    ("[node]", "deep.er = 1", "node.deep: unknown key"),
])
def test_an_unknown_key_is_named_with_its_line(tmp_path, after, line, message):
    text = VALID.replace(after, after + "\n# a comment\n" + line)
    at, rest = refused(tmp_path, text)
    assert rest.startswith(message)
    assert at == line_of(text, line)


def test_an_unknown_table_is_named_with_its_line(tmp_path):
    at, rest = refused(tmp_path, VALID + "[cameras.gate]\nsource = 'x'\n")
    assert rest.startswith("cameras: unknown key: did you mean camera?")
    assert at == VALID.count("\n") + 1


def test_the_line_of_a_key_is_right_in_the_second_table_of_an_array(tmp_path):
    second = VALID[VALID.index("[[subscriber]]"):].replace('"city"', '"other"')
    text = VALID + "\n" + second.replace("recipient = ", "recipent = ")
    at, rest = refused(tmp_path, text)
    assert rest == "subscriber.recipent: unknown key: did you mean recipient?"
    assert at == line_of(text, "recipent = ")


def test_the_line_of_a_key_is_right_behind_texts_that_look_like_keys(tmp_path):
    text = VALID.replace('name = "n1"', 'name = "n1"\nlog = """\\\n  log = 1 # [x]\n  """\nstate = 5')
    at, rest = refused(tmp_path, text.replace('log = """\\\n  log = 1 # [x]\n  """', "log = '''text'''"))
    assert (at, rest) == (5, "node.state: 5: a string is needed here")
    at, rest = refused(tmp_path, text)
    assert rest.startswith("node.state") and at == line_of(text, "state = 5")


def test_a_key_in_an_inline_table_has_the_line_of_its_table(tmp_path):
    text = VALID.replace("[camera.gate]\n", "").replace('source = "generator:7"\nkey = "gate.key"\n', "")
    text = text.replace("[node]", 'camera = {gate = {source = "generator:7", key = "k", hops = 1}}\n[node]')
    at, rest = refused(tmp_path, text)
    assert (at, rest) == (2, "camera.gate.hops: unknown key: did you mean hop_s?")


@pytest.mark.parametrize("old, new, message", [
    ('name = "n1"', "name = 5", "node.name: 5: a string is needed here"),
    ('name = "n1"', 'name = ""', "node.name: is empty"),
    ('name = "n1"', 'name = "N 1"', "node.name: \"N 1\": 1 to 31 of a-z, 0-9 and -, no - first"),
    ('name = "n1"', 'name = "n1"\nstate = "a\\u0000b"', "node.state: \"a\\u0000b\": holds a control character"),
    ('name = "n1"', 'name = "n1"\nlog = "jsno"', "node.log: \"jsno\": one of \"text\", \"json\": did you mean json?"),
    ('kind = "host"', 'kind = "emulated"', "enclave.kind: \"emulated\": one of \"host\", \"trusty\""),
    ('kind = "host"', 'kind = "trusty"', "enclave.keys: for kind = \"host\" alone"),
    ('["a.cose"]', "[]", "enclave.agreements: is empty: at least one"),
    ('["a.cose"]', '"a.cose"', "enclave.agreements: \"a.cose\": a list of strings is needed here"),
    ('["a.cose"]', '["a", "a"]', "enclave.agreements: \"a\": is there twice"),
    ('["a.cose"]', '["a", 5]', "enclave.agreements: 5: a list of strings"),
    ('["a.cose"]', '["a", "b", "c", "d", "e"]', "enclave.agreements: 5: the enclave holds 4"),
    ('"generator:7"', '"generator:x"', "camera.gate.source: \"generator:x\": generator:SEED"),
    ('"generator:7"', '"generator:4294967296"', "camera.gate.source: \"generator:4294967296\": generator:SEED"),
    ('"generator:7"', '"http://camera/"', "camera.gate.source: not an address of a camera: rtsp://"),
    ('"generator:7"', '"rtsp://"', "camera.gate.source: not an address of a camera: rtsp://"),
    ('"generator:7"', '"recording:"', "camera.gate.source: \"recording:\": recording:FILE"),
    ('"generator:7"', '"/dev/video0"\nspeed = 2', "camera.gate.speed: not for a source of kind device"),
    ('"generator:7"', '"a.mp4"\nloop = true', "camera.gate.loop: not for a source of kind file"),
    ('"generator:7"', '"generator:7"\nloop = 1', "camera.gate.loop: 1: true or false is needed here"),
    ('"generator:7"', '"generator:7"\nhop_s = 0.5', "camera.gate.hop_s: 0.5: from 1 to 10"),
    ('"generator:7"', '"generator:7"\ngroup = "all"', "camera.gate.group: \"all\": one of \"near\", \"few\""),
    ('"generator:7"', '"generator:7"\ngroup = 2', "camera.gate.group: 2: a string is needed here"),
    ('"generator:7"', '"generator:7"\nhop_s = nan', "camera.gate.hop_s: nan: a finite number"),
    ('"generator:7"', '"generator:7"\nhop_s = true', "camera.gate.hop_s: true: a number is needed here"),
    ('"generator:7"', '"generator:7"\nspeed = inf', "camera.gate.speed: inf: a finite number"),
    ('"generator:7"', '"generator:7"\nspeed = -1', "camera.gate.speed: -1: from 0 to 1000"),
    ('"generator:7"', '"generator:7"\npose = "../x"', "camera.gate.pose: \"../x\": the name of a model"),
    ('key = "curve.key"', "key = \"k\"\nmax_rows = 0", "outbox.max_rows: 0: at least 1"),
    ('key = "curve.key"', "key = \"k\"\nmax_rows = 1.5", "outbox.max_rows: 1.5: a whole number is needed here"),
    ('key = "curve.key"', "key = \"k\"\nmax_rows = true", "outbox.max_rows: true: a whole number is needed here"),
    ('tcp://127.0.0.1:5555', "tcp://127.0.0.1", "subscriber.address: \"tcp://127.0.0.1\": tcp://HOST:PORT"),
    ('tcp://127.0.0.1:5555', "tcp://*:70000", "subscriber.address: \"tcp://*:70000\": tcp://HOST:PORT"),
    ('tcp://127.0.0.1:5555', "tcp://a:0", "subscriber.address: \"tcp://a:0\": tcp://HOST:PORT"),
    ('tcp://127.0.0.1:5555', "udp://a:5", "subscriber.address: \"udp://a:5\": tcp://HOST:PORT"),
    (SERVER_KEY, SERVER_KEY[:-1], "subscriber.server_key: not a public key of CURVE: 40 characters of Z85"),
    (SERVER_KEY, "#" * 40, "subscriber.server_key: not a public key of CURVE: 40 characters of Z85"),
    (SERVER_KEY, "~" + SERVER_KEY[1:], "subscriber.server_key: not a public key of CURVE: 40 characters of Z85"),
    ("00112233445566778899aabbccddeeff", "00", "subscriber.recipient: \"00\": 32 digits of 0-9, a-f"),
])
def test_a_wrong_value_is_named_with_its_line(tmp_path, old, new, message):
    text = VALID.replace(old, new)
    assert text != VALID
    at, rest = refused(tmp_path, text)
    assert rest.startswith(message)
    key = rest.split(":")[0].split(".")[-1]
    if key != "keys":  # that line is right; the kind beside it is not
        lines = [number for number, line in enumerate(text.splitlines(), 1) if line.startswith(key + " =")]
        assert at in lines


@pytest.mark.parametrize("line, named", [
    ('name = "n1"', "node.name"), ('kind = "host"', "enclave.kind"),
    ('package = "model.pkg"', "enclave.package"), ('agreements = ["a.cose"]', "enclave.agreements"),
    ('source = "generator:7"', "camera.gate.source"), ('key = "gate.key"', "camera.gate.key"),
    ('key = "curve.key"', "outbox.key"), ('name = "city"', "subscriber.name"),
    ('address = "tcp://127.0.0.1:5555"', "subscriber.address"),
    ('recipient = "00112233445566778899aabbccddeeff"', "subscriber.recipient")])
def test_a_missing_key_is_named_with_the_line_of_its_table(tmp_path, line, named):
    text = VALID.replace(line + "\n", "")
    at, rest = refused(tmp_path, text)
    assert rest == named + ": is missing"
    table = named.rsplit(".", 1)[0]
    assert at == line_of(text, "[{}]".format(table))


@pytest.mark.parametrize("table, named", [
    ("[node]", "node"), ("[enclave]", "enclave"), ("[camera.gate]", "camera"), ("[outbox]", "outbox"),
    ("[[subscriber]]", "subscriber")])
def test_a_missing_table_is_named(tmp_path, table, named):
    end = VALID.find("\n[", VALID.index(table) + 1)
    text = VALID[:VALID.index(table)] + (VALID[end + 1:] if end >= 0 else "")
    assert refused(tmp_path, text) == (1, named + ": is missing")


def test_a_table_that_is_something_else_is_named(tmp_path):
    text = VALID.replace('[node]\nname = "n1"\n', "").replace("schema = 1", "schema = 1\nnode = 5")
    assert refused(tmp_path, text) == (2, "node: 5: a table is needed here")
    text = VALID[:VALID.index("[[sub")].replace("schema = 1", "schema = 1\nsubscriber = [5]")
    assert refused(tmp_path, text) == (2, "subscriber: tables [[subscriber]] are needed here")


@pytest.mark.parametrize("schema, message", [
    ("", "schema: is missing: write schema = 1 on top"), ("schema = 2", "schema: 2: this edged reads schema 1"),
    ("schema = '1'", "schema: \"1\": a whole number is needed here")])
def test_another_schema_is_refused_before_all_else(tmp_path, schema, message):
    text = VALID.replace("schema = 1", schema) + "[a_table_of_schema_2]\n"
    assert refused(tmp_path, text) == (1, message)


def test_two_cameras_of_one_name_are_refused(tmp_path):
    text = VALID + '[camera.gate]\nsource = "generator:8"\nkey = "k"\n'
    at, rest = refused(tmp_path, text)
    assert rest.startswith("not TOML: ")
    assert at == VALID.count("\n") + 1


@pytest.mark.parametrize("name", ["Gate", "-gate", "a_b", "'g.h'", "''", "a" * 32])
def test_a_bad_name_of_a_camera_is_refused(tmp_path, name):
    text = VALID.replace("camera.gate", "camera." + name)
    at, rest = refused(tmp_path, text)
    assert "not a name: 1 to 31 of a-z, 0-9 and -" in rest
    assert at == line_of(text, "[camera.")


@pytest.mark.parametrize("name", ["outbox", "edgectl"])
def test_a_camera_cannot_have_the_identity_of_another_process(tmp_path, name):
    at, rest = refused(tmp_path, VALID.replace("camera.gate", "camera." + name))
    assert rest == "camera.{}: the name of another process: choose another".format(name)


def test_a_camera_is_judged_under_the_one_agreement_or_names_one_of_several(tmp_path):
    assert load(tmp_path, VALID).camera("gate").agreement is None
    several = VALID.replace('["a.cose"]', '["a.cose", "b.cose"]')
    assert "agreement" in refused(tmp_path, several)[1]
    named = several.replace('key = "gate.key"', 'key = "gate.key"\nagreement = "b.cose"')
    assert load(tmp_path, named).camera("gate").agreement == tmp_path / "b.cose"
    line, said = refused(tmp_path, named.replace('= "b.cose"', '= "c.cose"'))
    assert line == line_of(named, 'agreement = "b.cose"') and said.startswith("camera.gate.agreement:")


def test_the_longest_name_of_a_camera_is_taken(tmp_path):
    assert load(tmp_path, VALID.replace("camera.gate", "camera." + "a" * 31)).cameras[0].name == "a" * 31


@pytest.mark.parametrize("key", ["name", "recipient"])
def test_two_subscribers_cannot_share_a_name_or_a_recipient(tmp_path, key):
    second = VALID[VALID.index("[[subscriber]]"):]
    second = second.replace("city", "town") if key == "recipient" else second.replace("0011", "1100")
    at, rest = refused(tmp_path, VALID + second)
    assert rest == "subscriber.{}: is there twice: each subscriber has its own".format(key)
    assert at > VALID.count("\n")


@pytest.mark.parametrize("text, line", [
    ("schema = 1\n[node\n", 2), ("schema = 1\n\n\nname = \n", 4), ("schema = 1\nx = '''a\n\n", 2),
    ("schema = 1\nschema = 1\n", 2)])
def test_what_is_not_toml_is_named_with_its_line(tmp_path, text, line):
    at, rest = refused(tmp_path, text)
    assert rest.startswith("not TOML: ")
    assert at == line
    assert "(at line" not in rest


def test_an_empty_file_lacks_its_schema(tmp_path):
    assert refused(tmp_path, "") == (1, "schema: is missing: write schema = 1 on top")


def test_what_is_not_utf8_is_named_with_its_line(tmp_path):
    (tmp_path / "edged.toml").write_bytes(b"schema = 1\nname = '\xff'\n")
    with pytest.raises(ConfigError) as caught:
        config.load(str(tmp_path / "edged.toml"))
    assert str(caught.value) == "{}:2: not UTF-8".format(tmp_path / "edged.toml")


def test_an_absent_file_is_missing_input(tmp_path):
    with pytest.raises(MissingInput, match="No such file"):
        config.load(str(tmp_path / "none.toml"))


def test_a_folder_is_missing_input(tmp_path):
    with pytest.raises(MissingInput, match="Is a directory"):
        config.load(str(tmp_path))


def test_a_file_that_may_not_be_read_is_a_refusal(tmp_path, monkeypatch):
    def denied(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(strict, "open", denied, raising=False)
    with pytest.raises(KeyRefused, match="edged.toml: Permission denied"):
        config.load("edged.toml")


def test_relative_paths_are_relative_to_the_folder_of_the_file(tmp_path, monkeypatch):
    monkeypatch.chdir("/")
    loaded = load(tmp_path, VALID.replace('"gate.key"', '"../keys/gate.key"').replace(
        '"generator:7"', '"recording:sub/r.npz"').replace('name = "n1"', 'name = "n1"\nrun = "r"'))
    assert loaded.cameras[0].key == tmp_path.parent / "keys" / "gate.key"
    assert (loaded.cameras[0].kind, loaded.cameras[0].source) == ("recording", str(tmp_path / "sub" / "r.npz"))
    assert loaded.enclave.at == str(tmp_path / "r" / "enclave")


def test_the_folder_of_a_relative_path_to_the_file_counts(tmp_path, monkeypatch):
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "edged.toml").write_text(VALID)
    monkeypatch.chdir(tmp_path)
    assert config.load("etc/edged.toml").outbox.key == tmp_path / "etc" / "curve.key"


@pytest.mark.parametrize("given, kind, source", [
    ("rtsp://user:hunter2@10.0.0.1:554/a?b=c", "rtsp", None), ("rtsps://[::1]/a", "rtsp", None),
    ("/dev/video3", "device", None), ("/srv/a b.mp4", "file", None), ("/dev/video3x", "file", None),
    ("generator:007", "generator", "7"), ("recording:/r.npz", "recording", "/r.npz")])
def test_a_source_says_of_what_kind_it_is(tmp_path, given, kind, source):
    camera = load(tmp_path, VALID.replace("generator:7", given)).cameras[0]
    assert (camera.kind, camera.source) == (kind, source or given)
    assert camera.needs_pose == (kind in ("rtsp", "device", "file"))


def test_passwords_of_cameras_are_not_shown(tmp_path):
    loaded = load(tmp_path, VALID.replace("generator:7", "rtsp://user:hunter2@10.0.0.1/a"))
    assert loaded.cameras[0].shown == "rtsp://***@10.0.0.1/a"
    assert "hunter2" not in str(config.shown(loaded))


def test_a_wrong_address_is_not_quoted_for_it_may_hold_a_password(tmp_path):
    _, rest = refused(tmp_path, VALID.replace("generator:7", "rtsp://user:hunter2@bad host/"))
    assert "hunter2" not in rest


def test_an_emulated_node_may_have_all_its_keys_granted(tmp_path):
    loaded = load(tmp_path, VALID.replace('keys = "slots"\n', ""))
    assert loaded.enclave.keys is None and loaded.key_folder == Path(loaded.enclave.at)


def test_a_trusty_node_has_no_keys_in_files(tmp_path):
    loaded = load(tmp_path, VALID.replace('"host"', '"trusty"').replace('keys = "slots"\n', ""))
    assert (loaded.enclave.at, loaded.enclave.keys) == ("/dev/trusty-ipc-dev0", None)
    assert loaded.key_folder == loaded.node.state
    assert loaded.enclave.transport == "message"


def test_models_are_those_of_the_environment_unless_named(tmp_path):
    environment = {"EDGED_MODELS": "/models"}
    assert load(tmp_path, VALID, environment).cameras[0].models == Path("/models")
    named = VALID.replace('key = "gate.key"', 'key = "gate.key"\nmodels = "m"')
    assert load(tmp_path, named, environment).cameras[0].models == tmp_path / "m"


def test_a_camera_that_is_not_there_is_named_with_those_that_are(tmp_path):
    with pytest.raises(ConfigError, match=r"no table \[camera.door\]: its cameras are gate"):
        load(tmp_path, VALID).camera("door")


def test_the_device_and_the_variable_have_the_names_of_those_who_use_them():
    from edged.camera import zoo
    from edged.enclave import tipc

    assert config.TRUSTY_DEVICE == tipc.DEVICE
    assert config.MODELS_VARIABLE == zoo.ENVIRONMENT


def test_reading_a_configuration_needs_neither_numpy_nor_zmq(tmp_path):
    (tmp_path / "edged.toml").write_text(VALID)
    script = ("import sys; sys.modules['numpy'] = sys.modules['zmq'] = sys.modules['cv2'] = None\n"
              "from edged import config, events, notify; config.load(sys.argv[1])")
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "edged.toml")], check=True,
                   cwd=os.path.dirname(os.path.dirname(__file__)))
