"""Runs whose configs differ in the seed alone are one configuration: its mean and deviation."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dlrun.identity import matters
from dlrun.report.comparison.differences import word
from dlrun.report.comparison.reading import Run

SEED = "seed"


@dataclass(frozen=True)
class Sample:
    """What several seeds come to; one alone has no deviation."""

    values: tuple[float, ...]

    @property
    def n(self) -> int:
        return len(self.values)

    @property
    def mean(self) -> float:
        return math.fsum(self.values) / self.n

    @property
    def sd(self) -> float | None:
        """Standard deviation of the sample: divided by n - 1."""
        if self.n < 2:
            return None
        mean = self.mean
        return math.sqrt(math.fsum((value - mean) ** 2 for value in self.values) / (self.n - 1))


@dataclass(frozen=True, eq=False)
class Configuration:
    """Runs of one config, a seed each."""

    runs: tuple[int, ...]  # places in the list of all runs
    repeats: tuple[int, ...]  # of a config and a seed that is there already: they say nothing new


def configurations(runs: Sequence[Run]) -> list[Configuration]:
    """In the order of their first runs; a run whose config can't be read is in none.

    Where a result is told and who computed it matter as little as in a sweep (`dlrun.identity`). Of two runs with one
    seed that counts which ended well, and of those the later one.
    """
    groups: dict[str, dict[str, list[int]]] = {}
    for place, run in enumerate(runs):
        if run.config:
            rest = "\n".join(f"{name}={word(run.config, name)}" for name in sorted(run.config) if _tells(name))
            groups.setdefault(rest, {}).setdefault(repr(run.config.get(SEED)), []).append(place)
    found = []
    for seeds in groups.values():
        ordered = [sorted(places, key=lambda i: (not runs[i].done, -i)) for places in seeds.values()]
        repeats = sorted(i for places in ordered for i in places[1:])
        found.append(Configuration(tuple(places[0] for places in ordered), tuple(repeats)))
    return sorted(found, key=lambda configuration: min(configuration.runs))


def _tells(name: str) -> bool:
    return name != SEED and matters(name)


def sample(configuration: Configuration, runs: Sequence[Run], figure: Callable[[int], float | None]) -> Sample | None:
    """`figure` of those that ended well, by their places; None where there is none."""
    values = [figure(i) for i in configuration.runs if runs[i].done]
    found = tuple(value for value in values if value is not None and math.isfinite(value))
    return Sample(found) if found else None
