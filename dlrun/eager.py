"""torch's optimizers without what they do in case somebody compiles them.

Their methods import `torch._dynamo` when they are first called, which takes as long as `import torch` itself, and go
through it at every call after that. dlrun compiles models, never an optimizer's step.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache
from typing import TypeVar

import torch
from torch.optim import Optimizer

Kind = TypeVar("Kind", bound=Optimizer)


class Eager(Optimizer):
    """What torch's decorators wrap: a base to stand before a torch optimizer. What isn't wrapped is taken as it is."""

    add_param_group = inspect.unwrap(Optimizer.add_param_group)
    zero_grad = inspect.unwrap(Optimizer.zero_grad)
    state_dict = inspect.unwrap(Optimizer.state_dict)
    load_state_dict = inspect.unwrap(Optimizer.load_state_dict)

    @torch.no_grad()  # all that is left of the wrapping; hooks and the profiler's label `__init__` puts around it
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        return inspect.unwrap(super().step)(self, closure)  # type: ignore[safe-super, call-arg, arg-type]


@cache
def eager(kind: type[Kind]) -> type[Kind]:
    """One of torch's optimizers, under its own name."""
    return type(kind.__name__, (Eager, kind), {"__doc__": kind.__doc__})
