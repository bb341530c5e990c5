"""`dlrun report runs=…`: one HTML file in which many runs are compared."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dlrun.errors import UserError, choices
from dlrun.history import better_end
from dlrun.options import read as read_options
from dlrun.report import page
from dlrun.report.comparison.columns import Mode, metrics_of
from dlrun.report.comparison.content import Comparison, html
from dlrun.report.comparison.finding import folders
from dlrun.report.comparison.reading import Run, read

USUAL = "val/acc"  # the metric of runs none of which says what it monitors


@dataclass(frozen=True, kw_only=True)
class Options:
    out: Path = Path("report.html")
    metric: str | None = None
    mode: Literal["min", "max"] | None = None


def run(words: Sequence[str]) -> int:
    """The command; returns its exit code. Words without `=` are runs, too: what a shell made of a pattern."""
    said, others = [], []
    for word in words:
        key, equals, value = word.partition("=")
        if key == "runs" and equals and value:
            said.append(value)
        elif os.path.isdir(word) or not equals:
            said.append(word)
        else:
            others.append(word)
    if not said:
        raise UserError("report: say which runs: dlrun report runs='outputs/2026-11-2*/*'")
    options, _ = read_options(others, Options, "report")
    comparison = compare(folders(said), options.metric, options.mode)
    page.write(options.out, html(comparison))
    print(f"written {os.path.relpath(options.out)}")
    return 0


def compare(paths: Sequence[Path], metric: str | None = None, mode: Mode | None = None) -> Comparison:
    """Read the runs in `paths`. Raises UserError if there is nothing to show, or no run has the metric."""
    everything = [read(path) for path in paths]
    runs = [one for one in everything if one.is_there]
    left_out = [one for one in everything if not one.is_there]
    if not runs:
        said = "; ".join(f"{one.path}: {one.problems[0] if one.problems else 'nothing'}" for one in left_out[:3])
        more = f"; and {len(left_out) - 3} more" if len(left_out) > 3 else ""
        raise UserError(
            f"runs: none of {len(left_out)} can be shown: {said}{more}" if left_out else "runs: there are none"
        )
    monitors = Counter(one.monitor for one in runs if one.monitor)
    known = list(dict.fromkeys([*metrics_of(runs), *monitors, *(name for one in runs for name in one.test)]))
    chosen = metric or (monitors.most_common(1)[0][0] if monitors else USUAL)
    if metric is not None and metric not in known:
        raise UserError(f"metric: no run has '{metric}'{choices(metric, known)}")
    modes = (one.config.get("trainer.mode") for one in runs if one.monitor == chosen)
    end = better_end(chosen, mode or next((word for word in modes if word in ("min", "max")), None))
    return Comparison(
        runs=runs,
        left_out=left_out,
        metric=chosen,
        mode=end,
        notes=[*_notes(runs, chosen, metric is not None, monitors)],
    )


def _notes(runs: Sequence[Run], metric: str, asked: bool, monitors: Counter[str]) -> Iterator[str]:
    """What a reader has to know before holding one run against another."""
    if len(monitors) > 1:
        said = ", ".join(f"{name} ({count})" for name, count in monitors.most_common())
        why = "as asked" if asked else "the one that most have; metric=… takes another"
        yield f"The runs monitored different metrics: {said}. They are compared by {metric}, {why}."
    elif asked and monitors and metric not in monitors:
        yield f"The runs were stopped and tested by {next(iter(monitors))}; they are compared by {metric}."
    sets = Counter(str(one.config["data.name"]) for one in runs if "data.name" in one.config)
    if len(sets) > 1:
        said = ", ".join(f"{name} ({count})" for name, count in sets.most_common())
        yield f"The runs are of different data: {said}. Their metrics can't be held against each other."
