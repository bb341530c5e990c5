"""The jobs of a search: trials are asked for one by one, and told what became of them.

A trial is running in the study from the moment it is asked for, and says whose it is. What is left running by a kill is
taken up again: with its job in the manifest it goes on in its folder; without one it is completed first. So the study
comes to the number of trials that was asked for, with none twice.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from dlrun.errors import UserError
from dlrun.locks import holding
from dlrun.sweep.composition import Composer
from dlrun.sweep.folder import FrozenJob, SweepFolder
from dlrun.sweep.freezing import freeze
from dlrun.sweep.search.objectives import value_of
from dlrun.sweep.search.space import Space
from dlrun.sweep.search.storage import told_as_one_line
from dlrun.sweep.state import State, state_of

OWNER, HOST, FOLDER, SURPLUS = "dlrun:sweep", "dlrun:host", "dlrun:folder", "dlrun:surplus"  # attributes of trials


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a search is told beside its study and its space."""

    owner: str  # this sweep's mark on its trials
    objectives: list[str]
    n_trials: int  # of the whole study
    n_jobs: int | None  # of this sweep's at a time; None leaves it to the launcher
    naming: Mapping[str, Any]  # of jobs' folders
    where: str  # the storage, for messages
    asking: AbstractContextManager[None]  # held while a trial is asked for


class Search:
    """A driver's source: first what an earlier process of this sweep has left, then new trials."""

    def __init__(self, folder: SweepFolder, study: Study, space: Space, composer: Composer, plan: Plan):
        self.folder, self.study, self.space, self.composer, self.plan = folder, study, space, composer, plan
        self.jobs = folder.read_jobs()
        self.running: set[int] = set()
        self.left: deque[FrozenJob] = deque()
        with told_as_one_line(plan.where):
            strays = self._take_up()
        self.left += [self._job(trial) for trial in strays]
        self.done = len(self.jobs) - len(self.left)
        self._count()

    def next(self) -> FrozenJob | None:
        if self.plan.n_jobs is not None and len(self.running) >= self.plan.n_jobs:
            return None
        job = self.left.popleft() if self.left else self._new()
        self._count()
        if job is not None:
            self.running.add(job.number)
        return job

    def ended(self, job: FrozenJob, state: State, summary: Mapping[str, Any]) -> None:
        """Tell the study. A job that was interrupted isn't over."""
        self.running.discard(job.number)
        if state in ("done", "pruned", "failed"):
            with told_as_one_line(self.plan.where):
                self._tell(job, state, summary)

    def _tell(self, job: FrozenJob, state: State, summary: Mapping[str, Any]) -> None:
        values = [value_of(name, summary) for name in self.plan.objectives]
        assert job.trial is not None
        if state == "pruned":
            self.study.tell(job.trial, state=TrialState.PRUNED, skip_if_finished=True)
        elif state == "failed" or None in values:
            self.study.tell(job.trial, state=TrialState.FAIL, skip_if_finished=True)
        else:
            known = [value for value in values if value is not None]
            self.study.tell(job.trial, known, state=TrialState.COMPLETE, skip_if_finished=True)

    def _count(self) -> None:
        with told_as_one_line(self.plan.where):
            self.total = len(self.jobs) + self._missing()

    def _new(self) -> FrozenJob | None:
        with told_as_one_line(self.plan.where):
            trial = self._ask()
        return None if trial is None else self._job(trial)

    def _ask(self) -> Trial | None:
        """Ask for a trial, unless the study has all it should have."""
        with self.plan.asking:
            if self._missing() < 1:
                return None
            mark = {OWNER: self.plan.owner, HOST: socket.gethostname(), FOLDER: str(self.folder.path.absolute())}
            # With its mark from the first moment: asked for first and marked then, a kill in between leaves a stray.
            made = self.study._storage.create_new_trial(
                self.study._study_id, create_trial(state=TrialState.RUNNING, user_attrs=mark)
            )
        trial = self._trial(made)
        if trial.number >= self.plan.n_trials:  # others share the study, on a server where nobody can lock it
            trial.set_user_attr(SURPLUS, True)
            self.study.tell(trial, state=TrialState.FAIL)
            return None
        return trial

    def _trial(self, made: int) -> Trial:
        """The trial that the storage calls `made`, of a study object without memories: one that Optuna asks for a
        second time would show its sampler the trials of the first time."""
        study = self.study
        return Trial(Study(study.study_name, study._storage, study.sampler, study.pruner), made)

    def _job(self, trial: Trial) -> FrozenJob:
        """The frozen job of a trial, in the manifest; what the trial was given already, it keeps."""
        with told_as_one_line(self.plan.where):
            values = self.space.suggest(trial)
        words = self.space.words(values)
        swept = [parameter.name for parameter in self.space.parameters]
        job = freeze(self.composer, words, len(self.jobs), swept, self.plan.naming, trial.number)
        self.folder.append([job])
        self.jobs.append(job)
        return job

    def _missing(self) -> int:
        trials = self.study.get_trials(deepcopy=False)
        return max(0, self.plan.n_trials - sum(SURPLUS not in trial.user_attrs for trial in trials))

    def _take_up(self) -> list[Trial]:
        """Bring the study and the folder together again, as they were left; returns the trials that have no job."""
        trials = {trial.number: trial for trial in self.study.get_trials(deepcopy=False)}
        for job in self.jobs:
            trial = trials.get(-1 if job.trial is None else job.trial)
            if trial is None:
                raise UserError(f"run: {self.folder.jobs} has trial {job.trial}, and the study doesn't; is it another?")
            if trial.state is TrialState.RUNNING and self._is_ours(trial):
                run = self.folder.run(job)
                state = state_of(run)
                if state in ("done", "pruned", "failed"):
                    self._tell(job, state, run.read_summary())
                else:
                    self.left.append(job)
        known = {job.trial for job in self.jobs}
        return [
            self._trial(trial._trial_id)
            for trial in trials.values()
            if trial.state is TrialState.RUNNING
            and trial.number not in known
            and (self._is_ours(trial) or self._adopt(trial))
        ]

    def _is_ours(self, trial: FrozenTrial) -> bool:
        return bool(trial.user_attrs.get(OWNER) == self.plan.owner)

    def _adopt(self, trial: FrozenTrial) -> bool:
        """Take a trial over from a sweep on this machine that nobody runs; it begins again, in this one's folder."""
        theirs = trial.user_attrs.get(FOLDER)
        if trial.user_attrs.get(HOST) != socket.gethostname() or theirs is None:
            return False
        try:
            if not Path(theirs).is_dir():
                return self._mark(trial)
            with holding(SweepFolder(Path(theirs)).lock):
                return self._mark(trial)
        except UserError:  # it is run
            return False

    def _mark(self, trial: FrozenTrial) -> bool:
        storage = self.study._storage
        now = storage.get_trial(trial._trial_id)
        if now.state is not TrialState.RUNNING or now.user_attrs.get(OWNER) != trial.user_attrs.get(OWNER):
            return False  # somebody was faster
        storage.set_trial_user_attr(trial._trial_id, FOLDER, str(self.folder.path.absolute()))
        storage.set_trial_user_attr(trial._trial_id, OWNER, self.plan.owner)
        return True
