"""How fast it was, and where the time went."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from dlrun.report import charts, wording
from dlrun.report.charts import BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILLION, YELLOW, Chart
from dlrun.report.page import fragment
from dlrun.report.record import Record
from dlrun.wording import is_number

PARTS = {  # of summary.time → words and colour
    "starting": ("starting", GREY),
    "computing": ("training steps", BLUE),
    "waiting_for_data": ("waiting for data", ORANGE),
    "evaluation": ("evaluation", GREEN),
    "saving": ("saving", PURPLE),
    "test": ("test", SKY),
    "drawing": ("drawing", YELLOW),
    "rest": ("the rest", VERMILLION),
}
SMALL = 0.002  # of the whole: what can't be seen


def body(record: Record) -> Markup | None:
    seconds = record.summary.get("seconds")
    time = record.part("time") if is_number(seconds) or "training" in record.part("time") else {}  # else: not yet told
    parts = parts_of(time, seconds if is_number(seconds) else None)
    waiting = record.history.column("data_wait")
    made = [_where(parts)] if parts else []
    if any(is_number(value) for value in waiting):
        made.append(_waiting(record))
    rate = record.summary.get("samples_per_second")
    if not made and not is_number(rate):
        return None
    return fragment(
        "run/speed.html.j2",
        seconds=seconds if is_number(seconds) else None,
        rate=rate if is_number(rate) else None,
        charts=made,
        parts=bool(parts),
        rows=[
            [PARTS[name][0], wording.duration(s), wording.percent(s / sum(parts.values()), 1)]
            for name, s in parts.items()
        ],
    )


def parts_of(time: Mapping[str, Any], whole: float | None) -> dict[str, float]:
    """Seconds by what they were spent on, which together are the whole; training is parted into steps and waiting."""
    known = {name: float(value) for name, value in time.items() if name in PARTS or name == "training"
             if is_number(value) and value >= 0}  # fmt: skip
    if not known:
        return {}
    training, waiting = known.pop("training", 0.0), known.get("waiting_for_data", 0.0)
    known["computing"] = max(0.0, training - waiting)
    rest = (whole or 0.0) - sum(known.values())
    if rest > 0:
        known["rest"] = rest
    total = sum(known.values())
    return {name: known[name] for name in PARTS if known.get(name, 0.0) > SMALL * total}


def _where(parts: Mapping[str, float]) -> Chart:
    """One bar, from the beginning to the end."""
    total = sum(parts.values())
    data = [
        {
            "type": "bar",
            "orientation": "h",
            "name": charts.text(PARTS[name][0]),
            "x": [seconds],
            "y": [""],
            "marker": {"color": PARTS[name][1]},
            "hovertemplate": f"{PARTS[name][0]}<br>{wording.duration(seconds)}, {wording.percent(seconds / total, 1)}"
            "<extra></extra>",
        }
        for name, seconds in parts.items()
    ]
    layout = {
        "barmode": "stack",
        "xaxis": charts.axis("seconds", range=[0, total]),
        "yaxis": {"showticklabels": False, "ticks": "", "fixedrange": True},
        "legend": {"traceorder": "normal"},
    }
    return Chart("speed-time", "Where the time went", data, layout, 210)


def _waiting(record: Record) -> Chart:
    history = record.history
    shares = [None if value is None else 100 * value for value in history.column("data_wait")]
    data = [charts.line("waiting for data", history.epochs, shares, ORANGE, hovertemplate="%{y:.1f} %<extra></extra>")]
    layout = {
        "xaxis": charts.axis("epoch", **charts.counted(history.epochs)),
        "yaxis": charts.axis("of the training time (%)", rangemode="tozero"),
        "hovermode": "x",
        "showlegend": False,
    }
    return Chart("speed-waiting", "Waiting for data", data, layout, 210)
