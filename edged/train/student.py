"""The small pose network, in PyTorch: pictures in, 19 heat maps and 38 part affinity fields out, at a stride of 8.

Convolutions alone, so that it takes any size whose sides are multiples of 16; most of the work is done at a stride of
16, where a person's parts see each other. A second look at the first answer corrects it. Source of the two branches
and of refinement: Cao et al., arXiv:1611.08050.
"""

import io
from typing import Tuple

import torch
from torch import nn
from torch.nn import functional

HEAT, PAF = 19, 38
MEAN, SCALE = 127.5, 1 / 127.5


def _convolution(channels_in: int, channels: int, size: int = 3, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    pad = dilation * (size // 2)
    return nn.Sequential(nn.Conv2d(channels_in, channels, size, stride, pad, dilation, bias=False),
                         nn.BatchNorm2d(channels), nn.ReLU(inplace=True))


class Bottleneck(nn.Module):
    """A residual block: 1x1 to half of the channels, 3x3, 1x1 back."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        half = channels // 2
        self.inner = nn.Sequential(_convolution(channels, half, 1), _convolution(half, half, 3, 1, dilation),
                                   nn.Conv2d(half, channels, 1, bias=False), nn.BatchNorm2d(channels))
        nn.init.zeros_(self.inner[-1].weight)  # every block begins as nothing

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.relu(x + self.inner(x))


class Student(nn.Module):
    """x (B, 3, H, W), (BGR - 127.5) / 127.5 -> answers of both looks, each (B, 57, H / 8, W / 8)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(_convolution(3, 16, 3, 2), _convolution(16, 32, 3, 2), _convolution(32, 32),
                                  _convolution(32, 64, 3, 2), Bottleneck(64, 1), Bottleneck(64, 1))
        self.deep = nn.Sequential(_convolution(64, 160, 3, 2),
                                  *[Bottleneck(160, dilation) for dilation in (1, 2, 1, 2, 1, 4)])
        self.up = nn.ConvTranspose2d(160, 64, 2, 2)
        self.join = nn.Sequential(_convolution(128, 80), Bottleneck(80, 1))
        self.first = nn.Conv2d(80, HEAT + PAF, 1)
        self.again = nn.Sequential(_convolution(80 + HEAT + PAF, 80), Bottleneck(80, 2), Bottleneck(80, 2),
                                   Bottleneck(80, 1))
        self.second = nn.Conv2d(80, HEAT + PAF, 1)

    def forward(self, x: torch.Tensor) -> Tuple[torch.Tensor, torch.Tensor]:
        shallow = self.stem(x)
        features = self.join(torch.cat([shallow, self.up(self.deep(shallow))], 1))
        first = self.first(features)
        return first, first + self.second(self.again(torch.cat([features, first], 1)))


class _Deployed(nn.Module):
    """The second look alone, as two outputs."""

    def __init__(self, student: Student) -> None:
        super().__init__()
        self.student = student

    def forward(self, x: torch.Tensor) -> Tuple[torch.Tensor, torch.Tensor]:
        _, maps = self.student(x)
        return maps[:, :HEAT], maps[:, HEAT:]


def exported(student: Student, width: int, height: int) -> bytes:
    """As ONNX, batch norms folded; outputs ``heat`` and ``paf``."""
    target = io.BytesIO()
    deployed = _Deployed(student).eval()
    torch.onnx.export(deployed, (torch.zeros(1, 3, height, width),), target, input_names=["picture"],
                      output_names=["heat", "paf"], opset_version=13, dynamo=False)
    return target.getvalue()
