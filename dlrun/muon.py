"""Muon for matrices and for kernels of convolutions, which torch's own doesn't take.

The momentum of each is orthogonalised: its singular values all become about 1, so that no direction is learned much
faster than another (Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks"). A kernel is the
matrix (outputs, inputs · height · width).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from dlrun.eager import Eager

COEFFICIENTS = 3.4445, -4.7750, 2.0315  # the steepest at 0: small singular values grow fast, 1 is kept only roughly
EPS = 1e-7


def orthogonalized(matrix: Tensor, steps: int) -> Tensor:
    """(n, m) of any type → U S Vᵀ in bfloat16 with singular values S around 1, where the matrix is U Σ Vᵀ.

    By a Newton-Schulz iteration of fifth order, in which a product of the smaller of the two sizes is formed.
    """
    a, b, c = COEFFICIENTS
    x = matrix.to(torch.bfloat16, copy=True)
    tall = len(x) > x.shape[1]
    x = x.T if tall else x
    x.div_(x.norm().clamp(min=EPS))  # no singular value is larger than this norm
    for _ in range(steps):
        square = x @ x.T
        x = torch.addmm(x, torch.addmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return x.T if tall else x


class Muon(Eager):
    """torch.optim.Muon, for parameters of two dimensions or more.

    With `normalize` each is brought to the norm √outputs, an average of 1 per row, before it is moved, so that `lr` is
    the angle it turns by; `weight_decay` would then do nothing.
    """

    def __init__(
        self,
        params: Any,
        lr: float,
        *,
        weight_decay: float,
        momentum: float,
        nesterov: bool,
        ns_steps: int,
        normalize: bool = False,
    ):
        defaults = {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "nesterov": nesterov}
        super().__init__(params, defaults | {"ns_steps": ns_steps, "normalize": normalize})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = closure() if closure is not None else None
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if parameters:
                self._step(group, parameters, [p.grad for p in parameters])
        return loss

    def _step(self, group: dict[str, Any], parameters: list[Tensor], gradients: list[Tensor]) -> None:
        momentum, buffers = group["momentum"], [self._buffer(p) for p in parameters]
        torch._foreach_lerp_(buffers, gradients, 1 - momentum)
        updates = list(torch._foreach_lerp(gradients, buffers, momentum)) if group["nesterov"] else buffers
        if group["normalize"]:
            norms = torch._foreach_norm(parameters)
            torch._foreach_mul_(
                parameters, [math.sqrt(len(p)) / norm for p, norm in zip(parameters, norms, strict=True)]
            )
        elif group["weight_decay"]:
            torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
        for parameter, update in zip(parameters, updates, strict=True):
            matrix = update.flatten(1)
            # As much per row for a tall matrix, whose columns are orthogonal, as for a wide one.
            rate = group["lr"] * math.sqrt(max(1.0, len(matrix) / matrix.shape[1]))
            parameter.add_(orthogonalized(matrix, group["ns_steps"]).view(parameter.shape), alpha=-rate)

    def _buffer(self, parameter: Tensor) -> Tensor:
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        buffer: Tensor = state["momentum_buffer"]
        return buffer
