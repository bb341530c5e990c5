"""The loop. It reads from top to bottom, in the order in which things happen, and never sees a config."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from torch import nn
from torch.optim import Optimizer

from dlrun import checkpoint
from dlrun.compression.sparsity import Sparsity
from dlrun.data.loader import Batches
from dlrun.data.placement import Batch
from dlrun.dataparallel import DataParallel, SharedGradients
from dlrun.ema import EMA
from dlrun.errors import TrainingError
from dlrun.evaluator import Evaluator, Stopped
from dlrun.faults import Mark, NonFinite, free_memory, no_room_for_a_batch, out_of_memory, overflow
from dlrun.freezing import Freezing
from dlrun.gradients import Gradients
from dlrun.groups import L1
from dlrun.precision import Precision
from dlrun.profiler import Unwatched
from dlrun.progress import Limits, Progress
from dlrun.schedules import Schedule
from dlrun.tally import Tally
from dlrun.tasks import Classification
from dlrun.tracking import Tracker
from dlrun.tracking.terminal import Terminal
from dlrun.writer import CheckpointWriter

log = logging.getLogger("dlrun")

Status = Literal["finished", "stopped_early", "pruned", "preempted"]
HOPELESS = 50  # skipped steps in a row


@dataclass
class Trainer:
    """Everything that takes part in a training, built elsewhere."""

    model: nn.Module  # what is called; `torch.compile`'s wrapper, if it is on
    weights: nn.Module  # what is saved: the same model without any wrapper
    task: Classification
    optimizer: Optimizer
    schedule: Schedule
    precision: Precision
    evaluator: Evaluator
    train_batches: Batches
    val_batches: Batches
    limits: Limits
    tracker: Tracker
    terminal: Terminal
    writer: CheckpointWriter
    ema: EMA | None = None
    l1: L1 | None = None
    freezing: Freezing | None = None
    sparsity: Sparsity | None = None
    shared: DataParallel | None = None  # what there is with other processes; None if there is only this one
    profiler: Unwatched = field(default_factory=Unwatched)
    progress: Progress = field(default_factory=Progress)
    hopeless: Callable[[Mapping[str, Any]], bool] | None = None  # asked after each evaluation, with the epoch's row
    stop_requested: bool = False  # set by a signal handler: end at the next step boundary

    def __post_init__(self) -> None:
        limits, self.parameters = self.limits, list(self.weights.parameters())
        device = self.parameters[0].device
        # Before any state is loaded: a saved group has a learning rate that was scheduled already.
        self.base_rates = [group["lr"] for group in self.optimizer.param_groups]
        self.clock = time.monotonic if self.shared is None else self.shared.clock
        self.evaluator.stopped = lambda: self.stop_requested or (self.shared is not None and self.shared.asked)
        self.tally = Tally(device, at_once=limits.on_nonfinite == "skip", scales=self.precision.scales)
        self.mark = Mark(self.weights) if limits.on_nonfinite == "skip" or limits.on_oom == "halve" else None
        self.gradients = (Gradients if self.shared is None else SharedGradients)(
            self.model, self.parameters, self.task, self.precision, clip_norm=limits.clip_norm, l1=self.l1
        )
        self.at_boundary = True  # between two optimizer steps, with nothing of the next one begun
        self.saved: tuple[int, int, int] | None = None  # the place that the newest checkpoint is of
        self.saved_at = self.began = self.epoch_began = self.clock()
        self.pruned = False  # found hopeless
        self.overdue = False  # a checkpoint that had to wait for the one before it
        # Where a run may go back to must not depend on how fast the disk is.
        self.punctual = limits.on_nonfinite == "rollback"

    def fit(self) -> Status:
        """Train until the steps are done, nothing improves any more, or somebody or the clock says stop."""
        if self.shared is not None:
            self.shared.begin(self.progress.step, () if self.ema is None else self.ema.average)
        self.began = self.clock() - self.progress.seconds
        if self.limits.on_nonfinite == "rollback" and self.writer.latest() is None:
            self._save()  # something to go back to
        while (status := self._over()) is None:
            try:
                self.train_epoch()
                if self._epoch_is_trained():
                    self._end_epoch()
            except NonFinite as error:
                self._go_back(error)
            except Stopped:
                self.stop_requested = True
            except Exception:
                # Whatever it was, a picture that can't be read or a worker that died: the steps before it are kept.
                if self.at_boundary:
                    with suppress(NonFinite):
                        self._save_unless_saved()
                raise
        self._save_unless_saved()
        return status

    def _over(self) -> Status | None:
        """Why the training ends here, between two epochs or in the middle of one; None if it doesn't."""
        progress, limits = self.progress, self.limits
        if progress.position == 0:
            if progress.step >= limits.max_steps:
                return "finished"
            if limits.patience is not None and progress.waited >= limits.patience:
                return "stopped_early"
            if self.pruned:
                return "pruned"
        if self.stop_requested:
            return "preempted"
        return "stopped_early" if self.out_of_time() else None

    def out_of_time(self) -> bool:
        return self.clock() - self.began >= self.limits.max_seconds

    def _epoch_is_trained(self) -> bool:
        return self.progress.position >= len(self.train_batches) or self.progress.step >= self.limits.max_steps

    def train_epoch(self) -> None:
        """Train from the current position to the end of the epoch, or until somebody says stop."""
        progress, batches = self.progress, self.train_batches
        self.epoch_began = self.clock() - progress.epoch_seconds
        self.model.train()
        if self.freezing is not None:
            self.freezing.begin_epoch(progress.epoch)
        bar = self.terminal.start_epoch(progress.epoch + 1, batches.samples(0, len(batches)), progress.samples)
        try:
            while not self._epoch_is_trained() and not self.stop_requested and not self.out_of_time():
                shortage = self._train_steps(bar)
                if shortage is not None:
                    self._take_smaller_parts(shortage)
        finally:
            bar.close()
        self.tally.look()
        progress.epoch_seconds = self.clock() - self.epoch_began

    def _train_steps(self, bar: Any) -> BaseException | None:
        """Optimizer steps until the epoch is trained or somebody says stop; returns an error if memory ran out."""
        progress, limits, batches = self.progress, self.limits, self.train_batches
        position, last = progress.position, len(batches)
        coming = batches.epoch(progress.epoch, start=position)
        while (batch := self._next(coming)) is not None:
            inputs, targets = batch
            if position % limits.accumulate == 0:
                shared = batches.samples(position, min(position + limits.accumulate, last))
                if self.mark is not None:
                    self.mark.take()
            self.at_boundary = False
            try:
                self.gradients.add(inputs, targets, shared, progress.parts, self.profiler.phase)
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                return error.with_traceback(None)  # which holds on to the memory
            position += 1
            bar.update(inputs.shape[0])
            if position % limits.accumulate and position < last:
                continue
            with self.profiler.phase("optimizer"):
                self._update(shared)
            self.profiler.step()
            progress.step, progress.position, self.at_boundary = progress.step + 1, position, True
            if progress.step % limits.log_every == 0:
                with self.profiler.phase("logging"):
                    self._log()
            now = self.clock()
            progress.epoch_seconds = now - self.epoch_began
            if self._save_is_due(now) and (self.punctual or not self.writer.busy):
                self._save()
            if progress.step >= limits.max_steps or self.stop_requested or now - self.began >= limits.max_seconds:
                break
        return None

    def _next(self, coming: Iterator[Batch]) -> Batch | None:
        """The next batch, and how long it was waited for."""
        asked = time.monotonic()
        try:
            with self.profiler.phase("data"):
                batch = next(coming, None)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            raise no_room_for_a_batch(self.train_batches.batch_size, self.progress.step) from error
        self.progress.data_seconds += time.monotonic() - asked
        return batch

    def _update(self, samples: int) -> None:
        """One optimizer step with the gradients there are; a step that isn't finite is left out, or ends it all."""
        progress, limits = self.progress, self.limits
        if self.shared is not None:
            self.shared.reduce(self.gradients, samples, progress.step)
            self.stop_requested = self.shared.stop
        for group, base in zip(self.optimizer.param_groups, self.base_rates, strict=True):
            group["lr"] = base * self._factor(progress.step)
        self.precision.unscale(self.optimizer)
        norm = self.gradients.norm()
        try:
            self.tally.note(progress.step, self.gradients.loss, self.gradients.correct, norm)
        except NonFinite as error:
            if limits.on_nonfinite != "skip":
                raise
            self._skip(error)
        else:
            self.gradients.clip(norm)
            self._move_weights()
            if self.sparsity is not None:
                self.sparsity.hold()
            if self.ema is not None:
                self.ema.update()
            progress.samples += samples
            progress.skipped_in_a_row = 0
        self.gradients.clear()

    def _move_weights(self) -> None:
        try:
            self.precision.step(self.optimizer)
        except RuntimeError as error:
            if "overflow" not in str(error):
                raise
            raise overflow(self.progress.step, self.progress.epoch) from error

    def _factor(self, step: int) -> float:
        """What the learning rates are multiplied with at `step`: the schedule's word, halved by each return."""
        return self.schedule.factor(step) * 0.5**self.progress.rollbacks

    def _log(self) -> None:
        metrics = {**self._train_metrics(), "lr": self.optimizer.param_groups[0]["lr"]}
        self.tracker.step({**metrics, "train/grad_norm": self.tally.norm}, self.progress.step)

    def _train_metrics(self) -> dict[str, float]:
        """Of the epoch so far; waits for the device, so not at every step. NaN if all of them were skipped."""
        self.tally.look()
        samples = self.progress.samples or math.nan
        return {"train/loss": self.tally.loss / samples, "train/acc": self.tally.correct / samples}

    def _end_epoch(self) -> None:
        """Evaluate, note the epoch's row, and save."""
        progress, limits = self.progress, self.limits
        if progress.samples == 0:
            raise TrainingError(f"every step of epoch {progress.epoch + 1} was skipped: the weights are beyond help")
        train, seconds = self._train_metrics(), progress.epoch_seconds
        validation: dict[str, float | None] = dict.fromkeys(f"val/{name}" for name in self.task.metrics)
        if (progress.epoch + 1) % limits.eval_every == 0 or progress.step >= limits.max_steps:
            with self.profiler.phase("evaluation"):
                asked = time.monotonic()
                validation |= self.evaluator.evaluate(self.val_batches, "val")
                progress.evaluation_seconds += time.monotonic() - asked
        progress.epoch += 1
        progress.seconds = self.clock() - self.began
        rate = self.base_rates[0] * self._factor(progress.step - 1)
        row = {"epoch": progress.epoch, "step": progress.step, "lr": rate, **train, **validation}
        row |= {"samples_per_second": progress.samples / seconds, "seconds": progress.seconds}
        row |= {"data_wait": progress.data_seconds / seconds, **self.tally.gradient()}
        if limits.on_nonfinite == "skip":
            row["skipped_steps"] = progress.skipped
        progress.samples_seen += progress.samples
        progress.train_seconds += seconds
        progress.wait_seconds += progress.data_seconds
        progress.position = progress.samples = 0
        progress.epoch_seconds, progress.data_seconds, progress.sums = 0.0, 0.0, []
        self.tally.begin()
        improved = progress.judge(row, limits)
        if (value := row[limits.monitor]) is not None:
            self.schedule.observe(value)
        with self.profiler.phase("logging"):
            self.tracker.epoch(row)
        if self.hopeless is not None and value is not None:
            self.pruned = self.hopeless(row)
        self.overdue = not improved and not self.punctual and self.writer.busy  # no better: it can wait for a write
        if not self.overdue:
            self._save(improved)

    def _save_is_due(self, now: float) -> bool:
        if self.overdue or now - self.saved_at >= self.limits.save_every_seconds:
            return True
        every, saved = self.limits.save_every, 0 if self.saved is None else self.saved[1]
        if every is None or self.progress.step // every == saved // every:
            return False
        return not self._epoch_is_trained()  # its end is saved as soon as it is evaluated

    def _save(self, best: bool = False) -> None:
        progress = self.progress
        self.tally.look()  # or what isn't finite would be kept
        progress.seconds, progress.sums = self.clock() - self.began, self.tally.sums()
        asked = time.monotonic()
        with self.profiler.phase("checkpoint"):
            self.writer.put(self.state(), best)
        taken = time.monotonic() - asked
        progress.saving_seconds += taken
        self.epoch_began += taken
        self.saved_at, self.overdue = self.clock(), False
        self.saved = (progress.epoch, progress.step, progress.position)

    def _save_unless_saved(self) -> None:
        if self.saved != (self.progress.epoch, self.progress.step, self.progress.position):
            self._save()

    def _skip(self, error: NonFinite) -> None:
        """Leave a step out: no update, and batch norm's statistics as they were before it."""
        progress = self.progress
        progress.skipped += 1
        progress.skipped_in_a_row += 1
        if progress.skipped_in_a_row >= HOPELESS:
            raise TrainingError(f"{error}, and {HOPELESS} steps in a row were skipped: the weights are beyond help")
        assert self.mark is not None
        self.mark.back(random=False)
        self.precision.discard()
        if progress.skipped & (progress.skipped - 1) == 0:  # 1, 2, 4, 8, …: once is news, the thousandth isn't
            log.warning("%s; the step is skipped (%d so far)", error, progress.skipped)

    def _go_back(self, error: NonFinite) -> None:
        """Note the batch that did it; then end, or go on from the last checkpoint with half the learning rate."""
        progress, limits = self.progress, self.limits
        steps = -(-progress.position // limits.accumulate) - (progress.step - error.step)  # of this epoch before it
        self.writer.keep_batch(error.record(self.train_batches, progress.epoch, steps * limits.accumulate, limits))
        advice = "try a lower optimizer.lr, trainer.gradient_clip_val=1, a warm-up, or trainer.on_nonfinite=rollback"
        said = f"{error} (epoch {progress.epoch + 1})"
        if limits.on_nonfinite != "rollback":
            raise TrainingError(f"{said}; {advice}")
        rollbacks = progress.rollbacks + 1
        if rollbacks > limits.max_rollbacks:
            raise TrainingError(f"{said}, after {progress.rollbacks} returns to a checkpoint; try a lower optimizer.lr")
        state = self.writer.latest()
        if state is None:
            raise TrainingError(f"{said}, and no checkpoint could be saved to go back to")
        self.gradients.clear()
        self.precision.discard()
        self.load_state(state)
        self.at_boundary = True
        self.progress.rollbacks = rollbacks
        log.warning(
            "%s; back to step %d with 1/%d of the learning rate (return %d of %d)",
            *(said, self.progress.step, 2**rollbacks, rollbacks, limits.max_rollbacks),
        )
        self.tracker.rewind(self.progress.epoch, self.progress.step, rollbacks)

    def _take_smaller_parts(self, error: BaseException) -> None:
        """Memory ran out: back to the step boundary, and from there on in half the size, accumulated twice as often."""
        progress, reason = self.progress, str(error).partition("\n")[0]
        size = self.train_batches.batch_size // progress.parts
        if self.limits.on_oom == "stop" or size < 4 or self.mark is None:  # batch norm can't train on one
            raise TrainingError(
                f"out of memory at step {progress.step + 1} with {size} samples at a time ({reason}); try "
                "trainer.on_oom=halve, or a smaller data.batch_size with more trainer.accumulate_grad_batches"
            )
        self.gradients.clear()
        free_memory(self.parameters[0].device)
        self.mark.back(random=True)
        self.at_boundary = True
        progress.parts *= 2
        log.warning(
            "out of memory at step %d: from here on %d samples at a time, accumulated; the effective batch stays %d",
            *(progress.step + 1, size // 2, self.train_batches.batch_size * self.limits.accumulate),
        )

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds of the training, as plain values and tensors; these are the training's own."""
        return {
            "model": self.weights.state_dict(),
            "ema": None if self.ema is None else self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.schedule.state_dict(),
            "scaler": self.precision.state_dict(),
            "random": checkpoint.random_state(),
            "progress": asdict(self.progress),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint: everything that `state` gave, the random numbers to come included."""
        self.load_weights(state)
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["scheduler"])
        self.precision.load_state_dict(state["scaler"])
        known = {f.name for f in fields(Progress)}  # an older format has fewer, and one that it counted elsewhere
        self.progress = Progress(**{name: value for name, value in state["progress"].items() if name in known})
        self.tally.begin(*self.progress.sums)
        self.began = self.clock() - self.progress.seconds
        self.saved = (self.progress.epoch, self.progress.step, self.progress.position)
        checkpoint.restore_random_state(state["random"])
        if self.shared is not None:
            self.shared.reseed(self.progress.step)

    def load_weights(self, state: dict[str, Any]) -> None:
        """Take a checkpoint's weights, averaged ones too; raises RuntimeError if they don't fit."""
        self.weights.load_state_dict(state["model"])
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"])
