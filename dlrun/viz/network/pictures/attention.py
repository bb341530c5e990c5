"""Attention maps: over a picture's patches, and between the words of a text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from dlrun.viz.network.pictures.parts import bare, colour_bar, cut, cut_note, entitle, scale_of, show_picture
from dlrun.viz.network.subject import Subject
from dlrun.viz.style import COLOUR_MAP, COLOURS, new, plain, size

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def on_patches(
    title: str, subject: Subject, total: np.ndarray, maps: np.ndarray, layers: Sequence[int], heads: Sequence[int]
) -> Figure:
    """`total` (rows, columns) over the picture; `maps` (layers, heads, rows, columns), all on one scale."""
    cell = min(2.2, max(1.15, 4.6 / len(layers)))
    wide, tall = cell * len(heads) + 0.9, max((cell + 0.1) * len(layers), 4.6)
    figure = new(3.4 + wide, 0.9 + tall)
    left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=[3.0, wide])[0]
    first, second = left.subplots(2, 1)
    show_picture(first, subject)
    first.set_title("input", fontsize=9)
    show_picture(second, subject, faint=True)
    height, width = subject.pixels.shape[:2]  # type: ignore[union-attr]
    low, high = scale_of(total, signed=False)
    drawn = second.imshow(
        total, cmap="inferno", vmin=low, vmax=high, alpha=0.6, extent=(-0.5, width - 0.5, height - 0.5, -0.5)
    )
    second.set_title("all layers: attention rollout", fontsize=9)
    bare(second)
    colour_bar(left, drawn, second, "share of attention", shrink=0.8)
    axes = right.subplots(len(layers), len(heads), squeeze=False)
    low, high = scale_of(maps, signed=False)
    aspect = (height / maps.shape[2]) / (width / maps.shape[3])  # of a patch
    for row, layer in enumerate(layers):
        for column, head in enumerate(heads):
            axis = axes[row, column]
            drawn = axis.imshow(maps[row, column], cmap=COLOUR_MAP, vmin=low, vmax=high, aspect=aspect)
            bare(axis)
            if row == 0:
                axis.set_title(f"head {head}", fontsize=8)
            if column == 0:
                axis.set_ylabel(f"layer {layer}", fontsize=8)
    colour_bar(right, drawn, list(axes.flat), "share of attention", shrink=0.6)
    entitle(figure, title)
    return figure


def between_words(
    title: str, words: Sequence[str], matrices: np.ndarray, layers: Sequence[int], heads: Sequence[int]
) -> Figure:
    """`matrices` (layers, heads, T, T): row i is where word i looks, on one scale; the first words of a long text."""
    names = cut(words)
    count, longest = len(names), max(map(len, names))
    font = size(count, 9 if len(layers) * len(heads) == 1 else 7)
    side = max(2.0, 0.0165 * font * count + 0.1)
    room = 0.6 + 0.0085 * font * longest
    figure = new(max(5.0, room + (side + 0.1) * len(heads) + 1.2), 0.9 + room + (side + 0.2) * len(layers))
    axes = figure.subplots(len(layers), len(heads), squeeze=False, sharex=True, sharey=True)
    shown = matrices[..., :count, :count]
    low, high = scale_of(shown, signed=False)
    for row, layer in enumerate(layers):
        for column, head in enumerate(heads):
            axis = axes[row, column]
            drawn = axis.imshow(shown[row, column], cmap=COLOUR_MAP, vmin=low, vmax=high)
            axis.set_title(f"layer {layer}, head {head}", fontsize=8, pad=3)
            axis.set_xticks(range(count), names, rotation=90, fontsize=font)
            axis.set_yticks(range(count), names, fontsize=font)
            axis.tick_params(length=1.5, pad=1.5)
    note = cut_note(words)
    figure.supxlabel("looked at" + (f" ({note})" if note else ""), fontsize=9)
    figure.supylabel("the word that looks", fontsize=9)
    colour_bar(figure, drawn, list(axes.flat), "share of attention", shrink=0.7, aspect=30)
    entitle(figure, title)
    return figure


def on_rows(title: str, subject: Subject, weights: np.ndarray) -> Figure:
    """A picture that is read row by row, and beside each row how much it counts."""
    figure = new(7.5, 4.2)
    left, right = figure.subplots(1, 2)
    show_picture(left, subject)
    left.set_ylabel("row of pixels", fontsize=9)
    step = max(1, len(weights) // 16)
    left.set_yticks(range(0, len(weights), step), [str(n) for n in range(0, len(weights), step)], fontsize=7)
    right.barh(range(len(weights)), weights, color=COLOURS[0], height=0.8)
    right.set_ylim(len(weights) - 0.5, -0.5)
    right.set_yticks(range(0, len(weights), step), [str(n) for n in range(0, len(weights), step)], fontsize=7)
    right.set_xlabel("share of attention", fontsize=9)
    right.set_ylabel("row of pixels", fontsize=9)
    right.axvline(1 / len(weights), color="#555555", linestyle=":", linewidth=1)
    right.annotate("even", (1 / len(weights), 0), (3, 2), textcoords="offset points", fontsize=7, va="bottom")
    plain(right, "x")
    entitle(figure, title)
    return figure
