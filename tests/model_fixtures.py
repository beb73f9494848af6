"""Small networks, their integer models and clips, made once; every model test starts from these."""

from functools import lru_cache

import numpy as np

from edged.model import quantise, stgcn

# no residual, identity, strided convolution, and a block narrow enough for the adjacency to come after the weights
CHANNELS = ((6, 1), (6, 1), (9, 2), (4, 1))
FRAMES, JOINTS, LABELS, PERSONS = 13, 5, 7, 2


@lru_cache(maxsize=None)
def small_network(seed=3):
    return stgcn.random_network(seed, CHANNELS, frames=FRAMES, joints=JOINTS, persons=PERSONS, labels=LABELS)


def clips_of(network, count, seed=11):
    """One person, two persons, one person, ..."""
    rng = np.random.default_rng(seed)
    return [stgcn.random_clip(rng, network, 1 + i % network.persons) for i in range(count)]


@lru_cache(maxsize=None)
def small_model(seed=3):
    return quantise.quantise(small_network(seed), clips_of(small_network(seed), 6))


def wild_clip(seed, persons=PERSONS, frames=FRAMES, joints=JOINTS):
    """Any int16 whatever, both extremes included."""
    clip = np.random.default_rng(seed).integers(-32768, 32768, (persons, frames, joints, 3), dtype=np.int16)
    if clip.size:
        clip[0, 0, 0] = [-32768, 32767, -32768]
    return clip
