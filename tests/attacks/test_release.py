"""The two applications know each other: by a release's signature over what each one is, and by a secret that the
platform gives to them alone. Whoever looks like one of them and lacks either gets nothing.
"""

import hashlib
import os
import shutil
import stat
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

import linking
from c import build
from edged import artifacts
from edged.emulated import EmulatedNode
from edged.enclave import wire
from edged.enclave.wire import KeyCommand, Status
from edged.errors import EnclaveError, KeyRefused
from edged.trust import evidence, release
from edged.trust.release import APPLICATIONS, sign
from test_identity import Device, key_link_of

VERSION = wire.EDGED_SECURITY_VERSION
PASSPHRASE = b"not a secret, in a test"

needs_gcc = pytest.mark.skipif(bool(build.missing("make", "gcc")), reason="needs make and gcc")


@pytest.fixture
def short_folder():
    """A socket's path has at most 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="edged-") as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def released():
    """(private key, folder of both applications built with its public half); drawn once for a checkout, for make's
    sake."""
    folder = build.FOLDER / "release"
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / release.PRIVATE
    if not kept.exists():
        pem, der = release.draw(PASSPHRASE)
        (folder / release.PUBLIC).write_bytes(der)
        kept.write_bytes(pem)
        kept.chmod(0o600)
    for name in APPLICATIONS:
        build.make(str(folder / ("edged-" + name)), "trusty_ta", BUILD=str(folder),
                   RELEASE_KEY=str(folder / release.PUBLIC))
    return release.open_private(str(kept), PASSPHRASE), folder


def measured(image):
    return hashlib.sha256(image.read_bytes()).digest()


@pytest.fixture
def images(released, tmp_path, monkeypatch):
    """Copies of both, signed, which are those that are started."""
    private, built = released
    for name in APPLICATIONS:
        image = tmp_path / ("edged-" + name)
        shutil.copy(str(built / image.name), str(image))
        (tmp_path / (image.name + ".sig")).write_bytes(sign(private, name, VERSION, measured(image)))
    monkeypatch.setenv(artifacts.BUILD_VARIABLE, str(tmp_path))
    return tmp_path


def refused(folder):
    """Whether the evaluation application gets no key of the key application."""
    try:
        with EmulatedNode(str(folder)):
            return False
    except EnclaveError as error:
        assert error.status == Status.UNAVAILABLE or error.status == Status.KEY, error
        return True


@needs_gcc
def test_signed_images_of_one_release_work_together(images, short_folder):
    assert not refused(short_folder)


def other_key():
    return rsa.generate_private_key(65537, 2048)


FALSE = {
    "none": lambda key, name, image: None,
    "the other application's": lambda key, name, image: sign(
        key, name, VERSION, measured(image.with_name("edged-eval" if name == "key" else "edged-key"))),
    "for the other application": lambda key, name, image: sign(
        key, "eval" if name == "key" else "key", VERSION, measured(image)),
    "of another version": lambda key, name, image: sign(key, name, VERSION + 1, measured(image)),
    "of another image": lambda key, name, image: sign(key, name, VERSION, bytes(32)),
    "by another key": lambda key, name, image: sign(other_key(), name, VERSION, measured(image)),
    "with a bit flipped": lambda key, name, image: bytes(
        [sign(key, name, VERSION, measured(image))[0] ^ 1]) + sign(key, name, VERSION, measured(image))[1:],
    "cut": lambda key, name, image: sign(key, name, VERSION, measured(image))[:-1],
    "with a byte more": lambda key, name, image: sign(key, name, VERSION, measured(image)) + b"\0",
}


@needs_gcc
@pytest.mark.parametrize("how", sorted(FALSE))
@pytest.mark.parametrize("name", APPLICATIONS)
def test_an_application_without_its_signature_gets_nothing_and_gives_nothing(released, images, short_folder, name, how):
    image = images / ("edged-" + name)
    made = FALSE[how](released[0], name, image)
    path = images / (image.name + ".sig")
    if made is None:
        path.unlink()
    else:
        path.write_bytes(made)
    assert refused(short_folder)


@needs_gcc
@pytest.mark.parametrize("name", APPLICATIONS)
def test_an_image_that_was_altered_after_it_was_signed_is_refused(images, short_folder, name):
    with open(str(images / ("edged-" + name)), "ab") as file:
        file.write(b"\0")
    assert refused(short_folder)


@pytest.fixture(scope="module")
def newer(released):
    """Folder of both applications of the next release."""
    folder = released[1].with_name("release-2")
    for name in APPLICATIONS:
        build.make(str(folder / ("edged-" + name)), "trusty_ta", BUILD=str(folder), SECURITY_VERSION=str(VERSION + 1),
                   RELEASE_KEY=str(released[1] / release.PUBLIC))
    return folder


@needs_gcc
@pytest.mark.parametrize("old", [(), ("key",), ("eval",)], ids=lambda old: old[0] if old else "none")
def test_an_application_of_an_older_release_is_refused_although_signed(released, newer, images, short_folder, old):
    """Root keeps the last release's, whose fault this one mends, and starts it beside the new one."""
    for name in set(APPLICATIONS) - set(old):
        image = images / ("edged-" + name)
        shutil.copy(str(newer / image.name), str(image))
        (images / (image.name + ".sig")).write_bytes(sign(released[0], name, VERSION + 1, measured(image)))
    assert refused(short_folder) == bool(old)


@needs_gcc
def test_a_build_without_a_release_key_is_refused_by_one_that_has_it(images, short_folder, monkeypatch):
    monkeypatch.delenv(artifacts.BUILD_VARIABLE)
    plain = artifacts.find("edged-eval")
    monkeypatch.setenv(artifacts.BUILD_VARIABLE, str(images))
    shutil.copy(str(plain), str(images / "edged-eval"))
    assert refused(short_folder)


def test_a_look_alike_with_everything_but_the_platforms_secret_gets_nothing(short_folder):
    """The very same program, on another device: it took over the port at which the evaluation looks for keys."""
    here, there = short_folder / "a", short_folder / "b"
    here.mkdir()
    there.mkdir()
    with EmulatedNode(str(there)) as other:
        node = EmulatedNode(str(here))
        node.enclave.start()
        try:
            port = wire.KEY_EVAL_PORT + ".ta"
            assert stat.S_ISSOCK(os.stat(str(there / port)).st_mode)
            os.rename(str(there / port), str(here / port))
            with pytest.raises(EnclaveError) as caught:
                node.connect()
            assert caught.value.status == Status.UNAVAILABLE
        finally:
            node.enclave.stop()
        assert other.key.info()  # it is still there, and was asked


def evidence_of(device):
    return evidence.parse(evidence.with_chain(device.key.attest(bytes(16)), [b"", b""])).claims.applications


def test_a_look_alike_with_a_harvested_hello_is_neither_named_nor_given_anything():
    """Every hello is signed for all to see; who shows one at this port lacks the platform's secret."""
    with Device() as device:
        device.key.identity_new()
        device.key.put_slot(0, wire.KeyKind.DATA, b"k" * 32, b"i" * 16, b"v" * 32)
        ask = wire.Derive(0, wire.KeyPurpose.CAMERA, 1, bytes(32), b"c".ljust(64, b"\0")).pack()
        harvested = linking.HELLO
        for known in (None, b"m" * 32):  # before one was linked, and after
            with key_link_of(device) as link:
                for secret in (bytes(32), os.urandom(32)):
                    key = linking.greet(link, secret, replace(harvested, measurement=b"x" * 32))
                    assert link.call(KeyCommand.DERIVE, ask)[0] == Status.ORDER
                    assert linking.confirm(link, linking.tag_of(key)) == Status.KEY
                    assert link.call(KeyCommand.DERIVE, ask)[0] == Status.ORDER
                # Word by word as it was harvested: whoever shows it does not even have its private key.
                assert link.call(KeyCommand.HELLO, harvested.pack())[0] == Status.OK
                for tag in (bytes(32), linking.tag_of(bytes(32))):
                    assert linking.confirm(link, tag) in (Status.KEY, Status.ORDER)
                assert link.call(KeyCommand.DERIVE, ask)[0] == Status.ORDER
                named = evidence_of(device).get("eval")
                assert (named.measurement if named else None) == known
                linking.link(link, device.folder)
                assert link.call(KeyCommand.DERIVE, ask)[0] == Status.OK
                assert evidence_of(device)["eval"].measurement == harvested.measurement


def test_a_confirmation_of_one_link_does_not_serve_another():
    with Device() as device:
        device.key.identity_new()
        with key_link_of(device) as link:
            tag = linking.tag_of(linking.link(link, device.folder))
            linking.greet(link, linking.secret_of(device.folder), replace(linking.HELLO, measurement=b"x" * 32))
            assert linking.confirm(link, tag) == Status.KEY
            assert evidence_of(device)["eval"].measurement == linking.HELLO.measurement


def test_what_is_signed_fits_one_application_version_and_measurement():
    key = other_key()
    texts = {release.message(name, version, measurement) for name in APPLICATIONS for version in (1, 2)
             for measurement in (bytes(32), bytes(31) + b"\1")}
    assert len(texts) == 8
    assert len(sign(key, "key", 1, bytes(32))) == 256


def passphrase_file(tmp_path):
    path = tmp_path / "passphrase"
    path.write_bytes(PASSPHRASE + b"\n")
    path.chmod(0o600)
    return str(path)


def test_a_release_key_is_drawn_and_signs_from_the_command_line(tmp_path, capsys):
    secret = ["--dir", str(tmp_path / "r"), "--passphrase-file", passphrase_file(tmp_path)]
    assert release.main(["new"] + secret) == 0
    assert stat.S_IMODE((tmp_path / "r" / release.PRIVATE).stat().st_mode) == 0o600
    assert release.main(["sign", "key", "--measurement", "11" * 32, "--security-version", "1", "--out",
                         str(tmp_path / "made.sig")] + secret) == 0
    public = serialization.load_der_public_key((tmp_path / "r" / release.PUBLIC).read_bytes())
    public.verify((tmp_path / "made.sig").read_bytes(), release.message("key", 1, b"\x11" * 32), release._PSS,
                  release.hashes.SHA256())
    assert release.main(["new"] + secret) != 0, "never over a key that is there"
    (tmp_path / "passphrase").write_bytes(b"quite another one\n")
    with pytest.raises(KeyRefused, match="the passphrase is another one, or the key was altered"):
        release.open_private(str(tmp_path / "r" / release.PRIVATE), b"quite another one")
    assert release.main(["sign", "key", "--measurement", "11" * 32, "--security-version", "1", "--out",
                         str(tmp_path / "no.sig")] + secret) == 77
    assert not (tmp_path / "no.sig").exists()
    capsys.readouterr()
