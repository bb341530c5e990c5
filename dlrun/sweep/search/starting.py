"""A search, begun or resumed: from the words to a source of jobs that is run as any sweep."""

from __future__ import annotations

import logging
from argparse import Namespace
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from dlrun.errors import UserError
from dlrun.passwords import masked
from dlrun.rehearsal import Rehearsal
from dlrun.runfolder import new_run_id
from dlrun.sweep.composition import Composer, job_words
from dlrun.sweep.folder import SweepFolder
from dlrun.sweep.launchers import Launcher
from dlrun.sweep.launchers import build as build_launcher
from dlrun.sweep.policy import policy
from dlrun.sweep.running import run
from dlrun.sweep.search.agreement import find_study, what_is_fixed
from dlrun.sweep.search.objectives import OF_THE_RUN, read_objectives
from dlrun.sweep.search.options import KEY, SearchOptions, read_options
from dlrun.sweep.search.reaching import import_optuna, keep_storage, storage_of
from dlrun.sweep.search.space import Space, read_space
from dlrun.sweep.search.storage import absolute, asking
from dlrun.sweep.search.trying import try_out
from dlrun.sweep.starting import describe, make_folder, plain_node

if TYPE_CHECKING:
    from dlrun.sweep.search.study import Search

log = logging.getLogger("dlrun")
TRIALS = 20  # unless the user says how many


def start_search(args: Namespace, cfg: DictConfig, folder: SweepFolder, named: bool) -> int:
    """Begin a search and run it; returns its exit code. Raises UserError before any job has begun."""
    folder = begin_search(args, cfg, folder, named)
    return run(folder, build_launcher(folder.read()["launcher"], folder), search_of(folder))


def begin_search(args: Namespace, cfg: DictConfig, folder: SweepFolder, named: bool) -> SweepFolder:
    """Check everything and write it into a folder of the search's own; `search_of` needs no more than that."""
    optuna = import_optuna()
    asked, node = policy(cfg), plain_node(cfg.hydra.sweeper)
    options = read_options(node)
    launcher = build_launcher(plain_node(cfg.hydra.launcher), folder)
    _check_n_jobs(options, launcher)
    space = _space(args.overrides, options)
    composer = Composer(args)
    rehearsal = Rehearsal(asked.check, launcher.elsewhere)
    configs = try_out(space, composer, rehearsal.check)
    objectives = read_objectives(options, configs[0])
    mode = rehearsal.check(configs[0]) or ""
    plan = _plan(options, space, objectives, configs)
    where = None if options.storage is None else absolute(options.storage)
    if where is not None:  # what can't be reached, or is another study, is known before a folder is made
        find_study(where, {**plan, "name": options.study_name or ""}, space, make=False)
    _say_what_is_special(space, plan)

    folder = make_folder(folder, named)
    name = options.study_name or ("search" if where is None else folder.name)
    plan |= {"name": name, "storage": keep_storage(folder, options.storage), "owner": new_run_id()}
    facts = describe(args, cfg, asked, configs[0], mode)
    facts |= {"kind": "search", "swept": [p.name for p in space.parameters], "study": plan}
    facts["versions"] = {**facts["versions"], "optuna": optuna.__version__}
    folder.write_bases(composer.bases)
    folder.begin(_without_passwords(facts))
    return folder


def resume_search(folder: SweepFolder, changes: Mapping[str, Any], words: Sequence[str]) -> int:
    """Go on with a search, as `words` say; `changes` are of sweep.json. Returns the exit code. Raises UserError."""
    import_optuna()
    facts = {**folder.read(), **changes}
    options = read_options(facts["sweeper"])
    space = _space(facts["words"], options)
    _check_n_jobs(options, build_launcher(facts["launcher"], folder))
    plan = facts["study"] | {"n_jobs": options.n_jobs}
    if options.n_trials is not None:
        plan["n_trials"] = _n_trials(options, space, plan["sampler"]["name"])
    folder.update(**changes, study=plan)
    return run(folder, build_launcher(facts["launcher"], folder), search_of(folder, words))


def search_of(folder: SweepFolder, words: Sequence[str] | None = None) -> Search:
    """The source of a search's jobs, from its folder alone, which is this process's from here on. Raises UserError.

    `words` are of whoever goes on with a search, see Composer.
    """
    import_optuna()
    from dlrun.sweep.resuming import arguments
    from dlrun.sweep.search.study import Plan, Search

    folder.hold()
    facts, where = folder.read(), storage_of(folder)
    plan = facts["study"]
    space = _space(facts["words"], read_options(facts["sweeper"]))
    return Search(
        folder,
        find_study(where, plan, space, make=True),
        space,
        Composer(arguments(facts, facts["words"]), bases=folder.read_bases(), words=words),
        Plan(
            owner=plan["owner"],
            objectives=list(plan["objectives"]),
            n_trials=plan["n_trials"],
            n_jobs=plan["n_jobs"],
            naming=facts["naming"],
            where=where,
            asking=asking(where),
        ),
    )


def _space(words: list[str], options: SearchOptions) -> Space:
    return read_space(job_words(words), options.params or {}, options.when or {})


def _plan(
    options: SearchOptions, space: Space, objectives: Mapping[str, str], configs: list[dict[str, Any]]
) -> dict[str, Any]:
    """What sweep.json says of the study, all of it checked. Raises UserError."""
    from dlrun.sweep.search.pruners import check_pruner
    from dlrun.sweep.search.samplers import check_sampler

    sampler, given = check_sampler(options.sampler, space, len(objectives))
    epochs = [config["trainer"]["max_epochs"] for config in configs]
    if "trainer.max_epochs" in {p.name for p in space.parameters}:
        epochs = [max(space["trainer.max_epochs"].domain.ends)]
    most = None if None in epochs else max(epochs)
    pruner = check_pruner(options.pruner, most, len(objectives))
    if pruner is not None and (late := [name for name in objectives if name in OF_THE_RUN]):
        raise UserError(f"{KEY}.pruner: {pruner['name']} needs a metric of each epoch, and {late[0]} is of the run")
    return {
        "objectives": list(objectives),
        "directions": list(objectives.values()),
        "sampler": {"name": sampler, **given},
        "pruner": pruner,
        "n_trials": _n_trials(options, space, sampler),
        "n_jobs": options.n_jobs,
        "seed": options.seed,
        "space": space.describe(),
        "fixed": what_is_fixed(configs, [parameter.name for parameter in space.parameters]),
    }


def _n_trials(options: SearchOptions, space: Space, sampler: str) -> int:
    from dlrun.sweep.search.samplers import grid_size

    if sampler != "grid":
        return options.n_trials or TRIALS
    size = grid_size(space)
    if options.n_trials is not None and options.n_trials > size:
        raise UserError(f"{KEY}.n_trials: expected at most {size}, which is the whole grid, got {options.n_trials}")
    return options.n_trials or size


def _check_n_jobs(options: SearchOptions, launcher: Launcher) -> None:
    if options.n_jobs is not None and options.n_jobs > launcher.slots:
        raise UserError(
            f"{KEY}.n_jobs: {options.n_jobs} trials at a time, but the launcher runs {launcher.slots}; "
            f"say hydra.launcher.jobs={options.n_jobs}, too"
        )


def _say_what_is_special(space: Space, plan: Mapping[str, Any]) -> None:
    from dlrun.sweep.search.samplers import drawn_by_chance

    for parameter in space.left_out:
        log.info("%s isn't searched: it is for %s", parameter.name, " and ".join(map(str, parameter.when)))
    if alone := drawn_by_chance(plan["sampler"]["name"], space):
        log.warning("cmaes knows nothing of %s: drawn at random", ", ".join(alone))


def _without_passwords(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _without_passwords(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_without_passwords(inner) for inner in value]
    return masked(value) if isinstance(value, str) and "://" in value else value
