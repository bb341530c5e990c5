"""`data.num_workers=auto`: how many loader processes pay, found out in the first seconds of the training itself."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator
from typing import Literal

import torch

from dlrun.cores import cores
from dlrun.data.augment import Augment
from dlrun.data.placement import placed
from dlrun.data.source import ArraySplit, Split
from dlrun.data.worker import Batch
from dlrun.data.workers import AHEAD, Workers

log = logging.getLogger("dlrun")

WORTH = 0.05  # a gain that is smaller isn't worth a process, nor to be told from chance
SECONDS, BATCHES = 1.0, 10  # that a number is measured for, at least
PROOF = 3  # times as long at first, without processes: a training that is over by then is spared the trials
DOUBTFUL = 1.5  # times as fast as without processes: what is less has to be so twice, on a machine that others use too


class Staff:
    """Who fetches the batches of a run's splits: `data.num_workers` processes, or as many as pay where it is auto."""

    def __init__(self, number: int | Literal["auto"], device: torch.device, measures: bool = True):
        self.number, self.device = number, device
        self.workers = Workers(0 if number == "auto" else number)
        self.tuner = Tuner(self.workers) if number == "auto" and measures else None

    def assign(self, split: Split, augment: Augment | None = None) -> tuple[Split, Workers]:
        """The split where it is best kept, and who fetches from it: nobody but this process, where that costs nothing.

        What other processes fetch, or the CPU augments, has to begin in the host's memory.
        """
        if augment is None and self.number in ("auto", 0):
            split = placed(split, self.device)
        if self.number == "auto" and not costly(split, augment):
            return split, Workers()
        return split, self.workers


class Tuner:
    """Sets the number of `workers` to the smallest with which the training gets the most samples per second.

    It watches the batches on their way: first without processes, and if the training then waits for data, with 1, 2, 4
    … up to `most` of them, for as long as that helps. What fails on the way isn't tried again.
    """

    def __init__(self, workers: Workers, most: int | None = None, clock: Callable[[], float] = time.perf_counter):
        self.workers, self.clock = workers, clock
        self.most = cores() if most is None else most
        self.rates: dict[int, float] = {}  # number of processes → samples per second
        self.share = 0.0  # of the time, that the training waited for data when last measured
        self.done = False
        self._try(0)

    def watched(self, batches: Generator[Batch]) -> Generator[Batch]:
        """The same batches, of one epoch or the rest of it; what happens between two epochs isn't counted."""
        try:
            while not self.done:
                asked = self.clock()
                batch = next(batches, None)
                if batch is None:
                    return
                given, samples = self.clock(), len(batch[1])
                yield batch
                del batch
                self._note(samples, given - asked, self.clock() - asked)
            yield from batches
        finally:
            batches.close()

    def _try(self, number: int) -> None:
        self.number = self.workers.number = number
        self.unsteady = 1 + max(AHEAD * number, 4)  # batches until the pipe has filled, and what is slow once is over
        self.batches, self.samples, self.waited, self.seconds = 0, 0, 0.0, 0.0

    def _note(self, samples: int, waited: float, seconds: float) -> None:
        """A batch: how long the training waited for it, and how long for it and its step."""
        if self.workers.number != self.number:  # it went wrong, and that was said
            self._settle()
            return
        if self.unsteady > 0:
            self.unsteady -= 1
            return
        self.batches, self.samples = self.batches + 1, self.samples + samples
        self.waited, self.seconds = self.waited + waited, self.seconds + seconds
        enough = SECONDS if self.rates else SECONDS * PROOF
        if self.batches >= max(BATCHES, AHEAD * self.number) and self.seconds >= enough:
            self._judge()

    def _judge(self) -> None:
        before, rate = max(self.rates.values(), default=0.0), self.samples / self.seconds
        if self.number in self.rates:  # measured for the second time; others who want the cores only make it slower
            self.rates[self.number] = max(rate, self.rates[self.number])
            self._settle()
            return
        self.rates[self.number], self.share = rate, self.waited / self.seconds
        # A single process may be no better than none, where the step is short, and two of them twice as good.
        helped = self.number <= 1 or rate > (1 + WORTH) * before
        best = self._best()
        if self.number < self.most and helped and self.share >= WORTH:
            self.workers.fallback = best
            self._try(min(max(2 * self.number, 1), self.most))
        elif best > 0 and self.rates[best] < DOUBTFUL * self.rates[0]:
            self._try(0)
        else:
            self._settle()

    def _best(self) -> int:
        most = max(self.rates.values())
        return min(number for number, rate in self.rates.items() if (1 + WORTH) * rate >= most)

    def _settle(self) -> None:
        self.done, self.workers.fallback = True, None
        self.workers.number = self._best()
        if list(self.rates) == [0]:
            what = f"0 gives {self.rates[0]:,.0f} samples/s, {self.share:.0%} of the time is waiting for data"
        else:
            what = (
                ", ".join(f"{n} {'give' if n > 1 else 'gives'} {r:,.0f}" for n, r in self.rates.items()) + " samples/s"
            )
        log.info("data.num_workers=auto: %s: %d", what, self.workers.number)


def costly(split: Split, augment: Augment | None) -> bool:
    """Whether a batch takes work on the host: reading, decoding, resizing, augmenting."""
    return augment is not None or not isinstance(split, ArraySplit) or getattr(split, "size", None) is not None
