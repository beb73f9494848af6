"""The network through OpenCV: a tiny one made here for the geometry, the real ones for what they find."""

import hashlib

import numpy as np
import pytest

cv2 = pytest.importorskip("cv2")
onnx = pytest.importorskip("onnx")

from edged.camera import pose, zoo  # noqa: E402
from edged.camera.posenet import PADDING, PoseNetwork  # noqa: E402
from edged.errors import MissingInput, PackageError, ShapeError, VerificationFailed  # noqa: E402
from pose_fixtures import needs  # noqa: E402

WIDTH, HEIGHT = 96, 64


def tiny_onnx():
    """Means over cells of 8 x 8: heat map k is colour k % 3 plus k, field channel k is colour k % 3 plus 100 + k;
    and all of them in one output, heat first."""
    helper = onnx.helper

    def layer(name, channels, offset):
        weights = np.zeros((channels, 3, 8, 8), np.float32)
        for channel in range(channels):
            weights[channel, channel % 3] = 1 / 64
        bias = offset + np.arange(channels, dtype=np.float32)
        return helper.make_node("Conv", ["data", name + "_w", name + "_b"], [name], kernel_shape=[8, 8],
                                strides=[8, 8], name=name), [
            onnx.numpy_helper.from_array(weights, name + "_w"), onnx.numpy_helper.from_array(bias, name + "_b")]

    heat, heat_weights = layer("heat", 19, 0)
    paf, paf_weights = layer("paf", 38, 100)
    both, both_weights = layer("both", 57, 0)
    size = [HEIGHT // 8, WIDTH // 8]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [paf, heat, both], "tiny", [value("data", onnx.TensorProto.FLOAT, [1, 3, HEIGHT, WIDTH])],
        [value(name, onnx.TensorProto.FLOAT, [1, channels] + size)
         for name, channels in (("paf", 38), ("heat", 19), ("both", 57))],
        heat_weights + paf_weights + both_weights)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)])
    made.ir_version = 7
    return made.SerializeToString()


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """Makes a PoseNetwork of the tiny model, with fields of its zoo entry changed."""
    def make(detail=1.0, content=None, **changed):
        made = content or tiny_onnx()
        (tmp_path / "tiny.onnx").write_bytes(made)
        entry = dict(name="tiny", file="tiny.onnx", sha256=hashlib.sha256(made).hexdigest(), importer="onnx",
                     width=WIDTH, height=HEIGHT, any_size=True, heat=("heat", 0), paf=("paf", 0))
        entry.update(changed)
        monkeypatch.setitem(zoo.MODELS, "tiny", zoo.PoseModel(**entry))
        return PoseNetwork("tiny", tmp_path, detail=detail)
    return make


def grey(width, height, value=50):
    return np.full((height, width, 3), value, np.uint8)


def test_the_maps_are_those_of_the_frame_in_blue_green_red(tiny):
    frame = grey(WIDTH, HEIGHT)
    frame[:] = (10, 20, 30)
    maps = tiny().run(frame)
    assert maps.heat.shape == (19, 8, 12) and maps.paf.shape == (38, 8, 12) and maps.cell == 8
    np.testing.assert_allclose(maps.heat[:4, 3, 3], [10, 21, 32, 13], atol=1e-3)


def test_field_channels_come_in_the_order_of_the_limbs(tiny):
    frame = grey(WIDTH, HEIGHT, 0)
    np.testing.assert_allclose(tiny().run(frame).paf[:4, 0, 0], [112, 113, 120, 121], atol=1e-3)
    straight = tuple((2 * limb, 2 * limb + 1) for limb in range(19))
    np.testing.assert_allclose(tiny(paf_channels=straight).run(frame).paf[:4, 0, 0], [100, 101, 102, 103], atol=1e-3)


def test_scale_mean_and_colour_order_are_the_models(tiny):
    frame = grey(WIDTH, HEIGHT)
    frame[:] = (10, 20, 30)
    maps = tiny(scale=0.5, mean=(2.0, 4.0, 6.0), rgb=True).run(frame)
    np.testing.assert_allclose(maps.heat[:3, 3, 3], [0.5 * 28, 0.5 * 16 + 1, 0.5 * 4 + 2], atol=1e-3)


def test_heat_and_fields_may_be_channels_of_one_output(tiny):
    maps = tiny(heat=("both", 0), paf=("both", 19)).run(grey(WIDTH, HEIGHT, 0))
    assert maps.heat.shape == (19, 8, 12) and maps.paf.shape == (38, 8, 12)
    np.testing.assert_allclose(maps.heat[:, 0, 0], np.arange(19), atol=1e-3)
    np.testing.assert_allclose(sorted(maps.paf[:, 0, 0]), 19 + np.arange(38), atol=1e-3)


@pytest.mark.parametrize("any_size", [True, False])
@pytest.mark.parametrize("width, height", [
    (96, 64), (640, 480), (480, 640), (1920, 1080), (100, 70), (33, 31), (16, 16), (240, 480)])
def test_a_spot_is_found_where_it_is_whatever_the_frames_size(tiny, width, height, any_size):
    network = tiny(any_size=any_size)
    for x, y in ((0.25, 0.3), (0.7, 0.8)):
        frame = grey(width, height, PADDING)
        centre = int(x * width), int(y * height)
        cv2.circle(frame, centre, 1 + min(width, height) // 6, (255, 255, 255), -1)
        maps = network.run(frame)
        rows, columns = np.mgrid[:maps.heat.shape[1], :maps.heat.shape[2]]
        weight = np.maximum(maps.heat[0] - PADDING - 2, 0)
        found = [((place * weight).sum() / weight.sum() + 0.5) * maps.cell - 0.5 for place in (columns, rows)]
        assert abs(found[0] - centre[0]) < 0.2 * maps.cell + 0.5 and abs(found[1] - centre[1]) < 0.2 * maps.cell + 0.5


def test_the_aspect_is_kept_and_the_number_of_pixels_nearly(tiny):
    network = tiny()
    for width, height in ((640, 480), (1920, 1080), (480, 640), (80, 80), (3000, 400)):
        place = network.placement(width, height)
        assert place.inner_wide / place.inner_high == pytest.approx(width / height, rel=0.05)
        assert place.wide % 8 == place.high % 8 == 0
        assert 0 <= place.wide - place.inner_wide < 8 and 0 <= place.high - place.inner_high < 8
        assert 0.8 < place.inner_wide * place.inner_high / (WIDTH * HEIGHT) < 1.6


def test_a_frame_of_about_the_right_size_is_not_resampled(tiny):
    network = tiny()
    assert network.placement(104, 80).scale == 1 and network.placement(88, 56).scale == 1
    assert network.placement(120, 96).scale < 1 and network.placement(64, 48).scale > 1
    checkers = (np.indices((80, 104)).sum(axis=0) % 2 * 255).astype(np.uint8)
    maps = network.run(np.repeat(checkers[:, :, None], 3, axis=2))
    np.testing.assert_allclose(maps.heat[0], 127.5, atol=1e-2)


def test_a_pattern_finer_than_the_networks_pixels_becomes_grey(tiny):
    checkers = (np.indices((480, 640)).sum(axis=0) % 2 * 255).astype(np.uint8)
    maps = tiny(any_size=False).run(np.repeat(checkers[:, :, None], 3, axis=2))
    np.testing.assert_allclose(maps.heat[0, :7, :10], 127.5, atol=3)


def test_detail_gives_the_network_more_pixels(tiny):
    assert tiny(detail=4.0).run(grey(640, 480)).heat[0].size == pytest.approx(4 * tiny().run(
        grey(640, 480)).heat[0].size, rel=0.15)
    assert tiny(detail=4.0, any_size=False).run(grey(640, 480)).heat.shape == (19, 8, 11)


def test_cells_that_hold_nothing_but_padding_are_cut_off(tiny):
    maps = tiny(any_size=False).run(grey(480, 640, 200))
    assert maps.heat.shape == (19, 8, 6) and (maps.heat[0] > 190).all()


def test_maps_of_one_frame_survive_the_next(tiny):
    network = tiny()
    first = network.run(grey(WIDTH, HEIGHT, 10))
    kept = first.heat.copy()
    network.run(grey(WIDTH, HEIGHT, 200))
    np.testing.assert_array_equal(first.heat, kept)


@pytest.mark.parametrize("frame", [
    np.zeros((64, 96), np.uint8), np.zeros((64, 96, 4), np.uint8), np.zeros((64, 96, 3), np.float32),
    np.zeros((0, 96, 3), np.uint8), np.zeros((8, 96, 3), np.uint8), np.zeros((20000, 10000, 3), np.uint8)],
    ids=["grey", "four channels", "float", "empty", "a stripe", "huge"])
def test_another_kind_of_frame_is_refused(tiny, frame):
    with pytest.raises(ShapeError, match="frame of"):
        tiny().run(frame)


def test_a_file_that_opencv_cannot_load_is_a_package_error(tiny):
    for content in (b"not a network", tiny_onnx()[:300]):
        with pytest.raises(PackageError) as caught:
            tiny(content=content)
        assert "pose model tiny" in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_without_the_outputs_that_its_entry_names_is_a_package_error(tiny):
    with pytest.raises(PackageError, match="tiny has no output other, only both, heat, paf"):
        tiny(heat=("other", 0))


def test_what_is_parsed_is_what_was_checked(tiny, tmp_path):
    tiny()
    (tmp_path / "tiny.onnx").write_bytes(tiny_onnx() + b"\n")
    with pytest.raises(VerificationFailed):
        PoseNetwork("tiny", tmp_path)
    (tmp_path / "tiny.onnx").unlink()
    with pytest.raises(MissingInput):
        PoseNetwork("tiny", tmp_path)


@pytest.mark.parametrize("name, people", [("human-pose-estimation-0001", 3), ("mobilenet_v2_small", 3)])
def test_a_real_network_finds_the_people_of_a_real_frame(name, people):
    network = PoseNetwork(name, needs("pose"), threads=2)
    handle = cv2.VideoCapture(str(needs("video/felix_exercise.avi")))
    frame = handle.read()[1]
    handle.release()
    maps = network.run(frame)
    assert maps.heat.dtype == np.float32 and maps.heat.shape[0] == 19 and maps.paf.shape[0] == 38
    found = pose.decode(*maps)
    found = found[(found[:, :, 2] > 0).sum(axis=1) >= 12]
    assert len(found) == people
    # Noses above necks above hips, and nobody outside the frame.
    assert (found[:, 0, 1] < found[:, 1, 1]).all() and (found[:, 1, 1] < found[:, 8, 1]).all()
    assert (found[..., 0] < frame.shape[1]).all() and (found[..., 1] < frame.shape[0]).all()


def test_a_larger_picture_of_the_same_scene_gives_the_same_people():
    network = PoseNetwork("human-pose-estimation-0001", needs("pose"))
    handle = cv2.VideoCapture(str(needs("video/felix_exercise.avi")))
    frame = handle.read()[1]
    handle.release()
    small = pose.decode(*network.run(frame))
    large = pose.decode(*network.run(cv2.resize(frame, None, fx=3, fy=3, interpolation=cv2.INTER_CUBIC)))
    assert len(small) == len(large) == 3
    for one in small:
        away = [np.median(np.hypot(*(other[both, :2] / 3 - one[both, :2]).T)) for other in large
                for both in [(one[:, 2] > 0) & (other[:, 2] > 0)]]
        assert min(away) < 2.5
