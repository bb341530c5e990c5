"""Filters as pictures, and the n-grams that a text's filters answer to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from dlrun.viz.network.pictures.parts import SIGNED, bare, colour_bar, entitle, scale_of
from dlrun.viz.style import COLOURS, label, new, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = 8


def filters(title: str, weights: np.ndarray, numbers: Sequence[int]) -> Figure:
    """weights (n, C, h, w), all on one scale with zero in its middle; three channels as red, green and blue.

    Of three channels grey is zero, and the scale that of each colour. Of two, or more than three, each has a cell.
    """
    colours = weights.shape[1] == 3
    cells = [
        (f"{number}" if colours or weights.shape[1] == 1 else f"{number}, channel {channel}", part)
        for number, weight in zip(numbers, weights, strict=True)
        for channel, part in enumerate([weight] if colours else weight)
    ]
    columns = min(COLUMNS, len(cells))
    rows = math.ceil(len(cells) / columns)
    tall = min(max(weights.shape[2] / weights.shape[3], 0.25), 2.0)
    figure = new(max(5.0, 1.1 + 1.05 * columns + 0.9), 1.1 + (1.0 * tall + 0.22) * rows)
    axes = figure.subplots(rows, columns, squeeze=False)
    low, high = scale_of(weights, signed=True)
    drawn = None
    for axis, (name, part) in zip(axes.flat, cells, strict=False):
        if colours:
            axis.imshow(0.5 + part.transpose(1, 2, 0) / (2 * high))
        else:
            drawn = axis.imshow(part, cmap=SIGNED, vmin=low, vmax=high)
        axis.set_title(name, fontsize=7, pad=2)
        bare(axis)
    for axis in list(axes.flat)[len(cells) :]:
        axis.axis("off")
    if drawn is None:
        from matplotlib.cm import ScalarMappable
        from matplotlib.colors import Normalize

        drawn = ScalarMappable(Normalize(low, high), "gray")
    words = "weight (each of red, green, blue; grey is 0)" if colours else "weight"
    colour_bar(figure, drawn, list(axes.flat), words, shrink=min(1.0, 2.5 / rows + 0.3), aspect=30 if rows > 2 else 15)
    entitle(figure, title)
    return figure


def ngrams(title: str, found: Sequence[Sequence[tuple[str, float]]], numbers: Sequence[int]) -> Figure:
    """A panel for each filter: the n-grams that it answers to most, as long as they do."""
    columns = min(3, len(found))
    rows = math.ceil(len(found) / columns)
    each = max(len(grams) for grams in found)
    figure = new(4.6 * columns, 1.2 + (0.5 + 0.22 * each) * rows)
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True)
    for axis, grams, number in zip(axes.flat, found, numbers, strict=False):
        axis.barh(range(len(grams)), [value for _, value in grams], color=COLOURS[0], height=0.7)
        axis.set_yticks(range(len(grams)), [label(gram, 36) for gram, _ in grams], fontsize=8)
        axis.set_ylim(each - 0.5, -0.5)
        axis.set_title(f"filter {number}", fontsize=9, pad=3)
        axis.tick_params(axis="x", labelsize=7)
        plain(axis, "x")
    for axis in list(axes.flat)[len(found) :]:
        axis.axis("off")
    figure.supxlabel("activation after norm and ReLU", fontsize=9)
    entitle(figure, title)
    return figure
