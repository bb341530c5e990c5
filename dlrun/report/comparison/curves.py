"""The curves of many runs, small enough for one page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from dlrun.report.comparison.columns import metrics_of
from dlrun.report.comparison.reading import Run

POINTS = 60_000  # of one metric, over all runs: what a browser draws in less than a second
FEWEST = 40  # of one curve
DIGITS = 5


def curves(runs: Sequence[Run]) -> dict[str, Any]:
    """What page draws: `metrics`, and for each run `epoch`, `step`, `seconds` and the values of each metric.

    A value that isn't finite is None, a gap. Where all runs together have more than POINTS rows, of each so many are
    left that they aren't, its first and its last among them; `thinned` says how many at most (None: all are there).
    """
    metrics = [*metrics_of(runs), *(["lr"] if any("lr" in run.history.columns for run in runs) else [])]
    total = sum(len(run.history) for run in runs)
    most = None if total <= POINTS else max(FEWEST, POINTS // len(runs))
    longest = max((len(run.history) for run in runs), default=0)
    if most is not None and longest <= most:
        most = None
    return {"metrics": metrics, "thinned": most, "runs": [_of(run, metrics, most) for run in runs]}


def _of(run: Run, metrics: Sequence[str], most: int | None) -> dict[str, Any]:
    history = run.history
    rows = kept(len(history), most)
    found: dict[str, Any] = {
        "epoch": [history.epochs[row] for row in rows],
        "step": [history.steps[row] for row in rows],
        "seconds": _rounded([history.column("seconds")[row] for row in rows]),
    }
    for name in metrics:
        if name in history.columns:
            found[name] = _rounded([history.columns[name][row] for row in rows])
    return found


def kept(rows: int, most: int | None) -> list[int]:
    """Places of at most `most` of so many rows, evenly spread, with the first and the last."""
    if most is None or rows <= most:
        return list(range(rows))
    return sorted({round(i * (rows - 1) / (most - 1)) for i in range(most)})


def _rounded(values: Sequence[float | None]) -> list[float | None]:
    """Digits that nobody sees would be half of the page."""
    return [None if value is None or not math.isfinite(value) else float(f"{value:.{DIGITS}g}") for value in values]
