"""A search as it went: the value of each trial, and the best so far."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING

from dlrun.sweep.answers.pictures import Subject
from dlrun.viz.pictures import LeftOut
from dlrun.viz.style import COLOURS, FAINT, metric, new, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw(subject: Subject) -> Figure:
    results = subject.results
    if not results.is_search:
        raise LeftOut("the jobs of a grid come in no order that means anything")
    if results.count("done") < 2:
        raise LeftOut("it needs two trials that are done")
    figure = new(8, 1 + 3.6 * len(results.objectives))
    axes = figure.subplots(len(results.objectives), 1, sharex=True, squeeze=False)[:, 0]
    for axis, objective in zip(axes, results.objectives, strict=True):
        at = [(o.job.number if o.job.trial is None else o.job.trial, o) for o in results.outcomes]
        done = sorted(
            (x, o.objectives[objective.name]) for x, o in at if o.state == "done" and objective.name in o.objectives
        )
        pruned = [
            (x, o.objectives[objective.name]) for x, o in at if o.state == "pruned" and objective.name in o.objectives
        ]
        failed = [x for x, o in at if o.state == "failed"]
        points = 22 if len(at) <= 200 else 9
        if pruned:
            axis.scatter(
                *zip(*pruned, strict=True),
                s=points,
                marker="x",
                color=FAINT,
                linewidths=0.9,
                label="pruned, best by then",
            )
        if done:
            xs, ys = zip(*done, strict=True)
            axis.scatter(xs, ys, s=points, color=COLOURS[0], linewidths=0, label="done")
            best = list(accumulate(ys, max if objective.mode == "max" else min))
            axis.step(
                [*xs, max(x for x, _ in at)], [*best, best[-1]], where="post", color=COLOURS[5], label="best so far"
            )
        if failed:
            low = axis.get_ylim()[0]
            axis.scatter(
                failed, [low] * len(failed), s=points, marker="|", color="black", label="failed", clip_on=False
            )
        axis.set_ylabel(metric(objective.name, objective.mode))
        axis.locator_params(axis="x", integer=True)
        plain(axis)
    axes[-1].set_xlabel("trial (number)")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=4, frameon=False, fontsize="small")
    return figure
