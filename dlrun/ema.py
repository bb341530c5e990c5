"""A moving average of the weights."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn


class EMA:
    """An exponential moving average of the weights: after each step, average = decay · average + (1 - decay) · weight.

    The decay starts low and rises to its value, (1 + t) / (10 + t), so that the random start is soon forgotten (as in
    TensorFlow's ExponentialMovingAverage). Buffers, such as batch norm's statistics, are copied.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.decay, self.steps = decay, 0
        self.names, self.live = zip(*_state_tensors(model), strict=True)
        self.average = [t.detach().clone() for t in self.live]
        self.floats = [i for i, t in enumerate(self.live) if isinstance(t, nn.Parameter)]
        self.others = [i for i, t in enumerate(self.live) if not isinstance(t, nn.Parameter)]

    @torch.no_grad()
    def update(self) -> None:
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        torch._foreach_lerp_([self.average[i] for i in self.floats], [self.live[i] for i in self.floats], 1 - decay)
        for i in self.others:
            self.average[i].copy_(self.live[i])

    @torch.no_grad()
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
        for average, saved in zip(self.average, state["average"], strict=True):
            average.copy_(saved)


def _state_tensors(model: nn.Module) -> Iterable[tuple[str, Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()
