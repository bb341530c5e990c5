"""How values, times and texts are written for people, and how wide that is on a terminal."""

from __future__ import annotations

import json
import math
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

NOTHING = "–"  # no value
FRACTIONS = ("acc", "top5", "precision", "recall", "f1", "ece", "accuracy", "accuracy_change")
LARGEST = 1e300
ENDS_OF_FRACTIONS = ("_acc", "_precision", "_recall", "_f1")


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether it can be drawn: a finite number, which an integer of 400 digits isn't."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LARGEST


def is_fraction(name: str) -> bool:
    """Whether a metric, such as `val/acc`, is a fraction that people read in per cent."""
    last = name.rpartition("/")[2]
    return last in FRACTIONS or last.endswith(ENDS_OF_FRACTIONS)


def value_text(value: Any) -> str:
    """A config's value as the command line has it, on one line."""
    if isinstance(value, float):
        return f"{value:.6g}"
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, str):
        return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in value)
    if isinstance(value, list | tuple):
        return f"[{','.join(map(value_text, value))}]"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{value_text(v)}" for key, v in value.items()) + "}"
    return str(value)


def number_text(value: float | None, places: int = 4) -> str:
    """Four places, or four digits of what is smaller or larger than those can say."""
    if value is None:
        return NOTHING
    if value == 0 or 0.01 <= abs(value) < 1e6:
        return f"{value:.{places}f}"
    return f"{value:.4g}"


def duration(seconds: float | None) -> str:
    """`70 ms`, `2.2 s`, `3 min 20 s`, `5 h 10 min`, `2 d 3 h`."""
    if seconds is None:
        return NOTHING
    if not math.isfinite(seconds):
        return str(seconds)
    if 0 < seconds < 0.095:
        return f"{1000 * seconds:.0f} ms"
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
