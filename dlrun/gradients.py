"""Gradients: from batches to sums over an optimizer step, their length, and clipping."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dlrun.groups import L1
from dlrun.precision import Precision
from dlrun.tasks import Classification

Phase = Callable[[str], AbstractContextManager[Any]]


@dataclass
class Gradients:
    """The gradients of `parameters`, which `model` and `task` make and the optimizer takes."""

    model: nn.Module
    parameters: list[nn.Parameter]
    task: Classification
    precision: Precision
    clip_norm: float | None = None
    l1: L1 | None = None

    def __post_init__(self) -> None:
        self.loss: Tensor
        self.correct: Tensor
        self.begun = False  # whether they hold something of this step already
        self.clear()

    def add(self, inputs: Tensor, targets: Tensor, samples: int, parts: int, phase: Phase) -> None:
        """Forward and backward pass of one micro-batch. Adds to the sums of `loss` and of right answers, too.

        What is differentiated is the sum of the losses divided by `samples`, the number of them in the optimizer step,
        so that gradients add up however the batch is cut, also in `parts` where memory asks for it.
        """
        if parts > 1:
            parts = min(parts, len(inputs) // 2)  # batch norm can't train on one sample
        if parts <= 1:
            self._add(inputs, targets, samples, phase)
            return
        for pair in zip(inputs.tensor_split(parts), targets.tensor_split(parts), strict=True):
            self._add(*pair, samples, phase)

    def _add(self, inputs: Tensor, targets: Tensor, samples: int, phase: Phase) -> None:
        with phase("forward"), self.precision.autocast():
            logits = self.model(inputs)
            loss = self.task.loss(logits, targets)
        with phase("backward"):
            self.precision.scale(loss / samples).backward()
        loss, correct = loss.detach(), self.task.correct(logits.detach(), targets)
        if self.begun:
            loss, correct = self.loss + loss, self.correct + correct
        self.loss, self.correct, self.begun = loss, correct, True

    def norm(self) -> Tensor:
        """The length of all gradients together, a scalar; call once per step, before `clip`."""
        if self.l1 is not None:
            self.l1.add_gradient()
        self.there: list[Tensor] = [p.grad for p in self.parameters if p.grad is not None]
        return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(self.there)))

    def clip(self, norm: Tensor) -> None:
        """Scale the gradients so that their length is at most `clip_norm` (Pascanu et al. 2013)."""
        # On a CPU one can look; what would be multiplied by 1 is left alone.
        if self.clip_norm is None or (norm.device.type == "cpu" and norm.item() + 1e-6 < self.clip_norm):
            return
        torch._foreach_mul_(self.there, (self.clip_norm / (norm + 1e-6)).clamp(max=1.0))

    def clear(self) -> None:
        """Begin the next step."""
        self.there = []
        self.begun = False
        for parameter in self.parameters:
            parameter.grad = None
