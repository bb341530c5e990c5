"""Sweep folders as a sweep leaves them, made in a moment: for what only reads them."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from dlrun.runfolder import RunFolder
from dlrun.sweep.folder import FrozenJob, SweepFolder

Made = Mapping[str, Any]  # what a job came to: status, best, test, error, curve, …


def make(
    path: Path,
    jobs: Sequence[Mapping[str, Any]],
    came_to: Callable[[Mapping[str, Any], int], Made | None],
    choices: Sequence[str] = ("model",),
    **facts: Any,
) -> SweepFolder:
    """A sweep of `jobs`, each a mapping of swept key → value; `came_to(values, number)` is None of a pending one."""
    path.mkdir(parents=True)
    folder = SweepFolder(path)
    swept = list(dict.fromkeys(key for job in jobs for key in job))
    about = {"kind": "grid", "command": ["dlrun", "-m", "…"], "words": [], "flags": {}, "swept": swept}
    about |= {"monitor": "val/acc", "mode": "max"}
    folder.begin(about | {"status": "finished", "seconds": 12.0} | facts)
    frozen = []
    for number, values in enumerate(jobs):
        config: dict[str, Any] = {"seed": 0, "trainer": {"max_epochs": 3}}
        for key, value in values.items():
            place = config
            *parents, last = key.split(".")
            for part in parents:
                place = place.setdefault(part, {})
            place[last] = {"name": value} if key in choices else value
        job = FrozenJob(
            number=number,
            key=f"{number:016x}",
            run_id=f"run{number:05}",
            folder=str(number),
            overrides=[f"{key}={value}" for key, value in values.items()],
            choices={key: values[key] for key in choices if key in values},
            config=config,
            label=" ".join(f"{key}={value}" for key, value in values.items()),
            trial=number if facts.get("kind") == "search" else None,
        )
        frozen.append(job)
        made = came_to(values, number)
        if made is not None:
            came_to_files(folder.run(job), job, made)
    folder.append(frozen)
    return folder


def came_to_files(run: RunFolder, job: FrozenJob, made: Made) -> None:
    """What a run leaves: its summary, config and metrics."""
    run.path.mkdir()
    curve = made.get("curve", [])
    summary = {"format": 1, "run_id": job.run_id, "status": "finished", "error": None, "exit_code": 0}
    summary |= {"epochs": 3, "steps": 30, "seconds": 2.0, "samples_per_second": 1000.0, "parameters": 4810}
    summary |= {key: value for key, value in made.items() if key != "curve"}
    run.summary.write_text(json.dumps(summary))
    run.config.write_text(yaml.safe_dump(job.config))
    with run.metrics.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["epoch", "step", "val/acc"])
        writer.writerows([epoch, 10 * epoch, value] for epoch, value in enumerate(curve, 1))


def grid(**values: Sequence[Any]) -> list[dict[str, Any]]:
    """All combinations; `__` in a name is a dot."""
    keys = [key.replace("__", ".") for key in values]
    return [dict(zip(keys, chosen, strict=True)) for chosen in product(*values.values())]


def scored(acc: float | None, **more: Any) -> dict[str, Any]:
    """A run with this best val/acc, and a test/acc a little below."""
    best = {} if acc is None else {"epoch": 2, "val/acc": acc, "val/loss": 1 - acc}
    return {"best": best, "test": {} if acc is None else {"test/acc": acc - 0.01}} | more
