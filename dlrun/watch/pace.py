"""How far a training has come, and how long the rest takes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from dlrun.config import duration as seconds_of
from dlrun.errors import UserError
from dlrun.watch.observation import Observation
from dlrun.wording import is_number

RECENT = 5  # epochs that the pace is taken from
LARGEST = 10**15  # steps or epochs: no file of ours has more


@dataclass(frozen=True)
class Pace:
    step: int = 0  # optimizer steps taken, as far as is known
    steps: int | None = None  # that there will be, unless something stops it
    epoch: int = 0  # epochs completed
    epochs: int | None = None
    seconds_per_epoch: float | None = None
    left: float | None = None  # seconds
    basis: str = ""  # of what is left

    @property
    def share(self) -> float | None:
        """Of the steps, that are taken."""
        return min(self.step / self.steps, 1.0) if self.steps else None


def pace(seen: Observation) -> Pace:
    """From the rows of metrics.csv, from progress.json within the epoch that runs, and the config's limits."""
    history, beat = seen.history, seen.beat
    epoch, step = (history.epochs[-1], history.steps[-1]) if len(history) else _ended(seen)
    told = _whole(beat.get("step")) or 0
    per_epoch = _whole(beat.get("steps_per_epoch")) or (-(-step // epoch) if epoch else None)
    epochs, limit = _whole(seen.option("trainer.max_epochs")), _whole(seen.option("trainer.max_steps"))
    steps = _whole(beat.get("max_steps"))
    if steps is None:
        steps = min((n for n in (limit, epochs * per_epoch if epochs and per_epoch else None) if n), default=None)
    if steps and per_epoch:
        epochs = max(math.ceil(steps / per_epoch), epoch)
    step = max(step, told)
    steps = steps and max(steps, step)
    seconds = _seconds_per_epoch(seen)
    left, basis = _left(seen, step, steps, per_epoch, seconds)
    return Pace(step, steps, epoch, epochs, seconds, left, basis)


def _ended(seen: Observation) -> tuple[int, int]:
    """Epoch and step that a run without rows says it came to: its metrics.csv is lost, or it has none yet."""
    return _whole(seen.summary.get("epochs")) or 0, _whole(seen.summary.get("steps")) or 0


def _seconds_per_epoch(seen: Observation) -> float | None:
    """With its evaluation and its checkpoints; the first one, which warms up, counts only while it is alone."""
    column = seen.history.column("seconds")
    took = [b - a for a, b in pairwise(column) if a is not None and b is not None and b > a]
    if took:
        return median(took[-RECENT:])
    return column[0] if len(column) == 1 else None


def _left(
    seen: Observation, step: int, steps: int | None, per_epoch: int | None, seconds: float | None
) -> tuple[float | None, str]:
    left, basis = None, ""
    if steps is None:
        return None, ""
    if seconds is not None and per_epoch:
        epochs = min(RECENT, max(len(seen.history) - 1, 1))
        left = (steps - step) / per_epoch * seconds
        basis = f"by the last {epochs} epochs" if epochs > 1 else "by one epoch"
    elif is_number(rate := seen.beat.get("steps_per_second")) and rate > 0:
        left, basis = (steps - step) / rate, "by its steps so far, evaluations not counted"
    try:
        limit = seconds_of(seen.option("trainer.max_time"), "trainer.max_time")
    except UserError:
        limit = math.inf
    spent = next((value for value in reversed(seen.history.column("seconds")) if value is not None), 0.0)
    if left is not None and limit - spent < left:
        return max(limit - spent, 0.0), "by trainer.max_time"
    if left is not None and seen.option("trainer.patience"):
        basis += ", or less by trainer.patience"
    return left, basis


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < LARGEST else None
