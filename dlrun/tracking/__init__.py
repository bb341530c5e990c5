"""Where metrics go: files and terminal always, W&B and TensorBoard by choice.

A tracker is told numbers under their `split/name`; it never holds up or changes the training.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np

log = logging.getLogger("dlrun")


@dataclass
class Mistake:
    """A test sample that the model got wrong: what it looks like, the truth, the guess, and how sure it was."""

    index: int
    sample: Any  # pixels (H, W, C), a text, or a row of numbers
    truth: str
    guess: str
    probability: float
    loss: float


@dataclass
class Predictions:
    """What the model said on a split."""

    class_names: Sequence[str]
    truths: Sequence[int]
    guesses: Sequence[int]
    mistakes: Sequence[Mistake]  # the worst first
    name: str = "test"  # of the split, and of what is shown of it
    probabilities: np.ndarray | None = None  # (N, K) float32
    show: Callable[[int], Any] | None = None  # a sample by its index, as in `Mistake`; may raise UserError


class Tracker(Protocol):
    """One place that metrics go to."""

    def rewind(self, epoch: int, step: int, rollbacks: int) -> None:
        """Before the first step of a resumed run, and when a run goes back to a checkpoint.

        What was told after that epoch and step is void, and will be told again. `rollbacks` counts the times that the
        run went back by itself; what comes after such a return differs from what was told before it.
        """

    def step(self, metrics: dict[str, float], step: int) -> None:
        """Every `trainer.log_every_n_steps` optimizer steps."""

    def epoch(self, row: dict[str, float | None]) -> None:
        """Once per epoch: the row of metrics.csv."""

    def predictions(self, predictions: Predictions) -> None:
        """Once, after the test."""

    def model(self, path: Path) -> None:
        """Once, after the test: the best checkpoint."""

    def plots(self, paths: Sequence[Path]) -> None:
        """Once, before the end, however the run ended: the pictures that were drawn of it."""

    def finish(self, summary: dict[str, Any]) -> None:
        """Once, at the end, however the run ended: summary.json."""


class Quiet:
    """The base of trackers that don't care for all of it."""

    def rewind(self, epoch: int, step: int, rollbacks: int) -> None: ...

    def step(self, metrics: dict[str, float], step: int) -> None: ...

    def epoch(self, row: dict[str, float | None]) -> None: ...

    def predictions(self, predictions: Predictions) -> None: ...

    def model(self, path: Path) -> None: ...

    def plots(self, paths: Sequence[Path]) -> None: ...

    def finish(self, summary: dict[str, Any]) -> None: ...


class Trackers:
    """Several trackers as one. What one of them raises is said once, and costs the run that tracker, no more."""

    def __init__(self, *trackers: Tracker):
        self.trackers = list(trackers)

    def rewind(self, epoch: int, step: int, rollbacks: int) -> None:
        self._tell(lambda tracker: tracker.rewind(epoch, step, rollbacks))

    def step(self, metrics: dict[str, float], step: int) -> None:
        self._tell(lambda tracker: tracker.step(metrics, step))

    def epoch(self, row: dict[str, float | None]) -> None:
        self._tell(lambda tracker: tracker.epoch(row))

    def predictions(self, predictions: Predictions) -> None:
        self._tell(lambda tracker: tracker.predictions(predictions))

    def model(self, path: Path) -> None:
        self._tell(lambda tracker: tracker.model(path))

    def plots(self, paths: Sequence[Path]) -> None:
        self._tell(lambda tracker: tracker.plots(paths))

    def finish(self, summary: dict[str, Any]) -> None:
        self._tell(lambda tracker: tracker.finish(summary))

    def _tell(self, say: Callable[[Tracker], None]) -> None:
        for tracker in list(self.trackers):
            try:
                say(tracker)
            except Exception:
                log.exception("%s failed; the run goes on without it", type(tracker).__name__)
                self.trackers.remove(tracker)
