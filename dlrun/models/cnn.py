"""Convolutional network: convolution, batch norm, ReLU, max-pool, and again."""

from __future__ import annotations

import math
from typing import Annotated

import torch
import torch.nn.functional as F
from annotated_types import MinLen
from torch import Tensor, nn

from dlrun.errors import OptionError
from dlrun.models.embedding import word_embedding
from dlrun.models.refusal import refuse
from dlrun.registry import Count, Fraction, models
from dlrun.spec import PAD, DataSpec

LARGEST_MAP = 8  # a larger last feature map is averaged down: on 224×224 the hidden layer would have 51 million weights


@models.register("cnn")
def cnn(
    spec: DataSpec,
    *,
    channels: Annotated[list[Count], MinLen(1)] = [32, 64, 128],
    kernel_size: Count = 3,
    hidden_size: Count = 512,
    dropout: Fraction = 0.5,
) -> nn.Module:
    """Convolution blocks (batch norm, ReLU, max-pool), then a hidden layer with dropout; 1-D over words on text.

    Takes images (B, C, H, W) of any size, or texts (B, L), whose words are embedded in channels[0] numbers; gives
    logits (B, outputs).
    """
    if kernel_size % 2 == 0:
        raise OptionError("kernel_size", f"expected an odd number, so that a block keeps the size, got {kernel_size}")
    if spec.modality == "tabular":
        raise refuse(spec, "cnn", "images and text", "perceptron or mlp")
    if spec.modality == "text":
        return TextCNN(spec, channels, kernel_size, hidden_size, dropout)
    features: list[nn.Module] = []
    in_channels, height, width = spec.shape
    for out_channels in channels:
        features += [
            nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(),
        ]
        # A side of one pixel can't be halved; the other one still can.
        pool = (2 if height > 1 else 1, 2 if width > 1 else 1)
        if pool != (1, 1):
            features.append(nn.MaxPool2d(pool))
        in_channels, height, width = out_channels, height // pool[0], width // pool[1]
    shrink = (math.ceil(height / LARGEST_MAP), math.ceil(width / LARGEST_MAP))
    if shrink != (1, 1):
        features.append(nn.AvgPool2d(shrink))
        height, width = height // shrink[0], width // shrink[1]
    return nn.Sequential(
        nn.Sequential(*features),
        nn.Flatten(),
        _head(in_channels * height * width, hidden_size, dropout, spec.num_outputs),
    )


class TextCNN(nn.Module):
    """Convolutions over embedded words and the maximum over time (Kim 2014); padding has no say."""

    def __init__(self, spec: DataSpec, channels: list[int], kernel_size: int, hidden_size: int, dropout: float):
        super().__init__()
        self.embedding = word_embedding(spec.vocab_size, channels[0])
        widths = [channels[0], *channels]
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv1d(before, after, kernel_size, padding=kernel_size // 2), nn.BatchNorm1d(after), nn.ReLU()
            )
            for before, after in zip(widths, channels, strict=False)
        )
        self.pool = nn.MaxPool1d(2, ceil_mode=True)
        self.head = _head(channels[-1], hidden_size, dropout, spec.num_outputs)

    def forward(self, tokens: Tensor) -> Tensor:  # (B, L) → (B, outputs)
        valid = (tokens != PAD).unsqueeze(1).to(self.embedding.weight.dtype)  # (B, 1, L)
        x = self.embedding(tokens).transpose(1, 2)  # (B, E, L)
        if torch.compiler.is_exporting():  # which asks whether it is contiguous, and then refuses texts of one word
            x = x.clone(memory_format=torch.contiguous_format)
        for block in self.blocks:
            # After a ReLU nothing is below zero, so a padded step at zero never wins a maximum.
            x = self._halve(block(x) * valid)  # (B, C, ⌈L/2⌉)
            valid = self._halve(valid)
        return self.head(x.amax(dim=2))

    def _halve(self, x: Tensor) -> Tensor:
        if torch.compiler.is_exporting():  # which keeps no length open for MaxPool1d, nor for one that rounds up
            return F.max_pool2d(F.pad(x, (0, 1)).unsqueeze(2), (1, 2)).squeeze(2)
        return self.pool(x)


def _head(width: int, hidden_size: int, dropout: float, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(width, hidden_size), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden_size, outputs))
