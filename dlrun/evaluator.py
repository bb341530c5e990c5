"""A model on a split: metrics and predictions, without anything of its training but the averaged weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dlrun.data.loader import Batches
from dlrun.dataparallel import DataParallel
from dlrun.ema import EMA
from dlrun.errors import TrainingError, UserError
from dlrun.faults import free_memory, out_of_memory
from dlrun.precision import Precision
from dlrun.saliency import word_relevance
from dlrun.tasks import Classification
from dlrun.tta import TTA, averaged


class Stopped(Exception):
    """An evaluation was abandoned, since somebody asked to stop."""


@dataclass
class Evaluator:
    """Evaluates `model`, with the averaged weights if there are any. Raises Stopped when `stopped` says so."""

    model: nn.Module
    task: Classification
    precision: Precision
    ema: EMA | None = None
    tta: TTA = "none"
    halves: bool = False  # where memory runs out, a batch is taken in two
    stopped: Callable[[], bool] = lambda: False
    shared: DataParallel | None = None  # each of several processes judges its part; what they say is of all of it

    @torch.inference_mode()
    def evaluate(self, batches: Batches, split: str) -> dict[str, float]:
        """Metrics over a split, by `split/name`. Raises UserError if it is empty."""
        return self._metrics(self._logits(batches), split)

    @torch.inference_mode()
    def predict(self, batches: Batches) -> dict[str, Tensor]:
        """What the task says of each sample of a split, in the split's own order: `Classification.predict`."""
        return self.examine(batches, "predict")[1]

    @torch.inference_mode()
    def examine(self, batches: Batches, split: str) -> tuple[dict[str, float], dict[str, Tensor]]:
        """Both of these in one pass. Of several processes only rank 0 gets what is said of each sample."""
        parts: list[dict[str, Tensor]] = []

        def watched() -> Iterator[tuple[Tensor, Tensor]]:
            for logits, targets in self._logits(batches):
                parts.append(self.task.predict(logits, targets))
                yield logits, targets

        metrics, order = self._metrics(watched(), split), batches.own(0)
        if self.shared is not None:
            shares = self.shared.ranks.collect((parts, order))
            if not shares:
                return metrics, {}
            parts, order = [part for share, _ in shares for part in share], torch.cat([own for _, own in shares])
        back = order.argsort()
        return metrics, {name: torch.cat([part[name] for part in parts])[back] for name in parts[0]}

    def _metrics(self, judged: Iterator[tuple[Tensor, Tensor]], split: str) -> dict[str, float]:
        sums: dict[str, Tensor] = {}
        count = 0
        for logits, targets in judged:
            for name, value in self.task.evaluate(logits, targets).items():
                sums[name] = sums[name] + value if name in sums else value
            count += len(targets)
        if self.shared is not None:
            sums, count = self.shared.total(sums, count, self.task.metrics, self.precision.device)
            if self.shared.stop:
                raise Stopped
        if count == 0:
            raise UserError(f"data: the {split} split is empty")
        return {f"{split}/{name}": value.item() / count for name, value in sums.items()}

    @torch.inference_mode()
    def probabilities(self, inputs: Tensor) -> Tensor:
        """Of inputs that are prepared, and belong to no split: (B, K), on the CPU."""
        self._swap_ema()
        self.model.eval()
        try:
            return self._forward(inputs).float().softmax(dim=1).cpu()
        finally:
            self._swap_ema()

    def relevance(self, network: nn.Module, tokens: Tensor, classes: Tensor) -> Tensor | None:
        """`word_relevance` of texts that are prepared, in `network`, the net behind `model`."""
        self._swap_ema()
        network.eval()
        try:
            with self.precision.autocast():
                return word_relevance(network, tokens, classes)
        finally:
            self._swap_ema()

    def _logits(self, batches: Batches) -> Iterator[tuple[Tensor, Tensor]]:
        """Logits (B, K) and targets (B,) of every batch."""
        self._swap_ema()
        self.model.eval()
        try:
            for inputs, targets in batches.epoch(0):
                if self.stopped():
                    if self.shared is not None:  # the others don't know yet: they will in `_metrics`
                        return
                    raise Stopped
                if len(targets):  # some processes have none of a small batch
                    yield self._forward(inputs), targets
        finally:
            self._swap_ema()

    def _swap_ema(self) -> None:
        if self.ema is not None:
            self.ema.swap()

    def _forward(self, inputs: Tensor) -> Tensor:
        try:
            with self.precision.autocast():
                return averaged(self.model, inputs, self.tta)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            if not self.halves or len(inputs) == 1:
                raise TrainingError(
                    f"out of memory in evaluating {len(inputs)} samples at a time; "
                    "try trainer.on_oom=halve, or a smaller data.eval_batch_size"
                ) from None
        free_memory(inputs.device)
        return torch.cat([self._forward(half) for half in inputs.chunk(2)])
