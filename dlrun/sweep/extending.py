"""More jobs for a sweep: those of a larger grid that it doesn't have yet."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence

from dlrun.errors import UserError
from dlrun.logs import configure_terminal
from dlrun.sweep.composition import Composer, job_words
from dlrun.sweep.finding import find
from dlrun.sweep.folder import SweepFolder
from dlrun.sweep.grid import Axes, axes, combinations, swept
from dlrun.sweep.identity import key
from dlrun.sweep.launchers import build as build_launcher
from dlrun.sweep.policy import Policy
from dlrun.sweep.resuming import arguments
from dlrun.sweep.running import run
from dlrun.sweep.starting import prepare
from dlrun.sweep.surroundings import check_sweep_plugins


def extend(folder: SweepFolder, words: Sequence[str]) -> int:
    """`dlrun sweep extend run=DIR KEY=VALUE,…`: the grid with these values added to its own. Raises UserError."""
    configure_terminal()
    facts = folder.read()
    check_sweep_plugins((job.config for job in folder.read_jobs()), words)
    words = [word for word in words if not word.startswith("plugins=")]
    if not job_words(words) or len(job_words(words)) != len(words):
        raise UserError("sweep extend: say which values come in, such as optimizer.lr=1e-1 or seed=range(5,10)")
    grid = axes(facts["words"], facts["sweeper"].get("params"))
    for name, values in axes(words).items():
        before = grid.setdefault(name, [])
        before += [word for word in values if word not in before]
    return add(str(folder.path), grid, arguments(facts, facts["words"]))


def add(name: str, grid: Axes, args: Namespace) -> int:
    """Freeze, check and run the jobs of `grid` that the sweep `name` doesn't have, and what is left of the others.

    What the sweep knows already of conf/ is taken from there, so that old and new jobs can be compared.
    """
    folder = find(name)
    facts = folder.read()
    if facts["kind"] != "grid":
        raise UserError(f"sweep.extend: {folder.path} is a search; dlrun sweep resume hydra.sweeper.n_trials=… goes on")
    over = [*facts["swept"], *(name for name in swept(grid) if name not in facts["swept"])]
    jobs = folder.read_jobs()
    known = [key(job.config, over) for job in jobs]
    first = 1 + max((job.number for job in jobs), default=-1)
    composer = Composer(args, bases=folder.read_bases())
    launcher = build_launcher(facts["launcher"], folder)
    asked = Policy(**facts["policy"])
    new, _ = prepare(composer, combinations(grid), over, facts["naming"], asked, launcher.elsewhere, first, known)
    taken = {job.folder for job in jobs} & {job.folder for job in new}
    if taken:
        raise UserError(f"hydra.sweep.subdir: the new jobs would have folders of the old ones ({', '.join(taken)})")
    folder.write_bases(composer.bases)
    folder.append(new)
    folder.update(swept=over)
    print(f"{len(new)} new job{'s' * (len(new) != 1)} for {folder.path}")
    return run(folder, launcher=launcher)
