"""Numbers that go wrong and memory that runs out: how they are noticed, and the way back to the step before."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from dlrun.data.loader import Batches
from dlrun.errors import TrainingError
from dlrun.progress import Limits


class NonFinite(Exception):
    """A loss or gradient that is NaN or infinite, met at optimizer step `step` (counted from 0)."""

    def __init__(self, step: int, loss: float, norm: float | None):
        self.step, self.loss, self.norm = step, loss, norm
        said = f"the training loss is {loss}" if not math.isfinite(loss) else f"the gradient's norm is {norm}"
        super().__init__(f"{said} at step {step + 1}")

    def record(self, batches: Batches, epoch: int, first: int, limits: Limits) -> dict[str, Any]:
        """For a replay: the step's micro-batches, from number `first` of `epoch` on, and the samples in them."""
        numbers = range(first, min(first + limits.accumulate, len(batches)))
        return {
            "epoch": epoch + 1,
            "step": self.step + 1,
            "batches": list(numbers),  # of the epoch, counted from 0
            "indices": [batches.indices(epoch, number).tolist() for number in numbers],  # into the train split
            "loss": str(self.loss),  # JSON has no NaN
            "grad_norm": str(self.norm),
        }


class Mark:
    """What a forward pass changes beside the gradients: batch norm's statistics and the random numbers drawn."""

    def __init__(self, model: nn.Module):
        self.buffers = list(model.buffers())
        self.kept = [b.clone() for b in self.buffers]
        self.on_cuda = any(p.is_cuda for p in model.parameters())

    def take(self) -> None:
        """This is the step boundary that `back` goes back to."""
        for kept, buffer in zip(self.kept, self.buffers, strict=True):
            kept.copy_(buffer)
        self.random = torch.get_rng_state()
        self.random_cuda = torch.cuda.get_rng_state() if self.on_cuda else None

    def back(self, random: bool) -> None:
        """Put the buffers back, and with `random` the generators too."""
        with torch.no_grad():
            for kept, buffer in zip(self.kept, self.buffers, strict=True):
                buffer.copy_(kept)
        if random:
            torch.set_rng_state(self.random)
            if self.random_cuda is not None:
                torch.cuda.set_rng_state(self.random_cuda)


def out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that memory ran out, on whatever device."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)


def no_room_for_a_batch(size: int, step: int) -> TrainingError:
    """Memory ran out before optimizer step `step`, in reading or augmenting."""
    return TrainingError(
        f"out of memory in preparing a batch of {size} samples at step {step + 1}; "
        "try a smaller data.batch_size with more trainer.accumulate_grad_batches"
    )


def overflow(step: int, epoch: int) -> TrainingError:
    """What torch says of a number that float32 can't hold, in our words."""
    where = f"step {step + 1} (epoch {epoch + 1})"
    return TrainingError(f"a weight's change overflows at {where}; try a lower optimizer.lr")


def free_memory(device: torch.device) -> None:
    """Give cached blocks back to the device."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    if device.type == "mps":
        torch.mps.empty_cache()
