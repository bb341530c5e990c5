"""From raw batches to what a model takes: on the training device, a whole batch at a time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dlrun.data.order import MIX, generator_at
from dlrun.spec import DataSpec


def preparation(spec: DataSpec, device: torch.device, channels_last: bool = False) -> Callable[[Tensor], Tensor]:
    """A function from a raw batch on the CPU to the model's input on `device`.

    uint8 pixels (B, H, W, C), or floats of their range, which are used up, become normalised floats (B, C, H, W), token
    ids int64 (B, L); features stay (B, F).
    """
    if spec.modality == "text":
        return lambda batch: batch.to(device, non_blocking=True).long()
    if spec.modality == "tabular":
        return lambda batch: batch.to(device, non_blocking=True)
    channels, _, width = spec.shape
    layout = torch.channels_last if channels_last else torch.contiguous_format

    def row(values: Tensor) -> Tensor:
        """Per channel (C,) → a whole row of pixels (1, C, 1, W): broadcasting over a few channels is 5 times slower."""
        tiled = values.float().to(device).view(1, channels, 1, 1).expand(1, channels, 1, width)
        return tiled.contiguous(memory_format=layout)

    # (x / 255 - mean) / std as one multiply-add
    mean, std = torch.tensor(spec.mean, dtype=torch.float64), torch.tensor(spec.std, dtype=torch.float64)
    scale, shift = row(1 / 255 / std), row(-mean / std)

    def pixels(batch: Tensor) -> Tensor:
        raw = batch.to(device, non_blocking=True).permute(0, 3, 1, 2)
        images = raw.to(torch.float32, memory_format=layout)  # (B, C, H, W), the only new memory
        return torch.addcmul(shift, images, scale, out=images)

    return pixels


class Mix:
    """Mixup (Zhang et al. 2018) and CutMix (Yun et al. 2019): each batch is blended with itself in another order.

    `mixup` and `cutmix` are the alphas of their Beta distributions, 0 switches off; with both on, a coin is tossed for
    each batch. Targets become shares (B, classes).
    """

    def __init__(self, mixup: float, cutmix: float, num_classes: int, seed: int):
        self.mixup, self.cutmix, self.num_classes, self.seed = mixup, cutmix, num_classes, seed

    def __call__(self, inputs: Tensor, targets: Tensor, epoch: int, position: int) -> tuple[Tensor, Tensor]:
        """inputs (B, …) float, targets (B,) → mixed inputs, targets (B, classes)."""
        random = generator_at(self.seed, epoch, position, MIX)
        cut = self.cutmix > 0 and (self.mixup == 0 or random.random() < 0.5)
        alpha = self.cutmix if cut else self.mixup
        share = float(random.beta(alpha, alpha))
        other = torch.from_numpy(random.permutation(len(inputs)))
        if inputs.is_cuda:  # from pageable memory the copy would wait for the device
            other = other.pin_memory()
        other = other.to(inputs.device, non_blocking=True)
        if cut:
            inputs, share = self._paste(inputs, inputs[other], share, random)
        else:
            inputs = torch.lerp(inputs[other], inputs, share)
        shares = F.one_hot(targets, self.num_classes).to(torch.float32)
        return inputs, torch.lerp(shares[other], shares, share)

    @staticmethod
    def _paste(images: Tensor, others: Tensor, share: float, random: np.random.Generator) -> tuple[Tensor, float]:
        """Paste a box that covers 1 - share of the area, cut off at the border; the share is then what is left."""
        height, width = images.shape[-2:]
        size = np.sqrt(1 - share)
        y, x = random.integers(height), random.integers(width)
        top, bottom = np.clip([y - int(height * size) // 2, y + int(height * size) // 2], 0, height)
        left, right = np.clip([x - int(width * size) // 2, x + int(width * size) // 2], 0, width)
        images = images.clone()
        images[..., top:bottom, left:right] = others[..., top:bottom, left:right]
        return images, 1 - (bottom - top) * (right - left) / (height * width)
