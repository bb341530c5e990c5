"""Run what is left to do in a sweep's folder, and say what came of it."""

from __future__ import annotations

import logging
import time
from collections import Counter

from dlrun.errors import RunFailed
from dlrun.sweep.answers.report import report
from dlrun.sweep.answers.status import go_on
from dlrun.sweep.driver import Driver, Source
from dlrun.sweep.folder import SweepFolder
from dlrun.sweep.grid import Grid
from dlrun.sweep.launchers import Launcher
from dlrun.sweep.launchers import build as build_launcher
from dlrun.sweep.policy import Policy
from dlrun.sweep.state import state_of
from dlrun.sweep.telling import tell

log = logging.getLogger("dlrun")

STATUS = {0: "finished", 1: "failed"}


def run(folder: SweepFolder, launcher: Launcher | None = None, source: Source | None = None) -> int:
    """Returns the exit code: 0, 1 if a job failed, 130 or 143 if somebody said stop. Raises UserError."""
    began = time.monotonic()
    with folder.held():
        facts = folder.read()
        launcher = launcher or build_launcher(facts["launcher"], folder)
        source = source or Grid(folder)
        code = _drive(folder, source, launcher, Policy(**facts["policy"]))
        states = Counter(state_of(folder.run(job)) for job in folder.read_jobs())
        if code == 0 and states["failed"]:
            code = 1  # of a search: a trial that failed isn't run again by a resume
        seconds = (facts.get("seconds") or 0.0) + time.monotonic() - began
        folder.update(status=STATUS.get(code, "interrupted"), seconds=round(seconds, 3))
        if states:
            _conclude(folder, code)
        if code:
            over = states["done"] + states["pruned"] + states["failed"] == source.total
            print(go_on(folder.path, facts.get("kind") == "search" and over))
        return code


def _drive(folder: SweepFolder, source: Source, launcher: Launcher, policy: Policy) -> int:
    try:
        folder.update(status="running")
        _announce(folder, source, launcher)
        return Driver(folder, source, launcher, policy).run()
    except BrokenPipeError:  # nobody listens any more
        raise
    except OSError as error:  # the disk is full, or the folder has gone; what ran was asked to save
        log.debug("the sweep broke off", exc_info=True)
        log.error("the sweep broke off: %s; to go on: dlrun sweep resume run=%s", error, folder.path)
        raise RunFailed(str(error), 1) from error


def _announce(folder: SweepFolder, source: Source, launcher: Launcher) -> None:
    left = source.total - source.done
    at_once = f", {launcher.slots} at a time" if 1 < launcher.slots < left else ""
    done = f" ({source.done} of {source.total} are done)" if source.done else ""
    searched = not left and folder.read().get("kind") == "search"
    full = "; the study has all of its trials, hydra.sweeper.n_trials=… asks for more" if searched else ""
    print(f"sweep {folder.path}: {left} job{'s' * (left != 1)} to run{done}{at_once}{full}", flush=True)


def _conclude(folder: SweepFolder, code: int) -> None:
    """The table, here and in W&B, and how to go on."""
    winner = {}
    try:
        winner = report(folder.path, draw=code in STATUS)  # somebody who says stop doesn't wait for pictures
    except Exception as error:  # the jobs have done what they had to
        log.debug("report", exc_info=True)
        log.error("no report of the sweep: %s; dlrun sweep report run=%s tries again", error, folder.path)
    tell(folder, winner)
