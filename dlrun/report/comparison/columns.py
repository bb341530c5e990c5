"""The table of a comparison: a column for whatever differs between the runs, and for whatever they came to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from dlrun.history import better_end
from dlrun.report import wording
from dlrun.report.comparison.differences import differences
from dlrun.report.comparison.reading import Run
from dlrun.wording import NOTHING, is_number, number_text, value_text

AT_FIRST = 9  # config columns that are shown; a menu has them all
Mode = Literal["min", "max"]


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column: a value for each run, None where it has none."""

    key: str
    title: str
    group: Literal["config", "metric", "cost"]
    values: Sequence[float | str | bool | None]  # what is sorted, filtered and drawn by
    texts: Sequence[str]  # what is read
    better: Mode | None = None
    hidden: bool = False

    @cached_property
    def kind(self) -> Literal["number", "text"]:
        """`number` sorts as such; a column with one text in it is text, with its numbers before."""
        told = [value for value in self.values if value is not None and value != "null"]
        return "number" if told and all(is_number(value) for value in told) else "text"

    @property
    def best(self) -> set[int]:
        """The runs with the best value, if the column has a better end and there is a choice."""
        found = {i: value for i, value in enumerate(self.values) if is_number(value)}
        if self.better is None or len(found) < 2:
            return set()
        best = (max if self.better == "max" else min)(found.values())  # type: ignore[type-var]
        return {i for i, value in found.items() if value == best}


def metrics_of(runs: Sequence[Run]) -> list[str]:
    """All that the runs measured once per epoch, losses and accuracies, of the validation split first."""
    names = dict.fromkeys(name for run in runs for name in run.history.columns if "/" in name)
    return sorted(names, key=lambda name: (not name.startswith("val/"), not name.startswith("train/")))


def columns(runs: Sequence[Run], metric: str, mode: Mode) -> list[Column]:
    """All columns in their order: the metric, the differing config values, what else came of it, and what it cost."""
    best = [run.best(metric, mode) for run in runs]
    own = [
        run.test.get(metric) if metric.startswith("test/") else row.get(metric)
        for run, row in zip(runs, best, strict=True)
    ]
    others = [name for name in metrics_of(runs) if name != metric]
    tests = [name for name in dict.fromkeys(name for run in runs for name in run.test) if name != metric]
    found = [_metric(metric, own, mode), *_config(runs)]
    found += [_metric(name, [run.test.get(name) for run in runs], better_end(name)) for name in sorted(tests)]
    found += [
        _metric(name, [row.get(name) for row in best], better_end(name), hidden=name.startswith("train/"))
        for name in others
    ]
    found += _cost(runs, best)
    return [found[0], *(column for column in found[1:] if any(value is not None for value in column.values))]


def _config(runs: Sequence[Run]) -> list[Column]:
    found: list[Column] = []
    shown = 0
    for difference in differences([run.config for run in runs if run.config]):
        key = difference.key
        hidden = difference.implied or (shown >= AT_FIRST and key != "seed")
        shown += not hidden
        values = [_plain(run.config[key]) if key in run.config else None for run in runs]
        texts = [value_text(run.config[key]) if key in run.config else NOTHING for run in runs]
        found.append(Column(key=key, title=difference.title, group="config", values=values, texts=texts, hidden=hidden))
    return found


def _metric(name: str, values: Sequence[float | None], mode: Mode, hidden: bool = False) -> Column:
    texts = [number_text(value) for value in values]
    return Column(key=name, title=name, group="metric", values=values, texts=texts, better=mode, hidden=hidden)


def _cost(runs: Sequence[Run], best: Sequence[dict[str, float | None]]) -> list[Column]:
    def cost(
        key: str,
        title: str,
        of: Callable[[Run], Any],
        text: Callable[[Any], str] = wording.number,
        hidden: bool = False,
    ) -> Column:
        values = [of(run) for run in runs]
        texts = [NOTHING if value is None else text(value) for value in values]
        return Column(key=key, title=title, group="cost", values=values, texts=texts, hidden=hidden)

    def epochs(run: Run) -> float | None:
        counted = run.number("epochs")
        return counted if counted is not None else len(run.history) or None

    at = {id(run): row.get("epoch") for run, row in zip(runs, best, strict=True)}
    measured = {id(run): latency(run) for run in runs}
    return [
        cost("best epoch", "best epoch", lambda run: at[id(run)]),
        cost("epochs", "epochs", epochs),
        cost("training", "training", lambda run: run.training_seconds, wording.duration),
        cost("seconds", "whole run", lambda run: run.number("seconds"), wording.duration, hidden=True),
        cost("parameters", "parameters", lambda run: run.number("parameters")),
        cost("samples_per_second", "samples/s", lambda run: run.number("samples_per_second"), lambda v: f"{v:,.0f}"),
        cost("latency", "latency (ms)", lambda run: measured[id(run)].get("ms"), number_text),
        cost("bytes", "size", lambda run: measured[id(run)].get("bytes"), wording.size),
        cost("flops", "FLOPs/sample", lambda run: measured[id(run)].get("flops"), wording.magnitude, hidden=True),
        cost("started", "started", _started, str, hidden=True),
    ]


def latency(run: Run) -> dict[str, float]:
    """Of the run itself, as `dlrun bench` measured it: ms (median, of its smallest batch), batch, bytes, flops."""
    row = next(iter(bench_rows(run)), {})
    found = {
        name: row[key] for name, key in (("bytes", "bytes"), ("flops", "flops_per_sample")) if is_number(row.get(key))
    }
    return found | dict(zip(("ms", "batch"), smallest(row), strict=False))


def bench_rows(run: Run) -> list[dict[str, Any]]:
    """The artifacts of bench.json that were measured, the run itself first."""
    rows = run.bench.get("rows")
    return (
        [row for row in rows if isinstance(row, dict) and row.get("status") == "measured"]
        if isinstance(rows, list)
        else []
    )


def smallest(row: dict[str, Any]) -> tuple[float, int] | tuple[()]:
    """Median milliseconds of a call with the smallest batch, and how many samples that is; empty if it has none."""
    sizes = row.get("latency")
    if not isinstance(sizes, dict):
        return ()
    timed = {
        int(size): figures["p50_ms"]
        for size, figures in sizes.items()
        if size.isdecimal() and isinstance(figures, dict) and is_number(figures.get("p50_ms"))
    }
    return (timed[min(timed)], min(timed)) if timed else ()


def _started(run: Run) -> str | None:
    said = run.summary.get("started")
    return said[:19].replace("T", " ") if isinstance(said, str) else None


def _plain(value: Any) -> float | str | bool | None:
    """As the page sorts and filters it. Numbers that JSON has none for are what they are called."""
    if is_number(value) or isinstance(value, bool):
        return value
    return value_text(value)
