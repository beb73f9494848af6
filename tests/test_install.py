"""edgectl install: all of a bundle or nothing, never over what is there, and the operator is told what is left."""

import os
import stat

import pytest

from edged import config as configuration
from edged import install
from edged.alerts import bundle as bundles
from edged.alerts import nodes
from edged.bus import generate_keys, public_of
from edged.enclave.slots import read_slots
from edged.errors import ConfigError, EdgedError, KeyRefused, MissingInput, PackageError, VerificationFailed
from twin import City

ADDRESS = "tcp://city.example:7443"


@pytest.fixture
def city(tmp_path):
    return City(tmp_path / "city", bundle=False)


@pytest.fixture
def bundle(city):
    city.init(ADDRESS, ("gate", "yard"))
    return city.bundle


@pytest.fixture
def emulated(city):
    city.init(ADDRESS, ("gate",), model_key=b"M" * 32)
    return city.bundle


@pytest.fixture
def etc(tmp_path):
    return tmp_path / "etc" / "edged"


def everything(folder):
    return {path: (path.read_bytes() if path.is_file() else None, stat.S_IMODE(path.lstat().st_mode))
            for path in folder.rglob("*")}


def install_at(bundle, etc):
    return install.install(str(bundle), str(etc / "edged.toml"))


def test_on_a_bare_node_everything_is_put_in_its_place_and_the_configuration_loads(bundle, city, etc):
    before = os.umask(0o077)
    try:
        done = install_at(bundle, etc)
    finally:
        os.umask(before)
    loaded = configuration.load(str(etc / "edged.toml"), {})
    assert loaded.enclave.kind == "trusty" and [camera.name for camera in loaded.cameras] == ["gate", "yard"]
    one = loaded.subscribers[0]
    assert (one.address, one.server_key, one.recipient) == (ADDRESS, city.public.curve, city.public.recipients[0].rcpt)
    assert loaded.enclave.agreements[0].read_bytes() == city.signed
    assert loaded.cameras[1].key.read_bytes() == (bundle / "cameras" / "yard.key").read_bytes()
    assert public_of(loaded.outbox.key.read_bytes()).decode() == done.public
    modes = {path.name: mode for path, (content, mode) in everything(etc).items() if content is not None}
    assert modes == {"edged.toml": 0o640, "agreement.cose": 0o640, "gate.key": 0o600, "yard.key": 0o600,
                     "curve.key": 0o600}
    assert sorted(done.new) == sorted(
        str(path) for path, (content, _) in everything(etc).items() if content is not None)


def test_a_bundle_of_an_emulated_node_fills_the_folder_of_the_slots(emulated, etc):
    install_at(emulated, etc)
    loaded = configuration.load(str(etc / "edged.toml"), {})
    assert loaded.enclave.kind == "host" and read_slots(loaded.enclave.keys)[0].read_key() == b"M" * 32
    assert {stat.S_IMODE(path.stat().st_mode) for path in loaded.enclave.keys.iterdir()} == {0o600}


def test_what_is_printed_names_the_next_step_and_no_secret(bundle, city, etc, capsys):
    install.run(str(bundle), str(etc / "edged.toml"))
    said = capsys.readouterr().out
    last = said.splitlines()[-1]
    key = last.partition("--key='")[2][:-1]
    assert last.startswith("At the city: edged-city allow ")
    assert key == public_of((etc / "outbox" / "curve.key").read_bytes()).decode()
    nodes.allow(city.nodes_file, last.split()[5], key)
    for path in etc.rglob("*.key"):
        assert path.read_bytes().hex() not in said and path.read_bytes().decode("latin-1") not in said


def test_installing_again_changes_nothing_and_keeps_the_nodes_key(bundle, etc):
    first = install_at(bundle, etc)
    before = everything(etc)
    again = install_at(bundle, etc)
    assert again.public == first.public and again.new == () and again.lacking == () and everything(etc) == before


def test_another_systems_root_is_written_to_and_nothing_else(bundle, tmp_path):
    root = tmp_path / "root"
    done = install.install(str(bundle), "/etc/edged/edged.toml", str(root))
    assert all(path.startswith(str(root / "etc" / "edged")) for path in done.new)
    text = (root / "etc" / "edged" / "edged.toml").read_text()
    (root / "etc" / "edged" / "edged.toml").write_text(text.replace("outbox/curve.key", "/srv/curve.key"))
    done = install.install(str(bundle), "/etc/edged/edged.toml", str(root))
    assert done.new == (str(root / "srv" / "curve.key"),)


# ------------------------------------------------------------------------------------- a configuration is there


def written(etc, text):
    etc.mkdir(parents=True)
    (etc / "edged.toml").write_text(text)


OWN = """schema = 1
[node]
name = "crossing-7"
[enclave]
kind = "trusty"
package = "model.pkg"
agreements = ["deals/one.cose"]
[camera.gate]
source = "rtsp://10.0.0.9/"
key = "secret/gate"
[outbox]
key = "secret/node"
[[subscriber]]
name = "hq"
address = "tcp://hq.example:1"
server_key = "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"
recipient = "00112233445566778899aabbccddeeff"
"""


def test_an_operators_configuration_is_not_touched_and_says_where_things_go(bundle, city, etc):
    written(etc, OWN)
    done = install_at(bundle, etc)
    assert (etc / "edged.toml").read_text() == OWN and done.node == "crossing-7"
    assert (etc / "deals" / "one.cose").read_bytes() == city.signed
    assert (etc / "secret" / "gate").read_bytes() == (bundle / "cameras" / "gate.key").read_bytes()
    assert public_of((etc / "secret" / "node").read_bytes()).decode() == done.public


def test_what_an_operators_configuration_lacks_is_told_as_lines_that_make_it_work(bundle, etc):
    written(etc, OWN)
    done = install_at(bundle, etc)
    whys = [why for why, _ in done.lacking]
    assert "has no camera yard" in whys[0] and "has no subscriber of recipient" in whys[1] and len(whys) == 2
    (etc / "edged.toml").write_text(OWN + "".join(lines for _, lines in done.lacking))
    again = install_at(bundle, etc)
    assert again.lacking == () and again.new == ()


def test_an_agreement_that_is_not_listed_gets_a_name_of_its_own_and_is_told(bundle, city, etc):
    written(etc, OWN)
    (etc / "deals").mkdir()
    (etc / "deals" / "one.cose").write_bytes(b"another")
    done = install_at(bundle, etc)
    assert (etc / "deals" / "one.cose").read_bytes() == b"another"
    assert (etc / "agreement-1.cose").read_bytes() == city.signed
    assert done.lacking[0][1] == "agreements = [\"deals/one.cose\", \"agreement-1.cose\"]"


def test_no_camera_gets_a_key_of_an_agreement_that_is_not_listed(bundle, etc):
    """It would seal for that one, and be judged under the one that is listed: every clip would be lost."""
    written(etc, OWN)
    (etc / "deals").mkdir()
    (etc / "deals" / "one.cose").write_bytes(b"another")
    done = install_at(bundle, etc)
    assert not list(etc.rglob("gate*")) and not list(etc.rglob("yard*"))
    assert "once it does, run this again" in done.lacking[0][0]
    assert "camera.gate" in done.lacking[1][0] and "is judged under another agreement" in done.lacking[1][0]
    text = OWN.replace("\"deals/one.cose\"", "\"deals/one.cose\", \"agreement-1.cose\"")
    gate = "key = \"secret/gate\"\n"
    (etc / "edged.toml").write_text(text.replace(gate, gate + done.lacking[1][1])
                                    + "".join(lines for _, lines in done.lacking[2:]))
    again = install_at(bundle, etc)
    assert again.lacking == () and {path.name for path in etc.rglob("*") if path.is_file()} >= {"gate", "yard.key"}


def test_a_camera_of_another_agreement_keeps_its_place_free(bundle, city, etc):
    """Two cities with a camera of one name: the second one's key would make all its clips worthless."""
    written(etc, OWN.replace("\"deals/one.cose\"", "\"deals/one.cose\", \"two.cose\"").replace(
        "key = \"secret/gate\"", "key = \"secret/gate\"\nagreement = \"deals/one.cose\""))
    (etc / "deals").mkdir()
    (etc / "deals" / "one.cose").write_bytes(b"another")
    done = install_at(bundle, etc)
    assert (etc / "two.cose").read_bytes() == city.signed and not (etc / "secret" / "gate").exists()
    assert (etc / "cameras" / "yard.key").exists()
    assert done.lacking[0][1] == "agreement = \"two.cose\"\n" and "camera.gate" in done.lacking[0][0]


# ----------------------------------------------------------------------------------- refused, and nothing written


@pytest.mark.parametrize("key_is_there", [True, False])
def test_a_bundle_that_follows_an_agreement_of_the_node_is_for_rotate(bundle, city, etc, key_is_there):
    """Installed over it, its camera keys would be used under the old one, and every clip would be lost."""
    written(etc, OWN)
    install_at(bundle, etc)
    if not key_is_there:
        (etc / "secret" / "gate").unlink()  # what "move it aside first" once led to
    city.signed, city.agreement = city.renew()
    city.adopt(city.signed)
    city.bundle = etc.parent.parent / "next"
    city.init(ADDRESS, ("gate", "yard"))
    refused(city.bundle, etc, ConfigError, "agreement 2 follows agreement 1: run `edgectl rotate .*next --config ")
    assert (etc / "secret" / "gate").exists() == key_is_there


def refused(bundle, etc, error, words):
    """Whole error in one line, and not a file, folder or mode has changed."""
    before = everything(etc.parent.parent)
    with pytest.raises(error, match=words) as caught:
        install_at(bundle, etc)
    if isinstance(caught.value, EdgedError):
        assert "\n" not in str(caught.value)
    assert everything(etc.parent.parent) == before


@pytest.mark.parametrize("damage, error, words", [
    (lambda bundle: (bundle / "bundle.toml").unlink(), MissingInput, "bundle.toml"),
    (lambda bundle: (bundle / "agreement.cose").unlink(), MissingInput, "agreement.cose"),
    (lambda bundle: (bundle / "agreement.cose").write_bytes(b"x" * 300), PackageError, "agreement of 300 bytes"),
    (lambda bundle: (bundle / "cameras" / "yard.key").unlink(), MissingInput, "yard.key"),
    (lambda bundle: (bundle / "cameras" / "yard.key").write_bytes(b"x" * 31), KeyRefused, "of 16 or 32 raw bytes"),
    (lambda bundle: (bundle / "cameras" / "yard.key").chmod(0o640), KeyRefused, "lets others at it"),
    (lambda bundle: _edit(bundle, "server_key = \"", "server_key = \"x"), ConfigError,
     "bundle.toml:5: server_key: not a public"),
    (lambda bundle: _edit(bundle, "tcp://", "udp://"), ConfigError, "bundle.toml:4: address: .*tcp://HOST:PORT"),
    (lambda bundle: _edit(bundle, "\"yard\"", "\"../yard\""), ConfigError, "bundle.toml:8: cameras: \"../yard\""),
    (lambda bundle: _edit(bundle, "emulated = false", "emulated = true"), MissingInput, "slots.toml"),
    (lambda bundle: _edit(bundle, "emulated = false", "emulated = false\nextra = 1"), ConfigError,
     "extra: unknown key"),
    (lambda bundle: _edit(bundle, "recipient = \"", "recipient = \"" + "0" * 32 + "\"#"), ConfigError,
     "none of the agreement's"),
])
def test_a_bundle_that_is_not_whole_is_refused_and_nothing_is_written(bundle, etc, damage, error, words):
    damage(bundle)
    refused(bundle, etc, error, words)


def _edit(bundle, old, new):
    path = bundle / "bundle.toml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def test_an_agreement_that_was_altered_is_refused(bundle, etc):
    content = bytearray((bundle / "agreement.cose").read_bytes())
    content[-1] ^= 1
    (bundle / "agreement.cose").write_bytes(content)
    refused(bundle, etc, VerificationFailed, "signature does not verify")


@pytest.mark.parametrize("own, error, words", [
    (OWN.replace("schema = 1", "schema = 1\ncolour = 2"), ConfigError, "edged.toml:2: colour: unknown key"),
    (OWN.replace("name = \"hq\"", "name = \"hq\"\nlabel = 1"), ConfigError, "subscriber.label: unknown key"),
])
def test_a_configuration_that_is_wrong_is_refused_before_anything_is_written(bundle, etc, own, error, words):
    written(etc, own)
    refused(bundle, etc, error, words)


@pytest.mark.parametrize("field, value", [("address", "tcp://other.example:1"),
                                          ("server_key", "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7")])
def test_a_configuration_that_names_another_address_or_city_for_this_recipient_is_refused(bundle, etc, field, value):
    made = bundles.read(str(bundle))
    fields = {"address": made.address, "server_key": made.server_key, field: value}
    table = "[[subscriber]]\nname = \"it\"\nrecipient = \"{}\"\n".format(made.recipient.hex()) + "".join(
        "{} = \"{}\"\n".format(*pair) for pair in fields.items())
    written(etc, OWN + table)
    refused(bundle, etc, ConfigError, "subscriber it has another {} than the bundle".format(field))


def test_keys_in_clear_are_not_put_on_a_node_of_hardware(emulated, etc):
    written(etc, OWN)
    refused(emulated, etc, KeyRefused, "the bundle is for an emulated enclave")


def test_another_camera_key_in_the_place_is_not_written_over(bundle, etc):
    written(etc, OWN)
    (etc / "secret").mkdir()
    (etc / "secret" / "gate").write_bytes(b"o" * 32)
    refused(bundle, etc, KeyRefused, "secret/gate: is there already, with other content: move it aside first")


def test_a_link_in_the_place_of_a_key_is_not_followed(bundle, etc, tmp_path):
    written(etc, OWN)
    (etc / "secret").mkdir()
    (etc / "secret" / "gate").symlink_to(tmp_path / "elsewhere")
    refused(bundle, etc, KeyRefused, "secret/gate: is there already")


@pytest.mark.parametrize("content, mode, words", [(b"short", 0o600, "not a key of 40"), (b"\1" * 40, 0o600, "z85"),
                                                  (generate_keys().secret, 0o644, "lets others at it")],
                         ids=["short", "not in Z85", "for others to read"])
def test_a_nodes_key_that_is_none_is_refused(bundle, etc, content, mode, words):
    written(etc, OWN)
    (etc / "secret").mkdir()
    (etc / "secret" / "node").write_bytes(content)
    (etc / "secret" / "node").chmod(mode)
    refused(bundle, etc, KeyRefused, words)


@pytest.mark.parametrize("call, after", [("mkdir", 0), ("mkdir", 2), ("open", 0), ("open", 3), ("fsync", 0),
                                         ("fsync", 4), ("fsync", 7), ("link", 0), ("link", 3)])
def test_a_disk_that_fails_in_the_middle_leaves_nothing_behind(bundle, etc, monkeypatch, call, after):
    """At each step of the writing: folders, files, names."""
    etc.parent.mkdir()
    real, left = getattr(os, call), [after]

    def failing(path, *arguments, **more):
        if call != "open" or (arguments and arguments[0] & os.O_EXCL):
            if left[0] == 0:
                raise OSError(28, "No space left on device", path)
            left[0] -= 1
        return real(path, *arguments, **more)

    before = everything(etc.parent.parent)
    monkeypatch.setattr(os, call, failing)
    try:
        install_at(bundle, etc)
        assert left[0] > 0, "it did not fail"
    except OSError as error:
        assert error.errno == 28
        monkeypatch.undo()
        assert everything(etc.parent.parent) == before
