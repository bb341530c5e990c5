"""A moving average of the weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class EMA:
    """An exponential moving average of the weights: after each step, average = decay · average + (1 - decay) · weight.

    The decay starts low and rises to its value, (1 + t) / (10 + t), so that the random start is soon forgotten (as in
    TensorFlow's ExponentialMovingAverage). Buffers, such as batch norm's statistics, are the model's own. The average
    of a bfloat16 weight is fp32, or what is new would be lost in rounding.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.decay, self.steps = decay, 0
        names, live = zip(*model.named_parameters(), strict=True)
        self.names: list[str] = list(names)
        self.live: list[Tensor] = [parameter.detach() for parameter in live]  # the same memory
        self.average = [p.float() if p.dtype == torch.bfloat16 else p.clone() for p in self.live]
        self.low = any(p.dtype == torch.bfloat16 for p in self.live)
        self.aside: dict[int, Tensor] = {}  # while the model has the averages: those that it has rounded

    def update(self) -> None:
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        live = [weight.float() for weight in self.live] if self.low else self.live
        torch._foreach_lerp_(self.average, live, 1 - decay)

    def swap(self) -> None:
        """Exchange the model's weights and the average; twice is nothing."""
        for i, (live, average) in enumerate(zip(self.live, self.average, strict=True)):
            kept = live.clone()
            live.copy_(average)
            if i in self.aside:
                self.average[i] = self.aside.pop(i)
            elif live.dtype == average.dtype:
                average.copy_(kept)
            else:  # the model has it rounded, so it can't come back from there
                self.aside[i], self.average[i] = average, kept

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps, "average": list(self.average), "names": list(self.names)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps = state["steps"]
        # Older files have the buffers, too, after the parameters.
        for average, saved in zip(self.average, state["average"], strict=False):
            average.copy_(saved)
