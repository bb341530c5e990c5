"""The loss around a trained network as a map with contours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dlrun.viz.network.pictures.parts import entitle
from dlrun.viz.style import COLOUR_MAP, COLOURS, new

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEVELS = 18
LOGARITHMIC = 20.0  # times that the largest loss is the least, from which the scale is logarithmic


def contours(title: str, places: np.ndarray, loss: np.ndarray) -> Figure:
    """`loss` (n, n) over `places` (n,) along both directions, the trained network in the middle; not finite is grey."""
    figure = new(7.2, 6.2)
    axis = figure.subplots()
    known = np.isfinite(loss)
    axis.set_facecolor("#bbbbbb")
    shown = np.where(known, loss, np.nan)
    levels, norm = _levels(shown[known])
    drawn = axis.contourf(places, places, shown, levels=levels, norm=norm, cmap=COLOUR_MAP)
    lines = axis.contour(places, places, shown, levels=levels, colors="white", linewidths=0.6)
    axis.clabel(lines, levels=levels[3::3], fontsize=7, fmt=lambda value: f"{value:.3g}")
    axis.plot(0, 0, marker="*", markersize=13, color=COLOURS[5], markeredgecolor="white", linestyle="none")
    middle = len(places) // 2
    axis.annotate(f"{loss[middle, middle]:.4g}", (0, 0), (8, 6), textcoords="offset points", color="white", fontsize=9)
    axis.set_xlabel("along the first direction (1: as long as the filters themselves)")
    axis.set_ylabel("along the second direction")
    axis.set_aspect("equal")
    bar = figure.colorbar(drawn, ax=axis, label="loss (cross-entropy)")
    bar.ax.yaxis.set_major_formatter(lambda value, _: f"{value:.3g}")
    bar.ax.minorticks_off()
    bar.set_ticks(levels[::2].tolist())
    entitle(figure, title)
    return figure


def _levels(values: np.ndarray) -> tuple[np.ndarray, Any]:
    from matplotlib.colors import LogNorm, Normalize

    low, high = float(values.min()), float(values.max())
    if high <= low:
        return np.array([low - 0.5, low, low + 0.5]), Normalize(low - 0.5, low + 0.5)
    if low > 0 and high / low > LOGARITHMIC:
        return np.geomspace(low, high, LEVELS), LogNorm(low, high)
    return np.linspace(low, high, LEVELS), Normalize(low, high)
