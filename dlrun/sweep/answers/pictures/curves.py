"""Learning curves: the monitored metric by epoch, of the best configurations; what was pruned is faint."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import TYPE_CHECKING

from dlrun.sweep.answers.cells import short_text
from dlrun.sweep.answers.pictures import Subject
from dlrun.sweep.answers.results import Objective
from dlrun.viz.pictures import LeftOut
from dlrun.viz.style import COLOURS, FAINT, label, metric, new, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BEST = len(COLOURS)  # configurations
SEEDS = 10  # of each
PRUNED = 200
LEGEND = 100  # characters


def draw(subject: Subject) -> Figure:
    results = subject.results
    objective = results.objectives[0]
    ranks, ranked = [r for r, _ in subject.ranking.ranked], [c for _, c in subject.ranking.ranked[:BEST]]
    curves = [
        [curve for o in c.outcomes[:SEEDS] if (curve := read(results.folder.run(o.job).metrics, objective)) is not None]
        for c in ranked
    ]
    pruned = [o for o in results.outcomes if o.state == "pruned"][:PRUNED]
    faint = [curve for o in pruned if (curve := read(results.folder.run(o.job).metrics, objective)) is not None]
    if not any(curves):
        raise LeftOut(f"no configuration that is done has {objective.name} in its metrics.csv")
    figure = new(8.5, 4.6 + 0.2 * (len(ranked) + bool(faint)))
    axis = figure.subplots()
    for i, (xs, ys) in enumerate(faint):
        axis.plot(
            xs,
            ys,
            color=FAINT,
            linewidth=0.7,
            alpha=0.45,
            zorder=1,
            marker=_dot(xs),
            label=None if i else f"pruned ({len(faint)})",
        )
    for place, (c, seeds) in enumerate(zip(ranked, curves, strict=True)):
        words = label(f"{ranks[place]}. {short_text(c.values)}", LEGEND)
        for i, (xs, ys) in enumerate(seeds):
            axis.plot(
                xs, ys, color=COLOURS[place], linewidth=1.3 if len(seeds) == 1 else 0.9, zorder=20 - place,
                marker=_dot(xs), alpha=0.9, label=None if i else words,
            )  # fmt: skip
    axis.set_xlabel("epoch")
    axis.set_ylabel(metric(objective.name))
    axis.locator_params(axis="x", integer=True)
    if len(epochs := {x for xs, _ in [*faint, *(curve for seeds in curves for curve in seeds)] for x in xs}) == 1:
        axis.set_xticks([*epochs])
    plain(axis)
    figure.legend(loc="outside lower left", frameon=False, fontsize="small", ncols=1)
    more = len(subject.ranking.ranked) - len(ranked)
    seeds_said = ", a line per seed" if any(len(seeds) > 1 for seeds in curves) else ""
    axis.set_title(
        f"the best {len(ranked)} configurations{seeds_said}" if more > 0 else f"all ranked configurations{seeds_said}",
        fontsize="medium",
    )
    return figure


def _dot(xs: list[int]) -> str | None:
    return "." if len(xs) < 3 else None


def read(path: Path, objective: Objective) -> tuple[list[int], list[float]] | None:
    """Epochs and values, where there are any."""
    xs, ys = [], []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                text = row.get(objective.name)
                if text and math.isfinite(value := float(text)):
                    xs.append(int(row["epoch"]))
                    ys.append(value)
    except (OSError, ValueError, KeyError, csv.Error):
        return None
    return (xs, ys) if xs else None
