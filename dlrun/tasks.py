"""A task: from a batch to a loss and to sums that metrics are made of.

A metric is a sum and a count until it is printed, so uneven batches change nothing. Regression, multi-label or language
modelling come in here as further builders.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from annotated_types import Ge, MinLen
from torch import Tensor

from dlrun.errors import OptionError
from dlrun.registry import Fraction, tasks
from dlrun.scoring import ranks
from dlrun.spec import DataSpec


@tasks.register("classification")
class Classification:
    """One class of several: cross-entropy and accuracy.

    `class_weights` is null, "balanced" (by the train split's counts) or a weight per class. Weights are scaled to a
    mean of 1 over the train split and the loss is divided by the number of samples, so that gradients add up exactly
    over micro-batches; torch's own weighted mean depends on what else is in the batch.
    """

    metrics: ClassVar[dict[str, Literal["min", "max"]]] = {"loss": "min", "acc": "max"}  # name → which way is better

    def __init__(
        self,
        spec: DataSpec,
        class_counts: Tensor,
        *,
        label_smoothing: Fraction = 0.0,
        class_weights: Literal["balanced"] | Annotated[list[Annotated[float, Ge(0)]], MinLen(2)] | None = None,
    ):
        self.label_smoothing = label_smoothing
        self.class_weights: Tensor | None = None
        if class_weights is not None:
            if class_weights == "balanced":
                weights = 1 / class_counts.clamp_min(1).double()
            elif len(class_weights) != spec.num_outputs:
                raise OptionError("class_weights", f"expected {spec.num_outputs} weights, got {len(class_weights)}")
            else:
                weights = torch.tensor(class_weights, dtype=torch.float64)
            mean = (weights * class_counts).sum() / class_counts.sum()
            if mean == 0:
                raise OptionError("class_weights", "every class of the train split has weight 0")
            self.class_weights = (weights / mean).float()

    def to(self, device: torch.device) -> Classification:
        """Move what the loss needs to the training device."""
        if self.class_weights is not None:
            self.class_weights = self.class_weights.to(device)
        return self

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Sum over the batch of what is trained on. logits (B, K); targets (B,) classes or (B, K) shares."""
        return F.cross_entropy(
            logits, targets, weight=self.class_weights, label_smoothing=self.label_smoothing, reduction="sum"
        )

    def correct(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Number of right answers in the batch; of mixed targets the larger share counts."""
        if targets.ndim == 2:
            targets = targets.argmax(dim=1)
        return (logits.argmax(dim=1) == targets).sum()

    def evaluate(self, logits: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Sums over the batch: plain cross-entropy (no smoothing, no weights) and right answers."""
        return {"loss": F.cross_entropy(logits.float(), targets, reduction="sum"), "acc": self.correct(logits, targets)}

    def predict(self, logits: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Per sample, for tables and pictures, on the CPU: probabilities (B, K), cross-entropy `losses` (B,), true
        classes `targets` (B,), answers `guesses` (B,), and how many classes come before the true one, `ranks` (B,).

        Answers and ranks are of the logits: probabilities of float32 can be equal where those aren't.
        """
        logits = logits.float()
        said = {
            "probabilities": logits.softmax(dim=1),
            "losses": F.cross_entropy(logits, targets, reduction="none"),
            "targets": targets,
            "guesses": logits.argmax(dim=1),
            "ranks": ranks(logits, targets),
        }
        return {name: value.cpu() for name, value in said.items()}
