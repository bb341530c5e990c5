"""Grad-CAM over the picture that it is of, and its map by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dlrun.viz.network.pictures.parts import bare, colour_bar, entitle, scale_of, show_picture
from dlrun.viz.network.subject import Subject
from dlrun.viz.style import new

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HEAT = "inferno"  # from black to bright in even steps, and no grey: it is laid over grey
QUANTITY, UNIT = "Grad-CAM", "logit's gradient × activation"


def on_picture(title: str, subject: Subject, laid: np.ndarray, small: np.ndarray, layer: str) -> Figure:
    """The input, the map (H, W) laid over it, and the map as the layer has it, (h, w), with its scale."""
    figure = new(10.5, 3.9)
    axes = figure.subplots(1, 3)
    show_picture(axes[0], subject)
    height, width, channels = subject.pixels.shape  # type: ignore[union-attr]
    axes[0].set_title(f"input ({channels}×{height}×{width})", fontsize=9)
    low, high = scale_of(np.concatenate([laid.ravel(), small.ravel()]), signed=False)
    show_picture(axes[1], subject, faint=True)
    axes[1].imshow(laid, cmap=HEAT, vmin=low, vmax=high, alpha=0.55)
    axes[1].set_title("map, interpolated, over the input", fontsize=9)
    drawn = axes[2].imshow(small, cmap=HEAT, vmin=low, vmax=high)
    axes[2].set_title(f"map of {layer} ({small.shape[0]}×{small.shape[1]})", fontsize=9)
    bare(axes[2])
    colour_bar(figure, drawn, axes[2], f"{QUANTITY} ({UNIT})", shrink=0.8)
    entitle(figure, title)
    return figure
