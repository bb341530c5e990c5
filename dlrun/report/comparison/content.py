"""The page of a comparison: its sections, and what its scripts read."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from dlrun.report import page
from dlrun.report.comparison.columns import Column, Mode, columns
from dlrun.report.comparison.cost import Tradeoff, tradeoffs
from dlrun.report.comparison.curves import curves
from dlrun.report.comparison.mattering import mattering
from dlrun.report.comparison.reading import Run
from dlrun.report.comparison.summary import Summary, summarised
from dlrun.report.page import Section

SCRIPTS = ("state.js", "filter.js", "table.js", "colours.js", "curves.js", "scatter.js")
BY_RUN = " run"  # as colours.js calls it


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Runs that there is something to show of, the metric they are compared by, and what there is to say of it all."""

    runs: Sequence[Run]
    left_out: Sequence[Run]  # nothing could be read of them
    metric: str
    mode: Mode
    notes: Sequence[str]

    @cached_property
    def base(self) -> Path:
        """The folder that all of them are in."""
        return Path(os.path.commonpath([run.path.absolute().parent for run in [*self.runs, *self.left_out]]))

    def name(self, run: Run) -> str:
        return os.path.relpath(run.path.absolute(), self.base)


def html(comparison: Comparison) -> str:
    """The whole page."""
    runs = comparison.runs
    table = columns(runs, comparison.metric, comparison.mode)
    by = next(column for column in table if column.key == comparison.metric)
    charts, important = tradeoffs(runs, by), mattering(table, by)
    drawn = curves(runs)
    sections = [
        Section("runs", "Runs", _table(comparison, table, important, charts, drawn)),
        Section("curves", "Curves", _curves(drawn, sum(len(run.history) for run in runs))),
    ]
    if charts:
        sections.append(Section("cost", "What it cost", _cost(comparison, charts)))
    sections.append(Section("against", "One against another", _against()))
    summary = summarised(runs, table, by)
    if summary.rows:
        sections.append(Section("seeds", "Over seeds", page.fragment("comparison/seeds.html.j2", summary=summary)))
    damaged = [run for run in [*runs, *comparison.left_out] if run.problems]
    if damaged:
        sections.append(Section("damaged", "Damaged", _damaged(comparison, damaged)))
    return page.render(
        f"{len(runs)} runs",
        _head(comparison, by, summary, len(damaged)),
        sections,
        more=[f"comparison/{name}" for name in ("style.css", *SCRIPTS)],
    )


def _head(comparison: Comparison, by: Column, summary: Summary, damaged: int) -> Any:
    runs = comparison.runs
    done = {i: by.values[i] for i in range(len(runs)) if runs[i].done and by.values[i] is not None}
    best = by.best & set(done) or set(list(done)[:1])
    first = min(best) if best else None
    return page.fragment(
        "comparison/head.html.j2",
        count=len(runs),
        base=str(comparison.base),
        statuses=Counter(run.status.replace("_", " ") for run in runs).most_common(),
        metric=comparison.metric,
        mode=comparison.mode,
        best=None if first is None else {"name": comparison.name(runs[first]), "value": by.texts[first]},
        best_configuration=summary.best,
        notes=comparison.notes,
        damaged=damaged,
    )


def _table(
    comparison: Comparison,
    table: Sequence[Column],
    important: Sequence[str],
    charts: Sequence[Tradeoff],
    drawn: dict[str, Any],
) -> Any:
    runs = comparison.runs
    by = next(column for column in table if column.key == comparison.metric)
    shown = [column for column in table if column.group == "config" and not column.hidden]
    labels = [" ".join(f"{c.title}={c.texts[i]}" for c in shown if c.values[i] is not None) for i in range(len(runs))]
    told = [
        {"name": comparison.name(run), "label": label, "status": run.status, "error": run.error, "done": run.done}
        for run, label in zip(runs, labels, strict=True)
    ]
    numeric = [key for key in important if next(c for c in table if c.key == key).kind == "number"]
    few = len(runs) <= 7 and not important
    data = {
        "runs": told,
        "columns": [
            {
                "key": c.key,
                "title": c.title,
                "group": c.group,
                "kind": c.kind,
                "hidden": c.hidden,
                "values": list(c.values),
            }
            for c in table
        ],
        "metric": by.key,
        "curves": drawn,
        "curvesOf": _two(drawn["metrics"], comparison.metric),
        "tradeoffs": [chart.plain() for chart in charts],
        "colour": BY_RUN if few or not important else important[0],
        "against": [(numeric or list(important) or [c.key for c in table if c.group == "cost"] or [by.key])[0], by.key],
    }
    return page.fragment(
        "comparison/table.html.j2",
        runs=told,
        columns=table,
        by=by,
        data=data,
        best=[c.best for c in table],
        bars=_bars(by),
    )


def _two(metrics: Sequence[str], metric: str) -> list[str]:
    """What the two charts of curves show at first: the metric, and the loss beside it (or the accuracy)."""
    first = metric if metric in metrics else next(iter(metrics), "")
    split = first.partition("/")[0]
    others = [f"{split}/loss", f"{split}/acc", "train/loss", *metrics]
    return [first, next((name for name in others if name in metrics and name != first), first)]


def _bars(column: Column) -> list[float | None]:
    """Per cent of a cell's width, from the least value to the largest."""
    numbers = [value for value in column.values if isinstance(value, int | float)]
    low, high = min(numbers, default=0.0), max(numbers, default=0.0)
    if high == low:
        return [None] * len(column.values)
    return [round(100 * (v - low) / (high - low), 1) if isinstance(v, int | float) else None for v in column.values]


def _curves(drawn: dict[str, Any], rows: int) -> Any:
    return page.fragment("comparison/curves.html.j2", thinned=drawn["thinned"], empty=not rows)


def _cost(comparison: Comparison, charts: Sequence[Tradeoff]) -> Any:
    drawn = []
    for chart in charts:
        names = [comparison.name(comparison.runs[chart.runs[i]]) for i in chart.front]
        if chart.names:
            names = [f"{name} ({chart.names[i]})" for name, i in zip(names, chart.front, strict=True)]
        said = " → ".join(names[:8]) + (f" → … ({len(names)} in all)" if len(names) > 8 else "")
        drawn.append({"chart": chart, "front": said})
    return page.fragment("comparison/cost.html.j2", charts=drawn)


def _against() -> Any:
    return page.fragment("comparison/against.html.j2")


def _damaged(comparison: Comparison, damaged: Sequence[Run]) -> Any:
    rows = [
        (
            comparison.name(run),
            "; ".join(run.problems),
            "left out" if run in comparison.left_out else "shown as far as it goes",
        )
        for run in damaged
    ]
    return page.fragment("comparison/damaged.html.j2", rows=rows)
