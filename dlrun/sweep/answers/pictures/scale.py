"""An axis for what was swept: numbers, on a logarithmic scale where they were meant so, or names."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dlrun.wording import value_text

DISTINCT = 40  # values that still have a place of their own


@dataclass(frozen=True)
class Scale:
    """The values of one parameter that occur, in order."""

    key: str
    numeric: bool
    log: bool
    distinct: tuple[Any, ...]  # numbers by size, names in the order in which they come

    def index(self, value: Any) -> int:
        return [_same(v) for v in self.distinct].index(_same(value))

    def share(self, value: Any) -> float:
        """0 to 1 along the axis."""
        if not self.numeric:
            return 0.5 if len(self.distinct) == 1 else self.index(value) / (len(self.distinct) - 1)
        low, high, here = (math.log(v) if self.log else v for v in (self.distinct[0], self.distinct[-1], value))
        return 0.5 if low == high else (here - low) / (high - low)


def scale(key: str, values: Iterable[Any], space: str | None = None) -> Scale:
    """`space` is what a search says of the key; without it, numbers whose steps multiply are logarithmic."""
    seen = {_same(value): value for value in values}
    found = list(seen.values())
    numeric = all(isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) for v in found)
    if not numeric:
        return Scale(key, False, False, tuple(found))
    found.sort()
    said = space or ""
    log = said.startswith("tag(log") if said.startswith(("tag(", "interval", "range")) else _multiplies(found)
    return Scale(key, True, found[0] > 0 and log, tuple(found))


def spaces(sweep: Mapping[str, Any]) -> dict[str, str]:
    """What sweep.json says of a search's parameters: key → `tag(log,interval(1e-05,0.1))`."""
    space = (sweep.get("study") or {}).get("space") or {}
    return {key: str(value) for key, value in space.items()}


def ticks(numbers: Scale, most: int = 6) -> list[tuple[float, str]]:
    """Shares and texts: each value where they are few, and round numbers where they aren't."""
    if not numbers.numeric or len(numbers.distinct) <= most:
        return [(numbers.share(value), value_text(value)) for value in numbers.distinct]
    from matplotlib.ticker import LogLocator, MaxNLocator

    low, high = numbers.distinct[0], numbers.distinct[-1]
    locator = LogLocator(numticks=most) if numbers.log else MaxNLocator(most, integer=isinstance(low, int))
    inside = [v for v in locator.tick_values(low, high) if low <= v <= high]
    if len(inside) < 2:
        inside = [low, high]
    return [(numbers.share(v), value_text(int(v) if float(v).is_integer() and v < 1e6 else float(v))) for v in inside]


def _multiplies(numbers: Sequence[float]) -> bool:
    """1e-4, 1e-3, 1e-2, or 16, 32, 64; and two powers of ten, if the middle is nearer to the geometric one."""
    if len(numbers) < 2 or numbers[0] <= 0:
        return False
    if numbers[-1] / numbers[0] >= 100:
        middle = numbers[len(numbers) // 2]
        geometric = math.log(middle / numbers[0]) / math.log(numbers[-1] / numbers[0])
        return len(numbers) == 2 or abs(geometric - 0.5) < abs((middle - numbers[0]) / (numbers[-1] - numbers[0]) - 0.5)
    ratios = [math.log(b / a) for a, b in itertools.pairwise(numbers)]
    return len(numbers) > 2 and ratios[0] >= math.log(1.9) and max(ratios) < 1.3 * min(ratios)


def _same(value: Any) -> str:
    """1 and 1.0 are one value, 1 and "1" aren't."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**53:
        value = float(value)
    return json.dumps(value, sort_keys=True, default=str)
