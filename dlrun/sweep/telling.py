"""A sweep's own W&B run: what it came to, in the group of its jobs."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from dlrun.runfolder import finite, new_run_id
from dlrun.sweep.folder import SweepFolder
from dlrun.sweep.state import state_of

log = logging.getLogger("dlrun")
EXIT_CODES = {"finished": 0, "failed": 1}  # by sweep.json's status; all else was interrupted


def tell(folder: SweepFolder, winner: Mapping[str, Any]) -> None:
    """Tell W&B of the sweep: results.csv as a table, the pictures of plots/, and what is said of the `winner`.

    Only if its jobs were told, offline if they were, and always in the same run, whose id sweep.json keeps. Raises
    nothing, and waits as a training does at its end.
    """
    try:
        _tell(folder, winner)
    except Exception as error:
        log.debug("W&B", exc_info=True)
        log.warning("W&B isn't told of the sweep: %s", error)


def _tell(folder: SweepFolder, winner: Mapping[str, Any]) -> None:
    facts, jobs = folder.read(), folder.read_jobs()
    told = [job for job in jobs if (job.config.get("tracking") or {}).get("wandb")]
    if not told:
        return
    from dlrun.config import WandbConfig
    from dlrun.tracking.wandb.sweeps import summarize_sweep

    run_id = facts.get("wandb_run") or new_run_id()
    if "wandb_run" not in facts:
        folder.update(wandb_run=run_id)
    states = Counter(state_of(folder.run(job)) for job in jobs)
    wandb = WandbConfig(**told[0].config["tracking"]["wandb"])
    summarize_sweep(
        folder.path,
        run_id,
        [(folder.run(job).path, job.run_id) for job in told],
        name=folder.name,
        config=_shared(told[0].config, facts["swept"]),
        swept=facts["swept"],
        table=folder.results_csv,
        pictures=sorted(folder.plots.glob("*.png")),
        values=finite({"jobs": len(jobs), **states, **winner}),
        exit_code=EXIT_CODES.get(facts["status"], 130),
        project=wandb.project,
        entity=wandb.entity,
        mode=wandb.mode,
        init_timeout=wandb.init_timeout,
        tags=[tag for tag in told[0].config["tags"] if all(tag in job.config["tags"] for job in told)],
    )


def _shared(config: Mapping[str, Any], swept: list[str]) -> dict[str, Any]:
    """What all jobs have in common: a job's config without what is swept over, which its tags repeat."""
    shared = deepcopy(dict(config))
    for key in ["tags", *swept]:
        *groups, name = key.split(".")
        inside: Any = shared
        for group in groups:
            inside = inside.get(group) if isinstance(inside, dict) else None
        if isinstance(inside, dict):
            inside.pop(name, None)
    return shared
