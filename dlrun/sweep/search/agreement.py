"""A study of the plan's name, and whether it is about the same thing: several sweeps may share it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from dlrun.errors import UserError
from dlrun.identity import key
from dlrun.passwords import masked
from dlrun.sweep.search.options import KEY
from dlrun.sweep.search.reaching import import_optuna
from dlrun.sweep.search.space import Space
from dlrun.sweep.search.storage import open_storage, told_as_one_line

SPACE = "dlrun:space"  # attribute of a study: what it is about


def what_is_fixed(configs: list[dict[str, Any]], swept: list[str]) -> list[str]:
    """Digests of all that isn't searched, of a config for each combination of choices."""
    return sorted({key(_unsearched(config, swept)) for config in configs})


def _unsearched(config: Mapping[str, Any], swept: list[str], path: str = "") -> dict[str, Any]:
    """A config without what is searched, and where a machine has its files: the rest of a study is one."""
    return {
        name: _unsearched(value, swept, f"{path}{name}.") if isinstance(value, Mapping) else value
        for name, value in config.items()
        if f"{path}{name}" not in (*swept, "data.root")
    }


def find_study(where: str, plan: Mapping[str, Any], space: Space, make: bool) -> Any:
    """The study of the plan's name: made, or found and compared. None if it isn't there and shan't be made.

    Raises UserError for a study that searches something else.
    """
    optuna = import_optuna()
    from dlrun.sweep.search.pruners import build_pruner
    from dlrun.sweep.search.samplers import Anew, build_sampler

    own = {name: value for name, value in plan["sampler"].items() if name != "name"}
    sampler = Anew(build_sampler(plan["sampler"]["name"], own, space, plan["seed"]), plan["sampler"]["name"] == "grid")
    pruner, storage = build_pruner(plan["pruner"]), open_storage(where)
    about = {name: plan[name] for name in ("space", "objectives", "directions", "fixed")}
    with told_as_one_line(where):
        try:
            study = optuna.load_study(study_name=plan["name"], storage=storage, sampler=sampler, pruner=pruner)
        except KeyError:
            if not make:
                return None
            study = optuna.create_study(
                study_name=plan["name"],
                storage=storage,
                sampler=sampler,
                pruner=pruner,
                directions=plan["directions"],
                load_if_exists=True,
            )
        said = study.user_attrs.get(SPACE)
        if said is None and not study.get_trials(deepcopy=False):
            if make:
                study.set_user_attr(SPACE, json.dumps(about))
            return study
        _compare(None if said is None else json.loads(said), about, f"'{plan['name']}' in {masked(where)}")
        return study


def _compare(before: Mapping[str, Any] | None, now: Mapping[str, Any], study: str) -> None:
    """Raises UserError that names the first thing in which two studies differ."""
    advice = f"{KEY}.study_name: there is another study {study}"
    if before is None:
        raise UserError(f"{advice}, which dlrun didn't make; choose another name")
    for name in [*now["space"], *before["space"]]:
        one, other = before["space"].get(name, "nothing"), now["space"].get(name, "nothing")
        if one != other:
            raise UserError(f"{advice}: it searches {name} in {one}, not in {other}; choose another name")
    for name in ("objectives", "directions"):
        if before[name] != now[name]:
            raise UserError(f"{advice}: its {name} are {before[name]}, not {now[name]}; choose another name")
    if before["fixed"] != now["fixed"]:
        raise UserError(f"{advice}: what isn't searched differs from this config; choose another name")
