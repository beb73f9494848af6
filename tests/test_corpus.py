"""The corpus: what takes.py names, kept and read strictly, and performances that mean what their label says."""

import argparse

import numpy as np
import pytest

from edged.camera import motion, puppet, viewpoint
from edged.errors import MissingInput, PackageError, UsageError
from edged.train import corpus, retarget, splice, takes
from edged.train.corpus import Corpus, Segment
from pose_fixtures import DATA, needs

MADE = ("standing", "sitting", "walking", "running", "waving", "jumping", "lying", "falling")
RIGID = [bone for bone, pair in enumerate(puppet.BONES) if pair not in ((1, 8), (1, 11))]


def segment(label, seed, split="train"):
    """A segment of the generator's: the corpus need not be there to be tested."""
    rng = np.random.default_rng((seed, motion.LABELS.index(label)))
    while True:
        acted = motion.act(rng, label, viewpoint.random_view(rng), 120)
        first, last = acted.shows
        if last - first > (59 if label in ("walking", "running", "sitting") else 9):
            break
    moved, body = retarget.of_joints(acted.people[0])
    if label == "sitting":  # without how the person came and went
        moved, first, last = moved.cut(first, last), 0, last - first
    return Segment("made/{}-{}".format(label, seed), label, "made", "made-{}".format(split), "none", split,
                   (first, last), body, moved)


@pytest.fixture(scope="module")
def segments():
    return [segment(label, seed, split) for split, seeds in (("train", (1, 2, 3)), ("held-out", (4, 5)))
            for label in MADE for seed in seeds]


@pytest.fixture(scope="module")
def made(segments):
    return Corpus([one for one in segments if one.split == "train"])


@pytest.fixture
def kept(segments, tmp_path):
    corpus.write(segments, tmp_path / "corpus.npz")
    return tmp_path / "corpus.npz"


def view():
    return viewpoint.random_view(np.random.default_rng(1), 1280, 720)


def lengths(placed):
    return np.stack([np.linalg.norm(placed[:, a] - placed[:, b], axis=-1) for a, b in puppet.BONES], 1)


def test_no_subject_is_in_both_splits():
    splits = {}
    for take in takes.TAKES:
        splits.setdefault(take.subject, set()).add(takes.split_of(take))
    assert all(len(found) == 1 for found in splits.values())
    assert {"cmu_02", "cmu_14", "mesh2motion"} == {name for name, found in splits.items() if found == {"held-out"}}


def test_every_take_has_a_label_a_licence_and_no_place_twice():
    assert len(set((take.source, take.file, take.span) for take in takes.TAKES)) == len(takes.TAKES)
    for take in takes.TAKES:
        assert take.label in motion.LABELS and takes.SOURCES[take.source].licence
        assert take.shows[1] > take.shows[0] < take.span[1] > take.span[0]
    assert not any("vicon" in take.source for take in takes.TAKES)  # tests only: its licence is not confirmed


def test_what_was_written_is_read_again(segments, kept):
    again = corpus.read_corpus(kept)
    assert [one[:7] for one in again] == [one[:7] for one in segments]
    for one, other in zip(segments, again):
        assert np.allclose(one.moves.ways, other.moves.ways, atol=1e-6) and one.own == other.own


def changed(path, **changes):
    with np.load(str(path)) as file:
        arrays = {key: file[key] for key in file.files}
    for key, change in changes.items():
        if change is None:
            del arrays[key]
        else:
            arrays[key] = change(arrays[key]) if key in arrays else change(None)
    np.savez(str(path), **arrays)
    return path


@pytest.mark.parametrize("changes", [
    {"form": None}, {"form": lambda x: np.array("edged corpus 0")}, {"extra": lambda _: np.zeros(1)},
    {"ends": lambda x: x[::-1]}, {"ends": lambda x: x + 1}, {"ends": lambda x: x[:-1]}, {"ends": lambda x: x * 1.0},
    {"pelvis": lambda x: x[:-1]}, {"pelvis": lambda x: x * np.nan}, {"ways": lambda x: x * 1.1},
    {"ways": lambda x: x[:, :12]}, {"shows": lambda x: x[:, ::-1]}, {"shows": lambda x: x + 100000},
    {"own": lambda x: -x}, {"own": lambda x: x[:, :3]}, {"label": lambda x: np.array(["flying"] * len(x))},
    {"split": lambda x: np.array(["test"] * len(x))}, {"name": lambda x: x[1:]},
    {"label": lambda x: np.array([{}] * len(x), dtype=object)},
])
def test_a_corpus_that_is_not_whole_is_refused_in_one_line(kept, changes):
    with pytest.raises(PackageError) as error:
        corpus.read_corpus(changed(kept, **changes))
    assert "\n" not in str(error.value) and str(kept) in str(error.value)


def test_what_is_no_corpus_at_all_is_refused(tmp_path):
    with pytest.raises(MissingInput):
        Corpus.load(tmp_path / "none.npz", "train")
    (tmp_path / "a.npz").write_bytes(b"PK\x03\x04 not a zip")
    with pytest.raises(PackageError):
        Corpus.load(tmp_path / "a.npz", "train")
    with pytest.raises(UsageError):
        Corpus.load(tmp_path / "a.npz", "all")


def test_a_split_holds_its_own_segments_only(kept):
    for split in takes.SPLITS:
        found = Corpus.load(kept, split)
        assert found.labels == tuple(label for label in motion.LABELS if label in MADE)
        assert {one.split for one in found.segments} == {split}


def test_a_label_without_segments_is_refused(made):
    with pytest.raises(UsageError):
        made.act(np.random.default_rng(1), "cycling", view())
    with pytest.raises(UsageError):
        made.act(np.random.default_rng(1), "flying", view())


@pytest.mark.parametrize("label", MADE)
def test_a_performance_is_one_person_on_the_ground_whose_bones_stay(made, label):
    for seed in range(12):
        acted = made.act(np.random.default_rng((seed, 7)), label, view(), 300)
        placed, = acted.people
        assert placed.shape[1:] == (18, 3) and 2 <= len(placed) <= 300 and np.isfinite(placed).all()
        assert 0 <= acted.shows[0] < acted.shows[1] <= len(placed)
        assert np.ptp(lengths(placed)[:, RIGID], axis=0).max() < 1e-6
        assert placed[..., 2].min() > 0.029
        assert np.linalg.norm(np.diff(placed, axis=0), axis=-1).max() < 1.0  # 30 m/s: nobody is torn away


def test_the_same_seed_performs_the_same_and_another_does_not(made):
    one, again, other = (made.act(np.random.default_rng(seed), "waving", view()) for seed in (3, 3, 4))
    assert np.array_equal(one.people[0], again.people[0]) and one.shows == again.shows
    assert one.people[0].shape != other.people[0].shape or not np.allclose(one.people[0], other.people[0])


def test_most_performances_are_seen_by_the_camera(made):
    seen = 0
    for seed in range(24):
        rng = np.random.default_rng((seed, 11))
        camera = viewpoint.random_view(rng)
        seen += motion.filmed(rng, camera, made.act(rng, ("standing", "walking")[seed % 2], camera)) is not None
    assert seen >= 18


def test_nobody_walks_while_standing_or_sitting(made):
    for label in ("standing", "sitting"):
        for seed in range(8):
            placed, _ = made.performed(np.random.default_rng(seed), label)
            hips = placed[:, (puppet.R_HIP, puppet.L_HIP), :2].mean(1)
            assert np.linalg.norm(hips[30:] - hips[:-30], axis=1).max(initial=0) < 1.0, (label, seed)


def test_who_falls_ends_lower_and_who_lies_is_low(made):
    for seed in range(8):
        placed, (first, last) = made.performed(np.random.default_rng(seed), "falling")
        assert placed[-1, puppet.NECK, 2] < 0.8 * placed[first, puppet.NECK, 2]
        placed, (first, last) = made.performed(np.random.default_rng(seed), "lying")
        assert placed[(first + last) // 2, puppet.NECK, 2] < 0.6


def test_half_are_mirrored(made):
    """A waver's hand is the right one in some performances of one segment, and the left one in others."""
    alone = Corpus([one for one in made.segments if one.label in ("waving", "standing")][:6])
    higher = set()
    for seed in range(16):
        placed, (first, last) = alone.performed(np.random.default_rng(seed), "waving")
        hand = placed[first:last, (puppet.R_WRIST, puppet.L_WRIST), 2].mean(0)
        higher.add(bool(hand[0] > hand[1]))
    assert higher == {True, False}


def test_joined_pieces_meet_without_a_jump():
    one, other = segment("walking", 1).moves, segment("walking", 2).moves
    both = splice.joined(one, other, 10)
    assert len(both.pelvis) == len(one.pelvis) + len(other.pelvis) - 10
    steps = np.linalg.norm(np.diff(both.pelvis[:, :2], axis=0), axis=1)
    assert steps.max() < 0.12 and np.allclose(np.linalg.norm(both.ways, axis=-1), 1)
    assert np.array_equal(both.ways[: len(one.pelvis) - 10], one.ways[:-10])


def test_a_walk_is_repeated_step_for_step():
    walk = splice.bent(segment("walking", 1).moves.cut(0, 60), 0.0)
    more = splice.repeated(walk, 300)
    assert len(more.pelvis) >= 300
    turn = np.abs(np.diff(more.ways[:, retarget.R_SHANK], axis=0)).max(1)
    assert turn[60:].max() < 1.6 * turn[:50].max()
    assert np.linalg.norm(more.pelvis[-1, :2] - more.pelvis[0, :2]) > 2.5 * np.linalg.norm(
        walk.pelvis[-1, :2] - walk.pelvis[0, :2])


def test_held_poses_stir_and_stay():
    moved = segment("lying", 1).moves
    longer = splice.held(np.random.default_rng(1), moved, 90)
    added = longer.ways[len(moved.pelvis):]
    assert len(added) == 90 and 0 < np.abs(np.diff(added, axis=0)).max() < 0.05
    assert np.abs(added - moved.ways[-1]).max() < 0.15
    assert splice.held(np.random.default_rng(1), moved, 0) is moved


def test_a_curve_keeps_every_step_and_turns_the_body_with_it():
    moved = segment("walking", 3).moves
    curve = splice.bent(moved, 0.02)
    length = [np.hypot(*np.diff(one.pelvis[:, :2], axis=0).T) for one in (moved, curve)]
    assert np.allclose(*length)
    assert np.allclose(np.sum(curve.ways[50, :, :2] * moved.ways[50, :, :2], -1),
                       np.cos(1.0) * np.sum(moved.ways[50, :, :2] ** 2, -1))


def test_walking_on_the_spot_becomes_walking():
    one = segment("walking", 2)
    still = retarget.Moves(one.moves.pelvis * [0, 0, 1], one.moves.ways)
    driven = corpus._driven(still, one.own)
    want = one.moves.pelvis[-1, :2] - one.moves.pelvis[0, :2]
    got = driven.pelvis[-1, :2] - driven.pelvis[0, :2]
    assert np.linalg.norm(got) > 0.5 * np.linalg.norm(want)


def command(*words):
    parser = argparse.ArgumentParser()
    corpus.add_arguments(parser)
    return corpus.run(parser.parse_args([str(word) for word in words]))


def test_the_command_writes_nothing_without_the_recordings(tmp_path):
    pytest.importorskip("tqdm", reason="progress bars come with the owner extra")
    with pytest.raises(MissingInput):
        command("--data", tmp_path / "none", "--out", tmp_path / "corpus.npz")
    with pytest.raises(MissingInput):
        command("--data", tmp_path, "--out", tmp_path / "corpus.npz")
    assert list(tmp_path.iterdir()) == []


def test_the_command_makes_a_corpus_of_the_recordings(tmp_path, capsys):
    pytest.importorskip("tqdm", reason="progress bars come with the owner extra")
    needs("motion/INDEX.csv"), needs("mocap/cmu_bvh60")
    command("--data", DATA, "--out", tmp_path / "corpus.npz")
    assert "walking" in capsys.readouterr().out
    train, held = (Corpus.load(tmp_path / "corpus.npz", split) for split in takes.SPLITS)
    assert set(train.labels) == {"standing", "sitting", "walking", "running", "jumping", "fighting", "lying", "falling"}
    assert set(held.labels) >= {"standing", "sitting", "walking", "running", "waving", "jumping", "fighting", "lying"}
    assert not {one.subject for one in train.segments} & {one.subject for one in held.segments}
    for found in (train, held):
        for label in found.labels:
            placed, = found.act(np.random.default_rng(5), label, view()).people
            assert np.isfinite(placed).all() and placed[..., 2].min() > 0.029


def test_labels_are_those_of_the_index():
    """Where the index gives a plain label, the table has the same."""
    index = needs("motion/INDEX.csv").read_text().splitlines()[1:]
    said = dict(row.split(",")[:2] for row in index)
    for take in takes.TAKES:
        label = said.get("{}/{}".format(takes.SOURCES[take.source].folder.replace("motion/", ""), take.file), "")
        if label in motion.LABELS:
            assert take.label == label, take
