"""The table over seeds: a row for each configuration, with mean and deviation of what its runs came to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from dlrun.report import wording
from dlrun.report.comparison.columns import Column
from dlrun.report.comparison.reading import Run
from dlrun.report.comparison.seeds import Configuration, Sample, configurations, sample
from dlrun.wording import NOTHING, is_number, number_text

WIDE = 200  # pixels of the strip with the seeds' values
EDGE = 6


@dataclass(frozen=True)
class Row:
    """One configuration; `cells` as the macro `table` of the templates has them, `marks` in pixels."""

    values: Sequence[dict[str, Any]]  # of the config columns
    n: str
    cells: Sequence[dict[str, Any]]
    sample: Sample | None
    marks: dict[str, Any] = field(default_factory=dict)
    best: bool = False

    @property
    def label(self) -> str:
        return " ".join(value["said"] for value in self.values if value["said"]) or "the only configuration"


@dataclass(frozen=True)
class Summary:
    keys: Sequence[str]
    measured: Sequence[str]
    rows: Sequence[Row]
    metric: str
    low: str = ""
    high: str = ""
    several: bool = False  # some configuration has more than one seed
    repeats: int = 0

    @property
    def best(self) -> dict[str, str] | None:
        """What the head says; None unless there are seeds to take a mean over."""
        found = [row for row in self.rows if row.best]
        return (
            {"label": found[0].label, "value": found[0].cells[0]["text"], "n": found[0].n}
            if found and self.several
            else None
        )


def summarised(runs: Sequence[Run], columns: Sequence[Column], metric: Column) -> Summary:
    """The configurations, the best mean first; those of which no run ended well come last."""
    keys = [c for c in columns if c.group == "config" and not c.hidden and c.key != "seed"]
    tests = [c for c in columns if c.key.startswith("test/") and c.key != metric.key]
    cost = [c for c in columns if c.key in ("training", "parameters")]
    measured = [metric, *tests, *cost]
    found = configurations(runs)
    samples = [[_sample(one, runs, column) for column in measured] for one in found]
    sign = -1.0 if metric.better == "max" else 1.0
    order = sorted(range(len(found)), key=lambda i: sign * s.mean if (s := samples[i][0]) else float("inf"))
    values = [value for row in samples if row[0] for value in _extent(row[0])]
    low, high = min(values, default=0.0), max(values, default=0.0)
    rows = [
        Row(
            values=[_value(column, found[i].runs[0]) for column in keys],
            n=_n(found[i], samples[i][0]),
            cells=[_cell(column, one) for column, one in zip(measured, samples[i], strict=True)],
            sample=samples[i][0],
            marks=_marks(samples[i][0], low, high),
            best=place == 0 and samples[i][0] is not None,
        )
        for place, i in enumerate(order)
    ]
    return Summary(
        keys=[column.title for column in keys],
        measured=[column.title for column in measured],
        rows=rows,
        metric=metric.title,
        low=number_text(low) if values else "",
        high=number_text(high) if values else "",
        several=any(len(one.runs) > 1 for one in found),
        repeats=sum(len(one.repeats) for one in found),
    )


def _sample(configuration: Configuration, runs: Sequence[Run], column: Column) -> Sample | None:
    def value(place: int) -> float | None:
        found = column.values[place]
        return float(found) if is_number(found) else None  # type: ignore[arg-type]

    return sample(configuration, runs, value)


def _n(configuration: Configuration, found: Sample | None) -> str:
    n, of = found.n if found else 0, len(configuration.runs)
    return str(n) if n == of else f"{n} of {of}"


def _value(column: Column, place: int) -> dict[str, Any]:
    value = column.values[place]
    said = "" if value is None else f"{column.title}={column.texts[place]}"
    return {"text": column.texts[place], "sort": value if is_number(value) else None, "said": said}


WRITTEN: dict[str, Callable[[Any], str]] = {"training": wording.duration, "parameters": wording.number}


def _cell(column: Column, found: Sample | None) -> dict[str, Any]:
    if found is None:
        return {"text": NOTHING, "sort": None}
    written = WRITTEN.get(column.key, number_text)
    text = written(found.mean)
    if found.sd is not None and column.key != "parameters":
        small = written is number_text and 0.01 <= abs(found.mean) < 1e6
        text += f" ± {found.sd:.4f}" if small else f" ± {written(found.sd)}"  # as many places as the mean
    return {"text": text, "sort": found.mean}


def _extent(found: Sample) -> tuple[float, ...]:
    sd = found.sd or 0.0
    return (*found.values, found.mean - sd, found.mean + sd)


def _marks(found: Sample | None, low: float, high: float) -> dict[str, Any]:
    """Where the mean, its deviation and the single seeds are on a strip of WIDE pixels."""
    if found is None:
        return {}

    def at(value: float) -> float:
        return round(EDGE + (WIDE - 2 * EDGE) * ((value - low) / (high - low) if high > low else 0.5), 1)

    sd = found.sd or 0.0
    return {
        "mean": at(found.mean),
        "from": at(found.mean - sd),
        "to": at(found.mean + sd),
        "seeds": [at(v) for v in found.values],
    }
