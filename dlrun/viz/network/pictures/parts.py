"""What these figures are made of: a sample's picture, maps with a scale, and titles."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from unicodedata import east_asian_width

import numpy as np

from dlrun.viz.network.subject import Subject
from dlrun.viz.style import label, named

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

SIGNED = "RdBu_r"  # blue below zero, white at it, red above: told apart whatever people see of red and green
MOST_WORDS = 64  # on an axis, so that they can be read


def title(subject: Subject, *more: str) -> str:
    """What the sample is and what the network says of it, then a line for each that is more to say."""
    truth = "" if subject.truth is None else f", in truth {named(subject.truth)}"
    answer = f"{named(subject.guess)} ({100 * subject.probability:.1f} %)"
    return "\n".join([f"{label(subject.name, 60)}{truth}; the answer is {answer}", *more])


def broken(text: str, inches: float) -> str:
    """The lines of a title, none longer than `inches` at a medium size."""
    wide = sum(east_asian_width(character) in "WF" for character in text) / max(len(text), 1)
    longest = max(20, int(12.5 * inches / (1 + wide)))
    return "\n".join("\n".join(textwrap.wrap(line, longest)) for line in text.split("\n"))


def entitle(figure: Figure, text: str) -> None:
    """The title, as wide as the figure."""
    figure.suptitle(broken(text, figure.get_figwidth()), fontsize="medium")


def show_picture(axis: Axes, subject: Subject, faint: bool = False) -> None:
    """The sample as the network gets it, in `faint` grey to lay something over it."""
    picture = subject.picture
    if faint and picture.ndim == 3:
        picture = picture @ np.array([0.299, 0.587, 0.114])
    axis.imshow(picture, cmap="gray", vmin=0, vmax=255)
    bare(axis)


def bare(axis: Axes) -> None:
    """Without ticks: the place is the axis."""
    axis.set_xticks([])
    axis.set_yticks([])


def scale_of(values: np.ndarray, signed: bool) -> tuple[float, float]:
    """The ends of a colour scale, with zero in the middle, or at the bottom."""
    finite = values[np.isfinite(values)]
    top = float(np.abs(finite).max()) if finite.size else 1.0
    return (-(top or 1.0), top or 1.0) if signed else (0.0, top or 1.0)


def colour_bar(figure: Figure, drawn: AxesImage | Any, axes: Axes | Sequence[Axes], words: str, **more: Any) -> None:
    """The scale with its numbers, and what they are."""
    bar = figure.colorbar(drawn, ax=axes, **more)
    bar.set_label(words, fontsize=8)
    bar.ax.tick_params(labelsize=7)


def cut(words: Sequence[str]) -> list[str]:
    """As many as can be read on an axis, none too long."""
    return [label(word, 16) for word in words[:MOST_WORDS]]


def cut_note(words: Sequence[str]) -> str:
    return f"the first {MOST_WORDS} of {len(words)} words" if len(words) > MOST_WORDS else ""
