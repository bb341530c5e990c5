"""What a job of a search does after each evaluation: report it, and ask whether it is hopeless."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from dlrun.sweep.folder import FrozenJob, SweepFolder

log = logging.getLogger("dlrun")


def judge(folder: SweepFolder, job: FrozenJob) -> Callable[[Mapping[str, Any]], bool] | None:
    """A function of an epoch's row: whether the trial is given up there. None if the search has no pruner.

    A study that can't be reached costs the pruning, and nothing else.
    """
    plan = folder.read().get("study") or {}
    if job.trial is None or plan.get("pruner") is None:
        return None
    return Judge(folder, plan, job.trial)


class Judge:
    """Opens the study at the first evaluation, and leaves it alone once that or a later one has failed."""

    def __init__(self, folder: SweepFolder, plan: Mapping[str, Any], number: int):
        self.folder, self.plan, self.number = folder, plan, number
        self.metric = str(next(iter(plan["objectives"])))
        self.trial: Any = None
        self.lost = False

    def __call__(self, row: Mapping[str, Any]) -> bool:
        value = row.get(self.metric)
        if value is None or self.lost:
            return False
        try:
            if self.trial is None:
                self.trial = self._open()
            if row["epoch"] not in self.trial.storage.get_trial(self.trial._trial_id).intermediate_values:
                self.trial.report(float(value), int(row["epoch"]))
            return bool(self.trial.should_prune())
        except Exception as error:
            self.lost = True
            log.warning("no pruning from here on: %s", error)
            return False

    def _open(self) -> Any:
        import optuna

        from dlrun.sweep.search.pruners import build_pruner
        from dlrun.sweep.search.reaching import reach, storage_of

        # A sampler that has nothing to say: this trial's values were drawn long ago.
        sampler = optuna.samplers.RandomSampler()
        study = reach(storage_of(self.folder), self.plan["name"], sampler, build_pruner(self.plan["pruner"]))
        storage = study._storage
        return optuna.trial.Trial(study, storage.get_trial_id_from_study_id_trial_number(study._study_id, self.number))
