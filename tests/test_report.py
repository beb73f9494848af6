"""The report: its figures are what they are called, and a bad package shows in them."""

from dataclasses import replace

import numpy as np
import pytest

from edged.errors import MissingInput, PackageError, ShapeError
from edged.model import clips as clipfile
from edged.model import report, rivals, stgcn
from edged.model.quantise import quantise

LABELS = ("a", "b", "c", "d", "e", "f", "g")


@pytest.fixture(scope="module")
def network():
    made = stgcn.random_network(3, channels=((6, 1), (8, 2), (8, 1)), frames=20, joints=7, labels=len(LABELS), taps=3)
    return replace(made, labels=LABELS)


@pytest.fixture(scope="module")
def some_clips(network):
    rng = np.random.default_rng(1)
    return [stgcn.random_clip(rng, network, 1 + index % 2) for index in range(12)]


@pytest.fixture(scope="module")
def model(network, some_clips):
    return quantise(network, some_clips[:6])


def filled(network, model, clips, labels=None, others=()):
    made = report.Report(network, model, labels)
    return made, report.compare(made, clips, others, labels)


def test_a_proper_quantisation_agrees(network, model, some_clips):
    made, _ = filled(network, model, some_clips)
    assert made.figures["clips"] == 12
    assert made.figures["top1_agreement"] == made.figures["top5_agreement"] == 1
    assert abs(made.figures["mean_loss_change"]) < 1e-3
    assert 0 < made.figures["largest_logit_error"] < 0.05
    assert len(made.layers) == len(model.layers)
    assert all(layer.error < 0.02 for layer in made.layers)
    assert all(0.4 < layer.bound_used < 1 for layer in made.layers if layer.weight_bits)


def test_one_layer_that_is_off_shows_in_its_line_and_below(network, model, some_clips):
    worse = list(model.layers)
    rng = np.random.default_rng(2)
    off = worse[4]
    worse[4] = replace(off, weights=np.rint(off.weights * rng.uniform(0.5, 0.9, off.weights.shape)).astype(np.int16))
    made, _ = filled(network, replace(model, layers=tuple(worse)), some_clips)
    assert max(layer.error for layer in made.layers[:4]) < 0.02 < 0.05 < made.layers[4].error
    assert made.figures["largest_logit_error"] > 0.05


def test_the_figures_are_what_their_names_say():
    made = report.Comparison([0, 1])
    made.add(np.array([4.0, 3, 2, 1, 0, -1, -2]), np.array([3.0, 4, 2, 1, 0, -1, -2]))   # first two changed places
    made.add(np.array([4.0, 3, 2, 1, 0, -1, -2]), np.array([4.0, 3, 2, 1, -1, 0, -2]))   # fifth and sixth
    figures = made.figures
    assert figures["top1_agreement"] == 0.5 and figures["top5_agreement"] == 0.5
    assert figures["largest_logit_error"] == 1
    assert figures["top1_accuracy_original"] == 0.5 and figures["top1_accuracy_quantised"] == 0.0
    losses = [np.log(np.exp(logits).sum(1)) - logits[[0, 1], [0, 1]]
              for logits in (np.array(made.original), np.array(made.other))]
    assert figures["mean_loss_change"] == pytest.approx(losses[1].mean() / losses[0].mean() - 1)


def test_accuracies_are_of_the_true_labels():
    made = report.Comparison([4, 6])
    for _ in range(2):
        made.add(np.array([4.0, 3, 2, 1, 0, -1, -2]), np.array([4.0, 3, 2, 1, -1, 0, -2]))
    figures = made.figures
    assert (figures["top5_accuracy_original"], figures["top5_accuracy_quantised"]) == (0.5, 0.0)


def test_a_clip_beyond_the_calibrated_range_is_counted_where_it_is_clipped(network, model, some_clips):
    made, _ = filled(network, model, some_clips)
    assert all(layer.clipped == 0 for layer in made.layers)
    narrow = quantise(network, some_clips[:6], margin=0.2)
    made, _ = filled(network, narrow, some_clips)
    assert max(layer.clipped for layer in made.layers) == len(some_clips)


def test_a_table_has_a_row_for_each_arithmetic(network, model, some_clips):
    made, others = filled(network, model, some_clips, None, rivals.rivals(network, some_clips[:6]))
    rows = report.as_table(dict({"edged": made.figures}, **others)).splitlines()
    assert [row.split("|")[1].strip() for row in rows[2:]] == ["edged"] + list(others)
    assert "100.0%" in rows[2] and rows[2].endswith("| - |")  # no labels, no accuracy
    assert len({row.count("|") for row in rows}) == 1


def test_rivals_with_fewer_bits_are_farther_off_than_edged(network, model, some_clips):
    made, others = filled(network, model, some_clips, None, rivals.rivals(network, some_clips[:6]))
    assert list(others) == ["two decimals", "int8", "int8, weights per channel"]
    for figures in others.values():
        assert figures["clips"] == 12
        assert figures["largest_logit_error"] > 5 * made.figures["largest_logit_error"]


def test_a_report_of_nothing_is_refused(network, model):
    with pytest.raises(MissingInput, match="at least one clip"):
        report.Report(network, model).figures


def test_another_networks_package_is_refused(network, model):
    with pytest.raises(ShapeError, match="the package has labels"):
        report.Report(replace(network, labels=LABELS[::-1]), model)
    with pytest.raises(PackageError):
        report.Report(network, replace(model, layers=model.layers[:-1]))


def test_it_is_drawn(network, model, some_clips, tmp_path):
    pytest.importorskip("matplotlib", reason="needs matplotlib: scripts/test --slow installs it")
    made, _ = filled(network, model, some_clips)
    report.draw(made.figures, made.layers, str(tmp_path / "report.png"))
    assert (tmp_path / "report.png").read_bytes().startswith(b"\x89PNG")


def saved(tmp_path, network, **changes):
    rng = np.random.default_rng(3)
    whole = np.zeros((3, network.persons, network.frames, network.joints, 3), np.int16)
    for index in range(3):
        one = stgcn.random_clip(rng, network, 1 + index % 2)
        whole[index, :len(one)] = one
    arrays = dict({"clips": whole, "labels": np.arange(3)}, **changes)
    np.savez(str(tmp_path / "clips.npz"), **{name: value for name, value in arrays.items() if value is not None})
    return tmp_path / "clips.npz"


def test_clips_are_read_without_those_who_are_absent(tmp_path, network):
    found, labels = clipfile.read(saved(tmp_path, network), network)
    assert [len(clip) for clip in found] == [1, 2, 1] and labels == [0, 1, 2]
    assert clipfile.read(saved(tmp_path, network, labels=None), network)[1] is None


@pytest.mark.parametrize("changes, message", [
    ({"clips": None}, "clips is missing"), ({"more": np.zeros(1)}, "unknown more"),
    ({"clips": np.zeros((3, 2, 20, 7, 3))}, "must be int16"),
    ({"clips": np.zeros((3, 2, 20, 8, 3), np.int16)}, "must be"),
    ({"clips": np.zeros((0, 2, 20, 7, 3), np.int16)}, "must be"), ({"labels": np.array([0, 1, 7])}, "one of 0..6"),
    ({"labels": np.array([0, 1])}, "one of 0..6"), ({"labels": np.array([0.0, 1, 2])}, "one of 0..6"),
    ({"clips": np.array([{}], dtype=object)}, "not a file of clips")])
def test_a_bad_file_of_clips_is_refused(tmp_path, network, changes, message):
    with pytest.raises(PackageError, match=message):
        clipfile.read(saved(tmp_path, network, **changes), network)


def test_clips_damaged_anywhere_are_refused_or_the_same(tmp_path, network):
    path = saved(tmp_path, network)
    whole, (expected, _) = path.read_bytes(), clipfile.read(path, network)
    rng = np.random.default_rng(4)
    refused = 0
    for _ in range(300):
        content = bytearray(whole)
        at = int(rng.integers(len(content)))
        at = at if rng.integers(2) else at % 400 - 200  # half of them in the zip's frame
        content[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(bytes(content))
        try:
            found, _ = clipfile.read(path, network)
        except PackageError:
            refused += 1
        else:
            assert all((one == other).all() for one, other in zip(found, expected))
    assert refused > 100


def test_clips_that_unpack_to_more_than_their_limit_are_refused(tmp_path, network, monkeypatch):
    monkeypatch.setattr(clipfile, "SIZE_MAX", 1000)
    with pytest.raises(PackageError, match="at most 0 are read"):
        clipfile.read(saved(tmp_path, network), network)


def test_no_file_of_clips_and_a_cut_one_are_named(tmp_path, network):
    with pytest.raises(MissingInput, match="none.npz"):
        clipfile.read(tmp_path / "none.npz", network)
    path = saved(tmp_path, network)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(PackageError, match="not a file of clips"):
        clipfile.read(path, network)
