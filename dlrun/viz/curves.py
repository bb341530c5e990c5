"""How a training went, by epoch: each metric on both splits, the learning rate, the gradient's norm."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from dlrun.history import History
from dlrun.viz.pictures import LeftOut
from dlrun.viz.style import COLOURS, FAINT, all_digits, label, logarithmic, metric, new, plain

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LINE = {"train": COLOURS[0], "val": COLOURS[1]}
DOTS = 30  # points that each get a dot
WIDE = 10.0  # largest by median value from which on an axis is logarithmic: a last step to nearly 0 doesn't count
MOST_PANELS = 8

Convert = Callable[[Any], Any]


@dataclass(frozen=True)
class Panel:
    """One axis: its name, and the columns of metrics.csv that are lines on it, with their words and colours."""

    title: str
    lines: Sequence[tuple[str, str, str]]
    absent: str = ""  # why there is nothing on it, if there is nothing


def figure(history: History, monitor: str, best_epoch: int | None = None, title: str = "") -> Figure:
    """Curves over epochs, with optimizer steps above. `best_epoch` is marked, on `monitor`'s own line with its value.

    What isn't finite leaves a gap, and a cross at the axis's end: NaN below, infinity above. Raises LeftOut where no
    epoch is over yet.
    """
    if not len(history):
        raise LeftOut("no epoch is over yet")
    panels = _panels(history)
    rows = -(-len(panels) // 2)
    drawn = new(11, 1.1 + 2.7 * rows)
    axes = drawn.subplots(rows, 2, sharex=True, squeeze=False)
    for axis, panel in zip(axes.flat, panels, strict=False):
        _draw(axis, panel, history, monitor, best_epoch)
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    for column in range(2):
        _name_epochs([axis for axis in axes[:, column] if axis.get_visible()], history)
    drawn.suptitle(label(title, 100), fontsize="medium")
    return drawn


def _panels(history: History) -> list[Panel]:
    """Loss and accuracy first, then what other metrics there are, learning rate and gradient last."""
    names = sorted(history.metrics(), key=lambda name: {"loss": 0, "acc": 1}.get(name, 2))
    pairs = ((name, [(f"{split}/{name}", split, LINE[split]) for split in LINE]) for name in names)
    found = [Panel(metric(name), [line for line in lines if line[0] in history.columns]) for name, lines in pairs]
    norms = [("grad_norm", "mean", COLOURS[2]), ("grad_norm_max", "largest", COLOURS[3])]
    there = any(value is not None for name, _, _ in norms for value in history.column(name))
    rates = [Panel("learning rate", [("lr", "", COLOURS[2])])]
    rates.append(Panel("gradient norm", norms if there else [], "" if there else "not noted by this run"))
    return [*found[: MOST_PANELS - 2], *rates]


def _draw(axis: Axes, panel: Panel, history: History, monitor: str, best_epoch: int | None) -> None:
    shown: list[float] = []
    for column, words, colour in panel.lines:
        shown += _line(axis, history.epochs, history.column(column), words, colour)
    if shown and min(shown) > 0 and max(shown) / median(shown) >= WIDE:
        logarithmic(axis)
    elif shown:
        all_digits(axis, max(map(abs, shown)))
    axis.set_ylabel(panel.title)
    plain(axis)
    if panel.absent:
        axis.text(0.5, 0.5, panel.absent, transform=axis.transAxes, ha="center", va="center", color=FAINT)
        axis.set_yticks([])
    if best_epoch in history.epochs:
        _mark_best(axis, panel, history, monitor, history.epochs.index(best_epoch))
    if any(words for _, words, _ in panel.lines):
        axis.legend(framealpha=0.85, edgecolor="none", fontsize="small")


def _line(axis: Axes, epochs: Sequence[int], values: Sequence[float | None], words: str, colour: str) -> list[float]:
    """One curve; returns its finite values. It goes on where nothing was measured, and not where that is no number."""
    measured = [(epoch, value) for epoch, value in zip(epochs, values, strict=True) if value is not None]
    xs = [epoch for epoch, _ in measured]
    ys = [value if math.isfinite(value) else math.nan for _, value in measured]
    finite = [not math.isnan(y) for y in ys]
    few = sum(finite) <= DOTS
    axis.plot(
        xs,
        ys,
        color=colour,
        linewidth=1.4 if len(xs) < 300 else 0.9,
        marker="o" if few else None,
        markersize=3,
        label=words or None,
    )
    if not few:  # a point between two gaps is no line
        around = [False, *finite, False]
        lone = [i for i, there in enumerate(finite) if there and not around[i] and not around[i + 2]]
        axis.plot([xs[i] for i in lone], [ys[i] for i in lone], "o", color=colour, markersize=3)
    for height, what in ((0.03, "NaN"), (0.97, "infinite")):
        wrong = [x for x, value in measured if (math.isinf(value) if what == "infinite" else math.isnan(value))]
        if wrong:
            axis.plot(
                wrong, [height] * len(wrong), "x", color=colour, markersize=5, clip_on=False,
                transform=axis.get_xaxis_transform(), label=f"{words} {what}".strip(),
            )  # fmt: skip
    return [y for y in ys if not math.isnan(y)]


def _mark_best(axis: Axes, panel: Panel, history: History, monitor: str, row: int) -> None:
    epoch, value = history.epochs[row], history.column(monitor)[row]
    own = any(column == monitor for column, _, _ in panel.lines) and value is not None
    words = f"best: epoch {epoch}, {label(monitor)} {value:.4g}" if own else None
    axis.axvline(epoch, color=COLOURS[6], linewidth=0.9, linestyle=(0, (4, 3)), alpha=0.7, zorder=1, label=words)
    if own and value is not None:
        axis.plot([epoch], [value], "*", color=COLOURS[5], markersize=10, zorder=5)


def _name_epochs(column: Sequence[Axes], history: History) -> None:
    """Epochs below the lowest axis of a column, optimizer steps above the highest."""
    from matplotlib.ticker import FixedLocator, MaxNLocator

    top, bottom = column[0], column[-1]
    bottom.tick_params(labelbottom=True)
    bottom.set_xlabel("epoch")
    steps = top.secondary_xaxis("top", functions=_clocks(history))
    steps.set_xlabel("optimizer step")
    steps.tick_params(labelsize="small")
    if len(history) == 1:
        bottom.set_xlim(history.epochs[0] - 1, history.epochs[0] + 1)
        bottom.xaxis.set_major_locator(FixedLocator(history.epochs))
        steps.xaxis.set_major_locator(FixedLocator(history.steps))
    else:
        bottom.xaxis.set_major_locator(MaxNLocator(10, integer=True))
        steps.xaxis.set_major_locator(MaxNLocator(7, integer=True))


def _clocks(history: History) -> tuple[Convert, Convert]:
    """Epochs to steps and back: between the ends of two epochs in a straight line, and on in the mean direction."""
    import numpy as np

    points = [(0, 0)]
    for epoch, step in zip(history.epochs, history.steps, strict=True):
        if epoch > points[-1][0] and step > points[-1][1]:
            points.append((epoch, step))
    if len(points) == 1:
        points.append((1, 1))
    epochs, steps = (np.array(values, dtype=float) for values in zip(*points, strict=True))
    return lambda x: _along(x, epochs, steps), lambda x: _along(x, steps, epochs)


def _along(x: Any, xs: np.ndarray, ys: np.ndarray) -> np.ndarray:
    """`np.interp`, which goes on beyond the ends."""
    import numpy as np

    x, slope = np.asarray(x, dtype=float), ys[-1] / xs[-1]
    beyond = np.where(x > xs[-1], x - xs[-1], np.minimum(x, 0.0))
    return np.interp(x, xs, ys) + slope * beyond
