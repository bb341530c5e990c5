"""A grid: every combination of the values that the words give, made before the first job starts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Override, ValueType

from dlrun.compose import parse_overrides
from dlrun.errors import UserError
from dlrun.sweep.composition import job_words
from dlrun.sweep.folder import FrozenJob, SweepFolder
from dlrun.sweep.state import ENDED, State, state_of

Axes = dict[str, list[str]]  # key, as it is written → the words that give it its values


def axes(words: Sequence[str], params: Mapping[str, Any] | None = None) -> Axes:
    """What the words give each key, in Hydra's order.

    `params` is `hydra.sweeper.params`; what the words say comes before it. Raises UserError for a continuous range.
    """
    named = [f"{key}={'null' if value is None else value}" for key, value in (params or {}).items()]
    found: Axes = {}
    for override in parse_overrides(job_words([*named, *words])):
        found[override.get_key_element()] = _values(override)
    return found


def combinations(given: Axes) -> list[list[str]]:
    """Each job's words; the last key changes first."""
    return [list(words) for words in product(*given.values())]


def swept(given: Axes) -> list[str]:
    """The keys that have several values."""
    return [key.lstrip("+") for key, words in given.items() if len(words) > 1]


def _values(override: Override) -> list[str]:
    key = override.get_key_element()
    if not override.is_sweep_override():
        word = f"{key}={override.get_value_element_as_str()}"
        return [key if override.is_delete() and override.value() is None else word]
    if not override.is_discrete_sweep():
        raise UserError(
            f"'{override.input_line}' has no end of values: a grid needs some, such as choice(…) or range(…); "
            "hydra/sweeper=optuna searches between two"
        )
    if override.value_type is ValueType.GLOB_CHOICE_SWEEP:  # of what is in conf/ now
        if not GlobalHydra.instance().is_initialized():
            raise UserError(f"'{override.input_line}': conf/ isn't asked again for an old sweep; name the choices")
        override.config_loader = GlobalHydra.instance().config_loader()
    values = list(override.sweep_string_iterator())
    if not values:
        raise UserError(f"'{override.input_line}' has no value")
    return [f"{key}={value}" for value in values]


class Grid:
    """A driver's source: all jobs of the manifest that haven't ended yet, those that were interrupted first."""

    def __init__(self, folder: SweepFolder):
        states = {job.number: (job, state_of(folder.run(job))) for job in folder.read_jobs()}
        left = [(job, state) for job, state in states.values() if state not in ENDED]
        left.sort(key=lambda pair: pair[1] not in ("interrupted", "running"))
        self.total, self.done = len(states), len(states) - len(left)
        self._coming: Iterator[FrozenJob] = iter([job for job, _ in left])

    def next(self) -> FrozenJob | None:
        return next(self._coming, None)

    def ended(self, job: FrozenJob, state: State, summary: Mapping[str, Any]) -> None:
        """A grid has nothing to learn from a result."""
