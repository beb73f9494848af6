"""What the C tests read and what they must have made: the Python half of tests/c/vector.h.

Everything is drawn from fixed seeds, keys and salts too, so that a crashing input of a fuzzer stays one.
"""

import struct
import sys
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Tuple

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from c import deals
from edged.enclave import wire
from edged.model import package, quantise, reference, stgcn
from edged.model.layers import Kind, Model
from edged.model.tensors import write_tensors

POOL_WORDS = 65521  # a prime: no tile's stride divides it
PRIME = (1 << 61) - 1
LABEL_R1, LABEL_R2, LABEL_PAD, LABEL_S = 1, 2, 3, 4  # enum prg_label
PLACEMENTS = ("masked", "inputs", "enclave")

_HEAD = struct.Struct("<IIQ")


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 8)


def write(path: Path, items: Dict[str, bytes]) -> None:
    parts = []
    for name, data in items.items():
        encoded = name.encode("ascii")
        parts += [_HEAD.pack(len(encoded), 0, len(data)), _padded(encoded), _padded(data)]
    path.write_bytes(b"".join(parts))


def read(path: Path) -> Dict[str, bytes]:
    data, items, at = path.read_bytes(), {}, 0
    while at < len(data):
        name_bytes, zero, size = _HEAD.unpack_from(data, at)
        assert zero == 0
        name = data[at + 16:at + 16 + name_bytes].decode("ascii")
        at += 16 + len(_padded(bytes(name_bytes)))
        items[name] = data[at:at + size]
        at += (size + 7) // 8 * 8
    return items


class Case(NamedTuple):
    """A model and one clip of all its persons; fewer persons are the clip's first ones."""

    model: Model
    clip: np.ndarray


# What each adds: `odd` has sizes that no width of a register divides, a residual that fits over the block's
# input (8 -> 16, stride 2) and one that does not (16 -> 40), an order-AFTER graph (40 -> 12); `tiles` has more
# positions than a tile holds; `alone` has one person, one partition, short temporal kernels, no residual.
_NETWORKS: Dict[str, Dict] = {
    "odd": dict(seed=5, channels=[(8, 1), (8, 1), (16, 2), (40, 1), (12, 3)], frames=21, joints=7, labels=7),
    "tiles": dict(seed=6, channels=[(6, 1), (18, 2), (6, 1)], frames=75, labels=19, persons=3),
    "alone": dict(seed=7, channels=[(5, 1)], frames=9, joints=3, labels=1, persons=1, partitions=1, taps=3),
}
# What `odd` has, in as few bytes as it takes (`small`, for the fuzzers) and in so few words that every
# bit of every answer can be flipped (`tiny`).
_FEW: Dict[str, Dict] = {
    "small": dict(seed=33, channels=[(4, 1), (9, 2), (3, 1)], frames=5, joints=3, labels=2, partitions=2, taps=3),
    "tiny": dict(seed=21, channels=[(3, 1), (3, 1), (7, 2), (2, 1)], frames=4, joints=2, labels=2, partitions=2,
                 taps=3),
}


def case(name: str) -> Case:
    settings = dict(_NETWORKS, **_FEW)[name]
    network = stgcn.random_network(**settings)
    rng = np.random.default_rng(settings["seed"] + 100)
    model = quantise.quantise(network, [stgcn.random_clip(rng, network, network.persons)])
    return Case(model, stgcn.random_clip(rng, network, network.persons))


NAMES = tuple(_NETWORKS)


def pool() -> np.ndarray:
    """The mask words of prg_vector.c, with runs of 2^32 - 1: two of them make the s that must be redrawn."""
    words = np.random.default_rng(11).integers(0, 1 << 32, POOL_WORDS, np.uint64).astype(np.uint32)
    words[100::400] = words[101::400] = words[102::400] = 0xFFFFFFFF
    return words


def masks(words: np.ndarray, label: int, load: int, invocation: int, product: int, count: int) -> np.ndarray:
    """The first ``count`` words of one stream, as prg_vector.c gives them."""
    base = label * 7919 + load * 104729 + invocation * 1299709 + product * 15485863
    return words[(base + np.arange(count)) % POOL_WORDS]


def _fields(model: Model) -> Dict:
    fields = package.manifest_fields(model, "test", 1, package.PLACEMENTS_ALL, b"k" * 16)
    fields["salt"] = bytes(range(32))
    return fields


def _manifest_and_stream(model: Model) -> Tuple[bytes, bytes]:
    stream = write_tensors(model, bytes(range(32)))
    sealed = package.seal(_fields(model), stream, bytes(32), owner_key())
    return package.inspect(sealed).encoded, stream


def owner_key() -> Ed25519PrivateKey:
    return deals.party(deals.OWNER)


def model_items(name: str, found: Optional[Case] = None) -> Dict[str, bytes]:
    found = found or case(name)
    manifest, stream = _manifest_and_stream(found.model)
    logits, probabilities = reference.run(found.model, found.clip)
    return {name + "/manifest": manifest, name + "/stream": stream, name + "/clip": found.clip.tobytes(),
            name + "/logits": logits.tobytes(), name + "/probabilities": probabilities.tobytes()}


def scores(found: Case) -> List[np.ndarray]:
    """Probabilities of the clips of 0, 1 and 2 persons."""
    return [reference.run(found.model, found.clip[:persons])[1] for persons in range(3)]


def message_items(found: Case) -> Dict[str, bytes]:
    """A package with its keys, clips of 0 to M persons, and what each must give."""
    stream = write_tensors(found.model, bytes(range(32)))
    items = {"package": package.seal(_fields(found.model), stream, deals.SLOTS[deals.MODEL_SLOT].key, owner_key())}
    items["package/forged"] = package.seal(_fields(found.model), stream, deals.SLOTS[deals.FORGED_SLOT].key,
                                           deals.party(deals.OTHER_CITY))
    items["package/manifest"] = package.inspect(items["package"]).encoded
    for number, slot in enumerate(deals.SLOTS):
        items["slot/{}".format(number)] = wire.SlotPut(
            number, slot.kind, len(slot.key), slot.key_id, slot.key.ljust(32, b"\0"), slot.verifier).pack()
    for number, deal in enumerate(deals.make(*scores(found))):
        items["agreement/{}".format(number)] = deal.put()
        items["terms/{}".format(number)] = deal.terms()
    for persons in range(found.model.shape.persons + 1):
        logits, probabilities = reference.run(found.model, found.clip[:persons])
        items["clip/{}".format(persons)] = found.clip[:persons].tobytes()
        items["logits/{}".format(persons)] = logits.tobytes()
        items["probabilities/{}".format(persons)] = probabilities.tobytes()
    return items


# ------------------------------------------------------------- arithmetic ---


def _round_vectors(rng: np.random.Generator) -> np.ndarray:
    most = (1 << 62) + (1 << 47)
    edges = [0, 1, -1, most, -most, 1 << 61, -(1 << 61), (1 << 31) - 1, -(1 << 31)]
    rows = []
    for shift in range(1, 63):
        half = 1 << (shift - 1)
        near = [base + step for base in (half, -half, 3 * half, -3 * half) for step in (-1, 0, 1)]
        drawn = [int(z) for z in rng.integers(-most, most, 20)] + edges + [z for z in near if abs(z) <= most]
        rows += [(z, shift, (z + half) // (1 << shift)) for z in drawn]
    return np.array(rows, np.int64)


def _field_vectors(rng: np.random.Generator) -> np.ndarray:
    """Rows (operation, a, b, result) of f61_reduce, f61_from_i64, f61_add, f61_shift."""
    top = 1 << 64
    edges = [0, 1, PRIME - 1, PRIME, PRIME + 1, 2 * PRIME, 7 * PRIME, 7 * PRIME + 7, top - 1, 1 << 61, 1 << 63]
    drawn = [int(a) for a in rng.integers(0, top, 200, np.uint64)]
    signed = [0, 1, -1, PRIME, -PRIME, 1 - PRIME, 2 * PRIME, (1 << 63) - 1, 1 - (1 << 63)]
    signed += [int(a) for a in rng.integers(1 - (1 << 63), 1 << 63, 200)]
    inside = [0, 1, 2, PRIME - 1, PRIME - 2, 1 << 60, (1 << 31) - 1] + [a % PRIME for a in drawn[:30]]
    rows = [(0, a, 0, a % PRIME) for a in edges + drawn]
    rows += [(1, a % top, 0, a % PRIME) for a in signed]
    rows += [(2, a, b, (a + b) % PRIME) for a in inside for b in inside]
    rows += [(3, a, k, (a << k) % PRIME) for a in inside for k in range(1, 61)]
    return np.array(rows, np.uint64)


def arithmetic_items() -> Dict[str, bytes]:
    rng = np.random.default_rng(3)
    items = {"round": _round_vectors(rng).tobytes(), "field": _field_vectors(rng).tobytes()}
    high = 1 << 30
    rows = [np.zeros(1, np.int32), np.array([high, -high]), np.array([-high, high, -high]), np.full(400, high),
            np.array([0, -1, 1, -65536, -94548]), np.arange(0, -40 * 65536, -65536)]
    for labels in (2, 3, 7, 60, 400):
        rows += [rng.integers(-high, high + 1, labels), rng.integers(-5 * 65536, 5 * 65536, labels),
                 rng.integers(-33 * 65536, 1, labels)]
    for index, row in enumerate(rows):
        logits = row.astype(np.int32)
        items["softmax/{}/logits".format(index)] = logits.tobytes()
        items["softmax/{}/probabilities".format(index)] = reference.softmax(logits).tobytes()
    return items


def all_items() -> Dict[str, bytes]:
    items = {"pool": pool().tobytes()}
    items.update(arithmetic_items())
    items.update(model_items("tiny"))
    for name in NAMES:
        found = case(name)
        items.update(model_items(name, found))
        if name == "odd":
            items.update(message_items(found))
    return items


# ----------------------------------------------------- what must come out ---


def expected_dump(name: str, found: Case, kernel: str) -> Dict[str, bytes]:
    """Everything that network_test dumps of one model, made by NumPy alone."""
    model, words = found.model, pool()
    linear = [layer for layer in model.layers if layer.row.kind in (Kind.GRAPH, Kind.RESIDUAL, Kind.TEMPORAL)]
    dump: Dict[str, bytes] = {}
    for load, placement in enumerate(PLACEMENTS, 1):
        top = "/".join((kernel, name, placement))
        w_bar = []
        for product, layer in enumerate(linear):
            w_bar.append(_w_bar(words, layer.weights, load if placement == "masked" else None, product))
            if placement != "enclave":
                dump["{}/wbar{}".format(top, product)] = w_bar[-1].tobytes()
        invocation = 0
        for persons in range(model.shape.persons + 1):
            for ahead in (False, True) if persons and placement != "enclave" else (False,):
                invocation += 1
                under = "{}/{}/{}".format(top, persons, "ahead" if ahead else "online")
                dump.update(_invocation(found, words, under, persons, ahead, load, invocation,
                                        w_bar if placement != "enclave" else None))
    return dump


def _w_bar(words: np.ndarray, weights: np.ndarray, load: Optional[int], product: int) -> np.ndarray:
    """(rows, taps, K / taps) uint32: R2 lies in panels of 16 rows, [panel][k][16]."""
    rows, depth = weights.shape[0], weights[0].size
    w_bar = weights.reshape(rows, depth).astype(np.uint32)
    if load is not None:
        panels = -(-rows // 16)
        r2 = masks(words, LABEL_R2, load, 0, product, panels * depth * 16).reshape(panels, depth, 16)
        w_bar = w_bar + r2.transpose(0, 2, 1).reshape(panels * 16, depth)[:rows]
    return w_bar.reshape(weights.shape if weights.ndim == 3 else (rows, 1, depth))


def _convolve(w_bar: np.ndarray, x_bar: np.ndarray, stride: int) -> np.ndarray:
    """Z mod 2^32: (rows, taps, K) and (m, T, V, K) -> (m, T', V, rows), zero padding."""
    taps = w_bar.shape[1]
    pad, frames_out = (taps - 1) // 2, (x_bar.shape[1] - 1) // stride + 1
    padded = np.pad(x_bar, ((0, 0), (pad, pad), (0, 0), (0, 0)))
    y_bar = np.zeros(x_bar.shape[:1] + (frames_out, x_bar.shape[2], w_bar.shape[0]), np.uint32)
    for tap in range(taps):
        y_bar += padded[:, tap:tap + (frames_out - 1) * stride + 1:stride] @ w_bar[:, tap].T
    return y_bar


def _invocation(found: Case, words: np.ndarray, under: str, persons: int, ahead: bool, load: int, invocation: int,
                w_bar: Optional[list]) -> Dict[str, bytes]:
    dump = {}
    steps = list(reference.steps(found.model, found.clip[:persons]))
    linear = [step for step in steps if step.operand is not None and step.layer.row.kind != Kind.FC]
    for product, step in enumerate(linear if persons else []):
        row = step.layer.row
        if w_bar is not None:
            x = step.operand.astype(np.uint32)
            r1 = masks(words, LABEL_R1, load, invocation, product, x.size).reshape(x.shape)
            dump["{}/xbar{}".format(under, product)] = (x + r1).tobytes()
            if ahead:
                u = _convolve(w_bar[product], r1, row.stride if row.kind == Kind.TEMPORAL else 1)
                u = u + masks(words, LABEL_PAD, load, invocation, product, u.size).reshape(u.shape)
                dump["{}/ahead{}".format(under, product)] = u.tobytes()
        for person in range(persons):
            name = "{}/output{}".format(under, product * 8 + person)
            dump[name] = step.output[person].astype(np.int16).tobytes()
    logits = steps[-1].output.astype(np.int32)
    dump[under + "/logits0"] = logits.tobytes()
    dump[under + "/probabilities0"] = reference.softmax(logits).tobytes()
    return dump


def fuzz_items() -> Dict[str, bytes]:
    found = case("small")
    return dict(message_items(found), pool=pool().tobytes(), **model_items("small", found))


if __name__ == "__main__":  # vectors.py FILE [fuzz]
    write(Path(sys.argv[1]), fuzz_items() if "fuzz" in sys.argv else all_items())
