"""A malicious accelerator: whatever wrong answer it gives, in whatever product, is refused (equation 6 of masked.h).

Every test starts from honest answers, changes them, and expects VERIFICATION at the end of the step, then an honest
attempt at the same sealed clip and the exact result.
"""

import threading

import numpy as np
import pytest

from attacks.networks import random_coordinates, small
from attacks.node import OUTSIDE, TRANSPORTS, Prepared, refused
from edged.enclave.client import InvocationRefused
from edged.enclave.wire import Placement, Status

MODEL = small()
PRODUCTS = 10
RNG = np.random.default_rng()

each_transport = pytest.mark.parametrize("transport", list(TRANSPORTS))
each_placement = pytest.mark.parametrize("placement", OUTSIDE, ids=lambda placement: placement.name)
each_ahead = pytest.mark.parametrize("ahead", [False, True], ids=["on line", "ahead"])


def coordinates(persons=2):
    return random_coordinates(RNG, MODEL.shape, persons)


def prepared(node, ahead, persons=2):
    return node.prepare(persons) if ahead else None


def expect_refusal(attempt, answers):
    with refused(Status.VERIFICATION):
        attempt.submit(answers)


def attack(node, camera, product, tamper, ahead=False, persons=2):
    """Honest up to the step of ``product``; ``tamper(answers, attempt)`` there; then an honest attempt."""
    clip = coordinates(persons)
    sealed = node.seal(camera, clip)
    attempt = node.attempt(camera, sealed, prepared(node, ahead, persons)).reach(product)
    answers = attempt.answers()
    tamper(answers, attempt)
    expect_refusal(attempt, answers)
    node.attempt(camera, sealed, prepared(node, ahead, persons)).finish_exactly(clip)


def add(product, word, value):
    def tamper(answers, _):
        np.add.at(answers[product].reshape(-1), word, np.uint32(value))
    return tamper


def flip(product, word, bit):
    def tamper(answers, _):
        answers[product].reshape(-1)[word] ^= np.uint32(1) << np.uint32(bit)
    return tamper


@each_transport
@each_placement
@each_ahead
def test_any_flipped_bit_of_any_word_of_any_product_is_refused(node, transport, placement, ahead):
    node.load(MODEL, placement, transport)
    assert len(node.products) == PRODUCTS
    camera = node.camera()
    for product in range(PRODUCTS):
        persons = 1 + product % 2
        words = int(np.prod(node.products[product].y_shape(persons)))
        # All 32 positions, with two to a product; the first and the last word always.
        bits = [(product * 7 + 16 * i + int(RNG.integers(2)) * 5) % 32 for i in range(2)]
        for word, bit in zip((0, words - 1), bits):
            attack(node, camera, product, flip(product, word, bit), ahead, persons)
        for bit in RNG.integers(0, 32, 2):
            attack(node, camera, product, flip(product, int(RNG.integers(words)), int(bit)), ahead, persons)


@each_transport
@each_placement
def test_each_of_the_32_bits_is_refused(node, transport, placement):
    node.load(MODEL, placement, transport)
    camera = node.camera()
    for bit in range(32):
        product = bit % PRODUCTS
        word = int(RNG.integers(np.prod(node.products[product].y_shape(2))))
        attack(node, camera, product, flip(product, word, bit))


# An error of 2^31 vanishes from a check over Z mod 2^32 half of the time; one of 2^24 and above would pass a check
# by 24-bit floats or a small prime more often than not.
@each_placement
@each_ahead
@pytest.mark.parametrize("value", [1 << 24, 1 << 31, 1, (1 << 32) - 1, 1 << 30], ids=hex)
def test_an_error_of_a_power_of_two_on_one_or_many_words_is_refused(node, placement, ahead, value):
    node.load(MODEL, placement, "window")
    camera = node.camera()
    for product in range(PRODUCTS):
        words = int(np.prod(node.products[product].y_shape(2)))
        attack(node, camera, product, add(product, int(RNG.integers(words)), value), ahead)
        attack(node, camera, product, add(product, slice(None), value), ahead)
        attack(node, camera, product, add(product, RNG.permutation(words)[:words // 2], value), ahead)


@each_placement
def test_errors_that_cancel_in_a_sum_are_refused(node, placement):
    """+e on one word and -e on another of the same row, joint or frame: a check by plain sums would pass it."""
    node.load(MODEL, placement, "window")
    camera = node.camera()

    def opposed(axis):
        def tamper(answers, _):
            y = np.moveaxis(answers[product], axis, 0)
            assert len(y) > 1
            y[0] += np.uint32(1 << 20)
            y[-1] -= np.uint32(1 << 20)
        return tamper

    for product in range(PRODUCTS):
        for axis in range(4):
            attack(node, camera, product, opposed(axis))


@each_transport
@each_placement
@each_ahead
def test_answers_of_zeros_are_refused(node, transport, placement, ahead):
    node.load(MODEL, placement, transport)
    camera = node.camera()
    for product in range(PRODUCTS):
        attack(node, camera, product, lambda answers, _: answers[product].fill(0), ahead)


@each_placement
def test_a_rotated_or_partly_missing_answer_is_refused(node, placement):
    node.load(MODEL, placement, "message")
    camera = node.camera()
    for product in range(PRODUCTS):
        attack(node, camera, product, lambda answers, _: answers.update({product: np.roll(answers[product], 1)}))
        attack(node, camera, product, lambda answers, _: answers[product][:, -1].fill(0))


def same_shape_pairs(node):
    shapes = [product.y_shape(2) for product in node.products]
    return [(a, b) for b in range(PRODUCTS) for a in range(b) if shapes[a] == shapes[b]]


@each_transport
@each_placement
@each_ahead
def test_answers_swapped_between_products_of_one_shape_are_refused(node, transport, placement, ahead):
    node.load(MODEL, placement, transport)
    camera = node.camera()
    pairs = same_shape_pairs(node)
    step = [product.step for product in node.products]
    assert any(step[a] == step[b] for a, b in pairs) and any(step[a] != step[b] for a, b in pairs)
    for a, b in pairs:
        clip = coordinates()
        sealed = node.seal(camera, clip)
        attempt = node.attempt(camera, sealed, prepared(node, ahead)).reach(a)
        early = attempt.answers()
        if step[a] == step[b]:
            early[a], early[b] = early[b], early[a]
            expect_refusal(attempt, early)
        else:
            attempt.submit(early)
            late = attempt.reach(b).answers()
            late[b] = early[a]  # an honest answer, of another layer
            expect_refusal(attempt, late)
        node.attempt(camera, sealed, prepared(node, ahead)).finish_exactly(clip)


@each_transport
@each_placement
@each_ahead
def test_answers_swapped_between_two_clips_are_refused(node, transport, placement, ahead):
    node.load(MODEL, placement, transport)
    camera = node.camera()
    for product in range(PRODUCTS):
        other = node.attempt(camera, node.seal(camera, coordinates()), prepared(node, ahead)).reach(product)
        answers_of_other = other.answers()
        other.submit(answers_of_other)
        if not other.done:
            other.finish()
        attack(node, camera, product, lambda answers, _: answers.update({product: answers_of_other[product]}), ahead)


@each_transport
@each_placement
@each_ahead
def test_a_stale_answer_to_the_same_clip_is_refused(node, transport, placement, ahead):
    """The first attempt's honest answer, handed in again at the second: the same X, other masks."""
    node.load(MODEL, placement, transport)
    camera = node.camera()
    for product in range(PRODUCTS):
        clip = coordinates()
        sealed = node.seal(camera, clip)
        first = node.attempt(camera, sealed, prepared(node, ahead)).reach(product)
        stale = first.answers()
        expect_refusal(first, {index: y + np.uint32(1) for index, y in stale.items()})
        second = node.attempt(camera, sealed, prepared(node, ahead)).reach(product)
        answers = second.answers()
        answers[product] = stale[product]
        expect_refusal(second, answers)
        node.attempt(camera, sealed, prepared(node, ahead)).finish_exactly(clip)


@each_transport
def test_an_answer_left_in_place_is_refused(node, transport):
    """An accelerator that computes nothing: the window still holds the last clip's ybar."""
    node.load(MODEL, Placement.MASKED, transport)
    camera = node.camera()
    kept = {}
    first = node.attempt(camera, node.seal(camera, coordinates()))
    while not first.done:
        answers = first.answers()
        kept.update(answers)
        first.submit(answers)
    for product in range(PRODUCTS):
        attack(node, camera, product, lambda answers, _: answers.update({i: kept[i] for i in answers}))


@each_transport
@each_placement
def test_answers_with_another_loads_weights_are_refused(node, transport, placement):
    node.load(small(8), placement, transport)  # another model of the same shapes
    others = node.w_bar
    node.transport.close()
    node.load(MODEL, placement, transport)
    camera = node.camera()
    for product in range(PRODUCTS):
        attack(node, camera, product, lambda answers, attempt: answers.update(
            {product: attempt.compute(product, w_bar=others[product])}))


def test_answers_with_the_same_models_earlier_load_are_refused(node):
    node.load(MODEL, Placement.MASKED)
    others = node.w_bar
    node.load(MODEL, Placement.MASKED)
    camera = node.camera()
    for product in range(PRODUCTS):
        attack(node, camera, product, lambda answers, attempt: answers.update(
            {product: attempt.compute(product, w_bar=others[product])}))


@each_placement
@each_ahead
def test_answers_with_one_altered_word_of_weights_or_activations_are_refused(node, placement, ahead):
    node.load(MODEL, placement, "window")
    camera = node.camera()

    def altered(array):
        copy = array.copy()
        copy.reshape(-1)[RNG.integers(copy.size)] ^= np.uint32(1) << np.uint32(RNG.integers(32))
        return copy

    for product in range(PRODUCTS):
        attack(node, camera, product, lambda answers, attempt: answers.update(
            {product: attempt.compute(product, w_bar=altered(node.w_bar[product]))}), ahead)
        attack(node, camera, product, lambda answers, attempt: answers.update(
            {product: attempt.compute(product, x_bar=altered(attempt.x_bar[product]))}), ahead)


@each_transport
@each_placement
@each_ahead
def test_the_answer_of_the_other_person_is_refused(node, transport, placement, ahead):
    node.load(MODEL, placement, transport)
    camera = node.camera()
    for product in range(PRODUCTS):
        attack(node, camera, product, lambda answers, _: answers.update(
            {product: np.ascontiguousarray(answers[product][::-1])}), ahead)
        attack(node, camera, product, lambda answers, attempt: answers.update(
            {product: attempt.compute(product, attempt.x_bar[product][::-1])}), ahead)
        attack(node, camera, product, lambda answers, _: answers[product].__setitem__(1, answers[product][0]), ahead)


@each_transport
@each_placement
def test_a_tampered_u_plus_pad_is_refused(node, transport, placement):
    """What was prepared lies outside: flipped, zeroed, taken from another product, person or invocation."""
    node.load(MODEL, placement, transport)
    camera = node.camera()

    def flipped(ready, _):
        ready.reshape(-1)[RNG.integers(ready.size)] ^= np.uint32(1) << np.uint32(RNG.integers(32))

    def zeroed(ready, _):
        ready.fill(0)

    def swapped(ready, _):
        ready[:] = ready[::-1].copy()

    def stale(ready, other):
        ready[:] = other

    for tamper in (flipped, zeroed, swapped, stale):
        for product in range(PRODUCTS):
            clip = coordinates()
            sealed = node.seal(camera, clip)
            good, other = node.prepare(2), node.prepare(2)
            subtract = [ready.copy() for ready in good.subtract]
            tamper(subtract[product], other.subtract[product])
            attempt = node.attempt(camera, sealed, Prepared(good.invocation, tuple(subtract))).reach(product)
            expect_refusal(attempt, attempt.answers())
            node.attempt(camera, sealed, other).finish_exactly(clip)  # the honest one


@each_transport
@each_placement
def test_an_answer_without_the_subtraction_or_with_one_too_many_is_refused(node, transport, placement):
    node.load(MODEL, placement, transport)
    camera = node.camera()
    nothing = {product: np.zeros(shape.y_shape(2), np.uint32) for product, shape in enumerate(node.products)}
    for product in range(PRODUCTS):
        attack(node, camera, product, lambda answers, attempt: answers.update(
            {product: attempt.compute(product, subtract=nothing[product])}), ahead=True)
        ready = node.prepare(2)
        attack(node, camera, product, lambda answers, attempt: answers.update(
            {product: attempt.compute(product, subtract=ready.subtract[product])}), ahead=False)
        node.client.drop_prepared(ready.invocation)


def test_one_wrong_product_of_a_step_condemns_the_step(node):
    """The verdict covers all products of a step, whichever is wrong, and comes after all were taken."""
    node.load(MODEL, Placement.MASKED, "message")
    camera = node.camera()
    both = [(a, b) for a, b in same_shape_pairs(node) if node.products[a].step == node.products[b].step]
    for wrong in both[0]:
        attack(node, camera, wrong, flip(wrong, 0, 0))


def test_words_that_change_while_the_enclave_reads_them_give_the_exact_result_or_a_refusal(node):
    """The window belongs to the attacker: a word is read once, so there is nothing between check and use."""
    node.load(MODEL, Placement.MASKED, "window")
    camera = node.camera()
    for _ in range(60):
        clip = coordinates()
        attempt = node.attempt(camera, node.seal(camera, clip)).reach(5)
        answers = attempt.answers()
        views = [(node.transport.y_bar(i, 2).reshape(-1)[:1], y.reshape(-1)[:1].copy()) for i, y in answers.items()]
        stop = threading.Event()

        def scribble():
            while not stop.is_set():
                for view, honest in views:
                    view[:] = honest + np.uint32(1 << 31)
                    view[:] = honest

        scribbler = threading.Thread(target=scribble)
        scribbler.start()
        try:
            attempt.submit(answers)
        except InvocationRefused:
            pass
        finally:
            stop.set()
            scribbler.join()
        if attempt.progress.step > node.products[5].step or attempt.done:
            attempt.finish_exactly(clip)
        else:
            assert node.abort(camera)[0] == Status.OK
