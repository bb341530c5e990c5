"""`dlrun sweep best`: the winner of a sweep, and a recipe of it."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlrun.atomic import atomic_write
from dlrun.conffolder import conf_folder
from dlrun.errors import UserError
from dlrun.options import read
from dlrun.registry import Index
from dlrun.sweep.answers.cells import mean_sd, values_text
from dlrun.sweep.answers.configurations import Configuration, Ranking, configurations, rank
from dlrun.sweep.answers.results import Outcome, Results, gather
from dlrun.sweep.folder import SweepFolder
from dlrun.wording import number_text


@dataclass(frozen=True, kw_only=True)
class Options:
    copy_to: Path | None = None
    force: bool = False
    job: Index | None = None


def run(folder: SweepFolder, words: Sequence[str]) -> int:
    """The command; returns its exit code. Raises UserError."""
    options, _ = read(words, Options, "sweep best")
    best(folder.path, options.copy_to, options.force, options.job)
    return 0


def best(path: Path, copy_to: Path | None = None, force: bool = False, job: int | None = None) -> None:
    """Print the winner, or the configuration of `job`; with `copy_to` write a recipe of it. Raises UserError."""
    if copy_to is not None:
        _check_file(copy_to, force)
    results = gather(path)
    ranking = rank(configurations(results), results.objectives)
    winners = ranking.winners if job is None else [_of_job(ranking, job)]
    if not winners:
        raise UserError(f"best: no configuration of {path} has all of its seeds done; job=N takes one that hasn't")
    if copy_to is not None and job is None and len(winners) > 1 and len(results.objectives) > 1:
        jobs = ", ".join(str(c.number) for c in winners)
        raise UserError(f"copy_to: several objectives have no one winner; say which: job=N ({jobs})")
    chosen = winners if len(results.objectives) > 1 else winners[:1]
    for configuration in chosen:
        print("\n".join(_said(results, configuration)))
    if len(results.objectives) == 1 and len(winners) > 1:
        others = ", ".join(values_text(c.values) for c in winners[1:4])
        print(f"as good: {others}" + (f" and {len(winners) - 4} more" if len(winners) > 4 else ""))
    if copy_to is not None:
        _copy(results, chosen[0], copy_to, job)


def _check_file(file: Path, force: bool) -> None:
    if file.suffix.lower() != ".yaml":
        raise UserError(f"copy_to: expected a file that ends in .yaml, got '{file}'")
    if file.is_dir():
        raise UserError(f"copy_to: {file} is a folder")
    if file.exists() and not force:
        raise UserError(f"copy_to: {file} is there already; force=true replaces it")


def _of_job(ranking: Ranking, job: int) -> Configuration:
    everything = [*(c for _, c in ranking.ranked), *ranking.incomplete, *ranking.without]
    for configuration in everything:
        if job in {outcome.job.number for outcome in (*configuration.outcomes, *configuration.repeats)}:
            return configuration
    raise UserError(f"job: the sweep has no job {job}")


def _best_seed(results: Results, configuration: Configuration, job: int | None = None) -> Outcome:
    """The job with the best value; the first one if none has any."""
    if job is not None:
        return next(o for o in (*configuration.outcomes, *configuration.repeats) if o.job.number == job)
    objective = results.objectives[0]
    done = configuration.done(objective.name)
    return max(done, key=lambda o: objective.sign * o.objectives[objective.name]) if done else configuration.outcomes[0]


def _said(results: Results, configuration: Configuration) -> Iterator[str]:
    yield values_text(configuration.values)
    objectives = results.objectives
    if not configuration.complete(objectives):
        yield f"  not all of it is done: {configuration.lacks(objectives)}"
    for objective in objectives:
        found = configuration.sample(objective.name)
        seeds = "" if found is None else f" over {found.n} seed{'s' * (found.n != 1)}"
        interval = (
            ""
            if found is None or found.interval is None
            else " (95 % of the mean: {} to {})".format(*map(number_text, found.interval))
        )
        yield f"  {objective.name} {mean_sd(found)}{seeds}{interval}"
    test = configuration.figures(objectives[0].test)
    if test is not None:
        yield f"  {objectives[0].test} {mean_sd(test)}"
    outcome = _best_seed(results, configuration)
    value = number_text(outcome.objectives.get(objectives[0].name))
    label = f"best seed {outcome.job.config.get('seed')}, {value}: " if len(configuration.outcomes) > 1 else ""
    yield f"  {label}run={os.path.relpath(results.folder.run(outcome.job).path)}"


def _copy(results: Results, configuration: Configuration, file: Path, job: int | None) -> None:
    from dlrun.sweep.answers.recipe import recipe

    outcome = _best_seed(results, configuration, job)
    objective, usage = results.objectives[0], _usage(file, dict(results.sweep))
    found = configuration.sample(objective.name)
    came_to = f"{objective.name} {mean_sd(found)}, n = {found.n}" if found else "nothing yet"
    words = [f"{values_text(configuration.values)}: {came_to} in the sweep {results.folder.name}.", f"  {usage}"]
    words += [f"Job {outcome.job.number} of: {shlex.join(map(str, results.sweep['command']))}"]
    text = recipe(dict(results.sweep), outcome.job, words)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(file) as written:
            written.write(text.encode())
    except OSError as error:
        raise UserError(f"copy_to: can't write {file} ({error.strerror})") from error
    print(f"written {os.path.relpath(file)}; use it: {usage}")


def _usage(file: Path, sweep: dict[str, Any]) -> str:
    """The command that trains by the recipe."""
    flags = sweep["flags"]
    path = file.absolute()
    name = [f"--config-name={flags['config_name']}"] if flags.get("config_name") else []
    places = [parent for parent in path.parents if parent.name == "experiment"]
    if not places:
        return f"move it into a folder experiment/ of conf/ or of a --config-dir; then dlrun experiment={path.stem}"
    top = places[0].parent
    words = [f"experiment={path.relative_to(places[0]).with_suffix('')}"]
    if top.resolve() != conf_folder().resolve():
        words += [f"--config-dir={os.path.relpath(top)}"]
        other = flags.get("config_dir")
        if other and Path(other).resolve() != top.resolve():
            words += [f"hydra.searchpath=[file://{Path(other).absolute()}]"]
    return shlex.join(["dlrun", *words, *name])
