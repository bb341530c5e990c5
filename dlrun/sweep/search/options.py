"""conf/hydra/sweeper/optuna.yaml: how is searched, in Hydra's names where Hydra has them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from dlrun.errors import UserError, choices
from dlrun.registry import Count, Seed, check_options, check_value

KEY = "hydra.sweeper"
Direction = Literal["minimize", "maximize"]


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """The node as it is; what belongs to samplers and pruners is checked with them."""

    name: Literal["optuna"]
    sampler: str | dict[str, Any] = "tpe"
    pruner: str | dict[str, Any] | None = None
    direction: Direction | list[Direction] | None = None
    objective: str | list[str] | None = None
    storage: str | None = None
    study_name: str | None = None
    n_trials: Count | None = None
    n_jobs: Count | None = None
    seed: Seed = 0
    params: dict[str, Any] | None = None
    when: dict[str, Any] | None = None


def read_options(node: Mapping[str, Any]) -> SearchOptions:
    """Raises UserError for an unknown key or a value of the wrong kind."""
    check_options(SearchOptions, node, KEY)
    return SearchOptions(**node)


def named(given: Any, key: str, known: Mapping[str, str]) -> tuple[str, dict[str, Any]]:
    """The name and the options in `tpe` or `{name: tpe, multivariate: true}`. Raises UserError for an unknown name."""
    options = dict(given) if isinstance(given, Mapping) else {"name": given}
    name = options.pop("name", None)
    if not isinstance(name, str) or name not in known:
        raise UserError(f"{key}: unknown {key.rpartition('.')[2]} '{name}'{choices(str(name), known)}")
    return name, options


_KINDS = {"int": int, "float": float, "bool": bool, "str": str, "None": None}


def check_signature(builder: Any, called: str, options: Mapping[str, Any], key: str) -> None:
    """Hold options against those parameters of one of Optuna's classes that take plain values. Raises UserError."""
    import inspect

    known = {}
    for name, parameter in inspect.signature(builder).parameters.items():
        kinds = inspect.formatannotation(parameter.annotation).strip("'").split(" | ")
        if name != "seed" and not name.startswith("warn_") and set(kinds) <= set(_KINDS):
            known[name] = kinds
    for name, value in options.items():
        if name not in known:
            raise UserError(f"{key}.{name}: unknown option{choices(str(name), known)}")
        annotation: Any = _KINDS[known[name][0]]
        for kind in known[name][1:]:
            annotation = annotation | _KINDS[kind]
        check_value(value, annotation, f"{key}.{name}")
    for name, parameter in inspect.signature(builder).parameters.items():
        if name in known and parameter.default is parameter.empty and name not in options:
            raise UserError(f"{key}: {called} needs {name}, too: {{name: {called}, {name}: …}}")
