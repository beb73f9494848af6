"""``edged-owner train action``: the action network, an ST-GCN, on generated and on recorded motion.

Every batch is made for its step from (seed, step) by a second process, so a run that was interrupted goes on with the
same batches, and no clip is met twice.
"""

import argparse
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import List, Optional, Tuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from tqdm import tqdm

from edged import command
from edged.camera import motion
from edged.camera.clip import fixed_point
from edged.model import stgcn
from edged.model.network import write
from edged.model.skeleton import COCO_18, adjacency
from edged.train import state as states
from edged.train.ahead import ahead
from edged.train.mixture import Mixture, add_sources, sources

PERSONS, FRAMES, TAPS = 2, 300, 9
# (out channels, stride). narrow: 30 frames a second are more than a fall needs, so time is thinned out early.
WIDTHS = {
    "narrow": ((24, 4), (24, 1), (48, 2), (48, 1), (96, 2), (96, 1)),
    "full": stgcn.FULL_CHANNELS,
}


class Block(nn.Module):
    """As stgcn.Block. The adjacency comes first, which is the same sum and cheaper; biases are the batch norms'."""

    def __init__(self, base: torch.Tensor, channels_in: int, channels: int, stride: int, first: bool) -> None:
        super().__init__()
        self.stride, self.partitions = stride, base.shape[0]
        self.register_buffer("base", base)
        self.importance = nn.Parameter(torch.ones_like(base))
        self.graph = nn.Conv2d(self.partitions * channels_in, channels, 1, bias=False)
        self.graph_norm = nn.BatchNorm2d(channels)
        self.temporal = nn.Conv2d(channels, channels, (TAPS, 1), (stride, 1), (TAPS // 2, 0), bias=False)
        self.temporal_norm = nn.BatchNorm2d(channels)
        identity = channels_in == channels and stride == 1
        self.kind = stgcn.NO_RESIDUAL if first else stgcn.IDENTITY if identity else stgcn.CONVOLUTION
        self.around = self.around_norm = None
        if self.kind == stgcn.CONVOLUTION:
            self.around = nn.Conv2d(channels_in, channels, 1, (stride, 1), bias=False)
            self.around_norm = nn.BatchNorm2d(channels)

    @torch.no_grad()
    def start_from_differences(self) -> None:
        """Let half of the channels begin as joint less nearer neighbour, a quarter as joint less farther one.

        Where people are in the picture varies far more than what they do, and from random weights it takes most of
        a run to learn to look away from it.
        """
        sums = self.base.sum(1, keepdim=True)
        self.importance.copy_(torch.where(sums > 0, 1 / sums.clamp(min=1e-6), 1.0).expand_as(self.base))
        weight = self.graph.weight.view(self.graph.out_channels, self.partitions, -1)
        half, most = len(weight) // 2, 3 * len(weight) // 4
        weight[:half, 1], weight[:half, 2] = 0.0, -weight[:half, 0]
        weight[half:most, 2], weight[half:most, 1] = 0.0, -weight[half:most, 0]

    @torch.no_grad()
    def start_from_changes(self) -> None:
        """Let half of the temporal filters begin without a constant part."""
        weight = self.temporal.weight
        half = len(weight) // 2
        weight[:half] -= weight[:half].mean(dim=2, keepdim=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x (B, C, T, V) -> (B, C', T', V)."""
        size, channels, frames, joints = x.shape
        spread = (self.base * self.importance).permute(1, 0, 2).reshape(joints, -1)
        joined = (x.reshape(-1, joints) @ spread).reshape(size, channels, frames, self.partitions, joints)
        joined = joined.permute(0, 3, 1, 2, 4).reshape(size, -1, frames, joints)
        g = functional.relu(self.graph_norm(self.graph(joined)))
        h = self.temporal_norm(self.temporal(g))
        if self.kind == stgcn.IDENTITY:
            h = h + x
        elif self.kind == stgcn.CONVOLUTION:
            h = h + self.around_norm(self.around(x))
        return functional.relu(h)


class Network(nn.Module):
    """As stgcn.Network, ``width`` of WIDTHS. Of the absent persons only one is worked out: they are all alike."""

    def __init__(self, width: str = "narrow") -> None:
        super().__init__()
        base = torch.tensor(adjacency(COCO_18, 3), dtype=torch.float32)
        self.data_norm = nn.BatchNorm1d(COCO_18.joints * stgcn.CHANNELS_IN)
        blocks, channels_in = [], stgcn.CHANNELS_IN
        for channels, stride in WIDTHS[width]:
            blocks.append(Block(base, channels_in, channels, stride, first=not blocks))
            channels_in = channels
        blocks[0].start_from_differences()
        for block in blocks:
            block.start_from_changes()
        self.blocks = nn.ModuleList(blocks)
        self.fc = nn.Linear(channels_in, len(motion.LABELS))

    def forward(self, people: torch.Tensor, owner: torch.Tensor, clips: int) -> torch.Tensor:
        """people (B, T, V, 3), of clip ``owner`` (B,) -> logits (clips, L)."""
        x = torch.cat([people, torch.zeros_like(people[:1])])
        size, frames, joints, _ = x.shape
        x = self.data_norm(x.reshape(size * frames, -1)).reshape(size, frames, joints, -1).permute(0, 3, 1, 2)
        for block in self.blocks:
            x = block(x)
        alone = x.float().mean(dim=(2, 3))
        total = torch.zeros(clips, alone.shape[1]).index_add(0, owner, alone[:-1])
        absent = PERSONS - torch.bincount(owner, minlength=clips)
        return self.fc((total + absent[:, None] * alone[-1]) / PERSONS)


@dataclass(frozen=True)
class Plan:
    """One training run; the same plan on the same machine gives the same weights."""

    seed: int
    steps: int
    batch: int
    rate: float
    width: str = "narrow"


def batch(mixture: Mixture, seed: int, step: int, size: int) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
    """People (B, T, V, 3) float32, the clip each belongs to, the clips' labels; rounded as the enclave gets them."""
    rng = np.random.default_rng((seed, step))
    labels = rng.permutation(np.arange(size) % len(motion.LABELS))
    people: List[np.ndarray] = []
    owner: List[int] = []
    for index, label in enumerate(labels):
        found = fixed_point(mixture.clip(rng, motion.LABELS[label])).astype(np.float32)
        people.append(found / stgcn.CLIP_SCALE)
        owner += [index] * len(found)
    return np.concatenate(people), np.array(owner), labels


def train(plan: Plan, mixture: Mixture, state: Optional[Path] = None, start: Optional[Path] = None,
          early: Optional[Path] = None, keep_every: int = 200) -> Network:
    """Run the plan, from where ``state`` left off if that file is there; it is rewritten every ``keep_every`` steps.

    start : a run's state whose weights this one begins with       early : gets the network as it is by then
    """
    torch.manual_seed(plan.seed)
    network = Network(plan.width)
    if start is not None:
        states.fill(network, states.load(start)["network"], start)
    said = dict(asdict(plan), sources=[part.name for part in mixture.parts])
    optimiser = torch.optim.AdamW(network.parameters(), lr=plan.rate, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, plan.rate, total_steps=plan.steps, pct_start=0.15)
    first = 0
    kept = states.resumed(state, said)
    if kept is not None:
        network.load_state_dict(kept["network"])
        optimiser.load_state_dict(kept["optimiser"])
        schedule.load_state_dict(kept["schedule"])
        first = kept["step"]
    network.train()
    loss_mean = right_mean = 0.0
    made = ahead(partial(batch, mixture, plan.seed, size=plan.batch), first, plan.steps)
    bar = tqdm(made, initial=first, total=plan.steps, desc="action", mininterval=5)
    for step, found in enumerate(bar, first):
        people, owner, labels = (torch.from_numpy(part) for part in found)
        logits = network(people, owner, len(labels))
        loss = functional.cross_entropy(logits, labels, label_smoothing=0.02)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 2.0)
        optimiser.step()
        schedule.step()
        keep = min(0.98, (step - first) / (step - first + 1))
        loss_mean = keep * loss_mean + (1 - keep) * float(loss.detach())
        right_mean = keep * right_mean + (1 - keep) * float((logits.argmax(1) == labels).float().mean())
        bar.set_postfix(loss="{:.3f}".format(loss_mean), right="{:.3f}".format(right_mean), refresh=False)
        if (step + 1) % keep_every == 0 or step + 1 == plan.steps:
            states.keep(state, said, step + 1, network=network.state_dict(), optimiser=optimiser.state_dict(),
                        schedule=schedule.state_dict())
            if early is not None:
                write(export(network.eval()), early)
                network.train()
    return network.eval()


def _array(x: torch.Tensor) -> np.ndarray:
    return x.detach().numpy().astype(np.float64)


def _norm(norm: nn.Module) -> stgcn.BatchNorm:
    return stgcn.BatchNorm(_array(norm.weight), _array(norm.bias), _array(norm.running_mean), _array(norm.running_var))


def _export_block(block: Block) -> stgcn.Block:
    partitions, channels = block.partitions, block.graph.out_channels
    # (out, k * in) -> row k * out + o of (P * out, in)
    weight = _array(block.graph.weight)[:, :, 0, 0].reshape(channels, partitions, -1).transpose(1, 0, 2)
    around = block.around
    return stgcn.Block(
        adjacency=_array(block.base * block.importance),
        graph_weight=np.ascontiguousarray(weight).reshape(partitions * channels, -1),
        graph_bias=np.zeros(partitions * channels),
        graph_norm=_norm(block.graph_norm),
        temporal_weight=np.ascontiguousarray(_array(block.temporal.weight)[..., 0].transpose(0, 2, 1)),
        temporal_bias=np.zeros(channels),
        temporal_norm=_norm(block.temporal_norm),
        stride=block.stride,
        residual=block.kind,
        residual_weight=None if around is None else _array(around.weight)[:, :, 0, 0],
        residual_bias=None if around is None else np.zeros(channels),
        residual_norm=None if around is None else _norm(block.around_norm),
    )


def export(network: Network) -> stgcn.Network:
    """The same function of a clip, without torch."""
    return stgcn.Network(
        skeleton=COCO_18,
        persons=PERSONS,
        frames=FRAMES,
        labels=motion.LABELS,
        data_norm=_norm(network.data_norm),
        blocks=tuple(_export_block(block) for block in network.blocks),
        fc_weight=_array(network.fc.weight),
        fc_bias=_array(network.fc.bias),
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_sources(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the network, as edged-owner packs it")
    parser.add_argument("--state", type=Path, metavar="FILE", help="where an interrupted run leaves off and goes on")
    parser.add_argument("--start", type=Path, metavar="FILE", help="another run's state, which this one refines")
    add_plan(parser)


def add_plan(parser: argparse.ArgumentParser) -> None:
    """The options of ``plan_of``."""
    parser.add_argument("--width", choices=sorted(WIDTHS), default="narrow", help="full: the published size")
    parser.add_argument("--seed", type=command.at_least(0), default=20)
    parser.add_argument("--steps", type=command.at_least(2), default=5000)
    parser.add_argument("--batch", type=command.at_least(2), default=32)
    parser.add_argument("--rate", type=float, default=6e-3)


def plan_of(given: argparse.Namespace) -> Plan:
    return Plan(given.seed, given.steps, given.batch, given.rate, given.width)


def run(given: argparse.Namespace) -> None:
    torch.set_num_threads(1)  # the other core makes the clips
    states.require_folder(given.out)
    network = train(plan_of(given), sources(given), given.state, given.start, given.out)
    print(write(export(network), given.out))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    run(parser.parse_args())


if __name__ == "__main__":
    main()
