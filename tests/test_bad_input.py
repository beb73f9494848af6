"""What a technician may get wrong on a node: each ends in one line that says what is wrong, and its exit code."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from attacks.networks import integer_model
from edged.bus import Router
from edged.enclave.host import HostEnclave
from edged.enclave.key import KeyClient
from edged.enclave.slots import put_slots, read_slots
from edged.model import package
from edged.site import Site, Terms, loopback_address

MODEL = integer_model(5, ((8, 1),), 30, 18)
CAMERA = "gate"


def make_site(folder, source):
    return Site(str(folder), MODEL, "tiny", Terms((("label 0", 0.5, 5),)), {CAMERA: ["source = \"{}\"".format(source)]},
                loopback_address(), threads=1)


@pytest.fixture
def site(tmp_path_factory):
    return make_site(tmp_path_factory.mktemp("b"), "generator:1")


def edged(*words, module="edged.cli", environment=None, timeout_s=60):
    return subprocess.run([sys.executable, "-m", module] + [str(word) for word in words], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True, timeout=timeout_s,
                          env=dict(os.environ, **(environment or {})))


def ends(done, code, *words):
    """One line, the last, names what is wrong; nobody sees a traceback."""
    said = done.stderr.strip().splitlines()
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr and said, done.stderr
    for word in words:
        assert str(word) in said[-1], said[-1]


def configure(site, old, new):
    text = site.config.read_text()
    assert old in text
    site.config.write_text(text.replace(old, new))


LARGE = "human-pose-estimation-0001"


def camera(site, **environment):
    return edged("camera", CAMERA, "--config", site.config, environment=environment)


def source(site, value, *more):
    configure(site, 'source = "generator:1"', "\n".join(['source = "{}"'.format(value)] + list(more)))


def test_a_video_that_is_not_there(site, pose_models):
    source(site, "/nowhere/yard.mp4", 'models = "{}"'.format(pose_models))
    ends(camera(site), 66, "/nowhere/yard.mp4")


def test_a_video_that_is_none(site, pose_models):
    text = site.folder / "yard.mp4"
    text.write_text("this is no video")
    source(site, text, 'models = "{}"'.format(pose_models))
    ends(camera(site), 65, text)


@pytest.fixture(scope="module")
def pose_models():
    pytest.importorskip("cv2")
    folder = Path(__file__).resolve().parents[2] / "shared" / "data" / "pose"
    if not folder.is_dir():
        pytest.skip("{}: pose models are not here".format(folder))
    return folder


def test_a_recording_that_is_cut_off(site):
    recording = site.folder / "people.jsonl"
    recording.write_text('{"schema": 1, "skeleton": "coco18", "width": 64')
    source(site, "recording:{}".format(recording))
    ends(camera(site), 65, recording, ":1:")


@pytest.mark.parametrize("line, key", [("treshold = 0.9", "camera.gate.treshold"), ("threshold = 0.9", "threshold"),
                                       ("hop = 2.0", "camera.gate.hop")])
def test_an_unknown_key_is_named_with_file_and_line(site, line, key):
    configure(site, "[camera.gate]", "[camera.gate]\n" + line)
    number = site.config.read_text().splitlines().index(line) + 1
    for done in (camera(site), edged("bridge", "--config", site.config),
                 edged("config", "check", "--config", site.config, module="edged.edgectl")):
        ends(done, 78, "{}:{}:".format(site.config, number), key)


def test_a_gpu_that_is_required_and_cannot_be_had(site):
    """Whatever is installed here: pycuda's package is there, and finds no driver."""
    broken = site.folder / "broken" / "pycuda"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("")
    (broken / "driver.py").write_text("raise ImportError('libcuda.so.1: cannot open shared object file')")
    configure(site, 'kind = "cpu"', 'kind = "cuda"')
    path = {"PYTHONPATH": os.pathsep.join([str(broken.parent), os.environ.get("PYTHONPATH", "")])}
    ends(edged("bridge", "--config", site.config, environment=path), 69, "pycuda finds no CUDA driver: libcuda.so.1")


def test_a_pose_model_that_is_missing(site):
    pytest.importorskip("cv2")
    empty = site.folder / "models"
    empty.mkdir()
    video = site.folder / "v.avi"
    video.write_bytes(b"")
    source(site, video, 'pose = "{}"'.format(LARGE))
    ends(camera(site, EDGED_MODELS=str(empty)), 66, empty)


def test_a_pose_model_of_another_hash(site):
    pytest.importorskip("cv2")
    from edged.camera import zoo
    folder = site.folder / "models"
    folder.mkdir()
    (folder / zoo.MODELS[LARGE].file).write_bytes(b"not the network that was pinned")
    video = site.folder / "v.avi"
    video.write_bytes(b"")
    source(site, video, 'pose = "{}"'.format(LARGE))
    ends(camera(site, EDGED_MODELS=str(folder)), 76, zoo.MODELS[LARGE].file)


def test_a_camera_key_that_is_missing_or_open_or_none(site):
    key = site.node / "cameras" / "gate.key"
    os.chmod(str(key), 0o644)
    ends(camera(site), 77, key, "chmod 600")
    key.unlink()
    ends(camera(site), 66, key)
    key.write_bytes(b"short")
    os.chmod(str(key), 0o600)
    ends(camera(site), 77, key)


@pytest.fixture
def enclave(site):
    """The host enclave of the site, with its keys."""
    with HostEnclave(site.run / "enclave") as running:
        key = KeyClient(running.connect_key())
        put_slots(key, read_slots(str(site.node / "slots")))
        key.close()
        yield running


def test_a_file_that_is_no_package(site, enclave):
    (site.node / "model.pkg").write_bytes(b"PK not a package")
    ends(edged("bridge", "--config", site.config), 65, "not a package")


def test_a_package_of_another_owner(site, enclave):
    stranger = package.pack(MODEL, os.urandom(32), Ed25519PrivateKey.generate(), "tiny")
    (site.node / "model.pkg").write_bytes(stranger)
    done = edged("bridge", "--config", site.config)
    assert done.returncode in (65, 76), done.stderr
    ends(done, done.returncode, "package")


def test_an_agreement_that_was_altered(site, enclave):
    signed = site.node / "agreement.cose"
    content = bytearray(signed.read_bytes())
    content[40] ^= 1
    signed.write_bytes(bytes(content))
    done = edged("bridge", "--config", site.config)
    assert done.returncode in (65, 76), done.stderr
    ends(done, done.returncode, "agreement")


def test_an_enclave_that_is_not_there(site):
    ends(edged("status", "--at", site.run / "enclave", module="edged.edgectl"), 69, site.run / "enclave")


def test_a_port_that_somebody_else_has(site):
    host, port = site.address[len("tcp://"):].split(":")
    with socket.socket() as other:
        other.bind((host, int(port)))
        other.listen(1)
        ends(edged("listen", "--config", site.subscriber, module="edged.city"), 69, port)


def test_a_bridge_that_runs_already(site, enclave):
    with Router("ipc://{}".format(site.run / "bridge.sock")):
        ends(edged("bridge", "--config", site.config), 69, site.run / "bridge.sock")


def test_a_disk_that_is_full(site, enclave):
    """At the start there is no spool to begin with: one line. Later its records are safe in the enclave
    (tests/bridge)."""
    site.node.joinpath("state").mkdir()
    ends(subprocess.run(["bash", "-c", "ulimit -f 0; exec {} -m edged.cli bridge --config {}".format(
        sys.executable, site.config)], stderr=subprocess.PIPE, universal_newlines=True, timeout=60), 69,
        site.node / "state" / "spool.db", "check the disk and its space")
