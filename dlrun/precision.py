"""Number formats of the forward pass and of the weights: fp32, tf32, bf16, fp16. fp32 is the base, and does nothing."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from dlrun.errors import UserError
from dlrun.registry import precisions
from dlrun.rounding import BF16Weights

log = logging.getLogger(__name__)


@precisions.register("fp32")
class Precision:
    """32-bit floats throughout."""

    name: ClassVar[str] = "fp32"
    scales = False  # whether gradients are scaled, and steps with infinite ones left out

    def __init__(self, device: torch.device):
        self.device = device
        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.allow_tf32 = False  # torch's default is True: convolutions with 10 bits of mantissa
        if type(self) is Precision and device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0):
            log.info("precision=fp32: in full; precision=tf32 or bf16 is several times as fast on this GPU")

    def adapt(self, model: nn.Module, optimizer: Optimizer, seed: int) -> Optimizer:
        """Give the model the parameters of this format; returns the optimizer that trains them."""
        return optimizer

    def autocast(self) -> AbstractContextManager[Any]:
        """Around the forward pass and the loss."""
        return nullcontext()

    def scale(self, loss: Tensor) -> Tensor:
        """The loss as `backward` should see it."""
        return loss

    def unscale(self, optimizer: Optimizer) -> None:
        """Make gradients what they are in fp32, before anything looks at them."""

    def step(self, optimizer: Optimizer) -> None:
        optimizer.step()

    def discard(self) -> None:
        """There will be no `step` with the gradients that were unscaled."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The other way round."""


@precisions.register("tf32")
class TF32(Precision):
    """fp32 with matrix products in TensorFloat-32 (NVIDIA Ampere and later)."""

    def __init__(self, device: torch.device):
        super().__init__(device)
        if device.type != "cuda" or torch.cuda.get_device_capability(device) < (8, 0):
            raise UserError(
                f"precision: tf32 needs an NVIDIA GPU of compute capability 8.0 or later, got {_name(device)}"
            )
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.allow_tf32 = True


@precisions.register("bf16")
class BF16(Precision):
    """Forward pass in bfloat16 by autocast; weights and updates stay fp32, no scaling needed."""

    name = "bf16"

    def __init__(self, device: torch.device):
        super().__init__(device)
        if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
            raise UserError(f"precision: {self.name} isn't supported by {_name(device)}; take fp16 or fp32")
        if device.type == "cpu" and not cpu_has("avx512_bf16", "amx_bf16", "bf16"):
            log.warning(
                "precision=%s: this CPU has no native bfloat16; expect 6 to 12 times the time of fp32", self.name
            )

    def autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, torch.bfloat16)


@precisions.register("bf16_weights")
class BF16Parameters(BF16):
    """bf16, with weights and their gradients in bfloat16 too; norms, biases and optimizer state stay fp32.

    `update` is "master" (an fp32 copy of each weight) or "stochastic" (rounded up or down by chance, no copies: with
    Adam 12 bytes per weight instead of 16). Gradients that are accumulated over micro-batches add up in bfloat16.
    """

    name = "bf16_weights"

    def __init__(self, device: torch.device, *, update: Literal["master", "stochastic"] = "master"):
        super().__init__(device)
        self.update = update

    def adapt(self, model: nn.Module, optimizer: Optimizer, seed: int) -> Optimizer:
        return BF16Weights(model, optimizer, self.update, seed)


@precisions.register("fp16")
class FP16(Precision):
    """Forward pass in float16 by autocast, with gradient scaling; unscaled before clipping."""

    scales = True

    def __init__(self, device: torch.device):
        super().__init__(device)
        if device.type == "mps":
            raise UserError("precision: fp16 with gradient scaling isn't supported on mps; take bf16 or fp32")
        if device.type == "cpu" and not cpu_has("avx512_fp16", "amx_fp16", "fphp"):
            log.warning("precision=fp16: this CPU has no native float16; expect several times the time of fp32")
        self.scaler = torch.amp.GradScaler(device.type)

    def autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, torch.float16)

    def scale(self, loss: Tensor) -> Tensor:
        return self.scaler.scale(loss)

    def unscale(self, optimizer: Optimizer) -> None:
        self.scaler.unscale_(optimizer)

    def step(self, optimizer: Optimizer) -> None:
        self.scaler.step(optimizer)
        self.scaler.update()

    def discard(self) -> None:
        # torch takes one `unscale_` per update; the scale stays what it is, since it isn't to blame.
        self.scaler.update(self.scaler.get_scale())

    def state_dict(self) -> dict[str, Any]:
        return self.scaler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.scaler.load_state_dict(state)


def cpu_has(*flags: str) -> bool:
    """Whether Linux names one of `flags` among the processor's; unknown elsewhere, and then taken as no."""
    try:
        with open("/proc/cpuinfo") as file:
            line = next(line for line in file if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        return False
    return not set(flags).isdisjoint(line.split())


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
