"""dlrun predict run=DIR input=PATH…: classes and probabilities of your own pictures, texts or rows of numbers

  dlrun predict run=DIR input=cat.jpg                   a picture, or more of them: input=*.jpg, input=a.jpg b.jpg
  dlrun predict run=DIR input=holiday/                  all pictures in a folder, however deep
  dlrun predict run=DIR 'input=holiday/**/*.jpg'        a pattern
  find . -name '*.png' | dlrun predict run=DIR input=- out=-
  dlrun predict run=DIR text="a text"                   of a run that was trained on texts; text= again for another
  dlrun predict run=DIR input=reviews.csv               a text in each row (.csv .tsv .jsonl) or on each line (.txt, -)
  dlrun predict run=DIR input=measured.csv              of a run that was trained on a table: its features in their
                                                        order (.csv .tsv .jsonl, -), with a header or without

  top_k=5               that many classes of each sample, the most probable first (all where there are fewer)
  out=preds.csv         .csv, .jsonl or .json, which replaces what is there; - is CSV on stdout, and nothing is left in
                        the run. Without it: predict/predictions.csv in the run's folder
  text_column=text      of .csv, .tsv and .jsonl with texts (default: that of the training, or text)
  drop_columns=id,label columns of a table that are no features, by name or by place (1 is the first)
  batch_size=256        samples at a time (default: as in evaluation)
  checkpoint=best|last  which weights
  device=cpu|cuda|mps   tracking=none   trainer.num_threads=…   as in training

A picture is made what the training made of its own: decoded, resized, in the run's colours, normalised. Texts go
through the run's vocabulary, rows of numbers are standardised by its mean and deviation. What can't be read is listed
with its reason and stops nothing else; if nothing could be read, the exit code is 2 and nothing is written.
predict/predictions.json in the run's folder says what was read, what wasn't, and how often each class was predicted.
"""

from __future__ import annotations

import itertools
import logging
import os
import sys
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from dlrun import reporting
from dlrun.commands.opening import opened
from dlrun.data.foreign import Pictures, reason
from dlrun.data.listing import STDIN, Sample, Unreadable
from dlrun.data.records import Columns
from dlrun.data.samples import all_samples
from dlrun.errors import RunFailed, TrainingError, UserError, printable, shortened
from dlrun.loading import Checkpoint, LoadedRun
from dlrun.predictions import WRITERS, Row, best, written
from dlrun.registry import Count

log = logging.getLogger("dlrun")

SHOWN = 10  # rows on the terminal
LISTED = 10_000  # unreadable inputs in the JSON; the rest is counted


@dataclass(frozen=True, kw_only=True)
class Options:
    """What belongs to the command alone; `input` and `text` may have commas in them, and come by themselves."""

    input: list[str] = field(default_factory=list)
    text: list[str] = field(default_factory=list)
    checkpoint: Checkpoint = "best"
    top_k: Count = 5
    out: Path | None = None
    batch_size: Count | None = None
    text_column: str | None = None
    drop_columns: list[str] = field(default_factory=list)


def run(words: Sequence[str]) -> int:
    """Predict, write, and show the beginning of it. Raises UserError, and then nothing was written."""
    named, texts, rest = _inputs(words)
    loaded, options, _ = opened(rest, Options, "predict")
    options = replace(options, input=named, text=texts)
    _check(loaded, options)
    to_stdout = str(options.out) == STDIN
    target = options.out or loaded.folder.path / "predict" / "predictions.csv"
    if not to_stdout:
        _check_out(target, options)
    work = Work(loaded, options)
    try:
        with warnings.catch_warnings(), written(None if to_stdout else target) as write:
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # what is too large is refused
            samples = all_samples(options.input, options.text, loaded.spec.modality, _columns(loaded, options))
            for rows in work.rows(_bar(samples, loaded)):
                write(rows)
    except TrainingError as error:
        print(f"dlrun: {error}", file=sys.stderr)
        raise RunFailed(str(error), 1) from error
    work.show(None if to_stdout else target)
    if not to_stdout:
        _report(loaded, options, work.report(target))
        reporting.tell(loaded, {"predict/samples": work.count, "predict/unreadable": work.refused})
    return 0


def _report(loaded: LoadedRun, options: Options, content: dict[str, Any]) -> None:
    """Another's run may be closed to us, and what was asked for is elsewhere then."""
    try:
        reporting.write(loaded.folder.path / "predict" / "predictions.json", loaded, content)
    except UserError as error:
        if options.out is None:
            raise
        log.warning("%s", error)


def _inputs(words: Sequence[str]) -> tuple[list[str], list[str], list[str]]:
    """What `input=` and `text=` say, and the other words; `input=*.png` is what the shell makes many words of."""
    named: list[str] = []
    texts: list[str] = []
    rest: list[str] = []
    began = False
    for word in words:
        key, equals, value = word.partition("=")
        if equals and key == "input":
            began = True
            named += [value] if value else []
        elif equals and key == "text":
            texts.append(value)
        elif began and (os.path.lexists(word) or word == STDIN or not (equals or word.startswith("-"))):
            named.append(word)
        else:
            rest.append(word)
    return named, texts, rest


def _check(loaded: LoadedRun, options: Options) -> None:
    """Raise UserError if there is nothing to do, and for what a run of this modality has no use for."""
    if not options.input and not options.text:
        raise UserError("input: is missing; say what to predict: input=PATH… (see dlrun predict --help)")
    modality = loaded.spec.modality
    for key, given, needs in (
        ("text", options.text, "text"),
        ("text_column", options.text_column, "text"),
        ("drop_columns", options.drop_columns, "tabular"),
    ):
        if given and modality != needs:
            raise UserError(f"{key}: is for {needs} data, and the run was trained on {modality} data")
    assert loaded.reader  # or it raises


def _check_out(target: Path, options: Options) -> None:
    if target.suffix.lower() not in WRITERS:
        raise UserError(f"out: expected a file that ends in {', '.join(WRITERS)}, or -, got '{target}'")
    if os.path.isdir(target):
        raise UserError(f"out: {target} is a folder; name a file in it")
    if options.out is not None and not os.path.isdir(target.parent):
        raise UserError(f"out: there is no folder {target.parent}")
    if os.path.exists(target) and any(os.path.exists(name) and target.samefile(name) for name in options.input):
        raise UserError(f"out: {target} is the input, and would be replaced")


def _columns(loaded: LoadedRun, options: Options) -> Columns:
    of_training = loaded.config.dataset.options.get("text_column")
    return Columns(options.text_column or of_training or "text", options.drop_columns, loaded.spec.shape[0])


def _bar(samples: Iterable[Any], loaded: LoadedRun) -> Iterable[Any]:
    """With a bar on stderr, where that is a terminal."""
    off = None if loaded.config.trainer.enable_progress_bar else True  # None is by the terminal
    return tqdm(samples, unit=" samples", disable=off, leave=False, file=sys.stderr)


class Work:
    """Samples through the model, a batch at a time; and what there is to tell of them."""

    def __init__(self, loaded: LoadedRun, options: Options):
        self.loaded, self.top_k = loaded, min(options.top_k, len(loaded.class_names))
        self.batch_size = options.batch_size or loaded.batch_size
        self.count, self.refused = 0, 0
        self.classes: Counter[str] = Counter()
        self.first: list[Row] = []
        self.unreadable: list[Unreadable] = []  # the first of them

    def rows(self, given: Iterable[Sample | Unreadable]) -> Iterator[list[Row]]:
        """Predictions, a list for each batch. Raises UserError if nothing came of it."""
        reader, evaluator, samples = self.loaded.reader, self.loaded.evaluator(), iter(given)
        threads = torch.get_num_threads() if isinstance(reader, Pictures) else 1  # decoding needs no interpreter
        with ThreadPoolExecutor(threads) as pool:
            while batch := list(itertools.islice(samples, self.batch_size)):
                tried = list((pool.map if threads > 1 else map)(self._checked, batch))
                good = [(name, value) for name, value in tried if not isinstance(value, Unreadable)]
                self._refuse(value for _, value in tried if isinstance(value, Unreadable))
                if good:
                    raw = reader.collate([value for _, value in good])
                    yield self._told(good, evaluator.probabilities(self.loaded.prepare(raw)))
        if not self.count:
            first = self.unreadable[0]
            more = f" (and {self.refused - 1:,} more)" if self.refused > 1 else ""
            raise UserError(f"input: {first.name}: {first.reason}{more}")

    def _checked(self, sample: Sample | Unreadable) -> tuple[str, Any]:
        """Its name, and what `collate` takes or why it can't be had."""
        if isinstance(sample, Unreadable):
            return sample.name, sample
        try:
            return sample.name, self.loaded.reader.check(sample.value)
        except UserError as error:
            return sample.name, Unreadable(sample.name, reason(error))

    def _refuse(self, refused: Iterable[Unreadable]) -> None:
        for item in refused:
            self.refused += 1
            if len(self.unreadable) < LISTED:
                self.unreadable.append(item)

    def _told(self, good: Sequence[tuple[str, Any]], probabilities: Tensor) -> list[Row]:
        finite = probabilities.isfinite().all(dim=1)
        predictions = best(probabilities, self.loaded.class_names, self.top_k)
        rows = [
            Row(name, prediction, value if isinstance(value, str) else None)
            for (name, value), prediction in zip(good, predictions, strict=True)
        ]
        self._refuse(
            Unreadable(row.input, "the model's answer isn't finite")
            for row, ok in zip(rows, finite.tolist(), strict=True)
            if not ok
        )
        rows = [row for row, ok in zip(rows, finite.tolist(), strict=True) if ok]
        self.count += len(rows)
        self.classes.update(row.prediction.class_name for row in rows)
        self.first += rows[: SHOWN - len(self.first)]
        return rows

    def show(self, target: Path | None) -> None:
        """The first rows and where the rest is, on stdout unless that has all of them; on stderr what isn't there."""
        if target is not None:
            print("\n".join(_table(self.first)))
            print(f"{self.count:,} predicted: {target}")
        if self.refused:
            print(f"{self.refused:,} couldn't be read:", file=sys.stderr)
            for item in self.unreadable[:SHOWN]:
                print(f"  {printable(f'{item.name}: {item.reason}')}", file=sys.stderr)
            if self.refused > SHOWN:
                place = "" if target is None else "; predict/predictions.json has them"
                print(f"  and {self.refused - SHOWN:,} more{place}", file=sys.stderr)

    def report(self, target: Path) -> dict[str, Any]:
        """For the JSON."""
        return {
            "file": str(target),
            "samples": self.count,
            "predicted": {name: self.classes[name] for name in self.loaded.class_names if name in self.classes},
            "top_k": self.top_k,
            "unreadable": self.refused,
            "unreadable_inputs": [{"input": item.name, "reason": item.reason} for item in self.unreadable],
        }


def _table(rows: Sequence[Row]) -> list[str]:
    """A line for each row: what it is, its class, and the two that come next."""
    cells = [("input", "prediction", "", "then" if len(rows[0].prediction.top) > 1 else "")]
    for row in rows:
        what = row.input if row.text is None else shortened(" ".join(row.text.split()), 60)
        then = "  ".join(f"{name} {100 * share:.2f} %" for name, share in row.prediction.top[1:3])
        cells.append((what, row.prediction.class_name, f"{100 * row.prediction.probability:.2f} %", then))
    clean = [[printable(cell) for cell in line] for line in cells]
    widths = [max(len(line[place]) for line in clean) for place in range(3)]
    return [
        f"{what.ljust(widths[0])}  {name.ljust(widths[1])}  {share.rjust(widths[2])}  {then}".rstrip()
        for what, name, share, then in clean
    ]
