"""Two parameters and what they come to together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from dlrun.sweep.answers.configurations import Configuration
from dlrun.sweep.answers.pictures import Subject
from dlrun.sweep.answers.pictures.importance import importances
from dlrun.sweep.answers.pictures.scale import DISTINCT, Scale, scale, spaces
from dlrun.viz.pictures import LeftOut
from dlrun.viz.style import COLOUR_MAP, label, metric, new, plain, size, told_apart
from dlrun.wording import value_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WRITTEN = 12  # values along an axis, up to which the cells say their numbers
FILLED = 0.25  # share of cells with a value, below which points say more


def draw(subject: Subject) -> Figure:
    """The mean over seeds and over all else that was swept; both axes are names or numbers, by their kinds."""
    results = subject.results
    objective = results.objectives[0]
    complete = sorted(subject.ranking.valued(objective.name), key=lambda c: c.number)
    varied = [k for k in results.parameters if len({value_text(c.values[k]) for c in complete if k in c.values}) > 1]
    if len(varied) < 2:
        raise LeftOut("it needs two parameters beside the seed with several values that are done")
    first, second = varied if len(varied) == 2 else list(importances(subject))[:2]
    shown = [c for c in complete if first in c.values and second in c.values]
    space = spaces(results.sweep)
    x, y = (scale(key, [c.values[key] for c in shown], space.get(key)) for key in (first, second))
    if len(x.distinct) < len(y.distinct):
        x, y = y, x
    cells: dict[tuple[int, int], list[float]] = {}
    means = [_mean(c, objective.name) for c in shown]
    for c, mean in zip(shown, means, strict=True):
        cells.setdefault((y.index(c.values[y.key]), x.index(c.values[x.key])), []).append(mean)
    over = [key for key in varied if key not in (first, second)]
    title = "mean over " + label(", ".join(over), 60) if over else ""
    partly = sum(len(c.done(objective.name)) < len(c.outcomes) for c in shown)
    shape = (len(y.distinct), len(x.distinct))
    if max(shape) <= DISTINCT and len(cells) >= FILLED * math.prod(shape):
        figure = _matrix(cells, x, y, metric(objective.name, objective.mode))
    elif x.numeric or y.numeric:
        figure = _points(shown, means, x, y, metric(objective.name, objective.mode))
        title = f"one point per configuration; {label(', '.join(over), 60)} vary, too" if over else ""
    else:
        raise LeftOut(f"{x.key} and {y.key} have too many names for a picture")
    notes = [title, f"{partly} of {len(shown)} configurations with seeds missing" if partly else ""]
    if any(notes):
        figure.axes[0].set_title("\n".join(note for note in notes if note), fontsize="medium")
    return figure


def _mean(configuration: Configuration, name: str) -> float:
    found = configuration.sample(name)
    assert found is not None
    return found.mean


def _matrix(cells: dict[tuple[int, int], list[float]], x: Scale, y: Scale, words: str) -> Figure:
    grid = np.full((len(y.distinct), len(x.distinct)), np.nan)
    for place, values in cells.items():
        grid[place] = math.fsum(values) / len(values)
    names = [told_apart([value_text(v) for v in s.distinct]) for s in (x, y)]
    cell = 0.8 if max(grid.shape) <= WRITTEN else 0.3
    figure = new(3.2 + cell * grid.shape[1], 2 + 0.6 * cell * grid.shape[0] + 0.06 * max(map(len, names[0])))
    axis = figure.subplots()
    drawn = axis.imshow(grid, cmap=COLOUR_MAP, aspect="auto")
    crowded = grid.shape[1] > WRITTEN or max(map(len, names[0])) > 9
    axis.set_xticks(
        range(grid.shape[1]), names[0], rotation=90 if crowded else 0, fontsize=min(9, size(len(names[0]), 9) + 2)
    )
    axis.set_yticks(range(grid.shape[0]), names[1], fontsize=min(9, size(len(names[1]), 9) + 2))
    axis.set_xlabel(label(x.key, 40))
    axis.set_ylabel(label(y.key, 40))
    if max(grid.shape) <= WRITTEN:
        low, high = np.nanmin(grid), np.nanmax(grid)
        for row, column in zip(*np.nonzero(~np.isnan(grid)), strict=True):
            value = grid[row, column]
            bright = high > low and (value - low) / (high - low) > 0.5
            axis.text(
                column, row, f"{value:.4g}", ha="center", va="center", fontsize=8, color="black" if bright else "white"
            )
    figure.colorbar(drawn, ax=axis, label=words)
    return figure


def _points(shown: Sequence[Configuration], means: Sequence[float], x: Scale, y: Scale, words: str) -> Figure:
    figure = new(8, 5.5 if y.numeric else min(10.0, 2.5 + 0.3 * len(y.distinct)))
    axis = figure.subplots()
    xs, ys = ([c.values[s.key] if s.numeric else s.index(c.values[s.key]) for c in shown] for s in (x, y))
    drawn = axis.scatter(xs, ys, c=means, cmap=COLOUR_MAP, s=26 if len(shown) < 300 else 12, linewidths=0)
    _named(axis, x, "x")
    _named(axis, y, "y")
    plain(axis)
    figure.colorbar(drawn, ax=axis, label=words)
    return figure


def _named(axis: Axes, s: Scale, which: str) -> None:
    getattr(axis, f"set_{which}label")(label(s.key, 40))
    if not s.numeric:
        names = told_apart([value_text(v) for v in s.distinct])
        step = max(1, math.ceil(len(names) / DISTINCT))
        rotation = 90 if which == "x" else 0
        getattr(axis, f"set_{which}ticks")(
            range(0, len(names), step), names[::step], rotation=rotation, fontsize=size(len(names[::step]))
        )
    elif s.log:
        getattr(axis, f"set_{which}scale")("log")
        getattr(axis, f"{which}axis").set_major_formatter(lambda value, _: f"{value:g}")
        getattr(axis, f"{which}axis").set_minor_formatter(lambda value, _: "")
