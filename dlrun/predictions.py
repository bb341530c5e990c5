"""What a model says of samples: the most probable classes of each, and the files that they are written to."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from torch import Tensor

from dlrun.atomic import atomic_write
from dlrun.errors import UserError


@dataclass(frozen=True)
class Prediction:
    """The most probable class of one sample, and the best of them all with their probabilities, in order."""

    class_name: str
    probability: float
    index: int  # of the class
    top: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Row:
    """A prediction and what it is of; `text` is the text itself, if it is one."""

    input: str
    prediction: Prediction
    text: str | None = None


def best(probabilities: Tensor, class_names: Sequence[str], top_k: int) -> list[Prediction]:
    """The `top_k` most probable classes, all where there are fewer, of each row of `probabilities` (N, K)."""
    values, indices = (part[:, :top_k].tolist() for part in probabilities.sort(dim=1, descending=True, stable=True))
    return [
        Prediction(
            class_names[places[0]],
            shares[0],
            places[0],
            tuple((class_names[place], share) for place, share in zip(places, shares, strict=True)),
        )
        for places, shares in zip(indices, values, strict=True)
    ]


@contextmanager
def written(path: Path | None) -> Iterator[Callable[[Sequence[Row]], None]]:
    """A function that writes rows to `path`, in the form that its suffix says, or as CSV to stdout for None.

    The file is made when the first rows come, and is whole or not there. Raises UserError if it can't be written.
    """
    with ExitStack() as stack:
        put: Callable[[Row], None] | None = None

        def add(rows: Sequence[Row]) -> None:
            nonlocal put
            if put is None and rows:
                file = sys.stdout if path is None else stack.enter_context(_file(path))
                put = stack.enter_context(WRITERS[".csv" if path is None else path.suffix.lower()](file, rows[0]))
            for row in rows:
                assert put is not None
                put(row)

        yield add


@contextmanager
def _file(path: Path) -> Iterator[TextIO]:
    try:
        path.parent.mkdir(exist_ok=True)
        with atomic_write(path) as binary:
            text = io.TextIOWrapper(binary, encoding="utf-8", newline="")
            yield text
            text.detach()  # writes what is left, and leaves the file open to be flushed to disk
    except OSError as error:
        raise UserError(f"out: can't write {path} ({error.strerror or error})") from error


@contextmanager
def _csv(file: TextIO, first: Row) -> Iterator[Callable[[Row], None]]:
    writer = csv.writer(file, lineterminator="\n")
    ranks = range(1, len(first.prediction.top) + 1)
    text = [] if first.text is None else ["text"]
    best_of = [f"{name}_{rank}" for rank in ranks for name in ("class", "probability")]
    writer.writerow(["input", *text, "prediction", "probability", *best_of])

    def put(row: Row) -> None:
        said = row.prediction
        text = [] if row.text is None else [row.text]
        top = [value for name, share in said.top for value in (name, f"{share:.6g}")]
        writer.writerow([row.input, *text, said.class_name, f"{said.probability:.6g}", *top])

    yield put


@contextmanager
def _lines(file: TextIO, first: Row) -> Iterator[Callable[[Row], None]]:
    yield lambda row: print(json.dumps(_plain(row), ensure_ascii=False), file=file)


@contextmanager
def _array(file: TextIO, first: Row) -> Iterator[Callable[[Row], None]]:
    separator = "[\n"

    def put(row: Row) -> None:
        nonlocal separator
        file.write(separator + json.dumps(_plain(row), ensure_ascii=False))
        separator = ",\n"

    yield put
    file.write("\n]\n")


WRITERS = {".csv": _csv, ".jsonl": _lines, ".json": _array}


def _plain(row: Row) -> dict[str, Any]:
    said = row.prediction
    return {
        "input": row.input,
        **({} if row.text is None else {"text": row.text}),
        "prediction": said.class_name,
        "probability": _short(said.probability),
        "top": [{"class": name, "probability": _short(share)} for name, share in said.top],
    }


def _short(share: float) -> float:
    return float(f"{share:.6g}")
