"""A moving average of the weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class EMA:
    """An exponential moving average of the weights: after each step, average = decay · average + (1 - decay) · weight.

    The decay starts low and rises to its value, (1 + t) / (10 + t), so that the random start is soon forgotten (as in
    TensorFlow's ExponentialMovingAverage). Buffers, such as batch norm's statistics, are the model's own.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.decay, self.steps = decay, 0
        names, live = zip(*model.named_parameters(), strict=True)
        self.names: list[str] = list(names)
        self.live: list[Tensor] = [parameter.detach() for parameter in live]  # the same memory
        self.average = [parameter.clone() for parameter in self.live]

    def update(self) -> None:
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        torch._foreach_lerp_(self.average, self.live, 1 - decay)

    def swap(self) -> None:
        """Exchange the model's weights and the average; twice is nothing."""
        for live, average in zip(self.live, self.average, strict=True):
            kept = live.clone()
            live.copy_(average)
            average.copy_(kept)

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps, "average": list(self.average), "names": list(self.names)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps = state["steps"]
        # Older files have the buffers, too, after the parameters.
        for average, saved in zip(self.average, state["average"], strict=False):
            average.copy_(saved)
