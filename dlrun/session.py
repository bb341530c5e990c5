"""A run that is ready to train, where its time goes, and how it is brought to its end."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import Any, Literal

from dlrun.build import Run
from dlrun.distributed import Ranks
from dlrun.drawing import Drawing
from dlrun.errors import UserError
from dlrun.findings import Findings
from dlrun.messages import farewell
from dlrun.runfolder import RunFolder
from dlrun.tracking import Trackers
from dlrun.trainer import Trainer
from dlrun.writer import CheckpointWriter

log = logging.getLogger("dlrun")


@dataclass
class Times:
    """Seconds, over all parts of a run, of what the trainer doesn't count itself."""

    starting: float = 0.0
    test: float = 0.0
    drawing: float = 0.0
    saving: float = 0.0  # that was waited for after the training

    @classmethod
    def after(cls, before: Mapping[str, float], starting: float) -> Times:
        """Of a run whose earlier parts took `before`, as its summary has it, and whose start has just taken its own."""
        return cls(before.get("starting", 0.0) + starting, before.get("test", 0.0), before.get("drawing", 0.0))


@dataclass
class Session:
    """A run that is ready to train."""

    run: Run
    trainer: Trainer
    writer: CheckpointWriter
    trackers: Trackers
    earlier: float  # seconds that the run took before this process
    times: Times
    drawing: Drawing | None = None
    untrained: bool = False
    ranks: Ranks | None = None
    findings: Callable[[], Findings] | None = None  # what the test has to show

    @contextmanager
    def timed(self, part: Literal["test", "drawing", "saving"]) -> Iterator[None]:
        """What is done in the block takes that part of the time."""
        began = time.monotonic()
        try:
            yield
        finally:
            setattr(self.times, part, getattr(self.times, part) + time.monotonic() - began)

    def time_by_part(self) -> dict[str, float]:
        """Where it went: seconds of the wall clock, of all parts of the run."""
        times, training = asdict(self.times), self.trainer.progress.times()
        training["saving"] += times["saving"]
        return {"starting": times["starting"], **training, "test": times["test"], "drawing": times["drawing"]}

    def close(
        self, folder: RunFolder, outcome: Mapping[str, Any], seconds: float, asked_to_stop: Callable[[], bool]
    ) -> dict[str, Any]:
        """Write the summary first, then draw and tell the trackers: none of them can cost us the truth.

        What the test found is noted before: whoever is killed while it draws has the pictures drawn by a resume.
        """
        began, trainer, progress = time.monotonic() - seconds, self.trainer, self.trainer.progress
        with self.timed("saving"):
            unsaved = self.writer.close()
        if unsaved is not None:
            error = f"the last checkpoint couldn't be saved: {unsaved}"
            error = error if outcome["error"] is None else f"{outcome['error']}; {error}"
            status = outcome["status"] if outcome["exit_code"] else "failed"
            outcome = {**outcome, "status": status, "exit_code": outcome["exit_code"] or 1, "error": error}
        if self.drawing is not None and self.findings is not None:
            with self.timed("drawing"):
                self.drawing.note(self.findings)
        trained = progress.train_seconds + progress.epoch_seconds
        summary = {
            **outcome,
            "seconds": time.monotonic() - began,
            "epochs": progress.epoch,
            "steps": progress.step,
            "samples_per_second": (progress.samples_seen + progress.samples) / trained if trained else None,
            "best": progress.best,
            "time": self.time_by_part(),
        }
        if summary["status"] == "stopped_early":
            summary["out_of_time"] = trainer.out_of_time()
        if trainer.limits.on_nonfinite == "skip":
            summary["skipped_steps"] = progress.skipped
        try:
            summary = folder.update_summary(**summary)
        except OSError as error:  # the disk is full, most likely: at least this process tells
            log.error("%s couldn't be written: %s", folder.summary, error)
            summary = {**summary, "exit_code": summary["exit_code"] or 1}
        if self.drawing is not None:
            summary |= self._draw(self.drawing, folder, began, asked_to_stop)
        self.trackers.finish(summary)
        farewell(os.path.relpath(folder.path), summary, trainer.limits, folder.last.exists())
        return summary

    def _draw(
        self, drawing: Drawing, folder: RunFolder, began: float, asked_to_stop: Callable[[], bool]
    ) -> dict[str, Any]:
        """The pictures, and what the summary has to say of the time that they took."""
        with self.timed("drawing"):
            pictures = drawing.end(asked_to_stop)
        self.trackers.plots(pictures)
        changes = {"seconds": time.monotonic() - began, "time": self.time_by_part()}
        with suppress(OSError, UserError):  # it has said what matters
            folder.update_summary(**changes)
        return changes
