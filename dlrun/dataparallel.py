"""Data parallelism: each process takes its part of every batch, and all of them take the same step.

The gradient of a step is a sum over its samples, divided by their number (`Gradients.add`), so the sum of what the
processes have is the gradient that one process would have. It travels in one flat buffer, after the last micro-batch
of the step, and with it whatever else has to be the same everywhere: batch norm's statistics, the loss, and the news.
Those are what a decision may depend on beside the training's own numbers: the time, a signal, a disk that is busy.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dlrun.distributed import Ranks
from dlrun.errors import TrainingError
from dlrun.gradients import Gradients, Phase
from dlrun.runfolder import RunFolder
from dlrun.writer import CheckpointWriter

LAG = 2  # steps that news from a GPU is old: nobody waits for the device then
TOLD = 5  # numbers behind the gradients and the statistics: loss, right answers, and the news
NEWS = 3  # of these: whether to stop, whether the disk is busy, the time


class SharedGradients(Gradients):
    """Those of this process's samples, until `DataParallel.reduce` makes them everybody's."""

    own = 0  # samples of the step so far that were this process's

    def add(self, inputs: Tensor, targets: Tensor, samples: int, parts: int, phase: Phase) -> None:
        if len(inputs):
            self.own += len(inputs)
            super().add(inputs, targets, samples, parts, phase)

    def clear(self) -> None:
        super().clear()
        self.own = 0


class DataParallel:
    """What the processes of a training share, seen from one of them: `model` is the same in all, to the bit.

    Batch norm normalises by each process's samples alone; its running statistics are the means over the processes, by
    their samples. Numbers that a model draws, for dropout, depend on (seed, rank, step), but on rank 0, whose stream
    goes on from step to step, as that of one process.
    """

    def __init__(self, ranks: Ranks, model: nn.Module, seed: int):
        self.ranks, self.model, self.seed = ranks, model, seed
        norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._NormBase)]
        self.statistics: list[Tensor] = [
            tensor for norm in norms for tensor in (norm.running_mean, norm.running_var) if tensor is not None
        ]
        self.asked = False  # whether this process was asked to stop
        self.stop = self.busy = False  # whether any was; whether rank 0 still writes a checkpoint: news, as `now` is
        self.now, self.zero = 0.0, time.monotonic()
        self.writes: Callable[[], bool] = lambda: False
        self.trains: list[bool] = []  # which parameters the buffer is for
        self.waiting: deque[tuple[Tensor, torch.cuda.Event]] = deque()

    def begin(self, step: int, averages: Iterable[Tensor]) -> None:
        """Before the first step of this process: all have rank 0's weights and `averages`."""
        self.ranks.copy_([*self.model.state_dict().values(), *averages])
        self.reseed(step)
        self.now, self.zero = 0.0, time.monotonic()

    def clock(self) -> float:
        """Seconds, the same on all ranks: rank 0's, as they last heard of them."""
        return self.now

    def reseed(self, step: int) -> None:
        """Let the numbers that are drawn in `step` differ from rank to rank."""
        if not self.ranks.leads:
            state = np.random.SeedSequence([self.seed, self.ranks.rank, step]).generate_state(1, np.uint64)
            torch.manual_seed(int(state[0]))

    def reduce(self, gradients: Gradients, samples: int, step: int) -> None:
        """Make the gradients, the loss and the right answers of optimizer step `step` those of all `samples`.

        Raises RankFailed, and TrainingError for a parameter that has a gradient in some steps only.
        """
        assert isinstance(gradients, SharedGradients)
        trains = [p.requires_grad for p in gradients.parameters]
        if trains != self.trains:
            self._lay_out(gradients.parameters, trains)
        self._collect(gradients, samples, step)
        self.ranks.sum_(self.flat)
        for parameter, view in zip(self.trained, self.views, strict=True):
            parameter.grad = view
        if self.statistics:
            torch._foreach_copy_(self.statistics, self.means)
        gradients.loss, gradients.correct, gradients.begun = self.told[0], self.told[1], True
        self._hear(self.told[-NEWS:])
        self.reseed(step + 1)

    def _lay_out(self, parameters: list[nn.Parameter], trains: list[bool]) -> None:
        """A new buffer. Room is for parameters that have a gradient on any rank: an optimizer leaves out the others."""
        there = torch.tensor([float(p.grad is not None) for p in parameters], device=parameters[0].device)
        found = self.ranks.sum_(there).tolist()
        self.trained = [p for p, count in zip(parameters, found, strict=True) if count]
        self.left = [p for p, count in zip(parameters, found, strict=True) if not count]
        sizes = [tensor.numel() for tensor in (*self.trained, *self.statistics)]
        self.flat = torch.zeros(sum(sizes) + TOLD, device=parameters[0].device)
        *pieces, self.told = self.flat.split([*sizes, TOLD])
        # Strides as the parameter's own, channels_last or not, which fused optimizers want.
        self.views = [
            piece.as_strided(p.size(), p.stride(), piece.storage_offset())
            for p, piece in zip(self.trained, pieces, strict=False)
        ]
        self.means = [
            piece.view(s.shape) for s, piece in zip(self.statistics, pieces[len(self.trained) :], strict=True)
        ]
        self.trains = trains

    @torch.no_grad()
    def _collect(self, gradients: SharedGradients, samples: int, step: int) -> None:
        for parameter in self.left:
            if parameter.grad is not None:
                name = next(name for name, p in self.model.named_parameters() if p is parameter)
                raise TrainingError(
                    f"{name} has its first gradient in step {step + 1}: what is trained in some steps only can't be "
                    "shared by several processes yet; start one"
                )
        there = [p.grad for p in self.trained if p.grad is not None]
        if len(there) == len(self.trained):
            torch._foreach_copy_(self.views, there)
        else:  # none of the samples, or not all of the model
            for parameter, view in zip(self.trained, self.views, strict=True):
                view.zero_() if parameter.grad is None else view.copy_(parameter.grad)
        if self.statistics:
            torch._foreach_copy_(self.means, torch._foreach_mul(self.statistics, gradients.own / samples))
        self.told[-NEWS:] = self._news(self.flat)
        if gradients.begun:
            self.told[0], self.told[1] = gradients.loss, gradients.correct
        else:
            self.told[:2] = 0

    def total(
        self, sums: Mapping[str, Tensor], count: int, names: Iterable[str], device: torch.device
    ) -> tuple[dict[str, Tensor], int]:
        """Sums and their count over all ranks, of those of this one; `stop` is news then."""
        names = list(names)
        told = torch.zeros(len(names) + 1 + NEWS, dtype=torch.float64, device=device)
        for place, name in enumerate(names):
            told[place] = sums.get(name, 0.0)
        told[len(names)] = count
        told[-NEWS:] = self._news(told)
        told = self.ranks.sum_(told).cpu()
        self._learn(told[-NEWS:].tolist())
        return dict(zip(names, told, strict=False)), int(told[len(names)])

    def _news(self, like: Tensor) -> Tensor:
        seconds = time.monotonic() - self.zero if self.ranks.leads else 0.0
        stop, busy = self.asked or self.ranks.orphaned, self.ranks.leads and self.writes()
        return torch.tensor([stop, busy, seconds], dtype=like.dtype)

    def _hear(self, news: Tensor) -> None:
        if news.device.type == "cpu":
            self._learn(news.tolist())
            return
        copy = torch.empty(NEWS, pin_memory=True)
        copy.copy_(news, non_blocking=True)
        self.waiting.append((copy, torch.cuda.current_stream(news.device).record_event()))
        if len(self.waiting) > LAG:
            copy, there = self.waiting.popleft()
            there.synchronize()
            self._learn(copy.tolist())

    def _learn(self, news: list[float]) -> None:
        self.stop, self.busy, self.now = self.stop or news[0] > 0, news[1] > 0, max(self.now, news[2])


class SharedWriter(CheckpointWriter):
    """Rank 0 writes, and all know when it does."""

    def __init__(self, folder: RunFolder, constant: Mapping[str, Any], shared: DataParallel):
        super().__init__(folder, constant)
        self.shared = shared
        shared.writes = lambda: self._thread is not None and self._thread.is_alive()

    @property
    def busy(self) -> bool:
        return self.shared.busy

    def put(self, state: Mapping[str, Any], best: bool = False) -> None:
        if self.shared.ranks.leads:
            super().put(state, best)

    def latest(self) -> dict[str, Any] | None:
        self.wait()
        self.shared.ranks.gather(None)  # it is written
        return super().latest()

    def keep_batch(self, record: Mapping[str, Any]) -> None:
        if self.shared.ranks.leads:
            super().keep_batch(record)
