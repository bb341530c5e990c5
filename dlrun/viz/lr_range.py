"""A learning-rate range test: loss over the learning rate, and where to train."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from dlrun.viz.pictures import LeftOut
from dlrun.viz.style import COLOURS, FAINT, new, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROOM = 0.6  # of the fall, above the loss at first: what explodes beyond that is cut off


def draw(
    rates: Sequence[float],
    losses: Sequence[float],
    smoothed: Sequence[float],
    marks: Mapping[str, float],
    ending: str,
    title: str,
) -> Figure:
    """`marks`: name → learning rate; the first is the suggestion. `ending`: where the test stopped, in words."""
    if not losses:
        raise LeftOut("there is no step with a finite loss")
    figure = new(7.2, 4.6)
    axis = figure.subplots()
    axis.plot(rates, losses, ".", color=FAINT, markersize=4, label="loss of a step", gid="losses")
    axis.plot(rates, smoothed, color=COLOURS[0], linewidth=2, label="smoothed", gid="smoothed")
    dashes = ("-", "--", ":")
    for place, (name, rate) in enumerate(marks.items()):
        colour = COLOURS[5] if place == 0 else "#555555"
        words = f"{name}: {rate:.2g}" + (" (suggested)" if place == 0 else "")
        axis.axvline(rate, color=colour, linestyle=dashes[place % 3], linewidth=2 if place == 0 else 1.2, label=words)
    axis.set_xscale("log")
    low, first = min(smoothed), smoothed[0]
    top = first + ROOM * max(first - low, 0.1 * abs(first))
    inside = [loss for loss in losses if loss <= top]
    axis.set_ylim(min([low, *inside]) - 0.05 * (top - low), top)
    axis.set_xlim(min([*rates, *marks.values()]) / 1.3, max([*rates, *marks.values()]) * 1.3)
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:.0e}")  # matplotlib's own is a formula
    axis.xaxis.set_minor_formatter("")
    axis.set_xlabel("learning rate (log scale)")
    axis.set_ylabel("training loss")
    axis.set_title(f"{title}\n{ending}", fontsize=10, loc="left")
    plain(axis)
    figure.legend(loc="outside lower left", ncols=3, frameon=False, fontsize=9)
    return figure
