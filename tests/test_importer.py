"""A network that was trained and saved in PyTorch is the same network here, and whatever else is in a file is
refused."""

import io
import os
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="import needs torch: scripts/test --slow installs it")

from edged import owner  # noqa: E402
from edged.errors import MissingInput, PackageError, UsageError  # noqa: E402
from edged.enclave.wire import Placement  # noqa: E402
from edged.model import reference, report, stgcn  # noqa: E402
from edged.model import network as networks  # noqa: E402
from edged.model.importer import import_file  # noqa: E402
from edged.model.quantise import quantise  # noqa: E402
from edged.model.skeleton import BODY_25, COCO_18, NTU_25, adjacency  # noqa: E402
from attacks.node import AttackNode  # noqa: E402
from torch_stgcn import Model  # noqa: E402

NARROW = ((8, 1), (12, 2), (12, 1))
STRIDES = [stride for _, stride in NARROW]
FRAMES = 24
LABELS = ["a", "b", "c", "d", "e"]


def clips_of(joints, count, seed=1, frames=FRAMES):
    rng = np.random.default_rng(seed)
    return np.stack([stgcn.from_fixed_point(stgcn.random_clip(rng, (frames, joints), 1 + index % 2), 2)
                     for index in range(count)])


def as_theirs(clips):
    """(N, M, T, V, C) -> (N, C, T, V, M)."""
    return torch.tensor(clips.transpose(0, 4, 2, 3, 1), dtype=torch.float32)


def trained(skeleton=COCO_18, partitions=3, channels=NARROW, labels=len(LABELS), steps=8, frames=FRAMES, **options):
    """A network after some steps, so that its statistics are those of data and its weights are not the first ones."""
    torch.manual_seed(3)
    model = Model(adjacency(skeleton, partitions), channels, labels, **options)
    optimiser = torch.optim.SGD(model.parameters(), 0.05)
    clips = as_theirs(clips_of(skeleton.joints, 10, frames=frames))
    truth = torch.arange(10) % labels
    for _ in range(steps):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(model(clips), truth).backward()
        optimiser.step()
    return model.eval()


def saved(folder, network, **wrapped):
    torch.save(wrapped or network.state_dict(), str(folder / "model.pt"))
    return str(folder / "model.pt")


def agree(model, network, joints, frames=FRAMES):
    clips = clips_of(joints, 4, seed=2, frames=frames)
    with torch.no_grad():
        theirs = model(as_theirs(clips)).numpy()
    ours = stgcn.forward(network, clips)
    assert np.abs(ours - theirs).max() < 2e-5 * max(1.0, np.abs(theirs).max())
    assert np.ptp(theirs, axis=0).max() > 1e-4  # it does answer something


@pytest.mark.parametrize("skeleton", [COCO_18, BODY_25, NTU_25], ids=lambda one: one.name)
@pytest.mark.parametrize("partitions", [1, 2, 3])
def test_every_skeleton_and_partition_answers_as_in_pytorch(tmp_path, skeleton, partitions):
    model = trained(skeleton, partitions)
    network = import_file(saved(tmp_path, model), LABELS, frames=FRAMES, strides=STRIDES)
    assert network.skeleton == skeleton and network.labels == tuple(LABELS)
    agree(model, network, skeleton.joints)


@pytest.mark.parametrize("channels", [((4, 1),), ((16, 3), (16, 1)), ((6, 1), (6, 2), (6, 1)), ((8, 1), (4, 1), (8, 2)),
                                      tuple((6, 1 + (index % 4 == 3)) for index in range(14))], ids=str)
@pytest.mark.parametrize("options", [{}, {"importance": False}, {"bias": False}, {"taps": 5}], ids=str)
def test_every_depth_stride_and_residual_answers_as_in_pytorch(tmp_path, channels, options):
    model = trained(channels=channels, **options)
    network = import_file(saved(tmp_path, model), frames=FRAMES, strides=[stride for _, stride in channels])
    agree(model, network, 18)


def test_random_weights_answer_as_in_pytorch(tmp_path):
    model = trained(steps=0)
    agree(model, import_file(saved(tmp_path, model), frames=FRAMES, strides=STRIDES), 18)


def test_the_published_size_needs_no_strides(tmp_path):
    model = trained(channels=stgcn.FULL_CHANNELS, steps=1, frames=16)
    network = import_file(saved(tmp_path, model), frames=16)
    assert [block.stride for block in network.blocks] == [1, 1, 1, 1, 2, 1, 1, 2, 1, 1]
    agree(model, network, 18, frames=16)


@pytest.mark.parametrize("wrap", [lambda state: {"state_dict": state, "epoch": 3},
                                  lambda state: {"module." + name: value for name, value in state.items()},
                                  lambda state: {"model": {"model." + name: value for name, value in state.items()}}])
def test_what_training_scripts_wrap_around_it_is_taken_off(tmp_path, wrap):
    model = trained()
    agree(model, import_file(saved(tmp_path, model, **wrap(model.state_dict())), frames=FRAMES, strides=STRIDES), 18)


def test_imported_and_quantised_it_still_answers_as_in_pytorch(tmp_path):
    model = trained()
    network = import_file(saved(tmp_path, model), LABELS, frames=FRAMES, strides=STRIDES)
    rng = np.random.default_rng(4)
    clips = [stgcn.random_clip(rng, network, 1 + index % 2) for index in range(8)]
    integers = quantise(network, clips)
    full = np.stack([stgcn.from_fixed_point(clip, 2) for clip in clips])
    with torch.no_grad():
        theirs = model(as_theirs(full)).numpy()
    ours = np.array([reference.run(integers, clip)[0] / 65536 for clip in clips])
    assert np.abs(ours - theirs).max() < 0.01 * max(1.0, np.abs(theirs).max())


def test_the_command_writes_a_network_file(tmp_path, capsys):
    model = trained()
    (tmp_path / "labels").write_text("\n".join(LABELS) + "\n")
    assert owner.main(["import", saved(tmp_path, model), "--labels", str(tmp_path / "labels"), "--frames", str(FRAMES),
                       "--strides", "1,2,1", "--out", str(tmp_path / "network.npz")]) == 0
    assert "3 blocks, channels 8, 12, 12, 5 labels, skeleton coco18" in capsys.readouterr().out
    agree(model, networks.read(tmp_path / "network.npz"), 18)


CASES = [
    ({}, Placement.MASKED), ({"skeleton": BODY_25}, Placement.ENCLAVE),
    ({"skeleton": NTU_25, "partitions": 2}, Placement.MASKED),
    ({"partitions": 1, "channels": ((8, 1), (12, 3), (12, 1), (16, 2), (16, 1), (16, 1))}, Placement.INPUTS),
    ({"importance": False, "bias": False, "steps": 0}, Placement.MASKED),
    pytest.param({"channels": stgcn.FULL_CHANNELS, "steps": 1}, Placement.MASKED, marks=pytest.mark.slow)]


@pytest.mark.parametrize("options, placement", CASES, ids=str)
def test_imported_packed_and_loaded_the_enclave_answers_as_pytorch(tmp_path, options, placement):
    """The enclave's scores are those of the integer reference, bit for bit; that is as far from PyTorch as its report
    says."""
    model = trained(**options)
    channels = options.get("channels", NARROW)
    network = import_file(saved(tmp_path, model), LABELS, frames=FRAMES, strides=[stride for _, stride in channels])
    rng = np.random.default_rng(5)
    clips = [stgcn.random_clip(rng, network, 1 + index % 2) for index in range(4)]
    integers = quantise(network, clips)
    made = report.Report(network, integers)
    with AttackNode() as node:
        node.load(integers, placement, "window")
        camera = node.camera()
        for clip in clips:
            node.attempt(camera, node.seal(camera, clip)).finish_exactly(clip)
            made.add(clip)
            with torch.no_grad():
                theirs = model(as_theirs(stgcn.from_fixed_point(clip, 2)[None])).numpy()[0]
            off = np.abs(reference.run(integers, clip)[0] / 65536 - theirs).max()
            assert off <= made.figures["largest_logit_error"] + 2e-5 * max(1.0, np.abs(theirs).max())
    assert made.figures["top1_agreement"] == 1 and made.figures["largest_logit_error"] < 0.02


def exported(folder, model, joints=18, frames=FRAMES, **options):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    torch.onnx.export(model, (torch.zeros(1, 3, frames, joints, 2),), str(folder / "model.onnx"), dynamo=False,
                      **dict({"opset_version": 13}, **options))
    return str(folder / "model.onnx")


KEPT = {"training": torch.onnx.TrainingMode.PRESERVE, "do_constant_folding": False}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("options", [{}, {"opset_version": 17}, KEPT], ids=["folded", "opset 17", "norms kept"])
@pytest.mark.parametrize("more", [{}, {"importance": False}, {"bias": False}, {"partitions": 1}, {"skeleton": NTU_25}],
                         ids=str)
def test_as_onnx_it_answers_as_in_pytorch(tmp_path, options, more):
    model = trained(**more)
    skeleton = more.get("skeleton", COCO_18)
    path = exported(tmp_path, model, skeleton.joints, **options)
    network = import_file(path, LABELS, skeleton=skeleton.name)
    assert (network.frames, network.persons, network.skeleton) == (FRAMES, 2, skeleton)
    assert [block.stride for block in network.blocks] == STRIDES
    agree(model, network, skeleton.joints)


@pytest.mark.filterwarnings("ignore")
def test_an_onnx_file_tells_its_skeleton_where_it_holds_one_adjacency(tmp_path):
    assert import_file(exported(tmp_path, trained(importance=False))).skeleton == COCO_18
    refused(exported(tmp_path, trained()), UsageError, "say it by --skeleton")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("change, message", [
    (lambda model: torch.nn.Sequential(model, torch.nn.Softmax(1)), "Softmax .* where Conv or Gemm was expected"),
    (lambda model: setattr(model.st_gcn_networks[1].tcn, "1", torch.nn.Sigmoid()) or model,
     "is not the end of a block"),
    (lambda model: setattr(model.data_bn, "running_var", model.data_bn.running_var * float("nan")) or model,
     "data_bn.running_var holds NaN"),
])
def test_another_graph_is_refused_by_name(tmp_path, change, message):
    refused(exported(tmp_path, change(trained(importance=False)).eval()), PackageError, message)


@pytest.mark.filterwarnings("ignore")
def test_a_graph_that_does_more_than_was_read_of_it_is_refused(tmp_path):
    class Louder(torch.nn.Module):
        """The mean over time comes from the end of the clip alone: the pattern is the same, the answer is not."""

        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, x):
            return self.model(x.flip(3))

    path = exported(tmp_path, Louder(trained(importance=False)).eval())
    with pytest.raises(PackageError):
        import_file(path)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("cut", [2, 100, -50])
def test_a_damaged_onnx_file_is_refused(tmp_path, cut):
    path = exported(tmp_path, trained(importance=False))
    with open(path, "rb") as file:
        content = file.read()
    with open(path, "wb") as file:
        file.write(content[:cut])
    refused(path, PackageError, "not an ONNX file, or damaged")


def refused(path, error, message, **options):
    with pytest.raises(error, match=message) as caught:
        import_file(path, **dict({"frames": FRAMES, "strides": STRIDES}, **options))
    assert "\n" not in str(caught.value)


def changed(tmp_path, name, value):
    state = dict(trained(steps=0).state_dict())
    if value is None:
        del state[name]
    else:
        state[name] = value(state[name]) if name in state else value(None)
    torch.save(state, str(tmp_path / "changed.pt"))
    return str(tmp_path / "changed.pt")


@pytest.mark.parametrize("name, value, message", [
    ("fcn.bias", None, "fcn.bias is missing"),
    ("st_gcn_networks.1.tcn.0.running_var", None, "st_gcn_networks.1.tcn.0.running_var is missing"),
    ("st_gcn_networks.1.residual.0.weight", None, "st_gcn_networks.1.residual is missing: 8 channels at stride 2"),
    ("st_gcn_networks.1.gcn.conv.weight", lambda x: x[:, :5],
     r"gcn.conv.weight is \(36, 5, 1, 1\), must be \(36, 8, any, 1\)"),
    ("st_gcn_networks.0.gcn.conv.weight", lambda x: x.repeat(1, 1, 3, 1), "gcn.conv reaches over 3 frames"),
    ("st_gcn_networks.0.tcn.2.weight", lambda x: x[:, :, :8], "tcn.2 has 8 taps: only an odd number"),
    ("st_gcn_networks.2.tcn.3.weight", lambda x: x * float("nan"), "tcn.3.weight holds NaN or infinity"),
    ("fcn.weight", lambda x: x / 0, "fcn.weight holds NaN or infinity"),
    ("data_bn.running_var", lambda x: x - 5, "data_bn.running_var is negative"),
    ("st_gcn_networks.0.attention.weight", lambda _: torch.zeros(1), "attention.weight cannot be represented"),
    ("A", lambda x: x[:, :17, :17], "is the adjacency of no skeleton"),
    ("A", lambda x: x * 1.01, "is the adjacency of no skeleton"),
    ("edge_importance.1", lambda x: x[:2], "edge_importance.1 is"),
])
def test_what_is_not_the_published_network_is_refused_by_name(tmp_path, name, value, message):
    refused(changed(tmp_path, name, value), PackageError, message)


def test_an_adjacency_of_ones_own_is_taken_where_the_skeleton_is_named(tmp_path):
    path = changed(tmp_path, "A", lambda x: x * 1.01)
    assert import_file(path, skeleton="coco18", frames=FRAMES, strides=STRIDES).blocks[0].adjacency.shape == (3, 18, 18)
    refused(path, PackageError, "body25 has 25 joints", skeleton="body25")
    refused(path, UsageError, "choose of body25, coco18, ntu25", skeleton="hand")


def test_strides_and_labels_have_to_fit(tmp_path):
    path = saved(tmp_path, trained(steps=0))
    refused(path, UsageError, "channels 8, 12, 12 are not the published ones: say them by --strides", strides=None)
    refused(path, UsageError, "has 3 blocks", strides=(1, 2))
    refused(path, UsageError, "a stride is at least 1", strides=(1, 2, 0))
    refused(path, PackageError, "answers 5 labels, the list has 4", labels=LABELS[:4])
    refused(path, PackageError, "answers 5 labels, the list has 4", labels=LABELS[:4] + LABELS[:1])


class Trap:
    """Unpickled, it would run a command."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.system, ("touch {}".format(self.mark),)


def test_code_in_a_file_is_not_run(tmp_path):
    mark = tmp_path / "mark"
    torch.save({"A": Trap(mark)}, str(tmp_path / "trap.pt"))
    refused(str(tmp_path / "trap.pt"), PackageError, "it holds code, which is not run")
    assert not mark.exists()


@pytest.mark.parametrize("cut", [0, 1, 100, -50])
def test_a_damaged_file_is_refused_and_nothing_is_written(tmp_path, capsys, cut):
    kept = io.BytesIO()
    torch.save(trained(steps=0).state_dict(), kept)
    (tmp_path / "cut.pt").write_bytes(kept.getvalue()[:cut])
    assert owner.main(["import", str(tmp_path / "cut.pt"), "--strides", "1,2,1", "--out",
                       str(tmp_path / "out.npz")]) == 65
    said = capsys.readouterr()
    assert len(said.err.splitlines()) == 1 and "cut.pt" in said.err
    assert not (tmp_path / "out.npz").exists()


def test_other_files_are_refused(tmp_path):
    refused(str(tmp_path / "none.pt"), MissingInput, "No such file")
    torch.save([1, 2], str(tmp_path / "list.pt"))
    refused(str(tmp_path / "list.pt"), PackageError, "holds no state dict")
    torch.save({"A": 3}, str(tmp_path / "number.pt"))
    refused(str(tmp_path / "number.pt"), PackageError, "A is no tensor")


def test_a_relative_of_st_gcn_is_refused_by_the_layer_that_it_has_more():
    path = Path(__file__).resolve().parents[2] / "shared" / "data" / "gcn" / "pyskl_hagrid_stgcnpp.pth"
    if not path.exists():
        pytest.skip("needs {}: the data folder is not beside the repository".format(path.name))
    refused(str(path), PackageError, "cannot be represented .and .* more.: only the layers of the published ST-GCN")
