"""Numbers, durations and sizes as people read them; each is a filter of the templates."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

NONE = "–"


def number(value: Any, digits: int = 4) -> str:
    """With so many significant digits; a count is whole, with separators. What is no number stays what it says."""
    if value is None:
        return NONE
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
    return f"{100 * value:.{digits}f} %" if _is_finite(value) else number(value)


def metric(value: Any, name: str) -> str:
    """A metric's value: shares in per cent."""
    return percent(value) if is_share(name) else number(value)


def is_share(name: str) -> bool:
    """Whether a metric, such as `val/acc`, is a fraction that people read in per cent."""
    last = name.rpartition("/")[2]
    return last in SHARES or last.endswith(("_precision", "_recall", "_f1", "_acc"))


SHARES = ("acc", "top5", "precision", "recall", "f1", "ece", "balanced_acc", "accuracy", "accuracy_change")


def duration(seconds: Any) -> str:
    """2.2 s, 3 min 5 s, 4 h 10 min, 2 d 3 h."""
    if not _is_finite(seconds):
        return number(seconds)
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds >= 0.95 else f"{1000 * seconds:.0f} ms"
    total = round(seconds)
    for large, small, name, below in ((86400, 3600, "d", "h"), (3600, 60, "h", "min"), (60, 1, "min", "s")):
        if total >= large:
            first, rest = divmod(total, large)
            return f"{first} {name}" + (f" {rest // small} {below}" if rest // small else "")
    return f"{total} s"


def size(count: Any) -> str:
    """Bytes in units of 1000."""
    if not _is_finite(count):
        return number(count)
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def magnitude(count: Any) -> str:
    """A count that may be large: 164 k, 11.2 M."""
    if not _is_finite(count):
        return number(count)
    for unit in ("", " k", " M", " G", " T"):
        if abs(count) < 1000:
            return f"{count:.4g}{unit}"
        count /= 1000
    return f"{count:.3g} P"


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


FILTERS: dict[str, Callable[..., str]] = {
    "number": number,
    "percent": percent,
    "metric": metric,
    "duration": duration,
    "size": size,
    "magnitude": magnitude,
}
