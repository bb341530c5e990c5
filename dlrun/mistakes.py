"""The worst of what a model got wrong on a split: for people, wherever they look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from dlrun.data.source import Split
from dlrun.tracking import Mistake, Predictions

WORST = 32


def predictions(
    predicted: Mapping[str, Tensor], split: Split, class_names: Sequence[str], most: int = WORST, name: str = "test"
) -> Predictions:
    """What trackers are told of `Evaluator.examine`: all answers, and the mistakes of the greatest loss.

    Raises UserError if a sample can't be read again.
    """
    guesses, targets, losses = predicted["guesses"], predicted["targets"], predicted["losses"]
    wrong = (guesses != targets).nonzero().flatten()
    worst = wrong[losses[wrong].argsort(descending=True, stable=True)][:most].tolist()
    mistakes = [
        Mistake(
            index=i,
            sample=split.show(i),
            truth=class_names[int(targets[i])],
            guess=class_names[int(guesses[i])],
            probability=predicted["probabilities"][i, guesses[i]].item(),
            loss=losses[i].item(),
        )
        for i in worst
    ]
    probabilities = predicted["probabilities"].numpy()
    return Predictions(class_names, targets.tolist(), guesses.tolist(), mistakes, name, probabilities, split.show)
