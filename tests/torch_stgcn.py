"""ST-GCN in PyTorch with the layer names of the published code: what a model owner trains and saves."""

import torch
from torch import nn


class Graph(nn.Module):
    def __init__(self, channels_in, channels, partitions, bias):
        super().__init__()
        self.conv = nn.Conv2d(channels_in, partitions * channels, 1, bias=bias)

    def forward(self, x, adjacency):
        x = self.conv(x)
        size, _, frames, joints = x.shape
        x = x.view(size, len(adjacency), -1, frames, joints)
        return torch.einsum("nkctv,kvw->nctw", x, adjacency).contiguous()


class Block(nn.Module):
    def __init__(self, channels_in, channels, partitions, taps, stride, residual, bias):
        super().__init__()
        self.gcn = Graph(channels_in, channels, partitions, bias)
        self.tcn = nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(),
                                 nn.Conv2d(channels, channels, (taps, 1), (stride, 1), (taps // 2, 0), bias=bias),
                                 nn.BatchNorm2d(channels), nn.Dropout(0.1))
        self.none = not residual
        if residual and (channels_in != channels or stride != 1):
            self.residual = nn.Sequential(nn.Conv2d(channels_in, channels, 1, (stride, 1), bias=bias),
                                          nn.BatchNorm2d(channels))
        else:
            self.residual = nn.Identity()

    def forward(self, x, adjacency):
        around = 0 if self.none else self.residual(x)
        return torch.relu(self.tcn(self.gcn(x, adjacency)) + around)


class Model(nn.Module):
    """clips (N, C, T, V, M) -> logits (N, L). channels: (out, stride) of each block."""

    def __init__(self, adjacency, channels, labels, taps=9, importance=True, bias=True):
        super().__init__()
        self.register_buffer("A", torch.tensor(adjacency, dtype=torch.float32))
        partitions, joints = self.A.shape[:2]
        self.data_bn = nn.BatchNorm1d(3 * joints)
        blocks, channels_in = [], 3
        for out, stride in channels:
            blocks.append(Block(channels_in, out, partitions, taps, stride, bool(blocks), bias))
            channels_in = out
        self.st_gcn_networks = nn.ModuleList(blocks)
        self.edge_importance = nn.ParameterList(
            [nn.Parameter(torch.ones_like(self.A) + 0.2 * torch.randn_like(self.A)) for _ in blocks]
        ) if importance else [1.0] * len(blocks)
        self.fcn = nn.Conv2d(channels_in, labels, 1)

    def forward(self, x):
        size, channels, frames, joints, persons = x.shape
        x = x.permute(0, 4, 3, 1, 2).reshape(size * persons, joints * channels, frames)
        x = self.data_bn(x).view(size, persons, joints, channels, frames)
        x = x.permute(0, 1, 3, 4, 2).reshape(size * persons, channels, frames, joints)
        for block, importance in zip(self.st_gcn_networks, self.edge_importance):
            x = block(x, self.A * importance)
        x = x.mean(dim=(2, 3)).view(size, persons, -1, 1, 1).mean(dim=1)
        return self.fcn(x).view(size, -1)
