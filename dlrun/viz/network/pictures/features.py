"""Feature maps beside their input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dlrun.viz.network.features import Features
from dlrun.viz.network.pictures.parts import SIGNED, bare, colour_bar, cut, cut_note, entitle, scale_of, show_picture
from dlrun.viz.network.subject import Subject
from dlrun.viz.style import COLOUR_MAP, label, new, size

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def on_picture(title: str, subject: Subject, layers: Sequence[Features]) -> Figure:
    """A row for each layer, the strongest channel first, each row on a scale of its own; the input on the left."""
    columns = max(len(layer.shown) for layer in layers)
    figure = new(3.0 + 1.15 * columns + 0.8, 0.9 + 1.55 * max(len(layers), 2))
    left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=[2.4, 1.15 * columns + 1.4])[0]
    axis = left.subplots()
    show_picture(axis, subject)
    height, width, channels = subject.pixels.shape  # type: ignore[union-attr]
    axis.set_title(f"input ({channels}×{height}×{width})", fontsize=9)
    rows = right.subfigures(len(layers), 1, squeeze=False)[:, 0]
    for row, layer in zip(rows, layers, strict=True):
        axes = row.subplots(1, columns, squeeze=False)[0]
        low, high = scale_of(layer.maps, layer.signed)
        for axis, number, values in zip(axes, layer.shown, layer.maps, strict=False):
            drawn = axis.imshow(values, cmap=SIGNED if layer.signed else COLOUR_MAP, vmin=low, vmax=high)
            axis.set_title(f"{number}", fontsize=7, pad=2)
            bare(axis)
        for axis in axes[len(layer.shown) :]:
            axis.axis("off")
        colour_bar(row, drawn, list(axes), "activation", aspect=12, pad=0.01)
        shape = "×".join(map(str, (layer.count, *layer.maps.shape[1:])))
        row.suptitle(f"{label(layer.title, 70)} ({shape})", fontsize=8)
    entitle(figure, title)
    return figure


def on_words(title: str, subject: Subject, layers: Sequence[Features]) -> Figure:
    """A panel for each layer, a row for each channel, over the words: a step of a later layer stands for several."""
    words = cut(subject.words)
    count = max(len(layer.shown) for layer in layers)
    figure = new(max(6.0, 2.2 + 0.17 * len(words)), 1.8 + (0.5 + 0.17 * count) * len(layers))
    axes = figure.subplots(len(layers), 1, squeeze=False, sharex=True)[:, 0]
    for axis, layer in zip(axes, layers, strict=True):
        low, high = scale_of(layer.maps, layer.signed)
        rows, steps = layer.maps.shape
        drawn = axis.imshow(
            layer.maps,
            cmap=SIGNED if layer.signed else COLOUR_MAP,
            vmin=low,
            vmax=high,
            aspect="auto",
            interpolation="nearest",
            extent=(-0.5, steps * layer.words_per_step - 0.5, rows - 0.5, -0.5),
        )
        axis.set_yticks(range(rows), [str(number) for number in layer.shown], fontsize=6)
        axis.set_ylabel("channel", fontsize=8)
        of = "" if layer.words_per_step == 1 else f", {layer.words_per_step:.3g} words a step"
        axis.set_title(
            f"{label(layer.title, 60)} ({layer.count} channels × {steps} step{'s' * (steps > 1)}{of})", fontsize=8
        )
        axis.set_xlim(-0.5, len(words) - 0.5)
        colour_bar(figure, drawn, axis, "activation", pad=0.01)
    axes[-1].set_xticks(range(len(words)), words, rotation=90, fontsize=min(9, size(len(words)) + 2))
    axes[-1].set_xlabel("word" + (f" ({note})" if (note := cut_note(subject.words)) else ""), fontsize=9)
    entitle(figure, title)
    return figure
