"""metrics.csv as columns, for whoever looks at a run: as much of it as can be read."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

LOWER = ("loss", "error", "ece", "brier", "perplexity")  # in the name of a metric of which less is better


@dataclass(frozen=True)
class History:
    """A row per epoch. A cell that is empty or no number is None; NaN and infinities are what they are."""

    columns: dict[str, list[float | None]] = field(default_factory=dict)
    epochs: list[int] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)  # optimizer steps taken by the end of each epoch

    def __len__(self) -> int:
        return len(self.epochs)

    def column(self, name: str) -> list[float | None]:
        """A value for each row; all None where the run doesn't note it."""
        return self.columns.get(name) or [None] * len(self)

    def metrics(self) -> list[str]:
        """What is measured on both or either of the splits, without the split: loss, acc, top5."""
        split = [name.partition("/") for name in self.columns]
        return list(dict.fromkeys(name for first, _, name in split if first in ("train", "val") and name))

    def best(self, monitor: str, mode: Literal["min", "max"]) -> int | None:
        """The row with the best finite value, of equals the last, as the checkpoint has it; None without one."""
        values = self.column(monitor)
        rows = [row for row, value in enumerate(values) if value is not None and math.isfinite(value)]
        sign = 1.0 if mode == "min" else -1.0
        return min(rows, key=lambda row: (sign * (values[row] or 0.0), -row), default=None)


def better_end(metric: str, said: Any = None) -> Literal["min", "max"]:
    """Which end of a metric is the better one: as `trainer.mode` says, if it does, or by the metric's name."""
    if said in ("min", "max"):
        return "min" if said == "min" else "max"
    last = metric.rpartition("/")[2]
    return "min" if any(word in last for word in LOWER) else "max"


def read(path: Path) -> History:
    """The rows of metrics.csv: whole ones only, of a repeated epoch the last. No file is no rows. Raises nothing.

    A run may be writing it at this moment, or have been killed while it did.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return History()
    if not text.endswith("\n"):  # its last row is cut off, or on its way
        text = text[: text.rfind("\n") + 1]
    try:
        header, *lines = csv.reader(text.replace("\0", "").splitlines())
    except (ValueError, csv.Error):
        return History()
    rows: dict[int, dict[str, float | None]] = {}
    for line in lines:
        row = dict(zip(header, map(_number, line), strict=False))
        epoch, step = row.get("epoch"), row.get("step")
        if len(line) == len(header) and _counts(epoch) and _counts(step):
            rows.pop(int(epoch or 0), None)
            rows[int(epoch or 0)] = row
    ordered = [rows[epoch] for epoch in sorted(rows)]
    columns = {name: [row[name] for row in ordered] for name in header if name not in ("epoch", "step")}
    return History(columns, sorted(rows), [int(row["step"] or 0) for row in ordered])


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _counts(value: float | None) -> bool:
    return value is not None and math.isfinite(value) and value >= 0 and value == int(value)


def finite(values: Sequence[float | None]) -> list[float]:
    """NaN where there is no finite number: a gap in a line."""
    return [value if value is not None and math.isfinite(value) else math.nan for value in values]
