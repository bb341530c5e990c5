"""torch.compile: what of a model is compiled, when, and what is said where it can't be.

Compiled is the training step on whole batches, before the first of them is trained on. An epoch's smaller last batch
and evaluation run the model as it is: each would be compiled for a size of its own, for a few calls an epoch. So which
code a batch runs through depends on its size alone, not on what came before it, and a resumed run repeats it.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dlrun.data.placement import Batch
from dlrun.errors import TrainingError, UserError
from dlrun.faults import Mark, free_memory, out_of_memory
from dlrun.precision import Precision
from dlrun.tasks import Classification

log = logging.getLogger("dlrun")

Region = Literal["auto", "model", "blocks"]
GRAPHS = ("reduce-overhead", "max-autotune")  # the modes that record CUDA graphs
MANY = 4  # blocks of one kind, from which on one of them is compiled instead of the whole model
LIMIT = 64  # variants of one function: blocks of a class may differ in width and stride


@dataclass(frozen=True)
class Compilation:
    """What `trainer.compile` asks for. Raises UserError for what the device or the training can't have."""

    mode: str  # torch.compile's
    region: Region
    device: torch.device
    varies: bool  # sizes beside the batch's do, from batch to batch
    halves: bool  # memory that runs out halves the micro-batch
    accumulates: bool

    def __post_init__(self) -> None:
        if self.mode not in GRAPHS:
            return
        if self.mode == "reduce-overhead" and self.device.type != "cuda":
            raise UserError(
                f"trainer.compile: reduce-overhead is CUDA graphs and nothing else, and the device is {self.device}; "
                "take true"
            )
        if self.device.type == "cuda" and (self.accumulates or self.halves):
            # The second backward pass overwrites what the first has left in .grad: pytorch#96693, pytorch#169545.
            other = "trainer.accumulate_grad_batches > 1" if self.accumulates else "trainer.on_oom=halve"
            raise UserError(
                f"trainer.compile: CUDA graphs ({self.mode}) lose gradients that are accumulated, and {other} does "
                "that; take max-autotune-no-cudagraphs or true"
            )


def asked(mode: bool | str, region: Region, device: torch.device, **training: bool) -> Compilation | None:
    """The compilation that the options ask for, None for none."""
    if mode is False and region != "auto":
        raise UserError(f"trainer.compile_region: {region} does nothing while trainer.compile is false; set it to auto")
    return None if mode is False else Compilation("default" if mode is True else str(mode), region, device, **training)


class Compiled(nn.Module):
    """Calls `model`, compiled in place where it trains on one of `sizes` samples, and as it is otherwise."""

    def __init__(self, model: nn.Module, sizes: set[int]):
        super().__init__()
        self.model, self.sizes = model, sizes

    def forward(self, inputs: Tensor) -> Tensor:
        if not self.training or len(inputs) not in self.sizes:
            with torch.compiler.set_stance("force_eager"):
                return self.model(inputs)
        try:
            return self.model(inputs)
        except torch._dynamo.exc.FailOnRecompileLimitHit as error:
            raise TrainingError(
                "trainer.compile: the model is another program from call to call and would be compiled for ever; "
                "go without: trainer.compile=false"
            ) from error
        except torch._dynamo.exc.TorchDynamoException as error:
            raise TrainingError(f"trainer.compile: {reason(error)}; go without: trainer.compile=false") from error


def compiled(model: nn.Module, how: Compilation, batch: Batch, task: Classification, precision: Precision) -> Compiled:
    """`model`, compiled in place for batches like `batch`; it keeps its state dict, weights and random numbers.

    Raises UserError if it can't be compiled.
    """
    # Otherwise it would go on uncompiled, without a word.
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    torch._dynamo.config.recompile_limit = LIMIT
    if how.device.type == "cpu":
        log.warning(
            "trainer.compile: on a CPU this takes 5 to 60 s before the first step, and most small models come out "
            "slower (an MLP 0.7, a transformer 0.6, a CNN 1.05 times as fast): compare samples/s"
        )
    parts, what = _parts(model, how.region)
    for part in parts:
        part.compile(mode=how.mode, dynamic=how.varies)
    whole = len(batch[0])
    shrinks = range(whole.bit_length()) if how.halves else range(1)
    result = Compiled(model, {size for k in shrinks for size in (whole >> k, -(-whole >> k)) if size > 1} | {whole})
    began, graphs = time.monotonic(), _graphs()
    _rehearse(result, batch, task, precision)
    seconds, graphs = time.monotonic() - began, _graphs() - graphs
    log.info("compiled %s in %.1f s (%d graph%s)", what, seconds, graphs, "" if graphs == 1 else "s")
    return result


def _rehearse(model: Compiled, batch: Batch, task: Classification, precision: Precision) -> None:
    """A forward and backward pass that leaves nothing behind but compiled code."""
    mark = Mark(model)
    mark.take()
    try:
        with precision.autocast():
            loss = task.loss(model.train()(batch[0]), batch[1])
        loss.backward()
    except TrainingError as error:  # nothing was trained yet
        raise UserError(str(error)) from error
    except RuntimeError as error:
        if not out_of_memory(error):  # which the first step will meet again, and can do something about
            raise
    for parameter in model.parameters():
        parameter.grad = None
    mark.back(random=True)
    free_memory(batch[0].device)


def reason(error: BaseException) -> str:
    """What stopped the compiler, in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = lines[0] if lines else type(error).__name__
    if "ompiler" in said and "found" in said:
        said = "there is no working C++ compiler; install one, such as g++"
    return said.rstrip(".:")


def _graphs() -> int:
    count: int = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    return count


def _parts(model: nn.Module, region: Region) -> tuple[list[nn.Module], str]:
    """The modules to compile, and what to call them."""
    found = blocks(model)
    if region == "blocks" and not found:
        raise UserError("trainer.compile_region: this model has no blocks that repeat; set it to auto or model")
    most = max(Counter(map(_kind, found)).values(), default=0)
    if region == "model" or (region == "auto" and most < MANY):
        return [model], "the model"
    names = " and ".join(sorted({type(block).__name__ for block in found}))
    return found, f"{len(found)} blocks ({names}) of {len(set(map(_kind, found)))} kind(s)"


def blocks(model: nn.Module) -> list[nn.Module]:
    """The outermost modules of which there are several of a kind, such as a transformer's layers."""
    counts = Counter(_kind(module) for module in model.modules() if _is_block(module))
    classes = {kind[0] for kind, count in counts.items() if count > 1}

    def found(module: nn.Module) -> list[nn.Module]:
        if type(module) in classes:
            return [module]
        return [block for child in module.children() for block in found(child)]

    return found(model)


def _is_block(module: nn.Module) -> bool:
    """Made of layers that have parameters, and more than a mere list of them."""
    plain = type(module) in (nn.Sequential, nn.ModuleList, nn.ModuleDict)
    return not plain and any(True for _ in module.children()) and any(True for _ in module.parameters())


def _kind(module: nn.Module) -> tuple[Any, ...]:
    """Modules of one kind run the same compiled code."""
    return type(module), *((name, parameter.shape) for name, parameter in module.named_parameters())
