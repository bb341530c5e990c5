"""What a report in W&B is about: a project, some runs of it or a sweep's, and what there is to be seen of them."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlrun.differences import flat
from dlrun.errors import UserError, shortened
from dlrun.history import better_end, read
from dlrun.identity import matters
from dlrun.runfolder import RunFolder

log = logging.getLogger("dlrun")

# Of runs that nobody has looked at: what usually differs.
USUAL_KEYS = ("model.name", "optimizer.name", "optimizer.lr", "data.batch_size", "scheduler.name", "trainer.max_epochs")
# Of the keys that make runs different ones, those that make no difference to a result, or only by chance.
UNTOLD = ("plugins", "seed", "data.root")
MOST_KEYS = 12  # axes of parallel coordinates that can be told apart
LONGEST_NAME = 80  # characters
MOST_RUNS = 1_000  # in a filter by their ids


@dataclass(frozen=True)
class Subject:
    """Where to look, and for what. No `run_ids` and no `group` is the whole project."""

    project: str
    entity: str | None = None  # None is whoever is logged in
    run_ids: tuple[str, ...] = ()
    group: str | None = None
    monitor: str = "val/acc"
    minimize: bool = False
    metrics: tuple[str, ...] = ("loss", "acc")  # without their split
    keys: tuple[str, ...] = USUAL_KEYS  # of the config, dotted: in which the runs differ

    @property
    def single(self) -> bool:
        return len(self.run_ids) == 1

    @property
    def title(self) -> str:
        """What it is called, if nobody says."""
        if self.single:
            return f"run {self.run_ids[0]}"
        if self.group is not None:
            return f"sweep {shortened(self.group, LONGEST_NAME)}"
        count = f"{len(self.run_ids):,} runs" if self.run_ids else "runs"
        return f"{count} of {shortened(self.project, LONGEST_NAME)}"


def of_project(project: str, entity: str | None, group: str | None) -> Subject:
    """All runs of a project, or those of a sweep; nothing is looked up."""
    return Subject(project, entity, group=group)


def of_runs(
    folders: Sequence[Path], project: str | None = None, entity: str | None = None, group: str | None = None
) -> Subject:
    """Runs of this machine, by what their folders say; `group` stands for their ids, if they are a sweep's.

    Those that can't be read, or that W&B isn't told of, are left out with a line. Raises UserError if none are left,
    or if they are in several projects.
    """
    known = list(_told(folders))
    if not known:
        raise UserError("wandb-report: none of these runs is in W&B; choose others, or say project=…")
    found = {(wandb.get("project") or "dlrun", wandb.get("entity")) for _, _, wandb, _ in known}
    if project is None and len(found) > 1:
        names = ", ".join(sorted(f"{entity or '(yours)'}/{name}" for name, entity in found))
        raise UserError(f"project: these runs are in several, {names}; say which, project=… (and entity=…)")
    first_project, first_entity = found.pop()
    configs = [config for _, config, _, _ in known]
    trainer = configs[0].get("trainer") or {}
    monitor = str(trainer.get("monitor") or "val/acc")
    seen = [metric for _, _, _, metrics in known for metric in metrics]
    ids = tuple(dict.fromkeys(run_id for run_id, _, _, _ in known))
    if group is None and len(ids) > MOST_RUNS:
        raise UserError(f"runs: at most {MOST_RUNS:,} can be named, got {len(ids):,}; say project=…, or group=…")
    return Subject(
        project or first_project,
        entity or (first_entity if project is None else None),
        run_ids=() if group is not None else ids,
        group=group,
        monitor=monitor,
        minimize=better_end(monitor, trainer.get("mode")) == "min",
        metrics=tuple(dict.fromkeys(seen)) or Subject.metrics,
        keys=() if len(ids) == 1 else differing(configs),
    )


def of_sweep(folder: Path, project: str | None = None, entity: str | None = None) -> Subject:
    """The jobs of a sweep, as the group that they are in W&B. Raises UserError as `of_runs` does."""
    try:
        facts = json.loads((folder / "sweep.json").read_text(encoding="utf-8"))
        swept = [str(key) for key in facts.get("swept") or ()]
    except (OSError, ValueError, AttributeError):
        swept = []  # its runs say it as well
    jobs = sorted(path.parent for path in folder.glob("*/summary.json"))
    if not jobs:
        raise UserError(f"run: {folder} is a sweep without a run so far")
    subject = of_runs(jobs, project, entity, group=folder.absolute().name)
    config = flat(RunFolder(jobs[0]).read_config())
    keys = [key if key in config else f"{key}.name" for key in swept if key != "seed"]  # a choice of a group, too
    return Subject(**{**subject.__dict__, "keys": tuple(keys[:MOST_KEYS]) or subject.keys})


def differing(configs: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Keys that all of the configs have, in which they differ, of those that can make a difference."""
    rows = [flat(config) for config in configs]
    shared = [key for key in rows[0] if all(key in row for row in rows)]
    told = [key for key in shared if matters(key) and key not in UNTOLD]
    return tuple(key for key in told if len({json.dumps(row[key], default=str) for row in rows}) > 1)[:MOST_KEYS]


def _told(folders: Sequence[Path]) -> Iterator[tuple[str, dict[str, Any], Mapping[str, Any], list[str]]]:
    """Run id, config, what it says of W&B, and its metrics: of each run that W&B is told of."""
    for path in folders:
        folder = RunFolder(path)
        try:
            run_id, config = str(folder.read_summary()["run_id"]), folder.read_config()
        except UserError as error:
            log.warning("left out: %s", error)
            continue
        tracking = config.get("tracking")
        wandb = tracking.get("wandb") if isinstance(tracking, Mapping) else None
        if not isinstance(wandb, Mapping):
            log.warning("left out: %s isn't in W&B (tracking)", path)
            continue
        yield run_id, config, wandb, read(folder.metrics).metrics()
