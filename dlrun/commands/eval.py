"""dlrun eval run=DIR|last [KEY=VALUE …]: what a run's checkpoint says of a split, and how right it is

  dlrun eval run=outputs/2026-11-23/07-38-12-3fa9c1xz
  dlrun eval run=last checkpoint=last split=val
  dlrun eval run=last data.root=other/pictures          the run's classes, vocabulary, mean and std hold
  dlrun eval run=last predictions=true                  every prediction in a CSV beside the JSON; or predictions=FILE

  checkpoint=best|last      (best)
  split=test|val|train      (test) in its own order, nothing augmented
  worst=N                   (32) mistakes with the greatest loss, in the JSON; pictures in a folder beside it
  predictions=true|FILE     (false) index, truth, prediction, probability and loss of every sample, as CSV
  probabilities=true        (false) and the probability of each class

  data.root= data.file=     a copy of the data, or other data: what has no test split is all test
  data.num_workers= data.eval_batch_size=  device=  trainer.num_threads=  tracking=none  plots=false  plugins=[…]

Loss and accuracy are those of the run's own test, to the digit. Beside them: top-5 (of more than five classes),
precision, recall and F1 per class and averaged, confusion matrix, calibration (ECE, 15 bins), Brier score. All of it is
in DIR/eval/SPLIT-CHECKPOINT.json, with a fingerprint in the name if it is of other data than the run's; and in the
run's own W&B run, if it has one. Pictures of confusion, calibration and mistakes lie beside it, each with a JSON.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dlrun.commands.opening import opened
from dlrun.errors import UserError, shortened
from dlrun.evaluation import Evaluation, evaluate, table, values, write_mistakes
from dlrun.loading import Checkpoint, LoadedRun, SplitName
from dlrun.mistakes import WORST
from dlrun.registry import Index
from dlrun.reporting import put, tell, write
from dlrun.runfolder import finite
from dlrun.viz.drawer import FOUND, draw_found

log = logging.getLogger("dlrun")

MOST_ROWS = 20  # classes on the terminal
MOST_PAIRS = 8
LONGEST = 24  # characters of a class name on the terminal
ELSEWHERE = ("data.root", "data.file")
FILELESS = ("blobs", "breast_cancer", "digits", "fake", "pydocs")  # made, or out of a package: data.root isn't read


@dataclass(frozen=True, kw_only=True)
class Options:
    checkpoint: Checkpoint = "best"
    split: SplitName = "test"
    worst: Index = WORST
    predictions: bool | str = False
    probabilities: bool = False


def run(words: Sequence[str]) -> int:
    """Evaluate, write, print and tell; returns the exit code. Raises UserError."""
    loaded, options, overrides = opened(words, Options, "eval")
    if options.probabilities and options.predictions is False:
        raise UserError("probabilities: go into the file of predictions=true|FILE, which isn't asked for")
    if isinstance(options.predictions, str):
        _check_writable(Path(options.predictions).expanduser(), loaded)
    if loaded.config.dataset.name in FILELESS and any(word.startswith("data.root=") for word in overrides):
        raise UserError(f"data.root: {loaded.config.dataset.name} has no files, and so there is no other of it")
    if loaded.folder.read_summary().get("status") == "running":
        log.warning("the run hasn't ended, or was killed: this is of its %s checkpoint so far", options.checkpoint)
    elsewhere = any(word.partition("=")[0] in ELSEWHERE for word in overrides)
    found = evaluate(loaded, options.split, elsewhere, options.worst)
    stem = f"{options.split}-{options.checkpoint}"
    if found.same_data is False:
        stem += f"-{found.fingerprint[:8]}"
        trained = "" if options.split == "train" else ", and some of them may have been trained on"
        log.warning("these aren't the samples of the run's own %s split%s", options.split, trained)
    files = _write(loaded, found, options, stem)
    if loaded.config.plots:
        files += _draw(loaded, found, stem)
    print("\n".join(_lines(loaded, found, files)))
    tell(loaded, values(found, stem), found.predictions)
    return 0


def _check_writable(file: Path, loaded: LoadedRun) -> None:
    if file.suffix.lower() != ".csv":
        raise UserError(f"predictions: expected true or a file that ends in .csv, got '{file}'")
    data = Path(loaded.config.data.root, loaded.config.dataset.options.get("file") or "")
    if file.exists() and data.exists() and file.samefile(data):
        raise UserError(f"predictions: {file} is the data, and would be replaced")
    if file.is_dir() or not file.absolute().parent.is_dir():
        raise UserError(f"predictions: expected true or a file in a folder that there is, got '{file}'")


def _write(loaded: LoadedRun, found: Evaluation, options: Options, stem: str) -> list[Path]:
    """The files that were written, the JSON last: what it names is there."""
    folder = loaded.folder.path / "eval"
    pictures, predictions, files = folder / f"{stem}-mistakes", None, []
    mistakes = write_mistakes(found, loaded, pictures)
    if pictures.exists():
        files.append(pictures)
    if options.predictions is not False:
        named = isinstance(options.predictions, str)
        predictions = Path(str(options.predictions)).expanduser() if named else folder / f"{stem}.csv"
        put(predictions, table(found, options.probabilities))
        files.append(predictions)
    data = {"root": loaded.config.data.root, "file": loaded.config.dataset.options.get("file")}
    content = {"data": {"name": loaded.config.dataset.name, **data}, **found.content(), "mistakes": mistakes}
    content["predictions"] = None if predictions is None else str(predictions)
    write(folder / f"{stem}.json", loaded, content)
    return [folder / f"{stem}.json", *files]


def _draw(loaded: LoadedRun, found: Evaluation, stem: str) -> list[Path]:
    """The pictures that a run's own test leaves, of this evaluation; what can't be drawn is a line in the log."""
    folder = loaded.folder.path / "eval"
    try:
        for name, content in found.findings(loaded).items():
            put(folder / f"{stem}-{name}.json", json.dumps(finite(content), ensure_ascii=False).encode() + b"\n")
        draw_found(folder, f"{stem}-")
    except Exception as error:
        log.debug("pictures", exc_info=True)
        log.warning("pictures: %s: %s", type(error).__name__, error)
    return [file for name in FOUND if (file := folder / f"{stem}-{name}.png").exists()]


def _lines(loaded: LoadedRun, found: Evaluation, files: Sequence[Path]) -> Iterator[str]:
    """What a person reads."""
    samples, config = len(found.predicted["targets"]), loaded.config
    of = f"{samples:,}" if samples == len(found.split) else f"{samples:,} of {len(found.split):,}"
    epoch = loaded.progress.get("epoch")
    yield (
        f"{config.model.name} on {config.dataset.name}: {found.split_name} split, {of} samples; "
        f"{loaded.checkpoint.stem} checkpoint, epoch {epoch}"
    )
    metrics = {key.partition("/")[2]: value for key, value in found.metrics.items()}
    shares = {"acc": "accuracy", "top5": "top-5", "balanced_acc": "balanced", "ece": "ECE"}
    said = [f"{label} {_percent(metrics[key])}" for key, label in shares.items() if key in metrics]
    yield "  ".join(["", f"loss {metrics['loss']:.4f}", *said, f"Brier {metrics['brier']:.4f}"])
    yield ""
    yield from _class_rows(found, metrics)
    if pairs := found.content()["confused"]:
        yield ""
        yield "most confused"
        for pair in pairs[:MOST_PAIRS]:
            truth, guess = (shortened(pair[key], LONGEST) for key in ("truth", "prediction"))
            yield f"  {truth} taken for {guess}: {pair['samples']:,} ({_percent(pair['share'])})"
    yield ""
    for file in files:
        yield f"written {os.path.relpath(file)}{os.sep if file.is_dir() else ''}"


def _class_rows(found: Evaluation, metrics: dict[str, float]) -> Iterator[str]:
    """A row per class; of many classes those with the lowest F1 among those that have samples."""
    names, scores = [shortened(name, LONGEST) for name in found.class_names], found.scores
    there = [i for i in range(len(names)) if scores.support[i] > 0]
    chosen = there
    if len(there) > MOST_ROWS:
        chosen = sorted(there, key=lambda i: scores.f1[i].item())[:MOST_ROWS]
    title = "class" if chosen is there else f"the {MOST_ROWS} worst classes"
    width = max(map(len, [title, "weighted mean", *(names[i] for i in chosen)]))
    yield f"{title:{width}}  precision    recall        F1   samples"
    for i in chosen:
        row = "  ".join(_percent(getattr(scores, key)[i].item()) for key in ("precision", "recall", "f1"))
        yield f"{names[i]:{width}}   {row}  {int(scores.support[i]):8,}"
    for average in ("macro", "weighted"):
        row = "  ".join(_percent(metrics[f"{average}_{key}"]) for key in ("precision", "recall", "f1"))
        yield f"{average + ' mean':{width}}   {row}"
    if absent := [name for name, n in zip(names, scores.support.tolist(), strict=True) if n == 0]:
        more = f" and {len(absent) - 5} more" if len(absent) > 5 else ""
        yield f"no samples of {', '.join(absent[:5])}{more}"


def _percent(value: float) -> str:
    return f"{100 * value:6.2f} %"
