"""What a model said of a split, as objects of W&B's own: charts of tables, which can be sorted and joined over runs.

N samples, K classes. Whatever N and K are, no table has more than 10,000 rows, which is what a chart of W&B's takes,
and pictures and texts in them are cut to a size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlrun.errors import UserError
from dlrun.tracking import Predictions

if TYPE_CHECKING:
    import numpy as np

MOST_CLASSES = 100  # a confusion matrix has a row for each pair
MOST_PAIRS = 1_000  # of classes, where they are too many for a matrix
MOST_CURVES = 10  # classes with a curve of their own; more can't be told apart
POINTS = 101  # of a curve
EXAMPLES = 32  # samples whose predictions are shown, right and wrong ones
MOST_COLUMNS = 20  # classes with a column of probabilities; of more the likeliest five are named
LONGEST_SIDE, SMALLEST_SIDE = 256, 64  # pixels
LONGEST_TEXT = 2_000  # characters
MOST_VALUES = 64  # of a row of numbers
LARGEST_PLOT = 8_000_000  # bytes


def charts(predictions: Predictions) -> dict[str, Any]:
    """As W&B shows it, by `split/chart`: confusion, precision-recall, ROC, calibration; mistakes and predictions."""
    shown = {"mistakes": _mistakes(predictions), **_confusion(predictions)}
    if predictions.probabilities is not None:
        shown |= _curves(predictions)
        shown["calibration"] = _calibration(predictions)
        if predictions.show is not None:
            shown["predictions"] = _examples(predictions)
    return {f"{predictions.name}/{chart}": value for chart, value in shown.items()}


def images(paths: Sequence[Path]) -> dict[str, Any]:
    """Pictures that were drawn, by `plots/name`; what isn't there, is damaged or too large to send, is left out."""
    import wandb

    shown: dict[str, Any] = {}
    for path in paths:
        with suppress(OSError):
            if path.stat().st_size <= LARGEST_PLOT:
                shown[f"plots/{path.stem}"] = wandb.Image(str(path))
    return shown


def _confusion(predictions: Predictions) -> dict[str, Any]:
    """The matrix, as large as W&B draws it; of more classes the pairs that are confused most often."""
    import wandb

    names, title = list(predictions.class_names), f"{predictions.name}/confusion_matrix"
    if len(names) <= MOST_CLASSES:
        truths, guesses = list(predictions.truths), list(predictions.guesses)
        matrix = wandb.plot.confusion_matrix(y_true=truths, preds=guesses, class_names=names, title=title)
        return {"confusion_matrix": matrix}
    from collections import Counter

    pairs = zip(predictions.truths, predictions.guesses, strict=True)
    counts = Counter(pair for pair in pairs if pair[0] != pair[1]).most_common(MOST_PAIRS)
    rows = [[names[truth], names[guess], count] for (truth, guess), count in counts]
    return {"confused": wandb.Table(columns=["truth", "guess", "samples"], data=rows)}


def _curves(predictions: Predictions) -> dict[str, Any]:
    """Each of a few classes against the rest, in the chart that wandb.plot.pr_curve and roc_curve make.

    Those two need pandas, and send a point for every sample.
    """
    if len(predictions.class_names) > MOST_CURVES:
        return {}
    import torch

    from dlrun.scoring import OperatingPoints

    truths, probabilities = torch.tensor(predictions.truths), torch.from_numpy(predictions.probabilities)
    recalls = torch.linspace(0, 1, POINTS, dtype=torch.float64)
    precision: list[list[Any]] = []
    roc: list[list[Any]] = []
    for number, name in enumerate(predictions.class_names):
        positive = truths == number
        if not 0 < int(positive.sum()) < len(truths):
            continue  # nothing to be found, or nothing to be told from it
        points = OperatingPoints.of(probabilities[:, number], positive)
        found = points.precision_at(recalls)
        precision += [[name, r, p] for r, p in zip(recalls.tolist(), found.tolist(), strict=True)]
        alarms, recall = points.thinned(POINTS)
        roc += [[name, x, y] for x, y in zip(alarms.tolist(), recall.tolist(), strict=True)]
    if not roc:
        return {}
    name = predictions.name
    return {
        "precision_recall": _lines(precision, ("recall", "precision"), f"{name}: precision at each recall"),
        "roc": _lines(roc, ("false positive rate", "true positive rate"), f"{name}: ROC"),
    }


def _lines(rows: list[list[Any]], axes: tuple[str, str], title: str) -> Any:
    """rows (class, x, y)."""
    import wandb

    x, y = axes
    return wandb.plot_table(
        vega_spec_name="wandb/area-under-curve/v0",
        data_table=wandb.Table(columns=["class", x, y], data=rows),
        fields={"x": x, "y": y, "class": "class"},
        string_fields={"title": title, "x-axis-title": x, "y-axis-title": y},
    )


def _calibration(predictions: Predictions) -> Any:
    """How often it is right, by how sure it says it is; the diagonal is what would be true."""
    import torch
    import wandb

    from dlrun.scoring import Calibration

    guesses = torch.tensor(predictions.guesses)
    sure = torch.from_numpy(predictions.probabilities).gather(1, guesses.unsqueeze(1)).squeeze(1)
    bins = Calibration.of(sure, guesses == torch.tensor(predictions.truths))
    full = bins.counts > 0
    return wandb.plot.line_series(
        xs=[bins.confidence[full].tolist(), [0.0, 1.0]],
        ys=[bins.accuracy[full].tolist(), [0.0, 1.0]],
        keys=["this model", "as sure as it is right"],
        title=f"{predictions.name}: calibration (share of right answers), ECE {bins.error:.4f}",
        xname="probability of its answer, mean of a bin",
    )


def _mistakes(predictions: Predictions) -> Any:
    import wandb

    table = wandb.Table(columns=["index", "sample", "truth", "guess", "probability", "loss"])
    for m in predictions.mistakes:
        table.add_data(m.index, _shown(m.sample), m.truth, m.guess, m.probability, m.loss)
    return table


def _examples(predictions: Predictions) -> Any:
    """Samples from all over the split, right and wrong ones alike, and how likely each class was."""
    import wandb

    names = list(predictions.class_names)
    columns = [f"p({name})" for name in names] if len(names) <= MOST_COLUMNS else ["likeliest"]
    table = wandb.Table(columns=["index", "sample", "truth", "guess", "right", "probability", *columns])
    for index, sample, row in _drawn(predictions):
        truth, guess = predictions.truths[index], predictions.guesses[index]
        best = row.argsort(kind="stable")[::-1][:5]
        named = [", ".join(f"{names[i]} {100 * row[i]:.1f} %" for i in best)]
        said = [float(share) for share in row] if len(names) <= MOST_COLUMNS else named
        right = bool(truth == guess)
        table.add_data(index, _shown(sample), names[truth], names[guess], right, float(row[guess]), *said)
    return table


def _drawn(predictions: Predictions) -> Iterator[tuple[int, Any, np.ndarray]]:
    """At most EXAMPLES samples, evenly spaced over the split: index, sample, probabilities (K,)."""
    assert predictions.probabilities is not None
    assert predictions.show is not None
    count = len(predictions.truths)
    for place in range(min(count, EXAMPLES)):
        index = place * count // min(count, EXAMPLES)
        try:
            yield index, predictions.show(index), predictions.probabilities[index]
        except UserError:  # a file that has gone since
            continue


def _shown(sample: Any) -> Any:
    """A sample as a table's cell: a picture, a text."""
    if isinstance(sample, str):
        return sample if len(sample) <= LONGEST_TEXT else sample[: LONGEST_TEXT - 1] + "…"
    if getattr(sample, "ndim", 1) == 3:
        return _picture(sample)
    values = [f"{value:.3g}" for value in sample[:MOST_VALUES]]
    return ", ".join(values if len(sample) <= MOST_VALUES else [*values, "…"])


def _picture(pixels: np.ndarray) -> Any:
    """pixels (H, W, C), of any size: a large picture is made smaller, and a tiny one larger, pixel by pixel.

    Numbers that aren't bytes are taken for 0 to 1, or for −1 to 1 where some are negative.
    """
    import numpy as np
    import wandb
    from PIL import Image

    if pixels.shape[2] not in (1, 3, 4):
        pixels = pixels[..., :1]
    if pixels.dtype.kind == "f":
        pixels = np.clip(255 * (pixels if pixels.min() >= 0 else (pixels + 1) / 2), 0, 255).astype(np.uint8)
    picture = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    longest = max(picture.size)
    if longest > LONGEST_SIDE:
        picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
        # A photo of that size is 10 kB as JPEG, and 100 kB as PNG.
        return wandb.Image(picture.convert("RGB"), file_type="jpg")
    if longest < SMALLEST_SIDE:
        times = -(-SMALLEST_SIDE // longest)
        picture = picture.resize((picture.width * times, picture.height * times), Image.Resampling.NEAREST)
    return wandb.Image(picture)
