"""Every mask that comes out, whatever messages go in: a ledger of masks, and one who sends messages at random.

``Ledger`` keeps every mask that an attacker can lay bare: with the clip and the weights known, R1 = xbar - X and
R2 = wbar - W, and with R1 also pad = (U + pad) - Wbar R1. The masks are streams of 16-byte blocks (of AES, or quarters
of ChaCha20's), addressed from the object's first word: a seed used twice shows as a block that occurs twice.
"""

import numpy as np

from attacks.networks import random_coordinates, small
from attacks.node import OUTSIDE, TRANSPORTS, refused
from edged.enclave import wire
from edged.enclave.wire import EvalCommand, Placement, RecordKind, Status
from edged.model import reference
from edged.model.layers import GraphLayer, ResidualLayer, TemporalLayer
from edged.offload.product import masked_convolution

# Large enough for objects of several messages.
MODELS = [small(seed, frames=20, joints=7) for seed in (11, 12)]
MODEL = MODELS[0]
LINEAR = (GraphLayer, ResidualLayer, TemporalLayer)


def as_words(integers):
    return np.ascontiguousarray(integers, np.int64).astype(np.uint32)


class Ledger:
    def __init__(self):
        self.blocks, self.names = [], []

    def add(self, name, words):
        """A stream, from the first word of its object."""
        flat = np.ascontiguousarray(words, np.uint32).reshape(-1)
        flat = flat[:len(flat) // 4 * 4]
        self.blocks.append(flat.view(np.uint64).reshape(-1, 2))
        self.names += [name] * (len(flat) // 4)

    def masks_of(self, node, clip, x_bar, prepared):
        """What the xbar that were seen, by product, and U + pad reveal when the clip is known."""
        layers = [step for step in reference.steps(node.model, clip) if isinstance(step.layer, LINEAR)]
        for index, seen in x_bar.items():
            r1 = seen - as_words(layers[index].operand).reshape(seen.shape)
            self.add("R1 of product {}".format(index), r1)
            if prepared:
                product = node.products[index]
                u = masked_convolution(node.w_bar[index], r1, product.stride, product.pad)
                self.add("pad of product {}".format(index), prepared.subtract[index][:len(clip)] - u)

    def weights(self, node, placement):
        if placement == Placement.MASKED:
            for layer, w_bar in zip((one for one in node.model.layers if isinstance(one, LINEAR)), node.w_bar):
                self.add("R2", w_bar.reshape(layer.weights.shape) - as_words(layer.weights))

    def prepared(self, ready):
        for u_pad in ready.subtract:
            self.add("U + pad", u_pad)

    def check(self, least):
        """No block twice. Two of n uniform ones are equal with probability below n^2 / 2^129: nil."""
        blocks = np.concatenate(self.blocks)
        assert len(blocks) >= least
        order = np.lexsort(blocks.T)
        equal = np.nonzero((blocks[order][1:] == blocks[order][:-1]).all(axis=1))[0]
        assert not len(equal), "{} blocks occur again; {} and {}".format(
            len(equal), self.names[order[equal[0]]], self.names[order[equal[0] + 1]])


class Explorer:
    """Sends what a seeded generator chooses; everything that comes out goes into the ledger."""

    def __init__(self, node, seed):
        self.node, self.rng, self.ledger = node, np.random.default_rng(seed), Ledger()
        # Few contents, so that equal clips meet often.
        self.clips = [random_coordinates(self.rng, MODEL.shape, persons) for persons in (1, 2, 2)]
        self.clips.append(np.zeros_like(self.clips[1]))
        self.spent = []  # invocations that must never be taken again
        self.invocations = [0]
        self.counts = {}
        self.beacons = 0  # never back in time, whatever is started anew
        self.forget_all()
        self.load()

    def run(self, actions):
        names = ["clip"] * 8 + ["prepare"] * 4 + ["half_prepare", "drop", "load", "half_load", "session", "reconnect",
                                                  "restart_eval", "restart_key", "spent_again", "say"]
        for _ in range(actions):
            name = str(self.rng.choice(names))
            self.counts[name] = self.counts.get(name, 0) + 1
            getattr(self, name)()

    def chance(self, probability=0.5):
        return self.rng.uniform() < probability

    def forget_all(self):
        """The enclave was started anew."""
        self.camera, self.unfinished, self.spent, self.invocations = None, None, [], [0]

    def poke(self, status, command, body=b""):
        """A message out of its turn."""
        assert self.node.call(command, body) == (status, b""), command.name

    def out_of_order(self, *permitted):
        """Some messages that the state does not permit."""
        session = self.camera.session if self.camera else 0
        bodies = {
            EvalCommand.WEIGHTS_READ: wire.Chunk(0, 0).pack(),
            EvalCommand.WEIGHTS_MAP: wire.Index(0).pack(),
            EvalCommand.PREPARE_OPEN: wire.PrepareOpen(1).pack(),
            EvalCommand.PREPARE_READ: wire.Chunk(0, 0).pack(),
            EvalCommand.PREPARE_MAP: wire.Index(0).pack(),
            EvalCommand.CLIP_OPEN: wire.ClipOpen(session, 0, 1 << 60, 0, 4000).pack(),
            EvalCommand.CLIP_BEGIN: b"",
            EvalCommand.STEP_READ: wire.Chunk(0, 0).pack(),
            EvalCommand.STEP: wire.Index(0).pack(),
        }
        for command, body in bodies.items():
            if command not in permitted and self.chance(0.3):
                self.poke(Status.ORDER, command, body)

    # Actions. Each begins and ends with a loaded model and nothing under way.

    def load(self):
        placement = OUTSIDE[int(self.rng.integers(2))]
        transport = str(self.rng.choice(list(TRANSPORTS)))
        self.node.load(MODELS[int(self.rng.integers(2))], placement, transport)
        self.ready = []
        self.ledger.weights(self.node, placement)
        self.out_of_order(EvalCommand.PREPARE_OPEN, EvalCommand.CLIP_OPEN)
        if self.camera is None:
            self.camera = self.node.camera()

    def half_load(self):
        """wbar of the first product, then the client is gone."""
        loaded = self.node.client.load(self.node.pack(MODEL), 0, Placement.MASKED)
        out = np.empty(loaded.products[0].w_shape, np.uint32)
        self.node.client.read_weights(0, out)
        self.ledger.add("R2", out - as_words(MODEL.layers[1].weights).reshape(out.shape))
        self.poke(Status.OBJECT, EvalCommand.WEIGHTS_READ, wire.Chunk(0, 0).pack())
        self.out_of_order(EvalCommand.WEIGHTS_READ, EvalCommand.WEIGHTS_MAP)
        if self.chance():
            self.node.reconnect()
        self.load()

    def session(self):
        if self.unfinished is None:
            self.camera = self.node.camera()
        else:
            with refused(Status.ORDER):
                self.node.camera()

    def reconnect(self):
        self.node.reconnect()
        self.load()

    def restart_eval(self):
        self.node.restart_eval()
        self.forget_all()
        self.load()

    def restart_key(self):
        self.node.enclave.restart_key()
        self.node.put_keys()

    def say(self):
        """What any state permits, and gives records: they come and go beside the clips."""
        index, self.beacons = self.node.agreed.index, self.beacons + 1
        self.node.make_room()
        self.node.client.claim(index, RecordKind.HEALTH, self.rng.bytes(int(self.rng.integers(64))))
        self.node.client.beacon(self.node.beacon(self.beacons), bytes(32))
        last = self.node.kept(0)[-1][0]
        if self.chance():
            self.node.client.confirm(last)

    def opened(self, invocation):
        assert invocation > max(self.invocations)
        self.invocations.append(invocation)

    def prepare(self):
        if len(self.ready) == wire.EVAL_PREPARED_MAX:
            self.poke(Status.MEMORY, EvalCommand.PREPARE_OPEN, wire.PrepareOpen(1).pack())
            return self.drop()
        ready = self.node.prepare(int(self.rng.integers(1, 3)))
        self.opened(ready.invocation)
        self.ledger.prepared(ready)
        self.ready.append(ready)
        self.out_of_order(EvalCommand.PREPARE_OPEN, EvalCommand.CLIP_OPEN)

    def half_prepare(self):
        if len(self.ready) == wire.EVAL_PREPARED_MAX:
            return self.drop()
        invocation = self.node.client.open_prepare(2)
        self.opened(invocation)
        self.out_of_order(EvalCommand.PREPARE_READ, EvalCommand.PREPARE_MAP)
        self.spent.append(invocation)
        for index in range(int(self.rng.integers(0, 4))):
            self.ledger.add("U + pad", self.node.transport.prepared(index, 2))
            self.poke(Status.OBJECT, EvalCommand.PREPARE_READ, wire.Chunk(index, 0).pack())
            self.poke(Status.OBJECT, EvalCommand.PREPARE_MAP, wire.Index(index).pack())
        if self.chance(0.3):
            self.reconnect()
        else:
            self.node.client.drop_prepared(invocation)

    def drop(self):
        if self.ready:
            ready = self.ready.pop(int(self.rng.integers(len(self.ready))))
            self.node.client.drop_prepared(ready.invocation)
            self.poke(Status.ARGUMENT, EvalCommand.PREPARE_DROP, wire.Invocation(ready.invocation).pack())
            self.spent.append(ready.invocation)

    def spent_again(self):
        """An invocation that was used, dropped, half read, or never given."""
        known = {ready.invocation for ready in self.ready}
        chosen = int(self.rng.choice(self.spent + [max(self.invocations) + 1, 1, 1 << 63]))
        if chosen in known:
            return
        number, sealed = self.node.seal(self.camera, self.clips[0])
        status = Status.ARGUMENT
        if self.unfinished:
            (number, sealed), _, left = self.unfinished
            status = status if left else Status.ORDER
        self.poke(status, EvalCommand.CLIP_OPEN, wire.ClipOpen(
            self.camera.session, 0, number, chosen, len(sealed)).pack())

    def clip(self):
        """The unfinished clip or a new one, some steps of it, and one of many ends."""
        if self.unfinished is None:
            clip = self.clips[int(self.rng.integers(len(self.clips)))]
            sealed, left = self.node.seal(self.camera, clip), wire.EVAL_ATTEMPTS_MAX
        else:
            sealed, clip, left = self.unfinished
        if left == 0:
            assert self.node.abort(self.camera)[0] == Status.OK
            self.unfinished = None
            return
        fitting = [ready for ready in self.ready if len(ready.subtract[0]) >= len(clip)]
        ready = fitting[int(self.rng.integers(len(fitting)))] if fitting and self.chance(0.7) else None
        if ready:
            self.ready.remove(ready)
            self.spent.append(ready.invocation)
        else:
            self.invocations.append(max(self.invocations) + 1)
        attempt = self.node.attempt(self.camera, sealed, ready)
        self.unfinished = sealed, clip, left - 1
        for _ in range(int(self.rng.integers(0, self.node.loaded.head.steps))):
            self.step(attempt)
        attempt.read()
        end = "end_by_" + str(self.rng.choice(["record", "record", "refusal", "abort", "disconnect", "kill"]))
        self.counts[end] = self.counts.get(end, 0) + 1
        getattr(self, end)(attempt, clip, left)

    def step(self, attempt):
        answers = attempt.answers()
        self.out_of_order(EvalCommand.STEP_READ, EvalCommand.STEP)
        if self.chance(0.1):
            self.say()
        if self.node.transport.name == "message":  # all was read: not once more
            self.poke(Status.ORDER, EvalCommand.STEP_READ, wire.Chunk(attempt.due[0], 0).pack())
        attempt.submit(answers)

    def note(self, attempt, clip):
        self.ledger.masks_of(self.node, clip, attempt.x_bar, attempt.prepared)

    def end_by_record(self, attempt, clip, _):
        self.note(attempt, clip)
        attempt.submit({index: attempt.compute(index) for index in attempt.due})
        while not attempt.done:
            attempt.read()
            due = {index: attempt.x_bar[index] for index in attempt.due}
            self.ledger.masks_of(self.node, clip, due, attempt.prepared)
            attempt.submit({index: attempt.compute(index) for index in due})
        self.node.expect(attempt.progress.record, clip)
        self.unfinished = None

    def end_by_refusal(self, attempt, clip, left):
        self.note(attempt, clip)
        with refused(Status.VERIFICATION) as caught:
            attempt.submit({index: attempt.compute(index) ^ np.uint32(1 << 31) for index in attempt.due})
        assert (caught.value.record is not None) == (left == 1)
        self.unfinished = self.unfinished if left > 1 else None
        self.out_of_order(EvalCommand.PREPARE_OPEN, EvalCommand.CLIP_OPEN)

    def end_by_abort(self, attempt, clip, _):
        self.note(attempt, clip)
        assert self.node.abort(self.camera)[0] == Status.OK
        self.unfinished = None
        self.out_of_order(EvalCommand.PREPARE_OPEN, EvalCommand.CLIP_OPEN)

    def end_by_disconnect(self, attempt, clip, _):
        self.note(attempt, clip)
        self.reconnect()

    def end_by_kill(self, attempt, clip, _):
        self.note(attempt, clip)
        self.restart_eval()
