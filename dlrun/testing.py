"""The test: the best checkpoint on the test split, once, when the training is over."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from dlrun import checkpoint
from dlrun.build import Run
from dlrun.errors import TrainingError
from dlrun.findings import Findings, findings
from dlrun.mistakes import predictions
from dlrun.runfolder import RunFolder
from dlrun.tracking import Predictions
from dlrun.trainer import Status, Trainer


def keep_untrained(trainer: Trainer) -> Status:
    """Take the weights as they are for the best ones, of epoch 0, with their metrics on the validation split."""
    trainer.progress.best = {"epoch": 0, "step": 0, trainer.limits.monitor: math.nan}
    trainer.progress.best |= trainer.evaluator.evaluate(trainer.val_batches, "val")
    trainer.writer.put(trainer.state(), best=True)
    return "finished"


@dataclass(frozen=True)
class Tested:
    """What came of it: metrics, and what there is to show of them (nothing in processes that don't write)."""

    metrics: dict[str, float]
    findings: Callable[[], Findings] | None = None


def evaluate_best(trainer: Trainer, run: Run, folder: RunFolder) -> Tested | None:
    """Metrics of the best checkpoint on the test split: its first and only look at it. Trackers get the mistakes.

    None if time was up before there was one. Raises TrainingError if the best one isn't there, though it should be.
    """
    best = trainer.progress.best
    if not best:
        if trainer.out_of_time():
            return None
        raise TrainingError(f"{run.limits.monitor} was never a number: there is no best checkpoint to test")
    state = checkpoint.load(folder.best, torch.device("cpu"))  # its optimizer needs no room on the device
    if state["progress"]["epoch"] != best["epoch"]:
        raise TrainingError(f"{folder.best} isn't of epoch {best['epoch']}, the best one: it couldn't be saved")
    trainer.load_weights(state)
    metrics, predicted = trainer.evaluator.examine(run.inputs.test, "test")
    trainer.tracker.model(folder.best)
    if not predicted:
        return Tested(metrics)
    said = predictions(predicted, run.inputs.test.split, run.spec.class_names)
    trainer.tracker.predictions(said)
    return Tested(metrics, lambda: _findings(trainer, run, predicted, said))


def _findings(trainer: Trainer, run: Run, predicted: Mapping[str, Tensor], said: Predictions) -> Findings:
    def relevance(tokens: Tensor, classes: Tensor) -> Tensor | None:
        return trainer.evaluator.relevance(trainer.weights, run.inputs.test.prepare(tokens), classes)

    head = {"split": "test", "epoch": trainer.progress.best["epoch"]}
    return findings(predicted, said.mistakes, run.inputs.test.split, run.spec, relevance, head)
