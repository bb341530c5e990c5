"""Which parameters decay and which don't, and what follows from it: groups, rates of their own for biases, L1."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from dlrun.errors import UserError

Groups = list[dict[str, Any]]


def parameter_groups(model: nn.Module, weight_decay: float) -> Groups:
    """Two groups: matrices and kernels, which decay, and biases, norms, embeddings and tokens, which don't."""
    decay, rest = shared_out(model)
    groups = [{"params": decay, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def set_biases(optimizer: Optimizer, model: nn.Module, lr_scale: float, weight_decay: float) -> None:
    """Give what doesn't decay (biases, norms, embeddings) another learning rate, by a factor, and a decay of its own.

    Raises UserError if the model has nothing of the kind.
    """
    if lr_scale == 1 and weight_decay == 0:
        return
    chosen = {id(p) for p in shared_out(model)[1]}
    groups = [group for group in optimizer.param_groups if all(id(p) in chosen for p in group["params"])]
    if not groups:
        key = f"bias_lr_scale: {lr_scale}" if lr_scale != 1 else f"bias_weight_decay: {weight_decay}"
        raise UserError(f"optimizer.{key} does nothing: this model has no biases, norms or embeddings")
    for group in groups:
        group["lr"] *= lr_scale
        group["weight_decay"] = weight_decay


def shared_out(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """What decays, and what doesn't.

    Raises AssertionError unless every trainable parameter lands in exactly one of the two.
    """
    embeddings = {
        id(p)
        for m in model.modules()
        if isinstance(m, (nn.Embedding, nn.EmbeddingBag))
        for p in m.parameters(recurse=False)
    }
    # Positions, class tokens, layer scales and biases with more than one dimension: none of them is called a weight.
    embeddings |= {id(p) for name, p in model.named_parameters() if "weight" not in name.rpartition(".")[2]}
    trainable = [p for p in model.parameters() if p.requires_grad]
    decay = [p for p in trainable if p.ndim >= 2 and id(p) not in embeddings]
    rest = [p for p in trainable if p.ndim < 2 or id(p) in embeddings]
    assert len(decay) + len(rest) == len(trainable)
    return decay, rest


class L1:
    """The gradient of `weight` · Σ|w| over the weights that decay."""

    def __init__(self, optimizer: Optimizer, weight: float, model: nn.Module):
        chosen = {id(p) for g in parameter_groups(model, 1.0) if g["weight_decay"] for p in g["params"]}
        self.parameters = [p for g in optimizer.param_groups for p in g["params"] if id(p) in chosen]
        self.weight = weight
        if not self.parameters:
            raise UserError("optimizer.l1: this model has no weights that decay, only biases, norms and embeddings")

    @torch.no_grad()
    def add_gradient(self) -> None:
        parameters = [p for p in self.parameters if p.grad is not None]
        gradients = [p.grad for p in parameters]
        if not parameters:  # all of them frozen, for now
            return
        torch._foreach_add_(gradients, torch._foreach_sign(parameters), alpha=self.weight)  # type: ignore[arg-type]
