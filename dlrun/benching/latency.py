"""How long a call takes: several subjects in turn, so that a noisy machine hits all alike.

A subject is called in turns of several calls, and each turn begins with one that isn't counted: a program that serves
one model has its weights in the cache and its threads awake, and here another one has just had both. The turns are
dealt so that fast subjects and slow ones are spread over the same stretch of time, and their order changes from round
to round.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

ROUNDS = 20  # that a subject's calls are dealt to, as far as the warm-up can tell
FEWEST = 5  # calls, however long they take
WARMUP = 3  # calls at least: TorchScript compiles in its second
PERCENTILES = (50, 90, 99)


@dataclass(frozen=True)
class Subject:
    """Something to call, and what to call it with: several inputs, used in turn."""

    call: Callable[[Any], Any]
    inputs: Sequence[Any]


@dataclass
class Timing:
    """Nanoseconds of each call that counted, in order; or why there are none."""

    nanoseconds: list[int] = field(default_factory=list)
    error: Exception | None = None


@dataclass(frozen=True)
class Effort:
    """How long to measure: at least `calls` calls and a tenth of `seconds`, but no longer than `seconds`, of a subject.

    Whatever is said, it is five calls.
    """

    calls: int = 100
    seconds: float = 10.0

    def enough(self, calls: int, nanoseconds: int) -> bool:
        seconds = nanoseconds / 1e9
        if seconds >= self.seconds:
            return calls >= FEWEST
        return calls >= max(self.calls, FEWEST) and seconds >= self.seconds / 10

    def expected(self, seconds_per_call: float) -> int:
        """Number of calls that will be enough."""
        call = max(seconds_per_call, 1e-7)
        wanted = max(self.calls, math.ceil(self.seconds / 10 / call))
        return max(FEWEST, min(wanted, math.ceil(self.seconds / call)))


def measure(
    subjects: Mapping[str, Subject],
    effort: Effort,
    synchronize: Callable[[], None] = lambda: None,
    clock: Callable[[], int] = time.perf_counter_ns,
) -> dict[str, Timing]:
    """Time the calls of each subject. `synchronize` returns when the device has done all that it was asked for.

    A subject that raises is told so in its timing, and the others go on. No gradients, no garbage collection meanwhile.
    """
    timings = {name: Timing() for name in subjects}
    with torch.inference_mode(), quiet():
        turns = {name: _Turns(subject, timings[name], effort, synchronize, clock) for name, subject in subjects.items()}
        for turn in turns.values():
            turn.warm_up()
        number = 0
        while going := [name for name, turn in turns.items() if not turn.done]:
            for name in rotated(going, number):
                turns[name].take()
            number += 1
    return timings


def rotated(names: Sequence[str], number: int) -> list[str]:
    """The order of round `number`: each goes first equally often, and in every other round they go backwards."""
    start = number // 2 % len(names)
    order = [*names[start:], *names[:start]]
    return order if number % 2 == 0 else order[::-1]


class _Turns:
    """One subject's calls, in turns."""

    def __init__(
        self,
        subject: Subject,
        timing: Timing,
        effort: Effort,
        synchronize: Callable[[], None],
        clock: Callable[[], int],
    ):
        self.subject, self.timing, self.effort = subject, timing, effort
        self.synchronize, self.clock = synchronize, clock
        self.number = 0  # of calls, counted or not
        self.total = 0  # nanoseconds of those that count
        self.length = 1  # counted calls in a turn

    @property
    def done(self) -> bool:
        return self.timing.error is not None or self.effort.enough(len(self.timing.nanoseconds), self.total)

    def warm_up(self) -> None:
        """Each input once, or as many as fit into a tenth of the time; says how many calls make a turn."""
        taken: list[int] = []
        while len(taken) < max(WARMUP, len(self.subject.inputs)):
            if len(taken) >= WARMUP and sum(taken) >= self.effort.seconds / 10 * 1e9:
                break
            if (nanoseconds := self._call()) is None:
                return
            taken.append(nanoseconds)
        typical = sorted(taken)[len(taken) // 2] / 1e9
        self.length = math.ceil(self.effort.expected(typical) / ROUNDS)

    def take(self) -> None:
        """One turn: the first call doesn't count."""
        self._call()
        for _ in range(self.length):
            if self.done or (nanoseconds := self._call()) is None:
                return
            self.timing.nanoseconds.append(nanoseconds)
            self.total += nanoseconds

    def _call(self) -> int | None:
        """Nanoseconds of one call, with the next of the inputs; None if it raised."""
        inputs = self.subject.inputs[self.number % len(self.subject.inputs)]
        self.number += 1
        try:
            self.synchronize()
            begun = self.clock()
            self.subject.call(inputs)
            self.synchronize()
            return self.clock() - begun
        except Exception as error:  # whatever a runtime raises on what it can't do
            self.timing.error = error
            self.timing.nanoseconds.clear()
            return None


def figures(nanoseconds: Sequence[int], batch_size: int) -> dict[str, float | int]:
    """Percentiles (interpolated linearly) and mean in milliseconds; samples per second: all samples in all time."""
    milliseconds = np.asarray(nanoseconds, dtype=np.float64) / 1e6
    points = np.percentile(milliseconds, PERCENTILES)
    return {
        "calls": len(nanoseconds),
        **{f"p{percent}_ms": float(point) for percent, point in zip(PERCENTILES, points, strict=True)},
        "mean_ms": float(milliseconds.mean()),
        "samples_per_second": float(batch_size * len(milliseconds) / (milliseconds.sum() / 1e3)),
    }


@contextmanager
def quiet() -> Iterator[None]:
    """Python's garbage is collected before, and not in between."""
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
