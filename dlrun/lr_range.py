"""The learning-rate range test: a training whose learning rate grows at every step until the loss explodes.

Smith 2017, "Cyclical learning rates for training neural networks"; exponential growth and the end as in fastai's
`lr_find` (Howard & Gugger 2020). It is the trainer's own step on what `build` built: same batches, precision, clipping
and accumulation. The weights are nobody's afterwards.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from torch import Tensor

from dlrun.errors import TrainingError
from dlrun.faults import NonFinite
from dlrun.progress import Limits
from dlrun.schedules import Clock, Schedule
from dlrun.tally import Tally
from dlrun.tracking import Quiet
from dlrun.tracking.terminal import Terminal
from dlrun.trainer import Trainer

EXPLODED = 4.0  # times the lowest average loss
FALLS = 0.02  # of the loss at the beginning: less is noise
FASTAIS = 0.98  # its smoothing
FEWEST = 5  # steps that a slope is looked for in

Ending = Literal["done", "diverged", "nonfinite"]


@dataclass
class Sweep:
    """What the steps of a range test said: the mean loss of each step's samples, before it moved the weights."""

    rates: Sequence[float]  # of all steps that were asked for
    smoothing: float  # share of an average that is older than the newest loss
    losses: list[float] = field(default_factory=list)
    averages: list[float] = field(default_factory=list)  # of the losses so far
    ending: Ending = "done"

    def note(self, loss: float) -> bool:
        """Add a step's loss; whether it has exploded."""
        self.averages.append(_next(self.averages, loss, self.smoothing))
        self.losses.append(loss)
        return self.averages[-1] > EXPLODED * min(self.averages)

    def smoothed(self) -> list[float]:
        """The mean of the averages forwards and backwards: the first alone lags by 1 / (1 - smoothing) steps.

        At 0.98, as fastai has it, that is half of a hundred steps: the fall is seen at rates several times too high.
        The explosion is cut off at the first average, or it would reach backwards.
        """
        back: list[float] = []
        for loss in reversed(self.losses):
            back.append(_next(back, min(loss, self.averages[self.first]), self.smoothing))
        return [(a + b) / 2 for a, b in zip(self.averages, reversed(back), strict=True)]

    @property
    def first(self) -> int:
        """The first step that is judged: before it, fastai says, the average hasn't settled."""
        return min(len(self.rates) // 10, len(self.losses) - 1)

    def judged(self) -> range:
        """The steps that a suggestion is looked for in; the last five are left out, as by fastai."""
        return range(self.first, len(self.losses) - 5)


def _next(averages: Sequence[float], value: float, share: float) -> float:
    """The next of exponential averages without the pull of the zero that they begin at, as Adam corrects its own."""
    count = len(averages)
    before = averages[-1] * (1 - share**count) if averages else 0.0
    return (share * before + (1 - share) * value) / (1 - share ** (count + 1))


@dataclass(frozen=True)
class Suggestion:
    """Learning rates to train with; all are None where `why_none` says why."""

    steepest: float | None = None  # where the loss falls fastest over the logarithm of the rate (Smith 2017)
    valley: float | None = None  # half way down the longest fall, as fastai has it, smoothing included
    minimum_tenth: float | None = None  # a tenth of where the loss is lowest
    why_none: str | None = None
    doubt: str | None = None


class Exploded(Exception):
    """The loss is many times what it was at its best."""


class Losses(Tally):
    """Notes the loss of every step, and ends the training when it explodes."""

    def __init__(self, trainer: Trainer, sweep: Sweep):
        super().__init__(trainer.parameters[0].device, at_once=True, scales=trainer.precision.scales)
        self.trainer, self.sweep = trainer, sweep

    def note(self, step: int, loss: Tensor, correct: Tensor, norm: Tensor) -> None:
        super().note(step, loss, correct, norm)  # raises NonFinite
        batches, first = self.trainer.train_batches, self.trainer.progress.position
        samples = batches.samples(first, min(first + self.trainer.limits.accumulate, len(batches)))
        if self.sweep.note(loss.item() / samples):
            raise Exploded


def exponential(start: float, end: float, steps: int) -> list[float]:
    """`steps` learning rates from `start` to `end`, each the same multiple of the one before."""
    return [start * (end / start) ** (step / (steps - 1)) for step in range(steps)]


def sweep_rates(parts: Mapping[str, Any], limits: Limits, lr: float, rates: Sequence[float], smoothing: float) -> Sweep:
    """Train a Trainer's `parts` with one of `rates` at each step, through as many epochs as that takes.

    `lr` is what the optimizer was built with: learning rates of other groups keep their ratio to it. Nothing is
    evaluated, saved or tracked; the weights, and the optimizer, are changed.
    """
    epochs = math.ceil(len(rates) / math.ceil(len(parts["train_batches"]) / limits.accumulate))
    once: dict[str, Any] = {"max_steps": len(rates), "max_epochs": epochs, "log_every": len(rates) + 1}
    once |= {"save_every": None, "save_every_seconds": math.inf, "max_seconds": math.inf, "on_nonfinite": "stop"}
    own = {
        "schedule": Schedule(Clock(len(rates), len(rates)), lambda step: rates[step] / lr),
        "limits": replace(limits, **once),
        "ema": None,
        "tracker": Quiet(),
        "terminal": Terminal(epochs, show_bar=False),
        "writer": None,  # nothing is ever due to be saved
    }
    trainer = Trainer(**{**parts, **own})
    sweep = Sweep(rates, smoothing)
    trainer.tally = Losses(trainer, sweep)
    progress = trainer.progress
    try:
        while progress.step < len(rates):
            trainer.train_epoch()
            progress.epoch, progress.position, progress.samples = progress.epoch + 1, 0, 0
    except Exploded:
        sweep.ending = "diverged"
    except (NonFinite, TrainingError) as error:
        if isinstance(error, TrainingError) and "overflow" not in str(error):  # memory ran out, say
            raise
        sweep.ending = "nonfinite"
    return sweep


def suggested(sweep: Sweep) -> Suggestion:
    """What the sweep says for a training; or why it says nothing."""
    steps = sweep.judged()
    if not sweep.losses:
        return Suggestion(why_none=f"the loss of the very first step, with {sweep.rates[0]:.1e}, isn't a finite number")
    if len(steps) < FEWEST:
        what = {"nonfinite": "isn't finite", "diverged": "explodes"}.get(sweep.ending, "is known no further")
        count = f"{len(sweep.losses)} step{'s' * (len(sweep.losses) != 1)}"
        return Suggestion(why_none=f"the loss {what} after {count}: take a lower start, or more steps")
    smoothed = sweep.smoothed()
    rates, losses = [sweep.rates[s] for s in steps], [smoothed[s] for s in steps]
    lowest = min(range(len(losses)), key=losses.__getitem__)
    if losses[lowest] > (1 - FALLS) * losses[0]:
        said = f"the loss never falls: {losses[0]:.4g} at first, {losses[lowest]:.4g} at its lowest"
        return Suggestion(why_none=f"{said}; take more steps, or a start further from where it rises")
    # What falls behind the lowest place had risen before.
    steepest = min(range(max(lowest, 1)), key=lambda place: _slope(losses, place, len(sweep.rates) // 20))
    doubt = None
    if sweep.ending == "done" and lowest == len(losses) - 1:
        doubt = f"the loss still falls at {rates[-1]:.2g}: a higher end may show more"
    lagging = Sweep(sweep.rates, FASTAIS)
    for loss in sweep.losses:
        lagging.note(loss)
    valley = _valley([lagging.averages[s] for s in steps])
    return Suggestion(rates[steepest], rates[valley], rates[lowest] / 10, doubt=doubt)


def _slope(losses: Sequence[float], place: int, reach: int) -> float:
    """Of the line through the losses up to `reach` steps away: the difference of two of them is mostly noise."""
    first, last = max(place - reach, 0), min(place + reach, len(losses) - 1)
    middle = (first + last) / 2
    spread = sum((step - middle) ** 2 for step in range(first, last + 1))
    return sum((step - middle) * losses[step] for step in range(first, last + 1)) / spread


def _valley(losses: Sequence[float]) -> int:
    """The middle of the longest strictly falling subsequence, as fastai has it: half of its last two thirds."""
    tops: list[float] = []  # −tops[k]: the highest loss that a fall of k + 1 steps can end with
    longest, end = 0, 0
    for place, loss in enumerate(losses):
        length = bisect_left(tops, -loss)
        tops[length : length + 1] = [-loss]
        if length + 1 > longest:
            longest, end = length + 1, place
    start = end - longest
    third = (end - start) / 3
    return max(start, 0) + int(third) + int(third / 2)
