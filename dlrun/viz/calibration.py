"""Is a model right as often as it says it is? The reliability diagram (Guo et al. 2017, figure 1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dlrun.viz.pictures import LeftOut
from dlrun.viz.style import COLOURS, FAINT, logarithmic, new, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def figure(found: Mapping[str, Any]) -> Figure:
    """Of calibration.json: accuracy by confidence, and how many samples there are of each.

    A bin's bar is its accuracy; from there to its mean confidence goes the gap, of which the ECE is the mean over the
    samples.
    """
    bins = [row for row in found["bins"] if row["samples"] and row["accuracy"] is not None]
    if not bins:
        raise LeftOut("there are no samples")
    drawn = new(6.4, 6.6)
    upper, lower = drawn.subplots(2, 1, sharex=True, height_ratios=(3, 1.25))
    middles = [(row["low"] + row["high"]) / 2 for row in bins]
    widths = [0.92 * (row["high"] - row["low"]) for row in bins]
    right = [row["accuracy"] for row in bins]
    upper.bar(middles, right, widths, color=COLOURS[0], label="accuracy")
    sure = [
        (x, row, width) for x, row, width in zip(middles, bins, widths, strict=True) if row["confidence"] is not None
    ]
    upper.bar(
        [x for x, _, _ in sure],
        [row["confidence"] - row["accuracy"] for _, row, _ in sure],
        [width for _, _, width in sure],
        bottom=[row["accuracy"] for _, row, _ in sure],
        facecolor="none", edgecolor=COLOURS[5], hatch="////", linewidth=0.8, label="gap to the mean confidence",
    )  # fmt: skip
    upper.plot([0, 1], [0, 1], color=FAINT, linestyle="--", linewidth=1, label="as sure as right")
    upper.set(ylim=(0, 1), xlim=(0, 1), ylabel="accuracy (fraction)")
    drawn.legend(frameon=False, fontsize="small", loc="outside lower center", ncols=3)
    counts = [row["samples"] for row in bins]
    lower.bar(middles, counts, widths, color=COLOURS[4])
    if max(counts) / min(counts) > 30:
        logarithmic(lower)
        lower.set_ylim(0.7, max(counts) * 4)
    else:
        lower.set_ylim(0, max(counts) * 1.25)
    for x, n in zip(middles, counts, strict=True):
        lower.annotate(_short(n), (x, n), (0, 2), textcoords="offset points", ha="center", fontsize=7)
    lower.set(xlabel="confidence: probability of the answer (fraction)", ylabel="samples")
    for axis in (upper, lower):
        plain(axis, "y")
    error = "isn't a number" if found["ece"] is None else f"{100 * found['ece']:.2f} %"
    drawn.suptitle(
        f"calibration on {found['split']}, {found['samples']:,} samples, epoch {found['epoch']}: ECE {error}",
        fontsize="medium",
    )
    return drawn


def _short(count: int) -> str:
    """Room for five characters."""
    for unit, word in ((1_000_000, "M"), (10_000, "k")):
        if count >= unit:
            return f"{count / (unit if word == 'M' else 1000):.3g}{word}"
    return f"{count:,}"
