"""How far a training may go, and how far it has come."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Limits:
    """When to do what, counted in optimizer steps, micro-batches, epochs and seconds."""

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
    max_seconds: float = math.inf
    save_every: int | None = None  # optimizer steps; the end of an epoch is always saved
    save_every_seconds: float = math.inf
    on_nonfinite: Literal["stop", "skip", "rollback"] = "stop"
    max_rollbacks: int = 3  # each halves the learning rate
    on_oom: Literal["stop", "halve"] = "stop"


@dataclass
class Progress:
    """Where a training stands; with the weights and the random state, all that a resume needs."""

    epoch: int = 0  # epochs completed
    step: int = 0  # optimizer steps taken
    position: int = 0  # micro-batches of the current epoch that are done
    sums: list[float] = field(default_factory=list)  # of the epoch so far, as `Tally.sums` has them
    samples: int = 0  # that these are sums of
    epoch_seconds: float = 0.0  # of training in this epoch so far, without checkpoints
    data_seconds: float = 0.0  # of these, waiting for the next batch
    best: dict[str, float] = field(default_factory=dict)  # the row of the best epoch
    reference: float | None = None  # what early stopping compares with: moves by more than min_delta only
    waited: int = 0  # evaluations since the reference moved
    seconds: float = 0.0  # of the whole run, over all its parts
    train_seconds: float = 0.0  # of training in all epochs before this one
    wait_seconds: float = 0.0  # of these, waiting for the next batch
    evaluation_seconds: float = 0.0  # in all epochs
    saving_seconds: float = 0.0  # that the training stood still for a checkpoint
    samples_seen: int = 0
    skipped: int = 0  # steps left out, since their numbers weren't finite
    skipped_in_a_row: int = 0
    rollbacks: int = 0  # returns to a checkpoint
    parts: int = 1  # that a micro-batch is taken in, since memory ran out

    def times(self) -> dict[str, float]:
        """Where the time went, seconds of all parts of a run; waiting for data is a part of the training."""
        return {
            "training": self.train_seconds + self.epoch_seconds,
            "waiting_for_data": self.wait_seconds + self.data_seconds,
            "evaluation": self.evaluation_seconds,
            "saving": self.saving_seconds,
        }

    def judge(self, row: Mapping[str, Any], limits: Limits) -> bool:
        """Hold an epoch's monitored metric against the best so far; True if it is better."""
        value = row[limits.monitor]
        if value is None:  # not evaluated in this epoch
            return False
        sign = 1 if limits.mode == "max" else -1
        number = not math.isnan(value)  # what isn't a number is never an improvement
        if number and (self.reference is None or sign * (value - self.reference) > limits.min_delta):
            self.reference, self.waited = value, 0
        else:
            self.waited += 1
        # The best checkpoint takes any improvement, however small. Of equals the later one counts: on a small split
        # many epochs tie, and the first of them comes long before the learning rate has come down.
        best = self.best.get(limits.monitor)
        if not number or (best is not None and sign * (value - best) < 0):
            return False
        self.best = {key: v for key, v in row.items() if v is not None}
        return True
