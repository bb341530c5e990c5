"""Unstructured pruning: the smallest weights of the whole net become zeros (Han et al. 2015, section 3)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

from dlrun.errors import UserError

WEIGHTED = (nn.Linear, _ConvNd, nn.Embedding, nn.EmbeddingBag)


@dataclass(frozen=True)
class Zeros:
    """How many of the weights are zero."""

    layers: dict[str, float]  # name of the weight → share
    weights: float  # share of all of these
    parameters: float  # share of all parameters, biases and norms included


def weights(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """The weights of linear, convolutional, recurrent, attention and embedding layers, each once."""
    seen: set[int] = set()
    for prefix, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            counts = isinstance(module, WEIGHTED) and name == "weight"
            counts |= isinstance(module, nn.RNNBase) and name.startswith("weight_")
            counts |= isinstance(module, nn.MultiheadAttention) and name.endswith("proj_weight")
            if counts and id(parameter) not in seen:
                seen.add(id(parameter))
                yield f"{prefix}.{name}" if prefix else name, parameter


@torch.no_grad()
def prune(model: nn.Module, amount: float, again: bool = False) -> None:
    """Set the share `amount` of the weights to zero, in place: those of the smallest magnitude in the whole net.

    `again`: of the weights that aren't zero yet. Raises UserError if that is none.
    """
    found = [parameter for _, parameter in weights(model)]
    sizes = torch.cat([parameter.detach().abs().flatten() for parameter in found]) if found else torch.empty(0)
    zeros = int((sizes == 0).sum()) if again else 0
    count = round(amount * (len(sizes) - zeros))
    if count == 0:
        raise UserError(f"amount={amount}: removes none of {len(sizes) - zeros:,} weights; expected more")
    kept = torch.ones_like(sizes, dtype=torch.bool)
    kept[sizes.argsort(stable=True)[: zeros + count]] = False
    for parameter, part in zip(found, kept.split([p.numel() for p in found]), strict=True):
        parameter.mul_(part.view(parameter.shape))


@torch.no_grad()
def zeros_of(model: nn.Module) -> Zeros:
    """The sparsity of the weights, measured."""
    found = dict(weights(model))
    counts = {name: int((parameter == 0).sum()) for name, parameter in found.items()}
    parameters = list(model.parameters())
    total = sum(p.numel() for p in found.values())
    return Zeros(
        layers={name: counts[name] / parameter.numel() for name, parameter in found.items()},
        weights=sum(counts.values()) / max(total, 1),
        parameters=sum(int((p == 0).sum()) for p in parameters) / sum(p.numel() for p in parameters),
    )
