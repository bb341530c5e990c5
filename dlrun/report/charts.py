"""Charts as plain dicts in Plotly's words (https://plotly.com/javascript/reference), which page.js draws when seen.

Colours are names of the page's own, `var(--blue)`, so that a chart follows the theme; page.js puts their values in, and
gives every chart the page's fonts, grid and background. All text goes through `text`: Plotly reads some HTML.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

BLUE, ORANGE, GREEN, VERMILLION = "var(--blue)", "var(--orange)", "var(--green)", "var(--vermillion)"
PURPLE, SKY, YELLOW, GREY, INK = "var(--purple)", "var(--sky)", "var(--yellow)", "var(--grey)", "var(--ink)"
COLOURS = (BLUE, ORANGE, GREEN, VERMILLION, PURPLE, SKY, YELLOW, GREY)  # Okabe and Ito, in the order they are taken
CONTROLS = {chr(code) for code in (*range(32), *range(0x202A, 0x202F), *range(0x2066, 0x206A))}  # they turn text about
DASHES = ("solid", "dash", "dot", "dashdot")  # with the colours, 32 lines that can be told apart


FEW = 6  # points, each of which has a tick
MANY = 300  # points of a line, from which it is thinner


@dataclass(frozen=True)
class Chart:
    """A figure, with a title above it and perhaps a caption below.

    views: group → choice → what of the figure is different then, `{"data": [partial trace, …], "layout": {…}}`; the
    page's switch of that group (macro `switch`) chooses for all its charts at once. The first choice is shown first.
    """

    name: str  # its id in the page: letters, digits and hyphens
    title: str
    data: Sequence[Mapping[str, Any]]
    layout: Mapping[str, Any]
    height: int = 300  # pixels
    caption: str = ""
    views: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)
    square: bool = False  # as high as it is wide, and not too wide

    def plain(self) -> dict[str, Any]:
        """What page.js reads."""
        return {"data": list(self.data), "layout": dict(self.layout), "views": self.views}


def text(words: object, longest: int | None = None) -> str:
    """Untrusted words for any text of a chart, as they are; longer ones lose their end."""
    said = "".join(character for character in str(words) if character not in CONTROLS)
    if longest is not None and len(said) > longest:
        said = said[: longest - 1] + "…"
    return said.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def numbers(values: Iterable[float | None]) -> list[float | None]:
    """What isn't finite is a gap."""
    return [value if value is not None and math.isfinite(value) else None for value in values]


def axis(title: str, **more: Any) -> dict[str, Any]:
    """An axis with a name; `more` as in Plotly's layout.xaxis."""
    return {"title": {"text": text(title)}} | more


def counted(values: Sequence[int]) -> dict[str, Any]:
    """For `axis`: ticks at whole numbers, however few there are."""
    return {"tickformat": ",d"} | ({"tickmode": "array", "tickvals": list(values)} if len(values) <= FEW else {})


def line(name: str, x: Sequence[float | None], y: Iterable[float | None], colour: str, **more: Any) -> dict[str, Any]:
    """A line with gaps where a value isn't finite; a value that stands alone between gaps is a dot."""
    values = numbers(y)
    lone = [
        value is not None and (i == 0 or values[i - 1] is None) and (i + 1 == len(values) or values[i + 1] is None)
        for i, value in enumerate(values)
    ]
    trace: dict[str, Any] = {"type": "scatter", "mode": "lines", "name": text(name), "x": list(x), "y": values}
    trace |= {"line": {"color": colour, "width": 2 if len(values) <= MANY else 1.2}, "connectgaps": False}
    if any(lone):
        trace |= {"mode": "lines+markers", "marker": {"color": colour, "size": [7 if alone else 0 for alone in lone]}}
    return trace | more
