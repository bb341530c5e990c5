"""Step → learning rate, as a factor of `optimizer.lr`.

All but `plateau` are functions of the step alone, so resuming and drawing need no replay. The clock counts optimizer
steps; what is defined per epoch (step, multistep, exponential) changes when an epoch ends. Warm-up multiplies: a ramp
(s + 1) / warmup_steps. Epochs of milestones stay absolute (as in Goyal et al. 2017); what runs to an end (cosine,
linear, polynomial, warm restarts) begins when the warm-up is over.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import Gt, MinLen

from dlrun.errors import OptionError
from dlrun.registry import Count, Index, NonNegative, Positive, Share, schedules

Decay = Annotated[float, Gt(0)]


@dataclass(frozen=True)
class Clock:
    """How long a training is, in optimizer steps."""

    total_steps: int
    steps_per_epoch: int
    warmup_steps: int = 0

    def epoch(self, step: int) -> int:
        return step // self.steps_per_epoch

    def progress(self, step: int) -> float:
        """0 when the warm-up is over, 1 after the last step."""
        return min(max(step - self.warmup_steps, 0) / max(self.total_steps - self.warmup_steps, 1), 1.0)


class Schedule:
    """A learning rate that depends on the step alone. `own_warmup` says that `factor` ramps up by itself."""

    def __init__(self, clock: Clock, factor: Callable[[int], float], own_warmup: bool = False):
        self.clock, self._factor, self.own_warmup = clock, factor, own_warmup

    def factor(self, step: int) -> float:
        """What the base learning rate is multiplied with at optimizer step `step`, counted from 0."""
        ramp = 1.0
        if step < self.clock.warmup_steps and not self.own_warmup:
            ramp = (step + 1) / self.clock.warmup_steps
        try:
            return ramp * self._factor(step)
        except OverflowError:  # a gamma above 1, to the power of many epochs
            return math.inf

    def observe(self, value: float) -> None:
        """Told the monitored metric after each evaluation; only `plateau` listens."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The other way round."""


@schedules.register("none")
def none(clock: Clock, lr: float, mode: str) -> Schedule:
    """The learning rate stays as it is."""
    return Schedule(clock, lambda step: 1.0)


@schedules.register("step")
def step(clock: Clock, lr: float, mode: str, *, step_size: Count = 30, gamma: Decay = 0.1) -> Schedule:
    """Multiplied by `gamma` every `step_size` epochs."""
    return Schedule(clock, lambda s: gamma ** (clock.epoch(s) // step_size))


@schedules.register("multistep")
def multistep(
    clock: Clock,
    lr: float,
    mode: str,
    *,
    milestones: Annotated[list[Count], MinLen(1)] = [30, 60, 90],
    gamma: Decay = 0.1,
) -> Schedule:
    """Multiplied by `gamma` at each of the epochs in `milestones`."""
    return Schedule(clock, lambda s: gamma ** sum(clock.epoch(s) >= m for m in milestones))


@schedules.register("exponential")
def exponential(clock: Clock, lr: float, mode: str, *, gamma: Decay = 0.95) -> Schedule:
    """Multiplied by `gamma` every epoch."""
    return Schedule(clock, lambda s: gamma ** clock.epoch(s))


@schedules.register("cosine")
def cosine(clock: Clock, lr: float, mode: str, *, min_lr: NonNegative = 0.0) -> Schedule:
    """Half a cosine down to `min_lr` at the last step (Loshchilov & Hutter 2017)."""
    floor = _floor(min_lr, lr)
    return Schedule(clock, lambda s: floor + (1 - floor) * (1 + math.cos(math.pi * clock.progress(s))) / 2)


@schedules.register("linear")
def linear(
    clock: Clock, lr: float, mode: str, *, start_factor: Positive = 1.0, end_factor: NonNegative = 0.0
) -> Schedule:
    """A straight line from `start_factor` to `end_factor` times the learning rate."""
    return Schedule(clock, lambda s: start_factor + (end_factor - start_factor) * clock.progress(s))


@schedules.register("polynomial")
def polynomial(clock: Clock, lr: float, mode: str, *, power: Positive = 2.0, min_lr: NonNegative = 0.0) -> Schedule:
    """(1 - progress) to the power of `power`, down to `min_lr`."""
    floor = _floor(min_lr, lr)
    return Schedule(clock, lambda s: floor + (1 - floor) * (1 - clock.progress(s)) ** power)


@schedules.register("warm_restarts")
def warm_restarts(
    clock: Clock, lr: float, mode: str, *, first_epochs: Count = 10, multiply: Count = 2, min_lr: NonNegative = 0.0
) -> Schedule:
    """Cosines that start again (SGDR, Loshchilov & Hutter 2017), each `multiply` times as long as the one before."""
    floor = _floor(min_lr, lr)

    def factor(s: int) -> float:
        place, length = max(s - clock.warmup_steps, 0) / clock.steps_per_epoch, float(first_epochs)
        while place >= length:
            place, length = place - length, length * multiply
        return floor + (1 - floor) * (1 + math.cos(math.pi * place / length)) / 2

    return Schedule(clock, factor)


@schedules.register("onecycle")
def onecycle(
    clock: Clock,
    lr: float,
    mode: str,
    *,
    pct_start: Share = 0.15,
    div_factor: Positive = 25.0,
    final_div_factor: Positive = 1e4,
) -> Schedule:
    """Up to `optimizer.lr` in the first `pct_start` of all steps, then down to almost nothing, by cosines (Smith 2018).

    Begins at lr / div_factor and ends at lr / (div_factor · final_div_factor). A warm-up, if one is set, is the way up
    instead of `pct_start`. Momentum isn't cycled.
    """
    up = (clock.warmup_steps or pct_start * clock.total_steps) - 1
    down = clock.total_steps - 1 - up
    start, end = 1 / div_factor, 1 / div_factor / final_div_factor

    def factor(s: int) -> float:
        if s <= up:
            return _cosine_between(start, 1.0, s / up if up > 0 else 1.0)
        return _cosine_between(1.0, end, min((s - up) / down, 1.0) if down > 0 else 1.0)

    return Schedule(clock, factor, own_warmup=True)


@schedules.register("plateau")
class Plateau(Schedule):
    """Multiplied by `factor` when the monitored metric hasn't improved for `patience` evaluations."""

    def __init__(
        self,
        clock: Clock,
        lr: float,
        mode: str,
        *,
        factor: Share = 0.1,
        patience: Index = 10,
        threshold: NonNegative = 1e-4,
        cooldown: Index = 0,
        min_lr: NonNegative = 0.0,
    ):
        super().__init__(clock, lambda step: self.current)
        self.mode, self.shrink, self.patience, self.threshold = mode, factor, patience, threshold
        self.cooldown, self.floor = cooldown, _floor(min_lr, lr)
        self.current, self.bad, self.cooling = 1.0, 0, 0
        self.best = -math.inf if mode == "max" else math.inf

    def observe(self, value: float) -> None:
        # torch's ReduceLROnPlateau with threshold_mode="rel", rule by rule.
        better = (
            value > self.best * (1 + self.threshold) if self.mode == "max" else value < self.best * (1 - self.threshold)
        )
        if better:
            self.best, self.bad = value, 0
        else:
            self.bad += 1
        if self.cooling > 0:
            self.cooling, self.bad = self.cooling - 1, 0
        if self.bad > self.patience:
            self.current, self.bad, self.cooling = max(self.current * self.shrink, self.floor), 0, self.cooldown

    def state_dict(self) -> dict[str, Any]:
        return {"current": self.current, "bad": self.bad, "cooling": self.cooling, "best": self.best}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


def course(schedule: Schedule, clock: Clock, lr: float, observed: Mapping[int, float]) -> list[float]:
    """The learning rate of every step of `clock`'s training, which nobody runs.

    `observed` is what the schedule would be told after an epoch, counted from 1; nothing after one that isn't there.
    """
    rates = []
    for step in range(clock.total_steps):
        rates.append(lr * schedule.factor(step))
        if (step + 1) % clock.steps_per_epoch == 0 or step + 1 == clock.total_steps:
            value = observed.get(clock.epoch(step) + 1)
            if value is not None:
                schedule.observe(value)
    return rates


def _floor(min_lr: float, lr: float) -> float:
    if min_lr > lr:
        raise OptionError("min_lr", f"expected at most optimizer.lr={lr}, got {min_lr}")
    return min_lr / lr


def _cosine_between(start: float, end: float, place: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * place)) / 2
