"""How times and texts look on a terminal, and how wide that is."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

NOTHING = "–"  # no value
FRACTIONS = ("acc", "top5")  # what the terminal shows in per cent


def is_fraction(name: str) -> bool:
    last = name.rpartition("/")[2]
    return last in FRACTIONS or last.endswith("_acc")


def duration(seconds: float | None) -> str:
    """`2.2 s`, `3 min 20 s`, `5 h 10 min`, `2 d 3 h`."""
    if seconds is None:
        return NOTHING
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for unit, size, less, part in (("d", 86_400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            rest = whole % size // part
            return f"{whole // size} {unit} {rest} {less}" if rest else f"{whole // size} {unit}"
    return f"{whole} s"


def width(text: str) -> int:
    """Columns that a terminal takes for it: two for what is wide in East Asian scripts, none for combining marks."""
    return sum(_columns(c) for c in text)


def _columns(character: str) -> int:
    if unicodedata.combining(character) or unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def fitted(text: str, columns: int) -> str:
    """A text that is too wide loses its middle."""
    if width(text) <= columns:
        return text
    room = columns - 1
    left, right = "", ""
    for character in text:
        if width(left + character) > room // 2:
            break
        left += character
    for character in reversed(text):
        if width(left + character + right) > room:
            break
        right = character + right
    return f"{left}…{right}"


def aligned(rows: Sequence[Sequence[str]], to_the_left: int) -> list[str]:
    """Columns below each other: the first few to the left, the others, which are numbers, to the right."""
    widths = [max(width(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = []
        for i, cell in enumerate(row):
            space = " " * (widths[i] - width(cell))
            cells.append(cell + space if i < to_the_left else space + cell)
        lines.append("  ".join(cells).rstrip())
    return lines
