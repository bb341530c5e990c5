"""Parameters in bfloat16 whose updates aren't lost in rounding.

bfloat16 has 8 bits of precision: added to a weight and rounded to the nearest, a change of less than 1/512 of it is no
change at all. Two ways out: an fp32 copy of each weight that is updated and copied down (Micikevicius et al. 2018,
"Mixed precision training"), or to round up or down by chance, so that the expected weight is the exact one (Gupta et
al. 2015, "Deep learning with limited numerical precision"; Zamirai et al. 2020, "Revisiting BFloat16 training").
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

BUCKET = 2**24  # elements that are in fp32 at a time: 64 MB of weights and as much of gradients
LOW = 0xFFFF  # the bits of an fp32 number that bfloat16 doesn't have


def rounded(exact: Tensor, noise: Tensor) -> Tensor:
    """fp32 rounded to bfloat16, up or down by chance: up with the probability of its fraction, exactly.

    `noise` is int32 from [0, 65536), of the same shape; where the cut bits and it carry over, the number is rounded
    away from zero. What bfloat16 can hold stays what it is, and so do infinities and NaN.
    """
    bits = (exact.view(torch.int32) + noise) & ~LOW
    return torch.where(exact.isfinite(), bits.view(torch.float32), exact).to(torch.bfloat16)


class BF16Weights(Optimizer):
    """`inner`, an optimizer of fp32 parameters, acting on a model whose parameters become bfloat16.

    What is converted: matrices, kernels and embeddings, and all of a recurrent layer, which wants one type. Norms and
    biases stay fp32. The state of `inner` is fp32. `update` is "master" (fp32 copies, held here and in checkpoints) or
    "stochastic" (no copies; the noise of a step depends on `seed` and its number alone, so that resuming is exact).
    """

    def __init__(self, model: nn.Module, inner: Optimizer, update: Literal["master", "stochastic"], seed: int):
        self.inner, self.keeps_copies, self.seed, self.steps = inner, update == "master", seed, 0
        self.pairs = list(_convert(model))  # of what the model has now, and what `inner` holds
        lowered = {id(exact) for _, exact in self.pairs}
        held = [p for group in inner.param_groups for p in group["params"]]
        missing = lowered - {id(p) for p in held}
        assert not missing, f"the optimizer has none of {len(missing)} parameters"
        self.others = [p for p in held if id(p) not in lowered]
        self.buckets = list(_buckets(self.pairs))
        super().__init__([{"params": held}], {})
        self.param_groups = inner.param_groups
        if not self.keeps_copies:
            for _, exact in self.pairs:
                exact.data = exact.new_empty(0)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """A step of `inner` for each bucket; it leaves alone what has no gradient, so all the others."""
        assert closure is None
        random = _generator(self.seed, self.steps, self.buckets[0][0][0].device) if self.buckets else None
        self.steps += 1
        for bucket in self.buckets:
            for weight, exact in bucket:
                if weight.grad is not None:
                    if not self.keeps_copies:
                        exact.data = weight.float()
                    exact.grad = weight.grad.float()
            self.inner.step()
            for weight, exact in bucket:
                if weight.grad is not None:
                    weight.copy_(exact if self.keeps_copies else rounded(exact, _noise(exact, random)))
                    exact.grad = None
                if not self.keeps_copies:
                    exact.data = exact.new_empty(0)
            for other in self.others:  # these have had their step
                other.grad = None
        if not self.buckets:
            self.inner.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        for parameter in (*(weight for weight, _ in self.pairs), *self.others):
            parameter.grad = None

    def state_dict(self) -> dict[str, Any]:
        copies = [exact.detach() for _, exact in self.pairs] if self.keeps_copies else None
        return {"inner": self.inner.state_dict(), "copies": copies, "steps": self.steps}

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if (state_dict["copies"] is not None) != self.keeps_copies:
            raise ValueError("the checkpoint has another precision.update")
        self.inner.load_state_dict(state_dict["inner"])
        self.param_groups = self.inner.param_groups
        self.steps = state_dict["steps"]
        for (_, exact), saved in zip(self.pairs, state_dict["copies"] or (), strict=self.keeps_copies):
            exact.copy_(saved)


def _convert(model: nn.Module) -> Iterator[tuple[nn.Parameter, nn.Parameter]]:
    """Give the model bfloat16 parameters; yields each that is trained, with the fp32 one it had."""
    made: dict[int, nn.Parameter] = {}  # tied parameters stay tied
    for module in model.modules():
        for name, exact in list(module.named_parameters(recurse=False, remove_duplicate=False)):
            if exact.dtype != torch.float32 or (exact.ndim < 2 and not isinstance(module, nn.RNNBase)):
                continue
            if id(exact) not in made:
                weight = nn.Parameter(exact.detach().to(torch.bfloat16), requires_grad=exact.requires_grad)
                made[id(exact)] = weight
                if exact.requires_grad:
                    yield weight, exact
            setattr(module, name, made[id(exact)])
        if isinstance(module, nn.RNNBase):
            module.flatten_parameters()


def _buckets(pairs: list[tuple[nn.Parameter, nn.Parameter]]) -> Iterator[list[tuple[nn.Parameter, nn.Parameter]]]:
    bucket: list[tuple[nn.Parameter, nn.Parameter]] = []
    for pair in pairs:
        if bucket and sum(weight.numel() for weight, _ in bucket) + pair[0].numel() > BUCKET:
            yield bucket
            bucket = []
        bucket.append(pair)
    if bucket:
        yield bucket


def _generator(seed: int, step: int, device: torch.device) -> torch.Generator:
    key = np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)
    return torch.Generator(device).manual_seed(int(key[0]) >> 1)


def _noise(exact: Tensor, random: torch.Generator | None) -> Tensor:
    return torch.empty_like(exact, dtype=torch.int32).random_(0, LOW + 1, generator=random)
