"""What a model takes from the data before its first step."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from dlrun.data.source import Split

NUMBERS = 5000 * 3 * 32 * 32  # that are looked at: 5,000 pictures of CIFAR's size, fewer of larger ones


@runtime_checkable
class StartsFromData(Protocol):
    """A module whose start depends on training samples. It keeps what it learns from them in its state dict."""

    def initialize_from(self, inputs: Tensor) -> None:
        """Called once, before the first step, with a batch as the model gets it, not augmented."""


def initialize_from_data(
    model: nn.Module, train: Split, prepare: Callable[[Tensor], Tensor], taken: Collection[str] = ()
) -> None:
    """Show training samples to each module that wants to see some, unless tensors of it are `taken` from elsewhere.

    The samples are spread over the split, so that one that is sorted by class shows all of them.
    """
    wanting: list[StartsFromData] = []
    for name, module in model.named_modules():
        known = any(f"{name}.{tensor}".lstrip(".") in taken for tensor in module.state_dict())
        if isinstance(module, StartsFromData) and not known:
            wanting.append(module)
    if not wanting:
        return
    size = math.prod(train.fetch(torch.tensor([0])).shape)
    indices = torch.linspace(0, len(train) - 1, max(1, min(len(train), NUMBERS // size))).long()
    inputs = prepare(train.fetch(indices))
    for module in wanting:
        module.initialize_from(inputs)
