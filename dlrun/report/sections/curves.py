"""What metrics.csv says, epoch by epoch: loss, accuracy and other metrics, learning rate, gradients, speed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from dlrun.report import charts, wording
from dlrun.report.charts import BLUE, GREEN, ORANGE, PURPLE, Chart
from dlrun.report.page import fragment
from dlrun.report.record import Record

TITLES = {"loss": "Loss", "acc": "Accuracy", "lr": "Learning rate", "grad_norm": "Gradient norm"}
TITLES |= {"samples_per_second": "Speed"}
AXES = {"loss": "loss", "acc": "accuracy (%)", "lr": "learning rate", "grad_norm": "gradient norm"}
AXES |= {"samples_per_second": "samples/s"}
ELSEWHERE = ("seconds", "data_wait")  # of the columns, those that aren't drawn here
LOGARITHMIC = ("loss", "lr", "grad")  # begins of the names of what spans magnitudes


@dataclass(frozen=True)
class Drawn:
    """A chart's lines: (words, column, colour)."""

    name: str
    lines: Sequence[tuple[str, str, str]]


def body(record: Record) -> Markup:
    history = record.history
    made = [_chart(record, drawn) for drawn in drawn_of(record)] if len(history) else []
    return fragment(
        "run/curves.html.j2",
        nothing=None if made else "There are no rows in metrics.csv" + (" yet." if record.status == "running" else "."),
        charts=made,
        steps=any(step != epoch for step, epoch in zip(history.steps, history.epochs, strict=True)),
        logarithmic=any("scale" in chart.views for chart in made),
    )


def drawn_of(record: Record) -> list[Drawn]:
    """Which charts there are, of the columns that have a value."""
    columns = {name: v for name, v in record.history.columns.items() if any(value is not None for value in v)}
    found = []
    for metric in record.history.metrics():
        lines = [("train", f"train/{metric}", BLUE), ("validation", f"val/{metric}", ORANGE)]
        if there := [line for line in lines if line[1] in columns]:
            found.append(Drawn(metric, there))
    rest = [name for name in columns if name.partition("/")[0] not in ("train", "val") and name not in ELSEWHERE]
    gradients = [name for name in rest if name.startswith("grad")]
    if gradients:
        words = [name.replace("grad", "gradient").replace("_", " ") for name in gradients]
        found.append(Drawn("grad_norm", list(zip(words, gradients, charts.COLOURS, strict=False))))
    colours = {"lr": GREEN}
    found += [
        Drawn(name, [(name.replace("_", " "), name, colours.get(name, PURPLE))])
        for name in rest
        if name not in gradients
    ]
    return found


def _chart(record: Record, drawn: Drawn) -> Chart:
    history, share = record.history, wording.is_fraction(drawn.name)
    columns = [history.column(column) for _, column, _ in drawn.lines]
    template = "%{y:.2f} %" if share else "%{y:.5~g}"
    data = [
        charts.line(
            words,
            history.epochs,
            [value if value is None or not share else 100 * value for value in values],
            colour,
            hovertemplate=template,
        )
        for (words, _, colour), values in zip(drawn.lines, columns, strict=True)
    ]
    layout: dict[str, Any] = {
        "xaxis": charts.axis("epoch", **charts.counted(history.epochs)),
        "yaxis": charts.axis(_unit(drawn.name, share), **({"exponentformat": "e"} if drawn.name == "lr" else {})),
        "hovermode": "x unified",
        "showlegend": len(data) > 1,
    }
    along = charts.axis("optimizer step", **charts.counted(history.steps))
    steps: dict[str, Any] = {"data": [{"x": history.steps} for _ in drawn.lines], "layout": {"xaxis": along}}
    if (row := record.best_row()) is not None:
        stars = _stars(record, drawn, data, row)
        data += stars
        layout["shapes"] = [_across(history.epochs[row])]
        steps["data"] += [{"x": [history.steps[row]]} for _ in stars]
        steps["layout"]["shapes"] = [_across(history.steps[row])]
    views: dict[str, Mapping[str, Any]] = {"by": {"epoch": {}, "step": steps}}
    if drawn.name.startswith(LOGARITHMIC):
        views["scale"] = {
            "linear": {},
            "logarithmic": {"layout": {"yaxis": {"type": "log", "exponentformat": "power"}}},
        }
    finite = all(value is not None and math.isfinite(value) for values in columns for value in values)
    caption = "" if finite else "A gap is a value that isn't there, or isn't finite (NaN)."
    title = TITLES.get(drawn.name, drawn.name.replace("_", " "))
    return Chart(f"curve-{_plain(drawn.name)}", title, data, layout, 290, caption, views)


def _unit(name: str, share: bool) -> str:
    return AXES.get(name) or name.replace("_", " ") + (" (%)" if share else "")


def _across(x: int) -> dict[str, Any]:
    """The best epoch, from below to above."""
    line = {"color": charts.GREY, "width": 1, "dash": "dot"}
    return {"type": "line", "yref": "paper", "y0": 0, "y1": 1, "x0": x, "x1": x, "line": line}


def _stars(record: Record, drawn: Drawn, data: Sequence[Mapping[str, Any]], row: int) -> list[dict[str, Any]]:
    """The best epoch on the line that it is chosen by, if that is here."""
    stars = []
    for (_, column, colour), trace in zip(drawn.lines, data, strict=True):
        if column == record.monitor and trace["y"][row] is not None:
            marker = {"symbol": "star", "size": 12, "color": colour, "line": {"color": "var(--card)", "width": 1}}
            star = {"type": "scatter", "mode": "markers", "name": "best epoch", "marker": marker, "hoverinfo": "skip"}
            stars.append(star | {"x": [record.history.epochs[row]], "y": [trace["y"][row]]})
    return stars


def _plain(name: str) -> str:
    return "".join(c if c.isascii() and c.isalnum() else "-" for c in name)
