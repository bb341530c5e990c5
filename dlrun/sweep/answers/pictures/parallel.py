"""Parallel coordinates: an axis per parameter, a line per configuration, its colour what it came to."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from dlrun.sweep.answers.configurations import Configuration
from dlrun.sweep.answers.pictures import Subject
from dlrun.sweep.answers.pictures.importance import importances
from dlrun.sweep.answers.pictures.scale import DISTINCT, Scale, scale, spaces, ticks
from dlrun.viz.pictures import LeftOut
from dlrun.viz.style import COLOUR_MAP, label, metric, new, size

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST = 10  # axes


def draw(subject: Subject) -> Figure:
    from matplotlib.cm import ScalarMappable
    from matplotlib.collections import LineCollection
    from matplotlib.colors import Normalize

    objective = subject.results.objectives[0]
    complete = subject.ranking.valued(objective.name)
    scales = [s for s in _scales(subject) if len(s.distinct) > 1]
    if len(scales) < 2:
        raise LeftOut("it needs two parameters beside the seed with several values that are done")
    left_out = max(0, len(scales) - MOST)
    scales = scales[:MOST]
    lines, values = [], []
    for c in complete:
        found = c.sample(objective.name)
        if found is None or not all(s.key in c.values for s in scales):
            continue  # a conditional parameter has no place on its axis
        lines.append([(x, s.share(c.values[s.key])) for x, s in enumerate(scales)])
        values.append(found.mean)
    if len(lines) < 2:
        raise LeftOut("it needs two configurations that are done and have a value of every parameter")
    results = scale(objective.name, values)
    last = len(scales)
    norm = Normalize(results.distinct[0], results.distinct[-1])
    better_last = np.argsort([objective.sign * v for v in values], kind="stable")
    for line, value in zip(lines, values, strict=True):
        line.append((last, Scale(objective.name, True, False, results.distinct).share(value)))
    figure = new(2.2 + 1.6 * (last + 1), 5)
    axis = figure.subplots()
    width = 1.6 if len(lines) <= 60 else 0.7
    ordered = [_curve(lines[i]) for i in better_last]
    colours = [values[i] for i in better_last]
    drawn = LineCollection(ordered, array=colours, cmap=COLOUR_MAP, norm=norm, linewidths=width, alpha=0.75)
    axis.add_collection(drawn)
    axis.add_collection(LineCollection(ordered[-1:], colors="#D55E00", linewidths=2.6))
    for x, s in enumerate(scales):
        _axis(axis, x, s)
    axis.set_xlim(-0.35, last + 0.05)
    axis.set_ylim(-0.04, 1.04)
    names = ["\n".join(label(part, 16) for part in s.key.rsplit(".", 1)) for s in scales]
    names += [label(objective.name, 16)]
    axis.set_xticks(range(last + 1), names)
    axis.set_yticks([])
    axis.spines[["top", "right", "bottom", "left"]].set_visible(False)
    axis.tick_params(axis="x", length=0, pad=8)
    axis.vlines(last, 0, 1, color="#555555", linewidth=1)
    figure.colorbar(ScalarMappable(norm, COLOUR_MAP), ax=axis, label=metric(objective.name, objective.mode), pad=0.01)
    axis.set_title(_notes(subject, complete, len(lines), left_out), fontsize="medium")
    return figure


def _notes(subject: Subject, complete: Sequence[Configuration], lines: int, left_out: int) -> str:
    """What is drawn, and what isn't."""
    name, parameters = subject.results.objectives[0].name, subject.results.parameters
    conditional = sum(not all(key in c.values for c in complete) for key in parameters)
    said = {
        "with seeds missing": sum(len(c.done(name)) < len(c.outcomes) for c in complete),
        "without a value of each aren't drawn": len(complete) - lines,
        "conditional parameters left out": conditional,
        "less important parameters left out": left_out,
    }
    notes = [f"{number:,} {words}" for words, number in said.items() if number]
    return "; ".join([f"{lines:,} configurations, mean over seeds; the best in red", *notes])


def _scales(subject: Subject) -> list[Scale]:
    """The most important ones, where that is known, in the order of the words; a conditional one has no place."""
    complete = sorted(subject.ranking.valued(subject.results.objectives[0].name), key=lambda c: c.number)
    space = spaces(subject.results.sweep)
    keys = list(subject.results.parameters)
    shared = [key for key in keys if all(key in c.values for c in complete)]
    try:
        known = importances(subject)
    except LeftOut:
        known = {}
    order = sorted(shared, key=lambda key: -known.get(key, 0.0))[:MOST]
    kept = [key for key in keys if key in order] + [key for key in shared if key not in order]
    return [scale(key, [c.values[key] for c in complete], space.get(key)) for key in kept]


def _curve(points: list[tuple[float, float]]) -> np.ndarray:
    """From axis to axis in an S, so that lines through one point can be followed."""
    steps = np.linspace(0, 1, 25)
    ease = steps * steps * (3 - 2 * steps)
    parts = [
        np.column_stack([x0 + (x1 - x0) * steps, y0 + (y1 - y0) * ease])
        for (x0, y0), (x1, y1) in itertools.pairwise(points)
    ]
    return np.concatenate(parts)


def _axis(axis: Axes, x: int, s: Scale) -> None:
    axis.vlines(x, 0, 1, color="#555555", linewidth=1)
    marks = ticks(s)
    if len(marks) > DISTINCT:
        marks = marks[:: -(-len(marks) // DISTINCT)]
    for share, text in marks:
        axis.annotate(
            label(text, 16),
            (x, share),
            (-4, 0),
            textcoords="offset points",
            ha="right",
            va="center",
            fontsize=size(len(marks)),
            bbox={"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.75},
            zorder=4,
        )
        axis.plot([x - 0.015, x], [share, share], color="#555555", linewidth=0.8)
