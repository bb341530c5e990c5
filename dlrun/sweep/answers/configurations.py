"""Jobs that differ in their seed alone are one configuration: its mean, deviation, confidence interval and rank."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dlrun.sweep.answers.results import Objective, Outcome, Results
from dlrun.sweep.state import State

CONFIDENCE = 0.95
# Which of two jobs with one configuration and one seed counts: the one that got further.
PREFERENCE: tuple[State, ...] = ("done", "pruned", "running", "interrupted", "failed", "pending")


@dataclass(frozen=True)
class Sample:
    """What several seeds come to. With one seed there is no deviation, and no interval."""

    n: int
    mean: float
    sd: float | None  # of the sample: divided by n - 1
    interval: tuple[float, float] | None  # of the mean, with confidence 0.95, by Student's t


@dataclass(frozen=True, kw_only=True, eq=False)
class Configuration:
    """Jobs that differ in `seed` alone, one for each seed."""

    values: Mapping[str, Any]  # without the seed
    outcomes: tuple[Outcome, ...]
    repeats: tuple[Outcome, ...] = ()  # jobs with a seed that is there already: they say nothing new

    @property
    def number(self) -> int:
        """Of its first job."""
        return min(outcome.job.number for outcome in self.outcomes)

    def count(self, *states: State) -> int:
        return sum(outcome.state in states for outcome in self.outcomes)

    def done(self, name: str) -> list[Outcome]:
        """The jobs that ended and have a value of the metric."""
        return [outcome for outcome in self.outcomes if outcome.state == "done" and name in outcome.objectives]

    def complete(self, objectives: Sequence[Objective]) -> bool:
        """Whether every seed ended and has a value: a mean over those that survived isn't held against others'."""
        return all(len(self.done(objective.name)) == len(self.outcomes) for objective in objectives)

    def sample(self, name: str) -> Sample | None:
        """Over the seeds that are done; None if none is."""
        return sample([outcome.objectives[name] for outcome in self.done(name)])

    def figures(self, name: str) -> Sample | None:
        """`sample` of what the jobs have beside the objectives: best_epoch, seconds, or a test metric."""
        jobs = [outcome for outcome in self.outcomes if outcome.state == "done"]
        found = [o.test.get(name) if name.startswith("test/") else getattr(o, name) for o in jobs]
        return sample([value for value in found if value is not None])

    def lacks(self, objectives: Sequence[Objective]) -> str:
        """What keeps it out of the ranking."""
        states = {state: self.count(state) for state in PREFERENCE if state != "done"}
        said = [f"{number} {state}" for state, number in states.items() if number]
        valueless = self.count("done") - min(len(self.done(objective.name)) for objective in objectives)
        if valueless:
            said.append(f"{valueless} without a value")
        of = f" of {len(self.outcomes)} seeds" if len(self.outcomes) > 1 else ""
        return ", ".join(said) + of if of or len(said) > 1 else said[0].removeprefix("1 ")


@dataclass(frozen=True)
class Ranking:
    """Complete configurations with their ranks, the best first; equal means share a rank. The others after them."""

    ranked: list[tuple[int, Configuration]]
    incomplete: list[Configuration]  # some seeds are done
    without: list[Configuration]  # no seed is done

    def valued(self, name: str) -> list[Configuration]:
        """All with a mean, those that aren't ranked after the others."""
        return [c for c in [*(c for _, c in self.ranked), *self.incomplete] if c.done(name)]

    @property
    def winners(self) -> list[Configuration]:
        return [configuration for rank, configuration in self.ranked if rank == 1]


def sample(values: Sequence[float]) -> Sample | None:
    """Mean, standard deviation and the mean's 95 % confidence interval; None of nothing."""
    n = len(values)
    if n == 0:
        return None
    mean = math.fsum(values) / n
    if n == 1:
        return Sample(1, mean, None, None)
    from scipy.special import stdtrit

    sd = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    half = float(stdtrit(n - 1, 0.5 + CONFIDENCE / 2)) * sd / math.sqrt(n)
    return Sample(n, mean, sd, (mean - half, mean + half))


def configurations(results: Results) -> list[Configuration]:
    """In the order of their first jobs."""
    groups: dict[str, dict[Any, list[Outcome]]] = {}
    for outcome in results.outcomes:
        values = {key: value for key, value in outcome.values.items() if key != "seed"}
        # What isn't swept, and what isn't a run's config but its circumstances, is the same or doesn't matter.
        group = groups.setdefault(json.dumps(values, sort_keys=True, default=str), {})
        group.setdefault(outcome.job.config.get("seed"), []).append(outcome)
    found = []
    for seeds in groups.values():
        in_order = [sorted(jobs, key=lambda o: PREFERENCE.index(o.state)) for jobs in seeds.values()]
        first = in_order[0][0]
        found.append(
            Configuration(
                values={key: value for key, value in first.values.items() if key != "seed"},
                outcomes=tuple(jobs[0] for jobs in in_order),
                repeats=tuple(job for jobs in in_order for job in jobs[1:]),
            )
        )
    return sorted(found, key=lambda configuration: configuration.number)


def rank(found: Sequence[Configuration], objectives: Sequence[Objective]) -> Ranking:
    """By the mean of the one objective; of several, rank 1 is the Pareto front and nothing else is told apart."""
    complete = [c for c in found if c.complete(objectives)]
    incomplete = [c for c in found if c not in complete and c.count("done")]
    without = [c for c in found if not c.count("done")]
    first = objectives[0]
    means = [[o.sign * _mean(c, o.name) for o in objectives] for c in complete]
    if len(objectives) > 1:
        ranks = [1 if at_front else 2 for at_front in _front(means)]
    else:
        ordered = sorted((mean for (mean,) in means), reverse=True)
        place = {mean: position for position, mean in reversed(list(enumerate(ordered, 1)))}
        ranks = [place[mean] for (mean,) in means]
    order = sorted(range(len(complete)), key=lambda i: (ranks[i], -means[i][0], complete[i].number))
    there = [c for c in incomplete if c.done(first.name)]
    there.sort(key=lambda c: -first.sign * _mean(c, first.name))
    return Ranking([(ranks[i], complete[i]) for i in order], there + [c for c in incomplete if c not in there], without)


def _mean(configuration: Configuration, name: str) -> float:
    found = configuration.sample(name)
    assert found is not None
    return found.mean


def _front(points: Sequence[Sequence[float]]) -> list[bool]:
    """Which points no other one beats: as good in everything, and better in something. More is better."""
    import numpy as np

    if not points:
        return []
    values = np.asarray(points)
    return [bool(~((values >= point).all(axis=1) & (values > point).any(axis=1)).any()) for point in values]
