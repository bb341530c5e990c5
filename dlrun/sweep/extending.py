"""More jobs for a sweep: those of a larger grid that it doesn't have yet."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from copy import deepcopy
from typing import Any

from dlrun.errors import UserError
from dlrun.identity import key, matters
from dlrun.logs import configure_terminal
from dlrun.sweep.composition import Composer, job_words
from dlrun.sweep.finding import find
from dlrun.sweep.folder import SweepFolder
from dlrun.sweep.grid import Axes, axes, combinations, swept
from dlrun.sweep.launchers import build as build_launcher
from dlrun.sweep.policy import Policy
from dlrun.sweep.resuming import MAY_CHANGE, arguments, changes
from dlrun.sweep.running import run
from dlrun.sweep.starting import prepare
from dlrun.sweep.surroundings import check_commands, check_sweep_plugins


def extend(folder: SweepFolder, words: Sequence[str]) -> int:
    """`dlrun sweep extend run=DIR KEY=VALUE,…`: the grid with these values added to its own. Raises UserError."""
    configure_terminal()
    values = [word for word in words if not word.startswith("plugins=")]
    if not job_words(values) or len(job_words(values)) != len(values):
        raise UserError("sweep extend: say which values come in, such as optimizer.lr=1e-1 or seed=range(5,10)")
    with folder.held():
        facts = _facts(folder)
        grid = deepcopy(facts["axes"])
        for name, added in axes(values).items():
            before = grid.setdefault(name, [])
            before += [word for word in added if word not in before]
        return _add(folder, facts, grid, arguments(facts, facts["words"]), words, axes=grid)


def add(name: str, grid: Axes, args: Namespace) -> int:
    """`dlrun -m … sweep.extend=DIR`: a grid of its own, of which the sweep has some jobs. Raises UserError."""
    folder = find(name)
    with folder.held():
        facts = _facts(folder)
        facts |= changes(facts, list(filter(_says_how, args.overrides)), (*MAY_CHANGE, "sweep.check"))
        return _add(folder, facts, grid, args, args.overrides)


def _add(
    folder: SweepFolder, facts: dict[str, Any], grid: Axes, args: Namespace, words: Sequence[str], **changed: Any
) -> int:
    """Freeze, check and run the jobs of `grid` that the sweep doesn't have, and what is left of the others.

    What the sweep knows already of conf/ is taken from there, so that old and new jobs can be compared. `words` are of
    whoever says so; what is `changed` in sweep.json is kept with the new jobs.
    """
    jobs = folder.read_jobs()
    check_sweep_plugins(folder, words)
    check_commands(facts["launcher"], words)
    over = list(dict.fromkeys([*facts["swept"], *swept(grid), *_differing(facts["axes"], grid)]))
    known = [key(job.config, over) for job in jobs]
    first = 1 + max((job.number for job in jobs), default=-1)
    composer = Composer(args, bases=folder.read_bases(), words=words)
    launcher = build_launcher(facts["launcher"], folder)
    asked = Policy(**facts["policy"])
    new, _ = prepare(composer, combinations(grid), over, facts["naming"], asked, launcher.elsewhere, first, known)
    taken = {job.folder for job in jobs} & {job.folder for job in new}
    if taken:
        raise UserError(f"hydra.sweep.subdir: the new jobs would have folders of the old ones ({', '.join(taken)})")
    folder.write_bases(composer.bases)
    # The jobs last: those that a kill leaves out are new to the next one who says the same words.
    folder.update(swept=over, launcher=facts["launcher"], policy=facts["policy"], **changed)
    folder.append(new)
    folder.update(jobs=len(jobs) + len(new))
    print(f"{len(new)} new job{'s' * (len(new) != 1)} for {folder.path}")
    return run(folder)


def _facts(folder: SweepFolder) -> dict[str, Any]:
    facts = folder.read()
    if facts["kind"] != "grid":
        raise UserError(f"sweep.extend: {folder.path} is a search; dlrun sweep resume hydra.sweeper.n_trials=… goes on")
    return facts


def _says_how(word: str) -> bool:
    """Whether the jobs are run by it; that they get their folders here, and no others, is said already."""
    if word.startswith("hydra.sweep."):
        raise UserError(f"{word.partition('=')[0]}: new jobs of a sweep are put beside its others")
    return word.startswith(("hydra/launcher=", "hydra.launcher.", "sweep.")) and not word.startswith("sweep.extend=")


def _differing(before: Axes, now: Axes) -> list[str]:
    """Keys with one value each that isn't the same one: they tell the new jobs from the old ones, too."""
    names = [name.lstrip("+~") for name in dict.fromkeys([*before, *now]) if before.get(name) != now.get(name)]
    return list(filter(matters, names))
