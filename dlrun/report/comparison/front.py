"""The Pareto front of two figures: what costs less is worse, and what is better costs more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal


def front(costs: Sequence[float], values: Sequence[float], mode: Literal["min", "max"]) -> list[int]:
    """The points that no other one beats, as cheap and as good and one of it more, the cheapest first.

    A lower cost is better; of a value what `mode` says. Points that are the same are all of it. Takes n log n.
    """
    sign = 1.0 if mode == "min" else -1.0
    order = sorted(range(len(costs)), key=lambda i: (costs[i], sign * values[i], i))
    found: list[int] = []
    for i in order:
        last = found[-1] if found else None
        same = last is not None and (costs[i], values[i]) == (costs[last], values[last])
        if last is None or same or sign * values[i] < sign * values[last]:
            found.append(i)
    return found
