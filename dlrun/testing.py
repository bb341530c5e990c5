"""The test: the best checkpoint on the test split, once, when the training is over."""

from __future__ import annotations

import math

import torch

from dlrun import checkpoint
from dlrun.build import Run
from dlrun.errors import TrainingError
from dlrun.mistakes import predictions
from dlrun.runfolder import RunFolder
from dlrun.trainer import Status, Trainer


def keep_untrained(trainer: Trainer) -> Status:
    """Take the weights as they are for the best ones, of epoch 0, with their metrics on the validation split."""
    trainer.progress.best = {"epoch": 0, "step": 0, trainer.limits.monitor: math.nan}
    trainer.progress.best |= trainer.evaluator.evaluate(trainer.val_batches, "val")
    trainer.writer.put(trainer.state(), best=True)
    return "finished"


def evaluate_best(trainer: Trainer, run: Run, folder: RunFolder) -> dict[str, float] | None:
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
    if predicted:
        trainer.tracker.predictions(predictions(predicted, run.inputs.test.split, run.spec.class_names))
    return metrics
