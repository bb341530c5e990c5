"""A search space in the words of a W&B sweep (docs.wandb.ai, "Sweep configuration options")."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from dlrun.errors import UserError
from dlrun.sweep.search.domains import Choice, Domain, Interval, Steps
from dlrun.sweep.search.space import WHEN, Parameter, Space

Method = Literal["bayes", "random", "grid"]
NAME = re.compile("[A-Za-z_][A-Za-z0-9_.-]*")  # of a parameter, in W&B's own schema of a sweep
MOST_VALUES = 1000  # written out one by one


def parameters(space: Space, method: Method) -> dict[str, dict[str, Any]]:
    """W&B's `parameters`. Raises UserError for what a W&B sweep can't express."""
    return {parameter.name: _parameter(parameter, method) for parameter in space.parameters}


def _parameter(parameter: Parameter, method: Method) -> dict[str, Any]:
    if parameter.when:
        conditions = " and ".join(map(str, parameter.when))
        raise UserError(
            f"{WHEN}: {parameter.name} is for {conditions}, but in a W&B sweep every run has every parameter; "
            f"fix {parameter.when[0].parent} to one choice, or search with dlrun -m hydra/sweeper=optuna"
        )
    if NAME.fullmatch(parameter.key) is None:
        raise UserError(
            f"{parameter.key}: W&B doesn't take that name for a parameter; expected letters, digits, '_', '-' and '.'"
        )
    if method == "grid" and parameter.domain.values is None:
        raise UserError(
            f"method: a grid has no end with {parameter.name}={parameter.domain}; "
            "say its values, or method=bayes or random"
        )
    return _distribution(parameter.name, parameter.domain, method)


def _distribution(name: str, domain: Domain, method: Method) -> dict[str, Any]:
    if isinstance(domain, Interval) and method != "grid":
        bounds: dict[str, Any] = {"min": domain.low, "max": domain.high}
        if domain.whole and domain.log:
            return {"distribution": "q_log_uniform_values", **bounds, "q": 1}  # a whole q draws whole numbers
        if domain.whole:
            return {"distribution": "int_uniform", **bounds}
        floats = {end: float(value) for end, value in bounds.items()}
        return {"distribution": "log_uniform_values" if domain.log else "uniform", **floats}
    if isinstance(domain, Steps) and isinstance(domain.low, int) and domain.step == 1:
        low, high = domain.ends
        return {"distribution": "int_uniform", "min": low, "max": high}
    # Other steps W&B has only with an inexact end: it rounds what it draws between the bounds, and its grid leaves out
    # the last.
    values = domain.values or ()
    if len(values) > MOST_VALUES:
        raise UserError(
            f"{name}: {len(values)} values are too many to write down (at most {MOST_VALUES}), got {domain}"
        )
    return {"values": [_written(domain, value) for value in values]}


def _written(domain: Domain, value: Any) -> Any:
    """A value so that `KEY=VALUE`, which the agent makes of it as Python prints it, means it to Hydra."""
    if value is None or isinstance(value, str):
        return domain.word(value)  # null, and quotes where they are needed
    if isinstance(domain, Choice) and not isinstance(value, bool | int | float):
        return domain.word(value)
    return value


def early_termination(kind: str, space: Space, configs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """W&B's `early_terminate`: Hyperband, looking at a ninth and at a third of the longest run's evaluations.

    `configs` has one for each combination of choices. Raises UserError where no length is known, or too few are made.
    """
    key = "trainer.max_epochs"
    epochs = [config["trainer"]["max_epochs"] for config in configs]
    if key in {parameter.name for parameter in space.parameters}:
        epochs = space[key].domain.ends
    if None in epochs:
        raise UserError(f"early_terminate: {kind} has to know how long a run is; expected {key}, which is null")
    evaluations = -(-max(epochs) // configs[0]["trainer"]["check_val_every_n_epoch"])
    if evaluations < 3:
        raise UserError(f"early_terminate: {kind} needs runs of at least 3 evaluations, got {evaluations}")
    return {"type": kind, "max_iter": evaluations, "s": 2, "eta": 3}
