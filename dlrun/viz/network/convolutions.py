"""A network's convolutions, as it comes through them with one sample.

C channels, H×W places of a map, L steps of a text.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dlrun.errors import UserError
from dlrun.models.whitening import Whitening

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, Whitening)
NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)


@dataclass
class Call:
    """One call of a module, when it was done."""

    name: str
    module: nn.Module
    shape: tuple[int, ...]  # of its output, () if that is no tensor


@dataclass
class Stage:
    """A convolution, and the norms and activations that take nothing but what it gave."""

    name: str  # of the convolution
    last: str  # of the module whose output this is
    kinds: list[str]
    output: Tensor  # (1, C, H, W) or (1, C, L)

    @property
    def title(self) -> str:
        return f"{self.name}: {', '.join(self.kinds)}"


@torch.no_grad()
def record(network: nn.Module, inputs: Tensor) -> tuple[list[Call], list[Stage], Tensor]:
    """Every call in the order in which they were done, the stages among them, and the logits, of `inputs` (1, …)."""
    calls: list[Call] = []
    stages: list[Stage] = []
    newest: list[tuple[Tensor, int]] = []  # what the newest stage gave, itself: who takes it belongs to the stage
    overwrite_nothing(network)

    def hook(name: str, module: nn.Module, given: tuple[object, ...], output: object) -> None:
        shape = tuple(output.shape) if isinstance(output, Tensor) else ()
        calls.append(Call(name, module, shape))
        if not isinstance(output, Tensor):
            return
        kind = type(module).__name__
        if isinstance(module, CONVOLUTIONS):
            stages.append(Stage(name, name, [kind], output.detach().clone()))
        elif newest and output.ndim > 2 and _follows(module) and _untouched(given, *newest[0]):
            stages[-1].last, stages[-1].output = name, output.detach().clone()
            stages[-1].kinds.append(kind)
        else:
            return
        newest[:] = [(output, output._version)]

    handles = [
        module.register_forward_hook(lambda m, given, output, name=name: hook(name, m, given, output))
        for name, module in network.named_modules()
    ]
    try:
        logits = network(inputs)
    finally:
        for handle in handles:
            handle.remove()
    return calls, stages, logits


def overwrite_nothing(network: nn.Module) -> None:
    """Let each activation give memory of its own: what came before it is still to be looked at."""
    for module in network.modules():
        if getattr(module, "inplace", False) is True:
            module.inplace = False  # type: ignore[assignment]


def _untouched(given: tuple[object, ...], output: Tensor, version: int) -> bool:
    """Whether `output` is what a module was given, and nothing was added to it in place: a ResNet's residual, say."""
    return any(value is output for value in given) and output._version == version


def _follows(module: nn.Module) -> bool:
    """Whether it is a norm or an activation, torch's or timm's."""
    return isinstance(module, NORMS) or "activation" in type(module).__module__


def only_cuts_patches(network: nn.Module) -> bool:
    """Whether its one convolution has no overlap: that of a vision transformer."""
    found = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    return len(found) == 1 and found[0].stride == found[0].kernel_size and max(found[0].kernel_size) > 1


def require(network: nn.Module, model: str, kind: str) -> None:
    """Raise UserError if there is no convolution."""
    if not any(isinstance(module, CONVOLUTIONS) for module in network.modules()):
        raise UserError(
            f"plot {kind}: the model '{model}' has no convolution; train model=cnn, or look at another side of it: "
            f"{instead(network)}"
        )


def instead(network: nn.Module) -> str:
    """What there is to see of a network without convolutions."""
    attends = any("Attention" in type(module).__name__ or hasattr(module, "attend") for module in network.modules())
    return "dlrun plot attention, landscape" if attends else "dlrun plot filters (of pictures), landscape"
