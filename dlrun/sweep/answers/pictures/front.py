"""Several objectives: each pair of them against each other, the Pareto front marked."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

from dlrun.sweep.answers.pictures import Subject
from dlrun.viz.pictures import LeftOut
from dlrun.viz.style import COLOURS, FAINT, metric, new, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST = 6  # pairs


def draw(subject: Subject) -> Figure:
    ranked, objectives = subject.ranking.ranked, subject.results.objectives
    if len(ranked) < 2:
        raise LeftOut("it needs two configurations that are done")
    pairs = list(combinations(objectives, 2))[:MOST]
    columns = min(len(pairs), 3)
    rows = -(-len(pairs) // columns)
    figure = new(1 + 5 * columns, 0.8 + 4 * rows)
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis in axes[len(pairs) :]:
        axis.set_visible(False)
    for axis, (x, y) in zip(axes, pairs, strict=False):
        for front, colour, words in ((False, FAINT, "others"), (True, COLOURS[5], "Pareto front")):
            points = []
            for place, c in ranked:
                found = [c.sample(o.name) for o in (x, y)]
                if (place == 1) == front and None not in found:
                    points.append(tuple(s.mean for s in found if s is not None))
            if points:
                axis.scatter(*zip(*sorted(points), strict=True), s=24, color=colour, linewidths=0, label=words)
            if front and len(objectives) == 2:
                axis.step(
                    *zip(*sorted(points), strict=True),
                    color=colour,
                    linewidth=1,
                    where="pre" if x.mode == "max" else "post",
                )
        axis.set_xlabel(metric(x.name, x.mode))
        axis.set_ylabel(metric(y.name, y.mode))
        plain(axis)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=2, frameon=False)
    return figure
