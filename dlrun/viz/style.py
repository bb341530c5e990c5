"""Colours, letters and axes that all pictures share."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING
from unicodedata import bidirectional

from dlrun.benching.table import shortened
from dlrun.viz.fonts import advice

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

log = logging.getLogger("dlrun")

# Okabe and Ito's, which people tell apart whatever they see of red and green.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000")
FAINT = "#999999"
COLOUR_MAP = "cividis"  # made to look alike to everyone
LEFT_TO_RIGHT = "\u200e"  # a mark without width (Unicode, annex 9)
LABEL = 28  # characters of a value or a key
# Fonts for scripts that DejaVu doesn't have, of those that are common; one that isn't installed is no harm.
FONTS = (
    *("DejaVu Sans", "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Noto Sans JP", "Noto Sans KR"),
    *("WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "Source Han Sans SC", "IPAGothic", "Droid Sans Fallback"),
    *("Noto Sans Devanagari", "Noto Sans Thai", "Noto Sans Arabic", "Noto Sans Hebrew", "Noto Emoji"),
    *("Hiragino Sans", "PingFang SC", "Microsoft YaHei", "Arial Unicode MS", "Unifont"),
)
MISSING = r"Glyph (\d+) .*missing from"  # what matplotlib warns of

_boxes: set[str] = set()  # characters that no font here has, of all that this process has drawn


@contextmanager
def written_in() -> Iterator[None]:
    """Text as it is, dollars included, in whatever script there is a font for; where there is none, that is said."""
    import matplotlib
    from matplotlib import font_manager

    installed = {font.name for font in font_manager.fontManager.ttflist}
    families = [name for name in FONTS if name in installed] or ["sans-serif"]
    with (
        matplotlib.rc_context({"font.family": families, "text.parse_math": False}),
        warnings.catch_warnings(record=True) as caught,
    ):
        warnings.filterwarnings("always", message=MISSING)
        yield
    lacking = set()
    for warning in caught:
        if found := re.match(MISSING, str(warning.message)):
            lacking.add(chr(int(found[1])))
        else:
            warnings.showwarning(warning.message, warning.category, warning.filename, warning.lineno)
    if lacking - _boxes:
        _boxes.update(lacking)
        log.warning("%s", advice(lacking))


def new(width: float, height: float) -> Figure:
    """A figure, inches. Not pyplot's, which looks for a display and keeps what it draws."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def plain(axis: Axes, grid: str = "both") -> None:
    axis.grid(axis=grid, color="#dddddd", linewidth=0.6)  # type: ignore[arg-type]
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)


def logarithmic(axis: Axes) -> None:
    """A logarithmic y-axis whose ticks are numbers as people write them: matplotlib's own are set as formulas."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_yscale("log")
    axis.yaxis.set_major_locator(LogLocator(numticks=7))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.yaxis.set_minor_formatter(NullFormatter())


def all_digits(axis: Axes, largest: float) -> None:
    """Ticks with all their digits: of what matplotlib leaves out of them, it writes the rest where other axes stand."""
    from matplotlib.ticker import FuncFormatter, ScalarFormatter

    if largest == 0 or 1e-4 <= largest < 1e6:
        digits = ScalarFormatter(useOffset=False)
        digits.set_scientific(False)
        axis.yaxis.set_major_formatter(digits)
    else:
        axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def label(text: str, longest: int = LABEL) -> str:
    return shortened(text, longest)


def named(text: str, longest: int = LABEL) -> str:
    """A label in a sentence, which goes on from left to right behind one that doesn't."""
    short = label(text, longest)
    return short + LEFT_TO_RIGHT if any(bidirectional(letter) in ("R", "AL") for letter in short) else short


def metric(name: str, mode: str | None = None) -> str:
    """A metric's axis."""
    unit = "fraction" if name.rpartition("/")[2] in ("acc", "top5") else None
    words = [part for part in (unit, mode) if part]
    return f"{label(name)} ({', '.join(words)})" if words else label(name)


def told_apart(labels: Sequence[str]) -> list[str]:
    """Shortened labels; those that are the same then get a number."""
    short = [label(text) for text in labels]
    return [f"{text} ({i})" if short.count(text) > 1 else text for i, text in enumerate(short, 1)]


def size(count: int, most: float = 8) -> float:
    """Points of a tick label, for so many in a row."""
    return max(4.5, min(most, 240 / max(count, 1)))
