"""What the accelerator sees: uniform words, whatever the clip and the weights are.

The view is all that leaves for it: wbar once per load, U + pad of what is prepared, xbar of every product; and
ybar - U - pad, which it computes. The clips and weights are chosen by the attacker here, who even knows them.
"""

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest

from attacks.networks import integer_model, random_coordinates
from attacks.node import OUTSIDE, TRANSPORTS
from attacks.statistics import (
    check_nothing_in_common, check_same_distribution, check_uncorrelated, check_uniform, words_of,
)
from edged.enclave.wire import Placement
from edged.model import reference
from edged.model.layers import GraphLayer, ResidualLayer, TemporalLayer

SHAPE = dict(channels=((40, 1), (40, 1), (60, 2)), frames=20, joints=18, persons=2, partitions=3, taps=9)


@lru_cache(maxsize=None)
def model(seed=3):
    return integer_model(seed, **SHAPE)


def products_of(net):
    return [layer for layer in net.layers if isinstance(layer, (GraphLayer, ResidualLayer, TemporalLayer))]


def operands(net, clip):
    """X of every product, as the enclave multiplies it."""
    return [step.operand for step in reference.steps(net, clip)
            if isinstance(step.layer, (GraphLayer, ResidualLayer, TemporalLayer))]


def coordinates(seed=0, persons=2):
    return random_coordinates(np.random.default_rng(seed), model().shape, persons)


CLIPS = {
    "zeros": np.zeros_like(coordinates()),
    "the largest values": np.full_like(coordinates(), 32767),
    "the smallest values": np.full_like(coordinates(), -32768),
    "noise": coordinates(),
}


def with_weights(choose):
    """A model of the same shape whose weights are chosen; biases go where weights need their room."""
    layers = []
    for layer in model().layers:
        if isinstance(layer, (GraphLayer, ResidualLayer, TemporalLayer)):
            most = layer.row.adj_max or layer.row.in_max
            weights = choose(layer.weights, max(1, min((1 << 30) // most // layer.weights[0].size, 32767)))
            layer = replace(layer, weights=weights.astype(np.int16), bias=np.zeros_like(layer.bias))
        layers.append(layer)
    changed = replace(model(), layers=tuple(layers))
    reference.check_bounds(changed)
    return changed


MODELS = {
    "weights of zeros": lambda: with_weights(lambda weights, most: np.zeros_like(weights)),
    "the largest weights": lambda: with_weights(lambda weights, most: np.full_like(weights, most)),
    "the smallest weights": lambda: with_weights(lambda weights, most: np.full_like(weights, -most)),
    "weights of noise": model,
}


class View:
    """All that an accelerator sees in one evaluation. Without ``ahead`` there is no U + pad."""

    def __init__(self, node, camera, clip, ahead, sealed=None):
        ready = node.prepare(len(clip)) if ahead else None
        attempt = node.attempt(camera, sealed or node.seal(camera, clip), ready)
        answers = {}
        while not attempt.done:
            due = attempt.answers()
            answers.update(due)
            attempt.submit(due)
        node.expect(attempt.progress.record, clip)
        count = range(len(node.products))
        self.parts = {"xbar": [attempt.x_bar[i] for i in count]}
        if ahead:
            self.parts["U + pad"] = list(ready.subtract)
            self.parts["ybar - U - pad"] = [answers[i] for i in count]

    def words(self, part):
        return words_of(self.parts[part])


@pytest.mark.parametrize("placement", OUTSIDE, ids=lambda placement: placement.name)
@pytest.mark.parametrize("name", list(CLIPS))
def test_whatever_the_clip_all_that_the_accelerator_sees_is_uniform(node, name, placement):
    node.load(model(), placement, "window")
    view = View(node, node.camera(), CLIPS[name], ahead=True)
    for part in view.parts:
        check_uniform(view.words(part), part)
    for index, x_bar in enumerate(view.parts["xbar"]):
        if x_bar.size >= 1 << 16:
            check_uniform(words_of([x_bar]), "xbar of product {}".format(index))


@pytest.mark.parametrize("name", list(MODELS))
def test_whatever_the_weights_wbar_is_uniform(node, name):
    net = MODELS[name]()
    node.load(net, Placement.MASKED)
    for layer, w_bar in zip(products_of(net), node.w_bar):
        assert w_bar.size == layer.weights.size
    check_uniform(words_of(node.w_bar), "wbar")
    view = View(node, node.camera(), coordinates(), ahead=True)
    for part in view.parts:
        check_uniform(view.words(part), part)


def test_no_bit_of_xbar_follows_a_bit_of_x_and_none_of_wbar_one_of_w(node):
    for transport in TRANSPORTS:
        node.load(model(), Placement.MASKED, transport)
        clip = coordinates(5)
        view = View(node, node.camera(), clip, ahead=True)
        for x_bar, x in zip(view.parts["xbar"], operands(model(), clip)):
            check_uncorrelated(words_of([x_bar]), x, "xbar against X")
        for w_bar, layer in zip(node.w_bar, products_of(model())):
            check_uncorrelated(words_of([w_bar]), layer.weights, "wbar against W")


def test_no_bit_of_the_answers_follows_a_bit_of_the_result(node):
    """ybar - U - pad = W X + R2 X - pad: the pad hides the product even from who computed it."""
    node.load(model(), Placement.INPUTS, "window")  # without R2: the pad is alone
    clip = coordinates(6)
    view = View(node, node.camera(), clip, ahead=True)
    results = [step.product for step in reference.steps(model(), clip)
               if isinstance(step.layer, (GraphLayer, ResidualLayer, TemporalLayer))]
    for answer, y in zip(view.parts["ybar - U - pad"], results):
        check_uncorrelated(words_of([answer]), y >> 8, "ybar - U - pad against Y")


@pytest.mark.parametrize("placement", OUTSIDE, ids=lambda placement: placement.name)
def test_two_chosen_clips_cannot_be_told_apart(node, placement):
    node.load(model(), placement, "window")
    camera = node.camera()
    views = [View(node, camera, CLIPS[name], ahead=True) for name in ("zeros", "the largest values")]
    for part in views[0].parts:
        one, other = (view.words(part) for view in views)
        check_same_distribution(one, other, part)
        check_nothing_in_common(one, other, part)


def test_two_chosen_models_cannot_be_told_apart(node):
    seen = []
    for name in ("weights of zeros", "the largest weights"):
        node.load(MODELS[name](), Placement.MASKED, "window")
        view = View(node, node.camera(), coordinates(), ahead=True)
        seen.append(dict({part: view.words(part) for part in view.parts}, wbar=words_of(node.w_bar)))
    for part in seen[0]:
        check_same_distribution(seen[0][part], seen[1][part], part)
        check_nothing_in_common(seen[0][part], seen[1][part], part)


@pytest.mark.parametrize("ahead", [False, True], ids=["on line", "ahead"])
@pytest.mark.parametrize("transport", list(TRANSPORTS))
@pytest.mark.parametrize("placement", OUTSIDE, ids=lambda placement: placement.name)
def test_the_same_clip_twice_gives_the_accelerator_nothing_in_common(node, placement, transport, ahead):
    node.load(model(), placement, transport)
    camera = node.camera()
    views = [View(node, camera, coordinates(), ahead) for _ in range(2)]
    for part in views[0].parts:
        check_nothing_in_common(*(view.words(part) for view in views), what=part)


def test_persons_products_and_their_parts_share_no_mask(node):
    """Within one invocation: with X known, no 16 bytes of R1 stand in two persons or two products."""
    node.load(model(), Placement.MASKED, "window")
    clip = np.zeros_like(coordinates())  # both persons alike
    view = View(node, node.camera(), clip, ahead=True)
    r1 = [x_bar - x.astype(np.int32).view(np.uint32) for x_bar, x in zip(view.parts["xbar"], operands(model(), clip))]
    for stream in (r1, view.parts["U + pad"]):
        for words in stream:
            check_nothing_in_common(words_of([words[0]]), words_of([words[1]]), "two persons")
    sizes = sorted(range(len(r1)), key=lambda index: r1[index].size)
    for one, other in zip(sizes, sizes[1:]):
        count = r1[one].size
        check_nothing_in_common(words_of([r1[one]]), words_of([r1[other]])[:count], "two products")


def test_two_loads_of_one_package_share_no_r2(node):
    package_words = []
    for _ in range(2):
        node.load(model(), Placement.MASKED)
        package_words.append(words_of(node.w_bar))
    check_nothing_in_common(*package_words, what="wbar of two loads")


def test_two_versions_of_a_model_share_no_r2(node):
    """Else wbar - wbar' would be W - W'. Neither between loads, nor after the enclave was started again."""
    versions = [model(3), model(4)]
    expected = words_of([a.weights.astype(np.int32).view(np.uint32) - b.weights.astype(np.int32).view(np.uint32)
                         for a, b in zip(*map(products_of, versions))])
    for between in (lambda: None, node.reconnect, node.restart_eval):
        seen = []
        for version in versions:
            node.load(version, Placement.MASKED)
            seen.append(words_of(node.w_bar))
            between()
        check_nothing_in_common(*seen, what="wbar of two versions")
        assert ((seen[0] - seen[1]) == expected).sum() < 8


def test_in_placement_inputs_the_weights_are_in_clear_by_design_and_nothing_else_is(node):
    """Slalom's placement: only where the model owner's signature permits it. Activations stay masked."""
    node.load(model(), Placement.INPUTS)
    for w_bar, layer in zip(node.w_bar, products_of(model())):
        assert np.array_equal(w_bar.reshape(layer.weights.shape), layer.weights.astype(np.int32).view(np.uint32))
    view = View(node, node.camera(), CLIPS["zeros"], ahead=True)
    for part in view.parts:
        check_uniform(view.words(part), part)


def test_in_placement_enclave_the_accelerator_sees_nothing(node):
    node.load(model(), Placement.ENCLAVE)
    assert node.products == () and node.loaded.head.products == 0
    node.evaluate(node.camera(), coordinates())


def test_the_uniformity_tests_see_a_mask_of_31_bits_a_biased_byte_and_a_repeated_mask():
    """The tests themselves: each fails for a flaw that a careless mask has."""
    rng = np.random.default_rng(1)
    good = rng.integers(0, 1 << 32, 1 << 17, np.uint64).astype(np.uint32)
    check_uniform(good, "good")
    counter = np.arange(1 << 17, dtype=np.uint32) * np.uint32(2654435761)
    for flawed in (good >> np.uint32(1), good & np.uint32(0xFFFFFF00), np.repeat(good[:1 << 16], 2), counter,
                   (good.astype(np.uint64) * 0xFFFF0000 >> 32).astype(np.uint32)[good % np.uint32(8) != 0]
                   | np.uint32(1 << 16)):
        with pytest.raises(AssertionError):
            check_uniform(flawed, "flawed")
    secret = rng.integers(-300, 300, 1 << 17).astype(np.int16)
    narrow = rng.integers(0, 256, 1 << 17).astype(np.uint32)  # a mask of 8 bits on values of 10
    with pytest.raises(AssertionError):
        check_uncorrelated(narrow + secret.astype(np.int32).view(np.uint32), secret, "flawed")
    with pytest.raises(AssertionError):  # one mask for two values
        check_nothing_in_common(good + secret.astype(np.int32).view(np.uint32), good, "flawed")
