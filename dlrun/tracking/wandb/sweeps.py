"""What a sweep came to, as a W&B run of its own beside those of its jobs."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dlrun.tracking.wandb import fitting
from dlrun.tracking.wandb.charts import images
from dlrun.tracking.wandb.parts import parts
from dlrun.tracking.wandb.session import LAST, Session

JOB_TYPE = "sweep-summary"


def summarize_sweep(
    folder: Path,
    run_id: str,
    jobs: Sequence[tuple[Path, str]],
    *,
    name: str,
    config: Mapping[str, Any],
    swept: Sequence[str],
    table: Path,
    pictures: Sequence[Path],
    values: Mapping[str, Any],
    exit_code: int,
    project: str,
    entity: str | None,
    mode: str,
    init_timeout: float,
    tags: Sequence[str] = (),
    notes: str | None = None,
) -> None:
    """The W&B run `run_id`, in the sweep's group `name`: a CSV file as a table, the `pictures`, the `values`.

    `jobs` are the run folders and ids of the sweep's jobs: if W&B knows none of them it isn't told, and if all that it
    knows is offline, so is this. Told again, after a resume or for another report, it is the same run, with a row more.
    `config` is what the jobs share, `swept` the keys in which they differ. Lasts a second or two; with a server that
    doesn't answer at most `init_timeout` and 35 s. What is wrong is logged, nothing is raised.
    """
    known = [part for path, job in jobs for part in parts(path.absolute(), job)]
    if not known:
        return
    options = {
        "dir": str(folder.absolute()),
        "id": run_id,
        "name": f"{name} summary",
        "config": {**config, "swept": list(swept)},
        "project": project,
        "entity": entity,
        "group": name,
        "job_type": JOB_TYPE,
        "tags": fitting(tags),
        "notes": notes,
    }
    offline = all(part.offline for part in known)
    resumes = bool(parts(folder.absolute(), run_id))
    session = Session(folder.absolute(), options, "offline" if offline else mode, init_timeout, resumes)

    def say(run: Any, number: int | None) -> None:
        import wandb

        shown, (columns, rows) = images(pictures), _read(table)
        shown["results"] = wandb.Table(columns=list(columns), data=rows)
        run.log({**values, **shown}, step=number, commit=True)
        run.summary.update(dict(values))

    session.start()
    session.put(LAST, say)
    session.end(exit_code)
    session.report()


def _read(table: Path) -> tuple[list[str], list[list[Any]]]:
    """A CSV file's columns and its rows. A column whose cells are all numbers has numbers; what is empty is None."""
    with table.open(newline="", encoding="utf-8") as file:
        names, *rows = csv.reader(file)
    columns = [_numbers(column) for column in zip(*rows, strict=True)]
    return names, [list(row) for row in zip(*columns, strict=True)]


def _numbers(cells: Sequence[str]) -> list[Any]:
    for kind in (int, float):
        try:
            return [kind(cell) if cell else None for cell in cells]
        except ValueError:
            continue
    return [cell or None for cell in cells]
