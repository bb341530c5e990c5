"""Learning rate over optimizer steps: a panel for each schedule, on shared axes, or all on the same ones."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

from dlrun.viz.style import COLOURS, FAINT, label, metric, new, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import Locator

MOST = 20_000  # points of a line; a wide screen has 4,000 columns
JUMP = 0.01  # of the highest rate: a change between two steps that no thinning may smear
LOWEST = 1e-6  # of the highest rate, on a logarithmic scale: below it nothing moves
DASHES: tuple[str | tuple[int, tuple[int, ...]], ...] = ("-", "--", ":", "-.", (0, (6, 1, 1, 1, 1, 1)))
WIDTH, ROW = 7.2, 1.75  # inches; two panels in a row can be read on a phone
TITLE, DETAIL = 34, 46  # characters of a panel's title, and of a line below it


@dataclass(frozen=True)
class Line:
    """A schedule: `rates` at `steps`, counted from 0."""

    title: str
    detail: str  # its options
    steps: Sequence[int]
    rates: Sequence[float]
    warmup: int = 0  # steps
    watches: bool = False  # what `Watched` says


@dataclass(frozen=True)
class Watched:
    """The metric that a schedule, or several, are told: `values` after so many `steps`."""

    name: str
    by: str
    steps: Sequence[int]
    values: Sequence[float]


def kept(rates: Sequence[float]) -> list[int]:
    """The steps that a picture needs: all, or of more than MOST an even share, and both sides of each jump."""
    every = -(-len(rates) // MOST)
    if every <= 1:
        return list(range(len(rates)))
    least = JUMP * max(filter(math.isfinite, rates), default=0.0)
    jumps = {s for step in range(1, len(rates)) if abs(rates[step] - rates[step - 1]) > least for s in (step - 1, step)}
    return sorted({*range(0, len(rates), every), *jumps, len(rates) - 1})


def draw(
    lines: Sequence[Line],
    total_steps: int,
    steps_per_epoch: int,
    watched: Watched | None = None,
    *,
    overlaid: bool = False,
    logarithmic: bool = False,
) -> Figure:
    """`watched` is drawn too, if one of the lines watches it."""
    if not any(line.watches for line in lines):
        watched = None
    axes = _overlaid(lines, watched) if overlaid else _panels(lines, watched)
    highest = max((rate for line in lines for rate in line.rates if math.isfinite(rate)), default=1.0)
    for axis in axes:
        axis.set_xlim(-0.01 * total_steps, 1.01 * total_steps)
        axis.xaxis.set_major_locator(_ticks(integer=True))
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        plain(axis)
        if axis.get_gid() == "rates":
            if logarithmic:
                axis.set_yscale("log", nonpositive="mask")
                axis.set_ylim(LOWEST * highest, 2 * highest)
                axis.yaxis.set_minor_formatter("")
            else:
                axis.set_ylim(bottom=0)
                axis.yaxis.set_major_locator(_ticks())
            axis.yaxis.set_major_formatter(lambda value, _: f"{value:.4g}")
        if axis.get_xlabel():
            _epochs(axis, steps_per_epoch)
    return axes[0].figure  # type: ignore[return-value]


def _panels(lines: Sequence[Line], watched: Watched | None) -> list[Axes]:
    wanted: list[Line | Watched] = []
    for line in lines:
        wanted += [line, watched] if line.watches and watched is not None and watched not in wanted else [line]
    columns = min(2, len(wanted))
    rows = -(-len(wanted) // columns)
    figure = new(WIDTH, 1.0 + ROW * rows if rows > 1 else 3.4)
    grid = figure.subplots(rows, columns, sharex=True, squeeze=False)
    axes: list[Axes] = list(grid.flat)
    for spare in axes[len(wanted) :]:
        spare.set_visible(False)
    first: Axes | None = None
    details = [textwrap.wrap(line.detail, DETAIL, max_lines=2, placeholder=" …") for line in lines]
    room = "\n" * max(map(len, details))
    for place, (axis, what) in enumerate(zip(axes, wanted, strict=False)):
        if isinstance(what, Watched):
            _curve(axis, what)
            continue
        detail = details.pop(0)
        words = "\n".join(detail + [""] * (len(room) - len(detail)))
        _rates(axis, what, COLOURS[0], "-")
        if first is None:
            first = axis
        else:
            axis.sharey(first)
        axis.set_title(label(what.title, TITLE) + room, loc="left", fontsize=10, fontweight="bold", linespacing=1.0)
        axis.text(0, 1.03, words, transform=axis.transAxes, fontsize=8, color="#444444")
        if place % columns == 0:
            axis.set_ylabel("learning rate", fontsize=9)
        else:
            axis.tick_params(labelleft=False)
    for axis in axes[max(len(wanted) - columns, 0) : len(wanted)]:  # the lowest of each column
        axis.set_xlabel("optimizer step", fontsize=9)
        axis.tick_params(labelbottom=True)
    return axes[: len(wanted)]


def _overlaid(lines: Sequence[Line], watched: Watched | None) -> list[Axes]:
    legend = 0.2 * -(-len(lines) // 3) + 0.2
    heights = [3.6] if watched is None else [3.6, 1.6]
    figure = new(WIDTH, sum(heights) + 0.8 + legend)
    axes: list[Axes] = list(figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights).flat)
    looks = [(colour, dash) for dash, colour in product(DASHES, COLOURS)]
    for place, line in enumerate(lines):
        # Of lines that lie on each other the lower ones are the thicker ones.
        width = 1.4 + 2.2 * (len(lines) - 1 - place) / max(len(lines), 2)
        _rates(axes[0], line, *looks[place % len(looks)], width, shade=place == 0)
    axes[0].set_ylabel("learning rate")
    if watched is not None:
        _curve(axes[1], watched)
    axes[-1].set_xlabel("optimizer step")
    handles = [line for line in axes[0].get_lines() if line.get_gid() == "rates"]
    figure.legend(handles=handles, loc="outside lower left", ncols=3, frameon=False, fontsize=8, handlelength=4)
    return axes


def _rates(
    axis: Axes,
    line: Line,
    colour: str,
    dash: str | tuple[int, tuple[int, ...]],
    width: float = 1.6,
    shade: bool = True,
) -> None:
    axis.set_gid("rates")
    look: dict[str, Any] = {"color": colour, "linestyle": dash, "linewidth": width}
    marker = "." if len(line.steps) < 3 else None
    axis.plot(line.steps, line.rates, **look, label=label(line.title), gid="rates", marker=marker)
    if line.warmup and shade:
        axis.axvspan(0, line.warmup, color=COLOURS[1], alpha=0.18, linewidth=0, zorder=0)
        axis.text(line.warmup, 0.04, " warm-up", transform=axis.get_xaxis_transform(), fontsize=8, color="#8a5a00")


def _curve(axis: Axes, watched: Watched) -> None:
    axis.plot(watched.steps, watched.values, color=FAINT, linewidth=1.4, marker=".", markersize=3, gid="watched")
    axis.set_title(label(f"what {watched.by} watches", TITLE), loc="left", fontsize=10, color="#444444")
    axis.set_ylabel(metric(watched.name), fontsize=9)


def _epochs(axis: Axes, steps_per_epoch: int) -> None:
    """A second scale below the one of steps, where no title stands."""
    both = (lambda steps: steps / steps_per_epoch, lambda epochs: epochs * steps_per_epoch)
    below = axis.secondary_xaxis("bottom", functions=both)
    below.spines["bottom"].set_position(("outward", 36))
    below.xaxis.set_major_locator(_ticks())
    below.xaxis.set_major_formatter(lambda value, _: f"{value:,.4g}")
    below.set_xlabel("epoch", fontsize=9)


def _ticks(integer: bool = False) -> Locator:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10], min_n_ticks=2, integer=integer)
