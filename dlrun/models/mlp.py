"""Multi-layer perceptron."""

from __future__ import annotations

import math
from typing import Annotated

import torch
import torch.nn.functional as F
from annotated_types import MinLen
from torch import Tensor, nn

from dlrun.errors import OptionError, choices
from dlrun.models.embedding import start_small
from dlrun.registry import Count, Fraction, models
from dlrun.spec import PAD, DataSpec

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "selu": nn.SELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "mish": nn.Mish,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}


@models.register("mlp")
def mlp(
    spec: DataSpec,
    *,
    hidden_sizes: Annotated[list[Count], MinLen(1)] = [512, 256, 128],
    dropout: Fraction = 0.3,
    activation: str = "relu",
    batch_norm: bool = False,
) -> nn.Module:
    """Hidden layers of any number and width, with dropout and optional batch norm.

    Takes images (B, C, H, W) and table rows (B, F) flattened, and texts (B, L) as the average of their words; gives
    logits (B, outputs).
    """
    if activation not in ACTIVATIONS:
        raise OptionError("activation", f"unknown activation '{activation}'{choices(activation, ACTIVATIONS)}")
    layers = first_layer(spec, hidden_sizes[0])
    for place, width in enumerate(hidden_sizes):
        if place > 0:
            layers.append(nn.Linear(hidden_sizes[place - 1], width))
        if batch_norm:
            layers.append(nn.BatchNorm1d(width))
        layers += [ACTIVATIONS[activation](), nn.Dropout(dropout)]
    return nn.Sequential(*layers, nn.Linear(hidden_sizes[-1], spec.num_outputs))


def first_layer(spec: DataSpec, width: int) -> list[nn.Module]:
    """A linear layer on whatever comes in, as modules for a Sequential."""
    if spec.modality == "text":
        return [WordLinear(spec.vocab_size, width)]
    return [nn.Flatten(), nn.Linear(math.prod(spec.shape), width)]


class WordLinear(nn.Module):
    """A linear layer on a text's word frequencies: looks rows up instead of multiplying by a vector of zeros."""

    def __init__(self, vocab_size: int, width: int):
        super().__init__()
        self.words = nn.EmbeddingBag(vocab_size, width, mode="mean", padding_idx=PAD)
        start_small(self.words)
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, tokens: Tensor) -> Tensor:  # (B, L) → (B, width)
        if torch.compiler.is_exporting():  # ONNX knows no bags, and would loop over the texts
            valid = (tokens != PAD).unsqueeze(-1).to(self.bias.dtype)  # (B, L, 1)
            vectors = F.embedding(tokens, self.words.weight) * valid
            return vectors.sum(dim=1) / valid.sum(dim=1).clamp_min(1) + self.bias
        return self.words(tokens) + self.bias
