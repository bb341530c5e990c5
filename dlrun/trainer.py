"""The loop. It reads from top to bottom, in the order in which things happen, and never sees a config."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from dlrun.data.loader import Batches
from dlrun.ema import EMA
from dlrun.errors import TrainingError, UserError
from dlrun.optim import L1
from dlrun.precision import Precision
from dlrun.schedules import Schedule
from dlrun.tasks import Classification
from dlrun.tracking import Tracker
from dlrun.tracking.terminal import Terminal

Save = Callable[[Literal["best", "last"], dict[str, Any]], None]


@dataclass(frozen=True)
class Limits:
    """When to do what, counted in optimizer steps, micro-batches and epochs."""

    max_steps: int
    max_epochs: int
    accumulate: int = 1  # micro-batches per optimizer step
    clip_norm: float | None = None
    eval_every: int = 1  # epochs
    log_every: int = 50  # optimizer steps
    monitor: str = "val/acc"
    mode: Literal["min", "max"] = "max"
    patience: int | None = None  # stop after that many evaluations without improvement; None never stops
    min_delta: float = 0.0


@dataclass
class Progress:
    """Where a training stands; with the weights and the random state, all that a resume needs."""

    epoch: int = 0  # epochs completed
    step: int = 0  # optimizer steps taken
    position: int = 0  # micro-batches of the current epoch that are done
    best: dict[str, float] = field(default_factory=dict)  # the row of the best epoch
    reference: float | None = None  # what early stopping compares with: moves by more than min_delta only
    waited: int = 0  # evaluations since the reference moved
    seconds: float = 0.0


@dataclass
class Trainer:
    """Everything that takes part in a training, built elsewhere."""

    model: nn.Module  # what is called; `torch.compile`'s wrapper, if it is on
    weights: nn.Module  # what is saved: the same model without any wrapper
    task: Classification
    optimizer: Optimizer
    schedule: Schedule
    precision: Precision
    train_batches: Batches
    val_batches: Batches
    limits: Limits
    tracker: Tracker
    terminal: Terminal
    save: Save
    ema: EMA | None = None
    l1: L1 | None = None
    profiler: Any = None  # anything with step(), told of every optimizer step
    progress: Progress = field(default_factory=Progress)
    stop_requested: bool = False  # set by a signal handler: end at the next step boundary
    samples_seen: int = 0  # by this process
    train_seconds: float = 0.0  # without evaluation and checkpoints

    def fit(self) -> Literal["finished", "stopped_early", "preempted"]:
        """Train until the steps are done, nothing improves any more, or somebody asks to stop."""
        progress, limits = self.progress, self.limits
        base_rates = [group["lr"] for group in self.optimizer.param_groups]
        began = time.monotonic() - progress.seconds
        while progress.step < limits.max_steps:
            if self.stop_requested:
                return "preempted"
            started = time.monotonic()
            row, samples = self._train_epoch(base_rates)
            trained = time.monotonic() - started
            self.samples_seen += samples
            self.train_seconds += trained
            if self.stop_requested and progress.position < len(self.train_batches) and progress.step < limits.max_steps:
                progress.seconds = time.monotonic() - began
                self.save("last", self.state())
                return "preempted"
            progress.epoch += 1
            progress.position = 0
            ends = progress.step >= limits.max_steps
            validation = dict.fromkeys((f"val/{name}" for name in self.task.metrics), None)
            if progress.epoch % limits.eval_every == 0 or ends:
                validation |= self.evaluate(self.val_batches, "val")  # type: ignore[arg-type]
            progress.seconds = time.monotonic() - began
            row = {"epoch": progress.epoch, "step": progress.step, **row, **validation}
            row |= {"samples_per_second": samples / trained, "seconds": progress.seconds}
            improved = self._judge(row)
            self.tracker.epoch(row)
            state = self.state()
            if improved:
                self.save("best", state)
            self.save("last", state)
            if limits.patience is not None and progress.waited >= limits.patience and not ends:
                return "stopped_early"
        return "finished"

    def _train_epoch(self, base_rates: list[float]) -> tuple[dict[str, Any], int]:
        """Train from the current position to the end of the epoch; returns its metrics and the samples it took."""
        progress, limits, batches = self.progress, self.limits, self.train_batches
        self.model.train()
        sums: Tensor | None = None  # loss, right answers: on the device until somebody wants to read them
        seen, first = 0, progress.position
        bar = self.terminal.start_epoch(progress.epoch + 1, batches.samples(0, len(batches)), batches.samples(0, first))
        for inputs, targets in batches.epoch(progress.epoch, start=progress.position):
            window = progress.position - progress.position % limits.accumulate
            shared = batches.samples(window, min(window + limits.accumulate, len(batches)))
            with self.precision.autocast():
                logits = self.model(inputs)
                loss = self.task.loss(logits, targets)
            self.precision.scale(loss / shared).backward()
            counts = torch.stack((loss.detach().float(), self.task.correct(logits.detach(), targets)))
            sums = counts if sums is None else sums.add_(counts)
            seen += len(inputs)
            bar.update(len(inputs))
            progress.position += 1
            if progress.position % limits.accumulate and progress.position < len(batches):
                continue
            rate, norm = self._update(base_rates)
            progress.step += 1
            if progress.step % limits.log_every == 0:
                metrics = {**self._read(sums, seen), "lr": rate}
                if norm is not None:
                    metrics["train/grad_norm"] = norm.item()
                self.tracker.step(metrics, progress.step)
            if progress.step >= limits.max_steps or self.stop_requested:
                break
        bar.close()
        return {"lr": rate, **self._read(sums, seen)}, seen

    def _update(self, base_rates: list[float]) -> tuple[float, Tensor | None]:
        """One optimizer step; returns its learning rate and the gradient's norm, if it was clipped."""
        factor = self.schedule.factor(self.progress.step)
        for group, base in zip(self.optimizer.param_groups, base_rates, strict=True):
            group["lr"] = base * factor
        self.precision.unscale(self.optimizer)
        if self.l1 is not None:
            self.l1.add_gradient()
        norm = None
        if self.limits.clip_norm is not None:
            norm = nn.utils.clip_grad_norm_(self.weights.parameters(), self.limits.clip_norm)
        self.precision.step(self.optimizer)
        self.optimizer.zero_grad(set_to_none=True)
        if self.ema is not None:
            self.ema.update()
        if self.profiler is not None:
            self.profiler.step()
        return base_rates[0] * factor, norm

    def _read(self, sums: Tensor | None, seen: int) -> dict[str, float]:
        """The epoch's metrics so far; waits for the device, so not at every step."""
        assert sums is not None
        loss, correct = (sums / seen).tolist()
        if not math.isfinite(loss):
            raise TrainingError(
                f"the training loss is {loss} at step {self.progress.step} (epoch {self.progress.epoch + 1}); "
                "try a lower optimizer.lr, trainer.gradient_clip_val=1 or a warm-up"
            )
        return {"train/loss": loss, "train/acc": correct}

    def _judge(self, row: dict[str, Any]) -> bool:
        """Hold the monitored metric against the best so far; True if it is better."""
        progress, limits = self.progress, self.limits
        value = row[limits.monitor]
        if value is None:
            return False
        self.schedule.observe(value)
        sign = 1 if limits.mode == "max" else -1
        number = not math.isnan(value)  # what isn't a number is never an improvement
        if number and (progress.reference is None or sign * (value - progress.reference) > limits.min_delta):
            progress.reference, progress.waited = value, 0
        else:
            progress.waited += 1
        # The best checkpoint takes any improvement, however small. Of equals the later one counts: on a small split
        # many epochs tie, and the first of them comes long before the learning rate has come down.
        best = progress.best.get(limits.monitor)
        if not number or (best is not None and sign * (value - best) < 0):
            return False
        progress.best = {key: v for key, v in row.items() if v is not None}
        return True

    @torch.inference_mode()
    def evaluate(self, batches: Batches, split: str) -> dict[str, float]:
        """Metrics over a split, with the averaged weights if there are any."""
        self._swap_ema()
        self.model.eval()
        sums: dict[str, Tensor] = {}
        count = 0
        for inputs, targets in batches.epoch(0):
            with self.precision.autocast():
                logits = self.model(inputs)
            for name, value in self.task.evaluate(logits, targets).items():
                sums[name] = sums[name] + value if name in sums else value
            count += len(targets)
        self._swap_ema()
        if count == 0:
            raise UserError(f"data: the {split} split is empty")
        return {f"{split}/{name}": value.item() / count for name, value in sums.items()}

    @torch.inference_mode()
    def predict(self, batches: Batches) -> dict[str, Tensor]:
        """Probabilities (N, K), losses (N,) and true classes (N,) over a split."""
        self._swap_ema()
        self.model.eval()
        parts = []
        for inputs, targets in batches.epoch(0):
            with self.precision.autocast():
                logits = self.model(inputs)
            parts.append(self.task.predict(logits, targets))
        self._swap_ema()
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def _swap_ema(self) -> None:
        if self.ema is not None:
            self.ema.swap()

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds of the training, as plain values and tensors."""
        return {
            "model": self.weights.state_dict(),
            "ema": None if self.ema is None else self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.schedule.state_dict(),
            "scaler": self.precision.state_dict(),
            "progress": asdict(self.progress),
        }

    def load_weights(self, state: dict[str, Any]) -> None:
        """Take a checkpoint's weights, averaged ones too; raises RuntimeError if they don't fit."""
        self.weights.load_state_dict(state["model"])
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"])
