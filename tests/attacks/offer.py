"""Packages of a dishonest owner: signed and sealed as they should be, whatever is inside; sent message by message."""

import os
from contextlib import contextmanager

from attacks.networks import small
from attacks.node import KEY_ID, MODEL_SLOT
from edged.enclave import wire
from edged.enclave.wire import EvalCommand, Placement, Status
from edged.model import package
from edged.model.manifest import manifest_fields
from edged.model.tensors import BLIND_BYTES, write_tensors

MODEL = small()
TABLE = MODEL.table
SEALED = wire.EVAL_SEAL_BYTES + wire.EVAL_TAG_BYTES
ENVELOPE_AT = len(package.MAGIC) + 8

# Rows of MODEL by place, see networks.SMALL.
(INPUT, GRAPH, TEMPORAL, GRAPH_2, TEMPORAL_2, GRAPH_3, RESIDUAL, TEMPORAL_3, AFTER, RESIDUAL_4, TEMPORAL_4, POOL,
 FC) = range(13)


def fields_of(model=MODEL, **changes):
    fields = manifest_fields(model, "attack", 1, package.PLACEMENTS_ALL, KEY_ID)
    return dict(fields, **changes)


def stream_of(model=MODEL):
    return write_tensors(model, os.urandom(BLIND_BYTES))


class Offer:
    """A package in its parts, as the client sends them."""

    def __init__(self, data):
        size = int.from_bytes(data[12:16], "little")
        self.envelope = data[ENVELOPE_AT:ENVELOPE_AT + size]
        sealed = data[ENVELOPE_AT + size:]
        self.chunks = [sealed[at:at + SEALED] for at in range(0, len(sealed), SEALED)]

    def send(self, node, placement=Placement.MASKED, slot=MODEL_SLOT):
        """(status, command) of the first message that is not taken, or of the commit."""
        messages = [(EvalCommand.LOAD_OPEN, wire.LoadOpen(slot, placement, len(self.envelope)).pack())]
        step = wire.EDGED_CHUNK_BYTES
        messages += [(EvalCommand.LOAD_ENVELOPE, wire.Chunk(0, at).pack() + self.envelope[at:at + step])
                     for at in range(0, len(self.envelope), step)]
        messages += [(EvalCommand.LOAD_CHUNK, wire.Chunk(index, 0).pack() + chunk)
                     for index, chunk in enumerate(self.chunks)]
        for command, body in messages + [(EvalCommand.LOAD_COMMIT, b"")]:
            status, answer = node.call(command, body)
            if status != Status.OK:
                assert answer == b""
                break
        return status, command


def sealed(node, fields=None, stream=None, key=None, owner=None):
    """An offer with the owner's true signature and seal."""
    return Offer(package.seal(fields or fields_of(), stream or stream_of(), key or node.model_key, owner or node.owner))


@contextmanager
def nothing_is_loaded_and_a_good_package_loads(node):
    yield
    for command, body in ((EvalCommand.LOAD_CHUNK, wire.Chunk(0, 0).pack() + bytes(20)), (EvalCommand.LOAD_COMMIT, b""),
                          (EvalCommand.WEIGHTS_READ, wire.Chunk(0, 0).pack()),
                          (EvalCommand.PREPARE_OPEN, wire.PrepareOpen(1).pack())):
        assert node.call(command, body) == (Status.ORDER, b"")
    assert sealed(node).send(node) == (Status.OK, EvalCommand.LOAD_COMMIT)


def expect(node, offer, status, command, **how):
    with nothing_is_loaded_and_a_good_package_loads(node):
        assert offer.send(node, **how) == (status, command)
