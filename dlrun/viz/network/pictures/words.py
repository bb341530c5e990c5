"""Words with a weight each: the text itself, marked, and a bar for every word."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from dlrun.viz.network.pictures.parts import MOST_WORDS, broken, cut
from dlrun.viz.style import COLOUR_MAP, COLOURS, label, plain, size

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import RendererAgg
    from matplotlib.figure import Figure

WIDTH = 10.0  # inches
LINE = 0.28  # inches from one line of text to the next
FONT = 11  # points
LONGEST = 600  # words of the marked text
GAP = 0.09  # inches between two words


def figure(title: str, words: Sequence[str], weights: Sequence[float], quantity: str, unit: str = "") -> Figure:
    """The words, each on the colour of its weight (0 and more), and the same weights as bars of the first words.

    `quantity` is what the weights are, `unit` what that is measured in.
    """
    from matplotlib.figure import Figure

    title = broken(title, WIDTH)
    values = np.asarray(weights, dtype=float)
    shown = [label(word) for word in words[:LONGEST]]
    sketch = Figure(figsize=(WIDTH, 1))
    lines = _broken(sketch, shown)
    marked, bars, above = LINE * len(lines) + 0.1, 3.0, 0.3 + 0.2 * (title.count("\n") + 1)
    height = above + marked + 0.85 + bars
    drawn = Figure(figsize=(WIDTH, height))
    drawn.suptitle(title, fontsize="medium", y=1 - 0.12 / height, va="top")
    text = drawn.add_axes((0.05, (height - above - marked) / height, 0.9, marked / height))
    scale = drawn.add_axes((0.3, (height - above - marked - 0.22) / height, 0.4, 0.1 / height))
    _mark(text, lines, shown, values, scale, f"{quantity} ({unit})" if unit else quantity)
    axis = drawn.add_axes((0.08, 1.15 / height, 0.88, (bars - 1.15) / height))
    _bars(axis, words, values, quantity)
    return drawn


def _renderer(drawn: Figure) -> RendererAgg:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    return FigureCanvasAgg(drawn).get_renderer()  # type: ignore[no-untyped-call]


def _broken(drawn: Figure, words: Sequence[str]) -> list[list[tuple[int, float, float]]]:
    """Lines of (word, where it begins, its width), in inches."""
    from matplotlib.font_manager import FontProperties

    renderer, font = _renderer(drawn), FontProperties(size=FONT)  # type: ignore[arg-type]
    lines: list[list[tuple[int, float, float]]] = [[]]
    place = 0.0
    for number, word in enumerate(words):
        extent = renderer.get_text_width_height_descent(word, font, ismath=False)  # type: ignore[no-untyped-call]
        width = extent[0] / drawn.dpi
        if place + width > 0.9 * WIDTH and lines[-1]:
            lines.append([])
            place = 0.0
        lines[-1].append((number, place, width))
        place += width + GAP
    return lines


def _mark(
    axis: Axes,
    lines: Sequence[Sequence[tuple[int, float, float]]],
    words: Sequence[str],
    values: np.ndarray,
    scale: Axes,
    quantity: str,
) -> None:
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.patches import Rectangle

    norm, colours = Normalize(0, float(values.max()) or 1.0), colormaps[COLOUR_MAP]
    axis.set_xlim(0, 0.9 * WIDTH)
    axis.set_ylim(len(lines) * LINE + 0.05, -0.05)
    axis.axis("off")
    for row, line in enumerate(lines):
        for number, place, width in line:
            share = float(norm(values[number]))
            axis.add_patch(
                Rectangle((place - 0.03, row * LINE), width + 0.06, 0.88 * LINE, color=colours(share), linewidth=0)
            )
            ink = "black" if share > 0.5 else "white"
            axis.text(place, (row + 0.46) * LINE, words[number], fontsize=FONT, va="center", color=ink)
    bar = axis.figure.colorbar(ScalarMappable(norm, colours), cax=scale, orientation="horizontal")
    bar.set_label(quantity, fontsize=8)
    bar.ax.tick_params(labelsize=7)


def _bars(axis: Axes, words: Sequence[str], values: np.ndarray, quantity: str) -> None:
    names = cut(words)
    axis.bar(range(len(names)), values[: len(names)], color=COLOURS[0], width=0.8)
    axis.set_xticks(range(len(names)), names, rotation=90, fontsize=size(len(names), 9))
    axis.set_xlim(-0.6, max(len(names), 8) - 0.4)
    more = f" (the first {MOST_WORDS} of {len(words)})" if len(words) > MOST_WORDS else ""
    axis.set_xlabel(f"word{more}", fontsize=9)
    axis.set_ylabel(quantity, fontsize=9)
    plain(axis, "y")
