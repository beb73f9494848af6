"""Skeleton graphs and their adjacency, split into partitions (Yan et al. 2018, section 3.3).

Source: Yan, Xiong, Lin, "Spatial Temporal Graph Convolutional Networks for Skeleton-Based Action
Recognition", AAAI 2018, arXiv:1801.07455.
"""

from dataclasses import dataclass
from typing import Tuple

import numpy as np

from edged.errors import ShapeError


@dataclass(frozen=True)
class Skeleton:
    """``joints`` keypoints, undirected ``edges`` between them, and the ``centre`` of gravity's joint."""

    name: str
    joints: int
    edges: Tuple[Tuple[int, int], ...]
    centre: int


# OpenPose order: 0 nose, 1 neck, 2-4 right arm, 5-7 left arm, 8-10 right leg, 11-13 left leg, 14-17 eyes, ears.
# The edges are the paper's (shoulders to hips, not neck to hips).
COCO_18 = Skeleton(
    name="coco18",
    joints=18,
    edges=(
        (4, 3), (3, 2), (7, 6), (6, 5), (13, 12), (12, 11), (10, 9), (9, 8), (11, 5),
        (8, 2), (5, 1), (2, 1), (0, 1), (15, 0), (14, 0), (17, 15), (16, 14),
    ),
    centre=1,
)  # fmt: skip


# OpenPose BODY_25: as COCO-18 up to the left wrist (7), 8 middle of the hips, 9-11 right leg, 12-14 left leg, 15-18
# eyes and ears, 19-21 left foot, 22-24 right foot.
BODY_25 = Skeleton(
    name="body25",
    joints=25,
    edges=(
        (1, 8), (1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (8, 9), (9, 10), (10, 11), (8, 12), (12, 13),
        (13, 14), (1, 0), (0, 15), (15, 17), (0, 16), (16, 18), (14, 19), (19, 20), (14, 21), (11, 22), (22, 23),
        (11, 24),
    ),
    centre=1,
)  # fmt: skip

# Kinect v2, as in NTU RGB+D (Shahroudy et al. 2016, arXiv:1604.02808), counted from 0; 20 is between the shoulders.
NTU_25 = Skeleton(
    name="ntu25",
    joints=25,
    edges=(
        (0, 1), (1, 20), (2, 20), (3, 2), (4, 20), (5, 4), (6, 5), (7, 6), (8, 20), (9, 8), (10, 9), (11, 10), (12, 0),
        (13, 12), (14, 13), (15, 14), (16, 0), (17, 16), (18, 17), (19, 18), (21, 22), (22, 7), (23, 24), (24, 11),
    ),
    centre=20,
)  # fmt: skip

SKELETONS = {skeleton.name: skeleton for skeleton in (COCO_18, BODY_25, NTU_25)}


def binary_tree(joints: int) -> Skeleton:
    """A stand-in skeleton of any size: joint ``i`` hangs from joint ``(i - 1) // 2``."""
    edges = tuple((i, (i - 1) // 2) for i in range(1, joints))
    return Skeleton(name="tree{}".format(joints), joints=joints, edges=edges, centre=0)


def hop_distance(skeleton: Skeleton) -> np.ndarray:
    """Edges on the shortest path between each two joints: (V, V) float64, inf where there is none."""
    count = skeleton.joints
    distance = np.full((count, count), np.inf)
    distance[range(count), range(count)] = 0
    for a, b in skeleton.edges:
        distance[a, b] = distance[b, a] = 1
    for via in range(count):
        distance = np.minimum(distance, distance[:, via, None] + distance[None, via, :])
    return distance


def adjacency(skeleton: Skeleton, partitions: int = 3) -> np.ndarray:
    """Normalised adjacency, one matrix a partition: ``out[w] = sum_v a[k, v, w] * in[v]``.

    returns (P, V, V) float64; the sum over partitions and ``v`` is 1 for every ``w``.

    P = 3 is the paper's spatial partition: the joint itself and neighbours as far from the centre as it;
    neighbours ``v`` farther out than ``w``; neighbours nearer. Any other P partitions by hop distance
    0 .. P-1 (P = 1: the joint and its neighbours in one).
    """
    if partitions < 1:
        raise ShapeError("partitions is {}, must be at least 1".format(partitions))
    distance = hop_distance(skeleton)
    by_hop = partitions not in (1, 3)
    reach = partitions - 1 if by_hop else 1
    near = (distance <= reach).astype(np.float64)
    normalised = near / near.sum(axis=0)  # column-wise: A D^-1, as the published code does
    if partitions == 1:
        return normalised[None]
    if by_hop:
        return np.stack([np.where(distance == hop, normalised, 0.0) for hop in range(partitions)])
    from_centre = distance[skeleton.centre]
    source, target = from_centre[:, None], from_centre[None, :]
    return np.stack([np.where(mask, normalised, 0.0) for mask in (source == target, source > target, source < target)])
