"""Numbers, durations and sizes as people read them; each is a filter of the templates."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from dlrun import wording
from dlrun.wording import NOTHING, is_fraction, is_number


def number(value: Any, digits: int = 4) -> str:
    """With so many significant digits; a count is whole, with separators. What is no number stays what it says."""
    if value is None:
        return NOTHING
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, int) or (value.is_integer() and abs(value) < 1e9):
        return f"{value:,.0f}"
    if not 0.001 <= abs(value) < 1e6:
        return f"{value:.{digits - 1}e}"
    return f"{value:,.{max(0, digits - 1 - math.floor(math.log10(abs(value))))}f}"


def percent(value: Any, digits: int = 2) -> str:
    return f"{100 * value:.{digits}f} %" if is_number(value) else number(value)


def metric(value: Any, name: str) -> str:
    """A metric's value: shares in per cent."""
    return percent(value) if is_fraction(name) else number(value)


def duration(seconds: Any) -> str:
    """`dlrun.wording.duration` of what may be no number."""
    return wording.duration(seconds) if is_number(seconds) else number(seconds)


def size(count: Any) -> str:
    """Bytes in units of 1000."""
    if not is_number(count):
        return number(count)
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def magnitude(count: Any) -> str:
    """A count that may be large: 164 k, 11.2 M."""
    if not is_number(count):
        return number(count)
    for unit in ("", " k", " M", " G", " T"):
        if abs(count) < 1000:
            return f"{count:.4g}{unit}"
        count /= 1000
    return f"{count:.3g} P"


FILTERS: dict[str, Callable[..., str]] = {
    "number": number,
    "percent": percent,
    "metric": metric,
    "duration": duration,
    "size": size,
    "magnitude": magnitude,
}
