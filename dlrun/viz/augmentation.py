"""Originals, and below each what training sees of it in one epoch after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from dlrun.viz.style import FAINT, label, new

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CELL = 1.15  # inches
NAME = 15  # characters of a line above or below a picture
MARGIN = 0.75  # inches, for the rows' names


@dataclass(frozen=True)
class Seen:
    """A picture as training sees it: pixels (H, W, C) in [0, 1]; None if it isn't among the epoch's."""

    pixels: np.ndarray[Any, Any] | None
    blended: str = ""  # what is in it, of what classes, if several pictures are


@dataclass(frozen=True)
class Column:
    """One sample: what it is, and what became of it in each row's epoch."""

    name: str
    original: np.ndarray[Any, Any]
    seen: list[Seen] = field(default_factory=list)


def draw(columns: Sequence[Column], rows: Sequence[str], title: str) -> Figure:
    """`rows`: the names of the epochs, one for each of a column's `seen`."""
    below = any(seen.blended for column in columns for seen in column.seen)
    tall, wide = columns[0].original.shape[:2]
    cell = CELL * min(max(tall / wide, 0.3), 3)
    height = (cell + 0.04) * (len(rows) + 1) + 0.8 + (0.32 * len(rows) if below else 0)
    figure = new(MARGIN + CELL * len(columns), height)
    grid = figure.subplots(len(rows) + 1, len(columns), squeeze=False)
    for place, column in enumerate(columns):
        pictures = [Seen(column.original), *column.seen]
        for axis, seen in zip(grid[:, place], pictures, strict=True):
            axis.set_xticks([])
            axis.set_yticks([])
            axis.spines[:].set_color("#cccccc")
            axis.set_anchor("N")
            if seen.pixels is None:
                axis.text(0.5, 0.5, "left out", ha="center", va="center", fontsize=8, color=FAINT,
                          transform=axis.transAxes)  # fmt: skip
                axis.set_box_aspect(column.original.shape[0] / column.original.shape[1])
            else:
                grey = seen.pixels.shape[-1] == 1
                image = seen.pixels[..., 0] if grey else seen.pixels
                axis.imshow(image, cmap="gray" if grey else None, vmin=0, vmax=1, interpolation="nearest")
            if below and seen.blended:
                axis.set_xlabel(seen.blended, fontsize=7)
        grid[0, place].set_title(_name(column.name), fontsize=8)
    for axis, name in zip(grid[:, 0], ["original", *rows], strict=True):
        axis.set_ylabel(name, fontsize=8)
    figure.suptitle(label(title, 16 * len(columns) + 10), fontsize=9)
    return figure


def _name(name: str) -> str:
    """A class's name above a picture: two lines at most."""
    if len(name) <= NAME:
        return name
    short = label(name, 2 * NAME)
    return f"{short[:NAME]}\n{short[NAME:]}"
