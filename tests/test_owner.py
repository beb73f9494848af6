"""The model owner's way from a network to a package, by the commands; whatever is wrong is one line, and nothing is
written."""

import json
import os
from dataclasses import replace

import numpy as np
import pytest

from edged import owner
from edged.camera import motion
from edged.model import network as networks
from edged.model import stgcn
from edged.trust import keyring

PASSPHRASE = "correct horse battery"


@pytest.fixture(autouse=True)
def cheap(monkeypatch):
    """scrypt as it is meant costs half a second each time."""
    monkeypatch.setattr(keyring, "seal", lambda ring, passphrase, seal=keyring.seal: seal(ring, passphrase, 16))


@pytest.fixture
def desk(tmp_path):
    """A folder with a passphrase, a ring, a small network and clips for it."""
    (tmp_path / "words").write_text(PASSPHRASE + "\n")
    (tmp_path / "words").chmod(0o600)
    small = stgcn.random_network(5, channels=((4, 1), (6, 2)), frames=30, labels=3, taps=3)
    networks.write(replace(small, labels=("a", "b", "c")), tmp_path / "small.npz")
    rng = np.random.default_rng(1)
    clips = np.zeros((4, 2, 30, 18, 3), np.int16)
    for index in range(4):
        one = stgcn.random_clip(rng, small, 1 + index % 2)
        clips[index, :len(one)] = one
    np.savez(str(tmp_path / "clips.npz"), clips=clips, labels=np.arange(4) % 3)
    assert owner.main(["keys", "new", str(tmp_path / "ring"), "--passphrase-file", str(tmp_path / "words")]) == 0
    return tmp_path


def packed(desk, *more, network="small.npz", out="package"):
    return owner.main(["pack", str(desk / network), "--keys", str(desk / "ring"), "--passphrase-file",
                       str(desk / "words"), "--calibration", str(desk / "clips.npz"), "--out",
                       str(desk / out)] + list(more))


def refused(desk, capsys, code, message, *more, **changes):
    capsys.readouterr()
    before = sorted(os.listdir(str(desk)))
    assert packed(desk, *more, **changes) == code
    said = capsys.readouterr()
    assert said.out == "" and len(said.err.splitlines()) == 1 and message in said.err
    assert sorted(os.listdir(str(desk))) == before


def test_a_network_becomes_a_package_that_its_report_opens(desk, capsys):
    assert packed(desk, "--model-id", "shop", "--version", "7", "--placements", "masked,inputs") == 0
    capsys.readouterr()
    assert owner.main(["inspect", str(desk / "package")]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["model_id"], shown["version"], shown["placements"]) == ("shop", 7, ["masked", "inputs"])
    assert shown["key_id"] == keyring.inspect(str(desk / "ring")).key_ids[0].hex()
    assert owner.main(["report", str(desk / "small.npz"), "--calibration", str(desk / "clips.npz"), "--on",
                       str(desk / "clips.npz"), "--package", str(desk / "package"), "--keys", str(desk / "ring"),
                       "--passphrase-file", str(desk / "words"), "--json", "--rivals"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["clips"] == 4 and report["top1_agreement"] == 1
    assert set(report["rivals"]) == {"two decimals", "int8", "int8, weights per channel"}


def test_inspect_tells_nothing_that_is_sealed(desk, capsys):
    assert packed(desk) == 0
    capsys.readouterr()
    owner.main(["inspect", str(desk / "package")])
    assert set(json.loads(capsys.readouterr().out)) == {
        "model_id", "version", "form", "skeleton", "persons", "frames", "joints", "partitions", "placements", "key_id",
        "chunks", "layers", "labels"}


def test_an_older_key_is_used_where_it_is_named(desk, capsys):
    old = keyring.inspect(str(desk / "ring")).key_ids[0].hex()
    assert owner.main(["keys", "renew", str(desk / "ring"), "--passphrase-file", str(desk / "words")]) == 0
    capsys.readouterr()
    for more, expected in (((), keyring.inspect(str(desk / "ring")).key_ids[1].hex()), (("--key-id", old), old)):
        assert packed(desk, *more, out="package-" + expected) == 0
        assert expected in capsys.readouterr().out
    refused(desk, capsys, 77, "the ring has no model key 00", "--key-id", "00" * 16, out="other")


def test_a_changed_passphrase_opens_and_the_former_does_not(desk, capsys):
    (desk / "fresh").write_text("another passphrase\n")
    (desk / "fresh").chmod(0o600)
    assert owner.main(["keys", "passphrase", str(desk / "ring"), "--passphrase-file", str(desk / "words"),
                       "--new-passphrase-file", str(desk / "fresh")]) == 0
    assert owner.main(["keys", "check", str(desk / "ring"), "--passphrase-file", str(desk / "fresh")]) == 0
    assert owner.main(["keys", "check", str(desk / "ring"), "--passphrase-file", str(desk / "words")]) == 77


def test_a_package_that_is_there_is_not_written_over(desk, capsys):
    (desk / "package").write_bytes(b"sold")
    refused(desk, capsys, 77, "is there already")
    assert (desk / "package").read_bytes() == b"sold"


@pytest.mark.parametrize("more, code, message", [
    (("--placements", "masked,cloud"), 2, "'cloud': choose of enclave, inputs, masked"),
    (("--version", "-1"), 65, "version"), (("--model-id", "x" * 99), 2, "1 to 64 bytes")])
def test_what_no_manifest_may_say_is_refused(desk, capsys, more, code, message):
    refused(desk, capsys, code, message, *more)


def test_a_network_that_is_none_and_clips_of_another_are_refused(desk, capsys):
    (desk / "cut.npz").write_bytes((desk / "small.npz").read_bytes()[:200])
    refused(desk, capsys, 65, "not a network file", network="cut.npz")
    refused(desk, capsys, 66, "No such file", network="none.npz")
    np.savez(str(desk / "clips.npz"), clips=np.zeros((4, 2, 30, 25, 3), np.int16))
    refused(desk, capsys, 65, "must be int16 (N, 2, 30, 18, 3)")


def test_a_network_of_no_numbers_is_refused(desk, capsys):
    with np.load(str(desk / "small.npz")) as found:
        arrays = dict(found)
    for name, value in (("fc_weight", np.full_like(arrays["fc_weight"], np.nan)), ("labels", arrays["labels"][:2]),
                        ("persons", np.int64(1 << 40)), ("strides", np.array("1"))):
        np.savez(str(desk / "bad.npz"), **dict(arrays, **{name: value}))
        refused(desk, capsys, 65, "bad.npz: not a network file", network="bad.npz")


def test_a_network_outside_the_bound_is_refused(desk, capsys):
    network = networks.read(desk / "small.npz")
    huge = replace(network.data_norm, offset=network.data_norm.offset + 1e9)
    networks.write(replace(network, data_norm=huge), desk / "huge.npz")
    refused(desk, capsys, 65, "not representable", network="huge.npz")


def test_logits_that_the_enclave_cannot_tell_apart_are_refused(desk, capsys):
    network = networks.read(desk / "small.npz")
    networks.write(replace(network, fc_bias=network.fc_bias + 2e4), desk / "loud.npz")
    refused(desk, capsys, 65, "loud.npz: its logits reach 2e+04 on the calibration clips", network="loud.npz")


def test_clips_without_anybody_calibrate_and_compare_nothing(desk, capsys):
    np.savez(str(desk / "clips.npz"), clips=np.zeros((4, 2, 30, 18, 3), np.int16))
    refused(desk, capsys, 65, "clips.npz: nobody is in any of the 4 clips")
    assert report(desk, "--calibration", str(desk / "clips.npz")) == 65


def test_the_package_of_another_network_is_not_reported_on(desk, capsys):
    assert packed(desk) == 0
    other = stgcn.random_network(6, channels=((4, 1), (8, 2)), frames=30, labels=3, taps=3)
    networks.write(replace(other, labels=("a", "b", "c")), desk / "other.npz")
    capsys.readouterr()
    assert owner.main(["report", str(desk / "other.npz"), "--on", str(desk / "clips.npz"), "--package",
                       str(desk / "package"), "--keys", str(desk / "ring"), "--passphrase-file",
                       str(desk / "words")]) == 65
    said = capsys.readouterr().err
    assert "the package is of another network: sizes" in said and len(said.splitlines()) == 1


@pytest.mark.parametrize("text", ["a\x1b[31m", "a\nb", "\udcff", "", " a", "\u202e"])
def test_a_model_id_that_a_screen_would_not_show_as_it_is_is_refused(desk, capsys, text):
    refused(desk, capsys, 2, "must be 1 to 64 bytes of printable text", "--model-id", text)


def test_a_key_id_that_is_none_is_refused(desk, capsys):
    refused(desk, capsys, 2, "--key-id zz: must be hexadecimal", "--key-id", "zz")


def report(desk, *more):
    return owner.main(["report", str(desk / "small.npz"), "--on", str(desk / "clips.npz")] + list(more))


def test_a_picture_that_cannot_be_drawn_is_refused_before_the_work(desk, capsys, monkeypatch):
    monkeypatch.setattr(owner, "_compared", None)  # nothing is compared
    for name, code, message in (("report.docx", 2, "must end with .png"),
                                ("none/report.png", 66, "there is no folder")):
        assert report(desk, "--plot", str(desk / name)) == code
        said = capsys.readouterr()
        assert said.out == "" and message in said.err and len(said.err.splitlines()) == 1


def test_a_packages_report_needs_no_calibration_but_its_rivals_do(desk, capsys):
    assert packed(desk) == 0
    opened = ("--package", str(desk / "package"), "--keys", str(desk / "ring"), "--passphrase-file",
              str(desk / "words"))
    capsys.readouterr()
    assert report(desk, *opened) == 0
    assert "top5_agreement" in capsys.readouterr().out
    assert report(desk, "--rivals", *opened) == 2
    assert "--calibration: this network needs clips of its own" in capsys.readouterr().err
    assert report(desk, "--package", str(desk / "package")) == 2
    assert "--keys and --passphrase-file are needed" in capsys.readouterr().err


def test_rivals_are_printed_as_a_table(desk, capsys):
    assert report(desk, "--rivals", "--calibration", str(desk / "clips.npz")) == 0
    rows = [row for row in capsys.readouterr().out.splitlines() if row.startswith("|")]
    assert [row.split("|")[1].strip() for row in rows[2:]] == [
        "edged", "two decimals", "int8", "int8, weights per channel"]


def test_a_wrong_passphrase_packs_nothing(desk, capsys):
    (desk / "words").write_text("not the passphrase\n")
    refused(desk, capsys, 77, "the passphrase is another one")


def test_a_package_of_another_owner_is_not_reported_on(desk, capsys):
    assert packed(desk) == 0
    assert owner.main(["keys", "new", str(desk / "other"), "--passphrase-file", str(desk / "words")]) == 0
    capsys.readouterr()
    assert owner.main(["report", str(desk / "small.npz"), "--calibration", str(desk / "clips.npz"), "--on",
                       str(desk / "clips.npz"), "--package", str(desk / "package"), "--keys", str(desk / "other"),
                       "--passphrase-file", str(desk / "words")]) == 77
    assert "the ring has no model key" in capsys.readouterr().err


def test_generated_clips_are_not_used_for_other_labels(desk, capsys):
    assert owner.main(["report", str(desk / "small.npz")]) == 2
    assert "the generator makes other labels" in capsys.readouterr().err


def test_the_bundled_network_meets_its_goal_on_some_clips(capsys):
    """The goal itself is of 1,000 clips: see the slow test."""
    assert owner.main(["report", "--json", "--clips", "20"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["clips"] == 20 and report["top1_agreement"] == 1
    assert abs(report["mean_loss_change"]) < 0.01
    assert len(motion.LABELS) == 10


@pytest.mark.slow
def test_the_bundled_network_meets_its_goal(capsys):
    assert owner.main(["report", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["clips"] == 1000
    assert report["top5_agreement"] >= 0.999 and abs(report["mean_loss_change"]) <= 0.001


@pytest.mark.parametrize("name", sorted(owner.TRAIN))
def test_every_tool_of_train_has_its_help(name, capsys):
    for module in ("torch", "matplotlib", "tqdm", "cv2"):
        pytest.importorskip(module, reason="training needs it: scripts/test --slow installs it")
    with pytest.raises(SystemExit) as ended:
        owner.main(["train", name, "--help"])
    assert ended.value.code == 0 and "--" in capsys.readouterr().out
