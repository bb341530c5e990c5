"""Who proposes the next trial: Optuna's samplers, by short names, made anew for each trial.

A sampler that lives through a search draws from one stream of random numbers, and after a kill that stream is lost. One
that is seeded by the trial's number draws the same whether or not the search was killed before it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from math import prod
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from dlrun.errors import UserError
from dlrun.sweep.search.domains import MOST, Choice
from dlrun.sweep.search.options import check_signature, named
from dlrun.sweep.search.space import Space

SAMPLERS = {
    "tpe": "TPESampler",  # Watanabe 2023, https://arxiv.org/abs/2304.11127
    "cmaes": "CmaEsSampler",
    "random": "RandomSampler",
    "grid": "GridSampler",
    "gp": "GPSampler",
    "qmc": "QMCSampler",
    "nsgaii": "NSGAIISampler",
    "nsgaiii": "NSGAIIISampler",
}
NEEDS = {"cmaes": ["cmaes"], "gp": ["scipy", "torch"], "qmc": ["scipy"]}
# Trials of these are places in one sequence, which the seed decides.
ONE_SEQUENCE = ("grid", "qmc")
KEY = "hydra.sweeper.sampler"


class Anew(BaseSampler):
    """Stands for a sampler that `make` makes for each trial, by the trial's number."""

    def __init__(self, make: Callable[[int], BaseSampler], stops: bool = False):
        self._make, self._stops = make, stops
        self._made: tuple[int, BaseSampler] | None = None

    def _for(self, trial: FrozenTrial) -> BaseSampler:
        if self._made is None or self._made[0] != trial.number:
            self._made = (trial.number, self._make(trial.number))
        return self._made[1]

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._for(trial).infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._for(trial).sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._for(trial).sample_independent(study, trial, param_name, param_distribution)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        self._for(trial).before_trial(study, trial)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        if not self._stops:
            self._for(trial).after_trial(study, trial, state, values)


def check_sampler(given: Any, space: Space, objectives: int) -> tuple[str, dict[str, Any]]:
    """The sampler's name and options. Raises UserError for what it doesn't know, lacks, or can't search."""
    name, options = named(given, KEY, SAMPLERS)
    for module in NEEDS.get(name, ()):
        if find_spec(module) is None:
            raise UserError(f"{KEY}: {name} needs {module}: pip install 'dlrun[optuna]'")
    check_signature(getattr(optuna.samplers, SAMPLERS[name]), name, options, KEY)
    if name == "cmaes" and objectives > 1:
        raise UserError(f"{KEY}: cmaes has one objective, got {objectives}; choose tpe, nsgaii or random")
    numbers = [p.name for p in space.parameters if not isinstance(p.domain, Choice) and not p.when]
    if name == "cmaes" and len(numbers) < 2:
        raise UserError(
            f"{KEY}: cmaes adapts two or more numbers that always apply, got {len(numbers)}; choose tpe or random"
        )
    if name == "grid":
        for parameter in space.parameters:
            if parameter.when:
                raise UserError(f"{KEY}: grid can't do with {parameter.name}, which depends on {parameter.when[0]}")
            if parameter.domain.values is None:
                raise UserError(f"{KEY}: grid needs {parameter.name} as range(a,b,step) or choice(…), not as interval")
        if (size := grid_size(space)) > MOST:
            raise UserError(f"{KEY}: grid has {size:,} places here, and {MOST:,} is the most that it takes")
    build_sampler(name, options, space, 0)(0)
    return name, options


def grid_size(space: Space) -> int:
    return prod(len(parameter.domain.values or ()) for parameter in space.parameters)


def drawn_by_chance(name: str, space: Space) -> list[str]:
    """The parameters of which CMA-ES knows nothing: each is drawn by itself, at random."""
    if name != "cmaes":
        return []
    return [p.name for p in space.parameters if isinstance(p.domain, Choice) or p.when]


def build_sampler(name: str, options: Mapping[str, Any], space: Space, seed: int) -> Callable[[int], BaseSampler]:
    """From a trial's number to its sampler. The call raises UserError for values that Optuna refuses."""
    cls = getattr(optuna.samplers, SAMPLERS[name])
    given = dict(options)
    if name == "grid":
        given["search_space"] = {p.name: list(p.domain.values or ()) for p in space.parameters}
    if "warn_independent_sampling" in inspect.signature(cls).parameters:  # conditional spaces are meant
        given["warn_independent_sampling"] = False

    def make(number: int) -> BaseSampler:
        own = seed if name in ONE_SEQUENCE else int(np.random.SeedSequence((seed, number)).generate_state(1)[0])
        try:
            sampler: BaseSampler = cls(**given, seed=own)
        except ValueError as error:
            raise UserError(f"{KEY}: {' '.join(str(error).split())}") from None
        return sampler

    return make
