"""The two applications know each other: by a release's signature over what each one is, and by a secret that the platform
gives to them alone. Whoever looks like one of them and lacks either gets nothing.
"""

import hashlib
import os
import shutil
import stat
import tempfile
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from c import build
from edged import artifacts
from edged.emulated import EmulatedNode
from edged.enclave import wire
from edged.enclave.wire import Status
from edged.errors import EnclaveError, KeyRefused
from edged.trust import release
from edged.trust.release import APPLICATIONS, sign

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
    """(private key, folder of both applications built with its public half); drawn once for a checkout, for make's sake."""
    folder = build.FOLDER / "release"
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / release.PRIVATE
    if not kept.exists():
        pem, der = release.draw(PASSPHRASE)
        (folder / release.PUBLIC).write_bytes(der)
        kept.write_bytes(pem)
        kept.chmod(0o600)
    for name in APPLICATIONS:
        build.make(str(folder / ("edged-" + name)), "trusty_ta", BUILD=str(folder), RELEASE_KEY=str(folder / release.PUBLIC))
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
