"""The report as a picture: a row per artifact, a column per question, so that names of any length have their place."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dlrun.benching.table import binary, digits, shortened
from dlrun.viz.style import COLOURS, FAINT, new, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

RUNTIMES = dict(zip(("PyTorch", "ONNX Runtime", "TorchScript", "torch.export", "AOTInductor"), COLOURS, strict=False))
INCH_PER_ROW = 0.34
MEBIBYTE = 2**20

Row = Mapping[str, Any]


def figure(report: Mapping[str, Any]) -> Figure:
    """Accuracy, latency at the smallest batch size, throughput at the largest, size: of all that was measured."""
    from matplotlib.patches import Patch

    rows = [row for row in report["rows"] if row["status"] == "measured"]
    first, last = min(report["batch_sizes"]), max(report["batch_sizes"])
    panels: list[tuple[Callable[..., None], Any]] = [(_latency, first), (_throughput, last), (_size, None)]
    if any(row["accuracy"] is not None for row in rows):
        panels.insert(0, (_accuracy, None))
    height = 1.9 + INCH_PER_ROW * len(rows)
    drawn = new(3.2 * len(panels) + 2.2, height)
    drawn.get_layout_engine().set(wspace=0.05)  # type: ignore[union-attr, call-arg]
    axes = drawn.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axis, (draw, size) in zip(axes, panels, strict=True):
        draw(axis, rows, size)
        plain(axis, "x")
        axis.tick_params(axis="y", length=0)
        axis.locator_params(axis="x", nbins=5)
    axes[0].set_yticks(range(len(rows)), [shortened(row["name"], 44) for row in rows])
    axes[0].set_ylim(len(rows) - 0.4, -0.6)  # the first row on top
    kinds = list(dict.fromkeys(row["runtime"] for row in rows))
    colours = {row["runtime"]: _colour(row) for row in rows}
    drawn.legend(
        handles=[Patch(color=colours[kind], label=kind) for kind in kinds],
        loc="outside lower center",
        ncols=len(kinds),
        frameon=False,
    )
    drawn.suptitle(f"{report['title']}, {_words(report)}", fontsize="medium")
    return drawn


def _words(report: Mapping[str, Any]) -> str:
    threads, device = report["threads"], report["device"]
    where = report["machine"]["gpu"]["name"] if device == "cuda" else report["machine"]["cpu"]
    return f"{where}, {threads} thread{'s' * (threads != 1)}"


def _accuracy(axis: Axes, rows: Sequence[Row], _: None) -> None:
    """Points, not bars: what matters is tenths of a per cent, far from zero."""
    values = {y: 100 * row["accuracy"] for y, row in enumerate(rows) if row["accuracy"] is not None}
    for y, value in values.items():
        axis.plot(value, y, "o", color=_colour(rows[y]), markersize=7, zorder=3)
        _written(axis, f"{value:.2f}", value, y)
    if 0 in values:  # the run itself
        axis.axvline(values[0], color="#555555", linestyle=":", linewidth=1, zorder=1)
    low, high = min(values.values()), max(values.values())
    span = max(high - low, 0.5)
    axis.set_xlim(low - 0.12 * span, high + 0.4 * span)
    axis.set_xlabel("test accuracy (%)")


def _latency(axis: Axes, rows: Sequence[Row], size: int) -> None:
    p50s, p99s = _figures(rows, size, "p50_ms"), _figures(rows, size, "p99_ms")
    # p99 as a number: a mark would make room for every hiccup of the machine.
    _bars(axis, rows, p50s, {y: f"{digits(p50)}, {digits(p99s[y])}" for y, p50 in p50s.items()}, room=1.6)
    axis.set_xlabel(f"batch {size}: latency p50, p99 (ms)")


def _throughput(axis: Axes, rows: Sequence[Row], size: int) -> None:
    rates = _figures(rows, size, "samples_per_second")
    _bars(axis, rows, rates, {y: f"{rate:,.0f}" for y, rate in rates.items()})
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}" if value < 10_000 else f"{value / 1000:,.0f} k")
    axis.set_xlabel(f"batch {size}: throughput (samples/s)")


def _size(axis: Axes, rows: Sequence[Row], _: None) -> None:
    sizes = {y: row["bytes"] for y, row in enumerate(rows) if row["bytes"] is not None}
    bars = {y: number / MEBIBYTE for y, number in sizes.items()}
    _bars(axis, rows, bars, {y: binary(number) for y, number in sizes.items()})
    axis.set_xlabel("size on disk (MiB)")


def _figures(rows: Sequence[Row], size: int, name: str) -> dict[int, float]:
    found = {y: row["latency"].get(str(size), {}).get(name) for y, row in enumerate(rows)}
    return {y: value for y, value in found.items() if value is not None}


def _bars(
    axis: Axes, rows: Sequence[Row], values: Mapping[int, float], texts: Mapping[int, str], room: float = 1.4
) -> None:
    """A bar per row, with its value written behind it."""
    axis.barh(list(values), list(values.values()), height=0.62, color=[_colour(rows[y]) for y in values])
    for y, value in values.items():
        _written(axis, texts[y], value, y)
    axis.set_xlim(0, room * max(values.values(), default=1.0))


def _written(axis: Axes, text: str, x: float, y: int) -> None:
    """To the right of a point, on white, so that no line runs through it."""
    behind = {"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none"}
    axis.annotate(
        text, (x, y), (7, 0), textcoords="offset points", va="center", fontsize="small", bbox=behind, zorder=2
    )


def _colour(row: Row) -> str:
    return RUNTIMES.get(row["runtime"], FAINT)
