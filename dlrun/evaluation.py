"""What an evaluation finds out about a run on a split, and the files that it leaves of it."""

from __future__ import annotations

import csv
import io
import logging
import shutil
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from dlrun.data.source import Split, fingerprint
from dlrun.errors import UserError
from dlrun.findings import MOST, Findings, findings, measured
from dlrun.loading import LoadedRun, SplitName
from dlrun.mistakes import predictions
from dlrun.scoring import Calibration, ClassScores, brier, confused, confusion_matrix, top_k_accuracy
from dlrun.tracking import Mistake, Predictions

log = logging.getLogger("dlrun")

PAIRS = 20  # of classes that are confused, at most
SIDE = 96  # pixels: a picture that is smaller is enlarged, or nobody would see it


@dataclass(frozen=True)
class Evaluation:
    """A split as a run answers it; N samples, K classes."""

    split_name: SplitName
    split: Split
    same_data: bool | None  # that of the training; None if its checkpoint doesn't know
    fingerprint: str
    metrics: dict[str, float]  # by `split/name`; loss and accuracy are what the training's own test says
    predicted: dict[str, Tensor]  # as `Evaluator.examine` has it
    class_names: Sequence[str]
    confusion: Tensor  # (K, K): truth, guess
    scores: ClassScores
    calibration: Calibration
    predictions: Predictions

    def content(self) -> dict[str, Any]:
        """All of it but the single predictions, as plain values."""
        names, scores, bins = self.class_names, self.scores, self.calibration
        rows = zip(names, *(getattr(scores, field).tolist() for field in PER_CLASS), strict=True)
        edges = [i / len(bins.counts) for i in range(len(bins.counts) + 1)]
        parts = (edges[:-1], edges[1:], bins.counts.tolist(), bins.confidence.tolist(), bins.accuracy.tolist())
        return {
            "split": self.split_name,
            "samples": len(self.predicted["targets"]),
            "same_data": self.same_data,
            "fingerprint": self.fingerprint,
            "metrics": self.metrics,
            "class_names": list(names),
            "per_class": [dict(zip(("class", *PER_CLASS), row, strict=True)) for row in rows],
            "confused": [
                {
                    "truth": names[truth],
                    "prediction": names[guess],
                    "samples": n,
                    "share": n / int(scores.support[truth]),
                }
                for truth, guess, n in confused(self.confusion, PAIRS)
            ],
            "confusion_matrix": self.confusion.tolist(),
            "reliability": [
                dict(zip(("above", "up_to", "samples", "confidence", "accuracy"), row, strict=True))
                for row in zip(*parts, strict=True)
            ],
        }

    def findings(self, run: LoadedRun) -> Findings:
        """What there is to draw of it."""
        judge = run.evaluator()

        def relevance(tokens: Tensor, classes: Tensor) -> Tensor | None:
            return judge.relevance(run.network, run.prepare(tokens), classes)

        worst = predictions(self.predicted, self.split, self.class_names, MOST).mistakes
        head = {"split": self.split_name, "epoch": run.progress.get("epoch")}
        return findings(self.predicted, worst, self.split, run.spec, relevance, head)


PER_CLASS = ("precision", "recall", "f1", "support", "predicted")


def evaluate(run: LoadedRun, name: SplitName, elsewhere: bool, worst: int) -> Evaluation:
    """Judge a run by a split, in one pass. Raises UserError if there is no such data, or it isn't for this run.

    `elsewhere`: the user has named other data than the config does. If that isn't a copy of the run's, nothing of it
    is held out for a training: where it has no test split, all of it is.
    """
    trained = (run.state.get("data") or {}).get(name)
    split = _read(run, name, elsewhere, trained)
    found = fingerprint(split)
    same = None if trained is None else found == trained
    with closing(run.batches(name, split)) as batches:
        metrics, predicted = run.evaluator().examine(batches, name)
    targets, guesses, probabilities = predicted["targets"], predicted["guesses"], predicted["probabilities"]
    confusion = confusion_matrix(targets, guesses, run.spec.num_outputs)
    scores = ClassScores.of(confusion)
    confidences = probabilities.gather(1, guesses.unsqueeze(1)).squeeze(1)
    calibration = Calibration.of(confidences, guesses == targets)
    more = {"top5": top_k_accuracy(predicted["ranks"], 5)} if run.spec.num_outputs > 5 else {}
    more |= {"balanced_acc": scores.balanced_accuracy()}
    for average, means in (("macro", scores.macro()), ("weighted", scores.weighted())):
        more |= {f"{average}_{score}": value for score, value in means.items()}
    more |= {"ece": calibration.error, "brier": brier(probabilities, targets)}
    return Evaluation(
        split_name=name,
        split=split,
        same_data=same,
        fingerprint=found,
        metrics=metrics | {f"{name}/{score}": value for score, value in more.items()},
        predicted=predicted,
        class_names=run.class_names,
        confusion=confusion,
        scores=scores,
        calibration=calibration,
        predictions=predictions(predicted, split, run.class_names, worst, f"eval/{name}"),
    )


def _read(run: LoadedRun, name: SplitName, elsewhere: bool, trained: str | None) -> Split:
    if not elsewhere or name != "test":
        return run.split(name)
    try:
        split = run.split(name)
        if fingerprint(split) == trained:  # a copy
            return split
    except UserError:  # what can't be divided may do as a whole
        pass
    return run.split(name, whole=True)


def table(evaluation: Evaluation, every: bool) -> bytes:
    """The predictions as CSV, a line per sample in the split's own order; with `every`, a probability per class."""
    predicted, names = evaluation.predicted, evaluation.class_names
    paths, folder = getattr(evaluation.split, "paths", None), getattr(evaluation.split, "folder", None)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    own = ["file"] if paths is not None else []
    probabilities = [f"p({name})" for name in names] if every else []
    writer.writerow(["index", *own, "truth", "prediction", "probability", "loss", *probabilities])
    columns = (predicted[key].tolist() for key in ("targets", "guesses", "losses"))
    for i, (truth, guess, loss) in enumerate(zip(*columns, strict=True)):
        file = [] if paths is None else [paths[i].relative_to(folder).as_posix()]
        row = predicted["probabilities"][i].tolist() if every else []
        chosen = predicted["probabilities"][i, guess].item()
        writer.writerow([i, *file, names[truth], names[guess], *(f"{v:.9g}" for v in (chosen, loss, *row))])
    return text.getvalue().encode()


def write_mistakes(evaluation: Evaluation, run: LoadedRun, folder: Path) -> list[dict[str, Any]]:
    """The worst mistakes as plain values; pictures go into `folder`, which is made anew, and are named by their file.

    Raises UserError if they can't be written.
    """
    found = []
    try:
        if folder.exists():
            shutil.rmtree(folder)
        for place, mistake in enumerate(evaluation.predictions.mistakes, 1):
            entry = {"index": mistake.index, "truth": mistake.truth, "prediction": mistake.guess}
            entry |= {"probability": mistake.probability, "loss": mistake.loss}
            found.append(entry | _shown(mistake, place, run, evaluation.split, folder))
    except OSError as error:
        raise UserError(f"can't write {folder} ({error.strerror})") from error
    return found


def _shown(mistake: Mistake, place: int, run: LoadedRun, split: Split, folder: Path) -> dict[str, Any]:
    sample = mistake.sample
    if isinstance(sample, str):
        return {"text": sample}
    if run.spec.modality != "image":  # as it was before it was standardised, if it was
        return {"row": measured(sample, run.spec)}
    source = {"source": str(split.paths[mistake.index])} if hasattr(split, "paths") else {}
    if sample.shape[2] not in (1, 3, 4):
        return source
    names = ("".join(c if c.isalnum() else "_" for c in name)[:40] for name in (mistake.truth, mistake.guess))
    file = folder / "{:03d}-{}-as-{}.png".format(place, *names)
    _write_png(sample, file)
    return source | {"picture": f"{folder.name}/{file.name}"}


def _write_png(pixels: np.ndarray, file: Path) -> None:
    """pixels (H, W, C) uint8, a small picture's each as a square of several."""
    from PIL import Image

    times = max(1, SIDE // max(pixels.shape[:2]))
    enlarged = pixels.repeat(times, axis=0).repeat(times, axis=1)
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(enlarged[..., 0] if enlarged.shape[2] == 1 else enlarged).save(file)


def values(evaluation: Evaluation, stem: str) -> Mapping[str, float]:
    """What trackers are told: `eval/test/acc` of the best checkpoint on its own data, else under the file's name."""
    name = evaluation.split_name
    place = name if stem == f"{name}-best" else stem
    return {f"eval/{place}/{key.partition('/')[2]}": value for key, value in evaluation.metrics.items()}
