"""A first layer that is computed, not learned: it gives neighbouring pixels and colours the same say."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

AT_ONCE = 256  # pictures whose patches are in memory at a time
EPS = 5e-4  # added to each variance, so that what is all but constant isn't blown up


class Whitening(nn.Module):
    """Patches of `size` × `size` pixels in the directions of their covariance, each scaled to a variance of 1.

    (B, C, H, W) → (B, 2 · C · size², H - size + 1, W - size + 1): every direction and its negative, since what follows
    keeps one side of zero. Pixels of real pictures are nearly the same as their neighbours; trained from a random
    start, a net spends its first epochs on taking that out (Page 2018, "How to train your ResNet"; Jordan 2024, "94% on
    CIFAR-10 in 3.29 seconds", section 3.2).

    The weight is a buffer: kept in checkpoints, not trained. `initialize_from` sets it, once; the bias is trained.
    """

    weight: Tensor

    def __init__(self, channels: int, size: int):
        super().__init__()
        self.size, directions = size, channels * size**2
        self.register_buffer("weight", torch.empty(2 * directions, channels, size, size))
        self.bias = nn.Parameter(torch.zeros(2 * directions))
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)  # as a convolution's, until there are pictures

    @torch.no_grad()
    def initialize_from(self, inputs: Tensor) -> None:
        """Take the directions from training pictures (N, C, H, W), as the model gets them."""
        total, count = torch.zeros(self.weight[0].numel(), self.weight[0].numel(), dtype=torch.float64), 0
        for part in inputs.float().split(AT_ONCE):
            patches = F.unfold(part, self.size).transpose(0, 1).flatten(1)  # (C · size², B · places)
            total += (patches @ patches.T).double().cpu()
            count += patches.shape[1]
        variances, directions = torch.linalg.eigh(total / count)
        scaled = (directions / (variances.clamp_min(0) + EPS).sqrt()).T.flip(0)  # the largest first
        self.weight.copy_(torch.cat([scaled, -scaled]).view_as(self.weight))

    def forward(self, images: Tensor) -> Tensor:
        """Always in fp32: directions of little variance are small differences of large numbers.

        On photographs bfloat16 would add 19 % of noise to the smallest one, float16 1.4 %.
        """
        kind = images.device.type
        wanted = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else images.dtype
        with torch.autocast(kind, enabled=False):
            return F.conv2d(images.float(), self.weight.float(), self.bias.float()).to(wanted)
