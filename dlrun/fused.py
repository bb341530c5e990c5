"""torch's fused Adam, AdamW and SGD, with their kernels called directly.

What `torch.optim` does around the kernel in each step (collecting lists, grouping by device, hooks, a profiler's label)
costs more than the kernel itself for a small net: 47 µs of a 180 µs step. The lists never change, so they are collected
once. Everything else, the state and its names above all, is torch's own; so is the step wherever it is a special one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim import SGD, Adam

from dlrun.eager import Eager

Lists = tuple[list[Tensor], ...]


class _Direct(Eager):
    """A fused optimizer of torch whose step is `_kernel` on each group."""

    state_names: ClassVar[tuple[str, ...]]
    lists: list[Lists] | None = None  # per group: its parameters, then each kind of state

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step; raises what torch's own raises."""
        gradients = None if closure is not None else self._gradients()
        if gradients is None:
            self._begin()
            return super().step(closure)
        for group, (parameters, *states), grads in zip(self.param_groups, self.lists or [], gradients, strict=True):
            self._kernel(group, parameters, grads, *states)
        return None

    # torch would wrap it otherwise, for hooks that nobody has registered.
    step.hooked = True  # type: ignore[attr-defined]

    def _begin(self) -> None:
        """Before a step of torch's own: make the state that torch wouldn't make well."""

    def _gradients(self) -> list[list[Tensor]] | None:
        """All gradients by group, or None if this step isn't a plain one."""
        if getattr(self, "grad_scale", None) is not None or getattr(self, "found_inf", None) is not None:
            return None  # under gradient scaling the kernel takes a part in it
        if self.lists is None:
            self.lists = self._collected()
        if not self.lists:
            self.lists = None
            return None
        gradients = [[p.grad for p in parameters] for parameters, *_ in self.lists]
        if any(gradient is None for grads in gradients for gradient in grads):
            return None
        return gradients  # type: ignore[return-value]

    def _collected(self) -> list[Lists]:
        """Nothing before the first step, which makes the state, nor where devices or types are mixed."""
        parameters = [p for group in self.param_groups for p in group["params"]]
        if len({(p.device, p.dtype) for p in parameters}) != 1:
            return []
        try:
            return [
                (
                    group["params"],
                    *([self.state.get(p, {})[name] for p in group["params"]] for name in self._names(group)),
                )
                for group in self.param_groups
            ]
        except KeyError:
            return []

    def _names(self, group: dict[str, Any]) -> Sequence[str]:
        return self.state_names

    def _kernel(self, group: dict[str, Any], parameters: list[Tensor], grads: list[Tensor], *states: Any) -> None:
        raise NotImplementedError

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.lists = None

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        super().add_param_group(param_group)
        self.lists = None


class FusedAdam(_Direct, Adam):
    """Adam, or AdamW with `decoupled_weight_decay`."""

    state_names = ("step", "exp_avg", "exp_avg_sq")

    def _names(self, group: dict[str, Any]) -> Sequence[str]:
        return (*self.state_names, "max_exp_avg_sq") if group["amsgrad"] else self.state_names

    def _kernel(
        self,
        group: dict[str, Any],
        parameters: list[Tensor],
        grads: list[Tensor],
        steps: list[Tensor],
        averages: list[Tensor],
        squares: list[Tensor],
        maxima: list[Tensor] | None = None,
    ) -> None:
        torch._foreach_add_(steps, 1)
        kernel = torch._fused_adamw_ if group["decoupled_weight_decay"] else torch._fused_adam_
        kernel(
            *(parameters, grads, averages, squares, maxima or [], steps),
            amsgrad=group["amsgrad"],
            lr=group["lr"],
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )


class FusedSGD(_Direct, SGD):
    """SGD with momentum; without it there is no state to collect, and the step is torch's."""

    state_names = ("momentum_buffer",)

    def _begin(self) -> None:
        # Momentum from zero: the first step is the same. torch leaves the buffer as it finds the memory where gradient
        # scaling skips that step, and fails on a parameter that has its first gradient later than others.
        for group in self.param_groups:
            for parameter in group["params"] if group["momentum"] else ():
                if parameter.grad is not None and self.state[parameter].get("momentum_buffer") is None:
                    self.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)

    def _kernel(
        self, group: dict[str, Any], parameters: list[Tensor], grads: list[Tensor], momentum: list[Tensor]
    ) -> None:
        torch._fused_sgd_(
            *(parameters, grads, momentum),
            weight_decay=group["weight_decay"],
            momentum=group["momentum"],
            lr=group["lr"],
            dampening=group["dampening"],
            nesterov=group["nesterov"],
            maximize=False,
            is_first_step=False,
        )
