"""dlrun sweep: a multirun, afterwards

  dlrun sweep resume run=DIR|last                what is missing, failed or interrupted; the rest stays as it is
  dlrun sweep extend run=DIR KEY=VALUES …        more values for a grid; only the new jobs run
  dlrun sweep status run=DIR|last                what is done, running, failed, and the time left; format=json
  dlrun sweep report run=DIR|last                results.csv, results.md and plots/ once more, and the table
  dlrun sweep best   run=DIR|last                the winner; copy_to=conf/experiment/mine.yaml makes a recipe of it

resume takes words that change how it is run, not what:
  hydra/launcher=… hydra.launcher.…=…            who runs the jobs, and how many at a time
  sweep.on_error=continue|stop|retry             what a failure means; sweep.max_retries=…
  hydra.sweeper.n_trials=…                       how many trials a search comes to; n_jobs=…, how many at a time
  plugins=[…] hydra.launcher.setup=…             what the sweep imports or tells a shell, by your own word once more

best takes
  copy_to=FILE.yaml                              a recipe of it, for dlrun experiment=…; force=true replaces the file
  job=N                                          the configuration of that job instead of the winner

A configuration is all jobs that differ in their seed alone: they are ranked by the mean of the monitored metric, and
one of which a seed failed isn't ranked. DIR/results.md says all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dlrun.errors import UserError, choices
from dlrun.sweep.finding import find
from dlrun.sweep.folder import SweepFolder


def run(words: Sequence[str]) -> int:
    """`dlrun sweep VERB run=DIR …`; returns the exit code. Raises UserError."""
    if not words or words[0] not in VERBS:
        given = words[0] if words else ""
        raise UserError(f"sweep: expected a verb, got '{given}'{choices(given, VERBS)}; see dlrun sweep --help")
    named = [word.partition("=")[2] for word in words[1:] if word.startswith("run=")]
    if len(named) != 1 or not named[0]:
        raise UserError(f"sweep {words[0]}: say which sweep: dlrun sweep {words[0]} run=DIR (or run=last)")
    return VERBS[words[0]](find(named[0]), [word for word in words[1:] if not word.startswith("run=")])


def _resume(folder: SweepFolder, words: Sequence[str]) -> int:
    from dlrun.sweep.resuming import resume

    return resume(folder, words)


def _extend(folder: SweepFolder, words: Sequence[str]) -> int:
    from dlrun.sweep.extending import extend

    return extend(folder, words)


def _status(folder: SweepFolder, words: Sequence[str]) -> int:
    from dlrun.sweep.answers.status import run

    return run(folder, words)


def _report(folder: SweepFolder, words: Sequence[str]) -> int:
    from dlrun.sweep.answers.report import run

    return run(folder, words)


def _best(folder: SweepFolder, words: Sequence[str]) -> int:
    from dlrun.sweep.answers.best import run

    return run(folder, words)


VERBS: dict[str, Callable[[SweepFolder, Sequence[str]], int]] = {
    "resume": _resume,
    "extend": _extend,
    "status": _status,
    "report": _report,
    "best": _best,
}
