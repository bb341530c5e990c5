"""Curves in characters: a column of metrics.csv over its epochs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from rich.text import Text

from dlrun.history import History
from dlrun.wording import is_fraction

# Of Okabe and Ito's colours those that are seen on black and on white.
COLOURS = {"train": "#56b4e9", "val": "#e69f00", "": "#009e73"}
DOT, FINE = "•", "braille"  # without colours, two curves are told apart by what they are drawn with
STRETCH = 50.0  # times that the largest of positive losses is the smallest, from where on the axis is logarithmic
NAMES = {"lr": "learning rate"}
MOST_TICKS = 8
SMALLEST = (24, 4)  # columns and lines that a chart takes at least


@dataclass(frozen=True)
class Curve:
    split: str  # "train" or "val"; nothing for what belongs to neither
    values: list[float | None]  # one for each epoch

    @property
    def finite(self) -> list[float]:
        return [v for v in self.values if v is not None and math.isfinite(v)]

    @property
    def last(self) -> float | None:
        return next((value for value in reversed(self.values) if value is not None), None)


@dataclass(frozen=True)
class Chart:
    """One quantity over the epochs."""

    name: str  # loss, acc, lr
    curves: list[Curve]


def charts(history: History) -> list[Chart]:
    """The loss, the other metrics, the learning rate: of each what the run notes."""
    found = []
    names = history.metrics()
    for name in sorted(names, key=lambda name: (name != "loss", name != "acc")):
        curves = [Curve(split, history.column(f"{split}/{name}")) for split in ("train", "val")]
        found.append(Chart(name, [curve for curve in curves if any(v is not None for v in curve.values)]))
    found.insert(min(2, len(found)), Chart("lr", [Curve("", history.column("lr"))]))
    return [chart for chart in found if any(curve.values for curve in chart.curves)]


def value_text(name: str, value: float | None) -> str:
    """As the run's own lines have it: `0.5123`, `98.61 %`, `3.00e-04`."""
    if value is None:
        return "–"
    if not math.isfinite(value):
        return str(value)
    if is_fraction(name):
        return f"{100 * value:.2f} %"
    return f"{value:.4f}" if name.endswith("loss") else f"{value:.2e}" if name == "lr" else f"{value:.4g}"


def drawn(chart: Chart, epochs: Sequence[int], columns: int, lines: int, coloured: bool = True) -> list[Text]:
    """`lines` lines, each `columns` wide: a title with the newest values, then the axes."""
    title = Text(NAMES.get(chart.name, chart.name), style="bold", no_wrap=True)
    for curve in chart.curves:
        shown = value_text(chart.name, curve.last)
        mark = "" if not curve.split else f"{'━' if coloured or curve.split == 'train' else DOT} {curve.split} "
        title.append(f"  {mark}{shown}", style=f"not bold {COLOURS[curve.split]}")
    title.truncate(columns, overflow="ellipsis", pad=True)
    if columns < SMALLEST[0] or lines < SMALLEST[1] or not any(curve.finite for curve in chart.curves):
        nothing = Text("no finite number yet".ljust(columns)[:columns], style="dim")
        return [title, nothing, *(Text(" " * columns) for _ in range(lines - 2))][:lines]
    return [title, *_plotted(chart, epochs, columns, lines - 1, coloured)]


def _plotted(chart: Chart, epochs: Sequence[int], columns: int, lines: int, coloured: bool) -> list[Text]:
    import plotext

    values = [value for curve in chart.curves for value in curve.finite]
    logarithmic = chart.name.endswith("loss") and min(values) > 0 and max(values) > STRETCH * min(values)
    low, high, ticks = _scale(min(values), max(values), min(lines // 3 + 1, MOST_TICKS), logarithmic)
    plotext.terminal.limit(False, False)  # a chart is as large as it is told to be
    figure = plotext.figure
    figure.clear()
    figure.theme("colorless")
    figure.plot_size(columns, lines)
    for curve in chart.curves:
        fine = coloured or curve.split != "val"
        for x, y in _pieces(epochs, curve.values):
            marker = plotext.marker(FINE if fine and len(x) > 1 else DOT, _pixel(COLOURS[curve.split]))
            heights = [math.log10(value) for value in y] if logarithmic else y
            figure.draw(figure.signal(x, heights, marker=marker).lines().density("full"))
    for axis in (0, 1):
        figure.axes(False, axis=axis, side=1)
    places = [math.log10(tick) for tick in ticks] if logarithmic else ticks
    figure.ruler(1, 0).lim(low, high).ticks(places, _labels(chart.name, ticks))
    first, last = epochs[0], epochs[-1]
    figure.ruler(0, 0).lim(*((first, last) if last > first else (first - 0.5, last + 0.5)))
    marks = [epoch for epoch in _ticks(first, last, columns // 10) if epoch == int(epoch)]
    figure.ruler(0, 0).ticks(marks, [str(int(epoch)) for epoch in marks])
    text = Text.from_ansi(figure.build().string(colorless=not coloured), no_wrap=True)
    made = text.split("\n")[:lines]
    if made and made[-1].plain.startswith(" " * (len("epoch") + 1)):
        made[-1] = Text.assemble(("epoch", "dim"), made[-1][len("epoch") :])
    for line in made:
        line.truncate(columns, pad=True)
    return [*made, *(Text(" " * columns) for _ in range(lines - len(made)))]


def _pieces(epochs: Sequence[int], values: Sequence[float | None]) -> list[tuple[list[int], list[float]]]:
    """A curve where it can be drawn: what isn't a number is a gap, an epoch that wasn't evaluated is none."""
    pieces: list[tuple[list[int], list[float]]] = [([], [])]
    for epoch, value in zip(epochs, values, strict=True):
        if value is None:
            continue
        if math.isfinite(value):
            pieces[-1][0].append(epoch)
            pieces[-1][1].append(value)
        elif pieces[-1][0]:
            pieces.append(([], []))
    return [piece for piece in pieces if piece[0]]


def _scale(low: float, high: float, most: int, logarithmic: bool) -> tuple[float, float, list[float]]:
    """The ends of an axis, as logarithms if it is logarithmic, and its ticks, which are numbers."""
    if logarithmic:
        powers = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
        ticks = [10.0**power for power in powers if low <= 10.0**power <= high]
        every = -(-len(ticks) // max(most, 1)) or 1
        return math.log10(low), math.log10(high), ticks[::every] or [low, high]
    if low == high:
        margin = abs(low) / 10 or 1.0
        return low - margin, high + margin, [low]
    return low, high, _ticks(low, high, most)


def _ticks(low: float, high: float, most: int) -> list[float]:
    """Round numbers from `low` to `high`, `most` of them at most but always one: steps of 1, 2 or 5."""
    if low == high:
        return [low]
    rough = (high - low) / max(most, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * size for size in (1, 2, 5, 10, 20) if power * size >= rough)
    ticks = [step * n for n in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]
    return ticks or [low]


def _labels(name: str, ticks: Sequence[float]) -> list[str]:
    """As many places as tell them apart, and the unit."""
    factor, unit = (100, " %") if is_fraction(name) else (1, "")
    shown = [factor * tick for tick in ticks]
    small = 0 < max(map(abs, shown)) < 1e-3
    forms = [f".{places}{'e' if small else 'f'}" for places in range(7)] + [".6e"]
    for form in forms:
        labels = [format(value, form) for value in shown]
        exact = all(abs(float(label) - v) <= 1e-6 * abs(v) + 1e-12 for label, v in zip(labels, shown, strict=True))
        if (exact or form == forms[-1]) and all(a != b for a, b in pairwise(labels)):
            break
    return [label + unit for label in labels]


def _pixel(colour: str) -> object:
    import plotext

    return plotext.pixel(foreground=tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5)))
