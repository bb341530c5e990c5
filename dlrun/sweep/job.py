"""One job of a sweep, in a process of its own: python -m dlrun.sweep.job SWEEP_FOLDER NUMBER."""

from __future__ import annotations

import faulthandler
import logging
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dlrun.distributed import Ranks, agreed, begin, telling
from dlrun.ending import run_to_end
from dlrun.errors import RunFailed, StopSignal, UserError
from dlrun.locks import hold
from dlrun.logs import configure, silence
from dlrun.runfolder import RunFolder
from dlrun.signals import stop_as_exit
from dlrun.sweep.folder import FrozenJob, SweepFolder
from dlrun.sweep.launchers.parent import end_with_parent
from dlrun.sweep.state import ENDED, State, state_of
from dlrun.sweep.surroundings import write_hydras
from dlrun.torchrun import follows

log = logging.getLogger("dlrun")
LOOK = 0.5  # seconds between two looks at a run that another process has
Hopeless = Callable[[Mapping[str, Any]], bool]


def main() -> None:
    """Ends in SystemExit with the run's exit code, which is dlrun's."""
    faulthandler.enable()  # what a crash leaves is in console.log
    stop_as_exit()
    end_with_parent()
    try:
        code = run_frozen(Path(sys.argv[1]), int(sys.argv[2]))
    except (KeyboardInterrupt, StopSignal) as error:
        raise SystemExit(error.code if isinstance(error, StopSignal) else 130) from None
    raise SystemExit(code)


def run_frozen(path: Path, number: int) -> int:
    """Run job `number` of the sweep in `path`, or go on with it; returns its exit code.

    A job that has ended already stays as it is. Raises KeyboardInterrupt or SystemExit if it is stopped before it has
    begun, and nothing else: what goes wrong is in the job's log and summary.
    """
    folder = SweepFolder(path)
    job = folder.read_job(number)
    run = folder.run(job)
    if follows():
        silence()
    try:
        ranks = begin()
        with telling(ranks):
            if agreed(ranks, lambda: _awaited(run)) not in ENDED:
                _train(folder, job, run, ranks)
    except UserError as error:
        _note(run, str(error), 2)
        return 2
    except RunFailed as error:
        return error.exit_code
    except Exception as error:  # what train() doesn't know of
        traceback.print_exc()
        _note(run, f"{type(error).__name__}: {error}", 1)
        return 1
    finally:
        if not follows():
            run.release()
    return 0


def _awaited(run: RunFolder) -> State:
    while (state := state_of(run)) == "running":  # of a sweep that was killed; it goes as soon as it has noticed
        time.sleep(LOOK)
    return state


def _train(folder: SweepFolder, job: FrozenJob, run: RunFolder, ranks: Ranks | None) -> None:
    from dlrun.restoration import Resumption
    from dlrun.train import Job, train

    config, goes_on = agreed(ranks, lambda: _claimed(folder, job, run))
    resumes = Resumption(config, job.command) if goes_on else None
    hopeless = None if follows() else _hopeless(folder, job)
    logging.captureWarnings(True)
    names = (job.choices, job.changed, folder.name)
    train(config, Job(run.path, job.run_id, *names, resumes=resumes, hopeless=hopeless, ranks=ranks))


def _claimed(folder: SweepFolder, job: FrozenJob, run: RunFolder) -> tuple[dict[str, Any], bool]:
    """Make the job's folder this process's; returns the config, and whether a run goes on there."""
    config, goes_on = job.config, run.summary.exists()
    if goes_on:
        run.reopen()
        if run.config.exists():  # it wasn't killed between the two; a longer training, say, may have been asked for
            config = run.read_config()
    else:
        run.path.mkdir(parents=True, exist_ok=True)
        run.claim(job.run_id, job.command)
    run.write_config(config)
    write_hydras(run.path, folder.read()["naming"]["output_subdir"], config, job.overrides)
    configure(run)
    return config, goes_on


def _hopeless(folder: SweepFolder, job: FrozenJob) -> Hopeless | None:
    """What a search says of each evaluation; None where nobody asks."""
    if job.trial is None:
        return None
    from dlrun.sweep.search.pruning import judge

    return judge(folder, job)


def _note(run: RunFolder, error: str, code: int) -> None:
    """Put into log and summary what ended the job before or beside its training; of several processes rank 0 does."""
    if follows():
        return
    log.error("%s", error)
    try:
        hold(run.lock)  # what another process has isn't failed
        run.update_summary(status="failed", error=error, exit_code=code)
    except (OSError, UserError) as problem:
        print(f"dlrun: {run.summary} couldn't be written: {problem}", file=sys.stderr)


if __name__ == "__main__":
    run_to_end(main)
