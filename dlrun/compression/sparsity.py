"""What was pruned to zero stays zero while the rest is trained on."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dlrun.compression.unstructured import weights
from dlrun.errors import UserError


class Sparsity:
    """The zeros that `model` has among its weights now, to be held through a training.

    Raises UserError if it has none. A step of any optimizer may move them, by momentum or since Muon mixes rows; after
    it they are set back, so that averages and checkpoints have them, too.
    """

    def __init__(self, model: nn.Module):
        self.model = model
        # By name, since precision=bf16_weights gives the model other parameters.
        self.kept = {name: p.detach() != 0 for name, p in weights(model) if not bool(p.all())}
        if not self.kept:
            raise UserError("init_from: a pruned model goes on with its zeros, and these weights have none")
        self.pairs: tuple[list[Tensor], list[Tensor]] | None = None

    @torch.no_grad()
    def hold(self) -> None:
        """After a step: back to zero."""
        if self.pairs is None:
            live = [self.model.get_parameter(name).detach() for name in self.kept]  # the same memory
            self.pairs = live, [k.to(p.dtype) for p, k in zip(live, self.kept.values(), strict=True)]
        torch._foreach_mul_(*self.pairs)
