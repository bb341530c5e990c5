"""Which of the differing config values goes with the result most: it gives the curves their colour at first."""

from __future__ import annotations

import math
from collections.abc import Sequence

from dlrun.report.comparison.columns import Column
from dlrun.wording import is_number


def mattering(columns: Sequence[Column], metric: Column) -> list[str]:
    """Keys of the config columns that are shown, but for the seed, in the order of their share of the variance.

    The share is eta squared (Fisher 1925), the variance between the values' means over all of it, less what as many
    values of no effect would have by chance (epsilon squared, Kelley 1935). It says where to look, and proves nothing.
    """
    shown = [column for column in columns if column.group == "config" and not column.hidden and column.key != "seed"]
    shares = {column.key: share(column.values, metric.values) for column in shown}
    return sorted(shares, key=lambda key: -shares[key])


def share(groups: Sequence[object], values: Sequence[object]) -> float:
    """Epsilon squared of the finite values in their groups; 0 where it isn't defined."""
    members: dict[str, list[float]] = {}
    for group, value in zip(groups, values, strict=True):
        if is_number(value):
            members.setdefault(repr(group), []).append(float(value))
    everything = [value for found in members.values() for value in found]
    n, k = len(everything), len(members)
    if n <= k or k < 2:
        return 0.0
    mean = math.fsum(everything) / n
    total = math.fsum((value - mean) ** 2 for value in everything)
    within = math.fsum((value - math.fsum(found) / len(found)) ** 2 for found in members.values() for value in found)
    return (total - within - (k - 1) * within / (n - k)) / total if total else 0.0
