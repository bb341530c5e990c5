"""The test: the best checkpoint on the test split, once, when the training is over."""

from __future__ import annotations

import torch

from dlrun import checkpoint
from dlrun.build import Run
from dlrun.errors import TrainingError
from dlrun.runfolder import RunFolder
from dlrun.tracking import Mistake, Predictions
from dlrun.trainer import Trainer

WORST_MISTAKES = 32


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
    metrics = trainer.evaluator.evaluate(run.inputs.test, "test")
    predicted = trainer.evaluator.predict(run.inputs.test)
    guesses = predicted["probabilities"].argmax(dim=1)
    wrong = (guesses != predicted["targets"]).nonzero().flatten()
    worst = wrong[predicted["losses"][wrong].argsort(descending=True)][:WORST_MISTAKES].tolist()
    names, split = run.spec.class_names, run.inputs.test.split
    mistakes = [
        Mistake(
            index=i,
            sample=split.show(i),
            truth=names[predicted["targets"][i]],
            guess=names[guesses[i]],
            probability=predicted["probabilities"][i, guesses[i]].item(),
            loss=predicted["losses"][i].item(),
        )
        for i in worst
    ]
    trainer.tracker.model(folder.best)
    trainer.tracker.predictions(Predictions(names, predicted["targets"].tolist(), guesses.tolist(), mistakes))
    return metrics
