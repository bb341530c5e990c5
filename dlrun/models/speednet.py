"""The net of the speed records on CIFAR-10: few layers, each of which learns from its first step on."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Literal

from annotated_types import MinLen
from torch import Tensor, nn

from dlrun.errors import OptionError
from dlrun.models.refusal import refuse
from dlrun.models.whitening import Whitening
from dlrun.registry import Count, Positive, Share, models
from dlrun.spec import DataSpec

OTHERS = "perceptron, mlp, cnn, rnn, lstm or transformer"


@models.register("speednet")
def speednet(
    spec: DataSpec,
    *,
    widths: Annotated[list[Count], MinLen(1)] = [64, 256, 256],
    depth: Literal[2, 3] = 2,
    whitening: bool = True,
    whitening_size: Count = 2,
    batch_norm_momentum: Share = 0.4,
    logit_scale: Positive = 0.111,
) -> nn.Module:
    """The net of the CIFAR-10 speed records: whitened patches, groups of convolutions that begin as the identity.

    Takes images (B, C, H, W), gives logits (B, outputs). Jordan 2024, "94% on CIFAR-10 in 3.29 seconds on a single
    GPU" (arXiv 2404.00498), airbench94 and, with three convolutions a group, airbench96.
    """
    if spec.modality != "image":
        raise refuse(spec, "speednet", "images", "perceptron or mlp" if spec.modality == "tabular" else OTHERS)
    channels, height, width = spec.shape
    if whitening_size > min(height, width):
        raise OptionError("whitening_size", f"expected at most {min(height, width)}, a side of the pictures")
    before = 2 * channels * whitening_size**2
    first = Whitening(channels, whitening_size) if whitening else nn.Conv2d(channels, before, whitening_size)
    groups = []
    height, width = height - whitening_size + 1, width - whitening_size + 1
    for after in widths:
        # A side of one pixel can't be halved; the other one still can.
        pool = (2 if height > 1 else 1, 2 if width > 1 else 1)
        groups.append(Group(before, after, depth, pool, batch_norm_momentum))
        before, height, width = after, height // pool[0], width // pool[1]
    return SpeedNet(first, groups, nn.Linear(before, spec.num_outputs, bias=False), logit_scale)


class SpeedNet(nn.Module):
    """The first layer, the groups, the maximum over what is left of the picture, and a linear map."""

    def __init__(self, first: nn.Module, groups: Sequence[nn.Module], head: nn.Module, logit_scale: float):
        super().__init__()
        self.first, self.activation, self.groups, self.head = first, nn.GELU(), nn.Sequential(*groups), head
        self.logit_scale = logit_scale

    def forward(self, images: Tensor) -> Tensor:  # (B, C, H, W) → (B, outputs)
        x = self.groups(self.activation(self.first(images)))
        # As max-pooling, but for ties; a global one is faster in this form.
        return self.head(x.flatten(2).max(dim=2).values) * self.logit_scale


class Group(nn.Module):
    """Two convolutions of 3×3 with batch norm and GELU, pooled after the first; a third has a way around both others.

    Each begins as the identity of the channels that it gets, and as a random map to those that come new.
    """

    def __init__(self, before: int, after: int, depth: int, pool: tuple[int, int], momentum: float):
        super().__init__()
        widths = [before, *[after] * depth]
        self.convolutions = nn.ModuleList(_convolution(a, b) for a, b in pairwise(widths))
        self.norms = nn.ModuleList(_norm(after, momentum) for _ in range(depth))
        self.pool, self.activation = nn.MaxPool2d(pool), nn.GELU()

    def forward(self, x: Tensor) -> Tensor:  # (B, before, H, W) → (B, after, H // 2, W // 2)
        x = shortcut = self.activation(self.norms[0](self.pool(self.convolutions[0](x))))
        x = self.norms[1](self.convolutions[1](x))
        if len(self.norms) == 3:
            x = self.norms[2](self.convolutions[2](self.activation(x))) + shortcut
        return self.activation(x)


def _convolution(before: int, after: int) -> nn.Conv2d:
    convolution = nn.Conv2d(before, after, 3, padding=1, bias=False)
    nn.init.dirac_(convolution.weight.data[:before])
    return convolution


def _norm(channels: int, momentum: float) -> nn.BatchNorm2d:
    """Shifts what it has normalised, and doesn't scale it: the convolution that follows can do that."""
    norm = nn.BatchNorm2d(channels, momentum=momentum)
    norm.weight.requires_grad_(False)
    return norm
