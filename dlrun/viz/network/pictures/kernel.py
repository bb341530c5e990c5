"""A convolution with one kernel: number by number on a small matrix, as pictures on a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dlrun.viz.network.kernel import Applied
from dlrun.viz.network.pictures.parts import SIGNED, bare, colour_bar, entitle, scale_of
from dlrun.viz.style import COLOUR_MAP, COLOURS, new

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WRITTEN = 14  # numbers along a side, up to which they are written
CELL = 0.42  # inches


def in_numbers(title: str, done: Applied) -> Figure:
    """Input (with the zeros around it), kernel and output with all numbers in their cells, and one of the sums.

    The window of that sum, and what it gives, have a frame: the output's largest value.
    """
    from matplotlib.patches import Rectangle

    down, right = done.padding
    given = np.pad(done.given, ((down, down), (right, right)))
    parts = [given, done.kernel, done.output]
    widths = [CELL * part.shape[1] for part in parts]
    tall = CELL * max(part.shape[0] for part in parts)
    figure = new(max(7.0, sum(widths) + 2.4), tall + 2.5)
    axes = figure.subplots(1, 3, width_ratios=widths)
    row, column = divmod(int(np.abs(done.output).argmax()), done.output.shape[1])
    top, left = row * done.stride, column * done.stride
    h, w = done.kernel.shape
    for axis, part, name, colours in zip(
        axes, parts, ("input", "kernel", "output"), (COLOUR_MAP, SIGNED, SIGNED), strict=True
    ):
        _written(axis, part, colours)
        axis.set_title(f"{name} ({part.shape[0]}×{part.shape[1]})", fontsize=10)
    if down or right:
        height, width = done.given.shape
        axes[0].add_patch(
            Rectangle((right - 0.5, down - 0.5), width, height, fill=False, linestyle="--", edgecolor="white")
        )
    for axis, corner, wide, high in ((axes[0], (left, top), w, h), (axes[2], (column, row), 1, 1)):
        place = (corner[0] - 0.5, corner[1] - 0.5)
        axis.add_patch(Rectangle(place, wide, high, fill=False, edgecolor=COLOURS[5], linewidth=2.5))
    figure.supxlabel(_sum(given[top : top + h, left : left + w], done.kernel, done.output[row, column]), fontsize=9)
    entitle(figure, title)
    return figure


def on_picture(title: str, done: Applied) -> Figure:
    """The same on a picture (grey, 0 to 255): pictures, the kernel with its numbers, the output's scale."""
    figure = new(11.5, 4.6)
    height = min(0.7, max(0.25, done.given.shape[0] / done.given.shape[1]))  # not beyond a wide picture's
    axes = figure.subplots(1, 3, width_ratios=[3, 1.3, 3])
    drawn = axes[0].imshow(done.given, cmap="gray", vmin=0, vmax=255)
    colour_bar(figure, drawn, axes[0], "grey, 0 to 255", shrink=height)
    _written(axes[1], done.kernel, SIGNED)
    # A few pixels of hard edges would leave all else pale.
    reach = float(np.percentile(np.abs(done.output), 99.5)) or scale_of(done.output, signed=True)[1]
    drawn = axes[2].imshow(done.output, cmap=SIGNED, vmin=-reach, vmax=reach)
    colour_bar(figure, drawn, axes[2], "sum of products", shrink=height, extend="both")
    for axis, name, part in zip(
        axes, ("input", "kernel", "output"), (done.given, done.kernel, done.output), strict=True
    ):
        bare(axis)
        axis.set_title(f"{name} ({part.shape[0]}×{part.shape[1]})", fontsize=10)
    entitle(figure, title)
    return figure


def _written(axis: Axes, values: np.ndarray, colours: str) -> None:
    low, high = scale_of(values, signed=colours == SIGNED)
    low = min(low, float(values.min()))
    axis.imshow(values, cmap=colours, vmin=low, vmax=high, alpha=0.85)
    bare(axis)
    axis.set_xticks(np.arange(values.shape[1] - 1) + 0.5, minor=True)
    axis.set_yticks(np.arange(values.shape[0] - 1) + 0.5, minor=True)
    axis.grid(which="minor", color="#888888", linewidth=0.5)
    axis.tick_params(which="minor", length=0)
    if max(values.shape) > WRITTEN:
        return
    for (row, column), value in np.ndenumerate(values):
        share = (value - low) / (high - low)
        dark = share < 0.5 if colours == COLOUR_MAP else not 0.15 < share < 0.85
        text = f"{value:.3g}".replace("-", "−")
        axis.text(
            column,
            row,
            text,
            ha="center",
            va="center",
            color="white" if dark else "black",
            fontsize=8 if len(text) < 5 else 6,
        )


def _sum(window: np.ndarray, kernel: np.ndarray, value: float) -> str:
    """The framed output, product by product, a line for each row of the kernel."""
    rows = [
        " + ".join(f"({w:.3g})·{x:.3g}" if w < 0 else f"{w:.3g}·{x:.3g}" for w, x in zip(weights, xs, strict=True))
        for weights, xs in zip(kernel, window, strict=True)
    ]
    if kernel.size > 25:
        return f"framed: the sum of {kernel.size} products = {value:.4g}"
    return ("framed: " + "\n+ ".join(rows) + f" = {value:.4g}").replace("-", "−")
