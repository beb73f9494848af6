"""A training run goes on from its own state alone; what cannot be trained is said before hours are spent."""

import pytest

for module in ("torch", "mujoco", "tqdm"):
    pytest.importorskip(module, reason="training needs it: scripts/test --slow installs it")

import torch  # noqa: E402

from edged import owner  # noqa: E402
from edged.errors import MissingInput, PackageError, UsageError  # noqa: E402
from edged.train import state  # noqa: E402

PLAN = {"seed": 1, "steps": 4, "sources": ["generated"]}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.state"


def test_a_run_finds_its_own_state_and_no_other(path):
    assert state.resumed(path, PLAN) is None and state.resumed(None, PLAN) is None
    state.keep(path, PLAN, 2, network={"w": torch.ones(2)})
    assert state.resumed(path, PLAN)["step"] == 2 and sorted(one.name for one in path.parent.iterdir()) == ["run.state"]
    for name, value in (("seed", 2), ("steps", 5), ("sources", ["generated", "recorded"])):
        with pytest.raises(UsageError, match="run.state: is of another plan, {} ".format(name)) as caught:
            state.resumed(path, dict(PLAN, **{name: value}))
        assert "\n" not in str(caught.value)


def test_what_is_no_state_is_refused(path):
    with pytest.raises(MissingInput):
        state.load(path)
    for content in (b"", b"text", b"PK\x03\x04" + bytes(100)):
        path.write_bytes(content)
        with pytest.raises(PackageError, match="not a state of a training run"):
            state.load(path)
    for found in ([1], {"weights": 1}, {"network": 1}):
        torch.save(found, str(path))
        with pytest.raises(PackageError, match="not a state of a training run"):
            state.load(path)


def test_weights_of_another_form_are_refused(path):
    for weights in ({"weight": torch.ones(2, 2)}, {}, 3):
        with pytest.raises(PackageError, match="a network of another form"):
            state.fill(torch.nn.Linear(3, 2), weights, path)


def trained(tmp_path, capsys, *options):
    capsys.readouterr()
    try:
        code = owner.main(["train", "action", "--out", str(tmp_path / "net.npz"), "--batch", "2"] + list(options))
    except SystemExit as error:
        code = error.code
    return code, capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("option, value", [("--steps", "0"), ("--steps", "x"), ("--batch", "1"), ("--seed", "-1")])
def test_numbers_that_train_nothing_are_a_usage_error(tmp_path, capsys, option, value):
    code, said = trained(tmp_path, capsys, option, value)
    assert code == 2 and option in said and "at least" in said


def test_a_run_of_other_options_does_not_go_on_from_a_state(tmp_path, capsys):
    kept = ("--state", str(tmp_path / "s.state"), "--steps", "2")
    assert trained(tmp_path, capsys, *kept)[0] == 0
    for options in (("--rate", "1"), ("--seed", "9"), ("--width", "full"), ("--steps", "3")):
        code, said = trained(tmp_path, capsys, *kept + options)
        assert code == 2 and "s.state: is of another plan, {} ".format(options[0][2:]) in said
    code, said = trained(tmp_path, capsys, "--start", str(tmp_path / "net.npz"), "--steps", "2")
    assert code == 65 and "net.npz: not a state" in said


def test_a_folder_that_is_not_there_is_said_before_the_work(tmp_path, capsys):
    code, said = trained(tmp_path, capsys, "--out", str(tmp_path / "none" / "net.npz"), "--steps", "1000000")
    assert code == 66 and "there is no folder" in said


@pytest.mark.parametrize("count", ["0", "-1"])
def test_an_evaluation_of_no_clips_is_a_usage_error(capsys, count):
    with pytest.raises(SystemExit) as ended:
        owner.main(["train", "evaluate", "--clips", count])
    assert ended.value.code == 2 and "--clips" in capsys.readouterr().err
