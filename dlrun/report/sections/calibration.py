"""Whether a guess with a probability of 80 % is right in 80 % of cases (a reliability diagram; Guo et al. 2017)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from dlrun.report import charts
from dlrun.report.charts import BLUE, GREY, SKY, VERMILLION, Chart
from dlrun.report.page import fragment
from dlrun.report.record import Record
from dlrun.wording import is_number


def body(record: Record) -> Markup | None:
    found = record.json("plots", "calibration.json")
    bins, error, split = found.get("bins"), found.get("ece"), found.get("split")
    if not bins:
        found = record.evaluation()
        split = found.get("split")
        names = {"low": "above", "high": "up_to"}
        bins = [row | {new: row[old] for new, old in names.items()} for row in found.get("reliability") or []]
        metrics = found.get("metrics")
        error = metrics.get(f"{split}/ece") if isinstance(metrics, Mapping) else None
    bins = [each for each in bins if each.get("samples")]
    if not bins:
        return None
    return fragment("run/calibration.html.j2", error=error, split=split, charts=[_reliability(bins), _counts(bins)])


def _bars(bins: list[Mapping[str, Any]], values: list[float | None], colour: str) -> dict[str, Any]:
    return {
        "type": "bar",
        "x": [50 * (each["low"] + each["high"]) for each in bins],
        "width": [98 * (each["high"] - each["low"]) for each in bins],
        "y": values,
        "marker": {"color": colour},
    }


def _reliability(bins: list[Mapping[str, Any]]) -> Chart:
    bins = [each for each in bins if is_number(each["confidence"]) and is_number(each["accuracy"])]
    x, y = ([100 * each[key] for each in bins] for key in ("confidence", "accuracy"))
    words = [
        f"probability {100 * each['low']:.0f} to {100 * each['high']:.0f} %, on average {100 * each['confidence']:.1f}"
        f" %<br>right {100 * each['accuracy']:.1f} % of {each['samples']:,}"
        for each in bins
    ]
    bars = _bars(bins, y, SKY) | {"name": "right", "hovertext": words, "hovertemplate": "%{hovertext}<extra></extra>"}
    dashed, diamond = (
        {"color": GREY, "dash": "dash", "width": 1.5},
        {"color": VERMILLION, "size": 8, "symbol": "diamond"},
    )
    own: dict[str, Any] = {"type": "scatter", "hoverinfo": "skip"}
    data = [
        bars,
        own | {"mode": "lines", "name": "perfect", "x": [0, 100], "y": [0, 100], "line": dashed},
        own | {"mode": "markers", "name": "mean probability", "x": x, "y": y, "marker": diamond},
    ]
    layout = {
        "xaxis": charts.axis("probability of the guess (%)", range=[0, 101]),
        "yaxis": charts.axis("right (%)", range=[0, 103]),
        "bargap": 0,
    }
    return Chart("calibration-reliability", "How often guesses are right", data, layout, 320)


def _counts(bins: list[Mapping[str, Any]]) -> Chart:
    bars = _bars(bins, [each["samples"] for each in bins], BLUE) | {"hovertemplate": "%{y:,} samples<extra></extra>"}
    layout = {
        "xaxis": charts.axis("probability of the guess (%)", range=[0, 101]),
        "yaxis": charts.axis("samples", rangemode="tozero"),
    }
    return Chart("calibration-samples", "How many there are", [bars], layout, 320)
